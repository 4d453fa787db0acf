//! Parameters of prepared statements: bytes that a client sends become literals of the statement.
//!
//! A parameter whose type the client did not say, sent as text, is a literal without a type, as Postgres has it: the column it
//! is compared with says what it means.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Array, CastKind, DataType, ExactNumberInfo, Expr, TimezoneInfo, UnaryOperator, Value, visit_expressions,
    visit_expressions_mut,
};

use crate::postgres::catalog::value::{Value as Item, boolean};
use crate::postgres::kinds::{self, *};
use crate::postgres::refusal::{BAD_BINARY, BAD_TEXT, PROTOCOL, Refusal, TOO_MUCH};
use crate::postgres::types;
use crate::postgres::wire::MAX_PARAMETERS;

/// The parameters of a statement: the highest number there is.
pub(crate) fn count(statement: &ast::Statement) -> Result<usize, Refusal> {
    let mut most = 0;
    let mut wrong = None;
    let _ = visit_expressions(statement, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
        {
            match name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|n| *n > 0) {
                Some(n) => most = most.max(n),
                None => wrong = Some(Refusal::new("42P02", format!("there is no parameter {name}")).at(value.span)),
            }
        }
        ControlFlow::<()>::Continue(())
    });
    match wrong {
        Some(wrong) => Err(wrong),
        None if most > MAX_PARAMETERS => {
            Err(Refusal::new(TOO_MUCH, format!("a statement has {MAX_PARAMETERS} parameters at most")))
        }
        None => Ok(most),
    }
}

/// What the values of a statement take at most, each as often as it is named, bytes.
const MAX_FILLED: usize = 1 << 20;
/// What a value takes beside its text.
const VALUE_COST: usize = 320;

/// A statement with literals where its parameters were, and how many bytes these take.
pub(crate) fn filled(statement: &ast::Statement, values: &[Expr]) -> Result<(ast::Statement, usize), Refusal> {
    let weights: Vec<usize> = values.iter().map(|value| value.to_string().len() + VALUE_COST).collect();
    let mut statement = statement.clone();
    let mut filled = 0;
    let missing = visit_expressions_mut(&mut statement, |expr| {
        let Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let Value::Placeholder(name) = &value.value else { return ControlFlow::Continue(()) };
        let at = name.trim_start_matches('$').parse::<usize>().unwrap_or_default();
        let Some(at) = at.checked_sub(1).filter(|at| *at < values.len()) else {
            return ControlFlow::Break(Refusal::new(PROTOCOL, format!("there is no value for parameter {name}")));
        };
        filled += weights[at];
        if filled > MAX_FILLED {
            let detail = format!("the values of a statement take {MAX_FILLED} bytes at most");
            return ControlFlow::Break(Refusal::new(TOO_MUCH, detail));
        }
        *expr = values[at].clone();
        ControlFlow::Continue(())
    });
    match missing {
        ControlFlow::Continue(()) => Ok((statement, filled)),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

fn literal(value: Value) -> Expr {
    Expr::value(value)
}

fn text(text: impl Into<String>) -> Expr {
    literal(Value::SingleQuotedString(text.into()))
}

pub(crate) fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn number(text: String) -> Expr {
    match text.strip_prefix('-') {
        Some(rest) => {
            let rest = literal(Value::Number(rest.to_owned(), false));
            Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(rest) }))
        }
        None => literal(Value::Number(text, false)),
    }
}

/// The type of SQL that a number of a type means; nothing where it is text, or stays as it is.
pub(crate) fn sql_type(kind: Oid) -> Option<DataType> {
    Some(match kind {
        BOOL => DataType::Boolean,
        INT2 => DataType::SmallInt(None),
        INT4 => DataType::Int(None),
        INT8 | OID => DataType::BigInt(None),
        FLOAT4 => DataType::Real,
        FLOAT8 => DataType::DoublePrecision,
        NUMERIC => DataType::Numeric(ExactNumberInfo::PrecisionAndScale(38, 9)),
        TEXT | VARCHAR | BPCHAR | NAME => DataType::Text,
        DATE => DataType::Date,
        TIME => DataType::Time(None, TimezoneInfo::None),
        TIMESTAMP => DataType::Timestamp(None, TimezoneInfo::None),
        TIMESTAMPTZ => DataType::Timestamp(None, TimezoneInfo::Tz),
        _ => return None,
    })
}

/// A parameter as a literal.
pub(crate) fn value(kind: Oid, binary: bool, bytes: Option<&[u8]>) -> Result<Expr, Refusal> {
    let Some(bytes) = bytes else { return Ok(literal(Value::Null)) };
    if binary { of_binary(kind, bytes) } else { of_text(kind, bytes) }
}

fn of_text(kind: Oid, bytes: &[u8]) -> Result<Expr, Refusal> {
    let said = std::str::from_utf8(bytes).ok().filter(|said| !said.contains('\0'));
    let said = said.ok_or_else(|| Refusal::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
    let wrong = || {
        let name = kinds::kind(kind).map_or("?", |kind| kind.sql);
        Refusal::new(BAD_TEXT, format!("invalid input syntax for type {name}: \"{said}\""))
    };
    Ok(match kind {
        kind if is_whole(kind) => number(said.trim().parse::<i64>().map_err(|_| wrong())?.to_string()),
        BOOL => literal(Value::Boolean(boolean(said).ok_or_else(wrong)?)),
        FLOAT4 | FLOAT8 | NUMERIC => real(kind, said).ok_or_else(wrong)?,
        DATE | TIME | TIMESTAMP | TIMESTAMPTZ => cast(text(said), sql_type(kind).ok_or_else(wrong)?),
        kind if kinds::element_of(kind) != kind => {
            let items = Item::from(said).items().ok_or_else(wrong)?;
            let item = |item: &Item| match item {
                Item::Null => Ok(literal(Value::Null)),
                item => of_text(kinds::element_of(kind), item.text().as_bytes()),
            };
            list(items.iter().map(item).collect::<Result<_, _>>()?)
        }
        _ => text(said),
    })
}

fn list(elem: Vec<Expr>) -> Expr {
    Expr::Array(Array { elem, named: true })
}

/// A number that may have a fraction.
fn real(kind: Oid, said: &str) -> Option<Expr> {
    let said = said.trim();
    let x: f64 = said.parse().ok()?;
    let plain = said.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-')) && !said.ends_with('.');
    Some(match plain && x.is_finite() {
        true if kind == NUMERIC => number(said.to_owned()),
        true => cast(number(said.to_owned()), DataType::DoublePrecision),
        false => cast(text(x.to_string()), DataType::DoublePrecision),
    })
}

fn of_binary(kind: Oid, bytes: &[u8]) -> Result<Expr, Refusal> {
    let name = || kinds::kind(kind).map_or_else(|| kind.to_string(), |kind| kind.sql.to_owned());
    let wrong = || Refusal::new(BAD_BINARY, format!("incorrect binary data format for type {}", name()));
    let two = || bytes.try_into().map(i16::from_be_bytes).map_err(|_| wrong());
    let four = || bytes.try_into().map(i32::from_be_bytes).map_err(|_| wrong());
    let eight = || bytes.try_into().map(i64::from_be_bytes).map_err(|_| wrong());
    Ok(match kind {
        INT2 => number(two()?.to_string()),
        INT4 => number(four()?.to_string()),
        INT8 => number(eight()?.to_string()),
        kind if is_whole(kind) => number((four()? as u32).to_string()),
        BOOL => literal(Value::Boolean(matches!(bytes, [1]))),
        FLOAT4 => real(FLOAT8, &f32::from_bits(four()? as u32).to_string()).ok_or_else(wrong)?,
        FLOAT8 => real(FLOAT8, &f64::from_bits(eight()? as u64).to_string()).ok_or_else(wrong)?,
        NUMERIC => real(NUMERIC, &types::numeric_text(bytes).ok_or_else(wrong)?).ok_or_else(wrong)?,
        TIMESTAMP | TIMESTAMPTZ => {
            let zone = if kind == TIMESTAMPTZ { "+00:00" } else { "" };
            cast(text(types::instant_text(eight()?, zone)), sql_type(kind).ok_or_else(wrong)?)
        }
        DATE => cast(text(types::day_text(four()?).ok_or_else(wrong)?), DataType::Date),
        UUID => match bytes {
            [a @ .., _, _, _, _, _, _] if bytes.len() == 16 => {
                let hex = |bytes: &[u8]| hex::encode(bytes);
                text(format!(
                    "{}-{}-{}-{}-{}",
                    hex(&a[..4]),
                    hex(&a[4..6]),
                    hex(&a[6..8]),
                    hex(&a[8..]),
                    hex(&bytes[10..])
                ))
            }
            _ => return Err(wrong()),
        },
        JSONB => of_text(TEXT, bytes.strip_prefix(&[1]).ok_or_else(wrong)?)?,
        kind if is_text(kind) || matches!(kind, 0 | JSON) => of_text(TEXT, bytes)?,
        kind if kinds::element_of(kind) != kind => list(items(bytes).ok_or_else(wrong)??),
        _ => return Err(Refusal::unsupported(format!("a binary parameter of type {}", name()))),
    })
}

/// The items of a list of one dimension.
fn items(bytes: &[u8]) -> Option<Result<Vec<Expr>, Refusal>> {
    let mut rest = bytes;
    let i32 = |rest: &mut &[u8]| {
        let (four, after) = rest.split_at_checked(4)?;
        *rest = after;
        Some(i32::from_be_bytes(four.try_into().ok()?))
    };
    let (dimensions, _, element) = (i32(&mut rest)?, i32(&mut rest)?, i32(&mut rest)? as Oid);
    if dimensions == 0 {
        return rest.is_empty().then_some(Ok(Vec::new()));
    }
    let (len, _) = (usize::try_from(i32(&mut rest)?).ok()?, i32(&mut rest)?);
    // An item takes four bytes at least.
    if dimensions != 1 || len > rest.len() / 4 || kinds::element_of(element) != element {
        return None;
    }
    let mut all = Vec::with_capacity(len);
    for _ in 0..len {
        let bytes = match i32(&mut rest)? {
            -1 => None,
            len => {
                let (item, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                rest = after;
                Some(item)
            }
        };
        match value(element, true, bytes) {
            Ok(item) => all.push(item),
            Err(wrong) => return Some(Err(wrong)),
        }
    }
    rest.is_empty().then_some(Ok(all))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(kind: Oid, binary: bool, bytes: &[u8]) -> String {
        value(kind, binary, Some(bytes)).map_or_else(|wrong| wrong.code.to_owned(), |value| value.to_string())
    }

    #[test]
    fn parameters_become_literals() {
        for (kind, binary, bytes, is) in [
            (0, false, &b"it's"[..], "'it''s'"),
            (INT4, false, b"-5", "(-5)"),
            (INT8, true, &[0, 0, 0, 0, 0, 0, 1, 0], "256"),
            (INT8, true, &[0, 0], BAD_BINARY),
            (INT4, false, b"5 or 1=1", BAD_TEXT),
            (BOOL, true, &[1], "true"),
            (FLOAT8, false, b"1e3", "CAST('1000' AS DOUBLE PRECISION)"),
            (NUMERIC, false, b"-1.50", "(-1.50)"),
            (TIMESTAMPTZ, true, &[0; 8], "CAST('2000-01-01 00:00:00+00:00' AS TIMESTAMPTZ)"),
            (DATE, true, &[0; 4], "CAST('2000-01-01' AS DATE)"),
            (TEXT_LIST, false, b"{a,NULL,\"b c\"}", "ARRAY['a', NULL, 'b c']"),
            (TEXT_LIST, true, b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x01\0\0\0\x01\0\0\0\x01a", "ARRAY['a']"),
            (UUID, true, &[255; 16], "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
            (TEXT, false, b"a\0b", "22021"),
        ] {
            assert_eq!(said(kind, binary, bytes), is, "{kind} {binary} {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            kind in prop::sample::select(kinds::KINDS.iter().map(|kind| kind.oid).collect::<Vec<_>>()),
            binary in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = value(kind, binary, Some(&bytes));
        }
    }
}
