//! What is wrong with a configuration, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Where something was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// In the file, from 1.
    Line { line: usize, column: usize },
    /// In a variable of the environment.
    Variable(String),
    /// Nowhere: it is what holds where nothing is said.
    Nowhere,
}

impl At {
    /// A place of a text, by bytes; a column counts characters.
    pub(super) fn of(text: &str, at: usize) -> At {
        let before = text.get(..at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        At::Line { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

/// A mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mistake {
    pub(crate) at: At,
    pub(crate) said: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Line { line, column } => write!(f, "line {line}, column {column}: {}", self.said),
            At::Variable(name) => write!(f, "environment variable {name}: {}", self.said),
            At::Nowhere => f.write_str(&self.said),
        }
    }
}

/// Where keys stand: `netflow.1.addr`, of lists by number from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<String, At>);

impl Places {
    pub(super) fn new(table: &DeTable<'_>, at: impl Fn(Option<Range<usize>>) -> At) -> Places {
        let mut places = Places::default();
        places.note(table, "", &at);
        places
    }

    fn note(&mut self, table: &DeTable<'_>, before: &str, at: &impl Fn(Option<Range<usize>>) -> At) {
        for (key, value) in table {
            let path =
                if before.is_empty() { key.get_ref().to_string() } else { format!("{before}.{}", key.get_ref()) };
            self.value(value.get_ref(), value.span(), path, at);
        }
    }

    fn value(
        &mut self,
        value: &DeValue<'_>,
        span: Range<usize>,
        path: String,
        at: &impl Fn(Option<Range<usize>>) -> At,
    ) {
        match value {
            DeValue::Table(inner) => self.note(inner, &path, at),
            DeValue::Array(list) => {
                for (n, item) in list.iter().enumerate() {
                    self.value(item.get_ref(), item.span(), format!("{path}.{n}"), at);
                }
            }
            _ => {}
        }
        self.0.insert(path, at(Some(span)));
    }

    /// Where a key stands, or the section that it would be in.
    pub(crate) fn at(&self, path: &str) -> At {
        let mut path = path;
        loop {
            if let Some(at) = self.0.get(path) {
                return at.clone();
            }
            match path.rsplit_once('.') {
                Some((section, _)) => path = section,
                None => return At::Nowhere,
            }
        }
    }
}
