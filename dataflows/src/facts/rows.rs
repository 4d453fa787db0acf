//! Facts that are rows of a table as they stand.

use radarflow_proto::fact::{Fact, LinkKind};
use radarflow_proto::rows::{ImportedUid, Link, StateRow};
use radarflow_reconcile::identity::name::seed;

/// The row that a fact is, if it is one.
pub(super) fn row(fact: &Fact) -> Option<StateRow> {
    match fact {
        Fact::Link(link) => Some(StateRow::from(Link {
            tenant_id: link.tenant.clone(),
            partition: link.partition.clone(),
            link_id: link.id.clone(),
            kind: if link.kind == LinkKind::Must { "must" } else { "cannot" }.to_owned(),
            a: seed(&link.a),
            b: seed(&link.b),
            actor: link.actor.name.clone(),
            reason: link.reason.clone(),
            epoch: 0,
        })),
        Fact::ImportedUid(imported) => Some(StateRow::from(ImportedUid {
            tenant_id: imported.tenant.clone(),
            partition: imported.partition.clone(),
            uid: imported.uid.clone(),
            identifiers: imported.identifiers.iter().map(seed).collect(),
            epoch: 0,
        })),
        _ => None,
    }
}
