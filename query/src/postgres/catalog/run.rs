//! Runs a query of catalogs: few rows, so that each is made, joined, grouped and sorted in memory.
//!
//! What it may take is bounded: steps ([`MAX_STEPS`]), rows that a part of it gives ([`MAX_ROWS`]), and bytes of all rows, texts
//! and lists that it makes ([`MAX_BYTES`]). It ends when nobody waits any more.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::postgres::catalog::node::{
    Aggregate, Body, Distinct, Extra, Join, Node, Query, Row, Rows, Select, Set, Sort, Source, Subquery, Tally,
};
use crate::postgres::catalog::value::Value;
use crate::postgres::catalog::{Catalog, Relation};
use crate::postgres::kinds::Oid;
use crate::postgres::refusal::{self, Refusal};

/// Expressions that are computed.
const MAX_STEPS: u64 = 20_000_000;
/// Rows that a part of a query gives.
const MAX_ROWS: usize = 200_000;
/// Bytes of everything that a query makes on its way.
pub(crate) const MAX_BYTES: usize = 32 << 20;
/// After so many steps it is asked whether anybody waits.
const ASK_AGAIN: u64 = 1024;

/// A run of a query.
pub(crate) struct Run<'a> {
    pub(crate) catalog: &'a Catalog,
    /// Whether somebody waits for what comes of it.
    pub(crate) wanted: &'a dyn Fn() -> bool,
    steps: Cell<u64>,
    bytes: Cell<usize>,
    relations: RefCell<HashMap<Oid, Rc<Vec<Row>>>>,
    pub(crate) patterns: RefCell<HashMap<(String, bool), Rc<regex::Regex>>>,
}

/// The row of a query, and those of the queries around it.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'f> {
    pub(crate) row: &'f [Value],
    pub(crate) parent: Option<&'f Frame<'f>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(catalog: &'a Catalog, wanted: &'a dyn Fn() -> bool) -> Run<'a> {
        Run {
            catalog,
            wanted,
            steps: Cell::new(0),
            bytes: Cell::new(0),
            relations: RefCell::default(),
            patterns: RefCell::default(),
        }
    }

    /// Counts what is computed.
    pub(crate) fn step(&self) -> Result<(), Refusal> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps > MAX_STEPS {
            return Err(Refusal::new(refusal::TOO_MUCH, "the query of catalogs needs too much work"));
        }
        if steps.is_multiple_of(ASK_AGAIN) && !(self.wanted)() {
            return Err(Refusal::new(refusal::CANCELLED, "nobody waits for this answer"));
        }
        Ok(())
    }

    /// Counts what is made, before it is.
    pub(crate) fn make(&self, bytes: usize) -> Result<(), Refusal> {
        let made = self.bytes.get().saturating_add(bytes);
        self.bytes.set(made);
        if made > MAX_BYTES {
            let detail = format!("a query of catalogs makes {MAX_BYTES} bytes at most");
            return Err(Refusal::new(refusal::OUT_OF_MEMORY, detail));
        }
        Ok(())
    }

    /// Bytes that were made so far.
    pub(crate) fn made(&self) -> usize {
        self.bytes.get()
    }

    /// The rows of a query.
    pub(crate) fn query(&self, query: &Query, outer: Option<&Frame<'_>>) -> Result<Vec<Row>, Refusal> {
        let around = Frame { row: &[], parent: outer };
        let mut rows = self.body(query, &around)?;
        let count = |node: &Option<Node>, else_: usize| -> Result<usize, Refusal> {
            let Some(node) = node else { return Ok(else_) };
            let n = self.value(node, &around)?.whole();
            Ok(n.map_or(else_, |n| usize::try_from(n).unwrap_or_default()))
        };
        let skipped = count(&query.offset, 0)?.min(rows.len());
        rows.drain(..skipped);
        rows.truncate(count(&query.limit, usize::MAX)?);
        Ok(rows)
    }

    /// The rows of a query in an expression.
    pub(crate) fn subquery(&self, sub: &Subquery, frame: &Frame<'_>) -> Result<Rc<Vec<Row>>, Refusal> {
        let Some(known) = &sub.known else { return Ok(Rc::new(self.query(&sub.query, Some(frame))?)) };
        if let Some(rows) = known.get() {
            return Ok(rows.clone());
        }
        let rows = Rc::new(self.query(&sub.query, Some(frame))?);
        Ok(known.get_or_init(|| rows).clone())
    }

    /// Sorted, with no more columns than are given.
    fn body(&self, query: &Query, around: &Frame<'_>) -> Result<Vec<Row>, Refusal> {
        let mut rows = match &query.body {
            Body::Select(select) => self.select(select, query, around)?,
            Body::Query(inner) => self.query(inner, Some(around))?,
            Body::Values(rows) => {
                let row = |row: &Vec<Node>| row.iter().map(|node| self.value(node, around)).collect();
                rows.iter().map(row).collect::<Result<_, _>>()?
            }
            Body::Set { how, all, sides } => {
                let [left, right] = [self.body(&sides[0], around)?, self.body(&sides[1], around)?];
                self.combined(*how, *all, left, right)?
            }
        };
        few(&rows)?;
        rows.sort_by(|a, b| order(a, b, &query.sort));
        for row in &mut rows {
            row.truncate(query.columns.len());
        }
        Ok(rows)
    }

    fn select(&self, select: &Select, query: &Query, around: &Frame<'_>) -> Result<Vec<Row>, Refusal> {
        let mut rows = self.from(&select.from, &select.filter, around)?;
        let width: usize = select.from.iter().map(|source| source.width).sum();
        if let Some(keys) = &select.groups {
            rows = self.grouped(rows, keys, select, width, around)?;
        } else {
            rows.iter_mut().for_each(|row| row.resize(width + select.extras.len(), Value::Null));
        }
        if let Some(having) = &select.having {
            self.keep(&mut rows, std::slice::from_ref(having), around)?;
        }
        for (at, extra) in select.extras.iter().enumerate() {
            match extra {
                Extra::Aggregate(_) => {}
                Extra::Place { partition, sort } => self.placed(&mut rows, width + at, partition, sort, around)?,
                Extra::Rows(_) => {}
            }
        }
        rows = self.expanded(rows, select, width, around)?;
        let mut output = Vec::with_capacity(rows.len());
        for row in &rows {
            let frame = Frame { row, parent: Some(around) };
            self.make(select.output.len() * size_of::<Value>())?;
            output.push(select.output.iter().map(|node| self.value(node, &frame)).collect::<Result<Row, _>>()?);
        }
        match &select.distinct {
            Distinct::No => {}
            Distinct::Rows => {
                output = self.distinct(output, |row| self.key(&row[..query.columns.len()]))?;
            }
            Distinct::On(places) => {
                output.sort_by(|a, b| order(a, b, &query.sort));
                output = self.distinct(output, |row| {
                    let of: Row = places.iter().map(|at| row[*at].clone()).collect();
                    self.key(&of)
                })?;
            }
        }
        Ok(output)
    }

    /// The rows of everything in `FROM`, of which some are wanted. A condition is looked at as soon as what it reads is
    /// there, unless a later join may take that away again.
    fn from(&self, from: &[Source], filter: &[Node], around: &Frame<'_>) -> Result<Vec<Row>, Refusal> {
        let late = from.iter().any(|source| matches!(source.join, Join::Right | Join::Full));
        // Tools join many relations with one that is empty here, and name it last.
        let empty = |source: &Source| match source.rows {
            Rows::Relation(relation) => source.join == Join::Inner && self.relation(relation).is_empty(),
            _ => false,
        };
        if !late && from.iter().any(empty) {
            return Ok(Vec::new());
        }
        let mut waiting: Vec<&Node> = filter.iter().collect();
        let mut rows = vec![Row::new()];
        let mut width = 0;
        for source in from {
            let after = width + source.width;
            let ready = |node: &&Node| !late && node.reads().is_some_and(|(_, to)| to <= after);
            let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(ready);
            waiting = later;
            rows = self.join(&rows, width, source, &now, around)?;
            width = after;
            few(&rows)?;
        }
        for node in waiting {
            self.keep(&mut rows, std::slice::from_ref(node), around)?;
        }
        Ok(rows)
    }

    fn keep(&self, rows: &mut Vec<Row>, conditions: &[Node], around: &Frame<'_>) -> Result<(), Refusal> {
        let mut kept = Vec::new();
        for row in std::mem::take(rows) {
            if self.all(conditions.iter(), &row, around)? {
                kept.push(row);
            }
        }
        *rows = kept;
        Ok(())
    }

    fn all<'n>(
        &self,
        conditions: impl Iterator<Item = &'n Node>,
        row: &[Value],
        around: &Frame<'_>,
    ) -> Result<bool, Refusal> {
        let frame = Frame { row, parent: Some(around) };
        for condition in conditions {
            if !self.value(condition, &frame)?.holds() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn join(
        &self,
        left: &[Row],
        width: usize,
        source: &Source,
        filter: &[&Node],
        around: &Frame<'_>,
    ) -> Result<Vec<Row>, Refusal> {
        let dependent = match &source.rows {
            Rows::Query { lateral, .. } => *lateral,
            Rows::Function { .. } => true,
            _ => false,
        };
        let fixed = if dependent { None } else { Some(self.rows(&source.rows, around)?) };
        // Conditions of an inner join say what is looked for as well as those of its own do.
        let inner = source.join == Join::Inner;
        let looked_for = source.on.iter().chain(filter.iter().copied().filter(|_| inner));
        let index = fixed.as_ref().and_then(|rows| Index::new(looked_for.clone(), width, rows));
        let mut joined = Vec::new();
        let mut matched = vec![false; fixed.as_ref().map_or(0, |rows| rows.len())];
        for row in left {
            let frame = Frame { row, parent: Some(around) };
            let right = match &fixed {
                Some(rows) => rows.clone(),
                None => self.rows(&source.rows, &frame)?,
            };
            let found = match &index {
                Some(index) => index.find(&self.value(index.left, &frame)?),
                None => None,
            };
            let mut any = false;
            let mut try_one = |at: usize, joined: &mut Vec<Row>| -> Result<(), Refusal> {
                self.step()?;
                let mut both = Vec::with_capacity(width + source.width);
                both.extend_from_slice(row);
                both.extend_from_slice(&right[at]);
                if self.all(source.on.iter(), &both, around)? {
                    any = true;
                    if let Some(matched) = matched.get_mut(at) {
                        *matched = true;
                    }
                    if self.all(filter.iter().copied(), &both, around)? {
                        self.make(size_of_val(&both[..]))?;
                        joined.push(both);
                    }
                }
                Ok(())
            };
            match found {
                Some(places) => places.iter().try_for_each(|at| try_one(*at, &mut joined))?,
                None => (0..right.len()).try_for_each(|at| try_one(at, &mut joined))?,
            }
            if !any && matches!(source.join, Join::Left | Join::Full) {
                let mut alone = row.clone();
                alone.resize(width + source.width, Value::Null);
                self.step()?;
                self.make(size_of_val(&alone[..]))?;
                if self.all(filter.iter().copied(), &alone, around)? {
                    joined.push(alone);
                }
            }
            if joined.len() > MAX_ROWS {
                return Err(too_many());
            }
        }
        if matches!(source.join, Join::Right | Join::Full) {
            let alone = fixed.iter().flat_map(|rows| rows.iter()).zip(&matched).filter(|(_, matched)| !**matched);
            for (row, _) in alone {
                self.step()?;
                self.make((width + row.len()) * size_of::<Value>())?;
                let mut both = vec![Value::Null; width];
                both.extend_from_slice(row);
                joined.push(both);
            }
        }
        Ok(joined)
    }

    fn rows(&self, rows: &Rows, frame: &Frame<'_>) -> Result<Rc<Vec<Row>>, Refusal> {
        Ok(match rows {
            Rows::Relation(relation) => self.relation(relation),
            Rows::Query { query, .. } => Rc::new(self.query(query, Some(frame))?),
            Rows::Nested(from) => Rc::new(self.from(from, &[], frame)?),
            Rows::Function { node, numbered } => {
                let given = self.value(node, frame)?;
                let items: Vec<Value> = match (given, node) {
                    (Value::List(items), Node::Call(function, _)) if function.rows => items.to_vec(),
                    (Value::Null, Node::Call(function, _)) if function.rows => Vec::new(),
                    (value, _) => vec![value],
                };
                let row = |(at, item): (usize, Value)| {
                    let mut row = match item {
                        Value::Record(fields) => fields.to_vec(),
                        item => vec![item],
                    };
                    if *numbered {
                        row.push(Value::Whole(at as i64 + 1));
                    }
                    row
                };
                Rc::new(items.into_iter().enumerate().map(row).collect())
            }
        })
    }

    fn relation(&self, relation: &'static Relation) -> Rc<Vec<Row>> {
        if let Some(rows) = self.relations.borrow().get(&relation.oid) {
            return rows.clone();
        }
        let mut rows = self.catalog.rows(relation);
        rows.iter_mut().for_each(|row| row.push(relation.oid.into()));
        let rows = Rc::new(rows);
        self.relations.borrow_mut().insert(relation.oid, rows.clone());
        rows
    }

    /// One row a group: the first of its rows, and what is computed of all of them.
    fn grouped(
        &self,
        rows: Vec<Row>,
        keys: &[Node],
        select: &Select,
        width: usize,
        around: &Frame<'_>,
    ) -> Result<Vec<Row>, Refusal> {
        let mut groups: Vec<Vec<Row>> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        if keys.is_empty() {
            groups.push(rows);
        } else {
            for row in rows {
                let frame = Frame { row: &row, parent: Some(around) };
                let of = keys.iter().map(|node| self.value(node, &frame)).collect::<Result<Row, _>>()?;
                let at = *known.entry(self.key(&of)?).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                });
                groups[at].push(row);
            }
        }
        let mut grouped = Vec::with_capacity(groups.len());
        for rows in groups {
            let mut row = rows.first().cloned().unwrap_or_default();
            row.resize(width + select.extras.len(), Value::Null);
            for (at, extra) in select.extras.iter().enumerate() {
                if let Extra::Aggregate(aggregate) = extra {
                    row[width + at] = self.tally(aggregate, &rows, around)?;
                }
            }
            grouped.push(row);
        }
        Ok(grouped)
    }

    fn tally(&self, aggregate: &Aggregate, rows: &[Row], around: &Frame<'_>) -> Result<Value, Refusal> {
        let mut given: Vec<(Row, Row)> = Vec::new();
        for row in rows {
            let frame = Frame { row, parent: Some(around) };
            if let Some(filter) = &aggregate.filter
                && !self.value(filter, &frame)?.holds()
            {
                continue;
            }
            let args = aggregate.args.iter().map(|node| self.value(node, &frame)).collect::<Result<Row, _>>()?;
            let by = aggregate.sort.iter().map(|(node, _)| self.value(node, &frame)).collect::<Result<Row, _>>()?;
            given.push((by, args));
        }
        given.sort_by(|(a, _), (b, _)| inside(a, b, &aggregate.sort));
        if aggregate.distinct {
            given = self.distinct(given, |(_, args)| self.key(args))?;
        }
        if matches!(aggregate.what, Tally::List | Tally::Texts) {
            self.make(given.iter().flat_map(|(_, args)| args).map(Value::bytes).sum())?;
        }
        Ok(total(aggregate.what, given.into_iter().map(|(_, args)| args).collect()))
    }

    /// What is the same for equal rows.
    fn key(&self, row: &[Value]) -> Result<String, Refusal> {
        self.step()?;
        let key = key(row);
        self.make(key.len())?;
        Ok(key)
    }

    /// Those of which there was no equal one before.
    fn distinct<T>(&self, all: Vec<T>, key: impl Fn(&T) -> Result<String, Refusal>) -> Result<Vec<T>, Refusal> {
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for one in all {
            if seen.insert(key(&one)?) {
                kept.push(one);
            }
        }
        Ok(kept)
    }

    fn combined(&self, how: Set, all: bool, left: Vec<Row>, right: Vec<Row>) -> Result<Vec<Row>, Refusal> {
        if how == Set::Union {
            let mut rows = left;
            rows.extend(right);
            return if all { Ok(rows) } else { self.distinct(rows, |row| self.key(row)) };
        }
        let mut others: HashMap<String, usize> = HashMap::new();
        for row in &right {
            *others.entry(self.key(row)?).or_default() += 1;
        }
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for row in left {
            let key = self.key(&row)?;
            let there = match others.get_mut(&key) {
                Some(n) if *n > 0 => {
                    *n -= usize::from(all);
                    true
                }
                _ => false,
            };
            if there == (how == Set::Intersect) && (all || seen.insert(key)) {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// Numbers the rows of each partition.
    fn placed(
        &self,
        rows: &mut [Row],
        column: usize,
        partition: &[Node],
        sort: &[(Node, Sort)],
        around: &Frame<'_>,
    ) -> Result<(), Refusal> {
        let mut parts: BTreeMap<String, Vec<(Row, usize)>> = BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            let frame = Frame { row, parent: Some(around) };
            let of = partition.iter().map(|node| self.value(node, &frame)).collect::<Result<Row, _>>()?;
            let by = sort.iter().map(|(node, _)| self.value(node, &frame)).collect::<Result<Row, _>>()?;
            parts.entry(self.key(&of)?).or_default().push((by, at));
        }
        for mut part in parts.into_values() {
            part.sort_by(|(a, _), (b, _)| inside(a, b, sort));
            for (n, (_, at)) in part.into_iter().enumerate() {
                rows[at][column] = Value::Whole(n as i64 + 1);
            }
        }
        Ok(())
    }

    /// As many rows of each as the longest of its functions gives.
    fn expanded(&self, rows: Vec<Row>, select: &Select, width: usize, around: &Frame<'_>) -> Result<Vec<Row>, Refusal> {
        let functions: Vec<(usize, &Node)> = (select.extras.iter().enumerate())
            .filter_map(|(at, extra)| match extra {
                Extra::Rows(node) => Some((width + at, node)),
                _ => None,
            })
            .collect();
        if functions.is_empty() {
            return Ok(rows);
        }
        let mut all = Vec::new();
        for row in rows {
            let frame = Frame { row: &row, parent: Some(around) };
            let mut lists = Vec::new();
            for (at, node) in &functions {
                lists.push((*at, self.value(node, &frame)?.items().unwrap_or_default()));
            }
            let most = lists.iter().map(|(_, items)| items.len()).max().unwrap_or_default();
            for n in 0..most {
                self.make(size_of_val(&row[..]))?;
                let mut one = row.clone();
                for (at, items) in &lists {
                    one[*at] = items.get(n).cloned().unwrap_or(Value::Null);
                }
                all.push(one);
            }
            if all.len() > MAX_ROWS {
                return Err(too_many());
            }
        }
        Ok(all)
    }
}

/// The right rows of a join by the value of a column, where one is compared with something of the left.
struct Index<'n> {
    left: &'n Node,
    whole: bool,
    by_value: HashMap<String, Vec<usize>>,
}

impl<'n> Index<'n> {
    fn new(conditions: impl Iterator<Item = &'n Node>, width: usize, rows: &[Row]) -> Option<Index<'n>> {
        let fits = |left: &'n Node, right: &'n Node| match right {
            Node::Column { up: 0, at } if *at >= width && left.reads().is_some_and(|(_, to)| to <= width) => {
                Some((left, at - width))
            }
            _ => None,
        };
        let (left, column) = conditions.into_iter().find_map(|condition| match condition {
            Node::Binary(super::node::Binary::Equal, pair) => {
                fits(&pair[0], &pair[1]).or_else(|| fits(&pair[1], &pair[0]))
            }
            _ => None,
        })?;
        let mut present = rows.iter().map(|row| &row[column]).filter(|value| !value.is_null());
        let whole = matches!(present.clone().next(), Some(Value::Whole(_)));
        // Values of other kinds are equal in other ways than by what they are.
        if !present.all(|value| matches!((value, whole), (Value::Whole(_), true) | (Value::Text(_), false))) {
            return None;
        }
        let mut by_value: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row[column].is_null()) {
            by_value.entry(row[column].shown()).or_default().push(at);
        }
        Some(Index { left, whole, by_value })
    }

    /// The rows whose value equals one; nothing where they have to be looked at.
    fn find(&self, value: &Value) -> Option<&[usize]> {
        match (value, self.whole) {
            (Value::Null, _) => Some(&[]),
            (Value::Whole(_), true) | (Value::Text(_), false) => {
                Some(self.by_value.get(&value.shown()).map_or(&[], Vec::as_slice))
            }
            _ => None,
        }
    }
}

fn too_many() -> Refusal {
    Refusal::new(refusal::TOO_MUCH, format!("a query of catalogs gives {MAX_ROWS} rows at most"))
}

fn few(rows: &[Row]) -> Result<(), Refusal> {
    if rows.len() > MAX_ROWS { Err(too_many()) } else { Ok(()) }
}

/// What is the same for equal rows.
fn key(row: &[Value]) -> String {
    let mut key = String::new();
    for value in row {
        match value {
            Value::Null => key.push('-'),
            value => {
                let text = value.shown();
                key.push_str(&text.len().to_string());
                key.push(':');
                key.push_str(&text);
            }
        }
    }
    key
}

fn directed(a: &Value, b: &Value, sort: Sort) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (false, false) => {
            let order = a.rank(b);
            if sort.descending { order.reverse() } else { order }
        }
        (a, b) if sort.missing_first => b.cmp(&a),
        (a, b) => a.cmp(&b),
    }
}

fn order(a: &Row, b: &Row, sort: &[Sort]) -> Ordering {
    sort.iter().map(|by| directed(&a[by.at], &b[by.at], *by)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn inside(a: &Row, b: &Row, sort: &[(Node, Sort)]) -> Ordering {
    let each = a.iter().zip(b).zip(sort).map(|((a, b), (_, by))| directed(a, b, *by));
    each.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn total(what: Tally, rows: Vec<Row>) -> Value {
    if what == Tally::Rows {
        return Value::Whole(rows.len() as i64);
    }
    let count = rows.len();
    let separator = rows.first().and_then(|row| row.get(1)).map(Value::text);
    let firsts = rows.into_iter().filter_map(|row| row.into_iter().next());
    if what == Tally::List {
        return if count == 0 { Value::Null } else { Value::list(firsts) };
    }
    let given: Vec<Value> = firsts.filter(|value| !value.is_null()).collect();
    if what == Tally::Count {
        return Value::Whole(given.len() as i64);
    }
    if given.is_empty() {
        return Value::Null;
    }
    match what {
        Tally::Least => given.into_iter().min_by(Value::rank).unwrap_or(Value::Null),
        Tally::Greatest => given.into_iter().max_by(Value::rank).unwrap_or(Value::Null),
        Tally::Sum => given.iter().filter_map(Value::whole).fold(0, i64::saturating_add).into(),
        Tally::Mean => Value::Real(given.iter().filter_map(Value::real).sum::<f64>() / given.len() as f64),
        Tally::Texts => given.iter().map(Value::text).collect::<Vec<_>>().join(&separator.unwrap_or_default()).into(),
        Tally::Every => given.iter().all(Value::holds).into(),
        Tally::Some => given.iter().any(Value::holds).into(),
        Tally::Rows | Tally::Count | Tally::List => Value::Null,
    }
}
