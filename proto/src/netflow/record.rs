//! A data record of v9 or IPFIX: its fields, by what the registry says of their elements, as a flow or as what options say.

use std::net::IpAddr;

use super::FieldSpec;
use crate::flow::Flow;
use crate::wire::uint;

/// Marks v9 scope fields, which number other things than elements do. Not a registered enterprise.
pub(super) const V9_SCOPE: u32 = u32::MAX;
/// RFC 5103: elements of the reverse direction.
pub(super) const REVERSE_PEN: u32 = 29305;

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
    fn before_export(self, us: u64) -> Option<i64> {
        Some(self.export_us() - i64::try_from(us).ok()?)
    }
}

/// Microseconds from one up-time to another. Up-times are 32 bits of milliseconds (RFC 3954 section 8): the nearer way counts.
pub(super) fn since(from_ms: u32, to_ms: u32) -> i64 {
    i64::from(to_ms.wrapping_sub(from_ms) as i32) * 1000
}

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
struct Said {
    /// By what counts: of this flow (1, 2), of a connection's initiator (231, 298), since the beginning (85, 86), after what the
    /// exporter itself does (23, 24).
    bytes: [Option<u64>; 4],
    packets: [Option<u64>; 4],
    /// ICMP type and code, of either version.
    icmp: Option<u16>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    /// A packet, or its beginning.
    is_packet: bool,
    /// What stands in for interfaces, MACs and VLAN where these are missing.
    physical_if: (Option<u32>, Option<u32>),
    post_mac: (Option<[u8; 6]>, Option<[u8; 6]>),
    post_vlan: Option<u16>,
    /// When what the record tells of happened, and how long it took.
    observed_us: Option<i64>,
    lasted_us: Option<i64>,
}

#[derive(Default)]
pub(super) struct Record {
    pub(super) flow: Flow,
    pub(super) is_flow: bool,
    pub(super) reverse: Option<Counts>,
    said: Said,
    interval: Option<u64>,
    packet_interval: Option<u64>,
    packet_space: Option<u64>,
    size_population: (Option<u64>, Option<u64>),
    pub(super) app_id: Option<u64>,
    pub(super) app_name: Option<String>,
    pub(super) boot_us: Option<i64>,
}

impl Record {
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

    pub(super) fn scope(&mut self, field: &FieldSpec, value: &[u8]) {
        if field.enterprise == 0 {
            match field.element {
                48 | 302 => self.flow.sampler_id = Some(uint(value)),
                95 => self.app_id = Some(uint(value)),
                _ => {}
            }
        }
    }

    pub(super) fn reverse(&mut self, element: u16, value: &[u8], clock: Clock) {
        let counts = self.reverse.get_or_insert_default();
        match element {
            1 | 85 => counts.bytes = uint(value),
            2 | 86 => counts.packets = uint(value),
            6 => counts.tcp_flags = Some(uint(value) as u16),
            22 => counts.start_us = clock.uptime(uint(value) as u32),
            21 => counts.end_us = clock.uptime(uint(value) as u32),
            152 => counts.start_us = millis(value),
            153 => counts.end_us = millis(value),
            _ => {}
        }
    }

    /// IANA "IPFIX Information Elements"; v9 shares the first 127.
    pub(super) fn element(&mut self, element: u16, v: &[u8], clock: Clock) {
        let n = || uint(v);
        let (flow, said) = (&mut self.flow, &mut self.said);
        match element {
            1 => said.bytes[0] = Some(n()),
            2 => said.packets[0] = Some(n()),
            231 => said.bytes[1] = Some(n()),
            298 => said.packets[1] = Some(n()),
            85 => said.bytes[2] = Some(n()),
            86 => said.packets[2] = Some(n()),
            23 => said.bytes[3] = Some(n()),
            24 => said.packets[3] = Some(n()),
            // The responder's: the same connection, the other way.
            232 => self.reverse.get_or_insert_default().bytes = n(),
            299 => self.reverse.get_or_insert_default().packets = n(),
            352 => flow.l2_bytes = n(),
            // RFC 5477: the length of the packet that a report is of.
            312 => flow.l2_bytes = n(),
            4 => flow.protocol = Some(n() as u8),
            5 => flow.tos = Some(n() as u8),
            6 => flow.tcp_flags = Some(n() as u16),
            7 => flow.src_port = Some(n() as u16),
            11 => flow.dst_port = Some(n() as u16),
            8 | 27 => flow.src_ip = address(v).or(flow.src_ip),
            12 | 28 => flow.dst_ip = address(v).or(flow.dst_ip),
            15 | 18 | 62 | 63 => flow.next_hop = address(v).or(flow.next_hop),
            10 => flow.in_if = Some(n() as u32),
            14 => flow.out_if = Some(n() as u32),
            16 => flow.src_as = Some(n() as u32),
            17 => flow.dst_as = Some(n() as u32),
            21 => flow.end_us = clock.uptime(n() as u32),
            22 => flow.start_us = clock.uptime(n() as u32),
            150 => flow.start_us = seconds(v),
            151 => flow.end_us = seconds(v),
            152 => flow.start_us = millis(v),
            153 => flow.end_us = millis(v),
            154 | 156 => flow.start_us = ntp(v),
            155 | 157 => flow.end_us = ntp(v),
            158 => flow.start_us = clock.before_export(n()),
            159 => flow.end_us = clock.before_export(n()),
            32 | 139 => said.icmp = Some(n() as u16),
            176 | 178 => said.icmp_type = Some(n() as u8),
            177 | 179 => said.icmp_code = Some(n() as u8),
            161 => said.lasted_us = millis(v),
            322 => said.observed_us = seconds(v),
            323 => said.observed_us = millis(v),
            324 | 325 => said.observed_us = ntp(v),
            34 | 50 => self.interval = Some(n()),
            304 => {}
            305 => self.packet_interval = Some(n()),
            306 => self.packet_space = Some(n()),
            309 => self.size_population.0 = Some(n()),
            310 => self.size_population.1 = Some(n()),
            48 | 302 => flow.sampler_id = Some(n()),
            56 => flow.src_mac = mac(v),
            80 => flow.dst_mac = mac(v),
            58 | 243 => flow.vlan = Some(n() as u16),
            59 | 254 => said.post_vlan = Some(n() as u16),
            57 => said.post_mac.1 = mac(v),
            81 => said.post_mac.0 = mac(v),
            252 => said.physical_if.0 = Some(n() as u32),
            253 => said.physical_if.1 = Some(n() as u32),
            61 => flow.direction = Some(n() as u8),
            95 => self.app_id = Some(n()),
            96 => self.app_name = text(v),
            160 => self.boot_us = millis(v),
            256 => flow.ether_type = Some(n() as u16),
            313 => {
                crate::packet::ip(v, flow);
                said.is_packet = true;
            }
            315 => {
                crate::packet::ethernet(v, flow);
                said.is_packet = true;
            }
            _ => return,
        }
        self.is_flow |= matches!(
            element,
            1 | 2 | 8 | 12 | 23 | 24 | 27 | 28 | 85 | 86 | 152 | 153 | 231 | 232 | 298 | 299 | 313 | 315 | 352
        );
    }

    /// Decides what the fields mean together, once all are read.
    pub(super) fn finish(&mut self) {
        let (flow, said) = (&mut self.flow, &self.said);
        let first = |counts: &[Option<u64>; 4]| {
            counts.iter().flatten().find(|n| **n > 0).or(counts.iter().flatten().next()).copied()
        };
        flow.bytes = first(&said.bytes).unwrap_or(flow.bytes);
        // A packet report is of one packet (RFC 5476).
        flow.packets = first(&said.packets).unwrap_or(flow.packets).max(u64::from(said.is_packet));
        let parts = said.icmp_type.map(|kind| u16::from(kind) << 8 | u16::from(said.icmp_code.unwrap_or(0)));
        if let Some(icmp) = said.icmp.or(parts)
            && flow.protocol.map_or(flow.src_port.is_none() && flow.dst_port.is_none(), |n| matches!(n, 1 | 58))
        {
            flow.src_port.get_or_insert(0);
            flow.dst_port = Some(icmp);
        }
        flow.in_if = flow.in_if.or(said.physical_if.0);
        flow.out_if = flow.out_if.or(said.physical_if.1);
        flow.src_mac = flow.src_mac.or(said.post_mac.0);
        flow.dst_mac = flow.dst_mac.or(said.post_mac.1);
        flow.vlan = flow.vlan.or(said.post_vlan);
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

fn address(v: &[u8]) -> Option<IpAddr> {
    let ip = match v.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(v).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(v).ok()?).to_canonical(),
        _ => return None,
    };
    // Exporters fill the family that does not apply with zeros.
    (!ip.is_unspecified()).then_some(ip)
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

fn text(v: &[u8]) -> Option<String> {
    let end = v.iter().position(|b| *b == 0).unwrap_or(v.len());
    let text = String::from_utf8_lossy(&v[..end]).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
