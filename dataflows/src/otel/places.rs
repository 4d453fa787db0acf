//! What strangers bring and a share of a tenant remembers, within bounds that one of them cannot take for itself.
//!
//! Each thing is charged to who brought it first. Where all of them take too much, whoever has the most gives what was quiet
//! the longest, again and again until an eighth is free: who floods drives out its own, and others keep theirs as long
//! as they have less.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a thing takes beside itself, about: its key, and its place.
const OVERHEAD: usize = 160;

/// A thing that is remembered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Place<V> {
    /// Who brought it.
    from: String,
    /// When it was last heard of, live time.
    pub(super) heard_ms: i64,
    bytes: usize,
    /// It.
    pub(super) value: V,
}

/// All that is remembered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Places<K: Ord, V> {
    places: BTreeMap<K, Place<V>>,
    bytes: usize,
}

impl<K: Ord, V> Default for Places<K, V> {
    fn default() -> Self {
        Places { places: BTreeMap::new(), bytes: 0 }
    }
}

impl<K: Ord + Clone, V> Places<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.places.get(key).map(|place| &place.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Place<V>)> {
        self.places.iter()
    }

    /// Takes something in, or what is new of it; `size` says what it takes then.
    pub(super) fn hear(
        &mut self,
        key: K,
        (from, now_ms): (&str, i64),
        new: impl FnOnce() -> V,
        hear: impl FnOnce(&mut V),
        size: impl FnOnce(&V) -> usize,
    ) {
        let make = || Place { from: from.to_owned(), heard_ms: now_ms, bytes: 0, value: new() };
        let place = self.places.entry(key).or_insert_with(make);
        hear(&mut place.value);
        place.heard_ms = now_ms;
        self.bytes -= place.bytes;
        place.bytes = OVERHEAD + place.from.len() + size(&place.value);
        self.bytes += place.bytes;
    }

    /// Changes something that stays as large as it is.
    pub(super) fn update(&mut self, key: &K, change: impl FnOnce(&mut V)) {
        if let Some(place) = self.places.get_mut(key) {
            change(&mut place.value);
        }
    }

    pub(super) fn forget(&mut self, key: &K) {
        if let Some(place) = self.places.remove(key) {
            self.bytes -= place.bytes;
        }
    }

    /// What has to go until all of it takes so much, once it takes more than a limit.
    pub(super) fn excess_of(&self, limit: usize, most: usize) -> Vec<K> {
        if self.bytes > limit { self.excess(most) } else { Vec::new() }
    }

    /// What has to go where all of it may take so much.
    pub(super) fn excess(&self, most: usize) -> Vec<K> {
        if self.bytes <= most {
            return Vec::new();
        }
        let mut of: BTreeMap<&str, (usize, BTreeSet<(i64, &K)>)> = BTreeMap::new();
        for (key, place) in &self.places {
            let (bytes, all) = of.entry(&place.from).or_default();
            *bytes += place.bytes;
            all.insert((place.heard_ms, key));
        }
        let mut most_first: BTreeSet<(usize, &str)> = of.iter().map(|(from, (bytes, _))| (*bytes, *from)).collect();
        let (mut bytes, mut goes) = (self.bytes, Vec::new());
        while bytes > most / 8 * 7
            && let Some((has, from)) = most_first.pop_last()
        {
            let Some((_, key)) = of.get_mut(from).and_then(|(_, all)| all.pop_first()) else { continue };
            let takes = self.places[key].bytes;
            (bytes, _) = (bytes - takes, most_first.insert((has - takes, from)));
            goes.push(key.clone());
        }
        goes
    }
}
