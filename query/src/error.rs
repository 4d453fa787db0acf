//! Why there is no answer: a mistake in what was asked, which knows where it is, or something that failed.

use std::borrow::Borrow;

use datafusion::error::DataFusionError;
use serde::Serialize;
use utoipa::ToSchema;

/// A place in a query: byte offsets, of the first character and after the last.
pub type Span = (usize, usize);

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
            // What has quotes itself stands as it is to be written.
            Some(near) if near.contains(['"', '\\', '\'']) => write!(f, "; did you mean {near} ?"),
            Some(near) => write!(f, "; did you mean \"{near}\"?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SrqlError {}

/// Why there is no answer.
#[derive(Debug)]
pub enum QueryError {
    /// The query is wrong.
    Language(SrqlError),
    /// The cursor is not ours, or not this query's.
    Cursor(&'static str),
    /// The version of the tables that it pages through is not known any more.
    Expired,
    /// What held then is not kept: only what held since a time, microseconds since 1970.
    Forgotten(i64),
    /// It took too long.
    TimedOut,
    /// The token of whoever asked was revoked meanwhile, or is over.
    Ended,
    /// Too many at once.
    Busy,
    /// It needs more memory than there is.
    TooLarge(String),
    /// Something else failed.
    Failed(String),
}

impl From<SrqlError> for QueryError {
    fn from(error: SrqlError) -> Self {
        QueryError::Language(error)
    }
}

/// What DataFusion says, as an error of ours: what is too large and what is the asker's mistake are told apart.
pub(crate) fn failed(error: impl Borrow<DataFusionError>) -> QueryError {
    let error = error.borrow();
    match error.find_root() {
        DataFusionError::ResourcesExhausted(detail) => QueryError::TooLarge(detail.clone()),
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) => {
            QueryError::Language(SrqlError::new("cannot_plan", (0, 0), error.strip_backtrace()))
        }
        _ => QueryError::Failed(error.strip_backtrace()),
    }
}
