//! OTLP: logs, traces and metrics of OpenTelemetry's SDKs and collectors, by gRPC and by HTTP (its protocol 1.x). Each address
//! takes both, HTTP/1.1 and HTTP/2, so that 4317 and 4318 are names for the same thing.
//!
//! ```text
//! connection ─► HTTP/1.1 or 2 ─► /v1/<signal>, /opentelemetry.….<Signal>Service/Export ─► take ─► ledger ─► answer
//! ```
//! A request has its memory before it is read and while it is inflated, of what all feeds share; one that inflates beyond
//! [`MAX_REQUEST`] is stopped there. What is wrong with its records is told at once (partial success), because what the dataflow
//! makes of it is a function of its bytes; they go to the ledger as they came, inflated. It is answered when the frame is durable. Where
//! there is no room the sender is told to come again: nothing was taken, and nothing is lost.

mod answers;
mod take;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use radarflow_proto::otlp::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::accept::{Connection, ConnectionSlots, connections};
use super::tcp::Into;
use super::tls::Tls;
use super::{Listener, SourceError, Stop};
pub use radarflow_proto::otlp::MAX_REQUEST;
use take::Receiver;

/// How long a connection may be idle, and a sender may take for the head of a request: longer than SDKs pause between metrics.
const IDLE: Duration = Duration::from_secs(90);
/// Largest head of a request, and as much of an answer waits to be written, bytes.
const MAX_HEAD: usize = 16 << 10;
/// Requests of one HTTP/2 connection at a time.
const STREAMS: usize = 32;
/// Bytes of requests that an HTTP/2 connection may send before they are read.
const WINDOW: usize = 256 << 10;
/// What a connection takes, bytes: what is read and what waits to be written, and the state of its encryption.
pub const CONNECTION_BYTES: usize = 2 * MAX_HEAD + (64 << 10);
/// What one with HTTP/2 takes beyond it.
const HTTP2_BYTES: usize = STREAMS * 2 * MAX_HEAD + WINDOW;
/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocols that a connection with TLS agrees upon.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The paths of a signal: by HTTP, by gRPC.
fn paths(signal: Signal) -> (&'static str, &'static str) {
    match signal {
        Signal::Logs => ("/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
        Signal::Traces => ("/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        Signal::Metrics => ("/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
    }
}

/// Listens for OTLP; the returned address is the one it got.
///
/// # Errors
/// [`SourceError`] where the address cannot be bound.
pub async fn start(
    listener: &Listener,
    tls: Option<Arc<Tls>>,
    slots: Arc<ConnectionSlots>,
    into: Into,
    stop: Stop,
) -> Result<SocketAddr, SourceError> {
    let bind = |source| SourceError::Bind { what: "OTLP", addr: listener.addr, source };
    let socket = TcpListener::bind(listener.addr).await.map_err(bind)?;
    let addr = socket.local_addr().map_err(bind)?;
    let router = router(&Receiver::new(&Listener { addr, ..listener.clone() }, into));
    let mut made = connections(socket, tls, slots);
    let mut stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = made.next() => next,
                () = stopped.told() => return,
            };
            let Some(connection) = next else { return };
            if let Ok(connection) = connection {
                tokio::spawn(serve(connection, router.clone(), stop.clone()));
            }
        }
    });
    Ok(addr)
}

fn router(receiver: &Receiver) -> Router {
    let mut router = Router::new();
    for signal in Signal::ALL {
        let (http, grpc) = paths(signal);
        let (by_http, by_grpc) = (receiver.clone(), receiver.clone());
        router = router
            .route(http, post(move |request: Request| async move { by_http.http(signal, request).await }))
            .route(grpc, post(move |request: Request| async move { by_grpc.grpc(signal, request).await }));
    }
    router.fallback(|request: Request| async move { unknown(&request) })
}

fn unknown(request: &Request) -> Response {
    if take::is_grpc(request.headers()) {
        return answers::unknown_call(request.uri().path());
    }
    let known = Signal::ALL.map(|signal| paths(signal).0).join(", ");
    answers::unknown_path(&format!("OTLP is taken at {known}"))
}

/// Serves one connection until it ends, is idle for too long, or the program stops.
async fn serve(mut connection: Connection, router: Router, mut stop: Stop) {
    let (peer, mut held) = (connection.peer(), connection.more());
    let Ok(Ok(said)) = tokio::time::timeout(IDLE, preface(&mut connection)).await else { return };
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = if said == PREFACE {
        if held.grow(HTTP2_BYTES).is_err() {
            return;
        }
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(IDLE)
        .keep_alive_timeout(IDLE)
        .max_concurrent_streams(STREAMS as u32)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buf_size(MAX_HEAD)
        .initial_stream_window_size(WINDOW as u32)
        .initial_connection_window_size(WINDOW as u32);
    let (reads, writes) = tokio::io::split(connection);
    let io = TokioIo::new(tokio::io::join(io::Cursor::new(said).chain(reads), writes));
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let mut served = pin!(builder.serve_connection(io, service));
    tokio::select! {
        // What went wrong was the sender's doing, and it knows.
        _ = served.as_mut() => return,
        () = stop.told() => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// What a sender says first, as far as it tells whether that is HTTP/2.
async fn preface(connection: &mut Connection) -> io::Result<Vec<u8>> {
    let mut said = Vec::with_capacity(PREFACE.len());
    while said.len() < PREFACE.len() && PREFACE.starts_with(&said) {
        let mut more = [0; PREFACE.len()];
        match connection.read(&mut more[said.len()..]).await? {
            0 => break,
            n => said.extend_from_slice(&more[said.len()..][..n]),
        }
    }
    Ok(said)
}
