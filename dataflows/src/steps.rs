//! Steps of devices' lives: what operators said of each anchor.
//!
//! ```text
//! steps (facts) ─► [what was said of each anchor] ─► anchor steps (Δ) ─► identity: life by device
//! ```
//! Which device an anchor belongs to is identity's; what follows from a deletion is [`crate::lifecycle`].

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Anchor, DeviceStep};
use radarflow_proto::ports::Outcome;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::{Name, name};
use radarflow_reconcile::lifecycle::Steps;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, Machine, Tick, machine};

/// What operators say.
pub struct Inputs<'scope> {
    /// Steps that people ask for, by anchor, with their place in the epoch.
    pub asked: Events<'scope, Keyed<Name, (u64, DeviceStep)>>,
}

/// What comes of it.
pub struct Outputs<'scope> {
    /// What is said of anchors.
    pub steps: Rel<'scope, AnchorSteps>,
    /// What became of commands.
    pub outcomes: Events<'scope, Outcome>,
}

/// Builds the relation.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let out = machine(inputs.asked, cx, DeviceSteps);
    Outputs {
        steps: collected(out.clone(), |out| match out {
            StepOut::Steps(steps, diff) => Some((steps, diff)),
            StepOut::Outcome(_) => None,
        }),
        outcomes: out.flat_map(|out| match out {
            StepOut::Outcome(outcome) => Some(outcome),
            StepOut::Steps(..) => None,
        }),
    }
}

/// Names what a step is said of.
pub fn anchor(step: &DeviceStep) -> Name {
    match &step.anchor {
        Anchor::Identifier(id) => Scope::of(&step.tenant, &step.partition).id(id).name,
        Anchor::Record(key) => name(key),
    }
}

/// What was said of an anchor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AnchorSteps {
    /// Names it.
    pub anchor: Name,
    /// What was said.
    pub steps: Steps,
}

/// What the machine of steps says.
#[derive(Clone, Debug)]
enum StepOut {
    /// What is said of an anchor, or no longer.
    Steps(AnchorSteps, isize),
    /// What became of a command.
    Outcome(Outcome),
}

/// Remembers what operators said of devices.
struct DeviceSteps;

impl Machine for DeviceSteps {
    type Key = Name;
    type Event = (u64, DeviceStep);
    type State = Steps;
    type Output = StepOut;
    const NAME: &'static str = "device_steps";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Name,
        state: &mut Option<Steps>,
        events: Vec<(u64, DeviceStep)>,
        out: &mut Vec<StepOut>,
    ) {
        let before = state.clone();
        let mut steps = before.clone().unwrap_or_default();
        for (position, step) in events {
            let taken = steps.take(&step, (tick.epoch, position), Time::from_ms(tick.clock_ms));
            let refused = taken.err().map(|refused| refused.to_string());
            out.push(StepOut::Outcome(Outcome { command_id: step.command_id, refused }));
        }
        if before.as_ref() != Some(&steps) && steps != Steps::default() {
            out.extend(before.map(|steps| StepOut::Steps(AnchorSteps { anchor: *key, steps }, -1)));
            out.push(StepOut::Steps(AnchorSteps { anchor: *key, steps: steps.clone() }, 1));
            *state = Some(steps);
        }
    }

    fn due_ms(&self, _: &Steps) -> Option<i64> {
        None
    }

    fn restored(&mut self, key: &Name, state: &Steps, out: &mut Vec<StepOut>) {
        out.push(StepOut::Steps(AnchorSteps { anchor: *key, steps: state.clone() }, 1));
    }
}
