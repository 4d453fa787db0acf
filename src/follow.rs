//! A live query in a terminal: the rows there are, then each that comes (`+`) and goes (`-`).

use std::io::Write as _;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::Value;

use crate::api;
use crate::caret;
use crate::cli::At;
use crate::query;
use crate::table;

/// Follows a query until the server ends it; as NDJSON, an event a line, where no person reads.
pub(crate) async fn follow(srql: &str, at: &At, ndjson: bool) -> Result<()> {
    let request = api::asked(at, Method::GET, &["api", "query", "stream"], &[("q", srql)])?;
    let mut response = api::send(at, request).await?;
    if !response.status().is_success() {
        let problem: Value = response.json().await.unwrap_or_default();
        bail!("{}", caret::shown(&problem, srql));
    }
    let columns = query::brief(srql);
    let mut waiting = Vec::new();
    let mut name = String::new();
    while let Some(chunk) = response.chunk().await.context("the server broke off")? {
        waiting.extend_from_slice(&chunk);
        while let Some(end) = waiting.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if let Some(said) = line.strip_prefix("event:") {
                said.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data:") {
                let data: Value = serde_json::from_str(data.trim()).context("the server sends no JSON")?;
                if name == "error" {
                    bail!("{}", data["detail"].as_str().unwrap_or("the query cannot go on"));
                }
                if name == "end" {
                    // Where it is not the server that ends, it says why.
                    return data["detail"].as_str().map_or(Ok(()), |detail| bail!("{detail}"));
                }
                show(&name, &data, ndjson, columns.as_deref())?;
            }
        }
    }
    bail!("the server broke off")
}

fn show(name: &str, data: &Value, ndjson: bool, columns: Option<&[&str]>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if ndjson {
        let mut event = data.clone();
        event["event"] = name.into();
        writeln!(out, "{event}")?;
        return Ok(out.flush()?);
    }
    let rows = |key: &str| data[key].as_array().cloned().unwrap_or_default();
    match name {
        "snapshot" => {
            writeln!(out, "{}", table::render(&rows("rows"), columns))?;
            if data["last"] == true {
                writeln!(out, "as of epoch {}; changes follow", data["epoch"])?;
            }
        }
        "change" => {
            for (sign, key) in [("-", "removed"), ("+", "added")] {
                for row in rows(key) {
                    writeln!(out, "{sign} {}", brief(&row))?;
                }
            }
        }
        _ => {}
    }
    Ok(out.flush()?)
}

/// A row in one line, without what it lacks.
fn brief(row: &Value) -> String {
    let fields = row.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let shown = fields.map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    shown.collect::<Vec<_>>().join("  ")
}
