//! Kafka: partitions are assigned, not subscribed to, and read from where the ledger says.
//!
//! Offsets are written in the frame that bears the messages; the group's own are committed after it, at the start and at
//! the end, for tools that show lag, and never read. A topic that was deleted and made anew is a new feed. What the broker's retention took
//! before it was read is counted as lost. New partitions are looked for every [`LOOK_AGAIN`].
//!
//! How a broker wants to be talked to (TLS, SASL) is said in librdkafka's own settings. What is wrong with it, the
//! client tells whoever polls it, so the last of that is kept ([`LastError`]) to say why something failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use radarflow_proto::frame::{Entry, Kind, Origin, Range};
use radarflow_proto::offsets::Offsets;
use radarflow_proto::payload::FeedCounters;
use radarflow_proto::ports::{Appender, Part};
use radarflow_proto::room::{Held, Room};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use thiserror::Error;

use super::{Durable, Stop, entry, now_us, retry_append, subjects};
use crate::retry::{self, Pauses};

/// Messages of one append.
const BATCH: usize = 4096;
/// Bytes of one append, about.
const BATCH_BYTES: usize = 8 << 20;
/// Appends that may be under way, where there is memory for so many.
pub const OUTSTANDING: usize = 8;
/// Fetched messages that may wait in the client, and an answer that it fetches at once, KiB. One message is always taken.
const PREFETCH_KIB: usize = 4 << 10;
/// What a message takes beside its bytes once it is read.
const MESSAGE: usize = 2 * size_of::<Entry>() + 32;
/// What a client takes, bytes: what waits in it, and what it fetches.
pub const CLIENT_BYTES: usize = 2 * (PREFETCH_KIB << 10);
/// How often partitions are looked for.
pub const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a client that failed may take to say why.
const PATIENCE: Duration = Duration::from_secs(20);

/// Topics of one cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The topics.
    pub topics: Vec<String>,
    /// The consumer group under which progress is shown.
    pub group: String,
    /// Settings of librdkafka, as they are.
    pub properties: BTreeMap<String, String>,
    /// Customer.
    pub tenant: String,
    /// Site, where the payload names none.
    pub partition: String,
}

/// Why topics cannot be read.
#[derive(Debug, Error)]
pub enum KafkaError {
    /// A topic that nothing here decodes.
    #[error("kafka: nothing decodes the topic {0}; known are {known}", known = subjects::DEFAULT.join(", "))]
    Topic(String),
    /// The client's settings are wrong, or the broker refused or is away.
    #[error("kafka {brokers}: {failed}{}{told}", if told.is_empty() { "" } else { "; " })]
    Client {
        /// The cluster.
        brokers: String,
        /// What failed.
        failed: Box<rdkafka::error::KafkaError>,
        /// What the client said last.
        told: String,
    },
    /// A topic is not there.
    #[error("kafka {brokers}: there is no topic {topic} yet")]
    NoTopic {
        /// The cluster.
        brokers: String,
        /// The topic.
        topic: String,
    },
}

/// What the client says is wrong.
#[derive(Default)]
struct LastError(Mutex<String>);

impl LastError {
    fn said(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for LastError {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "kafka");
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        // That all brokers are down follows from what was said of each.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            reason.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl ConsumerContext for LastError {}

type Client = StreamConsumer<LastError>;

impl Config {
    fn failed(&self, client: &Client) -> impl Fn(rdkafka::error::KafkaError) -> KafkaError + use<> {
        let (brokers, context) = (self.brokers.clone(), client.context().clone());
        move |failed| KafkaError::Client { brokers: brokers.clone(), failed: failed.into(), told: context.said() }
    }

    fn consumer(&self) -> Result<Client, KafkaError> {
        if let Some(unknown) = self.topics.iter().find(|t| subjects::kind(t).is_none()) {
            return Err(KafkaError::Topic(unknown.clone()));
        }
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group)
            .set("client.id", "radarflow")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", PREFETCH_KIB.to_string())
            .set("fetch.max.bytes", (PREFETCH_KIB << 10).to_string());
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        let brokers = self.brokers.clone();
        let wrong =
            |e: rdkafka::error::KafkaError| KafkaError::Client { brokers, failed: e.into(), told: String::new() };
        client.create_with_context(LastError::default()).map_err(wrong)
    }
}

/// Whether the topics can be read, for `check-config`.
///
/// # Errors
/// [`KafkaError`] where the settings are refused, the cluster does not answer in time, or a topic is missing.
pub async fn check(config: &Config) -> Result<(), KafkaError> {
    let (consumer, config) = (Arc::new(config.consumer()?), config.clone());
    let client = consumer.clone();
    let mut looked = tokio::task::spawn_blocking(move || {
        let until = Instant::now() + PATIENCE;
        let look = || config.topics.iter().try_for_each(|topic| partitions(&config, &client, topic).map(drop));
        loop {
            match look() {
                // It connects only as long as it is asked, and may be about to say why it cannot.
                Err(KafkaError::Client { told, .. }) if told.is_empty() && Instant::now() < until => {}
                looked => return looked,
            }
        }
    });
    loop {
        tokio::select! {
            looked = &mut looked => return looked.unwrap_or(Ok(())),
            // Nothing is assigned: all it can have to say is what is wrong.
            _ = consumer.recv() => {}
        }
    }
}

/// A topic's partitions with their first offset and the one after the last.
fn partitions(config: &Config, consumer: &Client, topic: &str) -> Result<Vec<(i32, u64, u64)>, KafkaError> {
    let failed = config.failed(consumer);
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).map_err(&failed)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    let Some(found) = found.filter(|t| !t.partitions().is_empty()) else {
        return Err(KafkaError::NoTopic { brokers: config.brokers.clone(), topic: topic.to_owned() });
    };
    found
        .partitions()
        .iter()
        .map(|p| {
            let (low, high) = consumer.fetch_watermarks(topic, p.id(), ANSWER).map_err(&failed)?;
            Ok((p.id(), low.max(0) as u64, high.max(0) as u64))
        })
        .collect()
}

/// Topics that are being read.
pub struct KafkaSource(tokio::task::JoinHandle<()>);

impl KafkaSource {
    /// Waits until what was taken in is durable and committed; the [`Stop`] was told before.
    pub async fn join(self) {
        let _ = self.0.await;
    }
}

/// Starts reading. A cluster that is away is waited for.
///
/// # Errors
/// [`KafkaError`] where the settings are refused.
pub fn start(
    config: Config,
    appender: Arc<dyn Appender>,
    durable: Arc<Durable>,
    room: &Arc<Room>,
    stop: Stop,
) -> Result<KafkaSource, KafkaError> {
    let consumer = Arc::new(config.consumer()?);
    let held = room.hold_for(&config.tenant, &format!("kafka:{}", config.group));
    let reader = Reader { config: Arc::new(config), consumer, appender, durable, held, stop, feeds: BTreeMap::new() };
    Ok(KafkaSource(tokio::spawn(reader.run())))
}

/// What is known of a partition.
struct Feed {
    /// Its name in frames.
    name: String,
    /// What is durable or on its way.
    taken: Offsets,
    /// What is durable.
    durable: Offsets,
    /// The first offset there was.
    low: u64,
    /// The next offset.
    next: u64,
}

struct Reader {
    config: Arc<Config>,
    consumer: Arc<Client>,
    appender: Arc<dyn Appender>,
    durable: Arc<Durable>,
    /// Nothing, of the memory of feeds.
    held: Held,
    stop: Stop,
    feeds: BTreeMap<(String, i32), Feed>,
}

/// A partition and what of it became durable.
type Span = ((String, i32), (u64, u64));

impl Reader {
    async fn run(mut self) {
        let mut stop = self.stop.clone();
        let consumer = self.consumer.clone();
        let mut messages = consumer.stream().ready_chunks(BATCH);
        let mut appends = FuturesUnordered::new();
        let look = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(look);
        let (mut told, mut pauses, mut well) = (String::new(), Pauses::new(retry::BROKER), false);
        // What came, and the memory that it waits for.
        let (mut came, mut memory) = (None, self.held.another());
        loop {
            tokio::select! {
                biased;
                Some((spans, durable)) = appends.next(), if !appends.is_empty() => {
                    if !self.settle(spans, durable) {
                        return;
                    }
                }
                chunk = messages.next(), if came.is_none() && appends.len() < OUTSTANDING => {
                    let Some(chunk) = chunk else { break };
                    let bytes = chunk.iter().flatten().map(|message| MESSAGE + message.payload_len());
                    came = Some((bytes.sum::<usize>().min(memory.most()), chunk));
                }
                found = memory.wait(came.as_ref().map_or(0, |(bytes, _)| *bytes)), if came.is_some() => {
                    let (Ok(()), Some((_, chunk))) = (found, came.take()) else { continue };
                    let nothing = memory.another();
                    let held = Arc::new(std::mem::replace(&mut memory, nothing));
                    let mut batch = Batch::default();
                    for message in chunk {
                        match message {
                            Ok(message) => {
                                self.take(&message, &mut batch);
                                // A frame has a bound, and messages may be of any size.
                                if batch.bytes >= BATCH_BYTES {
                                    appends.push(self.append(std::mem::take(&mut batch), held.clone()));
                                }
                            }
                            // Who looks for partitions hears of it, too, and says it once.
                            Err(error) => tracing::debug!(%error, brokers = self.config.brokers, "kafka"),
                        }
                    }
                    if !batch.spans.is_empty() {
                        appends.push(self.append(batch, held));
                    }
                }
                () = &mut look => {
                    let before = self.feeds.len();
                    let next = match self.look().await {
                        Err(error) => {
                            let error = error.to_string();
                            if error != told {
                                tracing::warn!("{error}; trying again");
                                told = error;
                            }
                            well = false;
                            pauses.next()
                        }
                        Ok(()) => {
                            if self.feeds.len() != before || !well {
                                self.show_progress(CommitMode::Async);
                            }
                            well = true;
                            pauses.reset();
                            LOOK_AGAIN
                        }
                    };
                    look.as_mut().reset((Instant::now() + next).into());
                }
                () = stop.told() => break,
            }
        }
        while let Some((spans, durable)) = appends.next().await {
            if !self.settle(spans, durable) {
                break;
            }
        }
        drop(messages);
        // The broker may not answer; the end does not wait for it.
        let (done, left) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            self.show_progress(CommitMode::Sync);
            drop(consumer);
            drop(self);
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(ANSWER, left).await;
    }

    /// Shows the group how far each partition is.
    fn show_progress(&self, mode: CommitMode) {
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), feed) in &self.feeds {
            let next = Offset::Offset(feed.durable.next_after(feed.low) as i64);
            let _ = offsets.add_partition_offset(topic, *partition, next);
        }
        if let Err(error) = self.consumer.commit(&offsets, mode) {
            tracing::debug!(%error, "the group's offsets, which nothing depends on");
        }
    }

    /// Looks for partitions that are not read yet, and reads them.
    async fn look(&mut self) -> Result<(), KafkaError> {
        let mut missing = None;
        for topic in self.config.topics.clone() {
            let (config, consumer, name) = (self.config.clone(), self.consumer.clone(), topic.clone());
            let found = tokio::task::spawn_blocking(move || partitions(&config, &consumer, &name)).await;
            let found = match found.unwrap_or_else(|_| Ok(Vec::new())) {
                Ok(found) => found,
                Err(error @ KafkaError::NoTopic { .. }) => {
                    missing = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (mut assignment, mut feeds) = (TopicPartitionList::new(), Vec::new());
            for (partition, low, high) in found {
                let key = (topic.clone(), partition);
                if self.feeds.contains_key(&key) {
                    continue;
                }
                let (name, durable) = self.feed(&topic, partition, high);
                let next = durable.next_after(low);
                if !durable.is_empty() && durable.end() < low {
                    self.lost(&topic, low - durable.end());
                }
                let at = Offset::Offset(next as i64);
                assignment.add_partition_offset(&topic, partition, at).map_err(self.config.failed(&self.consumer))?;
                feeds.push((key, Feed { name, taken: durable.clone(), durable, low, next }));
            }
            if assignment.count() > 0 {
                self.consumer.incremental_assign(&assignment).map_err(self.config.failed(&self.consumer))?;
                self.feeds.extend(feeds);
            }
        }
        missing.map_or(Ok(()), Err)
    }

    /// A partition's name in frames, and what of it is durable. Offsets behind the end are of a topic that is gone.
    fn feed(&self, topic: &str, partition: i32, high: u64) -> (String, Offsets) {
        let mut made = 0u32;
        loop {
            let name = format!("kafka:{}/{topic}/{partition}/{made}", self.config.group);
            let durable = self.durable.of(&name);
            if durable.end() <= high {
                return (name, durable);
            }
            tracing::warn!(topic, partition, end = durable.end(), high, "the topic was made anew; reading all of it");
            made += 1;
        }
    }

    fn lost(&self, topic: &str, lost: u64) {
        tracing::warn!(topic, lost, "the broker's retention took messages that were not read yet");
        let origin = Arc::new(Origin { kind: Kind::Counters, ..(*self.origin(topic)).clone() });
        let body = serde_json::to_vec(&FeedCounters { shed: 0, kernel_drops: lost }).unwrap_or_default();
        if self.appender.offer(origin, vec![entry(None, body)]).is_err() {
            tracing::warn!(topic, "the loss could not be counted");
        }
    }

    fn origin(&self, topic: &str) -> Arc<Origin> {
        Arc::new(Origin {
            kind: subjects::kind(topic).unwrap_or(Kind::Gelf),
            tenant: self.config.tenant.clone(),
            partition: self.config.partition.clone(),
            feed: format!("kafka:{topic}"),
        })
    }

    fn take(&mut self, message: &rdkafka::message::BorrowedMessage<'_>, batch: &mut Batch) {
        let key = (message.topic().to_owned(), message.partition());
        let offset = message.offset().max(0) as u64;
        let Some(feed) = self.feeds.get_mut(&key) else { return };
        let from = feed.next.min(offset);
        feed.next = offset + 1;
        if feed.taken.contains(offset) {
            return;
        }
        feed.taken.insert(from, offset + 1);
        let received_us = message.timestamp().to_millis().filter(|ms| *ms > 0).map_or_else(now_us, |ms| ms * 1000);
        let body = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        batch.bytes += body.len();
        let received = Entry { peer: None, received_us: received_us.min(now_us()), body };
        batch.entries.entry(key.0.clone()).or_default().push(received);
        match batch.spans.iter_mut().rev().find(|(k, _)| *k == key) {
            Some((_, (_, end))) if *end == from => *end = offset + 1,
            _ => batch.spans.push((key, (from, offset + 1))),
        }
    }

    /// Appends a batch, for which memory is held.
    fn append(&self, batch: Batch, held: Arc<Held>) -> impl Future<Output = (Vec<Span>, bool)> + use<> {
        let parts: Vec<Part> = batch.entries.into_iter().map(|(topic, e)| (self.origin(&topic), e)).collect();
        let named = |key: &(String, i32)| self.feeds.get(key).map(|f| f.name.clone()).unwrap_or_default();
        let ranges = batch.spans.iter().map(|(k, (from, to))| Range { feed: named(k), from: *from, to: *to }).collect();
        let (appender, spans, stop) = (self.appender.clone(), batch.spans, self.stop.clone());
        async move {
            let durable = retry_append(&*appender, parts, ranges, stop).await.is_ok();
            drop(held);
            (spans, durable)
        }
    }

    /// Notes what is durable. `false`: the process is ending.
    fn settle(&mut self, spans: Vec<Span>, durable: bool) -> bool {
        if !durable {
            return false;
        }
        for (key, (from, to)) in spans {
            if let Some(feed) = self.feeds.get_mut(&key) {
                feed.durable.insert(from, to);
            }
        }
        self.show_progress(CommitMode::Async);
        true
    }
}

/// Messages that go into one frame.
#[derive(Default)]
struct Batch {
    entries: BTreeMap<String, Vec<Entry>>,
    spans: Vec<Span>,
    bytes: usize,
}
