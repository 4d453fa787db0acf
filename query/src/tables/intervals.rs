//! Who owned an address when: derived at read from the versions of `ip_ownership` that the lake keeps.
//!
//! ```text
//! version   :- a row of ip_ownership as some epoch said it, or that it was gone
//! changes   :- versions whose owner is another than that of the version before
//! from(v)   :- event time of the claim, where it is greater by (class, event time) than the one before: it held since
//!              then already, though it was not known; else when the one before was given up
//! to(v)     :- least from(w) of the changes w after it
//! ```
//! So what is learnt late corrects what was believed: an owner that had an address only in belief has no interval. Owners
//! are called what they are called today.

use std::sync::Arc;

use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, Operator, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
    binary_expr, ident, lit, when,
};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::Table;

use crate::tables::led::led;
use crate::tables::segment::Segment;

/// Classes of claims, strongest first; an address that is shared is nobody's, whoever claims it.
const CLASSES: [&str; 8] = ["shared", "operator", "agent", "inventory", "stale_agent", "mapper", "alias", "sweep"];

fn rank(class: &str) -> Result<Expr> {
    let [strongest, rest @ ..] = CLASSES;
    let mut rank = when(ident(class).eq(lit(strongest)), lit(CLASSES.len() as i64));
    for (place, name) in rest.iter().enumerate() {
        rank = rank.when(ident(class).eq(lit(*name)), lit((CLASSES.len() - 1 - place) as i64));
    }
    rank.otherwise(lit(0i64))
}

/// Of each version the value that the version before has.
fn before(value: Expr, name: &str) -> Result<Expr> {
    Ok(lag(value, Some(1), None)
        .partition_by(address())
        .order_by(vec![ident("row_id").sort(true, false)])
        .build()?
        .alias(name))
}

fn address() -> Vec<Expr> {
    vec![ident("partition"), ident("ip")]
}

/// Intervals of ownership, out of versions of ownership.
pub(crate) fn intervals(versions: DataFrame, redirects: Option<&Arc<Vec<Segment>>>) -> Result<DataFrame> {
    let schema = Arc::new(versions.schema().as_arrow().clone());
    let versions = led(versions, &schema, redirects)?;
    let versions = versions.window(vec![
        before(ident("device_uid"), "__uid")?,
        before(ident("class"), "__class")?,
        before(ident("valid_from"), "__from")?,
        before(ident("time"), "__time")?,
        before(ident("gone"), "__gone")?,
    ])?;
    // Nothing before is as good as gone.
    let was_gone = ident("__gone").is_not_false();
    let another = binary_expr(ident("device_uid"), Operator::IsDistinctFrom, ident("__uid"));
    let began = ident("gone").is_false().and(was_gone.clone().or(another));
    let ended = ident("gone").is_true().and(was_gone.clone().is_false());
    let changes = versions.filter(began.or(ended))?;

    let (now, then) = (rank("class")?, rank("__class")?);
    let stronger = ident("__class")
        .is_null()
        .or(now.clone().gt(then.clone()))
        .or(now.eq(then).and(ident("valid_from").gt(ident("__from"))));
    let given_up = when(was_gone, ident("__time")).otherwise(ident("time"))?;
    let later = when(ident("valid_from").gt(given_up.clone()), ident("valid_from")).otherwise(given_up)?;
    let from = when(ident("gone").is_true().or(ident("class").eq(lit("shared"))), ident("time"))
        .when(stronger, ident("valid_from"))
        .otherwise(later)?;
    let changes = changes.with_column("__began", from)?;
    let least = WindowFunction::new(WindowFunctionDefinition::AggregateUDF(min_udaf()), vec![ident("__began")]);
    let after = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
    );
    let until = Expr::from(least)
        .partition_by(address())
        .order_by(vec![ident("row_id").sort(false, false)])
        .window_frame(after)
        .build()?
        .alias("__ended");
    let held = changes
        .window(vec![until])?
        .filter(ident("gone").is_false().and(ident("__ended").is_null().or(ident("__ended").gt(ident("__began")))))?;
    let columns = Table::IpOwnership.schema();
    let columns = columns.fields().iter().map(|field| match field.name().as_str() {
        "valid_from" => ident("__began").alias("valid_from"),
        "valid_to" => ident("__ended").alias("valid_to"),
        name => ident(name),
    });
    held.select(columns.collect::<Vec<_>>())
}
