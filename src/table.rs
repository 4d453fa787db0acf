//! Answers as aligned tables that fit the terminal; of a series a line each; where a row has more to say than a line holds,
//! as records.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::DateTime;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::sparkline;

/// Characters of a line where nobody says how many there are.
const WIDTH: u16 = 80;

/// How many characters a line of the terminal has.
pub(crate) fn width() -> u16 {
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    Table::new().width().or_else(said).filter(|width| *width > 0).unwrap_or(WIDTH)
}

/// Rows of JSON objects as a table: of all columns, or of those that are named.
pub(crate) fn render(rows: &[Value], brief: Option<&[&str]>) -> String {
    within(rows, brief, None)
}

/// The same, in so many characters; as many as there are, if none are said.
pub(crate) fn within(rows: &[Value], brief: Option<&[&str]>, width: Option<u16>) -> String {
    let Some(Value::Object(first)) = rows.first() else { return "no rows".to_owned() };
    if first.keys().all(|k| ["timestamp", "series", "value"].contains(&k.as_str())) && first.len() > 1 {
        return series(rows, width);
    }
    let columns = columns(rows, brief);
    let mut table = bordered(width);
    table.set_header(&columns);
    for row in rows {
        table.add_row(columns.iter().map(|c| text(row.get(*c))));
    }
    table.to_string()
}

fn bordered(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

/// The columns that are shown: those that say something in some row, for others only take room; where some are named, of
/// these.
pub(crate) fn columns<'r>(rows: &'r [Value], brief: Option<&[&str]>) -> Vec<&'r str> {
    let Some(Value::Object(first)) = rows.first() else { return Vec::new() };
    let told = |c: &&str| rows.iter().any(|r| !matches!(r.get(*c), None | Some(Value::Null)));
    let all: Vec<&str> = first.keys().map(String::as_str).filter(told).collect();
    let named: Vec<&str> =
        brief.into_iter().flatten().filter_map(|name| all.iter().find(|c| *c == name)).copied().collect();
    if named.is_empty() { all } else { named }
}

/// Whether a table of all columns has room, with no cell broken.
pub(crate) fn fits(rows: &[Value], width: u16) -> bool {
    let widest = |column: &str| {
        let cells = rows.iter().map(|row| text(row.get(column)).width());
        cells.chain([column.width()]).max().unwrap_or(0) + 2
    };
    columns(rows, None).into_iter().map(widest).sum::<usize>() + 2 <= usize::from(width)
}

/// Each row as a record, a column a line.
pub(crate) fn records(rows: &[Value]) -> String {
    let columns = columns(rows, None);
    let widest = columns.iter().map(|c| c.width()).max().unwrap_or(0);
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let _ = writeln!(out, "── {} ──", n + 1);
        for column in columns.iter().filter(|c| !matches!(row.get(**c), None | Some(Value::Null))) {
            let _ = writeln!(out, "{column:widest$}  {}", text(row.get(*column)));
        }
    }
    out
}

fn series(rows: &[Value], width: Option<u16>) -> String {
    let time = |row: &Value| Some(DateTime::parse_from_rfc3339(row["timestamp"].as_str()?).ok()?.timestamp_micros());
    let mut times: Vec<(i64, &str)> = rows.iter().filter_map(|r| Some((time(r)?, r["timestamp"].as_str()?))).collect();
    times.sort_unstable();
    times.dedup_by_key(|(at, _)| *at);
    let (slices, all) = sparkline::slices(&times.iter().map(|(at, _)| *at).collect::<Vec<_>>());
    let mut by_series: BTreeMap<&str, Vec<(u64, Option<f64>)>> = BTreeMap::new();
    for row in rows {
        let at = time(row).and_then(|at| times.binary_search_by_key(&at, |(at, _)| *at).ok());
        let of = by_series.entry(row["series"].as_str().unwrap_or("")).or_default();
        of.extend(at.map(|n| (slices[n], row["value"].as_f64())));
    }
    let mut table = bordered(width);
    let span = format!("{} … {}", times.first().map_or("", |t| t.1), times.last().map_or("", |t| t.1));
    table.set_header(["series", span.as_str(), "least", "greatest", "last"]);
    for (name, mut values) in by_series {
        values.sort_unstable_by_key(|(slice, _)| *slice);
        let shown = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
        let some = || values.iter().filter_map(|(_, value)| *value);
        table.add_row([
            name.to_owned(),
            sparkline::line(&values, all),
            shown(some().reduce(f64::min)),
            shown(some().reduce(f64::max)),
            shown(some().next_back()),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use radarflow_query::tables::catalog::{ENTITIES, Kind};
    use radarflow_query::tables::shown;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn a_series_is_a_line_with_its_gaps() {
        let row =
            |t: &str, s: &str, v: i64| json!({"timestamp": format!("2024-01-01T00:0{t}:00Z"), "series": s, "value": v});
        let shown = render(&[row("1", "a", 1), row("2", "a", 8), row("5", "a", 8), row("2", "b", 2)], None);
        assert!(shown.contains("▂█··█") && shown.contains("2024-01-01T00:01:00Z … 2024-01-01T00:05:00Z"), "{shown}");
        assert!(shown.contains("·█···"), "{shown}");
    }

    /// A row of an entity with a value in each of its columns.
    fn row(entity: &radarflow_query::tables::catalog::Entity) -> Value {
        let value = |kind: Kind| match kind {
            Kind::Number => json!(123_456_789),
            Kind::Bool => json!(true),
            Kind::Time => json!("2024-03-31T11:55:00Z"),
            Kind::List => json!(["netbox", "mapper"]),
            Kind::Map => json!({"rack": "r1", "role": "core"}),
            Kind::Ip => json!("192.168.100.100"),
            _ => json!("a text of several words, as logs and reasons have"),
        };
        let visible = entity.fields.iter().filter(|f| !f.hidden);
        Value::Object(visible.map(|f| (f.name.to_owned(), value(f.kind))).collect::<Map<_, _>>())
    }

    #[test]
    fn what_is_shown_of_an_entity_fits_a_hundred_characters() {
        for entity in ENTITIES.iter() {
            let (rows, brief) = ([row(entity)], shown::brief(entity));
            let table = within(&rows, Some(&brief), Some(100));
            assert!(table.lines().all(|line| line.width() <= 100), "{}\n{table}", entity.name);
        }
        let devices = radarflow_query::tables::catalog::find("devices").unwrap();
        let mut device = row(devices);
        for (column, value) in [
            ("display_name", "core-router-17"),
            ("type", "router"),
            ("vendor_name", "Cisco"),
            ("availability", "available"),
        ] {
            device[column] = json!(value);
        }
        let table = within(&[device.clone()], Some(&shown::brief(devices)), Some(100));
        assert_eq!(table.lines().count(), 5, "a line a row:\n{table}");
        // The rest is there, too.
        assert!(!fits(&[device.clone()], 100));
        let records = records(&[device]);
        assert!(records.contains("metadata") && records.lines().count() > 20, "{records}");
    }

    #[test]
    fn columns_that_nobody_named_are_those_that_say_something() {
        let rows = [json!({"a": 1, "b": null, "c": 2}), json!({"a": null, "b": null, "c": 3})];
        assert_eq!(columns(&rows, None), ["a", "c"]);
        assert_eq!(columns(&rows, Some(&["c", "b", "x"])), ["c"]);
        assert_eq!(columns(&rows, Some(&["x"])), ["a", "c"]);
        assert!(fits(&rows, 20) && !fits(&rows, 5));
    }
}
