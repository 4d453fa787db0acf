//! Runs a plan for one page: what lies beyond the cursor, in order, as many rows as are asked for. One more is looked for,
//! which tells whether another page follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::{self, take_record_batch};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, SchemaRef};
use datafusion::logical_expr::{Expr, cast, ident, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::Table;

use crate::engine::bytes;
use crate::engine::cursor::Cursor;
use crate::engine::scanned::{Scanned, collect};
use crate::error::SrqlError;
use crate::error::{QueryError, failed};
use crate::srql::ast;
use crate::srql::plan::{Planned, series};
use crate::srql::time::Range;
use crate::tables::segment::is_indexed;

/// Rows of a table from which on the keys of a page are found before its rows are.
pub(crate) const NARROW_FIRST: usize = 20_000;

/// A page.
pub(crate) struct Executed {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) schema: SchemaRef,
    /// What the first and the last row are sorted by.
    pub(crate) edges: Option<(Vec<Option<String>>, Vec<Option<String>>)>,
    pub(crate) limit: Option<usize>,
    pub(crate) range: Option<Range>,
    pub(crate) warnings: Vec<String>,
    pub(crate) truncated: bool,
    pub(crate) units: BTreeMap<String, &'static str>,
    pub(crate) scanned: Scanned,
}

/// How a value of a sort column travels in a cursor: as text that casts back.
fn carried(column: &ArrayRef, row: usize) -> Result<Option<String>, ArrowError> {
    let value = column.slice(row, 1);
    let value = match value.data_type() {
        DataType::Timestamp(..) => compute::cast(&value, &DataType::Int64)?,
        _ => value,
    };
    let text = compute::cast(&value, &DataType::Utf8)?;
    let text: &StringArray = text.as_string();
    Ok(text.is_valid(0).then(|| text.value(0).to_owned()))
}

fn carried_back(text: &str, data_type: &DataType) -> Expr {
    match data_type {
        DataType::Timestamp(..) => cast(cast(lit(text), DataType::Int64), data_type.clone()),
        _ => cast(lit(text), data_type.clone()),
    }
}

/// Rows beyond a row in the order: after it, or before it. Missing values come last either way.
fn beyond(order: &[(String, bool)], edge: &[Option<String>], types: &[DataType], back: bool) -> Expr {
    let mut any = lit(false);
    let mut equal = lit(true);
    for (((name, ascending), value), data_type) in order.iter().zip(edge).zip(types) {
        let column = ident(name);
        match value {
            Some(value) => {
                let value = carried_back(value, data_type);
                let greater = *ascending != back;
                let one = if greater { column.clone().gt(value.clone()) } else { column.clone().lt(value.clone()) };
                let mut one = one.is_true();
                if !back {
                    one = one.or(column.clone().is_null());
                }
                any = any.or(equal.clone().and(one));
                equal = equal.and(column.eq(value).is_true());
            }
            None => {
                if back {
                    any = any.or(equal.clone().and(column.clone().is_not_null()));
                }
                equal = equal.and(column.is_null());
            }
        }
    }
    any
}

/// Rows in the opposite order.
fn reversed(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    let reverse = |batch: &RecordBatch| {
        let rows: UInt64Array = (0..batch.num_rows() as u64).rev().collect();
        take_record_batch(batch, &rows)
    };
    batches.iter().rev().map(reverse).collect()
}

/// The rows of a series by time, and of one time by the series.
fn oldest_first(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let rows = compute::concat_batches(schema, batches)?;
    let options = Some(compute::SortOptions { descending: false, nulls_first: false });
    let by = rows.columns().iter().take(2).map(|values| compute::SortColumn { values: values.clone(), options });
    let order = compute::lexsort_to_indices(&by.collect::<Vec<_>>(), None)?;
    take_record_batch(&rows, &order)
}

/// A plan in its final shape: what is beyond the cursor, in order, as many as are asked for and one more.
pub(crate) struct Shaped {
    pub(crate) frame: DataFrame,
    /// Columns that are shown, the first ones.
    shown: usize,
    /// Where the columns of the order are, if pages can follow.
    keys: Vec<usize>,
}

pub(crate) fn shape(planned: Planned, cursor: Option<&Cursor>) -> Result<Shaped, QueryError> {
    let Planned { mut frame, columns, order, limit, pages, .. } = planned;
    let types: Vec<DataType> = order
        .iter()
        .map(|(name, _)| frame.schema().field_with_unqualified_name(name).map(|f| f.data_type().clone()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if let Some(cursor) = cursor {
        if cursor.edge.len() != order.len() || !pages {
            return Err(QueryError::Cursor("the cursor belongs to another query"));
        }
        frame = frame.filter(beyond(&order, &cursor.edge, &types, cursor.back)).map_err(failed)?;
    }
    // The page before is the last rows of those before: the first ones backwards.
    let back = cursor.is_some_and(|c| c.back);
    if !order.is_empty() {
        let sort = order.iter().map(|(name, ascending)| ident(name).sort(*ascending != back, back)).collect();
        frame = frame.sort(sort).map_err(failed)?;
    }
    if let Some(limit) = limit {
        frame = frame.limit(0, Some(limit + 1)).map_err(failed)?;
    }
    let mut select: Vec<Expr> = Vec::new();
    for name in &columns {
        let field = frame.schema().field_with_unqualified_name(name).map_err(failed)?;
        select.push(match field.data_type() {
            // Row ids are names: they come back as text, to their last digit.
            DataType::Decimal128(..) => cast(ident(name), DataType::Utf8).alias(name),
            DataType::List(item) if matches!(item.data_type(), DataType::Decimal128(..)) => {
                let texts = Arc::new(Field::new_list_field(DataType::Utf8, true));
                cast(ident(name), DataType::List(texts)).alias(name)
            }
            _ => ident(name),
        });
    }
    let shown = select.len();
    let mut keys = Vec::new();
    for ((name, _), data_type) in order.iter().zip(&types).filter(|_| pages) {
        let there = columns.iter().position(|column| column == name);
        keys.push(match there.filter(|_| !matches!(data_type, DataType::Decimal128(..))) {
            Some(column) => column,
            None => {
                select.push(ident(name).alias(format!("__k{}", select.len())));
                select.len() - 1
            }
        });
    }
    let frame = frame.select(select).map_err(failed)?;
    Ok(Shaped { frame, shown, keys })
}

/// Whether a filter names one value of a column that is indexed.
pub(crate) fn finds(filter: &ast::Expr) -> bool {
    match filter {
        ast::Expr::And(all) => all.iter().any(finds),
        ast::Expr::Filter(key, ast::Value::Is(value)) => {
            matches!(&key.path[..], [name] if is_indexed(name)) && !value.text.contains(['*', '?', '%', '/', '-'])
        }
        _ => false,
    }
}

/// Whether a query is for rows as they are, and must look for them: its keys are worth finding first.
pub(crate) fn narrows(query: &ast::Query) -> bool {
    let groups = !query.stats.is_empty() || query.bucket.is_some() || query.rollup.is_some() || query.top.is_some();
    !groups && !finds(&query.filter)
}

/// A page of a large table: what sorts first is found by the columns that it takes, and only then are its rows read, by
/// their keys. The page is the same: whatever else has one of these keys sorts behind it.
pub(crate) async fn narrowed(
    planned: Planned,
    table: Table,
    cursor: Option<&Cursor>,
) -> Result<(Planned, Scanned), QueryError> {
    let key = table.key().iter().find(|key| is_indexed(key));
    let (Some(key), Some(_), true) = (key, planned.limit, planned.pages) else {
        return Ok((planned, Scanned::default()));
    };
    if !planned.order.iter().any(|(column, _)| column == key) {
        return Ok((planned, Scanned::default()));
    }
    let narrow = Planned { columns: vec![(*key).to_owned()], ..planned.clone() };
    let (found, scanned) = collect(shape(narrow, cursor)?.frame).await?;
    let keys = found.iter().flat_map(|batch| {
        let keys: &StringArray = batch.column(0).as_string();
        keys.iter().flatten().map(|key| lit(key.to_owned())).collect::<Vec<_>>()
    });
    let frame = planned.frame.clone().filter(ident(*key).in_list(keys.collect(), false)).map_err(failed)?;
    Ok((Planned { frame, ..planned }, scanned))
}

pub(crate) async fn execute(planned: Planned, cursor: Option<&Cursor>, now_us: i64) -> Result<Executed, QueryError> {
    let (limit, pages, range, fill) = (planned.limit, planned.pages, planned.range, planned.fill);
    let (warnings, units) = (planned.warnings.clone(), planned.units.clone());
    let newest = planned.series && matches!(planned.order.first(), Some((_, false)));
    // What is filled in counts.
    let planned = if fill.is_some() { Planned { limit: None, ..planned } } else { planned };
    let back = cursor.is_some_and(|c| c.back);
    let Shaped { frame, shown, keys } = shape(planned, cursor)?;
    let full: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    let schema =
        Arc::new(full.project(&(0..shown).collect::<Vec<_>>()).map_err(|e| QueryError::Failed(e.to_string()))?);
    let (mut batches, scanned) = collect(frame).await?;
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let truncated = fill.is_none() && limit.is_some_and(|limit| total > limit);
    if truncated {
        let mut over = total - limit.unwrap_or(total);
        while over > 0 {
            let Some(last) = batches.pop() else { break };
            let keep = last.num_rows().saturating_sub(over);
            over -= last.num_rows() - keep;
            if keep > 0 {
                batches.push(last.slice(0, keep));
            }
        }
    }
    if back {
        batches = reversed(&batches).map_err(|e| QueryError::Failed(e.to_string()))?;
    }
    batches.retain(|b| b.num_rows() > 0);
    let edge = |batch: &RecordBatch, row: usize| {
        let edge = keys.iter().map(|key| carried(batch.column(*key), row)).collect::<Result<Vec<_>, _>>();
        edge.map_err(|e| QueryError::Failed(e.to_string()))
    };
    let edges = match (batches.first(), batches.last()) {
        (Some(first), Some(last)) if pages => Some((edge(first, 0)?, edge(last, last.num_rows() - 1)?)),
        _ => None,
    };
    let batches = batches
        .iter()
        .map(|b| b.project(&(0..shown).collect::<Vec<_>>()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| QueryError::Failed(e.to_string()))?;
    if let Some((fill, slices)) = fill.filter(|_| total > 0) {
        let span = Range { from: range.and_then(|r| r.from), to: range.and_then(|r| r.to).or(Some(now_us)) };
        let filled = series::fill(&batches, fill, slices, span)
            .map_err(|detail| QueryError::Language(SrqlError::new("too_many_buckets", (0, 0), detail)))?;
        let (rows, kept) = (filled.num_rows(), limit.unwrap_or(usize::MAX).min(filled.num_rows()));
        let kept_rows = filled.slice(if newest { rows - kept } else { 0 }, kept);
        let (schema, batches, truncated) = (filled.schema(), vec![kept_rows], kept < rows);
        return Ok(Executed { batches, schema, edges: None, limit, range, warnings, truncated, units, scanned });
    }
    let batches = match newest {
        // The newest were picked; they are shown as any series is.
        true => vec![oldest_first(&schema, &batches).map_err(|e| QueryError::Failed(e.to_string()))?],
        false => batches,
    };
    Ok(Executed { batches, schema, edges, limit, range, warnings, truncated, units, scanned })
}

/// The plan of a query, instead of its rows.
pub(crate) async fn explain(planned: Planned) -> Result<Executed, QueryError> {
    let Planned { frame, columns, order, limit, range, warnings, .. } = planned;
    let sort = order.iter().map(|(name, ascending)| ident(name).sort(*ascending, false)).collect();
    let mut frame = if order.is_empty() { frame } else { frame.sort(sort).map_err(failed)? };
    if let Some(limit) = limit {
        frame = frame.limit(0, Some(limit + 1)).map_err(failed)?;
    }
    let frame = frame.select(columns.iter().map(ident).collect::<Vec<_>>()).map_err(failed)?;
    let explained = frame.explain(false, false).map_err(failed)?;
    let schema: SchemaRef = Arc::new(explained.schema().as_arrow().clone());
    let batches = bytes::collect(explained).await?;
    let (units, scanned) = (BTreeMap::new(), Scanned::default());
    Ok(Executed { batches, schema, edges: None, limit: None, range, warnings, truncated: false, units, scanned })
}
