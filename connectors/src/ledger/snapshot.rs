//! Snapshots: what the dataflow remembers, at an epoch, so that older frames may go.
//!
//! ```text
//! <data-dir>/snapshots/run-<epoch>.run        sorted entries that changed since the run before
//! <data-dir>/snapshots/manifest-<epoch>.json  the runs that together are the state after that epoch
//! run = "RFLYSNAP" · format u32be · (collection · key · 1 value | 0)* · crc32c u32be of all before
//! ```
//! Publishing a snapshot is renaming its manifest into place. Of a key in several runs the newest counts. When there
//! are more than [`MAX_RUNS`] they are merged into one. A manifest is *usable* for a start once every sink has nothing
//! uncommitted at or before its epoch; `usable-<epoch>` beside it says so, and older ones go.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use radarflow_proto::wire::{Cursor, put_sized};
use serde::{Deserialize, Serialize};

use super::{FORMAT, LedgerError};

/// Runs a manifest names before they are merged.
pub const MAX_RUNS: usize = 8;
/// Changes when the dataflow's logic reads older state otherwise than it was meant.
pub const LOGIC: u32 = 6;
const MAGIC: &[u8; 8] = b"RFLYSNAP";

/// Names a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the directory.
    pub format: u32,
    /// Version of the dataflow's logic.
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
}

/// One changed piece of state: collection, key, and its value or that it is gone.
pub type Entry = (String, Vec<u8>, Option<Vec<u8>>);

/// State by collection.
pub type State = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// The snapshots of a data directory.
pub struct Snapshots {
    dir: PathBuf,
    generation: u64,
    manifests: Vec<Manifest>,
}

impl Snapshots {
    /// Reads what manifests there are. One of another ledger is no snapshot of this one.
    pub fn open(dir: &Path, generation: u64) -> Result<Snapshots, LedgerError> {
        fs::create_dir_all(dir).map_err(LedgerError::io(dir))?;
        let mut manifests = Vec::new();
        for entry in fs::read_dir(dir).map_err(LedgerError::io(dir))? {
            let path = entry.map_err(LedgerError::io(dir))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let bytes = fs::read(&path).map_err(LedgerError::io(&path))?;
            let manifest: Manifest = serde_json::from_slice(&bytes)
                .map_err(|e| LedgerError::Snapshot { path: path.clone(), reason: e.to_string() })?;
            if manifest.format > FORMAT {
                return Err(LedgerError::Newer { path, found: manifest.format });
            }
            if manifest.generation == generation && manifest.logic == LOGIC {
                manifests.push(manifest);
            }
        }
        manifests.sort_by_key(|m| m.epoch);
        Ok(Snapshots { dir: dir.to_owned(), generation, manifests })
    }

    /// The newest snapshot that was found usable while its sinks were there to ask.
    pub fn newest_usable(&self) -> Option<Manifest> {
        self.manifests.iter().rev().find(|m| self.usable_mark(m.epoch).exists()).cloned()
    }

    /// The newest snapshot: what the next one is built on.
    pub fn newest(&self) -> Option<&Manifest> {
        self.manifests.last()
    }

    fn usable_mark(&self, epoch: u64) -> PathBuf {
        self.dir.join(format!("usable-{epoch:020}"))
    }

    /// The state a manifest names.
    pub fn load(&self, manifest: &Manifest) -> Result<State, LedgerError> {
        let mut state = State::new();
        for ((collection, key), value) in self.merge(&manifest.runs)? {
            if let Some(value) = value {
                state.entry(collection).or_default().push((key, value));
            }
        }
        Ok(state)
    }

    fn merge(&self, runs: &[String]) -> Result<BTreeMap<(String, Vec<u8>), Option<Vec<u8>>>, LedgerError> {
        let mut all = BTreeMap::new();
        for run in runs {
            for (collection, key, value) in read_run(&self.dir.join(run))? {
                all.insert((collection, key), value);
            }
        }
        Ok(all)
    }

    /// Forgets snapshots newer than the one a process starts from: their state will be said again.
    pub fn rewind(&mut self, epoch: u64) -> Result<(), LedgerError> {
        for gone in self.manifests.iter().filter(|m| m.epoch > epoch) {
            let path = self.dir.join(format!("manifest-{:020}.json", gone.epoch));
            fs::remove_file(&path).map_err(LedgerError::io(&path))?;
        }
        self.manifests.retain(|m| m.epoch <= epoch);
        Ok(())
    }

    /// Writes what changed since the last snapshot and publishes the new one.
    pub fn publish(
        &mut self,
        epoch: u64,
        clock_ms: i64,
        gap_ms: i64,
        changed: Vec<Entry>,
    ) -> Result<Manifest, LedgerError> {
        let run = format!("run-{epoch:020}.run");
        let mut runs = self.newest().map(|m| m.runs.clone()).unwrap_or_default();
        if runs.len() >= MAX_RUNS {
            let mut all = self.merge(&runs)?;
            all.extend(changed.into_iter().map(|(c, k, v)| ((c, k), v)));
            all.retain(|_, value| value.is_some());
            write_run(&self.dir.join(&run), all.into_iter().map(|((c, k), v)| (c, k, v)).collect())?;
            runs = vec![run];
        } else {
            write_run(&self.dir.join(&run), changed)?;
            runs.push(run);
        }
        let manifest =
            Manifest { format: FORMAT, logic: LOGIC, generation: self.generation, epoch, clock_ms, gap_ms, runs };
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        write_durably(&self.dir.join(format!("manifest-{epoch:020}.json")), &json)?;
        self.manifests.push(manifest.clone());
        Ok(manifest)
    }

    /// Drops snapshots older than the newest usable one, and the runs only they name. Returns the epoch of the oldest
    /// that is left: frames at or before it are no longer needed. `None` while none is usable.
    pub fn retire(&mut self, applied: u64) -> Result<Option<u64>, LedgerError> {
        let Some(keep) = self.manifests.iter().rposition(|m| m.epoch <= applied) else { return Ok(None) };
        let mark = self.usable_mark(self.manifests[keep].epoch);
        if !mark.exists() {
            write_durably(&mark, b"")?;
        }
        for gone in self.manifests.drain(..keep) {
            let path = self.dir.join(format!("manifest-{:020}.json", gone.epoch));
            fs::remove_file(&path).map_err(LedgerError::io(&path))?;
            let _ = fs::remove_file(self.dir.join(format!("usable-{:020}", gone.epoch)));
        }
        let named: Vec<&String> = self.manifests.iter().flat_map(|m| &m.runs).collect();
        for entry in fs::read_dir(&self.dir).map_err(LedgerError::io(&self.dir))? {
            let path = entry.map_err(LedgerError::io(&self.dir))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.ends_with(".run") && !named.contains(&&name) {
                fs::remove_file(&path).map_err(LedgerError::io(&path))?;
            }
        }
        Ok(self.manifests.first().map(|m| m.epoch))
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), LedgerError> {
    let unfinished = path.with_extension("unfinished");
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(LedgerError::io(path))
}

fn write_run(path: &Path, mut entries: Vec<Entry>) -> Result<(), LedgerError> {
    entries.sort();
    let mut out = MAGIC.to_vec();
    out.extend(FORMAT.to_be_bytes());
    for (collection, key, value) in entries {
        put_sized(&mut out, collection.as_bytes());
        put_sized(&mut out, &key);
        match value {
            Some(value) => {
                out.push(1);
                put_sized(&mut out, &value);
            }
            None => out.push(0),
        }
    }
    out.extend(crc32c::crc32c(&out).to_be_bytes());
    write_durably(path, &out)
}

fn read_run(path: &Path) -> Result<Vec<Entry>, LedgerError> {
    let bytes = fs::read(path).map_err(LedgerError::io(path))?;
    let bad = |reason: &str| LedgerError::Snapshot { path: path.to_owned(), reason: reason.to_owned() };
    let body = bytes.len().checked_sub(4).filter(|n| *n >= 12).ok_or_else(|| bad("cut short"))?;
    if crc32c::crc32c(&bytes[..body]).to_be_bytes() != bytes[body..] {
        return Err(bad("the checksum does not match"));
    }
    let mut at = Cursor::new(&bytes[..body]);
    let mut read = || -> Result<Vec<Entry>, radarflow_proto::wire::Truncated> {
        at.take(8)?;
        at.u32()?;
        let mut out = Vec::new();
        while !at.is_empty() {
            let collection = String::from_utf8_lossy(at.sized()?).into_owned();
            let key = at.sized()?.to_vec();
            let value = if at.u8()? == 1 { Some(at.sized()?.to_vec()) } else { None };
            out.push((collection, key, value));
        }
        Ok(out)
    };
    read().map_err(|e| bad(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u8, value: Option<u8>) -> Entry {
        ("c".to_owned(), vec![key], value.map(|v| vec![v]))
    }

    #[test]
    fn the_newest_value_counts_and_merging_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::open(dir.path(), 7).unwrap();
        let mut last = None;
        let mut expected = BTreeMap::new();
        for epoch in 1..=25u64 {
            let changed = vec![entry((epoch % 5) as u8, (epoch % 3 > 0).then_some(epoch as u8))];
            for (_, k, v) in &changed {
                match v {
                    Some(v) => expected.insert(k.clone(), v.clone()),
                    None => expected.remove(k),
                };
            }
            last = Some(snapshots.publish(epoch, 0, 0, changed).unwrap());
            let state = snapshots.load(last.as_ref().unwrap()).unwrap();
            let got: BTreeMap<_, _> = state.get("c").cloned().unwrap_or_default().into_iter().collect();
            assert_eq!(got, expected, "epoch {epoch}");
        }
        assert!(last.unwrap().runs.len() <= MAX_RUNS);
        assert_eq!(snapshots.retire(0).unwrap(), None);
        assert_eq!(snapshots.retire(20).unwrap(), Some(20));
        let mut again = Snapshots::open(dir.path(), 7).unwrap();
        let usable = again.newest_usable().unwrap();
        assert_eq!((usable.epoch, again.newest().unwrap().epoch), (20, 25));
        again.load(&usable).unwrap();
        again.rewind(20).unwrap();
        assert_eq!(Snapshots::open(dir.path(), 7).unwrap().newest().unwrap().epoch, 20);
        assert!(Snapshots::open(dir.path(), 8).unwrap().newest_usable().is_none());
    }
}
