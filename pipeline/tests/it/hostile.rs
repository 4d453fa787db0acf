//! What strangers send: floods under addresses that are not theirs, datagrams made to cost more than they are long; and the
//! exporters next to them that mean well, whom they must not lock out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use bytes::Bytes;
use radarflow_dataflows::decode::senders::MAX_SENDERS;
use radarflow_dataflows::strangers::bucket;
use radarflow_proto::cell::RowId;
use radarflow_proto::frame::Kind;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::inputs::{Input, message};

/// Whose place strangers want.
const TENANT: &str = "t";
/// Addresses that all are in one bucket: the first are friends'.
const ADDRESSES: usize = MAX_SENDERS + 80;
pub const FRIENDS: usize = 3;
/// The bytes of a message before its sets, and of a set before its records.
const HEAD: usize = 20;
const SET: usize = 4;
const RECORD: usize = 16;
const TEMPLATE: u16 = 300;

fn addresses() -> &'static [IpAddr] {
    static ALL: OnceLock<Vec<IpAddr>> = OnceLock::new();
    ALL.get_or_init(|| {
        let all = (0..u32::from(u16::MAX) * 4).map(|n| IpAddr::from(Ipv4Addr::from(0xc612_0000 + n)));
        let of = |ip: &IpAddr| bucket("default", *ip);
        let first = of(&IpAddr::from(Ipv4Addr::from(0xc612_0000)));
        all.filter(|ip| of(ip) == first).take(ADDRESSES).collect()
    })
}

fn of(n: usize, body: Bytes) -> Input {
    Input { kind: Kind::NetFlow, tenant: TENANT, peer: Some(SocketAddr::new(addresses()[n], 2055)), body }
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn template() -> Vec<u8> {
    words(&[0, 8 + 16, TEMPLATE, 4, 8, 4, 12, 4, 1, 4, 2, 4])
}

/// A friend's template, and a flow: it was of use, and is known from then on.
pub fn tells(rng: &mut StdRng, friend: usize) -> Input {
    of(friend, message(0, 1, &[template(), flows(rng, 1)].concat()))
}

/// A friend's flows.
pub fn counts(rng: &mut StdRng, friend: usize) -> Input {
    let records = rng.random_range(1..4);
    of(friend, message(0, 1, &flows(rng, records)))
}

fn flows(rng: &mut StdRng, records: usize) -> Vec<u8> {
    let mut sets = words(&[TEMPLATE, (SET + RECORD * records) as u16]);
    for n in 0..records {
        sets.extend([10, 9, 0, n as u8, 10, 9, 1, n as u8]);
        sets.extend([rng.random_range(1..1000u32), 1].iter().flat_map(|word| word.to_be_bytes()));
    }
    sets
}

/// What a friend's message says.
pub enum Said {
    Template,
    /// So many flows.
    Flows(usize),
}

/// Which friend sent a message, and what it says.
pub fn friend(tenant: &str, peer: Option<SocketAddr>, body: &[u8]) -> Option<(usize, Said)> {
    let peer = peer.filter(|_| tenant == TENANT)?;
    let friend = addresses()[..FRIENDS].iter().position(|ip| *ip == peer.ip())?;
    let said = match body[HEAD..HEAD + 2] {
        [0, 0] => Said::Template,
        _ => Said::Flows((body.len() - HEAD - SET) / RECORD),
    };
    Some((friend, said))
}

/// The names of the flows of a friend's message at a place.
pub fn names(epoch: u64, position: u32, flows: usize) -> impl Iterator<Item = i128> {
    (0..flows).map(move |n| RowId::new(epoch, position, 2 * (HEAD + SET + RECORD * n) as u32).0)
}

/// A datagram from each of more senders than there is room for, none of which ever was of use.
pub fn flood(rng: &mut StdRng) -> Vec<Input> {
    let sets = match rng.random_range(0..3) {
        0 => Vec::new(),
        1 => template(),
        _ => words(&[TEMPLATE, 8, 1, 2]),
    };
    (FRIENDS..ADDRESSES).map(|n| of(n, message(0, rng.random_range(0..4), &sets))).collect()
}

/// One datagram that is made to leave, or to cost, much more than it is long.
pub fn datagram(rng: &mut StdRng) -> Input {
    const BYTES: usize = 60_000;
    let full_of = |set: &[u8]| set.repeat(BYTES / set.len());
    let sets = match rng.random_range(0..5) {
        0 => full_of(&words(&[999, 4])),
        1 => full_of(&[words(&[999, 5]), vec![1]].concat()),
        // A template of very many fields of no bytes, and records of it.
        2 => {
            let fields: Vec<u16> = (0..500).flat_map(|_| [1, 0]).collect();
            let told = [words(&[0, 8 + 4 * 501, 400, 501]), words(&fields), words(&[1, 1])].concat();
            [told, words(&[400, 40_004]), vec![7; 40_000]].concat()
        }
        // Records of one byte.
        3 => [words(&[0, 12, 401, 1, 4, 1, 401, 50_004]), vec![6; 50_000]].concat(),
        _ => (0..BYTES).map(|_| rng.random()).collect(),
    };
    of(FRIENDS + rng.random_range(0..3), message(0, 1, &sets))
}
