//! The process itself: whether it lives, whether it is ready, what it measures.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::http::Shared;
use crate::http::problem::not_ready;

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "process", security(()), responses((status = 200, description = "It does.", body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether everything is answered and taken. It is not (503, `not_ready`, with the reason) while the ledger is opened and
/// replayed, while the disk is short, and while the process stops.
#[utoipa::path(get, path = "/readyz", tag = "process", security(()), responses((status = 200, description = "It is.", body = String)))]
pub(crate) async fn readyz(State(api): State<Shared>) -> Result<&'static str, Response> {
    match (api.ready)() {
        Ok(()) => Ok("ready\n"),
        Err(why) => Err(not_ready(&why)),
    }
}

/// Metrics, as Prometheus reads them.
#[utoipa::path(
    get, path = "/metrics", tag = "process", security(()),
    responses((status = 200, description = "OpenMetrics.", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(State(api): State<Shared>) -> Response {
    measured((api.metrics)())
}

/// Metrics, as Prometheus reads them.
pub(crate) fn measured(text: String) -> Response {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
