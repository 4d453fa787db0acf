//! A run: sorted entries in one file, written and read a window at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use radarflow_proto::disk::{Appender, Disk, unfinished};
use radarflow_proto::wire::{put_sized, put_varint};

use super::StateKey;
use crate::ledger::LedgerError;

const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"RFLYSNAP";
/// Bytes of a run that are read or written at once.
pub(super) const WINDOW: usize = 1 << 20;

/// Writes a run a window at a time, under another name until it is whole.
pub(super) struct Writer<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    file: Box<dyn Appender>,
    window: Vec<u8>,
    crc: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(disk: &'a dyn Disk, path: &Path) -> Result<Writer<'a>, LedgerError> {
        let file = disk.create(&unfinished(path)).map_err(LedgerError::io(path))?;
        let mut window = MAGIC.to_vec();
        window.extend(FORMAT.to_be_bytes());
        Ok(Writer { disk, path: path.to_owned(), file, window, crc: 0 })
    }

    pub(super) fn put(&mut self, collection: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), LedgerError> {
        put_sized(&mut self.window, collection.as_bytes());
        put_sized(&mut self.window, key);
        match value {
            Some(value) => {
                self.window.push(1);
                put_varint(&mut self.window, value.len() as u64);
                if value.len() >= WINDOW {
                    self.flush()?;
                }
                self.window.extend_from_slice(value);
            }
            None => self.window.push(0),
        }
        if self.window.len() >= WINDOW { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), LedgerError> {
        self.crc = crc32c::crc32c_append(self.crc, &self.window);
        self.file.append(&self.window).map_err(LedgerError::io(&self.path))?;
        self.window.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), LedgerError> {
        self.flush()?;
        let crc = self.crc.to_be_bytes();
        let put = self.file.append(&crc).and_then(|()| self.file.sync());
        put.and_then(|()| self.disk.put_in_place(&unfinished(&self.path), &self.path))
            .map_err(LedgerError::io(&self.path))
    }
}

/// Reads a run a window at a time. That its checksum is right is known at its end.
pub(super) struct Reader {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Where the window begins in the file, and where in it reading goes on.
    offset: u64,
    window: Bytes,
    at: usize,
    /// Where the entries end.
    end: u64,
    crc: u32,
}

impl Reader {
    pub(super) fn open(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Reader, LedgerError> {
        let stat = disk.stat(&path);
        let len = match stat {
            Ok(stat) => stat.len,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LedgerError::Snapshot { path, reason: "it is gone".to_owned() });
            }
            Err(error) => return Err(LedgerError::io(path)(error)),
        };
        let end = len.checked_sub(4).filter(|n| *n >= 12);
        let mut reader = Reader { disk, path, offset: 0, window: Bytes::new(), at: 0, end: end.unwrap_or(0), crc: 0 };
        if end.is_none() {
            return Err(reader.bad("it is cut short"));
        }
        let head = reader.take(12)?;
        if &head[..8] != MAGIC {
            return Err(reader.bad("this is no run of a snapshot"));
        }
        let format = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        if format > FORMAT {
            return Err(LedgerError::Newer { path: reader.path, found: format });
        }
        Ok(reader)
    }

    fn bad(&self, reason: &str) -> LedgerError {
        LedgerError::Snapshot { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// The next bytes; what lies before the end is read no further ahead than a window.
    fn take(&mut self, n: usize) -> Result<Bytes, LedgerError> {
        if self.at + n > self.window.len() {
            if n as u64 > self.end - self.position() {
                return Err(self.bad("an entry is cut short"));
            }
            let from = self.position();
            let len = usize::try_from(self.end - from).unwrap_or(usize::MAX).min(n.max(WINDOW));
            let window = self.disk.read(&self.path, from, len).map_err(LedgerError::io(&self.path))?;
            if window.len() < n {
                return Err(self.bad("it is cut short"));
            }
            (self.offset, self.window, self.at) = (from, window, 0);
        }
        let taken = self.window.slice(self.at..self.at + n);
        self.at += n;
        self.crc = crc32c::crc32c_append(self.crc, &taken);
        Ok(taken)
    }

    fn varint(&mut self) -> Result<usize, LedgerError> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| self.bad("a length makes no sense"));
            }
        }
        Err(self.bad("a length makes no sense"))
    }

    fn sized(&mut self) -> Result<Bytes, LedgerError> {
        let n = self.varint()?;
        self.take(n)
    }

    pub(super) fn next(&mut self) -> Result<Option<(StateKey, Option<Vec<u8>>)>, LedgerError> {
        if self.position() >= self.end {
            let stored = self.disk.read(&self.path, self.end, 4).map_err(LedgerError::io(&self.path))?;
            if stored[..] != self.crc.to_be_bytes() {
                return Err(self.bad("the checksum does not match"));
            }
            return Ok(None);
        }
        let collection = String::from_utf8_lossy(&self.sized()?).into_owned();
        let key = self.sized()?.to_vec();
        let value = match self.take(1)?[0] {
            1 => Some(self.sized()?.to_vec()),
            _ => None,
        };
        Ok(Some(((collection, key), value)))
    }
}
