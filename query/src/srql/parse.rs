//! Text to AST. Never panics, whatever the text; every error has a place. Nesting, lists and length are bounded.
//!
//! A backslash before punctuation makes it ordinary. Until a literal is turned into a pattern that must stay known, so
//! an escaped character is kept behind [`ORDINARY`].

use super::SrqlError;
use super::ast::{Aggregate, Bucket, Expr, GroupKey, Having, Key, Literal, Op, Query, Sort, Span, Value};
use super::time;

/// Marks the next character of a literal as ordinary.
pub const ORDINARY: char = '\u{f8ff}';
/// Longest query, bytes.
pub const MAX_QUERY: usize = 1 << 20;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Items of a list.
pub const MAX_ITEMS: usize = 10_000;

const CLAUSES: &[&str] = &[
    "in",
    "time",
    "timeframe",
    "tz",
    "include_deleted",
    "sort",
    "order",
    "limit",
    "cursor",
    "fields",
    "select",
    "stats",
    "by",
    "having",
    "bucket",
    "downsample",
    "agg",
    "series",
    "value_field",
    "field",
];
/// Clauses that the language has and this build refuses by name.
const LATER: &[&str] = &[
    "at",
    "latest",
    "explain",
    "stream",
    "mode",
    "groupby",
    "window",
    "time_bucket",
    "top",
    "other",
    "fill",
    "rollup_stats",
    "units",
];
const FUNCTIONS: &[&str] = &[
    "count",
    "count_distinct",
    "sum",
    "avg",
    "min",
    "max",
    "stddev",
    "median",
    "percentile",
    "first",
    "last",
    "group_uniq_array",
];

type Result<T> = std::result::Result<T, SrqlError>;

/// Parses a query.
pub fn parse(text: &str) -> Result<Query> {
    if text.len() > MAX_QUERY {
        return Err(SrqlError::new("query_too_long", (0, 0), format!("{} bytes, {MAX_QUERY} at most", text.len())));
    }
    let mut parser = Parser { text, at: 0, query: empty(), seen: Vec::new(), bucket: BucketParts::default() };
    parser.blanks();
    let filter = if parser.at == text.len() { Expr::And(Vec::new()) } else { parser.or(0)? };
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.error("unexpected", "the query should end here, or go on with another term"));
    }
    let mut query = parser.query;
    query.filter = filter;
    query.bucket = parser.bucket.finish()?;
    if query.entity.0.is_empty() {
        let mut error = SrqlError::new("entity_missing", (0, 0), "say what is asked for: in:<entity>");
        error.expected = super::super::catalog::ENTITIES.iter().map(|e| format!("in:{}", e.name)).collect();
        return Err(error);
    }
    if query.having.is_some() && query.stats.is_empty() {
        return Err(SrqlError::new("having_without_stats", (0, text.len()), "having: needs stats:"));
    }
    Ok(query)
}

fn empty() -> Query {
    Query {
        entity: (String::new(), (0, 0)),
        filter: Expr::And(Vec::new()),
        time: None,
        tz: None,
        include_deleted: false,
        sort: Vec::new(),
        limit: None,
        cursor: None,
        fields: Vec::new(),
        stats: Vec::new(),
        by: Vec::new(),
        having: None,
        bucket: None,
        warnings: Vec::new(),
    }
}

#[derive(Default)]
struct BucketParts {
    width: Option<(i64, Span)>,
    agg: Option<String>,
    series: Option<Key>,
    value_field: Option<Key>,
    stray: Option<(&'static str, Span)>,
}

impl BucketParts {
    fn finish(self) -> Result<Option<Bucket>> {
        match (self.width, self.stray) {
            (Some((width_us, span)), _) => Ok(Some(Bucket {
                width_us,
                agg: self.agg.unwrap_or_else(|| "count".to_owned()),
                series: self.series,
                value_field: self.value_field,
                span,
            })),
            (None, Some((clause, span))) => {
                Err(SrqlError::new("bucket_missing", span, format!("{clause}: needs bucket:<duration>")))
            }
            (None, None) => Ok(None),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    query: Query,
    seen: Vec<&'static str>,
    bucket: BucketParts,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        let is = self.peek() == Some(c);
        if is {
            self.at += c.len_utf8();
        }
        is
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn error(&self, code: &'static str, detail: impl Into<String>) -> SrqlError {
        let end = self.at + self.peek().map_or(0, char::len_utf8);
        SrqlError::new(code, (self.at, end), detail)
    }

    /// A keyword: a word of its own, in any case.
    fn keyword(&mut self, word: &str) -> bool {
        let rest = self.rest();
        let is = rest.get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word))
            && rest[word.len()..].starts_with(|c: char| c.is_whitespace() || c == '(');
        if is {
            self.at += word.len();
            self.blanks();
        }
        is
    }

    fn or(&mut self, depth: usize) -> Result<Expr> {
        let mut any = vec![self.and(depth)?];
        loop {
            let before = self.at;
            self.blanks();
            if self.keyword("OR") {
                any.push(self.and(depth)?);
            } else {
                self.at = before;
                break;
            }
        }
        if any.len() > 1 && depth == 0 && !self.seen.is_empty() && any.iter().any(|e| *e == Expr::And(Vec::new())) {
            return Err(self.error("clause_in_or", "a clause cannot stand beside OR; put the filters in brackets"));
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expr::Or(any) })
    }

    fn and(&mut self, depth: usize) -> Result<Expr> {
        let mut all = Vec::new();
        loop {
            self.blanks();
            let before = self.at;
            if self.at == self.text.len() || self.peek() == Some(')') {
                break;
            }
            if self.keyword("OR") {
                self.at = before;
                break;
            }
            self.keyword("AND");
            match self.not(depth)? {
                Expr::And(inner) if inner.is_empty() => {}
                other => all.push(other),
            }
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::And(all) })
    }

    fn not(&mut self, depth: usize) -> Result<Expr> {
        if depth > MAX_DEPTH {
            return Err(self.error("too_deep", format!("nested more than {MAX_DEPTH} deep")));
        }
        if self.keyword("NOT") {
            return Ok(Expr::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.eat('!') {
            if self.peek() == Some('!') {
                return Err(self.error("double_negation", "one ! is enough"));
            }
            let inner = self.term(depth, true)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        self.term(depth, false)
    }

    fn term(&mut self, depth: usize, negated: bool) -> Result<Expr> {
        match self.peek() {
            None => Err(self.error("term_missing", "a term is missing here")),
            Some('(') => {
                let open = self.at;
                self.at += 1;
                let inner = self.or(depth + 1)?;
                self.blanks();
                if !self.eat(')') {
                    return Err(SrqlError::new("bracket_open", (open, open + 1), "this bracket is not closed"));
                }
                Ok(inner)
            }
            Some('"' | '\'') => {
                let literal = self.quoted()?;
                if self.peek() == Some(':') {
                    return Err(self.error("unexpected", "a quoted text is no key; write the key in backquotes"));
                }
                Ok(Expr::Text(literal))
            }
            Some(_) => self.filter(depth, negated),
        }
    }

    fn key(&mut self) -> Result<(Key, bool)> {
        let start = self.at;
        let mut path = Vec::new();
        let mut backquoted = false;
        loop {
            match self.peek() {
                Some('`' | '"' | '\'') if self.peek() == Some('`') || !path.is_empty() => {
                    backquoted |= path.is_empty();
                    path.push(plain(&self.quoted()?.text));
                }
                _ => {
                    let first = path.is_empty();
                    let end = self
                        .rest()
                        .find(|c: char| {
                            !(c.is_ascii_alphanumeric()
                                || c == '_'
                                || c == '-'
                                || (!first && matches!(c, '@' | '/' | '$')))
                        })
                        .unwrap_or(self.rest().len());
                    if end == 0 {
                        return Err(self.error("key_missing", "a field name is expected here"));
                    }
                    path.push(self.rest()[..end].to_owned());
                    self.at += end;
                }
            }
            if !self.eat('.') {
                break;
            }
        }
        Ok((Key { path, span: (start, self.at) }, backquoted))
    }

    fn filter(&mut self, depth: usize, negated: bool) -> Result<Expr> {
        let start = self.at;
        let (key, backquoted) = match self.key() {
            Ok(key) if self.peek() == Some(':') => key,
            _ => {
                self.at = start;
                let word = self.word(&[])?;
                return Err(SrqlError::new(
                    "term_without_colon",
                    word.span,
                    format!("{:?} is neither key:value nor quoted text", plain(&word.text)),
                ));
            }
        };
        self.at += 1;
        let name = key.path[0].to_ascii_lowercase();
        if !backquoted && key.path.len() == 1 {
            if let Some(clause) = CLAUSES.iter().find(|c| **c == name) {
                if depth > 0 || negated {
                    return Err(SrqlError::new(
                        "clause_inside",
                        key.span,
                        format!("{clause}: stands at the top level only"),
                    ));
                }
                self.clause(clause, key.span)?;
                return Ok(Expr::And(Vec::new()));
            }
            if LATER.contains(&name.as_str()) {
                return Err(SrqlError::new("clause_not_available", key.span, format!("{name}: is not available")));
            }
        }
        let not = self.eat('!');
        if not && negated {
            return Err(self.error("double_negation", "one ! is enough"));
        }
        let value = self.value(true)?;
        let filter = Expr::Filter(key, value);
        Ok(if not { Expr::Not(Box::new(filter)) } else { filter })
    }

    fn value(&mut self, top: bool) -> Result<Value> {
        let start = self.at;
        match self.peek() {
            None => return Err(self.error("value_missing", "a value is expected here")),
            Some(c) if c.is_whitespace() => {
                return Err(self.error("value_missing", "a value is expected here; no blank after ':'"));
            }
            Some('(' | '[') if top => return self.list(),
            Some('/') if top => {
                if let Some(regex) = self.regex() {
                    return Ok(regex);
                }
            }
            _ => {}
        }
        let stop: &[char] = if top { &[] } else { &[',', ')', ']'] };
        for (text, op) in [(">=", Op::GreaterEq), ("<=", Op::LessEq), (">", Op::Greater), ("<", Op::Less)] {
            if self.rest().starts_with(text) {
                self.at += text.len();
                return Ok(Value::Compare(op, self.literal(stop)?));
            }
        }
        if self.eat('~') {
            return Ok(Value::Fold(self.literal(stop)?));
        }
        let literal = self.literal(stop)?;
        if literal.quoted {
            return Ok(Value::Is(literal));
        }
        match literal.text.as_str() {
            "*" => return Ok(Value::Present),
            "null" => return Ok(Value::Null),
            _ => {}
        }
        if let Some(dots) = literal.text.find("..") {
            let side = |text: &str, at: usize| {
                (!text.is_empty()).then(|| Literal {
                    text: text.to_owned(),
                    quoted: false,
                    verbatim: false,
                    span: (start + at, start + at + text.len()),
                })
            };
            let (a, b) = (&literal.text[..dots], &literal.text[dots + 2..]);
            let open_both_ways = a.is_empty() && b.is_empty();
            if !open_both_ways && !b.starts_with('.') {
                return Ok(Value::Range(side(a, 0), side(b, dots + 2)));
            }
        }
        Ok(Value::Is(literal))
    }

    fn list(&mut self) -> Result<Value> {
        let open = self.at;
        let close = if self.eat('(') {
            ')'
        } else {
            self.at += 1;
            ']'
        };
        self.blanks();
        if self.rest().get(..3).is_some_and(|r| r.eq_ignore_ascii_case("in:")) {
            return Err(SrqlError::new("subquery_not_available", (open, self.at + 3), "subqueries are not available"));
        }
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.peek() == Some('!') {
                return Err(self.error("negated_item", "an item of a list cannot be negated; negate the list"));
            }
            if matches!(self.peek(), Some(',' | ')' | ']')) {
                return Err(self.error("empty_item", "an item is missing here"));
            }
            items.push(self.value(false)?);
            if items.len() > MAX_ITEMS {
                return Err(SrqlError::new("list_too_long", (open, self.at), format!("more than {MAX_ITEMS} items")));
            }
            self.blanks();
            if self.eat(',') {
                continue;
            }
            if self.eat(close) {
                return Ok(Value::Any(items));
            }
            return Err(match self.peek() {
                None => SrqlError::new("bracket_open", (open, open + 1), "this list is not closed"),
                Some(_) => self.error("unexpected", format!("',' or '{close}' is expected here")),
            });
        }
    }

    /// `/…/` or `/…/i` if it ends the value; otherwise it is text.
    fn regex(&mut self) -> Option<Value> {
        let rest = &self.rest()[1..];
        let mut pattern = String::new();
        let mut chars = rest.char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => {
                    let (_, next) = chars.next()?;
                    if next != '/' {
                        pattern.push('\\');
                    }
                    pattern.push(next);
                }
                '/' => {
                    let after = &rest[i + 1..];
                    let ends = |t: &str| t.is_empty() || t.starts_with(|c: char| c.is_whitespace() || c == ')');
                    let fold = after.strip_prefix('i').is_some_and(ends);
                    if fold || ends(after) {
                        let start = self.at;
                        self.at += 1 + i + 1 + usize::from(fold);
                        return (!pattern.is_empty()).then_some(Value::Regex(pattern, fold, (start, self.at)));
                    }
                    pattern.push('/');
                }
                c if c.is_whitespace() => return None,
                c => pattern.push(c),
            }
        }
        None
    }

    fn literal(&mut self, stop: &[char]) -> Result<Literal> {
        match self.peek() {
            Some('"' | '\'' | '`') => self.quoted(),
            _ => self.word(stop),
        }
    }

    fn quoted(&mut self) -> Result<Literal> {
        let start = self.at;
        let Some(quote) = self.peek() else { return Err(self.error("value_missing", "a value is expected here")) };
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += i + 1;
                return Ok(Literal { text, quoted: true, verbatim: quote != '"', span: (start, self.at) });
            }
            if c == '\\' {
                match chars.next() {
                    Some((_, e)) if !e.is_alphanumeric() => text.extend([ORDINARY, e]),
                    Some((_, e)) => text.extend(['\\', e]),
                    None => break,
                }
            } else {
                text.push(c);
            }
        }
        Err(SrqlError::new("quote_open", (start, start + 1), "this quote is not closed"))
    }

    /// An unquoted word: up to white space, with balanced brackets; in lists up to a comma or the list's end.
    fn word(&mut self, stop: &[char]) -> Result<Literal> {
        let start = self.at;
        let mut text = String::new();
        let mut open: Vec<char> = Vec::new();
        while let Some(c) = self.peek() {
            if open.is_empty() && (c.is_whitespace() || stop.contains(&c) || matches!(c, ')' | ']')) {
                break;
            }
            self.at += c.len_utf8();
            match c {
                '\\' => match self.peek() {
                    Some(e) if !e.is_alphanumeric() => {
                        self.at += e.len_utf8();
                        text.extend([ORDINARY, e]);
                    }
                    _ => text.push('\\'),
                },
                '(' | '[' => {
                    open.push(if c == '(' { ')' } else { ']' });
                    if open.len() > MAX_DEPTH {
                        return Err(self.error("too_deep", format!("nested more than {MAX_DEPTH} deep")));
                    }
                    text.push(c);
                }
                c if open.last() == Some(&c) => {
                    open.pop();
                    text.push(c);
                }
                c => text.push(c),
            }
        }
        if !open.is_empty() {
            return Err(SrqlError::new("bracket_open", (start, self.at), "a bracket in this word is not closed"));
        }
        if self.at == start {
            return Err(self.error("value_missing", "a value is expected here"));
        }
        Ok(Literal { text, quoted: false, verbatim: false, span: (start, self.at) })
    }

    fn once(&mut self, clause: &'static str, span: Span) -> Result<()> {
        if self.seen.contains(&clause) {
            return Err(SrqlError::new("clause_repeated", span, format!("{clause}: may stand once")));
        }
        self.seen.push(clause);
        Ok(())
    }

    fn last_wins(&mut self, clause: &'static str) {
        if self.seen.contains(&clause) {
            self.query.warnings.push(format!("{clause}: is given more than once; the last one counts"));
        }
        self.seen.push(clause);
    }

    fn clause(&mut self, clause: &'static str, span: Span) -> Result<()> {
        match clause {
            "in" => {
                let name = self.word(&[])?;
                let text = plain(&name.text);
                if text.contains(',') || text.starts_with('(') {
                    return Err(SrqlError::new("union_not_available", name.span, "one entity at a time"));
                }
                if !self.query.entity.0.is_empty() && self.query.entity.0 != text {
                    return Err(SrqlError::new("clause_repeated", name.span, "one entity list: in: is given twice"));
                }
                self.query.entity = (text, name.span);
                self.seen.push("in");
            }
            "time" | "timeframe" => {
                self.last_wins("time");
                self.query.time = Some(self.literal(&[])?);
            }
            "tz" => {
                self.once("tz", span)?;
                self.query.tz = Some(self.literal(&[])?);
            }
            "include_deleted" => {
                self.once("include_deleted", span)?;
                let word = self.word(&[])?;
                self.query.include_deleted = match word.text.to_ascii_lowercase().as_str() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(SrqlError::new("bad_value", word.span, "include_deleted: takes true or false")),
                };
            }
            "limit" => {
                self.last_wins("limit");
                let word = self.word(&[])?;
                let n = plain(&word.text)
                    .parse()
                    .map_err(|_| SrqlError::new("bad_limit", word.span, "limit: takes a whole number"))?;
                self.query.limit = Some(n);
            }
            "cursor" => {
                self.last_wins("cursor");
                self.query.cursor = Some(self.word(&[])?);
            }
            "sort" | "order" => loop {
                let (key, _) = self.key()?;
                let ascending = if self.eat(':') {
                    let word = self.word(&[','])?;
                    match word.text.to_ascii_lowercase().as_str() {
                        "asc" => true,
                        "desc" => false,
                        _ => return Err(SrqlError::new("bad_sort", word.span, "asc or desc is expected here")),
                    }
                } else {
                    false
                };
                self.query.sort.push(Sort { key, ascending });
                if !self.eat(',') {
                    break;
                }
                self.blanks();
            },
            "fields" | "select" => {
                self.once("fields", span)?;
                loop {
                    let (key, _) = self.key()?;
                    self.query.fields.push(key);
                    if !self.eat(',') {
                        break;
                    }
                    self.blanks();
                }
            }
            "stats" => self.inside(Parser::stats)?,
            "by" => self.inside(Parser::group_keys)?,
            "having" => {
                let having = if matches!(self.peek(), Some('"' | '\'')) {
                    let (text, at) = self.inner_text()?;
                    let mut inner = Parser {
                        text: &self.text[..at + text.len()],
                        at,
                        query: empty(),
                        seen: vec![],
                        bucket: BucketParts::default(),
                    };
                    let cond = inner.having_or(0)?;
                    inner.blanks();
                    if inner.at < inner.text.len() {
                        return Err(inner.error("unexpected", "and, or, or the end of the condition is expected here"));
                    }
                    cond
                } else {
                    self.having_compare()?
                };
                self.query.having = Some(match self.query.having.take() {
                    Some(other) => Having::And(vec![other, having]),
                    None => having,
                });
            }
            "bucket" | "downsample" => {
                self.once("bucket", span)?;
                let word = self.word(&[])?;
                let width = time::duration(&word.text).ok_or_else(|| {
                    SrqlError::new("bad_duration", word.span, "a duration is expected here, as 5m or 1h")
                })?;
                self.bucket.width = Some((width, word.span));
            }
            "agg" => {
                self.bucket.stray = Some(("agg", span));
                let word = self.word(&[])?;
                let name = word.text.to_ascii_lowercase();
                if !["count", "sum", "avg", "min", "max"].contains(&name.as_str()) {
                    return Err(SrqlError::new(
                        "unknown_function",
                        word.span,
                        format!("agg: takes count, sum, avg, min or max, not {name:?}"),
                    ));
                }
                self.bucket.agg = Some(name);
            }
            "series" => {
                self.bucket.stray = Some(("series", span));
                self.bucket.series = Some(self.key()?.0);
            }
            _ => {
                self.bucket.stray = Some(("value_field", span));
                self.bucket.value_field = Some(self.key()?.0);
            }
        }
        if self.peek().is_some_and(|c| !c.is_whitespace() && c != ')') {
            return Err(self.error("unexpected", format!("a blank is expected after {clause}:")));
        }
        Ok(())
    }

    /// The text between quotes, and where it begins.
    fn inner_text(&mut self) -> Result<(&'a str, usize)> {
        let start = self.at;
        let Some(quote) = self.peek() else { return Err(self.error("value_missing", "a value is expected here")) };
        let body = &self.rest()[1..];
        let Some(end) = body.find(quote) else {
            return Err(SrqlError::new("quote_open", (start, start + 1), "this quote is not closed"));
        };
        self.at += end + 2;
        Ok((&body[..end], start + 1))
    }

    /// Runs `part` on what stands between quotes, or where it stands.
    fn inside(&mut self, part: fn(&mut Self) -> Result<()>) -> Result<()> {
        if !matches!(self.peek(), Some('"' | '\'')) {
            return part(self);
        }
        let (text, at) = self.inner_text()?;
        let after = self.at;
        let whole = self.text;
        (self.text, self.at) = (&whole[..at + text.len()], at);
        self.blanks();
        let result = part(self).and_then(|()| {
            self.blanks();
            if self.at < self.text.len() { Err(self.error("unexpected", "the clause should end here")) } else { Ok(()) }
        });
        (self.text, self.at) = (whole, after);
        result
    }

    fn name(&mut self) -> Result<String> {
        let end = self.rest().find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest().len());
        if end == 0 {
            return Err(self.error("name_missing", "a name is expected here"));
        }
        let name = self.rest()[..end].to_owned();
        self.at += end;
        Ok(name)
    }

    /// `as NAME`, if it stands here.
    fn alias(&mut self) -> Result<Option<String>> {
        let before = self.at;
        self.blanks();
        if self.keyword("as") {
            return self.name().map(Some);
        }
        self.at = before;
        Ok(None)
    }

    fn comma(&mut self) -> bool {
        let before = self.at;
        self.blanks();
        let comma = self.eat(',');
        if comma {
            self.blanks();
        } else {
            self.at = before;
        }
        comma
    }

    fn stats(&mut self) -> Result<()> {
        loop {
            let start = self.at;
            let function = self.name()?.to_ascii_lowercase();
            let percent = function.strip_prefix('p').and_then(|n| n.parse::<f64>().ok());
            if percent.is_none() && !FUNCTIONS.contains(&function.as_str()) {
                return Err(SrqlError::new(
                    "unknown_function",
                    (start, self.at),
                    format!("unknown function {function:?}"),
                )
                .suggest(crate::catalog::nearest(&function, FUNCTIONS.iter().copied())));
            }
            // p99.9: the dot is part of the name.
            let mut quantile = percent.map(|p| p / 100.0);
            if percent.is_some() && self.eat('.') {
                let digits = self.name()?;
                quantile = function[1..]
                    .parse::<u32>()
                    .ok()
                    .and_then(|whole| format!("{whole}.{digits}").parse::<f64>().ok())
                    .map(|p| p / 100.0);
            }
            if !self.eat('(') {
                return Err(self.error("unexpected", "'(' is expected here"));
            }
            self.blanks();
            let mut field = None;
            if !self.eat('*') && self.peek() != Some(')') {
                field = Some(self.key()?.0);
            }
            if function == "percentile" {
                self.blanks();
                if !self.eat(',') {
                    return Err(self.error("unexpected", "percentile(field, q) needs q"));
                }
                self.blanks();
                let word = self.word(&[')'])?;
                let q: f64 = word
                    .text
                    .parse()
                    .map_err(|_| SrqlError::new("bad_number", word.span, "a number is expected here"))?;
                quantile = Some(if q > 1.0 { q / 100.0 } else { q });
            }
            self.blanks();
            if !self.eat(')') {
                return Err(self.error("unexpected", "')' is expected here"));
            }
            let span = (start, self.at);
            if quantile.is_some_and(|q| !(0.0..=1.0).contains(&q)) {
                return Err(SrqlError::new("bad_number", span, "a percentile is between 0 and 100"));
            }
            if field.is_none() && function != "count" {
                return Err(SrqlError::new("field_missing", span, format!("{function}() needs a field")));
            }
            let alias = self.alias()?.unwrap_or_else(|| default_alias(&self.text[span.0..span.1]));
            let function = if percent.is_some() { "percentile".to_owned() } else { function };
            self.query.stats.push(Aggregate { function, field, quantile, alias, span });
            if !self.comma() {
                break;
            }
        }
        let before = self.at;
        self.blanks();
        if self.keyword("by") {
            return self.group_keys();
        }
        self.at = before;
        Ok(())
    }

    fn group_keys(&mut self) -> Result<()> {
        loop {
            let (key, _) = self.key()?;
            let function = key.path.len() == 1 && self.peek() == Some('(');
            let group = if function && key.path[0].eq_ignore_ascii_case("cidr") {
                self.at += 1;
                let (field, _) = self.key()?;
                if !self.comma() {
                    return Err(self.error("unexpected", "cidr(field, bits) needs bits"));
                }
                let bits = self.bits(&[')'])?;
                if !self.eat(')') {
                    return Err(self.error("unexpected", "')' is expected here"));
                }
                let name = field.path.join("_");
                GroupKey::Cidr(field, bits, name)
            } else if function && key.path[0].eq_ignore_ascii_case("time") {
                self.at += 1;
                let word = self.word(&[')'])?;
                let width = time::duration(&word.text)
                    .ok_or_else(|| SrqlError::new("bad_duration", word.span, "a duration is expected here"))?;
                if !self.eat(')') {
                    return Err(self.error("unexpected", "')' is expected here"));
                }
                GroupKey::Time(width, "time".to_owned())
            } else if self.eat(':') {
                self.eat('/');
                let bits = self.bits(&[','])?;
                let name = key.path.join("_");
                GroupKey::Cidr(key, bits, name)
            } else {
                let name = key.path.join("_");
                GroupKey::Field(key, name)
            };
            let group = match self.alias()? {
                Some(alias) => match group {
                    GroupKey::Field(k, _) => GroupKey::Field(k, alias),
                    GroupKey::Cidr(k, b, _) => GroupKey::Cidr(k, b, alias),
                    GroupKey::Time(w, _) => GroupKey::Time(w, alias),
                },
                None => group,
            };
            self.query.by.push(group);
            if !self.comma() {
                return Ok(());
            }
        }
    }

    fn bits(&mut self, stop: &[char]) -> Result<u8> {
        let word = self.word(stop)?;
        word.text
            .parse()
            .ok()
            .filter(|b| *b <= 128)
            .ok_or_else(|| SrqlError::new("bad_number", word.span, "a prefix length is expected here"))
    }

    fn having_or(&mut self, depth: usize) -> Result<Having> {
        let mut any = vec![self.having_and(depth)?];
        loop {
            self.blanks();
            if !self.keyword("or") {
                break;
            }
            any.push(self.having_and(depth)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Having::Or(any) })
    }

    fn having_and(&mut self, depth: usize) -> Result<Having> {
        let mut all = vec![self.having_not(depth)?];
        loop {
            self.blanks();
            if !self.keyword("and") {
                break;
            }
            all.push(self.having_not(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Having::And(all) })
    }

    fn having_not(&mut self, depth: usize) -> Result<Having> {
        if depth > MAX_DEPTH {
            return Err(self.error("too_deep", format!("nested more than {MAX_DEPTH} deep")));
        }
        self.blanks();
        if self.keyword("not") {
            return Ok(Having::Not(Box::new(self.having_not(depth + 1)?)));
        }
        if self.eat('(') {
            let inner = self.having_or(depth + 1)?;
            self.blanks();
            if !self.eat(')') {
                return Err(self.error("unexpected", "')' is expected here"));
            }
            return Ok(inner);
        }
        self.having_compare()
    }

    fn having_compare(&mut self) -> Result<Having> {
        let start = self.at;
        let mut column = self.name()?;
        if self.peek() == Some('(') {
            let end = self.rest().find(')').ok_or_else(|| self.error("bracket_open", "this bracket is not closed"))?;
            column.push_str(&self.rest()[..=end]);
            self.at += end + 1;
            column = default_alias(&column);
        }
        self.blanks();
        let ops = [
            (">=", Op::GreaterEq),
            ("<=", Op::LessEq),
            ("==", Op::Eq),
            ("!=", Op::NotEq),
            ("<>", Op::NotEq),
            (">", Op::Greater),
            ("<", Op::Less),
            ("=", Op::Eq),
        ];
        let Some((text, op)) = ops.iter().find(|(text, _)| self.rest().starts_with(text)) else {
            return Err(self.error("unexpected", "a comparison is expected here"));
        };
        self.at += text.len();
        self.blanks();
        let literal = self.literal(&[])?;
        Ok(Having::Compare(column, *op, plain(&literal.text), (start, self.at)))
    }
}

/// The name of a call's column: the call in lower case, runs of other characters as one `_`.
fn default_alias(call: &str) -> String {
    let mut out = String::new();
    for c in call.to_ascii_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    out.trim_matches('_').to_owned()
}

/// A literal's text with every character ordinary.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| *c != ORDINARY).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> (&'static str, usize) {
        let error = parse(text).unwrap_err();
        (error.code, error.start)
    }

    #[test]
    fn structure() {
        let q = parse("in:devices a:1 OR NOT (b:2 c:3) AND !d:4").unwrap();
        let Expr::Or(any) = q.filter else { panic!("{:?}", q.filter) };
        assert_eq!(any.len(), 2);
        assert!(matches!(&any[1], Expr::And(all) if all.len() == 2 && all.iter().all(|e| matches!(e, Expr::Not(_)))));
    }

    #[test]
    fn values() {
        let value = |text: &str| match parse(&format!("in:x f:{text}")).unwrap().filter {
            Expr::Filter(_, v) => v,
            other => panic!("{other:?}"),
        };
        assert_eq!(value("*"), Value::Present);
        assert_eq!(value("null"), Value::Null);
        assert!(matches!(value("/link.*down/i"), Value::Regex(p, true, _) if p == "link.*down"));
        assert!(matches!(value("/var/log/x"), Value::Is(l) if l.text == "/var/log/x"));
        assert!(matches!(value("5..10"), Value::Range(Some(_), Some(_))));
        assert!(matches!(value("..10"), Value::Range(None, Some(_))));
        assert!(matches!(value(">=5"), Value::Compare(Op::GreaterEq, _)));
        assert!(matches!(value("(a, b*,>5)"), Value::Any(v) if v.len() == 3));
        assert!(matches!(value("O'Brien"), Value::Is(l) if l.text == "O'Brien"));
        assert!(matches!(value("aa:bb:cc:dd:ee:ff"), Value::Is(_)));
        assert!(matches!(value("a\\*b"), Value::Is(l) if plain(&l.text) == "a*b"));
    }

    #[test]
    fn clauses() {
        let q = parse("in:flows time:last_1h stats:\"sum(bytes_total) as bytes, p95(bytes_total) as p by src_endpoint_ip:24, app\" having:\"bytes>1e6 and not (p<5)\" sort:bytes:desc limit:20").unwrap();
        assert_eq!((q.stats.len(), q.by.len(), q.limit), (2, 2, Some(20)));
        assert_eq!(q.stats[1].quantile, Some(0.95));
        let q =
            parse("in:logs stats:count() by severity bucket:5m agg:sum series:severity value_field:severity_number")
                .unwrap();
        assert_eq!(q.stats[0].alias, "count");
        assert_eq!(q.bucket.unwrap().width_us, 300_000_000);
        assert_eq!(parse("in:x limit:1 limit:2").unwrap().warnings.len(), 1);
    }

    #[test]
    fn mistakes_have_places() {
        assert_eq!(code("devices"), ("term_without_colon", 0));
        assert_eq!(code("a:1"), ("entity_missing", 0));
        assert_eq!(code("in:x (a:1"), ("bracket_open", 5));
        assert_eq!(code("in:x a:\"b"), ("quote_open", 7));
        assert_eq!(code("in:x a:(b,)"), ("empty_item", 10));
        assert_eq!(code("in:x (limit:5)"), ("clause_inside", 6));
        assert_eq!(code("in:x limit:x"), ("bad_limit", 11));
        assert_eq!(code("in:x a: b"), ("value_missing", 7));
        assert_eq!(code("in:x stats:sums(a)"), ("unknown_function", 11));
        assert_eq!(code("in:x !!a:1"), ("double_negation", 6));
        assert_eq!(code(&format!("in:x {}", "(".repeat(5000))), ("too_deep", 5 + MAX_DEPTH + 1));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", tail in "(in:devices )?([a-z_.]{1,6}:)?[!(\\[\"'`/~<>=.,*% a-z0-9:\\\\)\\]]{0,30}") {
            let _ = parse(&text);
            if let Err(e) = parse(&tail) {
                assert!(e.start <= e.end && e.end <= tail.len(), "{e:?} {tail:?}");
            }
            let _ = parse(&format!("in:flows stats:\"{tail}\""));
            let _ = parse(&format!("in:flows stats:count() having:\"{tail}\""));
        }
    }
}
