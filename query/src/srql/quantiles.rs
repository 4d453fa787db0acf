//! Quantiles of many values in little memory (Manku, Rajagopalan, Lindsay: "Approximate Medians and other Quantiles in One Pass
//! and with Limited Memory", SIGMOD 1998). No chance is involved: the same values in the same order give the same answer.
//!
//! ```text
//! level 0   values as they came                 a level with BUFFER values is sorted, and every other one of them
//! level 1   values that stand for two each      goes up a level: by turns those at even places and those at odd ones
//! level 2   … for four
//! ```
//! Fewer than [`BUFFER`] values are all kept: quantiles are exact. Of more, to halve a level of values that stand for w each
//! moves ranks by w at most, by turns up and down, and needs BUFFER of them. So each level moves a rank by n / (2 · BUFFER) at
//! most, and all levels of n values by (log2(n / BUFFER) + 1) / (2 · BUFFER) of n: 0.083 % where n is a thousand million.
//! That holds for what is merged as well, but for half a step of each of those that are merged.

/// Values that a level has before it is halved.
pub(crate) const BUFFER: usize = 10_240;

#[derive(Clone, Debug, Default, PartialEq)]
struct Level {
    values: Vec<f64>,
    /// Whether those at odd places go up next.
    odd: bool,
}

/// Values, of which quantiles are asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantiles {
    levels: Vec<Level>,
    least: f64,
    greatest: f64,
    /// What the levels take.
    bytes: usize,
}

impl Default for Quantiles {
    fn default() -> Self {
        Quantiles { levels: Vec::new(), least: f64::INFINITY, greatest: f64::NEG_INFINITY, bytes: 0 }
    }
}

impl Quantiles {
    /// Takes a value.
    pub(crate) fn push(&mut self, value: f64) {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        (self.least, self.greatest) = (first(self.least, value), last(self.greatest, value));
        let values = &mut self.levels[0].values;
        let grows = values.len() == values.capacity();
        values.push(value);
        if values.len() >= BUFFER {
            self.halve();
        } else if grows {
            self.weigh();
        }
    }

    /// Takes what another one has.
    pub(crate) fn merge(&mut self, other: Parts<'_>) {
        let (Some((ends, mut values)), true) = (other.values.split_first_chunk::<2>(), !other.lengths.is_empty())
        else {
            return;
        };
        (self.least, self.greatest) = (first(self.least, ends[0]), last(self.greatest, ends[1]));
        for (at, len) in other.lengths.iter().enumerate() {
            if self.levels.len() <= at {
                self.levels.push(Level::default());
            }
            let (these, rest) = values.split_at((*len as usize).min(values.len()));
            self.levels[at].values.extend_from_slice(these);
            values = rest;
        }
        self.halve();
    }

    /// Halves every level that is full.
    fn halve(&mut self) {
        let mut at = 0;
        while at < self.levels.len() {
            if self.levels[at].values.len() >= BUFFER {
                let level = &mut self.levels[at];
                // What came up is in order, a part at a time.
                level.values.sort_by(f64::total_cmp);
                let whole = level.values.len() / 2 * 2;
                let kept: Vec<f64> =
                    level.values[..whole].iter().skip(usize::from(level.odd)).step_by(2).copied().collect();
                level.odd = !level.odd;
                level.values.drain(..whole);
                if at + 1 == self.levels.len() {
                    self.levels.push(Level::default());
                }
                self.levels[at + 1].values.extend(kept);
            }
            at += 1;
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        let values: usize = self.levels.iter().map(|level| level.values.capacity()).sum();
        self.bytes = values * size_of::<f64>() + self.levels.capacity() * size_of::<Level>();
    }

    /// The value below which a share of the values are, between two of them in proportion; none where there are no values.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let weighed = self.levels.iter().enumerate();
        let mut values: Vec<(f64, u64)> =
            weighed.flat_map(|(at, level)| level.values.iter().map(move |value| (*value, 1 << at))).collect();
        values.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        let count: u64 = values.iter().map(|(_, weight)| weight).sum();
        let (part, whole) = fraction(share);
        let rank = u128::from(count.checked_sub(1)?) * u128::from(part);
        let (rank, rest) = ((rank / u128::from(whole)) as u64, (rank % u128::from(whole)) as f64);
        let below = self.at(&values, count, rank)?;
        let above = if rest > 0.0 { self.at(&values, count, rank + 1)? } else { below };
        // Two equal ones are themselves, infinite ones too.
        Some(if below == above { below } else { below + (above - below) * rest / whole as f64 })
    }

    /// The value of a rank.
    fn at(&self, values: &[(f64, u64)], count: u64, rank: u64) -> Option<f64> {
        if rank == 0 {
            return Some(self.least);
        }
        if rank + 1 >= count {
            return Some(self.greatest);
        }
        let mut passed = 0;
        values
            .iter()
            .find(|(_, weight)| {
                passed += weight;
                passed > rank
            })
            .map(|(value, _)| *value)
    }

    /// Bytes that it takes, beside itself.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it, to be merged elsewhere: appends the values, and how many each level has.
    pub(crate) fn parts(&self, values: &mut Vec<f64>, lengths: &mut Vec<u32>) {
        if self.levels.is_empty() {
            return;
        }
        values.extend([self.least, self.greatest]);
        for level in &self.levels {
            values.extend_from_slice(&level.values);
            lengths.push(u32::try_from(level.values.len()).unwrap_or(u32::MAX));
        }
    }
}

/// Values of another one: its least and its greatest, then those of each level; and how many these are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'p> {
    pub(crate) values: &'p [f64],
    pub(crate) lengths: &'p [u32],
}

/// A share of one as it is written, to nine places: what 0.95 of 21 values is falls on one of them.
fn fraction(share: f64) -> (u64, u64) {
    const WHOLE: u64 = 1_000_000_000;
    let part = (share.clamp(0.0, 1.0) * WHOLE as f64).round() as u64;
    let (mut a, mut b) = (WHOLE, part);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    (part / a, WHOLE / a)
}

fn first(a: f64, b: f64) -> f64 {
    if b.total_cmp(&a).is_lt() { b } else { a }
}

fn last(a: f64, b: f64) -> f64 {
    if b.total_cmp(&a).is_gt() { b } else { a }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const SHARES: [f64; 11] = [0.0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0];

    fn of(values: &[f64]) -> Quantiles {
        let mut quantiles = Quantiles::default();
        values.iter().for_each(|value| quantiles.push(*value));
        quantiles
    }

    fn merged(parts: &[Quantiles]) -> Quantiles {
        let mut all = Quantiles::default();
        for part in parts {
            let (mut values, mut lengths) = (Vec::new(), Vec::new());
            part.parts(&mut values, &mut lengths);
            all.merge(Parts { values: &values, lengths: &lengths });
        }
        all
    }

    /// How far from where it should be a quantile is at most, as a share of all values.
    fn error(quantiles: &Quantiles, mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        let off = |share: f64| {
            let found = quantiles.quantile(share).unwrap();
            let (from, to) = (values.partition_point(|v| *v < found), values.partition_point(|v| *v <= found));
            let rank = share * (n - 1.0);
            (from as f64 - rank).max(rank - to as f64).max(0.0) / n
        };
        SHARES.into_iter().map(off).fold(0.0, f64::max)
    }

    #[test]
    fn ranks_are_right_to_a_thousandth_whatever_comes_in_whatever_order() {
        let n = 400_000;
        let mut rng = StdRng::seed_from_u64(18);
        let rising: Vec<f64> = (0..n).map(f64::from).collect();
        let falling: Vec<f64> = rising.iter().rev().copied().collect();
        let mut mixed = rising.clone();
        mixed.shuffle(&mut rng);
        let skewed: Vec<f64> = (0..n).map(|_| (1.0 / rng.random::<f64>()).floor()).collect();
        // From both ends to the middle.
        let inward: Vec<f64> = (0..n / 2).flat_map(|i| [f64::from(i), f64::from(n - i)]).collect();
        let few: Vec<f64> = (0..n).map(|i| f64::from(i % 7)).collect();
        for values in [rising, falling, mixed, skewed, inward, few] {
            let quantiles = of(&values);
            assert!(quantiles.bytes() < 1 << 20, "{}", quantiles.bytes());
            let parts: Vec<Quantiles> = values.chunks(30_001).map(of).collect();
            assert!(error(&merged(&parts), values.clone()) <= 0.001);
            assert!(error(&quantiles, values) <= 0.001);
        }
    }

    #[test]
    fn none_of_nothing_and_the_one_of_one() {
        assert_eq!(Quantiles::default().quantile(0.5), None);
        assert_eq!(of(&[7.0]).quantile(0.99), Some(7.0));
        assert_eq!(of(&[1.0, 2.0]).quantile(0.5), Some(1.5));
        assert_eq!(of(&[0.0, 1000.0, 50_000.0]).quantile(0.95), Some(45_100.0));
        assert_eq!(of(&[f64::INFINITY; 2]).quantile(0.3), Some(f64::INFINITY));
        assert_eq!(merged(&[Quantiles::default(), of(&[3.0])]).quantile(0.0), Some(3.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn few_values_are_exact(
            mut values in prop::collection::vec(-1e12..1e12f64, 1..3000),
            cut in any::<prop::sample::Index>(),
            share in 0.0..=1.0f64,
        ) {
            let (a, b) = values.split_at(cut.index(values.len()));
            let (whole, parts) = (of(&values), merged(&[of(a), of(b)]));
            values.sort_by(f64::total_cmp);
            let share = (share * 1e9).round() / 1e9;
            let rank = share * (values.len() - 1) as f64;
            let (below, above) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
            let exact = below + (above - below) * rank.fract();
            prop_assert_eq!(whole.quantile(share), parts.quantile(share));
            let found = whole.quantile(share).unwrap();
            prop_assert!((found - exact).abs() <= 1e-3, "{} {}", found, exact);
        }
    }
}
