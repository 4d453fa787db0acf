//! Who asks: a name, a tenant, what they may do, and the sites they are bound to.
//!
//! A token that is revoked, or over, lets nobody in; and whatever it let in ends with it ([`Grant`]): questions under way,
//! answers that are still being sent, live queries, uploads.
//!
//! | file | says |
//! |---|---|
//! | [`passwords`] | passwords and their hashes |
//! | [`principals`] | which tokens and sessions there are, and whom each lets in |
//! | [`grant`] | how long |
//! | [`turns`] | who changes what stands waits for whoever does so in the same tenant |

mod grant;
pub mod passwords;
mod principals;
pub mod turns;

use radarflow_proto::fact::{Actor as FactActor, Role};
use radarflow_proto::resource::{Principal, PrincipalKind};
use radarflow_proto::rows::Table;
use radarflow_reconcile::access::{Action, Permission, Permissions};
use radarflow_reconcile::resources;

pub use self::grant::Grant;
pub(crate) use self::grant::now_ms;
pub use self::principals::{Principals, hash, id_of, new_session, new_token};

/// Who asks, and what they may see.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The name of the token or user.
    pub name: String,
    /// Customer.
    pub tenant: String,
    /// What they may do.
    pub permissions: Permissions,
    /// The sites they are bound to; empty for all of the tenant's.
    pub partitions: Vec<String>,
    /// What let them in.
    pub principal: Principal,
    /// How long it holds.
    pub grant: Grant,
}

/// What is the whole tenant's was asked of by somebody who is bound to partitions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is the whole tenant's; this token is bound to partitions")]
pub struct Bound(String);

impl Actor {
    /// Somebody of a built-in role, who sees all of a tenant, for ever.
    pub fn of_role(name: &str, tenant: &str, role: Role) -> Self {
        Actor {
            name: name.to_owned(),
            tenant: tenant.to_owned(),
            permissions: role.into(),
            partitions: Vec::new(),
            principal: Principal::of_host(PrincipalKind::System, name),
            grant: Grant::default(),
        }
    }

    /// Whether they may do something.
    pub fn may(&self, action: Action) -> bool {
        self.permissions.include(&action.permission())
    }

    /// Whether they may read a table.
    pub fn reads(&self, table: Table) -> bool {
        match resources::of_table(table).and_then(|kind| kind.permission("read")) {
            Some(permission) => self.has(&permission),
            None if table == Table::Audit => self.may(Action::ReadAudit),
            None => self.may(Action::Query),
        }
    }

    /// Whether they have a permission.
    pub fn has(&self, permission: &Permission) -> bool {
        self.permissions.include(permission)
    }

    /// The user who signed in, if it is one.
    pub(crate) fn user(&self) -> Option<&str> {
        (self.principal.kind == PrincipalKind::Session).then_some(self.name.as_str())
    }

    /// What is the whole tenant's is not for those who are bound to partitions.
    ///
    /// # Errors
    /// They are bound.
    pub fn whole(&self, what: &str) -> Result<(), Bound> {
        if self.partitions.is_empty() { Ok(()) } else { Err(Bound(what.to_owned())) }
    }

    /// As facts name them.
    pub(crate) fn as_fact(&self) -> FactActor {
        let role = match self.permissions {
            Permissions::Role(role) => role,
            Permissions::Custom(_) => Role::Viewer,
        };
        FactActor { name: self.name.clone(), role }
    }
}
