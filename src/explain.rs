//! Explanations of identity, as a person reads them in a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::Value;

use crate::api;
use crate::cli::At;

/// `radarflow explain`
pub(crate) async fn explain(uid: &str, at: &At, json: bool) -> Result<()> {
    let answer = get(at, &["api", "devices", uid, "explain"]).await?;
    print(&if json { serde_json::to_string_pretty(&answer)? } else { explanation(&answer) })
}

/// `radarflow why-not`
pub(crate) async fn why_not(a: &str, b: &str, at: &At, json: bool) -> Result<()> {
    let answer = get(at, &["api", "devices", a, "why-not", b]).await?;
    print(&if json { serde_json::to_string_pretty(&answer)? } else { apart(&answer) })
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).context("cannot write")
}

async fn get(at: &At, path: &[&str]) -> Result<Value> {
    api::answer(at, api::request(at, Method::GET, path)?).await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn joined(value: &Value) -> String {
    list(value).iter().map(text).collect::<Vec<_>>().join(" ")
}

fn instant(us: &Value) -> String {
    radarflow_proto::cell::Time(us.as_i64().unwrap_or_default()).to_string()
}

fn explanation(a: &Value) -> String {
    let mut out = String::new();
    let line = |out: &mut String, text: String| {
        let _ = writeln!(out, "{text}");
    };
    let named = a["named_by"].as_str().map(|by| format!(", named by {by}")).unwrap_or_default();
    line(&mut out, format!("{} {}", text(&a["uid"]), text(&a["display_name"])));
    line(
        &mut out,
        format!("partition {}, {}{named}, as of epoch {}", text(&a["partition"]), text(&a["lifecycle"]), a["epoch"]),
    );
    line(&mut out, format!("\n{} records", list(&a["records"]).len()));
    for r in list(&a["records"]) {
        let host = r["hostname"].as_str().map(|h| format!("  {h}")).unwrap_or_default();
        line(
            &mut out,
            format!("  {}{host}  {}  by {}", text(&r["record"]), instant(&r["event_time_us"]), text(&r["how"])),
        );
        for (what, key) in [("identifiers", "identifiers"), ("MACs", "macs"), ("addresses", "addresses")] {
            let said = joined(&r[key]);
            if !said.is_empty() {
                line(&mut out, format!("    {what}: {said}"));
            }
        }
    }
    if !list(&a["links"]).is_empty() {
        line(&mut out, "\njoined by".to_owned());
    }
    for l in list(&a["links"]) {
        let between = list(&l["between"]).iter().map(text).collect::<Vec<_>>().join(" and ");
        line(&mut out, format!("  {}: {between}: {}", text(&l["rule"]), text(&l["witness"])));
    }
    let idle: Vec<&Value> = list(&a["edges"]).iter().filter(|e| e["in_force"] == false).collect();
    if !idle.is_empty() {
        line(&mut out, "\nasserted, to no effect".to_owned());
    }
    for e in idle {
        line(&mut out, format!("  {} by {}: {}", text(&e["asserts"]), text(&e["record"]), text(&e["why_not"])));
    }
    for d in list(&a["dropped"]) {
        line(&mut out, format!("\n{} is {}; it is asserted by", text(&d["identifier"]), text(&d["state"])));
        for by in list(&d["asserted_by"]) {
            line(&mut out, format!("  {} of {}", text(&by[0]), text(&by[1])));
        }
    }
    if !list(&a["addresses"]).is_empty() {
        line(&mut out, "\naddresses".to_owned());
    }
    for o in list(&a["addresses"]) {
        line(&mut out, format!("  {} as {} since {}", text(&o["ip"]), text(&o["class"]), text(&o["valid_from"])));
        for c in list(&o["claimed_by"]) {
            line(
                &mut out,
                format!("    claimed by {} of {} at {}", text(&c["record"]), text(&c["uid"]), text(&c["event_time"])),
            );
        }
    }
    if !list(&a["redirects"]).is_empty() {
        line(&mut out, "\nother names that lead here".to_owned());
    }
    for r in list(&a["redirects"]) {
        line(&mut out, format!("  {} ({})", text(&r["from_uid"]), text(&r["identifier"])));
    }
    out
}

fn apart(a: &Value) -> String {
    let mut out = String::new();
    let shown = |d: &Value| format!("{} {}", text(&d["uid"]), text(&d["display_name"]));
    let _ = writeln!(out, "{}\n{}\n\nkept apart, as of epoch {}, by", shown(&a["a"]), shown(&a["b"]), a["epoch"]);
    for r in list(&a["kept_apart_by"]) {
        let _ = writeln!(out, "  {}: {}", text(&r["rule"]), text(&r["says"]));
    }
    if !list(&a["evidence"]).is_empty() {
        let _ = writeln!(out, "\nin common");
    }
    for r in list(&a["evidence"]) {
        let _ = writeln!(out, "  {}: {}", text(&r["rule"]), text(&r["says"]));
    }
    out
}
