//! Which look is due when: the slots of a look are its interval apart, and a hash of what it looks at says where in the interval
//! they are. So a hundred thousand looks are spread, and a look keeps its slots over restarts and other configurations.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use radarflow_connectors::sources::Stop;
use radarflow_proto::payload::AgentJob;
use radarflow_reconcile::jobs::explain::phase_ms;
use radarflow_reconcile::jobs::timetable::Schedule;
use tokio::time::Instant;

use super::looks::Look;
use super::{Agent, looks, now_us};

/// So many looks begin without a pause: five thousand in a second at most.
pub(super) const BURST: u32 = 50;
/// The pause after them.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// How often the clock is looked at, however long there is nothing to do.
const LOOK: Duration = Duration::from_secs(5);
/// A clock that goes back by more than this was set, milliseconds.
const CLOCK_MS: i64 = 2000;
/// What a calendar says is done so late at most, milliseconds.
const LATE_MS: i64 = 60_000;
/// Looks that are planned; what a gateway tells beside is not done.
const MAX_SLOTS: usize = 1_000_000;

/// When the looks of a job are due.
struct Due {
    schedule: Schedule,
    /// Of a calendar, whose slots are those of all its looks: an instant, and the first slot after it.
    last: Mutex<(i64, i64)>,
}

impl Due {
    /// The first slot after an instant; milliseconds.
    fn next(&self, phase_ms: i64, after_ms: i64) -> Option<i64> {
        if self.schedule.interval_ms().is_some() {
            return self.schedule.next_ms(phase_ms, after_ms);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !(last.0..last.1).contains(&after_ms) {
            // Never is known, too.
            *last = (after_ms, self.schedule.next_ms(0, after_ms).unwrap_or(i64::MAX));
        }
        Some(last.1).filter(|at| *at < i64::MAX)
    }
}

/// A job, its target, and the port.
type Name = (String, String, Option<u16>);

/// What is looked at, and where in the interval.
struct Slot {
    look: Arc<Look>,
    phase_ms: i64,
    due: Arc<Due>,
}

impl Slot {
    fn next(&self, after_ms: i64) -> Option<i64> {
        self.due.next(self.phase_ms, after_ms)
    }

    /// Names it, whatever else is told.
    fn name(&self) -> Name {
        (self.look.job.told.job.clone(), self.look.target.to_string(), self.look.port)
    }

    /// What is due longer ago is not made up for, milliseconds.
    fn late_ms(&self) -> i64 {
        self.due.schedule.interval_ms().unwrap_or(LATE_MS)
    }
}

/// The looks of a job at a target: one a port.
pub(super) fn looks_at<'a>(job: &'a Arc<looks::Job>, target: &'a str) -> impl Iterator<Item = Look> + 'a {
    let ports: Vec<Option<u16>> = match &job.told.ports[..] {
        [] => vec![None],
        ports => ports.iter().copied().map(Some).collect(),
    };
    ports.into_iter().map(move |port| Look { job: job.clone(), target: target.into(), port })
}

fn slots(jobs: &[AgentJob]) -> Vec<Slot> {
    let mut slots = Vec::new();
    for job in jobs {
        let schedule = match Schedule::read(&job.timetable) {
            Ok(schedule) => schedule,
            Err(error) => {
                tracing::error!(error, profile = job.profile, "it is not known when this is due; it is left out");
                continue;
            }
        };
        let due = Arc::new(Due { schedule, last: Mutex::default() });
        let job = Arc::new(looks::Job::new(job));
        for target in &job.told.targets {
            for look in looks_at(&job, target) {
                if slots.len() == MAX_SLOTS {
                    tracing::error!(MAX_SLOTS, "the gateway tells more looks than are done: the rest is left out");
                    return slots;
                }
                let phase_ms = phase_ms(&due.schedule, &job.told.job, target, look.port.unwrap_or_default());
                slots.push(Slot { look: look.into(), phase_ms, due: due.clone() });
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
    let mut begun = 0u32;
    // All slots until then have begun.
    let mut done_ms = now_us() / 1000;
    // Those of the newest slot that have begun: a calendar has one for all its looks.
    let mut same: (i64, HashSet<Name>) = (i64::MIN, HashSet::new());
    loop {
        let slots = slots(&told.borrow_and_update().jobs.clone());
        let busy = Arc::new(Busy::default());
        let of = |(nth, slot): (usize, &Slot)| {
            let at_ms = slot.next(done_ms)?;
            let has_begun = at_ms == same.0 && same.1.contains(&slot.name());
            Some(Reverse((if has_begun { slot.next(at_ms)? } else { at_ms }, nth)))
        };
        let mut due: BinaryHeap<Reverse<(i64, usize)>> = slots.iter().enumerate().filter_map(of).collect();
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
            if same.0 != at_ms {
                same = (at_ms, HashSet::new());
            }
            same.1.insert(slot.name());
            // What was missed, because this host slept or was busy, is not made up for.
            let now_ms = now_us() / 1000;
            due.extend(slot.next(at_ms.max(now_ms - slot.late_ms())).map(|at_ms| Reverse((at_ms, nth))));
            if !busy.with(|busy| busy.insert(nth)) {
                continue;
            }
            let Ok(place) = agent.places.clone().acquire_owned().await else { return };
            let (agent, busy, look) = (agent.clone(), busy.clone(), slot.look.clone());
            tokio::spawn(async move {
                let found = looks::look(&look, &agent.clients).await;
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
    use radarflow_proto::payload::Timetable;

    use super::*;

    #[test]
    fn slots_are_an_interval_apart_and_stay_where_they_are() {
        let second = Timetable { interval_s: 1, ..Timetable::default() };
        let due = Due { schedule: Schedule::read(&second).unwrap(), last: Mutex::default() };
        assert_eq!([0, 300, 12_345].map(|after| due.next(300, after).unwrap()), [300, 1300, 13_300]);
        let hourly = Timetable { cron: Some("0 * * * *".into()), ..second };
        let due = Due { schedule: Schedule::read(&hourly).unwrap(), last: Mutex::default() };
        let hours = [0, 1, 3_599_999, 3_600_000, 0].map(|after| due.next(300, after).unwrap() / 3_600_000);
        assert_eq!(hours, [1, 1, 1, 2, 1], "also where the clock goes back");
        let job = AgentJob {
            job: "j".into(),
            kind: "tcp".into(),
            timetable: Timetable { interval_s: 60, ..Timetable::default() },
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
