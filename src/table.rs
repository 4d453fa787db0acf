//! Answers as aligned tables that fit the terminal; of a series a line each.

use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

/// Rows of JSON objects as a table.
pub(crate) fn render(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else { return "no rows".to_owned() };
    if first.keys().all(|k| ["timestamp", "series", "value"].contains(&k.as_str())) && first.len() > 1 {
        return series(rows);
    }
    // Columns that say nothing in any row only take room.
    let columns: Vec<&String> =
        first.keys().filter(|c| rows.iter().any(|r| !matches!(r.get(*c), None | Some(Value::Null)))).collect();
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|c| c.as_str()));
    for row in rows {
        table.add_row(columns.iter().map(|c| match row.get(*c) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(s)) => s.clone(),
            Some(other) => other.to_string(),
        }));
    }
    table.to_string()
}

/// Columns of a sparkline.
const WIDTH: usize = 60;

/// The line of some values, as high as the greatest of them; a blank where there is none.
fn sparkline(values: &[Option<f64>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let some = || values.iter().flatten().copied();
    let (low, high) = (some().fold(0.0, f64::min), some().fold(0.0, f64::max));
    let bar = |value: f64| match high > low {
        true => BARS[(((value - low) / (high - low) * 7.0).round() as usize).min(7)],
        false => BARS[0],
    };
    // Where there are more values than columns a column shows the greatest of its own.
    let per_column = values.len().div_ceil(WIDTH).max(1);
    let greatest = |part: &[Option<f64>]| part.iter().flatten().copied().reduce(f64::max);
    values.chunks(per_column).map(|part| greatest(part).map_or(' ', bar)).collect()
}

fn series(rows: &[Value]) -> String {
    let mut times: Vec<&str> = rows.iter().filter_map(|r| r["timestamp"].as_str()).collect();
    times.sort_unstable();
    times.dedup();
    let mut by_series: std::collections::BTreeMap<&str, Vec<Option<f64>>> = std::collections::BTreeMap::new();
    for row in rows {
        let of = by_series.entry(row["series"].as_str().unwrap_or("")).or_insert_with(|| vec![None; times.len()]);
        if let Some(at) = row["timestamp"].as_str().and_then(|t| times.binary_search(&t).ok()) {
            of[at] = row["value"].as_f64();
        }
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    let span = format!("{} … {}", times.first().unwrap_or(&""), times.last().unwrap_or(&""));
    table.set_header(["series", span.as_str(), "least", "greatest", "last"]);
    for (name, values) in by_series {
        let shown = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
        let some = || values.iter().flatten().copied();
        table.add_row([
            name.to_owned(),
            sparkline(&values),
            shown(some().reduce(f64::min)),
            shown(some().reduce(f64::max)),
            shown(some().last()),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_series_is_a_line() {
        assert_eq!(sparkline(&[Some(0.0), Some(7.0), None, Some(3.5)]), "▁█ ▅");
        assert_eq!(sparkline(&[Some(0.0); 3]), "▁▁▁");
        assert_eq!(sparkline(&vec![Some(1.0); 600]).chars().count(), WIDTH);
        let row = |t: &str, s: &str, v: i64| json!({"timestamp": t, "series": s, "value": v});
        let shown = render(&[row("t1", "a", 1), row("t2", "a", 8), row("t2", "b", 2)]);
        assert!(shown.contains("▂█") && shown.contains("t1 … t2"), "{shown}");
    }
}
