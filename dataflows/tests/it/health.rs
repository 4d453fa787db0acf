//! Availability: what vantages say, how it ages, and that the history shows each change once.

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Kind;
use radarflow_proto::rows::{Alert, Device, HealthEvent, StateRow};
use radarflow_reconcile::identity::name::uid;

use crate::harness::*;

const IP: &str = "10.0.0.1";
const MINUTE: i64 = 60_000;

fn device(run: &Run) -> &Device {
    run.tables.device(&uid("default", "armis:X"))
}

fn with_device(workers: usize) -> Run {
    let mut run = Run::new(workers);
    run.tick(instances());
    run.tick(vec![sync(&[armis("X", IP, 1, "")])]);
    run
}

/// A minute later these vantages have looked.
fn minute(run: &mut Run, looks: &[(&str, bool)]) {
    let at = run.clock_ms + run.gap_ms + MINUTE;
    let looks = looks.iter().map(|(agent, up)| check(agent, at, IP, Some(*up)));
    run.tick_after(MINUTE, looks.collect());
}

/// The transitions of devices, with their reasons.
fn history(run: &Run) -> Vec<(String, String, String)> {
    let events = run.rows::<HealthEvent>().into_iter().filter(|e| e.entity_type == "device");
    events.map(|e| (e.old_state, e.new_state, e.reason)).collect()
}

fn offline(run: &Run) -> Vec<&Alert> {
    let alerts = run.tables.state.values().filter_map(|r| if let StateRow::Alert(a) = r { Some(&**a) } else { None });
    alerts.filter(|a| a.rule == "device-offline").collect()
}

#[test]
fn a_vantage_that_dies_no_longer_keeps_a_device_up() {
    for workers in [1, 2] {
        let mut run = with_device(workers);
        for _ in 0..6 {
            minute(&mut run, &[("agent-7", true), ("agent-8", false)]);
        }
        assert_eq!(device(&run).is_available, Some(true));
        // agent-7 is dead. Its word counts for two of its intervals.
        minute(&mut run, &[("agent-8", false)]);
        assert_eq!(device(&run).is_available, Some(true));
        minute(&mut run, &[("agent-8", false)]);
        assert_eq!(device(&run).is_available, Some(false));
        let since = device(&run).availability_since.unwrap();
        assert_eq!(since.ms(), run.clock_ms, "down since the other's word ceased to count");
        assert_eq!(offline(&run)[0].status, "pending");
        for _ in 0..3 {
            minute(&mut run, &[("agent-8", false)]);
        }
        assert_eq!(device(&run).availability_since, Some(since), "nothing more is said of it");
        minute(&mut run, &[("agent-7", true), ("agent-8", false)]);
        assert_eq!(device(&run).is_available, Some(true));
        assert_eq!(device(&run).availability_since.unwrap().ms(), run.clock_ms, "up since it returned");
        assert_eq!(offline(&run)[0].status, "resolved");
        let lost = "2 failures in a row seen from agent-8; \
                    no result from agent-7, which saw it, for 2 minutes (interval 60 s)";
        let told = [
            ("unknown", "available", "answers agent-7"),
            ("available", "unavailable", lost),
            ("unavailable", "available", "answers agent-7"),
        ];
        assert_eq!(history(&run), told.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }
}

#[test]
fn when_every_vantage_is_silent_the_device_is_unknown_and_no_longer_down() {
    let mut run = with_device(2);
    for _ in 0..5 {
        minute(&mut run, &[("agent-7", false)]);
    }
    assert_eq!((device(&run).is_available, offline(&run)[0].status.as_str()), (Some(false), "pending"));
    minute(&mut run, &[]);
    assert_eq!(device(&run).availability, "unavailable");
    minute(&mut run, &[]);
    let row = device(&run);
    assert_eq!((row.is_available, row.availability.as_str()), (None, "unknown"));
    assert_eq!(row.availability_reason.as_deref(), Some("no result from agent-7 for 2 minutes (interval 60 s)"));
    // Unknown is not down: the condition is over.
    assert_eq!(offline(&run)[0].status, "resolved");
    let changes = history(&run);
    minute(&mut run, &[]);
    assert_eq!(history(&run), changes);
    assert_eq!(changes.last().unwrap().1, "unknown");
    // Long after, nothing is remembered of it.
    run.tick_after(8 * 86_400_000, vec![]);
    assert_eq!((device(&run).availability.as_str(), &device(&run).availability_since), ("unknown", &None));
    assert_eq!(history(&run), changes);
}

#[test]
fn a_single_result_ages_too() {
    let mut run = with_device(1);
    minute(&mut run, &[("agent-7", true)]);
    run.tick_after(30 * MINUTE - 1, vec![]);
    assert_eq!(device(&run).is_available, Some(true));
    run.tick_after(1, vec![]);
    assert_eq!(device(&run).is_available, None);
}

#[test]
fn a_prober_that_could_not_look_says_nothing_and_keeps_nothing_alive() {
    let mut run = with_device(1);
    for _ in 0..5 {
        minute(&mut run, &[("agent-7", true)]);
    }
    for n in 1..=3 {
        let at = run.clock_ms + MINUTE;
        run.tick_after(MINUTE, vec![check("agent-7", at, IP, None)]);
        assert_eq!(device(&run).is_available, (n < 2).then_some(true), "{n} minutes");
    }
}

#[test]
fn a_clock_that_is_ahead_makes_no_vantage_immortal() {
    let mut run = with_device(1);
    let year = 365 * 86_400_000;
    for _ in 0..5 {
        let at = run.clock_ms + MINUTE;
        run.tick_after(MINUTE, vec![check("ahead", at + year, IP, Some(true)), check("right", at, IP, Some(false))]);
    }
    assert_eq!(device(&run).is_available, Some(true));
    // Set right, it counts at once.
    minute(&mut run, &[("ahead", false), ("right", false)]);
    minute(&mut run, &[("ahead", false), ("right", false)]);
    assert_eq!(device(&run).is_available, Some(false));
    minute(&mut run, &[("ahead", true), ("right", false)]);
    assert_eq!(device(&run).is_available, Some(true));
    minute(&mut run, &[("right", false)]);
    minute(&mut run, &[("right", false)]);
    assert_eq!(device(&run).is_available, Some(false));
}

#[test]
fn what_comes_late_counts_where_it_belongs_and_says_nothing_of_now() {
    let mut run = with_device(2);
    for _ in 0..5 {
        minute(&mut run, &[("agent-7", true)]);
    }
    let cut = run.clock_ms;
    run.tick_after(2 * MINUTE, vec![]);
    assert_eq!(device(&run).is_available, None);
    let said = device(&run).clone();
    // It kept its results, and is an hour behind when it can deliver them again.
    run.tick_after(58 * MINUTE, (1..=30).map(|n| check("agent-7", cut + n * MINUTE, IP, Some(true))).collect());
    assert_eq!(device(&run), &said, "half an hour old");
    run.tick_after(1, (31..=60).map(|n| check("agent-7", cut + n * MINUTE, IP, Some(true))).collect());
    assert_eq!(device(&run).is_available, Some(true));
    assert!(device(&run).availability_since.unwrap().ms() < cut, "it never lost it");
}

#[test]
fn a_stop_ages_nobody_and_what_is_restored_ages_as_before() {
    let mut before = with_device(2);
    for _ in 0..5 {
        minute(&mut before, &[("agent-7", true), ("agent-8", false)]);
    }
    before.tick_after(0, vec![fact(&Fact::Snapshot)]);
    for (workers, down_ms) in [(1, 0), (2, 0), (1, 3_600_000), (3, 3_600_000)] {
        let (epoch, state) = (before.epoch, before.snapshot.clone());
        let start = Start { epoch, gap_ms: before.gaps_ms, state, ..Default::default() };
        let mut after = Run::from(workers, start, before.clock_ms);
        assert_eq!(after.tables.state, before.tables.state);
        after.gap_ms = down_ms;
        minute(&mut after, &[("agent-8", false)]);
        assert_eq!(device(&after).is_available, Some(true), "a minute old on the live clock");
        minute(&mut after, &[("agent-8", false)]);
        assert_eq!(device(&after).is_available, Some(false));
    }
}

/// What a vantage says; of several the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    TooLittle,
    Unavailable,
    Available,
}

/// One vantage's results, as they came: event time, instant on the live clock, answer.
#[derive(Default)]
struct Heard(Vec<(i64, i64, bool)>);

impl Heard {
    /// From scratch: what it says at an instant of the live clock.
    fn says(&self, live_ms: i64) -> Option<Says> {
        let mut results = self.0.clone();
        results.sort_unstable();
        let patience = |until: usize| {
            let gaps: Vec<i64> = results[..=until].windows(2).map(|w| w[1].1 - w[0].1).filter(|gap| *gap > 0).collect();
            let mut last = gaps[gaps.len().saturating_sub(8)..].to_vec();
            last.sort_unstable();
            let interval = match last.len() {
                0 => 15 * MINUTE,
                n @ 1..3 => last[n - 1].max(15 * MINUTE),
                n => last[n / 2],
            };
            2 * interval.clamp(MINUTE, 86_400_000)
        };
        let mut said = None;
        let mut failures = 0;
        for (i, (_, heard, up)) in results.iter().enumerate() {
            if i > 0 && heard - results[i - 1].1 >= patience(i - 1) {
                (said, failures) = (None, 0);
            }
            failures = if *up { 0 } else { failures + 1 };
            said = match (*up, failures) {
                (true, _) => Some(Says::Available),
                (false, 2..) => Some(Says::Unavailable),
                (false, _) => said.or(Some(Says::TooLittle)),
            };
        }
        let heard = self.0.iter().map(|(_, heard, _)| *heard).max()?;
        said.filter(|_| live_ms < heard + patience(results.len() - 1))
    }
}

/// Vantages of several rhythms look, die, return, deliver late and out of order; the process stops now and then.
#[test]
fn a_device_is_at_every_epoch_what_its_vantages_say_from_scratch() {
    for seed in [1u64, 2, 5, 8] {
        let mut random = seed;
        let mut one_in = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n == 0
        };
        let mut runs = [with_device(1), with_device(2)];
        let vantages = [("a", 60_000), ("b", 90_000), ("c", 200_000)];
        let mut heard: [Heard; 3] = Default::default();
        let mut dead = [false; 3];
        let mut answers = true;
        let mut kept: [Vec<(i64, bool)>; 3] = Default::default();
        let mut expected = Vec::new();
        let mut state = None;
        for step in 0..300 {
            answers ^= one_in(20);
            // The process stops now and then: its live clock stands still.
            let gap_ms = if one_in(60) { 600_000 } else { 0 };
            let now = runs[0].clock_ms + gap_ms + 10_000;
            let live = now - runs[0].gaps_ms - gap_ms;
            let mut inputs = Vec::new();
            for (v, (agent, interval)) in vantages.iter().enumerate() {
                dead[v] ^= one_in(if dead[v] { 30 } else { 15 });
                if step % (interval / 10_000) == 0 && !dead[v] {
                    kept[v].push((now - 1000, answers && !one_in(6)));
                }
                // What it found leaves at once, or later, the newest first.
                if !one_in(5) {
                    for (at, up) in kept[v].drain(..).rev() {
                        heard[v].0.push((at, live - (now - at), up));
                        inputs.push(check(agent, at, IP, Some(up)));
                    }
                }
            }
            let says: Vec<_> = heard.iter().filter_map(|h| h.says(live)).collect();
            let should = says.iter().copied().max();
            if should != state {
                expected.push(match should {
                    None => "unknown",
                    Some(Says::Available) => "available",
                    Some(Says::Unavailable) => "unavailable",
                    Some(Says::TooLittle) => "insufficient_data",
                });
                state = should;
            }
            for run in &mut runs {
                run.gap_ms = gap_ms;
                run.tick_after(10_000, inputs.clone());
                let should = match should {
                    Some(Says::Available) => Some(true),
                    Some(Says::Unavailable) => Some(false),
                    Some(Says::TooLittle) | None => None,
                };
                assert_eq!(device(run).is_available, should, "seed {seed}, step {step}");
            }
        }
        for run in &runs {
            let told: Vec<_> = history(run).into_iter().map(|(_, to, _)| to).collect();
            assert_eq!(told, expected, "seed {seed}");
        }
        assert_eq!(runs[0].tables, runs[1].tables);
        assert!(expected.len() > 4, "seed {seed} tries nothing: {expected:?}");
    }
}

/// Twelve devices that agent-7 looks at each minute; agent-8 looks at the first as well.
fn dozen(run: &mut Run, sees: impl Fn(usize) -> bool) {
    let at = run.clock_ms + run.gap_ms + MINUTE;
    let ip = |n: usize| format!("10.0.0.{n}");
    let looks = (1..=12).map(|n| check("agent-7", at, &ip(n), Some(sees(n))));
    let looks: Vec<_> = looks.chain([check("agent-8", at, &ip(1), Some(true))]).collect();
    run.tick_after(MINUTE, looks);
}

#[test]
fn a_vantage_that_loses_nearly_all_at_once_is_sick_and_one_alert_stands_for_all() {
    for workers in [1, 2] {
        let mut run = Run::new(workers);
        run.tick(instances());
        let devices: Vec<_> = (1..=12).map(|n| armis(&format!("X{n}"), &format!("10.0.0.{n}"), 1, "")).collect();
        run.tick(vec![sync(&devices)]);
        let is = |run: &Run, n: usize| {
            let device = run.tables.device(&uid("default", &format!("armis:X{n}")));
            (device.is_available, device.availability_reason.clone().unwrap_or_default())
        };
        let alerts = |run: &Run| -> Vec<(String, String)> {
            let of = |row: &StateRow| {
                if let StateRow::Alert(a) = row { Some((a.rule.clone(), a.status.clone())) } else { None }
            };
            run.tables.state.values().filter_map(of).collect()
        };
        for _ in 0..5 {
            dozen(&mut run, |_| true);
        }
        // Ten minutes later eight are lost, two thirds: they are down.
        for _ in 0..3 {
            dozen(&mut run, |n| n <= 4);
        }
        assert_eq!((is(&run, 12).0, offline(&run).len()), (Some(false), 8));
        for _ in 0..3 {
            dozen(&mut run, |_| true);
        }
        assert!(offline(&run).iter().all(|alert| alert.status == "resolved"));
        // All are lost but one that another sees.
        dozen(&mut run, |_| false);
        assert_eq!(is(&run, 12).0, Some(true), "one failure is none");
        dozen(&mut run, |_| false);
        assert_eq!(is(&run, 1).0, Some(true));
        let reason = "agent-7 is sick: it lost nearly all of its targets at once".to_owned();
        assert_eq!(is(&run, 12), (None, reason.clone()));
        let burning = |run: &Run| -> Vec<String> {
            let of_targets = |(rule, status): &(String, String)| status != "resolved" && rule != "agent-offline";
            alerts(run).into_iter().filter(of_targets).map(|(rule, _)| rule).collect()
        };
        assert_eq!(burning(&run), ["vantage-sick"]);
        // Out of a snapshot it is sick as before, for as long as it sees as little.
        run.tick_after(0, vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, gap_ms: run.gaps_ms, state: run.snapshot.clone(), ..Default::default() };
        let mut again = Run::from(3 - workers, start, run.clock_ms);
        assert_eq!(again.tables.state, run.tables.state);
        for run in [&mut run, &mut again] {
            for _ in 0..70 {
                dozen(run, |_| false);
            }
            assert_eq!((is(run, 12), burning(run)), ((None, reason.clone()), vec!["vantage-sick".to_owned()]));
            // It sees three again, and does not count yet; with half of them those that it does not see are down.
            dozen(run, |n| n <= 3);
            assert_eq!((is(run, 2).0, is(run, 12).0), (Some(true), None));
            // What it finds comes in parts: it is waited for as long as there are more.
            for seen in [6, 8] {
                dozen(run, |n| n <= seen);
                assert_eq!((is(run, 2).0, is(run, 12).0), (Some(true), None));
                run.tick_after(59_000, vec![]);
                assert_eq!((is(run, 2).0, is(run, 12).0), (Some(true), None));
            }
            run.tick_after(1000, vec![]);
            assert_eq!((is(run, 2).0, is(run, 12).0), (Some(true), Some(false)));
            assert_eq!(burning(run), vec!["device-offline"; 4]);
            // One that comes and goes all the time does not keep it sick for ever.
            for _ in 0..2 {
                dozen(run, |n| n <= 11);
            }
            assert_eq!(burning(run), ["device-offline"]);
            for _ in 0..2 {
                dozen(run, |_| false);
            }
            dozen(run, |_| false);
            assert_eq!(burning(run), ["vantage-sick"]);
            for n in 0..12 {
                dozen(run, |target| target <= 8 || target == 9 && n % 3 == 0);
            }
            assert_eq!(is(run, 12).0, Some(false));
        }
        assert_eq!(again.tables.state, run.tables.state);
    }
}

/// A line of a sender.
fn line(ip: &str) -> Input {
    let (kind, tenant, partition) = (Kind::Syslog, "t", "default".to_owned());
    let peer: &'static str = Box::leak(format!("{ip}:514").into_boxed_str());
    Input { kind, tenant, partition, peer: Some(peer), body: "<13>Jan  1 00:00:00 host app: well".into() }
}

#[test]
fn who_is_quiet_beyond_its_own_rhythm_is_silent_and_of_many_one_alert_says_so() {
    const FEED: &str = "syslog:127.0.0.1:514";
    let ip = |n: usize| format!("10.0.0.{n}");
    let lines = |of: std::ops::RangeInclusive<usize>| of.map(|n| line(&ip(n))).collect::<Vec<_>>();
    let senders = |run: &Run| -> Vec<(String, Option<String>, Option<i64>)> {
        let of = |row: &StateRow| match row {
            StateRow::Source(s) if !s.exporter.is_empty() => Some((s.exporter.clone(), s.state.clone(), s.patience_s)),
            _ => None,
        };
        run.tables.state.values().filter_map(of).collect()
    };
    let in_state =
        |run: &Run, state: &str| senders(run).iter().filter(|(_, of, _)| of.as_deref() == Some(state)).count();
    let burning = |run: &Run| -> Vec<(String, String, String)> {
        let of = |row: &StateRow| match row {
            StateRow::Alert(a) if a.source_type == "source" && a.status == "pending" => {
                Some((a.rule.clone(), a.title.clone(), a.description.clone()))
            }
            _ => None,
        };
        run.tables.state.values().filter_map(of).collect()
    };
    let turns = |run: &Run| -> Vec<HealthEvent> {
        run.rows::<HealthEvent>().into_iter().filter(|event| event.entity_type == "exporter").collect()
    };
    for workers in [1, 2] {
        let mut run = Run::new(workers);
        run.feed = FEED.to_owned();
        // Thirty speak each minute, one each quarter of an hour; one spoke twice, and is no sender.
        for minute in 0..180 {
            let rare = if minute % 15 == 0 { lines(99..=99) } else { Vec::new() };
            let odd = if minute % 100 == 0 { lines(98..=98) } else { Vec::new() };
            run.tick_after(MINUTE, [lines(1..=30), rare, odd].concat());
            if minute == 30 {
                assert_eq!(in_state(&run, "learning"), 32);
            }
        }
        assert_eq!((in_state(&run, "active"), in_state(&run, "learning"), burning(&run)), (31, 1, vec![]));
        let patience = |run: &Run, n: usize| senders(run).into_iter().find(|s| s.0 == ip(n)).unwrap().2;
        assert_eq!((patience(&run, 1), patience(&run, 99), patience(&run, 98)), (Some(300), Some(2700), None));
        // The server is down for half a day: nobody was heard, and nobody is called silent for it.
        run.gap_ms = 12 * 60 * MINUTE;
        run.tick_after(MINUTE, lines(1..=1));
        assert_eq!((in_state(&run, "active"), burning(&run)), (31, vec![]));
        // All but one fall silent: one alert stands for them.
        for _ in 0..6 {
            run.tick_after(MINUTE, lines(1..=1));
        }
        assert_eq!((in_state(&run, "active"), in_state(&run, "silent")), (2, 29));
        let told = burning(&run);
        let (rule, title, description) = told.first().cloned().unwrap();
        assert_eq!((told.len(), rule.as_str()), (1, "feed-silent"), "{told:?}");
        assert_eq!(title, "29 senders of syslog:127.0.0.1:514 are silent");
        assert!(description.contains(": 10.0.0.10, ") && description.ends_with("and 19 more"), "{description}");
        let fell = turns(&run);
        assert_eq!(fell.len(), 29);
        assert_eq!((fell[0].old_state.as_str(), fell[0].new_state.as_str()), ("active", "silent"));
        assert!(fell.iter().any(|event| event.entity_id == format!("{FEED}/10.0.0.2")), "{fell:?}");

        // Out of a snapshot they are silent as before, and are heard again.
        run.tick_after(0, vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, gap_ms: run.gaps_ms, state: run.snapshot.clone(), ..Default::default() };
        let mut again = Run::from(3 - workers, start, run.clock_ms);
        again.feed = FEED.to_owned();
        assert_eq!(again.tables.state, run.tables.state);
        for (run, before) in [(&mut run, 29), (&mut again, 0)] {
            run.tick_after(MINUTE, lines(1..=29));
            // Of few each has its own.
            let told = burning(run);
            let own = ("source-silent", "10.0.0.30 is silent at syslog:127.0.0.1:514");
            assert_eq!((told.len(), (told[0].0.as_str(), told[0].1.as_str())), (1, own), "{told:?}");
            run.tick_after(MINUTE, lines(1..=30));
            run.tick_after(2000, vec![]);
            assert_eq!((in_state(run, "silent"), burning(run)), (0, vec![]));
            let spoke: Vec<_> = turns(run).split_off(before);
            let seconds: Vec<_> = spoke.iter().filter_map(|event| event.duration_seconds).collect();
            assert!(seconds.iter().all(|s| (400..=560).contains(s)) && seconds.len() == 29, "{seconds:?}");
            // It is silent for a week: nobody waits for it any more.
            for _ in 0..8 {
                run.tick_after(4 * MINUTE, lines(1..=30));
            }
            run.tick_after(2000, vec![]);
            let told = burning(run);
            assert!(told.len() == 1 && told[0].1.starts_with("10.0.0.99 is silent"), "{told:?}");
            for _ in 0..8 {
                run.tick_after(24 * 60 * MINUTE, lines(1..=1));
            }
            assert!(senders(run).iter().all(|s| s.0 != ip(99)), "{:?}", senders(run));
            let last = turns(run).into_iter().rfind(|event| event.entity_id.ends_with("10.0.0.99")).unwrap();
            assert_eq!((last.old_state.as_str(), last.new_state.as_str()), ("silent", "forgotten"));
            assert!(!burning(run).iter().any(|told| told.1.starts_with("10.0.0.99")), "{:?}", burning(run));
        }
    }
    // What comes when something happens has no rhythm.
    let mut run = Run::new(1);
    run.feed = "traps:127.0.0.1:162".to_owned();
    for _ in 0..90 {
        run.tick_after(MINUTE, lines(1..=1));
    }
    run.tick_after(600 * MINUTE, vec![]);
    assert_eq!((senders(&run)[0].1.as_deref(), burning(&run)), (None, vec![]));
}
