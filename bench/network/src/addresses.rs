//! Files that tell where addresses are, of the MaxMind form, version 2.0 of its specification: a tree over the bits of addresses, and
//! what is at its leaves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// What such a file has of a network.
#[derive(Clone, Debug)]
pub enum Value {
    /// UTF-8.
    Text(String),
    /// A whole number of four octets.
    Number(u32),
    /// Of two.
    Short(u16),
    /// Of eight.
    Long(u64),
    /// Another one.
    Float(f64),
    /// By name.
    Map(BTreeMap<String, Value>),
    /// One after another.
    List(Vec<Value>),
}

impl Value {
    /// A map.
    pub fn map<const N: usize>(of: [(&str, Value); N]) -> Value {
        Value::Map(of.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Text(text) => {
                head(2, text.len(), out);
                out.extend_from_slice(text.as_bytes());
            }
            Value::Number(number) => whole(6, u64::from(*number), out),
            Value::Short(number) => whole(5, u64::from(*number), out),
            Value::Long(number) => whole(9, *number, out),
            Value::Float(number) => {
                head(3, 8, out);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Value::Map(map) => {
                head(7, map.len(), out);
                for (name, value) in map {
                    Value::Text(name.clone()).write(out);
                    value.write(out);
                }
            }
            Value::List(list) => {
                head(11, list.len(), out);
                list.iter().for_each(|value| value.write(out));
            }
        }
    }
}

/// A number in as many octets as it takes.
fn whole(kind: u8, number: u64, out: &mut Vec<u8>) {
    let skipped = number.leading_zeros() as usize / 8;
    head(kind, 8 - skipped, out);
    out.extend_from_slice(&number.to_be_bytes()[skipped..]);
}

/// The control octets: a type, and a size of up to 65,820.
fn head(kind: u8, size: usize, out: &mut Vec<u8>) {
    let (short, more): (u8, Vec<u8>) = match size {
        0..29 => (size as u8, vec![]),
        29..285 => (29, vec![(size - 29) as u8]),
        _ => (30, ((size - 285) as u16).to_be_bytes().to_vec()),
    };
    // Types beyond the seventh say so in an octet of their own.
    if kind > 7 {
        out.extend([short, kind - 7]);
    } else {
        out.push(kind << 5 | short);
    }
    out.extend(more);
}

#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A file of networks, none of which is in another, in the order of their addresses or any other.
///
/// # Panics
/// A prefix is none.
pub fn file(networks: &[(&str, Value)]) -> Vec<u8> {
    let mut nodes = vec![[Side::Nothing; 2]];
    let mut data = Vec::new();
    for (prefix, value) in networks {
        let (address, length) = prefix.split_once('/').expect("a prefix");
        let (bits, length) = match (address.parse().expect("an address"), length.parse::<usize>().expect("a length")) {
            // Where such files have it: `::/96`.
            (IpAddr::V4(v4), length) => (u128::from(Ipv4Addr::to_bits(v4)), length + 96),
            (IpAddr::V6(v6), length) => (v6.to_bits(), length),
        };
        let mut node = 0;
        for depth in 0..length {
            let side = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == length {
                nodes[node][side] = Side::Data(data.len());
                break;
            }
            node = match nodes[node][side] {
                Side::Node(next) => next,
                _ => {
                    nodes.push([Side::Nothing; 2]);
                    nodes[node][side] = Side::Node(nodes.len() - 1);
                    nodes.len() - 1
                }
            };
        }
        value.write(&mut data);
    }
    let mut out = Vec::new();
    for side in nodes.iter().flatten() {
        let record = match side {
            Side::Nothing => nodes.len(),
            Side::Node(node) => *node,
            Side::Data(at) => nodes.len() + 16 + at,
        };
        out.extend_from_slice(&(record as u32).to_be_bytes());
    }
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&data);
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    Value::map([
        ("binary_format_major_version", Value::Short(2)),
        ("binary_format_minor_version", Value::Short(0)),
        ("build_epoch", Value::Long(1_700_000_000)),
        ("database_type", Value::Text("Test".to_owned())),
        ("description", Value::map([])),
        ("ip_version", Value::Short(6)),
        ("languages", Value::List(vec![Value::Text("en".to_owned())])),
        ("node_count", Value::Number(nodes.len() as u32)),
        ("record_size", Value::Short(32)),
    ])
    .write(&mut out);
    out
}
