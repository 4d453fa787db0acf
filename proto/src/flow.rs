//! One flow, whatever protocol brought it: what the decoders fill, and what goes from there into the columns of the `flows`
//! table ([`columns`]).
//!
//! A decoder has one [`Flow`], fills it, hands it on, and clears it for the next record: a flow costs no memory of its own.

mod columns;
pub mod names;
pub mod tables;
mod unmapped;

use std::net::IpAddr;

pub use columns::FlowContext;
pub use unmapped::{MAX_UNMAPPED_BYTES, Unmapped};

/// MPLS labels of one flow; IPFIX has elements for ten.
pub const MAX_LABELS: usize = 10;
/// Bytes of a name; longer ones are cut.
pub const MAX_NAME_BYTES: usize = 128;

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

/// One flow as decoded; counts as reported, before the sampling rate. What each field means, and which element tells it, is
/// said of the column it becomes ([`crate::rows::Flow`]).
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
    /// Length of the source's prefix, bits.
    pub src_prefix: Option<u8>,
    /// Length of the destination's prefix, bits.
    pub dst_prefix: Option<u8>,
    /// Source address after translation.
    pub src_nat_ip: Option<IpAddr>,
    /// Destination address after translation.
    pub dst_nat_ip: Option<IpAddr>,
    /// Source port after translation.
    pub src_nat_port: Option<u16>,
    /// Destination port after translation.
    pub dst_nat_port: Option<u16>,
    /// User at the source; empty while unknown, as all texts here.
    pub src_user: String,
    /// User at the destination.
    pub dst_user: String,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// TCP flags.
    pub tcp_flags: Option<u16>,
    /// Type of service.
    pub tos: Option<u8>,
    /// Least and greatest time to live.
    pub ttl: Option<(u8, u8)>,
    /// ICMP type.
    pub icmp_type: Option<u8>,
    /// ICMP code.
    pub icmp_code: Option<u8>,
    /// Identification of the fragmented packet.
    pub fragment_id: Option<u32>,
    /// Offset of the fragment, units of eight bytes.
    pub fragment_offset: Option<u16>,
    /// IPv6 flow label.
    pub flow_label: Option<u32>,
    /// Bytes of layer 3, as counted.
    pub bytes: Option<u64>,
    /// Bytes of layer 2, as counted.
    pub l2_bytes: Option<u64>,
    /// Bytes of layer 3 that a sampled packet's header tells.
    pub header_bytes: Option<u32>,
    /// Packets.
    pub packets: u64,
    /// Sampling rate and who told it.
    pub sampling: Option<(u64, SamplingSource)>,
    /// Which sampler of the exporter looked, to be resolved from options.
    pub sampler_id: Option<u64>,
    /// Its name.
    pub sampler_name: String,
    /// Part of the exporter that observed.
    pub domain: Option<u32>,
    /// Input interface.
    pub in_if: Option<u32>,
    /// Output interface.
    pub out_if: Option<u32>,
    /// Its name.
    pub in_if_name: String,
    /// Its name.
    pub out_if_name: String,
    /// Its description.
    pub in_if_description: String,
    /// Its description.
    pub out_if_description: String,
    /// Routing instance it came in by.
    pub in_vrf: Option<u32>,
    /// Routing instance it left by.
    pub out_vrf: Option<u32>,
    /// Its name.
    pub in_vrf_name: String,
    /// Its name.
    pub out_vrf_name: String,
    /// Source AS.
    pub src_as: Option<u32>,
    /// Destination AS.
    pub dst_as: Option<u32>,
    /// Next hop.
    pub next_hop: Option<IpAddr>,
    /// Next hop of BGP.
    pub bgp_next_hop: Option<IpAddr>,
    /// ASes to the destination.
    pub as_path: Vec<u32>,
    /// BGP communities.
    pub communities: Vec<u32>,
    /// VLAN.
    pub vlan: Option<u16>,
    /// VLAN it came in by.
    pub src_vlan: Option<u16>,
    /// VLAN it left by.
    pub dst_vlan: Option<u16>,
    /// The customer's VLAN.
    pub customer_vlan: Option<u16>,
    /// MPLS labels, the top first; at most [`MAX_LABELS`].
    pub labels: Vec<u32>,
    /// Ethernet type.
    pub ether_type: Option<u16>,
    /// Ingress (0) or egress (1); other values are not assigned (IANA, flowDirection).
    pub direction: Option<u8>,
    /// Application name.
    pub app: String,
    /// Application: classification engine and selector (RFC 6759).
    pub app_id: Option<(u8, u64)>,
    /// Forwarding status.
    pub forwarding_status: Option<u8>,
    /// Why the packet was dropped, as sFlow numbers it.
    pub discard_reason: Option<u32>,
    /// Why it ended.
    pub end_reason: Option<u8>,
    /// What a firewall tells of.
    pub firewall_event: Option<u8>,
    /// What a translator tells of.
    pub nat_event: Option<u8>,
    /// What the exporter calls it.
    pub flow_id: Option<u64>,
    /// What no field is for.
    pub unmapped: Unmapped,
}

impl Flow {
    /// Of nothing again; what its texts and lists took stays reserved. Field by field: to make another and move these there
    /// takes as long as to read a record.
    pub fn clear(&mut self) {
        let Flow {
            start_us,
            end_us,
            src_ip,
            dst_ip,
            src_port,
            dst_port,
            src_mac,
            dst_mac,
            src_prefix,
            dst_prefix,
            src_nat_ip,
            dst_nat_ip,
            src_nat_port,
            dst_nat_port,
            src_user,
            dst_user,
            protocol,
            tcp_flags,
            tos,
            ttl,
            icmp_type,
            icmp_code,
            fragment_id,
            fragment_offset,
            flow_label,
            bytes,
            l2_bytes,
            header_bytes,
            packets,
            sampling,
            sampler_id,
            sampler_name,
            domain,
            in_if,
            out_if,
            in_if_name,
            out_if_name,
            in_if_description,
            out_if_description,
            in_vrf,
            out_vrf,
            in_vrf_name,
            out_vrf_name,
            src_as,
            dst_as,
            next_hop,
            bgp_next_hop,
            as_path,
            communities,
            vlan,
            src_vlan,
            dst_vlan,
            customer_vlan,
            labels,
            ether_type,
            direction,
            app,
            app_id,
            forwarding_status,
            discard_reason,
            end_reason,
            firewall_event,
            nat_event,
            flow_id,
            unmapped,
        } = self;
        *start_us = None;
        *end_us = None;
        *src_ip = None;
        *dst_ip = None;
        *src_port = None;
        *dst_port = None;
        *src_mac = None;
        *dst_mac = None;
        *src_prefix = None;
        *dst_prefix = None;
        *src_nat_ip = None;
        *dst_nat_ip = None;
        *src_nat_port = None;
        *dst_nat_port = None;
        *protocol = None;
        *tcp_flags = None;
        *tos = None;
        *ttl = None;
        *icmp_type = None;
        *icmp_code = None;
        *fragment_id = None;
        *fragment_offset = None;
        *flow_label = None;
        *bytes = None;
        *l2_bytes = None;
        *header_bytes = None;
        *sampling = None;
        *sampler_id = None;
        *domain = None;
        *in_if = None;
        *out_if = None;
        *in_vrf = None;
        *out_vrf = None;
        *src_as = None;
        *dst_as = None;
        *next_hop = None;
        *bgp_next_hop = None;
        *vlan = None;
        *src_vlan = None;
        *dst_vlan = None;
        *customer_vlan = None;
        *ether_type = None;
        *direction = None;
        *app_id = None;
        *forwarding_status = None;
        *discard_reason = None;
        *end_reason = None;
        *firewall_event = None;
        *nat_event = None;
        *flow_id = None;
        *packets = 0;
        src_user.clear();
        dst_user.clear();
        sampler_name.clear();
        in_if_name.clear();
        out_if_name.clear();
        in_if_description.clear();
        out_if_description.clear();
        in_vrf_name.clear();
        out_vrf_name.clear();
        as_path.clear();
        communities.clear();
        labels.clear();
        app.clear();
        unmapped.clear();
    }

    /// The other direction: the ends are swapped, counts are left.
    pub fn reverse(&mut self) {
        use std::mem::swap;
        swap(&mut self.src_ip, &mut self.dst_ip);
        swap(&mut self.src_port, &mut self.dst_port);
        swap(&mut self.src_mac, &mut self.dst_mac);
        swap(&mut self.src_prefix, &mut self.dst_prefix);
        swap(&mut self.src_nat_ip, &mut self.dst_nat_ip);
        swap(&mut self.src_nat_port, &mut self.dst_nat_port);
        swap(&mut self.src_user, &mut self.dst_user);
        swap(&mut self.src_as, &mut self.dst_as);
        swap(&mut self.in_if, &mut self.out_if);
        swap(&mut self.in_if_name, &mut self.out_if_name);
        swap(&mut self.in_if_description, &mut self.out_if_description);
        swap(&mut self.in_vrf, &mut self.out_vrf);
        swap(&mut self.in_vrf_name, &mut self.out_vrf_name);
        swap(&mut self.src_vlan, &mut self.dst_vlan);
    }
}

/// Takes in a name, which ends where its field is filled with zeros.
pub(crate) fn text(out: &mut String, value: &[u8]) {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    // What is cut is no longer than what is kept of it.
    let text = String::from_utf8_lossy(&value[..end.min(4 * MAX_NAME_BYTES)]);
    let text = text.trim();
    out.clear();
    out.push_str(&text[..text.floor_char_boundary(MAX_NAME_BYTES)]);
}
