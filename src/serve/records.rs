//! Records of the dataflow, for who asks why identity is as it is: its threads are asked, and nobody else's waits.

use std::collections::BTreeMap;
use std::net::IpAddr;

use radarflow_dataflows::identity::imagine::imagine;
use radarflow_pipeline::Finder;
use radarflow_proto::cell::Time;
use radarflow_proto::ports::{BoxFuture, FindRecords, FoundRecord, Imagine, Imagined, RecordQuery};
use radarflow_proto::record::RecordKey;

/// Finds records in the dataflow.
pub(super) struct Records(pub(super) Finder);

impl FindRecords for Records {
    fn find(&self, wanted: RecordQuery) -> BoxFuture<Option<Vec<FoundRecord>>> {
        let finder = self.0.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || finder.find(wanted)).await.ok().flatten() })
    }

    fn imagine(&self, mut question: Imagine) -> BoxFuture<Option<Imagined>> {
        let records = question.records.iter().map(|found| found.record.clone()).collect();
        let remembered = self.find(RecordQuery::Remembered { records });
        Box::pin(async move {
            // Every worker tells its share of each record.
            let remembered = remembered.await?;
            let mut by_key: BTreeMap<RecordKey, (Vec<IpAddr>, Vec<(IpAddr, Time)>)> = BTreeMap::new();
            for share in remembered {
                let (settled, aliases) = by_key.entry(share.record.key).or_default();
                settled.extend(share.settled);
                aliases.extend(share.aliases);
            }
            for found in &mut question.records {
                (found.settled, found.aliases) = by_key.remove(&found.record.key).unwrap_or_default();
            }
            tokio::task::spawn_blocking(move || imagine(&question)).await.ok()
        })
    }
}
