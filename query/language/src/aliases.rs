//! Other names of entities and fields: those that ServiceRadar's queries use, and what is not to be had under them.

/// Objects of OCSF that hold fields which are columns here: `connection.src_endpoint_ip` is src_endpoint_ip.
pub const NESTED: &[&str] = &["connection", "connection_info", "traffic", "src_endpoint", "dst_endpoint"];

/// Other names of entities, and the entities that they mean.
pub const ENTITY_ALIASES: &[(&str, &[&str])] = &[
    ("activity", &["events", "flows"]),
    ("device", &["devices"]),
    ("device_inventory", &["devices"]),
    ("ocsf_devices", &["devices"]),
    ("flow", &["flows"]),
    ("connections", &["flows"]),
    ("network_activity", &["flows"]),
    ("ocsf_network_activity", &["flows"]),
    ("agent", &["agents"]),
    ("ocsf_agents", &["agents"]),
    ("alert", &["alerts"]),
    ("event", &["events"]),
    ("log", &["logs"]),
    ("trap", &["traps"]),
    ("identifiers", &["identities"]),
    ("device_identifiers", &["identities"]),
    ("device_identity", &["identities"]),
    ("merges", &["merge_audit"]),
    ("device_merges", &["merge_audit"]),
    ("interface", &["interfaces"]),
    ("discovered_interfaces", &["interfaces"]),
    ("service", &["services"]),
    ("gateway", &["gateways"]),
    ("metrics", &["otel_metrics"]),
    ("traces", &["otel_traces"]),
    ("trace_spans", &["otel_traces"]),
    ("otel_trace_summaries", &["trace_summaries"]),
    ("traces_summaries", &["trace_summaries"]),
    ("cpu", &["cpu_metrics"]),
    ("memory", &["memory_metrics"]),
    ("disk", &["disk_metrics"]),
    ("processes", &["process_metrics"]),
    ("timeseries", &["timeseries_metrics"]),
    ("snmp", &["timeseries_metrics"]),
    ("snmp_metrics", &["timeseries_metrics"]),
    ("service_state", &["services"]),
    ("mtr", &["mtr_traces"]),
    ("rperf", &["rperf_metrics"]),
];

/// Entities that ServiceRadar has and this system does not; with `*`, those that begin so.
pub const NOT_AVAILABLE: &[&str] = &[
    "bmp_events",
    "bmp_event",
    "bmp_routing_events",
    "device_graph",
    "devicegraph",
    "graph",
    "graph_cypher",
    "graphcypher",
    "cypher",
    "field_survey_*",
    "fieldsurvey_*",
    "survey_*",
    "wifi_*",
];

/// Entities of the language that nothing fills yet.
pub const NOT_BUILT: &[&str] = &["gateways", "schedules", "device_updates", "rperf_metrics"];

/// Names of entities that mean some of the rows of an entity: the name, a field, and the value that these have in it.
pub const KINDS: &[(&str, &str, &str)] = &[("snmp", "metric_type", "snmp"), ("snmp_metrics", "metric_type", "snmp")];

/// Other names of fields: (entity or empty for all, other name, name). Where an entity lacks one, the next is meant.
pub const ALIASES: &[(&str, &str, &str)] = &[
    ("devices", "device_id", "uid"),
    ("devices", "device_uid", "uid"),
    ("devices", "id", "uid"),
    ("devices", "last_seen", "last_seen_time"),
    ("devices", "first_seen", "first_seen_time"),
    ("devices", "vendor", "vendor_name"),
    ("devices", "tags", "metadata"),
    ("devices", "source", "discovery_sources"),
    ("devices", "device_type", "type"),
    ("devices", "available", "is_available"),
    ("devices", "gateway", "gateway_id"),
    ("devices", "os.name", "os"),
    ("", "device_id", "device_uid"),
    ("", "boundary", "partition"),
    ("flows", "src_ip", "src_endpoint_ip"),
    ("flows", "dst_ip", "dst_endpoint_ip"),
    ("flows", "src_cidr", "src_endpoint_ip"),
    ("flows", "dst_cidr", "dst_endpoint_ip"),
    ("flows", "src_subnet", "src_endpoint_ip"),
    ("flows", "dst_subnet", "dst_endpoint_ip"),
    ("flows", "src_port", "src_endpoint_port"),
    ("flows", "dst_port", "dst_endpoint_port"),
    ("flows", "proto", "protocol_num"),
    ("flows", "protocol", "protocol_name"),
    ("flows", "bytes", "bytes_total"),
    ("flows", "packets", "packets_total"),
    // A record of one direction has what its source sent.
    ("flows", "traffic_bytes", "bytes_total"),
    ("flows", "traffic_bytes_out", "bytes_out"),
    ("flows", "traffic_bytes_out", "bytes_total"),
    ("flows", "bytes_out", "bytes_total"),
    ("flows", "traffic_bytes_in", "bytes_in"),
    ("flows", "traffic_packets", "packets_total"),
    ("flows", "traffic_packets_out", "packets_out"),
    ("flows", "traffic_packets_out", "packets_total"),
    ("flows", "packets_out", "packets_total"),
    ("flows", "traffic_packets_in", "packets_in"),
    ("flows", "exporter", "sampler_address"),
    ("flows", "sampler", "sampler_address"),
    ("flows", "src_as", "src_as_number"),
    ("flows", "dst_as", "dst_as_number"),
    ("flows", "src_country_iso2", "src_country"),
    ("flows", "dst_country_iso2", "dst_country"),
    ("flows", "bgp_community", "bgp_communities"),
    ("flows", "src_mask", "src_prefix_length"),
    ("flows", "dst_mask", "dst_prefix_length"),
    ("flows", "etype", "ether_type"),
    ("flows", "input_snmp", "in_if"),
    ("flows", "in_if_index", "in_if"),
    ("flows", "output_snmp", "out_if"),
    ("flows", "out_if_index", "out_if"),
    ("flows", "flow_source", "flow_type"),
    ("flows", "collector", "flow_type"),
    ("flows", "timestamp", "time"),
    ("flows", "event_timestamp", "time"),
    ("logs", "level", "severity"),
    ("logs", "severity_text", "severity"),
    ("logs", "message", "body"),
    ("logs", "timestamp", "time"),
    ("logs", "source", "source_ip"),
    ("logs", "service", "service_name"),
    ("logs", "id", "row_id"),
    ("logs", "observed_timestamp", "observed_time"),
    ("otel_traces", "timestamp", "time"),
    ("otel_traces", "kind", "span_kind"),
    ("otel_traces", "span_name", "name"),
    ("otel_traces", "service", "service_name"),
    ("otel_metrics", "timestamp", "time"),
    ("otel_metrics", "service", "service_name"),
    ("otel_metrics", "type", "metric_type"),
    ("otel_metrics", "name", "metric_name"),
    ("trace_summaries", "timestamp", "start_time"),
    ("trace_summaries", "time", "start_time"),
    ("trace_summaries", "service_name", "root_service_name"),
    ("trace_summaries", "service", "root_service_name"),
    ("trace_summaries", "services", "service_set"),
    ("traps", "timestamp", "time"),
    ("events", "timestamp", "time"),
    ("events", "event_timestamp", "time"),
    ("events", "severity", "severity_id"),
    ("events", "short_message", "message"),
    ("events", "id", "row_id"),
    ("alerts", "timestamp", "triggered_at"),
    ("health_events", "timestamp", "recorded_at"),
    ("health_events", "time", "recorded_at"),
    ("alert_history", "timestamp", "time"),
    ("notifications", "timestamp", "time"),
    ("merge_audit", "timestamp", "time"),
    ("audit", "timestamp", "time"),
    ("rejects", "timestamp", "time"),
    ("agents", "uid", "agent_id"),
    ("cpu_metrics", "timestamp", "time"),
    ("memory_metrics", "timestamp", "time"),
    ("disk_metrics", "timestamp", "time"),
    ("process_metrics", "timestamp", "time"),
    ("timeseries_metrics", "timestamp", "time"),
    ("timeseries_metrics", "metric", "metric_name"),
    ("timeseries_metrics", "rate", "rate_per_second"),
    ("timeseries_metrics", "utilization", "utilization_percent"),
    ("timeseries_metrics", "host", "target_device_ip"),
    ("timeseries_metrics", "metadata", "tags"),
    ("mtr_traces", "timestamp", "time"),
    ("mtr_traces", "id", "trace_id"),
    ("mtr_hops", "timestamp", "time"),
    ("mtr_hops", "addr", "hop_ip"),
    ("mtr_hops", "loss_pct", "loss_percent"),
    ("plugin_results", "timestamp", "time"),
    ("plugin_results", "message", "summary"),
    ("services", "name", "service_name"),
    ("services", "type", "service_type"),
    ("services", "timestamp", "last_seen"),
    ("services", "last_observed_at", "last_seen"),
    ("interfaces", "timestamp", "last_seen"),
    ("interfaces", "ip", "device_ip"),
    ("interfaces", "mac", "if_mac"),
    ("interfaces", "if_phys_address", "if_mac"),
    ("interfaces", "if_speed", "if_speed_bps"),
    ("interfaces", "speed", "if_speed_bps"),
    ("interfaces", "speed_bps", "if_speed_bps"),
    ("interfaces", "description", "if_descr"),
    ("interfaces", "admin_status", "if_admin_status"),
    ("interfaces", "oper_status", "if_oper_status"),
    ("interfaces", "status", "if_oper_status"),
    ("interfaces", "ip_address", "ip_addresses"),
];

/// Fields that the language has and nothing collects yet: (entity, name).
const NOT_COLLECTED: &[(&str, &str)] = &[
    ("flows", "bytes_in"),
    ("flows", "packets_in"),
    ("flows", "traffic_bytes_in"),
    ("flows", "traffic_packets_in"),
    ("events", "trace_id"),
    ("events", "span_id"),
    ("devices", "type_id"),
    ("devices", "risk_level"),
    ("devices", "os.version"),
    ("devices", "os.type"),
    ("devices", "hw_info"),
];

/// The entities that another name means; none where it is no other name.
pub fn meant(name: &str) -> &'static [&'static str] {
    ENTITY_ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map_or(&[], |(_, names)| *names)
}

/// Whether a path names what an entity will have, and nothing collects yet.
pub fn not_collected(entity: &str, path: &[String]) -> bool {
    let of = NOT_COLLECTED.iter().filter(|(of, _)| *of == entity).map(|(_, name)| *name);
    let nested = path.first().is_some_and(|outer| NESTED.contains(&outer.to_ascii_lowercase().as_str()));
    let named = |path: &[String]| {
        let dotted = path.join(".").to_ascii_lowercase();
        let first = path.first().map(|part| part.to_ascii_lowercase()).unwrap_or_default();
        of.clone().any(|name| name == dotted || name == dotted.replace('.', "_") || name == first)
    };
    named(path) || (nested && named(&path[1..]))
}

/// What a field counts, where its name says so.
pub fn unit(field: &str) -> Option<&'static str> {
    let field = field.rsplit('.').next().unwrap_or(field);
    Some(match field {
        "uptime" => "centiseconds",
        "memory_usage" => "bytes",
        "cpu_usage" => "percent",
        _ if field.starts_with("bytes") || field.ends_with("_bytes") => "bytes",
        _ if field.starts_with("packets") => "packets",
        _ if field.ends_with("_seconds") => "seconds",
        _ if field.ends_with("_ms") => "milliseconds",
        _ if field.ends_with("_us") => "microseconds",
        _ if field.ends_with("_percent") => "percent",
        _ if field.ends_with("_bps") => "bits/s",
        _ if field.ends_with("_hz") => "hertz",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{self, ENTITIES};

    #[test]
    fn every_other_name_leads_somewhere() {
        for (of, alias, _) in ALIASES.iter().filter(|(_, alias, _)| !alias.ends_with("_in")) {
            let entities = ENTITIES.iter().filter(|e| of.is_empty() || e.name == *of);
            assert!(entities.clone().any(|e| e.field(alias).is_some()), "{of}.{alias}");
        }
        for (alias, names) in ENTITY_ALIASES {
            let known = |name: &&&str| catalog::find(name).is_some() || NOT_BUILT.contains(*name);
            assert!(names.iter().all(|name| known(&name)), "{alias}");
        }
    }
}
