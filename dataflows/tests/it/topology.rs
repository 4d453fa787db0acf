//! Neighbours that polled devices report: of the newest poll, with the devices that own their addresses.

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::rows::{Reject, StateRow, TopologyLink};

use crate::harness::*;

/// A poll of a device at a second: interface, chassis, address where it is managed.
fn neighbors(device: &str, second: i64, links: &[(i64, &str, &str)]) -> Input {
    let at = T0 / 1000 - 86_400 + second;
    let row = |(interface, chassis, ip): &(i64, &str, &str)| {
        format!(
            r#"{{"local_device_ip":"{device}","local_if_index":{interface},"protocol":"LLDP","timestamp":{at},
                "neighbor_chassis_id":"{chassis}","neighbor_port_id":"eth0","neighbor_mgmt_addr":"{ip}"}}"#
        )
    };
    status("mapper", "mapper_topology", "", &format!("[{}]", links.iter().map(row).collect::<Vec<_>>().join(",")))
}

/// Interface, chassis, seconds of the first and the last poll, devices at both ends.
type Told = (i64, String, i64, i64, Option<String>, Option<String>);

fn told(tables: &Tables) -> Vec<Told> {
    let second = |us: i64| us / 1_000_000 - T0 / 1000 + 86_400;
    let link = |l: &TopologyLink| {
        let (first, last) = (second(l.first_seen.0), second(l.last_seen.0));
        let ends = (l.device_uid.clone(), l.neighbor_device_uid.clone());
        (l.local_if_index, l.neighbor_chassis_id.clone(), first, last, ends.0, ends.1)
    };
    let rows = tables.state.values();
    rows.filter_map(|row| if let StateRow::TopologyLink(l) = row { Some(link(l)) } else { None }).collect()
}

#[test]
fn the_newest_poll_says_which_neighbours_a_device_has() {
    let mut run = Run::new(2);
    run.tick(instances());
    run.tick(vec![neighbors("10.0.0.1", 10, &[(1, "0C:EA:14:32:D2:78", "10.0.0.2"), (2, "core", "")])]);
    let mac = |chassis: &str| chassis.to_owned();
    let first = vec![(1, mac("0C:EA:14:32:D2:78"), 10, 10, None, None), (2, "core".to_owned(), 10, 10, None, None)];
    assert_eq!(told(&run.tables), first);
    // Devices come to own the addresses, and leave them.
    run.tick(vec![sync(&[armis("A", "10.0.0.1", 11, ""), armis("B", "10.0.0.2", 11, "")])]);
    let owner = |run: &Run, ip: &str| run.tables.owner("default", ip).and_then(|o| o.device_uid);
    let (a, b) = (owner(&run, "10.0.0.1"), owner(&run, "10.0.0.2"));
    assert!(a.is_some() && b.is_some() && a != b);
    let named = told(&run.tables);
    assert_eq!((&named[0].4, &named[0].5, &named[1].4, &named[1].5), (&a, &b, &a, &None));
    // The next poll lacks one and has another; one that comes late changes nothing but since when.
    run.tick(vec![neighbors("10.0.0.1", 20, &[(2, "core", ""), (3, "edge", "10.0.0.3")])]);
    run.tick(vec![neighbors("10.0.0.1", 5, &[(2, "core", ""), (7, "gone", "")])]);
    let second = vec![(2, "core".to_owned(), 5, 20, a.clone(), None), (3, "edge".to_owned(), 20, 20, a.clone(), None)];
    assert_eq!(told(&run.tables), second);
    run.tick(vec![sync(&[armis("B", "10.0.0.3", 21, "")])]);
    assert_eq!(told(&run.tables)[1].5, b);
    run.tick(vec![sync(&[armis("A", "10.0.0.1", 22, r#","_deleted":"true""#)])]);
    assert_eq!(told(&run.tables)[0].4, None);
    // A restart knows them, with their devices, and says nothing new of them.
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, gap_ms: 0, state: run.snapshot.clone(), ..Default::default() };
    let mut again = Run::from(3, start, run.clock_ms);
    assert_eq!(told(&again.tables), told(&run.tables));
    // Nobody asks the device any more.
    again.tick_after(7 * 86_400_000 + 1000, vec![]);
    assert_eq!(told(&again.tables), vec![]);
}

#[test]
fn a_neighbour_that_cannot_be_told_is_a_reject_and_no_reject_is_a_neighbour() {
    let mut run = Run::new(1);
    run.tick(vec![status("mapper", "mapper_topology", "", "null"), status("mapper", "mapper_topology", "", "{}")]);
    let rows = r#"[{"local_device_ip":"no"},{"local_device_ip":"10.0.0.1"},7,
        {"local_device_ip":"10.0.0.1","neighbor_system_name":"sw\u0000itch","local_if_index":null,"timestamp":"soon"}]"#;
    run.tick(vec![status("mapper", "mapper_topology", "", rows)]);
    let reasons: Vec<String> = run.rows::<Reject>().into_iter().map(|r| r.reason).collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert_eq!(told(&run.tables).into_iter().map(|l| l.1).collect::<Vec<_>>(), ["sw\u{fffd}itch"]);
}
