//! Queries that nobody would write: those of the files, torn apart and put together. Each is answered or refused as its
//! asker's mistake; none is a failure of ours. The seed is printed; `RADARFLOW_QUERIES` sets how many.

use std::sync::Arc;

use radarflow_query::engine::Engine;
use radarflow_query::error::QueryError;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{actor, engine};

/// What breaks things.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "\"",
    "'",
    "`",
    "!",
    ":",
    ",",
    "..",
    "*",
    "%",
    "~",
    ">",
    "<=",
    "/",
    "\\",
    "|",
    "\u{0}",
    "\u{f8ff}",
    "é",
    "🦀",
    " OR ",
    " AND ",
    " NOT ",
    "null",
    "-1",
    "0",
    "1e308",
    "9223372036854775808",
    "NaN",
    "inf",
    "0.0.0.0/0",
    "::/0",
    "10.0.0.9-10.0.0.1",
    "now",
    "now-999999999y",
    "1970-01-01",
    "9999-12-31",
    "in:flows ",
    "in:(devices,logs) ",
    "time:last_7d ",
    "limit:0 ",
    "limit:10000 ",
    "stats:\"count() by ",
    "having:\"count>0\" ",
    "window:1s ",
    "bucket:1s ",
    "top:1000 ",
    "sort:",
    "fields:",
    "device.",
    "metadata.",
    "at:now-1d ",
    "group:*",
    "observable.ip:",
    "uid:(in:logs fields:device_uid)",
    "percentile(",
    "latest:true ",
    "units:bps ",
    "fill:previous ",
];

fn queries() -> Vec<String> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/srql");
    let files = std::fs::read_dir(dir).unwrap().map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap());
    files
        .flat_map(|text| {
            let lines = text.split("\n\n").filter_map(|b| b.lines().find(|l| !l.starts_with('#') && !l.is_empty()));
            lines.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// A place between two characters.
fn place(text: &str, random: &mut StdRng) -> usize {
    let mut at = random.random_range(0..=text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn torn(queries: &[String], random: &mut StdRng) -> String {
    let any = |random: &mut StdRng| queries[random.random_range(0..queries.len())].clone();
    let mut query = any(random);
    for _ in 0..random.random_range(1..5) {
        let (a, b) = (place(&query, random), place(&query, random));
        let (a, b) = (a.min(b), a.max(b));
        match random.random_range(0..6) {
            0 => {
                let end = query[a..b].char_indices().nth(12).map_or(b, |(n, _)| a + n);
                query.replace_range(a..end, "");
            }
            1 => query.insert_str(a, PIECES[random.random_range(0..PIECES.len())]),
            2 => {
                let piece = query[a..b].to_owned();
                query.insert_str(b, &piece);
            }
            3 => {
                // Terms change places.
                let mut terms: Vec<&str> = query.split(' ').collect();
                let (x, y) = (random.random_range(0..terms.len()), random.random_range(0..terms.len()));
                terms.swap(x, y);
                query = terms.join(" ");
            }
            4 => {
                let other = any(random);
                let term = other.split(' ').nth(random.random_range(0..3)).unwrap_or("").to_owned();
                query = format!("{query} {term}");
            }
            _ => {
                let other = any(random);
                let (head, tail) = (place(&query, random), place(&other, random));
                query = format!("{}{}", &query[..head], &other[tail..]);
            }
        }
    }
    query
}

async fn ask(engine: &Arc<Engine>, query: &str) -> bool {
    match engine.query(&actor("t", &[]), query, None, None).await {
        Ok(_) => true,
        Err(QueryError::Failed(detail)) => panic!("{query:?} failed: {detail}"),
        Err(QueryError::Forbidden(of)) => panic!("{query:?}: an administrator may read {of}"),
        Err(QueryError::TimedOut | QueryError::Busy | QueryError::Ended) => panic!("{query:?} has no end"),
        Err(QueryError::Language(e)) => {
            assert!(e.start <= e.end && e.end <= query.len(), "{query:?}: {e:?} is nowhere in it");
            let _ = e.position(query);
            false
        }
        Err(QueryError::Cursor(_) | QueryError::Expired | QueryError::Forgotten(_) | QueryError::TooLarge(_)) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_queries_are_answered_or_refused() {
    let n = std::env::var("RADARFLOW_QUERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let seed = std::env::var("RADARFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    eprintln!("RADARFLOW_SEED={seed} RADARFLOW_QUERIES={n}");
    let (engine, queries, mut random) = (engine(), queries(), StdRng::seed_from_u64(seed));
    let (mut asked, mut answered) = (Vec::new(), 0);
    for _ in 0..n {
        asked.push(torn(&queries, &mut random));
    }
    for part in asked.chunks(4) {
        let both = futures::future::join_all(part.iter().map(|query| ask(&engine, query))).await;
        answered += both.into_iter().filter(|answered| *answered).count();
    }
    assert!(answered > n / 50, "some of them are queries still: {answered} of {n}");
    for query in asked.iter().take(n / 4) {
        // What is typed is typed one character after another.
        let offset = place(query, &mut random);
        let (replaces, _) =
            engine.complete(&actor("t", &[]), query, offset).await.unwrap_or_else(|e| panic!("{query:?}: {e:?}"));
        assert!(replaces.start <= replaces.end && replaces.end <= query.len(), "{query:?} at {offset}");
    }
}
