//! The data set: two sites of one tenant, and a device of another. "Now" is 2024-03-31T12:00:00Z.

use std::net::IpAddr;

use arrow_array::RecordBatch;
use radarflow_proto::cell::IpBytes;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{
    Alert, BatchBuilder, Change, CpuMetric, Device, DeviceGroup, Event, Flow, HealthEvent, Log, OtelMetric, OtelTrace,
    Row, ServiceState, StateRow, Table, TimeseriesMetric, TraceSummary,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// "Now", milliseconds.
pub(crate) const NOW: i64 = 1_711_886_400_000;

/// So many minutes before now, microseconds.
fn ago(minutes: i64) -> i64 {
    (NOW - minutes * 60_000) * 1000
}

/// A row of what every such row has, and what this one has.
pub(crate) fn row<R: DeserializeOwned>(base: &Value, more: &Value) -> R {
    let mut all = base.clone();
    for (key, value) in more.as_object().expect("an object") {
        all[key] = value.clone();
    }
    serde_json::from_value(all).expect("a row")
}

pub(crate) fn batch<R: Row>(rows: &[R]) -> RecordBatch {
    let mut builder = R::Batch::default();
    rows.iter().for_each(|row| builder.push(row));
    builder.finish()
}

pub(crate) fn devices() -> Vec<StateRow> {
    let base = json!({
        "tenant_id": "t", "partition": "default", "display_name": "", "ip_addresses": [], "mac_addresses": [],
        "discovery_sources": [], "availability": "unknown", "first_seen_time": ago(100_000), "last_seen_time": ago(5),
        "lifecycle": "identified", "metadata": {}, "enriched_by": {}, "epoch": 2,
    });
    let device = |more: Value| StateRow::from(row::<Device>(&base, &more));
    vec![
        device(json!({"uid": "sr:core1", "display_name": "core1", "hostname": "core1", "ip": "10.0.0.1",
            "ip_addresses": ["10.0.0.1", "10.0.1.1"], "mac": "0CEA14000001", "mac_addresses": ["0CEA14000001"],
            "type": "router", "vendor_name": "Cisco", "model": "ASR1001", "discovery_sources": ["netbox", "mapper"],
            "is_available": true, "availability": "available", "lifecycle": "managed",
            "metadata": {"rack": "r1", "role": "core", "port count": "48"}})),
        device(json!({"uid": "sr:core2", "display_name": "core2", "hostname": "core2", "ip": "10.0.0.2",
            "ip_addresses": ["10.0.0.2"], "type": "router", "vendor_name": "Juniper", "discovery_sources": ["netbox"],
            "is_available": false, "availability": "unavailable", "last_seen_time": ago(30),
            "metadata": {"rack": "r2", "role": "core"}})),
        device(json!({"uid": "sr:web1", "display_name": "web1", "hostname": "web1.example.net", "ip": "10.0.0.10",
            "ip_addresses": ["10.0.0.10", "2001:db8::10"], "mac": "0CEA1400000A", "type": "server", "os": "Linux 6.1",
            "vendor_name": "Dell", "discovery_sources": ["armis", "netbox", "agent"], "is_available": true,
            "availability": "available", "lifecycle": "managed", "agent_id": "agent-web1",
            "metadata": {"rack": "r1", "role": "web"}})),
        device(json!({"uid": "sr:web2", "display_name": "web2", "hostname": "web2.example.net", "ip": "10.0.0.11",
            "ip_addresses": ["10.0.0.11"], "type": "server", "vendor_name": "dell", "discovery_sources": ["armis"],
            "last_seen_time": ago(3000), "metadata": {"role": "web"}})),
        device(json!({"uid": "sr:cam1", "display_name": "O'Brien's cam_1", "name": "O'Brien's cam_1",
            "ip": "10.0.2.7", "ip_addresses": ["10.0.2.7"], "type": "camera", "vendor_name": "Axis",
            "discovery_sources": ["sweep"], "lifecycle": "discovered", "last_seen_time": ago(90)})),
        device(json!({"uid": "sr:old", "display_name": "old", "hostname": "old", "lifecycle": "decommissioned",
            "discovery_sources": ["netbox"], "last_seen_time": ago(50_000), "deleted_at": ago(1000),
            "deleted_by": "ann", "deleted_reason": "sold"})),
        device(json!({"uid": "sr:b1", "partition": "site-b", "display_name": "core1", "hostname": "core1",
            "ip": "10.0.0.1", "ip_addresses": ["10.0.0.1"], "type": "router", "vendor_name": "Cisco",
            "discovery_sources": ["netbox"], "is_available": true, "availability": "available"})),
        device(json!({"uid": "sr:u1", "tenant_id": "u", "display_name": "theirs", "hostname": "theirs"})),
    ]
}

fn alerts() -> Vec<StateRow> {
    let base = json!({
        "tenant_id": "t", "partition": "default", "fingerprint": "f", "rule": "device-offline", "title": "core2 is offline",
        "description": "", "severity": "critical", "status": "pending", "source_type": "device", "source_id": "sr:core2",
        "triggered_at": ago(20), "escalation_level": 0, "notification_count": 0, "occurrence_count": 1, "labels": {}, "annotations": {}, "epoch": 2,
    });
    let alert = |more: Value| StateRow::from(row::<Alert>(&base, &more));
    vec![
        alert(json!({"id": "a-1", "device_uid": "sr:core2"})),
        alert(json!({"id": "a-2", "rule": "log-burst", "title": "many errors", "severity": "warning",
            "status": "resolved", "source_id": "10.0.0.10", "device_uid": "sr:web1", "triggered_at": ago(200),
            "resolved_at": ago(150)})),
    ]
}

fn groups() -> Vec<StateRow> {
    let base = json!({
        "tenant_id": "t", "partition": "default", "members": [], "description": "", "actor": "ann", "reason": "r", "epoch": 2,
    });
    let group = |more: Value| StateRow::from(row::<DeviceGroup>(&base, &more));
    vec![
        group(json!({"name": "core", "condition": "metadata.role:core OR hostname:core*"})),
        group(json!({"name": "web servers", "condition": "type:server !os:*"})),
        group(json!({"name": "cameras", "members": ["sr:cam1", "sr:gone"]})),
        group(json!({"name": "logging", "condition": "uid:(in:logs time:last_7d fields:device_uid)"})),
        group(json!({"name": "talking", "condition": "uid:(in:flows time:last_7d fields:src_device_uid)"})),
        group(json!({"name": "theirs", "tenant_id": "u", "condition": "uid:*"})),
    ]
}

pub(crate) fn bytes_of(ip: &str) -> IpBytes {
    IpBytes::from(ip.parse::<IpAddr>().expect("an address"))
}

/// What every flow has.
pub(crate) fn any_flow() -> Value {
    json!({
        "tenant_id": "t", "partition": "default", "epoch": 2, "received_at": ago(1), "bytes_total": 0, "packets_total": 0,
        "bytes_raw": 0, "packets_raw": 0, "sampling_source": "unknown", "sampler_address": "10.0.0.1",
        "flow_type": "netflow_v9", "exporter_device_uid": "sr:core1",
    })
}

/// A flow of an epoch, from an address of a device.
pub(crate) fn flow(epoch: u64, n: u64, time_us: i64, src: u64, bytes: u64) -> Flow {
    let ip = format!("10.0.0.{src}");
    let (app, partition) = (
        if bytes.is_multiple_of(2) { "dns" } else { "https" },
        if src.is_multiple_of(2) { "default" } else { "site-b" },
    );
    let more = json!({
        "row_id": epoch * 1000 + n, "epoch": epoch, "time": time_us, "src_endpoint_ip": ip,
        "src_endpoint_ip_bin": bytes_of(&ip), "bytes_total": bytes, "app": app,
        "src_device_uid": format!("sr:web{src}"), "partition": partition,
    });
    row(&any_flow(), &more)
}

fn flows() -> RecordBatch {
    let base = any_flow();
    let rows: Vec<Flow> = [
        (1, 5, "10.0.0.10", "10.0.2.7", "https", 443, 6_000, "sr:web1", Some("sr:cam1")),
        (2, 6, "10.0.0.10", "8.8.8.8", "dns", 53, 200, "sr:web1", None),
        (3, 7, "10.0.0.11", "8.8.8.8", "dns", 53, 300, "sr:web2", None),
        (4, 12, "10.0.0.11", "10.0.0.10", "https", 443, 9_000, "sr:web2", Some("sr:web1")),
        (5, 13, "10.0.2.7", "10.0.0.10", "rtsp", 554, 50_000, "sr:cam1", Some("sr:web1")),
        (6, 65, "10.0.0.10", "2001:db8::99", "https", 443, 1_000, "sr:web1", None),
        (7, 2_000, "10.0.0.10", "10.0.2.7", "https", 443, 700, "sr:web1", Some("sr:cam1")),
        (8, 6_000, "10.0.2.7", "1.1.1.1", "dns", 53, 100, "sr:cam1", None),
    ]
    .into_iter()
    .map(|(n, minutes, src, dst, app, port, bytes, from, to)| {
        row(
            &base,
            &json!({"row_id": n, "time": ago(minutes), "src_endpoint_ip": src, "dst_endpoint_ip": dst, "app": app,
                "src_endpoint_ip_bin": bytes_of(src), "dst_endpoint_ip_bin": bytes_of(dst), "dst_endpoint_port": port, "protocol_num": if port == 53 { 17 } else { 6 },
                "protocol_name": if port == 53 { "udp" } else { "tcp" }, "bytes_total": bytes,
                "tcp_flags": if port == 53 { json!(null) } else if n % 2 == 0 { json!(2) } else { json!(18) },
                "packets_total": bytes / 100, "src_device_uid": from, "dst_device_uid": to}),
        )
    })
    .collect();
    batch(&rows)
}

fn logs() -> RecordBatch {
    let base = json!({
        "tenant_id": "t", "partition": "default", "epoch": 2, "received_at": ago(1), "parse_status": "ok", "attributes": {},
    });
    let rows: Vec<Log> = [
        (11, 3, "10.0.0.1", 3, "error", "Interface Gi0/1: link down", Some("sr:core1")),
        (12, 4, "10.0.0.1", 6, "info", "Interface Gi0/1: link up", Some("sr:core1")),
        (13, 8, "10.0.0.10", 4, "warning", "disk 91% full", Some("sr:web1")),
        (14, 9, "10.0.0.10", 3, "error", "cannot connect to 10.0.0.11", Some("sr:web1")),
        (15, 70, "10.0.0.99", 2, "critical", "unknown sender", None),
        (16, 1_500, "10.0.0.10", 7, "debug", "tick", Some("sr:web1")),
    ]
    .into_iter()
    .map(|(n, minutes, source, number, severity, body, device)| {
        row(
            &base,
            &json!({"row_id": n, "time": ago(minutes), "source_ip": source, "severity_number": number,
                "severity": severity, "body": body, "device_uid": device,
                "attributes": if number == 3 { json!({"code": "17", "user": "root"}) } else { json!({}) }}),
        )
    })
    .collect();
    batch(&rows)
}

/// Events whose names a float does not tell apart.
fn events() -> RecordBatch {
    let base = json!({
        "tenant_id": "t", "partition": "default", "epoch": 2, "activity_name": "Update", "entity_type": "device",
        "entity_id": "sr:core1", "device_uid": "sr:core1", "attributes": {},
    });
    let event = |n: u64, minutes: i64, severity: i64, message: &str, more: Value| {
        let (class, time) = (n + 1, ago(minutes));
        let own = json!({"row_id": n, "time": time, "class_uid": class, "severity_id": severity, "message": message, "attributes": more});
        row::<Event>(&base, &own)
    };
    batch(&[
        event(
            9_007_199_254_740_992,
            10,
            4,
            "port Gi0/1 is down",
            json!({"x@1.code": "500", "port count": "48", "limit": "5"}),
        ),
        event(9_007_199_254_740_993, 20, 1, "port Gi0/1 is up", json!({"x@1.code": "200"})),
        event(9_007_199_254_740_994, 3000, 5, "core1 was replaced", json!({})),
    ])
}

fn health() -> RecordBatch {
    let base = json!({
        "tenant_id": "t", "partition": "default", "epoch": 2, "entity_type": "agent", "entity_id": "agent-1",
        "old_state": "connected", "new_state": "disconnected", "reason": "silent", "duration_seconds": 60,
    });
    let event = |n: i64, minutes: i64, old: &str, new: &str| {
        row::<HealthEvent>(
            &base,
            &json!({"row_id": n, "recorded_at": ago(minutes), "old_state": old, "new_state": new}),
        )
    };
    batch(&[event(21, 50, "connected", "disconnected"), event(22, 40, "disconnected", "connected")])
}

fn cpus() -> RecordBatch {
    let base = json!({"tenant_id": "t", "partition": "default", "epoch": 3, "received_at": ago(1), "agent_id": "agent-web1",
        "host_id": "web1", "host_ip": "10.0.0.10", "device_uid": "sr:web1"});
    let core = |n: i64, minutes: i64, core: i64, busy: f64| {
        row::<CpuMetric>(&base, &json!({"row_id": n, "time": ago(minutes), "core_id": core, "usage_percent": busy}))
    };
    batch(&[core(31, 3, 0, 10.5), core(32, 3, 1, 95.25), core(33, 2, 0, 20.0), core(34, 1, 0, 99.5)])
}

fn series() -> RecordBatch {
    let base = json!({"tenant_id": "t", "partition": "default", "epoch": 3, "received_at": ago(1), "agent_id": "agent-1",
        "metric_type": "snmp", "metric_name": "ifHCInOctets", "target": "core1", "target_device_ip": "10.0.0.1",
        "if_index": 3, "tags": {}, "device_uid": "sr:core1"});
    let sample = |n: i64, minutes: i64, more: Value| {
        let at = json!({"row_id": n, "time": ago(minutes), "value": 1e12 + n as f64});
        row::<TimeseriesMetric>(&row(&base, &at), &more)
    };
    batch(&[
        sample(41, 3, json!({"rate_missing": "first"})),
        sample(42, 2, json!({"rate_per_second": 1_250_000.5, "interval_seconds": 60.0, "utilization_percent": 10.0})),
        sample(43, 1, json!({"rate_per_second": 6.25e6, "interval_seconds": 60.0, "utilization_percent": 50.0})),
        sample(44, 1, json!({"metric_type": "plugin", "metric_name": "ms", "value": -0.5, "target": "check"})),
    ])
}

fn services() -> Vec<StateRow> {
    let base = json!({"tenant_id": "t", "partition": "default", "agent_id": "agent-1", "service_type": "sweep",
        "since": ago(50), "last_seen": ago(5), "epoch": 3});
    let service = |name: &str, available: Option<bool>, state: &str| {
        let more = json!({"service_name": name, "available": available, "state": state});
        StateRow::from(row::<ServiceState>(&base, &more))
    };
    vec![
        service("network_sweep", Some(true), "available"),
        service("lab", Some(false), "unavailable"),
        service("old", None, "unknown"),
    ]
}

/// The trace that two spans are of.
const TRACE: &str = "5b8efff798038103d269b633813fc60c";

fn spans() -> RecordBatch {
    let base = json!({
        "tenant_id": "t", "partition": "default", "epoch": 2, "received_at": ago(1), "source_ip": "10.0.0.10",
        "device_uid": "sr:web1", "trace_id": TRACE, "start_time_unix_nano": 1, "end_time_unix_nano": 2, "status_code": 0,
        "dropped_attributes_count": 0, "dropped_events_count": 0, "dropped_links_count": 0, "resource_attributes": {},
    });
    let span = |n: u64, minutes: i64, name: &str, kind: u64, ms: Option<f64>, more: Value| {
        let own = json!({"row_id": n, "time": ago(minutes), "span_id": format!("{n:016x}"), "name": name, "span_kind": kind,
            "duration_ms": ms, "service_name": if kind == 2 { "shop" } else { "bank" }, "attributes": more});
        row::<OtelTrace>(&base, &own)
    };
    let failed = |span: OtelTrace| OtelTrace { status_code: 2, status_message: Some("declined".into()), ..span };
    batch(&[
        span(31, 5, "GET /orders", 2, Some(120.5), json!({"http.status_code": "500"})),
        failed(span(32, 5, "pay", 3, Some(80.25), json!({}))),
        OtelTrace { trace_id: TRACE.replace('5', "6"), ..span(33, 50, "GET /", 2, None, json!({})) },
    ])
}

fn metrics() -> RecordBatch {
    let base = json!({
        "tenant_id": "t", "partition": "default", "epoch": 2, "received_at": ago(1), "time_unix_nano": 1,
        "service_name": "shop", "attributes": {"shop": "north"}, "resource_attributes": {},
    });
    let point = |n: u64, minutes: i64, name: &str, kind: &str, more: Value| {
        let own = json!({"row_id": n, "time": ago(minutes), "metric_name": name, "metric_type": kind});
        row::<OtelMetric>(&row::<Value>(&base, &own), &more)
    };
    batch(&[
        point(
            41,
            3,
            "orders",
            "sum",
            json!({"value": 150.0, "value_int": 150, "delta": 50.0, "rate": 0.5, "is_monotonic": true}),
        ),
        point(42, 4, "orders", "sum", json!({"value": 100.0, "value_int": 100, "is_monotonic": true})),
        point(43, 3, "load", "gauge", json!({"value": 0.75})),
        point(44, 3, "sizes", "histogram", json!({"count": 3, "sum": 6.5, "min": 1.0, "max": 4.0, "unit": "By"})),
    ])
}

fn traces() -> Vec<StateRow> {
    let base = json!({
        "tenant_id": "t", "partition": "default", "trace_id": TRACE, "start_time": ago(5), "end_time": ago(5),
        "start_time_unix_nano": 1, "end_time_unix_nano": 2, "duration_ms": 120.5, "root_span_name": "GET /orders",
        "root_service_name": "shop", "root_span_kind": 2, "status_code": 0, "service_set": ["bank", "shop"], "span_count": 2,
        "error_count": 1, "is_closed": true, "epoch": 2,
    });
    let other = json!({"trace_id": TRACE.replace('5', "6"), "start_time": ago(50), "duration_ms": 3.0, "service_set": ["shop"],
        "root_span_name": "GET /", "span_count": 1, "error_count": 0});
    [json!({}), other].iter().map(|more| StateRow::from(row::<TraceSummary>(&base, more))).collect()
}

/// A device as it was three days ago.
fn earlier(row: &StateRow) -> StateRow {
    let StateRow::Device(now) = row else { unreachable!("a device") };
    StateRow::from(Device { vendor_name: Some("AXIS".into()), ip: Some("10.0.2.8".into()), ..Device::clone(now) })
}

/// A device that is no more.
fn gone() -> StateRow {
    let cam = devices().swap_remove(4);
    let StateRow::Device(cam) = cam else { unreachable!("a device") };
    StateRow::from(Device { uid: "sr:gone".into(), display_name: "gone".into(), ..Device::clone(&cam) })
}

/// What the dataflow would have said.
pub(crate) fn epochs() -> Vec<EpochOutput> {
    let changes = |epoch, rows: Vec<StateRow>| -> Vec<Change> {
        rows.into_iter().filter_map(|row| Change::new(None, Some(row.at(epoch)))).collect()
    };
    let cam = earlier(&devices()[4]);
    let mut second = changes(2, devices().into_iter().filter(|d| d.key() != cam.key()).collect());
    second.extend(Change::new(Some(cam.clone()), Some(devices().swap_remove(4).at(2))));
    second.extend(Change::new(Some(gone()), None));
    vec![
        EpochOutput {
            epoch: 1,
            clock_ms: NOW - 259_200_000,
            changes: changes(1, vec![cam, gone()]),
            ..EpochOutput::default()
        },
        EpochOutput { epoch: 2, clock_ms: NOW - 1000, changes: second, ..EpochOutput::default() },
        EpochOutput {
            epoch: 3,
            clock_ms: NOW,
            changes: changes(3, alerts().into_iter().chain(groups()).chain(services()).chain(traces()).collect()),
            events: vec![
                (Table::Flow, flows()),
                (Table::Log, logs()),
                (Table::Event, events()),
                (Table::HealthEvent, health()),
                (Table::CpuMetric, cpus()),
                (Table::TimeseriesMetric, series()),
                (Table::OtelTrace, spans()),
                (Table::OtelMetric, metrics()),
            ],
            ..EpochOutput::default()
        },
    ]
}
