//! Requests of OTLP through the whole dataflow: rows, summaries of traces, rates, ledgers.

use radarflow_dataflows::otel::{KEPT_MS, QUIET_MS};
use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Kind;
use radarflow_proto::rows::{Log, OtelMetric, OtelTrace, Reject, Source, StateRow, TraceSummary};
use serde_json::{Value, json};

use crate::harness::*;

const T0_NS: i64 = T0 * 1_000_000;

fn input(kind: Kind, peer: &'static str, body: &Value) -> Input {
    Input { kind, tenant: "t", partition: "default".into(), peer: Some(peer), body: body.to_string().into() }
}

fn resource(service: &str) -> Value {
    json!({"attributes": [{"key": "service.name", "value": {"stringValue": service}}]})
}

fn spans(peer: &'static str, service: &str, spans: &[Value]) -> Input {
    let body = json!({"resourceSpans": [{"resource": resource(service), "scopeSpans": [{"spans": spans}]}]});
    input(Kind::OtlpTraces, peer, &body)
}

/// A span from one millisecond after T0 to another, a root without a parent.
fn span(trace: u32, id: u32, parent: u32, (from, to): (i64, i64), status: u8) -> Value {
    let hex = |id: u32, digits: usize| if id == 0 { String::new() } else { format!("{id:0digits$x}") };
    json!({
        "traceId": hex(trace, 32), "spanId": hex(id, 16), "parentSpanId": hex(parent, 16), "name": format!("span {id}"),
        "kind": 2, "startTimeUnixNano": (T0_NS + from * 1_000_000).to_string(),
        "endTimeUnixNano": (T0_NS + to * 1_000_000).to_string(), "status": {"code": status},
    })
}

fn summaries(run: &Run) -> Vec<TraceSummary> {
    let of = |row: &StateRow| match row {
        StateRow::TraceSummary(row) => Some((**row).clone()),
        _ => None,
    };
    run.tables.state.values().filter_map(of).collect()
}

/// Spans, errors, milliseconds, whether it is closed.
fn told(summary: &TraceSummary) -> (i64, i64, f64, bool) {
    (summary.span_count, summary.error_count, summary.duration_ms.0, summary.is_closed)
}

#[test]
fn a_trace_is_what_its_spans_are_in_whichever_order_and_however_often_they_come() {
    let all = [
        ("shop", span(1, 1, 0, (10, 100), 0)),
        ("bank", span(1, 2, 1, (20, 80), 2)),
        ("bank", span(1, 3, 2, (5, 30), 0)),
        ("mail", span(1, 4, 1, (90, 150), 0)),
    ];
    let once = |order: &[usize], workers| {
        let mut run = Run::new(workers);
        for n in order {
            let (service, span) = &all[*n];
            run.tick(vec![spans("10.0.0.1:1", service, std::slice::from_ref(span))]);
        }
        summaries(&run)
    };
    let whole = once(&[0, 1, 2, 3], 1);
    let [trace] = &whole[..] else { panic!("{whole:?}") };
    assert_eq!(told(trace), (4, 1, 145.0, false));
    assert_eq!((trace.start_time_unix_nano - T0_NS, trace.end_time_unix_nano - T0_NS), (5_000_000, 150_000_000));
    let root = (trace.root_span_name.as_deref(), trace.root_service_name.as_deref(), trace.root_span_kind);
    assert_eq!(root, (Some("span 1"), Some("shop"), Some(2)));
    assert_eq!(trace.service_set, ["bank", "mail", "shop"]);
    for order in [[3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        assert_eq!(once(&order, 2), whole, "{order:?}");
    }
    assert_eq!(once(&[0, 0, 3, 1, 1, 2, 3, 0], 3), whole);
    // The root comes last of all: until then there is none.
    let without = once(&[1, 2, 3], 2);
    assert_eq!((without[0].root_span_id.as_deref(), told(&without[0])), (None, (3, 1, 145.0, false)));
}

#[test]
fn a_trace_is_closed_when_it_is_quiet_corrected_by_what_comes_late_and_forgotten_in_the_end() {
    let mut run = Run::new(2);
    run.tick(vec![spans("10.0.0.1:1", "shop", &[span(1, 1, 0, (0, 10), 0)])]);
    run.tick_after(QUIET_MS - 200, vec![]);
    assert!(!summaries(&run)[0].is_closed);
    run.tick_after(200, vec![]);
    assert_eq!(told(&summaries(&run)[0]), (1, 0, 10.0, true));
    run.tick_after(60_000, vec![spans("10.0.0.1:1", "bank", &[span(1, 2, 1, (5, 40), 2)])]);
    assert_eq!(told(&summaries(&run)[0]), (2, 1, 40.0, false));
    run.tick_after(QUIET_MS, vec![]);
    assert_eq!(told(&summaries(&run)[0]), (2, 1, 40.0, true));
    // What the process did not run through is no quiet.
    run.gap_ms = 2 * KEPT_MS;
    run.tick(vec![]);
    assert_eq!(summaries(&run).len(), 1);
    run.tick_after(KEPT_MS, vec![]);
    assert_eq!(summaries(&run), []);
    // A span of then begins no other; it is a row all the same.
    run.tick(vec![spans("10.0.0.1:1", "bank", &[span(1, 3, 1, (5, 40), 2)])]);
    assert_eq!((summaries(&run).len(), run.rows::<OtelTrace>().len()), (0, 3));
}

#[test]
fn times_that_cannot_be_are_kept_and_count_for_nothing() {
    let mut run = Run::new(1);
    let at = |start: &str, end: &str, id: u32| {
        let mut span = span(1, id, 0, (0, 0), 0);
        (span["startTimeUnixNano"], span["endTimeUnixNano"]) = (json!(start), json!(end));
        span
    };
    let (now, most) = (T0_NS.to_string(), u64::MAX.to_string());
    let odd = [at("0", "0", 1), at("0", &most, 2), at(&now, &most, 3), at(&now, "5", 4), at(&now, &now, 5)];
    run.tick(vec![spans("10.0.0.1:1", "shop", &odd)]);
    let [trace] = &summaries(&run)[..] else { panic!("one") };
    assert_eq!((trace.start_time_unix_nano, told(trace)), (T0_NS, (5, 0, 0.0, false)));
    assert_eq!(trace.root_span_id.as_deref(), Some("0000000000000005"));
    let rows = run.rows::<OtelTrace>();
    let durations: Vec<_> = rows.iter().map(|row| (row.time.ms(), row.duration_ms.map(|ms| ms.0))).collect();
    let received = T0 + 100;
    let far = (u64::MAX - T0_NS as u64) as f64 / 1e6;
    assert_eq!(durations, [(received, None), (received, None), (T0, Some(far)), (T0, None), (T0, Some(0.0))]);
    assert_eq!((rows[1].start_time_unix_nano, rows[1].end_time_unix_nano), (0, i64::MAX));
}

#[test]
fn who_floods_takes_nobody_elses_place() {
    let mut run = Run::new(2);
    let quiet: Vec<_> = (1..=64).map(|trace| span(trace, 1, 0, (0, 10), 0)).collect();
    run.tick(vec![spans("10.0.0.1:1", "shop", &quiet)]);
    for round in 1..=12u32 {
        let flood: Vec<_> = (0..4000).map(|n| span(round * 100_000 + n, 1, 0, (0, 10), 0)).collect();
        run.tick(vec![spans("10.6.6.6:1", "flood", &flood)]);
    }
    let kept = summaries(&run);
    let of = |service: &str| kept.iter().filter(|row| row.root_service_name.as_deref() == Some(service)).count();
    assert_eq!(of("shop"), 64);
    // Many more came; what is kept is bounded, and is not little.
    assert!((10_000..45_000).contains(&of("flood")), "{}", of("flood"));
    assert_eq!(run.rows::<OtelTrace>().len(), 64 + 48_000);
}

fn sum(service: &str, monotonic: bool, temporality: u8, points: &[(i64, i64, f64)]) -> Input {
    let points: Vec<_> = points
        .iter()
        .map(|(start, time, value)| {
            let at =
                |second: i64| if second == 0 { "0".to_owned() } else { (T0_NS + second * 1_000_000_000).to_string() };
            json!({"startTimeUnixNano": at(*start), "timeUnixNano": at(*time), "asDouble": value})
        })
        .collect();
    let sum = json!({"aggregationTemporality": temporality, "isMonotonic": monotonic, "dataPoints": points});
    let metrics = json!([{"name": "requests", "unit": "1", "sum": sum}]);
    let of = json!({"resource": resource(service), "scopeMetrics": [{"metrics": metrics}]});
    input(Kind::OtlpMetrics, "10.0.0.1:1", &json!({"resourceMetrics": [of]}))
}

#[test]
fn what_a_counter_adds_is_known_across_requests_restarts_of_it_and_disorder() {
    let mut run = Run::new(3);
    let mut told = |inputs: Vec<Input>| {
        let before = run.rows::<OtelMetric>().len();
        run.tick(inputs);
        let rows = run.rows::<OtelMetric>().split_off(before);
        rows.iter().map(|row| (row.delta.map(|d| d.0), row.rate.map(|r| r.0))).collect::<Vec<_>>()
    };
    let counts = |points: &[(i64, i64, f64)]| sum("shop", true, 2, points);
    assert_eq!(told(vec![counts(&[(1, 10, 100.0)])]), [(None, None)]);
    assert_eq!(told(vec![counts(&[(1, 20, 150.0)])]), [(Some(50.0), Some(5.0))]);
    // One that comes late, and one that comes again.
    assert_eq!(told(vec![counts(&[(1, 15, 120.0), (1, 20, 150.0)])]), [(None, None), (None, None)]);
    // It began anew, and says when; it did, and says nothing.
    assert_eq!(told(vec![counts(&[(25, 30, 10.0)])]), [(Some(10.0), Some(2.0))]);
    assert_eq!(told(vec![counts(&[(25, 40, 4.0)])]), [(Some(4.0), Some(0.4))]);
    assert_eq!(told(vec![counts(&[(0, 50, 14.0)])]), [(Some(10.0), Some(1.0))]);
    // When it began is not known: what it counts from is.
    assert_eq!(told(vec![counts(&[(60, 60, 7.0)])]), [(None, None)]);
    assert_eq!(told(vec![counts(&[(60, 70, 9.0)])]), [(Some(2.0), Some(0.2))]);
    // Another series, one that falls too, and one that tells what was added.
    assert_eq!(told(vec![sum("bank", true, 2, &[(1, 80, 1.0)])]), [(None, None)]);
    assert_eq!(told(vec![sum("shop", false, 2, &[(1, 80, 1.0)])]), [(None, None)]);
    assert_eq!(told(vec![sum("shop", true, 1, &[(80, 90, 5.0)])]), [(Some(5.0), Some(0.5))]);
}

#[test]
fn log_records_are_rows_of_logs_and_the_ledger_balances_to_the_record() {
    let mut run = Run::new(2);
    let record = |severity: u8, text: &str| json!({"severityNumber": severity, "severityText": text, "body": {"stringValue": "x"}});
    let records: Vec<_> =
        [(0, "warning"), (0, "?"), (1, "TRACE"), (9, "INFO"), (11, "NOTE"), (13, "W"), (17, "E"), (24, "F")]
            .map(|(n, t)| record(n, t))
            .into();
    let body = json!({"resourceLogs": [{"resource": resource("shop"), "scopeLogs": [{"logRecords": records}]}]});
    run.tick(vec![input(Kind::OtlpLogs, "10.0.0.1:1", &body)]);
    let logs = run.rows::<Log>();
    let severities: Vec<_> = logs.iter().map(|log| log.severity.as_deref().unwrap_or("-")).collect();
    assert_eq!(severities, ["warning", "-", "debug", "info", "notice", "warning", "error", "emergency"]);
    assert_eq!((logs[2].severity_as_sent.as_deref(), logs[2].otel_severity_number), (Some("TRACE"), Some(1)));
    assert_eq!((logs[0].parse_status.as_str(), logs[0].service_name.as_deref()), ("otlp", Some("shop")));
    // Some records cannot be used, many more than have rows, and one request cannot.
    let mut many = vec![span(7, 1, 0, (0, 1), 0)];
    many.extend((0..150).map(|_| json!({"spanId": "0000000000000001"})));
    let nothing = Input { body: "{\"resourceSpans\":7}".into(), ..spans("10.0.0.2:1", "shop", &[]) };
    let torn = Input { body: vec![0x0a, 200].into(), ..nothing.clone() };
    run.tick(vec![spans("10.0.0.2:1", "shop", &many), nothing, torn]);
    run.tick_after(2000, vec![]);
    let ledger = |ip: &str| {
        let of = |row: &StateRow| match row {
            StateRow::Source(source) if source.exporter == ip => Some((**source).clone()),
            _ => None,
        };
        let Source { received, stored, rejected, shed, rows, .. } = run.tables.state.values().find_map(of).unwrap();
        [received, stored, rejected, shed, rows]
    };
    assert_eq!((ledger("10.0.0.1"), ledger("10.0.0.2")), ([8, 8, 0, 0, 8], [153, 1, 152, 0, 1]));
    let rejects = run.rows::<Reject>();
    let reasons: Vec<&str> = rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(rejects.len(), 103);
    let count = |part: &str| reasons.iter().filter(|why| why.contains(part)).count();
    assert_eq!(reasons.iter().filter(|why| **why == "a span without a trace").count(), 100);
    let others = ["50 more records of the request cannot be used", "a number in \"resourceSpans\"", "does not end"];
    assert_eq!(others.map(count), [1; 3], "{reasons:?}");
}

/// Some of everything, in epochs.
fn script() -> Vec<Vec<Input>> {
    let mut script = Vec::new();
    for n in 0..6u32 {
        let trace = |id: u32| span(id, n + 1, n, (i64::from(n), i64::from(n) + 50), (n % 3) as u8);
        let (a, b) = (["10.0.0.1:1", "10.0.0.2:1"], i64::from(n) * 10 + 10);
        script.push(vec![
            spans(a[n as usize % 2], "shop", &(1..40).map(trace).collect::<Vec<_>>()),
            sum("shop", true, 2, &[(1, b, f64::from(n * n))]),
            spans("10.0.0.3:1", "bank", &[json!({"traceId": "00"}), trace(n)]),
            sum("bank", true, 2, &[(1, b, 10.0 - f64::from(n)), (1, b + 5, 11.0)]),
        ]);
    }
    script.push(vec![]);
    script
}

#[test]
fn a_replay_on_other_workers_says_the_same() {
    let outputs = |workers| {
        let mut run = Run::new(workers);
        run.burst(script());
        let mut said: Vec<String> = Vec::new();
        for output in &run.outputs_seen {
            said.push(format!("{} {:?}", output.epoch, output.changes));
            let mut rows: Vec<String> = Vec::new();
            for (table, batch) in &output.events {
                rows.extend((0..batch.num_rows()).map(|i| format!("{table:?} {:?}", batch.slice(i, 1).columns())));
            }
            rows.sort();
            said.extend(rows);
        }
        said
    };
    let once = outputs(1);
    assert_eq!(once, outputs(2));
    assert_eq!(once, outputs(3));
}

#[test]
fn a_restart_equals_no_restart() {
    let script = script();
    let run_through = |run: &mut Run, inputs: &[Vec<Input>]| {
        inputs.iter().for_each(|inputs| {
            run.tick(inputs.clone());
        });
        run.tick_after(QUIET_MS, vec![]);
    };
    let mut whole = Run::new(2);
    run_through(&mut whole, &script);
    for cut in [1, 3, 5] {
        let mut before = Run::new(2);
        for (n, inputs) in script[..cut].iter().enumerate() {
            let asked = (n + 1 == cut).then(|| fact(&Fact::Snapshot));
            before.tick(inputs.iter().cloned().chain(asked).collect());
        }
        let start = Start { epoch: before.epoch, gap_ms: 0, state: before.snapshot.clone(), ..Default::default() };
        let mut after = Run::from(3, start, before.clock_ms);
        run_through(&mut after, &script[cut..]);
        assert_eq!(summaries(&after), summaries(&whole), "cut at {cut}");
        let deltas = |runs: &[&Run]| {
            let rows = runs.iter().flat_map(|run| run.rows::<OtelMetric>());
            let mut all: Vec<_> =
                rows.map(|row| (row.service_name, row.time_unix_nano, row.value, row.delta)).collect();
            all.sort();
            all
        };
        assert_eq!(deltas(&[&before, &after]), deltas(&[&whole]), "cut at {cut}");
    }
}
