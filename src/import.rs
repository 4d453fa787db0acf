//! Pushing an inventory file: read here under its mapping, sent as one item a line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use futures::stream;
use radarflow_reconcile::mapping::{Format, Mapping, Whose, rows};
use serde_json::Value;

use crate::cli::At;
use crate::config;

/// Items of one piece of the request's body.
const PIECE: usize = 1000;

/// What to push.
pub(crate) struct Import {
    pub(crate) file: PathBuf,
    pub(crate) source: String,
    pub(crate) mapping: Option<PathBuf>,
    pub(crate) complete: bool,
    pub(crate) partition: Option<String>,
}

impl Import {
    fn format(&self) -> Result<Format> {
        let extension = self.file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "json" => Ok(Format::Json),
            "ndjson" | "jsonl" => Ok(Format::Lines),
            "csv" | "tsv" => Ok(Format::Csv),
            _ => bail!("{}: the name says none of .json, .ndjson, .jsonl, .csv", self.file.display()),
        }
    }

    /// The file's items as device updates, a line each.
    fn lines(&self, whose: &Whose) -> Result<Vec<String>> {
        let format = self.format()?;
        let body = std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let mapping: Option<Mapping> = self.mapping.as_deref().map(config::mapping).transpose()?;
        let read = || -> Result<Vec<String>> {
            Ok(match &mapping {
                Some(mapping) => {
                    let updates = mapping.document(format, &body, whose)?;
                    updates.iter().map(serde_json::to_string).collect::<Result<_, _>>()?
                }
                None if format == Format::Csv => bail!("what its columns mean is told by --mapping"),
                None => rows(format, &body, None)?.iter().map(Value::to_string).collect(),
            })
        };
        read().with_context(|| self.file.display().to_string())
    }

    /// Pushes it; tells how many items became durable, and in which epoch.
    pub(crate) async fn run(&self, at: &At) -> Result<(u64, u64)> {
        let Some((name, instance)) = self.source.split_once('/').filter(|(n, i)| !n.is_empty() && !i.is_empty()) else {
            bail!("--source is NAME/INSTANCE: armis/main, servicenow/emea");
        };
        let lines = self.lines(&Whose::named(name))?;
        let mut url = reqwest::Url::parse(&at.url).with_context(|| format!("{} is no URL", at.url))?;
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("{} is no URL of a server", at.url))?
            .pop_if_empty()
            .extend(["api", "inventories", name, instance]);
        if self.complete {
            url.query_pairs_mut().append_pair("complete", "true");
        }
        if let Some(partition) = &self.partition {
            url.query_pairs_mut().append_pair("partition", partition);
        }
        let pieces: Vec<Result<String, std::io::Error>> =
            lines.chunks(PIECE).map(|piece| Ok(piece.join("\n") + "\n")).collect();
        let request = reqwest::Client::new()
            .post(url)
            .bearer_auth(&at.token)
            .header("content-type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(stream::iter(pieces)));
        let response = request.send().await.with_context(|| format!("cannot reach {}", at.url))?;
        let ok = response.status().is_success();
        let answer: Value = response.json().await.context("the server's answer is no JSON")?;
        match (answer["items"].as_u64(), answer["epoch"].as_u64()) {
            (Some(items), Some(epoch)) if ok => Ok((items, epoch)),
            _ => bail!("{}", answer["detail"].as_str().unwrap_or("the server refused")),
        }
    }
}
