//! What sources list completely: an item that a complete listing lacks is withdrawn.
//!
//! ```text
//! items of listing runs, ends of runs ─► [listing of a source instance] ─┬─► withdrawn records ─► records
//!                                                                        └─► held listings ─► conditions
//! ```
//! A run that ends complete lists everything its source instance has; what was listed before and is not in it goes, as if
//! it had never been said (so that it is back as it was when it is listed again). A run that does not end complete
//! withdraws nothing.
//!
//! *The brake* (`reconcile::brakes`): a listing that lacks too much is held: nothing goes, an alert tells, and an operator releases or rejects it. The next complete listing takes its place. The first one of a
//! source is judged like any other: it has nothing to withdraw.

use std::collections::BTreeMap;

use radarflow_proto::fact::RunDecision;
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::brakes::too_many;
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Map;

use crate::alerts::{AlertKey, ConditionChange, Conditions};
use crate::collection::Events;
use crate::keyed::{Context, Keyed, Machine, Tick, machine};

/// What is known of listings.
pub struct Inputs<'scope> {
    /// Items and ends of runs that list, by source instance.
    pub listed: Events<'scope, Keyed<ListingKey, ListingEvent>>,
}

/// What comes of it.
pub struct Outputs<'scope> {
    /// Records that are listed no longer.
    pub withdrawn: Events<'scope, Name>,
    /// Runs that are held.
    pub conditions: Conditions<'scope>,
    /// What somebody has decided about a run. If its listing is not held: the run whose is.
    pub decisions: Events<'scope, (RunDecision, Result<(), Option<String>>)>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let out = machine(inputs.listed, cx, Listings);
    Outputs {
        withdrawn: out.clone().flat_map(|out| match out {
            ListingOut::Withdrawn(record) => Some(record),
            _ => None,
        }),
        conditions: out.clone().flat_map(|out| match out {
            ListingOut::Held(change) => Some(change),
            _ => None,
        }),
        decisions: out.flat_map(|out| match out {
            ListingOut::Decided(decision, refused) => Some((decision, refused)),
            _ => None,
        }),
    }
}

/// A source instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListingKey {
    /// Customer.
    pub tenant: String,
    /// Kind of source.
    pub kind: SourceKind,
    /// Its instance.
    pub instance: String,
}

/// What is known of a run of a source that lists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ListingEvent {
    /// An item was listed, or said to be gone.
    Item {
        /// Names its record.
        record: Name,
        /// Names the run.
        run: u32,
        /// Said to be gone.
        gone: bool,
    },
    /// A run listed everything.
    Complete {
        /// The run.
        run: String,
        /// Names it.
        name: u32,
        /// Somebody has looked at what it lacks and said yes.
        approved: bool,
    },
    /// An operator decides about a run that is held.
    Decide(RunDecision),
}

/// The items of a source instance.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ListedItems {
    /// By record: the run that listed it last.
    items: BTreeMap<Name, u32>,
    held: Option<HeldRun>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HeldRun {
    run: String,
    /// What it lacks, with the run that listed it last.
    absent: Vec<(Name, u32)>,
    /// Items there were.
    of: usize,
}

/// What comes of it.
#[derive(Clone, Debug)]
enum ListingOut {
    /// The record is listed no longer.
    Withdrawn(Name),
    /// A run is held, or no longer.
    Held(ConditionChange),
    /// Somebody has decided about a run. If its listing is not held: the run whose is.
    Decided(RunDecision, Result<(), Option<String>>),
}

/// Withdraws what complete listings lack.
struct Listings;

/// That a run of a source is held.
pub(crate) fn held_run(
    key: &ListingKey,
    rule: &str,
    entity: String,
    run: &str,
    title: String,
    description: String,
) -> (AlertKey, Condition) {
    let (tenant, rule) = (key.tenant.clone(), rule.to_owned());
    let subject = Subject { tenant, partition: "default".to_owned(), rule: rule.clone(), entity };
    let condition = Condition {
        rule,
        severity: "warning".to_owned(),
        title,
        description,
        source_type: "source".to_owned(),
        source_id: key.source(),
        labels: BTreeMap::from([("run".to_owned(), run.to_owned())]),
        ..Condition::default()
    };
    (AlertKey::of_subject(subject), condition)
}

impl ListingKey {
    /// As people write it: `netbox/main`.
    pub(crate) fn source(&self) -> String {
        format!("{}/{}", self.kind.name(), self.instance)
    }
}

fn condition(key: &ListingKey, HeldRun { run, absent, of }: &HeldRun) -> (AlertKey, Condition) {
    let source = key.source();
    let title = format!("a listing of {source} lacks {} of {of} items and is held", absent.len());
    let description = format!(
        "nothing of {source} is deleted until somebody releases run {run}, or the next complete listing differs"
    );
    held_run(key, "brake-held", source, run, title, description)
}

impl ListedItems {
    /// Withdraws those of them that nobody listed since.
    fn withdraw(&mut self, absent: Vec<(Name, u32)>, out: &mut Vec<ListingOut>) {
        for (record, run) in absent {
            if self.items.get(&record) == Some(&run) {
                self.items.remove(&record);
                out.push(ListingOut::Withdrawn(record));
            }
        }
    }

    fn complete(&mut self, run: String, name: u32, approved: bool, out: &mut Vec<ListingOut>) {
        let absent = self.items.iter().filter(|(_, last)| **last != name);
        let absent: Vec<(Name, u32)> = absent.map(|(record, last)| (*record, *last)).collect();
        self.held = None;
        if !approved && too_many(absent.len(), self.items.len()) {
            self.held = Some(HeldRun { run, absent, of: self.items.len() });
        } else {
            self.withdraw(absent, out);
        }
    }

    fn decide(&mut self, decision: &RunDecision, out: &mut Vec<ListingOut>) -> Result<(), Option<String>> {
        match self.held.take() {
            Some(held) if held.run == decision.run => {
                if decision.release {
                    self.withdraw(held.absent, out);
                }
                Ok(())
            }
            held => {
                let other = held.as_ref().map(|h| h.run.clone());
                self.held = held;
                Err(other)
            }
        }
    }
}

impl Machine for Listings {
    type Key = ListingKey;
    type Event = ListingEvent;
    type State = ListedItems;
    type Output = ListingOut;
    const NAME: &'static str = "listings";

    fn step(
        &mut self,
        _: &Tick,
        key: &ListingKey,
        state: &mut Option<ListedItems>,
        events: Vec<ListingEvent>,
        out: &mut Vec<ListingOut>,
    ) {
        let listing = state.get_or_insert_default();
        let before = listing.held.clone();
        for event in events {
            match event {
                ListingEvent::Item { record, gone: true, .. } => {
                    listing.items.remove(&record);
                }
                ListingEvent::Item { record, run, gone: false } => {
                    listing.items.insert(record, run);
                }
                ListingEvent::Complete { run, name, approved } => listing.complete(run, name, approved, out),
                ListingEvent::Decide(decision) => {
                    let decided = listing.decide(&decision, out);
                    out.push(ListingOut::Decided(decision, decided));
                }
            }
        }
        if before != listing.held {
            let mut said = |held: &Option<HeldRun>, diff| {
                let condition = held.as_ref().map(|held| condition(key, held));
                out.extend(condition.map(|(alert, condition)| ListingOut::Held((alert, condition, diff))));
            };
            said(&before, -1);
            said(&listing.held, 1);
        }
        if listing.items.is_empty() && listing.held.is_none() {
            *state = None;
        }
    }

    fn due_ms(&self, _: &ListedItems) -> Option<i64> {
        None
    }

    fn restored(&mut self, key: &ListingKey, state: &ListedItems, out: &mut Vec<ListingOut>) {
        let held = state.held.as_ref().map(|held| condition(key, held));
        out.extend(held.map(|(alert, condition)| ListingOut::Held((alert, condition, 1))));
    }
}
