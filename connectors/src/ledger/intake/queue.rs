//! What waits for a frame, and whose turn it is.
//!
//! Queues are a class and tenant each. A frame takes commands and facts first, then what agents say, then telemetry, then
//! chunks of large uploads; within a class the tenant that has least in the frame comes next. Of the room for telemetry a
//! tenant may hold as much as is still free, so that one who floods leaves half to the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use radarflow_proto::frame::{Entry, FRAME_AROUND, Kind, MAX_FRAME, Origin, Range};
use radarflow_proto::ports::{AppendError, Part};
use tokio::sync::oneshot;

/// Largest submission, bytes of a frame: it has one of its own then.
pub const MAX_SUBMISSION: usize = MAX_FRAME - FRAME_AROUND;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD: usize = 64;

/// Inputs that go into one frame together.
pub(super) struct Submission {
    pub(super) parts: Vec<Part>,
    pub(super) ranges: Vec<Range>,
    /// What it counts for while it waits.
    pub(super) bytes: usize,
    /// What it takes in a frame at most.
    pub(super) size: usize,
    /// Who waits for the answer.
    pub(super) done: Option<oneshot::Sender<Result<u64, AppendError>>>,
}

/// What parts take in a frame at most, bytes.
pub(super) fn size(parts: &[Part], ranges: &[Range]) -> usize {
    let parts = parts.iter().map(|(origin, entries)| origin.most_bytes(entries)).sum::<usize>();
    parts + ranges.iter().map(Range::most_bytes).sum::<usize>()
}

/// What entries count for while they wait, bytes.
pub(super) fn cost(entries: &[Entry]) -> usize {
    entries.iter().map(|e| e.body.len() + ENTRY_OVERHEAD).sum()
}

/// Whether an origin's inputs can wait while memory is short: telemetry and large uploads.
pub(super) fn can_wait(origin: &Origin) -> bool {
    class(origin.kind) >= class(Kind::Syslog)
}

/// Whether an origin speaks of the system, not of the network.
pub(super) fn own(origin: &Origin) -> bool {
    origin.kind == Kind::Fact
}

/// Submissions that wait, a queue a class and tenant.
#[derive(Default)]
pub(super) struct Waiting {
    queues: BTreeMap<(u8, String), VecDeque<Submission>>,
    pub(super) bytes: usize,
}

/// Who comes first.
pub(super) fn class(kind: Kind) -> u8 {
    match kind {
        Kind::Fact | Kind::Release | Kind::Counters => 0,
        Kind::Status => 1,
        Kind::Staged => 3,
        _ => 2,
    }
}

impl Waiting {
    pub(super) fn push(&mut self, submission: Submission) {
        self.bytes += submission.bytes;
        let (class, tenant) = match submission.parts.first() {
            Some((origin, _)) => (class(origin.kind), origin.tenant.clone()),
            None => (0, String::new()),
        };
        self.queues.entry((class, tenant)).or_default().push_back(submission);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// A frame's worth: classes in order; within one, the tenant that has least so far. What does not fit into it any more
    /// waits for the next.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Submission> {
        let (mut taken, mut bytes, mut size) = (Vec::new(), 0, 0);
        let mut has: BTreeMap<String, usize> = BTreeMap::new();
        while bytes < limit
            && let Some((class, _)) = self.queues.keys().next().cloned()
        {
            let of_class = self.queues.keys().take_while(|(c, _)| *c == class);
            let Some(key) = of_class.min_by_key(|(_, t)| has.get(t).copied().unwrap_or(0)).cloned() else { break };
            let Some(queue) = self.queues.get_mut(&key) else { break };
            if queue.front().is_some_and(|next| size + next.size > MAX_SUBMISSION) {
                break;
            }
            if let Some(submission) = queue.pop_front() {
                size += submission.size;
                bytes += submission.bytes;
                *has.entry(key.1.clone()).or_default() += submission.bytes;
                taken.push(submission);
            }
            if queue.is_empty() {
                self.queues.remove(&key);
            }
        }
        self.bytes -= bytes;
        taken
    }
}

/// Bytes of telemetry that wait, by tenant, and how many may.
pub(super) struct Tenants {
    waiting: Mutex<BTreeMap<String, usize>>,
    bound: usize,
}

impl Tenants {
    pub(super) fn new(bound: usize) -> Self {
        Tenants { waiting: Mutex::default(), bound }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a tenant if there is some for it.
    pub(super) fn take(&self, tenant: &str, bytes: usize) -> bool {
        let mut waiting = self.lock();
        let free = self.bound.saturating_sub(waiting.values().sum());
        let held = waiting.get(tenant).copied().unwrap_or(0);
        if held + bytes > free {
            return false;
        }
        waiting.insert(tenant.to_owned(), held + bytes);
        true
    }

    pub(super) fn give_back(&self, tenant: &str, bytes: usize) {
        let mut waiting = self.lock();
        if let Some(held) = waiting.get_mut(tenant) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                waiting.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::FRAME_BYTES;
    use super::*;

    fn origin(kind: Kind) -> Arc<Origin> {
        Arc::new(Origin { kind, tenant: "t".into(), partition: "p".into(), feed: "f".into() })
    }

    #[test]
    fn commands_go_first_and_who_floods_leaves_room() {
        let mut waiting = Waiting::default();
        let submit = |waiting: &mut Waiting, kind, tenant: &str, n: usize| {
            for _ in 0..n {
                let feed = "f".to_owned();
                let origin = Arc::new(Origin { kind, tenant: tenant.to_owned(), partition: "p".to_owned(), feed });
                let parts = vec![(origin, vec![])];
                waiting.push(Submission { parts, ranges: vec![], bytes: 1000, size: 1000, done: None });
            }
        };
        submit(&mut waiting, Kind::Staged, "a", 5);
        submit(&mut waiting, Kind::Syslog, "a", 90);
        submit(&mut waiting, Kind::Syslog, "b", 10);
        submit(&mut waiting, Kind::Fact, "b", 1);
        let taken = waiting.take(21_000);
        let of = |kind, tenant: &str| {
            let is = |s: &&Submission| s.parts[0].0.kind == kind && s.parts[0].0.tenant == tenant;
            taken.iter().filter(is).count()
        };
        assert_eq!(taken[0].parts[0].0.kind, Kind::Fact);
        // The command counts: b has one syslog message less.
        assert_eq!((of(Kind::Syslog, "a"), of(Kind::Syslog, "b"), of(Kind::Staged, "a")), (11, 9, 0));
        assert_eq!(waiting.take(usize::MAX).len(), 106 - 21);
        assert!(waiting.is_empty() && waiting.bytes == 0);

        let queue = 128 << 20;
        let tenants = Tenants::new(queue);
        let flood = (0..).take_while(|_| tenants.take("a", 1 << 20)).count();
        assert_eq!(flood, (queue / 2) >> 20);
        assert!(tenants.take("b", queue / 4));
        assert!(!tenants.take("a", 1));
        tenants.give_back("a", queue / 2);
        assert!(tenants.take("a", 1 << 20));
    }

    #[test]
    fn what_does_not_fit_into_a_frame_waits_for_the_next() {
        let mut waiting = Waiting::default();
        let submit = |waiting: &mut Waiting, kind, bytes, size| {
            waiting.push(Submission { parts: vec![(origin(kind), vec![])], ranges: vec![], bytes, size, done: None });
        };
        // A small queue counts what is large only as far as it reaches.
        for size in [MAX_SUBMISSION / 2, MAX_SUBMISSION / 3, MAX_SUBMISSION / 3, MAX_SUBMISSION] {
            submit(&mut waiting, Kind::Status, 1000, size);
        }
        submit(&mut waiting, Kind::Fact, 10, 10);
        let frames: Vec<usize> = std::iter::from_fn(|| {
            let taken = waiting.take(FRAME_BYTES);
            assert!(taken.iter().map(|s| s.size).sum::<usize>() <= MAX_SUBMISSION);
            (!taken.is_empty()).then_some(taken.len())
        })
        .collect();
        assert_eq!((frames, waiting.bytes), (vec![3, 1, 1], 0));
    }
}
