//! When identifiers were first seen: what is known about them beyond the records alive.
//!
//! First-seen of an identifier is the smallest event time at which it was asserted since the last gap of one retention
//! in which no live record asserted it; it survives the records, so a name does not change when its oldest record goes.

use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::Identifier;
use radarflow_reconcile::identity::assertions::{Scope, mac_identifier};
use radarflow_reconcile::identity::name::{Name, identifier_uid};
use serde::{Deserialize, Serialize};

use super::RETENTION_MS;
use super::version::{Live, Version};
use crate::keyed::{Machine, Tick};

/// An identifier that some record asserted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Asserted {
    /// Where.
    pub scope: Arc<Scope>,
    /// The identifier.
    pub id: Identifier,
    /// The uid it bears.
    pub uid: Arc<str>,
}

/// What happens to an identifier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Assertion {
    /// Some version, live or not, asserted it.
    Sighted(Live),
    /// A live record began (+1) or ceased (-1) to assert it.
    Held(i64, Live),
}

/// Remembers identifiers.
pub(super) struct Identifiers;

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct IdentifierState {
    id: Arc<Asserted>,
    first: Time,
    live: i64,
    gone_ms: Option<i64>,
    last_record: Name,
}

/// What is known about an identifier beyond the records alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FirstSeen {
    /// Names the identifier.
    pub name: Name,
    /// First seen.
    pub first: Time,
    /// The identifier.
    pub id: Arc<Asserted>,
    /// The record that asserted it last, once no live one does.
    pub last_record: Option<Name>,
}

impl IdentifierState {
    fn first_seen(&self, name: Name) -> FirstSeen {
        let last_record = (self.live == 0).then_some(self.last_record);
        FirstSeen { name, id: self.id.clone(), first: self.first, last_record }
    }
}

/// The identifier of that name, of those a version asserts.
fn asserted(version: &Version, name: Name) -> Asserted {
    let scope = &version.says.scope;
    let strong = version.ids().into_iter().find(|id| scope.id(id).name == name);
    let id = strong.or_else(|| version.says.global_macs().find(|m| m.name == name).map(|m| mac_identifier(m.value)));
    let id = id.expect("an assertion names what its version asserts");
    Asserted { scope: scope.clone(), uid: identifier_uid(&scope.partition, &id).into(), id }
}

impl Machine for Identifiers {
    type Key = Name;
    type Event = Assertion;
    type State = IdentifierState;
    type Output = (FirstSeen, isize);
    const NAME: &'static str = "first_seen";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Name,
        state: &mut Option<IdentifierState>,
        events: Vec<Assertion>,
        out: &mut Vec<(FirstSeen, isize)>,
    ) {
        let before = state.as_ref().map(|s| s.first_seen(*key));
        if state.as_ref().is_some_and(|s| self.due_ms(s).is_some_and(|due| due <= tick.live_ms)) {
            *state = None;
        }
        for event in events {
            let version = match &event {
                Assertion::Sighted(version) | Assertion::Held(_, version) => version,
            };
            let s = state.get_or_insert_with(|| IdentifierState {
                id: asserted(version, *key).into(),
                first: Time(i64::MAX),
                live: 0,
                gone_ms: Some(tick.live_ms),
                last_record: Name::default(),
            });
            match event {
                Assertion::Sighted(version) => s.first = s.first.min(version.says.at),
                Assertion::Held(diff, version) => {
                    s.live += diff;
                    s.first = s.first.min(version.says.at);
                    // Of the records that leave at once the greatest counts, so that their order does not.
                    if diff < 0 {
                        let record = version.key;
                        s.last_record =
                            if s.gone_ms == Some(tick.live_ms) { s.last_record.max(record) } else { record };
                    }
                    s.gone_ms = (s.live <= 0).then_some(tick.live_ms);
                }
            }
        }
        let after = state.as_ref().map(|s| s.first_seen(*key));
        if before != after {
            out.extend(before.map(|b| (b, -1)));
            out.extend(after.map(|a| (a, 1)));
        }
    }

    fn due_ms(&self, state: &IdentifierState) -> Option<i64> {
        state.gone_ms.map(|at| at + RETENTION_MS)
    }

    fn restored(&mut self, key: &Name, state: &IdentifierState, out: &mut Vec<(FirstSeen, isize)>) {
        out.push((state.first_seen(*key), 1));
    }
}
