//! Modules know only those before them. A folder is one module.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The allowed order: each may use those before it.
const ORDER: &[&str] = &[
    // What everything is built of.
    "sizes",
    "strangers",
    "layout",
    "collection",
    "keyed",
    "output",
    "facts",
    "resources",
    "audit",
    // The parts.
    "records",
    "aliases",
    "alerts",
    "listings",
    "steps",
    "identity",
    "lifecycle",
    "merges",
    "availability",
    "inventory",
    "reach",
    "health",
    "jobs",
    "topology",
    "loss",
    "metrics",
    "otel",
    // Frames are read for all parts; what events are about is told last.
    "decode",
    "telemetry",
    // Rules look at all of it.
    "rules",
    // What holds it together.
    "upgrade",
    "graph",
    "worker",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Modules that a source uses: what follows `crate::` outside of comments.
fn used(source: &str) -> BTreeSet<String> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        // The names in the outermost braces.
        let (mut depth, mut begins) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.insert(name(&list[begins..at]));
                    begins = at + 1;
                }
                _ => {}
            }
            if c == '}' && begins == at + 1 {
                break;
            }
        }
    }
    found.remove("");
    found
}

/// What is wrong with the arrows of a module's source.
fn wrong(module: &str, source: &str) -> Vec<String> {
    let place = |name: &str| ORDER.iter().position(|m| *m == name);
    let Some(here) = place(module) else { return vec![format!("{module} has no place in the order")] };
    let judge = |other: String| match place(&other) {
        None => Some(format!("{module} uses {other}, which has no place in the order")),
        Some(there) if there > here => Some(format!("{module} uses {other}, which comes after it")),
        Some(_) => None,
    };
    used(source).into_iter().filter_map(judge).collect()
}

#[test]
fn modules_use_only_those_before_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        if module != "lib" {
            faults.extend(wrong(&module, &fs::read_to_string(&file).unwrap()));
            seen.insert(module);
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    let ordered: BTreeSet<String> = ORDER.iter().map(ToString::to_string).collect();
    assert_eq!(seen, ordered, "the order names every module once, and no other");
    assert_eq!(ordered.len(), ORDER.len());
}

#[test]
fn an_arrow_against_the_order_is_found_however_it_is_written() {
    let back = vec!["records uses identity, which comes after it".to_owned()];
    assert_eq!(wrong("records", "use crate::identity::Component;"), back);
    assert_eq!(wrong("records", "pub use crate::identity;"), back);
    assert_eq!(wrong("records", "use crate::{\n    keyed::{Keyed, Tick},\n    identity,\n    sizes,\n};"), back);
    assert_eq!(wrong("records", "fn f(c: crate::identity::Component) {}"), back);
    assert_eq!(
        wrong("records", "//! See [`crate::identity`].\nuse crate::keyed::{Keyed, Tick};"),
        Vec::<String>::new()
    );
    assert_eq!(wrong("elsewhere", ""), ["elsewhere has no place in the order"]);
}
