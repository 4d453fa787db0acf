//! Services, as their agents say of them: by agent, type and name.
//!
//! What is not spoken of for [`SERVICE_SILENCE_MS`] of live time is unknown, and forgotten after [`FORGET_MS`]. A word that comes
//! late, by the agent's clock, changes nothing. That a service is unavailable is no alert by itself, because agents say it of
//! what nobody asked them to do; rules over `services` and `health_events` say which are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::{HealthEvent, ServiceState, StateRow};
use serde::{Deserialize, Serialize};

use super::AgentKey;
use crate::keyed::{Machine, Tick};
use crate::output::DerivedRow;
use crate::sizes::Sizes;

/// A service that is not spoken of for this long is unknown, milliseconds: three of the longest pauses that agents make.
pub const SERVICE_SILENCE_MS: i64 = 15 * 60_000;
/// When it is forgotten, milliseconds.
const FORGET_MS: i64 = 7 * 86_400_000;
/// Services of one agent. One more is not kept, and is metered as evicted.
pub const MAX_SERVICES_OF_AGENT: usize = 512;
/// A row says when a service was last spoken of at most this often, milliseconds.
const PACE_MS: i64 = 60_000;

/// A word of an agent about a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceSaid {
    /// Its type.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Through which gateway.
    pub gateway_id: Option<String>,
    /// Whether it is available.
    pub available: bool,
    /// In words.
    pub message: Option<String>,
    /// When, by the agent's clock, but not later than receipt.
    pub at: Time,
}

/// What is said of services.
#[derive(Clone, Debug)]
pub(super) enum ServiceOut {
    /// A row appears or goes.
    Row(StateRow, isize),
    /// Something happened.
    Happened(DerivedRow),
}

/// Services and their silence.
pub(super) struct Services(pub(super) Arc<Sizes>);

#[derive(Serialize, Deserialize)]
struct Service {
    row: ServiceState,
    heard_ms: i64,
    newest: Time,
}

impl Service {
    fn due_ms(&self) -> i64 {
        self.heard_ms + if self.row.available.is_some() { SERVICE_SILENCE_MS } else { FORGET_MS }
    }

    /// Says its new state.
    fn turn(&mut self, available: Option<bool>, at: Time, reason: &str, out: &mut Vec<ServiceOut>) {
        let to = match available {
            Some(true) => "available",
            Some(false) => "unavailable",
            None => "unknown",
        };
        self.row.available = available;
        if self.row.state == to {
            return;
        }
        let old = std::mem::replace(&mut self.row.state, to.to_owned());
        let since = std::mem::replace(&mut self.row.since, at);
        let row = &self.row;
        out.push(ServiceOut::Happened(DerivedRow::from(HealthEvent {
            tenant_id: row.tenant_id.clone(),
            partition: row.partition.clone(),
            row_id: RowId::default(),
            epoch: 0,
            entity_type: "service".to_owned(),
            entity_id: format!("{}/{}/{}", row.agent_id, row.service_type, row.service_name),
            duration_seconds: (!old.is_empty()).then(|| (at.0 - since.0) / 1_000_000),
            old_state: if old.is_empty() { "unknown".to_owned() } else { old },
            new_state: to.to_owned(),
            reason: reason.to_owned(),
            recorded_at: at,
            device_uid: None,
        })));
    }
}

/// The services of an agent, by type and name.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ServicesOf {
    services: BTreeMap<(String, String), Service>,
}

impl ServicesOf {
    fn hear(&mut self, key: &AgentKey, said: ServiceSaid, live_ms: i64, out: &mut Vec<ServiceOut>) -> bool {
        let of = (said.kind, said.name);
        if !self.services.contains_key(&of) && self.services.len() >= MAX_SERVICES_OF_AGENT {
            return false;
        }
        let service = self.services.entry(of.clone()).or_insert_with(|| Service {
            row: ServiceState {
                tenant_id: key.tenant.clone(),
                partition: key.partition.clone(),
                agent_id: key.agent_id.clone(),
                service_type: of.0,
                service_name: of.1,
                gateway_id: None,
                available: None,
                state: String::new(),
                since: said.at,
                message: None,
                last_seen: Time(i64::MIN),
                epoch: 0,
            },
            heard_ms: live_ms,
            newest: Time(i64::MIN),
        });
        // A word of before says nothing, unless its agent has said nothing else for so long: its clock was set back.
        if said.at < service.newest && live_ms - service.heard_ms < SERVICE_SILENCE_MS {
            return true;
        }
        service.heard_ms = live_ms;
        service.newest = said.at;
        service.row.gateway_id = said.gateway_id;
        let reason = said.message.as_deref().unwrap_or("as its agent says").to_owned();
        let turned = service.row.available != Some(said.available);
        service.turn(Some(said.available), said.at, &reason, out);
        // What is said changes with every word, as a count does: it is told with the time.
        if turned || said.at.0.saturating_sub(service.row.last_seen.0) >= PACE_MS * 1000 {
            service.row.message = said.message;
            service.row.last_seen = said.at;
        }
        true
    }
}

impl Machine for Services {
    type Key = AgentKey;
    type Event = ServiceSaid;
    type State = ServicesOf;
    type Output = ServiceOut;
    const NAME: &'static str = "services";

    fn step(
        &mut self,
        tick: &Tick,
        key: &AgentKey,
        state: &mut Option<ServicesOf>,
        events: Vec<ServiceSaid>,
        out: &mut Vec<ServiceOut>,
    ) {
        let of = state.get_or_insert_default();
        let spoken: Vec<_> = events.iter().map(|said| (said.kind.clone(), said.name.clone())).collect();
        let aged = of.services.iter().filter(|(_, service)| tick.live_ms >= service.due_ms()).map(|(of, _)| of.clone());
        let touched: std::collections::BTreeSet<_> = spoken.into_iter().chain(aged).collect();
        let rows = |of: &ServicesOf| -> BTreeMap<(String, String), ServiceState> {
            let row = |key: &(String, String)| Some((key.clone(), of.services.get(key)?.row.clone()));
            touched.iter().filter_map(row).collect()
        };
        let before = rows(of);
        for said in events {
            if !of.hear(key, said, tick.live_ms, out) {
                self.0.evicted().fetch_add(1, Ordering::Relaxed);
            }
        }
        for key in &touched {
            let Some(service) = of.services.get_mut(key).filter(|service| tick.live_ms >= service.due_ms()) else {
                continue;
            };
            if service.row.available.is_some() {
                service.row.last_seen = service.newest;
                service.turn(None, Time::from_ms(tick.clock_ms), "nothing is heard of it", out);
            } else {
                of.services.remove(key);
            }
        }
        let after = rows(of);
        let gone = before.iter().filter(|(key, row)| after.get(*key) != Some(row));
        out.extend(gone.map(|(_, row)| ServiceOut::Row(StateRow::from(row.clone()), -1)));
        let new = after.iter().filter(|(key, row)| before.get(*key) != Some(row));
        out.extend(new.map(|(_, row)| ServiceOut::Row(StateRow::from(row.clone()), 1)));
        if of.services.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, state: &ServicesOf) -> Option<i64> {
        state.services.values().map(Service::due_ms).min()
    }

    fn restored(&mut self, _: &AgentKey, state: &ServicesOf, out: &mut Vec<ServiceOut>) {
        out.extend(state.services.values().map(|service| ServiceOut::Row(StateRow::from(service.row.clone()), 1)));
    }
}
