//! Rows as bytes, in the formats that other tools read: a batch at a time, never whole in memory.

use std::sync::Arc;

use arrow::compute;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::errors::ParquetError;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::engine::bytes::{Capped, MAX_ANSWER, too_large};
use crate::error::QueryError;

/// Bytes of a row group of Parquet, which is in memory until it is whole.
const ROW_GROUP: usize = 32 << 20;

/// A format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

impl Rows {
    /// Each with its name and its media type.
    pub(crate) const ALL: [(Rows, &'static str, &'static str); 4] = [
        (Rows::Ndjson, "ndjson", "application/x-ndjson"),
        (Rows::Csv, "csv", "text/csv"),
        (Rows::Arrow, "arrow", "application/vnd.apache.arrow.stream"),
        (Rows::Parquet, "parquet", "application/vnd.apache.parquet"),
    ];

    /// Its media type.
    pub(crate) fn content_type(self) -> &'static str {
        Rows::ALL.iter().find(|(rows, ..)| *rows == self).map_or("application/octet-stream", |(_, _, kind)| kind)
    }
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// There are no more rows.
    #[error("{0}")]
    Rows(String),
}

/// Batches to bytes.
pub(crate) enum Encoder {
    Ndjson,
    Csv { schema: SchemaRef, headed: bool },
    Arrow(StreamWriter<Vec<u8>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Encoder {
    /// One that has written nothing.
    pub(crate) fn new(format: Rows, schema: &SchemaRef) -> Result<Encoder, Broken> {
        Ok(match format {
            Rows::Ndjson => Encoder::Ndjson,
            Rows::Csv => Encoder::Csv { schema: schema.clone(), headed: false },
            Rows::Arrow => Encoder::Arrow(StreamWriter::try_new(Vec::new(), schema)?),
            Rows::Parquet => Encoder::Parquet(Box::new(ArrowWriter::try_new(Vec::new(), schema.clone(), None)?)),
        })
    }

    /// Writes a batch.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, Broken> {
        Ok(match self {
            Encoder::Ndjson => {
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, LineDelimited>(Vec::new());
                writer.write(&exact(batch)?)?;
                writer.finish()?;
                writer.into_inner()
            }
            Encoder::Csv { headed, .. } => {
                let mut writer = arrow::csv::WriterBuilder::new().with_header(!*headed).build(Vec::new());
                writer.write(&flat(batch)?)?;
                *headed = true;
                writer.into_inner()
            }
            Encoder::Arrow(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
            Encoder::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() > ROW_GROUP {
                    writer.flush()?;
                }
                std::mem::take(writer.inner_mut())
            }
        })
    }

    /// Writes what ends the rows.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Broken> {
        Ok(match self {
            Encoder::Ndjson | Encoder::Csv { headed: true, .. } => Vec::new(),
            Encoder::Csv { schema, headed: false } => {
                Encoder::Csv { schema: schema.clone(), headed: false }.push(&RecordBatch::new_empty(schema))?
            }
            Encoder::Arrow(writer) => writer.into_inner()?,
            Encoder::Parquet(writer) => writer.into_inner()?,
        })
    }
}

/// Digits of a decimal from which on a reader of JSON, who has floats, may take it for another.
const EXACT_DIGITS: u8 = 15;

/// Rows as JSON has them: decimals that are too long for a float are text.
pub(crate) fn exact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let is_long = |of: &DataType| matches!(of, DataType::Decimal128(digits, _) | DataType::Decimal256(digits, _) if *digits > EXACT_DIGITS);
    let written = |of: &DataType| match of {
        long if is_long(long) => Some(DataType::Utf8),
        DataType::List(item) if is_long(item.data_type()) => {
            Some(DataType::List(Arc::new(item.as_ref().clone().with_data_type(DataType::Utf8))))
        }
        _ => None,
    };
    if batch.schema_ref().fields().iter().all(|field| written(field.data_type()).is_none()) {
        return Ok(batch.clone());
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match written(field.data_type()) {
            Some(text) => {
                columns.push(compute::cast(column, &text)?);
                fields.push(Arc::new(field.as_ref().clone().with_data_type(text)));
            }
            None => {
                columns.push(column.clone());
                fields.push(field.clone());
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Rows as a JSON array.
pub(crate) fn json_rows(batches: &[RecordBatch]) -> Result<Vec<u8>, QueryError> {
    let out = Capped::new(MAX_ANSWER);
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(out);
    // Every type that a table has can be told exactly.
    let exact: Vec<RecordBatch> = batches.iter().map(|b| exact(b).unwrap_or_else(|_| b.clone())).collect();
    let refs: Vec<&RecordBatch> = exact.iter().collect();
    match writer.write_batches(&refs).and_then(|()| writer.finish()) {
        Ok(()) => {}
        Err(ArrowError::IoError(..)) => return Err(too_large()),
        Err(error) => return Err(QueryError::Failed(error.to_string())),
    }
    let out = writer.into_inner().written();
    Ok(if out.is_empty() { b"[]".to_vec() } else { out })
}

/// What has parts as JSON text: CSV has no shape for it.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !field.data_type().is_nested() {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
            continue;
        }
        let one = RecordBatch::try_from_iter_with_nullable([("v", column.clone(), true)])?;
        let broken = |error: String| ArrowError::CsvError(error);
        let rows = json_rows(&[one]).map_err(|error| broken(format!("{error:?}")))?;
        let rows: Vec<Parts<'_>> = serde_json::from_slice(&rows).map_err(|error| broken(error.to_string()))?;
        let texts = rows.iter().map(|row| (row.v.get() != "null").then(|| row.v.get()));
        fields.push(Field::new(field.name(), DataType::Utf8, true));
        columns.push(Arc::new(texts.collect::<StringArray>()));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A value with parts, as it is written.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    v: &'a RawValue,
}
