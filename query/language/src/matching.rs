//! Whether a row is like a filter, asked of the row alone: for whoever keeps something right as rows come and go.
//!
//! It means what the plan of a query means by it. What more than the row decides is refused by name: subqueries, the devices
//! that rows are of, groups of devices, times that hang on the clock.
//!
//! ```
//! use radarflow_language::{catalog, matching::Filter, parse::parse};
//!
//! let query = parse("in:devices type:router ip:10.0.0.0/8")?;
//! let filter = Filter::of(&query.filter, catalog::find("devices").expect("there are devices"))?;
//! # let _ = filter;
//! # Ok::<(), radarflow_language::error::SrqlError>(())
//! ```

use std::cmp::Ordering;
use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use chrono_tz::Tz;
use regex::Regex;

use crate::ast::{Expr, Key, Literal, Op, Span, Value};
use crate::catalog::{self, Entity, Kind};
use crate::cells::{Cells, address};
use crate::codes::{self, Codes};
use crate::error::SrqlError;
use crate::literals::{Addresses, Number, bounds, has_wildcard, mac, number, wildcard_regex};
use crate::meant;
use crate::parse::{OBJECTS, plain};
use crate::time::{self, Range};
use crate::words::GROUP;

type Result<T> = std::result::Result<T, SrqlError>;

/// Bytes that a regular expression may come to, compiled.
const MAX_REGEX: usize = 1 << 20;
/// Patterns and expressions of a filter: each is kept compiled.
const MAX_PATTERNS: usize = 200;
/// Comparisons of a filter: the terms there are, and a text as often as there are text fields.
const MAX_CONDITIONS: usize = 3000;

/// A filter over the rows of one entity.
#[derive(Clone, Debug)]
pub struct Filter {
    expr: Node,
    /// The columns that are asked.
    columns: Vec<&'static str>,
}

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Is(Place, Test),
}

/// Where in a row: a column, by its place among those that are asked, and a key below it.
#[derive(Clone, Debug)]
pub struct Place {
    column: usize,
    key: Option<String>,
}

#[derive(Clone, Debug)]
enum Test {
    Missing,
    Present,
    /// Missing, or a text of no bytes.
    Empty,
    Any(Vec<Test>),
    All(Vec<Test>),
    /// One of these texts; of a list any.
    Texts(BTreeSet<String>),
    Fold(String),
    Pattern(Regex),
    Number(Op, Number),
    Numbers(BTreeSet<i128>),
    Bits(i64),
    Flag(bool),
    /// Between these, the last left out, microseconds.
    Times(Option<i64>, Option<i64>),
    Addresses(Vec<(u128, u128)>),
    Other(Op, Place, Compared),
}

/// How two values of a row are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Numbers,
    Times,
    Addresses,
    Texts,
    /// The one is an element of the other.
    Element,
}

/// A field, or a value below a key of one.
#[derive(Clone, Debug)]
pub struct Target {
    /// The column.
    pub column: &'static str,
    /// The key below it, of maps.
    pub key: Option<String>,
    /// What it holds.
    pub kind: Kind,
}

impl Target {
    /// What a key means in an entity.
    ///
    /// # Errors
    /// There is no such field, or a row does not say it by itself.
    pub fn of(key: &Key, entity: &'static Entity) -> Result<Self> {
        let refuse = |detail: String| Err(SrqlError::new("not_followed", key.span, detail));
        let first = key.path[0].to_ascii_lowercase();
        let object = key.path.len() > 1 && OBJECTS.contains(&first.as_str()) && entity.field(&first).is_none();
        if object && entity.name != "devices" {
            return refuse(format!(
                "{}: fields of the device that a row is of are not followed here",
                key.path.join(".")
            ));
        }
        if key.path.last().is_some_and(|last| last.eq_ignore_ascii_case(GROUP)) && entity.field(GROUP).is_none() {
            return refuse("groups of devices are not followed here; say their condition".to_owned());
        }
        let Some((field, named)) = entity.locate(&key.path) else {
            let name = key.path.join(".");
            if let Some(fields) = meant::either(entity, &key.path[0]) {
                let detail = format!("{name} is any of several fields; say which: {}", fields.join(", "));
                return Err(SrqlError::new("ambiguous_field", key.span, detail).suggest(fields.first().copied()));
            }
            let detail = format!("{} has no field {name:?}", entity.name);
            return Err(SrqlError::new("unknown_field", key.span, detail).suggest(entity.nearest(&key.path[0])));
        };
        let stored = entity.table.columns().into_iter().find(|column| column.name == field.name);
        let Some(stored) = stored else {
            return refuse(format!("{} hangs on the clock; it is not followed here", field.name));
        };
        match named == key.path.len() {
            true => Ok(Target { column: stored.name, key: None, kind: field.kind }),
            false if field.kind == Kind::Map => {
                Ok(Target { column: stored.name, key: Some(key.path[named..].join(".")), kind: Kind::Text })
            }
            false => {
                let detail = format!("{} is {}; it has no parts", field.name, field.kind.name());
                Err(SrqlError::new("not_a_map", key.span, detail))
            }
        }
    }

    /// As errors call it.
    fn name(&self) -> String {
        self.key.as_ref().map_or_else(|| self.column.to_owned(), |key| format!("{}.{key}", self.column))
    }

    /// Its own name, by which codes are known.
    fn own(&self) -> &str {
        self.key.as_deref().map_or(self.column, |key| key.rsplit('.').next().unwrap_or(key))
    }

    fn holds_addresses(&self) -> bool {
        self.kind == Kind::Ip || (self.kind == Kind::List && self.column.ends_with("ip_addresses"))
    }

    fn error(&self, code: &'static str, literal: &Literal, wanted: &str) -> SrqlError {
        let text = plain(&literal.text);
        let detail = format!("{text:?} is no {wanted}; {} is {}", self.name(), self.kind.name());
        SrqlError::new(code, literal.span, detail)
    }

    fn mac(&self, literal: &Literal) -> Result<String> {
        mac(&plain(&literal.text)).ok_or_else(|| self.error("bad_mac", literal, "MAC of twelve hexadecimal digits"))
    }

    fn addresses(&self, code: &'static str, literal: &Literal) -> Result<Addresses> {
        let text = plain(&literal.text);
        Addresses::read(&text).map_err(|wrong| match wrong.strip_prefix("no ") {
            Some(wanted) => self.error(code, literal, wanted),
            None => SrqlError::new("bad_range", literal.span, format!("{text:?}: {wrong}")),
        })
    }

    fn coded(&self, codes: Codes, literal: &Literal) -> Result<Vec<i64>> {
        let label = plain(&literal.text);
        let numbers = codes.numbers(&label);
        if !numbers.is_empty() {
            return Ok(numbers);
        }
        let labels = codes.labels();
        let detail = format!("{label:?} is neither a number nor one of the labels of {}", self.name());
        let nearest = catalog::nearest(&label, labels.iter().map(String::as_str));
        Err(SrqlError::new("bad_number", literal.span, detail).suggest(nearest))
    }

    fn number(&self, code: &'static str, literal: &Literal) -> Result<Number> {
        let text = plain(&literal.text);
        let Some(n) = number(&text) else {
            return match codes::of(self.own()) {
                Some(codes @ Codes::Labels(..)) => match self.coded(codes, literal)?[..] {
                    [n] => Ok(Number::Whole(i128::from(n))),
                    _ => Err(self.error(code, literal, "single number")),
                },
                _ => Err(self.error(code, literal, "number")),
            };
        };
        if let Some((least, greatest)) = bounds(self.own())
            && !(least as f64..=greatest as f64).contains(&n.real())
        {
            let detail = format!("{} is from {least} to {greatest}; {text} is none of them", self.name());
            return Err(SrqlError::new("out_of_range", literal.span, detail));
        }
        Ok(n)
    }

    fn instant(&self, code: &'static str, literal: &Literal) -> Result<(i64, i64)> {
        let text = plain(&literal.text);
        if text.trim_start().to_ascii_lowercase().starts_with("now") || text.to_ascii_lowercase().contains("today") {
            let detail = format!("{} hangs on the clock with {text:?}; it is not followed here", self.name());
            return Err(SrqlError::new("not_followed", literal.span, detail));
        }
        match time::instant(&text, Tz::UTC, 0) {
            Some(Range { from: Some(from), to: Some(to) }) => Ok((from, to)),
            _ => Err(self.error(code, literal, "instant or date")),
        }
    }

    fn test(&self, value: &Value, span: Span, columns: &mut Columns) -> Result<Test> {
        let pattern = match value {
            Value::Is(literal) => has_wildcard(literal),
            Value::Regex(..) => true,
            _ => false,
        };
        let in_a_set = matches!(value, Value::Is(_)) && !pattern;
        columns.count(usize::from(!in_a_set), pattern, span)?;
        match value {
            Value::Null => Ok(Test::Missing),
            Value::Present => Ok(Test::Present),
            Value::Is(literal) => self.is(literal),
            Value::Fold(literal) => match self.kind {
                Kind::Text | Kind::List if !self.holds_addresses() => {
                    Ok(Test::Fold(plain(&literal.text).to_lowercase()))
                }
                _ => self.is(&Literal { quoted: true, verbatim: true, ..literal.clone() }),
            },
            Value::Compare(op, literal) => self.compare(*op, literal),
            Value::Range(from, to) => self.range(from.as_ref(), to.as_ref()),
            Value::Regex(pattern, fold, span) => match self.kind {
                Kind::Text | Kind::Ip | Kind::Mac | Kind::List => {
                    let pattern = if *fold { format!("(?i){pattern}") } else { pattern.clone() };
                    regex(&pattern, *span).map(Test::Pattern)
                }
                other => {
                    let detail = format!("{} is {}; a regular expression matches text", self.name(), other.name());
                    Err(SrqlError::new("regex_not_applicable", *span, detail))
                }
            },
            Value::Any(items) => self.items(items, span, columns).map(together),
            Value::All(items) => {
                let several = matches!(self.kind, Kind::List | Kind::Map)
                    || matches!(codes::of(self.own()), Some(Codes::Flags(_)));
                let items = self.items(items, span, columns)?;
                Ok(if several { Test::All(items) } else { together(items) })
            }
            Value::Field(op, key) => self.other(*op, key, columns),
            Value::Sub(_, span) => Err(SrqlError::new(
                "not_followed",
                *span,
                "a subquery is not followed here; a row must say it by itself",
            )),
        }
    }

    fn items(&self, items: &[Value], span: Span, columns: &mut Columns) -> Result<Vec<Test>> {
        items.iter().map(|item| self.test(item, span, columns)).collect()
    }

    fn is(&self, literal: &Literal) -> Result<Test> {
        let text = plain(&literal.text);
        if text.is_empty() && literal.quoted {
            return Ok(match self.kind {
                Kind::Text | Kind::Ip | Kind::Mac => Test::Empty,
                _ => Test::Missing,
            });
        }
        if has_wildcard(literal) {
            return match self.kind {
                Kind::Text | Kind::Ip | Kind::List => pattern(literal).map(Test::Pattern),
                Kind::Mac => {
                    let text = literal.text.replace([':', '-', '.'], "");
                    pattern(&Literal { text, ..literal.clone() }).map(Test::Pattern)
                }
                Kind::Number => {
                    let written = pattern(literal)?;
                    let codes = codes::of(self.own()).filter(|codes| matches!(codes, Codes::Labels(..)));
                    let labels = codes.map(|codes| (codes, codes.labels()));
                    let like = labels.into_iter().flat_map(|(codes, labels)| {
                        let labels = labels.into_iter().filter(|label| written.is_match(label));
                        labels.flat_map(move |label| codes.numbers(&label)).collect::<Vec<_>>()
                    });
                    let like: BTreeSet<i128> = like.map(i128::from).collect();
                    let written = Test::Pattern(written);
                    Ok(if like.is_empty() { written } else { Test::Any(vec![written, Test::Numbers(like)]) })
                }
                _ => Err(self.error("wildcard_not_applicable", literal, "value of this type")),
            };
        }
        match self.kind {
            Kind::Text => {
                let labels = codes::labels_of(self.own(), &text);
                Ok(Test::Texts(labels.unwrap_or_else(|| vec![text]).into_iter().collect()))
            }
            Kind::Mac => Ok(Test::Texts([self.mac(literal)?].into())),
            Kind::Ip => Ok(Test::Addresses(self.addresses("bad_ip", literal)?.ranges(Op::Eq))),
            Kind::Number => match (number(&text), codes::of(self.own())) {
                (None, Some(codes)) => {
                    let these = self.coded(codes, literal)?;
                    Ok(match codes {
                        Codes::Flags(_) => Test::Bits(these.into_iter().fold(0, |all, bit| all | bit)),
                        Codes::Labels(..) => Test::Numbers(these.into_iter().map(i128::from).collect()),
                    })
                }
                _ => Ok(match self.number("bad_number", literal)? {
                    Number::Whole(n) => Test::Numbers([n].into()),
                    n => Test::Number(Op::Eq, n),
                }),
            },
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(Test::Flag(true)),
                "false" | "no" | "0" => Ok(Test::Flag(false)),
                _ => Err(self.error("bad_boolean", literal, "true or false")),
            },
            Kind::Time => self.instant("bad_time", literal).map(|(from, to)| Test::Times(Some(from), Some(to))),
            Kind::List if self.holds_addresses() => {
                Ok(Test::Addresses(self.addresses("bad_ip", literal)?.ranges(Op::Eq)))
            }
            Kind::List if self.column.ends_with("mac_addresses") => Ok(Test::Texts([self.mac(literal)?].into())),
            Kind::List | Kind::Map => Ok(Test::Texts([text].into())),
            Kind::Bytes => Err(self.error("bytes_not_comparable", literal, "value")),
        }
    }

    fn compare(&self, op: Op, literal: &Literal) -> Result<Test> {
        match self.kind {
            Kind::Number => Ok(Test::Number(op, self.number("bad_operand", literal)?)),
            Kind::Text if self.key.is_some() => {
                let n = number(&plain(&literal.text)).ok_or_else(|| self.error("bad_operand", literal, "number"))?;
                Ok(Test::Number(op, n))
            }
            Kind::Ip => Ok(Test::Addresses(self.addresses("bad_operand", literal)?.ranges(op))),
            Kind::Time => {
                let (from, to) = self.instant("bad_operand", literal)?;
                // A date is its whole day: after it, from its end on.
                Ok(match op {
                    Op::Greater => Test::Times(Some(to), None),
                    Op::GreaterEq => Test::Times(Some(from), None),
                    Op::Less => Test::Times(None, Some(from)),
                    Op::LessEq => Test::Times(None, Some(to)),
                    Op::Eq | Op::NotEq => Test::Times(Some(from), Some(from + 1)),
                })
            }
            other => {
                let detail = format!("{} is {}; it has no order to compare by", self.name(), other.name());
                Err(SrqlError::new("not_ordered", literal.span, detail))
            }
        }
    }

    fn range(&self, from: Option<&Literal>, to: Option<&Literal>) -> Result<Test> {
        let sides = || from.into_iter().chain(to);
        let span = (sides().map(|l| l.span.0).min().unwrap_or(0), sides().map(|l| l.span.1).max().unwrap_or(0));
        let wrong = |detail: &str| SrqlError::new("bad_range", span, format!("{}: {detail}", self.name()));
        let ranges = match self.kind {
            Kind::Number | Kind::Time | Kind::Ip => true,
            Kind::Text if self.key.is_some() => sides().all(|side| number(&plain(&side.text)).is_some()),
            _ => self.holds_addresses(),
        };
        if !ranges {
            // A text with dots in it.
            let side = |side: Option<&Literal>| side.map_or("", |side| side.text.as_str()).to_owned();
            let (quoted, verbatim) = (sides().any(|l| l.quoted), sides().any(|l| l.verbatim));
            return self.is(&Literal { text: format!("{}..{}", side(from), side(to)), quoted, verbatim, span });
        }
        if self.holds_addresses() {
            let side = |l: Option<&Literal>| l.map(|l| self.addresses("bad_operand", l)).transpose();
            let addresses = Addresses::between(side(from)?, side(to)?).map_err(wrong)?;
            return Ok(Test::Addresses(addresses.ranges(Op::Eq)));
        }
        if let (Some(from), Some(to)) = (from, to) {
            let reversed = match self.kind {
                Kind::Time => self.instant("bad_operand", from)?.0 > self.instant("bad_operand", to)?.0,
                Kind::Number => {
                    self.number("bad_operand", from)?.order(self.number("bad_operand", to)?) == Ordering::Greater
                }
                _ => false,
            };
            if reversed {
                return Err(wrong("the range is reversed"));
            }
        }
        let from = from.map(|l| self.compare(Op::GreaterEq, l)).transpose()?;
        let to = to.map(|l| self.compare(Op::LessEq, l)).transpose()?;
        Ok(Test::All(from.into_iter().chain(to).collect()))
    }

    fn other(&self, op: Op, key: &Key, columns: &mut Columns) -> Result<Test> {
        let other = Target::of(key, columns.entity)?;
        let is_equality = matches!(op, Op::Eq | Op::NotEq);
        let (left, right) = (self, &other);
        let maps = left.key.is_some() || right.key.is_some();
        let number = |t: &Target| t.kind == Kind::Number || (t.kind == Kind::Text && t.key.is_some());
        let scalar = |t: &Target| matches!(t.kind, Kind::Text | Kind::Ip | Kind::Mac);
        let how = match (left.kind, right.kind) {
            (Kind::Number, Kind::Number) => Compared::Numbers,
            (Kind::Time, Kind::Time) => Compared::Times,
            (Kind::Ip, Kind::Ip) if !is_equality => Compared::Addresses,
            _ if !is_equality && number(left) && number(right) => Compared::Numbers,
            (a, b) if is_equality && a == b && !matches!(a, Kind::List | Kind::Map | Kind::Bytes) => Compared::Texts,
            (Kind::List, _) if op == Op::Eq && scalar(right) => Compared::Element,
            (_, Kind::List) if op == Op::Eq && scalar(left) => Compared::Element,
            _ if is_equality && maps => Compared::Texts,
            (a, b) => {
                let how = if is_equality { "equal" } else { "in an order" };
                let detail = format!(
                    "{} is {} and {} is {}: they are never {how}",
                    left.name(),
                    a.name(),
                    right.name(),
                    b.name()
                );
                return Err(SrqlError::new("not_comparable", key.span, detail));
            }
        };
        let place = columns.place(&other);
        Ok(Test::Other(op, place, how))
    }
}

/// Any of some tests; plain values are one set.
fn together(tests: Vec<Test>) -> Test {
    let (mut texts, mut numbers, mut ranges, mut rest) = (BTreeSet::new(), BTreeSet::new(), Vec::new(), Vec::new());
    for test in tests {
        match test {
            Test::Texts(more) => texts.extend(more),
            Test::Numbers(more) => numbers.extend(more),
            Test::Addresses(more) => ranges.extend(more),
            other => rest.push(other),
        }
    }
    if !texts.is_empty() {
        rest.push(Test::Texts(texts));
    }
    if !numbers.is_empty() {
        rest.push(Test::Numbers(numbers));
    }
    if !ranges.is_empty() {
        rest.push(Test::Addresses(joined(ranges)));
    }
    if rest.len() == 1 { rest.remove(0) } else { Test::Any(rest) }
}

/// Ranges in order, apart from each other, so that one is found by its beginning.
fn joined(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut apart: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match apart.last_mut() {
            Some((_, end)) if low <= end.saturating_add(1) => *end = high.max(*end),
            _ => apart.push((low, high)),
        }
    }
    apart
}

fn regex(pattern: &str, span: Span) -> Result<Regex> {
    let built = regex::RegexBuilder::new(pattern).size_limit(MAX_REGEX).build();
    built.map_err(|error| SrqlError::new("bad_regex", span, error.to_string()))
}

fn pattern(literal: &Literal) -> Result<Regex> {
    regex(&wildcard_regex(literal), literal.span)
}

/// The columns that are asked so far.
struct Columns {
    entity: &'static Entity,
    names: Vec<&'static str>,
    patterns: usize,
    conditions: usize,
}

impl Columns {
    /// Counts comparisons, no more than may be.
    fn count(&mut self, more: usize, pattern: bool, span: Span) -> Result<()> {
        self.conditions += more;
        self.patterns += usize::from(pattern);
        let refuse = |detail: String| Err(SrqlError::new("too_many_terms", span, detail));
        if self.patterns > MAX_PATTERNS {
            return refuse(format!("more than {MAX_PATTERNS} patterns and regular expressions are not followed here"));
        }
        match self.conditions > MAX_CONDITIONS {
            true => refuse(format!("more than {MAX_CONDITIONS} comparisons are not followed here")),
            false => Ok(()),
        }
    }

    fn place(&mut self, target: &Target) -> Place {
        let at = self.names.iter().position(|name| *name == target.column).unwrap_or_else(|| {
            self.names.push(target.column);
            self.names.len() - 1
        });
        Place { column: at, key: target.key.clone() }
    }

    fn node(&mut self, expr: &Expr) -> Result<Node> {
        Ok(match expr {
            Expr::And(all) => Node::All(all.iter().map(|e| self.node(e)).collect::<Result<_>>()?),
            Expr::Or(any) => Node::Any(any.iter().map(|e| self.node(e)).collect::<Result<_>>()?),
            Expr::Not(inner) => Node::Not(Box::new(self.node(inner)?)),
            Expr::Text(literal) => {
                self.count(1, true, literal.span)?;
                // A pattern is of the whole text; this one is of any part of it.
                let whole = wildcard_regex(literal);
                let within = whole.strip_suffix('$').unwrap_or(&whole).replacen('^', "", 1);
                let has = regex(&within, literal.span)?;
                let texts = self.entity.fields.iter().filter(|f| !f.hidden);
                let texts = texts.filter(|f| matches!(f.kind, Kind::Text | Kind::Ip | Kind::Mac));
                let targets = texts.map(|f| Target { column: f.name, key: None, kind: f.kind });
                Node::Any(targets.map(|t| Node::Is(self.place(&t), Test::Pattern(has.clone()))).collect())
            }
            Expr::Filter(key, value) => {
                let target = Target::of(key, self.entity)?;
                let test = target.test(value, key.span, self)?;
                self.count(0, false, key.span)?;
                Node::Is(self.place(&target), test)
            }
        })
    }
}

impl Filter {
    /// A filter over rows of an entity.
    ///
    /// # Errors
    /// It speaks of what there is not, or of what a row does not say by itself.
    pub fn of(expr: &Expr, entity: &'static Entity) -> Result<Self> {
        let mut columns = Columns { entity, names: Vec::new(), patterns: 0, conditions: 0 };
        let expr = columns.node(expr)?;
        Ok(Filter { expr, columns: columns.names })
    }

    /// The columns that it asks.
    pub fn columns(&self) -> &[&'static str] {
        &self.columns
    }

    /// The filter over the rows of a batch.
    pub fn over<'a>(&'a self, batch: &'a RecordBatch) -> Rows<'a> {
        Rows { expr: &self.expr, cells: self.columns.iter().map(|name| Cells::of(batch, name)).collect() }
    }

    /// Of a filter that fixes the texts of a column: the column and the texts, one of which every row that is like it has. The
    /// fewest, where there are several.
    pub fn fixes(&self) -> Option<(&'static str, &BTreeSet<String>)> {
        fn of(node: &Node) -> Option<(&Place, &BTreeSet<String>)> {
            match node {
                Node::Is(place, Test::Texts(texts)) if place.key.is_none() => Some((place, texts)),
                Node::All(all) => all.iter().filter_map(of).min_by_key(|(_, texts)| texts.len()),
                _ => None,
            }
        }
        let (place, texts) = of(&self.expr)?;
        Some((self.columns[place.column], texts))
    }
}

/// A filter over the rows of one batch.
pub struct Rows<'a> {
    expr: &'a Node,
    cells: Vec<Cells<'a>>,
}

impl Rows<'_> {
    /// Whether a row is like it.
    pub fn matches(&self, row: usize) -> bool {
        self.node(self.expr, row)
    }

    fn node(&self, node: &Node, row: usize) -> bool {
        match node {
            Node::All(all) => all.iter().all(|n| self.node(n, row)),
            Node::Any(any) => any.iter().any(|n| self.node(n, row)),
            Node::Not(inner) => !self.node(inner, row),
            Node::Is(place, test) => self.test(place, test, row),
        }
    }

    /// The text of a value: of numbers the digits.
    fn text(&self, place: &Place, row: usize) -> Option<std::borrow::Cow<'_, str>> {
        let cells = self.cells[place.column];
        match &place.key {
            Some(key) => cells.below(row, key).map(Into::into),
            None => cells.text(row).map(Into::into).or_else(|| cells.label(row).map(Into::into)),
        }
    }

    fn number(&self, place: &Place, row: usize) -> Option<Number> {
        let cells = self.cells[place.column];
        match &place.key {
            Some(key) => plain_number(cells.below(row, key)?),
            None => cells.number(row),
        }
    }

    fn test(&self, place: &Place, test: &Test, row: usize) -> bool {
        let cells = self.cells[place.column];
        // Values of a map are texts; elements of a list are asked one by one.
        let each = |is: &dyn Fn(&str) -> bool| match (cells, &place.key) {
            (_, Some(key)) => cells.below(row, key).is_some_and(is),
            (Cells::List(..) | Cells::Map(..), None) => cells.texts(row).any(is),
            (Cells::Text(_), None) => cells.text(row).is_some_and(is),
            _ => cells.label(row).is_some_and(|label| is(&label)),
        };
        match test {
            Test::Any(any) => any.iter().any(|test| self.test(place, test, row)),
            Test::All(all) => all.iter().all(|test| self.test(place, test, row)),
            Test::Present => match &place.key {
                Some(key) => cells.below(row, key).is_some(),
                None => cells.is_present(row),
            },
            Test::Missing => !self.test(place, &Test::Present, row),
            Test::Empty => self.text(place, row).is_none_or(|text| text.is_empty()),
            Test::Texts(texts) => each(&|text| texts.contains(text)),
            Test::Fold(folded) => each(&|text| text.to_lowercase() == *folded),
            Test::Pattern(pattern) => each(&|text| pattern.is_match(text)),
            Test::Number(op, n) => self.number(place, row).is_some_and(|value| holds(*op, value.order(*n))),
            Test::Numbers(these) => matches!(self.number(place, row), Some(Number::Whole(n)) if these.contains(&n)),
            Test::Bits(bits) => {
                matches!(self.number(place, row), Some(Number::Whole(n)) if n & i128::from(*bits) != 0)
            }
            Test::Flag(is) => cells.flag(row) == Some(*is),
            Test::Times(from, to) => {
                cells.time(row).is_some_and(|at| from.is_none_or(|from| from <= at) && to.is_none_or(|to| at < to))
            }
            Test::Addresses(ranges) => each(&|text| {
                address(text).is_some_and(|ip| {
                    let after = ranges.partition_point(|(low, _)| *low <= ip);
                    after.checked_sub(1).is_some_and(|at| ip <= ranges[at].1)
                })
            }),
            Test::Other(op, other, how) => self.related(place, *op, other, *how, row),
        }
    }

    fn related(&self, left: &Place, op: Op, right: &Place, how: Compared, row: usize) -> bool {
        match how {
            Compared::Numbers => {
                let both = self.number(left, row).zip(self.number(right, row));
                both.is_some_and(|(a, b)| holds(op, a.order(b)))
            }
            Compared::Times => {
                let both = self.cells[left.column].time(row).zip(self.cells[right.column].time(row));
                both.is_some_and(|(a, b)| holds(op, a.cmp(&b)))
            }
            Compared::Addresses => {
                let of = |place| self.text(place, row).and_then(|text| address(&text));
                let ipv4 = |ip: u128| ip >> 32 == 0xffff;
                let both = of(left).zip(of(right)).filter(|(a, b)| ipv4(*a) == ipv4(*b));
                both.is_some_and(|(a, b)| holds(op, a.cmp(&b)))
            }
            Compared::Texts => {
                let both = self.text(left, row).zip(self.text(right, row));
                both.is_some_and(|(a, b)| (a == b) == (op == Op::Eq))
            }
            Compared::Element => {
                let (a, b) = (self.cells[left.column], self.cells[right.column]);
                let (list, one) = if matches!(a, Cells::List(..)) { (a, right) } else { (b, left) };
                self.text(one, row).is_some_and(|one| list.texts(row).any(|text| text == one))
            }
        }
    }
}

/// A number as values of maps have it: plain, without a unit.
pub fn plain_number(text: &str) -> Option<Number> {
    if let Ok(whole) = text.parse::<i128>() {
        return Some(Number::Whole(whole));
    }
    text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Number::of_real)
}

/// Whether two values that are in such an order compare so.
pub fn holds(op: Op, order: Ordering) -> bool {
    match op {
        Op::Eq => order.is_eq(),
        Op::NotEq => order.is_ne(),
        Op::Less => order.is_lt(),
        Op::LessEq => order.is_le(),
        Op::Greater => order.is_gt(),
        Op::GreaterEq => order.is_ge(),
    }
}
