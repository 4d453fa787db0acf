//! The longest prefix that an address is in.
//!
//! ```text
//! 10.0.0.0/8  ├───────────────────────┤      A list of places where the answer changes, in order: an address
//! 10.1.0.0/16         ├──────┤               is answered by the last place before it, found by halves.
//! places      a       b      a          -
//! ```
//! Prefixes are nested or apart, never across each other: n of them make at most 2n + 1 places. IPv4 is within IPv6, as
//! `::ffff:0:0/96`, and its prefixes are 96 bits longer there.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and how many of its bits are the network's. An address alone is a network of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    first: u128,
    length: u8,
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The bits that a prefix of this length leaves to hosts.
fn hosts(length: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

impl Prefix {
    fn last(self) -> u128 {
        self.first | hosts(self.length)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address, nor a prefix");
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let ip: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let own: u8 = length.map_or(Ok(whole), |length| length.trim().parse().map_err(|_| wrong()))?;
        if own > whole {
            return Err(wrong());
        }
        let length = own + (128 - whole);
        let first = bits(ip) & !hosts(length);
        if first != bits(ip) {
            let first = Ipv6Addr::from_bits(first);
            let first = if ip.is_ipv4() { first.to_canonical() } else { first.into() };
            return Err(format!("`{text}` has bits beyond its length: {first}/{own} is the prefix"));
        }
        Ok(Prefix { first, length })
    }
}

/// What is known of networks.
#[derive(Debug)]
pub struct Prefixes<T> {
    values: Vec<T>,
    /// From where on which value answers.
    places: Vec<(u128, Option<u32>)>,
}

impl<T> Prefixes<T> {
    /// Of networks; of one that is there several times the last counts.
    pub fn new(entries: Vec<(Prefix, T)>) -> Self {
        let mut entries = entries;
        // The one that is around another comes before it; the sort keeps the order of equal ones.
        entries.sort_by_key(|(prefix, _)| *prefix);
        let mut places: Vec<(u128, Option<u32>)> = Vec::new();
        let mut place = |from: u128, value: Option<u32>| match places.last_mut() {
            Some(last) if last.0 == from => last.1 = value,
            _ => places.push((from, value)),
        };
        // Those that are around where we are, the innermost last: where each ends, and its value.
        let mut around: Vec<(u128, u32)> = Vec::new();
        let leave = |around: &mut Vec<(u128, u32)>, until: Option<u128>, place: &mut dyn FnMut(u128, Option<u32>)| {
            while let Some((last, _)) = around.last().copied().filter(|(last, _)| until.is_none_or(|at| *last < at)) {
                around.pop();
                if let Some(next) = last.checked_add(1) {
                    place(next, around.last().map(|(_, value)| *value));
                }
            }
        };
        for (n, (prefix, _)) in (0u32..).zip(&entries) {
            leave(&mut around, Some(prefix.first), &mut place);
            place(prefix.first, Some(n));
            around.push((prefix.last(), n));
        }
        leave(&mut around, None, &mut place);
        Prefixes { values: entries.into_iter().map(|(_, value)| value).collect(), places }
    }

    /// What is known of the longest prefix that an address is in.
    pub fn find(&self, ip: IpAddr) -> Option<&T> {
        let at = bits(ip);
        let after = self.places.partition_point(|(from, _)| *from <= at);
        let (_, value) = self.places.get(after.checked_sub(1)?)?;
        self.values.get((*value)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_as_they_are_written() {
        let prefix = |text: &str| text.parse::<Prefix>();
        assert_eq!(prefix("10.0.0.1"), prefix("10.0.0.1/32"));
        assert_eq!(prefix("10.0.0.0/8").unwrap().length, 104);
        assert_eq!(prefix("::/0").unwrap(), Prefix { first: 0, length: 0 });
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/x", "10.0.0", "/8"] {
            assert_eq!(prefix(wrong).unwrap_err(), format!("`{wrong}` is no address, nor a prefix"));
        }
        assert!(prefix("fe80::1/10").unwrap_err().ends_with("fe80::/10 is the prefix"));
    }

    proptest::proptest! {
        #[test]
        fn the_longest_is_found_as_a_walk_finds_it(
            networks in proptest::collection::vec((0u8..4, 0u8..4, 0u8..=32), 0..40),
            wide in proptest::collection::vec(0u8..=128, 0..4),
            asked in proptest::collection::vec((0u8..4, 0u8..4, proptest::prelude::any::<u8>()), 1..40),
        ) {
            let v4 = |(a, b, length): (u8, u8, u8)| {
                let first = u32::from_be_bytes([10, a, b, 0]) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                format!("{}/{length}", std::net::Ipv4Addr::from_bits(first))
            };
            let v6 = |length: u8| format!("{}/{length}", Ipv6Addr::from_bits(!hosts(length)));
            let all: Vec<String> = networks.into_iter().map(v4).chain(wide.into_iter().map(v6)).collect();
            let entries: Vec<(Prefix, usize)> = all.iter().map(|text| text.parse().unwrap()).zip(0..).collect();
            let table = Prefixes::new(entries.clone());
            assert!(table.places.len() <= 2 * all.len() + 1);
            let mut ips: Vec<IpAddr> = asked.iter().map(|(a, b, c)| IpAddr::from([10, *a, *b, *c])).collect();
            ips.extend([IpAddr::from([255; 4]), IpAddr::from([0; 4]), IpAddr::from([0xff; 16]), IpAddr::from([0; 16])]);
            for ip in ips {
                let within = entries.iter().filter(|(p, _)| (p.first..=p.last()).contains(&bits(ip)));
                let longest = within.max_by_key(|(p, n)| (p.length, *n)).map(|(_, n)| n);
                assert_eq!(table.find(ip), longest, "{ip}");
            }
        }
    }
}
