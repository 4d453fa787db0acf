//! JSON:API documents (<https://jsonapi.org/format/1.1/>): what a resource looks like, what an error looks like, and which media
//! types are spoken.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::state_batch;
use radarflow_reconcile::resources::ResourceKind;
use serde_json::{Map, Value, json};

use super::PREFIX;
use crate::engine::encode::json_rows;
use crate::http::problem::problem;

/// The media type of documents.
pub(super) const MEDIA_TYPE: &str = "application/vnd.api+json";
/// The extension for several operations in one request.
pub(super) const ATOMIC: &str = "https://jsonapi.org/ext/atomic";
/// Bytes of an error that is written anew.
const MAX_PROBLEM: usize = 1 << 20;

/// A document.
pub(super) fn document(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body.to_string()).into_response()
}

/// A resource of a row of its table.
pub(super) fn of_row(kind: &ResourceKind, mut row: Map<String, Value>) -> Value {
    let id = row.remove(kind.id).unwrap_or_default();
    let epoch = row.remove("epoch").unwrap_or_default();
    row.remove("tenant_id");
    row.remove("partition");
    let id = id.as_str().unwrap_or_default().to_owned();
    let link = format!("{PREFIX}/{}/{}", kind.name(), encoded(&id));
    json!({"type": kind.name(), "id": id, "attributes": row, "links": {"self": link}, "meta": {"epoch": epoch}})
}

/// A resource as it was judged to be.
pub(super) fn of_resource(kind: &ResourceKind, resource: &Arc<Resource>) -> Value {
    let row = kind.row(resource).map(|row| row.at(resource.epoch));
    let batch = state_batch(kind.table, row.iter());
    let rows = json_rows(&[batch]).ok().and_then(|rows| serde_json::from_slice::<Vec<Map<String, Value>>>(&rows).ok());
    of_row(kind, rows.and_then(|mut rows| rows.pop()).unwrap_or_default())
}

/// A text as a part of a path or a query (RFC 3986).
pub(in crate::http) fn encoded(id: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    id.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Whether a media type is JSON:API's with parameters that are understood; `None` where it is another type.
fn understood(media_type: &str) -> Option<bool> {
    let mut parts = media_type.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(MEDIA_TYPE) {
        return None;
    }
    Some(parts.all(|parameter| match parameter.split_once('=') {
        Some(("ext", uris)) => uris.trim_matches('"').split(' ').all(|uri| uri == ATOMIC),
        Some(("profile", _)) | Some(("q", _)) => true,
        _ => false,
    }))
}

/// Whether a request may be answered with a document, and brings one.
#[allow(clippy::result_large_err)]
fn speaks(method: &Method, headers: &HeaderMap) -> Result<(), Response> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let accepted: Vec<bool> = text(header::ACCEPT).split(',').filter_map(understood).collect();
    if !accepted.is_empty() && !accepted.contains(&true) {
        let detail = format!("{MEDIA_TYPE} is answered without parameters, or with ext=\"{ATOMIC}\"");
        return Err(problem(StatusCode::NOT_ACCEPTABLE, "not_acceptable", &detail, json!({})));
    }
    let sent = text(header::CONTENT_TYPE);
    let json =
        sent.split(';').next().is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"));
    // Who sends nothing need not say of which type it is.
    let empty = !headers.contains_key(header::TRANSFER_ENCODING) && matches!(text(header::CONTENT_LENGTH), "" | "0");
    if *method == Method::GET || (sent.is_empty() && empty) || json || understood(sent) == Some(true) {
        return Ok(());
    }
    let detail = format!("send {MEDIA_TYPE}, without parameters or with ext=\"{ATOMIC}\"");
    Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", &detail, json!({})))
}

/// Checks media types, and writes what is wrong as JSON:API has it.
pub(super) async fn negotiated(request: Request, next: Next) -> Response {
    let spoken = speaks(request.method(), request.headers());
    let answer = match spoken {
        Ok(()) => next.run(request).await,
        Err(refused) => refused,
    };
    let is_problem = answer.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == "application/problem+json");
    let (mut parts, body) = answer.into_parts();
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if !is_problem {
        return Response::from_parts(parts, body);
    }
    let told = to_bytes(body, MAX_PROBLEM).await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let errors = errors(parts.status, told.unwrap_or_default()).to_string();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(errors))
}

/// A problem document (RFC 9457) as errors of JSON:API.
fn errors(status: StatusCode, mut problem: Map<String, Value>) -> Value {
    let mut take = |name: &str| problem.remove(name).filter(|value| !value.is_null());
    let mut error = Map::new();
    error.insert("status".into(), json!(status.as_u16().to_string()));
    for name in ["code", "title", "detail"] {
        error.extend(take(name).map(|value| (name.to_owned(), value)));
    }
    let source: Map<String, Value> = ["pointer", "parameter", "header"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), take(name)?)))
        .collect();
    if !source.is_empty() {
        error.insert("source".into(), Value::Object(source));
    }
    for name in ["type", "status"] {
        take(name);
    }
    if !problem.is_empty() {
        error.insert("meta".into(), Value::Object(problem));
    }
    json!({"errors": [error]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_negotiated_as_the_standard_says() {
        let status = |method: Method, accept: &str, sent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            if !sent.is_empty() {
                headers.insert(header::CONTENT_TYPE, sent.parse().unwrap());
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("2"));
            }
            speaks(&method, &headers).map_or_else(|refused| refused.status().as_u16(), |()| 200)
        };
        let atomic = format!("{MEDIA_TYPE}; ext=\"{ATOMIC}\"");
        for (accept, expected) in [
            ("*/*", 200),
            (MEDIA_TYPE, 200),
            (atomic.as_str(), 200),
            ("application/vnd.api+json; charset=utf-8", 406),
            ("application/vnd.api+json; ext=\"https://example.net/other\"", 406),
            ("application/vnd.api+json; a=b, application/vnd.api+json", 200),
            ("text/html", 200),
        ] {
            assert_eq!(status(Method::GET, accept, ""), expected, "{accept}");
        }
        for (sent, expected) in [
            (MEDIA_TYPE, 200),
            (atomic.as_str(), 200),
            ("application/json", 200),
            ("application/vnd.api+json; charset=utf-8", 415),
            ("text/plain", 415),
        ] {
            assert_eq!(status(Method::POST, "*/*", sent), expected, "{sent}");
        }
    }

    #[test]
    fn ids_are_parts_of_paths() {
        assert_eq!(encoded("a/b c%é-._~"), "a%2Fb%20c%25%C3%A9-._~");
    }
}
