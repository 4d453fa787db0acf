//! Looks at the program itself and says as a fact what is wrong with it, so that it becomes an alert like any other:
//! the wall clock is not followed, a sink's target does not answer, the disk is nearly full, memory is.
//!
//! A disk is nearly full while there is still room for that: intake stops before the ledger cannot be written, so that the
//! alert, what is sent of it and what people command are durable as ever. It goes on when there is room again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use radarflow_connectors::disk::free_bytes;
use radarflow_connectors::ledger::intake::IntakeStats;
use radarflow_connectors::sinks::Applied;
use radarflow_connectors::sinks::webhook::{Failing, Outbox};
use radarflow_connectors::sources::Stop;
use radarflow_proto::cell::Time;
use radarflow_proto::clock::{LedgerClock, Shown};
use radarflow_proto::fact::{Fact, OwnCondition};
use radarflow_proto::ports::Appender;

use crate::memory::{Budget, resident_bytes};
use crate::standing::append;

/// The rules of what it says.
pub(crate) const RULES: [&str; 9] = [
    "certificate-ends",
    "clock-step",
    "disk-full",
    "lake-full",
    "memory-full",
    RECEIVER_FAILING,
    "sink-behind",
    "sink-down",
    "snapshot-failed",
];
/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a sink may be away before it is worth an alert.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a sink may commit nothing, beside the time that it lets pass between commits, while there is something to commit.
const BEHIND: Duration = Duration::from_secs(900);
/// How often certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(60);
/// How long before its end a certificate is worth an alert, seconds.
const ENDS_SOON_S: i64 = 14 * 86_400;

/// What it looks at.
pub(crate) struct Watch {
    pub(crate) intake: Arc<IntakeStats>,
    pub(crate) sinks: Vec<(&'static str, Applied)>,
    pub(crate) appender: Arc<dyn Appender>,
    pub(crate) outbox: Arc<Outbox>,
    /// Folders that must have room: the data's, the lake's.
    pub(crate) disks: Vec<PathBuf>,
    /// How much, bytes.
    pub(crate) reserve: u64,
    /// How much memory there is.
    pub(crate) memory: Arc<Budget>,
    /// Whether the newest snapshot could not be written.
    pub(crate) snapshots_fail: Arc<AtomicBool>,
    /// Files of the listeners' certificates.
    pub(crate) certificates: Vec<PathBuf>,
    /// Time that sinks let pass between two commits.
    pub(crate) pace: Duration,
}

impl Watch {
    /// Looks until told to stop. `standing` are the conditions that held when the process before ended.
    pub(crate) async fn run(self, standing: Vec<OwnCondition>, mut stop: Stop) {
        let key = |c: &OwnCondition| (c.tenant.clone(), c.rule.clone(), c.entity.clone());
        let mut told: BTreeSet<(String, String, String)> = standing.iter().map(key).collect();
        // What is not configured any more has nothing that could be wrong with it.
        let gone: Vec<OwnCondition> = standing.into_iter().filter(|condition| self.is_gone(condition)).collect();
        let mut away: Vec<Option<Instant>> = vec![None; self.sinks.len()];
        let mut moved: Vec<(u64, Instant)> = vec![(0, Instant::now()); self.sinks.len()];
        let mut looked: Option<Instant> = None;
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
            let failing = self.outbox.failing();
            let over = told.iter().filter(|(tenant, rule, name)| {
                rule == RECEIVER_FAILING && !failing.iter().any(|f| (&f.tenant, &f.receiver) == (tenant, name))
            });
            let over = over.map(|(tenant, _, receiver)| {
                let (tenant, receiver) = (tenant.clone(), receiver.clone());
                receiver_fails(Failing { tenant, receiver, detail: String::new() }, false)
            });
            found.extend(over.collect::<Vec<_>>());
            found.extend(failing.into_iter().map(|failing| receiver_fails(failing, true)));
            found.extend(gone.iter().map(|condition| OwnCondition { holds: false, ..condition.clone() }));
            let newest = self.intake.epoch.load(Ordering::Relaxed);
            for ((name, applied), moved) in self.sinks.iter().zip(&mut moved) {
                let at = applied.get();
                if at != moved.0 || at >= newest {
                    *moved = (at, Instant::now());
                }
                found.push(behind(name, moved.1.elapsed() > BEHIND + self.pace));
            }
            if looked.is_none_or(|looked| looked.elapsed() >= CERTIFICATES) {
                looked = Some(Instant::now());
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
                found.extend(self.certificates.iter().map(|file| certificate(file, now)));
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

    /// Whether a condition is of a sink or a certificate that there is no more.
    fn is_gone(&self, condition: &OwnCondition) -> bool {
        match condition.rule.as_str() {
            "sink-down" | "sink-behind" => !self.sinks.iter().any(|(name, _)| *name == condition.entity),
            "certificate-ends" => !self.certificates.iter().any(|file| file.display().to_string() == condition.entity),
            _ => false,
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

fn behind(sink: &str, holds: bool) -> OwnCondition {
    OwnCondition {
        rule: "sink-behind".to_owned(),
        entity: sink.to_owned(),
        title: format!("the {sink} sink falls behind"),
        description: format!(
            "{sink} has committed nothing for a quarter of an hour and more, though there is something to commit; \
             `radarflow status` shows how far it is, the log why"
        ),
        ..condition("warning", holds)
    }
}

/// That a certificate ends soon, or has; of one that cannot be read its reload tells.
fn certificate(file: &Path, now_s: i64) -> OwnCondition {
    let left = ends_s(file).map(|ends| ends - now_s);
    let file = file.display();
    let (title, severity) = match left {
        Some(left) if left <= 0 => (format!("the certificate {file} has ended"), "critical"),
        left => (format!("the certificate {file} ends in {} days", left.unwrap_or_default() / 86_400), "warning"),
    };
    OwnCondition {
        rule: "certificate-ends".to_owned(),
        entity: file.to_string(),
        title,
        description: "put a new one in its place and reload (`systemctl reload radarflow`, or SIGHUP)".to_owned(),
        ..condition(severity, left.is_some_and(|left| left < ENDS_SOON_S))
    }
}

/// When the first certificate of a file ends, seconds since 1970.
fn ends_s(file: &Path) -> Option<i64> {
    let pem = std::fs::read(file).ok()?;
    let blocks = x509_parser::pem::Pem::iter_from_buffer(&pem);
    let ends = blocks.filter_map(|block| Some(block.ok()?.parse_x509().ok()?.validity().not_after.timestamp()));
    ends.min()
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

/// The rule of receivers that take nothing.
const RECEIVER_FAILING: &str = "receiver-failing";

fn receiver_fails(Failing { tenant, receiver, detail }: Failing, holds: bool) -> OwnCondition {
    OwnCondition {
        tenant,
        rule: RECEIVER_FAILING.to_owned(),
        title: format!("receiver {receiver} does not take what it is sent"),
        description: format!(
            "{detail}; messages that it refuses are in dead_letters: `radarflow receivers replay {receiver}` sends them again"
        ),
        entity: receiver,
        ..condition("warning", holds)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_within_fourteen_days_is_told_until_it_is_exchanged() {
        let mut params = rcgen::CertificateParams::new(vec!["radar.example.net".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 6, 30);
        let key = rcgen::KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("http.pem");
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        let ends = ends_s(&file).unwrap();
        assert_eq!(Time::from_ms(ends * 1000).to_string().get(..10), Some("2026-06-30"));
        let day = 86_400;
        assert!(!certificate(&file, ends - 15 * day).holds);
        let soon = certificate(&file, ends - 13 * day);
        assert!(soon.holds && soon.title.ends_with("ends in 13 days") && soon.severity == "warning", "{soon:?}");
        let over = certificate(&file, ends + day);
        assert!(over.holds && over.severity == "critical", "{over:?}");
        assert!(!certificate(&dir.path().join("none"), ends).holds);
    }
}
