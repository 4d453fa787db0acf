//! Parameters of statements: `$1`, or `?` in the order of the text. What is bound to them is a value, never text of the
//! statement. Nothing is kept between calls: the handle of a statement with its values is both of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Value as SqlValue, VisitMut, visit_expressions_mut};
use serde_json::{Value, json};

/// Values of one statement.
const MAX_VALUES: usize = 1000;
/// All of them, bytes.
const MAX_BYTES: usize = 1 << 20;
/// What the handle of a statement with values begins with; no statement does.
const BOUND: u8 = 0;

/// A statement, and what is bound to its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The text.
    pub statement: String,
    /// The values of `$1`, `$2`, …, if any were bound.
    pub values: Vec<ScalarValue>,
}

/// Gives the parameters that are written `?` their numbers, in the order of the text.
pub(crate) fn number(statement: &mut Statement) -> Result<(), String> {
    let inner = match statement {
        Statement::Statement(inner) => inner,
        Statement::Explain(explain) => return number(&mut explain.statement),
        _ => return Ok(()),
    };
    let (mut places, mut numbered) = (Vec::new(), false);
    each(inner.as_mut(), |name, at| match name.as_str() {
        "?" => places.push(at),
        _ => numbered = true,
    });
    if places.is_empty() {
        return Ok(());
    }
    if numbered {
        return Err("parameters are either ? or $1, $2, …".to_owned());
    }
    places.sort_unstable();
    each(inner.as_mut(), |name, at| {
        let n = places.binary_search(&at).unwrap_or_default();
        *name = format!("${}", n + 1);
    });
    Ok(())
}

/// Every parameter, with its line and column.
fn each(statement: &mut impl VisitMut, mut found: impl FnMut(&mut String, (u64, u64))) {
    let _ = visit_expressions_mut(statement, |expr| {
        if let Expr::Value(value) = expr {
            let at = (value.span.start.line, value.span.start.column);
            if let SqlValue::Placeholder(name) = &mut value.value {
                found(name, at);
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The parameters of a plan by their number, with their types where these follow from where they stand.
fn parameters(plan: &LogicalPlan) -> Result<BTreeMap<usize, DataType>, String> {
    let types = plan.get_parameter_types().map_err(|e| e.strip_backtrace())?;
    let number = |name: &str| {
        name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|n| (1..=MAX_VALUES).contains(n))
    };
    types
        .into_iter()
        .map(|(name, of)| match number(&name) {
            Some(n) => Ok((n, of.unwrap_or(DataType::Utf8))),
            None => Err(format!("the parameter {name} has no number from 1 to {MAX_VALUES}")),
        })
        .collect()
}

/// What the parameters of a plan are to hold.
pub(crate) fn schema(plan: &LogicalPlan) -> Result<Schema, String> {
    let known = parameters(plan)?;
    let most = known.keys().next_back().copied().unwrap_or(0);
    let field = |n: usize| Field::new(format!("${n}"), known.get(&n).cloned().unwrap_or(DataType::Utf8), true);
    Ok(Schema::new((1..=most).map(field).collect::<Vec<_>>()))
}

/// A plan with values in place of its parameters: as many as it has.
pub(crate) fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan, String> {
    let most = parameters(&plan)?.keys().next_back().copied().unwrap_or(0);
    if most != values.len() {
        return Err(format!("the statement has {most} parameters, and {} values are bound", values.len()));
    }
    if values.is_empty() { Ok(plan) } else { plan.with_param_values(values.to_vec()).map_err(|e| e.strip_backtrace()) }
}

/// The values of one row.
pub(crate) fn values(rows: &[RecordBatch]) -> Result<Vec<ScalarValue>, String> {
    let mut with = rows.iter().filter(|batch| batch.num_rows() > 0);
    let row = match (with.next(), with.next()) {
        (None, _) => return Ok(Vec::new()),
        (Some(batch), None) if batch.num_rows() == 1 => batch,
        _ => return Err("one row of values is bound at a time".to_owned()),
    };
    if row.num_columns() > MAX_VALUES || row.get_array_memory_size() > MAX_BYTES {
        return Err(format!("{MAX_VALUES} values of {MAX_BYTES} bytes together are bound at most"));
    }
    let value = |column: &ArrayRef| {
        let value = ScalarValue::try_from_array(column, 0).map_err(|e| e.strip_backtrace())?;
        simple(&value).ok_or_else(|| format!("a value of type {} cannot be bound", value.data_type()))
    };
    row.columns().iter().map(value).collect()
}

/// A value as one of the few types that handles have.
fn simple(value: &ScalarValue) -> Option<ScalarValue> {
    use DataType as T;
    let to = match value.data_type() {
        T::Null | T::Boolean | T::Int64 | T::UInt64 | T::Float64 | T::Utf8 | T::Binary | T::Date32 => {
            return Some(value.clone());
        }
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 | T::UInt32 => T::Int64,
        T::Float16 | T::Float32 | T::Decimal128(..) => T::Float64,
        T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Timestamp(..) | T::Date64 => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        T::Dictionary(_, of) if *of == T::Utf8 => T::Utf8,
        _ => return None,
    };
    value.cast_to(&to).ok()
}

impl Bound {
    /// The bytes that a client brings back.
    pub fn handle(&self) -> Vec<u8> {
        if self.values.is_empty() {
            return self.statement.clone().into_bytes();
        }
        let value = |value: &ScalarValue| match value {
            ScalarValue::Boolean(v) => json!({"bool": v}),
            ScalarValue::Int64(v) => json!({"int": v}),
            ScalarValue::UInt64(v) => json!({"uint": v}),
            // As text: JSON has no infinities.
            ScalarValue::Float64(v) => json!({"float": v.map(|v| v.to_string())}),
            ScalarValue::Utf8(v) => json!({"text": v}),
            ScalarValue::Binary(v) => json!({"bytes": v.as_ref().map(|v| STANDARD.encode(v))}),
            ScalarValue::Date32(v) => json!({"date": v}),
            ScalarValue::TimestampMicrosecond(v, _) => json!({"time": v}),
            _ => Value::Null,
        };
        let values: Vec<Value> = self.values.iter().map(value).collect();
        let mut out = vec![BOUND];
        out.extend(json!([self.statement, values]).to_string().into_bytes());
        out
    }

    /// The statement and the values of a handle; nothing where it is none of ours.
    pub fn read(handle: &[u8]) -> Option<Bound> {
        let Some(rest) = handle.strip_prefix(&[BOUND]) else {
            return Some(Bound { statement: std::str::from_utf8(handle).ok()?.to_owned(), values: Vec::new() });
        };
        let (statement, values): (String, Vec<Value>) = serde_json::from_slice(rest).ok()?;
        let value = |value: &Value| {
            if value.is_null() {
                return Some(ScalarValue::Null);
            }
            let (kind, it) = value.as_object()?.iter().next()?;
            let some = |is: bool| it.is_null() || is;
            let made = match kind.as_str() {
                "bool" if some(it.is_boolean()) => ScalarValue::Boolean(it.as_bool()),
                "int" if some(it.is_i64()) => ScalarValue::Int64(it.as_i64()),
                "uint" if some(it.is_u64()) => ScalarValue::UInt64(it.as_u64()),
                "float" if some(it.is_string()) => ScalarValue::Float64(it.as_str().and_then(|v| v.parse().ok())),
                "text" if some(it.is_string()) => ScalarValue::Utf8(it.as_str().map(str::to_owned)),
                "bytes" if some(it.is_string()) => {
                    ScalarValue::Binary(it.as_str().and_then(|v| STANDARD.decode(v).ok()))
                }
                "date" if some(it.is_i64()) => ScalarValue::Date32(it.as_i64().and_then(|v| i32::try_from(v).ok())),
                "time" if some(it.is_i64()) => ScalarValue::TimestampMicrosecond(it.as_i64(), Some("UTC".into())),
                _ => return None,
            };
            Some(made)
        };
        (values.len() <= MAX_VALUES).then_some(())?;
        let values = values.iter().map(value).collect::<Option<Vec<_>>>()?;
        Some(Bound { statement, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_was_written() {
        let values = vec![
            ScalarValue::Null,
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Int64(Some(-1)),
            ScalarValue::UInt64(Some(u64::MAX)),
            ScalarValue::Float64(Some(f64::INFINITY)),
            ScalarValue::Utf8(Some("a'b\u{0}".into())),
            ScalarValue::Utf8(None),
            ScalarValue::Binary(Some(vec![0, 255])),
            ScalarValue::Date32(Some(7)),
            ScalarValue::TimestampMicrosecond(Some(5), Some("UTC".into())),
        ];
        for bound in [
            Bound { statement: "SELECT $1".into(), values },
            Bound { statement: "SELECT 1".into(), values: Vec::new() },
        ] {
            assert_eq!(Bound::read(&bound.handle()), Some(bound));
        }
        for none in [&b"\0"[..], b"\0[]", b"\0[\"x\",[{\"int\":\"x\"}]]", b"\xff"] {
            assert_eq!(Bound::read(none), None, "{none:?}");
        }
    }
}
