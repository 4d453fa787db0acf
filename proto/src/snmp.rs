//! SNMP notifications (RFC 1157, RFC 3416): BER to a trap, v1 rewritten as v2 (RFC 3584 section 3.1), and the answer an inform
//! is owed. The community is looked at only to be replaced: see [`redact`].
//!
//! Messages of v3 are opened where they are received ([`usm`]), as only there the keys and the time are that judge them. What is
//! kept of one is what came of that: the notification and who said it ([`opened`]), or the message as it was and why it is
//! refused ([`refused`]). So replay needs no keys and no clock, and says the same.

mod ber;
pub mod usm;
mod v3;

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest, Sha256};
use thiserror::Error;

use self::ber::{expect, integer, oid, put_tlv, tlv};
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
    /// A version there is none of.
    #[error("SNMP version {0} is none of v1, v2c and v3")]
    Version(u64),
    /// A field of v3 that is longer than it may be.
    #[error("{what} has more than {most} octets")]
    TooLong {
        /// Which.
        what: &'static str,
        /// Octets it may have.
        most: usize,
    },
    /// A field of v3 with a value that it cannot have.
    #[error("{0} is out of its range")]
    Range(&'static str),
    /// A security model other than that of users.
    #[error("security model {0} is not USM, which is 3")]
    Model(u32),
    /// It was refused where it was received.
    #[error("{0}")]
    Refused(String),
    /// A request, not a notification.
    #[error("PDU {0:#04x} is no notification")]
    NotATrap(u8),
}

/// A notification in v2 form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// 1, 2 or 3.
    pub version: u8,
    /// An answer is due.
    pub inform: bool,
    /// Request id (v2).
    pub request_id: i64,
    /// The community, or the hash that [`redact`] put in its place; v3 has none.
    pub community: Vec<u8>,
    /// Who says it, of v3.
    pub said_by: Option<Speaker>,
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

impl Trap {
    /// Whether keys prove who said it.
    pub fn is_authentic(&self) -> bool {
        self.said_by.as_ref().is_some_and(|by| by.level > usm::Level::NoAuthNoPriv)
    }
}

/// Who says a notification of v3, and how well that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The user.
    pub user: String,
    /// The engine whose time and keys it is under, hex digits: the sender's, or ours where it asks for an answer.
    pub engine: String,
    /// Whether it is authentic, and whether it came encrypted.
    pub level: usm::Level,
    /// The context it is about: a VRF, an instance.
    pub context: String,
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
/// UTF-8, where this program says something to itself.
const TEXT: u8 = 0x0c;
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
const REPORT: u8 = 0xa8;

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

/// Reads a notification of v1 or v2c, or what is kept of one of v3.
///
/// # Errors
/// [`SnmpError`] where the bytes are no BER, or no notification.
pub fn parse(bytes: &[u8]) -> Result<Trap, SnmpError> {
    let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
    let version = uint(expect(&mut message, INTEGER, "a version")?.rest());
    if version == 3 {
        return kept(&mut message);
    }
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
                said_by: None,
                uptime: Some(uptime),
                trap_oid,
                agent_address: agent_address.filter(|ip| !ip.is_unspecified()),
                varbinds,
            })
        }
        (1, pdu) => Ok(Trap { community, ..notification(pdu, &mut body)? }),
        (_, pdu) => Err(SnmpError::NotATrap(pdu)),
    }
}

/// A notification of v2 or v3: the PDU.
fn notification(pdu: u8, body: &mut Cursor<'_>) -> Result<Trap, SnmpError> {
    if !matches!(pdu, TRAP_V2 | INFORM) {
        return Err(SnmpError::NotATrap(pdu));
    }
    let request_id = integer(expect(body, INTEGER, "a request id")?.rest());
    expect(body, INTEGER, "an error status")?;
    expect(body, INTEGER, "an error index")?;
    // RFC 3416 section 4.2.6: the first two bindings are these. What is bound again is a binding like others.
    let (mut uptime, mut trap_oid, mut agent_address) = (None, None, None);
    let mut others = Vec::new();
    for (name, value) in varbinds(body)? {
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
        community: Vec::new(),
        said_by: None,
        uptime,
        trap_oid: trap_oid.unwrap_or_default(),
        agent_address,
        varbinds: by_name(others),
    })
}

/// What is kept of a notification of v3 that was opened.
fn opened(user: &[u8], engine: &[u8], level: usm::Level, context: &[u8], pdu: (u8, &[u8])) -> Vec<u8> {
    let mut body = Vec::with_capacity(pdu.1.len() + 128);
    put_tlv(&mut body, INTEGER, &[3]);
    put_tlv(&mut body, OCTETS, user);
    put_tlv(&mut body, OCTETS, engine);
    put_tlv(&mut body, INTEGER, &[level as u8]);
    put_tlv(&mut body, OCTETS, context);
    put_tlv(&mut body, pdu.0, pdu.1);
    ber::built(SEQUENCE, &body)
}

/// What is kept of a message of v3 that is refused.
pub fn refused(reason: &str, message: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.len() + reason.len() + 16);
    put_tlv(&mut body, INTEGER, &[3]);
    put_tlv(&mut body, TEXT, reason.as_bytes());
    body.extend_from_slice(message);
    ber::built(SEQUENCE, &body)
}

/// The message as it came, of what [`refused`] keeps; anything else as it is.
pub fn as_it_came(bytes: &[u8]) -> &[u8] {
    let read = || -> Result<&[u8], SnmpError> {
        let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
        expect(&mut message, INTEGER, "a version")?;
        expect(&mut message, TEXT, "a reason")?;
        Ok(message.rest())
    };
    read().unwrap_or(bytes)
}

/// Reads what [`opened`] and [`refused`] keep, behind the version. A message as it came is neither: nobody opened it.
fn kept(message: &mut Cursor<'_>) -> Result<Trap, SnmpError> {
    let user = match tlv(message)? {
        (OCTETS, user) => user.rest(),
        (TEXT, reason) => return Err(SnmpError::Refused(String::from_utf8_lossy(reason.rest()).into_owned())),
        _ => return Err(SnmpError::Refused("a message of v3 that nobody opened".to_owned())),
    };
    let engine = expect(message, OCTETS, "an engine")?.rest();
    let level = usm::Level::of(uint(expect(message, INTEGER, "a level")?.rest()))?;
    let context = expect(message, OCTETS, "a context")?.rest();
    let (pdu, mut body) = tlv(message)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said_by = Speaker { user: text(user), engine: hex::encode(engine), level, context: text(context) };
    Ok(Trap { version: 3, said_by: Some(said_by), ..notification(pdu, &mut body)? })
}

/// The same message with the community replaced by the first eight hex digits of its keyed hash: what may be kept.
/// A message of a later version has none, and is kept as one that is refused: who sent it does not say what we keep.
///
/// # Errors
/// [`SnmpError`] where the message cannot be read as far as its community.
pub fn redact(bytes: &[u8], key: &[u8]) -> Result<Vec<u8>, SnmpError> {
    let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
    let version = expect(&mut message, INTEGER, "a version")?.rest();
    if uint(version) > 1 {
        return Ok(refused(&SnmpError::Version(uint(version)).to_string(), bytes));
    }
    let community = expect(&mut message, OCTETS, "a community")?.rest();
    let mut body = Vec::with_capacity(bytes.len() + 8);
    put_tlv(&mut body, INTEGER, version);
    put_tlv(&mut body, OCTETS, community_hash(community, key).as_bytes());
    body.extend_from_slice(message.rest());
    Ok(ber::built(SEQUENCE, &body))
}

/// Keyed hash of a community: equal communities stay equal, and nothing else can be told.
pub fn community_hash(community: &[u8], key: &[u8]) -> String {
    let digest =
        Sha256::new().chain_update(b"radarflow community").chain_update(key).chain_update(community).finalize();
    hex::encode(&digest[..4])
}

/// The response that an inform of v2c is owed: the same message as a Response PDU without error.
///
/// # Errors
/// [`SnmpError`] where the bytes are no notification.
pub fn inform_response(bytes: &[u8]) -> Result<Option<Vec<u8>>, SnmpError> {
    let trap = parse(bytes)?;
    if !trap.inform || trap.version != 2 {
        return Ok(None);
    }
    let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
    let mut body = Vec::with_capacity(bytes.len());
    put_tlv(&mut body, INTEGER, expect(&mut message, INTEGER, "a version")?.rest());
    put_tlv(&mut body, OCTETS, expect(&mut message, OCTETS, "a community")?.rest());
    put_tlv(&mut body, RESPONSE, expect(&mut message, INFORM, "an inform")?.rest());
    Ok(Some(ber::built(SEQUENCE, &body)))
}

#[cfg(test)]
mod tests;
