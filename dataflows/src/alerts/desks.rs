//! Each tenant's desk in one place, stepped epoch by epoch: [`radarflow_reconcile::routing::desk`].
//!
//! What a desk says is a function of what burns, of what devices are and of what stands, and is computed again of these at a restart.
//! Only the clock at which that was said last is in snapshots, so that what is computed again is what was said, and which groups keep
//! an alert though their receiver is not on call any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::{Device, OnCall, StateRow};
use radarflow_reconcile::routing::policy::READ;
use radarflow_reconcile::routing::{Burning, Desk, Left, Said};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use super::groups::{GroupEvent, GroupKey};
use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, Restored, StateEntry, Tick, encode, put_state, route, take_state};

/// In snapshots, by tenant: the clock, and what was left to who was on call.
const DESKS: &str = "desks";

/// Desks remembered nothing but their clock.
pub(crate) fn desks_that_remember(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let clocks = take_state::<String, i64>(state, DESKS)?;
    put_state(state, DESKS, clocks.into_iter().map(|(tenant, clock)| (tenant, (clock, Left::new()))));
    Ok(())
}

/// What a desk is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Part {
    Resource(Arc<Resource>),
    Device(Arc<Device>),
    Burning(String, Burning),
}

impl Part {
    fn tenant(&self) -> &str {
        match self {
            Part::Resource(resource) => &resource.tenant,
            Part::Device(device) => &device.tenant_id,
            Part::Burning(tenant, _) => tenant,
        }
    }
}

/// Takes in what changed at an epoch.
fn take(desk: &mut Desk, parts: Vec<(Part, isize)>) {
    let mut net: BTreeMap<Part, isize> = BTreeMap::new();
    for (part, diff) in parts {
        *net.entry(part).or_default() += diff;
    }
    // What goes before what comes: what changes goes and comes.
    let (come, go): (Vec<_>, Vec<_>) = net.into_iter().filter(|(_, diff)| *diff != 0).partition(|(_, d)| *d > 0);
    for (part, diff) in go.into_iter().chain(come) {
        let is = diff > 0;
        match part {
            Part::Resource(resource) => desk.resource(resource, is),
            Part::Device(device) => desk.device(device, is),
            Part::Burning(_, burning) => {
                let id = burning.alert.id.clone();
                desk.alert(&id, is.then_some(burning));
            }
        }
    }
}

/// What a desk says.
#[derive(Clone)]
enum Word {
    /// To a group.
    Group(Keyed<GroupKey, GroupEvent>),
    /// Of who is on call.
    Row(Arc<OnCall>, isize),
}

fn words(tenant: &str, said: Said) -> Vec<Word> {
    let (name, event) = match said {
        Said::Told(name, entry, elsewhere) => (name, GroupEvent::Told(entry, elsewhere)),
        Said::Gone(name, id, elsewhere) => (name, GroupEvent::Gone(id, elsewhere)),
        Said::OnCall(before, after) => {
            let before = before.map(|row| Word::Row(row, -1));
            return before.into_iter().chain(after.map(|row| Word::Row(row, 1))).collect();
        }
    };
    let key = GroupKey { tenant: tenant.to_owned(), receiver: name.receiver, group: name.group };
    vec![Word::Group(Keyed { key, position: 0, event })]
}

/// The desks of the tenants that this worker has.
#[derive(Default)]
struct Desks {
    of: BTreeMap<String, Desk>,
    due: BTreeSet<(i64, String)>,
}

impl Desks {
    fn turn(&mut self, tenant: String, parts: Vec<(Part, isize)>, now_ms: i64) -> Vec<Word> {
        let desk = self.of.entry(tenant.clone()).or_default();
        if let Some(due) = desk.due_ms() {
            self.due.remove(&(due, tenant.clone()));
        }
        take(desk, parts);
        let out = desk.turn(now_ms).into_iter().flat_map(|said| words(&tenant, said)).collect();
        self.due.extend(desk.due_ms().map(|due| (due, tenant)));
        out
    }
}

/// What desks say.
pub(super) struct Outputs<'scope> {
    /// To groups.
    pub(super) groups: Events<'scope, Keyed<GroupKey, GroupEvent>>,
    /// Who is on call.
    pub(super) on_call: Rel<'scope, StateRow>,
}

/// Builds it.
pub(super) fn build<'scope>(
    cx: &Context,
    resources: Events<'scope, ResourceChange>,
    devices: Rel<'scope, Arc<Device>>,
    burning: Rel<'scope, (String, Burning)>,
) -> Outputs<'scope> {
    let read = READ.map(radarflow_proto::rows::Table::name);
    let resources = collected(
        resources.flat_map(move |ResourceChange { before, after }| {
            let changes = before.map(|before| (before, -1)).into_iter().chain(after.map(|after| (after, 1)));
            changes.filter(|(resource, _)| read.contains(&resource.resource.as_str())).collect::<Vec<_>>()
        }),
        |(resource, diff)| Some((Part::Resource(resource), diff)),
    );
    let burning = burning.map(|(tenant, burning)| Part::Burning(tenant, burning));
    let parts = resources.concat(devices.map(Part::Device)).concat(burning);
    let cx = cx.clone();
    let first = cx.restored;
    let by_tenant = Exchange::new(|(part, _, _): &(Part, u64, isize)| route(part.tenant()));
    let said = parts.inner.unary_frontier(by_tenant, "Desks", move |capability, _| {
        let mut capability = Some(capability.delayed(&first));
        let mut desks = Desks::default();
        let restored: BTreeMap<String, (i64, Left)> = cx.restore_where(DESKS, |tenant: &String| route(tenant));
        let clocks: BTreeMap<String, i64> =
            restored.iter().map(|(tenant, (clock, _))| (tenant.clone(), *clock)).collect();
        for (tenant, (_, left)) in restored {
            desks.of.entry(tenant).or_default().resume(left);
        }
        let mut waiting: BTreeMap<u64, BTreeMap<String, Vec<(Part, isize)>>> = BTreeMap::new();
        let mut next = first;
        move |(input, frontier), output| {
            input.for_each(|_, data| {
                for (part, epoch, diff) in data.drain(..) {
                    let of = waiting.entry(epoch.max(first)).or_default();
                    of.entry(part.tenant().to_owned()).or_default().push((part, diff));
                }
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            while next < upper {
                // What stood at the snapshot is said again as of the snapshot's clock.
                let tick = (next > first).then(|| cx.tick(next).expect("every epoch is announced before its data"));
                let mut parts = waiting.remove(&next).unwrap_or_default();
                if let Some(tick) = tick {
                    while desks.due.first().is_some_and(|(at, _)| *at <= tick.clock_ms) {
                        let (_, tenant) = desks.due.pop_first().expect("there is a first");
                        parts.entry(tenant).or_default();
                    }
                }
                let mut out = Vec::new();
                for (tenant, parts) in parts {
                    let now_ms = match tick {
                        Some(tick) => tick.clock_ms,
                        None => clocks.get(&tenant).copied().unwrap_or_default(),
                    };
                    out.extend(desks.turn(tenant, parts, now_ms));
                }
                held.downgrade(&next);
                output.session(held).give_iterator(out.into_iter());
                if let Some(tick) = tick.filter(|_| cx.wants_snapshot(next)) {
                    let entry = |(tenant, desk): (&String, &Desk)| StateEntry {
                        collection: DESKS,
                        key: encode(tenant),
                        value: Some(encode(&(tick.clock_ms, desk.left()))),
                    };
                    cx.save(next, desks.of.iter().map(entry).collect());
                }
                next += 1;
            }
            held.downgrade(&upper.max(first));
        }
    });
    Outputs {
        groups: said.clone().flat_map(|word| match word {
            Word::Group(told) => Some(told),
            Word::Row(..) => None,
        }),
        on_call: collected(said, |word| match word {
            Word::Row(row, diff) => Some((StateRow::OnCall(row), diff)),
            Word::Group(_) => None,
        }),
    }
}
