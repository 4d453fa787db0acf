//! The identity definition's scenarios, by their numbers, through the whole dataflow.

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::{Actor, Fact, IpLink, Link, LinkKind, Role};
use radarflow_proto::payload::AgentPush;
use radarflow_proto::record::{IdKind, Identifier, SourceKind};
use radarflow_proto::rows::{Device, MergeAudit, StateRow};
use radarflow_reconcile::identity::name::uid;

use crate::harness::*;

pub(crate) fn run() -> Run {
    let mut run = Run::new(2);
    run.tick(instances());
    run
}

fn armis_uid(id: &str) -> String {
    uid("default", &format!("armis:{id}"))
}

pub(crate) fn check_in(agent: &str, ip: &str) -> Input {
    let push =
        AgentPush { agent_id: agent.into(), source_ip: ip.into(), hostname: agent.into(), ..AgentPush::default() };
    pushed(&push, "", "")
}

pub(crate) fn named(kind: &str, id: &str) -> String {
    uid("default", &format!("{kind}:{id}"))
}

/// An item with all that identity reads.
pub(crate) fn full(source: &str, id: &str, ip: &str, mac: &str, host: &str, second: i64, more: &str) -> String {
    let at = T0 / 1000 - 86_400 + second;
    let field = match source {
        "armis" => format!(r#""armis_device_id":"{id}""#),
        "netbox" => format!(r#""netbox_device_id":"{id}""#),
        _ => format!(r#""identity_mac_kind":"{id}""#),
    };
    let host = if host.is_empty() { String::new() } else { format!(r#""hostname":"{host}","#) };
    format!(
        r#"{{"source":"{source}","ip":"{ip}","mac":"{mac}",{host}"timestamp":{at},"metadata":{{{field}{more}}},"sync_meta":{{"sync_run_id":"r{second}"}}}}"#
    )
}

/// A poll of a device by SNMP.
pub(crate) fn polled(ip: &str, mac: &str, host: &str, second: i64) -> String {
    full("mapper", "primary", ip, mac, host, second, "")
}

fn identifier(kind: IdKind, value: &str) -> Identifier {
    Identifier { kind, namespace: String::new(), value: value.to_owned() }
}

fn actor() -> Actor {
    Actor { name: "ann".into(), role: Role::Operator }
}

fn link(id: &str, kind: LinkKind, a: Identifier, b: Identifier) -> Input {
    let (tenant, partition, reason) = ("t".to_owned(), "default".to_owned(), "known".to_owned());
    fact(&Fact::Link(Link { tenant, partition, id: id.to_owned(), kind, a, b, actor: actor(), reason }))
}

fn unlink(id: &str) -> Input {
    fact(&Fact::LinkGone { tenant: "t".into(), id: id.into(), actor: actor(), reason: "wrong".into() })
}

fn standing(run: &Run, value: &str) -> Option<String> {
    run.tables.state.values().find_map(|r| match r {
        StateRow::DeviceIdentifier(i) if i.identifier_value == value => Some(i.state.clone()),
        _ => None,
    })
}

/// Armis says only what it knows.
fn partial_armis(partial: bool) -> Input {
    let (tenant, instance) = ("t".to_owned(), "main".to_owned());
    fact(&Fact::PartialSource { tenant, kind: SourceKind::Armis, instance, partial })
}

#[test]
fn s06_one_id_of_a_partial_source_twice_in_a_batch() {
    let items = [full("armis", "1", "", "0CEA1432D278", "", 1, ""), full("armis", "1", "", "", "h1", 2, "")];
    for order in [[0, 1], [1, 0]] {
        let mut run = run();
        run.tick(vec![partial_armis(true)]);
        let tables = run.tick(vec![sync(&order.map(|n| items[n].clone()))]);
        assert_eq!(tables.uids(), [armis_uid("1")]);
        let device = tables.device(&armis_uid("1"));
        assert_eq!(
            (device.mac.as_deref(), device.hostname.as_deref()),
            (Some("0CEA1432D278"), Some("h1")),
            "{order:?}"
        );
        assert_eq!(standing(&run, "0CEA1432D278").as_deref(), Some("held"));
        // A restart forgets nothing of it.
        run.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, gap_ms: 0, state: run.snapshot.clone(), ..Default::default() };
        let mut again = Run::from(1, start, run.clock_ms);
        let tables = again.tick(vec![sync(&[full("armis", "1", "10.0.0.9", "", "", 3, "")])]);
        let device = tables.device(&armis_uid("1"));
        assert_eq!((device.mac.as_deref(), device.ip.as_deref()), (Some("0CEA1432D278"), Some("10.0.0.9")));
        // A deletion forgets what was said before it, also what comes later.
        let gone = full("armis", "1", "", "", "", 4, r#","_deleted":"true""#);
        assert!(again.tick(vec![sync(&[gone])]).uids().is_empty());
        again.tick(vec![sync(&[full("armis", "1", "", "", "late", 3, "")])]);
        let tables = again.tick(vec![sync(&[full("armis", "1", "10.0.0.8", "", "", 5, "")])]);
        let device = tables.device(&armis_uid("1"));
        assert_eq!((device.mac.as_deref(), device.hostname.as_deref()), (None, None));
        assert_eq!(device.ip.as_deref(), Some("10.0.0.8"));
    }
    // A source that is not partial says everything each time.
    let mut run = run();
    run.tick(vec![sync(&items)]);
    let device = run.tables.device(&armis_uid("1")).clone();
    assert_eq!((device.mac, device.hostname.as_deref()), (None, Some("h1")));
}

#[test]
fn s07_one_mac_in_two_partitions_is_two_devices() {
    let mut run = run();
    let item = |partition: &str| {
        polled("10.0.0.1", "0CEA1432D278", "", 1).replacen('{', &format!(r#"{{"partition":"{partition}","#), 1)
    };
    assert_eq!(run.tick(vec![sync(&[item("p1"), item("p2")])]).devices().len(), 2);
}

#[test]
fn s13_s14_a_scanner_is_not_what_it_scans() {
    let mut run = run();
    run.tick(vec![check_in("agent-dusk", "192.168.2.22")]);
    let scanned = |ip: &str, mac: &str| {
        polled(ip, mac, "tonka01", 1)
            .replacen('{', r#"{"agent_id":"agent-dusk","#, 1)
            .replace(r#""primary""#, r#""primary","agent_id":"agent-dusk""#)
    };
    let tables = run.tick(vec![sync(&[scanned("192.168.10.1", "0E:EA:14:32:D2:78"), scanned("192.168.10.2", "")])]);
    assert_eq!(tables.devices().len(), 3);
    assert_eq!(tables.device(&named("ip", "192.168.10.1")).agent_id, None);
    assert_eq!(tables.device(&named("agent", "agent-dusk")).ip_addresses, ["192.168.2.22"]);
}

#[test]
fn s16_s17_s18_macs_that_two_anchored_devices_share_join_nobody() {
    // A bridge's MAC, a local one, a global one.
    for mac in ["02:42:00:00:00:01", "0E:EA:14:32:D2:78", "0C:EA:14:32:D2:78"] {
        let mut run = run();
        for round in 0..10 {
            let tables = run.tick(vec![sync(&[
                full("armis", "farm01", "10.0.0.1", mac, "farm01", round, ""),
                full("armis", "tonka01", "10.0.0.2", mac, "tonka01", round, ""),
            ])]);
            let mut expected = vec![armis_uid("farm01"), armis_uid("tonka01")];
            expected.sort();
            assert_eq!(tables.uids(), expected);
        }
        let global = mac.starts_with("0C");
        assert_eq!(standing(&run, "0CEA1432D278").as_deref(), global.then_some("ambiguous"));
    }
}

#[test]
fn s19_a_docking_station_belongs_to_who_is_left() {
    let mut run = run();
    let mac = "0CEA1432D278";
    run.tick(vec![sync(&[full("armis", "A1", "", mac, "", 1, ""), full("armis", "A2", "", mac, "", 1, "")])]);
    assert_eq!(standing(&run, mac).as_deref(), Some("ambiguous"));
    run.tick(vec![sync(&[full("armis", "A1", "", "", "", 2, "")])]);
    assert_eq!(standing(&run, mac).as_deref(), Some("held"));
    assert_eq!(run.tables.redirect(&named("mac", mac)), Some(armis_uid("A2")));
    assert_eq!(run.tables.devices().len(), 2);
}

#[test]
fn s22_a_polled_device_changes_its_mac() {
    let mut run = run();
    run.tick(vec![sync(&[polled("10.0.0.1", "0CEA1432D278", "", 1)])]);
    assert_eq!(run.tables.uids(), [named("mac", "0CEA1432D278")]);
    let tables = run.tick(vec![sync(&[polled("10.0.0.1", "0EEA1432D278", "", 2)])]);
    assert_eq!(tables.uids(), [named("ip", "10.0.0.1")]);
    assert_eq!(tables.redirect(&named("mac", "0CEA1432D278")), Some(named("ip", "10.0.0.1")));
}

#[test]
fn s23_an_address_seen_twice_is_one_device() {
    let mut run = run();
    run.tick(vec![sweep("a", "", 1, &[("10.0.0.7", true)])]);
    assert_eq!(run.tick(vec![sweep("b", "", 2, &[("10.0.0.7", true)])]).uids(), [named("ip", "10.0.0.7")]);
}

#[test]
fn s30c_an_ambiguous_identifier_leaves_the_rest_together() {
    let mut run = run();
    run.tick(vec![
        sync(&[
            armis("A1", "10.0.0.1", 1, r#","netbox_device_id":"N","agent_id":"G""#),
            netbox("N", "10.0.0.2", 1, r#","armis_device_id":"A2""#),
            armis("A2", "10.0.0.3", 1, ""),
        ]),
        check_in("G", "10.0.0.4"),
    ]);
    // A1's record is the first that asserts either of A1 and G: the agent's id names the two.
    let mut expected = vec![named("agent", "G"), armis_uid("A2"), named("netbox", "N")];
    expected.sort();
    assert_eq!(run.tables.uids(), expected);
    assert_eq!(run.tables.redirect(&armis_uid("A1")), Some(named("agent", "G")));
    assert_eq!(standing(&run, "N").as_deref(), Some("held"), "its own record still names it");
}

#[test]
fn s31_a_must_link_and_its_removal() {
    let mut run = run();
    run.tick(vec![sync(&[armis("A1", "10.0.0.1", 1, ""), armis("A2", "10.0.0.2", 2, "")])]);
    let must = link("l", LinkKind::Must, identifier(IdKind::Armis, "A1"), identifier(IdKind::Armis, "A2"));
    run.tick(vec![must]);
    assert_eq!(run.tables.uids(), [armis_uid("A1")]);
    assert_eq!(run.tables.device(&armis_uid("A1")).ip_addresses, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(run.tick(vec![unlink("l")]).devices().len(), 2);
}

#[test]
fn two_polled_devices_are_merged_by_their_macs() {
    let mut run = run();
    let macs = ["0C0000000001", "0C0000000002"];
    run.tick(vec![sync(&[polled("10.0.0.1", macs[0], "", 1), polled("10.0.0.2", macs[1], "", 2)])]);
    assert_eq!(run.tables.devices().len(), 2);
    run.tick(vec![link("l", LinkKind::Must, identifier(IdKind::Mac, macs[0]), identifier(IdKind::Mac, macs[1]))]);
    assert_eq!(run.tables.uids(), [named("mac", macs[0])]);
    assert_eq!(run.tables.redirect(&named("mac", macs[1])), Some(named("mac", macs[0])));
    assert_eq!(run.tick(vec![unlink("l")]).devices().len(), 2);
}

#[test]
fn two_devices_known_by_address_alone_are_merged_by_their_addresses() {
    let mut run = run();
    let ips = ["10.0.0.6", "10.0.0.5"];
    run.tick(vec![sweep("v", "", 1, &[(ips[0], true)]), sync(&[polled(ips[1], "", "", 1)])]);
    assert_eq!(run.tables.devices().len(), 2);
    let must = link("l", LinkKind::Must, identifier(IdKind::Ip, ips[0]), identifier(IdKind::Ip, ips[1]));
    run.tick(vec![must]);
    let (six, five) = (named("ip", ips[0]), named("ip", ips[1]));
    assert_eq!(run.tables.uids(), std::slice::from_ref(&five));
    assert_eq!(run.tables.device(&five).ip_addresses, ["10.0.0.5", "10.0.0.6"]);
    assert_eq!(run.tables.redirect(&six), Some(five.clone()));
    // What operators say of an address is above all claims.
    run.tick(vec![sync(&[armis("A", ips[0], 2, "")])]);
    assert_eq!(run.tables.device(&five).ip_addresses, ["10.0.0.5", "10.0.0.6"]);
    assert!(run.tables.device(&armis_uid("A")).ip_addresses.is_empty());
    // Something that names the device better is linked to it too.
    let strong = link("s", LinkKind::Must, identifier(IdKind::Ip, ips[1]), identifier(IdKind::Armis, "A"));
    assert_eq!(run.tick(vec![strong]).uids(), [armis_uid("A")]);
    assert_eq!(run.tables.redirect(&five), Some(armis_uid("A")));
    run.tick(vec![unlink("s")]);
    let mut apart = vec![five.clone(), armis_uid("A")];
    apart.sort();
    assert_eq!(run.tables.uids(), apart);
    run.tick(vec![unlink("l")]);
    assert_eq!(run.tables.uids(), apart, "the address is the inventory's again, and what swept it too");
    assert_eq!(run.tables.redirect(&six), Some(armis_uid("A")));
}

#[test]
fn what_is_polled_at_a_linked_address_is_the_device_it_is_linked_to() {
    let mut run = run();
    let (mac, local) = ("0CEA1432D278", "0EEA1432D278");
    run.tick(vec![sync(&[
        armis("A", "10.0.0.1", 1, ""),
        polled("10.0.0.5", mac, "", 1),
        polled("10.0.0.7", local, "", 1),
    ])]);
    assert_eq!(run.tables.devices().len(), 3);
    let id = |kind, value| identifier(kind, value);
    run.tick(vec![link("five", LinkKind::Must, id(IdKind::Armis, "A"), id(IdKind::Ip, "10.0.0.5"))]);
    assert_eq!(run.tables.redirect(&named("mac", mac)), Some(armis_uid("A")));
    // A local MAC identifies nobody, unless operators say so.
    run.tick(vec![link("seven", LinkKind::Must, id(IdKind::Armis, "A"), id(IdKind::Mac, local))]);
    assert_eq!(run.tables.uids(), [armis_uid("A")]);
    assert_eq!(run.tables.device(&armis_uid("A")).ip_addresses, ["10.0.0.1", "10.0.0.5", "10.0.0.7"]);
    // Without anybody who has a strong identifier, an address that is swept becomes the polled device's.
    run.tick(vec![unlink("five"), unlink("seven"), sweep("v", "", 2, &[("10.0.0.6", true)])]);
    run.tick(vec![link("six", LinkKind::Must, id(IdKind::Ip, "10.0.0.6"), id(IdKind::Ip, "10.0.0.5"))]);
    assert_eq!(run.tables.device(&named("mac", mac)).ip_addresses, ["10.0.0.5", "10.0.0.6"]);
    assert_eq!(run.tables.redirect(&named("ip", "10.0.0.6")), Some(named("mac", mac)));
    assert_eq!(run.tables.devices().len(), 3);
}

#[test]
fn must_links_win_over_cannot_links() {
    let mut run = run();
    let (a, ip) = (identifier(IdKind::Armis, "A"), identifier(IdKind::Ip, "10.0.0.5"));
    run.tick(vec![sync(&[armis("A", "10.0.0.1", 1, "")]), sweep("v", "", 1, &[("10.0.0.5", true)])]);
    run.tick(vec![link("c", LinkKind::Cannot, a.clone(), ip.clone()), link("m", LinkKind::Must, ip, a)]);
    assert_eq!(run.tables.uids(), [armis_uid("A")]);
    assert_eq!(run.tables.device(&armis_uid("A")).ip_addresses, ["10.0.0.1", "10.0.0.5"]);
    assert_eq!(run.tick(vec![unlink("m")]).devices().len(), 2);
}

#[test]
fn s32_an_unmerge_survives_the_next_sync() {
    let mut run = run();
    let snow = r#""integration_type":"snow","integration_id":"I","armis_device_id":"X","netbox_device_id":"N""#;
    let all = |second| {
        let items =
            [armis("X", "10.0.0.1", second, ""), netbox("N", "10.0.0.2", second, ""), item("snow", snow, "", second)];
        sync(&items)
    };
    run.tick(vec![all(1)]);
    assert_eq!(run.tables.devices().len(), 1);
    run.tick(vec![link("l", LinkKind::Cannot, identifier(IdKind::Armis, "X"), identifier(IdKind::NetBox, "N"))]);
    assert_eq!(run.tables.devices().len(), 3, "the integration's own record stands alone");
    assert_eq!(run.tick(vec![all(2)]).devices().len(), 3);
}

#[test]
fn a_mac_in_a_cannot_link_is_not_held_by_the_other_end() {
    let mut run = run();
    let mac = "0CEA1432D278";
    run.tick(vec![sync(&[full("armis", "A", "10.0.0.1", mac, "", 1, ""), polled("10.0.0.2", mac, "", 1)])]);
    assert_eq!(run.tables.uids(), [armis_uid("A")]);
    run.tick(vec![link("l", LinkKind::Cannot, identifier(IdKind::Armis, "A"), identifier(IdKind::Mac, mac))]);
    let mut expected = vec![armis_uid("A"), named("mac", mac)];
    expected.sort();
    assert_eq!(run.tables.uids(), expected);
}

#[test]
fn every_move_of_a_record_is_told_with_its_reason() {
    let mut run = run();
    run.tick(vec![sync(&[armis("X", "10.0.0.1", 1, ""), netbox("N", "10.0.0.2", 2, "")])]);
    assert!(run.rows::<MergeAudit>().is_empty(), "what appears has moved nowhere");
    let snow = r#""integration_type":"snow","integration_id":"I","armis_device_id":"X","netbox_device_id":"N""#;
    run.tick(vec![sync(&[item("snow", snow, "", 3)])]);
    run.tick(vec![sync(&[item("snow", &format!(r#"{snow},"_deleted":"true""#), "", 4)])]);
    run.tick(vec![sync(&[
        full("netbox", "N", "10.0.0.1", "", "h", 5, ""),
        full("armis", "X", "10.0.0.1", "", "h", 5, ""),
    ])]);
    run.tick(vec![sweep("a", "", 6, &[("10.0.0.9", true)])]);
    run.tick(vec![sync(&[full("netbox", "N", "10.0.0.1,10.0.0.9", "", "h", 7, "")])]);
    let (x, n) = (armis_uid("X"), named("netbox", "N"));
    let told: Vec<(String, String, String, String)> =
        run.rows::<MergeAudit>().into_iter().map(|m| (m.record, m.from_uid, m.to_uid, m.reason)).collect();
    let netbox = "netbox/main/N".to_owned();
    assert_eq!(
        told,
        [
            (netbox.clone(), n.clone(), x.clone(), "strong_identifier".to_owned()),
            (netbox.clone(), x.clone(), n.clone(), "retraction".to_owned()),
            (netbox, n, x.clone(), "cross_source".to_owned()),
            ("sweep//10.0.0.9".to_owned(), named("ip", "10.0.0.9"), x, "ip_alias".to_owned()),
        ]
    );
    assert!(run.rows::<MergeAudit>()[0].witnesses.contains(&"netbox:N".to_owned()));
}

#[test]
fn s35_a_list_of_macs_with_junk_in_it() {
    let mut run = run();
    let list = "0C0000000001,0C0000000002;junk,00:00:00:00:00:00,FF:FF:FF:FF:FF:FF,0C0000000003";
    run.tick(vec![sync(&[full("armis", "1", "", list, "", 1, "")])]);
    let tables = run.tick(vec![sync(&[full("armis", "1", "", &format!("{list},0C0000000004"), "", 2, "")])]);
    assert_eq!(tables.uids(), [armis_uid("1")]);
    assert_eq!(tables.redirect(&named("mac", "0C0000000001")), Some(armis_uid("1")));
}

#[test]
fn s38_one_name_at_one_address_in_two_inventories() {
    let mut run = run();
    run.tick(vec![sync(&[full("armis", "A", "10.0.0.1", "", "h1", 1, "")])]);
    run.tick(vec![sync(&[full("netbox", "N", "10.0.0.1/24", "", "h1.example.net", 2, "")])]);
    assert_eq!(run.tables.uids(), [armis_uid("A")]);
    let tables = run.tick(vec![sync(&[full("netbox", "N", "10.0.0.2/24", "", "h2", 3, "")])]);
    assert_eq!(tables.devices().len(), 2);
    assert_eq!(tables.device(&named("netbox", "N")).ip.as_deref(), Some("10.0.0.2"));
}

#[test]
fn s38b_a_group_with_two_of_one_source_links_nobody() {
    let mut run = run();
    let agent = |id: &str, ip: &str| {
        let push =
            AgentPush { agent_id: id.into(), source_ip: ip.into(), hostname: "h".into(), ..AgentPush::default() };
        pushed(&push, "", "")
    };
    run.tick(vec![
        sync(&[
            full("armis", "A1", "10.0.0.1", "", "h", 1, ""),
            full("netbox", "N", "10.0.0.1,10.0.0.2", "", "h", 1, ""),
            full("armis", "A2", "10.0.0.3", "", "h", 1, ""),
        ]),
        agent("G", "10.0.0.2,10.0.0.3"),
    ]);
    assert_eq!(run.tables.devices().len(), 4);
}

#[test]
fn s38c_an_inventory_host_polled_at_its_address() {
    let mut run = run();
    run.tick(vec![sync(&[full("netbox", "N", "10.0.0.1/24", "", "core1", 1, "")])]);
    let tables = run.tick(vec![sync(&[polled("10.0.0.1", "0CEA1432D278", "core1.example.net", 2)])]);
    assert_eq!(tables.uids(), [named("netbox", "N")]);
    assert_eq!(tables.redirect(&named("mac", "0CEA1432D278")), Some(named("netbox", "N")));
    // Another name at that address is another device, until both have been there for three runs.
    let mut run = self::run();
    run.tick(vec![sync(&[full("netbox", "N", "10.0.0.1/24", "", "core1", 1, "")])]);
    assert_eq!(run.tick(vec![sync(&[polled("10.0.0.1", "0CEA1432D278", "other", 2)])]).devices().len(), 2);
}

#[test]
fn an_address_alone_links_after_three_runs_of_both() {
    let mut run = run();
    for second in 1..=3 {
        assert_eq!(run.tables.devices().len(), if second == 1 { 0 } else { 2 });
        run.tick(vec![sync(&[
            full("armis", "A", "10.0.0.1", "", "", second, ""),
            full("netbox", "N", "10.0.0.1", "", "h", second, ""),
        ])]);
    }
    assert_eq!(run.tables.uids(), [armis_uid("A")]);
    // Said again in a run that was counted already, it counts once.
    let mut run = self::run();
    for _ in 0..5 {
        run.tick(vec![sync(&[
            full("armis", "A", "10.0.0.1", "", "", 1, ""),
            full("netbox", "N", "10.0.0.1", "", "", 1, ""),
        ])]);
    }
    assert_eq!(run.tables.devices().len(), 2);
    // And a tenant may say that the address suffices, or that nothing does.
    let policy = |policy| fact(&Fact::IpLink { tenant: "t".into(), policy, actor: actor(), reason: String::new() });
    assert_eq!(run.tick(vec![policy(IpLink::Immediate)]).devices().len(), 1);
    assert_eq!(run.tick(vec![policy(IpLink::Off)]).devices().len(), 2);
}

#[test]
fn an_agent_not_heard_for_a_day_yields_its_address_to_the_inventory() {
    let mut run = run();
    run.tick(vec![check_in("G", "10.0.0.1")]);
    run.tick(vec![sync(&[armis("A", "10.0.0.1", 1, "")])]);
    assert_eq!(run.tables.owner("default", "10.0.0.1").unwrap().device_uid, Some(named("agent", "G")));
    run.tick_after(25 * 3_600_000, vec![]);
    assert_eq!(run.tables.owner("default", "10.0.0.1").unwrap().device_uid, Some(armis_uid("A")));
    run.tick(vec![check_in("G", "10.0.0.1")]);
    assert_eq!(run.tables.owner("default", "10.0.0.1").unwrap().device_uid, Some(named("agent", "G")));
}

#[test]
fn more_than_sixty_four_records_make_a_mac_nobodys() {
    let mut run = run();
    let items: Vec<_> = (0..65).map(|i| polled(&format!("10.0.1.{i}"), "0CEA1432D278", "", 1)).collect();
    assert_eq!(run.tick(vec![sync(&items[..64])]).uids(), [named("mac", "0CEA1432D278")]);
    assert_eq!(run.tick(vec![sync(&items)]).devices().len(), 65);
}

#[test]
fn s39_accidental_macs_and_moving_addresses() {
    let mut run = run();
    let n = 400;
    let macs = |i: usize| -> String {
        // Each device shows its neighbours' MACs, and one in ten asserts one that another asserts as well.
        let own = if i.is_multiple_of(10) { i / 20 } else { i + 1000 };
        (0..13).map(|k| format!("0C{:010X}", if k == 0 { own } else { i + k })).collect::<Vec<_>>().join(",")
    };
    let mut ip: Vec<usize> = (0..n).collect();
    let mut first = Vec::new();
    for cycle in 0..20i64 {
        for k in 0..n / 40 {
            let a = (cycle as usize * 37 + k * 2) % n;
            ip.swap(a, (a + 1) % n);
        }
        let items: Vec<_> = (0..n)
            .map(|i| {
                full(
                    "armis",
                    &format!("{i}"),
                    &format!("10.1.{}.{}", ip[i] / 200, ip[i] % 200 + 1),
                    &macs(i),
                    "",
                    cycle,
                    "",
                )
            })
            .collect();
        let tables = run.tick(vec![sync(&items)]);
        if cycle == 0 {
            first = tables.uids();
        }
        assert_eq!(tables.uids(), first, "cycle {cycle}");
        for (i, at) in ip.iter().enumerate() {
            let expected = format!("10.1.{}.{}", at / 200, at % 200 + 1);
            assert_eq!(tables.device(&armis_uid(&i.to_string())).ip_addresses, [expected], "cycle {cycle}");
        }
    }
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
        let steps = [sync(&[armis("Z", "10.0.0.5", 1, "")]), fresh_sweep("a", 2, &[("10.0.0.5", true)])];
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
    assert_eq!(standing(&run, "N").as_deref(), Some("contested"));
    run.tick(vec![sync(&[armis("A2", "10.0.0.2", 2, "")])]);
    assert_eq!(run.tables.devices().len(), 2);
    assert_eq!(standing(&run, "N").as_deref(), Some("held"));
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
    run.tick(vec![fresh_sweep("a", 6, &[("10.0.0.1", true)])]);
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

#[test]
fn a_mac_and_an_address_of_very_many_are_nobodys_and_slow_nobody() {
    let mut run = run();
    let item = |n: usize, ip: &str, second: i64| {
        full("armis", &n.to_string(), ip, "0CEA14FFFFFF", &format!("h{n}"), second, "")
    };
    let all = 20_000;
    for epoch in 0..4 {
        let items: Vec<String> = (epoch * all / 4..(epoch + 1) * all / 4).map(|n| item(n, "10.9.9.9", 1)).collect();
        run.tick(vec![sync(&items)]);
    }
    let count = |run: &Run| run.tables.devices().len();
    assert_eq!(count(&run), all);
    assert_eq!(standing(&run, "0CEA14FFFFFF").as_deref(), Some("ambiguous"));
    let owner = run.tables.owner("default", "10.9.9.9").expect("the address is known");
    assert_eq!((owner.device_uid, owner.class.as_str()), (None, "shared"));
    assert!(run.tables.devices().iter().all(|d| d.ip.is_none()));
    // One of them says something else: that alone changes.
    let before = run.outputs_seen.len();
    run.tick(vec![sync(&[item(7, "10.9.9.7", 2)])]);
    let changes: usize = run.outputs_seen[before..].iter().map(|o| o.changes.len()).sum();
    assert!(changes <= 3, "{changes} rows for one record");
    assert_eq!(run.tables.device(&armis_uid("7")).ip.as_deref(), Some("10.9.9.7"));
}

#[test]
fn a_device_of_very_many_records_is_described_by_the_newest() {
    let mut run = run();
    let item = |n: i64, more: &str| {
        let at = T0 / 1000 - 86_400 + n;
        format!(
            r#"{{"source":"unifi","ip":"10.9.9.9","hostname":"h{n}","timestamp":{at},"metadata":{{"rack":"r{n}"{more}}}}}"#
        )
    };
    let items: Vec<String> = (0..400).map(|n| item(n, "")).collect();
    for batch in items.chunks(150) {
        run.tick(vec![sync(batch)]);
    }
    let seen = |device: &Device| {
        let second = |at: radarflow_proto::cell::Time| at.0 / 1_000_000 - (T0 / 1000 - 86_400);
        (second(device.first_seen_time), second(device.last_seen_time))
    };
    let described = |run: &Run| {
        let devices = run.tables.devices();
        assert_eq!((devices.len(), devices[0].discovery_sources.as_slice()), (1, &["integration".to_owned()][..]));
        (devices[0].hostname.clone().unwrap(), seen(devices[0]))
    };
    assert_eq!(described(&run), ("h399".to_owned(), (0, 399)));
    // The newest is withdrawn, and the oldest.
    let gone = [item(399, r#","_deleted":"true""#), item(0, r#","_deleted":"true""#)];
    run.tick(vec![sync(&gone)]);
    assert_eq!(described(&run), ("h398".to_owned(), (1, 398)));
}

#[test]
fn a_record_of_ten_thousand_macs_is_one_record() {
    let mut run = run();
    let macs: Vec<String> = (0..10_000).map(|n| format!("0CEA{n:08X}")).collect();
    let tables = run.tick(vec![sync(&[
        full("armis", "1", "10.0.0.1", &macs.join(","), "h1", 1, ""),
        full("armis", "2", "10.0.0.2", &macs[5], "h2", 1, ""),
        full("mapper", "primary", "10.0.0.3", &macs.join(","), "h3", 1, ""),
    ])]);
    assert_eq!(tables.devices().len(), 3);
    // The first is asserted, the others shown: what they share links nobody.
    assert_eq!(tables.device(&armis_uid("2")).mac.as_deref(), Some(&*macs[5]));
}
