//! Where notifications are sent. The URL and the values of headers may let somebody in: shown are the host, and the names of
//! headers.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use serde_json::{Value, json};

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;
use crate::template::{self, MAX_TEMPLATE};

/// Milliseconds in the longest time a receiver may wait: 30 days.
const MAX_WAIT_MS: i64 = 30 * 24 * 3600 * 1000;

const KINDS: &[&str] = &[
    "alertmanager",
    "alertmanager_api",
    "serviceradar",
    "slack",
    "discord",
    "teams",
    "pagerduty",
    "opsgenie",
    "ocsf",
    "template",
    "email",
];

/// The declaration.
pub(super) static RECEIVERS: ResourceKind = ResourceKind {
    table: Table::Receiver,
    singular: "receiver",
    id: "name",
    fields: &[
        Field::text("url", 2000).server(),
        Field::text("target", 4000).required().secret("The URL that messages are posted to (`url` shows its host). Another takes the headers away, unless they are said again."),
        Field::one_of("kind", KINDS).or("alertmanager"),
        Field::texts("group_by", 100, 200),
        Field::number("group_wait_ms", 0, MAX_WAIT_MS, 30_000),
        Field::number("group_interval_ms", 0, MAX_WAIT_MS, 300_000),
        Field::number("repeat_interval_ms", 0, MAX_WAIT_MS, 4 * 3600 * 1000),
        Field::flag("send_resolved", true),
        Field::texts("headers", 50, 8000).secret("Headers that are sent, each as `Name: value`."),
        Field::text("template", MAX_TEMPLATE),
        Field::text("credential", 4000).secret("The key that PagerDuty or Opsgenie knows us by."),
        Field::text("signing_key", 4000).secret("The key that messages are signed with: `Radarflow-Signature` has the HMAC-SHA256 of the body."),
    ],
    actions: &[],
    read: Role::Viewer,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 1000,
    expires: None,
    check,
    derived,
};

/// The headers, name and value each.
pub(super) fn headers(receiver: &Resource) -> Vec<(String, String)> {
    let texts: Vec<String> =
        receiver.secrets.get("headers").and_then(|texts| serde_json::from_str(texts).ok()).unwrap_or_default();
    let split =
        |text: &String| text.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    texts.iter().filter_map(split).collect()
}

fn check(world: &World<'_>, receiver: &Resource) -> Result<(), Wrong> {
    let url = receiver.secrets.get("target").map(String::as_str).unwrap_or_default();
    let kind = receiver.text("kind").unwrap_or_default();
    // Sealed is what was looked at before it was.
    let begins: &[&str] = if kind == "email" { &["mailto:", "sealed:"] } else { &["http://", "https://", "sealed:"] };
    let http = begins.iter().any(|begins| url.starts_with(begins));
    // What the host keeps may be the whole URL, or a header; who does not administer the host would have it sent to himself.
    let kept = |text: &str| text.starts_with("env:") || text.starts_with("file:");
    if !(http || world.host && kept(url)) {
        let what = if kind == "email" { "it is `mailto:` and addresses" } else { "it is an http or https URL" };
        return Err(Wrong::field("target", what));
    }
    let of_host = "only the configuration file names secrets of the host (env:, file:)";
    if !world.host && headers(receiver).iter().any(|(_, value)| kept(value)) {
        return Err(Wrong::field("headers", of_host));
    }
    for field in ["credential", "signing_key"] {
        if !world.host && receiver.secrets.get(field).is_some_and(|value| kept(value)) {
            return Err(Wrong::field(field, of_host));
        }
    }
    if matches!(kind, "pagerduty" | "opsgenie") && !receiver.secrets.contains_key("credential") {
        return Err(Wrong::field("credential", format!("{kind} knows whom it is for by a key")));
    }
    match (kind, receiver.text("template")) {
        ("template", Some(text)) => template::check(text).map_err(|why| Wrong::field("template", why)),
        ("template", None) => Err(Wrong::field("template", "it must be said")),
        (_, Some(_)) => Err(Wrong::field("template", "only receivers of kind template have one")),
        _ => Ok(()),
    }
}

fn derived(receiver: &Resource) -> Vec<(&'static str, Value)> {
    let names: Vec<String> = headers(receiver).into_iter().map(|(name, _)| name).collect();
    vec![("header_names", json!(names)), ("signed", json!(receiver.secrets.contains_key("signing_key")))]
}
