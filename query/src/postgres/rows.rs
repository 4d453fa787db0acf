//! The rows of a statement as they are sent: of entities as the engine gives them, a batch at a time; of catalogs and of the
//! session from memory, where they are few.

use std::sync::Arc;

use arrow_array::ArrayRef;
use datafusion::sql::sqlparser::ast::Statement;

use crate::actor::Actor;
use crate::engine::export::Export;
use crate::engine::{Engine, cancel, parsed};
use crate::error::QueryError;
use crate::postgres::catalog::value::told;
use crate::postgres::catalog::{Catalog, Column, MAX_BYTES, Row};
use crate::postgres::fit;
use crate::postgres::kinds::{Oid, TEXT};
use crate::postgres::limits::Asked;
use crate::postgres::refusal::{self, Refusal, refusal};
use crate::postgres::statement::{self, From};
use crate::postgres::types;
use crate::postgres::wire::Out;

/// Bytes that are gathered before they are sent.
pub(crate) const CHUNK: usize = 64 << 10;

/// Rows that are being given.
pub(crate) struct Given {
    pub(crate) columns: Vec<Column>,
    rows: Rows,
}

enum Rows {
    Engine { export: Box<Export>, batch: Vec<ArrayRef>, rows: usize, next: usize },
    Memory { catalog: Arc<Catalog>, rows: std::vec::IntoIter<Row>, _memory: Option<Asked> },
}

/// How far the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) rows: usize,
    pub(crate) end: bool,
}

/// What a session asks with.
pub(crate) struct Asker {
    pub(crate) engine: Arc<Engine>,
    pub(crate) actor: Actor,
    pub(crate) catalog: Arc<Catalog>,
    /// For rows that wait for the client.
    pub(crate) room: Asked,
}

/// What evaluates catalogs does not know, and the engine may.
fn may_be_known(refusal: &Refusal) -> bool {
    matches!(refusal.code, refusal::UNSUPPORTED | refusal::NO_FUNCTION | refusal::NO_SETTING)
}

impl Asker {
    /// Runs a statement without parameters.
    pub(crate) async fn rows(&self, statement: &Statement, from: From, text: &str) -> Result<Given, Refusal> {
        match from {
            From::Entities => self.of_engine(statement, text).await,
            From::Catalogs => self.of_catalogs(statement).await,
            From::Nowhere => match self.of_catalogs(statement).await {
                Err(refusal) if may_be_known(&refusal) => match self.of_engine(statement, text).await {
                    // The catalogs' words fit what Postgres says of what neither knows.
                    Err(other) if other.code == refusal::NO_FUNCTION && refusal.code == refusal::NO_FUNCTION => {
                        Err(refusal)
                    }
                    answer => answer,
                },
                answer => answer,
            },
        }
    }

    /// The columns a statement gives, and the types of its parameters; `known` are those the client said.
    pub(crate) async fn shape(
        &self,
        statement: &Statement,
        from: From,
        known: &[Oid],
        text: &str,
    ) -> Result<(Vec<Column>, Vec<Oid>), Refusal> {
        match from {
            From::Catalogs => self.shape_of_catalogs(statement, known).await,
            From::Entities => self.shape_of_engine(statement, known, text).await,
            From::Nowhere => match self.shape_of_catalogs(statement, known).await {
                Err(refusal) if may_be_known(&refusal) => self.shape_of_engine(statement, known, text).await,
                shape => shape,
            },
        }
    }

    async fn shape_of_catalogs(
        &self,
        statement: &Statement,
        known: &[Oid],
    ) -> Result<(Vec<Column>, Vec<Oid>), Refusal> {
        let query = statement::query(statement).ok_or_else(|| Refusal::unsupported("EXPLAIN of catalogs"))?;
        let (catalog, query, kinds) = (self.catalog.clone(), query.clone(), known.to_vec());
        let columns = self.engine.beside(&self.actor, MAX_BYTES, move || catalog.columns(&query, &kinds)).await;
        let (columns, _) = columns.map_err(|error| refusal(&error, ""))?;
        let columns = columns?;
        Ok((columns, known.iter().map(|kind| if *kind == 0 { TEXT } else { *kind }).collect()))
    }

    async fn shape_of_engine(
        &self,
        statement: &Statement,
        known: &[Oid],
        text: &str,
    ) -> Result<(Vec<Column>, Vec<Oid>), Refusal> {
        let fitted = fit::fitted(typed(statement, known), &self.catalog)?;
        let shape = self.engine.shape(&self.actor, read(fitted, text)).await.map_err(|error| refusal(&error, text))?;
        let kind = |(at, known): (usize, &Oid)| match known {
            0 => {
                let found = shape.parameters.get(&format!("${}", at + 1)).and_then(Option::as_ref);
                found.map_or(TEXT, types::kind_of)
            }
            known => *known,
        };
        Ok((columns(&shape.schema, statement), known.iter().enumerate().map(kind).collect()))
    }

    async fn of_engine(&self, statement: &Statement, text: &str) -> Result<Given, Refusal> {
        let fitted = fit::fitted(statement.clone(), &self.catalog)?;
        let export = self.engine.export_parsed(&self.actor, read(fitted, text)).await;
        let export = export.map_err(|error| refusal(&error, text))?;
        let columns = columns(&export.schema, statement);
        let rows = Rows::Engine { export: Box::new(export), batch: Vec::new(), rows: 0, next: 0 };
        Ok(Given { columns, rows })
    }

    async fn of_catalogs(&self, statement: &Statement) -> Result<Given, Refusal> {
        let query = statement::query(statement).ok_or_else(|| Refusal::unsupported("EXPLAIN of catalogs"))?;
        let (catalog, query) = (self.catalog.clone(), query.clone());
        let work = move || catalog.answer(&query, &|| cancel::check().is_ok());
        let answer = self.engine.beside(&self.actor, MAX_BYTES, work).await;
        let (answer, made) = answer.map_err(|error| refusal(&error, ""))?;
        let (columns, rows, bytes) = answer?;
        // From here on they wait for this client: in its own memory, not in that of all queries.
        let memory = self.room.of(bytes)?;
        drop(made);
        let rows = Rows::Memory { catalog: self.catalog.clone(), rows: rows.into_iter(), _memory: Some(memory) };
        Ok(Given { columns, rows })
    }
}

fn read(parsed: Statement, text: &str) -> parsed::Statement {
    parsed::Statement { parsed, text: text.into() }
}

/// A statement whose parameters say the types that the client said.
fn typed(statement: &Statement, known: &[Oid]) -> Statement {
    use datafusion::sql::sqlparser::ast::{Expr, Value, visit_expressions_mut};
    let mut statement = statement.clone();
    let _ = visit_expressions_mut(&mut statement, |expr| {
        let at = match expr {
            Expr::Value(value) => match &value.value {
                Value::Placeholder(name) => name.trim_start_matches('$').parse::<usize>().ok(),
                _ => None,
            },
            _ => None,
        };
        let known = at.and_then(|at| known.get(at.checked_sub(1)?)).copied();
        if let Some(to) = known.and_then(crate::postgres::parameters::sql_type) {
            *expr = crate::postgres::parameters::cast(expr.clone(), to);
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    statement
}

fn columns(schema: &arrow_schema::Schema, statement: &Statement) -> Vec<Column> {
    let column =
        |field: &arrow_schema::FieldRef| Column { name: field.name().clone(), kind: types::kind_of(field.data_type()) };
    let mut columns: Vec<Column> = schema.fields().iter().map(column).collect();
    fit::called(&mut columns, &fit::names(statement));
    columns
}

impl Given {
    /// A few rows of the session's own.
    pub(crate) fn memory(catalog: Arc<Catalog>, columns: Vec<Column>, rows: Vec<Row>) -> Given {
        Given { columns, rows: Rows::Memory { catalog, rows: rows.into_iter(), _memory: None } }
    }

    /// Writes the next rows, not more than `most`, and not many more bytes than a chunk.
    pub(crate) async fn write(&mut self, out: &mut Out, binary: &[bool], most: usize) -> Result<Sent, Refusal> {
        let wants = |at: usize| wants(binary, at);
        let mut sent = Sent { rows: 0, end: false };
        while sent.rows < most && out.0.len() < CHUNK {
            match &mut self.rows {
                Rows::Memory { catalog, rows, .. } => {
                    let Some(row) = rows.next() else {
                        sent.end = true;
                        break;
                    };
                    let columns = &self.columns;
                    out.message(b'D', |body| {
                        body.extend((columns.len() as i16).to_be_bytes());
                        for (at, (value, column)) in row.iter().zip(columns).enumerate() {
                            let text = || told(value, column.kind, |kind, oid| catalog.name(kind, oid));
                            types::catalog_field(value, column.kind, &text, wants(at), body);
                        }
                    });
                    sent.rows += 1;
                }
                Rows::Engine { export, batch, rows, next } => {
                    if *next == *rows {
                        match export.next().await {
                            None => {
                                sent.end = true;
                                break;
                            }
                            Some(Err(error)) => return Err(failed(&error)),
                            Some(Ok(new)) => {
                                *batch = new.columns().iter().map(types::plain).collect::<Result<_, _>>()?;
                                (*rows, *next) = (new.num_rows(), 0);
                                continue;
                            }
                        }
                    }
                    let row = *next;
                    out.message(b'D', |body| {
                        body.extend((batch.len() as i16).to_be_bytes());
                        batch.iter().enumerate().for_each(|(at, column)| types::field(column, row, wants(at), body));
                    });
                    *next += 1;
                    sent.rows += 1;
                }
            }
        }
        Ok(sent)
    }
}

fn failed(error: &QueryError) -> Refusal {
    refusal(error, "")
}

/// Whether a column is wanted binary: one word is for all of them.
pub(crate) fn wants(binary: &[bool], at: usize) -> bool {
    match binary {
        [all] => *all,
        each => each.get(at).copied().unwrap_or_default(),
    }
}
