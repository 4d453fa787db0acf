//! Rows of an event table of one tenant that are not in the lake yet: batches, in the order of their epochs.
//!
//! They are kept in chunks that versions share. A new version copies the last chunk, which is short, and a pointer to each of
//! the others: it costs what is new, and not what waits. Nothing is copied of the rows.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;

/// Batches of a chunk.
const CHUNK: usize = 64;

/// The rows of one epoch.
#[derive(Debug)]
struct Told {
    epoch: u64,
    batch: RecordBatch,
    bytes: usize,
}

/// Batches that follow one another, [`CHUNK`] at most.
type Chunk = Arc<Vec<Arc<Told>>>;

/// Rows that wait for the lake.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fresh {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl Fresh {
    /// Adds the rows of an epoch that is no older than those before it.
    pub(crate) fn push(&mut self, epoch: u64, batch: RecordBatch) {
        let bytes = batch.get_array_memory_size();
        self.bytes += bytes;
        let told = Arc::new(Told { epoch, batch, bytes });
        match self.chunks.back_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => Arc::make_mut(last).push(told),
            None => self.chunks.push_back(Arc::new(vec![told])),
        }
    }

    /// The batches, the oldest first.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|told| &told.batch)
    }

    /// Bytes of them, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Lets the rows go that are no newer than an epoch.
    pub(crate) fn let_go(&mut self, until: u64) {
        self.drop_while(|told, _| told.epoch <= until);
    }

    /// Lets the oldest rows go until there are no more than so many bytes.
    pub(crate) fn bound(&mut self, most: usize) {
        self.drop_while(|_, left| left > most);
    }

    /// Lets batches go from the oldest on, as long as `gone` says so, which is told how many bytes are left.
    fn drop_while(&mut self, gone: impl Fn(&Told, usize) -> bool) {
        while let Some(first) = self.chunks.pop_front() {
            let mut over = 0;
            while let Some(told) = first.get(over).filter(|told| gone(told, self.bytes)) {
                self.bytes -= told.bytes;
                over += 1;
            }
            if over < first.len() {
                self.chunks.push_front(if over == 0 { first } else { Arc::new(first[over..].to_vec()) });
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(n: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![n; 10])) as ArrayRef)]).unwrap()
    }

    fn filled(n: u64) -> Fresh {
        let mut fresh = Fresh::default();
        (1..=n).for_each(|epoch| fresh.push(epoch, batch(epoch as i64)));
        fresh
    }

    fn numbers(fresh: &Fresh) -> Vec<i64> {
        use arrow_array::cast::AsArray;
        use arrow_array::types::Int64Type;
        fresh.batches().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0)).collect()
    }

    #[test]
    fn a_version_shares_all_but_its_last_chunk_with_the_one_before() {
        let mut now = Arc::new(Fresh::default());
        for epoch in 1..=3000 {
            let before = now.clone();
            // As it is published: whoever reads the version before has it still.
            Arc::make_mut(&mut now).push(epoch, batch(epoch as i64));
            let shared = before.chunks.iter().zip(&now.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
            assert!(shared + 1 >= now.chunks.len(), "epoch {epoch} copies {} chunks", now.chunks.len() - shared);
            let last = now.chunks.back().unwrap();
            assert!(last.len() <= CHUNK && Arc::strong_count(last) == 1);
            // The rows are shared in any case.
            let same = before.chunks.iter().flat_map(|c| c.iter()).zip(now.chunks.iter().flat_map(|c| c.iter()));
            assert!(epoch % 500 != 0 || same.filter(|(a, b)| Arc::ptr_eq(a, b)).count() + 1 == epoch as usize);
        }
        assert_eq!(now.chunks.len(), 3000usize.div_ceil(CHUNK));
    }

    #[test]
    fn what_the_lake_has_goes_and_the_rest_stays() {
        for cut in [0, 1, 63, 64, 65, 199, 200, 500] {
            let mut fresh = filled(200);
            fresh.let_go(cut);
            let left: Vec<i64> = (cut as i64 + 1..=200).collect();
            assert_eq!(numbers(&fresh), left, "{cut}");
            let one = batch(0).get_array_memory_size();
            assert_eq!((fresh.bytes(), fresh.is_empty()), (one * left.len(), left.is_empty()), "{cut}");
            fresh.push(501, batch(501));
            assert_eq!(numbers(&fresh), [left, vec![501]].concat());
        }
    }

    #[test]
    fn the_oldest_go_beyond_a_bound() {
        let one = batch(0).get_array_memory_size();
        for most in [0, 1, 63, 64, 65, 130, 200] {
            let mut fresh = filled(200);
            fresh.bound(most * one + one / 2);
            assert_eq!(numbers(&fresh), (201 - most as i64..=200).collect::<Vec<_>>(), "{most}");
            assert_eq!(fresh.bytes(), most * one);
        }
    }
}
