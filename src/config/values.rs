//! Values that are more than text: secrets, addresses of APIs, names. What is wrong with one is said where it is read.

use std::collections::BTreeMap;

use radarflow_connectors::secret::{self, SecretError};
use radarflow_connectors::sources::udp::MAX_SOCKETS;
use radarflow_reconcile::flows::prefixes::Prefix;
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::resources::providers;
use reqwest::Url;
use serde::de::{Deserialize, Deserializer, Error};

/// A value, or where it is found.
pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    secret::resolve(&String::deserialize(from)?).map_err(Error::custom)
}

/// A value that may be missing, or where it is found.
pub(super) fn some_secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| secret::resolve(&text)).transpose().map_err(Error::custom)
}

/// Values, or where they are found.
pub(super) fn secrets<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let named = BTreeMap::<String, String>::deserialize(from)?;
    let resolve = |(key, text): (String, String)| Ok((key, secret::resolve(&text)?));
    named.into_iter().map(resolve).collect::<Result<_, _>>().map_err(|e: SecretError| Error::custom(e))
}

/// The base of an API.
pub(super) fn endpoint<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    let url = Url::parse(&text).map_err(|e| Error::custom(format!("url {text:?}: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || !url.username().is_empty() {
        return Err(Error::custom(format!("url {text:?}: http(s), no user and no query are expected")));
    }
    Ok(url)
}

/// How browsers reach this server: `https://radar.example.net`, or http on this host.
pub(super) fn public_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let url = Url::parse(&text).map_err(|e| Error::custom(format!("public_url {text:?}: {e}")))?;
    if !providers::may_be_asked(&text) || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        let expected = "scheme and host are expected: https, or http on this host (browsers keep sessions of no other)";
        return Err(Error::custom(format!("public_url {text:?}: {expected}")));
    }
    Ok(Some(text))
}

/// A text, or a list of them that is not empty.
pub(super) fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Said {
        One(String),
        More(Vec<String>),
    }
    match Said::deserialize(from).map_err(|_| Error::custom("a text, or a list of texts, is expected"))? {
        Said::One(text) => Ok(vec![text]),
        Said::More(texts) if !texts.is_empty() => Ok(texts),
        Said::More(_) => Err(Error::custom("one at least is expected")),
    }
}

/// Networks.
pub(super) fn prefixes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Prefix>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(Error::custom)).collect()
}

/// The name of a source instance.
pub(super) fn instance<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let name = normalise::instance(&text).filter(|name| !name.is_empty());
    name.ok_or_else(|| Error::custom(format!("name {text:?}: a source's name has no : and no /")))
}

/// A source by name and instance, `armis/main`.
pub(super) fn source<'de, D: Deserializer<'de>>(from: D) -> Result<(String, String), D::Error> {
    let text = String::deserialize(from)?;
    match text.split_once('/') {
        Some((name, instance)) if !name.is_empty() && !instance.is_empty() && !instance.contains('/') => {
            Ok((name.to_owned(), instance.to_owned()))
        }
        _ => Err(Error::custom(format!("{text:?} is no NAME/INSTANCE, as in armis/main"))),
    }
}

/// A time between two of something: not none.
pub(super) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        0 => Err(Error::custom("0 seconds: it would never rest; 1 is the least")),
        seconds => Ok(seconds),
    }
}

/// How many sockets share an address.
pub(super) fn sockets<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let n = usize::deserialize(from)?;
    if (1..=MAX_SOCKETS).contains(&n) {
        return Ok(n);
    }
    Err(Error::custom(format!("{n} sockets cannot share an address; 1 to {MAX_SOCKETS} can")))
}

/// How many datagrams a second one sender may send.
pub(super) fn sender_rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    match Option::<u32>::deserialize(from)? {
        Some(0) => Err(Error::custom("0 datagrams a second: nothing would be taken; 1 is the least")),
        rate => Ok(rate),
    }
}
