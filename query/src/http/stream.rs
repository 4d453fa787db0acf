//! Live queries over HTTP: server-sent events, or a WebSocket.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query as UrlQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response, sse};
use futures::{Stream, StreamExt};
use radarflow_reconcile::access::Action;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::engine::export::STALLED;
use crate::error::OVER;
use crate::http::Shared;
use crate::http::problem::{bad_query, refuse};
use crate::live::events::Event;

/// How long a client whose token has ended may take to hear so.
const FAREWELL: Duration = Duration::from_secs(5);
/// Longest message that a client of a WebSocket may send: there is nothing to say.
const MAX_SAID: usize = 1024;

/// A live query.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Watch {
    /// The query.
    q: String,
}

/// Follows a query: a snapshot, then exact changes. Server-sent events, or a WebSocket whose messages are
/// `{"event": …, "data": …}`. It ends with an `error` when the token is revoked or expires. A client that takes nothing for 30 s
/// is let go with an `end` whose `reason` is `too_slow`; it goes on by asking again with its last event's id.
#[utoipa::path(
    get, path = "/api/query/stream", tag = "query",
    params(Watch, ("Last-Event-ID" = Option<String>, Header, description = "The last event that was received.")),
    responses(
        (status = 200, description = "Events: snapshot, change, frontier, error, end.", body = String, content_type = "text/event-stream"),
        (status = 101, description = "A WebSocket."),
    )
)]
pub(crate) async fn stream_query(
    State(api): State<Shared>,
    headers: HeaderMap,
    watch: Result<UrlQuery<Watch>, QueryRejection>,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let UrlQuery(watch) = watch.map_err(|e| bad_query(&e))?;
    let seen = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let events = api.streams.start(&actor, &watch.q, seen).map_err(|e| refuse(&e, &watch.q))?;
    let grant = actor.grant;
    let events = futures::stream::unfold((Some(events), grant.clone()), |(events, grant)| async move {
        let mut events = events?;
        let event = events.recv().await?;
        // What waited when a token was revoked is for nobody.
        if grant.has_ended() {
            return Some((Event::Failed(OVER.to_owned()), (None, grant)));
        }
        Some((event, (Some(events), grant)))
    });
    Ok(match socket {
        Ok(socket) => socket.max_message_size(MAX_SAID).on_upgrade(move |socket| async move {
            tokio::select! {
                () = converse(socket, events) => {}
                // A client that does not take what it is told may not stay for that.
                () = async { grant.ended().await; tokio::time::sleep(FAREWELL).await } => {}
            }
        }),
        Err(_) => sent(events),
    })
}

fn sent(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(|event| {
        let (name, data) = event.parts();
        let sent = sse::Event::default().event(name).data(data.to_string());
        Ok::<_, Infallible>(event.id().into_iter().fold(sent, sse::Event::id))
    });
    sse::Sse::new(events).keep_alive(sse::KeepAlive::default()).into_response()
}

async fn converse(mut socket: WebSocket, events: impl Stream<Item = Event> + Send) {
    let mut events = std::pin::pin!(events);
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { break };
                let (name, data) = event.parts();
                let message = json!({"event": name, "id": event.id(), "data": data}).to_string();
                match tokio::time::timeout(STALLED, socket.send(Message::Text(message.into()))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
            }
            // Pings are answered where they are read; whatever else is said is ignored.
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
    let ended = CloseFrame { code: close_code::NORMAL, reason: "the stream has ended".into() };
    let _ = socket.send(Message::Close(Some(ended))).await;
}
