//! A part of a state table: rows that never change, in chunks of one size, and a bitmap of those that are gone.
//!
//! Chunks are small, so that a plan shares them between its parts and gives way between them. Whoever asks for one value
//! of a column that tells rows apart finds its rows by an index, which is made when it is first asked for.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use arrow::array::BooleanArray;
use arrow::compute::{BatchCoalescer, filter_record_batch, interleave_record_batch};
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, SchemaRef};

/// Rows of a chunk; the last has fewer.
pub(crate) const CHUNK: usize = 1 << 13;
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
    fn build<'a>(columns: impl Iterator<Item = &'a StringArray>) -> Index {
        let texts = columns.flat_map(|column| column.iter()).enumerate();
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

/// A part of a table.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    schema: SchemaRef,
    chunks: Arc<Vec<RecordBatch>>,
    rows: usize,
    /// Rows that are gone; empty while none is.
    dead: Arc<Vec<bool>>,
    pub(crate) live: usize,
    indexes: Arc<[OnceLock<Index>; INDEXED.len()]>,
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
        })
    }

    /// Rows, those that are gone among them.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// A row is gone.
    pub(crate) fn bury(&mut self, row: usize) {
        let dead = Arc::make_mut(&mut self.dead);
        dead.resize(self.rows, false);
        dead[row] = true;
        self.live -= 1;
    }

    /// Whether a row is gone.
    pub(crate) fn is_dead(&self, row: usize) -> bool {
        self.dead.get(row).copied().unwrap_or(false)
    }

    /// The rows there are, chunk by chunk.
    pub(crate) fn batches(&self, projection: Option<&[usize]>) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut batches = Vec::with_capacity(self.chunks.len());
        for (n, chunk) in self.chunks.iter().enumerate() {
            let chunk = match projection {
                Some(columns) => chunk.project(columns)?,
                None => chunk.clone(),
            };
            let dead = self.dead.get(n * CHUNK..).unwrap_or_default();
            let dead = &dead[..dead.len().min(chunk.num_rows())];
            if dead.iter().any(|dead| *dead) {
                let mask: BooleanArray = dead.iter().map(|dead| Some(!dead)).collect();
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
        let index = self.indexes[index].get_or_init(|| Index::build(self.texts(place)));
        let mut found: Vec<usize> = values
            .iter()
            .flat_map(|value| index.rows(value).map(move |row| (row, *value)))
            .filter(|(row, value)| !self.is_dead(*row) && self.text(place, *row) == Some(value))
            .map(|(row, _)| row)
            .collect();
        found.sort_unstable();
        found.dedup();
        Some(found)
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
}
