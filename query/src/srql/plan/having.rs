//! `having:`: conditions on groups. Either side is a column, an aggregate that need not be shown, or a value; a comparison
//! with a missing value is false.

use arrow_schema::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr as Df, cast, ident, lit, try_cast};
use radarflow_language::literals::{Number, number};

use super::super::ast::{Aggregate, GroupKey, Having, Key, Op, Operand, Query, Span};
use super::filter::balanced;
use super::operands::{self, apply};
use super::{Result, entities};
use crate::error::SrqlError;
use crate::tables::catalog::{self, Kind};
use crate::tables::codes;

/// Aggregates that a condition compares and the query does not show.
pub(super) fn hidden(query: &Query) -> Vec<Aggregate> {
    fn calls<'h>(having: &'h Having, into: &mut Vec<&'h Aggregate>) {
        match having {
            Having::And(all) | Having::Or(all) => all.iter().for_each(|h| calls(h, into)),
            Having::Not(inner) => calls(inner, into),
            Having::Compare(left, _, right, _) => {
                for side in [left, right] {
                    if let Operand::Call(call) = side {
                        into.push(call);
                    }
                }
            }
        }
    }
    let mut all = Vec::new();
    query.having.iter().for_each(|having| calls(having, &mut all));
    let mut hidden: Vec<Aggregate> = Vec::new();
    for call in all {
        if !query.stats.iter().chain(&hidden).any(|known| known.is_like(call)) {
            hidden.push(Aggregate { alias: format!("__having{}", hidden.len()), ..call.clone() });
        }
    }
    hidden
}

/// The column of groups that a name means: as it is called, or the key of that field.
pub(super) fn column_of<'c>(query: &Query, name: &str, columns: &'c [String]) -> Option<&'c String> {
    let called = columns.iter().find(|c| c.eq_ignore_ascii_case(name));
    let called = called.or_else(|| columns.iter().find(|c| c.replace('.', "_").eq_ignore_ascii_case(name)));
    called.or_else(|| {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        let wanted = field_of(query, &path)?;
        query.by.iter().find_map(|key| match key {
            GroupKey::Field(key, name) | GroupKey::Cidr(key, _, name) | GroupKey::Each(key, name)
                if field_of(query, &key.path)? == wanted =>
            {
                columns.iter().find(|c| *c == name)
            }
            _ => None,
        })
    })
}

/// The field that a path leads to, and the key in it.
fn field_of(query: &Query, path: &[String]) -> Option<(&'static str, Vec<String>)> {
    let found = entities(query).ok()?.into_iter().find_map(|entity| entity.locate(path));
    found.map(|(field, named)| (field.name, path[named..].to_vec()))
}

/// Whether a column of groups holds addresses, or networks.
pub(super) fn holds_addresses(query: &Query, column: &str) -> bool {
    let is = |key: &Key| {
        let entities = entities(query).unwrap_or_default();
        let fields = entities.iter().filter_map(|entity| entity.locate(&key.path));
        fields.into_iter().any(|(field, _)| field.kind == Kind::Ip || field.name.ends_with("ip_addresses"))
    };
    query.by.iter().any(|group| group.name() == column && group.key().is_some_and(is))
}

/// Whether rows have such a field.
pub(super) fn is_field(query: &Query, key: &Key) -> bool {
    field_of(query, &key.path).is_some()
}

/// The error for a column that groups have not.
pub(super) fn unknown_column(query: &Query, name: &str, span: Span, columns: &[String]) -> SrqlError {
    let of_field = query
        .stats
        .iter()
        .find(|call| call.field.as_ref().is_some_and(|field| field.path.join(".").eq_ignore_ascii_case(name)));
    let nearest = catalog::nearest(name, columns.iter().map(String::as_str).filter(|c| !c.starts_with("__")));
    let near = of_field.map(|call| call.alias.as_str()).or(nearest);
    SrqlError::new("unknown_column", span, format!("the groups have no column {name:?}")).suggest(near)
}

/// A side of a comparison.
enum Side {
    Column(String, DataType),
    Number(Number, String),
    Bool(bool),
    Text(String),
    Null,
}

/// A condition as an expression over groups.
pub(super) struct Condition<'a> {
    pub(super) query: &'a Query,
    pub(super) hidden: &'a [Aggregate],
    pub(super) schema: &'a DFSchema,
}

impl Condition<'_> {
    pub(super) fn of(&self, having: &Having) -> Result<Df> {
        Ok(match having {
            Having::And(all) => {
                let all = all.iter().map(|h| self.of(h)).collect::<Result<Vec<_>>>()?;
                balanced(all, Df::and).unwrap_or_else(|| lit(true))
            }
            Having::Or(any) => {
                let any = any.iter().map(|h| self.of(h)).collect::<Result<Vec<_>>>()?;
                balanced(any, Df::or).unwrap_or_else(|| lit(false))
            }
            Having::Not(inner) => Df::Not(Box::new(self.of(inner)?)),
            Having::Compare(left, op, right, span) => {
                let compared = match (self.side(left, *span)?, self.side(right, *span)?) {
                    (Side::Column(a, a_type), Side::Column(b, b_type)) => columns(&a, &a_type, *op, &b, &b_type),
                    (Side::Column(column, data_type), value) => {
                        self.compare(&column, &data_type, *op, &value, *span)?
                    }
                    (value, Side::Column(column, data_type)) => {
                        self.compare(&column, &data_type, flipped(*op), &value, *span)?
                    }
                    _ => {
                        let said = [left, right].into_iter().find_map(|side| match side {
                            Operand::Word(word) if number(word).is_none() => Some(word.as_str()),
                            _ => None,
                        });
                        return Err(unknown_column(self.query, said.unwrap_or(""), *span, &self.columns()));
                    }
                };
                compared.is_true()
            }
        })
    }

    fn columns(&self) -> Vec<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).filter(|name| !name.starts_with("__")).collect()
    }

    fn side(&self, operand: &Operand, span: Span) -> Result<Side> {
        let column = |name: &str| {
            let field = self.schema.fields().iter().find(|f| f.name() == name);
            field.map(|f| Side::Column(f.name().clone(), f.data_type().clone()))
        };
        match operand {
            Operand::Call(call) => {
                let known = self.query.stats.iter().chain(self.hidden).find(|known| known.is_like(call));
                known.and_then(|known| column(&known.alias)).ok_or_else(|| {
                    SrqlError::new("unknown_column", span, format!("{} is not computed of these groups", call.alias))
                })
            }
            Operand::Text(text) => Ok(Side::Text(text.clone())),
            Operand::Word(word) => {
                if let Some(side) = column_of(self.query, word, &self.columns()).and_then(|name| column(name)) {
                    return Ok(side);
                }
                Ok(match (word.to_ascii_lowercase().as_str(), number(word)) {
                    ("null", _) => Side::Null,
                    ("true", _) => Side::Bool(true),
                    ("false", _) => Side::Bool(false),
                    (_, Some(n)) => Side::Number(n, word.clone()),
                    (_, None) => Side::Text(word.clone()),
                })
            }
        }
    }

    fn compare(&self, column: &str, data_type: &DataType, op: Op, value: &Side, span: Span) -> Result<Df> {
        let left = ident(column);
        let text = |left: Df, text: &str| apply(cast(left, DataType::Utf8), op, lit(text));
        let is_equality = matches!(op, Op::Eq | Op::NotEq);
        // What the key is of: its codes may be said.
        let field = self.query.by.iter().find_map(|key| match key {
            GroupKey::Field(key, name) if name == column => field_of(self.query, &key.path),
            _ => None,
        });
        let field = field.filter(|(_, rest)| rest.is_empty()).map_or("", |(field, _)| field);
        let labelled = |left: Df, said: &str| {
            let labels = codes::labels_of(field, said).filter(|_| is_equality)?;
            Some(left.in_list(labels.into_iter().map(lit).collect(), op == Op::NotEq))
        };
        Ok(match value {
            Side::Null if is_equality => {
                if op == Op::Eq {
                    left.is_null()
                } else {
                    left.is_not_null()
                }
            }
            Side::Null => {
                let detail = "what is missing has no order; as n=null or n!=null";
                return Err(SrqlError::new("bad_operand", span, detail));
            }
            Side::Bool(is) if *data_type == DataType::Boolean => apply(left, op, lit(*is)),
            Side::Bool(is) => text(left, if *is { "true" } else { "false" }),
            Side::Number(n, _) if data_type.is_numeric() => operands::compare(left, data_type, op, *n),
            Side::Number(_, said) if is_equality => labelled(left.clone(), said).unwrap_or_else(|| text(left, said)),
            Side::Number(n, _) => apply(try_cast(left, DataType::Float64), op, lit(n.real())),
            Side::Text(said) => {
                if data_type.is_numeric() {
                    let these = codes::of(field).map(|codes| codes.numbers(said)).unwrap_or_default();
                    return match these[..] {
                        [] => Err(SrqlError::new("bad_number", span, format!("{said:?} is no number"))),
                        [n] => Ok(apply(left, op, lit(n))),
                        _ if is_equality => Ok(left.in_list(these.into_iter().map(lit).collect(), op == Op::NotEq)),
                        _ => Err(SrqlError::new("bad_operand", span, format!("{said:?} is several numbers"))),
                    };
                }
                labelled(left.clone(), said).unwrap_or_else(|| text(left, said))
            }
            Side::Column(..) => lit(false),
        })
    }
}

/// Compares two columns: as what they are where both are alike, else as text.
fn columns(a: &str, a_type: &DataType, op: Op, b: &str, b_type: &DataType) -> Df {
    let (left, right) = (ident(a), ident(b));
    if a_type == b_type || (a_type.is_numeric() && b_type.is_numeric()) {
        return apply(left, op, right);
    }
    apply(cast(left, DataType::Utf8), op, cast(right, DataType::Utf8))
}

/// The same comparison, with its sides exchanged.
fn flipped(op: Op) -> Op {
    match op {
        Op::Less => Op::Greater,
        Op::LessEq => Op::GreaterEq,
        Op::Greater => Op::Less,
        Op::GreaterEq => Op::LessEq,
        same => same,
    }
}
