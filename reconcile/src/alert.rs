//! An alert's life: what each status may become, and what the end and the return of its condition do to it.
//!
//! ```text
//! pending ──► acknowledged | escalated | resolved | suppressed
//! acknowledged ──► resolved | escalated | suppressed
//! escalated ──► resolved | suppressed
//! resolved, suppressed ──► pending        (reopened)
//! ```
//! Anything else is refused, naming what is allowed. When the condition ends, `system` resolves what is still open. A
//! condition that returns later is a new alert with its own start; the fingerprint stays.

use std::collections::BTreeMap;

use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::fact::AlertStatus;
use radarflow_proto::rows::Alert;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// A pending critical alert nobody takes is escalated after this long.
pub const ESCALATE_AFTER_MS: i64 = 30 * 60 * 1000;

/// A condition that holds: everything an alert tells of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// The rule that found it.
    pub rule: String,
    /// `emergency`, `critical`, `warning` or `info`.
    pub severity: String,
    /// One line for a person.
    pub title: String,
    /// More of it.
    pub description: String,
    /// What kind of thing it is about.
    pub source_type: String,
    /// Which one.
    pub source_id: String,
    /// The device it is about.
    pub device_uid: Option<String>,
    /// The agent it is about.
    pub agent_uid: Option<String>,
    /// Labels beside those every alert has.
    pub labels: BTreeMap<String, String>,
}

/// What a condition is about: names an alert's fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The rule.
    pub rule: String,
    /// The thing the rule looks at: a device's uid, an agent's id, an interface.
    pub entity: String,
}

impl Subject {
    /// Names the condition, not the moment: sixteen hex digits.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.tenant, &self.partition, &self.rule, &self.entity] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(&hash.finalize()[..8])
    }
}

/// Why a step was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("an alert that is {} cannot become {}; allowed: {}", from.name(), to.name(), list(allowed))]
pub struct Refused {
    /// What it is.
    pub from: AlertStatus,
    /// What was asked.
    pub to: AlertStatus,
    /// What it may become.
    pub allowed: &'static [AlertStatus],
}

fn list(statuses: &[AlertStatus]) -> String {
    statuses.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ")
}

/// What a status may become.
pub fn allowed(from: AlertStatus) -> &'static [AlertStatus] {
    use AlertStatus::*;
    match from {
        Pending => &[Acknowledged, Escalated, Resolved, Suppressed],
        Acknowledged => &[Resolved, Escalated, Suppressed],
        Escalated => &[Resolved, Suppressed],
        Resolved | Suppressed => &[Pending],
    }
}

/// An alert between its condition's beginning and end, and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// What it is about.
    pub subject: Subject,
    /// The condition as last told.
    pub condition: Condition,
    /// Where it stands.
    pub status: AlertStatus,
    /// Whether the condition holds now.
    pub active: bool,
    /// When the condition began.
    pub began: Time,
    /// When it was acknowledged, and by whom.
    pub acknowledged: Option<(Time, String)>,
    /// When it was escalated.
    pub escalated: Option<Time>,
    /// When it was resolved, and by whom.
    pub resolved: Option<(Time, String)>,
    /// Times the condition was confirmed.
    pub occurrences: i64,
}

impl Life {
    /// A condition begins.
    pub fn begin(subject: Subject, condition: Condition, at: Time) -> Self {
        Life {
            subject,
            condition,
            status: AlertStatus::Pending,
            active: true,
            began: at,
            acknowledged: None,
            escalated: None,
            resolved: None,
            occurrences: 1,
        }
    }

    /// The condition still holds, perhaps in another form.
    pub fn confirm(&mut self, condition: Condition) {
        if self.condition != condition {
            self.condition = condition;
            self.occurrences += 1;
        }
    }

    /// Its id: the fingerprint and the start.
    pub fn id(&self) -> String {
        format!("{}-{}", self.subject.fingerprint(), self.began.ms())
    }

    /// Whether receivers should be told it burns.
    pub fn firing(&self) -> bool {
        self.active && !matches!(self.status, AlertStatus::Resolved | AlertStatus::Suppressed)
    }

    /// Moves it to `to`.
    ///
    /// # Errors
    /// [`Refused`] where its status does not allow that step.
    pub fn step(&mut self, to: AlertStatus, at: Time, actor: &str) -> Result<(), Refused> {
        let allowed = allowed(self.status);
        if !allowed.contains(&to) {
            return Err(Refused { from: self.status, to, allowed });
        }
        self.status = to;
        match to {
            AlertStatus::Acknowledged => self.acknowledged = Some((at, actor.to_owned())),
            AlertStatus::Escalated => self.escalated = Some(at),
            AlertStatus::Resolved => self.resolved = Some((at, actor.to_owned())),
            AlertStatus::Pending => self.resolved = None,
            AlertStatus::Suppressed => {}
        }
        Ok(())
    }

    /// When time alone would move it, milliseconds since 1970.
    pub fn due_ms(&self) -> Option<i64> {
        let waits = self.active && self.status == AlertStatus::Pending && self.condition.severity == "critical";
        waits.then(|| self.began.ms() + ESCALATE_AFTER_MS)
    }

    /// The row.
    pub fn row(&self) -> Alert {
        let labels: BTreeMap<String, String> = [
            ("alertname", self.condition.rule.as_str()),
            ("severity", &self.condition.severity),
            ("tenant", &self.subject.tenant),
            ("partition", &self.subject.partition),
            ("source_type", &self.condition.source_type),
            ("source_id", &self.condition.source_id),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .chain(self.condition.labels.clone())
        .collect();
        let annotations = BTreeMap::from([
            ("summary".to_owned(), self.condition.title.clone()),
            ("description".to_owned(), self.condition.description.clone()),
        ]);
        Alert {
            tenant_id: self.subject.tenant.clone(),
            partition: self.subject.partition.clone(),
            id: self.id(),
            fingerprint: self.subject.fingerprint(),
            title: self.condition.title.clone(),
            description: self.condition.description.clone(),
            severity: self.condition.severity.clone(),
            status: self.status.name().to_owned(),
            source_type: self.condition.source_type.clone(),
            source_id: self.condition.source_id.clone(),
            device_uid: self.condition.device_uid.clone(),
            agent_uid: self.condition.agent_uid.clone(),
            rule: self.condition.rule.clone(),
            triggered_at: self.began,
            acknowledged_at: self.acknowledged.as_ref().map(|a| a.0),
            acknowledged_by: self.acknowledged.as_ref().map(|a| a.1.clone()),
            resolved_at: self.resolved.as_ref().map(|a| a.0),
            resolved_by: self.resolved.as_ref().map(|a| a.1.clone()),
            escalated_at: self.escalated,
            occurrence_count: self.occurrences,
            labels: Tags(labels),
            annotations: Tags(annotations),
            epoch: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlertStatus::*;

    fn life() -> Life {
        let subject =
            Subject { tenant: "t".into(), partition: "p".into(), rule: "device-offline".into(), entity: "sr:1".into() };
        let condition = Condition {
            rule: "device-offline".into(),
            severity: "critical".into(),
            title: "x is offline".into(),
            description: String::new(),
            source_type: "device".into(),
            source_id: "sr:1".into(),
            device_uid: Some("sr:1".into()),
            agent_uid: None,
            labels: BTreeMap::new(),
        };
        Life::begin(subject, condition, Time::from_ms(1000))
    }

    #[test]
    fn every_step_is_allowed_or_refused_by_name() {
        let all = [Pending, Acknowledged, Escalated, Resolved, Suppressed];
        for from in all {
            for to in all {
                let mut life = life();
                life.status = from;
                let result = life.step(to, Time(1), "ann");
                assert_eq!(result.is_ok(), allowed(from).contains(&to), "{from:?} → {to:?}");
                assert_eq!(life.status, if result.is_ok() { to } else { from });
            }
        }
        let mut life = life();
        life.status = Escalated;
        let refused = life.step(Acknowledged, Time(1), "ann").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "an alert that is escalated cannot become acknowledged; allowed: resolved, suppressed"
        );
    }

    #[test]
    fn ids_tell_the_start_and_fingerprints_do_not() {
        let (a, mut b) = (life(), life());
        b.began = Time::from_ms(2000);
        assert_eq!(a.row().fingerprint, b.row().fingerprint);
        assert_ne!(a.id(), b.id());
        assert_eq!(a.due_ms(), Some(1000 + ESCALATE_AFTER_MS));
    }
}
