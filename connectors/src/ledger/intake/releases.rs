//! Large uploads are read by the dataflow in shares ([`Frame::release_bytes`](radarflow_proto::frame::Frame)).
//!
//! A share is given only when none is under way, so that nothing queues behind two of them, and the least one where the
//! dataflow is behind; it grows while epochs with one take less than [`WORK`] and shrinks while they take longer.

use std::time::Duration;

/// Dataflow time that a frame may cost.
pub(super) const WORK: Duration = Duration::from_millis(50);
/// Least share of released runs a frame, bytes.
const LEAST: u32 = 64 << 10;
/// The first.
const FIRST: u32 = 256 << 10;
/// The greatest.
const GREATEST: u32 = 16 << 20;

/// What share of released runs the next frame reads.
pub(super) struct Releases {
    /// The epoch that has a share and is not complete, and when it was closed by the monotonic clock.
    under_way: Option<(u64, Duration)>,
    bytes: u32,
}

impl Default for Releases {
    fn default() -> Self {
        Releases { under_way: None, bytes: FIRST }
    }
}

impl Releases {
    /// The share, bytes.
    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// What the next frame reads, bytes: `released` runs wait, and the dataflow is done with the last frame and wants more.
    pub(super) fn share(&self, released: bool, wants_more: bool) -> u32 {
        match self.under_way {
            Some(_) => 0,
            None if wants_more => self.bytes,
            // Under a load that never lets it catch up, uploads still come to their end.
            None if released => LEAST,
            None => 0,
        }
    }

    /// An epoch has a share.
    pub(super) fn given(&mut self, epoch: u64, now: Duration) {
        self.under_way = Some((epoch, now));
    }

    /// The dataflow is done with an epoch: the share follows from the time that the last one took.
    pub(super) fn adapt(&mut self, done: u64, now: Duration) {
        let Some((_, since)) = self.under_way.take_if(|(epoch, _)| done >= *epoch) else { return };
        let took = now.saturating_sub(since);
        if took > WORK {
            self.bytes = (self.bytes / 2).max(LEAST);
        } else if took < WORK * 2 / 3 {
            self.bytes = (self.bytes / 4 * 5).min(GREATEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_follows_from_the_time_that_the_last_one_took() {
        let (mut releases, mut now, mut epoch) = (Releases::default(), Duration::from_secs(5), 0);
        let mut turn = |releases: &mut Releases, took: Duration| {
            epoch += 1;
            releases.given(epoch, now);
            assert_eq!(releases.share(true, true), 0, "one at a time");
            releases.adapt(epoch - 1, now + took);
            assert_eq!(releases.share(true, true), 0, "it is not done with it");
            now += took;
            releases.adapt(epoch, now);
            releases.share(true, true)
        };
        assert_eq!((releases.share(false, false), releases.share(true, false)), (0, LEAST));
        assert!(turn(&mut releases, WORK / 2) > FIRST);
        let shares: Vec<u32> = (0..30).map(|_| turn(&mut releases, WORK / 2)).collect();
        assert!(shares.is_sorted() && shares[29] == GREATEST);
        assert_eq!(turn(&mut releases, WORK * 5 / 6), GREATEST, "as it should be");
        let shares: Vec<u32> = (0..30).map(|_| turn(&mut releases, WORK * 2)).collect();
        assert!(shares.iter().rev().is_sorted() && shares[29] == LEAST);
    }
}
