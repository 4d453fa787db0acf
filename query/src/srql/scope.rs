//! Where a cursor is in a query that is being typed: in which query, a subquery or the one around it, under which object,
//! and in which term. It reads what stands there as far as it goes; nothing has to be whole.

use std::ops::Range;

use super::parse::{self, OBJECTS};
use super::words::keyed;
use crate::tables::catalog::{self, Entity};

/// Where a cursor is.
pub(super) struct Scope<'t> {
    text: &'t str,
    /// The innermost query around the cursor.
    query: Range<usize>,
    /// Whether it stands in the brackets of an object, `device:(…)`.
    object: bool,
    /// Where the term begins that is being typed.
    pub(super) term: usize,
}

/// What a bracket opened, and where the term before it began.
enum Open {
    Query(usize),
    Object(usize),
    Other(usize),
    List(usize),
}

impl<'t> Scope<'t> {
    pub(super) fn at(text: &'t str, offset: usize) -> Scope<'t> {
        let before = &text[..offset];
        let (mut open, mut queries): (Vec<Open>, Vec<usize>) = (Vec::new(), vec![0]);
        let (mut term, mut quote, mut last) = (0, None, ' ');
        for (at, c) in before.char_indices() {
            match quote {
                Some(mark) if c == mark => quote = None,
                Some(_) => {}
                None => match c {
                    '"' | '\'' | '`' if last.is_whitespace() || ":(,[!~.".contains(last) => quote = Some(c),
                    '(' if last == ':' => {
                        let key = before[term..at].trim_start_matches('!').trim_end_matches(':');
                        open.push(if keyed(text[at + 1..].trim_start(), "in") {
                            queries.push(at + 1);
                            Open::Query(term)
                        } else if OBJECTS.iter().any(|o| key.eq_ignore_ascii_case(o)) {
                            Open::Object(term)
                        } else {
                            Open::List(term)
                        });
                        if !matches!(open.last(), Some(Open::List(_))) {
                            term = at + 1;
                        }
                    }
                    '[' => open.push(Open::List(term)),
                    '(' if last.is_whitespace() || last == '(' || last == '!' => {
                        open.push(Open::Other(term));
                        term = at + 1;
                    }
                    '(' => open.push(Open::List(term)),
                    ')' | ']' => match open.pop() {
                        Some(Open::Query(before)) => {
                            queries.pop();
                            term = before;
                        }
                        Some(Open::Object(before) | Open::Other(before) | Open::List(before)) => term = before,
                        None => {}
                    },
                    c if c.is_whitespace() && !matches!(open.last(), Some(Open::List(_))) => term = at + c.len_utf8(),
                    _ => {}
                },
            }
            last = c;
        }
        let start = queries.pop().unwrap_or(0);
        let query = start..start + end(&text[start..]);
        let object =
            open.iter().rev().take_while(|o| !matches!(o, Open::Query(_))).any(|o| matches!(o, Open::Object(_)));
        Scope { text, query, object, term }
    }

    /// The entity that the innermost query asks for first; under an object the object's.
    pub(super) fn entity(&self) -> Option<&'static Entity> {
        if self.object {
            return catalog::find("devices");
        }
        let text = &self.text[self.query.clone()];
        let mut depth = 0usize;
        let mut last = ' ';
        for (at, c) in text.char_indices() {
            if depth == 0 && last.is_whitespace() && keyed(&text[at..], "in") {
                let name = text[at + 3..].trim_start_matches('(');
                return catalog::find(name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?);
            }
            match c {
                '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            last = c;
        }
        None
    }

    /// The columns of the groups that the innermost query makes: keys, then aggregates.
    pub(super) fn columns(&self) -> (Vec<String>, Vec<String>) {
        let text = &self.text[self.query.clone()];
        // The term that is being typed is hardly whole.
        let term = self.term.clamp(self.query.start, self.query.end) - self.query.start;
        let rest = [&text[..term], &text[term + whole(&text[term..])..]].concat();
        let Some(query) = parse::gather(&rest).query else { return Default::default() };
        let window = query.window.map(|_| "window_start".to_owned());
        let keys = query.by.iter().map(|key| key.name().to_owned());
        let series = query.bucket.iter().flat_map(|_| ["timestamp".to_owned()]);
        (
            window.into_iter().chain(keys).chain(series).collect(),
            query.stats.into_iter().map(|call| call.alias).collect(),
        )
    }
}

/// The length of what stands up to the bracket that closes it.
fn end(text: &str) -> usize {
    let (mut depth, mut quote, mut last) = (0usize, None, ' ');
    for (at, c) in text.char_indices() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' | '`' if last.is_whitespace() || ":(,[!~.".contains(last) => quote = Some(c),
                '(' | '[' => depth += 1,
                ')' | ']' if depth > 0 => depth -= 1,
                ')' => return at,
                _ => {}
            },
        }
        last = c;
    }
    text.len()
}

/// The length of a term.
fn whole(text: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c.is_whitespace() => return at,
            None => {}
        }
    }
    text.len()
}
