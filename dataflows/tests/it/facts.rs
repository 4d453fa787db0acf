//! Facts: what is none is refused alone, and what stands stands as it was stated.

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::{Actor, DeviceGroup, Fact, Role};
use radarflow_proto::frame::Kind;
use radarflow_proto::record::IdKind;
use radarflow_proto::rows::{self, Reject, StateRow};

use crate::harness::*;

fn group(name: &str) -> Fact {
    Fact::DeviceGroup(DeviceGroup {
        tenant: "t".to_owned(),
        name: name.to_owned(),
        condition: None,
        members: vec!["sr:a".to_owned()],
        description: String::new(),
        actor: Actor { name: "ann".to_owned(), role: Role::Operator },
        reason: "because".to_owned(),
    })
}

fn stated(body: &str) -> Input {
    Input { body: body.to_owned().into(), ..fact(&Fact::Snapshot) }
}

fn groups(tables: &Tables) -> Vec<String> {
    let group =
        |row: &StateRow| if let StateRow::DeviceGroup(g) = row { Some(rows::DeviceGroup::clone(g)) } else { None };
    tables.state.values().filter_map(group).map(|g| g.name).collect()
}

#[test]
fn what_is_no_fact_is_rejected_once_and_costs_no_other() {
    let bad = [r#"{"fact":"device_group","tenant":"t"}"#, r#"{"fact":"of another kind"}"#, "[", ""];
    for workers in [1, 3] {
        let mut run = Run::new(workers);
        let mut inputs = vec![fact(&group("first"))];
        inputs.extend(bad.map(stated));
        inputs.push(fact(&group("last")));
        run.tick(inputs);
        assert_eq!(groups(&run.tables), ["first", "last"]);
        let rejects = run.rows::<Reject>();
        assert_eq!(rejects.iter().map(|r| r.bytes.as_slice()).collect::<Vec<_>>(), bad.map(str::as_bytes));
        assert!(rejects.iter().all(|r| r.reason.starts_with("not a fact: ")), "{rejects:?}");
    }
}

#[test]
fn whatever_is_refused_is_counted_where_it_came_from() {
    let kinds = [
        Kind::Fact,
        Kind::Status,
        Kind::Staged,
        Kind::Release,
        Kind::Counters,
        Kind::NetFlow,
        Kind::SFlow,
        Kind::Trap,
        Kind::FlowMessage,
        Kind::Gelf,
        Kind::TrapJson,
        Kind::OtlpLogs,
        Kind::OtlpTraces,
        Kind::OtlpMetrics,
    ];
    for workers in [1, 3] {
        let mut run = Run::new(workers);
        // With a sender and without: nothing tells that there is one.
        let peers = [None, Some("10.0.0.9:1000")];
        let inputs =
            kinds.iter().flat_map(|kind| peers.map(|peer| Input { kind: *kind, peer, ..stated("\u{7f}none") }));
        run.tick(inputs.collect());
        run.tick_after(2000, Vec::new());
        let rejects = run.rows::<Reject>();
        assert_eq!(rejects.len(), 2 * kinds.len(), "{rejects:?}");
        let source = |row: &StateRow| if let StateRow::Source(s) = row { Some(rows::Source::clone(s)) } else { None };
        let sources: Vec<_> = run.tables.state.values().filter_map(source).collect();
        assert!(sources.iter().all(|s| s.received == s.rejected && s.stored == 0), "{sources:?}");
        assert_eq!(sources.iter().map(|s| s.rejected).sum::<i64>(), 2 * kinds.len() as i64, "{sources:?}");
    }
}

#[test]
fn what_stands_is_kept_as_it_was_stated_and_said_again_in_one_order() {
    let mut said = Vec::new();
    for workers in [1, 2, 3] {
        let mut run = Run::new(workers);
        let instance = |n: usize| Fact::Instance {
            tenant: "t".to_owned(),
            kind: IdKind::NetBox,
            instance: format!("instance {n}"),
            legacy: n == 0,
        };
        let mut inputs: Vec<Input> = (0..20).rev().map(|n| fact(&instance(n))).collect();
        // Spaces, another order of fields, one that nobody knows: all of it stays.
        let spoken = r#"{ "later": 1, "policy": "off", "tenant": "t", "reason": "", "actor": {"name": "a", "role": "admin"}, "fact": "ip_link" }"#;
        inputs.push(stated(spoken));
        run.tick(inputs);
        let stated = run.outputs_seen.last().unwrap().facts.clone();
        run.tick(vec![fact(&Fact::Snapshot)]);
        let kept = run.snapshot["facts"].iter().map(|(_, value)| postcard::from_bytes::<String>(value).unwrap());
        assert_eq!(kept.filter(|kept| kept == spoken).count(), 1);

        let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
        let again = Run::from(workers, start, run.clock_ms);
        assert_eq!(again.outputs_seen.last().unwrap().facts, stated);
        said.push(stated);
    }
    assert_eq!(said[0].len(), 21);
    assert!(said.iter().all(|s| *s == said[0]), "the order does not depend on the workers");
}
