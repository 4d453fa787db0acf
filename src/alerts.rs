//! `radarflow alerts`, `silence`, `receivers`, `alertmanager`: what operators do with alerts, by the command line.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use radarflow_proto::cell::Time;
use radarflow_reconcile::routing::import;
use radarflow_reconcile::routing::times::duration_ms;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::At;
use crate::resources::document_of;
use crate::{api, table};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Shape {
    Table,
    Json,
}

#[derive(Args)]
pub(crate) struct Printed {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Shape::Table)]
    output: Shape,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
pub(crate) struct Stepped {
    /// The alerts.
    #[arg(required = true)]
    ids: Vec<String>,
    /// Why; for their history.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    printed: Printed,
}

#[derive(Subcommand)]
pub(crate) enum AlertsCommand {
    /// List alerts: those that are not resolved, unless something else is said.
    #[command(
        after_help = "Examples:\n  radarflow alerts list\n  radarflow alerts list --filter 'severity:critical rule:device-offline'\n  \
        radarflow alerts list --all -o json"
    )]
    List {
        /// Only those of which this holds, in terms of the query language.
        #[arg(long, default_value = "")]
        filter: String,
        /// Resolved ones, too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        printed: Printed,
    },
    /// Show an alert.
    Show {
        id: String,
        #[command(flatten)]
        printed: Printed,
    },
    /// Say that somebody takes alerts: they are not told again, but for their end.
    Ack(Stepped),
    /// Say that alerts are over.
    Resolve(Stepped),
    /// Say that alerts are not wanted: nobody is told of them, for a time or as long as their conditions hold.
    Suppress {
        /// For how long: `30m`, `2h`.
        #[arg(long = "for", value_name = "TIME")]
        long: Option<String>,
        #[command(flatten)]
        stepped: Stepped,
    },
    /// Say that alerts wait again.
    Reopen(Stepped),
    /// Say something about alerts; they stay where they are.
    Comment(Stepped),
    /// Say who is told of an alert and who is not, and why.
    Explain {
        id: String,
        #[command(flatten)]
        printed: Printed,
    },
}

#[derive(Subcommand)]
pub(crate) enum SilenceCommand {
    /// Hide alerts for a time.
    #[command(
        after_help = "Examples:\n  radarflow silence add 'partition=berlin' --for 2h --comment 'new switches'\n  \
        radarflow silence add 'alertname=~\"link.*\"' 'device=sw-1' --for 1d --comment flaky --preview"
    )]
    Add {
        /// What labels must be, each `name=value`, `!=`, `=~` or `!~`.
        #[arg(required = true)]
        matchers: Vec<String>,
        /// For how long.
        #[arg(long = "for", value_name = "TIME", default_value = "2h")]
        long: String,
        /// When it begins, from now: `1h`.
        #[arg(long = "in", value_name = "TIME", default_value = "0")]
        later: String,
        /// Why.
        #[arg(long)]
        comment: String,
        /// What it is called; a name is made, if none is said.
        #[arg(long)]
        name: Option<String>,
        /// Only say what it would hide now.
        #[arg(long)]
        preview: bool,
        #[command(flatten)]
        printed: Printed,
    },
    /// List silences.
    List {
        #[command(flatten)]
        printed: Printed,
    },
    /// End a silence.
    Expire {
        name: String,
        /// Why; for the audit.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Subcommand)]
pub(crate) enum ReceiversCommand {
    /// Send a receiver again what it did not take.
    #[command(after_help = "Example: radarflow query 'in:dead_letters'\n         radarflow receivers replay ops")]
    Replay {
        name: String,
        /// Why; for the audit.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Subcommand)]
pub(crate) enum AlertmanagerCommand {
    /// Print an Alertmanager's configuration as resources that can be applied; what has no meaning here is told by line.
    #[command(after_help = "Example: radarflow alertmanager convert alertmanager.yml > routing.yaml\n         \
        radarflow apply -f routing.yaml --owner alertmanager")]
    Convert {
        /// The configuration.
        file: PathBuf,
        /// End with an error where something has no meaning here.
        #[arg(long)]
        strict: bool,
    },
}

/// Columns that a list of alerts has in a narrow terminal.
const BRIEF: &[&str] = &["id", "severity", "status", "triggered_at", "title"];

async fn rows(at: &At, query: &str) -> Result<Vec<Value>> {
    let body = json!({"query": query});
    let mut answer = api::answer(at, api::request(at, Method::POST, &["api", "query"])?.json(&body)).await?;
    Ok(answer["results"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// Rows as a table that fits the terminal.
fn listed(rows: &[Value], brief: &[&str]) -> String {
    table::within(rows, Some(brief), Some(table::width()))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl AlertsCommand {
    pub(crate) async fn run(self) -> Result<String> {
        match self {
            AlertsCommand::List { filter, all, printed } => {
                let open = if all { "" } else { "status:!resolved" };
                let filter = if filter.is_empty() { String::new() } else { format!("({filter})") };
                let query = format!("in:alerts {open} {filter} sort:triggered_at:desc limit:500");
                let found = rows(&printed.at, &query).await?;
                Ok(match printed.output {
                    Shape::Json => serde_json::to_string_pretty(&found)?,
                    Shape::Table if found.is_empty() => "no alerts".to_owned(),
                    Shape::Table => listed(&found, BRIEF),
                })
            }
            AlertsCommand::Show { id, printed } => {
                let found = rows(&printed.at, &format!("in:alerts id:{} limit:1", quoted(&id))).await?;
                let Some(alert) = found.first() else { bail!("there is no alert {id}") };
                Ok(match printed.output {
                    Shape::Json => serde_json::to_string_pretty(alert)?,
                    Shape::Table => shown(alert),
                })
            }
            AlertsCommand::Ack(stepped) => stepped.run("acknowledge", None).await,
            AlertsCommand::Resolve(stepped) => stepped.run("resolve", None).await,
            AlertsCommand::Reopen(stepped) => stepped.run("reopen", None).await,
            AlertsCommand::Comment(stepped) => stepped.run("comment", None).await,
            AlertsCommand::Suppress { long, stepped } => {
                let until = long.map(|long| from_now(&long)).transpose()?;
                stepped.run("suppress", until).await
            }
            AlertsCommand::Explain { id, printed } => {
                let path = ["api", "v2", "alerts", &id, "explain"];
                let told = api::answer(&printed.at, api::request(&printed.at, Method::GET, &path)?).await?;
                match printed.output {
                    Shape::Json => Ok(serde_json::to_string_pretty(&told)?),
                    Shape::Table => Ok(explained(&told)),
                }
            }
        }
    }
}

impl Stepped {
    async fn run(self, step: &str, until: Option<String>) -> Result<String> {
        let body = json!({"step": step, "ids": self.ids, "reason": self.reason, "until": until});
        let at = &self.printed.at;
        let told =
            api::answer(at, api::request(at, Method::POST, &["api", "v2", "alerts", "steps"])?.json(&body)).await?;
        if self.printed.output == Shape::Json {
            return Ok(serde_json::to_string_pretty(&told)?);
        }
        let mut out = String::new();
        for id in told["done"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "{}", id.as_str().unwrap_or_default());
        }
        let refused = told["refused"].as_object().cloned().unwrap_or_default();
        if refused.is_empty() {
            return Ok(out.trim_end().to_owned());
        }
        let why: Vec<String> =
            refused.iter().map(|(id, why)| format!("{id}: {}", why.as_str().unwrap_or(""))).collect();
        bail!("{out}{}", why.join("\n"))
    }
}

/// An instant so long from now.
fn from_now(long: &str) -> Result<String> {
    let ms = duration_ms(long).map_err(anyhow::Error::msg)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    Ok(Time::from_ms(now_ms.saturating_add(ms)).to_string())
}

/// Text in lines of at most so many characters; a word that is longer is broken.
fn wrapped(text: &str, indent: &str, out: &mut String) {
    const WIDTH: usize = 80;
    let mut line = String::from(indent);
    let mut rest: Vec<String> = text.split_whitespace().rev().map(str::to_owned).collect();
    while let Some(word) = rest.pop() {
        let room = WIDTH.saturating_sub(line.chars().count());
        let long = word.chars().count();
        if long <= room {
            line.push_str(&word);
            line.push(' ');
            continue;
        }
        if long > WIDTH / 2 && room > WIDTH / 4 {
            let at = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
            line.push_str(&word[..at]);
            rest.push(word[at..].to_owned());
        } else {
            rest.push(word);
        }
        let _ = writeln!(out, "{}", line.trim_end());
        line = format!("{indent}  ");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// A row as text: what it says, a line each.
fn shown(row: &Value) -> String {
    let mut out = String::new();
    for (name, value) in row.as_object().into_iter().flatten() {
        let said = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if !value.is_null() && !said.is_empty() {
            wrapped(&format!("{name}: {said}"), "", &mut out);
        }
    }
    out.trim_end().to_owned()
}

/// An explanation as text.
fn explained(told: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alert = &told["alert"];
    let mut out = String::new();
    wrapped(&format!("{}  {}", text(&alert["id"]), text(&alert["title"])), "", &mut out);
    let since =
        format!("{} {} since {}", text(&alert["severity"]), text(&alert["status"]), text(&alert["triggered_at"]));
    wrapped(&since, "  ", &mut out);
    wrapped(&format!("{}.", text(&told["summary"])), "  ", &mut out);
    for row in told["receivers"].as_array().into_iter().flatten() {
        let _ = writeln!(out);
        let until = row["until"].as_str().map(|until| format!(", until {until}")).unwrap_or_default();
        let state = format!("{}: {}, {}{until}", text(&row["receiver"]), text(&row["state"]), text(&row["reason"]));
        wrapped(&state, "", &mut out);
        if !text(&row["route"]).is_empty() {
            wrapped(&format!("by route {}", text(&row["route"])), "  ", &mut out);
        }
        wrapped(&format!("group {}", text(&row["group_key"])), "  ", &mut out);
        if let Some(said) = row["told"].as_str() {
            wrapped(&format!("told {said} at {}", text(&row["told_at"])), "  ", &mut out);
        }
    }
    let histories = [
        ("Messages", "notifications", ["receiver", "outcome", "status", "reason"]),
        ("History", "history", ["old_status", "new_status", "actor", "reason"]),
    ];
    for (title, name, columns) in histories {
        let rows = told[name].as_array().cloned().unwrap_or_default();
        if !rows.is_empty() {
            let _ = writeln!(out, "\n{title}, the newest first");
        }
        for row in rows {
            let said: Vec<String> = columns.iter().map(|c| text(&row[*c])).filter(|said| !said.is_empty()).collect();
            wrapped(&format!("{}  {}", text(&row["time"]), said.join(", ")), "  ", &mut out);
        }
    }
    out.trim_end().to_owned()
}

impl SilenceCommand {
    pub(crate) async fn run(self) -> Result<String> {
        match self {
            SilenceCommand::Add { matchers, long, later, comment, name, preview, printed } => {
                let at = &printed.at;
                let body = json!({"matchers": matchers});
                let request = api::request(at, Method::POST, &["api", "v2", "silence-preview"])?.json(&body);
                let hidden = api::answer(at, request).await?;
                if preview {
                    if printed.output == Shape::Json {
                        return Ok(serde_json::to_string_pretty(&hidden)?);
                    }
                    let found = hidden["alerts"].as_array().cloned().unwrap_or_default();
                    let list = if found.is_empty() {
                        String::new()
                    } else {
                        format!("\n{}", listed(&found, &["id", "severity", "status", "title"]))
                    };
                    return Ok(format!("it would hide {} alerts now{list}", hidden["count"]));
                }
                let starts = duration_ms(&later).map_err(anyhow::Error::msg)?;
                let long = duration_ms(&long).map_err(anyhow::Error::msg)?;
                let ends = from_now(&format!("{}ms", starts.saturating_add(long)))?;
                let starts = if starts > 0 { Some(from_now(&format!("{starts}ms"))?) } else { None };
                let id = name.unwrap_or_else(|| format!("s-{}", hex::encode(rand::random::<[u8; 4]>())));
                let attributes =
                    json!({"matchers": matchers, "starts_at": starts, "ends_at": ends, "comment": comment});
                let body = json!({"data": {"type": "silences", "id": id, "attributes": attributes}});
                let request = document_of(at, Method::POST, &["api", "v2", "silences"], &body)?;
                let made = api::answer(at, request).await?;
                Ok(match printed.output {
                    Shape::Json => serde_json::to_string_pretty(&made)?,
                    Shape::Table => format!("{id} until {ends}; it hides {} alerts now", hidden["count"]),
                })
            }
            SilenceCommand::List { printed } => {
                let found = rows(&printed.at, "in:silences sort:ends_at:asc limit:1000").await?;
                Ok(match printed.output {
                    Shape::Json => serde_json::to_string_pretty(&found)?,
                    Shape::Table if found.is_empty() => "no silences".to_owned(),
                    Shape::Table => listed(&found, &["name", "matchers", "ends_at", "created_by", "comment"]),
                })
            }
            SilenceCommand::Expire { name, reason, at } => {
                let body = json!({"meta": {"reason": reason}});
                let request = document_of(&at, Method::DELETE, &["api", "v2", "silences", &name], &body)?;
                api::answer(&at, request).await?;
                Ok(format!("{name} is over"))
            }
        }
    }
}

impl ReceiversCommand {
    pub(crate) async fn run(self) -> Result<String> {
        let ReceiversCommand::Replay { name, reason, at } = self;
        let path = ["api", "v2", "receivers", &name, "replay"];
        let request = api::request(&at, Method::POST, &path)?.json(&json!({"reason": reason}));
        let told = api::answer(&at, request).await?;
        Ok(format!("{} messages are sent to {name} again", told["replayed"]))
    }
}

impl AlertmanagerCommand {
    pub(crate) fn run(self) -> Result<String> {
        let AlertmanagerCommand::Convert { file, strict } = self;
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| name.clone())?;
        let read = import::read(&text).map_err(|wrong| anyhow::anyhow!("{name}: {wrong}"))?;
        for remark in &read.unsupported {
            eprintln!("{name}: {remark}");
        }
        if strict && !read.unsupported.is_empty() {
            bail!("{name}: {} things have no meaning here", read.unsupported.len());
        }
        crate::resources::written(&read.resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_fits_a_terminal() {
        let row = json!({"receiver": "ops", "route": "root/root.1/root.1.2", "state": "held", "until": "2026-01-05T12:00:00Z",
            "reason": "silenced by night-work-on-the-switches-of-berlin of somebody.with.a.long.name@example.net",
            "group_key": "{}/{severity=\"critical\",site=~\"berlin|paris\"}:{alertname=\"device-offline\"}",
            "told": "firing", "told_at": "2026-01-05T11:00:00Z"});
        let told = json!({
            "alert": {"id": "0011223344556677-1767614370000", "title": "a rather long name of a device is offline since noon",
                "severity": "critical", "status": "pending", "triggered_at": "2026-01-05T11:00:00Z"},
            "summary": "groups that it is told in: 1; of these it is held in 1 now",
            "receivers": [row],
            "notifications": [{"time": "2026-01-05T11:00:00Z", "receiver": "ops", "outcome": "delivered", "status": "firing",
                "reason": "200 OK"}],
            "history": [],
        });
        let text = explained(&told);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("until 2026-01-05T12:00:00Z") && text.contains("ops, delivered, firing"), "{text}");
    }
}
