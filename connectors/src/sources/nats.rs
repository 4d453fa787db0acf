//! NATS JetStream: a durable pull consumer a subject, each message acknowledged after its frame is durable.
//!
//! The server says a message again that was not acknowledged in time, and after a crash it says newer ones first. So
//! what is durable is remembered as a set of stream sequences ([`Offsets`]), written in the frame that bears the
//! messages: one that is there already is acknowledged and not read again. Between two first deliveries of a consumer
//! lies nothing of its subject, so the set stays one interval as long as all goes well. One that is on its way to the
//! ledger when it comes again is left alone: its acknowledgement follows its frame.
//!
//! A consumer asks for no more than [`OUTSTANDING`] batches: a slow ledger leaves messages on the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Message};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use radarflow_proto::frame::{Entry, Kind, Origin, Range};
use radarflow_proto::offsets::Offsets;
use radarflow_proto::ports::{Appender, Part};
use radarflow_proto::room::{Held, Room};
use thiserror::Error;

use super::{Durable, Stop, now_us, retry_append, subjects};
use crate::retry::{self, Pauses};

/// Messages of one append.
const BATCH: usize = 1024;
/// Bytes of one append, about.
const BATCH_BYTES: usize = 2 << 20;
/// Appends of one consumer that may be under way, where there is memory for so many.
pub const OUTSTANDING: usize = 12;
/// Bytes that a consumer asks for at once; a server takes no larger messages.
const ASKED_BYTES: usize = 8 << 20;
/// What a message takes beside its bytes once it is read.
const MESSAGE: usize = 2 * size_of::<Entry>() + size_of::<Message>();
/// What a consumer takes, bytes: it asks again when half has come.
pub const CONSUMER_BYTES: usize = ASKED_BYTES / 2 * 3;
/// How long the server waits for an acknowledgement before it says a message again.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// How long reading goes on once it was told to end: a server that does not answer does not delay the end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// A stream that was read for so long is well.
const WELL: Duration = Duration::from_secs(30);

/// One stream of one server.
#[derive(Clone, Debug)]
pub struct Config {
    /// `nats://host:port`, several separated by commas; `tls://` for TLS.
    pub url: String,
    /// The stream.
    pub stream: String,
    /// Name of the consumers: `<durable>-<subject>`.
    pub durable: String,
    /// The subjects to read.
    pub subjects: Vec<String>,
    /// A credentials file.
    pub credentials: Option<PathBuf>,
    /// Customer.
    pub tenant: String,
    /// Site, where the payload names none.
    pub partition: String,
}

/// Why a stream cannot be read.
#[derive(Debug, Error)]
pub enum NatsError {
    /// A subject that nothing here decodes.
    #[error("nats: nothing decodes the subject {0}; known are {known}", known = subjects::DEFAULT.join(", "))]
    Subject(String),
    /// The server refused, or is away.
    #[error("nats {url}: {what}: {reason}")]
    Server {
        /// The server.
        url: String,
        /// What was wanted.
        what: String,
        /// Why not.
        reason: String,
    },
}

impl Config {
    fn failed(&self, what: impl Into<String>) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> NatsError {
        let (url, what) = (self.url.clone(), what.into());
        move |reason| NatsError::Server { url, what, reason: reason.to_string() }
    }

    async fn connect(&self, wait: bool) -> Result<async_nats::Client, NatsError> {
        let mut options = async_nats::ConnectOptions::new().name("radarflow");
        if wait {
            options = options.retry_on_initial_connect();
        }
        if let Some(file) = &self.credentials {
            let what = format!("credentials file {}", file.display());
            options = options.credentials_file(file).await.map_err(|e| self.failed(what)(e.into()))?;
        }
        let servers: Vec<&str> = self.url.split(',').map(str::trim).collect();
        options.connect(servers).await.map_err(|e| self.failed("cannot connect")(e.into()))
    }

    fn check_subjects(&self) -> Result<(), NatsError> {
        match self.subjects.iter().find(|s| subjects::kind(s).is_none()) {
            Some(unknown) => Err(NatsError::Subject(unknown.clone())),
            None => Ok(()),
        }
    }
}

/// Whether the stream can be read, for `check-config`.
///
/// # Errors
/// [`NatsError`] where a subject is none, the server does not answer, or the stream is missing.
pub async fn check(config: &Config) -> Result<(), NatsError> {
    config.check_subjects()?;
    let client = config.connect(false).await?;
    let stream = jetstream::new(client).get_stream(&config.stream).await;
    stream.map(drop).map_err(|e| config.failed(format!("stream {}", config.stream))(e.into()))
}

/// A stream that is being read.
pub struct NatsSource(Vec<tokio::task::JoinHandle<()>>);

impl NatsSource {
    /// Waits until what was taken in is durable and acknowledged; the [`Stop`] was told before.
    pub async fn join(self) {
        for task in self.0 {
            let _ = task.await;
        }
    }
}

/// Starts reading. A server that is away is waited for.
///
/// # Errors
/// [`NatsError`] where a subject is none or the settings are refused.
pub async fn start(
    config: Config,
    appender: Arc<dyn Appender>,
    durable: Arc<Durable>,
    room: &Arc<Room>,
    stop: Stop,
) -> Result<NatsSource, NatsError> {
    config.check_subjects()?;
    let client = config.connect(true).await?;
    let config = Arc::new(config);
    let held = room.hold_for(&config.tenant, &format!("nats:{}", config.stream));
    let tasks = config.subjects.clone().into_iter().map(|subject| {
        let mut reader = Subject {
            kind: subjects::kind(&subject).unwrap_or(Kind::Gelf),
            subject,
            config: config.clone(),
            client: client.clone(),
            appender: appender.clone(),
            durable: durable.clone(),
            held: held.another(),
            stop: stop.clone(),
        };
        tokio::spawn(async move { reader.run().await })
    });
    Ok(NatsSource(tasks.collect()))
}

struct Subject {
    subject: String,
    kind: Kind,
    config: Arc<Config>,
    client: async_nats::Client,
    appender: Arc<dyn Appender>,
    durable: Arc<Durable>,
    /// Nothing, of the memory of feeds.
    held: Held,
    stop: Stop,
}

impl Subject {
    async fn run(&mut self) {
        let (mut told, mut pauses) = (String::new(), Pauses::new(retry::BROKER));
        while !self.stop.is_told() {
            let (mut stop, began) = (self.stop.clone(), Instant::now());
            let read = tokio::select! {
                read = self.read() => read,
                () = async { stop.told().await; tokio::time::sleep(END_WITHIN).await } => return,
            };
            match read {
                Ok(()) => return,
                Err(error) => {
                    let error = error.to_string();
                    if error != told {
                        tracing::warn!(subject = self.subject, "{error}; trying again");
                        told = error;
                    }
                }
            }
            if began.elapsed() > WELL {
                pauses.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(pauses.next()) => {}
                () = stop.told() => return,
            }
        }
    }

    async fn consumer(&self) -> Result<(String, PullConsumer), NatsError> {
        let stream = jetstream::new(self.client.clone())
            .get_stream(&self.config.stream)
            .await
            .map_err(|e| self.config.failed(format!("stream {}", self.config.stream))(e.into()))?;
        // Sequences of a stream that was made anew are other sequences.
        let made = stream.cached_info().created.unix_timestamp();
        let name = format!("{}-{}", self.config.durable, self.subject.replace('.', "_"));
        let wanted = pull::Config {
            durable_name: Some(name.clone()),
            description: Some("radarflow: acknowledged once durable".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: ((OUTSTANDING + 2) * BATCH) as i64,
            filter_subject: self.subject.clone(),
            ..pull::Config::default()
        };
        let consumer = stream
            .get_or_create_consumer(&name, wanted)
            .await
            .map_err(|e| self.config.failed(format!("consumer {name}"))(e.into()))?;
        Ok((format!("nats:{}@{made}/{name}", self.config.stream), consumer))
    }

    async fn read(&mut self) -> Result<(), NatsError> {
        let (feed, consumer) = self.consumer().await?;
        let mut durable = self.durable.of(&feed);
        durable.insert(0, consumer.cached_info().ack_floor.stream_sequence + 1);
        let origin = Arc::new(Origin {
            kind: self.kind,
            tenant: self.config.tenant.clone(),
            partition: self.config.partition.clone(),
            feed: format!("nats:{}/{}", self.config.stream, self.subject),
        });
        let failed = || self.config.failed(format!("consumer of {}", self.subject));
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(BATCH)
            .max_bytes_per_batch(ASKED_BYTES)
            .messages()
            .await
            .map_err(|e| failed()(e.into()))?
            .map_err(|e| failed()(e.into()))
            .ready_chunks(BATCH);
        let mut appends = FuturesUnordered::new();
        let mut taken = Taken { durable: durable.clone(), under_way: durable, last_first: None };
        let mut ended = Ok(());
        let mut stop = self.stop.clone();
        // What came, and the memory that it waits for.
        let (mut came, mut memory) = (None, self.held.another());
        loop {
            tokio::select! {
                biased;
                Some((batch, durable)) = appends.next(), if !appends.is_empty() => {
                    if !taken.acknowledge(batch, durable).await {
                        return Ok(());
                    }
                }
                chunk = messages.next(), if came.is_none() && appends.len() < OUTSTANDING => {
                    let Some(chunk) = chunk else { break };
                    let bytes = chunk.iter().flatten().map(|message| MESSAGE + message.payload.len());
                    came = Some((bytes.sum::<usize>().min(memory.most()), chunk));
                }
                found = memory.wait(came.as_ref().map_or(0, |(bytes, _)| *bytes)), if came.is_some() => {
                    let (Ok(()), Some((_, chunk))) = (found, came.take()) else { continue };
                    let nothing = memory.another();
                    let held = Arc::new(std::mem::replace(&mut memory, nothing));
                    let mut batch = Batch::default();
                    for message in chunk {
                        let message = match message {
                            Ok(message) => message,
                            Err(error) => { ended = Err(error); break }
                        };
                        if batch.bytes >= BATCH_BYTES {
                            let full = std::mem::take(&mut batch);
                            appends.push(full.append(&self.appender, &origin, &feed, &self.stop, held.clone()));
                        }
                        batch.take(message, &mut taken).await;
                    }
                    if !batch.messages.is_empty() {
                        appends.push(batch.append(&self.appender, &origin, &feed, &self.stop, held));
                    }
                    if ended.is_err() {
                        break;
                    }
                }
                () = stop.told() => break,
            }
        }
        // What was taken in is said to be durable, or comes again.
        while let Some((batch, durable)) = appends.next().await {
            if !taken.acknowledge(batch, durable).await {
                break;
            }
        }
        let _ = self.client.flush().await;
        self.durable.learn(&feed, taken.durable);
        ended
    }
}

/// What of a consumer was taken in.
struct Taken {
    /// What is durable.
    durable: Offsets,
    /// That, and what is on its way.
    under_way: Offsets,
    /// The newest that was said for the first time.
    last_first: Option<u64>,
}

impl Taken {
    /// Acknowledges a durable batch. `false`: the process is ending.
    async fn acknowledge(&mut self, batch: Appended, durable: bool) -> bool {
        if durable {
            for (from, to) in batch.spans {
                self.durable.insert(from, to);
            }
            for message in batch.messages {
                // One that is lost comes again and is known.
                let _ = message.ack().await;
            }
        }
        durable
    }
}

/// What a frame bears once it is durable.
struct Appended {
    messages: Vec<Message>,
    spans: Vec<(u64, u64)>,
}

/// Messages that go into one frame.
#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    entries: Vec<Entry>,
    spans: Vec<(u64, u64)>,
    bytes: usize,
}

impl Batch {
    async fn take(&mut self, message: Message, taken: &mut Taken) {
        let (sequence, from, received_us) = match message.info() {
            Ok(info) => {
                let sequence = info.stream_sequence;
                let mut from = sequence;
                if info.delivered == 1 {
                    from = taken.last_first.map_or(sequence, |last| last + 1).min(sequence);
                    taken.last_first = Some(sequence);
                }
                (sequence, from, (info.published.unix_timestamp_nanos() / 1000) as i64)
            }
            Err(error) => return tracing::warn!(%error, "a message that JetStream did not number"),
        };
        if taken.durable.contains(sequence) {
            let _ = message.ack().await;
            return;
        }
        if taken.under_way.contains(sequence) {
            return;
        }
        taken.under_way.insert(from, sequence + 1);
        match self.spans.last_mut() {
            Some((_, end)) if *end == from => *end = sequence + 1,
            _ => self.spans.push((from, sequence + 1)),
        }
        let body = message.payload.clone();
        self.bytes += body.len();
        self.entries.push(Entry { peer: None, received_us: received_us.min(now_us()), body });
        self.messages.push(message);
    }

    fn append(
        self,
        appender: &Arc<dyn Appender>,
        origin: &Arc<Origin>,
        feed: &str,
        stop: &Stop,
        held: Arc<Held>,
    ) -> impl Future<Output = (Appended, bool)> + use<> {
        let ranges =
            self.spans.iter().map(|(from, to)| Range { feed: feed.to_owned(), from: *from, to: *to }).collect();
        let parts: Vec<Part> = vec![(origin.clone(), self.entries)];
        let (appender, appended) = (appender.clone(), Appended { messages: self.messages, spans: self.spans });
        let stop = stop.clone();
        async move {
            let durable = retry_append(&*appender, parts, ranges, stop).await.is_ok();
            drop(held);
            (appended, durable)
        }
    }
}
