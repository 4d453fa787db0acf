//! The ledger's frame: one tick of input, durable as a whole, and the only clock there is.
//!
//! ```text
//! frame  = length u32le · crc32c u32le · body            the checksum covers the body
//! body   = format u8 · generation u64be · epoch u64be · clock_ms u64be · gap_ms u64be · release_bytes
//!        · ranges:  count, (feed, from, to)*              numbers are LEB128, texts and bytes are length-prefixed
//!        · slices:  count, slice*
//! slice  = kind u8 · tenant · partition · feed · count, entry*
//! entry  = peer (0 | 4 | 6, address, port u16be) · received_us · bytes
//! ```
//! *Position* is the ordinal of an entry in its frame, counted over all slices; `(epoch, position, index)` names every
//! row made from it. Older formats are read, newer ones refused. A frame never exceeds [`MAX_FRAME`].

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use thiserror::Error;

use crate::wire::{Cursor, Truncated, put_sized, put_varint};

/// The format this build writes.
pub const FORMAT: u8 = 1;
/// Bytes before the body.
pub const PREFIX: usize = 8;
/// Largest body, bytes: none larger is written, and none is read. A tick closes well before.
pub const MAX_FRAME: usize = 256 << 20;
/// What a frame takes at most beside its ranges and slices, bytes.
pub const FRAME_AROUND: usize = 64;

/// What an entry's bytes are, and so who decodes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A NetFlow v5, v9 or IPFIX message.
    NetFlow = 1,
    /// An sFlow v5 datagram.
    SFlow = 2,
    /// One syslog message, framing removed.
    Syslog = 3,
    /// An SNMP message, its community replaced by a keyed hash.
    Trap = 4,
    /// [`crate::payload::AgentPush`] as JSON head and status bytes.
    Status = 5,
    /// A chunk of a run that is not released yet.
    Staged = 6,
    /// The release, or the discarding, of a staged run.
    Release = 7,
    /// A [`crate::fact::Fact`] as JSON.
    Fact = 8,
    /// A `flowpb.FlowMessage`.
    FlowMessage = 9,
    /// A GELF message as NATS carries it.
    Gelf = 10,
    /// A trap as JSON, as NATS carries it.
    TrapJson = 11,
    /// [`crate::payload::FeedCounters`] as JSON: what was shed or lost before the ledger.
    Counters = 12,
    /// An export request of OTLP: protobuf, or JSON, which begins with a brace. Of log records.
    OtlpLogs = 16,
    /// The same, of spans.
    OtlpTraces = 17,
    /// The same, of metrics.
    OtlpMetrics = 18,
}

impl Kind {
    /// The kind of that number.
    pub fn from_u8(kind: u8) -> Option<Kind> {
        use Kind::*;
        let known = [
            NetFlow,
            SFlow,
            Syslog,
            Trap,
            Status,
            Staged,
            Release,
            Fact,
            FlowMessage,
            Gelf,
            TrapJson,
            Counters,
            OtlpLogs,
            OtlpTraces,
            OtlpMetrics,
        ];
        known.into_iter().find(|k| *k as u8 == kind)
    }
}

/// Where inputs come from and whom they belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// What the bytes are.
    pub kind: Kind,
    /// Customer.
    pub tenant: String,
    /// Site or address space.
    pub partition: String,
    /// The feed, as in `sources.source`.
    pub feed: String,
}

/// One input as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The sender, where there is one.
    pub peer: Option<SocketAddr>,
    /// Receipt, microseconds since 1970.
    pub received_us: i64,
    /// The bytes.
    pub body: Bytes,
}

/// Inputs of one origin, in order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Whose they are.
    pub origin: Origin,
    /// Position in the frame of the first.
    pub first_position: u32,
    /// The inputs.
    pub entries: Vec<Entry>,
}

/// How far a feed has been read: what is durable need not be asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The feed.
    pub feed: String,
    /// First offset in this frame.
    pub from: u64,
    /// First offset after it.
    pub to: u64,
}

/// One tick of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Changes when the ledger is started anew; outputs of another generation are another history.
    pub generation: u64,
    /// Its number; the only clock of the dataflow.
    pub epoch: u64,
    /// "Now", milliseconds since 1970; never decreases.
    pub clock_ms: i64,
    /// Time that passed unobserved before this frame, milliseconds.
    pub gap_ms: i64,
    /// Bytes of released runs that are read at this epoch.
    pub release_bytes: u32,
    /// What was read.
    pub ranges: Vec<Range>,
    /// The inputs.
    pub slices: Vec<Slice>,
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes end inside the frame: a torn tail, if they are the last.
    #[error("the frame ends early ({0})")]
    Torn(#[from] Truncated),
    /// The length is none that a frame has.
    #[error("a frame of {0} bytes: none has more than {MAX_FRAME}")]
    TooLong(usize),
    /// The checksum does not match.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// Written by a newer build.
    #[error("frame format {0} is newer than this build reads ({FORMAT})")]
    Newer(u8),
    /// The checksum matches but the content is not a frame.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

impl Origin {
    /// What a slice of it with these inputs takes at most in a frame, bytes.
    pub fn most_bytes(&self, entries: &[Entry]) -> usize {
        let names = self.tenant.len() + self.partition.len() + self.feed.len();
        SLICE_AROUND + names + entries.iter().map(|entry| ENTRY_AROUND + entry.body.len()).sum::<usize>()
    }
}

impl Range {
    /// What it takes at most in a frame, bytes.
    pub fn most_bytes(&self) -> usize {
        3 * VARINT + self.feed.len()
    }
}

/// Longest LEB128 number.
const VARINT: usize = 10;
/// What a slice takes at most beside its names and entries: kind, lengths of names, count.
const SLICE_AROUND: usize = 1 + 4 * VARINT;
/// What an entry takes at most beside its bytes: peer, receipt, length.
const ENTRY_AROUND: usize = 19 + 2 * VARINT;

impl Frame {
    /// Inputs in it.
    pub fn entries(&self) -> usize {
        self.slices.iter().map(|s| s.entries.len()).sum()
    }

    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        out.push(FORMAT);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.clock_ms.to_be_bytes());
        out.extend_from_slice(&self.gap_ms.to_be_bytes());
        put_varint(out, self.release_bytes.into());
        put_varint(out, self.ranges.len() as u64);
        for range in &self.ranges {
            put_sized(out, range.feed.as_bytes());
            put_varint(out, range.from);
            put_varint(out, range.to);
        }
        put_varint(out, self.slices.len() as u64);
        for slice in &self.slices {
            out.push(slice.origin.kind as u8);
            put_sized(out, slice.origin.tenant.as_bytes());
            put_sized(out, slice.origin.partition.as_bytes());
            put_sized(out, slice.origin.feed.as_bytes());
            put_varint(out, slice.entries.len() as u64);
            for entry in &slice.entries {
                put_peer(out, entry.peer);
                put_varint(out, entry.received_us.max(0) as u64);
                put_sized(out, &entry.body);
            }
        }
        let body = &out[start + PREFIX..];
        let (len, crc) = (body.len() as u32, crc32c::crc32c(body));
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
        out[start + 4..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads one frame at the start of `bytes`; the entries share `bytes`. Returns it and its length.
    ///
    /// # Errors
    /// [`FrameError`] where the bytes end before the frame does, its checksum is another, or its content is none.
    pub fn decode(bytes: &Bytes) -> Result<(Frame, usize), FrameError> {
        let mut prefix = Cursor::new(bytes);
        let len = prefix.take(4)?.iter().rev().fold(0usize, |n, b| (n << 8) | usize::from(*b));
        if len > MAX_FRAME {
            return Err(FrameError::TooLong(len));
        }
        let stored = prefix.take(4)?.iter().rev().fold(0u32, |n, b| (n << 8) | u32::from(*b));
        let body = prefix.take(len)?;
        let computed = crc32c::crc32c(body);
        if computed != stored {
            return Err(FrameError::Checksum { stored, computed });
        }
        let frame = Frame::decode_body(&bytes.slice(PREFIX..PREFIX + len))?;
        Ok((frame, PREFIX + len))
    }

    fn decode_body(body: &Bytes) -> Result<Frame, FrameError> {
        let mut at = Cursor::new(body);
        let format = at.u8()?;
        if format > FORMAT {
            return Err(FrameError::Newer(format));
        }
        let mut frame = Frame {
            generation: at.u64()?,
            epoch: at.u64()?,
            clock_ms: at.u64()? as i64,
            gap_ms: at.u64()? as i64,
            release_bytes: u32::try_from(at.varint()?).unwrap_or(u32::MAX),
            ranges: Vec::new(),
            slices: Vec::new(),
        };
        for _ in 0..at.varint()? {
            frame.ranges.push(Range { feed: text(&mut at)?, from: at.varint()?, to: at.varint()? });
        }
        let mut position = 0u32;
        for _ in 0..at.varint()? {
            let kind = Kind::from_u8(at.u8()?).ok_or(FrameError::Malformed("unknown kind of slice"))?;
            let origin = Origin { kind, tenant: text(&mut at)?, partition: text(&mut at)?, feed: text(&mut at)? };
            let count = at.varint()?;
            let mut entries = Vec::with_capacity(count.min(1 << 16) as usize);
            let first_position = position;
            for _ in 0..count {
                let peer = take_peer(&mut at)?;
                let received_us = i64::try_from(at.varint()?).unwrap_or(i64::MAX);
                let n = at.sized()?.len();
                let end = at.position();
                entries.push(Entry { peer, received_us, body: body.slice(end - n..end) });
                position += 1;
            }
            frame.slices.push(Slice { origin, first_position, entries });
        }
        if at.is_empty() { Ok(frame) } else { Err(FrameError::Malformed("bytes after the last slice")) }
    }
}

fn text(at: &mut Cursor<'_>) -> Result<String, FrameError> {
    let bytes = at.sized()?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FrameError::Malformed("a name is not UTF-8"))
}

fn put_peer(out: &mut Vec<u8>, peer: Option<SocketAddr>) {
    match peer {
        None => out.push(0),
        Some(addr) => {
            match addr.ip() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&addr.port().to_be_bytes());
        }
    }
}

fn take_peer(at: &mut Cursor<'_>) -> Result<Option<SocketAddr>, FrameError> {
    let ip: IpAddr = match at.u8()? {
        0 => return Ok(None),
        4 => at.u32()?.to_be_bytes().into(),
        6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(at.take(16)?);
            octets.into()
        }
        _ => return Err(FrameError::Malformed("unknown family of a peer")),
    };
    Ok(Some(SocketAddr::new(ip, at.u16()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let origin =
            Origin { kind: Kind::Syslog, tenant: "t".into(), partition: "default".into(), feed: "syslog:a".into() };
        let entry = |peer: &str, body: &'static [u8]| Entry {
            peer: peer.parse().ok(),
            received_us: 1_700_000_000_000_000,
            body: Bytes::from_static(body),
        };
        Frame {
            generation: 7,
            epoch: 42,
            clock_ms: 1_700_000_000_000,
            gap_ms: 0,
            release_bytes: 300,
            ranges: vec![Range { feed: "syslog:a".into(), from: 0, to: 3 }],
            slices: vec![
                Slice {
                    origin: origin.clone(),
                    first_position: 0,
                    entries: vec![entry("127.0.0.1:9", b"x"), entry("[::1]:9", b"")],
                },
                Slice { origin, first_position: 2, entries: vec![entry("", b"last")] },
            ],
        }
    }

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        let mut bytes = Vec::new();
        frame().encode(&mut bytes);
        let (read, n) = Frame::decode(&Bytes::from(bytes.clone())).unwrap();
        assert_eq!((read, n), (frame(), bytes.len()));
    }

    #[test]
    fn a_frame_takes_no_more_than_its_parts_say() {
        let whole = frame();
        let parts = whole.slices.iter().map(|slice| slice.origin.most_bytes(&slice.entries)).sum::<usize>()
            + whole.ranges.iter().map(Range::most_bytes).sum::<usize>();
        let mut bytes = Vec::new();
        whole.encode(&mut bytes);
        assert!(bytes.len() - PREFIX <= FRAME_AROUND + parts, "{} {parts}", bytes.len());
        // Even where everything is as large as it can be.
        let mut bytes = Vec::new();
        let entry = Entry { peer: "[::1]:9".parse().ok(), received_us: i64::MAX, body: Bytes::new() };
        let origin =
            Origin { kind: Kind::Syslog, tenant: String::new(), partition: String::new(), feed: String::new() };
        let range = Range { feed: String::new(), from: u64::MAX, to: u64::MAX };
        let most = Frame { release_bytes: u32::MAX, ranges: vec![], slices: vec![], ..frame() };
        most.encode(&mut bytes);
        assert!(bytes.len() - PREFIX <= FRAME_AROUND);
        let before = bytes.len();
        bytes.clear();
        let slice = Slice { origin: origin.clone(), first_position: 0, entries: vec![entry.clone()] };
        Frame { ranges: vec![range.clone()], slices: vec![slice], ..most }.encode(&mut bytes);
        assert!(bytes.len() <= before + range.most_bytes() + origin.most_bytes(&[entry]));
    }

    #[test]
    fn a_length_that_no_frame_has_is_refused_before_anything_is_read() {
        for len in [MAX_FRAME as u32 + 1, u32::MAX] {
            let mut bytes = len.to_le_bytes().to_vec();
            assert_eq!(Frame::decode(&Bytes::from(bytes.clone())), Err(FrameError::TooLong(len as usize)));
            bytes.extend([0; 100]);
            assert_eq!(Frame::decode(&Bytes::from(bytes)), Err(FrameError::TooLong(len as usize)));
        }
        let torn = Frame::decode(&Bytes::from((MAX_FRAME as u32).to_le_bytes().to_vec()));
        assert!(matches!(torn, Err(FrameError::Torn(_))));
    }

    #[test]
    fn the_format_is_these_bytes() {
        let mut bytes = Vec::new();
        frame().encode(&mut bytes);
        let golden = "01000000000000000700000000000000\
                      2a0000018bcfe568000000000000000000ac02\
                      010873797\
                      36c6f673a61000302";
        assert!(
            hex::encode(&bytes[PREFIX..]).starts_with(&golden.replace(char::is_whitespace, "")),
            "{}",
            hex::encode(&bytes)
        );
    }

    #[test]
    fn every_prefix_is_torn_and_every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        frame().encode(&mut bytes);
        for n in 0..bytes.len() {
            assert!(matches!(Frame::decode(&Bytes::copy_from_slice(&bytes[..n])), Err(FrameError::Torn(_))), "{n}");
        }
        for i in 4..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x10;
            assert!(matches!(Frame::decode(&Bytes::from(bad)), Err(FrameError::Checksum { .. })), "{i}");
        }
    }
}
