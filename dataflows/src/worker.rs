//! The workers: one OS thread each, fed with frames, never polling.
//!
//! A worker takes every frame that waits (at most [`FRAMES_AHEAD`]), reads its share into the inputs, and steps until
//! the epoch is complete everywhere; while others work for it, it is parked and they wake it. With nothing to do it
//! sleeps on its channel. A panic in an operator ends the process: a half-dead set of workers must not linger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use differential_dataflow::AsCollection;
use radarflow_proto::fact::{
    DeviceGroup, DeviceStep, Fact, ImportedUid, Link, LinkKind, OwnCondition, Receiver as Notified, RunDecision, Stage,
};
use radarflow_proto::frame::{Frame, Kind};
use radarflow_proto::payload::NotifiedAlert;
use radarflow_proto::ports::{FoundRecord, RecordQuery};
use radarflow_proto::record::SourceKind;
use radarflow_proto::rows::StateRow;
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::brakes::Brakes;
use radarflow_reconcile::identity::assertions::ip_name;
use radarflow_reconcile::identity::name::seed;
use radarflow_reconcile::notify::{Group, group_labels};
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, Scope, Stream};

use crate::alerts::{
    AlertKey, Facts, GroupEvent, GroupKey, GroupOut, Groups, LifeEvent, LifeOut, Lives, PairEvent, PairShare,
    PairSubject, Pairs,
};
use crate::aliases::{Aliases, Interfaces, Poll, completed, confirmed};
use crate::attribution::Attributed;
use crate::corrections::{Tenures, Told};
use crate::decode::runs::Staging;
use crate::decode::{Decoded, Decoder, EventBatch, standing_facts};
use crate::health::{
    AgentKey, Agents, Availabilities, Beat, Bursts, DeviceWord, HealthOut, LogShare, LogSource, Probe as Looked,
    TargetKey, Targets,
};
use crate::identity::gate::{GateOut, RunEvent};
use crate::keyed::{Context, Keyed, Restored, Tick, machine};
use crate::lifecycle::{Reaper, Resighted, StepOut, Stepping, resighted};
use crate::listings::{ListingEvent, ListingKey, ListingOut, Listings};
use crate::loss::{Delta, SourceKey, sources};
use crate::merges::{Merges, Moved};
use crate::output::{Said, WorkerEpoch};
use crate::records::{Arrival, Name, changes, records, stamped};
use crate::sizes::{Marks, Sizes};
use crate::topology::{Neighbors, Topology};
use crate::{attribution, enrich, identity, inventory, output};

/// Frames a worker's channel holds.
pub const FRAMES_QUEUED: usize = 16;
/// Frames a worker takes before it steps.
const FRAMES_AHEAD: usize = 16;
/// Epochs of output that wait for the merger.
const OUTPUTS_QUEUED: usize = 256;
/// State is asked for every so many epochs.
pub const SNAPSHOT_EPOCHS: u64 = 600;

/// What the computation starts from.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Epoch of the snapshot; 0 for none.
    pub epoch: u64,
    /// Time the process was down before it, all told, milliseconds.
    pub gap_ms: i64,
    /// Its state.
    pub state: Restored,
    /// How much of large uploads is kept in memory.
    pub staging: Staging,
}

/// The running workers.
pub struct Workers {
    channels: Vec<SyncSender<Message>>,
    threads: Vec<JoinHandle<()>>,
    backlog: Arc<Backlog>,
    sizes: Arc<Sizes>,
}

/// What a worker is told.
enum Message {
    Frame(Arc<Frame>),
    /// Find records; the answer is this worker's share.
    Find(Arc<RecordQuery>, SyncSender<Vec<FoundRecord>>),
}

/// What waits in staged runs, for those who make it grow.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicU64,
    in_memory: AtomicU64,
    released: AtomicBool,
}

impl Backlog {
    /// Bytes of staged runs, released or not.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of them that are kept in memory.
    pub fn in_memory(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed)
    }

    /// Whether released runs wait to be read.
    pub fn released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}

impl Workers {
    /// Starts `n` workers. What they say comes out of the receiver, one [`WorkerEpoch`] a worker and epoch.
    pub fn start(n: usize, start: Start) -> (Workers, Receiver<WorkerEpoch>) {
        let n = n.max(1);
        let (to_merge, outputs) = sync_channel(OUTPUTS_QUEUED);
        let (channels, receivers): (Vec<_>, Vec<_>) = (0..n).map(|_| sync_channel(FRAMES_QUEUED)).unzip();
        let receivers = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>()));
        let start = Arc::new(start);
        let backlog = Arc::new(Backlog::default());
        let sizes = Arc::new(Sizes::default());
        let shared = (backlog.clone(), sizes.clone());
        let thread = std::thread::Builder::new()
            .name("dataflow".to_owned())
            .spawn(move || {
                let config = if n == 1 { timely::Config::thread() } else { timely::Config::process(n) };
                let guards = timely::execute(config, move |worker| {
                    let index = worker.index();
                    let messages =
                        receivers.lock().expect("no worker panics here")[index].take().expect("one channel a worker");
                    run(worker, &messages, &start, to_merge.clone(), &shared.0, &shared.1);
                })
                .expect("worker threads start");
                for guard in guards.join() {
                    if let Err(panic) = guard {
                        tracing::error!(%panic, "a dataflow worker failed; the process ends");
                        std::process::abort();
                    }
                }
            })
            .expect("the dataflow's thread starts");
        (Workers { channels, threads: vec![thread], backlog, sizes }, outputs)
    }

    /// What waits in staged runs.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// How much they keep.
    pub fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    /// Hands a frame to every worker; waits while their channels are full.
    pub fn feed(&self, frame: &Arc<Frame>) {
        for channel in &self.channels {
            // A worker that is gone has ended the process.
            let _ = channel.send(Message::Frame(frame.clone()));
        }
    }

    /// Asks for records, as of the last frame before; as many answers come as there are workers.
    pub fn find(&self, wanted: RecordQuery) -> (usize, Receiver<Vec<FoundRecord>>) {
        let (to, answers) = sync_channel(self.channels.len());
        let wanted = Arc::new(wanted);
        for channel in &self.channels {
            let _ = channel.send(Message::Find(wanted.clone(), to.clone()));
        }
        (self.channels.len(), answers)
    }

    /// Ends the workers once all frames they were given are complete.
    pub fn stop(self) {
        drop(self.channels);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// The inputs of the dataflow: what the decoder gives, one input each.
macro_rules! inputs {
    ($($name:ident: $type:ty,)*) => {
        struct Inputs {
            $($name: InputHandleVec<u64, $type>,)*
        }

        impl Inputs {
            fn new() -> Self {
                Inputs { $($name: InputHandleVec::new(),)* }
            }

            fn send(&mut self, mut decoded: Decoded) {
                $(self.$name.send_batch(&mut decoded.$name);)*
            }

            fn advance(&mut self, epoch: u64) {
                $(
                    self.$name.advance_to(epoch);
                    self.$name.flush();
                )*
            }
        }
    };
}

inputs! {
    sightings: Keyed<Name, Arrival>,
    listed: Keyed<ListingKey, ListingEvent>,
    runs: (ListingKey, RunEvent),
    polls: Keyed<Name, Poll>,
    neighbors: Keyed<Name, Neighbors>,
    probes: Keyed<TargetKey, Looked>,
    beats: Keyed<AgentKey, Beat>,
    log_hits: Keyed<LogShare, LogSource>,
    pairs: Keyed<PairShare, (PairSubject, PairEvent)>,
    deltas: Keyed<SourceKey, Delta>,
    facts: Keyed<String, String>,
    steps: Keyed<AlertKey, LifeEvent>,
    device_steps: Keyed<Name, (u64, DeviceStep)>,
    deliveries: Keyed<GroupKey, GroupEvent>,
    batches: EventBatch,
}

fn run(
    worker: &mut timely::worker::Worker,
    messages: &Receiver<Message>,
    start: &Start,
    outputs: SyncSender<WorkerEpoch>,
    backlog: &Backlog,
    sizes: &Arc<Sizes>,
) {
    let cx = Context::new(worker.index(), worker.peers(), start.epoch, start.state.clone()).telling(sizes.clone());
    let standing = standing_facts(&start.state);
    let mut decoder = Decoder::new(&cx, &standing, &start.staging);
    let mut inputs = Inputs::new();
    let probe = ProbeHandle::new();
    let marks = Marks::listen(worker, sizes.clone());
    let mut inspect = worker.dataflow(|scope| build(scope, &mut inputs, &cx, &marks, &probe, outputs));
    inputs.advance(start.epoch + 1);
    let mut gap_ms = start.gap_ms;
    worker.step_or_park_while(None, || probe.less_than(&(start.epoch + 1)));
    let (mut done, mut in_memory) = (start.epoch, 0);
    while let Ok(first) = messages.recv() {
        let mut asked = Vec::new();
        let waiting =
            std::iter::once(first).chain(std::iter::from_fn(|| messages.try_recv().ok()).take(FRAMES_AHEAD - 1));
        for message in waiting {
            let frame = match message {
                Message::Frame(frame) => frame,
                Message::Find(wanted, to) => {
                    asked.push((wanted, to));
                    continue;
                }
            };
            done = frame.epoch;
            gap_ms += frame.gap_ms;
            let tick = Tick { epoch: frame.epoch, clock_ms: frame.clock_ms, live_ms: frame.clock_ms - gap_ms };
            let snapshot = frame.epoch % SNAPSHOT_EPOCHS == 0 || asks_for_snapshot(&frame);
            cx.announce(tick, snapshot);
            let decoded = decoder.read(&frame, &tick);
            let runs = decoder.runs();
            if worker.index() == 0 {
                backlog.bytes.store(runs.bytes(), Ordering::Relaxed);
                backlog.released.store(runs.waiting(), Ordering::Relaxed);
            }
            backlog.in_memory.fetch_add(runs.in_memory(), Ordering::Relaxed);
            backlog.in_memory.fetch_sub(std::mem::replace(&mut in_memory, runs.in_memory()), Ordering::Relaxed);
            if snapshot {
                cx.save(frame.epoch, decoder.snapshot());
            }
            inputs.send(decoded);
            inputs.advance(frame.epoch + 1);
        }
        worker.step_or_park_while(None, || probe.less_than(&(done + 1)));
        cx.retire(done + 1);
        inspect.advance(done + 1);
        for (wanted, to) in asked {
            // Whoever asked may have given up.
            let _ = to.send(inspect.find(&wanted));
        }
    }
}

/// Whether a frame bears the fact that asks for a snapshot.
fn asks_for_snapshot(frame: &Frame) -> bool {
    let facts = frame.slices.iter().filter(|s| s.origin.kind == Kind::Fact).flat_map(|s| &s.entries);
    facts.into_iter().any(|e| matches!(serde_json::from_slice(&e.body), Ok(Fact::Snapshot)))
}

fn build<'scope>(
    scope: Scope<'scope, u64>,
    inputs: &mut Inputs,
    cx: &Context,
    marks: &Marks,
    probe: &ProbeHandle<u64>,
    outputs: SyncSender<WorkerEpoch>,
) -> identity::inspect::Inspect {
    marks.part(scope, "records");
    // Identity and inventory.
    let sightings = inputs.sightings.to_stream(scope);
    let listings = machine(inputs.listed.to_stream(scope), cx, Listings);
    let withdrawn = listings.clone().flat_map(|out| match out {
        ListingOut::Withdrawn(key) => Some(Keyed { key, position: 0, event: Arrival::Withdrawn }),
        _ => None,
    });
    let streams = records(sightings.clone().concat(withdrawn), cx);
    let facts = machine(inputs.facts.to_stream(scope), cx, Facts);
    let interfaces = machine(inputs.polls.to_stream(scope), cx, Aliases);
    let shown = stamped(interfaces.clone(), |(said, diff)| match said {
        Interfaces::Shown(record, macs) => Some(((record, macs), diff)),
        Interfaces::Reported(_) => None,
    });
    let reported = stamped(interfaces, |(said, diff)| match said {
        Interfaces::Reported(reported) => Some((reported, diff)),
        Interfaces::Shown(..) => None,
    });
    let versions = completed(&streams.versions.as_collection(), shown.as_collection());
    let aliases = confirmed(reported.as_collection(), &versions);
    let steps = machine(inputs.device_steps.to_stream(scope), cx, Stepping);
    let decided = listings.clone().flat_map(|out| match out {
        ListingOut::Decided(decision, refused) => {
            let RunDecision { tenant, kind, instance, .. } = decision.clone();
            Some((ListingKey { tenant, kind, instance }, RunEvent::Decide(decision, refused)))
        }
        _ => None,
    });
    let brakes = facts.clone().flat_map(|(json, diff)| match serde_json::from_str(&json) {
        Ok(Fact::Brakes { tenant, max_merges, max_component, .. }) if diff > 0 => {
            let of = ListingKey { tenant, kind: SourceKind::Operator, instance: String::new() };
            Some((of, RunEvent::Brakes(Brakes { max_merges, max_component })))
        }
        _ => None,
    });
    let runs = inputs.runs.to_stream(scope).concat(decided).concat(brakes);
    marks.part(scope, "identity");
    let identity = identity::identity(identity::Said {
        versions,
        seen: streams.seen.as_collection(),
        settled: streams.settled.as_collection(),
        aliases,
        facts: stamped(facts.clone(), Some).as_collection(),
        steps: stamped(steps.clone(), |out| match out {
            StepOut::Standing(standing, diff) => Some((standing, diff)),
            StepOut::Outcome(_) => None,
        })
        .as_collection(),
        runs: Some((runs, cx.clone())),
    });
    let held = identity.held.clone().expect("runs are braked");
    marks.part(scope, "lives");
    let resighted = machine(resighted(sightings, identity.lives.watched()), cx, Resighted);
    let lived = identity.lives.lived(stamped(resighted, Some).as_collection());
    let doomed =
        changes(lived.doomed, |doomed, diff| Keyed { key: doomed.live.key, position: 0, event: (doomed, diff as i64) });
    let reaped = machine(doomed, cx, Reaper);
    let targets = stamped(machine(inputs.probes.to_stream(scope), cx, Targets), Some).as_collection();
    let moves = changes(identity.placed.clone(), |(live, how, uid), diff| Keyed {
        key: live.key,
        position: 0,
        event: Moved { live, how, uid, diff: diff as i64 },
    });
    let moves = machine(moves, cx, Merges);
    marks.part(scope, "inventory");
    let devices = inventory::devices(&identity, &targets, lived.lives);
    let devices = enrich::enriched(devices, facts.clone(), cx);

    // Conditions, from whatever notices them.
    marks.part(scope, "alerts");
    let agents = machine(inputs.beats.to_stream(scope), cx, Agents);
    let bursts = machine(inputs.log_hits.to_stream(scope), cx, Bursts(cx.shared_sizes()));
    let words = devices.clone().flat_map(|device| DeviceWord::of(&device)).consolidate();
    let words = changes(words, |word, diff| Keyed { key: word.device(), position: 0, event: (word, diff as i64) });
    let health = agents.concat(bursts).concat(machine(words, cx, Availabilities));
    let pairs = machine(inputs.pairs.to_stream(scope), cx, Pairs(cx.shared_sizes()));
    let offline = devices.clone().flat_map(|device| device_offline(&device)).consolidate();
    let offline =
        changes(offline, |(subject, condition), diff| condition_event(AlertKey::of_subject(subject), condition, diff));
    let conditions = offline
        .concat(health.clone().flat_map(|out| match out {
            HealthOut::Condition(key, condition, diff) => Some(condition_event(key, condition, diff)),
            _ => None,
        }))
        .concat(listings.clone().flat_map(|out| match out {
            ListingOut::Held(key, condition, diff) => Some(condition_event(key, condition, diff)),
            _ => None,
        }))
        .concat(held.clone().flat_map(|out| match out {
            GateOut::Held(key, condition, diff) => Some(condition_event(key, condition, diff)),
            GateOut::Outcome(_) => None,
        }))
        .concat(pairs.map(|(key, condition, diff)| condition_event(key, condition, diff)));

    // Alerts and who is told of them.
    let own = facts.clone().flat_map(|(json, diff)| match serde_json::from_str(&json) {
        Ok(Fact::Condition(c)) if c.holds => Some(own_condition(c, diff)),
        _ => None,
    });
    let conditions = conditions.concat(own);
    let lives = machine(conditions.concat(inputs.steps.to_stream(scope)), cx, Lives);
    let receivers = stamped(facts.clone(), |(json, diff)| match serde_json::from_str(&json) {
        Ok(Fact::Receiver(receiver)) => Some(((receiver.tenant.clone(), receiver), diff)),
        _ => None,
    })
    .as_collection();
    let firing = stamped(lives.clone(), |out| match out {
        LifeOut::Firing(tenant, alert, diff) => Some(((tenant, alert), diff)),
        _ => None,
    })
    .as_collection();
    let told = firing.join_map(receivers, |_, alert, receiver| (receiver.clone(), alert.clone())).consolidate();
    let told = changes(told, |(receiver, alert), diff| group_event(receiver, alert, diff));
    let groups = machine(told.concat(inputs.deliveries.to_stream(scope)), cx, Groups);

    // What is said.
    marks.part(scope, "output");
    let owned = identity.owned_addresses.clone();
    let handed = changes(owned.clone(), |owned, diff| {
        let (scope, ip) = &owned.address;
        Keyed { key: ip_name(scope.name, *ip), position: 0, event: (owned, diff as i64) }
    });
    let tenures = machine(handed, cx, Tenures);
    let pasts = tenures.clone().flat_map(|told| match told {
        Told::Past(address, past) => Some((address, past)),
        Told::Late(_) => None,
    });
    let links = machine(inputs.neighbors.to_stream(scope), cx, Topology);
    let attributed = attribution::attribute(inputs.batches.to_stream(scope), owned, pasts, links);
    let links = stamped(attributed.clone(), |out| match out {
        Attributed::Link(link, diff) => Some((StateRow::from(*link), diff)),
        Attributed::Rows(..) => None,
    });
    let stated = stamped(facts.clone(), |(json, diff)| match serde_json::from_str(&json) {
        Ok(Fact::Link(link)) => Some((StateRow::from(link_row(link)), diff)),
        Ok(Fact::ImportedUid(imported)) => Some((StateRow::from(imported_row(imported)), diff)),
        Ok(Fact::DeviceGroup(group)) => Some((StateRow::from(group_row(group)), diff)),
        _ => None,
    });
    let rows = identity.rows.concat(devices.map(StateRow::Device)).inner;
    let rows = rows
        .concat(stated)
        .concat(links)
        .concat(stamped(sources(inputs.deltas.to_stream(scope), cx), Some))
        .concat(stamped(health.clone(), |out| match out {
            HealthOut::Row(row, diff) => Some((row, diff)),
            _ => None,
        }))
        .concat(stamped(lives.clone(), |out| match out {
            LifeOut::Row(alert, diff) => Some((StateRow::from(alert), diff)),
            _ => None,
        }));
    let said: Stream<'scope, u64, Vec<Said>> = output::net(rows, cx)
        .map(Said::Change)
        .concat(attributed.flat_map(|out| match out {
            Attributed::Rows(table, tenant, batch) => Some(Said::Rows(table, tenant, batch)),
            Attributed::Link(..) => None,
        }))
        .concat(health.flat_map(|out| match out {
            HealthOut::Happened(row) => Some(Said::Derived(row)),
            HealthOut::Row(..) | HealthOut::Condition(..) => None,
        }))
        .concat(lives.flat_map(|out| match out {
            LifeOut::Happened(row) => Some(Said::Derived(row)),
            LifeOut::Outcome(outcome) => Some(Said::Outcome(outcome)),
            LifeOut::Row(..) | LifeOut::Firing(..) => None,
        }))
        .concat(moves.map(Said::Derived))
        .concat(tenures.flat_map(|told| match told {
            Told::Late(row) => Some(Said::Derived(row)),
            Told::Past(..) => None,
        }))
        .concat(reaped.map(|(record, partition)| Said::Reaped(record, partition)))
        .concat(held.flat_map(|out| match out {
            GateOut::Outcome(outcome) => Some(Said::Outcome(outcome)),
            GateOut::Held(..) => None,
        }))
        .concat(steps.flat_map(|out| match out {
            StepOut::Outcome(outcome) => Some(Said::Outcome(outcome)),
            StepOut::Standing(..) => None,
        }))
        .concat(groups.map(|out| match out {
            GroupOut::Due(due) => Said::Due(Box::new(due)),
            GroupOut::Settled(id) => Said::Settled(id),
            GroupOut::Happened(row) => Said::Derived(row),
        }))
        .concat(facts.flat_map(|(json, diff)| {
            let fact = if diff > 0 { serde_json::from_str(&json).ok() } else { None };
            fact.map(|fact| Said::Fact(Box::new(fact)))
        }));
    output::send(said, cx, outputs).probe_with(probe);
    identity.inspect
}

/// A link as a row.
fn link_row(link: Link) -> radarflow_proto::rows::Link {
    radarflow_proto::rows::Link {
        tenant_id: link.tenant,
        partition: link.partition,
        link_id: link.id,
        kind: if link.kind == LinkKind::Must { "must" } else { "cannot" }.to_owned(),
        a: seed(&link.a),
        b: seed(&link.b),
        actor: link.actor.name,
        reason: link.reason,
        epoch: 0,
    }
}

/// An imported name as a row.
fn imported_row(imported: ImportedUid) -> radarflow_proto::rows::ImportedUid {
    radarflow_proto::rows::ImportedUid {
        tenant_id: imported.tenant,
        partition: imported.partition,
        uid: imported.uid,
        identifiers: imported.identifiers.iter().map(seed).collect(),
        epoch: 0,
    }
}

/// A group of devices as a row.
fn group_row(group: DeviceGroup) -> radarflow_proto::rows::DeviceGroup {
    radarflow_proto::rows::DeviceGroup {
        tenant_id: group.tenant,
        partition: "default".to_owned(),
        name: group.name,
        condition: group.condition,
        members: group.members,
        description: group.description,
        actor: group.actor.name,
        reason: group.reason,
        epoch: 0,
    }
}

fn condition_event(key: AlertKey, condition: Condition, diff: isize) -> Keyed<AlertKey, LifeEvent> {
    Keyed { key, position: 0, event: LifeEvent::Condition(condition, diff as i64) }
}

/// A condition of the program itself.
fn own_condition(c: OwnCondition, diff: isize) -> Keyed<AlertKey, LifeEvent> {
    let subject =
        Subject { tenant: c.tenant, partition: "default".to_owned(), rule: c.rule.clone(), entity: c.entity.clone() };
    let condition = Condition {
        rule: c.rule,
        severity: c.severity,
        title: c.title,
        description: c.description,
        source_type: "radarflow".to_owned(),
        source_id: c.entity,
        device_uid: None,
        agent_uid: None,
        labels: BTreeMap::new(),
    };
    condition_event(AlertKey::of_subject(subject), condition, diff)
}

fn group_event(receiver: Notified, alert: NotifiedAlert, diff: isize) -> Keyed<GroupKey, GroupEvent> {
    let labels: BTreeMap<String, String> = group_labels(&receiver, &alert.labels);
    let group = Group::new(receiver.clone(), labels.clone()).key();
    let key = GroupKey { tenant: receiver.tenant.clone(), receiver: receiver.name.clone(), group };
    Keyed { key, position: 0, event: GroupEvent::Alert(receiver, labels, alert, diff as i64) }
}

/// The condition "this device is offline", while it holds and the device is looked after.
fn device_offline(device: &radarflow_proto::rows::Device) -> Option<(Subject, Condition)> {
    let looked_after = device.deleted_at.is_none() && device.lifecycle != Stage::Decommissioned.name();
    if device.is_available != Some(false) || !looked_after {
        return None;
    }
    let subject = Subject {
        tenant: device.tenant_id.clone(),
        partition: device.partition.clone(),
        rule: "device-offline".to_owned(),
        entity: device.uid.clone(),
    };
    let mut labels = BTreeMap::from([("device".to_owned(), device.display_name.clone())]);
    labels.extend(device.ip.clone().map(|ip| ("ip".to_owned(), ip)));
    let condition = Condition {
        rule: subject.rule.clone(),
        severity: "critical".to_owned(),
        title: format!("{} is offline", device.display_name),
        description: device.availability_reason.clone().unwrap_or_default(),
        source_type: "device".to_owned(),
        source_id: device.uid.clone(),
        device_uid: Some(device.uid.clone()),
        agent_uid: None,
        labels,
    };
    Some((subject, condition))
}
