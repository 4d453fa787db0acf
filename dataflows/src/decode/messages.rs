//! Syslog and GELF to `logs` rows, and to what rules look at.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use chrono_tz::Tz;
use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::gelf::{self, GelfError};
use radarflow_proto::rows::{BatchBuilder, Log};
use radarflow_proto::syslog;

use super::{At, Decoder};
use crate::health::{LogShare, LogSource};
use crate::keyed::Keyed;
use crate::loss::Delta;

/// A device's clock may be off by this much before its time is taken for nonsense, microseconds: a day.
pub(super) const ABSURD_US: u64 = 86_400_000_000;
/// Log lines of this severity or a worse one count towards a burst: `error`.
const BURST_SEVERITY: u8 = 3;

pub(super) type Object = serde_json::Map<String, serde_json::Value>;

impl Decoder {
    /// A message of syslog; senders of GELF send it here, too.
    pub(super) fn syslog(&mut self, at: &At<'_>, body: &Bytes) {
        let body = &match gelf::inflated(body) {
            // What merely begins as if it were compressed is a line like any other.
            Ok(Cow::Borrowed(_)) | Err(GelfError::Compressed) => body.clone(),
            Ok(Cow::Owned(text)) => text.into(),
            Err(error) => return self.refuse(at, at.ip(), body, &error.to_string()),
        };
        if gelf::is_chunk(body) {
            return self.refuse(at, at.ip(), body, "a chunk of GELF that is none, or of too long a message");
        }
        let object = Some(body)
            .filter(|body| body.starts_with(b"{"))
            .and_then(|body| serde_json::from_slice::<Object>(body).ok());
        if let Some(object) = object.filter(|object| object.contains_key("short_message")) {
            return self.gelf_row(at, &object, at.ip());
        }
        let m = syslog::parse(body, at.received_us, Tz::UTC);
        let row = Log {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(0),
            epoch: at.epoch as i64,
            time: sane(m.device_us, at.received_us),
            device_time: m.device_us.map(Time),
            received_at: Time(at.received_us),
            source_ip: at.ip(),
            hostname: m.hostname,
            service_name: m.app,
            process_id: m.process,
            message_id: m.message_id,
            facility: Some(i64::from(m.facility)),
            severity_number: Some(i64::from(m.severity)),
            severity: Some(syslog::SEVERITIES[usize::from(m.severity)].to_owned()),
            body: m.body,
            attributes: Tags(m.attributes),
            parse_status: m.status.to_owned(),
            raw: m.keep_raw.then(|| body.to_vec()),
            ..Log::default()
        };
        self.log(at, &row, m.severity);
    }

    fn log(&mut self, at: &At<'_>, row: &Log, severity: u8) {
        self.log_row(at, row, Some(severity));
        self.count(at, row.source_ip, Delta { received: 1, stored: 1, rows: 1, ..Delta::at(at.received_us) });
    }

    /// A row of `logs`; its input is counted by whoever read it.
    pub(super) fn log_row(&mut self, at: &At<'_>, row: &Log, severity: Option<u8>) {
        let ip = row.source_ip;
        if severity.is_some_and(|severity| severity <= BURST_SEVERITY)
            && let Some(ip) = ip
        {
            let key = LogSource { tenant: row.tenant_id.clone(), partition: row.partition.clone(), ip };
            self.out.log_hits.push(Keyed { key: LogShare::of(&key), position: at.order, event: key });
        }
        let builders = self.builders(at);
        builders.log_ips.push(ip);
        builders.logs.push(row);
    }

    /// GELF 1.1 as collectors put it on `logs.syslog`; `_remote_addr` is `<partition>:<ip>`.
    pub(super) fn gelf(&mut self, at: &At<'_>, body: &Bytes) {
        let object: Object = match serde_json::from_slice(body) {
            Ok(object) => object,
            Err(error) => {
                return self.refuse(at, None, body, &format!("not a GELF object: {error}"));
            }
        };
        let remote = object.get("_remote_addr").and_then(serde_json::Value::as_str).unwrap_or_default();
        let ip = remote.split_once(':').and_then(|(_, ip)| ip.parse().ok()).or_else(|| remote.parse().ok());
        self.gelf_row(at, &object, ip);
    }

    fn gelf_row(&mut self, at: &At<'_>, object: &Object, ip: Option<IpAddr>) {
        let text = |key: &str| match object.get(key) {
            Some(serde_json::Value::String(s)) => Some(s.clone()),
            Some(serde_json::Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        let severity = object.get("level").and_then(serde_json::Value::as_u64).map_or(6, |n| n.min(7) as u8);
        let device_us = object.get("timestamp").and_then(serde_json::Value::as_f64).map(|s| (s * 1e6) as i64);
        let short = text("short_message").unwrap_or_default();
        let attributes: BTreeMap<String, String> = object
            .iter()
            .filter(|(k, _)| k.starts_with('_') && *k != "_remote_addr")
            .filter_map(|(k, _)| Some((k[1..].to_owned(), text(k)?)))
            .collect();
        let row = Log {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(0),
            epoch: at.epoch as i64,
            time: sane(device_us, at.received_us),
            device_time: device_us.map(Time),
            received_at: Time(at.received_us),
            source_ip: ip.map(|ip| ip.to_canonical()),
            hostname: text("host"),
            service_name: attributes.get("appname").or_else(|| attributes.get("app_name")).cloned(),
            process_id: attributes.get("procid").cloned(),
            message_id: attributes.get("msgid").cloned(),
            facility: object.get("facility").and_then(serde_json::Value::as_i64),
            severity_number: Some(i64::from(severity)),
            severity: Some(syslog::SEVERITIES[usize::from(severity)].to_owned()),
            body: text("full_message").unwrap_or(short),
            attributes: Tags(attributes),
            parse_status: "gelf".to_owned(),
            raw: None,
            ..Log::default()
        };
        self.log(at, &row, severity);
    }
}

/// The device's time, or receipt where it gives none or nonsense.
pub(super) fn sane(device_us: Option<i64>, received_us: i64) -> Time {
    Time(device_us.filter(|at| at.abs_diff(received_us) <= ABSURD_US).unwrap_or(received_us))
}
