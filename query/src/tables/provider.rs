//! A state table as DataFusion reads it: what a condition wants of a column that is indexed is found, everything else is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};

use crate::tables::segment::Segment;

/// A state table's segments.
#[derive(Debug)]
pub(super) struct Segments {
    pub(super) schema: SchemaRef,
    pub(super) segments: Arc<Vec<Segment>>,
}

/// What a condition wants: that a text column, or what a map column has at a key, is one of some values.
struct Wanted<'a> {
    column: &'a str,
    key: Option<&'a str>,
    values: BTreeSet<&'a str>,
}

fn literal(value: &Expr) -> Option<&str> {
    match value {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// A column, or a key of one.
fn place(expr: &Expr) -> Option<(&str, Option<&str>)> {
    match expr {
        Expr::Column(column) => Some((&column.name, None)),
        // The first, and only, of the values that a map has at a key.
        Expr::ScalarFunction(first) if first.name() == "array_element" => match &first.args[..] {
            [Expr::ScalarFunction(values), Expr::Literal(ScalarValue::Int64(Some(1)), _)]
                if values.name() == "map_extract" =>
            {
                match &values.args[..] {
                    [Expr::Column(column), key] => Some((&column.name, Some(literal(key)?))),
                    _ => None,
                }
            }
            _ => None,
        },
        _ => None,
    }
}

fn wanted(condition: &Expr) -> Option<Wanted<'_>> {
    let (expr, values) = match condition {
        Expr::IsTrue(inner) => return wanted(inner),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => (left, BTreeSet::from([literal(right)?])),
        Expr::InList(InList { expr, list, negated: false }) => (expr, list.iter().map(literal).collect::<Option<_>>()?),
        _ => return None,
    };
    let (column, key) = place(expr)?;
    Some(Wanted { column, key, values })
}

#[async_trait::async_trait]
impl TableProvider for Segments {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> datafusion::logical_expr::TableType {
        datafusion::logical_expr::TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // What an index finds is looked at again.
        let answer = |filter: &&Expr| match wanted(filter) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn datafusion::catalog::Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
        let columns = projection.map(Vec::as_slice);
        let schema = match columns {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let parts = state.config().target_partitions().max(1);
        let mut partitions: Vec<Vec<RecordBatch>> = vec![Vec::new(); parts];
        let mut next = 0;
        for segment in self.segments.iter() {
            let found = filters.iter().filter_map(wanted).find_map(|wanted| match wanted.key {
                None => segment.find(wanted.column, &wanted.values),
                Some(key) => segment.find_at(wanted.column, key, &wanted.values),
            });
            let batches = match found {
                Some(rows) if rows.is_empty() => Vec::new(),
                Some(rows) => vec![segment.take(&rows, columns)?],
                None => segment.batches(columns)?,
            };
            for batch in batches {
                partitions[next % parts].push(batch);
                next += 1;
            }
        }
        Ok(datafusion::datasource::memory::MemorySourceConfig::try_new_exec(&partitions, schema, None)?)
    }
}
