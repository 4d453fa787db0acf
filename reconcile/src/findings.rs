//! What an import is read with doubts about: columns that no item has, values that say nothing, items that will be rejected.
//! Counted by what is wrong, with the first items of each, so that whoever brings a file learns of it from the answer.
//!
//! Nothing is refused for it: inventories are dirty, and an item counts as far as it can be read. What is kept is bounded by
//! the columns of the mapping, not by the items.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::payload::{DeviceUpdate, instant_us};
use serde::Serialize;
use serde_json::Value;

use crate::identity::normalise;
use crate::identity::sources::{Instances, Received, RecordError, device_update};
use crate::mapping::Mapping;

/// Items that a finding names.
const FIRST: usize = 5;
/// Kinds of findings of one import.
const MAX_FINDINGS: usize = 64;
/// Columns that are remembered, to tell which of them nothing reads.
const MAX_COLUMNS: usize = 256;
/// Bytes that are shown of a value, or of the name of a column.
const SHOWN: usize = 40;

/// Something that is wrong with some items.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub reason: String,
    /// With so many items; 0 where it is wrong with all of them together.
    pub items: usize,
    /// The first of them, from 1. In CSV an item's row is one more, for the first names the columns.
    pub first: Vec<usize>,
    /// What one of them says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// Looks at the items of an import.
#[derive(Debug)]
pub struct Findings<'m> {
    mapping: Option<&'m Mapping>,
    /// Columns that the mapping names and no item had so far, by what they are for.
    missing: BTreeMap<&'m str, String>,
    /// Columns that nothing reads.
    unread: BTreeSet<String>,
    /// With the item that was found last.
    found: BTreeMap<String, (Finding, usize)>,
    items: usize,
}

impl<'m> Findings<'m> {
    /// Of items under a mapping, or of device updates.
    pub fn new(mapping: Option<&'m Mapping>) -> Self {
        let missing = mapping.map(Mapping::columns).unwrap_or_default();
        Findings { mapping, missing, unread: BTreeSet::new(), found: BTreeMap::new(), items: 0 }
    }

    /// Looks at an item and at what was made of it.
    pub fn look(&mut self, item: &Value, update: &DeviceUpdate) {
        self.items += 1;
        if let Some(mapping) = self.mapping {
            self.missing.retain(|column, _| !has(item, column));
            if self.items == 1 {
                // The mapping's other columns are read here.
                let read = mapping.columns();
                let columns = item.as_object().into_iter().flat_map(|item| item.keys());
                let unread = columns.filter(|column| {
                    let pointer = format!("/{column}");
                    !read
                        .keys()
                        .any(|read| read == column || *read == pointer || read.starts_with(&format!("{pointer}/")))
                });
                self.unread = unread.take(MAX_COLUMNS).map(|column| cut(column)).collect();
            }
        }
        let pieces = update.ip.split([',', ';']).flat_map(str::split_whitespace);
        for piece in pieces.filter(|piece| normalise::ip(piece).is_none()) {
            self.find("an address that is none, or none of a device", Some(piece));
        }
        if let Some(mac) = &update.mac {
            for why in normalise::macs(mac).1 {
                self.find(&format!("a MAC that names no device ({})", why.name()), Some(mac));
            }
        }
        if !update.timestamp.is_null() && instant_us(&update.timestamp).is_none() {
            let said = update.timestamp.as_str().map_or_else(|| update.timestamp.to_string(), str::to_owned);
            self.find("a time that cannot be read; when it is received counts instead", Some(&said));
        }
        if let Some(name) = update.hostname.as_deref().filter(|name| normalise::hostname(name).is_none()) {
            self.find("a host name that is none", Some(name));
        }
        let received = Received { tenant: "", partition: None, at_us: i64::MAX };
        // Of one kind, whatever an item says.
        match device_update(update, &received, &Instances::default()) {
            Ok(_) => {}
            Err(RecordError::BadName(what, said)) => {
                self.find(&format!("rejected: a {what} that cannot be used"), Some(&said));
            }
            Err(RecordError::TooLong(what, _)) => self.find(&format!("rejected: a {what} that is too long"), None),
            Err(error @ RecordError::NoKey(..)) => self.find(&format!("rejected: {error}"), None),
        }
    }

    fn find(&mut self, reason: &str, example: Option<&str>) {
        let room = self.found.len() < MAX_FINDINGS || self.found.contains_key(reason);
        let reason = if room { reason } else { "something else" };
        let new = || Finding { reason: reason.to_owned(), example: example.map(cut), ..Finding::default() };
        let (found, last) = self.found.entry(reason.to_owned()).or_insert_with(|| (new(), 0));
        // An item with two bad addresses is one item.
        if *last != self.items {
            *last = self.items;
            found.items += 1;
            if found.first.len() < FIRST {
                found.first.push(self.items);
            }
        }
    }

    /// What was found, columns first, then what is wrong with most items.
    pub fn told(self) -> Vec<Finding> {
        let mut told = Vec::new();
        if self.items > 0 {
            let unread: Vec<&str> = self.unread.iter().map(String::as_str).take(8).collect();
            let others = match unread.as_slice() {
                [] => String::new(),
                unread => format!("; nothing reads {}", unread.join(", ")),
            };
            told.extend(self.missing.iter().map(|(column, of)| {
                let reason = format!("no item has `{}`, which the mapping reads {of} from{others}", cut(column));
                Finding { reason, ..Finding::default() }
            }));
        }
        let mut found: Vec<Finding> = self.found.into_values().map(|(found, _)| found).collect();
        found.sort_by(|a, b| b.items.cmp(&a.items).then_with(|| a.reason.cmp(&b.reason)));
        told.extend(found);
        told
    }
}

fn has(item: &Value, column: &str) -> bool {
    if column.starts_with('/') { item.pointer(column).is_some() } else { item.get(column).is_some() }
}

fn cut(text: &str) -> String {
    let end = (0..=SHOWN.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{Format, Whose, rows};

    fn told(mapping: &str, csv: &str) -> Vec<Finding> {
        let mapping = Mapping::read(mapping).unwrap();
        let mut findings = Findings::new(Some(&mapping));
        for item in rows(Format::Csv, csv.as_bytes(), None).unwrap() {
            findings.look(&item, &mapping.update(&item, &Whose::named("netbox")));
        }
        findings.told()
    }

    #[test]
    fn misspelt_columns_dirt_and_times_are_counted_and_listed() {
        let mapping = "id: Asset\nip: IP\nmac: MacAdress\nhostname: Name\ntime: Updated\ntime_format: \"%Y-%m-%d\"\n";
        let csv = "Asset,IP,MacAddress,Name,Updated\n1,10.0.0.1,x,a,2024-01-01\n2,300.0.0.1,x,b,yesterday\n\
                   ,10.0.0.3,x,c,2024-01-01\n4,10.0.0.4 oops oops,x,d,soon\n";
        let told = told(mapping, csv);
        let said: Vec<(&str, usize, &[usize])> =
            told.iter().map(|f| (f.reason.as_str(), f.items, f.first.as_slice())).collect();
        assert_eq!(
            said,
            [
                ("no item has `MacAdress`, which the mapping reads mac from; nothing reads MacAddress", 0, &[][..]),
                ("a time that cannot be read; when it is received counts instead", 2, &[2, 4]),
                ("an address that is none, or none of a device", 2, &[2, 4]),
                ("rejected: a netbox item without netbox_device_id", 1, &[3]),
            ]
        );
        assert_eq!(told[2].example.as_deref(), Some("300.0.0.1"));
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_clean_has_no_findings() {
        assert_eq!(told("id: a\nip: b\n", "a,b\n1,10.0.0.1\n"), []);
        let mut csv = "a,b\n".to_owned();
        for n in 0..1000 {
            csv += &format!("{n},{}\n", "é".repeat(100));
        }
        let told = told("id: a\nip: b\n", &csv);
        assert_eq!((told.len(), told[0].items, told[0].first.len()), (1, 1000, FIRST));
        assert!(told[0].example.as_ref().unwrap().len() <= SHOWN + 3);
    }
}
