//! Dependencies: which devices stand behind which. What follows from that is [`crate::reach`].

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::condition::Condition;

/// The declaration.
pub(super) static DEPENDENCIES: ResourceKind = ResourceKind {
    table: Table::Dependency,
    singular: "dependency",
    id: "name",
    fields: &[
        Field::text("parent", 20_000).required(),
        Field::text("children", 20_000).required(),
        Field::text("site", 200),
        Field::text("description", 1000).or(""),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Operator,
    made_by: MadeBy::People,
    most: 1000,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(_: &World<'_>, resource: &Resource) -> Result<(), Wrong> {
    for field in ["parent", "children"] {
        Condition::read(resource.text(field).unwrap_or_default()).map_err(|why| Wrong::field(field, why))?;
    }
    Ok(())
}
