//! What files would change: compared with what stands, as one set of operations that is done whole or not at all, each under
//! the condition that the resource is what was looked at.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, bail};
use radarflow_proto::rows::Table;
use radarflow_reconcile::resources::{MadeBy, ResourceKind};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::files::Wanted;

/// Whether resources of a kind are written in files: what people make, and what is no secret itself.
pub(super) fn is_written(kind: &ResourceKind) -> bool {
    kind.made_by == MadeBy::People && kind.table != Table::ApiToken
}

/// What would change.
pub(super) struct Plan {
    steps: Vec<Step>,
}

struct Step {
    kind: &'static ResourceKind,
    id: String,
    /// The epoch at which it was last changed; `None` where there is none.
    epoch: Option<u64>,
    does: Does,
}

enum Does {
    Add(Map<String, Value>),
    /// The fields that change, from and to.
    Change(BTreeMap<String, (Value, Value)>, Map<String, Value>),
    /// It says nothing but secrets, which only the server can compare.
    Secrets(Map<String, Value>),
    Remove,
}

/// Compares files with what stands, by kind.
pub(super) fn plan(
    wanted: &[Wanted],
    standing: &BTreeMap<&'static str, Vec<Value>>,
    owner: &str,
    prune: bool,
) -> Result<Plan> {
    let mut steps = Vec::new();
    for Wanted { kind, id, fields, place } in wanted {
        let stands = standing.get(kind.name()).into_iter().flatten().find(|stands| stands["id"] == **id);
        let Some(stands) = stands else {
            steps.push(Step { kind, id: id.clone(), epoch: None, does: Does::Add(fields.clone()) });
            continue;
        };
        let of = stands["attributes"]["owner"].as_str().unwrap_or_default();
        if !of.is_empty() && of != owner {
            bail!("{} {id} of {place} belongs to {of}", kind.singular);
        }
        let (mut changes, mut sent, mut secrets) = (BTreeMap::new(), Map::new(), Map::new());
        for field in kind.fields.iter().filter(|field| !field.server) {
            let said = fields.get(field.name).filter(|value| !value.is_null());
            if field.secret.is_some() {
                secrets.extend(said.map(|value| (field.name.to_owned(), value.clone())));
                continue;
            }
            let is = &stands["attributes"][field.name];
            let to = said.cloned().unwrap_or_else(|| field.default.value());
            if !same(is, &to) {
                changes.insert(field.name.to_owned(), (is.clone(), to));
                sent.insert(field.name.to_owned(), said.cloned().unwrap_or(Value::Null));
            }
        }
        if of != owner {
            changes.insert("owner".to_owned(), (json!(of), json!(owner)));
        }
        let epoch = stands["meta"]["epoch"].as_u64();
        let does = match (changes.is_empty(), secrets.is_empty()) {
            (true, true) => continue,
            (true, false) => Does::Secrets(secrets),
            (false, _) => {
                sent.extend(secrets);
                Does::Change(changes, sent)
            }
        };
        steps.push(Step { kind, id: id.clone(), epoch, does });
    }
    if prune {
        for (name, resources) in standing {
            let Ok(kind) = super::kind(name) else { continue };
            for stands in resources.iter().filter(|stands| stands["attributes"]["owner"] == *owner) {
                let id = stands["id"].as_str().unwrap_or_default();
                if !wanted.iter().any(|wanted| wanted.kind.name() == *name && wanted.id == id) {
                    let epoch = stands["meta"]["epoch"].as_u64();
                    steps.push(Step { kind, id: id.to_owned(), epoch, does: Does::Remove });
                }
            }
        }
    }
    Ok(Plan { steps })
}

/// Whether two values are the same: instants are, however they are written.
fn same(a: &Value, b: &Value) -> bool {
    let instant = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok();
    a == b || matches!((instant(a), instant(b)), (Some(a), Some(b)) if a == b)
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The operations, as they are sent.
    pub(super) fn operations(&self) -> Vec<Value> {
        let operation = |step: &Step| {
            let Step { kind, id, epoch, does } = step;
            let meta = json!({"if_match": epoch.unwrap_or(0)});
            let data = |fields: &Map<String, Value>| json!({"type": kind.name(), "id": id, "attributes": fields});
            match does {
                Does::Add(fields) => json!({"op": "add", "data": data(fields), "meta": meta}),
                Does::Change(_, fields) | Does::Secrets(fields) => {
                    json!({"op": "update", "data": data(fields), "meta": meta})
                }
                Does::Remove => json!({"op": "remove", "ref": {"type": kind.name(), "id": id}, "meta": meta}),
            }
        };
        self.steps.iter().map(operation).collect()
    }

    /// Names exactly this plan.
    pub(super) fn digest(&self) -> String {
        let mut operations = Value::Array(self.operations());
        // Of secrets only which: whoever reads the digest must not be able to guess them.
        for (nth, Step { kind, .. }) in self.steps.iter().enumerate() {
            if let Some(fields) = operations[nth]["data"]["attributes"].as_object_mut() {
                let secret = |name: &str| kind.field(name).is_some_and(|field| field.secret.is_some());
                fields.iter_mut().filter(|(name, _)| secret(name)).for_each(|(_, value)| *value = Value::Null);
            }
        }
        let operations = operations.to_string();
        let mut digest = hex::encode(Sha256::digest(operations.as_bytes()));
        digest.truncate(32);
        digest
    }

    /// What would be done, a line each.
    pub(super) fn told(&self) -> String {
        if self.steps.is_empty() {
            return "nothing to do".to_owned();
        }
        let mut out = String::new();
        for Step { kind, id, does, .. } in &self.steps {
            let named = format!("{} {id}", kind.singular);
            match does {
                Does::Add(fields) => {
                    let _ = writeln!(out, "+ {named}");
                    for (name, value) in fields {
                        let secret = kind.field(name).is_some_and(|field| field.secret.is_some());
                        let shown = if secret { "(secret)".to_owned() } else { value.to_string() };
                        let _ = writeln!(out, "    {name}: {shown}");
                    }
                }
                Does::Change(changes, fields) => {
                    let _ = writeln!(out, "~ {named}");
                    for (name, (from, to)) in changes {
                        let _ = writeln!(out, "    {name}: {from} → {to}");
                    }
                    for name in fields.keys().filter(|name| !changes.contains_key(*name)) {
                        let _ = writeln!(out, "    {name}: (secret, compared by the server)");
                    }
                }
                Does::Secrets(fields) => {
                    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                    let _ = writeln!(out, "? {named}\n    {}: (secret, compared by the server)", names.join(", "));
                }
                Does::Remove => {
                    let _ = writeln!(out, "- {named}");
                }
            }
        }
        let _ = write!(out, "digest: {}", self.digest());
        out
    }

    /// What was done, by the server's answer: what it found to be as it was, it left.
    pub(super) fn done(&self, answer: &Value) -> String {
        let epoch = &answer["meta"]["epoch"];
        let (mut added, mut changed, mut removed, mut left) = (0, 0, 0, 0);
        for (nth, step) in self.steps.iter().enumerate() {
            let is_new = answer["atomic:results"][nth]["data"]["meta"]["epoch"] == *epoch;
            match step.does {
                Does::Remove => removed += 1,
                Does::Add(_) => added += 1,
                Does::Change(..) | Does::Secrets(_) if is_new => changed += 1,
                Does::Change(..) | Does::Secrets(_) => left += 1,
            }
        }
        if added + changed + removed == 0 {
            return "nothing to do".to_owned();
        }
        let left = if left > 0 { format!(", {left} as they were") } else { String::new() };
        format!("applied at epoch {epoch}: {added} added, {changed} changed, {removed} deleted{left}")
    }
}

#[cfg(test)]
mod tests {
    use radarflow_reconcile::resources::named;

    use super::*;

    fn wanted(kind: &str, id: &str, fields: Value) -> Wanted {
        let Value::Object(fields) = fields else { panic!("fields") };
        Wanted { kind: named(kind).unwrap(), id: id.into(), fields, place: "a.yaml".into() }
    }

    #[test]
    fn only_what_differs_is_done() {
        let group = |id: &str, owner: Value, description: &str, epoch: u64| {
            json!({"id": id, "meta": {"epoch": epoch}, "attributes": {"condition": "type:router", "members": [],
                "description": description, "reason": "", "owner": owner}})
        };
        let receiver = json!({"id": "ops", "meta": {"epoch": 4}, "attributes": {"kind": "alertmanager", "group_by": [],
            "group_wait_ms": 30_000, "group_interval_ms": 300_000, "repeat_interval_ms": 14_400_000, "send_resolved": true,
            "owner": "git"}});
        let standing = BTreeMap::from([
            (
                "device_groups",
                vec![
                    group("same", json!("git"), "", 1),
                    group("other", json!("git"), "x", 2),
                    group("old", json!("git"), "", 3),
                    group("foreign", Value::Null, "", 9),
                ],
            ),
            ("receivers", vec![receiver]),
        ]);
        let condition = json!({"condition": "type:router"});
        let files = [
            wanted("device_groups", "same", condition.clone()),
            wanted("device_groups", "other", condition.clone()),
            wanted("device_groups", "new", condition.clone()),
            wanted("receivers", "ops", json!({"target": "http://hush"})),
        ];
        let made = plan(&files, &standing, "git", true).unwrap();
        let told = made.told();
        assert!(!told.contains("hush") && !told.contains("same") && !told.contains("foreign"), "{told}");
        for line in [
            "~ device_group other",
            "description: \"x\" → \"\"",
            "+ device_group new",
            "? receiver ops",
            "- device_group old",
        ] {
            assert!(told.contains(line), "{told}");
        }
        let operations = made.operations();
        assert_eq!(operations.len(), 4);
        assert_eq!(operations[0]["data"]["attributes"], json!({"description": null}));
        let conditions: Vec<_> = operations.iter().map(|operation| operation["meta"]["if_match"].clone()).collect();
        assert_eq!(conditions, [2, 0, 4, 3]);
        // Without pruning nothing goes; what is another's is not taken; what was taken by nobody may be.
        assert_eq!(plan(&files[..2], &standing, "git", false).unwrap().operations().len(), 1);
        assert!(plan(&files, &standing, "other", false).is_err());
        let taken = plan(&[wanted("device_groups", "foreign", condition)], &standing, "git", false).unwrap();
        assert!(taken.told().contains("owner: \"\" → \"git\""), "{}", taken.told());
    }
}
