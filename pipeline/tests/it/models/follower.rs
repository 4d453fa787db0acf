//! Who follows changes: one is told every epoch, keeps so many that its client has not taken, and is ended beyond that with
//! the epoch it may go on from.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use radarflow_pipeline::consumers::{Consumer, tap};
use radarflow_proto::ports::EpochOutput;

#[derive(Default)]
struct Stream {
    /// What its client has not taken.
    unsent: VecDeque<u64>,
    /// The newest epoch that its client took, or began at.
    seen: Option<u64>,
    ended: bool,
}

/// A stream and its client.
#[derive(Clone)]
pub struct Follower {
    stream: Arc<Mutex<Stream>>,
    /// Epochs that may wait for the client.
    room: usize,
}

impl Follower {
    pub fn new(room: usize) -> Follower {
        Follower { stream: Arc::default(), room }
    }

    /// The stream's side.
    pub fn consumer(&self) -> Arc<dyn Consumer> {
        let (stream, room) = (self.stream.clone(), self.room);
        tap("follower", move |output: &Arc<EpochOutput>| {
            let mut stream = stream.lock().unwrap();
            if stream.ended {
                return;
            }
            stream.unsent.push_back(output.epoch);
            if stream.unsent.len() > room {
                // Nothing is kept for one that takes nothing.
                stream.unsent.clear();
                stream.ended = true;
            }
        })
    }

    /// The client takes what waits: each epoch once, and in order.
    pub fn read(&self) {
        let mut stream = self.stream.lock().unwrap();
        while let Some(epoch) = stream.unsent.pop_front() {
            assert!(stream.seen.is_none_or(|seen| seen + 1 == epoch), "{epoch} comes after {:?}", stream.seen);
            stream.seen = Some(epoch);
        }
    }

    /// Epochs that are kept for it.
    pub fn waiting(&self) -> usize {
        self.stream.lock().unwrap().unsent.len()
    }

    /// Whether it was ended.
    pub fn is_ended(&self) -> bool {
        self.stream.lock().unwrap().ended
    }

    /// A client that was ended comes again, and goes on with what is told from now on: it asks for the rest.
    pub fn resume(&self) {
        let mut stream = self.stream.lock().unwrap();
        (stream.ended, stream.seen) = (false, None);
    }

    pub fn seen(&self) -> Option<u64> {
        self.stream.lock().unwrap().seen
    }
}
