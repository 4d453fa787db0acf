//! Feeds frames to workers and keeps the tables that come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use radarflow_dataflows::keyed::Restored;
use radarflow_dataflows::output::Merge;
use radarflow_dataflows::worker::{Start, Workers};
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Entry, Frame, Kind, Origin, Slice};
use radarflow_proto::payload::{AgentPush, Listing, ServiceHead, StagedHead};
use radarflow_proto::ports::{EpochOutput, FoundRecord, RecordQuery};
use radarflow_proto::record::{IdKind, SourceKind};
use radarflow_proto::rows::{Device, IpOwnership, Row, StateRow, Table};
use radarflow_proto::snmp::usm::Level;
use radarflow_proto::wire::put_sized;

/// 2024-01-01T00:00:00Z, the harness' beginning of time, milliseconds.
pub const T0: i64 = 1_704_067_200_000;

/// The tables as the outputs so far make them, with every row's epoch set to 0 so that runs can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub state: BTreeMap<(Table, String), StateRow>,
    pub events: BTreeMap<Table, usize>,
}

impl Tables {
    pub fn apply(&mut self, output: &EpochOutput) {
        for change in &output.changes {
            let key = (change.table, change.key.to_string());
            match (&change.before, &change.after) {
                (before, Some(after)) => {
                    let old = self.state.insert(key, after.clone().at(0));
                    assert_eq!(old.is_some(), before.is_some(), "a change knows what was before: {change:?}");
                }
                (_, None) => assert!(self.state.remove(&key).is_some(), "only what is there goes: {change:?}"),
            }
        }
        for (table, batch) in &output.events {
            *self.events.entry(*table).or_default() += batch.num_rows();
        }
    }

    /// The rows of one tenant.
    pub fn of_tenant(&self, tenant: &str) -> Tables {
        let own = self.state.iter().filter(|(_, row)| row.tenant() == tenant);
        Tables { state: own.map(|(key, row)| (key.clone(), row.clone())).collect(), events: BTreeMap::new() }
    }

    pub fn devices(&self) -> Vec<&Device> {
        self.state.values().filter_map(|r| if let StateRow::Device(d) = r { Some(&**d) } else { None }).collect()
    }

    pub fn device(&self, uid: &str) -> &Device {
        let found = self.devices().into_iter().find(|d| d.uid == uid);
        found.unwrap_or_else(|| panic!("no device {uid}; there are {:?}", self.uids()))
    }

    pub fn uids(&self) -> Vec<String> {
        let mut uids: Vec<_> = self.devices().into_iter().map(|d| d.uid.clone()).collect();
        uids.sort();
        uids
    }

    pub fn owner(&self, partition: &str, ip: &str) -> Option<IpOwnership> {
        self.state.values().find_map(|r| match r {
            StateRow::IpOwnership(o) if o.partition == partition && o.ip == ip => Some((**o).clone()),
            _ => None,
        })
    }

    pub fn redirect(&self, from: &str) -> Option<String> {
        self.state.values().find_map(|r| match r {
            StateRow::DeviceRedirect(d) if d.from_uid == from => Some(d.to_uid.clone()),
            _ => None,
        })
    }
}

/// One input, as the harness writes it.
#[derive(Clone, Debug)]
pub struct Input {
    pub kind: Kind,
    pub tenant: &'static str,
    pub partition: String,
    pub peer: Option<&'static str>,
    pub body: Bytes,
}

/// A running dataflow and what came out of it.
pub struct Run {
    workers: Option<Workers>,
    outputs: std::sync::mpsc::Receiver<radarflow_dataflows::output::WorkerEpoch>,
    merge: Merge,
    pub tables: Tables,
    pub outputs_seen: Vec<EpochOutput>,
    pub snapshot: Restored,
    pub epoch: u64,
    pub clock_ms: i64,
    /// Time the process was down before the next frame, milliseconds; and all told.
    pub gap_ms: i64,
    pub gaps_ms: i64,
    /// Where inputs come in.
    pub feed: String,
}

impl Run {
    pub fn new(workers: usize) -> Self {
        Run::from(workers, Start::default(), T0)
    }

    pub fn from(workers: usize, start: Start, clock_ms: i64) -> Self {
        let epoch = start.epoch;
        let snapshot = start.state.clone();
        let gaps_ms = start.gap_ms;
        let (handle, outputs) = Workers::start(workers, start);
        let mut run = Run {
            workers: Some(handle),
            outputs,
            merge: Merge::new(workers, &snapshot),
            tables: Tables::default(),
            outputs_seen: Vec::new(),
            snapshot,
            epoch,
            clock_ms,
            gap_ms: 0,
            gaps_ms,
            feed: "test".to_owned(),
        };
        run.collect(epoch);
        run
    }

    fn collect(&mut self, through: u64) {
        loop {
            let said = self.outputs.recv().expect("the workers run");
            let Some(merged) = self.merge.push(said) else { continue };
            for entry in merged.snapshot.unwrap_or_default() {
                let collection = self.snapshot.entry(entry.collection.to_owned()).or_default();
                collection.retain(|(k, _)| *k != entry.key);
                if let Some(value) = entry.value {
                    collection.push((entry.key, value));
                }
            }
            self.tables.apply(&merged.output);
            let epoch = merged.output.epoch;
            self.outputs_seen.push(merged.output);
            if epoch >= through {
                return;
            }
        }
    }

    /// One epoch of inputs, a tick later.
    pub fn tick(&mut self, inputs: Vec<Input>) -> &Tables {
        self.tick_after(100, inputs)
    }

    /// Several epochs of inputs at once: the workers see them together.
    pub fn burst(&mut self, epochs: Vec<Vec<Input>>) -> &Tables {
        for inputs in epochs {
            self.feed(100, inputs);
        }
        self.collect(self.epoch);
        &self.tables
    }

    /// One epoch of inputs, so many milliseconds later.
    pub fn tick_after(&mut self, ms: i64, inputs: Vec<Input>) -> &Tables {
        self.feed(ms, inputs);
        self.collect(self.epoch);
        &self.tables
    }

    fn feed(&mut self, ms: i64, inputs: Vec<Input>) {
        self.epoch += 1;
        let gap_ms = std::mem::take(&mut self.gap_ms);
        self.gaps_ms += gap_ms;
        self.clock_ms += ms + gap_ms;
        let mut position = 0;
        let slices = inputs
            .into_iter()
            .map(|input| {
                let origin = Origin {
                    kind: input.kind,
                    tenant: input.tenant.to_owned(),
                    partition: input.partition,
                    feed: self.feed.clone(),
                };
                let peer = input.peer.map(|p| p.parse().expect("a socket address"));
                let entry = Entry { peer, received_us: self.clock_ms * 1000, body: input.body };
                position += 1;
                Slice { origin, first_position: position - 1, entries: vec![entry] }
            })
            .collect();
        let frame = Frame {
            generation: 1,
            epoch: self.epoch,
            clock_ms: self.clock_ms,
            gap_ms,
            // Small: a released run takes several epochs.
            release_bytes: 500,
            ranges: vec![],
            slices,
        };
        self.workers.as_ref().expect("running").feed(&Arc::new(frame));
    }

    /// Live records, as the dataflow has them.
    pub fn find(&self, wanted: RecordQuery) -> Vec<FoundRecord> {
        let (workers, answers) = self.workers.as_ref().expect("running").find(wanted);
        (0..workers).flat_map(|_| answers.recv().expect("a worker answers")).collect()
    }

    /// Rows of an event table that came out.
    pub fn rows<R: Row>(&self) -> Vec<R> {
        let batches = self.outputs_seen.iter().flat_map(|o| &o.events).filter(|(t, _)| *t == R::TABLE);
        batches.flat_map(|(_, b)| (0..b.num_rows()).map(|i| R::read(b, i)).collect::<Vec<_>>()).collect()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.stop();
        }
    }
}

/// `linkDown`, as SNMP encodes it.
pub const LINK_DOWN: &[u8] = &[0x2b, 6, 1, 6, 3, 1, 1, 5, 3];
/// `linkUp`.
pub const LINK_UP: &[u8] = &[0x2b, 6, 1, 6, 3, 1, 1, 5, 4];

/// A notification about an interface: of v2c, or of v3 as it is kept when its level of security was found to be so.
pub fn notification(peer: &'static str, tag: u8, id: u16, trap: &[u8], index: u8, level: Option<Level>) -> Input {
    let tlv = |tag: u8, body: &[u8]| [&[tag, body.len() as u8], body].concat();
    let binding = |oid: &[u8], value: Vec<u8>| tlv(0x30, &[tlv(6, oid), value].concat());
    let bindings = [
        binding(&[0x2b, 6, 1, 2, 1, 1, 3, 0], tlv(0x43, &[1])),
        binding(&[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0], tlv(6, trap)),
        binding(&[0x2b, 6, 1, 2, 1, 2, 2, 1, 1, 3], tlv(2, &[index])),
    ];
    let id = tlv(2, &[&[0], &id.to_be_bytes()[..]].concat());
    let pdu = tlv(tag, &[id, tlv(2, &[0]), tlv(2, &[0]), tlv(0x30, &bindings.concat())].concat());
    let head = match level {
        None => [tlv(2, &[1]), tlv(4, b"abcd1234")].concat(),
        Some(level) => [tlv(2, &[3]), tlv(4, b"ann"), tlv(4, b"engine"), tlv(2, &[level as u8]), tlv(4, b"")].concat(),
    };
    let body = tlv(0x30, &[head, pdu].concat()).into();
    Input { kind: Kind::Trap, tenant: "t", partition: "default".into(), peer: Some(peer), body }
}

pub fn fact(fact: &Fact) -> Input {
    let body = serde_json::to_vec(fact).expect("facts are JSON").into();
    Input { kind: Kind::Fact, tenant: "t", partition: String::new(), peer: None, body }
}

/// The source instances the tests speak of: one of each kind, marked as bearing the bare names.
pub fn instances() -> Vec<Input> {
    instances_of("t")
}

/// The same, of a tenant.
pub fn instances_of(tenant: &str) -> Vec<Input> {
    [(IdKind::Armis, "main"), (IdKind::NetBox, "main"), (IdKind::Integration, "snow.main")]
        .map(|(kind, instance)| {
            fact(&Fact::Instance { tenant: tenant.to_owned(), kind, instance: instance.to_owned(), legacy: true })
        })
        .into()
}

/// A status pushed by an agent.
pub fn status(agent: &str, kind: &str, partition: &str, message: &str) -> Input {
    let push = AgentPush {
        agent_id: agent.to_owned(),
        service: Some(ServiceHead {
            name: kind.to_owned(),
            kind: kind.to_owned(),
            source: "results".to_owned(),
            available: true,
        }),
        ..AgentPush::default()
    };
    pushed(&push, partition, message)
}

pub fn pushed(push: &AgentPush, partition: &str, message: &str) -> Input {
    let body = format!("{}\n{message}", serde_json::to_string(push).expect("a head is JSON"));
    Input { kind: Kind::Status, tenant: "t", partition: partition.to_owned(), peer: None, body: body.into() }
}

/// A chunk of a staged run: a sync of the given items.
pub fn staged(run: &str, chunk: u32, tenant: &'static str, items: &[String]) -> Input {
    let mut body = staged_head(run, chunk, false, None);
    put_sized(&mut body, &sync(items).body);
    Input { kind: Kind::Staged, tenant, partition: String::new(), peer: None, body: body.into() }
}

/// The end of a staged run.
pub fn release(run: &str, tenant: &'static str, release: bool) -> Input {
    let body = staged_head(run, 0, release, None).into();
    Input { kind: Kind::Release, tenant, partition: String::new(), peer: None, body }
}

/// The end of a staged run of NetBox's, which lists its items in so many chunks.
pub fn listed(run: &str, chunks: u32, complete: bool, approved: bool) -> Input {
    let (instance, run) = ("main".to_owned(), run.to_owned());
    let listing = Listing { kind: SourceKind::NetBox, instance, run: run.clone(), complete, approved, by: None };
    let body = staged_head(&run, chunks, true, Some(listing)).into();
    Input { kind: Kind::Release, tenant: "t", partition: String::new(), peer: None, body }
}

fn staged_head(run: &str, chunk: u32, release: bool, listing: Option<Listing>) -> Vec<u8> {
    let head = StagedHead { run: run.to_owned(), chunk, release, listing };
    format!("{}\n", serde_json::to_string(&head).expect("a head is JSON")).into()
}

/// A sync of the given items, each a JSON object.
pub fn sync(items: &[String]) -> Input {
    status("runner", "sync", "", &format!("[{}]", items.join(",")))
}

/// An Armis item at a second after T0.
pub fn armis(id: &str, ip: &str, second: i64, more: &str) -> String {
    item("armis", &format!(r#""armis_device_id":"{id}"{more}"#), ip, second)
}

/// A NetBox item at a second after T0.
pub fn netbox(id: &str, ip: &str, second: i64, more: &str) -> String {
    item("netbox", &format!(r#""netbox_device_id":"{id}"{more}"#), ip, second)
}

pub fn item(source: &str, metadata: &str, ip: &str, second: i64) -> String {
    let at = T0 / 1000 - 86_400 + second;
    format!(r#"{{"source":"{source}","ip":"{ip}","timestamp":{at},"metadata":{{{metadata}}}}}"#)
}

/// A sweep that found hosts up or down, a day before T0: it says nothing any more of whether they are.
pub fn sweep(agent: &str, partition: &str, second: i64, hosts: &[(&str, bool)]) -> Input {
    swept(agent, partition, T0 / 1000 - 86_400 + second, hosts)
}

/// A sweep of a moment ago: at a second after a minute before T0.
pub fn fresh_sweep(agent: &str, second: i64, hosts: &[(&str, bool)]) -> Input {
    swept(agent, "", T0 / 1000 - 60 + second, hosts)
}

/// A check of one host, at a moment, milliseconds since 1970. Without an answer the prober could not look.
pub fn check(agent: &str, at_ms: i64, ip: &str, answered: Option<bool>) -> Input {
    let error = if answered.is_none() { "context deadline exceeded" } else { "" };
    let (available, at) = (answered.unwrap_or(false), at_ms * 1_000_000);
    let result = format!(r#"{{"target":"{ip}","available":{available},"timestamp":{at},"error":"{error}"}}"#);
    status(agent, "icmp", "", &format!(r#"{{"results":[{result}]}}"#))
}

fn swept(agent: &str, partition: &str, at: i64, hosts: &[(&str, bool)]) -> Input {
    let hosts: Vec<_> =
        hosts.iter().map(|(ip, up)| format!(r#"{{"host":"{ip}","available":{up},"last_seen":{at}}}"#)).collect();
    status(agent, "sweep", partition, &format!(r#"{{"hosts":[{}]}}"#, hosts.join(",")))
}
