//! Inventories that are asked: Armis, NetBox. What is asked of them is `connectors::sources::pull`.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::flows::prefixes::Prefix;
use crate::identity::normalise;

/// Searches of one Armis.
const MAX_QUERIES: usize = 20;

/// The declaration.
pub(super) static INTEGRATIONS: ResourceKind = ResourceKind {
    table: Table::Integration,
    singular: "integration",
    id: "name",
    fields: &[
        Field::one_of("inventory", &["armis", "netbox"]).required().immutable(),
        Field::text("endpoint", 1000).required().drops(&["credential"]),
        Field::text("credential", 4000).secret("The secret key of an Armis tenant, or the token of a NetBox."),
        Field::flag("enabled", true),
        Field::text("into_partition", 200).or("default"),
        Field::number("interval_s", 30, 7 * 86_400, 3600),
        Field::number("full_interval_s", 30, 7 * 86_400, 86_400),
        Field::number("page_size", 1, 1000, 250),
        Field::texts("queries", MAX_QUERIES, 4000),
        Field::texts("vrfs", 1000, 400),
        Field::flag("interfaces", true),
        Field::texts("leave_out", 1000, 50),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 50,
    expires: None,
    check,
    derived: |_| Vec::new(),
};

fn check(_: &World<'_>, integration: &Resource) -> Result<(), Wrong> {
    let text = |field| integration.text(field).unwrap_or_default();
    if normalise::instance(&integration.id).as_deref() != Some(&integration.id) {
        return Err(Wrong::field("name", "it names a source: it has no : and no /"));
    }
    let endpoint = text("endpoint");
    let authority = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let authority = authority.and_then(|rest| rest.split('/').next()).filter(|authority| !authority.is_empty());
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@');
    if authority.is_none() || endpoint.contains(odd) {
        return Err(Wrong::field("endpoint", "it is an http(s) URL without user, query and fragment"));
    }
    if !integration.secrets.contains_key("credential") {
        return Err(Wrong::field("credential", "it must be said, and again where the endpoint changes"));
    }
    let is_armis = text("inventory") == "armis";
    if !is_armis && !integration.texts("queries").is_empty() {
        return Err(Wrong::field("queries", "a NetBox is asked for everything"));
    }
    if is_armis && !integration.texts("vrfs").is_empty() {
        return Err(Wrong::field("vrfs", "only a NetBox has VRFs"));
    }
    let is_pair = |text: &String| text.split_once('=').is_some_and(|(vrf, site)| !vrf.is_empty() && !site.is_empty());
    if let Some(wrong) = integration.texts("vrfs").iter().find(|text| !is_pair(text)) {
        return Err(Wrong::field("vrfs", format!("each is VRF=PARTITION; {wrong} is not")));
    }
    let wrong = integration.texts("leave_out").iter().find_map(|text| text.parse::<Prefix>().err());
    wrong.map_or(Ok(()), |why| Err(Wrong::field("leave_out", why)))
}
