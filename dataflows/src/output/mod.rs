//! What the dataflow says, epoch by epoch: gathered on each worker, merged beyond them.
//!
//! ```text
//! rows of state (Δ) ─► [net change a key] ─┐
//! batches, events, outcomes, … ────────────┴► [a worker's epoch] ─► channel ─► Merge: one EpochOutput
//! ```

mod derived;
mod merge;
mod net;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use arrow_array::RecordBatch;
use radarflow_proto::fact::Fact;
use radarflow_proto::payload::DueNotification;
use radarflow_proto::ports::{AgentCommand, AgentConfiguration, Outcome};
use radarflow_proto::record::RecordKey;
use radarflow_proto::resource::{Judgement, ResourceChange};
use radarflow_proto::rows::{Change, StateRow, Table};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Concatenate};

use crate::collection::{Events, Rel};
use crate::keyed::{Context, StateEntry, Tick};
pub use derived::{DerivedRow, batches_of};
pub use merge::{Merge, Merged};

/// All that is said.
pub struct Inputs<'scope> {
    /// Rows of state tables.
    pub rows: Vec<Rel<'scope, StateRow>>,
    /// Rows of event tables that inputs made, by table and tenant.
    pub batches: Events<'scope, (Table, String, RecordBatch)>,
    /// Rows of event tables that the dataflow makes.
    pub events: Vec<Events<'scope, DerivedRow>>,
    /// What became of commands.
    pub outcomes: Vec<Events<'scope, Outcome>>,
    /// Notifications that should be sent.
    pub due: Events<'scope, DueNotification>,
    /// Notifications that are settled.
    pub settled: Events<'scope, String>,
    /// Facts that begin to stand.
    pub facts: Events<'scope, Arc<Fact>>,
    /// What became of resources.
    pub resources: Events<'scope, ResourceChange>,
    /// What became of commands about them.
    pub judgements: Events<'scope, Judgement>,
    /// Configurations of agents that are others now.
    pub configurations: Events<'scope, AgentConfiguration>,
    /// What became of commands to agents.
    pub commands: Events<'scope, AgentCommand>,
    /// Records to go, and the site of each.
    pub reaped: Events<'scope, (RecordKey, String)>,
}

/// One thing a worker says at an epoch.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Output {
    Change(Change),
    Rows(Table, String, RecordBatch),
    Derived(DerivedRow),
    Due(Box<DueNotification>),
    Settled(String),
    Fact(Arc<Fact>),
    Outcome(Outcome),
    Resource(ResourceChange),
    Judgement(Judgement),
    Configuration(AgentConfiguration),
    Command(AgentCommand),
    Reaped(RecordKey, String),
}

/// Everything one worker says about one epoch.
#[derive(Debug)]
pub struct WorkerEpoch {
    /// Which worker.
    pub worker: usize,
    /// The epoch and its clock.
    pub tick: Tick,
    /// What it says.
    pub outputs: Vec<Output>,
    /// State for the snapshot after this epoch; `None` where none was asked for.
    pub snapshot: Option<Vec<StateEntry>>,
}

/// Sends all that is said. The stream it returns carries nothing; its frontier tells which epochs were sent.
pub fn build<'scope>(
    scope: Scope<'scope, u64>,
    cx: &Context,
    inputs: Inputs<'scope>,
    to: SyncSender<WorkerEpoch>,
) -> Events<'scope, ()> {
    let rows = scope.concatenate(inputs.rows.into_iter().map(|rows| rows.inner));
    let outputs = net::net(rows, cx)
        .map(Output::Change)
        .concat(inputs.batches.map(|(table, tenant, batch)| Output::Rows(table, tenant, batch)))
        .concat(scope.concatenate(inputs.events).map(Output::Derived))
        .concat(scope.concatenate(inputs.outcomes).map(Output::Outcome))
        .concat(inputs.due.map(|due| Output::Due(Box::new(due))))
        .concat(inputs.settled.map(Output::Settled))
        .concat(inputs.facts.map(Output::Fact))
        .concat(inputs.resources.map(Output::Resource))
        .concat(inputs.judgements.map(Output::Judgement))
        .concat(inputs.configurations.map(Output::Configuration))
        .concat(inputs.commands.map(Output::Command))
        .concat(inputs.reaped.map(|(record, partition)| Output::Reaped(record, partition)));
    send(outputs, cx, to)
}

/// Sends what a worker says, epoch by epoch, as each completes. The stream it returns carries nothing; its frontier
/// tells which epochs were sent.
fn send<'scope>(outputs: Events<'scope, Output>, cx: &Context, to: SyncSender<WorkerEpoch>) -> Events<'scope, ()> {
    let cx = cx.clone();
    outputs.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "Output", move |capability, _| {
        let mut capability = Some(capability);
        let mut stash: BTreeMap<u64, Vec<Output>> = BTreeMap::new();
        let mut next = cx.restored;
        move |(input, frontier), _output| {
            input.for_each(|time, data| {
                let epoch = *time.least().expect("output is stamped with an epoch");
                stash.entry(epoch).or_default().append(data);
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            while next < upper {
                // What was restored is said at the snapshot's epoch, whose frame is not read again.
                let tick = cx.tick(next).unwrap_or(Tick { epoch: next, clock_ms: 0, live_ms: 0 });
                let snapshot = cx.wants_snapshot(next).then(|| cx.saved(next));
                let outputs = stash.remove(&next).unwrap_or_default();
                // The receiver is gone only when the process is ending.
                let _ = to.send(WorkerEpoch { worker: cx.index, tick, outputs, snapshot });
                next += 1;
            }
            if let Some(held) = capability.as_mut() {
                held.downgrade(&upper);
            }
        }
    })
}
