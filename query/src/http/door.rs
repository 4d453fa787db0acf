//! The door of the API. It is there from the start, says why what is asked cannot be answered yet, and at the end why it is
//! not answered any more.
//!
//! ```text
//! opening ─► replaying ─► open ─► stopping ─► shut
//! ```
//! `/healthz`, `/readyz` and `/metrics` are answered all the while until it is shut; everything else only while it is open, and
//! with 503 `not_ready` otherwise.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::watch;
use tonic::codegen::Service;

use crate::http::problem::{not_ready, problem};
use crate::http::{Shared, process, router};

/// Where the API is, from the start of the process to its end.
pub struct Door {
    replay: OnceLock<Replay>,
    open: OnceLock<(Shared, Router)>,
    stopping: AtomicBool,
    shut: watch::Sender<bool>,
}

/// How far the ledger was read again.
struct Replay {
    from: u64,
    reached: Arc<AtomicU64>,
    until: u64,
}

impl Default for Door {
    fn default() -> Self {
        let (replay, open, stopping) = (OnceLock::new(), OnceLock::new(), AtomicBool::new(false));
        Door { replay, open, stopping, shut: watch::Sender::new(false) }
    }
}

impl Door {
    /// The ledger is read again: what follows the epoch `from` until `until`, of which `reached` tells the newest complete
    /// one.
    pub fn replaying(&self, from: u64, reached: Arc<AtomicU64>, until: u64) {
        let _ = self.replay.set(Replay { from, reached, until });
    }

    /// Everything is answered from now on.
    pub fn open(&self, api: Shared) {
        let _ = self.open.set((api.clone(), router(api)));
    }

    /// The process is about to end: whoever follows a query is told so, and nothing more is begun.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some((api, _)) = self.open.get() {
            api.streams.close();
        }
    }

    /// It ends: requests under way are answered, and nobody is let in any more.
    pub fn shut(&self) {
        self.stopping();
        self.shut.send_replace(true);
    }

    /// Waits until it is shut.
    pub(crate) fn until_shut(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut shut = self.shut.subscribe();
        async move {
            // Where nobody can shut it any more it is.
            let _ = shut.wait_for(|shut| *shut).await;
        }
    }

    /// Why not everything is answered.
    fn closed(&self) -> Option<String> {
        if self.stopping.load(Ordering::Acquire) {
            return Some("the process is stopping".to_owned());
        }
        if self.open.get().is_some() {
            return None;
        }
        Some(match self.replay.get() {
            None => "opening the ledger".to_owned(),
            Some(Replay { from, reached, until }) => match reached.load(Ordering::Acquire).max(*from) {
                at if at < *until => format!("replaying epoch {at} of {until}"),
                _ => "the ledger is replayed; opening the listeners".to_owned(),
            },
        })
    }

    /// What is told while there is nothing else to be told.
    fn metrics(&self) -> Response {
        let mut registry = Registry::with_prefix("radarflow");
        let (at, until) = (Gauge::<i64>::default(), Gauge::<i64>::default());
        if let Some(replay) = self.replay.get() {
            at.set(replay.reached.load(Ordering::Acquire).max(replay.from) as i64);
            until.set(replay.until as i64);
        }
        registry.register("replay_epoch", "The epoch up to which the ledger was read again", at);
        registry.register("replay_until_epoch", "The epoch up to which it has to be", until);
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => process::measured(text),
            Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed", &error.to_string(), json!({})),
        }
    }

    /// Answers a request, or says why not.
    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let path = request.uri().path();
        let (lives, measured) = (path == "/healthz", path == "/metrics");
        let (closed, open) = (self.closed(), self.open.get().map(|(_, router)| router.clone()));
        match (closed, open) {
            (None, Some(router)) => within(router, request).await,
            (Some(_), Some(router)) if lives || measured => within(router, request).await,
            (_, None) if lives => process::healthz().await.into_response(),
            (_, None) if measured => self.metrics(),
            (why, _) => not_ready(&why.unwrap_or_default()),
        }
    }
}

async fn within(mut router: Router, request: Request) -> Response {
    Service::<Request>::call(&mut router, request).await.unwrap_or_else(|never| match never {})
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header;

    use super::*;

    async fn ask(door: &Arc<Door>, path: &str) -> (u16, bool, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = door.clone().answer(request).await;
        let (status, again) = (response.status().as_u16(), response.headers().contains_key(header::RETRY_AFTER));
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, again, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_says_why_it_is_closed_and_lives_all_the_while() {
        let door = Arc::new(Door::default());
        let closed = async |why: &str| {
            for path in ["/readyz", "/api/query", "/nothing", "/arrow.flight.protocol.FlightService/DoGet"] {
                let (status, again, said) = ask(&door, path).await;
                assert!(
                    status == 503 && again && said.contains("\"not_ready\"") && said.contains(why),
                    "{path}: {said}"
                );
            }
            assert_eq!(ask(&door, "/healthz").await, (200, false, "ok\n".to_owned()));
        };
        closed("opening the ledger").await;
        let reached = Arc::new(AtomicU64::new(0));
        door.replaying(600, reached.clone(), 700);
        closed("replaying epoch 600 of 700").await;
        reached.store(650, Ordering::Release);
        closed("replaying epoch 650 of 700").await;
        let (status, _, text) = ask(&door, "/metrics").await;
        assert!(status == 200 && text.contains("radarflow_replay_epoch 650\n"), "{text}");
        assert!(text.contains("radarflow_replay_until_epoch 700\n") && text.ends_with("# EOF\n"), "{text}");
        reached.store(700, Ordering::Release);
        closed("opening the listeners").await;
        let mut shut = Box::pin(door.until_shut());
        door.stopping();
        closed("stopping").await;
        assert!(futures::poll!(&mut shut).is_pending());
        door.shut();
        shut.await;
    }
}
