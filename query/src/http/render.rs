//! Answers as bytes: one page as JSON with what is told beside it, or rows alone as they come, in the formats that other
//! tools read. What streams is never whole in memory.

use std::sync::Arc;

use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::errors::ParquetError;
use serde_json::{Value, json};

use crate::engine::answer::{Answer, Export, exact, json_rows};
use crate::error::QueryError;
use crate::http::{problem, refuse};

/// The epoch that rows were read at, where there is no `meta` to say it.
const EPOCH: HeaderName = HeaderName::from_static("radarflow-epoch");
/// Where the next page begins, likewise.
const NEXT: HeaderName = HeaderName::from_static("radarflow-next-cursor");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A page.
    Json,
    /// Rows.
    Rows(Rows),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

impl Rows {
    const ALL: [(Rows, &'static str, &'static str); 4] = [
        (Rows::Ndjson, "ndjson", "application/x-ndjson"),
        (Rows::Csv, "csv", "text/csv"),
        (Rows::Arrow, "arrow", "application/vnd.apache.arrow.stream"),
        (Rows::Parquet, "parquet", "application/vnd.apache.parquet"),
    ];

    fn content_type(self) -> &'static str {
        Rows::ALL.iter().find(|(rows, ..)| *rows == self).map_or("application/octet-stream", |(_, _, kind)| kind)
    }
}

impl Format {
    /// What a request asks for, by name or by what it accepts.
    #[allow(clippy::result_large_err)]
    pub(crate) fn asked(name: Option<&str>, headers: &HeaderMap) -> Result<Format, Response> {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let known = match name {
            Some("json") => return Ok(Format::Json),
            Some(name) => Rows::ALL.iter().find(|(_, known, _)| *known == name),
            None => match Rows::ALL.iter().find(|(.., kind)| accept.contains(kind)) {
                Some(found) => Some(found),
                None => return Ok(Format::Json),
            },
        };
        known.map(|(rows, ..)| Format::Rows(*rows)).ok_or_else(|| {
            let detail = "format is json, ndjson, csv, arrow or parquet";
            problem(StatusCode::BAD_REQUEST, "bad_format", detail, json!({}))
        })
    }
}

fn semantic(name: &str, data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Timestamp(..) => "time",
        _ if name == "series" => "series",
        _ if name == "uid" || name == "id" || name.ends_with("_id") || name.ends_with("_uid") => "id",
        t if t.is_numeric() => "value",
        _ => "label",
    }
}

/// A page.
pub(crate) fn page(answer: &Answer) -> Response {
    let column = |f: &Arc<Field>| {
        let mut column = json!({
            "name": f.name(), "type": f.data_type().to_string(), "semantic": semantic(f.name(), f.data_type()),
        });
        if let Some(unit) = answer.units.get(f.name()) {
            column["unit"] = json!(unit);
        }
        column
    };
    let columns: Vec<Value> = answer.schema.fields().iter().map(column).collect();
    let semantics: Vec<&str> = columns.iter().filter_map(|c| c["semantic"].as_str()).collect();
    let suggestion = if semantics.contains(&"time") && semantics.contains(&"value") && columns.len() <= 4 {
        "timeseries"
    } else if columns.len() <= 4 && semantics.contains(&"value") {
        "top"
    } else {
        "table"
    };
    let tail = json!({
        "pagination": {"next_cursor": answer.next_cursor, "prev_cursor": answer.prev_cursor, "limit": answer.limit},
        "viz": {"columns": columns, "suggestions": [suggestion]},
        "meta": answer.meta,
        "error": null,
    });
    // The rows are JSON already; they are not parsed again.
    let mut out = b"{\"results\":".to_vec();
    out.extend(json_rows(&answer.batches));
    out.push(b',');
    out.extend(&tail.to_string().as_bytes()[1..]);
    ([(header::CONTENT_TYPE, "application/json")], Body::from(out)).into_response()
}

/// Rows as they come. What goes wrong before the first of them is a problem; afterwards the answer breaks off.
pub(crate) async fn rows(mut export: Export, format: Rows, query: &str) -> Response {
    let first = match export.next().await {
        Some(Err(error)) => return refuse(&error, query),
        Some(Ok(batch)) => Some(batch),
        None => None,
    };
    let encoder = match Encoder::new(format, &export.schema) {
        Ok(encoder) => encoder,
        Err(error) => return refuse(&QueryError::Failed(error.to_string()), query),
    };
    let mut response = HeaderMap::new();
    response.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response.insert(EPOCH, HeaderValue::from(export.epoch));
    if let Some(next) = export.next_cursor.as_ref().and_then(|c| HeaderValue::from_str(c).ok()) {
        response.insert(NEXT, next);
    }
    let parts =
        futures::stream::try_unfold((first, export, Some(encoder)), |(mut first, mut export, encoder)| async move {
            let Some(mut encoder) = encoder else { return Ok(None) };
            loop {
                let batch = match first.take() {
                    Some(batch) => Some(Ok(batch)),
                    None => export.next().await,
                };
                match batch {
                    Some(Ok(batch)) => {
                        let bytes = encoder.push(&batch)?;
                        if !bytes.is_empty() {
                            return Ok(Some((bytes, (None, export, Some(encoder)))));
                        }
                    }
                    Some(Err(error)) => return Err(Broken(format!("{error:?}"))),
                    None => return Ok(Some((encoder.finish()?, (None, export, None)))),
                }
            }
        });
    (response, Body::from_stream(parts)).into_response()
}

/// Why an answer breaks off.
#[derive(Debug)]
struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl From<ArrowError> for Broken {
    fn from(error: ArrowError) -> Self {
        Broken(error.to_string())
    }
}

impl From<ParquetError> for Broken {
    fn from(error: ParquetError) -> Self {
        Broken(error.to_string())
    }
}

/// Batches to bytes.
enum Encoder {
    Ndjson,
    Csv { schema: SchemaRef, headed: bool },
    Arrow(StreamWriter<Vec<u8>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Encoder {
    fn new(format: Rows, schema: &SchemaRef) -> Result<Encoder, Broken> {
        Ok(match format {
            Rows::Ndjson => Encoder::Ndjson,
            Rows::Csv => Encoder::Csv { schema: schema.clone(), headed: false },
            Rows::Arrow => Encoder::Arrow(StreamWriter::try_new(Vec::new(), schema)?),
            Rows::Parquet => Encoder::Parquet(Box::new(ArrowWriter::try_new(Vec::new(), schema.clone(), None)?)),
        })
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<Bytes, Broken> {
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
                std::mem::take(writer.inner_mut())
            }
        }
        .into())
    }

    fn finish(self) -> Result<Bytes, Broken> {
        Ok(match self {
            Encoder::Ndjson | Encoder::Csv { headed: true, .. } => Bytes::new(),
            Encoder::Csv { schema, headed: false } => {
                Encoder::Csv { schema: schema.clone(), headed: false }.push(&RecordBatch::new_empty(schema))?
            }
            Encoder::Arrow(writer) => writer.into_inner()?.into(),
            Encoder::Parquet(writer) => writer.into_inner()?.into(),
        })
    }
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
