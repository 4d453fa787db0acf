//! What identity would make of something else, as a person reads it in a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api;
use crate::cli::At;

/// What is supposed.
#[derive(clap::Args)]
pub(crate) struct Suppose {
    /// These two were one device: uids, or identifiers as `armis:42`, `mac:0C…`, `netbox@emea:7`.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    must: Vec<String>,
    /// These two were two devices.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    cannot: Vec<String>,
    /// This link were taken back.
    #[arg(long, value_name = "LINK")]
    unlink: Vec<String>,
    /// An address alone linked so: corroborated, immediate or off.
    #[arg(long)]
    policy: Option<String>,
    /// This record of this device were gone: `kind/instance/key`.
    #[arg(long, num_args = 2, value_names = ["DEVICE", "RECORD"])]
    gone: Vec<String>,
    /// Site.
    #[arg(long, default_value = "default")]
    partition: String,
}

fn end(text: &str) -> Result<Value> {
    if text.starts_with("sr:") {
        return Ok(json!({"uid": text}));
    }
    let Some((kind, value)) = text.split_once(':') else {
        bail!("{text:?} is neither a uid (sr:…) nor an identifier (type:value)");
    };
    let (kind, instance) = kind.split_once('@').unwrap_or((kind, ""));
    Ok(json!({"type": kind, "source_instance": instance, "value": value}))
}

impl Suppose {
    fn changes(&self) -> Result<Vec<Value>> {
        let mut changes = Vec::new();
        for (kind, ends) in [("must", &self.must), ("cannot", &self.cannot)] {
            for pair in ends.chunks(2) {
                let [a, b] = pair else { bail!("--{kind} takes two") };
                changes.push(json!({"link": {"kind": kind, "a": end(a)?, "b": end(b)?}}));
            }
        }
        changes.extend(self.unlink.iter().map(|id| json!({"unlink": {"id": id}})));
        changes.extend(self.policy.iter().map(|policy| json!({"policy": policy})));
        for pair in self.gone.chunks(2) {
            let [device, record] = pair else { bail!("--gone takes a device and its record") };
            changes.push(json!({"gone": {"device": device, "record": record}}));
        }
        if changes.is_empty() {
            bail!("nothing is supposed; try --must, --cannot, --unlink, --policy or --gone");
        }
        Ok(changes)
    }
}

/// `radarflow what-if`
pub(crate) async fn what_if(suppose: &Suppose, at: &At, json: bool) -> Result<()> {
    let question = json!({"partition": suppose.partition, "changes": suppose.changes()?});
    let request = api::request(at, Method::POST, &["api", "identity", "what-if"])?.json(&question);
    let answer = api::answer(at, request).await?;
    let text = if json { serde_json::to_string_pretty(&answer)? } else { shown(&answer) };
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).context("cannot write")
}

fn shown(answer: &Value) -> String {
    let mut out = String::new();
    let list = |of: &str| answer[of].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or("nothing").to_owned();
    let all = |v: &Value| v.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    for m in list("merged") {
        line(format!("merged   {} would be one: {}", all(&m["of"]), text(&m["into"])));
    }
    for s in list("split") {
        line(format!("split    {} would be {}", text(&s["of"]), all(&s["into"])));
    }
    for r in list("renamed") {
        line(format!("renamed  {} would be {}", text(&r["from"]), text(&r["to"])));
    }
    for uid in list("gone") {
        line(format!("gone     {}", text(&uid)));
    }
    for m in list("moved") {
        let by = m["by"].as_str().map(|by| format!(", by {by}")).unwrap_or_default();
        line(format!("  {}: {} → {}{by}", text(&m["record"]), text(&m["from"]), text(&m["to"])));
    }
    for id in list("unknown") {
        line(format!("unknown  no record says {}; is it spelt as its source spells it?", text(&id)));
    }
    let looked_at = answer["records_looked_at"].as_u64().unwrap_or_default();
    if list("moved").is_empty() && list("renamed").is_empty() {
        line("nothing would change".to_owned());
    }
    line(format!("{looked_at} records were looked at, as of epoch {}", answer["epoch"]));
    out
}
