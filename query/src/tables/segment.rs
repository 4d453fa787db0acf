//! A part of a state table: rows that never change, in chunks of one size, and a bitmap of those that are gone.
//!
//! Chunks are small, so that a plan shares them between its parts and gives way between them. Whoever asks for one value
//! of a column that tells rows apart, or of a key of a map, finds its rows by an index, which is made when it is first
//! asked for.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{BatchCoalescer, filter_record_batch, interleave_record_batch};
use arrow_array::{Array, MapArray, RecordBatch, StringArray};
use arrow_schema::{ArrowError, SchemaRef};

/// Rows of a chunk; the last has fewer.
pub(crate) const CHUNK: usize = 1 << 13;
/// What it takes to find a row by its key, about: the key, twice a pointer to it, and its place.
const KEY_BYTES: usize = 120;
/// Columns that tell rows apart.
const INDEXED: [&str; 12] = [
    "uid",
    "device_uid",
    "ip",
    "mac",
    "hostname",
    "identifier_value",
    "id",
    "from_uid",
    "to_uid",
    "record",
    "link_id",
    "ip_uid",
];

/// Keys of maps that are indexed at a time: those that were asked for last.
const MAX_KEYS: usize = 8;

/// Whether one value of a column is found without looking at all.
pub(crate) fn is_indexed(column: &str) -> bool {
    INDEXED.contains(&column)
}

/// Where the values of a column are: by their hash, in order.
#[derive(Debug)]
struct Index(Vec<(u32, u32)>);

fn hash(text: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish() as u32
}

impl Index {
    fn build<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Index {
        let texts = texts.enumerate();
        let mut places: Vec<(u32, u32)> = texts.filter_map(|(row, text)| Some((hash(text?), row as u32))).collect();
        places.sort_unstable();
        Index(places)
    }

    fn rows<'a>(&'a self, value: &str) -> impl Iterator<Item = usize> + 'a {
        let wanted = hash(value);
        let from = self.0.partition_point(|(hash, _)| *hash < wanted);
        self.0[from..].iter().take_while(move |(hash, _)| *hash == wanted).map(|(_, row)| *row as usize)
    }
}

/// Indexes by column and key of a map, those asked for last at the end.
type OfKeys = Mutex<Vec<((usize, String), Arc<OnceLock<Index>>)>>;

/// The value that a map has at a key.
fn at_key<'a>(map: &'a MapArray, row: usize, key: &str) -> Option<&'a str> {
    let (keys, values) = (map.keys().as_string_opt::<i32>()?, map.values().as_string_opt::<i32>()?);
    let entries = map.value_offsets()[row] as usize..map.value_offsets()[row + 1] as usize;
    let at = entries.into_iter().find(|at| keys.value(*at) == key && map.is_valid(row))?;
    values.is_valid(at).then(|| values.value(at))
}

/// Which rows of a chunk are gone.
type Dead = Arc<[u64; CHUNK / 64]>;

/// A part of a table.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    schema: SchemaRef,
    chunks: Arc<Vec<RecordBatch>>,
    rows: usize,
    /// Rows that are gone, by chunk: a version copies those of the chunks that it changes.
    dead: Arc<Vec<Option<Dead>>>,
    pub(crate) live: usize,
    indexes: Arc<[OnceLock<Index>; INDEXED.len()]>,
    of_keys: Arc<OfKeys>,
}

impl Segment {
    /// Rows of several batches.
    pub(crate) fn new(schema: &SchemaRef, batches: impl IntoIterator<Item = RecordBatch>) -> Result<Self, ArrowError> {
        let mut chunks = BatchCoalescer::new(schema.clone(), CHUNK).with_biggest_coalesce_batch_size(None);
        let mut rows = 0;
        for batch in batches {
            rows += batch.num_rows();
            chunks.push_batch(batch)?;
        }
        chunks.finish_buffered_batch()?;
        let chunks: Vec<RecordBatch> = std::iter::from_fn(|| chunks.next_completed_batch()).collect();
        Ok(Segment {
            schema: schema.clone(),
            chunks: Arc::new(chunks),
            rows,
            dead: Arc::default(),
            live: rows,
            indexes: Arc::default(),
            of_keys: Arc::default(),
        })
    }

    /// What it takes, bytes, about: its rows, its indexes, and that its rows are found by their key.
    pub(crate) fn bytes(&self) -> usize {
        let rows: usize = self.chunks.iter().map(RecordBatch::get_array_memory_size).sum();
        let of_keys = self.of_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let places = self.indexes.iter().chain(of_keys.iter().map(|(_, index)| &**index)).filter_map(OnceLock::get);
        let places: usize = places.map(|index| size_of_val(&*index.0)).sum();
        let dead = self.dead.iter().flatten().count() * CHUNK / 8;
        rows + places + dead + self.rows * KEY_BYTES
    }

    /// Rows, those that are gone among them.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// A row is gone.
    pub(crate) fn bury(&mut self, row: usize) {
        let dead = Arc::make_mut(&mut self.dead);
        dead.resize(self.chunks.len(), None);
        let dead = dead[row / CHUNK].get_or_insert_with(|| Arc::new([0; CHUNK / 64]));
        Arc::make_mut(dead)[row % CHUNK / 64] |= 1 << (row % 64);
        self.live -= 1;
    }

    /// Whether a row is gone.
    pub(crate) fn is_dead(&self, row: usize) -> bool {
        let dead = self.dead.get(row / CHUNK).and_then(Option::as_ref);
        dead.is_some_and(|dead| dead[row % CHUNK / 64] & (1 << (row % 64)) != 0)
    }

    /// The rows there are, chunk by chunk.
    pub(crate) fn batches(&self, projection: Option<&[usize]>) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut batches = Vec::with_capacity(self.chunks.len());
        for (n, chunk) in self.chunks.iter().enumerate() {
            let chunk = match projection {
                Some(columns) => chunk.project(columns)?,
                None => chunk.clone(),
            };
            if self.dead.get(n).is_some_and(Option::is_some) {
                let live = (0..chunk.num_rows()).map(|row| Some(!self.is_dead(n * CHUNK + row)));
                let mask: BooleanArray = live.collect();
                batches.push(filter_record_batch(&chunk, &mask)?);
            } else {
                batches.push(chunk);
            }
        }
        Ok(batches)
    }

    fn texts(&self, column: usize) -> impl Iterator<Item = &StringArray> {
        self.chunks.iter().filter_map(move |c| c.column(column).as_any().downcast_ref())
    }

    /// The rows whose text column has one of these values, in order; nothing where only a scan can tell.
    pub(crate) fn find(&self, column: &str, values: &BTreeSet<&str>) -> Option<Vec<usize>> {
        let place = self.schema.index_of(column).ok()?;
        let index = INDEXED.iter().position(|indexed| *indexed == column)?;
        let index = self.indexes[index].get_or_init(|| Index::build(self.texts(place).flatten()));
        Some(self.look_up(index, values, |row| self.text(place, row)))
    }

    /// The rows whose map column has one of these values at a key, in order; nothing where it is no map.
    pub(crate) fn find_at(&self, column: &str, key: &str, values: &BTreeSet<&str>) -> Option<Vec<usize>> {
        let place = self.schema.index_of(column).ok()?;
        let maps: Vec<&MapArray> = self.chunks.iter().map(|c| c.column(place).as_map_opt()).collect::<Option<_>>()?;
        let index = {
            let mut known = self.of_keys.lock().unwrap_or_else(PoisonError::into_inner);
            let at = known.iter().position(|((column, k), _)| *column == place && k == key);
            let index = at.map_or_else(Arc::default, |at| known.remove(at).1);
            if known.len() >= MAX_KEYS {
                known.remove(0);
            }
            known.push(((place, key.to_owned()), index.clone()));
            index
        };
        let texts = || maps.iter().flat_map(|map| (0..map.len()).map(move |row| at_key(map, row, key)));
        let index = index.get_or_init(|| Index::build(texts()));
        Some(self.look_up(index, values, |row| at_key(maps[row / CHUNK], row % CHUNK, key)))
    }

    /// The rows there are that have one of these texts, in order.
    fn look_up<'a>(
        &'a self,
        index: &Index,
        values: &BTreeSet<&str>,
        text: impl Fn(usize) -> Option<&'a str>,
    ) -> Vec<usize> {
        let places = values.iter().flat_map(|value| index.rows(value).map(move |row| (row, *value)));
        let found = places.filter(|(row, value)| !self.is_dead(*row) && text(*row) == Some(value));
        let mut found: Vec<usize> = found.map(|(row, _)| row).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn text(&self, column: usize, row: usize) -> Option<&str> {
        let texts: &StringArray = self.chunks[row / CHUNK].column(column).as_any().downcast_ref()?;
        texts.is_valid(row % CHUNK).then(|| texts.value(row % CHUNK))
    }

    /// The same by looking at every row.
    pub(crate) fn scan(&self, column: &str, values: &BTreeSet<&str>) -> Vec<usize> {
        let Ok(place) = self.schema.index_of(column) else { return Vec::new() };
        let there = |row: &usize| !self.is_dead(*row) && self.text(place, *row).is_some_and(|t| values.contains(t));
        (0..self.rows).filter(there).collect()
    }

    /// Some rows, as a batch.
    pub(crate) fn take(&self, rows: &[usize], projection: Option<&[usize]>) -> Result<RecordBatch, ArrowError> {
        if rows.is_empty() {
            let schema =
                projection.map_or(Ok(self.schema.clone()), |columns| self.schema.project(columns).map(Arc::new));
            return Ok(RecordBatch::new_empty(schema?));
        }
        // Only the chunks that have some are looked at; rows are in order.
        let (mut chunks, mut places, mut last) = (Vec::new(), Vec::with_capacity(rows.len()), None);
        for row in rows {
            let chunk = row / CHUNK;
            if last != Some(chunk) {
                last = Some(chunk);
                chunks.push(match projection {
                    Some(columns) => self.chunks[chunk].project(columns)?,
                    None => self.chunks[chunk].clone(),
                });
            }
            places.push((chunks.len() - 1, row % CHUNK));
        }
        interleave_record_batch(&chunks.iter().collect::<Vec<_>>(), &places)
    }

    /// A row's chunk and its place there.
    pub(crate) fn at(&self, row: usize) -> (&RecordBatch, usize) {
        (&self.chunks[row / CHUNK], row % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{MapBuilder, StringBuilder};
    use arrow_schema::{DataType, Field, Schema};

    fn texts(values: &[Option<String>]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("ip", DataType::Utf8, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(values.to_vec()))]).unwrap()
    }

    #[test]
    fn what_is_found_by_index_is_what_a_scan_finds() {
        let value = |n: usize| (!n.is_multiple_of(7)).then(|| (n % 5000).to_string());
        let rows: Vec<Option<String>> = (0..3 * CHUNK + 5).map(value).collect();
        let parts = rows.chunks(1000).map(texts);
        let mut segment = Segment::new(&texts(&[]).schema(), parts).unwrap();
        assert_eq!((segment.chunks.len(), segment.len()), (4, rows.len()));
        for row in [1, CHUNK, CHUNK + 1, 3 * CHUNK + 4] {
            segment.bury(row);
        }
        for values in [BTreeSet::from(["1", "16384"]), BTreeSet::from(["4"]), BTreeSet::from(["none"])] {
            let found = segment.find("ip", &values).unwrap();
            assert_eq!(found, segment.scan("ip", &values));
            let taken = segment.take(&found, None).unwrap();
            assert_eq!(taken.num_rows(), found.len());
        }
        let there: usize = segment.batches(None).unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!((there, segment.live), (rows.len() - 4, rows.len() - 4));
        assert!(segment.find("hostname", &BTreeSet::new()).is_none());
    }

    #[test]
    fn a_version_copies_what_is_gone_of_the_chunks_that_it_changes() {
        let rows: Vec<Option<String>> = (0..10 * CHUNK).map(|n| Some(n.to_string())).collect();
        let mut segment = Segment::new(&texts(&[]).schema(), [texts(&rows)]).unwrap();
        (0..10).for_each(|chunk| segment.bury(chunk * CHUNK));
        let before = segment.clone();
        segment.bury(3 * CHUNK + 64);
        let same = |n: usize| Arc::ptr_eq(before.dead[n].as_ref().unwrap(), segment.dead[n].as_ref().unwrap());
        assert_eq!((0..10).filter(|n| !same(*n)).collect::<Vec<_>>(), [3]);
        assert!(segment.is_dead(3 * CHUNK + 64) && !before.is_dead(3 * CHUNK + 64) && segment.is_dead(3 * CHUNK));
        assert_eq!((before.live, segment.live), (10 * CHUNK - 10, 10 * CHUNK - 11));
    }

    #[test]
    fn what_a_map_has_at_a_key_is_found() {
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        let rows = CHUNK + 100;
        let value = |row: usize| (!row.is_multiple_of(3)).then(|| (row % 1000).to_string());
        for row in 0..rows {
            for (key, value) in [("other", Some("5".to_owned())), ("id", value(row)), ("gone", None)] {
                if key != "id" || row.is_multiple_of(2) {
                    maps.keys().append_value(key);
                    maps.values().append_option(value);
                }
            }
            maps.append(row != 8).unwrap();
        }
        let maps = maps.finish();
        let schema = Arc::new(Schema::new(vec![Field::new("metadata", maps.data_type().clone(), true)]));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(maps)]).unwrap();
        let mut segment = Segment::new(&schema, [batch]).unwrap();
        segment.bury(4);
        let there = |row: &usize| row.is_multiple_of(2) && value(*row).is_some() && ![4, 8].contains(row);
        for wanted in ["4", "8", "10", "1007", "none"] {
            let expected: Vec<usize> =
                (0..rows).filter(there).filter(|row| value(*row).as_deref() == Some(wanted)).collect();
            assert_eq!(segment.find_at("metadata", "id", &BTreeSet::from([wanted])).unwrap(), expected, "{wanted}");
        }
        // As many keys as may be are remembered; those that are not are found all the same.
        for n in 0..3 * MAX_KEYS {
            let none = segment.find_at("metadata", &format!("key-{n}"), &BTreeSet::from(["5"])).unwrap();
            assert!(none.is_empty() && segment.of_keys.lock().unwrap().len() <= MAX_KEYS);
        }
        assert_eq!(segment.find_at("metadata", "other", &BTreeSet::from(["5"])).unwrap().len(), rows - 2);
        assert!(segment.find_at("metadata", "gone", &BTreeSet::from(["5"])).unwrap().is_empty());
        assert!(segment.find_at("none", "id", &BTreeSet::new()).is_none());
    }
}
