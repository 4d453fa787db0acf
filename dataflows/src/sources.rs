//! Loss ledgers: per feed and exporter, what came in and where it ended up. They balance:
//! `received = stored + rejected + shed`, beside what was lost before us.
//!
//! The row is said again at most every [`PACE_MS`], because a ledger moves with every datagram.

use radarflow_proto::cell::Time;
use radarflow_proto::rows::{Source, StateRow};
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;

use crate::keyed::{Context, Keyed, Machine, Tick, machine};

/// Least time between two versions of a row, milliseconds.
pub const PACE_MS: i64 = 1000;

/// Which ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceKey {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The feed.
    pub source: String,
    /// The sender; empty for the feed as a whole.
    pub exporter: String,
}

/// What a ledger moves by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Delta {
    pub received: u64,
    pub stored: u64,
    pub rejected: u64,
    pub shed: u64,
    pub lost: u64,
    pub rows: u64,
    /// Sets waiting now; `None` leaves it.
    pub waiting_sets: Option<u64>,
    /// What for.
    pub waiting: Option<String>,
    /// Receipt of the newest input, microseconds since 1970.
    pub at_us: i64,
}

impl Delta {
    /// Nothing yet, at an instant.
    pub fn at(at_us: i64) -> Self {
        Delta { at_us, ..Delta::default() }
    }

    /// This and then `other`.
    pub fn add(&mut self, other: &Delta) {
        self.received += other.received;
        self.stored += other.stored;
        self.rejected += other.rejected;
        self.shed += other.shed;
        self.lost += other.lost;
        self.rows += other.rows;
        if other.waiting_sets.is_some() {
            self.waiting_sets = other.waiting_sets;
            self.waiting.clone_from(&other.waiting);
        }
        self.at_us = self.at_us.max(other.at_us);
    }
}

struct Ledgers;

#[derive(Serialize, Deserialize)]
struct Ledger {
    total: Delta,
    said: Option<Source>,
    said_ms: i64,
    unsaid: bool,
}

impl Ledger {
    fn row(&self, key: &SourceKey) -> Source {
        let n = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Source {
            tenant_id: key.tenant.clone(),
            partition: key.partition.clone(),
            source: key.source.clone(),
            exporter: key.exporter.clone(),
            received: n(self.total.received),
            stored: n(self.total.stored),
            rejected: n(self.total.rejected),
            shed: n(self.total.shed),
            lost: n(self.total.lost),
            rows: n(self.total.rows),
            waiting_sets: n(self.total.waiting_sets.unwrap_or(0)),
            waiting: self.total.waiting.clone(),
            last_seen: Time(self.total.at_us),
            epoch: 0,
        }
    }
}

impl Machine for Ledgers {
    type Key = SourceKey;
    type Event = Delta;
    type State = Ledger;
    type Output = (StateRow, isize);
    const NAME: &'static str = "sources";

    fn step(
        &mut self,
        tick: &Tick,
        key: &SourceKey,
        state: &mut Option<Ledger>,
        events: Vec<Delta>,
        out: &mut Vec<(StateRow, isize)>,
    ) {
        let ledger =
            state.get_or_insert(Ledger { total: Delta::default(), said: None, said_ms: i64::MIN / 2, unsaid: false });
        for delta in &events {
            ledger.total.add(delta);
            ledger.unsaid = true;
        }
        if ledger.unsaid && tick.live_ms >= ledger.said_ms + PACE_MS {
            let row = ledger.row(key);
            out.extend(ledger.said.take().map(|old| (StateRow::from(old), -1)));
            out.push((StateRow::from(row.clone()), 1));
            (ledger.said, ledger.said_ms, ledger.unsaid) = (Some(row), tick.live_ms, false);
        }
    }

    fn due_ms(&self, ledger: &Ledger) -> Option<i64> {
        ledger.unsaid.then_some(ledger.said_ms + PACE_MS)
    }

    fn restored(&mut self, _key: &SourceKey, ledger: &Ledger, out: &mut Vec<(StateRow, isize)>) {
        out.extend(ledger.said.clone().map(|row| (StateRow::from(row), 1)));
    }
}

/// Builds the relation: rows and their changes.
pub fn sources<'scope>(
    deltas: Stream<'scope, u64, Vec<Keyed<SourceKey, Delta>>>,
    cx: &Context,
) -> Stream<'scope, u64, Vec<(StateRow, isize)>> {
    machine(deltas, cx, Ledgers)
}
