//! What waits, made into what files hold: whole epochs, in pieces of bounded size, each sorted, with its dates.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take};
use radarflow_proto::cell::Time;
use radarflow_proto::lake::LakeTable;

use super::super::compact::order;

/// The oldest epochs of what waits, whole, of no more than so many bytes, or one; and the last of them.
pub(super) fn first_epochs(pending: &[(u64, RecordBatch)], most: usize) -> Option<(u64, &[(u64, RecordBatch)])> {
    let (mut end, mut last, mut bytes) = (0, None, 0);
    for epochs in pending.chunk_by(|(a, _), (b, _)| a == b) {
        bytes += epochs.iter().map(|(_, batch)| batch.get_array_memory_size()).sum::<usize>();
        if last.is_some() && bytes > most {
            break;
        }
        end += epochs.len();
        last = epochs.first().map(|(epoch, _)| *epoch);
    }
    Some((last?, &pending[..end]))
}

/// The rows in groups of no more than so many bytes, about, or of one row.
pub(super) fn pieces(batches: &[(u64, RecordBatch)], most: usize) -> Vec<Vec<RecordBatch>> {
    let mut pieces: Vec<Vec<RecordBatch>> = Vec::new();
    let mut left = 0;
    for (_, batch) in batches {
        let size = batch.get_array_memory_size();
        // A batch that is too large by itself is cut; its rows are taken to be alike.
        let parts = size.div_ceil(most).clamp(1, batch.num_rows().max(1));
        let rows = batch.num_rows().div_ceil(parts).max(1);
        for from in (0..batch.num_rows()).step_by(rows) {
            let part = batch.slice(from, rows.min(batch.num_rows() - from));
            let takes = size / parts;
            match pieces.last_mut().filter(|_| takes <= left) {
                Some(piece) => {
                    piece.push(part);
                    left -= takes;
                }
                None => {
                    pieces.push(vec![part]);
                    left = most.saturating_sub(takes);
                }
            }
        }
    }
    pieces
}

/// One batch with the date column, sorted by (partition, time).
pub(super) fn sorted(table: LakeTable, piece: &[RecordBatch]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let all = concat_batches(&table.arriving(), piece)?;
    let column = |name: &str| all.column_by_name(name).expect("every table has its order's columns");
    let dates = dates(column(table.time_column()));
    let keys = order(table).map(|name| SortColumn { values: column(name).clone(), options: None });
    let order = lexsort_to_indices(&keys, None)?;
    let columns = all
        .columns()
        .iter()
        .chain([&dates])
        .map(|column| take(column, &order, None))
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(table.schema(), columns)
}

fn dates(time: &ArrayRef) -> ArrayRef {
    let times = time.as_any().downcast_ref::<TimestampMicrosecondArray>().expect("times are timestamps");
    let mut known: BTreeMap<i64, String> = BTreeMap::new();
    let dates: StringArray = (0..times.len())
        .map(|i| {
            let us = times.value(i);
            Some(known.entry(us.div_euclid(86_400_000_000)).or_insert_with(|| Time(us).date()).clone())
        })
        .collect();
    Arc::new(dates)
}

#[cfg(test)]
mod tests {
    use super::super::tests::large;
    use super::*;

    #[test]
    fn no_piece_is_larger_than_it_may_be_and_no_row_is_left_out() {
        let batches = [(1, large(1, 1, 10)), (1, large(1, 1000, 100)), (1, large(1, 3, 5000)), (1, large(1, 7, 10))];
        for most in [1, 1000, 20_000, 1 << 20] {
            let pieces = pieces(&batches, most);
            let rows: Vec<usize> = pieces.iter().map(|piece| piece.iter().map(RecordBatch::num_rows).sum()).collect();
            assert_eq!(rows.iter().sum::<usize>(), 1011);
            for piece in &pieces {
                let text: usize = piece
                    .iter()
                    .map(|batch| {
                        let reasons = batch.column_by_name("reason").unwrap();
                        let reasons = reasons.as_any().downcast_ref::<StringArray>().unwrap();
                        reasons.iter().flatten().map(str::len).sum::<usize>()
                    })
                    .sum();
                let only_row = piece.iter().map(RecordBatch::num_rows).sum::<usize>() == 1;
                assert!(text <= most || only_row, "{text} of {most}");
            }
        }
        assert_eq!(pieces(&batches, 1 << 20).len(), 1);
        assert!(pieces(&[], 10).is_empty());
    }
}
