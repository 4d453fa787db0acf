//! What waits on disk.

use radarflow_dataflows::decode::spill::{SLOT, Spill, Spilled};

#[test]
fn what_is_put_is_got_and_room_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spill");
    std::fs::write(&path, "of before").unwrap();
    let mut spill = Spill::open(&path).unwrap();
    let long = |n: usize, bytes: usize| (0..bytes).map(|i| (i * 7 + n) as u8).collect::<Vec<u8>>();
    let lengths = [0, 1, SLOT - 1, SLOT, SLOT + 1, 5 * SLOT + 17];
    let mut kept: Vec<(Vec<u8>, Spilled)> = Vec::new();
    for round in 0..100 {
        let bytes = long(round, lengths[round % lengths.len()]);
        let spilled = spill.put(&bytes).unwrap();
        kept.push((bytes, spilled));
        if kept.len() > 7 {
            let (_, gone) = kept.remove(round % 7);
            spill.forget(gone);
        }
        for (bytes, spilled) in &kept {
            assert_eq!(&spill.get(spilled).unwrap()[..], &bytes[..]);
        }
    }
    let most = 8 * lengths.iter().map(|bytes| bytes.div_ceil(SLOT)).max().unwrap() * SLOT;
    assert!(std::fs::metadata(&path).unwrap().len() <= most as u64);
    kept.into_iter().for_each(|(_, spilled)| spill.forget(spilled));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}
