//! What monotonic sums add from point to point, and how fast.
//!
//! ```text
//! p, n points of one series, n the next that is later           delta          over
//! n.start = p.start or unknown, n.value ≥ p.value               n - p          n.time - p.time
//! n.start > p.start: it began anew                              n              n.time - n.start
//! n.start = p.start or unknown, n.value < p.value: it did, too  n              n.time - p.time
//! n.start = n.time: a beginning that is not known               nothing is known
//! n.time ≤ p.time: late, or it came twice                       nothing, and p stays
//! n.start < p.start: of one that began before                   nothing, and p stays
//! ```
//! Of the first point of a series nothing is known: what it counted before may be told already. A series is its resource, scope,
//! metric and attributes, whoever sends it. It is forgotten [`QUIET_MS`] after its last point, or before that where its
//! tenant's take too much ([`super::places`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::Real;
use radarflow_proto::otlp::value::Attributes;
use radarflow_proto::rows::OtelMetric;
use serde::{Deserialize, Serialize};

use super::Share;
use super::places::Places;
use crate::keyed::{Machine, Tick};
use crate::sizes::Sizes;

/// How long a series is remembered after its last point, milliseconds of live time.
pub(super) const QUIET_MS: i64 = 3_600_000;
/// What the series of a share may take: 8 MiB a tenant, about 40,000 of them.
pub const MAX_BYTES: usize = 128 << 10;

/// A point of a sum that is counted from a beginning on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// Its series.
    pub series: [u8; 16],
    /// Since when it counts, nanoseconds since 1970; 0 for unknown.
    pub start_ns: u64,
    /// When it was measured.
    pub time_ns: u64,
    /// Its value.
    pub value: f64,
    /// Whether it was measured about when it came: what lies far from that changes nothing that is known.
    pub is_near: bool,
    /// Who sent it.
    pub from: String,
    /// Its row, without what was added, and without what its resource and scope say.
    pub row: Box<OtelMetric>,
    /// What its resource says.
    pub resource: Arc<Attributes>,
    /// What its scope says.
    pub scope: Arc<Attributes>,
}

/// A row, with what was added, and what its resource and scope say.
#[derive(Clone, Debug)]
pub struct Added {
    pub(crate) row: OtelMetric,
    pub(crate) resource: Arc<Attributes>,
    pub(crate) scope: Arc<Attributes>,
}

/// The newest point of a series.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Last {
    start_ns: u64,
    time_ns: u64,
    value: f64,
}

/// What was added since, and over how many nanoseconds.
fn added(last: Last, next: Last) -> Option<(f64, u64)> {
    if next.start_ns != 0 && next.start_ns == next.time_ns {
        return None;
    }
    let same = next.start_ns == last.start_ns || next.start_ns == 0 || last.start_ns == 0;
    let (delta, over_ns) = if !same {
        (next.value, next.time_ns.saturating_sub(next.start_ns))
    } else if next.value >= last.value {
        (next.value - last.value, next.time_ns - last.time_ns)
    } else {
        (next.value, next.time_ns - last.time_ns)
    };
    delta.is_finite().then_some((delta, over_ns))
}

/// Whether a point follows another.
fn follows(last: Last, next: Last) -> bool {
    next.time_ns > last.time_ns && (next.start_ns == 0 || next.start_ns >= last.start_ns)
}

/// A number a second.
pub(crate) fn per_second(delta: f64, over_ns: u64) -> Option<Real> {
    let rate = delta / (over_ns as f64 / 1e9);
    rate.is_finite().then_some(Real(rate))
}

/// The series of a share.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SeriesOfShare(Places<[u8; 16], Last>);

/// Tells what was added.
pub(super) struct Sums(pub(super) Arc<Sizes>);

impl Machine for Sums {
    type Key = Share;
    type Event = Counted;
    type State = SeriesOfShare;
    type Output = Vec<Added>;
    const NAME: &'static str = "series";

    fn step(
        &mut self,
        tick: &Tick,
        _: &Share,
        state: &mut Option<SeriesOfShare>,
        events: Vec<Counted>,
        out: &mut Vec<Vec<Added>>,
    ) {
        let SeriesOfShare(known) = state.get_or_insert_default();
        let mut rows = Vec::with_capacity(events.len());
        for Counted { series, start_ns, time_ns, value, is_near, from, mut row, resource, scope } in events {
            let (last, next) = (known.get(&series).copied(), Last { start_ns, time_ns, value });
            if is_near && last.is_none_or(|last| follows(last, next)) {
                if let Some((delta, over_ns)) = last.and_then(|last| added(last, next)) {
                    (row.delta, row.rate) = (Some(Real(delta)), per_second(delta, over_ns));
                }
                known.hear(series, (&from, tick.live_ms), || next, |last| *last = next, |_| size_of::<Last>());
            }
            rows.push(Added { row: *row, resource, scope });
        }
        let over = known.iter().filter(|(_, at)| at.heard_ms <= tick.live_ms - QUIET_MS).map(|(key, _)| *key);
        let mut goes: Vec<_> = over.collect();
        let excess = known.excess(MAX_BYTES);
        self.0.evicted().fetch_add(excess.len() as u64, Ordering::Relaxed);
        goes.extend(excess);
        goes.iter().for_each(|key| known.forget(key));
        if known.is_empty() {
            *state = None;
        }
        if !rows.is_empty() {
            out.push(rows);
        }
    }

    fn due_ms(&self, SeriesOfShare(known): &SeriesOfShare) -> Option<i64> {
        known.iter().map(|(_, at)| at.heard_ms + QUIET_MS).min()
    }

    fn restored(&mut self, _: &Share, _: &SeriesOfShare, _: &mut Vec<Vec<Added>>) {}
}
