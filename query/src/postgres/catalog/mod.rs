//! What Postgres tells of itself in `pg_catalog` and `information_schema`, made from the one catalog: tools ask it for the
//! tables and columns there are, in SQL that only Postgres speaks.
//!
//! ```text
//! parsed query ─► bind (names, types) ─► node ─► run (rows) ─► eval (expressions)
//!                     ▲                            ▲
//!                  functions                    tables: rows of the relations, made when they are read
//! ```
//! The engine does not answer these: what tools send is full of correlated queries, arrays of queries, functions that give
//! rows, and names as numbers (`::regclass`), which DataFusion does not plan. The relations are small; a query of them is run
//! row by row, within bounds of its own ([`run`]). A statement reads either entities or these relations.
//!
//! Every entity is a table of the schema `public`, owned by a role that nobody has. There are no keys, indexes, defaults,
//! functions of one's own or other databases: their relations are there, and empty.

mod bind;
mod eval;
mod from;
mod functions;
mod node;
mod run;
mod scope;
mod tables;
mod terms;
#[cfg(test)]
mod tests;
pub(crate) mod value;

use std::cell::Cell;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast;

pub(crate) use self::bind::name_of;
use self::bind::{Binder, told};
pub(crate) use self::from::parts;
pub(crate) use self::node::{Column, Row};
pub(crate) use self::run::MAX_BYTES;
use self::run::Run;
use crate::engine::sql::{CATALOG, SCHEMA};
use crate::postgres::kinds::{self, *};
use crate::postgres::refusal::Refusal;
use crate::postgres::types;
use crate::tables::catalog::ENTITIES;

/// The number of the first entity.
const FIRST_ENTITY: Oid = 16_384;
/// The numbers of schemas.
const PG_CATALOG: Oid = 11;
const PUBLIC: Oid = 2200;
const INFORMATION_SCHEMA: Oid = 13_000;
/// The role that owns everything.
const OWNER: Oid = 10;
/// The role of whoever asks.
const ASKER: Oid = 16_000;

/// A relation.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) oid: Oid,
    pub(crate) schema: &'static str,
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) doc: &'static str,
    pub(crate) columns: Vec<Attribute>,
}

/// A column of a relation.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) name: &'static str,
    pub(crate) kind: Oid,
    pub(crate) doc: &'static str,
    /// Whether it always has a value.
    pub(crate) required: bool,
}

/// Every relation: those of Postgres, and the entities.
static RELATIONS: LazyLock<Vec<Relation>> = LazyLock::new(|| {
    let lines = include_str!("relations.txt").lines().filter(|line| !line.starts_with('#'));
    let mut relations: Vec<Relation> = lines.filter_map(read).collect();
    for (at, entity) in ENTITIES.iter().enumerate() {
        let schema = entity.table.schema();
        let columns = schema.fields().iter().zip(entity.table.columns()).map(|(field, column)| Attribute {
            name: column.name,
            kind: types::kind_of(field.data_type()),
            doc: column.doc,
            required: !field.is_nullable(),
        });
        let (oid, doc) = (FIRST_ENTITY + at as Oid, entity.table.doc());
        relations.push(Relation { oid, schema: SCHEMA, name: entity.name, doc, columns: columns.collect() });
    }
    relations
});

fn read(line: &'static str) -> Option<Relation> {
    let mut words = line.split(' ');
    let (schema, name) = words.next()?.split_once('.')?;
    let oid = words.next()?.parse().ok()?;
    let column = |word: &'static str| {
        let (name, kind) = word.split_once(':')?;
        Some(Attribute { name, kind: kinds::named_exactly(kind)?.oid, doc: "", required: name == "oid" })
    };
    Some(Relation { oid, schema, name, doc: "", columns: words.map(column).collect::<Option<_>>()? })
}

/// What one session is told.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    user: String,
    pid: i32,
    /// Settings by name.
    settings: Vec<(String, String)>,
}

impl Catalog {
    pub(crate) fn new(user: String, pid: i32, settings: Vec<(String, String)>) -> Catalog {
        Catalog { user, pid, settings }
    }

    /// Whether a name, as a query writes it, is a relation of these.
    pub(crate) fn has(words: &[String]) -> bool {
        lookup(words).is_some_and(|relation| relation.schema != SCHEMA)
    }

    /// The columns that a query gives; parameters have these types where they are known.
    pub(crate) fn columns(&self, query: &ast::Query, parameters: &[Oid]) -> Result<Vec<Column>, Refusal> {
        Ok(self.bound(query, parameters)?.columns.into_iter().map(shown).collect())
    }

    /// The columns and the rows that a query gives, as long as they are wanted, and the bytes that were made for them.
    pub(crate) fn answer(
        &self,
        query: &ast::Query,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Column>, Vec<Row>, usize), Refusal> {
        let bound = self.bound(query, &[])?;
        let run = Run::new(self, wanted);
        let rows = run.query(&bound, None)?;
        Ok((bound.columns.into_iter().map(shown).collect(), rows, run.made()))
    }

    fn bound(&self, query: &ast::Query, parameters: &[Oid]) -> Result<node::Query, Refusal> {
        Ok(Binder { catalog: self, parameters, depth: Cell::new(0) }.query(query, None)?.0)
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn database(&self) -> &'static str {
        CATALOG
    }

    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(setting, _)| setting.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn by_oid(&self, oid: Oid) -> Option<&'static Relation> {
        RELATIONS.iter().find(|relation| relation.oid == oid)
    }

    /// The relation of a name: of the catalog where it says no schema, then of the entities.
    pub(crate) fn find(&self, words: &[String]) -> Option<&'static Relation> {
        lookup(words)
    }

    pub(crate) fn role(&self, oid: Oid) -> String {
        match oid {
            OWNER => CATALOG.to_owned(),
            ASKER => self.user.clone(),
            other => format!("unknown (OID={other})"),
        }
    }

    /// The name of what a catalog numbers.
    pub(crate) fn name(&self, kind: Oid, oid: Oid) -> Option<String> {
        match kind {
            REGCLASS => self.by_oid(oid).map(|relation| match relation.schema {
                "information_schema" => format!("{}.{}", relation.schema, relation.name),
                _ => relation.name.to_owned(),
            }),
            REGTYPE => kinds::kind(oid).map(|kind| kind.sql.to_owned()),
            REGNAMESPACE => SCHEMAS.iter().find(|(number, _)| *number == oid).map(|(_, name)| (*name).to_owned()),
            REGROLE => matches!(oid, OWNER | ASKER).then(|| self.role(oid)),
            REGPROC | REGPROCEDURE => tables::function_name(oid),
            _ => None,
        }
    }

    /// The number of what a catalog names.
    pub(crate) fn numbered(&self, kind: Oid, name: &str) -> Option<Oid> {
        let words: Vec<String> = name.split('.').map(word).collect();
        let last = words.last()?;
        match kind {
            REGCLASS => lookup(&words).map(|relation| relation.oid),
            REGTYPE => kinds::named(name).or_else(|| kinds::named(last)).map(|kind| kind.oid),
            REGNAMESPACE => SCHEMAS.iter().find(|(_, schema)| schema == last).map(|(oid, _)| *oid),
            REGROLE => [OWNER, ASKER].into_iter().find(|oid| self.role(*oid) == *last),
            _ => tables::function_oid(last.split('(').next()?),
        }
    }

    /// The rows of a relation.
    pub(crate) fn rows(&self, relation: &'static Relation) -> Vec<Row> {
        tables::rows(self, relation)
    }
}

/// The schemas there are.
const SCHEMAS: [(Oid, &str); 3] =
    [(PG_CATALOG, "pg_catalog"), (INFORMATION_SCHEMA, "information_schema"), (PUBLIC, SCHEMA)];

fn lookup(words: &[String]) -> Option<&'static Relation> {
    let (name, schema) = match words {
        [name] => (name, None),
        [schema, name] => (name, Some(schema)),
        [catalog, schema, name] if catalog == CATALOG => (name, Some(schema)),
        _ => return None,
    };
    let of = |wanted: &str| RELATIONS.iter().find(|relation| relation.schema == wanted && relation.name == *name);
    match schema {
        Some(schema) => of(schema),
        None => of("pg_catalog").or_else(|| of(SCHEMA)),
    }
}

/// A word of a name that a text holds.
fn word(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inside) => inside.replace("\"\"", "\""),
        None => text.to_lowercase(),
    }
}

fn shown(column: Column) -> Column {
    Column { kind: told(column.kind), ..column }
}
