//! Standing facts: of each subject the newest. In snapshots they are kept as they were stated.

use std::sync::Arc;

use radarflow_proto::fact::Fact;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::keyed::{Machine, Restored, Tick};

/// The collection in snapshots.
pub(crate) const COLLECTION: &str = "facts";

/// A fact that stands, as it was stated and as it is read. Equal if it was stated in the same words.
#[derive(Clone, Debug)]
pub struct StandingFact {
    stated: String,
    /// Missing where it was restored, and this build knows nothing of its kind.
    fact: Option<Arc<Fact>>,
}

impl StandingFact {
    /// Of a fact that was decoded of these bytes.
    pub fn new(stated: &[u8], fact: Arc<Fact>) -> Self {
        StandingFact { stated: String::from_utf8_lossy(stated).into_owned(), fact: Some(fact) }
    }
}

impl StandingFact {
    /// As it is read.
    pub(crate) fn fact(&self) -> Option<&Fact> {
        self.fact.as_deref()
    }
}

impl PartialEq for StandingFact {
    fn eq(&self, other: &Self) -> bool {
        self.stated == other.stated
    }
}

impl Serialize for StandingFact {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.stated.serialize(to)
    }
}

impl<'de> Deserialize<'de> for StandingFact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let stated = String::deserialize(from)?;
        let fact = serde_json::from_str(&stated).ok().map(Arc::new);
        Ok(StandingFact { stated, fact })
    }
}

/// The facts that stand, as a snapshot says.
pub fn standing_facts(state: &Restored) -> Vec<Fact> {
    let entries = state.get(COLLECTION).into_iter().flatten();
    let facts = entries.filter_map(|(_, stated)| postcard::from_bytes::<StandingFact>(stated).ok()?.fact);
    facts.map(Arc::unwrap_or_clone).collect()
}

/// Remembers the newest fact about a subject.
pub(super) struct StandingFacts;

impl Machine for StandingFacts {
    type Key = String;
    type Event = StandingFact;
    type State = StandingFact;
    type Output = (Arc<Fact>, isize);
    const NAME: &'static str = COLLECTION;

    fn step(
        &mut self,
        _: &Tick,
        _: &String,
        state: &mut Option<StandingFact>,
        events: Vec<StandingFact>,
        out: &mut Vec<(Arc<Fact>, isize)>,
    ) {
        let Some(newest) = events.into_iter().last().filter(|newest| state.as_ref() != Some(newest)) else { return };
        let old = state.replace(newest.clone());
        out.extend(old.and_then(|old| old.fact).map(|fact| (fact, -1)));
        out.extend(newest.fact.map(|fact| (fact, 1)));
    }

    fn due_ms(&self, _: &StandingFact) -> Option<i64> {
        None
    }

    fn restored(&mut self, _: &String, state: &StandingFact, out: &mut Vec<(Arc<Fact>, isize)>) {
        out.extend(state.fact.clone().map(|fact| (fact, 1)));
    }
}
