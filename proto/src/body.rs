//! Bodies of requests, read within bounds: who sends too slowly is given up, and a gRPC message has its memory before it is
//! read.
//!
//! ```text
//! body ─► Prompt: so long a piece, so many bytes a second ─► Messages: 1 byte flag, 4 bytes length, message, …
//!                                                               │ takes [`MESSAGE_FACTOR`] times the length
//!                                                               └ gives it back when the next message comes
//! ```
//! A message that was passed on is somebody's until they ask for the next, or until their request ends: whoever answers
//! keeps the other end of the [`Memory`] until then. Nothing tells how many fields a message has before they are decoded, and
//! one of two bytes becomes hundreds: so they are counted as they pass ([`MAX_FIELDS`]).

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::room::{Held, NoRoom};

/// What a message takes while it is read and appended, for each of its bytes: the buffer it is read into, which doubles, and
/// the entries that are made of it.
pub const MESSAGE_FACTOR: usize = 4;
/// Fields that a message may have, those of messages within it not counted.
pub const MAX_FIELDS: usize = 8192;

/// How long a sender may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one piece.
    pub piece: Duration,
    /// Beyond what its bytes take at the lowest rate.
    pub grace: Duration,
    /// The lowest rate, bytes a second of waiting.
    pub rate: u32,
}

/// What senders are given.
pub const PATIENCE: Patience = Patience { piece: Duration::from_secs(30), grace: Duration::from_secs(60), rate: 4096 };

/// What a request takes of a [`Room`](crate::room::Room): shared by its body and whoever answers it.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Mutex<Held>>);

impl Memory {
    /// What is held from now on.
    pub fn new(held: Held) -> Self {
        Memory(Arc::new(Mutex::new(held)))
    }

    /// Takes more.
    ///
    /// # Errors
    /// There is no room.
    pub fn grow(&self, bytes: usize) -> Result<(), NoRoom> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).grow(bytes)
    }

    /// Nothing yet, for the same sender.
    pub fn another(&self) -> Held {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).another()
    }

    /// Gives back all of it.
    pub fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).give_back();
    }

    fn shrink(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).shrink(bytes);
    }
}

/// A sender took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request came too slowly")]
pub struct TooSlow;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body whose sender may take so long.
pub struct Prompt<B> {
    body: B,
    patience: Patience,
    /// Time that was waited for its sender; what is done with a piece does not count.
    waited: Duration,
    bytes: u64,
    /// Since when it is waited for the next piece.
    since: Option<Instant>,
    until: Pin<Box<Sleep>>,
}

impl<B> Prompt<B> {
    /// A body from now on.
    pub fn new(body: B, patience: Patience) -> Self {
        let until = Box::pin(tokio::time::sleep(patience.piece));
        Prompt { body, patience, waited: Duration::ZERO, bytes: 0, since: None, until }
    }

    /// How much longer it may be waited for.
    fn left(&self) -> Duration {
        let earned = Duration::from_secs_f64(self.bytes as f64 / f64::from(self.patience.rate));
        (self.patience.grace + earned).saturating_sub(self.waited).min(self.patience.piece)
    }
}

impl<B> Body for Prompt<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let since = match this.since {
            Some(since) => since,
            None => {
                let (now, left) = (Instant::now(), this.left());
                this.until.as_mut().reset(now + left);
                *this.since.insert(now)
            }
        };
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waited += since.elapsed();
                this.since = None;
                if let Some(Ok(frame)) = &frame {
                    this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => this.until.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a gRPC request.
pub struct Messages<B> {
    body: B,
    memory: Memory,
    reading: Reading,
    /// Bytes that were taken for the message that is read, and for those that were passed on.
    now: usize,
    before: usize,
}

/// Where in a message it is.
enum Reading {
    /// In the bytes before it, which are so many so far.
    Head([u8; 5], usize),
    /// So many bytes of it are left.
    Message(usize, Fields),
}

impl<B> Messages<B> {
    /// A body that takes its messages' memory.
    pub fn new(body: B, memory: Memory) -> Self {
        Messages { body, memory, reading: Reading::Head([0; 5], 0), now: 0, before: 0 }
    }

    /// Takes what the messages need that these bytes are of.
    fn pass(&mut self, mut data: &[u8]) -> Result<(), Status> {
        self.memory.shrink(std::mem::take(&mut self.before));
        loop {
            match &mut self.reading {
                Reading::Head(head, known) => {
                    let new = data.len().min(head.len() - *known);
                    head[*known..][..new].copy_from_slice(&data[..new]);
                    (*known, data) = (*known + new, &data[new..]);
                    if *known < head.len() {
                        return Ok(());
                    }
                    let [_, length @ ..] = *head;
                    let length = u32::from_be_bytes(length) as usize;
                    let takes = length.saturating_mul(MESSAGE_FACTOR);
                    self.memory.grow(takes).map_err(|no| Status::resource_exhausted(no.to_string()))?;
                    (self.now, self.reading) = (takes, Reading::Message(length, Fields::default()));
                }
                Reading::Message(left, fields) => {
                    let (of_it, rest) = data.split_at(data.len().min(*left));
                    if fields.pass(of_it) > MAX_FIELDS {
                        return Err(Status::invalid_argument(format!("a message has at most {MAX_FIELDS} fields")));
                    }
                    (*left, data) = (*left - of_it.len(), rest);
                    if *left > 0 {
                        return Ok(());
                    }
                    self.before += std::mem::take(&mut self.now);
                    self.reading = Reading::Head([0; 5], 0);
                }
            }
        }
    }
}

impl<B> Body for Messages<B>
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| match error.downcast::<TooSlow>() {
                Ok(slow) => Status::deadline_exceeded(slow.to_string()),
                Err(other) => Status::from_error(other),
            })?;
            match frame.data_ref() {
                Some(data) => this.pass(data).map(|()| frame),
                None => Ok(frame),
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts the fields of a protobuf message as its bytes pass. What is no message ends wherever it does: its decoder says so.
#[derive(Default)]
struct Fields {
    count: usize,
    state: Field,
}

/// Where in a field it is.
#[derive(Default)]
enum Field {
    /// In its tag: the wire type is in the first byte.
    #[default]
    Begin,
    Tag(u8),
    /// In a number.
    Number,
    /// In the length of what follows: the value and its bits so far.
    Length(u64, u32),
    /// So many bytes follow.
    Skip(u64),
}

impl Fields {
    /// Takes in the next bytes; gives the fields so far.
    fn pass(&mut self, mut data: &[u8]) -> usize {
        while let Some((&byte, rest)) = data.split_first() {
            let more = byte & 0x80 != 0;
            if let Field::Skip(left) = &mut self.state {
                let skipped = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                (*left, data) = (*left - skipped as u64, &data[skipped..]);
                if *left == 0 {
                    self.state = Field::Begin;
                }
                continue;
            }
            data = rest;
            self.state = match self.state {
                Field::Begin => {
                    self.count += 1;
                    if more { Field::Tag(byte & 7) } else { after_tag(byte & 7) }
                }
                Field::Tag(kind) if !more => after_tag(kind),
                Field::Length(value, bits) => {
                    let value = value | u64::from(byte & 0x7f).checked_shl(bits).unwrap_or(0);
                    match (more, value) {
                        (true, value) => Field::Length(value, bits + 7),
                        (false, 0) => Field::Begin,
                        (false, value) => Field::Skip(value),
                    }
                }
                Field::Number if !more => Field::Begin,
                Field::Tag(kind) => Field::Tag(kind),
                Field::Number | Field::Skip(_) => Field::Number,
            };
        }
        self.count
    }
}

fn after_tag(kind: u8) -> Field {
    match kind {
        0 => Field::Number,
        1 => Field::Skip(8),
        2 => Field::Length(0, 0),
        5 => Field::Skip(4),
        // Groups, and what is none.
        _ => Field::Begin,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use prost::Message;

    use super::*;
    use crate::grpc::{GatewayServiceStatus, GatewayStatusRequest};
    use crate::room::Room;

    /// Pieces that come after pauses.
    struct Pieces(VecDeque<(Duration, Vec<u8>)>, Option<Pin<Box<Sleep>>>);

    impl Pieces {
        fn of(pieces: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
            Pieces(pieces.into_iter().map(|(ms, piece)| (Duration::from_millis(ms), piece)).collect(), None)
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            let Some((pause, _)) = self.0.front() else { return Poll::Ready(None) };
            let pause = *pause;
            let sleep = self.1.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(sleep.as_mut().poll(cx));
            self.1 = None;
            Poll::Ready(self.0.pop_front().map(|(_, piece)| Ok(Frame::data(piece.into()))))
        }
    }

    async fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Result<Bytes, B::Error>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_too_slowly_is_given_up_and_who_reads_slowly_is_nobodys_fault() {
        let patience = Patience { piece: Duration::from_secs(5), grace: Duration::from_secs(10), rate: 100 };
        let mut stalls = Prompt::new(Pieces::of([(0, vec![1]), (6000, vec![2])]), patience);
        assert!(next(&mut stalls).await.unwrap().is_ok());
        assert!(next(&mut stalls).await.unwrap().unwrap_err().is::<TooSlow>());
        // A byte every four seconds is a piece in time, and no rate.
        let mut trickles = Prompt::new(Pieces::of((0..100).map(|_| (4000, vec![1]))), patience);
        let mut pieces = 0;
        let ended = loop {
            match next(&mut trickles).await.unwrap() {
                Ok(_) => pieces += 1,
                Err(error) => break error,
            }
        };
        assert!(ended.is::<TooSlow>() && pieces == 2, "{pieces}");
        // As fast as may be, for as long as it takes; and pauses of whoever reads do not count.
        let mut well = Prompt::new(Pieces::of((0..100).map(|_| (4000, vec![0; 400]))), patience);
        let mut bytes = 0;
        while let Some(piece) = next(&mut well).await {
            bytes += piece.unwrap().len();
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        assert_eq!(bytes, 40_000);
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0u8][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    #[tokio::test]
    async fn a_message_has_its_memory_before_it_is_read_and_gives_it_back() {
        let room = Room::of(1 << 20);
        let (a, b) = (vec![0u8; 1000], vec![0u8; 2000]);
        // Torn at every place: the memory is there from the length on, until the next message begins to come.
        let whole = [framed(&a), framed(&b), framed(&a)].concat();
        for piece in [1, 3, 1003, 1005, 1008, 5000] {
            let memory = Memory::new(room.hold_for("t", "s"));
            let pieces = Pieces::of(whole.chunks(piece).map(|piece| (0, piece.to_vec())));
            let mut body = Messages::new(pieces, memory.clone());
            let (mut most, mut read) = (0, 0);
            while let Some(data) = next(&mut body).await {
                read += data.unwrap().len();
                most = most.max(room.bytes());
                let in_head = [0..5, 1006..1010, 3011..3015].iter().any(|head| head.contains(&read));
                assert!(room.bytes() >= MESSAGE_FACTOR * 1000 || in_head, "{piece}: {read}");
            }
            assert!(most <= MESSAGE_FACTOR * 4000, "{piece}: {most}");
            // The last is whoever's who answers.
            drop(body);
            assert!(room.bytes() > 0);
            drop(memory);
            assert_eq!(room.bytes(), 0);
        }
        // Its length alone is too much.
        let memory = Memory::new(room.hold_for("t", "s"));
        let mut body = Messages::new(Pieces::of([(0, vec![0, 0, 1, 0, 0])]), memory);
        assert!(next(&mut body).await.unwrap().is_ok());
        let mut body = Messages::new(Pieces::of([(0, vec![0, 0, 1, 0, 1])]), body.memory.clone());
        let refused = next(&mut body).await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn fields_are_counted_before_they_are_decoded() {
        let service =
            GatewayServiceStatus { service_name: "n".repeat(300), message: vec![7; 200].into(), ..Default::default() };
        let request = |services: usize| GatewayStatusRequest {
            services: vec![service.clone(); services],
            agent_id: "a".into(),
            timestamp: -1,
            ..Default::default()
        };
        let count = |message: &[u8], piece: usize| {
            let mut fields = Fields::default();
            message.chunks(piece).map(|piece| fields.pass(piece)).last().unwrap()
        };
        let message = request(7).encode_to_vec();
        for piece in [1, 2, 7, 300, 100_000] {
            assert_eq!(count(&message, piece), 9, "{piece}");
        }
        // Two bytes each.
        let empty = framed(
            &GatewayStatusRequest { services: vec![Default::default(); MAX_FIELDS + 1], ..Default::default() }
                .encode_to_vec(),
        );
        let memory = Memory::new(Room::of(1 << 20).hold("t"));
        let mut body = Messages::new(Pieces::of([(0, empty)]), memory);
        assert_eq!(next(&mut body).await.unwrap().unwrap_err().code(), tonic::Code::InvalidArgument);
        let noise = (0..10_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>();
        assert_eq!(count(&noise, 1), count(&noise, 10_000));
    }
}
