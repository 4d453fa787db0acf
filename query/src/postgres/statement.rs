//! What a statement wants: rows of entities, rows of catalogs, or something of the session.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CloseCursor, ContextModifier, DiscardObject, Expr, FetchDirection, Query, Reset, Set, SetExpr, Spanned, Statement,
    TransactionAccessMode, TransactionMode, Value, visit_relations, visit_statements,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::engine::sql::{CATALOG, SCHEMA};
use crate::postgres::catalog::{Catalog, parts};
use crate::postgres::refusal::{self, Refusal};
use crate::tables::catalog::ENTITIES;

/// Longest text of statements, bytes.
pub(crate) const MAX_TEXT: usize = 64 << 10;
/// Expressions and queries in each other.
const MAX_NESTED: usize = 50;
/// Operators of a text.
const MAX_OPERATORS: usize = 1000;

/// Where the rows of a query come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Entities,
    Catalogs,
    /// It names nothing that either has.
    Nowhere,
}

/// What a statement wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Rows(Box<Statement>, From),
    Set {
        name: String,
        value: Option<String>,
    },
    Show(Option<String>),
    Reset(Option<String>),
    Begin {
        writes: bool,
    },
    Commit,
    Rollback,
    Savepoint,
    Release,
    /// Back to a savepoint.
    Back,
    Discard {
        all: bool,
    },
    Deallocate(Option<String>),
    Declare {
        name: String,
        hold: bool,
        rows: Box<Command>,
    },
    /// So many rows of a cursor; all of them where nothing is said. They are given, or passed over.
    Fetch {
        name: String,
        most: Option<usize>,
    },
    Close(Option<String>),
    /// What has no effect: its tag.
    Nothing(&'static str),
}

/// Reads statements.
pub(crate) fn parse(text: &str) -> Result<Vec<Statement>, Refusal> {
    if text.len() > MAX_TEXT {
        return Err(Refusal::new(refusal::TOO_MUCH, format!("a statement has {MAX_TEXT} bytes at most")));
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| refusal::syntax(&error))?;
    if tokens.iter().filter(|token| chains(&token.token)).count() > MAX_OPERATORS {
        return Err(Refusal::new("54001", format!("statements have {MAX_OPERATORS} operators at most")));
    }
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(MAX_NESTED).with_tokens_with_locations(tokens);
    let mut parser = parser;
    parser.parse_statements().map_err(|error| match error {
        ParserError::RecursionLimitExceeded => {
            Refusal::new("54001", format!("a statement is nested {MAX_NESTED} deep at most"))
        }
        error => refusal::syntax(&error),
    })
}

/// Whether a word or sign makes what is parsed deeper without brackets: a chain of them is as deep as it is long.
fn chains(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::OPERATOR
                | Keyword::AT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
        ),
        Token::EOF | Token::Whitespace(_) | Token::Comma | Token::Period | Token::SemiColon => false,
        Token::LParen | Token::RParen | Token::RBracket | Token::Number(..) | Token::Placeholder(_) => false,
        Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => false,
        _ => true,
    }
}

impl Command {
    /// What a statement wants.
    pub(crate) fn of(statement: Statement) -> Result<Command, Refusal> {
        reads(&statement)?;
        Ok(match statement {
            Statement::Query(_) | Statement::Explain { .. } => {
                let from = from(&statement)?;
                Command::Rows(Box::new(statement), from)
            }
            Statement::Set(set) => setting(set)?,
            Statement::ShowVariable { variable } => {
                let words: Vec<String> = variable.iter().map(|ident| ident.value.clone()).collect();
                match words.join(" ").to_lowercase().as_str() {
                    "all" => Command::Show(None),
                    "time zone" => Command::Show(Some("TimeZone".to_owned())),
                    "transaction isolation level" => Command::Show(Some("transaction_isolation".to_owned())),
                    _ => Command::Show(Some(words.join("."))),
                }
            }
            Statement::Reset(reset) => Command::Reset(match reset.reset {
                Reset::ALL => None,
                Reset::ConfigurationParameter(name) => Some(name.to_string()),
            }),
            Statement::StartTransaction { modes, .. } => Command::Begin { writes: writes(&modes) },
            Statement::Commit { .. } => Command::Commit,
            Statement::Rollback { savepoint: None, .. } => Command::Rollback,
            Statement::Rollback { .. } => Command::Back,
            Statement::Savepoint { .. } => Command::Savepoint,
            Statement::ReleaseSavepoint { .. } => Command::Release,
            Statement::Discard { object_type } => Command::Discard { all: object_type == DiscardObject::ALL },
            Statement::Deallocate { name, .. } => {
                let all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all");
                Command::Deallocate((!all).then_some(name.value))
            }
            Statement::Declare { stmts } => declared(stmts)?,
            Statement::Fetch { name, direction, .. } => Command::Fetch { name: name.value, most: most(&direction)? },
            Statement::Close { cursor: CloseCursor::All } => Command::Close(None),
            Statement::Close { cursor: CloseCursor::Specific { name } } => Command::Close(Some(name.value)),
            Statement::LISTEN { .. } => Command::Nothing("LISTEN"),
            Statement::UNLISTEN { .. } => Command::Nothing("UNLISTEN"),
            Statement::Copy { to: true, .. } => {
                return Err(Refusal::unsupported("COPY TO").hint("use SELECT; psql writes files with \\g and \\o"));
            }
            other => return Err(refused(&other)),
        })
    }

    /// Whether it may follow what failed in a transaction.
    pub(crate) fn ends_failure(&self) -> bool {
        matches!(self, Command::Commit | Command::Rollback | Command::Back)
    }
}

/// What a statement that writes is told.
fn refused(statement: &Statement) -> Refusal {
    let words = statement.to_string();
    let word = words.split_whitespace().next().unwrap_or_default().to_uppercase();
    Refusal::new(refusal::READ_ONLY, format!("cannot execute {word} in a read-only transaction"))
}

/// Nothing in a statement may write, or lock.
fn reads(statement: &Statement) -> Result<(), Refusal> {
    let writes = visit_statements(statement, |inner| match inner {
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
            ControlFlow::Break(refused(inner))
        }
        Statement::Query(query) if !query.locks.is_empty() || into(&query.body) => ControlFlow::Break(Refusal::new(
            refusal::READ_ONLY,
            "cannot execute SELECT INTO, or SELECT FOR UPDATE, in a read-only transaction",
        )),
        _ => ControlFlow::Continue(()),
    });
    match writes {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

fn into(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_some(),
        SetExpr::Query(query) => into(&query.body),
        SetExpr::SetOperation { left, right, .. } => into(left) || into(right),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => true,
        _ => false,
    }
}

/// Where a query's rows come from: not from both.
fn from(statement: &Statement) -> Result<From, Refusal> {
    let (mut catalogs, mut entities) = (None, false);
    let _ = visit_relations(statement, |name| {
        let words = parts(name);
        if Catalog::has(&words) {
            catalogs = catalogs.or(Some(name.span()));
        } else if let [.., last] = &words[..] {
            let known = match &words[..words.len() - 1] {
                [] => true,
                [schema] => schema == SCHEMA,
                [catalog, schema] => catalog == CATALOG && schema == SCHEMA,
                _ => false,
            };
            entities |= known && ENTITIES.iter().any(|entity| entity.name == last);
        }
        ControlFlow::<()>::Continue(())
    });
    match (catalogs, entities) {
        (Some(span), true) => Err(Refusal::unsupported("a query of both entities and catalogs").at(span)),
        (Some(_), false) => Ok(From::Catalogs),
        (None, true) => Ok(From::Entities),
        (None, false) => Ok(From::Nowhere),
    }
}

fn writes(modes: &[TransactionMode]) -> bool {
    modes.iter().any(|mode| matches!(mode, TransactionMode::AccessMode(TransactionAccessMode::ReadWrite)))
}

fn setting(set: Set) -> Result<Command, Refusal> {
    Ok(match set {
        Set::SingleAssignment { variable, values, scope, .. } => {
            if scope == Some(ContextModifier::Global) {
                return Err(Refusal::new(refusal::SYNTAX, "SET GLOBAL is no statement of Postgres"));
            }
            let value = match &values[..] {
                [Expr::Identifier(word)] if word.value.eq_ignore_ascii_case("default") => None,
                values => Some(values.iter().map(said).collect::<Vec<_>>().join(", ")),
            };
            Command::Set { name: variable.to_string().replace('"', ""), value }
        }
        Set::SetTimeZone { value, .. } => Command::Set { name: "TimeZone".to_owned(), value: Some(said(&value)) },
        Set::SetNames { charset_name, .. } => {
            Command::Set { name: "client_encoding".to_owned(), value: Some(charset_name.value) }
        }
        Set::SetNamesDefault {} => Command::Set { name: "client_encoding".to_owned(), value: None },
        Set::SetTransaction { modes, .. } if writes(&modes) => {
            return Err(Refusal::new(
                refusal::READ_ONLY,
                "cannot set transaction read-write mode: only reading is possible",
            ));
        }
        Set::SetTransaction { .. } => Command::Nothing("SET"),
        Set::SetRole { role_name: None, .. } => Command::Nothing("SET"),
        other => return Err(Refusal::new("42501", format!("permission denied to set {other}"))),
    })
}

/// A value that is set, as text.
fn said(expr: &Expr) -> String {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(n, _) => n.clone(),
            Value::Boolean(is) => if *is { "on" } else { "off" }.to_owned(),
            other => other.clone().into_string().unwrap_or_default(),
        },
        Expr::Identifier(ident) => ident.value.clone(),
        other => other.to_string(),
    }
}

fn declared(mut stmts: Vec<datafusion::sql::sqlparser::ast::Declare>) -> Result<Command, Refusal> {
    let (Some(declare), true) = (stmts.pop(), stmts.is_empty()) else {
        return Err(Refusal::unsupported("more than one cursor in a DECLARE"));
    };
    let (Some(name), Some(query)) = (declare.names.first(), declare.for_query) else {
        return Err(Refusal::unsupported("a DECLARE without a query"));
    };
    if declare.scroll == Some(true) {
        return Err(Refusal::unsupported("a cursor that goes back (SCROLL)"));
    }
    if declare.binary == Some(true) {
        return Err(Refusal::unsupported("a binary cursor"));
    }
    let rows = Command::of(Statement::Query(query))?;
    Ok(Command::Declare { name: name.value.clone(), hold: declare.hold == Some(true), rows: Box::new(rows) })
}

fn most(direction: &FetchDirection) -> Result<Option<usize>, Refusal> {
    let limit = |value: &Value| match value {
        Value::Number(n, _) => n.parse().ok(),
        _ => None,
    };
    let back = || Refusal::new("55000", "cursor can only scan forward");
    match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Ok(Some(1)),
        FetchDirection::All | FetchDirection::ForwardAll => Ok(None),
        FetchDirection::Count { limit: value } | FetchDirection::Forward { limit: Some(value) } => {
            limit(&value.value).map(Some).ok_or_else(back)
        }
        _ => Err(back()),
    }
}

/// A query, where a statement is one.
pub(crate) fn query(statement: &Statement) -> Option<&Query> {
    match statement {
        Statement::Query(query) => Some(query),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Result<Command, Refusal> {
        parse(text).and_then(|mut all| Command::of(all.remove(0)))
    }

    fn code(text: &str) -> &'static str {
        command(text).err().map_or("", |refusal| refusal.code)
    }

    #[test]
    fn what_writes_is_refused_wherever_it_stands() {
        for text in [
            "insert into devices values (1)",
            "update devices set uid = ''",
            "delete from devices",
            "truncate devices",
            "create table x (a int)",
            "drop table devices",
            "alter table devices add x int",
            "select * into x from devices",
            "select * from devices for update",
            "with x as (delete from devices returning uid) select * from x",
            "copy devices from stdin",
            "begin read write; x",
            "grant select on devices to me",
            "vacuum",
        ] {
            let refused = match command(text.split("; ").next().unwrap()) {
                Ok(Command::Begin { writes }) => writes,
                Ok(_) => false,
                Err(refusal) => refusal.code == refusal::READ_ONLY,
            };
            assert!(refused, "{text}: {:?}", command(text));
        }
        assert_eq!(code("copy devices to stdout"), refusal::UNSUPPORTED);
    }

    #[test]
    fn statements_are_known_by_what_they_read() {
        for (text, is) in [
            ("select 1", From::Nowhere),
            ("select * from devices", From::Entities),
            ("select * from public.devices d join radarflow.public.flows f on true", From::Entities),
            ("with x as (select * from \"devices\") select * from x", From::Entities),
            ("select * from pg_class", From::Catalogs),
            ("select * from information_schema.tables", From::Catalogs),
            ("select * from generate_series(1, 2)", From::Nowhere),
        ] {
            let Ok(Command::Rows(_, from)) = command(text) else { panic!("{text}") };
            assert_eq!(from, is, "{text}");
        }
        assert_eq!(code("select * from pg_class, devices"), refusal::UNSUPPORTED);
    }

    #[test]
    fn commands_of_the_session_are_known() {
        let set = |name: &str, value: &str| Command::Set { name: name.into(), value: Some(value.into()) };
        for (text, is) in [
            ("set application_name = 'x'", set("application_name", "x")),
            ("SET extra_float_digits TO 3", set("extra_float_digits", "3")),
            ("set search_path to a, b", set("search_path", "a, b")),
            ("set time zone 'UTC'", set("TimeZone", "UTC")),
            ("set session characteristics as transaction read only", Command::Nothing("SET")),
            ("show transaction isolation level", Command::Show(Some("transaction_isolation".into()))),
            ("show server_version", Command::Show(Some("server_version".into()))),
            ("begin", Command::Begin { writes: false }),
            ("rollback to savepoint a", Command::Back),
            ("discard all", Command::Discard { all: true }),
            ("deallocate all", Command::Deallocate(None)),
            ("fetch forward 5 from \"c\"", Command::Fetch { name: "c".into(), most: Some(5) }),
            ("close c", Command::Close(Some("c".into()))),
        ] {
            assert_eq!(command(text), Ok(is), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(parse(&deep).unwrap_err().code, "54001");
        let long = format!("select {}1", "1 + ".repeat(MAX_OPERATORS + 1));
        assert_eq!(parse(&long).unwrap_err().code, "54001");
        assert!(parse(&format!("select 1 in ({}1)", "1, ".repeat(5000))).is_ok());
        assert_eq!(parse("select 1 +").unwrap_err().code, refusal::SYNTAX);
    }
}
