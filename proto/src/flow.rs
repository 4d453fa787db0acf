//! One flow, whatever protocol brought it: what the decoders fill and the `flows` table is made from.

use std::net::IpAddr;

use crate::cell::{IpBytes, RowId, Time};
use crate::rows::Flow as FlowRow;

/// Who told the sampling rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplingSource {
    /// The flow record itself.
    Record,
    /// An options record of the exporter.
    Options,
    /// The packet's header.
    Header,
    /// Our configuration.
    Configured,
    /// Nobody.
    #[default]
    Unknown,
}

impl SamplingSource {
    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            SamplingSource::Record => "record",
            SamplingSource::Options => "options",
            SamplingSource::Header => "header",
            SamplingSource::Configured => "configured",
            SamplingSource::Unknown => "unknown",
        }
    }
}

/// One flow as decoded; counts as reported, before the sampling rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Start, microseconds since 1970.
    pub start_us: Option<i64>,
    /// End, microseconds since 1970.
    pub end_us: Option<i64>,
    /// Source address.
    pub src_ip: Option<IpAddr>,
    /// Destination address.
    pub dst_ip: Option<IpAddr>,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
    /// Source MAC.
    pub src_mac: Option<[u8; 6]>,
    /// Destination MAC.
    pub dst_mac: Option<[u8; 6]>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// TCP flags.
    pub tcp_flags: Option<u16>,
    /// Type of service.
    pub tos: Option<u8>,
    /// Bytes of layer 3.
    pub bytes: u64,
    /// Bytes of layer 2, where only those are told.
    pub l2_bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Sampling rate and who told it.
    pub sampling: Option<(u64, SamplingSource)>,
    /// Which sampler of the exporter looked, to be resolved from options.
    pub sampler_id: Option<u64>,
    /// Input interface.
    pub in_if: Option<u32>,
    /// Output interface.
    pub out_if: Option<u32>,
    /// Source AS.
    pub src_as: Option<u32>,
    /// Destination AS.
    pub dst_as: Option<u32>,
    /// Next hop.
    pub next_hop: Option<IpAddr>,
    /// VLAN.
    pub vlan: Option<u16>,
    /// Ethernet type.
    pub ether_type: Option<u16>,
    /// Ingress (0) or egress (1); other values are not assigned (IANA, flowDirection).
    pub direction: Option<u8>,
    /// Application name.
    pub app: Option<String>,
}

/// Where a row comes from and what it is called.
#[derive(Clone, Debug)]
pub struct FlowContext<'a> {
    /// Customer.
    pub tenant: &'a str,
    /// Site.
    pub partition: &'a str,
    /// Its name.
    pub row_id: RowId,
    /// Epoch of emission.
    pub epoch: i64,
    /// Receipt.
    pub received: Time,
    /// The exporter.
    pub sampler: IpAddr,
    /// Protocol that brought it.
    pub flow_type: &'static str,
}

/// Exporters' clocks may be off by this much before their times are taken for nonsense, microseconds: a day.
const ABSURD_US: u64 = 86_400_000_000;

impl Flow {
    /// The row. Times further than a day from receipt are clamped to it and noted; a rate nobody told leaves the
    /// counts as they are and says so.
    pub fn row(&self, cx: &FlowContext<'_>) -> FlowRow {
        let received = cx.received.0;
        let mut notes = None;
        let mut sane = |us: Option<i64>| {
            us.map(|us| {
                if us.abs_diff(received) > ABSURD_US {
                    notes = Some("time clamped to receipt".to_owned());
                    received
                } else {
                    us
                }
            })
        };
        let (start, end) = (sane(self.start_us), sane(self.end_us));
        let bytes = clamp(if self.bytes == 0 { self.l2_bytes } else { self.bytes });
        let packets = clamp(self.packets);
        let (rate, source) = match self.sampling {
            Some((rate, source)) if rate > 0 => (Some(clamp(rate)), source),
            _ => (None, SamplingSource::Unknown),
        };
        FlowRow {
            tenant_id: cx.tenant.to_owned(),
            partition: cx.partition.to_owned(),
            row_id: cx.row_id,
            epoch: cx.epoch,
            time: Time(end.or(start).unwrap_or(received)),
            start_time: start.map(Time),
            received_at: cx.received,
            src_endpoint_ip: self.src_ip,
            src_endpoint_ip_bin: self.src_ip.map(IpBytes::from),
            src_endpoint_port: self.src_port.map(i64::from),
            src_mac: self.src_mac.map(hex::encode_upper),
            dst_endpoint_ip: self.dst_ip,
            dst_endpoint_ip_bin: self.dst_ip.map(IpBytes::from),
            dst_endpoint_port: self.dst_port.map(i64::from),
            dst_mac: self.dst_mac.map(hex::encode_upper),
            protocol_num: self.protocol.map(i64::from),
            protocol_name: self.protocol.map(protocol_name),
            tcp_flags: self.tcp_flags.map(i64::from),
            tos: self.tos.map(i64::from),
            bytes_total: bytes.saturating_mul(rate.unwrap_or(1)),
            packets_total: packets.saturating_mul(rate.unwrap_or(1)),
            bytes_raw: bytes,
            packets_raw: packets,
            sampling_rate: rate,
            sampling_source: source.name().to_owned(),
            sampler_address: cx.sampler,
            in_if: self.in_if.map(i64::from),
            out_if: self.out_if.map(i64::from),
            src_as_number: self.src_as.map(i64::from),
            dst_as_number: self.dst_as.map(i64::from),
            next_hop: self.next_hop,
            vlan: self.vlan.map(i64::from),
            ether_type: self.ether_type.map(i64::from),
            direction: self.direction.and_then(|d| ["ingress", "egress"].get(usize::from(d))).map(|&d| d.to_owned()),
            app: self.app.clone(),
            flow_type: cx.flow_type.to_owned(),
            src_device_uid: None,
            dst_device_uid: None,
            exporter_device_uid: None,
            notes,
        }
    }
}

fn clamp(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// IANA protocol names of the protocols seen in practice; the number as text for the others.
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        41 => "ipv6",
        46 => "rsvp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        88 => "eigrp",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        115 => "l2tp",
        132 => "sctp",
        136 => "udplite",
        other => return other.to_string(),
    }
    .to_owned()
}
