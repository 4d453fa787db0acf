//! The query language on a fixed data set: `tests/srql/*.srql` hold queries and what they answer.
//!
//! A file is made of blocks with a blank line between them: comments (`#`), the query, then `= columns` and the rows, or
//! `! code from-to` for a mistake and its place. With `RADARFLOW_BLESS=1` the answers are written anew; read the
//! difference before you believe it.

mod asked;
mod bounds;
mod corrections;
mod data;
mod fuzz;
mod intervals;
mod limits;
mod naive;
mod rooms;
mod stream;
mod zones;

use std::fmt::Write as _;
use std::sync::Arc;

use radarflow_proto::fact::Role;
use radarflow_query::actor::Actor;
use radarflow_query::engine::Engine;
use radarflow_query::engine::answer::Answer;
use radarflow_query::error::QueryError;
use radarflow_query::tables::catalog::ENTITIES;
use radarflow_query::tables::live::Live;
use serde_json::Value;

fn engine() -> Arc<Engine> {
    // Nothing is ever committed to this lake: all there is is in memory.
    engine_over(Live::new(Some("no-lake".into()), 0))
}

fn engine_over(live: Live) -> Arc<Engine> {
    let live = Arc::new(live);
    for epoch in data::epochs() {
        live.apply(&epoch.into());
    }
    Arc::new(Engine::new(live, [7; 32]).expect("an engine starts"))
}

fn actor(tenant: &str, partitions: &[&str]) -> Actor {
    Actor {
        partitions: partitions.iter().map(|p| (*p).to_owned()).collect(),
        ..Actor::of_role("test", tenant, Role::Admin)
    }
}

fn json(answer: &Answer) -> Vec<Value> {
    let mut writer = arrow::json::writer::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    let batches: Vec<_> = answer.batches.iter().collect();
    writer.write_batches(&batches).and_then(|()| writer.finish()).expect("rows are JSON");
    let bytes = writer.into_inner();
    if bytes.is_empty() { Vec::new() } else { serde_json::from_slice(&bytes).expect("rows are JSON") }
}

/// An answer as files have it.
async fn said(engine: &Arc<Engine>, query: &str) -> String {
    match engine.query(&actor("t", &[]), query, None, None).await {
        Ok(answer) => {
            let columns: Vec<String> = answer.schema.fields().iter().map(|f| f.name().clone()).collect();
            let mut out = format!("= {}\n", columns.join(" | "));
            for row in json(&answer) {
                let cells = columns.iter().map(|c| match &row[c] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join(" | "));
            }
            out
        }
        Err(QueryError::Language(e)) => format!("! {} {}-{} {e}\n", e.code, e.start, e.end),
        Err(other) => format!("! {other:?}\n"),
    }
}

#[tokio::test]
async fn every_query_answers_what_its_file_says() {
    let engine = engine();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/srql");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let (mut wrong, mut n) = (Vec::new(), 0);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut written = String::new();
        for block in text.split("\n\n").map(|b| b.trim_matches('\n')).filter(|b| !b.is_empty()) {
            let lines: Vec<&str> = block.lines().collect();
            let comments = lines.iter().take_while(|l| l.starts_with('#')).count();
            let Some(query) = lines.get(comments) else {
                let _ = writeln!(written, "{block}\n");
                continue;
            };
            let expected = lines[comments + 1..].iter().fold(String::new(), |all, line| all + line + "\n");
            let got = said(&engine, query).await;
            n += 1;
            if got != expected {
                wrong.push(format!("{}: {query}\nexpected\n{expected}got\n{got}", file.display()));
            }
            let comments = lines[..comments].iter().fold(String::new(), |all, line| all + line + "\n");
            let _ = writeln!(written, "{comments}{query}\n{got}");
        }
        if std::env::var_os("RADARFLOW_BLESS").is_some() {
            std::fs::write(&file, written.trim_end().to_owned() + "\n").unwrap();
        }
    }
    assert!(n > 100, "there are {n} queries");
    assert!(wrong.is_empty() || std::env::var_os("RADARFLOW_BLESS").is_some(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_page_of_the_language_is_what_the_language_is() {
    let page = radarflow_query::srql::docs::srql();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/SRQL.md");
    if std::env::var_os("RADARFLOW_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept == page, "radarflow docs srql > query/SRQL.md");
    let engine = engine();
    for (query, _) in radarflow_query::srql::words::EXAMPLES {
        engine.query(&actor("t", &[]), query, None, None).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_every_entity_may_stand_in_every_clause() {
    let engine = engine();
    let (mut asked, mut wrong) = (0, Vec::new());
    for entity in ENTITIES.iter() {
        let time = if entity.time.is_some() { " time:last_7d" } else { "" };
        for field in &entity.fields {
            let (e, f) = (entity.name, field.name);
            let queries = [
                format!("in:{e}{time} `{f}`:* !`{f}`:null fields:`{f}` sort:`{f}`:asc limit:3"),
                format!("in:{e}{time} `{f}`:\"\" limit:1"),
                format!(
                    r#"in:{e}{time} stats:"count() as n, count(`{f}`) as v1, count_distinct(`{f}`) as v2, first(`{f}`) as v3, last(`{f}`) as v4, min(`{f}`) as v5, max(`{f}`) as v6, group_uniq_array(`{f}`) as v7 by `{f}`""#
                ),
            ];
            for query in queries {
                asked += 1;
                match engine.query(&actor("t", &[]), &query, None, None).await {
                    Ok(_) => {}
                    // What is no number is said to be none.
                    Err(QueryError::Language(e))
                        if [
                            "unknown_field",
                            "bad_number",
                            "bad_time",
                            "bad_boolean",
                            "bytes_not_comparable",
                            "bad_ip",
                        ]
                        .contains(&e.code) => {}
                    Err(error) => wrong.push(format!("{query}: {error:?}")),
                }
            }
        }
    }
    assert!(asked > 500, "{asked}");
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn nobody_sees_another_tenant_or_partition() {
    let engine = engine();
    let count = async |actor: &Actor, query: &str| {
        let answer = engine.query(actor, query, None, None).await.expect("it answers");
        json(&answer).len()
    };
    let queries = [
        "in:devices include_deleted:true",
        "in:flows time:last_7d",
        "in:(flows,logs) time:last_7d",
        "in:logs time:last_7d device.vendor_name:*",
        r#"in:devices uid:(in:flows time:last_7d fields:src_device_uid)"#,
        r#"in:flows time:last_7d stats:"count() as n by src_endpoint_ip""#,
    ];
    for query in queries {
        assert_eq!(count(&actor("nobody", &[]), query).await, 0, "{query}");
        assert_eq!(count(&actor("t", &["nowhere"]), query).await, 0, "{query}");
        assert!(count(&actor("t", &[]), query).await > 0, "{query}");
    }
    // Joins and subqueries are narrowed like everything else.
    let bound = actor("t", &["site-b"]);
    let all = count(&actor("t", &[]), queries[4]).await;
    assert!(count(&bound, queries[4]).await < all);
    assert_eq!(count(&actor("u", &[]), "in:devices").await, 1);
}

#[tokio::test]
async fn pages_repeat_and_lose_nothing() {
    let engine = engine();
    let actor = actor("t", &[]);
    for query in [
        "in:devices sort:hostname:asc fields:uid limit:2",
        "in:(flows,logs) time:last_7d fields:row_id limit:3",
        r#"in:flows time:last_7d stats:"count() as n by src_endpoint_ip, app" limit:2"#,
        "in:devices sort:metadata.rack:asc fields:uid limit:2",
        "in:logs time:last_7d sort:device.vendor_name:asc fields:row_id limit:3",
        "in:devices sort:metadata.rack:desc,model:asc,uid:desc fields:uid limit:1",
    ] {
        let whole = query.rsplit_once(" limit").unwrap().0;
        let whole = json(&engine.query(&actor, whole, None, None).await.unwrap());
        let (mut pages, mut cursor) = (Vec::new(), None);
        let mut page = engine.query(&actor, query, None, None).await.unwrap();
        assert!(page.prev_cursor.is_none(), "nothing is before the first page: {query}");
        loop {
            pages.push(json(&page));
            let Some(next) = page.next_cursor else { break };
            page = engine.query(&actor, query, Some(&next), None).await.unwrap();
            cursor.clone_from(&page.prev_cursor);
        }
        assert_eq!(pages.concat(), whole, "{query}");
        // And back: the same pages, each leading on to the one it came from.
        for n in (0..pages.len() - 1).rev() {
            let page = engine.query(&actor, query, cursor.as_deref(), None).await.unwrap();
            assert_eq!(json(&page), pages[n], "{query}, back to page {n}");
            let on = engine.query(&actor, query, page.next_cursor.as_deref(), None).await.unwrap();
            assert_eq!(json(&on), pages[n + 1], "{query}, on from page {n}");
            cursor = page.prev_cursor;
            assert_eq!(cursor.is_none(), n == 0, "{query}, page {n}");
        }
    }
}

#[tokio::test]
async fn a_cursor_goes_on_with_another_limit_and_no_other_query() {
    let engine = engine();
    let actor = actor("t", &[]);
    let whole = "in:devices sort:hostname:asc,uid:asc fields:uid";
    let all = json(&engine.query(&actor, whole, None, None).await.unwrap());
    let first = engine.query(&actor, &format!("limit:2 {whole}"), None, None).await.unwrap();
    let next = first.next_cursor.clone().expect("there are more");
    for (query, limit, n) in [
        (format!("{whole}  limit:3"), None, 3),
        (format!("limit:1 {whole}"), None, 1),
        (whole.to_owned(), None, all.len() - 2),
        (whole.to_owned(), Some(2), 2),
        (format!("{whole} cursor:{next}"), Some(3), 3),
    ] {
        let cursor = (!query.contains("cursor:")).then_some(next.as_str());
        let page = engine.query(&actor, &query, cursor, limit).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
        assert_eq!(json(&page), all[2..2 + n], "{query}");
    }
    for other in
        ["in:devices sort:hostname:asc,uid:desc fields:uid limit:2", "in:devices sort:hostname:asc,uid:asc limit:2"]
    {
        let said = engine.query(&actor, other, Some(&next), None).await;
        assert!(matches!(said, Err(QueryError::Cursor(_))), "{other}");
    }
}

#[tokio::test]
async fn an_answer_says_how_much_was_read_and_what_its_columns_count() {
    let engine = engine();
    for (query, rows, units) in [
        (
            "in:flows time:last_7d app:rtsp fields:bytes_total,packets_total",
            8,
            "bytes_total bytes, packets_total packets",
        ),
        ("in:flows time:last_7d stats:\"sum(bytes_total) as b, count() as n by app\"", 8, "b bytes"),
        (
            "in:flows time:last_7d units:bps stats:\"sum(bytes_total) as b, rate(packets_total) as p\"",
            8,
            "b bits/s, p packets/s",
        ),
        (
            "in:flows time:last_7d bucket:1d agg:sum value_field:bytes_total compare:1d",
            16,
            "value bytes, value_before bytes",
        ),
        ("in:devices fields:uid", 7, ""),
    ] {
        let answer =
            engine.query(&actor("t", &[]), query, None, None).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
        let told: Vec<String> = answer.units.iter().map(|(column, unit)| format!("{column} {unit}")).collect();
        assert_eq!(told.join(", "), units, "{query}");
        assert_eq!(answer.meta.rows_scanned, rows, "{query}");
        assert!(answer.meta.bytes_scanned > 0, "{query}");
    }
}

#[tokio::test]
async fn values_are_offered_most_frequent_first_and_only_ones_own() {
    let engine = engine();
    let offered = async |actor: &Actor, text: &str| {
        let (_, items) = engine.complete(actor, text, text.len()).await.expect("it answers");
        items.into_iter().map(|i| i.text).collect::<Vec<_>>()
    };
    let t = actor("t", &[]);
    assert_eq!(offered(&t, "in:devices vendor_name:").await, ["Cisco", "Axis", "Dell", "Juniper", "dell"]);
    assert_eq!(offered(&t, "in:devices vendor_name:de").await, ["Dell", "dell"]);
    assert_eq!(offered(&t, "in:devices discovery_sources:(ar").await, ["armis"]);
    assert_eq!(offered(&t, "in:devices metadata.").await, ["role:", "rack:", "`port count`:"]);
    assert_eq!(offered(&t, "in:devices metadata.rack:").await, ["r1", "r2"]);
    assert_eq!(offered(&t, "in:devices display_name:O").await, [r"'O\'Brien\'s cam_1'"]);
    assert_eq!(offered(&t, "in:logs severity:").await, ["error", "info", "warning"], "of the last minutes");
    assert_eq!(offered(&t, "in:logs device.vendor_name:C").await, ["Cisco"]);
    assert_eq!(offered(&actor("t", &["site-b"]), "in:devices hostname:").await, ["core1"]);
    assert!(offered(&actor("nobody", &[]), "in:devices hostname:").await.is_empty());
}

#[tokio::test]
async fn sql_sees_what_its_asker_may_see_and_changes_nothing() {
    let engine = engine();
    let rows = async |actor: &Actor, sql: &str, limit| match engine.sql(actor, sql, limit).await {
        Ok(answer) => (json(&answer), answer.meta.truncated),
        Err(error) => panic!("{sql}: {error:?}"),
    };
    let all = actor("t", &[]);
    let bound = actor("t", &["site-b"]);
    let count = "SELECT count(*) AS n FROM devices";
    assert_eq!(rows(&all, count, None).await.0[0]["n"], 7, "the deleted one is among them");
    assert_eq!(rows(&bound, count, None).await.0[0]["n"], 1);
    assert_eq!(rows(&actor("nobody", &[]), count, None).await.0[0]["n"], 0);
    let joined = "WITH talk AS (SELECT src_device_uid AS uid, sum(bytes_total) AS b FROM flows GROUP BY 1) \
                  SELECT d.hostname, t.b, rank() OVER (ORDER BY t.b DESC) AS r FROM talk t JOIN devices d USING (uid) \
                  WHERE d.hostname IS NOT NULL ORDER BY r";
    let found = rows(&all, joined, None).await.0;
    assert_eq!((&found[0]["hostname"], &found[0]["r"]), (&"web2.example.net".into(), &1.into()), "{found:?}");
    let (found, truncated) = rows(&all, "SELECT uid FROM devices ORDER BY uid", Some(2)).await;
    assert_eq!((found.len(), truncated), (2, true));
    for wrong in [
        "DROP TABLE devices",
        "INSERT INTO devices SELECT * FROM devices",
        "COPY devices TO '/tmp/devices.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT * FROM devices",
        "CREATE VIEW t AS SELECT 1",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM information_schema.tables",
        "SHOW TABLES",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM devices",
        "SELEC 1",
        "",
    ] {
        let said = engine.sql(&all, wrong, None).await;
        assert!(matches!(said, Err(QueryError::Language(_))), "{wrong}: {:?}", said.map(|a| json(&a)));
    }
    assert!(engine.sql(&all, count, Some(1_000_000)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_name_devices_as_they_are_called_today() {
    use radarflow_proto::ports::EpochOutput;
    use radarflow_proto::rows::{Change, DeviceRedirect, StateRow};
    let engine = engine();
    let count = async |query: &str| {
        let answer =
            engine.query(&actor("t", &[]), query, None, None).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
        json(&answer)
    };
    let web = r#"in:flows time:last_7d src_device_uid:"sr:web2" stats:count()"#;
    let old = r#"in:flows time:last_7d src_device_uid:"sr:web1" stats:count()"#;
    let (before, moved) = (count(web).await[0]["count"].as_i64(), count(old).await[0]["count"].as_i64());
    let redirect = |from: &str, to: &str, identifier: &str| {
        StateRow::from(DeviceRedirect {
            tenant_id: "t".into(),
            partition: "default".into(),
            from_uid: from.into(),
            to_uid: to.into(),
            identifier: identifier.into(),
            epoch: 4,
        })
    };
    // Two turn out to be one; and who has an address now is not who had it then.
    let rows = [redirect("sr:web1", "sr:web2", "armis@main:1"), redirect("sr:cam1", "sr:core1", "ip:10.0.2.7")];
    let changes = rows.into_iter().filter_map(|row| Change::new(None, Some(row))).collect();
    let told = EpochOutput { epoch: 4, clock_ms: data::NOW, changes, ..EpochOutput::default() };
    engine.live().apply(&told.into());
    let all = Some(before.unwrap() + moved.unwrap());
    assert_eq!((count(web).await[0]["count"].as_i64(), count(old).await[0]["count"].as_i64()), (all, all));
    let asked = engine.query(&actor("t", &[]), old, None, None).await.unwrap();
    assert_eq!(asked.meta.warnings, ["sr:web1 is called sr:web2 now"]);
    let talks = count(r#"in:flows time:last_7d stats:"count() as n by src_device_uid" sort:src_device_uid:asc"#).await;
    let talks: Vec<_> = talks.iter().map(|row| row["src_device_uid"].as_str()).collect();
    assert_eq!(talks, [Some("sr:cam1"), Some("sr:web2")]);
    let named = count(r#"in:flows time:last_7d dst_device_uid:"sr:web2" fields:dst_device.hostname limit:1"#).await;
    assert!(named[0]["dst_device.hostname"].is_string(), "{named:?}");
    let sql = "SELECT count(*) AS n FROM logs WHERE device_uid = 'sr:web2'";
    let answer = engine.sql(&actor("t", &[]), sql, None).await.unwrap();
    assert_eq!(json(&answer)[0]["n"], 3);
    // What is stored is asked for by every name that leads there: a file that has none of them is not read.
    let plans = serde_json::to_string(&count(&format!("{web} explain:true")).await).unwrap();
    assert!(plans.contains("src_device_uid IN") && plans.contains("sr:web1"), "{plans}");
    // What is stored is as it was, and others see their own.
    let mine = engine.query(&actor("u", &[]), "in:device_redirects", None, None).await.unwrap();
    assert_eq!(mine.meta.rows, 0);
}
