//! A disk in memory that keeps exactly what [`Disk`] promises.
//!
//! What was appended is lost at a power failure until it was synced, but for a part of it that happened to be written; a
//! name is lost, or the old one is back, until its folder was synced. Calls fail and take long as [`crate::faults`] says,
//! or for want of room; an append that fails may have written a part. How long calls took is told, and who asks decides
//! whose time that was.
//!
//! Files below a folder named `staged` are a cache: several threads write them, so nothing in them depends on a random
//! number, and a power failure leaves none.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use radarflow_proto::disk::{Appender, Disk, Found, Stat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::faults::{Call, Faults, Rule};

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// So much of it survives whatever happens, as it was then.
    synced: Vec<u8>,
}

/// What names lead to.
type Names = BTreeMap<PathBuf, u64>;

struct Inner {
    rng: StdRng,
    files: BTreeMap<u64, File>,
    next: u64,
    names: Names,
    synced_names: Names,
    dirs: Vec<PathBuf>,
    /// Bytes that there is room for.
    room: u64,
    faults: Faults,
    cache: BTreeMap<PathBuf, Vec<u8>>,
    /// Of calls since it was last asked: how long they took, milliseconds, and how many were of no cache.
    spent: (i64, u64),
    /// Another process has the disk now: what the old one still does is lost.
    generation: u64,
}

/// The disk; a clone is the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
    generation: u64,
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        let inner = Inner {
            rng: StdRng::seed_from_u64(seed),
            files: BTreeMap::new(),
            next: 0,
            names: Names::new(),
            synced_names: Names::new(),
            dirs: vec![PathBuf::from("/")],
            room: u64::MAX,
            faults: Faults::default(),
            cache: BTreeMap::new(),
            spent: (0, 0),
            generation: 0,
        };
        SimDisk { inner: Arc::new(Mutex::new(inner)), generation: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A disk that holds these files, durably.
    pub fn holding(seed: u64, files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> SimDisk {
        let disk = SimDisk::new(seed);
        {
            let mut inner = disk.lock();
            for (path, bytes) in files {
                let file = inner.next;
                inner.next += 1;
                inner.files.insert(file, File { synced: bytes.clone(), bytes });
                inner.names.insert(path, file);
            }
            inner.synced_names = inner.names.clone();
        }
        disk
    }

    /// From now on so many of a thousand calls fail.
    pub fn failing(&self, of_thousand: u32) {
        self.lock().faults.failing(of_thousand);
    }

    /// Something more is wrong.
    pub fn fault(&self, rule: Rule) {
        self.lock().faults.add(rule);
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.faults.heal();
        inner.room = u64::MAX;
    }

    /// Whether calls below a folder may fail or take long.
    pub fn is_sick(&self, folder: &Path) -> bool {
        let inner = self.lock();
        inner.room != u64::MAX || inner.faults.touch(folder)
    }

    /// How long calls took since this was last asked, milliseconds, and how many there were that are of no cache.
    pub fn spent(&self) -> (i64, u64) {
        std::mem::take(&mut self.lock().spent)
    }

    /// Bytes that are free; beyond it writes fail.
    pub fn room_left(&self, bytes: u64) {
        self.lock().room = bytes;
    }

    /// All files but the cache, and what they hold.
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.lock();
        inner.names.iter().map(|(path, file)| (path.clone(), inner.files[file].bytes.clone())).collect()
    }

    /// Flips a bit of a file at rest.
    pub fn flip(&self, path: &Path, bit: usize) {
        let mut inner = self.lock();
        let Ok(file) = inner.file(path) else { return };
        let Some(file) = inner.files.get_mut(&file) else { return };
        for bytes in [&mut file.bytes, &mut file.synced] {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The process dies, or with `power` the machine: the disk as the next process finds it.
    pub fn crash(&self, power: bool) -> SimDisk {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.faults.heal();
        inner.room = u64::MAX;
        if power {
            inner.cache.clear();
            inner.lose_power();
        }
        SimDisk { inner: self.inner.clone(), generation: inner.generation }
    }
}

impl Inner {
    fn lose_power(&mut self) {
        // Of each name that was changed since, either is there.
        let changed: Vec<PathBuf> = self.names.keys().chain(self.synced_names.keys()).cloned().collect();
        let mut left = Names::new();
        for name in changed {
            let (now, then) = (self.names.get(&name), self.synced_names.get(&name));
            let kept = if now == then || self.rng.random_bool(0.5) { now } else { then };
            left.extend(kept.map(|file| (name, *file)));
        }
        self.names = left.clone();
        self.synced_names = left;
        for file in self.files.values_mut() {
            // Blocks are written in any order: what was appended is there in part, or its room is and nothing in it.
            let common = file.bytes.iter().zip(&file.synced).take_while(|(a, b)| a == b).count();
            let kept = if common < file.synced.len() {
                // It was cut, and that may not be known.
                if self.rng.random_bool(0.5) { file.bytes.clone() } else { file.synced.clone() }
            } else {
                let tail = file.bytes.len() - common;
                let mut kept = file.bytes[..common + self.rng.random_range(0..=tail)].to_vec();
                if kept.len() > common && self.rng.random_bool(0.3) {
                    let from = self.rng.random_range(common..kept.len());
                    kept[from..].fill(0);
                }
                kept
            };
            (file.bytes, file.synced) = (kept.clone(), kept);
        }
    }

    /// What becomes of a call.
    fn strike(&mut self, call: Call, path: &Path) -> io::Result<()> {
        let rng = if is_cache(path) { None } else { Some(&mut self.rng) };
        self.spent.1 += u64::from(rng.is_some());
        let (takes_ms, fails) = self.faults.strike(call, path, rng);
        self.spent.0 += takes_ms;
        if fails { Err(io::Error::other(format!("the disk refuses to {call:?}"))) } else { Ok(()) }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn is_cache(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("staged"))
}

fn dead() -> io::Error {
    io::Error::other("this process is dead")
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    /// `None` in the cache, where a path is all.
    file: Option<u64>,
}

impl SimFile {
    fn with(&mut self, call: Call, act: impl FnOnce(&mut File)) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if inner.generation != self.disk.generation {
            return Err(dead());
        }
        inner.strike(call, &self.path)?;
        if let Some(file) = self.file.and_then(|file| inner.files.get_mut(&file)) {
            act(file);
        }
        Ok(())
    }
}

impl Appender for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if inner.generation != self.disk.generation {
            return Err(dead());
        }
        let fails = inner.strike(Call::Append, &self.path).err();
        let Some(file) = self.file else {
            if let Some(kept) = inner.cache.get_mut(&self.path).filter(|_| fails.is_none()) {
                kept.extend_from_slice(bytes);
            }
            return fails.map_or(Ok(()), Err);
        };
        let wanted = bytes.len() as u64;
        let full = wanted > inner.room;
        let written = match (&fails, full) {
            (None, false) => bytes.len(),
            (None, true) => inner.room as usize,
            (Some(_), _) => {
                let most = bytes.len().min(inner.room.min(1 << 40) as usize);
                inner.rng.random_range(0..=most)
            }
        };
        if inner.room != u64::MAX {
            inner.room -= written as u64;
        }
        let Some(file) = inner.files.get_mut(&file) else { return Ok(()) };
        file.bytes.extend_from_slice(&bytes[..written]);
        match fails {
            Some(error) => Err(error),
            None if full => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(Call::Sync, |file| file.synced.clone_from(&file.bytes))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with(Call::Truncate, |file| file.bytes.resize(len as usize, 0))
    }
}

impl SimDisk {
    fn act<T>(&self, call: Call, path: &Path, act: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.lock();
        if inner.generation != self.generation {
            return Err(dead());
        }
        inner.strike(call, path)?;
        act(&mut inner)
    }
}

fn part(bytes: &[u8], offset: u64, len: usize) -> Bytes {
    let from = (offset as usize).min(bytes.len());
    let to = from.saturating_add(len).min(bytes.len());
    Bytes::copy_from_slice(&bytes[from..to])
}

fn stat_of(bytes: &[u8]) -> Stat {
    Stat { len: bytes.len() as u64, modified_ms: 0, is_dir: false }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        let file = self.act(Call::Create, path, |inner| {
            if is_cache(path) {
                inner.cache.insert(path.to_owned(), Vec::new());
                return Ok(None);
            }
            let file = inner.next;
            inner.next += 1;
            inner.files.insert(file, File::default());
            inner.names.insert(path.to_owned(), file);
            Ok(Some(file))
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        let file = self.act(Call::Open, path, |inner| inner.file(path))?;
        Ok(Box::new(SimFile { disk: self.clone(), path: path.to_owned(), file: Some(file) }))
    }

    fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        if is_cache(path) {
            // A worker that cannot read what it put there ends the process, and with it the simulation.
            return Ok(part(self.lock().cache.get(path).ok_or(io::ErrorKind::NotFound)?, offset, len));
        }
        self.act(Call::Read, path, |inner| Ok(part(&inner.files[&inner.file(path)?].bytes, offset, len)))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        if is_cache(path) {
            return Ok(stat_of(self.lock().cache.get(path).ok_or(io::ErrorKind::NotFound)?));
        }
        self.act(Call::Stat, path, |inner| {
            if inner.dirs.iter().any(|dir| dir == path) {
                return Ok(Stat { len: 0, modified_ms: 0, is_dir: true });
            }
            Ok(stat_of(&inner.files[&inner.file(path)?].bytes))
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Found>> {
        self.act(Call::List, dir, |inner| {
            let in_dir = |path: &&PathBuf| path.parent() == Some(dir);
            let files = inner.names.iter().filter(|(path, _)| in_dir(path));
            let files = files.map(|(path, file)| (path, stat_of(&inner.files[file].bytes)));
            let cache = inner.cache.iter().filter(|(path, _)| in_dir(path)).map(|(path, bytes)| (path, stat_of(bytes)));
            let folder = Stat { len: 0, modified_ms: 0, is_dir: true };
            let dirs = inner.dirs.iter().filter(in_dir).map(|path| (path, folder));
            let found = files.chain(cache).chain(dirs);
            let mut found: Vec<Found> = found.map(|(path, stat)| Found { path: path.clone(), stat }).collect();
            found.sort();
            Ok(found)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(Call::Rename, from, |inner| {
            let file = inner.file(from)?;
            inner.names.remove(from);
            inner.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(Call::Link, from, |inner| {
            let file = inner.file(from)?;
            if inner.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act(Call::Remove, path, |inner| {
            if is_cache(path) {
                return inner.cache.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into());
            }
            inner.file(path)?;
            inner.names.remove(path);
            Ok(())
        })
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.act(Call::MakeDir, dir, |inner| {
            for dir in dir.ancestors() {
                if !inner.dirs.iter().any(|known| known == dir) {
                    inner.dirs.push(dir.to_owned());
                }
            }
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.act(Call::SyncDir, dir, |inner| {
            let Inner { names, synced_names, .. } = inner;
            synced_names.retain(|path, _| path.parent() != Some(dir));
            let own = names.iter().filter(|(path, _)| path.parent() == Some(dir));
            synced_names.extend(own.map(|(path, file)| (path.clone(), *file)));
            Ok(())
        })
    }

    fn room(&self, _: &Path) -> Option<u64> {
        Some(self.lock().room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may() {
        let (mut torn, mut whole, mut nameless) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let path = Path::new("/a/f");
            let mut file = disk.create(path).unwrap();
            file.append(b"kept").unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/a")).unwrap();
            file.append(b"lost").unwrap();
            disk.create(Path::new("/a/g")).unwrap();
            let after = disk.crash(true);
            let bytes = after.read(path, 0, 100).unwrap();
            assert!(bytes.starts_with(b"kept"));
            torn += usize::from(bytes.len() > 4 && &bytes[..] != b"keptlost");
            whole += usize::from(&bytes[..] == b"keptlost");
            nameless += usize::from(after.stat(Path::new("/a/g")).is_err());
            assert!(file.append(b"x").is_err(), "the dead do not write");
            assert_eq!(after.read(path, 0, 100).unwrap(), bytes);
        }
        assert!(torn > 20 && whole > 5 && nameless > 50, "{torn} {whole} {nameless}");
    }
}
