//! Sessions of people who signed in. The program makes them; who has one may end it, and an administrator any.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;

/// The declaration.
pub(super) static SESSIONS: ResourceKind = ResourceKind {
    table: Table::Session,
    singular: "session",
    id: "session_id",
    fields: &[
        Field::text("user", 200).required().immutable(),
        Field::text("method", 300).required().immutable(),
        Field::text("address", 64).immutable(),
        Field::text("user_agent", 300).immutable(),
        Field::instant("expires_at").required().immutable(),
        Field::text("sha256", 64).immutable().secret("SHA-256 of what lets them in."),
        Field::text("user_epoch", 20).immutable().secret("The epoch of the user's row when they showed who they are."),
    ],
    actions: &[],
    read: Role::Admin,
    write: Role::Admin,
    made_by: MadeBy::Program,
    most: 50_000,
    expires: Some("expires_at"),
    check,
    derived: |_| Vec::new(),
};

/// The user stands as they did when they showed who they are: nobody gets in by what was taken back meanwhile.
fn check(world: &World<'_>, session: &Resource) -> Result<(), Wrong> {
    let name = session.text("user").unwrap_or_default();
    let gone = |detail: String| Err(Wrong::field("user", detail).of(RefusalCode::PreconditionFailed));
    let Some(user) = world.get(Table::User, name) else { return gone(format!("there is no user {name}")) };
    let shown_at: Option<u64> = session.secrets.get("user_epoch").and_then(|epoch| epoch.parse().ok());
    if user.flag("disabled") || shown_at.is_some_and(|epoch| epoch != user.epoch) {
        return gone(format!("user {name} was changed meanwhile"));
    }
    Ok(())
}
