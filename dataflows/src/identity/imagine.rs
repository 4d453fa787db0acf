//! What identity would be, were something else true: an engine of its own on a few records, which lives as long as the
//! question. Nothing of the running one is touched, and there is no second definition.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Fact, IpLink, Link};
use radarflow_proto::ports::{FoundRecord, Imagine, Imagined, Placements, Supposed};
use radarflow_proto::record::{Identifier, RecordKey};
use radarflow_reconcile::identity::assertions::{Scope, is_global, mac_identifier};
use radarflow_reconcile::identity::name::{Name, identifier_uid, name};

use super::engine::{Outs, Steps, Tenant, Word};
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

    fn settled(&self) -> Vec<(Arc<Scope>, (Name, Name))> {
        let of = |version: Live, found: &FoundRecord| -> Vec<(Arc<Scope>, (Name, Name))> {
            let addresses = version.says.ips.iter().filter(|a| found.settled.contains(&a.ip));
            addresses.map(|a| (version.says.scope.clone(), (version.key, a.name))).collect()
        };
        self.versions().into_iter().zip(self.records.values()).flat_map(|(version, found)| of(version, found)).collect()
    }

    fn aliases(&self) -> Vec<(Arc<Scope>, (Name, (IpAddr, Time)))> {
        let of = |(version, found): (Live, &FoundRecord)| -> Vec<_> {
            found.aliases.iter().map(|alias| (version.says.scope.clone(), (version.key, *alias))).collect()
        };
        self.versions().into_iter().zip(self.records.values()).flat_map(of).collect()
    }

    fn links(&self) -> Vec<Link> {
        let links = self.facts.values().filter_map(|fact| if let Fact::Link(link) = fact { Some(link) } else { None });
        links.cloned().collect()
    }

    /// All that identity hears of it; what only `before` asserts is remembered.
    fn words(&self, before: &World) -> Vec<Word> {
        let mut words: Vec<Word> = self.versions().into_iter().map(Word::Record).collect();
        words.extend(self.seen(before).into_iter().map(Word::Seen));
        words.extend(self.settled().into_iter().map(|(scope, settled)| Word::Settled(scope, settled)));
        words.extend(self.aliases().into_iter().map(|(scope, alias)| Word::Alias(scope, alias)));
        words.extend(self.links().into_iter().map(Word::Link));
        words.extend(self.ip_links().into_iter().map(|(tenant, policy)| Word::Policy(tenant, policy)));
        words
    }

    fn ip_links(&self) -> Vec<(String, IpLink)> {
        let policy = |fact: &Fact| match fact {
            Fact::IpLink { tenant, policy, .. } => Some((tenant.clone(), *policy)),
            _ => None,
        };
        self.facts.values().filter_map(policy).collect()
    }
}

/// Words that change from one world to the other.
fn updates(before: Vec<Word>, after: Vec<Word>) -> impl Iterator<Item = (Word, isize)> {
    before.into_iter().map(|word| (word, -1)).chain(after.into_iter().map(|word| (word, 1)))
}

/// Where each record is, before and after.
pub fn imagine(question: &Imagine) -> Imagined {
    let before = World::of(question);
    let after = before.suppose(&question.then);
    let mut tenants: BTreeMap<Name, Tenant> = BTreeMap::new();
    let mut step = |words: Vec<(Word, isize)>| {
        let mut heard: BTreeMap<Name, Vec<(Word, isize)>> = BTreeMap::new();
        for (word, diff) in words {
            heard.entry(word.tenant()).or_default().push((word, diff));
        }
        for (name, words) in heard {
            let tenant = tenants.entry(name).or_insert_with(|| Tenant::new(None));
            tenant.step(words, &Steps::new(), false, false, &mut Outs::default());
        }
        let sites = tenants.values().flat_map(|tenant| tenant.sites.values());
        let placed = sites.flat_map(|site| site.placed());
        placed.map(|(live, how, uid)| (live.record().key, (uid.to_string(), how.name()))).collect::<Placements>()
    };
    let was = before.words(&before);
    let is = after.words(&before);
    let placed = step(was.iter().map(|word| (word.clone(), 1)).collect());
    Imagined { before: placed, after: step(updates(was, is).collect()) }
}
