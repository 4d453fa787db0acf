//! Values: a literal, a comparison, a range, a pattern, a list of them.

use super::{MAX_DEPTH, MAX_ITEMS, ORDINARY, Parser, Result, plain};
use crate::ast::{Key, Literal, Op, Value};
use crate::error::SrqlError;

impl Parser<'_> {
    pub(super) fn value(&mut self, top: bool) -> Result<Value> {
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
        if let Some(key) = field_of(&literal)? {
            return Ok(Value::Field(Op::Eq, key));
        }
        match literal.text.as_str() {
            "*" => return Ok(Value::Present),
            text if text.eq_ignore_ascii_case("null") => return Ok(Value::Null),
            _ => {}
        }
        Ok(Value::Is(literal))
    }

    /// `a..b`, `a..`, `..b`: what it means is for the field to say.
    pub(super) fn range(&mut self, stop: &[char]) -> Result<Option<Value>> {
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
    pub(super) fn dots(&self, stop: &[char]) -> Option<usize> {
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

    pub(super) fn list(&mut self) -> Result<Value> {
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

    /// `/…/` or `/…/i` if it ends the value; otherwise it is text.
    pub(super) fn regex(&mut self) -> Option<Value> {
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

    pub(super) fn literal(&mut self, stop: &[char]) -> Result<Literal> {
        match self.peek() {
            Some('"' | '\'' | '`') => self.quoted(),
            _ if stop.contains(&')') => self.words(stop),
            _ => self.word(stop),
        }
    }

    /// An item of a list: blanks between its words belong to it.
    pub(super) fn words(&mut self, stop: &[char]) -> Result<Literal> {
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

    pub(super) fn quoted(&mut self) -> Result<Literal> {
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
    pub(super) fn word(&mut self, stop: &[char]) -> Result<Literal> {
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
