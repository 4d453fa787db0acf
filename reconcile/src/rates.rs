//! Rates of what counts up: by how much a second a counter rose from one sample to the next.
//!
//! ```text
//! rate(s) = step(p, s) / (s.at - p.at)        p: the sample before s, by time, of those that are known
//! step    = s - p                             where s >= p
//!         = s - p + 2^width                   where the counter wrapped
//! ```
//! Counters wrap, and begin again when their device does, and both look like a fall. What tells them apart, in this order:
//! 1. *Lives.* `sysUpTime` says when the device began; so does a counter of 64 bits that falls, since none ever wraps. A step
//!    across a beginning is none.
//! 2. *What can be.* A line carries no more than its speed. Where that is not known, a fall is a wrap only from the top quarter
//!    of the range to its bottom: what is wrong then is rare, and what is left out is one rate.
//!
//! There is no rate over more than [`LONGEST_US`]: a gap is a gap. A counter of 32 bits whose line could have wrapped it twice
//! in between has none either. A sample that comes late has its rate since the one before it, and one that comes again is
//! answered as the first time: the answer stands with the sample ([`KEPT`] of them).

pub mod known;

use serde::{Deserialize, Serialize};

/// Samples of a counter that are remembered.
pub const KEPT: usize = 4;
/// Beginnings of a device that are remembered.
const LIVES: usize = 4;
/// There is no rate over more than this, microseconds.
pub const LONGEST_US: i64 = 3_600_000_000;
/// How far a device's clock may be from the agent's between two samples, microseconds; and the part of the time between them
/// that it may be beside.
const SKEW_US: i64 = 5_000_000;
const SKEW_PART: i64 = 1000;
/// Hundredths of a second that `sysUpTime` counts before it begins again: 497 days.
const TICKS: i64 = 1 << 32;
/// A line may seem to carry this much of its speed, as nobody reads at the very instant.
const BEYOND_SPEED: f64 = 1.1;

/// How far a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Width {
    /// To 2^32.
    Bits32,
    /// To 2^64.
    Bits64,
    /// Nobody says; what is more than 2^32 is of 64 bits.
    Unknown,
}

/// One sample of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When, by the agent's clock, microseconds since 1970.
    pub at_us: i64,
    /// What.
    pub count: u64,
}

/// Why there is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Why {
    First,
    Late,
    Gap,
    Reset,
    Ambiguous,
    Conflict,
}

impl Why {
    /// As rows say it.
    pub fn name(self) -> &'static str {
        match self {
            Why::First => "first",
            Why::Late => "late",
            Why::Gap => "gap",
            Why::Reset => "reset",
            Why::Ambiguous => "ambiguous",
            Why::Conflict => "conflict",
        }
    }
}

/// What a sample is answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It rose by so many since the sample so many microseconds before.
    Rose {
        /// Units of the counter.
        by: u64,
        /// Microseconds.
        over_us: i64,
    },
    /// There is no rate.
    None(Why),
}

impl Answer {
    /// Units a second.
    pub fn per_second(self) -> Option<f64> {
        match self {
            Answer::Rose { by, over_us } => Some(by as f64 * 1e6 / over_us as f64),
            Answer::None(_) => None,
        }
    }
}

/// What is known of a device beside the counter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lives {
    /// The newest reading of `sysUpTime`: when, and hundredths of a second.
    up: Option<(i64, i64)>,
    /// Spans in which it certainly did not begin again, from its beginning on where that is known, oldest first.
    spans: Vec<(i64, i64)>,
    /// Spans in which it certainly did: after the one and not after the other.
    began: Vec<(i64, i64)>,
}

impl Lives {
    /// `sysUpTime` was read.
    pub fn read_up_time(&mut self, at_us: i64, ticks: i64) {
        let began_us = at_us.saturating_sub(ticks.saturating_mul(10_000));
        let Some((before_us, before)) = self.up else {
            self.up = Some((at_us, ticks));
            return self.lived(began_us, at_us);
        };
        if at_us <= before_us {
            return;
        }
        let passed = at_us - before_us;
        let slack = SKEW_US + passed / SKEW_PART;
        let alike = |ticks: i64| ((ticks - before).saturating_mul(10_000) - passed).abs() <= slack;
        self.up = Some((at_us, ticks));
        if alike(ticks) || alike(ticks + TICKS) {
            match self.spans.last_mut().filter(|(_, until)| *until == before_us) {
                Some((_, until)) => *until = at_us,
                None => self.lived(before_us, at_us),
            }
        } else {
            let began_us = began_us.clamp(before_us, at_us);
            self.begin(before_us, began_us.max(before_us + 1));
            self.lived(began_us, at_us);
        }
    }

    /// A counter that never wraps fell.
    pub fn fell(&mut self, after_us: i64, at_us: i64) {
        if !self.spans.iter().any(|(from, until)| *from <= after_us && at_us <= *until) {
            self.begin(after_us, at_us);
        }
    }

    fn begin(&mut self, after_us: i64, at_us: i64) {
        if !self.began.contains(&(after_us, at_us)) {
            self.began.push((after_us, at_us));
            self.began.sort_unstable();
            let more = self.began.len().saturating_sub(LIVES);
            self.began.drain(..more);
        }
    }

    fn lived(&mut self, from_us: i64, until_us: i64) {
        self.spans.push((from_us, until_us));
        let more = self.spans.len().saturating_sub(LIVES);
        self.spans.drain(..more);
    }

    /// Whether it began between two instants, or may have: none where nobody knows.
    fn began_between(&self, from_us: i64, to_us: i64) -> Option<bool> {
        // What is read at once is not stamped at once.
        let slack = 1_000_000;
        if self.began.iter().any(|(after, at)| *after < to_us && from_us < *at) {
            return Some(true);
        }
        let lived = self.spans.iter().any(|(from, until)| *from <= from_us && to_us <= until.saturating_add(slack));
        lived.then_some(false)
    }
}

/// A sample that is remembered, with what it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    at_us: i64,
    count: u64,
    answer: Answer,
}

/// A counter: its newest samples, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    kept: Vec<Kept>,
}

impl Series {
    /// When it was read last, microseconds since 1970.
    pub fn newest_us(&self) -> Option<i64> {
        self.kept.last().map(|kept| kept.at_us)
    }

    /// The span over which a counter of 64 bits falls with this reading, if it does.
    pub fn falls(&self, reading: Reading, width: Width) -> Option<(i64, i64)> {
        let before = self.kept.iter().rev().find(|kept| kept.at_us < reading.at_us)?;
        let wide = width == Width::Bits64 || (width == Width::Unknown && before.count > u64::from(u32::MAX));
        let step = reading.count.wrapping_sub(before.count);
        (wide && reading.count < before.count && step > u64::MAX / 4).then_some((before.at_us, reading.at_us))
    }

    /// Takes in a sample. `most` is what the line carries at most, units a second, where that is known.
    pub fn take(&mut self, reading: Reading, width: Width, lives: &Lives, most: Option<f64>) -> Answer {
        let at = self.kept.partition_point(|kept| kept.at_us < reading.at_us);
        if let Some(same) = self.kept.get(at).filter(|kept| kept.at_us == reading.at_us) {
            return if same.count == reading.count { same.answer } else { Answer::None(Why::Conflict) };
        }
        let answer = match at.checked_sub(1).map(|before| self.kept[before]) {
            None if self.kept.is_empty() => Answer::None(Why::First),
            None => Answer::None(Why::Late),
            Some(before) => rise(&before, reading, width, lives, most),
        };
        if at > 0 || self.kept.len() < KEPT {
            self.kept.insert(at, Kept { at_us: reading.at_us, count: reading.count, answer });
            if self.kept.len() > KEPT {
                self.kept.remove(0);
            }
        }
        answer
    }
}

fn rise(before: &Kept, now: Reading, width: Width, lives: &Lives, most: Option<f64>) -> Answer {
    let over_us = now.at_us - before.at_us;
    if over_us > LONGEST_US {
        return Answer::None(Why::Gap);
    }
    let began = lives.began_between(before.at_us, now.at_us);
    if began == Some(true) {
        return Answer::None(Why::Reset);
    }
    let narrow = match width {
        Width::Bits32 => true,
        Width::Bits64 => false,
        Width::Unknown => before.count.max(now.count) <= u64::from(u32::MAX),
    };
    let range = if narrow { 2f64.powi(32) } else { 2f64.powi(64) };
    let could_be = most.map(|most| most * BEYOND_SPEED * over_us as f64 / 1e6);
    if narrow && could_be.is_some_and(|could_be| could_be >= range) {
        return Answer::None(Why::Ambiguous);
    }
    if now.count >= before.count {
        return Answer::Rose { by: now.count - before.count, over_us };
    }
    let by = match narrow {
        true => u64::from((now.count as u32).wrapping_sub(before.count as u32)),
        false => now.count.wrapping_sub(before.count),
    };
    let believed = match (could_be, began) {
        (Some(could_be), _) => by as f64 <= could_be,
        // It did not begin again: what counts to 2^32 has wrapped. Of what may count to more nobody knows.
        (None, Some(false)) if width == Width::Bits32 => true,
        (None, _) => by as f64 <= range / 4.0,
    };
    if believed { Answer::Rose { by, over_us } } else { Answer::None(Why::Reset) }
}

#[cfg(test)]
mod tests;
