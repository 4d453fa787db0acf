//! The language's page, made from what parsing, planning and completion read: `radarflow docs srql` prints it, and
//! `query/SRQL.md` is it.

use std::fmt::Write;

use crate::srql::parse::{MAX_DEPTH, MAX_ITEMS, MAX_QUERIES, MAX_QUERY, MAX_SUBQUERIES, MAX_TERMS};
use crate::srql::plan::series::MAX_FILLED;
use crate::srql::plan::{MAX_CONDITIONS, MAX_LIMIT};
use crate::srql::words::{CLAUSES, EXAMPLES, FORMS, FUNCTIONS};
use crate::tables::catalog::{ALIASES, ENTITIES, ENTITY_ALIASES, KINDS, NOT_AVAILABLE, NOT_BUILT};
use crate::tables::codes;

fn rows(out: &mut String, head: [&str; 2], rows: &[(&str, &str)]) {
    let _ = writeln!(out, "| {} | {} |\n|---|---|", head[0], head[1]);
    for (word, doc) in rows {
        // Code that has backquotes in it stands between two.
        let (open, close) = if word.contains('`') { ("`` ", " ``") } else { ("`", "`") };
        let _ = writeln!(out, "| {open}{}{close} | {} |", word.replace('|', "\\|"), doc.replace('|', "\\|"));
    }
    out.push('\n');
}

/// The page, Markdown.
pub fn srql() -> String {
    let mut out = String::from(
        "# SRQL\n\nTerms with a blank between them, in any order; all of them hold. A term is `key:value`. Clauses say what \
         is asked for and how it is shown. This page is made by `radarflow docs srql`.\n\n",
    );
    out.push_str("```\n");
    EXAMPLES.iter().for_each(|(query, _)| out.push_str(&format!("{query}\n")));
    out.push_str("```\n\n## Terms\n");
    rows(&mut out, ["written", "means"], FORMS);
    out.push_str(
        "A comparison with a missing value is false; `NOT`, `AND` and `OR` above it are classical, so `!f:v` keeps rows \
         without `f`. Numbers may end in `k M G T P` or `Ki Mi Gi Ti Pi`, durations in `s m h d w mo y`.\n\n## Clauses\n",
    );
    let clause: Vec<(String, &str)> = CLAUSES.iter().map(|(name, doc)| (format!("{name}:"), *doc)).collect();
    rows(&mut out, ["clause", "says"], &clause.iter().map(|(name, doc)| (name.as_str(), *doc)).collect::<Vec<_>>());
    out.push_str("## Functions\n");
    rows(&mut out, ["function", "gives"], FUNCTIONS);
    let _ = writeln!(
        out,
        "## Bounds\nA query has {MAX_QUERY} bytes at most; {MAX_TERMS} terms, keys of its clauses counted, which come to no more \
         than {MAX_CONDITIONS} comparisons; lists of {MAX_ITEMS} items; {MAX_QUERIES} subqueries, {MAX_SUBQUERIES} in one another; \
         brackets {MAX_DEPTH} deep. Plain values, addresses and networks of a list are one comparison, however many they are. A \
         page has {MAX_LIMIT} rows at most, a series that is filled {MAX_FILLED}.\n"
    );
    out.push_str("## Entities\n");
    for entity in ENTITIES.iter() {
        let time = match (entity.time, entity.lasts) {
            (Some(time), _) => format!(" Events; `time:` is of `{time}`."),
            (None, Some((from, to))) => format!(
                " With `time:`, what held within that span, also what is over: from `{from}` until `{to}`, by all that is known \
                 today."
            ),
            (None, None) => entity
                .seen
                .map(|seen| format!(" With `time:`, those whose `{seen}` is within that span."))
                .unwrap_or_default(),
        };
        let others: Vec<String> = ENTITY_ALIASES
            .iter()
            .filter(|(alias, names)| *names == [entity.name] && !KINDS.iter().any(|(kind, ..)| kind == alias))
            .map(|(alias, _)| format!("`{alias}`"))
            .collect();
        let others = if others.is_empty() { String::new() } else { format!(" Also called {}.", others.join(", ")) };
        let _ = writeln!(
            out,
            "### {}\n{}{time}{others}\n\n| field | type | |\n|---|---|---|",
            entity.name,
            entity.table.doc()
        );
        for field in &entity.fields {
            let also =
                |(of, _, name): &&(&str, &str, &str)| (of.is_empty() || *of == entity.name) && *name == field.name;
            let also: Vec<String> = ALIASES.iter().filter(also).map(|(_, alias, _)| format!("`{alias}`")).collect();
            let mut doc = field.doc.replace('|', "\\|");
            if let Some(codes) = codes::of(field.name) {
                let labels: Vec<String> = codes.labels().iter().map(|l| format!("`{l}`")).collect();
                let _ = write!(doc, " Also: {}.", labels.join(", "));
            }
            if !also.is_empty() {
                let _ = write!(doc, " Also called {}.", also.join(", "));
            }
            let _ = writeln!(out, "| `{}` | {} | {doc} |", field.name, field.kind.name());
        }
        out.push('\n');
    }
    for (alias, names) in ENTITY_ALIASES.iter().filter(|(_, names)| names.len() > 1) {
        let _ = writeln!(out, "`{alias}` is `in:({})`.\n", names.join(","));
    }
    for (kind, field, value) in KINDS {
        let of = ENTITY_ALIASES.iter().find(|(alias, _)| alias == kind).map(|(_, names)| names.join(","));
        let _ = writeln!(out, "`in:{kind}` is `in:{} {field}:{value}`.\n", of.unwrap_or_default());
    }
    let later: Vec<String> = NOT_BUILT.iter().map(|name| format!("`{name}`")).collect();
    let _ = writeln!(out, "Entities that are not collected yet: {}.\n", later.join(", "));
    let none: Vec<String> = NOT_AVAILABLE.iter().map(|name| format!("`{name}`")).collect();
    let _ = writeln!(out, "Entities of ServiceRadar that are refused by name: {}.", none.join(", "));
    out
}
