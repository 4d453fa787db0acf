//! Alerts of which nobody is told while others burn.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::silences::{matchers, of_matchers};
use super::world::World;

/// The declaration.
pub(super) static INHIBIT_RULES: ResourceKind = ResourceKind {
    table: Table::InhibitRule,
    singular: "inhibit_rule",
    id: "name",
    fields: &[of_matchers("source_matchers"), of_matchers("target_matchers"), Field::texts("equal", 50, 200)],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 200,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(world: &World<'_>, rule: &Resource) -> Result<(), Wrong> {
    for field in ["source_matchers", "target_matchers"] {
        if matchers(world, rule, field)?.is_empty() {
            return Err(Wrong::field(field, "at least one must be said"));
        }
    }
    Ok(())
}
