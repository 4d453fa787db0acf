//! Links that are sent by mail and let somebody in once. The program makes them; to be let in is to end one.

use radarflow_proto::fact::Role;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind};

/// The declaration.
pub(super) static SIGN_IN_LINKS: ResourceKind = ResourceKind {
    table: Table::SignInLink,
    singular: "sign_in_link",
    id: "link_id",
    fields: &[
        Field::text("user", 200).required().immutable(),
        Field::text("address", 64).immutable(),
        Field::instant("expires_at").required().immutable(),
        Field::text("sha256", 64).immutable().secret("SHA-256 of what lets them in."),
        Field::text("browser", 64).immutable().secret("SHA-256 of what the browser that asked for it holds."),
    ],
    actions: &[],
    read: Role::Admin,
    write: Role::Admin,
    made_by: MadeBy::Program,
    most: 10_000,
    expires: Some("expires_at"),
    check: |_, _| Ok(()),
    derived: |_| Vec::new(),
};
