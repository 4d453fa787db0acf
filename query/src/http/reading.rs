//! What a request holds of memory: its head, what is read of its body and becomes of it, and an answer that waits for its
//! reader.
//!
//! ```text
//! head ─► who asks: a token's tenant, or an address ─► share of a room ─► handler ─► answer, as long as it waits
//!                                                         ▲ body: before it is read
//! ```
//! Who bears no token has a small room beside that of tenants ([`Api::strangers`]). Where there is no room the request is
//! refused: 429 where it is the asker's own doing, 503 where it is not, 413 where it would never fit. Everything is given
//! back when the request ends; what streams (rows, events) has bounds of its own.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use http_body::{Frame, SizeHint};
use radarflow_proto::body::{Memory, Messages, PATIENCE, Prompt, TooSlow};
use radarflow_proto::room::{Held, NoRoom, of_address};
use serde_json::json;
use tonic::Status;

use crate::http::Shared;
use crate::http::problem::{bad, problem};

/// What a field of a head takes beside its text, bytes.
const FIELD: usize = 64;
/// What a body's bytes become: the buffer they are read into, which doubles, and what JSON says in them. A list of empty
/// texts takes eight times its bytes.
const BODY_FACTOR: usize = 10;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender(pub(crate) IpAddr);

/// Why nothing is read any more.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is larger than it may be.
    TooLarge,
    /// It came too slowly.
    TooSlow,
    /// It broke off.
    Broken,
    /// There is no room.
    NoRoom(NoRoom),
}

/// Answers a request within its share of memory.
pub(crate) async fn bounded(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let sender = request.extensions().get::<Sender>().map_or_else(String::new, |sender| of_address(sender.0));
    let held = match api.actor(request.headers()) {
        Ok(actor) => api.room.hold_for(&actor.tenant, &actor.name),
        Err(_) => api.strangers.hold(&sender),
    };
    within(held, request, next).await
}

async fn within(held: Held, mut request: Request, next: Next) -> Response {
    let (waits, memory) = (held.another(), Memory::new(held));
    let is_grpc = is_grpc(request.headers());
    if let Err(no) = memory.grow(head_bytes(&request)) {
        return if is_grpc { Status::resource_exhausted(no.to_string()).into_http() } else { no_room(no) };
    }
    request.extensions_mut().insert(memory.clone());
    let request = request.map(|body| {
        let body = Prompt::new(body, PATIENCE);
        if is_grpc { Body::new(Messages::new(body, memory.clone())) } else { Body::new(body) }
    });
    let answer = next.run(request).await;
    drop(memory);
    keep(waits, answer)
}

/// An answer that is there as a whole takes memory until it is read; of one that streams a few pieces wait, where it is made.
fn keep(mut held: Held, answer: Response) -> Response {
    let whole = answer.body().size_hint().exact().unwrap_or(0);
    match held.grow(usize::try_from(whole).unwrap_or(usize::MAX)) {
        Ok(()) if held.bytes() == 0 => answer,
        Ok(()) => answer.map(|body| Body::new(Kept { body, _held: held })),
        Err(no) => no_room(no),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn head_bytes(request: &Request) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    path + FIELD + fields.sum::<usize>()
}

/// There is no room for a request.
pub(crate) fn no_room(no: NoRoom) -> Response {
    let (status, code) = match no {
        NoRoom::Never => (StatusCode::PAYLOAD_TOO_LARGE, "memory_limit"),
        NoRoom::Own => (StatusCode::TOO_MANY_REQUESTS, "busy"),
        NoRoom::Others => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
    };
    let mut response = problem(status, code, &no.to_string(), json!({}));
    if no != NoRoom::Never {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

impl Unread {
    /// Why a piece of a body did not come.
    pub(crate) fn of(error: axum::Error) -> Unread {
        let slow = error.into_inner();
        if slow.downcast_ref::<TooSlow>().is_some() { Unread::TooSlow } else { Unread::Broken }
    }

    /// What is told of a body that may have so many bytes.
    pub(crate) fn told(self, most: usize) -> Response {
        match self {
            Unread::TooLarge => {
                let detail = format!("a request has at most {most} bytes");
                problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail, json!({}))
            }
            Unread::TooSlow => problem(StatusCode::REQUEST_TIMEOUT, "too_slow", &TooSlow.to_string(), json!({})),
            Unread::Broken => bad("the request broke off"),
            Unread::NoRoom(no) => no_room(no),
        }
    }
}

/// What a request holds.
#[allow(clippy::result_large_err)]
pub(crate) fn memory(request: &Request) -> Result<Memory, Response> {
    request.extensions().get::<Memory>().cloned().ok_or_else(|| no_room(NoRoom::Others))
}

/// The whole of a body whose every byte takes so many; it is taken before it is read.
pub(crate) async fn whole(request: Request, most: usize, factor: usize) -> Result<Vec<u8>, Unread> {
    let Ok(memory) = memory(&request) else { return Err(Unread::NoRoom(NoRoom::Others)) };
    let grow = |bytes: usize| memory.grow(bytes.saturating_mul(factor)).map_err(Unread::NoRoom);
    // What a body says of its length holds.
    let declared = request.body().size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if declared.is_some_and(|length| length > most) {
        return Err(Unread::TooLarge);
    }
    grow(declared.unwrap_or(0))?;
    let (mut body, mut bytes) = (request.into_body().into_data_stream(), Vec::new());
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(Unread::of)?;
        if piece.len() > most - bytes.len() {
            return Err(Unread::TooLarge);
        }
        if declared.is_none() {
            grow(piece.len())?;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The same of JSON that says what a type has.
pub(crate) async fn typed(request: Request, most: usize) -> Result<Vec<u8>, Response> {
    whole(request, most, BODY_FACTOR).await.map_err(|unread| unread.told(most))
}

/// An answer, and what it takes while it waits.
struct Kept {
    body: Body,
    _held: Held,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::IntoResponse;
    use axum::routing::{get, post};
    use futures::stream;
    use radarflow_proto::room::Room;
    use std::sync::Arc;
    use tonic::codegen::Service;

    use super::*;

    const ALL: usize = 1 << 20;

    /// Something that reads what it is sent, and answers as much as it is asked.
    fn router(room: &Arc<Room>) -> Router {
        let bounded = |State(room): State<Arc<Room>>, request: Request, next: Next| async move {
            let who = request.headers().get("who").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            within(room.hold_for(&who, "token"), request, next).await
        };
        Router::new()
            .route(
                "/read",
                post(|request: Request| async move {
                    match typed(request, ALL).await {
                        Ok(bytes) => bytes.len().to_string().into_response(),
                        Err(refused) => refused,
                    }
                }),
            )
            .route("/say", get(|| async { "x".repeat(ALL / 8) }))
            .layer(axum::middleware::from_fn_with_state(room.clone(), bounded))
    }

    async fn ask(router: &Router, who: &str, path: &str, body: Body) -> Response {
        let method = if path == "/say" { "GET" } else { "POST" };
        let request = Request::builder().method(method).uri(path).header("who", who).body(body).unwrap();
        router.clone().call(request).await.unwrap()
    }

    fn retry(response: &Response) -> bool {
        response.headers().contains_key(header::RETRY_AFTER)
    }

    #[tokio::test]
    async fn a_body_has_its_memory_before_it_is_read_and_a_tenant_its_share() {
        let room = Room::of(ALL);
        let router = router(&room);
        let small = || Body::from(vec![b'x'; ALL / 200]);
        assert_eq!(ask(&router, "t", "/read", small()).await.status(), 200);
        assert_eq!(room.bytes(), 0, "it is given back");
        // What says that it is too large is not read; what would never fit is told so.
        let never = stream::pending::<Result<Bytes, std::io::Error>>();
        let declared = Body::new(Declared(Body::from_stream(never), ALL as u64 - 1));
        assert_eq!(ask(&router, "t", "/read", declared).await.status(), 413);
        // Bodies that are under way hold what they say, or what has come.
        let (one, others) = ("t".to_owned(), router.clone());
        let (send, came) = futures::channel::mpsc::unbounded::<Result<Bytes, std::io::Error>>();
        send.unbounded_send(Ok(vec![b'x'; ALL / 50].into())).unwrap();
        let under_way = tokio::spawn(async move { ask(&others, &one, "/read", Body::from_stream(came)).await });
        while room.bytes() < ALL / 5 {
            tokio::task::yield_now().await;
        }
        let refused = ask(&router, "t", "/read", Body::from(vec![b'x'; ALL / 100])).await;
        assert!(refused.status() == 429 && retry(&refused), "{refused:?}");
        assert_eq!(ask(&router, "u", "/read", Body::from(vec![b'x'; ALL / 100])).await.status(), 200);
        // What broke off is no body, and not an empty one.
        let torn = stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
        assert_eq!(ask(&router, "u", "/read", Body::from_stream(torn)).await.status(), 400);
        drop((send, refused));
        assert_eq!(under_way.await.unwrap().status(), 200);
        assert_eq!(room.bytes(), 0);
        assert!(room.refused() >= 2);
    }

    /// A body that says how long it is.
    struct Declared(Body, u64);

    impl HttpBody for Declared {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1)
        }
    }

    #[tokio::test]
    async fn an_answer_takes_memory_until_it_is_read() {
        let room = Room::of(ALL);
        let router = router(&room);
        let first = ask(&router, "t", "/say", Body::empty()).await;
        assert_eq!(
            first.headers().get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes),
            Some((ALL / 8).to_string().as_bytes())
        );
        let second = ask(&router, "t", "/say", Body::empty()).await;
        assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
        let refused = ask(&router, "t", "/say", Body::empty()).await;
        assert!(refused.status() == 429 && retry(&refused));
        let other = ask(&router, "u", "/say", Body::empty()).await;
        assert_eq!(other.status(), 200);
        drop((first, refused, other));
        assert_eq!(ask(&router, "t", "/say", Body::empty()).await.status(), 200);
        drop(second);
        assert_eq!(room.bytes(), 0);
    }
}
