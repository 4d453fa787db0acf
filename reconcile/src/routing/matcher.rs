//! Matchers: what a label must be. They are written and mean what Alertmanager's do.
//!
//! ```text
//! matcher = label ( "=" | "!=" | "=~" | "!~" ) value        value = word | '"' text with \" \\ \n '"'
//! ```
//! A label that is missing is empty. An expression is about the whole value. One that only lists words (`a|b|c`) is a set of
//! them and costs no automaton; of the others a tenant has [`MAX_EXPRESSIONS`].

use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

/// Bytes of one expression, compiled, and again of what it keeps while it runs.
pub const EXPRESSION_BYTES: usize = 64 << 10;
/// Expressions of a tenant, over all that match labels.
pub const MAX_EXPRESSIONS: usize = 256;
/// Bytes of a matcher.
pub const MAX_MATCHER: usize = 1000;
/// Matchers of one list.
pub const MAX_MATCHERS: usize = 50;

/// Labels of an alert.
pub type Labels = BTreeMap<String, String>;

/// What a label must be.
#[derive(Clone, Debug)]
pub struct Matcher {
    label: String,
    is: bool,
    by: By,
    /// The value, or the expression as it was written.
    text: String,
}

#[derive(Clone, Debug)]
enum By {
    Equal,
    Words(Vec<String>),
    Expression(Box<Regex>),
}

impl Matcher {
    /// Reads a matcher.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let said = text.trim();
        if said.len() > MAX_MATCHER {
            return Err(format!("a matcher has at most {MAX_MATCHER} bytes"));
        }
        let at = said.find(['=', '!']).ok_or_else(|| format!("`{said}` has no =, !=, =~ or !~"))?;
        let (name, rest) = said.split_at(at);
        let name = name.trim();
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || "{}\",".contains(c)) {
            return Err(format!("`{said}` names no label"));
        }
        let operators = [("=~", true, true), ("!~", false, true), ("!=", false, false), ("=", true, false)];
        let found = operators.iter().find_map(|(op, is, expression)| Some((rest.strip_prefix(op)?, *is, *expression)));
        let (value, is, expression) = found.ok_or_else(|| format!("`{said}` has no =, !=, =~ or !~"))?;
        Matcher::new(name, is, expression, &unquoted(value.trim())?)
    }

    /// One of its parts.
    ///
    /// # Errors
    /// The expression is none, or too large.
    pub fn new(label: &str, is: bool, expression: bool, value: &str) -> Result<Self, String> {
        let by = if !expression {
            By::Equal
        } else if words(value).all(is_plain) {
            By::Words(words(value).map(str::to_owned).collect())
        } else {
            let built = RegexBuilder::new(&format!("^(?:{value})$"))
                .size_limit(EXPRESSION_BYTES)
                .dfa_size_limit(EXPRESSION_BYTES)
                .dot_matches_new_line(true)
                .build();
            let why = |e: regex::Error| e.to_string().lines().last().unwrap_or_default().trim().to_owned();
            By::Expression(built.map_err(|e| format!("`{value}` is no regular expression: {}", why(e)))?.into())
        };
        Ok(Matcher { label: label.to_owned(), is, by, text: value.to_owned() })
    }

    /// Reads a list of them.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong.
    pub fn read_all<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Self>, String> {
        texts.iter().map(|text| Matcher::read(text.as_ref())).collect()
    }

    /// Whether the labels are as it says.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.label).map_or("", String::as_str);
        let holds = match &self.by {
            By::Equal => value == self.text,
            By::Words(words) => words.iter().any(|word| word == value),
            By::Expression(expression) => expression.is_match(value),
        };
        holds == self.is
    }

    /// Whether it needs an automaton.
    pub fn is_expression(&self) -> bool {
        matches!(self.by, By::Expression(_))
    }

    /// Whether no label at all is as it says.
    pub fn holds_of_nothing(&self) -> bool {
        self.matches(&Labels::new())
    }

    /// The label and the one value that it must have, if it says so.
    pub fn exact(&self) -> Option<(&str, &str)> {
        let exact = self.is && matches!(self.by, By::Equal) && !self.text.is_empty();
        exact.then_some((self.label.as_str(), self.text.as_str()))
    }

    fn operator(&self) -> &'static str {
        match (&self.by, self.is) {
            (By::Equal, true) => "=",
            (By::Equal, false) => "!=",
            (_, true) => "=~",
            (_, false) => "!~",
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.label, self.operator(), quoted(&self.text))
    }
}

/// Whether the labels are as all of them say.
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

/// A list as Alertmanager spells it in the names of groups: by label, then by value, without blanks.
pub fn spelled(matchers: &[Matcher]) -> String {
    let mut sorted: Vec<&Matcher> = matchers.iter().collect();
    sorted.sort_by_key(|m| (m.label.as_str(), m.text.as_str(), ["=", "!=", "=~", "!~"].map(|op| op != m.operator())));
    let texts: Vec<String> = sorted.iter().map(ToString::to_string).collect();
    format!("{{{}}}", texts.join(","))
}

/// Text in quotes, as Go writes it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The alternatives of an expression; it may say itself that it is about the whole value.
fn words(value: &str) -> std::str::Split<'_, char> {
    let inner = value.strip_prefix("^(?:").and_then(|inner| inner.strip_suffix(")$"));
    inner.unwrap_or(value).split('|')
}

fn is_plain(word: &str) -> bool {
    word.chars().all(|c| !"\\.+*?()[]{}^$|".contains(c))
}

fn unquoted(text: &str) -> Result<String, String> {
    let Some(rest) = text.strip_prefix('"') else {
        let wrong = text.contains(|c: char| "\"{},".contains(c)) && !text.contains('(');
        return if wrong { Err(format!("`{text}` is put in quotes")) } else { Ok(text.to_owned()) };
    };
    let mut out = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('"') if chars.as_str().is_empty() => return Ok(out),
            Some('"') | None => return Err(format!("`{text}` does not end with its quote")),
            Some('\\') => match chars.next() {
                Some('n') => out.push('\n'),
                Some('"') => out.push('"'),
                Some('\\') => out.push('\\'),
                // As Alertmanager: what means nothing is kept, so that `\d` need not be written twice.
                Some(other) => out.extend(['\\', other]),
                None => return Err(format!("`{text}` does not end with its quote")),
            },
            Some(c) => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> Labels {
        of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_matcher_is_about_the_whole_value_and_a_missing_label_is_empty() {
        let of = labels(&[("severity", "critical"), ("device", "sw-1")]);
        for (text, holds) in [
            ("severity=critical", true),
            (r#"severity = "critical""#, true),
            ("severity!=critical", false),
            ("severity=~crit", false),
            ("severity=~crit.*", true),
            (r#"severity=~"critical|warning""#, true),
            (r#"severity!~"critical|warning""#, false),
            (r#"severity=~"^(?:critical|warning)$""#, true),
            (r#"device=~"sw-\d+""#, true),
            (r#"device=~"sw-\\d+""#, true),
            ("site=", true),
            ("site!=", false),
            ("site!=x", true),
            (r#"site=~".+""#, false),
            (r#"site=~"|berlin""#, true),
        ] {
            assert_eq!(Matcher::read(text).unwrap().matches(&of), holds, "{text}");
        }
        assert!(!Matcher::read("severity=~a|b").unwrap().is_expression());
        assert!(!Matcher::read("severity=~\"^(?:a|b)$\"").unwrap().is_expression());
        assert!(Matcher::read("severity=~a|b.").unwrap().is_expression());
    }

    #[test]
    fn what_is_none_is_refused_by_name() {
        for (text, why) in [
            ("severity", "has no ="),
            ("=x", "names no label"),
            (r#"a="x"#, "does not end with its quote"),
            ("a=~(", "is no regular expression"),
            (r#"a=~"\w{500}""#, "is no regular expression"),
        ] {
            let wrong = Matcher::read(text).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }

    #[test]
    fn names_of_groups_are_spelled_as_alertmanager_spells_them() {
        let of = Matcher::read_all(&["severity=~a|b", r#"device="x\"y""#, "severity!=c"]).unwrap();
        assert_eq!(spelled(&of), r#"{device="x\"y",severity=~"a|b",severity!="c"}"#);
    }
}
