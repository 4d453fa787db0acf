//! The identity scenarios that need stages 1, 3 and 4, through the whole dataflow.

use radarflow_proto::payload::AgentPush;
use radarflow_reconcile::identity::name::uid;

use crate::harness::*;

fn run() -> Run {
    let mut run = Run::new(2);
    run.tick(instances());
    run
}

fn armis_uid(id: &str) -> String {
    uid("default", &format!("armis:{id}"))
}

fn check_in(agent: &str, ip: &str) -> Input {
    let push =
        AgentPush { agent_id: agent.into(), source_ip: ip.into(), hostname: agent.into(), ..AgentPush::default() };
    pushed(&push, "", "")
}

#[test]
fn s01_a_device_moves() {
    let mut run = run();
    run.tick(vec![sync(&[armis("armis-123", "10.0.0.1", 1, "")])]);
    let tables = run.tick(vec![sync(&[armis("armis-123", "10.0.0.2", 2, "")])]);
    assert_eq!(tables.uids(), ["sr:14f9ca79-be46-436f-b6b5-9a83ca66a350"]);
    assert_eq!(tables.devices()[0].ip.as_deref(), Some("10.0.0.2"));
    assert!(tables.owner("default", "10.0.0.1").is_none());
}

#[test]
fn s02_a_later_claim_owns() {
    let mut run = run();
    run.tick(vec![sync(&[armis("A", "10.0.1.1", 1, "")])]);
    let tables = run.tick(vec![sync(&[armis("B", "10.0.1.1", 2, "")])]);
    assert_eq!(tables.devices().len(), 2);
    assert_eq!(tables.device(&armis_uid("A")).ip, None);
    assert_eq!(tables.device(&armis_uid("B")).ip.as_deref(), Some("10.0.1.1"));
}

#[test]
fn s03_s04_addresses_swap_and_rotate_uids_stay() {
    let first = [armis("X", "10.0.0.1", 1, ""), armis("Y", "10.0.0.2", 1, "")];
    let second = [armis("X", "10.0.0.2", 2, ""), armis("Y", "10.0.0.1", 2, "")];
    for batches in [
        vec![first.to_vec(), second.to_vec()],
        vec![[&first[..], &second[..]].concat()],
        vec![second.to_vec(), first.to_vec()],
        vec![first.to_vec(), vec![second[1].clone()], vec![second[0].clone()]],
    ] {
        let mut run = run();
        for batch in batches {
            run.tick(vec![sync(&batch)]);
        }
        assert_eq!(run.tables.device(&armis_uid("X")).ip.as_deref(), Some("10.0.0.2"));
        assert_eq!(run.tables.device(&armis_uid("Y")).ip.as_deref(), Some("10.0.0.1"));
    }
    let mut run = run();
    run.tick(vec![sync(&[
        armis("A", "10.0.0.1", 1, ""),
        armis("B", "10.0.0.2", 1, ""),
        armis("C", "10.0.0.3", 1, ""),
    ])]);
    let t = run.tick(vec![sync(&[
        armis("A", "10.0.0.2", 2, ""),
        armis("B", "10.0.0.3", 2, ""),
        armis("C", "10.0.0.9", 2, ""),
    ])]);
    for (id, ip) in [("A", "10.0.0.2"), ("B", "10.0.0.3"), ("C", "10.0.0.9")] {
        assert_eq!(t.device(&armis_uid(id)).ip.as_deref(), Some(ip));
    }
}

#[test]
fn s05_the_later_event_time_owns_whatever_comes_first() {
    let items = [armis("X", "10.0.0.1", 1, ""), armis("Y", "10.0.0.1", 2, "")];
    for items in [items.to_vec(), items.iter().rev().cloned().collect()] {
        let mut run = run();
        let tables = run.tick(vec![sync(&items)]);
        assert_eq!(tables.owner("default", "10.0.0.1").unwrap().device_uid, Some(armis_uid("Y")));
    }
}

#[test]
fn s08_s09_partitions_are_apart_and_the_empty_one_is_default() {
    let mut run = run();
    run.tick(vec![sweep("a", "default", 1, &[("10.0.0.5", true)]), sweep("a", "tenant-b", 1, &[("10.0.0.5", true)])]);
    let tables = run.tick(vec![sweep("a", "", 2, &[("10.0.0.5", true)])]);
    let mut expected =
        ["sr:c4c648c4-c5ad-44bd-ba44-68f98c0544ca".to_owned(), "sr:2ff69c5b-0703-4a6f-af04-017887437c45".to_owned()];
    expected.sort();
    assert_eq!(tables.uids(), expected);
}

#[test]
fn s10_s11_agents_move_and_take_over() {
    let mut run = run();
    run.tick(vec![check_in("k8s-agent", "10.0.1.5")]);
    let tables = run.tick(vec![check_in("k8s-agent", "10.0.2.12")]);
    assert_eq!(tables.uids(), ["sr:a7ccecf5-25f2-4365-a019-96f9138e65ce"]);
    assert_eq!(tables.devices()[0].ip.as_deref(), Some("10.0.2.12"));
    let mut run = self::run();
    run.tick(vec![check_in("a", "10.0.0.10"), check_in("b", "10.0.0.20")]);
    let tables = run.tick(vec![check_in("b", "10.0.0.10")]);
    assert_eq!(tables.devices().len(), 2);
    assert_eq!(tables.owner("default", "10.0.0.10").unwrap().device_uid, Some(uid("default", "agent:b")));
}

#[test]
fn s12_agent_names_collapse_only_where_they_should() {
    let mut run = run();
    run.tick(vec![check_in("agent-dusk", "10.0.0.1")]);
    run.tick(vec![check_in("agent-agent-dusk", "10.0.0.1")]);
    let tables = run.tick(vec![check_in("db-1", "10.0.0.2"), check_in("db-db-1", "10.0.0.3")]);
    assert_eq!(tables.devices().len(), 3);
}

#[test]
fn s20_a_record_that_carries_both_joins_them_and_its_retraction_parts_them() {
    let mut run = run();
    run.tick(vec![sync(&[armis("X", "10.0.0.1", 1, ""), netbox("N", "10.0.0.2", 2, "")])]);
    let apart = run.tables.clone();
    let integration = |more: &str| {
        item(
            "snow",
            &format!(
                r#""integration_type":"snow","integration_id":"I","armis_device_id":"X","netbox_device_id":"N"{more}"#
            ),
            "",
            3,
        )
    };
    let tables = run.tick(vec![sync(&[integration("")])]);
    assert_eq!(tables.uids(), [armis_uid("X")]);
    assert_eq!(tables.redirect(&uid("default", "netbox:N")), Some(armis_uid("X")));
    run.tick(vec![sync(&[integration(r#","_deleted":"true""#)])]);
    let mut expected = apart.uids();
    expected.sort();
    assert_eq!(run.tables.uids(), expected);
    assert_eq!(run.tables.device(&uid("default", "netbox:N")).ip.as_deref(), Some("10.0.0.2"));
}

#[test]
fn s21_an_agent_and_an_armis_device_become_one_named_by_the_earlier() {
    let mut run = run();
    run.tick(vec![sync(&[armis("Y", "10.0.0.7", 1, "")])]);
    run.tick(vec![check_in("G", "10.0.0.8")]);
    assert_eq!(run.tables.devices().len(), 2);
    let tables = run.tick(vec![sync(&[armis("Y", "10.0.0.7", 2, r#","agent_id":"G""#)])]);
    assert_eq!(tables.uids(), [armis_uid("Y")]);
    assert_eq!(tables.redirect(&uid("default", "agent:G")), Some(armis_uid("Y")));
}

#[test]
fn s24_a_sweep_before_or_after_the_inventory() {
    let provisional = "sr:c4c648c4-c5ad-44bd-ba44-68f98c0544ca";
    for inventory_first in [true, false] {
        let mut run = run();
        let steps = [sync(&[armis("Z", "10.0.0.5", 1, "")]), sweep("a", "", 2, &[("10.0.0.5", true)])];
        let order = if inventory_first { [0, 1] } else { [1, 0] };
        for i in order {
            run.tick(vec![steps[i].clone()]);
        }
        assert_eq!(run.tables.uids(), [armis_uid("Z")]);
        assert_eq!(run.tables.redirect(provisional), Some(armis_uid("Z")));
        assert_eq!(run.tables.device(&armis_uid("Z")).is_available, Some(true));
    }
}

#[test]
fn s30_a_contested_group_stands_apart_until_it_is_resolved() {
    let mut run = run();
    let agent = check_in("G", "10.9.0.1");
    let snow = |id: &str, links: &str| {
        item("snow", &format!(r#""integration_type":"snow","integration_id":"{id}"{links}"#), "", 1)
    };
    // armis {A1, N}; agent G and netbox N joined by an integration record; armis {A2, G}.
    run.tick(vec![
        sync(&[
            armis("A1", "10.0.0.1", 1, r#","netbox_device_id":"N""#),
            armis("A2", "10.0.0.2", 1, r#","agent_id":"G""#),
            snow("I", r#","netbox_device_id":"N","agent_id":"G""#),
        ]),
        agent,
    ]);
    // Armis items name NetBox's only instance, so the chain A1 - N - I - G - A2 holds two values of Armis.
    assert_eq!(run.tables.devices().len(), 4, "{:?}", run.tables.uids());
    let state = |run: &Run, value: &str| {
        run.tables.state.values().find_map(|r| match r {
            radarflow_proto::rows::StateRow::DeviceIdentifier(i) if i.identifier_value == value => {
                Some(i.state.clone())
            }
            _ => None,
        })
    };
    assert_eq!(state(&run, "N").as_deref(), Some("contested"));
    run.tick(vec![sync(&[armis("A2", "10.0.0.2", 2, "")])]);
    assert_eq!(run.tables.devices().len(), 2);
    assert_eq!(state(&run, "N").as_deref(), Some("held"));
}

#[test]
fn s30b_one_wrong_agent_id_on_twenty_devices() {
    let mut run = run();
    let items: Vec<_> =
        (0..20).map(|i| armis(&format!("A{i}"), &format!("10.0.0.{i}"), 1, r#","agent_id":"G""#)).collect();
    assert_eq!(run.tick(vec![sync(&items)]).devices().len(), 20);
}

#[test]
fn s15_the_runner_is_nobody() {
    let mut run = run();
    let items: Vec<_> =
        (0..500).map(|i| armis(&format!("A{i}"), "", 1, "").replacen('{', r#"{"agent_id":"runner","#, 1)).collect();
    assert_eq!(run.tick(vec![sync(&items)]).devices().len(), 500);
}

#[test]
fn s34_s36_s37() {
    let mut run = run();
    run.tick(vec![sync(&[armis("42", "10.0.0.1", 5, ""), netbox("42", "10.0.0.2", 5, "")])]);
    assert_eq!(run.tables.devices().len(), 2);
    run.tick(vec![sweep("a", "", 6, &[("10.0.0.1", true)])]);
    let tables = run.tick(vec![sync(&[armis("42", "10.0.0.1", 7, r#","is_available":"false""#)])]);
    assert_eq!(tables.device(&armis_uid("42")).is_available, Some(true));
    let before = tables.device(&armis_uid("42")).clone();
    let tables = run.tick(vec![sync(&[armis("42", "10.0.0.99", 2, "")])]);
    assert_eq!(tables.device(&armis_uid("42")).ip, before.ip);
}

#[test]
fn more_claimants_than_a_device_could_have_own_nothing() {
    let mut run = run();
    let items: Vec<_> = (0..17).map(|i| armis(&format!("A{i}"), "172.17.0.1", i, "")).collect();
    let tables = run.tick(vec![sync(&items[..16])]);
    assert!(tables.owner("default", "172.17.0.1").unwrap().device_uid.is_some());
    let tables = run.tick(vec![sync(&items)]);
    let shared = tables.owner("default", "172.17.0.1").unwrap();
    assert_eq!((shared.device_uid, shared.class.as_str()), (None, "shared"));
}
