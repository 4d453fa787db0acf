//! `radarflow jobs`: what agents do for profiles, and what somebody has them do now.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use radarflow_proto::rows::Table;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::At;
use crate::{api, resources, table};

/// Between two looks at how a run goes.
const PACE: Duration = Duration::from_millis(300);
/// What is shown of jobs and of commands.
const JOBS: &[&str] = &["profile", "partition", "agent_id", "state", "targets", "last_result_at", "reason"];
const COMMANDS: &[&str] = &["run_id", "profile", "agent_id", "state", "targets", "progress", "result", "reason"];

#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// List what agents have to do, and how it goes.
    List {
        /// The profile; all, where none is named.
        profile: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// List what somebody had done at once, the newest first.
    Commands {
        /// The profile; all, where none is named.
        profile: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Have the agents of a profile look now, and wait for what comes of it.
    #[command(
        after_help = "Examples:\n  radarflow jobs run web\n  radarflow jobs run web --target 192.0.2.7 --agent dc1-a"
    )]
    Run(Run),
    /// Have done again what a run had done.
    #[command(after_help = "Example: radarflow jobs rerun 6f1c2a7d-0b51-4c62-8f0e-2f3b1d5a9c10")]
    Rerun {
        /// The run.
        run_id: String,
        #[command(flatten)]
        how: How,
    },
    /// Say who looks at what for a profile, and when it is due next; or what a file would make of that. Nothing is stated.
    #[command(
        after_help = "Examples:\n  radarflow jobs preview web\n  radarflow jobs preview web --file profiles.yaml"
    )]
    Preview {
        /// The profile.
        profile: String,
        /// Files of resources, as `radarflow apply` takes them: the profile as it says.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// How many of its next runs to say.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        #[command(flatten)]
        at: At,
    },
    /// Say why a profile looks at a target, by which agent and when; or why it does not.
    #[command(after_help = "Example: radarflow jobs explain web 192.0.2.7")]
    Explain {
        /// The profile.
        profile: String,
        /// An address, a name, or the uid of a device.
        target: String,
        #[command(flatten)]
        at: At,
    },
    /// Withdraw what was to be done at once and is not over.
    Cancel {
        /// The profile.
        profile: String,
        /// The run; all of the profile, where none is named.
        #[arg(long)]
        run_id: Option<String>,
        /// Why, for the audit.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Args)]
pub(crate) struct Run {
    /// The profile.
    profile: String,
    /// One of its targets, as its agents are told: an address or the name of a host. May be said several times.
    #[arg(long = "target")]
    targets: Vec<String>,
    /// One of its agents. May be said several times.
    #[arg(long = "agent")]
    agents: Vec<String>,
    /// Also while the profile pauses.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
pub(crate) struct How {
    /// Seconds until which an agent must have begun; after that it does not.
    #[arg(long, default_value_t = 60)]
    ttl_s: u64,
    /// Seconds to wait for what comes of it; 0 says only how it begins.
    #[arg(long, default_value_t = 300)]
    wait_s: u64,
    /// Names the request: sent again it is answered again, and done once.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Why, for the audit.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

impl JobsCommand {
    /// Does it; says what there is to say.
    pub(crate) async fn run(self) -> Result<String> {
        match self {
            JobsCommand::List { profile, at } => {
                Ok(table::render(&rows(&at, &of("jobs", profile.as_deref(), "limit:1000")).await?, Some(JOBS)))
            }
            JobsCommand::Commands { profile, at } => {
                let query = of("commands", profile.as_deref(), "sort:requested_at:desc limit:1000");
                Ok(table::render(&rows(&at, &query).await?, Some(COMMANDS)))
            }
            JobsCommand::Run(Run { profile, targets, agents, force, how }) => {
                let said = json!({"targets": targets, "agents": agents, "force": force});
                how.run(&profile, said).await
            }
            JobsCommand::Rerun { run_id, how } => {
                let before = rows(&how.at, &of_run(&run_id)).await?;
                let Some(first) = before.first() else { bail!("there is no run {run_id}, or none that is kept") };
                let agents: Vec<&str> = before
                    .iter()
                    .filter_map(|row| row["agent_id"].as_str())
                    .filter(|agent| !agent.is_empty())
                    .collect();
                let profile = first["profile"].as_str().unwrap_or_default().to_owned();
                let said = json!({"targets": first["asked"], "agents": agents});
                how.run(&profile, said).await
            }
            JobsCommand::Preview { profile, file, runs, at } => preview(&at, &profile, file.as_deref(), runs).await,
            JobsCommand::Explain { profile, target, at } => {
                let path = ["api", "profiles", &profile, "explain"];
                let answer = api::answer(&at, api::asked(&at, Method::GET, &path, &[("target", &target)])?).await?;
                Ok(explained(&answer))
            }
            JobsCommand::Cancel { profile, run_id, reason, at } => {
                act(&at, &profile, "cancel", &json!({"run_id": run_id}), &reason, None).await?;
                let of = run_id.map_or_else(|| format!("profile:{}", quoted(&profile)), |id| format!("run_id:{id}"));
                let query = format!("in:commands {of} sort:requested_at:desc limit:1000");
                Ok(table::render(&rows(&at, &query).await?, Some(COMMANDS)))
            }
        }
    }
}

impl How {
    async fn run(self, profile: &str, mut said: Value) -> Result<String> {
        let How { ttl_s, wait_s, idempotency_key, reason, at } = self;
        said["ttl_s"] = json!(ttl_s);
        let answer = act(&at, profile, "run", &said, &reason, idempotency_key.as_deref()).await?;
        let run_id = answer["meta"]["run_id"].as_str().unwrap_or_default().to_owned();
        let until = Instant::now() + Duration::from_secs(wait_s);
        loop {
            let found = rows(&at, &of_run(&run_id)).await?;
            let over = !found.is_empty() && found.iter().all(|row| !row["finished_at"].is_null());
            if !over && Instant::now() < until {
                tokio::time::sleep(PACE).await;
                continue;
            }
            let shown = table::render(&found, Some(COMMANDS));
            let finished = found.iter().filter(|row| row["state"] == "finished").count();
            return match over {
                true if finished == found.len() => Ok(shown),
                true => bail!("{} of {} commands are not finished:\n{shown}", found.len() - finished, found.len()),
                false if wait_s == 0 => Ok(shown),
                false => bail!("not over after {wait_s} s; `radarflow jobs commands` says how it goes:\n{shown}"),
            };
        }
    }
}

async fn preview(at: &At, profile: &str, file: Option<&Path>, runs: usize) -> Result<String> {
    let mut body = json!({"name": profile, "runs": runs});
    if let Some(file) = file {
        let stated = resources::read(file)?;
        let is = |(kind, name, _): &&(&str, String, _)| *kind == Table::Profile.name() && name == profile;
        let Some((_, _, fields)) = stated.iter().find(is) else {
            bail!("{}: there is no profile {profile} in it", file.display());
        };
        body["profile"] = Value::Object(fields.clone());
    }
    let path = ["api", "profiles", "preview"];
    let answer = api::answer(at, api::request(at, Method::POST, &path)?.json(&body)).await?;
    let list = |value: &Value| {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.collect::<Vec<_>>().join(", ")
    };
    let mut out = match &answer["next"] {
        Value::Array(next) if next.is_empty() => "It is never due.\n".to_owned(),
        next => format!("Due next: {}\n", list(next)),
    };
    for partition in answer["partitions"].as_array().into_iter().flatten() {
        let name = partition["partition"].as_str().unwrap_or_default();
        let _ = writeln!(out, "\n{name}: {} targets", partition["targets"]);
        for (what, of) in [("new", &partition["new"]), ("gone", &partition["gone"])] {
            if of.as_array().is_some_and(|of| !of.is_empty()) {
                let _ = writeln!(out, "  {what}: {}", list(of));
            }
        }
        let agents = partition["agents"].as_array().cloned().unwrap_or_default();
        if !agents.is_empty() {
            let _ = writeln!(out, "{}", table::render(&agents, Some(&["agent_id", "targets", "problem"])));
        }
    }
    Ok(out.trim_end().to_owned())
}

fn explained(answer: &Value) -> String {
    let mut out = String::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for found in answer["found"].as_array().into_iter().flatten() {
        let is = if found["is_member"] == true { "is" } else { "is not" };
        let (target, partition, because) = (text(&found["target"]), text(&found["partition"]), text(&found["because"]));
        let _ = writeln!(out, "{target} in {partition} {is} a target: {because}.");
        if let Some(next) = found["next"].as_str() {
            let _ = writeln!(out, "It is looked at next at {next}.");
        }
        let agents = found["agents"].as_array().cloned().unwrap_or_default();
        if !agents.is_empty() {
            let _ = writeln!(out, "{}", table::render(&agents, Some(&["agent_id", "looks", "because", "job"])));
        }
    }
    out.trim_end().to_owned()
}

/// Takes a step of a profile.
async fn act(at: &At, profile: &str, action: &str, said: &Value, reason: &str, key: Option<&str>) -> Result<Value> {
    let attributes: Map<String, Value> =
        said.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let body = json!({"data": {"type": "profiles", "attributes": attributes}, "meta": {"reason": reason}});
    let path = ["api", "v2", "profiles", profile, "actions", action];
    let mut request = resources::document_of(at, Method::POST, &path, &body)?;
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    api::answer(at, request).await
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn of(entity: &str, profile: Option<&str>, rest: &str) -> String {
    let profile = profile.map(|profile| format!(" profile:{}", quoted(profile))).unwrap_or_default();
    format!("in:{entity}{profile} {rest}")
}

fn of_run(run_id: &str) -> String {
    format!("in:commands run_id:{} limit:1000", quoted(run_id))
}

async fn rows(at: &At, query: &str) -> Result<Vec<Value>> {
    let request = api::request(at, Method::POST, &["api", "query"])?.json(&json!({"query": query}));
    let mut answer = api::answer(at, request).await?;
    Ok(answer["results"].as_array_mut().map(std::mem::take).unwrap_or_default())
}
