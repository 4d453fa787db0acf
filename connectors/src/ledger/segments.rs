//! The embedded backend: frames in segment files.
//!
//! ```text
//! <data-dir>/ledger/<first epoch, 20 digits>.seg
//! segment = "RFLEDGER" · format u32be · generation u64be · first epoch u64be · crc32c u32be of what is before · frame*
//! ```
//! Epochs are contiguous over all segments. A segment is closed at [`SEGMENT_BYTES`]; whole segments go once nothing
//! needs them. Only the last may end in a torn frame: it is cut back to the last good one. Damage anywhere else, or in
//! the last segment with intact frames behind it, is no torn tail: opening refuses, naming the place, and changes
//! nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use radarflow_proto::frame::{Frame, FrameError, PREFIX};

use super::{FORMAT, LedgerError};

/// A segment is closed once it is this long.
pub const SEGMENT_BYTES: u64 = 64 << 20;
const MAGIC: &[u8; 8] = b"RFLEDGER";
const HEADER: usize = 32;

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    first_epoch: u64,
}

/// The log.
pub struct Segments {
    dir: PathBuf,
    generation: u64,
    segments: Vec<Segment>,
    /// The open one, and its length.
    tail: Option<(File, u64)>,
    next_epoch: u64,
    last_clock_ms: i64,
}

fn header(generation: u64, first_epoch: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(FORMAT.to_be_bytes());
    out.extend(generation.to_be_bytes());
    out.extend(first_epoch.to_be_bytes());
    out.extend(crc32c::crc32c(&out).to_be_bytes());
    out
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<(u64, u64), LedgerError> {
    let damaged =
        |reason: &str| LedgerError::Damaged { segment: path.to_owned(), offset: 0, reason: reason.to_owned() };
    let header = bytes.get(..HEADER).ok_or_else(|| damaged("the header is cut short"))?;
    let number = |range: std::ops::Range<usize>| header[range].iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
    if &header[..8] != MAGIC {
        return Err(damaged("this is no ledger segment"));
    }
    if u64::from(crc32c::crc32c(&header[..28])) != number(28..32) {
        return Err(damaged("the header's checksum does not match"));
    }
    let format = number(8..12) as u32;
    if format > FORMAT {
        return Err(LedgerError::Newer { path: path.to_owned(), found: format });
    }
    Ok((number(12..20), number(20..28)))
}

/// Where reading a segment's frames ended.
enum End {
    /// At its end.
    Clean,
    /// In a frame that was not finished: `good` bytes are.
    Torn { good: u64 },
}

/// Reads a segment's frames in order. Damage with intact frames behind it is an error.
fn read_frames(path: &Path, last: bool, mut each: impl FnMut(Frame)) -> Result<End, LedgerError> {
    let bytes = Bytes::from(fs::read(path).map_err(LedgerError::io(path))?);
    let mut offset = HEADER;
    while offset < bytes.len() {
        match Frame::decode(&bytes.slice(offset..)) {
            Ok((frame, n)) => {
                each(frame);
                offset += n;
            }
            Err(FrameError::Newer(found)) => {
                return Err(LedgerError::Newer { path: path.to_owned(), found: u32::from(found) });
            }
            Err(_) if last && !intact_follows(&bytes, offset) => return Ok(End::Torn { good: offset as u64 }),
            Err(error) => {
                let reason = error.to_string();
                return Err(LedgerError::Damaged { segment: path.to_owned(), offset: offset as u64, reason });
            }
        }
    }
    Ok(End::Clean)
}

/// Whether a whole frame stands anywhere behind a bad one: then the bad one is damage, not a torn tail.
fn intact_follows(bytes: &Bytes, bad: usize) -> bool {
    (bad + 1..bytes.len().saturating_sub(PREFIX)).any(|at| {
        let len = bytes[at..at + 4].iter().rev().fold(0usize, |n, b| (n << 8) | usize::from(*b));
        // The checksum is looked at only where the length could be one.
        (34..=bytes.len() - at - PREFIX).contains(&len) && Frame::decode(&bytes.slice(at..)).is_ok()
    })
}

fn sync_dir(dir: &Path) -> Result<(), LedgerError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(LedgerError::io(dir))
}

impl Segments {
    /// Opens the log, making it if it is missing, and cuts its torn tail.
    pub fn open(dir: &Path) -> Result<Segments, LedgerError> {
        fs::create_dir_all(dir).map_err(LedgerError::io(dir))?;
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)
            .map_err(LedgerError::io(dir))?
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .collect();
        paths.sort();
        // A segment whose header was not finished holds nothing that was acknowledged.
        if let Some(last) = paths.last() {
            let bytes = fs::read(last).map_err(LedgerError::io(last))?;
            if bytes.len() < HEADER {
                fs::remove_file(last).map_err(LedgerError::io(last))?;
                paths.pop();
            }
        }
        let mut log = Segments {
            dir: dir.to_owned(),
            generation: 0,
            segments: Vec::new(),
            tail: None,
            next_epoch: 1,
            last_clock_ms: 0,
        };
        let count = paths.len();
        for (i, path) in paths.into_iter().enumerate() {
            let (generation, first_epoch) = read_header(&path, &fs::read(&path).map_err(LedgerError::io(&path))?)?;
            if i > 0 && first_epoch != log.next_epoch {
                return Err(LedgerError::Missing { segment: path, expected: log.next_epoch, found: first_epoch });
            }
            log.generation = generation;
            log.next_epoch = first_epoch;
            let last = i + 1 == count;
            let (mut next_epoch, mut clock_ms) = (first_epoch, log.last_clock_ms);
            let end = read_frames(&path, last, |frame| {
                next_epoch = frame.epoch + 1;
                clock_ms = frame.clock_ms;
            })?;
            (log.next_epoch, log.last_clock_ms) = (next_epoch, clock_ms);
            if let End::Torn { good } = end {
                let file = File::options().write(true).open(&path).map_err(LedgerError::io(&path))?;
                let torn = file.metadata().map_err(LedgerError::io(&path))?.len() - good;
                tracing::warn!(segment = %path.display(), good, torn, "cut a torn frame that was never acknowledged");
                file.set_len(good).and_then(|()| file.sync_all()).map_err(LedgerError::io(&path))?;
            }
            log.segments.push(Segment { path, first_epoch });
        }
        if log.segments.is_empty() {
            // Any number will do, as long as two ledgers do not share it.
            log.generation = u64::from_be_bytes(rand::random());
            log.roll()?;
        } else {
            let path = log.segments[log.segments.len() - 1].path.clone();
            let file = File::options().append(true).open(&path).map_err(LedgerError::io(&path))?;
            let length = file.metadata().map_err(LedgerError::io(&path))?.len();
            log.tail = Some((file, length));
        }
        Ok(log)
    }

    fn roll(&mut self) -> Result<(), LedgerError> {
        let path = self.dir.join(format!("{:020}.seg", self.next_epoch));
        let mut file = File::options().create_new(true).append(true).open(&path).map_err(LedgerError::io(&path))?;
        file.write_all(&header(self.generation, self.next_epoch))
            .and_then(|()| file.sync_all())
            .map_err(LedgerError::io(&path))?;
        sync_dir(&self.dir)?;
        self.segments.push(Segment { path, first_epoch: self.next_epoch });
        self.tail = Some((file, HEADER as u64));
        Ok(())
    }

    /// Names this history.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The epoch the next frame must bear.
    pub fn next_epoch(&self) -> u64 {
        self.next_epoch
    }

    /// The first epoch that is still there.
    pub fn first_epoch(&self) -> u64 {
        self.segments.first().map_or(self.next_epoch, |s| s.first_epoch)
    }

    /// The clock of the last frame, milliseconds since 1970; 0 if there is none.
    pub fn last_clock_ms(&self) -> i64 {
        self.last_clock_ms
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().filter_map(|s| fs::metadata(&s.path).ok()).map(|m| m.len()).sum()
    }

    /// Appends a frame and makes it durable. When the disk refuses, what was half written is cut off again and the
    /// frame does not exist.
    pub fn append(&mut self, frame: &Frame) -> Result<(), LedgerError> {
        debug_assert_eq!(frame.epoch, self.next_epoch);
        if self.tail.as_ref().is_none_or(|(_, length)| *length >= SEGMENT_BYTES) {
            self.roll()?;
        }
        let path = self.segments.last().map(|s| s.path.clone()).unwrap_or_default();
        let Some((file, length)) = self.tail.as_mut() else { unreachable!("a segment was just opened") };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        if let Err(source) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            let _ = file.set_len(*length);
            return Err(LedgerError::Io { path, source });
        }
        *length += bytes.len() as u64;
        self.next_epoch += 1;
        self.last_clock_ms = frame.clock_ms;
        Ok(())
    }

    /// Reads every frame after `epoch`, in order.
    pub fn replay(&self, epoch: u64, mut each: impl FnMut(Frame)) -> Result<(), LedgerError> {
        if epoch + 1 < self.first_epoch() {
            return Err(LedgerError::Missing {
                segment: self.segments[0].path.clone(),
                expected: epoch + 1,
                found: self.first_epoch(),
            });
        }
        for (i, segment) in self.segments.iter().enumerate() {
            let ends = self.segments.get(i + 1).map_or(self.next_epoch, |s| s.first_epoch);
            if ends <= epoch + 1 {
                continue;
            }
            read_frames(&segment.path, true, |frame| {
                if frame.epoch > epoch {
                    each(frame);
                }
            })?;
        }
        Ok(())
    }

    /// Lets whole segments go whose frames are all at or before `epoch`.
    pub fn trim(&mut self, epoch: u64) -> Result<(), LedgerError> {
        while self.segments.len() > 1 && self.segments[1].first_epoch <= epoch + 1 {
            let gone = self.segments.remove(0);
            fs::remove_file(&gone.path).map_err(LedgerError::io(&gone.path))?;
        }
        Ok(())
    }

    /// Cuts the log at its first damage. Everything from there on is moved aside, into `damaged-<epoch>` beside it.
    /// Tells what was done; `None` when nothing is damaged.
    pub fn repair(dir: &Path) -> Result<Option<String>, LedgerError> {
        let Err(error) = Segments::open(dir) else { return Ok(None) };
        let (segment, offset) = match &error {
            LedgerError::Damaged { segment, offset, .. } => (segment.clone(), *offset),
            LedgerError::Missing { segment, .. } => (segment.clone(), 0),
            _ => return Err(error),
        };
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)
            .map_err(LedgerError::io(dir))?
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "seg") && *p >= segment)
            .collect();
        paths.sort();
        let aside = (0..)
            .map(|n| dir.with_file_name(format!("damaged-{n}")))
            .find(|p| !p.exists())
            .expect("some number is free");
        fs::create_dir_all(&aside).map_err(LedgerError::io(&aside))?;
        for path in &paths {
            let kept = aside.join(path.file_name().unwrap_or_default());
            fs::copy(path, &kept).map_err(LedgerError::io(&kept))?;
        }
        for path in paths {
            if path == segment && offset > HEADER as u64 {
                let file = File::options().write(true).open(&path).map_err(LedgerError::io(&path))?;
                file.set_len(offset).and_then(|()| file.sync_all()).map_err(LedgerError::io(&path))?;
            } else {
                fs::remove_file(&path).map_err(LedgerError::io(&path))?;
            }
        }
        sync_dir(dir)?;
        Segments::open(dir)?;
        Ok(Some(format!("{error}\ncut there; what followed is in {}", aside.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use radarflow_proto::frame::{Entry, Kind, Origin, Slice};

    fn frame(log: &Segments, body: &[u8]) -> Frame {
        let origin = Origin { kind: Kind::Syslog, tenant: "t".into(), partition: "p".into(), feed: "f".into() };
        let entry = Entry { peer: None, received_us: 1, body: Bytes::copy_from_slice(body) };
        Frame {
            generation: log.generation(),
            epoch: log.next_epoch(),
            clock_ms: 5,
            gap_ms: 0,
            release_bytes: 1 << 20,
            ranges: vec![],
            slices: vec![Slice { origin, first_position: 0, entries: vec![entry] }],
        }
    }

    fn filled(dir: &Path, n: usize) -> PathBuf {
        let mut log = Segments::open(dir).unwrap();
        for i in 0..n {
            let frame = frame(&log, format!("message {i}").as_bytes());
            log.append(&frame).unwrap();
        }
        log.segments.last().unwrap().path.clone()
    }

    fn epochs(log: &Segments) -> Vec<u64> {
        let mut out = Vec::new();
        log.replay(0, |f| out.push(f.epoch)).unwrap();
        out
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_length() {
        let whole = tempfile::tempdir().unwrap();
        let path = filled(whole.path(), 3);
        let bytes = fs::read(&path).unwrap();
        let frame_bytes = (bytes.len() - HEADER) / 3;
        for cut in 0..frame_bytes {
            let dir = tempfile::tempdir().unwrap();
            let copy = dir.path().join(path.file_name().unwrap());
            fs::write(&copy, &bytes[..bytes.len() - 1 - cut]).unwrap();
            let log = Segments::open(dir.path()).unwrap();
            assert_eq!(epochs(&log), [1, 2], "cut {cut}");
            assert_eq!(log.next_epoch(), 3);
        }
    }

    #[test]
    fn damage_in_the_middle_refuses_and_repair_cuts_there() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ledger");
        let path = filled(&dir, 4);
        let mut bytes = fs::read(&path).unwrap();
        let frame_bytes = (bytes.len() - HEADER) / 4;
        let at = HEADER + frame_bytes + frame_bytes / 2;
        bytes[at] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        let error = Segments::open(&dir).err().unwrap().to_string();
        assert!(error.contains(&format!("offset {}", HEADER + frame_bytes)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");
        assert!(Segments::repair(&dir).unwrap().is_some());
        assert_eq!(epochs(&Segments::open(&dir).unwrap()), [1]);
        assert_eq!(Segments::repair(&dir).unwrap(), None);
        assert_eq!(fs::read(root.path().join("damaged-0").join(path.file_name().unwrap())).unwrap(), bytes);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8..12].copy_from_slice(&9u32.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..28]).to_be_bytes();
        bytes[28..32].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Segments::open(dir.path()), Err(LedgerError::Newer { found: 9, .. })));
    }

    #[test]
    fn segments_roll_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Segments::open(dir.path()).unwrap();
        let body = vec![0u8; 20 << 20];
        for _ in 0..9 {
            let frame = frame(&log, &body);
            log.append(&frame).unwrap();
        }
        assert!(log.segments.len() >= 2);
        log.trim(5).unwrap();
        assert_eq!((log.first_epoch(), log.next_epoch()), (5, 10));
        let log = Segments::open(dir.path()).unwrap();
        let mut got = Vec::new();
        log.replay(6, |f| got.push(f.epoch)).unwrap();
        assert_eq!(got, [7, 8, 9]);
        assert!(matches!(log.replay(2, |_| ()), Err(LedgerError::Missing { .. })));
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = super::super::DataDir::take(dir.path()).unwrap();
        assert!(matches!(super::super::DataDir::take(dir.path()), Err(LedgerError::Locked(_))));
        drop(held);
        assert!(super::super::DataDir::take(dir.path()).is_ok());
    }
}
