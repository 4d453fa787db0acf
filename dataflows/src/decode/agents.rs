//! What agents push: heartbeats, syncs, sweeps, checks, whole or in staged runs.

use bytes::Bytes;
use radarflow_proto::cell::Time;
use radarflow_proto::payload::{AgentPush, DeviceUpdate, IcmpResults, StagedHead, Sweep, instant_us};
use radarflow_proto::record::Record;
use radarflow_proto::wire::Cursor;
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::identity::sources::{self, Received};

use super::{At, Decoder, RELEASE_BUDGET, RELEASED, STAGED};
use crate::health::{AgentKey, Beat, Probe, TargetKey};
use crate::keyed::{Keyed, encode};
use crate::records::Version;
use crate::sources::Delta;

/// The run a staged entry belongs to; empty when it cannot be read.
pub(super) fn staged_run(body: &[u8]) -> String {
    head::<StagedHead>(body).map(|(head, _)| head.run).unwrap_or_default()
}

/// A line of JSON, and what follows it.
fn head<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<(T, &[u8])> {
    let end = body.iter().position(|b| *b == b'\n')?;
    Some((serde_json::from_slice(&body[..end]).ok()?, &body[end + 1..]))
}

impl Decoder {
    pub(super) fn status(&mut self, at: &At<'_>, body: &[u8]) {
        let Some((push, message)) = head::<AgentPush>(body) else {
            self.reject(at, body, "not an agent push");
            return self.count(at, None, Delta { received: 1, rejected: 1, ..Delta::at(at.received_us) });
        };
        let partition = (!at.origin.partition.is_empty()).then_some(at.origin.partition.as_str());
        let received = Received { tenant: &at.origin.tenant, partition, at_us: at.received_us };
        self.beat(at, &push, &received);
        let (rows, rejected) = match &push.service {
            None => (0, 0),
            Some(service) => match (service.source.as_str(), service.kind.as_str()) {
                ("results", "sync" | "mapper") => self.sync(at, message, &received),
                ("results", "sweep") => self.sweep(at, &push, message, &received),
                ("results", "icmp") => self.icmp(at, &push, message, &received),
                ("status", _) | (_, "status") => (0, 0),
                (source, kind) => {
                    self.reject(at, message, &format!("nothing reads {source}/{kind} payloads"));
                    (0, 1)
                }
            },
        };
        let bad = u64::from(rows == 0 && rejected > 0);
        self.count(at, None, Delta { received: 1, stored: 1 - bad, rejected: bad, rows, ..Delta::at(at.received_us) });
    }

    fn beat(&mut self, at: &At<'_>, push: &AgentPush, received: &Received<'_>) {
        let Some(agent_id) = normalise::agent_id(&push.agent_id) else { return };
        let key = AgentKey { tenant: at.origin.tenant.clone(), partition: at.partition().to_owned(), agent_id };
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let event = Beat {
            at: Time(at.received_us),
            version: some(&push.version),
            hostname: some(&push.hostname),
            os: some(&push.os),
            arch: some(&push.arch),
            capabilities: push.capabilities.clone(),
        };
        self.out.beats.push(Keyed { key, position: u64::from(at.position), event });
        // An agent is a device by what it says of itself; a push that says nothing of itself is only a heartbeat.
        if !push.hostname.is_empty() || !push.source_ip.is_empty() {
            let own = Received { partition: Some(at.partition()), ..received.clone() };
            if let Ok(record) = sources::agent(push, &own) {
                self.sighting(at, record);
            }
        }
    }

    fn sighting(&mut self, at: &At<'_>, record: Record) {
        let version = Version::new(record);
        self.out.sightings.push(Keyed { key: version.key, position: u64::from(at.position), event: version.into() });
    }

    fn sync(&mut self, at: &At<'_>, message: &[u8], received: &Received<'_>) -> (u64, u64) {
        let items: Vec<Box<serde_json::value::RawValue>> = match serde_json::from_slice::<Option<_>>(message) {
            Ok(items) => items.unwrap_or_default(),
            Err(error) => {
                self.reject(at, message, &format!("not an array of device updates: {error}"));
                return (0, 1);
            }
        };
        let (mut rows, mut rejected) = (0, 0);
        for item in items {
            let record = serde_json::from_str::<DeviceUpdate>(item.get())
                .map_err(|e| format!("not a device update: {e}"))
                .and_then(|u| sources::device_update(&u, received, &self.instances).map_err(|e| e.to_string()));
            match record {
                Ok(record) => {
                    rows += 1;
                    self.sighting(at, record);
                }
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, item.get().as_bytes(), &reason);
                }
            }
        }
        (rows, rejected)
    }

    fn sweep(&mut self, at: &At<'_>, push: &AgentPush, message: &[u8], received: &Received<'_>) -> (u64, u64) {
        let sweep: Sweep = match serde_json::from_slice(message) {
            Ok(sweep) => sweep,
            Err(error) => {
                self.reject(at, message, &format!("not a sweep: {error}"));
                return (0, 1);
            }
        };
        let (mut rows, mut rejected) = (0, 0);
        let swept = instant_us(&sweep.last_sweep);
        for host in &sweep.hosts {
            let seen = instant_us(&host.last_seen).or(swept);
            match self.target(at, push, received, &host.host, host.available, seen, true) {
                Ok(()) => rows += 1,
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, host.host.as_bytes(), &reason);
                }
            }
        }
        (rows, rejected)
    }

    fn icmp(&mut self, at: &At<'_>, push: &AgentPush, message: &[u8], received: &Received<'_>) -> (u64, u64) {
        let results: IcmpResults = match serde_json::from_slice(message) {
            Ok(results) => results,
            Err(error) => {
                self.reject(at, message, &format!("not ICMP results: {error}"));
                return (0, 1);
            }
        };
        let (mut rows, mut rejected) = (0, 0);
        for result in &results.results {
            let seen = instant_us(&result.timestamp);
            match self.target(at, push, received, &result.target, result.available, seen, false) {
                Ok(()) => rows += 1,
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, result.target.as_bytes(), &reason);
                }
            }
        }
        (rows, rejected)
    }

    /// One target that was looked at: a probe result always, a sighting only if it answered.
    #[allow(clippy::too_many_arguments)]
    fn target(
        &mut self,
        at: &At<'_>,
        push: &AgentPush,
        received: &Received<'_>,
        host: &str,
        available: bool,
        seen_us: Option<i64>,
        sighting: bool,
    ) -> Result<(), String> {
        let record = sources::sweep(host, received, "", seen_us).map_err(|e| e.to_string())?;
        let key =
            TargetKey { tenant: at.origin.tenant.clone(), partition: record.partition.clone(), ip: record.ips[0] };
        let vantage = normalise::agent_id(&push.agent_id).unwrap_or_else(|| at.origin.feed.clone());
        let event = Probe { vantage, at: record.event_time, available };
        self.out.probes.push(Keyed { key, position: u64::from(at.position), event });
        if sighting && available {
            self.sighting(at, record);
        }
        Ok(())
    }

    pub(super) fn staged(&mut self, at: &At<'_>, body: &Bytes) {
        let Some((head, chunk)) = head::<StagedHead>(body) else {
            return self.reject(at, body, "not a staged chunk");
        };
        self.dirty.insert((STAGED, encode(&head.run)));
        if at.origin.kind == radarflow_proto::frame::Kind::Staged {
            let staged = self.staged.entry(head.run).or_default();
            staged.origin = Some((at.origin.tenant.clone(), at.origin.partition.clone(), at.origin.feed.clone()));
            staged.peer = at.peer;
            staged.received_us = at.received_us;
            staged.chunks.insert(head.chunk, chunk.to_vec());
        } else if let Some(staged) = self.staged.remove(&head.run)
            && head.release
        {
            self.dirty.insert((RELEASED, encode(&head.run)));
            self.released.push_back((head.run, staged));
        }
    }

    /// Reads released runs, a budget's worth: a large run is spread over epochs so that it delays nobody.
    pub(super) fn read_released(&mut self, frame: &radarflow_proto::frame::Frame) {
        let mut budget = RELEASE_BUDGET;
        let mut index = 0;
        while let Some((run, mut staged)) = self.released.pop_front() {
            self.dirty.insert((RELEASED, encode(&run)));
            let (tenant, partition, feed) = staged.origin.clone().unwrap_or_default();
            let origin =
                radarflow_proto::frame::Origin { kind: radarflow_proto::frame::Kind::Status, tenant, partition, feed };
            while let Some((_, chunk)) = staged.chunks.pop_first() {
                let mut statuses = Cursor::new(&chunk);
                while let Ok(status) = statuses.sized() {
                    let at = At {
                        origin: &origin,
                        epoch: frame.epoch,
                        // Beyond every position of the frame itself, apart for each worker.
                        position: 0x8000_0000 | (self.index as u32) << 24 | index,
                        received_us: staged.received_us,
                        peer: staged.peer,
                    };
                    index += 1;
                    self.status(&at, status);
                }
                budget = budget.saturating_sub(chunk.len());
                if budget == 0 {
                    break;
                }
            }
            if !staged.chunks.is_empty() {
                self.released.push_front((run, staged));
            }
            if budget == 0 {
                return;
            }
        }
    }
}
