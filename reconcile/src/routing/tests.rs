//! A desk against a plain evaluation that shares no code with it: of everything that stands, at every step of a random history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use radarflow_proto::payload::NotifiedAlert;
use radarflow_proto::resource::{Resource, Shown};
use radarflow_proto::rows::Device;
use serde_json::{Value, json};

use super::*;

/// 2026-01-05, a Monday, 11:59:30.
const T0: i64 = 1_767_614_370_000;

fn resource(kind: &str, id: &str, fields: &Value, secrets: &[(&str, &str)]) -> Arc<Resource> {
    Arc::new(Resource {
        resource: kind.to_owned(),
        tenant: "t".to_owned(),
        id: id.to_owned(),
        fields: Shown(fields.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
        secrets: secrets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        owner: String::new(),
        created_us: 0,
        created_by: "ann".to_owned(),
        updated_us: 0,
        updated_by: "ann".to_owned(),
        epoch: 1,
    })
}

fn receiver(id: &str) -> Arc<Resource> {
    let fields = json!({"kind": "alertmanager", "group_by": ["alertname"], "send_resolved": true});
    resource("receivers", id, &fields, &[("target", "http://x")])
}

/// Alerts by number: a name, a site and a severity each.
fn labels_of(n: u8) -> [(&'static str, &'static str); 4] {
    let pick = |bit: u8, of: [&'static str; 2]| of[usize::from(n >> bit & 1)];
    [
        ("alertname", pick(0, ["router", "device"])),
        ("partition", pick(1, ["berlin", "paris"])),
        ("severity", pick(2, ["critical", "warning"])),
        ("source_id", ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"][usize::from(n)]),
    ]
}

fn burning(n: u8, suppressed: bool) -> Burning {
    Burning {
        alert: NotifiedAlert {
            id: format!("a{n}"),
            fingerprint: format!("a{n}"),
            labels: labels_of(n).map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            annotations: BTreeMap::new(),
            starts_at_ms: 0,
            ends_at_ms: None,
        },
        partition: labels_of(n)[1].1.to_owned(),
        device_uid: None,
        suppressed: suppressed.then(|| Hold { why: "suppressed by ann".into(), until_ms: None }),
        taken: false,
        level: 0,
    }
}

/// What a label must be, as it is written and as it is meant.
#[derive(Clone, Copy, Debug)]
struct Must {
    label: usize,
    words: [usize; 2],
    is: bool,
    how: u8,
}

const WORDS: [&str; 6] = ["router", "device", "berlin", "paris", "critical", "warning"];

impl Must {
    fn written(self) -> String {
        let name = labels_of(0)[self.label].0;
        let [a, b] = self.words.map(|word| WORDS[word]);
        match (self.how, self.is) {
            (0, true) => format!("{name}={a}"),
            (0, false) => format!("{name}!=\"{a}\""),
            (1, true) => format!("{name}=~\"{a}|{b}\""),
            (1, false) => format!("{name}!~{a}|{b}"),
            (_, true) => format!("{name}=~\"{}.*\"", &a[..3]),
            (_, false) => format!("{name}!~\"{}.*\"", &a[..3]),
        }
    }

    fn holds(self, alert: u8) -> bool {
        let value = labels_of(alert)[self.label].1;
        let [a, b] = self.words.map(|word| WORDS[word]);
        let like = match self.how {
            0 => value == a,
            1 => value == a || value == b,
            _ => value.starts_with(&a[..3]),
        };
        like == self.is
    }
}

fn must() -> impl Strategy<Value = Must> {
    (0usize..3, [0usize..6, 0usize..6], any::<bool>(), 0u8..3).prop_map(|(label, words, is, how)| Must {
        label,
        words,
        is,
        how,
    })
}

#[derive(Clone, Debug)]
enum Thing {
    /// A node: above (0 is the first), what must be, a receiver, whether it goes on, whether it is muted at noon.
    Route(usize, Must, Option<u8>, bool, bool),
    Silence(Must, i64, i64),
    Inhibition(Must, Must),
    Window(&'static str, i64, i64),
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        (0usize..3, must(), prop::option::of(0u8..3), any::<bool>(), any::<bool>())
            .prop_map(|(above, must, receiver, goes_on, muted)| Thing::Route(above, must, receiver, goes_on, muted)),
        (must(), -50i64..100, 1i64..100).prop_map(|(must, from, long)| Thing::Silence(must, from, from + long)),
        (must(), must()).prop_map(|(source, target)| Thing::Inhibition(source, target)),
        (prop::sample::select(vec!["berlin", "paris"]), -50i64..100, 1i64..100)
            .prop_map(|(site, from, long)| Thing::Window(site, from, from + long)),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Alert(u8, Option<bool>),
    Thing(usize, Option<Thing>),
    Receiver(u8, bool),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..8, prop::option::weighted(0.7, any::<bool>())).prop_map(|(n, burns)| Step::Alert(n, burns)),
        3 => (0usize..6, prop::option::weighted(0.8, thing())).prop_map(|(n, thing)| Step::Thing(n, thing)),
        1 => (0u8..3, any::<bool>()).prop_map(|(n, is)| Step::Receiver(n, is)),
        2 => (1i64..40).prop_map(Step::Wait),
    ]
}

/// Seconds from the beginning, as instants are written.
fn us(seconds: i64) -> i64 {
    (T0 + seconds * 1000) * 1000
}

fn written(slot: usize, thing: &Thing) -> Arc<Resource> {
    let id = format!("x{slot}");
    match thing {
        Thing::Route(above, must, receiver, goes_on, muted) => {
            // Only what comes before is above: there is no circle.
            let parent = if *above < slot { format!("x{above}") } else { "first".to_owned() };
            let mute: &[&str] = if *muted { &["noon"] } else { &[] };
            let fields = json!({"parent": parent, "position": slot, "matchers": [must.written()],
                "receivers": receiver.map(|n| format!("r{n}")).into_iter().collect::<Vec<_>>(), "continue": goes_on, "mute_time_intervals": mute});
            resource("routes", &id, &fields, &[])
        }
        Thing::Silence(must, from, to) => {
            let fields = json!({"matchers": [must.written()], "starts_at": us(*from), "ends_at": us(*to)});
            resource("silences", &id, &fields, &[])
        }
        Thing::Inhibition(source, target) => {
            let fields = json!({"source_matchers": [source.written()], "target_matchers": [target.written()],
                "equal": ["partition"]});
            resource("inhibit_rules", &id, &fields, &[])
        }
        Thing::Window(site, from, to) => {
            let fields = json!({"partitions": [site], "starts_at": us(*from), "ends_at": us(*to)});
            resource("maintenance_windows", &id, &fields, &[])
        }
    }
}

/// All that stands, plainly.
#[derive(Default)]
struct World {
    alerts: BTreeMap<u8, bool>,
    things: BTreeMap<usize, Thing>,
    receivers: BTreeSet<u8>,
    seconds: i64,
}

impl World {
    fn is(&self, from: i64, to: i64) -> bool {
        from <= self.seconds && self.seconds < to
    }

    /// The nodes that take an alert, below one; each with the receiver that it has of those above.
    fn leaves(
        &self,
        above: Option<usize>,
        receiver: u8,
        alert: u8,
        out: &mut Vec<(String, u8, bool)>,
        path: &str,
    ) -> bool {
        let mut any = false;
        for (slot, thing) in &self.things {
            let Thing::Route(up, must, own, goes_on, muted) = thing else { continue };
            let up = if up < slot { Some(*up) } else { None };
            if up != above || !must.holds(alert) {
                continue;
            }
            any = true;
            let (own, path) = (own.unwrap_or(receiver), format!("{path}/x{slot}"));
            if !self.leaves(Some(*slot), own, alert, out, &path) {
                out.push((path, own, *muted));
            }
            if !goes_on {
                break;
            }
        }
        any
    }

    /// Of each alert and receiver and route whether it is held.
    fn told(&self) -> BTreeMap<(u8, String, String), bool> {
        let mut told = BTreeMap::new();
        for (alert, suppressed) in &self.alerts {
            let mut leaves = Vec::new();
            if !self.leaves(None, 0, *alert, &mut leaves, "first") {
                leaves.push(("first".to_owned(), 0, false));
            }
            let held = |thing: &Thing| match thing {
                Thing::Silence(must, from, to) => self.is(*from, *to) && must.holds(*alert),
                Thing::Window(site, from, to) => self.is(*from, *to) && labels_of(*alert)[1].1 == *site,
                Thing::Inhibition(source, target) => {
                    target.holds(*alert)
                        && self.alerts.keys().any(|other| {
                            source.holds(*other)
                                && labels_of(*other)[1] == labels_of(*alert)[1]
                                && !(source.holds(*alert) && target.holds(*other))
                        })
                }
                Thing::Route(..) => false,
            };
            let held = *suppressed || self.things.values().any(held);
            // Noon is the minute from 12:00 on: from the thirtieth to the ninetieth second.
            let noon = (30..90).contains(&self.seconds);
            for (path, receiver, muted) in leaves {
                if self.receivers.contains(&receiver) {
                    told.insert((*alert, format!("r{receiver}"), path), held || (muted && noon));
                }
            }
        }
        told
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_desk_says_what_a_plain_evaluation_says(steps in prop::collection::vec(step(), 1..60)) {
        let (mut desk, mut world) = (Desk::default(), World::default());
        let first = json!({"receivers": ["r0"], "group_by": ["alertname"]});
        desk.resource(resource("routes", "first", &first, &[]), true);
        let noon = json!({"periods": ["times=12:00-12:01"]});
        desk.resource(resource("time_intervals", "noon", &noon, &[]), true);
        let mut said: BTreeMap<(GroupName, String), Arc<Entry>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Alert(n, Some(suppressed)) => {
                    world.alerts.insert(n, suppressed);
                    desk.alert(&format!("a{n}"), Some(burning(n, suppressed)));
                }
                Step::Alert(n, None) => {
                    world.alerts.remove(&n);
                    desk.alert(&format!("a{n}"), None);
                }
                Step::Thing(slot, thing) => {
                    if let Some(old) = world.things.remove(&slot) {
                        desk.resource(written(slot, &old), false);
                    }
                    if let Some(thing) = thing {
                        desk.resource(written(slot, &thing), true);
                        world.things.insert(slot, thing);
                    }
                }
                Step::Receiver(n, is) => {
                    if is { world.receivers.insert(n); } else { world.receivers.remove(&n); }
                    desk.resource(receiver(&format!("r{n}")), is);
                }
                Step::Wait(seconds) => world.seconds += seconds,
            }
            let now_ms = T0 + world.seconds * 1000;
            for word in desk.turn(now_ms) {
                match word {
                    Said::Told(name, entry, left) => {
                        let before = said.insert((name, entry.alert.id.clone()), entry.clone());
                        prop_assert!(left || before != Some(entry), "only what is otherwise is said");
                    }
                    Said::Gone(name, id, _) => prop_assert!(said.remove(&(name, id)).is_some()),
                    Said::OnCall(..) => prop_assert!(false, "there is no rota"),
                }
            }
            prop_assert!(desk.due_ms().is_none_or(|due| due > now_ms));
            let expected = world.told();
            let found: BTreeMap<(u8, String, String), bool> = said
                .iter()
                .map(|((name, id), entry)| {
                    let alert = id[1..].parse().unwrap();
                    ((alert, name.receiver.clone(), entry.address.route.clone()), entry.hold.is_some())
                })
                .collect();
            // Two nodes that ask for the same and tell the same receiver are one group.
            let same = |(alert, receiver, path): &(u8, String, String)| {
                found.keys().any(|(a, r, p)| a == alert && r == receiver && p != path)
            };
            for (key, held) in &expected {
                match found.get(key) {
                    Some(is) => prop_assert_eq!(is, held, "{:?}", key),
                    None => prop_assert!(same(key), "{:?} is not told", key),
                }
            }
            for key in found.keys() {
                prop_assert!(expected.contains_key(key), "{:?} is told", key);
            }
        }
    }
}

#[test]
fn without_routes_every_receiver_is_told_by_its_own_groups() {
    let mut desk = Desk::default();
    desk.resource(receiver("a"), true);
    desk.resource(receiver("b"), true);
    desk.alert("a1", Some(burning(1, false)));
    let keys: Vec<String> = desk
        .turn(T0)
        .into_iter()
        .map(|said| match said {
            Said::Told(name, ..) => name.group,
            Said::Gone(..) | Said::OnCall(..) => panic!("nothing was told before"),
        })
        .collect();
    let key = |name: &str| format!("{{}}/{{receiver=\"{name}\"}}:{{alertname=\"device\"}}");
    assert_eq!(keys, [key("a"), key("b")]);
}

#[test]
fn what_no_route_takes_goes_to_the_receivers_that_no_route_names() {
    let mut desk = Desk::default();
    for id in ["pager", "ops", "audit"] {
        desk.resource(receiver(id), true);
    }
    let goes = |desk: &mut Desk| -> Vec<String> {
        let told = desk.turn(T0).into_iter().map(|said| match said {
            Said::Told(name, entry, _) => format!("{} by {:?}", name.receiver, entry.address.route),
            Said::Gone(name, ..) => format!("-{}", name.receiver),
            Said::OnCall(..) => "on call".to_owned(),
        });
        told.collect()
    };
    desk.alert("a1", Some(burning(1, false)));
    assert_eq!(goes(&mut desk).len(), 3);
    // The first route takes what it is about, from all others; and its receiver gets nothing else.
    let route = json!({"receivers": ["pager"], "matchers": ["alertname=\"nothing-like-it\""]});
    let narrow = resource("routes", "narrow", &route, &[]);
    desk.resource(narrow.clone(), true);
    assert_eq!(goes(&mut desk), ["-pager"]);
    desk.resource(narrow, false);
    desk.resource(resource("routes", "all", &json!({"receivers": ["pager"], "matchers": []}), &[]), true);
    let told = goes(&mut desk);
    assert_eq!(told.iter().filter(|said| said.starts_with("pager")).count(), 1, "{told:?}");
    assert!(told.contains(&"-ops".to_owned()) && told.contains(&"-audit".to_owned()), "{told:?}");
}

#[test]
fn what_moves_within_a_receiver_is_said_to_move() {
    let mut desk = Desk::default();
    desk.resource(receiver("ops"), true);
    desk.alert("a1", Some(burning(1, false)));
    assert!(matches!(desk.turn(T0).as_slice(), [Said::Told(_, _, false)]));
    let all = resource("routes", "all", &json!({"receivers": ["ops"], "group_by": ["partition"]}), &[]);
    desk.resource(all.clone(), true);
    assert!(matches!(desk.turn(T0).as_slice(), [Said::Gone(_, _, true), Said::Told(_, _, true)]));
    desk.alert("a1", None);
    assert!(matches!(desk.turn(T0).as_slice(), [Said::Gone(_, _, false)]));
}

#[test]
fn an_escalated_alert_goes_where_escalated_ones_go_and_its_group_stays() {
    let mut desk = Desk::default();
    for id in ["team", "boss"] {
        desk.resource(receiver(id), true);
    }
    let route = |id: &str, parent: Option<&str>, receiver: &str, matchers: &[&str]| {
        let fields = json!({"parent": parent, "receivers": [receiver], "matchers": matchers, "continue": true});
        resource("routes", id, &fields, &[])
    };
    desk.resource(route("root", None, "team", &[]), true);
    desk.resource(route("up", Some("root"), "boss", &["escalation=~\"[1-9]\""]), true);
    desk.resource(route("ops", Some("root"), "team", &[]), true);
    desk.alert("a1", Some(burning(1, false)));
    let receivers = |said: Vec<Said>| -> Vec<String> {
        let told = said.into_iter().map(|said| match said {
            Said::Told(name, entry, _) => {
                assert!(!entry.alert.labels.contains_key("escalation"), "what is told of it is as it was");
                name.receiver
            }
            Said::Gone(name, ..) => format!("-{}", name.receiver),
            Said::OnCall(..) => "on call".to_owned(),
        });
        told.collect()
    };
    assert_eq!(receivers(desk.turn(T0)), ["team"]);
    desk.alert("a1", Some(Burning { level: 1, ..burning(1, false) }));
    assert_eq!(receivers(desk.turn(T0)), ["boss"]);
}

#[test]
fn maintenance_follows_what_a_device_is() {
    let mut desk = Desk::default();
    desk.resource(receiver("r0"), true);
    let window = json!({"condition": "hostname:sw-*", "ends_at": us(100), "time_intervals": []});
    desk.resource(resource("maintenance_windows", "firmware", &window, &[]), true);
    let device = |hostname: &str| {
        let (uid, partition, hostname) = ("sr:1".to_owned(), "berlin".to_owned(), Some(hostname.to_owned()));
        Arc::new(Device { uid, partition, hostname, ..crate::condition::tests::device() })
    };
    desk.alert("a0", Some(Burning { device_uid: Some("sr:1".to_owned()), ..burning(0, false) }));
    let held = |desk: &mut Desk, now_ms: i64| match desk.turn(now_ms).pop() {
        Some(Said::Told(_, entry, _)) => entry.hold.clone().map(|hold| (hold.why, hold.until_ms)),
        other => panic!("{other:?}"),
    };
    assert_eq!(held(&mut desk, T0), None, "there is no such device");
    desk.device(device("sw-1"), true);
    assert_eq!(held(&mut desk, T0), Some(("maintenance: firmware".to_owned(), Some(T0 + 100_000))));
    desk.device(device("sw-1"), false);
    desk.device(device("ap-1"), true);
    assert_eq!(held(&mut desk, T0), None);
    desk.device(device("sw-2"), true);
    assert!(held(&mut desk, T0).is_some());
    // The clock ends it.
    assert_eq!(desk.due_ms(), Some(T0 + 100_000));
    assert_eq!(held(&mut desk, T0 + 100_000), None);
}

/// Ann and bob in turn, a day each, from noon of T0's day on.
fn rota(fields: &Value) -> Arc<Resource> {
    let mut said = json!({"people": ["ann", "bob=bob-mail"], "shift": "1d", "starts_at": us(30), "time_zone": "UTC"});
    said.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    resource("rotas", "net", &said, &[])
}

/// Who is told an alert, and what holds it back there.
fn told(said: Vec<Said>) -> Vec<(String, Option<String>)> {
    let told = said.into_iter().filter_map(|said| match said {
        Said::Told(name, entry, _) => Some((name.receiver, entry.hold.clone().map(|hold| hold.why))),
        Said::Gone(name, ..) => Some((format!("-{}", name.receiver), None)),
        Said::OnCall(..) => None,
    });
    told.collect()
}

const DAY: i64 = 86_400_000;

/// A desk whose route leads to whoever is on call.
fn on_call() -> Desk {
    let mut desk = Desk::default();
    for id in ["ann", "bob-mail", "boss", "unasked"] {
        desk.resource(receiver(id), true);
    }
    desk.resource(rota(&json!({})), true);
    desk.resource(resource("routes", "all", &json!({"receivers": ["oncall:net"], "matchers": []}), &[]), true);
    desk
}

#[test]
fn whoever_is_on_call_is_told_and_who_was_is_told_nothing_but_the_end() {
    let noon = T0 + 30_000;
    let held = |name: &str, why: &str| (name.to_owned(), Some(why.to_owned()));
    let free = |name: &str| (name.to_owned(), None);
    let mut desk = on_call();
    desk.alert("a1", Some(burning(1, false)));
    assert_eq!(told(desk.turn(noon)), [free("ann")]);
    // At the handover the other is told what burns; the first keeps it, and hears of nothing but its end.
    assert_eq!(desk.due_ms(), Some(noon + DAY));
    let (off, took) = ("not on call any more", "somebody took it");
    assert_eq!(told(desk.turn(noon + DAY)), [held("ann", off), free("bob-mail")]);
    // Made again of what stands and of what was left, at any later time, it is the same.
    let resumed = |left: Left, taken, at_ms| {
        let mut again = on_call();
        again.resume(left);
        again.alert("a1", Some(Burning { taken, ..burning(1, false) }));
        told(again.turn(at_ms))
    };
    assert_eq!(resumed(desk.left(), false, noon + DAY + 5), [held("ann", off), free("bob-mail")]);
    // For what somebody took nobody is called; whoever was called hears of its end.
    desk.alert("a1", Some(Burning { taken: true, ..burning(1, false) }));
    assert_eq!(told(desk.turn(noon + DAY + 1)), [held("ann", off), held("bob-mail", took)]);
    assert_eq!(told(desk.turn(noon + 2 * DAY)), [held("ann", took), held("bob-mail", off)]);
    assert_eq!(resumed(desk.left(), true, noon + 2 * DAY), [held("ann", took), held("bob-mail", off)]);
    // Other people, and nobody: it stays theirs until it is over.
    desk.resource(rota(&json!({})), false);
    desk.resource(rota(&json!({"people": ["boss"]})), true);
    desk.alert("a1", Some(burning(1, false)));
    assert_eq!(told(desk.turn(noon + 2 * DAY)), [held("ann", off), held("bob-mail", off), free("boss")]);
    desk.resource(resource("routes", "all", &json!({"receivers": ["oncall:net"], "matchers": []}), &[]), false);
    desk.turn(noon + 2 * DAY);
    desk.alert("a1", None);
    let gone = told(desk.turn(noon + 2 * DAY));
    assert!(["-ann", "-bob-mail", "-boss"].iter().all(|name| gone.contains(&free(name))), "{gone:?}");
    assert!(desk.left().is_empty());
}

#[test]
fn a_rota_that_nobody_names_takes_nothing_from_anybody() {
    let mut desk = Desk::default();
    for id in ["ann", "bob-mail"] {
        desk.resource(receiver(id), true);
    }
    desk.resource(rota(&json!({})), true);
    let over = json!({"rota": "net", "person": "cho=bob-mail", "starts_at": 0, "ends_at": i64::MAX});
    desk.resource(resource("rota_overrides", "swap", &over, &[]), true);
    desk.alert("a1", Some(burning(1, false)));
    let names: Vec<String> = told(desk.turn(T0)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ann", "bob-mail"]);
}

#[test]
fn who_is_on_call_is_said_when_it_is_otherwise() {
    let mut desk = Desk::default();
    for id in ["ann", "bob-mail"] {
        desk.resource(receiver(id), true);
    }
    desk.resource(rota(&json!({})), true);
    let noon = T0 + 30_000;
    let row = |said: Vec<Said>| match said.as_slice() {
        [Said::OnCall(_, Some(row))] => (
            row.person.clone(),
            row.receiver.clone(),
            row.until.map(|until| until.ms() - noon),
            row.next_person.clone(),
            row.rota_override.clone(),
        ),
        other => panic!("{other:?}"),
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(row(desk.turn(T0)), (None, None, Some(0), text("ann"), None));
    assert_eq!(row(desk.turn(noon)), (text("ann"), text("ann"), Some(DAY), text("bob"), None));
    let over =
        json!({"rota": "net", "person": "bob", "starts_at": (noon + 1000) * 1000, "ends_at": (noon + 2000) * 1000});
    desk.resource(resource("rota_overrides", "swap", &over, &[]), true);
    assert_eq!(row(desk.turn(noon)), (text("ann"), text("ann"), Some(1000), text("bob"), None));
    assert_eq!(row(desk.turn(noon + 1000)), (text("bob"), text("bob-mail"), Some(2000), text("ann"), text("swap")));
    assert_eq!(row(desk.turn(noon + 2000)), (text("ann"), text("ann"), Some(DAY), text("bob"), None));
    desk.resource(rota(&json!({})), false);
    assert!(matches!(desk.turn(noon + 2000).as_slice(), [Said::OnCall(Some(_), None)]));
}

#[test]
fn each_level_of_escalation_tells_its_own_beside_those_before() {
    let mut desk = Desk::default();
    for id in ["ann", "bob-mail", "boss", "team"] {
        desk.resource(receiver(id), true);
    }
    desk.resource(rota(&json!({})), true);
    desk.resource(resource("routes", "all", &json!({"receivers": ["team"], "matchers": []}), &[]), true);
    let policy = json!({"matchers": ["severity=critical"], "levels": ["5m", "30m", "1h"],
        "receivers": ["oncall:net", "-", "boss"]});
    desk.resource(resource("escalation_policies", "up", &policy, &[]), true);
    let noon = T0 + 30_000;
    let at = |level| Burning { level, ..burning(1, false) };
    let names = |said: Vec<Said>| told(said).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    desk.alert("a1", Some(at(0)));
    assert_eq!(names(desk.turn(noon)), ["team"]);
    desk.alert("a1", Some(at(1)));
    assert_eq!(names(desk.turn(noon)), ["ann"]);
    desk.alert("a1", Some(at(2)));
    assert!(names(desk.turn(noon)).is_empty());
    desk.alert("a1", Some(at(4)));
    assert_eq!(names(desk.turn(noon)), ["boss"]);
    // One that is no such alert goes where routes say, and nowhere else.
    desk.alert("a5", Some(Burning { level: 2, ..burning(5, false) }));
    assert_eq!(names(desk.turn(noon)), ["team"]);
}
