//! Terms: a key, a colon, and what the field is; keys below an object or a map, queries that give the values.

use super::{MAX_QUERIES, MAX_SUBQUERIES, MAX_TERMS, OBJECTS, Parser, Result, elsewhere, plain};
use crate::ast::{Expr, Key, Query, Value};
use crate::catalog;
use crate::error::SrqlError;
use crate::words;

impl Parser<'_> {
    /// One more term.
    pub(super) fn term_counts(&mut self) -> Result<()> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            let detail = format!("more than {MAX_TERMS} terms; values of one field are a list: f:(a,b)");
            return Err(SrqlError::new("too_many_terms", (self.at, self.at), detail));
        }
        Ok(())
    }

    pub(super) fn key(&mut self) -> Result<(Key, bool)> {
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

    pub(super) fn filter(&mut self, depth: usize, negated: bool) -> Result<Expr> {
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
                if depth == 0
                    && !negated
                    && let Ok(word) = self.word(&[])
                    && word.text.eq_ignore_ascii_case("downsample")
                {
                    let read = self.downsample(word.span);
                    return self.clause_read("downsample", start, read);
                }
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
            let read = self.clause(clause, key.span);
            return self.clause_read(clause, start, read);
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

    /// A clause that begins there was read, or could not be. It stands beside no operator.
    fn clause_read(&mut self, clause: &'static str, start: usize, read: Result<()>) -> Result<Expr> {
        let operator = self.operator.take();
        if let Err(error) = read {
            self.unread.push(clause);
            return Err(error);
        }
        let span = (start, self.at);
        if let Some((operator, at)) = operator {
            self.fail(self.beside(operator, (at.0, span.1), span))?;
        }
        self.after = Some(span);
        if matches!(clause, "limit" | "cursor") {
            self.query.paging.push(span);
        }
        Ok(Expr::And(Vec::new()))
    }

    /// ` contains ` before a list, instead of a colon.
    pub(super) fn contains(&mut self) -> bool {
        let before = self.at;
        self.blanks();
        if self.at > before && self.keyword("contains") && self.peek() == Some('[') {
            return true;
        }
        self.at = before;
        false
    }

    /// `object:(…)`: terms whose keys are below it; `None` where the brackets hold a list.
    pub(super) fn prefixed(&mut self, key: &Key, depth: usize) -> Result<Option<Expr>> {
        let first = key.path[0].to_ascii_lowercase();
        let is_object = OBJECTS.contains(&first.as_str());
        let object = (is_object || catalog::NESTED.contains(&first.as_str())) && key.path.len() == 1;
        // Of a device's map the second part is its name.
        let map = if is_object { key.path.get(1) } else { key.path.first() };
        let is_map = map.is_some_and(|name| catalog::is_map(&name.to_ascii_lowercase()));
        if self.peek() != Some('(') || !(object || is_map) {
            return Ok(None);
        }
        let (start, wrong) = (self.at, self.mistakes());
        self.at += 1;
        self.blanks();
        if self.rest().get(..3).is_some_and(|r| r.eq_ignore_ascii_case("in:")) {
            self.at = start;
            return Ok(None);
        }
        let outside = std::mem::replace(&mut self.in_map, is_map);
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
        self.in_map = outside;
        self.gathered = self.gathered.take().or(gathered);
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

    /// A query in brackets, which gives the values.
    pub(super) fn subquery(&mut self, open: usize) -> Result<Value> {
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
        (inner.terms, inner.queries, inner.gathered) = (self.terms, self.queries + 1, self.gathered.take());
        let query = inner.below(open);
        (self.at, self.terms, self.queries) = (inner.at, inner.terms, inner.queries);
        self.gathered = inner.gathered.take();
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
