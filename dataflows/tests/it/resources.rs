//! Resources in the dataflow: the same on any number of workers, out of a snapshot, and out of what was stated before there
//! were resources.

use std::collections::BTreeMap;

use radarflow_dataflows::keyed::{Restored, Tick, encode};
use radarflow_dataflows::upgrade;
use radarflow_dataflows::worker::Start;
use radarflow_proto::audit::hash;
use radarflow_proto::fact::{Actor, DeviceGroup, Fact, Receiver, ReceiverKind, Role, Token};
use radarflow_proto::resource::{Act, Command, Condition, Judgement, Operation, Principal, PrincipalKind, RefusalCode};
use radarflow_proto::rows::{Audit, StateRow, Table};
use serde_json::{Value, json};

use crate::harness::*;

pub(crate) fn command(tenant: &str, id: &str, digest: Option<&str>, operations: Vec<Operation>) -> Input {
    let command = Command {
        tenant: tenant.into(),
        command_id: id.into(),
        digest: digest.map(str::to_owned),
        principal: Principal::of_host(PrincipalKind::System, "radarflow"),
        reason: "because".into(),
        force: false,
        operations,
    };
    Input { tenant: if tenant == "t" { "t" } else { "u" }, ..fact(&Fact::Command(Box::new(command))) }
}

pub(crate) fn put(resource: &str, id: &str, fields: Value) -> Operation {
    let fields = serde_json::from_value(fields).unwrap();
    let (resource, id, owner) = (resource.to_owned(), id.to_owned(), String::new());
    Operation { resource, id, act: Act::Put { fields }, condition: Condition::Any, owner }
}

pub(crate) fn gone(resource: &str, id: &str) -> Operation {
    Operation { act: Act::Delete, ..put(resource, id, json!({})) }
}

fn named(run: &Run, table: Table) -> Vec<String> {
    let of = run.tables.state.iter().filter(|((of, _), _)| *of == table).map(|(_, row)| row);
    of.map(|row| match row {
        StateRow::User(user) => format!("{} {} {}", user.tenant_id, user.name, user.role),
        StateRow::Session(session) => format!("{} {}", session.tenant_id, session.session_id),
        StateRow::Receiver(receiver) => format!("{} {} {}", receiver.tenant_id, receiver.name, receiver.url),
        StateRow::ApiToken(token) => format!("{} {} {}", token.tenant_id, token.token_id, token.name),
        StateRow::DeviceGroup(group) => format!("{} {} {}", group.tenant_id, group.name, group.actor),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn judgements(run: &Run) -> Vec<Judgement> {
    run.outputs_seen.iter().flat_map(|output| output.judgements.clone()).collect()
}

fn session(id: &str, expires_ms: i64) -> Operation {
    let fields = json!({"user": "ann", "method": "password", "expires_at": expires_ms * 1000, "sha256": "x"});
    put("sessions", id, fields)
}

#[test]
fn commands_are_judged_in_the_order_of_the_ledger_whoever_works() {
    let mut told = Vec::new();
    for workers in [1, 2, 3] {
        let mut run = Run::new(workers);
        let user = |role: &str| put("users", "ann", json!({"role": role}));
        run.tick(vec![
            command("t", "1", None, vec![user("viewer")]),
            command("t", "2", None, vec![user("operator")]),
            command("u", "3", None, vec![user("viewer"), put("users", "bob", json!({"role": "nobody"}))]),
            command("t", "4", None, vec![user("helpdesk"), session("s", T0 + 100_000)]),
        ]);
        assert_eq!(named(&run, Table::User), ["t ann helpdesk"], "of the other tenant all was refused");
        let outcomes = judgements(&run);
        let refused: Vec<_> =
            outcomes.iter().filter_map(|j| j.outcome.as_ref().err()).map(|r| (r.code, r.operation)).collect();
        assert_eq!(refused, [(RefusalCode::Reference, 1)]);
        let audit: Vec<_> =
            run.rows::<Audit>().into_iter().map(|a| (a.tenant_id, a.action, a.subject, a.reason)).collect();
        assert_eq!(audit.len(), 5, "{audit:?}");
        assert!(audit.contains(&("u".into(), "users:put".into(), "bob".into(), Some("because".into()))), "{audit:?}");
        told.push((run.tables.clone(), outcomes, audit));
    }
    assert!(told.iter().all(|one| *one == told[0]));
}

#[test]
fn resources_and_answers_outlive_the_process() {
    for workers in [1, 3] {
        let mut run = Run::new(workers);
        let first = command("t", "key", Some("asked"), vec![put("users", "ann", json!({"role": "viewer"}))]);
        run.tick(vec![
            first.clone(),
            command("t", "x", None, vec![session("soon", T0 + 60_000), session("late", T0 + 600_000)]),
        ]);
        run.tick(vec![fact(&Fact::Snapshot)]);
        let answered = judgements(&run)[0].clone();
        let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
        let mut again = Run::from(2, start, run.clock_ms);
        assert_eq!(again.tables.state, run.tables.state);
        // Sent again it is answered as it was, and done no second time.
        let audits = again.rows::<Audit>().len();
        again.tick(vec![
            first,
            command("t", "key", Some("another"), vec![put("users", "ann", json!({"role": "admin"}))]),
        ]);
        let told = judgements(&again);
        assert!(told.contains(&answered), "{told:?}");
        assert!(told.iter().any(|j| j.outcome.as_ref().is_err_and(|r| r.code == RefusalCode::IdempotencyMismatch)));
        assert_eq!(
            (named(&again, Table::User), again.rows::<Audit>().len()),
            (vec!["t ann viewer".to_owned()], audits)
        );
        // What is over goes by itself, at the clock's instant and not before.
        assert_eq!(named(&again, Table::Session), ["t late", "t soon"]);
        again.tick_after(T0 + 59_999 - again.clock_ms, Vec::new());
        assert_eq!(named(&again, Table::Session).len(), 2);
        again.tick_after(1, Vec::new());
        assert_eq!(named(&again, Table::Session), ["t late"]);
        again.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: again.epoch, state: again.snapshot.clone(), ..Start::default() };
        assert_eq!(named(&Run::from(1, start, again.clock_ms), Table::Session), ["t late"]);
    }
}

#[test]
fn what_stood_before_there_were_resources_stands_after_an_upgrade() {
    let actor = || Actor { name: "ann".into(), role: Role::Operator };
    let receiver = Receiver {
        tenant: "t".into(),
        name: "ops".into(),
        url: "http://host/hook?key=hush".into(),
        kind: ReceiverKind::Alertmanager,
        group_by: vec![],
        group_wait_ms: 0,
        group_interval_ms: 0,
        repeat_interval_ms: 0,
        send_resolved: true,
        headers: BTreeMap::new(),
        credential: None,
        signing_key: None,
        template: None,
        of_host: true,
    };
    let token = Token {
        id: "0a".into(),
        name: "grafana".into(),
        sha256: "hush".into(),
        tenant: "u".into(),
        role: Role::Viewer,
        partitions: vec![],
        expires_ms: None,
    };
    let group = DeviceGroup {
        tenant: "t".into(),
        name: "core".into(),
        condition: Some("type:router".into()),
        members: vec![],
        description: String::new(),
        actor: actor(),
        reason: "because".into(),
    };
    let gone = |name: &str| Fact::DeviceGroupGone {
        tenant: "t".into(),
        name: name.into(),
        actor: actor(),
        reason: String::new(),
    };
    let policy = Fact::IpLink {
        tenant: "t".into(),
        policy: radarflow_proto::fact::IpLink::Off,
        actor: actor(),
        reason: String::new(),
    };
    let facts = [Fact::Receiver(receiver), Fact::Token(token), Fact::DeviceGroup(group), gone("old"), policy];
    // As snapshots had them: by subject, each as it was stated.
    let entries = facts.iter().map(|fact| {
        let stated = serde_json::to_string(fact).unwrap();
        (encode(&fact.subject().unwrap()), encode(&stated))
    });
    let state = Restored::from([("facts".to_owned(), entries.collect())]);
    let tick = Tick { epoch: 7, clock_ms: T0, live_ms: T0 };
    let state = upgrade::upgrade(state, &BTreeMap::new(), &tick).unwrap();
    assert_eq!(state["facts"].len(), 1, "the policy is a fact still");
    let run = Run::from(2, Start { epoch: 7, state, ..Start::default() }, T0);
    assert_eq!(named(&run, Table::Receiver), ["t ops http://host"]);
    assert_eq!(named(&run, Table::ApiToken), ["u 0a grafana"]);
    assert_eq!(named(&run, Table::DeviceGroup), ["t core ann"]);
}

#[test]
fn the_audit_is_one_chain_a_tenant_whoever_computes_it() {
    let mut chains = Vec::new();
    for workers in [1, 2, 3] {
        let mut run = Run::new(workers);
        let user = |name: &str| put("users", name, json!({"role": "viewer"}));
        let failed = |tenant: &str| {
            fact(&Fact::SignInFailed {
                tenant: tenant.into(),
                user: "eve".into(),
                address: None,
                reason: String::new(),
            })
        };
        run.tick(vec![
            failed("t"),
            command("t", "1", None, vec![user("zoe"), user("ann")]),
            command("u", "2", None, vec![user("bob")]),
            failed("t"),
        ]);
        run.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
        let mut again = Run::from(workers % 3 + 1, start, run.clock_ms);
        again.tick(vec![failed("u"), command("t", "3", None, vec![user("zoe")])]);
        let mut rows = run.rows::<Audit>();
        rows.extend(again.rows::<Audit>());
        rows.sort_by_key(|row| (row.tenant_id.clone(), row.sequence));
        for tenant in ["t", "u"] {
            let of: Vec<&Audit> = rows.iter().filter(|row| row.tenant_id == tenant).collect();
            let mut before = None;
            for (nth, row) in of.iter().enumerate() {
                assert_eq!((row.sequence, &row.previous), (Some(nth as i64 + 1), &before), "{row:?}");
                assert_eq!(row.hash, Some(hash(row)), "{row:?}");
                before = row.hash.clone();
            }
        }
        let told: Vec<_> =
            rows.iter().map(|row| (row.tenant_id.clone(), row.subject.clone(), row.hash.clone())).collect();
        let subjects: Vec<&str> = told.iter().map(|(_, subject, _)| subject.as_str()).collect();
        // The order of the ledger; of a command that of its operations.
        assert_eq!(subjects, ["eve", "zoe", "ann", "eve", "zoe", "bob", "eve"]);
        chains.push(told);
    }
    assert!(chains.iter().all(|chain| *chain == chains[0]));
}
