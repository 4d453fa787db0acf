//! Bursts of bad log lines, by sender.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_reconcile::alert::{Condition, Subject};
use serde::{Deserialize, Serialize};

use crate::alerts::{AlertKey, ConditionChange};
use crate::keyed::{Machine, Restored, Tick, put_state, take_state};
use crate::sizes::Sizes;
use crate::strangers::bucket;

/// Bad lines within the window that make a burst.
pub const BURST_THRESHOLD: u64 = 100;
/// The window of a burst, milliseconds.
pub const BURST_WINDOW_MS: i64 = 300_000;
const BURST_BUCKET_MS: i64 = 10_000;
/// Senders of a share whose bad lines are counted: 16,384 a tenant.
pub const MAX_LOG_SOURCES: usize = 256;

/// Whose log lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogSource {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The sender's address.
    pub ip: IpAddr,
}

/// A share of a tenant's senders of log lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogShare {
    tenant: String,
    bucket: u64,
}

impl LogShare {
    /// The share that a sender belongs to.
    pub fn of(source: &LogSource) -> Self {
        LogShare { tenant: source.tenant.clone(), bucket: bucket(&source.partition, source.ip) }
    }
}

/// Counts bad lines.
pub(super) struct Bursts(pub(super) Arc<Sizes>);

/// Counts by sender, at most [`MAX_LOG_SOURCES`].
#[derive(Default, Serialize, Deserialize)]
pub(super) struct BurstShare {
    sources: BTreeMap<LogSource, BurstState>,
}

/// Counts by bucket of time.
#[derive(Default, Serialize, Deserialize)]
struct BurstState {
    buckets: BTreeMap<i64, u64>,
    burning: bool,
}

impl BurstState {
    fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// Who goes first, where there are too many.
    fn rank(&self) -> (bool, u64, Option<i64>) {
        (self.burning, self.count(), self.buckets.last_key_value().map(|(bucket, _)| *bucket))
    }

    /// Forgets what is older than the window; says whether anything was.
    fn trim(&mut self, live_ms: i64) -> bool {
        let oldest = (live_ms - BURST_WINDOW_MS).div_euclid(BURST_BUCKET_MS);
        let is_old = self.buckets.first_key_value().is_some_and(|(bucket, _)| *bucket <= oldest);
        if is_old {
            self.buckets = self.buckets.split_off(&(oldest + 1));
        }
        is_old
    }

    fn turn(&mut self, key: &LogSource, out: &mut Vec<ConditionChange>) {
        let burning = self.count() >= BURST_THRESHOLD;
        if burning != self.burning {
            self.burning = burning;
            let (key, condition) = burst(key);
            out.push((key, condition, if burning { 1 } else { -1 }));
        }
    }
}

fn burst(key: &LogSource) -> (AlertKey, Condition) {
    let subject = Subject {
        tenant: key.tenant.clone(),
        partition: key.partition.clone(),
        rule: "log-burst".to_owned(),
        entity: key.ip.to_string(),
    };
    let condition = Condition {
        rule: subject.rule.clone(),
        severity: "warning".to_owned(),
        title: format!("{} logs many errors", key.ip),
        description: format!(
            "{BURST_THRESHOLD} or more messages of severity error or worse within {} s",
            BURST_WINDOW_MS / 1000
        ),
        source_type: "log".to_owned(),
        source_id: key.ip.to_string(),
        labels: BTreeMap::from([("ip".to_owned(), key.ip.to_string())]),
        ..Condition::default()
    };
    (AlertKey::of_subject(subject), condition)
}

impl Machine for Bursts {
    type Key = LogShare;
    type Event = LogSource;
    type State = BurstShare;
    type Output = ConditionChange;
    const NAME: &'static str = "bursts";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &LogShare,
        state: &mut Option<BurstShare>,
        events: Vec<LogSource>,
        out: &mut Vec<ConditionChange>,
    ) {
        let share = state.get_or_insert_default();
        let mut counted = BTreeSet::new();
        for source in events {
            let burst = share.sources.entry(source.clone()).or_default();
            *burst.buckets.entry(tick.live_ms.div_euclid(BURST_BUCKET_MS)).or_default() += 1;
            counted.insert(source);
        }
        for (source, burst) in &mut share.sources {
            if burst.trim(tick.live_ms) || counted.contains(source) {
                burst.turn(source, out);
            }
        }
        share.sources.retain(|_, burst| !burst.buckets.is_empty());
        let excess = share.excess();
        self.0.evicted().fetch_add(excess.len() as u64, Ordering::Relaxed);
        for source in excess {
            if let Some(mut burst) = share.sources.remove(&source) {
                burst.buckets.clear();
                burst.turn(&source, out);
            }
        }
        if share.sources.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, share: &BurstShare) -> Option<i64> {
        let oldest = share.sources.values().filter_map(|burst| burst.buckets.first_key_value()).map(|(b, _)| *b).min();
        oldest.map(|bucket| (bucket + 1) * BURST_BUCKET_MS + BURST_WINDOW_MS)
    }

    fn restored(&mut self, _key: &LogShare, share: &BurstShare, out: &mut Vec<ConditionChange>) {
        for (source, _) in share.sources.iter().filter(|(_, burst)| burst.burning) {
            let (key, condition) = burst(source);
            out.push((key, condition, 1));
        }
    }
}

impl BurstShare {
    /// Who is one too many: those with the fewest lines.
    fn excess(&self) -> Vec<LogSource> {
        let Some(excess @ 1..) = self.sources.len().checked_sub(MAX_LOG_SOURCES) else { return Vec::new() };
        let mut ranked: Vec<_> = self.sources.iter().map(|(source, burst)| (burst.rank(), source)).collect();
        ranked.sort_unstable();
        ranked.into_iter().take(excess).map(|(_, source)| source.clone()).collect()
    }
}

/// The first release kept bursts a source each.
pub(crate) fn bursts_by_share(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let mut shares: BTreeMap<LogShare, BurstShare> = BTreeMap::new();
    for (source, burst) in take_state::<LogSource, BurstState>(state, Bursts::NAME)? {
        shares.entry(LogShare::of(&source)).or_default().sources.insert(source, burst);
    }
    put_state(state, Bursts::NAME, shares);
    Ok(())
}
