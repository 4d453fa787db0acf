//! The rooms of the crate: each uses those before it, and knows nothing of those after it. What belongs to HTTP is known to the
//! last alone.

use std::fs;
use std::path::Path;

/// In their order.
const ROOMS: [&str; 9] = ["error", "actor", "tables", "srql", "engine", "live", "records", "postgres", "http"];
/// Crates that only the last of them uses.
const OF_HTTP: [&str; 7] = ["axum", "http_body", "hyper_util", "utoipa_axum", "tonic", "arrow_flight", "prost"];

/// The names that follow a word in a text's paths.
fn after<'a>(word: &'a str, text: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word).map(move |(at, _)| {
        let rest = &text[at + word.len()..];
        &rest[..rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())]
    })
}

/// What a file should not say: its room, how many modules it is in, and its text.
fn wrong(room: &str, depth: usize, text: &str) -> Vec<String> {
    let place = |name: &str| ROOMS.iter().position(|room| *room == name);
    let mut wrong = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
        for name in after("crate::", line) {
            if place(name).is_none_or(|there| place(room).is_none_or(|here| there > here)) {
                wrong.push(format!("uses {name:?}: {line}"));
            }
        }
        let last = place(room) == Some(ROOMS.len() - 1);
        if let Some(name) = OF_HTTP.iter().find(|name| !last && line.contains(&format!("{name}::"))) {
            wrong.push(format!("knows {name}: {line}"));
        }
        // A path that leaves the room must say where it goes. Tests are a module deeper.
        if line.contains(&"super::".repeat(depth)) && line != "use super::*;" {
            wrong.push(format!("leaves its room: {line}"));
        }
    }
    wrong
}

fn read(dir: &Path, room: &str, depth: usize, found: &mut Vec<String>, files: &mut usize) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap().to_owned();
        let room = if room.is_empty() { &name } else { room };
        if path.is_dir() {
            read(&path, room, depth + 1, found, files);
        } else if name != "lib" {
            *files += 1;
            let depth = if name == "mod" { depth } else { depth + 1 };
            let text = fs::read_to_string(&path).unwrap();
            found.extend(wrong(room, depth, &text).into_iter().map(|wrong| format!("{}: {wrong}", path.display())));
        }
    }
}

#[test]
fn a_room_uses_only_those_before_it() {
    let (mut found, mut files) = (Vec::new(), 0);
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", 0, &mut found, &mut files);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(files > ROOMS.len(), "{files} files");
}

#[test]
fn what_should_not_be_said_is_found() {
    for (room, depth, text) in [
        ("tables", 2, "use crate::srql::ast::Query;"),
        ("engine", 2, "    let x = crate::live::streams::Streams::new(engine);"),
        ("error", 1, "use crate::actor::Actor;"),
        ("stray", 1, "use crate::error::QueryError;"),
        ("engine", 2, "use crate::{error, http};"),
        ("records", 2, "use axum::http::StatusCode;"),
        ("tables", 2, "use super::super::http::Api;"),
    ] {
        assert_eq!(wrong(room, depth, text).len(), 1, "{room}: {text}");
    }
    let right =
        "//! See [`crate::http`].\nuse crate::tables::view::View;\nuse super::super::ast::Query;\n    use super::*;\n";
    assert_eq!(wrong("srql", 3, right), Vec::<String>::new());
    assert_eq!(wrong("http", 2, "use axum::Router;\nuse crate::live::events::Event;"), Vec::<String>::new());
}
