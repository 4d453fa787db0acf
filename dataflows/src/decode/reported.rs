//! What agents report of others: services, what plugins find, ways to targets.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::cell::{Real, Tags, Time};
use radarflow_proto::measured::{Hop, MtrResult, Plugin, PluginMetric, Results, Trace};
use radarflow_proto::payload::{AgentPush, ServiceHead};
use radarflow_proto::rows::{BatchBuilder, MtrHop, MtrTrace, PluginResult, TimeseriesMetric};
use radarflow_reconcile::identity::normalise;
use serde_json::value::RawValue;

use super::measured::{MAX_TEXT, Refusals, blank, named, payload, text, when};
use super::{At, Decoder};
use crate::health::{AgentKey, ServiceSaid};
use crate::keyed::Keyed;
use crate::metrics::{MAX_HOPS, Share, Target, Walked};

/// Traces of one payload.
const MAX_TRACES: usize = 5000;
/// Addresses of a hop, and labels.
const MAX_OF_HOP: usize = 32;
/// Bytes of what a plugin says, and of what it is shown as.
const MAX_DETAILS: usize = 64 << 10;
/// Numbers of a plugin's result.
const MAX_METRICS: usize = 5000;
/// Labels of a plugin's result.
const MAX_LABELS: usize = 64;

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn percent(n: Option<f64>) -> Option<Real> {
    n.filter(|n| (0.0..=100.0).contains(n)).map(Real)
}

fn micros(n: Option<u64>) -> Option<i64> {
    n.and_then(|n| i64::try_from(n).ok())
}

/// Names and values of an object; what is no text is as JSON writes it.
fn labels(object: Option<&RawValue>) -> Tags {
    let read = object.and_then(|object| serde_json::from_str::<BTreeMap<String, &RawValue>>(object.get()).ok());
    let label = |(name, value): (String, &RawValue)| {
        let value = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
        (name.len() <= 255 && value != "null").then(|| (name, cut(&value)))
    };
    Tags(read.into_iter().flatten().filter_map(label).take(MAX_LABELS).collect())
}

/// A trace, and its hops as rows.
struct Traced {
    row: MtrTrace,
    hops: Vec<MtrHop>,
    path: BTreeMap<u32, BTreeSet<String>>,
}

impl Decoder {
    /// A word about a service.
    pub(super) fn service(
        &mut self,
        at: &At<'_>,
        push: &AgentPush,
        of: &ServiceHead,
        (available, message): (bool, Option<String>),
        said: Time,
    ) {
        let Some(agent_id) = normalise::agent_id(&push.agent_id) else { return };
        let key = AgentKey { tenant: at.origin.tenant.clone(), partition: at.partition().to_owned(), agent_id };
        let event = ServiceSaid {
            kind: of.kind.clone(),
            name: of.name.clone(),
            gateway_id: Some(push.gateway_id.clone()).filter(|id| !id.is_empty()),
            available,
            message,
            at: said,
        };
        self.out.services.push(Keyed { key, position: at.order, event });
    }

    /// The status of a service, as its agent says. Its message is told as it is.
    pub(super) fn service_status(&mut self, at: &At<'_>, push: &AgentPush, of: &ServiceHead, message: &[u8]) {
        // What is cut may end within a character.
        let text = String::from_utf8_lossy(&message[..message.len().min(MAX_TEXT)]);
        let message = Some(text.trim_end_matches('\u{fffd}').to_owned()).filter(|text| !text.is_empty());
        let said = when(at, push, None).map_or(Time(at.received_us), |(_, time)| time);
        self.service(at, push, of, (of.available, message), said);
    }

    /// What a plugin found.
    pub(super) fn plugin(&mut self, at: &At<'_>, push: &AgentPush, of: &ServiceHead, message: &[u8]) -> (u64, u64) {
        let read = payload::<Plugin<'_>>(message).and_then(|plugin| {
            let (_, time) = when(at, push, plugin.observed_at)?;
            let agent_id = normalise::agent_id(&push.agent_id).ok_or("no agent is named")?;
            Ok((plugin, time, agent_id))
        });
        let (plugin, time, agent_id) = match read {
            Ok(read) => read,
            Err(error) => {
                self.reject(at, message, &format!("not what a plugin found: {error}"));
                return (0, 1);
            }
        };
        let mut refusals = Refusals::default();
        let status = plugin.status.as_ref().map_or(String::new(), |status| status.0.trim().to_ascii_uppercase());
        let known = ["OK", "WARNING", "CRITICAL", "UNKNOWN"];
        let status = if known.contains(&status.as_str()) { status } else { "UNKNOWN".to_owned() };
        let widgets = plugin.widgets.filter(|widgets| {
            let fits = widgets.get().len() <= MAX_DETAILS;
            if !fits {
                refusals.add("what a plugin's result is shown as is more than 64 KiB", "", &[]);
            }
            fits
        });
        let summary = plugin.summary.as_ref().map_or(String::new(), |summary| cut(summary.0.trim()));
        let labels = labels(plugin.labels);
        let details = std::str::from_utf8(message).ok().filter(|text| text.len() <= MAX_DETAILS);
        let gateway_id = Some(push.gateway_id.clone()).filter(|id| !id.is_empty());
        let row = PluginResult {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(0),
            epoch: at.epoch as i64,
            time,
            received_at: Time(at.received_us),
            agent_id: agent_id.clone(),
            gateway_id: gateway_id.clone(),
            service_name: of.name.clone(),
            plugin_id: labels.0.get("plugin_id").cloned(),
            status: status.clone(),
            summary: summary.clone(),
            labels: labels.clone(),
            widgets: widgets.map(|widgets| widgets.get().to_owned()),
            details: details.map(str::to_owned),
        };
        let mut nth = 1;
        // All its labels are in its row; what tells it apart is with each of its numbers.
        let names = ["plugin_id", "assignment_id"].into_iter();
        let own = names.filter_map(|name| Some((name.to_owned(), labels.0.get(name)?.clone())));
        let own = Tags(own.collect());
        let builders = self.builders(at);
        builders.plugins.push(&row);
        let what = ("no list of numbers", "too many numbers");
        refusals.each(what, plugin.metrics, MAX_METRICS, |refusals, item| {
            let Some(metric) = refusals.item::<PluginMetric<'_>>("not a number of a plugin", item) else { return };
            let row = named(Some(metric.name)).and_then(|name| {
                let mut tags = own.clone();
                let limits = [("warn", metric.warn), ("crit", metric.crit)];
                tags.0.extend(limits.into_iter().filter_map(|(limit, n)| Some((limit.to_owned(), n?.to_string()))));
                Ok(TimeseriesMetric {
                    target: Some(of.name.clone()),
                    unit: text(metric.unit)?,
                    tags,
                    ..blank(at, nth, time, "plugin", &name, metric.value, (&agent_id, &gateway_id))
                })
            });
            match row {
                Ok(row) => {
                    nth += 1;
                    builders.series_ips.push(None);
                    builders.series.push(&row);
                }
                Err(why) => refusals.add("not a number of a plugin", why, item.get().as_bytes()),
            }
        });
        let said = if summary.is_empty() { status.clone() } else { format!("{status}: {summary}") };
        self.service(at, push, of, (status != "CRITICAL" && of.available, Some(said)), time);
        (u64::from(nth), refusals.tell(self, at))
    }

    /// Ways to targets.
    pub(super) fn traces(&mut self, at: &At<'_>, push: &AgentPush, message: &[u8]) -> (u64, u64) {
        let read = payload::<Results<'_>>(message);
        let agent_id = normalise::agent_id(&push.agent_id).ok_or_else(|| "no agent is named".to_owned());
        let (results, agent_id) = match read.and_then(|results| Ok((results, agent_id?))) {
            Ok(read) => read,
            Err(error) => {
                self.reject(at, message, &format!("not traces: {error}"));
                return (0, 1);
            }
        };
        let mut refusals = Refusals::default();
        let mut nth = 0;
        refusals.each(("no list of traces", "too many traces"), results.results, MAX_TRACES, |refusals, item| {
            let Some(result) = refusals.item::<MtrResult<'_>>("not a trace", item) else { return };
            let traced = match traced(at, push, nth, &agent_id, result, refusals) {
                Ok(traced) => traced,
                Err(why) => return refusals.add("not a trace", why, item.get().as_bytes()),
            };
            nth += 1 + traced.hops.len() as u32;
            let target = Target {
                partition: at.partition().to_owned(),
                agent_id: agent_id.clone(),
                name: traced.row.target.clone(),
            };
            let key = Share::of(&at.origin.tenant, &target);
            let (time, trace_id) = (traced.row.time, traced.row.trace_id.clone());
            let event = Walked { target, at: time, trace_id, path: traced.path };
            self.out.walked.push(Keyed { key, position: at.order, event });
            let builders = self.builders(at);
            builders.trace_ips.push(traced.row.target_ip);
            builders.traces.push(&traced.row);
            for hop in &traced.hops {
                builders.hop_ips.push(hop.hop_ip);
                builders.hops.push(hop);
            }
        });
        (u64::from(nth), refusals.tell(self, at))
    }
}

fn traced<'a>(
    at: &At<'_>,
    push: &AgentPush,
    nth: u32,
    agent_id: &str,
    said: MtrResult<'a>,
    refusals: &mut Refusals<'a>,
) -> Result<Traced, &'static str> {
    let (_, time) = when(at, push, said.timestamp)?;
    let looked = said.trace.is_some();
    let trace = said.trace.unwrap_or_default();
    let target = text(said.target)?.or(text(trace.target.clone())?).ok_or("it names no target")?;
    let mut row = MtrTrace {
        tenant_id: at.origin.tenant.clone(),
        partition: at.partition().to_owned(),
        row_id: at.row_id(nth),
        epoch: at.epoch as i64,
        time,
        received_at: Time(at.received_us),
        agent_id: agent_id.to_owned(),
        gateway_id: Some(push.gateway_id.clone()).filter(|id| !id.is_empty()),
        trace_id: format!("{:x}", at.row_id(nth).0),
        check_id: text(said.check_id)?,
        check_name: text(said.check_name)?,
        target_ip: trace.target_ip.as_ref().and_then(|ip| ip.0.trim().parse().ok()).or_else(|| target.parse().ok()),
        target,
        target_reached: trace.target_reached.filter(|_| looked),
        total_hops: trace.total_hops.map(i64::from),
        protocol: text(trace.protocol.clone())?,
        ip_version: trace.ip_version.map(i64::from),
        packet_size: trace.packet_size.map(i64::from),
        path: Vec::new(),
        loss_percent: None,
        avg_us: None,
        error: said.error.map(|error| cut(&error.0)).filter(|error| !error.is_empty()),
        device_uid: None,
    };
    let (hops, path) = hops(at, nth + 1, &row, &trace, refusals);
    row.path = hops.iter().filter_map(|hop| hop.hop_ip.map(|ip| ip.to_string())).collect();
    let last = hops.last();
    row.loss_percent = last.and_then(|hop| hop.loss_percent);
    row.avg_us = last.and_then(|hop| hop.avg_us);
    Ok(Traced { row, hops, path })
}

/// The hops of a trace in their order, and who answered at those that did.
fn hops<'a>(
    at: &At<'_>,
    from: u32,
    of: &MtrTrace,
    trace: &Trace<'a>,
    refusals: &mut Refusals<'a>,
) -> (Vec<MtrHop>, BTreeMap<u32, BTreeSet<String>>) {
    let mut found: BTreeMap<u16, Hop<'a>> = BTreeMap::new();
    refusals.each(("no list of hops", "too many hops"), trace.hops, MAX_HOPS, |refusals, item| {
        if let Some(hop) = refusals.item::<Hop<'_>>("not a hop", item) {
            if hop.received > hop.sent || hop.addr.as_ref().is_some_and(|addr| addr.0.len() > MAX_TEXT) {
                return refusals.add(
                    "not a hop",
                    "more came back than was sent, or a text is too long",
                    item.get().as_bytes(),
                );
            }
            found.insert(hop.hop_number, hop);
        }
    });
    let (mut rows, mut path) = (Vec::with_capacity(found.len()), BTreeMap::new());
    for (nth, hop) in (from..).zip(found.into_values()) {
        let ip = hop.addr.as_ref().and_then(|addr| addr.0.trim().parse().ok()).filter(|_| hop.received > 0);
        let others = hop.ecmp_addrs.into_iter().flatten().take(MAX_OF_HOP);
        let ecmp: BTreeSet<String> =
            others.filter_map(|ip| Some(ip.0.trim().parse::<std::net::IpAddr>().ok()?.to_string())).collect();
        if let Some(ip) = ip {
            let ip: std::net::IpAddr = ip;
            path.insert(u32::from(hop.hop_number), ecmp.iter().cloned().chain([ip.to_string()]).collect());
        }
        let lost = hop
            .loss_pct
            .or_else(|| (hop.sent > 0).then(|| f64::from(hop.sent - hop.received) * 100.0 / f64::from(hop.sent)));
        let asn = hop.asn.unwrap_or_default();
        rows.push(MtrHop {
            tenant_id: of.tenant_id.clone(),
            partition: of.partition.clone(),
            row_id: at.row_id(nth),
            epoch: of.epoch,
            time: of.time,
            received_at: of.received_at,
            agent_id: of.agent_id.clone(),
            gateway_id: of.gateway_id.clone(),
            trace_id: of.trace_id.clone(),
            target: of.target.clone(),
            hop_number: i64::from(hop.hop_number),
            hop_ip: ip,
            hostname: hop.hostname.map(|name| cut(&name.0)).filter(|name| !name.is_empty()),
            ecmp_addrs: ecmp.into_iter().collect(),
            asn: asn.asn.filter(|asn| *asn > 0).map(i64::from),
            asn_org: asn.org.map(|org| cut(&org.0)).filter(|org| !org.is_empty()),
            mpls_labels: hop.mpls_labels.into_iter().flatten().take(MAX_OF_HOP).map(|l| l.label.to_string()).collect(),
            sent: i64::from(hop.sent),
            received: i64::from(hop.received),
            loss_percent: percent(lost),
            last_us: micros(hop.last_us),
            avg_us: micros(hop.avg_us),
            min_us: micros(hop.min_us),
            max_us: micros(hop.max_us),
            stddev_us: micros(hop.stddev_us),
            jitter_us: micros(hop.jitter_us),
            device_uid: None,
        });
    }
    (rows, path)
}
