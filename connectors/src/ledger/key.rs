//! The secret of an installation: made at its first start, kept in its data directory for its owner alone. What is hashed
//! or signed with it (communities, cursors) has to be known again after a power failure, so it is never another once it was
//! handed out, and never half of one.

use std::io;
use std::path::Path;

use radarflow_proto::disk::Disk;

use super::LedgerError;

/// The secret that a file keeps; it is made where there is none.
///
/// # Errors
/// The file holds something else, or the disk refuses. Then nothing is made.
pub fn secret(disk: &dyn Disk, path: &Path) -> Result<[u8; 32], LedgerError> {
    let failed = LedgerError::io(path);
    match disk.read_all(path) {
        Ok(bytes) => {
            let other = || io::Error::new(io::ErrorKind::InvalidData, "it is not a secret of this program");
            let known = <[u8; 32]>::try_from(&bytes[..]).map_err(|_| other());
            // Whoever made it may not have come to this: its name could go with the power.
            let is_there = |secret| path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir)).map(|()| secret);
            known.and_then(is_there).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret: [u8; 32] = rand::random();
            disk.keep_secret(path, &secret).map_err(failed)?;
            Ok(secret)
        }
        Err(error) => Err(failed(error)),
    }
}
