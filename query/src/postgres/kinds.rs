//! Types as Postgres numbers and names them.

use std::sync::LazyLock;

/// The number of a type, a relation or anything else that a catalog of Postgres numbers.
pub(crate) type Oid = u32;

pub(crate) const BOOL: Oid = 16;
pub(crate) const BYTEA: Oid = 17;
pub(crate) const CHAR: Oid = 18;
pub(crate) const NAME: Oid = 19;
pub(crate) const INT8: Oid = 20;
pub(crate) const INT2: Oid = 21;
pub(crate) const INT2VECTOR: Oid = 22;
pub(crate) const INT4: Oid = 23;
pub(crate) const REGPROC: Oid = 24;
pub(crate) const TEXT: Oid = 25;
pub(crate) const OID: Oid = 26;
pub(crate) const OIDVECTOR: Oid = 30;
pub(crate) const JSON: Oid = 114;
pub(crate) const FLOAT4: Oid = 700;
pub(crate) const FLOAT8: Oid = 701;
pub(crate) const UNKNOWN: Oid = 705;
pub(crate) const NAME_LIST: Oid = 1003;
pub(crate) const TEXT_LIST: Oid = 1009;
pub(crate) const BPCHAR: Oid = 1042;
pub(crate) const VARCHAR: Oid = 1043;
pub(crate) const DATE: Oid = 1082;
pub(crate) const TIME: Oid = 1083;
pub(crate) const TIMESTAMP: Oid = 1114;
pub(crate) const TIMESTAMPTZ: Oid = 1184;
pub(crate) const INTERVAL: Oid = 1186;
pub(crate) const NUMERIC: Oid = 1700;
pub(crate) const REGPROCEDURE: Oid = 2202;
pub(crate) const REGCLASS: Oid = 2205;
pub(crate) const REGTYPE: Oid = 2206;
pub(crate) const RECORD: Oid = 2249;
pub(crate) const UUID: Oid = 2950;
pub(crate) const JSONB: Oid = 3802;
pub(crate) const REGNAMESPACE: Oid = 4089;
pub(crate) const REGROLE: Oid = 4096;

/// A type.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) oid: Oid,
    /// As `pg_type` names it.
    pub(crate) name: &'static str,
    /// Bytes; negative where it varies.
    pub(crate) len: i16,
    /// What it is for, as `pg_type` says in a letter.
    pub(crate) category: &'static str,
    /// What a list of this type holds; 0 where it is no list.
    pub(crate) element: Oid,
    /// The lists of this type; 0 where there are none.
    pub(crate) list: Oid,
    /// As SQL names it.
    pub(crate) sql: &'static str,
}

/// Every type.
pub(crate) static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let lines = include_str!("catalog/types.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(read).collect()
});

fn read(line: &'static str) -> Option<Kind> {
    let mut words = line.splitn(7, ' ');
    let mut next = || words.next();
    Some(Kind {
        oid: next()?.parse().ok()?,
        name: next()?,
        len: next()?.parse().ok()?,
        category: next()?,
        element: next()?.parse().ok()?,
        list: next()?.parse().ok()?,
        sql: next()?,
    })
}

/// The type of that number.
pub(crate) fn kind(oid: Oid) -> Option<&'static Kind> {
    KINDS.binary_search_by_key(&oid, |kind| kind.oid).ok().map(|at| &KINDS[at])
}

/// The type of that name, as `pg_type` or SQL has it.
pub(crate) fn named(name: &str) -> Option<&'static Kind> {
    let other = match name {
        "int" => "int4",
        "decimal" | "dec" => "numeric",
        "float" | "double" => "float8",
        "char" => "bpchar",
        "string" => "text",
        other => other,
    };
    KINDS.iter().find(|kind| kind.name == other || kind.sql == name)
}

/// The type that `pg_type` names so.
pub(crate) fn named_exactly(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The lists of a type; of text where it has none.
pub(crate) fn list_of(oid: Oid) -> Oid {
    kind(oid).map(|kind| kind.list).filter(|list| *list != 0).unwrap_or(TEXT_LIST)
}

/// What a list holds; the type itself where it is none.
pub(crate) fn element_of(oid: Oid) -> Oid {
    kind(oid).map(|kind| kind.element).filter(|element| *element != 0).unwrap_or(oid)
}

/// Whether values are whole numbers, numbers of catalogs among them.
pub(crate) fn is_whole(oid: Oid) -> bool {
    matches!(oid, INT2 | INT4 | INT8 | OID | 27..=29) || is_reference(oid)
}

/// Whether values are numbers of a catalog that are shown by name.
pub(crate) fn is_reference(oid: Oid) -> bool {
    matches!(oid, REGPROC | REGPROCEDURE | REGCLASS | REGTYPE | REGNAMESPACE | REGROLE)
}

/// Whether values are text.
pub(crate) fn is_text(oid: Oid) -> bool {
    matches!(oid, TEXT | NAME | VARCHAR | BPCHAR | CHAR | UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_number_and_name() {
        assert!(KINDS.is_sorted_by_key(|kind| kind.oid) && KINDS.len() > 60, "{}", KINDS.len());
        assert_eq!(kind(TIMESTAMPTZ).unwrap().sql, "timestamp with time zone");
        for (name, oid) in [("int8", INT8), ("bigint", INT8), ("integer", INT4), ("_text", TEXT_LIST), ("jsonb", JSONB)]
        {
            assert_eq!(named(name).unwrap().oid, oid, "{name}");
        }
        assert_eq!((element_of(TEXT_LIST), list_of(TEXT), list_of(RECORD)), (TEXT, TEXT_LIST, TEXT_LIST));
    }
}
