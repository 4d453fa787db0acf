//! What identity would make of another link, another policy, another record: which devices would merge, split, be called
//! otherwise. Nothing is applied.
//!
//! The records that the change can reach are those that share an identifier, a MAC or an address with what it names, and
//! those that share one with these, until there are no more; a policy reaches a whole site. They are many or few: where
//! there are more than [`MAX_LOOKED_AT`], the question is refused rather than answered by halves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Fact, IpLink, Link, LinkKind};
use radarflow_proto::ports::{
    FoundRecord, Imagine, Imagined, MAX_FOUND, MAX_OF_SITE, Placements, RecordQuery, Supposed,
};
use radarflow_proto::record::{IdKind, Identifier, Record, RecordKey};
use radarflow_proto::rows::{self, DeviceIdentifier};
use radarflow_reconcile::access::sees;
use radarflow_reconcile::identity::explain::label;
use radarflow_reconcile::identity::normalise;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::records::end::End;
use crate::records::{Refused, Sight};
use crate::tables::names::{identifier, leads_to, read_seed};
use crate::tables::view::View;

/// Records that are looked at at most.
pub(crate) const MAX_LOOKED_AT: usize = 20_000;
/// Identifiers asked for at once.
const ASKED_AT_ONCE: usize = 2000;
/// Rounds of looking for who shares something.
const MAX_ROUNDS: usize = 64;
/// Changes of one question.
const MAX_CHANGES: usize = 100;

/// What would be true instead.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The site it is asked of.
    #[serde(default)]
    partition: String,
    /// What would be otherwise, all of it at once.
    #[schema(min_items = 1, max_items = 100)]
    changes: Vec<Change>,
}

/// `corroborated`, `immediate`, `off`.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
struct Policy(IpLink);

/// Something that would be otherwise.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Change {
    /// Two identifiers named one device, or two.
    Link {
        #[schema(value_type = String, example = "must")]
        kind: LinkKind,
        a: End,
        b: End,
    },
    /// A link were taken back.
    Unlink { id: String },
    /// An address alone linked otherwise.
    Policy(Policy),
    /// A record said something else.
    Record(Edit),
    /// A record were gone: `kind/instance/key` of a device.
    Gone { device: String, record: String },
}

/// What a record would say: only what is named is another.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Edit {
    device: String,
    record: String,
    ips: Option<Vec<String>>,
    macs: Option<Vec<String>>,
    hostname: Option<String>,
    /// `type:value` or `type@instance:value`.
    #[serde(default)]
    with: Vec<String>,
    #[serde(default)]
    without: Vec<String>,
}

/// Everything a record may share with another.
fn shares(record: &Record) -> impl Iterator<Item = Identifier> + '_ {
    let weak = |kind, value: String| Identifier { kind, namespace: String::new(), value };
    let macs = record.macs.iter().chain(&record.macs_shown).map(move |m| weak(IdKind::Mac, m.clone()));
    let ips = record.ips.iter().map(move |ip| weak(IdKind::Ip, ip.to_string()));
    record.ids.iter().cloned().chain(macs).chain(ips)
}

impl Edit {
    fn apply(&self, record: &Record) -> Result<Record, Refused> {
        let mut record = record.clone();
        if let Some(ips) = &self.ips {
            let ip = |text: &String| {
                normalise::ip(text).ok_or_else(|| Refused::bad(format!("{text:?} is no device's address")))
            };
            record.ips = ips.iter().map(ip).collect::<Result<Vec<IpAddr>, _>>()?;
        }
        if let Some(macs) = &self.macs {
            let mac = |text: &String| Ok(identifier("mac", "", text)?.value);
            record.macs = macs.iter().map(mac).collect::<Result<_, Refused>>()?;
        }
        if let Some(hostname) = &self.hostname {
            record.hostname = normalise::hostname(hostname);
        }
        let without = self.without.iter().map(|text| read_seed(text)).collect::<Result<Vec<_>, _>>()?;
        record.ids.retain(|id| !without.contains(id));
        for id in self.with.iter().map(|text| read_seed(text)) {
            let id = id?;
            if !id.kind.is_strong() {
                return Err(Refused::bad(
                    "`with` names agent, armis, integration or netbox ids; MACs and addresses have fields",
                ));
            }
            if !record.ids.contains(&id) {
                record.ids.push(id);
            }
        }
        Ok(record)
    }
}

/// Records that share something, found round by round.
struct Neighbourhood {
    records: BTreeMap<RecordKey, FoundRecord>,
    asked: BTreeSet<Identifier>,
    ask: Vec<Identifier>,
}

impl Neighbourhood {
    fn take(&mut self, found: Vec<FoundRecord>) {
        for found in found {
            let new = shares(&found.record).filter(|id| !self.asked.contains(id)).collect::<Vec<_>>();
            self.want(new);
            self.records.insert(found.record.key.clone(), found);
        }
    }

    fn want(&mut self, ids: impl IntoIterator<Item = Identifier>) {
        for id in ids {
            if self.asked.insert(id.clone()) {
                self.ask.push(id);
            }
        }
    }
}

impl Sight<'_> {
    async fn reached(&self, wanted: RecordQuery, most: usize) -> Result<Vec<FoundRecord>, Refused> {
        let found = self.finder.records.find(wanted).await.ok_or(Refused::CatchingUp)?;
        // A worker that found so many stopped looking.
        if found.len() >= most { Err(Refused::TooFar) } else { Ok(found) }
    }

    /// Everything that the named devices and identifiers can reach.
    async fn reach(
        &self,
        partition: &str,
        devices: Vec<String>,
        ends: Vec<Identifier>,
    ) -> Result<Vec<FoundRecord>, Refused> {
        let tenant = self.actor.tenant.clone();
        let mut near = Neighbourhood { records: BTreeMap::new(), asked: BTreeSet::new(), ask: Vec::new() };
        near.want(ends);
        if !devices.is_empty() {
            let mut found =
                self.reached(RecordQuery::Devices { tenant: tenant.clone(), uids: devices }, MAX_FOUND).await?;
            // A uid may be one of another site, which is none of the question's and perhaps not the asker's to see.
            found.retain(|f| f.record.partition == partition);
            near.take(found);
        }
        for _ in 0..MAX_ROUNDS {
            if near.ask.is_empty() {
                return Ok(near.records.into_values().collect());
            }
            let identifiers = near.ask.split_off(near.ask.len().saturating_sub(ASKED_AT_ONCE));
            let wanted = RecordQuery::Sharing { tenant: tenant.clone(), partition: partition.to_owned(), identifiers };
            near.take(self.reached(wanted, MAX_FOUND).await?);
            if near.records.len() > MAX_LOOKED_AT {
                break;
            }
        }
        Err(Refused::TooFar)
    }

    /// What identity would make of it: devices that would merge, split, be called otherwise, and records that would move.
    pub(crate) async fn what_if(&self, question: &Question) -> Result<Value, Refused> {
        let Sight { finder, view, actor, .. } = self;
        let partition = normalise::partition(&question.partition);
        let partition = &*partition.ok_or_else(|| Refused::bad("a partition has no : and no /"))?;
        if !sees(&actor.partitions, partition) {
            return Err(Refused::NotFound("there is no such partition".to_owned()));
        }
        if question.changes.is_empty() || question.changes.len() > MAX_CHANGES {
            return Err(Refused::bad(format!("a question has one to {MAX_CHANGES} changes")));
        }
        // Looking for records reads every device: it counts among the questions a tenant may ask at once.
        let _running = finder.engine.admit(&actor.tenant).await?;
        let by = actor.as_fact();

        // What is named, and what would be said of it.
        let (mut ends, mut devices, mut then, mut whole) = (Vec::new(), Vec::new(), Vec::new(), false);
        let mut named = BTreeSet::new();
        let standing = links(view, actor, partition);
        for change in &question.changes {
            match change {
                Change::Link { kind, a, b } => {
                    let (a, b) = (a.resolve(view, actor, partition)?, b.resolve(view, actor, partition)?);
                    ends.extend([a.clone(), b.clone()]);
                    named.extend([a.clone(), b.clone()]);
                    let id = format!("supposed-{}", then.len());
                    then.push(Supposed::Fact(fact(actor, partition, id, *kind, a, b)));
                }
                Change::Unlink { id } => {
                    let known = standing.iter().find_map(|f| match f {
                        Fact::Link(l) if l.id == *id => Some(l),
                        _ => None,
                    });
                    let known = known.ok_or_else(|| Refused::NotFound(format!("there is no link {id}")))?;
                    ends.extend([known.a.clone(), known.b.clone()]);
                    let (tenant, id, reason) = (actor.tenant.clone(), id.clone(), String::new());
                    then.push(Supposed::Fact(Fact::LinkGone { tenant, id, actor: by.clone(), reason }));
                }
                Change::Policy(policy) => {
                    whole = true;
                    let (tenant, reason) = (actor.tenant.clone(), String::new());
                    then.push(Supposed::Fact(Fact::IpLink { tenant, policy: policy.0, actor: by.clone(), reason }));
                }
                Change::Record(Edit { device, with, ips, macs, .. }) => {
                    devices.push(leads_to(view, actor, device));
                    for text in with {
                        ends.push(read_seed(text)?);
                    }
                    // Wrong ones are told of below.
                    ends.extend(ips.iter().flatten().filter_map(|ip| identifier("ip", "", ip).ok()));
                    ends.extend(macs.iter().flatten().filter_map(|mac| identifier("mac", "", mac).ok()));
                }
                Change::Gone { device, .. } => devices.push(leads_to(view, actor, device)),
            }
        }
        // Links may reach across: whatever they name is near.
        for fact in &standing {
            if let Fact::Link(l) = fact {
                ends.extend([l.a.clone(), l.b.clone()]);
            }
        }
        let records = if whole {
            let wanted = RecordQuery::Site { tenant: actor.tenant.clone(), partition: partition.to_owned() };
            let found = self.reached(wanted, MAX_OF_SITE).await?;
            if found.len() > MAX_LOOKED_AT {
                return Err(Refused::TooFar);
            }
            found
        } else {
            self.reach(partition, devices, ends).await?
        };
        for change in &question.changes {
            let named = |wanted: &String| {
                records.iter().find(|f| label(&f.record) == *wanted).map(|f| &f.record).ok_or_else(|| {
                    let detail = format!("the device has no record {wanted}; its explanation lists them");
                    Refused::NotFound(detail)
                })
            };
            match change {
                Change::Record(edit) => then.push(Supposed::Record(edit.apply(named(&edit.record)?)?)),
                Change::Gone { record, .. } => then.push(Supposed::Gone(named(record)?.key.clone())),
                _ => {}
            }
        }

        let mut facts = standing;
        let (tenant, policy, reason) = (actor.tenant.clone(), self.policy, String::new());
        facts.push(Fact::IpLink { tenant, policy, actor: by, reason });
        let looked_at = records.len();
        // A slip of the pen would otherwise read as "nothing would change".
        let nobody = |id: &&Identifier| !records.iter().any(|f| shares(&f.record).any(|has| has == **id));
        let unknown: Vec<String> = named.iter().filter(nobody).map(shown).collect();
        let first_seen = first_seen(view, actor, partition, &records);
        let imagined = finder.records.imagine(Imagine { records, first_seen, facts, then }).await;
        let mut answer = difference(&imagined.ok_or(Refused::CatchingUp)?);
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("records_looked_at".to_owned(), looked_at.into());
            answer.insert("epoch".to_owned(), view.epoch.into());
            answer.insert("unknown".to_owned(), unknown.into());
        }
        Ok(answer)
    }
}

/// An identifier, as people write it.
fn shown(id: &Identifier) -> String {
    match id.namespace.as_str() {
        "" => format!("{}:{}", id.kind.name(), id.value),
        namespace => format!("{}@{namespace}:{}", id.kind.name(), id.value),
    }
}

/// The links that hold, as facts.
fn links(view: &View, actor: &Actor, partition: &str) -> Vec<Fact> {
    let mut links = view.rows::<rows::Link>(&actor.tenant);
    links.retain(|l| l.partition == partition);
    let stated = |l: &rows::Link| {
        let kind = if l.kind == "must" { LinkKind::Must } else { LinkKind::Cannot };
        let (a, b) = (read_seed(&l.a).ok()?, read_seed(&l.b).ok()?);
        Some(fact(actor, partition, l.link_id.clone(), kind, a, b))
    };
    links.iter().filter_map(stated).collect()
}

fn fact(actor: &Actor, partition: &str, id: String, kind: LinkKind, a: Identifier, b: Identifier) -> Fact {
    let (tenant, partition, reason) = (actor.tenant.clone(), partition.to_owned(), String::new());
    Fact::Link(Link { tenant, partition, id, kind, a, b, actor: actor.as_fact(), reason })
}

/// When the identifiers of records were first seen.
fn first_seen(view: &View, actor: &Actor, partition: &str, records: &[FoundRecord]) -> Vec<(Identifier, Time)> {
    let ids: BTreeMap<(&'static str, String, String), Identifier> = records
        .iter()
        .flat_map(|f| shares(&f.record).collect::<Vec<_>>())
        .map(|id| ((id.kind.name(), id.namespace.clone(), id.value.clone()), id))
        .collect();
    let values: BTreeSet<&str> = ids.keys().map(|(_, _, value)| value.as_str()).collect();
    let known = view.rows_where_any::<DeviceIdentifier>(&actor.tenant, "identifier_value", &values);
    let of = |row: DeviceIdentifier| {
        let kind = ids.keys().find(|(kind, ..)| *kind == row.identifier_type)?.0;
        let id = ids.get(&(kind, row.source_instance, row.identifier_value))?;
        (row.partition == partition).then_some(())?;
        Some((id.clone(), row.first_seen?))
    };
    known.into_iter().filter_map(of).collect()
}

/// What would be otherwise, as devices and the records that make them.
fn difference(imagined: &Imagined) -> Value {
    let by_uid = |places: &Placements| {
        let mut devices: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
        for (record, (uid, _)) in places {
            devices.entry(uid.clone()).or_default().insert(record.clone());
        }
        devices
    };
    let (before, after) = (by_uid(&imagined.before), by_uid(&imagined.after));
    // Which devices of one side the records of a device of the other are in.
    let across = |records: &BTreeSet<_>, places: &Placements| -> BTreeSet<String> {
        records.iter().filter_map(|r| Some(places.get(r)?.0.clone())).collect()
    };
    let (mut merged, mut split, mut renamed) = (Vec::new(), Vec::new(), Vec::new());
    for (uid, records) in &after {
        let of = across(records, &imagined.before);
        if of.len() > 1 {
            merged.push(json!({"into": uid, "of": of}));
        }
    }
    for (uid, records) in &before {
        let into = across(records, &imagined.after);
        match (into.len(), into.first()) {
            (0, _) => {}
            (1, Some(only)) => {
                let alone = after.get(only).is_some_and(|r| across(r, &imagined.before).len() == 1);
                if only != uid && alone {
                    renamed.push(json!({"from": uid, "to": only}));
                }
            }
            _ => split.push(json!({"of": uid, "into": into})),
        }
    }
    let shown = |record: &RecordKey| format!("{}/{}/{}", record.kind.name(), record.instance, record.key);
    let mut moved = Vec::new();
    for (record, (from, _)) in &imagined.before {
        match imagined.after.get(record) {
            Some((to, how)) if to != from => {
                moved.push(json!({"record": shown(record), "from": from, "to": to, "by": how}));
            }
            Some(_) => {}
            None => moved.push(json!({"record": shown(record), "from": from, "to": null})),
        }
    }
    let gone: Vec<&String> =
        before.iter().filter(|(_, r)| across(r, &imagined.after).is_empty()).map(|(u, _)| u).collect();
    json!({"merged": merged, "split": split, "renamed": renamed, "gone": gone, "moved": moved})
}
