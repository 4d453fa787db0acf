//! SNMP notifications to `traps` rows, and to the conditions that they begin and end.
//!
//! An inform that is sent again is the row that is there, and a storm is thinned ([`Notifier`]): what is not kept is shed, and
//! counted as the sender's. What begins and ends conditions does so all the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::rows::{BatchBuilder, Trap as TrapRow};
use radarflow_proto::snmp;
use radarflow_reconcile::notifier::{FirstNotifier, Heard, Lane, Notifier};

use super::messages::Object;
use super::senders::{Memory, Sender, SenderKey};
use super::{At, Decoder, NOTIFIERS};
use crate::alerts::{Notice, Worth};
use crate::keyed::{Restored, Tick, put_state, take_state};
use crate::loss::Delta;
use crate::strangers::PATIENCE_MS;

impl Memory for Notifier {
    fn bytes(&self) -> usize {
        Notifier::bytes(self)
    }
}

impl Decoder {
    pub(super) fn trap(&mut self, at: &At<'_>, body: &Bytes) {
        let Some(ip) = at.ip() else { return self.refuse(at, None, body, "nobody is said to have sent it") };
        let (tenant, partition) = at.scope();
        let key = SenderKey { tenant, partition, ip, domain: () };
        let mut sender = self.notifiers.take(&key).unwrap_or_default();
        let read = snmp::parse(body);
        let is_authentic = matches!(&read, Ok(trap) if trap.is_authentic());
        let lane = match &read {
            Err(_) => Lane::Refused,
            Ok(_) if is_authentic => Lane::Authentic,
            Ok(_) => Lane::Anybody,
        };
        let agent = read.as_ref().ok().and_then(|trap| trap.agent_address).filter(|agent| *agent != ip);
        let heard = match &read {
            Ok(trap) if trap.inform => sender.memory.hear_inform(body, lane, agent, at.received_us, self.now_ms),
            _ => sender.memory.hear(lane, agent, at.received_us),
        };
        let worth = Worth { is_authentic, known_ms: sender.reputation.known_ms() };
        sender.reputation.hear(self.now_ms, read.is_ok());
        // Who finds no place is read all the same: only what it sends again is not known.
        self.notifiers.put(&key, sender);
        let counted = Delta { received: 1, ..Delta::at(at.received_us) };
        match (read, heard) {
            (_, Heard::Again(true)) => self.count(at, Some(ip), Delta { stored: 1, ..counted }),
            (_, Heard::Again(false)) | (Err(_), Heard::Shed) => self.count(at, Some(ip), Delta { shed: 1, ..counted }),
            (Ok(trap), heard) => {
                let source = source_of(at, &trap);
                if heard == Heard::Kept {
                    self.trap_row(at, &trap, source);
                } else {
                    self.count(at, Some(ip), Delta { shed: 1, ..counted });
                }
                self.notice(at, source, trap.into(), worth);
            }
            (Err(error), Heard::Kept) => self.refuse(at, Some(ip), snmp::as_it_came(body), &error.to_string()),
        }
    }

    /// A trap as collectors put it on `logs.snmp`: bindings rendered `TYPE: value`.
    pub(super) fn trap_json(&mut self, at: &At<'_>, body: &Bytes) {
        let object: Object = match serde_json::from_slice(body) {
            Ok(object) => object,
            Err(error) => {
                return self.refuse(at, None, body, &format!("not a trap object: {error}"));
            }
        };
        let text = |key: &str| object.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        let source = text("source").or_else(|| text("_remote_addr")).unwrap_or_default();
        let source = source
            .rsplit_once(':')
            .map_or(source.as_str(), |(head, tail)| if tail.parse::<IpAddr>().is_ok() { tail } else { head });
        let mut varbinds = BTreeMap::new();
        if let Some(list) = object.get("varbinds").and_then(|v| v.as_array()) {
            for binding in list {
                if let (Some(oid), Some(value)) = (binding.get("oid").and_then(|v| v.as_str()), binding.get("value")) {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let value = value.split_once(": ").map_or(value.as_str(), |(_, v)| v).to_owned();
                    varbinds.insert(oid.trim_start_matches('.').to_owned(), value);
                }
            }
        }
        let trap = snmp::Trap {
            version: if text("version").as_deref() == Some("v1") { 1 } else { 2 },
            inform: false,
            request_id: 0,
            community: Vec::new(),
            said_by: None,
            uptime: varbinds.remove(snmp::SYS_UP_TIME).and_then(|v| v.parse().ok()),
            trap_oid: varbinds
                .remove(snmp::SNMP_TRAP_OID)
                .or_else(|| text("trap_oid"))
                .unwrap_or_default()
                .trim_start_matches('.')
                .to_owned(),
            agent_address: source.parse().ok(),
            varbinds,
        };
        let source = source_of(at, &trap);
        self.trap_row(at, &trap, source);
        // Whoever may publish there was let in by its operator.
        self.notice(at, source, trap.into(), Worth { is_authentic: false, known_ms: PATIENCE_MS });
    }

    fn trap_row(&mut self, at: &At<'_>, trap: &snmp::Trap, source: Option<IpAddr>) {
        let said_by = trap.said_by.as_ref();
        let row = TrapRow {
            tenant_id: at.origin.tenant.clone(),
            partition: at.partition().to_owned(),
            row_id: at.row_id(0),
            epoch: at.epoch as i64,
            time: Time(at.received_us),
            source_ip: source,
            peer_ip: at.ip(),
            version: ["v1", "v2c", "v3"][usize::from(trap.version.clamp(1, 3) - 1)].to_owned(),
            inform: trap.inform,
            community_hash: (!trap.community.is_empty()).then(|| String::from_utf8_lossy(&trap.community).into_owned()),
            user_name: said_by.map(|by| by.user.clone()),
            security_level: said_by.map(|by| by.level.name().to_owned()),
            engine_id: said_by.map(|by| by.engine.clone()),
            context_name: said_by.map(|by| by.context.clone()).filter(|context| !context.is_empty()),
            trap_oid: trap.trap_oid.clone(),
            trap_name: snmp::trap_name(&trap.trap_oid).map(str::to_owned),
            uptime: trap.uptime.map(|t| t as i64),
            varbinds: Tags(trap.varbinds.clone()),
            device_uid: None,
        };
        let builders = self.builders(at);
        builders.trap_ips.push(source);
        builders.traps.push(&row);
        let counted = Delta { received: 1, stored: 1, rows: 1, by_chance: true, ..Delta::at(at.received_us) };
        self.count(at, at.ip(), counted);
    }

    /// Tells whoever follows clear pairs.
    fn notice(&mut self, at: &At<'_>, source: Option<IpAddr>, trap: Arc<snmp::Trap>, worth: Worth) {
        let Some(source) = source else { return };
        let (tenant, partition) = at.scope();
        self.out.notices.push(Notice { tenant, partition, source, position: at.order, trap, worth });
    }
}

/// All that one sender sends was one storm.
pub(crate) fn notifiers_with_lanes(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let senders = take_state::<SenderKey<()>, Sender<FirstNotifier>>(state, NOTIFIERS)?;
    put_state(state, NOTIFIERS, senders.into_iter().map(|(key, sender)| (key, sender.map(FirstNotifier::converted))));
    Ok(())
}

/// Whose notification it is: the agent's that it names, or the sender's.
fn source_of(at: &At<'_>, trap: &snmp::Trap) -> Option<IpAddr> {
    trap.agent_address.map(|ip| ip.to_canonical()).or(at.ip())
}
