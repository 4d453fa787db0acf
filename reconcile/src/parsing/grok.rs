//! `%{KIND:name}` in a pattern: a named group of a kind that is known; `%{KIND}` without a name is not kept.
//!
//! The kinds are called as in Logstash's grok, so that patterns from elsewhere mean the same here.

/// Kinds, and what they are.
pub const KINDS: &[(&str, &str)] = &[
    ("BASE10NUM", r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"),
    ("CISCOMAC", r"(?:[A-Fa-f0-9]{4}\.){2}[A-Fa-f0-9]{4}"),
    ("DATA", r".*?"),
    ("EMAILADDRESS", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+"),
    ("GREEDYDATA", r".*"),
    ("HOSTNAME", r"[0-9A-Za-z][0-9A-Za-z_-]*(?:\.[0-9A-Za-z][0-9A-Za-z_-]*)*\.?"),
    ("INT", r"[+-]?[0-9]+"),
    (
        "IP",
        r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3})?",
    ),
    ("IPORHOST", r"(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]{0,15}|[0-9A-Za-z][0-9A-Za-z._-]*"),
    ("IPV4", r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"),
    ("IPV6", r"(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3})?"),
    (
        "LOGLEVEL",
        r"(?i:emerg(?:ency)?|alert|crit(?:ical)?|fatal|severe|err(?:or)?|warn(?:ing)?|notice|info(?:rmation)?|debug|trace)",
    ),
    ("MAC", r"(?:[A-Fa-f0-9]{2}[:-]){5}[A-Fa-f0-9]{2}|(?:[A-Fa-f0-9]{4}\.){2}[A-Fa-f0-9]{4}"),
    ("NONNEGINT", r"[0-9]+"),
    ("NOTSPACE", r"\S+"),
    ("NUMBER", r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"),
    ("PATH", r"(?:/[0-9A-Za-z_.,:@%+~-]*)+"),
    ("POSINT", r"[1-9][0-9]*"),
    ("QS", r#""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"#),
    ("QUOTEDSTRING", r#""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"#),
    ("SPACE", r"\s*"),
    (
        "TIMESTAMP_ISO8601",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?",
    ),
    ("URI", r"[A-Za-z][A-Za-z0-9+.-]*://\S+"),
    ("USER", r"[a-zA-Z0-9._@\\$-]+"),
    ("USERNAME", r"[a-zA-Z0-9._-]+"),
    ("UUID", r"[A-Fa-f0-9]{8}-(?:[A-Fa-f0-9]{4}-){3}[A-Fa-f0-9]{12}"),
    ("WORD", r"(?-u:\b)[0-9A-Za-z_]+(?-u:\b)"),
];

/// The regular expression that a pattern is.
///
/// # Errors
/// A kind is not known, or a name is none.
pub fn expanded(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find("%{") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let Some(end) = after.find('}') else { return Err(format!("`{}` has no end", &rest[at..])) };
        let (kind, name) =
            after[..end].split_once(':').map_or((&after[..end], None), |(kind, name)| (kind, Some(name)));
        let Some((_, expression)) = KINDS.iter().find(|(known, _)| *known == kind) else {
            let known: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
            return Err(format!("there is no kind `{kind}`; there are {}", known.join(", ")));
        };
        match name {
            // As regular expressions name groups, and with what SRQL asks for: `attributes.src.ip`.
            Some(name) if is_name(name) => out.push_str(&format!("(?P<{name}>{expression})")),
            Some(name) => return Err(format!("`{name}` is no name: letters, digits, _ and . after a letter")),
            None => out.push_str(&format!("(?:{expression})")),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn every_kind_is_an_expression_and_finds_what_it_is_called_after() {
        let of = |kind: &str| Regex::new(&format!("^{}$", expanded(&format!("%{{{kind}:x}}")).unwrap())).unwrap();
        for (kind, _) in KINDS {
            of(kind);
        }
        for (kind, is, is_none) in [
            ("IP", &["192.0.2.1", "2001:db8::1", "::1", "fe80::1", "::ffff:192.0.2.1"][..], &["host", "1.2.3"][..]),
            ("IPORHOST", &["192.0.2.1", "sw-1.example.net", "2001:db8::1"], &["-x", ""]),
            ("MAC", &["00:1b:44:11:3a:b7", "001b.4411.3ab7"], &["00:1b:44"]),
            ("NUMBER", &["1", "-1.5", ".5"], &["1.", "x"]),
            ("QS", &[r#""a \" b""#, "'x'"], &["x", r#""a"#]),
            (
                "TIMESTAMP_ISO8601",
                &["2026-01-05T08:00:00.123Z", "2026-01-05 08:00:00,5", "2026-01-05T08:00:00+01:00"],
                &["today"],
            ),
            ("LOGLEVEL", &["WARN", "error", "Notice"], &["loud"]),
            ("UUID", &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567"]),
            ("HOSTNAME", &["sw-1", "a.b.c"], &["a b"]),
        ] {
            let kind_of = of(kind);
            for text in is {
                assert!(kind_of.is_match(text), "{kind} {text}");
            }
            for text in is_none {
                assert!(!kind_of.is_match(text), "{kind} {text}");
            }
        }
        assert!(KINDS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn patterns_mix_kinds_and_expressions() {
        assert_eq!(expanded("a%{INT:n}b%{INT}").unwrap(), "a(?P<n>[+-]?[0-9]+)b(?:[+-]?[0-9]+)");
        assert_eq!(expanded(r"50%\{x").unwrap(), r"50%\{x");
        for wrong in ["%{INT", "%{INT:}", "%{INT:1a}", "%{INT:a b}", "%{int:a}"] {
            assert!(expanded(wrong).is_err(), "{wrong}");
        }
    }
}
