//! Files that facts name by what is in them. They are kept in a folder of the data directory under the hash of their bytes, on disk
//! before the fact that names them is in the ledger, and as long as it is there or in a snapshot: so replay reads the same bytes,
//! whatever became of the file that somebody configured.
//!
//! A file is read once, whichever workers need it, and is in memory as long as one does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use radarflow_proto::disk::Disk;
use radarflow_proto::flow::tables::{ADDRESS_FILES, AddressFile};
use radarflow_reconcile::flows::places::AddressBook;
use sha2::{Digest, Sha256};

/// The folder.
#[derive(Default)]
pub struct Shelf {
    folder: Option<(Arc<dyn Disk>, PathBuf)>,
    open: Mutex<BTreeMap<String, Weak<AddressBook>>>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("folder", &self.folder.as_ref().map(|(_, folder)| folder)).finish()
    }
}

impl Shelf {
    /// That of a data directory.
    pub fn of(disk: Arc<dyn Disk>, root: &std::path::Path) -> Self {
        Shelf { folder: Some((disk, root.join(ADDRESS_FILES))), open: Mutex::default() }
    }

    /// A file. Where it is not there, or not what it was, that is an error of the log, and nothing is known of it.
    pub(super) fn find(&self, file: &AddressFile) -> Option<Arc<AddressBook>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = open.get(&file.digest).and_then(Weak::upgrade) {
            return Some(book);
        }
        open.retain(|_, book| book.strong_count() > 0);
        let (disk, folder) = self.folder.as_ref()?;
        let path = folder.join(&file.digest);
        let read = disk.read_all(&path).map_err(|error| error.to_string()).and_then(|bytes| {
            let is_same = Sha256::digest(&bytes)[..] == hex::decode(&file.digest).unwrap_or_default()[..];
            if is_same { AddressBook::new(&file.name, bytes) } else { Err("it is not what it was".to_owned()) }
        });
        match read {
            Ok(book) => {
                let book = Arc::new(book);
                open.insert(file.digest.clone(), Arc::downgrade(&book));
                Some(book)
            }
            Err(error) => {
                tracing::error!(path = %path.display(), file = file.name, error, "flows are not told by it where they are");
                None
            }
        }
    }
}
