//! What identity reads of a record, by name, and what two records of different devices have in common.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::{IdKind, Identifier, Record, SourceKind};
use serde::{Deserialize, Serialize};

use super::name::{Name, name};
use super::normalise::short_hostname;
use super::{ClaimClass, top};

/// A (tenant, partition): nothing of identity crosses it. Compared by name.
#[derive(Debug)]
pub struct Scope {
    /// Names it.
    pub name: Name,
    /// Names the customer.
    pub tenant_name: Name,
    /// Customer.
    pub tenant: String,
    /// Site or address space.
    pub partition: String,
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Scope {}
impl PartialOrd for Scope {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scope {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}
impl std::hash::Hash for Scope {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.tenant, &self.partition).serialize(to)
    }
}
impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (tenant, partition) = <(String, String)>::deserialize(from)?;
        Ok(Scope::new(&tenant, &partition))
    }
}

/// Scopes a thread remembers; a cache.
const MAX_SCOPES: usize = 1024;

impl Scope {
    fn new(tenant: &str, partition: &str) -> Scope {
        Scope {
            name: name(&(tenant, partition)),
            tenant_name: name(&tenant),
            tenant: tenant.to_owned(),
            partition: partition.to_owned(),
        }
    }

    /// The scope; the same one for the same names on one thread, mostly.
    pub fn of(tenant: &str, partition: &str) -> Arc<Scope> {
        thread_local! {
            static KNOWN: RefCell<BTreeMap<(String, String), Arc<Scope>>> = const { RefCell::new(BTreeMap::new()) };
        }
        KNOWN.with_borrow_mut(|known| {
            let key = (tenant.to_owned(), partition.to_owned());
            if let Some(scope) = known.get(&key) {
                return scope.clone();
            }
            if known.len() >= MAX_SCOPES {
                known.clear();
            }
            let scope = Arc::new(Scope::new(tenant, partition));
            known.insert(key, scope.clone());
            scope
        })
    }

    /// The name of an identifier here.
    pub fn id(&self, id: &Identifier) -> Id {
        let value = match id.kind {
            IdKind::Mac => u64::from_str_radix(&id.value, 16).ok().map(|mac| mac_name(self.name, mac)),
            IdKind::Ip => id.value.parse().ok().map(|ip| ip_name(self.name, ip)),
            _ => None,
        };
        match value {
            // MACs and addresses exclude nothing: each is a namespace of its own.
            Some(name) => Id { name, namespace: name },
            None => Id {
                name: name(&(self.name, id.kind, &id.namespace, &id.value)),
                namespace: name(&(self.name, id.kind, &id.namespace)),
            },
        }
    }
}

/// The name of a MAC in a scope.
pub fn mac_name(scope: Name, mac: u64) -> Name {
    name(&(scope, IdKind::Mac, mac))
}

/// The name of an address in a scope.
pub fn ip_name(scope: Name, ip: IpAddr) -> Name {
    name(&(scope, IdKind::Ip, ip))
}

/// A MAC as an identifier.
pub fn mac_identifier(mac: u64) -> Identifier {
    Identifier { kind: IdKind::Mac, namespace: String::new(), value: format!("{mac:012X}") }
}

/// An identifier by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    /// Itself, in its scope.
    pub name: Name,
    /// Its namespace, in its scope: a device has at most one value of it.
    pub namespace: Name,
}

/// Whether a MAC is globally administered: only those identify.
pub fn is_global(mac: u64) -> bool {
    mac & 0x0200_0000_0000 == 0
}

/// A MAC that a record asserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac {
    /// The MAC.
    pub value: u64,
    /// Its name in the record's scope.
    pub name: Name,
}

/// An address that a record claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Its name in the record's scope.
    pub name: Name,
}

/// What a record asserts.
#[derive(Clone, Debug)]
pub struct Assertions {
    /// Where.
    pub scope: Arc<Scope>,
    /// Who says it.
    pub kind: SourceKind,
    /// Whether it says that the item is gone.
    pub deleted: bool,
    /// The source's own time.
    pub at: Time,
    /// Strong identifiers, the one it belongs by first.
    pub ids: Box<[Id]>,
    /// MACs asserted as identity, sorted.
    pub macs: Box<[Mac]>,
    /// MACs that only corroborate, sorted.
    pub shown: Box<[u64]>,
    /// Addresses claimed, the polled or primary one first.
    pub ips: Box<[Address]>,
    /// Names the short host name.
    pub host: Option<Name>,
}

impl Assertions {
    /// Of a record.
    pub fn of(record: &Record) -> Self {
        let scope = Scope::of(&record.key.tenant, &record.partition);
        let top = top(record);
        let others = record.ids.iter().filter(|id| Some(*id) != top);
        let mut ids: Vec<Id> = Vec::with_capacity(record.ids.len());
        for id in top.into_iter().chain(others).map(|id| scope.id(id)) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let macs = |list: &[String]| {
            let mut macs: Vec<u64> = list.iter().filter_map(|m| u64::from_str_radix(m, 16).ok()).collect();
            macs.sort_unstable();
            macs.dedup();
            macs
        };
        let asserted = macs(&record.macs);
        Assertions {
            kind: record.key.kind,
            deleted: record.deleted,
            at: record.event_time,
            ids: ids.into_boxed_slice(),
            macs: asserted.into_iter().map(|value| Mac { value, name: mac_name(scope.name, value) }).collect(),
            shown: macs(&record.macs_shown).into_boxed_slice(),
            ips: record.ips.iter().map(|ip| Address { ip: *ip, name: ip_name(scope.name, *ip) }).collect(),
            host: record.hostname.as_deref().map(|h| name(&short_hostname(h))),
            scope,
        }
    }

    /// The strong identifier it belongs by.
    pub fn top(&self) -> Option<Id> {
        self.ids.first().copied()
    }

    /// The address of a record that is known by nothing else: the polled one, else the first.
    pub fn address(&self) -> Option<Address> {
        self.ips.first().copied()
    }

    /// MACs that can identify.
    pub fn global_macs(&self) -> impl Iterator<Item = Mac> + '_ {
        self.macs.iter().copied().filter(|m| is_global(m.value))
    }

    /// Whether its claims can link: inventory class or above, whether or not an agent was heard lately.
    pub fn claims_for_links(&self) -> bool {
        ClaimClass::of(self.kind) >= ClaimClass::Inventory
    }

    fn shows(&self, mac: u64) -> bool {
        self.macs.binary_search_by_key(&mac, |m| m.value).is_ok() || self.shown.binary_search(&mac).is_ok()
    }
}

/// What two records that claim the same address have in common beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// Equal short host names: that is enough.
    pub host: bool,
    /// MACs that both assert or show: any of them is enough, unless it is asserted all over the place.
    pub macs: Vec<u64>,
    /// Both have host names, and they differ: then the address alone is never enough.
    pub names_differ: bool,
}

/// Compares two records that claim one address.
pub fn same_address(a: &Assertions, b: &Assertions) -> Common {
    let host = a.host.is_some() && a.host == b.host;
    let macs = a.macs.iter().map(|m| m.value).chain(a.shown.iter().copied()).filter(|m| b.shows(*m)).collect();
    Common { host, macs, names_differ: a.host.is_some() && b.host.is_some() && !host }
}

/// Whether two records that assert one global MAC are one device for it.
pub fn same_mac(a: &Assertions, b: &Assertions) -> bool {
    a.host.is_some() && a.host == b.host
}
