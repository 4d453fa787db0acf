//! What agents measure: their hosts, and what they read by SNMP. Payloads are gone through where they lie
//! ([`radarflow_proto::measured`]); an item that is wrong is wrong alone, and what is wrong alike is told of once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use radarflow_proto::cell::{Real, Tags, Time};
use radarflow_proto::measured::{
    Cluster, Cpu, Disk, Measured, Memory, Network, Process, Results, SnmpSample, Sysmon, SysmonPayload, Text, each,
    instant,
};
use radarflow_proto::payload::AgentPush;
use radarflow_proto::rows::{BatchBuilder, CpuMetric, DiskMetric, MemoryMetric, ProcessMetric, TimeseriesMetric};
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::rates::Width;
use radarflow_reconcile::rates::known::{Object, object};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{At, Decoder};
use crate::keyed::Keyed;
use crate::metrics::{Sample, Samples, Share, Spoken, Target};

/// What was measured longer ago is not believed, microseconds: agents keep nothing for so long.
const OLDEST_US: i64 = 31 * 24 * 3600 * 1_000_000;
/// A clock that is further ahead is not believed, microseconds.
const AHEAD_US: i64 = 3600 * 1_000_000;
/// Bytes of a text.
pub(super) const MAX_TEXT: usize = 1024;
/// Samples of one payload by SNMP: what an agent keeps while its gateway is away.
pub(super) const MAX_SAMPLES: usize = 100_000;
/// Cores, disks, interfaces of a host.
const MAX_PARTS: usize = 4096;
/// Processes of a host.
const MAX_PROCESSES: usize = 32_768;
/// Whole numbers that a number with a fraction holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Things of one payload that cannot be used, by why.
#[derive(Default)]
pub(super) struct Refusals<'a> {
    why: BTreeMap<&'static str, Refused<'a>>,
}

/// Those that are wrong alike: how many were looked at, the first of them, and how many were not.
struct Refused<'a> {
    n: u64,
    bytes: &'a [u8],
    detail: String,
    others: u64,
}

impl<'a> Refusals<'a> {
    /// One more.
    pub(super) fn add(&mut self, why: &'static str, detail: &str, bytes: &'a [u8]) {
        let known =
            self.why.entry(why).or_insert_with(|| Refused { n: 0, bytes, detail: detail.to_owned(), others: 0 });
        known.n += 1;
    }

    /// Goes through a list; what is no list, or too long, is refused.
    pub(super) fn each(
        &mut self,
        what: (&'static str, &'static str),
        list: Option<&'a RawValue>,
        most: usize,
        mut take: impl FnMut(&mut Self, &'a RawValue),
    ) {
        let Some(list) = list else { return };
        let (none, long) = what;
        match each(list, most, |item| take(self, item)) {
            Ok(0) => {}
            Ok(others) => {
                let (bytes, others): (&[u8], _) = (&[], others as u64);
                let detail = format!("{others} more than {most}");
                self.why.entry(long).or_insert(Refused { n: 0, bytes, detail, others: 0 }).others += others;
            }
            Err(error) => self.add(none, &error.to_string(), list.get().as_bytes()),
        }
    }

    /// Reads an item that is an object: a list would be read as the fields in their order.
    pub(super) fn item<T: Deserialize<'a>>(&mut self, what: &'static str, item: &'a RawValue) -> Option<T> {
        let read = match item.get().starts_with('{') {
            true => serde_json::from_str(item.get()).map_err(|error| error.to_string()),
            false => Err("it is no object".to_owned()),
        };
        read.map_err(|error| self.add(what, &error, item.get().as_bytes())).ok()
    }

    /// A row for each way of being wrong; how much was wrong.
    pub(super) fn tell(self, decoder: &mut Decoder, at: &At<'_>) -> u64 {
        let mut all = 0;
        for (why, Refused { n, bytes, detail, others }) in self.why {
            all += n + others;
            let alike = if n > 1 { format!("; {} more like it", n - 1) } else { String::new() };
            let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
            decoder.reject(at, bytes, &format!("{why}{detail}{alike}"));
        }
        all
    }
}

/// Reads a payload that is an object: a list would be read as the fields in their order.
pub(super) fn payload<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, String> {
    match message.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(message).map_err(|error| error.to_string()),
        _ => Err("it is no object".to_owned()),
    }
}

/// When something was measured: by the agent's clock, and as rows say it.
pub(super) fn when(at: &At<'_>, push: &AgentPush, written: Option<&RawValue>) -> Result<(i64, Time), &'static str> {
    let pushed = if push.timestamp_us > 0 { push.timestamp_us } else { at.received_us };
    let us = match written {
        None => pushed,
        Some(written) => instant(written).ok_or("its time cannot be read")?,
    };
    if us < at.received_us.saturating_sub(OLDEST_US) {
        return Err("its time is more than 31 days ago");
    }
    if us > at.received_us.saturating_add(AHEAD_US) {
        return Err("its time is more than an hour ahead");
    }
    Ok((us, Time(us.min(at.received_us))))
}

/// A text that is not too long; an empty one is none.
pub(super) fn text(text: Option<Text<'_>>) -> Result<Option<String>, &'static str> {
    match text {
        Some(Text(text)) if text.len() > MAX_TEXT => Err("a text of it is longer than 1,024 bytes"),
        Some(Text(text)) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
        _ => Ok(None),
    }
}

/// A text that there must be.
pub(super) fn named(named: Option<Text<'_>>) -> Result<String, &'static str> {
    text(named)?.ok_or("it has no name")
}

fn bytes(n: u64) -> Result<i64, &'static str> {
    i64::try_from(n).map_err(|_| "a number of it is too large")
}

fn within(n: Option<f64>, most: f64) -> Result<Option<Real>, &'static str> {
    match n {
        Some(n) if !(0.0..=most).contains(&n) => Err("a number of it is below zero or too large"),
        n => Ok(n.map(Real)),
    }
}

/// Bytes there are, in use, and not, and the share that is.
type Usage = (i64, i64, i64, Option<Real>);

fn usage(total: u64, used: u64) -> Result<Usage, &'static str> {
    let (total, used) = (bytes(total)?, bytes(used)?);
    let share = (total > 0).then(|| Real(used as f64 * 100.0 / total as f64));
    Ok((total, used, (total - used).max(0), share))
}

/// Whose a measurement is, and of which host.
struct Host {
    agent_id: String,
    gateway_id: Option<String>,
    host_id: Option<String>,
    host_ip: Option<IpAddr>,
    at_us: i64,
    time: Time,
}

/// A row about a host.
macro_rules! of_host {
    ($row:ident of $host:ident at $at:ident, $nth:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let row = $row {
            tenant_id: $at.origin.tenant.clone(),
            partition: $at.partition().to_owned(),
            row_id: $at.row_id($nth),
            epoch: $at.epoch as i64,
            time: $host.time,
            received_at: Time($at.received_us),
            agent_id: $host.agent_id.clone(),
            gateway_id: $host.gateway_id.clone(),
            host_id: $host.host_id.clone(),
            host_ip: $host.host_ip,
            device_uid: None,
            $($field: $value,)*
        };
        $nth += 1;
        row
    }};
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Decoder {
    /// A sample of an agent's host.
    pub(super) fn sysmon(&mut self, at: &At<'_>, push: &AgentPush, message: &[u8]) -> (u64, u64) {
        let sample = payload::<SysmonPayload<'_>>(message);
        let sample = sample.and_then(|payload| payload.status.ok_or_else(|| "it has no status".to_owned()));
        let host = sample.as_ref().map_err(Clone::clone).and_then(|sample| {
            let (at_us, time) = when(at, push, sample.timestamp)?;
            let said = sample.host_ip.as_ref().and_then(|ip| normalise::ip(&ip.0));
            Ok(Host {
                agent_id: normalise::agent_id(&push.agent_id).ok_or("no agent is named")?,
                gateway_id: some(&push.gateway_id),
                host_id: text(sample.host_id.clone())?,
                host_ip: said.or_else(|| normalise::ip(&push.source_ip)),
                at_us,
                time,
            })
        });
        let (sample, host) = match (sample, host) {
            (Ok(sample), Ok(host)) => (sample, host),
            (Err(error), _) | (_, Err(error)) => {
                self.reject(at, message, &format!("not a sample of a host: {error}"));
                return (0, 1);
            }
        };
        let mut refusals = Refusals::default();
        let mut nth = self.parts(at, &host, &sample, &mut refusals);
        nth += self.network(at, &host, &sample, nth, &mut refusals);
        (u64::from(nth), refusals.tell(self, at))
    }

    /// Cores, memory, disks and processes: how many rows they are.
    fn parts<'a>(&mut self, at: &At<'_>, host: &Host, sample: &Sysmon<'a>, refusals: &mut Refusals<'a>) -> u32 {
        let mut nth = 0;
        let builders = self.builders(at);
        let ip = host.host_ip;
        refusals.each(("no list of cores", "too many cores"), sample.cpus, MAX_PARTS, |refusals, item| {
            let Some(cpu) = refusals.item::<Cpu<'_>>("not a core", item) else { return };
            let row = text(cpu.label).and_then(|label| {
                Ok(of_host!(CpuMetric of host at at, nth {
                    core_id: Some(cpu.core_id),
                    label: label,
                    cluster: text(cpu.cluster)?,
                    // Some are a little over, by the time that measuring takes.
                    usage_percent: within(Some(cpu.usage_percent), 101.0)?.map(|n| n.min(Real(100.0))),
                    frequency_hz: within(cpu.frequency_hz, 1e15)?,
                }))
            });
            match row {
                Ok(row) => {
                    builders.cpus.push(&row);
                    builders.cpu_ips.push(ip);
                }
                Err(why) => refusals.add("not a core", why, item.get().as_bytes()),
            }
        });
        let what = ("no list of clusters", "too many clusters");
        refusals.each(what, sample.clusters, MAX_PARTS, |refusals, item| {
            let Some(cluster) = refusals.item::<Cluster<'_>>("not a cluster of cores", item) else { return };
            let row = named(Some(cluster.name)).and_then(|name| {
                Ok(of_host!(CpuMetric of host at at, nth {
                    core_id: None,
                    label: None,
                    cluster: Some(name),
                    usage_percent: None,
                    frequency_hz: within(cluster.frequency_hz, 1e15)?,
                }))
            });
            match row {
                Ok(row) => {
                    builders.cpus.push(&row);
                    builders.cpu_ips.push(ip);
                }
                Err(why) => refusals.add("not a cluster of cores", why, item.get().as_bytes()),
            }
        });
        if let Some(memory) = sample.memory
            && let Some(said) = refusals.item::<Memory>("not memory", memory)
        {
            let row = usage(said.total_bytes, said.used_bytes).and_then(|(total, used, available, share)| {
                Ok(of_host!(MemoryMetric of host at at, nth {
                    total_bytes: total,
                    used_bytes: used,
                    available_bytes: available,
                    usage_percent: share,
                    swap_total_bytes: said.swap_total_bytes.map(bytes).transpose()?,
                    swap_used_bytes: said.swap_used_bytes.map(bytes).transpose()?,
                }))
            });
            match row {
                Ok(row) => {
                    builders.memory.push(&row);
                    builders.memory_ips.push(ip);
                }
                Err(why) => refusals.add("not memory", why, memory.get().as_bytes()),
            }
        }
        refusals.each(("no list of disks", "too many disks"), sample.disks, MAX_PARTS, |refusals, item| {
            let Some(disk) = refusals.item::<Disk<'_>>("not a disk", item) else { return };
            let row = named(Some(disk.mount_point)).and_then(|mount_point| {
                let (total, used, available, share) = usage(disk.total_bytes, disk.used_bytes)?;
                Ok(of_host!(DiskMetric of host at at, nth {
                    mount_point: mount_point,
                    device_name: text(disk.device_name)?,
                    total_bytes: total,
                    used_bytes: used,
                    available_bytes: available,
                    usage_percent: share,
                }))
            });
            match row {
                Ok(row) => {
                    builders.disks.push(&row);
                    builders.disk_ips.push(ip);
                }
                Err(why) => refusals.add("not a disk", why, item.get().as_bytes()),
            }
        });
        let what = ("no list of processes", "too many processes");
        refusals.each(what, sample.processes, MAX_PROCESSES, |refusals, item| {
            let Some(process) = refusals.item::<Process<'_>>("not a process", item) else { return };
            let row = named(Some(process.name)).and_then(|name| {
                Ok(of_host!(ProcessMetric of host at at, nth {
                    pid: i64::from(process.pid),
                    name: name,
                    cpu_usage: within(process.cpu_usage, 1e6)?,
                    memory_usage: process.memory_usage.map(bytes).transpose()?,
                    status: text(process.status)?,
                    start_time: process.start_time.and_then(instant).map(Time),
                }))
            });
            match row {
                Ok(row) => {
                    builders.processes.push(&row);
                    builders.process_ips.push(ip);
                }
                Err(why) => refusals.add("not a process", why, item.get().as_bytes()),
            }
        });
        nth
    }

    /// What the interfaces of a host counted, for its rates: how many rows come of it.
    fn network<'a>(
        &mut self,
        at: &At<'_>,
        host: &Host,
        sample: &Sysmon<'a>,
        from: u32,
        refusals: &mut Refusals<'a>,
    ) -> u32 {
        let mut samples = Vec::new();
        let what = ("no list of interfaces", "too many interfaces");
        refusals.each(what, sample.network, MAX_PARTS, |refusals, item| {
            let Some(counted) = refusals.item::<Network<'_>>("not an interface", item) else { return };
            match named(Some(counted.interface.clone())) {
                Ok(name) => {
                    let counters = counted.counters();
                    samples.extend(counters.map(|(metric, unit, count)| (name.clone(), metric, unit, count)));
                }
                Err(why) => refusals.add("not an interface", why, item.get().as_bytes()),
            }
        });
        let rows = samples.len() as u32;
        let samples = (from..).zip(samples).map(|(nth, (interface, metric, unit, count))| Sample {
            row: Box::new(TimeseriesMetric {
                interface_uid: Some(interface),
                unit: Some(unit.to_owned()),
                target: host.host_id.clone(),
                target_device_ip: host.host_ip,
                ..blank(
                    at,
                    nth,
                    host.time,
                    "sysmon",
                    metric,
                    Measured::Whole(count),
                    (&host.agent_id, &host.gateway_id),
                )
            }),
            at_us: host.at_us,
            count: Some(count),
            delta: false,
            object: Object::Counter(Width::Bits64, false),
        });
        let samples: Vec<Sample> = samples.collect();
        if !samples.is_empty() {
            // No device that is asked by SNMP has no name.
            let name = String::new();
            let target = Target { partition: at.partition().to_owned(), agent_id: host.agent_id.clone(), name };
            self.spoken(at, &target, Spoken::Read(Samples { target: target.clone(), samples }));
        }
        rows
    }

    pub(super) fn spoken(&mut self, at: &At<'_>, target: &Target, event: Spoken) {
        let key = Share::of(&at.origin.tenant, target);
        self.out.samples.push(Keyed { key, position: at.order, event });
    }

    /// What was read by SNMP.
    pub(super) fn snmp(&mut self, at: &At<'_>, push: &AgentPush, message: &[u8]) -> (u64, u64) {
        let results: Results<'_> = match payload(message) {
            Ok(results) => results,
            Err(error) => {
                self.reject(at, message, &format!("not what was read by SNMP: {error}"));
                return (0, 1);
            }
        };
        let Some(agent_id) = normalise::agent_id(&push.agent_id) else {
            self.reject(at, message, "what was read by SNMP names no agent");
            return (0, 1);
        };
        let mut refusals = Refusals::default();
        let mut read: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        let mut nth = 0;
        let what = ("no list of what was read by SNMP", "too many samples");
        let by = (agent_id, some(&push.gateway_id));
        refusals.each(what, results.results, MAX_SAMPLES, |refusals, item| {
            let Some(said) = refusals.item::<SnmpSample<'_>>("not a sample", item) else { return };
            match snmp_sample(at, push, nth, said, (&by.0, &by.1)) {
                Ok((target, sample)) => {
                    nth += 1;
                    if sample.object == Object::Gauge {
                        let builders = self.builders(at);
                        builders.series_ips.push(sample.row.target_device_ip);
                        builders.series.push(&sample.row);
                    } else {
                        read.entry(target).or_default().push(sample);
                    }
                }
                Err(why) => refusals.add("not a sample", why, item.get().as_bytes()),
            }
        });
        for (name, samples) in read {
            let target = Target { partition: at.partition().to_owned(), agent_id: by.0.clone(), name };
            self.spoken(at, &target, Spoken::Read(Samples { target: target.clone(), samples }));
        }
        (u64::from(nth), refusals.tell(self, at))
    }
}

/// A sample less what is said of its kind alone.
pub(super) fn blank(
    at: &At<'_>,
    nth: u32,
    time: Time,
    kind: &str,
    metric: &str,
    value: Measured,
    (agent_id, gateway_id): (&str, &Option<String>),
) -> TimeseriesMetric {
    TimeseriesMetric {
        tenant_id: at.origin.tenant.clone(),
        partition: at.partition().to_owned(),
        row_id: at.row_id(nth),
        epoch: at.epoch as i64,
        time,
        received_at: Time(at.received_us),
        agent_id: agent_id.to_owned(),
        gateway_id: gateway_id.clone(),
        metric_type: kind.to_owned(),
        metric_name: metric.to_owned(),
        target: None,
        target_device_ip: None,
        oid: None,
        if_index: None,
        interface_uid: None,
        value: Real(value.real()),
        unit: None,
        data_type: None,
        scale: None,
        rate_per_second: None,
        interval_seconds: None,
        rate_missing: None,
        if_speed_bps: None,
        utilization_percent: None,
        tags: Tags::default(),
        device_uid: None,
    }
}

/// What was read, and what its device is called.
fn snmp_sample(
    at: &At<'_>,
    push: &AgentPush,
    nth: u32,
    said: SnmpSample<'_>,
    by: (&str, &Option<String>),
) -> Result<(String, Sample), &'static str> {
    let (at_us, time) = when(at, push, said.timestamp)?;
    let metric = named(said.metric)?;
    // Its second half names the interface.
    let (metric, of) = metric.split_once("::").map_or((metric.as_str(), None), |(m, of)| (m, some(of)));
    let (target, host, oid) = (text(said.target)?, text(said.host)?, text(said.oid)?);
    let (data_type, uid) = (text(said.data_type)?, text(said.interface_uid)?.or(of));
    let device = host.clone().or_else(|| target.clone()).ok_or("it names no device")?;
    let (object, index) = object(oid.as_deref().unwrap_or(""), metric, data_type.as_deref().unwrap_or(""));
    let named = uid.as_deref().and_then(|uid| uid.to_ascii_lowercase().strip_prefix("ifindex:")?.trim().parse().ok());
    let scale = said.scale.filter(|scale| *scale != 0.0 && *scale != 1.0);
    let whole = match (said.value, scale) {
        (Measured::Whole(n), None) => Some(n),
        (Measured::Real(n), None) => (n.fract() == 0.0 && (0.0..EXACT).contains(&n)).then_some(n as u64),
        (value, Some(scale)) => {
            Some((value.real() / scale).round()).filter(|n| (0.0..EXACT).contains(n)).map(|n| n as u64)
        }
    };
    let delta = said.delta == Some(true);
    if matches!(object, Object::Counter(..)) && !delta && said.value.real() < 0.0 {
        return Err("it counts, and is below zero");
    }
    let row = TimeseriesMetric {
        target_device_ip: normalise::ip(&device),
        target,
        oid: oid.map(|oid| format!(".{}", oid.trim_start_matches('.'))),
        if_index: said.if_index.or(named).or(index),
        interface_uid: uid,
        unit: text(said.unit)?,
        data_type,
        scale: scale.map(Real),
        ..blank(at, nth, time, "snmp", metric, said.value, by)
    };
    Ok((device, Sample { row: Box::new(row), at_us, count: whole, delta, object }))
}
