//! `radarflow runs`: runs of inventories that are held, released or rejected.

use anyhow::{Result, bail};
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::At;
use crate::{api, table};

#[derive(Subcommand)]
pub(crate) enum RunsCommand {
    /// List the runs that are held, and why.
    #[command(after_help = "Example: radarflow runs list")]
    List {
        #[command(flatten)]
        at: At,
    },
    /// Let a held run do what it would.
    #[command(after_help = "Example: radarflow runs release netbox/main 1f6c2a7d --reason 'site closed'")]
    Release(Decision),
    /// Have a held run do nothing.
    #[command(after_help = "Example: radarflow runs reject netbox/main 1f6c2a7d --reason 'half a file'")]
    Reject(Decision),
}

#[derive(clap::Args)]
pub(crate) struct Decision {
    /// The inventory, as it was imported: `netbox/main`, `servicenow/emea`.
    #[arg(value_name = "NAME/INSTANCE")]
    source: String,
    /// The run.
    run: String,
    /// Why, for the audit.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

impl RunsCommand {
    /// Does it; says what there is to say.
    pub(crate) async fn run(self) -> Result<String> {
        match self {
            RunsCommand::List { at } => list(&at).await,
            RunsCommand::Release(decision) => decision.send("release").await,
            RunsCommand::Reject(decision) => decision.send("reject").await,
        }
    }
}

impl Decision {
    async fn send(self, what: &str) -> Result<String> {
        let Decision { source, run, reason, at } = self;
        let Some((kind, instance)) = source.split_once('/') else {
            bail!("an inventory is NAME/INSTANCE, as in netbox/main");
        };
        let path = ["api", "sources", kind, instance, "runs", &run, what];
        let request = api::request(&at, Method::POST, &path)?.json(&json!({"reason": reason}));
        let answer = api::answer(&at, request).await?;
        let done = if what == "release" { "released" } else { "rejected" };
        Ok(format!("run {run} of {source} is {done}, in epoch {}", answer["epoch"]))
    }
}

async fn list(at: &At) -> Result<String> {
    let query = "in:alerts rule:(run-held,brake-held) !status:resolved limit:1000";
    let request = api::request(at, Method::POST, &["api", "query"])?.json(&json!({"query": query}));
    let answer = api::answer(at, request).await?;
    let alerts = answer["results"].as_array().cloned().unwrap_or_default();
    if alerts.is_empty() {
        return Ok("no run is held".to_owned());
    }
    let row = |alert: &Value| json!({"source": alert["source_id"], "run": alert["labels"]["run"], "why": alert["title"], "since": alert["triggered_at"]});
    let rows: Vec<Value> = alerts.iter().map(row).collect();
    Ok(table::render(&rows, Some(&["source", "run", "why", "since"]))
        + "\nto let one go on: radarflow runs release SOURCE RUN")
}
