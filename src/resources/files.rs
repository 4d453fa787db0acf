//! Resources as files: YAML documents of `kind:`, `name:` and the fields; JSON is YAML, too.
//!
//! ```yaml
//! kind: device_group
//! name: core
//! condition: type:router
//! ```
//! A field that is itself called `kind` is written with what it is of: `profile_kind: ping`.
//!
//! A secret is written as where it is found, `env:NAME` or `file:PATH`, and looked up where the files are applied; it is never
//! read back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use radarflow_connectors::secret;
use radarflow_proto::resource::Fields;
use radarflow_reconcile::resources::ResourceKind;
use serde_json::{Map, Value, json};

use super::plan::is_written;

/// A resource as a file says it.
pub(super) struct Wanted {
    pub(super) kind: &'static ResourceKind,
    pub(super) id: String,
    /// The fields that it names.
    pub(super) fields: Map<String, Value>,
    /// Where it is written.
    pub(super) place: String,
}

/// The files of a folder and those below, or the one file.
fn files(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| path.display().to_string())?;
    entries.sort();
    for entry in entries {
        let ends = entry.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
        if entry.is_dir() || ends {
            files(&entry, found)?;
        }
    }
    Ok(())
}

/// Reads all resources of a file or folder.
pub(super) fn read(path: &Path) -> Result<Vec<Wanted>> {
    let mut found = Vec::new();
    files(path, &mut found)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for file in found {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for (nth, document) in documents(&text).with_context(|| file.display().to_string())?.into_iter().enumerate() {
            let place = format!("{}, document {}", file.display(), nth + 1);
            let one = resource(document, &place).with_context(|| place.clone())?;
            if let Some(other) = wanted.iter().find(|other| other.kind.name() == one.kind.name() && other.id == one.id)
            {
                bail!("{} {} is written twice: in {place} and in {}", one.kind.singular, one.id, other.place);
            }
            wanted.push(one);
        }
    }
    Ok(wanted)
}

/// The documents of a text.
fn documents(text: &str) -> Result<Vec<Map<String, Value>>> {
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Option<Map<String, Value>>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(documents.into_iter().flatten().filter(|document| !document.is_empty()).collect())
}

fn resource(mut document: Map<String, Value>, place: &str) -> Result<Wanted> {
    let mut take = |name: &str| match document.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => bail!("{name} is text"),
        None => bail!("{name}: is missing"),
    };
    let kind = super::kind(&take("kind")?)?;
    let id = take("name")?;
    if !is_written(kind) {
        bail!("{} are not written in files", kind.name());
    }
    if let Some(value) = document.remove(&format!("{}_kind", kind.singular)) {
        document.insert("kind".to_owned(), value);
    }
    for (name, value) in &mut document {
        let Some(field) = kind.field(name).filter(|field| !field.server) else {
            let known: Vec<_> = kind.fields.iter().filter(|field| !field.server).map(|field| field.name).collect();
            bail!("{} have no field {name} that can be set; these can: {}", kind.name(), known.join(", "));
        };
        if field.secret.is_some() {
            *value = looked_up(name, value)?;
        }
        field.read(value).map_err(|detail| anyhow::anyhow!("{name}: {detail}"))?;
    }
    Ok(Wanted { kind, id, fields: document, place: place.to_owned() })
}

/// A secret, from where it is said to be.
fn looked_up(name: &str, value: &Value) -> Result<Value> {
    let text = |value: &Value| -> Result<Value> {
        let said = value.as_str().with_context(|| format!("{name} is text"))?;
        Ok(json!(secret::resolve(said).with_context(|| name.to_owned())?))
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect::<Result<Vec<_>>>().map(Value::Array),
        value => text(value),
    }
}

/// Resources as documents that can be applied again: what is the default is left out.
pub(super) fn write(kind: &ResourceKind, found: &[Value]) -> Result<String> {
    let mut out = String::new();
    for resource in found {
        let mut document = Map::new();
        document.insert("kind".to_owned(), json!(kind.singular));
        document.insert("name".to_owned(), resource["id"].clone());
        for field in kind.fields.iter().filter(|field| field.secret.is_none() && !field.server) {
            let value = &resource["attributes"][field.name];
            if !value.is_null() && *value != field.default.value() {
                let name = match field.name {
                    "kind" => format!("{}_kind", kind.singular),
                    name => name.to_owned(),
                };
                document.insert(name, value.clone());
            }
        }
        let text = serde_saphyr::to_string(&document).map_err(|error| anyhow::anyhow!("{error}"))?;
        out.push_str("---\n");
        out.push_str(text.trim_end());
        out.push('\n');
    }
    Ok(out)
}

/// A resource as a document, secrets and all, that was read elsewhere.
pub(super) fn said(kind: &ResourceKind, id: &str, fields: &Fields) -> Result<String> {
    let mut document = Map::new();
    document.insert("kind".to_owned(), json!(kind.singular));
    document.insert("name".to_owned(), json!(id));
    for field in kind.fields {
        let said = fields.get(field.name).filter(|value| **value != field.default.value());
        if let Some(value) = said {
            let name = if field.name == "kind" { format!("{}_kind", kind.singular) } else { field.name.to_owned() };
            document.insert(name, value.clone());
        }
    }
    let text = serde_saphyr::to_string(&document).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(format!("---\n{}\n", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use radarflow_reconcile::resources::named;

    use super::*;

    #[test]
    fn a_field_that_is_called_kind_is_written_with_what_it_is_of() {
        let attributes = json!({"kind": "ping", "condition": "type:router"});
        let text = write(named("profiles").unwrap(), &[json!({"id": "up", "attributes": attributes})]).unwrap();
        assert!(text.contains("kind: profile\n") && text.contains("profile_kind: ping\n"), "{text}");
        let read = resource(documents(&text).unwrap().remove(0), "here").unwrap();
        assert_eq!((read.kind.name(), json!(read.fields)), ("profiles", attributes));
    }

    #[test]
    fn what_is_written_reads_back() {
        let group = |condition: &str, members: Value| {
            json!({"id": "a: b #c", "attributes": {"condition": condition, "members": members, "description": "",
                "reason": "yes", "owner": null}})
        };
        let kind = named("device_groups").unwrap();
        let text =
            write(kind, &[group("hostname:\"x # y\" OR\n  type:router", json!([])), group("null", json!(["on", "1"]))])
                .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, text.replacen("a: b #c", "other", 1)).unwrap();
        let read = read(dir.path()).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        assert_eq!(read[0].fields["condition"], "hostname:\"x # y\" OR\n  type:router");
        assert_eq!((read[1].id.as_str(), &read[1].fields["members"]), ("a: b #c", &json!(["on", "1"])));
        assert_eq!(read[1].fields["condition"], "null");
        assert!(!read[0].fields.contains_key("description"), "what is the default is left out");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let told = |text: &str| {
            fs::write(dir.path().join("a.yaml"), text).unwrap();
            format!("{:#}", read(dir.path()).err().expect("it is wrong"))
        };
        for (text, expected) in [
            ("kind: router\nname: x\n", "there are no router"),
            ("kind: user\n", "name: is missing"),
            ("kind: user\nname: ann\nrolle: viewer\n", "no field rolle"),
            ("kind: user\nname: ann\ndisabled: maybe\n", "disabled: it is true or false"),
            ("kind: session\nname: x\n", "sessions are not written in files"),
            ("kind: role\nname: x\n---\nkind: role\nname: x\n", "written twice"),
            ("kind: receiver\nname: x\ntarget: env:RADARFLOW_NO_SUCH\n", "RADARFLOW_NO_SUCH is not set"),
            ("kind: [", "a.yaml"),
        ] {
            assert!(told(text).contains(expected), "{text}: {}", told(text));
        }
    }
}
