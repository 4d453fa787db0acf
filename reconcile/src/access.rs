//! Who may do what: a permission is a resource and a verb (`alerts:acknowledge`). Each has a least built-in role; a custom role
//! names its permissions one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use radarflow_proto::fact::Role;

/// What somebody asks to do, beside what they do to resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read rows of the tenant.
    Query,
    /// Move an alert along its life cycle.
    StepAlert,
    /// Move a device along its life cycle, delete or restore it.
    StepDevice,
    /// Release or reject a run that the brake holds.
    DecideRun,
    /// Say which identifiers name one device, and which two.
    Link,
    /// Set how far an address alone links devices.
    SetPolicy,
    /// Append inventory records.
    Import,
    /// Make or revoke tokens.
    ManageTokens,
    /// Snapshots and the like.
    Maintain,
    /// Read who did what, with what was before and after.
    ReadAudit,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 10] = [
        Action::Query,
        Action::StepAlert,
        Action::StepDevice,
        Action::DecideRun,
        Action::Link,
        Action::SetPolicy,
        Action::Import,
        Action::ManageTokens,
        Action::Maintain,
        Action::ReadAudit,
    ];

    /// What it takes.
    pub fn permission(self) -> Permission {
        let (resource, verb, least) = match self {
            Action::Query => ("data", "read", Role::Viewer),
            Action::StepAlert => ("alerts", "step", Role::Helpdesk),
            Action::StepDevice => ("devices", "step", Role::Operator),
            Action::DecideRun => ("runs", "decide", Role::Operator),
            Action::Link => ("links", "create", Role::Operator),
            Action::SetPolicy => ("policies", "update", Role::Admin),
            Action::Import => ("inventories", "import", Role::Operator),
            Action::ManageTokens => ("tokens", "create", Role::Admin),
            Action::Maintain => ("server", "maintain", Role::Admin),
            Action::ReadAudit => ("audit", "read", Role::Admin),
        };
        Permission { resource, verb, least }
    }
}

/// Something that may be done, and the least built-in role that may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// To what.
    pub resource: &'static str,
    /// What.
    pub verb: &'static str,
    /// Who, of the roles that are built in.
    pub least: Role,
}

impl Permission {
    /// As a custom role names it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.resource, self.verb)
    }
}

/// What a role allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// A role that is built in: each includes the one before.
    Role(Role),
    /// A custom role: permissions by name, `RESOURCE:*` for all of a resource.
    Custom(Arc<BTreeSet<String>>),
}

impl Permissions {
    /// Nothing at all.
    pub fn none() -> Self {
        Permissions::Custom(Arc::default())
    }

    /// Whether they include a permission.
    pub fn include(&self, permission: &Permission) -> bool {
        match self {
            Permissions::Role(role) => *role >= permission.least,
            Permissions::Custom(named) => {
                named.contains(&permission.name()) || named.contains(&format!("{}:*", permission.resource))
            }
        }
    }

    /// Whether they include all of `others`, of the permissions there are.
    pub fn cover(&self, others: &Permissions, all: &[Permission]) -> bool {
        all.iter().all(|permission| !others.include(permission) || self.include(permission))
    }
}

impl From<Role> for Permissions {
    fn from(role: Role) -> Self {
        Permissions::Role(role)
    }
}

/// Whether an actor bound to `bound` sites (none: all of the tenant's) may see `partition`.
pub fn sees(bound: &[String], partition: &str) -> bool {
    bound.is_empty() || bound.iter().any(|b| b == partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_one_before() {
        for (role, allowed) in [(Role::Viewer, 1), (Role::Helpdesk, 2), (Role::Operator, 6), (Role::Admin, 10)] {
            let may = |action: &&Action| Permissions::Role(role).include(&action.permission());
            assert_eq!(Action::ALL.iter().filter(may).count(), allowed, "{role:?}");
        }
        assert!(sees(&[], "x") && sees(&["x".into()], "x") && !sees(&["y".into()], "x"));
    }

    #[test]
    fn a_custom_role_allows_what_it_names() {
        let all = Action::ALL.map(Action::permission);
        let of = |names: &[&str]| Permissions::Custom(Arc::new(names.iter().map(|n| (*n).to_owned()).collect()));
        let custom = of(&["data:read", "alerts:*"]);
        let may: Vec<String> = all.iter().filter(|p| custom.include(p)).map(Permission::name).collect();
        assert_eq!(may, ["data:read", "alerts:step"]);
        assert!(custom.cover(&of(&["alerts:step"]), &all) && !of(&["alerts:step"]).cover(&custom, &all));
        assert!(custom.cover(&Role::Helpdesk.into(), &all) && !custom.cover(&Role::Operator.into(), &all));
        assert!(!Permissions::none().include(&Action::Query.permission()));
    }
}
