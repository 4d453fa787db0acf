//! Clear pairs. What one means is [`crate::pairs`].

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::pairs::{MAX_ABOUT, MAX_OIDS, Pair};

/// The declaration.
pub(super) static CLEAR_PAIRS: ResourceKind = ResourceKind {
    table: Table::ClearPair,
    singular: "clear_pair",
    id: "name",
    fields: &[
        Field::texts("begins", MAX_OIDS, 500),
        Field::texts("ends", MAX_OIDS, 500),
        Field::texts("about", MAX_ABOUT, 600),
        Field::flag("enabled", true),
        Field::one_of("severity", &["emergency", "critical", "warning", "info"]).or("warning"),
        Field::text("title", 500).or(""),
        Field::text("description", 4000).or(""),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Operator,
    made_by: MadeBy::People,
    most: 500,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(_: &World<'_>, resource: &Resource) -> Result<(), Wrong> {
    Pair::of(resource).map(|_| ()).map_err(|(field, why)| Wrong::field(field, why))
}
