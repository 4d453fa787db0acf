//! `stats:`, its groups, and `having:`.

use super::super::ast::{Aggregate, Expr, GroupKey, Having, Op};
use super::super::time;
use super::super::words;
use super::{MAX_DEPTH, Parser, Result, plain};
use crate::error::SrqlError;

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
            let start = self.at;
            let function = self.name()?.to_ascii_lowercase();
            let percent = function.strip_prefix('p').and_then(|n| n.parse::<f64>().ok());
            if percent.is_none() && !words::is_function(&function) {
                return Err(SrqlError::new(
                    "unknown_function",
                    (start, self.at),
                    format!("unknown function {function:?}"),
                )
                .suggest(crate::tables::catalog::nearest(&function, words::FUNCTIONS.iter().map(|(name, _)| *name))));
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
            if field.is_none() && !matches!(function.as_str(), "count" | "count_if") {
                return Err(SrqlError::new("field_missing", span, format!("{function}() needs a field")));
            }
            let alias = self.alias()?.unwrap_or_else(|| default_alias(&self.text[span.0..span.1]));
            let function = match percent {
                Some(_) => "percentile".to_owned(),
                None => function.trim_end_matches("_if").to_owned(),
            };
            self.query.stats.push(Aggregate { function, field, quantile, only, alias, span });
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
                let word = self.word(&[','])?;
                let name = key.path.join("_");
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
