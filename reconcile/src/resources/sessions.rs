//! Sessions of people who signed in. The program makes them; who has one may end it, and an administrator any.

use radarflow_proto::fact::Role;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind};

/// The declaration.
pub(super) static SESSIONS: ResourceKind = ResourceKind {
    table: Table::Session,
    singular: "session",
    id: "session_id",
    fields: &[
        Field::text("user", 200).required().immutable(),
        Field::text("method", 64).required().immutable(),
        Field::text("address", 64).immutable(),
        Field::text("user_agent", 300).immutable(),
        Field::instant("expires_at").required().immutable(),
        Field::text("sha256", 64).immutable().secret("SHA-256 of what lets them in."),
    ],
    actions: &[],
    read: Role::Admin,
    write: Role::Admin,
    made_by: MadeBy::Program,
    most: 50_000,
    expires: Some("expires_at"),
    check: |_, _| Ok(()),
    derived: |_| Vec::new(),
};
