//! `radarflow token`: makes, lists and revokes tokens. A running server is asked; while none runs on this host the data
//! directory is read and written, of all tenants: whoever has it has everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use radarflow_connectors::disk;
use radarflow_connectors::ledger::{self, DataDir, LedgerError};
use radarflow_connectors::sources::entry;
use radarflow_dataflows::keyed::Tick;
use radarflow_dataflows::resources::standing_resources;
use radarflow_dataflows::upgrade;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Actor, Fact, Role};
use radarflow_proto::frame::{Frame, Kind, Origin, Slice};
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use radarflow_query::actor::new_token;
use radarflow_reconcile::resources::{At as When, Judges};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::At;
use crate::{api, config, serve, table};

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, once. With a running server it is asked; otherwise the data directory is written.
    #[command(after_help = "Example: radarflow token create --name grafana --role viewer")]
    Create {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long, value_enum, default_value_t = RoleArg::Viewer)]
        role: RoleArg,
        /// Customer; only without a running server.
        #[arg(long, default_value = "default")]
        tenant: String,
        /// A site it is bound to; may be repeated.
        #[arg(long)]
        partition: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// List tokens by their ids. With a running server those of the tenant; otherwise those in the data directory.
    #[command(after_help = "Example: radarflow token list")]
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Revoke a token: it lets nobody in any more, and what it let in ends. It cannot be taken back.
    #[command(after_help = "Example: radarflow token revoke 3f9c1a2b4d5e6f70 --reason 'the laptop was lost'")]
    Revoke {
        /// The token's id, as `radarflow token list` prints it.
        id: String,
        /// Why; for the audit.
        #[arg(long, default_value = "")]
        reason: String,
        /// Also where it is the tenant's last that can make or revoke others.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// Where tokens are.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// Where everything is kept; for while no server runs.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The server; http://127.0.0.1:8080 where nothing is said.
    #[arg(long, env = "RADARFLOW_URL")]
    url: Option<String>,
    /// An administrator's token.
    #[arg(long, env = "RADARFLOW_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    Viewer,
    Helpdesk,
    Operator,
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Viewer => Role::Viewer,
            RoleArg::Helpdesk => Role::Helpdesk,
            RoleArg::Operator => Role::Operator,
            RoleArg::Admin => Role::Admin,
        }
    }
}

impl Place {
    fn server(self) -> Result<At> {
        Ok(At { url: self.url.unwrap_or_else(|| "http://127.0.0.1:8080".to_owned()), token: self.token })
    }

    /// The data directory that is meant, if no server has it: the one that is named; where a server is named none; else the
    /// configured one, if something is in it. One that is named may be made: the first token comes before the first start.
    fn directory(&self, make: bool) -> Result<Option<DataDir>> {
        let (path, make) = match (&self.data_dir, &self.url) {
            (Some(path), _) => (path.clone(), make),
            (None, Some(_)) => return Ok(None),
            (None, None) => (config::data_dir(), false),
        };
        if !make && !path.join(ledger::LOG).is_dir() {
            return Ok(None);
        }
        take(&path)
    }
}

pub(crate) fn take(path: &Path) -> Result<Option<DataDir>> {
    match DataDir::take(path) {
        Ok(dir) => Ok(Some(dir)),
        Err(LedgerError::Locked(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl TokenCommand {
    /// Does it, and gives what is to be printed.
    pub(crate) async fn run(self) -> Result<String> {
        match self {
            TokenCommand::Create { name, role, tenant, partition, place } => {
                let role = Role::from(role);
                if let Some(dir) = place.directory(true)? {
                    anyhow::ensure!(!name.is_empty() && name.len() <= 200, "a token has a name, of at most 200 bytes");
                    let text = new_token();
                    append(&dir, &tenant, &serve::tokens::fact(&name, &tenant, role, partition, &text))?;
                    return Ok(text);
                }
                let body = json!({"name": name, "role": role, "partitions": partition});
                let at = place.server()?;
                let answer = api::answer(&at, api::request(&at, Method::POST, &["api", "tokens"])?.json(&body)).await?;
                Ok(answer["token"].as_str().context("the server tells no token")?.to_owned())
            }
            TokenCommand::List { place } => {
                if let Some(dir) = place.directory(false)? {
                    let row = |t: &Arc<Resource>| {
                        json!({"tenant": t.tenant, "id": t.id, "name": t.text("name"), "role": t.text("role"),
                            "partitions": t.texts("partitions"), "expires_ms": t.number("expires_at").map(|us| us / 1000)})
                    };
                    return Ok(listed(&standing(&dir)?.all(Table::ApiToken).map(row).collect::<Vec<_>>()));
                }
                let at = place.server()?;
                let answer = api::answer(&at, api::request(&at, Method::GET, &["api", "tokens"])?).await?;
                Ok(listed(answer["tokens"].as_array().context("the server tells no tokens")?))
            }
            TokenCommand::Revoke { id, reason, force, place } => {
                if let Some(dir) = place.directory(false)? {
                    let known = standing(&dir)?;
                    let Some(token) = known.all(Table::ApiToken).find(|token| token.id == id).cloned() else {
                        bail!("there is no token {id}; `radarflow token list` lists them");
                    };
                    let actor = Actor { name: "command line".to_owned(), role: Role::Admin };
                    let tenant = token.tenant.clone();
                    let name = token.text("name").unwrap_or_default().to_owned();
                    let revoked = Fact::TokenRevoked { tenant: tenant.clone(), id, name: name.clone(), actor, reason };
                    append(&dir, &tenant, &revoked)?;
                    return Ok(format!("token {name} of {tenant} is revoked"));
                }
                let at = place.server()?;
                let request = api::request(&at, Method::DELETE, &["api", "tokens", &id])?;
                api::answer(&at, request.json(&json!({"reason": reason, "force": force}))).await?;
                Ok(format!("token {id} is revoked"))
            }
        }
    }
}

/// Tokens as a table.
fn listed(tokens: &[Value]) -> String {
    let shown = |token: &Value| {
        let mut token = token.clone();
        let partitions = token["partitions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let partitions = partitions.collect::<Vec<_>>().join(", ");
        token["partitions"] = if partitions.is_empty() { Value::Null } else { partitions.into() };
        token["expires"] = token["expires_ms"].as_i64().map_or(Value::Null, |ms| Time::from_ms(ms).to_string().into());
        if let Some(fields) = token.as_object_mut() {
            fields.remove("expires_ms");
        }
        token
    };
    table::render(&tokens.iter().map(shown).collect::<Vec<_>>(), None)
}

/// The resources of a server that does not run.
pub(crate) fn standing(dir: &DataDir) -> Result<Judges> {
    let ledger::Opened { segments, start, .. } = opened(dir)?;
    let mut judges = Judges::default();
    let mut from = 0;
    if let Some((manifest, state)) = &start {
        from = manifest.epoch;
        let tick = Tick { epoch: manifest.epoch, clock_ms: manifest.clock_ms, live_ms: manifest.clock_ms };
        let state = upgrade::upgrade(state.clone(), &manifest.collections, &tick)?;
        standing_resources(&state).into_iter().for_each(|resource| judges.restore(resource));
    }
    segments.replay(from, |frame| {
        let at = When { epoch: frame.epoch, now_us: frame.clock_ms.saturating_mul(1000) };
        let facts =
            frame.slices.iter().filter(|slice| slice.origin.kind == Kind::Fact).flat_map(|slice| &slice.entries);
        for fact in facts.filter_map(|entry| serde_json::from_slice::<Fact>(&entry.body).ok()) {
            judges.state(at, &fact);
        }
    })?;
    Ok(judges)
}

fn opened(dir: &DataDir) -> Result<ledger::Opened> {
    Ok(ledger::open(&disk::os(), dir.root(), &upgrade::versions())?)
}

/// Appends a fact to the ledger of a server that does not run.
pub(crate) fn append(dir: &DataDir, tenant: &str, fact: &Fact) -> Result<()> {
    let ledger::Opened { segments: mut log, .. } = opened(dir)?;
    let origin = Origin {
        kind: Kind::Fact,
        tenant: tenant.to_owned(),
        partition: String::new(),
        feed: "command line".to_owned(),
    };
    let slice = Slice { origin, first_position: 0, entries: vec![entry(None, serde_json::to_vec(fact)?)] };
    let frame = Frame {
        generation: log.generation(),
        epoch: log.next_epoch(),
        clock_ms: log.last_clock_ms().max(1),
        gap_ms: 0,
        release_bytes: 1 << 20,
        ranges: Vec::new(),
        slices: vec![slice],
    };
    log.append(&frame)?;
    Ok(())
}
