//! Files that facts name by the hash of their bytes, in a folder of the data directory (`dataflows::decode::shelf` reads them).
//!
//! A file is on disk before the fact that names it is appended. One that no fact names any more is marked with the epoch at which
//! that was so, and goes once the ledger begins after it: the oldest snapshot that is kept is no older than the ledger, so nothing
//! that a start could read names the file.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use radarflow_proto::disk::Disk;
use sha2::{Digest, Sha256};

/// Ends the names of marks.
const MARK: &str = ".until";

/// The folder.
pub struct Library {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

/// What bytes are called.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Library {
    /// A folder, which may be missing yet.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Library { disk, folder }
    }

    fn mark(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}{MARK}"))
    }

    /// Keeps bytes; says what they are called.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep(&self, bytes: &[u8]) -> io::Result<String> {
        let digest = digest(bytes);
        let path = self.folder.join(&digest);
        self.disk.make_dir(&self.folder)?;
        if self.disk.exists(&self.mark(&digest)) {
            self.disk.remove(&self.mark(&digest))?;
        }
        let is_there = self.disk.read_all(&path).is_ok_and(|there| there == bytes);
        if !is_there {
            self.disk.write_durably(&path, bytes)?;
        }
        Ok(digest)
    }

    /// Removes what nothing names any more that a start could read. These are named at `epoch` or were since the snapshot that this
    /// start began with; the ledger begins at `first_epoch`.
    ///
    /// # Errors
    /// What the disk says; what is left goes another time.
    pub fn sweep(&self, named: &BTreeSet<String>, epoch: u64, first_epoch: u64) -> io::Result<()> {
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        for path in self.disk.list(&self.folder)?.into_iter().map(|found| found.path) {
            let Some(digest) = name(&path).filter(|name| !name.ends_with(MARK)) else { continue };
            let mark = self.mark(&digest);
            let until = self.disk.read_all(&mark).ok();
            let until = until.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse::<u64>().ok());
            match until {
                Some(_) if named.contains(&digest) => self.disk.remove(&mark)?,
                Some(until) if until < first_epoch => {
                    self.disk.remove(&path)?;
                    self.disk.remove(&mark)?;
                }
                None if !named.contains(&digest) => {
                    self.disk.write_durably(&mark, format!("{epoch}\n").as_bytes())?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;

    #[test]
    fn a_file_stays_as_long_as_a_start_could_need_it() {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::new(disk::os(), dir.path().join("files"));
        let (old, new) = (library.keep(b"old").unwrap(), library.keep(b"new").unwrap());
        assert_eq!(library.keep(b"old").unwrap(), old);
        let there = |digest: &str| dir.path().join("files").join(digest).exists();
        let named = BTreeSet::from([new.clone()]);
        library.sweep(&named, 700, 1).unwrap();
        library.sweep(&named, 1300, 600).unwrap();
        library.sweep(&named, 1301, 700).unwrap();
        assert!(there(&old) && there(&new), "a snapshot of before may be read");
        // Named again, it is as if it had never been otherwise.
        assert_eq!(library.keep(b"old").unwrap(), old);
        library.sweep(&BTreeSet::from([new.clone(), old.clone()]), 1400, 701).unwrap();
        assert!(there(&old));
        library.sweep(&named, 1500, 1000).unwrap();
        library.sweep(&named, 2200, 1501).unwrap();
        assert!(!there(&old) && there(&new) && !dir.path().join("files").join(format!("{old}.until")).exists());
        // What was damaged is written again.
        std::fs::write(dir.path().join("files").join(&new), "x").unwrap();
        library.keep(b"new").unwrap();
        assert_eq!(std::fs::read(dir.path().join("files").join(&new)).unwrap(), b"new");
    }
}
