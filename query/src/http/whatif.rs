//! What identity would make of another link, policy or record.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_reconcile::access::Action;

use crate::http::Shared;
use crate::http::request::body;
use crate::records::whatif::Question;

/// Tells what identity would make of another link, another policy, another record; nothing is applied.
#[utoipa::path(
    post, path = "/api/identity/what-if", tag = "identity", request_body = Question,
    responses((status = 200, description = "Devices that would merge, split, be renamed, and the records that would move.", body = serde_json::Map<String, Value>))
)]
pub(crate) async fn what_if(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let question: Question = body(request).await?;
    let view = api.engine.live().view();
    Ok(axum::Json(api.sight(&view, &actor).what_if(&question).await?).into_response())
}
