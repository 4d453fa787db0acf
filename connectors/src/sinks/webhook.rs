//! Webhooks: the outbox of due notifications.
//!
//! *Due* notifications come out of the dataflow, *delivered* and *failed* go back in as facts, and the outbox is their
//! difference: it needs no storage of its own. A message whose delivery was not yet recorded when the process died goes
//! again, under the same `Idempotency-Key`.
//!
//! 2xx is delivered. 429 honours `Retry-After`; 5xx, time-outs and network errors are retried with back-off and jitter.
//! Any other answer is a dead letter. Receivers do not wait for each other; messages of one group go in order, because
//! at most one is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Fact, ReceiverKind};
use radarflow_proto::frame::{Kind, Origin};
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use radarflow_proto::ports::{EpochOutput, FactSink};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::sources::entry;
use crate::{http, secret};

/// Messages under way at once.
pub const IN_FLIGHT: usize = 64;
/// Attempts at one message before it is a dead letter.
pub const ATTEMPTS: u32 = 60;
const QUEUE: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Bytes of a receiver's answer that are kept.
const MAX_ANSWER: usize = 256;

/// The way in.
pub struct Outbox {
    messages: mpsc::Sender<Message>,
}

enum Message {
    Epoch(Vec<DueNotification>, Vec<String>),
    Go,
}

impl Outbox {
    /// Starts the outbox. Nothing is sent until [`Outbox::go`]: while the ledger is replayed, what is due may turn out
    /// to be delivered already.
    pub fn start(sink: Arc<dyn FactSink>, external_url: String) -> Result<Outbox, reqwest::Error> {
        let client = http::client(|client| client.timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()))?;
        let (messages, queue) = mpsc::channel(QUEUE);
        let sender =
            Sender { client, sink, external_url: external_url.into(), room: Arc::new(Semaphore::new(IN_FLIGHT)) };
        tokio::spawn(run(sender, queue));
        Ok(Outbox { messages })
    }

    /// Takes an epoch.
    pub fn take(&self, output: &EpochOutput) {
        self.apply_blocking(output);
    }

    /// The ledger is caught up: send.
    pub fn go(&self) {
        self.go_blocking();
    }

    /// Takes an epoch.
    pub fn apply_blocking(&self, output: &EpochOutput) {
        if !output.due.is_empty() || !output.settled.is_empty() {
            let _ = self.messages.blocking_send(Message::Epoch(output.due.clone(), output.settled.clone()));
        }
    }

    /// The ledger is caught up: send.
    pub fn go_blocking(&self) {
        let _ = self.messages.blocking_send(Message::Go);
    }
}

#[derive(Clone)]
struct Sender {
    client: reqwest::Client,
    sink: Arc<dyn FactSink>,
    external_url: Arc<str>,
    room: Arc<Semaphore>,
}

async fn run(sender: Sender, mut queue: mpsc::Receiver<Message>) {
    let mut held: BTreeMap<String, DueNotification> = BTreeMap::new();
    let mut going = false;
    while let Some(message) = queue.recv().await {
        match message {
            Message::Epoch(due, settled) => {
                for id in settled {
                    held.remove(&id);
                }
                for due in due {
                    if going {
                        sender.spawn(due);
                    } else {
                        held.insert(due.id.clone(), due);
                    }
                }
            }
            Message::Go => {
                going = true;
                std::mem::take(&mut held).into_values().for_each(|due| sender.spawn(due));
            }
        }
    }
}

enum Answer {
    Delivered(String),
    Again(Option<Duration>, String),
    Dead(String),
}

impl Sender {
    fn spawn(&self, due: DueNotification) {
        let sender = self.clone();
        tokio::spawn(async move { sender.deliver(due).await });
    }

    async fn deliver(&self, due: DueNotification) {
        let mut wait = FIRST_WAIT;
        let mut attempt = 0;
        let (delivered, detail) = loop {
            attempt += 1;
            let answer = {
                let Ok(_room) = self.room.acquire().await else { return };
                self.attempt(&due).await
            };
            match answer {
                Answer::Delivered(detail) => break (true, detail),
                Answer::Dead(detail) => break (false, detail),
                Answer::Again(_, detail) if attempt >= ATTEMPTS => break (false, format!("gave up: {detail}")),
                Answer::Again(asked, detail) => {
                    tracing::debug!(receiver = due.receiver.name, %detail, attempt, "notification not taken; again");
                    let jitter = Duration::from_millis(rand::random_range(0..=wait.as_millis() as u64 / 4));
                    tokio::time::sleep(asked.unwrap_or(wait) + jitter).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        };
        if !delivered {
            tracing::warn!(receiver = due.receiver.name, id = due.id, %detail, "notification is a dead letter");
        }
        let fact = Fact::Delivery {
            tenant: due.tenant.clone(),
            receiver: due.receiver.name.clone(),
            group_key: due.group_key.clone(),
            notification_id: due.id.clone(),
            delivered,
            detail,
        };
        let origin = Arc::new(Origin {
            kind: Kind::Fact,
            tenant: due.tenant.clone(),
            partition: String::new(),
            feed: "outbox".to_owned(),
        });
        let body = serde_json::to_vec(&fact).unwrap_or_default();
        while self.sink.append(origin.clone(), vec![entry(None, body.clone())]).await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn attempt(&self, due: &DueNotification) -> Answer {
        let url = match secret::resolve(&due.receiver.url) {
            Ok(url) => url,
            Err(error) => return Answer::Again(None, error.to_string()),
        };
        let (url, body) = match due.receiver.kind {
            ReceiverKind::Alertmanager => (url, alertmanager_payload(due, &self.external_url)),
            ReceiverKind::AlertmanagerApi => (
                format!("{}/api/v2/alerts", url.trim_end_matches('/')),
                alertmanager_api_payload(due, &self.external_url),
            ),
            ReceiverKind::Serviceradar => (url, serviceradar_payload(due)),
        };
        let mut request = self.client.post(url).header("Idempotency-Key", &due.id).json(&body);
        for (name, value) in &due.receiver.headers {
            match secret::resolve(value) {
                Ok(value) => request = request.header(name, value),
                Err(error) => return Answer::Again(None, format!("header {name}: {error}")),
            }
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Answer::Dead(error.to_string()),
            Err(error) => return Answer::Again(None, error.without_url().to_string()),
        };
        let status = response.status();
        let retry_after = response
            .headers()
            .get("Retry-After")
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .map(|s: u64| Duration::from_secs(s.min(3600)));
        let text: String = response.text().await.unwrap_or_default().chars().take(MAX_ANSWER).collect();
        let detail = format!("{status} {text}").trim().to_owned();
        match status.as_u16() {
            200..300 => Answer::Delivered(detail),
            429 | 500.. => Answer::Again(retry_after, detail),
            _ => Answer::Dead(detail),
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

#[cfg(test)]
mod tests {
    use super::*;
    use radarflow_proto::fact::Receiver;

    #[test]
    fn the_payload_is_alertmanagers_to_the_letter() {
        let alert = |id: &str, ends: Option<i64>| NotifiedAlert {
            id: id.into(),
            fingerprint: format!("f{id}"),
            labels: BTreeMap::from([("alertname".into(), "x".into()), ("id".into(), id.into())]),
            annotations: BTreeMap::new(),
            starts_at_ms: 1_704_067_200_000,
            ends_at_ms: ends,
        };
        let due = DueNotification {
            id: "n".into(),
            tenant: "t".into(),
            receiver: Receiver {
                tenant: "t".into(),
                name: "ops".into(),
                url: String::new(),
                kind: ReceiverKind::Alertmanager,
                group_by: vec![],
                group_wait_ms: 0,
                group_interval_ms: 0,
                repeat_interval_ms: 0,
                send_resolved: true,
                headers: BTreeMap::new(),
            },
            group_key: "{}:{}".into(),
            group_labels: BTreeMap::new(),
            alerts: vec![alert("1", None), alert("2", Some(1_704_067_201_500))],
            reason: String::new(),
        };
        let expected = r#"{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"firing","receiver":"ops",
            "groupLabels":{},"commonLabels":{"alertname":"x"},"commonAnnotations":{},"externalURL":"http://r","alerts":[
            {"status":"firing","labels":{"alertname":"x","id":"1"},"annotations":{},"startsAt":"2024-01-01T00:00:00Z",
             "endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://r/alerts/1","fingerprint":"f1"},
            {"status":"resolved","labels":{"alertname":"x","id":"2"},"annotations":{},"startsAt":"2024-01-01T00:00:00Z",
             "endsAt":"2024-01-01T00:00:01.500Z","generatorURL":"http://r/alerts/2","fingerprint":"f2"}]}"#;
        assert_eq!(alertmanager_payload(&due, "http://r"), serde_json::from_str::<Value>(expected).unwrap());
    }
}
