//! The rules that tell what devices are, as a relation.
//!
//! ```text
//! device(c)(e) :- enrich(described(c)(e), rules(e))
//! ```
//! Every device meets every rule, so nothing is joined: changes of devices pass under the rules of their epoch, and when
//! the rules change, the arrangement of devices is read once, under the old rules and the new. Nothing is kept for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::{Cursor, TraceReader};
use radarflow_proto::enrich::Rule;
use radarflow_proto::rows::Device;
use radarflow_reconcile::enrich::Rules;
use radarflow_reconcile::inventory::Described;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};
use timely::progress::Antichain;

use crate::collection::Rel;
use crate::identity::Component;
use crate::inventory::{Devices, Packed};
use crate::keyed::Context;
use crate::layout::Arrangement;

/// What is enriched.
pub struct Inputs<'scope> {
    /// Devices, as records describe them.
    pub devices: Devices<'scope>,
    /// The rules, all of them, whenever they are stated.
    pub rules: Rel<'scope, Arc<[Rule]>>,
}

/// What comes of it.
pub struct Outputs<'scope> {
    /// Devices under the rules.
    pub devices: Rel<'scope, Arc<Device>>,
}

fn unpack(packed: &Packed) -> Described {
    postcard::from_bytes(packed).expect("a packed row unpacks")
}

/// The devices there were before an epoch.
fn before(trace: &mut TraceAgent<Arrangement<Component, Packed>>, epoch: u64, mut each: impl FnMut(&Packed)) {
    let Some(batches) = trace.batches_through(Antichain::new().borrow()) else { return };
    let (mut cursor, storage) = cursor_list(batches);
    while cursor.key_valid(&storage) {
        while let Some(packed) = cursor.get_val(&storage) {
            let mut count = 0;
            cursor.map_times(&storage, |time, diff| count += if time < epoch { diff } else { 0 });
            if count > 0 {
                each(packed);
            }
            cursor.step_val(&storage);
        }
        cursor.step_key(&storage);
    }
}

/// Builds the relation.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let mut trace = inputs.devices.trace.clone();
    let changes = inputs.devices.as_collection(|_, packed| packed.clone()).inner;
    // The newest rules, everywhere: those that they take the place of are known.
    let rules = inputs.rules.inner.flat_map(|(rules, epoch, diff)| (diff > 0).then(|| (rules.to_vec(), epoch)));
    let first = cx.restored;
    let out = changes.binary_frontier(rules.broadcast(), Pipeline, Pipeline, "Enrich", move |capability, _| {
        let mut capability = Some(capability.delayed(&first));
        let mut rules = Rules::default();
        let mut stash: BTreeMap<u64, Vec<(Packed, isize)>> = BTreeMap::new();
        let mut edits: BTreeMap<u64, Vec<Rule>> = BTreeMap::new();
        move |(changes, of_changes), (edited, of_edits), output| {
            changes.for_each(|_, data| {
                for (packed, epoch, diff) in data.drain(..) {
                    stash.entry(epoch).or_default().push((packed, diff));
                }
            });
            edited.for_each(|_, data| edits.extend(data.drain(..).map(|(rules, epoch)| (epoch, rules))));
            let upper = of_changes.frontier().iter().chain(of_edits.frontier().iter()).min().copied();
            let Some(upper) = upper else {
                capability = None;
                trace.set_logical_compaction(Antichain::new().borrow());
                trace.set_physical_compaction(Antichain::new().borrow());
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            while let Some(epoch) = stash.keys().chain(edits.keys()).min().copied().filter(|e| *e < upper) {
                held.downgrade(&epoch);
                let mut session = output.session(held);
                if let Some(new) = edits.remove(&epoch).map(|rules| Rules::new(&rules)) {
                    before(&mut trace, epoch, |packed| {
                        let (was, is) = (rules.enrich(unpack(packed)), new.enrich(unpack(packed)));
                        if was != is {
                            session.give_iterator([(was.into(), epoch, -1), (is.into(), epoch, 1)].into_iter());
                        }
                    });
                    rules = new;
                }
                for (packed, diff) in stash.remove(&epoch).unwrap_or_default() {
                    session.give((Arc::new(rules.enrich(unpack(&packed))), epoch, diff));
                }
            }
            held.downgrade(&upper.max(first));
            // What was before the next epoch can still be told from what is of it.
            let frontier = Antichain::from_elem(upper.saturating_sub(1));
            trace.set_logical_compaction(frontier.borrow());
            trace.set_physical_compaction(frontier.borrow());
        }
    });
    Outputs { devices: out.as_collection() }
}
