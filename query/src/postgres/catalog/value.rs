//! Values of catalogs: few kinds, compared as Postgres compares a column with a literal.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::postgres::kinds::{self, Oid};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Whole(i64),
    Real(f64),
    Text(Arc<str>),
    List(Arc<[Value]>),
    Record(Arc<[Value]>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into())
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Bool(is)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Value {
        Value::Whole(n)
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Value {
        Value::Whole(n.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl Value {
    pub(crate) fn list(items: impl IntoIterator<Item = Value>) -> Value {
        Value::List(items.into_iter().collect())
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Whether it is true; missing is not.
    pub(crate) fn holds(&self) -> bool {
        match self {
            Value::Bool(is) => *is,
            Value::Text(text) => boolean(text) == Some(true),
            _ => false,
        }
    }

    pub(crate) fn whole(&self) -> Option<i64> {
        match self {
            Value::Whole(n) => Some(*n),
            #[expect(clippy::cast_possible_truncation, reason = "what is beyond is cut")]
            Value::Real(x) => Some(x.round() as i64),
            Value::Bool(is) => Some((*is).into()),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn real(&self) -> Option<f64> {
        match self {
            Value::Whole(n) => Some(*n as f64),
            Value::Real(x) => Some(*x),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The items of a list, also of one that is written as text.
    pub(crate) fn items(&self) -> Option<Arc<[Value]>> {
        match self {
            Value::List(items) => Some(items.clone()),
            Value::Text(text) => literal(text).map(Into::into),
            _ => None,
        }
    }

    /// As a cast to text writes it.
    pub(crate) fn text(&self) -> Arc<str> {
        match self {
            Value::Text(text) => text.clone(),
            Value::Bool(true) => "true".into(),
            Value::Bool(false) => "false".into(),
            other => other.shown().into(),
        }
    }

    /// As an answer shows it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Bool(is) => if *is { "t" } else { "f" }.to_owned(),
            Value::Whole(n) => n.to_string(),
            Value::Real(x) => x.to_string(),
            Value::Text(text) => text.to_string(),
            Value::List(items) => enclosed(items, ['{', '}'], "NULL"),
            Value::Record(fields) => enclosed(fields, ['(', ')'], ""),
        }
    }

    /// The order of two values; none where one is missing.
    pub(crate) fn compare(&self, other: &Value) -> Option<Ordering> {
        Some(match (self, other) {
            (Value::Null, _) | (_, Value::Null) => return None,
            (Value::Whole(a), Value::Whole(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Bool(a), Value::Text(b)) if boolean(b).is_some() => Some(*a).cmp(&boolean(b)),
            (Value::Text(_), Value::Bool(_)) => return other.compare(self).map(Ordering::reverse),
            (Value::List(a), _) if let Some(b) = other.items() => ordered(a, &b),
            (_, Value::List(b)) if let Some(a) = self.items() => ordered(&a, b),
            (Value::Record(a), Value::Record(b)) => ordered(a, b),
            _ => match (self.real(), other.real()) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                _ => self.text().as_bytes().cmp(other.text().as_bytes()),
            },
        })
    }

    /// The order of rows: what is missing comes last.
    pub(crate) fn rank(&self, other: &Value) -> Ordering {
        self.compare(other).unwrap_or_else(|| self.is_null().cmp(&other.is_null()))
    }

    /// Bytes it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Value>()
            + match self {
                Value::Text(text) => text.len(),
                Value::List(items) | Value::Record(items) => items.iter().map(Value::bytes).sum(),
                _ => 0,
            }
    }
}

fn ordered(a: &[Value], b: &[Value]) -> Ordering {
    let differ = a.iter().zip(b).map(|(a, b)| a.rank(b)).find(|order| order.is_ne());
    differ.unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// What a text says of true and false.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn enclosed(items: &[Value], [open, close]: [char; 2], missing: &str) -> String {
    let mut out = String::from(open);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match item {
            Value::Null => out.push_str(missing),
            Value::List(_) => out.push_str(&item.shown()),
            item => quoted(&item.shown(), &mut out),
        }
    }
    out.push(close);
    out
}

/// An item of a list, in quotes where it needs them.
pub(crate) fn quoted(text: &str, out: &mut String) {
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | '(' | ')' | ',' | '"' | '\\'));
    if plain {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// The items of a list that is written as text: `{a,"b c",NULL}`. Lists in lists are not read.
fn literal(text: &str) -> Option<Vec<Value>> {
    let mut inside = text.trim().strip_prefix('{')?.strip_suffix('}')?.chars().peekable();
    let mut items = Vec::new();
    if inside.peek().is_none() {
        return Some(items);
    }
    loop {
        let (mut item, mut quotes) = (String::new(), false);
        let mut open = false;
        let more = loop {
            match inside.next() {
                None => break false,
                Some(',') if !open => break true,
                Some('"') => (open, quotes) = (!open, true),
                Some('\\') => item.extend(inside.next()),
                Some('{' | '}') if !open => return None,
                Some(c) => item.push(c),
            }
        };
        let bare = item.trim();
        items.push(match quotes {
            false if bare.eq_ignore_ascii_case("null") => Value::Null,
            false => bare.into(),
            true => item.into(),
        });
        if !more {
            return Some(items);
        }
    }
}

/// A value as an answer shows it, whose type it is: what is numbered and shown by name has its name from `name`.
pub(crate) fn told(value: &Value, kind: Oid, name: impl Fn(Oid, Oid) -> Option<String>) -> String {
    match value {
        Value::Whole(n) if kinds::is_reference(kind) => {
            let found = Oid::try_from(*n).ok().and_then(|oid| name(kind, oid));
            found.unwrap_or_else(|| if *n == 0 { "-".to_owned() } else { n.to_string() })
        }
        Value::List(items) if matches!(kind, kinds::INT2VECTOR | kinds::OIDVECTOR) => {
            let mut out = String::new();
            for (at, item) in items.iter().enumerate() {
                let _ = write!(out, "{}{}", if at > 0 { " " } else { "" }, item.shown());
            }
            out
        }
        value => value.shown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_are_written() {
        let list = Value::list(["a".into(), "b c".into(), Value::Null, "null".into(), "x\"y\\".into(), "".into()]);
        let text = list.shown();
        assert_eq!(text, r#"{a,"b c",NULL,"null","x\"y\\",""}"#);
        assert_eq!(Value::from(text.as_str()).items().unwrap(), list.items().unwrap());
        for (text, items) in [("{}", Some(0)), ("{0}", Some(1)), ("{{a}}", None), ("x", None), ("{a", None)] {
            let read = Value::from(text).items().map(|items| items.len());
            assert_eq!(read, items, "{text}");
        }
    }

    #[test]
    fn literals_are_compared_by_the_column() {
        let is = |a: Value, b: Value| a.compare(&b).map(Ordering::is_eq);
        assert_eq!(is(Value::Whole(16384), "16384".into()), Some(true));
        assert_eq!(is(true.into(), "t".into()), Some(true));
        assert_eq!(is(Value::Null, Value::Null), None);
        assert_eq!(is(Value::list([Value::Whole(0)]), "{0}".into()), Some(true));
        assert_eq!(is(Value::Whole(1), "one".into()), Some(false));
    }
}
