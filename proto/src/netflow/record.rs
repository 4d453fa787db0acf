//! A data record of v9 or IPFIX: what its fields say, and what they mean together, as a flow or as what options say.

use std::net::IpAddr;

use crate::flow::{Flow, MAX_LABELS};
use crate::packet::Tunnels;

/// What instants of a message are told by.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) export_s: u32,
    pub(super) boot_us: Option<i64>,
}

impl Clock {
    fn export_us(self) -> i64 {
        i64::from(self.export_s) * 1_000_000
    }

    /// An instant given as milliseconds of the exporter's up-time.
    pub(super) fn uptime(self, ms: u32) -> Option<i64> {
        let at_export = (self.export_us() - self.boot_us?) / 1000;
        Some(self.export_us() + since(at_export as u32, ms))
    }

    /// An instant given as microseconds before export.
    pub(super) fn before_export(self, us: u64) -> Option<i64> {
        Some(self.export_us() - i64::try_from(us).ok()?)
    }
}

/// Microseconds from one up-time to another. Up-times are 32 bits of milliseconds (RFC 3954 section 8): the nearer way counts.
pub(super) fn since(from_ms: u32, to_ms: u32) -> i64 {
    i64::from(to_ms.wrapping_sub(from_ms) as i32) * 1000
}

/// What the other direction counts.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) tcp_flags: Option<u16>,
    pub(super) start_us: Option<i64>,
    pub(super) end_us: Option<i64>,
}

/// What elements say that mean something only beside others: decided once the record is read, so that no order of a template
/// changes it.
#[derive(Default)]
pub(super) struct Said {
    /// By what counts: of this flow (1, 2), of a connection's initiator (231, 298), since the beginning (85, 86), after what the
    /// exporter itself does (23, 24).
    pub(super) bytes: [Option<u64>; 4],
    pub(super) packets: [Option<u64>; 4],
    /// ICMP type and code, of either version.
    pub(super) icmp: Option<u16>,
    pub(super) icmp_type: Option<u8>,
    pub(super) icmp_code: Option<u8>,
    pub(super) dscp: Option<u8>,
    pub(super) ttl: (Option<u8>, Option<u8>),
    /// Lengths of prefixes of IPv4 and of IPv6. Exporters fill the family that does not apply with zeros.
    pub(super) src_prefix: (Option<u8>, Option<u8>),
    pub(super) dst_prefix: (Option<u8>, Option<u8>),
    /// Entries of the label stack, 0 where there is none.
    pub(super) labels: [u32; MAX_LABELS],
    /// A packet, or its beginning.
    pub(super) is_packet: bool,
    /// What stands in for interfaces and MACs where these are missing.
    pub(super) physical_if: (Option<u32>, Option<u32>),
    pub(super) post_mac: (Option<[u8; 6]>, Option<[u8; 6]>),
    /// When what the record tells of happened, and how long it took.
    pub(super) observed_us: Option<i64>,
    pub(super) lasted_us: Option<i64>,
}

/// A record that is being read; one is used for all of a set.
pub(super) struct Record {
    /// What is entered of sampled packets.
    pub(super) tunnels: Tunnels,
    /// The flow; of options what they tell of: names stand where those of a flow do.
    pub(super) flow: Flow,
    pub(super) reverse: Option<Counts>,
    pub(super) said: Said,
    pub(super) interval: Option<u64>,
    pub(super) packet_interval: Option<u64>,
    pub(super) packet_space: Option<u64>,
    pub(super) size_population: (Option<u64>, Option<u64>),
    /// What the application is known by.
    pub(super) app_key: Option<u64>,
    pub(super) app_description: String,
    pub(super) boot_us: Option<i64>,
}

impl Record {
    pub(super) fn new(tunnels: Tunnels) -> Self {
        Record {
            tunnels,
            flow: Flow::default(),
            reverse: None,
            said: Said::default(),
            interval: None,
            packet_interval: None,
            packet_space: None,
            size_population: (None, None),
            app_key: None,
            app_description: String::new(),
            boot_us: None,
        }
    }

    /// Of nothing again.
    pub(super) fn clear(&mut self) {
        let Record {
            tunnels: _,
            flow,
            reverse,
            said,
            interval,
            packet_interval,
            packet_space,
            size_population,
            app_key,
            app_description,
            boot_us,
        } = self;
        flow.clear();
        app_description.clear();
        *said = Said::default();
        (*reverse, *app_key, *boot_us) = (None, None, None);
        (*interval, *packet_interval, *packet_space, *size_population) = (None, None, None, (None, None));
    }

    /// One in how many: element 34/50/305-like interval, or (interval + space) / interval, or population / size.
    pub(super) fn sampling_rate(&self) -> Option<u64> {
        let plain = self.interval;
        let spaced = match (self.packet_interval, self.packet_space) {
            (Some(n), Some(space)) if n > 0 => Some(n.saturating_add(space) / n),
            _ => None,
        };
        let of = match self.size_population {
            (Some(size), Some(population)) if size > 0 => Some(population / size),
            _ => None,
        };
        plain.or(spaced).or(of).filter(|rate| *rate > 0)
    }

    /// Decides what the fields mean together, once all are read.
    pub(super) fn finish(&mut self) {
        let (flow, said) = (&mut self.flow, &self.said);
        let first = |counts: &[Option<u64>; 4]| {
            counts.iter().flatten().find(|n| **n > 0).or(counts.iter().flatten().next()).copied()
        };
        flow.bytes = first(&said.bytes);
        // A packet report is of one packet (RFC 5476).
        flow.packets = first(&said.packets).unwrap_or(0).max(u64::from(said.is_packet));
        let parts = said.icmp_type.map(|kind| u16::from(kind) << 8 | u16::from(said.icmp_code.unwrap_or(0)));
        if let Some(icmp) = said.icmp.or(parts)
            && flow.protocol.map_or(flow.src_port.is_none() && flow.dst_port.is_none(), |n| matches!(n, 1 | 58))
        {
            flow.src_port.get_or_insert(0);
            flow.dst_port = Some(icmp);
            (flow.icmp_type, flow.icmp_code) = (Some((icmp >> 8) as u8), Some(icmp as u8));
        }
        // As v5 tells them: in place of a port.
        if let (Some(1 | 58), Some(port), None) = (flow.protocol, flow.dst_port, flow.icmp_type) {
            (flow.icmp_type, flow.icmp_code) = (Some((port >> 8) as u8), Some(port as u8));
        }
        flow.tos = flow.tos.or(said.dscp.map(|dscp| dscp << 2));
        if let (Some(one), other) | (other, Some(one)) = said.ttl {
            let other = other.unwrap_or(one);
            flow.ttl = Some((one.min(other), one.max(other)));
        }
        flow.src_prefix = of_family(flow.src_ip, said.src_prefix);
        flow.dst_prefix = of_family(flow.dst_ip, said.dst_prefix);
        if said.labels != [0; MAX_LABELS] {
            flow.labels.clear();
            // Twenty bits of label, three of class, one at the bottom.
            flow.labels.extend(said.labels.iter().filter(|entry| **entry > 0).map(|entry| entry >> 4));
        }
        flow.in_if = flow.in_if.or(said.physical_if.0);
        flow.out_if = flow.out_if.or(said.physical_if.1);
        flow.src_mac = flow.src_mac.or(said.post_mac.0);
        flow.dst_mac = flow.dst_mac.or(said.post_mac.1);
        flow.vlan = flow.vlan.or(flow.src_vlan).or(flow.dst_vlan);
        flow.end_us = flow.end_us.or(said.observed_us);
        let lasted = |us: i64| us.checked_add(said.lasted_us?);
        flow.end_us = flow.end_us.or(flow.start_us.and_then(lasted));
        if flow.ether_type.is_none() {
            flow.ether_type = flow.src_ip.or(flow.dst_ip).map(|ip| if ip.is_ipv4() { 0x0800 } else { 0x86dd });
        }
        // Nothing came back.
        self.reverse.take_if(|counts| counts.bytes == 0 && counts.packets == 0);
    }
}

/// What applies to an address of its family; of none, what is not filled with zeros.
fn of_family(ip: Option<IpAddr>, (v4, v6): (Option<u8>, Option<u8>)) -> Option<u8> {
    match ip {
        Some(IpAddr::V4(_)) => v4,
        Some(IpAddr::V6(_)) => v6,
        None => v4.filter(|bits| *bits > 0).or(v6).or(v4),
    }
    .filter(|bits| *bits <= 128)
}
