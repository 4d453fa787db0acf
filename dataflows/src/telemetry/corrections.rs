//! Who had an address when, as far as events that come late need it, and what is learnt late of it.
//!
//! ```text
//! change(a, v)(e)     :- another device, or nobody, owns a from e on
//! from(v)             :- event time of the claim, where it is greater by (class, event time) than the one before: it held
//!                        since then already, though it was not known; else when the one before was given up
//! owner(a, t)(e)      :- the newest v of change(a, v) up to e with from(v) ≤ t
//! correction(a, v)(e) :- change(a, v)(e), where owner(a, t) before e was another for some from(v) ≤ t < clock(e)
//! ```
//! An event is stored with `owner(a, t)(e)` of its time and epoch. So of an event of an earlier epoch the newest later
//! correction with `from ≤ t` is right, and where there is none, what is stored: the intervals of ownership that are
//! derived from all versions (`query/src/tables/intervals.rs`) say the same. An event that comes later than [`HORIZON_MS`] after
//! its time is given to whoever had its address at the horizon.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::AttributionCorrection;
use radarflow_reconcile::identity::ClaimClass;
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};

use crate::identity::{Address, AddressOwner};
use crate::keyed::{Clock, Machine, Tick};
use crate::output::DerivedRow;
use crate::records::RETENTION_MS;

/// How late an event may come and still find who had its address then, milliseconds.
pub const HORIZON_MS: i64 = 3_600_000;
/// Changes of one address that are remembered within it.
const MAX_CHANGES: usize = 16;
/// Nothing stored is dated further ahead of its receipt, microseconds.
const AHEAD_US: i64 = 86_400_000_000;

/// What claims are compared by; that an address is shared is stronger than any.
fn weight(owner: &AddressOwner) -> Weight {
    (owner.class.is_none(), owner.class, owner.since)
}

type Weight = (bool, Option<ClaimClass>, Time);

/// Who had an address, each from a time on, microseconds; the first from ever.
pub(super) type OwnerHistory = Arc<[(i64, Option<Arc<str>>)]>;

/// Who had it at a time.
pub(super) fn owner_at(past: &[(i64, Option<Arc<str>>)], at_us: i64) -> Option<&Arc<str>> {
    let after = past.partition_point(|(from, _)| *from <= at_us);
    past[after.saturating_sub(1)].1.as_ref()
}

/// What is remembered of an address that changed hands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tenure {
    address: Address,
    owners: Vec<(i64, Option<Arc<str>>)>,
    /// The last claim and when it was given up, while it is nobody's.
    given_up: Option<(Weight, i64)>,
}

impl Tenure {
    fn new(address: Address, owner: Option<Arc<str>>) -> Self {
        Tenure { address, owners: vec![(i64::MIN, owner)], given_up: None }
    }

    /// What late events need to know: nothing where it was one owner's throughout.
    fn past(&self) -> Option<OwnerHistory> {
        (self.owners.len() > 1).then(|| self.owners.clone().into())
    }

    /// Since when the next owner has it.
    fn begins(&self, before: Option<&AddressOwner>, after: Option<&AddressOwner>, now_us: i64) -> i64 {
        let Some(after) = after.filter(|a| a.class.is_some()) else { return now_us };
        let last = before.map(|b| (weight(b), now_us)).or(self.given_up);
        let from = match last {
            Some((last, given_up)) if weight(after) <= last => after.since.0.max(given_up),
            _ => after.since.0,
        };
        from.min(now_us)
    }

    /// Another owner from a time on; whether somebody else was thought to have had it since then.
    fn passes(&mut self, from: i64, to: Option<Arc<str>>, now_us: i64) -> bool {
        let first = self.owners.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        let late = from < now_us && self.owners[first..].iter().any(|(_, uid)| *uid != to);
        let kept = self.owners.partition_point(|(at, _)| *at < from).max(1);
        self.owners.truncate(kept);
        if self.owners[kept - 1].1 != to {
            self.owners.push((from, to));
        }
        late
    }

    fn forget(&mut self, now_us: i64) {
        let horizon = now_us - HORIZON_MS * 1000;
        while self.owners.len() > MAX_CHANGES || self.owners.get(1).is_some_and(|(from, _)| *from <= horizon) {
            self.owners.remove(0);
            self.owners[0].0 = i64::MIN;
        }
        self.given_up = self.given_up.filter(|(_, at)| at + RETENTION_MS * 1000 > now_us);
    }
}

/// What becomes known of addresses.
#[derive(Clone, Debug)]
pub(super) enum TenureOut {
    /// Who had an address; nothing where it is whose it was.
    History(Address, Option<OwnerHistory>),
    /// What is learnt late.
    Correction(DerivedRow),
}

/// Sees addresses change hands.
pub(super) struct Tenures;

impl Machine for Tenures {
    type Key = Name;
    type Event = (AddressOwner, i64);
    type State = Tenure;
    type Output = TenureOut;
    const NAME: &'static str = "tenures";
    const CLOCK: Clock = Clock::Wall;

    fn step(
        &mut self,
        tick: &Tick,
        _: &Name,
        state: &mut Option<Tenure>,
        events: Vec<(AddressOwner, i64)>,
        out: &mut Vec<TenureOut>,
    ) {
        let now_us = tick.clock_ms * 1000;
        let past_before = state.as_ref().and_then(Tenure::past);
        let mut net: BTreeMap<AddressOwner, i64> = BTreeMap::new();
        for (owned, diff) in events {
            *net.entry(owned).or_default() += diff;
        }
        let before = net.iter().find(|(_, n)| **n < 0).map(|(owned, _)| owned);
        let after = net.iter().find(|(_, n)| **n > 0).map(|(owned, _)| owned);
        if let Some(known) = after.or(before) {
            let uid = |owned: Option<&AddressOwner>| owned.and_then(|o| o.uid.clone());
            let tenure = state.get_or_insert_with(|| Tenure::new(known.address.clone(), uid(before)));
            let another = before.is_none() || after.is_none() || uid(before) != uid(after);
            if another {
                let from = tenure.begins(before, after, now_us);
                if tenure.passes(from, uid(after), now_us) {
                    out.push(TenureOut::Correction(DerivedRow::from(correction(
                        &tenure.address,
                        from,
                        uid(after),
                        now_us,
                    ))));
                }
                tenure.given_up = before.filter(|_| after.is_none()).map(|b| (weight(b), now_us));
            }
        }
        let Some(tenure) = state else { return };
        tenure.forget(now_us);
        let (address, past) = (tenure.address.clone(), tenure.past());
        if past.is_none() && tenure.given_up.is_none() {
            *state = None;
        }
        if past != past_before {
            out.push(TenureOut::History(address, past));
        }
    }

    fn due_ms(&self, state: &Tenure) -> Option<i64> {
        let horizon = state.owners.get(1).map(|(from, _)| from.div_euclid(1000) + 1 + HORIZON_MS);
        let retained = state.given_up.map(|(_, at)| at.div_euclid(1000) + 1 + RETENTION_MS);
        horizon.into_iter().chain(retained).min()
    }

    fn restored(&mut self, _: &Name, state: &Tenure, out: &mut Vec<TenureOut>) {
        out.extend(state.past().map(|past| TenureOut::History(state.address.clone(), Some(past))));
    }
}

fn correction((scope, ip): &Address, from: i64, uid: Option<Arc<str>>, now_us: i64) -> AttributionCorrection {
    AttributionCorrection {
        tenant_id: scope.tenant.clone(),
        partition: scope.partition.clone(),
        row_id: RowId::default(),
        epoch: 0,
        time: Time(now_us),
        ip: ip.to_string(),
        valid_from: Time(from),
        valid_to: Time(now_us + AHEAD_US),
        device_uid: uid.map(|uid| uid.to_string()),
    }
}
