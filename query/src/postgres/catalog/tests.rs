//! What clients ask catalogs with is answered, and what no client may ask is refused.

use datafusion::sql::sqlparser::ast::Statement;

use super::*;
use crate::postgres::settings::Settings;
use crate::postgres::statement;

fn catalog() -> Catalog {
    Catalog::new("ann".into(), 7, Settings::default().all())
}

fn ask_while(text: &str, wanted: &dyn Fn() -> bool) -> Result<(Vec<Column>, Vec<Row>), Refusal> {
    let Some(Statement::Query(query)) = statement::parse(text)?.pop() else { panic!("{text} is a query") };
    catalog().answer(&query, wanted).map(|(columns, rows, _)| (columns, rows))
}

fn ask(text: &str) -> Result<(Vec<Column>, Vec<Row>), Refusal> {
    ask_while(text, &|| true)
}

/// The rows of an answer, as psql shows them.
fn shown(text: &str) -> Vec<String> {
    let (columns, rows) = ask(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
    let catalog = catalog();
    let tell = |row: &Row| {
        let values = row.iter().zip(&columns);
        let values = values.map(|(value, column)| value::told(value, column.kind, |kind, oid| catalog.name(kind, oid)));
        values.collect::<Vec<_>>().join("|")
    };
    rows.iter().map(tell).collect()
}

fn code(text: &str) -> &'static str {
    ask(text).err().map_or("", |wrong| wrong.code)
}

#[test]
fn every_question_that_clients_ask_is_answered() {
    let mut asked = 0;
    for one in include_str!("asked.sql").split("\n\n").map(str::trim).filter(|one| one.contains('\n')) {
        let (who, text) = one.split_once('\n').unwrap();
        let (_, rows) = ask(text).unwrap_or_else(|wrong| panic!("{who}\n{text}\n{wrong:?}"));
        assert_eq!(who.ends_with("some"), !rows.is_empty(), "{who}\n{text}");
        asked += 1;
    }
    assert!(asked > 50, "{asked}");
}

#[test]
fn entities_are_tables_with_their_columns() {
    let devices = "select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute \
                   where attrelid = 'devices'::regclass and attname in ('uid', 'last_seen_time', 'ip_addresses', 'metadata')";
    let mut columns = shown(devices);
    columns.sort();
    let expected =
        ["ip_addresses|text[]|t", "last_seen_time|timestamp with time zone|t", "metadata|jsonb|t", "uid|text|t"];
    assert_eq!(columns, expected);
    let tables = shown("select table_name from information_schema.tables where table_schema = 'public' order by 1");
    assert_eq!(tables.len(), ENTITIES.len());
    assert!(shown("select obj_description('flows'::regclass, 'pg_class')")[0].len() > 5);
    let all =
        shown("select count(*) from pg_attribute a join pg_class c on a.attrelid = c.oid where relname = 'flows'");
    assert_eq!(all, [ENTITIES.iter().find(|e| e.name == "flows").unwrap().table.columns().len().to_string()]);
}

#[test]
fn queries_mean_what_they_mean_in_postgres() {
    for (text, is) in [
        ("select 1 + 2 * 3, 7 / 2, -7 % 3, 'a' || 1", "7|3|-1|a1"),
        ("select null = 1, null is null, true and null, false and null, not null", "|t||f|"),
        ("select case 'b' when 'a' then 1 when 'b' then 2 end, case when null then 1 else 3 end", "2|3"),
        ("select 'abc' like 'a%', 'aXc' like 'a\\_c', 'ABC' ilike 'a_c', 'ab' ~ '^A', 'ab' ~* '^A'", "t|f|t|f|t"),
        ("select 2 = any(array[1, 2]), 3 <> all('{1,2}'), null = any(array[1]), 1 in (2, null)", "t|t||"),
        ("select array(select x from generate_series(1, 3) x order by x desc)", "{3,2,1}"),
        (
            "select (array['a','b'])[2], array_upper(array[1,2], 1), array_to_string('{a,NULL,b}'::text[], '-')",
            "b|2|a-b",
        ),
        (
            "select 'pg_class'::regclass, 'pg_class'::regclass::oid, 1259::regclass::text, 0::regclass",
            "pg_class|1259|pg_class|-",
        ),
        ("select 'int8'::regtype, 25::regtype, pg_typeof(1), to_regclass('nothing') is null", "bigint|text|integer|t"),
        (
            "select current_user, current_database(), current_schema, current_schemas(true)",
            "ann|radarflow|public|{pg_catalog,public}",
        ),
        (
            "select string_agg(x::text, ',' order by x desc), sum(x), min(x), avg(x) from generate_series(1, 4) x",
            "4,3,2,1|10|1|2.5",
        ),
        ("select count(distinct relkind), count(*) filter (where relname = 'pg_class') from pg_class", "2|1"),
        (
            "select (select relname from pg_class c where c.oid = n.oid + 1248) from pg_namespace n where nspname = 'pg_catalog'",
            "pg_class",
        ),
        ("with x(a) as (select 1 union all select 2) select sum(a) from x", "3"),
        ("select a, b from (values (1, 'x'), (2, 'y')) v(a, b) where a = 2", "2|y"),
        ("select unnest('{a,b}'::text[]) || 'c', generate_subscripts('{a,b}'::text[], 1) offset 1", "bc|2"),
        (
            "select row_number() over (partition by relkind order by relname desc) from pg_class where relname = 'pg_class'",
            "1",
        ),
        ("select x.n, x.x from _pg_expandarray('{7,8}') x order by n desc limit 1", "2|8"),
        (
            "select s.r, l.y from generate_series(1, 2) s(r) left join lateral (select s.r * 10 as y) l on s.r > 1 order by 1 limit 1",
            "1|",
        ),
        ("select r, o from unnest('{a,b}'::text[]) with ordinality u(r, o) order by o desc limit 1", "b|2"),
        ("select a.x from (select 1 x) a full join (select 2 x) b using (x) order by 1 nulls first limit 1", ""),
        ("select distinct on (relkind) relkind from pg_class order by relkind desc limit 1", "v"),
        ("select 1 intersect select 1 except select 2", "1"),
        (
            "select format('%I.%L %s', 'A', 'it''s', null), quote_ident('select'), parse_ident('a.\"B\"')",
            "\"A\".'it''s' |\"select\"|{a,B}",
        ),
    ] {
        assert_eq!(shown(text), [is], "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_code_and_place() {
    for (text, is) in [
        ("select nothing from pg_class", "42703"),
        ("select oid from pg_class a, pg_class b", "42702"),
        ("select * from pg_nothing", "42P01"),
        ("select nothing(1)", "42883"),
        ("select 'nothing'::regclass", "42P01"),
        ("select 'x'::int", "22P02"),
        ("select 1 / 0", "22012"),
        ("select (select oid from pg_class)", "21000"),
        ("select 1 union select 1, 2", "42601"),
        ("select 1 order by 2", "42P10"),
        ("select 'a' ~ '('", "2201B"),
        ("select count(count(*)) from pg_class", "42803"),
        ("select 1 from pg_class where count(*) > 1", "42803"),
        ("with recursive x as (select 1) select * from x", "0A000"),
        ("select 9223372036854775807 + 1", "22003"),
    ] {
        assert_eq!(code(text), is, "{text}: {:?}", ask(text));
    }
    assert_eq!(ask("select\n  nothing from pg_class").unwrap_err().place, Some((2, 3)));
}

#[test]
fn work_is_bounded_and_ends_when_nobody_waits() {
    assert_eq!(code("select count(*) from pg_attribute a, pg_attribute b, pg_attribute c"), "53200");
    assert_eq!(code("select * from generate_series(1, 100000000)"), "54000");
    let deep = format!("select {}1{}", "(select ".repeat(17), ")".repeat(17));
    assert!(matches!(code(&deep), "54000" | "54001"), "{}", code(&deep));
    let asked = std::cell::Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    let left = ask_while("select count(*) from pg_attribute a, pg_attribute b", &wanted).unwrap_err();
    assert_eq!((left.code, asked.get()), ("57014", 3));
    let long =
        "select repeat from (select 'x' || ".to_owned() + &"'xxxxxxxxxxxxxxxx' || ".repeat(40) + "'y' as repeat) r";
    assert!(ask(&long).is_ok());
}

#[test]
fn what_is_made_on_the_way_is_bounded_whatever_makes_it() {
    let wide = "x".repeat(60_000);
    let series = "(select * from generate_series(1, 447) n)";
    let alone = "left join pg_constraint c on true ".repeat(20);
    for text in [
        format!("select distinct n, '{wide}' from generate_series(1, 10000) n"),
        format!("select n, '{wide}' from generate_series(1, 10000) n group by n, 2"),
        format!("select count(distinct n || '{wide}') from generate_series(1, 10000) n"),
        format!("select n || '{wide}' from generate_series(1, 5000) n union select 'y'"),
        format!("select 1 from {series} a, {series} b {alone}"),
    ] {
        assert_eq!(code(&text), crate::postgres::refusal::OUT_OF_MEMORY, "{}", &text[..60]);
    }
    assert_eq!(code("select generate_series(0, -9223372036854775807 - 1, -1)"), crate::postgres::refusal::TOO_MUCH);
    assert_eq!(shown("select * from generate_series(3, 1, -1)"), ["3", "2", "1"]);
    assert_eq!(shown("select count(*) from generate_series(3, 1)"), ["0"]);
    assert_eq!(shown("select abs(-9223372036854775807 - 1)"), ["9223372036854775807"]);
}
