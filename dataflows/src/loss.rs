//! Loss ledgers: per feed and exporter, what came in and where it ended up. They balance:
//! `received = stored + rejected + shed`, beside what was lost before us.
//!
//! ```text
//! deltas of senders ─► [senders: a share of a feed's] ─► ledgers Δ
//!                              │ of those that end
//! deltas of feeds ────────────►┴─► [feeds] ─────────────► ledgers Δ
//! ```
//! A row is said again at most every [`PACE_MS`], because a ledger moves with every datagram. A sender's ledger ends when
//! the sender is quiet, and when there are more than [`MAX_SENDERS`] in its share ([`crate::strangers`]); what it counted is
//! counted by its feed from then on, so that the ledgers of a feed together tell of all that came in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::Time;
use radarflow_proto::rows::{Source, StateRow};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, Machine, Restored, Tick, machine, put_state, take_state};
use crate::sizes::Sizes;
use crate::strangers::{Reputation, bucket_of_text};

/// Least time between two versions of a row, milliseconds.
pub const PACE_MS: i64 = 1000;
/// Senders of a feed's share that have a ledger of their own: 16,384 a feed.
pub const MAX_SENDERS: usize = 256;

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
    /// Counted as lost, and came after all.
    #[serde(skip)]
    pub found: u64,
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
        self.found += other.found;
        let both = self.lost.min(self.found);
        (self.lost, self.found) = (self.lost - both, self.found - both);
        self.rows += other.rows;
        if other.waiting_sets.is_some() {
            self.waiting_sets = other.waiting_sets;
            self.waiting.clone_from(&other.waiting);
        }
        self.at_us = self.at_us.max(other.at_us);
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Ledger {
    total: Delta,
    /// What was said of it, and when.
    said: Option<(Source, i64)>,
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

    fn add(&mut self, delta: &Delta) {
        self.total.add(delta);
        // What was never counted cannot be taken back.
        self.total.found = 0;
        self.unsaid = true;
    }

    /// Says the row if that is due.
    fn say(&mut self, key: &SourceKey, live_ms: i64, out: impl FnMut(StateRow, isize)) {
        if self.due_ms().is_some_and(|due| due <= live_ms) {
            self.say_now(key, live_ms, out);
        }
    }

    fn say_now(&mut self, key: &SourceKey, live_ms: i64, mut out: impl FnMut(StateRow, isize)) {
        let row = self.row(key);
        self.unsay(&mut out);
        out(StateRow::from(row.clone()), 1);
        (self.said, self.unsaid) = (Some((row, live_ms)), false);
    }

    fn unsay(&mut self, mut out: impl FnMut(StateRow, isize)) {
        if let Some((old, _)) = self.said.take() {
            out(StateRow::from(old), -1);
        }
    }

    fn due_ms(&self) -> Option<i64> {
        self.unsaid.then(|| self.said.as_ref().map_or(i64::MIN, |(_, at)| at + PACE_MS))
    }
}

/// A share of the senders of a feed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct ShareKey {
    tenant: String,
    partition: String,
    source: String,
    bucket: u64,
}

impl ShareKey {
    fn of(key: &SourceKey) -> Self {
        let SourceKey { tenant, partition, source, exporter } = key.clone();
        ShareKey { tenant, partition, source, bucket: bucket_of_text(&exporter) }
    }

    fn ledger(&self, exporter: &str) -> SourceKey {
        let ShareKey { tenant, partition, source, .. } = self.clone();
        SourceKey { tenant, partition, source, exporter: exporter.to_owned() }
    }
}

/// What the ledgers of senders say.
#[derive(Clone, Debug)]
enum Out {
    Row(StateRow, isize),
    /// The feed counts it from now on.
    Ended(SourceKey, Delta),
}

/// Ledgers of senders.
struct Senders {
    sizes: Arc<Sizes>,
}

#[derive(Default, Serialize, Deserialize)]
struct Share {
    senders: BTreeMap<String, (Ledger, Reputation)>,
}

impl Share {
    /// Who has been quiet for too long.
    fn quiet(&self, live_ms: i64) -> Vec<String> {
        let ended = self.senders.iter().filter(|(_, (_, reputation))| reputation.ends_ms() <= live_ms);
        ended.map(|(exporter, _)| exporter.clone()).collect()
    }

    fn remove(&mut self, exporters: &[String]) -> Vec<Ledger> {
        exporters.iter().filter_map(|exporter| self.senders.remove(exporter)).map(|(ledger, _)| ledger).collect()
    }

    /// Who is one too many.
    fn excess(&self) -> Vec<String> {
        let Some(excess @ 1..) = self.senders.len().checked_sub(MAX_SENDERS) else { return Vec::new() };
        let mut ranked: Vec<_> = self.senders.iter().map(|(exporter, (_, s))| (s.rank(), exporter)).collect();
        ranked.sort_unstable();
        ranked.into_iter().take(excess).map(|(_, exporter)| exporter.clone()).collect()
    }
}

impl Machine for Senders {
    type Key = ShareKey;
    type Event = (String, Delta);
    type State = Share;
    type Output = Out;
    const NAME: &'static str = "sources";

    fn step(
        &mut self,
        tick: &Tick,
        key: &ShareKey,
        state: &mut Option<Share>,
        events: Vec<(String, Delta)>,
        out: &mut Vec<Out>,
    ) {
        let share = state.get_or_insert_default();
        for (exporter, delta) in events {
            let (ledger, reputation) = share.senders.entry(exporter).or_default();
            ledger.add(&delta);
            // What is only told of it later is no sign of life.
            if delta.received > 0 || reputation.is_new() {
                reputation.hear(tick.live_ms, delta.rows > 0);
            }
        }
        let mut ended = share.remove(&share.quiet(tick.live_ms));
        let excess = share.excess();
        self.sizes.evicted().fetch_add(excess.len() as u64, Ordering::Relaxed);
        ended.extend(share.remove(&excess));
        let mut counted: Option<Delta> = None;
        for mut ledger in ended {
            ledger.unsay(|row, diff| out.push(Out::Row(row, diff)));
            // Nothing waits in it any more.
            let total = Delta { waiting_sets: None, waiting: None, ..ledger.total };
            counted.get_or_insert_default().add(&total);
        }
        out.extend(counted.map(|total| Out::Ended(key.ledger(""), total)));
        for (exporter, (ledger, _)) in &mut share.senders {
            if ledger.unsaid {
                ledger.say(&key.ledger(exporter), tick.live_ms, |row, diff| out.push(Out::Row(row, diff)));
            }
        }
        if share.senders.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, share: &Share) -> Option<i64> {
        let due = |(ledger, reputation): &(Ledger, Reputation)| {
            ledger.due_ms().map_or(reputation.ends_ms(), |due| due.min(reputation.ends_ms()))
        };
        share.senders.values().map(due).min()
    }

    fn restored(&mut self, _key: &ShareKey, share: &Share, out: &mut Vec<Out>) {
        let said = share.senders.values().filter_map(|(ledger, _)| ledger.said.as_ref());
        out.extend(said.map(|(row, _)| Out::Row(StateRow::from(row.clone()), 1)));
    }
}

/// Ledgers of feeds.
struct Feeds;

impl Machine for Feeds {
    type Key = SourceKey;
    /// And whether it is what a sender's ledger said until now.
    type Event = (Delta, bool);
    type State = Ledger;
    type Output = (StateRow, isize);
    const NAME: &'static str = "feeds";

    fn step(
        &mut self,
        tick: &Tick,
        key: &SourceKey,
        state: &mut Option<Ledger>,
        events: Vec<(Delta, bool)>,
        out: &mut Vec<(StateRow, isize)>,
    ) {
        let ledger = state.get_or_insert_default();
        events.iter().for_each(|(delta, _)| ledger.add(delta));
        let mut say = |row, diff| out.push((row, diff));
        // At once: the sum over the feed's ledgers never goes back.
        if events.iter().any(|(_, ended)| *ended) {
            ledger.say_now(key, tick.live_ms, &mut say);
        } else {
            ledger.say(key, tick.live_ms, &mut say);
        }
    }

    fn due_ms(&self, ledger: &Ledger) -> Option<i64> {
        ledger.due_ms()
    }

    fn restored(&mut self, _key: &SourceKey, ledger: &Ledger, out: &mut Vec<(StateRow, isize)>) {
        out.extend(ledger.said.clone().map(|(row, _)| (StateRow::from(row), 1)));
    }
}

/// What ledgers move by.
pub struct Inputs<'scope> {
    /// What feeds and senders did.
    pub deltas: Events<'scope, Keyed<SourceKey, Delta>>,
}

/// The ledgers.
pub struct Outputs<'scope> {
    /// Their rows.
    pub rows: Rel<'scope, StateRow>,
}

/// Builds the relation.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let deltas = inputs.deltas;
    let of_senders = deltas.clone().flat_map(|Keyed { key, position, event }| {
        (!key.exporter.is_empty()).then(|| Keyed { key: ShareKey::of(&key), position, event: (key.exporter, event) })
    });
    let senders = machine(of_senders, cx, Senders { sizes: cx.shared_sizes() });
    let ended = senders.clone().flat_map(|out| match out {
        Out::Ended(key, total) => Some(Keyed { key, position: u64::MAX, event: (total, true) }),
        Out::Row(..) => None,
    });
    let of_feeds = deltas.flat_map(|Keyed { key, position, event }| {
        key.exporter.is_empty().then_some(Keyed { key, position, event: (event, false) })
    });
    let feeds = machine(of_feeds.concat(ended), cx, Feeds);
    let rows = senders.flat_map(|out| match out {
        Out::Row(row, diff) => Some((row, diff)),
        Out::Ended(..) => None,
    });
    Outputs { rows: collected(rows.concat(feeds), Some) }
}

/// A ledger of the first release, of a feed or of a sender.
#[derive(Deserialize)]
struct FirstLedger {
    total: Delta,
    said: Option<Source>,
    said_ms: i64,
    unsaid: bool,
}

/// The first release kept a ledger a sender, for ever.
pub(crate) fn senders_by_share(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let mut shares: BTreeMap<ShareKey, Share> = BTreeMap::new();
    let mut feeds = Vec::new();
    for (key, first) in take_state::<SourceKey, FirstLedger>(state, Senders::NAME)? {
        let FirstLedger { total, said, said_ms, unsaid } = first;
        let ledger = Ledger { total, said: said.map(|row| (row, said_ms)), unsaid };
        if key.exporter.is_empty() {
            feeds.push((key, ledger));
            continue;
        }
        let mut reputation = Reputation::default();
        reputation.hear(tick.live_ms, ledger.total.rows > 0);
        shares.entry(ShareKey::of(&key)).or_default().senders.insert(key.exporter, (ledger, reputation));
    }
    put_state(state, Senders::NAME, shares);
    put_state(state, Feeds::NAME, feeds);
    Ok(())
}
