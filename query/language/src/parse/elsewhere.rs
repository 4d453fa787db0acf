//! How other tools write what SRQL writes otherwise: `a = b`, `a != b`, `x && y`, `where`, `app in (…)`, `sort by b desc`,
//! bare words. A term that is none is told with the one that was meant, if that can be told; nothing is taken for another.

use std::ops::Range;

use super::Parser;
use crate::catalog;
use crate::error::{Span, SrqlError};
use crate::near;
use crate::words;

/// Farther than so many bytes the end of what was meant is not looked for.
const FAR: usize = 400;
/// Quotes that are none here.
pub(crate) const CURLY: [char; 8] = ['“', '”', '„', '‘', '’', '‚', '«', '»'];

/// A place of a query, and what was meant there.
type Meant = (Span, String);

impl Parser<'_> {
    /// The word here is no term.
    pub(super) fn no_term(&mut self) -> SrqlError {
        let word = match self.word(&[]) {
            Ok(word) => word,
            Err(error) => return error,
        };
        let written = &self.text[word.span.0..word.span.1];
        let detail = format!("{written:?} is neither key:value nor quoted text");
        let error = SrqlError::new("term_without_colon", word.span, detail);
        with(error, meant(self.text, word.span, self.query.entities.is_empty()))
    }
}

fn with(error: SrqlError, meant: Option<Meant>) -> SrqlError {
    match meant {
        Some(((start, end), said)) => SrqlError { start, end, did_you_mean: Some(said), ..error },
        None => error,
    }
}

/// A blank after a colon: the value may follow it.
pub(super) fn joined(text: &str, error: SrqlError) -> SrqlError {
    let blank = error.code == "value_missing" && text[error.start..].starts_with(char::is_whitespace);
    let value = if blank { token(text, error.start) } else { None };
    match value.filter(|v| !text[v.clone()].contains(':') && !is_operator(&text[v.clone()])) {
        Some(value) => {
            let said = text[value.clone()].to_owned();
            with(error.clone(), Some(((error.start, value.end), said)))
        }
        None => error,
    }
}

/// `sort:-x`
pub(super) fn descending(text: &str, begins: usize, error: SrqlError) -> SrqlError {
    let end = text[begins..].find([',', ' ', '"']).map_or(text.len(), |n| begins + n);
    let said = text[begins..end].strip_prefix('-').filter(|key| is_path(key)).map(|key| format!("{key}:desc"));
    with(error, said.map(|said| ((begins, end), said)))
}

/// `&&` and `||` in a condition.
pub(super) fn and_or(text: &str, error: SrqlError) -> SrqlError {
    let near = [("&&", "and"), ("||", "or"), ("&", "and"), ("|", "or"), (",", "and")];
    let near = near.into_iter().find(|(written, _)| text[error.start..].starts_with(written));
    let said = near.map(|(written, said)| ((error.start, error.start + written.len()), said.to_owned()));
    with(error, said)
}

/// What was meant by a word that is no term. `asks` is whether nothing is asked for yet.
fn meant(text: &str, span: Span, asks: bool) -> Option<Meant> {
    let word = &text[span.0..span.1];
    let quoted =
        || (!word.contains(['"', '\\']) && word.contains(char::is_alphanumeric)).then(|| format!("\"{word}\""));
    continued(text, span)
        .or_else(|| operator(text, span))
        .or_else(|| infix(text, span.0..span.1))
        .or_else(|| command(text, span.0..span.1))
        .or_else(|| entity(word).filter(|_| asks).map(|name| (span, format!("in:{name}"))))
        .or_else(|| quoted().map(|said| (span, said)))
}

/// The next word from a place on: quoted, in brackets, or up to a blank.
fn token(text: &str, from: usize) -> Option<Range<usize>> {
    let rest = &text[from..];
    let start = from + (rest.len() - rest.trim_start().len());
    let (mut open, mut quote) = (0usize, None);
    for (i, c) in text[start..].char_indices() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' if i == 0 || open > 0 => quote = Some(c),
                '(' | '[' => open += 1,
                ')' | ']' if open > 0 => open -= 1,
                c if open == 0 && (c.is_whitespace() || c == ')') => return (i > 0).then_some(start..start + i),
                _ => {}
            },
        }
        if i > FAR {
            return None;
        }
    }
    (start < text.len()).then_some(start..text.len())
}

fn lower(text: &str, at: &Range<usize>) -> String {
    text[at.clone()].to_ascii_lowercase()
}

fn is_operator(word: &str) -> bool {
    ["and", "or", "not"].iter().any(|o| word.eq_ignore_ascii_case(o))
}

fn is_path(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// `24h`
fn is_duration(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.trim_start_matches(|c: char| c.is_ascii_digit()).chars().all(|c| c.is_ascii_alphabetic())
}

/// The entity that a word names, in our words or others'.
fn entity(word: &str) -> Option<&'static str> {
    catalog::find(word).map(|e| e.name).or_else(|| near::entity(word))
}

/// What goes on behind a blank that it should not have: `sort:b desc`, `/a b/`, `“a b”`.
fn continued(text: &str, span: Span) -> Option<Meant> {
    let before = text[..span.0].trim_end();
    let start =
        before.rfind(char::is_whitespace).map_or(0, |n| n + before[n..].chars().next().map_or(1, char::len_utf8));
    let last = &before[start..];
    let (key, value) = last.split_once(':')?;
    let word = text[span.0..span.1].to_ascii_lowercase();
    if ["sort", "order"].contains(&key.to_ascii_lowercase().as_str()) && !value.contains(':') {
        let way = ["asc", "desc"].into_iter().find(|way| word.starts_with(way))?;
        return Some(((start, span.1), format!("{last}:{way}")));
    }
    let opens = start + key.len() + 1;
    let near = |at: usize| text.get(at..).map(|rest| &rest[..rest.floor_char_boundary(FAR.min(rest.len()))]);
    let fold = if value.starts_with('~') { "~" } else { "" };
    if value[fold.len()..].starts_with('/') {
        let from = opens + fold.len() + 1;
        let rest = near(from)?;
        let ends = |n: usize| rest[n..].chars().next().is_none_or(|c| c.is_whitespace() || c == ')');
        let close = rest
            .match_indices('/')
            .map(|(n, _)| n)
            .find(|n| ends(n + 1) || (rest[n + 1..].starts_with('i') && ends(n + 2)))?;
        let pattern = &rest[..close];
        if !pattern.contains(char::is_whitespace) || pattern.contains(':') {
            return None;
        }
        let end = from + close + 1 + usize::from(rest[close + 1..].starts_with('i'));
        let pattern: String = pattern.split(char::is_whitespace).collect::<Vec<_>>().join("\\s");
        return Some(((start, end), format!("{key}:{fold}/{pattern}{}", &text[from + close..end])));
    }
    if value.starts_with(CURLY) {
        let from = opens + value.chars().next()?.len_utf8();
        let rest = near(from)?;
        let close = rest.find(CURLY)?;
        let end = from + close + rest[close..].chars().next()?.len_utf8();
        return Some(((start, end), format!("{key}:\"{}\"", rest[..close].replace('"', "\\\""))));
    }
    None
}

/// `&&`, `||`, `|`; what follows a pipe may be a command.
fn operator(text: &str, span: Span) -> Option<Meant> {
    let said = match &text[span.0..span.1] {
        "&&" | "&" => "AND",
        "||" => "OR",
        "|" => {
            let follows = token(text, span.1).and_then(|next| command(text, next));
            return Some(follows.map_or((span, "OR".to_owned()), |(at, said)| ((span.0, at.1), said)));
        }
        _ => return None,
    };
    Some((span, said.to_owned()))
}

/// Comparisons as others write them, longest first, with what they are here: what stands before the key, before and after
/// the value.
const INFIX: &[(&str, [&str; 3])] = &[
    ("!=", ["!", "", ""]),
    ("<>", ["!", "", ""]),
    ("=~", ["", "/", "/"]),
    ("!~", ["!", "/", "/"]),
    ("~=", ["", "/", "/"]),
    (">=", ["", ">=", ""]),
    ("<=", ["", "<=", ""]),
    ("==", ["", "", ""]),
    ("=", ["", "", ""]),
    (">", ["", ">", ""]),
    ("<", ["", "<", ""]),
];

/// `a = b`, `a in (b, c)`, `a is null`, in one word or several.
fn infix(text: &str, word: Range<usize>) -> Option<Meant> {
    let written = &text[word.clone()];
    let path =
        written.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(written.len());
    let (key, after) = (&written[..path], word.start + path);
    if !is_path(key) || is_operator(key) {
        return None;
    }
    let at = if after < word.end { after } else { token(text, word.end)?.start };
    let said = |end: usize, said: String| Some(((word.start, end), said));
    if let Some((written, [not, before, behind])) = INFIX.iter().find(|(written, _)| text[at..].starts_with(written)) {
        let value = token(text, at + written.len())?;
        let shown = text[value.clone()].trim_end_matches([',', ';']);
        let shown = if *before == "/" { pattern(shown)? } else { shown.to_owned() };
        return said(value.end, format!("{not}{key}:{before}{shown}{behind}"));
    }
    if after < word.end {
        return None;
    }
    let verb = token(text, word.end)?;
    let mut next = token(text, verb.end);
    let (mut how, mut not) = (lower(text, &verb), "");
    if how == ":" || (how.starts_with(':') && how.len() > 1) {
        let value = if how == ":" { next? } else { verb.start + 1..verb.end };
        return said(value.end, format!("{key}:{}", &text[value.clone()]));
    }
    if how == "not" {
        let verb = next?;
        (how, not, next) = (lower(text, &verb), "!", token(text, verb.end));
    }
    let value = next?;
    let shown = &text[value.clone()];
    match how.as_str() {
        "in" if shown.starts_with('(') => said(value.end, format!("{not}{key}:{shown}")),
        "like" | "ilike" => said(value.end, format!("{not}{key}:{}", wild("", shown, "")?)),
        "contains" => said(value.end, format!("{not}{key}:{}", wild("%", shown, "%")?)),
        "startswith" => said(value.end, format!("{not}{key}:{}", wild("", shown, "%")?)),
        "endswith" => said(value.end, format!("{not}{key}:{}", wild("%", shown, "")?)),
        "matches" | "regex" | "rlike" => said(value.end, format!("{not}{key}:/{}/", pattern(shown)?)),
        "is" if shown.eq_ignore_ascii_case("not") => {
            let value = token(text, value.end)?;
            let null = lower(text, &value) == "null";
            said(value.end, if null { format!("{key}:*") } else { format!("!{key}:{}", &text[value.clone()]) })
        }
        "is" | "equals" | "eq" => said(value.end, format!("{not}{key}:{shown}")),
        "between" => {
            let and = token(text, value.end).filter(|and| lower(text, and) == "and")?;
            let to = token(text, and.end)?;
            said(to.end, format!("{not}{key}:{shown}..{}", &text[to.clone()]))
        }
        _ => None,
    }
}

fn unquoted(value: &str) -> &str {
    let inner = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// A regular expression between slashes.
fn pattern(value: &str) -> Option<String> {
    let value = unquoted(value);
    let value = value.strip_prefix('/').and_then(|v| v.strip_suffix('/')).unwrap_or(value);
    (!value.is_empty()).then(|| value.split(char::is_whitespace).collect::<Vec<_>>().join("\\s"))
}

/// A value with wildcards around it.
fn wild(before: &str, value: &str, behind: &str) -> Option<String> {
    let value = unquoted(value);
    let plain = value.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '*' | ':'));
    let quote = if plain { "" } else { "\"" };
    (!value.is_empty() && !value.contains(['"', '\\'])).then(|| format!("{quote}{before}{value}{behind}{quote}"))
}

/// Words that begin a part of a query elsewhere.
fn command(text: &str, word: Range<usize>) -> Option<Meant> {
    let said = |end: usize, said: String| Some(((word.start, end), said));
    let name = lower(text, &word);
    // `-a:b`, `+a:b`
    if let Some(term) = name.strip_prefix(['-', '+']).filter(|t| t.split_once(':').is_some_and(|(key, _)| is_path(key)))
    {
        let not = if name.starts_with('-') { "!" } else { "" };
        return said(word.end, format!("{not}{}", &text[word.end - term.len()..word.end]));
    }
    if let Some((function, _)) = name.split_once('(')
        && words::is_function(function)
    {
        return stats(text, word.start, word.start);
    }
    if name.strip_prefix("last_").is_some_and(is_duration) {
        return said(word.end, format!("time:{name}"));
    }
    let next = token(text, word.end)?;
    let by = lower(text, &next) == "by";
    let operand = if by { token(text, next.end)? } else { next };
    let shown = text[operand.clone()].trim_end_matches([',', ';']);
    match name.as_str() {
        "where" | "filter" | "search" | "having" | "when" => {
            if shown.contains(':') && name != "having" {
                return said(operand.end, shown.to_owned());
            }
            let (at, condition) = infix(text, operand)?;
            said(at.1, condition)
        }
        "sort" | "order" | "orderby" => {
            let way = token(text, operand.end).filter(|way| ["asc", "desc"].contains(&lower(text, way).as_str()));
            let (key, minus) = (shown.trim_start_matches(['-', '+']), shown.starts_with('-'));
            let end = way.as_ref().map_or(operand.end, |way| way.end);
            let way = way.map(|way| lower(text, &way)).or_else(|| minus.then(|| "desc".to_owned()));
            let way = way.unwrap_or_else(|| "asc".to_owned());
            is_path(key).then(|| ((word.start, end), format!("sort:{key}:{way}")))
        }
        "group" | "groupby" if is_path(shown) => said(operand.end, format!("groupby:{shown}")),
        "head" | "take" | "first" | "limit" if shown.parse::<usize>().is_ok() => {
            said(operand.end, format!("limit:{shown}"))
        }
        "from" => said(operand.end, format!("in:{}", entity(shown)?)),
        "select" => selected(text, word.start, operand.start),
        "stats" | "summarize" | "summarise" | "aggregate" => stats(text, word.start, operand.start),
        "last" if is_duration(shown) => said(operand.end, format!("time:last_{}", shown.to_ascii_lowercase())),
        "in" => said(operand.end, format!("in:{}", entity(shown)?)),
        _ => words::clause(&name)
            .filter(|_| !shown.contains(':'))
            .and_then(|name| said(operand.end, format!("{name}:{shown}"))),
    }
}

/// Calls with their keys, which stand in quotes; up to a pipe or the end.
fn stats(text: &str, start: usize, from: usize) -> Option<Meant> {
    let rest = &text[from..];
    let mut end = from + rest.find('|').unwrap_or(rest.len());
    // What follows is another term, where a colon says so.
    if let Some(colon) = text[from..end].find(':') {
        end = from + text[from..from + colon].rfind(char::is_whitespace)?;
    }
    let calls = text[from..end].trim_end();
    let ok = !calls.is_empty() && calls.len() < FAR && !calls.contains(['"', '\'']);
    ok.then(|| ((start, from + calls.len()), format!("stats:\"{calls}\"")))
}

/// `select a, b from t`
fn selected(text: &str, start: usize, from: usize) -> Option<Meant> {
    let lower = text[from..].to_ascii_lowercase();
    let at = lower.find(" from ").filter(|n| *n < FAR)?;
    let columns: Vec<&str> = text[from..from + at].split(',').map(str::trim).collect();
    let table = token(text, from + at + " from ".len())?;
    let name = entity(text[table.clone()].trim_end_matches(';'))?;
    let fields = match columns[..] {
        ["*"] => String::new(),
        _ if columns.iter().all(|c| is_path(c)) => format!(" fields:{}", columns.join(",")),
        _ => return None,
    };
    Some(((start, table.end), format!("in:{name}{fields}")))
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;

    /// The query as it is suggested.
    fn suggested(text: &str) -> String {
        let error = parse(text).expect_err(text);
        let said = error.did_you_mean.clone().unwrap_or_else(|| panic!("{text}: {error:?}"));
        format!("{}{said}{}", &text[..error.start], &text[error.end..])
    }

    #[test]
    fn what_others_write_is_told_as_it_is_written_here() {
        for (written, here) in [
            ("in:flows app=dns", "in:flows app:dns"),
            ("in:flows app = dns", "in:flows app:dns"),
            ("in:flows app == 'a b'", "in:flows app:'a b'"),
            ("in:flows app != dns", "in:flows !app:dns"),
            ("in:flows app!=dns", "in:flows !app:dns"),
            ("in:flows bytes_total >= 5k", "in:flows bytes_total:>=5k"),
            ("in:flows bytes_total>5", "in:flows bytes_total:>5"),
            ("in:logs body =~ \"link .*down\"", "in:logs body:/link\\s.*down/"),
            ("in:logs body !~ x.*", "in:logs !body:/x.*/"),
            ("in:flows app : dns", "in:flows app:dns"),
            ("in:flows app :dns", "in:flows app:dns"),
            ("in:flows app: dns", "in:flows app:dns"),
            ("in:flows app in (dns, https)", "in:flows app:(dns, https)"),
            ("in:flows app not in (dns)", "in:flows !app:(dns)"),
            ("in:logs body like '%link down%'", "in:logs body:\"%link down%\""),
            ("in:logs body contains link", "in:logs body:%link%"),
            ("in:devices os is null", "in:devices os:null"),
            ("in:devices os is not null", "in:devices os:*"),
            ("in:flows bytes_total between 1 and 5", "in:flows bytes_total:1..5"),
            ("in:flows app:dns && bytes_total:5", "in:flows app:dns AND bytes_total:5"),
            ("in:flows app:dns || app:ssh", "in:flows app:dns OR app:ssh"),
            ("in:flows app:dns | app:ssh", "in:flows app:dns OR app:ssh"),
            ("in:flows | where app = dns", "in:flows app:dns"),
            ("in:flows where app:dns", "in:flows app:dns"),
            ("in:flows | head 5", "in:flows limit:5"),
            ("in:flows | stats count() by app", "in:flows stats:\"count() by app\""),
            ("in:flows | sort -bytes_total", "in:flows sort:bytes_total:desc"),
            ("in:flows sort:bytes_total desc", "in:flows sort:bytes_total:desc"),
            ("in:flows sort:-bytes_total", "in:flows sort:bytes_total:desc"),
            ("in:flows sort:bytes_total:descending", "in:flows sort:bytes_total:desc"),
            ("in:flows order by bytes_total desc", "in:flows sort:bytes_total:desc"),
            ("in:flows limit 5", "in:flows limit:5"),
            ("in:flows limit=5", "in:flows limit:5"),
            ("in:flows last 24h", "in:flows time:last_24h"),
            ("in:flows last_1h", "in:flows time:last_1h"),
            ("in:flows count() by app", "in:flows stats:\"count() by app\""),
            ("in:flows stats:count() group by app", "in:flows stats:count() groupby:app"),
            ("select * from devices", "in:devices"),
            ("SELECT hostname, ip FROM devices", "in:devices fields:hostname,ip"),
            ("from flows", "in:flows"),
            ("in flows", "in:flows"),
            ("devices", "in:devices"),
            ("hosts", "in:devices"),
            ("in:devices core1", "in:devices \"core1\""),
            ("in:devices -hostname:core1", "in:devices !hostname:core1"),
            ("in:devices +hostname:core1", "in:devices hostname:core1"),
            ("in:logs body:/a b/", "in:logs body:/a\\sb/"),
            ("in:logs body:~/a b/i", "in:logs body:~/a\\sb/i"),
            ("in:logs body:“a b”", "in:logs body:\"a b\""),
            ("in:devices AND hostname:a", "in:devices hostname:a"),
            ("in:devices hostname:a AND limit:5", "in:devices hostname:a limit:5"),
            ("in:flows app:(dns OR ssh)", "in:flows app:(dns , ssh)"),
            ("in:devices \"hostname\":a", "in:devices `hostname`:a"),
            (
                "in:flows stats:count() having:\"count>5 && count<9\"",
                "in:flows stats:count() having:\"count>5 and count<9\"",
            ),
        ] {
            let found = suggested(written);
            assert_eq!(found, here, "{written}");
            assert!(parse(&found).is_ok(), "{written}: {found}: {:?}", parse(&found));
        }
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        for text in ["in:devices hostname:a =", "in:devices %", "in:devices ,"] {
            assert_eq!(parse(text).expect_err(text).did_you_mean, None, "{text}");
        }
    }
}
