//! A device's life: what operators ask of it, what its records do to that, and that it goes where the device goes.

use radarflow_proto::fact::{Actor, Anchor, DeviceAct, DeviceStep, Fact, Link, LinkKind, Role, Stage};
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_proto::rows::{Device, StateRow};
use radarflow_reconcile::identity::name::uid;

use crate::harness::*;

fn id(kind: IdKind, value: &str) -> Identifier {
    Identifier { kind, namespace: String::new(), value: value.to_owned() }
}

fn actor() -> Actor {
    Actor { name: "ann".into(), role: Role::Operator }
}

/// A step, of the device that the identifier names best.
pub(crate) fn step(anchor: Identifier, from: Stage, act: DeviceAct, command: &str) -> Input {
    fact(&Fact::DeviceStep(DeviceStep {
        tenant: "t".into(),
        partition: "default".into(),
        uid: String::new(),
        anchor: Anchor::Identifier(anchor),
        from,
        act,
        actor: actor(),
        reason: "sold".into(),
        command_id: command.into(),
    }))
}

fn run() -> Run {
    let mut run = Run::new(2);
    run.tick(instances());
    run
}

fn armis_uid(value: &str) -> String {
    uid("default", &format!("armis:{value}"))
}

fn netbox_uid(value: &str) -> String {
    uid("default", &format!("netbox:{value}"))
}

fn shown(run: &Run, uid: &str) -> bool {
    run.tables.device(uid).deleted_at.is_none()
}

#[test]
fn s33_a_deleted_device_comes_back_with_its_record_not_with_a_sweep() {
    let mut run = run();
    let netbox_5 = netbox("5", "10.0.0.5", 1, "");
    run.tick(vec![sync(&[netbox_5.clone(), armis("7", "10.0.0.7", 1, "")])]);
    let uid = netbox_uid("5");
    let before = run.tables.device(&uid).clone();
    run.tick(vec![step(id(IdKind::NetBox, "5"), Stage::Identified, DeviceAct::Delete, "c")]);
    let deleted = run.tables.device(&uid);
    assert_eq!((deleted.deleted_by.as_deref(), deleted.deleted_reason.as_deref()), (Some("ann"), Some("sold")));
    assert!(shown(&run, &armis_uid("7")), "nobody else is touched");

    run.tick(vec![sweep("v", "", 9, &[("10.0.0.5", true)])]);
    assert!(!shown(&run, &uid), "a sweep alone does not bring it back");
    // The same item again, not a word of it changed: it was sighted.
    run.tick(vec![sync(&[netbox_5])]);
    assert!(shown(&run, &uid));
    run.tick(vec![step(id(IdKind::NetBox, "5"), Stage::Identified, DeviceAct::Delete, "d")]);
    assert!(!shown(&run, &uid), "what a sighting undid may be done again");
    run.tick(vec![step(id(IdKind::NetBox, "5"), Stage::Identified, DeviceAct::Restore, "e")]);
    let restored = Device { is_available: before.is_available, ..run.tables.device(&uid).clone() };
    assert_eq!((restored.uid, restored.deleted_at), (before.uid, None));
}

#[test]
fn a_sighting_in_the_frame_of_the_deletion_is_no_later_one() {
    let mut run = run();
    let item = armis("1", "10.0.0.1", 1, "");
    let item = [item];
    run.tick(vec![sync(&item)]);
    let delete = step(id(IdKind::Armis, "1"), Stage::Identified, DeviceAct::Delete, "c");
    run.tick(vec![delete, sync(&item)]);
    assert!(!shown(&run, &armis_uid("1")));
    run.tick(vec![sync(&item)]);
    assert!(shown(&run, &armis_uid("1")));
}

#[test]
fn steps_are_taken_in_order_and_stay_with_what_they_were_said_of() {
    let mut run = run();
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 1, ""), netbox("2", "10.0.0.2", 2, "")])]);
    let armis_1 = || id(IdKind::Armis, "1");
    run.tick(vec![
        step(armis_1(), Stage::Identified, DeviceAct::Manage, "c1"),
        step(armis_1(), Stage::Identified, DeviceAct::Manage, "c2"),
    ]);
    run.tick(vec![step(armis_1(), Stage::Managed, DeviceAct::Decommission, "c3")]);
    let outcomes: Vec<_> = run.outputs_seen.iter().flat_map(|o| o.outcomes.clone()).collect();
    let refused: Vec<_> = outcomes.iter().map(|o| (o.command_id.as_str(), o.refused.is_some())).collect();
    assert_eq!(refused, [("c1", false), ("c2", true), ("c3", false)]);
    assert!(outcomes[1].refused.as_ref().unwrap().ends_with("allowed: decommission, delete"));
    // Sightings do not undo it.
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 9, "")])]);
    assert_eq!(run.tables.device(&armis_uid("1")).lifecycle, "decommissioned");
    assert_eq!(run.tables.device(&netbox_uid("2")).lifecycle, "identified");

    // Made one with another, and two again: the step goes with the identifier it was said of.
    let ends = (id(IdKind::Armis, "1"), id(IdKind::NetBox, "2"));
    run.tick(vec![fact(&Fact::Link(Link {
        tenant: "t".into(),
        partition: "default".into(),
        id: "l".into(),
        kind: LinkKind::Must,
        a: ends.0,
        b: ends.1,
        actor: actor(),
        reason: String::new(),
    }))]);
    let stages = |run: &Run| run.tables.devices().iter().map(|d| d.lifecycle.clone()).collect::<Vec<_>>();
    assert_eq!(stages(&run), ["decommissioned"]);
    let gone = Fact::LinkGone { tenant: "t".into(), id: "l".into(), actor: actor(), reason: String::new() };
    run.tick(vec![fact(&gone)]);
    assert_eq!(run.tables.device(&netbox_uid("2")).lifecycle, "identified");
    assert_eq!(run.tables.device(&armis_uid("1")).lifecycle, "decommissioned");
}

#[test]
fn what_only_an_address_names_can_be_deleted_and_a_machine_that_a_mac_names() {
    let mut run = run();
    run.tick(vec![sweep("v", "", 1, &[("10.0.0.9", true)])]);
    let polled = r#"{"source":"mapper","ip":"10.0.0.4","mac":"0CEA1432D278","timestamp":1703980800,"metadata":{"identity_mac_kind":"primary"}}"#;
    run.tick(vec![sync(&[polled.to_owned()])]);
    let by_address = uid("default", "ip:10.0.0.9");
    let by_mac = uid("default", "mac:0CEA1432D278");
    run.tick(vec![
        step(id(IdKind::Ip, "10.0.0.9"), Stage::Discovered, DeviceAct::Delete, "c"),
        step(id(IdKind::Mac, "0CEA1432D278"), Stage::Identified, DeviceAct::Manage, "d"),
    ]);
    assert!(!shown(&run, &by_address));
    assert_eq!(run.tables.device(&by_mac).lifecycle, "managed");
    // Whoever claims the address is not what was deleted; when they leave it, that is there again, as it was.
    run.tick(vec![sync(&[armis("3", "10.0.0.9", 2, "")])]);
    assert!(shown(&run, &armis_uid("3")));
    assert_eq!(run.tables.devices().len(), 2);
    run.tick(vec![sync(&[armis("3", "10.0.0.8", 3, "")])]);
    assert!(shown(&run, &armis_uid("3")) && !shown(&run, &by_address));
}

#[test]
fn devices_with_an_agent_are_managed_and_nobody_is_told_of_what_is_out_of_service() {
    let mut run = run();
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 1, r#","agent_id":"k8s-agent""#)])]);
    run.tick(vec![fresh_sweep("v", 2, &[("10.0.0.1", true)])]);
    let alerts = |run: &Run| {
        let alerts = run.tables.state.values().filter_map(|r| if let StateRow::Alert(a) = r { Some(a) } else { None });
        alerts.filter(|a| a.rule == "device-offline").map(|a| a.status.clone()).collect::<Vec<_>>()
    };
    for second in [3, 4] {
        run.tick(vec![fresh_sweep("v", second, &[("10.0.0.1", false)])]);
    }
    assert_eq!(alerts(&run), ["pending"]);
    let anchor = || id(IdKind::Armis, "1");
    run.tick(vec![step(anchor(), Stage::Identified, DeviceAct::Manage, "c")]);
    run.tick(vec![step(anchor(), Stage::Managed, DeviceAct::Decommission, "d")]);
    assert_eq!(alerts(&run), ["resolved"]);

    let push = radarflow_proto::payload::AgentPush {
        agent_id: "agent-9".into(),
        source_ip: "10.0.0.3".into(),
        ..Default::default()
    };
    run.tick(vec![pushed(&push, "", "")]);
    assert_eq!(run.tables.device(&uid("default", "agent:agent-9")).lifecycle, "managed");
}

#[test]
fn deleted_devices_go_with_their_records_after_the_retention() {
    let mut run = run();
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 1, ""), armis("2", "10.0.0.2", 1, "")])]);
    for (value, command) in [("1", "c"), ("2", "d")] {
        run.tick(vec![step(id(IdKind::Armis, value), Stage::Identified, DeviceAct::Delete, command)]);
    }
    run.tick(vec![sync(&[armis("2", "10.0.0.2", 1, "")])]);
    let day = 86_400_000;
    run.tick_after(29 * day, vec![]);
    assert!(run.outputs_seen.iter().all(|o| o.reaped.is_empty()));
    run.tick_after(2 * day, vec![]);
    let reaped = run.outputs_seen.last().unwrap().reaped.clone();
    assert_eq!(reaped.iter().map(|(key, _)| key.key.as_str()).collect::<Vec<_>>(), ["1"]);
    // Nobody took it up: it is said again.
    run.tick_after(day, vec![]);
    assert_eq!(run.outputs_seen.last().unwrap().reaped, reaped);
    run.tick(vec![fact(&Fact::Reaped { tenant: "t".into(), records: reaped })]);
    assert_eq!(run.tables.uids(), [armis_uid("2")]);
    run.tick_after(2 * day, vec![]);
    assert!(run.outputs_seen.last().unwrap().reaped.is_empty());
    // What it was called is free again, with nothing left of what was said.
    run.tick(vec![sync(&[armis("1", "10.0.0.1", 40 * 86_400, "")])]);
    assert!(shown(&run, &armis_uid("1")));
}
