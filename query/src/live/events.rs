//! What a client is told, in which order, and what it may go on from.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::live::waiting::Room;

/// Events that may wait for a client.
pub const UNSENT: usize = 64;

/// What a client is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Rows as of an epoch; the last part says so. With `reset`, what was sent before no longer counts.
    Snapshot {
        /// Which epoch.
        epoch: u64,
        /// The rows.
        rows: Vec<Value>,
        /// Whether it is complete.
        last: bool,
        /// Whether it is a new one.
        reset: bool,
    },
    /// Rows that came and went.
    Change {
        /// At which epoch.
        epoch: u64,
        /// Came.
        added: Vec<Value>,
        /// Went.
        removed: Vec<Value>,
    },
    /// Everything up to this epoch was sent.
    Frontier(u64),
    /// It cannot go on.
    Failed(String),
    /// The client takes nothing: the server lets it go. Up to this epoch it was told everything.
    TooSlow(Option<u64>),
    /// The server ends it.
    End,
}

impl Event {
    /// What a client that is cut off after it may go on from: it has everything up to this epoch.
    pub fn id(&self) -> Option<String> {
        match self {
            Event::Snapshot { epoch, last: true, .. } | Event::Change { epoch, .. } | Event::Frontier(epoch) => {
                Some(epoch.to_string())
            }
            _ => None,
        }
    }

    /// Its name and data, as server-sent events have them.
    pub fn parts(&self) -> (&'static str, Value) {
        match self {
            Event::Snapshot { epoch, rows, last, reset } => {
                ("snapshot", json!({"epoch": epoch, "rows": rows, "last": last, "reset": reset}))
            }
            Event::Change { epoch, added, removed } => {
                ("change", json!({"epoch": epoch, "added": added, "removed": removed}))
            }
            Event::Frontier(epoch) => ("frontier", json!({"epoch": epoch})),
            Event::Failed(detail) => ("error", json!({"detail": detail})),
            Event::TooSlow(seen) => {
                let detail = "the client took nothing for too long; ask again, with Last-Event-ID, to go on";
                (
                    "end",
                    json!({"reason": "too_slow", "last_event_id": seen.map(|seen| seen.to_string()), "detail": detail}),
                )
            }
            Event::End => ("end", json!({})),
        }
    }

    /// It takes so many bytes, about.
    pub(super) fn weight(&self) -> usize {
        let rows = |rows: &[Value]| rows.iter().map(weight).sum::<usize>();
        match self {
            Event::Snapshot { rows: all, .. } => 64 + rows(all),
            Event::Change { added, removed, .. } => 64 + rows(added) + rows(removed),
            _ => 64,
        }
    }
}

/// A value takes so many bytes, about.
fn weight(value: &Value) -> usize {
    let more = match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(weight).sum(),
        Value::Object(all) => all.iter().map(|(key, value)| key.len() + 32 + weight(value)).sum(),
        _ => 0,
    };
    32 + more
}

/// The events of a stream, as its client takes them.
pub struct Events {
    pub(super) queue: mpsc::Receiver<(Event, Room)>,
    pub(super) last: Arc<Mutex<Option<Event>>>,
}

impl Events {
    /// The next one; after the last nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        match self.queue.recv().await {
            Some((event, _room)) => Some(event),
            // It ends without waiting for its client to take what is left.
            None => self.last.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_weighed_by_what_they_hold() {
        let row = |n: usize| json!({"hostname": "x".repeat(n)});
        let change = |rows| Event::Change { epoch: 1, added: rows, removed: vec![] };
        assert!(change(vec![row(10_000)]).weight() > 10_000);
        assert!(change(vec![row(0); 100]).weight() > 100 * "hostname".len());
        assert!(Event::Frontier(1).weight() > 0);
    }
}
