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
    /// An instant given as milliseconds of exporter up-time; the counter wraps every 49.7 days.
    pub(super) fn uptime(self, ms: u32) -> Option<i64> {
        let boot = self.boot_us?;
        let export_us = i64::from(self.export_s) * 1_000_000;
        let mut at = boot + i64::from(ms) * 1000;
        if at > export_us + 3_600_000_000 {
            at -= (1i64 << 32) * 1000;
        }
        Some(at)
    }

    /// An instant given as microseconds before export.
    fn before_export(self, us: u64) -> Option<i64> {
        Some(i64::from(self.export_s) * 1_000_000 - i64::try_from(us).ok()?)
    }
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) tcp_flags: Option<u16>,
    pub(super) start_us: Option<i64>,
    pub(super) end_us: Option<i64>,
}

#[derive(Default)]
pub(super) struct Record {
    pub(super) flow: Flow,
    pub(super) is_flow: bool,
    pub(super) reverse: Option<Counts>,
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
        let flow = &mut self.flow;
        match element {
            1 | 85 => flow.bytes = n(),
            2 | 86 => flow.packets = n(),
            // Post-counters stand in where the pre-counters are missing.
            23 if flow.bytes == 0 => flow.bytes = n(),
            24 if flow.packets == 0 => flow.packets = n(),
            231 => flow.bytes = n(),
            298 => flow.packets = n(),
            352 => flow.l2_bytes = n(),
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
            32 | 139 => {
                flow.src_port.get_or_insert(0);
                flow.dst_port = Some(n() as u16);
            }
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
            61 => flow.direction = Some(n() as u8),
            95 => self.app_id = Some(n()),
            96 => self.app_name = text(v),
            160 => self.boot_us = millis(v),
            256 => flow.ether_type = Some(n() as u16),
            315 => crate::packet::ethernet(v, flow),
            _ => return,
        }
        self.is_flow |=
            matches!(element, 1 | 2 | 8 | 12 | 23 | 24 | 27 | 28 | 85 | 86 | 152 | 153 | 231 | 298 | 315 | 352);
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
