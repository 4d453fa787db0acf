//! Sources: *read → ledger → acknowledge*, one file a protocol, the same shape for each.
//!
//! A source is started with a [`Listener`] and an [`Appender`](radarflow_proto::ports::Appender), and runs until its
//! [`Stop`] is told. What it cannot hand over it counts, and says so to the ledger, so that `in:sources` balances.

pub mod accept;
mod configurations;
mod control;
pub mod engine;
pub mod enrolled;
pub mod grpc;
pub mod inventory;
pub mod kafka;
pub mod nats;
pub mod otlp;
pub mod pull;
pub mod serviceradar;
pub mod stage;
pub mod subjects;
pub mod tcp;
pub mod tls;
pub mod udp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use backon::Retryable;
use bytes::Bytes;
use radarflow_proto::frame::{Entry, Kind, Origin, Range};
use radarflow_proto::offsets::Offsets;
use radarflow_proto::ports::{AppendError, Appender, Part};
use thiserror::Error;
use tokio::sync::watch;

use crate::retry;

/// Where a source listens and whom its input belongs to.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The address.
    pub addr: SocketAddr,
    /// Customer.
    pub tenant: String,
    /// Site; empty where the payload decides.
    pub partition: String,
}

/// Why a source cannot run.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Something else has the port, or the address is not ours.
    #[error("{what} cannot listen on {addr}: {source}; change it in the configuration, or stop what uses it")]
    Bind {
        /// Which source.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Its certificates cannot be used.
    #[error("{0}")]
    Tls(String),
}

/// Tells sources to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A way to tell, and what is told.
    pub fn new() -> (watch::Sender<bool>, Stop) {
        let (tell, told) = watch::channel(false);
        (tell, Stop(told))
    }

    /// Whether it was told.
    pub fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is told.
    pub async fn told(&mut self) {
        // An error means that nobody is left to tell: that is the end as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// What of feeds with offsets of their own is durable, as the ledger says at the start.
#[derive(Debug, Default)]
pub struct Durable(Mutex<BTreeMap<String, Offsets>>);

impl Durable {
    /// What the ledger says.
    pub fn new(offsets: BTreeMap<String, Offsets>) -> Self {
        Durable(Mutex::new(offsets))
    }

    /// What is durable of a feed.
    pub fn of(&self, feed: &str) -> Offsets {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(feed).cloned().unwrap_or_default()
    }

    /// A source that begins anew must not forget what it did before.
    pub fn learn(&self, feed: &str, offsets: Offsets) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(feed.to_owned(), offsets);
    }
}

/// Appends what can be asked for again, until the disk takes it. Told to end, it is content with one more refusal: the
/// broker has it still.
async fn retry_append(
    appender: &dyn Appender,
    parts: Vec<Part>,
    ranges: Vec<Range>,
    stop: Stop,
) -> Result<u64, AppendError> {
    (|| appender.append_all(parts.clone(), ranges.clone()))
        .retry(retry::LEDGER)
        .sleep(retry::until_told(&stop))
        .when(|error| matches!(error, AppendError::Storage(_)) && !stop.is_told())
        .await
}

/// Now, microseconds since 1970: the receipt of an input.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// The origin of a listener's inputs.
pub fn origin(kind: Kind, name: &str, listener: &Listener) -> Arc<Origin> {
    Arc::new(Origin {
        kind,
        tenant: listener.tenant.clone(),
        partition: listener.partition.clone(),
        feed: format!("{name}:{}", listener.addr),
    })
}

/// An entry received now.
pub fn entry(peer: Option<SocketAddr>, body: impl Into<Bytes>) -> Entry {
    Entry { peer, received_us: now_us(), body: body.into() }
}
