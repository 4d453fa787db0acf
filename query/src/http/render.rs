//! Answers over HTTP: one page as JSON with what is told beside it, or rows alone as they come, in the format that is asked
//! for.

use std::sync::Arc;

use arrow_schema::{DataType, Field};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::engine::answer::Answer;
use crate::engine::encode::{Broken, Encoder, Rows, json_rows};
use crate::engine::export::Export;
use crate::error::QueryError;
use crate::http::problem::{problem, refuse};

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
        json!({
            "name": f.name(), "type": f.data_type().to_string(), "semantic": semantic(f.name(), f.data_type()),
        })
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
                            return Ok(Some((Bytes::from(bytes), (None, export, Some(encoder)))));
                        }
                    }
                    Some(Err(error)) => return Err(Broken::Rows(error.to_string())),
                    None => return Ok(Some((encoder.finish()?.into(), (None, export, None)))),
                }
            }
        });
    (response, Body::from_stream(parts)).into_response()
}
