//! Rows as bytes, in the formats that other tools read: a batch at a time, never whole in memory.

use std::sync::Arc;

use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::errors::ParquetError;
use serde_json::Value;

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
                let mut writer = LineDelimitedWriter::new(Vec::new());
                writer.write(batch)?;
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

/// Rows as a JSON array.
pub(crate) fn json_rows(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    let refs: Vec<&RecordBatch> = batches.iter().collect();
    // Every type a table has can be written as JSON.
    if writer.write_batches(&refs).and_then(|()| writer.finish()).is_err() {
        return b"[]".to_vec();
    }
    let out = writer.into_inner();
    if out.is_empty() { b"[]".to_vec() } else { out }
}

/// Lists and maps as JSON text: CSV has no shape for them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (i, field) in batch.schema().fields().iter().enumerate() {
        let nested = matches!(field.data_type(), DataType::List(_) | DataType::Map(..));
        if !nested {
            fields.push(field.as_ref().clone());
            columns.push(batch.column(i).clone());
            continue;
        }
        let one = batch.project(&[i])?;
        let rows: Value = serde_json::from_slice(&json_rows(&[one])).unwrap_or_default();
        let texts: StringArray =
            rows.as_array().into_iter().flatten().map(|r| Some(r[field.name()].to_string())).collect();
        fields.push(Field::new(field.name(), DataType::Utf8, true));
        columns.push(Arc::new(texts));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
