//! What is answered: a page with what is told beside it, or rows as they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use radarflow_proto::rows::Source;
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::actor::{Actor, Grant};
use crate::engine::admission::{Ended, Threads};
use crate::engine::bytes::{Capped, bytes_of};
use crate::engine::cancel::Work;
use crate::error::{QueryError, failed};
use crate::tables::catalog::Entity;
use crate::tables::view::View;

/// Time that all rows of one query may take, where they are taken as they come.
pub const EXPORT_TIME: Duration = Duration::from_secs(600);
/// How long rows may wait for whoever asked for them.
pub const STALLED: Duration = Duration::from_secs(60);
/// Most bytes of an answer that is whole in memory, as rows and as JSON.
pub const MAX_ANSWER: usize = 64 << 20;
/// Batches that may wait for them.
const EXPORT_AHEAD: usize = 2;

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

/// Rows as they come: all of them, however many, of which a few wait for whoever reads them. It ends when it is dropped.
pub struct Export {
    /// Their schema.
    pub schema: SchemaRef,
    /// The epoch they were read at.
    pub epoch: u64,
    /// Where the next page begins, where it is one.
    pub next_cursor: Option<String>,
    rows: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    task: Option<Ended<()>>,
    /// Until when they are given.
    grant: Grant,
}

impl Export {
    /// Runs a plan for whoever takes its rows; `None` when the process ends.
    pub(crate) fn start(threads: &Threads, work: Arc<Work>, frame: DataFrame, epoch: u64) -> Option<Export> {
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let (to, rows) = mpsc::channel(EXPORT_AHEAD);
        let task = threads.spawn(work, async move {
            let all = async {
                let mut batches = frame.execute_stream().await.map_err(failed)?;
                while let Some(batch) = batches.next().await {
                    let batch = batch.map_err(failed)?;
                    if batch.num_rows() > 0 {
                        match tokio::time::timeout(STALLED, to.send(Ok(batch))).await {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) => return Ok(()),
                            Err(_) => return Err(QueryError::TimedOut),
                        }
                    }
                }
                Ok(())
            };
            let ended = tokio::time::timeout(EXPORT_TIME, all).await.unwrap_or(Err(QueryError::TimedOut));
            if let Err(error) = ended {
                let _ = tokio::time::timeout(STALLED, to.send(Err(error))).await;
            }
        });
        Some(Export { schema, epoch, next_cursor: None, rows, task: Some(task?), grant: Grant::default() })
    }

    /// The same, as long as the token of whoever asked holds.
    pub(crate) fn until(self, actor: &Actor) -> Export {
        Export { grant: actor.grant.clone(), ..self }
    }

    /// The next rows.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        tokio::select! {
            biased;
            () = self.grant.ended() => {
                // What waits is for nobody.
                (self.rows, self.task, self.grant) = (mpsc::channel(1).1, None, Grant::default());
                Some(Err(QueryError::Ended))
            }
            rows = self.rows.recv() => rows,
        }
    }
}

impl From<Answer> for Export {
    /// Rows that are there already.
    fn from(answer: Answer) -> Export {
        let (to, rows) = mpsc::channel(answer.batches.len().max(1));
        for batch in answer.batches {
            // There is room for all of them.
            let _ = to.try_send(Ok(batch));
        }
        let (schema, epoch, next_cursor) = (answer.schema, answer.meta.epoch, answer.next_cursor);
        Export { schema, epoch, next_cursor, rows, task: None, grant: Grant::default() }
    }
}

/// Digits of a decimal from which on a reader of JSON, who has floats, may take it for another.
const EXACT_DIGITS: u8 = 15;

/// Rows as JSON has them: decimals that are too long for a float are text.
pub(crate) fn exact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let is_long = |of: &DataType| matches!(of, DataType::Decimal128(digits, _) | DataType::Decimal256(digits, _) if *digits > EXACT_DIGITS);
    let written = |of: &DataType| match of {
        long if is_long(long) => Some(DataType::Utf8),
        DataType::List(item) if is_long(item.data_type()) => {
            Some(DataType::List(Arc::new(item.as_ref().clone().with_data_type(DataType::Utf8))))
        }
        _ => None,
    };
    if batch.schema_ref().fields().iter().all(|field| written(field.data_type()).is_none()) {
        return Ok(batch.clone());
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match written(field.data_type()) {
            Some(text) => {
                columns.push(compute::cast(column, &text)?);
                fields.push(Arc::new(field.as_ref().clone().with_data_type(text)));
            }
            None => {
                columns.push(column.clone());
                fields.push(field.clone());
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// What is refused of an answer that is whole in memory.
fn too_large() -> QueryError {
    QueryError::TooLarge(format!(
        "the answer is larger than {} MiB: ask for fewer rows or columns, or export it",
        MAX_ANSWER >> 20
    ))
}

/// All rows of a plan, as long as they are no more than [`MAX_ANSWER`] bytes.
pub(crate) async fn collect(frame: DataFrame) -> Result<Vec<RecordBatch>, QueryError> {
    gather(frame.execute_stream().await.map_err(failed)?).await
}

/// The same of a plan that runs already.
pub(crate) async fn gather(mut stream: SendableRecordBatchStream) -> Result<Vec<RecordBatch>, QueryError> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        bytes += bytes_of(&batch);
        if bytes > MAX_ANSWER {
            return Err(too_large());
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// Rows as a JSON array.
pub(crate) fn json_rows(batches: &[RecordBatch]) -> Result<Vec<u8>, QueryError> {
    let out = Capped::new(MAX_ANSWER);
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(out);
    // Every type that a table has can be told exactly.
    let exact: Vec<RecordBatch> = batches.iter().map(|b| exact(b).unwrap_or_else(|_| b.clone())).collect();
    let refs: Vec<&RecordBatch> = exact.iter().collect();
    match writer.write_batches(&refs).and_then(|()| writer.finish()) {
        Ok(()) => {}
        Err(ArrowError::IoError(..)) => return Err(too_large()),
        Err(error) => return Err(QueryError::Failed(error.to_string())),
    }
    let out = writer.into_inner().written();
    Ok(if out.is_empty() { b"[]".to_vec() } else { out })
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
