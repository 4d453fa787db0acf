//! What rules are refused for, and what their alerts say.

use std::collections::BTreeMap;

use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use serde_json::{Value, json};

use super::rule::Rule;

/// A rule as a resource states it.
pub(crate) fn stated(name: &str, fields: &Value) -> Resource {
    let said = fields.as_object().unwrap().clone().into_iter().collect();
    let (fields, _) = crate::resources::named(Table::Rule.name()).unwrap().read_all(&said, true).unwrap();
    Resource::of(Table::Rule, "t", name, fields)
}

fn rule(query: &str) -> Result<Rule, String> {
    Rule::of(&stated("r", &json!({"query": query}))).map_err(|(field, why)| format!("{field}: {why}"))
}

const COUNT: &str = "stats:\"count() as n by source_ip\" having:\"n > 5\"";

#[test]
fn a_rule_that_cannot_be_followed_is_refused_with_its_place() {
    for (query, why) in [
        ("in:logs severty:error time:last_5m stats:count() having:\"count>1\"", "did you mean \"severity\""),
        ("in:logs severity_number:9 time:last_5m stats:count() having:\"count>1\"", "severity_number is from 0 to 7"),
        ("in:logs time:last_5m stats:count()", "say when it holds"),
        ("in:logs time:last_5m", "counts: stats:"),
        (&format!("in:logs {COUNT}"), "time:last_5m"),
        (&format!("in:logs time:yesterday {COUNT}"), "a span before now"),
        (&format!("in:logs time:last_30d {COUNT}"), "the last week at most"),
        (&format!("in:logs time:last_5m device.type:router {COUNT}"), "are not followed here"),
        (&format!("in:logs time:last_5m device_uid:(in:devices type:router) {COUNT}"), "subquery"),
        (&format!("in:logs time:last_5m sort:n {COUNT}"), "sort: has no meaning in a rule"),
        (&format!("in:logs time:last_5m limit:5 {COUNT}"), "limit: has no meaning in a rule"),
        (&format!("in:(logs,traps) time:last_5m {COUNT}"), "asks one entity"),
        ("in:alerts status:pending", "would speak of itself"),
        ("in:users", "rules follow events and devices"),
        ("in:devices time:last_5m", "it has no time:"),
        ("in:devices status_color:red", "hangs on the clock"),
        ("in:devices last_seen:>now-1h", "hangs on the clock"),
        ("in:logs time:last_5m stats:\"stddev(severity_number) as s\" having:\"s>1\"", "stddev is not kept"),
        ("in:logs time:last_5m stats:\"sum(body) as s\" having:\"s>1\"", "not a number"),
        ("in:logs time:last_5m stats:\"count() as n\" having:\"m > 5\"", "no column \"m\""),
        ("in:devices stats:\"median(epoch) as m\" having:\"m>1\"", "median"),
    ] {
        let refused = rule(query).err().unwrap_or_else(|| panic!("{query} is followed"));
        assert!(refused.starts_with("query: line 1, column ") && refused.contains(why), "{query}: {refused}");
    }
}

#[test]
fn a_rule_is_what_the_language_says() {
    for query in [
        &format!("in:logs severity:(error,crit*) body:/link.*down/i source_ip:10.0.0.0/8 time:last_5m {COUNT}"),
        "in:flows time:last_1h stats:\"sum(bytes_total) as bytes by src_ip:24, app\" having:\"bytes > 1G and app != dns\"",
        "in:flows time:last_1h stats:\"sum(bytes) as b by exporter\" having:\"b_deviation > 3 and b > b_expected\"",
        "in:probes time:last_10m stats:\"max(latency_us) as l by target\" having:\"l_in_4h > 1e6\"",
        "in:devices is_available:false type:router fields:ip,hostname",
        "in:devices stats:\"count() as n by partition, vendor\" having:\"n > 100\"",
        "in:traps time:last_1m stats:\"count_if(trap_oid:1.3*) as n by source_ip\" having:\"not n < 2\"",
    ] {
        if let Err(refused) = rule(query) {
            panic!("{query}: {refused}");
        }
    }
}

#[test]
fn an_alert_says_what_its_rule_says() {
    let fields = json!({
        "query": "in:logs time:last_5m stats:\"count() as n by device_uid, partition, source_ip\" having:\"n >= 100\"",
        "title": "{source_ip} logs {n} lines", "description": "see {rule}", "labels": ["team=net"],
        "runbook_url": "https://wiki/x",
    });
    let rule = Rule::of(&stated("burst", &fields)).unwrap();
    let group = [Some("sr:1".to_owned()), Some("dc1".to_owned()), None];
    let values = BTreeMap::from([("n".to_owned(), "150".to_owned())]);
    let says = rule.says(&group, &values);
    assert_eq!((says.title.as_str(), says.partition.as_str()), (" logs 150 lines", "dc1"));
    assert_eq!(says.description, "see burst\nn is 150\nrunbook: https://wiki/x");
    assert_eq!(says.device_uid.as_deref(), Some("sr:1"));
    assert_eq!(json!(says.labels), json!({"device_uid": "sr:1", "team": "net"}));
    let measured = says.measured.unwrap();
    assert_eq!((measured.metric.as_str(), measured.comparison.as_deref()), ("n", Some(">=")));
    assert_eq!((measured.value.as_deref(), measured.threshold.as_deref()), (Some("150"), Some("100")));
    assert_eq!(says.entity, r#"["sr:1",null]"#);
    let each = self::rule(&format!("in:logs time:last_5m {COUNT}")).unwrap();
    let says = each.says(&[Some("10.0.0.1".to_owned()), Some("dc2".to_owned())], &values);
    assert_eq!((says.partition.as_str(), says.entity.as_str()), ("dc2", "10.0.0.1"), "partitions are counted each");
    let wrong = Rule::of(&stated("r", &json!({"query": fields["query"], "title": "{who}"}))).unwrap_err();
    assert!(wrong.0 == "title" && wrong.1.contains("{who} is none of rule, device_uid"), "{wrong:?}");
    let wrong = Rule::of(&stated("r", &json!({"query": fields["query"], "labels": ["severity=x"]}))).unwrap_err();
    assert!(wrong.1.contains("is set by the program"), "{wrong:?}");
}

/// The rules that are handed out are rules.
#[test]
fn the_rules_to_begin_with_are_followed() {
    let text = include_str!("../../../deploy/rules.yaml");
    let documents: Vec<Option<serde_json::Map<String, Value>>> = serde_saphyr::from_multiple(text).unwrap();
    let mut rules = 0;
    for mut fields in documents.into_iter().flatten() {
        let name = fields.remove("name").unwrap();
        assert_eq!(fields.remove("kind"), Some(json!("rule")));
        let name = name.as_str().unwrap();
        let stated = stated(name, &Value::Object(fields));
        Rule::of(&stated).unwrap_or_else(|(field, why)| panic!("{name}: {field}: {why}"));
        rules += 1;
    }
    assert!(rules >= 10, "{rules} rules");
}

/// What senders say is not read as a template, and nothing that they say makes a title long.
#[test]
fn values_are_filled_in_as_they_are() {
    let fields = json!({
        "query": "in:logs time:last_5m stats:\"count() as n by service_name, hostname\" having:\"n >= 1\"",
        "title": "{service_name} {hostname} {service_name}",
    });
    let rule = Rule::of(&stated("r", &fields)).unwrap();
    let bomb = "{hostname}".repeat(25);
    let group = [Some(bomb.clone()), Some("{service_name}".to_owned()), Some("default".to_owned())];
    let says = rule.says(&group, &BTreeMap::new());
    assert_eq!(says.title, format!("{bomb} {{service_name}} {bomb}"));
}
