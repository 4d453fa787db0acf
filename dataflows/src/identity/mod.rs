//! Which records are one device, who owns an address, and what a device is called: section 2 of the identity
//! definition, kept up to date by one operator.
//!
//! | file | holds |
//! |---|---|
//! | [`interface`] | what it reads, and what it gives |
//! | `reconcile::identity::stages` | the definition, unit by unit |
//! | [`engine`] | what a change makes compute again, and the stages in their order |
//! | [`machine`] | the operator: epochs, tenants, snapshots |
//! | [`gate`], [`clusters`] | the brakes: what of it is published |
//! | [`lives`] | what becomes of devices of which operators said something |
//! | [`inspect`] | reading it, for explanations |
//! | [`imagine`] | what it would be, were something else true |
//!
//! Invariants: nothing crosses a (tenant, partition), because each has an engine of its own; no device holds two values of
//! a namespace unless operators say so; every live record is in exactly one device; what is said is a function of the live
//! records, what is remembered of identifiers and the links alone, so order, batching and worker count cannot matter.
//!
//! It is no set of relations, because thirty arranged rows a record are what the definition as relations needs, and most
//! of what a record could meet is nobody else's: see ARCHITECTURE.md.

mod clusters;
pub mod engine;
mod gate;
pub mod imagine;
mod inspect;
mod interface;
mod lives;
mod machine;

use timely::dataflow::operators::vec::Map;

use crate::keyed::{Context, Restored, Tick};
use gate::GateOut;
pub use gate::RunEvent;
pub use inspect::Inspect;
pub use interface::{Address, AddressOwner, Component, How, Inputs, Outputs, Owners, Runs};
pub use lives::{Doomed, Lived, Lives, Watched};

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let (said, inspect) = machine::machine(cx, inputs);
    let gate = said.gate.inner.map(|(out, _, _)| out);
    Outputs {
        placements: said.placements,
        names: said.names,
        addresses: said.addresses,
        owners: Owners(said.owners),
        address_owners: said.address_owners,
        lives: Lives { standing: said.standing, members: said.shown },
        audit: said.audit,
        identifier_rows: said.identifiers,
        redirect_rows: said.redirects,
        ownership_rows: said.ownership,
        conditions: gate.clone().flat_map(|out| match out {
            GateOut::Held(key, condition, diff) => Some((key, condition, diff)),
            GateOut::Outcome(_) => None,
        }),
        outcomes: gate.flat_map(|out| match out {
            GateOut::Outcome(outcome) => Some(outcome),
            GateOut::Held(..) => None,
        }),
        inspect,
    }
}

/// What the gate withholds, of builds where identity was made of relations.
///
/// # Errors
/// It does not read back.
pub fn gate_of_relations(state: &mut Restored, _: &Tick) -> Result<(), String> {
    clusters::of_relations(state, machine::GATE)
}
