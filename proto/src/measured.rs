//! What agents measure, read where it lies: texts borrow the payload, and an array is gone through item by item ([`each`]), so
//! that a large payload costs its rows and nothing beside them. Go writes nil slices as `null` and leaves out what is empty.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::payload::magnitude_us;

/// Text that borrows where it can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A `sysmon-metrics` payload.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SysmonPayload<'a> {
    /// The sample.
    #[serde(borrow)]
    pub status: Option<Sysmon<'a>>,
}

/// A sample of a host.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sysmon<'a> {
    /// When it was taken.
    #[serde(borrow)]
    pub timestamp: Option<&'a RawValue>,
    /// What the host calls itself.
    #[serde(borrow)]
    pub host_id: Option<Text<'a>>,
    /// Its address.
    #[serde(borrow)]
    pub host_ip: Option<Text<'a>>,
    /// [`Cpu`]s.
    #[serde(borrow)]
    pub cpus: Option<&'a RawValue>,
    /// [`Cluster`]s of them.
    #[serde(borrow)]
    pub clusters: Option<&'a RawValue>,
    /// [`Disk`]s.
    #[serde(borrow)]
    pub disks: Option<&'a RawValue>,
    /// [`Memory`].
    #[serde(borrow)]
    pub memory: Option<&'a RawValue>,
    /// [`Network`] interfaces.
    #[serde(borrow)]
    pub network: Option<&'a RawValue>,
    /// [`Process`]es.
    #[serde(borrow)]
    pub processes: Option<&'a RawValue>,
}

/// A core.
#[derive(Debug, Deserialize)]
pub struct Cpu<'a> {
    /// Its number.
    pub core_id: i64,
    /// Its name.
    #[serde(borrow, default)]
    pub label: Option<Text<'a>>,
    /// The cluster it is of.
    #[serde(borrow, default)]
    pub cluster: Option<Text<'a>>,
    /// Percent.
    pub usage_percent: f64,
    /// Hertz.
    #[serde(default)]
    pub frequency_hz: Option<f64>,
}

/// A cluster of cores.
#[derive(Debug, Deserialize)]
pub struct Cluster<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Hertz.
    #[serde(default)]
    pub frequency_hz: Option<f64>,
}

/// What is mounted.
#[derive(Debug, Deserialize)]
pub struct Disk<'a> {
    /// Where.
    #[serde(borrow)]
    pub mount_point: Text<'a>,
    /// What.
    #[serde(borrow, default)]
    pub device_name: Option<Text<'a>>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

/// Memory.
#[derive(Debug, Deserialize)]
pub struct Memory {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
    /// The same of swap.
    #[serde(default)]
    pub swap_used_bytes: Option<u64>,
    /// The same of swap.
    #[serde(default)]
    pub swap_total_bytes: Option<u64>,
}

/// What an interface of a host counted.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Network<'a> {
    #[serde(borrow)]
    pub interface: Text<'a>,
    pub bytes_sent: Option<u64>,
    pub bytes_recv: Option<u64>,
    pub packets_sent: Option<u64>,
    pub packets_recv: Option<u64>,
    pub errors_in: Option<u64>,
    pub errors_out: Option<u64>,
    pub drops_in: Option<u64>,
    pub drops_out: Option<u64>,
}

impl Network<'_> {
    /// What it counted, by name, and what that is counted in.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            ("bytes_sent", "bytes", self.bytes_sent),
            ("bytes_recv", "bytes", self.bytes_recv),
            ("packets_sent", "packets", self.packets_sent),
            ("packets_recv", "packets", self.packets_recv),
            ("errors_in", "packets", self.errors_in),
            ("errors_out", "packets", self.errors_out),
            ("drops_in", "packets", self.drops_in),
            ("drops_out", "packets", self.drops_out),
        ]
        .into_iter()
        .filter_map(|(name, unit, value)| Some((name, unit, value?)))
    }
}

/// A process.
#[derive(Debug, Deserialize)]
pub struct Process<'a> {
    /// Its number.
    pub pid: u32,
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Percent of one processor.
    #[serde(default)]
    pub cpu_usage: Option<f64>,
    /// Bytes.
    #[serde(default)]
    pub memory_usage: Option<u64>,
    /// What it does.
    #[serde(borrow, default)]
    pub status: Option<Text<'a>>,
    /// When it began.
    #[serde(borrow, default)]
    pub start_time: Option<&'a RawValue>,
}

/// A payload that is a list of results: of `snmp-metrics`, of `results/mtr`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Results<'a> {
    /// The list.
    #[serde(borrow)]
    pub results: Option<&'a RawValue>,
}

/// What was read of one object by SNMP.
#[derive(Debug, Deserialize)]
pub struct SnmpSample<'a> {
    /// What was asked, as the configuration calls it.
    #[serde(borrow, default)]
    pub target: Option<Text<'a>>,
    /// Where it was asked.
    #[serde(borrow, default)]
    pub host: Option<Text<'a>>,
    /// What the configuration calls the object.
    #[serde(borrow, default)]
    pub metric: Option<Text<'a>>,
    /// The object.
    #[serde(borrow, default)]
    pub oid: Option<Text<'a>>,
    /// What it is.
    pub value: Measured,
    /// When.
    #[serde(borrow, default)]
    pub timestamp: Option<&'a RawValue>,
    /// As the configuration says.
    #[serde(borrow, default)]
    pub data_type: Option<Text<'a>>,
    /// What the agent has multiplied it by.
    #[serde(default)]
    pub scale: Option<f64>,
    /// Whether the agent made a rate of it.
    #[serde(default)]
    pub delta: Option<bool>,
    /// The interface.
    #[serde(default)]
    pub if_index: Option<i64>,
    /// The interface.
    #[serde(borrow, default)]
    pub interface_uid: Option<Text<'a>>,
    /// What it counts.
    #[serde(borrow, default)]
    pub unit: Option<Text<'a>>,
}

/// A number, exact where it is whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measured {
    /// Whole.
    Whole(u64),
    /// With a fraction, or below zero.
    Real(f64),
}

impl Measured {
    /// As a number with a fraction.
    pub fn real(self) -> f64 {
        match self {
            Measured::Whole(n) => n as f64,
            Measured::Real(n) => n,
        }
    }
}

impl<'de> Deserialize<'de> for Measured {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Measured;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E>(self, n: u64) -> Result<Measured, E> {
                Ok(Measured::Whole(n))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Measured, E> {
                Ok(u64::try_from(n).map_or(Measured::Real(n as f64), Measured::Whole))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Measured, E> {
                Ok(Measured::Real(n))
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Measured, E> {
                Ok(Measured::Whole(u64::from(truth)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Measured, E> {
                let text = text.trim();
                let real = || text.parse().ok().filter(|n: &f64| n.is_finite()).map(Measured::Real);
                let number = text.parse().ok().map(Measured::Whole).or_else(real);
                number.ok_or_else(|| E::invalid_value(de::Unexpected::Other("a text that is none"), &self))
            }
        }
        from.deserialize_any(Number)
    }
}

/// A trace of the way to a target.
#[derive(Debug, Deserialize)]
pub struct MtrResult<'a> {
    /// The check.
    #[serde(borrow, default)]
    pub check_id: Option<Text<'a>>,
    /// What it is called.
    #[serde(borrow, default)]
    pub check_name: Option<Text<'a>>,
    /// What was traced.
    #[serde(borrow, default)]
    pub target: Option<Text<'a>>,
    /// The trace; none where the agent could not look.
    #[serde(borrow, default)]
    pub trace: Option<Trace<'a>>,
    /// When it ended.
    #[serde(borrow, default)]
    pub timestamp: Option<&'a RawValue>,
    /// Why the agent could not look.
    #[serde(borrow, default)]
    pub error: Option<Text<'a>>,
}

/// What a trace found.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Trace<'a> {
    #[serde(borrow)]
    pub target: Option<Text<'a>>,
    #[serde(borrow)]
    pub target_ip: Option<Text<'a>>,
    pub target_reached: Option<bool>,
    pub total_hops: Option<u16>,
    #[serde(borrow)]
    pub protocol: Option<Text<'a>>,
    pub ip_version: Option<u8>,
    pub packet_size: Option<u32>,
    /// [`Hop`]s.
    #[serde(borrow)]
    pub hops: Option<&'a RawValue>,
}

/// A hop of a trace; times in microseconds.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Hop<'a> {
    pub hop_number: u16,
    #[serde(borrow, default)]
    pub addr: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub hostname: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub ecmp_addrs: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    pub asn: Option<Asn<'a>>,
    #[serde(default)]
    pub mpls_labels: Option<Vec<MplsLabel>>,
    pub sent: u32,
    pub received: u32,
    #[serde(default)]
    pub loss_pct: Option<f64>,
    #[serde(default)]
    pub last_us: Option<u64>,
    #[serde(default)]
    pub avg_us: Option<u64>,
    #[serde(default)]
    pub min_us: Option<u64>,
    #[serde(default)]
    pub max_us: Option<u64>,
    #[serde(default)]
    pub stddev_us: Option<u64>,
    #[serde(default)]
    pub jitter_us: Option<u64>,
}

/// An autonomous system.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Asn<'a> {
    pub asn: Option<u32>,
    #[serde(borrow)]
    pub org: Option<Text<'a>>,
}

/// A label of MPLS.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct MplsLabel {
    pub label: u32,
}

/// What a plugin found.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Plugin<'a> {
    #[serde(borrow)]
    pub status: Option<Text<'a>>,
    #[serde(borrow)]
    pub summary: Option<Text<'a>>,
    #[serde(borrow)]
    pub observed_at: Option<&'a RawValue>,
    #[serde(borrow)]
    pub labels: Option<&'a RawValue>,
    /// What it is shown as.
    #[serde(borrow, rename = "display")]
    pub widgets: Option<&'a RawValue>,
    /// [`PluginMetric`]s.
    #[serde(borrow)]
    pub metrics: Option<&'a RawValue>,
}

/// A number that a plugin found.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct PluginMetric<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    pub value: Measured,
    #[serde(borrow, default)]
    pub unit: Option<Text<'a>>,
    #[serde(default)]
    pub warn: Option<f64>,
    #[serde(default)]
    pub crit: Option<f64>,
}

/// Hands on the items of an array as they stand, each for itself, so that one that is wrong is wrong alone; `null` is an empty
/// one. Of more than `most` the others are counted.
///
/// # Errors
/// It is no array.
pub fn each<'a>(list: &'a RawValue, most: usize, take: impl FnMut(&'a RawValue)) -> serde_json::Result<usize> {
    struct Each<F>(usize, F);
    impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Each<F> {
        type Value = usize;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_unit<E>(self) -> Result<usize, E> {
            Ok(0)
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<usize, A::Error> {
            for _ in 0..self.0 {
                match items.next_element()? {
                    Some(item) => (self.1)(item),
                    None => return Ok(0),
                }
            }
            let mut others = 0;
            while items.next_element::<IgnoredAny>()?.is_some() {
                others += 1;
            }
            Ok(others)
        }
    }
    serde_json::Deserializer::from_str(list.get()).deserialize_any(Each(most, take))
}

/// Microseconds since 1970 from RFC 3339 text, or from a number of s, ms, µs or ns by its magnitude; of the year 1 and other
/// times that nobody means, none.
pub fn instant(written: &RawValue) -> Option<i64> {
    let text = written.get().trim_matches('"');
    let us = match text.parse::<i64>() {
        Ok(number) => magnitude_us(number),
        Err(_) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => magnitude_us(number as i64),
            _ => chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros()),
        },
    };
    us.filter(|us| *us > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn items_are_handed_on_one_by_one_and_no_more_than_may_be() {
        let gone_through = |json: &str, most: usize| {
            let mut seen = Vec::new();
            each(raw(json), most, |item| seen.push(item.get().to_owned())).map(|others| (seen, others)).ok()
        };
        let some = |items: &[&str], others| Some((items.iter().map(ToString::to_string).collect(), others));
        assert_eq!(gone_through(r#"[1, {"a":[2]} ,null]"#, 5), some(&["1", r#"{"a":[2]}"#, "null"], 0));
        assert_eq!(gone_through("[1,2,3,4]", 2), some(&["1", "2"], 2));
        assert_eq!(gone_through("null", 2), some(&[], 0));
        assert_eq!(gone_through("[]", 0), some(&[], 0));
        for bad in ["{}", "7", r#""[]""#, "true"] {
            assert_eq!(gone_through(bad, 2), None, "{bad}");
        }
        let deep = format!("[{}1{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(gone_through(&deep, 9).unwrap().0.len(), 1, "depth costs no stack");
    }

    #[test]
    fn numbers_are_exact_where_they_are_whole() {
        let read = |json: &str| serde_json::from_str::<Measured>(json).ok();
        assert_eq!(read("18446744073709551615"), Some(Measured::Whole(u64::MAX)));
        assert_eq!(read("\"18446744073709551615\""), Some(Measured::Whole(u64::MAX)));
        assert_eq!((read("-1"), read("1.5")), (Some(Measured::Real(-1.0)), Some(Measured::Real(1.5))));
        assert_eq!((read("true"), read("\"2.5\"")), (Some(Measured::Whole(1)), Some(Measured::Real(2.5))));
        for none in ["null", "\"NaN\"", "\"inf\"", "\"up\"", "[1]", "{}", "1e999", "\"1e999\""] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn instants_as_agents_write_them() {
        let us = Some(1_795_842_295_435_088);
        for text in ["\"2026-11-28T05:04:55.435088002Z\"", "1795842295435088002", "\"1795842295435088\""] {
            assert_eq!(instant(raw(text)), us, "{text}");
        }
        for none in ["null", "\"0001-01-01T00:00:00Z\"", "\"soon\"", "-62135596800", "[]", "\"NaN\""] {
            assert_eq!(instant(raw(none)), None, "{none}");
        }
    }

    #[test]
    fn a_sample_of_a_host_borrows_what_it_says() {
        let json = r#"{"available":true,"response_time":0,"status":{"timestamp":"2026-11-28T05:04:55Z","host_id":"vm",
            "cpus":[{"core_id":0,"label":"CPU0","usage_percent":8.8,"frequency_hz":2445434000}],"disks":null,
            "memory":{"used_bytes":1,"total_bytes":2},"processes":[{"pid":1,"name":"a\u0062"}]}}"#;
        let sample = serde_json::from_str::<SysmonPayload<'_>>(json).unwrap().status.unwrap();
        assert!(matches!(sample.host_id, Some(Text(Cow::Borrowed("vm")))));
        assert!(sample.disks.is_none() && sample.network.is_none());
        each(sample.cpus.unwrap(), 9, |item| {
            let cpu: Cpu<'_> = serde_json::from_str(item.get()).unwrap();
            assert!(matches!(cpu.label, Some(Text(Cow::Borrowed("CPU0")))));
        })
        .unwrap();
        each(sample.processes.unwrap(), 9, |item| {
            assert_eq!(serde_json::from_str::<Process<'_>>(item.get()).unwrap().name.0, "ab");
        })
        .unwrap();
    }
}
