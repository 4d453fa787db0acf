//! Keyed state with timers: the one mechanism for what must be remembered beyond live input.
//!
//! A [`Machine`] has a state a key. At every epoch, once all of the epoch's events are there, it is stepped for each key
//! that has events or whose timer is due by the epoch's clock. Events of one key come in the order of their position.
//! Keys are stepped in key order, so the output is the same on any number of workers.
//!
//! Timers are not kept: [`Machine::due_ms`] says when a state wants to be stepped without events, a pure function of
//! the state, so that a snapshot of the states is a snapshot of the timers. Their clock is by default the *live* clock,
//! which stands still while the process is down: silence that nobody could have heard is no silence.
//!
//! Guaranteed: every epoch is stepped, in order, exactly once. Not guaranteed: that a timer fires at its millisecond;
//! it fires at the first epoch whose clock has reached it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::sizes::Sizes;

/// The clock of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The epoch.
    pub epoch: u64,
    /// "Now", milliseconds since 1970.
    pub clock_ms: i64,
    /// "Now" less all the time the process was down, milliseconds.
    pub live_ms: i64,
}

/// Which clock a machine's timers follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Stands still while the process is down: for silence and time-to-live.
    Live,
    /// Goes on: for promises made to people.
    Wall,
}

/// One piece of state in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateEntry {
    /// The machine's name.
    pub collection: &'static str,
    /// The key, encoded.
    pub key: Vec<u8>,
    /// The state, encoded; `None` when the key is forgotten.
    pub value: Option<Vec<u8>>,
}

/// What operators of one worker share.
#[derive(Clone)]
pub struct Context {
    inner: Rc<RefCell<Shared>>,
    /// This worker.
    pub index: usize,
    /// All workers.
    pub peers: usize,
    /// The epoch of the snapshot that was restored; 0 for none.
    pub restored: u64,
    sizes: Arc<Sizes>,
}

struct Shared {
    ticks: BTreeMap<u64, Tick>,
    snapshots: BTreeSet<u64>,
    entries: BTreeMap<u64, Vec<StateEntry>>,
    restore: BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>,
}

/// The state of one snapshot: by collection, encoded keys and values.
pub type Restored = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

impl Context {
    /// A context for one worker, with the state to start from.
    pub fn new(index: usize, peers: usize, restored: u64, restore: Restored) -> Self {
        let shared = Shared { ticks: BTreeMap::new(), snapshots: BTreeSet::new(), entries: BTreeMap::new(), restore };
        Context { inner: Rc::new(RefCell::new(shared)), index, peers, restored, sizes: Arc::default() }
    }

    /// The same, telling how much is kept.
    #[must_use]
    pub fn telling(mut self, sizes: Arc<Sizes>) -> Self {
        self.sizes = sizes;
        self
    }

    /// What tells how much is kept.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The same, to keep.
    pub fn shared_sizes(&self) -> Arc<Sizes> {
        self.sizes.clone()
    }

    /// Announces an epoch before its data is sent; `snapshot` asks every machine for its state after it.
    pub fn announce(&self, tick: Tick, snapshot: bool) {
        let mut shared = self.inner.borrow_mut();
        shared.ticks.insert(tick.epoch, tick);
        if snapshot {
            shared.snapshots.insert(tick.epoch);
        }
    }

    /// Forgets epochs before `epoch`; they are complete.
    pub fn retire(&self, epoch: u64) {
        let mut shared = self.inner.borrow_mut();
        shared.ticks = shared.ticks.split_off(&epoch);
        shared.snapshots = shared.snapshots.split_off(&epoch);
    }

    /// The clock of an announced epoch.
    pub fn tick(&self, epoch: u64) -> Option<Tick> {
        self.inner.borrow().ticks.get(&epoch).copied()
    }

    /// Whether state is asked for after `epoch`.
    pub fn wants_snapshot(&self, epoch: u64) -> bool {
        self.inner.borrow().snapshots.contains(&epoch)
    }

    /// Hands in state for the snapshot of `epoch`.
    pub fn save(&self, epoch: u64, entries: Vec<StateEntry>) {
        self.inner.borrow_mut().entries.entry(epoch).or_default().extend(entries);
    }

    /// The state handed in for the snapshot of `epoch`.
    pub fn saved(&self, epoch: u64) -> Vec<StateEntry> {
        self.inner.borrow_mut().entries.remove(&epoch).unwrap_or_default()
    }

    /// The restored state of a collection whose keys belong to this worker.
    pub fn restore<K: DeserializeOwned + Ord + Hash, S: DeserializeOwned>(&self, collection: &str) -> BTreeMap<K, S> {
        self.restore_where(collection, |key: &K| route(key))
    }
}

impl Context {
    /// The restored state of a collection that is owned by less than its whole key.
    pub fn restore_where<K: DeserializeOwned + Ord, S: DeserializeOwned>(
        &self,
        collection: &str,
        owner: impl Fn(&K) -> u64,
    ) -> BTreeMap<K, S> {
        let entries = self.inner.borrow_mut().restore.remove(collection).unwrap_or_default();
        entries
            .into_iter()
            .filter_map(|(key, value)| {
                let key: K = postcard::from_bytes(&key).expect("a snapshot's key reads back");
                let mine = owner(&key) % self.peers as u64 == self.index as u64;
                mine.then(|| (key, postcard::from_bytes(&value).expect("a snapshot's state reads back")))
            })
            .collect()
    }
}

/// Which worker a key belongs to, modulo their number. Only ever used inside one run.
pub fn route<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Encodes a key or a state for a snapshot.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("keys and states are plain data")
}

/// Takes a collection's state out, read back.
pub(crate) fn take_state<K: DeserializeOwned, S: DeserializeOwned>(
    state: &mut Restored,
    collection: &str,
) -> Result<Vec<(K, S)>, String> {
    let read = |(key, value): (Vec<u8>, Vec<u8>)| Ok((postcard::from_bytes(&key)?, postcard::from_bytes(&value)?));
    let entries = state.remove(collection).unwrap_or_default();
    entries.into_iter().map(read).collect::<Result<_, postcard::Error>>().map_err(|error| error.to_string())
}

/// Puts a collection's state in, beside what is there.
pub(crate) fn put_state<K: Serialize, S: Serialize>(
    state: &mut Restored,
    collection: &str,
    entries: impl IntoIterator<Item = (K, S)>,
) {
    let entries: Vec<_> = entries.into_iter().map(|(key, value)| (encode(&key), encode(&value))).collect();
    state.entry(collection.to_owned()).or_default().extend(entries);
}

/// An event and the order it takes among those of its key.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Keyed<K, E> {
    /// Whose.
    pub key: K,
    /// Order among the events of one key and epoch.
    pub position: u64,
    /// What.
    pub event: E,
}

/// Keyed state with timers.
pub trait Machine: 'static {
    /// What state is kept by.
    type Key: timely::ExchangeData + Clone + Ord + Hash + Serialize + DeserializeOwned;
    /// What moves it.
    type Event: timely::ExchangeData;
    /// What is remembered.
    type State: Serialize + DeserializeOwned + 'static;
    /// What it says.
    type Output: Clone + 'static;
    /// The collection in snapshots.
    const NAME: &'static str;
    /// Which clock [`Machine::due_ms`] speaks of.
    const CLOCK: Clock = Clock::Live;

    /// Takes in the events of one key at one epoch (none when only its timer is due). Setting the state to `None`
    /// forgets the key.
    fn step(
        &mut self,
        tick: &Tick,
        key: &Self::Key,
        state: &mut Option<Self::State>,
        events: Vec<Self::Event>,
        out: &mut Vec<Self::Output>,
    );

    /// When the state wants to be stepped without events, on [`Machine::CLOCK`], milliseconds.
    fn due_ms(&self, state: &Self::State) -> Option<i64>;

    /// What a restored state says again, so that relations built from the output are as before.
    fn restored(&mut self, key: &Self::Key, state: &Self::State, out: &mut Vec<Self::Output>);

    /// Takes in an event that relations say again at a restart: it has happened before, and asks for no answer.
    fn again(&mut self, _key: &Self::Key, _state: &mut Option<Self::State>, _event: Self::Event) {}
}

struct Slot<S> {
    state: Option<S>,
    due: Option<i64>,
    /// Stepped since the last snapshot.
    dirty: bool,
}

/// Looked up, never iterated.
#[allow(clippy::disallowed_types)]
type Slots<K, S> = std::collections::HashMap<K, Slot<S>>;

/// Events in the order of their keys and positions, as runs of one key; keys whose timer is due have a run of their own.
fn runs<K: Ord, E>(mut events: Vec<Keyed<K, E>>, due: BTreeSet<K>) -> Vec<(K, Vec<E>)> {
    events.sort_by(|a, b| (&a.key, a.position).cmp(&(&b.key, b.position)));
    let mut runs: Vec<(K, Vec<E>)> = Vec::with_capacity(events.len() + due.len());
    let mut due = due.into_iter().peekable();
    for Keyed { key, event, .. } in events {
        if let Some((_, run)) = runs.last_mut().filter(|(last, _)| *last == key) {
            run.push(event);
            continue;
        }
        while let Some(silent) = due.next_if(|k| *k < key) {
            runs.push((silent, Vec::new()));
        }
        due.next_if(|k| *k == key);
        runs.push((key, vec![event]));
    }
    runs.extend(due.map(|key| (key, Vec::new())));
    runs
}

/// Runs a machine over a stream of keyed events.
pub fn machine<'scope, M: Machine>(
    events: Stream<'scope, u64, Vec<Keyed<M::Key, M::Event>>>,
    cx: &Context,
    mut machine: M,
) -> Stream<'scope, u64, Vec<M::Output>> {
    let cx = cx.clone();
    let pact = Exchange::new(|k: &Keyed<M::Key, M::Event>| route(&k.key));
    events.unary_frontier(pact, M::NAME, move |capability, _info| {
        let keys = cx.sizes.machine(M::NAME, cx.index);
        let mut capability = Some(capability.delayed(&cx.restored));
        let mut slots: Slots<M::Key, M::State> = Slots::new();
        let mut timers: BTreeSet<(i64, M::Key)> = BTreeSet::new();
        let mut dirty: Vec<M::Key> = Vec::new();
        let mut stash: BTreeMap<u64, Vec<Keyed<M::Key, M::Event>>> = BTreeMap::new();
        let mut restored = Vec::new();
        for (key, state) in cx.restore::<M::Key, M::State>(M::NAME) {
            machine.restored(&key, &state, &mut restored);
            let due = machine.due_ms(&state);
            timers.extend(due.map(|due| (due, key.clone())));
            slots.insert(key, Slot { state: Some(state), due, dirty: false });
        }
        let mut next = cx.restored + 1;
        let mut out = Vec::new();
        move |(input, frontier), output| {
            if !restored.is_empty()
                && let Some(capability) = &capability
            {
                output.session(capability).give_iterator(restored.drain(..));
            }
            input.for_each(|time, data| {
                let epoch = *time.least().expect("events are stamped with an epoch");
                if epoch <= cx.restored {
                    for Keyed { key, event, .. } in data.drain(..) {
                        let slot = slots.entry(key.clone()).or_insert(Slot { state: None, due: None, dirty: false });
                        machine.again(&key, &mut slot.state, event);
                        if slot.state.is_none() {
                            slots.remove(&key);
                        }
                    }
                    return;
                }
                stash.entry(epoch).or_default().append(data);
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            while next < upper {
                let tick = cx.tick(next).expect("every epoch is announced before its data");
                let now = match M::CLOCK {
                    Clock::Live => tick.live_ms,
                    Clock::Wall => tick.clock_ms,
                };
                let mut due = BTreeSet::new();
                while timers.first().is_some_and(|(at, _)| *at <= now) {
                    let (_, key) = timers.pop_first().expect("there is a first timer");
                    if let Some(slot) = slots.get_mut(&key) {
                        slot.due = None;
                    }
                    due.insert(key);
                }
                for (key, events) in runs(stash.remove(&next).unwrap_or_default(), due) {
                    let slot = slots.entry(key.clone()).or_insert(Slot { state: None, due: None, dirty: false });
                    let was_there = slot.state.is_some();
                    machine.step(&tick, &key, &mut slot.state, events, &mut out);
                    let due = slot.state.as_ref().and_then(|s| machine.due_ms(s));
                    if due != slot.due {
                        if let Some(old) = slot.due {
                            timers.remove(&(old, key.clone()));
                        }
                        timers.extend(due.map(|due| (due, key.clone())));
                        slot.due = due;
                    }
                    // What has no state and had none is nothing to a snapshot.
                    if !slot.dirty && (was_there || slot.state.is_some()) {
                        slot.dirty = true;
                        dirty.push(key.clone());
                    }
                    if slot.state.is_none() {
                        slots.remove(&key);
                    }
                }
                held.downgrade(&next);
                output.session(held).give_iterator(out.drain(..));
                if cx.wants_snapshot(next) {
                    dirty.sort();
                    dirty.dedup();
                    let entry = |key: M::Key| {
                        let slot = slots.get_mut(&key);
                        let value = slot.and_then(|slot| {
                            slot.dirty = false;
                            slot.state.as_ref().map(encode)
                        });
                        StateEntry { collection: M::NAME, value, key: encode(&key) }
                    };
                    cx.save(next, dirty.drain(..).map(entry).collect());
                }
                next += 1;
            }
            held.downgrade(&upper.max(cx.restored));
            keys.store(slots.len() as i64, Ordering::Relaxed);
        }
    })
}
