//! Filters: every comparison by the type of its field. Two-valued: each is wrapped in `IS TRUE`, so that a missing value
//! is false and `NOT` above it is classical.

use std::net::IpAddr;

use arrow_schema::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_nested::expr_fn as nested;
use datafusion::logical_expr::{Expr as Df, Operator, binary_expr, cast, ident, lit};
use radarflow_proto::cell::IpBytes;

use super::super::ast::{Expr, Literal, Op, Value};
use super::super::parse::{ORDINARY, plain};
use super::super::time::{self, Range};
use super::{Names, Result, Target, timestamp};
use crate::error::SrqlError;
use crate::srql::functions::{any_like, any_within, ip_bytes};
use crate::tables::catalog::{self, Kind};
use crate::tables::codes::{self, Codes};

impl Names<'_> {
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
            Expr::Text(literal) => {
                let pattern = format!("%{}%", like(literal));
                let texts = self.entity.fields.iter().filter(|f| matches!(f.kind, Kind::Text | Kind::Ip | Kind::Mac));
                let any = texts.map(|f| ident(f.name).ilike(lit(pattern.as_str())).is_true());
                any.reduce(Df::or).unwrap_or_else(|| lit(false))
            }
            Expr::Filter(key, Value::Sub(_, span)) => {
                let mark = self
                    .marks
                    .get(&(key.path.clone(), *span))
                    .ok_or_else(|| SrqlError::new("subquery_not_available", *span, "a subquery cannot stand here"))?;
                ident(mark).is_true()
            }
            Expr::Filter(key, value) => {
                let any = self.targets(key)?.iter().map(|t| self.leaf(t, value)).collect::<Result<Vec<_>>>()?;
                any.into_iter().reduce(Df::or).unwrap_or_else(|| lit(false))
            }
        })
    }

    fn leaf(&self, target: &Target, value: &Value) -> Result<Df> {
        let column = || target.expr.clone();
        let present = || match target.kind {
            Kind::List => nested::cardinality(column()).gt(lit(0i64)).is_true(),
            Kind::Map => nested::array_length(nested::map_keys(column())).gt(lit(0i64)).is_true(),
            _ => column().is_not_null(),
        };
        match value {
            Value::Null => Ok(match target.kind {
                Kind::List | Kind::Map => Df::Not(Box::new(present())),
                _ => column().is_null(),
            }),
            Value::Present => Ok(present()),
            Value::Sub(_, span) => {
                Err(SrqlError::new("subquery_not_available", *span, "a subquery cannot stand in a list"))
            }
            Value::Any(items) | Value::All(items) => {
                if matches!(target.kind, Kind::List | Kind::Map) && matches!(value, Value::All(_)) {
                    let each = items.iter().map(|item| self.leaf(target, item)).collect::<Result<Vec<_>>>()?;
                    return Ok(balanced(each, Df::and).unwrap_or_else(|| lit(false)));
                }
                // Plain values are looked up in one set, however many they are.
                let (mut these, mut each) = (Vec::new(), Vec::new());
                for item in items {
                    match same(target, item) {
                        Some(value) => these.push(value),
                        None => each.push(self.leaf(target, item)?),
                    }
                }
                if !these.is_empty() {
                    each.push(match target.kind {
                        Kind::List => nested::array_has_any(column(), nested::make_array(these)).is_true(),
                        Kind::Number => cast(column(), DataType::Float64).in_list(these, false).is_true(),
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
                    Kind::Text | Kind::Ip | Kind::Mac => Ok(column().ilike(lit(like(&exact))).is_true()),
                    _ => self.is(target, &exact),
                }
            }
            Value::Compare(op, literal) => self.compare(target, *op, literal),
            // Of what has no order two dots are text.
            Value::Range(from, to) if !ordered(target, from.as_ref(), to.as_ref()) => {
                self.leaf(target, &Value::Is(dotted(from.as_ref(), to.as_ref())))
            }
            Value::Range(from, to) => {
                let from = from.as_ref().map(|l| self.compare(target, Op::GreaterEq, l)).transpose()?;
                let to = to.as_ref().map(|l| self.compare(target, Op::LessEq, l)).transpose()?;
                Ok(from.into_iter().chain(to).reduce(Df::and).unwrap_or_else(|| lit(true)))
            }
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
        let wrong = |code, wanted: &str| {
            Err(SrqlError::new(
                code,
                literal.span,
                format!("{:?} is no {wanted}; {} is {}", text, target.field, target.kind.name()),
            ))
        };
        if text.is_empty() && literal.quoted && matches!(target.kind, Kind::Text | Kind::Ip | Kind::Mac) {
            return Ok(column().is_null().or(column().eq(lit(""))));
        }
        if has_wildcard(literal) {
            return match target.kind {
                Kind::Text | Kind::Ip => Ok(column().ilike(lit(like(literal))).is_true()),
                Kind::Mac => Ok(column().ilike(lit(like(literal).replace([':', '-', '.'], ""))).is_true()),
                Kind::Number => Ok(cast(column(), DataType::Utf8).ilike(lit(like(literal))).is_true()),
                Kind::List => Ok(any_like(column(), &wildcard_regex(literal)).is_true()),
                _ => wrong("wildcard_not_applicable", "value of this type"),
            };
        }
        match target.kind {
            Kind::Text => Ok(column().eq(lit(text)).is_true()),
            Kind::Mac => Ok(column().eq(lit(text.replace([':', '-', '.'], "").to_ascii_uppercase())).is_true()),
            Kind::Ip => match ip_range(&text) {
                Some((low, high)) if low == high => Ok(column().eq(lit(low.to_string())).is_true()),
                Some((low, high)) => Ok(self.ip_bytes(target).between(bytes(low), bytes(high)).is_true()),
                None => wrong("bad_ip", "address, network or address range"),
            },
            Kind::Number => match (number(&text), codes::of(target.own())) {
                (Some(n), _) => Ok(cast(column(), DataType::Float64).eq(lit(n)).is_true()),
                (None, Some(codes)) => self.coded(target, codes, literal),
                (None, None) => wrong("bad_number", "number"),
            },
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(column().is_true()),
                "false" | "no" | "0" => Ok(column().is_false()),
                _ => wrong("bad_boolean", "true or false"),
            },
            Kind::Time => match time::instant(&text, self.zone, self.now_us) {
                Some(Range { from: Some(from), to: Some(to) }) => {
                    Ok(column().gt_eq(timestamp(from)).and(column().lt(timestamp(to))).is_true())
                }
                _ => wrong("bad_time", "instant or date"),
            },
            Kind::List if target.field.ends_with("ip_addresses") => match ip_range(&text) {
                Some((low, high)) if low == high => Ok(nested::array_has(column(), lit(low.to_string())).is_true()),
                Some((low, high)) => Ok(any_within(column(), bytes(low), bytes(high)).is_true()),
                None => wrong("bad_ip", "address, network or address range"),
            },
            Kind::List if target.field.ends_with("mac_addresses") => {
                let mac = text.replace([':', '-', '.'], "").to_ascii_uppercase();
                Ok(nested::array_has(column(), lit(mac)).is_true())
            }
            Kind::List => Ok(nested::array_has(column(), lit(text)).is_true()),
            Kind::Map => Ok(nested::array_has(nested::map_keys(column()), lit(text)).is_true()),
            Kind::Bytes => wrong("bytes_not_comparable", "value"),
        }
    }

    /// A label in place of a number.
    fn coded(&self, target: &Target, codes: Codes, literal: &Literal) -> Result<Df> {
        let label = plain(&literal.text);
        match (codes, codes.number(&label)) {
            (Codes::Labels(..), Some(n)) => Ok(target.expr.clone().eq(lit(n)).is_true()),
            (Codes::Flags(_), Some(bit)) => {
                let and = binary_expr(target.expr.clone(), Operator::BitwiseAnd, lit(bit));
                Ok(and.not_eq(lit(0i64)).is_true())
            }
            (_, None) => {
                let detail = format!("{label:?} is neither a number nor one of the labels of {}", target.field);
                let labels = codes.labels();
                let nearest = catalog::nearest(&label, labels.iter().map(String::as_str));
                let mut error = SrqlError::new("bad_number", literal.span, detail).suggest(nearest);
                error.expected = labels;
                Err(error)
            }
        }
    }

    fn ip_bytes(&self, target: &Target) -> Df {
        let stored = format!("{}_bin", target.field);
        match self.entity.fields.iter().find(|f| f.name == stored) {
            Some(field) => ident(field.name),
            None => ip_bytes(target.expr.clone()),
        }
    }

    fn compare(&self, target: &Target, op: Op, literal: &Literal) -> Result<Df> {
        let text = plain(&literal.text);
        let wrong = |wanted: &str| {
            Err(SrqlError::new(
                "bad_operand",
                literal.span,
                format!("{:?} is no {wanted}; {} is {}", text, target.field, target.kind.name()),
            ))
        };
        let apply = |left: Df, right: Df| match op {
            Op::Less => left.lt(right),
            Op::LessEq => left.lt_eq(right),
            Op::Greater => left.gt(right),
            Op::GreaterEq => left.gt_eq(right),
            Op::Eq => left.eq(right),
            Op::NotEq => left.not_eq(right),
        };
        let compared = match target.kind {
            Kind::Number => match number(&text) {
                Some(n) => apply(cast(target.expr.clone(), DataType::Float64), lit(n)),
                None => return wrong("number"),
            },
            Kind::Text if target.column.is_none() => match number(&text) {
                // On a map's values the comparison holds where the value is a number.
                Some(n) => apply(datafusion::logical_expr::try_cast(target.expr.clone(), DataType::Float64), lit(n)),
                None => return wrong("number"),
            },
            Kind::Ip => match ip_range(&text) {
                Some((low, high)) => {
                    let bound = if matches!(op, Op::Greater | Op::LessEq) { high } else { low };
                    apply(self.ip_bytes(target), bytes(bound))
                }
                None => return wrong("address"),
            },
            Kind::Time => match time::instant(&text, self.zone, self.now_us) {
                // A date is its whole day: after it, from its end on.
                Some(Range { from: Some(from), to: Some(to) }) => match op {
                    Op::Greater => target.expr.clone().gt_eq(timestamp(to)),
                    Op::LessEq => target.expr.clone().lt(timestamp(to)),
                    _ => apply(target.expr.clone(), timestamp(from)),
                },
                _ => return wrong("instant or date"),
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
}

/// Whether a range of a field's values is one: of numbers, times and addresses, and of numbers below a map.
fn ordered(target: &Target, from: Option<&Literal>, to: Option<&Literal>) -> bool {
    match target.kind {
        Kind::Number | Kind::Time | Kind::Ip => true,
        Kind::List => target.field.ends_with("ip_addresses"),
        Kind::Text if target.column.is_none() => from.into_iter().chain(to).all(|l| number(&plain(&l.text)).is_some()),
        _ => false,
    }
}

/// What was read as a range, as the text that it is.
fn dotted(from: Option<&Literal>, to: Option<&Literal>) -> Literal {
    let text = |side: Option<&Literal>| side.map_or("", |l| l.text.as_str()).to_owned();
    let any = |is: fn(&Literal) -> bool| from.into_iter().chain(to).any(is);
    Literal {
        text: format!("{}..{}", text(from), text(to)),
        quoted: any(|l| l.quoted),
        verbatim: any(|l| l.verbatim),
        span: (
            from.map_or_else(|| to.map_or(0, |l| l.span.0 - 2), |l| l.span.0),
            to.map_or_else(|| from.map_or(0, |l| l.span.1 + 2), |l| l.span.1),
        ),
    }
}

/// The value that an item of a list must equal, where there is no more to it.
fn same(target: &Target, item: &Value) -> Option<Df> {
    let Value::Is(literal) = item else { return None };
    let text = plain(&literal.text);
    if text.is_empty() || has_wildcard(literal) {
        return None;
    }
    match target.kind {
        Kind::Text => Some(lit(text)),
        Kind::Mac => Some(lit(text.replace([':', '-', '.'], "").to_ascii_uppercase())),
        Kind::Ip => ip_range(&text).filter(|(low, high)| low == high).map(|(ip, _)| lit(ip.to_string())),
        Kind::Number => number(&text).map(lit),
        Kind::List if !target.field.ends_with("_addresses") => Some(lit(text)),
        _ => None,
    }
}

/// Many conditions as one, no deeper than it must be: plans are walked by recursion.
fn balanced(mut all: Vec<Df>, together: fn(Df, Df) -> Df) -> Option<Df> {
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

/// A number, with `k M G T P` and `Ki Mi Gi Ti Pi`.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(n) = text.parse::<f64>() {
        return n.is_finite().then_some(n);
    }
    let (digits, binary) = match text.strip_suffix('i') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let unit = digits.chars().last()?;
    let power = match unit {
        'k' | 'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        'P' => 5,
        _ => return None,
    };
    let n: f64 = digits[..digits.len() - 1].parse().ok()?;
    Some(n * if binary { 1024f64 } else { 1000f64 }.powi(power))
}

/// An address, a network or a range `A-B`: its first and last address.
fn ip_range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((a, b)) = text.split_once('-') {
        return Some((a.trim().parse().ok()?, b.trim().parse().ok()?));
    }
    if text.contains('/') {
        let net: ipnet::IpNet = text.parse().ok()?;
        return Some((net.network(), net.broadcast()));
    }
    let ip: IpAddr = text.parse().ok()?;
    Some((ip.to_canonical(), ip.to_canonical()))
}

fn bytes(ip: IpAddr) -> Df {
    lit(ScalarValue::Binary(Some(IpBytes::from(ip).0.to_vec())))
}

fn each(literal: &Literal, mut ordinary: impl FnMut(char), mut wildcard: impl FnMut(char)) {
    let mut chars = literal.text.chars();
    while let Some(c) = chars.next() {
        match c {
            ORDINARY => {
                if let Some(c) = chars.next() {
                    ordinary(c);
                }
            }
            '%' if !literal.verbatim => wildcard('%'),
            '*' if !literal.quoted => wildcard('%'),
            '?' if !literal.quoted => wildcard('?'),
            c => ordinary(c),
        }
    }
}

fn has_wildcard(literal: &Literal) -> bool {
    let mut any = false;
    each(literal, |_| {}, |_| any = true);
    any
}

/// The literal as a LIKE pattern.
fn like(literal: &Literal) -> String {
    let out = std::cell::RefCell::new(String::new());
    each(
        literal,
        |c| {
            let mut out = out.borrow_mut();
            if matches!(c, '%' | '_' | '\\') {
                out.push('\\');
            }
            out.push(c);
        },
        |w| out.borrow_mut().push(if w == '%' { '%' } else { '_' }),
    );
    out.into_inner()
}

/// The literal as a regular expression over the whole text.
fn wildcard_regex(literal: &Literal) -> String {
    let out = std::cell::RefCell::new("(?is)^".to_owned());
    each(
        literal,
        |c| out.borrow_mut().push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        |w| out.borrow_mut().push_str(if w == '%' { ".*" } else { "." }),
    );
    out.borrow_mut().push('$');
    out.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(number("1.5Mi"), Some(1_572_864.0));
        assert_eq!(number("2k"), Some(2000.0));
        assert_eq!(number("x"), None);
        let (a, b) = ip_range("10.1.2.3/8").unwrap();
        assert_eq!((a.to_string(), b.to_string()), ("10.0.0.0".into(), "10.255.255.255".into()));
        assert!(ip_range("10.0.0.1-10.0.0.9").is_some() && ip_range("10.0.0").is_none());
    }
}
