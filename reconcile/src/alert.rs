//! An alert's life: what each status may become, and what the end and the return of its condition do to it.
//!
//! ```text
//! pending ──► acknowledged | escalated | resolved | suppressed
//! acknowledged ──► resolved | escalated | suppressed
//! escalated ──► resolved | suppressed
//! resolved, suppressed ──► pending        (reopened)
//! ```
//! Anything else is refused, naming what is allowed. When the condition ends, `system` resolves what is not resolved, suppressed
//! alerts too. A condition that returns later is a new alert with its own start; the fingerprint stays. Who reopens an alert whose
//! condition is over says that it is not: it burns until a person resolves it, and is the same alert if its condition returns.
//!
//! *Suppressed* is not wanted, for a time or as long as the condition holds: receivers are told nothing, and not that it is over.
//! *Resolved* by a person is over, as far as receivers are concerned. *Acknowledged* is not repeated.
//!
//! An alert that nobody takes is escalated, level by level, as the policy of its tenant says that matches its labels; where none
//! does, a critical one once after [`ESCALATE_AFTER_MS`].

use std::collections::BTreeMap;

use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::fact::AlertStatus;
use radarflow_proto::payload::NotifiedAlert;
use radarflow_proto::rows::Alert;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::routing::{Burning, Hold};

/// A pending critical alert nobody takes is escalated after this long.
pub const ESCALATE_AFTER_MS: i64 = 30 * 60 * 1000;

/// What was measured where a measurement found a condition. Numbers are decimal text, so that they compare as they are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Measured {
    /// What: `ifInErrors`, `loss_percent`.
    pub metric: String,
    /// What was found.
    pub value: Option<String>,
    /// What that was compared with.
    pub threshold: Option<String>,
    /// How: `>`, `>=`, `<`, `<=`, `=` or `!=`.
    pub comparison: Option<String>,
}

/// A condition that holds: everything an alert tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// What was measured, if anything was.
    pub measured: Option<Measured>,
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
    /// When it was escalated last.
    pub escalated: Option<Time>,
    /// How often.
    pub level: i64,
    /// When it was resolved, and by whom.
    pub resolved: Option<(Time, String)>,
    /// Who does not want it, and until when.
    pub suppressed: Option<(String, Option<Time>)>,
    /// Since when it waits for somebody to take it.
    pub waits: Time,
    /// After how long each level comes, milliseconds; `None` where no policy says.
    pub levels: Option<Vec<i64>>,
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
            level: 0,
            resolved: None,
            suppressed: None,
            waits: at,
            levels: None,
            occurrences: 1,
        }
    }

    /// The condition still holds, perhaps in another form, or holds again.
    pub fn confirm(&mut self, condition: Condition) {
        if !self.active || self.condition != condition {
            (self.active, self.condition) = (true, condition);
            self.occurrences += 1;
        }
    }

    /// Its id: the fingerprint and the start.
    pub fn id(&self) -> String {
        format!("{}-{}", self.subject.fingerprint(), self.began.ms())
    }

    /// Whether it burns as far as receivers are concerned, told or held.
    pub fn burns(&self) -> bool {
        self.status != AlertStatus::Resolved
    }

    /// Why receivers are told nothing, if somebody does not want it.
    pub fn hold(&self) -> Option<Hold> {
        let (by, until) = self.suppressed.as_ref().filter(|_| self.status == AlertStatus::Suppressed)?;
        Some(Hold { why: format!("suppressed by {by}"), until_ms: until.map(Time::ms) })
    }

    /// The same as whoever tells of it must know it.
    pub fn burning(&self) -> Burning {
        let row = self.row();
        Burning {
            alert: NotifiedAlert {
                id: row.id,
                fingerprint: row.fingerprint,
                labels: row.labels.0,
                annotations: row.annotations.0,
                starts_at_ms: self.began.ms(),
                ends_at_ms: None,
            },
            partition: row.partition,
            device_uid: row.device_uid,
            suppressed: self.hold(),
            taken: self.status == AlertStatus::Acknowledged,
            level: self.level,
        }
    }

    /// Moves it to `to`; what is suppressed, until a time.
    ///
    /// # Errors
    /// [`Refused`] where its status does not allow that step.
    pub fn step(&mut self, to: AlertStatus, until: Option<Time>, at: Time, actor: &str) -> Result<(), Refused> {
        let allowed = allowed(self.status);
        if !allowed.contains(&to) {
            return Err(Refused { from: self.status, to, allowed });
        }
        self.status = to;
        self.suppressed = None;
        match to {
            AlertStatus::Acknowledged => self.acknowledged = Some((at, actor.to_owned())),
            AlertStatus::Escalated => (self.escalated, self.level) = (Some(at), self.level + 1),
            AlertStatus::Resolved => self.resolved = Some((at, actor.to_owned())),
            AlertStatus::Pending => (self.resolved, self.waits, self.level) = (None, at, 0),
            AlertStatus::Suppressed => self.suppressed = Some((actor.to_owned(), until)),
        }
        Ok(())
    }

    /// Its condition is over. Tells what it was, unless it was resolved before.
    pub fn over(&mut self, at: Time) -> Option<AlertStatus> {
        self.active = false;
        let before = self.status;
        (before != AlertStatus::Resolved).then(|| {
            (self.status, self.suppressed, self.resolved) =
                (AlertStatus::Resolved, None, Some((at, "system".to_owned())));
            before
        })
    }

    /// After how long each level comes, milliseconds from when it began to wait.
    fn after(&self) -> &[i64] {
        match &self.levels {
            Some(levels) => levels,
            None if self.condition.severity == "critical" => &[ESCALATE_AFTER_MS],
            None => &[],
        }
    }

    /// When time alone would move it, milliseconds since 1970.
    pub fn due_ms(&self) -> Option<i64> {
        match self.status {
            AlertStatus::Pending | AlertStatus::Escalated => {
                let after = self.after().get(usize::try_from(self.level).ok()?)?;
                Some(self.waits.ms().saturating_add(*after))
            }
            AlertStatus::Suppressed => self.suppressed.as_ref()?.1.map(Time::ms),
            _ => None,
        }
    }

    /// What time alone does at an instant: tells what it was, and why it is otherwise.
    pub fn wait(&mut self, at: Time) -> Option<(AlertStatus, String)> {
        self.due_ms().filter(|due| *due <= at.ms())?;
        let before = self.status;
        if before == AlertStatus::Suppressed {
            self.step(AlertStatus::Pending, None, at, "system").ok()?;
            return Some((before, "its time is over".to_owned()));
        }
        (self.status, self.escalated, self.level) = (AlertStatus::Escalated, Some(at), self.level + 1);
        Some((before, format!("nobody took it: level {}", self.level)))
    }

    /// Labels, of the condition and those that every alert has.
    pub fn labels(&self) -> BTreeMap<String, String> {
        labels(&self.subject, &self.condition)
    }

    /// The row.
    pub fn row(&self) -> Alert {
        let measured = self.condition.measured.clone().unwrap_or_default();
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
            escalation_level: self.level,
            suppressed_until: self.suppressed.as_ref().and_then(|s| s.1),
            suppressed_by: self.suppressed.as_ref().map(|s| s.0.clone()),
            metric_name: Some(measured.metric).filter(|metric| !metric.is_empty()),
            metric_value: measured.value,
            threshold_value: measured.threshold,
            comparison: measured.comparison,
            last_notification_at: None,
            notification_count: 0,
            occurrence_count: self.occurrences,
            labels: Tags(self.labels()),
            annotations: Tags(annotations),
            epoch: 0,
        }
    }
}

/// The labels of an alert: those that every alert has, and those of its condition.
pub fn labels(subject: &Subject, condition: &Condition) -> BTreeMap<String, String> {
    let of_all = [
        ("alertname", condition.rule.as_str()),
        ("severity", &condition.severity),
        ("tenant", &subject.tenant),
        ("partition", &subject.partition),
        ("source_type", &condition.source_type),
        ("source_id", &condition.source_id),
    ];
    let of_all = of_all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    // A condition's own may be what a sender said: they never stand for these.
    condition.labels.clone().into_iter().chain(of_all).collect()
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
            ..Condition::default()
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
                let result = life.step(to, None, Time(1), "ann");
                assert_eq!(result.is_ok(), allowed(from).contains(&to), "{from:?} → {to:?}");
                assert_eq!(life.status, if result.is_ok() { to } else { from });
            }
        }
        let mut life = life();
        life.status = Escalated;
        let refused = life.step(Acknowledged, None, Time(1), "ann").unwrap_err();
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

    #[test]
    fn suppressed_for_a_time_it_waits_again_after_it_and_ends_with_its_condition() {
        let (mut life, until) = (life(), Time::from_ms(5000));
        life.step(Suppressed, Some(until), Time::from_ms(2000), "ann").unwrap();
        assert!(life.burns() && life.due_ms() == Some(5000));
        assert_eq!(life.hold(), Some(Hold { why: "suppressed by ann".into(), until_ms: Some(5000) }));
        assert_eq!(life.wait(Time::from_ms(4999)), None);
        assert_eq!(life.wait(until).map(|w| w.0), Some(Suppressed));
        assert_eq!((life.status, life.hold(), life.due_ms()), (Pending, None, Some(5000 + ESCALATE_AFTER_MS)));
        life.step(Suppressed, None, Time::from_ms(6000), "ann").unwrap();
        assert_eq!((life.due_ms(), life.over(Time::from_ms(7000))), (None, Some(Suppressed)));
        assert!(!life.burns());
        assert_eq!((life.status, life.resolved.clone().unwrap().1.as_str()), (Resolved, "system"));
        assert_eq!(life.over(Time::from_ms(8000)), None);
    }

    #[test]
    fn who_reopens_what_is_over_has_it_burn_until_it_is_resolved_again() {
        let mut life = life();
        life.over(Time::from_ms(2000));
        assert!(!life.burns() && life.due_ms().is_none());
        life.step(Pending, None, Time::from_ms(3000), "ann").unwrap();
        assert!(life.burns() && !life.active);
        assert_eq!(life.due_ms(), Some(3000 + ESCALATE_AFTER_MS));
        let again = life.condition.clone();
        life.confirm(again);
        assert!(life.active && life.occurrences == 2);
        assert_eq!(life.over(Time::from_ms(4000)), Some(Pending));
        assert!(!life.burns());
    }

    #[test]
    fn levels_come_one_after_another_until_somebody_takes_it() {
        let mut life = life();
        life.levels = Some(vec![100, 300]);
        assert_eq!(life.due_ms(), Some(1100));
        assert_eq!(life.wait(Time::from_ms(1100)).map(|w| w.0), Some(Pending));
        assert_eq!((life.status, life.due_ms()), (Escalated, Some(1300)));
        assert_eq!(life.wait(Time::from_ms(1300)).map(|w| w.0), Some(Escalated));
        assert_eq!((life.level, life.due_ms()), (2, None));
        life.levels = Some(Vec::new());
        assert_eq!(life.due_ms(), None, "no level, no escalation");
    }
}
