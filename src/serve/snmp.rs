//! Who may send notifications of SNMPv3: the users of each tenant that has a listener, and our engine, whose starts are counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use radarflow_connectors::ledger::DataDir;
use radarflow_connectors::sources::engine;
use radarflow_connectors::sources::udp::{Datagrams, Notifications};
use radarflow_proto::disk::Disk;
use radarflow_proto::snmp::usm::{MAX_USERS, User, Usm};

use crate::config::{Config, SnmpUser};

/// The file of our engine.
const FILE: &str = "snmp-engine";

/// Who may say something.
pub(super) struct Speakers {
    key: Arc<[u8]>,
    started: Instant,
    by_tenant: BTreeMap<String, Arc<Usm>>,
}

impl Speakers {
    /// Those of the configuration. `key` hashes communities.
    pub(super) fn open(config: &Config, disk: &dyn Disk, dir: &DataDir, key: &[u8]) -> Result<Self> {
        let own = Arc::new(engine::start(disk, &dir.path(FILE))?);
        tracing::debug!(engine = hex::encode(own.id()), "SNMP engine");
        let started = Instant::now();
        let mut by_tenant = BTreeMap::new();
        for socket in &config.traps {
            if !by_tenant.contains_key(&socket.tenant) {
                let users = made(&of(config, &socket.tenant))?;
                by_tenant.insert(socket.tenant.clone(), Arc::new(Usm::new(own.clone(), users)));
            }
        }
        Ok(Speakers { key: Arc::from(key), started, by_tenant })
    }

    /// How a listener of a tenant reads notifications.
    pub(super) fn datagrams(&self, tenant: &str) -> Option<Datagrams> {
        let usm = self.by_tenant.get(tenant)?.clone();
        Some(Datagrams::Traps(Notifications { key: self.key.clone(), usm, started: self.started }))
    }

    /// The users of the configuration as it is now, of tenants that had others; nothing is changed yet.
    pub(super) fn again(&self, config: &Config) -> Result<Vec<Exchange>> {
        let of_tenant = |(tenant, usm): (&String, &Arc<Usm>)| {
            Ok(Exchange { usm: usm.clone(), tenant: tenant.clone(), users: made(&of(config, tenant))? })
        };
        let all = self.by_tenant.iter().map(of_tenant).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().filter(|exchange| *exchange.usm.users() != exchange.users).collect())
    }
}

/// Users of a tenant that are to be others.
pub(super) struct Exchange {
    usm: Arc<Usm>,
    tenant: String,
    users: Vec<User>,
}

impl Exchange {
    /// Does it, and tells of it.
    pub(super) fn done(self) -> String {
        let told = format!("{} users of SNMPv3 of {}", self.users.len(), self.tenant);
        self.usm.exchange(self.users);
        told
    }
}

fn of<'a>(config: &'a Config, tenant: &str) -> Vec<&'a SnmpUser> {
    config.snmp_users.iter().filter(|user| user.tenant == tenant).collect()
}

fn made(users: &[&SnmpUser]) -> Result<Vec<User>> {
    if users.len() > MAX_USERS {
        bail!("[[snmp_users]]: {} of one tenant; {MAX_USERS} are the most", users.len());
    }
    let user = |user: &&SnmpUser| user.user().and_then(|config| User::new(&config));
    users.iter().map(|of| user(of).map_err(|why| anyhow!("[[snmp_users]] {}: {why}", of.name))).collect()
}
