//! Names that devices had in a system that was replaced: they lead to whoever holds the identifiers they had there.

use radarflow_proto::fact::{Fact, ImportedUid};
use radarflow_proto::record::Identifier;
use radarflow_reconcile::identity::normalise;
use serde::Deserialize;

use crate::actor::Actor;
use crate::records::Refused;
use crate::tables::names::read_seed;

/// Identifiers of one name at most.
const MAX_IDENTIFIERS: usize = 256;

/// A name, as it is imported.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    uid: String,
    #[serde(default)]
    partition: String,
    /// `type:value`, or `type@instance:value`.
    identifiers: Vec<String>,
}

impl Line {
    /// As a fact.
    pub(crate) fn fact(self, actor: &Actor) -> Result<Fact, Refused> {
        let partition =
            normalise::partition(&self.partition).ok_or_else(|| Refused::bad("a partition has no : and no /"))?;
        if self.uid.trim().is_empty() || self.uid.len() > 255 || self.uid.contains(char::is_control) {
            return Err(Refused::bad("a name has 1 to 255 bytes"));
        }
        if self.identifiers.len() > MAX_IDENTIFIERS {
            return Err(Refused::bad(format!("{}: a name has {MAX_IDENTIFIERS} identifiers at most", self.uid)));
        }
        // What no source would count as an identifier leads nowhere: it is left out.
        let read = self.identifiers.iter().filter_map(|seed| read_seed(seed).ok());
        let mut identifiers: Vec<Identifier> = read.collect();
        identifiers.sort();
        identifiers.dedup();
        Ok(Fact::ImportedUid(ImportedUid { tenant: actor.tenant.clone(), partition, uid: self.uid, identifiers }))
    }
}
