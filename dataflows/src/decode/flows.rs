//! NetFlow, IPFIX, sFlow and `flowpb` to the columns of `flows`, and what interfaces counted to `interface_counters`.

use bytes::Bytes;
use prost::Message;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::flow::tables::Enriched;
use radarflow_proto::flow::{Flow, FlowContext, SamplingSource};
use radarflow_proto::netflow::{self, FlowOrigin};
use radarflow_proto::packet::Tunnels;
use radarflow_proto::rows::{BatchBuilder, InterfaceCounters};
use radarflow_proto::sflow::{self, Datagram, Sample};
use radarflow_proto::{rows, sequence};

use super::enriched::Enriching;
use super::senders::{ExporterKey, SenderKey};
use super::{At, Builders, Decoder};
use crate::loss::Delta;

/// Why flows are not read whose exporter is not known.
const NO_SENDER: &str = "nobody is said to have sent it";
/// The names of rows of counters are apart from those of flows.
const COUNTERS: u32 = 0x2000_0000;

impl Decoder {
    pub(super) fn netflow(&mut self, at: &At<'_>, body: &Bytes) {
        let Some(peer) = at.peer else { return self.refuse(at, None, body, NO_SENDER) };
        let ip = peer.ip().to_canonical();
        let domain = match netflow::domain(body) {
            Ok(domain) => domain,
            Err(error) => return self.refuse(at, at.ip(), body, &error.to_string()),
        };
        let key = ExporterKey {
            tenant: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            ip,
            domain: (domain, peer.port()),
        };
        let known = self.exporters.take(&key).or_else(|| self.exporters.adopt(&key));
        let is_known = known.is_some();
        let mut sender = known.unwrap_or_default();
        let exporter = &mut sender.memory;
        let lost_before = exporter.lost();
        exporter.advance(self.now_ms);
        let flow_type = match domain.version {
            5 => "netflow_v5",
            9 => "netflow_v9",
            _ => "ipfix",
        };
        let mut cx = at.flows_of(ip, flow_type);
        let builders = self.builders.entry(at.scope()).or_default();
        let mut known = self.enrichment.of(at, ip);
        let tunnels = known.as_ref().map_or(Tunnels::ALL, Enriching::tunnels);
        let mut take = |flow: &Flow, FlowOrigin { message: (epoch, position, received_us), index }: FlowOrigin| {
            (cx.row_id, cx.received) = (RowId::new(epoch, position, index), Time(received_us));
            let enriched = known.as_mut().map(|known| known.flow(flow)).unwrap_or_default();
            builders.flow(flow, &enriched, &cx);
        };
        let decoded = match exporter.decode(body, (at.place.0, at.place.1, at.received_us), tunnels, &mut take) {
            Ok(decoded) => decoded,
            Err(error) => {
                if is_known {
                    self.exporters.put(&key, sender);
                }
                return self.refuse(at, at.ip(), body, &error.to_string());
            }
        };
        let lost = exporter.lost().saturating_sub(lost_before);
        let found = lost_before.saturating_sub(exporter.lost());
        let (waiting_sets, waiting) = exporter.waiting();
        let rows = u64::from(decoded.flows);
        sender.reputation.hear(self.now_ms, rows > 0);
        sender.heard = (at.origin.feed.clone(), at.received_us);
        let is_kept = self.exporters.put(&key, sender);
        let (waiting_sets, waiting) = if is_kept { (waiting_sets, waiting) } else { (0, None) };
        if !is_kept && rows == 0 {
            return self.refuse(at, at.ip(), body, "too many exporters");
        }
        // A message that is used in part is stored; what of it could not be used is a row in `rejects`.
        let netflow::Decoded { records, templates, held, errors, .. } = &decoded;
        let is_used = errors.is_empty() || rows > 0 || *records + templates + held > 0;
        self.reject_parts(at, body, errors);
        let delta = Delta {
            received: 1,
            stored: u64::from(is_used),
            rejected: u64::from(!is_used),
            lost: lost + u64::from(decoded.given_up),
            found,
            rows,
            waiting_sets: Some(waiting_sets as u64),
            waiting: waiting.map(|id| format!("template {id}")),
            ..Delta::at(at.received_us)
        };
        self.count(at, Some(ip), delta);
    }

    pub(super) fn sflow(&mut self, at: &At<'_>, body: &Bytes) {
        let datagram = match Datagram::new(body) {
            Ok(datagram) => datagram,
            Err(error) => return self.refuse(at, at.ip(), body, &error.to_string()),
        };
        let Some(ip) = at.ip() else { return self.refuse(at, None, body, NO_SENDER) };
        let key = SenderKey {
            tenant: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            ip,
            domain: datagram.sub_agent,
        };
        let mut sender = self.sflow.take(&key).unwrap_or_default();
        let lost = sequence::step(&mut sender.memory.next, datagram.sequence, 1);
        let (agent, sub_agent) = (datagram.agent.to_canonical(), datagram.sub_agent);
        let mut cx = at.flows_of(agent, "sflow_v5");
        let builders = self.builders.entry(at.scope()).or_default();
        let mut known = self.enrichment.of(at, agent);
        let tunnels = known.as_ref().map_or(Tunnels::ALL, Enriching::tunnels);
        let (mut flows, mut counters) = (0, 0);
        let decoded = datagram.decode(tunnels, &mut |sample| match sample {
            Sample::Flow(flow) => {
                cx.row_id = at.row_id(flows);
                let enriched = known.as_mut().map(|known| known.flow(flow)).unwrap_or_default();
                builders.flow(flow, &enriched, &cx);
                flows += 1;
            }
            Sample::Counters(counted) => {
                cx.row_id = at.row_id(COUNTERS + counters);
                builders.counters.push(&counters_row(counted, sub_agent, &cx));
                builders.counter_ips.push(Some(agent));
                counters += 1;
            }
        });
        let rows = u64::from(flows) + u64::from(counters);
        sender.reputation.hear(self.now_ms, rows > 0);
        sender.heard = (at.origin.feed.clone(), at.received_us);
        // Who finds no place is read all the same: only its losses are not known.
        self.sflow.put(&key, sender);
        self.reject_parts(at, body, &decoded.errors);
        let is_used = decoded.errors.is_empty() || rows > 0;
        let delta = Delta {
            received: 1,
            stored: u64::from(is_used),
            rejected: u64::from(!is_used),
            lost: lost.max(0) as u64,
            found: lost.min(0).unsigned_abs(),
            rows,
            ..Delta::at(at.received_us)
        };
        self.count(at, Some(ip), delta);
    }

    /// One row for the parts of a message that cannot be used.
    fn reject_parts(&mut self, at: &At<'_>, body: &[u8], errors: &[impl std::fmt::Display]) {
        let Some(error) = errors.first() else { return };
        let others = errors.len() - 1;
        let others = if others > 0 { format!("; {others} more of its parts cannot be used") } else { String::new() };
        self.reject(at, body, &format!("{error}{others}"));
    }

    /// A flow that another collector decoded.
    pub(super) fn flow_message(&mut self, at: &At<'_>, body: &Bytes) {
        let message = match FlowMessage::decode(body.clone()) {
            Ok(message) => message,
            Err(error) => return self.refuse(at, at.ip(), body, &format!("not a FlowMessage: {error}")),
        };
        let address = |bytes: &[u8]| -> Option<std::net::IpAddr> {
            match bytes.len() {
                4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
                16 => <[u8; 16]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_canonical()),
                _ => None,
            }
        };
        let ns = |ns: u64| (ns > 0).then_some((ns / 1000) as i64);
        let some = |n: u32| (n > 0).then_some(n);
        let mac = |n: u64| (n > 0).then(|| <[u8; 6]>::try_from(&n.to_be_bytes()[2..]).ok()).flatten();
        let is_icmp = matches!(message.proto, 1 | 58);
        let flow = Flow {
            start_us: ns(message.time_flow_start_ns),
            end_us: ns(message.time_flow_end_ns),
            src_ip: address(&message.src_addr),
            dst_ip: address(&message.dst_addr),
            src_port: Some(message.src_port as u16),
            dst_port: Some(message.dst_port as u16),
            protocol: Some(message.proto as u8),
            tcp_flags: Some(message.tcp_flags as u16),
            tos: Some(message.ip_tos as u8),
            bytes: Some(message.bytes),
            packets: message.packets,
            sampling: (message.sampling_rate > 0).then_some((message.sampling_rate, SamplingSource::Record)),
            in_if: some(message.in_if),
            out_if: some(message.out_if),
            src_as: some(message.src_as),
            dst_as: some(message.dst_as),
            next_hop: address(&message.next_hop),
            ether_type: some(message.etype).map(|e| e as u16),
            src_mac: mac(message.src_mac),
            dst_mac: mac(message.dst_mac),
            src_prefix: some(message.src_net).map(|n| n as u8),
            dst_prefix: some(message.dst_net).map(|n| n as u8),
            icmp_type: is_icmp.then_some(message.icmp_type as u8),
            icmp_code: is_icmp.then_some(message.icmp_code as u8),
            vlan: some(message.src_vlan).map(|v| v as u16),
            src_vlan: some(message.src_vlan).map(|v| v as u16),
            dst_vlan: some(message.dst_vlan).map(|v| v as u16),
            domain: some(message.observation_domain_id),
            communities: message.communities,
            as_path: message.as_path,
            ..Flow::default()
        };
        let Some(sampler) = address(&message.sampler_address) else {
            return self.refuse(at, at.ip(), body, "FlowMessage without a sampler address");
        };
        let received = ns(message.time_received_ns).unwrap_or(at.received_us).min(at.received_us);
        let cx = FlowContext { received: Time(received), ..at.flows_of(sampler, "flowpb") };
        let mut known = self.enrichment.of(at, sampler);
        let enriched = known.as_mut().map(|known| known.flow(&flow)).unwrap_or_default();
        self.builders.entry(at.scope()).or_default().flow(&flow, &enriched, &cx);
        self.count(at, Some(sampler), Delta { received: 1, stored: 1, rows: 1, ..Delta::at(at.received_us) });
    }
}

impl<'a> At<'a> {
    /// The flows of an exporter that this entry brings; the first is called as its row is.
    fn flows_of(&'a self, sampler: std::net::IpAddr, flow_type: &'static str) -> FlowContext<'a> {
        FlowContext {
            tenant: &self.origin.tenant,
            partition: self.partition(),
            row_id: self.row_id(0),
            epoch: self.epoch as i64,
            received: Time(self.received_us),
            sampler,
            flow_type,
        }
    }
}

impl Builders {
    fn flow(&mut self, flow: &Flow, enriched: &Enriched<'_>, cx: &FlowContext<'_>) {
        self.flows.push_flow(flow, enriched, cx);
        self.flow_ips[0].push(flow.src_ip);
        self.flow_ips[1].push(flow.dst_ip);
        self.flow_ips[2].push(Some(cx.sampler));
    }
}

fn counters_row(counted: &sflow::InterfaceCounters, sub_agent: u32, cx: &FlowContext<'_>) -> rows::InterfaceCounters {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let [in_unicast, in_multicast, in_broadcast, in_discards, in_errors, in_unknown] =
        counted.input.map(|n| n.map(i64::from));
    let [out_unicast, out_multicast, out_broadcast, out_discards, out_errors] =
        counted.output.map(|n| n.map(i64::from));
    let direction = match counted.direction {
        1 => Some("full_duplex"),
        2 => Some("half_duplex"),
        3 => Some("in"),
        4 => Some("out"),
        _ => None,
    };
    InterfaceCounters {
        tenant_id: cx.tenant.to_owned(),
        partition: cx.partition.to_owned(),
        row_id: cx.row_id,
        epoch: cx.epoch,
        time: cx.received,
        sampler_address: cx.sampler,
        observation_domain: i64::from(sub_agent),
        if_index: i64::from(counted.index),
        if_type: i64::from(counted.kind),
        if_speed_bps: whole(counted.speed_bps),
        if_direction: direction.map(str::to_owned),
        is_admin_up: counted.is_admin_up,
        is_oper_up: counted.is_oper_up,
        in_bytes: whole(counted.in_bytes),
        in_unicast_packets: in_unicast,
        in_multicast_packets: in_multicast,
        in_broadcast_packets: in_broadcast,
        in_discards,
        in_errors,
        in_unknown_protocols: in_unknown,
        out_bytes: whole(counted.out_bytes),
        out_unicast_packets: out_unicast,
        out_multicast_packets: out_multicast,
        out_broadcast_packets: out_broadcast,
        out_discards,
        out_errors,
        is_promiscuous: counted.is_promiscuous,
        device_uid: None,
    }
}

/// `flowpb.FlowMessage`, the fields that the table has.
#[derive(Clone, PartialEq, Message)]
struct FlowMessage {
    #[prost(uint64, tag = "3")]
    sampling_rate: u64,
    #[prost(bytes = "vec", tag = "6")]
    src_addr: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    dst_addr: Vec<u8>,
    #[prost(uint64, tag = "9")]
    bytes: u64,
    #[prost(uint64, tag = "10")]
    packets: u64,
    #[prost(bytes = "vec", tag = "11")]
    sampler_address: Vec<u8>,
    #[prost(bytes = "vec", tag = "12")]
    next_hop: Vec<u8>,
    #[prost(uint32, tag = "14")]
    src_as: u32,
    #[prost(uint32, tag = "15")]
    dst_as: u32,
    #[prost(uint32, tag = "16")]
    src_net: u32,
    #[prost(uint32, tag = "17")]
    dst_net: u32,
    #[prost(uint32, tag = "18")]
    in_if: u32,
    #[prost(uint32, tag = "19")]
    out_if: u32,
    #[prost(uint32, tag = "20")]
    proto: u32,
    #[prost(uint32, tag = "21")]
    src_port: u32,
    #[prost(uint32, tag = "22")]
    dst_port: u32,
    #[prost(uint32, tag = "23")]
    ip_tos: u32,
    #[prost(uint32, tag = "26")]
    tcp_flags: u32,
    #[prost(uint64, tag = "27")]
    src_mac: u64,
    #[prost(uint64, tag = "28")]
    dst_mac: u64,
    #[prost(uint32, tag = "30")]
    etype: u32,
    #[prost(uint32, tag = "31")]
    icmp_type: u32,
    #[prost(uint32, tag = "32")]
    icmp_code: u32,
    #[prost(uint32, tag = "33")]
    src_vlan: u32,
    #[prost(uint32, tag = "34")]
    dst_vlan: u32,
    #[prost(uint32, tag = "70")]
    observation_domain_id: u32,
    #[prost(uint32, repeated, tag = "101")]
    communities: Vec<u32>,
    #[prost(uint32, repeated, tag = "102")]
    as_path: Vec<u32>,
    #[prost(uint64, tag = "110")]
    time_received_ns: u64,
    #[prost(uint64, tag = "111")]
    time_flow_start_ns: u64,
    #[prost(uint64, tag = "112")]
    time_flow_end_ns: u64,
}
