//! Slices of time in zones whose clocks change: every event is in one, they follow one another, and a rate divides by the
//! seconds that there were.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::Table;
use radarflow_query::engine::Engine;
use radarflow_query::tables::live::Live;
use serde_json::Value;

use crate::{actor, data, json};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1440 * MINUTE;

fn at(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap_or_else(|e| panic!("{text}: {e}")).timestamp_micros()
}

fn text(us: i64) -> String {
    DateTime::<Utc>::from_timestamp_micros(us).expect("a time").to_rfc3339()
}

/// A flow of 900 bytes every quarter of an hour, some days round an instant.
fn engine(middle: i64) -> Arc<Engine> {
    let live = Live::new(None, 0);
    let flows = (-300..300).map(|n| data::flow(1, (n + 300) as u64, middle + n * 15 * MINUTE, 10, 900));
    let events = vec![(Table::Flow, data::batch(&flows.collect::<Vec<_>>()))];
    let clock_ms = (middle + 30 * DAY) / 1000;
    live.apply(&EpochOutput { epoch: 1, clock_ms, events, ..EpochOutput::default() }.into());
    Arc::new(Engine::new(Arc::new(live), [7; 32]).expect("an engine starts"))
}

async fn rows(engine: &Arc<Engine>, query: &str) -> Vec<Value> {
    json(&engine.query(&actor("t", &[]), query, None, None).await.unwrap_or_else(|e| panic!("{query}: {e:?}")))
}

#[tokio::test]
async fn slices_hold_every_event_once_and_rates_divide_by_the_seconds_there_were() {
    for (zone, change) in [
        ("Europe/Berlin", "2024-10-27T01:00:00Z"),
        ("Europe/Berlin", "2024-03-31T01:00:00Z"),
        ("Australia/Lord_Howe", "2024-04-06T15:00:00Z"),
        ("Australia/Lord_Howe", "2024-10-05T15:30:00Z"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
        ("America/St_Johns", "2006-10-29T02:31:00Z"),
        ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("Asia/Kathmandu", "2024-10-27T01:00:00Z"),
        ("UTC", "2024-10-27T01:00:00Z"),
    ] {
        let middle = at(change);
        let engine = engine(middle);
        let (from, to) = (middle - 2 * DAY, middle + 2 * DAY);
        let span = format!("tz:{zone} in:flows time:[{},{}]", text(from), text(to));
        for width in ["30m", "45m", "1h", "2h", "7h", "12h", "1d", "36h", "1w"] {
            let asked = format!(
                "{span} stats:\"count() as n, sum(bytes_total) as b, rate(bytes_total) as r\" window:{width} limit:1000"
            );
            let found = rows(&engine, &asked).await;
            let starts: Vec<i64> = found.iter().map(|row| at(row["window_start"].as_str().unwrap())).collect();
            assert!(starts.is_sorted() && starts[0] <= from, "{asked}");
            assert_eq!(found.iter().map(|row| row["n"].as_i64().unwrap()).sum::<i64>(), 4 * 96, "{asked}");
            for (n, row) in found.iter().enumerate() {
                // An event every quarter of an hour: nothing is left out between two slices, and nothing is in both.
                let (begin, end) = (starts[n].max(from), starts.get(n + 1).map_or(to, |next| *next));
                let quarters = (end - begin) as f64 / (15 * MINUTE) as f64;
                let there = row["n"].as_f64().unwrap();
                assert!((there - quarters).abs() < 1.0, "{asked}: {row} of {quarters} quarters");
                let per_second = |end: i64| row["b"].as_f64().unwrap() / ((end - begin) as f64 / 1e6);
                let told = row["r"].as_f64().unwrap();
                // The last slice may end before the span does, if nothing is in the slice behind it.
                let is_last = n + 1 == found.len();
                let (least, most) =
                    (per_second(end), per_second(if is_last { (end - 15 * MINUTE).max(begin) + 1 } else { end }));
                let within = told > least * (1.0 - 1e-6) && told < most * (1.0 + 1e-6);
                assert!(within, "{asked}: {row}, not {least} to {most}");
            }
            let filled = rows(&engine, &format!("{span} bucket:{width} agg:count fill:0")).await;
            let series: Vec<i64> = filled.iter().map(|row| at(row["timestamp"].as_str().unwrap())).collect();
            // A last slice that nothing is in is filled, too.
            let behind = series.strip_prefix(&starts[..]).unwrap_or_else(|| panic!("{asked}, filled: {series:?}"));
            assert!(behind.len() <= 1 && behind.iter().all(|begin| *begin < to), "{asked}, filled: {behind:?}");
        }
    }
}

#[tokio::test]
async fn days_have_the_hours_that_their_clock_says() {
    let engine = engine(at("2024-10-27T01:00:00Z"));
    let day = "tz:Europe/Berlin in:flows time:2024-10-27";
    for (width, n) in [("1h", 25), ("30m", 50), ("2h", 13), ("1d", 1)] {
        let found = rows(&engine, &format!("{day} stats:\"count() as n\" window:{width} limit:1000")).await;
        assert_eq!(found.len(), n, "{width}");
    }
    let found = rows(&engine, &format!("{day} stats:\"rate(bytes_total) as r\" window:1d")).await;
    // A hundred quarters of an hour, each of 900 bytes.
    assert_eq!(found[0]["r"].as_f64().unwrap(), 1.0);
    // What is filled has the slices of a day that nothing happened in, too.
    let empty = format!("{day} src_endpoint_ip:10.9.9.9 bucket:1h agg:count fill:0");
    assert!(rows(&engine, &empty).await.is_empty());
    let half = "tz:Europe/Berlin in:flows time:2024-10-27 timestamp:>2024-10-27T12:00 bucket:1h agg:sum value_field:bytes_total fill:null";
    assert_eq!(rows(&engine, half).await.len(), 25);
}

#[tokio::test]
async fn a_day_that_never_was_is_no_span() {
    let engine = engine(at("2011-12-30T10:00:00Z"));
    let said = engine.query(&actor("t", &[]), "tz:Pacific/Apia in:flows time:2011-12-30", None, None).await;
    assert!(matches!(said, Err(radarflow_query::error::QueryError::Language(e)) if e.code == "bad_time"));
    let found = rows(&engine, "tz:Pacific/Apia in:flows time:2011-12-29..2011-12-31 stats:count()").await;
    assert_eq!(found[0]["count"], 2 * 96, "two days, and none between");
}
