//! Every mistake of a query, without running it: those of its text ([`parse::gather`]), then those of its names and types.
//! The planner tells one at a time; what it tells of is taken out of the query, and it is asked again.

use std::sync::Arc;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::engine::prepare::Scoped;
use crate::error::{QueryError, Span, SrqlError};
use crate::srql::ast::{Expr, GroupKey, Having, Key, Query, Value};
use crate::srql::parse::{self, Gathered, MAX_MISTAKES};
use crate::srql::{groups, plan, redirects};

/// What is to be said of a query.
pub struct Checked {
    /// What is wrong with it, in the order of its text.
    pub mistakes: Vec<SrqlError>,
    /// What it may not mean.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Tells everything that is wrong with a query.
    ///
    /// # Errors
    /// Where there is no place to look at it, or no time.
    pub async fn validate(self: &Arc<Self>, actor: &Actor, text: &str) -> Result<Checked, QueryError> {
        let work = self.admit(&actor.tenant).await?;
        let (engine, actor, text) = (self.clone(), actor.clone(), text.to_owned());
        self.work(&work, async move { Ok(engine.checked(&actor, &text)) }).await
    }

    fn checked(&self, actor: &Actor, text: &str) -> Checked {
        let Gathered { query, mut mistakes, unread } = parse::gather(text);
        let mut warnings = query.as_ref().map(|q| q.warnings.clone()).unwrap_or_default();
        let readable = query.filter(|q| !q.entities.is_empty() && !unread.contains(&"in"));
        if let Some(mut query) = readable {
            without(&mut query, &unread);
            while mistakes.len() < MAX_MISTAKES {
                match self.planned(actor, query.clone()) {
                    Ok(planned) => {
                        warnings = planned;
                        break;
                    }
                    Err(QueryError::Language(error)) => {
                        let more = prune(&mut query, &error);
                        mistakes.push(error);
                        if !more {
                            break;
                        }
                    }
                    // It is no mistake of the query.
                    Err(_) => break,
                }
            }
        }
        mistakes.sort_by_key(|error| (error.start, error.end));
        mistakes.dedup();
        Checked { mistakes, warnings }
    }

    fn planned(&self, actor: &Actor, mut query: Query) -> Result<Vec<String>, QueryError> {
        plan::entities(&query)?;
        let view = self.live().view();
        redirects::follow(&mut query, &view, actor);
        groups::expand(&mut query, &view, actor)?;
        let now_us = view.clock_ms * 1000;
        let at = plan::at(&query, now_us)?;
        let ctx = self.session();
        let tables = Scoped::new(&view, &ctx, actor);
        Ok(tables.allowed(plan::plan(&query, &tables, at.unwrap_or(now_us), None))?.warnings)
    }
}

/// What hangs on clauses that could not be read is not judged.
fn without(query: &mut Query, unread: &[&str]) {
    if unread.iter().any(|clause| ["stats", "groupby", "bucket", "downsample", "rollup_stats"].contains(clause)) {
        query.stats.clear();
        query.by.clear();
        query.sort.clear();
        query.fields.clear();
        (query.having, query.window, query.top, query.units) = (None, None, None, None);
    }
}

fn within((start, end): Span, outer: Span) -> bool {
    outer.0 <= start && end <= outer.1
}

/// Takes out of a query what a mistake is about; whether anything was.
fn prune(query: &mut Query, error: &SrqlError) -> bool {
    let at = (error.start, error.end);
    let about = |span: Span| within(at, span);
    if ["unknown_entity", "entity_not_available"].contains(&error.code) {
        let named = query.entities.iter().position(|(_, span)| about(*span));
        match (named, &error.did_you_mean) {
            (Some(n), Some(near)) => query.entities[n].0.clone_from(near),
            (Some(n), None) if query.entities.len() > 1 => {
                query.entities.remove(n);
            }
            (Some(_), None) => return false,
            (None, _) => return prune_expr(&mut query.filter, error) || prune_calls(query, error),
        }
        return true;
    }
    if prune_expr(&mut query.filter, error) || prune_calls(query, error) {
        return true;
    }
    let lists = [
        removed(&mut query.sort, |sort| about(sort.key.span)),
        removed(&mut query.fields, |key| about(key.span)),
        query.having.as_mut().is_some_and(|having| prune_having(having, at)),
    ];
    if lists.contains(&true) {
        return true;
    }
    let clauses = [
        gone(&mut query.time, |it| about(it.span)),
        gone(&mut query.at, |it| about(it.span)),
        gone(&mut query.tz, |it| about(it.span)),
        gone(&mut query.window, |it| about(it.1)),
        gone(&mut query.units, |it| about(it.1)),
        gone(&mut query.rollup, |it| about(it.1)),
        gone(&mut query.latest, |it| about(*it)),
        gone(&mut query.include_deleted, |it| about(*it)),
        gone(&mut query.top, |it| about(it.span) || it.by.as_ref().is_some_and(|(_, span)| about(*span))),
        gone(&mut query.bucket, |it| {
            let keys = it.series.iter().chain(&it.value_field);
            about(it.span) || keys.into_iter().any(|key| about(key.span))
        }),
    ];
    clauses.contains(&true)
}

fn removed<T>(from: &mut Vec<T>, wrong: impl Fn(&T) -> bool) -> bool {
    let before = from.len();
    from.retain(|it| !wrong(it));
    from.len() < before
}

fn gone<T>(from: &mut Option<T>, wrong: impl Fn(&T) -> bool) -> bool {
    let is = from.as_ref().is_some_and(wrong);
    if is {
        *from = None;
    }
    is
}

/// Calls and keys of groups: their columns stay, so that what names them is judged as it is meant.
fn prune_calls(query: &mut Query, error: &SrqlError) -> bool {
    let at = (error.start, error.end);
    for call in &mut query.stats {
        if call.only.as_mut().is_some_and(|only| prune_expr(only, error)) {
            return true;
        }
        if within(at, call.span) && (call.function != "count" || call.field.is_some()) {
            (call.function, call.field, call.only) = ("count".to_owned(), None, None);
            return true;
        }
    }
    for group in &mut query.by {
        if let GroupKey::Field(key, name) | GroupKey::Cidr(key, _, name) | GroupKey::Each(key, name) = group
            && within(at, key.span)
            && key.path != ["partition"]
        {
            let partition = Key { path: vec!["partition".to_owned()], span: key.span };
            *group = GroupKey::Field(partition, std::mem::take(name));
            return true;
        }
    }
    false
}

fn prune_having(having: &mut Having, at: Span) -> bool {
    match having {
        Having::And(all) | Having::Or(all) => all.iter_mut().any(|h| prune_having(h, at)),
        Having::Not(inner) => prune_having(inner, at),
        Having::Compare(.., span) => {
            let about = within(at, *span);
            if about {
                *having = Having::And(Vec::new());
            }
            about
        }
    }
}

fn prune_expr(expr: &mut Expr, error: &SrqlError) -> bool {
    let at = (error.start, error.end);
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter_mut().any(|e| prune_expr(e, error)),
        Expr::Not(inner) => prune_expr(inner, error),
        Expr::Text(literal) => {
            let about = within(at, literal.span);
            if about {
                *expr = Expr::And(Vec::new());
            }
            about
        }
        Expr::Filter(key, value) => {
            if within(at, key.span) {
                *expr = Expr::And(Vec::new());
                return true;
            }
            match pruned_value(value, error) {
                Pruned::Nothing => false,
                Pruned::Part => true,
                Pruned::All => {
                    *expr = Expr::And(Vec::new());
                    true
                }
            }
        }
    }
}

/// What was taken out of a value.
#[derive(PartialEq)]
enum Pruned {
    Nothing,
    Part,
    All,
}

fn pruned_value(value: &mut Value, error: &SrqlError) -> Pruned {
    let at = (error.start, error.end);
    let all = |is: bool| if is { Pruned::All } else { Pruned::Nothing };
    match value {
        Value::Is(literal) | Value::Fold(literal) | Value::Compare(_, literal) => all(within(at, literal.span)),
        Value::Range(from, to) => {
            let start = from.as_ref().or(to.as_ref()).map_or(0, |l| l.span.0.saturating_sub(2));
            let end = to.as_ref().or(from.as_ref()).map_or(0, |l| l.span.1 + 2);
            all(within(at, (start, end)))
        }
        Value::Regex(_, _, span) => all(within(at, *span)),
        Value::Any(items) | Value::All(items) => {
            for n in 0..items.len() {
                match pruned_value(&mut items[n], error) {
                    Pruned::Nothing => {}
                    Pruned::Part => return Pruned::Part,
                    Pruned::All => {
                        items.remove(n);
                        return if items.is_empty() { Pruned::All } else { Pruned::Part };
                    }
                }
            }
            Pruned::Nothing
        }
        Value::Sub(query, span) => {
            // What groups of devices say is placed where the term is; nobody wrote it.
            if span.1 > usize::MAX / 2 || !within(at, *span) {
                return Pruned::Nothing;
            }
            if prune(query, error) { Pruned::Part } else { Pruned::All }
        }
        _ => Pruned::Nothing,
    }
}
