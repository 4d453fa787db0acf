//! `stats:`, its groups, and `having:`.

use super::{MAX_DEPTH, Parser, Result, plain};
use crate::ast::{Aggregate, Expr, GroupKey, Having, Op, Operand, Span};
use crate::catalog;
use crate::error::SrqlError;
use crate::time;
use crate::words;

impl<'a> Parser<'a> {
    /// The text between quotes, and where it begins.
    pub(super) fn inner_text(&mut self) -> Result<(&'a str, usize)> {
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
    pub(super) fn inside(&mut self, part: fn(&mut Self) -> Result<()>) -> Result<()> {
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

    pub(super) fn name(&mut self) -> Result<String> {
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

    pub(super) fn comma(&mut self) -> bool {
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

    pub(super) fn stats(&mut self) -> Result<()> {
        loop {
            let mut call = self.call()?;
            if let Some(alias) = self.alias()? {
                call.alias = alias;
            }
            self.query.stats.push(call);
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

    /// An aggregate, named as it is written.
    fn call(&mut self) -> Result<Aggregate> {
        self.term_counts()?;
        let start = self.at;
        let mut function = self.name()?.to_ascii_lowercase();
        // p99.9: the dot is part of the name.
        if quantile(&function).is_some() && self.eat('.') {
            function = format!("{function}.{}", self.name()?);
        }
        let mut q = quantile(&function);
        if q.is_none() && !words::is_function(&function) {
            let error = SrqlError::new("unknown_function", (start, self.at), format!("unknown function {function:?}"));
            return Err(error.suggest(catalog::nearest(&function, words::FUNCTIONS.iter().map(|(name, _)| *name))));
        }
        if !self.eat('(') {
            return Err(self.error("unexpected", "'(' is expected here"));
        }
        self.blanks();
        let (mut field, mut only) = (None, None);
        let conditional = function.ends_with("_if");
        if function == "count_if" {
            only = Some(self.condition()?);
        } else if !self.eat('*') && self.peek() != Some(')') {
            field = Some(self.key()?.0);
        }
        if conditional && function != "count_if" {
            if !self.comma() {
                return Err(self.error("unexpected", format!("{function}(field, filter) needs a filter")));
            }
            only = Some(self.condition()?);
        }
        if function == "percentile" {
            if !self.comma() {
                return Err(self.error("unexpected", "percentile(field, q) needs a q"));
            }
            let word = self.word(&[',', ')'])?;
            let said: f64 = plain(&word.text)
                .parse()
                .map_err(|_| SrqlError::new("bad_number", word.span, "a number is expected here"))?;
            if !(0.0..=1.0).contains(&said) {
                let of = field.as_ref().map(|f| f.path.join(".")).unwrap_or_default();
                let better = format!("p{said}({of})");
                let error = SrqlError::new("bad_number", word.span, "percentile(f, q): q is between 0 and 1");
                return Err(if (0.0..=100.0).contains(&said) { error.suggest(Some(&better)) } else { error });
            }
            q = Some(said);
        }
        self.blanks();
        if !self.eat(')') {
            return Err(self.error("unexpected", "')' is expected here"));
        }
        let span = (start, self.at);
        if q.is_some_and(|q| !(0.0..=1.0).contains(&q)) {
            return Err(SrqlError::new("bad_number", span, "a percentile is between 0 and 100"));
        }
        if field.is_none() && !matches!(function.as_str(), "count" | "count_if") {
            return Err(SrqlError::new("field_missing", span, format!("{function}() needs a field")));
        }
        let alias = default_alias(&self.text[span.0..span.1]);
        let function = match q {
            Some(_) => "percentile".to_owned(),
            None => function.trim_end_matches("_if").to_owned(),
        };
        Ok(Aggregate { function, field, quantile: q, only, alias, span })
    }

    /// A filter inside a call: terms, no clauses.
    fn condition(&mut self) -> Result<Expr> {
        let start = self.at;
        match self.or(1)? {
            Expr::And(all) if all.is_empty() => {
                Err(SrqlError::new("term_missing", (start, self.at), "a filter is expected here"))
            }
            filter => Ok(filter),
        }
    }

    pub(super) fn group_keys(&mut self) -> Result<()> {
        let start = self.at;
        let mut keys = Vec::new();
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
                let name = field.path.join(".");
                GroupKey::Cidr(field, bits, name)
            } else if function && key.path[0].eq_ignore_ascii_case("each") {
                self.at += 1;
                let (field, _) = self.key()?;
                if !self.eat(')') {
                    return Err(self.error("unexpected", "')' is expected here"));
                }
                let name = field.path.join(".");
                GroupKey::Each(field, name)
            } else if function && key.path[0].eq_ignore_ascii_case("time") {
                self.at += 1;
                let word = self.word(&[')'])?;
                let width = time::duration(&word.text)
                    .ok_or_else(|| SrqlError::new("bad_duration", word.span, "a duration is expected here"))?;
                if !self.eat(')') {
                    return Err(self.error("unexpected", "')' is expected here"));
                }
                GroupKey::Time(width, "window_start".to_owned())
            } else if self.eat(':') {
                self.eat('/');
                let word = self.word(&[','])?;
                let name = key.path.join(".");
                match (word.text.parse().ok().filter(|bits| *bits <= 128), time::duration(&word.text)) {
                    (Some(bits), _) => GroupKey::Cidr(key, bits, name),
                    // `time:5m` is time(5m).
                    (None, Some(width)) => GroupKey::Time(width, name),
                    (None, None) => {
                        let detail = "a prefix length or a duration is expected here";
                        return Err(SrqlError::new("bad_number", word.span, detail));
                    }
                }
            } else {
                let name = key.path.join(".");
                GroupKey::Field(key, name)
            };
            let group = match self.alias()? {
                Some(alias) => group.named(alias),
                None => group,
            };
            keys.push(group);
            if !self.comma() {
                break;
            }
        }
        if self.query.by.is_empty() {
            self.query.by = keys;
        } else if !self.query.by.iter().zip(&keys).all(|(a, b)| a.is_like(b)) || self.query.by.len() != keys.len() {
            let detail = "the groups have two lists of keys; say one";
            return Err(SrqlError::new("clause_repeated", (start, self.at), detail));
        }
        Ok(())
    }

    fn bits(&mut self, stop: &[char]) -> Result<u8> {
        let word = self.word(stop)?;
        word.text
            .parse()
            .ok()
            .filter(|b| *b <= 128)
            .ok_or_else(|| SrqlError::new("bad_number", word.span, "a prefix length is expected here"))
    }

    pub(super) fn having_or(&mut self, depth: usize) -> Result<Having> {
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
        let mut all = vec![self.having_term(depth)?];
        loop {
            self.blanks();
            if !self.keyword("and") {
                break;
            }
            all.push(self.having_term(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Having::And(all) })
    }

    pub(super) fn having_not(&mut self, depth: usize) -> Result<Having> {
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

    pub(super) fn having_compare(&mut self) -> Result<Having> {
        let start = self.at;
        self.term_counts()?;
        let left = self.operand()?;
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
        let right = self.operand()?;
        Ok(Having::Compare(left, *op, right, (start, self.at)))
    }

    /// A side of a comparison: a call, a quoted text, or a word.
    fn operand(&mut self) -> Result<Operand> {
        if matches!(self.peek(), Some('"' | '\'' | '`')) {
            return Ok(Operand::Text(plain(&self.quoted()?.text)));
        }
        let name = self.rest().find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')));
        let called = name.filter(|end| *end > 0 && self.rest()[*end..].starts_with('('));
        if called.is_some() && self.peek().is_some_and(|c| c.is_ascii_alphabetic()) {
            return Ok(Operand::Call(Box::new(self.call()?)));
        }
        Ok(Operand::Word(plain(&self.word(&['<', '>', '=', '!'])?.text)))
    }
}

/// The share that `p95`, `p99.9` names.
pub fn quantile(function: &str) -> Option<f64> {
    let digits = function.strip_prefix('p').filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))?;
    let is_number = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    digits.parse::<f64>().ok().filter(|_| is_number).map(|p| p / 100.0)
}

/// Rows, counted.
pub(super) fn count(span: Span) -> Aggregate {
    Aggregate { function: "count".into(), field: None, quantile: None, only: None, alias: "count".into(), span }
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
