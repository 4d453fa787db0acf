//! Why there is no answer: a mistake in what was asked, which knows where it is, or something that failed.

use std::borrow::Borrow;

use arrow_schema::ArrowError;
use datafusion::error::DataFusionError;
pub use radarflow_language::error::{Span, SrqlError};
use radarflow_proto::cell::Time;

/// What is said to whoever was let in by a token that lets nobody in any more.
pub(crate) const OVER: &str = "the token was revoked, or has expired";

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
