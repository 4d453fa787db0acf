//! What Postgres writes otherwise than the engine: a statement over entities, as the engine plans it.
//!
//! What only catalogs know (`current_schema()`, `'devices'::regclass`) is a constant of the session, and is put in its place.
//! Columns are called as Postgres calls them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement, TimezoneInfo, Value, VisitMut, VisitorMut,
};

use crate::postgres::catalog::value::Value as Known;
use crate::postgres::catalog::{Catalog, Column, name_of};
use crate::postgres::kinds::{self, *};
use crate::postgres::parameters::{cast, sql_type};
use crate::postgres::refusal::Refusal;

/// Functions of the session, which the engine does not know.
const OF_SESSION: &[&str] = &[
    "version",
    "current_database",
    "current_catalog",
    "current_schema",
    "current_schemas",
    "current_user",
    "current_role",
    "session_user",
    "user",
    "current_setting",
    "pg_backend_pid",
    "pg_is_in_recovery",
    "pg_typeof",
    "quote_ident",
    "quote_literal",
    "format_type",
    "to_regclass",
    "obj_description",
    "col_description",
    "has_table_privilege",
    "has_schema_privilege",
];

/// Functions that tell the time, which is an instant.
const NOW: &[&str] = &["now", "current_timestamp", "transaction_timestamp", "statement_timestamp", "clock_timestamp"];

/// A statement as the engine plans it.
pub(crate) fn fitted(mut statement: Statement, catalog: &Catalog) -> Result<Statement, Refusal> {
    if let ControlFlow::Break(refusal) = statement.visit(&mut Fitter { catalog }) {
        return Err(refusal);
    }
    if let Some(select) = outermost(&mut statement) {
        told_apart(select);
    }
    Ok(statement)
}

/// What the columns of a statement are called, as far as it says; nothing for those of `*`.
pub(crate) fn names(statement: &Statement) -> Vec<Option<String>> {
    let Statement::Query(query) = statement else { return Vec::new() };
    let SetExpr::Select(select) = &*query.body else { return Vec::new() };
    select
        .projection
        .iter()
        .map(|item| match item {
            SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
            SelectItem::ExprWithAlias { alias, .. } => {
                Some(if alias.quote_style.is_some() { alias.value.clone() } else { alias.value.to_lowercase() })
            }
            _ => None,
        })
        .collect()
}

/// Calls columns as a statement does. A `*` stands for those that are left.
pub(crate) fn called(columns: &mut [Column], names: &[Option<String>]) {
    let stars = names.iter().filter(|name| name.is_none()).count();
    if names.is_empty()
        || stars > 1
        || names.len() - stars > columns.len()
        || (stars == 0 && names.len() != columns.len())
    {
        return;
    }
    let star = columns.len() - (names.len() - stars);
    let mut at = 0;
    for name in names {
        match name {
            Some(name) => {
                columns[at].name.clone_from(name);
                at += 1;
            }
            None => at += star,
        }
    }
}

fn outermost(statement: &mut Statement) -> Option<&mut Select> {
    let Statement::Query(query) = statement else { return None };
    match &mut *query.body {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

/// The engine wants other names for what is chosen twice.
fn told_apart(select: &mut Select) {
    let star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    // What `*` stands for may be chosen again.
    let stars = select.projection.iter().any(star);
    let mut seen = std::collections::HashSet::new();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => expr.to_string(),
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            _ => continue,
        };
        let last = name.rsplit('.').next().unwrap_or_default().trim_matches('"').to_owned();
        if !seen.insert(last) || stars {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
            let alias = Ident::with_quote('"', format!("{name} {}", at + 1));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

struct Fitter<'a> {
    catalog: &'a Catalog,
}

impl VisitorMut for Fitter<'_> {
    type Break = Refusal;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        // The name of a number is not the number: such a cast is looked at whole.
        let Expr::Cast { expr: inner, .. } = &*expr else { return ControlFlow::Continue(()) };
        if !names_something(inner) {
            return ControlFlow::Continue(());
        }
        match self.constant(expr) {
            Ok(constant) => *expr = constant,
            Err(refusal) => return ControlFlow::Break(refusal),
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        match self.fit(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

impl Fitter<'_> {
    fn fit(&self, expr: &mut Expr) -> Result<(), Refusal> {
        match expr {
            Expr::Collate { expr: inner, collation } => {
                let name = collation.to_string().to_lowercase();
                if !matches!(
                    name.trim_start_matches("pg_catalog.").trim_matches('"'),
                    "c" | "posix" | "default" | "ucs_basic"
                ) {
                    return Err(Refusal::unsupported(format!("the collation {collation}")));
                }
                *expr = std::mem::replace(inner, Expr::value(Value::Null));
            }
            Expr::Function(function) => {
                if function.name.0.len() > 1 {
                    let schema = function.name.0[0].as_ident().map(|ident| ident.value.to_lowercase());
                    if schema.is_some_and(|schema| schema == "pg_catalog" || schema == "public") {
                        function.name.0.drain(..function.name.0.len() - 1);
                    }
                }
                let name = match function.name.0.last() {
                    Some(ObjectNamePart::Identifier(ident)) => ident.value.to_lowercase(),
                    _ => return Ok(()),
                };
                if NOW.contains(&name.as_str()) {
                    function.name = vec![Ident::new("now")].into();
                    if matches!(function.args, FunctionArguments::None) {
                        let args = FunctionArgumentList { duplicate_treatment: None, args: vec![], clauses: vec![] };
                        function.args = FunctionArguments::List(args);
                    }
                    let inner = std::mem::replace(expr, Expr::value(Value::Null));
                    *expr = instant(inner);
                    return Ok(());
                }
                if OF_SESSION.contains(&name.as_str()) && constants(&function.args) {
                    *expr = self.constant(expr)?;
                }
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                if let Some(list) = items(right) {
                    let value = std::mem::replace(left, Box::new(Expr::value(Value::Null)));
                    *expr = within(value, list, false);
                }
            }
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                if let Some(list) = items(right) {
                    let value = std::mem::replace(left, Box::new(Expr::value(Value::Null)));
                    *expr = within(value, list, true);
                }
            }
            Expr::Cast {
                data_type: DataType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone),
                expr: inner,
                ..
            } if !matches!(&**inner, Expr::Value(value) if matches!(value.value, Value::Placeholder(_))) => {
                let inner = std::mem::replace(&mut **inner, Expr::value(Value::Null));
                *expr = instant(inner);
            }
            Expr::Cast { data_type, expr: inner, .. } => {
                let bare = data_type.to_string().to_lowercase();
                let bare = bare.trim_start_matches("pg_catalog.").trim_matches('"');
                if bare.starts_with("reg") && matches!(**inner, Expr::Value(_)) {
                    *expr = self.constant(expr)?;
                } else if matches!(data_type, DataType::Custom(..) | DataType::JSON | DataType::JSONB | DataType::Uuid)
                    && let Some(kind) = kinds::named(bare)
                {
                    *data_type = match sql_type(kind.oid) {
                        Some(known) => known,
                        None if matches!(kind.oid, JSON | JSONB | UUID | 650 | 829 | 869) => DataType::Text,
                        None => return Err(Refusal::unsupported(format!("a cast to {bare}"))),
                    };
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What catalogs say of an expression that reads no row.
    fn constant(&self, expr: &Expr) -> Result<Expr, Refusal> {
        let query = Query {
            body: Box::new(SetExpr::Values(ast::Values {
                explicit_row: false,
                value_keyword: false,
                rows: vec![ast::Parens {
                    opening_token: ast::helpers::attached_token::AttachedToken::empty(),
                    closing_token: ast::helpers::attached_token::AttachedToken::empty(),
                    content: vec![expr.clone()],
                }],
            })),
            ..empty()
        };
        let (columns, rows, _) = self.catalog.answer(&query, &|| true)?;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or(Known::Null);
        let kind = columns.first().map_or(TEXT, |column| column.kind);
        Ok(match value {
            Known::Null => cast(Expr::value(Value::Null), sql_type(kind).unwrap_or(DataType::Text)),
            Known::Bool(is) => Expr::value(Value::Boolean(is)),
            Known::Whole(n) if !is_reference(kind) || matches!(expr, Expr::Cast { .. }) => {
                Expr::value(Value::Number(n.to_string(), false))
            }
            other => Expr::value(Value::SingleQuotedString(crate::postgres::catalog::value::told(
                &other,
                kind,
                |kind, oid| self.catalog.name(kind, oid),
            ))),
        })
    }
}

/// Whether a constant is cast to the number of something that has a name.
fn names_something(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => names_something(inner),
        Expr::Cast { expr, data_type, .. } => {
            let kind = data_type.to_string().to_lowercase();
            let number = kind.trim_start_matches("pg_catalog.").starts_with("reg");
            (number && matches!(**expr, Expr::Value(_))) || names_something(expr)
        }
        _ => false,
    }
}

/// The items of a list that is written out, as an array or as text.
fn items(list: &Expr) -> Option<Vec<Expr>> {
    match list {
        Expr::Nested(inner) => items(inner),
        Expr::Cast { expr, data_type: DataType::Array(_), .. } => items(expr),
        Expr::Array(array) => Some(array.elem.clone()),
        Expr::Value(value) => {
            let Value::SingleQuotedString(text) = &value.value else { return None };
            let literal = |item: &Known| match item {
                Known::Null => Expr::value(Value::Null),
                item => Expr::value(Value::SingleQuotedString(item.text().to_string())),
            };
            Some(Known::from(text.as_str()).items()?.iter().map(literal).collect())
        }
        _ => None,
    }
}

/// Whether something is one of a list (or none of it). Nothing is one of an empty list.
fn within(expr: Box<Expr>, list: Vec<Expr>, negated: bool) -> Expr {
    match list.is_empty() {
        true => Expr::value(Value::Boolean(negated)),
        false => Expr::Nested(Box::new(Expr::InList { expr, list, negated })),
    }
}

/// Something as an instant. The engine's own instants without a zone are in UTC.
fn instant(inner: Expr) -> Expr {
    let argument = |expr: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let to = Expr::value(Value::SingleQuotedString("Timestamp(Microsecond, Some(\"UTC\"))".to_owned()));
    let args = vec![argument(inner), argument(to)];
    Expr::Function(ast::Function {
        name: vec![Ident::new("arrow_cast")].into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn empty() -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Values(ast::Values { explicit_row: false, value_keyword: false, rows: Vec::new() })),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

fn constants(args: &FunctionArguments) -> bool {
    match args {
        FunctionArguments::None => true,
        FunctionArguments::Subquery(_) => false,
        FunctionArguments::List(list) => list
            .args
            .iter()
            .all(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if is_constant(expr))),
    }
}

/// Whether something is a literal, cast or not: what else it may be is not computed beside the queries.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) => true,
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_constant(inner),
        _ => false,
    }
}
