//! Snapshots that are merged, damaged, of older schemas.

use super::run::WINDOW;
use super::*;
use crate::disk::os;

fn open(dir: &Path, generation: u64) -> Snapshots {
    Snapshots::open(os(), dir, generation, BTreeMap::from([("c".to_owned(), 2)])).unwrap()
}

fn changed(key: u8, value: Option<u8>) -> Changed {
    BTreeMap::from([(("c".to_owned(), vec![key]), value.map(|v| vec![v]))])
}

fn held(snapshots: &Snapshots, manifest: &Manifest) -> BTreeMap<Vec<u8>, Vec<u8>> {
    snapshots.load(manifest).unwrap().remove("c").unwrap_or_default().into_iter().collect()
}

#[test]
fn the_newest_value_counts_and_merging_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshots = open(dir.path(), 7);
    let mut last = None;
    let mut expected = BTreeMap::new();
    for epoch in 1..=25u64 {
        let (key, value) = ((epoch % 5) as u8, (epoch % 3 > 0).then_some(epoch as u8));
        match value {
            Some(v) => expected.insert(vec![key], vec![v]),
            None => expected.remove(&vec![key]),
        };
        last = Some(snapshots.publish(epoch, 0, 0, &changed(key, value)).unwrap());
        assert_eq!(held(&snapshots, last.as_ref().unwrap()), expected, "epoch {epoch}");
    }
    assert!(last.unwrap().runs.len() <= MAX_RUNS);
    assert_eq!(snapshots.retire(0).unwrap(), None);
    assert_eq!(snapshots.retire(20).unwrap(), Some(20));
    let mut again = open(dir.path(), 7);
    let usable = again.usable().next().unwrap().clone();
    assert_eq!((usable.epoch, again.newest().unwrap().epoch), (20, 25));
    again.load(&usable).unwrap();
    again.rewind(20).unwrap();
    assert_eq!(open(dir.path(), 7).newest().unwrap().epoch, 20);
    assert!(open(dir.path(), 8).usable().next().is_none());
}

#[test]
fn the_usable_one_before_is_kept_and_what_is_older_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshots = open(dir.path(), 7);
    for epoch in [10, 20, 30, 40] {
        snapshots.publish(epoch, 0, 0, &changed(1, Some(epoch as u8))).unwrap();
        snapshots.retire(if epoch == 40 { 35 } else { epoch }).unwrap();
    }
    let epochs: Vec<u64> = open(dir.path(), 7).usable().map(|m| m.epoch).collect();
    assert_eq!(epochs, [30, 20], "and 40 is not usable yet");
    assert_eq!(snapshots.retire(40).unwrap(), Some(30));
}

#[test]
fn every_flipped_bit_of_a_run_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshots = open(dir.path(), 7);
    let manifest = snapshots.publish(1, 0, 0, &changed(1, Some(1))).unwrap();
    let path = dir.path().join(&manifest.runs[0]);
    let bytes = std::fs::read(&path).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bad).unwrap();
        assert!(snapshots.load(&manifest).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(snapshots.load(&manifest).is_err(), "length {len}");
    }
}

#[test]
fn large_values_are_read_and_merged_over_the_edges_of_windows() {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshots = open(dir.path(), 7);
    let value = |n: usize| vec![n as u8; n * 300_001 % (3 * WINDOW)];
    let mut last = None;
    for epoch in 1..=MAX_RUNS as u64 + 1 {
        let changed = (0..4).map(|key| (("c".to_owned(), vec![key]), Some(value(epoch as usize + key as usize))));
        last = Some(snapshots.publish(epoch, 0, 0, &changed.collect()).unwrap());
    }
    let last = last.unwrap();
    assert_eq!(last.runs.len(), 1);
    let expected = (0..4u8).map(|key| (vec![key], value(MAX_RUNS + 1 + key as usize))).collect();
    assert_eq!(held(&snapshots, &last), expected);
}

#[test]
fn a_log_that_is_gone_goes_on_after_the_newest_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let open = || crate::ledger::open(&os(), dir.path(), &BTreeMap::new()).unwrap();
    let mut opened = open();
    let generation = opened.segments.generation();
    opened.snapshots.publish(7, 5, 0, &changed(1, Some(1))).unwrap();
    opened.snapshots.retire(7).unwrap();
    std::fs::remove_dir_all(dir.path().join(crate::ledger::LOG)).unwrap();
    let opened = open();
    assert_eq!((opened.segments.generation(), opened.segments.next_epoch()), (generation, 8));
    assert_eq!(opened.start.unwrap().1["c"], [(vec![1], vec![1])]);
}

#[test]
fn state_of_an_older_schema_is_known_by_its_manifest_and_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let old = BTreeMap::from([("c".to_owned(), 1)]);
    let mut before = Snapshots::open(os(), dir.path(), 7, old).unwrap();
    before.publish(1, 5, 6, &changed(1, Some(1))).unwrap();
    before.publish(2, 5, 6, &changed(2, Some(2))).unwrap();
    before.retire(2).unwrap();
    let mut snapshots = open(dir.path(), 7);
    let manifest = snapshots.usable().next().unwrap().clone();
    assert!(!snapshots.is_current(&manifest) && manifest.collections["c"] == 1);
    let converted = State::from([("c".to_owned(), vec![(vec![9], vec![9])])]);
    snapshots.rebase(&manifest, &converted).unwrap();
    let again = open(dir.path(), 7);
    let manifest = again.usable().next().unwrap();
    assert!(again.is_current(manifest) && (manifest.epoch, manifest.clock_ms, manifest.gap_ms) == (2, 5, 6));
    assert_eq!(again.load(manifest).unwrap(), converted);
}
