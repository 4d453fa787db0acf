//! Answers over HTTP: one page as JSON with what is told beside it, or rows alone as they come, in the format that is asked
//! for.

use std::sync::Arc;

use arrow_schema::{DataType, Field};
use axum::body::Body;
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
pub(crate) fn page(answer: &Answer) -> Result<Response, QueryError> {
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
    out.extend(json_rows(&answer.batches)?);
    out.push(b',');
    out.extend(&tail.to_string().as_bytes()[1..]);
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(out)).into_response())
}

/// Rows as they come. What goes wrong before the first of them are written is a problem; afterwards the answer breaks off.
pub(crate) async fn rows(mut export: Export, format: Rows, query: &str) -> Response {
    let first = match export.next().await {
        Some(Err(error)) => return refuse(&error, query),
        Some(Ok(batch)) => Some(batch),
        None => None,
    };
    let begun = Encoder::new(format, &export.schema).and_then(|mut encoder| {
        let head = first.map(|batch| encoder.push(&batch)).transpose()?;
        Ok((encoder, head.filter(|bytes| !bytes.is_empty())))
    });
    let (encoder, head) = match begun {
        Ok(begun) => begun,
        Err(error) => return refuse(&QueryError::Failed(error.to_string()), query),
    };
    let mut response = HeaderMap::new();
    response.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response.insert(EPOCH, HeaderValue::from(export.epoch));
    if let Some(next) = export.next_cursor.as_ref().and_then(|c| HeaderValue::from_str(c).ok()) {
        response.insert(NEXT, next);
    }
    let parts =
        futures::stream::try_unfold((head, export, Some(encoder)), |(mut head, mut export, encoder)| async move {
            let Some(mut encoder) = encoder else { return Ok(None) };
            if let Some(head) = head.take() {
                return Ok(Some((head, (None, export, Some(encoder)))));
            }
            loop {
                match export.next().await {
                    Some(Ok(batch)) => {
                        let bytes = encoder.push(&batch)?;
                        if !bytes.is_empty() {
                            return Ok(Some((bytes, (None, export, Some(encoder)))));
                        }
                    }
                    Some(Err(error)) => return Err(Broken::Rows(error.to_string())),
                    None => return Ok(Some((encoder.finish()?, (None, export, None)))),
                }
            }
        });
    (response, Body::from_stream(parts)).into_response()
}

#[cfg(test)]
mod tests {
    use arrow::ipc::reader::StreamReader;
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use radarflow_proto::fact::Role;

    use super::*;
    use crate::actor::Actor;
    use crate::engine::Engine;
    use crate::srql::plan::ROLLUPS;
    use crate::tables::live::Live;

    fn nobody() -> Actor {
        Actor::of_role("n", "t", Role::Viewer)
    }

    /// The rows of an answer, read again.
    async fn read(response: Response, format: Rows, asked: &str) -> usize {
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole answer");
        assert_eq!(status, StatusCode::OK, "{asked} as {format:?}: {}", String::from_utf8_lossy(&bytes));
        match format {
            Rows::Ndjson => {
                let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
                let read = lines.map(|line| serde_json::from_slice::<Value>(line).expect("JSON"));
                read.collect::<Vec<_>>().len()
            }
            Rows::Csv => {
                let format = arrow::csv::reader::Format::default().with_header(true);
                format.infer_schema(&bytes[..], None).expect("CSV").1
            }
            Rows::Arrow => StreamReader::try_new(&bytes[..], None)
                .expect("Arrow")
                .map(|batch| batch.expect("rows").num_rows())
                .sum(),
            Rows::Parquet => {
                let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
                reader.expect("Parquet").map(|batch| batch.expect("rows").num_rows()).sum()
            }
        }
    }

    #[tokio::test]
    async fn every_kind_of_answer_has_every_format() {
        let engine = Arc::new(Engine::new(Arc::new(Live::new(None, 0)), [7; 32]).unwrap());
        let rollups = ROLLUPS.iter().map(|(table, name)| (format!("in:{} rollup_stats:{name}", table.name()), 1));
        let others = [
            ("in:devices", 0),
            ("in:devices limit:5", 0),
            (
                "in:flows stats:\"count() as n, group_uniq_array(app) as all, avg(bytes_total) as a, first(app) as f\"",
                1,
            ),
            ("in:flows stats:\"count() as n by src_endpoint_ip:24, app\" window:1h", 0),
            ("in:flows stats:\"sum(bytes_total) as b by app\" top:3 by:b other:true", 0),
            ("in:flows bucket:1h agg:count fill:0", 0),
            ("in:(flows,logs)", 0),
            ("in:devices fields:metadata,ip_addresses,metadata.rack", 0),
        ];
        let others = others.into_iter().map(|(query, rows)| (query.to_owned(), rows));
        for (query, rows) in rollups.chain(others) {
            for (format, name, _) in Rows::ALL {
                let export =
                    engine.export(&nobody(), &query, None, None).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
                let read = read(super::rows(export, format, &query).await, format, &query).await;
                assert_eq!(read, rows, "{query} as {name}");
            }
            let answer = engine.query(&nobody(), &query, None, None).await.unwrap();
            assert_eq!(page(&answer).unwrap().status(), StatusCode::OK, "{query}");
        }
        for sql in [
            "SELECT NULL AS n, true AS b, 1.5 AS f, 'x' AS t, CAST(1 AS SMALLINT) AS s, CAST(1.25 AS DECIMAL(30, 2)) AS d",
            "SELECT X'00ff' AS b, CAST('2024-01-01' AS DATE) AS d, CAST('12:00:00' AS TIME) AS t, now() AS n",
            "SELECT interval '1 day 2 hours' AS i, now() - now() AS d",
            "SELECT [1, 2] AS l, [[1], [2, 3]] AS ll, {'a': 1, 'b': ['x']} AS s, MAP {'a': 1} AS m, [{'a': 1}] AS ls",
            "SELECT arrow_cast('x', 'Utf8View') AS v, arrow_cast('x', 'LargeUtf8') AS l, arrow_cast(X'00', 'BinaryView') AS b",
            "SELECT arrow_cast(1, 'UInt64') AS u, arrow_cast(1, 'Float16') AS h, arrow_cast(now(), 'Timestamp(Second, None)') AS t",
        ] {
            for (format, name, _) in Rows::ALL {
                let export = engine.export_sql(&nobody(), sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
                let read = read(super::rows(export, format, sql).await, format, sql).await;
                assert!(read > 0, "{sql} as {name}");
            }
            let answer = engine.sql(&nobody(), sql, None).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            assert_eq!(page(&answer).unwrap().status(), StatusCode::OK, "{sql}");
        }
        // What no format has a shape for is said to have none.
        for sql in ["SELECT MAP {1: 'a'} AS m", "SELECT [interval '1 day'] AS l"] {
            let said = engine.sql(&nobody(), sql, None).await;
            assert!(matches!(said, Err(QueryError::Language(_))), "{sql}: {:?}", said.map(|a| a.schema));
        }
    }
}
