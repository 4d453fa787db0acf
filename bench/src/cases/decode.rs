//! Decoders alone, one core: bytes to flows, to columns, to a log line.

use std::time::Instant;

use radarflow_network::devices::Network;
use radarflow_network::packets::{self, FlowFields};
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::flow::tables::Enriched;
use radarflow_proto::flow::{Flow, FlowContext};
use radarflow_proto::netflow::{Exporter, FlowOrigin};
use radarflow_proto::packet::Tunnels;
use radarflow_proto::rows::{BatchBuilder, FlowBatch};
use radarflow_proto::syslog;

const NOW: i64 = 1_700_000_000;
const PACKETS: usize = 40_000;
const FLOWS: usize = 30;

pub(crate) fn run() -> anyhow::Result<()> {
    let mut network = Network::new(1, 10_000, NOW);
    let flows: Vec<FlowFields> = (0..FLOWS)
        .map(|_| {
            let (src, dst) = network.talkers();
            FlowFields { src, dst, src_port: 443, dst_port: 50_000, bytes: 1000 + network.below(9000), packets: 10 }
        })
        .collect();
    let packet = packets::netflow_v9(&flows, 0, NOW, false);
    let mut exporter = Exporter::default();
    exporter.decode(&packets::netflow_v9(&flows, 0, NOW, true), (1, 0, 0), Tunnels::ALL, &mut |_, _| {})?;
    let started = Instant::now();
    let mut n = 0;
    for _ in 0..PACKETS {
        n += exporter.decode(&packet, (1, 0, 0), Tunnels::ALL, &mut |_, _| {})?.flows as usize;
    }
    crate::rate("netflow v9, decode alone, flows", n, started.elapsed())?;

    let started = Instant::now();
    let mut batch = FlowBatch::default();
    let mut cx = FlowContext {
        tenant: "default",
        partition: "default",
        row_id: RowId::default(),
        epoch: 1,
        received: Time(NOW * 1_000_000),
        sampler: [127, 0, 0, 1].into(),
        flow_type: "netflow_v9",
    };
    let mut rows = 0;
    for position in 0..PACKETS as u32 {
        let mut take = |flow: &Flow, origin: FlowOrigin| {
            cx.row_id = RowId::new(1, position, origin.index);
            batch.push_flow(flow, &Enriched::default(), &cx);
        };
        rows += exporter.decode(&packet, (1, position, 0), Tunnels::ALL, &mut take)?.flows as usize;
        if batch.len() >= 100_000 {
            batch.finish();
        }
    }
    crate::rate("netflow v9, decode to Arrow columns, flows", rows, started.elapsed())?;

    let line = packets::syslog(6, "host-1", "session 12345 opened for user ann by (uid=0)");
    let started = Instant::now();
    const LINES: usize = 500_000;
    let mut bytes = 0;
    for _ in 0..LINES {
        bytes += syslog::parse(&line, NOW * 1_000_000, chrono_tz::Tz::UTC).body.len();
    }
    anyhow::ensure!(bytes > 0);
    crate::rate("syslog RFC 5424, parse alone, messages", LINES, started.elapsed())
}
