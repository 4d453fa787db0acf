//! Queries made to be slow end at their bounds, and the others do not notice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use radarflow_proto::fact::{self, Fact, Role, Token};
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Change, Device, StateRow};
use radarflow_query::actor::{Principals, hash, new_token};
use radarflow_query::engine::admission::CONCURRENT_TENANT;
use radarflow_query::engine::{Engine, EngineLimits};
use radarflow_query::error::QueryError;
use radarflow_query::live::events::Event;
use radarflow_query::live::streams::Streams;
use radarflow_query::tables::live::Live;
use radarflow_reconcile::resources::{At, Judges};

use crate::{actor, data, json};

/// Many devices, and little room.
pub(crate) fn crowded(rows: usize, limits: EngineLimits) -> Arc<Engine> {
    let live = Arc::new(Live::new(None, 0));
    for epoch in data::epochs() {
        live.apply(&epoch.into());
    }
    let StateRow::Device(base) = data::devices().swap_remove(0) else { unreachable!("a device") };
    let device = |n: usize| {
        let mut device = Device::clone(&base);
        device.uid = format!("sr:{n}");
        device.hostname = Some(format!("host-{n}-{}", "x".repeat(200)));
        Change::new(None, Some(StateRow::from(device).at(4)))
    };
    let changes = (0..rows).filter_map(device).collect();
    live.apply(&EpochOutput { epoch: 4, clock_ms: data::NOW + 1, changes, ..EpochOutput::default() }.into());
    Arc::new(Engine::with_limits(live, [7; 32], limits).expect("an engine starts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_without_end_ends_and_others_go_on() {
    let limits = EngineLimits { time: Duration::from_secs(2), ..EngineLimits::default() };
    let engine = crowded(20_000, limits);
    let cross = "SELECT count(*) FROM devices a, devices b, devices c WHERE a.hostname || b.hostname LIKE '%' || c.uid";
    let slow = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.sql(&actor("t", &[]), cross, None).await.map(|a| json(&a)) })
    };
    let mut slowest = Duration::ZERO;
    while !slow.is_finished() {
        let started = Instant::now();
        engine.query(&actor("u", &[]), "in:devices", None, None).await.expect("it answers");
        slowest = slowest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(matches!(slow.await.unwrap(), Err(QueryError::TimedOut)));
    assert!(slowest < Duration::from_secs(2), "another waited {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_and_nothing_else() {
    let engine = crowded(150_000, EngineLimits { memory: 32 << 20, ..EngineLimits::default() });
    // Groups that do not fit are refused; whoever asks something smaller is answered.
    let wide = r#"in:devices stats:"group_uniq_array(hostname) as all, count_distinct(uid) as n by uid""#;
    let said = engine.query(&actor("t", &[]), wide, None, None).await;
    assert!(matches!(said, Ok(_) | Err(QueryError::TooLarge(_))), "{said:?}");
    let join = "SELECT a.uid, count(*) FROM devices a JOIN devices b ON a.type = b.type GROUP BY 1";
    let said = engine.sql(&actor("t", &[]), join, Some(1)).await;
    assert!(matches!(said, Err(QueryError::TooLarge(_) | QueryError::TimedOut) | Ok(_)), "{said:?}");
    let mut export =
        engine.export(&actor("t", &[]), "in:devices sort:hostname:asc fields:hostname", None, None).await.unwrap();
    // It is sorted with the help of the disk as far as that helps; what does not fit even so is said.
    let mut last = String::new();
    while let Some(batch) = export.next().await {
        use arrow_array::cast::AsArray;
        match batch {
            Ok(batch) => {
                for name in batch.column(0).as_string::<i32>().iter().flatten() {
                    assert!(last.as_str() <= name, "{last} {name}");
                    last = name.to_owned();
                }
            }
            Err(QueryError::TooLarge(_)) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    drop(export);
    let small = engine.query(&actor("t", &[]), "in:devices sort:hostname:asc limit:3", None, None).await;
    assert_eq!(small.expect("a page fits").batches.iter().map(|b| b.num_rows()).sum::<usize>(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_frees_their_place_at_once() {
    let engine = crowded(20_000, EngineLimits::default());
    let cross = "SELECT count(*) FROM devices a, devices b, devices c WHERE a.hostname || b.hostname LIKE '%' || c.uid";
    let asking: Vec<_> = (0..CONCURRENT_TENANT)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.sql(&actor("t", &[]), cross, None).await.map(|_| ()) })
        })
        .collect();
    while engine.queries_running() < CONCURRENT_TENANT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let said = engine.query(&actor("t", &[]), "in:devices", None, None).await;
    assert!(matches!(said, Err(QueryError::Busy)), "a tenant asks so much at once: {said:?}");
    engine.query(&actor("u", &[]), "in:devices", None, None).await.expect("another has its own room");
    // Exports end with their reader too.
    asking.iter().for_each(tokio::task::JoinHandle::abort);
    let left = Instant::now();
    while engine.queries_running() > 0 {
        assert!(left.elapsed() < Duration::from_secs(5), "they go on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.query(&actor("t", &[]), "in:devices limit:1", None, None).await.expect("there is room again");
    let mut export = engine.export(&actor("t", &[]), "in:devices", None, None).await.unwrap();
    export.next().await.expect("rows").expect("rows");
    drop(export);
    while engine.queries_running() > 0 {
        assert!(left.elapsed() < Duration::from_secs(10), "it goes on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_ends_with_the_token_of_whoever_asks() {
    let engine = crowded(60_000, EngineLimits::default());
    let text = new_token();
    let (principals, mut judges) = (Principals::default(), Judges::default());
    let at = At { epoch: 1, now_us: 0 };
    let made = Fact::Token(Token {
        id: "1".into(),
        name: "n".into(),
        sha256: hash(&text),
        tenant: "t".into(),
        role: Role::Viewer,
        partitions: vec![],
        expires_ms: None,
    });
    principals.learn(&judges.state(at, &made));
    let asker = principals.actor(&text, 0).unwrap();
    let cross = "SELECT count(*) FROM devices a, devices b, devices c WHERE a.hostname || b.hostname LIKE '%' || c.uid";
    let slow = {
        let (engine, asker) = (engine.clone(), asker.clone());
        tokio::spawn(async move { engine.sql(&asker, cross, None).await.map(|_| ()) })
    };
    let mut exports = vec![
        engine.export(&asker, "in:devices", None, None).await.unwrap(),
        engine.export_sql(&asker, "SELECT * FROM devices").await.unwrap(),
    ];
    for export in &mut exports {
        export.next().await.expect("rows").expect("rows");
    }
    let streams = Streams::new(engine.clone());
    let mut events = streams.start(&asker, "in:devices uid:sr:1", None).unwrap();
    assert!(matches!(events.recv().await, Some(Event::Snapshot { last: true, .. })));
    let (actor, tenant) = (fact::Actor { name: "ann".into(), role: Role::Admin }, "t".to_owned());
    let revoked = Fact::TokenRevoked { tenant, id: "1".into(), name: "n".into(), actor, reason: String::new() };
    principals.learn(&judges.state(at, &revoked));
    for export in &mut exports {
        assert!(matches!(export.next().await, Some(Err(QueryError::Ended))));
        assert!(export.next().await.is_none());
    }
    assert!(matches!(slow.await.unwrap(), Err(QueryError::Ended)));
    while let Some(event) = events.recv().await {
        assert!(matches!(event, Event::Frontier(_) | Event::Failed(_)), "{event:?}");
    }
    let left = Instant::now();
    while engine.queries_running() + streams.running() > 0 {
        assert!(left.elapsed() < Duration::from_secs(10), "they go on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let said = engine.query(&asker, "in:devices limit:1", None, None).await;
    assert!(matches!(said, Err(QueryError::Ended)), "{said:?}");
}

#[tokio::test]
async fn what_is_too_much_is_refused_before_it_runs() {
    let engine = crowded(10, EngineLimits::default());
    let ask = async |query: String| engine.query(&actor("t", &[]), &query, None, None).await.map(|a| json(&a).len());
    let code = async |query: String| match ask(query).await {
        Err(QueryError::Language(e)) => e.code,
        other => panic!("{other:?}"),
    };
    let list = |n: usize| (0..n).map(|i| format!("h{i}")).collect::<Vec<_>>().join(",");
    assert_eq!(ask(format!("in:devices hostname:({},core2)", list(9_999))).await.unwrap(), 1, "ten thousand are fine");
    assert_eq!(code(format!("in:devices hostname:({})", list(10_001))).await, "list_too_long");
    assert_eq!(code(format!("in:devices {}uid:x{}", "(".repeat(70), ")".repeat(70))).await, "too_deep");
    assert_eq!(code(format!("in:devices {}", "x".repeat(2 << 20))).await, "query_too_long");
    for between in [" ", " OR ", " NOT "] {
        let terms = |n: usize| vec!["hostname:core2"; n].join(between);
        assert!(ask(format!("in:devices ({})", terms(999))).await.unwrap() < 7, "{between}");
        assert_eq!(code(format!("in:devices ({})", terms(1001))).await, "too_many_terms");
    }
    let wild = (0..300).map(|i| format!("h{i}*")).collect::<Vec<_>>().join(",");
    assert_eq!(ask(format!("in:devices hostname:({wild},core2)")).await.unwrap(), 1);
    assert_eq!(code("in:devices hostname:/(((a{100}){100}){100})/".to_owned()).await, "bad_regex");
    let deep = (0..5).fold("in:devices fields:uid".to_owned(), |q, _| format!("in:devices uid:({q}) fields:uid"));
    assert_eq!(code(deep).await, "too_deep");
    assert_eq!(code("in:flows time:last_7d bucket:1s fill:0".to_owned()).await, "too_many_buckets");
}
