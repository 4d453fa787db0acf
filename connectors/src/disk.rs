//! What disks have room for.

use std::path::Path;

/// Bytes that are free for us where a folder is; `None` where that cannot be told.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}
