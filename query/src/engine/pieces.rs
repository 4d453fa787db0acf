//! Groups of many, in pieces that fit the cache of a core.
//!
//! DataFusion's last step of an aggregation keeps all groups of a partition in one table: where there are a million of them,
//! every row misses the cache. Here the groups of a partition are in [`PIECES`] tables, by their hash. Rows wait until a piece
//! has [`WAITING`] of them, and are then added to its table, which is in the cache while that is done:
//!
//! ```text
//! states of groups ─► hash ─► rows in the order of their pieces ─► rows that wait, a list a piece ─► table of the piece
//! ```
//! (Leis et al., "Morsel-Driven Parallelism", SIGMOD 2014, section 4.4; Kuiper et al., "Robust External Hash Aggregation in
//! the Solid State Age", ICDE 2024.)
//!
//! Everything is in memory. Where that is not enough, what was gathered is handed on to DataFusion's own last step, which can
//! go to disk, and what is still to come after it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::compute::take;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

/// Tables of a partition.
const PIECES: usize = 64;
/// Rows of a piece that wait before they are added to its table.
const WAITING: usize = 16 << 10;
/// Hashes by which rows are in pieces: other than those of partitions, or all of a partition would be in a few pieces.
const SEED: u64 = 0x7072_6563_6965;

/// Fewer rows than these are in the cache in any case.
pub(crate) const LEAST: usize = 250_000;

/// What a partition may take before DataFusion goes on, bytes.
pub(crate) const MOST: usize = 256 << 20;

/// The rule.
#[derive(Debug)]
pub(crate) struct InPieces {
    /// From how many rows on.
    pub(crate) least: usize,
    /// What a partition may take, bytes.
    pub(crate) most: usize,
}

impl PhysicalOptimizerRule for InPieces {
    fn name(&self) -> &'static str {
        "in_pieces"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_up(|plan| {
            let fits = plan.downcast_ref::<AggregateExec>().is_some_and(|last| self.fits(last));
            Ok(if fits {
                Transformed::yes(Arc::new(Pieces { last: plan, most: self.most }) as _)
            } else {
                Transformed::no(plan)
            })
        });
        replaced.data()
    }
}

impl InPieces {
    fn fits(&self, last: &AggregateExec) -> bool {
        let rows = || {
            let known = StatisticsContext::new().compute(last.input().as_ref(), &StatisticsArgs::new()).ok()?;
            known.num_rows.get_value().copied()
        };
        matches!(last.mode(), AggregateMode::FinalPartitioned)
            && last.group_expr().is_single()
            && !last.group_expr().is_empty()
            && matches!(last.input_order_mode(), InputOrderMode::Linear)
            && last.limit_options().is_none()
            && last.aggr_expr().iter().all(|call| call.groups_accumulator_supported())
            && rows().is_some_and(|rows| rows >= self.least)
    }
}

/// The last step of an aggregation, in pieces.
#[derive(Debug)]
struct Pieces {
    /// The same as DataFusion does it: its input, properties and columns are these.
    last: Arc<dyn ExecutionPlan>,
    most: usize,
}

impl Pieces {
    fn last(&self) -> Result<&AggregateExec> {
        self.last.downcast_ref().ok_or_else(|| DataFusionError::Internal("no aggregation".to_owned()))
    }
}

impl DisplayAs for Pieces {
    fn fmt_as(&self, how: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InPieces: ")?;
        self.last.fmt_as(how, f)
    }
}

impl ExecutionPlan for Pieces {
    fn name(&self) -> &'static str {
        "InPiecesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.last.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.last.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.last.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Pieces { last: of_children(&self.last, children)?, most: self.most }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let last = self.last()?;
        let mut input = last.input().execute(partition, context.clone())?;
        let schema = self.schema();
        let reservation = MemoryConsumer::new("InPieces").register(context.memory_pool());
        let mut tables = Tables::new(last, schema.clone(), (reservation, self.most))?;
        let rows = context.session_config().batch_size();
        let whole = self.last.clone();
        let groups = async move {
            while let Some(batch) = input.next().await {
                let batch = batch?;
                match tables.add(&batch) {
                    Ok(()) => {}
                    Err(error) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                        #[cfg(test)]
                        tests::HANDED_ON.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let properties = whole.children()[0].properties().clone();
                        let gathered = stream::iter(tables.into_states(rows, input.schema()));
                        let all = gathered.chain(stream::iter([Ok(batch)])).chain(input);
                        let rest = Rest { rows: Mutex::new(Some(all.boxed())), properties };
                        let whole = of_children(&whole, vec![Arc::new(rest)])?;
                        return Ok(whole.execute(partition, context)?.boxed());
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok::<_, DataFusionError>(stream::iter(tables.into_batches(rows)).boxed())
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(groups).try_flatten())))
    }
}

/// An operator over other children.
fn of_children(plan: &Arc<dyn ExecutionPlan>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.clone().replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// What was gathered, and what is still to come, of one partition.
struct Rest {
    rows: Mutex<Option<BoxStream<'static, Result<RecordBatch>>>>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl DisplayAs for Rest {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RestExec")
    }
}

impl ExecutionPlan for Rest {
    fn name(&self) -> &'static str {
        "RestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rows = rows.ok_or_else(|| DataFusionError::Internal("rows are taken once".to_owned()))?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// One of the tables.
struct Table {
    groups: Box<dyn GroupValues>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Rows that wait: their keys, then their states.
    waiting: Vec<Vec<ArrayRef>>,
    rows: usize,
    bytes: usize,
}

/// Those of a partition.
struct Tables {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    calls: Vec<Arc<AggregateFunctionExpr>>,
    /// How many columns the state of each aggregate has.
    widths: Vec<usize>,
    of_groups: SchemaRef,
    schema: SchemaRef,
    tables: Vec<Table>,
    reservation: MemoryReservation,
    /// What all of it may take, bytes.
    most: usize,
    hashes: Vec<u64>,
    indices: Vec<usize>,
}

impl Tables {
    fn new(last: &AggregateExec, schema: SchemaRef, (reservation, most): (MemoryReservation, usize)) -> Result<Tables> {
        let calls = last.aggr_expr().to_vec();
        let widths = calls.iter().map(|call| Ok(call.state_fields()?.len())).collect::<Result<_>>()?;
        Ok(Tables {
            keys: last.group_expr().input_exprs(),
            calls,
            widths,
            of_groups: last.group_expr().group_schema(&last.input().schema())?,
            schema,
            tables: Vec::new(),
            reservation,
            most,
            hashes: Vec::new(),
            indices: Vec::new(),
        })
    }

    fn table(&self) -> Result<Table> {
        Ok(Table {
            groups: new_group_values(self.of_groups.clone(), &GroupOrdering::None)?,
            accumulators: self.calls.iter().map(|call| call.create_groups_accumulator()).collect::<Result<_>>()?,
            waiting: Vec::new(),
            rows: 0,
            bytes: 0,
        })
    }

    /// Takes states of groups: each row waits at its piece. Where there is no memory for them, none is taken.
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        while self.tables.len() < PIECES {
            self.tables.push(self.table()?);
        }
        let keys = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(rows));
        let keys = keys.collect::<Result<Vec<ArrayRef>>>()?;
        self.hashes.clear();
        self.hashes.resize(rows, 0);
        create_hashes(&keys, &RandomState::with_seed(SEED), &mut self.hashes)?;
        let (order, ends) = by_piece(&self.hashes);
        let states = &batch.columns()[self.keys.len()..];
        let ordered = keys.iter().chain(states).map(|column| Ok(take(column, &order, None)?));
        let ordered = ordered.collect::<Result<Vec<ArrayRef>>>()?;
        let waits: usize = ordered.iter().map(|column| column.get_array_memory_size()).sum();
        if self.reservation.size() + waits > self.most {
            return Err(DataFusionError::ResourcesExhausted(format!("pieces take {} bytes at most", self.most)));
        }
        self.reservation.try_grow(waits)?;
        let mut from = 0;
        for (at, to) in ends.into_iter().enumerate() {
            if to > from {
                let table = &mut self.tables[at];
                table.waiting.push(ordered.iter().map(|column| column.slice(from, to - from)).collect());
                table.rows += to - from;
                table.bytes += waits / rows * (to - from);
                if table.rows >= WAITING {
                    self.fold(at)?;
                }
            }
            from = to;
        }
        Ok(())
    }

    /// Adds the rows that wait at a piece to its table.
    fn fold(&mut self, at: usize) -> Result<()> {
        let table = &mut self.tables[at];
        for columns in std::mem::take(&mut table.waiting) {
            let (keys, mut states) = columns.split_at(self.keys.len());
            table.groups.intern(keys, &mut self.indices)?;
            for (accumulator, width) in table.accumulators.iter_mut().zip(&self.widths) {
                let (own, others) = states.split_at(*width);
                accumulator.merge_batch(own, &self.indices, table.groups.len())?;
                states = others;
            }
        }
        table.rows = 0;
        let bytes = table.groups.size() + table.accumulators.iter().map(|of| of.size()).sum::<usize>();
        let before = std::mem::replace(&mut table.bytes, bytes);
        let (grown, shrunk) = (bytes.saturating_sub(before), before.saturating_sub(bytes));
        self.reservation.shrink(shrunk.min(self.reservation.size()));
        // A table grows by about what waited, which is reserved: who has to stop does so before rows are taken.
        self.reservation.grow(grown);
        Ok(())
    }

    /// The groups of a piece, whose table is given up: as they are answered, or as states of a schema.
    fn groups(&mut self, at: usize, states: Option<&SchemaRef>) -> Result<RecordBatch> {
        self.fold(at)?;
        let table = &mut self.tables[at];
        let mut columns = table.groups.emit(EmitTo::All)?;
        for accumulator in &mut table.accumulators {
            match states {
                Some(_) => columns.extend(accumulator.state(EmitTo::All)?),
                None => columns.push(accumulator.evaluate(EmitTo::All)?),
            }
        }
        let batch = RecordBatch::try_new(states.unwrap_or(&self.schema).clone(), columns)?;
        let given_up = self.tables[at].bytes.min(self.reservation.size());
        self.tables[at] = self.table()?;
        self.reservation.shrink(given_up);
        Ok(batch)
    }

    /// All groups, so many a batch at most, a piece after the other.
    fn into_batches(self, rows: usize) -> impl Iterator<Item = Result<RecordBatch>> + Send {
        self.emitted(rows, None)
    }

    /// The same as states, as they came.
    fn into_states(self, rows: usize, schema: SchemaRef) -> impl Iterator<Item = Result<RecordBatch>> + Send {
        self.emitted(rows, Some(schema))
    }

    fn emitted(mut self, rows: usize, states: Option<SchemaRef>) -> impl Iterator<Item = Result<RecordBatch>> + Send {
        let pieces = (0..self.tables.len()).map(move |at| self.groups(at, states.as_ref()));
        pieces.flat_map(move |piece| match piece {
            Ok(piece) => {
                let starts = (0..piece.num_rows()).step_by(rows.max(1));
                let parts = starts.map(|from| Ok(piece.slice(from, rows.max(1).min(piece.num_rows() - from))));
                parts.collect::<Vec<_>>()
            }
            Err(error) => vec![Err(error)],
        })
    }
}

/// Rows in the order of their pieces, and where each piece ends.
fn by_piece(hashes: &[u64]) -> (UInt32Array, [usize; PIECES]) {
    let piece = |hash: u64| (hash >> 32) as usize % PIECES;
    let mut ends = [0; PIECES];
    hashes.iter().for_each(|hash| ends[piece(*hash)] += 1);
    let mut next = [0; PIECES];
    let mut before = 0;
    for (end, next) in ends.iter_mut().zip(&mut next) {
        *next = before;
        before += *end;
        *end = before;
    }
    let mut order = vec![0; hashes.len()];
    for (row, hash) in (0u32..).zip(hashes) {
        let at = &mut next[piece(*hash)];
        order[*at] = row;
        *at += 1;
    }
    (order.into(), ends)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow_array::{Int64Array, StringArray};
    use datafusion::datasource::MemTable;
    use datafusion::execution::memory_pool::FairSpillPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// How often there was no memory.
    pub(super) static HANDED_ON: AtomicUsize = AtomicUsize::new(0);

    /// What a query answers, in order, and whether it was done in pieces.
    async fn asked(rows: &[RecordBatch], sql: &str, rule: InPieces) -> (Vec<String>, bool) {
        let config = SessionConfig::new().with_target_partitions(3).with_batch_size(100);
        let mut rules = PhysicalOptimizer::new().rules;
        rules.push(Arc::new(rule));
        let pool = Arc::new(FairSpillPool::new(1 << 30));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
        let ctx = SessionContext::new_with_state(state.with_physical_optimizer_rules(rules).build());
        let parts = rows.chunks(rows.len().div_ceil(3)).map(<[RecordBatch]>::to_vec).collect();
        let table = MemTable::try_new(rows[0].schema(), parts).unwrap();
        ctx.register_table("t", Arc::new(table)).unwrap();
        let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let is_in_pieces = displayable(plan.as_ref()).indent(false).to_string().contains("InPieces");
        let batches = collect(plan, ctx.task_ctx()).await.unwrap();
        assert!(batches.iter().all(|batch| batch.num_rows() <= 100));
        assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
        let mut lines = Vec::new();
        for batch in &batches {
            let columns = batch.columns().iter().map(|column| {
                let options = arrow::util::display::FormatOptions::default();
                arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap()
            });
            let columns: Vec<_> = columns.collect();
            lines.extend(
                (0..batch.num_rows()).map(|row| {
                    columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")
                }),
            );
        }
        lines.sort();
        (lines, is_in_pieces)
    }

    /// With memory for all, and with so little that DataFusion has to go on.
    #[tokio::test]
    async fn groups_are_the_same_in_pieces() {
        let mut random = StdRng::seed_from_u64(5);
        let batch = |random: &mut StdRng| {
            let n = random.random_range(1..3000);
            let text = |random: &mut StdRng, of: u32| {
                let n = random.random_range(0..of);
                (n % 17 != 3).then(|| format!("10.0.{}.{}", n / 256, n % 256))
            };
            let a: StringArray = (0..n).map(|_| text(random, 40_000)).collect();
            let b: Int64Array = (0..n).map(|_| random.random_bool(0.9).then(|| random.random_range(-50..50))).collect();
            let c: Int64Array = (0..n).map(|_| random.random_bool(0.9).then(|| random.random_range(0..1000))).collect();
            RecordBatch::try_from_iter_with_nullable([
                ("a", Arc::new(a) as ArrayRef, true),
                ("b", Arc::new(b) as ArrayRef, true),
                ("c", Arc::new(c) as ArrayRef, true),
            ])
            .unwrap()
        };
        let rows: Vec<RecordBatch> = (0..50).map(|_| batch(&mut random)).collect();
        for sql in [
            "SELECT a, sum(c), count(*), count(c), min(b), max(c), avg(c) FROM t GROUP BY a",
            "SELECT b, count(*) FROM t GROUP BY b",
            "SELECT a, b, sum(c) FILTER (WHERE c > 500) FROM t GROUP BY a, b",
            "SELECT DISTINCT a, c FROM t",
            "SELECT count(DISTINCT a), b FROM t GROUP BY b",
            "SELECT substr(a, 1, 6), stddev(c), bool_and(c > 3), max(a) FROM t WHERE b > 0 GROUP BY 1",
            "SELECT a, sum(c) AS s FROM t GROUP BY a ORDER BY s DESC, a LIMIT 7",
            "SELECT a, sum(c) FROM t WHERE b > 1000 GROUP BY a",
        ] {
            let (whole, is_in_pieces) = asked(&rows, sql, InPieces { least: usize::MAX, most: MOST }).await;
            assert!(!is_in_pieces);
            for most in [MOST, 300 << 10] {
                let (pieces, is_in_pieces) = asked(&rows, sql, InPieces { least: 0, most }).await;
                assert!(is_in_pieces, "{sql}");
                assert!(pieces == whole, "{sql} in {most}: {} {}", pieces.len(), whole.len());
            }
        }
        assert!(HANDED_ON.load(Ordering::Relaxed) > 0);
    }

    proptest! {
        #[test]
        fn every_row_is_in_its_piece_once_and_in_order(hashes in prop::collection::vec(any::<u64>(), 0..500)) {
            let (order, ends) = by_piece(&hashes);
            let mut from = 0;
            let mut seen = vec![false; hashes.len()];
            for (piece, to) in ends.into_iter().enumerate() {
                let rows = &order.values()[from..to];
                prop_assert!(rows.is_sorted());
                for row in rows {
                    prop_assert_eq!((hashes[*row as usize] >> 32) as usize % PIECES, piece);
                    prop_assert!(!std::mem::replace(&mut seen[*row as usize], true));
                }
                from = to;
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }
}
