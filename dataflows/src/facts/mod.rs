//! Facts: what people and configuration state, decoded in one place and handed out by kind.
//!
//! ```text
//! frame ─► [FrameFacts: each fact decoded once, for all workers] ─┬─► what happens once ─► decode ─► whom it concerns
//!                                                                 ├─► what is no fact   ─► decode ─► rejects
//!                                                                 └─► what stands       ─► [standing facts]
//! [standing facts: the newest of each subject] ─► a collection or stream a kind
//! ```
//! Nobody else reads the JSON of a fact.

mod frame;
mod rows;
mod standing;

use std::sync::Arc;

use radarflow_proto::enrich::Rule;
use radarflow_proto::fact::{Fact, IpLink, Link, OwnCondition};
use radarflow_proto::rows::StateRow;
use radarflow_reconcile::brakes::Brakes;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, machine};
pub use frame::{FrameFact, FrameFacts};
pub(crate) use standing::COLLECTION;
use standing::StandingFacts;
pub use standing::{StandingFact, standing_facts};

/// What standing facts are made of.
pub struct Inputs<'scope> {
    /// Facts that stand from now on, by subject.
    pub stated: Events<'scope, Keyed<String, StandingFact>>,
}

/// The facts that stand, by kind.
pub struct Outputs<'scope> {
    /// Operators' links.
    pub links: Rel<'scope, Link>,
    /// By tenant: how far an address alone links devices.
    pub ip_links: Rel<'scope, (String, IpLink)>,
    /// By tenant: how far a run may go, whenever that is stated.
    pub brakes: Events<'scope, (String, Brakes)>,
    /// The rules that tell what devices are, whenever they are stated: all of them.
    pub rules: Rel<'scope, Arc<[Rule]>>,
    /// What is wrong with the program itself: conditions that begin and cease to hold.
    pub conditions: Events<'scope, (OwnCondition, isize)>,
    /// Rows of the tables of links and imported names.
    pub rows: Rel<'scope, StateRow>,
    /// Every fact that begins to stand, for those who keep facts outside of the dataflow.
    pub all: Events<'scope, Arc<Fact>>,
}

/// Builds the collections.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let standing = machine(inputs.stated, cx, StandingFacts);
    let of_kind = || standing.clone();
    Outputs {
        links: collected(of_kind(), |(fact, diff)| match &*fact {
            Fact::Link(link) => Some((link.clone(), diff)),
            _ => None,
        }),
        ip_links: collected(of_kind(), |(fact, diff)| match &*fact {
            Fact::IpLink { tenant, policy, .. } => Some(((tenant.clone(), *policy), diff)),
            _ => None,
        }),
        brakes: of_kind().flat_map(|(fact, diff)| match &*fact {
            Fact::Brakes { tenant, max_merges, max_component, .. } if diff > 0 => {
                let brakes = Brakes { max_merges: *max_merges, max_component: *max_component };
                Some((tenant.clone(), brakes))
            }
            _ => None,
        }),
        rules: collected(of_kind(), |(fact, diff)| match &*fact {
            Fact::EnrichmentRules { rules } => Some((rules.as_slice().into(), diff)),
            _ => None,
        }),
        conditions: of_kind().flat_map(|(fact, diff)| match &*fact {
            Fact::Condition(condition) if condition.holds => Some((condition.clone(), diff)),
            _ => None,
        }),
        rows: collected(of_kind(), |(fact, diff)| Some((rows::row(&fact)?, diff))),
        all: standing.flat_map(|(fact, diff)| (diff > 0).then_some(fact)),
    }
}
