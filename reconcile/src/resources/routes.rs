//! Who is told of which alerts: a tree, a node a resource. What it means is [`crate::routing`].
//!
//! A node a resource, and not a tree a resource: a team adds its own branch and nobody else's is written again, the audit says
//! which node changed, and files have one node an entry.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::rotas::told;
use super::silences::{matchers, of_matchers};
use super::world::World;
use crate::routing::policy::{ALL_LABELS, MAX_DEPTH, NOBODY};

/// Milliseconds in the longest time a group may wait: 30 days.
const MAX_WAIT_MS: i64 = 30 * 24 * 3600 * 1000;

/// The declaration.
pub(super) static ROUTES: ResourceKind = ResourceKind {
    table: Table::Route,
    singular: "route",
    id: "name",
    fields: &[
        Field::text("parent", 200),
        Field::number("position", -1_000_000, 1_000_000, 0),
        of_matchers("matchers"),
        Field::texts("receivers", 50, 200),
        Field::texts("group_by", 100, 200),
        Field::maybe("group_wait_ms", 0, MAX_WAIT_MS),
        Field::maybe("group_interval_ms", 0, MAX_WAIT_MS),
        Field::maybe("repeat_interval_ms", 1000, MAX_WAIT_MS),
        Field::flag("continue", false),
        Field::texts("mute_time_intervals", 50, 200),
        Field::texts("active_time_intervals", 50, 200),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 2000,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(world: &World<'_>, route: &Resource) -> Result<(), Wrong> {
    let missing = |field, what: &str, name: &str| {
        Err(Wrong::field(field, format!("there is no {what} {name}")).of(RefusalCode::Reference))
    };
    matchers(world, route, "matchers")?;
    let receivers = route.texts("receivers");
    told(world, &receivers, NOBODY)?;
    if receivers.len() > 1 && receivers.iter().any(|name| name == NOBODY) {
        return Err(Wrong::field("receivers", "- is nobody: nothing stands beside it"));
    }
    for field in ["mute_time_intervals", "active_time_intervals"] {
        if let Some(name) = route.texts(field).iter().find(|name| world.get(Table::TimeInterval, name).is_none()) {
            return missing(field, "time interval", name);
        }
    }
    let by = route.texts("group_by");
    if by.len() > 1 && by.iter().any(|name| name == ALL_LABELS) {
        return Err(Wrong::field("group_by", "... is all labels: nothing stands beside it"));
    }
    // Upwards: who is told, and that there is an end.
    let (mut is_told, mut at, mut depth) = (!receivers.is_empty(), route.text("parent"), 1);
    while let Some(name) = at {
        let Some(parent) = world.get(Table::Route, name) else { return missing("parent", "route", name) };
        is_told |= !parent.texts("receivers").is_empty();
        depth += 1;
        if name == route.id {
            return Err(Wrong::field("parent", "it would be above itself"));
        }
        if depth > MAX_DEPTH {
            return Err(Wrong::field("parent", format!("a tree has {MAX_DEPTH} levels at most")));
        }
        at = parent.text("parent");
    }
    match is_told {
        true => Ok(()),
        false => Err(Wrong::field("receivers", "neither it nor a route above it says who is told")),
    }
}

/// Whether one refers to a time interval.
pub(super) fn refers(route: &Resource, interval: &str) -> bool {
    ["mute_time_intervals", "active_time_intervals"]
        .iter()
        .any(|field| route.texts(field).iter().any(|i| i == interval))
}
