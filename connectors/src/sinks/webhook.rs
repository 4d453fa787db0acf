//! Webhooks: the outbox of due notifications.
//!
//! ```text
//! take(epoch) ─► lines (bounded, by tenant and receiver) ─► places ─► receivers
//!                   │ no room                                  │ delivered, dead
//!                   └───────────► records ◄────────────────────┘ ─► ledger
//! ```
//! *Due* notifications come out of the dataflow, *delivered* and *failed* go back in as facts, and the outbox is their
//! difference: it needs no storage of its own. A message whose delivery was not yet recorded when the process died goes
//! again, under the same `Idempotency-Key`.
//!
//! 2xx is delivered. 429 honours `Retry-After`; 5xx, time-outs and network errors are retried with back-off and jitter.
//! Any other answer is a dead letter, and so is what there is no room for ([`Outbox::refused`]): it is recorded, never
//! dropped. Receivers do not wait for each other, and tenants do not wait for each other's receivers ([`lines`]); messages
//! of one group go in order, because at most one is due. Of an answer no more is read than is told of it, and no longer
//! than a second.

mod lines;
mod receivers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use backon::Retryable;
use radarflow_proto::cell::Time;
use radarflow_proto::clock::Clock;
use radarflow_proto::fact::{Fact, ReceiverKind};
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use radarflow_proto::ports::{AppendError, Appender, EpochOutput};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::lines::{
    ALL_BYTES, ATTEMPTS, IN_FLIGHT, LIFE, PER_RECEIVER, PER_TENANT, PROBES, RECEIVER_BYTES, TENANT_BYTES, TENANT_PROBES,
};
use self::lines::{Lines, Message};
use self::receivers::Http;
#[cfg(test)]
use self::receivers::MAX_ANSWER;
pub use self::receivers::{Post, Receivers, Reply};
use crate::sealing::{Keyring, context};
use crate::{retry, secret};

/// One attempt, all of it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest `Retry-After` that is honoured.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// Records made durable at once.
const RECORDS: usize = 256;
/// Records that may wait for the ledger; beyond it nothing is sent.
const RECORDS_WAITING: usize = 4096;

/// The way in.
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something may be sent.
    send: Notify,
    /// Something is to be recorded.
    record: Notify,
    refused: Arc<AtomicU64>,
    /// Opens what is sealed.
    keys: OnceLock<Arc<Keyring>>,
}

#[derive(Default)]
struct State {
    lines: Lines,
    /// What became of messages, by their name. What is refused while the ledger is replayed may turn out to be settled.
    records: BTreeMap<String, Record>,
    going: bool,
    closed: bool,
}

/// What became of a message.
struct Record {
    tenant: String,
    receiver: String,
    group_key: String,
    delivered: bool,
    detail: String,
}

impl Outbox {
    /// Starts the outbox. Nothing is sent until [`Outbox::go`]: while the ledger is replayed, what is due may turn out
    /// to be delivered already. What is recorded bears the time of `clock`.
    ///
    /// # Errors
    /// There can be no HTTP client.
    pub fn start(
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        external_url: String,
    ) -> Result<Outbox, reqwest::Error> {
        Ok(Self::start_to(Arc::new(Http::new()?), appender, clock, external_url))
    }

    /// The same to any receivers.
    pub fn start_to(
        receivers: Arc<dyn Receivers>,
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        external_url: String,
    ) -> Outbox {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            send: Notify::new(),
            record: Notify::new(),
            refused: Arc::default(),
            keys: OnceLock::new(),
        });
        let sender = Sender { receivers, external_url: external_url.into(), shared: shared.clone() };
        tokio::spawn(sender.run());
        tokio::spawn(record(shared.clone(), appender, clock));
        Outbox { shared }
    }

    /// The same, which opens what receivers have sealed.
    pub fn unsealing(self, keys: Arc<Keyring>) -> Outbox {
        // It is said once.
        let _ = self.shared.keys.set(keys);
        self
    }

    /// The same, in which so many bytes may wait.
    pub fn within(self, bytes: usize) -> Outbox {
        self.shared.lock().lines.most = bytes;
        self
    }

    /// Takes an epoch. It waits for nobody.
    pub fn take(&self, output: &EpochOutput) {
        if output.due.is_empty() && output.settled.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut state = self.shared.lock();
        // What is settled later was settled by what is recorded here.
        if !state.going {
            for id in &output.settled {
                state.lines.settled(id);
                state.records.remove(id);
            }
        }
        let mut refused = 0;
        for due in &output.due {
            for message in state.lines.push(due.clone(), now) {
                refused += 1;
                state.note(message, false, "too much waits for its receiver".to_owned());
            }
        }
        drop(state);
        if refused > 0 {
            self.shared.refused.fetch_add(refused, Ordering::Relaxed);
            tracing::warn!(refused, "too much waits to be sent: the newest notifications are dead letters");
        }
        self.shared.send.notify_one();
        self.shared.record.notify_one();
    }

    /// The ledger is caught up: send.
    pub fn go(&self) {
        self.shared.lock().going = true;
        self.shared.send.notify_one();
        self.shared.record.notify_one();
    }

    /// Messages that there was no room for.
    pub fn refused(&self) -> &Arc<AtomicU64> {
        &self.shared.refused
    }

    /// Bytes of messages that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.lock().lines.bytes()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.send.notify_one();
        self.shared.record.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, message: Message, delivered: bool, detail: String) {
        let due = message.due;
        if !delivered {
            tracing::debug!(receiver = due.receiver.name, id = due.id, %detail, "notification is a dead letter");
        }
        let record =
            Record { tenant: due.tenant, receiver: due.receiver.name, group_key: due.group_key, delivered, detail };
        self.records.insert(due.id, record);
    }
}

/// Makes durable what became of messages, many at once.
async fn record(shared: Arc<Shared>, appender: Arc<dyn Appender>, clock: Arc<dyn Clock>) {
    loop {
        let records: Vec<(String, Record)> = {
            let mut state = shared.lock();
            let going = state.going;
            let some = std::iter::from_fn(|| state.records.pop_first()).take(if going { RECORDS } else { 0 });
            some.collect()
        };
        if records.is_empty() {
            if shared.lock().closed {
                return;
            }
            shared.record.notified().await;
            continue;
        }
        let mut by_tenant: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (notification_id, record) in records {
            let Record { tenant, receiver, group_key, delivered, detail } = record;
            let of = by_tenant.entry(tenant.clone()).or_default();
            let fact = Fact::Delivery { tenant, receiver, group_key, notification_id, delivered, detail };
            let body = serde_json::to_vec(&fact).unwrap_or_default().into();
            of.push(Entry { peer: None, received_us: clock.wall_ms() * 1000, body });
        }
        let part = |(tenant, entries): (String, Vec<Entry>)| {
            let origin = Origin { kind: Kind::Fact, tenant, partition: String::new(), feed: "outbox".to_owned() };
            (Arc::new(origin), entries)
        };
        let parts: Vec<_> = by_tenant.into_iter().map(part).collect();
        let recorded = (|| appender.append_all(parts.clone(), Vec::new()))
            .retry(retry::LEDGER)
            .when(|error| *error != AppendError::Closed && !shared.lock().closed);
        if recorded.await.is_err() {
            // What is not recorded is due again after the next start.
            return;
        }
        // There may be room for records again.
        shared.send.notify_one();
    }
}

#[derive(Clone)]
struct Sender {
    receivers: Arc<dyn Receivers>,
    external_url: Arc<str>,
    shared: Arc<Shared>,
}

enum Answer {
    Delivered(String),
    Again(Option<Duration>, String),
    Dead(String),
}

impl Sender {
    async fn run(self) {
        loop {
            let wakes = {
                let mut state = self.shared.lock();
                if state.closed {
                    return;
                }
                let now = Instant::now();
                while state.going && state.records.len() < RECORDS_WAITING {
                    let Some(message) = state.lines.next(now) else { break };
                    let sender = self.clone();
                    tokio::spawn(async move { sender.deliver(message).await });
                }
                state.lines.wakes(now)
            };
            let wakes = wakes.map_or(LONGEST_ASKED, |at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = self.shared.send.notified() => {}
                () = tokio::time::sleep(wakes) => {}
            }
        }
    }

    /// One attempt.
    async fn deliver(self, message: Message) {
        let answer = self.attempt(&message.due).await;
        let now = Instant::now();
        let mut state = self.shared.lock();
        match answer {
            Answer::Again(asked, detail) => {
                for dead in state.lines.failed(message, asked, now) {
                    state.note(dead, false, format!("gave up: {detail}"));
                }
            }
            Answer::Delivered(detail) => {
                state.lines.answered(&message, now);
                state.note(message, true, detail);
            }
            Answer::Dead(detail) => {
                state.lines.answered(&message, now);
                state.note(message, false, detail);
            }
        }
        drop(state);
        self.shared.send.notify_one();
        self.shared.record.notify_one();
    }

    /// What a text of a receiver stands for: what is sealed in it, or what the host keeps.
    fn secret(&self, due: &DueNotification, field: &str, text: &str) -> Result<String, String> {
        if !Keyring::is_sealed(text) {
            return secret::resolve(text).map_err(|error| error.to_string());
        }
        let Some(keys) = self.shared.keys.get() else { return Err("there are no keys to open it with".to_owned()) };
        let of = context(&due.receiver.tenant, "receivers", &due.receiver.name, field);
        keys.unseal(&of, text).map_err(|error| error.to_string())
    }

    async fn attempt(&self, due: &DueNotification) -> Answer {
        let url = match self.secret(due, "target", &due.receiver.url) {
            Ok(url) => url,
            Err(error) => return Answer::Again(None, error),
        };
        let (url, body) = match due.receiver.kind {
            ReceiverKind::Alertmanager => (url, alertmanager_payload(due, &self.external_url)),
            ReceiverKind::AlertmanagerApi => (
                format!("{}/api/v2/alerts", url.trim_end_matches('/')),
                alertmanager_api_payload(due, &self.external_url),
            ),
            ReceiverKind::Serviceradar => (url, serviceradar_payload(due)),
        };
        let mut headers = Vec::new();
        for (name, value) in &due.receiver.headers {
            match self.secret(due, &format!("headers/{name}"), value) {
                Ok(value) => headers.push((name.clone(), value)),
                Err(error) => return Answer::Again(None, format!("header {name}: {error}")),
            }
        }
        let post = self.receivers.post(Post { url, key: due.id.clone(), headers, body });
        match tokio::time::timeout(TIMEOUT, post).await {
            Ok(Reply::Answered { status: 200..300, said, .. }) => Answer::Delivered(said),
            Ok(Reply::Answered { status: 429 | 500.., said, retry_after }) => {
                Answer::Again(retry_after.map(|asked| asked.min(LONGEST_ASKED)), said)
            }
            Ok(Reply::Answered { said, .. } | Reply::Unusable(said)) => Answer::Dead(said),
            Ok(Reply::Unreachable(why)) => Answer::Again(None, why),
            Err(_) => Answer::Again(None, format!("no answer within {TIMEOUT:?}")),
        }
    }
}

fn instant(ms: i64) -> String {
    Time::from_ms(ms).to_string()
}

fn labels(map: &BTreeMap<String, String>) -> Value {
    Value::Object(map.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect::<Map<_, _>>())
}

/// The pairs that all alerts share.
fn common(
    alerts: &[NotifiedAlert],
    of: impl Fn(&NotifiedAlert) -> &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let Some(first) = alerts.first() else { return BTreeMap::new() };
    let shared = of(first).iter().filter(|(k, v)| alerts.iter().all(|a| of(a).get(*k) == Some(*v)));
    shared.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Alertmanager's webhook payload, version 4.
pub fn alertmanager_payload(due: &DueNotification, external_url: &str) -> Value {
    let alerts: Vec<Value> = due
        .alerts
        .iter()
        .map(|a| {
            json!({
                "status": if a.ends_at_ms.is_none() { "firing" } else { "resolved" },
                "labels": labels(&a.labels),
                "annotations": labels(&a.annotations),
                "startsAt": instant(a.starts_at_ms),
                "endsAt": a.ends_at_ms.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), instant),
                "generatorURL": format!("{external_url}/alerts/{}", a.id),
                "fingerprint": a.fingerprint,
            })
        })
        .collect();
    json!({
        "version": "4",
        "groupKey": due.group_key,
        "truncatedAlerts": 0,
        "status": if due.firing() { "firing" } else { "resolved" },
        "receiver": due.receiver.name,
        "groupLabels": labels(&due.group_labels),
        "commonLabels": labels(&common(&due.alerts, |a| &a.labels)),
        "commonAnnotations": labels(&common(&due.alerts, |a| &a.annotations)),
        "externalURL": external_url,
        "alerts": alerts,
    })
}

/// What Alertmanager's own API takes. A firing alert says no end; Alertmanager gives it one by its resolve time-out,
/// which `repeat_interval` must beat.
fn alertmanager_api_payload(due: &DueNotification, external_url: &str) -> Value {
    let alerts = due.alerts.iter().map(|a| {
        let mut alert = json!({
            "labels": labels(&a.labels),
            "annotations": labels(&a.annotations),
            "startsAt": instant(a.starts_at_ms),
            "generatorURL": format!("{external_url}/alerts/{}", a.id),
        });
        if let (Some(ends), Some(object)) = (a.ends_at_ms, alert.as_object_mut()) {
            object.insert("endsAt".to_owned(), Value::String(instant(ends)));
        }
        alert
    });
    Value::Array(alerts.collect())
}

/// ServiceRadar's webhook payload: one message for the group.
fn serviceradar_payload(due: &DueNotification) -> Value {
    let title = match due.alerts.as_slice() {
        [one] => one.annotations.get("summary").cloned().unwrap_or_default(),
        many => format!("{} alerts", many.len()),
    };
    let level = if due.firing() { "error" } else { "info" };
    let message: Vec<&str> =
        due.alerts.iter().filter_map(|a| a.annotations.get("summary")).map(String::as_str).collect();
    json!({
        "level": level,
        "title": title,
        "message": message.join("\n"),
        "timestamp": due.alerts.iter().map(|a| a.ends_at_ms.unwrap_or(a.starts_at_ms)).max().map(instant),
        "gateway_id": "radarflow",
        "service_name": due.group_labels.get("alertname").cloned().unwrap_or_default(),
        "details": {"group": due.group_key, "receiver": due.receiver.name},
    })
}
