//! Plans of inventories: what a run would change, and that it shall.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::Value;

use crate::cli::At;
use crate::{api, import};

/// How long a plan may take.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(clap::Subcommand)]
pub(crate) enum SyncCommand {
    /// Have the server read an inventory of its configuration, and say what would change.
    Plan {
        /// The inventory: `armis/main`, `netbox/main`.
        #[arg(value_name = "NAME/INSTANCE")]
        source: String,
        /// Print the plan as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Apply a plan: exactly what it said, or nothing.
    Apply {
        /// The plan's digest.
        digest: String,
        #[command(flatten)]
        at: At,
    },
    /// Forget a plan.
    Forget {
        /// The plan's digest.
        digest: String,
        #[command(flatten)]
        at: At,
    },
}

impl SyncCommand {
    /// Does it; tells what became of it.
    pub(crate) async fn run(&self) -> Result<String> {
        match self {
            SyncCommand::Plan { source, json, at } => {
                let Some((name, instance)) = source.split_once('/') else {
                    bail!("an inventory is NAME/INSTANCE, as in netbox/main");
                };
                let plan = send(at, Method::POST, &["api", "inventories", name, instance, "plan"]).await?;
                if *json { Ok(serde_json::to_string_pretty(&plan)?) } else { told(&plan, "") }
            }
            SyncCommand::Apply { digest, at } => {
                let done = send(at, Method::POST, &["api", "plans", digest, "apply"]).await?;
                let source = done["source"].as_str().unwrap_or_default();
                Ok(format!("epoch {}: {}", done["epoch"], import::became(source, &done)?))
            }
            SyncCommand::Forget { digest, at } => {
                send(at, Method::DELETE, &["api", "plans", digest]).await?;
                Ok("forgotten".to_owned())
            }
        }
    }
}

async fn send(at: &At, method: Method, path: &[&str]) -> Result<Value> {
    // Reading an inventory, and an answer of what became of it, take their time.
    api::answer(at, api::request(at, method, path)?.timeout(PATIENCE)).await
}

/// A plan, as people read it, with what is doubtful about its items; the last line applies it.
pub(crate) fn told(plan: &Value, doubts: &str) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "{} lists {} items: {} new, {} changed, {} as they are, {} gone",
        text(&plan["source"]),
        plan["items"],
        plan["create"],
        plan["update"],
        plan["unchanged"],
        plan["delete"]
    );
    if plan["rejected"] != 0 {
        out += &format!("; {} cannot be read", plan["rejected"]);
    }
    for (sign, kind) in [('+', "create"), ('~', "update"), ('-', "delete")] {
        let samples = plan["samples"][kind].as_array().context("a plan has samples")?;
        for sample in samples {
            let ips: Vec<String> = sample["ips"].as_array().into_iter().flatten().map(text).collect();
            let more = format!("{} {}", text(&sample["hostname"]), ips.join(" "));
            out += format!("\n  {sign} {}  {}", text(&sample["record"]), more.trim()).trim_end();
        }
        let rest = plan[kind].as_u64().unwrap_or_default().saturating_sub(samples.len() as u64);
        if rest > 0 {
            out += &format!("\n  {sign} {rest} more");
        }
    }
    Ok(out + doubts + &format!("\nto apply exactly this: radarflow sync apply {}", text(&plan["digest"])))
}
