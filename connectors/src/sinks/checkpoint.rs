//! What held at the end of a day, written once, so that a question about a later moment need not read all that came before.
//!
//! ```text
//! checkpoint(d) :- newest of ( checkpoint(c) ∪ versions of the days c < v ≤ d ) of each key, unless it ended there
//! worth(d)      :- there are more such versions than a tenth of checkpoint(c), c being the newest day before d
//! ```
//! It is one commit, whose transaction identifier names the day and an epoch that nothing in it is later than. A row keeps its `row_id`, `epoch` and `time`. Checkpoints are kept for [`DAILY`] days, and of every month
//! before the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, JoinType};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableError};
use futures::StreamExt;
use radarflow_lake::failed;
use radarflow_proto::lake::{DATE, LakeTable};

use super::compact::{GROUP_ROWS, PARTITIONED_BY, TARGET_BYTES, order, properties};

/// Memory that making one may take; beyond it goes on disk.
pub(super) const MEMORY: usize = 256 << 20;
/// A checkpoint is worth it once so many times as many versions came after the last as that has rows.
const WORTH: f64 = 0.1;
/// Days of which every checkpoint is kept.
pub(super) const DAILY: u64 = 8;

/// What a table has of a day.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    rows: usize,
    bytes: u64,
}

/// The days of a table's rows, and how much each has.
pub(super) fn days(delta: &DeltaTable) -> Result<BTreeMap<String, Size>, DeltaTableError> {
    let mut days: BTreeMap<String, Size> = BTreeMap::new();
    for file in delta.snapshot()?.log_data().iter() {
        if let Some(day) = file.partition_values_map().remove(DATE).flatten() {
            let size = days.entry(day).or_default();
            size.rows += file.num_records().unwrap_or(0);
            size.bytes += file.size().unsigned_abs();
        }
    }
    Ok(days)
}

/// Which of the days of checkpoints are wanted no more, `recent` being the first of the days of which all are. Those that
/// what is kept begins with, `base` or later, and of each month the first, are.
pub(super) fn unwanted(days: &BTreeSet<String>, recent: &str, base: Option<&str>) -> Vec<String> {
    let month = |day: &str| day.get(..7).map(str::to_owned);
    let mut firsts = BTreeSet::new();
    let unwanted = days.iter().filter(|day| {
        let first = firsts.insert(month(day));
        let needless = base.is_some_and(|base| day.as_str() < base);
        let sparse = !first && day.as_str() < recent && base != Some(day.as_str());
        needless || sparse
    });
    unwanted.cloned().collect()
}

/// What one is made of.
pub(super) struct Wanted {
    /// The history, with everything up to the end of the day.
    pub(super) history: DeltaTable,
    /// The day, UTC.
    pub(super) day: String,
    /// An epoch that nothing before the day's end is later than.
    pub(super) until: u64,
    /// The newest checkpoint before.
    pub(super) last: Option<String>,
    /// What is read for it, bytes: it has no more.
    pub(super) bytes: u64,
}

impl Wanted {
    /// A checkpoint of a day, if it is worth it.
    pub(super) fn worth(
        delta: &DeltaTable,
        history: &DeltaTable,
        day: String,
        until: u64,
    ) -> Result<Option<Wanted>, DeltaTableError> {
        let made = days(delta)?;
        let last = made.keys().next_back().cloned();
        let since = days(history)?;
        let since = since.iter().filter(|(d, _)| **d <= day && last.as_ref().is_none_or(|last| *d > last));
        let since = since
            .fold(Size::default(), |all, (_, size)| Size { rows: all.rows + size.rows, bytes: all.bytes + size.bytes });
        let before = last.as_ref().map_or(Size::default(), |last| made[last]);
        let worth = since.rows > 0 && since.rows as f64 >= before.rows as f64 * WORTH;
        let bytes = since.bytes + before.bytes;
        Ok(worth.then(|| Wanted { history: history.clone(), day, until, last, bytes }))
    }
}

/// Makes a checkpoint; how many rows it has.
pub(super) async fn checkpoint(
    table: LakeTable,
    delta: &DeltaTable,
    wanted: &Wanted,
) -> Result<usize, DeltaTableError> {
    let Wanted { day, until, .. } = wanted;
    let whole: Schema = delta.snapshot()?.schema().as_ref().try_into_arrow()?;
    let whole: SchemaRef = Arc::new(whole);
    let mut writer = RecordBatchWriter::for_table(delta)?
        .with_writer_properties(properties(table, &whole, GROUP_ROWS))
        .with_target_file_size(TARGET_BYTES);
    let held = held(table, delta, wanted)?;
    let mut held = held.execute_stream().await.map_err(failed)?;
    let mut rows = 0;
    while let Some(batch) = held.next().await {
        let batch = batch.map_err(failed)?;
        rows += batch.num_rows();
        let column = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
            match field.name() == DATE {
                true => Arc::new(StringArray::from(vec![day.as_str(); batch.num_rows()])),
                false => batch.column_by_name(field.name()).expect("a version has its history's columns").clone(),
            }
        };
        // What a table is partitioned by is read as dictionaries.
        let columns = whole.fields().iter().map(|field| cast(&column(field), field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        writer.write(RecordBatch::try_new(whole.clone(), columns)?).await?;
    }
    let added = writer.flush().await?;
    let named = Transaction::new(LakeTable::checkpoint_of(day), i64::try_from(*until).unwrap_or(i64::MAX));
    CommitBuilder::from(CommitProperties::default().with_application_transaction(named))
        .with_actions(added.into_iter().map(Action::Add).collect())
        .build(
            Some(delta.snapshot()?.snapshot()),
            delta.log_store(),
            DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: Some(PARTITIONED_BY.map(str::to_owned).to_vec()),
                predicate: None,
            },
        )
        .await?;
    Ok(rows)
}

/// The versions that held at the end of the day, in the order of files.
fn held(table: LakeTable, delta: &DeltaTable, wanted: &Wanted) -> Result<DataFrame, DeltaTableError> {
    let history = radarflow_lake::files(&wanted.history)?;
    let last = match &wanted.last {
        Some(day) => Some((day.as_str(), radarflow_lake::files(delta)?)),
        None => None,
    };
    held_of(table, history, last, &wanted.day).map_err(failed)
}

fn held_of(
    table: LakeTable,
    history: Arc<dyn TableProvider>,
    last: Option<(&str, Arc<dyn TableProvider>)>,
    day: &str,
) -> Result<DataFrame, DataFusionError> {
    let pool = Arc::new(FairSpillPool::new(MEMORY));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
    let session = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
    let names: Vec<String> = table.arriving().fields().iter().map(|f| f.name().clone()).collect();
    let columns = || names.iter().map(ident).collect::<Vec<_>>();
    let mut of_days = ident(DATE).lt_eq(lit(day));
    if let Some((last, _)) = &last {
        of_days = of_days.and(ident(DATE).gt(lit(*last)));
    }
    let mut versions = session.read_table(history)?.filter(of_days)?.select(columns())?;
    if let Some((last, checkpoints)) = last {
        let before = session.read_table(checkpoints)?.filter(ident(DATE).eq(lit(last)))?;
        versions = versions.union(before.select(columns())?)?;
    }
    let key = table.table().key().iter().map(|name| ident(*name)).collect();
    let newest = versions.clone().aggregate(key, vec![max(ident("row_id")).alias("__newest")])?;
    let newest = newest.select([ident("__newest")])?;
    let held = versions.join(newest, JoinType::LeftSemi, &["row_id"], &["__newest"], None)?;
    let tenant = PARTITIONED_BY[0];
    let sort = [tenant].into_iter().chain(order(table)).map(|name| ident(name).sort(true, true)).collect();
    held.filter(ident("gone").is_false())?.sort(sort)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(days: &[&str]) -> BTreeSet<String> {
        days.iter().map(|day| (*day).to_owned()).collect()
    }

    #[test]
    fn recent_ones_the_first_of_a_month_and_what_all_begins_with_are_wanted() {
        let days = set(&["2024-01-05", "2024-01-09", "2024-02-01", "2024-02-20", "2024-02-27", "2024-02-28"]);
        assert_eq!(unwanted(&days, "2024-02-25", None), ["2024-01-09", "2024-02-20"]);
        assert_eq!(unwanted(&days, "2024-02-25", Some("2024-02-20")), ["2024-01-05", "2024-01-09", "2024-02-01"]);
        assert_eq!(unwanted(&days, "2024-01-01", None), [""; 0]);
    }
}
