//! Log messages and SNMP traps.

use std::net::IpAddr;

use crate::cell::{Cell, RowId, Tags, Time};
use crate::table::rows;

rows! {
    /// Log messages. Named and shaped as ServiceRadar's `logs`.
    Event Log LogBatch "logs" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// The device's own time if it gave one, clamped to receipt when absurd.
        time: Time,
        /// The device's own time, as given.
        device_time: Option<Time>,
        /// Receipt.
        received_at: Time,
        /// The sender's address: the socket's, never the message's claim.
        source_ip: Option<IpAddr>,
        /// Host name the message claims.
        hostname: Option<String>,
        /// Application name.
        service_name: Option<String>,
        /// Process id.
        process_id: Option<String>,
        /// Message id.
        message_id: Option<String>,
        /// Syslog facility, 0 to 23.
        facility: Option<i64>,
        /// Syslog severity, 0 (emergency) to 7 (debug).
        severity_number: Option<i64>,
        /// Its name: `emergency`, `alert`, `critical`, `error`, `warning`, `notice`, `info`, `debug`.
        severity: Option<String>,
        /// The message.
        body: String,
        /// Structured data.
        attributes: Tags,
        /// `rfc5424`, `rfc3164`, `gelf`, or why it is stored as it came.
        parse_status: String,
        /// The bytes, where they are not simply the body.
        raw: Option<Vec<u8>>,
        /// The parsing rule that read it, and in which version: `NAME@EPOCH`.
        parsed_by: Option<String>,
        /// Device that owned the sender's address, by what was known at `epoch`.
        device_uid: Option<String>,
        /// When OpenTelemetry's collector first saw it.
        observed_time: Option<Time>,
        /// OpenTelemetry's severity, 1 (trace) to 24 (fatal), where it is one of its log records.
        otel_severity_number: Option<i64>,
        /// The sender's own word for the severity, as OpenTelemetry carries it.
        severity_as_sent: Option<String>,
        /// Its trace, 32 hex digits.
        trace_id: Option<String>,
        /// Its span, 16 hex digits.
        span_id: Option<String>,
        /// Flags of its trace (W3C).
        trace_flags: Option<i64>,
        /// What kind of event it is, as its source names it.
        event_name: Option<String>,
        /// The version of what is called `service_name`.
        service_version: Option<String>,
        /// Which instance of it.
        service_instance: Option<String>,
        /// The library that wrote it.
        scope_name: Option<String>,
        /// The version of the library.
        scope_version: Option<String>,
        /// What OpenTelemetry's resource says of who wrote it.
        resource_attributes: Option<Tags>,
    }

    /// SNMP traps and informs.
    Event Trap TrapBatch "traps" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// Receipt.
        time: Time,
        /// The agent's address: `snmpTrapAddress` if given, else the socket's.
        source_ip: Option<IpAddr>,
        /// The socket's address.
        peer_ip: Option<IpAddr>,
        /// `v1`, `v2c` or `v3`.
        version: String,
        /// Whether an answer was due.
        inform: bool,
        /// Keyed hash of the community; the community itself is never kept.
        community_hash: Option<String>,
        /// The user who says it, of v3.
        user_name: Option<String>,
        /// How it was protected, of v3: `noAuthNoPriv`, `authNoPriv` or `authPriv`.
        security_level: Option<String>,
        /// The engine whose keys and time it is under, hex digits, of v3.
        engine_id: Option<String>,
        /// The context it is about, of v3: a VRF, an instance.
        context_name: Option<String>,
        /// `snmpTrapOID`.
        trap_oid: String,
        /// Its name, where known.
        trap_name: Option<String>,
        /// The agent's up-time, hundredths of a second.
        uptime: Option<i64>,
        /// Variable bindings, OID to value.
        varbinds: Tags,
        /// Device that owned the agent's address, by what was known at `epoch`.
        device_uid: Option<String>,
    }
}

/// A message of which nothing is known.
impl Default for Log {
    fn default() -> Self {
        Log {
            tenant_id: String::new(),
            partition: String::new(),
            row_id: RowId::default(),
            epoch: 0,
            time: Time(0),
            device_time: None,
            received_at: Time(0),
            source_ip: None,
            hostname: None,
            service_name: None,
            process_id: None,
            message_id: None,
            facility: None,
            severity_number: None,
            severity: None,
            body: String::new(),
            attributes: Tags::default(),
            parse_status: String::new(),
            raw: None,
            parsed_by: None,
            device_uid: None,
            observed_time: None,
            otel_severity_number: None,
            severity_as_sent: None,
            trace_id: None,
            span_id: None,
            trace_flags: None,
            event_name: None,
            service_version: None,
            service_instance: None,
            scope_name: None,
            scope_version: None,
            resource_attributes: None,
        }
    }
}
