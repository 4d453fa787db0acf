//! Serving connections: each may take so long over what it asks, and holds no more than it needs.
//!
//! A client that sends no request is let go; one that sends its body slowly is the request's affair, and one that reads its
//! answer slowly the answer's. A connection with HTTP/2 holds more than one without, and takes that when it turns out to be
//! one. When the server stops, requests under way are answered and connections end.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use futures::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use radarflow_proto::room::Held;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tonic::codegen::Service;

use crate::http::reading::Sender;

/// How long a client may take for the head of a request, from when the connection waits for one; also how long a connection
/// may be idle.
pub(crate) const HEAD_WAIT: Duration = Duration::from_secs(30);
/// Largest head of a request, and as much of an answer waits to be written, bytes.
const MAX_HEAD: usize = 32 << 10;
/// The same of HTTP/2, for each request.
const MAX_HEAD2: usize = 16 << 10;
/// Requests of one HTTP/2 connection at a time.
const STREAMS: usize = 32;
/// Bytes of bodies that an HTTP/2 connection may send before they are read.
const WINDOW: usize = 128 << 10;
/// What a connection takes, bytes: what is read and what waits to be written, and the state of its encryption.
pub const CONNECTION_BYTES: usize = 2 * MAX_HEAD + (64 << 10);
/// What one with HTTP/2 takes beyond it: a head and a part of an answer a request, and what was not asked for yet.
const HTTP2_BYTES: usize = STREAMS * 2 * MAX_HEAD2 + WINDOW;
/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection, and what is known of it.
#[derive(Debug)]
pub struct Connection<C> {
    /// What is read and written.
    pub io: C,
    /// The address of the other end.
    pub peer: IpAddr,
    /// What it has of the memory for connections: [`CONNECTION_BYTES`].
    pub held: Held,
}

/// Requests of one connection say whose they are.
#[derive(Clone)]
struct From {
    router: Router,
    sender: Sender,
}

impl<B> Service<Request<B>> for From
where
    Router: Service<Request<B>>,
{
    type Response = <Router as Service<Request<B>>>::Response;
    type Error = <Router as Service<Request<B>>>::Error;
    type Future = <Router as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<B>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.sender);
        self.router.call(request)
    }
}

/// Serves connections with a router until `stop` completes and requests under way are answered.
pub(crate) async fn serve<C>(
    connections: impl Stream<Item = io::Result<Connection<C>>>,
    router: Router,
    head: Duration,
    stop: impl Future<Output = ()>,
) where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .keep_alive_interval(head)
        .keep_alive_timeout(head)
        .max_concurrent_streams(STREAMS as u32)
        .max_header_list_size(MAX_HEAD2 as u32)
        .max_send_buf_size(MAX_HEAD2)
        .initial_stream_window_size(WINDOW as u32)
        .initial_connection_window_size(WINDOW as u32);
    let (ending, ended) = watch::channel(());
    let (mut connections, mut stop) = (Box::pin(connections), pin!(stop));
    loop {
        let next = tokio::select! {
            next = connections.next() => next,
            () = &mut stop => break,
        };
        let Some(next) = next else { break };
        let Ok(connection) = next else { continue };
        let Connection { io, peer, held } = connection;
        let service = TowerToHyperService::new(From { router: router.clone(), sender: Sender(peer) });
        let (builder, mut ended) = (builder.clone(), ended.clone());
        tokio::spawn(async move {
            let io = TokioIo::new(Prompt::new(io, held, head));
            let mut served = pin!(builder.serve_connection_with_upgrades(io, service));
            tokio::select! {
                // What went wrong was the client's doing, and it knows.
                _ = served.as_mut() => return,
                _ = ended.changed() => {}
            }
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        });
    }
    // Nobody is taken any more who would get no answer.
    drop((connections, ended));
    let _ = ending.send(());
    ending.closed().await;
}

/// A connection that has to say something: which protocol it speaks is told by its first bytes, and hyper waits for them
/// as long as it takes.
struct Prompt<C> {
    io: C,
    held: Held,
    /// Until when, and how many bytes of a preface there are.
    waits: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<C> Prompt<C> {
    fn new(io: C, held: Held, head: Duration) -> Self {
        Prompt { io, held, waits: Some((Box::pin(sleep(head)), 0)) }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Prompt<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        let Some((until, known)) = &mut this.waits else { return read };
        if read.is_pending() {
            ready!(until.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let new = &buf.filled()[before..];
        let said = new.len().min(PREFACE.len() - *known);
        if said == 0 || new[..said] != PREFACE[*known..][..said] {
            this.waits = None;
        } else if *known + said == PREFACE.len() {
            this.waits = None;
            if let Err(no) = this.held.grow(HTTP2_BYTES) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::OutOfMemory, no)));
            }
        } else {
            *known += said;
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Prompt<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use radarflow_proto::room::Room;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const SHORT: Duration = Duration::from_millis(150);
    /// Longer than any client is waited for.
    const LONG: Duration = Duration::from_millis(600);

    /// A client, what ends its server, and the server.
    fn client() -> (DuplexStream, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        client_in(&Room::of(1 << 30))
    }

    fn client_in(room: &std::sync::Arc<Room>) -> (DuplexStream, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let router = Router::new().route("/long", get(|| async { sleep(LONG).await }));
        let (io, theirs) = tokio::io::duplex(1 << 16);
        let (ours, connection) = (io, Connection { io: theirs, peer: [127, 0, 0, 1].into(), held: room.hold("a") });
        let (stop, mut stopped) = watch::channel(false);
        let connections = futures::stream::once(async { Ok(connection) }).chain(futures::stream::pending());
        let server = tokio::spawn(serve(connections, router, SHORT, async move {
            let _ = stopped.changed().await;
        }));
        (ours, stop, server)
    }

    /// What comes until the connection ends, and how long that takes.
    async fn rest(client: &mut DuplexStream) -> (String, Duration) {
        let (begun, mut said) = (Instant::now(), Vec::new());
        let _ = client.read_to_end(&mut said).await;
        (String::from_utf8_lossy(&said).into_owned(), begun.elapsed())
    }

    #[tokio::test]
    async fn who_says_nothing_or_too_slowly_is_let_go() {
        for begin in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHos"] {
            let (mut client, _stop, _server) = client();
            client.write_all(begin.as_bytes()).await.unwrap();
            let (said, after) = rest(&mut client).await;
            assert!(after >= SHORT / 2 && !said.contains("200"), "{begin:?}: {after:?} {said}");
        }
    }

    #[tokio::test]
    async fn requests_are_answered_however_long_that_takes_and_idle_connections_end() {
        let (mut client, _stop, _server) = client();
        client.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (said, after) = rest(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 200") && after >= LONG, "{after:?}: {said}");
    }

    #[tokio::test]
    async fn a_stop_waits_for_what_is_under_way() {
        let (mut client, stop, server) = client();
        client.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\nGET").await.unwrap();
        tokio::task::yield_now().await;
        sleep(SHORT / 3).await;
        stop.send(true).unwrap();
        let (said, _) = rest(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_with_http_2_has_its_memory_or_ends() {
        let whole = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        for (bytes, torn) in [(4 * HTTP2_BYTES, PREFACE.len()), (4 * HTTP2_BYTES, 5), (HTTP2_BYTES, 5)] {
            let room = Room::of(bytes);
            let (mut client, _stop, _server) = client_in(&room);
            client.write_all(&whole[..torn]).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(&whole[torn..]).await.unwrap();
            let mut said = [0; 9];
            let answered = client.read_exact(&mut said).await.is_ok();
            assert_eq!(answered, bytes > HTTP2_BYTES, "{bytes}, {torn}");
            assert_eq!(room.bytes(), if answered { HTTP2_BYTES } else { 0 });
        }
    }
}
