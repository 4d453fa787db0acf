//! Custom roles: sets of permissions, never above their maker's.

use std::collections::BTreeSet;
use std::sync::Arc;

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;

use super::all_permissions;
use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::access::Permissions;

/// The declaration.
pub(super) static ROLES: ResourceKind = ResourceKind {
    table: Table::Role,
    singular: "role",
    id: "name",
    fields: &[Field::text("description", 1000).or(""), Field::texts("permissions", 500, 100)],
    actions: &[],
    read: Role::Admin,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 1000,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(world: &World<'_>, role: &Resource) -> Result<(), Wrong> {
    if Role::named(&role.id).is_some() {
        let detail = format!("{} is built in; call it something else", role.id);
        return Err(Wrong { code: RefusalCode::Conflict, field: None, detail });
    }
    let names: BTreeSet<String> = role.texts("permissions").into_iter().collect();
    let known =
        |name: &String| all_permissions().iter().any(|p| p.name() == **name || format!("{}:*", p.resource) == **name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let resource = unknown.split(':').next().unwrap_or_default();
        let near: Vec<String> =
            all_permissions().iter().filter(|p| p.resource == resource).map(crate::access::Permission::name).collect();
        let near = if near.is_empty() {
            let mut resources: Vec<&str> = all_permissions().iter().map(|p| p.resource).collect();
            resources.dedup();
            format!("permissions begin with one of {}", resources.join(", "))
        } else {
            format!("there are {}", near.join(", "))
        };
        return Err(Wrong::field("permissions", format!("there is no permission {unknown}; {near}")));
    }
    if world.covers(&Permissions::Custom(Arc::new(names))) {
        return Ok(());
    }
    Err(Wrong::field("permissions", "it allows more than you may do").of(RefusalCode::Forbidden))
}
