//! How large a statement of SQL may be: known before it is planned, since planning is work that grows faster than its text.
//!
//! A table that is named by `WITH` is as large as what it is made of, each time it stands in the statement; so a few lines can
//! stand for thousands of tables. That is what is counted.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, SetExpr, Visit, Visitor};

/// Expressions of a statement, constants left out.
pub const MAX_EXPRESSIONS: usize = 2000;
/// Constants of a statement.
pub const MAX_CONSTANTS: usize = 10_000;
/// Expressions in one another: `1+1+1` are two.
pub const MAX_EXPRESSION_DEPTH: usize = 200;
/// Queries in one another.
pub const MAX_QUERY_DEPTH: usize = 16;
/// Tables of a statement, those of `WITH` counted wherever they stand.
pub const MAX_TABLES: usize = 32;

/// Whether a statement may be planned, or why not.
pub(crate) fn check(statement: &Statement) -> Result<(), String> {
    // What is none of SQL's own statements is refused where it is planned.
    let Statement::Statement(statement) = statement else { return Ok(()) };
    let mut size = Size::default();
    match statement.visit(&mut size) {
        ControlFlow::Break(why) => Err(why),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Size {
    expressions: usize,
    constants: usize,
    depth: usize,
    /// Tables of the queries around this place, outermost first.
    queries: Vec<usize>,
    /// Tables of what `WITH` names.
    named: BTreeMap<String, usize>,
    /// The name that a query will have, by where it is in memory.
    names: BTreeMap<usize, String>,
}

fn place(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Size {
    fn at_most(n: usize, most: usize, what: &str) -> ControlFlow<String> {
        if n > most {
            return ControlFlow::Break(format!("a statement has {most} {what} at most"));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Size {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.insert(place(&table.query), table.alias.name.value.to_ascii_lowercase());
        }
        self.queries.push(0);
        Self::at_most(self.queries.len(), MAX_QUERY_DEPTH, "queries in one another")?;
        Self::at_most(set_operations(&query.body), MAX_TABLES, "queries beside one another")
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let tables = self.queries.pop().unwrap_or(0).max(1);
        match self.names.remove(&place(query)) {
            Some(name) => {
                let known = self.named.entry(name).or_default();
                *known = tables.max(*known);
            }
            None => {
                if let Some(around) = self.queries.last_mut() {
                    *around += tables;
                }
            }
        }
        Self::at_most(tables, MAX_TABLES, "tables")
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<String> {
        let name = name.0.last().map(|part| part.to_string().to_ascii_lowercase()).unwrap_or_default();
        let tables = self.named.get(name.trim_matches('"')).copied().unwrap_or(1);
        if let Some(around) = self.queries.last_mut() {
            *around += tables;
            return Self::at_most(*around, MAX_TABLES, "tables");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        self.depth += 1;
        if matches!(expr, Expr::Value(_)) {
            self.constants += 1;
        } else {
            self.expressions += 1;
        }
        Self::at_most(self.constants, MAX_CONSTANTS, "constants")?;
        Self::at_most(self.expressions, MAX_EXPRESSIONS, "expressions")?;
        Self::at_most(self.depth, MAX_EXPRESSION_DEPTH, "expressions in one another")
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<String> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// Queries that `UNION` and the like put beside one another; those in brackets are queries of their own.
fn set_operations(body: &SetExpr) -> usize {
    let (mut n, mut body) = (1, body);
    while let SetExpr::SetOperation { left, .. } = body {
        n += 1;
        body = left;
    }
    n
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    fn said(sql: &str) -> Result<(), String> {
        check(&DFParser::parse_sql(sql).expect("it is SQL")[0])
    }

    #[test]
    fn what_stands_for_much_is_counted_as_much() {
        let doubled = |n: usize| {
            let tables = (1..=n).map(|n| format!("t{n} AS (SELECT a.uid FROM t{} a, t{} b)", n - 1, n - 1));
            let tables = tables.collect::<Vec<_>>().join(", ");
            format!("WITH t0 AS (SELECT uid FROM devices), {tables} SELECT count(*) FROM t{n}")
        };
        assert_eq!(said(&doubled(5)), Ok(()));
        assert!(said(&doubled(6)).unwrap_err().contains("tables"));
        assert!(said(&doubled(40)).unwrap_err().contains("tables"));
        // The same where it stands in a query in brackets.
        assert!(said(&format!("SELECT 1 FROM ({}) x", doubled(6))).is_err());
        let union = |n: usize| vec!["SELECT 1"; n].join(" UNION ALL ");
        assert_eq!(said(&union(MAX_TABLES)), Ok(()));
        assert!(said(&union(MAX_TABLES + 1)).is_err());
    }

    #[test]
    fn expressions_are_counted_and_how_deep_they_are() {
        let sum = |n: usize| format!("SELECT {}", vec!["1"; n].join("+"));
        assert_eq!(said(&sum(100)), Ok(()));
        assert!(said(&sum(3000)).unwrap_err().contains("in one another"));
        let list = |n: usize| format!("SELECT 1 FROM devices WHERE uid IN ({})", vec!["'x'"; n].join(","));
        assert_eq!(said(&list(9000)), Ok(()));
        assert!(said(&list(10_001)).unwrap_err().contains("constants"));
        let wide = |n: usize| format!("SELECT {} FROM devices", vec!["upper(uid)"; n].join(","));
        assert_eq!(said(&wide(900)), Ok(()));
        assert!(said(&wide(2001)).unwrap_err().contains("expressions"));
    }
}
