//! What is usual of a measure at this hour of the week, and where it leads.
//!
//! Of each hour of the week the mean and the variance are kept, those of newer weeks counting more. Until an hour of the week was
//! seen once, the same hour of the other days stands for it; until that was seen, nothing is usual, and nothing deviates.
//! Where it leads is a straight line through the last samples, as least squares have it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
const HOURS: i64 = 168;
/// How much the newest week counts.
const NEWEST: f64 = 0.3;
/// A deviation is at least so much of what is usual: what never varied is not a thousand deviations off by one percent.
const LEAST_SHARE: f64 = 0.02;
/// Samples of a line.
const SAMPLES: usize = 48;
/// Samples without which there is no line.
const LEAST_SAMPLES: usize = 8;

/// One hour of the week, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Usual {
    mean: f64,
    variance: f64,
}

/// The hour that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Hour {
    number: i64,
    samples: f64,
    sum: f64,
    squares: f64,
}

/// What is known of a measure's past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Season {
    hours: BTreeMap<u8, Usual>,
    hour: Hour,
    /// Samples in a row, milliseconds and values.
    line: VecDeque<(i64, f64)>,
}

impl Season {
    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        size_of::<Season>() + self.hours.len() * 28 + self.line.len() * 16
    }

    /// Takes in what a measure is now. Samples of a line are a fixed time apart, which its length says.
    pub fn sample(&mut self, now_ms: i64, value: f64, ahead_ms: Option<i64>) {
        let number = now_ms.div_euclid(HOUR_MS);
        if number != self.hour.number {
            self.close();
            self.hour = Hour { number, ..Hour::default() };
        }
        self.hour.samples += 1.0;
        self.hour.sum += value;
        self.hour.squares += value * value;
        if let Some(ahead) = ahead_ms {
            let apart = (ahead / SAMPLES as i64).max(1000);
            if self.line.back().is_none_or(|(at, _)| now_ms - at >= apart) {
                self.line.push_back((now_ms, value));
            }
            while self.line.len() > SAMPLES || self.line.front().is_some_and(|(at, _)| now_ms - at > ahead + apart) {
                self.line.pop_front();
            }
        }
    }

    fn close(&mut self) {
        let Hour { number, samples, sum, squares } = self.hour;
        if samples == 0.0 {
            return;
        }
        let mean = sum / samples;
        let within = (squares / samples - mean * mean).max(0.0);
        let hour = number.rem_euclid(HOURS) as u8;
        let usual = self.hours.entry(hour).or_insert(Usual { mean, variance: within });
        let off = mean - usual.mean;
        let between = usual.variance * (1.0 - NEWEST) + NEWEST * (within + off * off);
        *usual = Usual { mean: usual.mean + NEWEST * off, variance: between };
    }

    fn usual(&self, now_ms: i64) -> Option<Usual> {
        let hour = now_ms.div_euclid(HOUR_MS).rem_euclid(HOURS);
        if let Some(usual) = self.hours.get(&(hour as u8)) {
            return Some(*usual);
        }
        let of_day =
            self.hours.iter().filter(|(known, _)| i64::from(**known) % 24 == hour % 24).map(|(_, usual)| usual);
        let (n, mean, variance) =
            of_day.fold((0.0, 0.0, 0.0), |(n, m, v), usual| (n + 1.0, m + usual.mean, v + usual.variance));
        (n > 0.0).then(|| Usual { mean: mean / n, variance: variance / n })
    }

    /// What is usual now.
    pub fn expected(&self, now_ms: i64) -> Option<f64> {
        self.usual(now_ms).map(|usual| usual.mean)
    }

    /// How many standard deviations a value is above what is usual now.
    pub fn deviation(&self, now_ms: i64, value: f64) -> Option<f64> {
        let usual = self.usual(now_ms)?;
        let least = (usual.mean.abs() * LEAST_SHARE).max(1e-9);
        Some((value - usual.mean) / usual.variance.sqrt().max(least))
    }

    /// Where it leads in so many milliseconds.
    pub fn forecast(&self, now_ms: i64, ahead_ms: i64) -> Option<f64> {
        let known = self.line.len();
        let (first, _) = self.line.front()?;
        if known < LEAST_SAMPLES || now_ms - first < ahead_ms / 8 {
            return None;
        }
        let n = known as f64;
        let x = |at: i64| (at - first) as f64 / 1000.0;
        let (sx, sy) = self.line.iter().fold((0.0, 0.0), |(sx, sy), (at, v)| (sx + x(*at), sy + v));
        let (mx, my) = (sx / n, sy / n);
        let (cov, var) = self.line.iter().fold((0.0, 0.0), |(cov, var), (at, v)| {
            let dx = x(*at) - mx;
            (cov + dx * (v - my), var + dx * dx)
        });
        (var > 0.0).then(|| my + cov / var * (x(now_ms + ahead_ms) - mx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_the_week_is_compared_with_itself() {
        let mut season = Season::default();
        assert_eq!(season.deviation(0, 5.0), None, "nothing is usual yet");
        // Three weeks: 100 by day, 10 by night, each minute.
        let value = |minute: i64| if (minute / 60) % 24 < 12 { 100.0 } else { 10.0 } + (minute % 3) as f64;
        let weeks = 3 * 7 * 24 * 60;
        (0..weeks).for_each(|minute| season.sample(minute * 60_000, value(minute), None));
        let (day, night) = (weeks * 60_000, (weeks + 12 * 60) * 60_000);
        assert!((season.expected(day).unwrap() - 101.0).abs() < 0.1);
        assert!((season.expected(night).unwrap() - 11.0).abs() < 0.1);
        assert!(season.deviation(day, 101.0).unwrap().abs() < 1.0);
        assert!(season.deviation(night, 101.0).unwrap() > 50.0, "by night it is much");
        assert!(season.deviation(day, 11.0).unwrap() < -40.0);
    }

    #[test]
    fn a_disk_that_fills_is_full_when_the_line_says() {
        let mut season = Season::default();
        let ahead = 4 * HOUR_MS;
        // One percent in ten minutes, from 50.
        (0..=120).for_each(|minute| season.sample(minute * 60_000, 50.0 + minute as f64 / 10.0, Some(ahead)));
        let at = season.forecast(120 * 60_000, ahead).unwrap();
        assert!((at - 86.0).abs() < 0.1, "{at}");
        let mut short = Season::default();
        (0..10).for_each(|minute| short.sample(minute * 60_000, minute as f64, Some(ahead)));
        assert_eq!(short.forecast(600_000, ahead), None, "ten minutes say nothing of four hours");
    }
}
