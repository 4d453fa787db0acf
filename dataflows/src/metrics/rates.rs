//! Rates of the counters of a share's targets.
//!
//! A target is what one agent reads of one device. It is forgotten when nothing was read of it for [`FORGET_MS`], after which
//! there would be no rate anyway; so is a counter that is not among what is read of its target any more. Where there are too
//! many counters, further ones have no rate until places are free: who is new never takes the place of who is polled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::Real;
use radarflow_proto::rows::{BatchBuilder, TimeseriesMetric, TimeseriesMetricBatch};
use radarflow_reconcile::identity::name::{Name, name};
use radarflow_reconcile::rates::known::Object;
use radarflow_reconcile::rates::{Answer, LONGEST_US, Lives, Reading, Series, Width};
use serde::{Deserialize, Serialize};

use super::{Rated, Share, Target, Unrated};
use crate::keyed::{Machine, Tick};
use crate::sizes::Sizes;
use crate::strangers::BUCKETS;

/// Counters of a share, and interfaces whose speed is known: 131,072 a tenant. One more has no rate, and is metered as evicted.
pub const MAX_SERIES_OF_SHARE: usize = 2048;
/// What discovery finds takes no more places than these: the others are for what is polled.
const MAX_FOUND_OF_SHARE: usize = MAX_SERIES_OF_SHARE / 2;
/// Bytes that a share's counters take, about: a name, [`radarflow_reconcile::rates::KEPT`] samples, and their places.
pub const MAX_BYTES_OF_SHARE: usize = MAX_SERIES_OF_SHARE * 320;
/// How long a target is remembered of which nothing is read, milliseconds of live time.
pub const FORGET_MS: i64 = LONGEST_US / 1000;
/// A clock that is further ahead of receipt is wrong, microseconds.
const AHEAD_US: i64 = 60_000_000;
/// No interface has more, bits per second.
const MAX_SPEED: i64 = 1 << 50;

/// What is said of a target at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Samples {
    /// Of which.
    pub target: Target,
    /// What.
    pub samples: Vec<Sample>,
}

/// What is said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Spoken {
    /// An agent read something.
    Read(Samples),
    /// Discovery found the speed of interfaces: by their index, bits per second.
    Speeds(Target, BTreeMap<i64, i64>),
}

/// One number that was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The row, less its rate.
    pub row: Unrated,
    /// When it was read, by the agent's clock, which may be ahead of receipt.
    pub at_us: i64,
    /// Exactly, before it was multiplied; none where it is no whole number.
    pub count: Option<u64>,
    /// Whether the agent made a rate of it.
    pub delta: bool,
    /// What the object is.
    pub object: Object,
}

/// What is known of a target.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    heard_ms: i64,
    lives: Lives,
    /// By object and interface.
    series: BTreeMap<Name, Series>,
    /// Of interfaces, bits per second.
    speeds: BTreeMap<i64, i64>,
    /// When the newest sample was read, by the agent's clock.
    newest_us: i64,
}

impl Known {
    /// What was read while the agent's clock was ahead is before nothing that is read since it is right: the counters begin anew.
    /// Gives how many places are free then.
    fn set_right(&mut self, at_us: i64, received_us: i64) -> usize {
        let ahead = |at_us: i64| at_us > received_us.saturating_add(AHEAD_US);
        if ahead(at_us) || !ahead(self.newest_us) {
            return 0;
        }
        (self.lives, self.newest_us) = (Lives::default(), 0);
        std::mem::take(&mut self.series).len()
    }

    /// Places that it takes: its own, and one each.
    fn len(&self) -> usize {
        1 + self.series.len() + self.speeds.len()
    }
}

/// The targets of a share, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Targets {
    targets: BTreeMap<Name, Known>,
}

/// What is taken of a share's places.
struct Places {
    taken: usize,
    /// How many may be.
    most: usize,
    evicted: u64,
}

impl Places {
    /// Takes one more, where there is one.
    fn take(&mut self) -> bool {
        let is_free = self.taken < self.most;
        self.taken += usize::from(is_free);
        self.evicted += u64::from(!is_free);
        is_free
    }
}

/// Counters and their rates.
pub(super) struct Rates(pub(super) Arc<Sizes>);

/// Rows of a site.
#[derive(Default)]
struct Site {
    rows: TimeseriesMetricBatch,
    ips: Vec<Option<std::net::IpAddr>>,
}

fn key_of(sample: &Sample) -> Name {
    let row = &sample.row;
    name(&(&row.oid, &row.metric_name, row.if_index, &row.interface_uid))
}

impl Targets {
    fn places(&self) -> Places {
        Places { taken: self.targets.values().map(Known::len).sum(), most: MAX_SERIES_OF_SHARE, evicted: 0 }
    }

    /// A target that is heard now.
    fn heard(&mut self, of: Name, now_ms: i64, places: &mut Places) {
        if self.targets.contains_key(&of) || places.take() {
            self.targets.entry(of).or_default().heard_ms = now_ms;
        }
    }

    fn speed(&mut self, of: Name, index: i64, bps: i64, places: &mut Places) {
        let is_known = self.targets.get(&of).is_some_and(|known| known.speeds.contains_key(&index));
        if (1..=MAX_SPEED).contains(&bps)
            && (is_known || places.take())
            && let Some(known) = self.targets.get_mut(&of)
        {
            known.speeds.insert(index, bps);
        }
    }

    fn read(&mut self, read: Samples, now_ms: i64, places: &mut Places, out: &mut BTreeMap<String, Site>) {
        let Samples { target, mut samples } = read;
        let of = name(&target);
        self.heard(of, now_ms, places);
        // What is said at once is read as if it were said poll by poll: a poll reads each object once.
        samples.sort_by_key(|sample| sample.at_us);
        if let (Some(last), Some(known)) = (samples.last(), self.targets.get_mut(&of)) {
            places.taken -= known.set_right(last.at_us, last.row.received_at.0);
        }
        let mut samples = samples.into_iter().peekable();
        let site = out.entry(target.partition).or_default();
        while samples.peek().is_some() {
            let (mut poll, mut seen) = (Vec::new(), BTreeSet::new());
            while let Some(sample) = samples.next_if(|sample| seen.insert(key_of(sample))) {
                poll.push(sample);
            }
            self.poll(of, poll, places, site);
        }
        if let Some(known) = self.targets.get_mut(&of) {
            let oldest = known.newest_us.saturating_sub(LONGEST_US);
            let before = known.series.len();
            known.series.retain(|_, series| series.newest_us().is_some_and(|newest| newest >= oldest));
            places.taken -= before - known.series.len();
        }
    }

    /// Fills in the rates of a poll.
    fn poll(&mut self, of: Name, samples: Vec<Sample>, places: &mut Places, site: &mut Site) {
        let (mut fell, mut rose) = (Vec::new(), false);
        // What is said of the device and its interfaces counts for all that is said with it.
        for sample in samples.iter().filter(|sample| !sample.delta) {
            let (Some(count), Some(known)) = (sample.count, self.targets.get_mut(&of)) else { continue };
            match sample.object {
                // TimeTicks have 32 bits.
                Object::UpTime if count > u64::from(u32::MAX) => {}
                Object::UpTime => known.lives.read_up_time(sample.at_us, i64::try_from(count).unwrap_or(i64::MAX)),
                // The largest ifSpeed says that ifHighSpeed tells it (RFC 2863).
                Object::Speed(unit) => {
                    if let Some(index) = sample.row.if_index.filter(|_| unit > 1 || count < u64::from(u32::MAX)) {
                        let bps = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(unit);
                        self.speed(of, index, bps, places);
                    }
                }
                Object::Counter(width, _) => {
                    let reading = Reading { at_us: sample.at_us, count };
                    let Some(series) = known.series.get(&key_of(sample)) else { continue };
                    match series.falls(reading, width) {
                        Some(between) => fell.push(between),
                        None => {
                            rose |= width != Width::Bits32 && series.newest_us().is_some_and(|at| at < sample.at_us);
                        }
                    }
                }
                Object::Gauge => {}
            }
        }
        // Where others went on, an interface was made anew, and not the device.
        if let Some(known) = self.targets.get_mut(&of).filter(|_| !rose) {
            fell.into_iter().for_each(|(after, at)| known.lives.fell(after, at));
        }
        for sample in samples {
            let key = key_of(&sample);
            let Sample { row, at_us, count, delta, object } = sample;
            let mut row = *row;
            if let Object::Counter(width, octets) = object {
                let reading = count.filter(|_| !delta).map(|count| Reading { at_us, count });
                self.rate(&mut row, of, key, (reading, width, octets), places);
            }
            site.ips.push(row.target_device_ip);
            site.rows.push(&row);
        }
    }

    /// Fills in the rate of a row.
    fn rate(
        &mut self,
        row: &mut TimeseriesMetric,
        of: Name,
        key: Name,
        (reading, width, octets): (Option<Reading>, Width, bool),
        places: &mut Places,
    ) {
        let Some(reading) = reading else {
            row.rate_missing = Some("delta".to_owned());
            return;
        };
        let is_known = self.targets.get(&of).is_some_and(|known| known.series.contains_key(&key));
        let has_place = is_known || (self.targets.contains_key(&of) && places.take());
        let Some(known) = self.targets.get_mut(&of).filter(|_| has_place) else {
            row.rate_missing = Some("full".to_owned());
            return;
        };
        let speed = row.if_index.and_then(|index| known.speeds.get(&index)).copied();
        let most = speed.filter(|_| octets).map(|bps| bps as f64 / 8.0);
        let answer = known.series.entry(key).or_default().take(reading, width, &known.lives, most);
        known.newest_us = known.newest_us.max(reading.at_us);
        tell(row, answer, speed, octets);
    }
}

/// Writes an answer into its row.
fn tell(row: &mut TimeseriesMetric, answer: Answer, speed: Option<i64>, octets: bool) {
    row.if_speed_bps = speed;
    match answer {
        Answer::None(why) => row.rate_missing = Some(why.name().to_owned()),
        Answer::Rose { over_us, .. } => {
            let per_second = answer.per_second().unwrap_or_default();
            let scale = row.scale.map_or(1.0, |scale| scale.0);
            row.rate_per_second = Some(per_second * scale).filter(|rate| rate.is_finite()).map(Real);
            row.interval_seconds = Some(Real(over_us as f64 / 1e6));
            row.utilization_percent = speed.filter(|_| octets).map(|bps| Real(per_second * 800.0 / bps as f64));
        }
    }
}

impl Machine for Rates {
    type Key = Share;
    type Event = Spoken;
    type State = Targets;
    type Output = Rated;
    const NAME: &'static str = "rates";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Share,
        state: &mut Option<Targets>,
        events: Vec<Spoken>,
        out: &mut Vec<Rated>,
    ) {
        let known = state.get_or_insert_default();
        let mut sites: BTreeMap<String, Site> = BTreeMap::new();
        let mut places = known.places();
        for event in events {
            match event {
                Spoken::Read(samples) => {
                    places.most = MAX_SERIES_OF_SHARE;
                    known.read(samples, tick.live_ms, &mut places, &mut sites);
                }
                Spoken::Speeds(target, speeds) => {
                    let of = name(&target);
                    places.most = MAX_FOUND_OF_SHARE;
                    known.heard(of, tick.live_ms, &mut places);
                    speeds.into_iter().for_each(|(index, bps)| known.speed(of, index, bps, &mut places));
                }
            }
        }
        known.targets.retain(|_, target| tick.live_ms < target.heard_ms + FORGET_MS);
        if known.targets.is_empty() {
            *state = None;
        }
        self.0.evicted().fetch_add(places.evicted, Ordering::Relaxed);
        out.extend(sites.into_iter().map(|(partition, mut site)| Rated {
            tenant: key.tenant.clone(),
            partition,
            rows: site.rows.finish(),
            ips: site.ips,
        }));
    }

    fn due_ms(&self, state: &Targets) -> Option<i64> {
        state.targets.values().map(|target| target.heard_ms + FORGET_MS).min()
    }

    fn restored(&mut self, _: &Share, _: &Targets, _: &mut Vec<Rated>) {}
}

const _: () = assert!(BUCKETS as usize * MAX_SERIES_OF_SHARE == 131_072, "as the documentation says");
