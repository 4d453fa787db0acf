//! Work on devices, of whose alerts nobody is told meanwhile. They are looked at as ever.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::silences::ends_after;
use super::world::World;
use crate::condition::Condition;

/// The declaration.
pub(super) static MAINTENANCE_WINDOWS: ResourceKind = ResourceKind {
    table: Table::MaintenanceWindow,
    singular: "maintenance_window",
    id: "name",
    fields: &[
        Field::text("condition", 20_000),
        Field::texts("partitions", 200, 200),
        Field::instant("starts_at"),
        Field::instant("ends_at"),
        Field::texts("time_intervals", 50, 200),
        Field::text("comment", 2000).or(""),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Operator,
    made_by: MadeBy::People,
    most: 500,
    expires: Some("ends_at"),
    check,
    derived: |_| Vec::new(),
};

fn check(world: &World<'_>, window: &Resource) -> Result<(), Wrong> {
    match window.text("condition").map(Condition::read) {
        Some(Err(why)) => return Err(Wrong::field("condition", why)),
        None if window.texts("partitions").is_empty() => {
            return Err(Wrong::field("condition", "it is about some devices (condition), or about partitions"));
        }
        _ => {}
    }
    let intervals = window.texts("time_intervals");
    if let Some(name) = intervals.iter().find(|name| world.get(Table::TimeInterval, name).is_none()) {
        let why = format!("there is no time interval {name}");
        return Err(Wrong::field("time_intervals", why).of(RefusalCode::Reference));
    }
    if intervals.is_empty() && window.number("ends_at").is_none() {
        return Err(Wrong::field("ends_at", "it ends at some time, or has time intervals"));
    }
    ends_after(world, window)
}

/// Whether one refers to a time interval.
pub(super) fn refers(window: &Resource, interval: &str) -> bool {
    window.texts("time_intervals").iter().any(|name| name == interval)
}
