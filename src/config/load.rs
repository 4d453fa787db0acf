//! Reads the file and the environment into one configuration.
//!
//! Both become one table of `toml`, whose values know where they were read: an error names the line of the file, or the
//! variable of the environment, and the field. This is why no crate for layered configuration is used: `config` does not
//! know lines, guesses the types of variables and takes the text "3" for a number; `figment` knows no lines either, and
//! needs a second version of `toml`. Where a value is wrong its line is
//! named, not shown: it may hold a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use radarflow_reconcile::mapping::Mapping;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer};

use super::schema::Config;

/// Begins the names of variables that configure; what follows is the path of a key, with `__` between its parts.
const PREFIX: &str = "RADARFLOW__";

/// Reads the file, if one is named, and the environment.
pub(crate) fn load(file: Option<&Path>) -> Result<Config> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    parse(&text, std::env::vars())
        .with_context(|| file.map_or_else(|| "in the environment".to_owned(), |f| format!("in {}", f.display())))
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

fn parse(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Config> {
    let variables: Vec<Variable> = environment.filter_map(|(name, value)| Variable::new(name, value)).collect();
    let mut table = DeTable::parse(text)?;
    for (n, variable) in variables.iter().enumerate() {
        // Beyond the text, a place each.
        let at = text.len() + n..text.len() + n;
        let value = placed(variable.value(), &at);
        set(table.get_mut(), &variable.path, value)
            .with_context(|| format!("environment variable {}", variable.name))?;
    }
    let config: Config = Config::deserialize(Deserializer::from(table)).map_err(|error| {
        let said = explain(&error.to_string());
        match error.span().map(|span| (span.start, span.start.checked_sub(text.len()))) {
            Some((_, Some(n))) if n < variables.len() => anyhow!("environment variable {}: {said}", variables[n].name),
            Some((at, None)) => anyhow!("line {}: {said}", text[..at].matches('\n').count() + 1),
            _ => anyhow!(said),
        }
    })?;
    let mut names = BTreeSet::new();
    let netbox = config.sources.netbox.iter().map(|n| ("netbox", &n.tenant, &n.name));
    for name in netbox.chain(config.sources.armis.iter().map(|a| ("armis", &a.tenant, &a.name))) {
        if !names.insert(name) {
            bail!("two [[sources.{}]] of tenant {} are called {:?}", name.0, name.1, name.2);
        }
    }
    drop(names);
    Ok(config)
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
    let error = error.trim();
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

    #[test]
    fn nothing_configured_works_and_unknown_keys_do_not() {
        assert_eq!(parse("", none()).unwrap().http.addr.port(), 8080);
        let error = parse("[htpp]\naddr = \"127.0.0.1:1\"", none()).unwrap_err().to_string();
        assert!(error.contains("did you mean `http`?"), "{error}");
    }

    #[test]
    fn an_error_names_the_line_or_the_variable_and_the_field() {
        let file = "workers = 2\n[[sources.netbox]]\nname = \"a\"\nurl = \"ftp://x\"\ntoken = \"s3cret\"\n";
        let cases: [(&str, &[(&str, &str)], &[&str]); 9] = [
            ("workers = \n", &[], &["line 1"]),
            ("\nworkers = \"two\"", &[], &["line 2: ", "`workers`"]),
            ("[http]\n\naddr = \"nowhere\"", &[], &["line 3: ", "`http.addr`"]),
            ("\n[http]\nadr = 1", &[], &["line 3: ", "`http`", "did you mean `addr`?"]),
            (file, &[], &["line 4: ", "`sources.netbox.url`", "ftp://x"]),
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
            let error = parse(text, environment).unwrap_err().to_string();
            for name in named {
                assert!(error.contains(name), "{error:?} of {text:?} {variables:?} does not say {name:?}");
            }
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_example_is_what_it_says() {
        let example = parse(include_str!("../../deploy/radarflow.example.toml"), none()).unwrap();
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
        assert_eq!(example.sources.nats[0].subjects, defaults::subjects());
        assert_eq!(example.sources.kafka[0].topics, defaults::subjects());
        let (netbox, armis) = (&example.sources.netbox[0], &example.sources.armis[0]);
        assert_eq!(netbox.interval_s, defaults::netbox_interval_s());
        assert_eq!(netbox.full_interval_s, defaults::netbox_full_interval_s());
        assert_eq!((netbox.page, netbox.pause_ms), (defaults::netbox_page(), defaults::pause_ms()));
        assert_eq!((armis.interval_s, armis.page), (defaults::armis_interval_s(), defaults::armis_page()));
        assert_eq!((armis.aql.as_str(), armis.pause_ms), (defaults::aql().as_str(), defaults::pause_ms()));
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
        let config = parse("workers = 1", environment).unwrap();
        assert_eq!(config.sinks.postgres.unwrap().url, "postgres://x");
        assert_eq!((config.workers, config.syslog[0].addr.port()), (3, 1));
    }
}
