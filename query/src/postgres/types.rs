//! Columns of answers as Postgres has them: which type each is, and its values as text and binary.
//!
//! Lists are arrays; maps, structures and lists of these are `jsonb`; addresses are text, as the tables have them. Times are
//! told in UTC.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalYearMonthType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveTime};
use datafusion::arrow::compute::cast;
use serde_json::Value as Json;

use crate::postgres::catalog::value::{Value, quoted};
use crate::postgres::kinds::{self, *};
use crate::postgres::refusal::{INTERNAL, Refusal};

/// The first day of Postgres, days and microseconds since 1970.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_US: i64 = EPOCH_DAYS * 86_400_000_000;

/// The type that a column has.
pub(crate) fn kind_of(data_type: &DataType) -> Oid {
    match data_type {
        DataType::Boolean => BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => INT2,
        DataType::UInt16 | DataType::Int32 => INT4,
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => INT8,
        DataType::Float16 | DataType::Float32 => FLOAT4,
        DataType::Float64 => FLOAT8,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            NUMERIC
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => BYTEA,
        DataType::Date32 | DataType::Date64 => DATE,
        DataType::Time32(_) | DataType::Time64(_) => TIME,
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            match kind_of(item.data_type()) {
                JSONB => JSONB,
                inner if kinds::element_of(inner) != inner => JSONB,
                inner => kinds::list_of(inner),
            }
        }
        DataType::Map(..) | DataType::Struct(_) => JSONB,
        DataType::Dictionary(_, inner) => kind_of(inner),
        _ => TEXT,
    }
}

/// A column whose values can be written: what refers to values elsewhere holds them itself.
pub(crate) fn plain(column: &ArrayRef) -> Result<ArrayRef, Refusal> {
    let to = match column.data_type() {
        DataType::Dictionary(_, inner) => inner.as_ref().clone(),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => DataType::List(item.clone()),
        _ => return Ok(column.clone()),
    };
    cast(column, &to).map_err(|error| Refusal::new(INTERNAL, error.to_string()))
}

/// A value of a row: its length and its bytes, or that there is none.
pub(crate) fn field(column: &dyn Array, row: usize, binary: bool, out: &mut Vec<u8>) {
    if column.is_null(row) || column.data_type() == &DataType::Null {
        return out.extend((-1i32).to_be_bytes());
    }
    sized(out, |out| if binary { as_binary(column, row, out) } else { as_text(column, row, out) });
}

/// What is written, after its length.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend([0; 4]);
    write(out);
    let len = i32::try_from(out.len() - begin - 4).unwrap_or(i32::MAX);
    out[begin..begin + 4].copy_from_slice(&len.to_be_bytes());
}

fn as_text(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Utf8 => out.extend(column.as_string::<i32>().value(row).as_bytes()),
        _ => out.extend(text(column, row).as_bytes()),
    }
}

fn whole(column: &dyn Array, row: usize) -> Option<i64> {
    Some(match column.data_type() {
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        // No count comes near what does not fit.
        DataType::UInt64 => i64::try_from(column.as_primitive::<UInt64Type>().value(row)).unwrap_or(i64::MAX),
        _ => return None,
    })
}

/// Microseconds of what has them, days of dates, as Arrow counts.
fn ticks(column: &dyn Array, row: usize) -> i64 {
    use arrow_array::types::{DurationMicrosecondType, Time64MicrosecondType, TimestampMicrosecondType};
    match column.data_type() {
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row),
        DataType::Time64(_) => column.as_primitive::<Time64MicrosecondType>().value(row),
        DataType::Duration(_) => column.as_primitive::<DurationMicrosecondType>().value(row),
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).into(),
        DataType::Date64 => column.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000),
        _ => 0,
    }
}

/// Months, days and microseconds of a span.
fn span(column: &dyn Array, row: usize) -> (i32, i32, i64) {
    match column.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            (column.as_primitive::<IntervalYearMonthType>().value(row), 0, 0)
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let value = column.as_primitive::<IntervalDayTimeType>().value(row);
            (0, value.days, i64::from(value.milliseconds) * 1000)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            (value.months, value.days, value.nanoseconds / 1000)
        }
        _ => (0, 0, ticks(column, row)),
    }
}

fn real(x: f64) -> String {
    match x {
        x if x.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        x => x.to_string(),
    }
}

/// A fraction of a second where there is one.
fn fraction(us: i64) -> String {
    let digits = format!(".{:06}", us.rem_euclid(1_000_000));
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn instant(us: i64, zone: &str) -> String {
    match DateTime::from_timestamp_micros(us) {
        Some(at) => format!("{}{}{zone}", at.format("%Y-%m-%d %H:%M:%S"), fraction(us)),
        None if us > 0 => "infinity".to_owned(),
        None => "-infinity".to_owned(),
    }
}

fn clock(us: i64) -> String {
    let seconds = us.div_euclid(1_000_000);
    let at = u32::try_from(seconds).ok().and_then(|n| NaiveTime::from_num_seconds_from_midnight_opt(n, 0));
    at.map_or_else(String::new, |at| format!("{}{}", at.format("%H:%M:%S"), fraction(us)))
}

fn span_text((months, days, us): (i32, i32, i64)) -> String {
    let mut parts = Vec::new();
    let mut part = |n: i32, one: &str| match n {
        0 => {}
        1 => parts.push(format!("1 {one}")),
        n => parts.push(format!("{n} {one}s")),
    };
    part(months / 12, "year");
    part(months % 12, "mon");
    part(days, "day");
    if us != 0 || parts.is_empty() {
        let (sign, us) = (if us < 0 { "-" } else { "" }, us.unsigned_abs());
        let (s, fraction) = (us / 1_000_000, fraction((us % 1_000_000) as i64));
        parts.push(format!("{sign}{:02}:{:02}:{:02}{fraction}", s / 3600, s / 60 % 60, s % 60));
    }
    parts.join(" ")
}

fn hexadecimal(bytes: &[u8]) -> String {
    format!("\\x{}", hex::encode(bytes))
}

/// A value as text.
fn text(column: &dyn Array, row: usize) -> String {
    if let Some(n) = whole(column, row) {
        return n.to_string();
    }
    match column.data_type() {
        DataType::Boolean => if column.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
        DataType::Float16 => real(column.as_primitive::<Float16Type>().value(row).to_f64()),
        // Digits as the shorter type has them.
        DataType::Float32 => match column.as_primitive::<Float32Type>().value(row) {
            x if x.is_finite() => x.to_string(),
            x => real(x.into()),
        },
        DataType::Float64 => real(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Decimal256(..) => column.as_primitive::<Decimal256Type>().value_as_string(row),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => hexadecimal(column.as_binary::<i32>().value(row)),
        DataType::Timestamp(_, zone) => instant(ticks(column, row), if zone.is_some() { "+00" } else { "" }),
        DataType::Date32 | DataType::Date64 => {
            let days = i32::try_from(ticks(column, row) + 719_163).ok();
            let date = days.and_then(NaiveDate::from_num_days_from_ce_opt);
            date.map_or_else(|| "infinity".to_owned(), |date| date.format("%Y-%m-%d").to_string())
        }
        DataType::Time64(_) => clock(ticks(column, row)),
        DataType::Interval(_) | DataType::Duration(_) => span_text(span(column, row)),
        DataType::List(_) if kind_of(column.data_type()) != JSONB => {
            let items = column.as_list::<i32>().value(row);
            let Ok(items) = plain(&items) else { return "{}".to_owned() };
            let mut out = String::from("{");
            for at in 0..items.len() {
                if at > 0 {
                    out.push(',');
                }
                match items.is_null(at) {
                    true => out.push_str("NULL"),
                    false => quoted(&text(&items, at), &mut out),
                }
            }
            out.push('}');
            out
        }
        _ => json(column, row).to_string(),
    }
}

/// A value as JSON.
fn json(column: &dyn Array, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    let items = |items: &ArrayRef| match plain(items) {
        Ok(items) => (0..items.len()).map(|at| json(&items, at)).collect::<Vec<Json>>(),
        Err(_) => Vec::new(),
    };
    match column.data_type() {
        DataType::Null => Json::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::List(_) => items(&column.as_list::<i32>().value(row)).into(),
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let field = |(field, column): (&arrow_schema::FieldRef, &ArrayRef)| {
                (field.name().clone(), plain(column).map_or(Json::Null, |column| json(&column, row)))
            };
            Json::Object(fields.iter().zip(columns).map(field).collect())
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (items(entries.column(0)), items(entries.column(1)));
            let key = |key: Json| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            Json::Object(keys.into_iter().map(key).zip(values).collect())
        }
        _ => match whole(column, row) {
            Some(n) => n.into(),
            None => text(column, row).into(),
        },
    }
}

fn as_binary(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    let kind = kind_of(column.data_type());
    if let Some(n) = whole(column, row) {
        return whole_binary(kind, n, out);
    }
    match column.data_type() {
        DataType::Boolean => out.push(column.as_boolean().value(row).into()),
        DataType::Float16 => out.extend(column.as_primitive::<Float16Type>().value(row).to_f32().to_be_bytes()),
        DataType::Float32 => out.extend(column.as_primitive::<Float32Type>().value(row).to_be_bytes()),
        DataType::Float64 => out.extend(column.as_primitive::<Float64Type>().value(row).to_be_bytes()),
        DataType::Decimal128(..) | DataType::Decimal256(..) => numeric(&text(column, row), out),
        DataType::Binary => out.extend(column.as_binary::<i32>().value(row)),
        DataType::Timestamp(..) => out.extend(ticks(column, row).saturating_sub(EPOCH_US).to_be_bytes()),
        DataType::Date32 | DataType::Date64 => {
            out.extend(i32::try_from(ticks(column, row) - EPOCH_DAYS).unwrap_or(i32::MAX).to_be_bytes());
        }
        DataType::Time64(_) => out.extend(ticks(column, row).to_be_bytes()),
        DataType::Interval(_) | DataType::Duration(_) => {
            let (months, days, us) = span(column, row);
            out.extend(us.to_be_bytes());
            out.extend(days.to_be_bytes());
            out.extend(months.to_be_bytes());
        }
        DataType::List(_) if kind != JSONB => {
            let items = column.as_list::<i32>().value(row);
            let items = plain(&items).unwrap_or(items);
            let nulls = items.null_count() > 0;
            list_binary(kinds::element_of(kind), items.len(), nulls, out, |at, out| field(&items, at, true, out));
        }
        _ if kind == JSONB => {
            out.push(1);
            out.extend(json(column, row).to_string().as_bytes());
        }
        _ => as_text(column, row, out),
    }
}

fn whole_binary(kind: Oid, n: i64, out: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "values of the type fit it")]
    match kind {
        INT2 => out.extend((n as i16).to_be_bytes()),
        INT8 => out.extend(n.to_be_bytes()),
        _ => out.extend((n as i32).to_be_bytes()),
    }
}

fn list_binary(element: Oid, len: usize, nulls: bool, out: &mut Vec<u8>, mut item: impl FnMut(usize, &mut Vec<u8>)) {
    let dimensions = i32::from(len > 0);
    out.extend(dimensions.to_be_bytes());
    out.extend(i32::from(nulls).to_be_bytes());
    out.extend(element.to_be_bytes());
    if len > 0 {
        out.extend((len as i32).to_be_bytes());
        out.extend(1i32.to_be_bytes());
    }
    (0..len).for_each(|at| item(at, out));
}

/// A decimal number: digits of four figures, the weight of the first, the sign, and the figures after the point.
fn numeric(text: &str, out: &mut Vec<u8>) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (before, after) = text.split_once('.').unwrap_or((text, ""));
    let before = before.trim_start_matches('0');
    let before = format!("{}{before}", "0".repeat((4 - before.len() % 4) % 4));
    let figures = format!("{before}{after}{}", "0".repeat((4 - after.len() % 4) % 4));
    let mut digits: Vec<i16> =
        figures.as_bytes().chunks(4).map(|four| four.iter().fold(0, |n, c| n * 10 + i16::from(c - b'0'))).collect();
    let mut weight = (before.len() / 4) as i16 - 1;
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..zeros);
    weight = if digits.is_empty() { 0 } else { weight - zeros as i16 };
    while digits.last() == Some(&0) {
        digits.pop();
    }
    out.extend((digits.len() as i16).to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(if negative && !digits.is_empty() { 0x4000u16 } else { 0 }.to_be_bytes());
    out.extend((after.len() as i16).to_be_bytes());
    digits.iter().for_each(|digit| out.extend(digit.to_be_bytes()));
}

/// A value of a catalog: its length and its bytes, or that there is none. `told` is it as text.
pub(crate) fn catalog_field(value: &Value, kind: Oid, told: &dyn Fn() -> String, binary: bool, out: &mut Vec<u8>) {
    if value.is_null() {
        return out.extend((-1i32).to_be_bytes());
    }
    sized(out, |out| match (value, kind) {
        _ if !binary => out.extend(told().as_bytes()),
        (Value::Bool(is), BOOL) => out.push((*is).into()),
        (_, kind) if is_whole(kind) => whole_binary(kind, value.whole().unwrap_or_default(), out),
        (_, FLOAT4) => out.extend((value.real().unwrap_or_default() as f32).to_be_bytes()),
        (_, FLOAT8) => out.extend(value.real().unwrap_or_default().to_be_bytes()),
        (_, NUMERIC) => numeric(&told(), out),
        (_, JSONB) => {
            out.push(1);
            out.extend(told().as_bytes());
        }
        (Value::List(items), kind) if kinds::element_of(kind) != kind => {
            let element = kinds::element_of(kind);
            let nulls = items.iter().any(Value::is_null);
            list_binary(element, items.len(), nulls, out, |at, out| {
                catalog_field(&items[at], element, &|| items[at].shown(), true, out);
            });
        }
        _ => out.extend(told().as_bytes()),
    });
}

/// A number in the base-10000 form that the protocol has, as text.
pub(crate) fn numeric_text(bytes: &[u8]) -> Option<String> {
    let i16 = |at: usize| bytes.get(at..at + 2).map(|two| i16::from_be_bytes([two[0], two[1]]));
    let (count, weight, sign, scale) = (i16(0)?, i32::from(i16(2)?), i16(4)? as u16, i16(6)?);
    let (count, scale) = (usize::try_from(count).ok()?, usize::try_from(scale).ok()?);
    if bytes.len() != 8 + 2 * count || scale > 1000 || !(-250..=250).contains(&weight) || !matches!(sign, 0 | 0x4000) {
        return None;
    }
    let digit = |at: i32| match usize::try_from(at) {
        Ok(at) if at < count => i16(8 + 2 * at).filter(|digit| (0..10_000).contains(digit)),
        _ => Some(0),
    };
    let mut out = String::from(if sign == 0 { "" } else { "-" });
    if weight < 0 {
        out.push('0');
    }
    for at in 0..=weight {
        let _ = if at == 0 { write!(out, "{}", digit(at)?) } else { write!(out, "{:04}", digit(at)?) };
    }
    let mut after = String::new();
    let mut at = weight + 1;
    while after.len() < scale {
        let _ = write!(after, "{:04}", digit(at)?);
        at += 1;
    }
    after.truncate(scale);
    if scale > 0 {
        let _ = write!(out, ".{after}");
    }
    Some(out)
}

/// An instant of the protocol as text.
pub(crate) fn instant_text(us: i64, zone: &str) -> String {
    instant(us.saturating_add(EPOCH_US), zone)
}

/// A day of the protocol as text.
pub(crate) fn day_text(days: i32) -> Option<String> {
    let days = i32::try_from(i64::from(days) + EPOCH_DAYS + 719_163).ok()?;
    NaiveDate::from_num_days_from_ce_opt(days).map(|date| date.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, MapBuilder, StringBuilder};
    use arrow_array::{BooleanArray, Decimal128Array, Float64Array, Int64Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    fn texts(column: &dyn Array) -> Vec<String> {
        (0..column.len()).map(|row| text(column, row)).collect()
    }

    #[test]
    fn values_are_told_as_postgres_tells_them() {
        let times = TimestampMicrosecondArray::from(vec![0, 1_500_000, -1, i64::MAX]).with_timezone("UTC");
        let told = ["1970-01-01 00:00:00+00", "1970-01-01 00:00:01.5+00", "1969-12-31 23:59:59.999999+00", "infinity"];
        assert_eq!(texts(&times), told);
        assert_eq!(texts(&BooleanArray::from(vec![true, false])), ["t", "f"]);
        assert_eq!(
            texts(&Float64Array::from(vec![1.0, 0.1, f64::NAN, f64::INFINITY])),
            ["1", "0.1", "NaN", "Infinity"]
        );
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.values().append_value("a b");
        lists.values().append_null();
        lists.append(true);
        let lists = lists.finish();
        assert_eq!((texts(&lists), kind_of(lists.data_type())), (vec!["{\"a b\",NULL}".to_owned()], TEXT_LIST));
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        maps.keys().append_value("k");
        maps.values().append_value("v\"");
        maps.append(true).unwrap();
        let maps = maps.finish();
        assert_eq!((texts(&maps), kind_of(maps.data_type())), (vec!["{\"k\":\"v\\\"\"}".to_owned()], JSONB));
        assert_eq!(span_text((14, 1, 3_600_000_000 + 1)), "1 year 2 mons 1 day 01:00:00.000001");
    }

    #[test]
    fn binary_values_have_their_length_before_them() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(258), None]));
        let mut out = Vec::new();
        (0..2).for_each(|row| field(&column, row, true, &mut out));
        assert_eq!(out, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2, 255, 255, 255, 255]);
    }

    proptest! {
        #[test]
        fn numbers_are_the_same_in_both_forms(n in any::<i64>(), scale in 0i8..18) {
            let column = Decimal128Array::from(vec![i128::from(n)]).with_precision_and_scale(38, scale).unwrap();
            let mut out = Vec::new();
            as_binary(&column, 0, &mut out);
            prop_assert_eq!(numeric_text(&out).unwrap(), text(&column, 0));
        }

        #[test]
        fn no_number_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = numeric_text(&bytes);
        }
    }
}
