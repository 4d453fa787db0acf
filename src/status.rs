//! `radarflow status`: how a server is, on one page: whether it is ready, how far its sinks are, what its sources got, what it
//! says is wrong with itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use radarflow_connectors::http;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::At;
use crate::watch;
use crate::{api, table};

/// How long the server may take to say something.
const WAIT: Duration = Duration::from_secs(10);
/// Epochs that a sink may be behind and nobody need look: as many as pass between two commits of the lake.
const LAG: f64 = 6000.0;

/// What a server measures.
#[derive(Debug, Default, PartialEq)]
struct Measured(Vec<(String, BTreeMap<String, String>, f64)>);

impl Measured {
    /// Reads OpenMetrics, as far as our own use it.
    fn read(text: &str) -> Measured {
        let line = |line: &str| {
            let (head, value) = line.rsplit_once(' ')?;
            let (name, labels) = head.split_once('{').unwrap_or((head, ""));
            let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
                let (name, value) = label.split_once("=\"")?;
                Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
            });
            let name = name.strip_prefix("radarflow_")?;
            Some((name.to_owned(), labels.collect(), value.parse().ok()?))
        };
        Measured(text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect())
    }

    fn get(&self, name: &str) -> f64 {
        self.of(name).map(|(_, value)| value).next().unwrap_or_default()
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> + 'a {
        self.0.iter().filter(move |(of, ..)| of == name).map(|(_, labels, value)| (labels, *value))
    }

    fn labelled(&self, name: &str, label: &str, is: &str) -> f64 {
        let found = self.of(name).find(|(labels, _)| labels.get(label).is_some_and(|value| value == is));
        found.map(|(_, value)| value).unwrap_or_default()
    }
}

/// Says how it is; fails where somebody should look.
pub(crate) async fn status(at: &At, json: bool) -> Result<(String, ExitCode)> {
    let client = http::client(|client| client.timeout(WAIT))?;
    let base = at.url.trim_end_matches('/');
    let get = async |path: &str| {
        let answer = client.get(format!("{base}{path}")).send().await;
        answer.with_context(|| format!("cannot reach {}; is the server running?", at.url))
    };
    let ready = get("/readyz").await?;
    let (is_ready, why) = (ready.status().is_success(), ready.text().await.unwrap_or_default());
    let why =
        serde_json::from_str::<Value>(&why).ok().and_then(|p| Some(p["detail"].as_str()?.to_owned())).unwrap_or(why);
    let measured = Measured::read(&get("/metrics").await?.text().await?);
    let alerts = alerts(at).await;
    let page = Page { url: base, is_ready, why: why.trim(), measured: &measured, alerts: &alerts };
    let code = if page.is_well() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    let text = if json { serde_json::to_string_pretty(&page.json())? } else { page.text() };
    Ok((text.trim_end().to_owned(), code))
}

/// What it says is wrong with itself; or why that cannot be asked.
async fn alerts(at: &At) -> Result<Vec<Value>, String> {
    let query = format!("in:alerts rule:({}) !status:resolved limit:100", watch::RULES.join(","));
    let asked = async {
        let request = api::request(at, Method::POST, &["api", "query"])?.timeout(WAIT).json(&json!({"query": query}));
        let answer = api::answer(at, request).await?;
        Ok::<_, anyhow::Error>(answer["results"].as_array().cloned().unwrap_or_default())
    };
    asked.await.map_err(|error| format!("{error:#}"))
}

struct Page<'a> {
    url: &'a str,
    is_ready: bool,
    why: &'a str,
    measured: &'a Measured,
    alerts: &'a Result<Vec<Value>, String>,
}

impl Page<'_> {
    fn sinks(&self) -> Vec<(String, bool, f64)> {
        let of = |(labels, lag): (&BTreeMap<String, String>, f64)| {
            let sink = labels.get("sink").cloned().unwrap_or_default();
            let up = self.measured.labelled("sink_up", "sink", &sink) > 0.0;
            (sink, up, lag)
        };
        self.measured.of("sink_lag_epochs").map(of).collect()
    }

    /// Whether nobody need look.
    fn is_well(&self) -> bool {
        let sinks = self.sinks().iter().all(|(_, up, lag)| *up && *lag < LAG);
        self.is_ready && sinks && self.alerts.as_ref().is_ok_and(Vec::is_empty)
    }

    fn sources(&self) -> Vec<Value> {
        let of = |(labels, received): (&BTreeMap<String, String>, f64)| {
            let count = |name: &str| {
                let mut all = self.measured.of(name);
                all.find(|(of, _)| *of == labels).map(|(_, value)| value as i64).unwrap_or_default()
            };
            json!({"tenant": labels.get("tenant"), "source": labels.get("source"), "received": received as i64,
                "stored": count("source_stored_total"), "rejected": count("source_rejected_total"),
                "shed": count("source_shed_total"), "lost": count("source_lost_total")})
        };
        self.measured.of("source_received_total").map(of).collect()
    }

    fn json(&self) -> Value {
        let m = self.measured;
        let sinks =
            self.sinks().into_iter().map(|(sink, up, lag)| json!({"sink": sink, "up": up, "lag_epochs": lag as i64}));
        let version = m.of("build_info").map(|(labels, _)| labels.clone()).next().unwrap_or_default();
        json!({"url": self.url, "ready": self.is_ready, "why": if self.is_ready { "" } else { self.why },
            "well": self.is_well(), "build": version, "durable_epoch": m.get("ledger_epoch") as i64,
            "complete_epoch": m.get("dataflow_epoch") as i64, "sinks": sinks.collect::<Vec<_>>(),
            "sources": self.sources(), "alerts": self.alerts.as_ref().ok()})
    }

    fn text(&self) -> String {
        let m = self.measured;
        let mut out = String::new();
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "{name:<9} {text}");
        };
        let build = m.of("build_info").map(|(labels, _)| labels.clone()).next().unwrap_or_default();
        let of = |label: &str| build.get(label).cloned().unwrap_or_default();
        line("server", format!("{}, radarflow {} ({})", self.url, of("version"), of("commit")));
        line("ready", if self.is_ready { "yes".to_owned() } else { format!("no: {}", self.why) });
        let (durable, complete) = (m.get("ledger_epoch"), m.get("dataflow_epoch"));
        line("epoch", format!("{durable} durable, {complete} computed ({} behind)", (durable - complete).max(0.0)));
        let mib = |bytes: f64| (bytes / 1048576.0).round();
        let memory =
            format!("{} of {} MiB", mib(m.get("process_resident_memory_bytes")), mib(m.get("memory_limit_bytes")));
        line("memory", memory);
        line("ledger", format!("{} MiB", mib(m.get("ledger_bytes"))));
        for (sink, up, lag) in self.sinks() {
            let state = if up { "up" } else { "DOWN" };
            line("sink", format!("{sink}: {state}, {lag} epochs to commit"));
        }
        match self.alerts {
            Ok(alerts) if alerts.is_empty() => line("alerts", "none about the server itself".to_owned()),
            Ok(alerts) => {
                for alert in alerts {
                    let text = |field: &str| alert[field].as_str().unwrap_or_default().to_owned();
                    line("ALERT", format!("{}: {}", text("severity"), text("title")));
                    line("", text("description"));
                }
            }
            Err(why) => line("alerts", format!("unknown: {why}")),
        }
        let sources = self.sources();
        if !sources.is_empty() {
            let columns = ["tenant", "source", "received", "stored", "rejected", "shed", "lost"];
            let _ = write!(out, "{}", table::render(&sources, Some(&columns)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP radarflow_ledger_epoch Newest.\n# TYPE radarflow_ledger_epoch gauge\nradarflow_ledger_epoch 12\n\
        radarflow_dataflow_epoch 10\nradarflow_sink_up{sink=\"lake\"} 1\nradarflow_sink_up{sink=\"postgres\"} 0\n\
        radarflow_sink_lag_epochs{sink=\"lake\"} 2\nradarflow_sink_lag_epochs{sink=\"postgres\"} 9\n\
        radarflow_build_info{version=\"0.1.0\",commit=\"abc\"} 1\n\
        radarflow_source_received_total{tenant=\"t\",source=\"syslog, odd\"} 5\n\
        radarflow_source_stored_total{tenant=\"t\",source=\"syslog, odd\"} 4\n# EOF\n";

    #[test]
    fn a_page_says_how_it_is() {
        let measured = Measured::read(TEXT);
        let alerts = Ok(Vec::new());
        let page = Page { url: "http://x", is_ready: true, why: "", measured: &measured, alerts: &alerts };
        let text = page.text();
        for said in ["radarflow 0.1.0 (abc)", "12 durable, 10 computed (2 behind)", "postgres: DOWN", "syslog, odd"] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!page.is_well(), "a sink is down");
        assert_eq!(page.json()["sources"][0]["stored"], 4);
    }

    #[test]
    fn nothing_is_well_that_nobody_can_ask() {
        let measured = Measured::read(&TEXT.replace("\"postgres\"} 0", "\"postgres\"} 1"));
        let (none, unknown) = (Ok(Vec::new()), Err("no token".to_owned()));
        let page = |is_ready, alerts| Page { url: "u", is_ready, why: "w", measured: &measured, alerts };
        assert!(page(true, &none).is_well());
        assert!(!page(false, &none).is_well() && !page(true, &unknown).is_well());
    }
}
