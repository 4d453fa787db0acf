//! What discovery says of a device's interfaces: their addresses are its aliases, their MACs it shows.

use radarflow_reconcile::identity::name::uid;

use crate::harness::*;
use crate::identity::{check_in, full, named, polled, run};

/// The interfaces a poll found.
fn interfaces(device: &str, second: i64, ips: &[&str]) -> Input {
    let at = T0 / 1000 - 86_400 + second;
    let rows: Vec<String> = ips
        .iter()
        .enumerate()
        .map(|(i, ip)| format!(r#"{{"device_ip":"{device}","if_index":{i},"timestamp":{at},"ip_addresses":["{ip}"]}}"#))
        .collect();
    status("agent-dusk", "mapper_interfaces", "", &format!("[{}]", rows.join(",")))
}

/// The MACs of the interfaces that a poll found.
fn interface_macs(device: &str, second: i64, macs: &[&str]) -> Input {
    let at = T0 / 1000 - 86_400 + second;
    let row = |mac: &&str| format!(r#"{{"device_ip":"{device}","timestamp":{at},"if_phys_address":"{mac}"}}"#);
    status("agent-dusk", "mapper_interfaces", "", &format!("[{}]", macs.iter().map(row).collect::<Vec<_>>().join(",")))
}

#[test]
fn s25_a_sweep_confirms_an_alias() {
    let mut run = run();
    let device = named("mac", "0CEA1432D278");
    run.tick(vec![sync(&[polled("192.168.10.1", "0CEA1432D278", "tonka01", 1)])]);
    run.tick(vec![interfaces("192.168.10.1", 1, &["216.17.46.98"])]);
    run.tick(vec![interfaces("192.168.10.1", 2, &["216.17.46.98"])]);
    assert!(run.tables.owner("default", "216.17.46.98").is_none(), "two sightings are not enough");
    let tables = run.tick(vec![sweep("a", "", 3, &[("216.17.46.98", true)])]);
    assert_eq!(tables.uids(), std::slice::from_ref(&device));
    let owner = tables.owner("default", "216.17.46.98").unwrap();
    assert_eq!((owner.device_uid, owner.class.as_str()), (Some(device), "alias"));
}

#[test]
fn s26_a_detected_alias_is_not_used() {
    let mut run = run();
    run.tick(vec![sync(&[polled("10.0.0.1", "0CEA1432D278", "", 1)])]);
    run.tick(vec![interfaces("10.0.0.1", 1, &["10.0.0.9"])]);
    run.tick(vec![interfaces("10.0.0.1", 2, &["10.0.0.9"]), interfaces("10.0.0.1", 2, &["10.0.0.9"])]);
    let tables = run.tick(vec![sync(&[netbox("N", "10.0.0.9", 3, "")])]);
    assert_eq!(tables.owner("default", "10.0.0.9").unwrap().device_uid, Some(named("netbox", "N")));
    assert_eq!(tables.devices().len(), 2);
}

#[test]
fn s27_an_agent_takes_an_alias_without_a_merge() {
    let mut run = run();
    run.tick(vec![check_in("H", "10.0.0.1"), sync(&[polled("10.0.0.1", "", "H", 1)])]);
    for second in 1..4 {
        run.tick(vec![interfaces("10.0.0.1", second, &["10.0.0.9"])]);
    }
    assert_eq!(run.tables.owner("default", "10.0.0.9").unwrap().device_uid, Some(named("agent", "H")));
    let tables = run.tick(vec![check_in("G", "10.0.0.9")]);
    assert_eq!(tables.owner("default", "10.0.0.9").unwrap().device_uid, Some(named("agent", "G")));
    assert_eq!(tables.devices().len(), 2);
}

#[test]
fn s28_s29_aliases_in_any_order_and_stale_ones_again() {
    let mut run = run();
    run.tick(vec![sync(&[polled("10.0.0.1", "0CEA1432D278", "", 1)])]);
    for (second, ips) in [(1, ["10.0.0.8", "10.0.0.9"]), (2, ["10.0.0.9", "10.0.0.8"]), (3, ["10.0.0.8", "10.0.0.9"])] {
        run.tick(vec![interfaces("10.0.0.1", second, &ips)]);
    }
    let device = named("mac", "0CEA1432D278");
    assert_eq!(run.tables.uids(), std::slice::from_ref(&device));
    assert_eq!(run.tables.device(&device).ip_addresses, ["10.0.0.1", "10.0.0.8", "10.0.0.9"]);
    run.tick_after(8 * 86_400_000, vec![]);
    assert_eq!(run.tables.device(&device).ip_addresses, ["10.0.0.1"]);
    // A sweep alone now finds nobody there; the next poll brings the device back, and no placeholder stays.
    run.tick(vec![sweep("a", "", 5, &[("10.0.0.8", true)])]);
    assert_eq!(run.tables.devices().len(), 2);
    run.tick(vec![interfaces("10.0.0.1", 6, &["10.0.0.8", "10.0.0.9"])]);
    assert_eq!(run.tables.uids(), std::slice::from_ref(&device));
    assert_eq!(run.tables.device(&device).ip_addresses, ["10.0.0.1", "10.0.0.8", "10.0.0.9"]);
    // A poll that lists interfaces without it ends an alias.
    run.tick(vec![interfaces("10.0.0.1", 7, &["10.0.0.8"])]);
    assert_eq!(run.tables.device(&device).ip_addresses, ["10.0.0.1", "10.0.0.8"]);
}

#[test]
fn macs_of_interfaces_are_shown_they_corroborate_and_do_not_link() {
    let chassis = "0C:EA:14:00:00:01";
    let said: Vec<Vec<Input>> = vec![
        vec![sync(&[full("netbox", "N", "10.3.0.1", "0E:EA:14:00:00:07,0C:EA:14:00:00:08", "", 1, "")])],
        vec![sync(&[polled("10.3.0.1", chassis, "", 2)])],
        vec![interface_macs("10.3.0.1", 2, &["0e-ea-14-00-00-07", "00:00:00:00:00:00", "no MAC"])],
    ];
    // In whatever order they come: one device, because both show a MAC, a local one included.
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut run = Run::new(2);
        run.tick(instances());
        for n in order {
            run.tick(said[n].clone());
        }
        assert_eq!(run.tables.devices().len(), 1, "{order:?}");
        let device = run.tables.devices()[0];
        assert_eq!(
            (&device.uid, &device.discovery_sources),
            (&uid("default", "netbox:N"), &vec!["mapper".to_owned(), "netbox".to_owned()])
        );
        // A poll without a list says nothing of it; one whose list lacks the MAC does.
        run.tick(vec![sync(&[polled("10.3.0.1", chassis, "", 3)])]);
        assert_eq!(run.tables.devices().len(), 1);
        run.tick(vec![interface_macs("10.3.0.1", 3, &["0C:EA:14:00:00:09"])]);
        assert_eq!(run.tables.devices().len(), 2);
        run.tick(vec![interface_macs("10.3.0.1", 4, &["0C:EA:14:00:00:08"])]);
        assert_eq!(run.tables.devices().len(), 1);
        // A poll that comes late changes nothing; a week without one is the end of it.
        run.tick(vec![interface_macs("10.3.0.1", 1, &["0C:EA:14:00:00:09"])]);
        assert_eq!(run.tables.devices().len(), 1);
        run.tick_after(8 * 86_400_000, vec![]);
        assert_eq!(run.tables.devices().len(), 2);
    }
    // Two devices with one interface MAC each: it links nothing.
    let mut run = Run::new(1);
    run.tick(instances());
    run.tick(vec![sync(&[polled("10.3.0.1", chassis, "", 2), polled("10.3.0.2", "0C:EA:14:00:00:02", "", 2)])]);
    run.tick(vec![
        interface_macs("10.3.0.1", 2, &["0C:EA:14:00:00:09"]),
        interface_macs("10.3.0.2", 2, &["0C:EA:14:00:00:09"]),
    ]);
    assert_eq!(run.tables.devices().len(), 2);
}
