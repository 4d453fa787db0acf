//! Inventories that people state: which are asked follows from the integrations that stand.
//!
//! One is asked by a task of its own, which ends when the integration goes, is switched off, or is stated otherwise. Of a source that the
//! configuration file has as well, the file counts.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::Table;
use radarflow_reconcile::flows::prefixes::{Prefix, Prefixes};
use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Common, Inventory, Puller, armis, netbox, tell};
use crate::http;
use crate::reach::Reach;
use crate::sources::Stop;
use crate::sources::inventory::Runs;

/// First pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives the credential of an integration, or why there is none.
pub type Unseal = dyn Fn(&Resource) -> Result<String, String> + Send + Sync;

/// A tenant and the id of an integration.
type Key = (String, String);

/// The integrations that stand.
pub struct Stated {
    reach: Reach,
    /// Tenants and sources of the configuration file.
    configured: BTreeSet<(String, String)>,
    unseal: Box<Unseal>,
    of: Mutex<BTreeMap<Key, Arc<Resource>>>,
    changed: watch::Sender<()>,
}

/// An integration that is asked.
struct Asked {
    resource: Arc<Resource>,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Stated {
    /// None yet; these the configuration file has.
    pub fn new(reach: Reach, configured: BTreeSet<(String, String)>, unseal: Box<Unseal>) -> Self {
        Stated { reach, configured, unseal, of: Mutex::default(), changed: watch::channel(()).0 }
    }

    /// Takes in what an epoch says.
    pub fn learn(&self, changes: &[ResourceChange]) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_otherwise = false;
        for ResourceChange { before, after } in changes {
            let Some(resource) = after.as_ref().or(before.as_ref()) else { continue };
            if resource.resource != Table::Integration.name() {
                continue;
            }
            let key = (resource.tenant.clone(), resource.id.clone());
            match after {
                Some(after) => drop(of.insert(key, after.clone())),
                None => drop(of.remove(&key)),
            }
            is_otherwise = true;
        }
        drop(of);
        if is_otherwise {
            self.changed.send_replace(());
        }
    }

    fn standing(&self) -> BTreeMap<Key, Arc<Resource>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An inventory, for whoever wants it read now.
    pub(super) fn find(&self, tenant: &str, kind: &str, name: &str) -> Option<Result<Inventory, String>> {
        let resource = self.standing().remove(&(tenant.to_owned(), name.to_owned()))?;
        (resource.text("inventory") == Some(kind)).then(|| self.inventory(&resource))
    }

    fn is_configured(&self, of: &Resource) -> bool {
        self.configured.contains(&(of.tenant.clone(), source(of)))
    }

    /// Asks one until it ends.
    async fn ask(&self, of: &Resource, runs: Runs, mut stop: Stop) {
        let puller = self.inventory(of).and_then(|inventory| {
            Puller::new(inventory, runs.clone(), stop.clone()).map_err(|error| http::why(&error))
        });
        match puller {
            Ok(puller) => puller.run(stop).await,
            Err(why) => {
                tracing::warn!(source = source(of), %why, "an integration cannot be asked");
                // How the source of the file fares is for that to tell.
                if !self.is_configured(of) {
                    tell(&runs, &of.tenant, &source(of), Some(&why)).await;
                }
                stop.told().await;
            }
        }
    }

    fn inventory(&self, of: &Resource) -> Result<Inventory, String> {
        if self.is_configured(of) {
            return Err("the configuration file has a source of that name, which counts".to_owned());
        }
        let seconds = |field| Duration::from_secs(of.number(field).and_then(|s| u64::try_from(s).ok()).unwrap_or(3600));
        let text = |field| of.text(field).unwrap_or_default().to_owned();
        let leave_out = of.texts("leave_out");
        let leave_out =
            leave_out.iter().map(|text| Ok((text.parse::<Prefix>()?, ()))).collect::<Result<_, String>>()?;
        let is_armis = of.text("inventory") == Some("armis");
        let common = Common {
            name: of.id.clone(),
            url: Url::parse(&text("endpoint")).map_err(|error| format!("its endpoint: {error}"))?,
            tenant: of.tenant.clone(),
            partition: text("into_partition"),
            every: seconds("interval_s"),
            // Armis cannot tell what changed: every run is a full one.
            full_every: if is_armis { Duration::ZERO } else { seconds("full_interval_s") },
            pause: PAUSE,
            page: of.number("page_size").and_then(|n| usize::try_from(n).ok()).unwrap_or(250).max(1),
            automatic: of.flag("enabled"),
            reach: self.reach,
            leave_out: Arc::new(Prefixes::new(leave_out)),
        };
        let secret = (self.unseal)(of)?;
        if is_armis {
            let queries = Some(of.texts("queries")).filter(|queries| !queries.is_empty());
            let queries = queries.unwrap_or_else(|| vec![armis::EVERYTHING.to_owned()]);
            return Ok(Inventory::Armis(armis::Config { common, secret_key: secret, queries }));
        }
        let pair = |text: &String| text.split_once('=').map(|(vrf, site)| (vrf.to_owned(), site.to_owned()));
        let vrf = of.texts("vrfs").iter().filter_map(pair).collect();
        Ok(Inventory::NetBox(netbox::Config { common, token: secret, vrf, interfaces: of.flag("interfaces") }))
    }

    /// Asks what stands, until told to stop.
    pub async fn run(self: Arc<Self>, runs: Runs, mut stop: Stop) {
        let mut changed = self.changed.subscribe();
        let mut asked: BTreeMap<Key, Asked> = BTreeMap::new();
        // Those that were told to end: whoever comes after one waits for it.
        let mut ending: BTreeMap<Key, JoinHandle<()>> = BTreeMap::new();
        loop {
            ending.retain(|_, task| !task.is_finished());
            let mut standing = self.standing();
            standing.retain(|_, of| of.flag("enabled"));
            let is_otherwise = |key: &Key, asked: &Asked| {
                standing
                    .get(key)
                    .is_none_or(|of| (&of.fields, &of.secrets) != (&asked.resource.fields, &asked.resource.secrets))
            };
            let gone: Vec<Key> =
                asked.iter().filter(|(key, of)| is_otherwise(key, of)).map(|(key, _)| key.clone()).collect();
            for key in gone {
                let Some(Asked { resource, end, task }) = asked.remove(&key) else { continue };
                let stays = standing.contains_key(&key) || self.is_configured(&resource);
                let runs = runs.clone();
                end.send_replace(true);
                // It may wait for an answer meanwhile.
                let ends = tokio::spawn(async move {
                    let _ = task.await;
                    if !stays {
                        tell(&runs, &resource.tenant, &source(&resource), None).await;
                    }
                });
                ending.insert(key, ends);
            }
            for (key, resource) in standing {
                if let Entry::Vacant(place) = asked.entry(key) {
                    let (end, ends) = Stop::new();
                    let (before, this) = (ending.remove(place.key()), self.clone());
                    let (of, runs) = (resource.clone(), runs.clone());
                    let task = tokio::spawn(async move {
                        if let Some(before) = before {
                            let _ = before.await;
                        }
                        this.ask(&of, runs, ends).await;
                    });
                    place.insert(Asked { resource, end, task });
                }
            }
            tokio::select! {
                said = changed.changed() => if said.is_err() { return },
                () = stop.told() => {
                    asked.values().for_each(|asked| {
                        asked.end.send_replace(true);
                    });
                    return;
                }
            }
        }
    }
}

/// Names its source: `kind/instance`.
pub fn source(of: &Resource) -> String {
    format!("{}/{}", of.text("inventory").unwrap_or_default(), of.id)
}
