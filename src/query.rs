//! Questions on the command line: a table on a terminal, the bytes of the answer as they come elsewhere.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use radarflow_query::srql::parse::parse;
use radarflow_query::tables::{catalog, shown};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{At, Output};
use crate::{api, caret, table};

/// Asks; tells with which code to leave.
pub(crate) async fn query(text: &str, sql: bool, format: Option<Output>, all: bool, at: &At) -> Result<ExitCode> {
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
        eprintln!("{}", caret::shown(&problem, text));
        return Ok(ExitCode::from(1));
    }
    let mut out = std::io::stdout().lock();
    let written = if format == Output::Table {
        let brief = if all || sql { None } else { brief(text) };
        page(&mut out, &response.json().await?, brief.as_deref(), all)
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

/// The columns that are shown of what a query asks for, where it names none.
pub(crate) fn brief(text: &str) -> Option<Vec<&'static str>> {
    let query = parse(text).ok()?;
    let ([(name, _)], true) = (&query.entities[..], query.fields.is_empty() && query.stats.is_empty()) else {
        return None;
    };
    let rows = query.bucket.is_none() && query.rollup.is_none() && !query.explain;
    catalog::find(name).filter(|_| rows).map(shown::brief)
}

fn page(out: &mut impl Write, answer: &Value, brief: Option<&[&str]>, all: bool) -> std::io::Result<()> {
    let rows = answer["results"].as_array().cloned().unwrap_or_default();
    let width = table::width();
    match table::fits(&rows, width) {
        false if all => write!(out, "{}", table::records(&rows))?,
        _ => writeln!(out, "{}", table::within(&rows, brief, Some(width)))?,
    }
    let meta = &answer["meta"];
    let more = if meta["truncated"] == true { ", more follow" } else { "" };
    let took = meta["elapsed_ms"].as_f64().unwrap_or(0.0);
    let plural = if rows.len() == 1 { "" } else { "s" };
    let hidden = brief.map_or(0, |brief| table::columns(&rows, None).len() - table::columns(&rows, Some(brief)).len());
    let hidden = if hidden > 0 { format!(", {hidden} more columns with --all") } else { String::new() };
    writeln!(out, "{} row{plural}{more}, {took:.1} ms, epoch {}{hidden}", rows.len(), meta["epoch"])?;
    for warning in meta["warnings"].as_array().into_iter().flatten() {
        eprintln!("note: {}", warning.as_str().unwrap_or_default());
    }
    Ok(())
}
