//! How wide rows may be where they are multiplied.
//!
//! A join repeats each row for every row that it meets, and eight thousand at a time; a list that is unnested repeats its row
//! for every element. What is wide already must not be multiplied, and what is constant stands in every row.

use arrow::array::{Array, AsArray};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::unnest::ListUnnest;

use crate::engine::bytes::bytes;
use crate::engine::made::MAX_MADE;

/// Most bytes of a row that a join takes.
pub(crate) const MAX_JOINED_ROW: usize = 64 << 10;
/// Most bytes of constants that stand in every row of a table.
pub(crate) const MAX_CONSTANT: usize = 16 << 10;

/// What becomes of the rows of an operator.
#[derive(Clone, Debug)]
pub(crate) enum Care {
    /// They are told once.
    Once,
    /// They are joined.
    Joined,
    /// Lists of theirs are unnested.
    Unnested(Vec<ListUnnest>),
}

impl Care {
    /// The rows as they may be multiplied: in parts, where all of them at once would be too much.
    pub(crate) fn parts(&self, batch: RecordBatch) -> Result<Vec<RecordBatch>> {
        match self {
            Care::Once => Ok(vec![batch]),
            Care::Joined => {
                let widest: usize = batch.columns().iter().map(widest).sum();
                if widest > MAX_JOINED_ROW {
                    let detail = format!("a row of more than {} KiB would be joined", MAX_JOINED_ROW >> 10);
                    return Err(DataFusionError::ResourcesExhausted(detail));
                }
                Ok(vec![batch])
            }
            Care::Unnested(lists) => unnested(&batch, lists),
        }
    }
}

/// Bytes of an array's largest value, about.
fn widest(array: &ArrayRef) -> usize {
    let longest = |offsets: &[i32]| offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0);
    match array.data_type() {
        DataType::Utf8 => longest(array.as_string::<i32>().value_offsets()),
        DataType::Binary => longest(array.as_binary::<i32>().value_offsets()),
        kind => match kind.primitive_width() {
            Some(width) => width,
            // What is so little together has no large one.
            None if bytes(array) <= MAX_JOINED_ROW / 4 => 0,
            None => (0..array.len()).map(|row| bytes(&array.slice(row, 1))).max().unwrap_or(0),
        },
    }
}

fn unnested(batch: &RecordBatch, lists: &[ListUnnest]) -> Result<Vec<RecordBatch>> {
    let elements = |list: &ListUnnest, row: usize| {
        let column = batch.column(list.index_in_input_schema);
        match column.data_type() {
            DataType::List(_) if list.depth == 1 => column.as_list::<i32>().value_length(row) as usize,
            // Lists in lists have no more elements than bytes.
            _ => bytes(&column.slice(row, 1)),
        }
    };
    let (mut parts, mut from, mut made) = (Vec::new(), 0, 0_usize);
    for row in 0..batch.num_rows() {
        let times = lists.iter().map(|list| elements(list, row)).max().unwrap_or(1).max(1);
        let is_list = |n: &usize| lists.iter().any(|list| list.index_in_input_schema == *n);
        let others = (0..batch.num_columns()).filter(|n| !is_list(n));
        let width: usize = others.map(|n| bytes(&batch.column(n).slice(row, 1)) + 1).sum();
        let bytes = times.saturating_mul(width + 8);
        if bytes > MAX_MADE {
            let detail = format!("unnest: more than {} MiB would be made of a row", MAX_MADE >> 20);
            return Err(DataFusionError::ResourcesExhausted(detail));
        }
        if row > from && made + bytes > MAX_MADE / 4 {
            parts.push(batch.slice(from, row - from));
            (from, made) = (row, 0);
        }
        made += bytes;
    }
    parts.push(batch.slice(from, batch.num_rows() - from));
    Ok(parts)
}

/// Refuses constants that would stand in every row of a table and are large.
pub(crate) fn check_constants(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let constants: usize = match node {
            LogicalPlan::Projection(projection) if !matches!(&*projection.input, LogicalPlan::EmptyRelation(_)) => {
                projection.expr.iter().map(constants).sum()
            }
            // What an aggregate is given beside its values, it may put between all of them.
            LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().map(given).sum(),
            LogicalPlan::Window(window) => window.window_expr.iter().map(given).sum(),
            _ => 0,
        };
        if constants > MAX_CONSTANT {
            let detail = format!("constants of more than {} KiB would stand in every row", MAX_CONSTANT >> 10);
            return Err(DataFusionError::ResourcesExhausted(detail));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The same of what an aggregate is given.
fn given(call: &Expr) -> usize {
    match call {
        Expr::Alias(alias) => given(&alias.expr),
        Expr::AggregateFunction(call) => call.params.args.iter().map(constants).sum(),
        Expr::WindowFunction(call) => call.params.args.iter().map(constants).sum(),
        _ => 0,
    }
}

/// Bytes of the constants that may be an expression's value.
fn constants(expr: &Expr) -> usize {
    match expr {
        // Without what any value takes.
        Expr::Literal(value, _) => value.size() - size_of_val(value),
        Expr::Alias(alias) => constants(&alias.expr),
        Expr::Cast(cast) => constants(&cast.expr),
        Expr::Case(case) => {
            let when = case.when_then_expr.iter().map(|(_, then)| constants(then));
            when.chain(case.else_expr.iter().map(|other| constants(other))).sum()
        }
        // What functions make is bounded where they make it; these hand on what they are given.
        Expr::ScalarFunction(call) if ["coalesce", "nvl", "nvl2", "nullif"].contains(&call.name()) => {
            call.args.iter().map(constants).sum()
        }
        _ => 0,
    }
}
