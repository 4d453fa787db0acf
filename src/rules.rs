//! `radarflow rules`: rules tried on the past, and rules of other systems as ours.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use radarflow_proto::rows::Table;
use radarflow_reconcile::resources::named;
use radarflow_reconcile::rules::foreign;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::At;
use crate::{api, resources, routing, table};

/// What is done with rules. They are stated with `radarflow apply`, and read with `radarflow get rules`.
#[derive(Subcommand)]
pub(crate) enum RulesCommand {
    /// Say when the rules of a file would have held, had they stood, and who would have been told how often: over the rows in memory
    /// and in the lake. Nothing is applied, nobody is told.
    #[command(after_help = "Example: radarflow rules test rules.yaml --since 7d")]
    Test {
        /// A file or folder of resources, as `radarflow apply` takes them: rules, and routes and silences to try them with.
        file: PathBuf,
        /// How far back.
        #[arg(long, default_value = "24h")]
        since: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Write rules of ServiceRadar, or a rule file in the form of Prometheus, as rules that `radarflow apply` takes.
    #[command(after_help = "Example: radarflow rules convert stateful_rules.yaml > rules.yaml")]
    Convert {
        /// The file: YAML or JSON.
        file: PathBuf,
    },
}

/// Does it.
pub(crate) async fn run(command: &RulesCommand) -> Result<()> {
    match command {
        RulesCommand::Test { file, since, json, at } => test(file, since, *json, at).await,
        RulesCommand::Convert { file } => convert(file),
    }
}

async fn test(file: &Path, since: &str, as_json: bool, at: &At) -> Result<()> {
    let rules: Vec<_> = resources::read(file)?.into_iter().filter(|(kind, ..)| *kind == Table::Rule.name()).collect();
    if rules.is_empty() {
        bail!("{}: there is no rule in it (kind: rule)", file.display());
    }
    // Who is told is tried with what else the file says.
    let routing = routing::stated(file)?;
    let (mut answers, mut refused) = (Vec::new(), Vec::new());
    for (_, name, fields) in rules {
        let body = json!({"name": name, "rule": fields, "since": since, "resources": routing});
        let request = api::request(at, Method::POST, &["api", "rules", "test"])?.json(&body);
        match api::answer(at, request).await {
            Ok(answer) => answers.push((name, answer)),
            Err(error) => refused.push(format!("{name}: not tried: {error:#}")),
        }
    }
    let none = answers.is_empty();
    let text = if as_json {
        let all: Vec<Value> =
            answers.into_iter().map(|(name, answer)| json!({"rule": name, "tried": answer})).collect();
        serde_json::to_string_pretty(&all)?
    } else {
        shown(&answers)
    };
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).context("cannot write")?;
    refused.iter().try_for_each(|why| remark(why))?;
    match none {
        true => bail!("no rule of {} could be tried", file.display()),
        false => Ok(()),
    }
}

fn shown(answers: &[(String, Value)]) -> String {
    let mut out = String::new();
    for (name, answer) in answers {
        let of = |key: &str| answer[key].as_str().unwrap_or_default();
        let (alerts, rows) = (answer["alerts"].as_u64().unwrap_or(0), answer["rows"].as_u64().unwrap_or(0));
        // Writing to a text does not fail.
        let _ = writeln!(out, "{name}: {alerts} alerts from {} to {}, of {rows} rows", of("from"), of("to"));
        if let Some(refused) = answer["groups_refused"].as_u64().filter(|n| *n > 0) {
            let _ = writeln!(out, "  {refused} times a group found no room and was not counted");
        }
        let found: Vec<Value> = answer["found"].as_array().into_iter().flatten().map(row).collect();
        if !found.is_empty() {
            let _ = writeln!(out, "{}", table::render(&found, Some(&["began", "ended", "title"])));
        }
        let told = answer["told"].get("receivers").and_then(Value::as_array).cloned().unwrap_or_default();
        if !told.is_empty() {
            let _ = writeln!(out, "{}", table::render(&told, Some(&["receiver", "messages", "firing", "alerts"])));
        }
    }
    out
}

fn row(alert: &Value) -> Value {
    let ended = alert["ended"].as_str().unwrap_or("goes on");
    json!({"began": alert["began"], "ended": ended, "title": alert["title"]})
}

fn convert(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (rules, unmapped) =
        foreign::read(&text).map_err(|(line, why)| anyhow::anyhow!("{}:{line}: {why}", file.display()))?;
    for (line, why) in &unmapped {
        remark(&format!("{}:{line}: {why}", file.display()))?;
    }
    let kind = named(Table::Rule.name()).context("there are no rules")?;
    let found: Vec<Value> = rules.into_iter().map(|(name, fields)| json!({"id": name, "attributes": fields})).collect();
    let written = resources::write(kind, &found)?;
    write!(std::io::stdout().lock(), "{written}").context("cannot write")?;
    remark(&format!("{} rules written, {} remarks", found.len(), unmapped.len()))
}

fn remark(text: &str) -> Result<()> {
    writeln!(std::io::stderr().lock(), "{text}").context("cannot write")
}
