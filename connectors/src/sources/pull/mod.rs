//! Inventories that are asked: Armis and NetBox.
//!
//! A run pages through the inventory, stages every page under one run, and ends it. A run that listed everything says so,
//! and what it lacks is withdrawn (see `dataflows::listings`, which also has the brake); one that broke off says that it
//! did: what came is taken, nothing is withdrawn. Between full runs, a source that can tell what changed is asked for
//! that alone.
//!
//! What fails is tried again ([`retry`]): after 429 as its `Retry-After` says, 5xx and network errors. A run
//! that fails for good is an alert (`sync-failed`) until one succeeds.

pub mod armis;
pub mod netbox;
pub mod stated;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backon::Retryable;
use radarflow_proto::body::Memory;
use radarflow_proto::fact::{Fact, OwnCondition};
use radarflow_proto::payload::DeviceUpdate;
use radarflow_proto::ports::{AppendError, AskedInventories, Ending, InventoryRun, ReadError, RunOf};
use radarflow_proto::record::SourceKind;
use radarflow_proto::room::{NoRoom, Room};
use radarflow_reconcile::flows::prefixes::Prefixes;
use reqwest::{ClientBuilder, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use thiserror::Error;

use self::stated::Stated;
use super::inventory::Runs;
use super::{Stop, now_us};
use crate::reach::{self, Reach};
use crate::{http, retry};

/// The rule of the alert that an inventory cannot be read.
pub const FAILED: &str = "sync-failed";
/// Largest answer, bytes.
pub const MAX_ANSWER: usize = 64 << 20;
/// What an answer becomes, for each of its bytes: the buffer it is read into, which doubles, and what is made of it.
const ANSWER_FACTOR: usize = 10;
/// Times a request is sent.
pub(crate) const TRIES: u32 = 6;
/// The same where somebody waits for the answer.
const ASKED_TRIES: u32 = 3;
/// Memory of a look at an inventory by a process that does nothing else, bytes.
const ALONE: usize = 4 << 30;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Items of a run: a listing without end is none.
const MAX_ITEMS: usize = 5_000_000;
/// Changes are asked for from this long before the last run began: clocks differ, and transactions take time.
const OVERLAP_US: i64 = 60_000_000;

/// What every inventory needs to be told.
#[derive(Clone, Debug)]
pub struct Common {
    /// Names the source instance.
    pub name: String,
    /// Where its API begins, a path prefix included.
    pub url: Url,
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// Time between two runs.
    pub every: Duration,
    /// Time between two full runs.
    pub full_every: Duration,
    /// First pause after a failure.
    pub pause: Duration,
    /// Items a page.
    pub page: usize,
    /// It is read by itself; otherwise only when somebody asks for a plan.
    pub automatic: bool,
    /// Where it may be.
    pub reach: Reach,
    /// Addresses that are left out; what has no other is left out itself.
    pub leave_out: Arc<Prefixes<()>>,
}

impl Common {
    /// Takes out the addresses that are left out, and what has no others.
    fn sift(&self, page: &mut Vec<DeviceUpdate>) {
        page.retain_mut(|update| {
            // A NetBox writes the length of the network behind an address.
            let address = |text: &str| text.trim().split('/').next()?.parse().ok();
            let is_out = |text: &str| address(text).is_some_and(|ip| self.leave_out.find(ip).is_some());
            if update.ip.split(',').any(is_out) {
                let left: Vec<&str> = update.ip.split(',').filter(|text| !is_out(text)).collect();
                update.ip = left.join(",");
                return !update.ip.trim().is_empty();
            }
            true
        });
    }
}

/// An inventory.
#[derive(Clone, Debug)]
pub enum Inventory {
    /// Armis.
    Armis(armis::Config),
    /// NetBox.
    NetBox(netbox::Config),
}

impl Inventory {
    fn common(&self) -> &Common {
        match self {
            Inventory::Armis(config) => &config.common,
            Inventory::NetBox(config) => &config.common,
        }
    }

    /// Customer.
    pub fn tenant(&self) -> &str {
        &self.common().tenant
    }

    /// Names it: `kind/instance`.
    pub fn source(&self) -> String {
        format!("{}/{}", self.kind().name(), self.common().name)
    }

    /// Whether it is read by itself.
    pub fn is_automatic(&self) -> bool {
        self.common().automatic
    }

    /// A run of it that begins now.
    fn run_of(&self) -> RunOf {
        let common = self.common();
        RunOf {
            tenant: common.tenant.clone(),
            partition: common.partition.clone(),
            bound: false,
            kind: self.kind(),
            name: self.kind().name().to_owned(),
            instance: common.name.clone(),
            run: format!("{}-{}", common.name, now_us() / 1000),
        }
    }

    fn kind(&self) -> SourceKind {
        match self {
            Inventory::Armis(_) => SourceKind::Armis,
            Inventory::NetBox(_) => SourceKind::NetBox,
        }
    }
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum PullError {
    /// Nobody answers, or breaks off.
    #[error("{url}: {why}")]
    Network {
        /// What was asked.
        url: String,
        /// Why.
        why: String,
    },
    /// The answer is a refusal.
    #[error("{url} answers {status}: {said}")]
    Refused {
        /// What was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// What it says, in short.
        said: String,
    },
    /// The answer is not what its documentation says.
    #[error("{url} answers what cannot be read: {why}")]
    Unreadable {
        /// What was asked.
        url: String,
        /// Why.
        why: String,
    },
    /// It is where this program does not go for people.
    #[error("{url}: {why}: the configuration file allows it with private_addresses = true")]
    Private {
        /// What would have been asked.
        url: String,
        /// Why.
        why: String,
    },
    /// There is no memory for the answer.
    #[error("{url}: {why}; ask for smaller pages, or raise memory_limit_mib")]
    NoRoom {
        /// What was asked.
        url: String,
        /// Why.
        why: NoRoom,
    },
    /// The list ended before it was whole.
    #[error("{url} lists {listed} of {of} items")]
    Short {
        /// What was asked.
        url: String,
        /// Items that came.
        listed: usize,
        /// Items there are said to be.
        of: usize,
    },
    /// The ledger does not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The process is stopping.
    #[error("shutting down")]
    Stopped,
}

/// Pages of one run.
trait Pages: Send {
    /// The next page; `None` after the last.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<DeviceUpdate>>, PullError>> + Send;
}

/// An HTTP client that tries again.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    pause: Duration,
    tries: u32,
    /// What its answers take, since it last asked for a page.
    memory: Memory,
    stop: Stop,
    /// Why it is not asked at all.
    private: Option<String>,
}

impl Client {
    pub(crate) fn new(common: &Common, tries: u32, room: &Arc<Room>, stop: Stop) -> Result<Self, reqwest::Error> {
        // A redirect would take the token elsewhere.
        let said = |client: ClientBuilder| client.timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let (http, private) = match common.reach {
            Reach::Anywhere => (http::client(said)?, None),
            Reach::Public => (reach::client(said)?, reach::private_host(common.url.as_str())),
        };
        let memory = Memory::new(room.hold_for(&common.tenant, &common.name));
        Ok(Client { http, base: common.url.clone(), pause: common.pause, tries, memory, stop, private })
    }

    /// What was answered before is needed no more.
    pub(crate) fn forget(&self) {
        self.memory.give_back();
    }

    /// A path below the base, which keeps its own.
    pub(crate) fn url(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends until there is an answer that is none of "later" and "broken".
    async fn send(
        &self,
        url: &Url,
        request: impl Fn() -> RequestBuilder + Sync,
    ) -> Result<(StatusCode, Vec<u8>), PullError> {
        let shown = shown(url);
        if let Some(why) = self.private.clone() {
            return Err(PullError::Private { url: shown, why });
        }
        let attempt = || async {
            if self.stop.is_told() {
                return Err(Failed { error: PullError::Stopped, again: false, asked: None });
            }
            match self.once(&shown, request()).await {
                Ok((status, asked, said)) if later(status) => {
                    let error = PullError::Refused { url: shown.clone(), status, said: brief(&said) };
                    Err(Failed { error, again: true, asked })
                }
                Ok((status, _, said)) => Ok((status, said)),
                Err(error) => {
                    let no_room = matches!(error, PullError::NoRoom { why: NoRoom::Own | NoRoom::Others, .. });
                    let broke = matches!(&error, PullError::Network { why, .. } if !why.contains(reach::ONLY_PRIVATE));
                    let again = no_room || broke;
                    Err(Failed { again, error, asked: None })
                }
            }
        };
        let pauses = retry::endless(self.pause, LONGEST_PAUSE).with_max_times(self.tries.saturating_sub(1) as usize);
        let answer = attempt
            .retry(pauses)
            .sleep(retry::until_told(&self.stop))
            .when(|failed| failed.again)
            .adjust(|failed, pause| pause.map(|pause| failed.asked.unwrap_or(pause).min(LONGEST_PAUSE)))
            .notify(|failed, pause| tracing::debug!(failed = %failed.error, ?pause, "asked again later"));
        answer.await.map_err(|failed| failed.error)
    }

    async fn once(
        &self,
        shown: &str,
        request: RequestBuilder,
    ) -> Result<(StatusCode, Option<Duration>, Vec<u8>), PullError> {
        let network = |error: reqwest::Error| PullError::Network { url: shown.to_owned(), why: http::why(&error) };
        let response = request.send().await.map_err(network)?;
        let retry_after = response.headers().get(reqwest::header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|v| v.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
        let status = response.status();
        let mut no_room = None;
        let takes = |bytes: usize| match self.memory.grow(bytes * ANSWER_FACTOR) {
            Ok(()) => true,
            Err(no) => {
                no_room = Some(no);
                false
            }
        };
        let said = http::whole(response, MAX_ANSWER, takes).await.map_err(network)?;
        let Some(said) = said else {
            if let Some(why) = no_room {
                return Err(PullError::NoRoom { url: shown.to_owned(), why });
            }
            let why = format!("more than {MAX_ANSWER} bytes; ask for smaller pages");
            return Err(PullError::Unreadable { url: shown.to_owned(), why });
        };
        Ok((status, retry_after, said))
    }
}

/// Why a request has no answer, and what comes of it.
struct Failed {
    error: PullError,
    /// The same request may succeed later.
    again: bool,
    /// After so long, as the server says.
    asked: Option<Duration>,
}

/// Whether the same request may succeed later.
fn later(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

/// A URL as errors show it: without what it asks for.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// The beginning of an answer, for an error.
fn brief(said: &[u8]) -> String {
    String::from_utf8_lossy(&said[..said.len().min(200)]).replace(char::is_control, " ")
}

/// Reads an answer that should be fine.
pub(crate) fn read<T: DeserializeOwned>(url: &Url, status: StatusCode, said: &[u8]) -> Result<T, PullError> {
    if !status.is_success() {
        return Err(PullError::Refused { url: shown(url), status, said: brief(said) });
    }
    serde_json::from_slice(said).map_err(|e| PullError::Unreadable { url: shown(url), why: e.to_string() })
}

/// Counts what a list gave, so that a list that ended early is found out.
#[derive(Default)]
struct Tally {
    seen: BTreeSet<u64>,
}

impl Tally {
    /// Whether everything came that there is said to be.
    fn check(&self, url: &Url, of: usize) -> Result<(), PullError> {
        if self.seen.len() < of {
            return Err(PullError::Short { url: shown(url), listed: self.seen.len(), of });
        }
        Ok(())
    }
}

/// Whether an inventory can be asked.
///
/// # Errors
/// [`PullError`] where it does not answer, refuses the credentials, or answers something else.
pub async fn check(inventory: &Inventory) -> Result<(), PullError> {
    let mut inventory = inventory.clone();
    let (Inventory::Armis(armis::Config { common, .. }) | Inventory::NetBox(netbox::Config { common, .. })) =
        &mut inventory;
    common.page = 1;
    let (_tell, stop) = Stop::new();
    let room = Room::of(ALONE);
    let client = Client::new(common, 1, &room, stop)
        .map_err(|error| PullError::Network { url: shown(&common.url), why: http::why(&error) })?;
    match &inventory {
        Inventory::Armis(config) => armis::Search::new(config, client).next().await.map(drop),
        Inventory::NetBox(config) => netbox::Lists::new(config, client, None).next().await.map(drop),
    }
}

/// Asks an inventory from now on, until told to stop.
///
/// # Errors
/// Where no HTTP client can be made.
pub fn start(inventory: Inventory, runs: Runs, stop: Stop) -> Result<(), reqwest::Error> {
    tokio::spawn(Puller::new(inventory, runs, stop.clone())?.run(stop));
    Ok(())
}

/// Reads everything an inventory lists, or what changed since, into a run; counts the items.
async fn read_all(
    inventory: &Inventory,
    client: &Client,
    since_us: Option<i64>,
    run: &mut dyn InventoryRun,
    items: &mut usize,
) -> Result<(), PullError> {
    match inventory {
        Inventory::Armis(config) => {
            let search = armis::Search::new(config, client.clone());
            read_pages(search, (SourceKind::Armis, &config.common), client, run, items).await
        }
        Inventory::NetBox(config) => {
            let lists = netbox::Lists::new(config, client.clone(), since_us);
            read_pages(lists, (SourceKind::NetBox, &config.common), client, run, items).await
        }
    }
}

async fn read_pages(
    mut pages: impl Pages,
    (kind, common): (SourceKind, &Common),
    client: &Client,
    run: &mut dyn InventoryRun,
    items: &mut usize,
) -> Result<(), PullError> {
    let (mut listed, mut stop) = (0, client.stop.clone());
    loop {
        client.forget();
        let Some(mut page) = pages.next().await? else { break };
        listed += page.len();
        if listed > MAX_ITEMS {
            let why = format!("it lists more than {MAX_ITEMS} items");
            return Err(PullError::Unreadable { url: shown(&common.url), why });
        }
        common.sift(&mut page);
        *items += page.len();
        page.iter_mut().for_each(|update| kind.name().clone_into(&mut update.source));
        // There may be no room for a while.
        tokio::select! {
            taken = run.page(page) => taken?,
            () = stop.told() => return Err(PullError::Stopped),
        }
        if client.stop.is_told() {
            return Err(PullError::Stopped);
        }
    }
    client.forget();
    Ok(())
}

/// The inventories of the configuration, and those that people state, for whoever wants one read now.
pub struct Asked {
    inventories: Vec<Inventory>,
    stated: Arc<Stated>,
    room: Arc<Room>,
    stop: Stop,
}

impl Asked {
    /// These, whose answers have their memory of a room, until told to stop.
    pub fn new(inventories: Vec<Inventory>, stated: Arc<Stated>, room: Arc<Room>, stop: Stop) -> Self {
        Asked { inventories, stated, room, stop }
    }

    fn find(&self, tenant: &str, name: &str, instance: &str) -> Option<Result<Inventory, String>> {
        let is = |i: &&Inventory| (i.tenant(), i.kind().name(), i.common().name.as_str()) == (tenant, name, instance);
        let configured = self.inventories.iter().find(is).cloned().map(Ok);
        configured.or_else(|| self.stated.find(tenant, name, instance))
    }
}

#[async_trait]
impl AskedInventories for Asked {
    fn run_of(&self, tenant: &str, name: &str, instance: &str) -> Option<RunOf> {
        self.find(tenant, name, instance)?.ok().map(|inventory| inventory.run_of())
    }

    async fn read(&self, of: &RunOf, into: &mut dyn InventoryRun) -> Result<(), ReadError> {
        let Some(inventory) = self.find(&of.tenant, &of.name, &of.instance) else {
            return Err(ReadError::Source(format!("there is no inventory {}/{}", of.name, of.instance)));
        };
        let inventory = &inventory.map_err(ReadError::Source)?;
        let client = Client::new(inventory.common(), ASKED_TRIES, &self.room, self.stop.clone())
            .map_err(|error| ReadError::Source(http::why(&error)))?;
        read_all(inventory, &client, None, into, &mut 0).await.map_err(|error| match error {
            PullError::Append(error) => ReadError::Append(error),
            error => ReadError::Source(error.to_string()),
        })
    }
}

struct Puller {
    inventory: Inventory,
    common: Common,
    client: Client,
    runs: Runs,
}

impl Puller {
    fn new(inventory: Inventory, runs: Runs, stop: Stop) -> Result<Self, reqwest::Error> {
        let common = inventory.common().clone();
        let client = Client::new(&common, TRIES, runs.memory(), stop)?;
        Ok(Puller { inventory, common, client, runs })
    }

    /// Asks until told to stop.
    async fn run(self, mut stop: Stop) {
        // Since when changes are unknown; nothing is known at first.
        let mut known_us: Option<i64> = None;
        let mut full_due = Instant::now();
        let mut failing = None;
        loop {
            let began_us = now_us();
            let full = known_us.is_none() || Instant::now() >= full_due;
            let since = known_us.filter(|_| !full).map(|us| us - OVERLAP_US);
            let result = self.once(since).await;
            let source = self.inventory.source();
            match &result {
                Ok(items) => {
                    tracing::info!(source, items, full, "an inventory was read");
                    known_us = Some(began_us);
                    if full {
                        full_due = Instant::now() + self.common.full_every;
                    }
                }
                Err(PullError::Stopped | PullError::Append(AppendError::Closed)) => return,
                Err(error) => tracing::warn!(source, %error, full, "an inventory could not be read"),
            }
            let failed = result.as_ref().err().map(ToString::to_string);
            let tell = tell(&self.runs, &self.common.tenant, &source, failed.as_deref());
            if failing != Some(failed.is_some()) && tell.await {
                failing = Some(failed.is_some());
            }
            tokio::select! {
                () = tokio::time::sleep(self.common.every) => {}
                () = stop.told() => return,
            }
        }
    }

    /// One run: of everything, or of what changed.
    async fn once(&self, since_us: Option<i64>) -> Result<usize, PullError> {
        let full = since_us.is_none();
        let mut run = Box::new(self.runs.run(self.inventory.run_of()));
        let mut items = 0;
        let result = read_all(&self.inventory, &self.client, since_us, &mut *run, &mut items).await;
        // What was told to stop may be asked otherwise from now on.
        if matches!(result, Err(PullError::Stopped)) {
            run.discard().await?;
            return Err(PullError::Stopped);
        }
        // A listing without items is one, too; a part without any is nothing.
        if items > 0 || (full && result.is_ok()) {
            run.end(if full && result.is_ok() { Ending::Whole } else { Ending::Part }, None).await?;
        }
        result.map(|()| items)
    }
}

/// Says whether an inventory can be read; tells whether that is durable.
async fn tell(runs: &Runs, tenant: &str, source: &str, failed: Option<&str>) -> bool {
    let condition = OwnCondition {
        tenant: tenant.to_owned(),
        rule: FAILED.to_owned(),
        entity: source.to_owned(),
        severity: "warning".to_owned(),
        title: format!("{source} cannot be read"),
        description: failed.unwrap_or_default().to_owned(),
        holds: failed.is_some(),
    };
    runs.say(tenant, &Fact::Condition(condition)).await.is_ok()
}
