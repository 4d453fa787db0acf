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

use axum::http::Uri;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use radarflow_reconcile::resources::{self, MadeBy, ResourceKind};

pub(super) use self::document::encoded;
pub(super) use self::writes::{Ask, judged, refused};
use crate::http::Shared;
use crate::http::problem::not_found;

/// Where resources are.
pub(super) const PREFIX: &str = "/api/v2";

/// The routes.
pub(super) fn router() -> Router<Shared> {
    let mut router = Router::new().route("/api/v2/operations", post(writes::operations));
    // Each kind has the methods that it has, and says which.
    for kind in resources::KINDS {
        let (mut collection, mut item) = (get(reads::collection), get(reads::item).delete(writes::delete));
        if kind.made_by == MadeBy::People {
            (collection, item) = (collection.post(writes::create), item.patch(writes::update));
        }
        let path = format!("{PREFIX}/{}", kind.name());
        router = router
            .route(&path, collection.layer(Extension(*kind)))
            .route(&format!("{path}/{{id}}"), item.layer(Extension(*kind)))
            .route(&format!("{path}/{{id}}/actions/{{action}}"), post(writes::act).layer(Extension(*kind)));
    }
    router
        .route("/api/v2/{resource}", any(unknown))
        .route("/api/v2/{resource}/{*rest}", any(unknown))
        .layer(from_fn(document::negotiated))
}

async fn unknown(uri: Uri) -> Response {
    let name = uri.path().trim_start_matches(PREFIX).split('/').find(|part| !part.is_empty()).unwrap_or_default();
    match kind(name) {
        Ok(kind) => not_found(&format!("there is nothing at this path of {}", kind.name())),
        Err(unknown) => unknown,
    }
}

/// The kind of that name.
#[allow(clippy::result_large_err)]
fn kind(name: &str) -> Result<&'static ResourceKind, Response> {
    resources::named(name).ok_or_else(|| {
        let known: Vec<_> = resources::KINDS.iter().map(|kind| kind.name()).collect();
        not_found(&format!("there are no resources {name}; there are {}", known.join(", ")))
    })
}
