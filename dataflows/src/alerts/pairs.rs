//! Clear pairs: conditions that one trap begins and another ends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_reconcile::alert::{Condition, Subject};
use serde::{Deserialize, Serialize};

use super::key::{AlertKey, ConditionChange};
use super::older::OldCondition;
use crate::keyed::{Machine, Restored, Tick, put_state, take_state};
use crate::sizes::Sizes;
use crate::strangers::{BUCKETS, bucket};

/// A trap of a clear pair, or that there is no such pair any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum PairEvent {
    /// It begins.
    Begin(PairSubject, Condition),
    /// It ends.
    End(PairSubject),
    /// Nothing ends what the pair of that name began.
    Over(String),
}

/// Conditions of a share that traps began: 32,768 a tenant. Nothing proves who sent a trap, so what one more begins is not
/// taken in while there are so many; the trap itself is in `traps`.
pub const MAX_PAIRS: usize = 512;
/// Conditions that traps about one address began.
pub const MAX_PAIRS_OF_ADDRESS: usize = 256;
/// What a trap began is over when none has said it again for so long, milliseconds of live time.
pub const PAIR_MS: i64 = 7 * 86_400_000;

/// A share of a tenant's senders of traps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct PairShare {
    tenant: String,
    bucket: u64,
}

/// What a trap is about: an address, and something there.
pub(super) type PairSubject = (IpAddr, Subject);

impl PairShare {
    /// The share that it belongs to.
    pub(super) fn of((source, subject): &PairSubject) -> Self {
        PairShare { tenant: subject.tenant.clone(), bucket: bucket(&subject.partition, *source) }
    }

    /// All of a tenant.
    pub(super) fn all(tenant: &str) -> impl Iterator<Item = Self> {
        (0..BUCKETS).map(|bucket| PairShare { tenant: tenant.to_owned(), bucket })
    }
}

/// Remembers what traps began.
pub(super) struct Pairs(pub(super) Arc<Sizes>);

/// What was begun, and when it was last said.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun<C = Condition> {
    conditions: BTreeMap<PairSubject, (C, i64)>,
}

impl<C> Default for Begun<C> {
    fn default() -> Self {
        Begun { conditions: BTreeMap::new() }
    }
}

impl<C> Begun<C> {
    /// The same of other conditions.
    pub(super) fn map<D>(self, of: impl Fn(C) -> D) -> Begun<D> {
        let conditions = self.conditions.into_iter();
        Begun { conditions: conditions.map(|(subject, (condition, said))| (subject, (of(condition), said))).collect() }
    }

    fn has_room(&self, subject: &PairSubject) -> bool {
        let of_address = || self.conditions.keys().filter(|(source, _)| *source == subject.0).count();
        self.conditions.contains_key(subject)
            || (self.conditions.len() < MAX_PAIRS && of_address() < MAX_PAIRS_OF_ADDRESS)
    }
}

impl Machine for Pairs {
    type Key = PairShare;
    type Event = PairEvent;
    type State = Begun;
    type Output = ConditionChange;
    const NAME: &'static str = "pairs";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &PairShare,
        state: &mut Option<Begun>,
        events: Vec<PairEvent>,
        out: &mut Vec<ConditionChange>,
    ) {
        let begun = state.get_or_insert_default();
        let mut before: BTreeMap<PairSubject, Option<Condition>> = BTreeMap::new();
        let over = begun.conditions.iter().filter(|(_, (_, said))| said + PAIR_MS <= tick.live_ms);
        let over: Vec<_> = over.map(|(subject, _)| PairEvent::End(subject.clone())).collect();
        for event in over.into_iter().chain(events) {
            let told = match event {
                PairEvent::Begin(subject, _) if !begun.has_room(&subject) => {
                    self.0.evicted().fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                PairEvent::Begin(subject, condition) => {
                    let old = begun.conditions.insert(subject.clone(), (condition, tick.live_ms));
                    vec![(subject, old)]
                }
                PairEvent::End(subject) => {
                    let old = begun.conditions.remove(&subject);
                    vec![(subject, old)]
                }
                PairEvent::Over(name) => {
                    let of = begun.conditions.extract_if(.., |(_, subject), _| subject.rule == name);
                    of.map(|(subject, old)| (subject, Some(old))).collect()
                }
            };
            for (subject, old) in told {
                before.entry(subject).or_insert(old.map(|(condition, _)| condition));
            }
        }
        for (subject, before) in before {
            let after = begun.conditions.get(&subject).map(|(condition, _)| condition.clone());
            if before != after {
                let key = AlertKey::of_subject(subject.1);
                out.extend(before.map(|c| (key.clone(), c, -1)));
                out.extend(after.map(|c| (key, c, 1)));
            }
        }
        if begun.conditions.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, begun: &Begun) -> Option<i64> {
        begun.conditions.values().map(|(_, said)| said + PAIR_MS).min()
    }

    fn restored(&mut self, _key: &PairShare, begun: &Begun, out: &mut Vec<ConditionChange>) {
        let said = begun.conditions.iter();
        out.extend(said.map(|((_, s), (c, _))| (AlertKey::of_subject(s.clone()), c.clone(), 1)));
    }
}

/// The first release kept conditions by their alert; the address was in the name of the thing.
pub(crate) fn pairs_by_share(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let mut shares: BTreeMap<PairShare, Begun<OldCondition>> = BTreeMap::new();
    for (_, (subject, condition)) in take_state::<AlertKey, (Subject, OldCondition)>(state, Pairs::NAME)? {
        let address = subject.entity.split('/').next().and_then(|ip| ip.parse().ok());
        let subject = (address.ok_or_else(|| format!("{} names no address", subject.entity))?, subject);
        let begun = shares.entry(PairShare::of(&subject)).or_default();
        begun.conditions.insert(subject, (condition, tick.live_ms));
    }
    put_state(state, Pairs::NAME, shares);
    Ok(())
}
