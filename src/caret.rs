//! A mistake in a query, shown where it is: the line that it is in, and carets below what is wrong.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a problem says, with its place in the text that was asked.
pub(crate) fn shown(problem: &Value, text: &str) -> String {
    let detail = problem["detail"].as_str().unwrap_or("the server refused");
    let number = |key: &str| problem[key].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let place = number("line")
        .zip(number("column"))
        .and_then(|(line, column)| Some((line, text.lines().nth(line - 1)?, column)));
    let Some((line, written, column)) = place else { return detail.to_owned() };
    // What a terminal would not print as one of its columns is shown as a blank.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let before: String = written.chars().take(column - 1).map(plain).collect();
    let token = problem["token"].as_str().unwrap_or_default().lines().next().unwrap_or_default();
    let width: usize = token.chars().map(|c| c.width().unwrap_or(1)).sum();
    let said = if text.lines().nth(1).is_some() { format!("{detail} (line {line})") } else { detail.to_owned() };
    format!(
        "{said}\n  {}\n  {}{}",
        written.chars().map(plain).collect::<String>(),
        " ".repeat(before.width()),
        "^".repeat(width.max(1))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::shown;

    fn below(text: &str, line: usize, column: usize, token: &str) -> String {
        let problem = json!({"detail": "wrong", "line": line, "column": column, "token": token});
        shown(&problem, text).lines().skip(1).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_caret_is_below_what_is_wrong() {
        assert_eq!(below("in:devices a:1", 1, 12, "a"), "  in:devices a:1\n             ^");
        assert_eq!(below("in:devices\n  a:1\n  b:2", 3, 3, "b"), "    b:2\n    ^");
        // Wide characters take two columns, combining ones none.
        assert_eq!(below("host:路由器 a:1", 1, 10, "a"), "  host:路由器 a:1\n              ^");
        assert_eq!(below("host:e\u{301} a:1", 1, 9, "a"), "  host:e\u{301} a:1\n         ^");
        assert_eq!(below("路由器:1", 1, 1, "路由器"), "  路由器:1\n  ^^^^^^");
        assert_eq!(below("a\tb", 1, 3, "b"), "  a b\n    ^");
        // At the end there is nothing below which it could be; what is nowhere has no caret.
        assert_eq!(below("in:x (", 1, 7, ""), "  in:x (\n        ^");
        assert_eq!(below("in:x", 9, 1, "x"), "");
        assert_eq!(shown(&json!({"detail": "busy"}), "in:x"), "busy");
        assert_eq!(shown(&json!({}), "in:x"), "the server refused");
    }
}
