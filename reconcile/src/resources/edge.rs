//! Agents at other places: packages by which they are enrolled, and the authorities that sign their certificates.
//!
//! ```text
//! created ─► downloaded ─► installed        any of them ─► revoked
//!    └─► gone, when nobody downloaded it in time
//! ```
//! A certificate lets an agent in while its hash stands in a package that is not revoked: what is not in the ledger lets
//! nobody in, whoever signed it. The program makes keys and certificates (`connectors::sources::enrolled`); only what they are
//! known by is stated here.

use std::sync::Arc;

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{Fields, RefusalCode, Resource};
use radarflow_proto::rows::Table;
use serde_json::{Value, json};

use super::judge::At;
use super::kind::{Field, MadeBy, ResourceAction, ResourceKind, Wrong};
use super::world::World;

/// Bytes of an agent's id and of its partition: both are parts of the name in its certificate.
pub const MAX_NAME: usize = 63;

/// The declaration of authorities.
pub(super) static CERTIFICATE_AUTHORITIES: ResourceKind = ResourceKind {
    table: Table::CertificateAuthority,
    singular: "certificate_authority",
    id: "authority_id",
    fields: &[
        Field::text("certificate", 8000).required().immutable(),
        Field::text("fingerprint", 64).required().immutable(),
        Field::instant("not_after").required().immutable(),
        Field::text("key", 4000).required().immutable().secret("Its key, made by the program."),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::Program,
    most: 8,
    expires: None,
    check: |_, _| Ok(()),
    derived: |_| Vec::new(),
};

/// The declaration of packages.
pub(super) static EDGE_PACKAGES: ResourceKind = ResourceKind {
    table: Table::EdgePackage,
    singular: "edge_package",
    id: "package_id",
    fields: &[
        Field::text("name", 200).required(),
        Field::text("agent_id", MAX_NAME).required().immutable(),
        Field::text("site", MAX_NAME).or("default").immutable(),
        Field::text("gateway", 300),
        Field::text("notes", 2000),
        Field::instant("expires_at").server(),
        Field::instant("downloaded_at").server(),
        Field::text("downloaded_by", 64).server(),
        Field::instant("installed_at").server(),
        Field::instant("revoked_at").server(),
        Field::text("revoked_by", 300).server(),
        Field::text("revoked_because", MAX_REASON).server(),
        Field::text("serial", 64).server(),
        Field::text("fingerprint", 64).server(),
        Field::text("previous_fingerprint", 64).server(),
        Field::instant("certificate_expires_at").server(),
        Field::text("sha256", 64)
            .server()
            .secret("SHA-256 of the token that it is downloaded with, made by the program."),
        Field::text("of_key", 64).server().secret("SHA-256 of the public key that it was downloaded for."),
    ],
    actions: &[ResourceAction {
        fields: &[Field::text("reason", MAX_REASON)],
        whosever: true,
        sets: revoked,
        ..ResourceAction::new(
            "revoke",
            "Lets its agent in no more: its connections are closed at once, and it stays out.",
            Role::Admin,
        )
    }],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 10_000,
    expires: Some("expires_at"),
    check,
    derived: |package| vec![("status", json!(status(package)))],
};

/// How long a package is shown that was revoked, microseconds: 90 days.
const REVOKED_US: i64 = 90 * 86_400_000_000;
/// Bytes of a reason.
const MAX_REASON: usize = 1000;

/// What has become of a package.
pub fn status(package: &Resource) -> &'static str {
    let is = |field| package.number(field).is_some();
    match () {
        () if is("revoked_at") => "revoked",
        () if is("installed_at") => "installed",
        () if is("downloaded_at") => "downloaded",
        () => "created",
    }
}

fn revoked(at: At, by: &str, package: &Resource, said: &Fields) -> Fields {
    if package.number("revoked_at").is_some() {
        return Fields::new();
    }
    let fields = [
        ("revoked_at", json!(at.now_us)),
        ("revoked_by", json!(by)),
        ("revoked_because", said.get("reason").cloned().unwrap_or(Value::Null)),
        ("expires_at", json!(at.now_us.saturating_add(REVOKED_US))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn check(world: &World<'_>, package: &Resource) -> Result<(), Wrong> {
    let text = |field| package.text(field).unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    for field in ["agent_id", "site"] {
        if text(field).is_empty() || !text(field).chars().all(fits) {
            return Err(Wrong::field(
                field,
                "it is of letters, digits, - and _: it is a part of the name in a certificate",
            ));
        }
    }
    if let Some(gateway) = package.text("gateway") {
        let port = gateway.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0);
        if port.is_none() || gateway.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
            return Err(Wrong::field("gateway", "it is host:port"));
        }
    }
    if status(package) == "revoked" {
        return Ok(());
    }
    let same = |other: &&Arc<Resource>| {
        other.id != package.id
            && status(other) != "revoked"
            && other.text("agent_id") == package.text("agent_id")
            && other.text("site") == package.text("site")
    };
    match world.all(Table::EdgePackage).find(same) {
        None => Ok(()),
        Some(other) => {
            let detail = format!(
                "agent {} of {} has package {} already: revoke it first",
                text("agent_id"),
                text("site"),
                other.id
            );
            Err(Wrong::field("agent_id", detail).of(RefusalCode::Conflict))
        }
    }
}
