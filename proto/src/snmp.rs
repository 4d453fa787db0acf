//! SNMP v1 and v2c notifications (RFC 1157, RFC 3416): BER to a trap, v1 rewritten as v2 (RFC 3584 section 3.1), and the
//! answer an inform is owed. The community is looked at only to be replaced: see [`redact`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::wire::{Cursor, Truncated, uint};

/// Variable bindings a notification may have; the rest is not read.
pub const MAX_VARBINDS: usize = 256;

/// Why bytes are not a notification.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnmpError {
    /// They end early.
    #[error("{0}")]
    Truncated(#[from] Truncated),
    /// Not what BER or SNMP has at this place.
    #[error("{wanted} expected, tag {tag:#04x} found")]
    Tag {
        /// What was expected.
        wanted: &'static str,
        /// What was found.
        tag: u8,
    },
    /// A length that no message has.
    #[error("bad BER length")]
    Length,
    /// A version we do not read here.
    #[error("SNMP version {0} is neither v1 nor v2c")]
    Version(u64),
    /// A request, not a notification.
    #[error("PDU {0:#04x} is no notification")]
    NotATrap(u8),
}

/// A notification in v2 form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// 1 or 2.
    pub version: u8,
    /// An answer is due.
    pub inform: bool,
    /// Request id (v2).
    pub request_id: i64,
    /// The community, or the hash that [`redact`] put in its place.
    pub community: Vec<u8>,
    /// Hundredths of a second since the agent started.
    pub uptime: Option<u64>,
    /// `snmpTrapOID.0`.
    pub trap_oid: String,
    /// v1's agent address, or `snmpTrapAddress.0`.
    pub agent_address: Option<IpAddr>,
    /// The bindings, less up-time, trap OID and address, by OID; one that is bound again is there with `#2`, `#3`. Octets
    /// that are no text are `0x` and their hex digits.
    pub varbinds: BTreeMap<String, String>,
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const IP_ADDRESS: u8 = 0x40;
const COUNTER32: u8 = 0x41;
const GAUGE32: u8 = 0x42;
const TICKS: u8 = 0x43;
const OPAQUE: u8 = 0x44;
const COUNTER64: u8 = 0x46;
const TRAP_V1: u8 = 0xa4;
const INFORM: u8 = 0xa6;
const TRAP_V2: u8 = 0xa7;
const RESPONSE: u8 = 0xa2;

/// `sysUpTime.0`
pub const SYS_UP_TIME: &str = "1.3.6.1.2.1.1.3.0";
/// `snmpTrapOID.0`
pub const SNMP_TRAP_OID: &str = "1.3.6.1.6.3.1.1.4.1.0";
/// `snmpTrapAddress.0` (RFC 3584)
pub const SNMP_TRAP_ADDRESS: &str = "1.3.6.1.6.3.18.1.3.0";
/// `snmpTrapEnterprise.0`
pub const SNMP_TRAP_ENTERPRISE: &str = "1.3.6.1.6.3.1.1.4.3.0";
/// `snmpTraps`: generic trap n is `snmpTraps.(n+1)`.
const SNMP_TRAPS: &str = "1.3.6.1.6.3.1.1.5";
/// `linkDown`
pub const LINK_DOWN: &str = "1.3.6.1.6.3.1.1.5.3";
/// `linkUp`
pub const LINK_UP: &str = "1.3.6.1.6.3.1.1.5.4";
/// `ifIndex`
pub const IF_INDEX: &str = "1.3.6.1.2.1.2.2.1.1";

/// The standard traps' names (SNMPv2-MIB).
pub fn trap_name(oid: &str) -> Option<&'static str> {
    let generic = oid.strip_prefix(SNMP_TRAPS)?.strip_prefix('.')?;
    Some(match generic {
        "1" => "coldStart",
        "2" => "warmStart",
        "3" => "linkDown",
        "4" => "linkUp",
        "5" => "authenticationFailure",
        "6" => "egpNeighborLoss",
        _ => return None,
    })
}

fn tlv<'a>(at: &mut Cursor<'a>) -> Result<(u8, Cursor<'a>), SnmpError> {
    let tag = at.u8()?;
    let length = match at.u8()? {
        n @ 0..=0x7f => usize::from(n),
        n @ 0x81..=0x84 => uint(at.take(usize::from(n & 0x7f))?) as usize,
        _ => return Err(SnmpError::Length),
    };
    Ok((tag, at.sub(length)?))
}

fn expect<'a>(at: &mut Cursor<'a>, tag: u8, wanted: &'static str) -> Result<Cursor<'a>, SnmpError> {
    match tlv(at)? {
        (found, body) if found == tag => Ok(body),
        (found, _) => Err(SnmpError::Tag { wanted, tag: found }),
    }
}

fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    bytes.iter().fold(if negative { -1i64 } else { 0 }, |n, b| (n << 8) | i64::from(*b))
}

fn oid(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut arc = 0u64;
    let mut first = true;
    for byte in bytes {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let root = (arc / 40).min(2);
            out = format!("{root}.{}", arc - root * 40);
            first = false;
        } else {
            out.push('.');
            out.push_str(&arc.to_string());
        }
        arc = 0;
    }
    out
}

/// Bytes that are no text.
fn octets(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// Numbers that SMI has no type for, in an Opaque, as net-snmp does it (draft-perkins-opaque-01): a context tag of two
/// octets, a length, a value.
fn opaque(bytes: &[u8]) -> Option<String> {
    let (head, body) = bytes.split_at_checked(3).filter(|(head, body)| usize::from(head[2]) == body.len())?;
    match (head[0], head[1]) {
        (0x9f, 0x78) => Some(f32::from_be_bytes(body.try_into().ok()?).to_string()),
        (0x9f, 0x79) => Some(f64::from_be_bytes(body.try_into().ok()?).to_string()),
        (0x9f, 0x7a) if body.len() <= 8 => Some(integer(body).to_string()),
        (0x9f, 0x76 | 0x7b) if body.len() <= 9 => Some(uint(body).to_string()),
        _ => None,
    }
}

fn value(tag: u8, bytes: &[u8]) -> String {
    match tag {
        INTEGER => integer(bytes).to_string(),
        COUNTER32 | GAUGE32 | TICKS | COUNTER64 => uint(bytes).to_string(),
        OID => oid(bytes),
        NULL => String::new(),
        IP_ADDRESS => match <[u8; 4]>::try_from(bytes) {
            Ok(octets) => IpAddr::from(octets).to_string(),
            Err(_) => octets(bytes),
        },
        OPAQUE => opaque(bytes).unwrap_or_else(|| octets(bytes)),
        OCTETS => match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => text.to_owned(),
            _ => octets(bytes),
        },
        0x80 => "noSuchObject".into(),
        0x81 => "noSuchInstance".into(),
        0x82 => "endOfMibView".into(),
        _ => octets(bytes),
    }
}

fn varbinds(at: &mut Cursor<'_>) -> Result<Vec<(String, String)>, SnmpError> {
    let mut list = expect(at, SEQUENCE, "variable bindings")?;
    let mut out = Vec::new();
    while !list.is_empty() && out.len() < MAX_VARBINDS {
        let mut binding = expect(&mut list, SEQUENCE, "a variable binding")?;
        let name = oid(expect(&mut binding, OID, "a name")?.rest());
        let (tag, body) = tlv(&mut binding)?;
        out.push((name, value(tag, body.rest())));
    }
    Ok(out)
}

/// Bindings by name, each once.
fn by_name(bindings: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let (mut out, mut times) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    for (name, value) in bindings {
        let times = times.entry(name.clone()).or_default();
        *times += 1;
        out.insert(if *times > 1 { format!("{name}#{times}") } else { name }, value);
    }
    out
}

/// Reads a v1 or v2c notification.
///
/// # Errors
/// [`SnmpError`] where the bytes are no BER, or no notification of v1 or v2c.
pub fn parse(bytes: &[u8]) -> Result<Trap, SnmpError> {
    let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
    let version = uint(expect(&mut message, INTEGER, "a version")?.rest());
    if version > 1 {
        return Err(SnmpError::Version(version));
    }
    let community = expect(&mut message, OCTETS, "a community")?.rest().to_vec();
    let (pdu, mut body) = tlv(&mut message)?;
    match (version, pdu) {
        (0, TRAP_V1) => {
            let enterprise = oid(expect(&mut body, OID, "an enterprise")?.rest());
            let (_, address) = tlv(&mut body)?;
            let agent_address = <[u8; 4]>::try_from(address.rest()).ok().map(IpAddr::from);
            let generic = uint(expect(&mut body, INTEGER, "a generic trap")?.rest());
            let specific = uint(expect(&mut body, INTEGER, "a specific trap")?.rest());
            let uptime = uint(expect(&mut body, TICKS, "a time stamp")?.rest());
            let trap_oid = if generic < 6 {
                format!("{SNMP_TRAPS}.{}", generic + 1)
            } else {
                format!("{enterprise}.0.{specific}")
            };
            let enterprise_binding = (SNMP_TRAP_ENTERPRISE.to_owned(), enterprise);
            let varbinds = by_name([enterprise_binding].into_iter().chain(varbinds(&mut body)?));
            Ok(Trap {
                version: 1,
                inform: false,
                request_id: 0,
                community,
                uptime: Some(uptime),
                trap_oid,
                agent_address: agent_address.filter(|ip| !ip.is_unspecified()),
                varbinds,
            })
        }
        (1, TRAP_V2 | INFORM) => {
            let request_id = integer(expect(&mut body, INTEGER, "a request id")?.rest());
            expect(&mut body, INTEGER, "an error status")?;
            expect(&mut body, INTEGER, "an error index")?;
            // RFC 3416 section 4.2.6: the first two bindings are these. What is bound again is a binding like others.
            let (mut uptime, mut trap_oid, mut agent_address) = (None, None, None);
            let mut others = Vec::new();
            for (name, value) in varbinds(&mut body)? {
                match name.as_str() {
                    SYS_UP_TIME if uptime.is_none() => uptime = value.parse().ok(),
                    SNMP_TRAP_OID if trap_oid.is_none() => trap_oid = Some(value),
                    SNMP_TRAP_ADDRESS if agent_address.is_none() => agent_address = value.parse().ok(),
                    _ => others.push((name, value)),
                }
            }
            Ok(Trap {
                version: 2,
                inform: pdu == INFORM,
                request_id,
                community,
                uptime,
                trap_oid: trap_oid.unwrap_or_default(),
                agent_address,
                varbinds: by_name(others),
            })
        }
        (_, pdu) => Err(SnmpError::NotATrap(pdu)),
    }
}

fn put_tlv(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    match body.len() {
        n @ 0..=0x7f => out.push(n as u8),
        n => {
            out.push(0x84);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// The same message with the community replaced by the first eight hex digits of its keyed hash: what may be kept.
/// A message of a later version has none and comes back as it is.
///
/// # Errors
/// [`SnmpError`] where the message cannot be read as far as its community.
pub fn redact(bytes: &[u8], key: &[u8]) -> Result<Vec<u8>, SnmpError> {
    let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
    let version = expect(&mut message, INTEGER, "a version")?.rest();
    if uint(version) > 1 {
        return Ok(bytes.to_vec());
    }
    let community = expect(&mut message, OCTETS, "a community")?.rest();
    let mut body = Vec::with_capacity(bytes.len() + 8);
    put_tlv(&mut body, INTEGER, version);
    put_tlv(&mut body, OCTETS, community_hash(community, key).as_bytes());
    body.extend_from_slice(message.rest());
    let mut out = Vec::with_capacity(body.len() + 8);
    put_tlv(&mut out, SEQUENCE, &body);
    Ok(out)
}

/// Keyed hash of a community: equal communities stay equal, and nothing else can be told.
pub fn community_hash(community: &[u8], key: &[u8]) -> String {
    let digest =
        Sha256::new().chain_update(b"radarflow community").chain_update(key).chain_update(community).finalize();
    hex::encode(&digest[..4])
}

/// The response that an inform is owed: the same message as a Response PDU without error.
///
/// # Errors
/// [`SnmpError`] where the bytes are no notification.
pub fn inform_response(bytes: &[u8]) -> Result<Option<Vec<u8>>, SnmpError> {
    let trap = parse(bytes)?;
    if !trap.inform {
        return Ok(None);
    }
    let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
    let mut body = Vec::with_capacity(bytes.len());
    put_tlv(&mut body, INTEGER, expect(&mut message, INTEGER, "a version")?.rest());
    put_tlv(&mut body, OCTETS, expect(&mut message, OCTETS, "a community")?.rest());
    put_tlv(&mut body, RESPONSE, expect(&mut message, INFORM, "an inform")?.rest());
    let mut out = Vec::with_capacity(bytes.len());
    put_tlv(&mut out, SEQUENCE, &body);
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `snmptrap -v1 -c public … 1.3.6.1.4.1.8072.2.3 10.1.1.1 2 0 67 ifIndex.3 i 3` sends it.
    fn v1() -> Vec<u8> {
        let bindings = hex::decode("3011300f060a2b060102010202010103020103").unwrap();
        let mut pdu = hex::decode("06092b06010401bf08020340040a010101020102020100430143").unwrap();
        pdu.extend(bindings);
        let mut m = hex::decode("02010004067075626c6963").unwrap();
        put_tlv(&mut m, TRAP_V1, &pdu);
        let mut out = Vec::new();
        put_tlv(&mut out, SEQUENCE, &m);
        out
    }

    fn inform() -> Vec<u8> {
        let mut bindings = Vec::new();
        for (name, tag, value) in [
            (vec![0x2b, 6, 1, 2, 1, 1, 3, 0], TICKS, vec![77]),
            (vec![0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0], OID, vec![0x2b, 6, 1, 6, 3, 1, 1, 5, 3]),
            (vec![0x2b, 6, 1, 2, 1, 2, 2, 1, 1, 3], INTEGER, vec![3]),
        ] {
            let mut b = Vec::new();
            put_tlv(&mut b, OID, &name);
            put_tlv(&mut b, tag, &value);
            put_tlv(&mut bindings, SEQUENCE, &b);
        }
        let mut pdu = Vec::new();
        put_tlv(&mut pdu, INTEGER, &[0x12, 0x34]);
        put_tlv(&mut pdu, INTEGER, &[0]);
        put_tlv(&mut pdu, INTEGER, &[0]);
        put_tlv(&mut pdu, SEQUENCE, &bindings);
        let mut m = Vec::new();
        put_tlv(&mut m, INTEGER, &[1]);
        put_tlv(&mut m, OCTETS, b"secret");
        put_tlv(&mut m, INFORM, &pdu);
        let mut out = Vec::new();
        put_tlv(&mut out, SEQUENCE, &m);
        out
    }

    #[test]
    fn v1_becomes_v2() {
        let trap = parse(&v1()).unwrap();
        assert_eq!((trap.trap_oid.as_str(), trap.uptime), (LINK_DOWN, Some(67)));
        assert_eq!(trap.agent_address, "10.1.1.1".parse().ok());
        assert_eq!(trap.varbinds["1.3.6.1.2.1.2.2.1.1.3"], "3");
        assert_eq!(trap.varbinds[SNMP_TRAP_ENTERPRISE], "1.3.6.1.4.1.8072.2.3");
    }

    /// A v2c trap with these bindings after up-time and trap OID.
    fn v2(more: &[Vec<u8>]) -> Vec<u8> {
        let built = |tag: u8, body: &[u8]| {
            let mut out = Vec::new();
            put_tlv(&mut out, tag, body);
            out
        };
        let bind = |oid: &[u8], value: Vec<u8>| built(SEQUENCE, &[built(OID, oid), value].concat());
        let up = bind(&[0x2b, 6, 1, 2, 1, 1, 3, 0], built(TICKS, &[0x10, 0x92]));
        let of = bind(&[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0], built(OID, &[0x2b, 6, 1, 4, 1, 0x81, 0xfd, 0x59, 1]));
        let list = [up, of].into_iter().chain(more.iter().cloned()).collect::<Vec<_>>().concat();
        let zero = built(INTEGER, &[0]);
        let pdu = [built(INTEGER, &[1]), zero.clone(), zero, built(SEQUENCE, &list)].concat();
        built(SEQUENCE, &[built(INTEGER, &[1]), built(OCTETS, b"public"), built(TRAP_V2, &pdu)].concat())
    }

    #[test]
    fn a_value_says_what_it_is() {
        let bind = |arc: u8, tag: u8, body: &[u8]| {
            let name = [0x06, 2, 0x2b, arc];
            let value = [&[tag, body.len() as u8][..], body].concat();
            [&[SEQUENCE, (name.len() + value.len()) as u8][..], &name, &value].concat()
        };
        let trap = parse(&v2(&[
            bind(1, OPAQUE, &[0x9f, 0x78, 4, 0x41, 0x58, 0, 0]),
            bind(2, OPAQUE, &[0x9f, 0x79, 8, 0xbf, 0xe0, 0, 0, 0, 0, 0, 0]),
            bind(3, OPAQUE, &[0x9f, 0x7a, 1, 0xfe]),
            bind(4, OPAQUE, &[0x9f, 0x7b, 2, 1, 0]),
            bind(5, OPAQUE, b"text"),
            bind(6, OCTETS, b"deadbeef"),
            bind(7, OCTETS, &[0xde, 0xad, 0xbe, 0xef]),
            bind(8, OPAQUE, &[0x9f, 0x78, 4, 0x41]),
        ]))
        .unwrap();
        let of = |arc: u8| trap.varbinds[&format!("1.3.{arc}")].as_str();
        assert_eq!((of(1), of(2), of(3), of(4)), ("13.5", "-0.5", "-2", "256"));
        assert_eq!((of(5), of(6), of(7), of(8)), ("0x74657874", "deadbeef", "0xdeadbeef", "0x9f780441"));
    }

    #[test]
    fn what_is_bound_again_is_kept_beside_the_first() {
        let again = |oid: &[u8], tag: u8, body: &[u8]| {
            let name = [&[OID, oid.len() as u8][..], oid].concat();
            let value = [&[tag, body.len() as u8][..], body].concat();
            [&[SEQUENCE, (name.len() + value.len()) as u8][..], &name, &value].concat()
        };
        let up = [0x2b, 6, 1, 2, 1, 1, 3, 0];
        let trap_oid = [0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0];
        let trap = parse(&v2(&[
            again(&up, TICKS, &[0x30, 0x39]),
            again(&trap_oid, OID, &[0x2b, 7]),
            again(&[0x2b, 9], INTEGER, &[1]),
            again(&[0x2b, 9], INTEGER, &[2]),
            again(&[0x2b, 9], INTEGER, &[3]),
        ]))
        .unwrap();
        assert_eq!((trap.uptime, trap.trap_oid.as_str()), (Some(4242), "1.3.6.1.4.1.32473.1"));
        let of = |name: &str| trap.varbinds[name].as_str();
        assert_eq!((of(SYS_UP_TIME), of(SNMP_TRAP_OID)), ("12345", "1.3.7"));
        assert_eq!((of("1.3.9"), of("1.3.9#2"), of("1.3.9#3")), ("1", "2", "3"));
    }

    #[test]
    fn a_later_version_has_no_community_and_is_refused_by_name() {
        let v3 = [&[SEQUENCE, 8, INTEGER, 1, 3, SEQUENCE, 3][..], &[INTEGER, 1, 7]].concat();
        assert_eq!(redact(&v3, b"key"), Ok(v3.clone()));
        assert_eq!(parse(&v3), Err(SnmpError::Version(3)));
    }

    #[test]
    fn the_community_does_not_survive() {
        for bytes in [v1(), inform()] {
            let kept = redact(&bytes, b"key").unwrap();
            assert!(!kept.windows(6).any(|w| w == b"secret" || w == b"public"));
            let (before, after) = (parse(&bytes).unwrap(), parse(&kept).unwrap());
            assert_eq!(after.community, community_hash(&before.community, b"key").into_bytes());
            assert_eq!(after.varbinds, before.varbinds);
        }
    }

    #[test]
    fn an_inform_is_answered_with_its_own_id() {
        let answer = inform_response(&inform()).unwrap().unwrap();
        let at = answer.iter().position(|b| *b == RESPONSE).unwrap();
        assert!(answer[at..].windows(4).any(|w| w == [2, 2, 0x12, 0x34]));
        assert_eq!(inform_response(&v1()).unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(noise: Vec<u8>, cut in 0usize..80, flip in 0usize..80, bit in 0u8..8) {
            for mut m in [noise, v1(), inform()] {
                m.truncate(cut);
                if let Some(b) = m.get_mut(flip) { *b ^= 1 << bit; }
                let _ = parse(&m);
                let _ = redact(&m, b"k");
                let _ = inform_response(&m);
            }
        }
    }
}
