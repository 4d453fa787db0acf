//! Small files of a lake's table become large ones, in the order of their rows.
//!
//! ```text
//! tier(f)  = how often eight of the smallest make one of f's size
//! due(p)   = of an open day: eight files of one tier; of a day that is over: two that are not full
//! merged   = sort-preserving merge of at most [`MAX_FILES`] of them by (partition, time), cut at [`TARGET_BYTES`]
//! commit   = remove the old, add the new, dataChange = false
//! ```
//! So a row of an open day is rewritten a logarithmic number of times, and once more when its day is over. It runs on a
//! thread of its own, beside the table's commits: they append, it replaces, and neither is in the other's way. Where it is
//! interrupted, files are left that no version names; the vacuum takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::ident;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Remove};
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::metadata::SortingColumn;
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::parquet::schema::types::ColumnPath;
use deltalake::protocol::DeltaOperation;
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableError};
use futures::StreamExt;
use radarflow_lake::failed;
use radarflow_proto::lake::{DATE, LakeTable};

/// What a file should have, bytes.
pub(super) const TARGET_BYTES: u64 = 128 << 20;
/// Files that are merged at once.
const MAX_FILES: usize = 32;
/// Bytes that are merged at once.
const MAX_BYTES: u64 = 1 << 30;
/// Files of one tier of an open day that are worth it.
const TIER: usize = 8;
/// Files below it are of the lowest tier, bytes.
const LOWEST_BYTES: u64 = 256 << 10;
/// Rows of a row group.
pub(super) const GROUP_ROWS: usize = 1 << 17;
/// Rows that an input of a merge holds at once.
const BATCH_ROWS: usize = 2048;

/// Columns that a table is partitioned by; its files do not have them.
pub(super) const PARTITIONED_BY: [&str; 2] = ["tenant_id", DATE];

/// The order of rows in a file.
pub(super) fn order(table: LakeTable) -> [&'static str; 2] {
    ["partition", table.time_column()]
}

/// How files of so many rows of such columns are written: compressed, with the order that their rows have, and with bloom
/// filters of what is looked for, which are folded to the size that they need.
pub(super) fn properties(table: LakeTable, schema: &Schema, rows: usize) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    let mut leaf = 0;
    let mut sorted: [Option<SortingColumn>; 2] = [None, None];
    for field in schema.fields().iter().filter(|f| !PARTITIONED_BY.contains(&f.name().as_str())) {
        if let Some(place) = order(table).iter().position(|name| name == field.name()) {
            sorted[place] = Some(SortingColumn { column_idx: leaf, descending: false, nulls_first: true });
        }
        if table.sought().contains(&field.name().as_str()) {
            let column = ColumnPath::from(field.name().as_str());
            let values = rows.clamp(1, GROUP_ROWS) as u64;
            properties = properties
                .set_column_bloom_filter_enabled(column.clone(), true)
                .set_column_bloom_filter_max_ndv(column, values);
        }
        leaf += leaves(field.data_type());
    }
    let sorted: Option<Vec<SortingColumn>> = sorted.into_iter().collect();
    properties.set_sorting_columns(sorted).build()
}

/// Columns that a file has for one of a type.
fn leaves(kind: &DataType) -> i32 {
    match kind {
        DataType::Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => leaves(item.data_type()),
        _ => 1,
    }
}

/// Files of one partition of a table that are to become fewer.
pub(super) struct Plan {
    /// The partition's columns, as [`PARTITIONED_BY`] names them.
    values: [String; 2],
    files: Vec<Small>,
}

struct Small {
    path: deltalake::Path,
    bytes: u64,
    rows: usize,
    remove: Remove,
}

impl Plan {
    /// What it takes on disk while the old files are there, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

fn tier(bytes: u64) -> u32 {
    (bytes / LOWEST_BYTES).max(1).ilog(TIER as u64)
}

/// The files that are most worth it, if any are, on a day.
pub(super) fn plan(delta: &DeltaTable, today: &str) -> Result<Option<Plan>, DeltaTableError> {
    let mut partitions: BTreeMap<[String; 2], Vec<Small>> = BTreeMap::new();
    for file in delta.snapshot()?.log_data().iter() {
        let bytes = file.size() as u64;
        // Two of them would be more than one should have.
        if bytes > TARGET_BYTES / 2 {
            continue;
        }
        // One that does not say how many rows it has could not be told to be whole.
        let Some(rows) = file.num_records() else { continue };
        let values = file.partition_values_map();
        let values = PARTITIONED_BY.map(|name| values.get(name).cloned().flatten().unwrap_or_default());
        let small = Small { path: file.object_store_path(), bytes, rows, remove: file.remove_action(false) };
        partitions.entry(values).or_default().push(small);
    }
    let worth = |(values, files): ([String; 2], Vec<Small>)| {
        if *values[1] < *today {
            return (files.len() >= 2).then_some(Plan { values, files });
        }
        let mut tiers: BTreeMap<u32, Vec<Small>> = BTreeMap::new();
        files.into_iter().for_each(|file| tiers.entry(tier(file.bytes)).or_default().push(file));
        let (_, files) = tiers.into_iter().find(|(_, files)| files.len() >= TIER)?;
        Some(Plan { values, files })
    };
    let mut plans: Vec<Plan> = partitions.into_iter().filter_map(worth).collect();
    plans.sort_by_key(|plan| (*plan.values[1] >= *today, std::cmp::Reverse(plan.files.len())));
    let Some(mut plan) = plans.into_iter().next() else { return Ok(None) };
    plan.files.sort_by_key(|file| file.bytes);
    let mut bytes = 0;
    plan.files.retain(|file| {
        bytes += file.bytes;
        bytes <= MAX_BYTES
    });
    plan.files.truncate(MAX_FILES);
    Ok((plan.files.len() >= 2).then_some(plan))
}

/// Merges the files; how many there were, and how many are there now.
pub(super) async fn compact(
    table: LakeTable,
    delta: &DeltaTable,
    plan: Plan,
) -> Result<(usize, usize), DeltaTableError> {
    let kernel = delta.snapshot()?.schema();
    let whole: Schema = kernel.as_ref().try_into_arrow()?;
    let in_files = |f: &&Arc<arrow::datatypes::Field>| !PARTITIONED_BY.contains(&f.name().as_str());
    let held = Schema::new(whole.fields().iter().filter(in_files).cloned().collect::<Vec<_>>());
    let whole: SchemaRef = Arc::new(whole);

    let rows: usize = plan.files.iter().map(|file| file.rows).sum();
    let mut writer = RecordBatchWriter::for_table(delta)?
        .with_writer_properties(properties(table, &whole, rows))
        .with_target_file_size(TARGET_BYTES);
    let merged = merged(table, delta, &plan, &held).await.map_err(failed)?;
    let mut merged = merged.execute_stream().await.map_err(failed)?;
    let mut read = 0;
    while let Some(batch) = merged.next().await {
        let batch = batch.map_err(failed)?;
        read += batch.num_rows();
        let column = |f: &Arc<arrow::datatypes::Field>| -> ArrayRef {
            match PARTITIONED_BY.iter().position(|name| name == f.name()) {
                Some(place) => Arc::new(StringArray::from(vec![plan.values[place].as_str(); batch.num_rows()])),
                None => batch.column_by_name(f.name()).expect("files are read with the table's columns").clone(),
            }
        };
        writer.write(RecordBatch::try_new(whole.clone(), whole.fields().iter().map(column).collect())?).await?;
    }
    let written = writer.flush().await?;
    // Whatever the reason, nothing is replaced by less.
    let kept: usize = written.iter().map(rows_of).sum();
    if read != rows || kept != rows {
        return Err(DeltaTableError::Generic(format!("of {rows} rows {read} were read and {kept} written")));
    }
    let counts = (plan.files.len(), written.len());
    let removed = plan.files.into_iter().map(|file| Action::Remove(file.remove));
    let added = written.into_iter().map(|add| Action::Add(Add { data_change: false, ..add }));
    CommitBuilder::from(CommitProperties::default())
        .with_actions(removed.chain(added).collect())
        .build(
            Some(delta.snapshot()?.snapshot()),
            delta.log_store(),
            DeltaOperation::Optimize { predicate: None, target_size: TARGET_BYTES as i64 },
        )
        .await?;
    Ok(counts)
}

fn rows_of(file: &Add) -> usize {
    file.get_stats().ok().flatten().map_or(0, |stats| stats.num_records as usize)
}

/// The rows of the files in their order. Files say in which order their rows are; those that do not are sorted.
async fn merged(
    table: LakeTable,
    delta: &DeltaTable,
    plan: &Plan,
    held: &Schema,
) -> Result<DataFrame, DataFusionError> {
    let config = SessionConfig::new()
        .with_target_partitions(plan.files.len())
        .with_batch_size(BATCH_ROWS)
        .with_repartition_file_scans(false)
        .with_repartition_sorts(true)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let session = SessionContext::new_with_config(config);
    radarflow_lake::register_store(&session.state(), delta);
    let paths = plan.files.iter().map(|file| {
        let mut url = delta.log_store().root_url().clone();
        let segments = url.path_segments_mut().expect("a table's URL has a path");
        { segments }.pop_if_empty().extend(file.path.parts().map(|part| part.as_ref().to_owned()));
        url.to_string()
    });
    let files = session.read_parquet(paths.collect::<Vec<_>>(), ParquetReadOptions::default().schema(held)).await?;
    files.sort(order(table).map(|name| ident(name).sort(true, true)).into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datafusion::physical_plan::displayable;
    use deltalake::parquet::file::reader::{FileReader, SerializedFileReader};
    use deltalake::parquet::record::RowAccessor;
    use radarflow_proto::cell::{RowId, Time};
    use radarflow_proto::rows::{BatchBuilder, Log, LogBatch, Table};

    use super::*;
    use crate::sinks::lake::{APPLICATION, Keep, Writer};

    const LOGS: LakeTable = LakeTable::Events(Table::Log);
    const NOON_US: i64 = 1_704_110_400_000_000;

    fn line(epoch: u64, tenant: &str, partition: &str, at_us: i64) -> Log {
        Log {
            tenant_id: tenant.into(),
            partition: partition.into(),
            row_id: RowId::new(epoch, 0, 0),
            epoch: epoch as i64,
            time: Time(at_us),
            received_at: Time(at_us),
            source_ip: Some("10.0.0.1".parse().unwrap()),
            body: format!("line {epoch}"),
            parse_status: "rfc5424".into(),
            device_uid: Some("sr:a".into()),
            ..Log::default()
        }
    }

    async fn commit(writer: &mut Writer, epoch: u64, tenant: &str) {
        let mut batch = LogBatch::default();
        // Later epochs have the earlier times, and two partitions each.
        for partition in ["a", "b"] {
            batch.push(&line(epoch, tenant, partition, NOON_US - epoch as i64));
        }
        writer.take(epoch, batch.finish());
        writer.commit().await.unwrap();
    }

    /// (partition, time) of the rows of the one file of a tenant's day.
    fn rows(root: &Path, delta: &DeltaTable, tenant: &str) -> Vec<(String, i64)> {
        let of = |tenant: &str| delta.get_file_uris().unwrap().filter(|uri| uri.contains(tenant)).collect::<Vec<_>>();
        let [file] = &of(&format!("tenant_id={tenant}"))[..] else { panic!("not one file: {:?}", of(tenant)) };
        let name = file.rsplit("logs/").next().unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(root.join("logs").join(name)).unwrap()).unwrap();
        let groups = reader.metadata().row_groups();
        let column = |name: &str| {
            let found = groups[0].columns().iter().find(|c| c.column_path().string() == name);
            found.unwrap_or_else(|| panic!("no column {name}"))
        };
        assert!(
            column("source_ip").bloom_filter_offset().is_some() && column("device_uid").bloom_filter_offset().is_some()
        );
        assert!(column("body").bloom_filter_offset().is_none());
        let sorted = groups[0].sorting_columns().unwrap();
        let names = sorted.iter().map(|c| groups[0].column(c.column_idx as usize).column_path().string());
        assert_eq!(names.collect::<Vec<_>>(), order(LOGS));
        let place = |name: &str| groups[0].columns().iter().position(|c| c.column_path().string() == name).unwrap();
        let (partition, time) = (place("partition"), place("time"));
        reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap())
            .map(|row| (row.get_string(partition).unwrap().clone(), row.get_timestamp_micros(time).unwrap()))
            .collect()
    }

    #[tokio::test]
    async fn small_files_become_one_in_the_order_of_rows_beside_commits() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&crate::disk::os(), root.path(), LOGS, Keep::default()).await.unwrap();
        for epoch in 1..=TIER as u64 {
            assert!(plan(&writer.delta, "2024-01-01").unwrap().is_none(), "too few to be worth it on an open day");
            commit(&mut writer, epoch, "odd tenant=100%").await;
            if epoch < 3 {
                commit(&mut writer, 100 + epoch, "other").await;
                writer.committed = epoch;
            }
        }
        let planned = plan(&writer.delta, "2024-01-01").unwrap().unwrap();
        assert_eq!((planned.files.len(), planned.values[0].as_str()), (TIER, "odd tenant=100%"));
        let whole: Schema = writer.delta.snapshot().unwrap().schema().as_ref().try_into_arrow().unwrap();
        let held: Vec<_> =
            whole.fields().iter().filter(|f| !PARTITIONED_BY.contains(&f.name().as_str())).cloned().collect();
        let merge = merged(LOGS, &writer.delta, &planned, &Schema::new(held)).await.unwrap();
        let how = displayable(merge.create_physical_plan().await.unwrap().as_ref()).indent(false).to_string();
        assert!(how.contains("SortPreservingMergeExec") && !how.contains("SortExec"), "{how}");
        // A commit is made between what it read and its own.
        let before = writer.delta.clone();
        commit(&mut writer, 200, "late").await;
        assert_eq!(compact(LOGS, &before, planned).await.unwrap(), (TIER, 1));
        commit(&mut writer, 201, "later").await;
        let again = Writer::open(&crate::disk::os(), root.path(), LOGS, Keep::default()).await.unwrap();
        assert_eq!((again.committed, again.delta.get_file_uris().unwrap().count()), (201, 5));
        let expected = |epochs: &[u64]| -> Vec<(String, i64)> {
            let of = |p: &str| epochs.iter().rev().map(|e| (p.to_owned(), NOON_US - *e as i64)).collect::<Vec<_>>();
            [of("a"), of("b")].concat()
        };
        assert_eq!(rows(root.path(), &again.delta, "odd"), expected(&(1..=TIER as u64).collect::<Vec<_>>()));
        // Once the day is over, two are enough, and one is no more merged.
        let mut merged = 0;
        let mut delta = again.delta;
        while let Some(planned) = plan(&delta, "2024-01-02").unwrap() {
            assert_eq!(compact(LOGS, &delta, planned).await.unwrap(), (2, 1));
            delta.update_state().await.unwrap();
            merged += 1;
        }
        assert_eq!((merged, delta.get_file_uris().unwrap().count()), (1, 4));
        assert_eq!(rows(root.path(), &delta, "other"), expected(&[101, 102]));
        let known =
            delta.snapshot().unwrap().transaction_version(delta.log_store().as_ref(), APPLICATION).await.unwrap();
        assert_eq!(known, Some(201), "what is committed is known as before");
    }
}
