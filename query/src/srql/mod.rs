//! SRQL: text to AST, AST to plan. Every error knows where it is.
//!
//! | file | says |
//! |---|---|
//! | [`words`], [`time`] | the words there are; instants, durations and spans |
//! | [`parse`], [`ast`] | what a text says |
//! | [`observables`], [`groups`] | terms that stand for others |
//! | [`plan`], [`functions`], [`percentile`], [`quantiles`] | what it means, over the tables |
//! | [`complete`], [`docs`] | what could stand somewhere, and all there is |

pub mod ast;
pub mod complete;
pub mod docs;
mod doubts;
pub mod functions;
pub mod groups;
mod meant;
pub(crate) mod near;
mod observables;
pub mod parse;
mod percentile;
pub mod plan;
mod quantiles;
pub(crate) mod redirects;
mod scope;
pub mod slices;
pub mod time;
pub mod words;
