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

use radarflow_proto::fact::RunDecision;
use radarflow_proto::ports::Outcome;
use radarflow_reconcile::alert::Condition;
use radarflow_reconcile::brakes::Brakes;
use serde::{Deserialize, Serialize};

use super::clusters::{Does, Tenant, consolidate};
use super::engine::Row;
use crate::alerts::AlertKey;
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

/// What comes of it.
#[derive(Clone, Debug)]
pub(super) enum GateOut {
    /// A run is held, or no longer.
    Held(AlertKey, Condition, isize),
    /// What became of a command.
    Outcome(Outcome),
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

/// Judges what runs do to a tenant's devices.
#[derive(Default)]
pub(super) struct Gate {
    tenant: Tenant,
    /// Changed since the last snapshot.
    dirty: bool,
}

impl Gate {
    /// As it was left.
    pub(super) fn of(tenant: Tenant) -> Self {
        Gate { tenant, dirty: false }
    }

    /// What is kept of it, if that changed since it was asked for last.
    pub(super) fn changed(&mut self) -> Option<&Tenant> {
        std::mem::take(&mut self.dirty).then_some(&self.tenant)
    }

    /// How many changes of rows are withheld.
    pub(super) fn changes_withheld(&self) -> i64 {
        self.tenant.changes_withheld()
    }

    /// Takes in what changed at an epoch; gives what is published of it. What is withheld, or no longer, goes to
    /// `withheld`.
    pub(super) fn step(
        &mut self,
        rows: Vec<(Row, isize)>,
        mut runs: Vec<(ListingKey, RunEvent)>,
        withheld: &mut Vec<(Row, isize)>,
        said: &mut Vec<GateOut>,
    ) -> Vec<(Row, isize)> {
        if rows.is_empty() && runs.is_empty() {
            return rows;
        }
        self.dirty = true;
        let tenant = &mut self.tenant;
        let before = tenant.held();
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
        let mut published = tenant.take(rows, withheld);
        for (key, event) in ends {
            match event {
                RunEvent::Complete(by) => tenant.listed(by),
                RunEvent::Decide(decision, listing) => {
                    let begin = withheld.len();
                    let decided = tenant.decide(&key, &decision, withheld);
                    published.extend(withheld[begin..].iter().map(|(row, n)| (row.clone(), -n)));
                    let refused = match decided {
                        Err(mut others) => listing.err().map(|listing| {
                            others.extend(listing);
                            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
                            format!("run {} is not held; held: {others}", decision.run)
                        }),
                        Ok(()) => None,
                    };
                    said.push(GateOut::Outcome(Outcome { command_id: decision.command_id, refused }));
                }
                RunEvent::Began { .. } | RunEvent::Brakes(_) => {}
            }
        }
        if !withheld.is_empty() {
            consolidate(&mut published);
        }
        let after = tenant.held();
        let told = |(key, run, does): &(ListingKey, String, Does), diff| {
            let (key, condition) = condition(key, run, *does);
            GateOut::Held(key, condition, diff)
        };
        said.extend(before.iter().filter(|(by, was)| after.get(by) != Some(was)).map(|(_, was)| told(was, -1)));
        said.extend(after.iter().filter(|(by, is)| before.get(by) != Some(is)).map(|(_, is)| told(is, 1)));
        published
    }

    /// Takes in what is said again after a restart: it has been judged, and nothing is asked.
    pub(super) fn again(
        &mut self,
        mut rows: Vec<(Row, isize)>,
        withheld: &mut Vec<(Row, isize)>,
        said: &mut Vec<GateOut>,
    ) -> Vec<(Row, isize)> {
        self.tenant.publish(rows.iter().map(|(row, diff)| (row, *diff)));
        withheld.extend(self.tenant.withheld().map(|(row, diff)| (row.clone(), diff)));
        if !withheld.is_empty() {
            rows.extend(withheld.iter().map(|(row, diff)| (row.clone(), -diff)));
            consolidate(&mut rows);
        }
        for (key, run, does) in self.tenant.held().into_values() {
            let (key, condition) = condition(&key, &run, does);
            said.push(GateOut::Held(key, condition, 1));
        }
        rows
    }
}
