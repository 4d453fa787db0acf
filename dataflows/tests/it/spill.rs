//! What waits on disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use radarflow_dataflows::decode::spill::{Spill, Spilled};
use radarflow_proto::disk::{Appender, Disk, Found, Stat};

type Files = Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>;

/// Files in memory; what the dataflow does not do with a disk is not there.
#[derive(Default)]
pub(crate) struct MemoryDisk {
    files: Files,
    /// It takes no more.
    full: Mutex<bool>,
}

impl MemoryDisk {
    pub(crate) fn bytes(&self) -> u64 {
        self.files.lock().unwrap().values().map(|file| file.len() as u64).sum()
    }
}

struct File(Files, PathBuf);

impl Appender for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().entry(self.1.clone()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        unreachable!("nothing of it is synced")
    }

    fn truncate(&mut self, _: u64) -> io::Result<()> {
        unreachable!("nothing of it is cut")
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        if *self.full.lock().unwrap() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files.lock().unwrap().insert(path.to_owned(), Vec::new());
        Ok(Box::new(File(self.files.clone(), path.to_owned())))
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn Appender>> {
        Err(missing())
    }

    fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        let files = self.files.lock().unwrap();
        let bytes = files.get(path).ok_or_else(missing)?.iter().skip(offset as usize).take(len).copied();
        Ok(bytes.collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let len = self.files.lock().unwrap().get(path).ok_or_else(missing)?.len() as u64;
        Ok(Stat { len, modified_ms: 0, is_dir: false })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Found>> {
        let files = self.files.lock().unwrap();
        let own = files.iter().filter(|(path, _)| path.parent() == Some(dir));
        let found = own.map(|(path, bytes)| {
            let stat = Stat { len: bytes.len() as u64, modified_ms: 0, is_dir: false };
            Found { path: path.clone(), stat }
        });
        Ok(found.collect())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(missing())
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(missing())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path).map(drop).ok_or_else(missing)
    }

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn room(&self, _: &Path) -> Option<u64> {
        None
    }
}

#[test]
fn what_is_put_is_got_until_it_is_forgotten_and_a_start_begins_with_nothing() {
    let disk = Arc::new(MemoryDisk::default());
    let folder = Path::new("/data/staged");
    let open = |worker, workers| Spill::open(disk.clone(), folder, worker, workers).unwrap();
    let mut spills = [open(0, 3), open(1, 3), open(2, 3)];
    let body = |n: usize| vec![n as u8; n * 1000];
    let mut kept: Vec<(usize, Spilled)> = (0..30).map(|n| (n, spills[n % 3].put(&body(n)).unwrap())).collect();
    kept.extract_if(.., |(n, _)| *n % 5 == 0).for_each(|(n, spilled)| spills[n % 3].forget(&spilled));
    for (n, spilled) in &kept {
        assert_eq!(spills[n % 3].get(spilled).unwrap(), body(*n));
    }
    assert_eq!(disk.bytes(), kept.iter().map(|(n, _)| *n as u64 * 1000).sum::<u64>());
    // What the disk refuses takes nothing.
    *disk.full.lock().unwrap() = true;
    assert!(spills[0].put(b"more").is_err());
    *disk.full.lock().unwrap() = false;
    // Fewer workers than before.
    let _again = [open(0, 2), open(1, 2)];
    assert_eq!(disk.bytes(), 0);
}
