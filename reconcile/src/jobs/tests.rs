use std::collections::BTreeMap;

use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use serde_json::{Value, json};

use super::*;

fn profile(name: &str, fields: &Value) -> Profile {
    Profile::of(&resource(name, fields)).unwrap()
}

fn resource(name: &str, fields: &Value) -> Resource {
    let fields = fields.as_object().unwrap().clone().into_iter().chain([("enabled".to_owned(), json!(true))]);
    Resource::of(Table::Profile, "t", name, fields.collect())
}

fn agent(id: &str, capabilities: &[&str]) -> AgentFacts {
    let capabilities = capabilities.iter().map(|c| (*c).to_owned()).collect();
    AgentFacts { id: id.into(), connected: true, capabilities }
}

fn ours(id: &str) -> AgentFacts {
    agent(id, &[OURS, "icmp", "tcp", "http", "dns"])
}

fn go(id: &str) -> AgentFacts {
    agent(id, &["icmp", "mtr", "sweep", "snmp", "mapper", "sync", "sysmon"])
}

fn set(targets: &[&str]) -> BTreeSet<String> {
    targets.iter().map(|t| (*t).to_owned()).collect()
}

fn told(plan: &Plan, agent: &str) -> Value {
    serde_json::from_str(&plan.contents[agent]).unwrap()
}

#[test]
fn what_an_executor_cannot_do_it_is_not_told_and_the_job_says_so() {
    let web =
        profile("web", &json!({"kind": "http", "condition": "", "assignment": "listed", "agents": ["go", "own"]}));
    let up = profile("up", &json!({"kind": "ping", "condition": "", "assignment": "listed", "agents": ["go", "own"]}));
    let (both, six) = (set(&["10.0.0.1", "2001:db8::1"]), set(&["2001:db8::2"]));
    let plan = plan(
        "t",
        "dc1",
        &[
            (&web, &both),
            (&up, &both),
            (
                &profile(
                    "six",
                    &json!({"kind": "ping", "condition": "",
        "assignment": "listed", "agents": ["go"]}),
                ),
                &six,
            ),
        ],
        &[go("go"), ours("own")],
    );
    let go = told(&plan, "go");
    // Of IPv6 nothing, whatever asks for it.
    assert!(!plan.contents["go"].contains("2001"), "{go}");
    assert_eq!(go["sweep"]["groups"].as_array().unwrap().len(), 1);
    assert_eq!(go["sweep"]["groups"][0]["targets"], json!(["10.0.0.1/32"]));
    assert_eq!(go["sweep"]["groups"][0]["modes"], json!(["icmp"]));
    let own = told(&plan, "own");
    assert_eq!(own["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(own["jobs"][0]["targets"], json!(["10.0.0.1", "2001:db8::1"]));
    let problems: Vec<(&str, &str)> = plan
        .jobs
        .iter()
        .filter(|job| job.problem.is_some())
        .map(|j| (j.profile.as_str(), j.agent_id.as_str()))
        .collect();
    assert_eq!(problems, [("six", "go"), ("up", "go"), ("web", "go")]);
    let left = plan.jobs.iter().find(|job| job.profile == "up" && job.agent_id == "go").unwrap();
    assert!(
        matches!(&left.problem, Some(Problem::Partly(why)) if why.starts_with("1 targets are left out")),
        "{left:?}"
    );
}

#[test]
fn without_an_agent_the_reason_names_partition_and_capability() {
    let up = profile("up", &json!({"kind": "ping", "condition": ""}));
    let plan = plan("t", "dc1", &[(&up, &set(&["10.0.0.1"]))], &[]);
    let [job] = &plan.jobs[..] else { panic!("{:?}", plan.jobs) };
    let said = Problem::Nobody("no agent in partition dc1 with capability icmp".to_owned());
    assert_eq!((job.agent_id.as_str(), job.problem.clone()), ("", Some(said)));
}

#[test]
fn auto_has_each_target_once_and_all_has_each_everywhere() {
    let targets: Vec<String> = (1..200).map(|n| format!("10.0.0.{n}")).collect();
    let targets: BTreeSet<String> = targets.into_iter().collect();
    let agents = [ours("a"), ours("b"), ours("c"), AgentFacts { connected: false, ..ours("gone") }];
    let count = |plan: &Plan, agent: &str| {
        let jobs = told(plan, agent)["jobs"].as_array().unwrap().clone();
        jobs.iter().map(|job| job["targets"].as_array().unwrap().len()).sum::<usize>()
    };
    let auto = plan("t", "p", &[(&profile("x", &json!({"kind": "ping", "condition": ""})), &targets)], &agents);
    assert_eq!(["a", "b", "c"].iter().map(|a| count(&auto, a)).sum::<usize>(), 199);
    assert!(["a", "b", "c"].iter().all(|a| count(&auto, a) > 30));
    assert_eq!(count(&auto, "gone"), 0);
    let all = profile("x", &json!({"kind": "ping", "condition": "", "assignment": "all"}));
    let all = plan("t", "p", &[(&all, &targets)], &agents);
    assert!(["a", "b", "c", "gone"].iter().all(|a| count(&all, a) == 199));
}

#[test]
fn of_profiles_of_one_kind_the_greatest_priority_has_a_target() {
    let low = profile("a", &json!({"kind": "tcp", "condition": "", "ports": ["22"]}));
    let high = profile("b", &json!({"kind": "tcp", "condition": "", "ports": ["443"], "priority": 5}));
    let ping = profile("c", &json!({"kind": "ping", "condition": ""}));
    let (both, one) = (set(&["10.0.0.1", "10.0.0.2"]), set(&["10.0.0.1"]));
    let plan = plan("t", "p", &[(&low, &both), (&high, &one), (&ping, &one)], &[ours("x")]);
    let jobs: BTreeMap<String, Value> = told(&plan, "x")["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| (job["profile"].as_str().unwrap().to_owned(), job["targets"].clone()))
        .collect();
    let is = |name: &str, targets: Value| (name.to_owned(), targets);
    assert_eq!(
        jobs,
        BTreeMap::from([is("a", json!(["10.0.0.2"])), is("b", json!(["10.0.0.1"])), is("c", json!(["10.0.0.1"]))])
    );
}

#[test]
fn ten_thousand_targets_stay_under_the_bound_of_messages_and_more_is_told() {
    let targets: BTreeSet<String> =
        (0..10_000).map(|n| format!("2001:db8:1234:5678:9abc:def0:{:x}:{:x}", n / 256, n % 256)).collect();
    let up = profile("up", &json!({"kind": "ping", "condition": ""}));
    let one = plan("t", "p", &[(&up, &targets)], &[ours("x")]);
    assert!(one.contents["x"].len() < MAX_CONTENT && one.jobs.iter().all(|job| job.problem.is_none()));
    let names: BTreeSet<String> = (0..20_000).map(|n| format!("{}{n}.example", "a".repeat(200))).collect();
    let too_long = plan("t", "p", &[(&up, &names)], &[ours("x")]);
    assert!(too_long.contents["x"].len() < MAX_CONTENT);
    assert!(matches!(&too_long.jobs[0].problem, Some(Problem::Unsupported(why)) if why.contains("longer than")));
}

#[test]
fn profiles_are_refused_by_field() {
    for (fields, field) in [
        (json!({"kind": "mtr", "condition": ""}), "kind"),
        (json!({"kind": "ping"}), "condition"),
        (json!({"kind": "ping", "condition": "is_available:false"}), "condition"),
        (json!({"kind": "ping", "condition": "", "device_group": "x"}), "device_group"),
        (json!({"kind": "tcp", "condition": ""}), "ports"),
        (json!({"kind": "tcp", "condition": "", "ports": ["0"]}), "ports"),
        (json!({"kind": "dns", "condition": ""}), "query_name"),
        (json!({"kind": "ping", "hosts": ["10.0.0.1"]}), "site"),
        (json!({"kind": "ping", "hosts": ["10.0.0.0/8"], "site": "p"}), "hosts"),
        (json!({"kind": "ping", "hosts": ["a b"], "site": "p"}), "hosts"),
        (json!({"kind": "ping", "condition": "", "assignment": "listed"}), "agents"),
        (json!({"kind": "ping", "condition": "", "agents": ["a"]}), "agents"),
        (json!({"kind": "http", "condition": "", "expected_status": "2xx"}), "expected_status"),
        (json!({"kind": "http", "condition": "", "body_pattern": "("}), "body_pattern"),
        (json!({"kind": "http", "condition": "", "url_path": "x"}), "url_path"),
        (json!({"kind": "ping", "condition": "", "interval_s": 1, "timeout_ms": 2000}), "timeout_ms"),
    ] {
        assert_eq!(Profile::of(&resource("x", &fields)).unwrap_err().0, field, "{fields}");
    }
}

#[test]
fn networks_are_their_hosts() {
    let of = |text: &str| profile::hosts(&[text.to_owned()]).unwrap();
    assert_eq!(of("10.0.0.5/30"), ["10.0.0.5", "10.0.0.6"]);
    assert_eq!(of("10.0.0.5/32"), ["10.0.0.5"]);
    assert_eq!(of("10.0.0.4/31"), ["10.0.0.4", "10.0.0.5"]);
    assert_eq!(of("2001:db8::/127"), ["2001:db8::", "2001:db8::1"]);
    assert_eq!(of("Core-1.Example"), ["core-1.example"]);
    assert_eq!(of("10.0.0.0/16").len(), 65_534);
    assert!(profile::hosts(&["2001:db8::/64".to_owned()]).is_err());
    assert!(profile::hosts(&["0.0.0.0/0".to_owned()]).is_err());
}
