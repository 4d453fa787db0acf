//! What an expression computes of a row. What is missing spreads, as SQL has it.

use std::cmp::Ordering;
use std::rc::Rc;

use regex::RegexBuilder;

use crate::postgres::catalog::node::{Binary, Node};
use crate::postgres::catalog::run::{Frame, Run};
use crate::postgres::catalog::value::{Value, boolean, told};
use crate::postgres::kinds::{self, *};
use crate::postgres::refusal::{self, Refusal};

/// Largest compiled pattern, bytes.
const MAX_PATTERN: usize = 256 << 10;

impl Run<'_> {
    /// The value of an expression.
    #[recursive::recursive]
    pub(crate) fn value(&self, node: &Node, frame: &Frame<'_>) -> Result<Value, Refusal> {
        self.step()?;
        let of = |node: &Node| self.value(node, frame);
        Ok(match node {
            Node::Constant(value) => value.clone(),
            Node::Column { up, at } => {
                let mut frame = frame;
                for _ in 0..*up {
                    let Some(parent) = frame.parent else { return Ok(Value::Null) };
                    frame = parent;
                }
                frame.row.get(*at).cloned().unwrap_or(Value::Null)
            }
            Node::Call(function, args) => {
                let args = args.iter().map(of).collect::<Result<Vec<_>, _>>()?;
                let value = function.of(self, &args)?;
                self.make(value.bytes())?;
                value
            }
            Node::Binary(how, pair) => self.binary(*how, &of(&pair[0])?, &of(&pair[1])?)?,
            Node::And(pair) => match of(&pair[0])? {
                value if !value.is_null() && !value.holds() => false.into(),
                first => match of(&pair[1])? {
                    value if !value.is_null() && !value.holds() => false.into(),
                    second if first.is_null() || second.is_null() => Value::Null,
                    _ => true.into(),
                },
            },
            Node::Or(pair) => match of(&pair[0])? {
                value if value.holds() => true.into(),
                first => match of(&pair[1])? {
                    value if value.holds() => true.into(),
                    second if first.is_null() || second.is_null() => Value::Null,
                    _ => false.into(),
                },
            },
            Node::Not(inner) => match of(inner)? {
                Value::Null => Value::Null,
                value => (!value.holds()).into(),
            },
            Node::Negative(inner) => match of(inner)? {
                Value::Whole(n) => Value::Whole(n.saturating_neg()),
                Value::Real(x) => Value::Real(-x),
                _ => Value::Null,
            },
            Node::IsMissing(inner) => of(inner)?.is_null().into(),
            Node::Is(wanted, inner) => {
                let value = of(inner)?;
                (!value.is_null() && value.holds() == *wanted).into()
            }
            Node::Distinct(pair) => {
                let (a, b) = (of(&pair[0])?, of(&pair[1])?);
                a.compare(&b).map_or(a.is_null() != b.is_null(), Ordering::is_ne).into()
            }
            Node::Case(operand, pairs, otherwise) => {
                let operand = operand.as_ref().map(|operand| of(operand)).transpose()?;
                for (when, then) in pairs {
                    let when = of(when)?;
                    let fits = match &operand {
                        Some(operand) => operand.compare(&when).is_some_and(Ordering::is_eq),
                        None => when.holds(),
                    };
                    if fits {
                        return of(then);
                    }
                }
                return otherwise.as_ref().map_or(Ok(Value::Null), |otherwise| of(otherwise));
            }
            Node::Cast { node, from, to } => self.cast(of(node)?, *from, *to)?,
            Node::Any { value, compares, list, each } => self.any(&of(value)?, *compares, &of(list)?, *each)?,
            Node::List(items) => {
                self.make(items.len() * size_of::<Value>())?;
                Value::list(items.iter().map(of).collect::<Result<Vec<_>, _>>()?)
            }
            Node::Record(items) => Value::Record(items.iter().map(of).collect::<Result<_, _>>()?),
            Node::Item(pair) => {
                let (list, at) = (of(&pair[0])?.items(), of(&pair[1])?.whole());
                let at = at.and_then(|at| usize::try_from(at).ok()).and_then(|at| at.checked_sub(1));
                list.zip(at).and_then(|(list, at)| list.get(at).cloned()).unwrap_or(Value::Null)
            }
            Node::Field(record, at) => match of(record)? {
                Value::Record(fields) => fields.get(*at).cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            },
            Node::Exists(sub) => (!self.subquery(sub, frame)?.is_empty()).into(),
            Node::One(sub) => {
                let rows = self.subquery(sub, frame)?;
                match &rows[..] {
                    [] => Value::Null,
                    [row] => row.first().cloned().unwrap_or(Value::Null),
                    _ => {
                        let detail = "more than one row returned by a subquery used as an expression";
                        return Err(Refusal::new(refusal::MANY_ROWS, detail));
                    }
                }
            }
            Node::All(sub) => {
                let rows = self.subquery(sub, frame)?;
                self.make(rows.len() * size_of::<Value>())?;
                Value::list(rows.iter().map(|row| match &row[..] {
                    [one] => one.clone(),
                    row => Value::Record(row.into()),
                }))
            }
        })
    }

    fn any(&self, value: &Value, how: Binary, list: &Value, each: bool) -> Result<Value, Refusal> {
        let Some(items) = list.items() else { return Ok(Value::Null) };
        let mut missing = false;
        for item in items.iter() {
            self.step()?;
            match self.binary(how, value, item)? {
                Value::Null => missing = true,
                compared if compared.holds() != each => return Ok((!each).into()),
                _ => {}
            }
        }
        Ok(if missing { Value::Null } else { each.into() })
    }

    fn binary(&self, how: Binary, a: &Value, b: &Value) -> Result<Value, Refusal> {
        let compared = |fits: fn(Ordering) -> bool| Value::from(a.compare(b).map(fits));
        if a.is_null() || b.is_null() {
            return Ok(match (how, a, b) {
                (Binary::Join, Value::List(_), Value::Null) => a.clone(),
                (Binary::Join, Value::Null, Value::List(_)) => b.clone(),
                _ => Value::Null,
            });
        }
        Ok(match how {
            Binary::Equal => compared(Ordering::is_eq),
            Binary::Unequal => compared(Ordering::is_ne),
            Binary::Less => compared(Ordering::is_lt),
            Binary::LessOrEqual => compared(Ordering::is_le),
            Binary::Greater => compared(Ordering::is_gt),
            Binary::GreaterOrEqual => compared(Ordering::is_ge),
            Binary::Join => match (a, b) {
                (Value::List(a), Value::List(b)) => {
                    self.make((a.len() + b.len()) * size_of::<Value>())?;
                    Value::list(a.iter().chain(b.iter()).cloned())
                }
                (Value::List(a), b) => Value::list(a.iter().chain([b]).cloned()),
                (a, Value::List(b)) => Value::list([a].into_iter().chain(b.iter()).cloned()),
                (a, b) => {
                    let (a, b) = (a.text(), b.text());
                    self.make(a.len() + b.len())?;
                    format!("{a}{b}").into()
                }
            },
            Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
                computed(how, a, b)?
            }
            Binary::BothBits => a.whole().zip(b.whole()).map(|(a, b)| a & b).into(),
            Binary::EitherBit => a.whole().zip(b.whole()).map(|(a, b)| a | b).into(),
            Binary::Matches { regardless } => self.matches(a, b.text().to_string(), regardless)?.into(),
            Binary::MatchesNot { regardless } => (!self.matches(a, b.text().to_string(), regardless)?).into(),
            Binary::Like { regardless, escape } => self.matches(a, like(&b.text(), escape), regardless)?.into(),
            Binary::LikeNot { regardless, escape } => (!self.matches(a, like(&b.text(), escape), regardless)?).into(),
        })
    }

    fn matches(&self, text: &Value, pattern: String, regardless: bool) -> Result<bool, Refusal> {
        let known = self.patterns.borrow().get(&(pattern.clone(), regardless)).cloned();
        let compiled = match known {
            Some(compiled) => compiled,
            None => {
                let built = RegexBuilder::new(&pattern).case_insensitive(regardless).size_limit(MAX_PATTERN).build();
                let wrong = |_| Refusal::new("2201B", format!("invalid regular expression: {pattern}"));
                let compiled = Rc::new(built.map_err(wrong)?);
                let mut patterns = self.patterns.borrow_mut();
                // Patterns that are computed of rows are many.
                if patterns.len() == 64 {
                    patterns.clear();
                }
                patterns.insert((pattern, regardless), compiled.clone());
                compiled
            }
        };
        Ok(compiled.is_match(&text.text()))
    }

    fn cast(&self, value: Value, from: Oid, to: Oid) -> Result<Value, Refusal> {
        if value.is_null() {
            return Ok(value);
        }
        let wrong = |text: &str| {
            let name = kinds::kind(to).map_or("?", |kind| kind.sql);
            Refusal::new(refusal::BAD_TEXT, format!("invalid input syntax for type {name}: \"{text}\""))
        };
        let text = || told(&value, from, |kind, oid| self.catalog.name(kind, oid));
        Ok(match to {
            kind if is_reference(kind) => match &value {
                Value::Text(name) if name.parse::<u32>().is_err() && &**name != "-" => {
                    let found = self.catalog.numbered(kind, name);
                    let what = match kind {
                        REGCLASS => ("relation", refusal::NO_TABLE),
                        REGTYPE => ("type", refusal::NO_SETTING),
                        REGNAMESPACE => ("schema", "3F000"),
                        REGROLE => ("role", refusal::NO_SETTING),
                        _ => ("function", refusal::NO_FUNCTION),
                    };
                    let detail = || Refusal::new(what.1, format!("{} \"{name}\" does not exist", what.0));
                    found.ok_or_else(detail)?.into()
                }
                value => value.whole().unwrap_or_default().into(),
            },
            kind if is_whole(kind) => match &value {
                Value::Whole(_) => value,
                other => other.whole().ok_or_else(|| wrong(&other.text()))?.into(),
            },
            BOOL => match &value {
                Value::Text(text) => boolean(text).ok_or_else(|| wrong(text))?.into(),
                Value::Whole(n) => (*n != 0).into(),
                _ => value,
            },
            FLOAT4 | FLOAT8 => Value::Real(value.real().ok_or_else(|| wrong(&value.text()))?),
            NUMERIC => match &value {
                Value::Whole(_) | Value::Real(_) => value,
                other => Value::Real(other.real().ok_or_else(|| wrong(&other.text()))?),
            },
            kind if is_text(kind) && from != BOOL => text().into(),
            kind if is_text(kind) => Value::Text(value.text()),
            kind if kinds::element_of(kind) != kind => {
                let items = value.items().ok_or_else(|| wrong(&value.text()))?;
                let (from, to) = (kinds::element_of(from), kinds::element_of(kind));
                Value::list(items.iter().map(|item| self.cast(item.clone(), from, to)).collect::<Result<Vec<_>, _>>()?)
            }
            _ => value,
        })
    }
}

fn computed(how: Binary, a: &Value, b: &Value) -> Result<Value, Refusal> {
    let whole = match (a, b) {
        (Value::Real(_), _) | (_, Value::Real(_)) => None,
        (a, b) => a.whole().zip(b.whole()),
    };
    let beyond = || Refusal::new("22003", "the number is out of range");
    let Some((a, b)) = whole else {
        let (Some(a), Some(b)) = (a.real(), b.real()) else {
            return Err(Refusal::new(refusal::BAD_TYPE, "only numbers can be computed with"));
        };
        return Ok(Value::Real(match how {
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => a / b,
            _ => a % b,
        }));
    };
    if b == 0 && matches!(how, Binary::Divide | Binary::Remainder) {
        return Err(Refusal::new("22012", "division by zero"));
    }
    let value = match how {
        Binary::Add => a.checked_add(b),
        Binary::Subtract => a.checked_sub(b),
        Binary::Multiply => a.checked_mul(b),
        Binary::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    value.map(Value::Whole).ok_or_else(beyond)
}

/// A pattern of `LIKE` as a regular expression.
fn like(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("(?s)^");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            c if Some(c) == escape => chars.next(),
            '%' => {
                out.push_str(".*");
                continue;
            }
            '_' => {
                out.push('.');
                continue;
            }
            c => Some(c),
        };
        let mut buffer = [0; 4];
        out.push_str(&regex::escape(literal.unwrap_or('\\').encode_utf8(&mut buffer)));
    }
    out.push('$');
    out
}
