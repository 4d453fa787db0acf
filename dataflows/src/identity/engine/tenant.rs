//! A tenant: its sites, and the gate between what is decided and what is published. A tenant is judged in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{IpLink, Link};
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::{Name, name};
use serde::{Deserialize, Serialize};

use super::outs::Outs;
use super::rows::{Row, Said};
use super::site::{Heard, Site, Steps};
use crate::identity::gate::{Gate, RunEvent};
use crate::listings::ListingKey;
use crate::records::{FirstSeen, Live};
use crate::steps::AnchorSteps;

/// What identity hears.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    /// A version of a record is live.
    Record(Live),
    /// What is remembered of an identifier.
    Seen(FirstSeen),
    /// A record has claimed an address for long.
    Settled(Arc<Scope>, (Name, Name)),
    /// A record reports a confirmed alias.
    Alias(Arc<Scope>, (Name, (IpAddr, Time))),
    /// An operator's link.
    Link(Link),
    /// A tenant's policy.
    Policy(String, IpLink),
    /// What operators said of an anchor, for the worker named.
    Steps(usize, AnchorSteps),
    /// What is known of a run.
    Run(ListingKey, RunEvent),
}

impl Word {
    /// Whose it is.
    pub(in crate::identity) fn tenant(&self) -> Name {
        match self {
            Word::Record(live) => live.says.scope.tenant_name,
            Word::Seen(seen) => seen.id.scope.tenant_name,
            Word::Settled(scope, _) | Word::Alias(scope, _) => scope.tenant_name,
            Word::Link(link) => name(&link.tenant),
            Word::Policy(tenant, _) => name(tenant),
            Word::Run(key, _) => name(&key.tenant),
            Word::Steps(..) => Name::default(),
        }
    }
}

/// What is kept of a tenant.
pub struct Tenant {
    pub(in crate::identity) sites: BTreeMap<Name, Site>,
    policy: IpLink,
    /// The site that was checked last while nothing was heard.
    checked: Name,
    pub(in crate::identity) gate: Option<Gate>,
}

/// Where a row belongs.
fn site((_, said): &Row) -> Name {
    match said {
        Said::Rest(live) | Said::Member(live, _) => live.says.scope.name,
        Said::Held(seen) | Said::Loose(_, seen) => seen.id.scope.name,
    }
}

impl Tenant {
    /// Of whom nothing is known; with a gate, or without one.
    pub(in crate::identity) fn new(gate: Option<Gate>) -> Self {
        Tenant { sites: BTreeMap::new(), policy: IpLink::default(), checked: Name::default(), gate }
    }

    /// What operators said of an anchor changed; tells whether that is known here, or was.
    pub(in crate::identity) fn said(&mut self, anchor: Name) -> bool {
        self.sites.values_mut().fold(false, |known, site| known | site.said(anchor))
    }

    /// How many records and keys its sites have.
    pub(in crate::identity) fn sizes(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.sites.values().map(|site| site.deciding.sizes())
    }

    /// The next site to check.
    fn next_site(&mut self) -> Option<Name> {
        let after = (Bound::Excluded(self.checked), Bound::Unbounded);
        let next = self.sites.range(after).next().or_else(|| self.sites.first_key_value()).map(|(site, _)| *site);
        self.checked = next.unwrap_or_default();
        next
    }

    /// Takes in the words of an epoch, and says what follows. What was said before a restart is said `again`: it is not
    /// judged anew.
    pub(in crate::identity) fn step(
        &mut self,
        words: Vec<(Word, isize)>,
        steps: &Steps,
        again: bool,
        check: bool,
        out: &mut Outs,
    ) {
        let mut heard: BTreeMap<Name, Heard> = BTreeMap::new();
        let mut runs: Vec<(ListingKey, RunEvent)> = Vec::new();
        let mut policy = None;
        let sites = &mut self.sites;
        let tenants = self.policy;
        let mut of = |scope: &Arc<Scope>| {
            sites.entry(scope.name).or_insert_with(|| Site::new(scope));
            scope.name
        };
        for (word, diff) in words {
            match word {
                Word::Record(live) => {
                    let site = of(&live.says.scope);
                    heard.entry(site).or_default().changes.records.push((live, diff));
                }
                Word::Seen(seen) => {
                    let site = of(&seen.id.scope);
                    heard.entry(site).or_default().changes.seen.push((seen, diff));
                }
                Word::Settled(scope, settled) => {
                    heard.entry(of(&scope)).or_default().changes.settled.push((settled, diff));
                }
                Word::Alias(scope, alias) => heard.entry(of(&scope)).or_default().aliases.push((alias, diff)),
                Word::Link(link) => {
                    let site = of(&Scope::of(&link.tenant, &link.partition));
                    heard.entry(site).or_default().changes.links.push((link, diff));
                }
                Word::Policy(_, said) if diff > 0 => policy = Some(said),
                Word::Policy(..) => policy = policy.or(Some(IpLink::default())),
                Word::Run(key, event) => runs.push((key, event)),
                Word::Steps(..) => {}
            }
        }
        self.policy = policy.unwrap_or(tenants);
        if policy.is_some() {
            for site in self.sites.keys() {
                heard.entry(*site).or_default();
            }
        }
        if check && heard.is_empty() {
            heard.extend(self.next_site().map(|site| (site, Heard::default())));
        }
        let mut aliases = BTreeMap::new();
        let mut rows: Vec<(Row, isize)> = Vec::new();
        for (name, Heard { mut changes, aliases: reported }) in heard {
            let Some(site) = self.sites.get_mut(&name) else { continue };
            changes.policy = Some(self.policy);
            site.decide(changes, steps, &mut rows);
            if check {
                out.faults += site.check(steps, &mut rows);
            }
            aliases.insert(name, reported);
        }
        let (mut withheld, mut said) = (Vec::new(), Vec::new());
        let rows = match &mut self.gate {
            None => rows,
            Some(gate) if again => gate.again(rows, &mut withheld, &mut said),
            Some(gate) => gate.step(rows, runs, &mut withheld, &mut said),
        };
        out.gate.extend(said.into_iter().map(|said| (said, 1)));
        for (row, diff) in &withheld {
            if let Some(site) = self.sites.get_mut(&site(row)) {
                site.withhold(row, *diff);
            }
        }
        let mut published: BTreeMap<Name, Vec<(Row, isize)>> = BTreeMap::new();
        match self.sites.len() {
            1 if rows.is_empty() => {}
            1 => published.extend(self.sites.keys().next().map(|only| (*only, rows))),
            _ => rows.into_iter().for_each(|row| published.entry(site(&row.0)).or_default().push(row)),
        }
        let led = self.sites.iter().filter(|(_, site)| site.leads()).map(|(name, _)| *name);
        let names: BTreeSet<Name> = published.keys().chain(aliases.keys()).copied().chain(led).collect();
        for name in names {
            let Some(site) = self.sites.get_mut(&name) else { continue };
            let rows = published.remove(&name).unwrap_or_default();
            site.publish(rows, aliases.remove(&name).unwrap_or_default(), steps, check, out);
        }
        // What left one site for another has moved.
        let (left, came) = (std::mem::take(&mut out.left), std::mem::take(&mut out.came));
        let left: BTreeMap<Name, _> = left.into_iter().map(|called| (called.0.key, called)).collect();
        if !left.is_empty() {
            for is in came {
                if let Some(was) = left.get(&is.0.key) {
                    out.audit.extend([(was.clone(), -1), (is, 1)]);
                }
            }
        }
    }
}
