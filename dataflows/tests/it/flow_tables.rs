//! What operators say of exporters, interfaces, networks and applications, on the flows that are decoded while it holds.

use radarflow_proto::fact::Fact;
use radarflow_proto::flow::tables::{
    ApplicationEntry, AsEntry, ExporterEntry, FlowTables, InterfaceRule, NetworkEntry,
};
use radarflow_proto::frame::Kind;
use radarflow_proto::rows::{Audit, Flow};

use crate::harness::*;

fn words(w: &[u16]) -> Vec<u8> {
    w.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// An exporter that names its interface 5, and sends a flow in by it and out by 6.
fn told(peer: &'static str, sequence: u32) -> Input {
    let names =
        [words(&[3, 22, 400, 3, 1, 10, 2, 82, 4, 83, 16]), words(&[400, 26, 5]), b"ge-5transit: Example".to_vec()];
    let template = words(&[2, 40, 300, 8, 8, 4, 12, 4, 4, 1, 7, 2, 11, 2, 10, 2, 14, 2, 16, 4]);
    let record = [10, 0, 0, 1, 192, 0, 2, 9, 6, 0xc3, 0x50, 1, 0xbb, 0, 5, 0, 6, 0, 0, 0xfb, 0xf0];
    let sets = [names.concat(), template, words(&[300, 4 + record.len() as u16]), record.to_vec()].concat();
    let head = [words(&[10, 16 + sets.len() as u16]), [1_704_067_200, sequence, 7].map(u32::to_be_bytes).concat()];
    let body = [head.concat(), sets].concat().into();
    Input { kind: Kind::NetFlow, tenant: "t", partition: "default".into(), peer: Some(peer), body }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn tables(site: &str) -> Input {
    let patterns = |of: &str| radarflow_proto::enrich::Patterns(vec![of.to_owned()]);
    let tables = FlowTables {
        exporters: vec![ExporterEntry {
            tenant: "t".to_owned(),
            prefix: "10.9.0.0/24".to_owned(),
            name: text("edge-1"),
            role: text("edge"),
            site: text(site),
            sampling_rate: Some(100),
            ..ExporterEntry::default()
        }],
        interfaces: vec![InterfaceRule {
            rule_id: "transit".to_owned(),
            tenant: "t".to_owned(),
            when: [
                ("exporter_role".to_owned(), patterns("edge")),
                ("description".to_owned(), patterns(r"/^transit: (\S+)/")),
            ]
            .into(),
            set: [("boundary", "external"), ("provider", "$1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }],
        networks: vec![
            NetworkEntry {
                tenant: "t".into(),
                prefix: "10.0.0.0/8".into(),
                name: text("office"),
                ..Default::default()
            },
            NetworkEntry { tenant: "u".into(), prefix: "192.0.2.0/24".into(), name: text("u's"), ..Default::default() },
        ],
        applications: vec![ApplicationEntry {
            tenant: "t".into(),
            name: "web".into(),
            ports: vec!["443".into()],
            ..Default::default()
        }],
        autonomous_systems: vec![AsEntry { number: 64_496, name: "Example".into() }],
        address_files: vec![],
    };
    fact(&Fact::FlowTables { tables: tables.into() })
}

#[test]
fn flows_bear_what_is_known_when_they_are_decoded_and_who_says_so() {
    let mut outcomes = Vec::new();
    for workers in [1, 2, 4] {
        let mut run = Run::new(workers);
        run.tick(vec![told("10.9.0.1:4739", 0), told("10.8.0.1:4739", 0)]);
        run.tick(vec![tables("fra1")]);
        run.tick(vec![told("10.9.0.1:4739", 2), told("10.8.0.1:4739", 2)]);
        // What a frame states holds for all of it.
        run.tick(vec![told("10.9.0.1:4739", 4), tables("ams1")]);
        let mut flows = run.rows::<Flow>();
        flows.sort_by_key(|flow| flow.row_id);
        let by = |flow: &Flow| flow.enriched_by.clone().map(|by| by.0.into_iter().collect::<Vec<_>>());
        let site = |flow: &Flow| (flow.exporter_site.clone(), flow.in_if_provider.clone());
        let edge: Vec<&Flow> = flows.iter().filter(|f| f.sampler_address.to_string() == "10.9.0.1").collect();
        let other: Vec<&Flow> = flows.iter().filter(|f| f.sampler_address.to_string() == "10.8.0.1").collect();
        assert_eq!(
            edge.iter().map(|f| site(f)).collect::<Vec<_>>(),
            [(None, None), (text("fra1"), text("Example")), (text("ams1"), text("Example")),]
        );
        let flow = edge[1];
        assert_eq!((flow.exporter_name.clone(), flow.exporter_group.clone()), (text("edge-1"), None));
        assert_eq!((flow.in_if_name.clone(), flow.in_if_boundary.clone()), (text("ge-5"), text("external")));
        assert_eq!((flow.out_if_name.clone(), flow.out_if_boundary.clone()), (None, None));
        // The other tenant's network is not this one's.
        assert_eq!((flow.src_net_name.clone(), flow.dst_net_name.clone()), (text("office"), None));
        assert_eq!((flow.app.clone(), flow.src_as_name.clone()), (text("web"), text("Example")));
        assert_eq!((flow.sampling_rate, flow.sampling_source.as_str()), (Some(100), "configured"));
        let says = [("app", "port"), ("exporter", "10.9.0.0/24"), ("in_if", "transit"), ("src_net", "10.0.0.0/8")];
        assert_eq!(by(flow), Some(says.map(|(of, who)| (of.to_owned(), who.to_owned())).to_vec()));
        assert_eq!((by(edge[0]), other[1].exporter_site.clone()), (None, None));
        assert_eq!((other[1].src_net_name.clone(), other[1].in_if_provider.clone()), (text("office"), None));
        let subjects: Vec<String> = run.rows::<Audit>().into_iter().map(|audit| audit.subject).collect();
        let subject = "1 exporters, 1 rules about interfaces, 2 networks, 1 applications, 1 autonomous systems";
        assert_eq!(subjects, [subject; 2]);
        outcomes.push(flows);
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "on any number of workers");
}

/// An agent that samples a packet within a packet.
fn sampled(peer: &'static str) -> Input {
    let header = |protocol: u32, src: u32, dst: u32| [0x4500_0028, 0, 0x4000_0000 | protocol << 16, src, dst];
    let packet = [header(4, 0x0101_0101, 0x0202_0202), header(6, 0x0a00_0001, 0x0a00_0002)].concat();
    let raw = [&[11, 60, 0, 40][..], &packet].concat();
    let sample = [&[1, 0, 1, 0, 0, 1, 2, 1, 1, 56][..], &raw].concat();
    let agent = u32::from(peer.split(':').next().unwrap().parse::<std::net::Ipv4Addr>().unwrap());
    let sent = [&[5, 1, agent, 0, 7, 1000, 1, 1, sample.len() as u32 * 4][..], &sample].concat();
    let body = sent.into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>().into();
    Input { kind: Kind::SFlow, tenant: "t", partition: "default".into(), peer: Some(peer), body }
}

#[test]
fn an_exporters_packets_are_entered_as_far_as_it_is_said() {
    let mut run = Run::new(2);
    let exporter = |prefix: &str, decapsulate: Option<&[&str]>| ExporterEntry {
        tenant: "t".into(),
        prefix: prefix.into(),
        decapsulate: decapsulate.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        ..Default::default()
    };
    let exporters = vec![
        exporter("10.9.0.1", None),
        exporter("10.9.0.2", Some(&[])),
        exporter("10.9.0.3", Some(&["vxlan", "ipip"])),
        exporter("10.9.0.4", Some(&["vxlan"])),
    ];
    run.tick(vec![fact(&Fact::FlowTables { tables: FlowTables { exporters, ..Default::default() }.into() })]);
    run.tick(["10.9.0.1:1", "10.9.0.2:1", "10.9.0.3:1", "10.9.0.4:1", "10.9.0.5:1"].map(sampled).into());
    let mut flows: Vec<_> = run
        .rows::<Flow>()
        .into_iter()
        .map(|flow| (flow.sampler_address.to_string(), flow.src_endpoint_ip.unwrap().to_string()))
        .collect();
    flows.sort();
    let sources: Vec<&str> = flows.iter().map(|(_, src)| src.as_str()).collect();
    assert_eq!(sources, ["10.0.0.1", "1.1.1.1", "10.0.0.1", "1.1.1.1", "10.0.0.1"]);
}
