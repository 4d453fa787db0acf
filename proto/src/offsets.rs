//! Which offsets of a feed are durable.
//!
//! A feed with offsets of its own (a Kafka partition, a JetStream consumer) may say a message again, and not always in
//! order. What is durable is a set of disjoint intervals; nearly always it is one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Intervals kept. Beyond it the two lowest become one: they are long acknowledged by then.
pub const MAX_INTERVALS: usize = 32_768;

/// A set of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets(BTreeMap<u64, u64>);

impl Offsets {
    /// Adds `from..to`.
    pub fn insert(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        if let Some((&start, &end)) = self.0.range(..=from).next_back()
            && end >= from
        {
            (from, to) = (start, to.max(end));
        }
        while let Some((&start, &end)) = self.0.range(from..=to).next() {
            to = to.max(end);
            self.0.remove(&start);
        }
        self.0.insert(from, to);
        while self.0.len() > MAX_INTERVALS {
            if let (Some((low, _)), Some((_, end))) = (self.0.pop_first(), self.0.pop_first()) {
                self.0.insert(low, end);
            }
        }
    }

    /// Whether it holds the offset.
    pub fn contains(&self, offset: u64) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, end)| *end > offset)
    }

    /// The first offset at or after `from` that it does not hold.
    pub fn next_after(&self, from: u64) -> u64 {
        self.0.range(..=from).next_back().map_or(from, |(_, end)| from.max(*end))
    }

    /// The end of the last interval; 0 while it is empty.
    pub fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_added(added in prop::collection::vec((0u64..60, 0u64..12), 0..40)) {
            let (mut offsets, mut plain) = (Offsets::default(), BTreeSet::new());
            for (from, length) in added {
                offsets.insert(from, from + length);
                plain.extend(from..from + length);
            }
            for offset in 0..80 {
                prop_assert_eq!(offsets.contains(offset), plain.contains(&offset));
                prop_assert_eq!(offsets.next_after(offset), (offset..).find(|o| !plain.contains(o)).unwrap_or(0));
            }
            prop_assert_eq!(offsets.end(), plain.last().map_or(0, |o| o + 1));
            let apart = offsets.0.iter().zip(offsets.0.iter().skip(1)).all(|((_, end), (start, _))| end < start);
            prop_assert!(apart);
        }
    }
}
