//! `radarflow audit verify`: computes the chain of the audit again, and says where it does not hold.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use chrono::DateTime;
use clap::{Args, Subcommand};
use radarflow_proto::audit::hash;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::Audit;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api;
use crate::cli::At;

/// Faults that are told; more are counted.
const TOLD: usize = 100;
/// Bytes of a row at most.
const MAX_ROW: usize = 16 << 20;

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Compute the hashes of the audit again, from the rows of the lake: rows that were changed, added or taken away are told.
    #[command(
        after_help = "Examples:\n  radarflow audit verify\n  radarflow audit verify --head 2f1c…   # a hash that was kept elsewhere\n\n\
        Rows that were taken from the end leave no gap: keep the hash that this prints, or that of the last row of a day, \
        elsewhere, and say it with --head."
    )]
    Verify(Verify),
}

#[derive(Args)]
pub(crate) struct Verify {
    /// A hash that must be in the chain.
    #[arg(long)]
    head: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// What was found of a chain, whose rows come in order.
#[derive(Default)]
struct Found {
    rows: u64,
    /// Rows that are older than chains.
    before: u64,
    /// The newest of their epochs, and the oldest of the chain's.
    unchained: Option<i64>,
    chained: Option<i64>,
    first: Option<i64>,
    last: Option<(i64, String)>,
    faults: Vec<String>,
    /// Faults, told or not.
    faulty: u64,
}

impl Found {
    fn fault(&mut self, text: String) {
        self.faulty += 1;
        if self.faults.len() < TOLD {
            self.faults.push(text);
        }
    }

    fn add(&mut self, row: &Audit) {
        let Some(sequence) = row.sequence else {
            self.before += 1;
            self.unchained = self.unchained.max(Some(row.epoch));
            return;
        };
        self.chained = Some(self.chained.map_or(row.epoch, |epoch| epoch.min(row.epoch)));
        self.rows += 1;
        let what = format!("row {sequence} ({}: {} {} by {})", row.time, row.action, row.subject, row.actor);
        if row.hash.as_deref() != Some(hash(row).as_str()) {
            self.fault(format!("{what} is not what it was when it was written"));
        }
        match self.last.clone() {
            None => {
                self.first = Some(sequence);
                if sequence == 1 && row.previous.is_some() {
                    self.fault(format!("{what} is the first, and says that there was one before"));
                }
            }
            Some((last, _)) if sequence == last => self.fault(format!("{what} is there twice")),
            Some((last, _)) if sequence > last + 1 => {
                let gone = if sequence == last + 2 {
                    format!("row {} is gone", last + 1)
                } else {
                    format!("rows {} to {} are gone", last + 1, sequence - 1)
                };
                self.fault(format!("{gone}, before {what}"));
            }
            Some((last, before)) if row.previous.as_ref() != Some(&before) => {
                self.fault(format!("{what} follows another row {last} than the one that is there"));
            }
            Some(_) => {}
        }
        self.last = Some((sequence, row.hash.clone().unwrap_or_default()));
    }
}

impl Found {
    /// After all rows: what is outside of the chain is older than it.
    fn end(&mut self) {
        if let (Some(unchained), Some(chained)) = (self.unchained, self.chained)
            && unchained >= chained
        {
            self.fault(format!("a row of epoch {unchained} is not in the chain, which begins at epoch {chained}"));
        }
    }
}

/// A row as a query answers it.
fn row(value: &Value) -> Result<Audit> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let said = |name: &str| text(name).with_context(|| format!("a row of the audit has no {name}: {value}"));
    let time = DateTime::parse_from_rfc3339(&said("time")?).context("a row's time")?;
    Ok(Audit {
        tenant_id: said("tenant_id")?,
        partition: said("partition")?,
        row_id: RowId::new(0, 0, 0),
        epoch: value["epoch"].as_i64().context("a row's epoch")?,
        sequence: value["sequence"].as_i64(),
        time: Time(time.timestamp_micros()),
        actor: said("actor")?,
        action: said("action")?,
        subject: said("subject")?,
        reason: text("reason"),
        detail: said("detail")?,
        previous: text("previous"),
        hash: text("hash"),
    })
}

impl AuditCommand {
    pub(crate) async fn run(self) -> Result<String> {
        let AuditCommand::Verify(Verify { head, json, at }) = self;
        let (found, seen) = found(&at, head.as_deref()).await?;
        let text = if json { in_json(&found).to_string() } else { in_words(&found) };
        if let Some(head) = head.filter(|_| !seen) {
            bail!("{text}\nno row has the hash {head}: rows were taken away, or changed");
        }
        if found.faulty > 0 {
            bail!("{text}");
        }
        Ok(text)
    }
}

/// Reads the audit of the tenant, a row at a time.
async fn found(at: &At, head: Option<&str>) -> Result<(Found, bool)> {
    let query = json!({"query": "in:audit time:>=1970-01-01 sort:sequence:asc"});
    let request =
        api::request(at, Method::POST, &["api", "query"])?.header("accept", "application/x-ndjson").json(&query);
    let mut response = api::send(at, request).await?;
    if response.status() != StatusCode::OK {
        let answer: Value = response.json().await.unwrap_or_default();
        let detail = answer["errors"][0]["detail"].as_str().or(answer["detail"].as_str());
        bail!("{}", detail.unwrap_or("the server does not tell the audit"));
    }
    // What a row says of itself is believed of no row that is outside of the chain, or is not what it was.
    let (mut found, mut seen, mut rest) = (Found::default(), false, Vec::new());
    let mut take = |line: &[u8]| -> Result<()> {
        let value: Value = serde_json::from_slice(line).context("the server broke off, or answers no JSON")?;
        let row = row(&value)?;
        seen |= row.sequence.is_some() && head == Some(hash(&row).as_str());
        found.add(&row);
        Ok(())
    };
    while let Some(chunk) = response.chunk().await.context("the server broke off")? {
        rest.extend_from_slice(&chunk);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            anyhow::ensure!(rest.len() <= MAX_ROW, "a row of the audit is larger than {MAX_ROW} bytes");
            continue;
        };
        for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            take(line)?;
        }
        rest.drain(..=end);
    }
    if !rest.is_empty() {
        take(&rest)?;
    }
    found.end();
    Ok((found, seen))
}

fn in_json(found: &Found) -> Value {
    let (last, head) = found.last.clone().map_or((None, None), |(last, head)| (Some(last), Some(head)));
    json!({
        "rows": found.rows, "older_than_chains": found.before, "first": found.first, "last": last, "head": head,
        "faults": found.faults, "faulty": found.faulty,
    })
}

fn in_words(found: &Found) -> String {
    let mut out = String::new();
    for fault in &found.faults {
        let _ = writeln!(out, "{fault}");
    }
    if found.faulty > found.faults.len() as u64 {
        let _ = writeln!(out, "… and {} more", found.faulty - found.faults.len() as u64);
    }
    if let Some(first) = found.first.filter(|first| *first > 1) {
        let _ =
            writeln!(out, "the rows before {first} are not there: their retention is over, or they were taken away");
    }
    if found.before > 0 {
        let _ = writeln!(out, "{} rows are older than chains: nothing is known of them", found.before);
    }
    let holds = if found.faulty == 0 { "the chain holds" } else { "the chain does not hold" };
    match &found.last {
        Some((last, head)) => drop(write!(out, "{holds}: {} rows, up to {last}\nhead: {head}", found.rows)),
        None => out.push_str("there is nothing in the audit that this token may see"),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: i64) -> Vec<Audit> {
        let mut before = None;
        let row = |sequence: i64| {
            let mut row = Audit {
                tenant_id: "t".into(),
                partition: "default".into(),
                row_id: RowId::new(0, 0, 0),
                epoch: sequence * 10,
                sequence: Some(sequence),
                time: Time(sequence),
                actor: "ann".into(),
                action: "users:create".into(),
                subject: "bob".into(),
                reason: None,
                detail: "{}".into(),
                previous: before.clone(),
                hash: None,
            };
            row.hash = Some(hash(&row));
            before = row.hash.clone();
            row
        };
        (1..=n).map(row).collect()
    }

    fn faults(rows: &[Audit]) -> Vec<String> {
        let mut found = Found::default();
        rows.iter().for_each(|row| found.add(row));
        found.end();
        found.faults
    }

    #[test]
    fn whatever_was_done_to_a_chain_is_seen() {
        let right = chain(5);
        assert_eq!(faults(&right), Vec::<String>::new());
        // What is past its retention is no fault.
        assert_eq!(faults(&right[2..]), Vec::<String>::new());
        let mut changed = right.clone();
        changed[2].actor = "eve".into();
        assert_eq!(faults(&changed).len(), 1);
        // Hashed again, it no longer is what the next one follows.
        changed[2].hash = Some(hash(&changed[2]));
        let told = faults(&changed);
        assert!(told.len() == 1 && told[0].starts_with("row 4 ") && told[0].contains("another row 3"), "{told:?}");
        let mut gone = right.clone();
        gone.remove(1);
        assert!(faults(&gone)[0].starts_with("row 2 is gone"));
        // What was added beside the chain is seen too, unless it is older than it.
        let beside = |epoch: i64| Audit { sequence: None, epoch, ..right[0].clone() };
        assert!(faults(&[&[beside(30)], &right[..]].concat())[0].contains("not in the chain"));
        assert_eq!(faults(&[&[beside(9)], &right[..]].concat()), Vec::<String>::new());
        let twice = [&right[..2], &right[1..]].concat();
        assert!(faults(&twice)[0].contains("twice"));
    }
}
