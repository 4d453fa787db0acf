//! The rows of the relations that have any.

use crate::postgres::catalog::functions::FUNCTIONS;
use crate::postgres::catalog::node::Row;
use crate::postgres::catalog::value::Value;
use crate::postgres::catalog::{
    ASKER, Attribute, Catalog, INFORMATION_SCHEMA, OWNER, PG_CATALOG, PUBLIC, RELATIONS, Relation, SCHEMAS,
};
use crate::postgres::kinds::{self, *};
use crate::postgres::settings;

/// The number of the first function.
const FIRST_FUNCTION: Oid = 8000;
/// The functions that types are read with, which no query calls.
const OF_TYPES: [&str; 2] = ["array_in", "record_in"];
/// The number of the one access method.
const HEAP: Oid = 2;
/// The number of the one database.
const DATABASE: Oid = 5;
/// The number of the one tablespace.
const TABLESPACE: Oid = 1663;
/// The numbers of collations: none said, and bytes.
const DEFAULT_COLLATION: Oid = 100;
const BYTES_COLLATION: Oid = 950;

fn functions() -> impl Iterator<Item = (Oid, &'static str)> {
    let names = OF_TYPES.into_iter().chain(FUNCTIONS.iter().map(|function| function.name));
    names.enumerate().map(|(at, name)| (FIRST_FUNCTION + at as Oid, name))
}

pub(super) fn function_name(oid: Oid) -> Option<String> {
    functions().find(|(number, _)| *number == oid).map(|(_, name)| name.to_owned())
}

pub(super) fn function_oid(wanted: &str) -> Option<Oid> {
    functions().find(|(_, name)| *name == wanted).map(|(oid, _)| oid)
}

/// A row of which some columns are said; the others are false, 0, or missing.
fn row<const N: usize>(relation: &Relation, said: [(&str, Value); N]) -> Row {
    let bare = relation.schema == "information_schema" || relation.name.starts_with("pg_stat");
    let default = |column: &Attribute| match column.kind {
        _ if bare => Value::Null,
        BOOL => false.into(),
        CHAR => "".into(),
        kind if is_whole(kind) => Value::Whole(0),
        FLOAT4 | FLOAT8 => Value::Real(0.0),
        _ => Value::Null,
    };
    let mut row: Row = relation.columns.iter().map(default).collect();
    for (name, value) in said {
        let at = relation.columns.iter().position(|column| column.name == name);
        debug_assert!(at.is_some(), "{} has no column {name}", relation.name);
        if let Some(at) = at {
            row[at] = value;
        }
    }
    row
}

fn schema(relation: &Relation) -> Oid {
    SCHEMAS.iter().find(|(_, name)| *name == relation.schema).map_or(0, |(oid, _)| *oid)
}

fn entities() -> impl Iterator<Item = &'static Relation> {
    RELATIONS.iter().filter(|relation| schema(relation) == PUBLIC)
}

/// The letter of what a relation is.
fn letter(relation: &Relation) -> &'static str {
    match schema(relation) {
        INFORMATION_SCHEMA => "v",
        _ => "r",
    }
}

fn attributes() -> impl Iterator<Item = (&'static Relation, i64, &'static Attribute)> {
    RELATIONS.iter().flat_map(|relation| (1..).zip(&relation.columns).map(move |(at, column)| (relation, at, column)))
}

/// The rows of a relation.
pub(super) fn rows(catalog: &Catalog, of: &'static Relation) -> Vec<Row> {
    let owner = || catalog.role(OWNER).into();
    match (of.schema, of.name) {
        ("information_schema", name) => described(catalog, of, name),
        (_, "pg_namespace") => SCHEMAS
            .iter()
            .map(|(oid, name)| {
                row(of, [("oid", (*oid).into()), ("nspname", (*name).into()), ("nspowner", OWNER.into())])
            })
            .collect(),
        (_, "pg_class") => RELATIONS.iter().map(|relation| class(of, relation)).collect(),
        (_, "pg_attribute") => attributes().map(|(relation, at, column)| attribute(of, relation, at, column)).collect(),
        (_, "pg_type") => kinds::KINDS.iter().map(|kind| type_row(of, kind)).collect(),
        (_, "pg_description") => descriptions(of),
        (_, "pg_proc") => functions()
            .map(|(oid, name)| {
                row(
                    of,
                    [
                        ("oid", oid.into()),
                        ("proname", name.into()),
                        ("pronamespace", PG_CATALOG.into()),
                        ("proowner", OWNER.into()),
                        ("prokind", "f".into()),
                        ("provolatile", "s".into()),
                        ("proparallel", "s".into()),
                        ("prorettype", kinds::TEXT.into()),
                        ("proargtypes", Value::list([])),
                        ("prosrc", name.into()),
                    ],
                )
            })
            .collect(),
        (_, "pg_am") => {
            vec![row(of, [("oid", HEAP.into()), ("amname", "heap".into()), ("amtype", "t".into())])]
        }
        (_, "pg_tablespace") => {
            vec![row(of, [("oid", TABLESPACE.into()), ("spcname", "pg_default".into()), ("spcowner", OWNER.into())])]
        }
        (_, "pg_collation") => [(DEFAULT_COLLATION, "default"), (BYTES_COLLATION, "C")]
            .into_iter()
            .map(|(oid, name)| {
                row(
                    of,
                    [
                        ("oid", oid.into()),
                        ("collname", name.into()),
                        ("collnamespace", PG_CATALOG.into()),
                        ("collowner", OWNER.into()),
                        ("collprovider", "c".into()),
                        ("collisdeterministic", true.into()),
                        ("collencoding", Value::Whole(-1)),
                    ],
                )
            })
            .collect(),
        (_, "pg_database") => vec![row(
            of,
            [
                ("oid", DATABASE.into()),
                ("datname", catalog.database().into()),
                ("datdba", OWNER.into()),
                ("encoding", Value::Whole(6)),
                ("datlocprovider", "c".into()),
                ("datallowconn", true.into()),
                ("datconnlimit", Value::Whole(-1)),
                ("dattablespace", TABLESPACE.into()),
                ("datcollate", "C".into()),
                ("datctype", "C".into()),
            ],
        )],
        (_, "pg_roles" | "pg_authid") => [OWNER, ASKER]
            .into_iter()
            .map(|oid| {
                row(
                    of,
                    [
                        ("oid", oid.into()),
                        ("rolname", catalog.role(oid).into()),
                        ("rolinherit", true.into()),
                        ("rolcanlogin", (oid == ASKER).into()),
                        ("rolconnlimit", Value::Whole(-1)),
                    ],
                )
            })
            .collect(),
        (_, "pg_user" | "pg_shadow") => {
            vec![row(of, [("usename", catalog.user().into()), ("usesysid", ASKER.into())])]
        }
        (_, "pg_settings") => settings::KNOWN
            .iter()
            .map(|known| {
                row(
                    of,
                    [
                        ("name", known.name.into()),
                        ("setting", catalog.setting(known.name).unwrap_or(known.value).into()),
                        ("category", "Client Connection Defaults".into()),
                        ("short_desc", "".into()),
                        ("context", if known.fixed { "internal" } else { "user" }.into()),
                        ("vartype", "string".into()),
                        ("source", "default".into()),
                        ("boot_val", known.value.into()),
                        ("reset_val", known.value.into()),
                    ],
                )
            })
            .collect(),
        (_, "pg_tables") => RELATIONS
            .iter()
            .filter(|relation| letter(relation) == "r")
            .map(|relation| {
                row(
                    of,
                    [
                        ("schemaname", relation.schema.into()),
                        ("tablename", relation.name.into()),
                        ("tableowner", owner()),
                    ],
                )
            })
            .collect(),
        (_, "pg_views") => RELATIONS
            .iter()
            .filter(|relation| letter(relation) == "v")
            .map(|relation| {
                row(
                    of,
                    [
                        ("schemaname", relation.schema.into()),
                        ("viewname", relation.name.into()),
                        ("viewowner", owner()),
                    ],
                )
            })
            .collect(),
        (_, "pg_stat_user_tables" | "pg_statio_user_tables" | "pg_stat_all_tables") => entities()
            .map(|relation| {
                row(
                    of,
                    [
                        ("relid", relation.oid.into()),
                        ("schemaname", relation.schema.into()),
                        ("relname", relation.name.into()),
                    ],
                )
            })
            .collect(),
        (_, "pg_stat_activity") => vec![row(
            of,
            [
                ("datid", DATABASE.into()),
                ("datname", catalog.database().into()),
                ("pid", i64::from(catalog.pid()).into()),
                ("usesysid", ASKER.into()),
                ("usename", catalog.user().into()),
                ("application_name", catalog.setting("application_name").into()),
                ("state", "active".into()),
                ("backend_type", "client backend".into()),
            ],
        )],
        (_, "pg_timezone_names") => {
            vec![row(of, [("name", "UTC".into()), ("abbrev", "UTC".into()), ("utc_offset", "00:00:00".into())])]
        }
        _ => Vec::new(),
    }
}

fn class(of: &Relation, relation: &Relation) -> Row {
    let table = letter(relation) == "r";
    row(
        of,
        [
            ("oid", relation.oid.into()),
            ("relname", relation.name.into()),
            ("relnamespace", schema(relation).into()),
            ("relowner", OWNER.into()),
            ("relam", if table { HEAP } else { 0 }.into()),
            ("relfilenode", if table { relation.oid } else { 0 }.into()),
            ("reltuples", Value::Real(-1.0)),
            ("relpersistence", "p".into()),
            ("relkind", letter(relation).into()),
            ("relnatts", (relation.columns.len() as i64).into()),
            ("relispopulated", true.into()),
            ("relreplident", "n".into()),
        ],
    )
}

fn attribute(of: &Relation, relation: &Relation, at: i64, column: &Attribute) -> Row {
    let kind = kinds::kind(column.kind);
    let len = kind.map_or(-1, |kind| kind.len);
    row(
        of,
        [
            ("attrelid", relation.oid.into()),
            ("attname", column.name.into()),
            ("atttypid", column.kind.into()),
            ("attstattarget", Value::Whole(-1)),
            ("attlen", i64::from(len).into()),
            ("attnum", at.into()),
            ("attndims", Value::Whole((kinds::element_of(column.kind) != column.kind).into())),
            ("attcacheoff", Value::Whole(-1)),
            ("atttypmod", Value::Whole(-1)),
            ("attbyval", (1..=8).contains(&len).into()),
            ("attalign", alignment(len).into()),
            ("attstorage", if len < 0 { "x" } else { "p" }.into()),
            ("attnotnull", column.required.into()),
            ("attislocal", true.into()),
            ("attcollation", collation(column.kind).into()),
        ],
    )
}

fn alignment(len: i16) -> &'static str {
    match len {
        1 => "c",
        2 => "s",
        8 => "d",
        _ => "i",
    }
}

fn collation(kind: Oid) -> Oid {
    match kinds::element_of(kind) {
        NAME => BYTES_COLLATION,
        TEXT | VARCHAR | BPCHAR => DEFAULT_COLLATION,
        _ => 0,
    }
}

fn type_row(of: &Relation, kind: &kinds::Kind) -> Row {
    let input = if kind.category == "A" { OF_TYPES[0] } else { OF_TYPES[1] };
    row(
        of,
        [
            ("oid", kind.oid.into()),
            ("typname", kind.name.into()),
            ("typnamespace", PG_CATALOG.into()),
            ("typowner", OWNER.into()),
            ("typlen", i64::from(kind.len).into()),
            ("typbyval", (1..=8).contains(&kind.len).into()),
            ("typtype", if matches!(kind.category, "P" | "X") { "p" } else { "b" }.into()),
            ("typcategory", kind.category.into()),
            ("typispreferred", matches!(kind.oid, BOOL | TEXT | OID | FLOAT8 | TIMESTAMPTZ | INTERVAL).into()),
            ("typisdefined", true.into()),
            ("typdelim", ",".into()),
            ("typelem", kind.element.into()),
            ("typarray", kind.list.into()),
            ("typinput", function_oid(input).into()),
            ("typalign", alignment(kind.len).into()),
            ("typstorage", if kind.len < 0 { "x" } else { "p" }.into()),
            ("typtypmod", Value::Whole(-1)),
            ("typcollation", collation(kind.oid).into()),
        ],
    )
}

fn descriptions(of: &Relation) -> Vec<Row> {
    let class = RELATIONS.iter().find(|relation| relation.name == "pg_class").map_or(0, |relation| relation.oid);
    let said = |oid: Oid, column: i64, doc: &str| {
        row(
            of,
            [
                ("objoid", oid.into()),
                ("classoid", class.into()),
                ("objsubid", column.into()),
                ("description", doc.into()),
            ],
        )
    };
    let whole = entities().map(|relation| said(relation.oid, 0, relation.doc));
    let columns = attributes().filter(|(_, _, column)| !column.doc.is_empty());
    whole.chain(columns.map(|(relation, at, column)| said(relation.oid, at, column.doc))).collect()
}

/// The rows of a relation of `information_schema`.
fn described(catalog: &Catalog, of: &Relation, name: &str) -> Vec<Row> {
    let (database, owner) = (|| Value::from(catalog.database()), || Value::from(catalog.role(OWNER)));
    match name {
        "information_schema_catalog_name" => vec![row(of, [("catalog_name", database())])],
        "schemata" => SCHEMAS
            .iter()
            .map(|(_, schema)| {
                row(of, [("catalog_name", database()), ("schema_name", (*schema).into()), ("schema_owner", owner())])
            })
            .collect(),
        "tables" => RELATIONS
            .iter()
            .map(|relation| {
                row(
                    of,
                    [
                        ("table_catalog", database()),
                        ("table_schema", relation.schema.into()),
                        ("table_name", relation.name.into()),
                        ("table_type", if letter(relation) == "v" { "VIEW" } else { "BASE TABLE" }.into()),
                        ("is_insertable_into", "NO".into()),
                        ("is_typed", "NO".into()),
                    ],
                )
            })
            .collect(),
        "views" => RELATIONS
            .iter()
            .filter(|relation| letter(relation) == "v")
            .map(|relation| {
                row(
                    of,
                    [
                        ("table_catalog", database()),
                        ("table_schema", relation.schema.into()),
                        ("table_name", relation.name.into()),
                        ("check_option", "NONE".into()),
                        ("is_updatable", "NO".into()),
                        ("is_insertable_into", "NO".into()),
                    ],
                )
            })
            .collect(),
        "columns" => {
            attributes().map(|(relation, at, column)| described_column(catalog, of, relation, at, column)).collect()
        }
        "table_privileges" | "role_table_grants" => entities()
            .map(|relation| {
                row(
                    of,
                    [
                        ("grantor", owner()),
                        ("grantee", catalog.user().into()),
                        ("table_catalog", database()),
                        ("table_schema", relation.schema.into()),
                        ("table_name", relation.name.into()),
                        ("privilege_type", "SELECT".into()),
                        ("is_grantable", "NO".into()),
                        ("with_hierarchy", "YES".into()),
                    ],
                )
            })
            .collect(),
        "enabled_roles" => vec![row(of, [("role_name", catalog.user().into())])],
        "character_sets" => vec![row(
            of,
            [
                ("character_set_name", "UTF8".into()),
                ("character_repertoire", "UCS".into()),
                ("form_of_use", "UTF8".into()),
                ("default_collate_catalog", database()),
            ],
        )],
        _ => Vec::new(),
    }
}

fn described_column(catalog: &Catalog, of: &Relation, relation: &Relation, at: i64, column: &Attribute) -> Row {
    let (bits, scale): (Option<i64>, Option<i64>) = match column.kind {
        INT2 => (Some(16), Some(0)),
        INT4 => (Some(32), Some(0)),
        INT8 => (Some(64), Some(0)),
        FLOAT4 => (Some(24), None),
        FLOAT8 => (Some(53), None),
        _ => (None, None),
    };
    let precision = matches!(column.kind, TIMESTAMP | TIMESTAMPTZ | TIME | INTERVAL).then_some(6i64);
    let list = kinds::element_of(column.kind) != column.kind;
    let sql = if list { "ARRAY" } else { kinds::kind(column.kind).map_or("", |kind| kind.sql) };
    row(
        of,
        [
            ("table_catalog", catalog.database().into()),
            ("table_schema", relation.schema.into()),
            ("table_name", relation.name.into()),
            ("column_name", column.name.into()),
            ("ordinal_position", at.into()),
            ("is_nullable", if column.required { "NO" } else { "YES" }.into()),
            ("data_type", sql.into()),
            ("character_octet_length", is_text(column.kind).then_some(1i64 << 30).into()),
            ("numeric_precision", bits.into()),
            ("numeric_precision_radix", bits.map(|_| 2i64).into()),
            ("numeric_scale", scale.into()),
            ("datetime_precision", precision.into()),
            ("udt_catalog", catalog.database().into()),
            ("udt_schema", "pg_catalog".into()),
            ("udt_name", kinds::kind(column.kind).map(|kind| kind.name).into()),
            ("dtd_identifier", at.to_string().into()),
            ("is_self_referencing", "NO".into()),
            ("is_identity", "NO".into()),
            ("identity_cycle", "NO".into()),
            ("is_generated", "NEVER".into()),
            ("is_updatable", "NO".into()),
        ],
    )
}
