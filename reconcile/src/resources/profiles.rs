//! What agents look at. What a profile means is [`crate::jobs`]; that its condition is one of the query language is seen to
//! where that is known, before it is stated.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::jobs::profile::KINDS;
use crate::jobs::{Member, Profile};

/// Seconds of a day: no interval is longer.
const DAY_S: i64 = 86_400;

/// Addresses that the profiles of a tenant name, beside those of devices.
const MAX_ADDRESSES: usize = 200_000;

/// The declaration.
pub(super) static PROFILES: ResourceKind = ResourceKind {
    table: Table::Profile,
    singular: "profile",
    id: "name",
    fields: &[
        Field::one_of("kind", KINDS).required(),
        Field::text("description", 1000).or(""),
        Field::flag("enabled", true),
        Field::number("priority", -1000, 1000, 0),
        Field::text("site", 200),
        Field::text("condition", 20_000),
        Field::text("device_group", 200),
        Field::texts("hosts", 10_000, 253),
        Field::texts("exclude", 10_000, 253),
        Field::number("interval_s", 1, DAY_S, 60),
        Field::one_of("assignment", &["auto", "all", "listed"]).or("auto"),
        Field::texts("agents", 1000, 255),
        Field::number("timeout_ms", 10, 60_000, 1000),
        Field::number("attempts", 1, 20, 1),
        Field::texts("ports", 64, 5),
        Field::flag("tls", false),
        Field::text("url_path", 2000).or("/"),
        Field::text("expected_status", 200).or("200-399"),
        Field::text("body_pattern", 2000),
        Field::number("redirects", 0, 10, 0),
        Field::text("query_name", 253),
        Field::one_of("record_type", &["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "TXT"]).or("A"),
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

fn check(world: &World<'_>, resource: &Resource) -> Result<(), Wrong> {
    let profile = Profile::of(resource).map_err(|(field, why)| Wrong::field(field, why))?;
    // Each address is kept by itself, and by whoever asks it.
    let own = profile.own_hosts().count();
    if own > 0 {
        let others = world.all(Table::Profile).filter(|other| other.id != resource.id);
        let others = others.filter(|other| !other.texts("hosts").is_empty());
        let others: usize = others.filter_map(|other| Profile::of(other).ok()).map(|p| p.own_hosts().count()).sum();
        if own + others > MAX_ADDRESSES {
            let why = format!(
                "the profiles of a tenant name {MAX_ADDRESSES} addresses at most; these would be {}",
                own + others
            );
            return Err(Wrong::field("hosts", why).of(RefusalCode::TooMany));
        }
    }
    let Some(name) = &profile.device_group else { return Ok(()) };
    let refuse = |why: String| Wrong::field("device_group", why).of(RefusalCode::Reference);
    let group =
        world.get(Table::DeviceGroup, name).ok_or_else(|| refuse(format!("there is no device group {name}")))?;
    Member::of(group).map(|_| ()).map_err(|why| refuse(format!("the condition of {name} cannot be followed: {why}")))
}

/// Whether one refers to a group.
pub(super) fn refers(profile: &Resource, group: &str) -> bool {
    profile.text("device_group") == Some(group)
}
