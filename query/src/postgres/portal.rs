//! Prepared statements and portals of a session: statements with values, whose rows are taken a part at a time.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::Statement;

use crate::postgres::catalog::Column;
use crate::postgres::kinds::Oid;
use crate::postgres::limits::Asked;
use crate::postgres::parameters;
use crate::postgres::refusal::{self, Refusal};
use crate::postgres::rows::Given;
use crate::postgres::statement::{self, Command};
use crate::postgres::wire::Bind;

/// Bytes of the prepared statements of a session.
const MAX_PREPARED: usize = 1 << 20;
/// What a prepared statement takes beside its text, bytes.
const PREPARED_COST: usize = 256;
/// Portals of a session.
const MAX_PORTALS: usize = 64;

/// A prepared statement.
pub(crate) struct Prepared {
    pub(crate) text: Arc<str>,
    /// Nothing where the text is empty.
    pub(crate) command: Option<Command>,
    /// The types of its parameters, as far as the client said; 0 where it did not.
    pub(crate) kinds: Vec<Oid>,
    /// Its columns, and the types of its parameters, once somebody asked.
    pub(crate) shape: Option<(Vec<Column>, Vec<Oid>)>,
    pub(crate) memory: Option<Asked>,
}

/// A statement with its values.
pub(crate) struct Portal {
    pub(crate) text: Arc<str>,
    pub(crate) state: State,
    /// Whether columns are wanted binary.
    pub(crate) binary: Vec<bool>,
    /// It outlives its transaction.
    pub(crate) hold: bool,
    pub(crate) memory: Option<Asked>,
}

/// How far a portal is.
pub(crate) enum State {
    Waiting(Option<Command>),
    Open(Given),
    /// It gave everything it had.
    Over(Vec<Column>),
}

/// What a session prepared.
#[derive(Default)]
pub(crate) struct Portals {
    statements: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
}

impl Prepared {
    /// Reads a statement.
    pub(crate) fn new(text: String, mut kinds: Vec<Oid>) -> Result<Prepared, Refusal> {
        let mut statements = statement::parse(&text)?;
        if statements.len() > 1 {
            let detail = "cannot insert multiple commands into a prepared statement";
            return Err(Refusal::new(refusal::SYNTAX, detail));
        }
        let command = match statements.pop() {
            None => None,
            Some(statement) => {
                kinds.resize(parameters::count(&statement)?.max(kinds.len()), 0);
                Some(Command::of(statement)?)
            }
        };
        Ok(Prepared { text: text.into(), command, kinds, shape: None, memory: None })
    }

    /// The types that its parameters have, as far as it is known.
    fn kind(&self, at: usize) -> Oid {
        let said = self.kinds.get(at).copied().unwrap_or_default();
        match (&self.shape, said) {
            (Some((_, found)), 0) => found.get(at).copied().unwrap_or_default(),
            (_, said) => said,
        }
    }

    /// Whether its parameters have types that nobody said yet, and that these values need.
    pub(crate) fn needs_shape(&self, bind: &Bind) -> bool {
        let unsaid = |(at, (binary, _)): (usize, &(bool, Option<Vec<u8>>))| *binary && self.kinds.get(at) == Some(&0);
        self.shape.is_none() && bind.parameters.iter().enumerate().any(unsaid)
    }

    /// It, with values.
    pub(crate) fn bound(&self, bind: &Bind) -> Result<Portal, Refusal> {
        let (given, wanted) = (bind.parameters.len(), self.kinds.len());
        if given != wanted {
            let detail = format!("bind message supplies {given} parameters, but prepared statement requires {wanted}");
            return Err(Refusal::new("42P02", detail));
        }
        let values = bind.parameters.iter().enumerate();
        // A type that was found, not said, is told by the column: text has none.
        let kind = |at: usize, binary: bool| if binary { self.kind(at) } else { self.kinds[at] };
        let value = |(at, (binary, bytes)): (usize, &(bool, Option<Vec<u8>>))| {
            parameters::value(kind(at, *binary), *binary, bytes.as_deref())
        };
        let values = values.map(value).collect::<Result<Vec<_>, _>>()?;
        let mut bytes = 0;
        let mut filled = |statement: &Statement| {
            let (statement, more) = parameters::filled(statement, &values)?;
            bytes += more;
            Ok::<_, Refusal>(Box::new(statement))
        };
        let command = match &self.command {
            Some(Command::Rows(statement, from)) => Some(Command::Rows(filled(statement)?, *from)),
            Some(Command::Declare { name, hold, rows }) => match &**rows {
                Command::Rows(statement, from) => {
                    let rows = Box::new(Command::Rows(filled(statement)?, *from));
                    Some(Command::Declare { name: name.clone(), hold: *hold, rows })
                }
                other => Some(other.clone()),
            },
            command => command.clone(),
        };
        let state = State::Waiting(command);
        let memory = self.memory.as_ref().map(|memory| memory.again(bytes)).transpose()?;
        Ok(Portal { text: self.text.clone(), state, binary: bind.binary.clone(), hold: false, memory })
    }
}

impl Portals {
    /// Keeps a prepared statement.
    pub(crate) fn prepare(&mut self, name: String, prepared: Prepared) -> Result<(), Refusal> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            let detail = format!("prepared statement \"{name}\" already exists");
            return Err(Refusal::new(refusal::TAKEN_STATEMENT, detail));
        }
        self.statements.remove(&name);
        // A statement that was read takes more than its text.
        let cost = |name: &str, text: &str| name.len() + 8 * text.len() + PREPARED_COST;
        let held: usize = self.statements.iter().map(|(name, prepared)| cost(name, &prepared.text)).sum();
        if held + cost(&name, &prepared.text) > MAX_PREPARED {
            let detail = "the session has too many prepared statements";
            return Err(Refusal::new(refusal::TOO_MUCH, detail).hint("close some of them"));
        }
        self.statements.insert(name, prepared);
        Ok(())
    }

    /// A prepared statement.
    pub(crate) fn statement(&mut self, name: &str) -> Result<&mut Prepared, Refusal> {
        let missing = || Refusal::new(refusal::NO_STATEMENT, format!("prepared statement \"{name}\" does not exist"));
        self.statements.get_mut(name).ok_or_else(missing)
    }

    /// Forgets a prepared statement, or all of them; whether there was one.
    pub(crate) fn forget(&mut self, name: Option<&str>) -> bool {
        match name {
            Some(name) => self.statements.remove(name).is_some(),
            None => {
                self.statements.clear();
                true
            }
        }
    }

    /// Keeps a portal.
    pub(crate) fn open(&mut self, name: String, portal: Portal) -> Result<(), Refusal> {
        if !name.is_empty() && self.portals.contains_key(&name) {
            return Err(Refusal::new(refusal::TAKEN_CURSOR, format!("cursor \"{name}\" already exists")));
        }
        if self.portals.len() >= MAX_PORTALS && !self.portals.contains_key(&name) {
            return Err(Refusal::new(refusal::TOO_MUCH, format!("a session has {MAX_PORTALS} portals at most")));
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    /// Takes a portal away, to be put back.
    pub(crate) fn take(&mut self, name: &str) -> Result<Portal, Refusal> {
        let missing = || Refusal::new(refusal::NO_CURSOR, format!("cursor \"{name}\" does not exist"));
        self.portals.remove(name).ok_or_else(missing)
    }

    /// Puts a portal back that was taken.
    pub(crate) fn back(&mut self, name: &str, portal: Portal) {
        self.portals.insert(name.to_owned(), portal);
    }

    /// Closes a portal, or all of them; whether there was one.
    pub(crate) fn close(&mut self, name: Option<&str>) -> bool {
        match name {
            Some(name) => self.portals.remove(name).is_some(),
            None => {
                self.portals.clear();
                true
            }
        }
    }

    /// A transaction is over: what it opened is closed.
    pub(crate) fn over(&mut self) {
        self.portals.retain(|_, portal| portal.hold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_prepared_is_bounded() {
        let mut portals = Portals::default();
        let text = format!("select '{}'", "x".repeat(1000));
        let kept = (0..1000).take_while(|n| {
            let prepared = Prepared::new(text.clone(), Vec::new()).unwrap();
            portals.prepare(format!("s{n}"), prepared).is_ok()
        });
        assert!((50..200).contains(&kept.count()));
        assert!(portals.forget(Some("s1")) && !portals.forget(Some("s1")));
        assert_eq!(portals.statement("s1").err().unwrap().code, refusal::NO_STATEMENT);
    }

    #[test]
    fn values_are_as_many_as_parameters() {
        let prepared = Prepared::new("select $2, $1".into(), vec![23]).unwrap();
        assert_eq!(prepared.kinds, [23, 0]);
        let bind = |n: usize| Bind {
            portal: String::new(),
            statement: String::new(),
            parameters: vec![(false, Some(b"1".to_vec())); n],
            binary: Vec::new(),
        };
        assert_eq!(prepared.bound(&bind(1)).err().unwrap().code, "42P02");
        let State::Waiting(Some(Command::Rows(statement, _))) = prepared.bound(&bind(2)).unwrap().state else {
            panic!()
        };
        assert_eq!(statement.to_string(), "SELECT '1', 1");
        let often = Prepared::new(format!("select {}$1", "$1, ".repeat(5000)), Vec::new()).unwrap();
        assert_eq!(often.bound(&bind(1)).err().unwrap().code, refusal::TOO_MUCH, "each time counts");
        assert_eq!(Prepared::new("select 1; select 2".into(), Vec::new()).err().unwrap().code, refusal::SYNTAX);
    }
}
