//! Questions on the command line: a table on a terminal, the bytes of the answer as they come elsewhere.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{At, Output};
use crate::{api, table};

/// Asks; tells with which code to leave.
pub(crate) async fn query(text: &str, sql: bool, format: Option<Output>, at: &At) -> Result<ExitCode> {
    let format = format.unwrap_or(if std::io::stdout().is_terminal() { Output::Table } else { Output::Ndjson });
    let wire = match format {
        Output::Table | Output::Json => "json",
        Output::Ndjson => "ndjson",
        Output::Csv => "csv",
        Output::Parquet => "parquet",
        Output::Arrow => "arrow",
    };
    let (path, key) = if sql { ("sql", "sql") } else { ("query", "query") };
    let request = api::request(at, Method::POST, &["api", path])?.json(&json!({key: text, "format": wire}));
    let mut response = api::send(at, request).await?;
    if !response.status().is_success() {
        let problem: Value = response.json().await.unwrap_or_default();
        eprintln!("{}", problem["detail"].as_str().unwrap_or("the server refused"));
        if let Some(column) = problem["column"].as_u64().filter(|_| problem["line"] == 1) {
            let width = problem["token"].as_str().map_or(1, |t| t.chars().count().max(1));
            eprintln!("  {text}\n  {}{}", " ".repeat(column as usize - 1), "^".repeat(width));
        }
        return Ok(ExitCode::from(1));
    }
    let mut out = std::io::stdout().lock();
    let written = if format == Output::Table {
        page(&mut out, &response.json().await?)
    } else {
        loop {
            let Some(part) = response.chunk().await.context("the answer broke off; what was printed is not all")?
            else {
                break out.flush();
            };
            if let Err(error) = out.write_all(&part) {
                break Err(error);
            }
        }
    };
    written?;
    Ok(ExitCode::SUCCESS)
}

fn page(out: &mut impl Write, answer: &Value) -> std::io::Result<()> {
    let rows = answer["results"].as_array().cloned().unwrap_or_default();
    writeln!(out, "{}", table::render(&rows))?;
    let meta = &answer["meta"];
    let more = if meta["truncated"] == true { ", more follow" } else { "" };
    let took = meta["elapsed_ms"].as_f64().unwrap_or(0.0);
    let plural = if rows.len() == 1 { "" } else { "s" };
    writeln!(out, "{} row{plural}{more}, {took:.1} ms, epoch {}", rows.len(), meta["epoch"])?;
    for warning in meta["warnings"].as_array().into_iter().flatten() {
        eprintln!("note: {}", warning.as_str().unwrap_or_default());
    }
    Ok(())
}
