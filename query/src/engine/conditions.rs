//! What an aggregate counts only where a condition holds, as DataFusion plans it without fault.
//!
//! Conditions that share a part, in `count(*) FILTER (WHERE a), count(*) FILTER (WHERE a AND b)`, are taken apart by its search
//! for common parts, and the aggregates lose their names. So conditions become columns beneath the aggregate, which it names:
//!
//! ```text
//! Aggregate [count(*) FILTER (WHERE a AND b)]     Aggregate [count(*) FILTER (WHERE __if0)]
//!   rows                                       ⟹    Projection [rows.*, a AND b AS __if0]
//!                                                     rows
//! ```

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Alias};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, ident};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(crate) struct Conditions;

impl AnalyzerRule for Conditions {
    fn name(&self) -> &'static str {
        "conditions"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(named).map(|plan| plan.data)
    }
}

fn named(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
    let mut conditions: Vec<Expr> = Vec::new();
    let calls = aggregate.aggr_expr.iter().map(|call| conditional(call, &mut conditions)).collect();
    if conditions.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let rows = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let conditions = conditions.into_iter().enumerate().map(|(n, condition)| condition.alias(name(n)));
    let rows = Projection::try_new(rows.chain(conditions).collect(), aggregate.input)?;
    let rows = Arc::new(LogicalPlan::Projection(rows));
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(rows, aggregate.group_expr, calls)?)))
}

fn name(n: usize) -> String {
    format!("__if{n}")
}

/// The same aggregate, with a column for its condition.
fn conditional(call: &Expr, conditions: &mut Vec<Expr>) -> Expr {
    match call {
        Expr::Alias(Alias { expr, .. }) => {
            let inner = conditional(expr, conditions).unalias();
            let Expr::Alias(alias) = call.clone() else { return call.clone() };
            Expr::Alias(Alias { expr: Box::new(inner), ..alias })
        }
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            let Some(condition) = params.filter.as_deref().filter(|filter| !matches!(filter, Expr::Column(_))) else {
                return call.clone();
            };
            let n = conditions.iter().position(|known| known == condition).unwrap_or_else(|| {
                conditions.push(condition.clone());
                conditions.len() - 1
            });
            let mut params = params.clone();
            params.filter = Some(Box::new(ident(name(n))));
            Expr::AggregateFunction(AggregateFunction { func: func.clone(), params })
                .alias(Column::from_name(call.schema_name().to_string()).name)
        }
        _ => call.clone(),
    }
}
