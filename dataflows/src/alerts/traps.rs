//! Which traps begin and end what, by the clear pairs that stand: on the worker where the traps are, so that few go on. Pairs are those
//! of the epoch: an epoch's pairs count before its traps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::Table;
use radarflow_proto::snmp::Trap;
use radarflow_reconcile::pairs::{Pair, builtin};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OperatorInfo;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};

use super::pairs::{PairEvent, PairShare, Worth};
use crate::collection::Events;
use crate::keyed::{Context, Keyed};

/// A trap as it came.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// Whose it is.
    pub source: IpAddr,
    /// Its place in the epoch.
    pub position: u64,
    /// What it says.
    pub trap: Arc<Trap>,
    /// What its word is worth.
    pub worth: Worth,
}

/// A pair that stands, or stands no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stated {
    tenant: String,
    name: String,
    pair: Option<Arc<Resource>>,
}

/// The pairs of a tenant.
struct Pairs {
    /// What is stated; of what is switched off nothing.
    stated: BTreeMap<String, Option<Pair>>,
    /// Those that count, by name.
    counting: BTreeMap<String, Pair>,
    /// By trap, the names of those that it is of.
    by_trap: BTreeMap<String, BTreeSet<String>>,
}

impl Default for Pairs {
    fn default() -> Self {
        let mut pairs = Pairs { stated: BTreeMap::new(), counting: BTreeMap::new(), by_trap: BTreeMap::new() };
        pairs.count();
        pairs
    }
}

impl Pairs {
    fn count(&mut self) {
        let own = self.stated.values().flatten();
        let builtin = Some(builtin()).filter(|pair| !self.stated.contains_key(pair.name()));
        let all = own.cloned().chain(builtin).map(|pair| (pair.name().to_owned(), pair));
        self.counting = all.collect();
        self.by_trap.clear();
        for pair in self.counting.values() {
            for trap in pair.traps() {
                self.by_trap.entry(trap.to_owned()).or_default().insert(pair.name().to_owned());
            }
        }
    }

    /// A pair is stated, or is stated no more; tells whether what it began cannot be ended by what there is now.
    fn state(&mut self, name: &str, pair: Option<&Resource>) -> bool {
        let before = self.counting.get(name).cloned();
        match pair {
            Some(pair) => {
                let read = Some(pair).filter(|pair| pair.flag("enabled")).and_then(|pair| Pair::of(pair).ok());
                self.stated.insert(name.to_owned(), read);
            }
            None => {
                self.stated.remove(name);
            }
        }
        self.count();
        before.is_some_and(|before| !self.counting.get(name).is_some_and(|now| now.is_like(&before)))
    }
}

/// What came of an epoch that is not complete.
#[derive(Default)]
struct Waiting {
    stated: Vec<Stated>,
    notices: Vec<Notice>,
}

/// What traps begin and end.
pub(super) fn told<'scope>(
    cx: &Context,
    notices: Events<'scope, Notice>,
    resources: Events<'scope, ResourceChange>,
) -> Events<'scope, Keyed<PairShare, PairEvent>> {
    let stated = resources.flat_map(|ResourceChange { before, after }| {
        let of = after.as_ref().or(before.as_ref())?;
        let (tenant, name) = (of.tenant.clone(), of.id.clone());
        (of.resource == Table::ClearPair.name()).then_some(Stated { tenant, name, pair: after })
    });
    let (stated, cx) = (stated.broadcast(), cx.clone());
    notices.binary_frontier(stated, Pipeline, Pipeline, "ClearPairs", move |capability, _: OperatorInfo| {
        let mut capability = Some(capability.delayed(&cx.restored));
        let mut tenants: BTreeMap<String, Pairs> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        move |(notices, of_notices), (stated, of_stated), output| {
            notices.for_each(|time, data| {
                let at = *time.least().expect("what is told has an epoch");
                waiting.entry(at).or_default().notices.append(data);
            });
            stated.for_each(|time, data| {
                let at = *time.least().expect("what is stated has an epoch");
                waiting.entry(at).or_default().stated.append(data);
            });
            let upper = of_notices.frontier().iter().chain(of_stated.frontier().iter()).min().copied();
            let Some(held) = capability.as_mut() else { return };
            while let Some(entry) = waiting.first_entry().filter(|e| upper.is_none_or(|upper| *e.key() < upper)) {
                let (epoch, Waiting { stated, notices }) = entry.remove_entry();
                let mut out = Vec::new();
                for Stated { tenant, name, pair } in stated {
                    let is_over = tenants.entry(tenant.clone()).or_default().state(&name, pair.as_deref());
                    // Every worker knows; one says it. What is stated anew at a start was stated before.
                    if is_over && cx.index == 0 && epoch > cx.restored {
                        let over = |key| Keyed { key, position: 0, event: PairEvent::Over(name.clone()) };
                        out.extend(PairShare::all(&tenant).map(over));
                    }
                }
                for Notice { tenant, partition, source, position, trap, worth } in notices {
                    let pairs = tenants.entry(tenant.clone()).or_default();
                    let names = pairs.by_trap.get(&trap.trap_oid).into_iter().flatten();
                    for pair in names.filter_map(|name| pairs.counting.get(name)) {
                        let Some((subject, condition)) = pair.told(&tenant, &partition, source, &trap) else {
                            continue;
                        };
                        let subject = (source, subject);
                        let key = PairShare::of(&subject);
                        let event = match condition {
                            Some(condition) => PairEvent::Begin(subject, condition, worth),
                            None => PairEvent::End(subject, worth),
                        };
                        // What is stated comes first.
                        out.push(Keyed { key, position: position + 1, event });
                    }
                }
                held.downgrade(&epoch.max(*held.time()));
                output.session(held).give_iterator(out.into_iter());
            }
            match upper {
                Some(upper) => held.downgrade(&upper.max(cx.restored)),
                None => capability = None,
            }
        }
    })
}
