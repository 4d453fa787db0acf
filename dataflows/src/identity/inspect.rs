//! Reading what identity keeps, between epochs: the records of a device, and the records that share something.
//!
//! Nothing is kept for it: the published records of the tenant's sites are looked through, which takes some ten
//! milliseconds at a million records. It is for people who ask why, not for queries.

use std::collections::BTreeSet;

use radarflow_proto::ports::{FoundRecord, MAX_FOUND, MAX_LISTED, MAX_OF_SITE, RecordQuery};
use radarflow_proto::record::{IdKind, Record, SourceKind};
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::{Name, name};

use super::machine::Tenants;
use crate::records::{Live, Version};

/// What can be read of identity.
pub struct Inspect {
    tenants: Tenants,
}

/// What is wanted, by name.
enum Sought {
    Devices { tenant: Name, uids: BTreeSet<String> },
    Sharing { tenant: Name, scope: Name, names: BTreeSet<Name>, macs: BTreeSet<u64> },
    Site { tenant: Name, scope: Name },
    Listed { tenant: Name, kind: SourceKind, instance: String },
}

impl Sought {
    fn of(wanted: &RecordQuery) -> Self {
        match wanted {
            RecordQuery::Devices { tenant, uids } => {
                Sought::Devices { tenant: Scope::of(tenant, "").tenant_name, uids: uids.iter().cloned().collect() }
            }
            // Not looked for among devices.
            RecordQuery::Remembered { .. } => Sought::Devices { tenant: Name::default(), uids: BTreeSet::new() },
            RecordQuery::Site { tenant, partition } => {
                let scope = Scope::of(tenant, partition);
                Sought::Site { tenant: scope.tenant_name, scope: scope.name }
            }
            RecordQuery::Listed { tenant, kind, instance } => {
                Sought::Listed { tenant: Scope::of(tenant, "").tenant_name, kind: *kind, instance: instance.clone() }
            }
            RecordQuery::Sharing { tenant, partition, identifiers } => {
                let scope = Scope::of(tenant, partition);
                let macs = identifiers.iter().filter(|id| id.kind == IdKind::Mac);
                Sought::Sharing {
                    names: identifiers.iter().map(|id| scope.id(id).name).collect(),
                    macs: macs.filter_map(|id| u64::from_str_radix(&id.value, 16).ok()).collect(),
                    tenant: scope.tenant_name,
                    scope: scope.name,
                }
            }
        }
    }

    fn tenant(&self) -> Name {
        match self {
            Sought::Devices { tenant, .. }
            | Sought::Sharing { tenant, .. }
            | Sought::Site { tenant, .. }
            | Sought::Listed { tenant, .. } => *tenant,
        }
    }

    fn scope(&self) -> Option<Name> {
        match self {
            Sought::Sharing { scope, .. } | Sought::Site { scope, .. } => Some(*scope),
            Sought::Devices { .. } | Sought::Listed { .. } => None,
        }
    }

    fn device(&self, uid: &str) -> bool {
        match self {
            Sought::Devices { uids, .. } => uids.contains(uid),
            Sought::Sharing { .. } | Sought::Site { .. } | Sought::Listed { .. } => true,
        }
    }

    fn most(&self) -> usize {
        match self {
            Sought::Site { .. } => MAX_OF_SITE,
            Sought::Listed { .. } => MAX_LISTED,
            _ => MAX_FOUND,
        }
    }

    fn record(&self, live: &Live) -> bool {
        let says = &live.says;
        match self {
            Sought::Devices { .. } | Sought::Site { .. } => true,
            Sought::Listed { kind, instance, .. } => says.kind == *kind && live.instance() == instance,
            Sought::Sharing { names, macs, .. } => {
                says.ids.iter().any(|id| names.contains(&id.name))
                    || says.ips.iter().any(|ip| names.contains(&ip.name))
                    || says.macs.iter().any(|m| macs.contains(&m.value))
                    || says.shown.iter().any(|m| macs.contains(m))
            }
        }
    }
}

impl Inspect {
    pub(super) fn new(tenants: Tenants) -> Self {
        Inspect { tenants }
    }

    /// This worker's share of the records that are wanted.
    pub fn find(&self, wanted: &RecordQuery) -> Vec<FoundRecord> {
        let sought = match wanted {
            RecordQuery::Remembered { records } => return self.remembered(records),
            wanted => Sought::of(wanted),
        };
        let tenants = self.tenants.borrow();
        let sites = tenants.get(&sought.tenant()).into_iter().flat_map(|tenant| &tenant.sites);
        let sites = sites.filter(|(scope, _)| sought.scope().is_none_or(|of| of == **scope));
        let placed = sites.flat_map(|(_, site)| site.placed());
        let found =
            placed.filter(|(live, _, uid)| sought.device(uid) && sought.record(live)).map(|(live, how, uid)| {
                let (uid, how, stale) = (uid.to_string(), how.name(), live.stale);
                FoundRecord { record: live.record(), uid, how, stale, ..FoundRecord::default() }
            });
        found.take(sought.most()).collect()
    }

    /// This worker's share of what is remembered of records.
    fn remembered(&self, records: &[Record]) -> Vec<FoundRecord> {
        let tenants = self.tenants.borrow();
        let remembered = |record: &Record| {
            let scope = Scope::of(&record.key.tenant, &record.partition);
            let mut found = FoundRecord { record: record.clone(), ..FoundRecord::default() };
            if let Some(site) = tenants.get(&scope.tenant_name).and_then(|tenant| tenant.sites.get(&scope.name)) {
                let settled = site.settled(name(&record.key));
                let addresses = Version::new(record).says.ips.into_iter();
                found.settled = addresses.filter(|address| settled.contains(&address.name)).map(|a| a.ip).collect();
                found.aliases = site.aliases(name(&record.key)).collect();
            }
            found
        };
        records.iter().map(remembered).collect()
    }
}
