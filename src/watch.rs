//! Looks at the program itself and says as a fact what is wrong with it, so that it becomes an alert like any other:
//! the wall clock is not followed, a sink's target does not answer, the disk is nearly full, memory is.
//!
//! A disk is nearly full while there is still room for that: intake stops before the ledger cannot be written, so that the
//! alert, what is sent of it and what people command are durable as ever. It goes on when there is room again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use radarflow_connectors::disk::free_bytes;
use radarflow_connectors::ledger::intake::IntakeStats;
use radarflow_connectors::sinks::Applied;
use radarflow_connectors::sources::Stop;
use radarflow_proto::cell::Time;
use radarflow_proto::clock::{LedgerClock, Shown};
use radarflow_proto::fact::{Fact, OwnCondition};
use radarflow_proto::ports::Appender;

use crate::memory::{Budget, resident_bytes};
use crate::standing::append;

/// The rules of what it says.
pub(crate) const RULES: [&str; 6] =
    ["clock-step", "disk-full", "lake-full", "memory-full", "sink-down", "snapshot-failed"];
/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a sink may be away before it is worth an alert.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What it looks at.
pub(crate) struct Watch {
    pub(crate) intake: Arc<IntakeStats>,
    pub(crate) sinks: Vec<(&'static str, Applied)>,
    pub(crate) appender: Arc<dyn Appender>,
    /// Folders that must have room: the data's, the lake's.
    pub(crate) disks: Vec<PathBuf>,
    /// How much, bytes.
    pub(crate) reserve: u64,
    /// How much memory there is.
    pub(crate) memory: Arc<Budget>,
    /// Whether the newest snapshot could not be written.
    pub(crate) snapshots_fail: Arc<AtomicBool>,
}

impl Watch {
    /// Looks until told to stop. `standing` are the conditions that held when the process before ended.
    pub(crate) async fn run(self, standing: Vec<OwnCondition>, mut stop: Stop) {
        let key = |c: &OwnCondition| (c.tenant.clone(), c.rule.clone(), c.entity.clone());
        let mut told: BTreeSet<(String, String, String)> = standing.iter().map(key).collect();
        let mut away: Vec<Option<Instant>> = vec![None; self.sinks.len()];
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.told() => {
                    // Who waits for memory must not keep the process from ending: what waits is made durable.
                    self.intake.memory_short.store(false, Ordering::Relaxed);
                    return;
                }
            }
            let mut found = vec![self.clock(), self.disk(), self.memory(), self.record(), self.snapshots()];
            for ((name, applied), since) in self.sinks.iter().zip(&mut away) {
                *since = if applied.up() { None } else { since.or(Some(Instant::now())) };
                let down = since.is_some_and(|since| since.elapsed() > PATIENCE);
                found.push(OwnCondition {
                    rule: "sink-down".to_owned(),
                    entity: (*name).to_owned(),
                    title: format!("the {name} sink is down"),
                    description: format!(
                        "{name} has not taken anything for a minute ({}); what it misses is made good",
                        applied.why()
                    ),
                    ..condition("critical", down)
                });
            }
            for condition in found {
                let key = key(&condition);
                if told.contains(&key) == condition.holds {
                    continue;
                }
                let (holds, title) = (condition.holds, condition.title.clone());
                if self.say(condition).await {
                    match holds {
                        true => tracing::warn!("{title}"),
                        false => tracing::info!("over: {title}"),
                    }
                    if holds {
                        told.insert(key)
                    } else {
                        told.remove(&key)
                    };
                }
            }
        }
    }

    /// Stops intake where the disk is nearly full, and lets it go on once there is half as much room again.
    fn disk(&self) -> OwnCondition {
        let short = self.intake.disk_short.load(Ordering::Relaxed);
        let wanted = if short { self.reserve + self.reserve / 2 } else { self.reserve };
        let full = self.disks.iter().find(|path| free_bytes(path).is_some_and(|free| free < wanted));
        if full.is_some() != short {
            self.intake.disk_short.store(full.is_some(), Ordering::Relaxed);
            match full {
                Some(path) => tracing::error!(path = %path.display(), "the disk is nearly full; intake stops"),
                None => tracing::info!("the disk has room again; intake goes on"),
            }
        }
        OwnCondition {
            rule: "disk-full".to_owned(),
            entity: "disk".to_owned(),
            title: "the disk is nearly full; intake has stopped".to_owned(),
            description: format!(
                "less than {} MiB are free; senders are refused, queries go on; make room, and intake goes on by itself",
                self.reserve >> 20
            ),
            ..condition("critical", full.is_some())
        }
    }

    /// Takes no more telemetry while memory is short.
    fn memory(&self) -> OwnCondition {
        let resident = resident_bytes();
        let short = self.memory.is_short(resident);
        let limit_mib = self.memory.limit() >> 20;
        if self.intake.memory_short.swap(short, Ordering::Relaxed) != short {
            if short {
                tracing::error!(resident_mib = resident >> 20, limit_mib, "memory is nearly full; telemetry is shed");
            } else {
                tracing::info!(resident_mib = resident >> 20, limit_mib, "there is memory again; telemetry is taken");
            }
        }
        OwnCondition {
            rule: "memory-full".to_owned(),
            entity: "memory".to_owned(),
            title: "memory is nearly full; telemetry is shed".to_owned(),
            description: format!(
                "the process is near its limit of {limit_mib} MiB: datagrams are shed and counted, other telemetry waits; \
                 raise memory_limit_mib, or send less"
            ),
            ..condition("critical", short)
        }
    }

    fn record(&self) -> OwnCondition {
        OwnCondition {
            rule: "lake-full".to_owned(),
            entity: "lake".to_owned(),
            title: "the lake does not take what it is given; intake has stopped".to_owned(),
            description:
                "rows wait for the lake and have no more room; senders are refused, queries and alerts go on; see \
                          the log for why the lake refuses, and intake goes on by itself"
                    .to_owned(),
            ..condition("critical", self.intake.record_full.load(Ordering::Relaxed))
        }
    }

    fn snapshots(&self) -> OwnCondition {
        OwnCondition {
            rule: "snapshot-failed".to_owned(),
            entity: "snapshots".to_owned(),
            title: "snapshots cannot be written".to_owned(),
            description:
                "nothing is lost, but the ledger grows and a start takes longer; see the log for the reason; it is \
                          tried again every ten seconds"
                    .to_owned(),
            ..condition("critical", self.snapshots_fail.load(Ordering::Relaxed))
        }
    }

    fn clock(&self) -> OwnCondition {
        let Shown { clock_ms, held_by_ms } = self.intake.shown();
        let (ledger, wall) = (Time::from_ms(clock_ms), Time::from_ms(clock_ms + held_by_ms));
        OwnCondition {
            rule: "clock-step".to_owned(),
            entity: "clock".to_owned(),
            title: "the wall clock is off by more than a minute".to_owned(),
            description: format!(
                "it showed {wall} when the ledger's clock showed {ledger}; the ledger goes on by the monotonic clock; set \
                 the wall clock right, or, if it is right, have it followed: `radarflow clock accept`"
            ),
            ..condition("warning", held_by_ms != 0)
        }
    }

    /// Whether it is durable.
    async fn say(&self, condition: OwnCondition) -> bool {
        let tenant = condition.tenant.clone();
        append(&*self.appender, &tenant, "radarflow", &[Fact::Condition(condition)]).await.is_ok()
    }
}

/// Whether everything is answered and taken, or why not.
pub(crate) fn ready(caught_up: Arc<AtomicBool>, intake: Arc<IntakeStats>) -> impl Fn() -> Result<(), String> {
    move || {
        if !caught_up.load(Ordering::Acquire) {
            return Err("the ledger is being replayed".to_owned());
        }
        if intake.disk_short.load(Ordering::Relaxed) {
            return Err(
                "the disk is nearly full: nothing but what people say is taken; queries are answered".to_owned()
            );
        }
        Ok(())
    }
}

fn condition(severity: &str, holds: bool) -> OwnCondition {
    OwnCondition {
        tenant: "default".to_owned(),
        rule: String::new(),
        entity: String::new(),
        severity: severity.to_owned(),
        title: String::new(),
        description: String::new(),
        holds,
    }
}
