//! Bytes that wait on disk: a file of slots. It is a cache that a snapshot and the ledger can fill again, so it is emptied
//! when it is opened and never synced.
//!
//! What is put there takes whole slots of [`SLOT`] bytes, wherever some are free; the file is as long as it ever had to be
//! since it was last empty.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

/// Bytes of a slot.
pub const SLOT: usize = 64 << 10;

/// A file of slots.
#[derive(Debug)]
pub struct Spill {
    file: File,
    free: Vec<u32>,
    slots: u32,
}

/// What was put there.
#[derive(Debug, PartialEq, Eq)]
pub struct Spilled {
    slots: Vec<u32>,
    bytes: usize,
}

impl Spill {
    /// An empty file at a path; what was there is gone.
    pub fn open(path: &Path) -> io::Result<Spill> {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
        Ok(Spill { file, free: Vec::new(), slots: 0 })
    }

    /// Puts bytes there. Where the disk refuses, nothing is taken.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<Spilled> {
        let mut spilled = Spilled { slots: Vec::with_capacity(bytes.len().div_ceil(SLOT)), bytes: bytes.len() };
        for part in bytes.chunks(SLOT) {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots += 1;
                self.slots - 1
            });
            spilled.slots.push(slot);
            if let Err(error) = self.file.write_all_at(part, u64::from(slot) * SLOT as u64) {
                self.forget(spilled);
                return Err(error);
            }
        }
        Ok(spilled)
    }

    /// What was put there.
    pub fn get(&self, spilled: &Spilled) -> io::Result<Bytes> {
        let mut bytes = vec![0; spilled.bytes];
        for (part, slot) in bytes.chunks_mut(SLOT).zip(&spilled.slots) {
            self.file.read_exact_at(part, u64::from(*slot) * SLOT as u64)?;
        }
        Ok(bytes.into())
    }

    /// It is not wanted any more.
    pub fn forget(&mut self, spilled: Spilled) {
        self.free.extend(spilled.slots);
        if self.free.len() == self.slots as usize {
            self.free.clear();
            self.slots = 0;
            // A file that stays long is only long.
            let _ = self.file.set_len(0);
        }
    }
}
