//! Who is on call: a rota, its overrides, and an instant.
//!
//! A rota hands over in turn: each of its people for a `shift` from `starts_at` on. Shifts of whole days end at the same time of day
//! in the rota's zone, whatever clocks do there meanwhile; others are lengths of time. Outside of its time intervals nobody is on call.
//! An override puts somebody in for a while; of several the one that was stated last counts.
//!
//! All of it is a function of what is stated and of the clock: who was on call is known for as long as what is stated stands.

use std::collections::BTreeMap;

use chrono::offset::LocalResult;
use chrono::{DateTime, Days, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use radarflow_proto::resource::Resource;

use super::times::{Interval, duration_ms};

/// How a route or a level of escalation names whoever is on call: `oncall:NAME`.
pub const ONCALL: &str = "oncall:";
/// How far back it is known who was on call while an alert burnt, milliseconds.
pub const BACK_MS: i64 = 30 * DAY_MS;
/// Stretches that are looked at in that time.
const MAX_STRETCHES: usize = 2000;

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
    people: Vec<Person>,
    starts: NaiveDateTime,
    zone: Tz,
    shift: Shift,
    intervals: Vec<String>,
    overrides: Vec<Override>,
}

/// A time in which the same one is on call, or nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// When it began, milliseconds since 1970.
    pub from_ms: i64,
    /// When it ends, if ever.
    pub to_ms: Option<i64>,
    /// Who is on call.
    pub person: Option<Person>,
    /// By which override.
    pub by: Option<String>,
}

fn instant(ms: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(ms)
}

impl Rota {
    /// What a resource says.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn read(rota: &Resource) -> Result<Rota, (&'static str, String)> {
        let people = rota.texts("people");
        if people.is_empty() {
            return Err(("people", "somebody must be on call".to_owned()));
        }
        let people = people.iter().map(|text| Person::read(text)).collect::<Result<_, _>>();
        let zone = rota.text("time_zone").unwrap_or("UTC");
        let zone: Tz =
            zone.parse().map_err(|_| ("time_zone", format!("`{zone}` is no time zone, as Europe/Berlin is")))?;
        let ms = duration_ms(rota.text("shift").unwrap_or_default()).map_err(|why| ("shift", why))?;
        if !(3_600_000..=366 * DAY_MS).contains(&ms) {
            return Err(("shift", "it is an hour at least and a year at most".to_owned()));
        }
        let starts = rota.number("starts_at").and_then(|us| instant(us.div_euclid(1000)));
        let starts = starts.ok_or(("starts_at", "it must be said".to_owned()))?;
        Ok(Rota {
            people: people.map_err(|why| ("people", why))?,
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
        let said = of.text("person").unwrap_or_default();
        // Somebody of the rota need not say again by which receiver.
        let known = self.people.iter().find(|person| person.name == said).cloned();
        let person = known.or_else(|| Person::read(said).ok());
        if let (Some(person), Some(from_ms), Some(to_ms)) = (person, ms("starts_at"), ms("ends_at")) {
            let stated = (of.updated_us, of.id.clone());
            self.overrides.push(Override { name: of.id.clone(), person, from_ms, to_ms, stated });
        }
    }

    /// The receivers that it may lead to.
    pub fn receivers(&self) -> impl Iterator<Item = &str> {
        let of_overrides = self.overrides.iter().map(|over| &over.person);
        self.people.iter().chain(of_overrides).map(|person| person.receiver.as_str())
    }

    /// When the turn of that number begins.
    fn handover_ms(&self, turn: i64) -> Option<i64> {
        let (days, rest) = match self.shift {
            Shift::Days(days) => (turn.checked_mul(days)?, 0),
            Shift::Ms(ms) => (0, turn.checked_mul(ms)?),
        };
        let local = match u64::try_from(days) {
            Ok(days) => self.starts.checked_add_days(Days::new(days))?,
            Err(_) => self.starts.checked_sub_days(Days::new(days.unsigned_abs()))?,
        };
        // What falls into an hour that is left out happens when that is over; in one that comes twice, the first time.
        let at = match self.zone.from_local_datetime(&local) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => at,
            LocalResult::None => {
                self.zone.from_local_datetime(&local.checked_add_signed(TimeDelta::hours(1))?).earliest()?
            }
        };
        at.timestamp_millis().checked_add(rest)
    }

    /// Whose turn it is, from when to when; nobody's before the first.
    fn turn(&self, at_ms: i64) -> Option<(&Person, i64, i64)> {
        let first = self.handover_ms(0)?;
        if at_ms < first {
            return None;
        }
        let length = match self.shift {
            Shift::Days(days) => days * DAY_MS,
            Shift::Ms(ms) => ms,
        };
        // Clocks are set by less than a turn: the number is right, or off by one.
        let about = (at_ms - first) / length;
        let turn =
            (about - 1..=about + 1).rev().find(|n| *n >= 0 && self.handover_ms(*n).is_some_and(|ms| ms <= at_ms))?;
        let person = self.people.get(usize::try_from(turn).ok()? % self.people.len())?;
        Some((person, self.handover_ms(turn)?, self.handover_ms(turn + 1)?))
    }

    /// Who is on call at an instant, and until when that is so at least.
    fn at(&self, at_ms: i64, intervals: &BTreeMap<String, Interval>) -> Stretch {
        let mut until: Option<i64> = None;
        let mut soon = |at: Option<i64>| {
            if let Some(at) = at.filter(|at| *at > at_ms) {
                until = Some(until.map_or(at, |until| until.min(at)));
            }
        };
        for over in &self.overrides {
            soon(Some(over.from_ms));
            soon(Some(over.to_ms));
        }
        let holds = |over: &&Override| over.from_ms <= at_ms && at_ms < over.to_ms;
        if let Some(over) = self.overrides.iter().filter(holds).max_by_key(|over| &over.stated) {
            let (person, by) = (Some(over.person.clone()), Some(over.name.clone()));
            return Stretch { from_ms: at_ms, to_ms: until, person, by };
        }
        let own: Vec<&Interval> = self.intervals.iter().filter_map(|name| intervals.get(name)).collect();
        own.iter().for_each(|interval| soon(interval.next_change_ms(at_ms)));
        let is_on = own.is_empty() || own.iter().any(|interval| interval.holds(at_ms));
        let turn = self.turn(at_ms);
        match &turn {
            Some((_, _, ends)) => soon(Some(*ends)),
            None => soon(self.handover_ms(0)),
        }
        let person = turn.filter(|_| is_on).map(|(person, _, _)| person.clone());
        Stretch { from_ms: at_ms, to_ms: until, person, by: None }
    }

    /// Who was on call from an instant on until another, and who is then; a stretch each, the last the one that lasts.
    pub fn stretches(&self, from_ms: i64, now_ms: i64, intervals: &BTreeMap<String, Interval>) -> Vec<Stretch> {
        // From the beginning of a turn on, so that what is said hangs on what is stated and not on when it is asked.
        let mut at_ms = self.turn(from_ms).map_or(from_ms, |(_, since, _)| since);
        let mut found: Vec<Stretch> = Vec::new();
        for _ in 0..MAX_STRETCHES {
            let next = self.at(at_ms, intervals);
            let to_ms = next.to_ms;
            match found.last_mut().filter(|last| (&last.person, &last.by) == (&next.person, &next.by)) {
                Some(last) => last.to_ms = to_ms,
                None => found.push(next),
            }
            match to_ms.filter(|to| *to <= now_ms) {
                Some(to) => at_ms = to,
                None => return found,
            }
        }
        // So many that the oldest are let go.
        found.push(self.at(now_ms, intervals));
        found
    }

    /// Who comes next: the first after this stretch who is another.
    pub fn next(&self, now: &Stretch, intervals: &BTreeMap<String, Interval>) -> Option<Stretch> {
        let mut at_ms = now.to_ms?;
        for _ in 0..MAX_STRETCHES {
            let next = self.at(at_ms, intervals);
            if next.person.is_some() && next.person != now.person {
                return Some(next);
            }
            at_ms = next.to_ms?;
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
        rota.at(ms(at), intervals).person.map_or("-".to_owned(), |person| person.name)
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
        assert_eq!(rota.at(ms("2026-03-20T00:00:00Z"), &none).person.unwrap().receiver, "pager-ann");
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
        let said = rota.stretches(ms("2026-03-17T00:00:00Z"), ms("2026-03-24T00:00:00Z"), &none);
        let said: Vec<_> = said
            .iter()
            .map(|s| (s.from_ms, s.person.as_ref().map_or("", |p| p.name.as_str()), s.by.as_deref().unwrap_or("")))
            .collect();
        let at = |text| ms(text);
        assert_eq!(
            said,
            [
                (at("2026-03-16T08:00:00Z"), "ann", ""),
                (at("2026-03-17T00:00:00Z"), "cho", "a"),
                (at("2026-03-18T00:00:00Z"), "dan", "b"),
                (at("2026-03-18T12:00:00Z"), "cho", "a"),
                (at("2026-03-19T00:00:00Z"), "ann", ""),
                (at("2026-03-23T08:00:00Z"), "bob", ""),
            ]
        );
        assert_eq!(rota.receivers().collect::<Vec<_>>(), ["pager-ann", "bob", "cho", "cho", "dan-mail"]);
        let now = rota.at(ms("2026-03-18T01:00:00Z"), &none);
        let next = rota.next(&now, &none).unwrap();
        assert_eq!((next.person.unwrap().name, next.from_ms), ("cho".to_owned(), ms("2026-03-18T12:00:00Z")));
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
        let night = rota.stretches(ms("2026-03-17T20:00:00Z"), ms("2026-03-17T20:00:00Z"), &intervals);
        assert_eq!(night.last().unwrap().to_ms, Some(ms("2026-03-18T08:00:00Z")));
        // Stretches meet, and each is what a look at its middle finds.
        let all = rota.stretches(ms("2026-03-16T08:00:00Z"), ms("2026-05-01T00:00:00Z"), &intervals);
        for two in all.windows(2) {
            assert_eq!(two[0].to_ms, Some(two[1].from_ms));
            let middle = (two[0].from_ms + two[1].from_ms) / 2;
            assert_eq!(rota.at(middle, &intervals).person, two[0].person);
        }
        assert!(all.len() > 60);
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
