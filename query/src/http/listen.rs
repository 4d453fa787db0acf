//! Serving connections: each may take so long over what it asks, and holds no more than it needs.
//!
//! A client that sends its request a byte a minute, or none at all, is let go; one that reads its answer slowly is the
//! answer's affair. When the server stops, requests under way are answered and connections end.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

/// How long clients may take for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the head of a request, from when the connection waits for one; also how long a connection may be idle.
    pub(crate) head: Duration,
    /// For each piece of a request's body.
    pub(crate) piece: Duration,
}

/// What clients are given.
pub(crate) const PATIENCE: Patience = Patience { head: Duration::from_secs(30), piece: Duration::from_secs(30) };
/// Largest head of a request, bytes.
const MAX_HEAD: usize = 64 << 10;
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 128;
/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves connections with a router until `stop` completes and requests under way are answered.
pub(crate) async fn serve<C>(
    connections: impl Stream<Item = io::Result<C>>,
    router: Router,
    Patience { head, .. }: Patience,
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
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    let (ending, ended) = watch::channel(());
    let (mut connections, mut stop) = (Box::pin(connections), pin!(stop));
    loop {
        let next = tokio::select! {
            next = connections.next() => next,
            () = &mut stop => break,
        };
        let Some(next) = next else { break };
        let Ok(connection) = next else { continue };
        let service = TowerToHyperService::new(router.clone());
        let (builder, mut ended) = (builder.clone(), ended.clone());
        tokio::spawn(async move {
            let io = TokioIo::new(Prompt::new(connection, head));
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
    /// Until when, and how many bytes of a preface there are.
    waits: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<C> Prompt<C> {
    fn new(io: C, head: Duration) -> Self {
        Prompt { io, waits: Some((Box::pin(sleep(head)), 0)) }
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
        let whole = *known + new.len() >= PREFACE.len();
        if whole || new.is_empty() || !PREFACE[*known..].starts_with(new) {
            this.waits = None;
        } else {
            *known += new.len();
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

/// Ends requests whose bodies stall.
pub(crate) async fn unstalled(
    State(Patience { piece, .. }): State<Patience>,
    request: Request,
    next: Next,
) -> Response {
    let pieces = move |mut body: BodyDataStream| async move {
        let piece = match tokio::time::timeout(piece, body.next()).await {
            Ok(piece) => piece?,
            Err(_) => Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))),
        };
        Some((piece, body))
    };
    next.run(request.map(|body| Body::from_stream(futures::stream::unfold(body.into_data_stream(), pieces)))).await
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const SHORT: Patience = Patience { head: Duration::from_millis(150), piece: Duration::from_millis(150) };
    /// Longer than any client is waited for.
    const LONG: Duration = Duration::from_millis(600);

    /// A client, what ends its server, and the server.
    fn client() -> (DuplexStream, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let router = Router::new()
            .route("/long", get(|| async { sleep(LONG).await }))
            .route("/echo", post(|body: String| async move { body }))
            .layer(axum::middleware::from_fn_with_state(SHORT, unstalled));
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (stop, mut stopped) = watch::channel(false);
        let connections = futures::stream::once(async { Ok(theirs) }).chain(futures::stream::pending());
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
            assert!(after >= SHORT.head / 2 && !said.contains("200"), "{begin:?}: {after:?} {said}");
        }
        let (mut client, _stop, _server) = client();
        client.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfour").await.unwrap();
        let (said, _) = rest(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{said}");
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
        sleep(SHORT.head / 3).await;
        stop.send(true).unwrap();
        let (said, _) = rest(&mut client).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        server.await.unwrap();
    }
}
