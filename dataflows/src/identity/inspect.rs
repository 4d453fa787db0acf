//! Reading what identity has arranged, between epochs: the records of a device, and the records that share something.
//!
//! Nothing is kept for it: the devices' arrangement is scanned, which takes some hundred milliseconds at a million
//! records. It is for people who ask why, not for queries.

use std::collections::BTreeSet;
use std::net::IpAddr;

use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::{Cursor, TraceReader};
use radarflow_proto::ports::{FoundRecord, MAX_FOUND, MAX_LISTED, MAX_OF_SITE, RecordQuery};
use radarflow_proto::record::{IdKind, Record, SourceKind};
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;
use timely::progress::Antichain;

use super::cross::claimed;
use super::relations::{Rel, Trace, Value};
use crate::records::{Live, Version};

/// What can be read of identity.
pub struct Inspect {
    members: Trace,
    /// Parts of one relation.
    uids: Vec<Trace>,
    settled: Trace,
    aliases: Trace,
}

/// What is wanted, by name.
enum Sought {
    Devices { tenant: Name, uids: BTreeSet<String> },
    Sharing { scope: Name, names: BTreeSet<Name>, macs: BTreeSet<u64> },
    Site { scope: Name },
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
            RecordQuery::Site { tenant, partition } => Sought::Site { scope: Scope::of(tenant, partition).name },
            RecordQuery::Listed { tenant, kind, instance } => {
                Sought::Listed { tenant: Scope::of(tenant, "").tenant_name, kind: *kind, instance: instance.clone() }
            }
            RecordQuery::Sharing { tenant, partition, identifiers } => {
                let scope = Scope::of(tenant, partition);
                let macs = identifiers.iter().filter(|id| id.kind == IdKind::Mac);
                Sought::Sharing {
                    names: identifiers.iter().map(|id| scope.id(id).name).collect(),
                    macs: macs.filter_map(|id| u64::from_str_radix(&id.value, 16).ok()).collect(),
                    scope: scope.name,
                }
            }
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
            Sought::Devices { tenant, .. } => says.scope.tenant_name == *tenant,
            Sought::Site { scope } => says.scope.name == *scope,
            Sought::Listed { tenant, kind, instance } => {
                says.kind == *kind && says.scope.tenant_name == *tenant && live.instance() == instance
            }
            Sought::Sharing { scope, names, macs } => {
                says.scope.name == *scope
                    && (says.ids.iter().any(|id| names.contains(&id.name))
                        || says.ips.iter().any(|ip| names.contains(&ip.name))
                        || says.macs.iter().any(|m| macs.contains(&m.value))
                        || says.shown.iter().any(|m| macs.contains(m)))
            }
        }
    }
}

impl Inspect {
    pub(super) fn new(members: &Rel<'_>, uids: [&Rel<'_>; 4], settled: &Rel<'_>, aliases: &Rel<'_>) -> Self {
        Inspect {
            members: members.trace(),
            uids: uids.into_iter().map(Rel::trace).collect(),
            settled: settled.trace(),
            aliases: aliases.trace(),
        }
    }

    /// Lets go of what was before an epoch.
    pub fn advance(&mut self, epoch: u64) {
        let frontier = Antichain::from_elem(epoch);
        for trace in [&mut self.members, &mut self.settled, &mut self.aliases].into_iter().chain(&mut self.uids) {
            trace.set_logical_compaction(frontier.borrow());
            trace.set_physical_compaction(frontier.borrow());
        }
    }

    /// This worker's share of the records that are wanted.
    pub fn find(&mut self, wanted: &RecordQuery) -> Vec<FoundRecord> {
        let sought = match wanted {
            RecordQuery::Remembered { records } => return self.remembered(records),
            wanted => Sought::of(wanted),
        };
        let mut found = Vec::new();
        for part in 0..self.uids.len() {
            self.find_part(part, &sought, &mut found);
        }
        found
    }

    fn find_part(&mut self, part: usize, sought: &Sought, found: &mut Vec<FoundRecord>) {
        let all = Antichain::new();
        let (Some(uids), Some(members)) =
            (self.uids[part].batches_through(all.borrow()), self.members.batches_through(all.borrow()))
        else {
            return;
        };
        let (mut uids, of_uids) = cursor_list(uids);
        let (mut members, of_members) = cursor_list(members);
        while let Some(device) = uids.get_key(&of_uids).copied() {
            let mut uid = None;
            values(&mut uids, &of_uids, |v| {
                if let Value::Uid(text) = v {
                    uid = Some(text.clone());
                }
            });
            uids.step_key(&of_uids);
            let Some(uid) = uid.filter(|uid| sought.device(uid)) else { continue };
            members.seek_key(&of_members, &device);
            if members.get_key(&of_members) != Some(&device) {
                continue;
            }
            values(&mut members, &of_members, |v| {
                if let Value::Member(live, how) = v
                    && sought.record(live)
                    && found.len() < sought.most()
                {
                    let (uid, how, stale) = (uid.to_string(), how.name(), live.stale);
                    found.push(FoundRecord { record: live.record(), uid, how, stale, ..FoundRecord::default() });
                }
            });
        }
    }

    /// This worker's share of what is remembered of records.
    fn remembered(&mut self, records: &[Record]) -> Vec<FoundRecord> {
        let all = Antichain::new();
        let (Some(settled), Some(aliases)) =
            (self.settled.batches_through(all.borrow()), self.aliases.batches_through(all.borrow()))
        else {
            return vec![];
        };
        let (mut settled, of_settled) = cursor_list(settled);
        let (mut aliases, of_aliases) = cursor_list(aliases);
        let remembered = |record: &Record| {
            let version = Version::new(record);
            let mut found = FoundRecord { record: record.clone(), ..FoundRecord::default() };
            for address in &version.says.ips {
                seek(&mut settled, &of_settled, claimed(version.key, address.name), |_| found.settled.push(address.ip));
            }
            seek(&mut aliases, &of_aliases, version.key, |v| {
                if let Value::Alias(at, ip) = v {
                    found.aliases.push((IpAddr::V6(*ip).to_canonical(), *at));
                }
            });
            found
        };
        records.iter().map(remembered).collect()
    }
}

/// The values of a name, wherever the cursor is.
fn seek<C>(cursor: &mut C, storage: &C::Storage, name: Name, each: impl FnMut(&Value))
where
    C: for<'a> Cursor<Key<'a> = &'a Name, Val<'a> = &'a Value, Diff = isize>,
{
    cursor.rewind_keys(storage);
    cursor.seek_key(storage, &name);
    if cursor.get_key(storage) == Some(&name) {
        values(cursor, storage, each);
    }
}

/// The values of the cursor's name that are there.
fn values<C>(cursor: &mut C, storage: &C::Storage, mut each: impl FnMut(&Value))
where
    C: for<'a> Cursor<Val<'a> = &'a Value, Diff = isize>,
{
    while let Some(value) = cursor.get_val(storage) {
        let mut count = 0;
        cursor.map_times(storage, |_, diff| count += C::owned_diff(diff));
        if count > 0 {
            each(value);
        }
        cursor.step_val(storage);
    }
}
