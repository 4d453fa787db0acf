//! Live tables: the current state and the rows that are not in the lake yet, published as one immutable version an epoch.
//!
//! A state table of one tenant is a list of segments ([`crate::tables::state`]); the rows of events that wait for the lake are
//! chunks that versions share ([`crate::tables::fresh`]): publishing costs the change, and not the table. An event table is
//! `lake where epoch ≤ cut` and `memory where epoch > cut`; the cut moves, and the memory goes, in one swap after a commit. The
//! versions of state tables are kept in the same way, so that what held at a time can be asked for before the lake has it.
//!
//! Tables are kept apart by tenant: a request gets the tables of its actor's tenant and can name no other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arrow_array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use deltalake::{DeltaTable, DeltaTableError};
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Change, Table};
use tokio::sync::watch;

pub use crate::tables::corrections::CORRECTIONS_BYTES;
use crate::tables::past::past;
use crate::tables::recent::{Next, Recent};
use crate::tables::segment::Segment;
use crate::tables::state::StateTable;
use crate::tables::view::{Stored, Tenant, View, cast_to};

/// Bytes of event rows that one table of one tenant keeps in memory where there is no lake to hold them.
pub const MAX_FRESH_BYTES: usize = 64 << 20;

/// Events go by the day.
const DAY_US: i64 = 86_400_000_000;

/// What is learnt late of who had an address.
const CORRECTIONS: LakeTable = LakeTable::Events(Table::AttributionCorrection);

/// Applies epochs and publishes versions.
pub struct Live {
    lake: Option<PathBuf>,
    /// How long the lake keeps events, if not for ever.
    retention: Option<Duration>,
    /// The epoch at which the dataflow says again what it restored: no new versions.
    start: u64,
    applier: Mutex<Applier>,
    view: RwLock<Arc<View>>,
    epoch: watch::Sender<u64>,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Applier {
    state: BTreeMap<(Tenant, Table), StateTable>,
    view: View,
}

impl Live {
    /// Empty tables over a lake, if there is one. `start` is the epoch at which the dataflow says again what it restored.
    pub fn new(lake: Option<PathBuf>, start: u64) -> Self {
        let applier = Applier { view: View { history: lake.is_some(), ..View::default() }, ..Applier::default() };
        let view = RwLock::new(Arc::new(applier.view.clone()));
        Live {
            lake,
            retention: None,
            start,
            applier: Mutex::new(applier),
            view,
            epoch: watch::Sender::new(0),
            // What is said again at a start is no news.
            recent: Recent::since(start).into(),
        }
    }

    /// The same, over a lake that keeps events only so long.
    pub fn keeping(self, retention: Option<Duration>) -> Self {
        Live { retention, ..self }
    }

    /// Whether events dated since a time, or ever, are there to be read for a day to come, by a clock in microseconds.
    pub(crate) fn has_events_since(&self, from_us: Option<i64>, now_us: i64) -> bool {
        let spare = |retention: Duration| i64::try_from(retention.as_micros()).unwrap_or(i64::MAX) - DAY_US;
        self.lake.is_some()
            && self.retention.is_none_or(|kept| from_us.is_some_and(|from| now_us.saturating_sub(from) < spare(kept)))
    }

    /// The newest version.
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a version of at least `epoch` is published.
    pub async fn reach(&self, epoch: u64) {
        // The sender lives as long as this.
        let _ = self.epoch.subscribe().wait_for(|at| *at >= epoch).await;
    }

    /// Waits for the epoch after one; it is published when it comes. Whoever waits holds none.
    pub(crate) async fn next(&self, after: u64) -> Next {
        self.reach(after.saturating_add(1)).await;
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).after(after)
    }

    /// Bytes of event rows, and changes, of the last epochs, which are kept for those who follow.
    pub fn recent(&self) -> (usize, usize) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).held()
    }

    /// Whether all epochs after one are known still.
    pub(crate) fn knows(&self, epoch: u64) -> bool {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).knows(epoch)
    }

    /// Takes in an epoch and publishes it.
    pub fn apply(&self, output: &Arc<EpochOutput>) {
        let mut applier = self.applier.lock().unwrap_or_else(PoisonError::into_inner);
        let Applier { state, view } = &mut *applier;
        let mut by_table: BTreeMap<(Tenant, Table), Vec<&Change>> = BTreeMap::new();
        for change in &output.changes {
            let row = change.after.as_ref().or(change.before.as_ref());
            if let Some(row) = row {
                by_table.entry((row.tenant().to_owned(), change.table)).or_default().push(change);
            }
        }
        for (key, changes) in by_table {
            let table = state.entry(key.clone()).or_default();
            table.apply(key.1, &changes);
            view.state.insert(key, table.segments());
        }
        for (table, batch) in &output.events {
            self.keep(view, LakeTable::Events(*table), output.epoch, batch);
        }
        // Without a lake there is no history to ask for.
        if view.history {
            for (table, batch) in output.versions() {
                let unheard = view.stored.get(table).is_none_or(|s| s.cut == 0);
                if output.epoch > self.start || unheard {
                    self.keep(view, *table, output.epoch, batch);
                }
            }
        }
        view.epoch = output.epoch;
        if output.clock_ms > 0 {
            view.clock_ms = output.clock_ms;
        }
        self.show(view);
        // What is said again at a start changed nothing.
        if output.epoch > self.start {
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).push(output.clone());
        }
        // Whoever waits finds both.
        self.epoch.send_replace(view.epoch);
    }

    /// Keeps rows until the lake has them.
    fn keep(&self, view: &mut View, table: LakeTable, epoch: u64, batch: &RecordBatch) {
        // What the lake has committed before a restart is read from there.
        if epoch <= view.stored.get(&table).map_or(0, |s| s.cut) {
            return;
        }
        if table == CORRECTIONS {
            view.learn(std::slice::from_ref(batch));
        }
        let fresh = view.fresh.entry((tenant_of(batch), table)).or_default();
        let fresh = Arc::make_mut(fresh);
        fresh.push(epoch, batch.clone());
        if self.lake.is_none() {
            // There the oldest rows go.
            fresh.bound(MAX_FRESH_BYTES);
        }
    }

    fn show(&self, view: &View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view.clone());
    }

    /// The lake has everything of a table up to `cut`: read it from there.
    ///
    /// # Errors
    /// The table of the lake cannot be opened or read. What was read from memory is read from there still.
    pub async fn committed(&self, table: LakeTable, cut: u64) -> Result<()> {
        let Some(root) = &self.lake else { return Ok(()) };
        let path = root.join(table.name());
        let url = deltalake::table::builder::ensure_table_uri(path.to_string_lossy())
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        let external = |e: DeltaTableError| DataFusionError::External(Box::new(e));
        // Only what was committed since is read of its log.
        let known = self.view().stored.get(&table).map(|stored| stored.delta.clone());
        let delta = match known {
            Some(mut delta) => delta.update_state().await.map(|()| delta),
            None => DeltaTable::try_from_url(url).await,
        };
        let delta = delta.map_err(external)?;
        if delta.version().is_none() {
            return Ok(());
        }
        let provider = radarflow_lake::files(&delta).map_err(external)?;
        // What was learnt before a start is read once; what is learnt after it is told as it is.
        let learnt = match table == CORRECTIONS && self.view().epoch == 0 {
            true => learnt(provider.clone()).await?,
            false => Vec::new(),
        };
        let past = past(table, &delta, self.view().stored.get(&table)).await;
        let (days, forgotten) = past.map_err(external)?;
        let mut applier = self.applier.lock().unwrap_or_else(PoisonError::into_inner);
        let view = &mut applier.view;
        if view.stored.get(&table).is_some_and(|s| s.cut > cut) {
            return Ok(());
        }
        view.learn(&learnt);
        view.stored.insert(table, Stored { cut, delta, provider, days, forgotten });
        for ((_, t), fresh) in &mut view.fresh {
            if *t == table {
                Arc::make_mut(fresh).let_go(cut);
            }
        }
        view.fresh.retain(|_, fresh| !fresh.is_empty());
        self.show(view);
        Ok(())
    }

    /// Bytes of state tables with their indexes and of corrections, about.
    pub fn state_bytes(&self) -> usize {
        let view = self.view();
        let rows: usize = view.state.values().flat_map(|segments| segments.iter()).map(Segment::bytes).sum();
        rows + view.corrections.values().map(|known| known.bytes()).sum::<usize>()
    }

    /// How much was learnt late of who had addresses, of all tenants.
    pub fn corrections(&self) -> usize {
        self.view().corrections.values().map(|known| known.len()).sum()
    }

    /// Bytes of event rows that wait for the lake.
    pub fn fresh_bytes(&self) -> usize {
        self.view().fresh.values().map(|fresh| fresh.bytes()).sum()
    }
}

/// The tenant of a batch: the dataflow makes batches of one tenant each.
pub(crate) fn tenant_of(batch: &RecordBatch) -> String {
    use arrow_array::cast::AsArray;
    let column = batch.column_by_name("tenant_id").and_then(|c| c.as_string_opt::<i32>());
    column.filter(|c| !arrow_array::Array::is_empty(*c)).map(|c| c.value(0).to_owned()).unwrap_or_default()
}

/// The corrections in the lake.
async fn learnt(provider: Arc<dyn TableProvider>) -> Result<Vec<RecordBatch>> {
    let columns: Vec<Expr> = Table::AttributionCorrection.schema().fields().iter().map(cast_to).collect();
    SessionContext::new().read_table(provider)?.select(columns)?.collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use radarflow_proto::cell::Time;
    use radarflow_proto::rows::{IpOwnership, Row, StateRow};

    fn row(ip: usize, uid: usize) -> StateRow {
        StateRow::from(IpOwnership {
            tenant_id: "t".into(),
            partition: "p".into(),
            ip: ip.to_string(),
            device_uid: Some(uid.to_string()),
            class: String::new(),
            valid_from: Time(0),
            valid_to: None,
            ip_uid: String::new(),
            epoch: 0,
        })
    }

    proptest::proptest! {
        #[test]
        fn the_published_rows_are_the_changes_summed(steps in proptest::collection::vec(proptest::collection::vec((0usize..40, proptest::option::of(0usize..5)), 0..12), 0..40)) {
            let live = Live::new(None, 0);
            let mut expected: BTreeMap<String, String> = BTreeMap::new();
            for (epoch, step) in steps.into_iter().enumerate() {
                let step: BTreeMap<usize, Option<usize>> = step.into_iter().collect();
                let mut changes = Vec::new();
                for (ip, after) in step {
                    let before = expected.get(&ip.to_string()).map(|uid| row(ip, uid.parse().unwrap()));
                    let after = after.map(|uid| row(ip, uid));
                    match &after {
                        Some(StateRow::IpOwnership(o)) => { expected.insert(o.ip.clone(), o.device_uid.clone().unwrap()); }
                        _ => { expected.remove(&ip.to_string()); }
                    }
                    changes.extend(Change::new(before, after));
                }
                live.apply(&EpochOutput { epoch: epoch as u64 + 1, changes, ..EpochOutput::default() }.into());
                let view = live.view();
                let got: BTreeMap<String, String> = view.rows::<IpOwnership>("t").into_iter().map(|o| (o.ip, o.device_uid.unwrap())).collect();
                assert_eq!(got, expected);
                assert!(view.state.get(&("t".into(), IpOwnership::TABLE)).is_none_or(|s| s.len() <= 8));
            }
        }
    }
}
