//! The gate between identity and everything that uses it: what one run should not do unasked is withheld.
//!
//! ```text
//! published(x) :- identity(x) − withheld(x)
//! withheld     :- rows that a *cluster* changes: names that rows which changed together have in common, as long as it
//!                 merges, builds or adds more than the run that changed it may (`reconcile::brakes`)
//! ```
//! So what a held run touches stays as it was last published, whatever else is said of it, and everything behind the
//! gate is a function of one consistent set of rows. A cluster goes through when an operator releases its run, or when
//! it would no longer do what it was withheld for. What the run had done before it went too far stays done.
//!
//! Only changes pass here: what it costs does not depend on how much there is. A tenant is judged in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use radarflow_proto::fact::RunDecision;
use radarflow_proto::ports::Outcome;
use radarflow_reconcile::alert::Condition;
use radarflow_reconcile::brakes::Brakes;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use super::clusters::{Does, Row, Tenant};
use super::relations::{Rel, Value, each};
use crate::alerts::AlertKey;
use crate::collection::{Events, changes, collected};
use crate::keyed::{Context, Keyed, Machine, Tick, machine};
use crate::listings::{ListingKey, held_run};
use crate::records::RunName;

/// What the gate is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RunEvent {
    /// A run says its first.
    Began {
        /// Names it.
        by: RunName,
        /// As its source calls it.
        run: String,
        /// It lists the items of its source.
        lists: bool,
        /// Somebody has looked at what it does and said yes.
        approved: bool,
    },
    /// A run has listed everything.
    Complete(RunName),
    /// An operator decides about a run. If the brake on listings does not hold it: the one that that holds.
    Decide(RunDecision, Result<(), Option<String>>),
    /// How far runs may go.
    Brakes(Brakes),
}

impl RunEvent {
    fn order(&self) -> (u8, RunName, &str) {
        match self {
            RunEvent::Brakes(_) => (0, RunName::default(), ""),
            RunEvent::Began { by, run, .. } => (1, *by, run),
            RunEvent::Complete(by) => (2, *by, ""),
            RunEvent::Decide(decision, _) => (3, RunName::default(), &decision.command_id),
        }
    }
}

/// What comes to the gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Arriving {
    Row(Row, isize),
    Run(ListingKey, RunEvent),
}

/// What comes of it.
#[derive(Clone, Debug)]
pub(super) enum GateOut {
    /// A run is held, or no longer.
    Held(AlertKey, Condition, isize),
    /// What became of a command.
    Outcome(Outcome),
}

#[derive(Clone)]
enum Out {
    /// A row is withheld, or no longer.
    Withheld(Row, isize),
    Tells(GateOut),
}

/// What the gate gives.
pub(super) struct Gated<'scope> {
    all: Rel<'scope>,
    /// By identifier: the device that it stays with ([`Value::Name`]), less the one that it would go to.
    pub(super) kept: Rel<'scope>,
    /// Conditions and outcomes.
    pub(super) said: Events<'scope, GateOut>,
}

/// Builds the gate for rows of records in devices ([`Value::Member`]), records in none ([`Value::Live`]), identifiers that
/// devices hold ([`Value::Seen`]) and identifiers that name nobody ([`Value::Loose`]).
pub(super) fn gate<'scope>(
    rows: &Rel<'scope>,
    runs: Events<'scope, (ListingKey, RunEvent)>,
    cx: &Context,
) -> Gated<'scope> {
    let rows =
        changes(rows.flow(), |row, diff| Keyed { key: tenant(&row.1), position: 0, event: Arriving::Row(row, diff) });
    let runs = runs.map(|(key, event)| Keyed {
        key: Scope::of(&key.tenant, "").tenant_name,
        position: 0,
        event: Arriving::Run(key, event),
    });
    let out = machine(rows.concat(runs), cx, Gate { withheld: cx.sizes().withheld().clone() });
    let all = collected(out.clone(), |out| match out {
        Out::Withheld(row, diff) => Some((row, diff)),
        Out::Tells(_) => None,
    });
    let all: Rel<'scope> = all.into();
    let said = out.flat_map(|out| match out {
        Out::Tells(said) => Some(said),
        Out::Withheld(..) => None,
    });
    Gated { kept: only(&all, |value| matches!(value, Value::Name(_))), all, said }
}

fn only<'scope>(rows: &Rel<'scope>, which: fn(&Value) -> bool) -> Rel<'scope> {
    each(rows, move |name, value, out| {
        if which(&value) {
            out.push((name, value));
        }
    })
}

impl<'scope> Gated<'scope> {
    /// What is withheld of rows of a kind.
    pub(super) fn withheld(&self, which: fn(&Value) -> bool) -> Rel<'scope> {
        only(&self.all, which)
    }
}

/// Whose row it is.
fn tenant(value: &Value) -> Name {
    match value {
        Value::Member(live, _) | Value::Live(live) => live.says.scope.tenant_name,
        Value::Seen(seen) | Value::Loose(_, seen) => seen.id.scope.tenant_name,
        _ => unreachable!("no other rows come to the gate"),
    }
}

/// Withholds changes of a row; what an identifier would leave, it stays with.
fn withheld(row: &Row, diff: isize, out: &mut Vec<Out>) {
    out.push(Out::Withheld(row.clone(), diff));
    if let (device, Value::Seen(seen)) = row {
        out.push(Out::Withheld((seen.name, Value::Name(*device)), -diff));
    }
}

fn condition(key: &ListingKey, run: &str, does: Does) -> (AlertKey, Condition) {
    let source = key.source();
    let counted = |n: usize, text: String| (n > 0).then_some(text);
    let acts: Vec<String> = [
        counted(does.merges, format!("merge {} devices", does.merges)),
        counted(does.records, format!("make one of {} records", does.records)),
        counted(does.added, format!("add {} records", does.added)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let title = format!("run {run} of {source} would {} and is held", acts.join(" and "));
    let description = format!(
        "the devices that it touches stay as they are until somebody releases run {run}, or what it says is corrected"
    );
    held_run(key, "run-held", format!("{source}/{run}"), run, title, description)
}

/// Judges what runs do.
struct Gate {
    /// Tells how many changes are withheld.
    withheld: Arc<AtomicI64>,
}

impl Machine for Gate {
    type Key = Name;
    type Event = Arriving;
    type State = Tenant;
    type Output = Out;
    const NAME: &'static str = "gate";

    fn step(&mut self, _: &Tick, _: &Name, state: &mut Option<Tenant>, events: Vec<Arriving>, out: &mut Vec<Out>) {
        let tenant = state.get_or_insert_default();
        let (before, withheld_before) = (tenant.held(), tenant.changes_withheld());
        let (mut rows, mut runs) = (Vec::new(), Vec::new());
        for arriving in events {
            match arriving {
                Arriving::Row(row, diff) => rows.push((row, diff)),
                Arriving::Run(key, event) => runs.push((key, event)),
            }
        }
        // They come from all workers, in any order.
        runs.sort_by(|a, b| a.1.order().cmp(&b.1.order()));
        runs.dedup_by(|b, a| matches!(a.1, RunEvent::Began { .. }) && a.1.order() == b.1.order());
        let mut ends = Vec::new();
        for (key, event) in runs {
            match event {
                RunEvent::Began { by, run, lists, approved } => tenant.began(key, by, run, lists, approved),
                RunEvent::Brakes(brakes) => tenant.brake(brakes),
                RunEvent::Complete(_) | RunEvent::Decide(..) => ends.push((key, event)),
            }
        }
        let mut changes = Vec::new();
        tenant.take(rows, &mut changes);
        for (key, event) in ends {
            match event {
                RunEvent::Complete(by) => tenant.listed(by),
                RunEvent::Decide(decision, listing) => {
                    let refused = match tenant.decide(&key, &decision, &mut changes) {
                        Err(mut others) => listing.err().map(|listing| {
                            others.extend(listing);
                            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
                            format!("run {} is not held; held: {others}", decision.run)
                        }),
                        Ok(()) => None,
                    };
                    out.push(Out::Tells(GateOut::Outcome(Outcome { command_id: decision.command_id, refused })));
                }
                RunEvent::Began { .. } | RunEvent::Brakes(_) => {}
            }
        }
        changes.iter().for_each(|(row, diff)| withheld(row, *diff, out));
        self.withheld.fetch_add(tenant.changes_withheld() - withheld_before, Ordering::Relaxed);
        let after = tenant.held();
        let told = |(key, run, does): &(ListingKey, String, Does), diff| {
            let (key, condition) = condition(key, run, *does);
            Out::Tells(GateOut::Held(key, condition, diff))
        };
        out.extend(before.iter().filter(|(by, was)| after.get(by) != Some(was)).map(|(_, was)| told(was, -1)));
        out.extend(after.iter().filter(|(by, is)| before.get(by) != Some(is)).map(|(_, is)| told(is, 1)));
    }

    fn due_ms(&self, _: &Tenant) -> Option<i64> {
        None
    }

    fn restored(&mut self, _: &Name, state: &Tenant, out: &mut Vec<Out>) {
        self.withheld.fetch_add(state.changes_withheld(), Ordering::Relaxed);
        state.withheld().for_each(|(row, diff)| withheld(row, diff, out));
        for (key, run, does) in state.held().into_values() {
            let (key, condition) = condition(&key, &run, does);
            out.push(Out::Tells(GateOut::Held(key, condition, 1)));
        }
    }

    fn again(&mut self, _: &Name, state: &mut Option<Tenant>, arriving: Arriving) {
        if let Arriving::Row(row, diff) = arriving {
            state.get_or_insert_default().publish(std::iter::once((&row, diff)));
        }
    }
}
