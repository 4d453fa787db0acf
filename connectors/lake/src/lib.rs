//! A version of a Delta table, as DataFusion reads it.
//!
//! ```text
//! scan(filters) = parquet files of the version, whose partition satisfies the filters on partition columns,
//!                 and whose statistics do not rule the other filters out
//! ```
//! Filters on partition columns are exact: they are evaluated on one row a file. The others are tried on the minimum and
//! maximum that the log has of each column of a file (`PruningPredicate`), and stay in the plan.
//!
//! A table has its file columns first and its partition columns, as dictionaries, last. Text and bytes are read as the
//! table declares them. A column that a file lacks is null. Deletion vectors are refused: nothing here writes them.
//!
//! ```
//! # async fn example(table: deltalake::DeltaTable) -> Result<(), Box<dyn std::error::Error>> {
//! use datafusion::prelude::{SessionContext, ident, lit};
//!
//! let rows = SessionContext::new().read_table(radarflow_lake::files(&table)?)?;
//! let of_a_day = rows.filter(ident("date").eq(lit("2024-01-01")))?.count().await?;
//! # let _ = of_a_day; Ok(()) }
//! ```

mod prune;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{and, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{ObjectMeta, ObjectStore};
use deltalake::{DeltaTable, DeltaTableError};
use url::{Position, Url};

/// The files of a table's version.
///
/// # Errors
/// Fails where the table has no version, or one that cannot be read as plain files (deletion vectors).
pub fn files(table: &DeltaTable) -> std::result::Result<Arc<dyn TableProvider>, DeltaTableError> {
    Files::of(table).map(|files| Arc::new(files) as Arc<dyn TableProvider>)
}

/// Registers a table's store, for plans that name its files themselves.
pub fn register_store(session: &dyn Session, table: &DeltaTable) {
    let root = table.log_store().root_url().clone();
    // DataFusion has the local file system of itself.
    if root.scheme() != "file" {
        session.runtime_env().register_object_store(&root, table.log_store().root_object_store(None));
    }
}

/// An error of a plan, where errors of tables are told.
pub fn failed(error: DataFusionError) -> DeltaTableError {
    DeltaTableError::GenericError { source: Box::new(error) }
}

/// See the crate.
#[derive(Debug)]
struct Files {
    schema: TableSchema,
    /// Where the store begins, without a path.
    store_url: ObjectStoreUrl,
    /// The store, where DataFusion does not know it of itself.
    store: Option<(Url, Arc<dyn ObjectStore>)>,
    /// The table's folder in the store.
    root: Path,
    /// A row a file: `path`, `size_bytes`, `modification_time`, `num_records`, and what the log says of its columns.
    log: RecordBatch,
    /// The partition columns, a row a file.
    partitions: RecordBatch,
}

impl Files {
    fn of(table: &DeltaTable) -> std::result::Result<Files, DeltaTableError> {
        let snapshot = table.snapshot()?;
        let whole: Schema = snapshot.schema().as_ref().try_into_arrow()?;
        let by = snapshot.metadata().partition_columns();
        let log = snapshot.add_actions_table(true)?;
        if log.column_by_name("deletion_vector.storageType").is_some_and(|c| c.null_count() < c.len()) {
            return Err(DeltaTableError::Generic("deletion vectors cannot be read".to_owned()));
        }
        let is_partition = |field: &&FieldRef| by.contains(field.name());
        let held: Vec<FieldRef> = whole.fields().iter().filter(|f| !is_partition(f)).cloned().collect();
        let partitioned: Vec<&FieldRef> =
            by.iter().filter_map(|name| whole.fields().find(name).map(|(_, f)| f)).collect();
        let of_partition = |field: &&FieldRef| match log.column_by_name(&format!("partition.{}", field.name())) {
            Some(values) => arrow::compute::cast(values, field.data_type()),
            None => Ok(arrow::array::new_null_array(field.data_type(), log.num_rows())),
        };
        let values: Vec<ArrayRef> = partitioned.iter().map(of_partition).collect::<std::result::Result<_, _>>()?;
        let plain: Vec<Field> = partitioned.iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(log.num_rows()));
        let partitions = RecordBatch::try_new_with_options(Arc::new(Schema::new(plain)), values, &options)?;
        let dictionary = |f: &&FieldRef| -> FieldRef {
            let kind = DataType::Dictionary(DataType::UInt16.into(), f.data_type().clone().into());
            Arc::new(Field::new(f.name(), kind, f.is_nullable()))
        };
        let schema = TableSchema::builder(Arc::new(Schema::new(held)))
            .with_table_partition_cols(partitioned.iter().map(dictionary).collect::<Vec<_>>())
            .build();
        let url = table.log_store().root_url().clone();
        let store_url =
            ObjectStoreUrl::parse(&url[..Position::BeforePath]).map_err(|e| DeltaTableError::Generic(e.to_string()))?;
        let root = Path::from_url_path(url.path()).map_err(|e| DeltaTableError::Generic(e.to_string()))?;
        let store = (url.scheme() != "file").then(|| (url.clone(), table.log_store().root_object_store(None)));
        Ok(Files { schema, store_url, store, root, log, partitions })
    }

    fn is_exact(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        let partitions = self.partitions.schema();
        !columns.is_empty() && !filter.is_volatile() && columns.iter().all(|c| partitions.index_of(&c.name).is_ok())
    }

    /// The files that may have rows that satisfy the filters.
    fn wanted(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let (exact, others): (Vec<Expr>, Vec<Expr>) = filters.iter().cloned().partition(|f| self.is_exact(f));
        let mut wanted = None;
        if let Some(exact) = conjunction(exact) {
            let schema = DFSchema::try_from(self.partitions.schema())?;
            let held = session.create_physical_expr(exact, &schema)?.evaluate(&self.partitions)?;
            let held = held.into_array(self.partitions.num_rows())?;
            // What is unknown is not held.
            wanted = Some(match held.null_count() {
                0 => held.as_boolean().clone(),
                _ => prep_null_mask_filter(held.as_boolean()),
            });
        }
        if let Some(possible) = prune::possible(session, &self.schema, &self.log, others)? {
            wanted = Some(match wanted {
                Some(held) => and(&held, &possible)?,
                None => possible,
            });
        }
        let (log, partitions) = match &wanted {
            Some(wanted) => (filter_record_batch(&self.log, wanted)?, filter_record_batch(&self.partitions, wanted)?),
            None => (self.log.clone(), self.partitions.clone()),
        };
        let column = |name: &str| {
            let column = log.column_by_name(name);
            column.ok_or_else(|| DataFusionError::Internal(format!("the log of a table has no column {name}")))
        };
        let paths = arrow::compute::cast(column("path")?, &DataType::Utf8)?;
        let (sizes, times) = (column("size_bytes")?.clone(), column("modification_time")?.clone());
        let times = arrow::compute::cast(&times, &DataType::Int64)?;
        let (paths, sizes) = (paths.as_string::<i32>(), sizes.as_primitive::<Int64Type>());
        let times = times.as_primitive::<Int64Type>();
        let file = |row: usize| {
            // Paths are URLs in the log (Delta protocol, add file).
            let path = Path::from_url_path(paths.value(row)).unwrap_or_else(|_| Path::from(paths.value(row)));
            let meta = ObjectMeta {
                location: self.root.parts().chain(path.parts()).collect(),
                last_modified: chrono::DateTime::from_timestamp_millis(times.value(row)).unwrap_or_default(),
                size: sizes.value(row).unsigned_abs(),
                e_tag: None,
                version: None,
            };
            let value = |column: &ArrayRef| {
                let value = ScalarValue::try_from_array(column, row)?;
                Ok(ScalarValue::Dictionary(DataType::UInt16.into(), value.into()))
            };
            let values = partitions.columns().iter().map(value).collect::<Result<Vec<_>>>()?;
            Ok(PartitionedFile::new_from_meta(meta).with_partition_values(values))
        };
        (0..log.num_rows()).map(file).collect()
    }

    /// How many rows the files have, if the log says so of each.
    fn rows(&self) -> Precision<usize> {
        let Some(rows) = self.log.column_by_name("num_records").filter(|c| c.null_count() == 0) else {
            return Precision::Absent;
        };
        let rows = rows.as_primitive_opt::<Int64Type>().map(|rows| rows.values().iter().sum::<i64>());
        rows.map_or(Precision::Absent, |rows| Precision::Exact(rows.unsigned_abs() as usize))
    }
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match self.is_exact(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(Statistics { num_rows: self.rows(), ..Statistics::new_unknown(&self.schema()) })
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.wanted(session, filters)?;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)));
        }
        if let Some((url, store)) = &self.store {
            session.runtime_env().register_object_store(url, store.clone());
        }
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let source = Arc::new(ParquetSource::new(self.schema.clone()));
        let scan = FileScanConfigBuilder::new(self.store_url.clone(), source)
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        let format = ParquetFormat::default().with_options(session.table_options().parquet.clone());
        format.create_physical_plan(session, scan).await
    }
}
