//! Why a device is one, and why two devices are two: answers with witnesses, from the live records themselves.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::ports::{FoundRecord, RecordQuery};
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_proto::rows::{Device, DeviceIdentifier, DeviceRedirect, IpOwnership, Link};
use radarflow_reconcile::identity::explain::{IdentityContext, Placed, apart, explain, label};
use radarflow_reconcile::identity::name::seed;
use serde_json::{Value, json};

use crate::records::{Refused, Sight};
use crate::tables::names::named;

/// Identifiers whose other holders are looked for.
const MAX_SHARED: usize = 500;

fn placed(found: FoundRecord) -> Placed {
    Placed { record: found.record, uid: found.uid, how: found.how }
}

/// Everything a record asserts, shows or claims.
fn names(records: &[Placed]) -> Vec<Identifier> {
    let weak = |kind, value: String| Identifier { kind, namespace: String::new(), value };
    let mut names = BTreeSet::new();
    for placed in records {
        let record = &placed.record;
        names.extend(record.ids.iter().cloned());
        names.extend(record.macs.iter().chain(&record.macs_shown).map(|m| weak(IdKind::Mac, m.clone())));
        names.extend(record.ips.iter().map(|ip| weak(IdKind::Ip, ip.to_string())));
    }
    names.into_iter().take(MAX_SHARED).collect()
}

impl Sight<'_> {
    async fn placed(&self, wanted: RecordQuery) -> Result<Vec<Placed>, Refused> {
        Ok(self.finder.find(&self.actor.tenant, wanted).await?.into_iter().map(placed).collect())
    }

    /// What the live tables know of these identifiers.
    fn known(&self, partition: &str, names: &[Identifier]) -> IdentityContext {
        let (view, actor) = (self.view, self.actor);
        let mut known = IdentityContext { policy: self.policy, ..IdentityContext::default() };
        known.links = view.rows::<Link>(&actor.tenant).into_iter().filter(|l| l.partition == partition).collect();
        let values: BTreeSet<&str> = names.iter().map(|id| id.value.as_str()).collect();
        for owned in view.rows_where_any::<IpOwnership>(&actor.tenant, "ip", &values) {
            if owned.partition == partition {
                known.owners.extend(owned.device_uid.map(|uid| (owned.ip, uid)));
            }
        }
        for row in view.rows_where_any::<DeviceIdentifier>(&actor.tenant, "identifier_value", &values) {
            let is = |id: &&Identifier| {
                id.kind.name() == row.identifier_type
                    && id.namespace == row.source_instance
                    && id.value == row.identifier_value
            };
            if row.partition == partition && row.state != "held" {
                known.loose.extend(names.iter().find(is).map(|id| (seed(id), row.state.clone())));
            }
        }
        known
    }

    /// Why a device is one: its records, what links them, what was dropped and why.
    pub(crate) async fn explained(&self, device: &Device) -> Result<Value, Refused> {
        let (view, actor) = (self.view, self.actor);
        let tenant = actor.tenant.clone();
        let own = self.placed(RecordQuery::Devices { tenant: tenant.clone(), uids: vec![device.uid.clone()] }).await?;
        let names = names(&own);
        let sharing = RecordQuery::Sharing {
            tenant: tenant.clone(),
            partition: device.partition.clone(),
            identifiers: names.clone(),
        };
        let mut near = self.placed(sharing).await?;
        near.retain(|p| p.uid != device.uid);
        let known = self.known(&device.partition, &names);
        let explanation = explain(&own, &near, &known);

        let redirects = view.rows_where::<DeviceRedirect>(&tenant, "to_uid", &device.uid);
        let redirects: Vec<_> =
            redirects.iter().map(|r| json!({"from_uid": r.from_uid, "identifier": r.identifier})).collect();
        let mut claims: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for placed in own.iter().chain(&near) {
            for ip in &placed.record.ips {
                let claim = json!({
                    "record": label(&placed.record),
                    "uid": placed.uid, "event_time": placed.record.event_time.to_string(),
                });
                claims.entry(ip.to_string()).or_default().push(claim);
            }
        }
        let owned = view.rows_where::<IpOwnership>(&tenant, "device_uid", &device.uid);
        let addresses: Vec<_> = owned
            .iter()
            .map(|o| {
                let claimed_by = claims.get(&o.ip).cloned().unwrap_or_default();
                json!({"ip": o.ip, "class": o.class, "valid_from": o.valid_from.to_string(), "claimed_by": claimed_by})
            })
            .collect();
        let best = named(view, actor, &device.partition, &device.uid).map(|id| seed(&id));
        let mut answer = serde_json::to_value(&explanation).unwrap_or_default();
        if let Some(answer) = answer.as_object_mut() {
            let more = json!({
                "uid": device.uid, "partition": device.partition, "display_name": device.display_name,
                "lifecycle": device.lifecycle, "named_by": best, "redirects": redirects, "addresses": addresses,
                "epoch": view.epoch,
            });
            answer.extend(more.as_object().cloned().unwrap_or_default());
        }
        Ok(answer)
    }

    /// Why two devices are two: the strongest evidence between them, and the rule that keeps them apart.
    pub(crate) async fn why_not(&self, a: &Device, b: &Device) -> Result<Value, Refused> {
        let tenant = self.actor.tenant.clone();
        let wanted = RecordQuery::Devices { tenant, uids: vec![a.uid.clone(), b.uid.clone()] };
        let found = self.placed(wanted).await?;
        let (of_a, of_b): (Vec<Placed>, Vec<Placed>) = found.into_iter().partition(|p| p.uid == a.uid);
        let names: Vec<Identifier> = names(&of_a).into_iter().chain(names(&of_b)).collect();
        let known = self.known(&a.partition, &names);
        let apart = apart(&of_a, &of_b, &known);
        let shown = |d: &Device| json!({"uid": d.uid, "display_name": d.display_name, "partition": d.partition});
        let answer = json!({
            "a": shown(a), "b": shown(b), "kept_apart_by": apart.kept_apart_by, "evidence": apart.evidence,
            "epoch": self.view.epoch,
        });
        Ok(answer)
    }
}
