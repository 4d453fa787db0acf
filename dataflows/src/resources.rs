//! Resources: what people state is judged here, at its epoch and position, and becomes rows and what they mean.
//!
//! ```text
//! commands ─► [judge: a tenant's in one place, in the order of the ledger] ─┬─► judgements, to who asks
//!                                                                           ├─► resources (Δ) ─► rows, a collection a kind
//!                                                                           └─► audit
//! ```
//! The judge itself is pure ([`radarflow_reconcile::resources`]); here it gets its epochs and is snapshotted, a resource and
//! an answer each by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::fact::Fact;
use radarflow_proto::resource::{Act, Command, Judgement, Operation, Principal, Resource, ResourceChange, Taken};
use radarflow_proto::rows::{Audit, StateRow};
use radarflow_reconcile::resources::judge::Answered;
use radarflow_reconcile::resources::{At, Judge, Verdict, named, told};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, collected};
use crate::facts::StandingFact;
use crate::keyed::{Context, Keyed, Restored, StateEntry, Tick, encode, put_state, route, take_state};

/// Resources in snapshots, by tenant, kind and id.
const RESOURCES: &str = "resources";
/// Answers that are kept, by tenant and command.
const ANSWERS: &str = "answers";

/// A command as it was stated.
#[derive(Clone, Debug)]
pub struct Stated(pub Arc<Command>);

impl Serialize for Stated {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(&*self.0).map_err(serde::ser::Error::custom)?.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Stated {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::from_str(&text).map(|command| Stated(Arc::new(command))).map_err(serde::de::Error::custom)
    }
}

/// What resources are made of.
pub struct Inputs<'scope> {
    /// Commands, by tenant.
    pub commands: Events<'scope, Keyed<String, Stated>>,
}

/// What comes of them.
pub struct Outputs<'scope> {
    /// Rows of the tables of resources.
    pub rows: Rel<'scope, StateRow>,
    /// Every change, for those who keep resources outside of the dataflow.
    pub changes: Events<'scope, ResourceChange>,
    /// What became of commands.
    pub judgements: Events<'scope, Judgement>,
    /// Steps that were taken, with their place in the epoch.
    pub taken: Events<'scope, (u64, Arc<Taken>)>,
    /// What the audit is told.
    pub told: Events<'scope, Keyed<String, Box<Audit>>>,
}

/// What the judge says.
#[derive(Clone)]
enum Said {
    Changed(ResourceChange),
    Judged(Judgement),
    Taken(u64, Arc<Taken>),
    Audited(Keyed<String, Box<Audit>>),
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let said = judged(cx, inputs.commands);
    let changes = said.clone().flat_map(|said| match said {
        Said::Changed(change) => Some(change),
        _ => None,
    });
    let resources = changes.clone().flat_map(|ResourceChange { before, after }| {
        before.into_iter().map(|before| (before, -1)).chain(after.into_iter().map(|after| (after, 1)))
    });
    Outputs {
        rows: collected(resources, |(resource, diff)| Some((named(&resource.resource)?.row(&resource)?, diff))),
        changes,
        judgements: said.clone().flat_map(|said| match said {
            Said::Judged(judgement) => Some(judgement),
            _ => None,
        }),
        taken: said.clone().flat_map(|said| match said {
            Said::Taken(position, taken) => Some((position, taken)),
            _ => None,
        }),
        told: said.flat_map(|said| match said {
            Said::Audited(row) => Some(row),
            _ => None,
        }),
    }
}

/// The judges of the tenants that this worker has.
#[derive(Default)]
struct Judges {
    of: BTreeMap<String, Judge>,
    /// Tenants by when something of theirs is over by itself.
    due: BTreeSet<(i64, String)>,
    /// What changed since the last snapshot.
    resources: BTreeSet<(String, String, String)>,
    answers: BTreeSet<(String, String)>,
}

impl Judges {
    fn restore(cx: &Context, said: &mut Vec<Said>) -> Self {
        let mut judges = Judges::default();
        type OfResource = (String, String, String);
        for (_, resource) in cx.restore_where::<OfResource, Resource>(RESOURCES, |(tenant, ..)| route(tenant)) {
            let resource = Arc::new(resource);
            said.push(Said::Changed(ResourceChange { before: None, after: Some(resource.clone()) }));
            judges.of.entry(resource.tenant.clone()).or_default().restore(resource);
        }
        for ((tenant, _), answered) in cx.restore_where(ANSWERS, |(tenant, _): &(String, String)| route(tenant)) {
            judges.of.entry(tenant).or_default().restore_answer(answered);
        }
        let due = |(tenant, judge): (&String, &Judge)| Some((judge.due_us()?, tenant.clone()));
        judges.due = judges.of.iter().filter_map(due).collect();
        judges
    }

    /// Changes a tenant's judge.
    fn with<T>(&mut self, tenant: &str, change: impl FnOnce(&mut Judge) -> T) -> T {
        let judge = self.of.entry(tenant.to_owned()).or_default();
        let before = judge.due_us();
        let done = change(judge);
        let after = judge.due_us();
        if before != after {
            self.due.extend(after.map(|at| (at, tenant.to_owned())));
            if let Some(at) = before {
                self.due.remove(&(at, tenant.to_owned()));
            }
        }
        done
    }

    fn changed(&mut self, changes: &[ResourceChange]) {
        let key = |resource: &Arc<Resource>| (resource.tenant.clone(), resource.resource.clone(), resource.id.clone());
        self.resources
            .extend(changes.iter().filter_map(|change| change.after.as_ref().or(change.before.as_ref()).map(key)));
    }

    /// What is over by the epoch's clock goes.
    fn expire(&mut self, at: At, said: &mut Vec<Said>) {
        while let Some(tenant) = self.due.first().filter(|(due, _)| *due <= at.now_us).map(|(_, tenant)| tenant.clone())
        {
            let (changes, forgotten) = self.with(&tenant, |judge| judge.expire(at.now_us));
            self.changed(&changes);
            self.answers.extend(forgotten.into_iter().map(|id| (tenant.clone(), id)));
            said.extend(changes.into_iter().map(Said::Changed));
        }
    }

    fn judge(&mut self, at: At, position: u64, command: &Command, said: &mut Vec<Said>) {
        let verdict = self.with(&command.tenant, |judge| judge.judge(at, command));
        self.changed(&verdict.changes);
        if command.digest.is_some() && !verdict.again {
            self.answers.insert((command.tenant.clone(), command.command_id.clone()));
        }
        if !verdict.again {
            let told = |(nth, mut row): (usize, Audit)| {
                row.row_id = RowId::new(0, 0, nth as u32);
                Said::Audited(Keyed { key: command.tenant.clone(), position, event: row.into() })
            };
            said.extend(audited(at, command, &verdict).enumerate().map(told));
        }
        said.extend(verdict.taken.into_iter().map(|taken| Said::Taken(position, Arc::new(taken))));
        said.extend(verdict.changes.into_iter().map(Said::Changed));
        if !command.command_id.is_empty() {
            said.push(Said::Judged(verdict.judgement));
        }
    }

    /// What changed since the last snapshot.
    fn snapshot(&mut self) -> Vec<StateEntry> {
        let mut entries = Vec::new();
        for key in std::mem::take(&mut self.resources) {
            let (tenant, kind, id) = &key;
            let standing = self.of.get(tenant).map(Judge::standing);
            let resource = named(kind).and_then(|kind| standing?.get(&(kind.table, id.clone())));
            let value = resource.map(|resource| encode(&**resource));
            entries.push(StateEntry { collection: RESOURCES, key: encode(&key), value });
        }
        for key in std::mem::take(&mut self.answers) {
            let answered = self.of.get(&key.0).and_then(|judge| judge.answered(&key.1));
            entries.push(StateEntry {
                collection: ANSWERS,
                key: encode(&key),
                value: answered.map(encode::<Answered>),
            });
        }
        entries
    }

    fn len(&self) -> usize {
        self.of.values().map(Judge::len).sum()
    }
}

/// Judges commands, epoch by epoch.
fn judged<'scope>(cx: &Context, commands: Events<'scope, Keyed<String, Stated>>) -> Events<'scope, Said> {
    let cx = cx.clone();
    let pact = Exchange::new(|command: &Keyed<String, Stated>| route(&command.key));
    commands.unary_frontier(pact, "Judge", move |capability, _| {
        let kept = cx.sizes().machine(RESOURCES, cx.index);
        let mut capability = Some(capability.delayed(&cx.restored));
        let mut stash: BTreeMap<u64, Vec<Keyed<String, Stated>>> = BTreeMap::new();
        let mut said = Vec::new();
        let mut judges = Judges::restore(&cx, &mut said);
        let mut next = cx.restored + 1;
        move |(input, frontier), output| {
            if !said.is_empty()
                && let Some(capability) = &capability
            {
                output.session(capability).give_iterator(said.drain(..));
            }
            input.for_each(|time, data| {
                let epoch = *time.least().expect("commands are stamped with an epoch");
                stash.entry(epoch).or_default().append(data);
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            while next < upper {
                let Tick { epoch, clock_ms, .. } = cx.tick(next).expect("every epoch is announced before its data");
                let at = At { epoch, now_us: clock_ms.saturating_mul(1000) };
                judges.expire(at, &mut said);
                let mut commands = stash.remove(&next).unwrap_or_default();
                commands.sort_by_key(|command| command.position);
                for Keyed { event: Stated(command), position, .. } in commands {
                    judges.judge(at, position, &command, &mut said);
                }
                held.downgrade(&next);
                output.session(held).give_iterator(said.drain(..));
                if cx.wants_snapshot(next) {
                    cx.save(next, judges.snapshot());
                }
                next += 1;
            }
            held.downgrade(&upper.max(cx.restored));
            kept.store(judges.len() as i64, Ordering::Relaxed);
        }
    })
}

/// What the audit says of a command: of each operation what it did, or that all was refused.
fn audited<'a>(at: At, command: &'a Command, verdict: &'a Verdict) -> impl Iterator<Item = Audit> + 'a {
    let row = move |operation: &Operation, outcome: Value| {
        let Principal { kind, id, name, address } = &command.principal;
        let mut detail = json!({"principal": {"kind": kind, "id": id, "address": address}, "outcome": outcome});
        if !command.command_id.is_empty() {
            detail["command_id"] = json!(command.command_id);
        }
        if let Act::Do { fields, .. } = &operation.act
            && !fields.is_empty()
        {
            detail["asked"] = json!(fields);
        }
        Audit {
            tenant_id: command.tenant.clone(),
            partition: "default".to_owned(),
            row_id: RowId::new(0, 0, 0),
            epoch: 0,
            time: Time(at.now_us),
            actor: name.clone(),
            action: format!("{}:{}", operation.resource, operation.act.verb()),
            subject: operation.id.clone(),
            reason: Some(command.reason.clone()).filter(|reason| !reason.is_empty()),
            detail: detail.to_string(),
            sequence: None,
            previous: None,
            hash: None,
        }
    };
    // Changes of one resource by several operations of a command are told with the first.
    let mut changes: BTreeMap<(&str, &str), &ResourceChange> = BTreeMap::new();
    for change in &verdict.changes {
        if let Some(of) = change.after.as_ref().or(change.before.as_ref()) {
            changes.insert((&of.resource, &of.id), change);
        }
    }
    let refused = verdict.judgement.outcome.as_ref().err();
    let told = refused.map_or(command.operations.len(), |_| 1);
    let first = refused.map_or(0, |refusal| refusal.operation.min(command.operations.len().saturating_sub(1)));
    command.operations.iter().skip(first).take(told).map(move |operation| {
        let outcome = match refused {
            Some(refusal) => json!({"refused": refusal.code.name(), "detail": refusal.detail}),
            None => match changes.remove(&(operation.resource.as_str(), operation.id.as_str())) {
                Some(change) => difference(change),
                None => json!("unchanged"),
            },
        };
        row(operation, outcome)
    })
}

/// What a change changed: fields before and after; of secrets only which.
fn difference(change: &ResourceChange) -> Value {
    let fields = |resource: &Option<Arc<Resource>>| resource.as_ref().map(|r| r.fields.0.clone()).unwrap_or_default();
    let (mut before, mut after) = (fields(&change.before), fields(&change.after));
    if change.before.is_some() && change.after.is_some() {
        let same: Vec<String> = before.keys().filter(|k| before.get(*k) == after.get(*k)).cloned().collect();
        for name in same {
            before.remove(&name);
            after.remove(&name);
        }
    }
    let secrets = |resource: &Option<Arc<Resource>>| resource.as_ref().map(|r| r.secrets.clone()).unwrap_or_default();
    let (hidden, shown) = (secrets(&change.before), secrets(&change.after));
    let names: BTreeSet<&String> = hidden.keys().chain(shown.keys()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| hidden.get(*name) != shown.get(*name)).collect();
    let mut told = json!({"before": before, "after": after});
    if !names.is_empty() {
        told["secrets"] = json!(names);
    }
    told
}

/// The resources that stand, as a snapshot says.
pub fn standing_resources(state: &Restored) -> Vec<Resource> {
    let entries = state.get(RESOURCES).into_iter().flatten();
    entries.filter_map(|(_, resource)| postcard::from_bytes(resource).ok()).collect()
}

/// Standing facts of before there were resources become resources.
pub(crate) fn resources_of_facts(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let facts: Vec<(String, StandingFact)> = take_state(state, crate::facts::COLLECTION)?;
    let mut judges: BTreeMap<String, Judge> = BTreeMap::new();
    let at = At { epoch: tick.epoch, now_us: tick.clock_ms.saturating_mul(1000) };
    let mut kept = Vec::new();
    for (subject, fact) in facts {
        match fact.fact().and_then(told::command) {
            // What no longer stands is deleted a second time here, which is refused.
            Some(command) => drop(judges.entry(command.tenant.clone()).or_default().judge(at, &command)),
            None => kept.push((subject, fact)),
        }
    }
    put_state(state, crate::facts::COLLECTION, kept);
    for (tenant, judge) in judges {
        let resource = |resource: &Arc<Resource>| {
            ((tenant.clone(), resource.resource.clone(), resource.id.clone()), (**resource).clone())
        };
        put_state(state, RESOURCES, judge.standing().values().map(resource));
    }
    Ok(())
}

/// Whether what a fact states is a resource.
pub(crate) fn stated(fact: &Fact) -> Option<Keyed<String, Stated>> {
    let command = told::command(fact)?;
    Some(Keyed { key: command.tenant.clone(), position: 0, event: Stated(Arc::new(command)) })
}
