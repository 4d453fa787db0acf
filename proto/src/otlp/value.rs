//! `AnyValue` as text: a scalar as itself, what is nested as JSON, bytes in base64 (the mapping of OpenTelemetry's specification).

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::fields::{Fields, Malformed, Value};

/// How deep values may be nested in each other.
pub const MAX_DEPTH: usize = 32;
/// Attributes that are kept of a record, a resource or a scope; more are counted as dropped.
pub const MAX_ATTRIBUTES: usize = 1024;

/// Names and values, and how many there were beyond those.
pub type Attributes = (BTreeMap<String, String>, u64);

const TOO_DEEP: Malformed = Malformed("values that are nested deeper than 32");

/// The field of a value that counts: of several the last.
fn said(any: &[u8]) -> Result<Option<(u32, Value<'_>)>, Malformed> {
    let mut last = None;
    for field in Fields::of(any) {
        let (number, value) = field?;
        if (1..=7).contains(&number) {
            last = Some((number, value));
        }
    }
    Ok(last)
}

/// A value as a text; nothing where it is empty.
pub(super) fn text(any: &[u8]) -> Result<Option<String>, Malformed> {
    Ok(match said(any)? {
        None => None,
        Some((1, value)) => Some(value.text()?),
        Some((2, value)) => Some((value.number()? != 0).to_string()),
        Some((3, value)) => Some((value.number()? as i64).to_string()),
        Some((4, value)) => Some(value.double()?.to_string()),
        Some((7, value)) => Some(BASE64_STANDARD.encode(value.bytes()?)),
        Some(_) => {
            let mut out = String::new();
            json(any, MAX_DEPTH, &mut out)?;
            Some(out)
        }
    })
}

/// Appends a value as JSON.
fn json(any: &[u8], depth: usize, out: &mut String) -> Result<(), Malformed> {
    let within = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    match said(any)? {
        None => out.push_str("null"),
        Some((1, value)) => quote(&String::from_utf8_lossy(value.bytes()?), out),
        Some((2, value)) => out.push_str(if value.number()? != 0 { "true" } else { "false" }),
        Some((3, value)) => out.push_str(&(value.number()? as i64).to_string()),
        Some((4, value)) => real(value.double()?, out),
        Some((5, value)) => {
            out.push('[');
            let mut first = true;
            for field in Fields::of(value.bytes()?) {
                if let (1, item) = field? {
                    comma(&mut first, out);
                    json(item.bytes()?, within, out)?;
                }
            }
            out.push(']');
        }
        Some((6, value)) => {
            out.push('{');
            let mut first = true;
            for field in Fields::of(value.bytes()?) {
                if let (1, pair) = field? {
                    let (key, value) = key_value(pair.bytes()?)?;
                    comma(&mut first, out);
                    quote(&String::from_utf8_lossy(key), out);
                    out.push(':');
                    json(value, within, out)?;
                }
            }
            out.push('}');
        }
        Some((_, value)) => quote(&BASE64_STANDARD.encode(value.bytes()?), out),
    }
    Ok(())
}

/// Appends a comma before all but the first.
pub(super) fn comma(first: &mut bool, out: &mut String) {
    if !std::mem::take(first) {
        out.push(',');
    }
}

/// Appends a text as JSON.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Appends a number as JSON; what JSON has no number for as a text.
pub(super) fn real(n: f64, out: &mut String) {
    match serde_json::Number::from_f64(n) {
        Some(n) => out.push_str(&n.to_string()),
        None => quote(&n.to_string(), out),
    }
}

fn key_value(pair: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut key, mut any) = (&[][..], &[][..]);
    for field in Fields::of(pair) {
        match field? {
            (1, value) => key = value.bytes()?,
            (2, value) => any = value.bytes()?,
            _ => {}
        }
    }
    Ok((key, any))
}

/// Takes in one attribute. Of those of one name the first counts; one without a value is an empty text.
pub(super) fn attribute(pair: Value<'_>, (known, dropped): &mut Attributes) -> Result<(), Malformed> {
    let (key, any) = key_value(pair.bytes()?)?;
    let value = text(any)?.unwrap_or_default();
    if known.len() >= MAX_ATTRIBUTES {
        *dropped += 1;
        return Ok(());
    }
    known.entry(String::from_utf8_lossy(key).into_owned()).or_insert(value);
    Ok(())
}
