//! Who owned an address when.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use radarflow_proto::cell::Time;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Change, DeviceRedirect, IpOwnership, StateRow};
use radarflow_query::engine::Engine;
use radarflow_query::tables::live::Live;
use serde_json::{Value, json};

use crate::data::NOW;
use crate::{actor, json};

/// The seconds that a test counts begin here.
fn at(second: i64) -> Time {
    Time::from_ms(NOW + second * 1000)
}

fn owned(ip: &str, uid: Option<&str>, class: &str, since: i64, epoch: u64) -> StateRow {
    let row = json!({
        "tenant_id": "t", "partition": "default", "ip": ip, "device_uid": uid, "class": class,
        "valid_from": at(since).0, "valid_to": null, "ip_uid": "sr:ip", "epoch": epoch,
    });
    StateRow::from(serde_json::from_value::<IpOwnership>(row).unwrap())
}

/// Ownership as it becomes known, an epoch at a time.
struct Known {
    engine: Arc<Engine>,
    live: Arc<Live>,
    now: BTreeMap<String, StateRow>,
    epoch: u64,
}

impl Known {
    fn new() -> Known {
        // Nothing is ever committed to this lake: all there is is in memory.
        let live = Arc::new(Live::new(Some("no-lake".into()), 0));
        Known { engine: Arc::new(Engine::new(live.clone(), [7; 32]).unwrap()), live, now: BTreeMap::new(), epoch: 0 }
    }

    /// At a second it becomes known that an address has another owner, or none: device, class, since when.
    fn learn(&mut self, second: i64, ip: &str, owner: Option<(Option<&str>, &str, i64)>) {
        self.epoch += 1;
        let after = owner.map(|(uid, class, since)| owned(ip, uid, class, since, self.epoch));
        let before = match after.clone() {
            Some(row) => self.now.insert(ip.to_owned(), row),
            None => self.now.remove(ip),
        };
        self.say(second, Change::new(before, after));
    }

    fn say(&self, second: i64, change: Option<Change>) {
        let changes = change.into_iter().collect();
        let clock_ms = NOW + second * 1000;
        self.live.apply(&EpochOutput { epoch: self.epoch, clock_ms, changes, ..EpochOutput::default() }.into());
    }

    async fn rows(&self, query: &str) -> Vec<Value> {
        json(&self.engine.query(&actor("t", &[]), query, None, None).await.unwrap_or_else(|e| panic!("{query}: {e:?}")))
    }

    /// Device, from, to: in seconds.
    async fn intervals(&self, clauses: &str) -> Vec<(String, i64, Option<i64>)> {
        let query = format!("in:ip_ownership {clauses} sort:ip:asc,valid_from:asc limit:10000");
        let answer = self.engine.query(&actor("t", &[]), &query, None, None).await;
        let mut intervals = Vec::new();
        for batch in &answer.unwrap_or_else(|e| panic!("{query}: {e:?}")).batches {
            let second = |name: &str, row: usize| {
                let times = batch[name].as_primitive::<TimestampMicrosecondType>();
                times.is_valid(row).then(|| (times.value(row) / 1000 - NOW) / 1000)
            };
            let uids = batch["device_uid"].as_string::<i32>();
            intervals.extend((0..batch.num_rows()).map(|row| {
                let uid = if uids.is_valid(row) { uids.value(row) } else { "nobody" };
                (uid.to_owned(), second("valid_from", row).expect("it began"), second("valid_to", row))
            }));
        }
        intervals
    }
}

fn list(expected: &[(&str, i64, Option<i64>)]) -> Vec<(String, i64, Option<i64>)> {
    expected.iter().map(|(uid, from, to)| ((*uid).to_owned(), *from, *to)).collect()
}

const ALL: &str = "time:[2020-01-01,]";

#[tokio::test]
async fn an_address_has_its_owners_one_after_the_other() {
    let mut known = Known::new();
    for (ip, a, b) in [("10.0.0.1", "a", "b"), ("10.0.0.2", "b", "a")] {
        known.learn(10, ip, Some((Some(a), "inventory", 5)));
        // Seen again: nothing new.
        known.learn(20, ip, Some((Some(a), "inventory", 15)));
        known.learn(42, ip, Some((Some(b), "inventory", 40)));
        known.learn(60, ip, None);
        known.learn(75, ip, Some((Some(a), "sweep", 70)));
    }
    let one = [("a", 5, Some(40)), ("b", 40, Some(60)), ("a", 70, None)];
    let other = [("b", 5, Some(40)), ("a", 40, Some(60)), ("b", 70, None)];
    assert_eq!(known.intervals(ALL).await, list(&[one, other].concat()));
    assert_eq!(known.intervals(&format!("{ALL} ip:10.0.0.1")).await, list(&one));
    // What held within a span: an end is not part of an interval.
    let span = |from, to| format!("ip:10.0.0.1 time:[{},{}]", at(from), at(to));
    assert_eq!(known.intervals(&span(40, 41)).await, list(&one[1..2]));
    assert_eq!(known.intervals(&span(39, 60)).await, list(&one[..2]));
    assert_eq!(known.intervals(&span(61, 69)).await, []);
    // As it was known then; and without a span, as it is.
    let then = format!("{ALL} ip:10.0.0.1 at:{}", at(50));
    assert_eq!(known.intervals(&then).await, list(&[("a", 5, Some(40)), ("b", 40, None)]));
    assert_eq!(known.intervals("ip:10.0.0.1").await, list(&[("a", 70, None)]));
    let of_device = format!("in:ip_ownership {ALL} device_uid:a ip:10.0.0.1 stats:\"count() as n\"");
    assert_eq!(known.rows(&of_device).await[0]["n"], 2);
}

#[tokio::test]
async fn what_is_learnt_late_corrects_what_was_believed() {
    let mut known = Known::new();
    // The inventory says at 100 that the address is b's since 50: a sweep had seen a there at 10 and 70.
    known.learn(10, "10.0.0.1", Some((Some("a"), "sweep", 10)));
    known.learn(70, "10.0.0.1", Some((Some("a"), "sweep", 70)));
    known.learn(100, "10.0.0.1", Some((Some("b"), "inventory", 50)));
    // A belief that never was: c had it from 60, but d has had it from 55.
    known.learn(10, "10.0.0.2", Some((Some("a"), "inventory", 10)));
    known.learn(65, "10.0.0.2", Some((Some("c"), "inventory", 60)));
    known.learn(90, "10.0.0.2", Some((Some("d"), "agent", 55)));
    // Who claims less has it only once the better claim is given up, whenever he claimed it first.
    known.learn(10, "10.0.0.3", Some((Some("a"), "inventory", 10)));
    known.learn(80, "10.0.0.3", Some((Some("b"), "sweep", 5)));
    // Too many: nobody's.
    known.learn(90, "10.0.0.3", Some((None, "shared", -1_000_000)));
    known.learn(95, "10.0.0.3", Some((Some("b"), "inventory", 20)));
    let expected = [
        ("a", 10, Some(50)),
        ("b", 50, None),
        ("a", 10, Some(55)),
        ("d", 55, None),
        ("a", 10, Some(80)),
        ("b", 80, Some(90)),
        ("nobody", 90, Some(95)),
        ("b", 95, None),
    ];
    assert_eq!(known.intervals(ALL).await, list(&expected));
    // Devices are called what they are called today.
    let renamed = json!({"tenant_id": "t", "partition": "default", "from_uid": "a", "to_uid": "z", "identifier": "mac:x",
        "epoch": 99});
    let renamed = StateRow::from(serde_json::from_value::<DeviceRedirect>(renamed).unwrap());
    known.epoch += 1;
    known.say(200, Change::new(None, Some(renamed)));
    assert_eq!(known.intervals(&format!("{ALL} ip:10.0.0.1")).await, list(&[("z", 10, Some(50)), ("b", 50, None)]));
}

/// Claims that become known when they begin and are given up: the owner at any time is the greatest of those that hold.
#[tokio::test]
async fn at_any_time_the_owner_is_the_greatest_claim_that_holds() {
    let mut random = 99u64;
    let mut next = |below: i64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((random >> 33) % below as u64) as i64
    };
    for _ in 0..8 {
        let mut known = Known::new();
        // By device: rank, and since when.
        let classes = ["sweep", "mapper", "inventory"];
        let mut claims: BTreeMap<usize, (usize, i64)> = BTreeMap::new();
        let mut expected: Vec<(String, i64, Option<i64>)> = Vec::new();
        let mut owner: Option<usize> = None;
        let mut said = None;
        for second in 1..60 {
            let device = next(4) as usize;
            if claims.remove(&device).is_none() || next(2) == 0 {
                claims.insert(device, (next(3) as usize, second));
            }
            let best = claims.iter().max_by_key(|(device, (rank, since))| (*rank, *since, **device));
            let best = best.map(|(device, (rank, since))| (*device, *rank, *since));
            if best.map(|(device, ..)| device) != owner {
                if owner.is_some()
                    && let Some(last) = expected.last_mut()
                {
                    last.2 = Some(second);
                }
                owner = best.map(|(device, ..)| device);
                expected.extend(owner.map(|device| (format!("d{device}"), second, None)));
            }
            if best != said {
                said = best;
                let name = best.map(|(device, ..)| format!("d{device}"));
                let row = best.map(|(_, rank, since)| (name.as_deref(), classes[rank], since));
                known.learn(second, "10.0.0.1", row);
            }
        }
        assert_eq!(known.intervals(ALL).await, expected);
        // Pages are the same, one after the other.
        let (mut paged, mut cursor) = (Vec::new(), None);
        loop {
            let query = format!("in:ip_ownership {ALL} sort:valid_from:asc limit:3 fields:device_uid,valid_from");
            let page = known.engine.query(&actor("t", &[]), &query, cursor.as_deref(), None).await.unwrap();
            paged.extend(json(&page).iter().map(|row| row["device_uid"].as_str().unwrap().to_owned()));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(paged, expected.iter().map(|(uid, ..)| uid.clone()).collect::<Vec<_>>());
    }
}
