//! Clauses: what stands beside the filters.

use super::stats::quantile;
use super::{Parser, Result, elsewhere, plain};
use crate::ast::{Fill, Having, Literal, Over, Sort, Span, Top, Units};
use crate::catalog;
use crate::error::SrqlError;
use crate::words::MAX_LIMIT;
use crate::{time, words};

/// Entities in one query.
const MAX_ENTITIES: usize = 8;
/// Greatest `top:`.
const MAX_TOP: usize = 1000;

/// A span of time.
fn width(word: &Literal) -> Result<i64> {
    time::duration(&word.text)
        .ok_or_else(|| SrqlError::new("bad_duration", word.span, "a duration is expected here, as 5m or 1h"))
}

/// A whole number: digits, and nothing else.
fn whole(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

impl Parser<'_> {
    fn truth(&mut self, clause: &str) -> Result<bool> {
        let word = self.word(&[])?;
        match word.text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(SrqlError::new("bad_value", word.span, format!("{clause}: takes true or false"))),
        }
    }

    fn once(&mut self, clause: &'static str, span: Span) -> Result<()> {
        if self.seen.contains(&clause) {
            return Err(SrqlError::new("clause_repeated", span, format!("{clause}: may stand once")));
        }
        self.seen.push(clause);
        Ok(())
    }

    /// `downsample` alone: slices that suit the span.
    pub(super) fn downsample(&mut self, span: Span) -> Result<()> {
        self.once("bucket", span)?;
        self.bucket.width = Some((None, span));
        Ok(())
    }

    fn last_wins(&mut self, clause: &'static str) {
        if self.seen.contains(&clause) {
            self.query.warnings.push(format!("{clause}: is given more than once; the last one counts"));
        }
        self.seen.push(clause);
    }

    pub(super) fn clause(&mut self, clause: &'static str, span: Span) -> Result<()> {
        match clause {
            "in" => {
                let start = self.at;
                let bracket = self.eat('(');
                let mut names = Vec::new();
                loop {
                    let at = self.at;
                    let name = self.name()?;
                    // One name may stand for another, or for several.
                    let meant = match catalog::meant(&name) {
                        [] => vec![name],
                        // It means some of its rows, which is said once the query is read.
                        _ if catalog::KINDS.iter().any(|(kind, ..)| kind.eq_ignore_ascii_case(&name)) => vec![name],
                        meant => meant.iter().map(|name| (*name).to_owned()).collect(),
                    };
                    for name in meant {
                        if !names.iter().any(|(known, _): &(String, Span)| known.eq_ignore_ascii_case(&name)) {
                            names.push((name, (at, self.at)));
                        }
                    }
                    if names.len() > MAX_ENTITIES {
                        let detail = format!("more than {MAX_ENTITIES} entities");
                        return Err(SrqlError::new("list_too_long", (start, self.at), detail));
                    }
                    let more = if bracket { self.comma() } else { self.eat(',') };
                    if !more {
                        break;
                    }
                }
                if bracket && !self.eat(')') {
                    return Err(self.error("unexpected", "',' or ')' is expected here"));
                }
                let said = |names: &[(String, Span)]| names.iter().map(|(n, _)| n.to_lowercase()).collect::<Vec<_>>();
                if !self.query.entities.is_empty() && said(&self.query.entities) != said(&names) {
                    let detail = "one entity list: in: is given twice";
                    return Err(SrqlError::new("clause_repeated", (start, self.at), detail));
                }
                self.query.entities = names;
                self.seen.push("in");
            }
            "time" | "timeframe" => {
                self.last_wins("time");
                self.query.time = Some(self.literal(&[])?);
            }
            "at" => {
                self.once("at", span)?;
                if self.nested > 0 {
                    let detail = "at: is said once, of the whole query";
                    return Err(SrqlError::new("clause_not_here", span, detail));
                }
                self.query.at = Some(self.literal(&[])?);
            }
            "tz" => {
                self.once("tz", span)?;
                self.query.tz = Some(self.literal(&[])?);
            }
            "include_deleted" => {
                self.once("include_deleted", span)?;
                self.query.include_deleted = self.truth("include_deleted")?.then_some(span);
            }
            "latest" => {
                self.once("latest", span)?;
                self.query.latest = self.truth("latest")?.then_some(span);
            }
            "explain" => {
                self.once("explain", span)?;
                self.query.explain = self.truth("explain")?;
            }
            "stream" => {
                self.once("stream", span)?;
                self.query.stream = self.truth("stream")?.then_some(span);
            }
            "mode" => {
                self.once("stream", span)?;
                let word = self.word(&[])?;
                self.query.stream = match word.text.to_ascii_lowercase().as_str() {
                    "stream" => Some(span),
                    "snapshot" => None,
                    _ => return Err(SrqlError::new("bad_value", word.span, "mode: takes stream or snapshot")),
                };
            }
            "window" | "time_bucket" => {
                self.once("window", span)?;
                let word = self.word(&[])?;
                self.query.window = Some((width(&word)?, word.span));
            }
            "top" => {
                self.once("top", span)?;
                let word = self.word(&[])?;
                let n = whole(&plain(&word.text)).filter(|n| (1..=MAX_TOP).contains(n)).ok_or_else(|| {
                    SrqlError::new("bad_limit", word.span, format!("top: takes a whole number up to {MAX_TOP}"))
                })?;
                self.query.top = Some(Top { n, by: None, over: None, other: false, span });
            }
            "by" => {
                self.once("by", span)?;
                let at = self.at;
                let name = self.name()?;
                let over = match name.to_ascii_lowercase().as_str() {
                    "max" => Some(Over::Max),
                    "avg" => Some(Over::Avg),
                    "last" => Some(Over::Last),
                    _ => None,
                };
                self.top_by = Some(match over {
                    Some(over) if self.eat('(') => {
                        let of = self.name()?;
                        if !self.eat(')') {
                            return Err(self.error("unexpected", "')' is expected here"));
                        }
                        (of, Some(over), (at, self.at))
                    }
                    // Alone it is of the first aggregate, unless one is called so.
                    over => (name, over, (at, self.at)),
                });
            }
            "other" => {
                self.once("other", span)?;
                self.top_other = Some((self.truth("other")?, span));
            }
            "reverse" => {
                self.once("reverse", span)?;
                self.query.reverse = self.truth("reverse")?.then_some(span);
            }
            "compare" => {
                self.once("compare", span)?;
                let word = self.word(&[])?;
                self.query.compare = Some((width(&word)?, word.span));
            }
            "units" => {
                self.once("units", span)?;
                let word = self.word(&[])?;
                let units = match plain(&word.text).as_str() {
                    "bps" => Units::BitsPerSecond,
                    "Bps" => Units::BytesPerSecond,
                    "pps" => Units::PacketsPerSecond,
                    "pct" => {
                        let detail = "units:pct needs the speeds of interfaces, which nothing reports here";
                        return Err(SrqlError::new("clause_not_available", word.span, detail));
                    }
                    _ => return Err(SrqlError::new("bad_value", word.span, "units: takes bps, Bps or pps")),
                };
                self.query.units = Some((units, span));
            }
            "rollup_stats" => {
                self.once("rollup_stats", span)?;
                let at = self.at;
                let name = self.name()?;
                self.query.rollup = Some((name, (at, self.at)));
            }
            "limit" => {
                self.last_wins("limit");
                let word = self.word(&[])?;
                let n = whole(&plain(&word.text))
                    .filter(|n| *n > 0)
                    .ok_or_else(|| SrqlError::new("bad_limit", word.span, "limit: takes a whole number from 1 on"))?;
                if n > MAX_LIMIT {
                    let detail = format!("limit:{n} is more than a page may have ({MAX_LIMIT})");
                    return Err(SrqlError::new("limit_too_large", word.span, detail));
                }
                self.query.limit = Some(n);
            }
            "cursor" => {
                self.last_wins("cursor");
                self.query.cursor = Some(self.word(&[])?);
            }
            "sort" | "order" => loop {
                let begins = self.at;
                let (key, _) = self.key().map_err(|error| elsewhere::descending(self.text, begins, error))?;
                let ascending = if self.eat(':') {
                    let word = self.word(&[','])?;
                    match word.text.to_ascii_lowercase().as_str() {
                        "asc" => true,
                        "desc" => false,
                        text => {
                            let near = ["asc", "desc"].into_iter().find(|way| text.starts_with(way));
                            let error = SrqlError::new("bad_sort", word.span, "asc or desc is expected here");
                            return Err(error.suggest(near));
                        }
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
            "groupby" => self.inside(Parser::group_keys)?,
            "having" => {
                let having = if matches!(self.peek(), Some('"' | '\'')) {
                    let (text, at) = self.inner_text()?;
                    let mut inner = Parser::new(&self.text[..at + text.len()], at, self.nested);
                    inner.terms = self.terms;
                    inner.gathered = self.gathered.take();
                    let cond = inner.having_or(0);
                    self.gathered = inner.gathered.take();
                    inner.blanks();
                    if cond.is_ok() && inner.at < inner.text.len() {
                        let error = inner.error("unexpected", "and, or, or the end of the condition is expected here");
                        return Err(elsewhere::and_or(inner.text, error));
                    }
                    let cond = cond?;
                    self.terms = inner.terms;
                    cond
                } else {
                    self.having_compare()?
                };
                self.query.having = Some(match self.query.having.take() {
                    Some(Having::And(mut all)) => {
                        all.push(having);
                        Having::And(all)
                    }
                    Some(other) => Having::And(vec![other, having]),
                    None => having,
                });
            }
            "bucket" | "downsample" => {
                self.once("bucket", span)?;
                let word = self.word(&[])?;
                let auto = word.text.eq_ignore_ascii_case("auto");
                self.bucket.width = Some((if auto { None } else { Some(width(&word)?) }, word.span));
            }
            "fill" => {
                self.bucket.stray = Some(("fill", span));
                let word = self.word(&[])?;
                self.bucket.fill = Some(match word.text.to_ascii_lowercase().as_str() {
                    "0" => Fill::Zero,
                    "null" => Fill::Null,
                    "previous" => Fill::Previous,
                    _ => return Err(SrqlError::new("bad_value", word.span, "fill: takes 0, null or previous")),
                });
            }
            "agg" => {
                self.bucket.stray = Some(("agg", span));
                let word = self.word(&[])?;
                let name = word.text.to_ascii_lowercase();
                let name = if name == "latest" { "last".to_owned() } else { name };
                let known = words::is_function(&name)
                    && !name.ends_with("_if")
                    && !matches!(name.as_str(), "percentile" | "group_uniq_array");
                if !known && quantile(&name).is_none() {
                    let functions =
                        words::FUNCTIONS.iter().map(|(name, _)| *name).filter(|name| !name.ends_with("_if"));
                    let detail = format!("agg: takes a function, as avg, sum, max, last or p95, not {name:?}");
                    let error = SrqlError::new("unknown_function", word.span, detail);
                    return Err(error.suggest(catalog::nearest(&name, functions)));
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
}
