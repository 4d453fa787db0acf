//! What operators say of identifiers, as identity reads it.
//!
//! ```text
//! must(i)      :- least identifier that must-links alone connect to i
//! end(a), (b)  :- a cannot-link between a and b, unless must-links connect them: those win
//! ```

use std::collections::BTreeMap;

use radarflow_proto::fact::{IpLink, Link, LinkKind};
use radarflow_reconcile::identity::assertions::{Id, Scope};
use radarflow_reconcile::identity::name::{Name, name};
use serde::{Deserialize, Serialize};

use super::anchors::{edge, with_musts};
use super::relations::{Rel, Value, components, distinct, each};

/// One end of a cannot-link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Token {
    /// The link.
    pub(super) link: u64,
    /// Which end.
    pub(super) second: bool,
}

impl Token {
    /// Names the end.
    pub(super) fn name(self) -> Name {
        name(&(self.link, self.second))
    }

    /// The other end.
    pub(super) fn other(self) -> Token {
        Token { second: !self.second, ..self }
    }
}

/// Whether two different holders hold the two ends of one link.
pub(super) fn both_ends(ends: impl Iterator<Item = (Name, Token)>) -> bool {
    let mut first: BTreeMap<u64, Vec<Name>> = BTreeMap::new();
    let mut second: Vec<(u64, Name)> = Vec::new();
    for (holder, token) in ends {
        if token.second {
            second.push((token.link, holder));
        } else {
            first.entry(token.link).or_default().push(holder);
        }
    }
    second.iter().any(|(link, holder)| first.get(link).is_some_and(|f| f.iter().any(|h| h != holder)))
}

/// The operators' links and policies.
#[derive(Clone)]
pub(super) struct Links<'scope> {
    /// By identifier: others that name the same device ([`Value::Edge`]).
    pub(super) must: Rel<'scope>,
    /// By identifier that is in one of those: the least that they connect it to ([`Value::Name`]).
    pub(super) least: Rel<'scope>,
    /// By identifier: ends of links that say "two devices" ([`Value::End`]).
    pub(super) ends: Rel<'scope>,
    /// By tenant: policies ([`Value::Policy`]).
    pub(super) policies: Rel<'scope>,
}

/// The ends of a link of a kind, unless they are one.
fn ends(link: &Link, kind: LinkKind) -> Option<(Id, Id)> {
    let scope = Scope::of(&link.tenant, &link.partition);
    let (a, b) = (scope.id(&link.a), scope.id(&link.b));
    (link.kind == kind && a != b).then_some((a, b))
}

/// Reads them.
pub(super) fn links<'scope>(
    links: crate::collection::Rel<'scope, Link>,
    policies: crate::collection::Rel<'scope, (String, IpLink)>,
) -> Links<'scope> {
    let must: Rel<'scope> = links.clone().flat_map(|link| ends(&link, LinkKind::Must).map(|(a, b)| edge(a, b))).into();
    let least = components(&each(&must, |a, b, out| {
        if let Value::Edge(e) = b {
            out.push((a, Value::Name(e.ends()[1])));
        }
    }));
    let cannot = links.flat_map(|link| ends(&link, LinkKind::Cannot).map(|(a, b)| edge(a.min(b), a.max(b)))).into();
    let ends = each(&distinct(&with_musts(&cannot, &least)), |_, v, out| {
        if let Value::Edge(e) = v
            && !e.must()
        {
            let [a, b] = e.ends();
            let link = name(&(a, b)).short();
            out.extend([(a, false), (b, true)].map(|(id, second)| (id, Value::End(Token { link, second }))));
        }
    });
    let policies = policies.map(|(tenant, policy)| (name(&tenant), Value::Policy(policy))).into();
    Links { must, least, ends, policies }
}
