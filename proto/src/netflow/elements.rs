//! What is read of a record: the elements of the registry (IANA "IPFIX Information Elements"; v9 shares the first 127), those
//! of the reverse direction (RFC 5103), of vendors, and the scopes of options.
//!
//! An element is looked up once, when its template comes; what is found is a function that takes a value in.

use std::net::IpAddr;

use super::record::{Clock, Record};
use crate::flow::text;
use crate::packet;
use crate::wire::uint;

/// Takes a value in.
pub(super) type Read = fn(&mut Record, &[u8], Clock);

/// Marks v9 scope fields, which number other things than elements do. Not a registered enterprise.
pub(super) const V9_SCOPE: u32 = u32::MAX;
/// RFC 5103: elements of the reverse direction.
pub(super) const REVERSE_PEN: u32 = 29305;
/// Palo Alto Networks.
const PALO_ALTO: u32 = 25461;

/// Whether a record that has this element is a flow: addresses or counts.
pub(super) fn makes_flow(enterprise: u32, element: u16) -> bool {
    enterprise == 0
        && matches!(
            element,
            1 | 2 | 8 | 12 | 23 | 24 | 27 | 28 | 85 | 86 | 104 | 152 | 153 | 231 | 232 | 298 | 299 | 313 | 315 | 352
        )
}

/// How an element is read; none where no field is for it.
pub(super) fn read(enterprise: u32, element: u16) -> Option<Read> {
    match enterprise {
        0 => counts(element).or_else(|| addresses(element)).or_else(|| times(element)).or_else(|| others(element)),
        REVERSE_PEN => reverse(element),
        PALO_ALTO => palo_alto(element),
        _ => None,
    }
}

/// How the scope of an options record is read.
pub(super) fn read_scope(enterprise: u32, element: u16) -> Option<Read> {
    Some(match (enterprise, element) {
        // RFC 3954 section 6.1: an interface.
        (V9_SCOPE, 2) => |r, v, _| r.flow.in_if = Some(uint(v) as u32),
        // Some exporters number v9's scopes as elements.
        (0 | V9_SCOPE, 10 | 14 | 48 | 95 | 234 | 235 | 302) => return others(element).or_else(|| addresses(element)),
        _ => |_, _, _| {},
    })
}

fn counts(element: u16) -> Option<Read> {
    Some(match element {
        1 => |r, v, _| r.said.bytes[0] = Some(uint(v)),
        2 => |r, v, _| r.said.packets[0] = Some(uint(v)),
        231 => |r, v, _| r.said.bytes[1] = Some(uint(v)),
        298 => |r, v, _| r.said.packets[1] = Some(uint(v)),
        85 => |r, v, _| r.said.bytes[2] = Some(uint(v)),
        86 => |r, v, _| r.said.packets[2] = Some(uint(v)),
        23 => |r, v, _| r.said.bytes[3] = Some(uint(v)),
        24 => |r, v, _| r.said.packets[3] = Some(uint(v)),
        // The responder's: the same connection, the other way.
        232 => |r, v, _| r.reverse.get_or_insert_default().bytes = uint(v),
        299 => |r, v, _| r.reverse.get_or_insert_default().packets = uint(v),
        // RFC 5477: 312 is the length of the packet that a report is of.
        312 | 352 => |r, v, _| r.flow.l2_bytes = Some(uint(v)),
        34 | 50 => |r, v, _| r.interval = Some(uint(v)),
        305 => |r, v, _| r.packet_interval = Some(uint(v)),
        306 => |r, v, _| r.packet_space = Some(uint(v)),
        309 => |r, v, _| r.size_population.0 = Some(uint(v)),
        310 => |r, v, _| r.size_population.1 = Some(uint(v)),
        _ => return None,
    })
}

fn addresses(element: u16) -> Option<Read> {
    Some(match element {
        7 => |r, v, _| r.flow.src_port = Some(uint(v) as u16),
        11 => |r, v, _| r.flow.dst_port = Some(uint(v) as u16),
        8 | 27 => |r, v, _| r.flow.src_ip = address(v).or(r.flow.src_ip),
        12 | 28 => |r, v, _| r.flow.dst_ip = address(v).or(r.flow.dst_ip),
        9 => |r, v, _| r.said.src_prefix.0 = Some(uint(v) as u8),
        29 => |r, v, _| r.said.src_prefix.1 = Some(uint(v) as u8),
        13 => |r, v, _| r.said.dst_prefix.0 = Some(uint(v) as u8),
        30 => |r, v, _| r.said.dst_prefix.1 = Some(uint(v) as u8),
        15 | 62 => |r, v, _| r.flow.next_hop = address(v).or(r.flow.next_hop),
        18 | 63 => |r, v, _| r.flow.bgp_next_hop = address(v).or(r.flow.bgp_next_hop),
        225 | 281 => |r, v, _| r.flow.src_nat_ip = address(v).or(r.flow.src_nat_ip),
        226 | 282 => |r, v, _| r.flow.dst_nat_ip = address(v).or(r.flow.dst_nat_ip),
        227 => |r, v, _| r.flow.src_nat_port = Some(uint(v) as u16),
        228 => |r, v, _| r.flow.dst_nat_port = Some(uint(v) as u16),
        10 => |r, v, _| r.flow.in_if = Some(uint(v) as u32),
        14 => |r, v, _| r.flow.out_if = Some(uint(v) as u32),
        252 => |r, v, _| r.said.physical_if.0 = Some(uint(v) as u32),
        253 => |r, v, _| r.said.physical_if.1 = Some(uint(v) as u32),
        16 => |r, v, _| r.flow.src_as = Some(uint(v) as u32),
        17 => |r, v, _| r.flow.dst_as = Some(uint(v) as u32),
        56 => |r, v, _| r.flow.src_mac = mac(v),
        80 => |r, v, _| r.flow.dst_mac = mac(v),
        57 => |r, v, _| r.said.post_mac.1 = mac(v),
        81 => |r, v, _| r.said.post_mac.0 = mac(v),
        58 | 243 => |r, v, _| r.flow.src_vlan = vlan(v).or(r.flow.src_vlan),
        59 | 254 => |r, v, _| r.flow.dst_vlan = vlan(v).or(r.flow.dst_vlan),
        245 => |r, v, _| r.flow.customer_vlan = vlan(v),
        234 => |r, v, _| r.flow.in_vrf = Some(uint(v) as u32),
        235 => |r, v, _| r.flow.out_vrf = Some(uint(v) as u32),
        _ => return None,
    })
}

fn times(element: u16) -> Option<Read> {
    Some(match element {
        21 => |r, v, clock| r.flow.end_us = clock.uptime(uint(v) as u32),
        22 => |r, v, clock| r.flow.start_us = clock.uptime(uint(v) as u32),
        150 => |r, v, _| r.flow.start_us = seconds(v),
        151 => |r, v, _| r.flow.end_us = seconds(v),
        152 => |r, v, _| r.flow.start_us = millis(v),
        153 => |r, v, _| r.flow.end_us = millis(v),
        154 | 156 => |r, v, _| r.flow.start_us = ntp(v),
        155 | 157 => |r, v, _| r.flow.end_us = ntp(v),
        158 => |r, v, clock| r.flow.start_us = clock.before_export(uint(v)),
        159 => |r, v, clock| r.flow.end_us = clock.before_export(uint(v)),
        160 => |r, v, _| r.boot_us = millis(v),
        161 => |r, v, _| r.said.lasted_us = millis(v),
        322 => |r, v, _| r.said.observed_us = seconds(v),
        323 => |r, v, _| r.said.observed_us = millis(v),
        324 | 325 => |r, v, _| r.said.observed_us = ntp(v),
        _ => return None,
    })
}

fn others(element: u16) -> Option<Read> {
    Some(match element {
        4 => |r, v, _| r.flow.protocol = Some(uint(v) as u8),
        5 => |r, v, _| r.flow.tos = Some(uint(v) as u8),
        6 => |r, v, _| r.flow.tcp_flags = Some(uint(v) as u16),
        195 => |r, v, _| r.said.dscp = Some(uint(v) as u8),
        52 => |r, v, _| r.said.ttl.0 = Some(uint(v) as u8),
        53 => |r, v, _| r.said.ttl.1 = Some(uint(v) as u8),
        192 => |r, v, _| r.said.ttl = (Some(uint(v) as u8), Some(uint(v) as u8)),
        31 => |r, v, _| r.flow.flow_label = Some(uint(v) as u32 & 0x000f_ffff),
        54 => |r, v, _| r.flow.fragment_id = Some(uint(v) as u32),
        88 => |r, v, _| r.flow.fragment_offset = Some(uint(v) as u16),
        32 | 139 => |r, v, _| r.said.icmp = Some(uint(v) as u16),
        176 | 178 => |r, v, _| r.said.icmp_type = Some(uint(v) as u8),
        177 | 179 => |r, v, _| r.said.icmp_code = Some(uint(v) as u8),
        48 | 302 => |r, v, _| r.flow.sampler_id = Some(uint(v)),
        84 | 335 => |r, v, _| text(&mut r.flow.sampler_name, v),
        61 => |r, v, _| r.flow.direction = Some(uint(v) as u8),
        70..=79 => return label(element),
        82 => |r, v, _| text(&mut r.flow.in_if_name, v),
        83 => |r, v, _| text(&mut r.flow.in_if_description, v),
        // The upper half says what became of it, and both halves of a reason fit in a byte, however long the field is.
        89 => |r, v, _| r.flow.forwarding_status = Some(uint(v) as u8),
        94 => |r, v, _| text(&mut r.app_description, v),
        95 => |r, v, _| {
            r.app_key = Some(uint(v));
            r.flow.app_id = v.split_first().map(|(engine, selector)| (*engine, uint(selector)));
        },
        96 => |r, v, _| text(&mut r.flow.app, v),
        136 => |r, v, _| r.flow.end_reason = Some(uint(v) as u8),
        148 => |r, v, _| r.flow.flow_id = Some(uint(v)),
        230 => |r, v, _| r.flow.nat_event = Some(uint(v) as u8),
        // ASA's own number before the registry had one.
        233 | 40005 => |r, v, _| r.flow.firewall_event = Some(uint(v) as u8),
        236 => |r, v, _| text(&mut r.flow.in_vrf_name, v),
        256 => |r, v, _| r.flow.ether_type = Some(uint(v) as u16),
        371 | 40000 => |r, v, _| text(&mut r.flow.src_user, v),
        483 => |r, v, _| r.flow.communities.push(uint(v) as u32),
        313 => |r, v, _| {
            packet::ip(v, r.tunnels, &mut r.flow);
            r.said.is_packet = true;
        },
        104 | 315 => |r, v, _| {
            packet::ethernet(v, r.tunnels, &mut r.flow);
            r.said.is_packet = true;
        },
        56701 | 56702 => return palo_alto(element),
        // Padding, the version that the addresses tell, how it was sampled, and structured data (RFC 6313).
        35 | 49 | 60 | 210 | 291..=293 | 304 => |_, _, _| {},
        _ => return None,
    })
}

/// An entry of the label stack, three bytes (RFC 3032). What is not there is filled with zeros.
fn label(element: u16) -> Option<Read> {
    macro_rules! nth {
        ($($nth:literal)*) => {
            match element - 70 {
                $( $nth => Some(|r, v, _| r.said.labels[$nth] = uint(v) as u32), )*
                _ => None,
            }
        };
    }
    nth!(0 1 2 3 4 5 6 7 8 9)
}

/// PAN-OS NetFlow: application and user, as its firewall identified them. In v9 they have no enterprise.
fn palo_alto(element: u16) -> Option<Read> {
    Some(match element {
        56701 => |r, v, _| text(&mut r.flow.app, v),
        56702 => |r, v, _| text(&mut r.flow.src_user, v),
        _ => return None,
    })
}

fn reverse(element: u16) -> Option<Read> {
    Some(match element {
        1 | 85 => |r, v, _| r.reverse.get_or_insert_default().bytes = uint(v),
        2 | 86 => |r, v, _| r.reverse.get_or_insert_default().packets = uint(v),
        6 => |r, v, _| r.reverse.get_or_insert_default().tcp_flags = Some(uint(v) as u16),
        21 => |r, v, clock| r.reverse.get_or_insert_default().end_us = clock.uptime(uint(v) as u32),
        22 => |r, v, clock| r.reverse.get_or_insert_default().start_us = clock.uptime(uint(v) as u32),
        152 => |r, v, _| r.reverse.get_or_insert_default().start_us = millis(v),
        153 => |r, v, _| r.reverse.get_or_insert_default().end_us = millis(v),
        _ => return None,
    })
}

fn address(v: &[u8]) -> Option<IpAddr> {
    let ip = match v.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(v).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(v).ok()?).to_canonical(),
        _ => return None,
    };
    // Exporters fill the family that does not apply with zeros.
    (!ip.is_unspecified()).then_some(ip)
}

/// The untagged is told as 0.
fn vlan(v: &[u8]) -> Option<u16> {
    Some(uint(v) as u16 & 0x0fff).filter(|id| *id > 0)
}

fn mac(v: &[u8]) -> Option<[u8; 6]> {
    v.try_into().ok()
}

fn seconds(v: &[u8]) -> Option<i64> {
    i64::try_from(uint(v)).ok()?.checked_mul(1_000_000)
}

fn millis(v: &[u8]) -> Option<i64> {
    i64::try_from(uint(v)).ok()?.checked_mul(1000)
}

/// RFC 7011 section 6.1.9: NTP seconds since 1900 and a binary fraction.
fn ntp(v: &[u8]) -> Option<i64> {
    if v.len() != 8 {
        return None;
    }
    let secs = uint(&v[..4]) as i64 - 2_208_988_800;
    Some(secs * 1_000_000 + ((uint(&v[4..]) * 1_000_000) >> 32) as i64)
}
