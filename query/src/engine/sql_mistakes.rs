//! What DataFusion says of a statement that it refuses, as a mistake of the asker's with its place: parsers say line and
//! column in words, planners in a diagnostic, some in neither; then it is where the name they speak of stands.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::error::{QueryError, Span, SrqlError, failed};
use crate::srql::near;
use crate::tables::catalog::{ENTITIES, nearest};

/// How a parser says where.
const AT: &str = " at Line: ";

/// A statement that is refused as a whole, at its first word.
pub(crate) fn refused(sql: &str, detail: impl Into<String>) -> QueryError {
    QueryError::Language(SrqlError::new("bad_sql", word_at(sql, sql.len() - sql.trim_start().len()), detail))
}

/// What is wrong with a statement.
pub(crate) fn mistake(sql: &str, error: &DataFusionError) -> QueryError {
    let told = error.diagnostic().and_then(|d| d.span).map(|s| {
        let (start, end) = (place(sql, s.start.line, s.start.column), place(sql, s.end.line, s.end.column));
        if end > start { (start, end) } else { word_at(sql, start) }
    });
    let root = error.find_root();
    let (detail, near, named) = match root {
        DataFusionError::ResourcesExhausted(_) => return failed(error),
        DataFusionError::SQL(parser, _) => {
            let (ParserError::TokenizerError(said) | ParserError::ParserError(said)) = parser.as_ref() else {
                return refused(sql, "the statement is nested too deep");
            };
            let (detail, at) = apart(said);
            let end = detail.ends_with("found: EOF").then_some((sql.len(), sql.len()));
            let span = at.map(|(line, column)| word_at(sql, place(sql, line, column))).or(end);
            return said_at(sql, detail.to_owned(), span, None);
        }
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let near = nearest(&field.name, valid_fields.iter().map(|f| f.name.as_str())).map(str::to_owned);
                (format!("there is no column {:?}", field.name), near, Some(field.name.clone()))
            }
            other => (other.to_string(), None, None),
        },
        other => {
            let detail = other.message().into_owned();
            match missing_table(&detail) {
                Some(table) => {
                    let near = near::entity(&table).map(str::to_owned);
                    (format!("there is no table {table:?}"), near, Some(table))
                }
                None => {
                    let quoted = detail.split('\'').nth(1).map(str::to_owned);
                    (detail, None, quoted)
                }
            }
        }
    };
    let span = told.or_else(|| named.and_then(|name| written(sql, &name)));
    let mut error = said_at(sql, detail, span, near.as_deref());
    if let QueryError::Language(error) = &mut error
        && missing_table(&root.to_string()).is_some()
    {
        error.expected = ENTITIES.iter().map(|e| e.name.to_owned()).collect();
    }
    error
}

fn said_at(sql: &str, detail: String, span: Option<Span>, near: Option<&str>) -> QueryError {
    match span {
        Some(span) => QueryError::Language(SrqlError::new("bad_sql", span, detail).suggest(near)),
        None => refused(sql, detail),
    }
}

/// What a parser says, apart from where.
fn apart(said: &str) -> (&str, Option<(u64, u64)>) {
    let Some((detail, at)) = said.rsplit_once(AT) else { return (said, None) };
    let numbers = at.split_once(", Column: ").and_then(|(line, rest)| {
        let column = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((line.parse().ok()?, column.parse().ok()?))
    });
    (detail, numbers)
}

/// The table that there is none of, as a planner says it.
fn missing_table(said: &str) -> Option<String> {
    let name = said.split_once("table '")?.1.split_once("' not found")?.0;
    Some(name.rsplit('.').next().unwrap_or(name).to_owned())
}

/// Where a line and a column are, both from 1.
fn place(sql: &str, line: u64, column: u64) -> usize {
    let nth = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    let start = match nth(line) {
        0 => 0,
        line => sql.match_indices('\n').nth(line - 1).map_or(sql.len(), |(at, _)| at + 1),
    };
    sql[start..].char_indices().nth(nth(column)).map_or(sql.len(), |(at, _)| start + at)
}

/// The word, or the character, that stands somewhere.
fn word_at(sql: &str, start: usize) -> Span {
    let rest = &sql[start..];
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    (start, start + end.max(rest.chars().next().map_or(0, char::len_utf8)))
}

/// Where a name stands as a word of its own.
fn written(sql: &str, name: &str) -> Option<Span> {
    let name = name.rsplit('.').next().filter(|n| !n.is_empty())?.to_ascii_lowercase();
    let lower = sql.to_ascii_lowercase();
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let apart = |at: usize| !lower[..at].ends_with(inside) && !lower[at + name.len()..].starts_with(inside);
    lower.match_indices(&name).map(|(at, _)| at).find(|at| apart(*at)).map(|at| (at, at + name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_lines_and_in_wide_characters() {
        let sql = "SELECT 'é',\n  nothing FROM t";
        assert_eq!(&sql[place(sql, 2, 3)..place(sql, 2, 10)], "nothing");
        assert_eq!(place(sql, 9, 9), sql.len());
        assert_eq!(written(sql, "a.NOTHING"), Some((place(sql, 2, 3), place(sql, 2, 10))));
        assert_eq!(written(sql, "noth"), None);
        assert_eq!(apart("Expected: x, found: y at Line: 2, Column: 3"), ("Expected: x, found: y", Some((2, 3))));
        assert_eq!(apart("what"), ("what", None));
        assert_eq!(missing_table("table 'radarflow.public.devics' not found").as_deref(), Some("devics"));
        assert_eq!(word_at("é x", 0), (0, 2));
    }
}
