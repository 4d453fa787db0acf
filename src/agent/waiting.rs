//! Results that wait for the gateway: bounded, the oldest go first and are counted.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use radarflow_proto::payload::ProbeFound;
use tokio::sync::Notify;

/// Results that wait at most.
pub(crate) const MAX_WAITING: usize = 100_000;
/// What one takes with its texts, bytes, about.
pub(crate) const FOUND_BYTES: usize = 400;

/// They, the oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    inner: Mutex<Inner>,
    more: Notify,
}

#[derive(Default)]
struct Inner {
    results: VecDeque<ProbeFound>,
    /// Gone since somebody was told last.
    lost: u64,
}

impl Waiting {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A result more.
    pub(super) fn push(&self, found: ProbeFound) {
        self.with(|inner| {
            inner.results.push_back(found);
            while inner.results.len() > MAX_WAITING {
                inner.results.pop_front();
                inner.lost += 1;
            }
        });
        self.more.notify_one();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.with(|inner| inner.results.len())
    }

    /// Waits until there are some.
    pub(super) async fn some(&self) {
        while self.with(|inner| inner.results.is_empty()) {
            self.more.notified().await;
        }
    }

    /// Takes so many of the oldest.
    pub(super) fn take(&self, most: usize) -> Vec<ProbeFound> {
        self.with(|inner| {
            let n = most.min(inner.results.len());
            inner.results.drain(..n).collect()
        })
    }

    /// Gives back what was not delivered, in its place, as far as there is room.
    pub(super) fn back(&self, results: Vec<ProbeFound>) {
        self.with(|inner| {
            for found in results.into_iter().rev() {
                if inner.results.len() < MAX_WAITING {
                    inner.results.push_front(found);
                } else {
                    inner.lost += 1;
                }
            }
        });
        self.more.notify_one();
    }

    /// How many were lost of which nobody was told yet.
    pub(super) fn lost(&self) -> u64 {
        self.with(|inner| inner.lost)
    }

    /// So many of them were told.
    pub(super) fn told(&self, lost: u64) {
        self.with(|inner| inner.lost = inner.lost.saturating_sub(lost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(n: usize) -> ProbeFound {
        ProbeFound { at_us: n as i64, ..ProbeFound::default() }
    }

    #[test]
    fn the_oldest_go_first_and_are_counted_and_what_comes_back_keeps_its_place() {
        let waiting = Waiting::default();
        (0..MAX_WAITING + 3).for_each(|n| waiting.push(found(n)));
        assert_eq!(waiting.lost(), 3);
        waiting.told(3);
        let taken = waiting.take(2);
        assert_eq!(taken.iter().map(|f| f.at_us).collect::<Vec<_>>(), [3, 4]);
        waiting.back(taken);
        assert_eq!(waiting.take(1)[0].at_us, 3);
        waiting.push(found(9));
        waiting.push(found(10));
        assert_eq!(waiting.lost(), 1);
        waiting.told(1);
        waiting.back(vec![found(3)]);
        assert_eq!((waiting.lost(), waiting.take(1)[0].at_us), (1, 5));
    }
}
