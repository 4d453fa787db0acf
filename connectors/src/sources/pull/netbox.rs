//! NetBox: devices and virtual machines by its REST API, pages by `next`.
//!
//! Lists are asked for in the order of ids, so that what is created meanwhile comes at the end. `next` names a page, not
//! a host: its query is used, the configured URL stays. The MACs of a page's interfaces, and where VRFs mean sites the
//! VRFs of its primary addresses, are asked for page by page.

use std::collections::{BTreeMap, VecDeque};

use radarflow_proto::cell::Time;
use radarflow_proto::payload::DeviceUpdate;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{Client, Common, Pages, PullError, Tally, read, shown};

/// Ids in one request: URLs have a length.
const IDS: usize = 50;
/// Interfaces, or addresses, that may belong to the objects of one page.
const MAX_BELONGING: usize = 1_000_000;

/// A NetBox.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every inventory needs.
    pub common: Common,
    /// An API token that may read.
    pub token: String,
    /// Site of the devices whose primary address is in a VRF, by its name.
    pub vrf: BTreeMap<String, String>,
    /// Whether interfaces are asked for their MACs.
    pub interfaces: bool,
}

#[derive(Deserialize)]
struct Page<T> {
    count: usize,
    next: Option<String>,
    results: Vec<T>,
}

/// A reference to another object.
#[derive(Deserialize)]
struct Ref {
    id: Option<u64>,
    name: Option<String>,
    display: Option<String>,
    model: Option<String>,
    manufacturer: Option<Box<Ref>>,
    address: Option<String>,
    value: Option<String>,
    slug: Option<String>,
}

impl Ref {
    fn called(&self) -> Option<&str> {
        self.name.as_deref().or(self.model.as_deref()).or(self.display.as_deref())
    }
}

#[derive(Deserialize)]
struct Device {
    id: u64,
    name: Option<String>,
    device_type: Option<Ref>,
    /// Since 3.6; before, `device_role`.
    role: Option<Ref>,
    device_role: Option<Ref>,
    platform: Option<Ref>,
    serial: Option<String>,
    asset_tag: Option<String>,
    site: Option<Ref>,
    tenant: Option<Ref>,
    cluster: Option<Ref>,
    status: Option<Value>,
    primary_ip: Option<Ref>,
    primary_ip4: Option<Ref>,
    primary_ip6: Option<Ref>,
    last_updated: Option<String>,
    #[serde(default)]
    tags: Vec<Ref>,
}

#[derive(Deserialize)]
struct Interface {
    device: Option<Ref>,
    virtual_machine: Option<Ref>,
    /// Until 4.1.
    mac_address: Option<String>,
    /// Since 4.2.
    #[serde(default)]
    mac_addresses: Option<Vec<Mac>>,
}

#[derive(Deserialize)]
struct Mac {
    mac_address: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    id: u64,
    vrf: Option<Ref>,
}

/// A list of things that are devices here.
#[derive(Clone, Copy, PartialEq)]
enum List {
    Devices,
    Machines,
}

impl List {
    fn path(self) -> &'static str {
        match self {
            List::Devices => "/api/dcim/devices/",
            List::Machines => "/api/virtualization/virtual-machines/",
        }
    }

    fn interfaces(self) -> (&'static str, &'static str) {
        match self {
            List::Devices => ("/api/dcim/interfaces/", "device_id"),
            List::Machines => ("/api/virtualization/interfaces/", "virtual_machine_id"),
        }
    }

    fn key(self, id: u64) -> String {
        match self {
            List::Devices => id.to_string(),
            List::Machines => format!("vm:{id}"),
        }
    }
}

/// The lists of one run.
pub(super) struct Lists<'a> {
    config: &'a Config,
    client: Client,
    /// What is still to be asked for.
    left: VecDeque<(List, Url)>,
    tally: Tally,
}

impl<'a> Lists<'a> {
    pub(super) fn new(config: &'a Config, client: Client, since_us: Option<i64>) -> Self {
        let first = |list: List| {
            let mut query = vec![
                ("limit", config.common.page.to_string()),
                ("ordering", "id".to_owned()),
                ("exclude", "config_context".to_owned()),
            ];
            query.extend(since_us.map(|us| ("last_updated__gte", Time(us).to_string())));
            (list, client.url(list.path(), &query))
        };
        let left = [List::Devices, List::Machines].map(first).into();
        Lists { config, client, left, tally: Tally::default() }
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &Url) -> Result<T, PullError> {
        let mut token = HeaderValue::from_str(&authorization(&self.config.token))
            .map_err(|e| PullError::Unreadable { url: "the token".to_owned(), why: e.to_string() })?;
        token.set_sensitive(true);
        let request = || self.client.http.get(url.clone()).header(AUTHORIZATION, token.clone());
        let (status, said) = self.client.send(url, request).await?;
        read(url, status, &said)
    }

    /// Where the page after this one is.
    fn follow(&self, path: &str, next: Option<&str>) -> Option<Url> {
        let query = next?.split_once('?')?.1;
        let mut url = self.client.url(path, &[]);
        url.set_query(Some(query));
        Some(url)
    }

    /// All of a list that belongs to a page's objects.
    async fn of_objects<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        ids: &[u64],
    ) -> Result<Vec<T>, PullError> {
        let mut found = Vec::new();
        for ids in ids.chunks(IDS) {
            let mut query = vec![("limit", self.config.common.page.to_string())];
            query.extend(ids.iter().map(|id| (key, id.to_string())));
            let mut url = Some(self.client.url(path, &query));
            while let Some(at) = url {
                let page: Page<T> = self.get(&at).await?;
                // A page that leads nowhere new would be asked for without end.
                let more = !page.results.is_empty();
                found.extend(page.results);
                if found.len() > MAX_BELONGING {
                    let why = format!("more than {MAX_BELONGING} items belong to one page; ask for smaller pages");
                    return Err(PullError::Unreadable { url: shown(&at), why });
                }
                url = self.follow(path, page.next.as_deref()).filter(|_| more);
            }
        }
        Ok(found)
    }

    /// MACs of a page's interfaces, by object; none where the token may not see them.
    async fn macs(&self, list: List, ids: &[u64]) -> Result<BTreeMap<u64, Vec<String>>, PullError> {
        let mut macs: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        if !self.config.interfaces || ids.is_empty() {
            return Ok(macs);
        }
        let (path, key) = list.interfaces();
        let interfaces: Vec<Interface> = match self.of_objects(path, key, ids).await {
            Err(PullError::Refused { status: StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, .. }) => return Ok(macs),
            interfaces => interfaces?,
        };
        for interface in interfaces {
            let owner = interface.device.or(interface.virtual_machine).and_then(|o| o.id);
            let listed = interface.mac_addresses.into_iter().flatten().filter_map(|m| m.mac_address);
            if let Some(owner) = owner {
                macs.entry(owner).or_default().extend(interface.mac_address.into_iter().chain(listed));
            }
        }
        Ok(macs)
    }

    /// Sites by VRF, by primary address.
    async fn sites(&self, addresses: &[u64]) -> Result<BTreeMap<u64, String>, PullError> {
        if self.config.vrf.is_empty() || addresses.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found: Vec<Address> = self.of_objects("/api/ipam/ip-addresses/", "id", addresses).await?;
        let site = |a: &Address| self.config.vrf.get(a.vrf.as_ref()?.name.as_deref()?).cloned();
        Ok(found.iter().filter_map(|a| Some((a.id, site(a)?))).collect())
    }
}

impl Pages for Lists<'_> {
    async fn next(&mut self) -> Result<Option<Vec<DeviceUpdate>>, PullError> {
        let Some((list, url)) = self.left.pop_front() else { return Ok(None) };
        let page: Page<Device> = self.get(&url).await?;
        let known = self.tally.seen.len();
        self.tally.seen.extend(page.results.iter().map(|d| d.id));
        // A page that leads nowhere new would be asked for without end.
        let more = self.tally.seen.len() > known;
        match self.follow(list.path(), page.next.as_deref()).filter(|_| more) {
            Some(next) => self.left.push_front((list, next)),
            None => {
                self.tally.check(&url, page.count)?;
                self.tally = Tally::default();
            }
        }
        let ids: Vec<u64> = page.results.iter().map(|d| d.id).collect();
        let mut macs = self.macs(list, &ids).await?;
        let primary = |d: &Device| d.primary_ip.as_ref().and_then(|ip| ip.id);
        let addresses: Vec<u64> = page.results.iter().filter_map(primary).collect();
        let mut sites = self.sites(&addresses).await?;
        let update = |d: Device| {
            let macs = macs.remove(&d.id).unwrap_or_default();
            let site = primary(&d).and_then(|ip| sites.remove(&ip)).unwrap_or_default();
            update(list, d, &macs, site)
        };
        Ok(Some(page.results.into_iter().map(update).collect()))
    }
}

fn update(list: List, device: Device, macs: &[String], partition: String) -> DeviceUpdate {
    let mut metadata = BTreeMap::from([("netbox_device_id".to_owned(), list.key(device.id))]);
    let mut note = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|v| !v.trim().is_empty()) {
            metadata.insert(key.to_owned(), value.to_owned());
        }
    };
    let kind = device.device_type.as_ref();
    note("name", device.name.as_deref());
    note("model", kind.and_then(|t| t.model.as_deref()));
    note("manufacturer", kind.and_then(|t| t.manufacturer.as_ref()?.called()));
    let fallback = (list == List::Machines).then_some("virtual machine");
    note("type", device.role.as_ref().or(device.device_role.as_ref()).and_then(Ref::called).or(fallback));
    note("os", device.platform.as_ref().and_then(Ref::called));
    note("serial", device.serial.as_deref());
    note("asset_tag", device.asset_tag.as_deref());
    note("site", device.site.as_ref().and_then(Ref::called));
    note("netbox_tenant", device.tenant.as_ref().and_then(Ref::called));
    note("cluster", device.cluster.as_ref().and_then(Ref::called));
    let status = device.status.as_ref().and_then(|s| s.as_str().or_else(|| s.get("value")?.as_str()));
    note("status", status);
    let tags: Vec<&str> = device.tags.iter().filter_map(|t| t.slug.as_deref().or(t.called())).collect();
    note("tags", Some(&tags.join(",")));
    let mut ips: Vec<&str> = Vec::new();
    for ip in [&device.primary_ip, &device.primary_ip4, &device.primary_ip6].into_iter().flatten() {
        let address = ip.address.as_deref().or(ip.display.as_deref()).or(ip.value.as_deref());
        ips.extend(address.filter(|a| !ips.contains(a)));
    }
    DeviceUpdate {
        partition,
        ip: ips.join(","),
        timestamp: device.last_updated.map_or(Value::Null, Value::String),
        mac: (!macs.is_empty()).then(|| macs.join(",")),
        hostname: device.name,
        metadata,
        ..DeviceUpdate::default()
    }
}

/// How a token is shown: since NetBox 4.5 there are those that begin with `nbt_`, and go as OAuth has it.
fn authorization(token: &str) -> String {
    let scheme = if token.starts_with("nbt_") { "Bearer" } else { "Token" };
    format!("{scheme} {token}")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::time::Duration;

    use radarflow_proto::room::Room;
    use radarflow_reconcile::flows::prefixes::Prefixes;

    use super::*;
    use crate::reach::Reach;
    use crate::sources::Stop;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_list_whose_pages_lead_nowhere_new_ends() {
        // Whatever it is asked, it answers the same, and that there is more.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let page = r#"{"count": 3, "next": "http://elsewhere/?offset=1", "results": [{"id": 1}]}"#;
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let _ = socket.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", page.len());
                let _ = socket.write_all(format!("{head}{page}").as_bytes());
            }
        });
        let config = Config {
            common: Common {
                name: "n".into(),
                url: url.parse().unwrap(),
                tenant: "t".into(),
                partition: String::new(),
                every: Duration::from_secs(1),
                full_every: Duration::from_secs(1),
                pause: Duration::from_millis(1),
                page: 1,
                automatic: false,
                reach: Reach::Anywhere,
                leave_out: Arc::new(Prefixes::new(vec![("10.0.0.0/8".parse().unwrap(), ())])),
            },
            token: "hush".into(),
            vrf: BTreeMap::new(),
            interfaces: false,
        };
        let (_tell, stop) = Stop::new();
        let client = Client::new(&config.common, 1, &Room::of(1 << 20), stop).unwrap();
        let mut lists = Lists::new(&config, client, None);
        let mut page = lists.next().await.unwrap().unwrap();
        assert_eq!(page.len(), 1);
        // What is left out is only what has no other address.
        let of = |ip: &str| DeviceUpdate { ip: ip.to_owned(), ..DeviceUpdate::default() };
        page.extend(["10.1.2.3/24", "10.1.2.3, 192.0.2.1", "192.0.2.2", "10.1.2.3,10.0.0.1"].map(of));
        config.common.sift(&mut page);
        assert_eq!(page.iter().map(|update| update.ip.trim()).collect::<Vec<_>>(), ["", "192.0.2.1", "192.0.2.2"]);
        let ended = tokio::time::timeout(Duration::from_secs(10), lists.next()).await.unwrap();
        assert!(matches!(ended, Err(PullError::Short { listed: 1, of: 3, .. })), "{:?}", ended.map(|_| ()));
    }
}
