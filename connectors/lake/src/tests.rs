//! What is read through the files of a table is what was written, whatever is asked.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionContext, ident, lit};
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{StructField, StructType};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};

use super::*;

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("tenant", DataType::Utf8, true),
        Field::new("day", DataType::Utf8, true),
        Field::new("id", DataType::Decimal128(38, 0), true),
        Field::new("time", time, true),
        Field::new("host", DataType::Utf8, true),
        Field::new("bytes", DataType::Int64, true),
        Field::new("ratio", DataType::Float64, true),
    ]))
}

/// Rows of one file: of a tenant and a day, `n` of them, some columns null now and then.
fn rows(tenant: &str, day: i64, n: i64, seed: i64) -> RecordBatch {
    let all = |of: &dyn Fn(i64) -> i64| (0..n).map(of).collect::<Vec<i64>>();
    // Microseconds within a millisecond, which the log may cut.
    let times = all(&|i| day * 86_400_000_000 + seed * 1_000_000 + i * 777 + 999);
    // Neighbours above 2^53 and beyond 2^64.
    let id = |i: i64| (1_i128 << 90) + i128::from(seed * 100 + i);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![tenant; n as usize])),
        Arc::new(StringArray::from(vec![format!("2024-01-{:02}", day + 1); n as usize])),
        Arc::new(Decimal128Array::from_iter_values((0..n).map(id)).with_precision_and_scale(38, 0).unwrap()),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(StringArray::from_iter((0..n).map(|i| (i % 3 > 0).then(|| format!("host-{}", (seed + i) % 17))))),
        Arc::new(Int64Array::from_iter((0..n).map(|i| ((seed + i) % 5 > 0).then_some(seed * 10 + i)))),
        Arc::new(Float64Array::from_iter_values((0..n).map(|i| (seed * i) as f64 / 4.0))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// A table of files, and their rows in memory.
async fn table(root: &std::path::Path) -> (DeltaTable, Vec<RecordBatch>) {
    let columns: StructType = schema().as_ref().try_into_kernel().unwrap();
    let url = deltalake::table::builder::ensure_table_uri(root.to_string_lossy()).unwrap();
    let table = DeltaTable::try_from_url(url).await.unwrap();
    let mut table =
        table.create().with_columns(columns.fields().cloned()).with_partition_columns(["tenant", "day"]).await.unwrap();
    let mut all = Vec::new();
    for (seed, (tenant, day)) in [("a", 0), ("a", 0), ("a", 1), ("b / c", 1), ("b / c", 2), ("ü", 2)].iter().enumerate()
    {
        let batch = rows(tenant, *day, 7 + seed as i64, seed as i64 * 3);
        let mut writer = RecordBatchWriter::for_table(&table).unwrap();
        writer.write(batch.clone()).await.unwrap();
        writer.flush_and_commit(&mut table).await.unwrap();
        all.push(batch);
    }
    (table, all)
}

/// How many files a plan reads.
async fn files_read(session: &SessionContext, table: &DeltaTable, filter: Expr) -> usize {
    let rows = session.read_table(files(table).unwrap()).unwrap().filter(filter).unwrap();
    let plan = rows.create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(true).to_string().matches(".parquet").count()
}

async fn answer(session: &SessionContext, provider: Arc<dyn TableProvider>, filter: &Expr) -> String {
    let columns: Vec<Expr> =
        schema().fields().iter().map(|f| datafusion::prelude::cast(ident(f.name()), f.data_type().clone())).collect();
    let columns = columns.into_iter().zip(schema().fields()).map(|(e, f)| e.alias(f.name())).collect::<Vec<_>>();
    let rows = session.read_table(provider).unwrap().filter(filter.clone()).unwrap().select(columns).unwrap();
    let rows = rows.sort_by(vec![ident("id"), ident("tenant"), ident("time")]).unwrap();
    pretty_format_batches(&rows.collect().await.unwrap()).unwrap().to_string()
}

fn at(us: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
}

fn id(value: i128) -> Expr {
    lit(ScalarValue::Decimal128(Some(value), 38, 0))
}

#[tokio::test]
async fn whatever_is_asked_is_answered_as_from_memory() {
    let root = tempfile::tempdir().unwrap();
    let (table, batches) = table(root.path()).await;
    let memory = Arc::new(MemTable::try_new(schema(), vec![batches.clone()]).unwrap());
    let session = SessionContext::new();
    let mut single = vec![
        lit(true),
        ident("tenant").eq(lit("a")),
        ident("tenant").not_eq(lit("a")),
        ident("tenant").eq(lit("b / c")),
        ident("tenant").in_list(vec![lit("a"), lit("ü")], false),
        ident("day").gt(lit("2024-01-01")),
        ident("day").is_null(),
        ident("tenant").eq(lit("a")).or(ident("bytes").gt(lit(40_i64))),
        ident("tenant").like(lit("%/%")),
        ident("host").eq(lit("host-4")),
        ident("host").is_null(),
        ident("host").not_like(lit("host-1%")),
        ident("bytes").is_null(),
        ident("bytes").gt_eq(lit(90_i64)),
        ident("bytes").between(lit(31_i64), lit(33_i64)),
        ident("ratio").gt(lit(100.0)),
        ident("ratio").eq(lit(3.0)),
    ];
    // At, just before and just after each edge of what a file has.
    for batch in &batches {
        let times = batch.column_by_name("time").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let ids = batch.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Decimal128Type>();
        for row in [0, batch.num_rows() - 1] {
            for off in [-1, 0, 1] {
                single.push(ident("time").gt_eq(at(times.value(row) + off)));
                single.push(ident("time").lt(at(times.value(row) + off)));
                single.push(ident("time").eq(at(times.value(row) + off)));
                single.push(ident("id").eq(id(ids.value(row) + i128::from(off))));
                single.push(ident("id").gt(id(ids.value(row) + i128::from(off))));
            }
        }
    }
    let mut asked = single.clone();
    asked.extend(single.iter().zip(single.iter().rev()).map(|(a, b)| a.clone().and(b.clone())));
    for filter in asked {
        let expected = answer(&session, memory.clone(), &filter).await;
        assert_eq!(answer(&session, files(&table).unwrap(), &filter).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn files_that_cannot_have_a_row_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    let (table, batches) = table(root.path()).await;
    let session = SessionContext::new();
    assert_eq!(files_read(&session, &table, lit(true)).await, 6);
    assert_eq!(files_read(&session, &table, ident("tenant").eq(lit("a"))).await, 3);
    assert_eq!(
        files_read(&session, &table, ident("tenant").eq(lit("a")).and(ident("day").eq(lit("2024-01-02")))).await,
        1
    );
    assert_eq!(files_read(&session, &table, ident("tenant").eq(lit("nobody"))).await, 0);
    assert_eq!(files_read(&session, &table, ident("bytes").gt(lit(150_i64))).await, 1);
    let last = batches[5].column_by_name("time").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(files_read(&session, &table, ident("time").gt_eq(at(last.value(last.len() - 1)))).await, 1);
}

#[tokio::test]
async fn a_column_that_older_files_lack_is_null_in_their_rows() {
    let root = tempfile::tempdir().unwrap();
    let (table, batches) = table(root.path()).await;
    let new = StructField::new("added", deltalake::kernel::DataType::STRING, true);
    let table = table.add_columns().with_fields(vec![new]).await.unwrap();
    let session = SessionContext::new();
    let count = |filter: Expr| {
        let rows = session.read_table(files(&table).unwrap()).unwrap().filter(filter).unwrap();
        async { rows.count().await.unwrap() }
    };
    let all: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(count(ident("added").is_null()).await, all);
    assert_eq!(count(ident("added").eq(lit("x"))).await, 0);
    assert_eq!(session.read_table(files(&table).unwrap()).unwrap().count().await.unwrap(), all);
}

#[tokio::test]
async fn a_table_without_a_version_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let url = deltalake::table::builder::ensure_table_uri(root.path().to_string_lossy()).unwrap();
    assert!(files(&DeltaTable::try_from_url(url).await.unwrap()).is_err());
}
