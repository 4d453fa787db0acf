//! A disk in memory that keeps exactly what [`Disk`] promises.
//!
//! What was appended is lost at a power failure until it was synced, but for a part of it that happened to be written; a
//! name is lost, or the old one is back, until its folder was synced. Calls fail when they are told to: for want of room,
//! once, or until further notice; an append that fails may have written a part.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use radarflow_proto::disk::{Appender, Disk, Found, Stat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

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
    /// How likely a call fails, of a thousand.
    failing: u32,
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
            failing: 0,
            generation: 0,
        };
        SimDisk { inner: Arc::new(Mutex::new(inner)), generation: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// From now on so many of a thousand calls fail.
    pub fn failing(&self, of_thousand: u32) {
        self.lock().failing = of_thousand;
    }

    /// Bytes that are free; beyond it writes fail.
    pub fn room_left(&self, bytes: u64) {
        self.lock().room = bytes;
    }

    /// The process dies, or with `power` the machine: the disk as the next process finds it.
    pub fn crash(&self, power: bool) -> SimDisk {
        let mut inner = self.lock();
        inner.generation += 1;
        (inner.failing, inner.room) = (0, u64::MAX);
        if power {
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

    fn may(&mut self, what: &str) -> io::Result<()> {
        if self.failing > 0 && self.rng.random_range(0..1000) < self.failing {
            return Err(io::Error::other(format!("the disk refuses to {what}")));
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl SimFile {
    fn with<T>(&mut self, what: &str, act: impl FnOnce(&mut Inner, u64) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.lock();
        if inner.generation != self.disk.generation {
            return Err(io::Error::other("this process is dead"));
        }
        inner.may(what)?;
        act(&mut inner, self.file)
    }
}

impl Appender for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fails = self.with("append", |_, _| Ok(())).err();
        let mut inner = self.disk.lock();
        if inner.generation != self.disk.generation {
            return Err(io::Error::other("this process is dead"));
        }
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
        let Some(file) = inner.files.get_mut(&self.file) else { return Ok(()) };
        file.bytes.extend_from_slice(&bytes[..written]);
        match fails {
            Some(error) => Err(error),
            None if full => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with("sync", |inner, file| {
            if let Some(file) = inner.files.get_mut(&file) {
                file.synced.clone_from(&file.bytes);
            }
            Ok(())
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with("truncate", |inner, file| {
            if let Some(file) = inner.files.get_mut(&file) {
                file.bytes.resize(len as usize, 0);
            }
            Ok(())
        })
    }
}

impl SimDisk {
    fn act<T>(&self, what: &str, act: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.lock();
        if inner.generation != self.generation {
            return Err(io::Error::other("this process is dead"));
        }
        inner.may(what)?;
        act(&mut inner)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        let file = self.act("create", |inner| {
            let file = inner.next;
            inner.next += 1;
            inner.files.insert(file, File::default());
            inner.names.insert(path.to_owned(), file);
            Ok(file)
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        let file = self.act("open", |inner| inner.file(path))?;
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        self.act("read", |inner| {
            let bytes = &inner.files[&inner.file(path)?].bytes;
            let from = (offset as usize).min(bytes.len());
            let to = from.saturating_add(len).min(bytes.len());
            Ok(Bytes::copy_from_slice(&bytes[from..to]))
        })
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.act("stat", |inner| {
            if inner.dirs.iter().any(|dir| dir == path) {
                return Ok(Stat { len: 0, modified_ms: 0, is_dir: true });
            }
            let len = inner.files[&inner.file(path)?].bytes.len() as u64;
            Ok(Stat { len, modified_ms: 0, is_dir: false })
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Found>> {
        self.act("list", |inner| {
            let files = inner.names.iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(path, file)| Found {
                path: path.clone(),
                stat: Stat { len: inner.files[file].bytes.len() as u64, modified_ms: 0, is_dir: false },
            });
            let dirs = inner
                .dirs
                .iter()
                .filter(|path| path.parent() == Some(dir))
                .map(|path| Found { path: path.clone(), stat: Stat { len: 0, modified_ms: 0, is_dir: true } });
            let mut found: Vec<Found> = files.chain(dirs).collect();
            found.sort();
            Ok(found)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act("rename", |inner| {
            let file = inner.file(from)?;
            inner.names.remove(from);
            inner.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act("link", |inner| {
            let file = inner.file(from)?;
            if inner.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act("remove", |inner| {
            inner.file(path)?;
            inner.names.remove(path);
            Ok(())
        })
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.act("make a folder", |inner| {
            for dir in dir.ancestors() {
                if !inner.dirs.iter().any(|known| known == dir) {
                    inner.dirs.push(dir.to_owned());
                }
            }
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.act("sync a folder", |inner| {
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
