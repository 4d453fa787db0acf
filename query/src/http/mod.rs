//! The HTTP API. Errors are `application/problem+json` (RFC 9457); for the language they say where.
//!
//! A handler reads a request, asks the rooms below, and writes the answer; what is true of devices, records or queries is
//! said there.
//!
//! | files | say |
//! |---|---|
//! | [`door`], [`listen`], [`reading`] | when anything is answered, how connections are served, what a request may hold |
//! | [`request`], [`commands`], [`problem`], [`render`], [`lines`] | what a request brings, how facts are made, what is answered |
//! | [`query`], [`stream`], [`flight`] | questions, live ones, and those of drivers |
//! | [`devices`], [`groups`], [`explain`], [`whatif`], [`links`], [`policies`] | devices and their identity |
//! | [`inventories`], [`plans`], [`runs`], [`imported`] | inventories and what they replace |
//! | [`resources`], [`judgements`] | resources: `/api/v2` |
//! | [`signin`] | people who sign in |
//! | [`alerts`], [`rules`], [`tokens`], [`ledger`], [`process`] | alerts, rules, tokens, the ledger, the process |
//! | [`openapi`] | what the API says of itself |

mod alerts;
mod commands;
mod devices;
pub mod door;
pub mod edge;
mod explain;
mod flight;
mod groups;
mod imported;
mod inventories;
pub mod judgements;
mod ledger;
mod lines;
mod links;
mod listen;
mod openapi;
mod parsing;
mod plans;
mod policies;
mod problem;
mod process;
mod profiles;
mod query;
mod reading;
mod render;
mod request;
mod resources;
mod routing;
mod rules;
mod runs;
mod signin;
mod stream;
mod tokens;
mod whatif;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use futures::Stream;
use futures::future::BoxFuture;
use radarflow_proto::clock::LedgerClock;
use radarflow_proto::fact::IpLink;
use radarflow_proto::ports::{Appender, AskedInventories, Authorities, FindRecords, InventoryRuns, Outcome};
use radarflow_proto::record::SourceKind;
use radarflow_proto::room::Room;
use radarflow_reconcile::identity::sources::Instances;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::actor::Principals;
use crate::engine::Engine;
use crate::http::door::Door;
use crate::http::judgements::Judgements;
pub use crate::http::listen::{CONNECTION_BYTES, Connection};
use crate::http::problem::{not_found, problem};
pub use crate::http::signin::Attempts;
pub use crate::http::signin::links::{Mail, SendMail};
pub use crate::http::signin::oidc::{AskServer, Issuers, Question};
use crate::live::streams::Streams;
use crate::records::inventory::Mappings;
use crate::records::plans::Plans;

/// The protocols that a connection with TLS may agree upon.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Largest request body, bytes.
pub const MAX_BODY: usize = 2 << 20;

/// What the API needs.
pub struct Api {
    /// Answers queries.
    pub engine: Arc<Engine>,
    /// Has them followed.
    pub streams: Arc<Streams>,
    /// Knows who asks.
    pub principals: Arc<Principals>,
    /// Takes commands.
    pub sink: Arc<dyn Appender>,
    /// Tells what became of them.
    pub outcomes: broadcast::Sender<Outcome>,
    /// Tells what became of those about resources.
    pub judgements: Arc<Judgements>,
    /// Seals a secret of tenant, kind, id and field; nothing where there is no key.
    pub seal: Arc<dyn Fn([&str; 4], &str) -> Option<String> + Send + Sync>,
    /// What was sealed; nothing where it was not, or for something else.
    pub unseal: Arc<dyn Fn([&str; 4], &str) -> Option<String> + Send + Sync>,
    /// Who failed to sign in, and how often.
    pub attempts: Attempts,
    /// How browsers reach it, where the configuration says so.
    pub public_url: Option<String>,
    /// Sends mail, where it can.
    pub mail: Option<Arc<SendMail>>,
    /// Asks the servers of identity providers.
    pub ask_server: Arc<AskServer>,
    /// What these say of themselves.
    pub issuers: Issuers,
    /// What agents are enrolled with.
    pub authorities: Arc<dyn Authorities>,
    /// Where an enrolled agent of a tenant connects, `host:port`: there, where something is said, or where the configuration says;
    /// or why it cannot.
    pub gateways: Arc<dyn Fn(&str, Option<&str>) -> Result<String, String> + Send + Sync>,
    /// Finds records, for explanations.
    pub records: Arc<dyn FindRecords>,
    /// Takes inventories.
    pub inventories: Arc<dyn InventoryRuns>,
    /// Asks those of the configuration.
    pub asked: Arc<dyn AskedInventories>,
    /// The source instances there are.
    pub instances: Arc<dyn Fn() -> Instances + Send + Sync>,
    /// Runs that wait for somebody to look at what they would change.
    pub plans: Arc<Plans>,
    /// What the columns of inventories mean, by name.
    pub mappings: Mappings,
    /// Whether a source of a tenant, by kind and instance, says only what it knows.
    pub partial: Arc<dyn Fn(&str, SourceKind, &str) -> bool + Send + Sync>,
    /// How far an address alone links, a tenant.
    pub policy: Arc<dyn Fn(&str) -> IpLink + Send + Sync>,
    /// Whether everything is as it should be, or why not: nothing is taken while the disk is short.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// The ledger's clock.
    pub clock: Arc<dyn LedgerClock>,
    /// Memory for requests.
    pub room: Arc<Room>,
    /// The same for those who bear no token.
    pub strangers: Arc<Room>,
    /// Commits what waits for the lake; gives the epoch up to which it has everything, where there is a lake.
    pub flush: Arc<dyn Fn() -> BoxFuture<'static, Option<u64>> + Send + Sync>,
    /// Metrics, as Prometheus reads them.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The API, shared by its requests.
pub type Shared = Arc<Api>;

/// The routes and what is said of them.
fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(openapi::Document::begin())
        .routes(routes!(process::healthz))
        .routes(routes!(process::readyz))
        .routes(routes!(process::metrics))
        .routes(routes!(query::catalog_document))
        .routes(routes!(query::query))
        .routes(routes!(query::sql))
        .routes(routes!(query::validate))
        .routes(routes!(query::complete))
        .routes(routes!(query::explain_query))
        .routes(routes!(stream::stream_query))
        .routes(routes!(tokens::list_tokens, tokens::make_token))
        .routes(routes!(tokens::revoke_token))
        .routes(routes!(ledger::snapshot))
        .routes(routes!(ledger::flush))
        .routes(routes!(ledger::clock))
        .routes(routes!(ledger::accept_clock))
        .routes(routes!(alerts::step_alert))
        .routes(routes!(alerts::step_alerts))
        .routes(routes!(alerts::explain_alert))
        .routes(routes!(alerts::preview_silence))
        .routes(routes!(alerts::replay))
        .routes(routes!(devices::device))
        .routes(routes!(edge::public_key))
        .routes(routes!(edge::enroll))
        .routes(routes!(edge::bundle))
        .routes(routes!(explain::explain_device))
        .routes(routes!(explain::why_not))
        .routes(routes!(devices::step_device))
        .routes(routes!(runs::decide_run))
        .routes(routes!(groups::put_group, groups::remove_group))
        .routes(routes!(inventories::push))
        .routes(routes!(plans::plan_inventory))
        .routes(routes!(plans::apply_plan))
        .routes(routes!(plans::forget_plan))
        .routes(routes!(links::make_link))
        .routes(routes!(links::remove_link))
        .routes(routes!(policies::set_ip_link))
        .routes(routes!(policies::set_brakes))
        .routes(routes!(imported::import_uids))
        .routes(routes!(parsing::preview))
        .routes(routes!(profiles::preview_profile))
        .routes(routes!(profiles::explain_profile))
        .routes(routes!(rules::test))
        .routes(routes!(routing::test))
        .routes(routes!(whatif::what_if))
}

/// The API's description, OpenAPI 3.1.
pub fn description() -> String {
    let mut document = routes().into_openapi();
    openapi::finish(&mut document);
    let mut document = serde_json::to_value(&document).unwrap_or_default();
    resources::described::add(&mut document);
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// The routes.
pub(crate) fn router(api: Shared) -> Router {
    let document: Bytes = description().into();
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    let (router, _) = routes().split_for_parts();
    router
        .route("/api/openapi.json", get(document))
        .method_not_allowed_fallback(|| async {
            let detail = "this path has other methods: see the header Allow";
            problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail, json!({}))
        })
        .fallback(|| async { not_found("there is nothing at this path") })
        .merge(resources::router())
        .merge(signin::router())
        .with_state(api.clone())
        .merge(flight::router(api.clone()))
        .layer(axum::middleware::from_fn_with_state(api, reading::bounded))
        .layer(axum::middleware::from_fn(signin::cookies))
}

/// Serves connections at a door until it is shut and requests under way are answered.
pub async fn serve<C>(connections: impl Stream<Item = std::io::Result<Connection<C>>> + Send + 'static, door: Arc<Door>)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shut = door.until_shut();
    let answer = move |request: Request| -> BoxFuture<'static, Response> { Box::pin(door.clone().answer(request)) };
    let router = Router::new().fallback(answer);
    listen::serve(connections, router, listen::HEAD_WAIT, shut).await;
}
