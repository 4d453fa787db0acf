//! Which look is due when: the slots of a look are its interval apart, and a hash of what it looks at says where in the interval
//! they are. So a hundred thousand looks are spread, and a look keeps its slots over restarts and other configurations.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use radarflow_connectors::sources::Stop;
use radarflow_proto::payload::AgentJob;
use radarflow_reconcile::jobs::assign::hash;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::looks::{Clients, Look};
use super::{Agent, looks, now_us};

/// Looks at a time; each has a socket.
const AT_ONCE: usize = 500;
/// So many looks begin without a pause: five thousand in a second at most.
const BURST: u32 = 50;
/// The pause after them.
const PAUSE: Duration = Duration::from_millis(10);

/// How often the clock is looked at, however long there is nothing to do.
const LOOK: Duration = Duration::from_secs(5);
/// A clock that goes back by more than this was set, milliseconds.
const CLOCK_MS: i64 = 2000;
/// No interval is longer, seconds: a day.
const MAX_INTERVAL_S: u64 = 86_400;
/// Looks that are planned; what a gateway tells beside is not done.
const MAX_SLOTS: usize = 1_000_000;

/// Where in its interval a look is, and the first of its slots after an instant; milliseconds.
fn next(phase_ms: i64, interval_ms: i64, after_ms: i64) -> i64 {
    let since = (after_ms - phase_ms).div_euclid(interval_ms) + 1;
    phase_ms + since * interval_ms
}

/// What is looked at, and where in the interval.
struct Slot {
    look: Arc<Look>,
    phase_ms: i64,
    interval_ms: i64,
}

fn slots(jobs: &[AgentJob]) -> Vec<Slot> {
    let mut slots = Vec::new();
    for job in jobs {
        let job = Arc::new(looks::Job::new(job));
        let interval_ms = (job.told.interval_s.clamp(1, MAX_INTERVAL_S) * 1000) as i64;
        for target in &job.told.targets {
            let ports: Vec<Option<u16>> = match &job.told.ports[..] {
                [] => vec![None],
                ports => ports.iter().copied().map(Some).collect(),
            };
            for port in ports {
                if slots.len() == MAX_SLOTS {
                    tracing::error!(MAX_SLOTS, "the gateway tells more looks than are done: the rest is left out");
                    return slots;
                }
                let named = format!("{}/{target}/{}", job.told.job, port.unwrap_or_default());
                let phase_ms = (hash(&named) % interval_ms as u64) as i64;
                let look = Arc::new(Look { job: job.clone(), target: target.as_str().into(), port });
                slots.push(Slot { look, phase_ms, interval_ms });
            }
        }
    }
    slots
}

/// Looks that are under way: none begins before it has ended.
#[derive(Default)]
struct Busy(Mutex<HashSet<usize>>);

impl Busy {
    fn with<T>(&self, act: impl FnOnce(&mut HashSet<usize>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks until it is told to stop.
pub(super) async fn run(agent: Arc<Agent>, mut stop: Stop) {
    let mut told = agent.told.subscribe();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let clients = Arc::new(Clients::default());
    let mut begun = 0u32;
    // All slots until then have begun.
    let mut done_ms = now_us() / 1000;
    loop {
        let slots = slots(&told.borrow_and_update().jobs.clone());
        let busy = Arc::new(Busy::default());
        let of = |(nth, slot): (usize, &Slot)| Reverse((next(slot.phase_ms, slot.interval_ms, done_ms), nth));
        let mut due: BinaryHeap<Reverse<(i64, usize)>> = slots.iter().enumerate().map(of).collect();
        loop {
            let now_ms = now_us() / 1000;
            // Where the clock was set back, the slots of the time that comes again come again.
            if done_ms > now_ms + CLOCK_MS {
                done_ms = now_ms;
                break;
            }
            done_ms = done_ms.max(now_ms);
            let wait = due.peek().map(|Reverse((at_ms, _))| Duration::from_millis((at_ms - now_ms).max(0) as u64));
            let at = Instant::now() + wait.unwrap_or(LOOK).min(LOOK);
            tokio::select! {
                () = stop.told() => return,
                changed = told.changed() => match changed {
                    Ok(()) => {
                        // What is late is still to begin; nothing else that is over.
                        let now_ms = now_us() / 1000;
                        done_ms = due.peek().map_or(now_ms, |Reverse((at_ms, _))| now_ms.min(at_ms - 1));
                        break;
                    }
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(at) => {}
            }
            if due.peek().is_none_or(|Reverse((at_ms, _))| *at_ms > now_us() / 1000) {
                continue;
            }
            let Some(Reverse((at_ms, nth))) = due.pop() else { continue };
            let slot = &slots[nth];
            // What was missed, because this host slept or was busy, is not made up for.
            let now_ms = now_us() / 1000;
            due.push(Reverse((next(slot.phase_ms, slot.interval_ms, at_ms.max(now_ms - slot.interval_ms)), nth)));
            if !busy.with(|busy| busy.insert(nth)) {
                continue;
            }
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (agent, clients, busy, look) = (agent.clone(), clients.clone(), busy.clone(), slot.look.clone());
            tokio::spawn(async move {
                let found = looks::look(&look, &clients).await;
                agent.waiting.push(found);
                busy.with(|busy| busy.remove(&nth));
                drop(place);
            });
            begun = begun.wrapping_add(1);
            if begun.is_multiple_of(BURST) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_an_interval_apart_and_stay_where_they_are() {
        assert_eq!(next(300, 1000, 0), 300);
        assert_eq!(next(300, 1000, 300), 1300);
        assert_eq!(next(300, 1000, 12_345), 13_300);
        let job = AgentJob {
            job: "j".into(),
            kind: "tcp".into(),
            interval_s: 60,
            ports: vec![22, 443],
            targets: (0..1000).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect(),
            ..AgentJob::default()
        };
        let spread = slots(std::slice::from_ref(&job));
        assert_eq!(spread.len(), 2000);
        // No second has more than a few times its share.
        let in_second = |s: i64| spread.iter().filter(|slot| slot.phase_ms / 1000 == s).count();
        assert!((0..60).map(in_second).max().unwrap() < 100);
        let again = slots(&[AgentJob { targets: job.targets[10..].to_vec(), ..job }]);
        assert_eq!(again[0].phase_ms, spread[20].phase_ms);
    }
}
