//! The groups of a live query, kept by the rows that come and go.
//!
//! ```text
//! count, sum, avg       :- a number of values and their sum
//! min, max, distinct    :- the values, each with how often it is there
//! group                 :- is there while a row is
//! ```
//! A change costs what came and went, however many rows there are. What is kept of values is bounded ([`MAX_VALUES`]);
//! beyond it the query is asked again instead.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::compute::cast;
use arrow::row::{RowConverter, SortField};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::srql::plan::{Tallied, Tally};

/// Values that the groups of one query may keep, and sums.
pub(crate) const MAX_VALUES: usize = 4_000_000;

/// A group with its key, and a value with its count, in their tables; about, bytes.
const GROUP_BYTES: usize = 112;
const VALUE_BYTES: usize = 80;

/// Names a group: its keys, encoded.
pub(crate) type Key = Box<[u8]>;

/// What is kept of one aggregate of one group.
#[derive(Clone, Debug)]
enum Kept {
    Sum { count: i64, sum: i64 },
    Values(BTreeMap<Box<[u8]>, i64>),
}

/// A column that is counted.
enum Input<'a> {
    Numbers(&'a Int64Array),
    Counted(&'a ArrayRef),
    Values(&'a ArrayRef, arrow::row::Rows),
    /// Of rows that are alike: how many there are, and their sum.
    Sums(&'a Int64Array, &'a Int64Array),
}

#[derive(Clone, Debug)]
struct Group {
    rows: i64,
    kept: Vec<Kept>,
}

/// The groups of one query.
pub(crate) struct Groups {
    tallies: Vec<Tally>,
    keys: RowConverter,
    /// Of aggregates that keep their values.
    values: Vec<Option<RowConverter>>,
    /// Of the rows that tell of groups.
    schema: SchemaRef,
    names: Vec<String>,
    groups: HashMap<Key, Group>,
    /// Values kept.
    kept: usize,
}

impl Groups {
    /// No groups yet; a query without keys has its one from the beginning.
    pub(crate) fn new(of: &Tallied) -> Result<Groups, ArrowError> {
        let rows = of.frame.schema().as_arrow();
        let kinds = |from: usize, n: usize| (from..from + n).map(|i| rows.field(i).data_type().clone());
        let keys: Vec<DataType> = kinds(0, of.keys.len()).collect();
        let inputs: Vec<DataType> = kinds(of.keys.len(), of.tallies.len()).collect();
        let converter = |kind: &DataType| RowConverter::new(vec![SortField::new(kind.clone())]);
        let values = of.tallies.iter().zip(&inputs).map(|(tally, kind)| match tally {
            tally if tally.keeps_values() => converter(kind).map(Some),
            _ => Ok(None),
        });
        let told = of.tallies.iter().zip(&inputs).map(|(tally, kind)| match tally {
            Tally::Min | Tally::Max => kind.clone(),
            Tally::Avg => DataType::Float64,
            Tally::Count | Tally::Distinct | Tally::Sum => DataType::Int64,
        });
        let columns = of.keys.iter().chain(&of.aliases).zip(keys.iter().cloned().chain(told));
        let schema = Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).collect::<Vec<_>>());
        let mut groups = Groups {
            tallies: of.tallies.clone(),
            keys: RowConverter::new(keys.into_iter().map(SortField::new).collect())?,
            values: values.collect::<Result<_, _>>()?,
            schema: Arc::new(schema),
            names: of.keys.clone(),
            groups: HashMap::new(),
            kept: 0,
        };
        if of.keys.is_empty() {
            groups.groups.insert(Key::default(), groups.none());
        }
        Ok(groups)
    }

    fn none(&self) -> Group {
        let kept = self.values.iter().map(|values| match values {
            Some(_) => Kept::Values(BTreeMap::new()),
            None => Kept::Sum { count: 0, sum: 0 },
        });
        Group { rows: 0, kept: kept.collect() }
    }

    fn columns(&self) -> usize {
        self.schema.fields().len() - self.tallies.len()
    }

    /// The groups of some rows.
    pub(crate) fn of(&self, rows: &RecordBatch) -> Result<Vec<Key>, ArrowError> {
        let keys = &rows.columns()[..self.columns()];
        if keys.is_empty() {
            return Ok(vec![Key::default(); rows.num_rows()]);
        }
        Ok(self.keys.convert_columns(keys)?.iter().map(|row| row.as_ref().into()).collect())
    }

    /// Takes in rows that came (1) or went (-1).
    pub(crate) fn take(&mut self, rows: &RecordBatch, sign: i64) -> Result<(), ArrowError> {
        let inputs = &rows.columns()[self.columns()..];
        let mut columns = Vec::with_capacity(inputs.len());
        for ((values, tally), input) in self.values.iter().zip(&self.tallies).zip(inputs) {
            columns.push(match (values, tally) {
                (Some(values), _) => Input::Values(input, values.convert_columns(std::slice::from_ref(input))?),
                (None, Tally::Count) => Input::Counted(input),
                (None, _) => Input::Numbers(input.as_primitive::<Int64Type>()),
            });
        }
        self.count(rows, &columns, |_| sign)
    }

    /// Takes in rows that came, those that are alike once ([`Tallied::alike`]).
    pub(crate) fn take_alike(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let mut inputs = rows.columns()[self.columns()..].iter();
        let mut next = || inputs.next().ok_or_else(|| ArrowError::SchemaError("rows have too few columns".to_owned()));
        let mut columns = Vec::with_capacity(self.tallies.len());
        for values in &self.values {
            columns.push(match values {
                Some(values) => {
                    let input = next()?;
                    Input::Values(input, values.convert_columns(std::slice::from_ref(input))?)
                }
                None => {
                    let (count, sum) = (next()?, next()?);
                    Input::Sums(count.as_primitive::<Int64Type>(), sum.as_primitive::<Int64Type>())
                }
            });
        }
        let rows_alike = next()?.as_primitive::<Int64Type>();
        self.count(rows, &columns, |row| rows_alike.value(row))
    }

    /// Counts rows, each so many times.
    fn count(
        &mut self,
        rows: &RecordBatch,
        columns: &[Input<'_>],
        times: impl Fn(usize) -> i64,
    ) -> Result<(), ArrowError> {
        let keys = self.of(rows)?;
        let none = self.none();
        for (row, key) in keys.into_iter().enumerate() {
            let times = times(row);
            let group = self.groups.entry(key).or_insert_with(|| none.clone());
            group.rows += times;
            for (kept, input) in group.kept.iter_mut().zip(columns) {
                match (kept, input) {
                    (Kept::Sum { count, .. }, Input::Counted(values)) if values.is_valid(row) => *count += times,
                    (Kept::Sum { count, sum }, Input::Numbers(values)) if values.is_valid(row) => {
                        *count += times;
                        *sum = sum.wrapping_add(times.wrapping_mul(values.value(row)));
                    }
                    (Kept::Sum { count, sum }, Input::Sums(counts, sums)) => {
                        *count += counts.value(row);
                        // Of no values there is no sum.
                        *sum = sum.wrapping_add(if sums.is_valid(row) { sums.value(row) } else { 0 });
                    }
                    (Kept::Values(known), Input::Values(values, encoded)) if values.is_valid(row) => {
                        let value = encoded.row(row);
                        match known.get_mut(value.as_ref()) {
                            Some(n) if *n == -times => {
                                known.remove(value.as_ref());
                                self.kept -= 1;
                            }
                            Some(n) => *n += times,
                            None => {
                                known.insert(value.as_ref().into(), times);
                                self.kept += 1;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Forgets those of some groups that have no rows, once all that came and went is taken in.
    pub(crate) fn settle(&mut self, touched: &BTreeSet<Key>) {
        for key in touched {
            if self.columns() > 0 && self.groups.get(key).is_some_and(|group| group.rows == 0) {
                self.groups.remove(key);
            }
        }
    }

    /// The names of the keys.
    pub(crate) fn keys(&self) -> &[String] {
        &self.names
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether more is kept than may be.
    pub(crate) fn is_too_large(&self) -> bool {
        self.kept + self.groups.len() * self.tallies.len() > MAX_VALUES
    }

    /// What it takes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.len() * (GROUP_BYTES + self.tallies.len() * size_of::<Kept>()) + self.kept * VALUE_BYTES
    }

    /// The names of all groups.
    pub(crate) fn all(&self) -> BTreeSet<Key> {
        self.groups.keys().cloned().collect()
    }

    /// What is said of those of some groups that are there.
    pub(crate) fn told(&self, wanted: &BTreeSet<Key>) -> Result<RecordBatch, ArrowError> {
        let there: Vec<(&Key, &Group)> = wanted.iter().filter_map(|key| self.groups.get_key_value(key)).collect();
        let parser = self.keys.parser();
        let mut columns = match self.columns() {
            0 => Vec::new(),
            _ => self.keys.convert_rows(there.iter().map(|(key, _)| parser.parse(key)))?,
        };
        for (n, tally) in self.tallies.iter().enumerate() {
            let sums = there.iter().map(|(_, group)| match &group.kept[n] {
                Kept::Sum { count, sum } => (*count, *sum),
                Kept::Values(values) => (values.len() as i64, 0),
            });
            let some = |count: i64| count > 0;
            columns.push(match tally {
                Tally::Count | Tally::Distinct => Arc::new(sums.map(|(n, _)| n).collect::<Int64Array>()) as ArrayRef,
                Tally::Sum => Arc::new(sums.map(|(n, sum)| some(n).then_some(sum)).collect::<Int64Array>()) as ArrayRef,
                Tally::Avg => {
                    let mean = |(n, sum): (i64, i64)| some(n).then(|| sum as f64 / n as f64);
                    Arc::new(sums.map(mean).collect::<Float64Array>()) as ArrayRef
                }
                Tally::Min | Tally::Max => self.edge(n, *tally, &there)?,
            });
        }
        // Types that have several encodings may have come back as another one.
        let columns = columns.iter().zip(self.schema.fields()).map(|(c, field)| cast(c, field.data_type()));
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(there.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns.collect::<Result<_, _>>()?, &options)
    }

    /// The least, or greatest, value of each group.
    fn edge(&self, n: usize, tally: Tally, there: &[(&Key, &Group)]) -> Result<ArrayRef, ArrowError> {
        let converter = self.values[n].as_ref().expect("what has an edge keeps its values");
        let parser = converter.parser();
        let kind = self.schema.field(self.columns() + n).data_type();
        let missing = converter.convert_columns(&[arrow_array::new_null_array(kind, 1)])?;
        let edges = there.iter().map(|(_, group)| {
            let Kept::Values(values) = &group.kept[n] else { return missing.row(0) };
            let edge = if tally == Tally::Min { values.keys().next() } else { values.keys().next_back() };
            edge.map_or_else(|| missing.row(0), |edge| parser.parse(edge))
        });
        Ok(converter.convert_rows(edges)?.remove(0))
    }
}
