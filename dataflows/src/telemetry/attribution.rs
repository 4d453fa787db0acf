//! Which device an event is about: the owner of its address at its time, by what was known at its epoch.
//!
//! ```text
//! batches(e) ⋈ owner(partition, ip, time)(e)
//! ```
//! Every worker holds every owner (they are broadcast), so that batches stay where they were decoded. A batch waits
//! until all that its epoch says of owners is there. Addresses that changed hands lately have their past beside them
//! ([`super::corrections`]). What polls report of devices becomes rows ([`super::links`]) here, too, because here the owners are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, RecordBatch};
use radarflow_proto::rows::Table;
use radarflow_reconcile::identity::assertions::Scope;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};

use super::corrections::{OwnerHistory, owner_at};
use super::links::AttributedLinks;
use crate::collection::{Events, Rel, collected};
use crate::decode::EventBatch;
use crate::identity::{Address, AddressOwner};
use crate::topology::Told;

/// Something becomes known of an address, or of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Update {
    /// A device owns it, or does not any more.
    Owner(Address, Arc<str>, i64),
    /// Who had it lately.
    History(Address, Option<OwnerHistory>),
    /// Something is reported of a device, or is not any more.
    Told(Arc<Scope>, Box<Told>, isize),
}

/// What comes out.
#[derive(Clone, Debug)]
pub(super) enum Attributed {
    /// Events of a table and tenant.
    Rows(Table, String, RecordBatch),
    /// What is reported of a device came (1) or went (-1).
    Told(Box<Told>, isize),
}

/// What is known of the addresses of one scope.
#[derive(Default)]
struct ScopeOwners {
    owners: BTreeMap<IpAddr, Vec<(Arc<str>, i64)>>,
    /// Of those that changed hands lately.
    histories: BTreeMap<IpAddr, OwnerHistory>,
}

impl ScopeOwners {
    /// Changes of one epoch may come in any order: multiplicities are summed, what is left over is the owner.
    fn update(&mut self, update: Update) {
        match update {
            Update::Owner((_, ip), uid, diff) => {
                let uids = self.owners.entry(ip).or_default();
                match uids.iter_mut().find(|(u, _)| *u == uid) {
                    Some((_, n)) => *n += diff,
                    None => uids.push((uid, diff)),
                }
                uids.retain(|(_, n)| *n != 0);
                if uids.is_empty() {
                    self.owners.remove(&ip);
                }
            }
            Update::History((_, ip), Some(history)) => {
                self.histories.insert(ip, history);
            }
            Update::History((_, ip), None) => {
                self.histories.remove(&ip);
            }
            Update::Told(..) => {}
        }
    }

    fn owner_now(&self, ip: IpAddr) -> Option<&Arc<str>> {
        self.owners.get(&ip)?.iter().find(|(_, n)| *n > 0).map(|(uid, _)| uid)
    }

    fn owner(&self, ip: IpAddr, at_us: i64) -> Option<&Arc<str>> {
        match self.histories.get(&ip) {
            Some(history) => owner_at(history, at_us),
            None => self.owner_now(ip),
        }
    }
}

/// Fills the device columns of event batches, and of links.
pub(super) fn attribute<'scope>(
    batches: Events<'scope, EventBatch>,
    owners: Rel<'scope, AddressOwner>,
    histories: Events<'scope, (Address, Option<OwnerHistory>)>,
    told: Events<'scope, (Arc<Scope>, Told, isize)>,
) -> Events<'scope, Attributed> {
    let owners = owners.inner.flat_map(|(owner, epoch, diff)| {
        let uid = owner.uid?;
        Some((Update::Owner(owner.address, uid, diff as i64), epoch))
    });
    let histories = collected(histories, |(address, history)| Some((Update::History(address, history), 1)));
    let histories = histories.inner.map(|(update, epoch, _)| (update, epoch));
    let told = collected(told, |(scope, told, diff)| Some((Update::Told(scope, told.into(), diff), 1)));
    let told = told.inner.map(|(update, epoch, _)| (update, epoch));
    // What is reported is told where it was; everybody hears of owners.
    let updates = owners.concat(histories).broadcast().concat(told);
    batches.binary_frontier(updates, Pipeline, Pipeline, "Attribute", |_, _| {
        let mut known: BTreeMap<(String, String), ScopeOwners> = BTreeMap::new();
        let mut links = AttributedLinks::default();
        let mut pending = BTreeMap::new();
        let mut stash = BTreeMap::new();
        move |(batches, _), (updates, frontier), output| {
            updates.for_each(|time, data| {
                for (update, epoch) in data.drain(..) {
                    let slot: &mut (_, Vec<Update>) =
                        pending.entry(epoch).or_insert_with(|| (time.delayed(&epoch, 0), Vec::new()));
                    slot.1.push(update);
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
                if let Some((capability, all)) = pending.remove(&epoch) {
                    for update in all {
                        let scope = match &update {
                            Update::Owner((scope, ip), ..) => {
                                links.handed(scope, *ip);
                                scope
                            }
                            Update::History((scope, _), _) => scope,
                            Update::Told(scope, told, diff) => {
                                links.report(scope, (**told).clone(), *diff);
                                continue;
                            }
                        };
                        known.entry((scope.tenant.clone(), scope.partition.clone())).or_default().update(update);
                    }
                    let owner = |told: &Told, ip| {
                        let (tenant, partition) = told.of();
                        known.get(&(tenant.to_owned(), partition.to_owned()))?.owner_now(ip)
                    };
                    let rows = links.settle(owner).into_iter().map(|(told, diff)| Attributed::Told(told.into(), diff));
                    output.session(&capability).give_iterator(rows);
                }
                if let Some((capability, batches)) = stash.remove(&epoch) {
                    let mut session = output.session(&capability);
                    for batch in batches {
                        let known = known.get(&(batch.tenant.clone(), batch.partition.clone()));
                        let (table, tenant) = (batch.table, batch.tenant.clone());
                        session.give(Attributed::Rows(table, tenant, fill(batch, known)));
                    }
                }
            }
        }
    })
}

fn fill(batch: EventBatch, known: Option<&ScopeOwners>) -> RecordBatch {
    let Some(known) = known.filter(|_| !batch.lookups.is_empty()) else { return batch.rows };
    let schema = batch.rows.schema();
    let times = batch.rows.column_by_name("time").expect("what is attributed has a time");
    let times = times.as_primitive::<TimestampMicrosecondType>().values();
    let mut columns = batch.rows.columns().to_vec();
    for ((name, _), addresses) in batch.table.attributed().iter().zip(&batch.lookups) {
        let mut uids = StringBuilder::with_capacity(addresses.len(), 0);
        for (ip, at_us) in addresses.iter().zip(times) {
            uids.append_option(ip.and_then(|ip| known.owner(ip, *at_us)));
        }
        let index = schema.index_of(name).expect("what is attributed is a column");
        columns[index] = Arc::new(uids.finish()) as ArrayRef;
    }
    RecordBatch::try_new(schema, columns).expect("only string columns were replaced by string columns")
}
