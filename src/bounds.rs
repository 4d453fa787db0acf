//! Every bound on memory that is not the network's own size: what it bounds, how much, how many of these there are at
//! most, out of which pool, and which metric tells of it. `radarflow docs memory` prints it for the machine it runs on.
//!
//! The bounds of a pool add up to no more than its share, and the shares to the limit; a test does the sum. What is left of
//! `state` and `live` is for what the network is: arrangements and tables. Below [`ADDS_UP_FROM`] the fixed bounds of
//! `state` and `live` are more than their shares; then what holds is the limit itself, which stops telemetry.

use std::collections::BTreeSet;

use radarflow_connectors::ledger::intake::FRAME_BYTES;
use radarflow_connectors::ledger::snapshot;
use radarflow_connectors::sinks::lake::{COMMIT_SHARE, UPKEEP_BYTES};
use radarflow_connectors::sources::udp::{SENDERS_BYTES, SOCKET_BYTES, UNANSWERED_BYTES};
use radarflow_connectors::sources::{kafka, nats};
use radarflow_dataflows::decode::senders;
use radarflow_dataflows::jobs::{COMMAND_BYTES, MAX_COMMANDS};
use radarflow_dataflows::metrics::{PATHS_BYTES_OF_SHARE, RATES_BYTES_OF_SHARE};
use radarflow_dataflows::otel::{MAX_SERIES_BYTES, MAX_TRACES_BYTES};
use radarflow_dataflows::rules;
use radarflow_dataflows::strangers::BUCKETS;
use radarflow_proto::gelf;
use radarflow_proto::snmp::usm;
use radarflow_query::actor::passwords;
use radarflow_query::tables::live::CORRECTIONS_BYTES;
use radarflow_query::tables::recent::{RECENT_BYTES, RECENT_CHANGES};
use radarflow_reconcile::notifier::MAX_INFORMS;
use radarflow_reconcile::parsing;
use radarflow_reconcile::resources::judge::MAX_ANSWERED_BYTES;
use radarflow_reconcile::routing::matcher::{EXPRESSION_BYTES, MAX_EXPRESSIONS};

use crate::agent::{FOUND_BYTES, MAX_WAITING};
use crate::config::Config;
use crate::enrichment::MAX_ADDRESS_FILE;
use crate::memory::{Budget, COMMIT_FACTOR, OUTBOX_FACTOR, Pool};

/// The limit from which on everything adds up, bytes.
#[cfg(test)]
const ADDS_UP_FROM: usize = 4 << 30;
/// What the program takes with nothing to do, about: its threads, its code, what libraries keep.
const IDLE: usize = 128 << 20;
/// What a change takes, its row before and after, about.
const CHANGE: usize = 2048;
/// Copies of a frame while it is closed: what waited, the frame, its bytes on the way to disk.
const FRAME_COPIES: usize = 3;
/// Decoders that keep state of who sends: of flows, and of sFlow.
const DECODERS: usize = 2;
/// What is kept of a sender of SNMP notifications: its informs, and its place.
const NOTIFIER_BYTES: usize = 2 * MAX_INFORMS * 16 + 512;
/// The same of a tenant's.
const NOTIFIERS_BYTES: usize = NOTIFIER_BYTES * senders::MAX_SENDERS * BUCKETS as usize;

/// One of them.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Out of which pool.
    pub(crate) pool: Pool,
    /// What is bounded.
    pub(crate) what: &'static str,
    /// Bytes of one.
    pub(crate) bytes: usize,
    /// One of what.
    pub(crate) each: &'static str,
    /// How many there are at most.
    pub(crate) most: usize,
    /// The metric that tells how much of it is in use, or what was refused at it.
    pub(crate) metric: &'static str,
}

impl Bound {
    /// All of it.
    pub(crate) fn product(&self) -> usize {
        self.bytes.saturating_mul(self.most)
    }
}

/// All of them, under a limit and a configuration.
pub(crate) fn bounds(memory: &Budget, config: &Config) -> Vec<Bound> {
    let bound = |pool, what, bytes, each, most, metric| Bound { pool, what, bytes, each, most, metric };
    let one = |pool, what, bytes, metric| bound(pool, what, bytes, "process", 1, metric);
    let datagrams = [&config.netflow, &config.sflow, &config.syslog, &config.traps];
    let sockets: usize = datagrams.iter().copied().flatten().map(|socket| socket.sockets).sum();
    let of_traps: usize = config.traps.iter().map(|socket| socket.sockets).sum();
    let of_syslog: usize = config.syslog.iter().map(|socket| socket.sockets).sum();
    let of_engines = usm::MAX_ENGINES * config.traps.iter().map(|s| s.tenant.as_str()).collect::<BTreeSet<_>>().len();
    // While one takes the place of another both are there.
    let of_files = 2 * config.enrichment.address_files.len();
    let tenants = datagrams.iter().copied().flatten().map(|socket| socket.tenant.as_str());
    let tenants: BTreeSet<&str> = tenants.chain(config.otlp.iter().map(|otlp| otlp.tenant.as_str())).collect();
    let (subjects, clusters) =
        (config.sources.nats.iter().map(|nats| nats.subjects.len()).sum(), config.sources.kafka.len());
    let (intake, rooms) = (memory.intake(), memory.rooms());
    use Pool::{Clients, Fresh, Live, Queries, Queues, State};
    vec![
        one(State, "the program itself", IDLE, "process_resident_memory_bytes"),
        bound(State, "datagrams that are read", SOCKET_BYTES, "socket", sockets, "source_shed"),
        bound(State, "allowances of senders", SENDERS_BYTES, "socket", sockets, "source_shed"),
        bound(State, "chunks of GELF that wait", gelf::MAX_BYTES, "syslog socket", of_syslog, "source_shed"),
        bound(State, "informs that wait", UNANSWERED_BYTES, "trap socket", of_traps, "source_shed"),
        bound(State, "SNMP engines that are known", usm::ENGINE_BYTES, "engine", of_engines, "source_rejected"),
        bound(
            State,
            "templates and sequences",
            senders::MAX_BYTES * BUCKETS as usize * DECODERS,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(State, "senders of notifications", NOTIFIERS_BYTES, "tenant", tenants.len(), "dataflow_machine_keys"),
        bound(
            State,
            "address files",
            MAX_ADDRESS_FILE,
            "file, or its successor",
            of_files,
            "process_resident_memory_bytes",
        ),
        one(State, "a frame that is closed", FRAME_BYTES * FRAME_COPIES, "ledger_frames"),
        one(State, "rows of the last epochs", RECENT_BYTES, "recent_bytes"),
        bound(State, "changes of the last epochs", CHANGE, "change", RECENT_CHANGES, "recent_changes"),
        one(State, "upkeep of the lake", UPKEEP_BYTES, "lake_upkeep_running"),
        one(State, "merges of snapshots", snapshot::MERGE_BYTES, "snapshots_failing"),
        bound(
            State,
            "passwords that are looked at",
            passwords::HASH_BYTES,
            "hash",
            passwords::AT_ONCE,
            "process_resident_memory_bytes",
        ),
        bound(
            State,
            "expressions of routes and silences",
            // Compiled, and what it keeps while it runs.
            2 * EXPRESSION_BYTES,
            "expression",
            MAX_EXPRESSIONS * tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(
            Live,
            "expressions of parsing rules",
            parsing::EXPRESSION_BYTES,
            "rule and worker",
            parsing::MAX_RULES * tenants.len() * config.workers,
            "dataflow_machine_keys",
        ),
        bound(
            State,
            "groups of rules",
            rules::MAX_BYTES_OF_SHARE * BUCKETS as usize,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(
            Live,
            "answers to Idempotency-Keys",
            MAX_ANSWERED_BYTES,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(
            State,
            "commands to agents",
            COMMAND_BYTES * MAX_COMMANDS,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(
            Live,
            "counters with rates",
            RATES_BYTES_OF_SHARE * BUCKETS as usize,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(
            State,
            "series of counters",
            MAX_SERIES_BYTES * BUCKETS as usize,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(
            Live,
            "paths to targets",
            PATHS_BYTES_OF_SHARE * BUCKETS as usize,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(
            Live,
            "summaries of traces",
            // As rows, and what they are made of.
            2 * MAX_TRACES_BYTES * BUCKETS as usize,
            "tenant",
            tenants.len(),
            "dataflow_machine_keys",
        ),
        bound(Live, "late corrections", CORRECTIONS_BYTES, "tenant", tenants.len(), "attribution_corrections"),
        one(Fresh, "rows that wait for the lake", memory.fresh(), "live_fresh_bytes"),
        one(Fresh, "a commit", memory.fresh() / COMMIT_SHARE * COMMIT_FACTOR, "lake_table_epoch"),
        one(Queries, "queries and what live ones keep", memory.queries(), "queries_reserved_bytes"),
        one(Queries, "plans", memory.plans(), "plans_bytes"),
        one(Queues, "telemetry that waits", intake.queue, "ledger_queued_bytes"),
        one(Queues, "other input that waits", intake.queue, "ledger_awaited_bytes"),
        one(Queues, "frames under way", intake.in_flight, "ledger_in_flight_bytes"),
        one(Queues, "staged uploads", memory.staged() as usize, "dataflow_staged_memory_bytes"),
        one(Queues, "changes for Postgres", memory.postgres(), "postgres_waiting_bytes"),
        bound(
            Queues,
            "results in the agent inside",
            FOUND_BYTES,
            "result",
            MAX_WAITING * usize::from(config.agent.enabled),
            "process_resident_memory_bytes",
        ),
        one(Queues, "notifications", memory.outbox() * OUTBOX_FACTOR, "outbox_waiting_bytes"),
        one(Clients, "connections", rooms.connections.bound(), "room_bytes"),
        one(Clients, "requests of tenants", rooms.requests.bound(), "room_bytes"),
        one(Clients, "requests of strangers", rooms.strangers.bound(), "room_bytes"),
        one(Clients, "what feeds read", rooms.feeds.bound(), "room_bytes"),
        one(Clients, "events for followers", memory.followers(), "streams_waiting_bytes"),
        bound(Clients, "a Kafka client", kafka::CLIENT_BYTES, "cluster", clusters, "source_received"),
        bound(Clients, "a NATS consumer", nats::CONSUMER_BYTES, "subject", subjects, "source_received"),
    ]
}

/// The table as text.
pub(crate) fn docs(memory: &Budget, config: &Config) -> String {
    let mib = |bytes: usize| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let mut out = format!("# Memory, of {} MiB\n", memory.limit() >> 20);
    for pool in Pool::ALL {
        out.push_str(&format!("\n## {}: {} MiB\n", pool.name(), mib(memory.of(pool))));
        out.push_str("| what | MiB | each | at most | MiB | metric |\n|---|---|---|---|---|---|\n");
        for bound in bounds(memory, config).iter().filter(|bound| bound.pool == pool) {
            let Bound { what, bytes, each, most, metric, .. } = bound;
            let (bytes, product) = (mib(*bytes), mib(bound.product()));
            out.push_str(&format!("| {what} | {bytes} | {each} | {most} | {product} | radarflow_{metric} |\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bounds: &[Bound], pool: Pool) -> usize {
        bounds.iter().filter(|bound| bound.pool == pool).map(Bound::product).sum()
    }

    #[test]
    fn bounds_add_up_to_the_shares_of_their_pools_and_shares_to_the_limit() {
        let config = Config::default();
        let machine = Budget::new(None).unwrap();
        let limits = [1, 2, 4, 6, 12, 48, 512].map(|gib| Budget::new(Some(gib << 10)).unwrap());
        for memory in limits.into_iter().chain([machine]) {
            let bounds = bounds(&memory, &config);
            let shares: usize = Pool::ALL.into_iter().map(|pool| memory.of(pool)).sum();
            assert!(shares <= memory.limit());
            for pool in Pool::ALL {
                let (sum, share) = (sum(&bounds, pool), memory.of(pool));
                let is_fixed = matches!(pool, Pool::State | Pool::Live) && memory.limit() < ADDS_UP_FROM;
                assert!(sum > 0 && (sum <= share || is_fixed), "{pool:?} of {}: {sum} > {share}", memory.limit());
            }
            if memory.limit() >= ADDS_UP_FROM {
                let all: usize = bounds.iter().map(Bound::product).sum();
                assert!(all < memory.limit());
            }
        }
    }

    #[test]
    fn what_is_configured_more_often_counts_more_often() {
        let memory = Budget::new(Some(8 << 10)).unwrap();
        let mut config = Config::default();
        let before: usize = bounds(&memory, &config).iter().map(Bound::product).sum();
        config.netflow[0].sockets = 8;
        config.traps[0].tenant = "another".to_owned();
        let after: usize = bounds(&memory, &config).iter().map(Bound::product).sum();
        let tenant = senders::MAX_BYTES * BUCKETS as usize * DECODERS
            + NOTIFIERS_BYTES
            + CORRECTIONS_BYTES
            + (2 * MAX_TRACES_BYTES + MAX_SERIES_BYTES) * BUCKETS as usize
            + MAX_ANSWERED_BYTES
            + COMMAND_BYTES * MAX_COMMANDS
            + rules::MAX_BYTES_OF_SHARE * BUCKETS as usize
            + (RATES_BYTES_OF_SHARE + PATHS_BYTES_OF_SHARE) * BUCKETS as usize
            + 2 * EXPRESSION_BYTES * MAX_EXPRESSIONS
            + parsing::EXPRESSION_BYTES * parsing::MAX_RULES * config.workers;
        assert_eq!(after - before, 7 * (SOCKET_BYTES + SENDERS_BYTES) + tenant);
    }
}
