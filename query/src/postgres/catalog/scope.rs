//! What names mean where they stand: the columns of a query's rows, those of the queries around it, and the queries that
//! `WITH` names.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use datafusion::sql::sqlparser::ast::Ident;

use crate::postgres::catalog::node::{Extra, Node, Query};
use crate::postgres::kinds::Oid;
use crate::postgres::refusal::{self, Refusal};

/// A column that can be named.
#[derive(Clone)]
pub(crate) struct Bound {
    /// The relation's name, or its alias.
    pub(crate) relation: Option<Rc<str>>,
    pub(crate) name: String,
    pub(crate) kind: Oid,
    /// Joined by name with another, which is meant.
    pub(crate) hidden: bool,
}

/// A query that `WITH` names.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) query: Rc<Query>,
}

/// What can be named in a query.
#[derive(Default)]
pub(crate) struct Scope<'p> {
    pub(crate) columns: RefCell<Vec<Bound>>,
    pub(crate) parent: Option<&'p Scope<'p>>,
    pub(crate) named: Vec<Named>,
    /// What is computed of more than one row, where that may be.
    pub(crate) extras: RefCell<Vec<Extra>>,
    pub(crate) aggregates: Cell<bool>,
    /// Something in it reads a row around it.
    pub(crate) reads_outside: Cell<bool>,
}

/// A name as SQL means it: lower case unless it is quoted.
pub(crate) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

impl<'p> Scope<'p> {
    pub(crate) fn inside(parent: Option<&'p Scope<'p>>) -> Scope<'p> {
        Scope { parent, ..Scope::default() }
    }

    pub(crate) fn width(&self) -> usize {
        self.columns.borrow().len()
    }

    pub(crate) fn named(&self, name: &str) -> Option<Named> {
        let own = self.named.iter().rev().find(|named| named.name == name);
        own.cloned().or_else(|| self.parent?.named(name))
    }

    /// The column of that name.
    pub(crate) fn column(&self, name: &[Ident]) -> Result<(Node, Oid), Refusal> {
        let Some((last, qualifier)) = name.split_last() else {
            return Err(Refusal::new(refusal::NO_COLUMN, "no column"));
        };
        let (wanted, relation) = (folded(last), qualifier.last().map(folded));
        let (mut scope, mut up) = (self, 0);
        loop {
            let columns = scope.columns.borrow();
            let fits = |column: &Bound| {
                column.name == wanted
                    && match &relation {
                        Some(relation) => column.relation.as_deref() == Some(relation),
                        None => !column.hidden,
                    }
            };
            let mut found = columns.iter().enumerate().filter(|(_, column)| fits(column));
            match (found.next(), found.next(), scope.parent) {
                (Some(_), Some(_), _) => {
                    let detail = format!("column reference \"{wanted}\" is ambiguous");
                    return Err(Refusal::new(refusal::AMBIGUOUS, detail).at(last.span));
                }
                (Some((at, column)), None, _) => {
                    self.reaches(up);
                    return Ok((Node::Column { up, at }, column.kind));
                }
                (None, _, Some(parent)) => (scope, up) = (parent, up + 1),
                (None, _, None) => {
                    let relation = relation.map(|relation| format!("{relation}.")).unwrap_or_default();
                    let detail = format!("column \"{relation}{wanted}\" does not exist");
                    return Err(Refusal::new(refusal::NO_COLUMN, detail).at(last.span));
                }
            }
        }
    }

    /// Every query from here to `up` further out reads a row around it.
    fn reaches(&self, up: usize) {
        let mut scope = self;
        for _ in 0..up {
            scope.reads_outside.set(true);
            let Some(parent) = scope.parent else { return };
            scope = parent;
        }
    }
}
