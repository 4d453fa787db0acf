//! `radarflow routing`: routes, silences and times tried on the alerts of the past.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use radarflow_proto::rows::Table;
use radarflow_reconcile::routing::policy::READ;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::At;
use crate::{api, resources, table};

/// What is done with routes as a whole. They are stated with `radarflow apply`, and read with `radarflow get routes`.
#[derive(Subcommand)]
pub(crate) enum RoutingCommand {
    /// Say who would have been told of the alerts of the past, and how often, had the resources of a file stood; beside how often they
    /// were told. Nothing is applied, nobody is told.
    #[command(after_help = "Example: radarflow routing test routing.yaml --since 7d\n\n\
        The file has routes, silences, inhibition rules, time intervals, maintenance windows or receivers. The others are as they \
        stand.")]
    Test {
        /// A file or folder of resources, as `radarflow apply` takes them.
        file: PathBuf,
        /// How far back.
        #[arg(long, default_value = "24h")]
        since: String,
        /// As if this did not stand: `routes/pager`. May be repeated.
        #[arg(long, value_name = "KIND/NAME")]
        without: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
}

/// Does it.
pub(crate) async fn run(command: &RoutingCommand) -> Result<()> {
    let RoutingCommand::Test { file, since, without, json: as_json, at } = command;
    let mut stated = stated(file)?;
    for gone in without {
        let Some((kind, name)) = gone.split_once('/') else { bail!("{gone}: a kind and a name, as routes/pager") };
        stated.push(json!({"kind": kind, "name": name}));
    }
    if stated.is_empty() {
        bail!("{}: nothing in it says who is told", file.display());
    }
    let body = json!({"resources": stated, "since": since});
    let request = api::request(at, Method::POST, &["api", "v2", "routing-test"])?.json(&body);
    let answer = api::answer(at, request).await?;
    let text = if *as_json { serde_json::to_string_pretty(&answer)? } else { shown(&answer) };
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).context("cannot write")
}

/// What the files of a path state about who is told.
pub(crate) fn stated(path: &Path) -> Result<Vec<Value>> {
    let kinds = READ.map(Table::name);
    let of = resources::read(path)?.into_iter().filter(|(kind, ..)| kinds.contains(kind));
    Ok(of.map(|(kind, name, fields)| json!({"kind": kind, "name": name, "fields": fields})).collect())
}

/// Who would have been told, in text.
pub(crate) fn shown(answer: &Value) -> String {
    let mut out = String::new();
    let of = |key: &str| answer[key].as_str().unwrap_or_default();
    let count = |key: &str| answer[key].as_u64().unwrap_or(0);
    // Writing to a text does not fail.
    let _ = writeln!(out, "{} alerts from {} to {}", count("alerts"), of("from"), of("to"));
    let told: Vec<Value> = answer["receivers"].as_array().cloned().unwrap_or_default();
    if !told.is_empty() {
        let columns = ["receiver", "messages", "firing", "alerts", "really"];
        let _ = writeln!(out, "{}", table::render(&told, Some(&columns)));
    }
    let untold = count("untold_in_all");
    if untold > 0 {
        let _ = writeln!(out, "nobody is told of {untold} alerts:");
        for alert in answer["untold"].as_array().into_iter().flatten().filter_map(Value::as_object) {
            let of =
                |of: &Map<String, Value>, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let _ = writeln!(out, "  {}: {} ({})", of(alert, "title"), of(alert, "why"), of(alert, "alert"));
        }
    }
    if answer["cut"].as_bool() == Some(true) {
        let _ = writeln!(out, "it was too much to go through to the end: shorten --since");
    }
    out
}
