//! Live queries: a snapshot, then exact changes. The sum of what a client received equals a fresh query at that epoch.
//!
//! A query over the rows of one state table, and groups of the rows of one table, events in a span that slides among
//! them, are kept by what comes and goes with each epoch ([`crate::live::kept`]). Every other query (joins, rows of events,
//! percentiles) is asked again when something it reads has changed, and the difference is sent. Neither takes more than a
//! fifth of its time.
//!
//! A client that does not keep up misses epochs; it is told with a fresh snapshot that says so. One that takes nothing at
//! all for a while ([`SLOW`]) is let go, and told with the last event how to go on. One that was cut off says which event it
//! saw last: while the epochs after it are known, a query that is kept row by row goes on from there, and every other begins
//! anew, with a snapshot that says so. It ends with the token of whoever asked.
//!
//! What a stream holds is bounded: [`MAX_ROWS`] rows, [`UNSENT`] events, [`STREAM_BYTES`] of them, [`TENANT_BYTES`] of all of a
//! tenant (one event in any case), and one epoch while it takes it in. Other epochs are held by nobody but [`Live`], for all.
//!
//! | file | says |
//! |---|---|
//! | [`streams`] | which queries are followed, and how far their answers can be kept |
//! | [`stream`], [`events`] | how one is followed, and what its client is told |
//! | [`waiting`] | what may wait for clients |
//! | [`answer`] | what changed since a client was told |
//! | [`kept`], [`window`], [`tally`] | answers, spans that slide, and groups, kept by what comes and goes |
//!
//! [`MAX_ROWS`]: crate::live::kept::MAX_ROWS
//! [`SLOW`]: crate::live::stream::SLOW
//! [`UNSENT`]: crate::live::events::UNSENT
//! [`STREAM_BYTES`]: crate::live::waiting::STREAM_BYTES
//! [`TENANT_BYTES`]: crate::live::waiting::TENANT_BYTES
//! [`Live`]: crate::tables::live::Live

mod answer;
pub mod events;
mod kept;
pub mod stream;
pub mod streams;
mod tally;
pub mod waiting;
mod window;
