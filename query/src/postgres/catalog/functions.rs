//! Functions of Postgres that tools ask catalogs with.

use std::sync::Arc;

use crate::postgres::catalog::run::Run;
use crate::postgres::catalog::value::Value;
use crate::postgres::kinds::{self, *};
use crate::postgres::refusal::{self, Refusal};

/// What is computed of arguments.
pub(crate) type Call = fn(&Run<'_>, &[Value]) -> Result<Value, Refusal>;

/// What type a function gives.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    This(Oid),
    /// The type of an argument, the first that is known.
    Argument(usize),
    /// What an argument is a list of.
    Element(usize),
    /// Lists of an argument's type.
    ListOf(usize),
}

/// A function.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) gives: Gives,
    pub(crate) call: Call,
    /// Whether it gives a row for each item of a list.
    pub(crate) rows: bool,
    /// Nothing comes of an argument that is missing.
    strict: bool,
}

const fn strict(name: &'static str, gives: Oid, call: Call) -> Function {
    Function { name, gives: Gives::This(gives), call, rows: false, strict: true }
}

const fn lenient(name: &'static str, gives: Gives, call: Call) -> Function {
    Function { name, gives, call, rows: false, strict: false }
}

const fn rows(name: &'static str, gives: Gives, call: Call) -> Function {
    Function { name, gives, call, rows: true, strict: true }
}

/// The function of that name.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

impl Function {
    /// Computes it.
    pub(crate) fn of(&self, run: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
        if self.strict && args.iter().any(Value::is_null) {
            return Ok(Value::Null);
        }
        (self.call)(run, args)
    }
}

fn arg(args: &[Value], at: usize) -> &Value {
    args.get(at).unwrap_or(&Value::Null)
}

fn oid(args: &[Value], at: usize) -> Oid {
    arg(args, at).whole().and_then(|n| n.try_into().ok()).unwrap_or_default()
}

fn text(args: &[Value], at: usize) -> Arc<str> {
    arg(args, at).text()
}

fn missing(_: &Run<'_>, _: &[Value]) -> Result<Value, Refusal> {
    Ok(Value::Null)
}

fn yes(_: &Run<'_>, _: &[Value]) -> Result<Value, Refusal> {
    Ok(true.into())
}

fn no(_: &Run<'_>, _: &[Value]) -> Result<Value, Refusal> {
    Ok(false.into())
}

fn nought(_: &Run<'_>, _: &[Value]) -> Result<Value, Refusal> {
    Ok(Value::Whole(0))
}

/// As SQL writes a type that has bounds.
fn format_type(_: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    if arg(args, 0).is_null() {
        return Ok(Value::Null);
    }
    Ok(kinds::kind(oid(args, 0)).map_or("???", |kind| kind.sql).into())
}

/// A name as SQL has to write it.
fn identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let word = ["all", "user", "table", "order", "group", "select", "from", "where", "end", "desc", "asc"];
    if plain && !word.contains(&name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn description(run: &Run<'_>, oid: Oid, column: i64) -> Value {
    let Some(relation) = run.catalog.by_oid(oid) else { return Value::Null };
    match usize::try_from(column).unwrap_or_default() {
        0 => relation.doc.into(),
        at => relation.columns.get(at - 1).map(|column| column.doc).filter(|doc| !doc.is_empty()).into(),
    }
}

fn array_to_string(run: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    let (Some(items), separator) = (arg(args, 0).items(), text(args, 1)) else { return Ok(Value::Null) };
    let other = args.get(2).filter(|other| !other.is_null());
    let told = items.iter().filter_map(|item| match item {
        Value::Null => other.map(Value::text),
        item => Some(item.text()),
    });
    let told: Vec<Arc<str>> = told.collect();
    run.make(told.iter().map(|text| text.len() + separator.len()).sum())?;
    Ok(told.join(&separator).into())
}

fn series(_: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    let n = |at: usize| arg(args, at).whole();
    let (Some(from), Some(to)) = (n(0), n(1)) else { return Ok(Value::Null) };
    let step = n(2).unwrap_or(1);
    if step == 0 {
        return Err(Refusal::new(refusal::BAD_VALUE, "the step of a series cannot be 0"));
    }
    let count = (i128::from(to) - i128::from(from)) / i128::from(step) + 1;
    let is_empty = (to < from) == (step > 0) && to != from;
    let count = if is_empty { 0 } else { count };
    if count > MAX_SERIES as i128 {
        return Err(Refusal::new(refusal::TOO_MUCH, format!("a series has {MAX_SERIES} items at most")));
    }
    Ok(Value::list((0..count as i64).map(|at| Value::Whole(from + at * step))))
}

/// Words of the language that SQL:2003 does not have.
const KEYWORDS: &[&str] =
    &["analyse", "analyze", "ilike", "isnull", "limit", "notnull", "offset", "returning", "variadic"];

/// Longest series.
const MAX_SERIES: usize = 10_000;

fn bound(args: &[Value], of: impl Fn(usize) -> usize) -> Value {
    let items = arg(args, 0).items().filter(|items| !items.is_empty());
    let first = arg(args, 1).whole() == Some(1);
    items.filter(|_| first).map(|items| of(items.len()) as i64).into()
}

/// What is pressed between two others where a text is split.
fn split(args: &[Value]) -> Vec<Value> {
    let (whole, separator) = (text(args, 0), text(args, 1));
    match (&*whole, &*separator) {
        ("", _) => Vec::new(),
        (whole, "") => vec![whole.into()],
        (whole, separator) => whole.split(separator).map(Value::from).collect(),
    }
}

fn reference(to: Oid) -> impl Fn(&Run<'_>, &[Value]) -> Result<Value, Refusal> {
    move |run, args| Ok(run.catalog.numbered(to, &text(args, 0)).into())
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(is) => (*is).into(),
        Value::Whole(n) => (*n).into(),
        Value::Real(x) => (*x).into(),
        Value::Text(text) => (**text).into(),
        Value::List(items) | Value::Record(items) => items.iter().map(json).collect(),
    }
}

fn json_object(_: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    let pairs =
        args.chunks(2).map(|pair| (pair[0].text().to_string(), pair.get(1).map_or(serde_json::Value::Null, json)));
    Ok(serde_json::Value::Object(pairs.collect()).to_string().into())
}

fn substring(_: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    let (whole, from) = (text(args, 0), arg(args, 1).whole().unwrap_or(1));
    let until = args.get(2).and_then(Value::whole).map_or(i64::MAX, |n| from.saturating_add(n));
    let inside = |at: usize| (from..until).contains(&(at as i64 + 1));
    Ok(whole.chars().enumerate().filter(|(at, _)| inside(*at)).map(|(_, c)| c).collect::<String>().into())
}

/// The characters that are trimmed off a text.
fn trimmed(args: &[Value]) -> Arc<str> {
    args.get(1).map_or_else(|| " ".into(), Value::text)
}

fn expanded(_: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    let items = arg(args, 0).items().unwrap_or_default();
    let pair = |(at, item): (usize, &Value)| Value::Record([item.clone(), Value::Whole(at as i64 + 1)].into());
    Ok(Value::list(items.iter().enumerate().map(pair)))
}

fn setting(run: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    let name = text(args, 0);
    match run.catalog.setting(&name) {
        Some(value) => Ok(value.into()),
        None if arg(args, 1).holds() => Ok(Value::Null),
        None => {
            let detail = format!("unrecognized configuration parameter \"{name}\"");
            Err(Refusal::new(refusal::NO_SETTING, detail))
        }
    }
}

/// A text with its arguments in it: `%s`, `%I` (a name) and `%L` (a literal).
fn formatted(run: &Run<'_>, args: &[Value]) -> Result<Value, Refusal> {
    let (shape, mut args) = (text(args, 0), args.iter().skip(1));
    let (mut out, mut chars) = (String::new(), shape.chars());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let how = chars.next();
        if how == Some('%') {
            out.push('%');
            continue;
        }
        let Some(value) = args.next() else {
            return Err(Refusal::new(refusal::BAD_VALUE, "too few arguments for format()"));
        };
        run.make(2 * value.bytes())?;
        match how {
            Some('s') if value.is_null() => {}
            Some('s') => out.push_str(&value.text()),
            Some('I') => out.push_str(&identifier(&value.text())),
            Some('L') if value.is_null() => out.push_str("NULL"),
            Some('L') => out.push_str(&format!("'{}'", value.text().replace('\'', "''"))),
            _ => return Err(Refusal::new(refusal::BAD_VALUE, "format() knows %s, %I and %L")),
        }
    }
    Ok(out.into())
}

const VISIBLE: &[&str] = &[
    "pg_function_is_visible",
    "pg_type_is_visible",
    "pg_operator_is_visible",
    "pg_collation_is_visible",
    "pg_opclass_is_visible",
    "pg_conversion_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
];

/// The name by which a function that only says yes is found.
pub(crate) fn canonical(name: &str) -> &str {
    match name {
        name if VISIBLE.contains(&name) => "pg_type_is_visible",
        "has_any_column_privilege" | "has_column_privilege" | "has_table_privilege" => "has_table_privilege",
        "has_function_privilege" | "has_type_privilege" | "has_language_privilege" | "has_tablespace_privilege" => {
            "has_function_privilege"
        }
        "current_role" | "session_user" | "user" => "current_user",
        "current_catalog" => "current_database",
        "pg_total_relation_size" | "pg_relation_size" | "pg_table_size" | "pg_indexes_size" | "pg_database_size" => {
            "pg_table_size"
        }
        "jsonb_build_object" => "json_build_object",
        "substr" => "substring",
        "trim" => "btrim",
        "char_length" | "character_length" => "length",
        other => other,
    }
}

/// Every function, but aggregates.
pub(crate) static FUNCTIONS: &[Function] = &[
    strict("version", TEXT, |_, _| Ok(crate::postgres::VERSION_TEXT.into())),
    strict("current_database", NAME, |run, _| Ok(run.catalog.database().into())),
    strict("current_user", NAME, |run, _| Ok(run.catalog.user().into())),
    strict("current_schema", NAME, |_, _| Ok(crate::engine::sql::SCHEMA.into())),
    strict("current_schemas", NAME_LIST, |_, args| {
        let all = arg(args, 0).holds().then_some("pg_catalog").into_iter().chain([crate::engine::sql::SCHEMA]);
        Ok(Value::list(all.map(Value::from)))
    }),
    lenient("current_setting", Gives::This(TEXT), setting),
    strict("pg_backend_pid", INT4, |run, _| Ok(i64::from(run.catalog.pid()).into())),
    strict("pg_is_in_recovery", BOOL, no),
    strict("pg_client_encoding", NAME, |_, _| Ok("UTF8".into())),
    strict("pg_encoding_to_char", NAME, |_, args| Ok(if arg(args, 0).whole() == Some(6) { "UTF8" } else { "" }.into())),
    strict("pg_char_to_encoding", INT4, |_, args| {
        Ok(Value::Whole(if text(args, 0).eq_ignore_ascii_case("utf8") { 6 } else { -1 }))
    }),
    strict("pg_get_userbyid", NAME, |run, args| Ok(run.catalog.role(oid(args, 0)).into())),
    lenient("format_type", Gives::This(TEXT), format_type),
    strict("pg_table_is_visible", BOOL, |run, args| {
        Ok(run.catalog.by_oid(oid(args, 0)).map(|relation| relation.schema != "information_schema").into())
    }),
    strict("pg_type_is_visible", BOOL, yes),
    strict("has_table_privilege", BOOL, |_, args| {
        let asked = args.last().map(Value::text).unwrap_or_default().to_ascii_lowercase();
        Ok(asked.split(',').any(|one| one.trim().trim_end_matches(" with grant option") == "select").into())
    }),
    strict("has_schema_privilege", BOOL, |_, args| {
        let asked = args.last().map(Value::text).unwrap_or_default();
        Ok(asked.to_ascii_lowercase().contains("usage").into())
    }),
    strict("has_database_privilege", BOOL, |_, args| {
        let asked = args.last().map(Value::text).unwrap_or_default();
        Ok(asked.to_ascii_lowercase().contains("connect").into())
    }),
    strict("has_function_privilege", BOOL, yes),
    strict("has_sequence_privilege", BOOL, no),
    strict("pg_has_role", BOOL, yes),
    strict("row_security_active", BOOL, no),
    strict("obj_description", TEXT, |run, args| Ok(description(run, oid(args, 0), 0))),
    strict("col_description", TEXT, |run, args| {
        Ok(match arg(args, 1).whole() {
            Some(column) if column > 0 => description(run, oid(args, 0), column),
            _ => Value::Null,
        })
    }),
    strict("shobj_description", TEXT, missing),
    lenient("pg_get_expr", Gives::This(TEXT), missing),
    strict("pg_get_viewdef", TEXT, missing),
    strict("pg_get_ruledef", TEXT, missing),
    strict("pg_get_triggerdef", TEXT, missing),
    strict("pg_get_indexdef", TEXT, missing),
    strict("pg_get_constraintdef", TEXT, missing),
    strict("pg_get_partkeydef", TEXT, missing),
    strict("pg_get_functiondef", TEXT, missing),
    strict("pg_get_function_result", TEXT, |_, _| Ok("".into())),
    strict("pg_get_function_arguments", TEXT, |_, _| Ok("".into())),
    strict("pg_get_function_identity_arguments", TEXT, |_, _| Ok("".into())),
    strict("pg_get_function_arg_default", TEXT, missing),
    strict("pg_get_serial_sequence", TEXT, missing),
    strict("pg_get_statisticsobjdef_columns", TEXT, missing),
    strict("pg_tablespace_location", TEXT, |_, _| Ok("".into())),
    strict("pg_relation_is_publishable", BOOL, no),
    strict("pg_relation_is_updatable", INT4, nought),
    strict("pg_column_is_updatable", BOOL, no),
    strict("pg_relation_filenode", OID, missing),
    strict("pg_table_size", INT8, missing),
    strict("pg_size_pretty", TEXT, |_, args| Ok(format!("{} bytes", text(args, 0)).into())),
    strict("pg_stat_get_numscans", INT8, nought),
    strict("pg_postmaster_start_time", TIMESTAMPTZ, missing),
    strict("txid_current", INT8, nought),
    lenient("set_config", Gives::This(TEXT), |_, args| Ok(arg(args, 1).clone())),
    strict("to_regclass", REGCLASS, |run, args| reference(REGCLASS)(run, args)),
    strict("to_regtype", REGTYPE, |run, args| reference(REGTYPE)(run, args)),
    strict("to_regnamespace", REGNAMESPACE, |run, args| reference(REGNAMESPACE)(run, args)),
    strict("to_regproc", REGPROC, |run, args| reference(REGPROC)(run, args)),
    strict("quote_ident", TEXT, |_, args| Ok(identifier(&text(args, 0)).into())),
    strict("quote_literal", TEXT, |_, args| Ok(format!("'{}'", text(args, 0).replace('\'', "''")).into())),
    strict("parse_ident", TEXT_LIST, |_, args| {
        Ok(Value::list(text(args, 0).split('.').map(super::word).map(Value::from)))
    }),
    lenient("format", Gives::This(TEXT), formatted),
    lenient("array_to_string", Gives::This(TEXT), array_to_string),
    strict("string_to_array", TEXT_LIST, |_, args| Ok(Value::list(split(args)))),
    strict("split_part", TEXT, |_, args| {
        let at = arg(args, 2).whole().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
        Ok(split(args).into_iter().nth(at.wrapping_sub(1)).unwrap_or_else(|| "".into()))
    }),
    strict("array_upper", INT4, |_, args| Ok(bound(args, |len| len))),
    strict("array_lower", INT4, |_, args| Ok(bound(args, |_| 1))),
    strict("array_length", INT4, |_, args| Ok(bound(args, |len| len))),
    strict("cardinality", INT4, |_, args| Ok(arg(args, 0).items().map(|items| items.len() as i64).into())),
    strict("array_position", INT4, |_, args| {
        let items = arg(args, 0).items().unwrap_or_default();
        let at = items.iter().position(|item| item.compare(arg(args, 1)).is_some_and(std::cmp::Ordering::is_eq));
        Ok(at.map(|at| at as i64 + 1).into())
    }),
    lenient("array_append", Gives::Argument(0), |_, args| {
        let items = arg(args, 0).items().unwrap_or_default();
        Ok(Value::list(items.iter().cloned().chain([arg(args, 1).clone()])))
    }),
    rows("unnest", Gives::Element(0), |_, args| Ok(arg(args, 0).clone())),
    rows("generate_series", Gives::Argument(0), series),
    rows("generate_subscripts", Gives::This(INT4), |_, args| {
        Ok(Value::list((1..=arg(args, 0).items().map_or(0, |items| items.len() as i64)).map(Value::Whole)))
    }),
    rows("_pg_expandarray", Gives::This(RECORD), expanded),
    rows("pg_get_keywords", Gives::This(RECORD), |_, _| {
        let fields = |word: &&str| Value::Record([(*word).into(), "R".into(), "reserved".into()].into());
        Ok(Value::list(KEYWORDS.iter().map(fields)))
    }),
    rows("pg_partition_tree", Gives::This(RECORD), |_, _| Ok(Value::list([]))),
    rows("pg_partition_ancestors", Gives::This(REGCLASS), |_, _| Ok(Value::list([]))),
    rows("pg_options_to_table", Gives::This(RECORD), |_, _| Ok(Value::list([]))),
    rows("aclexplode", Gives::This(RECORD), |_, _| Ok(Value::list([]))),
    rows("regexp_split_to_table", Gives::This(TEXT), |_, args| Ok(Value::list(split(args)))),
    lenient("coalesce", Gives::Argument(0), |_, args| {
        Ok(args.iter().find(|arg| !arg.is_null()).cloned().unwrap_or(Value::Null))
    }),
    lenient("nullif", Gives::Argument(0), |_, args| {
        let equal = arg(args, 0).compare(arg(args, 1)).is_some_and(std::cmp::Ordering::is_eq);
        Ok(if equal { Value::Null } else { arg(args, 0).clone() })
    }),
    lenient("greatest", Gives::Argument(0), |_, args| {
        Ok(args.iter().filter(|arg| !arg.is_null()).max_by(|a, b| a.rank(b)).cloned().unwrap_or(Value::Null))
    }),
    lenient("least", Gives::Argument(0), |_, args| {
        Ok(args.iter().filter(|arg| !arg.is_null()).min_by(|a, b| a.rank(b)).cloned().unwrap_or(Value::Null))
    }),
    lenient("concat", Gives::This(TEXT), |run, args| {
        let texts: Vec<Arc<str>> = args.iter().filter(|arg| !arg.is_null()).map(Value::text).collect();
        run.make(texts.iter().map(|text| text.len()).sum())?;
        Ok(texts.concat().into())
    }),
    lenient("array", Gives::ListOf(0), |_, args| Ok(Value::list(args.iter().cloned()))),
    lenient("json_build_object", Gives::This(JSON), json_object),
    strict("lower", TEXT, |_, args| Ok(text(args, 0).to_lowercase().into())),
    strict("upper", TEXT, |_, args| Ok(text(args, 0).to_uppercase().into())),
    strict("length", INT4, |_, args| Ok(Value::Whole(text(args, 0).chars().count() as i64))),
    strict("btrim", TEXT, |_, args| {
        let chars = trimmed(args);
        Ok(text(args, 0).trim_matches(|c| chars.contains(c)).into())
    }),
    strict("ltrim", TEXT, |_, args| {
        let chars = trimmed(args);
        Ok(text(args, 0).trim_start_matches(|c| chars.contains(c)).into())
    }),
    strict("rtrim", TEXT, |_, args| {
        let chars = trimmed(args);
        Ok(text(args, 0).trim_end_matches(|c| chars.contains(c)).into())
    }),
    strict("replace", TEXT, |run, args| {
        let [whole, from, to] = [0, 1, 2].map(|at| text(args, at));
        if from.is_empty() {
            return Ok(Value::Text(whole));
        }
        run.make(whole.len() + whole.matches(&*from).count() * to.len())?;
        Ok(whole.replace(&*from, &to).into())
    }),
    strict("left", TEXT, |run, args| substring(run, &[arg(args, 0).clone(), Value::Whole(1), arg(args, 1).clone()])),
    strict("substring", TEXT, substring),
    strict("strpos", INT4, |_, args| {
        let (whole, part) = (text(args, 0), text(args, 1));
        Ok(Value::Whole(whole.find(&*part).map_or(0, |at| whole[..at].chars().count() as i64 + 1)))
    }),
    strict("starts_with", BOOL, |_, args| Ok(text(args, 0).starts_with(&*text(args, 1)).into())),
    strict("abs", INT8, |_, args| Ok(arg(args, 0).whole().map(i64::saturating_abs).into())),
];
