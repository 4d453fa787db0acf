//! How far this program goes where people tell it to go: receivers of messages, providers of identities.
//!
//! Whoever may state one over the API must not have the host ask what only the host can reach. So, unless the configuration file says
//! otherwise, names count by their public addresses only, when they are connected to, and addresses that are not public are refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Error};

use crate::http;

/// How far the program goes for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To any address.
    Anywhere,
    /// To addresses that everybody can reach.
    Public,
}

impl Reach {
    /// To private addresses too, or not.
    pub fn of(private: bool) -> Self {
        if private { Reach::Anywhere } else { Reach::Public }
    }
}

/// A client that reaches public addresses only. Addresses in URLs are no names: ask [`private_host`] of them.
///
/// # Errors
/// Where a client cannot be made with these settings.
pub fn client(said: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, Error> {
    // A proxy would resolve names by itself.
    http::client(|client| said(client).no_proxy().dns_resolver(Arc::new(PublicNames)))
}

/// What is said of a name that is not asked.
pub const ONLY_PRIVATE: &str = "has private addresses only";

/// Resolves names to public addresses.
struct PublicNames;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|addr| is_public(addr.ip())).collect();
            if public.is_empty() {
                let why = "which the configuration file allows with private_addresses = true";
                return Err(format!("{} {ONLY_PRIVATE}, {why}", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether everybody can reach an address.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = (a == 100 && (64..128).contains(&b)) || (a == 198 && (b == 18 || b == 19));
            // Protocol assignments, and what a cloud's host alone answers its guests by.
            let of_host = ip.octets()[..3] == [192, 0, 0] || ip.octets() == [168, 63, 129, 16];
            let own = ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified();
            !(own || shared || of_host || ip.is_multicast() || ip.is_broadcast() || a == 0 || a >= 240)
        }
        IpAddr::V6(ip) => {
            let own = ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified();
            // Of an address within another the inner one counts: 6to4, the one for translation, and the oldest form. Where it is
            // hidden (Teredo, translation of a site) nobody can tell; what sites had before there were unique local ones is theirs.
            let [a, b, c, d, e, f, g, h] = ip.segments();
            let inner = match (a, b) {
                (0x2002, _) => Some([b, c]),
                (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => Some([g, h]),
                (0, 0) if [c, d, e, f] == [0; 4] => Some([g, h]),
                _ => None,
            };
            let inner = inner.map(|[high, low]| std::net::Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
            let hidden = (a, b) == (0x2001, 0) || (a, b) == (0x64, 0xff9b) && inner.is_none() || a & 0xffc0 == 0xfec0;
            !(own || hidden || ip.is_multicast()) && inner.is_none_or(|ip| is_public(ip.into()))
        }
    }
}

/// The address that a URL names itself, if it is none that everybody can reach.
pub fn private_host(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?;
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    (!is_public(ip)).then(|| format!("{ip} is no public address"))
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
            "http://[64:ff9b:1:a00::1:808:808]/",
            "http://[::127.0.0.1]/",
            "http://[2001:0:1::1]/",
            "http://[fec0::1]/",
            "http://192.0.0.192/",
            "http://168.63.129.16/",
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
}
