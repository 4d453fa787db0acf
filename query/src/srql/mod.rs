//! SRQL: text to AST ([`parse`]), AST to plan ([`plan`]); what could stand somewhere ([`complete`]). The
//! words there are: [`words`]. Every error knows where it is.

pub mod ast;
pub mod complete;
pub mod docs;
mod doubts;
pub mod functions;
pub mod groups;
pub(crate) mod observables;
pub mod parse;
pub mod plan;
mod scope;
pub mod time;
pub mod words;
