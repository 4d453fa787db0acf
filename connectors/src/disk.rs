//! The operating system's disk.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use radarflow_proto::disk::{Appender, Disk, Found, Stat};

/// The operating system's files and folders.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

/// The operating system's disk, to hand in.
pub fn os() -> Arc<dyn Disk> {
    Arc::new(OsDisk)
}

/// Bytes that are free for us where a folder is; `None` where that cannot be told.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}

struct Open(File);

impl Appender for Open {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

fn stat(metadata: &fs::Metadata) -> Stat {
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Stat { len: metadata.len(), modified_ms: modified.as_millis() as i64, is_dir: metadata.is_dir() }
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        // Appending, not writing: after a cut the next byte goes to the new end.
        let _ = fs::remove_file(path);
        Ok(Box::new(Open(File::options().create_new(true).append(true).open(path)?)))
    }

    fn create_private(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        let _ = fs::remove_file(path);
        Ok(Box::new(Open(File::options().create_new(true).append(true).mode(0o600).open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        Ok(Box::new(Open(File::options().append(true).open(path)?)))
    }

    fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut file = File::open(path)?;
        let left = file.metadata()?.len().saturating_sub(offset);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut bytes = Vec::with_capacity(len);
        file.seek(SeekFrom::Start(offset))?;
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fs::metadata(path).map(|m| stat(&m))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            match fs::metadata(&path) {
                Ok(metadata) => found.push(Found { path, stat: stat(&metadata) }),
                // Somebody removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.sort();
        Ok(found)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.make_dir(parent)?;
        }
        match fs::create_dir(dir) {
            Ok(()) => parent.map_or(Ok(()), |parent| self.sync_dir(parent)),
            // Somebody made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn room(&self, path: &Path) -> Option<u64> {
        free_bytes(path)
    }
}
