//! NetFlow, IPFIX, sFlow and `flowpb` to `flows` rows.

use bytes::Bytes;
use prost::Message;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::flow::{Flow, FlowContext, SamplingSource};
use radarflow_proto::netflow::{self, FlowOrigin};
use radarflow_proto::rows::BatchBuilder;
use radarflow_proto::{sequence, sflow};

use super::senders::{ExporterKey, SenderKey};
use super::{At, Decoder};
use crate::loss::Delta;

/// Why flows are not read whose exporter is not known.
const NO_SENDER: &str = "nobody is said to have sent it";

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
        let decoded = match exporter.decode(body, (at.place.0, at.place.1, at.received_us)) {
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
        sender.reputation.hear(self.now_ms, !decoded.flows.is_empty());
        sender.heard = (at.origin.feed.clone(), at.received_us);
        let is_kept = self.exporters.put(&key, sender);
        let (waiting_sets, waiting) = if is_kept { (waiting_sets, waiting) } else { (0, None) };
        if !is_kept && decoded.flows.is_empty() {
            return self.refuse(at, at.ip(), body, "too many exporters");
        }
        let flow_type = match domain.version {
            5 => "netflow_v5",
            9 => "netflow_v9",
            _ => "ipfix",
        };
        let rows = decoded.flows.len() as u64;
        for (flow, FlowOrigin { message: (epoch, position, received_us), index }) in &decoded.flows {
            self.flow(at, flow, RowId::new(*epoch, *position, *index), *received_us, flow_type);
        }
        // A message that is used in part is stored; what of it could not be used is a row in `rejects`.
        let netflow::Decoded { records, templates, held, errors, .. } = &decoded;
        let is_used = errors.is_empty() || rows > 0 || *records + templates + held > 0;
        if let Some(error) = errors.first() {
            let others = errors.len() - 1;
            let others =
                if others > 0 { format!("; {others} more of its parts cannot be used") } else { String::new() };
            self.reject(at, body, &format!("{error}{others}"));
        }
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
        let decoded = match sflow::decode(body) {
            Ok(decoded) => decoded,
            Err(error) => return self.refuse(at, at.ip(), body, &error.to_string()),
        };
        let Some(ip) = at.ip() else { return self.refuse(at, None, body, NO_SENDER) };
        let key = SenderKey {
            tenant: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            ip,
            domain: decoded.sub_agent,
        };
        let mut sender = self.sflow.take(&key).unwrap_or_default();
        let lost = sequence::step(&mut sender.memory.next, decoded.sequence, 1);
        sender.reputation.hear(self.now_ms, !decoded.flows.is_empty());
        sender.heard = (at.origin.feed.clone(), at.received_us);
        // Who finds no place is read all the same: only its losses are not known.
        self.sflow.put(&key, sender);
        let sampler = At { peer: at.peer.map(|p| (decoded.agent, p.port()).into()), ..at.clone() };
        for (index, flow) in decoded.flows.iter().enumerate() {
            let row_id = at.row_id(index as u32);
            self.flow(&sampler, flow, row_id, at.received_us, "sflow_v5");
        }
        if let Some(error) = &decoded.error {
            self.reject(at, body, &error.to_string());
        }
        let is_used = decoded.error.is_none() || !decoded.flows.is_empty() || decoded.counter_samples > 0;
        let delta = Delta {
            received: 1,
            stored: u64::from(is_used),
            rejected: u64::from(!is_used),
            lost: lost.max(0) as u64,
            found: lost.min(0).unsigned_abs(),
            rows: decoded.flows.len() as u64,
            ..Delta::at(at.received_us)
        };
        self.count(at, Some(ip), delta);
    }

    fn flow(&mut self, at: &At<'_>, flow: &Flow, row_id: RowId, received_us: i64, flow_type: &'static str) {
        let Some(sampler) = at.ip() else { return };
        let row = flow.row(&FlowContext {
            tenant: &at.origin.tenant,
            partition: at.partition(),
            row_id,
            epoch: at.epoch as i64,
            received: Time(received_us),
            sampler,
            flow_type,
        });
        let builders = self.builders(at);
        builders.flows.push(&row);
        builders.flow_ips[0].push(flow.src_ip);
        builders.flow_ips[1].push(flow.dst_ip);
        builders.flow_ips[2].push(Some(sampler));
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
            bytes: message.bytes,
            packets: message.packets,
            sampling: (message.sampling_rate > 0).then_some((message.sampling_rate, SamplingSource::Record)),
            in_if: some(message.in_if),
            out_if: some(message.out_if),
            src_as: some(message.src_as),
            dst_as: some(message.dst_as),
            next_hop: address(&message.next_hop),
            ether_type: some(message.etype).map(|e| e as u16),
            vlan: some(message.src_vlan).map(|v| v as u16),
            ..Flow::default()
        };
        let Some(sampler) = address(&message.sampler_address) else {
            return self.refuse(at, at.ip(), body, "FlowMessage without a sampler address");
        };
        let sampled = At { peer: Some((sampler, 0).into()), ..at.clone() };
        let received = ns(message.time_received_ns).unwrap_or(at.received_us).min(at.received_us);
        self.flow(&sampled, &flow, at.row_id(0), received, "flowpb");
        self.count(at, Some(sampler), Delta { received: 1, stored: 1, rows: 1, ..Delta::at(at.received_us) });
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
    #[prost(uint32, tag = "30")]
    etype: u32,
    #[prost(uint32, tag = "33")]
    src_vlan: u32,
    #[prost(uint64, tag = "110")]
    time_received_ns: u64,
    #[prost(uint64, tag = "111")]
    time_flow_start_ns: u64,
    #[prost(uint64, tag = "112")]
    time_flow_end_ns: u64,
}
