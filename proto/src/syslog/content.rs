//! Formats within a message: ArcSight's CEF, IBM's LEEF, and lines of `key=value`, as FortiOS and SonicWall send them. The
//! text stays as it was sent; what it says goes to the attributes.

use super::structured::quoted_value;
use super::time::{self, Receipt};
use super::{Message, nil};

/// A line is one of pairs from so many on.
const MIN_PAIRS: usize = 3;

/// Reads what a message's text says, if it is of such a format; tells which.
pub(super) fn read(receipt: Receipt, m: &mut Message) -> Option<&'static str> {
    let body = std::mem::take(&mut m.body);
    let format = read_body(&body, receipt, m);
    m.body = body;
    format
}

fn read_body(body: &str, receipt: Receipt, m: &mut Message) -> Option<&'static str> {
    if let Some(rest) = body.strip_prefix("CEF:") {
        return cef(rest, m).map(|()| "cef");
    }
    if let Some(rest) = body.strip_prefix("LEEF:") {
        return leef(rest, m).map(|()| "leef");
    }
    let pairs = pairs(body)?;
    m.attributes.extend(pairs);
    let of = |name: &str| m.attributes.get(name).map(String::as_str);
    if let (None, Some(date), Some(time)) = (m.device_us, of("date"), of("time")) {
        m.device_us = time::of_parts(date, time, of("tz"), receipt);
    }
    let (host, id) = (of("devname").and_then(nil), of("logid").and_then(nil));
    m.hostname = m.hostname.take().or(host);
    m.message_id = m.message_id.take().or(id);
    Some("key_value")
}

/// Fields between bars, the escapes `\|` and `\\` taken out, and what follows the last.
fn fields<const N: usize>(text: &str) -> Option<([String; N], &str)> {
    let mut fields = std::array::from_fn(|_| String::new());
    let (mut field, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '|' if !escaped => {
                field += 1;
                if field == N {
                    return Some((fields, &text[at + 1..]));
                }
            }
            c => {
                if escaped && !matches!(c, '|' | '\\') {
                    fields[field].push('\\');
                }
                fields[field].push(c);
            }
        }
        escaped = false;
    }
    // The last may have nothing after it.
    (field + 1 == N).then_some((fields, ""))
}

/// `version|vendor|product|version|signature|name|severity|extension`.
fn cef(text: &str, m: &mut Message) -> Option<()> {
    let ([_, vendor, product, version, signature, name, severity], extension) = fields::<7>(text)?;
    let head = [("cef.vendor", vendor), ("cef.product", product.clone()), ("cef.device_version", version)];
    let head = head.into_iter().chain([("cef.name", name), ("cef.severity", severity)]);
    m.attributes.extend(head.map(|(name, value)| (name.to_owned(), value)));
    for (key, value) in extension_pairs(extension) {
        m.attributes.insert(key.to_owned(), unescaped(value));
    }
    let host = ["dvchost", "deviceHostName", "dvc"].iter().find_map(|name| nil(m.attributes.get(*name)?));
    m.hostname = m.hostname.take().or(host);
    m.app = m.app.take().or(nil(&product));
    m.message_id = m.message_id.take().or(nil(&signature));
    Some(())
}

/// A value of an extension without the escapes `\=`, `\\`, `\n`, `\r`.
fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(escaped @ ('=' | '\\' | '|' | 'n' | 'r'))) => {
                chars.next();
                out.push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                });
            }
            (c, _) => out.push(c),
        }
    }
    out
}

/// `key=value with blanks key=value …`: a value ends where a blank, a key and `=` follow.
fn extension_pairs(text: &str) -> Vec<(&str, &str)> {
    let of_a_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'[' | b']');
    let bytes = text.as_bytes();
    let mut begins: Vec<(usize, usize)> = Vec::new();
    for (at, _) in text.match_indices('=') {
        let key = bytes[..at].iter().rev().take_while(|b| of_a_key(**b)).count();
        let from = at - key;
        if key > 0 && (from == 0 || bytes[from - 1] == b' ') {
            begins.push((from, at));
        }
    }
    let ends = begins.iter().skip(1).map(|(from, _)| *from).chain([text.len()]);
    begins.iter().zip(ends).map(|((from, at), end)| (&text[*from..*at], text[at + 1..end].trim_end())).collect()
}

/// `version|vendor|product|version|event|` and tab-separated pairs; of version 2 the separator follows.
fn leef(text: &str, m: &mut Message) -> Option<()> {
    let ([format, vendor, product, version, event], rest) = fields::<5>(text)?;
    let (separator, pairs) = match rest.split_once('|').filter(|_| format.starts_with('2')) {
        Some((said, pairs)) => (leef_separator(said), pairs),
        None => ('\t', rest),
    };
    let head = [("leef.vendor", vendor), ("leef.product", product.clone()), ("leef.device_version", version)];
    m.attributes.extend(head.map(|(name, value)| (name.to_owned(), value)));
    for (key, value) in pairs.split(separator).filter_map(|pair| pair.split_once('=')) {
        m.attributes.insert(key.trim().to_owned(), value.to_owned());
    }
    m.app = m.app.take().or(nil(&product));
    m.message_id = m.message_id.take().or(nil(&event));
    Some(())
}

/// A character, or its number: `x09`, `0x09`.
fn leef_separator(said: &str) -> char {
    let hex = said.strip_prefix("0x").or_else(|| said.strip_prefix('x')).filter(|hex| !hex.is_empty());
    let number = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
    number.or(said.chars().next()).unwrap_or('\t')
}

/// Pairs and nothing else, separated by blanks; values with blanks in double quotes.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, said) = rest.split_once('=')?;
        let is_key = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !is_key {
            return None;
        }
        let (value, after) = match said.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted)?,
            None => {
                let end = said.find(' ').unwrap_or(said.len());
                (said[..end].to_owned(), &said[end..])
            }
        };
        if !after.is_empty() && !after.starts_with([' ', ',']) {
            return None;
        }
        pairs.push((key.to_owned(), value));
        rest = after.trim_start_matches([' ', ',']);
    }
    (pairs.len() >= MIN_PAIRS).then_some(pairs)
}
