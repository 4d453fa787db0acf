//! Looks at the program itself and says as a fact what is wrong with it, so that it becomes an alert like any other:
//! the wall clock stepped, or a sink's target does not answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use radarflow_connectors::ledger::intake::IntakeStats;
use radarflow_connectors::sinks::Applied;
use radarflow_connectors::sources::{Stop, entry};
use radarflow_proto::fact::{Fact, OwnCondition};
use radarflow_proto::frame::{Kind, Origin};
use radarflow_proto::ports::FactSink;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a sink may be away before it is worth an alert.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What it looks at.
pub(crate) struct Watch {
    pub(crate) intake: Arc<IntakeStats>,
    pub(crate) sinks: Vec<(&'static str, Applied)>,
    pub(crate) sink: Arc<dyn FactSink>,
}

impl Watch {
    /// Looks until told to stop. `standing` are the conditions that held when the process before ended.
    pub(crate) async fn run(self, standing: Vec<OwnCondition>, mut stop: Stop) {
        let mut told: BTreeSet<(String, String)> = BTreeSet::new();
        told.extend(standing.into_iter().map(|c| (c.rule, c.entity)));
        let mut away: Vec<Option<Instant>> = vec![None; self.sinks.len()];
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.told() => return,
            }
            let mut found = vec![self.clock()];
            for ((name, applied), since) in self.sinks.iter().zip(&mut away) {
                *since = if applied.up() { None } else { since.or(Some(Instant::now())) };
                let down = since.is_some_and(|since| since.elapsed() > PATIENCE);
                found.push(OwnCondition {
                    rule: "sink-down".to_owned(),
                    entity: (*name).to_owned(),
                    title: format!("the {name} sink is down"),
                    description: format!("{name} has not taken anything for a minute; what it misses is made good"),
                    ..condition("critical", down)
                });
            }
            for condition in found {
                let key = (condition.rule.clone(), condition.entity.clone());
                if told.contains(&key) == condition.holds {
                    continue;
                }
                let holds = condition.holds;
                if self.say(condition).await {
                    if holds {
                        told.insert(key)
                    } else {
                        told.remove(&key)
                    };
                }
            }
        }
    }

    fn clock(&self) -> OwnCondition {
        OwnCondition {
            rule: "clock-step".to_owned(),
            entity: "clock".to_owned(),
            title: "the wall clock stepped by more than a minute".to_owned(),
            description: "time goes on by the monotonic clock; set the wall clock right, or restart to follow it"
                .to_owned(),
            ..condition("warning", self.intake.clock_held.load(Ordering::Relaxed) > 0)
        }
    }

    /// Whether it is durable.
    async fn say(&self, condition: OwnCondition) -> bool {
        let origin = Arc::new(Origin {
            kind: Kind::Fact,
            tenant: condition.tenant.clone(),
            partition: String::new(),
            feed: "radarflow".to_owned(),
        });
        let body = serde_json::to_vec(&Fact::Condition(condition)).unwrap_or_default();
        self.sink.append(origin, vec![entry(None, body)]).await.is_ok()
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
