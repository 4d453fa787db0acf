//! Why a statement is not answered, as clients of Postgres are told: a code of five characters (SQLSTATE), words, a place.

use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::QueryError;

/// The feature exists in Postgres and not here.
pub(crate) const UNSUPPORTED: &str = "0A000";
/// What was sent is not of the protocol.
pub(crate) const PROTOCOL: &str = "08P01";
/// Nobody is let in with this password.
pub(crate) const BAD_PASSWORD: &str = "28P01";
/// Nobody is let in this way.
pub(crate) const NOT_LET_IN: &str = "28000";
/// Only reading is possible.
pub(crate) const READ_ONLY: &str = "25006";
/// An earlier statement of the transaction failed.
pub(crate) const FAILED_TRANSACTION: &str = "25P02";
pub(crate) const SYNTAX: &str = "42601";
pub(crate) const NO_COLUMN: &str = "42703";
pub(crate) const NO_TABLE: &str = "42P01";
pub(crate) const NO_FUNCTION: &str = "42883";
pub(crate) const AMBIGUOUS: &str = "42702";
/// A value cannot be computed of those that were asked for.
pub(crate) const BAD_DATA: &str = "22000";
pub(crate) const BAD_TYPE: &str = "42804";
pub(crate) const BAD_TEXT: &str = "22P02";
pub(crate) const BAD_VALUE: &str = "22023";
pub(crate) const BAD_BINARY: &str = "22P03";
pub(crate) const NO_SETTING: &str = "42704";
pub(crate) const NO_STATEMENT: &str = "26000";
pub(crate) const NO_CURSOR: &str = "34000";
pub(crate) const TAKEN_STATEMENT: &str = "42P05";
pub(crate) const TAKEN_CURSOR: &str = "42P03";
pub(crate) const NO_TRANSACTION: &str = "25P01";
pub(crate) const MANY_ROWS: &str = "21000";
/// More than is allowed of a thing.
pub(crate) const TOO_MUCH: &str = "54000";
pub(crate) const TOO_MANY_CONNECTIONS: &str = "53300";
pub(crate) const OUT_OF_MEMORY: &str = "53200";
pub(crate) const CANCELLED: &str = "57014";
/// The connection is ended from here.
pub(crate) const ENDED: &str = "57P01";
pub(crate) const IDLE: &str = "57P05";
pub(crate) const INTERNAL: &str = "XX000";

/// A place in a statement: line and column, from 1.
pub(crate) type Place = (u64, u64);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// SQLSTATE.
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) place: Option<Place>,
    pub(crate) hint: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into(), place: None, hint: None }
    }

    /// What exists in Postgres and not here.
    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Refusal {
        Refusal::new(UNSUPPORTED, format!("{what} is not supported"))
    }

    /// The same, with a place.
    pub(crate) fn at(mut self, span: Span) -> Refusal {
        let start = span.start;
        self.place = self.place.or((start.line > 0).then_some((start.line, start.column)));
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }

    /// The place as the protocol counts: characters from 1.
    pub(crate) fn position(&self, text: &str) -> Option<usize> {
        let (line, column) = self.place?;
        let skipped = usize::try_from(line.checked_sub(1)?).ok()?;
        let before: usize = text.split_inclusive('\n').take(skipped).map(|line| line.chars().count()).sum();
        Some(before + usize::try_from(column).ok()?)
    }
}

/// A place that words tell of, as the parser writes it.
fn told(detail: &str) -> Option<Place> {
    let (_, place) = detail.rsplit_once("at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(line)?, digits(column)?))
}

/// A parser's complaint.
pub(crate) fn syntax(error: &impl std::fmt::Display) -> Refusal {
    let said = error.to_string();
    let detail = said.trim_start_matches("sql parser error: ");
    let place = told(detail);
    let detail = detail.rsplit_once(" at Line: ").map_or(detail, |(words, _)| words);
    Refusal { place, ..Refusal::new(SYNTAX, detail) }
}

/// What the engine says of a statement, whose text it is.
pub(crate) fn refusal(error: &QueryError, text: &str) -> Refusal {
    let said = error.to_string();
    match error {
        QueryError::Language(wrong) => {
            let place = (wrong.end > wrong.start).then(|| wrong.position(text));
            let place = place.map(|(line, column)| (line as u64, column as u64));
            let says = |words: &str| wrong.detail.contains(words);
            let code = match () {
                () if wrong.code == "cannot_compute" => BAD_DATA,
                () if says("there is no column") => NO_COLUMN,
                () if says("there is no table") => NO_TABLE,
                () if says("Ambiguous reference") => AMBIGUOUS,
                () if says("Invalid function") => NO_FUNCTION,
                () if says("not supported:") => READ_ONLY,
                () => SYNTAX,
            };
            let hint = wrong.did_you_mean.as_ref().map(|near| format!("Perhaps you meant \"{near}\"."));
            Refusal { code, detail: wrong.detail.clone(), place, hint }
        }
        QueryError::Cursor(_) => Refusal::new(NO_CURSOR, said),
        QueryError::Forbidden(_) => Refusal::new("42501", said),
        QueryError::Expired | QueryError::Forgotten(_) => Refusal::new(BAD_VALUE, said),
        QueryError::TimedOut => Refusal::new(CANCELLED, said),
        QueryError::Ended => Refusal::new(ENDED, said),
        QueryError::Busy => Refusal::new(TOO_MANY_CONNECTIONS, said),
        QueryError::TooLarge(_) => Refusal::new(OUT_OF_MEMORY, said),
        QueryError::Failed(detail) => {
            tracing::error!(detail, "a query failed");
            Refusal::new(INTERNAL, said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let wrong = syntax(&"sql parser error: Expected: an expression, found: , at Line: 2, Column: 3");
        assert_eq!((wrong.code, wrong.detail.as_str()), (SYNTAX, "Expected: an expression, found: ,"));
        assert_eq!(wrong.position("sélect\nä,,"), Some(10));
        assert_eq!(syntax(&"nothing").position("x"), None);
    }
}
