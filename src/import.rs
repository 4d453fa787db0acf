//! Pushing an inventory: a file, read here under its mapping, or a ServiceRadar's; sent as one item a line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::stream;
use indicatif::{ProgressBar, ProgressStyle};
use radarflow_connectors::sources::serviceradar;
use radarflow_proto::payload::DeviceUpdate;
use radarflow_reconcile::findings::{Finding, Findings};
use radarflow_reconcile::mapping::{Format, Mapping, Whose, belong, rows};
use radarflow_reconcile::replace::{Reading, TABLES};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::At;
use crate::{api, config, sync};

/// Items of one piece of the request's body.
const PIECE: usize = 1000;
/// How long what becomes of a run is waited for, seconds.
const WAIT_S: &str = "600";
/// How long the whole of it may take.
const PATIENCE: Duration = Duration::from_secs(3600);

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

    /// The file's items as device updates, a line each, and what is doubtful about them.
    fn lines(&self, whose: &Whose) -> Result<(Vec<String>, Vec<Finding>)> {
        let format = self.format()?;
        let body = std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let mapping: Option<Mapping> = self.mapping.as_deref().map(config::mapping).transpose()?;
        let read = || -> Result<(Vec<String>, Vec<Finding>)> {
            let items = match &mapping {
                None if format == Format::Csv => bail!("what its columns mean is told by --mapping"),
                mapping => rows(format, &body, mapping.as_ref().and_then(Mapping::list))?,
            };
            let mut findings = Findings::new(mapping.as_ref());
            let mut lines = Vec::with_capacity(items.len());
            for item in &items {
                match &mapping {
                    Some(mapping) => {
                        let update = mapping.update(item, whose);
                        findings.look(item, &update);
                        lines.push(serde_json::to_string(&update)?);
                    }
                    None => {
                        // What is no device update the server tells.
                        if let Ok(mut update) = DeviceUpdate::deserialize(item) {
                            belong(&mut update, whose);
                            findings.look(item, &update);
                        }
                        lines.push(item.to_string());
                    }
                }
            }
            Ok((lines, findings.told()))
        };
        read().with_context(|| self.file.display().to_string())
    }

    /// Pushes it; tells what became of it.
    pub(crate) async fn run(&self, at: &At) -> Result<String> {
        let Some((name, instance)) = self.source.split_once('/').filter(|(n, i)| !n.is_empty() && !i.is_empty()) else {
            bail!("--source is NAME/INSTANCE: armis/main, servicenow/emea");
        };
        let (lines, findings) = self.lines(&Whose::named(name))?;
        let doubts = doubts(&findings, self.format()?);
        let rejected: usize = findings.iter().filter(|f| f.reason.starts_with("rejected")).map(|f| f.items).sum();
        if rejected == lines.len() && !lines.is_empty() {
            bail!("nothing of {} can be used, and nothing was sent{doubts}", self.file.display());
        }
        let mut query = Vec::new();
        if self.complete {
            query.push(("complete", "true"));
        }
        query.extend(self.partition.as_deref().map(|partition| ("partition", partition)));
        if self.plan {
            query.push(("plan", "true"));
        } else {
            query.push(("wait", WAIT_S));
        }
        let answer = post(at, &["api", "inventories", name, instance], &query, &lines).await?;
        if self.plan {
            return sync::told(&answer, &doubts);
        }
        Ok(format!("{} items: {}{doubts}", answer["items"], became(&self.source, &answer)?))
    }
}

/// What became of a run; where it is held, or waits behind one that is, that is an error.
pub(crate) fn became(source: &str, answer: &Value) -> Result<String> {
    let run = answer["run"].as_str().unwrap_or_default();
    let text = |held: &Value, field: &str| held[field].as_str().unwrap_or_default().to_owned();
    let held: Vec<&Value> = answer["held"].as_array().into_iter().flatten().collect();
    if let Some(own) = held.iter().find(|held| text(held, "run") == run) {
        bail!(
            "run {run} of {source} is held: {}\nlet it go on with `radarflow runs release {source} {run}`, or give it up \
             with `radarflow runs reject {source} {run}`",
            text(own, "why")
        );
    }
    // What the listing brake holds is replaced by the next complete listing; what identity holds stays as it is.
    if let Some(earlier) = held.iter().find(|held| text(held, "rule") == "run-held") {
        let name = text(earlier, "run");
        bail!(
            "run {run} of {source} is taken, but an earlier run {name} is held ({}): devices that it touches stay as they \
             are until `radarflow runs release {source} {name}`, or `radarflow runs reject {source} {name}`",
            text(earlier, "why")
        );
    }
    Ok(match answer["state"].as_str() {
        Some("applied") => format!("run {run} is applied"),
        _ => format!("run {run} is durable, in epoch {}, and still being read", answer["epoch"]),
    })
}

/// What is doubtful, as people read it.
fn doubts(findings: &[Finding], format: Format) -> String {
    let mut out = String::new();
    let (what, first) = if format == Format::Csv { ("rows", 1) } else { ("items", 0) };
    for Finding { reason, items, first: named, example } in findings {
        let named: Vec<String> = named.iter().map(|n| (n + first).to_string()).collect();
        let more = if *items > named.len() { ", …" } else { "" };
        let example = example.as_ref().map(|text| format!(", as {text:?}")).unwrap_or_default();
        match items {
            0 => out += &format!("\n  {reason}"),
            n => out += &format!("\n  {n} × {reason}{example} ({what} {}{more})", named.join(", ")),
        }
    }
    out
}

/// Posts a JSON object a line; gives the answer. On a terminal a bar shows how far it is.
async fn post(at: &At, path: &[&str], query: &[(&str, &str)], lines: &[String]) -> Result<Value> {
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} items").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(lines.len() as u64).with_style(style);
    let sent = bar.clone();
    let pieces: Vec<(u64, Result<String, std::io::Error>)> =
        lines.chunks(PIECE).map(|piece| (piece.len() as u64, Ok(piece.join("\n") + "\n"))).collect();
    let pieces = pieces.into_iter().map(move |(items, piece)| {
        sent.inc(items);
        piece
    });
    let request = api::asked(at, Method::POST, path, query)?
        .header("content-type", "application/x-ndjson")
        .timeout(PATIENCE)
        .body(reqwest::Body::wrap_stream(stream::iter(pieces)));
    let answer = api::answer(at, request).await;
    bar.finish_and_clear();
    answer
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
