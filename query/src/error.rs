//! Why there is no answer: a mistake in what was asked, which knows where it is, or something that failed.

use std::borrow::Borrow;

use arrow_schema::ArrowError;
use datafusion::error::DataFusionError;
use radarflow_proto::cell::Time;
use serde::Serialize;
use utoipa::ToSchema;

/// A place in a query: byte offsets, of the first character and after the last.
pub type Span = (usize, usize);

/// What is said to whoever was let in by a token that lets nobody in any more.
pub(crate) const OVER: &str = "the token was revoked, or has expired";

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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query is wrong.
    #[error(transparent)]
    Language(#[from] SrqlError),
    /// The cursor is not ours, or not this query's.
    #[error("{0}; start again without a cursor")]
    Cursor(&'static str),
    /// The role does not allow to read this.
    #[error("your role does not allow to read {0}")]
    Forbidden(&'static str),
    /// The version of the tables that it pages through is not known any more.
    #[error("what this cursor pages through is not kept any more; start again without a cursor")]
    Expired,
    /// What held then is not kept: only what held since a time, microseconds since 1970.
    #[error("what held then is not kept; what held since {} is", Time(*.0))]
    Forgotten(i64),
    /// It took too long.
    #[error("the query took too long; narrow its time or its filters")]
    TimedOut,
    /// The token of whoever asked was revoked meanwhile, or is over.
    #[error("{OVER}")]
    Ended,
    /// Too many at once.
    #[error("too many queries at once")]
    Busy,
    /// It needs more memory than there is.
    #[error("{0}")]
    TooLarge(String),
    /// Something else failed.
    #[error("{0}")]
    Failed(String),
}

/// What DataFusion says, as an error of ours: what is too large and what is the asker's mistake are told apart.
pub(crate) fn failed(error: impl Borrow<DataFusionError>) -> QueryError {
    let error = error.borrow();
    match error.find_root() {
        DataFusionError::ResourcesExhausted(detail) => QueryError::TooLarge(detail.clone()),
        DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_) => {
            QueryError::Language(SrqlError::new("cannot_plan", (0, 0), error.strip_backtrace()))
        }
        // Divided by nought, no number, too large for its type: it is the values that were asked for.
        DataFusionError::Execution(_) => {
            QueryError::Language(SrqlError::new("cannot_compute", (0, 0), error.strip_backtrace()))
        }
        DataFusionError::ArrowError(error, _) if !matches!(**error, ArrowError::IoError(..)) => {
            QueryError::Language(SrqlError::new("cannot_compute", (0, 0), error.to_string()))
        }
        _ => QueryError::Failed(error.strip_backtrace()),
    }
}
