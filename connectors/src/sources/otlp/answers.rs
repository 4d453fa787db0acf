//! What senders are told, as OTLP's specification has it: what of a request was refused, and whether to come again.
//!
//! | | HTTP | gRPC | again |
//! |---|---|---|---|
//! | all or part is taken | 200 | `OK`, `partial_success` | no |
//! | it cannot be read | 400 | `INVALID_ARGUMENT` | no |
//! | it is too large | 413 | `RESOURCE_EXHAUSTED` without `RetryInfo` | no |
//! | its encoding is not read | 415 | `UNIMPLEMENTED` | no |
//! | the sender has too much under way | 429, `Retry-After` | `UNAVAILABLE`, `RetryInfo` | yes |
//! | there is no room, the disk refuses, it stops | 503, `Retry-After` | `UNAVAILABLE`, `RetryInfo` | yes |
//! | it came too slowly | 408 | `DEADLINE_EXCEEDED` | as the sender likes |

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use radarflow_proto::otlp::fields::{put_bytes, put_number};
use radarflow_proto::otlp::{Counted, Signal};
use serde_json::json;
use tonic::{Code, Status};

/// Seconds after which a sender may come again.
const AGAIN_S: u64 = 1;

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed(String),
    TooLarge(String),
    Unsupported(String),
    TooSlow(String),
    /// The sender, or its tenant, has too much under way.
    Greedy(String),
    Busy(String),
}

impl Refusal {
    fn told(&self) -> (StatusCode, Code, &str) {
        match self {
            Refusal::Malformed(why) => (StatusCode::BAD_REQUEST, Code::InvalidArgument, why),
            Refusal::TooLarge(why) => (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, why),
            Refusal::Unsupported(why) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented, why),
            Refusal::TooSlow(why) => (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, why),
            Refusal::Greedy(why) => (StatusCode::TOO_MANY_REQUESTS, Code::Unavailable, why),
            Refusal::Busy(why) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, why),
        }
    }

    fn is_for_now(&self) -> bool {
        matches!(self, Refusal::Greedy(_) | Refusal::Busy(_))
    }

    /// `google.rpc.Status`, with `google.rpc.RetryInfo` where the sender may come again.
    fn status(&self) -> Vec<u8> {
        let (_, code, why) = self.told();
        let mut status = Vec::new();
        put_number(&mut status, 1, code as u64);
        put_bytes(&mut status, 2, why.as_bytes());
        if self.is_for_now() {
            let (mut delay, mut info, mut any) = (Vec::new(), Vec::new(), Vec::new());
            put_number(&mut delay, 1, AGAIN_S);
            put_bytes(&mut info, 1, &delay);
            put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
            put_bytes(&mut any, 2, &info);
            put_bytes(&mut status, 3, &any);
        }
        status
    }
}

/// What is said of the records that are not taken; nothing where all are.
fn partial(counted: &Counted) -> Option<(u64, String)> {
    let Counted { accepted, rejected, why } = counted;
    let why = why.map(|why| why.0).unwrap_or_default();
    let all = accepted + rejected;
    (*rejected > 0).then(|| (*rejected, format!("{rejected} of {all} cannot be used, the first: {why}")))
}

/// The answer as a message.
fn message(counted: &Counted) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Some((rejected, why)) = partial(counted) {
        let mut partial = Vec::new();
        put_number(&mut partial, 1, rejected);
        put_bytes(&mut partial, 2, why.as_bytes());
        put_bytes(&mut answer, 1, &partial);
    }
    answer
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A request by HTTP is taken.
pub(super) fn taken_http(signal: Signal, counted: &Counted, is_json: bool) -> Response {
    if !is_json {
        return response(StatusCode::OK, "application/x-protobuf", message(counted));
    }
    let name = match signal {
        Signal::Logs => "rejectedLogRecords",
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
    };
    let said = match partial(counted) {
        Some((rejected, why)) => json!({"partialSuccess": {name: rejected.to_string(), "errorMessage": why}}),
        None => json!({}),
    };
    response(StatusCode::OK, "application/json", said.to_string())
}

/// A request by HTTP is not taken.
pub(super) fn refused_http(refusal: &Refusal, is_json: bool) -> Response {
    let (status, code, why) = refusal.told();
    let mut response = if is_json {
        response(status, "application/json", json!({"code": code as i32, "message": why}).to_string())
    } else {
        response(status, "application/x-protobuf", refusal.status())
    };
    if refusal.is_for_now() {
        response.headers_mut().insert(RETRY_AFTER, AGAIN_S.into());
    }
    response
}

/// A request by gRPC is taken.
pub(super) fn taken_grpc(counted: &Counted) -> Response {
    let message = message(counted);
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    response(StatusCode::OK, "application/grpc", Body::new(Unary(Some(framed.into()), true)))
}

/// A request by gRPC is not taken.
pub(super) fn refused_grpc(refusal: &Refusal) -> Response {
    let (_, code, why) = refusal.told();
    let mut response: Response = Status::with_details(code, why, refusal.status().into()).into_http();
    if matches!(refusal, Refusal::Unsupported(_)) {
        response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
    }
    response
}

/// There is no such call.
pub(super) fn unknown_call(path: &str) -> Response {
    Status::unimplemented(format!("there is no call {path}")).into_http()
}

/// There is no such path.
pub(super) fn unknown_path(why: &str) -> Response {
    response(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", format!("{why}\n"))
}

/// The message of an answer by gRPC, and that it is well.
struct Unary(Option<Bytes>, bool);

impl http_body::Body for Unary {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.0.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        Poll::Ready(std::mem::take(&mut self.1).then(|| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            Ok(Frame::trailers(trailers))
        }))
    }
}
