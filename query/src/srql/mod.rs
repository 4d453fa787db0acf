//! SRQL: text to AST ([`parse`]), AST to plan ([`plan`]); what could stand somewhere ([`complete`]). The
//! words there are: [`words`]. Every error knows where it is.

pub mod ast;
pub mod complete;
mod observables;
pub mod parse;
pub mod plan;
pub mod time;
pub mod words;

use serde::Serialize;
use utoipa::ToSchema;

/// A mistake in a query, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
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
    pub fn new(code: &'static str, span: ast::Span, detail: impl Into<String>) -> Self {
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
        let before = &query[..self.start.min(query.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

impl std::fmt::Display for SrqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        match &self.did_you_mean {
            Some(near) => write!(f, "; did you mean {near:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SrqlError {}
