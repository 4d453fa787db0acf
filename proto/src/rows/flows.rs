//! Flows and counters of interfaces, as exporters send them.

use std::net::IpAddr;

use crate::cell::{Cell, IpBytes, RowId, Tags, Time};
use crate::table::rows;

rows! {
    /// Network flows. Named and shaped as ServiceRadar's `ocsf_network_activity`.
    Event Flow FlowBatch "flows" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// End of the flow, as the exporter says, clamped to receipt when absurd.
        time: Time,
        /// Start of the flow.
        start_time: Option<Time>,
        /// Receipt.
        received_at: Time,
        /// Source address.
        src_endpoint_ip: Option<IpAddr>,
        /// Source address, sixteen bytes.
        src_endpoint_ip_bin: Option<IpBytes>,
        /// Source port.
        src_endpoint_port: Option<i64>,
        /// Source MAC.
        src_mac: Option<String>,
        /// Length of the prefix by which the source is routed, bits (IPFIX 9, 29; sFlow extended router).
        src_prefix_length: Option<i64>,
        /// Source address after translation (IPFIX 225, 281; sFlow extended NAT).
        src_nat_ip: Option<IpAddr>,
        /// Source port after translation (IPFIX 227; sFlow extended NAT port).
        src_nat_port: Option<i64>,
        /// User at the source (IPFIX 371, ASA 40000, PAN-OS 56702; sFlow extended user).
        src_user_name: Option<String>,
        /// Name of the source's network (configuration).
        src_net_name: Option<String>,
        /// Role of the source's network (configuration).
        src_net_role: Option<String>,
        /// Site of the source's network (configuration).
        src_net_site: Option<String>,
        /// Region of the source's network (configuration).
        src_net_region: Option<String>,
        /// Who has the source's network (configuration).
        src_net_tenant: Option<String>,
        /// Country of the source's network, ISO 3166 alpha-2 (configuration).
        src_country: Option<String>,
        /// City of the source's network (configuration).
        src_city: Option<String>,
        /// Destination address.
        dst_endpoint_ip: Option<IpAddr>,
        /// Destination address, sixteen bytes.
        dst_endpoint_ip_bin: Option<IpBytes>,
        /// Destination port.
        dst_endpoint_port: Option<i64>,
        /// Destination MAC.
        dst_mac: Option<String>,
        /// Length of the prefix by which the destination is routed, bits (IPFIX 13, 30; sFlow extended router).
        dst_prefix_length: Option<i64>,
        /// Destination address after translation (IPFIX 226, 282; sFlow extended NAT).
        dst_nat_ip: Option<IpAddr>,
        /// Destination port after translation (IPFIX 228; sFlow extended NAT port).
        dst_nat_port: Option<i64>,
        /// User at the destination (sFlow extended user).
        dst_user_name: Option<String>,
        /// Name of the destination's network (configuration).
        dst_net_name: Option<String>,
        /// Role of the destination's network (configuration).
        dst_net_role: Option<String>,
        /// Site of the destination's network (configuration).
        dst_net_site: Option<String>,
        /// Region of the destination's network (configuration).
        dst_net_region: Option<String>,
        /// Who has the destination's network (configuration).
        dst_net_tenant: Option<String>,
        /// Country of the destination's network, ISO 3166 alpha-2 (configuration).
        dst_country: Option<String>,
        /// City of the destination's network (configuration).
        dst_city: Option<String>,
        /// IP protocol number.
        protocol_num: Option<i64>,
        /// IP protocol name.
        protocol_name: Option<String>,
        /// TCP flags, ORed.
        tcp_flags: Option<i64>,
        /// Type of service.
        tos: Option<i64>,
        /// Differentiated services code point: the upper six bits of `tos` (RFC 2474; IPFIX 195).
        dscp: Option<i64>,
        /// Least time to live, or hop limit, of the flow's packets (IPFIX 52, 192; sampled header).
        ttl_min: Option<i64>,
        /// Greatest time to live, or hop limit, of the flow's packets (IPFIX 53, 192; sampled header).
        ttl_max: Option<i64>,
        /// ICMP type, of either version (IPFIX 32, 139, 176, 178; sampled header).
        icmp_type: Option<i64>,
        /// ICMP code, of either version (IPFIX 32, 139, 177, 179; sampled header).
        icmp_code: Option<i64>,
        /// Identification of the packet that fragments share (IPFIX 54; sampled header).
        fragment_id: Option<i64>,
        /// Where the fragment begins in its packet, units of eight bytes (IPFIX 88; sampled header).
        fragment_offset: Option<i64>,
        /// IPv6 flow label (IPFIX 31; sampled header).
        ipv6_flow_label: Option<i64>,
        /// Bytes, times the sampling rate: of the layer that `counted_layer` says.
        bytes_total: i64,
        /// Packets, times the sampling rate.
        packets_total: i64,
        /// Bytes as reported.
        bytes_raw: i64,
        /// Packets as reported.
        packets_raw: i64,
        /// Layer whose bytes `bytes_total` and `bytes_raw` count: 3, IP packets, where the exporter counts them; 2, whole
        /// frames; null where it counts none.
        counted_layer: Option<i64>,
        /// Bytes of frames, layer 2, times the sampling rate (IPFIX 352, 312; sFlow's frame length).
        bytes_l2_total: Option<i64>,
        /// Bytes of IP packets, layer 3, times the sampling rate (IPFIX 1, 23, 85, 231; what a sampled header says).
        bytes_l3_total: Option<i64>,
        /// One in how many packets was looked at; null while unknown.
        sampling_rate: Option<i64>,
        /// Who told the rate: `record`, `options`, `header`, `configured` or `unknown`.
        sampling_source: String,
        /// Which sampler of the exporter looked (IPFIX 48, 302; sFlow's data source).
        sampler_id: Option<i64>,
        /// Its name (IPFIX 84, 335, in options).
        sampler_name: Option<String>,
        /// The exporter's address.
        sampler_address: IpAddr,
        /// Name of the exporter (configuration).
        exporter_name: Option<String>,
        /// Group of the exporter (configuration).
        exporter_group: Option<String>,
        /// Role of the exporter (configuration).
        exporter_role: Option<String>,
        /// Site of the exporter (configuration).
        exporter_site: Option<String>,
        /// Region of the exporter (configuration).
        exporter_region: Option<String>,
        /// Which part of the exporter observed: v5 engine, v9 source id, IPFIX observation domain, sFlow sub-agent.
        observation_domain: Option<i64>,
        /// Input interface index.
        in_if: Option<i64>,
        /// Name of the input interface (IPFIX 82, in options; else a rule).
        in_if_name: Option<String>,
        /// Description of the input interface (IPFIX 83, in options; else a rule).
        in_if_description: Option<String>,
        /// Speed of the input interface, bits per second (rule).
        in_if_speed_bps: Option<i64>,
        /// Boundary of the input interface: `internal` or `external` (rule).
        in_if_boundary: Option<String>,
        /// Who is at the other end of the input interface (rule).
        in_if_provider: Option<String>,
        /// What the input interface connects by: `transit`, `peering`, … (rule).
        in_if_connectivity: Option<String>,
        /// Output interface index.
        out_if: Option<i64>,
        /// Name of the output interface (IPFIX 82, in options; else a rule).
        out_if_name: Option<String>,
        /// Description of the output interface (IPFIX 83, in options; else a rule).
        out_if_description: Option<String>,
        /// Speed of the output interface, bits per second (rule).
        out_if_speed_bps: Option<i64>,
        /// Boundary of the output interface: `internal` or `external` (rule).
        out_if_boundary: Option<String>,
        /// Who is at the other end of the output interface (rule).
        out_if_provider: Option<String>,
        /// What the output interface connects by: `transit`, `peering`, … (rule).
        out_if_connectivity: Option<String>,
        /// Routing instance it came in by (IPFIX 234).
        in_vrf_id: Option<i64>,
        /// Name of the routing instance it came in by (IPFIX 236, in options too).
        in_vrf_name: Option<String>,
        /// Routing instance it left by (IPFIX 235).
        out_vrf_id: Option<i64>,
        /// Name of the routing instance it left by (IPFIX 236, in options).
        out_vrf_name: Option<String>,
        /// Source autonomous system.
        src_as_number: Option<i64>,
        /// Destination autonomous system.
        dst_as_number: Option<i64>,
        /// Name of the source's autonomous system (configuration).
        src_as_name: Option<String>,
        /// Name of the destination's autonomous system (configuration).
        dst_as_name: Option<String>,
        /// Next hop.
        next_hop: Option<IpAddr>,
        /// Next hop of BGP (IPFIX 18, 63; sFlow extended gateway).
        bgp_next_hop: Option<IpAddr>,
        /// Autonomous systems to the destination, the nearest first (sFlow extended gateway).
        as_path: Option<Vec<String>>,
        /// BGP communities of the route to the destination, `65000:100` or by their names of RFC 1997 (IPFIX 483; sFlow
        /// extended gateway).
        bgp_communities: Option<Vec<String>>,
        /// VLAN: the innermost tag of a sampled frame, else the source's, else the destination's.
        vlan: Option<i64>,
        /// VLAN that it came in by (IPFIX 58, 243; sFlow extended switch; outermost tag of a sampled frame).
        src_vlan: Option<i64>,
        /// VLAN that it left by (IPFIX 59, 254; sFlow extended switch).
        dst_vlan: Option<i64>,
        /// The customer's VLAN within the provider's (IPFIX 245; second tag of a sampled frame).
        customer_vlan: Option<i64>,
        /// MPLS labels, the top first (IPFIX 70 to 79; sFlow extended MPLS; sampled header).
        mpls_labels: Option<Vec<String>>,
        /// Ethernet type.
        ether_type: Option<i64>,
        /// `ingress` or `egress`, as the exporter says.
        direction: Option<String>,
        /// Application, as the exporter says, else the configured one that has its port.
        app: Option<String>,
        /// Its id, as classification engine and selector, `13:80` (IPFIX 95, RFC 6759).
        app_id: Option<String>,
        /// What became of it: 64 to 127 forwarded, 128 to 191 dropped, 192 to 255 consumed, by reason (IPFIX 89).
        forwarding_status: Option<i64>,
        /// Why the exporter dropped the packet; null where nobody says that it did (sFlow discarded packet, output format 1).
        discard_reason: Option<String>,
        /// Why the flow ended: `idle_timeout`, `active_timeout`, `end_of_flow`, `forced_end`, `lack_of_resources` (IPFIX 136).
        flow_end_reason: Option<String>,
        /// What a firewall tells of: `ignore`, `created`, `deleted`, `denied`, `alert`, `updated` (IPFIX 233, ASA 40005).
        firewall_event: Option<String>,
        /// What a translator tells of, by its number (IPFIX 230): 1 translation created, 2 deleted, 3 addresses exhausted, 4
        /// and 5 session created and deleted.
        nat_event: Option<i64>,
        /// What the exporter calls the flow (IPFIX 148), decimal.
        flow_id: Option<String>,
        /// Protocol that brought it: `netflow_v5`, `netflow_v9`, `ipfix`, `sflow_v5`, `flowpb`.
        flow_type: String,
        /// Device that owned the source address, by what was known at `epoch`.
        src_device_uid: Option<String>,
        /// Device that owned the destination address.
        dst_device_uid: Option<String>,
        /// Device that owned the exporter's address.
        exporter_device_uid: Option<String>,
        /// Elements that no column is for: `enterprise.element` to a number, a text, or `0x` and hex digits. Where a record
        /// has one again it is `enterprise.element#2`, and so on.
        unmapped: Option<Tags>,
        /// Who told what is not the exporter's: of `exporter`, `src_net` and `dst_net` the prefix that it was in; of `src_place`
        /// and `dst_place` the files that have the address; of `in_if` and `out_if` the `rule_id`; of `app` that it was a `port`.
        enriched_by: Option<Tags>,
        /// What the decoder had to say: clamped times, elements left out.
        notes: Option<String>,
    }

    /// What an interface counted since it started, as sFlow agents report it. Counters start anew when the agent does.
    Event InterfaceCounters InterfaceCountersBatch "interface_counters" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// Receipt.
        time: Time,
        /// The agent's address.
        sampler_address: IpAddr,
        /// Which part of the agent observed: its sub-agent.
        observation_domain: i64,
        /// Interface index (`ifIndex`).
        if_index: i64,
        /// Kind of interface, by IANA's number (`ifType`).
        if_type: i64,
        /// Speed, bits per second (`ifSpeed`).
        if_speed_bps: i64,
        /// `full_duplex`, `half_duplex`, `in`, `out`; null while unknown.
        if_direction: Option<String>,
        /// Whether it is meant to be up (`ifAdminStatus`).
        is_admin_up: bool,
        /// Whether it is up (`ifOperStatus`).
        is_oper_up: bool,
        /// Bytes received (`ifHCInOctets`).
        in_bytes: i64,
        /// Packets received, to one address (`ifInUcastPkts`).
        in_unicast_packets: Option<i64>,
        /// Packets received, to many (`ifInMulticastPkts`).
        in_multicast_packets: Option<i64>,
        /// Packets received, to all (`ifInBroadcastPkts`).
        in_broadcast_packets: Option<i64>,
        /// Packets received and discarded, though they were right (`ifInDiscards`).
        in_discards: Option<i64>,
        /// Packets received that were wrong (`ifInErrors`).
        in_errors: Option<i64>,
        /// Packets received of protocols that it does not know (`ifInUnknownProtos`).
        in_unknown_protocols: Option<i64>,
        /// Bytes sent (`ifHCOutOctets`).
        out_bytes: i64,
        /// Packets sent, to one address (`ifOutUcastPkts`).
        out_unicast_packets: Option<i64>,
        /// Packets sent, to many (`ifOutMulticastPkts`).
        out_multicast_packets: Option<i64>,
        /// Packets sent, to all (`ifOutBroadcastPkts`).
        out_broadcast_packets: Option<i64>,
        /// Packets to send that were discarded, though they were right (`ifOutDiscards`).
        out_discards: Option<i64>,
        /// Packets that could not be sent (`ifOutErrors`).
        out_errors: Option<i64>,
        /// Whether it takes in packets for others (`ifPromiscuousMode`).
        is_promiscuous: bool,
        /// Device that owned the agent's address, by what was known at `epoch`.
        device_uid: Option<String>,
    }
}
