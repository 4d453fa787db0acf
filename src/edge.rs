//! `radarflow edge`: packages by which agents at other places are enrolled.

use anyhow::{Context, Result};
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::At;
use crate::{api, resources, table};

/// What is shown of packages.
const SHOWN: &[&str] = &["package_id", "name", "agent_id", "site", "status", "expires_at", "certificate_expires_at"];

#[derive(Subcommand)]
pub(crate) enum EdgeCommand {
    /// Make a package for an agent, and print the token that enrols it: once, within a day.
    #[command(after_help = "Example: radarflow edge create --agent dc1-a --site dc1")]
    Create {
        /// What the agent is called: letters, digits, - and _.
        #[arg(long)]
        agent: String,
        /// The partition of the agent and of what it finds.
        #[arg(long, default_value = "default")]
        site: String,
        /// What the package is for; the agent's id, where nothing is said.
        #[arg(long)]
        name: Option<String>,
        /// Where the agent connects, `host:port`, where the configuration does not say it.
        #[arg(long)]
        gateway: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// List packages, and what has become of them.
    List {
        #[command(flatten)]
        at: At,
    },
    /// Let an agent in no more: its connections are closed at once.
    #[command(after_help = "Example: radarflow edge revoke 6f1c2a7d-0b51-4c62-8f0e-2f3b1d5a9c10 --reason 'stolen'")]
    Revoke {
        /// The package.
        package_id: String,
        /// Why, for the audit.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        at: At,
    },
    /// Print the key that tokens are verified with, for ServiceRadar's command line.
    PublicKey {
        #[command(flatten)]
        at: At,
    },
}

impl EdgeCommand {
    pub(crate) async fn run(self) -> Result<String> {
        match self {
            EdgeCommand::Create { agent, site, name, gateway, at } => {
                let name = name.unwrap_or_else(|| agent.clone());
                let attributes = json!({"name": name, "agent_id": agent, "site": site, "gateway": gateway});
                let body = json!({"data": {"type": "edge_packages", "attributes": attributes}});
                let request = resources::document_of(&at, Method::POST, &["api", "v2", "edge_packages"], &body)?;
                let answer = api::answer(&at, request).await?;
                let token = answer["meta"]["token"].as_str().context("the server tells no token")?;
                let id = answer["data"]["id"].as_str().unwrap_or_default();
                let url = if token_says_url(&answer) { String::new() } else { format!(" --url {}", at.url) };
                Ok(format!(
                    "package {id}\ntoken: {token}\non the agent's host, within a day: radarflow agent enroll - --data-dir DIR{url}, which reads the token"
                ))
            }
            EdgeCommand::List { at } => {
                let query = json!({"query": "in:edge_packages sort:created_at:desc limit:1000"});
                let request = api::request(&at, Method::POST, &["api", "query"])?.json(&query);
                let answer = api::answer(&at, request).await?;
                let rows = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
                Ok(table::render(rows, Some(SHOWN)))
            }
            EdgeCommand::Revoke { package_id, reason, at } => {
                let path = ["api", "v2", "edge_packages", &package_id, "actions", "revoke"];
                let why = Some(&reason).filter(|reason| !reason.is_empty());
                let body = json!({
                    "data": {"type": "edge_packages", "attributes": {"reason": why}},
                    "meta": {"reason": reason},
                });
                let answer = api::answer(&at, resources::document_of(&at, Method::POST, &path, &body)?).await?;
                let agent = answer["data"]["attributes"]["agent_id"].as_str().unwrap_or_default();
                Ok(format!("revoked: nothing lets {agent} in any more"))
            }
            EdgeCommand::PublicKey { at } => {
                let path = ["api", "edge-packages", "public-key"];
                let answer = api::answer(&at, api::request(&at, Method::GET, &path)?).await?;
                Ok(answer["public_key"].as_str().unwrap_or_default().to_owned())
            }
        }
    }
}

/// Whether the token itself says where the server is.
fn token_says_url(answer: &Value) -> bool {
    answer["meta"]["token"].as_str().is_some_and(crate::agent::says_url)
}
