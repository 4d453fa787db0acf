//! What is asked so that its answer, its plan or its work would be large: it is refused before it is made, or it is fast; and
//! when nobody waits for it, it ends (`RADARFLOW_LEAVERS=1000 cargo test --release …`: who leaves, how often).

use std::sync::Arc;
use std::time::{Duration, Instant};

use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::Table;
use radarflow_query::engine::{Engine, EngineLimits};
use radarflow_query::error::QueryError;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::limits::crowded;
use crate::{actor, data, json};

/// How soon nothing runs any more when nobody waits; code that is not optimised does less between two looks.
const SOON: Duration = if cfg!(debug_assertions) { Duration::from_secs(2) } else { Duration::from_millis(100) };
/// How long what is refused, or little, may take.
const FAST: Duration = if cfg!(debug_assertions) { Duration::from_secs(20) } else { Duration::from_secs(1) };

/// Devices, and flows of the last minutes.
fn busy(devices: usize, flows: u64) -> Arc<Engine> {
    let engine = crowded(devices, EngineLimits::default());
    let time = |n: u64| (data::NOW - 600_000) * 1000 + n as i64;
    let rows: Vec<_> = (0..flows).map(|n| data::flow(5, n, time(n), n % 250, n)).collect();
    let events = rows.chunks(8192).map(|rows| (Table::Flow, data::batch(rows))).collect();
    engine.live().apply(&EpochOutput { epoch: 5, clock_ms: data::NOW + 2, events, ..EpochOutput::default() }.into());
    engine
}

fn having(terms: usize) -> String {
    let terms = vec!["n>1"; terms].join(" and ");
    format!("in:devices stats:\"count() as n by type\" having:\"{terms}\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_waits_nothing_runs() {
    let engine = busy(20_000, 50_000);
    let doubled = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t";
    let columns = (0..300).map(|n| format!("upper(hostname) AS c{n}")).collect::<Vec<_>>().join(", ");
    let sql = [
        "SELECT count(*) FROM flows a, flows b".to_owned(),
        "SELECT count(*) FROM flows a, flows b WHERE a.bytes_total + b.bytes_total < 0".to_owned(),
        "SELECT count(*) FROM devices a, devices b WHERE a.hostname || b.hostname LIKE '%' || b.uid || 'z'".to_owned(),
        "SELECT count(*) FROM devices a JOIN devices b ON a.type = b.type AND a.hostname || b.hostname LIKE '%z'".to_owned(),
        "SELECT a.type, array_agg(b.hostname ORDER BY b.hostname) FROM devices a JOIN devices b USING (type) GROUP BY 1".to_owned(),
        "SELECT rank() OVER (PARTITION BY a.type ORDER BY b.hostname) FROM devices a JOIN devices b USING (type)".to_owned(),
        "SELECT sum(n) FROM generate_series(1, 1000000000000) AS t(n)".to_owned(),
        "SELECT count(*) FROM flows WHERE regexp_like(app, src_endpoint_ip || row_id || '(a{50}){50}')".to_owned(),
        "SELECT max(levenshtein(a.hostname, b.hostname)) FROM devices a, devices b".to_owned(),
        format!("SELECT {columns} FROM devices ORDER BY c1, c2"),
        doubled.to_owned(),
    ];
    let srql = [
        having(900),
        format!("in:devices fields:{}", (0..900).map(|n| format!("metadata.f{n}")).collect::<Vec<_>>().join(",")),
        format!("in:devices ({})", (0..900).map(|n| format!("hostname:%x{n}%")).collect::<Vec<_>>().join(" OR ")),
        "in:flows time:last_1h stats:\"group_uniq_array(row_id) as all, median(bytes_total) as m by src_endpoint_ip, row_id\"".to_owned(),
    ];
    let seed = rand::random::<u64>();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut slowest = (Duration::ZERO, String::new());
    let rounds = std::env::var("RADARFLOW_LEAVERS").ok().and_then(|n| n.parse().ok());
    for round in 0..rounds.unwrap_or(3 * (sql.len() + srql.len())) {
        let asked = round % (sql.len() + srql.len());
        let text = sql.iter().chain(&srql).nth(asked).cloned().unwrap_or_default();
        let task = {
            let (engine, text, is_sql) = (engine.clone(), text.clone(), asked < sql.len());
            let export = random.random_bool(0.3);
            tokio::spawn(async move {
                let actor = actor("t", &[]);
                if !is_sql {
                    let _ = engine.query(&actor, &text, None, None).await;
                } else if export {
                    let mut export = engine.export_sql(&actor, &text).await?;
                    while export.next().await.is_some() {}
                } else {
                    let _ = engine.sql(&actor, &text, None).await;
                }
                Ok::<_, QueryError>(())
            })
        };
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        task.abort();
        let _ = task.await;
        let left = Instant::now();
        while engine.queries_running() > 0 {
            assert!(left.elapsed() < SOON, "seed {seed}: it goes on: {text}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if left.elapsed() > slowest.0 {
            slowest = (left.elapsed(), text);
        }
    }
    eprintln!("the slowest to end: {slowest:?}");
    engine.query(&actor("t", &[]), "in:devices limit:1", None, None).await.expect("there is room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_made_large_is_refused() {
    let engine = crowded(20_000, EngineLimits::default());
    let doubling = (0..12)
        .fold("SELECT uid AS a FROM devices".to_owned(), |inner, _| format!("SELECT a||a||a||a AS a FROM ({inner}) x"));
    let arrays = (0..12).fold("SELECT [uid] AS a FROM devices".to_owned(), |inner, _| {
        format!("SELECT a||a||a||a AS a FROM ({inner}) x")
    });
    let structs = (0..12)
        .fold("SELECT uid AS a FROM devices".to_owned(), |inner, _| format!("SELECT [a,a,a,a] AS a FROM ({inner}) x"));
    for sql in [
        "SELECT repeat('x', 1000000000)",
        "SELECT repeat(hostname, 1000000) FROM devices",
        "SELECT repeat('x', 1000000) FROM devices",
        "SELECT lpad('x', 1000000000, 'y')",
        "SELECT rpad(uid, 1000000) FROM devices",
        "SELECT replace(repeat('a', 1000000), 'a', repeat('b', 10000))",
        "SELECT regexp_replace(repeat('a', 1000000), 'a', repeat('b', 10000), 'g')",
        "SELECT generate_series(1, 1000000000)",
        "SELECT range(0, 10000000000)",
        "SELECT range(0, 1000000 + length(uid)) FROM devices",
        "SELECT generate_series(timestamp '1970-01-01', timestamp '2024-01-01', interval '1 microsecond')",
        "SELECT array_repeat('x', 1000000000)",
        "SELECT array_repeat(array_repeat(uid, 10000), 10000) FROM devices",
        "SELECT array_resize([1], 1000000000, 0)",
        "SELECT array_to_string(range(0, 1000000), repeat('x', 10000))",
        "SELECT unnest(range(0, 1000000)), hostname, hostname || 'x' FROM devices",
        "SELECT string_agg(hostname, repeat('x', 1000000)) FROM devices",
        "SELECT levenshtein(repeat('x', 1000000), repeat('y', 1000000))",
        "SELECT to_char(last_seen_time, repeat('%A', 100000)) FROM devices",
        "SELECT count(*) FROM (SELECT repeat('x', 1000000) AS x) a, devices b WHERE a.x || b.uid LIKE '%z'",
        "SELECT repeat('x', 8000) FROM devices",
        &doubling,
        &arrays,
        &structs,
    ] {
        let started = Instant::now();
        let said = engine.sql(&actor("t", &[]), sql, None).await.map(|answer| answer.meta.rows);
        assert!(matches!(said, Err(QueryError::TooLarge(_))), "{sql}: {said:?}");
        assert!(started.elapsed() < FAST, "{sql}: {:?}", started.elapsed());
    }
    // What is no larger than it should be is made.
    for (sql, is) in [
        ("SELECT length(repeat('x', 1000000)) AS n", 1_000_000),
        ("SELECT max(length(repeat(uid, 10))) AS n FROM devices", 80),
        ("SELECT cardinality(range(0, 1000)) AS n", 1000),
        ("SELECT count(*) AS n FROM (SELECT unnest(range(0, 100)) FROM devices)", 2_000_700),
        ("SELECT length('ab' || 'cd') AS n", 4),
        ("SELECT count(*) AS n FROM devices WHERE hostname || NULL IS NULL", 20_007),
        ("SELECT cardinality(['a'] || ['b']) AS n", 2),
        ("SELECT length(1 || 'b') AS n", 2),
    ] {
        let answer = engine.sql(&actor("t", &[]), sql, None).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert_eq!(json(&answer)[0]["n"], is, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_planned_large_is_refused_and_the_rest_is_fast() {
    let engine = busy(20_000, 100_000);
    let of = |n: usize, one: fn(usize) -> String, between: &str| (0..n).map(one).collect::<Vec<_>>().join(between);
    let sum = |n: usize| format!("SELECT {} AS n", vec!["1"; n].join("+"));
    let deep = |n: usize| format!("SELECT {}1{} AS n", "(".repeat(n), ")".repeat(n));
    let columns = |n: usize| format!("SELECT {} FROM devices", of(n, |n| format!("upper(uid) AS c{n}"), ","));
    let names =
        |n: usize| format!("SELECT count(*) FROM devices WHERE uid IN ({})", of(n, |n| format!("'sr:{n}'"), ","));
    let union = |n: usize| of(n, |_| "SELECT uid FROM devices".to_owned(), " UNION ALL ");
    let either =
        |n: usize| format!("SELECT count(*) FROM devices WHERE {}", of(n, |n| format!("uid = 'sr:{n}'"), " OR "));
    let tables = |n: usize| {
        format!("SELECT count(*) FROM {}", of(n, |n| format!("(SELECT uid FROM devices WHERE uid = 'sr:1') t{n}"), ","))
    };
    let cases =
        |n: usize| format!("SELECT CASE {} END FROM devices", of(n, |n| format!("WHEN uid = 'sr:{n}' THEN {n}"), " "));
    let laughs = |n: usize| {
        let more =
            (1..=n).map(|n| format!("t{n} AS (SELECT 1 AS x FROM t{} a, t{} b)", n - 1, n - 1)).collect::<Vec<_>>();
        format!("WITH t0 AS (SELECT 1 AS x), {} SELECT count(*) FROM t{n}", more.join(", "))
    };
    for (sql, fits) in [
        (sum(150), true),
        (sum(3000), false),
        (sum(32_000), false),
        (deep(5000), false),
        (columns(500), true),
        (columns(4000), false),
        (names(5000), true),
        (union(20), true),
        (union(1000), false),
        (either(150), true),
        (either(2000), false),
        (tables(16), true),
        (tables(300), false),
        (cases(300), true),
        (cases(1500), false),
        (laughs(4), true),
        (laughs(60), false),
    ] {
        let started = Instant::now();
        let said = engine.sql(&actor("t", &[]), &sql, None).await.map(|answer| answer.meta.rows);
        let head = &sql[..sql.len().min(90)];
        match said {
            Ok(_) => assert!(fits, "{head}"),
            Err(QueryError::Language(ref error)) => assert!(!fits, "{head}: {error}"),
            Err(error) => panic!("{head}: {error:?}"),
        }
        assert!(started.elapsed() < FAST, "{head}: {:?}", started.elapsed());
    }
    let networks = |n: usize| of(n, |n| format!("10.{}.{}.0/25", n / 250, n % 250), ",");
    let fields = |n: usize| of(n, |n| format!("metadata.f{n}"), ",");
    let sums = |n: usize| of(n, |n| format!("sum(bytes_total) as s{n}"), ",");
    for (query, code) in [
        (having(900), None),
        (having(6000), Some("too_many_terms")),
        (format!("in:devices fields:{}", fields(500)), None),
        (format!("in:devices fields:{}", fields(3000)), Some("too_many_terms")),
        (format!("in:devices sort:{}", of(100, |n| format!("metadata.f{n}:asc"), ",")), None),
        (format!("in:flows stats:\"{}\" units:bps", sums(300)), None),
        (format!("in:devices ip:({})", networks(9999)), None),
        (format!("in:devices ip_addresses:({})", networks(9999)), None),
        (format!("in:flows src_endpoint_ip:({})", networks(9999)), None),
        (format!("in:devices stats:\"count_if(ip:({})) as n\"", networks(5000)), None),
        (format!("in:devices hostname:({})", of(9999, |n| format!("h{n}*"), ",")), Some("too_many_terms")),
        (format!("in:devices last_seen_time:({})", of(9999, |_| "2024-01-01".to_owned(), ",")), Some("too_many_terms")),
        (format!("in:flows {}", of(900, |n| format!("\"x{n}\""), " ")), Some("too_many_terms")),
        (
            format!("in:devices {}", of(100, |_| "uid:(in:flows fields:src_device_uid)".to_owned(), " ")),
            Some("too_many_subqueries"),
        ),
        ("in:flows time:last_1h latest:true".to_owned(), None),
        ("in:flows time:last_1h latest:true stats:\"count() as n by src_endpoint_ip\"".to_owned(), None),
    ] {
        let started = Instant::now();
        let said = engine.query(&actor("t", &[]), &query, None, None).await.map(|answer| answer.meta.rows);
        let head = &query[..query.len().min(90)];
        match (said, code) {
            (Ok(_), None) => {}
            (Err(QueryError::Language(error)), Some(code)) => assert_eq!(error.code, code, "{head}"),
            (said, _) => panic!("{head}: {said:?}"),
        }
        assert!(started.elapsed() < FAST, "{head}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn sets_of_addresses_are_what_their_ranges_are() {
    let engine = crate::engine();
    let count = async |query: &str| {
        json(&engine.query(&actor("t", &[]), query, None, None).await.unwrap_or_else(|e| panic!("{query}: {e:?}")))
            .len()
    };
    for (list, each) in [
        ("ip:(10.0.0.0/30,10.0.2.0/24)", "(ip:10.0.0.0/30 OR ip:10.0.2.0/24)"),
        ("ip:(10.0.0.2-10.0.0.10,10.0.0.9-10.0.0.11,10.0.0.1)", "(ip:10.0.0.2-10.0.0.11 OR ip:10.0.0.1)"),
        ("ip_addresses:(10.0.1.0/24,2001:db8::/32)", "(ip_addresses:10.0.1.0/24 OR ip_addresses:2001:db8::/32)"),
        ("!ip:(10.0.0.0/24,10.0.1.0/24)", "!ip:10.0.0.0/23"),
        ("ip:(0.0.0.0/0,1.1.1.1)", "ip:0.0.0.0/0"),
    ] {
        assert_eq!(count(&format!("in:devices {list}")).await, count(&format!("in:devices {each}")).await, "{list}");
    }
    let flows = "in:flows time:last_7d dst_endpoint_ip";
    assert_eq!(count(&format!("{flows}:(8.8.0.0/16,2001:db8::/64)")).await, 3);
}
