//! API tokens. The program makes the token itself and hashes it; only the hash is stated.

use radarflow_proto::fact::Role;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind};
use super::users::given;

/// The declaration.
pub(super) static TOKENS: ResourceKind = ResourceKind {
    table: Table::ApiToken,
    singular: "token",
    id: "token_id",
    fields: &[
        Field::text("name", 200).required(),
        Field::text("role", 64).required().immutable(),
        Field::texts("partitions", 1000, 200).immutable(),
        Field::instant("expires_at").immutable(),
        Field::text("sha256", 64).immutable().secret("SHA-256 of the token, made by the program."),
    ],
    actions: &[],
    read: Role::Admin,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 10_000,
    expires: None,
    check: given,
    derived: |_| Vec::new(),
};
