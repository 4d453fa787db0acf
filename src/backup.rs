//! `radarflow backup` and `restore`: a data directory as it was at one epoch, taken while the server runs.
//!
//! ```text
//! lake, as it is ─► snapshots ─► lake, what came since ─► ledger          in this order
//!                   S (usable)   L ≥ S                     E ≥ L
//! ```
//! A snapshot is usable once the lake has its epoch, so the lake that is copied after it has it too; and the ledger that is
//! copied last has every epoch that the lake has. So a start on the copy begins with S, reads the ledger to E, and the lake
//! takes what it lacks: nothing is missing and nothing is twice. Most of the lake is copied before: however large it is, what has
//! to be quick is small, because files of the lake never change. Of a table the log is copied before the files, which stay for as
//! long as the log may be read. What was let go while it was copied is copied anew. The copy is opened once before it is
//! believed, and every file that the lake's tables name is looked for.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use radarflow_connectors::disk;
use radarflow_connectors::ledger::{self, DataDir};
use radarflow_connectors::sinks::lake;
use radarflow_dataflows::upgrade;
use radarflow_proto::lake::LakeTable;
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
    fn new() -> Copying {
        let style =
            ProgressStyle::with_template("{spinner} {bytes} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Copying { bar: ProgressBar::new_spinner().with_style(style), bytes: 0 }
    }

    fn file(&mut self, from: &Path, to: &Path) -> Result<()> {
        let copied = fs::copy(from, to).map_err(|error| {
            // Half of it would be taken for all of it.
            let _ = fs::remove_file(to);
            match error.kind() {
                ErrorKind::NotFound => anyhow::Error::from(Gone(from.to_owned())),
                _ => anyhow::Error::from(error).context(format!("cannot copy {}", from.display())),
            }
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

    /// A folder with all that is in it, less what is copied already; what goes meanwhile was not needed any more.
    fn tree(&mut self, from: &Path, to: &Path, skip: &str) -> Result<()> {
        fs::create_dir_all(to)?;
        for (name, path) in list(from)? {
            let to = to.join(&name);
            if path.is_dir() {
                if name != skip {
                    self.tree(&path, &to, "")?;
                }
            } else if !to.exists()
                && let Err(error) = self.file(&path, &to)
                && error.downcast_ref::<Gone>().is_none()
            {
                return Err(error);
            }
        }
        fs::File::open(to)?.sync_all()?;
        Ok(())
    }

    /// A table of the lake after the other: first its log, then its files.
    fn lake(&mut self, from: &Path, to: &Path) -> Result<()> {
        const LOG: &str = "_delta_log";
        const NEWEST: &str = "_last_checkpoint";
        fs::create_dir_all(to)?;
        for (name, table) in list(from)? {
            let log = table.join(LOG);
            if log.is_dir() {
                // What it names is there when the rest is listed. It is the one file that changes.
                let newest = to.join(&name).join(LOG).join(NEWEST);
                fs::create_dir_all(to.join(&name).join(LOG))?;
                let _ = fs::remove_file(&newest);
                if log.join(NEWEST).exists() {
                    self.file(&log.join(NEWEST), &newest)?;
                }
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
        let mut partial = self.folder.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let _ = fs::remove_dir_all(&partial);
        let mut copying = Copying::new();
        let mut attempts = 0;
        let about = loop {
            attempts += 1;
            let copied = match self.copy(&mut copying, &partial) {
                Ok(about) => complete(&partial.join("lake")).await.map(|()| about),
                Err(error) => Err(error),
            };
            match copied {
                Err(error) if error.downcast_ref::<Gone>().is_some() && attempts < ATTEMPTS => {}
                done => break done?,
            }
        };
        copying.bar.finish_and_clear();
        let bytes = copying.bytes;
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

    /// What of the lake was copied before stays.
    fn copy(&self, copying: &mut Copying, to: &Path) -> Result<About> {
        fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        let of = |name: &str| self.data_dir.join(name);
        let lake = self.lake.clone().unwrap_or_else(|| of("lake"));
        let with_lake = !self.without_lake && lake.is_dir();
        if with_lake {
            copying.bar.set_message("lake");
            copying.lake(&lake, &to.join("lake"))?;
        }
        for part in [ledger::SNAPSHOTS, ledger::LOG] {
            let _ = fs::remove_dir_all(to.join(part));
        }
        copying.bar.set_message("snapshots");
        // Manifests first: what they name is there until they go.
        let is_manifest = |name: &str| name.starts_with("manifest-") || name.starts_with("usable-");
        copying.files(&of(ledger::SNAPSHOTS), &to.join(ledger::SNAPSHOTS), is_manifest)?;
        copying.files(&of(ledger::SNAPSHOTS), &to.join(ledger::SNAPSHOTS), |name| name.ends_with(".run"))?;
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
        Ok(about)
    }
}

/// Every file that a copied lake's tables name is there, whole.
async fn complete(lake: &Path) -> Result<()> {
    for table in LakeTable::all().filter(|table| lake.join(table.name()).is_dir()) {
        let opened = lake::open_table(lake, table).await?;
        for file in opened.snapshot()?.log_data().iter() {
            let path = lake.join(table.name()).join(file.object_store_path().as_ref());
            if fs::metadata(&path).ok().map(|found| found.len()) != u64::try_from(file.size()).ok() {
                let _ = fs::remove_file(&path);
                return Err(Gone(path).into());
            }
        }
    }
    Ok(())
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
        let mut copying = Copying::new();
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
            "{} is what it was at epoch {}{keys}\na Postgres that went on since is put back likewise at the first start",
            self.data_dir.display(),
            about.epoch
        ))
    }
}
