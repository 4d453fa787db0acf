//! Which devices that are down stand behind others that are down: they are not told of.
//!
//! ```text
//! devices (down, with an agent) ─┐
//! links of neighbours ───────────┼─► [reach: a partition's in one place] ─► behind(device, root) Δ
//! declared dependencies ─────────┘
//! ```
//! A relation: recomputed from its inputs at start. What stands behind what is [`radarflow_reconcile::reach`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use differential_dataflow::AsCollection;
use radarflow_proto::fact::Stage;
use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::{Device, StateRow, Table, TopologyLink};
use radarflow_reconcile::condition::Condition;
use radarflow_reconcile::reach::{Change, Reach, Uid};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};

use crate::collection::{Events, Rel};
use crate::keyed::{Context, route};

/// Devices of a partition that stand before others by one declaration; of more the first count.
const MAX_PARENTS: usize = 16;

/// What reach is made of.
pub struct Inputs<'scope> {
    /// Devices as they are shown.
    pub devices: Rel<'scope, Arc<Device>>,
    /// Rows of links, among others.
    pub links: Rel<'scope, StateRow>,
    /// What became of resources.
    pub resources: Events<'scope, ResourceChange>,
}

/// Which device, and the one it stands behind.
pub type Behind = ((String, String, String), Root);

/// The device that others stand behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root {
    /// Which one.
    pub uid: String,
    /// What it is called.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Part {
    Device(Arc<Device>),
    Link(Arc<TopologyLink>),
}

impl Part {
    fn site(&self) -> (&str, &str) {
        match self {
            Part::Device(device) => (&device.tenant_id, &device.partition),
            Part::Link(link) => (&link.tenant_id, &link.partition),
        }
    }
}

/// A declaration that can be followed.
struct Declared {
    site: Option<String>,
    parent: Condition,
    children: Condition,
}

impl Declared {
    fn of(resource: &Resource) -> Option<Self> {
        let read = |field| Condition::read(resource.text(field)?).ok();
        let site = resource.text("site").map(str::to_owned);
        Some(Declared { site, parent: read("parent")?, children: read("children")? })
    }
}

impl Declared {
    fn holds(&self, condition: &Condition, device: &Device) -> bool {
        let here = self.site.as_ref().is_none_or(|site| *site == device.partition);
        here && device.deleted_at.is_none() && condition.holds(device)
    }
}

/// The devices on both sides of a declaration.
#[derive(Default)]
struct Sides {
    parents: BTreeSet<Uid>,
    children: BTreeSet<Uid>,
}

impl Sides {
    fn place(&mut self, uid: &Uid, parent: bool, child: bool) {
        for (side, is) in [(&mut self.parents, parent), (&mut self.children, child)] {
            match is {
                true => side.insert(uid.clone()),
                false => side.remove(uid),
            };
        }
    }

    fn edges(&self) -> BTreeSet<(Uid, Uid)> {
        let parents = self.parents.iter().take(MAX_PARENTS);
        parents.flat_map(|parent| self.children.iter().map(|child| (parent.clone(), child.clone()))).collect()
    }
}

/// One partition's.
#[derive(Default)]
struct Site {
    reach: Reach,
    devices: BTreeMap<Uid, Arc<Device>>,
    declared: BTreeMap<String, Sides>,
}

/// Whether a device that is looked after is up, or down.
fn seen(device: &Device) -> Option<bool> {
    let looked_after = device.deleted_at.is_none() && device.lifecycle != Stage::Decommissioned.name();
    device.is_available.filter(|_| looked_after)
}

type Declarations = BTreeMap<String, BTreeMap<String, Declared>>;

/// What is said of one declaration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stated {
    tenant: String,
    name: String,
    is: Option<Arc<Resource>>,
}

impl Site {
    /// Follows a declaration anew, or no more; tells which edges come and go.
    fn declare(&mut self, name: &str, declared: Option<&Declared>, out: &mut Vec<Change>) {
        let was = self.declared.remove(name).unwrap_or_default().edges();
        let mut is = Sides::default();
        if let Some(declared) = declared {
            for (uid, device) in &self.devices {
                is.place(uid, declared.holds(&declared.parent, device), declared.holds(&declared.children, device));
            }
        }
        differ(&was, &is.edges(), out);
        if !is.parents.is_empty() || !is.children.is_empty() {
            self.declared.insert(name.to_owned(), is);
        }
    }

    /// Takes in a device as it is.
    fn device(
        &mut self,
        uid: &Uid,
        device: Option<Arc<Device>>,
        of: &BTreeMap<String, Declared>,
        out: &mut Vec<Change>,
    ) {
        for (name, declared) in of {
            let sides = self.declared.entry(name.clone()).or_default();
            let is = |condition| device.as_deref().is_some_and(|device| declared.holds(condition, device));
            let (parent, child) = (is(&declared.parent), is(&declared.children));
            if sides.parents.contains(uid) != parent {
                // Only those of the first that change, and their edges.
                let first = |sides: &Sides| sides.parents.iter().take(MAX_PARENTS).cloned().collect::<BTreeSet<_>>();
                let (was, children) = (first(sides), sides.children.clone());
                sides.place(uid, parent, child);
                let is = first(sides);
                let mut edges = |parents: &mut dyn Iterator<Item = &Uid>, children: &BTreeSet<Uid>, diff| {
                    for parent in parents {
                        out.extend(children.iter().map(|child| Change::Declared(parent.clone(), child.clone(), diff)));
                    }
                };
                edges(&mut was.difference(&is), &children, -1);
                edges(&mut is.difference(&was), &sides.children, 1);
                if children.contains(uid) != child {
                    let own = BTreeSet::from([uid.clone()]);
                    edges(&mut was.intersection(&is), &own, if child { 1 } else { -1 });
                }
            } else if sides.children.contains(uid) != child {
                sides.place(uid, parent, child);
                let diff = if child { 1 } else { -1 };
                let parents = sides.parents.iter().take(MAX_PARENTS);
                out.extend(parents.map(|parent| Change::Declared(parent.clone(), uid.clone(), diff)));
            }
        }
        let is = device.as_ref();
        out.push(Change::Seen(uid.clone(), is.and_then(|device| seen(device))));
        out.push(Change::Agent(uid.clone(), is.is_some_and(|device| device.agent_id.is_some())));
        match device {
            Some(device) => drop(self.devices.insert(uid.clone(), device)),
            None => drop(self.devices.remove(uid)),
        }
    }
}

fn differ(was: &BTreeSet<(Uid, Uid)>, is: &BTreeSet<(Uid, Uid)>, out: &mut Vec<Change>) {
    let change = |(parent, child): &(Uid, Uid), diff| Change::Declared(parent.clone(), child.clone(), diff);
    out.extend(was.difference(is).map(|edge| change(edge, -1)));
    out.extend(is.difference(was).map(|edge| change(edge, 1)));
}

/// All of a worker's.
#[derive(Default)]
struct Sites {
    of: BTreeMap<(String, String), Site>,
    declarations: Declarations,
    /// What was said of each device.
    said: BTreeMap<(String, String, String), Root>,
}

impl Sites {
    fn step(&mut self, parts: Vec<(Part, isize)>, stated: Vec<Stated>, mut say: impl FnMut(Behind, isize)) {
        let mut changes: BTreeMap<(String, String), Vec<Change>> = BTreeMap::new();
        for Stated { tenant, name, is } in stated {
            let of = self.declarations.entry(tenant.clone()).or_default();
            let declared = is.as_deref().and_then(Declared::of);
            for ((_, partition), site) in self.of.iter_mut().filter(|((known, _), _)| *known == tenant) {
                let here = declared.as_ref().filter(|d| d.site.as_ref().is_none_or(|site| site == partition));
                site.declare(&name, here, changes.entry((tenant.clone(), partition.clone())).or_default());
            }
            match declared {
                Some(declared) => drop(of.insert(name, declared)),
                None => drop(of.remove(&name)),
            }
        }
        let mut net: BTreeMap<Part, isize> = BTreeMap::new();
        for (part, diff) in parts {
            *net.entry(part).or_default() += diff;
        }
        let mut devices: BTreeMap<(String, String), BTreeMap<Uid, Option<Arc<Device>>>> = BTreeMap::new();
        // What goes before what comes: a row that changes goes and comes.
        let (come, go): (Vec<_>, Vec<_>) = net.into_iter().filter(|(_, diff)| *diff != 0).partition(|(_, d)| *d > 0);
        for (part, diff) in go.into_iter().chain(come) {
            let (tenant, partition) = part.site();
            let key = (tenant.to_owned(), partition.to_owned());
            match part {
                Part::Device(device) => {
                    let is = (diff > 0).then(|| device.clone());
                    devices.entry(key).or_default().insert(device.uid.as_str().into(), is);
                }
                Part::Link(link) => {
                    let both = link.device_uid.as_deref().zip(link.neighbor_device_uid.as_deref());
                    let change = both.map(|(a, b)| Change::Link(a.into(), b.into(), diff.signum()));
                    changes.entry(key).or_default().extend(change);
                }
            }
        }
        let none = BTreeMap::new();
        let mut renamed: BTreeMap<(String, String), BTreeSet<Uid>> = BTreeMap::new();
        for (key, of) in devices {
            let declarations = self.declarations.get(&key.0).unwrap_or(&none);
            let site = self.of.entry(key.clone()).or_default();
            let changes = changes.entry(key.clone()).or_default();
            for (uid, device) in of {
                let name = |device: &Arc<Device>| device.display_name.clone();
                if site.devices.get(&uid).map(name) != device.as_ref().map(name) {
                    renamed.entry(key.clone()).or_default().insert(uid.clone());
                }
                site.device(&uid, device, declarations, changes);
            }
        }
        for (key, changes) in changes {
            let site = self.of.entry(key.clone()).or_default();
            let mut moved: BTreeSet<Uid> = site.reach.take(changes).into_keys().collect();
            let names = renamed.remove(&key).unwrap_or_default();
            let roots: BTreeSet<&Uid> = names.iter().filter(|uid| site.reach.is_root(uid)).collect();
            if !roots.is_empty() {
                moved.extend(site.reach.all().filter(|(_, root)| roots.contains(root)).map(|(uid, _)| uid.clone()));
            }
            for uid in moved {
                let of = (key.0.clone(), key.1.clone(), uid.to_string());
                let is = site.reach.behind(&uid).map(|root| {
                    let name = site.devices.get(root).map_or_else(|| root.to_string(), |d| d.display_name.clone());
                    Root { uid: root.to_string(), name }
                });
                let was = self.said.get(&of).cloned();
                if was != is {
                    if let Some(was) = was {
                        self.said.remove(&of);
                        say((of.clone(), was), -1);
                    }
                    if let Some(is) = is {
                        self.said.insert(of.clone(), is.clone());
                        say((of, is), 1);
                    }
                }
            }
        }
    }
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Rel<'scope, Behind> {
    let links = inputs.links.flat_map(|row| match row {
        StateRow::TopologyLink(link) => Some(Part::Link(link)),
        _ => None,
    });
    let parts = inputs.devices.map(Part::Device).concat(links);
    let stated = inputs.resources.flat_map(|ResourceChange { before, after }| {
        let of = after.as_ref().or(before.as_ref())?;
        (of.resource == Table::Dependency.name()).then(|| Stated {
            tenant: of.tenant.clone(),
            name: of.id.clone(),
            is: after.clone(),
        })
    });
    let by_site = Exchange::new(|(part, _, _): &(Part, u64, isize)| route(&part.site()));
    let first = cx.restored;
    let out = parts.inner.binary_frontier(stated.broadcast(), by_site, Pipeline, "Reach", move |capability, _| {
        let mut capability = Some(capability.delayed(&first));
        let mut sites = Sites::default();
        let mut waiting: BTreeMap<u64, (Vec<(Part, isize)>, Vec<Stated>)> = BTreeMap::new();
        move |(parts, of_parts), (stated, of_stated), output| {
            parts.for_each(|_, data| {
                for (part, epoch, diff) in data.drain(..) {
                    waiting.entry(epoch).or_default().0.push((part, diff));
                }
            });
            stated.for_each(|time, data| {
                let epoch = *time.least().expect("what is stated has an epoch");
                waiting.entry(epoch).or_default().1.append(data);
            });
            let upper = of_parts.frontier().iter().chain(of_stated.frontier().iter()).min().copied();
            let Some(held) = capability.as_mut() else { return };
            while let Some(entry) = waiting.first_entry().filter(|e| upper.is_none_or(|upper| *e.key() < upper)) {
                let (epoch, (parts, stated)) = entry.remove_entry();
                held.downgrade(&epoch);
                let mut session = output.session(held);
                sites.step(parts, stated, |behind, diff| session.give((behind, epoch, diff)));
            }
            match upper {
                Some(upper) => held.downgrade(&upper.max(first)),
                None => capability = None,
            }
        }
    });
    out.as_collection()
}
