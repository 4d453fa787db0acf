//! Who is sent messages: receivers by HTTP ([`Http`]), or a model of them in a test.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
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

/// How far messages may go to receivers that the configuration file does not state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To any address.
    Anywhere,
    /// To addresses that everybody can reach: whoever states receivers must not have the host ask what only it can reach.
    Public,
}

/// By HTTP. No redirect is followed.
pub(super) struct Http {
    anywhere: reqwest::Client,
    /// Who reaches public addresses only, where that is all that others may.
    public: Option<reqwest::Client>,
}

impl Http {
    pub(super) fn new(reach: Reach) -> Result<Http, reqwest::Error> {
        let anywhere = http::client(|client| client.redirect(reqwest::redirect::Policy::none()))?;
        let public = || {
            http::client(|client| {
                // A proxy would resolve names by itself.
                let client = client.redirect(reqwest::redirect::Policy::none()).no_proxy();
                client.dns_resolver(Arc::new(PublicNames))
            })
        };
        Ok(Http { anywhere, public: (reach == Reach::Public).then(public).transpose()? })
    }
}

/// Resolves names to public addresses.
struct PublicNames;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|addr| is_public(addr.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} has no public address: {PRIVATE}", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// What is said of addresses that messages must not go to.
const PRIVATE: &str = "only the configuration file may name one, or it says private_receivers = true";

/// Whether everybody can reach an address.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = (a == 100 && (64..128).contains(&b)) || (a == 198 && (b == 18 || b == 19));
            let own = ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified();
            !(own || shared || ip.is_multicast() || ip.is_broadcast() || a == 0 || a >= 240)
        }
        IpAddr::V6(ip) => {
            let own = ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified();
            // Of an address within another the inner one counts: 6to4, and the one for translation.
            let [a, b, c, ..] = ip.segments();
            let inner = match (a, b) {
                (0x2002, _) => Some([b, c]),
                (0x64, 0xff9b) => Some([ip.segments()[6], ip.segments()[7]]),
                _ => None,
            };
            let inner = inner.map(|[high, low]| std::net::Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
            !(own || ip.is_multicast()) && inner.is_none_or(|ip| is_public(ip.into()))
        }
    }
}

/// The address that a URL names itself, if it is none that everybody can reach.
fn private_host(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?;
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    (!is_public(ip)).then(|| format!("{ip} is no public address: {PRIVATE}"))
}

#[async_trait]
impl Receivers for Http {
    async fn post(&self, post: Post) -> Reply {
        let client = match &self.public {
            Some(public) if !post.of_host => match private_host(&post.url) {
                Some(why) => return Reply::Unusable(why),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_the_host_reaches_are_not_public_however_they_are_written() {
        for url in [
            "http://127.0.0.1:9/x",
            "http://10.1.2.3/",
            "http://169.254.169.254/latest/meta-data",
            "http://100.64.0.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::1]/",
            "http://[::ffff:192.168.0.1]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[2002:7f00:1::]/",
            "http://[64:ff9b::a00:1]/",
            "http://0.0.0.0/",
        ] {
            assert!(private_host(url).is_some(), "{url}");
        }
        for url in
            ["http://8.8.8.8/", "https://[2001:4860:4860::8888]/", "https://hooks.example/x", "http://172.32.0.1/"]
        {
            assert_eq!(private_host(url), None, "{url}");
        }
    }

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
