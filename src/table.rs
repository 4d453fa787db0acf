//! Answers as aligned tables that fit the terminal.

use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

/// Rows of JSON objects as a table.
pub(crate) fn render(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else { return "no rows".to_owned() };
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
