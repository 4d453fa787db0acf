//! Sets that came before their template, in the order in which they came. Bounded in number and in bytes; what waited
//! for [`MAX_HELD_MS`] is given up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::MessageOrigin;

/// Sets waiting for templates, an exporter.
pub const MAX_HELD_SETS: usize = 2048;
/// Bytes of them, an exporter, each set with [`SET_OVERHEAD`].
pub const MAX_HELD_BYTES: usize = 256 << 10;
/// How long a set waits, milliseconds. Exporters say their templates again every few minutes.
pub const MAX_HELD_MS: i64 = 30 * 60_000;
/// What a set takes beside its bytes.
const SET_OVERHEAD: usize = 96;

/// A set that came before its template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldSet {
    /// The template it waits for.
    pub(super) template: u16,
    /// Export time of its message, seconds since 1970.
    pub(super) export_s: u32,
    /// v9: microseconds since 1970 at which the exporter started.
    pub(super) boot_us: Option<i64>,
    /// Its records.
    pub(super) body: Vec<u8>,
    /// Where in its message they begin: rows keep the name they would have had.
    pub(super) offset: u32,
    /// The message it came in.
    pub(super) origin: MessageOrigin,
    /// Since when it waits, milliseconds.
    pub(super) since_ms: i64,
}

impl HeldSet {
    fn bytes(&self) -> usize {
        SET_OVERHEAD + self.body.len()
    }
}

/// Sets waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// By the order in which they came.
    sets: BTreeMap<u64, HeldSet>,
    /// The same by template, so that a template costs what waits for it.
    by_template: BTreeSet<(u16, u64)>,
    next: u64,
    bytes: usize,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The set that waits the longest.
    pub(super) fn first(&self) -> Option<&HeldSet> {
        self.sets.first_key_value().map(|(_, set)| set)
    }

    /// Holds a set, if there is room.
    pub(super) fn push(&mut self, set: HeldSet) -> bool {
        if self.sets.len() >= MAX_HELD_SETS || self.bytes + set.bytes() > MAX_HELD_BYTES {
            return false;
        }
        self.bytes += set.bytes();
        self.by_template.insert((set.template, self.next));
        self.sets.insert(self.next, set);
        self.next += 1;
        true
    }

    /// The sets that waited for a template, in the order in which they came.
    pub(super) fn take(&mut self, template: u16) -> Vec<HeldSet> {
        let numbers: Vec<_> = self.by_template.range((template, 0)..=(template, u64::MAX)).copied().collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Gives up what has waited since `since_ms` or longer; says how many sets that were.
    pub(super) fn expire(&mut self, since_ms: i64) -> u32 {
        let mut given_up = 0;
        while let Some(first) = self.first().filter(|set| set.since_ms <= since_ms)
            && let Some((&number, _)) = self.sets.first_key_value()
        {
            self.remove((first.template, number));
            given_up += 1;
        }
        given_up
    }

    fn remove(&mut self, number: (u16, u64)) -> Option<HeldSet> {
        self.by_template.remove(&number);
        let set = self.sets.remove(&number.1)?;
        self.bytes -= set.bytes();
        Some(set)
    }
}
