//! Tables: what there is to be asked of, as one version an epoch, and what is asked for by which name.
//!
//! ```text
//! epochs ─► live ─► view: segments of state, fresh rows of events ─┐
//! lake ──────────────────────────────► stored rows, history ───────┴─► the rows that an actor may see
//! ```
//! The tenant, and the partitions an actor is bound to, are enforced here, where a table is handed out.

mod availability;
pub mod catalog;
pub mod codes;
mod corrections;
mod fresh;
mod intervals;
pub(crate) mod led;
pub mod live;
pub(crate) mod names;
pub(crate) mod near;
pub mod past;
pub(crate) mod segment;
pub mod shown;
pub(crate) mod stored;
pub mod view;
