//! What Radarflow believes, as pure functions: no I/O, no clock, no dataflow. It is meant to read like the
//! specification; `dataflows` keeps what it says true under change.
//!
//! | module | decides |
//! |---|---|
//! | [`identity`] | what an identifier is, what a record asserts and claims, how a device is named |
//! | [`inventory`] | a device's row, from its records by precedence |
//! | [`enrich`] | what a device is, by rules over what it says of itself |
//! | [`mapping`] | what the columns of any inventory mean |
//! | [`lifecycle`] | what operators make of a device, and what its records do to that |
//! | [`availability`] | whether a target is up, from its probes |
//! | [`alert`] | an alert's life cycle |
//! | [`partial`] | what the sayings of a partial source amount to |
//! | [`replace`] | what a ServiceRadar's inventory says here |
//! | [`routing`] | who is told of which alert, and what holds it back |
//! | [`notifier`] | which notifications of a sender are rows |
//! | [`notify`] | when a group of alerts is told |
//! | [`pairs`] | what one trap begins and another ends |
//! | [`template`] | what a message says whose receiver has its own words |
//! | [`brakes`] | how much one run may do before somebody is asked |
//! | [`access`] | who may do what |
//! | [`condition`] | which devices a condition holds of |
//! | [`reach`] | which devices cannot be seen because another is down |
//! | [`jobs`] | which agent looks at what |
//! | [`rhythm`] | how often a sender speaks, and when it is silent |
//! | [`rules`] | queries whose answers are alerts |
//! | [`rates`] | how fast a counter rises |
//!
//! One failed probe does not make a device unavailable; two in a row do:
//!
//! ```
//! use radarflow_proto::cell::Time;
//! use radarflow_reconcile::availability::{Fold, State, combine};
//!
//! let mut gateway = Fold::default();
//! gateway.add(Time::from_ms(0), 0, true);
//! gateway.add(Time::from_ms(60_000), 60_000, false);
//! assert_eq!(combine([("gateway-1", &gateway.word(60_000))]).state, State::Available);
//! gateway.add(Time::from_ms(120_000), 120_000, false);
//! assert_eq!(combine([("gateway-1", &gateway.word(120_000))]).state, State::Unavailable);
//! ```
#![forbid(unsafe_code)]

pub mod access;
pub mod alert;
pub mod availability;
pub mod brakes;
pub mod condition;
pub mod enrich;
pub mod findings;
pub mod flows;
pub mod identity;
pub mod inventory;
pub mod jobs;
pub mod lifecycle;
pub mod mapping;
pub mod notifier;
pub mod notify;
pub mod pairs;
pub mod parsing;
pub mod partial;
pub mod rates;
pub mod reach;
pub mod replace;
pub mod resources;
pub mod rhythm;
pub mod routing;
pub mod rules;
pub mod template;
mod yaml;
