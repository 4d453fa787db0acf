//! Names that devices had in a system that was replaced, as they are imported: a name a line.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_proto::room::Held;
use radarflow_reconcile::access::Action;
use serde::Serialize;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::http::lines::{BadLine, Lines};
use crate::http::problem::bad;
use crate::http::reading::{Unread, memory, no_room};
use crate::http::{Api, Shared};
use crate::records::imported::Line;

/// Longest line, bytes.
const MAX_LINE: usize = 64 << 10;
/// Names made durable at once, where there is room for so many.
const AT_ONCE: usize = 1000;
/// What a line becomes until it is durable, for each of its bytes.
const LINE_FACTOR: usize = 16;

/// What was taken.
#[derive(Serialize, ToSchema)]
pub(crate) struct Taken {
    /// So many names.
    items: usize,
    /// Since when they lead somewhere.
    epoch: Option<u64>,
}

/// Takes names that devices had in a system that was replaced, a JSON object a line:
/// `{"uid": …, "partition": …, "identifiers": ["type:value", …]}`.
#[utoipa::path(
    post, path = "/api/identity/imported-uids", tag = "inventories",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, description = "What was taken.", body = Taken))
)]
pub(crate) async fn import_uids(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Import)?;
    actor.whole("an imported name")?;
    let held = memory(&request)?.another();
    let (items, epoch) = take(&api, &actor, request.into_body(), held).await?;
    if items == 0 {
        return Err(bad("there is no name in the request: send a JSON object a line"));
    }
    if let Some(epoch) = epoch {
        api.engine.live().reach(epoch).await;
    }
    Ok(axum::Json(Taken { items, epoch }).into_response())
}

async fn take(
    api: &Api,
    actor: &Actor,
    body: axum::body::Body,
    mut held: Held,
) -> Result<(usize, Option<u64>), Response> {
    let mut lines = Lines::new(body, MAX_LINE, held.another());
    let (mut facts, mut items, mut epoch) = (Vec::new(), 0, None);
    loop {
        let line = lines.next().await.map_err(|error| match error {
            BadLine::Unread(Unread::Broken) => bad("the request broke off; send it again: what was taken is the same"),
            BadLine::Unread(unread) => unread.told(MAX_LINE),
            BadLine::TooLong(n) => bad(&format!("line {n} has more than {MAX_LINE} bytes")),
        })?;
        let ended = line.is_none();
        if let Some((_, line)) = line {
            items += 1;
            let takes = line.len() * LINE_FACTOR;
            if held.grow(takes).is_err() {
                if !facts.is_empty() {
                    epoch = Some(api.append_facts(actor, &std::mem::take(&mut facts)).await?);
                }
                held.give_back();
                held.grow(takes).map_err(no_room)?;
            }
            let line: Line = serde_json::from_slice(line).map_err(|e| bad(&format!("name {items}: {e}")))?;
            facts.push(line.fact(actor)?);
        }
        if facts.len() >= AT_ONCE || (ended && !facts.is_empty()) {
            epoch = Some(api.append_facts(actor, &std::mem::take(&mut facts)).await?);
            held.give_back();
        }
        if ended {
            return Ok((items, epoch));
        }
    }
}
