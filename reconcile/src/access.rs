//! Who may do what: one table.

use radarflow_proto::fact::Role;

/// What somebody asks to do.
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
}

/// The least role that may do it.
pub fn least_role(action: Action) -> Role {
    match action {
        Action::Query => Role::Viewer,
        Action::StepAlert | Action::StepDevice | Action::DecideRun | Action::Link | Action::Import => Role::Operator,
        Action::SetPolicy | Action::ManageTokens | Action::Maintain => Role::Admin,
    }
}

/// Whether a role may do it.
pub fn may(role: Role, action: Action) -> bool {
    role >= least_role(action)
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
        use Action::*;
        for (role, allowed) in [(Role::Viewer, 1), (Role::Operator, 6), (Role::Admin, 9)] {
            let n = [Query, StepAlert, StepDevice, DecideRun, Link, SetPolicy, Import, ManageTokens, Maintain]
                .into_iter()
                .filter(|a| may(role, *a))
                .count();
            assert_eq!(n, allowed, "{role:?}");
        }
        assert!(sees(&[], "x") && sees(&["x".into()], "x") && !sees(&["y".into()], "x"));
    }
}
