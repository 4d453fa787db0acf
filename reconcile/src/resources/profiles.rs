//! What agents look at. What a profile means is [`crate::jobs`]; that its condition is one of the query language is seen to
//! where that is known, before it is stated.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{Fields, RefusalCode, Resource};
use radarflow_proto::rows::Table;

use serde_json::Value;

use super::kind::{Field, MadeBy, ResourceAction, ResourceKind, Wrong};
use super::world::World;
use crate::jobs::known::MAX_PAUSES;
use crate::jobs::profile::KINDS;
use crate::jobs::{Member, Profile};
use crate::routing::times::Interval;

/// Seconds of a day: no interval is longer.
const DAY_S: i64 = 86_400;

/// Targets that a run names at most.
const MAX_ASKED: usize = 100;
/// Bytes of them.
const MAX_ASKED_BYTES: usize = 4000;
/// Seconds until which a command must have begun, where nobody says, and at most.
const TTL_S: i64 = 60;
const MAX_TTL_S: i64 = 3600;

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
        Field::text("cron", 200),
        Field::text("time_zone", 64).or("UTC"),
        Field::texts("pause_during", 50, 200),
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
    actions: &[
        ResourceAction {
            fields: &[
                Field::texts("targets", MAX_ASKED, 253),
                Field::texts("agents", 100, 255),
                Field::number("ttl_s", 1, MAX_TTL_S, TTL_S),
                Field::flag("force", false),
            ],
            check: can_run,
            ..ResourceAction::new(
                "run",
                "Has its agents look at once: at all targets, or at some; by all agents, or by some. A command each, of which \
                 `in:commands` tells how it goes; `meta.run_id` names them together.",
                Role::Operator,
            )
        },
        ResourceAction {
            fields: &[Field::text("run_id", 64)],
            ..ResourceAction::new(
                "cancel",
                "Withdraws its commands that are not over: those of a run, or all. What an agent has begun it goes on with.",
                Role::Operator,
            )
        },
    ],
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
    if let Some(name) = profile.pause_during.iter().find(|name| world.get(Table::TimeInterval, name).is_none()) {
        let why = format!("there is no time interval {name}");
        return Err(Wrong::field("pause_during", why).of(RefusalCode::Reference));
    }
    let intervals = profile.pause_during.iter().filter_map(|name| world.get(Table::TimeInterval, name));
    let periods: usize = intervals.map(|interval| interval.texts("periods").len()).sum();
    if periods > MAX_PAUSES {
        let why = format!("a profile pauses in {MAX_PAUSES} periods at most; these have {periods}");
        return Err(Wrong::field("pause_during", why));
    }
    let Some(name) = &profile.device_group else { return Ok(()) };
    let refuse = |why: String| Wrong::field("device_group", why).of(RefusalCode::Reference);
    let group =
        world.get(Table::DeviceGroup, name).ok_or_else(|| refuse(format!("there is no device group {name}")))?;
    Member::of(group).map(|_| ()).map_err(|why| refuse(format!("the condition of {name} cannot be followed: {why}")))
}

/// Whether it can be run at once.
fn can_run(world: &World<'_>, profile: &Resource, said: &Fields) -> Result<(), Wrong> {
    let conflict = |detail: String| Err(Wrong { code: RefusalCode::Conflict, field: None, detail });
    if !profile.flag("enabled") {
        return conflict(format!("profile {} is not enabled", profile.id));
    }
    let texts = said.get("targets").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let bytes: usize = texts.map(str::len).sum();
    if bytes > MAX_ASKED_BYTES {
        let why = format!("they have {bytes} bytes, {MAX_ASKED_BYTES} at most: run all, or a profile of fewer");
        return Err(Wrong::field("targets", why));
    }
    let forced = said.get("force").and_then(Value::as_bool).unwrap_or_default();
    let pauses = profile.texts("pause_during").into_iter().find(|name| {
        let interval = world.get(Table::TimeInterval, name).and_then(|i| Interval::read(&i.texts("periods")).ok());
        interval.is_some_and(|interval| interval.holds(world.now_us / 1000))
    });
    match pauses.filter(|_| !forced) {
        Some(name) => {
            conflict(format!("profile {} pauses now, during {name}: say force to run it all the same", profile.id))
        }
        None => Ok(()),
    }
}

/// Whether one pauses by a time interval.
pub(super) fn pauses_by(profile: &Resource, interval: &str) -> bool {
    profile.texts("pause_during").iter().any(|name| name == interval)
}

/// Whether one refers to a group.
pub(super) fn refers(profile: &Resource, group: &str) -> bool {
    profile.text("device_group") == Some(group)
}
