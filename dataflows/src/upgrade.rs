//! State of older builds, converted.
//!
//! Every collection of state in a snapshot has a schema version, 1 where it is not named here. Who changes what a
//! collection's keys or values are raises its version and says how the one before becomes it. Nothing is discarded: what
//! cannot be converted keeps the program from starting, and the snapshot stays as it is.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::keyed::Restored;

/// Encoded keys and values of one collection.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// A collection whose state is no longer as it first was.
struct Schema {
    collection: &'static str,
    /// From version `n + 1` to `n + 2`.
    steps: &'static [fn(Entries) -> Result<Entries, String>],
}

const SCHEMAS: &[Schema] = &[];

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

/// Converts state whose collections have these versions.
///
/// # Errors
/// A newer build wrote it, or it does not read back.
pub fn upgrade(state: Restored, versions: &BTreeMap<String, u32>) -> Result<Restored, UpgradeError> {
    convert(state, versions, SCHEMAS)
}

fn convert(
    mut state: Restored,
    versions: &BTreeMap<String, u32>,
    schemas: &[Schema],
) -> Result<Restored, UpgradeError> {
    for (collection, found) in versions {
        let known = schemas.iter().find(|s| s.collection == collection).map_or(1, Schema::version);
        if *found > known {
            return Err(UpgradeError::Newer { collection: collection.clone(), found: *found, known });
        }
    }
    for schema in schemas {
        let Some(entries) = state.get_mut(schema.collection) else { continue };
        let found = versions.get(schema.collection).copied().unwrap_or(1).max(1);
        for (n, step) in schema.steps.iter().enumerate().skip(found as usize - 1) {
            *entries = step(std::mem::take(entries)).map_err(|reason| {
                let (collection, from) = (schema.collection.to_owned(), n as u32 + 1);
                UpgradeError::Bad { collection, from, reason }
            })?;
        }
    }
    Ok(state)
}
