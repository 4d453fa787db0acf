//! Lets the records go whose devices were deleted one retention ago: the dataflow names them, a fact says it.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::fact::Fact;
use radarflow_proto::ports::{Appender, EpochOutput};
use radarflow_proto::record::RecordKey;
use tokio::sync::mpsc;

use crate::standing::append;

/// Epochs that wait; what finds no room is named again within the hour.
pub(crate) const QUEUED: usize = 16;
/// Records a fact.
const RECORDS: usize = 1000;

/// Says it until nothing more can come.
pub(crate) async fn run(mut named: mpsc::Receiver<Arc<EpochOutput>>, appender: Arc<dyn Appender>) {
    while let Some(output) = named.recv().await {
        let mut by_tenant: BTreeMap<&str, Vec<(RecordKey, String)>> = BTreeMap::new();
        for (key, partition) in &output.reaped {
            by_tenant.entry(&key.tenant).or_default().push((key.clone(), partition.clone()));
        }
        for (tenant, records) in by_tenant {
            for records in records.chunks(RECORDS) {
                let fact = Fact::Reaped { tenant: tenant.to_owned(), records: records.to_vec() };
                if let Err(error) = append(&*appender, "", "system", &[fact]).await {
                    tracing::warn!(%error, tenant, "records of deleted devices could not be let go; they are named again in an hour");
                }
            }
        }
    }
}
