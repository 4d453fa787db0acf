//! Named times: of the day, the week, the month and the year, in a time zone. They mean what Alertmanager's do.
//!
//! ```text
//! period   = { part }                     a period holds when each of its parts does; a part holds when any of its ranges does
//! part     = "times=" HH:MM-HH:MM,…  | "weekdays=" day[:day],… | "days_of_month=" n[:n],…      (-1 is the last)
//!          | "months=" month[:month],… | "years=" year[:year],… | "location=" zone             (UTC, unless said)
//! interval = a list of periods            an interval holds when any of them does
//! ```
//! Times are what a clock on the wall shows: on the night an hour is left out, a range within it does not happen; on the night it
//! comes twice, so does the range. A range that begins after it ends goes on through the night, or the turn of week or year.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use super::oncall::instant;

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Days ahead in which a change is looked for.
const AHEAD: u64 = 400;
/// Bytes of a period.
pub const MAX_PERIOD: usize = 500;
/// Periods of an interval.
pub const MAX_PERIODS: usize = 20;

/// A list of periods.
#[derive(Clone, Debug, Default)]
pub struct Interval(Vec<Period>);

/// Times of which each part holds.
#[derive(Clone, Debug)]
struct Period {
    /// Minutes of the day, the last not included.
    times: Vec<(u16, u16)>,
    /// 0 is Sunday.
    weekdays: Vec<(i32, i32)>,
    days: Vec<(i32, i32)>,
    months: Vec<(i32, i32)>,
    years: Vec<(i32, i32)>,
    zone: Tz,
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl Interval {
    /// Reads a list of periods.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong.
    pub fn read<S: AsRef<str>>(texts: &[S]) -> Result<Self, String> {
        texts.iter().map(|text| Period::read(text.as_ref())).collect::<Result<_, _>>().map(Interval)
    }

    /// Whether it holds at an instant, milliseconds since 1970.
    pub fn holds(&self, at_ms: i64) -> bool {
        instant(at_ms).is_some_and(|at| self.0.iter().any(|period| period.holds(at)))
    }

    /// When that is otherwise for the first time after an instant; `None` where it is not within a year.
    pub fn next_change_ms(&self, at_ms: i64) -> Option<i64> {
        let now = instant(at_ms)?;
        let holds = self.holds(at_ms);
        let today = now.date_naive();
        (0..AHEAD).find_map(|ahead| {
            let day = today.checked_add_days(Days::new(ahead))?;
            let mut edges = BTreeSet::new();
            for period in &self.0 {
                period.edges(day, &mut edges);
            }
            edges.into_iter().find(|at| *at > at_ms && self.holds(*at) != holds)
        })
    }
}

impl Period {
    fn read(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PERIOD {
            return Err(format!("a period has at most {MAX_PERIOD} bytes"));
        }
        let mut period = Period {
            times: Vec::new(),
            weekdays: Vec::new(),
            days: Vec::new(),
            months: Vec::new(),
            years: Vec::new(),
            zone: Tz::UTC,
        };
        for part in text.split_whitespace() {
            let (name, said) = part.split_once('=').ok_or_else(|| format!("`{part}` is no part, as in times=…"))?;
            match name {
                "times" => period.times.extend(said.split(',').map(times).collect::<Result<Vec<_>, _>>()?),
                "weekdays" => period.weekdays.extend(ranges(said, |day| named(&WEEKDAYS, day), |_| true)?),
                "days_of_month" => period.days.extend(ranges(said, number(-31, 31), |(from, to)| {
                    from != 0 && to != 0 && ((from > 0) != (to > 0) || from <= to) && !(from < 0 && to > 0)
                })?),
                "months" => {
                    let month = |said: &str| {
                        named(&MONTHS, said)
                            .map(|m| m + 1)
                            .or_else(|| said.parse().ok())
                            .filter(|m| (1..13).contains(m))
                    };
                    period.months.extend(ranges(said, month, |_| true)?);
                }
                "years" => period.years.extend(ranges(said, number(1970, 9999), |(from, to)| from <= to)?),
                "location" => {
                    period.zone = said.parse().map_err(|_| format!("`{said}` is no time zone, as in Europe/Berlin"))?;
                }
                _ => {
                    let known = "times, weekdays, days_of_month, months, years, location";
                    return Err(format!("there is no part {name}; there are: {known}"));
                }
            }
        }
        Ok(period)
    }

    fn holds(&self, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&self.zone);
        let minute = (local.hour() * 60 + local.minute()) as u16;
        let day = local.day() as i32;
        let last = last_of_month(local.date_naive());
        let within = |ranges: &[(i32, i32)], value: i32| {
            ranges.is_empty()
                || ranges.iter().any(|(from, to)| match from <= to {
                    true => (*from..=*to).contains(&value),
                    false => value >= *from || value <= *to,
                })
        };
        let of_month = |(from, to): &(i32, i32)| {
            let from_end = |n: i32| if n < 0 { last + n + 1 } else { n };
            from_end(*from) <= day && day <= from_end(*to)
        };
        let of_day = |(from, to): &(u16, u16)| match from < to {
            true => (*from..*to).contains(&minute),
            false => minute >= *from || minute < *to,
        };
        (self.times.is_empty() || self.times.iter().any(of_day))
            && within(&self.weekdays, local.weekday().num_days_from_sunday() as i32)
            && (self.days.is_empty() || self.days.iter().any(of_month))
            && within(&self.months, local.month() as i32)
            && within(&self.years, local.year())
    }

    /// When it may begin or end on a day of UTC, milliseconds since 1970.
    fn edges(&self, day: NaiveDate, out: &mut BTreeSet<i64>) {
        let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        let Some(next) = day.checked_add_days(Days::new(1)) else { return };
        let (from, to) = (midnight(day), midnight(next));
        let offset = |at: DateTime<Utc>| at.with_timezone(&self.zone).offset().fix();
        let on_the_day = from.timestamp_millis()..to.timestamp_millis();
        // Where clocks are set, anything may begin or end with that.
        if offset(from) != offset(to) {
            out.extend((0..i64::from(DAY)).map(|minute| on_the_day.start + minute * 60_000));
            return;
        }
        let minutes: BTreeSet<u16> = self.times.iter().flat_map(|(from, to)| [*from, *to]).chain([0]).collect();
        let local = from.with_timezone(&self.zone).date_naive();
        for date in [local, local.checked_add_days(Days::new(1)).unwrap_or(local)] {
            for minute in &minutes {
                let naive = date.and_time(NaiveTime::MIN) + TimeDelta::minutes(i64::from(*minute));
                let at = self.zone.from_local_datetime(&naive);
                let instants = [at.earliest(), at.latest()].into_iter().flatten().map(|at| at.timestamp_millis());
                out.extend(instants.filter(|at| on_the_day.contains(at)));
            }
        }
    }
}

fn last_of_month(date: NaiveDate) -> i32 {
    let (year, month) = if date.month() == 12 { (date.year() + 1, 1) } else { (date.year(), date.month() + 1) };
    let first = NaiveDate::from_ymd_opt(year, month, 1).and_then(|first| first.pred_opt());
    first.map_or(31, |last| last.day() as i32)
}

fn named(names: &[&str], said: &str) -> Option<i32> {
    names.iter().position(|name| name.eq_ignore_ascii_case(said)).map(|n| n as i32)
}

fn number(least: i32, most: i32) -> impl Fn(&str) -> Option<i32> {
    move |said| said.parse().ok().filter(|n| (least..=most).contains(n))
}

fn ranges(
    said: &str,
    read: impl Fn(&str) -> Option<i32>,
    right: impl Fn((i32, i32)) -> bool,
) -> Result<Vec<(i32, i32)>, String> {
    let range = |text: &str| {
        let (from, to) = text.split_once(':').unwrap_or((text, text));
        read(from.trim())
            .zip(read(to.trim()))
            .filter(|range| right(*range))
            .ok_or_else(|| format!("`{text}` is no range here"))
    };
    said.split(',').map(range).collect()
}

fn times(said: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("`{said}` is no range of times, as in 09:00-17:00");
    let time = |text: &str| -> Option<u16> {
        let (hours, minutes) = text.trim().split_once(':')?;
        let two = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
        let at = two(hours)? * 60 + two(minutes).filter(|m| *m < 60)?;
        (at <= DAY).then_some(at)
    };
    let (from, to) = said.split_once('-').ok_or_else(wrong)?;
    time(from).zip(time(to)).filter(|(from, to)| from != to && *from < DAY).ok_or_else(wrong)
}

/// A length of time as Prometheus writes it, `1h30m`, milliseconds.
///
/// # Errors
/// It is none.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no length of time, as in 30s, 5m, 1h30m, 2d");
    const UNITS: [(&str, i64); 7] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
        ("y", 31_536_000_000),
    ];
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    let mut total = (!rest.is_empty()).then_some(0i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let of = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
        let part = number.parse::<i64>().ok().zip(of).and_then(|(n, ms)| n.checked_mul(ms));
        total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
        if total.is_none() {
            return Err(wrong());
        }
        rest = after;
    }
    total.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[track_caller]
    fn check(period: &str, at: &str, holds: bool) {
        assert_eq!(Interval::read(&[period]).unwrap().holds(ms(at)), holds, "{period} at {at}");
    }

    #[test]
    fn parts_hold_together_and_ranges_each() {
        let office = "weekdays=monday:friday times=09:00-17:00 location=Europe/Berlin";
        check(office, "2026-01-05T08:00:00Z", true);
        check(office, "2026-01-05T07:59:59Z", false);
        check(office, "2026-01-05T15:59:59Z", true);
        check(office, "2026-01-05T16:00:00Z", false);
        check(office, "2026-01-04T10:00:00Z", false);
        // In summer an hour earlier.
        check(office, "2026-07-06T07:00:00Z", true);
        check("days_of_month=-1", "2024-02-29T12:00:00Z", true);
        check("days_of_month=-1", "2025-02-28T12:00:00Z", true);
        check("days_of_month=-3:-1", "2025-02-25T12:00:00Z", false);
        check("days_of_month=28:-1", "2025-02-28T12:00:00Z", true);
        check("days_of_month=31", "2025-02-28T12:00:00Z", false);
        check("months=november:february years=2026", "2026-01-01T00:00:00Z", true);
        check("months=november:february years=2026", "2026-03-01T00:00:00Z", false);
        check("weekdays=saturday:sunday", "2026-01-04T00:00:00Z", true);
        check("times=22:00-06:00", "2026-01-04T23:00:00Z", true);
        check("times=22:00-06:00", "2026-01-04T06:00:00Z", false);
        check("times=22:00-24:00", "2026-01-04T23:59:59Z", true);
        check("", "2026-01-04T23:59:59Z", true);
    }

    #[test]
    fn the_hour_that_is_left_out_does_not_happen_and_the_one_that_comes_twice_does_twice() {
        let within = "times=02:15-02:45 location=Europe/Berlin";
        let interval = Interval::read(&[within]).unwrap();
        // 2026-03-29: at 01:00 UTC clocks go from 02:00 to 03:00.
        assert_eq!(interval.next_change_ms(ms("2026-03-29T00:00:00Z")), Some(ms("2026-03-30T00:15:00Z")));
        // 2026-10-25: at 01:00 UTC clocks go from 03:00 to 02:00.
        let mut at = ms("2026-10-25T00:00:00Z");
        let expected = ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"];
        for next in expected {
            at = interval.next_change_ms(at).unwrap();
            assert_eq!(at, ms(next));
        }
        // A range that the gap cuts begins with the hour after it.
        let cut = Interval::read(&["times=02:30-04:00 location=Europe/Berlin"]).unwrap();
        assert_eq!(cut.next_change_ms(ms("2026-03-29T00:00:00Z")), Some(ms("2026-03-29T01:00:00Z")));
    }

    #[test]
    fn changes_are_those_that_a_look_at_each_minute_finds() {
        for texts in [
            &["weekdays=monday:friday times=09:00-17:00 location=America/New_York"][..],
            &["times=00:00-00:30 location=Asia/Kathmandu", "days_of_month=-1 location=Pacific/Auckland"],
            &["times=23:00-01:00 location=Australia/Lord_Howe", "weekdays=sunday"],
        ] {
            let interval = Interval::read(texts).unwrap();
            for start in ["2026-03-06T00:00:00Z", "2026-04-03T13:07:00Z", "2026-10-30T11:00:00Z"] {
                let from = ms(start);
                let by_minute: Vec<i64> = (from / 60_000 + 1..from / 60_000 + 6 * 1440)
                    .map(|minute| minute * 60_000)
                    .filter(|at| interval.holds(*at) != interval.holds(at - 60_000))
                    .collect();
                let mut found = Vec::new();
                let mut at = from;
                while let Some(next) = interval.next_change_ms(at).filter(|next| *next < from + 6 * 86_400_000) {
                    found.push(next);
                    at = next;
                }
                assert_eq!(found, by_minute, "{texts:?} from {start}");
            }
        }
    }

    #[test]
    fn lengths_of_time_are_written_as_prometheus_writes_them() {
        for (text, ms) in [("0", 0), ("30s", 30_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("250ms", 250)] {
            assert_eq!(duration_ms(text), Ok(ms));
        }
        for text in ["", "5", "m", "5 m", "-5m", "99999999999999y", "5mm"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_period_is_refused_by_name() {
        for (text, why) in [
            ("times=9-17", "no range of times"),
            ("times=09:00-25:00", "no range of times"),
            ("weekdays=mon", "is no range"),
            ("days_of_month=0", "is no range"),
            ("location=Berlin", "no time zone"),
            ("hours=1", "there is no part hours"),
            ("friday", "is no part"),
        ] {
            let wrong = Interval::read(&[text]).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
        assert_eq!(Interval::read(&["years=1999"]).unwrap().next_change_ms(ms("2026-01-01T00:00:00Z")), None);
    }
}
