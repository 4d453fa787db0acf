//! Armis: devices by a search in its query language, pages by offset.
//!
//! A secret key buys an access token, which ends; whatever then answers 401 is asked again with a new one, once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use radarflow_proto::payload::DeviceUpdate;
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{Client, Common, Pages, PullError, Tally, read};

/// An Armis tenant.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every inventory needs.
    pub common: Common,
    /// The API's secret key.
    pub secret_key: String,
    /// Searches, one after the other; what several find is there once.
    pub queries: Vec<String>,
}

/// The search that finds every device.
pub const EVERYTHING: &str = "in:devices";

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

#[derive(Deserialize)]
struct Found {
    next: Option<u64>,
    results: Vec<Device>,
    total: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    id: u64,
    #[serde(default)]
    ip_address: Value,
    #[serde(default)]
    mac_address: Value,
    name: Option<String>,
    r#type: Option<String>,
    category: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    operating_system: Option<String>,
    operating_system_version: Option<String>,
    #[serde(default)]
    risk_level: Value,
    #[serde(default)]
    boundaries: Value,
    #[serde(default)]
    site: Value,
    #[serde(default)]
    tags: Value,
    #[serde(default)]
    last_seen: Value,
}

/// Asks with a token that is valid.
pub(crate) struct Session<'a> {
    config: &'a Config,
    client: Client,
    token: Option<String>,
}

/// The searches of one run.
pub(super) struct Search<'a> {
    config: &'a Config,
    session: Session<'a>,
    /// What is still to be searched for, the one under way first.
    left: VecDeque<&'a str>,
    /// The offset of its next page.
    from: u64,
    /// What it gave.
    tally: Tally,
    /// What those before it gave.
    before: BTreeSet<u64>,
}

impl<'a> Search<'a> {
    pub(super) fn new(config: &'a Config, client: Client) -> Self {
        let left = config.queries.iter().map(String::as_str).collect();
        let session = Session::new(config, client);
        Search { config, session, left, from: 0, tally: Tally::default(), before: BTreeSet::new() }
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(config: &'a Config, client: Client) -> Self {
        Session { config, client, token: None }
    }

    async fn token(&mut self) -> Result<String, PullError> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let url = self.client.url("/api/v1/access_token/", &[]);
        let body = format!("secret_key={}", form(&self.config.secret_key));
        let request = || {
            let post = self.client.http.post(url.clone()).body(body.clone());
            post.header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        };
        let (status, said) = self.client.send(&url, request).await?;
        let answer: Answer<Token> = read(&url, status, &said)?;
        Ok(self.token.insert(answer.data.access_token).clone())
    }

    /// Sends a request until there is an answer; an ended token is no answer, once.
    pub(crate) async fn ask(
        &mut self,
        url: &Url,
        request: impl Fn(&reqwest::Client) -> RequestBuilder + Sync,
    ) -> Result<(StatusCode, Vec<u8>), PullError> {
        for again in [true, false] {
            let token = self.token().await?;
            let request = || request(&self.client.http).bearer_auth(&token);
            let (status, said) = self.client.send(url, request).await?;
            if status == StatusCode::UNAUTHORIZED && again {
                self.token = None;
                continue;
            }
            return Ok((status, said));
        }
        unreachable!("the second answer is returned, whatever it is")
    }
}

/// A value as forms write it.
fn form(value: &str) -> String {
    let mut url = Url::parse("form:").expect("a URL");
    url.query_pairs_mut().append_key_only(value);
    url.query().unwrap_or_default().to_owned()
}

impl Pages for Search<'_> {
    async fn next(&mut self) -> Result<Option<Vec<DeviceUpdate>>, PullError> {
        let Some(aql) = self.left.front().copied() else { return Ok(None) };
        let from = self.from;
        let length = self.config.common.page.to_string();
        let query = [("aql", aql.to_owned()), ("from", from.to_string()), ("length", length)];
        let url = self.session.client.url("/api/v1/search/", &query);
        let (status, said) = self.session.ask(&url, |http| http.get(url.clone())).await?;
        let found = read::<Answer<Found>>(&url, status, &said)?.data;
        self.tally.seen.extend(found.results.iter().map(|d| d.id));
        // A page that leads nowhere new would be asked for without end.
        let next = found.next.filter(|next| *next > from && !found.results.is_empty());
        let new = found.results.into_iter().filter(|device| !self.before.contains(&device.id));
        let page = new.map(update).collect();
        match next {
            Some(next) => self.from = next,
            None => {
                self.tally.check(&url, found.total)?;
                self.before.append(&mut self.tally.seen);
                self.left.pop_front();
                self.from = 0;
            }
        }
        Ok(Some(page))
    }
}

/// Texts, however they are wrapped: a list as its items with commas, an object by its name.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(text).filter(|t| !t.is_empty()).collect::<Vec<_>>().join(","),
        Value::Object(object) => object.get("name").map(text).unwrap_or_default(),
        other => other.to_string(),
    }
}

fn update(device: Device) -> DeviceUpdate {
    let mut metadata = BTreeMap::from([("armis_device_id".to_owned(), device.id.to_string())]);
    let os = [device.operating_system, device.operating_system_version].into_iter().flatten();
    let os = os.collect::<Vec<_>>().join(" ");
    for (key, value) in [
        ("name", device.name.clone().unwrap_or_default()),
        ("type", device.r#type.unwrap_or_default()),
        ("armis_category", device.category.unwrap_or_default()),
        ("manufacturer", device.manufacturer.unwrap_or_default()),
        ("model", device.model.unwrap_or_default()),
        ("os", os),
        ("risk_level", text(&device.risk_level)),
        ("boundaries", text(&device.boundaries)),
        ("site", text(&device.site)),
        ("tags", text(&device.tags)),
    ] {
        if !value.trim().is_empty() {
            metadata.insert(key.to_owned(), value);
        }
    }
    let mac = text(&device.mac_address);
    DeviceUpdate {
        ip: text(&device.ip_address),
        timestamp: device.last_seen,
        mac: (!mac.is_empty()).then_some(mac),
        hostname: device.name,
        metadata,
        ..DeviceUpdate::default()
    }
}
