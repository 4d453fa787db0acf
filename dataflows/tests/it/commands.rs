//! What somebody has agents do at once, in the dataflow: it leaves once, by one connection; it has one final state, whatever is said of
//! it twice, late or by others; the same on any number of workers and out of a snapshot.

use radarflow_dataflows::jobs::{MAX_OPEN, RESULT_MS};
use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::payload::{AgentPush, CommandSaid, ControlWord, Said};
use radarflow_proto::ports::CommandTurn;
use radarflow_proto::resource::{Act, Condition, Operation};
use radarflow_proto::rows::{Command, StateRow};
use serde_json::{Value, json};

use crate::harness::*;
use crate::resources::{command, put};

const OURS: &[&str] = &["probes", "icmp", "tcp"];
const GO: &[&str] = &["icmp", "sweep"];

fn push(agent: &str, of: AgentPush) -> Input {
    pushed(&AgentPush { agent_id: agent.to_owned(), ..of }, "dc1", "")
}

fn hello(agent: &str, capabilities: &[&str]) -> Input {
    let capabilities = capabilities.iter().map(|c| (*c).to_owned()).collect();
    push(agent, AgentPush { capabilities, ..AgentPush::default() })
}

fn word(agent: &str, word: ControlWord) -> Input {
    push(agent, AgentPush { control: Some(word.into()), ..AgentPush::default() })
}

fn claim(agent: &str, command_id: &str, stream: &str) -> Input {
    let (command_id, stream, life) = (command_id.to_owned(), stream.to_owned(), format!("life of {agent}"));
    word(agent, ControlWord::Claimed { command_id, stream, life })
}

fn said(agent: &str, command_id: &str, what: Said, message: &str) -> Input {
    let (command_id, message) = (command_id.to_owned(), message.to_owned());
    let payload = Some(r#"{"looks":1}"#.to_owned());
    word(agent, ControlWord::Said(CommandSaid { command_id, what, message, percent: 40, payload }))
}

fn step(id: &str, digest: Option<&str>, action: &str, fields: Value) -> Input {
    let (resource, profile, action) = ("profiles".to_owned(), "up".to_owned(), action.to_owned());
    let act = Act::Do { action, fields: serde_json::from_value(fields).unwrap() };
    let operation = Operation { resource, id: profile, act, condition: Condition::Any, owner: String::new() };
    command("t", id, digest, vec![operation])
}

fn run_now(id: &str, fields: Value) -> Input {
    step(id, None, "run", fields)
}

/// Two devices, agents that are connected, and a profile.
fn begun(workers: usize, agents: &[(&str, &[&str])], profile: Value) -> Run {
    let mut run = Run::new(workers);
    begin(agents, profile).into_iter().for_each(|inputs| drop(run.tick(inputs).clone()));
    run
}

fn begin(agents: &[(&str, &[&str])], profile: Value) -> Vec<Vec<Input>> {
    let items = [netbox("1", "10.0.0.1", 1, ""), netbox("2", "10.0.0.2", 1, "")];
    vec![
        instances(),
        vec![status("runner", "sync", "dc1", &format!("[{}]", items.join(",")))],
        agents.iter().map(|(agent, capabilities)| hello(agent, capabilities)).collect(),
        vec![command("t", "profile", None, vec![put("profiles", "up", profile)])],
    ]
}

fn ping() -> Value {
    json!({"kind": "ping", "condition": ""})
}

fn commands(run: &Run) -> Vec<Command> {
    let rows = run.tables.state.values();
    rows.filter_map(|row| if let StateRow::Command(row) = row { Some((**row).clone()) } else { None }).collect()
}

fn one(run: &Run) -> Command {
    let all = commands(run);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn states(run: &Run) -> Vec<String> {
    let mut states: Vec<String> = commands(run).into_iter().map(|row| row.state).collect();
    states.sort();
    states
}

/// What left by which stream.
fn left(run: &Run) -> Vec<(String, String, String)> {
    let all = run.outputs_seen.iter().flat_map(|output| &output.commands);
    all.filter_map(|of| match &of.turn {
        CommandTurn::Granted { stream, command_type, .. } => {
            Some((of.agent_id.clone(), stream.clone(), command_type.clone()))
        }
        _ => None,
    })
    .collect()
}

/// The commands that wait, as the gateway learns it.
fn waiting(run: &Run) -> Vec<String> {
    let mut waiting = Vec::new();
    for of in run.outputs_seen.iter().flat_map(|output| &output.commands) {
        match of.turn {
            CommandTurn::Waits => waiting.push(of.command_id.clone()),
            CommandTurn::Withdrawn => waiting.retain(|id| *id != of.command_id),
            CommandTurn::Granted { .. } => {}
        }
    }
    waiting.sort();
    waiting
}

#[test]
fn a_command_leaves_once_and_has_one_final_state() {
    let mut run = begun(2, &[("a", OURS)], ping());
    run.tick(vec![run_now("ask", json!({}))]);
    let queued = one(&run);
    assert_eq!(
        (queued.state.as_str(), queued.agent_id.as_str(), queued.targets, queued.command_type.as_str()),
        ("queued", "a", 2, "radarflow.run")
    );
    assert_eq!((queued.requested_by.as_str(), waiting(&run)), ("radarflow", vec![queued.command_id.clone()]));
    let id = queued.command_id;
    // Nobody speaks of what was not sent, and nobody claims another's.
    run.tick(vec![said("a", &id, Said::Done, ""), claim("b", &id, "b")]);
    assert_eq!((one(&run).state.as_str(), left(&run).len()), ("queued", 0));
    // Two connections of one name claim it: the first has it.
    run.tick(vec![claim("a", &id, "first"), claim("a", &id, "second")]);
    run.tick(vec![claim("a", &id, "third")]);
    assert_eq!(left(&run), [("a".to_owned(), "first".to_owned(), "radarflow.run".to_owned())]);
    assert!(one(&run).sent_at.is_some() && waiting(&run).is_empty());
    run.tick(vec![said("b", &id, Said::Failed, "not mine"), said("a", &id, Said::Acknowledged, "command received")]);
    assert_eq!(one(&run).state, "acknowledged");
    run.tick(vec![said("a", &id, Said::Progress, "1 of 2")]);
    let running = one(&run);
    assert_eq!((running.state.as_str(), running.progress, running.reason.as_deref()), ("running", 40, Some("1 of 2")));
    run.tick(vec![said("a", &id, Said::Done, "done")]);
    let done = one(&run);
    assert_eq!((done.state.as_str(), done.progress, done.result.as_deref()), ("finished", 100, Some(r#"{"looks":1}"#)));
    // It is over, whatever is said of it after that, and whoever ends it.
    run.tick(vec![said("a", &id, Said::Failed, "again"), step("end", None, "cancel", json!({}))]);
    run.tick_after(RESULT_MS * 2, vec![said("a", &id, Said::Progress, "late")]);
    assert_eq!(one(&run), done);
    // After a day it is history.
    run.tick_after(24 * 3_600_000, vec![]);
    assert!(commands(&run).is_empty());
}

#[test]
fn asked_twice_is_done_twice_and_sent_twice_is_done_once() {
    let mut run = begun(1, &[("a", OURS), ("b", OURS)], json!({"kind": "ping", "condition": "", "assignment": "all"}));
    let same = || step("key", Some("digest"), "run", json!({"targets": ["10.0.0.2"], "agents": ["b"]}));
    run.tick(vec![same(), same()]);
    run.tick(vec![same()]);
    let of_b = one(&run);
    assert_eq!((of_b.agent_id.as_str(), of_b.targets, &of_b.asked[..]), ("b", 1, &["10.0.0.2".to_owned()][..]));
    // Two people at once: each has their own.
    run.tick(vec![run_now("ann", json!({})), run_now("bob", json!({}))]);
    assert_eq!(commands(&run).len(), 5);
    let runs: std::collections::BTreeSet<String> = commands(&run).into_iter().map(|row| row.run_id).collect();
    assert_eq!(runs.len(), 3);
    // What is no target is told, and what is not enabled is refused.
    run.tick(vec![run_now("none", json!({"targets": ["10.9.9.9"]}))]);
    let nobody = commands(&run).into_iter().find(|row| row.agent_id.is_empty()).unwrap();
    assert_eq!(nobody.state, "failed");
    assert!(nobody.reason.unwrap().contains("any of these targets"));
    let before = commands(&run).len();
    run.tick(vec![command(
        "t",
        "off",
        None,
        vec![put("profiles", "up", json!({"kind": "ping", "condition": "", "enabled": false}))],
    )]);
    run.tick(vec![run_now("off-run", json!({})), step("odd", None, "run", json!({"target": "x"}))]);
    assert_eq!(commands(&run).len(), before);
    let refused = run.outputs_seen.iter().flat_map(|o| &o.judgements).filter(|j| j.outcome.is_err()).count();
    assert_eq!(refused, 2);
}

#[test]
fn whoever_is_away_gets_it_when_they_come_or_it_expires() {
    let listed = json!({"kind": "ping", "condition": "", "assignment": "listed", "agents": ["a", "go"]});
    let mut run = begun(2, &[("a", OURS), ("go", GO)], listed);
    run.tick_after(600_000, vec![]);
    run.tick(vec![run_now("ask", json!({"ttl_s": 60}))]);
    assert_eq!(waiting(&run).len(), 2);
    let of = |run: &Run, agent: &str| commands(run).into_iter().find(|row| row.agent_id == agent).unwrap();
    // It comes within its time, and is slow to answer.
    let id = of(&run, "a").command_id;
    run.tick_after(59_000, vec![hello("a", OURS), claim("a", &id, "a")]);
    assert_eq!(of(&run, "a").state, "sent");
    run.tick_after(10_000, vec![]);
    let expired = of(&run, "go");
    assert_eq!((expired.state.as_str(), expired.reason.as_deref()), ("expired", Some("the agent was not connected")));
    assert_eq!(of(&run, "a").state, "sent", "what leaves late has its time to be acknowledged");
    run.tick(vec![claim("go", &expired.command_id, "late")]);
    assert_eq!(left(&run).len(), 1);
    run.tick(vec![said("a", &id, Said::Acknowledged, "")]);
    run.tick_after(RESULT_MS - 1000, vec![said("a", &id, Said::Progress, "still")]);
    run.tick_after(RESULT_MS - 1000, vec![]);
    assert_eq!(of(&run, "a").state, "running");
    run.tick_after(2000, vec![]);
    let over = of(&run, "a");
    assert_eq!((over.state.as_str(), over.reason.as_deref()), ("expired", Some("the agent told no result")));
    // Time goes on while the server is down: nobody is sent what is hours old.
    run.tick(vec![run_now("again", json!({"agents": ["a"]}))]);
    run.gap_ms = 3_600_000;
    run.tick(vec![]);
    assert!(waiting(&run).is_empty());
}

#[test]
fn serviceradars_agent_sweeps_its_group_and_a_connection_that_breaks_is_the_end_of_it() {
    let mut run = begun(1, &[("go", GO)], ping());
    run.tick(vec![run_now("some", json!({"targets": ["10.0.0.1"]})), run_now("all", json!({}))]);
    let all = commands(&run);
    let refused = all.iter().find(|row| row.state == "failed").unwrap();
    assert!(refused.reason.as_deref().unwrap().contains("whole group"), "{refused:?}");
    let id = all.iter().find(|row| row.state == "queued").unwrap().command_id.clone();
    run.tick(vec![claim("go", &id, "s1")]);
    assert_eq!(left(&run), [("go".to_owned(), "s1".to_owned(), "sweep.run_group".to_owned())]);
    run.tick(vec![said("go", &id, Said::Acknowledged, "command received")]);
    let state = |run: &Run| commands(run).into_iter().find(|row| row.command_id == id).unwrap().state;
    // The same life: nothing is lost. Another one: what the first was told it tells no result of.
    run.tick(vec![word("go", ControlWord::Opened { life: "life of go".to_owned() })]);
    run.tick(vec![word("go", ControlWord::Cut { life: "another".to_owned() })]);
    assert_eq!(state(&run), "acknowledged");
    run.tick(vec![word("other", ControlWord::Opened { life: "new".to_owned() })]);
    assert_eq!(state(&run), "acknowledged", "that is another agent");
    run.tick(vec![word("go", ControlWord::Opened { life: "new".to_owned() })]);
    assert_eq!(state(&run), "failed");
}

#[test]
fn what_is_cancelled_does_not_leave_and_too_many_are_refused() {
    let mut run = begun(1, &[("a", OURS)], ping());
    for n in 0..=MAX_OPEN {
        run.tick(vec![run_now(&n.to_string(), json!({}))]);
    }
    let all = commands(&run);
    let (open, refused): (Vec<_>, Vec<_>) = all.iter().partition(|row| row.state == "queued");
    assert_eq!((open.len(), refused.len()), (MAX_OPEN, 1));
    assert!(refused[0].reason.as_deref().unwrap().starts_with("16 commands"), "{refused:?}");
    let (first, second) = (open[0].clone(), open[1].clone());
    run.tick(vec![step("end", None, "cancel", json!({"run_id": first.run_id})), claim("a", &first.command_id, "a")]);
    run.tick(vec![claim("a", &second.command_id, "a")]);
    assert_eq!(left(&run).len(), 1);
    run.tick(vec![step("end all", None, "cancel", json!({}))]);
    assert!(commands(&run).iter().all(|row| row.finished_at.is_some()) && waiting(&run).is_empty());
    let reason = |id: &str| commands(&run).into_iter().find(|row| row.command_id == id).unwrap().reason.unwrap();
    assert_eq!(reason(&first.command_id), "cancelled by radarflow");
    assert_eq!(reason(&second.command_id), "cancelled by radarflow; the agent had it already");
}

#[test]
fn commands_are_the_same_whoever_works_and_out_of_a_snapshot() {
    // The ids follow from what was asked.
    let mut probe =
        begun(1, &[("a", OURS), ("b", OURS)], json!({"kind": "ping", "condition": "", "assignment": "all"}));
    probe.tick(vec![run_now("ask", json!({}))]);
    let id = |agent: &str| commands(&probe).into_iter().find(|row| row.agent_id == agent).unwrap().command_id;
    let (a, b) = (id("a"), id("b"));
    let mut script = begin(&[("a", OURS), ("b", OURS)], json!({"kind": "ping", "condition": "", "assignment": "all"}));
    script.extend([
        vec![run_now("ask", json!({}))],
        vec![claim("a", &a, "a"), word("b", ControlWord::Opened { life: "b".into() })],
        vec![said("a", &a, Said::Acknowledged, ""), claim("b", &b, "b")],
        vec![said("a", &a, Said::Progress, "half")],
        vec![said("a", &a, Said::Done, ""), word("b", ControlWord::Opened { life: "b2".into() })],
        vec![run_now("more", json!({"agents": ["a"]})), step("no more", None, "cancel", json!({}))],
        vec![run_now("last", json!({}))],
        vec![],
    ]);
    let whole = |workers| {
        let mut run = Run::new(workers);
        script.clone().into_iter().for_each(|inputs| drop(run.tick(inputs).clone()));
        run
    };
    let told = |run: &Run| -> Vec<String> {
        run.outputs_seen.iter().map(|o| format!("{} {:?} {:?}", o.epoch, o.commands, o.changes)).collect()
    };
    let one = whole(1);
    assert_eq!(states(&one), ["cancelled", "failed", "finished", "queued", "queued"]);
    for workers in [2, 3] {
        assert_eq!(told(&one), told(&whole(workers)), "{workers} workers");
    }
    for cut in 1..script.len() {
        let mut before = Run::new(2);
        for (nth, inputs) in script[..cut].iter().enumerate() {
            let snapshot = (nth + 1 == cut).then(|| fact(&Fact::Snapshot));
            before.tick(inputs.iter().cloned().chain(snapshot).collect());
        }
        let start = Start { epoch: before.epoch, state: before.snapshot.clone(), ..Start::default() };
        let mut after = Run::from(3, start, before.clock_ms);
        assert_eq!(after.tables.state, before.tables.state, "restored at {cut}");
        assert_eq!(waiting(&after), waiting(&before), "restored at {cut}");
        assert!(left(&after).is_empty(), "what left does not leave again");
        script[cut..].iter().for_each(|inputs| drop(after.tick(inputs.clone()).clone()));
        assert_eq!(after.tables.state, one.tables.state, "cut at {cut}");
        assert_eq!(waiting(&after), waiting(&one), "cut at {cut}");
        assert_eq!(left(&before).len() + left(&after).len(), left(&one).len(), "cut at {cut}");
    }
}
