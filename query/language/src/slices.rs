//! Time in slices of one width, aligned with the wall clock of a time zone.
//!
//! ```text
//! width < 1 day   a slice begins at every instant whose wall time is a multiple of the width
//! width ≥ 1 day   a slice begins at the first instant whose wall time is a multiple or beyond it
//! both            what the wall clock skips begins where it goes on
//! ```
//! Slices follow one another without a gap and cover all time. Where the wall clock is put back, an hour that comes twice is two
//! slices of an hour, and a day is one slice of 25 hours; where it is put forward, a slice is shorter, or is none at all. Weeks
//! begin on Monday. Wall time counts from 1970.

use std::fmt;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const WEEK: i64 = 7 * DAY;
/// The first Monday after 1970 began.
const MONDAY: i64 = 4 * DAY;
/// No wall clock is further from UTC.
const FARTHEST: i64 = 2 * DAY;
/// Beyond this there is no calendar: some sixty thousand years.
const END_OF_TIME: i64 = 2_000_000_000_000 * SECOND;

/// How time is cut. All times are microseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slices {
    width: i64,
    zone: Tz,
}

impl fmt::Debug for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} µs in {}", self.width, self.zone)
    }
}

impl Slices {
    /// Slices of a width, microseconds.
    pub fn new(width: i64, zone: Tz) -> Self {
        Slices { width: width.clamp(1, END_OF_TIME), zone }
    }

    /// How far the wall clock is from UTC.
    fn offset(&self, at: i64) -> i64 {
        if self.zone == Tz::UTC {
            return 0;
        }
        let utc = DateTime::<Utc>::from_timestamp_micros(at).map(|at| at.naive_utc());
        utc.map_or(0, |utc| i64::from(self.zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * SECOND)
    }

    /// The last multiple of the width that is not after a wall time.
    fn floor(&self, wall: i64) -> i64 {
        let origin = if self.width % WEEK == 0 { MONDAY } else { 0 };
        (wall - origin).div_euclid(self.width) * self.width + origin
    }

    /// The first instant in `(from, to]` with another offset than `from`'s; there is one.
    fn change(&self, mut from: i64, mut to: i64) -> i64 {
        let before = self.offset(from);
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            if self.offset(middle) == before {
                from = middle;
            } else {
                to = middle;
            }
        }
        to
    }

    /// The first instant whose wall time is not before one.
    pub fn first(&self, wall: i64) -> i64 {
        let (mut from, mut to) = (wall - FARTHEST, wall + FARTHEST);
        let mut at = from;
        // Offsets change a few times in four days at most; between changes wall time goes on evenly.
        while self.offset(at) != self.offset(to) {
            let change = self.change(at, to);
            if at + self.offset(at) < wall && change - 1 + self.offset(at) >= wall {
                return wall - self.offset(at);
            }
            if change + self.offset(change) >= wall {
                return change;
            }
            at = change;
        }
        (from, to) = (at, to.max(at));
        (wall - self.offset(from)).clamp(from, to)
    }

    /// The start of the slice that an instant is in.
    pub fn start(&self, at: i64) -> i64 {
        let at = at.clamp(-END_OF_TIME, END_OF_TIME);
        if self.width >= DAY { self.start_of_days(at) } else { self.start_within_day(at) }
    }

    fn start_of_days(&self, at: i64) -> i64 {
        let mut wall = self.floor(at + self.offset(at));
        if self.zone == Tz::UTC {
            return wall;
        }
        let mut start = self.first(wall);
        // Before it was put back the wall clock may have shown the next one already.
        loop {
            wall += self.width;
            let next = self.first(wall);
            if next > at {
                return start;
            }
            start = next;
        }
    }

    fn start_within_day(&self, mut at: i64) -> i64 {
        loop {
            let offset = self.offset(at);
            let wall = self.floor(at + offset);
            let start = wall - offset;
            if self.offset(start) == offset {
                return start;
            }
            // The clock was changed since.
            let change = self.change(start, at);
            if wall >= change + self.offset(change - 1) {
                return change;
            }
            at = change - 1;
        }
    }

    /// The end of the slice that begins at an instant: where the next begins.
    pub fn end(&self, start: i64) -> i64 {
        let start = start.clamp(-END_OF_TIME, END_OF_TIME);
        let offset = self.offset(start);
        let mut wall = self.floor(start + offset) + self.width;
        if self.zone == Tz::UTC {
            return wall;
        }
        if self.width >= DAY {
            loop {
                let end = self.first(wall);
                if end > start {
                    return end;
                }
                wall += self.width;
            }
        }
        let end = wall - offset;
        if self.offset(end) == offset {
            return end;
        }
        let change = self.change(start, end);
        if self.start(change) == change {
            return change;
        }
        let offset = self.offset(change);
        self.floor(change + offset) + self.width - offset
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::TZ_VARIANTS;
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600 * SECOND;
    const MINUTE: i64 = 60 * SECOND;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    /// The starts of slices in a span, told one after another.
    fn starts(slices: Slices, from: i64, to: i64) -> Vec<i64> {
        let first = slices.start(from);
        std::iter::successors(Some(first), |at| Some(slices.end(*at))).take_while(|at| *at < to).collect()
    }

    /// The same as the definition says, minute by minute.
    fn naive(width: i64, zone: Tz, from: i64, to: i64) -> Vec<i64> {
        let slices = Slices::new(width, zone);
        let wall = |at: i64| at + slices.offset(at);
        let origin = if width % WEEK == 0 { MONDAY } else { 0 };
        let (mut starts, mut highest) = (Vec::new(), i64::MIN);
        let begin = from - 3 * DAY - width;
        for at in (begin..to).step_by(MINUTE as usize) {
            let (before, now) = (wall(at - MINUTE), wall(at));
            let multiple = |from: i64, to: i64| (to - origin).div_euclid(width) > (from - origin).div_euclid(width);
            let begins = if width >= DAY {
                multiple(highest.max(before), now)
            } else {
                (now - origin) % width == 0 || now > before + MINUTE && multiple(before, now)
            };
            highest = highest.max(now);
            if begins && at > begin {
                starts.push(at);
            }
        }
        let first = starts.iter().rposition(|at| *at <= from).unwrap_or(0);
        starts.split_off(first)
    }

    #[test]
    fn hours_that_come_twice_are_two_and_days_have_as_many_as_they_have() {
        let berlin = Tz::Europe__Berlin;
        let (from, to) = (at("2024-10-27T00:00:00+02:00"), at("2024-10-28T00:00:00+01:00"));
        for (width, n) in [(HOUR, 25), (HOUR / 2, 50), (2 * HOUR, 13), (DAY, 1)] {
            assert_eq!(starts(Slices::new(width, berlin), from, to).len(), n, "{width}");
        }
        let (from, to) = (at("2024-03-31T00:00:00+01:00"), at("2024-04-01T00:00:00+02:00"));
        for (width, n) in [(HOUR, 23), (HOUR / 2, 46), (2 * HOUR, 12), (DAY, 1)] {
            assert_eq!(starts(Slices::new(width, berlin), from, to).len(), n, "{width}");
        }
        let days = Slices::new(DAY, berlin);
        assert_eq!(days.end(from) - days.start(to - 1), 23 * HOUR);
        // A day that never was: Samoa went over the date line.
        let days = Slices::new(DAY, Tz::Pacific__Apia);
        let last = days.start(at("2011-12-29T12:00:00-10:00"));
        assert_eq!(
            (days.end(last), days.end(days.end(last))),
            (at("2011-12-31T00:00:00+14:00"), at("2012-01-01T00:00:00+14:00"))
        );
        // A day without a midnight begins when it begins.
        let days = Slices::new(DAY, Tz::America__Sao_Paulo);
        assert_eq!(days.start(at("2018-11-04T12:00:00-02:00")), at("2018-11-04T01:00:00-02:00"));
        assert_eq!(Slices::new(WEEK, berlin).start(from), at("2024-03-25T00:00:00+01:00"), "a Monday");
    }

    #[test]
    fn no_time_is_too_far() {
        for zone in [Tz::UTC, Tz::Asia__Tokyo, Tz::America__New_York] {
            for width in [1, HOUR, DAY, WEEK, i64::MAX] {
                let slices = Slices::new(width, zone);
                for at in [i64::MIN, -1, 0, i64::MAX] {
                    assert!(slices.end(slices.start(at)) > slices.start(at), "{width} {at}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn slices_are_what_is_said_of_them(
            zone in 0..TZ_VARIANTS.len(),
            near in prop_oneof![
                Just("2024-03-31T01:00:00Z"), Just("2024-10-27T01:00:00Z"), Just("2024-11-03T06:00:00Z"),
                Just("2024-04-06T15:00:00Z"), Just("2024-10-05T15:30:00Z"), Just("2011-12-30T10:00:00Z"),
                Just("2006-10-29T02:31:00Z"), Just("1993-08-21T12:00:00Z"),
            ],
            days in -400..400_i64,
            width in prop_oneof![
                Just(5 * MINUTE), Just(15 * MINUTE), Just(HOUR / 2), Just(45 * MINUTE), Just(HOUR), Just(2 * HOUR),
                Just(7 * HOUR), Just(12 * HOUR), Just(DAY), Just(36 * HOUR), Just(2 * DAY), Just(WEEK),
            ],
        ) {
            let zone = TZ_VARIANTS[zone];
            // Where there is a change, it is near the noon and midnight that are looked at; a few days round each.
            let from = at(near) + if days % 3 == 0 { 0 } else { days * DAY } - DAY;
            let to = from + 4 * DAY;
            let slices = Slices::new(width, zone);
            let told = starts(slices, from, to);
            prop_assert_eq!(&told, &naive(width, zone, from, to), "{} {:?}", zone, slices);
            for pair in told.windows(2) {
                for inside in [pair[0], pair[0] + 1, i64::midpoint(pair[0], pair[1]), pair[1] - 1] {
                    prop_assert_eq!(slices.start(inside), pair[0]);
                }
            }
        }
    }
}
