//! The gate between identity and everything that uses it: what one run should not do unasked is withheld.
//!
//! ```text
//! published(x) :- identity(x) − withheld(x)
//! withheld     :- rows that a *cluster* changes: names that rows which changed together have in common, as long as it
//!                 merges, builds or adds more than the run that changed it may (`reconcile::brakes`)
//! ```
//! So what a held run touches stays as it was last published, whatever else is said of it, and everything behind the
//! gate is a function of one consistent set of rows. A cluster goes through when an operator releases its run, or when
//! it would no longer do what it was withheld for. What the run had done before it went too far stays done.
//!
//! Only changes pass here: what it costs does not depend on how much there is. A tenant is judged in one place.

use std::collections::{BTreeMap, BTreeSet};

use differential_dataflow::AsCollection;
use radarflow_proto::fact::RunDecision;
use radarflow_proto::ports::Outcome;
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::brakes::{Brakes, too_many};
use radarflow_reconcile::identity::assertions::Scope;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use timely::dataflow::Stream;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use super::relations::{Rel, Value, each};
use crate::alerts::AlertKey;
use crate::keyed::{Context, Keyed, Machine, Tick, machine};
use crate::listings::ListingKey;
use crate::records::{Live, Name, RunName, changes, stamped};

/// Runs of a source that are remembered, besides those that are held.
const MAX_RUNS: usize = 4;

/// What the gate is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RunEvent {
    /// A run says its first.
    Began {
        /// Names it.
        by: RunName,
        /// As its source calls it.
        run: String,
        /// It lists the items of its source.
        lists: bool,
        /// Somebody has looked at what it does and said yes.
        approved: bool,
    },
    /// A run has listed everything.
    Complete(RunName),
    /// An operator decides about a run. If the brake on listings does not hold it: the one that that holds.
    Decide(RunDecision, Result<(), Option<String>>),
    /// How far runs may go.
    Brakes(Brakes),
}

impl RunEvent {
    fn order(&self) -> (u8, RunName, &str) {
        match self {
            RunEvent::Brakes(_) => (0, RunName::default(), ""),
            RunEvent::Began { by, run, .. } => (1, *by, run),
            RunEvent::Complete(by) => (2, *by, ""),
            RunEvent::Decide(decision, _) => (3, RunName::default(), &decision.command_id),
        }
    }
}

/// What comes to the gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Arriving {
    Row(Row, isize),
    Run(ListingKey, RunEvent),
}

/// A row of identity.
type Row = (Name, Value);

/// Of a tenant: what was said of runs.
pub type RunEvents<'scope> = Stream<'scope, u64, Vec<(ListingKey, RunEvent)>>;

/// What comes of it.
#[derive(Clone, Debug)]
pub enum GateOut {
    /// A run is held, or no longer.
    Held(AlertKey, Condition, isize),
    /// What became of a command.
    Outcome(Outcome),
}

#[derive(Clone)]
enum Out {
    /// A row is withheld, or no longer.
    Withheld(Row, isize),
    Said(GateOut),
}

/// What the gate gives.
pub(super) struct Gated<'scope> {
    all: Rel<'scope>,
    /// By identifier: the device that it stays with ([`Value::Name`]), less the one that it would go to.
    pub(super) kept: Rel<'scope>,
    /// Conditions and outcomes.
    pub(super) said: Stream<'scope, u64, Vec<GateOut>>,
}

/// Builds the gate for rows of records in devices ([`Value::Member`]), records in none ([`Value::Live`]), identifiers that
/// devices hold ([`Value::Seen`]) and identifiers that name nobody ([`Value::Loose`]).
pub(super) fn gate<'scope>(rows: &Rel<'scope>, runs: RunEvents<'scope>, cx: &Context) -> Gated<'scope> {
    let rows =
        changes(rows.flow(), |row, diff| Keyed { key: tenant(&row.1), position: 0, event: Arriving::Row(row, diff) });
    let runs = runs.map(|(key, event)| Keyed {
        key: Scope::of(&key.tenant, "").tenant_name,
        position: 0,
        event: Arriving::Run(key, event),
    });
    let out = machine(rows.concat(runs), cx, Gate);
    let all = stamped(out.clone(), |out| match out {
        Out::Withheld(row, diff) => Some((row, diff)),
        Out::Said(_) => None,
    });
    let all: Rel<'scope> = all.as_collection().into();
    let said = out.flat_map(|out| match out {
        Out::Said(said) => Some(said),
        Out::Withheld(..) => None,
    });
    Gated { kept: only(&all, |value| matches!(value, Value::Name(_))), all, said }
}

fn only<'scope>(rows: &Rel<'scope>, which: fn(&Value) -> bool) -> Rel<'scope> {
    each(rows, move |name, value, out| {
        if which(&value) {
            out.push((name, value));
        }
    })
}

impl<'scope> Gated<'scope> {
    /// What is withheld of rows of a kind.
    pub(super) fn withheld(&self, which: fn(&Value) -> bool) -> Rel<'scope> {
        only(&self.all, which)
    }
}

/// Whose row it is.
fn tenant(value: &Value) -> Name {
    match value {
        Value::Member(live, _) | Value::Live(live) => live.says.scope.tenant_name,
        Value::Seen(seen) | Value::Loose(_, seen) => seen.id.scope.tenant_name,
        _ => unreachable!("no other rows come to the gate"),
    }
}

/// What a row is about: a record or an identifier.
fn subject(value: &Value) -> Name {
    match value {
        Value::Member(live, _) | Value::Live(live) => live.key,
        Value::Seen(seen) | Value::Loose(_, seen) => seen.name,
        _ => unreachable!("no other rows come to the gate"),
    }
}

/// The record of a row, and the device that it is in.
fn record((name, value): &Row) -> Option<(Option<Name>, &Live)> {
    match value {
        Value::Member(live, _) => Some((Some(*name), live)),
        Value::Live(live) => Some((None, live)),
        _ => None,
    }
}

/// The names that tie a row to others: its subject, and the device it is in.
fn names((name, value): &Row) -> [Name; 2] {
    let device = matches!(value, Value::Member(..) | Value::Seen(_));
    [subject(value), if device { *name } else { subject(value) }]
}

/// What is known of a tenant.
#[derive(Default)]
struct Tenant {
    lasting: Lasting,
    /// Records of published devices.
    sizes: Sizes,
    /// Published records by source.
    records: BTreeMap<u32, isize>,
    /// The clusters that names are in.
    clustered: BTreeMap<Name, u64>,
}

/// What is kept of a tenant over a restart.
#[derive(Default, Serialize, Deserialize)]
struct Lasting {
    brakes: Brakes,
    sources: BTreeMap<u32, Source>,
    clusters: BTreeMap<u64, Cluster>,
    /// Runs and clusters there were.
    count: u64,
}

/// Looked up, never iterated.
#[allow(clippy::disallowed_types)]
type Sizes = std::collections::HashMap<Name, i32>;

impl Serialize for Tenant {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.lasting.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let lasting = Lasting::deserialize(from)?;
        let mut tenant = Tenant::default();
        for (id, cluster) in &lasting.clusters {
            // All that there is comes again, with what was withheld in it.
            tenant.publish(cluster.rows.iter().map(|(row, n)| (row, -n)));
            tenant.clustered.extend(cluster.rows.keys().flat_map(names).map(|name| (name, *id)));
        }
        Ok(Tenant { lasting, ..tenant })
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Source {
    /// Its first run.
    first: Option<u32>,
    /// It lists its items.
    lists: bool,
    /// It has listed them completely.
    listed: bool,
    runs: BTreeMap<u32, Run>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Run {
    key: Option<ListingKey>,
    name: String,
    nth: u64,
    approved: bool,
    rejected: bool,
    merged: usize,
    added: usize,
    /// Records of its source when it began.
    of: usize,
}

/// Rows that stay as they were.
#[derive(Serialize, Deserialize)]
struct Cluster {
    /// The run that changed it last.
    by: RunName,
    does: Does,
    rows: BTreeMap<Row, isize>,
}

/// What a set of changes does that a run may not do too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Does {
    /// Published devices that become part of others.
    merges: usize,
    /// Records of the largest device that grows, if that is too large.
    records: usize,
    /// Records that are new.
    added: usize,
}

/// Changes, weighed.
#[derive(Default)]
struct Weighed {
    /// By device that takes others in, or grows too large.
    devices: BTreeMap<Name, Does>,
    /// By device: the runs that changed records of it.
    blame: BTreeMap<Name, BTreeSet<RunName>>,
    /// By run that lists its source: names of what is new.
    added: BTreeMap<RunName, Vec<Name>>,
}

impl Tenant {
    /// What changes do to what is published.
    fn weigh<'a>(&self, rows: impl Iterator<Item = (&'a Row, isize)>) -> Weighed {
        #[derive(Default)]
        struct Moved<'a> {
            from: Option<(Option<Name>, &'a Live)>,
            to: Option<(Option<Name>, &'a Live)>,
        }
        let mut records: BTreeMap<Name, Moved<'a>> = BTreeMap::new();
        for (row, diff) in rows {
            if let Some((device, live)) = record(row) {
                let moved = records.entry(live.key).or_default();
                *(if diff < 0 { &mut moved.from } else { &mut moved.to }) = Some((device, live));
            }
        }
        let mut weighed = Weighed::default();
        let mut grows: BTreeMap<Name, i64> = BTreeMap::new();
        let mut into: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (key, Moved { from, to }) in &records {
            let device = |at: &Option<(Option<Name>, &Live)>| at.and_then(|(device, _)| device);
            let (left, entered) = (device(from), device(to));
            if left != entered {
                left.into_iter().for_each(|d| *grows.entry(d).or_default() -= 1);
                entered.into_iter().for_each(|d| *grows.entry(d).or_default() += 1);
                if let (Some(left), Some(entered)) = (left, entered) {
                    into.entry(entered).or_default().insert(left);
                }
            }
            let Some((_, new)) = to else { continue };
            if from.is_none_or(|(_, old)| old.hash != new.hash) {
                for at in left.into_iter().chain([entered.unwrap_or(*key)]) {
                    weighed.blame.entry(at).or_default().insert(new.by);
                }
            }
            if from.is_none() && self.lasting.sources.get(&new.by.source).is_some_and(|s| s.lists) {
                weighed.added.entry(new.by).or_default().push(entered.unwrap_or(*key));
            }
        }
        let was = |device: &Name| i64::from(self.sizes.get(device).copied().unwrap_or(0));
        let is = |device: &Name| was(device) + grows.get(device).copied().unwrap_or(0);
        for (device, grown) in &grows {
            let taken_in = into.get(device).into_iter().flatten().filter(|from| was(from) > 0 && is(from) == 0).count();
            let merges = (taken_in + usize::from(was(device) > 0)).saturating_sub(1);
            let large = *grown > 0 && is(device) > i64::from(self.lasting.brakes.max_component);
            if merges > 0 || large {
                let records = if large { is(device) as usize } else { 0 };
                weighed.devices.insert(*device, Does { merges, records, added: 0 });
            }
        }
        // Who takes a device in is changed by whoever changed that.
        for (device, from) in &into {
            let blamed: Vec<RunName> = from.iter().filter_map(|d| weighed.blame.get(d)).flatten().copied().collect();
            weighed.blame.entry(*device).or_default().extend(blamed);
        }
        weighed
    }

    /// Whether a run may do anything.
    fn exempt(&self, by: RunName) -> bool {
        let Some(source) = self.lasting.sources.get(&by.source) else { return true };
        let first = if source.lists { !source.listed } else { source.first == Some(by.run) };
        first || source.runs.get(&by.run).is_some_and(|run| run.approved)
    }

    /// What is known of a run; of a source the newest are, and those that are held.
    fn run(&mut self, by: RunName) -> &mut Run {
        let Lasting { sources, clusters, count, .. } = &mut self.lasting;
        *count += 1;
        let nth = *count;
        let source = sources.entry(by.source).or_default();
        if !source.runs.contains_key(&by.run) && source.runs.len() >= MAX_RUNS {
            let held: BTreeSet<u32> =
                clusters.values().filter(|c| c.by.source == by.source).map(|c| c.by.run).collect();
            let idle = source.runs.iter().filter(|(run, _)| !held.contains(run));
            if let Some(oldest) = idle.min_by_key(|(_, run)| run.nth).map(|(run, _)| *run) {
                source.runs.remove(&oldest);
            }
        }
        let of = self.records.get(&by.source).copied().unwrap_or(0).max(0) as usize;
        source.runs.entry(by.run).or_insert_with(|| Run { nth, of, ..Run::default() })
    }

    /// The devices that changes go too far with, by the run that does.
    fn judge(&mut self, rows: &[(Row, isize)]) -> BTreeMap<Name, (RunName, Does)> {
        let weighed = self.weigh(rows.iter().map(|(row, diff)| (row, *diff)));
        let mut held: BTreeMap<Name, (RunName, Does)> = BTreeMap::new();
        let mut of_run: BTreeMap<RunName, Vec<(Name, Does)>> = BTreeMap::new();
        for (device, does) in weighed.devices {
            for by in weighed.blame.get(&device).into_iter().flatten().filter(|by| !self.exempt(**by)) {
                of_run.entry(*by).or_default().push((device, does));
            }
        }
        let max_merges = self.lasting.brakes.max_merges as usize;
        for (by, devices) in of_run {
            let run = self.run(by);
            run.merged += devices.iter().map(|(_, does)| does.merges).sum::<usize>();
            let too_many = run.merged > max_merges;
            held.extend(
                devices
                    .into_iter()
                    .filter(|(_, does)| does.records > 0 || (too_many && does.merges > 0))
                    .map(|(device, does)| (device, (by, does))),
            );
        }
        for (by, names) in weighed.added {
            if self.exempt(by) {
                continue;
            }
            let run = self.run(by);
            run.added += names.len();
            if too_many(run.added, run.of) {
                for name in names {
                    held.entry(name).or_insert((by, Does::default())).1.added += 1;
                }
            }
        }
        held
    }

    /// Takes out of changes those that are tied to a cluster, or to a device that is `held`.
    fn withhold(
        &mut self,
        rows: Vec<(Row, isize)>,
        held: &BTreeMap<Name, (RunName, Does)>,
        out: &mut Vec<Out>,
    ) -> (Vec<(Row, isize)>, BTreeSet<u64>) {
        let mut ties = Ties::default();
        for (row, _) in &rows {
            let [a, b] = names(row);
            ties.tie(a, b);
        }
        let mut touched: BTreeMap<Name, u64> = BTreeMap::new();
        let known: Vec<Name> = ties.0.keys().copied().filter(|name| self.clustered.contains_key(name)).collect();
        for name in known {
            let Some(cluster) = self.clustered.get(&name).copied() else { continue };
            let into = *touched.entry(ties.root(name)).or_insert(cluster);
            if into != cluster {
                self.join(cluster, into);
                touched.values_mut().filter(|c| **c == cluster).for_each(|c| *c = into);
            }
        }
        for (device, (by, does)) in held {
            let Lasting { clusters, count, .. } = &mut self.lasting;
            touched.entry(ties.root(*device)).or_insert_with(|| {
                *count += 1;
                clusters.insert(*count, Cluster { by: *by, does: *does, rows: BTreeMap::new() });
                *count
            });
        }
        let mut through = Vec::with_capacity(rows.len());
        let mut changed: BTreeSet<Name> = BTreeSet::new();
        for (row, diff) in rows {
            let Some(cluster) = touched.get(&ties.root(subject(&row.1))).copied() else {
                through.push((row, diff));
                continue;
            };
            changed.extend(names(&row));
            withheld(&row, diff, out);
            if let Some(cluster) = self.lasting.clusters.get_mut(&cluster) {
                let n = cluster.rows.entry(row.clone()).or_default();
                *n += diff;
                if *n == 0 {
                    cluster.rows.remove(&row);
                }
            }
        }
        let touched: BTreeSet<u64> = touched.into_values().collect();
        // Names are tied to a cluster by the rows in it: those that say again what is published do not count.
        for name in changed {
            self.clustered.remove(&name);
        }
        for (id, cluster) in touched.iter().filter_map(|id| Some((id, self.lasting.clusters.get(id)?))) {
            self.clustered.extend(cluster.rows.keys().flat_map(names).map(|name| (name, *id)));
        }
        (through, touched)
    }

    /// Makes two clusters one.
    fn join(&mut self, from: u64, into: u64) {
        let Some(gone) = self.lasting.clusters.remove(&from) else { return };
        self.clustered.extend(gone.rows.keys().flat_map(names).map(|name| (name, into)));
        if let Some(into) = self.lasting.clusters.get_mut(&into) {
            for (row, diff) in gone.rows {
                *into.rows.entry(row).or_default() += diff;
            }
            into.rows.retain(|_, n| *n != 0);
        }
    }

    /// Notes what is published.
    fn publish<'a>(&mut self, rows: impl Iterator<Item = (&'a Row, isize)>) {
        for (row, diff) in rows {
            let Some((device, live)) = record(row) else { continue };
            *self.records.entry(live.by.source).or_default() += diff;
            if let Some(device) = device {
                let size = self.sizes.entry(device).or_default();
                *size += diff as i32;
                if *size == 0 {
                    self.sizes.remove(&device);
                }
            }
        }
    }

    /// Lets a cluster through.
    fn let_through(&mut self, cluster: u64, out: &mut Vec<Out>) {
        let Some(gone) = self.lasting.clusters.remove(&cluster) else { return };
        for (row, diff) in &gone.rows {
            withheld(row, -diff, out);
        }
        self.publish(gone.rows.iter().map(|(row, n)| (row, *n)));
        for name in gone.rows.keys().flat_map(names) {
            self.clustered.remove(&name);
        }
    }

    /// Looks again at clusters that changed.
    fn reconsider(&mut self, clusters: BTreeSet<u64>, out: &mut Vec<Out>) {
        for id in clusters {
            let Some(cluster) = self.lasting.clusters.get(&id) else { continue };
            let weighed = self.weigh(cluster.rows.iter().map(|(row, n)| (row, *n)));
            let mut does = Does::default();
            for d in weighed.devices.values() {
                does.merges += d.merges;
                does.records = does.records.max(d.records);
            }
            let added = weighed.added.iter().filter(|(by, _)| !self.exempt(**by));
            does.added = added.map(|(_, names)| names.len()).sum();
            let blamed: BTreeSet<RunName> =
                weighed.blame.values().flatten().copied().filter(|by| !self.exempt(*by)).collect();
            // Who held it, as long as it is of that; else the next run of the same source.
            let by = blamed.get(&cluster.by).or_else(|| {
                let nth = |by: &RunName| self.lasting.sources.get(&by.source)?.runs.get(&by.run).map(|run| run.nth);
                blamed.iter().max_by_key(|by| (by.source == cluster.by.source, nth(by)))
            });
            match by.copied() {
                Some(by) if does != Does::default() => {
                    self.run(by);
                    self.lasting.clusters.entry(id).and_modify(|cluster| (cluster.does, cluster.by) = (does, by));
                }
                _ => self.let_through(id, out),
            }
        }
    }

    /// Does what an operator decided; if the run is not held here, says which runs of its source are.
    fn decide(&mut self, key: &ListingKey, decision: &RunDecision, out: &mut Vec<Out>) -> Result<(), Vec<String>> {
        let named = |run: &Run| run.key.as_ref() == Some(key) && run.name == decision.run.trim();
        let found = self.lasting.sources.iter().find_map(|(source, s)| {
            let run = s.runs.iter().find(|(_, run)| named(run))?;
            Some(RunName { source: *source, run: *run.0 })
        });
        let held = self.lasting.clusters.iter().filter(|(_, c)| Some(c.by) == found).map(|(id, _)| *id);
        let held: Vec<u64> = held.collect();
        let (Some(by), false) = (found, held.is_empty()) else {
            let of_source = |by: &RunName| {
                let run = self.lasting.sources.get(&by.source)?.runs.get(&by.run)?;
                (run.key.as_ref() == Some(key)).then(|| run.name.clone())
            };
            let others: BTreeSet<String> =
                self.lasting.clusters.values().filter_map(|cluster| of_source(&cluster.by)).collect();
            return Err(others.into_iter().collect());
        };
        let run = self.run(by);
        run.approved = decision.release;
        run.rejected = !decision.release;
        if decision.release {
            held.into_iter().for_each(|cluster| self.let_through(cluster, out));
        }
        Ok(())
    }

    /// What is held and nobody has decided about.
    fn conditions(&self) -> BTreeMap<RunName, (AlertKey, Condition)> {
        let mut of_run: BTreeMap<RunName, Does> = BTreeMap::new();
        for cluster in self.lasting.clusters.values() {
            let does = of_run.entry(cluster.by).or_default();
            does.merges += cluster.does.merges;
            does.added += cluster.does.added;
            does.records = does.records.max(cluster.does.records);
        }
        let said = of_run.into_iter().filter_map(|(by, does)| {
            let run = self.lasting.sources.get(&by.source)?.runs.get(&by.run).filter(|run| !run.rejected)?;
            Some((by, condition(run.key.as_ref()?, &run.name, does)))
        });
        said.collect()
    }
}

/// Withholds changes of a row; what an identifier would leave, it stays with.
fn withheld(row: &Row, diff: isize, out: &mut Vec<Out>) {
    out.push(Out::Withheld(row.clone(), diff));
    if let (device, Value::Seen(seen)) = row {
        out.push(Out::Withheld((seen.name, Value::Name(*device)), -diff));
    }
}

fn condition(key: &ListingKey, run: &str, does: Does) -> (AlertKey, Condition) {
    let source = format!("{}/{}", key.kind.name(), key.instance);
    let subject = Subject {
        tenant: key.tenant.clone(),
        partition: "default".to_owned(),
        rule: "run-held".to_owned(),
        entity: format!("{source}/{run}"),
    };
    let counted = |n: usize, text: String| (n > 0).then_some(text);
    let acts: Vec<String> = [
        counted(does.merges, format!("merge {} devices", does.merges)),
        counted(does.records, format!("make one of {} records", does.records)),
        counted(does.added, format!("add {} records", does.added)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let condition = Condition {
        rule: subject.rule.clone(),
        severity: "warning".to_owned(),
        title: format!("run {run} of {source} would {} and is held", acts.join(" and ")),
        description: format!(
            "the devices that it touches stay as they are until somebody releases run {run}, or what it says is corrected"
        ),
        source_type: "source".to_owned(),
        source_id: source,
        device_uid: None,
        agent_uid: None,
        labels: BTreeMap::from([("run".to_owned(), run.to_owned())]),
    };
    (AlertKey::of_subject(subject), condition)
}

/// Names that have something to do with each other.
#[derive(Default)]
struct Ties(BTreeMap<Name, Name>);

impl Ties {
    fn root(&mut self, name: Name) -> Name {
        let mut root = name;
        while let Some(up) = self.0.get(&root).filter(|up| **up != root) {
            root = *up;
        }
        let mut at = name;
        while at != root {
            at = self.0.insert(at, root).unwrap_or(root);
        }
        root
    }

    fn tie(&mut self, a: Name, b: Name) {
        let (a, b) = (self.root(a), self.root(b));
        self.0.insert(a.max(b), a.min(b));
        self.0.entry(a.min(b)).or_insert(a.min(b));
    }
}

/// Judges what runs do.
struct Gate;

impl Machine for Gate {
    type Key = Name;
    type Event = Arriving;
    type State = Tenant;
    type Output = Out;
    const NAME: &'static str = "gate";

    fn step(&mut self, _: &Tick, _: &Name, state: &mut Option<Tenant>, events: Vec<Arriving>, out: &mut Vec<Out>) {
        let tenant = state.get_or_insert_default();
        let before = tenant.conditions();
        let (mut rows, mut runs) = (Vec::new(), Vec::new());
        for arriving in events {
            match arriving {
                Arriving::Row(row, diff) => rows.push((row, diff)),
                Arriving::Run(key, event) => runs.push((key, event)),
            }
        }
        consolidate(&mut rows);
        // They come from all workers, in any order.
        runs.sort_by(|a, b| a.1.order().cmp(&b.1.order()));
        runs.dedup_by(|b, a| matches!(a.1, RunEvent::Began { .. }) && a.1.order() == b.1.order());
        let mut ends = Vec::new();
        for (key, event) in runs {
            match event {
                RunEvent::Began { by, run: name, lists, approved } => {
                    tenant.lasting.sources.entry(by.source).or_default().lists |= lists;
                    let run = tenant.run(by);
                    run.approved |= approved;
                    (run.key, run.name) = (Some(key), name);
                }
                RunEvent::Brakes(brakes) => tenant.lasting.brakes = brakes,
                event => ends.push((key, event)),
            }
        }
        for (row, diff) in &rows {
            if let (Some((_, live)), 1..) = (record(row), *diff) {
                tenant.lasting.sources.entry(live.by.source).or_default().first.get_or_insert(live.by.run);
            }
        }
        let mut touched = BTreeSet::new();
        if !tenant.lasting.clusters.is_empty() {
            (rows, touched) = tenant.withhold(rows, &BTreeMap::new(), out);
        }
        let held = tenant.judge(&rows);
        if !held.is_empty() {
            let (through, new) = tenant.withhold(rows, &held, out);
            rows = through;
            touched.extend(new);
        }
        tenant.publish(rows.iter().map(|(row, n)| (row, *n)));
        tenant.reconsider(touched, out);
        for (key, event) in ends {
            match event {
                RunEvent::Complete(by) => tenant.lasting.sources.entry(by.source).or_default().listed = true,
                RunEvent::Decide(decision, listing) => {
                    let refused = match tenant.decide(&key, &decision, out) {
                        Err(mut others) => listing.err().map(|listing| {
                            others.extend(listing);
                            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
                            format!("run {} is not held; held: {others}", decision.run)
                        }),
                        Ok(()) => None,
                    };
                    out.push(Out::Said(GateOut::Outcome(Outcome { command_id: decision.command_id, refused })));
                }
                RunEvent::Began { .. } | RunEvent::Brakes(_) => {}
            }
        }
        let after = tenant.conditions();
        let held = |(key, condition): &(AlertKey, Condition), diff| {
            Out::Said(GateOut::Held(key.clone(), condition.clone(), diff))
        };
        out.extend(before.iter().filter(|(by, was)| after.get(by) != Some(was)).map(|(_, was)| held(was, -1)));
        out.extend(after.iter().filter(|(by, is)| before.get(by) != Some(is)).map(|(_, is)| held(is, 1)));
    }

    fn due_ms(&self, _: &Tenant) -> Option<i64> {
        None
    }

    fn restored(&mut self, _: &Name, state: &Tenant, out: &mut Vec<Out>) {
        for (row, diff) in state.lasting.clusters.values().flat_map(|c| &c.rows) {
            withheld(row, *diff, out);
        }
        let held = state.conditions().into_values();
        out.extend(held.map(|(key, condition)| Out::Said(GateOut::Held(key, condition, 1))));
    }

    fn again(&mut self, _: &Name, state: &mut Option<Tenant>, arriving: Arriving) {
        if let Arriving::Row(row, diff) = arriving {
            state.get_or_insert_default().publish(std::iter::once((&row, diff)));
        }
    }
}

/// Sums what is said of a row.
fn consolidate(rows: &mut Vec<(Row, isize)>) {
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|next, row| {
        let same = next.0 == row.0;
        row.1 += if same { next.1 } else { 0 };
        same
    });
    rows.retain(|(_, n)| *n != 0);
}
