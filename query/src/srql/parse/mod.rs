//! Text to AST. Never panics, whatever the text; every error has a place. Nesting, lists and length are bounded.
//!
//! A backslash before punctuation makes it ordinary. Until a literal is turned into a pattern that must stay known, so
//! an escaped character is kept behind [`ORDINARY`].

mod clauses;
mod elsewhere;
mod gather;
mod stats;

pub(super) use elsewhere::CURLY;
pub use gather::{Gathered, MAX_MISTAKES, gather};

use super::ast::{Bucket, Expr, Fill, Key, Literal, Op, Query, Span, Value};
use super::{doubts, observables, words};
use crate::error::SrqlError;

/// Marks the next character of a literal as ordinary.
pub const ORDINARY: char = '\u{f8ff}';
/// Longest query, bytes.
pub const MAX_QUERY: usize = 1 << 20;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Items of a list.
pub const MAX_ITEMS: usize = 10_000;

/// Terms of a query, its subqueries' among them.
pub const MAX_TERMS: usize = 1000;
/// Subqueries in one another.
pub const MAX_SUBQUERIES: usize = 3;

/// Fields that stand for a row of another entity.
pub(crate) const OBJECTS: &[&str] = &["device", "src_device", "dst_device", "exporter_device"];

type Result<T> = std::result::Result<T, SrqlError>;

/// Parses a query.
pub fn parse(text: &str) -> Result<Query> {
    Parser::new(text, 0, 0).whole()
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
                agg: self.agg.unwrap_or_else(|| "count".to_owned()),
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
    top_by: Option<(String, Span)>,
    top_other: Option<(bool, Span)>,
    /// Queries around this one.
    nested: usize,
    /// Terms so far, those of the queries around this one too.
    terms: usize,
    /// The operator that stands directly before the next term.
    operator: Option<(&'static str, Span)>,
    /// The clause that the last term is.
    after: Option<Span>,
    /// The mistakes so far, where the first of them does not end the parse.
    gathered: Option<Vec<SrqlError>>,
    /// Clauses that could not be read.
    unread: Vec<&'static str>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, at: usize, nested: usize) -> Self {
        Parser {
            text,
            at,
            query: empty(),
            seen: Vec::new(),
            bucket: BucketParts::default(),
            top_by: None,
            top_other: None,
            nested,
            terms: 0,
            operator: None,
            after: None,
            gathered: None,
            unread: Vec::new(),
        }
    }

    fn whole(&mut self) -> Result<Query> {
        let text = self.text;
        if text.len() > MAX_QUERY {
            return Err(SrqlError::new("query_too_long", (0, 0), format!("{} bytes, {MAX_QUERY} at most", text.len())));
        }
        self.blanks();
        let mut filter = self.or(0)?;
        self.blanks();
        while self.at < text.len() {
            self.fail(self.error("unexpected", "the query should end here, or go on with another term"))?;
            // It is a bracket that closes nothing.
            self.at += 1;
            filter = Expr::And(vec![filter, self.or(0)?]);
            self.blanks();
        }
        let mut query = self.finish(filter, 0)?;
        query.warnings.extend(doubts::of(&query));
        Ok(query)
    }

    /// The query, once all of it is read; it began at `start`.
    fn finish(&mut self, filter: Expr, start: usize) -> Result<Query> {
        let span = (start, self.at);
        let mut query = std::mem::replace(&mut self.query, empty());
        query.filter = filter;
        match std::mem::take(&mut self.bucket).finish() {
            Ok(bucket) => query.bucket = bucket,
            Err(error) => self.lacks(error)?,
        }
        if query.entities.is_empty() {
            let mut error = SrqlError::new("entity_missing", (start, start), "say what is asked for: in:<entity>");
            error.expected = crate::tables::catalog::ENTITIES.iter().map(|e| format!("in:{}", e.name)).collect();
            self.lacks(error)?;
        }
        if query.having.is_some() && query.stats.is_empty() {
            self.lacks(SrqlError::new("having_without_stats", span, "having: needs stats:"))?;
            query.having = None;
        }
        if let Some((_, at)) = query.window.filter(|_| query.stats.is_empty()) {
            self.lacks(SrqlError::new("window_without_stats", at, "window: needs stats:"))?;
            query.window = None;
        }
        if !query.by.is_empty() && query.stats.is_empty() {
            self.lacks(SrqlError::new("groups_without_stats", span, "groupby: needs stats:"))?;
            query.by.clear();
        }
        match (&mut query.top, self.top_by.take(), self.top_other) {
            (Some(top), by, other) => {
                top.by = by;
                top.other = other.is_some_and(|(other, _)| other);
                if query.by.is_empty() && query.bucket.as_ref().is_none_or(|b| b.series.is_none()) {
                    let detail = "top: needs groups: stats:\"… by key\", or bucket: with series:";
                    let error = SrqlError::new("top_without_groups", top.span, detail);
                    self.lacks(error)?;
                }
            }
            (None, Some((_, at)), _) => self.lacks(SrqlError::new("top_missing", at, "by: needs top:<n>"))?,
            (None, _, Some((_, at))) => self.lacks(SrqlError::new("top_missing", at, "other: needs top:<n>"))?,
            (None, None, None) => {}
        }
        if let Err(error) = observables::expand(&mut query) {
            self.fail(error)?;
        }
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
            && rest[word.len()..].chars().next().is_none_or(|c| c.is_whitespace() || c == '(');
        if is {
            self.at += word.len();
            self.blanks();
        }
        is
    }

    fn or(&mut self, depth: usize) -> Result<Expr> {
        let wrong = self.mistakes();
        let mut any = vec![self.and(depth)?];
        loop {
            self.blanks();
            let start = self.at;
            if !self.keyword("OR") {
                break;
            }
            let span = (start, start + 2);
            self.operate("OR", span, any.last() == Some(&Expr::And(Vec::new())) && self.mistakes() == wrong)?;
            any.push(self.and(depth)?);
            if any.last() == Some(&Expr::And(Vec::new())) && self.mistakes() == wrong {
                self.fail(SrqlError::new("term_missing", span, "a term is missing after OR"))?;
            }
        }
        if any.len() > 1 {
            // Whoever gathers mistakes goes on with what could be read.
            any.retain(|e| *e != Expr::And(Vec::new()));
        }
        Ok(match any.len() {
            0 => Expr::And(Vec::new()),
            1 => any.remove(0),
            _ => Expr::Or(any),
        })
    }

    fn and(&mut self, depth: usize) -> Result<Expr> {
        let mut all = Vec::new();
        let wrong = self.mistakes();
        loop {
            self.blanks();
            if self.at == self.text.len() || self.peek() == Some(')') {
                break;
            }
            let start = self.at;
            if self.keyword("OR") {
                self.at = start;
                break;
            }
            if self.keyword("AND") {
                let span = (start, start + 3);
                self.operate("AND", span, all.is_empty() && self.mistakes() == wrong)?;
                let next = self.at;
                if matches!(self.peek(), None | Some(')')) || self.keyword("OR") || self.keyword("AND") {
                    self.at = next;
                    self.fail(SrqlError::new("term_missing", span, "a term is missing after AND"))?;
                    continue;
                }
            }
            let term = self.at;
            self.after = None;
            match self.not(depth) {
                Ok(Expr::And(inner)) if inner.is_empty() => {}
                Ok(other) => all.push(other),
                Err(error) => self.skip(term, error)?,
            }
            self.operator = None;
            if self.peek().is_some_and(|c| !c.is_whitespace() && c != ')') {
                let at = self.at;
                self.skip(at, self.error("blank_missing", "a blank is expected here, before the next term"))?;
            }
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::And(all) })
    }

    /// An operator stands here: a term has to stand before it, and no clause.
    fn operate(&mut self, operator: &'static str, span: Span, first: bool) -> Result<()> {
        self.operator = Some((operator, span));
        match self.after.take() {
            Some(clause) => self.fail(self.beside(operator, (clause.0, span.1), clause)),
            None if first => {
                self.fail(SrqlError::new("term_missing", span, format!("a term is missing before {operator}")))
            }
            None => Ok(()),
        }
    }

    /// A clause beside an operator: it belongs to no side of it.
    fn beside(&self, operator: &str, span: Span, clause: Span) -> SrqlError {
        if operator == "OR" {
            let detail = "a clause cannot stand beside OR; put the filters in brackets";
            return SrqlError::new("clause_beside_operator", span, detail);
        }
        let detail = format!("a clause cannot stand beside {operator}; clauses need no operator");
        SrqlError::new("clause_beside_operator", span, detail).suggest(self.text.get(clause.0..clause.1))
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
            if self.peek().is_none_or(char::is_whitespace) {
                return Err(self.error("term_missing", "a term is expected here; no blank after '!'"));
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
                let (open, wrong) = (self.at, self.mistakes());
                self.at += 1;
                let inner = self.or(depth + 1)?;
                self.blanks();
                if !self.eat(')') {
                    return Err(SrqlError::new("bracket_open", (open, open + 1), "this bracket is not closed"));
                }
                self.some(inner, (open, self.at), wrong)
            }
            Some('"' | '\'') => {
                let literal = self.quoted()?;
                if self.peek() == Some(':') {
                    let near = format!("`{}`", plain(&literal.text).replace('`', "\\`"));
                    let error = self.error("unexpected", "a quoted text is no key; write the key in backquotes");
                    return Err(SrqlError { start: literal.span.0, end: literal.span.1, ..error }.suggest(Some(&near)));
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
                    if first && self.peek().is_some_and(|c| c.is_ascii_digit() || c == '-') {
                        return Err(self.error("key_missing", "a field name is expected here"));
                    }
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
        self.terms += 1;
        if self.terms > MAX_TERMS {
            let detail = format!("more than {MAX_TERMS} terms; values of one field are a list: f:(a,b)");
            return Err(SrqlError::new("too_many_terms", (start, start), detail));
        }
        let (key, backquoted) = match self.key() {
            Ok(key) if self.peek() == Some(':') => key,
            Ok((key, _)) if self.contains() => {
                let list = self.list()?;
                return Ok(Expr::Filter(key, list));
            }
            _ => {
                self.at = start;
                return Err(self.no_term());
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
            let operator = self.operator.take();
            if let Err(error) = self.clause(clause, key.span) {
                self.unread.push(clause);
                return Err(error);
            }
            let span = (start, self.at);
            if let Some((operator, at)) = operator {
                self.fail(self.beside(operator, (at.0, span.1), span))?;
            }
            self.after = Some(span);
            return Ok(Expr::And(Vec::new()));
        }
        let not = self.eat('!');
        if not && negated {
            return Err(self.error("double_negation", "one ! is enough"));
        }
        let filter = match self.prefixed(&key, depth)? {
            Some(group) => group,
            None => {
                let value = self.value(true).map_err(|error| elsewhere::joined(self.text, error))?;
                Expr::Filter(key, value)
            }
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
            let regex = if top && self.peek() == Some('/') { self.regex() } else { None };
            return match regex {
                Some(Value::Regex(pattern, _, span)) => Ok(Value::Regex(pattern, true, span)),
                _ => Ok(Value::Fold(self.literal(stop)?)),
            };
        }
        if let Some(range) = self.range(stop)? {
            return Ok(range);
        }
        let literal = self.literal(stop)?;
        if literal.quoted {
            return Ok(Value::Is(literal));
        }
        match literal.text.as_str() {
            "*" => return Ok(Value::Present),
            text if text.eq_ignore_ascii_case("null") => return Ok(Value::Null),
            _ => {}
        }
        Ok(Value::Is(literal))
    }

    /// `a..b`, `a..`, `..b`: what it means is for the field to say.
    fn range(&mut self, stop: &[char]) -> Result<Option<Value>> {
        let (whole, start) = (self.text, self.at);
        let from = if matches!(self.peek(), Some('"' | '\'')) {
            let from = self.quoted()?;
            if !self.rest().starts_with("..") {
                self.at = start;
                return Ok(None);
            }
            Some(from)
        } else {
            let Some(dots) = self.dots(stop) else { return Ok(None) };
            self.text = &whole[..dots];
            let from = if dots > start { self.word(stop).map(Some) } else { Ok(None) };
            self.text = whole;
            from?
        };
        self.at += 2;
        let ends = self.peek().is_none_or(|c| c.is_whitespace() || stop.contains(&c) || matches!(c, ')' | ']'));
        let to = if ends { None } else { Some(self.literal(stop)?) };
        if from.is_none() && to.is_none() {
            self.at = start;
            return Ok(None);
        }
        Ok(Some(Value::Range(from, to)))
    }

    /// Where two dots stand in a word.
    fn dots(&self, stop: &[char]) -> Option<usize> {
        let rest = self.rest();
        let mut chars = rest.char_indices();
        let mut run = 0;
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => {
                    chars.next();
                }
                '.' => {
                    run += 1;
                    continue;
                }
                _ if run == 2 => return Some(self.at + i - 2),
                c if c.is_whitespace() || stop.contains(&c) || matches!(c, '(' | '[' | ')' | ']') => return None,
                _ => {}
            }
            run = 0;
        }
        (run == 2).then_some(self.text.len() - 2)
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
        let mut inner = Parser::new(self.text, start, self.nested + 1);
        (inner.terms, inner.gathered) = (self.terms, self.gathered.take());
        let query = inner.below(open);
        (self.at, self.terms, self.gathered) = (inner.at, inner.terms, inner.gathered);
        let query = query?;
        // What is not all read is not judged further.
        if !inner.unread.is_empty() {
            return Ok(Value::Present);
        }
        Ok(Value::Sub(Box::new(query), (open, self.at)))
    }

    /// All of a subquery, with the bracket that closes it.
    fn below(&mut self, open: usize) -> Result<Query> {
        let start = self.at;
        let filter = self.or(0)?;
        self.blanks();
        if !self.eat(')') {
            return Err(SrqlError::new("bracket_open", (open, open + 1), "this subquery is not closed"));
        }
        self.finish(filter, start)
    }

    /// `object:(…)`: terms whose keys are below it; `None` where the brackets hold a list.
    fn prefixed(&mut self, key: &Key, depth: usize) -> Result<Option<Expr>> {
        let first = key.path[0].to_ascii_lowercase();
        let object = OBJECTS.contains(&first.as_str()) && key.path.len() == 1;
        if self.peek() != Some('(') || !(object || crate::tables::catalog::is_map(&first)) {
            return Ok(None);
        }
        let (start, wrong) = (self.at, self.mistakes());
        self.at += 1;
        self.blanks();
        if self.rest().get(..3).is_some_and(|r| r.eq_ignore_ascii_case("in:")) {
            self.at = start;
            return Ok(None);
        }
        // On a map the brackets may hold a list of keys: what is no group is no mistake there.
        let gathered = if object { None } else { self.gathered.take() };
        let group = self.or(depth + 1).and_then(|inner| {
            self.blanks();
            if self.eat(')') {
                self.some(inner, (start, self.at), wrong)
            } else {
                Err(SrqlError::new("bracket_open", (start, start + 1), "this bracket is not closed"))
            }
        });
        self.gathered = self.gathered.take().or(gathered);
        match group {
            Ok(inner) => Ok(Some(below(inner, &key.path))),
            Err(_) if !object => {
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
            _ if stop.contains(&')') => self.words(stop),
            _ => self.word(stop),
        }
    }

    /// An item of a list: blanks between its words belong to it.
    fn words(&mut self, stop: &[char]) -> Result<Literal> {
        let mut all = self.word(stop)?;
        loop {
            let end = self.at;
            self.blanks();
            if self.at == end || self.peek().is_none_or(|c| stop.contains(&c)) {
                self.at = end;
                return Ok(all);
            }
            let more = self.word(stop)?;
            let or = more.text.eq_ignore_ascii_case("OR");
            if or || more.text.eq_ignore_ascii_case("AND") {
                let detail = "no operator stands in a list: f:(a,b) is any of them, f:[a,b] all of them";
                let error = SrqlError::new("operator_in_list", more.span, detail);
                return Err(error.suggest(or.then_some(",")));
            }
            all.text.push_str(&self.text[end..more.span.0]);
            all.text.push_str(&more.text);
            all.span.1 = more.span.1;
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
