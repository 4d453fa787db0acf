//! Pushing an inventory: a file, read here under its mapping, or a ServiceRadar's; sent as one item a line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use futures::stream;
use radarflow_connectors::sources::serviceradar;
use radarflow_reconcile::mapping::{Format, Mapping, Whose, rows};
use radarflow_reconcile::replace::{Reading, TABLES};
use reqwest::Method;
use serde_json::Value;

use crate::cli::At;
use crate::{api, config, sync};

/// Items of one piece of the request's body.
const PIECE: usize = 1000;

/// What to push.
pub(crate) struct Import {
    pub(crate) file: PathBuf,
    pub(crate) source: String,
    pub(crate) mapping: Option<PathBuf>,
    pub(crate) complete: bool,
    pub(crate) partition: Option<String>,
    pub(crate) plan: bool,
}

impl Import {
    fn format(&self) -> Result<Format> {
        let extension = self.file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "json" => Ok(Format::Json),
            "ndjson" | "jsonl" => Ok(Format::Lines),
            "csv" | "tsv" => Ok(Format::Csv),
            _ => bail!("{}: the name says none of .json, .ndjson, .jsonl, .csv", self.file.display()),
        }
    }

    /// The file's items as device updates, a line each.
    fn lines(&self, whose: &Whose) -> Result<Vec<String>> {
        let format = self.format()?;
        let body = std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let mapping: Option<Mapping> = self.mapping.as_deref().map(config::mapping).transpose()?;
        let read = || -> Result<Vec<String>> {
            Ok(match &mapping {
                Some(mapping) => {
                    let updates = mapping.document(format, &body, whose)?;
                    updates.iter().map(serde_json::to_string).collect::<Result<_, _>>()?
                }
                None if format == Format::Csv => bail!("what its columns mean is told by --mapping"),
                None => rows(format, &body, None)?.iter().map(Value::to_string).collect(),
            })
        };
        read().with_context(|| self.file.display().to_string())
    }

    /// Pushes it; tells what became of it.
    pub(crate) async fn run(&self, at: &At) -> Result<String> {
        let Some((name, instance)) = self.source.split_once('/').filter(|(n, i)| !n.is_empty() && !i.is_empty()) else {
            bail!("--source is NAME/INSTANCE: armis/main, servicenow/emea");
        };
        let lines = self.lines(&Whose::named(name))?;
        let mut query = Vec::new();
        if self.complete {
            query.push(("complete", "true"));
        }
        query.extend(self.partition.as_deref().map(|partition| ("partition", partition)));
        if self.plan {
            query.push(("plan", "true"));
        }
        let answer = post(at, &["api", "inventories", name, instance], &query, &lines).await?;
        if self.plan {
            return sync::told(&answer);
        }
        Ok(format!("{} items are durable, in epoch {}", answer["items"], answer["epoch"]))
    }
}

/// Posts a JSON object a line; gives the answer.
async fn post(at: &At, path: &[&str], query: &[(&str, &str)], lines: &[String]) -> Result<Value> {
    let pieces: Vec<Result<String, std::io::Error>> =
        lines.chunks(PIECE).map(|piece| Ok(piece.join("\n") + "\n")).collect();
    let request = api::asked(at, Method::POST, path, query)?
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(stream::iter(pieces)));
    api::answer(at, request).await
}

/// What to take over from a ServiceRadar.
#[derive(clap::Args)]
pub(crate) struct ServiceRadar {
    /// Its Postgres; where its tables are not on the search path, `…?options=-csearch_path%3Dplatform`.
    #[arg(long, value_name = "URL")]
    from: String,
    /// The instance that its Armis and NetBox syncs will have here: a later sync of that name takes the devices over.
    #[arg(long, default_value = "main")]
    instance: String,
    /// Site of devices that name none.
    #[arg(long, default_value = "default")]
    partition: String,
}

impl ServiceRadar {
    /// Takes its devices and names over; tells what was taken.
    pub(crate) async fn run(&self, at: &At) -> Result<String> {
        let mut reading = Reading::default();
        serviceradar::read(&self.from, &TABLES, |table, row| reading.row(table, row)).await?;
        let inventory = reading.finish();
        let mut told = Vec::new();
        for (name, devices) in &inventory.devices {
            let lines = devices.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
            let query = [("partition", self.partition.as_str())];
            let taken = post(at, &["api", "inventories", name, &self.instance], &query, &lines).await?;
            told.push(format!("{} devices of {name}/{}", taken["items"], self.instance));
        }
        let line = |(uid, (partition, identifiers)): (&String, &(String, Vec<String>))| {
            let partition = if partition.is_empty() { &self.partition } else { partition };
            serde_json::json!({"uid": uid, "partition": partition, "identifiers": identifiers}).to_string()
        };
        let lines: Vec<String> = inventory.names.iter().map(line).collect();
        let taken = post(at, &["api", "identity", "imported-uids"], &[], &lines).await?;
        told.push(format!("{} names", taken["items"]));
        Ok(told.join(", "))
    }
}
