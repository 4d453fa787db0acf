//! Every output table, declared once, a file a subject: the Rust row, the Arrow schema, the Postgres columns, the
//! documentation that `radarflow docs lake` prints and the catalog that SRQL resolves names against all come from these
//! declarations.
//!
//! *State* tables hold one row a key and change by [`Change`]; *event* tables only grow. `tenant_id` and `partition`
//! lead every key.

mod access;
mod agents;
mod alerts;
mod devices;
mod flows;
mod measured;
mod messages;
mod otel;
mod routing;
mod sources;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde::{Deserialize, Serialize};

pub use self::access::*;
pub use self::agents::*;
pub use self::alerts::*;
pub use self::devices::*;
pub use self::flows::*;
pub use self::measured::*;
pub use self::messages::*;
pub use self::otel::*;
pub use self::routing::*;
pub use self::sources::*;
pub use crate::state::{Change, StateRow, state_batch};
use crate::table::tables;
pub use crate::table::{BatchBuilder, Column, Nature, Row, copy_key};

tables! {
    Device, DeviceIdentifier, DeviceRedirect, IpOwnership, Link, ImportedUid, DeviceGroup, User, Role, ApiToken, Session,
    SignInLink, IdentityProvider, Receiver, Route, Silence, InhibitRule, TimeInterval, MaintenanceWindow, EscalationPolicy,
    ParsingRule, Integration, Rota, RotaOverride, OnCall, AlertNotification, DeadLetter, Profile, Rule, ClearPair,
    Dependency, Agent, Job, Command, CertificateAuthority, EdgePackage, Alert, Source, Flow, InterfaceCounters, Log, Trap,
    Probe, Event, HealthEvent, AlertHistory, Notification, MergeAudit, Audit, Reject, TopologyLink, AttributionCorrection,
    CpuMetric, MemoryMetric, DiskMetric, ProcessMetric, TimeseriesMetric, MtrTrace, MtrHop, PluginResult, ServiceState,
    Interface, OtelTrace, OtelMetric, TraceSummary,
}

impl Table {
    /// Columns that name the device that had an address, and the columns of these addresses.
    pub fn attributed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Table::Flow => &[
                ("src_device_uid", "src_endpoint_ip"),
                ("dst_device_uid", "dst_endpoint_ip"),
                ("exporter_device_uid", "sampler_address"),
            ],
            Table::InterfaceCounters => &[("device_uid", "sampler_address")],
            Table::Log | Table::Trap | Table::OtelTrace | Table::OtelMetric => &[("device_uid", "source_ip")],
            Table::Probe => &[("device_uid", "ip")],
            Table::CpuMetric | Table::MemoryMetric | Table::DiskMetric | Table::ProcessMetric => {
                &[("device_uid", "host_ip")]
            }
            Table::TimeseriesMetric => &[("device_uid", "target_device_ip")],
            Table::MtrTrace => &[("device_uid", "target_ip")],
            Table::MtrHop => &[("device_uid", "hop_ip")],
            _ => &[],
        }
    }
}
