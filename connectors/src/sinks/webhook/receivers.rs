//! Who is sent messages: receivers by HTTP ([`Http`]), or a model of them in a test.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::http;

/// Longest wait for the beginning of an answer's text, once its status is there.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a receiver's answer that are kept.
pub(super) const MAX_ANSWER: usize = 256;

/// A message to a receiver, secrets resolved.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// Equal for every attempt at one message: its `Idempotency-Key`.
    pub key: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// What it says.
    pub body: Value,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer.
    Answered {
        /// Its status.
        status: u16,
        /// That and the beginning of its text.
        said: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// None, for now.
    Unreachable(String),
    /// Nothing of that kind can be sent.
    Unusable(String),
}

/// Sends messages.
#[async_trait]
pub trait Receivers: Send + Sync + 'static {
    /// Sends one. It may take for ever: the outbox gives up.
    async fn post(&self, post: Post) -> Reply;
}

/// By HTTP.
pub(super) struct Http(reqwest::Client);

impl Http {
    pub(super) fn new() -> Result<Http, reqwest::Error> {
        http::client(|client| client.redirect(reqwest::redirect::Policy::none())).map(Http)
    }
}

#[async_trait]
impl Receivers for Http {
    async fn post(&self, post: Post) -> Reply {
        let mut request = self.0.post(post.url).header("Idempotency-Key", post.key).json(&post.body);
        for (name, value) in post.headers {
            request = request.header(name, value);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Reply::Unusable(error.to_string()),
            Err(error) => return Reply::Unreachable(error.without_url().to_string()),
        };
        let status = response.status();
        let asked = response.headers().get("Retry-After").and_then(|v| v.to_str().ok()?.parse().ok());
        // The status says what became of it.
        let text = http::beginning(response, MAX_ANSWER, ANSWER_WAIT).await;
        let said = format!("{status} {text}").trim().to_owned();
        Reply::Answered { status: status.as_u16(), said, retry_after: asked.map(Duration::from_secs) }
    }
}
