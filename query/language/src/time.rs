//! Instants, durations and spans as SRQL spells them.

use chrono::{DateTime, Months, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use chrono_tz::Tz;

use crate::slices::Slices;

/// A half-open span of microseconds since 1970, either side open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First instant in it.
    pub from: Option<i64>,
    /// First instant after it.
    pub to: Option<i64>,
}

const UNITS: &[(&str, i64)] = &[
    ("seconds", 1),
    ("second", 1),
    ("secs", 1),
    ("sec", 1),
    ("s", 1),
    ("minutes", 60),
    ("minute", 60),
    ("mins", 60),
    ("min", 60),
    ("m", 60),
    ("hours", 3600),
    ("hour", 3600),
    ("hrs", 3600),
    ("hr", 3600),
    ("h", 3600),
    ("days", 86_400),
    ("day", 86_400),
    ("d", 86_400),
    ("weeks", 604_800),
    ("week", 604_800),
    ("w", 604_800),
    ("months", 2_592_000),
    ("month", 2_592_000),
    ("mo", 2_592_000),
    ("years", 31_536_000),
    ("year", 31_536_000),
    ("y", 31_536_000),
];

/// A duration, microseconds: `5m`, `24 hours`.
pub fn duration(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let n: i64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start_matches([' ', '_', '-']);
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    n.checked_mul(*seconds)?.checked_mul(1_000_000).filter(|us| *us > 0)
}

/// The years 1 to 9999: what is written as a date, microseconds since 1970.
const INSTANTS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

fn local(zone: Tz, naive: NaiveDateTime) -> i64 {
    // An instant that daylight saving skips is the first after it; one it repeats is the earlier.
    Slices::new(1, zone).first(naive.and_utc().timestamp_micros())
}

fn day(zone: Tz, date: NaiveDate) -> Option<Range> {
    let from = local(zone, date.and_time(NaiveTime::MIN));
    let to = local(zone, date.succ_opt()?.and_time(NaiveTime::MIN));
    Some(Range { from: Some(from), to: Some(to) })
}

/// A date or an instant: the range it covers (a date its whole day, an instant one microsecond).
pub fn instant(text: &str, zone: Tz, now_us: i64) -> Option<Range> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    for base in ["now", "today"] {
        if let Some(mut rest) = lower.strip_prefix(base) {
            let now = DateTime::<Utc>::from_timestamp_micros(now_us)?.with_timezone(&zone);
            let start = if base == "now" { now_us } else { day(zone, now.date_naive())?.from? };
            let mut at = start;
            while !rest.is_empty() {
                let sign = match rest.as_bytes()[0] {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                let end = rest[1..].find(['+', '-']).map_or(rest.len(), |n| n + 1);
                at = at.checked_add(sign * duration(&rest[1..end])?).filter(|at| INSTANTS.contains(at))?;
                rest = &rest[end..];
            }
            return Some(Range { from: Some(at), to: Some(at + 1) });
        }
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return day(zone, date);
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
        let at = at.timestamp_micros();
        return Some(Range { from: Some(at), to: Some(at + 1) });
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(naive) = NaiveDateTime::parse_from_str(&text.replacen(' ', "T", 1), format) {
            let at = local(zone, naive);
            return Some(Range { from: Some(at), to: Some(at + 1) });
        }
    }
    None
}

/// What `time:` says.
pub fn span(text: &str, zone: Tz, now_us: i64) -> Option<Range> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let today = DateTime::<Utc>::from_timestamp_micros(now_us)?.with_timezone(&zone).date_naive();
    match lower.as_str() {
        "today" => return day(zone, today),
        "yesterday" => return day(zone, today.pred_opt()?),
        _ => {}
    }
    let relative = lower.strip_prefix("last").map_or(lower.as_str(), |r| r.trim_start_matches([' ', '_', '-']));
    if let Some(us) = duration(relative) {
        // Calendar units by the calendar.
        let unit = relative.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches([' ', '_', '-']);
        let n: u32 = relative.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
        let months = if unit.starts_with("mo") {
            n
        } else if unit.starts_with('y') {
            n.checked_mul(12)?
        } else {
            0
        };
        let from = if months > 0 {
            let now = DateTime::<Utc>::from_timestamp_micros(now_us)?.with_timezone(&zone);
            now.checked_sub_months(Months::new(months))?.timestamp_micros()
        } else {
            now_us.checked_sub(us).filter(|at| INSTANTS.contains(at))?
        };
        return Some(Range { from: Some(from), to: None });
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let (a, b) = inner.split_once(',')?;
        let side = |t: &str| if t.trim().is_empty() { Some(None) } else { instant(t, zone, now_us).map(|r| r.from) };
        return Some(Range { from: side(a)?, to: side(b)? });
    }
    for (op, from, after) in [(">=", true, false), ("<=", false, true), (">", true, true), ("<", false, false)] {
        if let Some(rest) = text.strip_prefix(op) {
            let at = instant(rest, zone, now_us)?;
            let bound = if after { at.to } else { at.from };
            return Some(if from { Range { from: bound, to: None } } else { Range { from: None, to: bound } });
        }
    }
    if let Some((a, b)) = text.split_once("..") {
        let side = |t: &str| if t.is_empty() { Some(None) } else { instant(t, zone, now_us).map(Some) };
        let (a, b) = (side(a)?, side(b)?);
        return Some(Range { from: a.and_then(|r| r.from), to: b.and_then(|r| r.to) });
    }
    let at = instant(text, zone, now_us)?;
    // An instant alone spans nothing; a date spans its day.
    (at.to? - at.from? > 1).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_711_886_400_000_000; // 2024-03-31T12:00:00Z, a day of daylight saving in Berlin

    #[test]
    fn spans() {
        let hour = 3_600_000_000;
        let s = |t| span(t, Tz::UTC, NOW).unwrap();
        for text in ["last_24h", "24h", "last-1-day", "1 Day", "last 24 hours"] {
            assert_eq!(s(text), Range { from: Some(NOW - 24 * hour), to: None }, "{text}");
        }
        assert_eq!(s("today").from, Some(NOW - 12 * hour));
        assert_eq!(s("2024-03-30").to, Some(NOW - 12 * hour));
        assert_eq!(s("[2024-03-30,]"), Range { from: Some(NOW - 36 * hour), to: None });
        assert_eq!(s("2024-03-29..2024-03-30").to, Some(NOW - 12 * hour));
        assert_eq!(s(">=now-1h").from, Some(NOW - hour));
        assert_eq!(s("<=2024-03-30").to, Some(NOW - 12 * hour));
        for wrong in ["soon", "last_290000y", "[now-290000y,]", ">=now+300000y-1d", "last_9000000000000s"] {
            assert!(span(wrong, Tz::UTC, NOW).is_none(), "{wrong}");
        }
        assert!(instant("now-290000y", Tz::UTC, NOW).is_none());
    }

    #[test]
    fn a_day_of_daylight_saving_has_twenty_three_hours() {
        let r = span("2024-03-31", Tz::Europe__Berlin, NOW).unwrap();
        assert_eq!(r.to.unwrap() - r.from.unwrap(), 23 * 3_600_000_000);
        assert!(instant("2024-03-31T02:30", Tz::Europe__Berlin, NOW).is_some());
    }
}
