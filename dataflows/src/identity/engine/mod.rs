//! The engine of a site: what is decided and said of a (tenant, partition), kept up to date by computing again exactly the
//! units of the definition whose reads changed.
//!
//! ```text
//! facts (Δ) ─► [deciding: stages 1, 1b, 2] ─► rows (Δ) ─► [gate] ─► rows (Δ) ─► [publishing: stages 3, 4] ─► Outs (Δ)
//! ```
//! The units are pure functions in `reconcile::identity::stages`; here are indexes (who asserts a key, what a record
//! asserts), the last value of every unit, and the marks that say which to compute again. An epoch takes in the net change
//! of facts, marks the units that read something of it, and computes stage by stage what is marked; a value that differs
//! from the last one marks the units of later stages that read it.
//!
//! # Who marks whom
//!
//! | unit | reads | is marked when |
//! |---|---|---|
//! | `ambiguous(i)` | records that assert i, their identifiers; musts of these | such a record came, went, or asserts other identifiers; a must-link of i or of a neighbour came or went |
//! | component | its edges; ambiguity of its identifiers; musts; cannot-links | it had or has a marked identifier; a cannot-link at one of its identifiers came or went |
//! | `crowded(k)` | components of the records that claim k | such a record came, went or changed; the members of its component did |
//! | `chosen(c)` | records of c, what else is claimed where they claim something: by whom, with what names and MACs, for how long; whether these keys are crowded; policy | c changed; a claim changed at an address or MAC that c claims, unless that was and is crowded; a MAC on which evidence hung became crowded or not; the policy changed |
//! | group of components | what its members choose; their namespaces; ends of cannot-links | it had or has a marked member |
//! | `linked(i)`, `barred(i)` | components of identifiers in links, their devices, whether they have records | a link came or went; the component of an identifier in one changed or moved |
//! | `mac_state(m)` | records that assert m, the devices of theirs; links at m | one of them changed or moved; what a link says of m changed |
//! | group of MACs | free MACs of its records, their owners; who claims their polled addresses; links | a MAC became free or is it no longer; a record of it came, changed or went; claims at a polled address changed or moved; what a link says changed |
//! | place of a record, standing of an identifier | the above | the above |
//! | `best(d)` | identifiers that d holds, first-seen of these | one came, went or was seen at another time |
//! | `first(a)` | records that claim a, with their devices; aliases; links; names where claims are equal | one of them came, went, changed or moved; a device of theirs is called otherwise |
//! | `last(a)` | `first(a)`; aliases of records known by an address alone, and the first owner of that address | `first(a)` changed; such an alias came or went; the first owner of the address it is polled at was decided again |
//!
//! # Why this is the same as from scratch
//!
//! After an epoch every stored value is that of its function on the present facts. *Units* whose reads did not change have
//! not changed; those whose reads changed are marked, as the table says read by read; so after a stage all its values are
//! right, given those before. *Components* are fixed points; [`rings`] says why computing anew what the marked ones were and
//! are connected to is enough. *Crowded* keys do not conduct: that bounds how far a change reaches. Taking something back is
//! no special case, because nothing counts: all is computed from what is there.
//!
//! Labels are least names, never least numbers, so nothing depends on the order in which keys were met. The property is
//! tested (`tests/it/engine.rs`): after any epochs the engine says what a fresh one says of the same facts.

mod anchors;
mod cross;
mod decide;
mod facts;
mod links;
mod macs;
mod outs;
mod publish;
mod published;
mod rings;
mod rows;
mod sets;
mod site;
mod spots;
mod tenant;

pub use decide::{Changes, Deciding};
pub use outs::{Called, Outs};
pub use publish::{Published, Publishing};
pub use rows::{LinkSaid, Row, Said, Unresolved};
pub use site::{Site, Steps};
pub use tenant::{Tenant, Word};
