//! `radarflow clock`: what the ledger's clock shows, and that the wall clock is right where it is not followed.

use anyhow::Result;
use clap::Subcommand;
use radarflow_proto::cell::Time;
use reqwest::Method;
use serde_json::json;

use crate::api;
use crate::cli::At;

#[derive(Subcommand)]
pub(crate) enum ClockCommand {
    /// Say what the ledger's clock shows, and whether it follows the wall clock of the server.
    Show {
        #[command(flatten)]
        at: At,
    },
    /// Have the ledger's clock follow the server's wall clock, which it holds for wrong. This cannot be undone: the
    /// ledger's clock never goes back.
    #[command(after_help = "Example: radarflow clock accept --reason 'the server was off for two months'")]
    Accept {
        /// Why, for the audit.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        at: At,
    },
}

impl ClockCommand {
    /// Does it; says what there is to say.
    pub(crate) async fn run(self) -> Result<String> {
        match self {
            ClockCommand::Show { at } => {
                let shown = api::answer(&at, api::request(&at, Method::GET, &["api", "clock"])?).await?;
                let time = |field: &str| Time::from_ms(shown[field].as_i64().unwrap_or_default());
                let (ledger, wall) = (time("clock_ms"), time("wall_ms"));
                let follows = match shown["held"].as_bool() {
                    Some(true) => {
                        "the ledger does not follow the wall clock; set it right, or `radarflow clock accept`"
                    }
                    _ => "the ledger follows the wall clock",
                };
                Ok(format!("ledger {ledger}\nwall   {wall}\n{follows}"))
            }
            ClockCommand::Accept { reason, at } => {
                let shown = api::answer(&at, api::request(&at, Method::GET, &["api", "clock"])?).await?;
                let right = json!({"held_by_ms": shown["held_by_ms"], "reason": reason});
                let accept = api::request(&at, Method::POST, &["api", "clock", "accept"])?.json(&right);
                let answer = api::answer(&at, accept).await?;
                Ok(format!("accepted at epoch {}: the ledger's clock follows the wall clock", answer["epoch"]))
            }
        }
    }
}
