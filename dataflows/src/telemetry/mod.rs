//! Flows, logs and traps: which device each is about, and what is learnt of that too late.
//!
//! ```text
//! owners of addresses ─► [tenures: who had an address when] ─┬─► corrections
//!          │                                                 └─► histories of addresses
//! batches ─► [parsing rules] ─┬─► [attribution] ◄── owners, histories
//! rated, told, points ────────┘
//! ```

mod attribution;
mod corrections;
mod links;
mod parsing;

use std::sync::Arc;

use arrow_array::RecordBatch;
use radarflow_proto::resource::ResourceChange;
use radarflow_proto::rows::{StateRow, Table};
use radarflow_reconcile::identity::assertions::{Scope, ip_name};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, changes, collected};
use crate::decode::{EventBatch, batches_of_points};
use crate::identity::AddressOwner;
use crate::keyed::{Context, Keyed, machine};
use crate::metrics::Rated;
use crate::otel::Added;
use crate::output::DerivedRow;
use crate::topology::Told;
use attribution::Attributed;
pub use corrections::HORIZON_MS;
use corrections::{TenureOut, Tenures};

/// What is attributed, and by what.
pub struct Inputs<'scope> {
    /// Rows of event tables.
    pub batches: Events<'scope, EventBatch>,
    /// Points of sums with what was added.
    pub points: Events<'scope, Vec<Added>>,
    /// Who owns which address.
    pub address_owners: Rel<'scope, AddressOwner>,
    /// What became of resources: rules that read messages.
    pub resources: Events<'scope, ResourceChange>,
    /// Rows that have their rates.
    pub rated: Events<'scope, Rated>,
    /// Neighbours and interfaces that polled devices report.
    pub told: Events<'scope, (Arc<Scope>, Told, isize)>,
}

/// What comes of it.
pub struct Outputs<'scope> {
    /// Rows of event tables, by table and tenant, with the devices that they are about.
    pub batches: Events<'scope, (Table, String, RecordBatch)>,
    /// These as rows, with the devices that own their addresses now.
    pub link_rows: Rel<'scope, StateRow>,
    /// What is learnt late.
    pub corrections: Events<'scope, DerivedRow>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let owners = inputs.address_owners;
    let handed = changes(owners.clone(), |owner, diff| {
        let (scope, ip) = &owner.address;
        Keyed { key: ip_name(scope.name, *ip), position: 0, event: (owner, diff as i64) }
    });
    let tenures = machine(handed, cx, Tenures);
    let histories = tenures.clone().flat_map(|out| match out {
        TenureOut::History(address, history) => Some((address, history)),
        TenureOut::Correction(_) => None,
    });
    let batches = parsing::parsed(inputs.batches, inputs.resources);
    let rated = inputs.rated.map(|Rated { tenant, partition, rows, ips }| EventBatch {
        table: Table::TimeseriesMetric,
        tenant,
        partition,
        rows,
        lookups: vec![ips],
    });
    let points = inputs.points.flat_map(batches_of_points);
    let attributed = attribution::attribute(batches.concat(rated).concat(points), owners, histories, inputs.told);
    Outputs {
        batches: attributed.clone().flat_map(|out| match out {
            Attributed::Rows(table, tenant, batch) => Some((table, tenant, batch)),
            Attributed::Told(..) => None,
        }),
        link_rows: collected(attributed, |out| match out {
            Attributed::Told(told, diff) => Some((StateRow::from(*told), diff)),
            Attributed::Rows(..) => None,
        }),
        corrections: tenures.flat_map(|out| match out {
            TenureOut::Correction(row) => Some(row),
            TenureOut::History(..) => None,
        }),
    }
}
