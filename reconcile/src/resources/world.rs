//! The resources of one tenant, as they stand while a command is judged.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{Principal, PrincipalKind, Resource};
use radarflow_proto::rows::Table;

use super::all_permissions;
use crate::access::Permissions;

/// The resources of a tenant, by kind and id.
pub type Standing = BTreeMap<(Table, String), Arc<Resource>>;

/// What stands, and who asks when.
pub struct World<'a> {
    /// The resources.
    pub standing: &'a Standing,
    /// What the principal may do.
    pub permissions: &'a Permissions,
    /// Whether the principal is the host's: nothing is above it.
    pub host: bool,
    /// The command's clock, microseconds since 1970.
    pub now_us: i64,
}

impl World<'_> {
    /// A resource.
    pub fn get(&self, table: Table, id: &str) -> Option<&Arc<Resource>> {
        get(self.standing, table, id)
    }

    /// All of a kind, by id.
    pub fn all(&self, table: Table) -> impl Iterator<Item = &Arc<Resource>> {
        all(self.standing, table)
    }

    /// What a role of that name allows; `None` where there is none.
    pub fn role(&self, name: &str) -> Option<Permissions> {
        role(self.standing, name)
    }

    /// Whether the principal may all that a role allows: nobody gives what they have not.
    pub fn covers(&self, permissions: &Permissions) -> bool {
        self.host || self.permissions.cover(permissions, all_permissions())
    }
}

/// A resource.
pub fn get<'a>(standing: &'a Standing, table: Table, id: &str) -> Option<&'a Arc<Resource>> {
    standing.get(&(table, id.to_owned()))
}

/// All of a kind, by id.
pub fn all(standing: &Standing, table: Table) -> impl Iterator<Item = &Arc<Resource>> {
    let of = standing.range((table, String::new())..);
    of.take_while(move |((kind, _), _)| *kind == table).map(|(_, resource)| resource)
}

/// What a role of that name allows; `None` where there is none.
pub fn role(standing: &Standing, name: &str) -> Option<Permissions> {
    if let Some(role) = Role::named(name) {
        return Some(role.into());
    }
    let role = get(standing, Table::Role, name)?;
    Some(Permissions::Custom(Arc::new(role.texts("permissions").into_iter().collect())))
}

/// Whether something that expires holds.
pub fn holds(resource: &Resource, now_us: i64) -> bool {
    resource.number("expires_at").is_none_or(|at| at > now_us)
}

/// What a principal may do, and which partitions it is bound to; `None` where it is not let in any more.
pub fn permissions(standing: &Standing, principal: &Principal, now_us: i64) -> Option<(Permissions, Vec<String>)> {
    match principal.kind {
        PrincipalKind::Configuration | PrincipalKind::Host | PrincipalKind::System => {
            Some((Role::Admin.into(), Vec::new()))
        }
        PrincipalKind::Token => {
            let token = get(standing, Table::ApiToken, &principal.id).filter(|token| holds(token, now_us))?;
            Some((role(standing, token.text("role")?)?, token.texts("partitions")))
        }
        PrincipalKind::Session => {
            let session = get(standing, Table::Session, &principal.id).filter(|session| holds(session, now_us))?;
            let user = get(standing, Table::User, session.text("user")?).filter(|user| !user.flag("disabled"))?;
            Some((role(standing, user.text("role")?)?, user.texts("partitions")))
        }
    }
}
