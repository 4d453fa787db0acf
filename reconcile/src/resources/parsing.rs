//! Rules that read fields out of log messages. What they mean is [`crate::parsing`].

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::parsing::{MAX_RULES, ParsingRule};

/// The declaration.
pub(super) static PARSING_RULES: ResourceKind = ResourceKind {
    table: Table::ParsingRule,
    singular: "parsing_rule",
    id: "name",
    fields: &[
        Field::flag("enabled", true),
        Field::number("position", -1_000_000, 1_000_000, 0),
        Field::texts("programs", 100, 200),
        Field::texts("senders", 1000, 50),
        Field::text("pattern", 4000).required(),
        Field::text("severity", 200),
        Field::text("body", 1000),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: MAX_RULES,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(_: &World<'_>, rule: &Resource) -> Result<(), Wrong> {
    ParsingRule::read(rule).map(|_| ()).map_err(|(field, why)| Wrong::field(field, why))
}
