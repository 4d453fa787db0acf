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
//!
//! A write that failed leaves the end of a file unknown: before the next frame the file is cut to its last durable frame,
//! and a segment that could not be begun is begun anew. So an error lasts no longer than the disk's trouble does.

mod format;
mod repair;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use radarflow_proto::disk::{Appender, Disk};
use radarflow_proto::frame::Frame;

use self::format::{End, Expected, HEADER, empty, header, intact_behind, read_frames, read_header};
pub use self::repair::Repair;
use super::LedgerError;

/// A segment is closed once it is this long.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Epochs that empty frames may stand for: beyond it what has them is of another history.
pub const MAX_RESERVED: u64 = 1 << 20;
/// Empty frames that are written at once.
const RESERVED_AT_ONCE: u64 = 10_000;
/// Any number will do to name a ledger, as long as no two share it; all are of one length where they are written as text.
const GENERATIONS: std::ops::Range<u64> = 1_000_000_000_000_000_000..9_000_000_000_000_000_000;

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    first_epoch: u64,
}

/// The open segment.
struct Tail {
    file: Box<dyn Appender>,
    /// Its durable length.
    length: u64,
    /// A write failed: what the file has behind `length` is unknown.
    unsure: bool,
}

/// The log.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    generation: u64,
    segments: Vec<Segment>,
    /// Segments before a hole that a snapshot covers: removing them was not finished.
    left_over: Vec<PathBuf>,
    tail: Option<Tail>,
    /// A segment is closed once it is this long.
    segment_bytes: u64,
    next_epoch: u64,
    last_clock_ms: i64,
}

impl Segments {
    /// Opens the log, making it if it is missing, and cuts its torn tail. Frames at or before `covered` are in a snapshot:
    /// they may be missing.
    ///
    /// # Errors
    /// The disk refuses; a frame is damaged or missing in the middle; a newer build wrote it.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, covered: u64) -> Result<Segments, LedgerError> {
        Self::open_as(disk, dir, covered, None)
    }

    /// The same; a log that has to be made is given this name, if it has one already.
    pub(super) fn open_as(
        disk: Arc<dyn Disk>,
        dir: &Path,
        covered: u64,
        generation: Option<u64>,
    ) -> Result<Segments, LedgerError> {
        disk.make_dir(dir).map_err(LedgerError::io(dir))?;
        let mut log = Segments {
            disk,
            dir: dir.to_owned(),
            generation: 0,
            segments: Vec::new(),
            left_over: Vec::new(),
            tail: None,
            segment_bytes: SEGMENT_BYTES,
            next_epoch: 1,
            last_clock_ms: 0,
        };
        let paths = segment_files(&*log.disk, dir)?;
        let count = paths.len();
        for (i, path) in paths.into_iter().enumerate() {
            let last = i + 1 == count;
            let bytes = log.disk.read_all(&path).map_err(LedgerError::io(&path))?;
            let (generation, first_epoch) = match read_header(&path, &bytes) {
                Ok(known) => known,
                // One whose header was never durable holds nothing that was acknowledged.
                Err(LedgerError::Damaged { .. }) if last && bytes.len() <= HEADER => {
                    log.disk.remove(&path).map_err(LedgerError::io(&path))?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !log.segments.is_empty() && (first_epoch != log.next_epoch || generation != log.generation) {
                if first_epoch > covered + 1 || generation != log.generation {
                    return Err(LedgerError::Missing { segment: path, expected: log.next_epoch, found: first_epoch });
                }
                log.left_over.extend(log.segments.drain(..).map(|segment| segment.path));
            }
            log.generation = generation;
            log.next_epoch = first_epoch;
            let (mut next_epoch, mut clock_ms) = (first_epoch, log.last_clock_ms);
            let expected = Expected { generation, epoch: first_epoch, last };
            let end = read_frames(&path, &bytes, expected, |frame| {
                next_epoch = frame.epoch + 1;
                clock_ms = frame.clock_ms;
            })?;
            (log.next_epoch, log.last_clock_ms) = (next_epoch, clock_ms);
            if let End::Torn { good } = end {
                let torn = bytes.len() as u64 - good;
                tracing::warn!(segment = %path.display(), good, torn, "cut a torn frame that was never acknowledged");
                let mut file = log.disk.open(&path).map_err(LedgerError::io(&path))?;
                file.truncate(good).and_then(|()| file.sync()).map_err(LedgerError::io(&path))?;
            }
            log.segments.push(Segment { path, first_epoch });
        }
        match log.segments.last() {
            None => {
                log.generation = generation.unwrap_or_else(|| rand::random_range(GENERATIONS));
                log.roll()?;
            }
            Some(Segment { path, .. }) => {
                let file = log.disk.open(path).map_err(LedgerError::io(path))?;
                let length = log.disk.stat(path).map_err(LedgerError::io(path))?.len;
                log.tail = Some(Tail { file, length, unsure: false });
            }
        }
        Ok(log)
    }

    /// The same, with segments that are closed at another length.
    #[must_use]
    pub fn closing_at(mut self, segment_bytes: u64) -> Segments {
        self.segment_bytes = segment_bytes;
        self
    }

    /// Begins a segment. One of that name that an earlier try left has no frame in it, and is replaced.
    fn roll(&mut self) -> Result<(), LedgerError> {
        let path = self.dir.join(format!("{:020}.seg", self.next_epoch));
        let head = header(self.generation, self.next_epoch);
        let make = || {
            let mut file = self.disk.create(&path)?;
            file.append(&head)?;
            file.sync()?;
            self.disk.sync_dir(&self.dir)?;
            Ok(file)
        };
        let file = make().map_err(LedgerError::io(&path))?;
        self.segments.push(Segment { path, first_epoch: self.next_epoch });
        self.tail = Some(Tail { file, length: HEADER as u64, unsure: false });
        Ok(())
    }

    /// The generation of a log that may be damaged; `None` where no segment tells.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn generation_of(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, LedgerError> {
        for path in segment_files(disk, dir)? {
            let head = disk.read(&path, 0, HEADER).map_err(LedgerError::io(&path))?;
            if let Ok((generation, _)) = read_header(&path, &head) {
                return Ok(Some(generation));
            }
        }
        Ok(None)
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
        self.segments.iter().filter_map(|s| self.disk.stat(&s.path).ok()).map(|stat| stat.len).sum()
    }

    /// Appends a frame and makes it durable.
    ///
    /// # Errors
    /// The disk refuses: the frame does not exist, and the next one takes its epoch.
    pub fn append(&mut self, frame: &Frame) -> Result<(), LedgerError> {
        debug_assert_eq!(frame.epoch, self.next_epoch);
        let path = self.segments.last().map(|s| s.path.clone()).unwrap_or_default();
        if let Some(tail) = self.tail.as_mut().filter(|tail| tail.unsure) {
            let cut = tail.file.truncate(tail.length).and_then(|()| tail.file.sync());
            cut.map_err(LedgerError::io(&path))?;
            tail.unsure = false;
        }
        if self.tail.as_ref().is_none_or(|tail| tail.length >= self.segment_bytes) {
            self.roll()?;
        }
        let Some(tail) = self.tail.as_mut() else { unreachable!("a segment was just opened") };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        tail.unsure = true;
        tail.file.append(&bytes).and_then(|()| tail.file.sync()).map_err(LedgerError::io(path))?;
        tail.unsure = false;
        tail.length += bytes.len() as u64;
        self.next_epoch += 1;
        self.last_clock_ms = frame.clock_ms;
        Ok(())
    }

    /// Reads every frame after `epoch`, in order.
    ///
    /// # Errors
    /// The disk refuses, or a frame after `epoch` is damaged or no longer there.
    pub fn replay(&self, epoch: u64, mut each: impl FnMut(Frame)) -> Result<(), LedgerError> {
        self.replay_while(epoch, |frame| {
            each(frame);
            true
        })
    }

    /// The same, no further than the end of the segment in which `each` has had enough.
    ///
    /// # Errors
    /// The same.
    pub fn replay_while(&self, epoch: u64, mut each: impl FnMut(Frame) -> bool) -> Result<(), LedgerError> {
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
            let bytes = self.disk.read_all(&segment.path).map_err(LedgerError::io(&segment.path))?;
            let expected = Expected { generation: self.generation, epoch: segment.first_epoch, last: true };
            let (mut next, mut more) = (segment.first_epoch, true);
            read_frames(&segment.path, &bytes, expected, |frame| {
                next = frame.epoch + 1;
                if frame.epoch > epoch {
                    more = each(frame);
                }
            })?;
            if next < ends {
                let (segment, reason) = (segment.path.clone(), format!("epochs {next} to {} are gone", ends - 1));
                return Err(LedgerError::Damaged { segment, offset: 0, reason });
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Lets whole segments go whose frames are all at or before `epoch`, which a snapshot has.
    ///
    /// # Errors
    /// The disk refuses; what could not be removed goes the next time.
    pub fn trim(&mut self, epoch: u64) -> Result<(), LedgerError> {
        let needed = self.segments.iter().rposition(|segment| segment.first_epoch <= epoch + 1).unwrap_or(0);
        self.left_over.extend(self.segments.drain(..needed).map(|segment| segment.path));
        self.drop_left_over()
    }

    /// Removes segments that a snapshot stands for.
    pub(super) fn drop_left_over(&mut self) -> Result<(), LedgerError> {
        if self.left_over.is_empty() {
            return Ok(());
        }
        while let Some(gone) = self.left_over.first() {
            match self.disk.remove(gone) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LedgerError::io(gone)(error));
                }
                _ => self.left_over.remove(0),
            };
        }
        self.disk.sync_dir(&self.dir).map_err(LedgerError::io(&self.dir))
    }

    /// Has empty frames stand for the epochs up to one that somebody has already, so that none is used again. Tells how many.
    ///
    /// # Errors
    /// The disk refuses, or they are more than [`MAX_RESERVED`].
    pub fn reserve(&mut self, epoch: u64) -> Result<u64, LedgerError> {
        let ends = self.next_epoch - 1;
        let missing = epoch.saturating_sub(ends);
        if missing > MAX_RESERVED {
            return Err(LedgerError::Behind { ends, known: epoch });
        }
        while self.next_epoch <= epoch {
            let path = self.segments.last().map(|s| s.path.clone()).unwrap_or_default();
            let Some(tail) = self.tail.as_mut().filter(|tail| tail.length < self.segment_bytes) else {
                self.roll()?;
                continue;
            };
            // Many at once: each of its own would be a wait for the disk.
            let mut bytes = Vec::new();
            let from = self.next_epoch;
            let upto = epoch.min(from + RESERVED_AT_ONCE - 1);
            (from..=upto).for_each(|epoch| empty(self.generation, epoch, self.last_clock_ms).encode(&mut bytes));
            tail.unsure = true;
            tail.file.append(&bytes).and_then(|()| tail.file.sync()).map_err(LedgerError::io(path))?;
            tail.unsure = false;
            tail.length += bytes.len() as u64;
            self.next_epoch = upto + 1;
        }
        Ok(missing)
    }

    /// Goes on after `epoch`, which a snapshot has, where the log ends before it: nothing in the log is needed any more.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn go_on_after(&mut self, epoch: u64, clock_ms: i64) -> Result<(), LedgerError> {
        if self.next_epoch > epoch {
            return Ok(());
        }
        tracing::warn!(ends = self.next_epoch - 1, epoch, "the ledger ends before the snapshot and goes on after it");
        let old = std::mem::take(&mut self.segments);
        self.next_epoch = epoch + 1;
        self.last_clock_ms = self.last_clock_ms.max(clock_ms);
        if let Err(error) = self.roll() {
            self.segments = old;
            return Err(error);
        }
        self.left_over.extend(old.into_iter().map(|segment| segment.path));
        self.drop_left_over()
    }
}

fn segment_files(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let found = disk.list(dir).map_err(LedgerError::io(dir))?;
    Ok(found.into_iter().map(|f| f.path).filter(|p| p.extension().is_some_and(|e| e == "seg")).collect())
}
