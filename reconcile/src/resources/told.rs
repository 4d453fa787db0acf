//! Resources as the rest of the program knows them, and what was stated before there were resources: ledgers and the
//! configuration file state receivers, tokens and groups as facts of their own, which are commands here.

use std::collections::BTreeMap;

use radarflow_proto::fact::{DeviceGroup, Fact, Receiver, ReceiverKind, Role, Token};
use radarflow_proto::resource::{Act, Command, Condition, Fields, Operation, Principal, PrincipalKind, Resource};
use radarflow_proto::rows::Table;
use serde_json::{Value, json};

use super::receivers::headers;

/// Who owns what the configuration file says.
pub const CONFIGURATION: &str = "config";

/// The command that a fact is, if what it states is a resource.
pub fn command(fact: &Fact) -> Option<Command> {
    let configuration = || Principal::of_host(PrincipalKind::Configuration, "configuration");
    let host = |name: &str| Principal::of_host(PrincipalKind::Host, name);
    let one = |tenant: &str, principal, reason: &str, table: Table, id: &str, act, owner: &str| {
        let operation = Operation {
            resource: table.name().to_owned(),
            id: id.to_owned(),
            act,
            condition: Condition::Any,
            owner: owner.to_owned(),
        };
        Command {
            tenant: tenant.to_owned(),
            command_id: String::new(),
            digest: None,
            principal,
            reason: reason.to_owned(),
            force: false,
            operations: vec![operation],
        }
    };
    let command = match fact {
        Fact::Command(command) => return Some((**command).clone()),
        Fact::Receiver(r) => {
            let act = Act::Put { fields: receiver_fields(r) };
            one(&r.tenant, configuration(), "", Table::Receiver, &r.name, act, CONFIGURATION)
        }
        Fact::ReceiverGone { tenant, name } => {
            one(tenant, configuration(), "", Table::Receiver, name, Act::Delete, CONFIGURATION)
        }
        Fact::Token(t) => {
            let fields = fields([
                ("name", json!(t.name)),
                ("role", json!(t.role.name())),
                ("partitions", json!(t.partitions)),
                ("expires_at", json!(t.expires_ms.map(|ms| ms.saturating_mul(1000)))),
                ("sha256", json!(t.sha256)),
            ]);
            one(&t.tenant, host("radarflow"), "", Table::ApiToken, &t.id, Act::Put { fields }, "")
        }
        Fact::TokenRevoked { tenant, id, actor, reason, .. } => {
            one(tenant, host(&actor.name), reason, Table::ApiToken, id, Act::Delete, "")
        }
        Fact::DeviceGroup(g) => {
            let fields = fields([
                ("condition", json!(g.condition)),
                ("members", json!(g.members)),
                ("description", json!(g.description)),
                ("reason", json!(g.reason)),
            ]);
            one(&g.tenant, host(&g.actor.name), &g.reason, Table::DeviceGroup, &g.name, Act::Put { fields }, "")
        }
        Fact::DeviceGroupGone { tenant, name, actor, reason } => {
            one(tenant, host(&actor.name), reason, Table::DeviceGroup, name, Act::Delete, "")
        }
        _ => return None,
    };
    Some(command)
}

/// What a resource means to those who were told of it as a fact before there were resources.
pub fn fact(resource: &Resource) -> Option<Fact> {
    match resource.resource.as_str() {
        name if name == Table::Receiver.name() => receiver(resource).map(Fact::Receiver),
        name if name == Table::ApiToken.name() => token(resource).map(Fact::Token),
        name if name == Table::DeviceGroup.name() => Some(Fact::DeviceGroup(DeviceGroup {
            tenant: resource.tenant.clone(),
            name: resource.id.clone(),
            condition: resource.text("condition").map(str::to_owned),
            members: resource.texts("members"),
            description: resource.text("description").unwrap_or_default().to_owned(),
            actor: radarflow_proto::fact::Actor { name: resource.updated_by.clone(), role: Role::Operator },
            reason: resource.text("reason").unwrap_or_default().to_owned(),
        })),
        _ => None,
    }
}

/// The receiver that a resource is.
pub fn receiver(resource: &Resource) -> Option<Receiver> {
    if resource.resource != Table::Receiver.name() {
        return None;
    }
    let ms = |field| resource.number(field).unwrap_or_default();
    Some(Receiver {
        tenant: resource.tenant.clone(),
        name: resource.id.clone(),
        url: resource.secrets.get("target")?.clone(),
        kind: ReceiverKind::named(resource.text("kind")?).unwrap_or(ReceiverKind::Alertmanager),
        group_by: resource.texts("group_by"),
        group_wait_ms: ms("group_wait_ms"),
        group_interval_ms: ms("group_interval_ms"),
        repeat_interval_ms: ms("repeat_interval_ms"),
        send_resolved: resource.flag("send_resolved"),
        headers: headers(resource).into_iter().collect::<BTreeMap<_, _>>(),
        credential: resource.secrets.get("credential").cloned(),
        signing_key: resource.secrets.get("signing_key").cloned(),
        template: resource.text("template").map(str::to_owned),
        of_host: resource.owner == CONFIGURATION,
    })
}

/// The token that a resource is, where its role is built in.
fn token(resource: &Resource) -> Option<Token> {
    Some(Token {
        id: resource.id.clone(),
        name: resource.text("name")?.to_owned(),
        sha256: resource.secrets.get("sha256")?.clone(),
        tenant: resource.tenant.clone(),
        role: Role::named(resource.text("role")?)?,
        partitions: resource.texts("partitions"),
        expires_ms: resource.number("expires_at").map(|us| us / 1000),
    })
}

/// What is shown of a receiver's URL: where messages go. User, password, path and query may let somebody in.
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", authority.rsplit('@').next().unwrap_or_default())
}

/// The fields of a receiver, secrets among them.
fn receiver_fields(receiver: &Receiver) -> Fields {
    let headers: Vec<String> = receiver.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut fields = fields([
        ("url", json!(shown(&receiver.url))),
        ("target", json!(receiver.url)),
        ("kind", json!(receiver.kind.name())),
        ("group_by", json!(receiver.group_by)),
        ("group_wait_ms", json!(receiver.group_wait_ms)),
        ("group_interval_ms", json!(receiver.group_interval_ms)),
        ("repeat_interval_ms", json!(receiver.repeat_interval_ms)),
        ("send_resolved", json!(receiver.send_resolved)),
        ("headers", json!(headers)),
        ("template", json!(receiver.template)),
    ]);
    // Said or not: what the file no longer says goes.
    fields.insert("credential".to_owned(), json!(receiver.credential));
    fields.insert("signing_key".to_owned(), json!(receiver.signing_key));
    fields
}

fn fields<const N: usize>(named: [(&str, Value); N]) -> Fields {
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
