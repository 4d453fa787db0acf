//! Objects of SNMP whose meaning everybody shares: the counters of interfaces (RFC 2863), their speed, and how long a device has
//! been up.

use serde::{Deserialize, Serialize};

use super::Width;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Object {
    /// It counts up to a width; whether bytes of a line.
    Counter(Width, bool),
    /// Speed of an interface, in units of so many bits per second.
    Speed(i64),
    /// How long the device has been up, hundredths of a second.
    UpTime,
    /// It goes up and down.
    Gauge,
}

/// Columns of `ifTable` and `ifXTable`: name, number, what it is.
const INTERFACE: &[(&str, &str, Object)] = &[
    ("ifSpeed", "2.2.1.5", Object::Speed(1)),
    ("ifInOctets", "2.2.1.10", Object::Counter(Width::Bits32, true)),
    ("ifInUcastPkts", "2.2.1.11", Object::Counter(Width::Bits32, false)),
    ("ifInNUcastPkts", "2.2.1.12", Object::Counter(Width::Bits32, false)),
    ("ifInDiscards", "2.2.1.13", Object::Counter(Width::Bits32, false)),
    ("ifInErrors", "2.2.1.14", Object::Counter(Width::Bits32, false)),
    ("ifInUnknownProtos", "2.2.1.15", Object::Counter(Width::Bits32, false)),
    ("ifOutOctets", "2.2.1.16", Object::Counter(Width::Bits32, true)),
    ("ifOutUcastPkts", "2.2.1.17", Object::Counter(Width::Bits32, false)),
    ("ifOutNUcastPkts", "2.2.1.18", Object::Counter(Width::Bits32, false)),
    ("ifOutDiscards", "2.2.1.19", Object::Counter(Width::Bits32, false)),
    ("ifOutErrors", "2.2.1.20", Object::Counter(Width::Bits32, false)),
    ("ifInMulticastPkts", "31.1.1.1.2", Object::Counter(Width::Bits32, false)),
    ("ifInBroadcastPkts", "31.1.1.1.3", Object::Counter(Width::Bits32, false)),
    ("ifOutMulticastPkts", "31.1.1.1.4", Object::Counter(Width::Bits32, false)),
    ("ifOutBroadcastPkts", "31.1.1.1.5", Object::Counter(Width::Bits32, false)),
    ("ifHCInOctets", "31.1.1.1.6", Object::Counter(Width::Bits64, true)),
    ("ifHCInUcastPkts", "31.1.1.1.7", Object::Counter(Width::Bits64, false)),
    ("ifHCInMulticastPkts", "31.1.1.1.8", Object::Counter(Width::Bits64, false)),
    ("ifHCInBroadcastPkts", "31.1.1.1.9", Object::Counter(Width::Bits64, false)),
    ("ifHCOutOctets", "31.1.1.1.10", Object::Counter(Width::Bits64, true)),
    ("ifHCOutUcastPkts", "31.1.1.1.11", Object::Counter(Width::Bits64, false)),
    ("ifHCOutMulticastPkts", "31.1.1.1.12", Object::Counter(Width::Bits64, false)),
    ("ifHCOutBroadcastPkts", "31.1.1.1.13", Object::Counter(Width::Bits64, false)),
    ("ifHighSpeed", "31.1.1.1.15", Object::Speed(1_000_000)),
];
/// `mib-2`.
const MIB2: &str = "1.3.6.1.2.1.";
/// `sysUpTime`, with its instance; `hrSystemUptime` is the host's, not that of what counts.
const UP_TIME: &str = "1.3.6.1.2.1.1.3.0";

/// What an object is, and the interface it is of: by its number, else by its name, else as the configuration says.
pub fn object(oid: &str, name: &str, data_type: &str) -> (Object, Option<i64>) {
    let oid = oid.trim_start_matches('.');
    if oid == UP_TIME {
        return (Object::UpTime, None);
    }
    let numbered = oid.strip_prefix(MIB2).and_then(|rest| {
        let (column, index) = rest.rsplit_once('.')?;
        let (_, _, object) = INTERFACE.iter().find(|(_, number, _)| *number == column)?;
        Some((*object, index.parse().ok()))
    });
    if let Some(known) = numbered {
        return known;
    }
    // Where there is a number, and it is none of these, the name may mean anything.
    let named = INTERFACE.iter().find(|(known, ..)| oid.is_empty() && known.eq_ignore_ascii_case(name));
    match named {
        Some((.., object)) => (*object, None),
        None if name.eq_ignore_ascii_case("sysUpTime") && oid.is_empty() => (Object::UpTime, None),
        None if data_type.eq_ignore_ascii_case("counter") => (Object::Counter(Width::Unknown, false), None),
        None => (Object::Gauge, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_known_by_number_and_by_name() {
        let octets = (Object::Counter(Width::Bits64, true), Some(3));
        assert_eq!(object(".1.3.6.1.2.1.31.1.1.1.6.3", "whatever", "gauge"), octets);
        assert_eq!(object("", "ifhcinoctets", "").0, octets.0);
        assert_eq!(object("1.3.6.1.2.1.31.1.1.1.15.7", "", ""), (Object::Speed(1_000_000), Some(7)));
        assert_eq!(object(".1.3.6.1.2.1.1.3.0", "", "gauge").0, Object::UpTime);
        assert_eq!(object(".1.3.6.1.4.1.9.1", "ifHCInOctets", "counter").0, Object::Counter(Width::Unknown, false));
        assert_eq!(object(".1.3.6.1.4.1.9.1", "load", "gauge").0, Object::Gauge);
        assert_eq!(object(".1.3.6.1.2.1.2.2.1.10", "", "").0, Object::Gauge, "a column without an interface");
    }
}
