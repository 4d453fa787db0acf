//! The lake: one Delta table a folder, one committer a table.
//!
//! Rows wait in memory until their table commits: at [`COMMIT_BYTES`], at [`BUSY_AGE`] for busy tables or [`QUIET_AGE`]
//! for quiet ones, never empty; and where half of what may wait does, the table with most commits before its time. A commit carries the transaction identifier (application id, epoch) of the newest epoch
//! in it and is built on the version whose identifier was read, so that a replay after a crash commits nothing twice:
//! epochs at or before a table's identifier are dropped on arrival. One commit takes whole epochs, the oldest first, of so
//! many bytes as [`COMMIT_BYTES`] says; what has piled up goes in several. An epoch that is larger by itself is one commit of
//! several files. So what a commit takes beside the rows that wait is bounded, however many they are.
//!
//! Which tables there are is said in `radarflow_proto::lake`.
//!
//! Files are partitioned by `tenant_id` and `date` (of the row's own time), sorted by (partition, time), ZSTD, with bloom
//! filters of addresses and devices. Small ones become large ones beside the commits ([`compact`]); `row_id` stays.
//!
//! A commit that is refused is tried again while rows go on to wait, up to a bound; the others do not notice.
//! Beyond that, because the lake is the record, it says that it is full ([`Lake::is_full`]), and intake stops until it is
//! not. What is then under way is taken all the same: nobody waits for the lake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take};
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::error::ArrowError;
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, StructField, StructType, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use radarflow_proto::cell::Time;
use radarflow_proto::disk::Disk;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::Table;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Applied;
use super::checkpoint::{Wanted, days};
use super::compact::{PARTITIONED_BY, TARGET_BYTES, order, plan, properties};
use super::store::{DiskStore, install};
pub use super::upkeep::Keep;
use super::upkeep::{Chore, Done, Upkeep};

/// A table commits once so many bytes wait, or this share of what may wait, and no more than that at once, unless it is one
/// epoch's; no file is made of more.
pub const COMMIT_BYTES: usize = 64 << 20;
/// Of the bytes that may wait for all tables, one commit takes so manieth a part at most.
const COMMIT_SHARE: usize = 8;
/// Greatest age of a waiting row of a busy table.
pub const BUSY_AGE: Duration = Duration::from_secs(5);
/// Greatest age of a waiting row of a quiet table.
pub const QUIET_AGE: Duration = Duration::from_secs(300);
/// Commits of a table after which it may have files to merge.
pub const COMPACT_COMMITS: u64 = 8;
/// Files are merged, and checkpoints made, where so many times as much as is read for it is free.
const MERGE_ROOM: u64 = 4;
/// After so long it may have some that commits did not make small: of a day that is over now.
const COMPACT_AGE: Duration = Duration::from_secs(3600);
/// What a waiting change of a state table takes, about, bytes.
const CHANGE_BYTES: usize = 1024;
/// The folder of a table's commits.
const LOG: &str = "_delta_log";
/// Names this writer in transaction identifiers.
pub const APPLICATION: &str = "radarflow";
const RETRY: Duration = Duration::from_secs(2);

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
}

/// What waits for commits, and how much of it may.
struct Room {
    bound: usize,
    /// Bytes of epochs that the sink has not looked at; bounded by what is under way once intake has stopped.
    queued: AtomicUsize,
    /// Bytes of rows that wait for their table's commit.
    pending: AtomicUsize,
    full: AtomicBool,
}

impl Room {
    fn held(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.pending.load(Ordering::Relaxed)
    }

    /// It is full from its bound on until a quarter of it is free again.
    fn is_full(&self) -> bool {
        let bound = if self.full.load(Ordering::Relaxed) { self.bound / 4 * 3 } else { self.bound };
        let full = self.held() >= bound;
        self.full.store(full, Ordering::Relaxed);
        full
    }
}

/// Bytes that an epoch takes while it waits, about.
fn weight(output: &EpochOutput) -> usize {
    let rows: usize = output.events.iter().map(|(_, batch)| batch.get_array_memory_size()).sum();
    rows + output.changes.len() * CHANGE_BYTES
}

enum Message {
    Epoch(Arc<EpochOutput>),
    Flush(oneshot::Sender<()>),
}

fn is_busy(table: LakeTable) -> bool {
    matches!(table, LakeTable::Events(Table::Flow | Table::Log | Table::Trap | Table::Reject))
}

/// Opens a table's folder, which must exist.
pub async fn open_table(root: &Path, table: LakeTable) -> Result<DeltaTable, LakeError> {
    let path = root.join(table.name());
    let url = std::path::absolute(&path).ok().and_then(|path| url::Url::from_directory_path(path).ok());
    let url = url.ok_or(LakeError::Path(path))?;
    DeltaTable::try_from_url(url).await.map_err(delta(table))
}

fn delta(table: LakeTable) -> impl Fn(deltalake::DeltaTableError) -> LakeError {
    move |source| LakeError::Delta { table: table.name(), source: Box::new(source) }
}

pub(super) struct Writer {
    table: LakeTable,
    /// The columns as the table has them.
    schema: SchemaRef,
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    pub(super) delta: DeltaTable,
    /// Epochs at or before this are committed.
    pub(super) committed: u64,
    pending: Vec<(u64, RecordBatch)>,
    /// A commit failed and may have been made all the same; not before this is it looked into.
    doubtful: Option<Instant>,
    bytes: usize,
    /// [`COMMIT_BYTES`].
    most: usize,
    first_epoch: Option<u64>,
    since: Instant,
    /// Commits since its files were last looked at, and when that was.
    commits: u64,
    looked: Instant,
    upkeep: Upkeep,
    /// Of a table of checkpoints: the day on which the last was thought of, and when it is thought of again.
    thought: Option<(String, Instant)>,
    applied: Applied,
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
        let applied = Applied::default();
        applied.is_up(true);
        let (epochs, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Room {
            bound: pending_bytes,
            queued: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            full: AtomicBool::new(false),
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
        Ok(Lake { epochs, room, applied, tables: Arc::new(tables) })
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

struct Sink {
    writers: BTreeMap<LakeTable, Writer>,
    start: u64,
    room: Arc<Room>,
    applied: Applied,
    on_commit: OnCommit,
    newest: u64,
    /// The day of the newest epoch, and its first epoch that was seen.
    day: Option<(String, u64)>,
    /// The one that is under way.
    chore: Option<(LakeTable, Done)>,
}

impl Sink {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Message>) {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                message = queue.recv() => match message {
                    Some(Message::Epoch(output)) => {
                        self.take(&output);
                        self.weigh();
                        self.room.queued.fetch_sub(weight(&output), Ordering::Relaxed);
                    }
                    Some(Message::Flush(done)) => {
                        self.commit_all().await;
                        let _ = done.send(());
                    }
                    None => break,
                },
                _ = tick.tick() => {}
                // What has piled up goes in several commits; between them others have their turn.
                () = std::future::ready(()), if self.has_due() => {}
            }
            let largest = self.largest();
            self.commit(|writer| writer.is_due() || Some(writer.table) == largest).await;
            self.end_chore().await;
            self.begin_chore();
            self.report();
        }
        self.commit_all().await;
        self.report();
    }

    /// Whether something is to be committed now.
    fn has_due(&self) -> bool {
        self.writers.values().any(|writer| writer.is_due() && writer.may_commit()) || self.largest().is_some()
    }

    /// Commits everything that waits; what is refused waits on.
    async fn commit_all(&mut self) {
        while self.writers.values().any(Writer::may_commit) {
            self.commit(|_| true).await;
        }
    }

    fn take(&mut self, output: &EpochOutput) {
        self.newest = output.epoch;
        let day = Time::from_ms(output.clock_ms).date();
        if output.clock_ms > 0 && self.day.as_ref().is_none_or(|(known, _)| *known < day) {
            self.day = Some((day, output.epoch));
        }
        for (table, batch) in &output.events {
            if let Some(writer) = self.writers.get_mut(&LakeTable::Events(*table)) {
                writer.take(output.epoch, batch.clone());
            }
        }
        for (table, batch) in output.versions() {
            // What is said again at a start is no new version, unless this lake has never heard of it.
            let writer = self.writers.get_mut(table);
            if let Some(writer) = writer.filter(|w| output.epoch > self.start || w.committed == 0) {
                writer.take(output.epoch, batch.clone());
            }
        }
    }

    fn weigh(&self) {
        self.room.pending.store(self.writers.values().map(|w| w.bytes).sum(), Ordering::Relaxed);
    }

    /// The table that makes room, where there is little.
    fn largest(&self) -> Option<LakeTable> {
        let little = self.room.held() >= self.room.bound / 2;
        let able = self.writers.values().filter(|writer| little && writer.may_commit());
        able.max_by_key(|writer| writer.bytes).map(|writer| writer.table)
    }

    async fn commit(&mut self, due: impl Fn(&Writer) -> bool) {
        for writer in self.writers.values_mut().filter(|w| due(w) && w.may_commit()) {
            match writer.commit().await {
                Ok(()) => (self.on_commit)(writer.table, writer.committed).await,
                Err(error) => tracing::error!(%error, "the lake refused a commit; trying again"),
            }
        }
        self.applied.is_up(self.writers.values().all(|w| w.doubtful.is_none()));
    }

    /// Begins what is to be done for one table beside its commits, if nothing is under way.
    fn begin_chore(&mut self) {
        if self.chore.is_some() {
            return;
        }
        let due = match self.checkpoint() {
            Some((table, wanted)) => self.writers.get_mut(&table).map(|writer| (writer, Chore::Checkpoint(wanted))),
            None => self.writers.values_mut().find_map(|writer| writer.chore().map(|chore| (writer, chore))),
        };
        let Some((writer, mut chore)) = due else { return };
        let table = writer.table;
        if let Chore::Keep(_, oldest) = &mut chore {
            let checkpoints = LakeTable::checkpoints_of(table.table()).and_then(|of| self.writers.get(&of));
            *oldest = checkpoints.and_then(|writer| days(&writer.delta).ok()?.into_keys().next());
        }
        let Some(writer) = self.writers.get(&table) else { return };
        match chore.begin(writer.table, writer.delta.clone()) {
            Ok(done) => self.chore = Some((writer.table, done)),
            Err(error) => tracing::warn!(%error, "no thread for the upkeep of the lake"),
        }
    }

    /// A checkpoint of yesterday that is worth it, of a history that has everything up to its end in the lake; each is
    /// thought of once a day, and again where that came to nothing.
    fn checkpoint(&mut self) -> Option<(LakeTable, Wanted)> {
        let (today, first) = self.day.clone()?;
        let yesterday = day_before(&today)?;
        let tables: Vec<LakeTable> =
            self.writers.keys().copied().filter(|table| matches!(table, LakeTable::Checkpoint(_))).collect();
        for of in tables {
            let (writer, history) = (&self.writers[&of], &self.writers[&LakeTable::History(of.table())]);
            let thought = writer.thought.as_ref().is_some_and(|(of, again)| *of == today && *again > Instant::now());
            if thought || history.applied.get() + 1 < first {
                continue;
            }
            let wanted = Wanted::worth(&writer.delta, &history.delta, yesterday.clone(), first.saturating_sub(1));
            let has_room = |bytes: u64| writer.disk.room(&writer.folder).is_none_or(|free| free > bytes * MERGE_ROOM);
            // What there is little room for is left to rows that come.
            let wanted = wanted.map(|wanted| wanted.filter(|wanted| has_room(wanted.bytes)));
            let thought = (today.clone(), Instant::now() + COMPACT_AGE);
            self.writers.entry(of).and_modify(|writer| writer.thought = Some(thought));
            match wanted {
                Ok(Some(wanted)) => return Some((of, wanted)),
                Ok(None) => {}
                Err(error) => tracing::warn!(table = of.name(), %error, "the lake's files cannot be looked at"),
            }
        }
        None
    }

    async fn end_chore(&mut self) {
        let Some((table, done)) = &mut self.chore else { return };
        let done = match done.try_recv() {
            Ok(done) => done,
            Err(oneshot::error::TryRecvError::Empty) => return,
            Err(oneshot::error::TryRecvError::Closed) => {
                Err(deltalake::DeltaTableError::Generic("it ended without a word".to_owned()))
            }
        };
        let writer = self.writers.get_mut(table).expect("every table has its writer");
        self.chore = None;
        if let Err(error) = done {
            tracing::warn!(table = writer.table.name(), %error, "upkeep of the lake failed; it is tried again later");
            writer.was_looked_at();
        }
        // A part of it may have been done, and its readers must not hold on to a version whose files are gone.
        if let Err(error) = writer.settle().await {
            tracing::warn!(%error, "the lake's table cannot be read again");
            return;
        }
        (self.on_commit)(writer.table, writer.committed).await;
    }

    fn report(&self) {
        self.weigh();
        for writer in self.writers.values() {
            writer.applied.set(writer.first_epoch.map_or(self.newest, |first| first - 1));
        }
        self.applied.set(self.writers.values().map(|w| w.applied.get()).min().unwrap_or(self.newest));
    }
}

impl Writer {
    pub(super) async fn open(
        disk: &Arc<dyn Disk>,
        root: &Path,
        table: LakeTable,
        keep: Keep,
    ) -> Result<Writer, LakeError> {
        let path = root.join(table.name());
        let log = path.join(LOG);
        let made = disk.make_dir(&log).and_then(|()| DiskStore::new(disk.clone()).tidy(&log));
        made.map_err(|_| LakeError::Path(path.clone()))?;
        let mut delta_table = open_table(root, table).await?;
        let schema: StructType = table
            .schema()
            .as_ref()
            .try_into_kernel()
            .map_err(|source| LakeError::Arrow { table: table.name(), source })?;
        if delta_table.version().is_none() {
            delta_table = delta_table
                .create()
                .with_table_name(table.name())
                .with_comment(table.doc())
                .with_columns(schema.fields().cloned())
                .with_partition_columns(PARTITIONED_BY)
                .await
                .map_err(delta(table))?;
        }
        // A table that an older version made lacks what was declared since; rows that are there already have nothing in it.
        let held = delta_table.snapshot().map_err(delta(table))?.schema();
        let missing = schema.fields().filter(|f| held.field(f.name()).is_none());
        let missing: Vec<StructField> =
            missing.map(|f| StructField::new(f.name(), f.data_type().clone(), true)).collect();
        if !missing.is_empty() {
            tracing::info!(table = table.name(), columns = missing.len(), "the lake's table is grown by new columns");
            delta_table = delta_table.add_columns().with_fields(missing).await.map_err(delta(table))?;
        }
        let arrow = |source| LakeError::Arrow { table: table.name(), source };
        let schema = delta_table.snapshot().map_err(delta(table))?.schema();
        let schema = Arc::new(schema.as_ref().try_into_arrow().map_err(arrow)?);
        let committed = newest_commit(table, &delta_table).await?;
        Ok(Writer {
            table,
            schema,
            disk: disk.clone(),
            folder: path,
            delta: delta_table,
            committed,
            pending: Vec::new(),
            doubtful: None,
            bytes: 0,
            most: COMMIT_BYTES,
            first_epoch: None,
            since: Instant::now(),
            commits: 0,
            looked: Instant::now(),
            upkeep: Upkeep::new(keep),
            thought: None,
            applied: Applied::default(),
        })
    }

    /// A commit that failed may have been made all the same: the table's own identifier tells. What it has is not
    /// committed again.
    async fn settle(&mut self) -> Result<(), LakeError> {
        let log = self.folder.join(LOG);
        // A commit that can be seen may be there for this process only: its folder was not synced where that failed.
        self.disk.sync_dir(&log).map_err(|_| LakeError::Path(log))?;
        self.delta.update_state().await.map_err(delta(self.table))?;
        let committed = newest_commit(self.table, &self.delta).await?;
        self.done(committed);
        Ok(())
    }

    /// What waited is in the lake, up to an epoch.
    fn done(&mut self, committed: u64) {
        self.doubtful = None;
        self.committed = committed.max(self.committed);
        self.pending.retain(|(epoch, _)| *epoch > self.committed);
        self.bytes = self.pending.iter().map(|(_, batch)| batch.get_array_memory_size()).sum();
        self.first_epoch = self.pending.first().map(|(epoch, _)| *epoch);
    }

    pub(super) fn take(&mut self, epoch: u64, batch: RecordBatch) {
        if epoch <= self.committed || batch.num_rows() == 0 {
            return;
        }
        if self.pending.is_empty() {
            self.since = Instant::now();
            self.first_epoch = Some(epoch);
        }
        self.bytes += batch.get_array_memory_size();
        self.pending.push((epoch, batch));
    }

    /// Whether there is something to commit, and it is not too early to try again.
    fn may_commit(&self) -> bool {
        !self.pending.is_empty() && self.doubtful.is_none_or(|at| at <= Instant::now())
    }

    fn is_due(&self) -> bool {
        self.bytes >= self.most || self.since.elapsed() >= if is_busy(self.table) { BUSY_AGE } else { QUIET_AGE }
    }

    /// What is to be done for it beside its commits.
    fn chore(&mut self) -> Option<Chore> {
        if self.upkeep.is_due() {
            return Some(Chore::Keep(self.upkeep.keep(), None));
        }
        if self.commits < COMPACT_COMMITS && self.looked.elapsed() < COMPACT_AGE {
            return None;
        }
        match plan(&self.delta, &today()) {
            // What there is little room for is left to rows that come.
            Ok(Some(plan)) => {
                if self.disk.room(&self.folder).is_none_or(|free| free > plan.bytes() * MERGE_ROOM) {
                    return Some(Chore::Merge(plan));
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(table = self.table.name(), %error, "the lake's files cannot be looked at"),
        }
        self.was_looked_at();
        None
    }

    fn was_looked_at(&mut self) {
        (self.commits, self.looked) = (0, Instant::now());
    }

    /// Commits the oldest of what waits; when that fails it waits on, and whether it was made is looked into first the next time.
    pub(super) async fn commit(&mut self) -> Result<(), LakeError> {
        let made = match self.doubtful {
            Some(_) => self.settle().await,
            None => Ok(()),
        };
        let made = match made {
            Ok(()) if self.pending.is_empty() => Ok(()),
            Ok(()) => self.write().await,
            failed => failed,
        };
        if made.is_err() {
            self.doubtful = Some(Instant::now() + RETRY);
        }
        made
    }

    async fn write(&mut self) -> Result<(), LakeError> {
        let Some((last, batches)) = first_epochs(&self.pending, self.most) else { return Ok(()) };
        let epoch = i64::try_from(last).unwrap_or(i64::MAX);
        let commit = CommitProperties::default().with_application_transaction(Transaction::new(APPLICATION, epoch));
        let pieces = pieces(batches, self.most);
        self.write_pieces(&pieces, commit).await?;
        self.done(last);
        self.commits += 1;
        Ok(())
    }

    /// What a file is made of: sorted, with the columns that the table has, of the types that it has them in.
    fn rows(&self, piece: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
        let rows = sorted(self.table, piece)?;
        let column = |field: &FieldRef| match rows.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type()),
            // A column that another build declared.
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        };
        let columns = self.schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns)
    }

    /// One commit of a file a piece and partition, each in the order of its rows.
    async fn write_pieces(&mut self, pieces: &[Vec<RecordBatch>], commit: CommitProperties) -> Result<(), LakeError> {
        let failed = delta(self.table);
        let mut added = Vec::new();
        let arrow = |source| LakeError::Arrow { table: self.table.name(), source };
        for piece in pieces {
            let rows = self.rows(piece).map_err(arrow)?;
            let properties = properties(self.table, &rows.schema(), rows.num_rows());
            let writer = RecordBatchWriter::for_table(&self.delta).map_err(&failed)?;
            let mut writer = writer.with_writer_properties(properties).with_target_file_size(TARGET_BYTES);
            writer.write(rows).await.map_err(&failed)?;
            added.extend(writer.flush().await.map_err(&failed)?.into_iter().map(Action::Add));
        }
        let partition_by = Some(PARTITIONED_BY.map(str::to_owned).into());
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None };
        let snapshot = self.delta.snapshot().map_err(&failed)?.snapshot();
        let committed =
            CommitBuilder::from(commit).with_actions(added).build(Some(snapshot), self.delta.log_store(), operation);
        committed.await.map_err(&failed)?;
        self.delta.update_state().await.map_err(&failed)
    }
}

/// The oldest epochs of what waits, whole, of no more than so many bytes, or one; and the last of them.
fn first_epochs(pending: &[(u64, RecordBatch)], most: usize) -> Option<(u64, &[(u64, RecordBatch)])> {
    let (mut end, mut last, mut bytes) = (0, None, 0);
    for epochs in pending.chunk_by(|(a, _), (b, _)| a == b) {
        bytes += epochs.iter().map(|(_, batch)| batch.get_array_memory_size()).sum::<usize>();
        if last.is_some() && bytes > most {
            break;
        }
        end += epochs.len();
        last = epochs.first().map(|(epoch, _)| *epoch);
    }
    Some((last?, &pending[..end]))
}

/// The rows in groups of no more than so many bytes, about, or of one row.
fn pieces(batches: &[(u64, RecordBatch)], most: usize) -> Vec<Vec<RecordBatch>> {
    let mut pieces: Vec<Vec<RecordBatch>> = Vec::new();
    let mut left = 0;
    for (_, batch) in batches {
        let size = batch.get_array_memory_size();
        // A batch that is too large by itself is cut; its rows are taken to be alike.
        let parts = size.div_ceil(most).clamp(1, batch.num_rows().max(1));
        let rows = batch.num_rows().div_ceil(parts).max(1);
        for from in (0..batch.num_rows()).step_by(rows) {
            let part = batch.slice(from, rows.min(batch.num_rows() - from));
            let takes = size / parts;
            match pieces.last_mut().filter(|_| takes <= left) {
                Some(piece) => {
                    piece.push(part);
                    left -= takes;
                }
                None => {
                    pieces.push(vec![part]);
                    left = most.saturating_sub(takes);
                }
            }
        }
    }
    pieces
}

/// The day before one.
fn day_before(day: &str) -> Option<String> {
    Some(chrono::NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?.pred_opt()?.to_string())
}

fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_ms(now.as_millis() as i64).date()
}

/// The epoch of a table's newest commit, by its transaction identifier.
async fn newest_commit(table: LakeTable, state: &DeltaTable) -> Result<u64, LakeError> {
    let snapshot = state.snapshot().map_err(delta(table))?;
    let version = snapshot.transaction_version(state.log_store().as_ref(), APPLICATION).await.map_err(delta(table))?;
    Ok(version.map_or(0, |epoch| epoch as u64))
}

/// One batch with the date column, sorted by (partition, time).
fn sorted(table: LakeTable, piece: &[RecordBatch]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let all = concat_batches(&table.arriving(), piece)?;
    let column = |name: &str| all.column_by_name(name).expect("every table has its order's columns");
    let dates = dates(column(table.time_column()));
    let keys = order(table).map(|name| SortColumn { values: column(name).clone(), options: None });
    let order = lexsort_to_indices(&keys, None)?;
    let columns = all
        .columns()
        .iter()
        .chain([&dates])
        .map(|column| take(column, &order, None))
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(table.schema(), columns)
}

fn dates(time: &ArrayRef) -> ArrayRef {
    let times = time.as_any().downcast_ref::<TimestampMicrosecondArray>().expect("times are timestamps");
    let mut known: BTreeMap<i64, String> = BTreeMap::new();
    let dates: StringArray = (0..times.len())
        .map(|i| {
            let us = times.value(i);
            Some(known.entry(us.div_euclid(86_400_000_000)).or_insert_with(|| Time(us).date()).clone())
        })
        .collect();
    Arc::new(dates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use radarflow_proto::cell::RowId;
    use radarflow_proto::rows::{BatchBuilder, Reject, RejectBatch};

    fn rows() -> RecordBatch {
        let mut batch = RejectBatch::default();
        batch.push(&reject());
        batch.finish()
    }

    fn reject() -> Reject {
        Reject {
            tenant_id: "t".into(),
            partition: "p".into(),
            row_id: RowId::new(5, 0, 0),
            epoch: 5,
            time: Time(1),
            source: "s".into(),
            peer: None,
            reason: "r".into(),
            bytes: vec![1],
            bytes_total: 1,
        }
    }

    async fn open(root: &Path, keep: Keep) -> Writer {
        Writer::open(&crate::disk::os(), root, LakeTable::Events(Table::Reject), keep).await.unwrap()
    }

    /// Files of rows, whether a version has them or not.
    fn files(root: &Path) -> usize {
        let below = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|f| f.path());
        let days = below(root.join("rejects")).flat_map(below).flat_map(below);
        days.filter(|f| f.extension().is_some_and(|e| e == "parquet")).count()
    }

    #[tokio::test]
    async fn what_is_past_its_retention_goes_and_its_files_after_it() {
        let root = tempfile::tempdir().unwrap();
        let keep = Keep { events: Some(Duration::from_secs(30 * 86_400)), files: Duration::ZERO, ..Keep::default() };
        let mut writer = open(root.path(), keep).await;
        let now_us = |days: i64| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
            now - days * 86_400_000_000
        };
        for (epoch, days) in [(5, 31), (6, 29), (7, 0)] {
            let mut batch = RejectBatch::default();
            batch.push(&Reject { row_id: RowId::new(epoch, 0, 0), time: Time(now_us(days)), ..reject() });
            writer.take(epoch, batch.finish());
            writer.commit().await.unwrap();
        }
        assert_eq!(files(root.path()), 3);
        assert!(!writer.upkeep.is_due(), "a start is not slowed down");
        let now_ms = now_us(0) / 1000;
        writer.upkeep.keep().run(writer.table, writer.delta.clone(), now_ms, None).await.unwrap();
        writer.settle().await.unwrap();
        assert_eq!((files(root.path()), writer.delta.get_file_uris().unwrap().count()), (2, 2));
        // It goes on, and knows after a restart what it has.
        writer.take(8, rows());
        writer.commit().await.unwrap();
        let again = open(root.path(), keep).await;
        assert_eq!((again.committed, again.delta.get_file_uris().unwrap().count()), (8, 3));
    }

    /// A batch of one epoch: rows of texts of a size, the latest first.
    fn large(epoch: u64, rows: u32, bytes: usize) -> RecordBatch {
        let mut batch = RejectBatch::default();
        for n in 0..rows {
            let (row_id, time) = (RowId::new(epoch, 0, n), Time(1_000_000 - i64::from(n)));
            batch.push(&Reject { row_id, time, epoch: epoch as i64, reason: "x".repeat(bytes), ..reject() });
        }
        batch.finish()
    }

    #[tokio::test]
    async fn what_has_piled_up_goes_in_commits_and_files_of_bounded_size_and_epochs_stay_whole() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = open(root.path(), Keep::default()).await;
        writer.most = 64 << 10;
        // Two epochs of a few batches, one much larger than a commit, and two more.
        for epoch in 1..=2 {
            for _ in 0..3 {
                writer.take(epoch, large(epoch, 10, 1000));
            }
        }
        writer.take(3, large(3, 10, 100));
        writer.take(3, large(3, 400, 1000));
        writer.take(3, large(3, 1, 200_000));
        for epoch in 4..=5 {
            writer.take(epoch, large(epoch, 10, 100));
        }
        assert!(writer.is_due());
        let mut commits = Vec::new();
        while !writer.pending.is_empty() {
            let before = files(root.path());
            writer.commit().await.unwrap();
            // A crash after any commit leaves whole epochs.
            let again = open(root.path(), Keep::default()).await;
            assert_eq!(again.committed, writer.committed);
            commits.push((writer.committed, files(root.path()) - before));
        }
        let (epochs, files): (Vec<u64>, Vec<usize>) = commits.iter().copied().unzip();
        assert!(epochs == [1, 2, 3, 5] || epochs == [2, 3, 5], "{commits:?}");
        let of = |epoch| files[epochs.iter().position(|e| *e == epoch).unwrap()];
        assert!(of(3) >= 400 * 1000 / (64 << 10) && of(5) == 1, "{commits:?}");
        let (rows, ids): (usize, usize) = {
            let context = deltalake::datafusion::prelude::SessionContext::new();
            let table = writer.delta.table_provider().await.unwrap();
            let table = context.read_table(table).unwrap();
            let ids = table.clone().select_columns(&["row_id"]).unwrap().distinct().unwrap();
            (table.count().await.unwrap(), ids.count().await.unwrap())
        };
        assert_eq!(rows, 2 * 30 + 411 + 20);
        assert_eq!(ids, 2 * 10 + 400 + 20);
        assert_eq!((writer.bytes, writer.first_epoch), (0, None));
    }

    #[test]
    fn no_piece_is_larger_than_it_may_be_and_no_row_is_left_out() {
        let batches = [(1, large(1, 1, 10)), (1, large(1, 1000, 100)), (1, large(1, 3, 5000)), (1, large(1, 7, 10))];
        for most in [1, 1000, 20_000, 1 << 20] {
            let pieces = pieces(&batches, most);
            let rows: Vec<usize> = pieces.iter().map(|piece| piece.iter().map(RecordBatch::num_rows).sum()).collect();
            assert_eq!(rows.iter().sum::<usize>(), 1011);
            for piece in &pieces {
                let text: usize = piece
                    .iter()
                    .map(|batch| {
                        let reasons = batch.column_by_name("reason").unwrap();
                        let reasons = reasons.as_any().downcast_ref::<StringArray>().unwrap();
                        reasons.iter().flatten().map(str::len).sum::<usize>()
                    })
                    .sum();
                let only_row = piece.iter().map(RecordBatch::num_rows).sum::<usize>() == 1;
                assert!(text <= most || only_row, "{text} of {most}");
            }
        }
        assert_eq!(pieces(&batches, 1 << 20).len(), 1);
        assert!(pieces(&[], 10).is_empty());
    }

    #[tokio::test]
    async fn a_commit_in_doubt_is_settled_by_the_table_and_a_replay_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let mut made = open(root.path(), Keep::default()).await;
        let mut doubtful = open(root.path(), Keep::default()).await;
        for writer in [&mut made, &mut doubtful] {
            writer.take(5, rows());
        }
        doubtful.settle().await.unwrap();
        assert_eq!(doubtful.pending.len(), 1, "it was not made: it waits on");
        made.commit().await.unwrap();
        doubtful.settle().await.unwrap();
        assert_eq!((doubtful.pending.len(), doubtful.committed), (0, 5), "it was made: it is not made again");
        let mut again = open(root.path(), Keep::default()).await;
        again.take(5, rows());
        assert!(again.pending.is_empty());
    }
}
