//! What a rule is, read from its resource: the query, and what its alerts say.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use radarflow_language::ast::{
    Aggregate, Expr, GroupKey, Having, Key as Path, Op, Operand, Query, Span, Value as Said,
};
use radarflow_language::catalog::{Entity, Kind};
use radarflow_language::cells::{Cells, network};
use radarflow_language::error::SrqlError;
use radarflow_language::matching::{Filter, Target};
use radarflow_language::near;
use radarflow_language::parse::{parse, plain};
use radarflow_language::time::duration;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::{Nature, Table};
use sha2::{Digest, Sha256};

use super::having::{Column, Columns, Condition};
use super::measure::{Function, Measure, Tally, Value};
use crate::alert::{self, Measured, Subject};

/// Steps of a span.
const STEPS: i64 = 60;
/// The longest span, milliseconds.
const MAX_SPAN_MS: i64 = 7 * 86_400_000;
/// Keys of a group.
const MAX_KEYS: usize = 9;
/// Measures of a rule.
const MAX_MEASURES: usize = 16;
/// Bytes of the value of a key; what is longer is cut.
const MAX_KEY: usize = 256;
/// Groups that one row is in, where it is in one for each element of a list.
const MAX_EACH: usize = 64;
/// The partition of rows that have none.
const NOWHERE: &str = "default";
/// Bytes of a title, and of a description; what is longer is cut.
const MAX_TITLE: usize = 1000;
const MAX_DESCRIPTION: usize = 16_000;
/// Current state that rules may ask.
pub const FOLLOWED: &[Table] = &[
    Table::Device,
    Table::Agent,
    Table::Source,
    Table::Job,
    Table::Command,
    Table::TopologyLink,
    Table::ServiceState,
    Table::Interface,
];
/// What alerts make: a rule over it would speak of itself.
const OWN: &[Table] = &[Table::Alert, Table::AlertHistory, Table::Notification];

/// What tells groups apart: the values of the keys.
pub type GroupOf = Vec<Option<String>>;
/// What rows of events add, by group and by step of time.
pub type Contribution = BTreeMap<GroupOf, BTreeMap<i64, Vec<Tally>>>;

/// A key of groups.
#[derive(Clone, Debug)]
struct Key {
    target: Target,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Value,
    Network(u8),
    Each,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Customer.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// What its rows are.
    pub entity: &'static Entity,
    /// What its rows are like.
    pub filter: Filter,
    /// Of events: the span before now that it asks, milliseconds.
    pub span_ms: Option<i64>,
    /// What is counted.
    pub measures: Vec<Measure>,
    /// How long it must hold before there is an alert, milliseconds.
    pub for_ms: i64,
    /// How long it must not hold before the alert is over, milliseconds.
    pub resolve_for_ms: i64,
    /// How bad it is.
    pub severity: String,
    /// The name of each key. The partition is one of them, said or not: each is counted by itself.
    pub keys: Vec<String>,
    /// Whether it says no keys: in each partition there is one group, heard or not.
    pub alone: bool,
    title: String,
    description: String,
    runbook_url: Option<String>,
    labels: BTreeMap<String, String>,
    by: Vec<Key>,
    having: Option<Condition>,
    seasons: BTreeMap<usize, Option<i64>>,
    rises: bool,
    needs_all: bool,
    /// What tallies are made by; those of another form are worth nothing.
    pub form: String,
}

/// What is wrong with a rule: the field, and why.
pub type Wrong = (&'static str, String);

impl Rule {
    /// The rule that a resource states.
    ///
    /// # Errors
    /// The first field that is wrong, and why.
    pub fn of(resource: &Resource) -> Result<Self, Wrong> {
        let query = resource.text("query").unwrap_or_default();
        let wrong = |error: SrqlError| {
            let (line, column) = error.position(query);
            ("query", format!("line {line}, column {column}: {error}"))
        };
        let read = parse(query).map_err(wrong)?;
        let mut rule = Rule::asked(&read).map_err(wrong)?;
        rule.tenant = resource.tenant.clone();
        rule.name = resource.id.clone();
        rule.form = rule.counts();
        rule.for_ms = resource.number("for_s").unwrap_or(0) * 1000;
        rule.resolve_for_ms = resource.number("resolve_for_s").unwrap_or(0) * 1000;
        rule.severity = resource.text("severity").unwrap_or("warning").to_owned();
        rule.title = resource.text("title").unwrap_or_default().to_owned();
        rule.description = resource.text("description").unwrap_or_default().to_owned();
        rule.runbook_url = resource.text("runbook_url").map(str::to_owned);
        for label in resource.texts("labels") {
            let (name, value) =
                label.split_once('=').ok_or_else(|| ("labels", format!("{label:?} is no NAME=VALUE")))?;
            check_label(name).map_err(|why| ("labels", why))?;
            rule.labels.insert(name.to_owned(), value.to_owned());
        }
        for (field, text) in [("title", &rule.title), ("description", &rule.description)] {
            let known: Vec<&str> = rule.words().collect();
            if let Some(unknown) = braced(text).find(|word| !known.contains(word)) {
                return Err((field, format!("{{{unknown}}} is none of {}", known.join(", "))));
            }
        }
        Ok(rule)
    }

    /// The rule that a query is.
    fn asked(query: &Query) -> Result<Self, SrqlError> {
        let whole = query.entities[0].1;
        let refuse = |span: Span, detail: &str| Err(SrqlError::new("not_followed", span, detail));
        for (clause, said) in [
            ("at", query.at.as_ref().map(|l| l.span)),
            ("tz", query.tz.as_ref().map(|l| l.span)),
            ("cursor", query.cursor.as_ref().map(|l| l.span)),
            ("latest", query.latest),
            ("stream", query.stream),
            ("window", query.window.map(|(_, span)| span)),
            ("top", query.top.as_ref().map(|top| top.span)),
            ("units", query.units.map(|(_, span)| span)),
            ("reverse", query.reverse),
            ("compare", query.compare.map(|(_, span)| span)),
            ("rollup_stats", query.rollup.as_ref().map(|(_, span)| *span)),
            ("bucket", query.bucket.as_ref().map(|bucket| bucket.span)),
            ("sort", query.sort.first().map(|sort| sort.key.span)),
            ("limit", query.limit.map(|_| query.paging.first().copied().unwrap_or(whole))),
            ("explain", query.explain.then_some(whole)),
        ] {
            if let Some(span) = said {
                let detail =
                    format!("{clause}: has no meaning in a rule, which holds of every row of its answer at any time");
                return refuse(span, &detail);
            }
        }
        let [(name, span)] = &query.entities[..] else { return refuse(whole, "a rule asks one entity") };
        let entity = near::meant(name, *span)?;
        if OWN.contains(&entity.table) {
            return refuse(*span, "a rule about alerts would speak of itself");
        }
        let events = entity.table.nature() == Nature::Event;
        if !events && !FOLLOWED.contains(&entity.table) {
            let known: Vec<&str> = FOLLOWED.iter().map(|table| table.name()).collect();
            let detail = format!("rules follow events and {}; {} are neither", known.join(", "), entity.name);
            return refuse(*span, &detail);
        }
        let span_ms = span_of(query, entity, events)?;
        if events && query.stats.is_empty() {
            let detail = "a rule about events counts: stats:\"count() as n by …\" having:\"n >= 1\"";
            return Err(SrqlError::new("stats_missing", whole, detail));
        }
        if events && query.having.is_none() {
            return Err(SrqlError::new("having_missing", whole, "say when it holds: having:\"n > 100\""));
        }
        let filter = match entity.table == Table::Device && query.include_deleted.is_none() {
            true => {
                let shown = Path { path: vec!["deleted_at".to_owned()], span: whole };
                Expr::And(vec![query.filter.clone(), Expr::Filter(shown, Said::Null)])
            }
            false => query.filter.clone(),
        };
        let mut rule = Rule {
            tenant: String::new(),
            name: String::new(),
            entity,
            filter: Filter::of(&filter, entity)?,
            span_ms,
            measures: Vec::new(),
            for_ms: 0,
            resolve_for_ms: 0,
            severity: "warning".to_owned(),
            keys: Vec::new(),
            alone: false,
            title: String::new(),
            description: String::new(),
            runbook_url: None,
            labels: BTreeMap::new(),
            by: Vec::new(),
            having: None,
            seasons: BTreeMap::new(),
            rises: true,
            needs_all: false,
            form: String::new(),
        };
        rule.groups(query, entity, whole)?;
        let calls = rule.count(query, entity, events)?;
        if let Some(having) = &query.having {
            let columns = Columns { keys: &rule.keys, calls: &calls, events };
            rule.having = Some(Condition::of(having, &columns)?);
        }
        rule.note();
        Ok(rule)
    }

    /// The keys: as the query says, or those of the entity where each row is one.
    fn groups(&mut self, query: &Query, entity: &'static Entity, whole: Span) -> Result<(), SrqlError> {
        if query.stats.is_empty() {
            for name in entity.table.key().iter().filter(|name| **name != "tenant_id") {
                let target = Target::of(&Path { path: vec![(*name).to_owned()], span: whole }, entity)?;
                self.keys.push((*name).to_owned());
                self.by.push(Key { target, how: How::Value });
            }
        }
        for key in &query.by {
            let (path, how, name) = match key {
                GroupKey::Field(path, name) => (path, How::Value, name),
                GroupKey::Cidr(path, bits, name) => (path, How::Network(*bits), name),
                GroupKey::Each(path, name) => (path, How::Each, name),
                GroupKey::Time(..) => {
                    let detail = "a rule asks the span that time: says, not slices of it";
                    return Err(SrqlError::new("not_followed", whole, detail));
                }
            };
            let target = Target::of(path, entity)?;
            match how {
                How::Network(_) if target.kind != Kind::Ip => {
                    let detail = format!("{} is {}, not an address", target.column, target.kind.name());
                    return Err(SrqlError::new("not_an_ip", path.span, detail));
                }
                How::Each if target.kind != Kind::List => {
                    let detail = format!("{} is {}, not a list", target.column, target.kind.name());
                    return Err(SrqlError::new("not_a_list", path.span, detail));
                }
                How::Each if self.by.iter().any(|key| key.how == How::Each) => {
                    return Err(SrqlError::new("not_followed", path.span, "a rule groups by the elements of one list"));
                }
                _ => {}
            }
            if self.keys.contains(name) {
                let detail = format!("two columns would be called {name:?}; name one of them with as");
                return Err(SrqlError::new("column_repeated", path.span, detail));
            }
            self.keys.push(name.clone());
            self.by.push(Key { target, how });
        }
        self.alone = self.by.is_empty();
        let partition = Target::of(&Path { path: vec!["partition".to_owned()], span: whole }, entity)?;
        if !self.by.iter().any(|key| key.how == How::Value && key.target.column == partition.column) {
            if self.keys.iter().any(|name| name == partition.column) {
                let detail = "partition is the name of the site that rows are of; name the key otherwise";
                return Err(SrqlError::new("column_repeated", whole, detail));
            }
            self.keys.push(partition.column.to_owned());
            self.by.push(Key { target: partition, how: How::Value });
        }
        if self.keys.len() > MAX_KEYS {
            return Err(SrqlError::new("too_many_terms", whole, format!("a rule has at most {} keys", MAX_KEYS - 1)));
        }
        Ok(())
    }

    /// The measures: those shown, the fields of rows that are one each, and those that the condition alone asks.
    fn count(&mut self, query: &Query, entity: &'static Entity, events: bool) -> Result<Vec<Aggregate>, SrqlError> {
        let mut calls = query.stats.clone();
        if calls.is_empty() {
            let last = |path: &Path| Aggregate {
                function: "max".to_owned(),
                field: Some(path.clone()),
                quantile: None,
                only: None,
                alias: path.path.join("."),
                span: path.span,
            };
            calls.extend(query.fields.iter().filter(|path| !self.keys.contains(&path.path.join("."))).map(last));
        } else if let Some(path) = query.fields.first() {
            return Err(SrqlError::new(
                "clause_conflict",
                path.span,
                "fields: are those of rows; stats: says what groups show",
            ));
        }
        hidden(query.having.as_ref(), &mut calls);
        if calls.len() > MAX_MEASURES {
            let detail = format!("a rule has at most {MAX_MEASURES} measures");
            return Err(SrqlError::new("too_many_terms", calls[MAX_MEASURES].span, detail));
        }
        for call in &calls {
            // The fields of a row are what they are; of groups only numbers have a greatest.
            let measure = match query.stats.is_empty() && call.function == "max" {
                true => {
                    let target = call.field.as_ref().map(|path| Target::of(path, entity)).transpose()?;
                    Measure { alias: call.alias.clone(), function: Function::Field, target, only: None }
                }
                false => Measure::of(call, entity, events)?,
            };
            self.measures.push(measure);
        }
        // Whether a row is there at all.
        let rows = Aggregate {
            function: "count".to_owned(),
            field: None,
            quantile: None,
            only: None,
            alias: "__rows".to_owned(),
            span: query.entities[0].1,
        };
        self.measures.push(Measure::of(&rows, entity, events)?);
        calls.push(rows);
        Ok(calls)
    }

    /// What tallies are made by: everything but the condition.
    fn counts(&self) -> String {
        let measures: Vec<_> = self.measures.iter().map(|m| (m.function, &m.target, &m.only)).collect();
        let text = format!("{} {:?} {:?} {measures:?} {:?}", self.entity.name, self.span_ms, self.filter, self.by);
        hex::encode(&Sha256::digest(text.as_bytes())[..8])
    }

    /// The columns of rows that it asks.
    pub fn columns(&self) -> std::collections::BTreeSet<&'static str> {
        let filters =
            [&self.filter].into_iter().chain(self.measures.iter().filter_map(|measure| measure.only.as_ref()));
        let targets =
            self.by.iter().map(|key| &key.target).chain(self.measures.iter().filter_map(|m| m.target.as_ref()));
        let of_filters = filters.flat_map(Filter::columns).copied();
        of_filters.chain(targets.map(|target| target.column)).chain(self.entity.time).collect()
    }

    /// The width of a step of its span, milliseconds.
    pub fn step_ms(&self) -> i64 {
        self.span_ms.map_or(1000, |span| (span / STEPS).max(1000))
    }

    /// Nothing counted.
    pub fn nothing(&self) -> Vec<Tally> {
        self.measures.iter().map(Measure::nothing).collect()
    }

    /// What rows of events add, those rows that are like it; `rows` are those that may be.
    pub fn events(&self, batch: &RecordBatch, rows: impl Iterator<Item = usize>, now_ms: i64, into: &mut Contribution) {
        let Some(span_ms) = self.span_ms else { return };
        let (filter, times) = (self.filter.over(batch), Cells::of(batch, self.entity.time.unwrap_or("time")));
        let keys: Vec<Cells<'_>> = self.by.iter().map(|key| Cells::of(batch, key.target.column)).collect();
        let measures: Vec<_> = self.measures.iter().map(|measure| measure.over(batch)).collect();
        let step_ms = self.step_ms();
        for row in rows.filter(|row| filter.matches(*row)) {
            let Some(at_us) = times.time(row) else { continue };
            // What is said to be of the future is of now; what is too old is over.
            let at_ms = at_us.div_euclid(1000).min(now_ms);
            if at_ms <= now_ms - span_ms {
                continue;
            }
            for group in self.grouped(&keys, row) {
                let steps = into.entry(group).or_default();
                let tallies = steps.entry(at_ms.div_euclid(step_ms)).or_insert_with(|| self.nothing());
                for (measured, tally) in measures.iter().zip(tallies) {
                    measured.add(tally, row, at_us.min(now_ms * 1000));
                }
            }
        }
    }

    /// What rows of current state add that come (1) and go (-1); `rows` are those that may be like it.
    pub fn standing(
        &self,
        batch: &RecordBatch,
        rows: impl Iterator<Item = (usize, i64)>,
        into: &mut BTreeMap<GroupOf, Vec<Tally>>,
    ) {
        let filter = self.filter.over(batch);
        let keys: Vec<Cells<'_>> = self.by.iter().map(|key| Cells::of(batch, key.target.column)).collect();
        let measures: Vec<_> = self.measures.iter().map(|measure| measure.over(batch)).collect();
        for (row, diff) in rows.filter(|(row, _)| filter.matches(*row)) {
            for group in self.grouped(&keys, row) {
                let parts: Vec<Tally> = measures.iter().map(|measured| measured.standing(row, diff)).collect();
                match into.get_mut(&group) {
                    Some(tallies) => tallies.iter_mut().zip(parts).for_each(|(tally, part)| tally.merge(part)),
                    None => drop(into.insert(group, parts)),
                }
            }
        }
    }

    /// The groups that a row is in.
    fn grouped(&self, keys: &[Cells<'_>], row: usize) -> Vec<GroupOf> {
        let cut = |text: String| cut(text, MAX_KEY);
        let mut groups: Vec<GroupOf> = vec![Vec::with_capacity(keys.len())];
        for (key, cells) in self.by.iter().zip(keys) {
            let value = match (&key.target.key, key.how) {
                (_, How::Each) => {
                    let each: Vec<Option<String>> =
                        cells.texts(row).take(MAX_EACH).map(|text| Some(cut(text.to_owned()))).collect();
                    let each = if each.is_empty() { vec![None] } else { each };
                    let with = |value: &Option<String>| {
                        let group = groups[0].iter().cloned().chain([value.clone()]);
                        group.collect::<GroupOf>()
                    };
                    groups = each.iter().map(with).collect();
                    continue;
                }
                (Some(below), _) => cells.below(row, below).map(str::to_owned),
                (None, How::Network(bits)) => cells.text(row).and_then(|text| network(text, bits)),
                (None, How::Value) => cells.label(row),
            };
            let value = value.map(cut);
            groups.iter_mut().for_each(|group| group.push(value.clone()));
        }
        groups
    }

    /// Whether it holds where columns have these values.
    pub(super) fn holds(&self, of: &dyn Fn(Column) -> Value) -> bool {
        self.having.as_ref().is_none_or(|having| having.holds(of))
    }

    /// What its condition asks of the past of measures: which, and how far ahead, milliseconds.
    pub fn seasons(&self) -> &BTreeMap<usize, Option<i64>> {
        &self.seasons
    }

    /// Whether it can begin to hold only as more is counted, and not as time goes by.
    pub fn rises(&self) -> bool {
        self.rises
    }

    /// Whether it may hold because rows are missing: of what is little, nothing is said before all of a span is there.
    pub fn needs_all(&self) -> bool {
        self.needs_all
    }

    /// The group of a rule without keys in a partition.
    pub fn of_partition(&self, partition: &str) -> GroupOf {
        vec![Some(partition.to_owned())]
    }

    /// Whether groups are told apart as by another: they may go on.
    pub fn groups_as(&self, other: &Rule) -> bool {
        self.entity.table == other.entity.table && format!("{:?}", self.by) == format!("{:?}", other.by)
    }

    /// The value of a key: of a number a number, of anything else its text.
    pub(super) fn key(&self, at: usize, group: &[Option<String>]) -> Value {
        let value = group.get(at).cloned().flatten();
        let number = self.by.get(at).is_some_and(|key| key.how == How::Value && key.target.kind == Kind::Number);
        match value {
            None => Value::Missing,
            Some(text) if number => Value::of_text(&text),
            Some(text) => Value::Text(text),
        }
    }

    /// Notes what its condition asks, which every step of every group wants to know.
    fn note(&mut self) {
        let Some(having) = &self.having else { return };
        for column in having.columns() {
            match column {
                Column::Expected(at) | Column::Deviation(at) => drop(self.seasons.entry(at).or_default()),
                Column::Forecast(at, ahead) => {
                    let known = self.seasons.entry(at).or_default();
                    *known = (*known).max(Some(ahead));
                }
                Column::Key(_) | Column::Measure(_) => {}
            }
        }
        let grows =
            |at: usize| matches!(self.measures[at].function, Function::Count | Function::Distinct | Function::Max);
        self.rises = having.rises(&grows);
        let counts = |at: usize| {
            let function = self.measures[at].function;
            matches!(function, Function::Count | Function::Distinct | Function::Sum | Function::Rate)
        };
        self.needs_all = having.falls(&counts);
    }

    /// What the alert of a group says whose measures came to these when it began: title, description, labels.
    pub fn says(&self, group: &[Option<String>], began: &BTreeMap<String, String>) -> Saying {
        let labels = self.labels_of(group);
        let word = |name: &str| -> &str {
            if name == "rule" {
                return &self.name;
            }
            let key = self.keys.iter().position(|key| key == name);
            let key = key.map(|at| group.get(at).and_then(Option::as_deref).unwrap_or_default());
            key.or_else(|| began.get(name).map(String::as_str)).unwrap_or_default()
        };
        let own = match &labels.values().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => self.name.clone(),
            all => format!("{}: {}", self.name, all.join(", ")),
        };
        let title = if self.title.is_empty() { own } else { filled(&self.title, word) };
        let counted = |measure: &&Measure| !measure.alias.starts_with("__") && measure.function != Function::Field;
        let shown = self.measures.iter().filter(counted).filter_map(|m| Some((&m.alias, began.get(&m.alias)?)));
        let shown: Vec<String> = shown.map(|(alias, value)| format!("{alias} is {value}")).collect();
        let mut description = filled(&self.description, word);
        if !shown.is_empty() {
            let gap = if description.is_empty() { "" } else { "\n" };
            description = format!("{description}{gap}{}", shown.join(", "));
        }
        if let Some(url) = &self.runbook_url {
            description.push_str(&format!("\nrunbook: {url}"));
        }
        let (title, description) = (cut(title, MAX_TITLE), cut(description, MAX_DESCRIPTION));
        let threshold = self.having.as_ref().and_then(Condition::threshold);
        let measured = threshold.map(|(at, op, n)| {
            let comparison = match op {
                Op::Eq => "=",
                Op::NotEq => "!=",
                Op::Less => "<",
                Op::LessEq => "<=",
                Op::Greater => ">",
                Op::GreaterEq => ">=",
            };
            Measured {
                metric: self.measures[at].alias.trim_start_matches('_').to_owned(),
                value: began.get(&self.measures[at].alias).cloned(),
                threshold: Some(Value::Number(n).shown()),
                comparison: Some(comparison.to_owned()),
            }
        });
        let of = |is: &dyn Fn(&Target) -> bool| {
            let at = self.by.iter().position(|key| key.how == How::Value && is(&key.target))?;
            group.get(at).cloned().flatten()
        };
        let own_row = |table: Table, column: &'static str| {
            move |target: &Target| self.entity.table == table && target.column == column
        };
        let device = of(&|target| target.column == "device_uid").or_else(|| of(&own_row(Table::Device, "uid")));
        let device = device.or_else(|| of(&|target| target.column.ends_with("_device_uid")));
        Saying {
            partition: of(&|target| target.column == "partition").unwrap_or_else(|| NOWHERE.to_owned()),
            entity: self.named(group),
            title,
            description,
            labels: labels.into_iter().chain(self.fields_of(began)).chain(self.labels.clone()).collect(),
            device_uid: device,
            agent_uid: of(&|target| target.column == "agent_id"),
            measured,
        }
    }

    fn labels_of(&self, group: &[Option<String>]) -> BTreeMap<String, String> {
        let labels = self.keys.iter().zip(group).filter(|(key, _)| *key != "partition");
        labels.filter_map(|(key, value)| Some((label(key), value.clone()?))).collect()
    }

    /// The fields of the row that it is of, where each row is one.
    fn fields_of(&self, began: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let fields = self.measures.iter().filter(|measure| measure.function == Function::Field);
        let fields = fields.filter_map(|m| Some((label(&m.alias), began.get(&m.alias)?.clone())));
        fields.filter(|(_, value)| !value.is_empty()).collect()
    }

    /// The name of a group: its value, or its values as a list. The partition is said beside it.
    fn named(&self, group: &[Option<String>]) -> String {
        let partition = |at: &usize| self.by.get(*at).is_some_and(|key| key.target.column == "partition");
        let own: Vec<&Option<String>> = (0..group.len()).filter(|at| !partition(at)).map(|at| &group[at]).collect();
        match &own[..] {
            [] => String::new(),
            [Some(one)] => one.clone(),
            several => serde_json::Value::from_iter(several.iter().map(|value| (*value).clone())).to_string(),
        }
    }

    /// What may stand in braces.
    fn words(&self) -> impl Iterator<Item = &str> {
        let measures = self.measures.iter().map(|m| m.alias.as_str()).filter(|alias| !alias.starts_with("__"));
        ["rule"].into_iter().chain(self.keys.iter().map(String::as_str)).chain(measures)
    }
}

/// What an alert of a group says.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Saying {
    pub partition: String,
    pub entity: String,
    pub title: String,
    pub description: String,
    pub labels: BTreeMap<String, String>,
    pub device_uid: Option<String>,
    pub agent_uid: Option<String>,
    pub measured: Option<Measured>,
}

impl Saying {
    /// The condition that it is, and what that is about.
    pub fn condition(&self, rule: &Rule) -> (Subject, alert::Condition) {
        let subject = Subject {
            tenant: rule.tenant.clone(),
            partition: self.partition.clone(),
            rule: format!("rule:{}", rule.name),
            entity: self.entity.clone(),
        };
        let (source_type, source_id) = match (&self.device_uid, &self.agent_uid) {
            (Some(device), _) => ("device", device.clone()),
            (None, Some(agent)) => ("agent", agent.clone()),
            (None, None) => ("rule", self.entity.clone()),
        };
        let condition = alert::Condition {
            rule: rule.name.clone(),
            severity: rule.severity.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
            source_type: source_type.to_owned(),
            source_id,
            device_uid: self.device_uid.clone(),
            agent_uid: self.agent_uid.clone(),
            labels: self.labels.clone(),
            measured: self.measured.clone(),
        };
        (subject, condition)
    }
}

/// A text of so many bytes at most.
pub(super) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
    text
}

/// A text with the words in braces filled in. What is filled in stands as it is: braces in it mean nothing.
pub(crate) fn filled<'a>(text: &str, mut word: impl FnMut(&str) -> &'a str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        out.push_str(word(name));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A name as labels have it: letters, digits and underscores (Prometheus data model).
fn label(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn check_label(name: &str) -> Result<(), String> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let own = ["alertname", "severity", "tenant", "partition", "source_type", "source_id"];
    match (first && rest, own.contains(&name)) {
        (false, _) => Err(format!("{name:?} is no name of a label: letters, digits, underscores")),
        (_, true) => Err(format!("the label {name} is set by the program")),
        _ => Ok(()),
    }
}

/// The words in braces.
fn braced(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(word, _)| word))
}

/// The span that a query about events asks, milliseconds; of state it asks none.
fn span_of(query: &Query, entity: &Entity, events: bool) -> Result<Option<i64>, SrqlError> {
    let Some(literal) = &query.time else {
        return match events {
            true => {
                let detail = format!("say of which span before now a rule about {} is: time:last_5m", entity.name);
                Err(SrqlError::new("time_missing", query.entities[0].1, detail))
            }
            false => Ok(None),
        };
    };
    if !events {
        let detail = format!("a rule about {} is about those of now; it has no time:", entity.name);
        return Err(SrqlError::new("not_followed", literal.span, detail));
    }
    let text = plain(&literal.text).to_ascii_lowercase();
    let text = text.strip_prefix("last").map_or(text.as_str(), |rest| rest.trim_start_matches([' ', '_', '-']));
    match duration(text).map(|us| us / 1000) {
        Some(ms @ 1000..=MAX_SPAN_MS) => Ok(Some(ms)),
        Some(_) => Err(SrqlError::new(
            "bad_time",
            literal.span,
            "a rule is about the last second at least, the last week at most",
        )),
        None => {
            let detail = "a rule is about a span before now, whenever that is: time:last_5m";
            Err(SrqlError::new("bad_time", literal.span, detail))
        }
    }
}

/// Adds the calls of a condition that nothing shows.
fn hidden(having: Option<&Having>, calls: &mut Vec<Aggregate>) {
    match having {
        Some(Having::And(all) | Having::Or(all)) => all.iter().for_each(|h| hidden(Some(h), calls)),
        Some(Having::Not(inner)) => hidden(Some(inner), calls),
        Some(Having::Compare(left, _, right, _)) => {
            for side in [left, right] {
                if let Operand::Call(call) = side
                    && !calls.iter().any(|known| known.is_like(call))
                {
                    calls.push(Aggregate { alias: format!("__{}", call.alias), ..(**call).clone() });
                }
            }
        }
        None => {}
    }
}
