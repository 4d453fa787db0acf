//! What is kept of senders that anybody can claim to be, how long, and who goes first when they are too many.
//!
//! The address of a datagram proves nothing, so state that is kept by it has a price and an end. A sender is *proven*
//! once something that it sent was of use. It is forgotten when it is quiet: [`UNPROVEN_MS`], or [`PROVEN_MS`] once it is
//! proven. Where there are too many, one that is proven never goes for one that is not. Among equals goes who has been
//! quiet the longest, less the patience that it has earned: as long as it has been of use, at most [`PATIENCE_MS`]. So a
//! flood of new senders, be they proven by their first datagram, drives out each other and none that has been there for
//! a while; and those who came in a flood and are quiet since give way to whoever comes after it.
//!
//! Bounds are a tenant's and within it a *bucket's*: which bucket a sender is in depends on its address alone, and a bucket
//! is one worker's, so that the outcome does not depend on the number of workers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How long a sender is remembered after it was last heard, if nothing of it was ever of use, milliseconds of live time.
pub const UNPROVEN_MS: i64 = 10 * 60_000;
/// The same if something was: as long as templates are believed.
pub const PROVEN_MS: i64 = 7 * 86_400_000;
/// Longest patience with a sender that is quiet while others want its place.
pub const PATIENCE_MS: i64 = 60 * 60_000;
/// Buckets of a tenant.
pub const BUCKETS: u64 = 64;

/// What is known of a sender's worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reputation {
    /// When it was first and last of use, live time.
    useful_ms: Option<(i64, i64)>,
    /// When it was last heard.
    heard_ms: i64,
}

impl Reputation {
    /// It was heard, and was of use or not.
    pub fn hear(&mut self, now_ms: i64, useful: bool) {
        self.heard_ms = now_ms;
        if useful {
            self.useful_ms = Some((self.useful_ms.map_or(now_ms, |(first, _)| first), now_ms));
        }
    }

    /// Whether it was never heard.
    pub fn is_new(&self) -> bool {
        *self == Reputation::default()
    }

    /// How long it has been of use, at most [`PATIENCE_MS`].
    pub fn known_ms(&self) -> i64 {
        self.useful_ms.map_or(0, |(first, last)| (last - first).min(PATIENCE_MS))
    }

    /// Who goes first is least: whether it is proven, and until when we are patient.
    pub fn rank(&self) -> (bool, i64) {
        match self.useful_ms {
            None => (false, self.heard_ms),
            Some((_, last)) => (true, last + self.known_ms()),
        }
    }

    /// When it is forgotten, if it stays quiet.
    pub fn ends_ms(&self) -> i64 {
        match self.useful_ms {
            None => self.heard_ms + UNPROVEN_MS,
            Some((_, last)) => (last + PROVEN_MS).max(self.heard_ms + UNPROVEN_MS),
        }
    }
}

/// The bucket of an address.
pub fn bucket(partition: &str, ip: IpAddr) -> u64 {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    bucket_of(partition.bytes().chain(ip))
}

/// The bucket of a sender's name.
pub fn bucket_of_text(text: &str) -> u64 {
    bucket_of(text.bytes())
}

/// The bucket of what has an id.
pub fn bucket_of_bytes(id: &[u8]) -> u64 {
    bucket_of(id.iter().copied())
}

/// Stable: the same in every build, as what is kept depends on it. FNV-1a of 64 bits; as the last bytes reach only some of
/// its bits, these are mixed as `MurmurHash3` ends.
fn bucket_of(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mix = |hash: u64, factor: u64| (hash ^ (hash >> 33)).wrapping_mul(factor);
    let hash = mix(mix(hash, 0xff51_afd7_ed55_8ccd), 0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)) % BUCKETS
}
