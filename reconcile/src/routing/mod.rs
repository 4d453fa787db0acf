//! Who is told of which alert, and who is not: the routing tree, silences, inhibition, maintenance and times, as Alertmanager
//! means them.
//!
//! | file | says |
//! |---|---|
//! | [`matcher`] | what a label must be |
//! | [`times`] | when a time interval holds, and when that changes |
//! | [`oncall`] | who is on call |
//! | [`policy`] | what a tenant states, read; where an alert goes, and what holds it back |
//! | [`desk`] | all of it kept up to date for a tenant: what changes for which group |
//! | [`rehearse`] | who would have been told of alerts of the past |
//! | [`import`] | an Alertmanager's configuration, read as resources |

pub mod desk;
pub mod import;
pub mod matcher;
pub mod oncall;
pub mod policy;
pub mod rehearse;
#[cfg(test)]
mod tests;
pub mod times;

pub use self::desk::{Burning, Desk, Entry, GroupName, Left, Said};
pub use self::matcher::Matcher;
pub use self::policy::{Address, Hold, Pace, Policy};
