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
/// Longest file, bytes.
const MAX_FILE: u64 = 16 << 20;
/// Longest address file, bytes: it is in memory.
pub(crate) const MAX_ADDRESS_FILE: usize = 128 << 20;
/// Address files.
pub(crate) const MAX_ADDRESS_FILES: usize = 8;

/// The rules of the program under those of files, and what of them is wrong.
pub(crate) fn rules(paths: &[PathBuf]) -> Result<(Vec<Rule>, Vec<BadRule>)> {
    let (mut rules, mut bad) = (file::builtin(), Vec::new());
    for path in files(paths)? {
        let yaml = text(&path)?;
        let (own, wrong) = file::read(&path.display().to_string(), &yaml);
        rules = file::override_rules(rules, own);
        bad.extend(wrong);
    }
    Ok((rules, bad))
}

/// Keeps the bytes of a file, and says what they are called from then on.
pub(crate) type Keep<'a> = &'a dyn Fn(&[u8]) -> std::io::Result<String>;

/// What is known of flows. Address files are kept first: what names them may be read at any time.
pub(crate) fn tables(config: &Enrichment, keep: Keep<'_>) -> Result<FlowTables> {
    let mut networks = config.networks.clone();
    for path in &config.network_files {
        let csv = text(path)?;
        let read = flows::file::networks(&csv).map_err(|why| anyhow!("{}: {why}", path.display()))?;
        networks.extend(read);
    }
    if config.address_files.len() > MAX_ADDRESS_FILES {
        bail!("{} address files; {MAX_ADDRESS_FILES} are the most", config.address_files.len());
    }
    let address_files = config.address_files.iter().map(|path| address_file(path, keep)).collect::<Result<_>>()?;
    let tables = FlowTables {
        exporters: config.exporters.clone(),
        interfaces: config.interfaces.clone(),
        networks,
        applications: config.applications.clone(),
        autonomous_systems: config.autonomous_systems.clone(),
        address_files,
    };
    flows::check(&tables).map_err(|why| anyhow!(why))?;
    Ok(tables)
}

/// A file of addresses, kept.
fn address_file(path: &Path, keep: Keep<'_>) -> Result<AddressFile> {
    let unread = || format!("cannot read {}", path.display());
    sized(path, MAX_ADDRESS_FILE as u64)?;
    let bytes = Bytes::from(std::fs::read(path).with_context(unread)?);
    let name = path.file_name().and_then(|name| name.to_str()).with_context(unread)?.to_owned();
    AddressBook::new(&name, bytes.clone()).map_err(|why| anyhow!("{}: {why}", path.display()))?;
    let digest = keep(&bytes).with_context(|| format!("cannot keep {}", path.display()))?;
    Ok(AddressFile { name, digest })
}

/// A file that is not too long.
fn text(path: &Path) -> Result<String> {
    sized(path, MAX_FILE)?;
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn sized(path: &Path, most: u64) -> Result<()> {
    let size = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    if size > most {
        bail!("{} has {size} bytes; {most} are the most", path.display());
    }
    Ok(())
}

/// Files, and of folders the YAML files in them, by name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_yaml = |p: &Path| p.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut inside = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
            inside.retain(|p| is_yaml(p));
            inside.sort();
            files.extend(inside);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
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
