//! OpenTelemetry's own SDK sends to the program, by gRPC and by HTTP; strangers send what no SDK would.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::{Home, Server};
use crate::tools::python;

/// Spans, log records and points of counters, each with compression and without, by one protocol; what every exporter said of it.
const SDK: &str = r#"
import importlib, logging, sys
from opentelemetry.exporter.otlp.proto.common._internal import trace_encoder
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

protocol, address = sys.argv[1], sys.argv[2]
base = "opentelemetry.exporter.otlp.proto." + protocol
if protocol == "grpc":
    from grpc import Compression
    ways = [Compression.NoCompression, Compression.Gzip]
    at = lambda path: dict(endpoint="http://" + address, insecure=True)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    ways = [Compression.NoCompression, Compression.Gzip]
    at = lambda path: dict(endpoint="http://" + address + path)
spans = importlib.import_module(base + ".trace_exporter").OTLPSpanExporter
metrics = importlib.import_module(base + ".metric_exporter").OTLPMetricExporter
logs = importlib.import_module(base + "._log_exporter").OTLPLogExporter
for n, way in enumerate(ways):
    resource = Resource.create({"service.name": f"{protocol}-{n}", "service.version": "1.2", "host.name": "web-1"})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(BatchSpanProcessor(spans(compression=way, **at("/v1/traces"))))
    logging_to = LoggerProvider(resource=resource)
    logging_to.add_log_record_processor(BatchLogRecordProcessor(logs(compression=way, **at("/v1/logs"))))
    logger = logging.getLogger(f"{protocol}-{n}")
    logger.setLevel(logging.INFO)
    logger.addHandler(LoggingHandler(logger_provider=logging_to))
    reader = PeriodicExportingMetricReader(metrics(compression=way, **at("/v1/metrics")), export_interval_millis=3600000)
    metering = MeterProvider(resource=resource, metric_readers=[reader])
    meter = metering.get_meter("shop", "0.1")
    counter, sizes = meter.create_counter("orders", "1", "How many"), meter.create_histogram("sizes", "By")
    tracer = tracing.get_tracer("shop", "0.1")
    for order in range(100):
        with tracer.start_as_current_span("order", kind=SpanKind.SERVER, attributes={"n": order, "tags": ["a", "b"]}) as span:
            with tracer.start_as_current_span("pay", kind=SpanKind.CLIENT) as child:
                child.add_event("asked", {"amount": 1.5})
                if order % 10 == 0:
                    child.set_status(Status(StatusCode.ERROR, "declined"))
            logger.warning("order %d", order)
        counter.add(2, {"shop": "north"})
        sizes.record(order)
    assert metering.force_flush() and tracing.force_flush() and logging_to.force_flush()
    counter.add(50, {"shop": "north"})
    assert metering.force_flush()
    for provider in (metering, tracing, logging_to):
        provider.shutdown()
print("sent")
"#;

#[tokio::test]
async fn the_sdk_of_opentelemetry_sends_by_grpc_and_http_and_everything_is_there() {
    let mut home = Home::new("");
    let server = home.start();
    for protocol in ["grpc", "http"] {
        assert_eq!(python(SDK, &[protocol, &server.port("otlp").to_string()]).trim(), "sent");
    }
    // Two protocols, two ways each: a hundred orders of two spans and a line, and two rounds of metrics, and one at the end.
    server.count("otel_traces", 2 * 2 * 200).await;
    server.count("trace_summaries", 2 * 2 * 100).await;
    server.count("logs", 2 * 2 * 100).await;
    let of = |query: &str| {
        let (server, query) = (&server, query.to_owned());
        async move { server.rows(&query).await }
    };
    let errors =
        of("in:traces span_kind:client status_code:2 stats:\"count() as n by service_name\" sort:service_name:asc")
            .await;
    let named = |n: i64| ["grpc-0", "grpc-1", "http-0", "http-1"].map(|s| json!({"service_name": s, "n": n})).to_vec();
    assert_eq!(errors, named(10));
    let spans = of("in:otel_traces name:pay kind:client status_code:2 service_name:grpc-1 limit:1").await;
    let span = &spans[0];
    assert_eq!(
        (&span["status_message"], &span["scope_name"], &span["service_version"]),
        (&json!("declined"), &json!("shop"), &json!("1.2"))
    );
    assert!(span["events"].as_str().unwrap().contains(r#""attributes":{"amount":"1.5"}"#), "{span}");
    let trace = span["trace_id"].as_str().unwrap();
    // A line, its span and their trace, by the trace's id.
    let log = &of(&format!("in:logs trace_id:{trace}")).await[0];
    assert_eq!(
        (&log["severity"], &log["otel_severity_number"], &log["hostname"]),
        (&json!("warning"), &json!(13), &json!("web-1"))
    );
    assert!(log["body"].as_str().unwrap().starts_with("order "), "{log}");
    let summary = &of(&format!("in:otel_trace_summaries trace_id:{trace}")).await[0];
    assert_eq!(
        (&summary["root_span_name"], &summary["span_count"], &summary["error_count"]),
        (&json!("order"), &json!(2), &json!(1))
    );
    assert_eq!(summary["service_set"], json!(["grpc-1"]));
    let order = &of(&format!("in:otel_traces trace_id:{trace} name:order")).await[0];
    assert_eq!((&order["attributes"]["tags"], &order["parent_span_id"]), (&json!(r#"["a","b"]"#), &Value::Null));
    // What a counter says and what it added since; the last export has nothing new.
    let query = "in:otel_metrics metric_name:orders stats:\"max(value) as value, sum(delta) as added by service_name\" sort:service_name:asc";
    let sums: Vec<_> = ["grpc-0", "grpc-1", "http-0", "http-1"]
        .map(|s| json!({"service_name": s, "value": 250.0, "added": 50.0}))
        .into();
    server.until(query, |rows| rows == sums).await;
    let sizes = &of("in:otel_metrics metric_type:histogram metric_name:sizes sort:time limit:1").await[0];
    assert_eq!(
        (&sizes["count"], &sizes["sum"], &sizes["max"], &sizes["unit"]),
        (&json!(100), &json!(4950.0), &json!(99.0), &json!("By"))
    );
    let rollup = of("in:traces rollup_stats:summary").await;
    let payload = &rollup[0]["payload"];
    assert_eq!(
        (&payload["total"], &payload["errors"], &payload["traces"], &payload["services"]),
        (&json!(800), &json!(40), &json!(400), &json!(4))
    );
    let ledger = of(
        "in:sources source:otlp* stats:\"sum(received) as r, sum(stored) as s, sum(rejected) as x, sum(shed) as d\"",
    )
    .await;
    assert_eq!((&ledger[0]["r"], &ledger[0]["x"], &ledger[0]["d"]), (&ledger[0]["s"], &json!(0), &json!(0)));
    server.stop();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut zip = Command::new("gzip").args(["-c", "-1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, bytes) = (zip.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || to.write_all(&bytes));
    let zipped = zip.wait_with_output().unwrap().stdout;
    writer.join().unwrap().unwrap();
    zipped
}

/// Posts a body; the status, whether it is said when to come again, and what is said.
async fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<u8>) {
    let url = format!("http://{}{path}", server.port("otlp"));
    let mut request = reqwest::Client::new().post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

#[tokio::test]
async fn what_no_sdk_would_send_is_answered_as_the_specification_has_it() {
    let mut home = Home::new("");
    let server = home.start();
    let span = |trace: &str| json!({"traceId": trace, "spanId": "0000000000000001", "name": "a"});
    let request =
        |spans: &[Value]| json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string().into_bytes();
    let good = "5b8efff798038103d269b633813fc60c";
    let (status, said) = post(&server, "/v1/traces", &[JSON], request(&[span(good), span(""), span("00")])).await;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((status, &said["partialSuccess"]["rejectedSpans"]), (200, &json!("2")));
    assert!(said["partialSuccess"]["errorMessage"].as_str().unwrap().starts_with("2 of 3 cannot be used"), "{said}");
    assert_eq!(post(&server, "/v1/traces", &[JSON], request(&[])).await, (200, b"{}".to_vec()));
    assert_eq!(post(&server, "/v1/logs", &[PROTOBUF], vec![]).await, (200, vec![]));
    let zipped = [PROTOBUF, ("content-encoding", "gzip")];
    for (path, headers, body, status) in [
        ("/v1/logs", &[JSON][..], b"{\"resourceLogs\":[".to_vec(), 400),
        ("/v1/logs", &[PROTOBUF], vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], 400),
        ("/v1/logs", &zipped, b"no gzip".to_vec(), 400),
        ("/v1/logs", &[("content-type", "text/plain")], vec![], 415),
        ("/v1/logs", &[PROTOBUF, ("content-encoding", "zstd")], vec![], 415),
        ("/v1/profiles", &[PROTOBUF], vec![], 404),
        // A bomb: sixteen megabytes and one, of which little is sent.
        ("/v1/logs", &zipped, gzip(&vec![0; (16 << 20) + 1]), 413),
        ("/v1/logs", &[PROTOBUF], vec![0; (16 << 20) + 6], 413),
    ] {
        assert_eq!(post(&server, path, headers, body).await.0, status, "{path} {headers:?}");
    }
    // What could not be read is said where it is looked for; what was never taken is not.
    server.count("rejects", 4).await;
    server.until("in:sources source:otlp* received:5 stored:1 rejected:4", |rows| rows.len() == 1).await;
    calls(server.port("otlp"), good);
    server.count("otel_traces", 2).await;
    // Who says nothing, or little, holds up nobody.
    let idle: Vec<_> = [&b""[..], b"P", b"PRI * HTTP/2", b"POST /v1/logs HTTP/1.1\r\n"]
        .map(|begin| {
            let mut stream = TcpStream::connect(server.port("otlp")).unwrap();
            stream.write_all(begin).unwrap();
            stream
        })
        .into();
    assert_eq!(post(&server, "/v1/traces", &[JSON], request(&[span(good)])).await.0, 200);
    drop(idle);
    server.stop();
}

/// The same by gRPC, from another language: the codes, and what their details say.
fn calls(to: SocketAddr, trace: &str) {
    let script = r#"
import sys, grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_send_message_length", 64 << 20)])
request = ExportTraceServiceRequest()
spans = request.resource_spans.add().scope_spans.add().spans
spans.add(trace_id=bytes.fromhex(sys.argv[2]), span_id=b"\0" * 7 + b"\2", name="by gRPC")
spans.add(trace_id=b"short", span_id=b"\0" * 8)
answer = TraceServiceStub(channel).Export(request, compression=grpc.Compression.Gzip)
assert answer.partial_success.rejected_spans == 1, answer
assert "length" in answer.partial_success.error_message, answer
raw = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export", lambda m: m, lambda m: m)
def code(call, message, **more):
    try:
        call(message, **more)
    except grpc.RpcError as error:
        return error.code()
assert code(raw, b"\x0a\xff") == grpc.StatusCode.INVALID_ARGUMENT
assert code(raw, b"\0" * ((16 << 20) + 1)) == grpc.StatusCode.RESOURCE_EXHAUSTED
assert code(raw, b"\0" * ((16 << 20) + 1), compression=grpc.Compression.Gzip) == grpc.StatusCode.RESOURCE_EXHAUSTED
other = channel.unary_unary("/opentelemetry.proto.collector.profiles.v1.Profiles/Export", lambda m: m, lambda m: m)
assert code(other, b"") == grpc.StatusCode.UNIMPLEMENTED
print("well")
"#;
    assert_eq!(python(script, &[&to.to_string(), trace]).trim(), "well");
}
