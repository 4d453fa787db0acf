//! Text to AST. Never panics, whatever the text; every error has a place. Nesting, lists and length are bounded.
//!
//! A backslash before punctuation makes it ordinary. Until a literal is turned into a pattern that must stay known, so
//! an escaped character is kept behind [`ORDINARY`].

mod clauses;
mod elsewhere;
mod gather;
mod stats;
mod terms;
mod values;

pub(crate) use elsewhere::CURLY;
pub use gather::{Gathered, MAX_MISTAKES, gather};
pub use stats::quantile;

use crate::ast::{Bucket, Expr, Fill, Key, Over, Query, Span};
use crate::catalog;
use crate::error::SrqlError;
use crate::{doubts, meant, observables};

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
pub const OBJECTS: &[&str] = &["device", "src_device", "dst_device", "exporter_device"];

type Result<T> = std::result::Result<T, SrqlError>;

/// Parses a query.
///
/// # Errors
/// The first mistake, and where it is.
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
        reverse: None,
        compare: None,
        rollup: None,
        bucket: None,
        paging: Vec::new(),
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
            in_map: false,
            nested,
            terms: 0,
            queries: 0,
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
            error.expected = catalog::ENTITIES.iter().map(|e| format!("in:{}", e.name)).collect();
            self.lacks(error)?;
        }
        if query.having.is_some() && query.stats.is_empty() {
            self.lacks(SrqlError::new("having_without_stats", span, "having: needs stats:"))?;
            query.having = None;
        }
        if !query.by.is_empty() && query.stats.is_empty() && query.bucket.is_none() {
            query.stats.push(stats::count(span));
        }
        if let Some((_, at)) = query.window.filter(|_| query.stats.is_empty()) {
            self.lacks(SrqlError::new("window_without_stats", at, "window: needs stats:"))?;
            query.window = None;
        }
        if !query.by.is_empty() && query.stats.is_empty() {
            self.lacks(SrqlError::new("clause_conflict", span, "bucket: has series:, not groupby:"))?;
            query.by.clear();
        }
        match (&mut query.top, self.top_by.take(), self.top_other) {
            (Some(top), by, other) => {
                if let Some((name, over, at)) = by {
                    (top.by, top.over) = (Some((name, at)), over);
                }
                top.other = other.is_some_and(|(other, _)| other);
                if query.by.is_empty() && query.bucket.as_ref().is_none_or(|b| b.series.is_none()) {
                    let detail = "top: needs groups: stats:\"… by key\", or bucket: with series:";
                    let error = SrqlError::new("top_without_groups", top.span, detail);
                    self.lacks(error)?;
                }
            }
            (None, Some((.., at)), _) => self.lacks(SrqlError::new("top_missing", at, "by: needs top:<n>"))?,
            (None, _, Some((_, at))) => self.lacks(SrqlError::new("top_missing", at, "other: needs top:<n>"))?,
            (None, None, None) => {}
        }
        if let Err(error) = observables::expand(&mut query) {
            self.fail(error)?;
        }
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
            Some('"' | '\'') if !self.in_map => {
                self.term_counts()?;
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
}

/// A literal's text with every character ordinary.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| *c != ORDINARY).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::{Op, Value};

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
