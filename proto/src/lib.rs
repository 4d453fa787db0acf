//! Every contract between Radarflow's parts, and between Radarflow and the world.
//!
//! | module | holds |
//! |---|---|
//! | [`grpc`] | the agents' gRPC service, generated from `proto/monitoring.proto` |
//! | [`frame`] | the ledger's frames: what is durable, byte by byte |
//! | [`enrich`] | rules that tell what a device is |
//! | [`fact`] | operator facts and configuration facts |
//! | [`record`] | what a source says about one item: the input of identity |
//! | [`payload`] | the JSON payloads agents push: sync, sweep, ICMP, heartbeats |
//! | [`measured`] | what agents measure: hosts, SNMP, traces, plugins; read without copies |
//! | [`netflow`], [`sflow`], [`packet`] | flow decoders |
//! | [`syslog`], [`snmp`] | message decoders |
//! | [`otlp`] | logs, traces and metrics of OpenTelemetry |
//! | [`sequence`] | what sequence numbers say of loss |
//! | [`flow`] | one flow, whatever protocol brought it |
//! | [`rows`] | every output table: Rust type, Arrow schema, documentation |
//! | [`lake`] | the lake's tables: events, and the versions of state |
//! | [`clock`] | the clocks of a machine, as a port |
//! | [`room`], [`body`] | memory that is taken before it is filled: shares of it, and messages that are read within one |
//! | [`ports`] | how the parts reach each other without knowing each other |
//!
//! Nothing here does I/O or reads a clock; every decoder takes bytes and returns values or a named error, and never
//! panics, whatever the bytes.
//!
//! A decoder in use:
//!
//! ```
//! use radarflow_proto::syslog;
//!
//! let line = b"<165>1 2024-01-01T00:00:00Z core-1 ifmgr 17 LINK - Interface Gi0/1: link down";
//! let message = syslog::parse(line, 1_704_067_200_000_000, chrono_tz::UTC);
//! assert_eq!((message.severity, message.hostname.as_deref()), (5, Some("core-1")));
//! assert_eq!(message.body, "Interface Gi0/1: link down");
//! assert_eq!(message.status, "rfc5424");
//! ```
#![forbid(unsafe_code)]

pub mod audit;
pub mod body;
pub mod cell;
pub mod clock;
pub mod disk;
pub mod enrich;
pub mod fact;
pub mod flow;
pub mod frame;
pub mod framing;
pub mod gelf;
pub mod lake;
pub mod measured;
pub mod netflow;
pub mod offsets;
pub mod otlp;
pub mod packet;
pub mod payload;
pub mod ports;
pub mod record;
pub mod resource;
pub mod room;
pub mod rows;
pub mod sequence;
pub mod sflow;
pub mod snmp;
mod state;
pub mod syslog;
mod table;
pub mod wire;

/// The agents' gRPC contract.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::missing_errors_doc)]
pub mod grpc {
    tonic::include_proto!("monitoring");
}

/// How an enrolled agent keeps its certificate, on the same connection.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::missing_errors_doc)]
pub mod enrolment {
    tonic::include_proto!("enrolment");
}
