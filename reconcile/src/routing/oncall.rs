//! Who is on call: a rota, its overrides, and an instant.
//!
//! A rota hands over in turn: each of its people for a `shift` from `starts_at` on. Shifts of whole days end at the same time of day
//! in the rota's zone, whatever clocks do there meanwhile; others are lengths of time. Outside of its time intervals nobody is on call.
//! An override puts somebody in for a while; of several the one that was stated last counts.
//!
//! All of it is a function of what is stated and of the clock.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, Days, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use radarflow_proto::resource::Resource;

use super::times::{Interval, duration_ms};

/// How a route or a level of escalation names whoever is on call: `oncall:NAME`.
pub const ONCALL: &str = "oncall:";
/// Changes that are looked at of a turn, and of what comes after it.
const MAX_CHANGES: usize = 500;
/// How far ahead the next one is looked for, milliseconds.
const AHEAD_MS: i64 = 90 * DAY_MS;

const DAY_MS: i64 = 86_400_000;

/// Somebody, and by which receiver they are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Person {
    /// What they are called.
    pub name: String,
    /// The receiver.
    pub receiver: String,
}

impl Person {
    /// `PERSON=RECEIVER`, or a receiver that is called as the person is.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn read(text: &str) -> Result<Self, String> {
        let (name, receiver) = text.split_once('=').unwrap_or((text, text));
        let (name, receiver) = (name.trim(), receiver.trim());
        match name.is_empty() || receiver.is_empty() {
            true => Err(format!("`{text}` is no PERSON=RECEIVER, as ann=ann-pager is")),
            false => Ok(Person { name: name.to_owned(), receiver: receiver.to_owned() }),
        }
    }

    /// Somebody of these people, who need not say again by which receiver; or somebody else.
    ///
    /// # Errors
    /// It is nobody.
    pub fn of(text: &str, people: &[String]) -> Result<Self, String> {
        let mut people = people.iter().filter_map(|person| Person::read(person).ok());
        people.find(|person| person.name == text).map_or_else(|| Person::read(text), Ok)
    }
}

/// How long somebody's turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shift {
    Days(i64),
    Ms(i64),
}

/// Somebody who takes over for a while.
#[derive(Clone, Debug)]
struct Override {
    name: String,
    person: Person,
    from_ms: i64,
    to_ms: i64,
    /// The newest counts.
    stated: (i64, String),
}

/// A rota, read.
#[derive(Clone, Debug)]
pub struct Rota {
    said: Vec<String>,
    people: Vec<Person>,
    starts_ms: i64,
    starts: NaiveDateTime,
    zone: Tz,
    shift: Shift,
    intervals: Vec<String>,
    overrides: Vec<Override>,
}

/// Who is on call, or nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Since when, as far as their turn or their override goes back, milliseconds since 1970; unknown before the first turn.
    pub since_ms: Option<i64>,
    /// Until when that is so, if it ends.
    pub until_ms: Option<i64>,
    /// Who.
    pub person: Option<Person>,
    /// By which override.
    pub by: Option<String>,
}

/// An instant of a year that calendars reckon with everywhere.
pub(super) fn instant(ms: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(ms).filter(|at| (1..=9999).contains(&at.year()))
}

impl Rota {
    /// What a resource says.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn read(rota: &Resource) -> Result<Rota, (&'static str, String)> {
        let said = rota.texts("people");
        if said.is_empty() {
            return Err(("people", "somebody must be on call".to_owned()));
        }
        let people = said.iter().map(|text| Person::read(text)).collect::<Result<_, _>>();
        let zone = rota.text("time_zone").unwrap_or("UTC");
        let zone: Tz =
            zone.parse().map_err(|_| ("time_zone", format!("`{zone}` is no time zone, as Europe/Berlin is")))?;
        let ms = duration_ms(rota.text("shift").unwrap_or_default()).map_err(|why| ("shift", why))?;
        if !(3_600_000..=366 * DAY_MS).contains(&ms) {
            return Err(("shift", "it is an hour at least and a year at most".to_owned()));
        }
        let starts = rota.number("starts_at").and_then(|us| instant(us.div_euclid(1000)));
        let starts = starts.ok_or(("starts_at", "an instant must be said".to_owned()))?;
        Ok(Rota {
            people: people.map_err(|why| ("people", why))?,
            said,
            starts_ms: starts.timestamp_millis(),
            starts: starts.with_timezone(&zone).naive_local(),
            zone,
            shift: if ms % DAY_MS == 0 { Shift::Days(ms / DAY_MS) } else { Shift::Ms(ms) },
            intervals: rota.texts("time_intervals"),
            overrides: Vec::new(),
        })
    }

    /// Takes in an override of it; one that names nobody is none.
    pub fn take(&mut self, of: &Resource) {
        let ms = |field| of.number(field).map(|us| us.div_euclid(1000));
        let person = of.text("person").and_then(|said| Person::of(said, &self.said).ok());
        if let (Some(person), Some(from_ms), Some(to_ms)) = (person, ms("starts_at"), ms("ends_at")) {
            let stated = (of.updated_us, of.id.clone());
            self.overrides.push(Override { name: of.id.clone(), person, from_ms, to_ms, stated });
        }
    }

    /// The receivers of its people.
    pub fn receivers(&self) -> impl Iterator<Item = &str> {
        self.people.iter().map(|person| person.receiver.as_str())
    }

    /// When the turn of that number begins.
    fn handover_ms(&self, turn: i64) -> Option<i64> {
        if turn == 0 {
            return Some(self.starts_ms);
        }
        let days = match self.shift {
            Shift::Days(days) => u64::try_from(turn.checked_mul(days)?).ok()?,
            Shift::Ms(ms) => return self.starts_ms.checked_add(turn.checked_mul(ms)?),
        };
        let local = self.starts.checked_add_days(Days::new(days)).filter(|local| local.year() <= 9999)?;
        // What falls into an hour that is left out happens when that is over; in one that comes twice, the first time.
        let minutes = (0..=180).map(|minutes| local + TimeDelta::minutes(minutes));
        let at = minutes.filter_map(|local| self.zone.from_local_datetime(&local).earliest()).next()?;
        Some(at.timestamp_millis())
    }

    /// Whose turn it is, from when to when; nobody's before the first.
    fn turn(&self, at_ms: i64) -> Option<(&Person, i64, i64)> {
        if at_ms < self.starts_ms {
            return None;
        }
        let length = match self.shift {
            Shift::Days(days) => days * DAY_MS,
            Shift::Ms(ms) => ms,
        };
        // Clocks are set by less than a turn: the number is right, or off by one.
        let about = (at_ms - self.starts_ms) / length;
        let begun = |turn: &i64| *turn >= 0 && self.handover_ms(*turn).is_some_and(|ms| ms <= at_ms);
        let turn = (about - 1..=about + 1).rev().find(begun)?;
        let person = self.people.get(usize::try_from(turn).ok()? % self.people.len())?;
        Some((person, self.handover_ms(turn)?, self.handover_ms(turn + 1)?))
    }

    /// Who is on call at an instant, and until when at least.
    fn at(&self, at_ms: i64, intervals: &BTreeMap<String, Interval>) -> Duty {
        let mut until_ms: Option<i64> = None;
        let mut soon = |at: Option<i64>| {
            if let Some(at) = at.filter(|at| *at > at_ms) {
                until_ms = Some(until_ms.map_or(at, |until| until.min(at)));
            }
        };
        for over in self.overrides.iter().filter(|over| over.to_ms > at_ms) {
            soon(Some(over.from_ms));
            soon(Some(over.to_ms));
        }
        let holds = |over: &&Override| over.from_ms <= at_ms && at_ms < over.to_ms;
        if let Some(over) = self.overrides.iter().filter(holds).max_by_key(|over| &over.stated) {
            let (person, by) = (Some(over.person.clone()), Some(over.name.clone()));
            return Duty { since_ms: Some(over.from_ms), until_ms, person, by };
        }
        let own: Vec<&Interval> = self.intervals.iter().filter_map(|name| intervals.get(name)).collect();
        own.iter().for_each(|interval| soon(interval.next_change_ms(at_ms)));
        let is_on = own.is_empty() || own.iter().any(|interval| interval.holds(at_ms));
        let turn = self.turn(at_ms);
        match &turn {
            Some((_, _, ends)) => soon(Some(*ends)),
            None => soon(Some(self.starts_ms)),
        }
        let person = turn.filter(|_| is_on).map(|(person, _, _)| person.clone());
        Duty { since_ms: None, until_ms, person, by: None }
    }

    /// Who is on call at an instant.
    pub fn duty(&self, now_ms: i64, intervals: &BTreeMap<String, Interval>) -> Duty {
        // From the beginning of the turn on: what is said hangs on what is stated, and not on when it was looked at before.
        let Some((_, mut at_ms, _)) = self.turn(now_ms) else { return self.at(now_ms, intervals) };
        let mut duty = Duty { since_ms: Some(at_ms), ..self.at(at_ms, intervals) };
        for _ in 0..MAX_CHANGES {
            let Some(next_ms) = duty.until_ms.filter(|next| *next <= now_ms) else { return duty };
            at_ms = next_ms;
            let next = self.at(at_ms, intervals);
            let same = (&duty.person, &duty.by) == (&next.person, &next.by);
            let since_ms = if same { duty.since_ms } else { Some(at_ms) };
            duty = Duty { since_ms, ..next };
        }
        // It changes too often to say since when.
        Duty { since_ms: None, ..self.at(now_ms, intervals) }
    }

    /// Who comes next, and when: the first who is another.
    pub fn next(&self, now: &Duty, intervals: &BTreeMap<String, Interval>) -> Option<(Person, i64)> {
        let names: BTreeSet<&Person> =
            self.people.iter().chain(self.overrides.iter().map(|over| &over.person)).collect();
        if names.len() < 2 && now.person.is_some() {
            return None;
        }
        let first_ms = now.until_ms?;
        let mut at_ms = first_ms;
        for _ in 0..MAX_CHANGES {
            let next = self.at(at_ms, intervals);
            match next.person {
                Some(person) if Some(&person) != now.person.as_ref() => return Some((person, at_ms)),
                _ => at_ms = next.until_ms.filter(|next| *next < first_ms + AHEAD_MS)?,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::resource::Shown;
    use serde_json::{Value, json};

    use super::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    fn resource(id: &str, fields: &Value, updated_us: i64) -> Resource {
        Resource {
            resource: "rotas".into(),
            tenant: "t".into(),
            id: id.into(),
            fields: Shown(fields.as_object().unwrap().clone().into_iter().collect()),
            secrets: BTreeMap::new(),
            owner: String::new(),
            created_us: 0,
            created_by: String::new(),
            updated_us,
            updated_by: String::new(),
            epoch: 1,
        }
    }

    /// Three people, a week each, handed over on Mondays at nine in Berlin.
    fn weekly(more: &Value) -> Rota {
        let mut fields = json!({"people": ["ann=pager-ann", "bob", "cho"], "shift": "1w", "time_zone": "Europe/Berlin",
            "starts_at": ms("2026-03-16T08:00:00Z") * 1000});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Rota::read(&resource("net", &fields, 0)).unwrap()
    }

    fn over(person: &str, from: &str, to: &str) -> Value {
        json!({"person": person, "starts_at": ms(from) * 1000, "ends_at": ms(to) * 1000})
    }

    fn who(rota: &Rota, at: &str, intervals: &BTreeMap<String, Interval>) -> String {
        rota.duty(ms(at), intervals).person.map_or("-".to_owned(), |person| person.name)
    }

    #[test]
    fn turns_are_handed_over_at_the_same_time_of_day_whatever_clocks_do() {
        let (rota, none) = (weekly(&json!({})), BTreeMap::new());
        for (at, name) in [
            ("2026-03-16T07:59:59Z", "-"),
            ("2026-03-16T08:00:00Z", "ann"),
            ("2026-03-23T07:59:59Z", "ann"),
            ("2026-03-23T08:00:00Z", "bob"),
            // Summer time since the 29th: nine is at seven of UTC.
            ("2026-03-30T06:59:59Z", "bob"),
            ("2026-03-30T07:00:00Z", "cho"),
            ("2026-04-06T07:00:00Z", "ann"),
            ("2026-10-26T07:59:59Z", "bob"),
            ("2026-10-26T08:00:00Z", "cho"),
        ] {
            assert_eq!(who(&rota, at, &none), name, "{at}");
        }
        assert_eq!(rota.duty(ms("2026-03-20T00:00:00Z"), &none).person.unwrap().receiver, "pager-ann");
    }

    #[test]
    fn a_handover_in_an_hour_that_is_left_out_is_when_that_is_over() {
        let begins = |starts: &str, zone: &str| {
            weekly(&json!({"starts_at": ms(starts) * 1000, "shift": "1d", "time_zone": zone})).handover_ms(1)
        };
        // 02:30 on 2026-03-28 in Berlin; the next day there is none. On Lord Howe half an hour is left out.
        assert_eq!(begins("2026-03-28T01:30:00Z", "Europe/Berlin"), Some(ms("2026-03-29T01:00:00Z")));
        assert_eq!(begins("2026-10-02T15:45:00Z", "Australia/Lord_Howe"), Some(ms("2026-10-03T15:30:00Z")));
        // Of an hour that comes twice the first turn begins when it says so, a later one the first time.
        let twice = weekly(&json!({"starts_at": ms("2026-10-25T01:30:00Z") * 1000, "shift": "1d"}));
        assert_eq!(twice.handover_ms(0), Some(ms("2026-10-25T01:30:00Z")));
        assert_eq!(begins("2026-10-24T00:30:00Z", "Europe/Berlin"), Some(ms("2026-10-25T00:30:00Z")));
    }

    #[test]
    fn instants_beyond_the_calendar_are_refused() {
        for starts in [i64::MAX, i64::MIN, 8_210_266_876_799_000_000, -8_000_000_000_000_000_000] {
            let fields = json!({"people": ["ann"], "shift": "1w", "time_zone": "Europe/Berlin", "starts_at": starts});
            assert_eq!(Rota::read(&resource("net", &fields, 0)).unwrap_err().0, "starts_at");
        }
        // The last turn of the calendar has no end, and nothing breaks there.
        let last = weekly(&json!({"starts_at": ms("9999-12-30T00:00:00Z") * 1000}));
        let duty = last.duty(ms("9999-12-31T00:00:00Z"), &BTreeMap::new());
        assert_eq!(last.next(&duty, &BTreeMap::new()), None);
    }

    #[test]
    fn shifts_of_hours_are_lengths_of_time() {
        let rota = weekly(&json!({"shift": "12h"}));
        let none = BTreeMap::new();
        assert_eq!(who(&rota, "2026-03-16T19:59:59Z", &none), "ann");
        assert_eq!(who(&rota, "2026-03-16T20:00:00Z", &none), "bob");
        assert_eq!(who(&rota, "2026-03-17T20:00:00Z", &none), "ann");
    }

    #[test]
    fn an_override_takes_over_and_the_newest_counts() {
        let mut rota = weekly(&json!({}));
        rota.take(&resource("a", &over("cho", "2026-03-17T00:00:00Z", "2026-03-19T00:00:00Z"), 1));
        rota.take(&resource("b", &over("dan=dan-mail", "2026-03-18T00:00:00Z", "2026-03-18T12:00:00Z"), 2));
        let none = BTreeMap::new();
        for (at, name, since, by) in [
            ("2026-03-16T09:00:00Z", "ann", "2026-03-16T08:00:00Z", None),
            ("2026-03-17T09:00:00Z", "cho", "2026-03-17T00:00:00Z", Some("a")),
            ("2026-03-18T01:00:00Z", "dan", "2026-03-18T00:00:00Z", Some("b")),
            ("2026-03-18T13:00:00Z", "cho", "2026-03-18T12:00:00Z", Some("a")),
            ("2026-03-19T00:00:00Z", "ann", "2026-03-19T00:00:00Z", None),
            ("2026-03-23T08:00:00Z", "bob", "2026-03-23T08:00:00Z", None),
        ] {
            let duty = rota.duty(ms(at), &none);
            let person = duty.person.as_ref().map(|person| person.name.as_str());
            assert_eq!((person, duty.since_ms, duty.by.as_deref()), (Some(name), Some(ms(since)), by), "{at}");
        }
        assert_eq!(rota.receivers().collect::<Vec<_>>(), ["pager-ann", "bob", "cho"]);
        let now = rota.duty(ms("2026-03-18T01:00:00Z"), &none);
        let (next, at) = rota.next(&now, &none).unwrap();
        assert_eq!((next.name.as_str(), at), ("cho", ms("2026-03-18T12:00:00Z")));
        let alone = weekly(&json!({"people": ["ann"]}));
        assert_eq!(alone.next(&alone.duty(ms("2026-03-18T01:00:00Z"), &none), &none), None);
    }

    #[test]
    fn outside_of_its_times_nobody_is_on_call() {
        let rota = weekly(&json!({"time_intervals": ["office"]}));
        let office = Interval::read(&["weekdays=monday:friday times=09:00-17:00 location=Europe/Berlin"]).unwrap();
        let intervals = BTreeMap::from([("office".to_owned(), office)]);
        for (at, name) in [
            ("2026-03-17T08:00:00Z", "ann"),
            ("2026-03-17T16:00:00Z", "-"),
            ("2026-03-21T10:00:00Z", "-"),
            ("2026-03-24T10:00:00Z", "bob"),
        ] {
            assert_eq!(who(&rota, at, &intervals), name, "{at}");
        }
        let at = |text: &str| rota.duty(ms(text), &intervals);
        let night = at("2026-03-17T20:00:00Z");
        assert_eq!((night.person, night.until_ms), (None, Some(ms("2026-03-18T08:00:00Z"))));
        assert_eq!(at("2026-03-18T10:00:00Z").since_ms, Some(ms("2026-03-18T08:00:00Z")));
        // Until the end that is told it is as it was told, and then it is not.
        let mut now = ms("2026-03-16T08:00:00Z");
        for _ in 0..200 {
            let duty = rota.duty(now, &intervals);
            let until = duty.until_ms.unwrap();
            assert_eq!(rota.duty((now + until) / 2, &intervals), duty);
            now = until;
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_field() {
        let wrong = |more: Value| {
            let mut fields = json!({"people": ["ann"], "shift": "1w", "starts_at": 0});
            fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Rota::read(&resource("net", &fields, 0)).unwrap_err().0
        };
        assert_eq!(wrong(json!({"people": []})), "people");
        assert_eq!(wrong(json!({"people": ["=x"]})), "people");
        assert_eq!(wrong(json!({"shift": "weekly"})), "shift");
        assert_eq!(wrong(json!({"shift": "1m"})), "shift");
        assert_eq!(wrong(json!({"time_zone": "Berlin"})), "time_zone");
        assert_eq!(wrong(json!({"starts_at": null})), "starts_at");
    }
}
