//! Who is sent messages: receivers by HTTP ([`Http`]), or a model of them in a test.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::http;
use crate::reach::{self, Reach};

/// Longest wait for the beginning of an answer's text, once its status is there.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a receiver's answer that are kept.
pub(super) const MAX_ANSWER: usize = 256;

/// A message to a receiver, secrets resolved.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// Whether the configuration file says so.
    pub of_host: bool,
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

/// What is said of addresses that messages must not go to.
const PRIVATE: &str = "only the configuration file may name one, or it says private_addresses = true";

/// By HTTP. No redirect is followed.
pub(super) struct Http {
    anywhere: reqwest::Client,
    /// Who reaches public addresses only, where that is all that others may.
    public: Option<reqwest::Client>,
}

impl Http {
    pub(super) fn new(reach: Reach) -> Result<Http, reqwest::Error> {
        let anywhere = http::client(|client| client.redirect(reqwest::redirect::Policy::none()))?;
        let public = || reach::client(|client| client.redirect(reqwest::redirect::Policy::none()));
        Ok(Http { anywhere, public: (reach == Reach::Public).then(public).transpose()? })
    }
}

#[async_trait]
impl Receivers for Http {
    async fn post(&self, post: Post) -> Reply {
        let client = match &self.public {
            Some(public) if !post.of_host => match reach::private_host(&post.url) {
                Some(why) => return Reply::Unusable(format!("{why}: {PRIVATE}")),
                None => public,
            },
            _ => &self.anywhere,
        };
        let mut request = client.post(post.url).header("Idempotency-Key", post.key).json(&post.body);
        for (name, value) in post.headers {
            request = request.header(name, value);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Reply::Unusable(error.without_url().to_string()),
            Err(error) => return Reply::Unreachable(http::why(&error)),
        };
        let status = response.status();
        let asked = response.headers().get("Retry-After").and_then(|v| v.to_str().ok()?.parse().ok());
        // The status says what became of it.
        let text = http::beginning(response, MAX_ANSWER, ANSWER_WAIT).await;
        let said = format!("{status} {text}").trim().to_owned();
        Reply::Answered { status: status.as_u16(), said, retry_after: asked.map(Duration::from_secs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_this_host_leads_nowhere_unless_the_configuration_file_says_it() {
        let http = Http::new(Reach::Public).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let post = |host: &str, of_host| Post {
            url: format!("http://{host}:{port}/"),
            of_host,
            key: String::new(),
            headers: vec![],
            body: Value::Null,
        };
        assert!(matches!(http.post(post("localhost", false)).await, Reply::Unreachable(_)));
        assert!(matches!(http.post(post("127.0.0.1", false)).await, Reply::Unusable(_)));
        // What the configuration file says is reached.
        let (reply, met) = tokio::join!(http.post(post("127.0.0.1", true)), async { drop(listener.accept().await) });
        assert!(matches!((reply, met), (Reply::Unreachable(_), ())));
    }
}
