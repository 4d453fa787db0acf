//! Records of partial sources: field by field, the newest value that was present since the last deletion.
//!
//! What is kept of a record are the sayings that are the newest about something, whatever order they came in; of two said
//! at one time the greater counts. A deletion forgets what was said until then.

use std::collections::BTreeSet;

use radarflow_proto::record::{Identifier, Record};
use serde::{Deserialize, Serialize};

use crate::identity::name::{Name, name};

/// What a partial source said of one item, as far as it counts; the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sayings(Vec<Record>);

/// What a record may say something about.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Field<'a> {
    Id(&'a Identifier),
    Macs,
    Ips,
    Hostname,
    Attribute(&'a str),
    Metadata(&'a str),
}

impl Field<'_> {
    /// Identifiers of one namespace are one field.
    fn slot(&self) -> (u8, String) {
        match self {
            Field::Id(id) => (id.kind as u8, id.namespace.clone()),
            Field::Macs => (100, String::new()),
            Field::Ips => (101, String::new()),
            Field::Hostname => (102, String::new()),
            Field::Attribute(key) => (103, (*key).to_owned()),
            Field::Metadata(key) => (104, (*key).to_owned()),
        }
    }
}

fn fields(record: &Record) -> impl Iterator<Item = Field<'_>> {
    let macs = !(record.macs.is_empty() && record.macs_shown.is_empty());
    let ids = record.ids.iter().map(Field::Id);
    ids.chain(macs.then_some(Field::Macs))
        .chain((!record.ips.is_empty()).then_some(Field::Ips))
        .chain(record.hostname.as_ref().map(|_| Field::Hostname))
        .chain(record.attributes.keys().map(|k| Field::Attribute(k)))
        .chain(record.metadata.keys().map(|k| Field::Metadata(k)))
}

fn order(record: &Record) -> (i64, bool, Name) {
    (record.event_time.0, record.deleted, name(record))
}

impl Sayings {
    /// Takes in what was said, and gives the record it makes now.
    pub fn say(&mut self, record: Record) -> Record {
        if !self.0.contains(&record) {
            self.0.push(record);
        }
        self.0.sort_by_cached_key(|said| std::cmp::Reverse(order(said)));
        // Nothing said before a deletion, or with it, counts.
        if let Some(deletion) = self.0.iter().position(|said| said.deleted) {
            self.0.truncate(deletion + 1);
        }
        let newest = self.0[0].clone();
        if newest.deleted {
            return newest;
        }
        let mut taken = BTreeSet::new();
        let mut whole = Record {
            ids: Vec::new(),
            macs: Vec::new(),
            macs_shown: Vec::new(),
            ips: Vec::new(),
            hostname: None,
            attributes: Default::default(),
            metadata: Default::default(),
            ..newest.clone()
        };
        self.0.retain(|said| {
            let mut counts = said.deleted || *said == newest;
            if said.deleted {
                return counts;
            }
            // Two identifiers of one namespace in one saying are both said.
            let new: BTreeSet<(u8, String)> = fields(said).map(|f| f.slot()).filter(|s| !taken.contains(s)).collect();
            for field in fields(said).filter(|f| new.contains(&f.slot())) {
                counts = true;
                match field {
                    Field::Id(id) => whole.ids.push(id.clone()),
                    Field::Macs => {
                        whole.macs.clone_from(&said.macs);
                        whole.macs_shown.clone_from(&said.macs_shown);
                    }
                    Field::Ips => whole.ips.clone_from(&said.ips),
                    Field::Hostname => whole.hostname.clone_from(&said.hostname),
                    Field::Attribute(key) => {
                        whole.attributes.insert(key.to_owned(), said.attributes[key].clone());
                    }
                    Field::Metadata(key) => drop(whole.metadata.insert(key.to_owned(), said.metadata[key].clone())),
                }
            }
            taken.extend(new);
            counts
        });
        whole
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use radarflow_proto::cell::Time;

    use super::*;

    fn said(at: i64, deleted: bool, hostname: Option<u8>, mac: Option<u8>, model: Option<u8>) -> Record {
        Record {
            event_time: Time(at),
            deleted,
            hostname: hostname.map(|h| format!("h{h}")),
            macs: mac.map(|m| format!("0C00000000{m:02X}")).into_iter().collect(),
            attributes: model.map(|m| ("model".to_owned(), format!("m{m}"))).into_iter().collect(),
            ..Record::default()
        }
    }

    #[test]
    fn fields_are_filled_from_older_sayings() {
        let mut sayings = Sayings::default();
        sayings.say(said(1, false, Some(1), Some(1), None));
        sayings.say(said(3, false, Some(3), None, None));
        let whole = sayings.say(said(2, false, Some(2), Some(2), Some(2)));
        assert_eq!((whole.event_time.0, whole.hostname.as_deref()), (3, Some("h3")));
        assert_eq!((&*whole.macs[0], &*whole.attributes["model"]), ("0C0000000002", "m2"));
        assert_eq!(sayings.0.len(), 2, "what is the newest about nothing is forgotten");
    }

    proptest! {
        #[test]
        fn the_order_and_repetition_of_sayings_do_not_matter(
            all in proptest::collection::vec((0..6i64, prop::bool::weighted(0.2), any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>()), 1..8),
            seed in any::<u64>(),
        ) {
            let all: Vec<Record> = all
                .into_iter()
                .map(|(at, deleted, h, m, a)| said(at, deleted, h.map(u8::from), m.map(u8::from), a.map(u8::from)))
                .collect();
            let mut shuffled = all.clone();
            shuffled.extend(all.iter().take(3).cloned());
            shuffled.sort_by_cached_key(|r| name(&(seed, r)));
            let end = |all: Vec<Record>| {
                let mut sayings = Sayings::default();
                all.into_iter().map(|r| sayings.say(r)).last()
            };
            prop_assert_eq!(end(all), end(shuffled));
        }
    }
}
