//! When what failed is tried again.
//!
//! A pause doubles from a first one to a longest one. Towards other machines up to as much again is added at random, so that
//! who failed together does not come back together.
//!
//! | what | first | longest | how often |
//! |---|---|---|---|
//! | a request to an inventory | as configured | 2 min | 6 times, 3 where somebody waits ([`crate::sources::pull`]) |
//! | an append that the disk refused, of who has it still | 0.5 s | 2 s | until the process ends |
//! | a NATS server, a Kafka cluster | 1 s | 10 s | until the process ends |
//! | the database of the Postgres sink | 1 s | 10 s | until the process ends |
//!
//! Where a server says how long it wants to be left alone (`Retry-After`), that counts, up to the longest pause.
//!
//! Three are elsewhere, because they are more than a pause: notifications, whose schedule is part of what the outbox
//! keeps of its receivers (`sinks::webhook::lines`); commits of the lake, which are looked into first
//! (`sinks::lake`); frames of the ledger itself, which go with its tick.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::sources::Stop;

/// An append that the disk refused. Nobody else comes back to this process's own disk: nothing is random.
pub(crate) const LEDGER: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(500))
    .with_max_delay(Duration::from_secs(2))
    .without_max_times();
/// A broker that does not answer as it should.
pub(crate) const BROKER: ExponentialBuilder = endless(Duration::from_secs(1), Duration::from_secs(10));

/// Pauses that grow from a first to a longest, without end.
pub(crate) const fn endless(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).with_jitter().without_max_times()
}

/// The pauses of a loop, which begin anew after a success.
pub(crate) struct Pauses {
    policy: ExponentialBuilder,
    left: <ExponentialBuilder as BackoffBuilder>::Backoff,
}

impl Pauses {
    pub(crate) fn new(policy: ExponentialBuilder) -> Self {
        Pauses { policy, left: policy.build() }
    }

    /// The pause after a failure.
    pub(crate) fn next(&mut self) -> Duration {
        self.left.next().expect("pauses of a loop have no end")
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.left = self.policy.build();
    }
}

/// A pause that ends early when the process does: who waits tries once more, or leaves it.
pub(crate) fn until_told(stop: &Stop) -> impl Fn(Duration) -> futures::future::BoxFuture<'static, ()> + use<> {
    let stop = stop.clone();
    move |pause| {
        let mut stop = stop.clone();
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.told() => {}
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_anew() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(10));
        let mut pauses = Pauses::new(endless(first, longest));
        for _ in 0..2 {
            let mut least = first;
            for _ in 0..20 {
                let pause = pauses.next();
                assert!(least <= pause && pause <= 2 * least, "{pause:?} of {least:?}");
                least = (least * 2).min(longest);
            }
            pauses.reset();
        }
    }

    #[tokio::test]
    async fn a_pause_ends_with_the_process() {
        let (tell, stop) = Stop::new();
        let pause = until_told(&stop);
        let began = Instant::now();
        pause(Duration::from_millis(20)).await;
        assert!(began.elapsed() >= Duration::from_millis(20));
        let waits = pause(Duration::from_secs(3600));
        tell.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap();
    }
}
