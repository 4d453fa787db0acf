//! Mending a damaged log, keeping all that can be kept.
//!
//! ```text
//! frames that a snapshot covers   are let go, and damage among them costs nothing
//! damaged frames after it         an empty frame of the same epoch stands in the place of each
//! intact frames behind damage     stay
//! ```
//! Epochs stay contiguous and none is used again: what the lake and Postgres have of an epoch is neither missing nor doubled
//! afterwards. What is lost is what the damaged frames held, and no more; it is told, by epochs, before anything is done for
//! who asks. The files as they were are copied aside first.

use std::ops::RangeInclusive;

use super::*;

/// Epochs in a row that empty frames may stand for: beyond it the log is of no use, and what follows is let go.
const MAX_LOST: u64 = 1 << 20;

/// What mending a log does, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What is wrong.
    pub damage: String,
    /// Epochs up to this one are in a snapshot and are let go.
    pub covered: Option<u64>,
    /// Epochs whose inputs are lost.
    pub lost: Vec<RangeInclusive<u64>>,
    /// The first epoch of frames that are let go because too much before them is lost.
    pub cut: Option<u64>,
    /// Nothing behind the frame of this epoch is whole, and something was there: nobody can tell how much.
    pub end: Option<u64>,
    /// Where the files are kept as they were; where nothing was done, where they would be.
    pub aside: PathBuf,
    /// It was done.
    pub done: bool,
}

impl std::fmt::Display for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (are, stand, kept) =
            if self.done { ("are", "stand", "are") } else { ("would be", "would stand", "would be kept") };
        writeln!(f, "{}", self.damage)?;
        if let Some(covered) = self.covered {
            writeln!(f, "epochs up to {covered} are in a snapshot: they, and the damage among them, {are} let go")?;
        }
        if self.lost.is_empty() && self.cut.is_none() && self.end.is_none() {
            writeln!(f, "nothing is lost")?;
        }
        if let Some(end) = self.end {
            writeln!(
                f,
                "lost: whatever came after epoch {end}; a start goes on after the newest epoch that the lake has"
            )?;
        }
        let epochs: u64 = self.lost.iter().map(|range| range.end() - range.start() + 1).sum();
        if epochs > 0 {
            let shown: Vec<String> = self.lost.iter().take(8).map(told).collect();
            let more = if self.lost.len() > shown.len() { ", …" } else { "" };
            writeln!(
                f,
                "lost: the inputs of {epochs} {} ({}{more}); empty ones {stand} in their place",
                if epochs == 1 { "epoch" } else { "epochs" },
                shown.join(", ")
            )?;
        }
        if let Some(cut) = self.cut {
            writeln!(f, "lost: everything from epoch {cut} on")?;
        }
        write!(f, "the files as they were {kept} in {}", self.aside.display())
    }
}

fn told(range: &RangeInclusive<u64>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}–{}", range.start(), range.end())
    }
}

/// A frame that is whole, and where it stands in its file.
struct Whole {
    epoch: u64,
    clock_ms: i64,
    bytes: std::ops::Range<usize>,
}

/// What is left of a file.
struct Left {
    path: PathBuf,
    frames: Vec<Whole>,
    /// The newest epoch of a frame that is whole, needed or not.
    newest: Option<u64>,
    /// Bytes behind it, or behind the header.
    behind: usize,
}

impl Segments {
    /// Mends a damaged log. Frames at or before `covered` are in a snapshot and are not needed. Tells what was done, or would
    /// be in a `rehearsal`; `None` when nothing is damaged.
    ///
    /// # Errors
    /// The disk refuses, or a newer build wrote the log.
    pub fn repair(
        disk: &dyn Disk,
        dir: &Path,
        covered: Option<u64>,
        rehearsal: bool,
    ) -> Result<Option<Repair>, LedgerError> {
        let at = covered.unwrap_or(0);
        let damage = match damage(disk, dir, covered)? {
            Some(damage) => damage,
            None => return Ok(None),
        };
        let paths = segment_files(disk, dir)?;
        let aside = (0..).map(|n| dir.with_file_name(format!("damaged-{n}"))).find(|p| !disk.exists(p));
        let aside = aside.expect("some number is free");
        let (generation, left) = left(disk, &paths, at)?;
        let mut repair = Repair { damage, covered, lost: Vec::new(), cut: None, end: None, aside, done: false };
        // Damage at the very end: nothing intact tells how much it was.
        let at_end = left.iter().rposition(|file| file.newest.is_some());
        let newest = at_end.and_then(|nth| left[nth].newest);
        if left[at_end.unwrap_or(0)..].iter().any(|file| file.behind > 0) {
            repair.end = Some(newest.unwrap_or(0).max(at));
        }
        let first = left.iter().flat_map(|file| &file.frames).map(|frame| frame.epoch).next();
        // Without a snapshot the log begins with its first frame that is there: what was before it was not needed.
        let begin = if covered.is_some() { at + 1 } else { first.unwrap_or(1) };
        let mut next = begin;
        let mut keep: Vec<(Left, Vec<RangeInclusive<u64>>)> = Vec::new();
        'files: for mut file in left {
            let mut gaps = Vec::new();
            let frames = std::mem::take(&mut file.frames);
            for frame in frames {
                if frame.epoch < next {
                    continue;
                }
                if frame.epoch - next > MAX_LOST {
                    repair.cut = Some(next);
                    keep.push((file, gaps));
                    break 'files;
                }
                if frame.epoch > next {
                    gaps.push(next..=frame.epoch - 1);
                }
                next = frame.epoch + 1;
                file.frames.push(frame);
            }
            keep.push((file, gaps));
        }
        repair.lost = keep.iter().flat_map(|(_, gaps)| gaps.iter().cloned()).collect();
        keep.retain(|(file, _)| !file.frames.is_empty());
        if rehearsal {
            return Ok(Some(repair));
        }
        disk.make_dir(&repair.aside).map_err(LedgerError::io(&repair.aside))?;
        for path in &paths {
            let kept = repair.aside.join(path.file_name().unwrap_or_default());
            let bytes = disk.read_all(path).map_err(LedgerError::io(path))?;
            disk.write_durably(&kept, &bytes).map_err(LedgerError::io(&kept))?;
        }
        let mut written = Vec::new();
        // The clock never goes back: an empty frame has that of the frame before.
        let (mut next, mut clock_ms) = (begin, None);
        for (file, _) in &keep {
            let old = disk.read_all(&file.path).map_err(LedgerError::io(&file.path))?;
            let path = dir.join(format!("{next:020}.seg"));
            let mut bytes = header(generation, next);
            for frame in &file.frames {
                while next < frame.epoch {
                    empty(generation, next, clock_ms.unwrap_or(frame.clock_ms)).encode(&mut bytes);
                    next += 1;
                }
                bytes.extend_from_slice(&old[frame.bytes.clone()]);
                clock_ms = Some(frame.clock_ms);
                next += 1;
            }
            disk.write_durably(&path, &bytes).map_err(LedgerError::io(&path))?;
            written.push(path);
        }
        for path in paths.iter().filter(|path| !written.contains(path)) {
            disk.remove(path).map_err(LedgerError::io(path))?;
        }
        // Without it a power failure brings the damage back.
        disk.sync_dir(dir).map_err(LedgerError::io(dir))?;
        repair.done = true;
        Ok(Some(repair))
    }
}

/// What keeps a log from being opened. Nothing is changed.
fn damage(disk: &dyn Disk, dir: &Path, covered: Option<u64>) -> Result<Option<String>, LedgerError> {
    let paths = segment_files(disk, dir)?;
    let count = paths.len();
    let mut next: Option<(u64, u64)> = None;
    let needed = covered.map_or(1, |covered| covered + 1);
    for (i, path) in paths.into_iter().enumerate() {
        let last = i + 1 == count;
        let bytes = disk.read_all(&path).map_err(LedgerError::io(&path))?;
        let (generation, first_epoch) = match read_header(&path, &bytes) {
            Ok(known) => known,
            Err(LedgerError::Damaged { .. }) if last && bytes.len() <= HEADER => continue,
            Err(error @ LedgerError::Damaged { .. }) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        // Where no snapshot tells what is needed, nothing before the first is missed here.
        let (of, expected) = next.unwrap_or((generation, covered.map_or(first_epoch, |_| needed)));
        if of != generation || (first_epoch != expected && first_epoch > needed) {
            let missing = LedgerError::Missing { segment: path, expected, found: first_epoch };
            return Ok(Some(missing.to_string()));
        }
        let mut epoch = first_epoch;
        let expected = Expected { generation, epoch: first_epoch, last };
        match read_frames(&path, &bytes, expected, |frame| epoch = frame.epoch + 1) {
            Ok(_) => next = Some((generation, epoch)),
            Err(error @ LedgerError::Damaged { .. }) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The frames after `covered` that are whole, by file. A frame is found by its generation and epoch, whatever stands before
/// it.
fn left(disk: &dyn Disk, paths: &[PathBuf], covered: u64) -> Result<(u64, Vec<Left>), LedgerError> {
    let generation =
        Segments::generation_of(disk, paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("")))?;
    let generation = generation.unwrap_or_default();
    let mut files = Vec::new();
    // As far as the frames go; the name of a file tells where it begins.
    let mut reached = 0;
    for path in paths {
        let bytes = disk.read_all(path).map_err(LedgerError::io(path))?;
        let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        let mut epoch = named.unwrap_or(0).max(reached);
        let (mut frames, mut newest) = (Vec::new(), None);
        let (mut at, mut good) = (HEADER, HEADER);
        while at < bytes.len() {
            match Frame::decode(&bytes.slice(at..)) {
                Ok((frame, n)) if frame.generation == generation && frame.epoch >= epoch => {
                    epoch = frame.epoch + 1;
                    if frame.epoch > covered {
                        frames.push(Whole { epoch: frame.epoch, clock_ms: frame.clock_ms, bytes: at..at + n });
                    }
                    newest = Some(frame.epoch);
                    at += n;
                    good = at;
                }
                Err(radarflow_proto::frame::FrameError::Newer(found)) => {
                    return Err(LedgerError::Newer { path: path.clone(), found: u32::from(found) });
                }
                _ => match intact_behind(&bytes, at, &Expected { generation, epoch, last: true }) {
                    Some(next) => at = next,
                    None => break,
                },
            }
        }
        reached = epoch;
        files.push(Left { path: path.clone(), frames, newest, behind: bytes.len().saturating_sub(good) });
    }
    Ok((generation, files))
}
