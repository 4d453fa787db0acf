//! What each kind of receiver is sent: pure functions of a message.
//!
//! | kind | requests | of |
//! |---|---|---|
//! | `alertmanager` | one | Alertmanager's webhook, version 4, exactly |
//! | `alertmanager_api` | one | `POST /api/v2/alerts`; what burns ends [`AHEAD_MS`] ahead, and is said again well before |
//! | `serviceradar`, `slack`, `discord`, `teams` | one | the group, for people |
//! | `ocsf` | one | a list of Detection Findings (class 2004) |
//! | `template` | one | what the receiver's template makes |
//! | `pagerduty`, `opsgenie` | one an alert | an event under the alert's id, so that it is one incident from beginning to end |
//!
//! Every link leads to the alert's explanation.

use std::collections::BTreeMap;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::ReceiverKind;
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use radarflow_reconcile::notify::AHEAD_MS;
use radarflow_reconcile::template;
use serde_json::{Map, Value, json};

/// Alerts of a message that are told one by one to people; of the others how many there are.
const SHOWN: usize = 10;

/// A request to a receiver.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Value,
}

/// The requests of a message, in order, to a URL, with the key that the receiver knows us by.
pub(super) fn calls(
    due: &DueNotification,
    url: &str,
    credential: &str,
    external_url: &str,
) -> Result<Vec<Call>, String> {
    let one = |body| Ok(vec![Call { url: url.to_owned(), headers: Vec::new(), body }]);
    match due.receiver.kind {
        ReceiverKind::Alertmanager => one(alertmanager_payload(due, external_url)),
        ReceiverKind::AlertmanagerApi => {
            let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
            Ok(vec![Call { url, headers: Vec::new(), body: alertmanager_api(due, external_url) }])
        }
        ReceiverKind::Serviceradar => one(serviceradar(due)),
        ReceiverKind::Slack => one(slack(due, external_url)),
        ReceiverKind::Discord => one(discord(due, external_url)),
        ReceiverKind::Teams => one(teams(due, external_url)),
        ReceiverKind::Ocsf => one(Value::Array(due.alerts.iter().map(|alert| finding(due, alert)).collect())),
        ReceiverKind::Template => {
            let text = due.receiver.template.as_deref().unwrap_or_default();
            template::render(text, &template::context(due, external_url)).and_then(one)
        }
        ReceiverKind::Pagerduty => {
            let event = |alert| Call {
                url: url.to_owned(),
                headers: Vec::new(),
                body: pagerduty(alert, credential, external_url),
            };
            Ok(due.alerts.iter().map(event).collect())
        }
        ReceiverKind::Opsgenie => {
            Ok(due.alerts.iter().map(|alert| opsgenie(alert, url, credential, external_url)).collect())
        }
        ReceiverKind::Email => Err("mail goes another way".to_owned()),
    }
}

fn instant(ms: i64) -> String {
    Time::from_ms(ms).to_string()
}

/// Where an alert is explained.
fn link(external_url: &str, alert: &NotifiedAlert) -> String {
    format!("{}/api/v2/alerts/{}/explain", external_url.trim_end_matches('/'), alert.id)
}

fn labels(map: &BTreeMap<String, String>) -> Value {
    Value::Object(map.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect::<Map<_, _>>())
}

fn status(alert: &NotifiedAlert) -> &'static str {
    if alert.ends_at_ms.is_none() { "firing" } else { "resolved" }
}

fn group_status(due: &DueNotification) -> &'static str {
    if due.firing() { "firing" } else { "resolved" }
}

/// Text of at most so many characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

fn summary(alert: &NotifiedAlert) -> &str {
    let said = alert.annotations.get("summary").or_else(|| alert.labels.get("alertname"));
    said.map_or("", String::as_str)
}

fn description(alert: &NotifiedAlert) -> &str {
    alert.annotations.get("description").map_or("", String::as_str)
}

fn severity(alert: &NotifiedAlert) -> &str {
    alert.labels.get("severity").map_or("", String::as_str)
}

/// One line for a person: how it stands, how many, what.
pub(super) fn title(due: &DueNotification) -> String {
    let firing = due.alerts.iter().filter(|alert| alert.ends_at_ms.is_none()).count();
    let state = if firing > 0 { format!("FIRING:{firing}") } else { "RESOLVED".to_owned() };
    let what = match due.alerts.as_slice() {
        [one] => summary(one).to_owned(),
        many => {
            let of = common(many, |alert| &alert.labels).get("alertname").cloned().unwrap_or_default();
            format!("{} alerts {of}", many.len()).trim().to_owned()
        }
    };
    format!("[{state}] {what}")
}

/// A message as text.
pub(super) fn text(due: &DueNotification, external_url: &str) -> String {
    let mut out = String::new();
    for alert in &due.alerts {
        out.push_str(&format!("{}: {}\n", status(alert), summary(alert)));
        if !description(alert).is_empty() {
            out.push_str(&format!("  {}\n", description(alert)));
        }
        out.push_str(&format!("  since {}", instant(alert.starts_at_ms)));
        if let Some(ends) = alert.ends_at_ms {
            out.push_str(&format!(" until {}", instant(ends)));
        }
        out.push_str(&format!("\n  {}\n", link(external_url, alert)));
    }
    out.push_str(&format!(
        "\nTold because: {}. Receiver {}, group {}.\n",
        due.reason, due.receiver.name, due.group_key
    ));
    out
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
pub(super) fn alertmanager_payload(due: &DueNotification, external_url: &str) -> Value {
    let alerts: Vec<Value> = due
        .alerts
        .iter()
        .map(|a| {
            json!({
                "status": status(a),
                "labels": labels(&a.labels),
                "annotations": labels(&a.annotations),
                "startsAt": instant(a.starts_at_ms),
                "endsAt": a.ends_at_ms.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), instant),
                "generatorURL": link(external_url, a),
                "fingerprint": a.fingerprint,
            })
        })
        .collect();
    json!({
        "version": "4",
        "groupKey": due.group_key,
        "truncatedAlerts": 0,
        "status": group_status(due),
        "receiver": due.receiver.name,
        "groupLabels": labels(&due.group_labels),
        "commonLabels": labels(&common(&due.alerts, |a| &a.labels)),
        "commonAnnotations": labels(&common(&due.alerts, |a| &a.annotations)),
        "externalURL": external_url,
        "alerts": alerts,
    })
}

/// What Alertmanager's own API takes. It knows alerts by their labels: what burns again is not ended by what it was.
fn alertmanager_api(due: &DueNotification, external_url: &str) -> Value {
    let burns_again = |alert: &NotifiedAlert| {
        alert.ends_at_ms.is_some()
            && due.alerts.iter().any(|other| other.ends_at_ms.is_none() && other.labels == alert.labels)
    };
    let alerts = due.alerts.iter().filter(|alert| !burns_again(alert)).map(|a| {
        json!({
            "labels": labels(&a.labels),
            "annotations": labels(&a.annotations),
            "startsAt": instant(a.starts_at_ms),
            "endsAt": instant(a.ends_at_ms.unwrap_or(due.at_ms.saturating_add(AHEAD_MS))),
            "generatorURL": link(external_url, a),
        })
    });
    Value::Array(alerts.collect())
}

/// ServiceRadar's webhook payload: one message for the group.
fn serviceradar(due: &DueNotification) -> Value {
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
        "details": {"group": due.group_key, "receiver": due.receiver.name, "notification_reason": due.reason},
    })
}

/// Red where it burns and is critical, and so on down to green.
fn color(alert: &NotifiedAlert) -> u32 {
    match (alert.ends_at_ms, severity(alert)) {
        (Some(_), _) => 0x2e_b8_86,
        (None, "emergency" | "critical") => 0xd0_02_1b,
        (None, "warning") => 0xf5_a6_23,
        (None, _) => 0x43_9f_e0,
    }
}

/// How many are not shown, in words.
fn rest(due: &DueNotification) -> Option<String> {
    (due.alerts.len() > SHOWN).then(|| format!("and {} more", due.alerts.len() - SHOWN))
}

/// Slack's three characters that mean something.
fn mrkdwn(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn slack(due: &DueNotification, external_url: &str) -> Value {
    let shown = due.alerts.iter().take(SHOWN).map(|alert| {
        json!({
            "color": format!("#{:06x}", color(alert)),
            "fallback": mrkdwn(&cut(summary(alert), 300)),
            "title": mrkdwn(&cut(summary(alert), 300)),
            "title_link": link(external_url, alert),
            "text": mrkdwn(&cut(description(alert), 2000)),
            "footer": mrkdwn(&format!("{} · {}", status(alert), due.reason)),
            "ts": alert.ends_at_ms.unwrap_or(alert.starts_at_ms) / 1000,
        })
    });
    let more = rest(due).map(|more| json!({"text": more, "fallback": more}));
    json!({"text": mrkdwn(&cut(&title(due), 1000)), "attachments": shown.chain(more).collect::<Vec<_>>()})
}

fn discord(due: &DueNotification, external_url: &str) -> Value {
    let shown = due.alerts.iter().take(SHOWN).map(|alert| {
        json!({
            // Discord refuses a message whose embeds have more than 6,000 characters in all: ten of these have less.
            "title": cut(summary(alert), 160),
            "description": cut(description(alert), 340),
            "url": link(external_url, alert),
            "color": color(alert),
            "timestamp": instant(alert.ends_at_ms.unwrap_or(alert.starts_at_ms)),
            "footer": {"text": cut(&format!("{} · {}", status(alert), due.reason), 90)},
        })
    });
    let content = rest(due).map_or_else(|| title(due), |more| format!("{} ({more})", title(due)));
    // Whatever alerts say, nobody is called by it.
    json!({"content": cut(&content, 2000), "embeds": shown.collect::<Vec<_>>(), "allowed_mentions": {"parse": []}})
}

fn teams(due: &DueNotification, external_url: &str) -> Value {
    let block = |text: String, weight: &str| json!({"type": "TextBlock", "text": text, "weight": weight, "wrap": true});
    let mut body = vec![block(cut(&title(due), 500), "Bolder")];
    for alert in due.alerts.iter().take(SHOWN) {
        body.push(block(cut(&format!("{}: {}", status(alert), summary(alert)), 500), "Default"));
        let fact = |title: &str, value: String| json!({"title": title, "value": value});
        let mut facts = vec![fact("since", instant(alert.starts_at_ms))];
        facts.extend(alert.ends_at_ms.map(|ends| fact("until", instant(ends))));
        facts.extend((!severity(alert).is_empty()).then(|| fact("severity", severity(alert).to_owned())));
        facts.extend((!description(alert).is_empty()).then(|| fact("detail", cut(description(alert), 500))));
        body.push(json!({"type": "FactSet", "facts": facts}));
    }
    body.extend(rest(due).map(|more| block(more, "Default")));
    let actions: Vec<Value> = due
        .alerts
        .first()
        .map(|alert| json!({"type": "Action.OpenUrl", "title": "Why", "url": link(external_url, alert)}))
        .into_iter()
        .collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
                "actions": actions,
            },
        }],
    })
}

fn pagerduty(alert: &NotifiedAlert, routing_key: &str, external_url: &str) -> Value {
    if alert.ends_at_ms.is_some() {
        return json!({"routing_key": routing_key, "event_action": "resolve", "dedup_key": alert.id});
    }
    let severity = match severity(alert) {
        "emergency" | "critical" => "critical",
        "warning" => "warning",
        "info" => "info",
        _ => "error",
    };
    let of = |name: &str| alert.labels.get(name).cloned().unwrap_or_default();
    let source = Some(of("device")).filter(|device| !device.is_empty()).unwrap_or_else(|| of("source_id"));
    json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": alert.id,
        "payload": {
            "summary": cut(summary(alert), 1024),
            "source": if source.is_empty() { "radarflow".to_owned() } else { source },
            "severity": severity,
            "timestamp": instant(alert.starts_at_ms),
            "class": of("alertname"),
            "group": of("partition"),
            "custom_details": {"description": description(alert), "labels": labels(&alert.labels)},
        },
        "links": [{"href": link(external_url, alert), "text": "Why"}],
        "client": "Radarflow",
        "client_url": external_url,
    })
}

fn opsgenie(alert: &NotifiedAlert, url: &str, key: &str, external_url: &str) -> Call {
    let base = format!("{}/v2/alerts", url.trim_end_matches('/').trim_end_matches("/v2/alerts"));
    let headers = vec![("Authorization".to_owned(), format!("GenieKey {key}"))];
    if alert.ends_at_ms.is_some() {
        let url = format!("{base}/{}/close?identifierType=alias", alert.id);
        return Call { url, headers, body: json!({"source": "radarflow", "note": "its condition is over"}) };
    }
    let priority = match severity(alert) {
        "emergency" => "P1",
        "critical" => "P2",
        "warning" => "P3",
        _ => "P5",
    };
    let body = json!({
        "message": cut(summary(alert), 130),
        "alias": alert.id,
        "description": cut(&format!("{}\n{}", description(alert), link(external_url, alert)), 15_000),
        "details": labels(&alert.labels),
        "source": "radarflow",
        "entity": alert.labels.get("source_id").cloned().unwrap_or_default(),
        "priority": priority,
    });
    Call { url: base, headers, body }
}

/// OCSF 1.4: class 2004, Detection Finding.
fn finding(due: &DueNotification, alert: &NotifiedAlert) -> Value {
    let (activity_id, activity, status_id, status) = match alert.ends_at_ms {
        None => (1, "Create", 1, "New"),
        Some(_) => (3, "Close", 4, "Resolved"),
    };
    let (severity_id, severity) = match severity(alert) {
        "emergency" => (6, "Fatal"),
        "critical" => (5, "Critical"),
        "warning" => (3, "Medium"),
        _ => (1, "Informational"),
    };
    json!({
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "category_uid": 2,
        "category_name": "Findings",
        "activity_id": activity_id,
        "activity_name": activity,
        "type_uid": 200_400 + activity_id,
        "time": alert.ends_at_ms.unwrap_or(alert.starts_at_ms),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "message": summary(alert),
        "finding_info": {
            "uid": alert.id,
            "title": summary(alert),
            "desc": description(alert),
            "created_time": alert.starts_at_ms,
            "analytic": {"type_id": 1, "type": "Rule", "name": alert.labels.get("alertname")},
        },
        "metadata": {
            "version": "1.4.0",
            "uid": format!("{}/{}", due.id, alert.id),
            "product": {"name": "Radarflow", "vendor_name": "Radarflow"},
        },
        "unmapped": {"labels": labels(&alert.labels), "notification_reason": due.reason},
    })
}

#[cfg(test)]
mod tests {
    use radarflow_proto::fact::Receiver;

    use super::*;

    fn due(kind: ReceiverKind) -> DueNotification {
        let alert = |n: i64, ends| NotifiedAlert {
            id: format!("f{n}-1"),
            fingerprint: format!("f{n}"),
            labels: [("alertname", "device-offline"), ("severity", "critical"), ("device", "sw-<1>")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            annotations: [("summary".to_owned(), format!("sw-{n} is <offline> & @everyone"))].into(),
            starts_at_ms: 1_704_067_200_000,
            ends_at_ms: ends,
        };
        let mut receiver = Receiver::new("t", "ops", kind, "http://r/x");
        receiver.template = Some(r#"{"s": {{ status }}, "why": {{ reason }}, "n": {{ alerts|length }}}"#.to_owned());
        DueNotification {
            id: "ops-1".into(),
            tenant: "t".into(),
            receiver,
            group_key: "{}:{}".into(),
            group_labels: BTreeMap::new(),
            alerts: vec![alert(1, None), alert(2, Some(1_704_067_300_000))],
            reason: "group changed".into(),
            at_ms: 1_704_067_300_000,
        }
    }

    fn of(kind: ReceiverKind) -> Vec<Call> {
        calls(&due(kind), "http://r/x", "key", "https://radar").unwrap()
    }

    #[test]
    fn an_incident_is_one_from_beginning_to_end() {
        let [trigger, resolve] = <[Call; 2]>::try_from(of(ReceiverKind::Pagerduty)).unwrap();
        assert_eq!(trigger.body["event_action"], "trigger");
        assert_eq!((&trigger.body["routing_key"], &trigger.body["dedup_key"]), (&json!("key"), &json!("f1-1")));
        assert_eq!(trigger.body["payload"]["severity"], "critical");
        assert_eq!(resolve.body, json!({"routing_key": "key", "event_action": "resolve", "dedup_key": "f2-1"}));
        let [create, close] = <[Call; 2]>::try_from(of(ReceiverKind::Opsgenie)).unwrap();
        assert_eq!(create.headers, [("Authorization".to_owned(), "GenieKey key".to_owned())]);
        assert_eq!((create.body["alias"].as_str(), create.body["priority"].as_str()), (Some("f1-1"), Some("P2")));
        assert!(close.url.ends_with("/v2/alerts/f2-1/close?identifierType=alias"), "{}", close.url);
    }

    #[test]
    fn what_alerts_say_means_nothing_to_chats() {
        let [slack] = <[Call; 1]>::try_from(of(ReceiverKind::Slack)).unwrap();
        assert_eq!(slack.body["attachments"][0]["title"], "sw-1 is &lt;offline&gt; &amp; @everyone");
        let [discord] = <[Call; 1]>::try_from(of(ReceiverKind::Discord)).unwrap();
        assert_eq!(discord.body["allowed_mentions"], json!({"parse": []}));
        let [teams] = <[Call; 1]>::try_from(of(ReceiverKind::Teams)).unwrap();
        assert_eq!(teams.body["attachments"][0]["content"]["type"], "AdaptiveCard");
        let mut many = due(ReceiverKind::Discord);
        many.alerts = vec![many.alerts[0].clone(); 50];
        for alert in &mut many.alerts {
            alert.annotations = ["summary", "description"].map(|name| (name.to_owned(), "long ".repeat(1000))).into();
        }
        many.reason = "long ".repeat(1000);
        let body = &calls(&many, "", "", "").unwrap()[0].body;
        assert_eq!(body["embeds"].as_array().map(Vec::len), Some(10));
        assert!(body["content"].as_str().unwrap().contains("and 40 more"));
        let texts = |embed: &Value| {
            ["/title", "/description", "/footer/text"]
                .map(|of| embed.pointer(of).unwrap().as_str().unwrap().chars().count())
                .iter()
                .sum::<usize>()
        };
        assert!(body["embeds"].as_array().unwrap().iter().map(texts).sum::<usize>() <= 6000);
    }

    #[test]
    fn an_alertmanager_is_told_an_end_ahead_and_no_end_of_what_burns_again() {
        let [told] = <[Call; 1]>::try_from(of(ReceiverKind::AlertmanagerApi)).unwrap();
        assert_eq!(told.url, "http://r/x/api/v2/alerts");
        // Both have the same labels: one burns.
        assert_eq!(told.body.as_array().map(Vec::len), Some(1));
        assert_eq!(told.body[0]["endsAt"], instant(1_704_067_300_000 + AHEAD_MS));
    }

    #[test]
    fn findings_and_templates_say_how_it_stands() {
        let [findings] = <[Call; 1]>::try_from(of(ReceiverKind::Ocsf)).unwrap();
        let types: Vec<_> = findings.body.as_array().unwrap().iter().map(|f| f["type_uid"].as_i64().unwrap()).collect();
        assert_eq!(types, [200_401, 200_403]);
        let [made] = <[Call; 1]>::try_from(of(ReceiverKind::Template)).unwrap();
        assert_eq!(made.body, json!({"s": "firing", "why": "group changed", "n": 2}));
        assert!(text(&due(ReceiverKind::Email), "https://radar").contains("https://radar/api/v2/alerts/f1-1/explain"));
        assert_eq!(title(&due(ReceiverKind::Email)), "[FIRING:1] 2 alerts device-offline");
    }
}
