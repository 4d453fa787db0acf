//! Snapshots: what the dataflow remembers, at an epoch, so that older frames may go.
//!
//! ```text
//! <data-dir>/snapshots/run-<epoch>.run        sorted entries that changed since the run before
//! <data-dir>/snapshots/manifest-<epoch>.json  the runs that together are the state after that epoch
//! <data-dir>/snapshots/usable-<epoch>         every sink has nothing uncommitted at or before that epoch
//! manifest = JSON, and the checksum of it
//! run = "RFLYSNAP" · format u32be · (collection · key · 1 value | 0)* · crc32c u32be of all before
//! ```
//! Publishing a snapshot is renaming its manifest into place. Of a key in several runs the newest counts. When there
//! are more than [`MAX_RUNS`] they are merged into one, reading and writing a window at a time.
//!
//! A manifest is *usable* for a start once every sink has nothing uncommitted at or before its epoch. The two newest
//! usable ones are kept, with the frames since the older: a start that finds the newest damaged takes the one before.
//!
//! Each collection of state has a schema version, which the manifest states. State of an older version is not discarded:
//! who starts from it converts it and hands it back ([`Snapshots::rebase`]).

mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use radarflow_proto::disk::Disk;
use serde::{Deserialize, Serialize};

use super::{LedgerError, checked};

/// Runs a manifest names before they are merged.
pub const MAX_RUNS: usize = 8;
/// The format of manifests and runs that this build writes.
pub const FORMAT: u32 = 2;
/// The version of the dataflow's logic that manifests of format 1 were of. Each of its collections has schema version 1.
const FIRST_LOGIC: u32 = 5;
/// What a merge of runs reads and writes at once, bytes.
pub const MERGE_BYTES: usize = (MAX_RUNS + 2) * run::WINDOW;

/// Names a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of manifest and runs.
    pub format: u32,
    /// Format 1: version of the dataflow's logic.
    #[serde(default)]
    pub logic: u32,
    /// The ledger it belongs to.
    pub generation: u64,
    /// The state is that after this epoch.
    pub epoch: u64,
    /// The epoch's clock, milliseconds since 1970.
    pub clock_ms: i64,
    /// Time the process was down before, all told, milliseconds.
    pub gap_ms: i64,
    /// The runs, oldest first.
    pub runs: Vec<String>,
    /// The schema version of each collection; 1 for one that is not named.
    #[serde(default)]
    pub collections: BTreeMap<String, u32>,
}

/// Which state: its collection and key.
pub type StateKey = (String, Vec<u8>);

/// Changed state, the newest of each key: its value, or that it is gone.
pub type Changed = BTreeMap<StateKey, Option<Vec<u8>>>;

/// State by collection.
pub type State = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// The snapshots of a data directory.
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    generation: u64,
    /// Schema versions of the state that this process hands in.
    collections: BTreeMap<String, u32>,
    manifests: Vec<Manifest>,
    usable: BTreeSet<u64>,
}

impl Snapshots {
    /// Reads what manifests there are. One of another ledger is no snapshot of this one; one that cannot be read is left
    /// alone, with a warning.
    ///
    /// # Errors
    /// The disk refuses, or a build that this one cannot follow wrote a manifest.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        generation: u64,
        collections: BTreeMap<String, u32>,
    ) -> Result<Snapshots, LedgerError> {
        disk.make_dir(dir).map_err(LedgerError::io(dir))?;
        let mut manifests = Vec::new();
        let mut usable = BTreeSet::new();
        for found in disk.list(dir).map_err(LedgerError::io(dir))? {
            let path = found.path;
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            usable.extend(name.strip_prefix("usable-").and_then(|epoch| epoch.parse::<u64>().ok()));
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let bytes = disk.read_all(&path).map_err(LedgerError::io(&path))?;
            let manifest = checked::open(&bytes)
                .map_err(str::to_owned)
                .and_then(|json| serde_json::from_slice::<Manifest>(json).map_err(|error| error.to_string()));
            let manifest = match manifest {
                Ok(manifest) => manifest,
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "a snapshot's manifest cannot be read");
                    continue;
                }
            };
            if manifest.format > FORMAT {
                return Err(LedgerError::Newer { path, found: manifest.format });
            }
            if manifest.generation != generation {
                continue;
            }
            if manifest.format == 1 && manifest.logic != FIRST_LOGIC {
                let reason = "it was written before the first release and cannot be converted; start with a new data \
                              directory, or with the build that wrote it";
                return Err(LedgerError::Snapshot { path, reason: reason.to_owned() });
            }
            manifests.push(manifest);
        }
        manifests.sort_by_key(|m| m.epoch);
        Ok(Snapshots { disk, dir: dir.to_owned(), generation, collections, manifests, usable })
    }

    /// The ledger that the newest usable snapshot belongs to; `None` where there is none that can be read.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn generation_of(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, LedgerError> {
        let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let found = disk.list(dir).map_err(LedgerError::io(dir))?;
        let names: BTreeSet<String> = found.iter().map(|found| name(&found.path)).collect();
        for usable in names.iter().rev().filter_map(|name| name.strip_prefix("usable-")) {
            let path = dir.join(format!("manifest-{usable}.json"));
            if names.contains(&name(&path)) {
                let bytes = disk.read_all(&path).map_err(LedgerError::io(&path))?;
                let manifest =
                    checked::open(&bytes).ok().and_then(|json| serde_json::from_slice::<Manifest>(json).ok());
                if let Some(manifest) = manifest {
                    return Ok(Some(manifest.generation));
                }
            }
        }
        Ok(None)
    }

    /// The snapshots that were found usable while their sinks were there to ask, newest first.
    pub fn usable(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests.iter().rev().filter(|m| self.usable.contains(&m.epoch))
    }

    /// The newest snapshot: what the next one is built on.
    pub fn newest(&self) -> Option<&Manifest> {
        self.manifests.last()
    }

    fn usable_mark(&self, epoch: u64) -> PathBuf {
        self.dir.join(format!("usable-{epoch:020}"))
    }

    fn manifest_path(&self, epoch: u64) -> PathBuf {
        self.dir.join(format!("manifest-{epoch:020}.json"))
    }

    /// The state a manifest names.
    ///
    /// # Errors
    /// The disk refuses, or a run is damaged.
    pub fn load(&self, manifest: &Manifest) -> Result<State, LedgerError> {
        let mut state = State::new();
        self.merged(&manifest.runs, |(collection, key), value| {
            if let Some(value) = value {
                match state.get_mut(&collection) {
                    Some(entries) => entries.push((key, value)),
                    None => {
                        state.insert(collection, vec![(key, value)]);
                    }
                }
            }
            Ok(())
        })?;
        Ok(state)
    }

    /// Goes through the newest entry of each key of several runs, oldest run first, in the order of keys.
    fn merged(
        &self,
        runs: &[String],
        mut each: impl FnMut(StateKey, Option<Vec<u8>>) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let open = |name: &String| run::Reader::open(self.disk.clone(), self.dir.join(name));
        let mut runs = runs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let mut heads = runs.iter_mut().map(run::Reader::next).collect::<Result<Vec<_>, _>>()?;
        while let Some(least) = heads.iter().flatten().map(|(key, _)| key).min().cloned() {
            let mut newest = None;
            for (run, head) in runs.iter_mut().zip(&mut heads) {
                if head.as_ref().is_some_and(|(key, _)| *key == least) {
                    newest = std::mem::replace(head, run.next()?).map(|(_, value)| value);
                }
            }
            each(least, newest.flatten())?;
        }
        Ok(())
    }

    /// Forgets snapshots newer than the one a process starts from: their state will be said again.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn rewind(&mut self, epoch: u64) -> Result<(), LedgerError> {
        while let Some(gone) = self.manifests.pop_if(|m| m.epoch > epoch) {
            self.forget(gone.epoch)?;
        }
        Ok(())
    }

    fn forget(&mut self, epoch: u64) -> Result<(), LedgerError> {
        self.usable.remove(&epoch);
        for path in [self.usable_mark(epoch), self.manifest_path(epoch)] {
            match self.disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LedgerError::io(&path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes what changed since the last snapshot and publishes the new one.
    ///
    /// # Errors
    /// The disk refuses, or an older run is damaged; what changed is still only in memory.
    pub fn publish(
        &mut self,
        epoch: u64,
        clock_ms: i64,
        gap_ms: i64,
        changed: &Changed,
    ) -> Result<Manifest, LedgerError> {
        let run = format!("run-{epoch:020}.run");
        let path = self.dir.join(&run);
        let mut runs = self.newest().map(|m| m.runs.clone()).unwrap_or_default();
        let mut writer = run::Writer::begin(&*self.disk, &path)?;
        for ((collection, key), value) in changed {
            writer.put(collection, key, value.as_deref())?;
        }
        writer.finish()?;
        runs.push(run);
        if runs.len() > MAX_RUNS {
            let merged = format!("run-{epoch:020}-merged.run");
            let mut writer = run::Writer::begin(&*self.disk, &self.dir.join(&merged))?;
            // What is gone from the oldest run on is gone.
            self.merged(&runs, |(collection, key), value| match value {
                Some(value) => writer.put(&collection, &key, Some(&value)),
                None => Ok(()),
            })?;
            writer.finish()?;
            runs = vec![merged];
        }
        let manifest = self.manifest(epoch, clock_ms, gap_ms, runs);
        self.write_manifest(&manifest)?;
        self.manifests.retain(|m| m.epoch != epoch);
        self.manifests.push(manifest.clone());
        Ok(manifest)
    }

    /// Replaces a snapshot by the same state in the schemas of this build.
    ///
    /// # Errors
    /// The disk refuses; the snapshot is as it was.
    pub fn rebase(&mut self, old: &Manifest, state: &State) -> Result<(), LedgerError> {
        let run = format!("run-{:020}-converted.run", old.epoch);
        let mut writer = run::Writer::begin(&*self.disk, &self.dir.join(&run))?;
        for (collection, entries) in state {
            let sorted: BTreeMap<&Vec<u8>, &Vec<u8>> = entries.iter().map(|(key, value)| (key, value)).collect();
            for (key, value) in sorted {
                writer.put(collection, key, Some(value))?;
            }
        }
        writer.finish()?;
        let manifest = self.manifest(old.epoch, old.clock_ms, old.gap_ms, vec![run]);
        self.write_manifest(&manifest)?;
        self.manifests.iter_mut().filter(|m| m.epoch == old.epoch).for_each(|m| *m = manifest.clone());
        Ok(())
    }

    /// Whether a snapshot's state is in the schemas of this build.
    pub fn is_current(&self, manifest: &Manifest) -> bool {
        manifest.format == FORMAT && manifest.collections == self.collections
    }

    fn manifest(&self, epoch: u64, clock_ms: i64, gap_ms: i64, runs: Vec<String>) -> Manifest {
        let (generation, collections) = (self.generation, self.collections.clone());
        Manifest { format: FORMAT, logic: FIRST_LOGIC, generation, epoch, clock_ms, gap_ms, runs, collections }
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), LedgerError> {
        let json = checked::seal(serde_json::to_vec_pretty(manifest).expect("a manifest is plain data"));
        let path = self.manifest_path(manifest.epoch);
        self.disk.write_durably(&path, &json).map_err(LedgerError::io(&path))
    }

    /// Takes the newest snapshot at or before `applied` for usable, and drops those older than the usable one before it,
    /// with the runs only they name. Returns the epoch of the oldest that is left: frames at or before it are no longer
    /// needed. `None` while none is usable.
    ///
    /// # Errors
    /// The disk refuses; what could not be removed goes the next time.
    pub fn retire(&mut self, applied: u64) -> Result<Option<u64>, LedgerError> {
        let Some(newest) = self.manifests.iter().rposition(|m| m.epoch <= applied) else { return Ok(None) };
        let epoch = self.manifests[newest].epoch;
        if !self.usable.contains(&epoch) {
            let mark = self.usable_mark(epoch);
            self.disk.write_durably(&mark, b"").map_err(LedgerError::io(&mark))?;
            self.usable.insert(epoch);
        }
        let before = self.manifests[..newest].iter().rposition(|m| self.usable.contains(&m.epoch));
        let oldest = before.unwrap_or(newest);
        let gone: Vec<u64> = self.manifests[..oldest].iter().map(|m| m.epoch).collect();
        if !gone.is_empty() {
            for epoch in gone {
                self.forget(epoch)?;
                self.manifests.retain(|m| m.epoch != epoch);
            }
            self.disk.sync_dir(&self.dir).map_err(LedgerError::io(&self.dir))?;
        }
        self.sweep()?;
        Ok(self.manifests.first().map(|m| m.epoch))
    }

    /// Removes runs that no manifest names.
    fn sweep(&self) -> Result<(), LedgerError> {
        let named: BTreeSet<&str> = self.manifests.iter().flat_map(|m| &m.runs).map(String::as_str).collect();
        for found in self.disk.list(&self.dir).map_err(LedgerError::io(&self.dir))? {
            let name = found.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let is_run = name.ends_with(".run") || name.ends_with(".unfinished");
            if is_run && !named.contains(name.as_str()) {
                self.disk.remove(&found.path).map_err(LedgerError::io(&found.path))?;
            }
        }
        Ok(())
    }
}
