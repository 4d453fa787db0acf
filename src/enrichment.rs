//! What the configuration and its files say beside what is reported: the rules that tell what devices are, the program's own
//! and those of files; and what is known of flows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use radarflow_proto::enrich::Rule;
use radarflow_proto::fact::OwnCondition;
use radarflow_proto::flow::tables::{AddressFile, FlowTables};
use radarflow_reconcile::enrich::file::{self, BadRule};
use radarflow_reconcile::flows;
use radarflow_reconcile::flows::places::AddressBook;

use crate::config::Enrichment;

/// The condition "rules of a file are left out".
pub(crate) const INVALID: &str = "enrichment-rules-invalid";
/// The condition "a file cannot be used".
pub(crate) const UNREAD: &str = "enrichment-file-unread";
/// Longest file, bytes.
const MAX_FILE: u64 = 16 << 20;
/// Longest address file, bytes: it is in memory.
pub(crate) const MAX_ADDRESS_FILE: usize = 128 << 20;
/// Address files.
pub(crate) const MAX_ADDRESS_FILES: usize = 8;

/// A file that cannot be used. It may be missing for a moment, or half written: what it said before holds.
#[derive(Debug)]
pub(crate) struct BadFile {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

impl BadFile {
    fn of(path: &Path, error: &anyhow::Error) -> Self {
        BadFile { path: path.to_owned(), why: format!("{error:#}") }
    }
}

/// The rules of the program under those of files, and what of them is wrong.
///
/// # Errors
/// The file that cannot be used.
pub(crate) fn rules(paths: &[PathBuf]) -> Result<(Vec<Rule>, Vec<BadRule>), BadFile> {
    let (mut rules, mut bad) = (file::builtin(), Vec::new());
    for path in paths {
        for path in files(path).map_err(|error| BadFile::of(path, &error))? {
            let yaml = text(&path).map_err(|error| BadFile::of(&path, &error))?;
            let (own, wrong) = file::read(&path.display().to_string(), &yaml);
            rules = file::override_rules(rules, own);
            bad.extend(wrong);
        }
    }
    Ok((rules, bad))
}

/// Keeps the bytes of a file, and says what they are called from then on.
pub(crate) type Keep<'a> = &'a dyn Fn(&[u8]) -> std::io::Result<String>;

/// What is known of flows, and the files that cannot be used: in the place of one of addresses is what stood of that name, and if
/// one of networks cannot be used, all networks are those that stood. Address files are kept first: what names them may be read at
/// any time.
///
/// # Errors
/// What the configuration itself says is wrong.
pub(crate) fn tables(config: &Enrichment, stood: &FlowTables, keep: Keep<'_>) -> Result<(FlowTables, Vec<BadFile>)> {
    let mut bad = Vec::new();
    let mut networks = config.networks.clone();
    for path in &config.network_files {
        match text(path).and_then(|csv| flows::file::networks(&csv).map_err(|why| anyhow!(why))) {
            Ok(read) => networks.extend(read),
            Err(error) => bad.push(BadFile::of(path, &error)),
        }
    }
    if !bad.is_empty() {
        networks.clone_from(&stood.networks);
    }
    if config.address_files.len() > MAX_ADDRESS_FILES {
        bail!("{} address files; {MAX_ADDRESS_FILES} are the most", config.address_files.len());
    }
    let mut address_files = Vec::new();
    for path in &config.address_files {
        match address_file(path, keep) {
            Ok(file) => address_files.push(file),
            Err(error) => {
                let name = path.file_name().and_then(|name| name.to_str());
                address_files.extend(stood.address_files.iter().find(|file| Some(&*file.name) == name).cloned());
                bad.push(BadFile::of(path, &error));
            }
        }
    }
    let tables = FlowTables {
        exporters: config.exporters.clone(),
        interfaces: config.interfaces.clone(),
        networks,
        applications: config.applications.clone(),
        autonomous_systems: config.autonomous_systems.clone(),
        address_files,
    };
    flows::check(&tables).map_err(|why| anyhow!(why))?;
    Ok((tables, bad))
}

/// A file of addresses, kept.
fn address_file(path: &Path, keep: Keep<'_>) -> Result<AddressFile> {
    sized(path, MAX_ADDRESS_FILE as u64)?;
    let bytes = Bytes::from(std::fs::read(path)?);
    let name = path.file_name().and_then(|name| name.to_str()).context("its name is no text")?.to_owned();
    AddressBook::new(&name, bytes.clone()).map_err(|why| anyhow!(why))?;
    let digest = keep(&bytes).context("it cannot be kept in the data directory")?;
    Ok(AddressFile { name, digest })
}

/// A file that is not too long.
fn text(path: &Path) -> Result<String> {
    sized(path, MAX_FILE)?;
    Ok(std::fs::read_to_string(path)?)
}

fn sized(path: &Path, most: u64) -> Result<()> {
    let size = path.metadata()?.len();
    if size > most {
        bail!("it has {size} bytes; {most} are the most");
    }
    Ok(())
}

/// A file; of a folder the YAML files in it, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let mut inside = std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    inside.retain(is_yaml);
    inside.sort();
    Ok(inside)
}

/// What is told of files that cannot be used.
pub(crate) fn unread(bad: &[BadFile]) -> impl Iterator<Item = OwnCondition> {
    bad.iter().map(|BadFile { path, why }| OwnCondition {
        tenant: "default".to_owned(),
        rule: UNREAD.to_owned(),
        entity: path.display().to_string(),
        severity: "warning".to_owned(),
        title: format!("{} cannot be used", path.display()),
        description: format!(
            "{why}. What it said before holds, if it was read before; of files of networks, all networks are as they were. Mend it, \
             then send the server SIGHUP"
        ),
        holds: true,
    })
}

/// What is told of rules that are left out: one condition a file.
pub(crate) fn conditions(bad: &[BadRule]) -> Vec<OwnCondition> {
    let of_file = |bad: &[BadRule]| OwnCondition {
        tenant: "default".to_owned(),
        rule: INVALID.to_owned(),
        entity: bad[0].file.clone(),
        severity: "warning".to_owned(),
        title: format!("{} of {} left out", if bad.len() == 1 { "a rule" } else { "rules" }, bad[0].file),
        description: bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        holds: true,
    };
    bad.chunk_by(|a, b| a.file == b.file).map(of_file).collect()
}
