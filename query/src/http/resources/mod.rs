//! Resources over HTTP: `/api/v2/<resource>`, JSON:API 1.1, the same for every kind that is declared.
//!
//! | file | says |
//! |---|---|
//! | [`reads`] | collections and items: queries over the entity |
//! | [`writes`] | what somebody states, and what is answered |
//! | [`document`] | documents: resources, errors, media types |
//! | [`secrets`] | what is hashed or sealed before it is stated |
//! | [`described`] | what OpenAPI says of it |

pub(super) mod described;
mod document;
mod reads;
mod secrets;
mod writes;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use radarflow_reconcile::resources::{self, ResourceKind};

pub(super) use self::writes::{Ask, judged, refused};
use crate::http::Shared;
use crate::http::problem::not_found;

/// Where resources are.
pub(super) const PREFIX: &str = "/api/v2";

/// The routes.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/operations", post(writes::operations))
        .route("/api/v2/{resource}", get(reads::collection).post(writes::create))
        .route("/api/v2/{resource}/{id}", get(reads::item).patch(writes::update).delete(writes::delete))
        .route("/api/v2/{resource}/{id}/actions/{action}", post(writes::act))
        .layer(from_fn(document::negotiated))
}

/// The kind of that name.
#[allow(clippy::result_large_err)]
fn kind(name: &str) -> Result<&'static ResourceKind, axum::response::Response> {
    resources::named(name).ok_or_else(|| {
        let known: Vec<_> = resources::KINDS.iter().map(|kind| kind.name()).collect();
        not_found(&format!("there are no resources {name}; there are {}", known.join(", ")))
    })
}
