//! What becomes of alerts that nobody takes.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use serde::{Deserialize, Serialize};

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::rotas::told;
use super::silences::{matchers, of_matchers};
use super::world::World;
use crate::routing::Matcher;
use crate::routing::matcher::{Labels, all_match};
use crate::routing::policy::NOBODY;
use crate::routing::times::duration_ms;

/// Levels of a policy.
const MAX_LEVELS: usize = 10;

/// The declaration.
pub(super) static ESCALATION_POLICIES: ResourceKind = ResourceKind {
    table: Table::EscalationPolicy,
    singular: "escalation_policy",
    id: "name",
    fields: &[
        Field::number("position", -1_000_000, 1_000_000, 0),
        of_matchers("matchers"),
        Field::texts("levels", MAX_LEVELS, 50),
        Field::texts("receivers", MAX_LEVELS, 200),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 50,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(world: &World<'_>, policy: &Resource) -> Result<(), Wrong> {
    matchers(world, policy, "matchers")?;
    let levels = levels(policy).map_err(|why| Wrong::field("levels", why))?;
    let receivers = policy.texts("receivers");
    told(world, &receivers, NOBODY)?;
    if receivers.len() > levels.len() {
        return Err(Wrong::field("receivers", "there is one a level at most"));
    }
    match levels.is_sorted_by(|a, b| a < b) {
        true => Ok(()),
        false => Err(Wrong::field("levels", "each comes after the one before it")),
    }
}

fn levels(policy: &Resource) -> Result<Vec<i64>, String> {
    policy.texts("levels").iter().map(|text| duration_ms(text)).collect()
}

/// After how long an alert is escalated, as one policy says; the first of those that match counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Escalation {
    /// The first counts.
    pub position: i64,
    /// Its name.
    pub name: String,
    /// After how long each level comes, milliseconds.
    pub levels: Vec<i64>,
}

/// A policy, read once.
pub struct Policy {
    matchers: Vec<Matcher>,
    says: Escalation,
}

impl Policy {
    /// `None` where it cannot be read.
    pub fn read(policy: &Resource) -> Option<Policy> {
        let says = Escalation {
            position: policy.number("position").unwrap_or_default(),
            name: policy.id.clone(),
            levels: levels(policy).unwrap_or_default(),
        };
        Some(Policy { matchers: Matcher::read_all(&policy.texts("matchers")).ok()?, says })
    }

    /// What it says of an alert with these labels; `None` where it does not match.
    pub fn of(&self, labels: &Labels) -> Option<Escalation> {
        all_match(&self.matchers, labels).then(|| self.says.clone())
    }
}
