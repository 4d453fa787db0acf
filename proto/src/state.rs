//! Rows of current state, and their changes: what the dataflow tells the live tables, Postgres and the lake.

use std::sync::Arc;

use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::rows::{
    Agent, Alert, AlertNotification, ApiToken, CertificateAuthority, ClearPair, Command, DeadLetter, Dependency,
    Device, DeviceGroup, DeviceIdentifier, DeviceRedirect, EdgePackage, EscalationPolicy, IdentityProvider,
    ImportedUid, InhibitRule, Integration, Interface, IpOwnership, Job, Link, MaintenanceWindow, OnCall, ParsingRule,
    Profile, Receiver, Role, Rota, RotaOverride, Route, Rule, ServiceState, Session, SignInLink, Silence, Source,
    Table, TimeInterval, TopologyLink, TraceSummary, User,
};
use crate::table::{BatchBuilder, Row};

macro_rules! states {
    ($($row:ident),* $(,)?) => {
        /// A row of any state table. A device is large, most rows are not, and all of them are handed on many times: rows
        /// are shared.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum StateRow { $( $row(Arc<$row>), )* }

        $(
            impl From<$row> for StateRow {
                fn from(row: $row) -> Self {
                    StateRow::$row(row.into())
                }
            }
        )*

        impl StateRow {
            /// Its table.
            pub fn table(&self) -> Table {
                match self { $( StateRow::$row(_) => Table::$row, )* }
            }

            /// Its primary key.
            pub fn key(&self) -> String {
                match self { $( StateRow::$row(row) => row.key(), )* }
            }

            /// Its customer.
            pub fn tenant(&self) -> &str {
                match self { $( StateRow::$row(row) => &row.tenant_id, )* }
            }

            /// Its site.
            pub fn partition(&self) -> &str {
                match self { $( StateRow::$row(row) => &row.partition, )* }
            }

            /// Writes it as one line of Postgres COPY text.
            pub fn copy(&self, out: &mut String) {
                match self { $( StateRow::$row(row) => row.copy(out), )* }
            }

            /// What it takes in memory, bytes.
            pub fn bytes(&self) -> usize {
                match self { $( StateRow::$row(row) => row.bytes(), )* }
            }

            /// A row of a batch of `table`; `None` where that is no table of state.
            pub fn read(table: Table, batch: &RecordBatch, row: usize) -> Option<Self> {
                match table {
                    $( Table::$row => Some(<$row as Row>::read(batch, row).into()), )*
                    _ => None,
                }
            }

            /// A row of `table` of its columns by name, instants as microseconds; `None` where that is no table of state, or
            /// these are not its columns.
            pub fn of_fields(table: Table, fields: serde_json::Map<String, serde_json::Value>) -> Option<Self> {
                let fields = serde_json::Value::Object(fields);
                match table {
                    $( Table::$row => serde_json::from_value::<$row>(fields).ok().map(StateRow::from), )*
                    _ => None,
                }
            }

            /// The epoch that it bears; 0 for none yet.
            pub fn epoch(&self) -> i64 {
                match self { $( StateRow::$row(row) => row.epoch, )* }
            }

            /// The same row bearing the epoch of its emission.
            #[must_use]
            pub fn at(mut self, at: u64) -> Self {
                let epoch = i64::try_from(at).unwrap_or(i64::MAX);
                match &mut self { $( StateRow::$row(row) => Arc::make_mut(row).epoch = epoch, )* }
                self
            }
        }

        /// Builds a batch of rows that are all of `table`; rows of other tables are left out.
        pub fn state_batch<'a>(table: Table, rows: impl IntoIterator<Item = &'a StateRow>) -> RecordBatch {
            match table {
                $( Table::$row => {
                    let mut batch = <$row as Row>::Batch::default();
                    for row in rows {
                        if let StateRow::$row(row) = row {
                            batch.push(row);
                        }
                    }
                    batch.finish()
                } )*
                other => RecordBatch::new_empty(other.schema()),
            }
        }
    };
}

states! {
    Device, DeviceIdentifier, DeviceRedirect, IpOwnership, Link, ImportedUid, DeviceGroup, User, Role, ApiToken, Session,
    Agent, Alert, AlertNotification, CertificateAuthority, ClearPair, Command, DeadLetter, Dependency, EdgePackage,
    EscalationPolicy, IdentityProvider, InhibitRule, Integration, Interface, Job, MaintenanceWindow, OnCall, ParsingRule,
    Profile, Receiver, Rota, RotaOverride, Route, Rule, ServiceState, SignInLink, Silence, Source, TimeInterval,
    TopologyLink, TraceSummary,
}

/// What happened to one key of a state table at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table it happened to.
    pub table: Table,
    /// The key it happened to, as [`Row::key`] writes it.
    pub key: Arc<str>,
    /// The row before; `None` when it is new.
    pub before: Option<StateRow>,
    /// The row after; `None` when it is gone.
    pub after: Option<StateRow>,
}

impl Change {
    /// From one row to another of the same key; `None` of nothing to nothing.
    pub fn new(before: Option<StateRow>, after: Option<StateRow>) -> Option<Self> {
        let row = after.as_ref().or(before.as_ref())?;
        Some(Change { table: row.table(), key: row.key().into(), before, after })
    }
}
