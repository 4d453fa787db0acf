//! Frames to typed events: each worker reads its share of every frame, in order, and nothing else of it.
//!
//! Which worker reads an entry is a stable hash of what its decoder remembers by (the exporter for flows) or its position
//! where it remembers nothing. Facts are read by every worker, before anything else of the frame, because how the rest is
//! read depends on them.
//!
//! What cannot be used becomes a `rejects` row; every input is counted where it ends up ([`crate::sources`]).

mod agents;
mod flows;
mod messages;
pub mod runs;
pub mod senders;
pub mod spill;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;
use bytes::Bytes;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::fact::{Audited, DeviceStep, Fact, RunDecision};
use radarflow_proto::frame::{Entry, Frame, Kind, Origin};
use radarflow_proto::netflow::{Domain, Exporter};
use radarflow_proto::offsets::Offsets;
use radarflow_proto::payload::{FeedCounters, Listing};
use radarflow_proto::record::SourceKind;
use radarflow_proto::rows::{
    Audit, AuditBatch, BatchBuilder, FlowBatch, LogBatch, Reject, RejectBatch, Table, TrapBatch,
};
use radarflow_reconcile::identity::sources::{self, Instances};

use crate::alerts::{AlertKey, FACTS, GroupEvent, GroupKey, LifeEvent, PairEvent, PairShare, PairSubject};
use crate::aliases::Poll;
use crate::health::{AgentKey, Beat, LogShare, LogSource, Probe, TargetKey};
use crate::identity::gate::RunEvent;
use crate::keyed::{Context, Keyed, StateEntry, Tick, encode};
use crate::lifecycle;
use crate::listings::{ListingEvent, ListingKey};
use crate::loss::{Delta, SourceKey};
use crate::records::{Arrival, Name};
use crate::sizes::Sizes;
use crate::topology::Neighbors;
use runs::{Place, Runs, Staging};
use senders::{Lost, SFlowSequence, Senders};
pub(crate) use senders::{agents_with_standing, exporters_with_standing};

/// Bytes of a rejected input that are kept.
pub const MAX_REJECT_BYTES: usize = 4096;

/// Rows of one table, tenant and partition, with the addresses that attribution looks up.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// The table.
    pub table: Table,
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The rows.
    pub rows: RecordBatch,
    /// For each of the table's [`Table::attributed`] columns the address of each row.
    pub lookups: Vec<Vec<Option<IpAddr>>>,
}

/// What one worker read in one frame.
#[derive(Default)]
pub struct Decoded {
    /// Sightings of records.
    pub sightings: Vec<Keyed<Name, Arrival>>,
    /// Items of sources that list them, and the ends of their runs.
    pub listed: Vec<Keyed<ListingKey, ListingEvent>>,
    /// Runs that began, and ends of those that list.
    pub runs: Vec<(ListingKey, RunEvent)>,
    /// Polls that listed interfaces.
    pub polls: Vec<Keyed<Name, Poll>>,
    /// Polls that list neighbours, by address.
    pub neighbors: Vec<Keyed<Name, Neighbors>>,
    /// Probe results.
    pub probes: Vec<Keyed<TargetKey, Probe>>,
    /// Heartbeats.
    pub beats: Vec<Keyed<AgentKey, Beat>>,
    /// Log lines that rules look at.
    pub log_hits: Vec<Keyed<LogShare, LogSource>>,
    /// Traps that begin or end a condition.
    pub pairs: Vec<Keyed<PairShare, (PairSubject, PairEvent)>>,
    /// What sources did.
    pub deltas: Vec<Keyed<SourceKey, Delta>>,
    /// Standing facts.
    pub facts: Vec<Keyed<String, String>>,
    /// Steps of alerts that people ask for.
    pub steps: Vec<Keyed<AlertKey, LifeEvent>>,
    /// Steps of devices that people ask for, with their place in the epoch.
    pub device_steps: Vec<Keyed<Name, (u64, DeviceStep)>>,
    /// What became of notifications.
    pub deliveries: Vec<Keyed<GroupKey, GroupEvent>>,
    /// Rows of event tables.
    pub batches: Vec<EventBatch>,
}

#[derive(Default)]
struct Builders {
    flows: FlowBatch,
    flow_ips: [Vec<Option<IpAddr>>; 3],
    logs: LogBatch,
    log_ips: Vec<Option<IpAddr>>,
    traps: TrapBatch,
    trap_ips: Vec<Option<IpAddr>>,
    rejects: RejectBatch,
    audit: AuditBatch,
}

/// Where the entry being read stands.
#[derive(Clone)]
struct At<'a> {
    origin: &'a Origin,
    /// The epoch it is read at: that of its rows.
    epoch: u64,
    /// Its place in the ledger: what its rows are named by.
    place: Place,
    /// Its order among what is read at this epoch.
    order: u64,
    received_us: i64,
    peer: Option<SocketAddr>,
}

impl At<'_> {
    fn row_id(&self, index: u32) -> RowId {
        RowId::new(self.place.0, self.place.1, index)
    }

    fn partition(&self) -> &str {
        if self.origin.partition.is_empty() { "default" } else { &self.origin.partition }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.peer.map(|p| p.ip().to_canonical())
    }

    fn source(&self, exporter: Option<IpAddr>) -> SourceKey {
        SourceKey {
            tenant: self.origin.tenant.clone(),
            partition: self.partition().to_owned(),
            source: self.origin.feed.clone(),
            exporter: exporter.map(|ip| ip.to_string()).unwrap_or_default(),
        }
    }
}

/// One worker's decoders and what they remember.
pub struct Decoder {
    index: usize,
    peers: usize,
    exporters: Senders<(Domain, u16), Exporter>,
    sflow: Senders<u32, SFlowSequence>,
    sizes: Arc<Sizes>,
    /// Live time of the frame being read, milliseconds.
    now_ms: i64,
    runs: Runs,
    /// The run that is being read lists the items of its source.
    listing: Option<Arc<Listing>>,
    /// By source: the run that spoke last in this frame.
    running: BTreeMap<u32, u32>,
    /// Rejects of the entry being read, so far.
    rejects: u32,
    /// What of feeds with offsets of their own is durable; the first worker's.
    offsets: BTreeMap<String, Offsets>,
    /// Feeds whose offsets the last snapshot lacks.
    dirty: BTreeSet<String>,
    instances: Instances,
    /// Partial sources: tenant, kind, instance.
    partial: BTreeSet<(String, SourceKind, String)>,
    builders: BTreeMap<(String, String), Builders>,
    out: Decoded,
}

const EXPORTERS: &str = "exporters";
const SFLOW: &str = "sflow";
/// The collection of what is durable of feeds with offsets of their own: [`Offsets`] by feed.
pub const OFFSETS: &str = "offsets";

impl Decoder {
    /// A decoder with the state restored for this worker. `facts` are all standing facts, in any order.
    pub fn new(cx: &Context, facts: &[Fact], staging: &Staging) -> Self {
        let mut decoder = Decoder {
            index: cx.index,
            peers: cx.peers,
            exporters: Senders::restore(cx, EXPORTERS),
            sflow: Senders::restore(cx, SFLOW),
            sizes: cx.shared_sizes(),
            now_ms: 0,
            runs: Runs::restore(cx, staging),
            listing: None,
            running: BTreeMap::new(),
            rejects: 0,
            offsets: cx.restore_where(OFFSETS, |_: &String| 0),
            dirty: Default::default(),
            instances: Instances::default(),
            partial: Default::default(),
            builders: BTreeMap::new(),
            out: Decoded::default(),
        };
        facts.iter().for_each(|fact| decoder.note(fact));
        decoder
    }

    /// Reads this worker's share of a frame.
    pub fn read(&mut self, frame: &Frame, tick: &Tick) -> Decoded {
        if self.index == 0 {
            for range in &frame.ranges {
                self.offsets.entry(range.feed.clone()).or_default().insert(range.from, range.to);
                self.dirty.insert(range.feed.clone());
            }
        }
        self.running.clear();
        self.expire_senders(tick);
        // Facts first; a run's end after its chunks, wherever they stand.
        let mut slices: Vec<_> = frame.slices.iter().collect();
        slices.sort_by_key(|s| match s.origin.kind {
            Kind::Fact => 0,
            Kind::Release => 2,
            _ => 1,
        });
        for slice in slices {
            for (i, entry) in slice.entries.iter().enumerate() {
                let position = slice.first_position + i as u32;
                let at = At {
                    origin: &slice.origin,
                    epoch: frame.epoch,
                    place: (frame.epoch, position),
                    order: u64::from(position),
                    received_us: entry.received_us,
                    peer: entry.peer,
                };
                // Facts and runs are every worker's.
                let all = matches!(at.origin.kind, Kind::Fact | Kind::Staged | Kind::Release);
                if all || self.is_mine(self.owner(&at)) {
                    self.rejects = 0;
                    self.entry(&at, entry, tick);
                }
            }
        }
        self.read_runs(frame, tick);
        self.tell_senders();
        self.finish_batches();
        std::mem::take(&mut self.out)
    }

    /// Forgets senders that are quiet, and what waited too long of others.
    fn expire_senders(&mut self, tick: &Tick) {
        self.now_ms = tick.live_ms;
        self.exporters.expire(self.now_ms);
        self.sflow.expire(self.now_ms);
    }

    /// Tells the ledgers what was lost of senders that were forgotten, and everybody how many there are.
    fn tell_senders(&mut self) {
        for Lost { tenant, partition, ip, heard: (source, at_us), lost, waiting } in self.exporters.lost() {
            let key = SourceKey { tenant, partition, source, exporter: ip.to_string() };
            let event = Delta { lost, waiting_sets: Some(waiting), ..Delta::at(at_us) };
            self.out.deltas.push(Keyed { key, position: u64::MAX, event });
        }
        self.sizes.evicted().fetch_add(self.exporters.evicted() + self.sflow.evicted(), Ordering::Relaxed);
        for (name, keys) in [(EXPORTERS, self.exporters.len()), (SFLOW, self.sflow.len())] {
            self.sizes.machine(name, self.index).store(keys as i64, Ordering::Relaxed);
        }
    }

    fn is_mine(&self, owner: u64) -> bool {
        owner % self.peers as u64 == self.index as u64
    }

    fn owner(&self, at: &At<'_>) -> u64 {
        match at.origin.kind {
            Kind::NetFlow | Kind::SFlow => {
                at.ip().map_or(0, |ip| senders::owner(&at.origin.tenant, at.partition(), ip))
            }
            _ => at.order,
        }
    }

    fn entry(&mut self, at: &At<'_>, entry: &Entry, tick: &Tick) {
        match at.origin.kind {
            Kind::Fact => self.fact(at, &entry.body),
            Kind::NetFlow => self.netflow(at, &entry.body),
            Kind::SFlow => self.sflow(at, &entry.body),
            Kind::Syslog => self.syslog(at, &entry.body),
            Kind::Trap => self.trap(at, &entry.body),
            Kind::Status => self.status(at, &entry.body),
            Kind::Staged | Kind::Release => self.staged(at, &entry.body, tick),
            Kind::Counters => self.counters(at, &entry.body),
            Kind::FlowMessage => self.flow_message(at, &entry.body),
            Kind::Gelf => self.gelf(at, &entry.body),
            Kind::TrapJson => self.trap_json(at, &entry.body),
        }
    }

    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Instance { tenant, kind, instance, legacy } => {
                self.instances.note(tenant, *kind, instance, *legacy);
            }
            Fact::PartialSource { tenant, kind, instance, partial } => {
                let source = (tenant.clone(), *kind, instance.clone());
                if *partial {
                    self.partial.insert(source)
                } else {
                    self.partial.remove(&source)
                };
            }
            _ => {}
        }
    }

    fn fact(&mut self, at: &At<'_>, body: &Bytes) {
        let fact: Fact = match serde_json::from_slice(body) {
            Ok(fact) => fact,
            Err(error) => {
                if self.index == 0 {
                    self.reject(at, body, &format!("not a fact: {error}"));
                }
                return;
            }
        };
        self.note(&fact);
        if self.index != 0 {
            return;
        }
        if let Some(audited) = fact.audited() {
            self.audit(at, audited);
        }
        let position = at.order;
        match (&fact, fact.subject()) {
            (Fact::AlertStep { tenant, alert_id, .. }, _) => {
                let key = AlertKey::of_alert(tenant, alert_id);
                self.out.steps.push(Keyed { key, position, event: LifeEvent::Step(fact) });
            }
            (Fact::Delivery { tenant, receiver, group_key, notification_id, delivered, detail }, _) => {
                let key = GroupKey { tenant: tenant.clone(), receiver: receiver.clone(), group: group_key.clone() };
                let event =
                    GroupEvent::Settled { id: notification_id.clone(), delivered: *delivered, detail: detail.clone() };
                self.out.deliveries.push(Keyed { key, position, event });
            }
            (Fact::RunDecision(decision), _) => {
                let RunDecision { tenant, kind, instance, .. } = decision.clone();
                let key = ListingKey { tenant, kind, instance };
                self.out.listed.push(Keyed { key, position, event: ListingEvent::Decide(decision.clone()) });
            }
            (Fact::DeviceStep(step), _) => {
                let key = lifecycle::anchor(step);
                self.out.device_steps.push(Keyed { key, position, event: (position, step.clone()) });
            }
            (Fact::Reaped { records, .. }, _) => {
                for (key, partition) in records {
                    self.sighting(at, &sources::gone(key, partition, at.received_us), "");
                }
            }
            (_, Some(key)) => {
                let event = String::from_utf8_lossy(body).into_owned();
                self.out.facts.push(Keyed { key, position, event });
            }
            (_, None) => {}
        }
    }

    fn audit(&mut self, at: &At<'_>, audited: Audited) {
        let tenant = audited.tenant.unwrap_or_else(|| at.origin.tenant.clone());
        let row = Audit {
            tenant_id: tenant.clone(),
            partition: "default".to_owned(),
            row_id: at.row_id(0),
            epoch: at.epoch as i64,
            time: Time(at.received_us),
            actor: audited.actor.unwrap_or_else(|| at.origin.feed.clone()),
            action: audited.action,
            subject: audited.subject,
            reason: audited.reason,
            detail: audited.detail,
        };
        self.builders.entry((tenant, "default".to_owned())).or_default().audit.push(&row);
    }

    fn counters(&mut self, at: &At<'_>, body: &Bytes) {
        if let Ok(FeedCounters { shed, kernel_drops }) = serde_json::from_slice(body) {
            let delta = Delta { received: shed, shed, lost: kernel_drops, ..Delta::at(at.received_us) };
            self.count(at, None, delta);
        }
    }

    fn count(&mut self, at: &At<'_>, exporter: Option<IpAddr>, delta: Delta) {
        let key = at.source(exporter);
        match self.out.deltas.last_mut() {
            Some(last) if last.key == key => last.event.add(&delta),
            _ => self.out.deltas.push(Keyed { key, position: at.order, event: delta }),
        }
    }

    fn reject(&mut self, at: &At<'_>, body: &[u8], reason: &str) {
        let index = 0x4000_0000 + self.rejects;
        self.rejects += 1;
        let row = Reject {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(index),
            epoch: at.epoch as i64,
            time: Time(at.received_us),
            source: at.origin.feed.clone(),
            peer: at.peer.map(|p| p.to_string()),
            reason: reason.to_owned(),
            bytes: body[..body.len().min(MAX_REJECT_BYTES)].to_vec(),
            bytes_total: body.len() as i64,
        };
        self.builders(at).rejects.push(&row);
    }

    fn builders(&mut self, at: &At<'_>) -> &mut Builders {
        let key = (at.origin.tenant.clone(), at.partition().to_owned());
        self.builders.entry(key).or_default()
    }

    fn finish_batches(&mut self) {
        for ((tenant, partition), mut b) in std::mem::take(&mut self.builders) {
            let mut push = |table, rows: RecordBatch, lookups| {
                if rows.num_rows() > 0 {
                    let (tenant, partition) = (tenant.clone(), partition.clone());
                    self.out.batches.push(EventBatch { table, tenant, partition, rows, lookups });
                }
            };
            push(Table::Flow, b.flows.finish(), b.flow_ips.into());
            push(Table::Log, b.logs.finish(), vec![b.log_ips]);
            push(Table::Trap, b.traps.finish(), vec![b.trap_ips]);
            push(Table::Reject, b.rejects.finish(), vec![]);
            push(Table::Audit, b.audit.finish(), vec![]);
        }
    }

    /// What changed since the last snapshot.
    pub fn snapshot(&mut self) -> Vec<StateEntry> {
        let offsets = std::mem::take(&mut self.dirty).into_iter().map(|feed| StateEntry {
            collection: OFFSETS,
            key: encode(&feed),
            value: self.offsets.get(&feed).map(encode),
        });
        let mut entries: Vec<_> = offsets.collect();
        entries.extend(self.exporters.snapshot());
        entries.extend(self.sflow.snapshot());
        entries.extend(self.runs.snapshot());
        entries
    }

    /// Staged runs.
    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }
}

/// What a snapshot says is durable of feeds with offsets of their own.
pub fn durable_offsets(state: &BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>) -> BTreeMap<String, Offsets> {
    let entries = state.get(OFFSETS).into_iter().flatten();
    entries.filter_map(|(feed, offsets)| Some((decode(feed)?, decode(offsets)?))).collect()
}

/// The facts that stand, as a snapshot says.
pub fn standing_facts(state: &BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>) -> Vec<Fact> {
    let entries = state.get(FACTS).into_iter().flatten();
    entries.filter_map(|(_, json)| serde_json::from_str(&decode::<String>(json)?).ok()).collect()
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
