//! A mistake in a query, which knows where it is.

use serde::Serialize;
use utoipa::ToSchema;

/// A place in a query: byte offsets, of the first character and after the last.
pub type Span = (usize, usize);

/// A mistake in a query, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, ToSchema)]
#[error("{detail}{}", near(did_you_mean.as_deref()))]
pub struct SrqlError {
    /// Names the kind of mistake.
    pub code: &'static str,
    /// What is wrong, in words.
    pub detail: String,
    /// Byte offset of the first character concerned.
    pub start: usize,
    /// Byte offset after the last.
    pub end: usize,
    /// What could stand there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// The nearest thing that exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
}

impl SrqlError {
    /// A mistake at a place.
    pub fn new(code: &'static str, span: Span, detail: impl Into<String>) -> Self {
        SrqlError { code, detail: detail.into(), start: span.0, end: span.1, expected: Vec::new(), did_you_mean: None }
    }

    /// With what exists nearby.
    #[must_use]
    pub fn suggest(mut self, nearest: Option<&str>) -> Self {
        self.did_you_mean = nearest.map(str::to_owned);
        self
    }

    /// Line and column, from 1, in characters.
    pub fn position(&self, query: &str) -> (usize, usize) {
        let before = &query[..query.floor_char_boundary(self.start)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

fn near(name: Option<&str>) -> String {
    match name {
        // What has quotes itself stands as it is to be written.
        Some(name) if name.contains(['"', '\\', '\'']) => format!("; did you mean {name} ?"),
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => String::new(),
    }
}
