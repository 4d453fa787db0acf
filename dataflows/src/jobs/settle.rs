//! Jobs: what is planned for an agent, and what came of it.
//!
//! Agents schedule themselves, so a slot is settled by its results. Without one until the next is due, and its grace, the job is
//! `missed`, until the next result: a health event, and a condition while it is so. Of the results only counts are kept.

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::payload::Timetable;
use radarflow_proto::rows::{HealthEvent, Job, StateRow};
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::jobs::timetable::Schedule;
use radarflow_reconcile::jobs::{Planned, Problem};
use serde::{Deserialize, Serialize};

use crate::alerts::{AlertKey, ConditionChange};
use crate::keyed::{Machine, Restored, Tick, put_state, take_state};
use crate::output::DerivedRow;

/// A job that is done tells of new results at most this often, milliseconds.
const PACE_MS: i64 = 10_000;
/// What a result may be late by, milliseconds.
pub const GRACE_MS: i64 = 300_000;

/// Which job of which agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The job, as configurations name it.
    pub job: String,
    /// The agent; empty where there is none.
    pub agent_id: String,
}

/// Results of a job, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All.
    pub results: u64,
    /// Those that found nobody.
    pub negative: u64,
    /// Those that say nothing.
    pub unknown: u64,
    /// When the newest was found.
    pub newest: Time,
}

impl Tally {
    /// Counts a result.
    pub fn add(&mut self, ok: Option<bool>, at: Time) {
        self.results += 1;
        self.negative += u64::from(ok == Some(false));
        self.unknown += u64::from(ok.is_none());
        self.newest = self.newest.max(at);
    }

    fn more(&mut self, other: &Tally) {
        self.results += other.results;
        self.negative += other.negative;
        self.unknown += other.unknown;
        self.newest = self.newest.max(other.newest);
    }
}

/// What happens to a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JobEvent {
    /// It is planned like this, or no more.
    Planned(Option<PlannedJob>),
    /// Results came.
    Found(Tally),
}

/// A plan as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedJob {
    profile: String,
    targets: u64,
    timetable: Timetable,
    /// It never will be done, and why.
    unsupported: Option<String>,
    /// There is nobody, or not for all of it, and why.
    nobody: Option<String>,
}

impl From<Planned> for PlannedJob {
    fn from(planned: Planned) -> Self {
        let (unsupported, nobody) = match planned.problem {
            Some(Problem::Unsupported(why)) => (Some(why), None),
            Some(Problem::Nobody(why) | Problem::Partly(why)) => (None, Some(why)),
            None => (None, None),
        };
        PlannedJob {
            profile: planned.profile,
            targets: planned.targets as u64,
            timetable: planned.timetable,
            unsupported,
            nobody,
        }
    }
}

/// How a job goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobState {
    plan: PlannedJob,
    tally: Tally,
    state: String,
    since: Time,
    /// Live clock of the last result or plan, milliseconds.
    heard_ms: i64,
    /// From then until the next is due, milliseconds; none where it is never due.
    wait_ms: Option<i64>,
    /// Live clock of what was said last, milliseconds.
    said_ms: i64,
    /// As it was said last.
    said: Option<Tally>,
}

impl JobState {
    fn row(&self, key: &JobKey, tally: &Tally) -> Job {
        Job {
            tenant_id: key.tenant.clone(),
            partition: key.partition.clone(),
            profile: self.plan.profile.clone(),
            agent_id: key.agent_id.clone(),
            state: self.state.clone(),
            reason: self.reason(key),
            since: self.since,
            targets: self.plan.targets as i64,
            interval_s: if self.plan.timetable.cron.is_some() { 0 } else { self.plan.timetable.interval_s as i64 },
            cron: self.cron(),
            last_result_at: (tally.results > 0).then_some(tally.newest),
            results: tally.results as i64,
            negative: tally.negative as i64,
            unknown: tally.unknown as i64,
            epoch: 0,
        }
    }

    fn said_row(&self, key: &JobKey) -> Option<Job> {
        Some(self.row(key, self.said.as_ref()?))
    }

    fn reason(&self, key: &JobKey) -> Option<String> {
        let missed = || match &self.plan.nobody {
            Some(nobody) if key.agent_id.is_empty() => nobody.clone(),
            _ => match self.cron() {
                Some(cron) => format!("no result of what was due by {cron}, and its grace"),
                None => format!("no result for {} s and their grace", self.plan.timetable.interval_s),
            },
        };
        match self.state.as_str() {
            "unsupported" => self.plan.unsupported.clone(),
            "missed" => Some(missed()),
            "failed" => Some("the agent could not look".to_owned()),
            _ => self.plan.nobody.clone(),
        }
    }

    fn cron(&self) -> Option<String> {
        let of = &self.plan.timetable;
        of.cron.as_ref().map(|cron| format!("{cron} {}", of.time_zone))
    }

    /// There is a sign of it.
    fn hear(&mut self, tick: &Tick) {
        self.heard_ms = tick.live_ms;
        self.wait_ms = wait_ms(&self.plan.timetable, tick);
    }

    /// When it is missed, on the live clock, milliseconds.
    fn missed_ms(&self) -> Option<i64> {
        Some(self.heard_ms.saturating_add(self.wait_ms?).saturating_add(GRACE_MS))
    }

    fn turn(&mut self, to: &str, tick: &Tick) {
        if self.state != to {
            (self.state, self.since) = (to.to_owned(), Time::from_ms(tick.clock_ms));
        }
    }
}

/// An agent's clock may be so far ahead of ours, milliseconds: what it did when a calendar said came before that was so here.
const SKEW_MS: i64 = 5000;

/// How long it is until the next is due.
fn wait_ms(of: &Timetable, tick: &Tick) -> Option<i64> {
    let schedule = Schedule::read(of).ok()?;
    match schedule.interval_ms() {
        Some(_) => schedule.wait_ms(tick.clock_ms),
        None => Some(schedule.wait_ms(tick.clock_ms + SKEW_MS)? + SKEW_MS),
    }
}

/// What is said of jobs.
#[derive(Clone)]
pub(super) enum JobOut {
    /// A row appears or goes.
    Row(StateRow, isize),
    /// A condition begins or ceases to hold.
    Condition(ConditionChange),
    /// Something happened.
    Happened(DerivedRow),
}

/// The condition that a job is missed.
fn missed(row: &Job) -> (AlertKey, Condition) {
    let subject = Subject {
        tenant: row.tenant_id.clone(),
        partition: row.partition.clone(),
        rule: "job-missed".to_owned(),
        entity: named(row),
    };
    let labels = [("profile", &row.profile), ("agent_id", &row.agent_id)];
    let condition = Condition {
        rule: subject.rule.clone(),
        severity: "warning".to_owned(),
        title: format!("Job {} is missed", subject.entity),
        description: row.reason.clone().unwrap_or_default(),
        source_type: "job".to_owned(),
        source_id: subject.entity.clone(),
        agent_uid: Some(&row.agent_id).filter(|id| !id.is_empty()).cloned(),
        labels: labels.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.clone())).collect(),
        ..Condition::default()
    };
    (AlertKey::of_subject(subject), condition)
}

fn named(row: &Job) -> String {
    if row.agent_id.is_empty() { row.profile.clone() } else { format!("{}/{}", row.profile, row.agent_id) }
}

fn condition(row: Option<&Job>) -> Option<(AlertKey, Condition)> {
    row.filter(|row| row.state == "missed").map(missed)
}

/// What follows from one row and the next.
fn follows(before: Option<Job>, after: Option<Job>, tick: &Tick, out: &mut Vec<JobOut>) {
    if before == after {
        return;
    }
    let (held, holds) = (condition(before.as_ref()), condition(after.as_ref()));
    if held != holds {
        out.extend(held.map(|(key, condition)| JobOut::Condition((key, condition, -1))));
        out.extend(holds.map(|(key, condition)| JobOut::Condition((key, condition, 1))));
    }
    if let (Some(was), Some(is)) = (&before, &after)
        && (was.state == "missed") != (is.state == "missed")
    {
        out.push(JobOut::Happened(DerivedRow::from(HealthEvent {
            tenant_id: is.tenant_id.clone(),
            partition: is.partition.clone(),
            row_id: RowId::default(),
            epoch: 0,
            entity_type: "job".to_owned(),
            entity_id: named(is),
            old_state: was.state.clone(),
            new_state: is.state.clone(),
            reason: is.reason.clone().unwrap_or_default(),
            duration_seconds: Some((tick.clock_ms - was.since.ms()) / 1000),
            recorded_at: Time::from_ms(tick.clock_ms),
            device_uid: None,
        })));
    }
    out.extend(before.map(|row| JobOut::Row(row.into(), -1)));
    out.extend(after.map(|row| JobOut::Row(row.into(), 1)));
}

/// Jobs, by what happens to them.
pub(super) struct Jobs;

impl Machine for Jobs {
    type Key = JobKey;
    type Event = JobEvent;
    type State = JobState;
    type Output = JobOut;
    const NAME: &'static str = "jobs";

    fn step(
        &mut self,
        tick: &Tick,
        key: &JobKey,
        state: &mut Option<JobState>,
        events: Vec<JobEvent>,
        out: &mut Vec<JobOut>,
    ) {
        let before = state.as_ref().and_then(|job| job.said_row(key));
        let mut planned = false;
        for event in events {
            match (event, state.as_mut()) {
                (JobEvent::Planned(None), _) => *state = None,
                (JobEvent::Planned(Some(plan)), Some(job)) => {
                    planned = true;
                    let was = std::mem::replace(&mut job.plan, plan);
                    // Other targets are no sign of life.
                    if was.timetable != job.plan.timetable {
                        job.hear(tick);
                    }
                    let (is, was) = (job.plan.unsupported.is_some(), was.unsupported.is_some());
                    if is != was {
                        job.hear(tick);
                        job.turn(if is { "unsupported" } else { "due" }, tick);
                    }
                }
                (JobEvent::Planned(Some(plan)), None) => {
                    planned = true;
                    let kind = if plan.unsupported.is_some() { "unsupported" } else { "due" };
                    let wait_ms = wait_ms(&plan.timetable, tick);
                    *state = Some(JobState {
                        plan,
                        tally: Tally::default(),
                        state: kind.to_owned(),
                        since: Time::from_ms(tick.clock_ms),
                        heard_ms: tick.live_ms,
                        wait_ms,
                        said_ms: i64::MIN,
                        said: None,
                    });
                }
                (JobEvent::Found(tally), Some(job)) => {
                    job.hear(tick);
                    job.tally.more(&tally);
                    job.turn(if tally.unknown == tally.results { "failed" } else { "done" }, tick);
                }
                // Of what is not planned any more nobody asks.
                (JobEvent::Found(_), None) => {}
            }
        }
        if let Some(job) = state.as_mut() {
            if job.plan.unsupported.is_none() && job.missed_ms().is_some_and(|at| tick.live_ms >= at) {
                job.turn("missed", tick);
            }
            // A change is told at once, more of the same in its time.
            let turned = before.as_ref() != job.said_row(key).as_ref();
            if planned || turned || job.said.is_none() || tick.live_ms >= job.said_ms.saturating_add(PACE_MS) {
                (job.said, job.said_ms) = (Some(job.tally), tick.live_ms);
            }
        }
        let after = state.as_ref().and_then(|job| job.said_row(key));
        follows(before, after, tick, out);
    }

    fn due_ms(&self, job: &JobState) -> Option<i64> {
        let missed = (job.state != "missed" && job.plan.unsupported.is_none()).then(|| job.missed_ms()).flatten();
        let more = (job.said != Some(job.tally)).then(|| job.said_ms.saturating_add(PACE_MS));
        missed.into_iter().chain(more).min()
    }

    fn restored(&mut self, key: &JobKey, job: &JobState, out: &mut Vec<JobOut>) {
        let row = job.said_row(key);
        out.extend(condition(row.as_ref()).map(|(key, condition)| JobOut::Condition((key, condition, 1))));
        out.extend(row.map(|row| JobOut::Row(row.into(), 1)));
    }
}

/// A job as it was kept when there were intervals only.
#[derive(Serialize, Deserialize)]
struct JobOfInterval {
    profile: String,
    targets: u64,
    interval_s: i64,
    unsupported: Option<String>,
    nobody: Option<String>,
    tally: Tally,
    state: String,
    since: Time,
    heard_ms: i64,
    said_ms: i64,
    said: Option<Tally>,
}

/// Jobs have timetables.
pub(crate) fn jobs_with_timetables(state: &mut Restored, _tick: &Tick) -> Result<(), String> {
    let jobs: Vec<(JobKey, JobOfInterval)> = take_state(state, Jobs::NAME)?;
    put_state(
        state,
        Jobs::NAME,
        jobs.into_iter().map(|(key, was)| {
            let interval_s = was.interval_s.unsigned_abs();
            let timetable = Timetable { interval_s, ..Timetable::default() };
            let plan = PlannedJob {
                profile: was.profile,
                targets: was.targets,
                timetable,
                unsupported: was.unsupported,
                nobody: was.nobody,
            };
            let JobOfInterval { tally, state, since, heard_ms, said_ms, said, .. } = was;
            let wait_ms = Some(was.interval_s * 1000);
            (key, JobState { plan, tally, state, since, heard_ms, wait_ms, said_ms, said })
        }),
    );
    Ok(())
}
