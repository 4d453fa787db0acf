//! What a condition on the devices of events says of what is stored, so that files need not be read whole.
//!
//! ```text
//! led(uid) ∈ U                ⟹  uid ∈ U ∪ {names that lead into U}
//! attributed(uid, ip, …) ∈ U  ⟹  uid ∈ U  ∨  ip ∈ {addresses that a correction gives to U}
//! ```
//! The functions are not known to files; what follows from them is comparisons of columns, which bloom filters answer. The
//! condition itself stays.

use std::any::Any;
use std::collections::BTreeSet;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, lit};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::tables::corrections::Attributed;
use crate::tables::led::Led;

/// Names, or addresses, beyond which nothing is said.
const MAX_NAMED: usize = 256;

/// The rule.
#[derive(Debug)]
pub(crate) struct Stored;

impl OptimizerRule for Stored {
    fn name(&self) -> &'static str {
        "stored_names"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(Filter { predicate, input, .. }) = &plan else { return Ok(Transformed::no(plan)) };
        let said = split_conjunction(predicate);
        let new: Vec<Expr> = said.iter().filter_map(|said| follows(said)).filter(|new| !said.contains(&new)).collect();
        let Some(new) = new.into_iter().reduce(Expr::and) else { return Ok(Transformed::no(plan)) };
        // What is cheap is looked at first.
        let filter = Filter::try_new(new.and(predicate.clone()), input.clone())?;
        Ok(Transformed::yes(LogicalPlan::Filter(filter)))
    }
}

/// What a condition says of columns, if it says anything.
fn follows(condition: &Expr) -> Option<Expr> {
    match condition {
        Expr::IsTrue(inner) => follows(inner),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (follows(left), follows(right)) {
            (Some(left), Some(right)) => Some(left.and(right)),
            (left, right) => left.or(right),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => Some(follows(left)?.or(follows(right)?)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (Expr::ScalarFunction(function), value) | (value, Expr::ScalarFunction(function)) => {
                named(function, BTreeSet::from([text(value)?.to_owned()]))
            }
            _ => None,
        },
        Expr::InList(InList { expr, list, negated: false }) => match &**expr {
            Expr::ScalarFunction(function) if list.len() <= MAX_NAMED => {
                named(function, list.iter().map(|value| text(value).map(str::to_owned)).collect::<Option<_>>()?)
            }
            _ => None,
        },
        _ => None,
    }
}

fn text(value: &Expr) -> Option<&str> {
    match value {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// What it says of columns that a function is one of these names.
fn named(function: &ScalarFunction, names: BTreeSet<String>) -> Option<Expr> {
    let inner = &**function.func.inner() as &dyn Any;
    if let Some(led) = inner.downcast_ref::<Led>() {
        let names = led.led_to(names);
        return match function.args.first()? {
            Expr::Column(column) => is_one_of(column, &names),
            Expr::ScalarFunction(function) => named(function, names),
            _ => None,
        };
    }
    let attributed = inner.downcast_ref::<Attributed>()?;
    let [Expr::Column(stored), _, Expr::Column(address), ..] = &function.args[..] else { return None };
    let given = attributed.given_to(&names);
    let stored = is_one_of(stored, &names)?;
    if given.is_empty() { Some(stored) } else { Some(stored.or(is_one_of(address, &given)?)) }
}

fn is_one_of(column: &Column, values: &BTreeSet<String>) -> Option<Expr> {
    let column = Expr::Column(column.clone());
    match values.len() {
        1 => values.first().map(|value| column.eq(lit(value.as_str()))),
        2..=MAX_NAMED => Some(column.in_list(values.iter().map(|value| lit(value.as_str())).collect(), false)),
        _ => None,
    }
}
