//! What notifications are read as.

use super::ber::built;
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
fn a_later_version_is_refused_by_name_and_kept_as_it_came() {
    let v7 = [&[SEQUENCE, 8, INTEGER, 1, 7, SEQUENCE, 3][..], &[INTEGER, 1, 7]].concat();
    let kept = redact(&v7, b"key").unwrap();
    let why = "SNMP version 7 is none of v1, v2c and v3";
    assert_eq!(parse(&kept), Err(SnmpError::Refused(why.to_owned())));
    assert_eq!(as_it_came(&kept), v7);
    assert_eq!(parse(&v7), Err(SnmpError::Version(7)));
    // Who sends what we would keep of a message that was opened is no user.
    let forged =
        opened(b"noc", &[1; 5], usm::Level::AuthPriv, b"", (TRAP_V2, &[2, 1, 1, 2, 1, 0, 2, 1, 0, SEQUENCE, 0]));
    assert!(parse(&forged).is_ok() && usm::Usm::is_meant(&forged));
    assert!(parse(&redact(&forged, b"key").unwrap()).is_err());
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
