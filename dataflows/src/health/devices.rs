//! The availability of devices: an event whenever it changes, and a condition while one is offline that is looked after.

use std::collections::BTreeMap;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::fact::Stage;
use radarflow_proto::rows::{Device, HealthEvent};
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::availability::State;
use radarflow_reconcile::identity::name::{Name, name};
use serde::{Deserialize, Serialize};

use crate::keyed::{Machine, Tick};
use crate::output::DerivedRow;

/// What is said of a device's availability, by whoever looks at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct DeviceAvailability {
    tenant: String,
    partition: String,
    uid: String,
    state: String,
    reason: String,
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
        })
    }

    /// Names the device.
    pub(super) fn device(&self) -> Name {
        name(&(&self.tenant, &self.partition, &self.uid))
    }
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
    type Output = DerivedRow;
    const NAME: &'static str = "availabilities";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &Name,
        state: &mut Option<LastTransition>,
        events: Vec<(DeviceAvailability, i64)>,
        out: &mut Vec<DerivedRow>,
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
        out.push(DerivedRow::from(HealthEvent {
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
        }));
    }

    fn due_ms(&self, _state: &LastTransition) -> Option<i64> {
        None
    }

    fn restored(&mut self, _key: &Name, _state: &LastTransition, _out: &mut Vec<DerivedRow>) {}
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
