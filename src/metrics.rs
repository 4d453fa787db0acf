//! `/metrics`: what intake, the dataflow, the sinks and the sources did and how far they are, in OpenMetrics.
//!
//! Counters that live elsewhere are read when they are asked for; nothing is counted twice. Labels are closed sets:
//! sinks, and the configured feeds of a tenant (never an exporter or a device).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use radarflow_connectors::ledger::intake::IntakeStats;
use radarflow_connectors::sinks::Applied;
use radarflow_connectors::sinks::lake::Lake;
use radarflow_connectors::sinks::webhook::Outbox;
use radarflow_connectors::sources::accept::ConnectionSlots;
use radarflow_dataflows::sizes::Sizes;
use radarflow_dataflows::worker::Backlog;
use radarflow_pipeline::Replay;
use radarflow_proto::room::Room;
use radarflow_query::engine::Engine;
use radarflow_query::live::streams::Streams;
use radarflow_query::records::plans::Plans;
use radarflow_query::tables::live::Live;

use crate::memory::{Budget, Pool, Rooms, resident_bytes};

/// What is looked at when metrics are asked for.
pub(crate) struct Watched {
    pub(crate) intake: Arc<IntakeStats>,
    pub(crate) live: Arc<Live>,
    pub(crate) sinks: Vec<(&'static str, Applied)>,
    /// How far each table of the lake is.
    pub(crate) tables: Arc<Vec<(String, Applied)>>,
    /// What waits in staged runs.
    pub(crate) backlog: Arc<Backlog>,
    /// How far the dataflow is.
    pub(crate) progress: Arc<Replay>,
    /// Whether the newest snapshot could not be written.
    pub(crate) snapshots_fail: Arc<AtomicBool>,
    pub(crate) memory: Arc<Budget>,
    /// Bytes of changes that wait for Postgres.
    pub(crate) postgres: Arc<AtomicUsize>,
    /// Notifications that wait.
    pub(crate) outbox: Arc<Outbox>,
    /// What queries hold.
    pub(crate) engine: Arc<Engine>,
    /// Plans that wait.
    pub(crate) plans: Arc<Plans>,
    /// What the dataflow keeps.
    pub(crate) sizes: Arc<Sizes>,
    /// Slots of connections.
    pub(crate) slots: Vec<Arc<ConnectionSlots>>,
    /// Memory of those who connect.
    pub(crate) rooms: Rooms,
    /// The lake, where there is one.
    pub(crate) lake: Option<Lake>,
    /// Live queries.
    pub(crate) streams: Arc<Streams>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

/// The registry with everything in it.
pub(crate) fn registry(watched: Watched) -> Registry {
    let mut registry = Registry::with_prefix("radarflow");
    watched.engine.register(&mut registry);
    watched.plans.register(&mut registry);
    registry.register_collector(Box::new(watched));
    registry
}

/// The text of an answer.
pub(crate) fn text(registry: &Registry) -> String {
    let mut out = String::new();
    match prometheus_client::encoding::text::encode(&mut out, registry) {
        Ok(()) => out,
        Err(error) => format!("# {error}\n# EOF\n"),
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let mut family = encoder.encode_descriptor("build_info", "What runs; always 1", None, kind)?;
        let build = [("version", env!("CARGO_PKG_VERSION")), ("commit", crate::cli::COMMIT)];
        ConstGauge::new(1_i64).encode(family.encode_family(&build)?)?;
        let intake = &self.intake;
        for (name, help, value) in [
            ("ledger_frames", "Frames written", read(&intake.frames)),
            ("ledger_inputs", "Inputs written", read(&intake.entries)),
            ("ledger_input_bytes", "Bytes of input written", read(&intake.bytes)),
            ("ledger_shed_inputs", "Inputs given up because the disk refused", read(&intake.shed)),
            (
                "ledger_given_up",
                "Submissions whose sender had left before they were written: told nothing, it says them again",
                read(&intake.given_up),
            ),
            (
                "dataflow_evicted_senders",
                "Senders that made place for others or found none: exporters, ledgers, counts of log lines, conditions of traps, \
                 traces, series of counters",
                read(self.sizes.evicted()),
            ),
            (
                "otel_late_spans",
                "Spans that came an hour late, when their trace was forgotten: rows, and in no summary",
                read(self.sizes.late_spans()),
            ),
            ("identity_mended_rows", "Rows of identity that its checks found to be wrong", read(self.sizes.mended())),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let written = ConstCounter::new(read(&intake.write_us) as f64 / 1e6);
        let help = "Time spent writing and syncing frames";
        written.encode(encoder.encode_descriptor(
            "ledger_write",
            help,
            Some(&Unit::Seconds),
            written.metric_type(),
        )?)?;
        let (epoch, reached) = (read(&intake.epoch), self.progress.reached.load(Ordering::Acquire));
        for (name, help, value) in [
            ("ledger_epoch", "Newest durable epoch", epoch),
            (
                "ledger_disk_short",
                "1 while the disk is nearly full and intake stopped",
                u64::from(intake.disk_short.load(Ordering::Relaxed)),
            ),
            (
                "ledger_record_full",
                "1 while the lake does not take what it is given and intake stopped",
                u64::from(intake.record_full.load(Ordering::Relaxed)),
            ),
            (
                "snapshots_failing",
                "1 while the newest snapshot could not be written and the ledger grows",
                u64::from(self.snapshots_fail.load(Ordering::Relaxed)),
            ),
            ("ledger_clock_held", "1 while the wall clock is too far off to follow", read(&intake.clock_held)),
            (
                "ledger_queued_bytes",
                "Bytes of telemetry that wait for the ledger",
                intake.queued_bytes.load(Ordering::Relaxed) as u64,
            ),
            (
                "ledger_awaited_bytes",
                "Bytes of input that wait for the ledger with whoever sent them",
                intake.awaited_bytes.load(Ordering::Relaxed) as u64,
            ),
            (
                "ledger_in_flight_bytes",
                "Bytes of frames that the dataflow is not done with",
                intake.in_flight_bytes.load(Ordering::Relaxed) as u64,
            ),
            (
                "postgres_waiting_bytes",
                "Bytes of changes that wait for Postgres",
                self.postgres.load(Ordering::Relaxed) as u64,
            ),
            ("dataflow_staged_memory_bytes", "Bytes of uploads that wait in memory", self.backlog.in_memory()),
            ("queries_reserved_bytes", "Bytes that queries and live queries hold", self.engine.reserved_bytes() as u64),
            ("plans_bytes", "Bytes of what is noted of runs that are planned", self.plans.bytes() as u64),
            (
                "lake_upkeep_running",
                "1 while files of the lake are merged, checkpoints made, or old ones removed",
                u64::from(self.lake.as_ref().is_some_and(Lake::is_kept_up)),
            ),
            ("outbox_waiting_bytes", "Bytes of notifications that wait", self.outbox.waiting_bytes() as u64),
            ("receivers_failing", "Receivers that do not take what they are sent", self.outbox.failing().len() as u64),
            ("ledger_bytes", "Bytes of ledger segments on disk", read(&intake.disk_bytes)),
            ("ledger_release_bytes", "Share of released uploads that a frame reads now", read(&intake.release_bytes)),
            (
                "identity_withheld_changes",
                "Changes of identity that the brakes keep from being published",
                self.sizes.withheld().load(Ordering::Relaxed).unsigned_abs(),
            ),
            ("dataflow_staged_bytes", "Bytes of uploads that are not read yet", self.backlog.bytes()),
            ("dataflow_epoch", "Newest complete epoch", reached),
            ("dataflow_lag_epochs", "Durable epochs that are not complete", epoch.saturating_sub(reached)),
            (
                "attribution_corrections",
                "What was learnt late of who had addresses, as queries have it; a million a tenant is kept",
                self.live.corrections() as u64,
            ),
            (
                "recent_bytes",
                "Bytes of event rows of the last epochs, kept for those who follow",
                self.live.recent().0 as u64,
            ),
            ("recent_changes", "Changes of the last epochs, kept for those who follow", self.live.recent().1 as u64),
            ("streams_running", "Live queries; a tenant has 64 at most", self.streams.running() as u64),
            (
                "streams_waiting_bytes",
                "Bytes of events that wait for those who follow queries",
                self.streams.bytes() as u64,
            ),
            ("live_fresh_bytes", "Bytes of event rows that wait for the lake", self.live.fresh_bytes() as u64),
            (
                "memory_short",
                "1 while memory is nearly full and telemetry is not taken",
                u64::from(intake.memory_short.load(Ordering::Relaxed)),
            ),
            ("process_resident_memory_bytes", "Memory of this process", resident_bytes() as u64),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        self.encode_connections(&mut encoder)?;
        self.encode_rooms(&mut encoder)?;
        self.encode_memory(&mut encoder)?;
        self.encode_sizes(&mut encoder)?;
        self.encode_sinks(&mut encoder, reached)?;
        self.encode_sources(&mut encoder)
    }
}

impl Watched {
    /// What a pool holds, bytes.
    fn held(&self, pool: Pool) -> usize {
        match pool {
            Pool::Live => self.live.state_bytes(),
            Pool::Fresh => self.live.fresh_bytes(),
            Pool::Queries => self.engine.reserved_bytes() + self.plans.bytes(),
            Pool::Queues => {
                let intake = &self.intake;
                let of_intake = [&intake.queued_bytes, &intake.awaited_bytes, &intake.in_flight_bytes, &*self.postgres];
                let of_intake: usize = of_intake.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
                of_intake + self.backlog.in_memory() as usize + self.outbox.waiting_bytes()
            }
            Pool::Clients => {
                let rooms = self.rooms.named();
                rooms.iter().map(|(_, room)| room.bytes()).sum::<usize>() + self.streams.bytes()
            }
            Pool::State => {
                let others = Pool::ALL.into_iter().filter(|other| *other != Pool::State);
                resident_bytes().saturating_sub(others.map(|other| self.held(other)).sum())
            }
        }
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let help = "Connections to a kind of listener; beyond 4096 they wait to be accepted";
        let mut family = encoder.encode_descriptor("connections", help, None, kind)?;
        for slots in &self.slots {
            let value = ConstGauge::new(slots.taken() as i64);
            value.encode(family.encode_family(&[("listener", slots.what())])?)?;
        }
        let kind = prometheus_client::metrics::MetricType::Counter;
        let help = "Connections that were closed because there was no memory for them";
        let mut family = encoder.encode_descriptor("connections_refused", help, None, kind)?;
        for slots in &self.slots {
            let value = ConstCounter::new(slots.refused());
            value.encode(family.encode_family(&[("listener", slots.what())])?)?;
        }
        Ok(())
    }

    fn encode_rooms(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Read = fn(&Room) -> usize;
        let families: [(&str, &str, Read); 2] = [
            ("room_bytes", "Memory that a room of those who connect holds", Room::bytes),
            (
                "room_bound_bytes",
                "Memory that it has; a tenant has half of it at most, and a sender a quarter",
                Room::bound,
            ),
        ];
        for (name, help, read) in families {
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (room, memory) in self.rooms.named() {
                let value = ConstGauge::new(read(memory) as i64);
                value.encode(family.encode_family(&[("room", room)])?)?;
            }
        }
        let kind = prometheus_client::metrics::MetricType::Counter;
        let help = "Requests, messages and connections that were refused because there was no room for them";
        let mut family = encoder.encode_descriptor("room_refused", help, None, kind)?;
        for (room, memory) in self.rooms.named() {
            ConstCounter::new(memory.refused()).encode(family.encode_family(&[("room", room)])?)?;
        }
        Ok(())
    }

    fn encode_memory(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Read = fn(&Watched, Pool) -> usize;
        let families: [(&str, &str, Read); 2] = [
            ("memory_pool_bytes", "Memory that a pool holds, about", Watched::held),
            ("memory_pool_share_bytes", "Memory that a pool has of the whole", |watched, pool| watched.memory.of(pool)),
        ];
        for (name, help, read) in families {
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for pool in Pool::ALL {
                let value = ConstGauge::new(read(self, pool) as i64);
                value.encode(family.encode_family(&[("pool", pool.name())])?)?;
            }
        }
        let limit = ConstGauge::new(self.memory.limit() as i64);
        let help = "Memory that the process may take";
        limit.encode(encoder.encode_descriptor("memory_limit_bytes", help, None, limit.metric_type())?)
    }

    fn encode_sizes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (parts, machines) = (self.sizes.parts(), self.sizes.machines());
        let updates: Vec<_> = parts.iter().map(|(part, size)| (*part, size.updates)).collect();
        let batches: Vec<_> = parts.iter().map(|(part, size)| (*part, size.batches)).collect();
        for (name, help, label, values) in [
            (
                "dataflow_arrangement_updates",
                "Updates that arrangements of a part of the dataflow hold",
                "part",
                updates,
            ),
            (
                "dataflow_arrangement_batches",
                "Batches that arrangements of a part of the dataflow hold",
                "part",
                batches,
            ),
            ("dataflow_machine_keys", "Keys that have state in a machine", "machine", machines),
        ] {
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (of, value) in values {
                ConstGauge::new(value).encode(family.encode_family(&[(label, of)])?)?;
            }
        }
        Ok(())
    }

    fn encode_sinks(&self, encoder: &mut DescriptorEncoder<'_>, reached: u64) -> Result<(), std::fmt::Error> {
        type Read = fn(&Applied, u64) -> u64;
        let families: [(&str, &str, Read); 3] = [
            ("sink_epoch", "Epoch up to which a sink has nothing uncommitted", |s, _| s.get()),
            ("sink_lag_epochs", "Complete epochs that a sink has not committed", |s, at| at.saturating_sub(s.get())),
            ("sink_up", "1 while the sink's target takes what it is given", |s, _| s.up().into()),
        ];
        for (name, help, read) in families {
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (sink, applied) in &self.sinks {
                let value = ConstGauge::new(read(applied, reached) as i64);
                value.encode(family.encode_family(&[("sink", *sink)])?)?;
            }
        }
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let help = "Epoch up to which a table of the lake has nothing uncommitted";
        let mut family = encoder.encode_descriptor("lake_table_epoch", help, None, kind)?;
        for (table, applied) in self.tables.iter() {
            let value = ConstGauge::new(applied.get() as i64);
            value.encode(family.encode_family(&[("table", table.as_str())])?)?;
        }
        Ok(())
    }

    fn encode_sources(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut feeds: BTreeMap<(String, String), [i64; 6]> = BTreeMap::new();
        for row in self.live.view().all_rows::<radarflow_proto::rows::Source>() {
            let sums = feeds.entry((row.tenant_id, row.source)).or_default();
            let counts = [row.received, row.stored, row.rejected, row.shed, row.lost, row.rows];
            sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        for (i, (name, help)) in [
            ("source_received", "Inputs received"),
            ("source_stored", "Inputs stored"),
            ("source_rejected", "Inputs that could not be used"),
            ("source_shed", "Inputs given up because there was no room"),
            ("source_lost", "Inputs lost before they were received, as far as the protocol tells"),
            ("source_rows", "Rows made of the inputs"),
        ]
        .into_iter()
        .enumerate()
        {
            let kind = prometheus_client::metrics::MetricType::Counter;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for ((tenant, source), sums) in &feeds {
                let labels = [("tenant", tenant.as_str()), ("source", source.as_str())];
                ConstCounter::new(sums[i].max(0) as u64).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
