//! What a lake's tables need now and then: rows older than their retention go, by the day; files that no version within
//! reach names any more are removed; small files become large ones; what held at the end of a day is written. One table at
//! a time, on a thread of its own beside the table's commits.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, LogicalFileView, Transaction};
use deltalake::protocol::DeltaOperation;
use deltalake::{DeltaTable, DeltaTableError};
use radarflow_proto::cell::Time;
use radarflow_proto::lake::{DATE, LakeTable};
use tokio::sync::oneshot;

use super::checkpoint::{DAILY, Wanted, checkpoint, days, unwanted};
use super::compact::{Plan, compact};
use super::lake::QUIET_AGE;

/// Between two looks at a table.
const EVERY: Duration = Duration::from_secs(3600);

/// How long a lake keeps what, and how long rows wait for it.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Rows of event tables; `None` for ever.
    pub events: Option<Duration>,
    /// What state tables held before; `None` for ever. What held since the last checkpoint before is known exactly.
    pub history: Option<Duration>,
    /// Files that newer versions of a table do not have: readers of older versions go on so long; an hour at least.
    pub files: Duration,
    /// After a start a table is first looked at then, so that a start is not slowed down.
    pub begin: Duration,
    /// Greatest age of a waiting row of a quiet table; busy ones commit after [`super::lake::BUSY_AGE`] at the latest.
    pub quiet: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        let (files, begin) = (Duration::from_secs(86_400), Duration::from_secs(300));
        Keep { events: None, history: None, files, begin, quiet: QUIET_AGE }
    }
}

/// When a table is looked at.
pub(super) struct Upkeep {
    keep: Keep,
    due: Instant,
}

impl Upkeep {
    pub(super) fn new(keep: Keep) -> Self {
        Upkeep { keep, due: Instant::now() + keep.begin }
    }

    /// Whether it is time; then the next time is later.
    pub(super) fn is_due(&mut self) -> bool {
        let due = Instant::now() >= self.due;
        if due {
            self.due = Instant::now() + EVERY;
        }
        due
    }

    /// How long what is kept.
    pub(super) fn keep(&self) -> Keep {
        self.keep
    }
}

impl Keep {
    /// Removes what is too old, as of now (milliseconds since 1970). A history has checkpoints from the day named on.
    pub(super) async fn run(
        self,
        table: LakeTable,
        mut delta: DeltaTable,
        now_ms: i64,
        oldest: Option<&str>,
    ) -> Result<DeltaTable, DeltaTableError> {
        let before = |age: Duration| Time::from_ms(now_ms - age.as_millis() as i64).date();
        // Whole days are whole partitions: no file is written anew.
        let days: BTreeSet<String> = days(&delta)?.into_keys().collect();
        let past: BTreeSet<String> = match table {
            LakeTable::Events(_) => match self.events.map(before) {
                Some(first) => days.into_iter().filter(|day| **day < *first).collect(),
                None => BTreeSet::new(),
            },
            // What a checkpoint tells need not be told by what came before it.
            LakeTable::History(_) => match self.history.and_then(|age| oldest.filter(|day| **day < *before(age))) {
                Some(base) => days.into_iter().filter(|day| day.as_str() <= base).collect(),
                None => BTreeSet::new(),
            },
            LakeTable::Checkpoint(_) => {
                let base = self.history.map(before);
                let base = base.and_then(|first| days.iter().rfind(|day| **day < first));
                let recent = before(Duration::from_secs(DAILY * 86_400));
                unwanted(&days, &recent, base.map(String::as_str)).into_iter().collect()
            }
        };
        if !past.is_empty() {
            let forgotten = match (table, oldest) {
                (LakeTable::History(_), Some(day)) => Some(day),
                _ => None,
            };
            let files = forget(&mut delta, &past, forgotten).await?;
            tracing::info!(table = table.name(), files, "rows are past their retention");
        }
        let files = chrono::Duration::from_std(self.files).unwrap_or(chrono::Duration::days(1));
        let vacuum = delta.vacuum().with_retention_period(files).with_enforce_retention_duration(false);
        let (kept, metrics) = vacuum.await?;
        if !metrics.files_deleted.is_empty() {
            tracing::info!(
                table = table.name(),
                files = metrics.files_deleted.len(),
                "files that no version has are removed"
            );
        }
        Ok(kept)
    }
}

/// Removes the files of the days; how many there were. What a history forgets begins its checkpoint of the day named.
async fn forget(
    delta: &mut DeltaTable,
    days: &BTreeSet<String>,
    forgotten: Option<&str>,
) -> Result<usize, DeltaTableError> {
    let snapshot = delta.snapshot()?;
    let is_past = |file: &LogicalFileView| {
        file.partition_values_map().remove(DATE).flatten().is_some_and(|day| days.contains(&day))
    };
    let removed: Vec<Action> =
        snapshot.log_data().iter().filter(is_past).map(|file| Action::Remove(file.remove_action(true))).collect();
    let files = removed.len();
    let mut commit = CommitProperties::default();
    if let Some(day) = forgotten {
        let day = day.replace('-', "").parse().unwrap_or(i64::MAX);
        commit = commit.with_application_transaction(Transaction::new(LakeTable::FORGOTTEN, day));
    }
    let named: Vec<String> = days.iter().map(|day| format!("'{day}'")).collect();
    // Who appends at the same time appends to other days, or to one that the next look finds.
    CommitBuilder::from(commit)
        .with_actions(removed)
        .build(
            Some(snapshot.snapshot()),
            delta.log_store(),
            DeltaOperation::Delete { predicate: Some(format!("{DATE} IN ({})", named.join(", "))) },
        )
        .await?;
    delta.update_state().await?;
    Ok(files)
}

/// What is done beside a table's commits.
pub(super) enum Chore {
    /// Files become fewer.
    Merge(Plan),
    /// What is too old goes; the oldest checkpoint of a history is of the day named.
    Keep(Keep, Option<String>),
    /// What held at the end of a day is written.
    Checkpoint(Wanted),
}

/// Becomes how it went.
pub(super) type Done = oneshot::Receiver<Result<(), DeltaTableError>>;

impl Chore {
    /// Begins it on a thread of its own.
    pub(super) fn begin(self, table: LakeTable, delta: DeltaTable) -> std::io::Result<Done> {
        let (done, wait) = oneshot::channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let went = runtime.map_err(DeltaTableError::from).and_then(|rt| rt.block_on(self.run(table, &delta)));
            // Nobody waits where the process ends.
            let _ = done.send(went);
        };
        std::thread::Builder::new().name("upkeep".to_owned()).spawn(work)?;
        Ok(wait)
    }

    async fn run(self, table: LakeTable, delta: &DeltaTable) -> Result<(), DeltaTableError> {
        match self {
            Chore::Merge(plan) => {
                let (before, after) = compact(table, delta, plan).await?;
                tracing::debug!(table = table.name(), before, after, "files are merged");
            }
            Chore::Checkpoint(wanted) => {
                let rows = checkpoint(table, delta, &wanted).await?;
                tracing::debug!(table = table.name(), rows, day = wanted.day, "what held is written");
            }
            Chore::Keep(keep, oldest) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
                // A file that is being written now is named by no version yet.
                let keep = Keep { files: keep.files.max(EVERY), ..keep };
                keep.run(table, delta.clone(), now, oldest.as_deref()).await?;
            }
        }
        Ok(())
    }
}
