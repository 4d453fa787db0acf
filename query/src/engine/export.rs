//! Rows as they come: all of them, however many, of which a few wait for whoever reads them.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::actor::{Actor, Grant};
use crate::engine::answer::Answer;
use crate::engine::cancel::Work;
use crate::engine::threads::{Ended, Threads};
use crate::error::{QueryError, failed};

/// Time that all rows of one query may take, where they are taken as they come.
pub const EXPORT_TIME: Duration = Duration::from_secs(600);
/// How long rows may wait for whoever asked for them.
pub const STALLED: Duration = Duration::from_secs(60);
/// Batches that may wait for them.
const EXPORT_AHEAD: usize = 2;

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
