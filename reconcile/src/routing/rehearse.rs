//! Who would have been told of alerts of the past, and how often, had other routes, silences and times stood: the same desk and the
//! same groups, with messages that arrive at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Device;

use super::desk::{Burning, Desk, GroupName, Said};
use crate::notify::{Group, NoticeState, REFRESH};

/// Looks at the desk and at groups, all together: more is too much to ask.
pub const MAX_STEPS: u64 = 1_000_000;
/// Messages that are told of one by one; of more the number.
pub const MAX_MESSAGES: usize = 10_000;

/// What became of an alert at a time, milliseconds since 1970: in which form it burns, or that it is over.
#[derive(Clone, Debug)]
pub struct Change {
    /// When.
    pub at_ms: i64,
    /// Which alert.
    pub id: String,
    /// `None` where it is over.
    pub burning: Option<Burning>,
}

/// A message that there would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Who would have been told.
    pub receiver: String,
    /// In which group.
    pub group_key: String,
    /// Why then.
    pub reason: String,
    /// Of which alerts, and whether each burnt.
    pub alerts: Vec<(String, bool)>,
}

/// How often a receiver would have been told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Of these, such that tell that something burns.
    pub firing: u64,
    /// Alerts in them, each once.
    pub alerts: BTreeSet<String>,
}

/// What there would have been.
#[derive(Clone, Debug, Default)]
pub struct Rehearsed {
    /// The messages, in the order of their times; [`MAX_MESSAGES`] at most.
    pub messages: Vec<Message>,
    /// How often each receiver.
    pub receivers: BTreeMap<String, Tally>,
    /// Why nobody would have been told of an alert; nothing where no receiver is reached.
    pub untold: BTreeMap<String, Option<String>>,
    /// It was not gone through to the end: [`MAX_STEPS`].
    pub too_much: bool,
}

/// Groups and when each is due.
#[derive(Default)]
struct Groups {
    of: BTreeMap<GroupName, Group>,
    timers: BTreeSet<(i64, GroupName)>,
    due: BTreeMap<GroupName, i64>,
}

impl Groups {
    fn wind(&mut self, name: &GroupName) {
        if let Some(due) = self.due.remove(name) {
            self.timers.remove(&(due, name.clone()));
        }
        match self.of.get(name).map(|group| (group.is_over(), group.due_ms())) {
            Some((true, _)) => drop(self.of.remove(name)),
            Some((false, Some(due))) => {
                self.timers.insert((due, name.clone()));
                self.due.insert(name.clone(), due);
            }
            _ => {}
        }
    }
}

/// Goes through the changes, in the order of their times, until a time; tells what would have been told from a time on. Messages that
/// only keep an Alertmanager from forgetting are not counted.
pub fn rehearse(
    resources: &[Arc<Resource>],
    devices: impl IntoIterator<Item = Arc<Device>>,
    changes: Vec<Change>,
    (from_ms, to_ms): (i64, i64),
) -> Rehearsed {
    let mut desk = Desk::default();
    resources.iter().for_each(|resource| desk.resource(resource.clone(), true));
    devices.into_iter().for_each(|device| desk.device(device, true));
    let (mut groups, mut out, mut steps) = (Groups::default(), Rehearsed::default(), 0u64);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut changes = changes.into_iter().peekable();
    loop {
        let next =
            [changes.peek().map(|change| change.at_ms), desk.due_ms(), groups.timers.first().map(|(due, _)| *due)];
        let Some(now_ms) = next.into_iter().flatten().min().filter(|at| *at < to_ms) else { break };
        steps += 1;
        // The desk looks at its clock from the first alert on.
        while let Some(change) = changes.next_if(|change| change.at_ms <= now_ms) {
            if change.burning.is_some() && seen.insert(change.id.clone()) && change.at_ms >= from_ms {
                out.untold.insert(change.id.clone(), None);
            }
            desk.alert(&change.id, change.burning);
        }
        let mut touched = BTreeSet::new();
        for said in desk.turn(now_ms) {
            steps += 1;
            let name = match said {
                Said::Told(name, entry, elsewhere) => {
                    let group = groups.of.entry(name.clone()).or_insert_with(|| Group::new(entry.address.clone()));
                    group.tell(&entry, elsewhere, now_ms);
                    name
                }
                Said::Gone(name, id, elsewhere) => {
                    if let Some(group) = groups.of.get_mut(&name) {
                        group.over(&id, elsewhere, now_ms);
                    }
                    name
                }
                Said::OnCall(..) => continue,
            };
            touched.insert(name);
        }
        touched.extend(groups.timers.iter().take_while(|(due, _)| *due <= now_ms).map(|(_, name)| name.clone()));
        for name in touched {
            steps += 1;
            let Some(group) = groups.of.get_mut(&name) else { continue };
            let message = group.fire(now_ms).map(|due| {
                let alerts = due.alerts.iter().map(|alert| (alert.id.clone(), alert.ends_at_ms.is_none())).collect();
                let (receiver, group_key) = (due.receiver.name.clone(), due.group_key.clone());
                steps += due.alerts.len() as u64;
                (due.id.clone(), Message { at_ms: now_ms, receiver, group_key, reason: due.reason.clone(), alerts })
            });
            if let Some((id, message)) = message {
                group.delivered(&id);
                out.told(message, from_ms);
            }
            for (alert, _, after) in group.notices() {
                let held = after.filter(|notice| notice.state == NoticeState::Held);
                if let (Some(held), Some(why)) = (held, out.untold.get_mut(&alert.id)) {
                    why.get_or_insert(held.reason);
                }
            }
            groups.wind(&name);
        }
        if steps >= MAX_STEPS {
            out.too_much = true;
            break;
        }
    }
    out
}

impl Rehearsed {
    fn told(&mut self, message: Message, from_ms: i64) {
        if message.reason == REFRESH || message.at_ms < from_ms {
            return;
        }
        let tally = self.receivers.entry(message.receiver.clone()).or_default();
        tally.messages += 1;
        tally.firing += u64::from(message.alerts.iter().any(|(_, burns)| *burns));
        for (id, _) in &message.alerts {
            self.untold.remove(id);
            if !tally.alerts.contains(id) {
                tally.alerts.insert(id.clone());
            }
        }
        if self.messages.len() < MAX_MESSAGES {
            self.messages.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::payload::NotifiedAlert;
    use radarflow_proto::resource::{Fields, Shown};
    use serde_json::{Value, json};

    use super::*;

    const T0: i64 = 1_767_571_200_000;
    const MINUTE: i64 = 60_000;

    fn resource(kind: &str, id: &str, fields: &Value) -> Arc<Resource> {
        let fields: Fields = fields.as_object().unwrap().clone().into_iter().collect();
        Arc::new(Resource {
            resource: kind.into(),
            tenant: "t".into(),
            id: id.into(),
            fields: Shown(fields),
            secrets: [("target".to_owned(), "http://r".to_owned())].into(),
            owner: String::new(),
            created_us: 0,
            created_by: "ann".into(),
            updated_us: 0,
            updated_by: String::new(),
            epoch: 0,
        })
    }

    fn change(minutes: i64, id: &str, burns: bool) -> Change {
        let alert = NotifiedAlert {
            id: id.into(),
            fingerprint: id.into(),
            labels: [("alertname".to_owned(), "link".to_owned()), ("id".to_owned(), id.to_owned())].into(),
            annotations: BTreeMap::new(),
            starts_at_ms: T0 + minutes * MINUTE,
            ends_at_ms: None,
        };
        let burning =
            Burning { alert, partition: "default".into(), device_uid: None, suppressed: None, taken: false, level: 0 };
        Change { at_ms: T0 + minutes * MINUTE, id: id.into(), burning: burns.then_some(burning) }
    }

    #[test]
    fn messages_of_a_day_are_those_that_the_tree_and_its_silences_would_have_made() {
        let receiver = json!({"kind": "alertmanager", "group_by": ["alertname"], "group_wait_ms": 30_000,
            "group_interval_ms": 5 * MINUTE, "repeat_interval_ms": 240 * MINUTE, "send_resolved": true});
        let standing = [
            resource("receivers", "ops", &receiver),
            resource("receivers", "pager", &receiver),
            resource(
                "routes",
                "all",
                &json!({"receivers": ["ops"], "group_by": ["alertname"], "repeat_interval_ms": 240 * MINUTE}),
            ),
        ];
        // One that burns for five hours, one that comes to it and goes, and one from the day before.
        let happened = || {
            vec![
                change(-1500, "old", true),
                change(0, "a", true),
                change(10, "b", true),
                change(20, "b", false),
                change(300, "a", false),
                change(301, "old", false),
            ]
        };
        let day = (T0, T0 + 1440 * MINUTE);
        let told = rehearse(&standing, [], happened(), day);
        let ops = &told.receivers["ops"];
        // a; b; b is over; repeated every four hours since; a is over, old is over.
        assert_eq!(ops.alerts.len(), 3, "{:?}", told.messages);
        assert_eq!((told.receivers.len(), told.untold.len(), told.too_much), (1, 0, false));
        let whys: Vec<&str> = told.messages.iter().map(|message| message.reason.as_str()).collect();
        assert!(whys.contains(&"repeat") && whys.contains(&"group changed"), "{whys:?}");
        assert!(told.messages.windows(2).all(|two| two[1].at_ms - two[0].at_ms >= 5 * MINUTE), "{:?}", told.messages);
        assert_eq!(told.messages.last().map(|message| message.alerts.iter().any(|(_, burns)| *burns)), Some(false));
        // A silence over it: nobody is told of b, and it is said why.
        let silence = json!({"matchers": ["id=b"], "starts_at": T0 * 1000, "ends_at": (T0 + 60 * MINUTE) * 1000});
        let with = [&standing[..], &[resource("silences", "quiet", &silence)]].concat();
        let silenced = rehearse(&with, [], happened(), day);
        assert_eq!(silenced.untold, BTreeMap::from([("b".to_owned(), Some("silenced by quiet of ann".to_owned()))]));
        assert!(silenced.receivers["ops"].messages < ops.messages);
    }
}
