//! Rules: what alerts come of. What a rule means is [`crate::rules`].

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::rules::Rule;

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// The declaration.
pub(super) static RULES: ResourceKind = ResourceKind {
    table: Table::Rule,
    singular: "rule",
    id: "name",
    fields: &[
        Field::text("query", 20_000).required(),
        Field::flag("enabled", true),
        Field::number("for_s", 0, DAY_S, 0),
        Field::number("resolve_for_s", 0, DAY_S, 0),
        Field::one_of("severity", &["emergency", "critical", "warning", "info"]).or("warning"),
        Field::text("title", 500).or(""),
        Field::text("description", 4000).or(""),
        Field::text("runbook_url", 2000),
        Field::texts("labels", 32, 500),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Operator,
    made_by: MadeBy::People,
    most: 10_000,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(_: &World<'_>, resource: &Resource) -> Result<(), Wrong> {
    Rule::of(resource).map(|_| ()).map_err(|(field, why)| Wrong::field(field, why))
}
