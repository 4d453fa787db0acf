//! The columns that a person is shown of an entity where there is little room: what tells its rows apart, and what they
//! are asked for. A hundred characters hold them. The rest is there for who asks for it.

use crate::tables::catalog::Entity;

/// Columns by entity; of others all but those that keep rows apart for us.
const BRIEF: &[(&str, &[&str])] = &[
    ("devices", &["display_name", "ip", "type", "vendor_name", "availability", "last_seen_time"]),
    ("flows", &["time", "src_endpoint_ip", "dst_endpoint_ip", "dst_endpoint_port", "app", "bytes_total"]),
    ("interface_counters", &["time", "sampler_address", "if_index", "is_oper_up", "in_bytes", "out_bytes"]),
    ("logs", &["time", "severity", "source_ip", "body"]),
    ("otel_traces", &["time", "service_name", "name", "span_kind", "status_code", "duration_ms", "trace_id"]),
    ("otel_metrics", &["time", "service_name", "metric_name", "metric_type", "unit", "value", "rate"]),
    (
        "trace_summaries",
        &["start_time", "root_service_name", "root_span_name", "duration_ms", "span_count", "error_count", "trace_id"],
    ),
    ("traps", &["time", "source_ip", "trap_oid", "trap_name"]),
    ("events", &["time", "activity_name", "entity_type", "entity_id", "message"]),
    ("alerts", &["triggered_at", "severity", "status", "title", "device_uid"]),
    ("agents", &["agent_id", "state", "since", "hostname", "version"]),
    ("profiles", &["name", "kind", "enabled", "site", "condition", "device_group", "interval_s", "cron"]),
    ("jobs", &["profile", "agent_id", "state", "targets", "last_result_at", "reason"]),
    ("commands", &["requested_at", "profile", "agent_id", "state", "targets", "progress", "reason"]),
    ("probes", &["time", "profile", "target", "port", "is_ok", "latency_us", "error"]),
    ("sources", &["source", "exporter", "received", "stored", "rejected", "shed", "lost", "last_seen"]),
    ("identities", &["identifier_type", "source_instance", "identifier_value", "state", "device_uid"]),
    ("ip_ownership", &["ip", "device_uid", "class", "valid_from", "valid_to"]),
    ("health_events", &["recorded_at", "entity_type", "entity_id", "old_state", "new_state", "reason"]),
    ("alert_history", &["time", "old_status", "new_status", "actor", "reason"]),
    ("notifications", &["time", "receiver", "outcome", "status", "reason"]),
    ("merge_audit", &["time", "record", "from_uid", "to_uid", "reason"]),
    ("audit", &["time", "actor", "action", "subject", "reason"]),
    ("rejects", &["time", "source", "peer", "reason", "bytes_total"]),
    ("cpu_metrics", &["time", "host_id", "core_id", "usage_percent", "frequency_hz", "device_uid"]),
    ("memory_metrics", &["time", "host_id", "used_bytes", "total_bytes", "usage_percent", "device_uid"]),
    ("disk_metrics", &["time", "host_id", "mount_point", "used_bytes", "total_bytes", "usage_percent"]),
    ("process_metrics", &["time", "host_id", "pid", "name", "cpu_usage", "memory_usage", "status"]),
    (
        "timeseries_metrics",
        &["time", "target", "if_index", "metric_name", "value", "rate_per_second", "utilization_percent"],
    ),
    ("mtr_traces", &["time", "agent_id", "target", "target_reached", "total_hops", "loss_percent", "avg_us", "error"]),
    ("mtr_hops", &["time", "target", "hop_number", "hop_ip", "hostname", "loss_percent", "avg_us"]),
    ("plugin_results", &["time", "agent_id", "service_name", "status", "summary"]),
    ("services", &["agent_id", "service_type", "service_name", "state", "since", "message"]),
    ("interfaces", &["device_ip", "if_index", "if_name", "if_alias", "if_speed_bps", "if_oper_status", "last_seen"]),
    ("topology_links", &["local_ip", "local_if_name", "neighbor_system_name", "neighbor_ip", "protocol", "last_seen"]),
];

/// What keeps rows apart for us.
const OURS: &[&str] = &["tenant_id", "row_id", "epoch", "received_at"];

/// The columns that a person is shown of an entity.
pub fn brief(entity: &Entity) -> Vec<&'static str> {
    match BRIEF.iter().find(|(name, _)| *name == entity.name) {
        Some((_, columns)) => columns.to_vec(),
        None => entity.fields.iter().filter(|f| !f.hidden && !OURS.contains(&f.name)).map(|f| f.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::catalog::{ENTITIES, find};

    #[test]
    fn what_is_shown_is_there() {
        for (name, columns) in BRIEF {
            let entity = find(name).unwrap_or_else(|| panic!("there is no {name}"));
            for column in *columns {
                assert!(entity.fields.iter().any(|f| f.name == *column), "{name}.{column}");
            }
        }
        assert!(ENTITIES.iter().all(|e| !brief(e).is_empty()));
    }
}
