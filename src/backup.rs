//! `radarflow backup` and `restore`: a data directory as it was at one epoch, taken while the server runs.
//!
//! ```text
//! snapshots ─► lake ─► ledger          in this order
//! S (usable)   L ≥ S   E ≥ L
//! ```
//! A snapshot is usable once the lake has its epoch, so the lake that is copied after it has it too; and the ledger that is
//! copied last has every epoch that the lake has. So a start on the copy begins with S, reads the ledger to E, and the lake
//! takes what it lacks: nothing is missing and nothing is twice. Of a table of the lake the log is copied before the files,
//! which stay for as long as the log may be read. What was let go while it was copied is copied anew. The copy is opened once
//! before it is believed.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use radarflow_connectors::disk;
use radarflow_connectors::ledger::{self, DataDir};
use radarflow_dataflows::upgrade;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::cli::{At, COMMIT};
use crate::{api, config, token};

/// What tells of a backup.
const ABOUT: &str = "backup.json";
/// Secrets of the installation, which are kept apart.
const KEYS: [&str; 2] = ["secret.key", "sealing.keys"];
/// What inventories were told of their devices.
const WRITTEN_BACK: &str = "write-back";
/// How long it is waited for a snapshot that everybody has.
const USABLE_WITHIN: Duration = Duration::from_secs(60);
/// Times that it is begun anew because something was let go meanwhile.
const ATTEMPTS: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Backup {
    /// Where it is written: a folder that is not there yet.
    folder: PathBuf,
    /// Where everything is kept.
    #[arg(long, default_value_os_t = config::data_dir())]
    data_dir: PathBuf,
    /// The lake, where it is not below the data directory.
    #[arg(long)]
    lake: Option<PathBuf>,
    /// Leave the lake out: it is backed up otherwise.
    #[arg(long, conflicts_with = "lake")]
    without_lake: bool,
    /// Take the secrets of the installation too; who has them and the backup has everything.
    #[arg(long)]
    with_keys: bool,
    #[command(flatten)]
    at: At,
}

#[derive(clap::Args)]
pub(crate) struct Restore {
    /// The backup.
    folder: PathBuf,
    /// Where everything will be kept: a folder that is empty, or not there yet.
    #[arg(long)]
    data_dir: PathBuf,
    /// The lake, where it will not be below the data directory.
    #[arg(long)]
    lake: Option<PathBuf>,
}

/// What a backup is.
#[derive(Serialize, Deserialize)]
struct About {
    /// The program that made it.
    version: String,
    commit: String,
    /// The newest epoch in it.
    epoch: u64,
    /// The epoch that a start on it begins with.
    snapshot: u64,
    /// Whether the lake is in it.
    lake: bool,
    /// Whether the secrets of the installation are.
    keys: bool,
}

/// Something was there and is not any more.
#[derive(Debug, thiserror::Error)]
#[error("{0} was let go meanwhile")]
struct Gone(PathBuf);

/// A copy under way.
struct Copying {
    bar: ProgressBar,
    bytes: u64,
}

impl Copying {
    fn file(&mut self, from: &Path, to: &Path) -> Result<()> {
        let copied = fs::copy(from, to).map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::Error::from(Gone(from.to_owned())),
            _ => anyhow::Error::from(error).context(format!("cannot copy {}", from.display())),
        })?;
        fs::File::open(to)?.sync_all()?;
        self.bytes += copied;
        self.bar.inc(copied);
        Ok(())
    }

    /// The files of a folder that are wanted.
    fn files(&mut self, from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
        fs::create_dir_all(to)?;
        for (name, path) in list(from)? {
            if path.is_file() && wanted(&name) {
                self.file(&path, &to.join(name))?;
            }
        }
        fs::File::open(to)?.sync_all()?;
        Ok(())
    }

    /// A folder with all that is in it; what goes meanwhile was not needed any more.
    fn tree(&mut self, from: &Path, to: &Path, skip: &str) -> Result<()> {
        fs::create_dir_all(to)?;
        for (name, path) in list(from)? {
            let to = to.join(&name);
            if path.is_dir() {
                if name != skip {
                    self.tree(&path, &to, "")?;
                }
            } else if let Err(error) = self.file(&path, &to) {
                if error.downcast_ref::<Gone>().is_none() {
                    return Err(error);
                }
                let _ = fs::remove_file(&to);
            }
        }
        fs::File::open(to)?.sync_all()?;
        Ok(())
    }

    /// A table of the lake after the other: first its log, then its files.
    fn lake(&mut self, from: &Path, to: &Path) -> Result<()> {
        const LOG: &str = "_delta_log";
        fs::create_dir_all(to)?;
        for (name, table) in list(from)? {
            if table.join(LOG).is_dir() {
                self.tree(&table.join(LOG), &to.join(&name).join(LOG), "")?;
                self.tree(&table, &to.join(&name), LOG)?;
            }
        }
        fs::File::open(to)?.sync_all()?;
        Ok(())
    }
}

/// What is in a folder, by name.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = fs::read_dir(folder).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::Error::from(Gone(folder.to_owned())),
        _ => anyhow::Error::from(error).context(folder.display().to_string()),
    })?;
    let mut found = Vec::new();
    for entry in read {
        let entry = entry?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    found.sort();
    Ok(found)
}

/// The newest snapshot that everybody has.
fn usable(data_dir: &Path) -> Result<u64> {
    let marks = list(&data_dir.join(ledger::SNAPSHOTS))?;
    let epochs = marks.iter().filter_map(|(name, _)| name.strip_prefix("usable-")?.parse().ok());
    Ok(epochs.max().unwrap_or(0))
}

impl Backup {
    /// Makes it; says what it is.
    pub(crate) async fn run(self) -> Result<String> {
        ensure!(self.data_dir.join(ledger::LOG).is_dir(), "{} holds no ledger", self.data_dir.display());
        ensure!(!self.folder.exists(), "{} is there already; a backup has a folder of its own", self.folder.display());
        // While no server runs none may begin.
        let held = token::take(&self.data_dir)?;
        if held.is_none() {
            self.wait_for_snapshot().await?;
        }
        let partial = self.folder.with_extension("partial");
        let mut attempts = 0;
        let (about, bytes) = loop {
            attempts += 1;
            let _ = fs::remove_dir_all(&partial);
            match self.copy(&partial) {
                Err(error) if error.downcast_ref::<Gone>().is_some() && attempts < ATTEMPTS => {}
                done => break done?,
            }
        };
        fs::rename(&partial, &self.folder).with_context(|| self.folder.display().to_string())?;
        let keys = if about.keys { "" } else { "; keep secret.key and sealing.keys apart: they are not in it" };
        let (folder, mib) = (self.folder.display(), bytes.div_ceil(1 << 20));
        Ok(format!("{folder} is the data directory as it was at epoch {} ({mib} MiB){keys}", about.epoch))
    }

    /// Has the server write a snapshot and the lake commit, and waits until a start could begin there.
    async fn wait_for_snapshot(&self) -> Result<()> {
        let snapshot = api::answer(&self.at, api::request(&self.at, Method::POST, &["api", "snapshot"])?).await?;
        let wanted = snapshot["epoch"].as_u64().context("the server tells no epoch")?;
        let until = Instant::now() + USABLE_WITHIN;
        while usable(&self.data_dir)? < wanted {
            ensure!(
                Instant::now() < until,
                "no snapshot becomes usable: a sink does not commit; see `radarflow status`"
            );
            if !self.without_lake {
                api::answer(&self.at, api::request(&self.at, Method::POST, &["api", "flush"])?).await?;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    fn copy(&self, to: &Path) -> Result<(About, u64)> {
        fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        let style =
            ProgressStyle::with_template("{spinner} {bytes} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let mut copying = Copying { bar: ProgressBar::new_spinner().with_style(style), bytes: 0 };
        let of = |name: &str| self.data_dir.join(name);
        copying.bar.set_message("snapshots");
        // Manifests first: what they name is there until they go.
        let is_manifest = |name: &str| name.starts_with("manifest-") || name.starts_with("usable-");
        copying.files(&of(ledger::SNAPSHOTS), &to.join(ledger::SNAPSHOTS), is_manifest)?;
        copying.files(&of(ledger::SNAPSHOTS), &to.join(ledger::SNAPSHOTS), |name| name.ends_with(".run"))?;
        let lake = self.lake.clone().unwrap_or_else(|| of("lake"));
        let with_lake = !self.without_lake && lake.is_dir();
        if with_lake {
            copying.bar.set_message("lake");
            copying.lake(&lake, &to.join("lake"))?;
        }
        copying.bar.set_message("ledger");
        copying.files(&of(ledger::LOG), &to.join(ledger::LOG), |name| name.ends_with(".seg"))?;
        // What inventories were told last.
        if of(WRITTEN_BACK).is_dir() {
            copying.tree(&of(WRITTEN_BACK), &to.join(WRITTEN_BACK), "")?;
        }
        if self.with_keys {
            for key in KEYS.iter().filter(|key| of(key).exists()) {
                copying.file(&of(key), &to.join(key))?;
            }
        }
        copying.bar.finish_and_clear();
        // A frame that was being written is cut here, and what a later snapshot would need.
        let opened = ledger::open(&disk::os(), to, &upgrade::versions());
        let opened = opened.map_err(|error| match error {
            error @ (ledger::LedgerError::NoStart { .. } | ledger::LedgerError::Missing { .. }) => {
                anyhow::Error::from(Gone(of(ledger::LOG))).context(error)
            }
            error => error.into(),
        })?;
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: COMMIT.to_owned(),
            epoch: opened.segments.next_epoch() - 1,
            snapshot: opened.start.map_or(0, |(manifest, _)| manifest.epoch),
            lake: with_lake,
            keys: self.with_keys,
        };
        let mut file = fs::File::create(to.join(ABOUT))?;
        file.write_all(&serde_json::to_vec_pretty(&about)?)?;
        file.sync_all()?;
        fs::File::open(to)?.sync_all()?;
        Ok((about, copying.bytes))
    }
}

impl Restore {
    /// Does it; says what is left to do.
    pub(crate) fn run(self) -> Result<String> {
        let about = self.folder.join(ABOUT);
        let about =
            fs::read(&about).with_context(|| format!("{} is no backup: {}", self.folder.display(), about.display()))?;
        let about: About = serde_json::from_slice(&about).context("it is of another program")?;
        let lake = self.lake.clone().unwrap_or_else(|| self.data_dir.join("lake"));
        for folder in [&self.data_dir, &lake] {
            if folder.exists() && !list(folder)?.is_empty() {
                bail!("{} is not empty; a restore begins with an empty folder", folder.display());
            }
        }
        let mut copying = Copying { bar: ProgressBar::new_spinner(), bytes: 0 };
        for part in [ledger::SNAPSHOTS, ledger::LOG] {
            copying.tree(&self.folder.join(part), &self.data_dir.join(part), "")?;
        }
        if self.folder.join(WRITTEN_BACK).is_dir() {
            copying.tree(&self.folder.join(WRITTEN_BACK), &self.data_dir.join(WRITTEN_BACK), "")?;
        }
        if about.lake {
            copying.tree(&self.folder.join("lake"), &lake, "")?;
        }
        for key in KEYS.iter().filter(|key| self.folder.join(key).exists()) {
            copying.file(&self.folder.join(key), &self.data_dir.join(key))?;
        }
        copying.bar.finish_and_clear();
        // Taken once: it can be.
        DataDir::take(&self.data_dir)?;
        let keys = if about.keys { "" } else { "\nput secret.key and sealing.keys there before the start" };
        Ok(format!(
            "{} is what it was at epoch {}{keys}\na Postgres that went on since is newer: have it filled anew with\n  \
             psql … -c 'DELETE FROM radarflow.sink_progress'",
            self.data_dir.display(),
            about.epoch
        ))
    }
}
