//! Filters: every comparison by the type of its field. Two-valued: each is wrapped in `IS TRUE`, so that a missing value
//! is false and `NOT` above it is classical.

use arrow_schema::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_nested::expr_fn as nested;
use datafusion::logical_expr::{Expr as Df, Operator, binary_expr, cast, ident, lit, try_cast};
use radarflow_language::literals::{Addresses, Number, bounds, has_wildcard, like, mac, number, wildcard_regex};

use super::super::ast::{Expr, Literal, Op, Span, Value};
use super::super::parse::plain;
use super::super::time::{self, Range};
use super::names::{Names, Target};
use super::operands::{apply, compare, compared, value};
use super::{Result, timestamp};
use crate::error::SrqlError;
use crate::srql::functions::{any_like, any_within, ip_bytes, within};
use crate::tables::catalog::{self, Entity, Field, Kind};
use crate::tables::codes::{self, Codes};

/// Comparisons that a query may come to: the terms there are, patterns and ranges of lists, and a text as often as there are
/// text fields.
pub const MAX_CONDITIONS: usize = 3000;

/// Whole numbers that a float tells apart, from nought.
const EXACT: i128 = 1 << 53;

/// The fields that a text is looked for in.
pub(super) fn texts(entity: &Entity) -> impl Iterator<Item = &Field> {
    entity.fields.iter().filter(|f| !f.hidden && matches!(f.kind, Kind::Text | Kind::Ip | Kind::Mac))
}

/// Whether any text field of an entity contains a text.
pub(super) fn contains(entity: &Entity, literal: &Literal) -> Df {
    let pattern = format!("%{}%", like(literal));
    let any = texts(entity).map(|f| ident(f.name).ilike(lit(pattern.as_str())).is_true()).collect();
    balanced(any, Df::or).unwrap_or_else(|| lit(false))
}

impl Target {
    /// Whether it is there; of lists and maps, whether there is anything in it.
    pub(super) fn present(&self) -> Df {
        match self.kind {
            Kind::List => nested::cardinality(self.expr.clone()).gt(lit(0i64)).is_true(),
            Kind::Map => nested::array_length(nested::map_keys(self.expr.clone())).gt(lit(0i64)).is_true(),
            _ => self.expr.clone().is_not_null(),
        }
    }

    /// Whether it is a value of a map: text that may be a number.
    pub(super) fn is_map_value(&self) -> bool {
        self.kind == Kind::Text && self.column.is_none()
    }

    fn error(&self, code: &'static str, literal: &Literal, wanted: &str) -> SrqlError {
        let text = plain(&literal.text);
        let detail = format!("{text:?} is no {wanted}; {} is {}", self.field, self.kind.name());
        SrqlError::new(code, literal.span, detail)
    }

    /// The addresses that a literal names.
    fn addresses(&self, code: &'static str, literal: &Literal) -> Result<Addresses> {
        let text = plain(&literal.text);
        Addresses::read(&text).map_err(|wrong| match wrong.starts_with("no ") {
            true => self.error(code, literal, wrong.trim_start_matches("no ")),
            false => SrqlError::new("bad_range", literal.span, format!("{text:?}: {wrong}")),
        })
    }

    fn mac(&self, literal: &Literal) -> Result<String> {
        mac(&plain(&literal.text)).ok_or_else(|| self.error("bad_mac", literal, "MAC of twelve hexadecimal digits"))
    }

    /// The number that a literal is, within what the field can have; or that its label stands for, if it stands for one.
    fn number(&self, code: &'static str, literal: &Literal) -> Result<Number> {
        let text = plain(&literal.text);
        let Some(n) = number(&text) else {
            return match codes::of(self.own()) {
                Some(codes) => match self.coded(codes, literal)?[..] {
                    [n] if matches!(codes, Codes::Labels(..)) => Ok(Number::Whole(i128::from(n))),
                    _ => Err(self.error(code, literal, "single number")),
                },
                None => Err(self.error(code, literal, "number")),
            };
        };
        if let Some((least, greatest)) = bounds(self.own())
            && !(least as f64..=greatest as f64).contains(&n.real())
        {
            let detail = format!("{} is from {least} to {greatest}; {text} is none of them", self.field);
            return Err(SrqlError::new("out_of_range", literal.span, detail));
        }
        if self.data_type == DataType::Int64 && n.real().abs() > 9.3e18 {
            let detail = format!("{} has 64 bits; {text} is none of its values", self.field);
            return Err(SrqlError::new("out_of_range", literal.span, detail));
        }
        Ok(n)
    }

    /// The numbers that a label stands for.
    fn coded(&self, codes: Codes, literal: &Literal) -> Result<Vec<i64>> {
        let label = plain(&literal.text);
        let numbers = codes.numbers(&label);
        if !numbers.is_empty() {
            return Ok(numbers);
        }
        let detail = format!("{label:?} is neither a number nor one of the labels of {}", self.field);
        let labels = codes.labels();
        let nearest = catalog::nearest(&label, labels.iter().map(String::as_str));
        let mut error = SrqlError::new("bad_number", literal.span, detail).suggest(nearest);
        error.expected = labels;
        Err(error)
    }
}

impl Names<'_> {
    /// Counts comparisons, no more than may be.
    pub(super) fn count(&self, more: usize, span: Span) -> Result<()> {
        self.conditions.set(self.conditions.get() + more);
        if self.conditions.get() > MAX_CONDITIONS {
            let detail = format!(
                "the query comes to more than {MAX_CONDITIONS} comparisons; plain values of a list count as one"
            );
            return Err(SrqlError::new("too_many_terms", span, detail));
        }
        Ok(())
    }

    pub(super) fn filter(&self, expr: &Expr) -> Result<Df> {
        Ok(match expr {
            Expr::And(all) => {
                let all = all.iter().map(|e| self.filter(e)).collect::<Result<Vec<_>>>()?;
                balanced(all, Df::and).unwrap_or_else(|| lit(true))
            }
            Expr::Or(any) => {
                let any = any.iter().map(|e| self.filter(e)).collect::<Result<Vec<_>>>()?;
                balanced(any, Df::or).unwrap_or_else(|| lit(false))
            }
            Expr::Not(inner) => Df::Not(Box::new(self.filter(inner)?)),
            // Of several entities each was asked by itself.
            Expr::Text(literal) => match self.marks.get(&(Vec::new(), literal.span)) {
                Some(mark) => ident(mark).is_true(),
                None => {
                    self.count(texts(&self.entity).count(), literal.span)?;
                    contains(&self.entity, literal)
                }
            },
            Expr::Filter(key, Value::Sub(_, span)) => {
                let mark = self
                    .marks
                    .get(&(key.path.clone(), *span))
                    .ok_or_else(|| SrqlError::new("subquery_not_available", *span, "a subquery cannot stand here"))?;
                ident(mark).is_true()
            }
            Expr::Filter(key, value) => {
                let targets = self.targets(key)?;
                let any = targets.iter().map(|t| self.leaf(t, value, key.span)).collect::<Result<Vec<_>>>()?;
                any.into_iter().reduce(Df::or).unwrap_or_else(|| lit(false))
            }
        })
    }

    fn leaf(&self, target: &Target, value: &Value, span: Span) -> Result<Df> {
        self.count(1, span)?;
        let column = || target.expr.clone();
        match value {
            Value::Null => Ok(match target.kind {
                Kind::List | Kind::Map => Df::Not(Box::new(target.present())),
                _ => column().is_null(),
            }),
            Value::Present => Ok(target.present()),
            Value::Field(op, key) => {
                let others = self.targets(key)?;
                let any = others.iter().map(|other| self.related(target, *op, other, key.span));
                Ok(balanced(any.collect::<Result<Vec<_>>>()?, Df::or).unwrap_or_else(|| lit(false)))
            }
            Value::Sub(_, span) => {
                Err(SrqlError::new("subquery_not_available", *span, "a subquery cannot stand in a list"))
            }
            Value::Any(items) | Value::All(items) => {
                let several = matches!(target.kind, Kind::List | Kind::Map)
                    || matches!(codes::of(target.own()), Some(Codes::Flags(_)));
                if several && matches!(value, Value::All(_)) {
                    let each = items.iter().map(|item| self.leaf(target, item, span)).collect::<Result<Vec<_>>>()?;
                    return Ok(balanced(each, Df::and).unwrap_or_else(|| lit(false)));
                }
                // Plain values are looked up in one set, however many they are, and so are networks and ranges of addresses.
                let (mut these, mut ranges, mut each) = (Vec::new(), Vec::new(), Vec::new());
                for item in items {
                    match (same(target, item)?, addresses(target, item)?) {
                        (Some(values), _) => these.extend(values),
                        (None, Some(known)) => ranges.extend(known.ranges(Op::Eq)),
                        (None, None) => each.push(self.leaf(target, item, span)?),
                    }
                }
                if !ranges.is_empty() {
                    let value = if target.kind == Kind::Ip { self.ip_bytes(target) } else { column() };
                    each.push(within(value, ranges).is_true());
                }
                if !these.is_empty() {
                    each.push(match target.kind {
                        Kind::List => nested::array_has_any(column(), nested::make_array(these)).is_true(),
                        _ => column().in_list(these, false).is_true(),
                    });
                }
                Ok(balanced(each, Df::or).unwrap_or_else(|| lit(false)))
            }
            Value::Is(literal) => self.is(target, literal),
            Value::Fold(literal) => {
                let exact = Literal { quoted: true, verbatim: true, ..literal.clone() };
                match target.kind {
                    Kind::List => {
                        Ok(any_like(column(), &format!("(?i)^{}$", regex::escape(&plain(&literal.text)))).is_true())
                    }
                    Kind::Text => Ok(column().ilike(lit(like(&exact))).is_true()),
                    _ => self.is(target, &exact),
                }
            }
            Value::Compare(op, literal) => self.compare(target, *op, literal),
            Value::Range(from, to) => match dotted(target, from.as_ref(), to.as_ref()) {
                Some(text) => self.is(target, &text),
                None => self.range(target, from.as_ref(), to.as_ref()),
            },
            Value::Regex(pattern, fold, span) => {
                regex::RegexBuilder::new(pattern)
                    .size_limit(1 << 20)
                    .build()
                    .map_err(|e| SrqlError::new("bad_regex", *span, e.to_string()))?;
                let pattern = if *fold { format!("(?i){pattern}") } else { pattern.clone() };
                match target.kind {
                    Kind::Text | Kind::Ip | Kind::Mac => {
                        Ok(datafusion::functions::regex::expr_fn::regexp_like(column(), lit(pattern), None).is_true())
                    }
                    Kind::List => Ok(any_like(column(), &pattern).is_true()),
                    other => Err(SrqlError::new(
                        "regex_not_applicable",
                        *span,
                        format!("{} is {}; a regular expression matches text", target.field, other.name()),
                    )),
                }
            }
        }
    }

    fn is(&self, target: &Target, literal: &Literal) -> Result<Df> {
        let column = || target.expr.clone();
        let text = plain(&literal.text);
        if text.is_empty() && literal.quoted {
            return Ok(match target.kind {
                Kind::Text | Kind::Ip | Kind::Mac => column().is_null().or(column().eq(lit(""))),
                Kind::List | Kind::Map => Df::Not(Box::new(target.present())),
                _ => column().is_null(),
            });
        }
        if has_wildcard(literal) {
            return match target.kind {
                Kind::Text | Kind::Ip => Ok(column().ilike(lit(like(literal))).is_true()),
                Kind::Mac => Ok(column().ilike(lit(like(literal).replace([':', '-', '.'], ""))).is_true()),
                Kind::Number => {
                    let written = cast(column(), DataType::Utf8).ilike(lit(like(literal)));
                    Ok(match labelled_like(target, literal) {
                        these if these.is_empty() => written.is_true(),
                        these => written.or(column().in_list(these, false)).is_true(),
                    })
                }
                Kind::List => Ok(any_like(column(), &wildcard_regex(literal)).is_true()),
                _ => Err(target.error("wildcard_not_applicable", literal, "value of this type")),
            };
        }
        match target.kind {
            Kind::Text => Ok(match codes::labels_of(target.own(), &text) {
                Some(labels) => column().in_list(labels.into_iter().map(lit).collect(), false).is_true(),
                None => column().eq(lit(text)).is_true(),
            }),
            Kind::Mac => Ok(column().eq(lit(target.mac(literal)?)).is_true()),
            Kind::Ip => {
                let addresses = target.addresses("bad_ip", literal)?;
                Ok(match addresses.one() {
                    Some(ip) => column().eq(lit(ip.to_string())).is_true(),
                    None => self.within(target, addresses, Op::Eq),
                })
            }
            Kind::Number => match (number(&text), codes::of(target.own())) {
                (None, Some(codes)) => {
                    let these = target.coded(codes, literal)?;
                    if let Codes::Flags(_) = codes {
                        let bits = these.into_iter().fold(0, |all, bit| all | bit);
                        let and = binary_expr(column(), Operator::BitwiseAnd, lit(bits));
                        return Ok(and.not_eq(lit(0i64)).is_true());
                    }
                    Ok(match these[..] {
                        [n] => column().eq(lit(n)).is_true(),
                        _ => column().in_list(these.into_iter().map(lit).collect(), false).is_true(),
                    })
                }
                _ => {
                    let n = target.number("bad_number", literal)?;
                    Ok(compare(column(), &target.data_type, Op::Eq, n).is_true())
                }
            },
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(column().is_true()),
                "false" | "no" | "0" => Ok(column().is_false()),
                _ => Err(target.error("bad_boolean", literal, "true or false")),
            },
            Kind::Time => match time::instant(&text, self.zone, self.now_us) {
                Some(Range { from: Some(from), to: Some(to) }) => {
                    Ok(column().gt_eq(timestamp(from)).and(column().lt(timestamp(to))).is_true())
                }
                _ => Err(target.error("bad_time", literal, "instant or date")),
            },
            Kind::List if target.field.ends_with("ip_addresses") => {
                let addresses = target.addresses("bad_ip", literal)?;
                Ok(match addresses.one() {
                    Some(ip) => nested::array_has(column(), lit(ip.to_string())).is_true(),
                    None => self.within(target, addresses, Op::Eq),
                })
            }
            Kind::List if target.field.ends_with("mac_addresses") => {
                Ok(nested::array_has(column(), lit(target.mac(literal)?)).is_true())
            }
            Kind::List => Ok(nested::array_has(column(), lit(text)).is_true()),
            Kind::Map => Ok(nested::array_has(nested::map_keys(column()), lit(text)).is_true()),
            Kind::Bytes => Err(target.error("bytes_not_comparable", literal, "value")),
        }
    }

    /// Whether an address, or any of a list, compares so with some.
    fn within(&self, target: &Target, addresses: Addresses, op: Op) -> Df {
        let one = |(low, high): (Df, Df)| match target.kind {
            Kind::List => any_within(target.expr.clone(), low, high).is_true(),
            _ => self.ip_bytes(target).between(low, high).is_true(),
        };
        compared(addresses, op).into_iter().map(one).reduce(Df::or).unwrap_or_else(|| lit(false))
    }

    fn ip_bytes(&self, target: &Target) -> Df {
        let stored = format!("{}_bin", target.field);
        match self.entity.fields.iter().find(|f| f.name == stored) {
            Some(field) => ident(field.name),
            None => ip_bytes(target.expr.clone()),
        }
    }

    /// From one to another, both of them within.
    fn range(&self, target: &Target, from: Option<&Literal>, to: Option<&Literal>) -> Result<Df> {
        let span = (from.or(to).map_or(0, |l| l.span.0), to.or(from).map_or(0, |l| l.span.1));
        let wrong = |detail: &str| SrqlError::new("bad_range", span, format!("{}: {detail}", target.field));
        if target.kind == Kind::Ip {
            let side = |l: Option<&Literal>| l.map(|l| target.addresses("bad_operand", l)).transpose();
            let addresses = Addresses::between(side(from)?, side(to)?).map_err(wrong)?;
            return Ok(self.within(target, addresses, Op::Eq));
        }
        if let (Some(from), Some(to)) = (from, to) {
            let is_reversed = match target.kind {
                Kind::Number => {
                    let (from, to) = (target.number("bad_operand", from)?, target.number("bad_operand", to)?);
                    match (from, to) {
                        (Number::Whole(from), Number::Whole(to)) => from > to,
                        (from, to) => from.real() > to.real(),
                    }
                }
                Kind::Time => {
                    let at = |l: &Literal| time::instant(&plain(&l.text), self.zone, self.now_us).and_then(|r| r.from);
                    at(from).zip(at(to)).is_some_and(|(from, to)| from > to)
                }
                _ => false,
            };
            if is_reversed {
                return Err(wrong("the range is reversed"));
            }
        }
        let from = from.map(|l| self.compare(target, Op::GreaterEq, l)).transpose()?;
        let to = to.map(|l| self.compare(target, Op::LessEq, l)).transpose()?;
        Ok(from.into_iter().chain(to).reduce(Df::and).unwrap_or_else(|| lit(true)))
    }

    fn compare(&self, target: &Target, op: Op, literal: &Literal) -> Result<Df> {
        let text = plain(&literal.text);
        let column = || target.expr.clone();
        let compared = match target.kind {
            Kind::Number => compare(column(), &target.data_type, op, target.number("bad_operand", literal)?),
            // On a map's values the comparison holds where the value is a number.
            Kind::Text if target.is_map_value() => match number(&text) {
                Some(Number::Whole(n)) if n.abs() >= EXACT => {
                    let value = lit(ScalarValue::Decimal128(Some(n), 38, 0));
                    apply(try_cast(column(), DataType::Decimal128(38, 0)), op, value)
                }
                Some(n) => apply(try_cast(column(), DataType::Float64), op, lit(n.real())),
                None => return Err(target.error("bad_operand", literal, "number")),
            },
            Kind::Ip => return Ok(self.within(target, target.addresses("bad_operand", literal)?, op)),
            Kind::Time => match time::instant(&text, self.zone, self.now_us) {
                // A date is its whole day: after it, from its end on.
                Some(Range { from: Some(from), to: Some(to) }) => match op {
                    Op::Greater => column().gt_eq(timestamp(to)),
                    Op::LessEq => column().lt(timestamp(to)),
                    _ => apply(column(), op, timestamp(from)),
                },
                _ => return Err(target.error("bad_operand", literal, "instant or date")),
            },
            other => {
                return Err(SrqlError::new(
                    "not_ordered",
                    literal.span,
                    format!("{} is {}; it has no order to compare by", target.field, other.name()),
                ));
            }
        };
        Ok(compared.is_true())
    }

    /// Compares two fields of a row.
    fn related(&self, target: &Target, op: Op, other: &Target, span: Span) -> Result<Df> {
        let (left, right) = (target.expr.clone(), other.expr.clone());
        let text = |expr: Df| cast(expr, DataType::Utf8);
        let is_equality = matches!(op, Op::Eq | Op::NotEq);
        let compared = match (target.kind, other.kind) {
            (Kind::Number, Kind::Number) | (Kind::Time, Kind::Time) => apply(left, op, right),
            (Kind::Ip, Kind::Ip) if !is_equality => {
                let (left, right) = (self.ip_bytes(target), self.ip_bytes(other));
                let ipv4 = Addresses::read("0.0.0.0/0").map(|all| compared(all, Op::Eq)).unwrap_or_default();
                let is_ipv4 = |bytes: &Df| {
                    let within = ipv4.iter().map(|(low, high)| bytes.clone().between(low.clone(), high.clone()));
                    within.reduce(Df::or).unwrap_or_else(|| lit(false))
                };
                let of_one_family = is_ipv4(&left).eq(is_ipv4(&right));
                apply(left, op, right).and(of_one_family)
            }
            (Kind::Text, Kind::Text | Kind::Number) | (Kind::Number, Kind::Text)
                if !is_equality
                    && (target.is_map_value() || target.kind == Kind::Number)
                    && (other.is_map_value() || other.kind == Kind::Number) =>
            {
                apply(try_cast(left, DataType::Float64), op, try_cast(right, DataType::Float64))
            }
            (a, b) if is_equality && a == b && !matches!(a, Kind::List | Kind::Map | Kind::Bytes) => {
                apply(left, op, right)
            }
            (Kind::List, Kind::Text | Kind::Ip | Kind::Mac) if op == Op::Eq => nested::array_has(left, right),
            (Kind::Text | Kind::Ip | Kind::Mac, Kind::List) if op == Op::Eq => nested::array_has(right, left),
            _ if is_equality && (target.is_map_value() || other.is_map_value()) => apply(text(left), op, text(right)),
            (a, b) => {
                let how = if is_equality { "equal" } else { "in an order" };
                let detail = format!(
                    "{} is {} and {} is {}: they are never {how}",
                    target.field,
                    a.name(),
                    other.field,
                    b.name()
                );
                return Err(SrqlError::new("not_comparable", span, detail));
            }
        };
        Ok(compared.is_true())
    }
}

/// The values one of which a field must have for an item of a list, where there is no more to it.
fn same(target: &Target, item: &Value) -> Result<Option<Vec<Df>>> {
    let Value::Is(literal) = item else { return Ok(None) };
    let text = plain(&literal.text);
    if text.is_empty() || has_wildcard(literal) {
        return Ok(None);
    }
    Ok(match target.kind {
        Kind::Text => match codes::labels_of(target.own(), &text) {
            Some(labels) => Some(labels.into_iter().map(lit).collect()),
            None => Some(vec![lit(text)]),
        },
        Kind::Mac => Some(vec![lit(target.mac(literal)?)]),
        Kind::Ip => target.addresses("bad_ip", literal)?.one().map(|ip| vec![lit(ip.to_string())]),
        Kind::Number if number(&text).is_some() => {
            value(target.number("bad_number", literal)?, &target.data_type).map(|value| vec![value])
        }
        Kind::List if target.field.ends_with("mac_addresses") => Some(vec![lit(target.mac(literal)?)]),
        Kind::List if !target.field.ends_with("ip_addresses") => Some(vec![lit(text)]),
        _ => None,
    })
}

/// A range beside a field that has none: its text.
fn dotted(target: &Target, from: Option<&Literal>, to: Option<&Literal>) -> Option<Literal> {
    let sides = || from.into_iter().chain(to);
    let ranges = match target.kind {
        Kind::Number | Kind::Time | Kind::Ip => true,
        Kind::List => target.field.ends_with("ip_addresses"),
        Kind::Text if target.is_map_value() => sides().all(|side| number(&plain(&side.text)).is_some()),
        _ => false,
    };
    let side = |side: Option<&Literal>| side.map_or("", |side| side.text.as_str()).to_owned();
    let start = from.map_or_else(|| to.map_or(0, |l| l.span.0 - 2), |l| l.span.0);
    let end = to.map_or_else(|| from.map_or(0, |l| l.span.1 + 2), |l| l.span.1);
    let (quoted, verbatim) = (sides().any(|l| l.quoted), sides().any(|l| l.verbatim));
    let text = format!("{}..{}", side(from), side(to));
    (!ranges).then_some(Literal { text, quoted, verbatim, span: (start, end) })
}

/// The numbers of the labels that a pattern matches.
fn labelled_like(target: &Target, literal: &Literal) -> Vec<Df> {
    let Some(codes @ Codes::Labels(..)) = codes::of(target.own()) else { return Vec::new() };
    let Ok(pattern) = regex::RegexBuilder::new(&wildcard_regex(literal)).size_limit(1 << 20).build() else {
        return Vec::new();
    };
    let labels = codes.labels();
    let like = labels.iter().filter(|label| pattern.is_match(label)).flat_map(|label| codes.numbers(label));
    like.map(lit).collect()
}

/// The addresses that an item of a list stands for, where it stands for any.
fn addresses(target: &Target, item: &Value) -> Result<Option<Addresses>> {
    let of_addresses = target.kind == Kind::Ip || (target.kind == Kind::List && target.field.ends_with("ip_addresses"));
    match item {
        Value::Is(literal) if of_addresses && !literal.text.is_empty() && !has_wildcard(literal) => {
            target.addresses("bad_ip", literal).map(Some)
        }
        _ => Ok(None),
    }
}

/// Many conditions as one, no deeper than it must be: plans are walked by recursion.
pub(super) fn balanced(mut all: Vec<Df>, together: fn(Df, Df) -> Df) -> Option<Df> {
    while all.len() > 1 {
        let mut left = all.into_iter();
        let mut pairs = Vec::new();
        while let Some(a) = left.next() {
            pairs.push(match left.next() {
                Some(b) => together(a, b),
                None => a,
            });
        }
        all = pairs;
    }
    all.pop()
}
