//! A segment's bytes: its header and its frames, and what tells a torn end from damage.

use std::path::Path;

use bytes::Bytes;
use radarflow_proto::frame::{Frame, FrameError, PREFIX};

use crate::ledger::{FORMAT, LedgerError};

const MAGIC: &[u8; 8] = b"RFLEDGER";
/// Bytes of a segment before its first frame.
pub(super) const HEADER: usize = 32;
/// Bytes of a frame before what tells it from noise is complete: prefix, format, generation, epoch.
const FRAME_HEAD: usize = PREFIX + 17;
/// Epochs a frame may be ahead of the one expected where damage is looked behind.
const FRAMES_BEHIND_DAMAGE: u64 = 1 << 20;

pub(super) fn header(generation: u64, first_epoch: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(FORMAT.to_be_bytes());
    out.extend(generation.to_be_bytes());
    out.extend(first_epoch.to_be_bytes());
    out.extend(crc32c::crc32c(&out).to_be_bytes());
    out
}

/// A frame in which nothing came.
pub(super) fn empty(generation: u64, epoch: u64, clock_ms: i64) -> Frame {
    let (ranges, slices) = (Vec::new(), Vec::new());
    Frame { generation, epoch, clock_ms, gap_ms: 0, release_bytes: 1 << 20, ranges, slices }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b))
}

pub(super) fn read_header(path: &Path, bytes: &[u8]) -> Result<(u64, u64), LedgerError> {
    let damaged =
        |reason: &str| LedgerError::Damaged { segment: path.to_owned(), offset: 0, reason: reason.to_owned() };
    let header = bytes.get(..HEADER).ok_or_else(|| damaged("the header is cut short"))?;
    if &header[..8] != MAGIC {
        return Err(damaged("this is no ledger segment"));
    }
    if u64::from(crc32c::crc32c(&header[..28])) != number(&header[28..32]) {
        return Err(damaged("the header's checksum does not match"));
    }
    let format = number(&header[8..12]) as u32;
    if format > FORMAT {
        return Err(LedgerError::Newer { path: path.to_owned(), found: format });
    }
    Ok((number(&header[12..20]), number(&header[20..28])))
}

/// Where reading a segment's frames ended.
pub(super) enum End {
    /// At its end.
    Clean,
    /// In a frame that was not finished: `good` bytes are.
    Torn { good: u64 },
}

/// What a segment's frames must be.
pub(super) struct Expected {
    pub(super) generation: u64,
    pub(super) epoch: u64,
    /// It is the last segment: it may end in a torn frame.
    pub(super) last: bool,
}

/// Reads a segment's frames in order. Damage with intact frames behind it is an error.
pub(super) fn read_frames(
    path: &Path,
    bytes: &Bytes,
    mut expected: Expected,
    mut each: impl FnMut(Frame),
) -> Result<End, LedgerError> {
    let mut offset = HEADER;
    while offset < bytes.len() {
        let damaged = |reason: String| LedgerError::Damaged { segment: path.to_owned(), offset: offset as u64, reason };
        match Frame::decode(&bytes.slice(offset..)) {
            Ok((frame, _)) if (frame.generation, frame.epoch) != (expected.generation, expected.epoch) => {
                return Err(damaged(format!("epoch {} stands where {} should", frame.epoch, expected.epoch)));
            }
            Ok((frame, n)) => {
                each(frame);
                offset += n;
                expected.epoch += 1;
            }
            Err(FrameError::Newer(found)) => {
                return Err(LedgerError::Newer { path: path.to_owned(), found: u32::from(found) });
            }
            Err(_) if expected.last && intact_behind(bytes, offset, &expected).is_none() => {
                return Ok(End::Torn { good: offset as u64 });
            }
            Err(error) => return Err(damaged(error.to_string())),
        }
    }
    Ok(End::Clean)
}

/// Where a whole frame of this ledger stands behind a bad one: then the bad one is damage, not a torn tail. A checksum is
/// computed only where the generation and a plausible epoch stand, so that the work is that of one reading.
pub(super) fn intact_behind(bytes: &Bytes, bad: usize, expected: &Expected) -> Option<usize> {
    let generation = expected.generation.to_be_bytes();
    let epochs = expected.epoch..expected.epoch.saturating_add(FRAMES_BEHIND_DAMAGE);
    let within = bytes.get(bad + 1 + PREFIX + 1..)?;
    let found = memchr::memmem::find_iter(within, &generation).map(|n| bad + 1 + n);
    let mut plausible = found.filter(|at| {
        bytes.get(at + FRAME_HEAD - 8..at + FRAME_HEAD).is_some_and(|epoch| epochs.contains(&number(epoch)))
    });
    plausible.find(|at| Frame::decode(&bytes.slice(*at..)).is_ok())
}
