//! The ledger: one log, one clock. Every input is appended here before anything computes on it.
//!
//! [`segments`] is the embedded backend: what a frame is on disk. [`intake`] closes a frame a tick and acknowledges.
//! [`snapshot`] keeps what lets old segments go. [`open`] puts a data directory together after whatever happened to it.
//!
//! Guaranteed: an acknowledged input is in a frame on disk; after a crash at any instruction the ledger opens with
//! every acknowledged frame and without the torn one. Not guaranteed: that an input whose acknowledgement was never
//! seen is absent; senders retry, and records are idempotent.

pub mod clock;
pub mod intake;
pub mod segments;
pub mod snapshot;

use std::fs::File;
use std::path::{Path, PathBuf};

use thiserror::Error;

use segments::Segments;
use snapshot::{Manifest, Snapshots};

/// Format of the data directory that this build writes.
pub const FORMAT: u32 = 1;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// Another process has it.
    #[error("{0} is in use by another radarflow process; stop it, or choose another --data-dir")]
    Locked(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A frame in the middle is damaged.
    #[error(
        "segment {segment} is damaged at offset {offset} ({reason}), and intact frames follow; nothing was changed. \
         `radarflow repair --data-dir DIR` cuts the ledger there and keeps the rest aside"
    )]
    Damaged {
        /// The segment's file.
        segment: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Frames are missing.
    #[error("epoch {expected} is missing: {segment} begins with epoch {found}")]
    Missing {
        /// The segment after the hole.
        segment: PathBuf,
        /// The epoch that should come.
        expected: u64,
        /// The epoch that comes.
        found: u64,
    },
    /// Written by a newer build.
    #[error("{path} was written by a newer radarflow (format {found}, this one reads up to {FORMAT}); upgrade")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A snapshot cannot be read.
    #[error("snapshot {path}: {reason}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl LedgerError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| LedgerError::Io { path, source }
    }
}

/// A data directory, held by this process.
pub struct DataDir {
    root: PathBuf,
    /// Held as long as the process lives.
    _lock: File,
}

impl DataDir {
    /// Takes the directory, making it if it is missing. One process holds it at a time.
    pub fn take(root: &Path) -> Result<DataDir, LedgerError> {
        std::fs::create_dir_all(root).map_err(LedgerError::io(root))?;
        let path = root.join("lock");
        let lock =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(LedgerError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { root: root.to_owned(), _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(LedgerError::Locked(root.to_owned())),
            Err(std::fs::TryLockError::Error(source)) => Err(LedgerError::Io { path, source }),
        }
    }

    /// A path inside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// An opened ledger: where to append, and what to start from.
pub struct Opened {
    /// The log, its torn tail cut.
    pub segments: Segments,
    /// The snapshots.
    pub snapshots: Snapshots,
    /// The newest usable snapshot.
    pub start: Option<Manifest>,
}

/// Opens the ledger of a data directory.
pub fn open(dir: &DataDir) -> Result<Opened, LedgerError> {
    let segments = Segments::open(&dir.path("ledger"))?;
    let mut snapshots = Snapshots::open(&dir.path("snapshots"), segments.generation())?;
    let start = snapshots.newest_usable();
    snapshots.rewind(start.as_ref().map_or(0, |m| m.epoch))?;
    Ok(Opened { segments, snapshots, start })
}
