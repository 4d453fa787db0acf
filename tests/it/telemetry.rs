//! What agents measure and report, through the gateway as ServiceRadar's agent sends it, to questions and rules.

use radarflow_proto::grpc::{GatewayServiceStatus, GatewayStatusChunk, GatewayStatusRequest};
use serde_json::{Value, json};

use crate::server::{Home, Server};

fn service(name: &str, kind: &str, source: &str, message: &Value) -> GatewayServiceStatus {
    GatewayServiceStatus {
        service_name: name.into(),
        available: true,
        message: message.to_string().into_bytes().into(),
        service_type: kind.into(),
        agent_id: "go-1".into(),
        source: source.into(),
        ..Default::default()
    }
}

/// A stream of one chunk, as the agent sends each of its results.
async fn stream(server: &Server, services: Vec<GatewayServiceStatus>) {
    let chunk = GatewayStatusChunk {
        services,
        agent_id: "go-1".into(),
        gateway_id: "radarflow".into(),
        partition: "default".into(),
        source_ip: "192.0.2.2".into(),
        is_final: true,
        total_chunks: 1,
        ..Default::default()
    };
    server.grpc().await.stream_status(tonic::codegen::tokio_stream::iter([chunk])).await.unwrap();
}

/// An instant as Go writes it, so many seconds ago.
fn ago(seconds: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    radarflow_proto::cell::Time(now - seconds * 1_000_000).to_string()
}

fn sample(seconds: i64, busy: f64, received: u64) -> GatewayServiceStatus {
    let status = json!({"timestamp": ago(seconds), "host_id": "vm", "host_ip": "192.0.2.2", "partition": "default",
        "agent_id": "go-1", "cpus": [{"core_id": 0, "label": "CPU0", "usage_percent": busy, "frequency_hz": 2_445_434_000u64}],
        "disks": [{"mount_point": "/", "used_bytes": 36_574_392_320u64, "total_bytes": 270_553_174_016u64}],
        "memory": {"used_bytes": 419_774_464, "total_bytes": 25_276_510_208u64},
        "network": [{"interface": "eth0", "bytes_sent": 1, "bytes_recv": received, "errors_in": 0}],
        "processes": [{"pid": 1, "name": "init", "cpu_usage": 0.5, "memory_usage": 1_048_576, "status": "sleep"}]});
    let message = json!({"available": true, "response_time": 0, "status": status});
    service("sysmon", "sysmon", "sysmon-metrics", &message)
}

#[tokio::test]
async fn what_agents_measure_is_asked_for_and_rules_hold_of_it() {
    let mut home = Home::new("");
    let server = home.start();
    let rule = json!({"query": "in:cpu_metrics time:last_5m stats:\"avg(usage_percent) as busy by agent_id\" having:\"busy > 80\"",
        "severity": "warning", "title": "{agent_id} is {busy} percent busy"});
    let snmp = json!({"query": "in:snmp_metrics time:last_5m stats:\"max(utilization_percent) as share by target, if_index\" having:\"share >= 50\""});
    for (name, attributes) in
        [("busy", rule), ("full-line", snmp), ("down", json!({"query": "in:services state:unavailable"}))]
    {
        let body = json!({"data": {"type": "rules", "id": name, "attributes": attributes}});
        let (status, made) = server.post("/api/v2/rules", &server.token, &body).await;
        assert_eq!(status, 201, "{made}");
    }
    stream(&server, vec![sample(60, 95.5, 1000)]).await;
    stream(&server, vec![sample(50, 97.5, 6000)]).await;
    let octets = |seconds: i64, value: u64| {
        json!({"target": "sw1", "host": "10.0.0.1", "metric": "ifHCInOctets", "oid": ".1.3.6.1.2.1.31.1.1.1.6.3",
            "value": value, "timestamp": ago(seconds), "data_type": "counter", "scale": 1, "if_index": 3})
    };
    let speed = json!({"target": "sw1", "host": "10.0.0.1", "metric": "ifHighSpeed", "oid": ".1.3.6.1.2.1.31.1.1.1.15.3",
        "value": 1, "timestamp": ago(90), "data_type": "gauge"});
    let read = json!({"results": [octets(90, 0), speed, octets(30, 6_000_000)]});
    stream(&server, vec![service("snmp", "snmp", "snmp-metrics", &read)]).await;
    let now_ns = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
    let trace = json!({"results": [{"check_id": "c", "check_name": "core", "target": "198.51.100.9", "available": true,
        "trace": {"target": "198.51.100.9", "target_ip": "198.51.100.9", "target_reached": true, "total_hops": 1,
            "protocol": "icmp", "ip_version": 4, "hops": [{"hop_number": 1, "addr": "198.51.100.9", "sent": 3, "received": 3,
            "loss_pct": 0, "avg_us": 900}]}, "timestamp": now_ns}]});
    let plugin = json!({"status": "WARNING", "summary": "slow", "labels": {"plugin_id": "p"}, "metrics": [{"name": "ms", "value": 7}]});
    let interface = json!([{"device_ip": "10.0.0.1", "if_index": 3, "if_name": "Gi0/3", "if_speed": 1_000_000,
        "if_admin_status": 1, "if_oper_status": 2, "metadata": null, "timestamp": ago(1)}]);
    stream(
        &server,
        vec![
            service("mtr_traces", "mtr", "results", &trace),
            service("check", "plugin", "plugin-result", &plugin),
            service("mapper", "mapper_interfaces", "results", &interface),
        ],
    )
    .await;
    let status = GatewayStatusRequest {
        services: vec![GatewayServiceStatus {
            available: false,
            ..service("network_sweep", "sweep", "status", &json!({"reason": "no_sweep_groups_configured"}))
        }],
        agent_id: "go-1".into(),
        ..Default::default()
    };
    server.grpc().await.push_status(status).await.unwrap();

    // Each entity answers, with what dashboards ask of it.
    let about = [
        (
            "in:cpu host_ip:192.0.2.0/24 stats:\"avg(usage_percent) as busy by host_id\"",
            json!({"host_id": "vm", "busy": 96.5}),
        ),
        ("in:memory stats:\"max(used_bytes) as most\"", json!({"most": 419_774_464})),
        (
            "in:disk mount_point:/ usage_percent:13.518..13.519 fields:used_bytes limit:1",
            json!({"used_bytes": 36_574_392_320_u64}),
        ),
        ("in:processes cpu_usage:0.5 stats:\"count() as n by name\"", json!({"name": "init", "n": 2})),
        (
            "in:timeseries_metrics metric_type:sysmon metric_name:bytes_recv rate:>0 fields:interface_uid,rate_missing",
            json!({"interface_uid": "eth0", "rate_missing": null}),
        ),
        ("in:snmp metric:ifHCInOctets utilization:79.9..80.1 fields:if_index limit:1", json!({"if_index": 3})),
        ("in:snmp_metrics stats:\"count() as n\"", json!({"n": 3})),
        ("in:timeseries stats:\"count() as n\"", json!({"n": 10})),
        ("in:mtr_traces target_reached:true fields:path,avg_us", json!({"path": ["198.51.100.9"], "avg_us": 900})),
        ("in:mtr_hops addr:198.51.100.9 fields:hop_number,loss_pct", json!({"hop_number": 1, "loss_pct": 0.0})),
        ("in:plugin_results status:WARNING fields:summary", json!({"summary": "slow"})),
        ("in:interfaces status:2 fields:if_name,if_speed", json!({"if_name": "Gi0/3", "if_speed": 1_000_000})),
        ("in:services available:false fields:name,state", json!({"name": "network_sweep", "state": "unavailable"})),
        (
            "in:health_events entity_type:service new_state:unavailable fields:entity_id",
            json!({"entity_id": "go-1/sweep/network_sweep"}),
        ),
    ];
    for (query, row) in about {
        server.until(query, |rows| rows == [row.clone()]).await;
    }
    let summary = server.rows("in:services rollup_stats:availability").await;
    let payload = json!({"total": 2, "available": 1, "unavailable": 1, "unknown": 0, "availability_pct": 50.0});
    assert_eq!(summary, [json!({"payload": payload})]);
    let buckets =
        server.rows("in:cpu_metrics time:last_1h bucket:1h agg:max value_field:usage_percent series:host_id").await;
    assert!(buckets.iter().any(|row| row["series"] == "vm" && row["value"] == 97.5), "{buckets:?}");
    for rule in ["busy", "full-line", "down"] {
        server.until(&format!("in:alerts rule:{rule} status:pending"), |rows| rows.len() == 1).await;
    }
    let titles = server.rows("in:alerts rule:busy fields:title").await;
    // It began with the first sample, or with both.
    let began = |busy: &str| titles == [json!({"title": format!("go-1 is {busy} percent busy")})];
    assert!(began("95.5") || began("96.5"), "{titles:?}");

    // What is no payload is told of, and harms nobody.
    stream(&server, vec![service("sysmon", "sysmon", "sysmon-metrics", &json!({"status": 7})), sample(0, 1.0, 6000)])
        .await;
    server.until("in:rejects reason:%sample%", |rows| rows.len() == 1).await;
    server.count("cpu_metrics", 3).await;
    // Of what was measured before the agent was known nobody knows the device.
    let device = server.until("in:cpu_metrics device_id:* fields:device_id", |rows| rows.len() == 1).await;
    assert!(device[0]["device_id"].as_str().unwrap().starts_with("sr:"), "the host is its agent's device");

    // All of it is there after a crash.
    server.kill();
    let server = home.start();
    server.count("cpu_metrics", 3).await;
    server.count("interfaces", 1).await;
    let rates = "in:snmp_metrics rate_per_second:99000..101000 fields:if_index";
    assert_eq!(server.rows(rates).await, [json!({"if_index": 3})]);
    server.stop();
}
