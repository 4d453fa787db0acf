//! How what somebody says becomes durable, then visible; and what becomes of a command.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::ports::{AppendError, Outcome};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::http::Api;
use crate::http::problem::{not_durable, problem};

/// How long the outcome of a command, or an epoch, is waited for.
const OUTCOME_WAIT: Duration = Duration::from_secs(10);
/// What was done is visible from an epoch on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Done {
    pub(crate) epoch: u64,
}

/// Names a command.
pub(crate) fn command_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// What became of a command; `None` where that is not known in time.
pub(crate) async fn outcome(
    outcomes: &mut broadcast::Receiver<Outcome>,
    command_id: &str,
    within: Duration,
) -> Option<Outcome> {
    let told = async {
        loop {
            match outcomes.recv().await {
                Ok(outcome) if outcome.command_id == command_id => return Some(outcome),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    };
    tokio::time::timeout(within, told).await.ok().flatten()
}

impl Api {
    /// Makes a fact durable.
    pub(crate) async fn append(&self, actor: &Actor, fact: &Fact) -> Result<u64, Response> {
        self.append_facts(actor, std::slice::from_ref(fact)).await
    }

    /// Makes facts durable, all in one frame.
    pub(crate) async fn append_facts(&self, actor: &Actor, facts: &[Fact]) -> Result<u64, Response> {
        self.append_all(&actor.tenant, format!("api:{}", actor.name), facts).await
    }

    /// Makes a fact of a tenant durable.
    pub(crate) async fn append_as(&self, tenant: &str, feed: String, fact: &Fact) -> Result<u64, Response> {
        self.append_all(tenant, feed, std::slice::from_ref(fact)).await
    }

    async fn append_all(&self, tenant: &str, feed: String, facts: &[Fact]) -> Result<u64, Response> {
        let (kind, tenant, partition) = (Kind::Fact, tenant.to_owned(), String::new());
        let origin = Arc::new(Origin { kind, tenant, partition, feed });
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        let body = |fact| serde_json::to_vec(fact).unwrap_or_default().into();
        let entries = facts.iter().map(|fact| Entry { peer: None, received_us: now_us, body: body(fact) }).collect();
        // What somebody has said is done, though they leave before it is.
        let appended = tokio::spawn(self.sink.append(origin, entries)).await;
        appended.unwrap_or(Err(AppendError::Closed)).map_err(|error| not_durable(&error))
    }

    /// Makes a fact durable; the answer comes when it is visible.
    pub(crate) async fn done(&self, actor: &Actor, fact: &Fact) -> Result<Response, Response> {
        let epoch = self.append(actor, fact).await?;
        self.engine.live().reach(epoch).await;
        Ok(axum::Json(Done { epoch }).into_response())
    }

    /// Waits until an epoch is visible; one that no write can have returned is a mistake.
    pub(crate) async fn visible(&self, epoch: u64) -> Result<(), Response> {
        let live = self.engine.live();
        if let Some(durable) = self.sink.durable()
            && let newest = durable.max(live.view().epoch)
            && epoch > newest
        {
            let detail = format!("no write has returned that epoch; the newest is {newest}");
            return Err(problem(StatusCode::BAD_REQUEST, "no_such_epoch", &detail, json!({"epoch": newest})));
        }
        tokio::time::timeout(OUTCOME_WAIT, live.reach(epoch)).await.map_err(|_| {
            let detail = "that epoch is not visible yet; ask again later";
            problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", detail, json!({"epoch": live.view().epoch}))
        })
    }

    /// Makes a command durable and waits for what becomes of it: the epoch, which is visible then, or a refusal.
    pub(crate) async fn command(&self, actor: &Actor, fact: &Fact, command_id: &str) -> Result<u64, Response> {
        let mut outcomes = self.outcomes.subscribe();
        let epoch = self.append(actor, fact).await?;
        match outcome(&mut outcomes, command_id, OUTCOME_WAIT).await {
            Some(Outcome { refused: None, .. }) => {
                self.engine.live().reach(epoch).await;
                Ok(epoch)
            }
            Some(Outcome { refused: Some(reason), .. }) => {
                Err(problem(StatusCode::CONFLICT, "refused", &reason, json!({"epoch": epoch})))
            }
            _ => {
                let detail = "the command is durable; its outcome is not known yet";
                Err(problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", detail, json!({"epoch": epoch})))
            }
        }
    }
}
