//! Queries made at random from the catalog, and what they answer by a plain walk over the rows, written apart from the
//! planner: conditions, lists, ranges, patterns, orders, groups and their aggregates, the largest of them, series.
//! `RADARFLOW_QUERIES` sets how many, `RADARFLOW_SEED` which.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use radarflow_language::matching::Filter;
use radarflow_language::parse::parse;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Flow, Table};
use radarflow_query::engine::Engine;
use radarflow_query::tables::catalog::{Kind, find};
use radarflow_query::tables::live::Live;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::{actor, data, json as rows_of};

const HOUR_US: i64 = 3_600_000_000;
/// Text that is nearly alike, and text that patterns trip over.
const TEXTS: &[&str] = &["dns", "https", "HTTPS", "http", "s3 get", "a_b", "a%b", "axb", "", "é1", "null", "1"];
const ADDRESSES: &[&str] =
    &["10.0.0.1", "10.0.0.9", "10.0.0.10", "10.0.1.2", "192.168.1.1", "2001:db8::1", "2001:db8::ff", "9.255.0.1"];
const NUMBERS: &[&str] = &["tos", "vlan", "in_if", "out_if", "src_as_number", "dst_as_number", "src_endpoint_port"];

fn pick<'a, T>(from: &'a [T], random: &mut StdRng) -> &'a T {
    &from[random.random_range(0..from.len())]
}

/// Rows as they are told to the tables, and to the walk.
fn made(n: u64, random: &mut StdRng) -> Vec<Value> {
    let maybe = |value: Value, random: &mut StdRng| if random.random_bool(0.25) { Value::Null } else { value };
    let row = |n: u64, random: &mut StdRng| {
        let big = *pick(&[0i64, 9_007_199_254_740_992, 1000], random);
        let mut row = json!({
            "row_id": 9_007_199_254_740_990 + n,
            "time": (data::NOW / 1000 - random.random_range(1..4000) * 60) * 1_000_000,
            "bytes_total": big + random.random_range(0..5), "packets_total": random.random_range(0..4),
            "partition": *pick(&["default", "site-b"], random),
            "sampler_address": *pick(&["10.0.0.1", "10.0.1.7", "10.1.0.1"], random),
        });
        for name in NUMBERS {
            row[*name] = maybe(json!(random.random_range(0..12)), random);
        }
        for name in ["app", "notes", "src_device_uid"] {
            row[name] = maybe(json!(*pick(TEXTS, random)), random);
        }
        for end in ["src_endpoint_ip", "dst_endpoint_ip"] {
            let ip = maybe(json!(*pick(ADDRESSES, random)), random);
            row[format!("{end}_bin")] = ip.as_str().map_or(Value::Null, |ip| json!(data::bytes_of(ip)));
            row[end] = ip;
        }
        row
    };
    (0..n).map(|n| row(n, random)).collect()
}

/// A value of a row, as it compares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Number(i64),
    Text(String),
    Ip([u8; 16]),
    Time(i64),
}

fn sixteen(ip: &str) -> [u8; 16] {
    match ip.parse::<IpAddr>().expect("an address") {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn is_ipv4(bytes: &[u8; 16]) -> bool {
    bytes[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
}

#[derive(Clone, Debug)]
struct Column {
    name: &'static str,
    kind: Kind,
}

impl Column {
    fn of(&self, row: &Value) -> Option<Cell> {
        let value = row.get(self.name).filter(|value| !value.is_null())?;
        Some(match self.kind {
            Kind::Ip => Cell::Ip(sixteen(value.as_str()?)),
            Kind::Time => Cell::Time(value.as_i64()?),
            Kind::Number => Cell::Number(value.as_i64()?),
            _ => Cell::Text(value.as_str()?.to_owned()),
        })
    }

    /// As an answer shows it.
    fn shown(&self, cell: Option<&Cell>) -> Value {
        match cell {
            None => Value::Null,
            Some(Cell::Number(n)) if self.name == "row_id" => json!(n.to_string()),
            Some(Cell::Number(n)) => json!(n),
            Some(Cell::Text(text)) => json!(text),
            Some(Cell::Ip(bytes)) => json!(Ipv6Addr::from(*bytes).to_canonical().to_string()),
            Some(Cell::Time(us)) => json!(instant(*us)),
        }
    }
}

fn instant(us: i64) -> String {
    DateTime::from_timestamp_micros(us).expect("a time").to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The columns that rows differ in, as the catalog has them.
fn columns() -> Vec<Column> {
    let of = |name: &str| {
        let field = find("flows").expect("flows").fields.iter().find(|f| f.name == name);
        let field = field.unwrap_or_else(|| panic!("{name} is no field"));
        Column { name: field.name, kind: field.kind }
    };
    let more = ["row_id", "time", "bytes_total", "packets_total", "partition", "sampler_address", "app", "notes"];
    let ends = ["src_device_uid", "src_endpoint_ip", "dst_endpoint_ip"];
    NUMBERS.iter().chain(&more).chain(&ends).map(|name| of(name)).collect()
}

#[derive(Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Is(Column, Test),
    Text(String),
}

#[derive(Debug)]
enum Test {
    Equal(Cell),
    Fold(String),
    Like(Vec<char>),
    One(Vec<Test>),
    Compare(&'static str, Cell),
    Between(Option<Cell>, Option<Cell>),
    Missing,
    Present,
    Empty,
    Beginning(String),
    Network([u8; 16], u32),
    Field(&'static str, Column),
}

/// A literal, however its field reads it.
fn written(cell: &Cell) -> String {
    match cell {
        Cell::Number(n) => n.to_string(),
        Cell::Text(text) => format!("'{text}'"),
        Cell::Ip(bytes) => Ipv6Addr::from(*bytes).to_canonical().to_string(),
        Cell::Time(us) => format!("'{}'", instant(*us)),
    }
}

impl Test {
    fn query(&self) -> String {
        let side = |cell: &Option<Cell>| cell.as_ref().map(written).unwrap_or_default();
        match self {
            Test::Equal(cell) => written(cell),
            Test::Fold(text) => format!("~'{text}'"),
            Test::Like(pattern) => {
                let escaped = |c: &char| match c {
                    '*' | '?' => c.to_string(),
                    c if c.is_alphanumeric() => c.to_string(),
                    c => format!("\\{c}"),
                };
                pattern.iter().map(escaped).collect()
            }
            Test::One(all) => format!("({})", all.iter().map(Test::query).collect::<Vec<_>>().join(",")),
            Test::Compare(op, cell) => format!("{op}{}", written(cell)),
            Test::Between(from, to) => format!("{}..{}", side(from), side(to)),
            Test::Missing => "null".to_owned(),
            Test::Present => "*".to_owned(),
            Test::Empty => "\"\"".to_owned(),
            Test::Beginning(text) => format!("/^{text}/"),
            Test::Network(bytes, bits) => format!("{}/{bits}", written(&Cell::Ip(*bytes))),
            Test::Field(op, column) => format!("{op}@{}", column.name),
        }
    }

    fn holds(&self, cell: Option<&Cell>, row: &Value) -> bool {
        match (self, cell) {
            (Test::Missing, cell) => cell.is_none(),
            (Test::Empty, cell) => cell.is_none_or(|cell| matches!(cell, Cell::Text(text) if text.is_empty())),
            (Test::One(all), cell) => all.iter().any(|test| test.holds(cell, row)),
            (_, None) => false,
            (Test::Present, Some(_)) => true,
            (Test::Equal(this), Some(cell)) => this == cell,
            (Test::Fold(text), Some(Cell::Text(cell))) => text.to_lowercase() == cell.to_lowercase(),
            (Test::Like(pattern), Some(cell)) => {
                let text = match cell {
                    Cell::Text(text) => text.to_lowercase(),
                    Cell::Number(n) => n.to_string(),
                    other => written(other),
                };
                let pattern: Vec<char> = pattern.iter().flat_map(|c| c.to_lowercase()).collect();
                like(&pattern, &text.chars().collect::<Vec<_>>())
            }
            (Test::Compare(op, this), Some(cell)) => comparable(cell, this) && compared(op, cell.cmp(this)),
            (Test::Between(from, to), Some(cell)) => {
                from.as_ref().is_none_or(|from| comparable(cell, from) && cell >= from)
                    && to.as_ref().is_none_or(|to| comparable(cell, to) && cell <= to)
            }
            (Test::Beginning(text), Some(Cell::Text(cell))) => cell.starts_with(text.as_str()),
            (Test::Network(bytes, bits), Some(Cell::Ip(cell))) => {
                let bits = if is_ipv4(bytes) { 96 + bits } else { *bits };
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                let masked = |bytes: &[u8; 16]| u128::from_be_bytes(*bytes) & mask;
                is_ipv4(bytes) == is_ipv4(cell) && masked(bytes) == masked(cell)
            }
            (Test::Field(op, column), Some(cell)) => {
                column.of(row).is_some_and(|other| comparable(cell, &other) && compared(op, cell.cmp(&other)))
            }
            (test, Some(cell)) => panic!("{test:?} is not for {cell:?}"),
        }
    }
}

/// Addresses of two families have no order.
fn comparable(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::Ip(a), Cell::Ip(b)) => is_ipv4(a) == is_ipv4(b),
        _ => true,
    }
}

fn compared(op: &str, order: Ordering) -> bool {
    match op {
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        _ => order.is_eq(),
    }
}

/// `*` any run, `?` one character.
fn like(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|n| like(rest, &text[n..])),
        ['?', rest @ ..] => !text.is_empty() && like(rest, &text[1..]),
        [c, rest @ ..] => text.first() == Some(c) && like(rest, &text[1..]),
    }
}

impl Condition {
    fn query(&self) -> String {
        let joined = |all: &[Condition], by: &str| all.iter().map(Condition::query).collect::<Vec<_>>().join(by);
        match self {
            Condition::All(all) => format!("({})", joined(all, " ")),
            Condition::Any(all) => format!("({})", joined(all, " OR ")),
            Condition::Not(inner) => format!("!{}", inner.query()),
            Condition::Is(column, test) => format!("`{}`:{}", column.name, test.query()),
            Condition::Text(text) => format!("\"{text}\""),
        }
    }

    fn holds(&self, row: &Value, texts: &[&str]) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|c| c.holds(row, texts)),
            Condition::Any(all) => all.iter().any(|c| c.holds(row, texts)),
            Condition::Not(inner) => !inner.holds(row, texts),
            Condition::Is(column, test) => test.holds(column.of(row).as_ref(), row),
            Condition::Text(text) => texts.iter().any(|name| {
                row.get(name).and_then(Value::as_str).is_some_and(|v| v.to_lowercase().contains(&text.to_lowercase()))
            }),
        }
    }
}

/// What makes queries.
struct Maker<'a> {
    rows: &'a [Value],
    columns: &'a [Column],
    random: StdRng,
}

impl Maker<'_> {
    fn one_of<T: Clone>(&mut self, from: &[T]) -> T {
        pick(from, &mut self.random).clone()
    }

    /// A value that some row has.
    fn value(&mut self, column: &Column) -> Cell {
        let rows = self.rows;
        loop {
            let row = pick(rows, &mut self.random);
            if let Some(cell) = column.of(row) {
                return match cell {
                    Cell::Number(n) if column.name != "row_id" && n > 0 && self.random.random_bool(0.2) => {
                        Cell::Number(n - 1)
                    }
                    cell => cell,
                };
            }
        }
    }

    fn pattern(&mut self, column: &Column) -> Option<Vec<char>> {
        let mut text: Vec<char> = match self.value(column) {
            Cell::Text(text) => text.chars().collect(),
            Cell::Time(_) => return None,
            cell => written(&cell).chars().collect(),
        };
        for _ in 0..self.random.random_range(1..3) {
            let at = self.random.random_range(0..=text.len());
            match self.random.random_range(0..3) {
                0 => text.insert(at, '*'),
                1 if at < text.len() => text[at] = '?',
                _ => {
                    text.truncate(at);
                    text.push('*');
                }
            }
        }
        // A star alone is presence.
        (text.iter().any(|c| *c != '*') && text.iter().any(|c| matches!(c, '*' | '?'))).then_some(text)
    }

    fn test(&mut self, column: &Column, listed: bool) -> Test {
        let ordered = matches!(column.kind, Kind::Number | Kind::Time | Kind::Ip);
        loop {
            let n = self.random.random_range(0..if listed { 5 } else { 12 });
            match n {
                0 | 1 => {
                    return match self.value(column) {
                        // No text is what is missing, too.
                        Cell::Text(text) if text.is_empty() => Test::Empty,
                        cell => Test::Equal(cell),
                    };
                }
                2 => {
                    if let Some(pattern) = self.pattern(column) {
                        return Test::Like(pattern);
                    }
                }
                3 if ordered => return Test::Compare(self.one_of(&[">", ">=", "<", "<="]), self.value(column)),
                4 if ordered => {
                    let (a, b) = (self.value(column), self.value(column));
                    if comparable(&a, &b) {
                        let (from, to) = (a.clone().min(b.clone()), a.max(b));
                        return match self.random.random_range(0..3) {
                            0 => Test::Between(Some(from), None),
                            1 => Test::Between(None, Some(to)),
                            _ => Test::Between(Some(from), Some(to)),
                        };
                    }
                }
                5 => {
                    let n = self.random.random_range(1..5);
                    return Test::One((0..n).map(|_| self.test(column, true)).collect());
                }
                6 => return Test::Missing,
                7 => return Test::Present,
                8 => return Test::Empty,
                9 if column.kind == Kind::Text => {
                    if let Cell::Text(text) = self.value(column)
                        && !text.is_empty()
                    {
                        return if self.random.random_bool(0.5) {
                            Test::Fold(text)
                        } else {
                            Test::Beginning(text.chars().take_while(|c| c.is_alphanumeric()).take(2).collect())
                        };
                    }
                }
                10 if column.kind == Kind::Ip => {
                    let Cell::Ip(bytes) = self.value(column) else { continue };
                    let most = if is_ipv4(&bytes) { 32 } else { 128 };
                    return Test::Network(bytes, self.random.random_range(0..=most));
                }
                11 => {
                    let alike: Vec<Column> = self.columns.iter().filter(|c| c.kind == column.kind).cloned().collect();
                    let op = if ordered { self.one_of(&["", ">", "<="]) } else { "" };
                    return Test::Field(op, self.one_of(&alike));
                }
                _ => {}
            }
        }
    }

    fn condition(&mut self, depth: usize) -> Condition {
        match self.random.random_range(0..if depth > 2 { 4 } else { 9 }) {
            4 | 5 => Condition::All((0..self.random.random_range(1..4)).map(|_| self.condition(depth + 1)).collect()),
            6 | 7 => Condition::Any((0..self.random.random_range(2..4)).map(|_| self.condition(depth + 1)).collect()),
            8 => match self.condition(depth + 1) {
                Condition::Not(inner) => *inner,
                other => Condition::Not(Box::new(other)),
            },
            0 if self.random.random_bool(0.2) => {
                Condition::Text(self.one_of(&["dns", "TP", "s3 g", "é", "site"]).to_owned())
            }
            _ => {
                let column = self.one_of(self.columns);
                let test = self.test(&column, false);
                Condition::Is(column, test)
            }
        }
    }
}

/// Missing values are last, whichever way.
fn ordered(a: Option<&Cell>, b: Option<&Cell>, ascending: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if ascending => a.cmp(b),
        (Some(a), Some(b)) => b.cmp(a),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// An aggregate of a column's values, as it is shown.
fn aggregate(function: &str, column: &Column, cells: &[Option<Cell>]) -> Value {
    let there: Vec<&Cell> = cells.iter().flatten().collect();
    let sum = || there.iter().map(|cell| if let Cell::Number(n) = cell { *n } else { 0 }).sum::<i64>();
    match function {
        "count" => json!(there.len()),
        "count_distinct" => json!(there.iter().collect::<BTreeSet<_>>().len()),
        "min" => column.shown(there.iter().min().copied()),
        "max" => column.shown(there.iter().max().copied()),
        _ if there.is_empty() => Value::Null,
        "sum" => json!(sum()),
        _ => {
            let real = |cell: &&Cell| if let Cell::Number(n) = cell { *n as f64 } else { 0.0 };
            json!(there.iter().map(real).sum::<f64>() / there.len() as f64)
        }
    }
}

/// Numbers with a fraction are alike where they are about the same.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => {
            let (x, y) = (x.as_f64().unwrap_or(0.0), y.as_f64().unwrap_or(0.0));
            (x - y).abs() <= 1e-9 * x.abs().max(y.abs())
        }
        (a, b) => a == b,
    }
}

fn table(rows: &[Value], columns: &[String]) -> Vec<Vec<Value>> {
    rows.iter().map(|row| columns.iter().map(|column| row[column].clone()).collect()).collect()
}

fn same(a: &[Vec<Value>], b: &[Vec<Value>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.iter().zip(b).all(|(a, b)| alike(a, b)))
}

struct Walk<'a> {
    maker: Maker<'a>,
    engine: Arc<Engine>,
    texts: Vec<&'static str>,
}

impl Walk<'_> {
    async fn asked(&self, query: &str, columns: &[String]) -> Vec<Vec<Value>> {
        let answer = self.engine.query(&actor("t", &[]), query, None, None).await;
        table(&rows_of(&answer.unwrap_or_else(|e| panic!("{query}: {e:?}"))), columns)
    }

    async fn rows(&mut self) {
        let condition = self.maker.condition(0);
        let (sort, ascending) = (self.maker.one_of(self.maker.columns), self.maker.random.random_bool(0.5));
        let limit = self.maker.random.random_range(1..400);
        let way = if ascending { "asc" } else { "desc" };
        let query = format!(
            "in:flows time:last_7d {} fields:row_id,`{}` sort:`{}`:{way} limit:{limit}",
            condition.query(),
            sort.name,
            sort.name
        );
        let row_id = self.maker.columns.iter().find(|c| c.name == "row_id").expect("row ids").clone();
        let mut found: Vec<&Value> = self.maker.rows.iter().filter(|row| condition.holds(row, &self.texts)).collect();
        found.sort_by(|a, b| {
            ordered(sort.of(a).as_ref(), sort.of(b).as_ref(), ascending)
                .then_with(|| ordered(row_id.of(a).as_ref(), row_id.of(b).as_ref(), false))
        });
        found.truncate(limit);
        let columns = ["row_id".to_owned(), sort.name.to_owned()];
        let shown = |row: &&Value| vec![row_id.shown(row_id.of(row).as_ref()), sort.shown(sort.of(row).as_ref())];
        let wanted: Vec<Vec<Value>> = found.iter().map(shown).collect();
        let got = self.asked(&query, &columns).await;
        assert!(same(&got, &wanted), "{query}\n{got:?}\nis not\n{wanted:?}");
    }

    async fn groups(&mut self) {
        let condition = self.maker.condition(1);
        let only = self.maker.condition(2);
        let mut keys: Vec<Column> = Vec::new();
        for _ in 0..self.maker.random.random_range(0..3) {
            let key = self.maker.one_of(self.maker.columns);
            if keys.iter().all(|known| known.name != key.name) {
                keys.push(key);
            }
        }
        let sliced = self.maker.random.random_bool(0.3);
        let mut calls: Vec<(&str, Column)> = Vec::new();
        for _ in 0..self.maker.random.random_range(1..4) {
            let column = self.maker.one_of(self.maker.columns);
            let numeric = column.kind == Kind::Number && column.name != "row_id";
            let functions: &[&str] = if numeric {
                &["count", "count_distinct", "min", "max", "sum", "avg"]
            } else {
                &["count", "count_distinct", "min", "max"]
            };
            calls.push((self.maker.one_of(functions), column));
        }
        let least = self.maker.random.random_range(0..4);
        let written: Vec<String> = calls
            .iter()
            .zip(0..)
            .map(|((function, column), n)| format!("{function}(`{}`) as a{n}", column.name))
            .collect();
        let by: Vec<String> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
        let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
        let window = if sliced { " window:1h" } else { "" };
        let query = format!(
            "in:flows time:last_7d {} stats:count_if({}) as only, count() as n, {}{by}{window} having:n>={least} limit:10000",
            condition.query(),
            only.query(),
            written.join(", "),
        );
        let mut groups: BTreeMap<Vec<Option<Cell>>, Vec<&Value>> = BTreeMap::new();
        for row in self.maker.rows.iter().filter(|row| condition.holds(row, &self.texts)) {
            let time = row["time"].as_i64().expect("a time");
            let slice = sliced.then(|| Some(Cell::Time(time.div_euclid(HOUR_US) * HOUR_US)));
            groups.entry(slice.into_iter().chain(keys.iter().map(|key| key.of(row))).collect()).or_default().push(row);
        }
        // Without keys there is a group of nothing, too.
        if keys.is_empty() && !sliced {
            groups.entry(Vec::new()).or_default();
        }
        let time = Column { name: "time", kind: Kind::Time };
        let mut wanted = Vec::new();
        for (key, rows) in groups.iter().filter(|(_, rows)| rows.len() >= least) {
            let of = sliced.then_some(&time).into_iter().chain(&keys);
            let mut told: Vec<Value> = of.zip(key).map(|(column, cell)| column.shown(cell.as_ref())).collect();
            told.push(json!(rows.iter().filter(|row| only.holds(row, &self.texts)).count()));
            told.push(json!(rows.len()));
            for (function, column) in &calls {
                let cells: Vec<Option<Cell>> = rows.iter().map(|row| column.of(row)).collect();
                told.push(aggregate(function, column, &cells));
            }
            wanted.push(told);
        }
        let mut columns: Vec<String> = sliced.then(|| "window_start".to_owned()).into_iter().collect();
        columns.extend(keys.iter().map(|key| key.name.to_owned()));
        columns.extend(["only", "n"].map(str::to_owned));
        columns.extend((0..calls.len()).map(|n| format!("a{n}")));
        let mut got = self.asked(&query, &columns).await;
        let text = |row: &Vec<Value>| row.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
        got.sort_by_key(text);
        wanted.sort_by_key(text);
        assert!(same(&got, &wanted), "{query}\n{got:?}\nis not\n{wanted:?}");
    }
}

impl Walk<'_> {
    /// The largest groups, and the rest as one; a series, filled.
    async fn largest(&mut self) {
        let condition = self.maker.condition(2);
        let key = self.maker.one_of(self.maker.columns);
        let n = self.maker.random.random_range(1..5usize);
        let rows: Vec<&Value> = self.maker.rows.iter().filter(|row| condition.holds(row, &self.texts)).collect();
        let mut groups: BTreeMap<Option<Cell>, Vec<&Value>> = BTreeMap::new();
        for row in &rows {
            groups.entry(key.of(row)).or_default().push(row);
        }
        let mut sizes: Vec<usize> = groups.values().map(Vec::len).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        // Of groups of one size any may be among the largest.
        if sizes.len() > n && sizes[n - 1] == sizes[n] {
            return;
        }
        let least = sizes.get(n - 1).copied().unwrap_or(0);
        let bytes = |rows: &[&Value]| rows.iter().filter_map(|row| row["packets_total"].as_i64()).sum::<i64>();
        let (best, others): (Vec<_>, Vec<_>) = groups.iter().partition(|(_, rows)| rows.len() >= least);
        let mut wanted: Vec<Vec<Value>> = best
            .iter()
            .map(|(cell, rows)| vec![key.shown(cell.as_ref()), json!(rows.len()), json!(bytes(rows)), json!(false)])
            .collect();
        let others: Vec<&Value> = others.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
        if !others.is_empty() {
            wanted.push(vec![Value::Null, json!(others.len()), json!(bytes(&others)), json!(true)]);
        }
        let query = format!(
            "in:flows time:last_7d {} stats:count() as n, sum(packets_total) as p by `{}` top:{n} by:n other:true limit:10000",
            condition.query(),
            key.name
        );
        let columns = [key.name, "n", "p", "is_other"].map(str::to_owned);
        let mut got = self.asked(&query, &columns).await;
        let text = |row: &Vec<Value>| row.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
        got.sort_by_key(text);
        wanted.sort_by_key(text);
        assert!(same(&got, &wanted), "{query}\n{got:?}\nis not\n{wanted:?}");
        self.filled(&condition, &rows).await;
    }

    /// A series of the same rows, with what stands where nothing was.
    async fn filled(&mut self, condition: &Condition, rows: &[&Value]) {
        let fill = self.maker.one_of(&["0", "null", "previous"]);
        let width = self.maker.one_of(&[2i64, 6, 24]);
        let (width_us, now_us) = (width * HOUR_US, data::NOW * 1000);
        let query = format!(
            "in:flows time:last_3d {} bucket:{width}h agg:max value_field:bytes_total fill:{fill}",
            condition.query()
        );
        let from = now_us - 72 * HOUR_US;
        let mut slices: BTreeMap<i64, i64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row["time"].as_i64().is_some_and(|at| at >= from)) {
            let start = row["time"].as_i64().expect("a time").div_euclid(width_us) * width_us;
            let bytes = row["bytes_total"].as_i64().expect("bytes");
            slices.entry(start).and_modify(|most| *most = bytes.max(*most)).or_insert(bytes);
        }
        let (mut wanted, mut before) = (Vec::new(), None);
        let mut at = from.div_euclid(width_us) * width_us;
        while at < now_us && !slices.is_empty() {
            let there = slices.get(&at).copied();
            before = there.or(before);
            let value = there.or(match fill {
                "0" => Some(0),
                "null" => None,
                _ => before,
            });
            wanted.push(vec![json!(instant(at)), json!(value)]);
            at += width_us;
        }
        let got = self.asked(&query, &["timestamp", "value"].map(str::to_owned)).await;
        assert!(same(&got, &wanted), "{query}\n{got:?}\nis not\n{wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_at_random_is_what_the_rows_say() {
    let of = |name: &str, n: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(n);
    let (n, seed) = (of("RADARFLOW_QUERIES", 150), of("RADARFLOW_SEED", 1));
    eprintln!("RADARFLOW_SEED={seed} RADARFLOW_QUERIES={n}");
    let mut random = StdRng::seed_from_u64(seed);
    let rows = made(250, &mut random);
    let flows: Vec<Flow> = rows.iter().map(|more| data::row(&data::any_flow(), more)).collect();
    let live = Live::new(None, 0);
    let events = vec![(Table::Flow, data::batch(&flows))];
    live.apply(&EpochOutput { epoch: 3, clock_ms: data::NOW, events, ..EpochOutput::default() }.into());
    let engine = Arc::new(Engine::new(Arc::new(live), [7; 32]).expect("an engine starts"));
    // What every row has beside what it has of its own.
    let mut base = data::any_flow();
    let whole: Vec<Value> = rows
        .iter()
        .map(|more| {
            for (name, value) in more.as_object().expect("an object") {
                base[name] = value.clone();
            }
            base.clone()
        })
        .collect();
    let fields = &find("flows").expect("flows").fields;
    let texts = fields.iter().filter(|f| f.kind == Kind::Text && !f.hidden).map(|f| f.name).collect();
    let columns = columns();
    let maker = Maker { rows: &whole, columns: &columns, random };
    let mut walk = Walk { maker, engine, texts };
    for turn in 0..n {
        match turn % 3 {
            0 => walk.rows().await,
            1 => walk.groups().await,
            _ => walk.largest().await,
        }
    }
}

/// Whoever asks rows one by one is told the same.
#[test]
fn a_row_says_by_itself_what_a_condition_says_of_it() {
    let mut random = StdRng::seed_from_u64(7);
    let rows = made(250, &mut random);
    let flows: Vec<Flow> = rows.iter().map(|more| data::row(&data::any_flow(), more)).collect();
    let batch = data::batch(&flows);
    let mut base = data::any_flow();
    let whole: Vec<Value> = rows
        .iter()
        .map(|more| {
            for (name, value) in more.as_object().expect("an object") {
                base[name] = value.clone();
            }
            base.clone()
        })
        .collect();
    let entity = find("flows").expect("flows");
    let texts: Vec<&str> = entity.fields.iter().filter(|f| f.kind == Kind::Text && !f.hidden).map(|f| f.name).collect();
    let columns = columns();
    let mut maker = Maker { rows: &whole, columns: &columns, random };
    let mut kept = 0;
    for _ in 0..2000 {
        let condition = maker.condition(2);
        let query = format!("in:flows {}", condition.query());
        let read = parse(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
        let filter = Filter::of(&read.filter, entity).unwrap_or_else(|error| panic!("{query}: {error}"));
        let asked = filter.over(&batch);
        for (n, row) in whole.iter().enumerate() {
            assert_eq!(asked.matches(n), condition.holds(row, &texts), "{query}\n{row}");
            kept += usize::from(asked.matches(n));
        }
        if let Some((column, fixed)) = filter.fixes() {
            let of = |row: &Value| row[column].as_str().is_some_and(|text| fixed.contains(text));
            let outside = whole.iter().enumerate().find(|(n, row)| asked.matches(*n) && !of(row));
            assert!(outside.is_none(), "{query} does not fix {column}: {outside:?}");
        }
    }
    assert!((50_000..450_000).contains(&kept), "{kept} of 500,000 rows are like their condition");
}
