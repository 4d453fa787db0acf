//! How much a plan read: what its leaves gave it, before it was filtered.

use std::ops::AddAssign;
use std::sync::Arc;

use arrow_array::RecordBatch;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::DataFrame;

use crate::engine::bytes::gather;
use crate::error::{QueryError, failed};

/// Rows and bytes that were read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl AddAssign for Scanned {
    fn add_assign(&mut self, other: Scanned) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

impl Scanned {
    /// What a plan has read that has run.
    fn by(plan: &dyn ExecutionPlan) -> Scanned {
        let mut scanned = Scanned::default();
        let Some(source) = plan.downcast_ref::<DataSourceExec>() else {
            plan.children().into_iter().for_each(|child| scanned += Scanned::by(&**child));
            return scanned;
        };
        if let Some(memory) = source.data_source().downcast_ref::<MemorySourceConfig>() {
            for batch in memory.partitions().iter().flatten() {
                scanned += Scanned { rows: batch.num_rows() as u64, bytes: batch.get_array_memory_size() as u64 };
            }
        } else if let Some(metrics) = plan.metrics() {
            let sum = |name: &str| metrics.sum_by_name(name).map_or(0, |sum| sum.as_usize());
            // What a file's reader leaves out was read, too.
            let rows = metrics.output_rows().unwrap_or(0) + sum("pushdown_rows_pruned");
            scanned += Scanned { rows: rows as u64, bytes: sum("bytes_scanned") as u64 };
        }
        scanned
    }
}

/// Runs a plan: its rows, as far as an answer may have them, and what it read for them.
pub(crate) async fn collect(frame: DataFrame) -> Result<(Vec<RecordBatch>, Scanned), QueryError> {
    let task = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await.map_err(failed)?;
    let batches = gather(execute_stream(plan.clone(), task).map_err(failed)?).await?;
    let scanned = Scanned::by(&*plan);
    Ok((batches, scanned))
}
