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
//! 2xx is delivered. 429 honours `Retry-After`; 5xx, time-outs and network errors are retried with back-off and jitter, and so are
//! answers of a proxy or about a token, whose trouble heals (401, 403, 404, 407, 408, 425). Any other answer is a dead letter, and
//! so is what there is no room for ([`Outbox::refused`]): it is recorded, never dropped. A message of several requests goes on
//! where it stopped. A receiver that refuses or fails is in the log when that begins and ends, and in [`Outbox::failing`].
//!
//! Each request bears `Idempotency-Key`, `Radarflow-Reason`, and, where its receiver has a key for that, `Radarflow-Signature`:
//! `sha256=` and the HMAC-SHA256 of its body in hex.
//! Receivers do not wait for each other, and tenants do not wait for each other's receivers ([`lines`]); messages
//! of one group go in order, because at most one is due. Of an answer no more is read than is told of it, and no longer
//! than a second.

mod lines;
mod payloads;
mod receivers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use backon::Retryable;
use radarflow_proto::clock::Clock;
use radarflow_proto::fact::{Fact, ReceiverKind};
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::payload::DueNotification;
use radarflow_proto::ports::{AppendError, Appender, EpochOutput};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::lines::{
    ALL_BYTES, ATTEMPTS, IN_FLIGHT, LIFE, PER_RECEIVER, PER_TENANT, PROBES, RECEIVER_BYTES, TENANT_BYTES, TENANT_PROBES,
};
use self::lines::{Lines, Message};
use self::payloads::Call;
#[cfg(test)]
use self::payloads::alertmanager_payload;
use self::receivers::Http;
#[cfg(test)]
use self::receivers::MAX_ANSWER;
pub use self::receivers::{Post, Receivers, Reply};
use crate::mail::{MailError, Mailer};
use crate::reach::Reach;
use crate::sealing::{Keyring, context};
use crate::{retry, secret};

/// One attempt, all of it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest `Retry-After` that is honoured.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// After how long of failing a receiver is one that fails.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// For how long it is one after the last message that it did not take.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);
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
    /// Sends mail.
    mailer: OnceLock<Arc<Mailer>>,
}

#[derive(Default)]
struct State {
    lines: Lines,
    /// What became of messages, by their name. What is refused while the ledger is replayed may turn out to be settled.
    records: BTreeMap<String, Record>,
    /// Receivers that did not take what they were sent last, by tenant and name.
    troubles: BTreeMap<(String, String), Trouble>,
    going: bool,
    closed: bool,
}

/// Since when a receiver takes nothing.
struct Trouble {
    since: Instant,
    last: Instant,
    /// It refused something for good.
    refused: bool,
    detail: String,
}

/// A receiver that takes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Customer.
    pub tenant: String,
    /// The receiver.
    pub receiver: String,
    /// What it says, or why it says nothing.
    pub detail: String,
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
        reach: Reach,
    ) -> Result<Outbox, reqwest::Error> {
        Ok(Self::start_to(Arc::new(Http::new(reach)?), appender, clock, external_url))
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
            mailer: OnceLock::new(),
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

    /// The same, which sends mail.
    pub fn mailing(self, mailer: Arc<Mailer>) -> Outbox {
        // It is said once.
        let _ = self.shared.mailer.set(mailer);
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

    /// Receivers that refused something, or that have taken nothing for [`PATIENCE`].
    pub fn failing(&self) -> Vec<Failing> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.troubles.retain(|_, trouble| now < trouble.last + REMEMBERED);
        let fails = |trouble: &Trouble| trouble.refused || now >= trouble.since + PATIENCE;
        let failing = state.troubles.iter().filter(|(_, trouble)| fails(trouble));
        failing
            .map(|((tenant, receiver), trouble)| Failing {
                tenant: tenant.clone(),
                receiver: receiver.clone(),
                detail: trouble.detail.clone(),
            })
            .collect()
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
    /// A receiver did not take a message; said in the log once.
    fn trouble(&mut self, due: &DueNotification, refused: bool, detail: &str, now: Instant) {
        let key = (due.tenant.clone(), due.receiver.name.clone());
        let known = self.troubles.get(&key).map(|trouble| trouble.refused);
        if known.is_none() || (refused && known == Some(false)) {
            let (tenant, receiver) = &key;
            let what = if refused { "a receiver refuses what it is sent" } else { "a receiver takes nothing" };
            tracing::warn!(tenant, receiver, detail, "{what}");
        }
        let trouble =
            self.troubles.entry(key).or_insert(Trouble { since: now, last: now, refused, detail: String::new() });
        (trouble.last, trouble.refused) = (now, trouble.refused || refused);
        trouble.detail = detail.to_owned();
    }

    /// It took one.
    fn well(&mut self, due: &DueNotification) {
        if self.troubles.remove(&(due.tenant.clone(), due.receiver.name.clone())).is_some() {
            tracing::info!(tenant = due.tenant, receiver = due.receiver.name, "a receiver takes what it is sent again");
        }
    }

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
    async fn deliver(self, mut message: Message) {
        let answer = self.attempt(&mut message).await;
        let now = Instant::now();
        let mut state = self.shared.lock();
        let anew = state.lines.readdressed(&message);
        match (answer, anew) {
            // It goes to the address that it has now.
            (Answer::Again(..) | Answer::Dead(_), Some(due)) => {
                state.lines.answered(&message, now);
                for refused in state.lines.push(due, now) {
                    state.note(refused, false, "too much waits for its receiver".to_owned());
                }
            }
            (Answer::Again(asked, detail), None) => {
                state.trouble(&message.due, false, &detail, now);
                for dead in state.lines.failed(message, asked, now) {
                    state.note(dead, false, format!("gave up: {detail}"));
                }
            }
            (Answer::Delivered(detail), _) => {
                state.well(&message.due);
                state.lines.answered(&message, now);
                state.note(message, true, detail);
            }
            (Answer::Dead(detail), None) => {
                state.trouble(&message.due, true, &detail, now);
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

    /// A secret of a receiver that it may have.
    fn key(&self, due: &DueNotification, field: &str, text: Option<&String>) -> Result<Option<String>, String> {
        text.map(|text| self.secret(due, field, text).map_err(|error| format!("{field}: {error}"))).transpose()
    }

    async fn attempt(&self, message: &mut Message) -> Answer {
        let due = &message.due;
        let secrets = (|| {
            let url = self.secret(due, "target", &due.receiver.url)?;
            let credential = self.key(due, "credential", due.receiver.credential.as_ref())?;
            let signing = self.key(due, "signing_key", due.receiver.signing_key.as_ref())?;
            let header = |(name, value): (&String, &String)| {
                let value = self.secret(due, &format!("headers/{name}"), value);
                value.map(|value| (name.clone(), value)).map_err(|error| format!("header {name}: {error}"))
            };
            let headers = due.receiver.headers.iter().map(header).collect::<Result<Vec<_>, _>>()?;
            Ok((url, credential.unwrap_or_default(), signing, headers))
        })();
        let (url, credential, signing, headers) = match secrets {
            Ok(secrets) => secrets,
            Err(error) => return Answer::Again(None, error),
        };
        if due.receiver.kind == ReceiverKind::Email {
            return self.mail(message, &url).await;
        }
        let calls = match payloads::calls(due, &url, &credential, &self.external_url) {
            Ok(calls) => calls,
            Err(error) => return Answer::Dead(error),
        };
        let several = calls.len() > 1;
        let mut last = Answer::Delivered("nothing to tell".to_owned());
        for (nth, call) in calls.into_iter().enumerate().skip(message.done) {
            let key = if several { format!("{}/{nth}", due.id) } else { due.id.clone() };
            last = self.call(call, key, due, signing.as_deref(), &headers).await;
            // Each is about an alert of its own: one that is refused keeps no other back.
            match last {
                Answer::Again(..) => return last,
                Answer::Dead(ref detail) => message.refused = Some(detail.clone()),
                Answer::Delivered(_) => {}
            }
            message.done += 1;
        }
        match message.refused.take() {
            Some(detail) => Answer::Dead(detail),
            None => last,
        }
    }

    /// One request.
    async fn call(
        &self,
        Call { url, headers, body }: Call,
        key: String,
        due: &DueNotification,
        signing: Option<&str>,
        own: &[(String, String)],
    ) -> Answer {
        let mut headers: Vec<(String, String)> = headers.into_iter().chain(own.iter().cloned()).collect();
        headers.push(("Radarflow-Reason".to_owned(), due.reason.clone()));
        if let Some(signing) = signing {
            let bytes = serde_json::to_vec(&body).unwrap_or_default();
            let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, signing.as_bytes()), &bytes);
            headers.push(("Radarflow-Signature".to_owned(), format!("sha256={}", hex::encode(signature))));
        }
        let post = Post { url, of_host: due.receiver.of_host, key, headers, body };
        match tokio::time::timeout(TIMEOUT, self.receivers.post(post)).await {
            Ok(Reply::Answered { status: 200..300, said, .. }) => Answer::Delivered(said),
            Ok(Reply::Answered { status: 401 | 403 | 404 | 407 | 408 | 425 | 429 | 500.., said, retry_after }) => {
                Answer::Again(retry_after.map(|asked| asked.min(LONGEST_ASKED)), said)
            }
            Ok(Reply::Answered { said, .. } | Reply::Unusable(said)) => Answer::Dead(said),
            Ok(Reply::Unreachable(why)) => Answer::Again(None, why),
            Err(_) => Answer::Again(None, format!("no answer within {TIMEOUT:?}")),
        }
    }

    /// A message by mail, to each address that does not have it.
    async fn mail(&self, message: &mut Message, target: &str) -> Answer {
        let due = &message.due;
        let Some(mailer) = self.shared.mailer.get() else {
            return Answer::Again(None, "no mail is sent: [mail] is not configured".to_owned());
        };
        let to = target.strip_prefix("mailto:").unwrap_or(target);
        let (subject, text) = (payloads::title(due), payloads::text(due, &self.external_url));
        let mut later = None;
        for address in to.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            if message.mailed.iter().any(|mailed| mailed == address) {
                continue;
            }
            // One who is not reached does not keep the others from being told.
            match mailer.send(address, &subject, text.clone()).await {
                Ok(()) => {}
                // The target may be a secret that was meant for another kind of receiver: it is not told.
                Err(MailError::Address(..)) => message.refused = Some("the target is no address of mail".to_owned()),
                Err(error @ MailError::Message(_)) => message.refused = Some(error.to_string()),
                Err(MailError::Sending(error)) if error.is_permanent() => message.refused = Some(error.to_string()),
                Err(error) => {
                    later = Some(error.to_string());
                    continue;
                }
            }
            message.mailed.push(address.to_owned());
        }
        match (later, message.refused.clone()) {
            (Some(why), _) => Answer::Again(None, why),
            (None, Some(why)) => Answer::Dead(why),
            (None, None) => Answer::Delivered("mailed".to_owned()),
        }
    }
}
