//! The condition on what was counted of a group. A comparison with a missing value is false.
//!
//! Beside its keys and measures a rule may ask, of each measure `m`, for `m_expected` (what is usual at this hour of the week),
//! `m_deviation` (how many standard deviations it is above that, or below it where negative) and `m_in_4h` (where it leads in
//! four hours, if it goes on as in the last four).

use radarflow_language::ast::{Aggregate, Having, Op, Operand, Span};
use radarflow_language::catalog::nearest;
use radarflow_language::error::SrqlError;
use radarflow_language::literals::{Number, number};
use radarflow_language::matching::holds;
use radarflow_language::time::duration;

use super::measure::Value;

/// The nearest that is forecast, milliseconds: samples are a minute apart.
const LEAST_AHEAD_MS: i64 = 600_000;

/// A column that a condition asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// A key, by its place.
    Key(usize),
    /// A measure, by its place.
    Measure(usize),
    /// What is usual of a measure.
    Expected(usize),
    /// How far a measure is from that, in standard deviations.
    Deviation(usize),
    /// Where a measure leads in so many milliseconds.
    Forecast(usize, i64),
}

#[derive(Clone, Debug)]
enum Side {
    Column(Column),
    /// A number, and as it was written.
    Number(Number, String),
    Text(String),
    Null,
}

/// A condition over groups.
#[derive(Clone, Debug)]
pub struct Condition(Node);

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Compare(Side, Op, Side),
}

/// What groups have.
pub struct Columns<'a> {
    /// Keys, by name.
    pub keys: &'a [String],
    /// Measures, as they are called by.
    pub calls: &'a [Aggregate],
    /// Whether what is usual and where it leads are known.
    pub events: bool,
}

impl Columns<'_> {
    fn find(&self, word: &str) -> Option<Column> {
        let measure = |name: &str| self.calls.iter().position(|call| call.alias.eq_ignore_ascii_case(name));
        if let Some(at) = measure(word) {
            return Some(Column::Measure(at));
        }
        if let Some(at) = self.keys.iter().position(|key| key.eq_ignore_ascii_case(word)) {
            return Some(Column::Key(at));
        }
        let lower = word.to_ascii_lowercase();
        let (name, what) = lower.rsplit_once('_').filter(|_| self.events)?;
        match what {
            "expected" => measure(name).map(Column::Expected),
            "deviation" => measure(name).map(Column::Deviation),
            span => {
                let measure = name.strip_suffix("_in").and_then(measure)?;
                Some(Column::Forecast(measure, duration(span)? / 1000))
            }
        }
    }

    fn side(&self, operand: &Operand, span: Span) -> Result<Side, SrqlError> {
        match operand {
            Operand::Call(call) => {
                let at = self.calls.iter().position(|known| known.is_like(call));
                at.map(|at| Side::Column(Column::Measure(at))).ok_or_else(|| {
                    SrqlError::new("unknown_column", span, format!("{} is not computed of these groups", call.alias))
                })
            }
            Operand::Text(text) => Ok(Side::Text(text.clone())),
            Operand::Word(word) => Ok(match (self.find(word), number(word)) {
                (Some(column), _) => Side::Column(column),
                (None, Some(n)) => Side::Number(n, word.clone()),
                (None, None) if word.eq_ignore_ascii_case("null") => Side::Null,
                (None, None) => Side::Text(word.clone()),
            }),
        }
    }

    fn node(&self, having: &Having) -> Result<Node, SrqlError> {
        Ok(match having {
            Having::And(all) => Node::All(all.iter().map(|h| self.node(h)).collect::<Result<_, _>>()?),
            Having::Or(any) => Node::Any(any.iter().map(|h| self.node(h)).collect::<Result<_, _>>()?),
            Having::Not(inner) => Node::Not(Box::new(self.node(inner)?)),
            Having::Compare(left, op, right, span) => {
                let (a, b) = (self.side(left, *span)?, self.side(right, *span)?);
                if !matches!(a, Side::Column(_)) && !matches!(b, Side::Column(_)) {
                    let said = [left, right].into_iter().find_map(|side| match side {
                        Operand::Word(word) if number(word).is_none() => Some(word.as_str()),
                        _ => None,
                    });
                    let name = said.unwrap_or("");
                    let known = self.keys.iter().map(String::as_str).chain(self.calls.iter().map(|c| c.alias.as_str()));
                    let error = SrqlError::new("unknown_column", *span, format!("the groups have no column {name:?}"));
                    return Err(error.suggest(nearest(name, known)));
                }
                let counted = |side: &Side| match side {
                    Side::Column(Column::Measure(at)) => {
                        !matches!(self.calls[*at].function.as_str(), "first" | "last" | "min" | "max")
                    }
                    Side::Column(Column::Expected(_) | Column::Deviation(_) | Column::Forecast(..)) => true,
                    _ => false,
                };
                for (number, text) in [(&a, &b), (&b, &a)] {
                    if let (true, Side::Text(text)) = (counted(number), text) {
                        return Err(SrqlError::new("bad_number", *span, format!("{text:?} is no number")));
                    }
                    if let Side::Column(Column::Forecast(_, ahead)) = number
                        && *ahead < LEAST_AHEAD_MS
                    {
                        let detail = "where a measure leads is known from ten minutes on: m_in_10m";
                        return Err(SrqlError::new("bad_duration", *span, detail));
                    }
                }
                let null = matches!(a, Side::Null) || matches!(b, Side::Null);
                if null && !matches!(op, Op::Eq | Op::NotEq) {
                    let detail = "what is missing has no order; as n=null or n!=null";
                    return Err(SrqlError::new("bad_operand", *span, detail));
                }
                Node::Compare(a, *op, b)
            }
        })
    }
}

impl Condition {
    /// A condition on groups.
    ///
    /// # Errors
    /// It speaks of what groups have not.
    pub fn of(having: &Having, columns: &Columns<'_>) -> Result<Self, SrqlError> {
        columns.node(having).map(Condition)
    }

    /// Every column that it asks.
    pub fn columns(&self) -> Vec<Column> {
        fn of(node: &Node, into: &mut Vec<Column>) {
            match node {
                Node::All(all) | Node::Any(all) => all.iter().for_each(|n| of(n, into)),
                Node::Not(inner) => of(inner, into),
                Node::Compare(a, _, b) => {
                    into.extend([a, b].into_iter().filter_map(|side| match side {
                        Side::Column(column) => Some(*column),
                        _ => None,
                    }));
                }
            }
        }
        let mut columns = Vec::new();
        of(&self.0, &mut columns);
        columns
    }

    /// The first comparison of a measure with a number: the measure, how, and the number. What alerts show as the threshold.
    pub fn threshold(&self) -> Option<(usize, Op, Number)> {
        fn of(node: &Node) -> Option<(usize, Op, Number)> {
            match node {
                Node::All(all) | Node::Any(all) => all.iter().find_map(of),
                Node::Not(_) => None,
                Node::Compare(Side::Column(Column::Measure(at)), op, Side::Number(n, _)) => Some((*at, *op, *n)),
                Node::Compare(Side::Number(n, _), op, Side::Column(Column::Measure(at))) => {
                    Some((*at, flipped(*op), *n))
                }
                Node::Compare(..) => None,
            }
        }
        of(&self.0)
    }

    /// Whether more of the measures that `grow` can only make it hold: it compares nothing else, and only from below.
    pub fn rises(&self, grow: &dyn Fn(usize) -> bool) -> bool {
        fn of(node: &Node, grow: &dyn Fn(usize) -> bool) -> bool {
            match node {
                Node::All(all) | Node::Any(all) => all.iter().all(|n| of(n, grow)),
                Node::Compare(Side::Column(Column::Measure(at)), Op::Greater | Op::GreaterEq, Side::Number(n, _)) => {
                    grow(*at) && n.real() > 0.0
                }
                Node::Compare(Side::Number(n, _), Op::Less | Op::LessEq, Side::Column(Column::Measure(at))) => {
                    grow(*at) && n.real() > 0.0
                }
                Node::Compare(..) | Node::Not(_) => false,
            }
        }
        of(&self.0, grow)
    }

    /// Whether less of the measures that `count` may make it hold.
    pub fn falls(&self, count: &dyn Fn(usize) -> bool) -> bool {
        fn of(node: &Node, count: &dyn Fn(usize) -> bool) -> bool {
            let counts = |side: &Side| matches!(side, Side::Column(Column::Measure(at)) if count(*at));
            match node {
                Node::All(all) | Node::Any(all) => all.iter().any(|n| of(n, count)),
                Node::Not(inner) => asks(inner, count),
                Node::Compare(Side::Column(Column::Measure(at)), Op::Greater | Op::GreaterEq, Side::Number(n, _)) => {
                    count(*at) && n.real() <= 0.0
                }
                Node::Compare(Side::Number(n, _), Op::Less | Op::LessEq, Side::Column(Column::Measure(at))) => {
                    count(*at) && n.real() <= 0.0
                }
                Node::Compare(a, _, b) => counts(a) || counts(b) || past(a) || past(b),
            }
        }
        /// Whether it asks any of them.
        fn asks(node: &Node, count: &dyn Fn(usize) -> bool) -> bool {
            match node {
                Node::All(all) | Node::Any(all) => all.iter().any(|n| asks(n, count)),
                Node::Not(inner) => asks(inner, count),
                Node::Compare(a, _, b) => [a, b]
                    .into_iter()
                    .any(|side| past(side) || matches!(side, Side::Column(Column::Measure(at)) if count(*at))),
            }
        }
        /// Whether it asks of the past.
        fn past(side: &Side) -> bool {
            matches!(side, Side::Column(Column::Expected(_) | Column::Deviation(_) | Column::Forecast(..)))
        }
        of(&self.0, count)
    }

    /// Whether it holds where columns have these values.
    pub fn holds(&self, of: &dyn Fn(Column) -> Value) -> bool {
        self.0.holds(of)
    }
}

impl Node {
    fn holds(&self, of: &dyn Fn(Column) -> Value) -> bool {
        match self {
            Node::All(all) => all.iter().all(|n| n.holds(of)),
            Node::Any(any) => any.iter().any(|n| n.holds(of)),
            Node::Not(inner) => !inner.holds(of),
            Node::Compare(left, op, right) => {
                let value = |side: &Side| match side {
                    Side::Column(column) => of(*column),
                    Side::Number(n, _) => Value::Number(*n),
                    Side::Text(text) => Value::Text(text.clone()),
                    Side::Null => Value::Missing,
                };
                let (a, b) = (value(left), value(right));
                if matches!(left, Side::Null) || matches!(right, Side::Null) {
                    return (a == Value::Missing && b == Value::Missing) == (*op == Op::Eq);
                }
                // Beside a text a number is what was written.
                let text = |side: &Side, value: &Value| match side {
                    Side::Number(_, written) => written.clone(),
                    _ => value.shown(),
                };
                match (&a, &b) {
                    (Value::Missing, _) | (_, Value::Missing) => false,
                    (Value::Number(a), Value::Number(b)) => holds(*op, a.order(*b)),
                    (a, b) => holds(*op, text(left, a).cmp(&text(right, b))),
                }
            }
        }
    }
}

fn flipped(op: Op) -> Op {
    match op {
        Op::Less => Op::Greater,
        Op::LessEq => Op::GreaterEq,
        Op::Greater => Op::Less,
        Op::GreaterEq => Op::LessEq,
        same => same,
    }
}
