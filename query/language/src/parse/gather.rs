//! Every mistake of a query instead of the first. What is wrong is told and left out: a term, a clause, an operator; the
//! parse goes on behind it.

use super::{Expr, Parser, Query, Result, Span};
use crate::ast::Having;
use crate::error::SrqlError;

/// Mistakes that are told of one query.
pub const MAX_MISTAKES: usize = 50;

/// A query as far as it can be read.
pub struct Gathered {
    /// What could be read.
    pub query: Option<Query>,
    /// What could not, and why.
    pub mistakes: Vec<SrqlError>,
    /// Clauses that could not be read: what else there is may hang on them.
    pub unread: Vec<&'static str>,
}

/// Reads as much of a query as can be read.
pub fn gather(text: &str) -> Gathered {
    let mut parser = Parser::new(text, 0, 0);
    parser.gathered = Some(Vec::new());
    let whole = parser.whole();
    let mut mistakes = parser.gathered.take().unwrap_or_default();
    let query = whole.map_err(|error| mistakes.push(error)).ok();
    mistakes.sort_by_key(|error| (error.start, error.end));
    Gathered { query, mistakes, unread: parser.unread }
}

impl Parser<'_> {
    /// Notes a mistake; where nobody gathers them, the parse ends with it.
    pub(super) fn fail(&mut self, error: SrqlError) -> Result<()> {
        match &mut self.gathered {
            Some(all) if all.len() < MAX_MISTAKES => {
                all.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Notes that something is missing; it may be what could not be read.
    pub(super) fn lacks(&mut self, error: SrqlError) -> Result<()> {
        if self.unread.is_empty() { self.fail(error) } else { Ok(()) }
    }

    /// How many mistakes were noted so far.
    pub(super) fn mistakes(&self) -> usize {
        self.gathered.as_ref().map_or(0, Vec::len)
    }

    /// What stands in brackets, if anything does. So many mistakes were noted before it.
    pub(super) fn some(&mut self, inner: Expr, span: Span, before: usize) -> Result<Expr> {
        if inner == Expr::And(Vec::new()) && self.mistakes() <= before {
            return Err(SrqlError::new("term_missing", span, "a term is missing in these brackets"));
        }
        Ok(inner)
    }

    /// A part of a condition on groups. One that cannot be read is noted and left out; the condition goes on behind it.
    pub(super) fn having_term(&mut self, depth: usize) -> Result<Having> {
        match self.having_not(depth) {
            Err(error) if self.gathered.is_some() => self.fail(error)?,
            read => return read,
        }
        let from = self.at;
        let goes_on = |at: usize| {
            let word = |word: &str| self.text[at..].get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word));
            word("and ") || word("or ") || (depth > 0 && self.text[at..].starts_with(')'))
        };
        let ends = |c: char| c.is_whitespace() || c == ')';
        let next = self.text[from..].match_indices(ends).map(|(n, c)| from + n + usize::from(!c.starts_with(')')));
        let next = next.filter(|at| self.text.is_char_boundary(*at)).find(|at| goes_on(*at));
        self.at = next.unwrap_or(self.text.len());
        Ok(Having::And(Vec::new()))
    }

    /// Notes what is wrong with a term that begins there, and goes to its end.
    pub(super) fn skip(&mut self, from: usize, error: SrqlError) -> Result<()> {
        let told = error.end;
        self.fail(error)?;
        let (mut open, mut quote, mut begins) = (0usize, None, true);
        let mut end = self.text.len();
        for (i, c) in self.text[from..].char_indices() {
            match quote {
                Some(mark) if c == mark => quote = None,
                Some(_) => {}
                None => match c {
                    '"' | '\'' | '`' if begins => quote = Some(c),
                    '(' | '[' => open += 1,
                    ')' | ']' if open > 0 => open -= 1,
                    ')' => {
                        end = from + i;
                        break;
                    }
                    c if c.is_whitespace() && open == 0 => {
                        end = from + i;
                        break;
                    }
                    _ => {}
                },
            }
            begins = matches!(c, ':' | '(' | '[' | ',' | '!') || c.is_whitespace();
        }
        // What was told may be more than one word.
        let told = if self.text.is_char_boundary(told.min(self.text.len())) { told.min(self.text.len()) } else { end };
        let more = self.text.get(end..told).is_some_and(|more| !more.trim().is_empty());
        self.at = if more { told } else { end.max(from) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<(&'static str, &str)> {
        let gathered = gather(text);
        gathered.mistakes.iter().map(|e| (e.code, &text[e.start..e.end])).collect()
    }

    #[test]
    fn every_mistake_is_told_once() {
        assert_eq!(codes("in:devices hostname:web1 limit:5"), []);
        assert_eq!(
            codes("in:devices hostname: (a:1 OR ) limit:0 uid:(in:flows app:(a,,b) sort:x:up) b:2"),
            [
                ("value_missing", " "),
                ("term_missing", "OR"),
                ("bad_limit", "0"),
                ("empty_item", ","),
                ("bad_sort", "up"),
            ]
        );
        // What hangs on a clause that cannot be read is not told of.
        assert_eq!(
            codes("in:flows stats:\"sums(a) by b\" having:\"n>5\" window:5m top:3"),
            [("unknown_function", "sums")]
        );
        assert_eq!(codes("in:flows a:1) b:2 )"), [("unexpected", ")"), ("unexpected", ")")]);
        assert_eq!(codes("hostname:x"), [("entity_missing", "")]);
        assert_eq!(codes("in:flows stats:count() having:\"(n> and m!5) or =3 and n>5 or (x)\"").len(), 3);
        assert_eq!(codes("in:flows app:(a"), [("bracket_open", "(")]);
    }

    proptest::proptest! {
        #[test]
        fn the_first_mistake_is_among_them_and_the_parse_ends(
            tail in "(in:devices )?([a-z_.]{1,6}:)?[!(\\[\"'`/~<>=.,*% a-zé0-9:\\\\)\\]]{0,40}"
        ) {
            let gathered = gather(&tail);
            proptest::prop_assert_eq!(crate::parse::parse(&tail).is_ok(), gathered.mistakes.is_empty());
            for e in &gathered.mistakes {
                proptest::prop_assert!(e.start <= e.end && tail.get(e.start..e.end).is_some(), "{:?} {:?}", e, tail);
            }
        }
    }
}
