//! Names of the numbers that flows bear.

use std::borrow::Cow;

/// IANA protocol names of the protocols seen in practice; the number as text for the others.
pub fn protocol(protocol: u8) -> Cow<'static, str> {
    Cow::Borrowed(match protocol {
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
        other => return other.to_string().into(),
    })
}

/// IANA `flowEndReason`.
pub fn flow_end_reason(reason: u8) -> Cow<'static, str> {
    Cow::Borrowed(match reason {
        1 => "idle_timeout",
        2 => "active_timeout",
        3 => "end_of_flow",
        4 => "forced_end",
        5 => "lack_of_resources",
        other => return other.to_string().into(),
    })
}

/// IANA `firewallEvent`.
pub fn firewall_event(event: u8) -> Cow<'static, str> {
    Cow::Borrowed(match event {
        0 => "ignore",
        1 => "created",
        2 => "deleted",
        3 => "denied",
        4 => "alert",
        5 => "updated",
        other => return other.to_string().into(),
    })
}

/// A BGP community as operators write it; the well-known ones by their names (IANA "BGP Well-known Communities").
pub fn community(community: u32) -> Cow<'static, str> {
    Cow::Borrowed(match community {
        0xffff_0000 => "GRACEFUL_SHUTDOWN",
        0xffff_029a => "BLACKHOLE",
        0xffff_ff01 => "NO_EXPORT",
        0xffff_ff02 => "NO_ADVERTISE",
        0xffff_ff03 => "NO_EXPORT_SUBCONFED",
        0xffff_ff04 => "NOPEER",
        other => return format!("{}:{}", other >> 16, other & 0xffff).into(),
    })
}

/// The first and the rest of the reasons of sFlow's `drop_reason` ("sFlow Dropped Packet Notification Structures", 2020).
const DISCARDS: [&[&str]; 2] = [
    &[
        "net_unreachable",
        "host_unreachable",
        "protocol_unreachable",
        "port_unreachable",
        "frag_needed",
        "src_route_failed",
        "dst_net_unknown",
        "dst_host_unknown",
        "src_host_isolated",
        "dst_net_prohibited",
        "dst_host_prohibited",
        "dst_net_tos_unreachable",
        "dst_host_tos_unreachable",
        "comm_admin_prohibited",
        "host_precedence_violation",
        "precedence_cutoff",
    ],
    &[
        "unknown",
        "ttl_exceeded",
        "acl",
        "no_buffer_space",
        "red",
        "traffic_shaping",
        "pkt_too_big",
        "src_mac_is_multicast",
        "vlan_tag_mismatch",
        "ingress_vlan_filter",
        "ingress_spanning_tree_filter",
        "port_list_is_empty",
        "port_loopback_filter",
        "blackhole_route",
        "non_ip",
        "uc_dip_over_mc_dmac",
        "dip_is_loopback_address",
        "sip_is_mc",
        "sip_is_loopback_address",
        "ip_header_corrupted",
        "ipv4_sip_is_limited_bc",
        "ipv6_mc_dip_reserved_scope",
        "ipv6_mc_dip_interface_local_scope",
        "unresolved_neigh",
        "mc_reverse_path_forwarding",
        "non_routable_packet",
        "decap_error",
        "overlay_smac_is_mc",
        "unknown_l2",
        "unknown_l3",
        "unknown_l3_exception",
        "unknown_buffer",
        "unknown_tunnel",
        "unknown_l4",
        "sip_is_unspecified",
        "mlag_port_isolation",
        "blackhole_arp_neigh",
        "src_mac_is_dmac",
        "dmac_is_reserved",
        "sip_is_class_e",
        "mc_dmac_mismatch",
        "sip_is_dip",
        "dip_is_local_network",
        "dip_is_link_local",
        "overlay_smac_is_dmac",
        "egress_vlan_filter",
        "uc_reverse_path_forwarding",
        "split_horizon",
    ],
];

/// Why a packet was dropped, as sFlow numbers it: from 0 as ICMP does, from 256 its own.
pub fn discard_reason(reason: u32) -> Cow<'static, str> {
    let (of, nth) = if reason < 256 { (DISCARDS[0], reason) } else { (DISCARDS[1], reason - 256) };
    match of.get(nth as usize) {
        Some(name) => Cow::Borrowed(name),
        None => reason.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_that_their_registries_give_them() {
        assert_eq!((discard_reason(15), discard_reason(16)), ("precedence_cutoff".into(), "16".into()));
        assert_eq!((discard_reason(256), discard_reason(290)), ("unknown".into(), "sip_is_unspecified".into()));
        assert_eq!((discard_reason(303), discard_reason(304)), ("split_horizon".into(), "304".into()));
        assert_eq!((community(0xfde8_0064), community(0xffff_ff01)), ("65000:100".into(), "NO_EXPORT".into()));
        assert_eq!((protocol(6), protocol(253)), ("tcp".into(), "253".into()));
    }
}
