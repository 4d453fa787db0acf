//! Live queries: a snapshot, then exact changes, for as long as somebody follows.
//!
//! | file | says |
//! |---|---|
//! | [`stream`] | how a query is followed: what its client is told and when, and what waits for it |
//! | [`kept`] | how an answer is kept by what comes and goes with each epoch |
//! | [`tally`] | how groups are |

mod kept;
pub mod stream;
mod tally;
