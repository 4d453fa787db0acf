//! GELF over UDP: messages in chunks, and compressed ones (Graylog's GELF specification, version 1.1).
//!
//! A chunk is `1e 0f`, eight octets that name the message, its number, how many there are, and its part. All of a message's chunks come
//! within five seconds, or the message is lost. A message, whole, is JSON, or JSON compressed by gzip or zlib.
//!
//! Nobody is known by what they send here, so what waits for chunks is bounded: for each sender, in messages, in bytes, and in time. One
//! sender's chunks never drive out another's unless it has the most of all.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use flate2::read::{GzDecoder, ZlibDecoder};
use thiserror::Error;

/// Begins a chunk.
const CHUNK: [u8; 2] = [0x1e, 0x0f];
/// Octets before its part.
const HEAD: usize = 12;
/// Most chunks of a message.
const MAX_CHUNKS: u8 = 128;
/// How long a message waits for its chunks, milliseconds.
pub const WAIT_MS: i64 = 5000;
/// Messages that wait at a socket.
pub const MAX_WAITING: usize = 1024;
/// Those of one address.
pub const MAX_OF_ADDRESS: usize = 64;
/// What they take together, bytes.
pub const MAX_BYTES: usize = 8 << 20;
/// What a message takes beside its chunks.
const OVERHEAD: usize = 256 + MAX_CHUNKS as usize * 24;
/// Longest message, octets, whole and not compressed.
pub const MAX_MESSAGE: usize = 1 << 20;
/// A message is at most so many times as long as what it was compressed to.
const MAX_RATIO: usize = 200;

/// Why something is no message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GelfError {
    /// A chunk is cut short, or says of itself what cannot be.
    #[error("a chunk that is none: {0}")]
    Chunk(&'static str),
    /// It is not what it was compressed from.
    #[error("it cannot be decompressed")]
    Compressed,
    /// It is longer than is taken.
    #[error("it is longer than {MAX_MESSAGE} octets, or than {MAX_RATIO} times what it is compressed to")]
    Long,
}

/// Whether it is a chunk.
pub fn is_chunk(bytes: &[u8]) -> bool {
    bytes.starts_with(&CHUNK)
}

/// What becomes of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Others are missing.
    Waits,
    /// It was the last that was missing: the message.
    Whole(Vec<u8>),
}

/// A message that waits.
struct Waiting {
    parts: BTreeMap<u8, Box<[u8]>>,
    of: u8,
    bytes: usize,
    since_ms: i64,
}

/// The sender and the message.
type Key = (SocketAddr, [u8; 8]);

/// Messages that wait for chunks.
#[derive(Default)]
pub struct Chunks {
    waiting: BTreeMap<Key, Waiting>,
    /// By age, the oldest first; some are gone.
    order: VecDeque<(i64, Key)>,
    of_address: BTreeMap<IpAddr, (usize, usize)>,
    bytes: usize,
    lost: BTreeMap<IpAddr, u64>,
}

impl Chunks {
    /// Takes a chunk in.
    ///
    /// # Errors
    /// It is none.
    pub fn take(&mut self, peer: SocketAddr, bytes: &[u8], now_ms: i64) -> Result<Taken, GelfError> {
        let (head, part) = bytes.split_at_checked(HEAD).ok_or(GelfError::Chunk("it is cut short"))?;
        let (number, of) = (head[10], head[11]);
        if of == 0 || of > MAX_CHUNKS || number >= of {
            return Err(GelfError::Chunk("its number is not below how many there are, or there are more than 128"));
        }
        let key: Key = (peer, head[2..10].try_into().map_err(|_| GelfError::Chunk("it has no name"))?);
        if self.waiting.get(&key).is_some_and(|waiting| waiting.of != of) {
            return Err(GelfError::Chunk("another of its message says that there are more, or fewer"));
        }
        if let Entry::Vacant(place) = self.waiting.entry(key) {
            place.insert(Waiting { parts: BTreeMap::new(), of, bytes: 0, since_ms: now_ms });
            self.order.push_back((now_ms, key));
            self.grow(peer.ip(), 1, OVERHEAD);
        }
        let Some(waiting) = self.waiting.get_mut(&key) else { return Ok(Taken::Waits) };
        // One that comes twice is the one that was there.
        if let Entry::Vacant(place) = waiting.parts.entry(number) {
            place.insert(part.into());
            waiting.bytes += part.len();
            let (whole, long) = (waiting.parts.len() == usize::from(of), waiting.bytes > MAX_MESSAGE);
            self.grow(peer.ip(), 0, part.len());
            if long {
                self.forget(&key);
                return Err(GelfError::Long);
            }
            if whole && let Some(waiting) = self.forget(&key) {
                return Ok(Taken::Whole(waiting.parts.into_values().flatten().collect()));
            }
        }
        self.make_room(peer.ip());
        Ok(Taken::Waits)
    }

    fn grow(&mut self, ip: IpAddr, messages: usize, bytes: usize) {
        let of = self.of_address.entry(ip).or_default();
        *of = (of.0 + messages, of.1 + bytes);
        self.bytes += bytes;
    }

    fn forget(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        let bytes = OVERHEAD + waiting.bytes;
        self.bytes -= bytes;
        let ip = key.0.ip();
        if let Some(of) = self.of_address.get_mut(&ip) {
            *of = (of.0 - 1, of.1 - bytes);
            if of.0 == 0 {
                self.of_address.remove(&ip);
            }
        }
        Some(waiting)
    }

    fn lose(&mut self, key: &Key) {
        if self.forget(key).is_some() {
            *self.lost.entry(key.0.ip()).or_default() += 1;
        }
    }

    /// Lets go what is too much: of an address that has too many its oldest, else that of the address that has the most.
    fn make_room(&mut self, ip: IpAddr) {
        loop {
            let of_address = self.of_address.get(&ip).map_or(0, |of| of.0);
            let whose = if of_address > MAX_OF_ADDRESS {
                Some(ip)
            } else if self.waiting.len() > MAX_WAITING || self.bytes > MAX_BYTES {
                self.of_address.iter().max_by_key(|(_, of)| of.1).map(|(ip, _)| *ip)
            } else {
                None
            };
            let Some(whose) = whose else { break };
            let of = |(since, key): &&(i64, Key)| {
                key.0.ip() == whose && self.waiting.get(key).is_some_and(|waiting| waiting.since_ms == *since)
            };
            let Some((_, key)) = self.order.iter().find(of).copied() else { break };
            self.lose(&key);
        }
        // What is gone is not looked at again and again.
        if self.order.len() > 2 * MAX_WAITING {
            self.order.retain(|(since, key)| self.waiting.get(key).is_some_and(|waiting| waiting.since_ms == *since));
        }
    }

    /// Gives up the messages that waited too long; gives how many of each sender were lost since it was last asked.
    pub fn expire(&mut self, now_ms: i64) -> BTreeMap<IpAddr, u64> {
        while let Some((since, key)) = self.order.front().copied().filter(|(since, _)| since + WAIT_MS <= now_ms) {
            self.order.pop_front();
            if self.waiting.get(&key).is_some_and(|waiting| waiting.since_ms == since) {
                self.lose(&key);
            }
        }
        std::mem::take(&mut self.lost)
    }
}

/// A message that is not compressed any more.
///
/// # Errors
/// [`GelfError`] where it says that it is compressed and is not, or is too long.
pub fn inflated(bytes: &[u8]) -> Result<Cow<'_, [u8]>, GelfError> {
    let most = MAX_MESSAGE.min(bytes.len().saturating_mul(MAX_RATIO));
    let read = |from: &mut dyn Read| {
        let mut out = Vec::new();
        from.take(most as u64 + 1).read_to_end(&mut out).map_err(|_| GelfError::Compressed)?;
        if out.len() > most { Err(GelfError::Long) } else { Ok(Cow::Owned(out)) }
    };
    match bytes {
        [0x1f, 0x8b, ..] => read(&mut GzDecoder::new(bytes)),
        // RFC 1950: deflate with the largest window, and a header whose check is right. A text may begin so, too.
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => read(&mut ZlibDecoder::new(bytes)),
        _ => Ok(Cow::Borrowed(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn chunk(id: u64, number: u8, of: u8, part: &[u8]) -> Vec<u8> {
        [&CHUNK[..], &id.to_be_bytes(), &[number, of], part].concat()
    }

    fn peer(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 1000))
    }

    #[test]
    fn chunks_make_a_message_in_any_order_and_twice_is_once() {
        let mut chunks = Chunks::default();
        let mut take = |id, number, part: &[u8]| chunks.take(peer(1), &chunk(id, number, 3, part), 0).unwrap();
        assert_eq!(take(1, 2, b"c"), Taken::Waits);
        assert_eq!((take(1, 0, b"a"), take(1, 0, b"x"), take(2, 1, b"z")), (Taken::Waits, Taken::Waits, Taken::Waits));
        assert_eq!(take(1, 1, b"b"), Taken::Whole(b"abc".to_vec()));
        assert_eq!(chunks.waiting.len(), 1);
        assert_eq!(chunks.expire(WAIT_MS), BTreeMap::from([(peer(1).ip(), 1)]));
        assert!(chunks.waiting.is_empty() && chunks.of_address.is_empty() && chunks.bytes == 0);
    }

    #[test]
    fn what_is_no_chunk_is_told() {
        let mut chunks = Chunks::default();
        for wrong in [&CHUNK[..], &chunk(1, 0, 0, b""), &chunk(1, 3, 3, b""), &chunk(1, 0, 129, b"")] {
            assert!(matches!(chunks.take(peer(1), wrong, 0), Err(GelfError::Chunk(_))), "{wrong:?}");
        }
        chunks.take(peer(1), &chunk(1, 0, 2, b""), 0).unwrap();
        assert!(chunks.take(peer(1), &chunk(1, 1, 3, b""), 0).is_err());
        let part = vec![0; 60_000];
        let long = (0..20).map(|n| chunks.take(peer(2), &chunk(9, n, 20, &part), 0)).find(Result::is_err);
        assert_eq!(long, Some(Err(GelfError::Long)));
        assert_eq!((chunks.waiting.len(), chunks.bytes), (1, OVERHEAD));
    }

    #[test]
    fn a_flood_of_one_sender_takes_nobody_elses_place() {
        let mut chunks = Chunks::default();
        chunks.take(peer(1), &chunk(1, 0, 2, b"a"), 0).unwrap();
        for id in 0..10_000 {
            chunks.take(peer(2), &chunk(id, 0, 2, &[0; 1000]), 0).unwrap();
        }
        assert_eq!(chunks.waiting.len(), 1 + MAX_OF_ADDRESS);
        // Nor does one with large messages; and many senders together are bounded.
        for n in 3..=255 {
            for id in 0..64 {
                chunks.take(peer(n), &chunk(1000 + id, 0, 2, &vec![0; 20_000]), 1).unwrap();
            }
        }
        assert!(chunks.waiting.len() <= MAX_WAITING && chunks.bytes <= MAX_BYTES);
        assert_eq!(chunks.take(peer(1), &chunk(1, 1, 2, b"b"), 2), Ok(Taken::Whole(b"ab".to_vec())));
        let lost: u64 = chunks.expire(WAIT_MS + 1).into_values().sum();
        assert_eq!(lost, 10_000 + 253 * 64);
        assert!(chunks.order.len() <= 2 * MAX_WAITING + 1 && chunks.waiting.is_empty() && chunks.bytes == 0);
    }

    #[test]
    fn compressed_messages_are_bounded_while_they_are_read() {
        let gzip = |text: &[u8]| {
            let mut out = GzEncoder::new(Vec::new(), Compression::default());
            out.write_all(text).unwrap();
            out.finish().unwrap()
        };
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(b"{\"a\":1}").unwrap();
        let zlib = zlib.finish().unwrap();
        for compressed in [gzip(b"{\"a\":1}"), zlib.clone()] {
            assert_eq!(inflated(&compressed).unwrap(), &b"{\"a\":1}"[..]);
        }
        assert_eq!(inflated(b"{}").unwrap(), &b"{}"[..]);
        assert_eq!(inflated(b"xyz <14>").unwrap(), &b"xyz <14>"[..]);
        assert_eq!(inflated(b"x^2 is no header of zlib"), Err(GelfError::Compressed));
        assert_eq!(inflated(&gzip(&vec![b'x'; 64 << 20])), Err(GelfError::Long));
        assert_eq!(
            inflated(&gzip(&vec![b'x'; 100_000])),
            Err(GelfError::Long),
            "nothing that is said repeats itself so"
        );
        assert_eq!(inflated(&zlib[..5]), Err(GelfError::Compressed));
        assert_eq!(inflated(&[0x1f, 0x8b, 0, 0]), Err(GelfError::Compressed));
    }
}
