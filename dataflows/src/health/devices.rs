//! The availability of devices: an event whenever it changes, and a condition while one is offline that is looked after, stands
//! behind no other that is, and does not come and go.

use std::collections::{BTreeMap, VecDeque};

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::fact::Stage;
use radarflow_proto::rows::{Device, HealthEvent};
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::availability::State;
use radarflow_reconcile::identity::name::{Name, name};
use serde::{Deserialize, Serialize};

use crate::keyed::{Machine, Tick};
use crate::output::DerivedRow;
use crate::reach::Root;

/// What is said of a device's availability, by whoever looks at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct DeviceAvailability {
    pub(super) tenant: String,
    pub(super) partition: String,
    pub(super) uid: String,
    state: String,
    reason: String,
    name: String,
}

impl DeviceAvailability {
    /// Of a device; `None` where nobody ever looked.
    pub(super) fn of(device: &Device) -> Option<Self> {
        device.availability_since?;
        Some(DeviceAvailability {
            tenant: device.tenant_id.clone(),
            partition: device.partition.clone(),
            uid: device.uid.clone(),
            state: device.availability.clone(),
            reason: device.availability_reason.clone().unwrap_or_default(),
            name: device.display_name.clone(),
        })
    }

    /// Whether it is known not to answer.
    pub(super) fn is_down(&self) -> bool {
        self.state == State::Unavailable.name()
    }

    /// The same of a device that stands behind another.
    pub(super) fn behind(self, root: &Root) -> Self {
        let reason = format!("behind {} ({}), which is unavailable", root.name, root.uid);
        DeviceAvailability { state: UNREACHABLE.to_owned(), reason, ..self }
    }

    /// Names the device.
    pub(super) fn device(&self) -> Name {
        name(&(&self.tenant, &self.partition, &self.uid))
    }
}

/// The state of a device that is down behind another that is.
const UNREACHABLE: &str = "unreachable";

/// A device came, or went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Crossing {
    tenant: String,
    partition: String,
    uid: String,
    name: String,
}

impl Crossing {
    pub(super) fn device(&self) -> Name {
        name(&(&self.tenant, &self.partition, &self.uid))
    }
}

/// What is said of a transition.
#[derive(Clone, Debug)]
pub(super) enum Transition {
    /// The row that tells of it.
    Happened(DerivedRow),
    /// A device came, or went.
    Crossed(Crossing),
}

/// The history of devices' availability: an event a transition.
pub(super) struct Transitions;

/// A device's availability since its last transition.
#[derive(Serialize, Deserialize)]
pub(super) struct LastTransition {
    state: String,
    /// When that was.
    at: Time,
}

impl Machine for Transitions {
    type Key = Name;
    type Event = (DeviceAvailability, i64);
    type State = LastTransition;
    type Output = Transition;
    const NAME: &'static str = "availabilities";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &Name,
        state: &mut Option<LastTransition>,
        events: Vec<(DeviceAvailability, i64)>,
        out: &mut Vec<Transition>,
    ) {
        let mut net: BTreeMap<DeviceAvailability, i64> = BTreeMap::new();
        for (word, diff) in events {
            *net.entry(word).or_default() += diff;
        }
        if net.values().all(|diff| *diff == 0) {
            return;
        }
        // A device that is gone, or has another name, has no transition.
        let Some((word, _)) = net.into_iter().find(|(_, diff)| *diff > 0) else {
            *state = None;
            return;
        };
        let unknown = || State::Unknown.name().to_owned();
        let old_state = state.as_ref().map_or_else(unknown, |last| last.state.clone());
        if old_state == word.state {
            state.get_or_insert(LastTransition { state: word.state, at: Time::from_ms(tick.clock_ms) });
            return;
        }
        let at = Time::from_ms(tick.clock_ms);
        let duration_seconds = state.as_ref().map(|last| (at.0 - last.at.0) / 1_000_000);
        *state = Some(LastTransition { state: word.state.clone(), at });
        // What stands behind another comes and goes with that: it is no coming and going of its own.
        let own = [State::Available.name(), State::Unavailable.name()];
        if own.contains(&old_state.as_str()) && own.contains(&word.state.as_str()) {
            let DeviceAvailability { tenant, partition, uid, name, .. } = word.clone();
            out.push(Transition::Crossed(Crossing { tenant, partition, uid, name }));
        }
        out.push(Transition::Happened(DerivedRow::from(HealthEvent {
            tenant_id: word.tenant,
            partition: word.partition,
            row_id: RowId::default(),
            epoch: 0,
            entity_type: "device".to_owned(),
            entity_id: word.uid.clone(),
            old_state,
            new_state: word.state,
            reason: word.reason,
            duration_seconds,
            recorded_at: at,
            device_uid: Some(word.uid),
        })));
    }

    fn due_ms(&self, _state: &LastTransition) -> Option<i64> {
        None
    }

    fn restored(&mut self, _key: &Name, _state: &LastTransition, _out: &mut Vec<Transition>) {}
}

/// How long a device that stood behind another is given to be seen once nothing is before it any more, milliseconds of live time.
pub const RETURN_MS: i64 = 3 * 60_000;

/// Devices that stand behind others, or did a moment ago: what returns is not told of before it could be looked at.
pub(super) struct Hidden;

/// A device that stands behind another, or stood.
#[derive(Serialize, Deserialize)]
pub(super) struct Hiding {
    device: (String, String, String),
    /// As often as it is said; once.
    behind: i64,
    /// Until when it is hidden after that, live time.
    until_ms: i64,
}

impl Machine for Hidden {
    type Key = Name;
    type Event = ((String, String, String), i64);
    type State = Hiding;
    type Output = ((String, String, String), isize);
    const NAME: &'static str = "hidden";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &Name,
        state: &mut Option<Hiding>,
        events: Vec<((String, String, String), i64)>,
        out: &mut Vec<((String, String, String), isize)>,
    ) {
        for (device, diff) in events {
            if state.is_none() {
                out.push((device.clone(), 1));
            }
            let hiding = state.get_or_insert(Hiding { device, behind: 0, until_ms: 0 });
            hiding.behind += diff;
            hiding.until_ms = tick.live_ms + RETURN_MS;
        }
        if let Some(hiding) = state.take_if(|hiding| hiding.behind <= 0 && hiding.until_ms <= tick.live_ms) {
            out.push((hiding.device, -1));
        }
    }

    fn due_ms(&self, hiding: &Hiding) -> Option<i64> {
        (hiding.behind <= 0).then_some(hiding.until_ms)
    }

    fn restored(&mut self, _key: &Name, hiding: &Hiding, out: &mut Vec<((String, String, String), isize)>) {
        out.push((hiding.device.clone(), 1));
    }
}

/// Comings and goings within [`FLAP_WINDOW_MS`] that are too many.
pub const FLAPS: usize = 6;
/// Within how long, milliseconds.
pub const FLAP_WINDOW_MS: i64 = 15 * 60_000;
/// How long a device must neither come nor go before that is over, milliseconds.
pub const FLAP_QUIET_MS: i64 = 10 * 60_000;

/// Devices that come and go: one alert until they are quiet, and none of each time.
pub(super) struct Flapping;

/// A device that came or went lately.
#[derive(Serialize, Deserialize)]
pub(super) struct Flaps {
    device: Crossing,
    /// When, live time.
    at_ms: VecDeque<i64>,
    flapping: bool,
}

/// What is said of a device that comes and goes.
#[derive(Clone, Debug)]
pub(super) struct Flapped {
    /// Tenant, partition and uid.
    pub(super) device: (String, String, String),
    pub(super) condition: (Subject, Condition),
    pub(super) diff: isize,
}

impl Flaps {
    fn said(&self, diff: isize) -> Flapped {
        let Crossing { tenant, partition, uid, name } = &self.device;
        let subject = Subject {
            tenant: tenant.clone(),
            partition: partition.clone(),
            rule: "device-flapping".to_owned(),
            entity: uid.clone(),
        };
        let condition = Condition {
            rule: subject.rule.clone(),
            severity: "warning".to_owned(),
            title: format!("{name} comes and goes"),
            description: format!(
                "it came or went {FLAPS} times within {} minutes; each time by itself is not told of until it is quiet for {}",
                FLAP_WINDOW_MS / 60_000,
                FLAP_QUIET_MS / 60_000
            ),
            source_type: "device".to_owned(),
            source_id: uid.clone(),
            device_uid: Some(uid.clone()),
            labels: BTreeMap::from([("device".to_owned(), name.clone())]),
            ..Condition::default()
        };
        Flapped { device: (tenant.clone(), partition.clone(), uid.clone()), condition: (subject, condition), diff }
    }
}

impl Machine for Flapping {
    type Key = Name;
    type Event = Crossing;
    type State = Flaps;
    type Output = Flapped;
    const NAME: &'static str = "flaps";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &Name,
        state: &mut Option<Flaps>,
        events: Vec<Crossing>,
        out: &mut Vec<Flapped>,
    ) {
        for crossing in events {
            let flaps = state.get_or_insert_with(|| Flaps {
                device: crossing.clone(),
                at_ms: VecDeque::new(),
                flapping: false,
            });
            if flaps.at_ms.len() == FLAPS {
                flaps.at_ms.pop_front();
            }
            flaps.at_ms.push_back(tick.live_ms);
            // What is said of it stays in the words in which it was said.
            if !flaps.flapping {
                flaps.device = crossing;
            }
        }
        let Some(flaps) = state else { return };
        let quiet = flaps.at_ms.back().is_none_or(|at| tick.live_ms - at >= FLAP_QUIET_MS);
        if !flaps.flapping {
            flaps.at_ms.retain(|at| tick.live_ms - at < FLAP_WINDOW_MS);
            if flaps.at_ms.len() >= FLAPS {
                flaps.flapping = true;
                out.push(flaps.said(1));
            }
        } else if quiet {
            flaps.flapping = false;
            out.push(flaps.said(-1));
            flaps.at_ms.clear();
        }
        if !flaps.flapping && flaps.at_ms.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, flaps: &Flaps) -> Option<i64> {
        match flaps.flapping {
            true => flaps.at_ms.back().map(|at| at + FLAP_QUIET_MS),
            false => flaps.at_ms.front().map(|at| at + FLAP_WINDOW_MS),
        }
    }

    fn restored(&mut self, _key: &Name, flaps: &Flaps, out: &mut Vec<Flapped>) {
        if flaps.flapping {
            out.push(flaps.said(1));
        }
    }
}

/// The condition "this device is offline", while it holds and the device is looked after.
pub(super) fn offline(device: &Device) -> Option<(Subject, Condition)> {
    let looked_after = device.deleted_at.is_none() && device.lifecycle != Stage::Decommissioned.name();
    if device.is_available != Some(false) || !looked_after {
        return None;
    }
    let subject = Subject {
        tenant: device.tenant_id.clone(),
        partition: device.partition.clone(),
        rule: "device-offline".to_owned(),
        entity: device.uid.clone(),
    };
    let mut labels = BTreeMap::from([("device".to_owned(), device.display_name.clone())]);
    labels.extend(device.ip.clone().map(|ip| ("ip".to_owned(), ip)));
    let condition = Condition {
        rule: subject.rule.clone(),
        severity: "critical".to_owned(),
        title: format!("{} is offline", device.display_name),
        description: device.availability_reason.clone().unwrap_or_default(),
        source_type: "device".to_owned(),
        source_id: device.uid.clone(),
        device_uid: Some(device.uid.clone()),
        labels,
        ..Condition::default()
    };
    Some((subject, condition))
}
