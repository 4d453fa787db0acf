//! What alerts are known by, and the conditions that they come of.

use radarflow_reconcile::alert::{Condition, Subject};
use serde::{Deserialize, Serialize};

use crate::collection::Events;

/// A condition begins (1) or ceases (-1) to hold in this form: the alert that comes of it, and what it says.
pub type ConditionChange = (AlertKey, Condition, isize);
/// What whoever notices conditions says.
pub type Conditions<'scope> = Events<'scope, ConditionChange>;

/// Which alert: the condition's name. `subject` is missing where only an alert's id is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlertKey {
    /// Customer.
    pub tenant: String,
    /// Names the condition.
    pub fingerprint: String,
    /// What it is about.
    pub subject: Option<Subject>,
}

impl AlertKey {
    /// Of what it is about.
    pub fn of_subject(subject: Subject) -> Self {
        AlertKey { tenant: subject.tenant.clone(), fingerprint: subject.fingerprint(), subject: Some(subject) }
    }

    /// Of an alert's id, which begins with the fingerprint.
    pub fn of_alert(tenant: &str, alert_id: &str) -> Self {
        let fingerprint = alert_id.split('-').next().unwrap_or_default().to_owned();
        AlertKey { tenant: tenant.to_owned(), fingerprint, subject: None }
    }

    fn name(&self) -> (&str, &str) {
        (&self.tenant, &self.fingerprint)
    }
}

impl PartialEq for AlertKey {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}
impl Eq for AlertKey {}
impl PartialOrd for AlertKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name().cmp(&other.name())
    }
}
impl std::hash::Hash for AlertKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}
