//! Frames to typed events: each worker reads its share of every frame, in order, and nothing else of it.
//!
//! Which worker reads an entry is a stable hash of what its decoder remembers by (the exporter for flows) or its position
//! where it remembers nothing. Facts are read by every worker, before anything else of the frame, because how the rest is
//! read depends on them.
//!
//! What cannot be used becomes a `rejects` row; every input is counted where it ends up ([`crate::loss`]).

mod agents;
mod enriched;
mod facts;
mod flows;
mod measured;
mod messages;
mod notifications;
mod otlp;
mod reported;
pub mod runs;
pub mod senders;
pub mod shelf;
pub mod spill;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;
use bytes::Bytes;
use radarflow_proto::cell::{RowId, Tags, Time};
use radarflow_proto::fact::{DeviceStep, Fact};
use radarflow_proto::frame::{Entry, Frame, Kind, Origin, Slice};
use radarflow_proto::netflow::{Domain, Exporter};
use radarflow_proto::offsets::Offsets;
use radarflow_proto::otlp::Signal;
use radarflow_proto::payload::{FeedCounters, Listing};
use radarflow_proto::ports::Outcome;
use radarflow_proto::record::SourceKind;
use radarflow_proto::rows::{
    Audit, BatchBuilder, CpuMetricBatch, DiskMetricBatch, FlowBatch, InterfaceCountersBatch, LogBatch,
    MemoryMetricBatch, MtrHopBatch, MtrTraceBatch, OtelMetric, OtelMetricBatch, OtelTraceBatch, PluginResultBatch,
    ProbeBatch, ProcessMetricBatch, Reject, RejectBatch, Table, TimeseriesMetricBatch, TrapBatch,
};
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::identity::sources::Instances;
use radarflow_reconcile::notifier::Notifier;

use crate::alerts::{AlertEvent, AlertKey, GroupEvent, GroupKey, LetterEvent, LetterKey, Notice};
use crate::aliases::Poll;
use crate::availability::{ProbeResult, TargetKey};
use crate::facts::{FrameFacts, StandingFact};
use crate::health::{AgentKey, Beat, LogShare, LogSource, ServiceSaid};
use crate::identity::RunEvent;
use crate::jobs::{CommandEvent, JobEvent, JobKey};
use crate::keyed::{Context, Keyed, Restored, StateEntry, Tick, encode};
use crate::listings::{ListingEvent, ListingKey};
use crate::loss::{Delta, SourceKey};
use crate::metrics::{Share, Spoken, Walked};
use crate::otel::{Added, Counted, Share as OtelShare, SpanHeard};
use crate::records::Sighting;
use crate::resources::Stated;
use crate::sizes::Sizes;
use crate::topology::{Listed, Neighbors};
use enriched::Enrichment;
pub(crate) use notifications::notifiers_with_lanes;
use runs::{LedgerPosition, Runs, Staging};
use senders::{Lost, SFlowSequence, Senders};
pub(crate) use senders::{agents_with_reputation, exporters_with_names, exporters_with_reputation};
use shelf::Shelf;

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

/// Bytes of rows after which a batch is handed on.
const MAX_BUILT: usize = 64 << 20;

/// What one worker read in one frame.
#[derive(Default)]
pub struct Decoded {
    /// Sightings of records.
    pub sightings: Vec<Keyed<Name, Sighting>>,
    /// Items of sources that list them, and the ends of their runs.
    pub listed: Vec<Keyed<ListingKey, ListingEvent>>,
    /// Runs that began, and ends of those that list.
    pub runs: Vec<(ListingKey, RunEvent)>,
    /// Polls that listed interfaces.
    pub polls: Vec<Keyed<Name, Poll>>,
    /// Polls that list neighbours, by address.
    pub neighbors: Vec<Keyed<Name, Neighbors>>,
    /// Probe results.
    pub probes: Vec<Keyed<TargetKey, ProbeResult>>,
    /// Heartbeats.
    pub beats: Vec<Keyed<AgentKey, Beat>>,
    /// Log lines that rules look at.
    pub log_hits: Vec<Keyed<LogShare, LogSource>>,
    /// Traps, which may begin or end a condition.
    pub notices: Vec<Notice>,
    /// What sources did.
    pub deltas: Vec<Keyed<SourceKey, Delta>>,
    /// Standing facts.
    pub facts: Vec<Keyed<String, StandingFact>>,
    /// What people state of resources, by tenant.
    pub commands: Vec<Keyed<String, Stated>>,
    /// What the audit is told, by tenant.
    pub audited: Vec<Keyed<String, Box<Audit>>>,
    /// Runs that somebody brought and that are read to their end.
    pub ended: Vec<Outcome>,
    /// Steps of alerts that people ask for.
    pub steps: Vec<Keyed<AlertKey, AlertEvent>>,
    /// Steps of devices that people ask for, with their place in the epoch.
    pub device_steps: Vec<Keyed<Name, (u64, DeviceStep)>>,
    /// What became of notifications.
    pub deliveries: Vec<Keyed<GroupKey, GroupEvent>>,
    /// Dead letters that are to be sent again.
    pub replays: Vec<Keyed<LetterKey, LetterEvent>>,
    /// What agents found, counted by job.
    pub results: Vec<Keyed<JobKey, JobEvent>>,
    /// What gateways and agents say of commands, by tenant.
    pub words: Vec<Keyed<String, CommandEvent>>,
    /// What agents read, and what is known of interfaces.
    pub samples: Vec<Keyed<Share, Spoken>>,
    /// Ways to targets.
    pub walked: Vec<Keyed<Share, Walked>>,
    /// What agents say of services.
    pub services: Vec<Keyed<AgentKey, ServiceSaid>>,
    /// Interfaces that polls list, by the polled device.
    pub interfaces: Vec<Keyed<Name, Listed>>,
    /// Spans, by trace.
    pub spans: Vec<Keyed<OtelShare, SpanHeard>>,
    /// Points of sums that are counted from a beginning on, by series.
    pub points: Vec<Keyed<OtelShare, Counted>>,
    /// Rows of event tables.
    pub batches: Vec<EventBatch>,
}

#[derive(Default)]
struct Builders {
    flows: FlowBatch,
    flow_ips: [Vec<Option<IpAddr>>; 3],
    counters: InterfaceCountersBatch,
    counter_ips: Vec<Option<IpAddr>>,
    logs: LogBatch,
    log_ips: Vec<Option<IpAddr>>,
    traps: TrapBatch,
    trap_ips: Vec<Option<IpAddr>>,
    probes: ProbeBatch,
    probe_ips: Vec<Option<IpAddr>>,
    cpus: CpuMetricBatch,
    cpu_ips: Vec<Option<IpAddr>>,
    memory: MemoryMetricBatch,
    memory_ips: Vec<Option<IpAddr>>,
    disks: DiskMetricBatch,
    disk_ips: Vec<Option<IpAddr>>,
    processes: ProcessMetricBatch,
    process_ips: Vec<Option<IpAddr>>,
    series: TimeseriesMetricBatch,
    series_ips: Vec<Option<IpAddr>>,
    traces: MtrTraceBatch,
    trace_ips: Vec<Option<IpAddr>>,
    hops: MtrHopBatch,
    hop_ips: Vec<Option<IpAddr>>,
    plugins: PluginResultBatch,
    spans: OtelTraceBatch,
    span_ips: Vec<Option<IpAddr>>,
    metrics: OtelMetricBatch,
    metric_ips: Vec<Option<IpAddr>>,
    /// What inputs that may make much of little said that their rows take, bytes.
    grown: usize,
    rejects: RejectBatch,
}

/// Where the entry being read stands.
#[derive(Clone)]
struct At<'a> {
    origin: &'a Origin,
    /// The epoch it is read at: that of its rows.
    epoch: u64,
    /// Its place in the ledger: what its rows are named by.
    place: LedgerPosition,
    /// Its order among what is read at this epoch.
    order: u64,
    received_us: i64,
    peer: Option<SocketAddr>,
}

impl<'a> At<'a> {
    /// The nth entry of a slice.
    fn of(frame: &Frame, slice: &'a Slice, nth: usize) -> Self {
        let position = slice.first_position + nth as u32;
        let Entry { received_us, peer, .. } = slice.entries[nth];
        let (epoch, order) = (frame.epoch, u64::from(position));
        At { origin: &slice.origin, epoch, place: (epoch, position), order, received_us, peer }
    }
}

impl At<'_> {
    fn row_id(&self, index: u32) -> RowId {
        RowId::new(self.place.0, self.place.1, index)
    }

    fn partition(&self) -> &str {
        if self.origin.partition.is_empty() { "default" } else { &self.origin.partition }
    }

    /// Whose it is: tenant and partition.
    fn scope(&self) -> (String, String) {
        (self.origin.tenant.clone(), self.partition().to_owned())
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
    notifiers: Senders<(), Notifier>,
    sizes: Arc<Sizes>,
    /// Live time of the frame being read, milliseconds.
    now_ms: i64,
    runs: Runs,
    /// The run that is being read lists the items of its source.
    listing: Option<Arc<Listing>>,
    /// By source: the run that spoke last in this frame.
    last_runs: BTreeMap<u32, u32>,
    /// Rejects of the entry being read, so far.
    rejects: u32,
    /// What of feeds with offsets of their own is durable; the first worker's.
    offsets: BTreeMap<String, Offsets>,
    /// Feeds whose offsets the last snapshot lacks.
    dirty: BTreeSet<String>,
    instances: Instances,
    enrichment: Enrichment,
    /// Partial sources: tenant, kind, instance.
    partial: BTreeSet<(String, SourceKind, String)>,
    builders: BTreeMap<(String, String), Builders>,
    out: Decoded,
}

const EXPORTERS: &str = "exporters";
const SFLOW: &str = "sflow";
const NOTIFIERS: &str = "notifiers";
/// The collection of what is durable of feeds with offsets of their own: [`Offsets`] by feed.
pub const OFFSETS: &str = "offsets";

impl Decoder {
    /// A decoder with the state restored for this worker. `facts` are all standing facts, in any order.
    pub fn new(cx: &Context, facts: &[Fact], staging: &Staging, shelf: &Arc<Shelf>) -> Self {
        let mut decoder = Decoder {
            index: cx.index,
            peers: cx.peers,
            exporters: Senders::restore(cx, EXPORTERS),
            sflow: Senders::restore(cx, SFLOW),
            notifiers: Senders::restore(cx, NOTIFIERS),
            sizes: cx.shared_sizes(),
            now_ms: 0,
            runs: Runs::restore(cx, staging),
            listing: None,
            last_runs: BTreeMap::new(),
            rejects: 0,
            offsets: cx.restore_where(OFFSETS, |_: &String| 0),
            dirty: Default::default(),
            instances: Instances::default(),
            enrichment: Enrichment::new(shelf.clone()),
            partial: Default::default(),
            builders: BTreeMap::new(),
            out: Decoded::default(),
        };
        facts.iter().for_each(|fact| decoder.note(fact));
        decoder
    }

    /// Reads this worker's share of a frame, whose facts are decoded.
    pub fn read(&mut self, frame: &Frame, facts: &FrameFacts, tick: &Tick) -> Decoded {
        if self.index == 0 {
            for range in &frame.ranges {
                self.offsets.entry(range.feed.clone()).or_default().insert(range.from, range.to);
                self.dirty.insert(range.feed.clone());
            }
        }
        self.last_runs.clear();
        self.expire_senders(tick);
        // Facts first, for every worker; a run's end after its chunks, wherever they stand.
        for (fact, slice, nth) in facts.entries(frame) {
            self.rejects = 0;
            self.fact(&At::of(frame, slice, nth), &slice.entries[nth].body, &fact.fact);
        }
        let mut slices: Vec<_> = frame.slices.iter().filter(|s| s.origin.kind != Kind::Fact).collect();
        slices.sort_by_key(|s| s.origin.kind == Kind::Release);
        for slice in slices {
            for (nth, entry) in slice.entries.iter().enumerate() {
                let at = At::of(frame, slice, nth);
                // Runs are every worker's.
                let all = matches!(at.origin.kind, Kind::Staged | Kind::Release);
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
        self.notifiers.expire(self.now_ms);
    }

    /// Tells the ledgers what was lost of senders that were forgotten, and everybody how many there are.
    fn tell_senders(&mut self) {
        for Lost { tenant, partition, ip, heard: (source, at_us), lost, waiting } in self.exporters.lost() {
            let key = SourceKey { tenant, partition, source, exporter: ip.to_string() };
            let event = Delta { lost, waiting_sets: Some(waiting), ..Delta::at(at_us) };
            self.out.deltas.push(Keyed { key, position: u64::MAX, event });
        }
        let evicted = self.exporters.evicted() + self.sflow.evicted() + self.notifiers.evicted();
        self.sizes.evicted().fetch_add(evicted, Ordering::Relaxed);
        let all = [(EXPORTERS, self.exporters.len()), (SFLOW, self.sflow.len()), (NOTIFIERS, self.notifiers.len())];
        for (name, keys) in all {
            self.sizes.machine(name, self.index).store(keys as i64, Ordering::Relaxed);
        }
    }

    fn is_mine(&self, owner: u64) -> bool {
        owner % self.peers as u64 == self.index as u64
    }

    fn owner(&self, at: &At<'_>) -> u64 {
        match at.origin.kind {
            Kind::NetFlow | Kind::SFlow | Kind::Trap => {
                at.ip().map_or(0, |ip| senders::owner(&at.origin.tenant, at.partition(), ip))
            }
            _ => at.order,
        }
    }

    fn entry(&mut self, at: &At<'_>, entry: &Entry, tick: &Tick) {
        match at.origin.kind {
            // Read before.
            Kind::Fact => {}
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
            Kind::OtlpLogs => self.otlp(at, Signal::Logs, &entry.body),
            Kind::OtlpTraces => self.otlp(at, Signal::Traces, &entry.body),
            Kind::OtlpMetrics => self.otlp(at, Signal::Metrics, &entry.body),
        }
    }

    fn counters(&mut self, at: &At<'_>, body: &Bytes) {
        match serde_json::from_slice(body) {
            Ok(FeedCounters { shed, kernel_drops }) => {
                let delta = Delta { received: shed, shed, lost: kernel_drops, ..Delta::at(at.received_us) };
                // What is told with a sender is that one's.
                self.count(at, at.ip(), delta);
            }
            Err(error) => self.refuse(at, None, body, &format!("not counters: {error}")),
        }
    }

    /// An input that cannot be used at all: a row, and a count where it came from.
    fn refuse(&mut self, at: &At<'_>, sender: Option<IpAddr>, body: &[u8], reason: &str) {
        self.reject(at, body, reason);
        self.count(at, sender, Delta { received: 1, rejected: 1, ..Delta::at(at.received_us) });
    }

    fn count(&mut self, at: &At<'_>, exporter: Option<IpAddr>, delta: Delta) {
        let key = at.source(exporter);
        match self.out.deltas.last_mut() {
            Some(last) if last.key == key => last.event.add(&delta),
            _ => self.out.deltas.push(Keyed { key, position: at.order, event: delta }),
        }
    }

    /// A row for what cannot be used of an input; its input is counted by whoever read it.
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
        self.builders.entry(at.scope()).or_default()
    }

    /// An input made so many bytes of rows. Columns of one batch have an end: what is large is not kept until the frame's.
    fn grown(&mut self, at: &At<'_>, bytes: usize) {
        let builders = self.builders(at);
        builders.grown += bytes;
        if builders.grown > MAX_BUILT {
            let scope = at.scope();
            let large = self.builders.remove(&scope);
            self.finish(large.map(|large| (scope, large)));
        }
    }

    fn finish_batches(&mut self) {
        let all = std::mem::take(&mut self.builders);
        self.finish(all);
    }

    fn finish(&mut self, builders: impl IntoIterator<Item = ((String, String), Builders)>) {
        for ((tenant, partition), mut b) in builders {
            let mut push = |table, rows: RecordBatch, lookups| {
                if rows.num_rows() > 0 {
                    let (tenant, partition) = (tenant.clone(), partition.clone());
                    self.out.batches.push(EventBatch { table, tenant, partition, rows, lookups });
                }
            };
            push(Table::Flow, b.flows.finish(), b.flow_ips.into());
            push(Table::InterfaceCounters, b.counters.finish(), vec![b.counter_ips]);
            push(Table::Log, b.logs.finish(), vec![b.log_ips]);
            push(Table::Trap, b.traps.finish(), vec![b.trap_ips]);
            push(Table::Probe, b.probes.finish(), vec![b.probe_ips]);
            push(Table::CpuMetric, b.cpus.finish(), vec![b.cpu_ips]);
            push(Table::MemoryMetric, b.memory.finish(), vec![b.memory_ips]);
            push(Table::DiskMetric, b.disks.finish(), vec![b.disk_ips]);
            push(Table::ProcessMetric, b.processes.finish(), vec![b.process_ips]);
            push(Table::TimeseriesMetric, b.series.finish(), vec![b.series_ips]);
            push(Table::MtrTrace, b.traces.finish(), vec![b.trace_ips]);
            push(Table::MtrHop, b.hops.finish(), vec![b.hop_ips]);
            push(Table::PluginResult, b.plugins.finish(), vec![]);
            push(Table::OtelTrace, b.spans.finish(), vec![b.span_ips]);
            push(Table::OtelMetric, b.metrics.finish(), vec![b.metric_ips]);
            push(Table::Reject, b.rejects.finish(), vec![]);
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
        entries.extend(self.notifiers.snapshot());
        entries.extend(self.runs.snapshot());
        entries
    }

    /// Staged runs.
    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }
}

/// Rows of `otel_metrics` that were decoded before, by partition; they are of one tenant.
pub(crate) fn batches_of_points(rows: Vec<Added>) -> impl Iterator<Item = EventBatch> {
    let mut by_partition: BTreeMap<(String, String), (OtelMetricBatch, Vec<Option<IpAddr>>)> = BTreeMap::new();
    for Added { row, resource, scope } in rows {
        let scope_attributes = Some(&scope.0).filter(|scope| !scope.is_empty()).map(|scope| Tags(scope.clone()));
        let row = OtelMetric { resource_attributes: Tags(resource.0.clone()), scope_attributes, ..row };
        let (batch, ips) = by_partition.entry((row.tenant_id.clone(), row.partition.clone())).or_default();
        batch.push(&row);
        ips.push(row.source_ip);
    }
    by_partition.into_iter().map(|((tenant, partition), (mut batch, ips))| EventBatch {
        table: Table::OtelMetric,
        tenant,
        partition,
        rows: batch.finish(),
        lookups: vec![ips],
    })
}

/// What a snapshot says is durable of feeds with offsets of their own.
pub fn durable_offsets(state: &Restored) -> BTreeMap<String, Offsets> {
    let entries = state.get(OFFSETS).into_iter().flatten();
    entries.filter_map(|(feed, offsets)| Some((decode(feed)?, decode(offsets)?))).collect()
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
