//! What the log says of a file's columns, tried before the file is opened.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

/// Which files may have rows that satisfy the filters; `None` where nothing can be said.
pub(crate) fn possible(
    session: &dyn Session,
    schema: &TableSchema,
    log: &RecordBatch,
    filters: Vec<Expr>,
) -> Result<Option<BooleanArray>> {
    let Some(filter) = conjunction(filters) else { return Ok(None) };
    let whole = schema.table_schema();
    let filter = session.create_physical_expr(filter, &DFSchema::try_from(whole.as_ref().clone())?)?;
    let predicate = PruningPredicateBuilder::new().with_file_schema(whole.clone()).try_build(filter)?;
    if predicate.always_true() {
        return Ok(None);
    }
    let possible = predicate.prune(&Said { schema, log })?;
    Ok(Some(possible.into()))
}

struct Said<'a> {
    schema: &'a TableSchema,
    log: &'a RecordBatch,
}

impl Said<'_> {
    fn of(&self, what: &str, column: &Column) -> Option<ArrayRef> {
        let kind = self.schema.table_schema().field_with_name(&column.name).ok()?.data_type().clone();
        if let Some(values) = self.log.column_by_name(&format!("partition.{}", column.name)) {
            return cast(values, &kind).ok();
        }
        // What has no order that a minimum could have is asked for by nobody.
        let values = cast(self.log.column_by_name(&format!("{what}.{}", column.name))?, &kind).ok()?;
        match (what, &kind) {
            // The log may cut times to milliseconds (Delta protocol, per-file statistics).
            ("max", DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
                let values = values.as_primitive::<TimestampMicrosecondType>();
                let up = values.unary::<_, TimestampMicrosecondType>(|us| us.saturating_add(999));
                Some(Arc::new(up.with_timezone_opt(zone.clone())))
            }
            // In JSON neither is exact.
            (_, DataType::Decimal128(..) | DataType::Float32 | DataType::Float64)
            | ("max", DataType::Timestamp(..)) => None,
            _ => Some(values),
        }
    }
}

impl PruningStatistics for Said<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of("min", column)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of("max", column)
    }

    fn num_containers(&self) -> usize {
        self.log.num_rows()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let nulls = self.log.column_by_name(&format!("null_count.{}", column.name))?;
        cast(nulls, &DataType::UInt64).ok()
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        cast(self.log.column_by_name("num_records")?, &DataType::UInt64).ok()
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
