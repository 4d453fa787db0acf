//! A site: both halves of identity, and which device the steps that operators took belong to.
//!
//! ```text
//! rows of the first two stages ─► [gate of the tenant] ─► published rows ─► stages 3 and 4
//! lead(i)     :- the device that holds i, or would; where the gate keeps i elsewhere: that one
//! standing(d) :- what was said of an anchor that leads to d
//! ```
//! What was said of an address holds as long as nothing else names the device: once somebody better claims the address,
//! the device that owns it was never meant.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;

use super::decide::{Changes, Deciding};
use super::outs::Outs;
use super::publish::{Published, Publishing};
use super::rows::{Row, Said};
use crate::identity::How;
use crate::records::Live;
use crate::steps::AnchorSteps;

/// What is heard of a site at one epoch.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) changes: Changes,
    pub(super) aliases: Vec<((Name, (IpAddr, Time)), isize)>,
}

/// All that operators said, by anchor.
pub type Steps = BTreeMap<Name, AnchorSteps>;

/// A (tenant, partition).
pub struct Site {
    pub(super) deciding: Deciding,
    pub(super) publishing: Publishing,
    /// By anchor: what was said of it, and the devices it is of.
    stands: BTreeMap<Name, (AnchorSteps, BTreeSet<Name>)>,
    /// By device: anchors that lead to it.
    standing: BTreeMap<Name, BTreeSet<Name>>,
    /// By device of which something was said: its records.
    shown: BTreeMap<Name, BTreeMap<Name, Live>>,
    /// By identifier that the gate keeps where it is: that device, less the one it would go to.
    kept: BTreeMap<Name, BTreeMap<Name, isize>>,
    /// Anchors whose device may have changed at this epoch.
    led: BTreeSet<Name>,
}

impl Site {
    pub(super) fn new(scope: &Arc<Scope>) -> Self {
        Site {
            deciding: Deciding::new(scope.name),
            publishing: Publishing::new(scope.clone()),
            stands: BTreeMap::new(),
            standing: BTreeMap::new(),
            shown: BTreeMap::new(),
            kept: BTreeMap::new(),
            led: BTreeSet::new(),
        }
    }

    /// Takes in what is heard; adds rows of the first two stages.
    pub(super) fn decide(&mut self, changes: Changes, steps: &Steps, rows: &mut Vec<(Row, isize)>) {
        if !steps.is_empty() {
            for (live, _) in &changes.records {
                let names = live.says.ips.iter().map(|ip| ip.name).chain([live.key]);
                self.led.extend(names.filter(|name| steps.contains_key(name)));
            }
        }
        self.deciding.step(changes, rows);
        self.lead(steps);
    }

    /// Checks a sample of what is decided; tells how many rows were wrong.
    pub(super) fn check(&mut self, steps: &Steps, rows: &mut Vec<(Row, isize)>) -> usize {
        let wrong = self.deciding.check(rows);
        self.lead(steps);
        wrong
    }

    /// Marks anchors whose device may have changed.
    fn lead(&mut self, steps: &Steps) {
        if !steps.is_empty() {
            self.led.extend(self.deciding.named().filter(|name| steps.contains_key(name)));
        }
    }

    /// Notes that a row is withheld, or no longer.
    pub(super) fn withhold(&mut self, (device, said): &Row, diff: isize) {
        let Said::Held(seen) = said else { return };
        let kept = self.kept.entry(seen.name).or_default();
        let count = kept.entry(*device).or_default();
        *count -= diff;
        if *count == 0 {
            kept.remove(device);
        }
        if kept.is_empty() {
            self.kept.remove(&seen.name);
        }
        self.led.insert(seen.name);
    }

    /// Publishes rows, and says what follows.
    pub(super) fn publish(
        &mut self,
        rows: Vec<(Row, isize)>,
        aliases: Vec<((Name, (IpAddr, Time)), isize)>,
        steps: &Steps,
        check: bool,
        out: &mut Outs,
    ) {
        let begin = out.placements.len();
        let links = self.deciding.any_links().then(|| self.deciding.link_said());
        self.publishing.step(Published { rows, aliases, links }, out);
        if check {
            out.faults += self.publishing.check(out);
        }
        let mut devices: BTreeSet<Name> = BTreeSet::new();
        for anchor in std::mem::take(&mut self.led) {
            self.stand(anchor, steps, &mut devices, out);
        }
        if !self.standing.is_empty() {
            let changed = out.placements[begin..].iter().map(|((device, _), _)| *device);
            devices.extend(changed.filter(|device| self.standing.contains_key(device)));
        }
        for device in devices {
            self.show(device, out);
        }
    }

    /// What operators said of an anchor changed; tells whether that is known here, or was.
    pub(super) fn said(&mut self, anchor: Name) -> bool {
        let known = self.knows(anchor) || self.stands.contains_key(&anchor);
        if known {
            self.led.insert(anchor);
        }
        known
    }

    /// Whether anything is left to say of steps.
    pub(super) fn leads(&self) -> bool {
        !self.led.is_empty()
    }

    /// Leads what was said of an anchor to its devices.
    fn stand(&mut self, anchor: Name, steps: &Steps, devices: &mut BTreeSet<Name>, out: &mut Outs) {
        let is = steps.get(&anchor).filter(|_| self.knows(anchor)).map(|said| {
            let mut of: BTreeMap<Name, isize> = BTreeMap::from([(self.deciding.lead(anchor), 1)]);
            for (device, n) in self.kept.get(&anchor).into_iter().flatten() {
                *of.entry(*device).or_default() += n;
            }
            let of: BTreeSet<Name> = of.into_iter().filter(|(_, n)| *n > 0).map(|(device, _)| device).collect();
            (said.clone(), of)
        });
        let was = self.stands.remove(&anchor);
        if was != is {
            if let Some((said, of)) = &was {
                for device in of {
                    out.standing.push(((*device, said.clone()), -1));
                    let anchors = self.standing.entry(*device).or_default();
                    anchors.remove(&anchor);
                    if anchors.is_empty() {
                        self.standing.remove(device);
                    }
                    devices.insert(*device);
                }
            }
            if let Some((said, of)) = &is {
                for device in of {
                    out.standing.push(((*device, said.clone()), 1));
                    self.standing.entry(*device).or_default().insert(anchor);
                    devices.insert(*device);
                }
            }
        }
        self.stands.extend(is.map(|is| (anchor, is)));
    }

    /// Every record with what its device is called, and why it is there.
    pub(in crate::identity) fn placed(&self) -> impl Iterator<Item = (&Live, How, &Arc<str>)> {
        self.publishing.placed()
    }

    /// Addresses that a record has claimed for long.
    pub(in crate::identity) fn settled(&self, record: Name) -> Vec<Name> {
        self.deciding.settled(record)
    }

    /// Confirmed aliases that a record reports.
    pub(in crate::identity) fn aliases(&self, record: Name) -> impl Iterator<Item = (IpAddr, Time)> + '_ {
        self.publishing.aliases_of(record)
    }

    fn knows(&self, anchor: Name) -> bool {
        self.deciding.knows(anchor) || self.publishing.rec(anchor).is_some()
    }

    /// Says which records a device has of which operators said something.
    fn show(&mut self, device: Name, out: &mut Outs) {
        let is: BTreeMap<Name, Live> = match self.standing.contains_key(&device) {
            true => self.publishing.members(device).into_iter().map(|live| (live.key, live.clone())).collect(),
            false => BTreeMap::new(),
        };
        let was = self.shown.remove(&device).unwrap_or_default();
        let gone = was.iter().filter(|(name, live)| is.get(*name) != Some(live));
        out.shown.extend(gone.map(|(_, live)| ((device, live.clone()), -1)));
        let new = is.iter().filter(|(name, live)| was.get(*name) != Some(live));
        out.shown.extend(new.map(|(_, live)| ((device, live.clone()), 1)));
        if !is.is_empty() {
            self.shown.insert(device, is);
        }
    }
}
