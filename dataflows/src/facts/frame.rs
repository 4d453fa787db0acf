//! The facts of a frame, decoded once: workers share what comes out.

use std::sync::Arc;

use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Entry, Frame, Kind, Slice};

/// An entry that should be a fact.
#[derive(Clone, Debug)]
pub struct FrameFact {
    slice: usize,
    entry: usize,
    /// The fact, or why it is none.
    pub fact: Result<Arc<Fact>, String>,
}

/// The facts of one frame, in the order of their positions.
#[derive(Clone, Debug, Default)]
pub struct FrameFacts(Vec<FrameFact>);

impl FrameFacts {
    /// Decodes all facts of a frame.
    pub fn decode(frame: &Frame) -> Self {
        let slices = frame.slices.iter().enumerate().filter(|(_, slice)| slice.origin.kind == Kind::Fact);
        let facts = slices.flat_map(|(nth, slice)| {
            slice.entries.iter().enumerate().map(move |(entry, Entry { body, .. })| {
                let fact = serde_json::from_slice(body).map(Arc::new).map_err(|error| format!("not a fact: {error}"));
                FrameFact { slice: nth, entry, fact }
            })
        });
        FrameFacts(facts.collect())
    }

    /// Each with where it stands in the frame that it was decoded of: its slice, and its place there.
    pub fn entries<'a>(&'a self, frame: &'a Frame) -> impl Iterator<Item = (&'a FrameFact, &'a Slice, usize)> {
        self.0.iter().map(|fact| (fact, &frame.slices[fact.slice], fact.entry))
    }

    /// Whether one of them asks for a snapshot.
    pub fn asks_for_snapshot(&self) -> bool {
        self.0.iter().any(|f| f.fact.as_ref().is_ok_and(|fact| matches!(**fact, Fact::Snapshot)))
    }
}
