use proptest::prelude::*;

use super::fields::{put_bytes, put_eight, put_message, put_number};
use super::*;

/// Everything a signal can say, in JSON as its specification writes it.
const LOGS: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
  "scopeLogs":[{"scope":{"name":"lib","version":"1.0.0","attributes":[{"key":"a","value":{"stringValue":"b"}}]},"logRecords":[
  {"timeUnixNano":"1704067200000000001","observedTimeUnixNano":1704067200000000300,"severityNumber":10,"severityText":"Info",
   "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","flags":1,"eventName":"paid","unknown":[{"x":1}],
   "body":{"stringValue":"paid"},"attributes":[
     {"key":"text","value":{"stringValue":"a\"b"}},{"key":"flag","value":{"boolValue":true}},
     {"key":"n","value":{"intValue":"-10"}},{"key":"x","value":{"doubleValue":637.704}},
     {"key":"list","value":{"arrayValue":{"values":[{"stringValue":"many"},{"intValue":7},{}]}}},
     {"key":"map","value":{"kvlistValue":{"values":[{"key":"k","value":{"doubleValue":"NaN"}}]}}},
     {"key":"bytes","value":{"bytesValue":"AQI="}},{"key":"none"}]},
  {"body":{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":false}}]}},"traceId":"00","spanId":null}]}]}]}"#;
const TRACES: &str = r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"spans":[
  {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173","name":"GET /",
   "startTimeUnixNano":"1704067200000000000","endTimeUnixNano":"1704067201000000000","kind":2,"traceState":"a=b",
   "attributes":[{"key":"http.status_code","value":{"intValue":500}}],"droppedAttributesCount":2,
   "events":[{"timeUnixNano":"1704067200500000000","name":"retry","attributes":[{"key":"n","value":{"intValue":1}}]},{}],
   "links":[{"traceId":"5b8efff798038103d269b633813fc60d","spanId":"eee19b7ec3c1b175"}],"droppedLinksCount":1,
   "status":{"code":2,"message":"boom"}},
  {"traceId":"","spanId":"eee19b7ec3c1b174","name":"lost"}]}]}]}"#;
const METRICS: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"scope":{"name":"lib"},"metrics":[
  {"name":"cpu","unit":"1","gauge":{"dataPoints":[{"asDouble":0.5,"timeUnixNano":"2"},{"asDouble":"NaN","timeUnixNano":"3"}]}},
  {"name":"requests","description":"How many","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[
    {"asInt":"9007199254740993","startTimeUnixNano":"1","timeUnixNano":"2","attributes":[{"key":"k","value":{"stringValue":"v"}}],
     "exemplars":[{"asInt":3,"traceId":"5b8efff798038103d269b633813fc60c","timeUnixNano":"1"}]},{"asInt":1,"flags":1}]}},
  {"name":"latency","histogram":{"aggregation_temporality":1,"dataPoints":[
    {"count":"3","sum":6.5,"bucketCounts":["1","2"],"explicitBounds":[0.5],"min":1,"max":4}]}},
  {"name":"sizes","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[
    {"count":5,"sum":-1,"scale":-1,"zeroCount":1,"positive":{"offset":-3,"bucketCounts":["1","300"]}}]}},
  {"name":"old","summary":{"dataPoints":[{"count":2,"sum":3,"quantileValues":[{"quantile":0.5,"value":1.5}]}]}},
  {"name":"empty"}]}]}]}"#;

/// What a request says, record by record.
fn said(signal: Signal, body: &[u8]) -> Vec<Result<String, Refused>> {
    let request = protobuf(signal, body).unwrap();
    let mut all = Vec::new();
    let each = &mut |said: Said<'_, '_>| {
        all.push(said.record.map(|record| match record {
            Record::Log(log) => format!("{log:?}"),
            Record::Span(span) => format!("{span:?}"),
            Record::Point(metric, point) => format!("{} {point:?}", metric.name),
        }));
    };
    read(signal, &request, each).unwrap();
    all
}

#[test]
fn log_records_say_what_they_said() {
    let request = protobuf(Signal::Logs, LOGS.as_bytes()).unwrap();
    let mut logs = Vec::new();
    let each = &mut |said: Said<'_, '_>| {
        assert_eq!(said.resource.get("service.name").as_deref(), Some("shop"));
        assert_eq!((said.scope.name.as_deref(), said.scope.version.as_deref()), (Some("lib"), Some("1.0.0")));
        let Ok(Record::Log(log)) = said.record else { panic!("a log record") };
        logs.push(log);
    };
    read(Signal::Logs, &request, each).unwrap();
    let [first, second] = &logs[..] else { panic!("two of them") };
    assert_eq!(
        (first.time_ns, first.observed_ns, first.severity),
        (1_704_067_200_000_000_001, 1_704_067_200_000_000_300, 10)
    );
    assert_eq!((first.body.as_str(), first.flags, first.event_name.as_deref()), ("paid", 1, Some("paid")));
    assert_eq!(first.trace_id.as_deref(), Some("5b8efff798038103d269b633813fc60c"));
    let attributes: Vec<_> = first.attributes.0.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [
        ("bytes", "AQI="),
        ("flag", "true"),
        ("list", r#"["many",7,null]"#),
        ("map", r#"{"k":"NaN"}"#),
        ("n", "-10"),
        ("none", ""),
        ("text", "a\"b"),
        ("x", "637.704"),
    ];
    assert_eq!(attributes, expected);
    // An id of another length belongs to no trace.
    assert_eq!((second.body.as_str(), &second.trace_id, &second.span_id), (r#"{"k":false}"#, &None, &None));
}

#[test]
fn spans_say_what_they_said() {
    let request = protobuf(Signal::Traces, TRACES.as_bytes()).unwrap();
    let mut spans = Vec::new();
    read(Signal::Traces, &request, &mut |said| spans.push(said.record.map(|r| format!("{r:?}")))).unwrap();
    assert_eq!(spans[1], Err(Malformed("a span without a trace")));
    let counted = count(Signal::Traces, TRACES.as_bytes()).unwrap();
    assert_eq!((counted.accepted, counted.rejected, counted.why), (1, 1, Some(Malformed("a span without a trace"))));
    let mut first = None;
    read(Signal::Traces, &request, &mut |said| {
        if let Ok(Record::Span(span)) = said.record {
            first = Some(span);
        }
    })
    .unwrap();
    let span = first.unwrap();
    assert_eq!((span.kind, span.status, span.status_message.as_deref()), (2, 2, Some("boom")));
    assert_eq!(span.end_ns - span.start_ns, 1_000_000_000);
    assert_eq!((span.attributes.1, span.dropped_links), (2, 1));
    let events = r#"[{"time_unix_nano":1704067200500000000,"name":"retry","attributes":{"n":"1"}},{}]"#;
    assert_eq!(span.events.as_deref(), Some(events));
    let links = r#"[{"trace_id":"5b8efff798038103d269b633813fc60d","span_id":"eee19b7ec3c1b175"}]"#;
    assert_eq!(span.links.as_deref(), Some(links));
}

#[test]
fn data_points_of_every_kind_say_what_they_said() {
    let request = protobuf(Signal::Metrics, METRICS.as_bytes()).unwrap();
    let mut points = Vec::new();
    let each = &mut |said: Said<'_, '_>| {
        let Ok(Record::Point(metric, point)) = said.record else { panic!("a data point") };
        points.push((metric.clone(), point));
    };
    read(Signal::Metrics, &request, each).unwrap();
    let kinds: Vec<_> = points.iter().map(|(m, _)| (m.name.as_str(), m.kind, m.temporality, m.is_monotonic)).collect();
    let expected = [
        ("cpu", "gauge", None, None),
        ("cpu", "gauge", None, None),
        ("requests", "sum", Some("cumulative"), Some(true)),
        ("requests", "sum", Some("cumulative"), Some(true)),
        ("latency", "histogram", Some("delta"), None),
        ("sizes", "exponential_histogram", Some("cumulative"), None),
        ("old", "summary", None, None),
    ];
    assert_eq!(kinds, expected);
    let values: Vec<_> = points.iter().map(|(_, p)| (p.value, p.value_int)).collect();
    // A whole number is exact; what is not a number, or was not recorded, is no value.
    assert_eq!(
        values[..4],
        [(Some(0.5), None), (None, None), (Some(9_007_199_254_740_992.0), Some(9_007_199_254_740_993)), (None, None)]
    );
    let of = |n: usize| points[n].1.distribution.as_deref();
    assert_eq!(of(4), Some(r#"{"bounds":[0.5],"counts":[1,2]}"#));
    let powers = r#"{"scale":-1,"zero_count":1,"zero_threshold":0.0,"positive":{"offset":-3,"counts":[1,300]},"negative":{"offset":0,"counts":[]}}"#;
    assert_eq!(of(5), Some(powers));
    assert_eq!(of(6), Some(r#"[{"quantile":0.5,"value":1.5}]"#));
    let latency = &points[4].1;
    assert_eq!((latency.count, latency.sum, latency.min, latency.max), (Some(3), Some(6.5), Some(1.0), Some(4.0)));
    let example = r#"[{"time_unix_nano":1,"value":3,"trace_id":"5b8efff798038103d269b633813fc60c"}]"#;
    assert_eq!(points[2].1.exemplars.as_deref(), Some(example));
}

/// Log records in one scope of one resource.
fn logs(records: &[Vec<u8>], resource: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    let write = |out: &mut Vec<u8>| {
        put_bytes(out, 1, resource);
        put_message(out, 2, |out| {
            records.iter().for_each(|record| put_bytes(out, 2, record));
            Ok::<(), ()>(())
        })
    };
    put_message(&mut request, 1, write).unwrap();
    request
}

/// A value that is nested so deep.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| {
        let mut outer = Vec::new();
        put_message(&mut outer, 5, |out| {
            put_bytes(out, 1, &inner);
            Ok::<(), ()>(())
        })
        .unwrap();
        outer
    })
}

fn body(any: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    put_bytes(&mut record, 5, any);
    record
}

#[test]
fn what_is_wrong_with_a_record_is_its_own() {
    let (fine, lies) = (body(&[]), vec![0x2a, 200, 1, 1]);
    let deep = Malformed("values that are nested deeper than 32");
    let all = said(Signal::Logs, &logs(&[fine.clone(), lies, body(&nested(31)), body(&nested(100_000)), fine], &[]));
    let wrong: Vec<_> = all.iter().map(|one| one.as_ref().err().copied()).collect();
    let longer = Malformed("a field is longer than what is left");
    assert_eq!(wrong, [None, Some(longer), None, Some(deep), None]);
    // Of a resource it is that of all of its records.
    let all = said(Signal::Logs, &logs(&[body(&[]), body(&[])], &[0x0a, 9]));
    assert_eq!(all, [Err(longer), Err(longer)]);
    // Where records cannot be told apart, there are none.
    let mut torn = logs(&[body(&[])], &[]);
    torn.push(0x0a);
    let mut given = 0;
    assert!(read(Signal::Logs, &torn, &mut |_| given += 1).is_err() && given == 0);
    assert!(count(Signal::Logs, &torn).unwrap_err().contains("does not end"));
    for (text, why) in [
        ("{", "EOF"),
        ("{}x", "trailing"),
        (r#"{"resourceLogs":{}}"#, "an object in \"resourceLogs\""),
        (r#"{"resourceLogs":[[]]}"#, "a list in"),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"xy"}]}]}]}"#, "no hex digits"),
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"SEVERITY_NUMBER_INFO"}]}]}]}"#,
            "no number",
        ),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":18446744073709551616}]}]}]}"#, "64 bits"),
    ] {
        let error = count(Signal::Logs, text.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let deep = format!("{{\"resourceLogs\":{}", "[".repeat(100_000));
    assert!(count(Signal::Logs, deep.as_bytes()).is_err());
}

#[test]
fn texts_that_are_no_utf_8_are_kept_with_what_is_wrong_replaced() {
    let mut any = Vec::new();
    put_bytes(&mut any, 1, b"caf\xe9");
    let all = said(Signal::Logs, &logs(&[body(&any)], &[]));
    assert!(all[0].as_ref().unwrap().contains("caf\u{fffd}"), "{all:?}");
}

#[test]
fn times_at_the_ends_are_times() {
    let mut record = Vec::new();
    put_eight(&mut record, 1, u64::MAX);
    let all = said(Signal::Logs, &logs(&[record], &[]));
    assert!(all[0].as_ref().unwrap().contains("time_ns: 18446744073709551615"), "{all:?}");
}

#[test]
fn a_million_attributes_are_counted_and_a_thousand_kept() {
    let mut record = Vec::new();
    for n in 0..1_000_000u32 {
        let mut pair = Vec::new();
        put_bytes(&mut pair, 1, format!("{n:07}").as_bytes());
        put_bytes(&mut record, 6, &pair);
    }
    let request = logs(&[record], &[]);
    let mut kept = None;
    read(Signal::Logs, &request, &mut |said| {
        if let Ok(Record::Log(log)) = said.record {
            kept = Some((log.attributes.0.len(), log.attributes.1));
        }
    })
    .unwrap();
    let (known, dropped) = kept.unwrap();
    assert_eq!((known, known as u64 + dropped), (value::MAX_ATTRIBUTES, 1_000_000));
}

#[test]
fn rows_of_one_request_are_bounded() {
    // Every row repeats what the resource says.
    let mut pair = Vec::new();
    put_bytes(&mut pair, 1, &[b'k'; 1 << 20]);
    let mut resource = Vec::new();
    put_bytes(&mut resource, 1, &pair);
    let request = logs(&vec![Vec::new(); 100], &resource);
    let counted = count(Signal::Logs, &request).unwrap();
    assert_eq!((counted.accepted, counted.rejected, counted.why), (63, 37, Some(TOO_MUCH)));
    // So is whatever else is in every row, and what it becomes when it is read: a unit, a text that JSON escapes.
    let text = |byte: u8| vec![byte; 1 << 20];
    let mut nested = Vec::new();
    put_bytes(&mut nested, 1, &text(1));
    let list = |item: &[u8]| {
        let (mut items, mut any, mut pair, mut resource) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut items, 1, item);
        put_bytes(&mut any, 5, &items);
        put_bytes(&mut pair, 1, b"k");
        put_bytes(&mut pair, 2, &any);
        put_bytes(&mut resource, 1, &pair);
        resource
    };
    let escaped = logs(&vec![Vec::new(); 100], &list(&nested));
    assert_eq!(count(Signal::Logs, &escaped).unwrap().accepted, 10);
    let mut points = Vec::new();
    (0..100).for_each(|_| put_bytes(&mut points, 1, &[]));
    let mut metric = Vec::new();
    put_bytes(&mut metric, 1, b"m");
    put_bytes(&mut metric, 3, &text(b'u'));
    put_bytes(&mut metric, 5, &points);
    let (mut of_scope, mut of_resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut of_scope, 2, &metric);
    put_bytes(&mut of_resource, 2, &of_scope);
    put_bytes(&mut request, 1, &of_resource);
    assert_eq!(count(Signal::Metrics, &request).unwrap().accepted, 63);
    // JSON that becomes more than a request may be is none.
    let zeros = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","histogram":{{"dataPoints":[{{"bucketCounts":[{}0]}}]}}}}]}}]}}]}}"#,
        "0,".repeat(MAX_REQUEST / 4)
    );
    assert!(zeros.len() < MAX_REQUEST && json::to_protobuf(Signal::Metrics, zeros.as_bytes()).is_err());
    // What says hardly anything is no row of its own.
    let empty = logs(&vec![Vec::new(); 1 << 18], &[]);
    assert_eq!(
        count(Signal::Logs, &empty).unwrap().accepted as usize,
        (empty.len() * ROWS_FACTOR).min(MAX_ROWS_BYTES) / ROW_BYTES
    );
    assert_eq!(count(Signal::Logs, &logs(&[Vec::new()], &[])).unwrap().accepted, 1);
}

#[test]
fn json_and_protobuf_say_the_same() {
    for (signal, text) in [(Signal::Logs, LOGS), (Signal::Traces, TRACES), (Signal::Metrics, METRICS)] {
        let request = json::to_protobuf(signal, text.as_bytes()).unwrap();
        assert_eq!(said(signal, text.as_bytes()), said(signal, &request));
        // It takes no more than what it is made of.
        assert!(request.len() < text.len());
        // Torn anywhere it is no other request.
        for n in 0..text.len() {
            assert!(json::to_protobuf(signal, &text.as_bytes()[..n]).is_err(), "{n}");
        }
    }
}

#[test]
fn numbers_are_read_packed_or_one_by_one() {
    let point = |packed: bool| {
        let mut point = Vec::new();
        put_eight(&mut point, 4, 3);
        if packed {
            put_bytes(&mut point, 6, &[1u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
        } else {
            put_eight(&mut point, 6, 1);
            put_eight(&mut point, 6, 2);
        }
        points::point("histogram", &point).unwrap().distribution
    };
    assert_eq!(point(true), point(false));
    let mut odd = Vec::new();
    put_bytes(&mut odd, 6, &[0; 9]);
    assert!(points::point("histogram", &odd).is_err());
    let mut scale = Vec::new();
    put_number(&mut scale, 6, 3);
    assert!(points::point("exponential_histogram", &scale).unwrap().distribution.unwrap().contains("\"scale\":-2,"));
}

proptest! {
    #[test]
    fn noise_is_read_or_refused(noise in prop::collection::vec(any::<u8>(), 0..300), of in 0usize..3) {
        let signal = Signal::ALL[of];
        let mut given = 0;
        let read = protobuf(signal, &noise).map(|request| read(signal, &request, &mut |_| given += 1).is_ok());
        prop_assert!(given == 0 || read == Ok(true));
    }

    #[test]
    fn one_byte_changed_is_read_or_refused(at in 0usize..2000, byte: u8, of in 0usize..3) {
        let (signal, text) = [(Signal::Logs, LOGS), (Signal::Traces, TRACES), (Signal::Metrics, METRICS)][of];
        let mut request = json::to_protobuf(signal, text.as_bytes()).unwrap();
        let at = at % request.len();
        request[at] = byte;
        let first = count(signal, &request);
        prop_assert_eq!(first, count(signal, &request));
    }
}
