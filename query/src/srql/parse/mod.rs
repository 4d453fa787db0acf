//! Text to AST. Never panics, whatever the text; every error has a place. Nesting, lists and length are bounded.
//!
//! A backslash before punctuation makes it ordinary. Until a literal is turned into a pattern that must stay known, so
//! an escaped character is kept behind [`ORDINARY`].

mod clauses;
mod stats;
mod terms;
mod values;

use super::ast::{Bucket, Expr, Fill, Key, Over, Query, Span};
use super::{meant, observables};
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
///
/// # Errors
/// The first mistake, and where it is.
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
            error.expected = catalog::ENTITIES.iter().map(|e| format!("in:{}", e.name)).collect();
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
}

/// A literal's text with every character ordinary.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| *c != ORDINARY).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srql::ast::{Op, Value};

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
