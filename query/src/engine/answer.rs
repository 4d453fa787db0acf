//! A page of an answer, with what is told beside it.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use radarflow_proto::rows::Source;
use serde::Serialize;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::tables::catalog::Entity;
use crate::tables::view::View;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Their schema.
    pub schema: SchemaRef,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
    /// Where the page before it is; `None` on the first.
    pub prev_cursor: Option<String>,
    /// Rows asked for.
    pub limit: Option<usize>,
    /// What its columns count, by name.
    pub units: BTreeMap<String, &'static str>,
    /// About the answer.
    pub meta: Meta,
}

/// About an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Meta {
    /// Every table was read at this epoch.
    pub epoch: u64,
    /// Its clock.
    pub frontier_time: String,
    /// How far the clock is behind now, milliseconds.
    pub lag_ms: i64,
    /// Time it took, milliseconds.
    pub elapsed_ms: f64,
    /// Rows returned.
    pub rows: usize,
    /// Rows that were read for them.
    pub rows_scanned: u64,
    /// Bytes of these: of files as they are stored, of what is in memory as it lies there.
    pub bytes_scanned: u64,
    /// The span looked at.
    pub time_range: Option<[Option<String>; 2]>,
    /// The time asked of, where it is not now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Whether there are more rows than asked for.
    pub truncated: bool,
    /// Share of the data known to have been sent that is there; of sources that lost some, which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
    /// Changes of meaning a user may not expect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How much of what was sent arrived and was stored.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Completeness {
    /// Of all sources.
    pub share: f64,
    /// Of each source that is below 1.
    pub sources: Vec<(String, f64)>,
}

/// The loss ledgers of the feeds that bring an entity.
pub(crate) fn completeness(view: &View, actor: &Actor, entities: &[&Entity]) -> Option<Completeness> {
    let feeds_of = |entity: &&Entity| -> &[&str] {
        match entity.name {
            "flows" => &["netflow:", "sflow:", "nats:flows", "kafka:flows"],
            "logs" => &["syslog:", "nats:logs.syslog", "kafka:logs.syslog"],
            "traps" => &["traps:", "nats:logs.snmp", "kafka:logs.snmp"],
            _ => &[],
        }
    };
    let feeds: Vec<&str> = entities.iter().flat_map(feeds_of).copied().collect();
    let (mut there, mut sent) = (0.0, 0.0);
    let mut sources = Vec::new();
    for source in view.rows::<Source>(&actor.tenant) {
        let seen = radarflow_reconcile::access::sees(&actor.partitions, &source.partition);
        if !seen || !feeds.iter().any(|f| source.source.starts_with(f)) {
            continue;
        }
        let stored = source.stored as f64;
        let known = stored + (source.rejected + source.shed + source.lost) as f64;
        there += stored;
        sent += known;
        if stored < known {
            sources.push((format!("{} {}", source.source, source.exporter).trim().to_owned(), stored / known));
        }
    }
    (sent > 0.0).then(|| Completeness { share: there / sent, sources })
}
