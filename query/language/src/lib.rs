//! SRQL as text: what there is to be asked of, what a text says, and what one row says to a filter.
//!
//! Whoever runs queries plans them ([`radarflow_query`]); whoever keeps them right as rows come and go asks each row
//! ([`matching`]). Both read the same text by the same parser, against the same catalog.
//!
//! | file | says |
//! |---|---|
//! | [`catalog`], [`aliases`], [`codes`] | entities and fields; other names of them; labels of numbers |
//! | [`words`], [`time`], [`slices`] | the words there are; instants, durations, spans |
//! | [`parse`], [`ast`] | what a text says |
//! | [`observables`], [`meant`] | terms that stand for others |
//! | [`near`], [`doubts`] | what may have been meant |
//! | [`literals`] | what a literal is for the field it stands beside |
//! | [`cells`], [`matching`] | the cells of a batch; whether a row is like a filter |
//!
//! [`radarflow_query`]: https://docs.rs/radarflow-query
#![forbid(unsafe_code)]

pub mod aliases;
pub mod ast;
pub mod catalog;
pub mod cells;
pub mod codes;
pub mod doubts;
pub mod error;
pub mod literals;
pub mod matching;
pub mod meant;
pub mod near;
pub mod observables;
pub mod parse;
pub mod slices;
pub mod time;
pub mod words;
