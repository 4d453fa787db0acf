//! Which device an event is about: the owner of its address, by what was known at its epoch.
//!
//! ```text
//! batches(e) ⋈ owner(partition, ip)(e)
//! ```
//! Every worker holds every owner (they are broadcast), so that batches stay where they were decoded. A batch waits
//! until all ownership changes of its epoch are there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use radarflow_proto::rows::Table;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Broadcast;

use crate::decode::EventBatch;
use crate::identity::Rel;

type Owners = BTreeMap<(String, String), BTreeMap<IpAddr, Vec<(Arc<str>, isize)>>>;

/// Fills the device columns of event batches.
pub fn attribute<'scope>(
    batches: Stream<'scope, u64, Vec<EventBatch>>,
    owners: Rel<'scope, ((String, String, IpAddr), Arc<str>)>,
) -> Stream<'scope, u64, Vec<(Table, String, RecordBatch)>> {
    let changes = owners.inner.broadcast();
    batches.binary_frontier(changes, Pipeline, Pipeline, "Attribute", |_, _| {
        let mut known: Owners = BTreeMap::new();
        let mut pending = BTreeMap::new();
        let mut stash = BTreeMap::new();
        move |(batches, _), (changes, frontier), output| {
            changes.for_each(|_, data| {
                for ((key, uid), epoch, diff) in data.drain(..) {
                    pending.entry(epoch).or_insert_with(Vec::new).push((key, uid, diff));
                }
            });
            batches.for_each(|time, data| {
                if let Some(capability) = time.retain_least(0) {
                    let slot: &mut (_, Vec<EventBatch>) =
                        stash.entry(*capability.time()).or_insert_with(|| (capability, Vec::new()));
                    slot.1.append(data);
                }
            });
            let complete = |epoch: &u64| !frontier.less_equal(epoch);
            loop {
                let next = pending.keys().next().copied().into_iter().chain(stash.keys().next().copied()).min();
                let Some(epoch) = next.filter(complete) else { break };
                for ((tenant, partition, ip), uid, diff) in pending.remove(&epoch).unwrap_or_default() {
                    learn(known.entry((tenant, partition)).or_default(), ip, uid, diff);
                }
                if let Some((capability, batches)) = stash.remove(&epoch) {
                    let mut session = output.session(&capability);
                    for batch in batches {
                        let owners = known.get(&(batch.tenant.clone(), batch.partition.clone()));
                        let (table, tenant) = (batch.table, batch.tenant.clone());
                        session.give((table, tenant, fill(batch, owners)));
                    }
                }
            }
        }
    })
}

/// Changes of one epoch may come in any order: multiplicities are summed, what is left over is the owner.
fn learn(owners: &mut BTreeMap<IpAddr, Vec<(Arc<str>, isize)>>, ip: IpAddr, uid: Arc<str>, diff: isize) {
    let uids = owners.entry(ip).or_default();
    match uids.iter_mut().find(|(u, _)| *u == uid) {
        Some((_, n)) => *n += diff,
        None => uids.push((uid, diff)),
    }
    uids.retain(|(_, n)| *n != 0);
    if uids.is_empty() {
        owners.remove(&ip);
    }
}

fn fill(batch: EventBatch, owners: Option<&BTreeMap<IpAddr, Vec<(Arc<str>, isize)>>>) -> RecordBatch {
    let Some(owners) = owners.filter(|_| !batch.lookups.is_empty()) else { return batch.rows };
    let schema = batch.rows.schema();
    let mut columns = batch.rows.columns().to_vec();
    for (name, addresses) in &batch.lookups {
        let mut uids = StringBuilder::with_capacity(addresses.len(), 0);
        for ip in addresses {
            let owner = ip.and_then(|ip| owners.get(&ip)).and_then(|uids| uids.iter().find(|(_, n)| *n > 0));
            uids.append_option(owner.map(|(uid, _)| uid));
        }
        let index = schema.index_of(name).expect("lookups name columns of the table");
        columns[index] = Arc::new(uids.finish()) as ArrayRef;
    }
    RecordBatch::try_new(schema, columns).expect("only string columns were replaced by string columns")
}
