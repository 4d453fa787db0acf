//! Crashes and starts: what the next process finds on its disk, and what it makes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use radarflow_connectors::ledger::{self, LedgerError};
use radarflow_dataflows::worker::Start;
use radarflow_pipeline::{PipelineError, read};
use radarflow_proto::disk::Disk;
use radarflow_proto::frame::Frame;
use rand::RngExt;

use crate::disk::SimDisk;
use crate::faults;
use crate::process::{Process, ROOT, STAGED_BYTES};
use crate::world::World;

/// Bytes of a segment before its frames.
const SEGMENT_HEADER: usize = 32;

/// A data directory as the first release left it.
pub struct Older {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The clock of its last epoch.
    pub clock_ms: i64,
}

impl Older {
    pub fn read() -> Older {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/directories/0.1.0");
        let mut files = BTreeMap::new();
        for folder in [ledger::LOG, ledger::SNAPSHOTS] {
            for entry in std::fs::read_dir(from.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = Path::new(ROOT).join(folder).join(path.file_name().unwrap());
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
        let is_manifest = |path: &&PathBuf| path.extension().is_some_and(|e| e == "json");
        let manifest = files.keys().find(is_manifest).expect("it has a snapshot");
        let manifest: serde_json::Value = serde_json::from_slice(&files[manifest]).unwrap();
        Older { clock_ms: manifest["clock_ms"].as_i64().unwrap(), files }
    }

    /// The state of this build that it is.
    pub fn begin(&self) -> Start {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::holding(0, self.files.clone()));
        read(&disk, Path::new(ROOT), STAGED_BYTES).expect("it is converted").begin
    }
}

/// A bit that is not what it was.
struct Flip {
    path: PathBuf,
    bit: usize,
    /// Nothing is lost with it that is not elsewhere.
    spared: bool,
}

impl World {
    /// The process dies, or the machine; another begins.
    pub fn crash(&mut self) {
        let power = self.rng.random_bool(0.6);
        self.end_process(power);
        let flips = self.troubled && self.older.is_none() && self.rng.random_bool(0.4);
        match if flips { self.flip() } else { None } {
            Some(flip) => self.start_on(&flip),
            None => {
                if self.troubled && self.rng.random_bool(0.3) {
                    self.start_in_trouble();
                } else {
                    self.start();
                }
            }
        }
    }

    pub fn end_process(&mut self, power: bool) {
        if let Some(process) = self.process.take() {
            process.stop();
        }
        self.outer.disk = self.outer.disk.crash(power);
        let ms = self.rng.random_range(0..100_000);
        self.outer.clock.down(ms, power);
    }

    fn try_start(&mut self) -> Result<(), PipelineError> {
        self.process = Some(Process::start(&self.outer, &mut self.rng)?);
        Ok(())
    }

    /// A start on a disk that is well.
    pub fn start(&mut self) {
        self.try_start().unwrap_or_else(|error| panic!("it does not start: {error}"));
    }

    /// A start while the disk fails. Where it does not succeed, the next does, also if the power failed with it.
    pub fn start_in_trouble(&mut self) {
        match self.rng.random_range(0..3) {
            0 => self.outer.disk.failing(self.rng.random_range(1..200)),
            1 => self.outer.disk.room_left(self.rng.random_range(0..4000)),
            _ => self.outer.disk.fault(faults::any(&mut self.rng, Path::new(ROOT))),
        }
        if let Err(error) = self.try_start() {
            let refused = matches!(error, PipelineError::Ledger(LedgerError::Io { .. }));
            assert!(refused, "the disk refuses, and it says: {error}");
            self.outer.disk = self.outer.disk.crash(self.rng.random_bool(0.5));
            self.start();
        }
    }

    /// A start on a directory with a bit that is not what it was.
    fn start_on(&mut self, flip: &Flip) {
        let before = self.outer.disk.contents();
        let Err(error) = self.try_start() else { return };
        let said = matches!(
            error,
            PipelineError::Ledger(
                LedgerError::Damaged { .. } | LedgerError::NoStart { .. } | LedgerError::Snapshot { .. }
            )
        );
        assert!(said, "it does not say what is damaged: {error}");
        assert!(self.outer.disk.contents() == before, "it refused, and changed something: {error}");
        if flip.spared {
            let disk: Arc<dyn Disk> = Arc::new(self.outer.disk.clone());
            let done = ledger::repair(&disk, Path::new(ROOT), false);
            assert!(matches!(done, Ok(Some(_))), "a snapshot has what is damaged, and it is not mended: {done:?}");
        } else {
            // From a backup.
            self.outer.disk.flip(&flip.path, flip.bit);
        }
        self.start();
    }

    /// Flips a bit of a file at rest.
    fn flip(&mut self) -> Option<Flip> {
        let disk = self.outer.disk.clone();
        let files = disk.contents();
        let names: Vec<&PathBuf> = files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path).collect();
        let path = names[self.rng.random_range(0..names.len())].clone();
        let bytes = Bytes::from(files[&path].clone());
        let bit = self.rng.random_range(0..bytes.len() * 8);
        let is_segment = path.extension().is_some_and(|e| e == "seg");
        if !is_segment {
            disk.flip(&path, bit);
            return Some(Flip { path, bit, spared: false });
        }
        let last = names.iter().rfind(|path| path.extension().is_some_and(|e| e == "seg"));
        let mut frames = Vec::new();
        let mut at = SEGMENT_HEADER;
        while let Ok((frame, n)) = Frame::decode(&bytes.slice(at.min(bytes.len())..)) {
            at += n;
            frames.push((at, frame.epoch));
        }
        let hit = frames.iter().position(|(end, _)| bit / 8 < *end);
        // The last frame cannot be told from one that was not finished.
        if last.is_some_and(|last| **last == path) && hit.is_some_and(|hit| hit + 1 == frames.len()) {
            return None;
        }
        let covered = newest_usable(&files);
        let spared = hit.is_some_and(|hit| bit / 8 >= SEGMENT_HEADER && frames[hit].1 <= covered);
        disk.flip(&path, bit);
        Some(Flip { path, bit, spared })
    }
}

/// The epoch of the newest snapshot that everybody has.
fn newest_usable(files: &BTreeMap<PathBuf, Vec<u8>>) -> u64 {
    let epoch = |path: &PathBuf, before: &str, after: &str| -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
    };
    let manifests: Vec<u64> = files.keys().filter_map(|path| epoch(path, "manifest-", ".json")).collect();
    let usable = files.keys().filter_map(|path| epoch(path, "usable-", ""));
    usable.filter(|epoch| manifests.contains(epoch)).max().unwrap_or(0)
}
