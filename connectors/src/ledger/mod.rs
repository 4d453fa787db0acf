//! The ledger: one log, one clock. Every input is appended here before anything computes on it.
//!
//! [`segments`] is the embedded backend: what a frame is on disk. [`intake`] closes a frame a tick and acknowledges.
//! [`snapshot`] keeps what lets old segments go, [`key`] the secret of the installation. [`open`] puts a data directory together after whatever happened to it.
//!
//! Guaranteed: an acknowledged input is in a frame on disk; after a crash at any instruction the ledger opens with
//! every acknowledged frame and without the torn one. Not guaranteed: that an input whose acknowledgement was never
//! seen is absent; senders retry, and records are idempotent.

mod checked;
pub mod clock;
pub mod intake;
pub mod key;
pub mod segments;
pub mod snapshot;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use radarflow_proto::disk::Disk;
use thiserror::Error;

use segments::{Repair, Segments};
use snapshot::{Manifest, Snapshots, State};

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
         `radarflow repair --data-dir DIR --dry-run` tells what a repair would lose, without `--dry-run` it is done"
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
    /// Frames have gone that only a snapshot could stand for, and there is none.
    #[error(
        "{root}: the ledger begins with epoch {first} and no snapshot leads there{}; nothing was changed. Put back the \
         folder `snapshots` from a backup, or start with an empty data directory: devices and alerts are then learnt \
         anew, and the lake and Postgres keep what they have",
        .damage.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
    )]
    NoStart {
        /// The data directory.
        root: PathBuf,
        /// The first epoch that is there.
        first: u64,
        /// Why the newest snapshot is none.
        damage: Option<Box<LedgerError>>,
    },
    /// Somebody has epochs that are not there, and they are too many.
    #[error(
        "the lake has epochs up to {known}, and the ledger ends with {ends}: it was put back to what it was long before. Restore \
         the lake that was backed up with it, or begin with an empty one"
    )]
    Behind {
        /// The last epoch of the ledger.
        ends: u64,
        /// The last that the lake has.
        known: u64,
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
    ///
    /// # Errors
    /// [`LedgerError`] where the directory cannot be made or locked: another process has it.
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

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
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
    /// The newest usable snapshot that is whole, and its state.
    pub start: Option<(Manifest, State)>,
}

/// The folder of the log in a data directory.
pub const LOG: &str = "ledger";
/// Where the clocks stood at the last frame, in a data directory.
pub const CLOCK: &str = "clock";
/// The folder of snapshots in a data directory.
pub const SNAPSHOTS: &str = "snapshots";

/// Opens the ledger of a data directory. State is handed in with these schema versions, by collection.
///
/// A damaged snapshot is passed over for the usable one before it, if the frames since that one are there. A log of which
/// nothing is left goes on after the newest snapshot: beginning anew it would use epochs again that sinks have.
///
/// # Errors
/// The disk refuses; the log is damaged; nothing there leads to the state that the log goes on from. Nothing was changed.
pub fn open(disk: &Arc<dyn Disk>, root: &Path, collections: &BTreeMap<String, u32>) -> Result<Opened, LedgerError> {
    let (log, folder) = (root.join(LOG), root.join(SNAPSHOTS));
    let generation = match Segments::generation_of(&**disk, &log)? {
        Some(generation) => Some(generation),
        None => Snapshots::generation_of(&**disk, &folder)?,
    };
    let open = |generation| Snapshots::open(disk.clone(), &folder, generation, collections.clone());
    let known = generation.map(open).transpose()?;
    let covered = known.as_ref().and_then(|snapshots| Some(snapshots.usable().next()?.epoch)).unwrap_or(0);
    let mut segments = Segments::open_as(disk.clone(), &log, covered, generation)?;
    let mut snapshots = match known {
        Some(snapshots) => snapshots,
        None => open(segments.generation())?,
    };
    let usable: Vec<Manifest> = snapshots.usable().cloned().collect();
    let mut start = None;
    let mut damage = None;
    for manifest in usable {
        if manifest.epoch + 1 < segments.first_epoch() {
            break;
        }
        match snapshots.load(&manifest) {
            Ok(state) => {
                start = Some((manifest, state));
                break;
            }
            Err(error @ LedgerError::Snapshot { .. }) => {
                tracing::error!(epoch = manifest.epoch, %error, "a snapshot is damaged; starting from the one before it");
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match &start {
        Some((manifest, _)) => {
            segments.go_on_after(manifest.epoch, manifest.clock_ms)?;
            segments.drop_left_over()?;
            snapshots.rewind(manifest.epoch)?;
        }
        None if segments.first_epoch() > 1 => {
            return Err(LedgerError::NoStart {
                root: root.to_owned(),
                first: segments.first_epoch(),
                damage: damage.map(Box::new),
            });
        }
        None => snapshots.rewind(0)?,
    }
    Ok(Opened { segments, snapshots, start })
}

/// Mends what [`open`] refuses, where it can be mended; a `rehearsal` changes nothing. Tells what was done, or would be; `None`
/// when nothing has to be.
///
/// # Errors
/// The disk refuses, or what is damaged cannot be done without.
pub fn repair(disk: &Arc<dyn Disk>, root: &Path, rehearsal: bool) -> Result<Option<Repair>, LedgerError> {
    let log = root.join(LOG);
    let covered = covered(disk, root)?;
    let epoch = covered.as_ref().map(|manifest| manifest.epoch);
    let Some(done) = Segments::repair(&**disk, &log, epoch, rehearsal)? else { return Ok(None) };
    if !rehearsal {
        // Where nothing is left after the snapshot the log goes on there.
        let generation = covered.as_ref().map(|manifest| manifest.generation);
        let mut segments = Segments::open_as(disk.clone(), &log, epoch.unwrap_or(0), generation)?;
        if let Some(manifest) = covered {
            segments.go_on_after(manifest.epoch, manifest.clock_ms)?;
        }
    }
    Ok(Some(done))
}

/// The newest usable snapshot that is whole, of the ledger that is there.
fn covered(disk: &Arc<dyn Disk>, root: &Path) -> Result<Option<Manifest>, LedgerError> {
    let Some(generation) = Segments::generation_of(&**disk, &root.join(LOG))? else { return Ok(None) };
    let snapshots = Snapshots::open(disk.clone(), &root.join(SNAPSHOTS), generation, BTreeMap::new())?;
    Ok(snapshots.usable().find(|manifest| snapshots.load(manifest).is_ok()).cloned())
}
