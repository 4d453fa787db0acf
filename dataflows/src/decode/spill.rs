//! Bytes that wait on disk, a file each. It is a cache that a snapshot and the ledger can fill again: its files are removed
//! when it is opened, and nothing of it is synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use radarflow_proto::disk::Disk;

/// What a worker has in a folder.
pub struct Spill {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    worker: u64,
    next: u64,
}

/// What was put there: the number of its file.
#[derive(Debug, PartialEq, Eq)]
pub struct Spilled(u64);

impl Spill {
    /// A worker's part of a folder, which is made if it is missing. What workers left there, as many as there were, is
    /// removed by those that there are now.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, worker: usize, workers: usize) -> io::Result<Spill> {
        let (worker, workers) = (worker as u64, workers.max(1) as u64);
        disk.make_dir(folder)?;
        let left_by = |path: &Path| path.file_name()?.to_str()?.split_once('-')?.0.parse::<u64>().ok();
        for found in disk.list(folder)? {
            if left_by(&found.path).is_some_and(|by| by % workers == worker) {
                disk.remove(&found.path)?;
            }
        }
        Ok(Spill { disk, folder: folder.to_owned(), worker, next: 0 })
    }

    fn path(&self, file: u64) -> PathBuf {
        self.folder.join(format!("{}-{file}", self.worker))
    }

    /// Puts bytes there.
    ///
    /// # Errors
    /// What the disk says; nothing is taken then.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<Spilled> {
        let spilled = Spilled(self.next);
        self.next += 1;
        let put = self.disk.create(&self.path(spilled.0)).and_then(|mut file| file.append(bytes));
        match put {
            Ok(()) => Ok(spilled),
            Err(error) => {
                self.forget(&spilled);
                Err(error)
            }
        }
    }

    /// What was put there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn get(&self, spilled: &Spilled) -> io::Result<Bytes> {
        self.disk.read_all(&self.path(spilled.0))
    }

    /// It is not wanted any more.
    pub fn forget(&mut self, spilled: &Spilled) {
        // What cannot be removed is removed when it is opened the next time.
        let _ = self.disk.remove(&self.path(spilled.0));
    }
}
