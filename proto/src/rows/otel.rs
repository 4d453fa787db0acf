//! Spans and metrics of OpenTelemetry.

use std::net::IpAddr;

use crate::cell::{Cell, Real, RowId, Tags, Time};
use crate::table::rows;

rows! {
    /// Spans of traces, as OpenTelemetry has them. Named and shaped as ServiceRadar's `otel_traces`.
    Event OtelTrace OtelTraceBatch "otel_traces" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it began, clamped to receipt when absurd.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The sender's address: the socket's.
        source_ip: Option<IpAddr>,
        /// Its trace, 32 hex digits.
        trace_id: String,
        /// Itself, 16 hex digits.
        span_id: String,
        /// The span that it is part of; null of a root.
        parent_span_id: Option<String>,
        /// W3C's `tracestate`.
        trace_state: Option<String>,
        /// What was done.
        name: String,
        /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        span_kind: i64,
        /// When it began, as sent, nanoseconds since 1970.
        start_time_unix_nano: i64,
        /// When it ended, as sent, nanoseconds since 1970.
        end_time_unix_nano: i64,
        /// How long it took, milliseconds; null where it has no beginning or no end, or ends before it begins.
        duration_ms: Option<Real>,
        /// 0 unset, 1 ok, 2 error.
        status_code: i64,
        /// What went wrong.
        status_message: Option<String>,
        /// `service.name` of the resource.
        service_name: Option<String>,
        /// `service.version`.
        service_version: Option<String>,
        /// `service.instance.id`.
        service_instance: Option<String>,
        /// `service.namespace`.
        service_namespace: Option<String>,
        /// `deployment.environment.name`.
        deployment_environment: Option<String>,
        /// The library that says it.
        scope_name: Option<String>,
        /// Its version.
        scope_version: Option<String>,
        /// What the scope says beside that.
        scope_attributes: Option<Tags>,
        /// Names and values.
        attributes: Tags,
        /// What the resource says.
        resource_attributes: Tags,
        /// What happened meanwhile, a JSON list.
        events: Option<String>,
        /// Spans that it is linked with, a JSON list.
        links: Option<String>,
        /// Attributes that the sender dropped, or we did beyond 1,024.
        dropped_attributes_count: i64,
        /// Events that the sender dropped, or we did beyond 128.
        dropped_events_count: i64,
        /// Links that the sender dropped, or we did beyond 128.
        dropped_links_count: i64,
        /// Device that owned the sender's address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Data points of metrics, as OpenTelemetry has them: a row a point.
    Event OtelMetric OtelMetricBatch "otel_metrics" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was measured, clamped to receipt when absurd.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The sender's address: the socket's.
        source_ip: Option<IpAddr>,
        /// What is measured.
        metric_name: String,
        /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
        metric_type: String,
        /// What that is.
        description: Option<String>,
        /// In which unit.
        unit: Option<String>,
        /// `delta` or `cumulative`.
        temporality: Option<String>,
        /// Of a sum: whether it never falls.
        is_monotonic: Option<bool>,
        /// Since when it was counted, as sent, nanoseconds since 1970; null for unknown.
        start_time_unix_nano: Option<i64>,
        /// When it was measured, as sent, nanoseconds since 1970.
        time_unix_nano: i64,
        /// A gauge's or a sum's value; null where none was recorded, or it is no finite number.
        value: Option<Real>,
        /// The same where it is a whole number, exactly.
        value_int: Option<i64>,
        /// Of a monotonic sum: what was added since the point before of its series, or since it began anew; null of the first.
        delta: Option<Real>,
        /// The same a second.
        rate: Option<Real>,
        /// How many values were observed.
        count: Option<i64>,
        /// Their sum.
        sum: Option<Real>,
        /// The least of them.
        min: Option<Real>,
        /// The greatest.
        max: Option<Real>,
        /// Buckets or quantiles, JSON: `{bounds, counts}`, `{scale, zero_count, zero_threshold, positive, negative}` or
        /// `[{quantile, value}]`.
        distribution: Option<String>,
        /// Examples with their traces, a JSON list.
        exemplars: Option<String>,
        /// `service.name` of the resource.
        service_name: Option<String>,
        /// `service.version`.
        service_version: Option<String>,
        /// `service.instance.id`.
        service_instance: Option<String>,
        /// `service.namespace`.
        service_namespace: Option<String>,
        /// `deployment.environment.name`.
        deployment_environment: Option<String>,
        /// The library that says it.
        scope_name: Option<String>,
        /// Its version.
        scope_version: Option<String>,
        /// What the scope says beside that.
        scope_attributes: Option<Tags>,
        /// Names and values.
        attributes: Tags,
        /// What the resource says.
        resource_attributes: Tags,
        /// Device that owned the sender's address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Traces of the last hour as their spans tell of them, kept up to date as spans come, late and in any order. Named and
    /// shaped as ServiceRadar's `otel_trace_summaries`; older ones are grouped from `otel_traces`.
    State TraceSummary TraceSummaryBatch "trace_summaries" postgres "otel_trace_summaries" key [tenant_id, partition, trace_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The trace, 32 hex digits.
        trace_id: String,
        /// When its first span began.
        start_time: Time,
        /// When its last span ended.
        end_time: Time,
        /// The same, nanoseconds since 1970.
        start_time_unix_nano: i64,
        /// The same, nanoseconds since 1970.
        end_time_unix_nano: i64,
        /// From the beginning of the first to the end of the last, milliseconds.
        duration_ms: Real,
        /// The span that is part of none: of several the first; null while it did not come.
        root_span_id: Option<String>,
        /// What it did.
        root_span_name: Option<String>,
        /// Whose it is.
        root_service_name: Option<String>,
        /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        root_span_kind: Option<i64>,
        /// How it ended: 0 unset, 1 ok, 2 error.
        status_code: Option<i64>,
        /// What went wrong in it.
        status_message: Option<String>,
        /// Services that had spans in it, 32 at most.
        service_set: Vec<String>,
        /// How many spans there are; one that came twice counts once.
        span_count: i64,
        /// How many of them ended with an error.
        error_count: i64,
        /// Whether nothing came for half a minute.
        is_closed: bool,
        /// Epoch of this version.
        epoch: i64,
    }
}
