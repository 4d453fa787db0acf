//! Explanations of the definition's scenarios: what they say, not only that they say something.

use radarflow_proto::fact::{Actor, Fact, Link, LinkKind, Role};
use radarflow_proto::ports::{FoundRecord, RecordQuery};
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_proto::rows::StateRow;
use radarflow_reconcile::identity::explain::{Apart, Explanation, IdentityContext, Placed, apart, explain};
use radarflow_reconcile::identity::name::uid;

use crate::harness::*;

fn named(kind: &str, id: &str) -> String {
    uid("default", &format!("{kind}:{id}"))
}

fn run() -> Run {
    let mut run = Run::new(2);
    run.tick(instances());
    run
}

/// An item with all that identity reads.
fn full(source: &str, meta: &str, ip: &str, mac: &str, host: &str) -> String {
    let at = T0 / 1000 - 86_400;
    format!(
        r#"{{"source":"{source}","ip":"{ip}","mac":"{mac}","hostname":"{host}","timestamp":{at},"metadata":{{{meta}}}}}"#
    )
}

fn link(id: &str, kind: LinkKind, a: (IdKind, &str), b: (IdKind, &str)) -> Input {
    let id_of = |(kind, value): (IdKind, &str)| Identifier { kind, namespace: String::new(), value: value.to_owned() };
    fact(&Fact::Link(Link {
        tenant: "t".into(),
        partition: "default".into(),
        id: id.into(),
        kind,
        a: id_of(a),
        b: id_of(b),
        actor: Actor { name: "ann".into(), role: Role::Operator },
        reason: "one chassis".into(),
    }))
}

fn placed(found: Vec<FoundRecord>) -> Vec<Placed> {
    found.into_iter().map(|f| Placed { record: f.record, uid: f.uid, how: f.how }).collect()
}

fn known(run: &Run) -> IdentityContext {
    let mut known = IdentityContext::default();
    for row in run.tables.state.values() {
        match row {
            StateRow::DeviceIdentifier(i) if i.state != "held" => {
                known.loose.insert(format!("{}:{}", i.identifier_type, i.identifier_value), i.state.clone());
            }
            StateRow::IpOwnership(o) => known.owners.extend(o.device_uid.clone().map(|uid| (o.ip.clone(), uid))),
            StateRow::Link(link) => known.links.push((**link).clone()),
            _ => {}
        }
    }
    known
}

fn of(run: &Run, uids: &[&str]) -> Vec<Placed> {
    let uids = uids.iter().map(|u| (*u).to_owned()).collect();
    placed(run.find(RecordQuery::Devices { tenant: "t".into(), uids }))
}

fn why(run: &Run, uid: &str) -> Explanation {
    let own = of(run, &[uid]);
    let identifiers: Vec<Identifier> = own
        .iter()
        .flat_map(|p| {
            let macs = p.record.macs.iter().map(|m| Identifier {
                kind: IdKind::Mac,
                namespace: String::new(),
                value: m.clone(),
            });
            p.record.ids.iter().cloned().chain(macs).collect::<Vec<_>>()
        })
        .collect();
    let near = run.find(RecordQuery::Sharing { tenant: "t".into(), partition: "default".into(), identifiers });
    let near: Vec<Placed> = placed(near).into_iter().filter(|p| p.uid != uid).collect();
    explain(&own, &near, &known(run))
}

fn why_not(run: &Run, a: &str, b: &str) -> Apart {
    apart(&of(run, &[a]), &of(run, &[b]), &known(run))
}

fn rules(apart: &Apart) -> Vec<&'static str> {
    apart.kept_apart_by.iter().map(|r| r.rule).collect()
}

#[test]
fn s20_the_record_that_carries_both_identifiers_is_the_witness() {
    let mut run = run();
    run.tick(vec![sync(&[
        armis("X", "10.0.0.1", 1, ""),
        netbox("N", "10.0.0.2", 2, ""),
        item("snow", r#""integration_id":"S","armis_device_id":"X","netbox_device_id":"N""#, "10.0.0.3", 3),
    ])]);
    let why = why(&run, &run.tables.uids()[0]);
    let records: Vec<_> = why.records.iter().map(|r| r.record.as_str()).collect();
    assert_eq!(records, ["armis/main/X", "integration/snow.main/S", "netbox/main/N"]);
    assert_eq!(why.records[1].identifiers, ["integration:S", "armis:X", "netbox:N"]);
    let in_force: Vec<_> =
        why.edges.iter().filter(|e| e.rule == "strong_identifier" && e.in_force).map(|e| e.asserts.as_str()).collect();
    assert_eq!(in_force, ["armis:X", "armis:X", "integration:S", "netbox:N", "netbox:N"]);
    assert!(why.links.is_empty() && why.dropped.is_empty());
}

#[test]
fn s30b_an_ambiguous_identifier_names_who_asserts_it() {
    let mut run = run();
    let item = |id: &str, n: i64| armis(id, &format!("10.0.0.{n}"), n, r#","agent_id":"G""#);
    run.tick(vec![sync(&[item("A1", 1), item("A2", 2)])]);
    let (a, b) = (named("armis", "A1"), named("armis", "A2"));
    let explained = why(&run, &a);
    assert_eq!(
        (explained.dropped[0].identifier.as_str(), explained.dropped[0].state.as_str()),
        ("agent:G", "ambiguous")
    );
    let by = [("armis/main/A1".to_owned(), a.clone()), ("armis/main/A2".to_owned(), b.clone())];
    assert_eq!(explained.dropped[0].asserted_by, by);
    let edge = explained.edges.iter().find(|e| e.asserts == "agent:G").unwrap();
    assert_eq!((edge.in_force, edge.why_not.as_deref()), (false, Some("ambiguous")));
    let apart = why_not(&run, &a, &b);
    assert_eq!(rules(&apart), ["exclusive"]);
    assert!(apart.kept_apart_by[0].says.contains("one holds armis:A1, the other armis:A2"), "{apart:?}");
    assert!(apart.evidence[0].says.starts_with("both assert agent:G, which is ambiguous"), "{apart:?}");
}

#[test]
fn s38_what_two_inventories_have_in_common_and_what_they_have_not() {
    let mut run = run();
    let armis_1 = full("armis", r#""armis_device_id":"1""#, "10.0.0.1", "", "web1.a.example");
    run.tick(vec![sync(&[armis_1, full("netbox", r#""netbox_device_id":"2""#, "10.0.0.1/24", "", "web1")])]);
    let why = why(&run, &run.tables.uids()[0]);
    assert_eq!((why.links.len(), why.links[0].rule), (1, "cross_source"));
    assert_eq!(why.links[0].between, ["armis/main/1", "netbox/main/2"]);
    assert_eq!(why.links[0].witness, "both claim 10.0.0.1 and are called web1");
    // Renamed: the address is not enough any more.
    let at = T0 / 1000 - 80_000;
    let renamed = format!(
        r#"{{"source":"netbox","ip":"10.0.0.1","hostname":"web2","timestamp":{at},"metadata":{{"netbox_device_id":"2"}}}}"#
    );
    run.tick(vec![sync(&[renamed])]);
    let apart = why_not(&run, &named("armis", "1"), &named("netbox", "2"));
    assert_eq!(rules(&apart), ["evidence"]);
    assert_eq!(apart.evidence[0].says, "both claim 10.0.0.1, but one is called web1, the other web2");
}

#[test]
fn s18_a_shared_mac_and_s13_a_local_one() {
    let mut run = run();
    let item = |id: &str, ip: &str, mac: &str| full("armis", &format!(r#""armis_device_id":"{id}""#), ip, mac, "");
    run.tick(vec![sync(&[
        item("1", "10.0.0.1", "0CEA1432D278"),
        full("netbox", r#""netbox_device_id":"2""#, "10.0.0.2", "0CEA1432D278", ""),
        full("snow", r#""integration_id":"3""#, "10.0.0.3", "0CEA1432D278", ""),
        full("snow", r#""integration_id":"4""#, "10.0.0.4", "0EEA1432D278", ""),
    ])]);
    let apart = why_not(&run, &named("armis", "1"), &named("integration", "3"));
    assert_eq!(rules(&apart), ["evidence"]);
    assert_eq!(apart.evidence[0].says, "both assert the MAC 0CEA1432D278, which is ambiguous: two devices assert it");
    let apart = why_not(&run, &named("armis", "1"), &named("netbox", "2"));
    let shown = "both know the MAC 0CEA1432D278, but one only shows it: it corroborates an address, no more";
    assert_eq!(apart.evidence[0].says, shown);
    let local = why(&run, &named("integration", "4"));
    let edge = local.edges.iter().find(|e| e.rule == "mac").unwrap();
    assert!(!edge.in_force && edge.why_not.as_ref().unwrap().starts_with("locally administered"), "{edge:?}");
    assert_eq!(why_not(&run, &named("armis", "1"), &named("integration", "4")).evidence, []);
}

#[test]
fn s22_s24_polled_and_swept_records_say_what_joins_them() {
    let mut run = run();
    run.tick(vec![sync(&[
        full("armis", r#""armis_device_id":"1""#, "10.0.0.1", "0CEA1432D278", ""),
        full("mapper", r#""identity_mac_kind":"primary""#, "10.0.0.9", "0CEA1432D278", ""),
    ])]);
    run.tick(vec![sweep("v", "", 3, &[("10.0.0.1", true)])]);
    let why = why(&run, &named("armis", "1"));
    let links: Vec<_> = why.links.iter().map(|l| (l.rule, l.between[1].as_str(), l.witness.as_str())).collect();
    assert_eq!(
        links,
        [
            ("ip_alias", "sweep//10.0.0.1", "both are at 10.0.0.1"),
            ("mac", "mapper/main/10.0.0.9", "both assert the MAC 0CEA1432D278"),
        ]
    );
    assert_eq!(why.records.iter().map(|r| r.how).collect::<Vec<_>>(), ["strong_identifier", "mac", "ip_alias"]);
}

#[test]
fn s31_s32_operators_are_named() {
    let mut run = run();
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 1, ""), armis("2", "10.0.0.2", 1, "")])]);
    run.tick(vec![link("l", LinkKind::Must, (IdKind::Armis, "1"), (IdKind::Armis, "2"))]);
    let why = why(&run, &run.tables.uids()[0]);
    assert_eq!(why.links[0].between, ["armis:1", "armis:2"]);
    assert_eq!((why.links[0].rule, why.links[0].witness.as_str()), ("operator", "ann said so: one chassis"));
    run.tick(vec![link("l", LinkKind::Cannot, (IdKind::Armis, "1"), (IdKind::Armis, "2"))]);
    let apart = why_not(&run, &named("armis", "1"), &named("armis", "2"));
    assert_eq!(rules(&apart), ["operator", "exclusive"]);
    assert_eq!(apart.kept_apart_by[0].says, "ann said that armis:1 and armis:2 are two: one chassis");
}

#[test]
fn links_between_addresses_and_overruled_ones_are_named() {
    let mut run = run();
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 1, "")]), sweep("v", "", 3, &[("10.0.0.5", true)])]);
    let (id, ip) = ((IdKind::Armis, "1"), (IdKind::Ip, "10.0.0.5"));
    run.tick(vec![link("c", LinkKind::Cannot, id, ip)]);
    let apart = why_not(&run, &named("armis", "1"), &named("ip", "10.0.0.5"));
    assert_eq!(rules(&apart), ["operator"]);
    run.tick(vec![link("m", LinkKind::Must, id, ip)]);
    let why = why(&run, &named("armis", "1"));
    let links: Vec<_> = why.links.iter().map(|l| (l.rule, l.witness.as_str())).collect();
    let overruled = "ann said that they are two, but must-links connect them: one chassis";
    assert_eq!(links, [("operator", "ann said so: one chassis"), ("overruled", overruled)]);
    assert_eq!(why.records.iter().map(|r| r.how).collect::<Vec<_>>(), ["operator", "operator"]);
}

#[test]
fn nothing_of_another_partition_or_tenant_is_found() {
    let mut run = run();
    let elsewhere = r#"{"source":"armis","partition":"p2","ip":"10.0.0.1","mac":"0CEA1432D278","metadata":{"armis_device_id":"1"}}"#;
    run.tick(vec![sync(&[
        elsewhere.to_owned(),
        full("armis", r#""armis_device_id":"2""#, "10.0.0.1", "0CEA1432D278", ""),
    ])]);
    let mac = Identifier { kind: IdKind::Mac, namespace: String::new(), value: "0CEA1432D278".into() };
    let found = |tenant: &str, partition: &str| {
        let identifiers = vec![mac.clone()];
        let found = run.find(RecordQuery::Sharing { tenant: tenant.into(), partition: partition.into(), identifiers });
        found.iter().map(|f| f.record.key.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (found("t", "default"), found("t", "p2"), found("u", "default")),
        (vec!["2".into()], vec!["1".into()], vec![])
    );
    let uids = run.tables.uids();
    assert!(run.find(RecordQuery::Devices { tenant: "u".into(), uids }).is_empty());
}
