//! How many bytes rows take: those of the rows themselves, not of the buffers that they share with others; and how many an
//! answer may take that is whole in memory.

use std::io::{self, Write};

use arrow::array::{Array, AsArray, OffsetSizeTrait};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::DataType;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::DataFrame;
use futures::StreamExt;

use crate::error::{QueryError, failed};

/// Most bytes of an answer that is whole in memory, as rows and as JSON.
pub(crate) const MAX_ANSWER: usize = 64 << 20;

/// Bytes of a batch.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(bytes).sum()
}

fn between<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    let at = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    (at(offsets.first()), at(offsets.last()))
}

/// Bytes of an array's values.
pub(crate) fn bytes(array: &ArrayRef) -> usize {
    let rows = array.len();
    let within = |(from, to): (usize, usize), values: &ArrayRef| bytes(&values.slice(from, to - from));
    let long = |(from, to): (usize, usize)| to - from;
    rows / 8
        + match array.data_type() {
            DataType::Utf8 => 4 * rows + long(between(array.as_string::<i32>().value_offsets())),
            DataType::LargeUtf8 => 8 * rows + long(between(array.as_string::<i64>().value_offsets())),
            DataType::Binary => 4 * rows + long(between(array.as_binary::<i32>().value_offsets())),
            DataType::LargeBinary => 8 * rows + long(between(array.as_binary::<i64>().value_offsets())),
            DataType::Utf8View => {
                array.as_string_view().views().iter().map(|view| 16 + (*view as u32) as usize).sum::<usize>()
            }
            DataType::BinaryView => {
                array.as_binary_view().views().iter().map(|view| 16 + (*view as u32) as usize).sum::<usize>()
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                4 * rows + within(between(list.value_offsets()), list.values())
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                8 * rows + within(between(list.value_offsets()), list.values())
            }
            DataType::Map(..) => {
                let map = array.as_map();
                let (from, to) = between(map.value_offsets());
                4 * rows + within((from, to), map.keys()) + within((from, to), map.values())
            }
            DataType::Struct(_) => array.as_struct().columns().iter().map(bytes).sum(),
            other => match other.primitive_width() {
                Some(width) => width * rows,
                None => array.to_data().get_slice_memory_size().unwrap_or(0),
            },
        }
}

/// What is refused of an answer that is whole in memory.
pub(super) fn too_large() -> QueryError {
    QueryError::TooLarge(format!(
        "the answer is larger than {} MiB: ask for fewer rows or columns, or export it",
        MAX_ANSWER >> 20
    ))
}

/// All rows of a plan, as long as they are no more than [`MAX_ANSWER`] bytes.
pub(crate) async fn collect(frame: DataFrame) -> Result<Vec<RecordBatch>, QueryError> {
    gather(frame.execute_stream().await.map_err(failed)?).await
}

/// The same of a plan that runs already.
pub(crate) async fn gather(mut stream: SendableRecordBatchStream) -> Result<Vec<RecordBatch>, QueryError> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        bytes += bytes_of(&batch);
        if bytes > MAX_ANSWER {
            return Err(too_large());
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// Bytes that are written, no more than so many.
pub(crate) struct Capped {
    out: Vec<u8>,
    most: usize,
}

impl Capped {
    pub(crate) fn new(most: usize) -> Self {
        Capped { out: Vec::new(), most }
    }

    pub(crate) fn written(self) -> Vec<u8> {
        self.out
    }
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > self.most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more is written than may be"));
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_slice_takes_what_it_has_and_no_more() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|_| "x".repeat(100))));
        assert_eq!(bytes(&texts), 125 + 4000 + 100_000);
        assert_eq!(bytes(&texts.slice(10, 8)), 1 + 32 + 800);
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..80));
        assert_eq!(bytes(&numbers.slice(0, 16)), 2 + 128);
    }

    #[test]
    fn no_more_is_written_than_may_be() {
        let mut out = Capped::new(3);
        assert!(out.write_all(b"abc").is_ok() && out.write_all(b"d").is_err());
        assert_eq!(out.written(), b"abc");
    }
}
