//! Devices that operators speak of by one name. That a condition is one of the query language is seen to where that is
//! known, before it is stated.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::profiles;
use super::world::World;
use crate::jobs::Member;

/// The declaration.
pub(super) static DEVICE_GROUPS: ResourceKind = ResourceKind {
    table: Table::DeviceGroup,
    singular: "device_group",
    id: "name",
    fields: &[
        Field::text("condition", 20_000),
        Field::texts("members", 10_000, 200),
        Field::text("description", 1000).or(""),
        Field::text("reason", 1000).or(""),
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

fn check(world: &World<'_>, group: &Resource) -> Result<(), Wrong> {
    if group.text("condition").is_some() && !group.texts("members").is_empty() {
        return Err(Wrong::field("members", "a group has a condition or members, not both"));
    }
    // What agents look at follows a group within the dataflow.
    let follows = world.all(Table::Profile).find(|profile| profiles::refers(profile, &group.id));
    match follows.map(|profile| (profile, Member::of(group))) {
        Some((profile, Err(why))) => {
            Err(Wrong::field("condition", format!("profile {} follows it, and cannot: {why}", profile.id)))
        }
        _ => Ok(()),
    }
}
