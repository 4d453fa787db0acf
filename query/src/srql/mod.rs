//! SRQL: text to AST, AST to plan. Every error knows where it is.
//!
//! | file | says |
//! |---|---|
//! | [`words`], [`time`] | the words there are; instants, durations and spans |
//! | [`parse`], [`ast`] | what a text says |
//! | [`observables`], [`groups`] | terms that stand for others |
//! | [`plan`], [`functions`] | what it means, over the tables |
//! | [`complete`], [`docs`] | what could stand somewhere, and all there is |

pub mod ast;
pub mod complete;
pub mod docs;
pub mod functions;
pub mod groups;
mod meant;
mod observables;
pub mod parse;
pub mod plan;
pub(crate) mod redirects;
pub mod slices;
pub mod time;
pub mod words;

use crate::error::SrqlError;

/// The AST of a query, for tools.
///
/// # Errors
/// The first mistake, and where it is.
pub fn check(text: &str) -> Result<ast::Query, SrqlError> {
    let query = parse::parse(text)?;
    plan::entities(&query)?;
    Ok(query)
}
