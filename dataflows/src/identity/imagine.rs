//! What identity would be, were something else true: the same relations, on a few records, in a dataflow of their own
//! that lives as long as the question. Nothing of the running one is touched, and there is no second definition.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Fact, IpLink, Link};
use radarflow_proto::ports::{FoundRecord, Imagine, Imagined, Supposed};
use radarflow_proto::record::{Identifier, RecordKey};
use radarflow_reconcile::identity::assertions::{Scope, is_global, mac_identifier};
use radarflow_reconcile::identity::name::{Name, identifier_uid, name};
use timely::dataflow::operators::vec::Input;
use timely::dataflow::operators::{Inspect, Probe};

use super::{Inputs, build};
use crate::keyed::{Context, Restored};
use crate::records::{Asserted, FirstSeen, Live, Version};

/// Everything that identity reads.
#[derive(Clone, Default)]
struct World {
    records: BTreeMap<RecordKey, FoundRecord>,
    facts: BTreeMap<String, Fact>,
    first_seen: BTreeMap<Identifier, Time>,
}

impl World {
    fn of(question: &Imagine) -> Self {
        let mut world = World { first_seen: question.first_seen.iter().cloned().collect(), ..World::default() };
        world.records = question.records.iter().map(|found| (found.record.key.clone(), found.clone())).collect();
        question.facts.iter().for_each(|fact| world.state(fact));
        world
    }

    fn state(&mut self, fact: &Fact) {
        self.facts.extend(fact.subject().map(|subject| (subject, fact.clone())));
    }

    fn suppose(&self, then: &[Supposed]) -> Self {
        let mut world = self.clone();
        for supposed in then {
            match supposed {
                Supposed::Fact(fact) => world.state(fact),
                Supposed::Gone(key) => drop(world.records.remove(key)),
                Supposed::Record(record) => {
                    let new = FoundRecord { record: record.clone(), ..FoundRecord::default() };
                    world.records.entry(record.key.clone()).or_insert(new).record = record.clone();
                }
            }
        }
        world
    }

    fn versions(&self) -> Vec<Live> {
        let version = |found: &FoundRecord| {
            let version = Version::new(&found.record);
            if found.stale { version.grown_stale() } else { version }.into()
        };
        self.records.values().map(version).collect()
    }

    /// What is remembered of identifiers; of those that only `before` asserts, the record that did.
    fn seen(&self, before: &World) -> Vec<FirstSeen> {
        let mut all: BTreeMap<Name, FirstSeen> = BTreeMap::new();
        for (world, live) in [(self, true), (before, false)] {
            for found in world.records.values() {
                let record = &found.record;
                let scope = Scope::of(&record.key.tenant, &record.partition);
                let mac = |m: &String| u64::from_str_radix(m, 16).ok().filter(|m| is_global(*m)).map(mac_identifier);
                for id in record.ids.iter().cloned().chain(record.macs.iter().filter_map(mac)) {
                    let id_name = scope.id(&id).name;
                    let known = self.first_seen.get(&id).copied().unwrap_or(record.event_time);
                    let uid = identifier_uid(&scope.partition, &id).into();
                    let seen = all.entry(id_name).or_insert_with(|| FirstSeen {
                        name: id_name,
                        first: known,
                        id: Asserted { scope: scope.clone(), uid, id }.into(),
                        last_record: (!live).then(|| name(&record.key)),
                    });
                    seen.first = seen.first.min(known);
                }
            }
        }
        all.into_values().collect()
    }

    fn settled(&self) -> Vec<(Name, Name)> {
        let of = |version: Live, found: &FoundRecord| -> Vec<(Name, Name)> {
            let addresses = version.says.ips.iter().filter(|a| found.settled.contains(&a.ip));
            addresses.map(|a| (version.key, a.name)).collect()
        };
        self.versions().into_iter().zip(self.records.values()).flat_map(|(version, found)| of(version, found)).collect()
    }

    fn aliases(&self) -> Vec<(Name, (IpAddr, Time))> {
        let of = |(version, found): (Live, &FoundRecord)| {
            found.aliases.iter().map(|alias| (version.key, *alias)).collect::<Vec<_>>()
        };
        self.versions().into_iter().zip(self.records.values()).flat_map(of).collect()
    }

    fn links(&self) -> Vec<Link> {
        let links = self.facts.values().filter_map(|fact| if let Fact::Link(link) = fact { Some(link) } else { None });
        links.cloned().collect()
    }

    fn ip_links(&self) -> Vec<(String, IpLink)> {
        let policy = |fact: &Fact| match fact {
            Fact::IpLink { tenant, policy, .. } => Some((tenant.clone(), *policy)),
            _ => None,
        };
        self.facts.values().filter_map(policy).collect()
    }
}

/// What changes from one set of rows to another, in two epochs.
fn updates<D: Clone>(before: &[D], after: &[D]) -> [Vec<(D, u64, isize)>; 2] {
    let row = |epoch, diff| move |row: &D| (row.clone(), epoch, diff);
    let later = before.iter().map(row(1, -1)).chain(after.iter().map(row(1, 1))).collect();
    [before.iter().map(row(0, 1)).collect(), later]
}

/// Where each record is, before and after.
pub fn imagine(question: &Imagine) -> Imagined {
    let before = World::of(question);
    let after = before.suppose(&question.then);
    let versions = updates(&before.versions(), &after.versions());
    let seen = updates(&before.seen(&before), &after.seen(&before));
    let settled = updates(&before.settled(), &after.settled());
    let aliases = updates(&before.aliases(), &after.aliases());
    let links = updates(&before.links(), &after.links());
    let ip_links = updates(&before.ip_links(), &after.ip_links());
    let placed = timely::execute::execute_directly(move |worker| {
        let placed = Rc::new(RefCell::new(Vec::new()));
        let said = placed.clone();
        let cx = Context::new(worker.index(), worker.peers(), 0, Restored::new());
        let (mut inputs, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (versions, of_versions) = scope.new_input();
            let (seen, of_seen) = scope.new_input();
            let (settled, of_settled) = scope.new_input();
            let (aliases, of_aliases) = scope.new_input();
            let (links, of_links) = scope.new_input();
            let (ip_links, of_ip_links) = scope.new_input();
            let (steps, of_steps) = scope.new_input();
            let inputs = Inputs {
                records: of_versions.as_collection(),
                first_seen: of_seen.as_collection(),
                settled: of_settled.as_collection(),
                aliases: of_aliases.as_collection(),
                links: of_links.as_collection(),
                ip_links: of_ip_links.as_collection(),
                steps: of_steps.as_collection(),
                runs: None,
            };
            let placed = build(&cx, inputs).audit.inner.inspect(move |((live, how, uid), epoch, diff)| {
                said.borrow_mut().push((live.key, *how, uid.clone(), *epoch, *diff));
            });
            ((versions, seen, settled, aliases, links, ip_links, steps), placed.probe().0)
        });
        let parts = versions.into_iter().zip(seen).zip(settled).zip(aliases).zip(links).zip(ip_links);
        for (epoch, (((((mut versions, mut seen), mut settled), mut aliases), mut links), mut ip_links)) in
            (1..).zip(parts)
        {
            inputs.0.send_batch(&mut versions);
            inputs.1.send_batch(&mut seen);
            inputs.2.send_batch(&mut settled);
            inputs.3.send_batch(&mut aliases);
            inputs.4.send_batch(&mut links);
            inputs.5.send_batch(&mut ip_links);
            inputs.0.advance_to(epoch);
            inputs.1.advance_to(epoch);
            inputs.2.advance_to(epoch);
            inputs.3.advance_to(epoch);
            inputs.4.advance_to(epoch);
            inputs.5.advance_to(epoch);
            inputs.6.advance_to(epoch);
            worker.step_while(|| probe.less_than(&epoch));
        }
        placed.take()
    });
    let mut at: [BTreeMap<(Name, &'static str, String), isize>; 2] = Default::default();
    for (record, how, uid, epoch, diff) in placed {
        for world in &mut at[epoch as usize..] {
            *world.entry((record, how.name(), uid.to_string())).or_default() += diff;
        }
    }
    let named = |world: &World| -> BTreeMap<Name, RecordKey> {
        world.records.keys().map(|key| (name(key), key.clone())).collect()
    };
    let there = |at: &BTreeMap<(Name, &'static str, String), isize>, world: &World| {
        let keys = named(world);
        let there = at.iter().filter(|(_, n)| **n > 0);
        there.filter_map(|((r, how, uid), _)| Some((keys.get(r)?.clone(), (uid.clone(), *how)))).collect()
    };
    Imagined { before: there(&at[0], &before), after: there(&at[1], &after) }
}
