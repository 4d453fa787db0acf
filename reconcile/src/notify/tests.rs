use std::collections::BTreeMap;

use proptest::prelude::*;
use radarflow_proto::fact::{Receiver, ReceiverKind};

use super::*;
use crate::routing::Pace;

fn address(kind: ReceiverKind) -> Arc<Address> {
    Arc::new(Address {
        receiver: Receiver::new("t", "ops", kind, ""),
        pace: Pace { wait_ms: 30, interval_ms: 300, repeat_ms: 4000 },
        route: String::new(),
        group_key: "{}:{}".into(),
        labels: BTreeMap::new(),
    })
}

fn entry(id: &str, taken: bool, held: bool) -> Entry {
    let hold = held.then(|| Hold { why: "silenced by night".into(), until_ms: Some(99) });
    let alert = NotifiedAlert {
        id: id.into(),
        fingerprint: id.into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        starts_at_ms: 0,
        ends_at_ms: None,
    };
    Entry { address: address(ReceiverKind::Alertmanager), alert, taken, hold }
}

fn group() -> Group {
    Group::new(address(ReceiverKind::Alertmanager))
}

fn ids(due: Option<&DueNotification>) -> Vec<(String, bool)> {
    due.map(|d| d.alerts.iter().map(|a| (a.id.clone(), a.ends_at_ms.is_none())).collect()).unwrap_or_default()
}

fn deliver(group: &mut Group) {
    let id = group.pending().unwrap().id.clone();
    assert!(group.delivered("other").is_none() && group.delivered(&id).is_some());
}

fn states(group: &mut Group) -> Vec<(String, Option<&'static str>)> {
    let changes = group.notices();
    changes.into_iter().map(|(alert, _, now)| (alert.id, now.map(|n| n.state.name()))).collect()
}

#[test]
fn a_group_waits_then_paces_then_repeats() {
    let mut group = group();
    group.tell(&entry("a", false, false), false, 0);
    group.tell(&entry("b", false, false), false, 10);
    assert_eq!(group.due_ms(), Some(30));
    assert!(group.fire(29).is_none());
    assert_eq!(ids(group.fire(30)), [("a".into(), true), ("b".into(), true)]);
    group.over("a", false, 40);
    assert_eq!(group.due_ms(), None, "one message at a time");
    deliver(&mut group);
    assert_eq!(group.due_ms(), Some(330));
    assert_eq!(ids(group.fire(330)), [("a".into(), false), ("b".into(), true)]);
    deliver(&mut group);
    assert_eq!(group.due_ms(), Some(4330));
    assert_eq!(group.fire(4330).unwrap().reason, "repeat");
}

#[test]
fn what_came_and_went_untold_is_not_told() {
    let mut group = group();
    group.tell(&entry("a", false, false), false, 0);
    assert_eq!(states(&mut group), [("a".into(), Some("waiting"))]);
    group.over("a", false, 5);
    assert!(group.due_ms().is_none() && group.is_over());
    assert_eq!(states(&mut group), [("a".into(), None)]);
}

#[test]
fn what_is_held_is_not_told_and_is_not_over_and_its_end_is_told_at_once() {
    let mut group = group();
    group.tell(&entry("a", false, true), false, 0);
    assert_eq!((group.due_ms(), states(&mut group)), (None, vec![("a".into(), Some("held"))]));
    group.tell(&entry("a", false, false), false, 100);
    assert_eq!(ids(group.fire(130)), [("a".into(), true)]);
    assert_eq!(states(&mut group), [("a".into(), Some("sending"))]);
    deliver(&mut group);
    assert_eq!(states(&mut group), [("a".into(), Some("told"))]);
    // Held after it was told: neither over nor said again, however long.
    group.tell(&entry("a", false, true), false, 200);
    assert_eq!((group.due_ms(), states(&mut group)), (None, vec![("a".into(), Some("held"))]));
    group.over("a", false, 1000);
    assert_eq!(ids(group.fire(1000)), [("a".into(), false)]);
    assert_eq!(states(&mut group), [("a".into(), None)]);
    deliver(&mut group);
    assert!(group.is_over());
}

#[test]
fn what_somebody_took_is_not_repeated_and_its_end_is_told() {
    let mut group = group();
    group.tell(&entry("a", false, false), false, 0);
    group.tell(&entry("b", false, false), false, 0);
    group.fire(30);
    deliver(&mut group);
    group.tell(&entry("a", true, false), false, 50);
    assert_eq!(group.due_ms(), Some(4030));
    assert_eq!(ids(group.fire(4030)), [("b".into(), true)]);
    deliver(&mut group);
    group.tell(&entry("b", true, false), false, 4100);
    assert_eq!(group.due_ms(), None);
    group.over("a", false, 5000);
    assert_eq!(ids(group.fire(5000)), [("a".into(), false), ("b".into(), true)]);
}

#[test]
fn an_alertmanager_is_told_again_what_burns_held_or_not_and_news_do_not_wait_for_that() {
    let api = |id: &str, held| Entry { address: address(ReceiverKind::AlertmanagerApi), ..entry(id, true, held) };
    let mut group = Group::new(address(ReceiverKind::AlertmanagerApi));
    group.tell(&api("a", false), false, 0);
    group.fire(30);
    deliver(&mut group);
    group.tell(&api("a", true), false, 40);
    assert_eq!(group.due_ms(), Some(30 + REFRESH_MS));
    assert_eq!(group.fire(30 + REFRESH_MS).unwrap().reason, "still firing");
    deliver(&mut group);
    group.tell(&api("b", false), false, 31 + REFRESH_MS);
    assert_eq!(group.due_ms(), Some(31 + REFRESH_MS));
}

proptest! {
    /// Whatever happens in whatever order: when all is over and delivered, each alert told burning was told over
    /// afterwards, and nothing is remembered; what is held is never told to burn.
    #[test]
    fn sent_implies_resolved(steps in prop::collection::vec((0u8..7, 0u8..3, 1i64..500), 0..80)) {
        let mut group = group();
        let mut now = 0;
        let mut told: BTreeMap<String, bool> = BTreeMap::new();
        let mut held: BTreeMap<u8, bool> = BTreeMap::new();
        let mut rows: BTreeMap<String, Notice> = BTreeMap::new();
        let mut deliver = |group: &mut Group| if let Some(due) = group.pending().cloned() {
            for a in &due.alerts { told.insert(a.id.clone(), a.ends_at_ms.is_none()); }
            assert!(group.delivered(&due.id).is_some());
        };
        for (what, which, dt) in steps {
            now += dt;
            match what {
                0..=3 => {
                    held.insert(which, what == 1);
                    group.tell(&entry(&which.to_string(), what == 2, what == 1), false, now);
                }
                4 => group.over(&which.to_string(), false, now),
                5 => if let Some(due) = group.fire(now) {
                    let wrong = |a: &&NotifiedAlert| a.ends_at_ms.is_none() && held[&a.id.parse().unwrap()];
                    prop_assert!(due.alerts.iter().find(wrong).is_none());
                },
                _ => deliver(&mut group),
            }
            for (alert, before, after) in group.notices() {
                prop_assert_eq!(rows.get(&alert.id), before.as_ref());
                match after {
                    Some(notice) => rows.insert(alert.id, notice),
                    None => rows.remove(&alert.id),
                };
            }
            let said: BTreeMap<String, Notice> = group.said().map(|(a, n)| (a.id.clone(), n.clone())).collect();
            prop_assert_eq!(&said, &rows);
        }
        for which in 0..3 { group.over(&which.to_string(), false, now); }
        for _ in 0..8 {
            deliver(&mut group);
            if let Some(due) = group.due_ms() { now = now.max(due); group.fire(now); }
        }
        prop_assert!(group.is_over());
        prop_assert!(told.values().all(|firing| !firing), "{told:?}");
    }
}

#[test]
fn messages_of_two_groups_about_one_alert_have_names_of_their_own() {
    let ids = ["{}:{}", "{}/{a=\"b\"}:{}"].map(|key| {
        let address = Arc::new(Address { group_key: key.into(), ..Address::clone(&address(ReceiverKind::Slack)) });
        let mut group = Group::new(address.clone());
        group.tell(&Entry { address, ..entry("a", false, false) }, false, 0);
        group.fire(30).unwrap().id.clone()
    });
    assert_ne!(ids[0], ids[1]);
}

/// A message that did not arrive was not told: what burns is told again, and so is an end, in its order.
#[test]
fn what_did_not_arrive_is_told_again() {
    let mut group = group();
    group.tell(&entry("a", false, false), false, 0);
    let first = group.fire(30).unwrap().clone();
    group.delivered(&first.id).unwrap();
    group.lost(&first, 40);
    let due = group.due_ms().unwrap();
    let second = group.fire(due).unwrap().clone();
    assert!(second.firing() && second.alerts.len() == 1, "{second:?}");
    group.delivered(&second.id).unwrap();
    group.over("a", false, due + 1);
    let due = group.due_ms().unwrap();
    let end = group.fire(due).unwrap().clone();
    assert!(!end.firing());
    assert!(group.delivered(&end.id).is_some() && group.is_over());
    group.lost(&end, due + 1);
    let again = group.due_ms().unwrap();
    let again = group.fire(again).unwrap().clone();
    assert!(!again.firing() && again.alerts[0].ends_at_ms == end.alerts[0].ends_at_ms);
    group.delivered(&again.id).unwrap();
    assert!(group.is_over());
    // Not for ever.
    group.lost(&again, again.alerts[0].ends_at_ms.unwrap() + 8 * 86_400_000);
    assert!(group.is_over());
}

/// An Alertmanager is kept from forgetting what came from another group, held or not.
#[test]
fn what_another_group_told_an_alertmanager_is_said_again_here() {
    let address = address(ReceiverKind::AlertmanagerApi);
    let mut group = Group::new(address.clone());
    group.tell(&Entry { address, ..entry("a", false, true) }, true, 100);
    let due = group.due_ms().unwrap();
    assert_eq!(due, 100 + REFRESH_MS);
    assert_eq!(ids(group.fire(due)), [("a".into(), true)]);
}

/// An incident is not closed because its alert is told of in another group, and it is closed by whichever group has it last.
#[test]
fn what_goes_to_another_group_of_who_knows_alerts_is_ended_there() {
    for kind in ReceiverKind::ALL {
        let at = |key: &str| Arc::new(Address { group_key: key.into(), ..Address::clone(&address(kind)) });
        let (old, new) = (at("{}:{a}"), at("{}:{b}"));
        let told = |address: &Arc<Address>| Entry { address: address.clone(), ..entry("a", false, false) };
        let (mut from, mut to) = (Group::new(old.clone()), Group::new(new.clone()));
        from.tell(&told(&old), false, 0);
        from.fire(30).unwrap();
        deliver(&mut from);
        to.tell(&told(&new), true, 100);
        from.over("a", true, 100);
        assert_eq!(from.is_over(), kind.knows_alerts(), "{kind:?}");
        // Before it told anything itself.
        to.over("a", false, 110);
        let end = to.due_ms().and_then(|due| to.fire(due)).is_some_and(|due| !due.firing());
        assert_eq!(end, kind.knows_alerts(), "{kind:?}");
    }
}
