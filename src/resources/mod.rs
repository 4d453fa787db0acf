//! `radarflow get`, `describe`, `create`, `delete`, `diff`, `apply`: resources of a running server, by the command line and as
//! files. What kinds there are and which fields they have is known from their declarations.

mod files;
mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use radarflow_reconcile::resources::{self, Holds, ResourceKind};
use radarflow_reconcile::routing::import::Said;
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};

use crate::cli::At;
use crate::{api, table};

/// What the files of a path state: the kind, the name, the fields.
pub(crate) fn read(path: &Path) -> Result<Vec<(&'static str, String, Map<String, Value>)>> {
    let wanted = files::read(path)?;
    Ok(wanted.into_iter().map(|wanted| (wanted.kind.name(), wanted.id, wanted.fields)).collect())
}

/// Resources as documents that can be applied.
pub(crate) fn write(kind: &ResourceKind, found: &[Value]) -> Result<String> {
    files::write(kind, found)
}

/// The media type of JSON:API.
const MEDIA_TYPE: &str = "application/vnd.api+json";
/// Resources of a page.
const PAGE: &str = "1000";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Shape {
    Table,
    Json,
    Yaml,
}

#[derive(Args)]
pub(crate) struct Get {
    /// The kind: users, roles, tokens, sessions, receivers, device_groups.
    kind: String,
    /// One of them.
    id: Option<String>,
    /// Only those of which this holds, in terms of the query language.
    #[arg(long)]
    filter: Option<String>,
    /// How to print them; YAML can be applied.
    #[arg(short, long, value_enum, default_value_t = Shape::Table)]
    output: Shape,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
pub(crate) struct Describe {
    /// The kind.
    kind: String,
    /// One of them; without it, what the kind has and what it allows.
    id: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
pub(crate) struct Create {
    /// The kind.
    kind: String,
    /// What it is called; tokens get an id of their own.
    id: Option<String>,
    /// Its fields, each as `name=value`; of lists the values between commas.
    #[arg(value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// Why; for the audit.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
pub(crate) struct Delete {
    /// The kind.
    kind: String,
    /// Which one.
    id: String,
    /// Why; for the audit.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
pub(crate) struct Apply {
    /// A file, or a folder of them: YAML or JSON.
    #[arg(short, long)]
    file: PathBuf,
    /// Whose they are: nobody else changes them then.
    #[arg(long, default_value = "")]
    owner: String,
    /// Delete what the owner has and the files lack.
    #[arg(long, requires = "owner")]
    prune: bool,
    /// Do only what `radarflow diff` showed: the digest that it printed.
    #[arg(long)]
    digest: Option<String>,
    /// Why; for the audit.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

/// The kind that a word means: `users`, `user`, in any case, with a dash for an underscore.
fn kind(word: &str) -> Result<&'static ResourceKind> {
    let plain = word.to_ascii_lowercase().replace('-', "_");
    let is = |kind: &&&ResourceKind| kind.name() == plain || kind.singular == plain;
    resources::KINDS.iter().find(is).copied().with_context(|| {
        let known: Vec<_> = resources::KINDS.iter().map(|kind| kind.name()).collect();
        format!("there are no {word}; there are {}", known.join(", "))
    })
}

/// A request that bears a document.
fn document(at: &At, method: Method, path: &[&str], body: &Value) -> Result<RequestBuilder> {
    Ok(api::request(at, method, path)?.header("Content-Type", MEDIA_TYPE).body(body.to_string()))
}

/// The same, for other commands.
pub(crate) fn document_of(at: &At, method: Method, path: &[&str], body: &Value) -> Result<RequestBuilder> {
    document(at, method, path, body)
}

/// Resources as documents that can be applied, secrets and all.
pub(crate) fn written(resources: &[Said]) -> Result<String> {
    resources.iter().map(|said| files::said(kind(said.resource)?, &said.id, &said.fields)).collect()
}

/// All of a kind, as far as a filter holds.
async fn all(at: &At, kind: &ResourceKind, filter: Option<&str>) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("page[size]", PAGE)];
        query.extend(filter.map(|filter| ("filter[srql]", filter)));
        query.extend(after.as_deref().map(|after| ("page[after]", after)));
        let mut answer = api::answer(at, api::asked(at, Method::GET, &["api", "v2", kind.name()], &query)?).await?;
        found.extend(answer["data"].as_array_mut().map(std::mem::take).unwrap_or_default());
        let next = answer["links"]["next"].as_str().and_then(|next| next.split_once('?'));
        let Some((_, query)) = next else { return Ok(found) };
        let of = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            (name == "page[after]").then(|| value.into_owned())
        };
        after = reqwest::Url::parse(&format!("http://x/?{query}"))?.query_pairs().find_map(of);
    }
}

async fn one(at: &At, kind: &ResourceKind, id: &str) -> Result<Value> {
    let mut answer = api::answer(at, api::request(at, Method::GET, &["api", "v2", kind.name(), id])?).await?;
    Ok(answer["data"].take())
}

/// A resource as a row of a table: what it is called, and what it says.
fn row(kind: &ResourceKind, resource: &Value) -> Value {
    let mut row = Map::new();
    row.insert(kind.id.to_owned(), resource["id"].clone());
    for (name, value) in resource["attributes"].as_object().into_iter().flatten() {
        let shown = match value {
            Value::Array(texts) if texts.is_empty() => Value::Null,
            Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ").into(),
            other => other.clone(),
        };
        row.insert(name.clone(), shown);
    }
    row.insert("epoch".to_owned(), resource["meta"]["epoch"].clone());
    Value::Object(row)
}

impl Get {
    pub(crate) async fn run(self) -> Result<String> {
        let kind = kind(&self.kind)?;
        let found = match &self.id {
            Some(id) => vec![one(&self.at, kind, id).await?],
            None => all(&self.at, kind, self.filter.as_deref()).await?,
        };
        Ok(match self.output {
            Shape::Table => {
                let rows: Vec<Value> = found.iter().map(|resource| row(kind, resource)).collect();
                let told = ["created_at", "created_by", "updated_by", "epoch"];
                let brief: Vec<&str> = table::columns(&rows, None).into_iter().filter(|c| !told.contains(c)).collect();
                table::render(&rows, Some(&brief))
            }
            Shape::Json => serde_json::to_string_pretty(&found)?,
            Shape::Yaml => files::write(kind, &found)?,
        })
    }
}

/// What a field may hold, in words.
fn holds(holds: Holds) -> String {
    match holds {
        Holds::Text(most) => format!("text, at most {most} bytes"),
        Holds::OneOf(words) => words.join(" | "),
        Holds::Flag => "true | false".to_owned(),
        Holds::Number(least, most) => format!("number from {least} to {most}"),
        Holds::Instant => "instant (RFC 3339)".to_owned(),
        Holds::Texts(most, each) => format!("list of at most {most} texts of {each} bytes"),
    }
}

impl Describe {
    pub(crate) async fn run(self) -> Result<String> {
        let kind = kind(&self.kind)?;
        let Some(id) = self.id else { return Ok(described(kind)) };
        let resource = one(&self.at, kind, &id).await?;
        let mut out = files::write(kind, std::slice::from_ref(&resource))?;
        for name in ["owner", "created_at", "created_by", "updated_at", "updated_by"] {
            if let Some(said) = resource["attributes"][name].as_str() {
                out.push_str(&format!("# {name}: {said}\n"));
            }
        }
        out.push_str(&format!("# epoch: {}\n", resource["meta"]["epoch"]));
        let quoted = id.replace('\\', "\\\\").replace('\'', "\\'");
        let query =
            format!("in:audit subject:'{quoted}' action:{}* time:last_30d sort:time:desc limit:10", kind.name());
        let body = json!({"query": query});
        let answer =
            api::answer(&self.at, api::request(&self.at, Method::POST, &["api", "query"])?.json(&body)).await?;
        let acts: Vec<Value> = answer["results"].as_array().cloned().unwrap_or_default();
        if !acts.is_empty() {
            let brief = ["time", "actor", "action", "reason", "detail"];
            out.push_str(&format!("\nLast acts:\n{}", table::render(&acts, Some(&brief))));
        }
        Ok(out)
    }
}

/// What a kind has and what it allows.
fn described(kind: &ResourceKind) -> String {
    let columns = kind.table.columns();
    let doc = |name: &str| columns.iter().find(|column| column.name == name).map_or("", |column| column.doc);
    let rows: Vec<Value> = kind
        .fields
        .iter()
        .filter(|field| field.name != "sha256" && !field.server)
        .map(|field| {
            let mut is = Vec::new();
            is.extend(field.required.then_some("required"));
            is.extend(field.immutable.then_some("never changes"));
            is.extend(field.secret.map(|_| "never shown"));
            let default = field.default.value();
            json!({
                "field": field.name, "holds": holds(field.holds), "is": is.join(", "),
                "default": if default.is_null() { Value::Null } else { default.to_string().into() },
                "means": field.secret.unwrap_or(doc(field.name)).replace('\n', " "),
            })
        })
        .collect();
    let allowed: Vec<Value> = kind
        .permissions()
        .map(|permission| json!({"permission": permission.name(), "least role": permission.least.name()}))
        .collect();
    format!(
        "{}: {}\nEach {} is named by {}. A tenant has at most {}.\n\n{}\n\n{}",
        kind.name(),
        kind.table.doc().replace('\n', " "),
        kind.singular,
        kind.id,
        kind.most,
        table::render(&rows, None),
        table::render(&allowed, None)
    )
}

/// The value that a text of the command line means.
fn value(kind: &ResourceKind, name: &str, text: &str) -> Result<Value> {
    let field = kind.field(name).filter(|field| !field.server).with_context(|| {
        let known: Vec<_> = kind.fields.iter().filter(|field| !field.server).map(|field| field.name).collect();
        format!("{} have no field {name} that can be set; these can: {}", kind.name(), known.join(", "))
    })?;
    Ok(match field.holds {
        Holds::Text(_) | Holds::OneOf(_) | Holds::Instant => json!(text),
        Holds::Flag => json!(text.parse::<bool>().with_context(|| format!("{name} is true or false"))?),
        Holds::Number(..) => json!(text.parse::<i64>().with_context(|| format!("{name} is a number"))?),
        Holds::Texts(..) => json!(text.split(',').filter(|text| !text.is_empty()).collect::<Vec<_>>()),
    })
}

impl Create {
    pub(crate) async fn run(mut self) -> Result<String> {
        let kind = kind(&self.kind)?;
        // Whoever names a field first gives no id.
        let id = match self.id.take() {
            Some(field) if field.contains('=') => {
                self.fields.insert(0, field);
                None
            }
            id => id,
        };
        let mut attributes = BTreeMap::new();
        for said in &self.fields {
            let Some((name, text)) = said.split_once('=') else { bail!("{said:?} is no FIELD=VALUE") };
            attributes.insert(name.to_owned(), value(kind, name, text)?);
        }
        let mut data = json!({"type": kind.name(), "attributes": attributes});
        if let Some(id) = id {
            data["id"] = json!(id);
        }
        let body = json!({"data": data, "meta": {"reason": self.reason}});
        let request = document(&self.at, Method::POST, &["api", "v2", kind.name()], &body)?;
        let answer = api::answer(&self.at, request).await?;
        let made = format!("{} {} is made", kind.singular, answer["data"]["id"].as_str().unwrap_or_default());
        Ok(match answer["meta"]["token"].as_str() {
            // It is shown once, alone, so that a script can take it.
            Some(token) => token.to_owned(),
            None => made,
        })
    }
}

impl Delete {
    pub(crate) async fn run(self) -> Result<String> {
        let kind = kind(&self.kind)?;
        let body = json!({"meta": {"reason": self.reason}});
        let request = document(&self.at, Method::DELETE, &["api", "v2", kind.name(), &self.id], &body)?;
        api::answer(&self.at, request).await?;
        Ok(format!("{} {} is gone", kind.singular, self.id))
    }
}

impl Apply {
    /// Says what it would do.
    pub(crate) async fn diff(self) -> Result<String> {
        let plan = self.plan().await?;
        Ok(plan.told())
    }

    /// Does it.
    pub(crate) async fn run(self) -> Result<String> {
        let plan = self.plan().await?;
        if let Some(digest) = &self.digest
            && *digest != plan.digest()
        {
            bail!("what would be done is no longer what was shown:\n{}", plan.told());
        }
        if plan.is_empty() {
            return Ok("nothing to do".to_owned());
        }
        let body = json!({"atomic:operations": plan.operations(), "meta": {"reason": self.reason}});
        let mut request = api::request(&self.at, Method::POST, &["api", "v2", "operations"])?
            .header("Content-Type", format!("{MEDIA_TYPE}; ext=\"https://jsonapi.org/ext/atomic\""))
            .body(body.to_string());
        if !self.owner.is_empty() {
            request = request.header("Radarflow-Owner", &self.owner);
        }
        let answer = api::answer(&self.at, request).await.context("nothing was applied")?;
        Ok(plan.done(&answer))
    }

    async fn plan(&self) -> Result<plan::Plan> {
        let wanted = files::read(&self.file)?;
        let mut standing = BTreeMap::new();
        for kind in resources::KINDS.iter().filter(|kind| plan::is_written(kind)) {
            let named = wanted.iter().any(|wanted| wanted.kind.name() == kind.name());
            // Whoever prunes looks at all kinds: of one the files may have nothing left. What they may not read they do not have.
            match all(&self.at, kind, None).await {
                Ok(stands) if named || self.prune => drop(standing.insert(kind.name(), stands)),
                Err(error) if named => return Err(error),
                _ => {}
            }
        }
        plan::plan(&wanted, &standing, &self.owner, self.prune)
    }
}
