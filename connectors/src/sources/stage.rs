//! Large uploads: durable as they come, in pieces that the dataflow can read a share at a time, applied when they end.
//!
//! A run's chunks are staged under its name; its last entry releases or discards them. Whoever stages waits while there
//! is no [`StagingSpace`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::payload::{Listing, StagedHead};
use radarflow_proto::ports::{AppendError, Appender};
use radarflow_proto::wire::put_sized;
use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::entry;

/// A payload above it is staged in pieces of about this, bytes.
pub const PIECE_BYTES: usize = 128 << 10;
/// Bytes of staged runs, in memory and on disk, above which new ones wait.
pub const STAGED_BYTES: u64 = 4 << 30;

/// Whether there is space for what is staged.
pub type StagingSpace = Arc<dyn Fn() -> bool + Send + Sync>;

/// Waits while too much is staged.
pub(super) async fn wait(space: &StagingSpace) {
    while !space() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A run that is being staged.
pub(super) struct Staging {
    appender: Arc<dyn Appender>,
    chunks: Arc<Origin>,
    marker: Arc<Origin>,
    peer: Option<SocketAddr>,
    run: String,
    next: u32,
}

impl Staging {
    /// A run of its own, of whoever `origin` speaks for.
    pub(super) fn new(appender: Arc<dyn Appender>, origin: &Origin, peer: Option<SocketAddr>) -> Self {
        let of_kind = |kind| Arc::new(Origin { kind, ..origin.clone() });
        let (chunks, marker) = (of_kind(Kind::Staged), of_kind(Kind::Release));
        let run = hex::encode(rand::random::<[u8; 16]>());
        Staging { appender, chunks, marker, peer, run, next: 0 }
    }

    /// Makes the next entries durable.
    pub(super) async fn push(&mut self, entries: &[Entry]) -> Result<(), AppendError> {
        let pieces = self.pieces(entries);
        if pieces.is_empty() {
            return Ok(());
        }
        self.appender.append(self.chunks.clone(), pieces).await.map(drop)
    }

    /// Ends the run; whatever lists everything its source has says so.
    pub(super) async fn end(self, release: bool, listing: Option<Listing>) -> Result<u64, AppendError> {
        let end = vec![self.marker(release, listing)];
        self.appender.append(self.marker, end).await
    }

    /// All of a run at once, in one frame.
    pub(super) async fn whole(mut self, entries: &[Entry]) -> Result<u64, AppendError> {
        let pieces = self.pieces(entries);
        let end = vec![self.marker(true, None)];
        self.appender.append_all(vec![(self.chunks, pieces), (self.marker, end)], Vec::new()).await
    }

    /// Entries as chunks, numbered on.
    fn pieces(&mut self, entries: &[Entry]) -> Vec<Entry> {
        let mut chunks: Vec<Vec<u8>> = Vec::new();
        for e in entries {
            if chunks.last().is_none_or(|chunk| chunk.len() >= PIECE_BYTES) {
                chunks.push(line(&StagedHead {
                    run: self.run.clone(),
                    chunk: self.next,
                    release: false,
                    listing: None,
                }));
                self.next += 1;
            }
            if let Some(chunk) = chunks.last_mut() {
                put_sized(chunk, &e.body);
            }
        }
        chunks.into_iter().map(|chunk| entry(self.peer, chunk)).collect()
    }

    fn marker(&self, release: bool, listing: Option<Listing>) -> Entry {
        entry(self.peer, line(&StagedHead { run: self.run.clone(), chunk: self.next, release, listing }))
    }
}

/// The line a staged entry begins with.
fn line(head: &StagedHead) -> Vec<u8> {
    let mut line = serde_json::to_vec(head).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A large array of items as several. Its items go over one by one: a list of digits would be many times its bytes.
pub(super) fn split_array(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    struct Split;
    impl<'de> Visitor<'de> for Split {
        type Value = Vec<Vec<u8>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut pieces: Vec<Vec<u8>> = Vec::new();
            while let Some(item) = items.next_element::<&RawValue>()? {
                match pieces.last_mut() {
                    Some(piece) if piece.len() < PIECE_BYTES => {
                        piece.push(b',');
                        piece.extend_from_slice(item.get().as_bytes());
                    }
                    _ => pieces.push([b"[", item.get().as_bytes()].concat()),
                }
            }
            pieces.iter_mut().for_each(|piece| piece.push(b']'));
            Ok(pieces)
        }
    }
    serde_json::Deserializer::from_slice(message).deserialize_seq(Split).ok()
}
