//! What agents measure and report, in the payloads that ServiceRadar's agents send: rows, rates, services, paths; and what is no
//! such payload.

use proptest::prelude::*;
use radarflow_dataflows::worker::Start;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Fact;
use radarflow_proto::payload::{AgentPush, ServiceHead};
use radarflow_proto::rows::{
    CpuMetric, DiskMetric, Event, HealthEvent, Interface, MemoryMetric, MtrHop, MtrTrace, PluginResult, ProcessMetric,
    Reject, ServiceState, Source, StateRow, TimeseriesMetric,
};
use serde_json::{Value, json};

use crate::harness::*;

/// A payload of an agent.
pub(crate) fn said(source: &str, kind: &str, name: &str, available: bool, message: &str) -> Input {
    let (name, kind, source) = (name.to_owned(), kind.to_owned(), source.to_owned());
    let push = AgentPush {
        agent_id: "a".to_owned(),
        gateway_id: "g".to_owned(),
        service: Some(ServiceHead { name, kind, source, available }),
        ..AgentPush::default()
    };
    pushed(&push, "", message)
}

fn sysmon(sample: &Value) -> Input {
    said("sysmon-metrics", "sysmon", "sysmon", true, &json!({"available": true, "status": sample}).to_string())
}

fn snmp(results: &Value) -> Input {
    said("snmp-metrics", "snmp", "snmp", true, &json!({"results": results}).to_string())
}

/// An instant as Go writes it, so many seconds after the harness' beginning.
fn second(second: i64) -> String {
    Time::from_ms(T0 + second * 1000).to_string()
}

fn rejects(run: &Run) -> Vec<String> {
    run.rows::<Reject>().into_iter().map(|r| r.reason).collect()
}

fn series(run: &Run) -> Vec<TimeseriesMetric> {
    let mut rows = run.rows::<TimeseriesMetric>();
    rows.sort_by_key(|row| row.row_id);
    rows
}

fn services(run: &Run) -> Vec<ServiceState> {
    let rows = run.tables.state.values();
    rows.filter_map(|row| if let StateRow::ServiceState(s) = row { Some((**s).clone()) } else { None }).collect()
}

/// Something of each kind that is remembered, at a second.
pub(crate) fn some_of_each(at: i64) -> Vec<Input> {
    let interface = json!([{"device_ip": "10.0.0.1", "if_index": at, "if_speed": 1_000_000, "timestamp": second(at)}]);
    vec![
        snmp(&json!([octets(at, 1000 * at as u64)])),
        trace(at, &[&["10.0.0.1"], if at % 2 == 0 { &["10.0.0.2"] } else { &["10.0.0.3"] }]),
        said("status", "sweep", "network_sweep", at % 2 == 0, "{}"),
        said("results", "mapper_interfaces", "mapper", true, &interface.to_string()),
    ]
}

#[test]
fn a_sample_of_a_host_is_rows_about_the_device_that_has_its_address() {
    let mut run = Run::new(2);
    run.tick(instances());
    run.tick(vec![sync(&[armis("A", "192.0.2.2", 1, "")])]);
    let uid = run.tables.owner("default", "192.0.2.2").unwrap().device_uid;
    assert!(uid.is_some());
    let sample = |at: i64, received: u64| {
        json!({"timestamp": second(at), "host_id": "vm", "host_ip": "192.0.2.2", "partition": "default", "agent_id": "a",
            "cpus": [{"core_id": 0, "label": "CPU0", "usage_percent": 8.823_529, "frequency_hz": 2_445_434_000u64},
                {"core_id": 1, "usage_percent": 100.4}],
            "clusters": [{"name": "efficiency", "frequency_hz": 1e9}],
            "disks": [{"mount_point": "/", "used_bytes": 50, "total_bytes": 200}],
            "memory": {"used_bytes": 30, "total_bytes": 120, "swap_used_bytes": 1, "swap_total_bytes": 2},
            "network": [{"interface": "eth0", "bytes_sent": 10, "bytes_recv": received, "packets_sent": 0}],
            "processes": [{"pid": 26603, "name": "rustc", "cpu_usage": 152.5, "memory_usage": 259_633_152u64,
                "status": "sleep", "start_time": "2023-12-31T00:00:00Z"}]})
    };
    run.tick_after(60_000, vec![sysmon(&sample(10, 1000))]);
    run.tick_after(60_000, vec![sysmon(&sample(20, 6000))]);
    let cpus = run.rows::<CpuMetric>();
    let cpu = |c: &CpuMetric| (c.core_id, c.usage_percent.map(|n| n.0), c.cluster.clone(), c.device_uid.clone());
    assert_eq!(cpus.len(), 6);
    assert!(cpus.iter().all(|c| c.device_uid == uid && c.gateway_id.as_deref() == Some("g")));
    let mut of_first: Vec<_> = cpus.iter().filter(|c| c.time.ms() == T0 + 10_000).map(cpu).collect();
    of_first.sort_by_key(|c| c.0);
    assert_eq!(of_first[1].1, Some(8.823_529));
    assert_eq!((of_first[2].1, of_first[0].2.as_deref()), (Some(100.0), Some("efficiency")));
    let memory = &run.rows::<MemoryMetric>()[0];
    assert_eq!((memory.available_bytes, memory.usage_percent.unwrap().0, memory.swap_total_bytes), (90, 25.0, Some(2)));
    let disk = &run.rows::<DiskMetric>()[0];
    assert_eq!((disk.mount_point.as_str(), disk.usage_percent.unwrap().0, &disk.device_uid), ("/", 25.0, &uid));
    let process = &run.rows::<ProcessMetric>()[0];
    assert_eq!((process.pid, process.cpu_usage.unwrap().0, process.start_time.is_some()), (26603, 152.5, true));
    // What interfaces count has its rate.
    let network = series(&run);
    let rate = |metric: &str, at: i64| {
        let row = network.iter().find(|r| r.metric_name == metric && r.time.ms() == T0 + at * 1000).unwrap();
        assert_eq!(
            (row.metric_type.as_str(), row.interface_uid.as_deref(), &row.device_uid),
            ("sysmon", Some("eth0"), &uid)
        );
        (row.rate_per_second.map(|n| n.0), row.rate_missing.clone())
    };
    assert_eq!(rate("bytes_recv", 10), (None, Some("first".to_owned())));
    assert_eq!(rate("bytes_recv", 20), (Some(500.0), None));
    assert_eq!((rate("bytes_sent", 20).0, network.len()), (Some(0.0), 6));
    assert_eq!(rejects(&run), Vec::<String>::new());
}

const HC: &str = ".1.3.6.1.2.1.31.1.1.1.6.3";

fn octets(at: i64, value: u64) -> Value {
    json!({"target": "sw1", "host": "10.0.0.1", "metric": "ifHCInOctets::ifindex:3", "oid": HC, "value": value,
        "timestamp": second(at), "data_type": "counter", "scale": 1})
}

#[test]
fn counters_read_by_snmp_have_rates_and_shares_of_the_line() {
    let mut run = Run::new(3);
    let speed = json!({"target": "sw1", "host": "10.0.0.1", "metric": "ifHighSpeed",
        "oid": ".1.3.6.1.2.1.31.1.1.1.15.3", "value": 100, "timestamp": second(0), "data_type": "gauge"});
    let load = json!({"target": "sw1", "host": "10.0.0.1", "metric": "cpu", "oid": ".1.3.6.1.4.1.9.1", "value": -3,
        "timestamp": second(0), "data_type": "gauge"});
    run.tick_after(300_000, vec![snmp(&json!([octets(0, 1000), speed, load]))]);
    run.tick(vec![snmp(&json!([octets(60, 75_001_000)]))]);
    // Late, and again.
    run.tick(vec![snmp(&json!([octets(30, 1000), octets(60, 75_001_000)]))]);
    // The device began again.
    run.tick(vec![snmp(&json!([octets(120, 5)]))]);
    let rows = series(&run);
    let rows: Vec<_> = rows.iter().filter(|r| r.metric_name == "ifHCInOctets").collect();
    let told = |r: &&TimeseriesMetric| {
        (r.rate_per_second.map(|n| n.0), r.utilization_percent.map(|n| n.0), r.rate_missing.clone())
    };
    let none = |why: &str| (None, None, Some(why.to_owned()));
    let told: Vec<_> = rows.iter().map(told).collect();
    let busy = (Some(1_250_000.0), Some(10.0), None);
    assert_eq!(told, [none("first"), busy.clone(), (Some(0.0), Some(0.0), None), busy, none("reset")]);
    let row = rows[1];
    assert_eq!((row.if_index, row.if_speed_bps, row.interval_seconds.unwrap().0), (Some(3), Some(100_000_000), 60.0));
    assert_eq!((row.interface_uid.as_deref(), row.target.as_deref()), (Some("ifindex:3"), Some("sw1")));
    assert_eq!(row.target_device_ip, Some("10.0.0.1".parse().unwrap()));
    let all = series(&run);
    let gauge = all.iter().find(|r| r.metric_name == "cpu").unwrap();
    assert_eq!((gauge.value.0, gauge.rate_per_second, &gauge.rate_missing), (-3.0, None, &None));
    assert!(rejects(&run).is_empty());
    // Polls that come together are read one by one: the first is before the device began again, the second after.
    run.tick(vec![snmp(&json!([octets(180, 6_000_005), octets(240, 7), octets(300, 607)]))]);
    let rates: Vec<_> = series(&run).iter().rev().take(3).map(|r| r.rate_per_second.map(|n| n.0)).collect();
    assert_eq!(rates, [Some(10.0), None, Some(100_000.0)]);
    // What the agent made a rate of has none.
    let delta = json!({"target": "sw1", "metric": "x", "oid": HC, "value": 7, "delta": true, "data_type": "counter"});
    run.tick(vec![snmp(&json!([delta]))]);
    assert_eq!(series(&run).last().unwrap().rate_missing.as_deref(), Some("delta"));
}

#[test]
fn a_clock_that_was_ahead_and_is_set_right_has_rates_again_at_once() {
    let mut run = Run::new(2);
    let rates = |run: &Run| -> Vec<(Option<f64>, Option<String>)> {
        series(run).into_iter().map(|row| (row.rate_per_second.map(|n| n.0), row.rate_missing)).collect()
    };
    // Half an hour ahead, all the time: rates are rates.
    let ahead = 1800;
    for n in 0..3_i64 {
        run.tick_after(60_000, vec![snmp(&json!([octets(60 * (n + 1) + ahead, 6000 * n as u64)]))]);
    }
    assert_eq!(rates(&run)[1..], [(Some(100.0), None), (Some(100.0), None)]);
    // It is set right: one poll is the first, the next has a rate.
    for n in 3..6_i64 {
        run.tick_after(60_000, vec![snmp(&json!([octets(60 * (n + 1), 6000 * n as u64)]))]);
    }
    let after = rates(&run);
    assert_eq!((after[3].0, after[4].clone(), after[5].clone()), (None, (Some(100.0), None), (Some(100.0), None)));
    // What comes late of a clock that is right changes nothing.
    run.tick_after(60_000, vec![snmp(&json!([octets(150, 9000)]))]);
    run.tick_after(60_000, vec![snmp(&json!([octets(480, 42_000)]))]);
    assert_eq!(rates(&run)[7], (Some(100.0), None));
}

#[test]
fn a_line_whose_speed_discovery_found_is_known() {
    let mut run = Run::new(2);
    let interface = json!({"device_ip": "10.0.0.1", "if_index": 3, "if_name": "Gi0/3", "if_descr": "GigabitEthernet0/3",
        "if_alias": "uplink", "if_speed": 1_000_000_000u64, "if_type": 6, "if_admin_status": 1, "if_oper_status": 1,
        "if_phys_address": "00:11:22:33:44:55", "ip_addresses": ["10.0.0.1", "10.9.0.1"], "metadata": {"duplex": "full"},
        "available_metrics": [{"name": "ifInOctets"}], "timestamp": second(1)});
    let mut other = interface.clone();
    (other["if_index"], other["timestamp"], other["if_name"]) = (json!(4), json!(second(2)), json!(null));
    let list = said("results", "mapper_interfaces", "mapper", true, &json!([interface, other]).to_string());
    run.tick_after(300_000, vec![list]);
    run.tick(vec![snmp(&json!([octets(10, 0), octets(20, 125_000_000)]))]);
    assert_eq!(series(&run)[1].utilization_percent.map(|n| n.0), Some(10.0));
    let found = |run: &Run| -> Vec<Interface> {
        let rows = run.tables.state.values();
        rows.filter_map(|row| if let StateRow::Interface(i) = row { Some((**i).clone()) } else { None }).collect()
    };
    let rows = found(&run);
    assert_eq!(rows.len(), 2);
    let row = &rows[0];
    assert_eq!((row.if_index, row.if_name.as_deref(), row.if_alias.as_deref()), (3, Some("Gi0/3"), Some("uplink")));
    assert_eq!((row.if_mac.as_deref(), row.if_speed_bps), (Some("001122334455"), Some(1_000_000_000)));
    assert_eq!((row.ip_addresses.len(), row.metadata.0["duplex"].as_str()), (2, "full"));
    assert_eq!(row.available_metrics.as_deref(), Some(r#"[{"name":"ifInOctets"}]"#));
    assert_eq!((row.device_uid.as_ref(), rows[1].if_name.as_ref()), (None, None));
    // The device comes to be known.
    run.tick(instances());
    run.tick(vec![sync(&[armis("A", "10.0.0.1", 1, "")])]);
    let uid = run.tables.owner("default", "10.0.0.1").unwrap().device_uid;
    assert!(uid.is_some() && found(&run).iter().all(|i| i.device_uid == uid));
    // A restart knows them; a week without a poll, and they are gone.
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, gap_ms: 0, state: run.snapshot.clone(), ..Default::default() };
    let mut again = Run::from(3, start, run.clock_ms);
    assert_eq!(found(&again), found(&run));
    again.tick_after(7 * 86_400_000 + 1000, vec![]);
    assert_eq!(found(&again), []);
}

#[test]
fn services_are_as_their_agents_say_and_unknown_when_they_do_not() {
    let mut run = Run::new(2);
    let status = |available: bool, message: &str| said("status", "sweep", "network_sweep", available, message);
    run.tick(vec![status(false, r#"{"reason":"no_sweep_groups_configured"}"#)]);
    let row = &services(&run)[0];
    assert_eq!((row.state.as_str(), row.available, row.agent_id.as_str()), ("unavailable", Some(false), "a"));
    assert_eq!(row.message.as_deref(), Some(r#"{"reason":"no_sweep_groups_configured"}"#));
    run.tick_after(1000, vec![status(true, "1 host")]);
    run.tick_after(1000, vec![status(true, "2 hosts")]);
    assert_eq!((services(&run)[0].state.as_str(), services(&run)[0].message.as_deref()), ("available", Some("1 host")));
    run.tick_after(60_000, vec![status(true, "3 hosts")]);
    assert_eq!(services(&run)[0].message.as_deref(), Some("3 hosts"), "the row is told anew once a minute");
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, gap_ms: 0, state: run.snapshot.clone(), ..Default::default() };
    let mut again = Run::from(3, start, run.clock_ms);
    assert_eq!(services(&again), services(&run));
    again.tick_after(15 * 60_000, vec![]);
    assert_eq!((services(&again)[0].state.as_str(), services(&again)[0].available), ("unknown", None));
    again.tick_after(7 * 86_400_000, vec![]);
    assert_eq!(services(&again), []);
    let turns = |run: &Run| -> Vec<(String, String)> {
        let events = run.rows::<HealthEvent>().into_iter().filter(|e| e.entity_type == "service");
        events.map(|e| (e.old_state, e.new_state)).collect()
    };
    let turn = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(turns(&run), [turn("unknown", "unavailable"), turn("unavailable", "available")]);
    assert_eq!(turns(&again), [turn("available", "unknown")]);
    // More than one agent may have.
    let many = (0..600).map(|n| said("status", "t", &format!("s{n}"), true, "")).collect();
    run.tick(many);
    assert_eq!(services(&run).len(), 512);
}

#[test]
fn what_a_plugin_finds_is_kept_with_its_widgets_and_numbers() {
    let mut run = Run::new(1);
    let result = json!({"status": "critical", "summary": "disk full", "observed_at": second(0),
        "labels": {"plugin_id": "disks", "assignment_id": "1", "n": 7}, "display": [{"widget": "stat_card", "value": 1}],
        "metrics": [{"name": "used", "value": 97.5, "unit": "%", "warn": 80, "crit": 90}, {"name": "none", "value": null}]});
    run.tick(vec![said("plugin-result", "plugin", "disks", true, &result.to_string())]);
    run.tick(vec![said("plugin-result", "plugin", "odd", true, r#"{"status":"fine"}"#)]);
    let rows = run.rows::<PluginResult>();
    let row = &rows[0];
    assert_eq!(
        (row.status.as_str(), row.summary.as_str(), row.plugin_id.as_deref()),
        ("CRITICAL", "disk full", Some("disks"))
    );
    assert_eq!((row.labels.0["n"].as_str(), rows[1].status.as_str()), ("7", "UNKNOWN"));
    assert_eq!(serde_json::from_str::<Value>(row.widgets.as_ref().unwrap()).unwrap(), result["display"]);
    assert_eq!(serde_json::from_str::<Value>(row.details.as_ref().unwrap()).unwrap(), result);
    let number = &series(&run)[0];
    assert_eq!((number.value.0, number.metric_name.as_str(), number.tags.0["crit"].as_str()), (97.5, "used", "90"));
    let states: Vec<_> = services(&run).into_iter().map(|s| (s.service_name, s.state)).collect();
    let state = |name: &str, state: &str| (name.to_owned(), state.to_owned());
    assert_eq!(states, [state("disks", "unavailable"), state("odd", "available")]);
    assert_eq!(rejects(&run).len(), 1, "{:?}", rejects(&run));
}

fn trace(at: i64, hops: &[&[&str]]) -> Input {
    let hop = |(n, answers): (usize, &&[&str])| {
        let first = answers.first().copied().unwrap_or("");
        json!({"hop_number": n + 1, "addr": first, "ecmp_addrs": answers.get(1..), "asn": {"asn": 64500, "org": "Example"},
            "mpls_labels": [{"label": 16, "exp": 0, "s": true, "ttl": 1}], "sent": 10, "loss_pct": 0,
            "received": if answers.is_empty() { 0 } else { 10 }, "avg_us": 1200, "jitter_us": 3})
    };
    let hops: Vec<Value> = hops.iter().enumerate().map(hop).collect();
    let result = json!({"check_id": "c", "check_name": "core", "target": "198.51.100.9", "device_id": "", "available": true,
        "trace": {"target": "198.51.100.9", "target_ip": "198.51.100.9", "target_reached": true, "total_hops": hops.len(),
            "protocol": "icmp", "ip_version": 4, "packet_size": 64, "hops": hops, "timestamp": 0},
        "timestamp": (T0 + at * 1000) * 1_000_000, "error": ""});
    said("results", "mtr", "mtr_traces", true, &json!({"results": [result]}).to_string())
}

#[test]
fn a_path_that_is_another_is_told_of() {
    let mut run = Run::new(2);
    run.tick_after(600_000, vec![trace(10, &[&["10.0.0.1"], &[], &["10.0.0.3", "10.0.0.4"], &["198.51.100.9"]])]);
    // Nobody answers at the second hop, and others who share the load at the third: it is the same path.
    run.tick(vec![trace(20, &[&["10.0.0.1"], &["x"], &["10.0.0.4"], &["198.51.100.9"]])]);
    assert!(run.rows::<Event>().is_empty());
    run.tick(vec![trace(30, &[&["10.0.0.1"], &["10.0.0.7"], &["198.51.100.9"]])]);
    // Late, and silent.
    run.tick(vec![trace(25, &[&["10.0.0.1"]]), trace(40, &[&[], &[]])]);
    let events = run.rows::<Event>();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].activity_name.as_str(), events[0].entity_id.as_str()), ("path_changed", "a/198.51.100.9"));
    assert_eq!(events[0].attributes.0["path"], "10.0.0.1 10.0.0.7 198.51.100.9");
    assert_eq!(events[0].attributes.0["path_before"], "10.0.0.1 10.0.0.4 198.51.100.9");
    let traces = run.rows::<MtrTrace>();
    assert_eq!((traces.len(), traces[0].path.len(), traces[0].avg_us), (5, 3, Some(1200)));
    let hops = run.rows::<MtrHop>();
    assert_eq!(
        (hops[2].hop_number, hops[2].asn, hops[2].mpls_labels.as_slice()),
        (3, Some(64500), &["16".to_owned()][..])
    );
    assert_eq!((hops[1].hop_ip, hops[0].trace_id == traces[0].trace_id), (None, true));
    // The agent could not look.
    let error =
        json!({"results": [{"check_id": "c", "target": "198.51.100.9", "available": false, "error": "no socket"}]});
    run.tick(vec![said("results", "mtr", "mtr_traces", true, &error.to_string())]);
    let last = run.rows::<MtrTrace>().pop().unwrap();
    assert_eq!((last.target_reached, last.error.as_deref()), (None, Some("no socket")));
    assert!(rejects(&run).is_empty(), "{:?}", rejects(&run));
}

#[test]
fn what_is_no_measurement_is_rejected_once_a_reason_and_counted() {
    let mut run = Run::new(2);
    let status = |sample: &str| said("sysmon-metrics", "sysmon", "sysmon", true, &format!(r#"{{"status":{sample}}}"#));
    let reasons = |run: &mut Run, input: Input| {
        let before = rejects(run).len();
        run.tick(vec![input]);
        rejects(run).split_off(before)
    };
    for whole in ["", "null", "[]", "{}", "{\"status\":7}", "\u{1}", "{\"status\":{\"timestamp\":NaN}}"] {
        assert_eq!(reasons(&mut run, said("sysmon-metrics", "sysmon", "s", true, whole)).len(), 1, "{whole}");
    }
    for whole in ["", "[]", "7", "\u{1}", "{\"results\":7}", "{\"results\":[NaN]}"] {
        assert_eq!(reasons(&mut run, said("snmp-metrics", "snmp", "s", true, whole)).len(), 1, "{whole}");
    }
    for (time, why) in [
        ("\"0000-01-01T00:00:00Z\"", "cannot be read"),
        ("\"9999-12-31T23:59:59Z\"", "more than an hour ahead"),
        ("\"1999-12-31T23:59:59Z\"", "more than 31 days ago"),
        ("9223372036854775807", "ahead"),
        ("{}", "cannot be read"),
    ] {
        let told = reasons(&mut run, status(&format!(r#"{{"timestamp":{time}}}"#)));
        assert!(told.len() == 1 && told[0].contains(why), "{time}: {told:?}");
    }
    let long = "x".repeat(1 << 20);
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for item in [
        r#"{"core_id":0,"usage_percent":-1}"#.to_owned(),
        r#"{"core_id":0,"usage_percent":1e999}"#.to_owned(),
        r#"{"core_id":0,"usage_percent":"7"}"#.to_owned(),
        r#"{"core_id":0,"usage_percent":1e300}"#.to_owned(),
        format!(r#"{{"core_id":0,"usage_percent":1,"label":"{long}"}}"#),
        format!(r#"{{"core_id":0,"usage_percent":{deep}}}"#),
        "[0,1]".to_owned(),
        deep.clone(),
    ] {
        let told = reasons(&mut run, status(&format!(r#"{{"cpus":[{item},{item}]}}"#)));
        let what = &item[..item.len().min(60)];
        assert!(
            told.len() == 1 && told[0].starts_with("not a core") && told[0].ends_with("1 more like it"),
            "{what}: {told:?}"
        );
    }
    let told = reasons(&mut run, status(r#"{"memory":{"used_bytes":-1,"total_bytes":2},"disks":7}"#));
    assert_eq!(told.len(), 2, "{told:?}");
    // A million of them.
    let million = format!(r#"{{"cpus":[{}]}}"#, vec![r#"{"core_id":0,"usage_percent":1}"#; 1_000_000].join(","));
    let before = run.rows::<CpuMetric>().len();
    let told = reasons(&mut run, status(&million));
    assert!(told.len() == 1 && told[0].contains("995904 more than 4096"), "{told:?}");
    assert_eq!(run.rows::<CpuMetric>().len() - before, 4096);
    let bad = vec!["7"; 1_000_000].join(",");
    let told = reasons(&mut run, said("snmp-metrics", "snmp", "s", true, &format!(r#"{{"results":[{bad}]}}"#)));
    assert_eq!(told.len(), 2, "as many as there may be, and the others: {told:?}");
    for (sample, why) in [
        (r#"{"target":"t","metric":"m","value":"up"}"#, "not a sample"),
        (r#"{"target":"t","value":1}"#, "no name"),
        (r#"{"metric":"m","value":1}"#, "no device"),
        (r#"{"target":"t","metric":"m","value":-1,"data_type":"counter"}"#, "below zero"),
        (r#"{"target":"t","metric":"m","value":1,"timestamp":"9999-01-01T00:00:00Z"}"#, "ahead"),
    ] {
        let told = reasons(&mut run, said("snmp-metrics", "snmp", "s", true, &format!(r#"{{"results":[{sample}]}}"#)));
        assert!(told.len() == 1 && told[0].contains(why), "{sample}: {told:?}");
    }
    let hop = r#"{"results":[{"target":"t","trace":{"hops":[{"hop_number":1,"sent":1,"received":2}]}},7]}"#;
    assert_eq!(reasons(&mut run, said("results", "mtr", "m", true, hop)).len(), 2);
    for plugin in ["7", "[]", "{\"observed_at\":\"soon\"}", "{\"status\":7}"] {
        assert_eq!(reasons(&mut run, said("plugin-result", "plugin", "p", true, plugin)).len(), 1, "{plugin}");
    }
    // The books balance.
    run.tick_after(2000, vec![]);
    for row in run.tables.state.values() {
        if let StateRow::Source(source) = row {
            let Source { received, stored, rejected, shed, .. } = &**source;
            assert_eq!(*received, stored + rejected + shed, "{source:?}");
        }
    }
}

#[test]
fn more_counters_than_may_be_have_no_rate_and_drive_out_nobody() {
    let mut run = Run::new(2);
    let counters = |target: &str, at: i64, n: usize| {
        let one = |n: usize| {
            json!({"target": target, "metric": format!("m{n}"), "value": 1, "data_type": "counter",
            "oid": format!(".1.3.6.1.4.1.9.{n}"), "timestamp": second(at)})
        };
        snmp(&(0..n).map(one).collect())
    };
    run.tick_after(600_000, vec![counters("big", 0, 3000)]);
    let full = |run: &Run| series(run).iter().filter(|r| r.rate_missing.as_deref() == Some("full")).count();
    assert_eq!(full(&run), 3000 - 2047, "one place is the target's own");
    run.tick(vec![counters("big", 60, 3000)]);
    let rates = |run: &Run| series(run).iter().filter(|r| r.rate_per_second.is_some()).count();
    assert_eq!(rates(&run), 2047);
    // However many others come, those that are polled keep theirs.
    run.tick((0..3000).map(|n| counters(&format!("other-{n}"), 60, 1)).collect());
    run.tick(vec![counters("big", 120, 3000)]);
    assert_eq!(rates(&run), 2 * 2047);
    // An hour without a word, and its places are free.
    run.tick_after(3_600_000, vec![]);
    run.tick(vec![fact(&Fact::Snapshot)]);
    assert!(run.snapshot.get("rates").is_none_or(Vec::is_empty));
}

/// What a poller may send: of which counter, when, and what it says.
fn polls() -> impl Strategy<Value = Vec<(u8, i64, u64)>> {
    prop::collection::vec((0u8..6, 0i64..30, 0u64..3), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// The same rows on any number of workers, all at once or one by one, and over a restart in between.
    #[test]
    fn rates_do_not_depend_on_workers_nor_on_restarts(polls in polls(), cut in 0usize..40) {
        let input = |(of, at, n): &(u8, i64, u64)| {
            let count = [5, 4_294_967_000, 18_446_744_073_709_551_000][*n as usize] + *at as u64;
            snmp(&json!([{"target": format!("t{}", of % 3), "metric": format!("m{of}"), "value": count,
                "timestamp": second(at * 10), "data_type": "counter"}]))
        };
        let read = |run: &Run| -> Vec<_> {
            let rows = series(run).into_iter();
            rows.map(|r| (r.metric_name, r.time, r.value, r.rate_per_second, r.rate_missing)).collect()
        };
        let mut whole = Run::new(1);
        whole.tick_after(600_000, vec![]);
        polls.iter().for_each(|poll| { whole.tick(vec![input(poll)]); });
        for workers in [2, 3] {
            let mut other = Run::new(workers);
            other.tick_after(600_000, vec![]);
            other.burst(polls.iter().map(|poll| vec![input(poll)]).collect());
            prop_assert_eq!(read(&other), read(&whole));
        }
        let cut = cut.min(polls.len());
        let mut before = Run::new(2);
        before.tick_after(600_000, vec![]);
        polls[..cut].iter().for_each(|poll| { before.tick(vec![input(poll)]); });
        before.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: before.epoch, gap_ms: 0, state: before.snapshot.clone(), ..Default::default() };
        let mut after = Run::from(3, start, before.clock_ms);
        polls[cut..].iter().for_each(|poll| { after.tick(vec![input(poll)]); });
        let rows: Vec<_> = read(&before).into_iter().chain(read(&after)).collect();
        prop_assert_eq!(rows, read(&whole));
    }
}
