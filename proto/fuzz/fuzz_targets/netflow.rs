//! Messages one after the other to one exporter: templates of one are used by the next. What it keeps is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::flow::tables::Enriched;
use radarflow_proto::flow::{Flow, FlowContext};
use radarflow_proto::netflow::{Exporter, FlowOrigin, MAX_EXPORTER_BYTES, domain};
use radarflow_proto::packet::Tunnels;
use radarflow_proto::rows::{BatchBuilder, FlowBatch};

const CONTEXT: FlowContext<'static> = FlowContext {
    tenant: "t",
    partition: "p",
    row_id: RowId(0),
    epoch: 1,
    received: Time(1_700_000_000_000_000),
    sampler: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    flow_type: "ipfix",
};

fuzz_target!(|bytes: &[u8]| {
    let mut exporter = Exporter::default();
    let mut rest = bytes;
    let mut position = 0;
    while let [high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (message, after) = more.split_at(length);
        let _ = domain(message);
        let mut batch = FlowBatch::default();
        let mut take = |flow: &Flow, _: FlowOrigin| batch.push_flow(flow, &Enriched::default(), &CONTEXT);
        if let Ok(decoded) = exporter.decode(message, (1, position, 1_700_000_000_000_000), Tunnels::ALL, &mut take) {
            // Every flow takes some bytes of some message; a set that waited is of an earlier one.
            assert!(decoded.flows as usize <= bytes.len());
            assert_eq!(batch.finish().num_rows(), decoded.flows as usize);
            assert!(exporter.bytes() <= MAX_EXPORTER_BYTES);
        }
        position += 1;
        rest = after;
    }
});
