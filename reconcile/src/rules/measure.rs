//! What is counted of the rows of a group. A tally is merged with another in any order; that of current state is also undone.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use radarflow_language::ast::Aggregate;
use radarflow_language::catalog::{Entity, Kind};
use radarflow_language::cells::Cells;
use radarflow_language::error::SrqlError;
use radarflow_language::literals::{Number, number};
use radarflow_language::matching::{Filter, Rows, Target, plain_number};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rule::cut;

/// Numbers are counted in millionths, so that sums of fractions do not hang on the order of rows.
pub const MILLION: i128 = 1_000_000;
/// Different values that are told apart; of more, the number is about three percent off.
pub const MAX_DISTINCT: usize = 1024;
/// Bytes of a value that is kept as text; what is longer is cut.
const MAX_VALUE: usize = 1000;
/// Numbers that are counted are smaller, so that sums do not end: of larger ones nothing is counted.
const MAX_NUMBER: i128 = 1_000_000_000_000_000_000_000_000;
/// Values of a sketch: neighbours are two percent apart.
const GAMMA: f64 = 1.02;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Rows.
    Count,
    /// Different values.
    Distinct,
    /// Their sum.
    Sum,
    /// Their sum a second.
    Rate,
    /// Their mean.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The share below which so many millionths of them are.
    Percentile(u32),
    /// The value of the oldest row.
    First,
    /// The value of the newest row.
    Last,
    /// The value of the row, where each is a group.
    Field,
}

/// One measure of a rule.
#[derive(Clone, Debug)]
pub struct Measure {
    /// What it is called.
    pub alias: String,
    /// What is counted.
    pub function: Function,
    /// Of which field.
    pub target: Option<Target>,
    /// Of which rows alone.
    pub only: Option<Filter>,
}

impl Measure {
    /// A measure as a query says it, of events or of current state.
    ///
    /// # Errors
    /// It is not kept as rows come and go.
    pub fn of(call: &Aggregate, entity: &'static Entity, events: bool) -> Result<Self, SrqlError> {
        let target = call.field.as_ref().map(|key| Target::of(key, entity)).transpose()?;
        let function = match call.function.as_str() {
            "count" => Function::Count,
            "count_distinct" => Function::Distinct,
            "sum" => Function::Sum,
            "rate" if events => Function::Rate,
            "avg" => Function::Avg,
            "min" => Function::Min,
            "max" => Function::Max,
            "median" if events => Function::Percentile(500_000),
            "percentile" if events => Function::Percentile((call.quantile.unwrap_or(0.5) * 1e6) as u32),
            "first" if events => Function::First,
            "last" if events => Function::Last,
            other => {
                let detail = format!("{other} is not kept as rows come and go; a rule cannot ask for it");
                return Err(SrqlError::new("not_followed", call.span, detail));
            }
        };
        let numbers = !matches!(function, Function::Count | Function::Distinct | Function::First | Function::Last);
        if let Some(target) = target.as_ref().filter(|_| numbers) {
            let is_number = target.kind == Kind::Number || (target.kind == Kind::Text && target.key.is_some());
            if !is_number {
                let detail = format!("{} is {}, not a number", target.column, target.kind.name());
                return Err(SrqlError::new("not_a_number", call.span, detail));
            }
        }
        let only = call.only.as_ref().map(|only| Filter::of(only, entity)).transpose()?;
        Ok(Measure { alias: call.alias.clone(), function, target, only })
    }

    /// The measure over a batch.
    pub fn over<'a>(&'a self, batch: &'a RecordBatch) -> Measured<'a> {
        let cells = self.target.as_ref().map_or(Cells::Missing, |target| Cells::of(batch, target.column));
        Measured { measure: self, cells, only: self.only.as_ref().map(|only| only.over(batch)) }
    }

    /// Nothing counted.
    pub fn nothing(&self) -> Tally {
        match self.function {
            Function::Count => Tally::Count(0),
            Function::Sum | Function::Rate => Tally::Sum(0),
            Function::Avg => Tally::Mean(0, 0),
            Function::Min => Tally::Least(None),
            Function::Max => Tally::Greatest(None),
            Function::Distinct => Tally::Distinct(BTreeSet::new()),
            Function::Percentile(_) => Tally::Sketch(BTreeMap::new()),
            Function::First => Tally::First(None),
            Function::Last | Function::Field => Tally::Last(None),
        }
    }

    /// What a tally comes to, over a span of so many milliseconds.
    pub fn value(&self, tally: &Tally, span_ms: i64) -> Value {
        let number = |millionths: i128| Value::Number(millionths_as_number(millionths));
        match (self.function, tally) {
            (Function::Rate, Tally::Sum(sum)) => {
                Value::Number(Number::of_real(*sum as f64 / MILLION as f64 / (span_ms.max(1) as f64 / 1000.0)))
            }
            (_, Tally::Count(n)) => Value::Number(Number::Whole(i128::from(*n))),
            (_, Tally::Sum(sum)) => number(*sum),
            (
                _,
                Tally::Mean(_, 0) | Tally::Least(None) | Tally::Greatest(None) | Tally::First(None) | Tally::Last(None),
            ) => Value::Missing,
            (_, Tally::Mean(sum, n)) => Value::Number(Number::of_real(*sum as f64 / MILLION as f64 / *n as f64)),
            (_, Tally::Least(Some(n)) | Tally::Greatest(Some(n))) => number(*n),
            (_, Tally::Distinct(values)) => Value::Number(Number::Whole(different(values))),
            (Function::Percentile(share), Tally::Sketch(sketch)) => quantile(sketch, share),
            (_, Tally::First(Some((_, text))) | Tally::Last(Some((_, text)))) => Value::of_text(text),
            (function, Tally::Many(values)) => of_many(function, values),
            (_, Tally::Sketch(_)) => Value::Missing,
        }
    }
}

/// How many different values: as many as there are hashes; where only the least hashes are kept, as many as lie that close
/// together (k minimum values; Bar-Yossef et al. 2002).
fn different(hashes: &BTreeSet<u64>) -> i128 {
    match hashes.last() {
        Some(last) if hashes.len() == MAX_DISTINCT => {
            let share = (*last as f64 + 1.0) / 2f64.powi(64);
            ((MAX_DISTINCT - 1) as f64 / share) as i128
        }
        _ => hashes.len() as i128,
    }
}

fn of_many(function: Function, values: &BTreeMap<Kept, i64>) -> Value {
    let one = |kept: Option<&Kept>| match kept {
        Some(Kept::Number(n)) => Value::Number(millionths_as_number(*n)),
        Some(Kept::Text(text)) => Value::Text(text.clone()),
        None => Value::Missing,
    };
    match function {
        Function::Distinct => Value::Number(Number::Whole(values.len() as i128)),
        Function::Min | Function::First => one(values.keys().next()),
        _ => one(values.keys().next_back()),
    }
}

fn millionths_as_number(n: i128) -> Number {
    match n % MILLION {
        0 => Number::Whole(n / MILLION),
        _ => Number::Part(n.div_euclid(MILLION), n as f64 / MILLION as f64),
    }
}

/// A float as a number, if it is one.
pub(super) fn real(n: f64) -> Number {
    Number::of_real(n)
}

/// A number in millionths, as near as they come.
fn millionths(n: Number) -> Option<i128> {
    match n {
        Number::Whole(n) => (n.abs() < MAX_NUMBER).then_some(n * MILLION),
        n => (n.real().abs() < MAX_NUMBER as f64).then(|| (n.real() * MILLION as f64).round() as i128),
    }
}

/// The place of a number among those of a sketch.
fn place(millionths: i128) -> i32 {
    let log = |n: i128| ((n as f64).ln() / GAMMA.ln()).ceil() as i32 + 1;
    match millionths {
        0 => 0,
        n if n > 0 => log(n),
        n => -log(-n),
    }
}

fn quantile(sketch: &BTreeMap<i32, u64>, share: u32) -> Value {
    let all: u64 = sketch.values().sum();
    if all == 0 {
        return Value::Missing;
    }
    let rank = (u128::from(all - 1) * u128::from(share)).div_ceil(1_000_000) as u64;
    let mut before = 0;
    let found = sketch.iter().find(|(_, n)| {
        before += **n;
        before > rank
    });
    let of = |place: i32| GAMMA.powi(place - 1) * 2.0 / (1.0 + GAMMA) / MILLION as f64;
    Value::Number(Number::of_real(match found.map(|(place, _)| *place) {
        None | Some(0) => 0.0,
        Some(place @ 1..) => of(place),
        Some(place) => -of(-place),
    }))
}

/// What a measure comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Missing,
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
}

impl Value {
    /// A text, which may be a number.
    pub fn of_text(text: &str) -> Self {
        number(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number)
    }

    /// As near as a float comes, if it is a number.
    pub fn real(&self) -> Option<f64> {
        match self {
            Value::Number(n) => Some(n.real()),
            _ => None,
        }
    }

    /// As people read it.
    pub fn shown(&self) -> String {
        match self {
            Value::Missing => String::new(),
            Value::Number(Number::Whole(n)) => n.to_string(),
            Value::Number(n) => {
                let text = format!("{:.3}", n.real());
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Value::Text(text) => text.clone(),
        }
    }
}

/// A value of current state that is kept as often as it is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kept {
    /// A number, in millionths.
    Number(i128),
    /// A text.
    Text(String),
}

/// What was counted so far.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tally {
    /// Rows.
    Count(i64),
    /// The sum, in millionths.
    Sum(i128),
    /// The sum, in millionths, and of how many.
    Mean(i128, i64),
    /// The least, in millionths.
    Least(Option<i128>),
    /// The greatest, in millionths.
    Greatest(Option<i128>),
    /// Hashes of values.
    Distinct(BTreeSet<u64>),
    /// How many are about so large.
    Sketch(BTreeMap<i32, u64>),
    /// The time of the oldest row, microseconds, and its value; of equal times the least.
    First(Option<(i64, String)>),
    /// The time of the newest row, microseconds, and its value; of equal times the greatest.
    Last(Option<(i64, String)>),
    /// Values of current state, as often as they are there.
    Many(BTreeMap<Kept, i64>),
}

impl Tally {
    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let inside = match self {
            Tally::Distinct(hashes) => hashes.len() * 12,
            Tally::Sketch(places) => places.len() * 18,
            Tally::First(Some((_, text))) | Tally::Last(Some((_, text))) => text.len(),
            Tally::Many(values) => values.len() * 64,
            _ => 0,
        };
        size_of::<Tally>() + inside
    }

    /// Takes in another of the same measure.
    pub fn merge(&mut self, other: Tally) {
        match (self, other) {
            (Tally::Count(a), Tally::Count(b)) => *a = a.saturating_add(b),
            (Tally::Sum(a), Tally::Sum(b)) => *a = a.saturating_add(b),
            (Tally::Mean(a, n), Tally::Mean(b, m)) => (*a, *n) = (a.saturating_add(b), n.saturating_add(m)),
            (Tally::Least(a), Tally::Least(b)) => *a = a.iter().copied().chain(b).min(),
            (Tally::Greatest(a), Tally::Greatest(b)) => *a = (*a).max(b),
            (Tally::Distinct(a), Tally::Distinct(b)) => {
                a.extend(b);
                // Which are kept does not hang on the order.
                while a.len() > MAX_DISTINCT {
                    a.pop_last();
                }
            }
            (Tally::Sketch(a), Tally::Sketch(b)) => {
                b.into_iter().for_each(|(place, n)| *a.entry(place).or_default() += n);
            }
            (Tally::First(a), Tally::First(b)) => *a = a.take().into_iter().chain(b).min(),
            (Tally::Last(a), Tally::Last(b)) => *a = a.take().max(b),
            (Tally::Many(a), Tally::Many(b)) => {
                for (value, n) in b {
                    let count = a.entry(value.clone()).or_default();
                    *count += n;
                    if *count == 0 {
                        a.remove(&value);
                    }
                }
            }
            // Tallies of one measure are of one kind; those of an earlier form of the rule were given up with it.
            _ => {}
        }
    }
}

/// A measure over one batch.
pub struct Measured<'a> {
    measure: &'a Measure,
    cells: Cells<'a>,
    only: Option<Rows<'a>>,
}

impl Measured<'_> {
    fn number(&self, row: usize) -> Option<i128> {
        let key = self.measure.target.as_ref().and_then(|target| target.key.as_deref());
        let n = match key {
            Some(key) => plain_number(self.cells.below(row, key)?)?,
            None => self.cells.number(row)?,
        };
        millionths(n)
    }

    fn label(&self, row: usize) -> Option<String> {
        let key = self.measure.target.as_ref().and_then(|target| target.key.as_deref());
        let text = match key {
            Some(key) => self.cells.below(row, key).map(str::to_owned),
            None => self.cells.label(row),
        };
        text.map(|text| cut(text, MAX_VALUE))
    }

    /// What a row of an event adds; nothing where the measure is not of it.
    pub fn add(&self, tally: &mut Tally, row: usize, at_us: i64) {
        if self.only.as_ref().is_some_and(|only| !only.matches(row)) {
            return;
        }
        let more = match tally {
            Tally::Count(_) if self.measure.target.is_none() => Some(Tally::Count(1)),
            Tally::Count(_) => self.label(row).map(|_| Tally::Count(1)),
            Tally::Sum(_) => self.number(row).map(Tally::Sum),
            Tally::Mean(..) => self.number(row).map(|n| Tally::Mean(n, 1)),
            Tally::Least(_) => self.number(row).map(|n| Tally::Least(Some(n))),
            Tally::Greatest(_) => self.number(row).map(|n| Tally::Greatest(Some(n))),
            Tally::Distinct(_) => self.label(row).map(|text| Tally::Distinct([hash(&text)].into())),
            Tally::Sketch(_) => self.number(row).map(|n| Tally::Sketch([(place(n), 1)].into())),
            Tally::First(_) => self.label(row).map(|text| Tally::First(Some((at_us, text)))),
            Tally::Last(_) => self.label(row).map(|text| Tally::Last(Some((at_us, text)))),
            Tally::Many(_) => None,
        };
        if let Some(more) = more {
            tally.merge(more);
        }
    }

    /// What a row of current state adds as often as `diff` says, which may be less than nothing.
    pub fn standing(&self, row: usize, diff: i64) -> Tally {
        let counts = self.only.as_ref().is_none_or(|only| only.matches(row));
        let number = || self.number(row).filter(|_| counts);
        match self.measure.function {
            Function::Count => {
                let there = counts && (self.measure.target.is_none() || self.label(row).is_some());
                Tally::Count(if there { diff } else { 0 })
            }
            Function::Sum | Function::Rate => Tally::Sum(number().unwrap_or(0) * i128::from(diff)),
            Function::Avg => number().map_or(Tally::Mean(0, 0), |n| Tally::Mean(n * i128::from(diff), diff)),
            Function::Min | Function::Max | Function::Percentile(_) => {
                Tally::Many(number().map(|n| (Kept::Number(n), diff)).into_iter().collect())
            }
            Function::Distinct | Function::First | Function::Last | Function::Field => {
                let text = self.label(row).filter(|_| counts);
                Tally::Many(text.map(|text| (Kept::Text(text), diff)).into_iter().collect())
            }
        }
    }
}

/// A value as a number of 64 bits that nobody finds another value for.
fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |n, byte| (n << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percentile(values: &[i64], share: f64) -> f64 {
        let mut sketch = BTreeMap::new();
        for value in values {
            *sketch.entry(place(i128::from(*value) * MILLION)).or_default() += 1;
        }
        quantile(&sketch, (share * 1e6) as u32).real().unwrap()
    }

    #[test]
    fn a_sketch_is_one_percent_off_at_most() {
        let values: Vec<i64> = (1..=1000).collect();
        for (share, is) in [(0.0, 1.0), (0.5, 501.0), (0.95, 951.0), (0.99, 991.0), (1.0, 1000.0)] {
            let about = percentile(&values, share);
            assert!((about - is).abs() <= is * 0.0101, "{share}: {about}, not {is}");
        }
        assert_eq!(percentile(&[0, 0, 0], 0.5), 0.0);
        assert!((percentile(&[-100, -50], 0.0) + 100.0).abs() < 1.01);
    }

    proptest! {
        /// Parts are merged in any order.
        #[test]
        fn order_does_not_matter(values in prop::collection::vec((0i64..50, -20i64..20), 1..60), turn in 0usize..60) {
            let all = |values: &[(i64, i64)]| {
                let mut tallies = vec![
                    Tally::Count(0), Tally::Sum(0), Tally::Mean(0, 0), Tally::Least(None), Tally::Greatest(None),
                    Tally::Distinct(BTreeSet::new()), Tally::Sketch(BTreeMap::new()), Tally::First(None), Tally::Last(None),
                ];
                for (at, value) in values {
                    let n = i128::from(*value) * MILLION / 3;
                    let text = value.to_string();
                    let parts = [
                        Tally::Count(1), Tally::Sum(n), Tally::Mean(n, 1), Tally::Least(Some(n)), Tally::Greatest(Some(n)),
                        Tally::Distinct([hash(&text)].into()), Tally::Sketch([(place(n), 1)].into()),
                        Tally::First(Some((*at, text.clone()))), Tally::Last(Some((*at, text))),
                    ];
                    tallies.iter_mut().zip(parts).for_each(|(tally, part)| tally.merge(part));
                }
                tallies
            };
            let mut turned = values.clone();
            turned.rotate_left(turn % values.len());
            prop_assert_eq!(all(&values), all(&turned));
        }
    }
}
