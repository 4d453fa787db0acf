//! What the network is: devices with identifiers, addresses, MACs and names, some seen by several sources.

use std::fmt::Write;
use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// One device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its number.
    pub n: usize,
    /// Its address now.
    pub ip: Ipv4Addr,
    /// Its MACs; the first is its own, the others were seen with it.
    pub macs: Vec<String>,
    /// Whether NetBox knows it too.
    pub in_netbox: bool,
    /// What it is.
    pub kind: &'static str,
    /// Who made it.
    pub vendor: &'static str,
    /// When it last changed, seconds since 1970.
    pub changed: i64,
}

/// A network of devices.
#[derive(Debug)]
pub struct Network {
    /// The devices.
    pub devices: Vec<Device>,
    rng: StdRng,
}

const KINDS: [(&str, &str); 6] = [
    ("router", "Cisco"),
    ("switch", "Juniper"),
    ("server", "Dell"),
    ("camera", "Axis"),
    ("printer", "HP"),
    ("phone", "Yealink"),
];

impl Network {
    /// `count` devices in 10.0.0.0/8, as of `now` (seconds since 1970); four MACs each in the mean, 60 % in NetBox.
    pub fn new(seed: u64, count: usize, now: i64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let devices = (0..count)
            .map(|n| {
                let (kind, vendor) = KINDS[if n == 0 { 0 } else { rng.random_range(0..KINDS.len()) }];
                let macs = (0..rng.random_range(1..=7))
                    .map(|_| format!("{:012X}", rng.random::<u64>() & 0xfcff_ffff_ffff))
                    .collect();
                let ip = Ipv4Addr::from(0x0a00_0001 + n as u32);
                Device {
                    n,
                    ip,
                    macs,
                    in_netbox: rng.random_bool(0.6),
                    kind,
                    vendor,
                    changed: now - 3600 + n as i64 % 3600,
                }
            })
            .collect();
        Network { devices, rng }
    }

    /// Two devices swap their addresses; tells which.
    pub fn swap(&mut self, now: i64) -> (usize, usize) {
        let n = self.devices.len();
        let a = self.rng.random_range(1..n);
        let b = 1 + (a + self.rng.random_range(0..n - 2)) % (n - 1);
        let (ip_a, ip_b) = (self.devices[a].ip, self.devices[b].ip);
        (self.devices[a].ip, self.devices[b].ip) = (ip_b, ip_a);
        (self.devices[a].changed, self.devices[b].changed) = (now, now);
        (a, b)
    }

    /// A random pair of addresses that talk.
    pub fn talkers(&mut self) -> (Ipv4Addr, Ipv4Addr) {
        let n = self.devices.len();
        (self.devices[self.rng.random_range(0..n)].ip, self.devices[self.rng.random_range(0..n)].ip)
    }

    /// A random number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.rng.random_range(0..n)
    }
}

impl Device {
    /// As an Armis sync says it.
    pub fn armis(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            r#"{{"source":"armis","ip":"{}","mac":"{}","hostname":"{}-{}","timestamp":{},"metadata":{{"armis_device_id":"{}","device_type":"{}","vendor":"{}"}},"sync_meta":{{"sync_service_id":"armis-main"}}}}"#,
            self.ip,
            self.macs.join(","),
            self.kind,
            self.n,
            self.changed,
            self.n,
            self.kind,
            self.vendor
        );
        out
    }

    /// As a NetBox sync says it, knowing the Armis id of one in three.
    pub fn netbox(&self) -> String {
        let armis =
            if self.n.is_multiple_of(3) { format!(r#","armis_device_id":"{}""#, self.n) } else { String::new() };
        format!(
            r#"{{"source":"netbox","ip":"{}/24","hostname":"{}-{}.example.net","timestamp":{},"metadata":{{"netbox_device_id":"{}"{armis},"model":"M{}"}},"sync_meta":{{"sync_service_id":"netbox-main"}}}}"#,
            self.ip,
            self.kind,
            self.n,
            self.changed,
            self.n,
            self.n % 50
        )
    }

    /// As a sweep host.
    pub fn swept(&self, available: bool, at: i64) -> String {
        format!(r#"{{"host":"{}","available":{available},"last_seen":{at}}}"#, self.ip)
    }
}
