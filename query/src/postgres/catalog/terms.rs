//! Expressions of a query of catalogs: what they compute, and of what type it is.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, DataType, DuplicateTreatment, Expr, Function as AstFunction,
    FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, Spanned, Subscript, TrimWhereField,
    UnaryOperator, Value as Literal, ValueWithSpan, WindowType,
};

use crate::postgres::catalog::bind::{Binder, sort_inside};
use crate::postgres::catalog::from::{fields, parts};
use crate::postgres::catalog::functions::{Gives, canonical, function};
use crate::postgres::catalog::node::{Aggregate, Binary, Extra, Node, Sort, Tally};
use crate::postgres::catalog::scope::{Scope, folded};
use crate::postgres::catalog::value::Value;
use crate::postgres::kinds::{self, *};
use crate::postgres::refusal::{self, Refusal};

/// What an expression computes, and its type.
type Typed = (Node, Oid);

/// The type that a cast names.
pub(crate) fn kind_of(data_type: &DataType) -> Result<Oid, Refusal> {
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _) | ArrayElemTypeDef::AngleBracket(inner)) =
        data_type
    {
        return Ok(kinds::list_of(kind_of(inner)?));
    }
    let text = data_type.to_string().to_lowercase();
    let bare = text.strip_prefix("pg_catalog.").unwrap_or(&text);
    let bare = bare.strip_prefix("information_schema.").unwrap_or(bare);
    let name = match bare.split_once('(') {
        Some((name, rest)) => format!("{name}{}", rest.split_once(')').map_or("", |(_, rest)| rest)),
        None => bare.to_owned(),
    };
    let name = match name.as_str() {
        "cardinal_number" => "int4",
        "sql_identifier" => "name",
        "character_data" | "yes_or_no" => "varchar",
        name => name,
    };
    let known = kinds::named(name).or_else(|| kinds::named(name.trim_matches('"')));
    known
        .map(|kind| kind.oid)
        .ok_or_else(|| Refusal::new(refusal::NO_SETTING, format!("type \"{name}\" does not exist")))
}

fn binary(op: &BinaryOperator) -> Option<Binary> {
    Some(match op {
        BinaryOperator::Eq => Binary::Equal,
        BinaryOperator::NotEq => Binary::Unequal,
        BinaryOperator::Lt => Binary::Less,
        BinaryOperator::LtEq => Binary::LessOrEqual,
        BinaryOperator::Gt => Binary::Greater,
        BinaryOperator::GtEq => Binary::GreaterOrEqual,
        BinaryOperator::Plus => Binary::Add,
        BinaryOperator::Minus => Binary::Subtract,
        BinaryOperator::Multiply => Binary::Multiply,
        BinaryOperator::Divide => Binary::Divide,
        BinaryOperator::Modulo => Binary::Remainder,
        BinaryOperator::BitwiseAnd => Binary::BothBits,
        BinaryOperator::BitwiseOr => Binary::EitherBit,
        BinaryOperator::StringConcat => Binary::Join,
        BinaryOperator::PGRegexMatch => Binary::Matches { regardless: false },
        BinaryOperator::PGRegexIMatch => Binary::Matches { regardless: true },
        BinaryOperator::PGRegexNotMatch => Binary::MatchesNot { regardless: false },
        BinaryOperator::PGRegexNotIMatch => Binary::MatchesNot { regardless: true },
        BinaryOperator::PGLikeMatch => Binary::Like { regardless: false, escape: Some('\\') },
        BinaryOperator::PGILikeMatch => Binary::Like { regardless: true, escape: Some('\\') },
        BinaryOperator::PGNotLikeMatch => Binary::LikeNot { regardless: false, escape: Some('\\') },
        BinaryOperator::PGNotILikeMatch => Binary::LikeNot { regardless: true, escape: Some('\\') },
        BinaryOperator::PGCustomBinaryOperator(name) => match name.last()?.as_str() {
            "~" => Binary::Matches { regardless: false },
            "~*" => Binary::Matches { regardless: true },
            "!~" => Binary::MatchesNot { regardless: false },
            "!~*" => Binary::MatchesNot { regardless: true },
            "=" => Binary::Equal,
            "<>" => Binary::Unequal,
            "~~" => Binary::Like { regardless: false, escape: Some('\\') },
            "!~~" => Binary::LikeNot { regardless: false, escape: Some('\\') },
            "~~*" => Binary::Like { regardless: true, escape: Some('\\') },
            "||" => Binary::Join,
            _ => return None,
        },
        _ => return None,
    })
}

fn gives(op: Binary, left: Oid, right: Oid) -> Oid {
    match op {
        Binary::BothBits | Binary::EitherBit => left,
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => match [left, right] {
            kinds if kinds.contains(&FLOAT8) || kinds.contains(&NUMERIC) || kinds.contains(&FLOAT4) => FLOAT8,
            kinds if kinds.contains(&INT8) => INT8,
            _ => INT4,
        },
        Binary::Join if kinds::element_of(left) != left => left,
        Binary::Join if kinds::element_of(right) != right => right,
        Binary::Join => TEXT,
        _ => BOOL,
    }
}

fn pair(left: Node, right: Node) -> Box<[Node; 2]> {
    Box::new([left, right])
}

fn constant(value: impl Into<Value>) -> Node {
    Node::Constant(value.into())
}

/// Words that are functions without brackets.
const WORDS: &[&str] =
    &["current_user", "current_role", "session_user", "user", "current_schema", "current_catalog", "current_database"];

impl Binder<'_> {
    /// What an expression computes.
    #[recursive::recursive]
    pub(crate) fn term(&self, expr: &Expr, scope: &Scope<'_>) -> Result<Typed, Refusal> {
        let node = |expr: &Expr| Ok::<Node, Refusal>(self.term(expr, scope)?.0);
        let not = |negated: bool, node: Node| if negated { Node::Not(Box::new(node)) } else { node };
        Ok(match expr {
            Expr::Identifier(ident) => match scope.column(std::slice::from_ref(ident)) {
                Err(_) if ident.quote_style.is_none() && WORDS.contains(&folded(ident).as_str()) => {
                    self.plain(&folded(ident), Vec::new(), scope, false)?
                }
                found => found?,
            },
            Expr::CompoundIdentifier(idents) => scope.column(idents)?,
            Expr::Value(value) => self.literal(value)?,
            Expr::TypedString(typed) => {
                let to = kind_of(&typed.data_type)?;
                let (inner, from) = self.literal(&typed.value)?;
                (Node::Cast { node: Box::new(inner), from, to }, to)
            }
            Expr::Prefixed { value, .. } => self.term(value, scope)?,
            Expr::Nested(inner) => self.term(inner, scope)?,
            Expr::Collate { expr, .. } => self.term(expr, scope)?,
            Expr::IsNull(inner) => (Node::IsMissing(Box::new(node(inner)?)), BOOL),
            Expr::IsNotNull(inner) => (not(true, Node::IsMissing(Box::new(node(inner)?))), BOOL),
            Expr::IsTrue(inner) => (Node::Is(true, Box::new(node(inner)?)), BOOL),
            Expr::IsNotTrue(inner) => (not(true, Node::Is(true, Box::new(node(inner)?))), BOOL),
            Expr::IsFalse(inner) => (Node::Is(false, Box::new(node(inner)?)), BOOL),
            Expr::IsNotFalse(inner) => (not(true, Node::Is(false, Box::new(node(inner)?))), BOOL),
            Expr::IsDistinctFrom(a, b) => (Node::Distinct(pair(node(a)?, node(b)?)), BOOL),
            Expr::IsNotDistinctFrom(a, b) => (not(true, Node::Distinct(pair(node(a)?, node(b)?))), BOOL),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => (not(true, node(expr)?), BOOL),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                let (inner, kind) = self.term(expr, scope)?;
                (Node::Negative(Box::new(inner)), kind)
            }
            Expr::UnaryOp { op: UnaryOperator::Plus, expr } => self.term(expr, scope)?,
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                (Node::And(pair(node(left)?, node(right)?)), BOOL)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => (Node::Or(pair(node(left)?, node(right)?)), BOOL),
            Expr::BinaryOp { left, op, right } => {
                let how =
                    binary(op).ok_or_else(|| Refusal::unsupported(format!("the operator {op}")).at(left.span()))?;
                let ((a, left), (b, right)) = (self.term(left, scope)?, self.term(right, scope)?);
                (Node::Binary(how, pair(a, b)), gives(how, left, right))
            }
            Expr::Between { expr, negated, low, high } => {
                let low = Node::Binary(Binary::GreaterOrEqual, pair(node(expr)?, node(low)?));
                let high = Node::Binary(Binary::LessOrEqual, pair(node(expr)?, node(high)?));
                (not(*negated, Node::And(pair(low, high))), BOOL)
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                let how = Binary::Like { regardless: false, escape: escape(escape_char.as_ref()) };
                (not(*negated, Node::Binary(how, pair(node(expr)?, node(pattern)?))), BOOL)
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                let how = Binary::Like { regardless: true, escape: escape(escape_char.as_ref()) };
                (not(*negated, Node::Binary(how, pair(node(expr)?, node(pattern)?))), BOOL)
            }
            Expr::InList { expr, list, negated } => {
                let items = list.iter().map(node).collect::<Result<_, _>>()?;
                (not(*negated, any(node(expr)?, Binary::Equal, Node::List(items), false)), BOOL)
            }
            Expr::InSubquery { expr, subquery, negated } => {
                let (sub, _) = self.subquery(subquery, scope)?;
                (not(*negated, any(node(expr)?, Binary::Equal, Node::All(sub), false)), BOOL)
            }
            Expr::AnyOp { left, compare_op, right, .. } => self.any(left, compare_op, right, false, scope)?,
            Expr::AllOp { left, compare_op, right } => self.any(left, compare_op, right, true, scope)?,
            Expr::Exists { subquery, negated } => {
                (not(*negated, Node::Exists(self.subquery(subquery, scope)?.0)), BOOL)
            }
            Expr::Subquery(query) => {
                let (sub, columns) = self.subquery(query, scope)?;
                match &columns[..] {
                    [column] => (Node::One(sub), column.kind),
                    _ => return Err(Refusal::new(refusal::SYNTAX, "subquery must return only one column")),
                }
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let operand = operand.as_ref().map(|operand| node(operand)).transpose()?;
                let (mut pairs, mut kind) = (Vec::new(), UNKNOWN);
                let mut result = |(node, of): Typed| {
                    kind = if kind == UNKNOWN { of } else { kind };
                    Box::new(node)
                };
                for one in conditions {
                    pairs.push((node(&one.condition)?, *result(self.term(&one.result, scope)?)));
                }
                let otherwise = else_result.as_ref().map(|expr| Ok(result(self.term(expr, scope)?))).transpose()?;
                (Node::Case(operand.map(Box::new), pairs, otherwise), kind)
            }
            Expr::Cast { expr, data_type, .. } => {
                let ((inner, from), to) = (self.term(expr, scope)?, kind_of(data_type)?);
                (Node::Cast { node: Box::new(inner), from, to }, to)
            }
            Expr::Array(array) => {
                let items = array.elem.iter().map(|item| self.term(item, scope)).collect::<Result<Vec<_>, _>>()?;
                let kind = items.first().map_or(TEXT, |(_, kind)| *kind);
                (Node::List(items.into_iter().map(|(node, _)| node).collect()), kinds::list_of(kind))
            }
            Expr::Tuple(items) => (Node::Record(items.iter().map(node).collect::<Result<_, _>>()?), RECORD),
            Expr::CompoundFieldAccess { root, access_chain } => {
                // A name with dots in it, and what follows.
                let mut name: Vec<Ident> = match &**root {
                    Expr::Identifier(ident) => vec![ident.clone()],
                    Expr::CompoundIdentifier(idents) => idents.clone(),
                    _ => Vec::new(),
                };
                let dots = access_chain.iter().map_while(|access| match access {
                    AccessExpr::Dot(Expr::Identifier(ident)) if !name.is_empty() => Some(ident.clone()),
                    _ => None,
                });
                let dots: Vec<Ident> = dots.collect();
                let used = dots.len();
                name.extend(dots);
                let begin = if name.is_empty() { self.term(root, scope)? } else { scope.column(&name)? };
                access_chain[used..].iter().try_fold(begin, |typed, access| self.access(typed, access, scope))?
            }
            Expr::Function(call) => self.call(call, scope, false)?,
            Expr::Trim { trim_where, trim_what, expr, trim_characters: None } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "btrim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                };
                let args = [Some(expr), trim_what.as_ref()].into_iter().flatten().map(|expr| self.term(expr, scope));
                self.plain(name, args.collect::<Result<_, _>>()?, scope, false)?
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let parts = [Some(expr), substring_from.as_ref(), substring_for.as_ref()];
                let args = parts.into_iter().flatten().map(|expr| self.term(expr, scope));
                self.plain("substring", args.collect::<Result<_, _>>()?, scope, false)?
            }
            Expr::Position { expr, r#in } => {
                self.plain("strpos", vec![self.term(r#in, scope)?, self.term(expr, scope)?], scope, false)?
            }
            other => return Err(Refusal::unsupported(format!("\"{other}\" in a query of catalogs")).at(other.span())),
        })
    }

    fn literal(&self, value: &ValueWithSpan) -> Result<Typed, Refusal> {
        Ok(match &value.value {
            Literal::Number(text, _) => match text.parse::<i64>() {
                Ok(n) if i32::try_from(n).is_ok() => (constant(n), INT4),
                Ok(n) => (constant(n), INT8),
                Err(_) => (Node::Constant(Value::Real(text.parse().unwrap_or_default())), NUMERIC),
            },
            Literal::Boolean(is) => (constant(*is), BOOL),
            Literal::Null => (Node::Constant(Value::Null), UNKNOWN),
            Literal::Placeholder(name) => {
                let at = name.trim_start_matches('$').parse::<usize>().unwrap_or_default();
                let known = at.checked_sub(1).and_then(|at| self.parameters.get(at)).copied();
                (Node::Constant(Value::Null), known.filter(|kind| *kind != 0).unwrap_or(TEXT))
            }
            other => match other.clone().into_string() {
                Some(text) => (constant(text), UNKNOWN),
                None => return Err(Refusal::unsupported(format!("the literal {value}")).at(value.span)),
            },
        })
    }

    fn any(
        &self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        each: bool,
        scope: &Scope<'_>,
    ) -> Result<Typed, Refusal> {
        let how = binary(op).ok_or_else(|| Refusal::unsupported(format!("the operator {op}")).at(left.span()))?;
        let value = self.term(left, scope)?.0;
        let right = match right {
            Expr::Nested(inner) => inner,
            right => right,
        };
        let list = match right {
            Expr::Subquery(query) => Node::All(self.subquery(query, scope)?.0),
            right => self.term(right, scope)?.0,
        };
        Ok((any(value, how, list, each), BOOL))
    }

    fn access(&self, (root, kind): Typed, access: &AccessExpr, scope: &Scope<'_>) -> Result<Typed, Refusal> {
        match access {
            AccessExpr::Subscript(Subscript::Index { index }) => {
                let index = self.term(index, scope)?.0;
                Ok((Node::Item(pair(root, index)), kinds::element_of(kind)))
            }
            AccessExpr::Dot(Expr::Identifier(ident)) => {
                let name = folded(ident);
                let all = ["_pg_expandarray", "pg_options_to_table", "aclexplode", "pg_get_keywords"];
                let found = all.iter().find_map(|function| {
                    let at = fields(function).iter().position(|(field, _)| *field == name)?;
                    Some((at, fields(function)[at].1))
                });
                let (at, kind) = found.ok_or_else(|| {
                    Refusal::new(refusal::NO_COLUMN, format!("column \"{name}\" does not exist")).at(ident.span)
                })?;
                Ok((Node::Field(Box::new(root), at), kind))
            }
            other => Err(Refusal::unsupported(format!("\"{other}\""))),
        }
    }

    /// A function that is called, in `FROM` or elsewhere.
    pub(crate) fn call(&self, call: &AstFunction, scope: &Scope<'_>, in_from: bool) -> Result<Typed, Refusal> {
        let name = parts(&call.name).pop().unwrap_or_default();
        let list = match &call.args {
            FunctionArguments::None => return self.plain(&name, Vec::new(), scope, in_from),
            FunctionArguments::Subquery(query) if name == "array" => {
                let (sub, columns) = self.subquery(query, scope)?;
                let kind = columns.first().map_or(TEXT, |column| column.kind);
                return Ok((Node::All(sub), kinds::list_of(kind)));
            }
            FunctionArguments::Subquery(_) => return Err(Refusal::unsupported(format!("{name} of a query"))),
            FunctionArguments::List(list) => list,
        };
        if let Some(over) = &call.over {
            return self.window(&name, over, scope);
        }
        // Nothing is added up inside of what is added up.
        let tallies = tally(&name, None, false).is_some();
        if tallies && !scope.aggregates.replace(false) {
            let detail = format!("the aggregate function {name} is not allowed here");
            return Err(Refusal::new("42803", detail).at(call.span()));
        }
        let (mut args, mut all_rows) = (Vec::new(), false);
        for arg in &list.args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => args.push(self.term(expr, scope)?),
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => all_rows = true,
                other => return Err(Refusal::unsupported(format!("the argument \"{other}\""))),
            }
        }
        let Some((what, kind)) = tally(&name, args.first().map(|(_, kind)| *kind), all_rows) else {
            return self.plain(&name, args, scope, in_from);
        };
        let mut sort = Vec::new();
        for clause in &list.clauses {
            let FunctionArgumentClause::OrderBy(order) = clause else {
                return Err(Refusal::unsupported(format!("\"{clause}\" in {name}")));
            };
            for by in order {
                sort.push((self.term(&by.expr, scope)?.0, sort_inside(0, by)));
            }
        }
        let filter = call.filter.as_ref().map(|filter| Ok(self.term(filter, scope)?.0)).transpose()?;
        scope.aggregates.set(true);
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        let args = args.into_iter().map(|(node, _)| node).collect();
        Ok((extra(scope, Extra::Aggregate(Aggregate { what, args, distinct, sort, filter })), kind))
    }

    fn window(&self, name: &str, over: &WindowType, scope: &Scope<'_>) -> Result<Typed, Refusal> {
        let WindowType::WindowSpec(spec) = over else { return Err(Refusal::unsupported("a named window")) };
        if name != "row_number" {
            return Err(Refusal::unsupported(format!("the window function {name}")));
        }
        let partition = spec.partition_by.iter().map(|expr| Ok(self.term(expr, scope)?.0)).collect::<Result<_, _>>()?;
        let sort: Vec<(Node, Sort)> = (spec.order_by.iter())
            .map(|by| Ok((self.term(&by.expr, scope)?.0, sort_inside(0, by))))
            .collect::<Result<_, Refusal>>()?;
        Ok((extra(scope, Extra::Place { partition, sort }), INT8))
    }

    /// A function of these arguments.
    fn plain(&self, name: &str, args: Vec<Typed>, scope: &Scope<'_>, in_from: bool) -> Result<Typed, Refusal> {
        if let ("pg_typeof", [(_, kind)]) = (name, &args[..]) {
            return Ok((constant(*kind), REGTYPE));
        }
        let Some(found) = function(canonical(name)) else {
            return Err(Refusal::new(refusal::NO_FUNCTION, format!("function {name} does not exist here")));
        };
        let known = |at: usize| {
            let rest = args.iter().skip(at).map(|(_, kind)| *kind);
            rest.clone().find(|kind| *kind != UNKNOWN).unwrap_or(TEXT)
        };
        let kind = match found.gives {
            Gives::This(kind) => kind,
            Gives::Argument(at) => known(at),
            Gives::Element(at) => kinds::element_of(known(at)),
            Gives::ListOf(at) => kinds::list_of(known(at)),
        };
        let node = Node::Call(found, args.into_iter().map(|(node, _)| node).collect());
        if !found.rows || in_from {
            return Ok((node, kind));
        }
        if !scope.aggregates.get() {
            return Err(Refusal::unsupported(format!("the rows of {name} here")));
        }
        Ok((extra(scope, Extra::Rows(node)), kind))
    }
}

fn any(value: Node, compares: Binary, list: Node, each: bool) -> Node {
    Node::Any { value: Box::new(value), compares, list: Box::new(list), each }
}

/// A column after those of `FROM`.
fn extra(scope: &Scope<'_>, extra: Extra) -> Node {
    let mut extras = scope.extras.borrow_mut();
    extras.push(extra);
    Node::Column { up: 0, at: scope.width() + extras.len() - 1 }
}

fn escape(said: Option<&ValueWithSpan>) -> Option<char> {
    match said.map(|value| value.value.clone().into_string().unwrap_or_default()) {
        None => Some('\\'),
        Some(text) => text.chars().next(),
    }
}

fn tally(name: &str, arg: Option<Oid>, all_rows: bool) -> Option<(Tally, Oid)> {
    let arg = arg.filter(|kind| *kind != UNKNOWN);
    Some(match name {
        "count" if all_rows => (Tally::Rows, INT8),
        "count" => (Tally::Count, INT8),
        "min" => (Tally::Least, arg.unwrap_or(TEXT)),
        "max" => (Tally::Greatest, arg.unwrap_or(TEXT)),
        "sum" => (Tally::Sum, INT8),
        "avg" => (Tally::Mean, FLOAT8),
        "array_agg" => (Tally::List, kinds::list_of(arg.unwrap_or(TEXT))),
        "string_agg" => (Tally::Texts, TEXT),
        "bool_and" | "every" => (Tally::Every, BOOL),
        "bool_or" => (Tally::Some, BOOL),
        _ => return None,
    })
}
