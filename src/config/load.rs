//! Reads the file and the environment into one configuration.
//!
//! Both become one table of `toml`, whose values know where they were read: an error names the line of the file, or the
//! variable of the environment, and the field. This is why no crate for layered configuration is used: `config` does not
//! know lines, guesses the types of variables and takes the text "3" for a number; `figment` knows no lines either, and
//! needs a second version of `toml`. Where a value is wrong its line is
//! named, not shown: it may hold a secret.
//!
//! Every mistake is found in one reading: what is wrong is noted and taken out, and the rest is read again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use radarflow_reconcile::mapping::Mapping;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue, Deserializer};

use super::mistakes::{At, Mistake, Places};
use super::schema::Config;

/// Begins the names of variables that configure; what follows is the path of a key, with `__` between its parts.
const PREFIX: &str = "RADARFLOW__";
/// The file that is read where none is named, if it is there.
pub(crate) const FILE: &str = "radarflow.toml";
/// Mistakes that are told of one file.
const MAX_MISTAKES: usize = 100;

/// What was read, and what is wrong with it.
pub(crate) struct Read {
    /// What was read, without what is wrong.
    pub(crate) config: Config,
    pub(crate) mistakes: Vec<Mistake>,
    /// Where keys stand.
    pub(crate) places: Places,
}

/// The file that is named, or the one of the folder.
pub(crate) fn file(named: Option<&Path>) -> Option<PathBuf> {
    let own = || Some(PathBuf::from(FILE)).filter(|file| file.exists());
    named.map(Path::to_owned).or_else(own)
}

/// Where everything is kept by the configuration of this folder, as far as it can be read.
pub(crate) fn data_dir() -> PathBuf {
    look(None).map_or_else(|_| Config::default().data_dir, |read| read.config.data_dir)
}

/// Reads the file, if there is one, and the environment.
pub(crate) fn load(named: Option<&Path>) -> Result<Config> {
    let Read { config, mistakes, .. } = look(named)?;
    if mistakes.is_empty() {
        return Ok(config);
    }
    let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let place = file(named).map_or_else(|| "in the environment".to_owned(), |f| format!("in {}", f.display()));
    bail!("{place}: {}", said.join("\n  "))
}

/// The same, with every mistake.
pub(crate) fn look(named: Option<&Path>) -> Result<Read> {
    let file = file(named);
    let text = match &file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    let base = file.as_ref().and_then(|file| file.parent()).filter(|base| !base.as_os_str().is_empty());
    Ok(parse(&text, base, std::env::vars()))
}

impl Config {
    /// The mappings, read.
    pub(crate) fn mappings(&self) -> Result<BTreeMap<String, Mapping>> {
        let read = |(name, path): (&String, &PathBuf)| Ok((name.clone(), mapping(path)?));
        self.mappings.iter().map(read).collect::<Result<_>>().context("[mappings]")
    }
}

/// Reads a mapping file.
pub(crate) fn mapping(path: &Path) -> Result<Mapping> {
    let yaml = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Mapping::read(&yaml).with_context(|| path.display().to_string())
}

/// Relative paths of the file are relative to `base`.
fn parse(text: &str, base: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Read {
    let variables: Vec<Variable> = environment.filter_map(|(name, value)| Variable::new(name, value)).collect();
    let (mut table, wrong) = DeTable::parse_recoverable(text);
    // Beyond the text, a place each.
    let variable = |n: usize| text.len() + n..text.len() + n;
    let placed_at = |span: Option<Range<usize>>| match span.map(|span| (span.start, span.start.checked_sub(text.len())))
    {
        Some((_, Some(n))) if n < variables.len() => At::Variable(variables[n].name.clone()),
        Some((at, _)) => At::of(text, at),
        None => At::Nowhere,
    };
    let mut mistakes: Vec<Mistake> =
        wrong.iter().map(|error| Mistake { at: placed_at(error.span()), said: explain(error.message()) }).collect();
    if let Some(base) = base {
        rebase(table.get_mut(), base, &mut Vec::new());
    }
    for (n, of) in variables.iter().enumerate() {
        let at = variable(n);
        if let Err(error) = set(table.get_mut(), &of.path, placed(of.value(), &at)) {
            mistakes.push(Mistake { at: At::Variable(of.name.clone()), said: error.to_string() });
        }
    }
    for (section, span) in once(table.get_mut(), "") {
        let said = format!("there is one of these: write [{section}], not [[{section}]]");
        mistakes.push(Mistake { at: placed_at(Some(span)), said });
    }
    let places = Places::new(table.get_ref(), placed_at);
    // What was taken out is not missed as well.
    let mut taken: Vec<String> = Vec::new();
    let config = loop {
        let error = match Config::deserialize(Deserializer::from(table.clone())) {
            Ok(config) => break config,
            Err(error) => error,
        };
        let (path, said, remedy) = remedy(&error.to_string());
        match taken.iter().position(|of| missed(&said, &path).is_some_and(|missed| missed == *of)) {
            Some(nth) => drop(taken.swap_remove(nth)),
            None => mistakes.push(Mistake { at: placed_at(error.span()), said }),
        }
        taken.push(path);
        let mended = error.span().is_some_and(|span| {
            let exact = |of: &Range<usize>| *of == span;
            let around = |of: &Range<usize>| of.contains(&span.start);
            mend(table.get_mut(), &exact, &remedy) || mend(table.get_mut(), &around, &Remedy::Drop)
        });
        // What cannot be found cannot be taken out.
        if !mended || mistakes.len() >= MAX_MISTAKES {
            break Config::default();
        }
    };
    mistakes.extend(config.duplicates(&places));
    mistakes.sort();
    Read { config, mistakes, places }
}

/// What is done about a mistake, so that the rest can be read.
enum Remedy {
    /// It is taken out.
    Drop,
    /// A section stands where a list of them should: it is a list of one.
    List,
}

/// Where a mistake is, as people read it, and what is done about it.
fn remedy(error: &str) -> (String, String, Remedy) {
    let path = error.rsplit("in `").next().filter(|rest| rest.len() < error.len());
    let path = path.and_then(|rest| rest.split('`').next()).unwrap_or_default().to_owned();
    if error.contains("invalid type: map, expected a sequence") {
        let said = format!("there may be several of these: write [[{path}]], not [{path}]");
        return (path, said, Remedy::List);
    }
    (path, explain(error), Remedy::Drop)
}

/// The key that a section is said to miss.
fn missed(said: &str, section: &str) -> Option<String> {
    let key = said.strip_prefix("missing field `")?.split('`').next()?;
    Some(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") })
}

/// Sections that there is one of.
const ONCE: [&str; 15] = [
    "http",
    "http.tls",
    "mail",
    "postgres",
    "postgres.tls",
    "agent",
    "sources",
    "sinks",
    "sinks.postgres",
    "sinks.lake",
    "enrichment",
    "mappings",
    "grpc.tls",
    "syslog_tls.tls",
    "otlp.tls",
];

/// Makes one of what was written as a list of sections and is one; tells which, and where.
fn once(table: &mut DeTable<'_>, before: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for (key, value) in table.iter_mut() {
        let path = if before.is_empty() { key.get_ref().to_string() } else { format!("{before}.{}", key.get_ref()) };
        let span = value.span();
        if ONCE.contains(&path.as_str())
            && let DeValue::Array(list) = value.get_mut()
            && list.first().is_some_and(|first| first.get_ref().is_table())
        {
            found.push((path.clone(), list.first().map_or(span, Spanned::span)));
            if let Some(first) = std::mem::replace(list, DeArray::new()).into_iter().next() {
                *value.get_mut() = first.into_inner();
            }
        }
        match value.get_mut() {
            DeValue::Table(inner) => found.extend(once(inner, &path)),
            DeValue::Array(list) => {
                for item in list.iter_mut() {
                    if let DeValue::Table(inner) = item.get_mut() {
                        found.extend(once(inner, &path));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Does it where the span is; tells whether it was found.
fn mend(table: &mut DeTable<'_>, here: &dyn Fn(&Range<usize>) -> bool, remedy: &Remedy) -> bool {
    if table.iter_mut().any(|(_, value)| mend_in(value.get_mut(), here, remedy)) {
        return true;
    }
    let found = table.iter().find(|(key, value)| here(&key.span()) || here(&value.span()));
    let Some(key) = found.map(|(key, _)| key.get_ref().to_string()) else { return false };
    if matches!(remedy, Remedy::Drop) {
        return table.remove(key.as_str()).is_some();
    }
    let Some(value) = table.get_mut(key.as_str()) else { return false };
    let span = value.span();
    let old = std::mem::replace(value.get_mut(), DeValue::Boolean(false));
    *value.get_mut() = DeValue::Array(std::iter::once(Spanned::new(span, old)).collect());
    true
}

fn mend_in(value: &mut DeValue<'_>, here: &dyn Fn(&Range<usize>) -> bool, remedy: &Remedy) -> bool {
    match value {
        DeValue::Table(table) => mend(table, here, remedy),
        DeValue::Array(list) => {
            if list.iter_mut().any(|item| mend_in(item.get_mut(), here, remedy)) {
                return true;
            }
            let Some(nth) = list.iter().position(|item| here(&item.span())) else { return false };
            let items = std::mem::replace(list, DeArray::new()).into_iter().enumerate();
            *list = items.filter(|(n, _)| *n != nth).map(|(_, item)| item).collect();
            true
        }
        _ => false,
    }
}

/// Makes the paths of a file relative to where it is.
fn rebase(table: &mut DeTable<'_>, base: &Path, at: &mut Vec<String>) {
    for (key, value) in table.iter_mut() {
        at.push(key.get_ref().to_string());
        rebase_in(value.get_mut(), base, at);
        at.pop();
    }
}

fn rebase_in(value: &mut DeValue<'_>, base: &Path, at: &mut Vec<String>) {
    match value {
        DeValue::Table(table) => rebase(table, base, at),
        DeValue::Array(list) => list.iter_mut().for_each(|item| rebase_in(item.get_mut(), base, at)),
        DeValue::String(text) => {
            let (scheme, path) = match text.strip_prefix("file:") {
                Some(path) => ("file:", path),
                None if is_path(at) => ("", text.as_ref()),
                None => return,
            };
            if Path::new(path).is_relative() && !path.is_empty() {
                *text = format!("{scheme}{}", base.join(path).display()).into();
            }
        }
        _ => {}
    }
}

/// Whether a key's value is a path.
fn is_path(key: &[String]) -> bool {
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    matches!(
        key.as_slice(),
        ["data_dir"]
            | ["sinks", "lake", "path"]
            | ["mappings", _]
            | ["enrichment", "rules" | "network_files" | "address_files"]
            | ["sources", "nats", "credentials"]
            | [.., "tls", "certificate" | "key" | "client_ca"]
    )
}

/// A text, without an environment.
#[cfg(test)]
pub(super) fn parse_for_test(text: &str) -> Read {
    parse(text, None, std::iter::empty())
}

/// A variable of the environment that configures something.
struct Variable {
    name: String,
    /// Its key, by sections.
    path: Vec<String>,
    text: String,
    /// As a line of a file.
    line: String,
}

impl Variable {
    fn new(name: String, text: String) -> Option<Self> {
        let path = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
        let line = format!("v = {text}");
        Some(Variable { name, path, text, line })
    }

    /// What reads as TOML is that; anything else is text.
    fn value(&self) -> DeValue<'_> {
        let parsed = DeTable::parse(&self.line).ok().and_then(|mut table| table.get_mut().remove("v"));
        parsed.map_or_else(|| DeValue::String(self.text.as_str().into()), Spanned::into_inner)
    }
}

/// A value of which all was read at one place.
fn placed<'t>(mut value: DeValue<'t>, at: &Range<usize>) -> Spanned<DeValue<'t>> {
    match &mut value {
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                *item = placed(std::mem::replace(item.get_mut(), DeValue::Boolean(false)), at);
            }
        }
        DeValue::Table(table) => {
            let placed = |(key, value): (Spanned<DeString<'t>>, Spanned<DeValue<'t>>)| {
                (Spanned::new(at.clone(), key.into_inner()), placed(value.into_inner(), at))
            };
            *table = std::mem::take(table).into_iter().map(placed).collect();
        }
        _ => {}
    }
    Spanned::new(at.clone(), value)
}

/// Puts a value where its key is.
fn set<'t>(table: &mut DeTable<'t>, path: &'t [String], value: Spanned<DeValue<'t>>) -> Result<()> {
    let [key, rest @ ..] = path else { return Ok(()) };
    let at = value.span();
    let name: Spanned<DeString<'t>> = Spanned::new(at.clone(), key.as_str().into());
    if rest.is_empty() {
        // Its key is read at the same place.
        table.remove(key.as_str());
        table.insert(name, value);
        return Ok(());
    }
    let section = || Spanned::new(at, DeValue::Table(DeTable::new()));
    match table.entry(name).or_insert_with(section).get_mut() {
        DeValue::Table(inner) => set(inner, rest, value),
        _ => bail!("{key} is not a section"),
    }
}

/// Adds the nearest known key to an "unknown field" error.
fn explain(error: &str) -> String {
    let error = error.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let error = error.as_str();
    // The section it is in stands on a line of its own.
    let said = error.lines().find(|line| line.contains("unknown field")).unwrap_or(error);
    let names: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
    if !error.contains("unknown field") || names.len() < 2 {
        return error.to_owned();
    }
    let nearest = names[1..]
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(names[0], a).total_cmp(&strsim::jaro_winkler(names[0], b)));
    match nearest {
        Some(nearest) => format!("{error}; did you mean `{nearest}`?"),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::defaults;
    use super::super::schema::Socket;
    use super::*;

    fn none() -> impl Iterator<Item = (String, String)> {
        std::iter::empty()
    }

    fn of<const N: usize>(variables: [(&str, &str); N]) -> impl Iterator<Item = (String, String)> {
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter()
    }

    /// The configuration, or its mistakes.
    fn read(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Config, String> {
        let Read { config, mistakes, .. } = parse(text, None, environment);
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        if said.is_empty() { Ok(config) } else { Err(said.join("\n")) }
    }

    #[test]
    fn every_mistake_is_found_in_one_reading() {
        let file = "workers = \"two\"\n[grpc]\naddr = \"127.0.0.1:1\"\ntenat = \"a\"\n[[http]]\nadr = 1\n\
                    [[netflow]]\naddr = 7\nsockets = 0\n[[sources.netbox]]\nurl = \"ftp://x\"\ntoken = \"t\"\n\
                    [sinks.lake]\ncommit_interval_s = 0\n[enrichment]\nrules = \"rules.yaml\"\n";
        let said = read(file, of([("RADARFLOW__AGENT__ENABLED", "maybe")])).unwrap_err();
        let lines: Vec<&str> = said.lines().collect();
        let expected: [&[&str]; 12] = [
            &["line 1, column 11", "`workers`"],
            &["line 2, column 1", "write [[grpc]], not [grpc]"],
            &["line 4, column 1", "`tenat`", "did you mean `tenant`?"],
            &["line 5, column", "write [http], not [[http]]"],
            &["line 6, column 1", "did you mean `addr`?"],
            &["line 8, column 8", "`netflow"],
            &["line 9, column 11", "0 sockets"],
            &["line 10, column", "missing field `name`"],
            &["line 11, column 7", "ftp://x"],
            &["line 14, column 21", "0 seconds"],
            &["line 16, column 9", "`enrichment.rules`"],
            &["environment variable RADARFLOW__AGENT__ENABLED", "`agent.enabled`"],
        ];
        assert_eq!(lines.len(), expected.len(), "{said}");
        for (line, words) in lines.iter().zip(expected) {
            assert!(words.iter().all(|word| line.contains(word)), "{line:?} does not say {words:?}\n{said}");
        }
        let said = read("a = = 1\n[http]\naddr = \"x\ny = ]\n", none()).unwrap_err();
        assert!(said.lines().count() >= 2, "what is no TOML is all told too: {said}");
    }

    #[test]
    fn paths_of_a_file_are_relative_to_it() {
        let file = "data_dir = \"data\"\n[http.tls]\ncertificate = \"/etc/a.pem\"\nkey = \"a.key\"\n\
                    [mappings]\ncmdb = \"cmdb.yaml\"\n[enrichment]\nrules = [\"r.yaml\"]\n\
                    [mail]\nsmtp = \"file:smtp.url\"\nfrom = \"a@b.c\"\n";
        let config = parse(file, Some(Path::new("/srv/radar")), none()).config;
        let tls = config.http.tls.unwrap();
        assert_eq!(config.data_dir, Path::new("/srv/radar/data"));
        assert_eq!(
            (tls.certificate.as_path(), tls.key.as_path()),
            (Path::new("/etc/a.pem"), Path::new("/srv/radar/a.key"))
        );
        assert_eq!(config.mappings["cmdb"], Path::new("/srv/radar/cmdb.yaml"));
        assert_eq!(config.enrichment.rules, [Path::new("/srv/radar/r.yaml")]);
        assert_eq!(config.mail.unwrap().smtp, "file:/srv/radar/smtp.url");
    }

    #[test]
    fn nothing_configured_works_and_unknown_keys_do_not() {
        assert_eq!(read("", none()).unwrap().http.addr.port(), 8080);
        let error = read("[htpp]\naddr = \"127.0.0.1:1\"", none()).unwrap_err();
        assert!(error.contains("did you mean `http`?"), "{error}");
    }

    #[test]
    fn an_error_names_the_line_or_the_variable_and_the_field() {
        let file = "workers = 2\n[[sources.netbox]]\nname = \"a\"\nurl = \"ftp://x\"\ntoken = \"s3cret\"\n";
        let cases: [(&str, &[(&str, &str)], &[&str]); 9] = [
            ("workers = \n", &[], &["line 1, column "]),
            ("\nworkers = \"two\"", &[], &["line 2, column ", "`workers`"]),
            ("[http]\n\naddr = \"nowhere\"", &[], &["line 3, column ", "`http.addr`"]),
            ("\n[http]\nadr = 1", &[], &["line 3, column ", "`http`", "did you mean `addr`?"]),
            (file, &[], &["line 4, column ", "`sources.netbox.url`", "ftp://x"]),
            (
                "workers = 2",
                &[("RADARFLOW__WORKERS", "many")],
                &["environment variable RADARFLOW__WORKERS: ", "`workers`"],
            ),
            (
                "",
                &[("RADARFLOW__HTTP__ADR", "x")],
                &["environment variable RADARFLOW__HTTP__ADR: ", "did you mean `addr`?"],
            ),
            (
                "",
                &[("RADARFLOW__WORKERS", "1"), ("RADARFLOW__SYSLOG", "[{ addr = \"127.0.0.1:1\", sockets = 0 }]")],
                &["environment variable RADARFLOW__SYSLOG: ", "0 sockets"],
            ),
            ("workers = 1", &[("RADARFLOW__WORKERS__X", "1")], &["environment variable RADARFLOW__WORKERS__X"]),
        ];
        for (text, variables, named) in cases {
            let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let error = read(text, environment).unwrap_err();
            for name in named {
                assert!(error.contains(name), "{error:?} of {text:?} {variables:?} does not say {name:?}");
            }
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_example_is_what_it_says() {
        let example = read(include_str!("../../deploy/radarflow.example.toml"), none()).unwrap();
        let default = Config::default();
        assert_eq!(example.http.addr, default.http.addr);
        assert_eq!(example.disk_reserve_mib, default.disk_reserve_mib);
        let ports = |sockets: &[Socket]| sockets.iter().map(|s| (s.addr, s.partition.clone())).collect::<Vec<_>>();
        for (said, is) in [
            (&example.netflow, &default.netflow),
            (&example.sflow, &default.sflow),
            (&example.syslog, &default.syslog),
            (&example.traps, &default.traps),
        ] {
            assert_eq!(ports(said), ports(is));
        }
        let addrs = |config: &Config| config.otlp.iter().map(|otlp| otlp.addr).collect::<Vec<_>>();
        assert_eq!(addrs(&example), addrs(&default));
        assert_eq!(example.sources.nats[0].subjects, defaults::subjects());
        assert_eq!(example.sources.kafka[0].topics, defaults::subjects());
        let (netbox, armis) = (&example.sources.netbox[0], &example.sources.armis[0]);
        assert_eq!(netbox.interval_s, defaults::netbox_interval_s());
        assert_eq!(netbox.full_interval_s, defaults::netbox_full_interval_s());
        assert_eq!((netbox.page, netbox.pause_ms), (defaults::netbox_page(), defaults::pause_ms()));
        assert_eq!((armis.interval_s, armis.page), (defaults::armis_interval_s(), defaults::armis_page()));
        assert_eq!((armis.aql.clone(), armis.pause_ms), (defaults::aql(), defaults::pause_ms()));
        assert_eq!(example.sinks.lake.vacuum_after_hours, default.sinks.lake.vacuum_after_hours);
        let receiver = &example.receivers[0];
        assert_eq!(
            (receiver.group_wait_ms, receiver.group_interval_ms, receiver.repeat_interval_ms),
            (defaults::group_wait_ms(), defaults::group_interval_ms(), defaults::repeat_interval_ms())
        );
    }

    #[test]
    fn the_environment_overrides() {
        let environment = of([
            ("RADARFLOW__SINKS__POSTGRES__URL", "postgres://x"),
            ("RADARFLOW__WORKERS", "3"),
            ("RADARFLOW__SYSLOG", "[{ addr = \"127.0.0.1:1\" }]"),
            ("RADARFLOW_URL", "y"),
        ]);
        let config = read("workers = 1", environment).unwrap();
        assert_eq!(config.sinks.postgres.unwrap().url, "postgres://x");
        assert_eq!((config.workers, config.syslog[0].addr.port()), (3, 1));
    }
}
