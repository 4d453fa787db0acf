//! Alerts that nobody is told of for a time. A silence ends by itself, by the clock of the epoch; to end it early is to delete it.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::routing::Matcher;
use crate::routing::matcher::{MAX_EXPRESSIONS, MAX_MATCHER, MAX_MATCHERS};

/// A list of matchers.
pub(super) const fn of_matchers(name: &'static str) -> Field {
    Field::texts(name, MAX_MATCHERS, MAX_MATCHER)
}

/// The declaration.
pub(super) static SILENCES: ResourceKind = ResourceKind {
    table: Table::Silence,
    singular: "silence",
    id: "name",
    fields: &[
        of_matchers("matchers"),
        Field::instant("starts_at"),
        Field::instant("ends_at").required(),
        Field::text("comment", 2000).required(),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Operator,
    made_by: MadeBy::People,
    most: 2000,
    expires: Some("ends_at"),
    check,
    derived: |_| Vec::new(),
};

fn check(world: &World<'_>, silence: &Resource) -> Result<(), Wrong> {
    let matchers = matchers(world, silence, "matchers")?;
    if matchers.iter().all(Matcher::holds_of_nothing) {
        let why = "at least one of them must ask for a label: this silence would hold of every alert";
        return Err(Wrong::field("matchers", why));
    }
    ends_after(world, silence)
}

/// That something ends after it begins, and not before now.
pub(super) fn ends_after(world: &World<'_>, resource: &Resource) -> Result<(), Wrong> {
    let Some(ends) = resource.number("ends_at") else { return Ok(()) };
    if resource.number("starts_at").is_some_and(|starts| starts >= ends) {
        return Err(Wrong::field("ends_at", "it ends after it begins"));
    }
    if ends <= world.now_us {
        return Err(Wrong::field("ends_at", "it is over already"));
    }
    Ok(())
}

/// Every list of matchers that there is.
const LISTS: [(Table, &str); 5] = [
    (Table::Route, "matchers"),
    (Table::Silence, "matchers"),
    (Table::InhibitRule, "source_matchers"),
    (Table::InhibitRule, "target_matchers"),
    (Table::EscalationPolicy, "matchers"),
];

/// Reads the matchers of a resource; all expressions of a tenant are bounded together.
pub(super) fn matchers(world: &World<'_>, resource: &Resource, field: &'static str) -> Result<Vec<Matcher>, Wrong> {
    let read = Matcher::read_all(&resource.texts(field)).map_err(|why| Wrong::field(field, why))?;
    if read.iter().any(Matcher::is_expression) {
        let expressions = |text: &String| {
            (text.contains("=~") || text.contains("!~")) && Matcher::read(text).is_ok_and(|m| m.is_expression())
        };
        let of = |(table, field): (Table, &'static str)| world.all(table).flat_map(move |of| of.texts(field));
        let count = LISTS.into_iter().flat_map(of).filter(expressions).take(MAX_EXPRESSIONS + 1).count();
        if count > MAX_EXPRESSIONS {
            let why = format!(
                "a tenant has {MAX_EXPRESSIONS} regular expressions at most; lists of words (a|b) are not counted"
            );
            return Err(Wrong::field(field, why).of(RefusalCode::TooMany));
        }
    }
    Ok(read)
}
