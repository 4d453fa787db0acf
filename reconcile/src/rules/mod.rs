//! Rules: queries whose answers are alerts.
//!
//! A rule is an SRQL query, and holds of each row that the query would return if it were asked at every moment: of each group
//! that its `having:` keeps, or of each row of current state where it has no `stats:`. Of events it asks the span before
//! now that `time:last_5m` says, in steps of a sixtieth of it, one second at least.
//!
//! ```text
//! rows of events  ─► [filter, keys, measures] ─► tallies by group and step ─┐
//! rows of state Δ ─► [filter, keys, measures] ─► tallies by group ──────────┴► [having, for, resolve_for] ─► conditions
//! ```
//!
//! | file | says |
//! |---|---|
//! | [`rule`] | what a rule is, read from its resource |
//! | [`measure`] | what is counted of rows, in parts that are merged in any order |
//! | [`having`] | the condition on what was counted |
//! | [`group`] | one group of a rule: what was counted when, and since when it holds |
//! | [`foreign`] | rules as other systems write them |
//! | [`past`] | when a rule would have held |
//! | [`season`] | what is usual at this hour of the week, and where it leads |
//!
//! Everything is a function of the rows, their times and the clock of each epoch: whole numbers are added, never floats, so that
//! the order of rows does not matter.

pub mod foreign;
pub mod group;
pub mod having;
pub mod measure;
pub mod past;
pub mod rule;
pub mod season;

pub use self::group::{Group, Says};
pub use self::measure::Tally;
pub use self::rule::{Contribution, Rule};

#[cfg(test)]
mod tests;
