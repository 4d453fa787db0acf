//! SRQL: text to AST ([`parse`]), AST to plan ([`plan`]); what could stand somewhere ([`complete`]). The
//! words there are: [`words`]. Every error knows where it is.

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
