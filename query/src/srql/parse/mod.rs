//! Text to AST. Never panics, whatever the text; every error has a place. Nesting, lists and length are bounded.
//!
//! A backslash before punctuation makes it ordinary. Until a literal is turned into a pattern that must stay known, so
//! an escaped character is kept behind [`ORDINARY`].

mod clauses;
mod stats;

use super::ast::{Bucket, Expr, Fill, Key, Literal, Op, Over, Query, Span, Value};
use super::{meant, observables, words};
use crate::error::SrqlError;
use crate::tables::catalog;

/// Marks the next character of a literal as ordinary.
pub const ORDINARY: char = '\u{f8ff}';
/// Longest query, bytes.
pub const MAX_QUERY: usize = 1 << 20;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Items of a list.
pub const MAX_ITEMS: usize = 10_000;

/// Terms of a query, its subqueries' among them; keys of its clauses and comparisons of `having:` are terms, too.
pub const MAX_TERMS: usize = 1000;
/// Subqueries of a query, all together.
pub const MAX_QUERIES: usize = 32;
/// Subqueries in one another.
pub const MAX_SUBQUERIES: usize = 3;

/// Fields that stand for a row of another entity.
pub(crate) const OBJECTS: &[&str] = &["device", "src_device", "dst_device", "exporter_device"];

pub(in crate::srql) use stats::quantile;

type Result<T> = std::result::Result<T, SrqlError>;

/// Parses a query.
pub fn parse(text: &str) -> Result<Query> {
    if text.len() > MAX_QUERY {
        return Err(SrqlError::new("query_too_long", (0, 0), format!("{} bytes, {MAX_QUERY} at most", text.len())));
    }
    let mut parser = Parser::new(text, 0, 0);
    parser.blanks();
    let filter = if parser.at == text.len() { Expr::And(Vec::new()) } else { parser.or(0)? };
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.error("unexpected", "the query should end here, or go on with another term"));
    }
    parser.finish(filter, 0)
}

fn empty() -> Query {
    Query {
        entities: Vec::new(),
        filter: Expr::And(Vec::new()),
        time: None,
        at: None,
        tz: None,
        include_deleted: None,
        latest: None,
        explain: false,
        stream: None,
        sort: Vec::new(),
        limit: None,
        cursor: None,
        fields: Vec::new(),
        stats: Vec::new(),
        by: Vec::new(),
        having: None,
        window: None,
        top: None,
        units: None,
        reverse: None,
        compare: None,
        rollup: None,
        bucket: None,
        warnings: Vec::new(),
    }
}

#[derive(Default)]
struct BucketParts {
    width: Option<(Option<i64>, Span)>,
    agg: Option<String>,
    series: Option<Key>,
    value_field: Option<Key>,
    fill: Option<Fill>,
    stray: Option<(&'static str, Span)>,
}

impl BucketParts {
    fn finish(self) -> Result<Option<Bucket>> {
        match (self.width, self.stray) {
            (Some((width_us, span)), _) => Ok(Some(Bucket {
                width_us,
                // Rows are counted, values averaged.
                agg: self.agg.unwrap_or_else(|| if self.value_field.is_some() { "avg" } else { "count" }.to_owned()),
                series: self.series,
                value_field: self.value_field,
                fill: self.fill,
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
    /// `by:` and `other:`, which belong to `top:`.
    top_by: Option<(String, Option<Over>, Span)>,
    top_other: Option<(bool, Span)>,
    /// Whether keys are those of a map: their first part may be any.
    in_map: bool,
    /// Queries around this one.
    nested: usize,
    /// Terms so far, those of the queries around this one too.
    terms: usize,
    /// Subqueries so far, likewise.
    queries: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, at: usize, nested: usize) -> Self {
        let (seen, bucket) = (Vec::new(), BucketParts::default());
        let (top_by, top_other, in_map) = (None, None, false);
        let (terms, queries) = (0, 0);
        Parser { text, at, query: empty(), seen, bucket, top_by, top_other, in_map, nested, terms, queries }
    }

    /// The query, once all of it is read; it began at `start`.
    fn finish(self, filter: Expr, start: usize) -> Result<Query> {
        let span = (start, self.at);
        let mut query = self.query;
        query.filter = filter;
        query.bucket = self.bucket.finish()?;
        if query.entities.is_empty() {
            let mut error = SrqlError::new("entity_missing", (start, start), "say what is asked for: in:<entity>");
            error.expected = crate::tables::catalog::ENTITIES.iter().map(|e| format!("in:{}", e.name)).collect();
            return Err(error);
        }
        if query.having.is_some() && query.stats.is_empty() {
            return Err(SrqlError::new("having_without_stats", span, "having: needs stats:"));
        }
        if !query.by.is_empty() && query.stats.is_empty() && query.bucket.is_none() {
            query.stats.push(stats::count(span));
        }
        if let Some((_, at)) = query.window.filter(|_| query.stats.is_empty()) {
            return Err(SrqlError::new("window_without_stats", at, "window: needs stats:"));
        }
        if !query.by.is_empty() && query.stats.is_empty() {
            return Err(SrqlError::new("clause_conflict", span, "bucket: has series:, not groupby:"));
        }
        match (&mut query.top, self.top_by, self.top_other) {
            (Some(top), by, other) => {
                if let Some((name, over, at)) = by {
                    (top.by, top.over) = (Some((name, at)), over);
                }
                top.other = other.is_some_and(|(other, _)| other);
                if query.by.is_empty() && query.bucket.as_ref().is_none_or(|b| b.series.is_none()) {
                    let detail = "top: needs groups: stats:\"… by key\", or bucket: with series:";
                    return Err(SrqlError::new("top_without_groups", top.span, detail));
                }
            }
            (None, Some((.., at)), _) => return Err(SrqlError::new("top_missing", at, "by: needs top:<n>")),
            (None, _, Some((_, at))) => return Err(SrqlError::new("top_missing", at, "other: needs top:<n>")),
            (None, None, None) => {}
        }
        observables::expand(&mut query)?;
        meant::expand(&mut query);
        Ok(query)
    }

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
            Some('"' | '\'') if !self.in_map => {
                self.term_counts()?;
                let literal = self.quoted()?;
                if self.peek() == Some(':') {
                    return Err(self.error("unexpected", "a quoted text is no key; write the key in backquotes"));
                }
                Ok(Expr::Text(literal))
            }
            Some(_) => self.filter(depth, negated),
        }
    }

    /// One more term.
    fn term_counts(&mut self) -> Result<()> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            let detail = format!("more than {MAX_TERMS} terms; values of one field are a list: f:(a,b)");
            return Err(SrqlError::new("too_many_terms", (self.at, self.at), detail));
        }
        Ok(())
    }

    fn key(&mut self) -> Result<(Key, bool)> {
        let start = self.at;
        self.term_counts()?;
        let mut path = Vec::new();
        let mut backquoted = false;
        loop {
            match self.peek() {
                Some('`' | '"' | '\'') if self.peek() == Some('`') || !path.is_empty() || self.in_map => {
                    backquoted |= path.is_empty();
                    path.push(plain(&self.quoted()?.text));
                }
                _ => {
                    let first = path.is_empty() && !self.in_map;
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
            Err(error) if error.code == "too_many_terms" => return Err(error),
            Ok(key) if self.peek() == Some(':') => key,
            Ok((key, _)) if self.contains() => {
                let list = self.list()?;
                return Ok(Expr::Filter(key, list));
            }
            _ => {
                self.at = start;
                let word = self.word(&[])?;
                if depth == 0 && !negated && word.text.eq_ignore_ascii_case("downsample") {
                    self.downsample(word.span)?;
                    return Ok(Expr::And(Vec::new()));
                }
                return Err(SrqlError::new(
                    "term_without_colon",
                    word.span,
                    format!("{:?} is neither key:value nor quoted text", plain(&word.text)),
                ));
            }
        };
        self.at += 1;
        let name = key.path[0].to_ascii_lowercase();
        if !backquoted
            && key.path.len() == 1
            && let Some(clause) = words::clause(&name)
        {
            if depth > 0 || negated {
                let detail = format!("{clause}: stands at the top level only");
                return Err(SrqlError::new("clause_inside", key.span, detail));
            }
            self.clause(clause, key.span)?;
            return Ok(Expr::And(Vec::new()));
        }
        let not = self.eat('!');
        if not && negated {
            return Err(self.error("double_negation", "one ! is enough"));
        }
        let filter = match self.prefixed(&key, depth)? {
            Some(group) => group,
            None => Expr::Filter(key, self.value(true)?),
        };
        Ok(if not { Expr::Not(Box::new(filter)) } else { filter })
    }

    /// ` contains ` before a list, instead of a colon.
    fn contains(&mut self) -> bool {
        let before = self.at;
        self.blanks();
        if self.at > before && self.keyword("contains") && self.peek() == Some('[') {
            return true;
        }
        self.at = before;
        false
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
                let literal = self.literal(stop)?;
                return Ok(match field_of(&literal)? {
                    Some(key) => Value::Field(op, key),
                    None => Value::Compare(op, literal),
                });
            }
        }
        if self.eat('~') {
            return Ok(Value::Fold(self.literal(stop)?));
        }
        let literal = self.literal(stop)?;
        if literal.quoted {
            return Ok(Value::Is(literal));
        }
        if let Some(key) = field_of(&literal)? {
            return Ok(Value::Field(Op::Eq, key));
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
        if close == ')' && self.rest().get(..3).is_some_and(|r| r.eq_ignore_ascii_case("in:")) {
            return self.subquery(open);
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
                return Ok(if close == ']' { Value::All(items) } else { Value::Any(items) });
            }
            return Err(match self.peek() {
                None => SrqlError::new("bracket_open", (open, open + 1), "this list is not closed"),
                Some(_) => self.error("unexpected", format!("',' or '{close}' is expected here")),
            });
        }
    }

    /// A query in brackets, which gives the values.
    fn subquery(&mut self, open: usize) -> Result<Value> {
        if self.nested >= MAX_SUBQUERIES {
            let detail = format!("subqueries stand in one another {MAX_SUBQUERIES} deep at most");
            return Err(SrqlError::new("too_deep", (open, self.at), detail));
        }
        let start = self.at;
        if self.queries >= MAX_QUERIES {
            let detail = format!("a query has {MAX_QUERIES} subqueries at most");
            return Err(SrqlError::new("too_many_subqueries", (open, self.at), detail));
        }
        let mut inner = Parser::new(self.text, start, self.nested + 1);
        (inner.terms, inner.queries) = (self.terms, self.queries + 1);
        let filter = inner.or(0)?;
        inner.blanks();
        if !inner.eat(')') {
            return Err(match inner.peek() {
                None => SrqlError::new("bracket_open", (open, open + 1), "this subquery is not closed"),
                Some(_) => inner.error("unexpected", "the subquery should end here"),
            });
        }
        (self.at, self.terms, self.queries) = (inner.at, inner.terms, inner.queries);
        Ok(Value::Sub(Box::new(inner.finish(filter, start)?), (open, self.at)))
    }

    /// `object:(…)`: terms whose keys are below it; `None` where the brackets hold a list.
    fn prefixed(&mut self, key: &Key, depth: usize) -> Result<Option<Expr>> {
        let first = key.path[0].to_ascii_lowercase();
        let is_object = OBJECTS.contains(&first.as_str());
        let object = (is_object || catalog::NESTED.contains(&first.as_str())) && key.path.len() == 1;
        // Of a device's map the second part is its name.
        let map = if is_object { key.path.get(1) } else { key.path.first() };
        let is_map = map.is_some_and(|name| catalog::is_map(&name.to_ascii_lowercase()));
        if self.peek() != Some('(') || !(object || is_map) {
            return Ok(None);
        }
        let start = self.at;
        self.at += 1;
        self.blanks();
        if self.rest().get(..3).is_some_and(|r| r.eq_ignore_ascii_case("in:")) {
            self.at = start;
            return Ok(None);
        }
        let outside = std::mem::replace(&mut self.in_map, is_map);
        let group = self.or(depth + 1).and_then(|inner| {
            self.blanks();
            if self.eat(')') { Ok(inner) } else { Err(self.error("bracket_open", "this bracket is not closed")) }
        });
        self.in_map = outside;
        match group {
            Ok(inner) => Ok(Some(below(inner, &key.path))),
            Err(_) if !object && !is_group(&self.text[start + 1..]) => {
                // On a map: a list of keys.
                self.at = start;
                Ok(None)
            }
            Err(error) => Err(error),
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
}

/// The field that an operand names: `@field`, where it is not quoted.
fn field_of(literal: &Literal) -> Result<Option<Key>> {
    let Some(name) = literal.text.strip_prefix('@').filter(|_| !literal.quoted) else { return Ok(None) };
    let path: Vec<String> = plain(name).split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        let detail = "a field name is expected after @; a text that begins so is quoted";
        return Err(SrqlError::new("key_missing", literal.span, detail));
    }
    Ok(Some(Key { path, span: literal.span }))
}

/// Whether what begins inside of brackets is terms of a group: every item of it has a colon.
fn is_group(inside: &str) -> bool {
    let (mut depth, mut quote, mut item, mut colon, mut any) = (0usize, None, false, false, false);
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        let ends = quote.is_none() && depth == 0 && (c == ',' || c == ')' || c.is_whitespace());
        if ends {
            if item && !colon {
                return false;
            }
            any |= item;
            (item, colon) = (false, false);
            if c == ')' {
                return any;
            }
            continue;
        }
        item = true;
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth = depth.saturating_sub(1),
            (None, '\\') => {
                chars.next();
            }
            (None, ':') => colon = true,
            _ => {}
        }
    }
    any && colon
}

/// Terms with their keys below a path.
fn below(expr: Expr, path: &[String]) -> Expr {
    match expr {
        Expr::And(all) => Expr::And(all.into_iter().map(|e| below(e, path)).collect()),
        Expr::Or(any) => Expr::Or(any.into_iter().map(|e| below(e, path)).collect()),
        Expr::Not(inner) => Expr::Not(Box::new(below(*inner, path))),
        Expr::Filter(key, value) => {
            Expr::Filter(Key { path: path.iter().cloned().chain(key.path).collect(), span: key.span }, value)
        }
        text @ Expr::Text(_) => text,
    }
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
        assert_eq!(q.bucket.unwrap().width_us, Some(300_000_000));
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
