//! Our SNMP engine: a name of its own, and how often it was started (RFC 3414 section 2.2.2), in a file of the data directory, a
//! line: the id, hex digits, and the number. A start is counted on disk before anything is said under its number, so that no
//! message of an earlier one is taken for one of now. Where the file is lost the engine is another, with keys of its own.

use std::io;
use std::path::Path;

use radarflow_proto::disk::Disk;
use radarflow_proto::snmp::usm::Engine;

use crate::ledger::LedgerError;

/// The number of the enterprise that an id begins with: that for documentation (RFC 5612), as we have none.
const ENTERPRISE: u32 = 32_473;
/// An id's format is: octets that its maker chose (RFC 3411).
const OCTETS: u8 = 5;
/// Beyond it nothing is of now any more (RFC 3414 section 2.3); then the engine is another.
const MAX_BOOTS: u32 = i32::MAX as u32;

/// The engine, one start later.
///
/// # Errors
/// The file holds something else, or the disk refuses. Then it is as it was.
pub fn start(disk: &dyn Disk, path: &Path) -> Result<Engine, LedgerError> {
    let failed = |error| LedgerError::io(path)(error);
    let known = match disk.read_all(path) {
        Ok(bytes) => {
            let other = || io::Error::new(io::ErrorKind::InvalidData, "it is not an engine of this program");
            Some(read(&bytes).ok_or_else(other).map_err(failed)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (id, boots) = known.filter(|(_, boots)| *boots < MAX_BOOTS - 1).unwrap_or_else(|| (make(), 0));
    let boots = boots + 1;
    disk.write_durably(path, format!("{} {boots}\n", hex::encode(&id)).as_bytes()).map_err(failed)?;
    Ok(Engine::new(id, boots, rand::random()))
}

fn read(bytes: &[u8]) -> Option<(Vec<u8>, u32)> {
    let (id, boots) = std::str::from_utf8(bytes).ok()?.trim_end().split_once(' ')?;
    let id = hex::decode(id).ok().filter(|id| (5..=32).contains(&id.len()))?;
    Some((id, boots.parse().ok()?))
}

fn make() -> Vec<u8> {
    let enterprise = (ENTERPRISE | 1 << 31).to_be_bytes();
    [&enterprise[..], &[OCTETS], &rand::random::<[u8; 8]>()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;

    #[test]
    fn starts_are_counted_and_the_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snmp-engine");
        let told = || {
            let engine = start(&*disk::os(), &path).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let (id, boots) = text.trim_end().split_once(' ').unwrap();
            assert_eq!(id, hex::encode(engine.id()));
            (id.to_owned(), boots.parse::<u32>().unwrap())
        };
        let (id, boots) = told();
        assert!(id.starts_with("80007ed905") && boots == 1);
        assert_eq!(told(), (id.clone(), 2));
        std::fs::write(&path, format!("{id} {}\n", MAX_BOOTS - 1)).unwrap();
        let (another, boots) = told();
        assert!(another != id && boots == 1);
        for broken in ["", "80", "8000 1", "80007ed90501 x"] {
            std::fs::write(&path, broken).unwrap();
            assert!(start(&*disk::os(), &path).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
        }
    }
}
