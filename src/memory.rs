//! One budget for memory, and what each pool may have of it.
//!
//! | pool | share | beyond it |
//! |---|---|---|
//! | `state` | 33 % | grows with the network: arrangements, machines, and whatever is counted nowhere else |
//! | `live` | 14 % | grows with the network: the tables that queries read |
//! | `fresh` | 12 % | rows that wait for the lake: intake waits |
//! | `queries` | 16 % | a query goes on on disk, or ends with an error; a plan of a run is refused |
//! | `queues` | 10 % | senders wait or are shed; uploads go on on disk; Postgres is resynchronised |
//! | `clients` | 15 % | connections are closed; requests are refused; feeds wait; live queries are told less often |
//!
//! What a network needs to be known cannot be refused without being wrong, so `state` and `live` have shares that are
//! only told. What holds for all of it is the limit itself: a process that comes near takes no more telemetry until it is
//! well below ([`Budget::is_short`]), and an alert says so. What each pool is made of is in [`crate::bounds`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use radarflow_connectors::ledger::intake;
use radarflow_connectors::sinks::lake::COMMIT_SHARE;
use radarflow_connectors::sinks::webhook::ALL_BYTES;
use radarflow_connectors::sources::accept::ConnectionSlots;
use radarflow_connectors::sources::{grpc, otlp, tcp};
use radarflow_proto::room::Room;
use radarflow_query::{http, postgres};

/// The least that may be configured. With nothing to do the program takes about twice as much.
const LEAST: usize = 64 << 20;
/// Where there is less for connections there are a few all the same, bytes.
const LEAST_CONNECTIONS: usize = 8 << 20;
/// The same for requests of those who bear no token, the metrics among them.
const LEAST_STRANGERS: usize = 2 << 20;
/// What is taken of the machine where nothing is configured, percent.
const OF_MACHINE: usize = 75;
/// What a notification takes that is sent: as what is due, as JSON, as its text.
pub(crate) const OUTBOX_FACTOR: usize = 8;
/// What rows take that are committed, beside themselves: in order, encoded, as parts of a file.
pub(crate) const COMMIT_FACTOR: usize = 3;
/// No more telemetry above the first, again below the second, percent of the limit.
const SHORT: (usize, usize) = (95, 90);

/// Parts of the budget that are bounded or told by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    State,
    Live,
    Fresh,
    Queries,
    Queues,
    Clients,
}

impl Pool {
    pub(crate) const ALL: [Pool; 6] =
        [Pool::State, Pool::Live, Pool::Fresh, Pool::Queries, Pool::Queues, Pool::Clients];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Pool::State => "state",
            Pool::Live => "live",
            Pool::Fresh => "fresh",
            Pool::Queries => "queries",
            Pool::Queues => "queues",
            Pool::Clients => "clients",
        }
    }

    fn percent(self) -> usize {
        match self {
            Pool::State => 33,
            Pool::Live => 14,
            Pool::Fresh => 12,
            Pool::Queries => 16,
            Pool::Queues => 10,
            Pool::Clients => 15,
        }
    }
}

/// Takes memory in small pages. Arrangements come and go in blocks of all sizes; in pages of two megabytes, which have to be
/// cleared before their first use, the first load of an inventory took 1.3 times as long, and no query was faster.
pub(crate) fn small_pages() {
    // Where that is refused it is slower, that is all.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// What the process may take.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    short: AtomicBool,
}

impl Budget {
    /// The configured limit, or most of what the machine, or the group of processes that this one is in, has.
    pub(crate) fn new(configured_mib: Option<usize>) -> Result<Budget> {
        let limit = match configured_mib {
            Some(mib) => mib << 20,
            None => (machine_bytes() / 100 * OF_MACHINE).max(LEAST),
        };
        if limit < LEAST {
            bail!("memory_limit_mib = {} is too little; it takes at least {}", limit >> 20, LEAST >> 20);
        }
        Ok(Budget { limit, short: AtomicBool::new(false) })
    }

    /// All of it, bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// A pool's share, bytes.
    pub(crate) fn of(&self, pool: Pool) -> usize {
        self.limit / 100 * pool.percent()
    }

    /// What waits before the dataflow.
    pub(crate) fn intake(&self) -> intake::Bounds {
        let queues = self.of(Pool::Queues);
        intake::Bounds { queue: queues / 8, in_flight: queues / 4 }
    }

    /// What is staged of large uploads.
    pub(crate) fn staged(&self) -> u64 {
        (self.of(Pool::Queues) / 4) as u64
    }

    /// Notifications that wait. While they are sent they are texts, too.
    pub(crate) fn outbox(&self) -> usize {
        (self.of(Pool::Queues) / 8 / OUTBOX_FACTOR).min(ALL_BYTES)
    }

    /// Rows that wait for the lake. While some are committed they are there in order, and as a file, too.
    pub(crate) fn fresh(&self) -> usize {
        self.of(Pool::Fresh) / (COMMIT_SHARE + COMMIT_FACTOR) * COMMIT_SHARE
    }

    /// What is noted of runs that somebody looks at before they are applied, of the share of queries.
    pub(crate) fn plans(&self) -> usize {
        self.of(Pool::Queries) / 8
    }

    /// What is left of that share to the queries themselves.
    pub(crate) fn queries(&self) -> usize {
        self.of(Pool::Queries) - self.plans()
    }

    /// What waits for Postgres.
    pub(crate) fn postgres(&self) -> usize {
        self.of(Pool::Queues) / 8
    }

    /// What waits for those who follow queries.
    pub(crate) fn followers(&self) -> usize {
        self.of(Pool::Clients) / 8
    }

    /// The rooms of those who connect.
    pub(crate) fn rooms(&self) -> Rooms {
        let clients = self.of(Pool::Clients);
        Rooms {
            connections: Room::of((clients / 4).max(LEAST_CONNECTIONS)),
            requests: Room::of(clients / 4),
            strangers: Room::of((clients / 32).max(LEAST_STRANGERS)),
            feeds: Room::of(clients / 16 * 5),
        }
    }

    /// Whether no more telemetry may be taken, now that so much is resident.
    pub(crate) fn is_short(&self, resident: usize) -> bool {
        let percent = if self.short.load(Ordering::Relaxed) { SHORT.1 } else { SHORT.0 };
        let short = resident > self.limit / 100 * percent;
        self.short.store(short, Ordering::Relaxed);
        short
    }
}

/// Memory of those who connect.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    /// For connections, whatever comes by them.
    pub(crate) connections: Arc<Room>,
    /// For requests of those who bear a token.
    pub(crate) requests: Arc<Room>,
    /// For requests of those who bear none.
    pub(crate) strangers: Arc<Room>,
    /// For what is read of agents, streams, brokers and inventories until it is durable.
    pub(crate) feeds: Arc<Room>,
}

impl Rooms {
    /// Each with its name.
    pub(crate) fn named(&self) -> [(&'static str, &Arc<Room>); 4] {
        [
            ("connections", &self.connections),
            ("requests", &self.requests),
            ("strangers", &self.strangers),
            ("feeds", &self.feeds),
        ]
    }

    /// Slots for the connections of HTTP, gRPC, syslog, IPFIX, clients of Postgres and OTLP.
    pub(crate) fn slots(&self) -> [Arc<ConnectionSlots>; 6] {
        let kinds = [
            ("http", http::CONNECTION_BYTES),
            ("grpc", grpc::CONNECTION_BYTES),
            ("syslog", tcp::CONNECTION_BYTES),
            ("ipfix", tcp::CONNECTION_BYTES),
            ("postgres", postgres::limits::CONNECTION_BYTES),
            ("otlp", otlp::CONNECTION_BYTES),
        ];
        kinds.map(|(what, bytes)| ConnectionSlots::new(what, self.connections.clone(), bytes))
    }
}

/// Bytes of this process that are in memory.
pub(crate) fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0usize) * 1024
}

/// Memory of the machine, or of the control group that bounds this process, bytes.
fn machine_bytes() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine =
        machine.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    let machine = machine.map_or(usize::MAX, |kib: usize| kib * 1024);
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Control groups, version 2: one line, and every group above bounds too.
    let own = group.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/").to_owned();
    let bounds = std::path::Path::new(&own).ancestors().filter_map(|path| {
        let path = path.strip_prefix("/").unwrap_or(path);
        std::fs::read_to_string(std::path::Path::new("/sys/fs/cgroup").join(path).join("memory.max")).ok()
    });
    bounds.filter_map(|text| text.trim().parse().ok()).fold(machine, usize::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_the_whole_and_what_a_pool_is_made_of_is_its_share() {
        assert_eq!(Pool::ALL.iter().map(|pool| pool.percent()).sum::<usize>(), 100);
        let budget = Budget::new(Some(1000)).unwrap();
        assert_eq!(budget.of(Pool::Queries), 160 << 20);
        assert_eq!(budget.queries() + budget.plans(), budget.of(Pool::Queries));
        let intake::Bounds { queue, in_flight } = budget.intake();
        let outbox = OUTBOX_FACTOR * budget.outbox();
        let queues = 2 * queue + in_flight + budget.staged() as usize + budget.postgres() + outbox;
        assert!(budget.of(Pool::Queues) - queues < 128, "{queues}");
        assert!(Budget::new(Some(63)).unwrap_err().to_string().contains("at least 64"));
        let machine = Budget::new(None).unwrap().limit();
        assert!(machine >= LEAST && machine < machine_bytes());
    }

    #[test]
    fn shortness_ends_well_below_where_it_began() {
        let budget = Budget::new(Some(1000)).unwrap();
        let at = |percent: usize| budget.is_short((1000 << 20) / 100 * percent);
        assert_eq!([at(94), at(96), at(92), at(89), at(94)], [false, true, true, false, false]);
        assert!(resident_bytes() > 1 << 20);
    }
}
