//! Clear pairs: conditions that one trap begins and another ends.
//!
//! Nothing proves who sent a trap of v1 or v2c. So what an authentic one began, no other ends; and where there are too many, what is
//! worth the least gives way ([`Worth`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_reconcile::alert::{Condition, Subject};
use serde::{Deserialize, Serialize};

use super::key::{AlertKey, ConditionChange};
use crate::keyed::{Machine, Tick};
use crate::sizes::Sizes;
use crate::strangers::{BUCKETS, bucket};

/// A trap of a clear pair, or that there is no such pair any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum PairEvent {
    /// It begins.
    Begin(PairSubject, Condition, Worth),
    /// It ends.
    End(PairSubject, Worth),
    /// Nothing ends what the pair of that name began.
    Over(String),
}

/// How much the word of a trap is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Worth {
    /// It is authentic: SNMPv3 with a key.
    pub is_authentic: bool,
    /// How long its sender had been of use before, milliseconds, at most [`crate::strangers::PATIENCE_MS`].
    pub known_ms: i64,
}

/// Conditions of a share that traps began: 32,768 a tenant. One more takes the place of the least that is worth less, or is not taken
/// in; the trap itself is in `traps`.
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

/// A condition that was begun.
#[derive(Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) condition: Condition,
    /// When it was last said, live time.
    pub(super) said_ms: i64,
    /// What the best word for it was worth.
    pub(super) worth: Worth,
}

/// What was begun.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) conditions: BTreeMap<PairSubject, Held>,
}

impl Begun {
    /// Whether there is room for it, and what has to go for that.
    fn room(&self, subject: &PairSubject, worth: Worth) -> Option<Option<PairSubject>> {
        if self.conditions.contains_key(subject) {
            return Some(None);
        }
        let of_address = || self.conditions.iter().filter(|((source, _), _)| *source == subject.0);
        let is_of_address = of_address().count() >= MAX_PAIRS_OF_ADDRESS;
        if !is_of_address && self.conditions.len() < MAX_PAIRS {
            return Some(None);
        }
        let worst = |(_, held): &(&PairSubject, &Held)| (held.worth, held.said_ms);
        let least =
            if is_of_address { of_address().min_by_key(worst) } else { self.conditions.iter().min_by_key(worst) };
        least.filter(|(_, held)| held.worth < worth).map(|(subject, _)| Some(subject.clone()))
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
        let over = begun.conditions.extract_if(.., |_, held| held.said_ms + PAIR_MS <= tick.live_ms);
        before.extend(over.map(|(subject, held)| (subject, Some(held.condition))));
        for event in events {
            let told: Vec<(PairSubject, Option<Held>)> = match event {
                PairEvent::Begin(subject, condition, mut worth) => {
                    let Some(goes) = begun.room(&subject, worth) else {
                        self.0.evicted().fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let gone = goes.map(|goes| {
                        self.0.evicted().fetch_add(1, Ordering::Relaxed);
                        let held = begun.conditions.remove(&goes);
                        (goes, held)
                    });
                    if let Some(known) = begun.conditions.get(&subject) {
                        if known.worth.is_authentic && !worth.is_authentic {
                            continue;
                        }
                        worth = worth.max(known.worth);
                    }
                    let held = Held { condition, said_ms: tick.live_ms, worth };
                    let old = begun.conditions.insert(subject.clone(), held);
                    gone.into_iter().chain([(subject, old)]).collect()
                }
                PairEvent::End(subject, worth) => {
                    let ends = |held: &Held| worth.is_authentic || !held.worth.is_authentic;
                    let old =
                        begun.conditions.get(&subject).is_some_and(ends).then(|| begun.conditions.remove(&subject));
                    old.map(|old| (subject, old)).into_iter().collect()
                }
                PairEvent::Over(name) => {
                    let of = begun.conditions.extract_if(.., |(_, subject), _| subject.rule == name);
                    of.map(|(subject, old)| (subject, Some(old))).collect()
                }
            };
            for (subject, old) in told {
                before.entry(subject).or_insert(old.map(|held| held.condition));
            }
        }
        for (subject, before) in before {
            let after = begun.conditions.get(&subject).map(|held| held.condition.clone());
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
        begun.conditions.values().map(|held| held.said_ms + PAIR_MS).min()
    }

    fn restored(&mut self, _key: &PairShare, begun: &Begun, out: &mut Vec<ConditionChange>) {
        let said = begun.conditions.iter();
        out.extend(said.map(|((_, s), held)| (AlertKey::of_subject(s.clone()), held.condition.clone(), 1)));
    }
}
