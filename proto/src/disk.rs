//! The disk as the parts see it: one small trait, handed in.
//!
//! Whatever must survive a crash (ledger, snapshots, lake) reaches the disk through [`Disk`]. The program hands in the
//! operating system's; the simulator hands in one in memory that loses what was not synced, tears writes, runs full and
//! fails. What a caller may rely on is what POSIX and the usual file systems promise, and no more:
//!
//! - what was appended survives a power failure only after [`Appender::sync`];
//! - that a file exists under a name (made, renamed, linked, removed) survives only after [`Disk::sync_dir`] of its folder;
//! - [`Disk::rename`] and [`Disk::link`] are atomic: the name leads to the old file or to the new one, never to a part;
//! - after an append or a sync that failed, what the file has behind its last synced length is unknown.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// A file or folder that [`Disk::list`] found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its whole path.
    pub path: PathBuf,
    /// What is known of it.
    pub stat: Stat,
}

/// What a disk knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stat {
    /// Bytes; of a folder nothing is promised.
    pub len: u64,
    /// When it was last written, milliseconds since 1970.
    pub modified_ms: i64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Where durable things are.
///
/// # Errors
/// Every call fails with what the disk says: no room, no permission, an error of the device. A missing file is
/// [`io::ErrorKind::NotFound`].
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file, in place of one that is there, and opens it for appending.
    ///
    /// # Errors
    /// Where the folder is missing, or the disk refuses.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>>;

    /// The same for a file that nobody but its owner may read, where the disk tells them apart.
    ///
    /// # Errors
    /// As for [`Disk::create`].
    fn create_private(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        self.create(path)
    }

    /// Opens a file that is there for appending.
    ///
    /// # Errors
    /// Where there is no such file, or the disk refuses.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Appender>>;

    /// Reads at most `len` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// Where there is no such file, or the disk cannot read it.
    fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes>;

    /// What is known of a file or folder.
    ///
    /// # Errors
    /// Where there is nothing at the path ([`io::ErrorKind::NotFound`]), or the disk refuses.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// What a folder holds, by name; empty where there is no such folder.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn list(&self, dir: &Path) -> io::Result<Vec<Found>>;

    /// Gives a file another name, in place of one that is there.
    ///
    /// # Errors
    /// Where there is no such file, or the disk refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, which must be free ([`io::ErrorKind::AlreadyExists`]).
    ///
    /// # Errors
    /// Where the second name is taken, there is no such file, or the disk refuses.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Where there is no such file, or the disk refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those it is in. They are there after a power failure, too.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes durable which files a folder holds.
    ///
    /// # Errors
    /// Where the disk refuses: nobody knows then what is durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that are free for us where a path is; `None` where that cannot be told.
    fn room(&self, path: &Path) -> Option<u64>;
}

/// A file that is written at its end.
pub trait Appender: Send {
    /// Writes all of it behind what is there.
    ///
    /// # Errors
    /// What the disk says. Any part of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// What the disk says. What was appended since the last sync may be lost, whatever a later sync says.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to a length.
    ///
    /// # Errors
    /// What the disk says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

impl dyn Disk {
    /// The whole of a file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_all(&self, path: &Path) -> io::Result<Bytes> {
        let len = self.stat(path)?.len;
        self.read(path, 0, usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Whether something of that name is there.
    pub fn exists(&self, path: &Path) -> bool {
        self.stat(path).is_ok()
    }

    /// Writes a file whole or not at all: under another name first, synced, then renamed into place, and the folder synced.
    ///
    /// # Errors
    /// What the disk says. The file is as it was, or as it was to be.
    pub fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = unfinished(path);
        let mut file = self.create(&unfinished)?;
        file.append(bytes)?;
        file.sync()?;
        self.put_in_place(&unfinished, path)
    }

    /// The same of a file that nobody but its owner may read.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep_secret(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = unfinished(path);
        let mut file = self.create_private(&unfinished)?;
        file.append(bytes)?;
        file.sync()?;
        self.put_in_place(&unfinished, path)
    }

    /// Renames a finished, synced file into place and makes that durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn put_in_place(&self, unfinished: &Path, path: &Path) -> io::Result<()> {
        self.rename(unfinished, path)?;
        match path.parent() {
            Some(dir) => self.sync_dir(dir),
            None => Ok(()),
        }
    }
}

/// The name of a file while it is written.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    path.with_file_name(name)
}
