//! State of older builds, converted.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_dataflows::identity::How;
use radarflow_dataflows::identity::engine::{Row, Said, Unresolved};
use radarflow_dataflows::keyed::Tick;
use radarflow_dataflows::listings::ListingKey;
use radarflow_dataflows::records::{FirstSeen, Live, RunName};
use radarflow_dataflows::upgrade::{UpgradeError, upgrade, versions};
use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::{Actor, Fact, Role};
use radarflow_proto::rows::StateRow;
use radarflow_reconcile::brakes::Brakes;
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};

use crate::harness::*;

/// What the gate kept of a tenant.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "R: Serialize + Ord", deserialize = "R: Deserialize<'de> + Ord"))]
struct Kept<R> {
    brakes: Brakes,
    sources: BTreeMap<u32, Source>,
    clusters: BTreeMap<u64, Cluster<R>>,
    count: u64,
}

#[derive(Serialize, Deserialize)]
struct Source {
    first: Option<u32>,
    lists: bool,
    listed: bool,
    runs: BTreeMap<u32, OneRun>,
}

#[derive(Serialize, Deserialize)]
struct OneRun {
    key: Option<ListingKey>,
    name: String,
    nth: u64,
    approved: bool,
    rejected: bool,
    merged: usize,
    added: usize,
    of: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "R: Serialize + Ord", deserialize = "R: Deserialize<'de> + Ord"))]
struct Cluster<R> {
    by: RunName,
    does: (usize, usize, usize),
    rows: BTreeMap<R, isize>,
}

/// What relations said under a name, as far as the gate heard of it.
#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(dead_code)]
enum Value {
    There,
    Name(Name),
    Policy(u8),
    Live(Live),
    Member(Live, How),
    Placed(Live),
    Claimant(Name, Live),
    Seen(Arc<FirstSeen>),
    Loose(Unresolved, Arc<FirstSeen>),
}

fn as_relations((name, said): Row) -> (Name, Value) {
    match said {
        Said::Rest(live) => (name, Value::Live(live)),
        Said::Member(live, how) => (name, Value::Member(live, how)),
        Said::Held(seen) => (name, Value::Seen(seen)),
        Said::Loose(why, seen) => (name, Value::Loose(why, seen)),
    }
}

/// A gate that withholds something: a sync that would make one device of two, where none may be merged.
fn holding() -> Run {
    let mut run = Run::new(2);
    run.tick(instances());
    let actor = Actor { name: "ann".into(), role: Role::Operator };
    let brakes = Fact::Brakes { tenant: "t".into(), max_merges: 0, max_component: 256, actor, reason: String::new() };
    run.tick(vec![fact(&brakes)]);
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 1, ""), netbox("2", "10.0.0.2", 1, "")])]);
    run.clock_ms += 120_000;
    run.tick(vec![sync(&[netbox("2", "10.0.0.2", 2, r#","armis_device_id":"1""#)])]);
    run.tick(vec![fact(&Fact::Snapshot)]);
    run
}

#[test]
fn what_a_gate_of_relations_withheld_is_withheld_still() {
    let before = holding();
    assert_eq!(before.tables.devices().len(), 2, "what would be one is withheld");
    let new = before.snapshot.clone();
    let mut old = new.clone();
    let mut withheld = 0;
    for (_, value) in old.get_mut("gate").expect("the gate has state") {
        let Kept { brakes, sources, clusters, count } = postcard::from_bytes::<Kept<Row>>(value).unwrap();
        let mut cluster = |Cluster { by, does, rows }: Cluster<Row>| {
            withheld += rows.len();
            Cluster { by, does, rows: rows.into_iter().map(|(row, n)| (as_relations(row), n)).collect() }
        };
        let clusters = clusters.into_iter().map(|(id, of)| (id, cluster(of))).collect();
        *value = postcard::to_stdvec(&Kept { brakes, sources, clusters, count }).unwrap();
    }
    assert!(withheld > 0 && old != new);
    let tick = Tick { epoch: before.epoch, clock_ms: before.clock_ms, live_ms: before.clock_ms };
    let mut known = versions();
    known.insert("gate".into(), 1);
    let converted = upgrade(old, &known, &tick).unwrap();
    assert_eq!(converted["gate"], new["gate"]);

    let start = Start { epoch: before.epoch, state: converted, ..Start::default() };
    let mut after = Run::from(2, start, before.clock_ms);
    assert_eq!(after.tables.state, before.tables.state);
    // It goes through when nobody says it any more.
    after.tick(vec![sync(&[netbox("2", "10.0.0.2", 3, "")])]);
    let held = |run: &Run| {
        let alert =
            |row: &StateRow| matches!(row, StateRow::Alert(a) if a.rule == "run-held" && a.status != "resolved");
        run.tables.state.values().filter(|row| alert(row)).count()
    };
    assert_eq!((held(&before), held(&after)), (1, 0));
}

#[test]
fn a_newer_gate_is_left_alone() {
    let mut newer = versions();
    newer.insert("gate".into(), 99);
    let tick = Tick { epoch: 1, clock_ms: 1, live_ms: 1 };
    let refused = upgrade(BTreeMap::new(), &newer, &tick);
    assert!(matches!(refused, Err(UpgradeError::Newer { found: 99, .. })));
}
