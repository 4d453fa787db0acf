//! Named times of the week and year. What they mean is [`crate::routing::times`].

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::routing::times::{Interval, MAX_PERIOD, MAX_PERIODS};

/// The declaration.
pub(super) static TIME_INTERVALS: ResourceKind = ResourceKind {
    table: Table::TimeInterval,
    singular: "time_interval",
    id: "name",
    fields: &[Field::texts("periods", MAX_PERIODS, MAX_PERIOD)],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 200,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(_: &World<'_>, interval: &Resource) -> Result<(), Wrong> {
    let periods = interval.texts("periods");
    if periods.is_empty() {
        return Err(Wrong::field("periods", "at least one must be said"));
    }
    Interval::read(&periods).map(|_| ()).map_err(|why| Wrong::field("periods", why))
}
