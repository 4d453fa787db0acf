//! Groups of devices: named by operators, as a list of devices or as a condition of the language, which holds of whatever
//! it holds now.
//!
//! `group:core` on devices, `device.group:core` on whatever has a device: the term is what its group says, a subquery over
//! devices. So a group is always live, and may be used wherever a term may. A member that is called otherwise today is
//! found by where its name leads.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;

use radarflow_proto::rows::{DeviceGroup, DeviceRedirect};

use crate::actor::Actor;
use crate::error::SrqlError;
use crate::srql::ast::{Expr, Key, Literal, Query, Span, Value};
use crate::srql::parse::{MAX_QUERIES, MAX_TERMS, parse, plain};
use crate::srql::words::GROUP;
use crate::tables::view::View;

/// What a term may speak of devices by, and the column that holds the device.
const PATHS: [(&str, &[&str]); 5] = [
    ("device", &["device_uid"]),
    ("src_device", &["src_device_uid"]),
    ("dst_device", &["dst_device_uid"]),
    ("exporter_device", &["exporter_device_uid"]),
    // Of flows any of them.
    ("", &["src_device_uid", "dst_device_uid", "exporter_device_uid"]),
];

/// Replaces what a query says of groups by what the groups say.
pub(crate) fn expand(query: &mut Query, view: &View, actor: &Actor) -> Result<(), SrqlError> {
    let known = Known { view, actor, groups: OnceCell::new(), made: Cell::new(0), terms: Cell::new(0) };
    known.query(query)
}

struct Known<'a> {
    view: &'a View,
    actor: &'a Actor,
    groups: OnceCell<Vec<DeviceGroup>>,
    /// Subqueries made so far.
    made: Cell<usize>,
    /// Terms that groups stand for so far.
    terms: Cell<usize>,
}

impl Known<'_> {
    fn groups(&self) -> &[DeviceGroup] {
        self.groups.get_or_init(|| self.view.rows::<DeviceGroup>(&self.actor.tenant))
    }

    fn query(&self, query: &mut Query) -> Result<(), SrqlError> {
        let entity = query.entities.first().map(|(name, _)| name.to_ascii_lowercase()).unwrap_or_default();
        self.expr(&mut query.filter, &entity)?;
        for aggregate in &mut query.stats {
            if let Some(only) = &mut aggregate.only {
                self.expr(only, &entity)?;
            }
        }
        Ok(())
    }

    fn expr(&self, expr: &mut Expr, entity: &str) -> Result<(), SrqlError> {
        match expr {
            Expr::And(all) | Expr::Or(all) => all.iter_mut().try_for_each(|e| self.expr(e, entity)),
            Expr::Not(inner) => self.expr(inner, entity),
            Expr::Filter(_, Value::Sub(query, _)) => self.query(query),
            Expr::Filter(key, value) => match columns(key, entity) {
                Some(columns) => {
                    *expr = self.term(columns, value, key.span)?;
                    Ok(())
                }
                None => Ok(()),
            },
            Expr::Text(_) => Ok(()),
        }
    }

    /// What a term about groups says of the columns that hold devices.
    fn term(&self, columns: &[&str], value: &Value, span: Span) -> Result<Expr, SrqlError> {
        let groups = match value {
            Value::Null => return Ok(Expr::Not(Box::new(self.term(columns, &Value::Present, span)?))),
            Value::Present => self.groups().iter().collect(),
            Value::Is(name) => self.named(name)?,
            Value::Any(all) | Value::All(all) => {
                let mut groups = Vec::new();
                for value in all {
                    match value {
                        Value::Is(name) => groups.extend(self.named(name)?),
                        _ => return Err(bad_value(span)),
                    }
                }
                groups
            }
            _ => return Err(bad_value(span)),
        };
        let mut devices = members("")?;
        devices.filter = Expr::Or(groups.into_iter().map(|g| self.members(g)).collect::<Result<_, _>>()?);
        self.place(&mut devices.filter, span);
        self.count(terms(&devices.filter), span)?;
        let sub = |column: &&str| {
            let key = Key { path: vec![(*column).to_owned()], span };
            Expr::Filter(key, Value::Sub(Box::new(devices.clone()), self.fresh(span)))
        };
        Ok(Expr::Or(columns.iter().map(sub).collect()))
    }

    /// Groups stand for no more than a query may have.
    fn count(&self, terms: usize, span: Span) -> Result<(), SrqlError> {
        self.terms.set(self.terms.get() + terms);
        if self.terms.get() > MAX_TERMS || self.made.get() > MAX_QUERIES {
            let detail = format!("the groups stand for more than {MAX_TERMS} terms, or {MAX_QUERIES} subqueries");
            return Err(SrqlError::new("too_many_terms", span, detail));
        }
        Ok(())
    }

    /// A place for a subquery that nobody wrote: it begins where the term does, and no two are one.
    fn fresh(&self, span: Span) -> Span {
        self.made.set(self.made.get() + 1);
        (span.0, usize::MAX - self.made.get())
    }

    /// Places the subqueries of a condition, which were placed in a text of their own.
    fn place(&self, expr: &mut Expr, span: Span) {
        match expr {
            Expr::And(all) | Expr::Or(all) => all.iter_mut().for_each(|e| self.place(e, span)),
            Expr::Not(inner) => self.place(inner, span),
            Expr::Filter(_, Value::Sub(_, at)) => *at = self.fresh(span),
            Expr::Filter(..) | Expr::Text(_) => {}
        }
    }

    fn named(&self, name: &Literal) -> Result<Vec<&DeviceGroup>, SrqlError> {
        let wanted = plain(&name.text);
        let wild = !name.verbatim && !name.quoted && wanted.contains('*');
        let is = |g: &&DeviceGroup| if wild { like(&wanted, &g.name) } else { g.name == wanted };
        let found: Vec<&DeviceGroup> = self.groups().iter().filter(is).collect();
        if found.is_empty() && !wild {
            let mut error = SrqlError::new("unknown_group", name.span, format!("there is no device group {wanted}"));
            let near = |g: &DeviceGroup| (strsim::jaro_winkler(&g.name, &wanted), g.name.clone());
            let nearest = self.groups().iter().map(near).max_by(|a, b| a.0.total_cmp(&b.0));
            error.did_you_mean = nearest.filter(|(score, _)| *score > 0.8).map(|(_, name)| name);
            error.expected = self.groups().iter().take(20).map(|g| g.name.clone()).collect();
            return Err(error);
        }
        Ok(found)
    }

    /// What a group's devices are like.
    fn members(&self, group: &DeviceGroup) -> Result<Expr, SrqlError> {
        if let Some(condition) = &group.condition {
            return Ok(members(condition)?.filter);
        }
        let listed: BTreeSet<&str> = group.members.iter().map(String::as_str).collect();
        let led = self.view.rows_where_any::<DeviceRedirect>(&self.actor.tenant, "from_uid", &listed);
        let led: Vec<String> = led.into_iter().map(|r| r.to_uid).collect();
        let literal = |uid: &str| {
            let (text, span) = (uid.to_owned(), (0, 0));
            Value::Is(Literal { text, quoted: true, verbatim: true, span })
        };
        let all = listed.into_iter().chain(led.iter().map(String::as_str)).map(literal).collect();
        Ok(Expr::Filter(Key { path: vec!["uid".to_owned()], span: (0, 0) }, Value::Any(all)))
    }
}

/// Terms of a condition.
fn terms(expr: &Expr) -> usize {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter().map(terms).sum(),
        Expr::Not(inner) => terms(inner),
        Expr::Filter(_, Value::Sub(query, _)) => 1 + terms(&query.filter),
        Expr::Filter(..) | Expr::Text(_) => 1,
    }
}

fn bad_value(span: Span) -> SrqlError {
    SrqlError::new("bad_value", span, "a group is named, group:core, or several, group:(core,edge*)")
}

/// The columns that hold the devices a key speaks of, if it speaks of their groups.
fn columns(key: &Key, entity: &str) -> Option<&'static [&'static str]> {
    let path: Vec<&str> = key.path.iter().map(String::as_str).collect();
    let columns = |of: &str| PATHS.iter().find(|(path, _)| *path == of).map(|(_, columns)| *columns);
    match path[..] {
        [GROUP] if entity == "devices" => Some(&["uid"]),
        ["device", GROUP] if entity == "flows" => columns(""),
        [of, GROUP] if !of.is_empty() => columns(of),
        _ => None,
    }
}

fn like(pattern: &str, name: &str) -> bool {
    let mut rest = name;
    let mut parts = pattern.split('*').peekable();
    let mut first = true;
    while let Some(part) = parts.next() {
        match (first, parts.peek().is_none()) {
            (true, true) => return rest == part,
            (true, false) => match rest.strip_prefix(part) {
                Some(after) => rest = after,
                None => return false,
            },
            (false, true) => return rest.ends_with(part),
            (false, false) => match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            },
        }
        first = false;
    }
    true
}

/// What stands before a condition in the query for its devices.
const BEFORE: &str = "in:devices ";

/// The query for the devices of a condition.
pub(crate) fn members(condition: &str) -> Result<Query, SrqlError> {
    parse(&format!("{BEFORE}{condition} fields:uid"))
}

/// A mistake in the query for the devices of a condition, where it is in the condition.
pub(crate) fn placed(error: SrqlError, condition: &str) -> SrqlError {
    let place = |at: usize| at.saturating_sub(BEFORE.len()).min(condition.len());
    SrqlError { start: place(error.start), end: place(error.end), ..error }
}

/// Whether a condition is one: terms about devices, and nothing else.
pub(crate) fn check(condition: &str) -> Result<(), SrqlError> {
    let query = members(condition)?;
    let whole = (BEFORE.len(), BEFORE.len() + condition.len());
    let refuse = |what: &str| Err(SrqlError::new("bad_condition", whole, what));
    let clauses = !query.stats.is_empty()
        || query.bucket.is_some()
        || query.limit.is_some()
        || !query.sort.is_empty()
        || query.fields.len() != 1
        || query.entities.len() != 1
        || query.stream.is_some()
        || query.cursor.is_some()
        || query.explain
        || query.having.is_some()
        || query.top.is_some()
        || query.time.is_some()
        || query.at.is_some();
    if clauses {
        return refuse("a group's condition has terms about devices, and no clauses");
    }
    if speaks_of_groups(&query.filter) {
        return refuse("a group's condition does not speak of groups");
    }
    Ok(())
}

fn speaks_of_groups(expr: &Expr) -> bool {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter().any(speaks_of_groups),
        Expr::Not(inner) => speaks_of_groups(inner),
        Expr::Filter(key, Value::Sub(query, _)) => is_group(key) || speaks_of_groups(&query.filter),
        Expr::Filter(key, _) => is_group(key),
        Expr::Text(_) => false,
    }
}

fn is_group(key: &Key) -> bool {
    key.path.last().is_some_and(|last| last == GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_terms_and_nothing_else() {
        for good in ["vendor_name:Cisco", "(type:router OR type:switch) !deleted_at:*", "ip:10.0.0.0/8 hostname:core*"]
        {
            assert!(check(good).is_ok(), "{good}: {:?}", check(good));
        }
        for bad in
            ["limit:3", "stats:\"count() as n\"", "group:x", "uid:(in:devices group:x fields:uid)", "sort:uid", "x:("]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_matched_with_wildcards() {
        for (pattern, name, is) in [
            ("core*", "core-1", true),
            ("*1", "core-1", true),
            ("c*-*", "core-1", true),
            ("c*2", "core-1", false),
            ("core", "core-1", false),
        ] {
            assert_eq!(like(pattern, name), is, "{pattern} {name}");
        }
    }
}
