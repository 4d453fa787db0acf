//! What intake did and how it is: written by intake and by who looks after the process, read by metrics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use radarflow_proto::clock::{LedgerClock, Shown};

/// What intake did so far; read by metrics.
#[derive(Debug, Default)]
pub struct IntakeStats {
    /// Frames written.
    pub frames: AtomicU64,
    /// Inputs written.
    pub entries: AtomicU64,
    /// Bytes of input written.
    pub bytes: AtomicU64,
    /// Inputs given up because the disk refused.
    pub shed: AtomicU64,
    /// Submissions that nobody waited for any more when their frame was made: they are in none.
    pub given_up: AtomicU64,
    /// Microseconds spent writing and syncing.
    pub write_us: AtomicU64,
    /// The newest durable epoch.
    pub epoch: AtomicU64,
    /// Its clock, milliseconds since 1970.
    pub clock_ms: AtomicU64,
    /// Bytes that wait, telemetry.
    pub queued_bytes: AtomicUsize,
    /// Bytes that wait, of senders who wait with them.
    pub awaited_bytes: AtomicUsize,
    /// Bytes of frames that the dataflow is not done with.
    pub in_flight_bytes: AtomicUsize,
    /// Bytes of segments on disk.
    pub disk_bytes: AtomicU64,
    /// Whether the wall clock is too far off to follow.
    pub clock_held: AtomicU64,
    /// How far the wall is ahead of the clock while it is, milliseconds.
    pub clock_held_by_ms: AtomicI64,
    /// What the wall showed that an operator accepts, milliseconds since 1970, until the clock hears of it; else 0.
    pub(super) clock_accepted_ms: AtomicI64,
    /// Bytes of released runs that a frame reads now.
    pub release_bytes: AtomicU64,
    /// Whether the disk is nearly full: only what people and the program itself say is taken, from the rest of it.
    pub disk_short: AtomicBool,
    /// Whether the record, the lake, has no room for more: only what people and the program itself say is taken.
    pub record_full: AtomicBool,
    /// Whether the process has too little memory: no more telemetry is taken.
    pub memory_short: AtomicBool,
}

impl LedgerClock for IntakeStats {
    fn shown(&self) -> Shown {
        Shown {
            clock_ms: self.clock_ms.load(Ordering::Relaxed) as i64,
            held_by_ms: self.clock_held_by_ms.load(Ordering::Relaxed),
        }
    }

    fn accept(&self, wall_ms: i64) {
        self.clock_accepted_ms.store(wall_ms, Ordering::Relaxed);
    }
}
