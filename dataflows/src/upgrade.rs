//! State of older builds, converted.
//!
//! Every collection of state in a snapshot has a schema version, 1 where it is not named here. Who changes what a
//! collection's keys or values are raises its version and says how the one before becomes it. Nothing is discarded: what
//! cannot be converted keeps the program from starting, and the snapshot stays as it is.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::keyed::{Restored, Tick};
use crate::{alerts, availability, decode, health, identity, jobs, loss, resources};

/// Makes the next version of a collection's state, given all state and the clock of its epoch.
type Step = fn(&mut Restored, &Tick) -> Result<(), String>;

/// A collection whose state is no longer as it first was.
struct Schema {
    collection: &'static str,
    /// From version `n + 1` to `n + 2`.
    steps: &'static [Step],
}

const SCHEMAS: &[Schema] = &[
    Schema { collection: "alerts", steps: &[alerts::alerts_with_levels] },
    Schema { collection: "bursts", steps: &[health::bursts_by_share] },
    Schema { collection: "desks", steps: &[alerts::desks_that_remember] },
    Schema { collection: "exporters", steps: &[decode::exporters_with_reputation, decode::exporters_with_names] },
    Schema { collection: "facts", steps: &[resources::resources_of_facts] },
    Schema { collection: "gate", steps: &[identity::gate_of_relations] },
    Schema { collection: "groups", steps: &[alerts::groups_of_addresses] },
    Schema { collection: "jobs", steps: &[jobs::jobs_with_timetables] },
    Schema { collection: "notifiers", steps: &[decode::notifiers_with_lanes] },
    Schema {
        collection: "pairs",
        steps: &[alerts::pairs_by_share, alerts::pairs_with_measurements, alerts::pairs_with_worth],
    },
    Schema { collection: "sflow", steps: &[decode::agents_with_reputation] },
    Schema { collection: "sick", steps: &[availability::sick_that_settle] },
    Schema { collection: "sources", steps: &[loss::senders_by_share, loss::senders_with_rhythm] },
    // After `sources`, which the ledgers of feeds were part of.
    Schema { collection: "feeds", steps: &[loss::feeds_with_rhythm] },
    Schema { collection: "targets", steps: &[availability::vantages_that_age] },
];

impl Schema {
    fn version(&self) -> u32 {
        self.steps.len() as u32 + 1
    }
}

/// Why state of another build cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpgradeError {
    /// A newer build wrote it.
    #[error(
        "the snapshot's state of `{collection}` is of version {found}, and this build reads up to {known}; nothing was \
         changed: start the newer build again"
    )]
    Newer {
        /// The collection.
        collection: String,
        /// Its version.
        found: u32,
        /// What this build knows.
        known: u32,
    },
    /// It does not read back.
    #[error(
        "the snapshot's state of `{collection}` cannot be converted from version {from}: {reason}; nothing was changed"
    )]
    Bad {
        /// The collection.
        collection: String,
        /// Its version.
        from: u32,
        /// Why.
        reason: String,
    },
}

/// The schema versions of this build, of the collections that have another than 1.
pub fn versions() -> BTreeMap<String, u32> {
    SCHEMAS.iter().map(|schema| (schema.collection.to_owned(), schema.version())).collect()
}

/// Converts state whose collections have these versions, of an epoch with this clock.
///
/// # Errors
/// A newer build wrote it, or it does not read back.
pub fn upgrade(mut state: Restored, versions: &BTreeMap<String, u32>, tick: &Tick) -> Result<Restored, UpgradeError> {
    for (collection, found) in versions {
        let known = SCHEMAS.iter().find(|s| s.collection == collection).map_or(1, Schema::version);
        if *found > known {
            return Err(UpgradeError::Newer { collection: collection.clone(), found: *found, known });
        }
    }
    for Schema { collection, steps } in SCHEMAS {
        let found = versions.get(*collection).copied().unwrap_or(1).max(1);
        for (from, step) in (1..).zip(*steps).skip(found as usize - 1) {
            step(&mut state, tick).map_err(|reason| {
                let collection = (*collection).to_owned();
                UpgradeError::Bad { collection, from, reason }
            })?;
        }
    }
    Ok(state)
}
