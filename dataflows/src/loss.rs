//! Loss ledgers: per feed and exporter, what came in and where it ended up. They balance:
//! `received = stored + rejected + shed`, beside what was lost before us.
//!
//! ```text
//! deltas of senders ─► [senders: a share of a feed's] ─► ledgers Δ
//!                              │ of those that end
//! deltas of feeds ────────────►┴─► [feeds] ─────────────► ledgers Δ
//! ```
//! Each ledger learns how often its feed or sender speaks ([`radarflow_reconcile::rhythm`]). One that is quiet for longer is
//! `silent`: its row and an event say so, and an alert of its own. Where more than [`SILENT_ALONE`] of a feed are, one alert of the
//! feed says how many are and who, in place of theirs: an alert a sender would be thousands where a network is gone, and whatever
//! anybody wants to claim to be on UDP. A silence ends when it is heard again or forgotten.
//!
//! A row is said again at most every [`PACE_MS`], because a ledger moves with every datagram. A sender's ledger ends when
//! the sender is quiet, and when there are more than [`MAX_SENDERS`] in its share ([`crate::strangers`]); what it counted is
//! counted by its feed from then on, so that the ledgers of a feed together tell of all that came in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::{HealthEvent, Source, StateRow};
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::rhythm::Rhythm;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::alerts::{AlertKey, Conditions};
use crate::collection::{Events, Rel, changes, collected};
use crate::keyed::{Context, Keyed, Machine, Restored, Tick, machine, put_state, take_state};
use crate::output::DerivedRow;
use crate::sizes::Sizes;
use crate::strangers::{PROVEN_MS, Reputation, bucket_of_text};

/// Least time between two versions of a row, milliseconds.
pub const PACE_MS: i64 = 1000;
/// Senders of a feed's share that have a ledger of their own: 16,384 a feed.
pub const MAX_SENDERS: usize = 256;
/// Feeds whose senders speak by themselves and often, so that quiet means something. Traps come when something happens, agents have
/// a health of their own ([`crate::health`]), what sends OTLP comes and goes with what it tells of, and people push when they do.
const RHYTHMIC: &[&str] = &["netflow", "sflow", "syslog", "nats", "kafka"];
/// So many silent senders of a feed have an alert each; of more there is one.
pub const SILENT_ALONE: usize = 20;
/// Silent senders that this names; it counts all of them.
const NAMED: usize = 10;

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
    /// It came when something happened: it shows no rhythm.
    #[serde(skip)]
    pub by_chance: bool,
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
        self.by_chance &= other.by_chance;
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Ledger {
    total: Delta,
    /// What was said of it, and when.
    said: Option<(Source, i64)>,
    unsaid: bool,
    rhythm: Rhythm,
}

/// What a ledger says.
#[derive(Clone, Debug)]
enum Said {
    /// A row appears or goes.
    Row(StateRow, isize),
    /// Something happened.
    Happened(DerivedRow),
    /// It is silent, or is no more.
    Silent(SourceKey, isize),
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
            // Of a feed whose senders are known, they are heard, and not it.
            state: self.rhythm.is_heard().then(|| self.state().to_owned()),
            patience_s: self.rhythm.patience_ms().map(|patience| patience / 1000),
            epoch: 0,
        }
    }

    fn state(&self) -> &'static str {
        match self.rhythm.patience_ms() {
            _ if self.rhythm.silent_ms().is_some() => "silent",
            None => "learning",
            Some(_) => "active",
        }
    }

    /// What it does is heard: what was silent speaks.
    fn hear(&mut self, key: &SourceKey, tick: &Tick, out: &mut impl FnMut(Said)) {
        if !is_rhythmic(&key.source) {
            return;
        }
        if let Some(silent_ms) = self.rhythm.hear(tick.live_ms) {
            out(Said::Silent(key.clone(), -1));
            out(happened(key, tick, ["silent", "active"], "it is heard again", Some(silent_ms / 1000)));
        }
    }

    /// The time passes: what is quiet for too long is silent.
    fn wait(&mut self, key: &SourceKey, tick: &Tick, out: &mut impl FnMut(Said)) {
        if self.forgotten_ms().is_some_and(|at| at <= tick.live_ms) {
            self.forget(key, tick, out);
            self.unsaid = true;
        }
        if self.rhythm.wait(tick.live_ms) {
            let patience = self.rhythm.patience_ms().unwrap_or_default() / 1000;
            out(Said::Silent(key.clone(), 1));
            out(happened(
                key,
                tick,
                ["active", "silent"],
                &format!("nothing for {patience} s, which is beyond its rhythm"),
                None,
            ));
            self.unsaid = true;
        }
    }

    /// It is not waited for any more.
    fn forget(&mut self, key: &SourceKey, tick: &Tick, out: &mut impl FnMut(Said)) {
        if let Some(since) = self.rhythm.silent_ms() {
            out(Said::Silent(key.clone(), -1));
            let seconds = Some((tick.live_ms - since) / 1000);
            out(happened(key, tick, ["silent", "forgotten"], "it is not waited for any more", seconds));
        }
        self.rhythm = Rhythm::default();
    }

    /// It ends: nothing is said of it any more.
    fn end(&mut self, key: &SourceKey, tick: &Tick, out: &mut impl FnMut(Said)) {
        self.forget(key, tick, out);
        self.unsay(out);
    }

    /// What it said, as a restart finds it.
    fn restored(&self, key: &SourceKey, out: &mut impl FnMut(Said)) {
        if let Some((row, _)) = &self.said {
            out(Said::Row(StateRow::from(row.clone()), 1));
        }
        if self.rhythm.silent_ms().is_some() {
            out(Said::Silent(key.clone(), 1));
        }
    }

    fn add(&mut self, delta: &Delta) {
        self.total.add(delta);
        // What was never counted cannot be taken back.
        self.total.found = 0;
        self.unsaid = true;
    }

    /// Says the row if that is due.
    fn say(&mut self, key: &SourceKey, live_ms: i64, out: &mut impl FnMut(Said)) {
        if self.row_due_ms().is_some_and(|due| due <= live_ms) {
            self.say_now(key, live_ms, out);
        }
    }

    fn say_now(&mut self, key: &SourceKey, live_ms: i64, out: &mut impl FnMut(Said)) {
        let row = self.row(key);
        self.unsay(out);
        out(Said::Row(StateRow::from(row.clone()), 1));
        (self.said, self.unsaid) = (Some((row, live_ms)), false);
    }

    fn unsay(&mut self, out: &mut impl FnMut(Said)) {
        if let Some((old, _)) = self.said.take() {
            out(Said::Row(StateRow::from(old), -1));
        }
    }

    fn row_due_ms(&self) -> Option<i64> {
        self.unsaid.then(|| self.said.as_ref().map_or(i64::MIN, |(_, at)| at + PACE_MS))
    }

    /// When it is not waited for any more, if it stays silent.
    fn forgotten_ms(&self) -> Option<i64> {
        self.rhythm.silent_ms().map(|since| since + PROVEN_MS)
    }

    /// When it has something to say.
    fn due_ms(&self) -> Option<i64> {
        let of_rhythm = self.rhythm.silent_from_ms().or(self.forgotten_ms());
        self.row_due_ms().into_iter().chain(of_rhythm).min()
    }
}

/// Whether quiet means something of a feed.
fn is_rhythmic(source: &str) -> bool {
    RHYTHMIC.contains(&source.split(':').next().unwrap_or_default())
}

/// That a feed or a sender fell silent, or is heard again.
fn happened(key: &SourceKey, tick: &Tick, [old, new]: [&str; 2], reason: &str, seconds: Option<i64>) -> Said {
    let (kind, id) = match key.exporter.as_str() {
        "" => ("source", key.source.clone()),
        exporter => ("exporter", format!("{}/{exporter}", key.source)),
    };
    Said::Happened(DerivedRow::from(HealthEvent {
        tenant_id: key.tenant.clone(),
        partition: key.partition.clone(),
        row_id: RowId::default(),
        epoch: 0,
        entity_type: kind.to_owned(),
        entity_id: id,
        old_state: old.to_owned(),
        new_state: new.to_owned(),
        reason: reason.to_owned(),
        duration_seconds: seconds,
        recorded_at: Time::from_ms(tick.clock_ms),
        device_uid: None,
    }))
}

/// What is told of those of a feed that are silent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Silence {
    /// One of them; the feed itself where nothing is named.
    Of(String),
    /// So many, these first.
    Many(usize, Vec<String>),
}

impl Silence {
    fn condition(self, feed: &SourceKey) -> (AlertKey, Condition) {
        let source = &feed.source;
        let mut labels = BTreeMap::from([("source".to_owned(), source.clone())]);
        let (rule, entity, severity, title, description) = match self {
            Silence::Of(exporter) if exporter.is_empty() => {
                ("source-silent", source.clone(), "warning", format!("{source} is silent"), String::new())
            }
            Silence::Of(exporter) => {
                labels.insert("exporter".to_owned(), exporter.clone());
                let title = format!("{exporter} is silent at {source}");
                ("source-silent", format!("{source}/{exporter}"), "warning", title, String::new())
            }
            Silence::Many(silent, named) => {
                let more = silent - named.len();
                let title = format!("{silent} senders of {source} are silent");
                ("feed-silent", source.clone(), "critical", title, format!(": {} and {more} more", named.join(", ")))
            }
        };
        let subject = Subject {
            tenant: feed.tenant.clone(),
            partition: feed.partition.clone(),
            rule: rule.to_owned(),
            entity: entity.clone(),
        };
        let condition = Condition {
            rule: subject.rule.clone(),
            severity: severity.to_owned(),
            title,
            description: format!("quiet beyond what its own pauses show{description}"),
            source_type: "source".to_owned(),
            source_id: entity,
            labels,
            ..Condition::default()
        };
        (AlertKey::of_subject(subject), condition)
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
    Said(Said),
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

    fn remove(&mut self, exporters: &[String]) -> Vec<(String, Ledger)> {
        let removed = exporters.iter().filter_map(|exporter| self.senders.remove_entry(exporter));
        removed.map(|(exporter, (ledger, _))| (exporter, ledger)).collect()
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
            let of = key.ledger(&exporter);
            let (ledger, reputation) = share.senders.entry(exporter).or_default();
            ledger.add(&delta);
            // What is only told of it later is no sign of life.
            if delta.received > 0 || reputation.is_new() {
                reputation.hear(tick.live_ms, delta.rows > 0);
            }
            if delta.received > 0 && !delta.by_chance {
                ledger.hear(&of, tick, &mut |said| out.push(Out::Said(said)));
            }
        }
        let mut ended = share.remove(&share.quiet(tick.live_ms));
        let excess = share.excess();
        self.sizes.evicted().fetch_add(excess.len() as u64, Ordering::Relaxed);
        ended.extend(share.remove(&excess));
        let mut counted: Option<Delta> = None;
        for (exporter, mut ledger) in ended {
            ledger.end(&key.ledger(&exporter), tick, &mut |said| out.push(Out::Said(said)));
            // Nothing waits in it any more.
            let total = Delta { waiting_sets: None, waiting: None, ..ledger.total };
            counted.get_or_insert_default().add(&total);
        }
        out.extend(counted.map(|total| Out::Ended(key.ledger(""), total)));
        for (exporter, (ledger, _)) in &mut share.senders {
            if ledger.due_ms().is_some_and(|due| due <= tick.live_ms) {
                let (of, mut out) = (key.ledger(exporter), |said| out.push(Out::Said(said)));
                ledger.wait(&of, tick, &mut out);
                ledger.say(&of, tick.live_ms, &mut out);
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

    fn restored(&mut self, key: &ShareKey, share: &Share, out: &mut Vec<Out>) {
        for (exporter, (ledger, _)) in &share.senders {
            ledger.restored(&key.ledger(exporter), &mut |said| out.push(Out::Said(said)));
        }
    }
}

/// Ledgers of feeds.
struct Feeds;

impl Machine for Feeds {
    type Key = SourceKey;
    /// And whether it is what a sender's ledger said until now.
    type Event = (Delta, bool);
    type State = Ledger;
    type Output = Said;
    const NAME: &'static str = "feeds";

    fn step(
        &mut self,
        tick: &Tick,
        key: &SourceKey,
        state: &mut Option<Ledger>,
        events: Vec<(Delta, bool)>,
        out: &mut Vec<Said>,
    ) {
        let ledger = state.get_or_insert_default();
        let mut say = |said| out.push(said);
        for (delta, is_of_sender) in &events {
            ledger.add(delta);
            if delta.stored > 0 && !is_of_sender && !delta.by_chance {
                ledger.hear(key, tick, &mut say);
            }
        }
        ledger.wait(key, tick, &mut say);
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

    fn restored(&mut self, key: &SourceKey, ledger: &Ledger, out: &mut Vec<Said>) {
        ledger.restored(key, &mut |said| out.push(said));
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
    /// Feeds of which some are silent.
    pub conditions: Conditions<'scope>,
    /// Who fell silent, and who is heard again.
    pub events: Events<'scope, DerivedRow>,
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
        Out::Said(_) => None,
    });
    let of_feeds = deltas.flat_map(|Keyed { key, position, event }| {
        key.exporter.is_empty().then_some(Keyed { key, position, event: (event, false) })
    });
    let feeds = machine(of_feeds.concat(ended), cx, Feeds);
    let said = senders.flat_map(|out| match out {
        Out::Said(said) => Some(said),
        Out::Ended(..) => None,
    });
    let said = said.concat(feeds);
    let rows = collected(said.clone(), |said| match said {
        Said::Row(row, diff) => Some((row, diff)),
        _ => None,
    });
    let silent = collected(said.clone(), |said| match said {
        Said::Silent(key, diff) => {
            let feed = SourceKey { exporter: String::new(), ..key.clone() };
            Some(((feed, key.exporter), diff))
        }
        _ => None,
    });
    let silent = silent.reduce_named("Silent", |_: &SourceKey, silent, out| {
        let names = silent.iter().map(|(exporter, _)| (*exporter).clone());
        if silent.len() > SILENT_ALONE {
            out.push((Silence::Many(silent.len(), names.take(NAMED).collect()), 1));
        } else {
            out.extend(names.map(|exporter| (Silence::Of(exporter), 1)));
        }
    });
    let conditions = changes(silent.consolidate(), |(feed, silence), diff| {
        let (key, condition) = silence.condition(&feed);
        (key, condition, diff)
    });
    let events = said.flat_map(|said| match said {
        Said::Happened(row) => Some(row),
        _ => None,
    });
    Outputs { rows, conditions, events }
}

/// A row of a ledger before it told of silence.
#[derive(Serialize, Deserialize)]
struct FirstSource {
    tenant_id: String,
    partition: String,
    source: String,
    exporter: String,
    received: i64,
    stored: i64,
    rejected: i64,
    shed: i64,
    lost: i64,
    rows: i64,
    waiting_sets: i64,
    waiting: Option<String>,
    last_seen: Time,
    epoch: i64,
}

/// A ledger of the first release, of a feed or of a sender.
#[derive(Deserialize)]
struct FirstLedger {
    total: Delta,
    said: Option<FirstSource>,
    said_ms: i64,
    unsaid: bool,
}

/// A ledger before it learned a rhythm.
#[derive(Serialize, Deserialize)]
struct MuteLedger {
    total: Delta,
    said: Option<(FirstSource, i64)>,
    unsaid: bool,
}

/// A share of such ledgers.
#[derive(Default, Serialize, Deserialize)]
struct MuteShare {
    senders: BTreeMap<String, (MuteLedger, Reputation)>,
}

impl From<MuteLedger> for Ledger {
    /// What was said of it is said anew, since it says more.
    fn from(MuteLedger { total, .. }: MuteLedger) -> Self {
        Ledger { total, said: None, unsaid: true, rhythm: Rhythm::default() }
    }
}

/// The first release kept a ledger a sender, for ever.
pub(crate) fn senders_by_share(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let mut shares: BTreeMap<ShareKey, MuteShare> = BTreeMap::new();
    let mut feeds = Vec::new();
    for (key, first) in take_state::<SourceKey, FirstLedger>(state, Senders::NAME)? {
        let FirstLedger { total, said, said_ms, unsaid } = first;
        let ledger = MuteLedger { total, said: said.map(|row| (row, said_ms)), unsaid };
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

/// Ledgers of senders learned no rhythm.
pub(crate) fn senders_with_rhythm(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let shares = take_state::<ShareKey, MuteShare>(state, Senders::NAME)?;
    let learns = |share: MuteShare| Share {
        senders: share.senders.into_iter().map(|(name, (ledger, worth))| (name, (ledger.into(), worth))).collect(),
    };
    put_state(state, Senders::NAME, shares.into_iter().map(|(key, share)| (key, learns(share))));
    Ok(())
}

/// Nor did those of feeds.
pub(crate) fn feeds_with_rhythm(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let feeds = take_state::<SourceKey, MuteLedger>(state, Feeds::NAME)?;
    put_state(state, Feeds::NAME, feeds.into_iter().map(|(key, ledger)| (key, Ledger::from(ledger))));
    Ok(())
}
