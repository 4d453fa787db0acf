//! Interfaces that SNMP discovery reports on a device: their addresses are its aliases, their MACs it shows.
//!
//! ```text
//! polls ─► [alias machine] ─┬► reported(record, ip, first, last, runs)
//!                           └► shown(record, macs)
//! confirmed(record, ip) :- reported in three runs in a row | reported, and a sweep's answer not older than first
//! ```
//! A poll that lists interfaces without an address ends its alias; a poll without a list says nothing. What the newest
//! poll lists, and for how many polls in a row, is a function of the polls kept, whatever order they came in. After a
//! week without a poll its aliases are stale, which is to say, not reported; the next poll brings them back as they were.

use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::identity::assertions::{Scope, ip_name};
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};

use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, Machine, Tick, machine};
use crate::records::Live;

/// Sightings that confirm an alias.
const CONFIRMING_POLLS: usize = 3;
/// Polls kept of a device: one more than count, so that one that comes late finds its place.
const MAX_POLLS: usize = CONFIRMING_POLLS + 1;
/// Interface addresses of one device, and MACs.
pub const MAX_ALIASES: usize = 4096;
/// How long after its last poll a device's aliases are stale, milliseconds.
const STALE_MS: i64 = 7 * 86_400_000;

/// What interfaces are read of.
pub struct Inputs<'scope> {
    /// Polls that listed interfaces, by the record of the polled device.
    pub polls: Events<'scope, Keyed<Name, Poll>>,
    /// Live versions of records.
    pub versions: Rel<'scope, Live>,
}

/// What interfaces tell.
pub struct Outputs<'scope> {
    /// Live versions of records, with the MACs that their interfaces show.
    pub versions: Rel<'scope, Live>,
    /// By site: confirmed aliases, by the record that reports them, with the time of the newest report.
    pub aliases: Rel<'scope, (Arc<Scope>, (Name, (IpAddr, Time)))>,
}

/// Builds the relations.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let interfaces = machine(inputs.polls, cx, Aliases);
    let shown = collected(interfaces.clone(), |(said, diff)| match said {
        Interfaces::Shown(record, macs) => Some(((record, macs), diff)),
        Interfaces::Reported(_) => None,
    });
    let reported = collected(interfaces, |(said, diff)| match said {
        Interfaces::Reported(reported) => Some((reported, diff)),
        Interfaces::Shown(..) => None,
    });
    let versions = completed(&inputs.versions, shown);
    Outputs { aliases: confirmed(reported, &versions), versions }
}

/// A poll that listed a device's interfaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Poll {
    /// When.
    pub at: Time,
    /// Names the run.
    pub run: u32,
    /// Where.
    pub scope: Arc<Scope>,
    /// The addresses it listed, sorted.
    pub ips: Vec<IpAddr>,
    /// The MACs, sorted.
    pub macs: Vec<u64>,
}

impl Poll {
    /// Puts its lists in order.
    pub fn tidy(&mut self) {
        self.ips.sort_unstable();
        self.ips.dedup();
        self.ips.truncate(MAX_ALIASES);
        self.macs.sort_unstable();
        self.macs.dedup();
        self.macs.truncate(MAX_ALIASES);
    }
}

/// The state of a polled device's interfaces.
#[derive(Serialize, Deserialize)]
struct Polls {
    /// Newest first.
    polls: Vec<Poll>,
    sighted_ms: i64,
    stale: bool,
}

/// An address that polls report on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reported {
    /// Where.
    pub scope: Arc<Scope>,
    /// The record of the polled device.
    pub record: Name,
    /// The alias.
    pub ip: IpAddr,
    /// Its name.
    pub address: Name,
    /// The first poll of those in a row that list it.
    pub first: Time,
    /// The last.
    pub last: Time,
    /// Whether there are enough of them.
    pub confirmed: bool,
}

/// What polls say of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// An address.
    Reported(Reported),
    /// All MACs, by the record of the device.
    Shown(Name, Arc<[u64]>),
}

impl Polls {
    fn interfaces(&self, record: Name) -> Vec<Interfaces> {
        let newest = self.polls.first().filter(|poll| !self.stale && !poll.macs.is_empty());
        let shown = newest.map(|poll| Interfaces::Shown(record, poll.macs.as_slice().into()));
        self.reported(record).into_iter().map(Interfaces::Reported).chain(shown).collect()
    }

    fn reported(&self, record: Name) -> Vec<Reported> {
        let Some(newest) = self.polls.first().filter(|_| !self.stale) else { return vec![] };
        let report = |ip: &IpAddr| {
            let in_a_row = self.polls.iter().take_while(|p| p.ips.binary_search(ip).is_ok());
            let (count, first) = in_a_row.fold((0, newest.at), |(n, _), p| (n + 1, p.at));
            let address = ip_name(newest.scope.name, *ip);
            let (scope, confirmed) = (newest.scope.clone(), count >= CONFIRMING_POLLS);
            Reported { scope, record, ip: *ip, address, first, last: newest.at, confirmed }
        };
        newest.ips.iter().map(report).collect()
    }
}

/// Remembers polls.
struct Aliases;

impl Machine for Aliases {
    type Key = Name;
    type Event = Poll;
    type State = Polls;
    type Output = (Interfaces, isize);
    const NAME: &'static str = "aliases";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Name,
        state: &mut Option<Polls>,
        events: Vec<Poll>,
        out: &mut Vec<(Interfaces, isize)>,
    ) {
        let before = state.as_ref().map(|s| s.interfaces(*key)).unwrap_or_default();
        let polls = state.get_or_insert(Polls { polls: vec![], sighted_ms: tick.live_ms, stale: false });
        polls.stale = events.is_empty();
        for poll in events {
            polls.sighted_ms = tick.live_ms;
            match polls.polls.iter_mut().find(|p| p.run == poll.run) {
                // One run may list a device in several pieces, and come twice.
                Some(known) => {
                    known.at = known.at.max(poll.at);
                    known.ips.extend(poll.ips);
                    known.macs.extend(poll.macs);
                    known.tidy();
                }
                None => polls.polls.push(poll),
            }
        }
        polls.polls.sort_by(|a, b| b.cmp(a));
        polls.polls.truncate(MAX_POLLS);
        let after = polls.interfaces(*key);
        out.extend(before.iter().filter(|r| !after.contains(r)).map(|r| (r.clone(), -1)));
        out.extend(after.iter().filter(|r| !before.contains(r)).map(|r| (r.clone(), 1)));
    }

    fn due_ms(&self, state: &Polls) -> Option<i64> {
        (!state.stale).then_some(state.sighted_ms + STALE_MS)
    }

    fn restored(&mut self, key: &Name, state: &Polls, out: &mut Vec<(Interfaces, isize)>) {
        out.extend(state.interfaces(*key).into_iter().map(|r| (r, 1)));
    }
}

/// Versions of records, with what interfaces show.
fn completed<'scope>(versions: &Rel<'scope, Live>, shown: Rel<'scope, (Name, Arc<[u64]>)>) -> Rel<'scope, Live> {
    let polled = versions.clone().filter(|v| v.says.kind == SourceKind::Mapper).map(|v| (v.key, v));
    let completed = polled
        .join_map(shown, |_, live, macs| (live.clone(), Arc::new(live.showing(macs))))
        .flat_map(|(live, completed)| [(live, -1), (completed, 1)])
        .explode(Some);
    versions.clone().concat(completed)
}

/// Confirmed aliases, by the record that reports them, with the time of the newest report.
fn confirmed<'scope>(
    reported: Rel<'scope, Reported>,
    versions: &Rel<'scope, Live>,
) -> Rel<'scope, (Arc<Scope>, (Name, (IpAddr, Time)))> {
    let swept = versions
        .clone()
        .filter(|v| v.says.kind == SourceKind::Sweep)
        .flat_map(|v| v.says.address().map(|a| (a.name, v.says.at)));
    let by_polls = reported.clone().filter(|r| r.confirmed);
    let by_sweep = reported
        .filter(|r| !r.confirmed)
        .map(|r| (r.address, r))
        .join_map(swept, |_, r, at| (r.clone(), *at))
        .filter(|(r, at)| *at >= r.first)
        .map(|(r, _)| r);
    by_polls.concat(by_sweep).map(|r| (r.scope, (r.record, (r.ip, r.last))))
}
