//! A device's life: what operators make of it, and what its records do to that.
//!
//! ```text
//! discovered ─(an identifier)─► identified ──► managed ──► decommissioned
//!                                                 ▲──────────────┘
//! ```
//! The first step follows from what is known; a device on which an agent runs is managed. The others are steps that
//! operators take; they are said of what names the device best (its *anchor*) and go where that goes, so a device that
//! is made of several has the steps of all of them: the newest counts. A decommissioned device stays so, whoever
//! sights it.
//!
//! Deletion hides a device, whatever its stage. A later sighting by anybody but a sweep shows it again; so does an
//! operator.

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Actor, DeviceAct, DeviceStep, Stage};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// When something was asked: the epoch, and the place in it.
pub type Order = (u64, u64);

/// What operators said of one anchor.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Steps {
    /// The newest stage, and when it was set.
    pub stage: Option<(Order, Stage)>,
    /// Whether it is deleted; what was said last.
    pub hidden: Option<Hidden>,
}

/// That a device was deleted, or shown again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hidden {
    /// When it was said.
    pub order: Order,
    /// By the clock.
    pub at: Time,
    /// By whom, and why; `None` for shown.
    pub deleted: Option<(String, String)>,
}

/// What a device's life amounts to, beyond what its records say.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// The stage that operators set.
    pub stage: Option<Stage>,
    /// Since when, by whom and why it is deleted.
    pub deleted: Option<(Time, String, String)>,
}

/// Why a step was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a device that is {is} cannot be asked to {}; allowed: {}", act.name(), list(allowed))]
pub struct Refused {
    /// What it is: a stage, or `deleted`.
    pub is: &'static str,
    /// What was asked.
    pub act: DeviceAct,
    /// What may be.
    pub allowed: Vec<DeviceAct>,
}

fn list(acts: &[DeviceAct]) -> String {
    acts.iter().map(|a| a.name()).collect::<Vec<_>>().join(", ")
}

/// What may be asked of a device.
pub fn allowed(stage: Stage, deleted: bool) -> Vec<DeviceAct> {
    let step = match stage {
        Stage::Discovered => None,
        Stage::Identified | Stage::Decommissioned => Some(DeviceAct::Manage),
        Stage::Managed => Some(DeviceAct::Decommission),
    };
    let visibility = if deleted { DeviceAct::Restore } else { DeviceAct::Delete };
    step.into_iter().chain([visibility]).collect()
}

/// Whether something may be asked of a device.
///
/// # Errors
/// [`Refused`] where its stage does not allow it.
pub fn check(stage: Stage, deleted: bool, act: DeviceAct) -> Result<(), Refused> {
    let allowed = allowed(stage, deleted);
    if allowed.contains(&act) {
        return Ok(());
    }
    let of_stage = matches!(act, DeviceAct::Manage | DeviceAct::Decommission);
    let is = if deleted && !of_stage { "deleted" } else { stage.name() };
    Err(Refused { is, act, allowed })
}

impl Steps {
    /// Takes a step, or says why not. What was said of the anchor before counts more than what the actor saw.
    ///
    /// # Errors
    /// [`Refused`] where its stage does not allow the step.
    pub fn take(&mut self, step: &DeviceStep, order: Order, at: Time) -> Result<(), Refused> {
        let stage = self.stage.map_or(step.from, |(_, stage)| stage);
        match step.act {
            DeviceAct::Manage | DeviceAct::Decommission => {
                check(stage, false, step.act)?;
                let to = if step.act == DeviceAct::Manage { Stage::Managed } else { Stage::Decommissioned };
                self.stage = Some((order, to));
            }
            // A sighting may have shown it meanwhile, which is not known here: what was asked last counts.
            DeviceAct::Delete => {
                self.hidden = Some(Hidden { order, at, deleted: Some(said(&step.actor, &step.reason)) });
            }
            DeviceAct::Restore => self.hidden = Some(Hidden { order, at, deleted: None }),
        }
        Ok(())
    }

    /// When the device was deleted, if that was said last.
    pub fn deletion(&self) -> Option<Order> {
        self.hidden.as_ref().filter(|h| h.deleted.is_some()).map(|h| h.order)
    }
}

fn said(actor: &Actor, reason: &str) -> (String, String) {
    (actor.name.clone(), reason.to_owned())
}

/// A device's life from what was said of its anchors. With each: the newest deletion after which it was sighted, 0 for
/// none.
pub fn life<'a>(anchors: impl Iterator<Item = (&'a Steps, u64)> + Clone) -> Life {
    let stage = anchors.clone().filter_map(|(steps, _)| steps.stage).max().map(|(_, stage)| stage);
    let newest = anchors.filter_map(|(steps, sighted)| Some((steps.hidden.as_ref()?, sighted)));
    let newest = newest.max_by_key(|(hidden, _)| hidden.order);
    let deleted = newest.and_then(|(hidden, sighted)| {
        let (by, reason) = hidden.deleted.as_ref()?;
        (hidden.order.0 > sighted).then(|| (hidden.at, by.clone(), reason.clone()))
    });
    Life { stage, deleted }
}

/// The stage that follows from a device's records alone: whether an agent speaks for it, whether one of them asserts an
/// identifier or a MAC.
pub fn derived(has_agent: bool, identified: bool) -> Stage {
    match (has_agent, identified) {
        (true, _) => Stage::Managed,
        (false, true) => Stage::Identified,
        (false, false) => Stage::Discovered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use radarflow_proto::fact::{Anchor, Role};
    use radarflow_proto::record::{IdKind, Identifier};

    fn step(act: DeviceAct, from: Stage) -> DeviceStep {
        DeviceStep {
            tenant: "t".into(),
            partition: "default".into(),
            uid: "sr:x".into(),
            anchor: Anchor::Identifier(Identifier { kind: IdKind::Armis, namespace: "".into(), value: "1".into() }),
            from,
            act,
            actor: Actor { name: "ann".into(), role: Role::Operator },
            reason: "sold".into(),
            command_id: "c".into(),
        }
    }

    #[test]
    fn refusals_name_what_is_allowed() {
        let refused = |stage, deleted, act| check(stage, deleted, act).unwrap_err().to_string();
        assert_eq!(
            refused(Stage::Decommissioned, false, DeviceAct::Decommission),
            "a device that is decommissioned cannot be asked to decommission; allowed: manage, delete"
        );
        assert_eq!(
            refused(Stage::Discovered, true, DeviceAct::Delete),
            "a device that is deleted cannot be asked to delete; allowed: restore"
        );
        let mut steps = Steps::default();
        steps.take(&step(DeviceAct::Manage, Stage::Identified), (1, 0), Time(1)).unwrap();
        // Two who saw the same: the second comes too late.
        assert!(steps.take(&step(DeviceAct::Manage, Stage::Identified), (1, 1), Time(1)).is_err());
        steps.take(&step(DeviceAct::Decommission, Stage::Identified), (2, 0), Time(2)).unwrap();
        assert_eq!(life([(&steps, 0)].into_iter()).stage, Some(Stage::Decommissioned));
    }

    #[test]
    fn the_newest_of_several_anchors_counts_and_a_later_sighting_shows_the_device() {
        let (mut a, mut b) = (Steps::default(), Steps::default());
        a.take(&step(DeviceAct::Delete, Stage::Managed), (5, 0), Time(5)).unwrap();
        let deleted = |a: &Steps, b: &Steps, sighted| life([(a, sighted), (b, 0)].into_iter()).deleted.is_some();
        assert!(deleted(&a, &b, 0) && deleted(&a, &b, 4) && !deleted(&a, &b, 5));
        b.take(&step(DeviceAct::Restore, Stage::Managed), (6, 0), Time(6)).unwrap();
        assert!(!deleted(&a, &b, 0));
        a.take(&step(DeviceAct::Delete, Stage::Managed), (7, 0), Time(7)).unwrap();
        assert!(deleted(&a, &b, 5));
    }
}
