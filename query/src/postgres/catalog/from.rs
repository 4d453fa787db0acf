//! What stands in `FROM`: relations, queries, functions, and how they are joined.

use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{
    Expr, Function as AstFunction, FunctionArg, FunctionArgumentList, FunctionArguments, Ident, JoinConstraint,
    JoinOperator, ObjectName, Spanned, TableAlias, TableFactor, TableWithJoins,
};

use crate::postgres::catalog::bind::{Binder, told};
use crate::postgres::catalog::node::{Binary, Join, Node, Rows, Source};
use crate::postgres::catalog::scope::{Bound, Scope, folded};
use crate::postgres::kinds::{BOOL, INT4, INT8, NAME, OID, Oid, RECORD, REGCLASS, TEXT};
use crate::postgres::refusal::{self, Refusal};

/// The fields of what a function gives as records.
pub(crate) fn fields(function: &str) -> &'static [(&'static str, Oid)] {
    match function {
        "_pg_expandarray" => &[("x", INT4), ("n", INT4)],
        "pg_get_keywords" => &[("word", TEXT), ("catcode", TEXT), ("catdesc", TEXT)],
        "pg_options_to_table" => &[("option_name", TEXT), ("option_value", TEXT)],
        "pg_partition_tree" => &[("relid", REGCLASS), ("parentrelid", REGCLASS), ("isleaf", BOOL), ("level", INT4)],
        "aclexplode" => &[("grantor", OID), ("grantee", OID), ("privilege_type", TEXT), ("is_grantable", BOOL)],
        _ => &[],
    }
}

/// The parts of a name, as SQL means them.
pub(crate) fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(folded).collect()
}

impl Binder<'_> {
    /// A table and what is joined to it; adds its columns to the scope.
    pub(crate) fn joined(
        &self,
        table: &TableWithJoins,
        scope: &Scope<'_>,
        into: &mut Vec<Source>,
    ) -> Result<(), Refusal> {
        let begin = scope.width();
        into.push(self.factor(&table.relation, scope)?);
        for join in &table.joins {
            let none = JoinConstraint::None;
            let (how, constraint) = match &join.join_operator {
                JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (Join::Inner, constraint),
                JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (Join::Left, constraint),
                JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (Join::Right, constraint),
                JoinOperator::FullOuter(constraint) => (Join::Full, constraint),
                JoinOperator::CrossJoin(_) => (Join::Inner, &none),
                other => return Err(Refusal::unsupported(format!("a join such as {other:?}")).at(join.span())),
            };
            let middle = scope.width();
            let mut source = self.factor(&join.relation, scope)?;
            source.join = how;
            match constraint {
                JoinConstraint::None => {}
                JoinConstraint::On(condition) => self.term(condition, scope)?.0.split(&mut source.on),
                JoinConstraint::Using(names) => {
                    for name in names.iter().flat_map(parts) {
                        source.on.push(pair(scope, &name, begin, middle)?);
                    }
                }
                JoinConstraint::Natural => {
                    let right: Vec<String> = scope.columns.borrow()[middle..].iter().map(|c| c.name.clone()).collect();
                    for name in right {
                        if scope.columns.borrow()[begin..middle].iter().any(|column| column.name == name) {
                            source.on.push(pair(scope, &name, begin, middle)?);
                        }
                    }
                }
            }
            into.push(source);
        }
        Ok(())
    }

    fn factor(&self, factor: &TableFactor, scope: &Scope<'_>) -> Result<Source, Refusal> {
        let source = |rows, width| Source { rows, join: Join::Inner, on: Vec::new(), width };
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let words = parts(name);
                let Some(last) = words.last() else { return Err(Refusal::unsupported("a table without a name")) };
                if let Some(named) = scope.named(last).filter(|_| words.len() == 1) {
                    let columns = named.query.columns.iter().map(|column| (column.name.clone(), told(column.kind)));
                    let width = add(scope, alias.as_ref(), Some(last), columns);
                    return Ok(source(Rows::Query { query: named.query.clone(), lateral: false }, width));
                }
                let Some(relation) = self.catalog.find(&words) else {
                    let detail = format!("relation \"{}\" does not exist", words.join("."));
                    return Err(Refusal::new(refusal::NO_TABLE, detail).at(name.span()));
                };
                let columns = relation.columns.iter().map(|column| (column.name.to_owned(), column.kind));
                let own = [("tableoid".to_owned(), OID)];
                let width = add(scope, alias.as_ref(), Some(last), columns);
                // Every row tells its relation, where it is asked by name.
                add(scope, None, alias.as_ref().map(|alias| folded(&alias.name)).as_ref().or(Some(last)), own);
                if let Some(column) = scope.columns.borrow_mut().last_mut() {
                    column.hidden = true;
                }
                Ok(source(Rows::Relation(relation), width + 1))
            }
            TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                self.function_rows(name, &args.args, alias.as_ref(), *with_ordinality, scope)
            }
            TableFactor::Function { name, args, with_ordinality, alias, .. } => {
                self.function_rows(name, args, alias.as_ref(), *with_ordinality, scope)
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
                let args: Vec<FunctionArg> = array_exprs.iter().map(|expr| unnamed(expr.clone())).collect();
                let name = ObjectName::from(vec![Ident::new("unnest")]);
                self.function_rows(&name, &args, alias.as_ref(), *with_ordinality, scope)
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let parent = if *lateral { Some(scope) } else { scope.parent };
                let (query, _) = self.query(subquery, parent)?;
                if *lateral {
                    // What it reads of this row is not read outside.
                    scope.reads_outside.set(true);
                }
                let columns: Vec<_> = query.columns.iter().map(|c| (c.name.clone(), told(c.kind))).collect();
                let width = add(scope, alias.as_ref(), None, columns);
                Ok(source(Rows::Query { query: Rc::new(query), lateral: *lateral }, width))
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                let begin = scope.width();
                let mut inner = Vec::new();
                let within = Scope { parent: scope.parent, ..Scope::default() };
                self.joined(table_with_joins, &within, &mut inner)?;
                scope.reads_outside.set(scope.reads_outside.get() || within.reads_outside.get());
                scope.columns.borrow_mut().extend(within.columns.into_inner());
                let width = scope.width() - begin;
                Ok(source(Rows::Nested(inner), width))
            }
            other => Err(Refusal::unsupported(format!("\"{other}\" in FROM")).at(other.span())),
        }
    }

    /// A function in `FROM`.
    fn function_rows(
        &self,
        name: &ObjectName,
        args: &[FunctionArg],
        alias: Option<&TableAlias>,
        numbered: bool,
        scope: &Scope<'_>,
    ) -> Result<Source, Refusal> {
        let words = parts(name);
        let last = words.last().cloned().unwrap_or_default();
        let list = FunctionArgumentList { duplicate_treatment: None, args: args.to_vec(), clauses: Vec::new() };
        let call = AstFunction {
            name: name.clone(),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(list),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: Vec::new(),
        };
        let (node, kind) = self.call(&call, scope, true)?;
        let called = alias.map_or_else(|| last.clone(), |alias| folded(&alias.name));
        let mut columns: Vec<(String, Oid)> = match kind {
            RECORD => fields(&last).iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
            kind => vec![(called.clone(), kind)],
        };
        if numbered {
            columns.push(("ordinality".to_owned(), INT8));
        }
        let width = add(scope, alias, Some(&called), columns);
        Ok(Source { rows: Rows::Function { node, numbered }, join: Join::Inner, on: Vec::new(), width })
    }
}

pub(crate) fn unnamed(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(datafusion::sql::sqlparser::ast::FunctionArgExpr::Expr(expr))
}

/// Adds columns to what can be named; tells how many.
fn add(
    scope: &Scope<'_>,
    alias: Option<&TableAlias>,
    name: Option<&String>,
    columns: impl IntoIterator<Item = (String, Oid)>,
) -> usize {
    let relation: Option<Rc<str>> =
        alias.map(|alias| folded(&alias.name)).or_else(|| name.cloned()).map(|name| name.as_str().into());
    let mut all = scope.columns.borrow_mut();
    let before = all.len();
    for (at, (name, kind)) in columns.into_iter().enumerate() {
        let renamed = alias.and_then(|alias| alias.columns.get(at)).map(|column| folded(&column.name));
        let kind = if kind == 0 { NAME } else { kind };
        all.push(Bound { relation: relation.clone(), name: renamed.unwrap_or(name), kind, hidden: false });
    }
    all.len() - before
}

/// Two columns of one name are equal, and one of them is meant from now on.
fn pair(scope: &Scope<'_>, name: &str, begin: usize, middle: usize) -> Result<Node, Refusal> {
    let mut columns = scope.columns.borrow_mut();
    let left = columns[begin..middle].iter().position(|column| column.name == *name && !column.hidden);
    let right = columns[middle..].iter().position(|column| column.name == *name && !column.hidden);
    let (Some(left), Some(right)) = (left, right) else {
        let detail = format!("column \"{name}\" specified in USING clause does not exist on both sides");
        return Err(Refusal::new(refusal::NO_COLUMN, detail));
    };
    columns[middle + right].hidden = true;
    let column = |at| Node::Column { up: 0, at };
    Ok(Node::Binary(Binary::Equal, Box::new([column(begin + left), column(middle + right)])))
}
