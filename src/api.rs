//! A running server's API, as commands use it.

use anyhow::{Context, Result, bail};
use radarflow_connectors::http;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::cli::At;
use crate::people;

/// A request to a path, given as its segments.
pub(crate) fn request(at: &At, method: Method, path: &[&str]) -> Result<RequestBuilder> {
    asked(at, method, path, &[])
}

/// The same, with parameters.
pub(crate) fn asked(at: &At, method: Method, path: &[&str], query: &[(&str, &str)]) -> Result<RequestBuilder> {
    let mut url = Url::parse(&at.url).with_context(|| format!("{} is no URL", at.url))?;
    url.path_segments_mut()
        .map_err(|()| anyhow::anyhow!("{} is no URL of a server", at.url))?
        .pop_if_empty()
        .extend(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(http::client(|client| client)?.request(method, url).bearer_auth(people::bearer(at)?))
}

/// What the server says, whatever it says.
pub(crate) async fn send(at: &At, request: RequestBuilder) -> Result<Response> {
    request.send().await.with_context(|| format!("cannot reach {}; is the server running?", at.url))
}

/// Its answer; a refusal is an error with the reason that it gives.
pub(crate) async fn answer(at: &At, request: RequestBuilder) -> Result<Value> {
    let (status, said) = told(at, request).await?;
    good(status, said)
}

/// What a server answers, be it good or not: the status and the JSON, null where there is none.
pub(crate) async fn told(at: &At, request: RequestBuilder) -> Result<(StatusCode, Value)> {
    let response = send(at, request).await?;
    let status = response.status();
    let body = response.bytes().await.context("the server broke off")?;
    let said = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice::<Value>(&body) };
    match said {
        Err(error) if status.is_success() => Err(error).context("the server answers no JSON"),
        said => Ok((status, said.unwrap_or_default())),
    }
}

/// What names the first mistake of an answer.
pub(crate) fn code(answer: &Value) -> Option<&str> {
    answer["code"].as_str().or(answer["errors"][0]["code"].as_str())
}

/// The answer, where it is good.
pub(crate) fn good(status: StatusCode, answer: Value) -> Result<Value> {
    if status.is_success() {
        return Ok(answer);
    }
    let first = &answer["errors"][0];
    let detail = answer["detail"].as_str().or(first["detail"].as_str()).unwrap_or("the server refused");
    match first["source"]["pointer"].as_str() {
        Some(pointer) => bail!("{detail} ({pointer})"),
        None => bail!("{detail}"),
    }
}
