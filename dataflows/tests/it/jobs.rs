//! Jobs in the dataflow: who is told what, the same on any number of workers and out of a snapshot; members that come and go;
//! what is one tenant's or partition's stays there.

use std::collections::BTreeMap;

use radarflow_dataflows::jobs::GRACE_MS;
use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::payload::AgentPush;
use radarflow_proto::rows::{Job, Probe, StateRow};
use radarflow_reconcile::jobs::job_id;
use serde_json::{Value, json};

use crate::harness::*;
use crate::resources::{command, put};

const OURS: &[&str] = &["probes", "icmp", "tcp", "http", "dns"];
const GO: &[&str] = &["icmp", "mtr", "sweep", "snmp", "mapper", "sync", "sysmon"];

fn of(tenant: &'static str, input: Input) -> Input {
    Input { tenant, ..input }
}

fn hello(agent: &str, partition: &str, capabilities: &[&str]) -> Input {
    let capabilities = capabilities.iter().map(|c| (*c).to_owned()).collect();
    pushed(&AgentPush { agent_id: agent.to_owned(), capabilities, ..AgentPush::default() }, partition, "")
}

fn profile(tenant: &str, name: &str, fields: Value) -> Input {
    command(tenant, &format!("{tenant}/{name}/{fields}"), None, vec![put("profiles", name, fields)])
}

fn devices(partition: &str, items: &[String]) -> Input {
    status("runner", "sync", partition, &format!("[{}]", items.join(",")))
}

fn found(agent: &str, partition: &str, profile: &str, ip: &str, at_ms: i64, ok: Option<bool>) -> Input {
    let result = json!({"job": job_id("t", profile), "profile": profile, "kind": "ping", "target": ip, "ip": ip, "ok": ok,
        "at_us": at_ms * 1000, "sent": 1, "lost": u8::from(ok != Some(true))});
    status(agent, "probes", partition, &json!({"results": [result]}).to_string())
}

/// What agents hold, by tenant, partition and agent: the targets by profile.
fn told(run: &Run) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut held = BTreeMap::new();
    for change in run.outputs_seen.iter().flat_map(|output| &output.configurations) {
        let key = format!("{}/{}/{}", change.tenant, change.partition, change.agent_id);
        let Some(content) = &change.content else {
            held.remove(&key);
            continue;
        };
        let content: Value = serde_json::from_str(content).unwrap();
        let lists = [(&content["jobs"], "profile"), (&content["sweep"]["groups"], "id")];
        let jobs =
            lists.iter().flat_map(|(list, name)| list.as_array().into_iter().flatten().map(move |job| (job, *name)));
        let texts = |list: &Value| list.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect();
        held.insert(
            key,
            jobs.map(|(job, name)| (job[name].as_str().unwrap().to_owned(), texts(&job["targets"]))).collect(),
        );
    }
    held
}

fn jobs(run: &Run) -> Vec<Job> {
    run.tables
        .state
        .values()
        .filter_map(|row| if let StateRow::Job(job) = row { Some((**job).clone()) } else { None })
        .collect()
}

fn job(run: &Run, profile: &str, agent: &str) -> Job {
    let all = jobs(run);
    let found = all.iter().find(|job| job.profile == profile && job.agent_id == agent);
    found.unwrap_or_else(|| panic!("no job of {profile} for {agent}: {all:?}")).clone()
}

fn script() -> Vec<Vec<Input>> {
    let item = |id: &str, ip: &str| netbox(id, ip, 1, r#","role":"edge""#);
    let up = || json!({"kind": "ping", "condition": "metadata.role:edge"});
    vec![
        [instances(), instances_of("u")].concat(),
        vec![
            devices("dc1", &[item("1", "10.0.0.1"), item("2", "10.0.0.2"), netbox("3", "10.0.0.3", 1, "")]),
            devices("dc2", &[item("4", "10.0.0.4")]),
            of("u", devices("dc1", &[item("5", "10.0.0.5")])),
        ],
        vec![hello("a", "dc1", OURS), hello("b", "dc1", OURS), hello("c", "dc2", OURS)],
        vec![profile("t", "up", up())],
        vec![of("u", hello("a", "dc1", OURS)), hello("go", "dc1", GO)],
        vec![profile("u", "up", up())],
        vec![command(
            "t",
            "g",
            None,
            vec![
                put("device_groups", "third", json!({"condition": "ip:10.0.0.3/32"})),
                put("profiles", "web", json!({"kind": "http", "device_group": "third", "assignment": "all"})),
            ],
        )],
        vec![found("a", "dc1", "up", "10.0.0.1", T0, Some(true)), found("b", "dc1", "up", "10.0.0.2", T0, None)],
        vec![devices(
            "dc1",
            &[item("6", "10.0.0.6"), netbox("2", "10.0.0.2", 9, r#","_deleted":"true","role":"edge""#)],
        )],
        vec![command("t", "g2", None, vec![put("device_groups", "third", json!({"condition": "ip:10.0.0.1"}))])],
        vec![found("a", "dc1", "up", "10.0.0.1", T0 + 500, Some(false))],
        vec![profile("t", "up", json!({"kind": "ping", "condition": "metadata.role:edge", "site": "dc2"}))],
        vec![],
    ]
}

#[test]
fn who_is_told_what_is_the_same_whoever_works_and_out_of_a_snapshot() {
    let whole = |workers| {
        let mut run = Run::new(workers);
        script().into_iter().for_each(|inputs| drop(run.tick(inputs).clone()));
        run
    };
    let one = whole(1);
    let said = |run: &Run| -> Vec<String> {
        run.outputs_seen.iter().map(|o| format!("{} {:?} {:?}", o.epoch, o.configurations, o.changes)).collect()
    };
    for workers in [2, 3] {
        assert_eq!(said(&one), said(&whole(workers)), "{workers} workers");
    }
    let script = script();
    for cut in 1..script.len() {
        let mut before = Run::new(2);
        for (i, inputs) in script[..cut].iter().enumerate() {
            let snapshot = (i + 1 == cut).then(|| fact(&Fact::Snapshot));
            before.tick(inputs.iter().cloned().chain(snapshot).collect());
        }
        let start = Start { epoch: before.epoch, state: before.snapshot.clone(), ..Start::default() };
        let mut after = Run::from(3, start, before.clock_ms);
        assert_eq!(after.tables.state, before.tables.state, "restored at {cut}");
        assert_eq!(told(&after), told(&before), "restored at {cut}");
        for inputs in &script[cut..] {
            after.tick(inputs.clone());
        }
        assert_eq!(after.tables.state, one.tables.state, "cut at {cut}");
        assert_eq!(told(&after), told(&one), "cut at {cut}");
    }
}

#[test]
fn members_follow_devices_and_stay_with_their_tenant_and_partition() {
    let mut run = Run::new(2);
    let script = script();
    let targets = |run: &Run, agents: &[&str], profile: &str| {
        let told = told(run);
        let mut all: Vec<String> =
            agents.iter().filter_map(|agent| told.get(*agent)?.get(profile).cloned()).flatten().collect();
        all.sort();
        all
    };
    for inputs in &script[..7] {
        run.tick(inputs.clone());
    }
    let dc1 = ["t/dc1/a", "t/dc1/b", "t/dc1/go"];
    let sweep = job_id("t", "up");
    let up = |run: &Run| {
        let mut all = targets(run, &dc1, "up");
        all.extend(targets(run, &["t/dc1/go"], &sweep).iter().map(|net| net.trim_end_matches("/32").to_owned()));
        all.sort();
        all
    };
    assert_eq!(up(&run), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(targets(&run, &["t/dc2/c"], "up"), ["10.0.0.4"]);
    assert_eq!(targets(&run, &["u/dc1/a"], "up"), ["10.0.0.5"]);
    // Vantages: everybody who can.
    assert_eq!(targets(&run, &["t/dc1/a"], "web"), ["10.0.0.3"]);
    assert_eq!(targets(&run, &["t/dc1/b"], "web"), ["10.0.0.3"]);
    assert!(targets(&run, &["t/dc1/go"], &job_id("t", "web")).is_empty());
    for inputs in &script[7..10] {
        run.tick(inputs.clone());
    }
    // One came, one was deleted; the group is another.
    assert_eq!(up(&run), ["10.0.0.1", "10.0.0.6"]);
    assert_eq!(targets(&run, &["t/dc1/a"], "web"), ["10.0.0.1"]);
    for inputs in &script[10..] {
        run.tick(inputs.clone());
    }
    assert_eq!((up(&run), targets(&run, &["t/dc2/c"], "up")), (vec![], vec!["10.0.0.4".to_owned()]));
    assert_eq!(targets(&run, &["u/dc1/a"], "up"), ["10.0.0.5"], "the other tenant's profile is another");
}

#[test]
fn a_job_is_due_then_done_then_missed_and_a_look_that_failed_is_no_word() {
    let mut run = Run::new(1);
    run.tick(instances());
    run.tick(vec![devices("dc1", &[netbox("1", "10.0.0.1", 1, "")])]);
    run.tick(vec![profile("t", "up", json!({"kind": "ping", "condition": "", "interval_s": 60}))]);
    let nobody = job(&run, "up", "");
    assert_eq!(nobody.reason.as_deref(), Some("no agent in partition dc1 with capability icmp"));
    run.tick_after(60_000 + GRACE_MS + 1000, vec![]);
    let missed = job(&run, "up", "");
    assert_eq!((missed.state.as_str(), missed.reason), ("missed", nobody.reason));
    run.tick(vec![hello("a", "dc1", OURS)]);
    assert_eq!((jobs(&run).len(), job(&run, "up", "a").state.as_str()), (1, "due"));
    // The agent could not look: nobody knows more of the device.
    let device =
        |run: &Run| run.tables.devices().into_iter().find(|d| d.ip.as_deref() == Some("10.0.0.1")).unwrap().clone();
    let at = run.clock_ms;
    run.tick(vec![found("a", "dc1", "up", "10.0.0.1", at, None)]);
    assert_eq!((job(&run, "up", "a").state.as_str(), device(&run).is_available), ("failed", None));
    for (n, ok) in [true, false, false].into_iter().enumerate() {
        run.tick(vec![found("a", "dc1", "up", "10.0.0.1", at + 1 + n as i64, Some(ok))]);
    }
    assert_eq!((job(&run, "up", "a").state.as_str(), device(&run).is_available), ("done", Some(false)));
    assert_eq!(device(&run).availability_reason.as_deref().map(|r| r.contains("a/up")), Some(true));
    // Of more of the same it is told in its time.
    run.tick_after(11_000, vec![]);
    let told = job(&run, "up", "a");
    assert_eq!((told.results, told.negative, told.unknown), (4, 2, 1));
    assert_eq!(run.rows::<Probe>().iter().filter(|probe| probe.device_uid.is_some()).count(), 4);
    // It lives, and says nothing of what it was told to look at.
    (0..3).for_each(|_| drop(run.tick_after(130_000, vec![hello("a", "dc1", &[])]).clone()));
    assert_eq!(job(&run, "up", "a").state, "missed");
    let alerts = |run: &Run| -> Vec<(String, String, String)> {
        let rows = run.tables.state.values();
        let alerts = rows.filter_map(|row| if let StateRow::Alert(alert) = row { Some(alert) } else { None });
        let missed = alerts.filter(|alert| alert.rule == "job-missed");
        missed.map(|a| (a.source_id.clone(), a.status.clone(), a.description.clone())).collect()
    };
    let of_agent = alerts(&run).into_iter().find(|(job, ..)| job == "up/a").unwrap();
    assert_eq!((of_agent.1.as_str(), of_agent.2.as_str()), ("pending", "no result for 60 s and their grace"));
    let of_nobody = alerts(&run).into_iter().find(|(job, ..)| job == "up").unwrap();
    assert_eq!(of_nobody.1, "resolved", "there is somebody now");
    // Results of what nobody planned are rows, and no job.
    let at = run.clock_ms;
    run.tick(vec![found("a", "dc1", "other", "10.0.0.1", at, Some(true))]);
    assert_eq!(jobs(&run).len(), 1);
    assert_eq!(device(&run).is_available, Some(true));
}
