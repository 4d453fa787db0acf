//! What of a tenant is withheld: changes that one run should not make unasked, in clusters of what they have in common.
//!
//! A *cluster* is what rows that changed have in common, and all that is said of any of it from then on. It is withheld as
//! long as it does what a run may not: merge too many devices, make one too large, add too much. Everything here is a
//! function of the changes and of what is published; of that only sizes are known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::fact::RunDecision;
use radarflow_reconcile::brakes::{Brakes, too_many};
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::How;
use super::engine::{Row, Said, Unresolved};
use crate::keyed::{Restored, put_state, take_state};
use crate::listings::ListingKey;
use crate::records::{FirstSeen, Live, RunName};

/// Runs of a source that are remembered, besides those that are held.
const MAX_RUNS: usize = 4;

/// What a row is about: a record or an identifier.
fn subject(said: &Said) -> Name {
    match said {
        Said::Member(live, _) | Said::Rest(live) => live.key,
        Said::Held(seen) | Said::Loose(_, seen) => seen.name,
    }
}

/// The record of a row, and the device that it is in.
fn record((name, said): &Row) -> Option<(Option<Name>, &Live)> {
    match said {
        Said::Member(live, _) => Some((Some(*name), live)),
        Said::Rest(live) => Some((None, live)),
        Said::Held(_) | Said::Loose(..) => None,
    }
}

/// The names that tie a row to others: its subject, and the device it is in.
fn names((name, said): &Row) -> [Name; 2] {
    let device = matches!(said, Said::Member(..) | Said::Held(_));
    [subject(said), if device { *name } else { subject(said) }]
}

/// What is known of a tenant.
#[derive(Default)]
pub(super) struct Tenant {
    lasting: Lasting,
    /// Records of published devices.
    sizes: Sizes,
    /// Published records by source.
    records: BTreeMap<u32, isize>,
    /// The clusters that names are in.
    clustered: BTreeMap<Name, u64>,
}

/// What is kept of a tenant over a restart, with rows as this build has them, or another had.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "R: Serialize + Ord", deserialize = "R: Deserialize<'de> + Ord"))]
struct Kept<R> {
    brakes: Brakes,
    sources: BTreeMap<u32, Source>,
    clusters: BTreeMap<u64, Cluster<R>>,
    /// Runs and clusters there were.
    count: u64,
}

type Lasting = Kept<Row>;

impl Default for Lasting {
    fn default() -> Self {
        Kept { brakes: Brakes::default(), sources: BTreeMap::new(), clusters: BTreeMap::new(), count: 0 }
    }
}

/// What was said under a name when identity was made of relations; a row of the gate was one of four of its values.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Value {
    There,
    Name,
    Policy,
    Live(Live),
    Member(Live, How),
    Placed,
    Claimant,
    Seen(Arc<FirstSeen>),
    Loose(Unresolved, Arc<FirstSeen>),
}

/// Converts what was kept of tenants when identity was made of relations.
pub(super) fn of_relations(state: &mut Restored, collection: &str) -> Result<(), String> {
    let said = |(name, value): (Name, Value)| match value {
        Value::Live(live) => Ok((name, Said::Rest(live))),
        Value::Member(live, how) => Ok((name, Said::Member(live, how))),
        Value::Seen(seen) => Ok((name, Said::Held(seen))),
        Value::Loose(why, seen) => Ok((name, Said::Loose(why, seen))),
        Value::There | Value::Name | Value::Policy | Value::Placed | Value::Claimant => {
            Err("no such row comes to the gate".to_owned())
        }
    };
    let kept: Vec<(Name, Kept<(Name, Value)>)> = take_state(state, collection)?;
    for (tenant, Kept { brakes, sources, clusters, count }) in kept {
        let mut converted = BTreeMap::new();
        for (id, Cluster { by, does, rows }) in clusters {
            let rows = rows.into_iter().map(|(row, n)| Ok((said(row)?, n))).collect::<Result<_, String>>()?;
            converted.insert(id, Cluster { by, does, rows });
        }
        put_state(state, collection, [(tenant, Lasting { brakes, sources, clusters: converted, count })]);
    }
    Ok(())
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
#[serde(bound(serialize = "R: Serialize + Ord", deserialize = "R: Deserialize<'de> + Ord"))]
struct Cluster<R> {
    /// The run that changed it last.
    by: RunName,
    does: Does,
    rows: BTreeMap<R, isize>,
}

/// What a set of changes does that a run may not do too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Does {
    /// Published devices that become part of others.
    pub(super) merges: usize,
    /// Records of the largest device that grows, if that is too large.
    pub(super) records: usize,
    /// Records that are new.
    pub(super) added: usize,
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
    /// A run says its first.
    pub(super) fn began(&mut self, key: ListingKey, by: RunName, name: String, lists: bool, approved: bool) {
        self.lasting.sources.entry(by.source).or_default().lists |= lists;
        let run = self.run(by);
        run.approved |= approved;
        (run.key, run.name) = (Some(key), name);
    }

    /// A run has listed everything its source has.
    pub(super) fn listed(&mut self, by: RunName) {
        self.lasting.sources.entry(by.source).or_default().listed = true;
    }

    /// Sets how far runs may go.
    pub(super) fn brake(&mut self, brakes: Brakes) {
        self.lasting.brakes = brakes;
    }

    /// Takes in changes, each once; gives what is published. What is withheld of them, or no longer, goes `out`.
    pub(super) fn take(&mut self, mut rows: Vec<(Row, isize)>, out: &mut Vec<(Row, isize)>) -> Vec<(Row, isize)> {
        // Of several runs that are the first of a source, the one of the least row, whatever order they come in.
        let mut firsts: BTreeMap<u32, (&Row, u32)> = BTreeMap::new();
        for (row, diff) in &rows {
            if let (Some((_, live)), 1..) = (record(row), *diff)
                && self.lasting.sources.get(&live.by.source).is_none_or(|source| source.first.is_none())
            {
                let first = firsts.entry(live.by.source).or_insert((row, live.by.run));
                if row < first.0 {
                    *first = (row, live.by.run);
                }
            }
        }
        for (source, (_, run)) in firsts {
            self.lasting.sources.entry(source).or_default().first = Some(run);
        }
        let mut touched = BTreeSet::new();
        if !self.lasting.clusters.is_empty() {
            (rows, touched) = self.withhold(rows, &BTreeMap::new(), out);
        }
        let held = self.judge(&rows);
        if !held.is_empty() {
            let (through, new) = self.withhold(rows, &held, out);
            rows = through;
            touched.extend(new);
        }
        self.publish(rows.iter().map(|(row, n)| (row, *n)));
        let begin = out.len();
        self.reconsider(touched, out);
        rows.extend(out[begin..].iter().map(|(row, n)| (row.clone(), -n)));
        rows
    }

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
        let mut held: BTreeMap<Name, (RunName, Does)> = BTreeMap::new();
        // A first load is nothing to weigh: nobody would be blamed.
        let judged =
            |(row, diff): &(Row, isize)| *diff > 0 && record(row).is_some_and(|(_, live)| !self.exempt(live.by));
        if !rows.iter().any(judged) {
            return held;
        }
        let weighed = self.weigh(rows.iter().map(|(row, diff)| (row, *diff)));
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
        out: &mut Vec<(Row, isize)>,
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
            out.push((row.clone(), diff));
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
    pub(super) fn publish<'a>(&mut self, rows: impl Iterator<Item = (&'a Row, isize)>) {
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
    fn let_through(&mut self, cluster: u64, out: &mut Vec<(Row, isize)>) {
        let Some(gone) = self.lasting.clusters.remove(&cluster) else { return };
        for (row, diff) in &gone.rows {
            out.push((row.clone(), -diff));
        }
        self.publish(gone.rows.iter().map(|(row, n)| (row, *n)));
        for name in gone.rows.keys().flat_map(names) {
            self.clustered.remove(&name);
        }
    }

    /// Looks again at clusters that changed.
    fn reconsider(&mut self, clusters: BTreeSet<u64>, out: &mut Vec<(Row, isize)>) {
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
    pub(super) fn decide(
        &mut self,
        key: &ListingKey,
        decision: &RunDecision,
        out: &mut Vec<(Row, isize)>,
    ) -> Result<(), Vec<String>> {
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

    /// What is withheld.
    pub(super) fn withheld(&self) -> impl Iterator<Item = (&Row, isize)> {
        self.lasting.clusters.values().flat_map(|c| &c.rows).map(|(row, diff)| (row, *diff))
    }

    /// How many changes of rows are.
    pub(super) fn changes_withheld(&self) -> i64 {
        self.lasting.clusters.values().map(|cluster| cluster.rows.len() as i64).sum()
    }

    /// Runs that are held and nobody has decided about: their sources, what those call them, and what they do.
    pub(super) fn held(&self) -> BTreeMap<RunName, (ListingKey, String, Does)> {
        let mut of_run: BTreeMap<RunName, Does> = BTreeMap::new();
        for cluster in self.lasting.clusters.values() {
            let does = of_run.entry(cluster.by).or_default();
            does.merges += cluster.does.merges;
            does.added += cluster.does.added;
            does.records = does.records.max(cluster.does.records);
        }
        let said = of_run.into_iter().filter_map(|(by, does)| {
            let run = self.lasting.sources.get(&by.source)?.runs.get(&by.run).filter(|run| !run.rejected)?;
            Some((by, (run.key.clone()?, run.name.clone(), does)))
        });
        said.collect()
    }
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

/// Sums what is said of a row.
pub(super) fn consolidate(rows: &mut Vec<(Row, isize)>) {
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|next, row| {
        let same = next.0 == row.0;
        row.1 += if same { next.1 } else { 0 };
        same
    });
    rows.retain(|(_, n)| *n != 0);
}
