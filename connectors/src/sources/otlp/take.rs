//! A request: read, inflated, counted, made durable.

use std::future::poll_fn;
use std::io::Read;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http_body::Body as _;
use radarflow_proto::body::{PATIENCE, Prompt, TooSlow};
use radarflow_proto::frame::Origin;
use radarflow_proto::otlp::{self, Counted, MAX_REQUEST, Signal};
use radarflow_proto::ports::{AppendError, Appender};
use radarflow_proto::room::{Held, NoRoom, Room, of_address};

use super::super::tcp::Into;
use super::super::{Listener, entry, origin};
use super::answers::{self, Refusal};

/// How long a request waits for room in the queue and for its frame; senders give up after ten seconds.
const DURABLE: Duration = Duration::from_secs(8);
/// Bytes that are inflated at once.
const PIECE: usize = 64 << 10;
/// What a request takes for each of its bytes: a buffer that doubles.
const FACTOR: usize = 2;

/// Takes the requests of one listener.
#[derive(Clone)]
pub(super) struct Receiver {
    appender: Arc<dyn Appender>,
    room: Arc<Room>,
    origins: [Arc<Origin>; 3],
}

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A message, which may be compressed.
    Plain { gzip: bool },
    /// A message of gRPC, which says itself whether it is compressed.
    Framed { gzip: bool },
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Whether a request is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    header(headers, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/grpc"))
}

/// Whether it is compressed, by one of its headers.
fn gzip(headers: &HeaderMap, name: &str) -> Result<bool, Refusal> {
    match header(headers, name) {
        None | Some("" | "identity") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => Err(Refusal::Unsupported(format!("{name} {other:?} is not read; gzip is"))),
    }
}

impl Receiver {
    pub(super) fn new(listener: &Listener, into: Into) -> Self {
        let origins = Signal::ALL.map(|signal| origin(signal.kind(), "otlp", listener));
        Receiver { appender: into.appender, room: into.room, origins }
    }

    /// A request by HTTP.
    pub(super) async fn http(self, signal: Signal, request: Request) -> Response {
        let kind = header(request.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let is_json = match kind.split(';').next().unwrap_or_default().trim() {
            "application/x-protobuf" => false,
            "application/json" => true,
            other => {
                let why =
                    format!("Content-Type {other:?} is not read; application/x-protobuf and application/json are");
                return answers::refused_http(&Refusal::Unsupported(why), false);
            }
        };
        let taken = match gzip(request.headers(), CONTENT_ENCODING.as_str()) {
            Ok(gzip) => self.take(signal, request, Form::Plain { gzip }).await,
            Err(refusal) => Err(refusal),
        };
        match taken {
            Ok(counted) => answers::taken_http(signal, &counted, is_json),
            Err(refusal) => answers::refused_http(&refusal, is_json),
        }
    }

    /// A request by gRPC.
    pub(super) async fn grpc(self, signal: Signal, request: Request) -> Response {
        if !is_grpc(request.headers()) {
            let why = "Content-Type application/grpc is expected at this path".to_owned();
            return answers::refused_http(&Refusal::Unsupported(why), false);
        }
        let taken = match gzip(request.headers(), "grpc-encoding") {
            Ok(gzip) => self.take(signal, request, Form::Framed { gzip }).await,
            Err(refusal) => Err(refusal),
        };
        match taken {
            Ok(counted) => answers::taken_grpc(&counted),
            Err(refusal) => answers::refused_grpc(&refusal),
        }
    }

    /// Takes a request; it is durable then.
    async fn take(&self, signal: Signal, request: Request, form: Form) -> Result<Counted, Refusal> {
        let peer = request.extensions().get::<SocketAddr>().copied();
        let origin = &self.origins[signal as usize];
        let sender = peer.map(|peer| of_address(peer.ip())).unwrap_or_default();
        let mut held = self.room.hold_for(&origin.tenant, &sender);
        let body = read(request.into_body(), &mut held).await?;
        // Megabytes are inflated and gone through: not where others are waited for.
        let worked = tokio::task::spawn_blocking(move || {
            let body = unpack(body, form, &mut held)?;
            // JSON becomes protobuf to be counted.
            grow(&mut held, if body.starts_with(b"{") { body.len() } else { 0 })?;
            let counted = otlp::count(signal, &body);
            Ok::<_, Refusal>((body, counted, held))
        });
        let (body, counted, held) = worked.await.map_err(|error| Refusal::Busy(error.to_string()))??;
        if !body.is_empty() {
            let append = self.appender.append(origin.clone(), vec![entry(peer, body)]);
            tokio::time::timeout(DURABLE, append)
                .await
                .map_err(|_| Refusal::Busy("the ledger is full".to_owned()))??;
        }
        drop(held);
        // What cannot be read at all is in the ledger too: it becomes a row of `rejects`.
        counted.map_err(Refusal::Malformed)
    }
}

impl From<NoRoom> for Refusal {
    fn from(no: NoRoom) -> Self {
        match no {
            NoRoom::Never => Refusal::TooLarge(no.to_string()),
            NoRoom::Own => Refusal::Greedy(no.to_string()),
            NoRoom::Others => Refusal::Busy(no.to_string()),
        }
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge { .. } => Refusal::TooLarge(error.to_string()),
            AppendError::Storage(_) | AppendError::Closed => Refusal::Busy(error.to_string()),
        }
    }
}

fn too_large() -> Refusal {
    Refusal::TooLarge(format!("a request has at most {MAX_REQUEST} bytes, inflated: send less at once"))
}

/// Takes more memory. What could never have as much is too large, whoever else sends: it is not to come again.
fn grow(held: &mut Held, bytes: usize) -> Result<(), Refusal> {
    match held.bytes() + bytes > held.most() {
        true => Err(Refusal::TooLarge(format!(
            "a request takes {} bytes of memory at most here, twice its own: send less at once, or raise memory_limit_mib",
            held.most()
        ))),
        false => Ok(held.grow(bytes)?),
    }
}

/// Reads a body that is no larger than one may be.
async fn read(body: Body, held: &mut Held) -> Result<Bytes, Refusal> {
    let (mut body, mut read) = (Prompt::new(body, PATIENCE), Vec::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| match error.is::<TooSlow>() {
            true => Refusal::TooSlow(error.to_string()),
            false => Refusal::Malformed(format!("the request broke off: {error}")),
        })?;
        let Some(data) = frame.data_ref() else { continue };
        // With what gRPC says before a message.
        if read.len() + data.len() > MAX_REQUEST + 5 {
            return Err(too_large());
        }
        grow(held, data.len() * FACTOR)?;
        read.extend_from_slice(data);
    }
    Ok(whole(read, held))
}

/// What was read, without what a buffer has beyond it.
fn whole(mut read: Vec<u8>, held: &mut Held) -> Bytes {
    read.shrink_to_fit();
    held.shrink(read.len() * (FACTOR - 1));
    read.into()
}

/// The message of a request.
fn unpack(body: Bytes, form: Form, held: &mut Held) -> Result<Bytes, Refusal> {
    let (message, compressed) = match form {
        Form::Plain { gzip } => (body, gzip),
        Form::Framed { gzip } => {
            let Some((&[flag, a, b, c, d], message)) = body.split_first_chunk::<5>() else {
                return Err(Refusal::Malformed("no message of gRPC".to_owned()));
            };
            if flag > 1 || u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
                return Err(Refusal::Malformed("not one message of gRPC".to_owned()));
            }
            if flag == 1 && !gzip {
                return Err(Refusal::Malformed("a message is compressed, and nothing says how".to_owned()));
            }
            (body.slice(5..), flag == 1)
        }
    };
    let message = if compressed {
        let inflated = inflate(&message, MAX_REQUEST, held)?;
        held.shrink(message.len());
        inflated
    } else {
        message
    };
    if message.len() > MAX_REQUEST {
        return Err(too_large());
    }
    // JSON is known by its brace.
    let blank = message.len() - message.trim_ascii_start().len();
    let is_json = matches!(form, Form::Plain { .. }) && message.get(blank) == Some(&b'{');
    Ok(if is_json { message.slice(blank..) } else { message })
}

/// Inflates a message, as long as it has no more bytes than it may.
fn inflate(message: &[u8], most: usize, held: &mut Held) -> Result<Bytes, Refusal> {
    let (mut inflating, mut out, mut piece) = (MultiGzDecoder::new(message), Vec::new(), vec![0; PIECE]);
    loop {
        let n = inflating.read(&mut piece).map_err(|error| Refusal::Malformed(format!("not gzip: {error}")))?;
        if n == 0 {
            return Ok(whole(out, held));
        }
        if out.len() + n > most {
            return Err(too_large());
        }
        grow(held, n * FACTOR)?;
        out.extend_from_slice(&piece[..n]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_stopped_while_it_inflates() {
        let most = 4 * PIECE;
        let room = Room::of(64 << 20);
        let mut held = room.hold_for("t", "s");
        let bomb = zipped(&vec![0; 8 * most]);
        assert!(bomb.len() < most / 10);
        assert!(matches!(inflate(&bomb, most, &mut held), Err(Refusal::TooLarge(_))));
        assert!(held.bytes() <= FACTOR * most);
        // Where there is less memory it is stopped before.
        let room = Room::of(most);
        let mut held = room.hold_for("t", "s");
        assert!(matches!(inflate(&bomb, most, &mut held), Err(Refusal::TooLarge(_))));
        assert!(held.bytes() <= most / 4);
    }

    #[test]
    fn messages_are_unpacked_or_refused() {
        let room = Room::of(1 << 30);
        let mut held = room.hold_for("t", "s");
        let mut unpacked = |bytes: Vec<u8>, form| unpack(bytes.into(), form, &mut held).map(|b| b.to_vec()).ok();
        let framed = |flag: u8, length: u32, message: &[u8]| [&[flag][..], &length.to_be_bytes(), message].concat();
        let (plain, zip) = (Form::Framed { gzip: false }, Form::Framed { gzip: true });
        assert_eq!(unpacked(framed(0, 2, b"ab"), plain), Some(b"ab".to_vec()));
        assert_eq!(unpacked(framed(0, 2, b"ab"), zip), Some(b"ab".to_vec()));
        let zipped = zipped(b"ab");
        assert_eq!(unpacked(framed(1, zipped.len() as u32, &zipped), zip), Some(b"ab".to_vec()));
        for (message, form) in [
            (framed(1, zipped.len() as u32, &zipped), plain),
            (framed(1, 2, b"ab"), zip),
            (framed(2, 2, b"ab"), plain),
            (framed(0, 3, b"ab"), plain),
            (framed(0, u32::MAX, b"ab"), plain),
            (framed(0, 1, b"ab"), plain),
            (vec![0, 0], plain),
            (zipped[..zipped.len() - 1].to_vec(), Form::Plain { gzip: true }),
        ] {
            assert_eq!(unpacked(message.clone(), form), None, "{message:?}");
        }
        assert_eq!(unpacked(b" \n{}".to_vec(), Form::Plain { gzip: false }), Some(b"{}".to_vec()));
        assert_eq!(unpacked(b"\n\x02ab".to_vec(), Form::Plain { gzip: false }), Some(b"\n\x02ab".to_vec()));
    }
}
