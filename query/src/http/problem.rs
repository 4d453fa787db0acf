//! What is answered when something is not done: `application/problem+json` (RFC 9457); for the language it says where.

use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use radarflow_proto::cell::Time;
use radarflow_proto::ports::AppendError;
use serde_json::{Value, json};

use crate::actor::Bound;
use crate::error::{OVER, QueryError};
use crate::http::reading::no_room;
use crate::records::Refused;

/// A problem document.
pub(crate) fn problem(status: StatusCode, code: &str, detail: &str, more: Value) -> Response {
    let mut body = json!({"type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// What is asked is wrong.
pub(crate) fn bad(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", detail, json!({}))
}

/// There is none, or none that the actor may see.
pub(crate) fn not_found(detail: &str) -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", detail, json!({}))
}

/// Nobody is let in so.
pub(crate) fn denied(detail: &str) -> Response {
    let mut response = problem(StatusCode::UNAUTHORIZED, "unauthorized", detail, json!({}));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Not everything is answered, for a reason.
pub(crate) fn not_ready(why: &str) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why, json!({}));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// What somebody said was not made durable.
pub(crate) fn not_durable(error: &AppendError) -> Response {
    let (status, code) = match error {
        AppendError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        AppendError::Storage(_) | AppendError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "not_durable"),
    };
    problem(status, code, &error.to_string(), json!({}))
}

/// What is wrong with what stands behind the `?` of a path.
pub(crate) fn bad_query(error: &QueryRejection) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", &error.body_text(), json!({}))
}

/// Why a query has no answer.
pub(crate) fn refuse(error: &QueryError, query: &str) -> Response {
    let (status, code, more) = match error {
        QueryError::Language(e) => {
            let (line, column) = e.position(query);
            let token = query.get(e.start..e.end).unwrap_or("");
            let more = json!({"line": line, "column": column, "token": token, "expected": e.expected, "did_you_mean": e.did_you_mean});
            (StatusCode::BAD_REQUEST, e.code, more)
        }
        QueryError::Cursor(_) => (StatusCode::BAD_REQUEST, "bad_cursor", json!({})),
        QueryError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", json!({})),
        QueryError::Expired => (StatusCode::GONE, "cursor_expired", json!({})),
        QueryError::Forgotten(since) => {
            (StatusCode::GONE, "before_retention", json!({"since": Time(*since).to_string()}))
        }
        QueryError::TimedOut => (StatusCode::REQUEST_TIMEOUT, "time_limit", json!({})),
        QueryError::Ended => return denied(OVER),
        QueryError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "memory_limit", json!({})),
        QueryError::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy", json!({})),
        QueryError::Failed(detail) => {
            tracing::error!(detail, query, "a query failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "failed", json!({}))
        }
    };
    let mut response = problem(status, code, &error.to_string(), more);
    if let QueryError::Busy = error {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

impl From<Bound> for Response {
    fn from(bound: Bound) -> Response {
        problem(StatusCode::FORBIDDEN, "forbidden", &bound.to_string(), json!({}))
    }
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Response {
        let detail = refused.to_string();
        let (status, code, more) = match refused {
            Refused::Bad(code, _) => (StatusCode::BAD_REQUEST, code, json!({})),
            Refused::Name(_) => (StatusCode::BAD_REQUEST, "bad_request", json!({})),
            Refused::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", json!({})),
            Refused::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", json!({})),
            Refused::CatchingUp => (StatusCode::SERVICE_UNAVAILABLE, "catching_up", json!({})),
            Refused::TooFar => (StatusCode::UNPROCESSABLE_ENTITY, "too_large", json!({})),
            Refused::TooMany(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", json!({})),
            Refused::NoRoom => (StatusCode::PAYLOAD_TOO_LARGE, "memory_limit", json!({})),
            Refused::Held(held) => (StatusCode::CONFLICT, "run_held", json!({"held": held})),
            Refused::Outdated(plan) => (StatusCode::CONFLICT, "plan_outdated", json!({"plan": plan})),
            Refused::Room(no) => return no_room(no),
            Refused::Ended => return denied(OVER),
            Refused::Append(error) => return not_durable(&error),
            Refused::Query(error) => return refuse(&error, ""),
        };
        problem(status, code, &detail, more)
    }
}
