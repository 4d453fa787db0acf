//! The lake: one Delta table a folder, one committer a table.
//!
//! Rows wait in memory until their table commits: at [`COMMIT_BYTES`], at [`BUSY_AGE`] for busy tables or [`Keep::quiet`]
//! for quiet ones, never empty; and where half of what may wait does, the table with most commits before its time. A commit carries the transaction identifier (application id, epoch) of the newest epoch
//! in it and is built on the version whose identifier was read, so that a replay after a crash commits nothing twice:
//! epochs at or before a table's identifier are dropped on arrival. One commit takes whole epochs, the oldest first, of so
//! many bytes as [`COMMIT_BYTES`] says; what has piled up goes in several. An epoch that is larger by itself is one commit of
//! several files. So what a commit takes beside the rows that wait is bounded, however many they are.
//!
//! Which tables there are is said in `radarflow_proto::lake`; what one does, in [`writer`]; how they take turns, in [`sink`].
//!
//! Files are partitioned by `tenant_id` and `date` (of the row's own time), sorted by (partition, time), ZSTD, with bloom
//! filters of addresses and devices. Small ones become large ones beside the commits ([`super::compact`]); `row_id` stays.
//!
//! A commit that is refused is tried again while rows go on to wait, up to a bound; the others do not notice.
//! Beyond that, because the lake is the record, it says that it is full ([`Lake::is_full`]), and intake stops until it is
//! not. What is then under way is taken all the same: nobody waits for the lake.

mod rows;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deltalake::DeltaTable;
use radarflow_proto::disk::Disk;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::EpochOutput;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use self::sink::{Message, Room, Sink, weight};
pub(super) use self::writer::Writer;
use super::Applied;
use super::checkpoint::MEMORY;
use super::store::install;
pub use super::upkeep::Keep;

/// A table commits once so many bytes wait, or this share of what may wait, and no more than that at once, unless it is one
/// epoch's; no file is made of more.
pub const COMMIT_BYTES: usize = 64 << 20;
/// Of the bytes that may wait for all tables, one commit takes so manieth a part at most.
pub const COMMIT_SHARE: usize = 8;
/// Greatest age of a waiting row of a busy table.
pub const BUSY_AGE: Duration = Duration::from_secs(5);
/// Greatest age of a waiting row of a quiet table, where nothing else is configured.
pub const QUIET_AGE: Duration = Duration::from_secs(300);
/// Commits of a table after which it may have files to merge.
pub const COMPACT_COMMITS: u64 = 8;
/// Files are merged, and checkpoints made, where so many times as much as is read for it is free.
const MERGE_ROOM: u64 = 4;
/// After so long it may have some that commits did not make small: of a day that is over now.
const COMPACT_AGE: Duration = Duration::from_secs(3600);
/// What upkeep takes, bytes: a checkpoint in the making or files that are merged, and the parts of a file that are written.
pub const UPKEEP_BYTES: usize = 2 * MEMORY;
/// Names this writer in transaction identifiers.
pub const APPLICATION: &str = "radarflow";

/// Why the lake cannot be written.
#[derive(Debug, Error)]
pub enum LakeError {
    /// The store or the table format refused.
    #[error("lake table {table}: {source}")]
    Delta {
        /// The table.
        table: String,
        /// Why.
        source: Box<deltalake::DeltaTableError>,
    },
    /// Rows that do not fit their table: a defect.
    #[error("lake table {table}: {source}")]
    Arrow {
        /// The table.
        table: String,
        /// Why.
        source: arrow::error::ArrowError,
    },
    /// The path cannot be a table's.
    #[error("{0} cannot hold a lake")]
    Path(PathBuf),
}

/// Tells the readers of a table that its rows up to an epoch are in the lake now.
pub type OnCommit = Arc<dyn Fn(LakeTable, u64) -> radarflow_proto::ports::BoxFuture<()> + Send + Sync>;

/// The way in.
#[derive(Clone)]
pub struct Lake {
    epochs: mpsc::UnboundedSender<Message>,
    room: Arc<Room>,
    applied: Applied,
    tables: Arc<Vec<(String, Applied)>>,
    newest: u64,
}

/// Opens a table's folder, which must exist.
///
/// # Errors
/// [`LakeError`] where there is no table in the folder, or its log cannot be read.
pub async fn open_table(root: &Path, table: LakeTable) -> Result<DeltaTable, LakeError> {
    let path = root.join(table.name());
    let url = std::path::absolute(&path).ok().and_then(|path| url::Url::from_directory_path(path).ok());
    let url = url.ok_or(LakeError::Path(path))?;
    DeltaTable::try_from_url(url).await.map_err(delta(table))
}

fn delta(table: LakeTable) -> impl Fn(deltalake::DeltaTableError) -> LakeError {
    move |source| LakeError::Delta { table: table.name(), source: Box::new(source) }
}

impl Lake {
    /// Opens the lake's tables, making those that are missing, and starts the sink. From then on all Delta
    /// tables of this process are on that disk. `start` is the epoch at which the dataflow says again what it restored: no
    /// new versions. Of rows so many bytes may wait.
    ///
    /// # Errors
    /// A table cannot be made or read.
    pub async fn start(
        disk: &Arc<dyn Disk>,
        root: &Path,
        start: u64,
        keep: Keep,
        pending_bytes: usize,
        on_commit: OnCommit,
    ) -> Result<Lake, LakeError> {
        install(disk.clone());
        let mut writers = BTreeMap::new();
        for table in LakeTable::all() {
            let mut writer = Writer::open(disk, root, table, keep).await?;
            writer.most = COMMIT_BYTES.min(pending_bytes / COMMIT_SHARE).max(1);
            if writer.committed > 0 || matches!(table, LakeTable::Checkpoint(_)) {
                on_commit(table, writer.committed).await;
            }
            writers.insert(table, writer);
        }
        let newest = writers.values().map(|writer: &Writer| writer.committed).max().unwrap_or(0);
        let applied = Applied::default();
        applied.is_up(true);
        let (epochs, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Room {
            bound: pending_bytes,
            queued: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            upkeep: AtomicBool::new(false),
        });
        let tables =
            writers.iter().map(|(table, writer): (&LakeTable, &Writer)| (table.name(), writer.applied.clone()));
        let tables: Vec<(String, Applied)> = tables.collect();
        let sink = Sink {
            writers,
            start,
            room: room.clone(),
            applied: applied.clone(),
            on_commit,
            newest: 0,
            day: None,
            chore: None,
        };
        tokio::spawn(sink.run(queue));
        Ok(Lake { epochs, room, applied, tables: Arc::new(tables), newest })
    }

    /// The newest epoch that any table had at the start.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// How far each table is.
    pub fn tables(&self) -> &Arc<Vec<(String, Applied)>> {
        &self.tables
    }

    /// Takes an epoch.
    pub fn take(&self, output: &Arc<EpochOutput>) {
        self.room.queued.fetch_add(weight(output), Ordering::Relaxed);
        let _ = self.epochs.send(Message::Epoch(output.clone()));
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.room.is_full()
    }

    /// Whether upkeep of a table is under way.
    pub fn is_kept_up(&self) -> bool {
        self.room.upkeep.load(Ordering::Relaxed)
    }

    /// Bytes that wait for commits, about.
    pub fn waiting_bytes(&self) -> usize {
        self.room.held()
    }

    /// Commits what waits.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.epochs.send(Message::Flush(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// How far it is.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }
}
