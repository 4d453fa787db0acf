//! SRQL: text to AST, AST to plan. Every error knows where it is.
//!
//! | file | says |
//! |---|---|
//! | [`words`], [`time`] | the words there are; instants, durations and spans |
//! | [`parse`], [`ast`] | what a text says |
//! | [`observables`], [`groups`] | terms that stand for others |
//! | [`plan`], [`functions`], [`percentile`], [`quantiles`] | what it means, over the tables |
//! | [`complete`], [`docs`] | what could stand somewhere, and all there is |

pub mod complete;
pub mod docs;
pub mod functions;
pub mod groups;
mod percentile;
pub mod plan;
mod quantiles;
pub(crate) mod redirects;
mod scope;

pub use radarflow_language::{ast, parse, slices, time, words};
pub(crate) use radarflow_language::{meant, near, observables};
