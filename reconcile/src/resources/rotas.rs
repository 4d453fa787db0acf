//! Who is on call, and who takes over for a while. What they mean is [`crate::routing::oncall`].

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::silences::ends_after;
use super::world::World;
use crate::routing::oncall::{ONCALL, Person, Rota};

/// People of a rota.
const MAX_PEOPLE: usize = 50;
/// Bytes of one, with the receiver.
const MAX_PERSON: usize = 401;

/// The declaration.
pub(super) static ROTAS: ResourceKind = ResourceKind {
    table: Table::Rota,
    singular: "rota",
    id: "name",
    fields: &[
        Field::texts("people", MAX_PEOPLE, MAX_PERSON),
        Field::instant("starts_at").required(),
        Field::text("shift", 50).or("1w"),
        Field::text("time_zone", 100).or("UTC"),
        Field::texts("time_intervals", 50, 200),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 100,
    expires: None,
    check: check_rota,
    derived: |_| Vec::new(),
};

/// The declaration of overrides. Who was on call by one that is over is told by `in:oncall at:…`.
pub(super) static ROTA_OVERRIDES: ResourceKind = ResourceKind {
    table: Table::RotaOverride,
    singular: "rota_override",
    id: "name",
    fields: &[
        Field::text("rota", 200).required().immutable(),
        Field::text("person", MAX_PERSON).required(),
        Field::instant("starts_at").required(),
        Field::instant("ends_at").required(),
        Field::text("comment", 2000).or(""),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Operator,
    made_by: MadeBy::People,
    most: 500,
    expires: Some("ends_at"),
    check: check_override,
    derived: |_| Vec::new(),
};

fn reached(world: &World<'_>, field: &'static str, person: &Person) -> Result<(), Wrong> {
    match world.get(Table::Receiver, &person.receiver) {
        Some(_) => Ok(()),
        None => {
            Err(Wrong::field(field, format!("there is no receiver {}", person.receiver)).of(RefusalCode::Reference))
        }
    }
}

fn check_rota(world: &World<'_>, rota: &Resource) -> Result<(), Wrong> {
    Rota::read(rota).map_err(|(field, why)| Wrong::field(field, why))?;
    for text in rota.texts("people") {
        let person = Person::read(&text).map_err(|why| Wrong::field("people", why))?;
        reached(world, "people", &person)?;
    }
    // Overrides may name its people: they must go on to lead somewhere.
    for over in world.all(Table::RotaOverride).filter(|over| over.text("rota") == Some(&rota.id)) {
        let said = over.text("person").unwrap_or_default();
        let person = Person::of(said, &rota.texts("people")).map_err(|why| Wrong::field("people", why))?;
        if world.get(Table::Receiver, &person.receiver).is_none() {
            let why = format!("override {} names {said}, who would lead to no receiver", over.id);
            return Err(Wrong::field("people", why).of(RefusalCode::Reference));
        }
    }
    match rota.texts("time_intervals").iter().find(|name| world.get(Table::TimeInterval, name).is_none()) {
        Some(name) => {
            let why = format!("there is no time interval {name}");
            Err(Wrong::field("time_intervals", why).of(RefusalCode::Reference))
        }
        None => Ok(()),
    }
}

fn check_override(world: &World<'_>, of: &Resource) -> Result<(), Wrong> {
    ends_after(world, of)?;
    let name = of.text("rota").unwrap_or_default();
    let Some(rota) = world.get(Table::Rota, name) else {
        return Err(Wrong::field("rota", format!("there is no rota {name}")).of(RefusalCode::Reference));
    };
    let said = of.text("person").unwrap_or_default();
    let person = Person::of(said, &rota.texts("people")).map_err(|why| Wrong::field("person", why))?;
    reached(world, "person", &person)
}

/// Whether a rota leads to a receiver.
pub(super) fn leads_to(rota: &Resource, receiver: &str) -> bool {
    rota.texts("people").iter().any(|text| Person::read(text).is_ok_and(|person| person.receiver == receiver))
}

/// Whether an override of a rota leads to a receiver.
pub(super) fn names(of: &Resource, rota: Option<&Resource>, receiver: &str) -> bool {
    let people = rota.map(|rota| rota.texts("people")).unwrap_or_default();
    of.text("person").is_some_and(|text| Person::of(text, &people).is_ok_and(|person| person.receiver == receiver))
}

/// Whether a list of receivers says whoever is on call in a rota.
pub(super) fn refers(of: &Resource, rota: &str) -> bool {
    of.texts("receivers").iter().any(|name| name.strip_prefix(ONCALL) == Some(rota))
}

/// That receivers of a list are there: a receiver, or whoever is on call in a rota.
pub(super) fn told(world: &World<'_>, receivers: &[String], nobody: &str) -> Result<(), Wrong> {
    for name in receivers.iter().filter(|name| *name != nobody) {
        let (table, what, name) = match name.strip_prefix(ONCALL) {
            Some(rota) => (Table::Rota, "rota", rota),
            None => (Table::Receiver, "receiver", name.as_str()),
        };
        if world.get(table, name).is_none() {
            return Err(Wrong::field("receivers", format!("there is no {what} {name}")).of(RefusalCode::Reference));
        }
    }
    Ok(())
}
