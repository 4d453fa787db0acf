//! What agents push: heartbeats, syncs, sweeps, checks, whole or in staged runs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Audited;
use radarflow_proto::frame::{Frame, Kind, Origin};
use radarflow_proto::payload::{
    AgentPush, ControlWord, DeviceUpdate, IcmpResults, InterfaceRow, Listing, NeighborRow, ProbeFound, ProbeResults,
    StagedHead, Sweep, instant_us,
};
use radarflow_proto::ports::{Outcome, run_command};
use radarflow_proto::record::{Record, RecordKey, SourceKind};
use radarflow_proto::rows::{BatchBuilder, Probe};
use radarflow_proto::wire::Cursor;
use radarflow_reconcile::identity::assertions::{Scope, ip_name};
use radarflow_reconcile::identity::name::{Name, name};
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::identity::sources::{self, Received};
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use super::runs::{LedgerPosition, Submitter};
use super::{At, Decoder};
use crate::aliases::Poll;
use crate::availability::{ProbeResult, TargetKey};
use crate::health::{AgentKey, Beat};
use crate::identity::RunEvent;
use crate::jobs::{CommandEvent, JobEvent, JobKey, Tally, Word};
use crate::keyed::{Keyed, Tick};
use crate::listings::{ListingEvent, ListingKey};
use crate::loss::Delta;
use crate::metrics::{Spoken, Target};
use crate::records::{RunName, Sighting, Version};
use crate::topology::{Listed, MAX_NEIGHBORS, Neighbors};

/// What counts as one run of a source that names none.
const MINUTE_US: i64 = 60_000_000;
/// Bytes of a text of a probe's result, and of what was wrong.
const MAX_PROBE_TEXT: usize = 300;
/// Octets of the name of a gateway.
const MAX_GATEWAY: usize = 255;
const MAX_PROBE_ERROR: usize = 2000;
/// What was found longer ago is not believed: agents keep results for so long at most. Microseconds.
const OLDEST_PROBE_US: i64 = 31 * 24 * 3600 * 1_000_000;
/// Results that an agent may say at once that it lost.
const MAX_LOST: u64 = 1 << 32;

/// A line of JSON, and what follows it.
fn head<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<(T, &[u8])> {
    let end = body.iter().position(|b| *b == b'\n')?;
    Some((serde_json::from_slice(&body[..end]).ok()?, &body[end + 1..]))
}

/// Names a poll: by its run, its time, or the minute.
fn poll_name(run: &str, timestamp: &serde_json::Value, at: &At<'_>) -> u32 {
    let named = match (run.trim(), instant_us(timestamp)) {
        ("", Some(at_us)) => name(&at_us),
        ("", None) => name(&(at.received_us / MINUTE_US)),
        (run, _) => name(&run),
    };
    named.short() as u32
}

impl Decoder {
    pub(super) fn status(&mut self, at: &At<'_>, body: &[u8]) {
        let Some((mut push, message)) = head::<AgentPush>(body) else {
            return self.refuse(at, None, body, "not an agent push");
        };
        // It is in every row: what is too long is nobody's name.
        if push.gateway_id.len() > MAX_GATEWAY {
            push.gateway_id.clear();
        }
        let partition = (!at.origin.partition.is_empty()).then_some(at.origin.partition.as_str());
        let received = Received { tenant: &at.origin.tenant, partition, at_us: at.received_us };
        self.beat(at, &push, &received);
        if let Some(word) = push.control.as_deref() {
            self.control(at, &push, word);
        }
        let (rows, rejected) = match &push.service {
            None => (0, 0),
            Some(service) => match (service.source.as_str(), service.kind.as_str()) {
                ("results", "sync" | "mapper") => self.sync(at, message, &received),
                ("results", "mapper_interfaces") => self.interfaces(at, &push, message, &received),
                ("results", "mapper_topology") => self.topology(at, message, &received),
                ("results", "sweep") => self.sweep(at, &push, message, &received),
                ("results", "icmp") => self.icmp(at, &push, message, &received),
                ("results", "probes") => self.probes(at, &push, message),
                ("results", "mtr") => self.traces(at, &push, message),
                ("sysmon-metrics", _) => self.sysmon(at, &push, message),
                ("snmp-metrics", _) => self.snmp(at, &push, message),
                ("plugin-result", _) => self.plugin(at, &push, service, message),
                ("status" | "plugin-telemetry", _) => {
                    self.service_status(at, &push, service, message);
                    (0, 0)
                }
                (_, "status") => (0, 0),
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
        self.out.beats.push(Keyed { key, position: at.order, event });
        // An agent is a device by what it says of itself; a push that says nothing of itself is only a heartbeat.
        if !push.hostname.is_empty() || !push.source_ip.is_empty() {
            let own = Received { partition: Some(at.partition()), ..received.clone() };
            if let Ok(record) = sources::agent(push, &own) {
                self.sighting(at, &record, "");
            }
        }
    }

    /// What is said of commands. Who speaks is who holds the connection: the gateway says so.
    fn control(&mut self, at: &At<'_>, push: &AgentPush, word: &ControlWord) {
        let Some(agent_id) = normalise::agent_id(&push.agent_id) else { return };
        let agent = AgentKey { tenant: at.origin.tenant.clone(), partition: at.partition().to_owned(), agent_id };
        let event = CommandEvent::Word(Word { agent, word: word.clone() });
        self.out.words.push(Keyed { key: at.origin.tenant.clone(), position: at.order, event });
    }

    pub(super) fn sighting(&mut self, at: &At<'_>, record: &Record, run: &str) {
        let RecordKey { tenant, kind, instance, .. } = &record.key;
        let listing = self.listing.clone().filter(|l| (*kind, instance) == (l.kind, &l.instance));
        let run: Cow<'_, str> = match (&listing, run.trim()) {
            (Some(listing), _) => listing.run.as_str().into(),
            (None, "") => minute(at.received_us).into(),
            (None, run) => run.into(),
        };
        let by = RunName { source: source_name(tenant, *kind, instance), run: run_name(&run) };
        if self.last_runs.insert(by.source, by.run) != Some(by.run) {
            let approved = listing.as_ref().is_some_and(|l| l.approved);
            let began = RunEvent::Began { by, run: run.into_owned(), lists: listing.is_some(), approved };
            let key = ListingKey { tenant: tenant.clone(), kind: *kind, instance: instance.clone() };
            self.out.runs.push((key, began));
        }
        let version = Version::new(record).said_by(by);
        let key = version.key;
        if let Some(listing) = listing {
            let event = ListingEvent::Item { record: key, run: by.run, gone: record.deleted };
            let key = key_of(tenant, &listing);
            self.out.listed.push(Keyed { key, position: at.order, event });
        }
        let source = |key: &RecordKey| (key.tenant.clone(), key.kind, key.instance.clone());
        let partial = !self.partial.is_empty() && self.partial.contains(&source(&record.key));
        let event = Sighting { version: version.into(), partial };
        self.out.sightings.push(Keyed { key, position: at.order, event });
    }

    /// The items of an array, each for itself; Go writes an empty one as `null`. A row in `rejects` if it is none.
    fn items(&mut self, at: &At<'_>, message: &[u8], what: &str) -> Option<Vec<Box<RawValue>>> {
        match serde_json::from_slice::<Option<_>>(message) {
            Ok(items) => Some(items.unwrap_or_default()),
            Err(error) => {
                self.reject(at, message, &format!("not an array of {what}: {error}"));
                None
            }
        }
    }

    fn sync(&mut self, at: &At<'_>, message: &[u8], received: &Received<'_>) -> (u64, u64) {
        let Some(items) = self.items(at, message, "device updates") else { return (0, 1) };
        let (mut rows, mut rejected) = (0, 0);
        for item in items {
            let record = object::<DeviceUpdate>(&item).map_err(|e| format!("not a device update: {e}")).and_then(|u| {
                match sources::device_update(&u, received, &self.instances) {
                    Ok(record) => Ok((record, u.sync_meta.sync_run_id)),
                    Err(error) => Err(error.to_string()),
                }
            });
            match record {
                Ok((record, run)) => {
                    rows += 1;
                    self.sighting(at, &record, &run);
                }
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, item.get().as_bytes(), &reason);
                }
            }
        }
        (rows, rejected)
    }

    /// Interfaces of polled devices: a poll a device, run and payload. ServiceRadar's agents name no run and give each interface a
    /// time of its own: those of a device in one payload are one poll then, named by its newest.
    fn interfaces(&mut self, at: &At<'_>, push: &AgentPush, message: &[u8], received: &Received<'_>) -> (u64, u64) {
        let Some(items) = self.items(at, message, "interfaces") else { return (0, 1) };
        let (mut rows, mut rejected) = (0, 0);
        let mut polls: BTreeMap<(Name, Option<u32>), Poll> = BTreeMap::new();
        let mut listed: BTreeMap<Name, Listed> = BTreeMap::new();
        let mut speeds: BTreeMap<String, BTreeMap<i64, i64>> = BTreeMap::new();
        let agent_id = normalise::agent_id(&push.agent_id).unwrap_or_default();
        for item in items {
            let interface =
                object::<InterfaceRow>(&item).map_err(|e| format!("not an interface: {e}")).and_then(|row| {
                    match sources::interface(&row, received) {
                        Ok(interface) => Ok((row, interface)),
                        Err(error) => Err(error.to_string()),
                    }
                });
            let (row, interface) = match interface {
                Ok(interface) => interface,
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, item.get().as_bytes(), &reason);
                    continue;
                }
            };
            rows += 1;
            let device = name(&interface.device);
            let scope = Scope::of(&interface.device.tenant, &interface.partition);
            if row.if_index > 0 {
                if row.if_speed > 0 {
                    let bps = i64::try_from(row.if_speed).unwrap_or(i64::MAX);
                    speeds.entry(interface.device.key.clone()).or_default().insert(row.if_index, bps);
                }
                let of = || Listed { scope: scope.clone(), interfaces: BTreeMap::new() };
                let row = sources::interface_row(&row, &interface, &agent_id);
                listed.entry(device).or_insert_with(of).interfaces.insert(row.if_index, row);
            }
            let run = (!row.run_id.trim().is_empty()).then(|| poll_name(&row.run_id, &row.timestamp, at));
            let poll = polls.entry((device, run)).or_insert_with(|| Poll {
                at: interface.at,
                run: 0,
                scope,
                ips: Vec::new(),
                macs: Vec::new(),
            });
            poll.at = poll.at.max(interface.at);
            poll.ips.extend(interface.ips);
            poll.macs.extend(interface.mac);
        }
        for ((device, run), mut poll) in polls {
            poll.run = run.unwrap_or_else(|| name(&poll.at.0).short() as u32);
            poll.tidy();
            self.out.polls.push(Keyed { key: device, position: at.order, event: poll });
        }
        for (key, event) in listed {
            self.out.interfaces.push(Keyed { key, position: at.order, event });
        }
        for (name, speeds) in speeds {
            let target = Target { partition: at.partition().to_owned(), agent_id: agent_id.clone(), name };
            self.spoken(at, &target, Spoken::Speeds(target.clone(), speeds));
        }
        (rows, rejected)
    }

    fn topology(&mut self, at: &At<'_>, message: &[u8], received: &Received<'_>) -> (u64, u64) {
        let Some(items) = self.items(at, message, "neighbours") else { return (0, 1) };
        let (mut rows, mut rejected) = (0, 0);
        let mut polls: BTreeMap<(Name, Option<u32>), Neighbors> = BTreeMap::new();
        for item in items {
            let neighbor = object::<NeighborRow>(&item).map_err(|e| format!("not a neighbour: {e}")).and_then(|row| {
                match sources::neighbor(&row, received) {
                    Ok(neighbor) => {
                        let run = (!row.run_id.trim().is_empty()).then(|| poll_name(&row.run_id, &row.timestamp, at));
                        Ok((run, neighbor))
                    }
                    Err(error) => Err(error.to_string()),
                }
            });
            let taken = neighbor.and_then(|(run, neighbor)| {
                let scope = Scope::of(&at.origin.tenant, &neighbor.partition);
                let key = (ip_name(scope.name, neighbor.polled), run);
                let poll = polls.entry(key).or_insert_with(|| Neighbors::new(scope, run.unwrap_or_default()));
                if poll.take(neighbor) { Ok(()) } else { Err(format!("more than {MAX_NEIGHBORS} neighbours")) }
            });
            match taken {
                Ok(()) => rows += 1,
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, item.get().as_bytes(), &reason);
                }
            }
        }
        for ((key, run), mut event) in polls {
            if run.is_none() {
                event.name_by_time();
            }
            self.out.neighbors.push(Keyed { key, position: at.order, event });
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
        let mut tally = Tally::default();
        for host in &sweep.hosts {
            let seen = instant_us(&host.last_seen).or(swept);
            let found = seen.unwrap_or(at.received_us).min(at.received_us);
            tally.add(Some(host.available), Time(found));
            match self.target(at, push, received, &host.host, Some(host.available), seen, true) {
                Ok(()) => rows += 1,
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, host.host.as_bytes(), &reason);
                }
            }
        }
        self.found(at, push, &sweep.sweep_group_id, tally);
        (rows, rejected)
    }

    /// What our own agent found: a row a look, and a result of its target where the look told something. Each profile and port is a
    /// vantage of its own: of two looks at one host by one agent neither speaks for the other.
    fn probes(&mut self, at: &At<'_>, push: &AgentPush, message: &[u8]) -> (u64, u64) {
        let results: ProbeResults = match serde_json::from_slice(message) {
            Ok(results) => results,
            Err(error) => {
                self.reject(at, message, &format!("not results of probes: {error}"));
                return (0, 1);
            }
        };
        let Some(agent_id) = normalise::agent_id(&push.agent_id) else {
            self.reject(at, message, "results of probes name no agent");
            return (0, 1);
        };
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        let mut rejected = 0;
        for (nth, found) in results.results.iter().enumerate() {
            if let Some(wrong) = wrong(found, at.received_us) {
                rejected += 1;
                self.reject(at, found.target.as_bytes(), &wrong);
                continue;
            }
            let time = Time(found.at_us.min(at.received_us));
            tallies.entry(found.job.clone()).or_default().add(found.ok, time);
            let ip = found.ip.map(|ip| ip.to_canonical());
            // Whatever answers is there, be it as it should or not.
            let answered = found.ok.map(|ok| ok || found.lost < found.sent);
            if let (Some(ip), Some(available)) = (ip, answered) {
                let key = TargetKey { tenant: at.origin.tenant.clone(), partition: at.partition().to_owned(), ip };
                let port = found.port.map(|port| format!(":{port}")).unwrap_or_default();
                let vantage = format!("{agent_id}/{}{port}", found.profile);
                let event = ProbeResult { vantage, at: time, received: Time(at.received_us), available };
                self.out.probes.push(Keyed { key, position: at.order, event });
            }
            let row = probe_row(at, nth, &agent_id, found, time);
            let builders = self.builders(at);
            builders.probe_ips.push(ip);
            builders.probes.push(&row);
        }
        for (job, tally) in tallies {
            self.found(at, push, &job, tally);
        }
        if results.lost > 0 {
            self.count(at, None, Delta { lost: results.lost.min(MAX_LOST), ..Delta::at(at.received_us) });
        }
        (results.results.len() as u64 - rejected, rejected)
    }

    /// Results of a job, counted.
    fn found(&mut self, at: &At<'_>, push: &AgentPush, job: &str, tally: Tally) {
        let Some(agent_id) = normalise::agent_id(&push.agent_id).filter(|_| tally.results > 0 && !job.is_empty())
        else {
            return;
        };
        let (tenant, partition) = at.scope();
        let key = JobKey { tenant, partition, job: job.to_owned(), agent_id };
        self.out.results.push(Keyed { key, position: at.order, event: JobEvent::Found(tally) });
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
            // A prober that could not look knows nothing.
            let available = result.error.is_empty().then_some(result.available);
            match self.target(at, push, received, &result.target, available, seen, false) {
                Ok(()) => rows += 1,
                Err(reason) => {
                    rejected += 1;
                    self.reject(at, result.target.as_bytes(), &reason);
                }
            }
        }
        (rows, rejected)
    }

    /// One target that was looked at: a result if the look told whether it answers, a sighting only if it did.
    #[allow(clippy::too_many_arguments)]
    fn target(
        &mut self,
        at: &At<'_>,
        push: &AgentPush,
        received: &Received<'_>,
        host: &str,
        available: Option<bool>,
        seen_us: Option<i64>,
        sighting: bool,
    ) -> Result<(), String> {
        let record = sources::sweep(host, received, "", seen_us).map_err(|e| e.to_string())?;
        if let Some(available) = available {
            let key =
                TargetKey { tenant: at.origin.tenant.clone(), partition: record.partition.clone(), ip: record.ips[0] };
            let vantage = normalise::agent_id(&push.agent_id).unwrap_or_else(|| at.origin.feed.clone());
            let event = ProbeResult { vantage, at: record.event_time, received: Time(at.received_us), available };
            self.out.probes.push(Keyed { key, position: at.order, event });
        }
        if sighting && available == Some(true) {
            self.sighting(at, &record, "");
        }
        Ok(())
    }

    pub(super) fn staged(&mut self, at: &At<'_>, body: &Bytes, tick: &Tick) {
        let Some((head, chunk)) = head::<StagedHead>(body) else {
            if self.is_mine(at.order) {
                self.refuse(at, None, body, "not a staged chunk");
            }
            return;
        };
        if at.origin.kind == Kind::Staged {
            let submitter = Submitter {
                tenant: at.origin.tenant.clone(),
                partition: at.origin.partition.clone(),
                feed: at.origin.feed.clone(),
                peer: at.peer,
                received_us: at.received_us,
            };
            self.runs.stage(head.run, submitter, head.chunk, at.place, body.slice_ref(chunk), tick.live_ms);
        } else if head.release {
            // What was given up for its age, or lost, makes a listing incomplete: it must withdraw nothing.
            let whole = self.runs.chunks(&head.run) == head.chunk as usize;
            let listing = head.listing.map(|l| Listing { complete: l.complete && whole, ..l });
            if let Some(listing) = &listing {
                self.audit_run(at, listing, head.chunk);
            }
            self.runs.release(head.run, at.place, listing.clone());
            if let Some(listing) = listing.filter(|_| head.chunk == 0) {
                // A source that has nothing at all.
                self.complete(&at.origin.tenant, &listing);
            }
        } else {
            self.runs.discard(&head.run);
        }
    }

    /// That somebody brought a run about: it has ended, and is applied from here on.
    fn audit_run(&mut self, at: &At<'_>, listing: &Listing, chunks: u32) {
        let Some(by) = listing.by.as_ref().filter(|_| self.index == 0) else { return };
        let Listing { kind, instance, run, complete, .. } = listing;
        let (action, plan) = match &by.plan {
            Some(plan) => ("plan_applied", Some(plan)),
            None => ("inventory_run", None),
        };
        let detail = json!({"run": run, "complete": complete, "chunks": chunks, "plan": plan});
        let audited = Audited {
            tenant: None,
            actor: Some(by.actor.clone()),
            action: action.to_owned(),
            subject: format!("{}/{instance}/{run}", kind.name()),
            reason: None,
            detail: detail.to_string(),
        };
        self.audit(at, audited);
    }

    /// The end of a listing, after all of its items.
    fn complete(&mut self, tenant: &str, listing: &Listing) {
        if listing.by.is_some() && self.index == 0 {
            let command_id = run_command(tenant, listing.kind, &listing.instance, &listing.run);
            self.out.ended.push(Outcome { command_id, refused: None });
        }
        if listing.complete && self.index == 0 {
            let (run, name) = (listing.run.clone(), run_name(&listing.run));
            let event = ListingEvent::Complete { run, name, approved: listing.approved };
            let key = key_of(tenant, listing);
            let by = RunName { source: source_name(tenant, listing.kind, &listing.instance), run: name };
            self.out.runs.push((key.clone(), RunEvent::Complete(by)));
            self.out.listed.push(Keyed { key, position: u64::MAX, event });
        }
    }

    /// Reads this worker's share of the released chunks whose turn has come.
    pub(super) fn read_runs(&mut self, frame: &Frame, tick: &Tick) {
        self.rejects = 0;
        for (name, submitter) in self.runs.expire(tick.live_ms) {
            if self.index == 0 {
                let origin = submitter.origin();
                let at = submitter.at(&origin, frame.epoch, (frame.epoch, u32::MAX), u64::MAX);
                self.refuse(&at, None, name.as_bytes(), "the run was never finished; nothing of it was applied");
            }
        }
        for (n, due) in self.runs.take(frame.epoch, u64::from(frame.release_bytes)).into_iter().enumerate() {
            if let Some(listing) = due.listing.as_ref().filter(|_| due.last) {
                self.complete(&due.submitter.tenant, listing);
            }
            let Some(body) = due.body else { continue };
            self.listing = due.listing.clone();
            let origin = due.submitter.origin();
            self.rejects = 0;
            let mut statuses = Cursor::new(&body);
            let mut nth = 0;
            while !statuses.is_empty() {
                // After everything the frame brings itself.
                let order = 1 << 63 | (n as u64) << 32 | nth;
                nth += 1;
                let at = due.submitter.at(&origin, frame.epoch, due.place, order);
                let rest = statuses.rest();
                match statuses.sized() {
                    Ok(status) => self.status(&at, status),
                    Err(_) => {
                        self.refuse(&at, None, rest, "the rest of a chunk is no payload");
                        break;
                    }
                }
            }
            self.listing = None;
        }
    }
}

/// An item that is an object: a list would be read as the fields in their order.
fn object<T: DeserializeOwned>(item: &RawValue) -> serde_json::Result<T> {
    if !item.get().starts_with('{') {
        return Err(serde::de::Error::custom("it is no object"));
    }
    serde_json::from_str(item.get())
}

/// What a minute is called as a run: `2026-01-31T12:00Z`.
fn minute(us: i64) -> String {
    let mut text = Time(us - us.rem_euclid(MINUTE_US)).to_string();
    text.truncate("2026-01-31T12:00".len());
    text + "Z"
}

/// Names a source.
fn source_name(tenant: &str, kind: SourceKind, instance: &str) -> u32 {
    name(&(tenant, kind, instance)).short() as u32
}

/// Names a run.
fn run_name(run: &str) -> u32 {
    name(&run.trim()).short() as u32
}

fn key_of(tenant: &str, listing: &Listing) -> ListingKey {
    ListingKey { tenant: tenant.to_owned(), kind: listing.kind, instance: listing.instance.clone() }
}

impl Submitter {
    fn origin(&self) -> Origin {
        let Submitter { tenant, partition, feed, .. } = self.clone();
        Origin { kind: Kind::Status, tenant, partition, feed }
    }

    fn at<'a>(&self, origin: &'a Origin, epoch: u64, place: LedgerPosition, order: u64) -> At<'a> {
        At { origin, epoch, place, order, received_us: self.received_us, peer: self.peer }
    }
}

fn probe_row(at: &At<'_>, nth: usize, agent_id: &str, found: &ProbeFound, time: Time) -> Probe {
    Probe {
        tenant_id: at.origin.tenant.clone(),
        partition: at.partition().to_owned(),
        row_id: at.row_id(nth as u32),
        epoch: at.epoch as i64,
        time,
        received_at: Time(at.received_us),
        agent_id: agent_id.to_owned(),
        profile: found.profile.clone(),
        kind: found.kind.clone(),
        target: found.target.clone(),
        ip: found.ip.map(|ip| ip.to_canonical()),
        port: found.port.map(i64::from),
        is_ok: found.ok,
        latency_us: found.latency_us.map(|us| us as i64),
        sent: i64::from(found.sent),
        lost: i64::from(found.lost),
        status_code: found.status_code.map(i64::from),
        certificate_days: found.certificate_days,
        error: Some(&found.error).filter(|error| !error.is_empty()).cloned(),
        device_uid: None,
    }
}

/// Why a result of a probe is not believed.
fn wrong(found: &ProbeFound, received_us: i64) -> Option<String> {
    let texts = [&found.job, &found.profile, &found.kind, &found.target];
    if texts.iter().any(|text| text.len() > MAX_PROBE_TEXT) || found.error.len() > MAX_PROBE_ERROR {
        return Some("a text of a probe's result is too long".to_owned());
    }
    (found.at_us < received_us.saturating_sub(OLDEST_PROBE_US))
        .then(|| "a probe's result is older than 31 days".to_owned())
}
