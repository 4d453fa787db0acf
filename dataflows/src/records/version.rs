//! One version of a record: what identity reads of it, and all of it, packed.

use std::cmp::Ordering;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::{Identifier, Record, SourceKind};
use radarflow_reconcile::identity::ClaimClass;
use radarflow_reconcile::identity::assertions::Assertions;
use radarflow_reconcile::identity::name::{Name, name, name_of_bytes};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::keyed::encode;

/// A run of a source, by names that differ where it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunName {
    /// The source instance.
    pub source: u32,
    /// Its run; of a source without runs, the minute.
    pub run: u32,
}

/// One version of a record: what identity reads of it, and all of it, packed. Compared by names: equal names are equal
/// content.
#[derive(Clone, Debug)]
pub struct Version {
    /// Names the record.
    pub key: Name,
    /// Names the content, event time included.
    pub hash: Name,
    /// An agent's record that was not confirmed for a day.
    pub stale: bool,
    /// Who said so.
    pub by: RunName,
    /// What identity reads.
    pub says: Assertions,
    body: Box<[u8]>,
}

impl Version {
    /// Of a record.
    pub fn new(record: &Record) -> Self {
        let body = encode(record).into_boxed_slice();
        let (key, hash, by) = (name(&record.key), name_of_bytes(&body), RunName::default());
        Version { key, hash, stale: false, by, says: Assertions::of(record), body }
    }

    /// The same, said by a run.
    pub fn said_by(self, by: RunName) -> Self {
        Version { by, ..self }
    }

    /// The same, of an agent that was not confirmed for a day.
    pub fn grown_stale(self) -> Self {
        Version { stale: true, ..self }
    }

    /// The same, of an agent that was confirmed again.
    pub(super) fn confirmed(self) -> Self {
        Version { stale: false, ..self }
    }

    /// The same, of a device whose interfaces have these MACs.
    pub fn showing(&self, macs: &[u64]) -> Self {
        let mut record = self.record();
        let said: Vec<String> = macs.iter().map(|mac| format!("{mac:012X}")).collect();
        let new = said.into_iter().filter(|m| !record.macs.contains(m) && !record.macs_shown.contains(m));
        let new: Vec<String> = new.collect();
        record.macs_shown.extend(new);
        Version { stale: self.stale, by: self.by, ..Version::new(&record) }
    }

    /// The record.
    pub fn record(&self) -> Record {
        postcard::from_bytes(&self.body).expect("a packed record unpacks")
    }

    /// The record's strong identifiers, without unpacking the rest.
    pub(super) fn ids(&self) -> Vec<Identifier> {
        let (head, _): (Head<'_>, _) = postcard::take_from_bytes(&self.body).expect("a packed record unpacks");
        head.ids
    }

    /// The instance of its source, without unpacking the rest.
    pub fn instance(&self) -> &str {
        let (head, _): (Head<'_>, _) = postcard::take_from_bytes(&self.body).expect("a packed record unpacks");
        head.key.2
    }

    /// How strongly it claims its addresses.
    pub fn class(&self) -> ClaimClass {
        if self.stale { ClaimClass::StaleAgent } else { ClaimClass::of(self.says.kind) }
    }
}

/// How a packed record begins.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Head<'a> {
    #[serde(borrow)]
    key: (&'a str, SourceKind, &'a str, Option<&'a str>, &'a str),
    partition: &'a str,
    event_time: Time,
    deleted: bool,
    ids: Vec<Identifier>,
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Version {}
impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.key, self.hash, self.stale).cmp(&(other.key, other.hash, other.stale))
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.stale, self.by, &self.body).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (stale, by, body) = <(bool, RunName, Vec<u8>)>::deserialize(from)?;
        let record: Record = postcard::from_bytes(&body).map_err(serde::de::Error::custom)?;
        Ok(Version { stale, by, ..Version::new(&record) })
    }
}

/// What identity is computed from: live versions, shared.
pub type Live = Arc<Version>;
