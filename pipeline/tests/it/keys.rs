//! The secret of an installation: once it was handed out it is the same for ever, whatever happens to the machine.

use std::path::Path;

use radarflow_connectors::ledger::key::secret;
use radarflow_proto::disk::Disk;

use crate::disk::SimDisk;

const PATH: &str = "/data/secret.key";

#[test]
fn a_secret_that_was_handed_out_stays_through_every_failure() {
    let (mut refused, mut handed_out) = (0, 0);
    for seed in 0..300 {
        let mut disk = SimDisk::new(seed);
        disk.make_dir(Path::new("/data")).unwrap();
        let mut known = None;
        for turn in 0..6 {
            disk.failing(if turn < 4 { 300 } else { 0 });
            match secret(&disk, Path::new(PATH)) {
                Ok(secret) => {
                    assert_eq!(*known.get_or_insert(secret), secret, "seed {seed}");
                    handed_out += 1;
                }
                Err(_) => refused += 1,
            }
            disk = disk.crash(turn % 2 == 0);
        }
        assert!(known.is_some(), "seed {seed}: a disk that is well keeps a secret");
    }
    assert!(refused > 100 && handed_out > 600, "{refused} refused, {handed_out} handed out");
}

#[test]
fn what_is_no_secret_stays_as_it_is() {
    for other in [&b""[..], b"half of one", &[7; 33]] {
        let disk = SimDisk::holding(1, [(PATH.into(), other.to_vec())]);
        assert!(secret(&disk, Path::new(PATH)).is_err());
        assert_eq!(disk.contents()[Path::new(PATH)], other);
    }
}
