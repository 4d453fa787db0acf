//! Instants as senders of syslog write them: RFC 3339 and what is near it, RFC 3164's without a year, Cisco's with a zone's
//! abbreviation.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

/// What resolves a year or a zone that a message leaves out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    /// When it came in, microseconds since 1970.
    pub(super) us: i64,
    /// Where its sender is taken to be.
    pub(super) zone: Tz,
}

/// An instant, and what follows it.
pub(super) struct Stamp<'a> {
    /// Microseconds since 1970; `None` where its zone is not known.
    pub(super) us: Option<i64>,
    pub(super) rest: &'a str,
}

const DAY_US: u64 = 86_400_000_000;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Abbreviations, and minutes east of Greenwich. Of several zones that one stands for it is the one that brings a message
/// nearest to its receipt, and the first where that is not within a day.
const ZONES: &[(&str, &[i32])] = &[
    ("UTC", &[0]),
    ("GMT", &[0]),
    ("Z", &[0]),
    ("WET", &[0]),
    ("WEST", &[60]),
    ("BST", &[60, 360]),
    ("IST", &[330, 120, 60]),
    ("CET", &[60]),
    ("CEST", &[120]),
    ("MET", &[60]),
    ("MEST", &[120]),
    ("MEZ", &[60]),
    ("MESZ", &[120]),
    ("WAT", &[60]),
    ("CAT", &[120]),
    ("SAST", &[120]),
    ("EET", &[120]),
    ("EEST", &[180]),
    ("IDT", &[180]),
    ("MSK", &[180]),
    ("EAT", &[180]),
    ("TRT", &[180]),
    ("GST", &[240]),
    ("PKT", &[300]),
    ("WIB", &[420]),
    ("ICT", &[420]),
    ("HKT", &[480]),
    ("SGT", &[480]),
    ("MYT", &[480]),
    ("AWST", &[480]),
    ("JST", &[540]),
    ("KST", &[540]),
    ("ACST", &[570]),
    ("ACDT", &[630]),
    ("AEST", &[600]),
    ("AEDT", &[660]),
    ("NZST", &[720]),
    ("NZDT", &[780]),
    ("NST", &[-210]),
    ("NDT", &[-150]),
    ("BRT", &[-180]),
    ("ART", &[-180]),
    ("CLT", &[-240]),
    ("CLST", &[-180]),
    ("AST", &[-240, 180]),
    ("ADT", &[-180]),
    ("EST", &[-300]),
    ("EDT", &[-240]),
    ("CST", &[-360, 480]),
    ("CDT", &[-300]),
    ("MST", &[-420]),
    ("MDT", &[-360]),
    ("PST", &[-480]),
    ("PDT", &[-420]),
    ("AKST", &[-540]),
    ("AKDT", &[-480]),
    ("HST", &[-600]),
];

/// Where a local time counts.
enum Zone {
    /// Where the sender is taken to be.
    Own,
    /// Minutes east of Greenwich, one of these.
    East(&'static [i32]),
    /// The same, as digits say it.
    Exactly(i32),
    /// In one that nobody knows.
    Unknown,
}

/// An instant at the beginning of a text: `2024-01-01T00:00:00.5+01:00`, `2024-01-01 00:00:00,5`, `Jan  1 00:00:00`,
/// `Jan 1 2024 00:00:00.5 CET`, `Jan 1 00:00:00 2024`, `2024 Jan 1 00:00:00`.
pub(super) fn stamp(text: &str, receipt: Receipt) -> Option<Stamp<'_>> {
    if let Some((date, rest)) = iso_date(text) {
        let (time, rest) = clock(rest)?;
        let (zone, rest) = offset(rest);
        return Some(Stamp { us: resolve(Some(date.year()), (date.month(), date.day()), time, &zone, receipt), rest });
    }
    let (mut year, rest) = match digits(text, 4).filter(|(_, rest)| rest.starts_with(' ')) {
        Some((year, rest)) => (Some(year as i32), rest.trim_start_matches(' ')),
        None => (None, text),
    };
    let name = rest.get(..3)?;
    let month = MONTHS.iter().position(|month| name.eq_ignore_ascii_case(month))? as u32 + 1;
    let rest = rest[3..].strip_prefix(' ')?.trim_start_matches(' ');
    let (day, rest) = rest.split_once(' ')?;
    let day: u32 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let mut rest = rest.trim_start_matches(' ');
    if let (None, Some((said, after))) = (year, year_word(rest)) {
        (year, rest) = (Some(said), after);
    }
    let (time, mut rest) = clock(rest)?;
    if let (None, Some((said, after))) = (year, rest.strip_prefix(' ').and_then(year_word)) {
        // The blank before what follows is needed.
        (year, rest) = (Some(said), &rest[rest.len() - after.len() - 1..]);
    }
    let (zone, rest) = zone(rest);
    Some(Stamp { us: resolve(year, (month, day), time, &zone, receipt), rest })
}

/// `hh:mm:ss[.fraction]` of a day, as FortiOS and others say it apart from the date.
pub(super) fn of_parts(date: &str, time: &str, offset_text: Option<&str>, receipt: Receipt) -> Option<i64> {
    let (date, no_more) = self::date(date)?;
    let (time, rest) = clock(time)?;
    if !no_more.is_empty() || !rest.is_empty() {
        return None;
    }
    let zone = offset_text.map_or(Zone::Own, |text| offset(text).0);
    resolve(Some(date.year()), (date.month(), date.day()), time, &zone, receipt)
}

/// So many digits, and what follows.
fn digits(text: &str, n: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(n)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

/// A year, and what follows the blank after it.
fn year_word(text: &str) -> Option<(i32, &str)> {
    let (year, rest) = digits(text, 4)?;
    Some((i32::try_from(year).ok().filter(|year| (1970..2200).contains(year))?, rest.strip_prefix(' ')?))
}

/// `2024-01-01`.
fn date(text: &str) -> Option<(NaiveDate, &str)> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    Some((NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?, rest))
}

/// `2024-01-01T` or with a blank.
fn iso_date(text: &str) -> Option<(NaiveDate, &str)> {
    let (date, rest) = date(text)?;
    Some((date, rest.strip_prefix(['T', 't', ' '])?))
}

/// `hh:mm:ss` and a fraction after `.` or `,`: seconds of the day and microseconds.
fn clock(text: &str) -> Option<((u32, u32), &str)> {
    let hours = text.find(':').filter(|n| (1..=2).contains(n))?;
    let (hour, rest) = digits(text, hours)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let fraction = rest.strip_prefix(['.', ',']).unwrap_or("");
    let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let micros = fraction[..len].bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    let rest = if len > 0 { &fraction[len..] } else { rest };
    Some(((hour * 3600 + minute * 60 + second.min(59), micros), rest))
}

/// `Z`, `+01:00`, `+0100`, also after a blank; without it the time is the sender's own.
fn offset(text: &str) -> (Zone, &str) {
    if let Some(rest) = text.strip_prefix(['Z', 'z'])
        && (rest.is_empty() || rest.starts_with([' ', ':']))
    {
        return (Zone::Exactly(0), rest);
    }
    let said = text.strip_prefix(' ').unwrap_or(text);
    let east = |rest| {
        let (hours, rest) = digits(rest, 2)?;
        let (minutes, rest) = digits(rest.strip_prefix(':').unwrap_or(rest), 2)?;
        (hours <= 14 && minutes < 60 && (rest.is_empty() || rest.starts_with([' ', ':'])))
            .then_some(((hours * 60 + minutes) as i32, rest))
    };
    if let Some((minutes, rest)) = said.strip_prefix('+').and_then(east) {
        return (Zone::Exactly(minutes), rest);
    }
    match said.strip_prefix('-').and_then(east) {
        Some((minutes, rest)) => (Zone::Exactly(-minutes), rest),
        None => (Zone::Own, text),
    }
}

/// An offset, or a blank and a zone's abbreviation. One that is not known is one only where a Cisco's mnemonic follows.
fn zone(text: &str) -> (Zone, &str) {
    let Some(word) = text.strip_prefix(' ') else { return offset(text) };
    let len = word.bytes().take_while(u8::is_ascii_uppercase).count();
    let rest = &word[len..];
    let ends = rest.is_empty() || rest.starts_with([' ', ':']);
    match ZONES.iter().find(|(name, _)| *name == &word[..len]) {
        Some((_, east)) if ends => (Zone::East(east), rest),
        None if (2..=5).contains(&len) && rest.starts_with(": %") => (Zone::Unknown, rest),
        _ => offset(text),
    }
}

/// Of the years and zones that it may mean, the instant that is nearest to receipt.
fn resolve(
    year: Option<i32>,
    (month, day): (u32, u32),
    (second, micros): (u32, u32),
    zone: &Zone,
    receipt: Receipt,
) -> Option<i64> {
    let years = match year {
        Some(year) => year..=year,
        None => {
            let received = DateTime::from_timestamp_micros(receipt.us)?.with_timezone(&receipt.zone).year();
            received - 1..=received + 1
        }
    };
    let away = |at: &i64| at.abs_diff(receipt.us);
    // The year that brings it closest to receipt: within six months either way.
    let nearest = |instant: &dyn Fn(i64) -> Option<i64>| {
        let days = years.clone().filter_map(|year| NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(0, 0, 0));
        let locals =
            days.map(|day| day.and_utc().timestamp_micros() + i64::from(second) * 1_000_000 + i64::from(micros));
        locals.filter_map(instant).min_by_key(away)
    };
    let east = |minutes: i32| nearest(&|local| Some(local - i64::from(minutes) * 60_000_000));
    match zone {
        Zone::Own => nearest(&|local| instant_in(receipt.zone, local)),
        Zone::Exactly(minutes) => east(*minutes),
        Zone::East(zones) => {
            let instants: Vec<i64> = zones.iter().filter_map(|minutes| east(*minutes)).collect();
            let near = instants.iter().copied().min_by_key(away).filter(|at| away(at) < DAY_US);
            near.or(instants.first().copied())
        }
        Zone::Unknown => None,
    }
}

/// When clocks of a zone show that. Of an hour that comes twice the first is meant; one that clocks leave out counts as if
/// they were not set forward yet.
fn instant_in(zone: Tz, local_us: i64) -> Option<i64> {
    let local: NaiveDateTime = DateTime::from_timestamp_micros(local_us)?.naive_utc();
    let shown = zone.from_local_datetime(&local).earliest().map(|at| at.timestamp_micros());
    shown.or_else(|| {
        let before = local.checked_sub_days(Days::new(1))?;
        let east = zone.offset_from_utc_datetime(&before).fix().local_minus_utc();
        Some(local_us - i64::from(east) * 1_000_000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> (Option<i64>, &str) {
        // 2026-11-26T10:00:00Z
        let receipt = Receipt { us: 1_795_687_200_000_000, zone: Tz::UTC };
        let stamp = stamp(text, receipt).unwrap_or_else(|| panic!("{text}"));
        (stamp.us.map(|us| us - receipt.us), stamp.rest)
    }

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn instants_as_they_are_written() {
        for (text, later, rest) in [
            ("Nov 26 10:00:00 h", 0, " h"),
            ("NOV 26 10:00:00 h", 0, " h"),
            ("Nov  6 10:00:00 h", -20 * 24 * HOUR, " h"),
            ("Nov 26 2026 10:00:00 h", 0, " h"),
            ("Nov 26 10:00:00 2026 h", 0, " h"),
            ("Nov 26 10:00:00 2000x h", 0, " 2000x h"),
            ("2026 Nov 26 10:00:00 CET: x", -HOUR, ": x"),
            ("Nov 26 10:00:00.25: x", HOUR / 14_400, ": x"),
            ("Nov 26 10:00:00.123 EST: x", 5 * HOUR + 123_000, ": x"),
            ("Nov 26 2026 10:00:00 EDT: x", 4 * HOUR, ": x"),
            ("Nov 26 10:00:00 CEST host x", -2 * HOUR, " host x"),
            // Half past three in Delhi, noon in Jerusalem: whichever is nearest.
            ("Nov 26 15:30:00 IST: x", 0, ": x"),
            ("Nov 26 12:00:00 IST: x", 0, ": x"),
            ("Nov 26 18:00:00 CST: x", 0, ": x"),
            ("Nov 26 04:00:00 CST: x", 0, ": x"),
            ("2026-11-26T10:00:00 h", 0, " h"),
            ("2026-11-26 10:00:00 h", 0, " h"),
            ("2026-11-26 10:00:00,5 h", HOUR / 7200, " h"),
            ("2026-11-26T10:00:00+02:00 h", -2 * HOUR, " h"),
            ("2026-11-26 10:00:00 -0130 h", HOUR * 3 / 2, " h"),
            ("2026-11-26T10:00:00.5Z h", HOUR / 7200, " h"),
        ] {
            assert_eq!(at(text), (Some(later), rest), "{text}");
        }
        assert_eq!(at("Nov 26 10:00:00 XYT: %A-1-B: x"), (None, ": %A-1-B: x"), "a zone that nobody knows");
        assert_eq!(at("Nov 26 10:00:00 SSHD: x"), (Some(0), " SSHD: x"), "a tag, not a zone");
    }

    #[test]
    fn what_is_none() {
        let receipt = Receipt { us: 0, zone: Tz::UTC };
        for text in
            ["", "Nov", "Nov 26", "Nov 32 10:00:00", "Nov 26 25:00:00", "Now 26 10:00:00", "2026-13-01T00:00:00", "é"]
        {
            assert!(stamp(text, receipt).is_none(), "{text}");
        }
    }

    #[test]
    fn an_hour_that_clocks_leave_out_is_an_instant_all_the_same() {
        let receipt = Receipt { us: 1_711_846_800_000_000, zone: Tz::Europe__Berlin };
        let stamp = stamp("Mar 31 02:30:00 h", receipt).unwrap();
        assert_eq!(stamp.us, Some(1_711_848_600_000_000));
    }
}
