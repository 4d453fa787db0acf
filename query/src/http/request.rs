//! What a request brings: who asks, and a body of bounded size.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use radarflow_proto::rows::Device;
use radarflow_reconcile::access::Action;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::{Actor, now_ms};
use crate::http::problem::{bad, denied, not_found, problem};
use crate::http::reading::typed;
use crate::http::{Api, MAX_BODY};
use crate::records::{Finder, Sight};
use crate::tables::names;
use crate::tables::view::View;

/// Why it is asked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// For the audit.
    #[schema(max_length = 1000)]
    pub(crate) reason: String,
}

/// Why it is done.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Why {
    /// For the audit.
    pub(crate) reason: String,
}

impl Api {
    /// Who asks.
    #[allow(clippy::result_large_err)]
    pub(crate) fn actor(&self, headers: &HeaderMap) -> Result<Actor, Response> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "))
            .ok_or_else(|| denied("send Authorization: Bearer rf_…"))?;
        self.principals
            .actor(token.trim(), self.now_ms())
            .ok_or_else(|| denied("the token is unknown, revoked or expired"))
    }

    /// Now, milliseconds since 1970: the ledger's clock stands still while nothing can be written, and tokens end all the same.
    pub(crate) fn now_ms(&self) -> i64 {
        now_ms().max(self.engine.live().view().clock_ms)
    }

    /// Who asks, if they may do so.
    #[allow(clippy::result_large_err)]
    pub(crate) fn allowed(&self, headers: &HeaderMap, action: Action) -> Result<Actor, Response> {
        let actor = self.actor(headers)?;
        if actor.may(action) {
            return Ok(actor);
        }
        Err(problem(StatusCode::FORBIDDEN, "forbidden", "the token's role does not allow this", json!({})))
    }

    /// The device that a name leads to, if the actor may see it.
    #[allow(clippy::result_large_err)]
    pub(crate) fn device(&self, view: &View, actor: &Actor, uid: &str) -> Result<Device, Response> {
        names::device(view, actor, uid).ok_or_else(|| not_found(&format!("there is no device {uid}")))
    }

    /// Finds records.
    pub(crate) fn finder(&self) -> Finder<'_> {
        Finder { engine: &self.engine, records: &*self.records }
    }

    /// Records and tables, as an actor sees them.
    pub(crate) fn sight<'a>(&'a self, view: &'a View, actor: &'a Actor) -> Sight<'a> {
        Sight { finder: self.finder(), view, actor, policy: (self.policy)(&actor.tenant) }
    }
}

/// A request's body, JSON.
pub(crate) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Response> {
    let bytes = typed(request, MAX_BODY).await?;
    serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))
}

/// The same, where there may be none.
pub(crate) async fn optional_body<T: DeserializeOwned + Default>(request: Request) -> Result<T, Response> {
    let bytes = typed(request, MAX_BODY).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))
}
