//! Who is told of alerts, through the whole dataflow: silences, routes, steps, dead letters; the same on any number of workers and
//! out of a snapshot at any moment; and whoever was told that something burns is told that it is over.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::{Actor, AlertStatus, Fact, OwnCondition, Role};
use radarflow_proto::payload::DueNotification;
use radarflow_proto::rows::{Alert, AlertHistory, AlertNotification, DeadLetter, Notification, StateRow};
use serde_json::json;

use crate::harness::*;
use crate::resources::{command, put};

fn holds(rule: &str, entity: &str, severity: &str, holds: bool) -> Input {
    fact(&Fact::Condition(OwnCondition {
        tenant: "t".into(),
        rule: rule.into(),
        entity: entity.into(),
        severity: severity.into(),
        title: format!("{rule} of {entity}"),
        description: String::new(),
        holds,
    }))
}

pub(crate) fn receiver(name: &str) -> Input {
    let fields = json!({"target": format!("http://{name}"), "url": "http://x", "group_by": ["alertname"],
        "group_wait_ms": 0, "group_interval_ms": 1000, "repeat_interval_ms": 3_600_000});
    command("t", "", None, vec![put("receivers", name, fields)])
}

/// One that knows each alert by itself.
fn incidents(name: &str) -> Input {
    let fields = json!({"target": format!("http://{name}"), "url": "http://x", "kind": "pagerduty", "credential": "key",
        "group_by": ["alertname"], "group_wait_ms": 0, "group_interval_ms": 1000, "repeat_interval_ms": 3_600_000});
    command("t", "", None, vec![put("receivers", name, fields)])
}

fn silence(name: &str, matcher: &str, from_ms: i64, to_ms: i64) -> Input {
    let fields =
        json!({"matchers": [matcher], "starts_at": from_ms * 1000, "ends_at": to_ms * 1000, "comment": "work"});
    command("t", "", None, vec![put("silences", name, fields)])
}

fn route(name: &str, parent: Option<&str>, matchers: &[&str], receiver: Option<&str>, goes_on: bool) -> Input {
    let receivers: Vec<&str> = receiver.into_iter().collect();
    let fields = json!({"parent": parent, "matchers": matchers, "receivers": receivers, "group_by": ["alertname"],
        "group_wait_ms": 0, "group_interval_ms": 1000, "repeat_interval_ms": 3_600_000, "continue": goes_on});
    command("t", "", None, vec![put("routes", name, fields)])
}

fn rows<T>(run: &Run, of: impl Fn(&StateRow) -> Option<T>) -> Vec<T> {
    run.tables.state.values().filter_map(of).collect()
}

fn alerts(run: &Run) -> Vec<Alert> {
    rows(run, |row| if let StateRow::Alert(alert) = row { Some((**alert).clone()) } else { None })
}

fn notices(run: &Run) -> Vec<AlertNotification> {
    rows(run, |row| if let StateRow::AlertNotification(notice) = row { Some((**notice).clone()) } else { None })
}

fn step(alert_id: &str, to: AlertStatus, until_ms: Option<i64>) -> Input {
    fact(&Fact::AlertStep {
        tenant: "t".into(),
        alert_id: alert_id.into(),
        to,
        until_ms,
        actor: Actor { name: "ann".into(), role: Role::Operator },
        reason: "work".into(),
        command_id: format!("{alert_id}-{}", to.name()),
    })
}

/// Messages in the order in which they were due, each once.
fn due(run: &Run) -> Vec<DueNotification> {
    let mut seen = BTreeSet::new();
    let all = run.outputs_seen.iter().flat_map(|o| o.due.clone());
    all.filter(|due| seen.insert(due.id.clone())).collect()
}

fn told(due: &[DueNotification]) -> Vec<Vec<(String, bool)>> {
    due.iter()
        .map(|d| d.alerts.iter().map(|a| (a.labels["source_id"].clone(), a.ends_at_ms.is_none())).collect())
        .collect()
}

fn settled(due: &DueNotification, delivered: bool) -> Input {
    fact(&Fact::Delivery {
        tenant: "t".into(),
        receiver: due.receiver.name.clone(),
        group_key: due.group_key.clone(),
        notification_id: due.id.clone(),
        delivered,
        detail: if delivered { "200 OK" } else { "400 no" }.into(),
    })
}

/// All that is due and not settled.
fn open(run: &Run) -> Vec<DueNotification> {
    let settled: BTreeSet<String> = run.outputs_seen.iter().flat_map(|o| o.settled.clone()).collect();
    due(run).into_iter().filter(|due| !settled.contains(&due.id)).collect()
}

#[test]
fn what_is_suppressed_is_not_over_and_its_end_is_told() {
    let mut run = Run::new(2);
    run.tick(vec![receiver("ops"), holds("link-down", "a", "warning", true)]);
    assert_eq!(told(&due(&run)), [[("a".to_owned(), true)]]);
    let message = due(&run)[0].clone();
    run.tick(vec![settled(&message, true)]);
    let id = alerts(&run)[0].id.clone();
    assert_eq!((alerts(&run)[0].notification_count, notices(&run)[0].state.as_str()), (1, "told"));
    run.tick(vec![step(&id, AlertStatus::Suppressed, Some(run.clock_ms + 60_000))]);
    assert_eq!(alerts(&run)[0].suppressed_by.as_deref(), Some("ann"));
    assert_eq!(notices(&run)[0].reason, "suppressed by ann");
    run.tick_after(30_000, vec![]);
    assert_eq!(due(&run).len(), 1, "nothing is told while it is suppressed, least of all that it is over");
    // Its time is over: it waits again, and that is no news to who was told that it burns.
    run.tick_after(30_100, vec![]);
    assert_eq!((alerts(&run)[0].status.as_str(), due(&run).len()), ("pending", 1));
    run.tick(vec![step(&id, AlertStatus::Suppressed, None)]);
    run.tick(vec![holds("link-down", "a", "warning", false)]);
    assert_eq!((alerts(&run)[0].status.as_str(), alerts(&run)[0].resolved_by.as_deref()), ("resolved", Some("system")));
    assert_eq!(told(&due(&run))[1], [("a".to_owned(), false)]);
    let steps: Vec<_> = run.rows::<AlertHistory>().into_iter().map(|h| (h.new_status, h.actor)).collect();
    let expected = [
        ("pending", "system"),
        ("suppressed", "ann"),
        ("pending", "system"),
        ("suppressed", "ann"),
        ("resolved", "system"),
    ];
    assert_eq!(steps, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn a_silence_ends_by_the_clock_also_after_a_restart() {
    for workers in [1, 3] {
        let mut run = Run::new(workers);
        run.tick(vec![receiver("ops"), silence("night", "source_id=a", T0, T0 + 60_000)]);
        run.tick(vec![holds("link-down", "a", "warning", true)]);
        assert!(due(&run).is_empty());
        let held = notices(&run);
        assert_eq!((held[0].state.as_str(), held[0].reason.as_str()), ("held", "silenced by night of radarflow"));
        assert_eq!(held[0].until.map(|at| at.ms()), Some(T0 + 60_000));
        run.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
        let mut again = Run::from(2, start, run.clock_ms);
        assert_eq!(again.tables.state, run.tables.state);
        again.tick_after(T0 + 59_999 - again.clock_ms, vec![]);
        assert!(due(&again).is_empty());
        again.tick_after(1, vec![]);
        assert_eq!(told(&due(&again)), [[("a".to_owned(), true)]]);
    }
}

#[test]
fn a_policy_of_escalation_has_levels_and_an_acknowledgement_ends_them() {
    let mut run = Run::new(2);
    let policy = json!({"matchers": ["severity=warning"], "levels": ["1m", "3m"]});
    run.tick(vec![command("t", "", None, vec![put("escalation_policies", "quick", policy)])]);
    run.tick(vec![receiver("team"), receiver("boss"), route("root", None, &[], Some("team"), false)]);
    let up = vec![
        route("above", Some("root"), &["escalation=~\"[1-9]\""], Some("boss"), true),
        route("ops", Some("root"), &[], None, false),
    ];
    run.tick(up);
    run.tick(vec![holds("link-down", "a", "warning", true), holds("link-down", "b", "info", true)]);
    let of = |run: &Run, name: &str| -> (String, i64) {
        let alert = alerts(run).into_iter().find(|a| a.source_id == name).unwrap();
        (alert.status, alert.escalation_level)
    };
    run.tick_after(60_000, vec![]);
    assert_eq!((of(&run, "a"), of(&run, "b")), (("escalated".into(), 1), ("pending".into(), 0)));
    let receivers: Vec<String> = due(&run).into_iter().map(|due| due.receiver.name).collect();
    assert_eq!(receivers, ["team", "boss"]);
    run.tick_after(120_000, vec![]);
    assert_eq!(of(&run, "a"), ("escalated".into(), 2));
    run.tick(vec![holds("link-down", "a", "warning", false)]);
    run.tick(vec![holds("link-down", "a", "warning", true)]);
    let id = alerts(&run).into_iter().find(|a| a.source_id == "a" && a.status == "pending").unwrap().id;
    run.tick(vec![step(&id, AlertStatus::Acknowledged, None)]);
    run.tick_after(600_000, vec![]);
    let stands = alerts(&run).into_iter().find(|a| a.id == id).unwrap();
    assert_eq!((stands.status.as_str(), stands.escalation_level), ("acknowledged", 0));
}

#[test]
fn a_dead_letter_is_a_row_until_it_is_taken_after_all() {
    let mut run = Run::new(2);
    run.tick(vec![receiver("ops"), holds("link-down", "a", "warning", true)]);
    let message = due(&run)[0].clone();
    run.tick(vec![settled(&message, false)]);
    let letters =
        |run: &Run| rows(run, |row| if let StateRow::DeadLetter(l) = row { Some((**l).clone()) } else { None });
    let letter: DeadLetter = letters(&run).remove(0);
    assert_eq!((letter.reason.as_str(), letter.replaying), ("400 no", false));
    let replay = |id: &str| {
        fact(&Fact::Replay {
            tenant: "t".into(),
            receiver: "ops".into(),
            actor: Actor { name: "ann".into(), role: Role::Admin },
            reason: String::new(),
            command_id: id.into(),
        })
    };
    run.tick(vec![replay("c1")]);
    assert!(letters(&run)[0].replaying);
    assert_eq!(open(&run).len(), 0, "it was settled, and is due again under its name");
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
    let mut again = Run::from(3, start, run.clock_ms);
    assert_eq!(due(&again)[0].id, message.id);
    again.tick(vec![settled(&message, true)]);
    assert!(letters(&again).is_empty());
    again.tick(vec![replay("c2")]);
    let outcomes: Vec<_> = again.outputs_seen.iter().flat_map(|o| o.outcomes.clone()).collect();
    assert_eq!(outcomes.last().unwrap().refused.as_deref(), Some("receiver ops has no dead letters"));
    let outcomes: Vec<String> = again.rows::<Notification>().into_iter().map(|n| n.outcome).collect();
    assert_eq!(outcomes, ["delivered"]);
}

#[test]
fn what_waits_for_a_receiver_goes_where_that_is_mended_to() {
    let mut run = Run::new(2);
    let at = |target: &str| {
        let fields = json!({"target": target, "url": "http://x", "group_by": ["alertname"], "group_wait_ms": 0,
            "group_interval_ms": 600_000, "repeat_interval_ms": 3_600_000});
        command("t", "", None, vec![put("receivers", "ops", fields)])
    };
    run.tick(vec![at("http://wrong"), holds("link-down", "a", "warning", true)]);
    let first = due(&run)[0].clone();
    let last = |run: &Run| {
        let all = run.outputs_seen.iter().flat_map(|output| &output.due);
        all.filter(|due| due.id == first.id).map(|due| due.receiver.url.clone()).last()
    };
    assert_eq!(last(&run).as_deref(), Some("http://wrong"));
    run.tick(vec![at("http://mended")]);
    assert_eq!(last(&run).as_deref(), Some("http://mended"), "under the same name");
    run.tick(vec![settled(&first, false)]);
    run.tick(vec![at("http://well")]);
    let replay = Fact::Replay {
        tenant: "t".into(),
        receiver: "ops".into(),
        actor: Actor { name: "ann".into(), role: Role::Admin },
        reason: String::new(),
        command_id: "c1".into(),
    };
    run.tick(vec![fact(&replay)]);
    assert_eq!(last(&run).as_deref(), Some("http://well"));
    run.tick(vec![at("http://better")]);
    assert_eq!(last(&run).as_deref(), Some("http://better"));
}

#[test]
fn an_alert_that_somebody_reopens_burns_until_it_is_resolved_again() {
    let mut run = Run::new(2);
    let settle = |run: &mut Run| {
        let all = open(run).iter().map(|due| settled(due, true)).collect();
        run.tick_after(1100, all);
    };
    run.tick(vec![receiver("ops"), holds("link-down", "a", "warning", true)]);
    settle(&mut run);
    run.tick(vec![holds("link-down", "a", "warning", false)]);
    settle(&mut run);
    let id = alerts(&run)[0].id.clone();
    run.tick(vec![step(&id, AlertStatus::Pending, None)]);
    settle(&mut run);
    settle(&mut run);
    let said = told(&due(&run));
    assert_eq!(said, [vec![("a".to_owned(), true)], vec![("a".to_owned(), false)], vec![("a".to_owned(), true)]]);
    // Its condition returns and ends: it is the same alert.
    run.tick(vec![holds("link-down", "a", "warning", true)]);
    assert_eq!(alerts(&run).len(), 1);
    run.tick(vec![holds("link-down", "a", "warning", false)]);
    let alert = alerts(&run).remove(0);
    assert_eq!((alert.id, alert.status.as_str(), alert.occurrence_count), (id.clone(), "resolved", 2));
    // Reopened again, a person ends it.
    run.tick(vec![step(&id, AlertStatus::Pending, None)]);
    run.tick(vec![step(&id, AlertStatus::Resolved, None)]);
    for _ in 0..3 {
        settle(&mut run);
    }
    assert!(!due(&run).last().unwrap().firing());
    assert_eq!(notices(&run), []);
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const RULES: [&str; 2] = ["link-down", "fan"];
const ENTITIES: [&str; 3] = ["a", "b", "c"];

/// Something happens.
#[derive(Clone, Debug)]
enum Happens {
    Condition(usize, usize, bool),
    Silence(u64, usize, i64, i64),
    Unsilence(u64),
    Inhibits(usize, usize),
    Route(u64, usize, usize, bool),
    Unroute(u64),
    Step(u64, AlertStatus),
    Settle(bool),
}

fn history(seed: u64, length: usize) -> Vec<(i64, Vec<Happens>)> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut one = || {
        let (rule, entity) = (dice.roll(2) as usize, dice.roll(3) as usize);
        match dice.roll(12) {
            0..=3 => Happens::Condition(rule, entity, dice.roll(2) == 0),
            4 => Happens::Silence(dice.roll(2), entity, dice.roll(5) as i64 - 2, 1 + dice.roll(10) as i64),
            5 => Happens::Unsilence(dice.roll(2)),
            6 => Happens::Inhibits(rule, 1 - rule),
            7 => Happens::Route(dice.roll(2), rule, dice.roll(2) as usize, dice.roll(2) == 0),
            8 => Happens::Unroute(dice.roll(2)),
            9 => {
                let to =
                    [AlertStatus::Acknowledged, AlertStatus::Suppressed, AlertStatus::Resolved, AlertStatus::Pending];
                Happens::Step(dice.roll(6), to[dice.roll(4) as usize])
            }
            _ => Happens::Settle(dice.roll(6) > 0),
        }
    };
    let mut happens: Vec<(i64, Vec<Happens>)> = (0..length).map(|_| (0, vec![one(), one()])).collect();
    for (ms, _) in &mut happens {
        *ms = 100 + dice.roll(3000) as i64;
    }
    happens
}

fn inputs(run: &Run, happens: &[Happens]) -> Vec<Input> {
    let gone = |kind: &str, id: String| {
        let mut operation = put(kind, &id, json!({}));
        operation.act = radarflow_proto::resource::Act::Delete;
        command("t", "", None, vec![operation])
    };
    let mut out = Vec::new();
    for what in happens {
        match what {
            Happens::Condition(rule, entity, is) => out.push(holds(RULES[*rule], ENTITIES[*entity], "warning", *is)),
            Happens::Silence(n, entity, from, long) => {
                let from = run.clock_ms + from * 1000;
                let matcher = format!("source_id={}", ENTITIES[*entity]);
                out.push(silence(&format!("s{n}"), &matcher, from, from + 3000 + long * 1000));
            }
            Happens::Unsilence(n) => out.push(gone("silences", format!("s{n}"))),
            Happens::Inhibits(source, target) => {
                let of = |rule: usize| vec![format!("alertname={}", RULES[rule])];
                let fields =
                    json!({"source_matchers": of(*source), "target_matchers": of(*target), "equal": ["source_id"]});
                out.push(command("t", "", None, vec![put("inhibit_rules", "i", fields)]));
            }
            Happens::Route(n, rule, receiver, goes_on) => {
                let matcher = format!("alertname={}", RULES[*rule]);
                out.push(route(
                    &format!("n{n}"),
                    Some("root"),
                    &[&matcher],
                    Some(["ops", "boss"][*receiver]),
                    *goes_on,
                ));
            }
            Happens::Unroute(n) => out.push(gone("routes", format!("n{n}"))),
            Happens::Step(n, to) => {
                let alerts = alerts(run);
                let until = (*to == AlertStatus::Suppressed && n % 2 == 0).then_some(run.clock_ms + 5000);
                out.extend(alerts.get(*n as usize % alerts.len().max(1)).map(|alert| step(&alert.id, *to, until)));
            }
            Happens::Settle(delivered) => out.extend(open(run).iter().map(|due| settled(due, *delivered))),
        }
    }
    out
}

fn begun(workers: usize) -> Run {
    let mut run = Run::new(workers);
    run.tick(vec![receiver("ops"), incidents("boss"), route("root", None, &[], Some("ops"), false)]);
    run
}

/// What is told over in a group is not told burning in another group of who knows alerts by themselves.
fn no_incident_is_closed_that_is_another_groups(run: &Run, seed: u64) {
    let burning: BTreeSet<String> = alerts(run).into_iter().filter(|a| a.status != "resolved").map(|a| a.id).collect();
    let notices = notices(run);
    let last = run.outputs_seen.last().into_iter().flat_map(|output| &output.due);
    for due in last.filter(|due| due.receiver.kind.knows_alerts()) {
        for ended in due.alerts.iter().filter(|alert| alert.ends_at_ms.is_some() && burning.contains(&alert.id)) {
            let other = notices.iter().find(|notice| {
                let of = (notice.receiver.as_str(), notice.alert_id.as_str());
                of == (due.receiver.name.as_str(), ended.id.as_str()) && notice.group_key != due.group_key
            });
            assert!(other.is_none(), "seed {seed}: {} is ended in {}, and {other:?}", ended.id, due.group_key);
        }
    }
}

#[test]
fn on_any_number_of_workers_and_out_of_any_snapshot_the_same_is_told_and_what_was_told_burning_is_told_over() {
    let seeds = std::env::var("RADARFLOW_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(8);
    let mut messages = 0;
    for seed in 1..=seeds {
        let history = history(seed, 40);
        let (mut run, mut wide) = (begun(1), begun(3));
        let mut again = begun(2);
        let mut before: Vec<DueNotification> = Vec::new();
        for (nth, (ms, happens)) in history.iter().enumerate() {
            let said = inputs(&run, happens);
            run.tick_after(*ms, said.clone());
            no_incident_is_closed_that_is_another_groups(&run, seed);
            wide.tick_after(*ms, said.clone());
            let mut with_snapshot = said;
            if nth % 7 == 3 {
                with_snapshot.push(fact(&Fact::Snapshot));
            }
            again.tick_after(*ms, with_snapshot);
            assert_eq!(wide.tables.state, run.tables.state, "seed {seed}, step {nth}");
            assert_eq!(again.tables.state, run.tables.state, "seed {seed}, step {nth}");
            if nth % 7 == 3 {
                before.extend(due(&again));
                let start = Start { epoch: again.epoch, state: again.snapshot.clone(), ..Start::default() };
                again = Run::from(1 + nth % 3, start, again.clock_ms);
                assert_eq!(again.tables.state, run.tables.state, "seed {seed}, restored at step {nth}");
            }
        }
        let mut seen = BTreeSet::new();
        before.extend(due(&again));
        let of = |due: &[DueNotification], seen: &mut BTreeSet<String>| -> Vec<DueNotification> {
            due.iter().filter(|due| seen.insert(due.id.clone())).cloned().collect()
        };
        assert_eq!(due(&wide), due(&run), "seed {seed}");
        assert_eq!(of(&before, &mut seen), due(&run), "seed {seed}");
        // All of it is over, and everything is taken.
        let over = RULES.iter().flat_map(|r| ENTITIES.map(|e| holds(r, e, "warning", false))).collect();
        run.tick(over);
        // Whoever reopened one ends it.
        let reopened: Vec<Alert> = alerts(&run).into_iter().filter(|alert| alert.status != "resolved").collect();
        run.tick(reopened.iter().map(|alert| step(&alert.id, AlertStatus::Resolved, None)).collect());
        for _ in 0..6 {
            let all = open(&run).iter().map(|due| settled(due, true)).collect();
            run.tick_after(1100, all);
        }
        let mut believes: BTreeMap<(String, String), bool> = BTreeMap::new();
        for due in due(&run) {
            messages += 1;
            for alert in &due.alerts {
                let group = if due.receiver.kind.knows_alerts() { "" } else { &due.group_key };
                let of = (due.receiver.name.clone(), group.to_owned() + &alert.id);
                believes.insert(of, alert.ends_at_ms.is_none());
            }
        }
        let orphans: Vec<_> = believes.iter().filter(|(_, burns)| **burns).collect();
        assert!(orphans.is_empty(), "seed {seed}: told that these burn, and never that they are over: {orphans:?}");
        assert_eq!(notices(&run), [], "seed {seed}: nothing is left to tell");
    }
    assert!(messages > seeds as usize * 5, "{messages} messages are no test");
}

#[test]
fn at_a_handover_the_next_one_is_told_and_both_hear_of_the_end() {
    for (workers, restarts) in [(1, false), (2, true), (3, true)] {
        let mut run = Run::new(workers);
        let first = run.clock_ms;
        let hour = 3_600_000;
        let rota = json!({"people": ["ann", "bob"], "starts_at": first * 1000, "shift": "1h"});
        run.tick(vec![
            receiver("ann"),
            receiver("bob"),
            command("t", "", None, vec![put("rotas", "net", rota)]),
            route("all", None, &[], Some("oncall:net"), false),
        ]);
        run.tick(vec![holds("link-down", "a", "warning", true)]);
        let by = |due: &DueNotification| (due.receiver.name.clone(), due.firing());
        let settle_all = |run: &mut Run| {
            let all: Vec<Input> = open(run).iter().map(|due| settled(due, true)).collect();
            run.tick(all);
        };
        let mut messages = due(&run);
        assert_eq!(messages.iter().map(by).collect::<Vec<_>>(), [("ann".to_owned(), true)]);
        settle_all(&mut run);
        let on_call = |run: &Run| {
            let of = |row: &StateRow| {
                if let StateRow::OnCall(row) = row { Some((row.person.clone(), row.next_person.clone())) } else { None }
            };
            rows(run, of)
        };
        let is = |person: &str, next: &str| vec![(Some(person.to_owned()), Some(next.to_owned()))];
        assert_eq!(on_call(&run), is("ann", "bob"));
        let restarted = |run: Run, messages: &mut Vec<DueNotification>| {
            let mut run = run;
            run.tick(vec![fact(&Fact::Snapshot)]);
            messages.extend(due(&run));
            if !restarts {
                return run;
            }
            let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
            let again = Run::from(4 - workers, start, run.clock_ms);
            assert_eq!(again.tables.state, run.tables.state);
            again
        };
        let mut run = restarted(run, &mut messages);
        run.tick_after(hour, vec![]);
        run.tick_after(1000, vec![]);
        assert_eq!(on_call(&run), is("bob", "ann"));
        settle_all(&mut run);
        // Long after, out of another snapshot, what was left to who was on call is known.
        let mut run = restarted(run, &mut messages);
        run.tick_after(1000, vec![holds("link-down", "a", "warning", false)]);
        run.tick_after(2000, vec![]);
        run.tick_after(2000, vec![]);
        messages.extend(due(&run));
        let mut seen = BTreeSet::new();
        messages.retain(|due| seen.insert(due.id.clone()));
        let mut told: Vec<_> = messages.iter().map(by).collect();
        told[2..].sort();
        let expected = [("ann", true), ("bob", true), ("ann", false), ("bob", false)];
        assert_eq!(told, expected.map(|(name, firing)| (name.to_owned(), firing)), "{workers} workers");
    }
}
