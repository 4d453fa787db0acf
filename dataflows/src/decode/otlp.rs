//! Requests of OTLP to rows of `logs`, `otel_traces` and `otel_metrics`, and to what summaries and rates are made of.
//!
//! Each record counts as an input of its own: it is stored, or rejected with its reason. Of one request [`MAX_REJECTS`] records
//! that are rejected have a row each; how many more there are is another row.

use std::net::IpAddr;

use bytes::Bytes;
use radarflow_proto::cell::{Real, Tags, Time};
use radarflow_proto::otlp::value::Attributes;
use radarflow_proto::otlp::{self, LogRecord, Metric, Point, Record, Resource, Scope, Signal, Span};
use radarflow_proto::room::of_address;
use radarflow_proto::rows::{BatchBuilder, Log, OtelMetric, OtelTrace};
use radarflow_proto::syslog;
use radarflow_reconcile::rules::foreign;
use sha2::{Digest, Sha256};

use super::messages::{ABSURD_US, sane};
use super::{At, Decoder};
use crate::keyed::Keyed;
use crate::loss::Delta;
use crate::otel::{Counted, Root, Share, SpanHeard, per_second};

/// Rows of `rejects` that one request makes, at most.
const MAX_REJECTS: u64 = 100;

/// Nanoseconds as the columns have them.
fn nanos(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// When it was, microseconds since 1970, if that is said.
fn micros(ns: u64) -> Option<i64> {
    (ns > 0).then_some((ns / 1000) as i64)
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn some((attributes, _): &Attributes) -> Option<Tags> {
    (!attributes.is_empty()).then(|| Tags(attributes.clone()))
}

/// The severity of syslog that one of OpenTelemetry is, or that the sender's word names where it is unknown.
fn severity(number: u8, word: Option<&str>) -> Option<u8> {
    if number > 0 {
        return Some(foreign::syslog(number.into()) as u8);
    }
    let named = |name: &&str| word.is_some_and(|word| word.eq_ignore_ascii_case(name));
    syslog::SEVERITIES.iter().position(named).map(|n| n as u8)
}

/// Who sent it, as far as places are charged to somebody.
fn charged(ip: Option<IpAddr>) -> String {
    ip.map(of_address).unwrap_or_default()
}

impl Decoder {
    /// An export request.
    pub(super) fn otlp(&mut self, at: &At<'_>, signal: Signal, body: &Bytes) {
        let request = match otlp::protobuf(signal, body) {
            Ok(request) => request,
            Err(why) => return self.refuse(at, at.ip(), body, &why),
        };
        let (mut stored, mut rejected) = (0u64, 0u64);
        let read = otlp::read(signal, &request, &mut |said| {
            let (resource, scope, index) = (said.resource, said.scope, stored as u32);
            match said.record {
                Ok(record) => {
                    stored += 1;
                    match record {
                        Record::Log(log) => self.log_record(at, index, resource, scope, log),
                        Record::Span(span) => self.span(at, index, resource, scope, span),
                        Record::Point(metric, point) => self.point(at, index, resource, scope, metric, point),
                    }
                }
                Err(why) => {
                    rejected += 1;
                    if rejected <= MAX_REJECTS {
                        self.reject(at, said.bytes, why.0);
                    }
                }
            }
        });
        match read {
            Ok(grown) => self.grown(at, grown),
            Err(malformed) => return self.refuse(at, at.ip(), body, &malformed.to_string()),
        }
        if let Some(more @ 1..) = rejected.checked_sub(MAX_REJECTS) {
            self.reject(at, &[], &format!("{more} more records of the request cannot be used"));
        }
        let received = stored + rejected;
        self.count(at, at.ip(), Delta { received, stored, rejected, rows: stored, ..Delta::at(at.received_us) });
    }

    fn log_record(&mut self, at: &At<'_>, index: u32, resource: &Resource, scope: &Scope, log: LogRecord) {
        let observed = micros(log.observed_ns);
        let said = micros(log.time_ns).or(observed);
        let severity = severity(log.severity, log.severity_text.as_deref());
        let row = Log {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(index),
            epoch: at.epoch as i64,
            time: sane(said, at.received_us),
            device_time: said.map(Time),
            received_at: Time(at.received_us),
            source_ip: at.ip(),
            hostname: resource.get("host.name"),
            service_name: resource.get("service.name"),
            process_id: resource.get("process.pid"),
            message_id: None,
            facility: None,
            severity_number: severity.map(i64::from),
            severity: severity.map(|n| syslog::SEVERITIES[usize::from(n)].to_owned()),
            body: log.body,
            attributes: Tags(log.attributes.0),
            parse_status: "otlp".to_owned(),
            parsed_by: None,
            raw: None,
            device_uid: None,
            observed_time: observed.map(Time),
            otel_severity_number: (log.severity > 0).then_some(log.severity.into()),
            severity_as_sent: log.severity_text,
            trace_id: log.trace_id,
            span_id: log.span_id,
            trace_flags: (log.flags != 0).then_some(log.flags),
            event_name: log.event_name,
            service_version: resource.get("service.version"),
            service_instance: resource.get("service.instance.id"),
            scope_name: scope.name.clone(),
            scope_version: scope.version.clone(),
            resource_attributes: some(&resource.attributes),
        };
        self.log_row(at, &row, severity);
    }

    fn span(&mut self, at: &At<'_>, index: u32, resource: &Resource, scope: &Scope, span: Span) {
        let begun = micros(span.start_ns);
        let is_near = |us: i64| us.abs_diff(at.received_us) <= ABSURD_US;
        let lasted = span.end_ns.checked_sub(span.start_ns).filter(|_| span.start_ns > 0);
        let time_ns = lasted.filter(|_| is_near((span.start_ns / 1000) as i64) && is_near((span.end_ns / 1000) as i64));
        let service = resource.get("service.name");
        let heard = SpanHeard {
            partition: at.partition().to_owned(),
            trace: span.trace_id,
            span: span.span_id,
            kind: span.kind,
            service: service.clone(),
            time_ns: time_ns.map(|_| (nanos(span.start_ns), nanos(span.end_ns))),
            is_error: span.status == 2,
            root: span.parent_id.is_none().then(|| Root {
                name: span.name.clone(),
                status: span.status,
                message: span.status_message.clone(),
            }),
            from: charged(at.ip()),
        };
        let key = Share::of(&at.origin.tenant, &span.trace_id);
        self.out.spans.push(Keyed { key, position: at.order, event: heard });
        let row = OtelTrace {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(index),
            epoch: at.epoch as i64,
            time: sane(begun, at.received_us),
            received_at: Time(at.received_us),
            source_ip: at.ip(),
            trace_id: hex::encode(span.trace_id),
            span_id: hex::encode(span.span_id),
            parent_span_id: span.parent_id.map(hex::encode),
            trace_state: span.trace_state,
            name: span.name,
            span_kind: span.kind,
            start_time_unix_nano: nanos(span.start_ns),
            end_time_unix_nano: nanos(span.end_ns),
            duration_ms: lasted.map(|ns| Real(ns as f64 / 1e6)),
            status_code: span.status,
            status_message: span.status_message,
            service_name: service,
            service_version: resource.get("service.version"),
            service_instance: resource.get("service.instance.id"),
            service_namespace: resource.get("service.namespace"),
            deployment_environment: environment(resource),
            scope_name: scope.name.clone(),
            scope_version: scope.version.clone(),
            scope_attributes: some(&scope.attributes),
            attributes: Tags(span.attributes.0),
            resource_attributes: Tags(resource.attributes.0.clone()),
            events: span.events,
            links: span.links,
            dropped_attributes_count: count(span.attributes.1),
            dropped_events_count: count(span.dropped_events),
            dropped_links_count: count(span.dropped_links),
            device_uid: None,
        };
        let builders = self.builders(at);
        builders.span_ips.push(row.source_ip);
        builders.spans.push(&row);
    }

    fn point(&mut self, at: &At<'_>, index: u32, resource: &Resource, scope: &Scope, of: &Metric, point: Point) {
        let adds = of.is_monotonic == Some(true);
        let near = |ns: u64| ((ns / 1000) as i64).abs_diff(at.received_us) <= ABSURD_US;
        let is_near = near(point.time_ns);
        let mut row = OtelMetric {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(index),
            epoch: at.epoch as i64,
            time: sane(micros(point.time_ns), at.received_us),
            received_at: Time(at.received_us),
            source_ip: at.ip(),
            metric_name: of.name.clone(),
            metric_type: of.kind.to_owned(),
            description: of.description.clone(),
            unit: of.unit.clone(),
            temporality: of.temporality.map(str::to_owned),
            is_monotonic: of.is_monotonic,
            start_time_unix_nano: (point.start_ns > 0).then(|| nanos(point.start_ns)),
            time_unix_nano: nanos(point.time_ns),
            value: point.value.map(Real),
            value_int: point.value_int,
            delta: None,
            rate: None,
            count: point.count,
            sum: point.sum.map(Real),
            min: point.min.map(Real),
            max: point.max.map(Real),
            distribution: point.distribution,
            exemplars: point.exemplars,
            service_name: resource.get("service.name"),
            service_version: resource.get("service.version"),
            service_instance: resource.get("service.instance.id"),
            service_namespace: resource.get("service.namespace"),
            deployment_environment: environment(resource),
            scope_name: scope.name.clone(),
            scope_version: scope.version.clone(),
            scope_attributes: some(&scope.attributes),
            attributes: Tags(point.attributes.0),
            resource_attributes: Tags(resource.attributes.0.clone()),
            device_uid: None,
        };
        match (of.temporality, point.value) {
            (Some("cumulative"), Some(value)) if adds => {
                let series = series(&row);
                // Many of them wait for each other: what all of a resource say they share.
                (row.resource_attributes, row.scope_attributes) = (Tags::default(), None);
                let counted = Counted {
                    resource: resource.attributes.clone(),
                    scope: scope.attributes.clone(),
                    is_near,
                    series,
                    start_ns: point.start_ns,
                    time_ns: point.time_ns,
                    value,
                    from: charged(at.ip()),
                    row: row.into(),
                };
                let key = Share::of(&at.origin.tenant, &series);
                self.out.points.push(Keyed { key, position: at.order, event: counted });
                return;
            }
            (Some("delta"), Some(value)) if adds => {
                let over_ns = point.time_ns.checked_sub(point.start_ns).filter(|_| point.start_ns > 0);
                row.delta = Some(Real(value));
                row.rate = over_ns.and_then(|over_ns| per_second(value, over_ns));
            }
            _ => {}
        }
        let builders = self.builders(at);
        builders.metric_ips.push(row.source_ip);
        builders.metrics.push(&row);
    }
}

/// The environment, by the name it has now or the one before.
fn environment(resource: &Resource) -> Option<String> {
    resource.get("deployment.environment.name").or_else(|| resource.get("deployment.environment"))
}

/// Names the series of a point: its site, resource, scope, metric and attributes.
fn series(row: &OtelMetric) -> [u8; 16] {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    let texts = [Some(&row.partition), Some(&row.metric_name), row.unit.as_ref(), row.scope_name.as_ref()];
    texts.into_iter().chain([row.scope_version.as_ref()]).for_each(|text| add(text.map_or("", String::as_str)));
    for Tags(tags) in [&row.resource_attributes, &row.attributes] {
        add("");
        tags.iter().for_each(|(name, value)| [name, value].into_iter().for_each(|text| add(text)));
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    id
}
