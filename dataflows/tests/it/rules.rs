//! Rules in the dataflow, beside a plain evaluation: at every epoch, on any number of workers, out of any snapshot, with rows that
//! come late and twice, with devices that come and go, with rules that are changed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use radarflow_dataflows::worker::Start;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Kind;
use radarflow_proto::resource::{Act, Condition, Operation};
use radarflow_proto::rows::{Alert, Device, StateRow};
use serde_json::{Value, json};

use crate::harness::*;
use crate::resources::{command, put};

/// A log line of a sender, said to be of a moment, milliseconds.
fn line(ip: &str, at_ms: i64, severity: u8) -> Input {
    let body = format!("<{}>1 {} host app - - - text", 8 + severity, Time::from_ms(at_ms));
    let peer: &'static str = Box::leak(format!("{ip}:514").into_boxed_str());
    Input {
        kind: Kind::Syslog,
        tenant: "t",
        partition: String::new(),
        peer: Some(peer),
        body: body.into_bytes().into(),
    }
}

fn rule(id: &str, name: &str, fields: Value) -> Input {
    command("t", id, None, vec![put("rules", name, fields)])
}

fn gone(id: &str, name: &str) -> Input {
    let (resource, name) = ("rules".to_owned(), name.to_owned());
    let operation = Operation { resource, id: name, act: Act::Delete, condition: Condition::Any, owner: String::new() };
    command("t", id, None, vec![operation])
}

/// Alerts that burn: rule and what it is about.
fn burning(run: &Run) -> BTreeSet<(String, String)> {
    let alerts =
        run.tables.state.values().filter_map(|row| if let StateRow::Alert(a) = row { Some(&**a) } else { None });
    alerts.filter(|a| a.status != "resolved").map(|a| (a.rule.clone(), entity(a))).collect()
}

fn entity(alert: &Alert) -> String {
    let own = ["alertname", "severity", "tenant", "partition", "source_type", "source_id"];
    let labels = alert.labels.0.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    labels.map(|(_, value)| value.clone()).collect::<Vec<_>>().join("/")
}

/// One rule over log lines, as the oracle has it.
#[derive(Clone, Debug)]
struct Plain {
    span_ms: i64,
    least: usize,
    worst: u8,
    for_ms: i64,
    resolve_ms: i64,
}

impl Plain {
    fn fields(&self) -> Value {
        let Plain { span_ms, least, worst, for_ms, resolve_ms } = self;
        let query = format!(
            "in:logs severity_number:<={worst} time:last_{}s stats:\"count() as n by source_ip\" having:\"n >= {least}\"",
            span_ms / 1000
        );
        json!({"query": query, "for_s": for_ms / 1000, "resolve_for_s": resolve_ms / 1000})
    }
}

/// What a group of the oracle is up to.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    holds_since: Option<i64>,
    over_since: Option<i64>,
    burns: bool,
}

/// Every line that ever came: when it came, when it was, whose, how bad.
type Lines = Vec<(i64, i64, &'static str, u8)>;

/// The plain evaluation: everything anew at every epoch.
#[derive(Default)]
struct Oracle {
    phases: BTreeMap<(String, &'static str), Phase>,
}

impl Oracle {
    fn step(&mut self, now: i64, rules: &BTreeMap<String, Plain>, since: &BTreeMap<String, i64>, lines: &Lines) {
        self.phases.retain(|(rule, _), _| rules.contains_key(rule));
        for (name, rule) in rules {
            let step = (rule.span_ms / 60).max(1000);
            let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
            for (came, was, who, severity) in lines {
                let at = (*was).min(*came);
                let heard = *came >= since[name] && *severity <= rule.worst && at > came - rule.span_ms;
                let within = (at.div_euclid(step) + 1) * step > now - rule.span_ms;
                if heard && within {
                    *counts.entry(who).or_default() += 1;
                }
            }
            for who in SENDERS {
                let holds = counts.get(who).is_some_and(|n| *n >= rule.least);
                let phase = self.phases.entry((name.clone(), who)).or_default();
                match (holds, phase.burns) {
                    (true, true) => phase.over_since = None,
                    (true, false) => {
                        let since = *phase.holds_since.get_or_insert(now);
                        if now - since >= rule.for_ms {
                            *phase = Phase { burns: true, ..Phase::default() };
                        }
                    }
                    (false, true) => {
                        let since = *phase.over_since.get_or_insert(now);
                        if now - since >= rule.resolve_ms {
                            *phase = Phase::default();
                        }
                    }
                    (false, false) => phase.holds_since = None,
                }
            }
        }
    }

    fn burning(&self) -> BTreeSet<(String, String)> {
        let burn = self.phases.iter().filter(|(_, phase)| phase.burns);
        burn.map(|((rule, who), _)| (rule.clone(), (*who).to_owned())).collect()
    }
}

const SENDERS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Lines: sender, how many milliseconds old (before now where it is less than nothing), how bad.
    Lines(u16, Vec<(usize, i32, u8)>),
    /// A rule is stated.
    Rule(u8, Plain),
    /// A rule is gone.
    Gone(u8),
    /// The process ends and begins again.
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lines = prop::collection::vec((0..SENDERS.len(), -3000i32..15_000, 0u8..8), 0..6);
    let plain = (1i64..12, 1usize..6, 2u8..8, 0i64..4, 0i64..4).prop_map(|(span, least, worst, held, over)| Plain {
        span_ms: span * 1000,
        least,
        worst,
        for_ms: held * 1000,
        resolve_ms: over * 1000,
    });
    let step = prop_oneof![
        12 => (50u16..3000, lines).prop_map(|(ms, lines)| Step::Lines(ms, lines)),
        2 => (0u8..3, plain).prop_map(|(name, plain)| Step::Rule(name, plain)),
        1 => (0u8..3).prop_map(Step::Gone),
        1 => (1usize..4).prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

#[test]
fn rules_over_events_are_what_a_plain_evaluation_says_at_every_epoch() {
    let mut runner = TestRunner::new(Config { cases: 60, ..Config::default() });
    runner
        .run(&(steps(), 1usize..4), |(steps, workers)| {
            let mut run = Run::new(workers);
            let (mut oracle, mut rules, mut since) = (Oracle::default(), BTreeMap::new(), BTreeMap::new());
            let mut lines: Lines = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                let now = run.clock_ms;
                match step {
                    Step::Lines(ms, said) => {
                        let now = now + i64::from(ms);
                        let input = |(who, age, severity): &(usize, i32, u8)| {
                            line(SENDERS[*who], now - i64::from(*age), *severity)
                        };
                        let inputs = said.iter().map(input).collect();
                        lines.extend(
                            said.iter()
                                .map(|(who, age, severity)| (now, now - i64::from(*age), SENDERS[*who], *severity)),
                        );
                        run.tick_after(i64::from(ms), inputs);
                    }
                    Step::Rule(name, plain) => {
                        let name = format!("r{name}");
                        run.tick(vec![rule(&format!("{n}"), &name, plain.fields())]);
                        // What was counted in another form is worth nothing; the first evaluation of what burned is not the end of it.
                        let is_new = !rules.contains_key(&name);
                        let known: Option<Plain> = rules.insert(name.clone(), plain.clone());
                        let anew =
                            known.is_none_or(|known| (known.span_ms, known.worst) != (plain.span_ms, plain.worst));
                        if anew && !is_new {
                            // Another test says what becomes of it.
                            return Ok(());
                        }
                        if anew {
                            since.insert(name, run.clock_ms);
                        }
                    }
                    Step::Gone(name) => {
                        let name = format!("r{name}");
                        run.tick(vec![gone(&format!("{n}"), &name)]);
                        rules.remove(&name);
                    }
                    Step::Restart(workers) => {
                        run.tick(vec![fact(&Fact::Snapshot)]);
                        let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
                        oracle.step(run.clock_ms, &rules, &since, &lines);
                        run = Run::from(workers, start, run.clock_ms);
                    }
                }
                oracle.step(run.clock_ms, &rules, &since, &lines);
                prop_assert_eq!(
                    burning(&run),
                    oracle.burning(),
                    "step {}, clock {}, {:?}",
                    n,
                    run.clock_ms - T0,
                    rules
                );
            }
            Ok(())
        })
        .unwrap();
}

fn devices(run: &Run) -> Vec<Device> {
    run.tables.devices().into_iter().cloned().collect()
}

/// Rules over state hold of what is there, whenever they were stated, on any number of workers.
#[test]
fn rules_over_state_hold_of_what_is_there_before_and_after_they_are_stated() {
    let edge = r#","role":"edge""#;
    let script: Vec<Vec<Input>> = vec![
        instances(),
        vec![sync(&[
            netbox("1", "10.0.0.1", 1, edge),
            netbox("2", "10.0.0.2", 1, ""),
            netbox("3", "10.0.0.3", 1, edge),
        ])],
        vec![
            rule(
                "a",
                "edge",
                json!({"query": "in:devices metadata.role:edge fields:ip", "title": "{ip} is at the edge"}),
            ),
            rule("b", "many", json!({"query": "in:devices stats:\"count() as n by partition\" having:\"n > 3\""})),
        ],
        vec![sync(&[netbox("4", "10.0.0.4", 1, edge)])],
        vec![sync(&[netbox("1", "10.0.0.1", 2, "")])],
        vec![rule("c", "edge", json!({"query": "in:devices ip:10.0.0.2 fields:ip", "title": "{ip} is at the edge"}))],
        vec![sync(&[netbox("2", "10.0.0.2", 9, r#","_deleted":"true""#)])],
        vec![gone("d", "many")],
    ];
    let expected = |run: &Run, n: usize| -> BTreeSet<(String, String)> {
        let devices = devices(run);
        let name = |rule: &str, device: &Device| {
            (rule.to_owned(), [device.ip.clone().unwrap_or_default(), device.uid.clone()].join("/"))
        };
        let mut all = BTreeSet::new();
        if (2..5).contains(&n) {
            let edge = devices.iter().filter(|d| d.metadata.0.get("role").is_some_and(|role| role == "edge"));
            all.extend(edge.map(|d| name("edge", d)));
        } else if n >= 5 {
            all.extend(devices.iter().filter(|d| d.ip.as_deref() == Some("10.0.0.2")).map(|d| name("edge", d)));
        }
        if (2..7).contains(&n) && devices.len() > 3 {
            all.insert(("many".to_owned(), String::new()));
        }
        all
    };
    let burning = |run: &Run| -> BTreeSet<(String, String)> {
        let of = |row: &StateRow| match row {
            StateRow::Alert(a) if a.status != "resolved" => {
                let about = [a.labels.0.get("ip"), a.device_uid.as_ref()];
                Some((a.rule.clone(), about.into_iter().flatten().cloned().collect::<Vec<_>>().join("/")))
            }
            _ => None,
        };
        run.tables.state.values().filter_map(of).collect()
    };
    for cut in 0..script.len() {
        let mut run = Run::new(2);
        for (n, inputs) in script.iter().enumerate() {
            let snapshot = (n == cut).then(|| fact(&Fact::Snapshot));
            run.tick(inputs.iter().cloned().chain(snapshot).collect());
            if n == cut {
                let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
                run = Run::from(3, start, run.clock_ms);
            }
            assert_eq!(burning(&run), expected(&run, n), "epoch {n}, restarted at {cut}");
            run.tick(vec![]);
            assert_eq!(burning(&run), expected(&run, n), "an epoch after {n}, restarted at {cut}");
        }
    }
}

/// Time alone moves a rule over state, too.
#[test]
fn a_rule_over_state_waits_and_lasts_as_long_as_it_says() {
    let mut run = Run::new(2);
    let query = "in:devices metadata.role:edge fields:ip";
    run.tick(instances());
    run.tick(vec![rule("a", "edge", json!({"query": query, "for_s": 60, "resolve_for_s": 30}))]);
    run.tick(vec![sync(&[netbox("1", "10.0.0.1", 1, r#","role":"edge""#)])]);
    run.tick_after(59_000, vec![]);
    assert_eq!(burning(&run).len(), 0);
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
    let mut run = Run::from(3, start, run.clock_ms);
    run.tick_after(2000, vec![]);
    assert_eq!(burning(&run).len(), 1, "nothing came but time");
    run.tick(vec![sync(&[netbox("1", "10.0.0.1", 2, "")])]);
    run.tick_after(29_000, vec![]);
    assert_eq!(burning(&run).len(), 1);
    run.tick_after(2000, vec![]);
    assert_eq!(burning(&run).len(), 0);
}

/// A rule with other keys has other groups: the alerts of the old ones are over, and nothing is asked of them any more.
#[test]
fn a_rule_whose_keys_change_begins_anew() {
    let mut run = Run::new(2);
    let query = |by: &str| {
        let query = format!("in:logs time:last_10s stats:\"count() as n by {by}\" having:\"n >= 1 and n != 7\"");
        json!({"query": query, "title": "{source_ip} said {n}"})
    };
    run.tick(vec![rule("a", "r", query("source_ip"))]);
    run.tick_after(11_000, vec![]);
    let now = run.clock_ms;
    run.tick(vec![line("10.0.0.1", now, 3)]);
    run.tick_after(10_000, vec![line("10.0.0.1", now + 10_000, 3)]);
    assert_eq!(burning(&run).len(), 1);
    for (id, by) in [("b", "source_ip, hostname"), ("c", "hostname, source_ip, severity"), ("d", "source_ip")] {
        run.tick(vec![rule(id, "r", query(by))]);
        assert_eq!(burning(&run), BTreeSet::new(), "{by}");
        run.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
        run = Run::from(2, start, run.clock_ms);
        run.tick_after(11_000, vec![]);
    }
}

/// What was told of a group in the rule's old form stands until the new form had time to count.
#[test]
fn a_rule_that_is_changed_keeps_its_alerts_while_it_counts_anew() {
    let mut run = Run::new(2);
    let query = |severity: &str, least: u32| {
        let query = format!(
            "in:logs severity_number:{severity} time:last_10s stats:\"count() as n by source_ip\" having:\"n >= {least}\""
        );
        json!({"query": query, "title": "{source_ip} said {n}"})
    };
    run.tick(vec![rule("a", "r", query("<=3", 2))]);
    let now = run.clock_ms;
    run.tick(vec![line("10.0.0.1", now, 3), line("10.0.0.1", now, 2), line("10.0.0.2", now, 3)]);
    let one = BTreeSet::from([("r".to_owned(), "10.0.0.1".to_owned())]);
    assert_eq!(burning(&run), one);
    let alert = |run: &Run| {
        let of = |row: &StateRow| if let StateRow::Alert(alert) = row { Some((**alert).clone()) } else { None };
        run.tables.state.values().filter_map(of).next().unwrap()
    };
    let first = alert(&run);
    assert_eq!(first.title, "10.0.0.1 said 2");
    // Another condition counts the same rows: it is judged at once.
    run.tick(vec![rule("b", "r", query("<=3", 3))]);
    assert_eq!(burning(&run), BTreeSet::new());
    run.tick(vec![rule("c", "r", query("<=3", 1))]);
    assert_eq!(burning(&run).len(), 2);
    run.tick(vec![rule("d", "r", query("<=3", 2))]);
    assert_eq!(burning(&run), one);
    // Another filter counts other rows: what burns is not over because nothing was counted yet.
    run.tick(vec![rule("e", "r", query("<=4", 2))]);
    assert_eq!(burning(&run), one);
    run.tick_after(9000, vec![]);
    assert_eq!(burning(&run), one, "it had no time to count");
    run.tick_after(2000, vec![]);
    assert_eq!(burning(&run), BTreeSet::new(), "it had");
}

/// Silence is heard, but not that of the time when nobody could hear.
#[test]
fn absence_is_silence_that_could_be_heard() {
    let mut run = Run::new(2);
    let query = "in:logs time:last_1m stats:\"count() as n by source_ip\" having:\"n = 0\"";
    let all = "in:logs time:last_1m stats:\"count() as n\" having:\"n < 1\"";
    run.tick(vec![rule("a", "quiet", json!({"query": query})), rule("b", "nothing", json!({"query": all}))]);
    let quiet = |who: &str| ("quiet".to_owned(), who.to_owned());
    let nothing = ("nothing".to_owned(), String::new());
    assert_eq!(burning(&run), BTreeSet::new(), "nobody listened for a minute yet");
    run.tick_after(61_000, vec![]);
    assert_eq!(burning(&run), BTreeSet::from([nothing.clone()]));
    let now = run.clock_ms;
    run.tick(vec![line("10.0.0.1", now, 6), line("10.0.0.2", now, 6)]);
    assert_eq!(burning(&run), BTreeSet::new());
    let now = run.clock_ms + 40_000;
    run.tick_after(40_000, vec![line("10.0.0.2", now, 6)]);
    run.tick_after(25_000, vec![]);
    assert_eq!(burning(&run), BTreeSet::from([quiet("10.0.0.1")]));
    // Down for an hour: 10.0.0.2 is not silent because of it, and 10.0.0.1 not less so.
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
    let mut run = Run::from(1, start, run.clock_ms);
    run.gap_ms = 3_600_000;
    run.tick(vec![]);
    assert!(!burning(&run).contains(&quiet("10.0.0.2")), "{:?}", burning(&run));
    run.tick_after(61_000, vec![]);
    assert_eq!(burning(&run), BTreeSet::from([quiet("10.0.0.1"), quiet("10.0.0.2"), nothing]));
}

/// Tenants have their own rules, and their own groups.
#[test]
fn a_rule_is_one_tenants() {
    let mut run = Run::new(2);
    let query = "in:logs time:last_1m stats:\"count() as n by source_ip\" having:\"n >= 1\"";
    run.tick(vec![rule("a", "r", json!({"query": query}))]);
    let now = run.clock_ms;
    run.tick(vec![Input { tenant: "u", ..line("10.0.0.1", now, 3) }]);
    assert_eq!(burning(&run), BTreeSet::new());
    run.tick(vec![line("10.0.0.1", now, 3)]);
    assert_eq!(burning(&run).len(), 1);
}
