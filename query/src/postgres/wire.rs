//! The messages of the protocol, version 3: those of clients are read, those of the server are written.
//!
//! ```text
//! client: letter (1) | length (4, itself counted) | body        the first message has no letter
//! ```
//! A message is refused by its length before it is read. What is inside is read within its bounds: the crate `pgwire` has
//! these messages too, and its decoders panic where a message is shorter than it says.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::postgres::catalog::Column;
use crate::postgres::kinds::{self, Oid};
use crate::postgres::refusal::{PROTOCOL, Refusal, TOO_MUCH};

/// Longest first message, bytes.
pub(crate) const MAX_STARTUP: usize = 10_000;
/// Longest other message, bytes.
pub(crate) const MAX_MESSAGE: usize = 256 << 10;
/// Longest password message, bytes.
pub(crate) const MAX_PASSWORD: usize = 1024;
/// Parameters of a statement.
pub(crate) const MAX_PARAMETERS: usize = 1024;

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It wants TLS.
    Secure,
    /// It wants encryption of GSSAPI.
    Gss,
    /// It wants a statement of another connection to end.
    Cancel { pid: i32, key: i32 },
    /// It begins: the minor version, and what it says of itself.
    Start { minor: u16, parameters: Vec<(String, String)> },
}

/// What a client sends afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Query(String),
    Parse {
        name: String,
        text: String,
        kinds: Vec<Oid>,
    },
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        most: usize,
    },
    Close(Target),
    Flush,
    Sync,
    Password(String),
    Terminate,
    /// Rows for a copy that was refused already.
    Copied,
}

/// A prepared statement or a portal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement(String),
    Portal(String),
}

/// Values for a prepared statement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    /// Each, and whether it is binary.
    pub(crate) parameters: Vec<(bool, Option<Vec<u8>>)>,
    /// Whether columns are wanted binary: none says text, one is for all.
    pub(crate) binary: Vec<bool>,
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(PROTOCOL, format!("{what} is not of the protocol"))
}

/// The bytes of a message that were not looked at yet.
struct Body<'b>(&'b [u8]);

impl<'b> Body<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| malformed("a message that is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16, Refusal> {
        self.take(2).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn i32(&mut self) -> Result<i32, Refusal> {
        self.take(4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<String, Refusal> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or_else(|| malformed("a text without an end"))?;
        let text = std::str::from_utf8(self.take(end)?)
            .map_err(|_| Refusal::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
        self.take(1)?;
        Ok(text.to_owned())
    }

    /// How many of something follow.
    fn count(&mut self) -> Result<usize, Refusal> {
        let count = self.i16()? as u16;
        if usize::from(count) > MAX_PARAMETERS {
            return Err(Refusal::new(TOO_MUCH, format!("a statement has {MAX_PARAMETERS} parameters at most")));
        }
        Ok(count.into())
    }

    fn formats(&mut self) -> Result<Vec<bool>, Refusal> {
        let count = self.i16()? as u16;
        let format = |code| match code {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed("a format other than text and binary")),
        };
        (0..count).map(|_| format(self.i16()?)).collect()
    }

    fn target(&mut self) -> Result<Target, Refusal> {
        match self.take(1)? {
            b"S" => Ok(Target::Statement(self.text()?)),
            b"P" => Ok(Target::Portal(self.text()?)),
            _ => Err(malformed("this target")),
        }
    }

    fn end<T>(self, message: T) -> Result<T, Refusal> {
        if self.0.is_empty() { Ok(message) } else { Err(malformed("what follows a message's end")) }
    }
}

impl Opening {
    /// Reads what a client begins with; nothing where it left.
    pub(crate) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Result<Opening, Refusal>>> {
        let Ok(len) = io.read_u32().await else { return Ok(None) };
        let len = len as usize;
        if !(8..=MAX_STARTUP).contains(&len) {
            return Ok(Some(Err(malformed("this beginning"))));
        }
        let mut body = vec![0; len - 4];
        io.read_exact(&mut body).await?;
        Ok(Some(Opening::of(&body)))
    }

    fn of(body: &[u8]) -> Result<Opening, Refusal> {
        let mut body = Body(body);
        match (body.i16()?, body.i16()?) {
            (1234, 5679) => body.end(Opening::Secure),
            (1234, 5680) => body.end(Opening::Gss),
            (1234, 5678) => {
                let (pid, key) = (body.i32()?, body.i32()?);
                body.end(Opening::Cancel { pid, key })
            }
            (3, minor) => {
                let mut parameters = Vec::new();
                while body.0.first().is_some_and(|byte| *byte != 0) {
                    parameters.push((body.text()?, body.text()?));
                }
                body.take(1)?;
                body.end(Opening::Start { minor: minor as u16, parameters })
            }
            (major, minor) => {
                let (major, minor) = (major as u16, minor as u16);
                Err(Refusal::new(
                    PROTOCOL,
                    format!("unsupported frontend protocol {major}.{minor}: server supports 3.0"),
                ))
            }
        }
    }
}

/// Reads the head of a message: its letter, and the length of its body. Nothing where the client left.
pub(crate) async fn head(
    io: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> io::Result<Option<Result<(u8, usize), Refusal>>> {
    let Ok(letter) = io.read_u8().await else { return Ok(None) };
    let len = io.read_u32().await? as usize;
    Ok(Some(match len.checked_sub(4) {
        None => Err(malformed("this length")),
        Some(len) if len > most => Err(Refusal::new(PROTOCOL, format!("a message has {most} bytes at most"))),
        Some(len) => Ok((letter, len)),
    }))
}

impl Message {
    /// What a message says.
    pub(crate) fn of(letter: u8, body: &[u8]) -> Result<Message, Refusal> {
        let mut body = Body(body);
        let message = match letter {
            b'Q' => Message::Query(body.text()?),
            b'P' => {
                let (name, text, count) = (body.text()?, body.text()?, body.count()?);
                let kinds = (0..count).map(|_| Ok(body.i32()? as Oid)).collect::<Result<_, Refusal>>()?;
                Message::Parse { name, text, kinds }
            }
            b'B' => {
                let (portal, statement, formats) = (body.text()?, body.text()?, body.formats()?);
                let count = body.count()?;
                if formats.len() > 1 && formats.len() != count {
                    return Err(malformed("a number of formats that is not that of parameters"));
                }
                let mut parameters = Vec::with_capacity(count);
                for at in 0..count {
                    let binary = formats.get(at).or(formats.first().filter(|_| formats.len() == 1)).copied();
                    let value = match body.i32()? {
                        -1 => None,
                        len => {
                            Some(body.take(usize::try_from(len).map_err(|_| malformed("a negative length"))?)?.to_vec())
                        }
                    };
                    parameters.push((binary.unwrap_or_default(), value));
                }
                Message::Bind(Bind { portal, statement, parameters, binary: body.formats()? })
            }
            b'D' => Message::Describe(body.target()?),
            b'C' => Message::Close(body.target()?),
            b'E' => {
                let (portal, most) = (body.text()?, body.i32()?);
                Message::Execute { portal, most: usize::try_from(most).unwrap_or_default() }
            }
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'X' => Message::Terminate,
            b'p' => Message::Password(body.text()?),
            b'd' | b'c' | b'f' => return Ok(Message::Copied),
            _ => return Err(malformed("this message")),
        };
        body.end(message)
    }
}

/// Bytes to be sent.
#[derive(Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    /// A message: its letter, and what writes its body.
    pub(crate) fn message(&mut self, letter: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.0.push(letter);
        let begin = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        body(&mut self.0);
        let len = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[begin..begin + 4].copy_from_slice(&len.to_be_bytes());
    }

    pub(crate) fn bare(&mut self, letter: u8) {
        self.message(letter, |_| {});
    }

    /// How a client has to show who it is: 0 not at all, 3 with a password.
    pub(crate) fn authentication(&mut self, how: i32) {
        self.message(b'R', |body| body.extend(how.to_be_bytes()));
    }

    /// The newest version there is, and what is not known of what was asked for.
    pub(crate) fn negotiate(&mut self, unknown: &[&str]) {
        self.message(b'v', |body| {
            body.extend(0i32.to_be_bytes());
            body.extend((unknown.len() as i32).to_be_bytes());
            unknown.iter().for_each(|name| text(body, name));
        });
    }

    pub(crate) fn setting(&mut self, name: &str, value: &str) {
        self.message(b'S', |body| {
            text(body, name);
            text(body, value);
        });
    }

    pub(crate) fn key(&mut self, pid: i32, key: i32) {
        self.message(b'K', |body| {
            body.extend(pid.to_be_bytes());
            body.extend(key.to_be_bytes());
        });
    }

    /// A client may go on: idle (`I`), in a transaction (`T`) or in one that failed (`E`).
    pub(crate) fn ready(&mut self, state: u8) {
        self.message(b'Z', |body| body.push(state));
    }

    pub(crate) fn complete(&mut self, tag: &str) {
        self.message(b'C', |body| text(body, tag));
    }

    pub(crate) fn columns(&mut self, columns: &[Column], binary: impl Fn(usize) -> bool) {
        self.message(b'T', |body| {
            body.extend((columns.len() as i16).to_be_bytes());
            for (at, column) in columns.iter().enumerate() {
                text(body, &column.name);
                // Of no table that could be named.
                body.extend(0i32.to_be_bytes());
                body.extend(0i16.to_be_bytes());
                body.extend(column.kind.to_be_bytes());
                body.extend(kinds::kind(column.kind).map_or(-1, |kind| kind.len).to_be_bytes());
                body.extend((-1i32).to_be_bytes());
                body.extend(i16::from(binary(at)).to_be_bytes());
            }
        });
    }

    pub(crate) fn parameters(&mut self, kinds: &[Oid]) {
        self.message(b't', |body| {
            body.extend((kinds.len() as i16).to_be_bytes());
            kinds.iter().for_each(|kind| body.extend(kind.to_be_bytes()));
        });
    }

    /// Why there is no answer. `ends` says that the connection ends with it.
    pub(crate) fn refuse(&mut self, refusal: &Refusal, asked: &str, ends: bool) {
        let severity = if ends { "FATAL" } else { "ERROR" };
        self.said(b'E', severity, refusal, refusal.position(asked));
    }

    /// Something that a client should know.
    pub(crate) fn notice(&mut self, code: &'static str, detail: &str) {
        self.said(b'N', "WARNING", &Refusal::new(code, detail), None);
    }

    fn said(&mut self, letter: u8, severity: &str, refusal: &Refusal, position: Option<usize>) {
        self.message(letter, |body| {
            let mut field = |letter: u8, value: &str| {
                body.push(letter);
                text(body, value);
            };
            field(b'S', severity);
            field(b'V', severity);
            field(b'C', refusal.code);
            field(b'M', &refusal.detail);
            refusal.hint.iter().for_each(|hint| field(b'H', hint));
            position.iter().for_each(|at| field(b'P', &at.to_string()));
            body.push(0);
        });
    }
}

/// A text and its end; what would end it before is left out.
fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes().filter(|byte| *byte != 0));
    body.push(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_read_as_they_are_meant() {
        assert_eq!(Message::of(b'Q', b"select 1\0"), Ok(Message::Query("select 1".into())));
        let bind = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";
        let parameters = vec![(true, Some(b"x".to_vec())), (true, None)];
        let read = Bind { portal: "p".into(), statement: "s".into(), parameters, binary: vec![true] };
        assert_eq!(Message::of(b'B', bind), Ok(Message::Bind(read)));
        let parse = Message::Parse { name: String::new(), text: "x".into(), kinds: vec![23] };
        assert_eq!(Message::of(b'P', b"\0x\0\0\x01\0\0\0\x17"), Ok(parse));
        assert_eq!(Message::of(b'E', b"\0\0\0\0\x05"), Ok(Message::Execute { portal: String::new(), most: 5 }));
        for cut in 0..bind.len() {
            assert_eq!(Message::of(b'B', &bind[..cut]).unwrap_err().code, PROTOCOL, "{cut}");
        }
        let start = b"\0\x03\0\0user\0me\0\0";
        let parameters = vec![("user".to_owned(), "me".to_owned())];
        assert_eq!(Opening::of(start), Ok(Opening::Start { minor: 0, parameters }));
        assert_eq!(Opening::of(&[4, 210, 22, 47]), Ok(Opening::Secure));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(letter in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::of(letter, &body);
            let _ = Opening::of(&body);
        }
    }
}
