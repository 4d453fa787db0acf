//! What is told of questions beside their answers: every mistake, what is doubtful, where a statement of SQL is wrong, and
//! what stands for a parameter.

use datafusion::common::ScalarValue;
use radarflow_query::engine::parameters::Bound;
use radarflow_query::error::QueryError;

use crate::{actor, engine, json};

/// The mistakes of a query: the code of each, and what it is about.
async fn mistakes(text: &str) -> Vec<String> {
    let checked = engine().validate(&actor("t", &[]), text).await.expect("it is looked at");
    let told = checked.mistakes.into_iter();
    told.map(|e| format!("{} {}", e.code, text.get(e.start..e.end).expect("it is somewhere"))).collect()
}

#[tokio::test]
async fn every_mistake_is_told() {
    assert_eq!(mistakes("in:devices hostname:core1 limit:5").await, [""; 0]);
    assert_eq!(
        mistakes("in:devices hostnam:x bad: y metadata:>5 limit:0 sort:nothing last_seen:soon").await,
        [
            "unknown_field hostnam",
            "value_missing  y",
            "not_ordered 5",
            "bad_limit 0",
            "unknown_field nothing",
            "bad_time soon",
        ]
    );
    // In subqueries, in lists, in the filters of calls, in conditions on groups.
    assert_eq!(
        mistakes("in:flows bytes_total:(1,x,y) src_device_uid:(in:devices hostnam:x vendr:y) app:dns").await,
        ["bad_number x", "bad_number y", "unknown_field hostnam", "unknown_field vendr"]
    );
    assert_eq!(
        mistakes(
            "in:flows stats:\"count_if(ap:dns) as n, sum(app) as s, avg(nothing) as a by nowhere, app\" \
             having:\"n>x and m>5 and not (s=1 or o=2)\" sort:missing"
        )
        .await,
        [
            "unknown_field ap",
            "not_a_number sum(app)",
            "unknown_field nothing",
            "unknown_field nowhere",
            "bad_number n>x",
            "unknown_column m>5",
            "unknown_column o=2",
            "unknown_column missing",
        ]
    );
    // An entity that is nearly one is taken for it; what is none is not judged further.
    assert_eq!(mistakes("in:devicez hostnam:x").await, ["unknown_entity devicez", "unknown_field hostnam"]);
    assert_eq!(mistakes("in:qqqq hostnam:x").await, ["unknown_entity qqqq"]);
    assert_eq!(
        mistakes("in:devices group:nowhere hostnam:x").await,
        ["unknown_group nowhere", "unknown_field hostnam"]
    );
    assert_eq!(mistakes("hostnam:x ()").await, ["entity_missing ", "term_missing ()"]);
    // Of very many some are told.
    let many = (0..200).map(|n| format!("x{n}:1")).collect::<Vec<_>>().join(" ");
    assert_eq!(mistakes(&format!("in:devices {many}")).await.len(), 50);
}

#[tokio::test]
async fn a_doubt_is_told_beside_the_answer() {
    let engine = engine();
    let warnings =
        async |query: &str| engine.query(&actor("t", &[]), query, None, None).await.expect("it answers").meta.warnings;
    for (query, near) in [
        ("in:devices availability:Available", "availability:available"),
        ("in:flows time:last_7d app:dns,https", "app:(dns,https)"),
        ("in:devices hostname:“core1”", "hostname:\"core1\""),
    ] {
        let told = warnings(query).await;
        assert!(told.len() == 1 && told[0].contains(near), "{query}: {told:?}");
    }
    assert!(warnings("in:logs time:last_7d level:WARN").await.is_empty());
    let checked = engine.validate(&actor("t", &[]), "in:devices availability:Available").await.unwrap();
    assert_eq!((checked.mistakes.len(), checked.warnings.len()), (0, 1));
}

#[tokio::test]
async fn a_mistake_in_sql_has_a_place() {
    let engine = engine();
    for (sql, place, near) in [
        ("SELECT nothing FROM devices", "nothing", None),
        ("SELECT uid,\n  hostnam FROM devices", "hostnam", Some("hostname")),
        ("SELECT 'é', hostnam FROM devices", "hostnam", Some("hostname")),
        ("SELECT uid FROM devics", "devics", Some("devices")),
        ("SELECT nosuch(uid) FROM devices", "nosuch", None),
        ("SELECT uid FORM devices", "devices", None),
        ("SELECT uid FROM devices WHERE", "", None),
        ("SELEC 1", "SELEC", None),
        ("DROP TABLE devices", "DROP", None),
        ("EXPLAIN INSERT INTO devices SELECT * FROM devices", "EXPLAIN", None),
        ("SELECT uid FROM devices WHERE uid = $1", "SELECT", None),
        ("SELECT ?, $1", "SELECT", None),
    ] {
        match engine.sql(&actor("t", &[]), sql, None).await {
            Err(QueryError::Language(e)) => {
                assert_eq!((&sql[e.start..e.end], e.did_you_mean.as_deref()), (place, near), "{sql}: {e:?}");
                assert!(!e.detail.contains("SQL error") && !e.detail.contains("at Line"), "{}", e.detail);
            }
            other => panic!("{sql}: {:?}", other.map(|a| json(&a))),
        }
    }
}

#[tokio::test]
async fn a_plan_is_told_in_sql_too() {
    let engine = engine();
    for (sql, told) in [
        ("EXPLAIN SELECT uid FROM devices WHERE hostname = 'core1'", "hostname"),
        ("EXPLAIN ANALYZE SELECT count(*) FROM flows", "output_rows"),
        ("DESCRIBE devices", "hostname"),
    ] {
        let answer = engine.sql(&actor("t", &[]), sql, None).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let rows = serde_json::to_string(&json(&answer)).unwrap();
        assert!(rows.contains(told), "{sql}: {rows}");
        // Whoever may see no row is told of none.
        assert!(!rows.contains("core2"), "{rows}");
    }
}

#[tokio::test]
async fn values_stand_for_parameters() {
    let engine = engine();
    let rows = async |statement: &str, values: &[ScalarValue]| {
        let bound = Bound { statement: statement.into(), values: values.to_vec() };
        let mut export = engine.export_bound(&actor("t", &[]), &bound).await?;
        let mut rows = 0;
        while let Some(batch) = export.next().await {
            rows += batch?.num_rows();
        }
        Ok::<_, QueryError>(rows)
    };
    let text = |text: &str| ScalarValue::Utf8(Some(text.into()));
    assert_eq!(rows("SELECT uid FROM devices WHERE hostname = $1", &[text("core2")]).await.unwrap(), 1);
    assert_eq!(rows("SELECT uid FROM devices WHERE hostname = $1", &[text("' OR '1'='1")]).await.unwrap(), 0);
    let two = "SELECT uid FROM (SELECT * FROM devices WHERE type = ?) WHERE vendor_name = ? LIMIT ?";
    let values = [text("router"), text("Cisco"), ScalarValue::Int64(Some(1))];
    assert_eq!(rows(two, &values).await.unwrap(), 1);
    assert_eq!(
        rows("SELECT app FROM flows WHERE bytes_total > $1", &[ScalarValue::Int64(Some(8000))]).await.unwrap(),
        2
    );
    for (statement, values) in [
        ("SELECT uid FROM devices WHERE hostname = $1", &[][..]),
        ("SELECT uid FROM devices", &[text("x")][..]),
        ("SELECT uid FROM devices WHERE hostname = $name", &[text("x")][..]),
    ] {
        let refused = rows(statement, values).await;
        assert!(matches!(refused, Err(QueryError::Language(_))), "{statement}: {refused:?}");
    }
    let (columns, wanted) =
        engine.sql_schema(&actor("t", &[]), "SELECT uid FROM devices WHERE hostname = ? AND epoch > ?").await.unwrap();
    assert_eq!(columns.fields().len(), 1);
    let types: Vec<String> = wanted.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    assert_eq!(types, ["$1 Utf8", "$2 Int64"]);
}

#[tokio::test]
async fn a_page_has_a_row_at_least() {
    let engine = engine();
    assert!(matches!(engine.query(&actor("t", &[]), "in:devices", None, Some(0)).await, Err(QueryError::Language(_))));
    assert!(matches!(engine.sql(&actor("t", &[]), "SELECT 1", Some(0)).await, Err(QueryError::Language(_))));
}
