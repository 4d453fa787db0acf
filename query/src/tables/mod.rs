//! Tables: what there is to be asked of, as one version an epoch, and what is asked for by which name.
//!
//! ```text
//! epochs ─► live ─► view: segments of state, fresh rows of events ─┐
//! lake ──────────────────────────────► stored rows, what held before ─┴─► the rows that an actor may see
//! ```
//! The tenant, and the partitions an actor is bound to, are enforced here, where a table is handed out: whoever plans over
//! it can ask for no others.
//!
//! | files | say |
//! |---|---|
//! | [`live`], [`recent`] | how epochs become versions, and which epochs are known still |
//! | [`view`], [`state`], [`segment`], [`provider`], [`fresh`] | what a version has, and how it is read |
//! | [`past`], [`intervals`] | what held before, and when |
//! | [`corrections`], [`led`], [`stored`] | whose an event is, by what is known today |
//! | [`catalog`], [`codes`] | entities, fields and values, as questions call them |
//! | [`names`], [`availability`] | what devices are called, and whether they answer, for what is answered without a plan |

mod availability;
mod corrections;
mod fresh;
mod intervals;
pub(crate) mod led;
pub mod live;
pub(crate) mod names;
pub mod past;
mod provider;
pub mod recent;
pub(crate) mod segment;
pub mod shown;
mod state;
pub(crate) mod stored;
pub mod view;

pub use radarflow_language::{aliases, catalog, codes};
