//! When something is due: by an interval or by a cron expression in a time zone, and not while it pauses.
//!
//! ```text
//! minute hour day-of-month month weekday     `30 6 * * mon-fri`; names, ranges, lists, steps, L, W and #; @daily and the like
//! ```
//! **When clocks are set.** A time that is left out is due at the first moment after the gap; a time that comes twice is due the
//! first time. An expression whose hour is `*` says minutes and no times of day: it goes on through a repeated hour, and has nothing
//! to do in one that is left out.

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use radarflow_proto::payload::Timetable;

use crate::routing::times::Interval;

/// Times that are looked at, one after the other, until one is not within a pause.
const MAX_PAUSED: usize = 400;
/// Where an interval has no slot of its own for so long after a pause that took one, it has one there, spread over that time;
/// milliseconds.
const AFTER_PAUSE_MS: i64 = 600_000;
/// No gap is longer: a day was left out where the date line moved. Minutes.
const MAX_GAP_MIN: i64 = 26 * 60;
/// No time comes twice over more than this, minutes.
const MAX_REPEAT_MIN: i64 = 181;
/// What is due less often is never due: leap days of a weekday are eight years apart, or twelve. Days.
const MAX_AHEAD_DAYS: i64 = 13 * 366;

/// A time zone.
///
/// # Errors
/// It is none.
pub fn zone(name: &str) -> Result<Tz, String> {
    match name {
        "" => Ok(Tz::UTC),
        name => name.parse().map_err(|_| format!("`{name}` is no time zone, as in Europe/Berlin")),
    }
}

/// A cron expression, read.
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    /// It says minutes and no times of day.
    hourly: bool,
}

/// Reads a cron expression.
///
/// # Errors
/// What is wrong with it.
pub fn calendar(text: &str) -> Result<Calendar, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let wrong = |why: String| format!("`{text}` is no cron expression, as in `30 6 * * mon-fri`: {why}");
    let cron = parser.parse(text).map_err(|error| wrong(error.to_string()))?;
    let hourly = text.trim().eq_ignore_ascii_case("@hourly") || text.split_whitespace().nth(1) == Some("*");
    let calendar = Calendar { cron, hourly };
    let any_day = DateTime::from_timestamp(1_704_067_200, 0).map(|day| day.naive_utc());
    match any_day.and_then(|day| calendar.next_local(day)) {
        Some(_) => Ok(calendar),
        None => Err(wrong("there is no such day".to_owned())),
    }
}

impl Calendar {
    /// The next time that a clock on the wall shows.
    fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let next = self.cron.find_next_occurrence(&after.and_utc(), false).ok()?.naive_utc();
        (next - after <= TimeDelta::days(MAX_AHEAD_DAYS)).then_some(next)
    }

    /// The instants at which a clock on the wall shows a time at which something is due, the first first.
    fn instants(&self, zone: Tz, local: NaiveDateTime) -> Vec<DateTime<Utc>> {
        let utc = |at: DateTime<Tz>| at.with_timezone(&Utc);
        match zone.from_local_datetime(&local) {
            LocalResult::Single(at) => vec![utc(at)],
            LocalResult::Ambiguous(first, second) if self.hourly => vec![utc(first), utc(second)],
            LocalResult::Ambiguous(first, _) => vec![utc(first)],
            LocalResult::None if self.hourly => Vec::new(),
            LocalResult::None => {
                let after = (1..=MAX_GAP_MIN).map(|minutes| local + TimeDelta::minutes(minutes));
                let first = after.filter_map(|local| zone.from_local_datetime(&local).earliest()).next();
                first.map(utc).into_iter().collect()
            }
        }
    }

    /// When something is due for the first time after an instant.
    fn next(&self, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut local = after.with_timezone(&zone).naive_local();
        if !self.hourly {
            // A later time on the wall is never due earlier.
            loop {
                local = self.next_local(local)?;
                if let Some(due) = self.instants(zone, local).first().filter(|due| **due > after) {
                    return Some(*due);
                }
            }
        }
        let offset = |at: DateTime<Utc>| at.with_timezone(&zone).offset().fix();
        let due = (self.next_local(local)? - offset(after)).and_utc();
        if offset(due) == offset(after) {
            return Some(due);
        }
        // Clocks are set before it is due: of two times that the wall shows the second may come after later ones.
        local -= TimeDelta::minutes(MAX_REPEAT_MIN);
        let mut first: Option<DateTime<Utc>> = None;
        loop {
            local = self.next_local(local)?;
            let due = self.instants(zone, local).into_iter().filter(|at| *at > after).min();
            first = first.into_iter().chain(due).min();
            if let Some(first) = first
                && local > first.with_timezone(&zone).naive_local() + TimeDelta::minutes(MAX_REPEAT_MIN)
            {
                return Some(first);
            }
        }
    }
}

/// When something is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval_ms: i64,
    calendar: Option<Calendar>,
    zone: Tz,
    pauses: Interval,
}

impl Schedule {
    /// Reads a timetable.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(of: &Timetable) -> Result<Self, String> {
        Ok(Schedule {
            interval_ms: i64::try_from(of.interval_s).unwrap_or(i64::MAX / 1000).clamp(1, 366 * 86_400) * 1000,
            calendar: of.cron.as_deref().map(calendar).transpose()?,
            zone: zone(&of.time_zone)?,
            pauses: Interval::read(&of.pauses)?,
        })
    }

    /// How long the interval is, milliseconds; `None` where an expression says when.
    pub fn interval_ms(&self) -> Option<i64> {
        self.calendar.is_none().then_some(self.interval_ms)
    }

    /// When it is due for the first time after an instant; of an interval, where in it a hash of the target says. `None` where that is
    /// never. Milliseconds since 1970.
    pub fn next_ms(&self, phase_ms: i64, after_ms: i64) -> Option<i64> {
        let Some(calendar) = &self.calendar else { return self.next_slot_ms(phase_ms, after_ms) };
        let mut after_ms = after_ms;
        for _ in 0..MAX_PAUSED {
            let next = calendar.next(self.zone, DateTime::from_timestamp_millis(after_ms)?)?.timestamp_millis();
            if !self.pauses.holds(next) {
                return Some(next);
            }
            // What is due at the moment at which the pause is over is due.
            after_ms = self.pauses.next_change_ms(next)? - 1;
        }
        None
    }

    /// The same of an interval. Whoever's slots are all within pauses has one after each.
    fn next_slot_ms(&self, phase_ms: i64, after_ms: i64) -> Option<i64> {
        let spread_ms = phase_ms.rem_euclid(self.interval_ms.min(AFTER_PAUSE_MS));
        let first =
            |after_ms: i64| phase_ms + ((after_ms - phase_ms).div_euclid(self.interval_ms) + 1) * self.interval_ms;
        // What a pause that takes a slot has after it.
        let made_up = |slot: i64| -> Option<i64> {
            let over = self.pauses.next_change_ms(slot)?;
            let own = first(over - 1);
            Some(if own - over <= AFTER_PAUSE_MS { own } else { over + spread_ms })
        };
        let mut slot = first(after_ms) - self.interval_ms;
        for _ in 0..MAX_PAUSED {
            let due = if self.pauses.holds(slot) { made_up(slot)? } else { slot };
            if due > after_ms && !self.pauses.holds(due) {
                return Some(due);
            }
            slot = first(slot.max(due));
        }
        None
    }

    /// How long after an instant the next is due at most, whatever its place in the interval; milliseconds.
    pub fn wait_ms(&self, after_ms: i64) -> Option<i64> {
        let wait = self.next_ms(after_ms, after_ms)? - after_ms;
        let interval = self.interval_ms().filter(|interval| wait > *interval).unwrap_or_default();
        Some(wait + interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[track_caller]
    fn check(cron: &str, zone: &str, pauses: &[&str], after: &str, expected: &[&str]) {
        let of = Timetable {
            interval_s: 60,
            cron: Some(cron.to_owned()),
            time_zone: zone.to_owned(),
            pauses: pauses.iter().map(|p| (*p).to_owned()).collect(),
        };
        let schedule = Schedule::read(&of).unwrap();
        let mut at = ms(after);
        for expected in expected {
            at = schedule.next_ms(0, at).unwrap();
            assert_eq!(DateTime::from_timestamp_millis(at).unwrap().to_rfc3339(), expected.replace('Z', "+00:00"));
        }
    }

    #[test]
    fn a_slot_that_pauses_take_every_day_comes_after_the_pause() {
        let of = |interval_s, pauses: &[&str]| {
            let pauses = pauses.iter().map(|p| (*p).to_owned()).collect();
            Schedule::read(&Timetable { interval_s, cron: None, time_zone: String::new(), pauses }).unwrap()
        };
        let (hour, day) = (3_600_000, 86_400_000);
        let daily = of(86_400, &["times=08:00-18:00"]);
        // At noon, where it would be paused for ever: a little after six, once a day.
        let mut at = 0;
        for nth in 0..5 {
            at = daily.next_ms(12 * hour + 123_456, at).unwrap();
            assert_eq!(at, nth * day + 18 * hour + (12 * hour + 123_456) % 600_000);
        }
        // One that is not taken stays where it is, and what has slots of its own soon after has no other.
        assert_eq!(daily.next_ms(3 * hour, 0), Some(3 * hour));
        let minutes = of(60, &["times=08:00-18:00"]);
        assert_eq!(minutes.next_ms(30_000, 8 * hour), Some(18 * hour + 30_000));
        assert_eq!(minutes.next_ms(30_000, 18 * hour + 30_000), Some(18 * hour + 90_000));
        // What never can be is found to be so soon.
        assert_eq!(of(86_400, &["times=00:00-24:00"]).next_ms(5, 0), None);
    }

    #[test]
    fn a_time_of_day_is_a_time_of_the_zone() {
        let berlin = "Europe/Berlin";
        check(
            "30 6 * * mon-fri",
            berlin,
            &[],
            "2026-01-02T05:30:00Z",
            &["2026-01-05T05:30:00Z", "2026-01-06T05:30:00Z"],
        );
        check("30 6 * * mon-fri", berlin, &[], "2026-07-03T04:30:00Z", &["2026-07-06T04:30:00Z"]);
        check("0 0 29 2 *", "UTC", &[], "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
        check("0 12 L * *", "", &[], "2026-02-01T00:00:00Z", &["2026-02-28T12:00:00Z", "2026-03-31T12:00:00Z"]);
        check("@hourly", "", &[], "2026-02-01T00:00:00Z", &["2026-02-01T01:00:00Z"]);
    }

    #[test]
    fn what_clocks_leave_out_is_due_once_after_it_and_what_they_repeat_the_first_time() {
        let berlin = "Europe/Berlin";
        // 02:00 to 03:00 is left out on 29 March, and comes twice on 25 October.
        check("30 2 * * *", berlin, &[], "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        check(
            "0,30 2,14 * * *",
            berlin,
            &[],
            "2026-03-28T23:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-29T12:00:00Z"],
        );
        check("30 2 * * *", berlin, &[], "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        check("0 2,3 * * *", berlin, &[], "2026-10-24T12:00:00Z", &["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"]);
        // Minutes go on.
        check("*/30 * * * *", berlin, &[], "2026-03-29T00:10:00Z", &["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"]);
        let through = ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"];
        check("*/30 * * * *", berlin, &[], "2026-10-25T00:00:00Z", &through);
        // Half an hour, at the other end of the world; and a day that there was not.
        check("15 2 * * *", "Australia/Lord_Howe", &[], "2026-10-03T12:00:00Z", &["2026-10-03T15:30:00Z"]);
        check(
            "0 9 * * *",
            "Pacific/Apia",
            &[],
            "2011-12-29T20:00:00Z",
            &["2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"],
        );
    }

    #[test]
    fn nothing_is_due_within_a_pause() {
        let night = &["times=22:00-06:00"];
        check("0 * * * *", "", night, "2026-01-01T20:30:00Z", &["2026-01-01T21:00:00Z", "2026-01-02T06:00:00Z"]);
        let of = Timetable { interval_s: 60, pauses: vec!["times=22:00-06:00".to_owned()], ..Timetable::default() };
        let schedule = Schedule::read(&of).unwrap();
        let next = schedule.next_ms(7000, ms("2026-01-01T21:59:10Z")).unwrap();
        assert_eq!(next, ms("2026-01-02T06:00:07Z"));
        assert!(schedule.wait_ms(ms("2026-01-01T22:00:00Z")).unwrap() >= 8 * 3_600_000);
        assert_eq!(schedule.wait_ms(ms("2026-01-01T12:00:00Z")), Some(60_000));
        let never = Timetable { interval_s: 60, pauses: vec![String::new()], ..Timetable::default() };
        assert_eq!(Schedule::read(&never).unwrap().next_ms(0, ms("2026-01-01T22:00:00Z")), None);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "* * * *", "61 * * * *", "0 0 31 2 *", "0 0 0 1 1 * 2027", "0 * * * * *", "a b c d e"] {
            assert!(calendar(text).is_err(), "{text}");
        }
        assert!(zone("Mars/Olympus").is_err());
    }
}
