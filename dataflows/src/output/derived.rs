//! Rows that the dataflow itself makes: health events, alert history, notifications, the audit, that of identity,
//! corrections.
//!
//! They have no input position. They are sorted by content and numbered in that order, so that their `row_id` is a function
//! of the ledger too.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use radarflow_proto::cell::RowId;
use radarflow_proto::rows::{
    AlertHistory, AttributionCorrection, Audit, BatchBuilder, Event, HealthEvent, MergeAudit, Notification, Row, Table,
};
use serde::{Deserialize, Serialize};

macro_rules! derived {
    ($($row:ident $batch:ident),* $(,)?) => {
        /// A row of an event table that the dataflow itself makes; its `row_id` and `epoch` are set here.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum DerivedRow { $( $row(Box<$row>), )* }

        $(
            impl From<$row> for DerivedRow {
                fn from(row: $row) -> Self {
                    DerivedRow::$row(row.into())
                }
            }
        )*

        impl DerivedRow {
            pub(super) fn tenant(&self) -> &str {
                match self { $( DerivedRow::$row(row) => &row.tenant_id, )* }
            }
        }

        /// Derived rows of one tenant.
        #[derive(Default)]
        struct Batches { $( $batch: <$row as Row>::Batch, )* }

        impl Batches {
            fn push(&mut self, row: DerivedRow, row_id: RowId, epoch: u64) {
                match row {
                    $( DerivedRow::$row(mut row) => {
                        (row.row_id, row.epoch) = (row_id, epoch as i64);
                        self.$batch.push(&row);
                    } )*
                }
            }

            fn finish(mut self) -> impl Iterator<Item = (Table, RecordBatch)> {
                [$( (<$row as Row>::TABLE, self.$batch.finish()), )*].into_iter().filter(|(_, batch)| batch.num_rows() > 0)
            }
        }
    };
}

derived! {
    HealthEvent health,
    AlertHistory history,
    Event events,
    Notification notifications,
    MergeAudit merges,
    AttributionCorrection corrections,
    Audit audit,
}

/// Batches of derived rows that have no name yet, by table and tenant.
pub fn batches_of(rows: Vec<DerivedRow>) -> impl Iterator<Item = (Table, String, RecordBatch)> {
    let mut by_tenant: BTreeMap<String, Batches> = BTreeMap::new();
    for row in rows {
        by_tenant.entry(row.tenant().to_owned()).or_default().push(row, RowId::default(), 0);
    }
    by_tenant.into_iter().flat_map(|(tenant, batches)| {
        batches.finish().map(move |(table, batch)| (table, tenant.clone(), batch)).collect::<Vec<_>>()
    })
}

/// Numbers derived rows in their order and makes batches of them, one a table and tenant.
pub(super) fn number(rows: Vec<DerivedRow>, epoch: u64, out: &mut Vec<(Table, RecordBatch)>) {
    let mut by_tenant: BTreeMap<String, Batches> = BTreeMap::new();
    for (index, row) in rows.into_iter().enumerate() {
        let row_id = RowId::new(epoch, u32::MAX >> 1, index as u32);
        by_tenant.entry(row.tenant().to_owned()).or_default().push(row, row_id, epoch);
    }
    out.extend(by_tenant.into_values().flat_map(Batches::finish));
}
