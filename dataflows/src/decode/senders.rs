//! What the flow decoders remember of exporters and agents, within bounds that strangers cannot break
//! ([`crate::strangers`]).
//!
//! Bounds: [`MAX_SENDERS`] and [`MAX_BYTES`] a tenant and bucket, [`MAX_OF_ADDRESS`] of one address. Where there are too
//! many senders, the least goes; where they are too big, the biggest goes, of those that are not proven first. What was
//! waiting in what goes is lost, and counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use radarflow_proto::netflow::{Domain, Exporter, FirstExporter, MAX_EXPORTER_BYTES, SecondExporter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{EXPORTERS, SFLOW};
use crate::keyed::{Context, Restored, StateEntry, Tick, encode, put_state, route, take_state};
use crate::strangers::{Reputation, bucket};

/// Senders of a tenant and bucket: 16,384 a tenant.
pub const MAX_SENDERS: usize = 256;
/// Senders of one address: ports, and observation domains or sub-agents.
pub const MAX_OF_ADDRESS: usize = 64;
/// What the senders of a tenant and bucket take together: 128 MiB a tenant.
pub const MAX_BYTES: usize = 2 << 20;
/// What a sender takes beside its state, about: its key twice.
const OVERHEAD: usize = 256;
const _: () = assert!(MAX_BYTES >= MAX_EXPORTER_BYTES + OVERHEAD, "whoever is alone in a bucket has room");

/// Which sender. `D` is what tells those of one address apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct SenderKey<D> {
    pub(super) tenant: String,
    pub(super) partition: String,
    pub(super) ip: IpAddr,
    pub(super) domain: D,
}

/// Which exporter's templates: the domain, and the port, which changes when an exporter restarts.
pub(super) type ExporterKey = SenderKey<(Domain, u16)>;

/// What chooses the worker that remembers of an address.
pub(super) fn owner(tenant: &str, partition: &str, ip: IpAddr) -> u64 {
    route(&(tenant, bucket(partition, ip)))
}

/// What is remembered of a sender.
pub(super) trait Memory: Default + Serialize + DeserializeOwned {
    /// What it takes, about.
    fn bytes(&self) -> usize;

    /// Things waiting in it.
    fn waiting(&self) -> usize {
        0
    }

    /// Time goes on; says how many of the things waiting are given up.
    fn advance(&mut self, _now_ms: i64) -> u32 {
        0
    }

    /// When time matters to it next.
    fn due_ms(&self) -> Option<i64> {
        None
    }
}

impl Memory for Exporter {
    fn bytes(&self) -> usize {
        Exporter::bytes(self)
    }

    fn waiting(&self) -> usize {
        Exporter::waiting(self).0
    }

    fn advance(&mut self, now_ms: i64) -> u32 {
        Exporter::advance(self, now_ms)
    }

    fn due_ms(&self) -> Option<i64> {
        Exporter::due_ms(self)
    }
}

/// sFlow's sequence of one (agent, sub-agent).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SFlowSequence {
    pub(super) next: Option<u32>,
}

impl Memory for SFlowSequence {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// A sender.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Sender<S> {
    pub(super) memory: S,
    pub(super) reputation: Reputation,
    /// The feed it was last heard on, and when, microseconds since 1970.
    pub(super) heard: (String, i64),
    /// A timer that is not later than [`Sender::due_ms`].
    #[serde(skip)]
    timer_ms: Option<i64>,
    /// The last snapshot lacks it.
    #[serde(skip)]
    dirty: bool,
}

impl<S: Memory> Sender<S> {
    fn bytes(&self) -> usize {
        OVERHEAD + self.memory.bytes()
    }

    fn due_ms(&self) -> i64 {
        self.memory.due_ms().map_or(i64::MAX, |due| due.min(self.reputation.ends_ms())).min(self.reputation.ends_ms())
    }
}

/// What waited in a sender and is lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) tenant: String,
    pub(super) partition: String,
    pub(super) ip: IpAddr,
    /// The feed it was last heard on, and when.
    pub(super) heard: (String, i64),
    pub(super) lost: u64,
    /// What waits on.
    pub(super) waiting: u64,
}

impl Lost {
    fn of<D, S: Memory>(key: &SenderKey<D>, sender: &Sender<S>, lost: usize, waiting: usize) -> Option<Self> {
        let SenderKey { tenant, partition, ip, .. } = key;
        let (tenant, partition) = (tenant.clone(), partition.clone());
        let (lost, waiting) = (lost as u64, waiting as u64);
        (lost > 0).then(|| Lost { tenant, partition, ip: *ip, heard: sender.heard.clone(), lost, waiting })
    }
}

struct Bucket<D, S> {
    senders: BTreeMap<SenderKey<D>, Sender<S>>,
    bytes: usize,
}

impl<D: Ord + Clone, S: Memory> Bucket<D, S> {
    fn put(&mut self, key: SenderKey<D>, sender: Sender<S>) {
        self.bytes += sender.bytes();
        self.senders.insert(key, sender);
    }

    fn take(&mut self, key: &SenderKey<D>) -> Option<Sender<S>> {
        let sender = self.senders.remove(key)?;
        self.bytes -= sender.bytes();
        Some(sender)
    }

    /// Who should go, as long as there is too much.
    fn excess(&self, ip: IpAddr) -> Option<SenderKey<D>> {
        let of_address = |key: &SenderKey<D>| key.ip == ip;
        let least = |of: &dyn Fn(&SenderKey<D>) -> bool| {
            let of = self.senders.iter().filter(|(key, _)| of(key));
            of.min_by_key(|(_, sender)| sender.reputation.rank())
        };
        let goes = if self.bytes > MAX_BYTES {
            self.senders.iter().min_by_key(|(_, s)| (s.reputation.rank().0, Reverse(s.bytes())))
        } else if self.senders.len() > MAX_OF_ADDRESS
            && self.senders.keys().filter(|key| of_address(key)).count() > MAX_OF_ADDRESS
        {
            least(&of_address)
        } else if self.senders.len() > MAX_SENDERS {
            least(&|_| true)
        } else {
            None
        };
        goes.map(|(key, _)| key.clone())
    }
}

/// The senders that a worker remembers, in one collection of the snapshots.
pub(super) struct Senders<D, S> {
    collection: &'static str,
    tenants: BTreeMap<String, BTreeMap<u64, Bucket<D, S>>>,
    timers: BTreeSet<(i64, SenderKey<D>)>,
    dirty: BTreeSet<SenderKey<D>>,
    lost: Vec<Lost>,
    evicted: u64,
}

impl<D: Ord + Clone + Serialize + DeserializeOwned, S: Memory> Senders<D, S> {
    /// Those that are this worker's.
    pub(super) fn restore(cx: &Context, collection: &'static str) -> Self {
        let mut senders = Senders {
            collection,
            tenants: BTreeMap::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            lost: Vec::new(),
            evicted: 0,
        };
        let restored = cx.restore_where(collection, |k: &SenderKey<D>| owner(&k.tenant, &k.partition, k.ip));
        for (key, sender) in restored {
            senders.schedule_and_put(key, sender);
        }
        senders
    }

    fn bucket(&mut self, key: &SenderKey<D>) -> Option<&mut Bucket<D, S>> {
        self.tenants.get_mut(&key.tenant)?.get_mut(&bucket(&key.partition, key.ip))
    }

    /// Takes a sender out, for [`Senders::put`] to put it back.
    pub(super) fn take(&mut self, key: &SenderKey<D>) -> Option<Sender<S>> {
        self.bucket(key)?.take(key)
    }

    /// Remembers a sender; says whether there is room for it. It may have taken others' place.
    pub(super) fn put(&mut self, key: &SenderKey<D>, mut sender: Sender<S>) -> bool {
        if !std::mem::replace(&mut sender.dirty, true) {
            self.dirty.insert(key.clone());
        }
        self.schedule_and_put(key.clone(), sender);
        let mut kept = true;
        while let Some(gone) = self.bucket(key).and_then(|bucket| bucket.excess(key.ip)) {
            kept &= gone != *key;
            self.evicted += 1;
            self.forget(&gone);
        }
        kept
    }

    /// Timers are set anew only when they would come too late: most senders are heard often.
    fn schedule_and_put(&mut self, key: SenderKey<D>, mut sender: Sender<S>) {
        let due = sender.due_ms();
        if sender.timer_ms.is_none_or(|timer| timer > due) {
            if let Some(timer) = sender.timer_ms.replace(due) {
                self.timers.remove(&(timer, key.clone()));
            }
            self.timers.insert((due, key.clone()));
        }
        let number = bucket(&key.partition, key.ip);
        if !self.tenants.contains_key(&key.tenant) {
            self.tenants.insert(key.tenant.clone(), BTreeMap::new());
        }
        let Some(tenant) = self.tenants.get_mut(&key.tenant) else { return };
        tenant.entry(number).or_insert_with(|| Bucket { senders: BTreeMap::new(), bytes: 0 }).put(key, sender);
    }

    fn forget(&mut self, key: &SenderKey<D>) {
        let Some(sender) = self.take(key) else { return };
        self.lost.extend(Lost::of(key, &sender, sender.memory.waiting(), 0));
        if let Some(timer) = sender.timer_ms {
            self.timers.remove(&(timer, key.clone()));
        }
        self.dirty.insert(key.clone());
        if let Some(tenant) = self.tenants.get_mut(&key.tenant) {
            tenant.retain(|_, bucket| !bucket.senders.is_empty());
            if tenant.is_empty() {
                self.tenants.remove(&key.tenant);
            }
        }
    }

    /// Forgets who has been quiet for too long, and what waited too long in the others.
    pub(super) fn expire(&mut self, now_ms: i64) {
        while self.timers.first().is_some_and(|(due, _)| *due <= now_ms)
            && let Some((_, key)) = self.timers.pop_first()
        {
            let Some(mut sender) = self.take(&key) else { continue };
            sender.timer_ms = None;
            let given_up = sender.memory.advance(now_ms);
            let ends = sender.reputation.ends_ms() <= now_ms;
            self.lost.extend(Lost::of(&key, &sender, given_up as usize, sender.memory.waiting()));
            if given_up > 0 && !std::mem::replace(&mut sender.dirty, true) {
                self.dirty.insert(key.clone());
            }
            self.schedule_and_put(key.clone(), sender);
            if ends {
                self.forget(&key);
            }
        }
    }

    /// What was lost since it was last asked.
    pub(super) fn lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// How many made place for others since it was last asked.
    pub(super) fn evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tenants.values().flat_map(BTreeMap::values).map(|bucket| bucket.senders.len()).sum()
    }

    /// What changed since the last snapshot.
    pub(super) fn snapshot(&mut self) -> Vec<StateEntry> {
        let dirty = std::mem::take(&mut self.dirty);
        let entry = |key: SenderKey<D>| {
            let sender = self.bucket(&key).and_then(|bucket| bucket.senders.get_mut(&key));
            let value = sender.map(|sender| {
                sender.dirty = false;
                encode(sender)
            });
            StateEntry { collection: self.collection, key: encode(&key), value }
        };
        dirty.into_iter().map(entry).collect()
    }
}

impl Senders<(Domain, u16), Exporter> {
    /// An exporter that restarted on another port is the same one if no other speaks from its address and domain.
    pub(super) fn adopt(&mut self, key: &ExporterKey) -> Option<Sender<Exporter>> {
        let of = |port| ExporterKey { domain: (key.domain.0, port), ..key.clone() };
        let bucket = self.bucket(key)?;
        let mut same = bucket.senders.range(of(0)..=of(u16::MAX)).map(|(key, _)| key.clone());
        let (Some(old), None) = (same.next(), same.next()) else { return None };
        let mut sender = self.take(&old)?;
        sender.memory.begin_session();
        if let Some(timer) = sender.timer_ms.take() {
            self.timers.remove(&(timer, old.clone()));
        }
        sender.dirty = false;
        self.dirty.insert(old);
        Some(sender)
    }
}

/// The first release kept what an exporter told for ever, whoever it was.
pub(crate) fn exporters_with_reputation(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let exporters = take_state::<ExporterKey, FirstExporter>(state, EXPORTERS)?;
    let converted =
        |(key, first): (ExporterKey, FirstExporter)| (key, Sender::kept(first.converted(tick.live_ms), tick));
    put_state(state, EXPORTERS, exporters.into_iter().map(converted));
    Ok(())
}

/// What exporters name was applications, and nothing else.
pub(crate) fn exporters_with_names(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let exporters = take_state::<ExporterKey, Sender<SecondExporter>>(state, EXPORTERS)?;
    let converted = exporters.into_iter().map(|(key, sender)| (key, sender.map(SecondExporter::converted)));
    put_state(state, EXPORTERS, converted);
    Ok(())
}

/// The same of agents that sample.
pub(crate) fn agents_with_reputation(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let agents = take_state::<SenderKey<u32>, SFlowSequence>(state, SFLOW)?;
    put_state(state, SFLOW, agents.into_iter().map(|(key, memory)| (key, Sender::kept(memory, tick))));
    Ok(())
}

impl<S> Sender<S> {
    /// The same with another memory.
    pub(super) fn map<T>(self, of: impl FnOnce(S) -> T) -> Sender<T> {
        let Sender { memory, reputation, heard, timer_ms, dirty } = self;
        Sender { memory: of(memory), reputation, heard, timer_ms, dirty }
    }

    /// One that was kept when nobody asked whether it was of use: it is taken to have been.
    fn kept(memory: S, tick: &Tick) -> Self {
        let mut reputation = Reputation::default();
        reputation.hear(tick.live_ms, true);
        Sender { memory, reputation, heard: (String::new(), tick.clock_ms * 1000), timer_ms: None, dirty: false }
    }
}
