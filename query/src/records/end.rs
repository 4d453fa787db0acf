//! How requests name an identifier: by itself, or by a device, which stands for the identifier that names it best.

use radarflow_proto::record::Identifier;
use radarflow_reconcile::identity::name::seed;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::records::Refused;
use crate::tables::names::{identifier, leads_to, named};
use crate::tables::view::View;

/// What a request says that a link is between: a device, which stands for the identifier that names it best, or an
/// identifier.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum End {
    /// A device.
    Device {
        /// Any of its names.
        uid: String,
    },
    /// An identifier.
    Identifier {
        /// agent, armis, integration, netbox, mac, ip
        r#type: String,
        /// Which source's; of agents, MACs and addresses none.
        #[serde(default)]
        source_instance: String,
        /// The identifier.
        value: String,
    },
}

impl End {
    /// The identifier that is meant.
    pub(crate) fn resolve(&self, view: &View, actor: &Actor, partition: &str) -> Result<Identifier, Refused> {
        match self {
            End::Identifier { r#type, source_instance, value } => Ok(identifier(r#type, source_instance, value)?),
            End::Device { uid } => named(view, actor, partition, &leads_to(view, actor, uid)).ok_or_else(|| {
                let detail = format!("no device {uid} in partition {partition}, or none that an identifier names");
                Refused::NotFound(detail)
            }),
        }
    }
}

/// Two identifiers as a link has them, and its name. There is one link for two identifiers: what is said last replaces what
/// was said before.
pub(crate) fn linked(
    partition: &str,
    a: Identifier,
    b: Identifier,
) -> Result<(String, Identifier, Identifier), Refused> {
    if a == b {
        return Err(Refused::bad("a link has two ends; these are one identifier"));
    }
    let (a, b) = if a < b { (a, b) } else { (b, a) };
    let id = hex::encode(&Sha256::digest(format!("{partition}\u{1f}{}\u{1f}{}", seed(&a), seed(&b)))[..8]);
    Ok((id, a, b))
}
