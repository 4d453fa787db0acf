//! Logs that are torn, damaged, newer, trimmed.

use std::fs;

use bytes::Bytes;

use super::*;
use crate::disk::os;
use radarflow_proto::frame::{Entry, Kind, Origin, Slice};

fn frame(log: &Segments, body: &[u8]) -> Frame {
    let origin = Origin { kind: Kind::Syslog, tenant: "t".into(), partition: "p".into(), feed: "f".into() };
    let entry = Entry { peer: None, received_us: 1, body: Bytes::copy_from_slice(body) };
    Frame {
        generation: log.generation(),
        epoch: log.next_epoch(),
        clock_ms: 5,
        gap_ms: 0,
        release_bytes: 1 << 20,
        ranges: vec![],
        slices: vec![Slice { origin, first_position: 0, entries: vec![entry] }],
    }
}

fn filled(dir: &Path, n: usize) -> PathBuf {
    let mut log = Segments::open(os(), dir, 0).unwrap();
    for i in 0..n {
        let frame = frame(&log, format!("message {i}").as_bytes());
        log.append(&frame).unwrap();
    }
    log.segments.last().unwrap().path.clone()
}

fn epochs(log: &Segments) -> Vec<u64> {
    let mut out = Vec::new();
    log.replay(0, |f| out.push(f.epoch)).unwrap();
    out
}

#[test]
fn a_torn_tail_is_cut_at_every_length() {
    let whole = tempfile::tempdir().unwrap();
    let path = filled(whole.path(), 3);
    let bytes = fs::read(&path).unwrap();
    let frame_bytes = (bytes.len() - HEADER) / 3;
    for cut in 0..frame_bytes {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join(path.file_name().unwrap());
        fs::write(&copy, &bytes[..bytes.len() - 1 - cut]).unwrap();
        let log = Segments::open(os(), dir.path(), 0).unwrap();
        assert_eq!(epochs(&log), [1, 2], "cut {cut}");
        assert_eq!(log.next_epoch(), 3);
    }
}

#[test]
fn damage_in_the_middle_refuses_and_costs_the_frames_it_is_in() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("ledger");
    let path = filled(&dir, 4);
    let mut bytes = fs::read(&path).unwrap();
    let frame_bytes = (bytes.len() - HEADER) / 4;
    let at = HEADER + frame_bytes + frame_bytes / 2;
    bytes[at] ^= 0x40;
    fs::write(&path, &bytes).unwrap();
    let error = Segments::open(os(), &dir, 0).err().unwrap().to_string();
    assert!(error.contains(&format!("offset {}", HEADER + frame_bytes)), "{error}");
    let rehearsed = Segments::repair(&*os(), &dir, None, true).unwrap().unwrap();
    assert!(rehearsed.to_string().contains("lost: the inputs of 1 epoch (2); empty ones would stand"), "{rehearsed}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");
    let done = Segments::repair(&*os(), &dir, None, false).unwrap().unwrap();
    assert_eq!(done, Repair { done: true, ..rehearsed });
    let log = Segments::open(os(), &dir, 0).unwrap();
    let mut kept = Vec::new();
    log.replay(0, |f| kept.push((f.epoch, f.clock_ms, f.slices.len()))).unwrap();
    assert_eq!(kept, [(1, 5, 1), (2, 5, 0), (3, 5, 1), (4, 5, 1)]);
    assert_eq!(Segments::repair(&*os(), &dir, None, false).unwrap(), None);
    assert_eq!(fs::read(root.path().join("damaged-0").join(path.file_name().unwrap())).unwrap(), bytes);
}

#[test]
fn whatever_is_damaged_the_log_opens_after_a_repair_and_no_epoch_is_used_again() {
    const FRAMES: usize = 12;
    for seed in 0..200u64 {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ledger");
        let mut log = Segments::open(os(), &dir, 0).unwrap().closing_at(200);
        for i in 0..FRAMES {
            let frame = frame(&log, format!("message {i}").as_bytes());
            log.append(&frame).unwrap();
        }
        drop(log);
        let files = segment_files(&*os(), &dir).unwrap();
        assert!(files.len() > 3);
        // Bits, whole files, and what a snapshot covers, by the seed.
        let (file, nth) = (&files[seed as usize % files.len()], (seed / 7) as usize);
        if seed % 5 == 4 {
            fs::remove_file(file).unwrap();
        } else {
            let mut bytes = fs::read(file).unwrap();
            for step in 0..=seed % 3 {
                let at = (nth * 31 + step as usize * 97) % bytes.len();
                bytes[at] ^= 1 << (seed % 8);
            }
            fs::write(file, bytes).unwrap();
        }
        let covered = (seed % 4 > 0).then_some(seed % 13);
        let rehearsed = Segments::repair(&*os(), &dir, covered, true).unwrap();
        let done = Segments::repair(&*os(), &dir, covered, false).unwrap();
        let Some(done) = done else {
            assert_eq!(rehearsed, None);
            continue;
        };
        assert_eq!(done, Repair { done: true, ..rehearsed.unwrap() });
        let at = covered.unwrap_or(0);
        let mut log = Segments::open(os(), &dir, at).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{done}"));
        log.go_on_after(at, 5).unwrap();
        let lost = |epoch: u64| done.lost.iter().any(|range| range.contains(&epoch));
        let mut kept = Vec::new();
        log.replay(at.max(log.first_epoch() - 1), |f| kept.push((f.epoch, f.slices.is_empty()))).unwrap();
        for (epoch, empty) in &kept {
            assert_eq!(*empty, lost(*epoch), "seed {seed}, epoch {epoch}: {done}");
        }
        let said = done.to_string();
        match done.end {
            Some(end) => {
                assert_eq!((log.next_epoch(), said.contains("nothing is lost")), (end.max(at) + 1, false), "{said}");
            }
            None if at < FRAMES as u64 => assert_eq!(log.next_epoch(), FRAMES as u64 + 1, "seed {seed}: {done}"),
            None => {}
        }
        let next = frame(&log, b"more");
        log.append(&next).unwrap();
        assert_eq!(Segments::open(os(), &dir, at).unwrap().next_epoch(), log.next_epoch());
    }
}

#[test]
fn epochs_that_somebody_has_already_are_not_used_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("ledger");
    let mut log = Segments::open(os(), &dir, 0).unwrap().closing_at(2000);
    for body in [b"one", b"two"] {
        let frame = frame(&log, body);
        log.append(&frame).unwrap();
    }
    assert_eq!(log.reserve(2).unwrap(), 0);
    assert_eq!(log.reserve(25_000).unwrap(), 24_998);
    assert_eq!(log.next_epoch(), 25_001);
    let next = frame(&log, b"three");
    log.append(&next).unwrap();
    let log = Segments::open(os(), &dir, 0).unwrap();
    let mut bodies = Vec::new();
    log.replay(0, |frame| bodies.extend((!frame.slices.is_empty()).then_some(frame.epoch))).unwrap();
    assert_eq!((bodies, log.next_epoch()), (vec![1, 2, 25_001], 25_002));
    let mut log = log;
    assert!(matches!(log.reserve(25_001 + MAX_RESERVED + 1), Err(LedgerError::Behind { ends: 25_001, .. })));
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&9u32.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[..28]).to_be_bytes();
    bytes[28..32].copy_from_slice(&crc);
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Segments::open(os(), dir.path(), 0), Err(LedgerError::Newer { found: 9, .. })));
}

#[test]
fn segments_roll_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Segments::open(os(), dir.path(), 0).unwrap();
    let body = vec![0u8; 20 << 20];
    for _ in 0..9 {
        let frame = frame(&log, &body);
        log.append(&frame).unwrap();
    }
    assert!(log.segments.len() >= 2);
    log.trim(5).unwrap();
    assert_eq!((log.first_epoch(), log.next_epoch()), (5, 10));
    let log = Segments::open(os(), dir.path(), 0).unwrap();
    let mut got = Vec::new();
    log.replay(6, |f| got.push(f.epoch)).unwrap();
    assert_eq!(got, [7, 8, 9]);
    assert!(matches!(log.replay(2, |_| ()), Err(LedgerError::Missing { .. })));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let held = super::super::DataDir::take(dir.path()).unwrap();
    assert!(matches!(super::super::DataDir::take(dir.path()), Err(LedgerError::Locked(_))));
    drop(held);
    assert!(super::super::DataDir::take(dir.path()).is_ok());
}

#[test]
fn damage_before_a_snapshot_costs_nothing() {
    for damaged in 0..3 {
        for after in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("ledger");
            let path = filled(&dir, 6);
            let mut bytes = fs::read(&path).unwrap();
            let frame_bytes = (bytes.len() - HEADER) / 6;
            bytes[HEADER + frame_bytes * damaged + frame_bytes / 2] ^= 0x40;
            fs::write(&path, &bytes).unwrap();
            let covered = if after { 3 } else { 6 };
            assert!(Segments::repair(&*os(), &dir, Some(covered), false).unwrap().is_some());
            let mut log = Segments::open(os(), &dir, covered).unwrap();
            log.go_on_after(covered, 7).unwrap();
            let mut kept = Vec::new();
            log.replay(covered, |f| kept.push(f.epoch)).unwrap();
            assert_eq!((kept, log.next_epoch()), (if after { vec![4, 5, 6] } else { vec![] }, 7));
            let next = frame(&log, b"more");
            log.append(&next).unwrap();
            assert_eq!(Segments::open(os(), &dir, 0).unwrap().next_epoch(), 8);
        }
    }
}

#[test]
fn a_frame_that_quotes_frames_is_torn_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Segments::open(os(), dir.path(), 0).unwrap();
    // What a stranger may send: frames of another ledger, and of this one's past, if they could know them.
    let mut quoted = Vec::new();
    let mut of_another = frame(&log, b"x");
    of_another.generation ^= 1;
    of_another.encode(&mut quoted);
    frame(&log, b"of the past").encode(&mut quoted);
    for body in [b"first".as_slice(), &quoted] {
        let frame = frame(&log, body);
        log.append(&frame).unwrap();
    }
    let path = log.segments[0].path.clone();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(Segments::open(os(), dir.path(), 0).unwrap().next_epoch(), 2);
}

#[test]
fn a_large_torn_frame_is_looked_behind_in_one_reading() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Segments::open(os(), dir.path(), 0).unwrap();
    // Every four bytes of it are a plausible length.
    let body: Vec<u8> = (0..2u32 << 20).flat_map(|n| (n % 4096).to_le_bytes()).collect();
    let torn = frame(&log, &body);
    log.append(&torn).unwrap();
    let path = log.segments[0].path.clone();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let expected = Expected { generation: log.generation(), epoch: 1, last: true };
    assert_eq!(intact_behind(&Bytes::from(bytes), HEADER, &expected), None);
    assert_eq!(Segments::open(os(), dir.path(), 0).unwrap().next_epoch(), 1);
}
