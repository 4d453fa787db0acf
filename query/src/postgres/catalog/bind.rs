//! From a parsed query to one whose names are found: what can be asked of catalogs, and what is refused by name.

use std::cell::OnceCell;
use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{
    self, Distinct as AstDistinct, Expr, GroupByExpr, LimitClause, OrderByExpr, OrderByKind, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Spanned,
};

use crate::postgres::catalog::Catalog;
use crate::postgres::catalog::node::{Body, Column, Distinct, Extra, Node, Query, Select, Set, Sort, Subquery};
use crate::postgres::catalog::scope::{Named, Scope, folded};
use crate::postgres::kinds::{Oid, TEXT, UNKNOWN};
use crate::postgres::refusal::{self, Refusal};

/// Queries in queries.
const MAX_DEPTH: usize = 16;
/// Columns of an answer.
const MAX_COLUMNS: usize = 1600;

/// Finds what names mean.
pub(crate) struct Binder<'a> {
    pub(crate) catalog: &'a Catalog,
    /// The types of parameters, from `$1` on, where they are known.
    pub(crate) parameters: &'a [Oid],
    pub(crate) depth: std::cell::Cell<usize>,
}

/// What is chosen: each with its name.
type Chosen = Vec<(Node, Column)>;

impl Binder<'_> {
    /// A query and everything in it.
    pub(crate) fn query(&self, query: &ast::Query, parent: Option<&Scope<'_>>) -> Result<(Query, bool), Refusal> {
        if self.depth.get() == MAX_DEPTH {
            return Err(Refusal::new(refusal::TOO_MUCH, format!("queries are nested {MAX_DEPTH} deep at most")));
        }
        self.depth.set(self.depth.get() + 1);
        let mut around = Scope::inside(parent);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            if query.with.as_ref().is_some_and(|with| with.recursive) {
                return Err(Refusal::unsupported("WITH RECURSIVE").at(cte.alias.name.span));
            }
            let (mut inner, reads) = self.query(&cte.query, Some(&around))?;
            if reads {
                return Err(Refusal::unsupported("WITH that reads the row around it").at(cte.alias.name.span));
            }
            for (column, alias) in inner.columns.iter_mut().zip(&cte.alias.columns) {
                column.name = folded(&alias.name);
            }
            around.named.push(Named { name: folded(&cte.alias.name), query: Rc::new(inner) });
        }
        let order: &[OrderByExpr] = match query.order_by.as_ref().map(|order| &order.kind) {
            None => &[],
            Some(OrderByKind::Expressions(order)) => order,
            Some(OrderByKind::All(_)) => return Err(Refusal::unsupported("ORDER BY ALL")),
        };
        let mut bound = self.body(&query.body, order, &around)?;
        let (limit, offset) = match &query.limit_clause {
            None => (None, None),
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
        };
        let limit = limit.or_else(|| query.fetch.as_ref()?.quantity.as_ref());
        let count = |expr: Option<&Expr>| expr.map(|expr| Ok(self.term(expr, &around)?.0)).transpose();
        (bound.limit, bound.offset) = (count(limit)?, count(offset)?);
        self.depth.set(self.depth.get() - 1);
        // What reads around reads through this scope, which has no row of its own.
        Ok((bound, around.reads_outside.get()))
    }

    /// A query in an expression.
    pub(crate) fn subquery(&self, query: &ast::Query, scope: &Scope<'_>) -> Result<(Subquery, Vec<Column>), Refusal> {
        let (query, reads) = self.query(query, Some(scope))?;
        let columns = query.columns.clone();
        let known = (!reads).then(OnceCell::new);
        Ok((Subquery { query: Rc::new(query), known }, columns))
    }

    fn body(&self, body: &SetExpr, order: &[OrderByExpr], around: &Scope<'_>) -> Result<Query, Refusal> {
        match body {
            SetExpr::Select(select) => self.select(select, order, around),
            SetExpr::Query(query) => {
                let (inner, _) = self.query(query, Some(around))?;
                let (columns, body) = (inner.columns.clone(), Body::Query(Box::new(inner)));
                self.sorted(Query { body, columns, sort: Vec::new(), limit: None, offset: None }, order)
            }
            SetExpr::Values(values) => {
                let mut columns: Vec<Column> = Vec::new();
                let mut rows = Vec::new();
                for row in &values.rows {
                    let terms =
                        row.content.iter().map(|expr| self.term(expr, around)).collect::<Result<Vec<_>, _>>()?;
                    if columns.is_empty() {
                        let kinds = terms.iter().map(|(_, kind)| told(*kind)).enumerate();
                        columns = kinds.map(|(at, kind)| Column { name: format!("column{}", at + 1), kind }).collect();
                    } else if terms.len() != columns.len() {
                        return Err(Refusal::new(refusal::SYNTAX, "VALUES lists must all be the same length"));
                    }
                    rows.push(terms.into_iter().map(|(node, _)| node).collect());
                }
                let query = Query { body: Body::Values(rows), columns, sort: Vec::new(), limit: None, offset: None };
                self.sorted(query, order)
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let how = match op {
                    SetOperator::Union => Set::Union,
                    SetOperator::Intersect => Set::Intersect,
                    SetOperator::Except | SetOperator::Minus => Set::Except,
                };
                let all = match set_quantifier {
                    SetQuantifier::All => true,
                    SetQuantifier::Distinct | SetQuantifier::None => false,
                    other => return Err(Refusal::unsupported(other)),
                };
                let sides = [self.body(left, &[], around)?, self.body(right, &[], around)?];
                if sides[0].columns.len() != sides[1].columns.len() {
                    let detail = format!("each {op} query must have the same number of columns");
                    return Err(Refusal::new(refusal::SYNTAX, detail));
                }
                let mut columns = sides[0].columns.clone();
                for (column, other) in columns.iter_mut().zip(&sides[1].columns) {
                    if column.kind == UNKNOWN {
                        column.kind = other.kind;
                    }
                }
                let body = Body::Set { how, all, sides: Box::new(sides) };
                self.sorted(Query { body, columns, sort: Vec::new(), limit: None, offset: None }, order)
            }
            other => Err(Refusal::unsupported(format!("\"{other}\" here")).at(other.span())),
        }
    }

    /// Sorts what is given by its columns.
    fn sorted(&self, mut query: Query, order: &[OrderByExpr]) -> Result<Query, Refusal> {
        for by in order {
            let at = output(&by.expr, &query.columns)?
                .ok_or_else(|| Refusal::unsupported("sorting by an expression here").at(by.expr.span()))?;
            query.sort.push(sort(at, by));
        }
        Ok(query)
    }

    fn select(&self, select: &ast::Select, order: &[OrderByExpr], around: &Scope<'_>) -> Result<Query, Refusal> {
        let scope = Scope { parent: Some(around), ..Scope::default() };
        let mut from = Vec::new();
        for table in &select.from {
            self.joined(table, &scope, &mut from)?;
        }
        let mut filter = Vec::new();
        if let Some(condition) = &select.selection {
            self.term(condition, &scope)?.0.split(&mut filter);
        }
        scope.aggregates.set(true);
        let mut chosen: Chosen = Vec::new();
        for item in &select.projection {
            self.chosen(item, &scope, &mut chosen)?;
        }
        if chosen.len() > MAX_COLUMNS {
            return Err(Refusal::new(refusal::TOO_MUCH, format!("an answer has {MAX_COLUMNS} columns at most")));
        }
        let columns: Vec<Column> = chosen.iter().map(|(_, column)| column.clone()).collect();
        let mut output_nodes: Vec<Node> = chosen.into_iter().map(|(node, _)| node).collect();
        let GroupByExpr::Expressions(keys, _) = &select.group_by else {
            return Err(Refusal::unsupported("GROUP BY ALL"));
        };
        let keys = keys.iter().map(|key| self.key(key, select, &columns, &scope)).collect::<Result<Vec<_>, _>>()?;
        let having = select.having.as_ref().map(|having| Ok(self.term(having, &scope)?.0)).transpose()?;
        let mut by = Vec::new();
        for one in order {
            let at = match output(&one.expr, &columns)? {
                Some(at) => at,
                None => {
                    output_nodes.push(self.term(&one.expr, &scope)?.0);
                    output_nodes.len() - 1
                }
            };
            by.push(sort(at, one));
        }
        let distinct = match &select.distinct {
            None | Some(AstDistinct::All) => Distinct::No,
            Some(AstDistinct::Distinct) => Distinct::Rows,
            Some(AstDistinct::On(exprs)) => {
                let mut places = Vec::new();
                for expr in exprs {
                    output_nodes.push(self.term(expr, &scope)?.0);
                    places.push(output_nodes.len() - 1);
                }
                Distinct::On(places)
            }
        };
        if scope.reads_outside.get() {
            around.reads_outside.set(true);
        }
        let extras = scope.extras.into_inner();
        let grouped = !keys.is_empty() || having.is_some() || extras.iter().any(|e| matches!(e, Extra::Aggregate(_)));
        let groups = grouped.then_some(keys);
        let body = Select { from, filter, groups, having, extras, output: output_nodes, distinct };
        Ok(Query { body: Body::Select(Box::new(body)), columns, sort: by, limit: None, offset: None })
    }

    fn chosen(&self, item: &SelectItem, scope: &Scope<'_>, into: &mut Chosen) -> Result<(), Refusal> {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (expr, name_of(expr)),
            SelectItem::ExprWithAlias { expr, alias } => (expr, folded(alias)),
            SelectItem::Wildcard(_) => return every(scope, None, into),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let relation = name.0.last().and_then(|part| part.as_ident()).map(folded);
                return every(scope, relation.as_deref(), into);
            }
            other => return Err(Refusal::unsupported(other)),
        };
        let (node, kind) = self.term(expr, scope)?;
        into.push((node, Column { name, kind }));
        Ok(())
    }

    /// A key of groups: a column of the answer by place or name, or an expression.
    fn key(&self, key: &Expr, select: &ast::Select, columns: &[Column], scope: &Scope<'_>) -> Result<Node, Refusal> {
        let direct = || Ok(self.term(key, scope)?.0);
        let named = matches!(key, Expr::Identifier(ident) if scope.column(std::slice::from_ref(ident)).is_err());
        if !(named || matches!(key, Expr::Value(_))) {
            return direct();
        }
        let Some(at) = output(key, columns)? else { return direct() };
        match select.projection.get(at) {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                Ok(self.term(expr, scope)?.0)
            }
            _ => Err(Refusal::unsupported("grouping by a place after *").at(key.span())),
        }
    }
}

/// A type as an answer has it.
pub(crate) fn told(kind: Oid) -> Oid {
    if kind == UNKNOWN { TEXT } else { kind }
}

fn sort(at: usize, by: &OrderByExpr) -> Sort {
    let descending = by.options.asc == Some(false);
    Sort { at, descending, missing_first: by.options.nulls_first.unwrap_or(descending) }
}

/// The same, for what is sorted inside a function.
pub(crate) fn sort_inside(at: usize, by: &OrderByExpr) -> Sort {
    sort(at, by)
}

/// The column of an answer that a key means by place or name.
fn output(expr: &Expr, columns: &[Column]) -> Result<Option<usize>, Refusal> {
    match expr {
        Expr::Value(value) => {
            let ast::Value::Number(n, _) = &value.value else { return Ok(None) };
            let at = n.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|at| *at < columns.len());
            let detail = || Refusal::new("42P10", format!("position {n} is not in select list")).at(value.span);
            at.map(Some).ok_or_else(detail)
        }
        Expr::Identifier(ident) => Ok(columns.iter().position(|column| column.name == folded(ident))),
        _ => Ok(None),
    }
}

fn every(scope: &Scope<'_>, relation: Option<&str>, into: &mut Chosen) -> Result<(), Refusal> {
    let before = into.len();
    for (at, column) in scope.columns.borrow().iter().enumerate() {
        let wanted = match relation {
            Some(relation) => column.relation.as_deref() == Some(relation) && column.name != "tableoid",
            None => !column.hidden,
        };
        if wanted {
            into.push((Node::Column { up: 0, at }, Column { name: column.name.clone(), kind: column.kind }));
        }
    }
    match relation {
        Some(relation) if into.len() == before => {
            Err(Refusal::new(refusal::NO_TABLE, format!("missing FROM-clause entry for table \"{relation}\"")))
        }
        _ => Ok(()),
    }
}

/// What Postgres calls a column that has no name.
pub(crate) fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(idents) => idents.last().map(folded).unwrap_or_default(),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_of(inner),
        Expr::Function(function) => {
            function.name.0.last().and_then(|part| part.as_ident()).map(folded).unwrap_or_default()
        }
        Expr::Cast { expr, data_type, .. } => match name_of(expr) {
            name if name == UNNAMED => crate::postgres::catalog::terms::kind_of(data_type)
                .ok()
                .and_then(crate::postgres::kinds::kind)
                .map_or(name, |kind| kind.name.to_owned()),
            name => name,
        },
        Expr::CompoundFieldAccess { root, access_chain } => match access_chain.last() {
            Some(ast::AccessExpr::Dot(Expr::Identifier(ident))) => folded(ident),
            _ => name_of(root),
        },
        Expr::Case { else_result, .. } => match else_result.as_deref().map(name_of) {
            Some(name) if name != UNNAMED => name,
            _ => "case".to_owned(),
        },
        Expr::Exists { .. } => "exists".to_owned(),
        Expr::Array(_) => "array".to_owned(),
        Expr::Subquery(query) => match &*query.body {
            SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::UnnamedExpr(expr)) => name_of(expr),
                Some(SelectItem::ExprWithAlias { alias, .. }) => folded(alias),
                _ => UNNAMED.to_owned(),
            },
            _ => UNNAMED.to_owned(),
        },
        Expr::Trim { .. } => "btrim".to_owned(),
        Expr::Substring { .. } => "substring".to_owned(),
        Expr::Value(value) if matches!(value.value, ast::Value::Boolean(_)) => "bool".to_owned(),
        _ => UNNAMED.to_owned(),
    }
}

/// A column without a name.
const UNNAMED: &str = "?column?";
