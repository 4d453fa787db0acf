//! The work of a query ends when nobody waits for its answer.
//!
//! To drop a task does not stop it: it runs on to where it gives way, and so do the tasks that its operators started. So a
//! query has a [`Work`], which is asked wherever much is done: between the rules of planning, by every operator before its
//! next batch, by the condition of a join before its next pairs, by functions between parts of their rows. Who leaves says
//! so there, and what is under way ends with an error that nobody hears.
//!
//! The place among the queries is the work's, not that of whoever waits: it is free when the last stream of the plan is gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ColumnarValue, LogicalPlan};
use datafusion::optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures::{Stream, StreamExt};

use crate::engine::admission::Running;
use crate::engine::widths::{Care, check_constants};

thread_local! {
    /// The query whose work this thread does now.
    static CURRENT: RefCell<Option<Arc<Work>>> = const { RefCell::new(None) };
}

/// The work of one query.
#[derive(Default)]
pub(crate) struct Work {
    left: AtomicBool,
    /// Its place, if it has one.
    _running: Option<Running>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("left", &self.left).finish_non_exhaustive()
    }
}

impl From<Running> for Work {
    fn from(running: Running) -> Work {
        Work { left: AtomicBool::new(false), _running: Some(running) }
    }
}

impl Work {
    /// Nobody waits for it any more.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if self.left.load(Ordering::Relaxed) {
            return Err(DataFusionError::Execution("nobody waits for this answer".to_owned()));
        }
        Ok(())
    }

    /// This thread does its work, until what is returned is dropped.
    fn enter(self: &Arc<Self>) -> Entered {
        Entered(CURRENT.replace(Some(self.clone())))
    }
}

/// What the thread did before.
struct Entered(Option<Arc<Work>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}

/// Whether somebody still waits for what this thread does.
pub(crate) fn check() -> Result<()> {
    CURRENT.with_borrow(|work| work.as_ref().map_or(Ok(()), |work| work.check()))
}

/// A task that is the work of a query.
pub(crate) fn within<T>(
    work: Arc<Work>,
    task: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let mut task = Box::pin(task);
    futures::future::poll_fn(move |cx| {
        let _entered = work.enter();
        task.as_mut().poll(cx)
    })
}

/// A rule that changes nothing: planning ends here when nobody waits for it.
#[derive(Debug)]
pub(crate) struct Wanted;

impl AnalyzerRule for Wanted {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        check().map(|()| plan)
    }

    fn name(&self) -> &'static str {
        "wanted"
    }
}

impl OptimizerRule for Wanted {
    fn name(&self) -> &'static str {
        "wanted"
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check().map(|()| Transformed::no(plan))
    }
}

impl PhysicalOptimizerRule for Wanted {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        check().map(|()| plan)
    }

    fn name(&self) -> &'static str {
        "wanted"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Plans as DataFusion does; what comes of it is the work of the query that is planned.
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait::async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        check()?;
        check_constants(plan)?;
        let plan = DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await?;
        match CURRENT.with_borrow(Clone::clone) {
            Some(work) => cancellable(plan, Care::Once, &work),
            None => Ok(plan),
        }
    }
}

/// A plan whose every operator asks whether it is wanted, and takes no rows that are too wide for it.
fn cancellable(plan: Arc<dyn ExecutionPlan>, care: Care, work: &Arc<Work>) -> Result<Arc<dyn ExecutionPlan>> {
    let of_children = match plan.downcast_ref::<UnnestExec>() {
        Some(unnest) => Care::Unnested(unnest.list_column_indices().to_vec()),
        None if plan.children().len() > 1 && plan.name().ends_with("JoinExec") => Care::Joined,
        None => Care::Once,
    };
    let children = plan.children().into_iter().map(|child| cancellable(child.clone(), of_children.clone(), work));
    let children = children.collect::<Result<Vec<_>>>()?;
    let plan = match children.len() {
        0 => plan,
        _ => plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?,
    };
    let input = if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(join.filter().map(condition)).build()?)
    } else if let Some(join) = plan.downcast_ref::<HashJoinExec>().filter(|join| join.filter.is_some()) {
        HashJoinExecBuilder::from(join).with_filter(join.filter.as_ref().map(condition)).build_exec()?
    } else {
        plan
    };
    Ok(Arc::new(Cancellable { input, care, work: work.clone() }))
}

/// A join goes through all pairs of two batches before it looks for the next; that is too long to wait for.
fn condition(filter: &JoinFilter) -> JoinFilter {
    let expression = Arc::new(Asked(filter.expression().clone()));
    JoinFilter::new(expression, filter.column_indices().to_vec(), filter.schema().clone())
}

/// An operator that ends when nobody waits.
#[derive(Debug)]
struct Cancellable {
    input: Arc<dyn ExecutionPlan>,
    care: Care,
    work: Arc<Work>,
}

impl DisplayAs for Cancellable {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancellableExec")
    }
}

impl ExecutionPlan for Cancellable {
    fn name(&self) -> &'static str {
        "CancellableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Plan("an operator is missing".to_owned()))?;
        Ok(Arc::new(Cancellable { input, care: self.care.clone(), work: self.work.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.work.check()?;
        let _entered = self.work.enter();
        let inner = self.input.execute(partition, context)?;
        Ok(Box::pin(Batches { inner, care: self.care.clone(), parts: VecDeque::new(), work: self.work.clone() }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.input.metrics()
    }
}

/// The batches of an operator, as long as somebody waits for them.
struct Batches {
    inner: SendableRecordBatchStream,
    care: Care,
    /// Parts of the last batch that were not taken yet.
    parts: VecDeque<RecordBatch>,
    work: Arc<Work>,
}

impl Stream for Batches {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(left) = self.work.check() {
            return Poll::Ready(Some(Err(left)));
        }
        if let Some(part) = self.parts.pop_front() {
            return Poll::Ready(Some(Ok(part)));
        }
        let _entered = self.work.enter();
        let batch = ready!(self.inner.poll_next_unpin(cx));
        if matches!(self.care, Care::Once) {
            return Poll::Ready(batch);
        }
        Poll::Ready(batch.map(|batch| {
            self.parts = self.care.parts(batch?)?.into();
            Ok(self.parts.pop_front().unwrap_or_else(|| RecordBatch::new_empty(self.inner.schema())))
        }))
    }
}

impl RecordBatchStream for Batches {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}

/// A condition that asks before it is looked at.
#[derive(Debug)]
struct Asked(Arc<dyn PhysicalExpr>);

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for Asked {}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Asked {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.0.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        check()?;
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().ok_or_else(|| DataFusionError::Plan("a condition is missing".to_owned()))?;
        Ok(Arc::new(Asked(inner)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}
