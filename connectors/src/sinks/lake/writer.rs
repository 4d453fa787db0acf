//! One table: what waits for it, its commits, and what is to be done for it beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
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
use radarflow_proto::rows::Table;
use tokio::time::Instant;

use super::super::Applied;
use super::super::compact::{PARTITIONED_BY, TARGET_BYTES, plan, properties};
use super::super::store::DiskStore;
use super::super::upkeep::{Chore, Keep, Upkeep};
use super::rows::{first_epochs, pieces, sorted};
use super::{
    APPLICATION, BUSY_AGE, COMMIT_BYTES, COMPACT_AGE, COMPACT_COMMITS, LakeError, MERGE_ROOM, delta, open_table,
};

/// The folder of a table's commits.
const LOG: &str = "_delta_log";
/// Pause before it is looked into what became of a commit that failed.
const RETRY: Duration = Duration::from_secs(2);

/// The committer of one table.
pub(in crate::sinks) struct Writer {
    pub(super) table: LakeTable,
    /// The columns as the table has them.
    schema: SchemaRef,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
    pub(in crate::sinks) delta: DeltaTable,
    /// Epochs at or before this are committed.
    pub(in crate::sinks) committed: u64,
    pub(super) pending: Vec<(u64, RecordBatch)>,
    /// A commit failed and may have been made all the same; not before this is it looked into.
    pub(super) doubtful: Option<Instant>,
    pub(super) bytes: usize,
    /// [`COMMIT_BYTES`].
    pub(super) most: usize,
    pub(super) first_epoch: Option<u64>,
    since: Instant,
    /// Commits since its files were last looked at, and when that was.
    commits: u64,
    looked: Instant,
    pub(super) upkeep: Upkeep,
    /// Of a table of checkpoints: the day on which the last was thought of, and when it is thought of again.
    pub(super) thought: Option<(String, Instant)>,
    pub(super) applied: Applied,
}

fn is_busy(table: LakeTable) -> bool {
    let LakeTable::Events(table) = table else { return false };
    matches!(table, Table::Flow | Table::Log | Table::Probe | Table::Trap | Table::Reject)
        || matches!(table, Table::OtelMetric | Table::OtelTrace)
        || matches!(table, Table::CpuMetric | Table::ProcessMetric | Table::TimeseriesMetric)
}

impl Writer {
    pub(in crate::sinks) async fn open(
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
    pub(super) async fn settle(&mut self) -> Result<(), LakeError> {
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

    pub(in crate::sinks) fn take(&mut self, epoch: u64, batch: RecordBatch) {
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
    pub(super) fn may_commit(&self) -> bool {
        !self.pending.is_empty() && self.doubtful.is_none_or(|at| at <= Instant::now())
    }

    pub(super) fn is_due(&self) -> bool {
        let quiet = self.upkeep.keep().quiet;
        self.bytes >= self.most || self.since.elapsed() >= if is_busy(self.table) { BUSY_AGE.min(quiet) } else { quiet }
    }

    /// What is to be done for it beside its commits.
    pub(super) fn chore(&mut self) -> Option<Chore> {
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

    pub(super) fn was_looked_at(&mut self) {
        (self.commits, self.looked) = (0, Instant::now());
    }

    /// Commits the oldest of what waits; when that fails it waits on, and whether it was made is looked into first the next time.
    pub(in crate::sinks) async fn commit(&mut self) -> Result<(), LakeError> {
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
