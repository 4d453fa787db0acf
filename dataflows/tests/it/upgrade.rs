//! State of older builds, converted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_dataflows::identity::How;
use radarflow_dataflows::identity::engine::{Row, Said, Unresolved};
use radarflow_dataflows::keyed::Tick;
use radarflow_dataflows::listings::ListingKey;
use radarflow_dataflows::records::{FirstSeen, Live, RunName};
use radarflow_dataflows::upgrade::{UpgradeError, upgrade, versions};
use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::{Actor, Fact, Role};
use radarflow_proto::rows::{StateRow, Trap};
use radarflow_reconcile::alert::Condition;
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

/// Alerts and groups as they were before there were routes.
mod before_routes {
    use std::collections::{BTreeMap, VecDeque};

    use radarflow_dataflows::alerts::{AlertKey, GroupKey};
    use radarflow_proto::cell::Time;
    use radarflow_proto::fact::{AlertStatus, ReceiverKind};
    use radarflow_proto::payload::{DueNotification, NotifiedAlert};
    use radarflow_proto::rows::Alert;
    use radarflow_reconcile::alert::Subject;
    use serde::Serialize;

    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
    pub(super) struct Condition {
        rule: String,
        severity: String,
        title: String,
        description: String,
        source_type: String,
        source_id: String,
        device_uid: Option<String>,
        agent_uid: Option<String>,
        labels: BTreeMap<String, String>,
    }

    #[derive(Serialize)]
    struct Life {
        subject: Subject,
        condition: Condition,
        status: AlertStatus,
        active: bool,
        began: Time,
        acknowledged: Option<(Time, String)>,
        escalated: Option<Time>,
        resolved: Option<(Time, String)>,
        occurrences: i64,
    }

    #[derive(Serialize)]
    struct State {
        life: Life,
        holds: BTreeMap<Condition, i64>,
        ended_ms: Option<i64>,
        past: VecDeque<(Life, i64)>,
    }

    #[derive(Serialize)]
    struct Receiver {
        tenant: String,
        name: String,
        url: String,
        kind: ReceiverKind,
        group_by: Vec<String>,
        group_wait_ms: i64,
        group_interval_ms: i64,
        repeat_interval_ms: i64,
        send_resolved: bool,
        headers: BTreeMap<String, String>,
    }

    #[derive(Serialize)]
    struct Due {
        id: String,
        tenant: String,
        receiver: Receiver,
        group_key: String,
        group_labels: BTreeMap<String, String>,
        alerts: Vec<NotifiedAlert>,
        reason: String,
    }

    #[derive(Serialize)]
    struct Group {
        receiver: Receiver,
        labels: BTreeMap<String, String>,
        members: BTreeMap<String, (NotifiedAlert, Option<bool>)>,
        changed_ms: Option<i64>,
        sent_ms: Option<i64>,
        pending: Option<Due>,
        sequence: u64,
    }

    fn receiver(due: &DueNotification) -> Receiver {
        let now = due.receiver.clone();
        Receiver {
            tenant: now.tenant,
            name: now.name,
            url: now.url,
            kind: now.kind,
            group_by: now.group_by,
            group_wait_ms: now.group_wait_ms,
            group_interval_ms: now.group_interval_ms,
            repeat_interval_ms: now.repeat_interval_ms,
            send_resolved: now.send_resolved,
            headers: now.headers,
        }
    }

    type Encoded = (Vec<u8>, Vec<u8>);

    /// The group whose first message is under way.
    pub(super) fn group(due: &DueNotification) -> Encoded {
        let key =
            GroupKey { tenant: due.tenant.clone(), receiver: due.receiver.name.clone(), group: due.group_key.clone() };
        let group = Group {
            receiver: receiver(due),
            labels: due.group_labels.clone(),
            members: due.alerts.iter().map(|alert| (alert.id.clone(), (alert.clone(), Some(true)))).collect(),
            changed_ms: None,
            sent_ms: Some(due.at_ms),
            pending: Some(Due {
                id: due.id.clone(),
                tenant: due.tenant.clone(),
                receiver: receiver(due),
                group_key: due.group_key.clone(),
                group_labels: due.group_labels.clone(),
                alerts: due.alerts.clone(),
                reason: due.reason.clone(),
            }),
            sequence: 1,
        };
        (postcard::to_stdvec(&key).unwrap(), postcard::to_stdvec(&group).unwrap())
    }

    /// The alert of a condition of the program itself.
    pub(super) fn alert(row: &Alert) -> Encoded {
        let (tenant, partition) = (row.tenant_id.clone(), row.partition.clone());
        let subject = Subject { tenant, partition, rule: row.rule.clone(), entity: row.source_id.clone() };
        let condition = Condition {
            rule: row.rule.clone(),
            severity: row.severity.clone(),
            title: row.title.clone(),
            description: row.description.clone(),
            source_type: row.source_type.clone(),
            source_id: row.source_id.clone(),
            device_uid: None,
            agent_uid: None,
            labels: BTreeMap::new(),
        };
        let life = Life {
            subject: subject.clone(),
            condition: condition.clone(),
            status: AlertStatus::Pending,
            active: true,
            began: row.triggered_at,
            acknowledged: None,
            escalated: None,
            resolved: None,
            occurrences: row.occurrence_count,
        };
        let holds = BTreeMap::from([(condition, 1)]);
        let state = State { life, holds, ended_ms: None, past: VecDeque::new() };
        (postcard::to_stdvec(&AlertKey::of_subject(subject)).unwrap(), postcard::to_stdvec(&state).unwrap())
    }
}

#[test]
fn alerts_and_groups_of_before_there_were_routes_go_on() {
    let condition = |holds| {
        fact(&Fact::Condition(radarflow_proto::fact::OwnCondition {
            tenant: "t".into(),
            rule: "sink-down".into(),
            entity: "lake".into(),
            severity: "critical".into(),
            title: "x".into(),
            description: String::new(),
            holds,
        }))
    };
    let mut before = Run::new(2);
    before.tick(vec![crate::notify::receiver("ops"), condition(true)]);
    before.tick(vec![fact(&Fact::Snapshot)]);
    let due = before.outputs_seen.iter().flat_map(|o| o.due.clone()).next().expect("it is told");
    let row =
        before.tables.state.values().find_map(|row| if let StateRow::Alert(a) = row { Some(a.clone()) } else { None });
    let mut old = before.snapshot.clone();
    assert_eq!((old["alerts"].len(), old["groups"].len()), (1, 1));
    old.insert("alerts".into(), vec![before_routes::alert(&row.expect("there is an alert"))]);
    old.insert("groups".into(), vec![before_routes::group(&due)]);
    old.remove("desks");
    let tick = Tick { epoch: before.epoch, clock_ms: before.clock_ms, live_ms: before.clock_ms };
    let mut known = versions();
    known.extend([("alerts".to_owned(), 1), ("groups".to_owned(), 1)]);
    let converted = upgrade(old, &known, &tick).unwrap();
    let start = Start { epoch: before.epoch, state: converted, ..Start::default() };
    let mut after = Run::from(2, start, before.clock_ms);
    assert_eq!(after.tables.state, before.tables.state);
    assert_eq!(after.outputs_seen[0].due, std::slice::from_ref(&due), "what was under way still is");
    let taken = fact(&Fact::Delivery {
        tenant: "t".into(),
        receiver: "ops".into(),
        group_key: due.group_key.clone(),
        notification_id: due.id.clone(),
        delivered: true,
        detail: String::new(),
    });
    after.tick_after(2000, vec![taken, condition(false)]);
    let told: Vec<bool> = after.outputs_seen.iter().flat_map(|o| &o.due).map(|due| due.firing()).collect();
    assert_eq!(told, [true, false], "it is told that it is over");
}

#[test]
fn what_traps_began_and_who_sent_informs_is_known_on() {
    /// What a sender of notifications is remembered by.
    type Notifier = (i64, [(u64, [u32; 16]); 3], [Vec<(u64, i64)>; 2]);
    type Subject = (IpAddr, radarflow_reconcile::alert::Subject);
    type Begun = BTreeMap<Subject, (Condition, i64, (bool, i64))>;

    let mut before = Run::new(2);
    let inform = || notification("10.0.0.1:161", 0xa6, 7, LINK_DOWN, 3, None);
    before.tick(vec![inform()]);
    before.tick(vec![fact(&Fact::Snapshot)]);
    let (mut old, mut new) = (before.snapshot.clone(), before.snapshot.clone());
    for (_, value) in old.get_mut("pairs").expect("a trap began something") {
        let begun: Begun = postcard::from_bytes(value).unwrap();
        let begun: BTreeMap<_, _> = begun.into_iter().map(|(subject, (c, said, _))| (subject, (c, said))).collect();
        *value = postcard::to_stdvec(&begun).unwrap();
    }
    let (of_old, of_new) = (old.get_mut("notifiers"), new.get_mut("notifiers"));
    for ((_, old), (_, new)) in of_old.into_iter().flatten().zip(of_new.into_iter().flatten()) {
        let ((step, _, informs), rest) = postcard::take_from_bytes::<Notifier>(new).unwrap();
        *old = [postcard::to_stdvec(&(step, 1u64, &informs[0])).unwrap(), rest.to_vec()].concat();
        let storms = [(0u64, [0u32; 16]); 3];
        *new = [postcard::to_stdvec(&(step, storms, informs)).unwrap(), rest.to_vec()].concat();
    }
    assert!(old["pairs"] != new["pairs"] && old["notifiers"] != new["notifiers"]);
    let tick = Tick { epoch: before.epoch, clock_ms: before.clock_ms, live_ms: before.clock_ms };
    let mut known = versions();
    known.extend([("pairs".to_owned(), 3), ("notifiers".to_owned(), 1)]);
    let converted = upgrade(old, &known, &tick).unwrap();
    assert_eq!(converted, new);
    let start = Start { epoch: before.epoch, state: converted, ..Start::default() };
    let mut after = Run::from(2, start, before.clock_ms);
    assert_eq!(after.tables.state, before.tables.state);
    after.tick(vec![inform()]);
    assert!(after.rows::<Trap>().is_empty(), "it was there before");
}

#[test]
fn vantages_that_are_sick_are_sick_on() {
    let key = postcard::to_stdvec(&("t", "default", "agent-7")).unwrap();
    let old =
        BTreeMap::from([("sick".to_owned(), vec![(key.clone(), postcard::to_stdvec(&(5i64, 8u64, 9u64)).unwrap())])]);
    let mut known = versions();
    known.insert("sick".to_owned(), 1);
    let converted = upgrade(old, &known, &Tick { epoch: 1, clock_ms: 7, live_ms: 7 }).unwrap();
    assert_eq!(converted["sick"], [(key, postcard::to_stdvec(&(5i64, 8u64, 9u64, None::<(i64, i64)>)).unwrap())]);
}

#[test]
fn ledgers_that_learned_no_rhythm_go_on_where_they_were() {
    use radarflow_dataflows::loss::Delta;
    use radarflow_dataflows::strangers::Reputation;
    use radarflow_proto::cell::Time;
    use radarflow_proto::frame::Kind;
    use radarflow_proto::rows::Source as Row;
    use radarflow_reconcile::rhythm::Rhythm;

    type Counts = (i64, i64, i64, i64, i64, i64, i64);
    /// A row as it was: whose, what was counted, what it waits for, when it was seen, its epoch.
    type Was = ((String, String, String, String), Counts, Option<String>, Time, i64);
    type Before = (Delta, Option<(Was, i64)>, bool);
    type Now = (Delta, Option<(Row, i64)>, bool, Rhythm);
    let was = |row: Row| -> Was {
        let counts = (row.received, row.stored, row.rejected, row.shed, row.lost, row.rows, row.waiting_sets);
        ((row.tenant_id, row.partition, row.source, row.exporter), counts, row.waiting, row.last_seen, row.epoch)
    };
    let before = |(total, said, unsaid, _): Now| -> Before { (total, said.map(|(row, at)| (was(row), at)), unsaid) };
    let line = |peer: Option<&'static str>| {
        let (kind, tenant, partition) = (Kind::Syslog, "t", "default".to_owned());
        Input { kind, tenant, partition, peer, body: "<13>Jan  1 00:00:00 host app: well".into() }
    };
    let counted = |run: &Run| -> BTreeMap<String, (i64, i64)> {
        let of = |row: &StateRow| match row {
            StateRow::Source(row) => Some((row.exporter.clone(), (row.received, row.stored))),
            _ => None,
        };
        run.tables.state.values().filter_map(of).collect()
    };

    let mut run = Run::new(2);
    run.feed = "syslog:127.0.0.1:514".to_owned();
    // Two senders, and what nobody is known to have sent.
    run.tick(vec![line(Some("10.0.0.1:514")), line(Some("10.0.0.2:514")), line(None)]);
    run.tick_after(2000, vec![line(Some("10.0.0.1:514"))]);
    run.tick_after(2000, vec![]);
    run.tick(vec![fact(&Fact::Snapshot)]);
    let all = BTreeMap::from([(String::new(), (1, 1)), ("10.0.0.1".into(), (2, 2)), ("10.0.0.2".into(), (1, 1))]);
    assert_eq!(counted(&run), all);

    let mut old = run.snapshot.clone();
    for (_, value) in old.get_mut("sources").expect("senders have ledgers") {
        let share: BTreeMap<String, (Now, Reputation)> = postcard::from_bytes(value).unwrap();
        let share: BTreeMap<_, _> =
            share.into_iter().map(|(name, (now, worth))| (name, (before(now), worth))).collect();
        *value = postcard::to_stdvec(&share).unwrap();
    }
    for (_, value) in old.get_mut("feeds").expect("feeds have ledgers") {
        *value = postcard::to_stdvec(&before(postcard::from_bytes(value).unwrap())).unwrap();
    }
    let tick = Tick { epoch: run.epoch, clock_ms: run.clock_ms, live_ms: run.clock_ms };
    let mut known = versions();
    known.insert("sources".into(), 2);
    known.remove("feeds");
    let state = upgrade(old, &known, &tick).unwrap();
    let start = Start { epoch: run.epoch, state, ..Start::default() };
    let mut after = Run::from(1, start, run.clock_ms);
    after.feed.clone_from(&run.feed);
    // What was counted is said again at once, and counted on.
    after.tick_after(1000, vec![]);
    assert_eq!(counted(&after), all);
    after.tick_after(2000, vec![line(Some("10.0.0.2:514")), line(None)]);
    after.tick_after(2000, vec![]);
    let on = BTreeMap::from([(String::new(), (2, 2)), ("10.0.0.1".into(), (2, 2)), ("10.0.0.2".into(), (2, 2))]);
    assert_eq!(counted(&after), on);
}
