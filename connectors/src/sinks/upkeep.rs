//! What a lake's tables need now and then: rows older than their retention go, by the day; files that no version within
//! reach names any more are removed; small files become large ones. One table at a time, on a thread of its own beside the
//! table's commits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltalake::{DeltaTable, DeltaTableError};
use radarflow_proto::cell::Time;
use radarflow_proto::lake::{DATE, LakeTable};
use tokio::sync::oneshot;

use super::compact::{Plan, compact};

/// Between two looks at a table.
const EVERY: Duration = Duration::from_secs(3600);
/// After a start, so that a start is not slowed down.
const FIRST: Duration = Duration::from_secs(300);

/// How long a lake keeps what.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Rows of event tables; `None` for ever. Histories are kept whole: what held once is told by all that came before.
    pub events: Option<Duration>,
    /// Files that newer versions of a table do not have: readers of older versions go on so long; an hour at least.
    pub files: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Keep { events: None, files: Duration::from_secs(86_400) }
    }
}

/// When a table is looked at.
pub(super) struct Upkeep {
    keep: Keep,
    due: Instant,
}

impl Upkeep {
    pub(super) fn new(keep: Keep) -> Self {
        Upkeep { keep, due: Instant::now() + FIRST }
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
    /// Removes what is too old, as of now (milliseconds since 1970).
    pub(super) async fn run(
        self,
        table: LakeTable,
        mut delta: DeltaTable,
        now_ms: i64,
    ) -> Result<DeltaTable, DeltaTableError> {
        if let (LakeTable::Events(_), Some(events)) = (table, self.events) {
            let first = Time::from_ms(now_ms - events.as_millis() as i64).date();
            // Whole days are whole partitions: no file is written anew.
            let (kept, metrics) = delta.delete().with_predicate(format!("{DATE} < '{first}'")).await?;
            if metrics.num_removed_files > 0 {
                tracing::info!(
                    table = table.name(),
                    files = metrics.num_removed_files,
                    before = first,
                    "rows are past their retention"
                );
            }
            delta = kept;
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

/// What is done beside a table's commits.
pub(super) enum Chore {
    /// Files become fewer.
    Merge(Plan),
    /// What is too old goes.
    Keep(Keep),
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
            Chore::Keep(keep) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
                // A file that is being written now is named by no version yet.
                let keep = Keep { files: keep.files.max(EVERY), ..keep };
                keep.run(table, delta.clone(), now).await?;
            }
        }
        Ok(())
    }
}
