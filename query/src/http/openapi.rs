//! The description of the API, made from the handlers themselves: what stands at a handler is what is served and what is
//! said of it.

use serde_json::{Map, Value};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, PathItem, Ref, ResponseBuilder};
use utoipa::{OpenApi as _, ToSchema};

/// What went wrong (RFC 9457).
#[derive(ToSchema)]
#[allow(dead_code, reason = "it says what `problem` writes")]
pub(crate) struct Problem {
    /// Always `about:blank`: `code` tells problems apart.
    r#type: String,
    /// The status, in words.
    title: Option<String>,
    /// The status.
    status: u16,
    /// The problem, for programs.
    code: String,
    /// The problem, for people, and what to do about it.
    detail: String,
    /// Of the language: where, what is expected there, what was probably meant.
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Radarflow",
        description = "Devices, flows, logs, traps and alerts of a network: questions in SRQL and SQL, and what operators \
                       say of identity, inventories and alerts. Every call is of the tenant (and the partitions) of its token.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    security(("token" = [])),
    components(schemas(Problem)),
    tags(
        (name = "query", description = "Questions."),
        (name = "devices", description = "Devices, their life cycle and their groups."),
        (name = "identity", description = "Why records are one device, and what operators say of it."),
        (name = "inventories", description = "Inventories that are pushed, and what they replace."),
        (name = "alerts", description = "Alerts."),
        (name = "jobs", description = "What agents look at, and why."),
        (name = "administration", description = "Tokens and the state on disk."),
        (name = "resources", description = "What people state: users, roles, tokens, receivers, groups (JSON:API 1.1)."),
        (name = "process", description = "The process itself."),
    ),
)]
pub(crate) struct Document;

impl Document {
    /// The document that handlers are added to.
    pub(crate) fn begin() -> OpenApi {
        Document::openapi()
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.delete].into_iter().filter_map(Option::as_mut)
}

/// Adds what is true of every call.
pub(crate) fn finish(document: &mut OpenApi) {
    let bearer = SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("rf_…").build());
    document.components.get_or_insert_default().add_security_scheme("token", bearer);
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        for (status, description) in
            [("4XX", "It was not done: what is wrong with it."), ("5XX", "It cannot be done now.")]
        {
            let content = Content::builder().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response =
                ResponseBuilder::new().description(description).content("application/problem+json", content).build();
            operation.responses.responses.insert(status.to_owned(), response.into());
        }
    }
}
