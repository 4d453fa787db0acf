//! Released runs are read in fair shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_dataflows::decode::runs::{Runs, Staging, Submitter, UNFINISHED_MS};
use radarflow_dataflows::keyed::{Context, Restored, StateEntry};
use radarflow_proto::rows::Reject;

use crate::harness::{self, Run, sync};
use crate::spill::MemoryDisk;

fn staged(runs: &mut Runs, tenant: &str, name: &str, chunks: u32, size: usize) {
    let submitter = Submitter { tenant: tenant.to_owned(), ..Submitter::default() };
    for n in 0..chunks {
        runs.stage(name.to_owned(), submitter.clone(), n, (1, n), vec![0; size].into(), 0);
    }
}

#[test]
fn tenants_are_read_alike_and_a_large_chunk_passes() {
    let mut runs = Runs::default();
    staged(&mut runs, "big", "b", 100, 1000);
    staged(&mut runs, "small", "s", 3, 500);
    staged(&mut runs, "never", "n", 3, 500);
    runs.release("b".to_owned(), (2, 0), None);
    runs.release("s".to_owned(), (2, 1), None);
    let due = runs.take(3, 4000);
    let of = |tenant: &str| due.iter().filter(|d| d.submitter.tenant == tenant).count();
    assert_eq!((of("small"), of("never")), (3, 0));
    assert!(of("big") >= 1);
    assert_eq!(runs.take(4, 1).len(), 1, "a chunk larger than any budget");
    while runs.waiting() {
        assert!(!runs.take(5, 10_000).is_empty());
    }
    assert_eq!(runs.bytes(), 1500);
    assert!(runs.expire(UNFINISHED_MS - 1).is_empty());
    assert_eq!(runs.expire(UNFINISHED_MS)[0].0, "n");
    assert_eq!(runs.bytes(), 0);
}

/// What each of several workers reads of everything that is released.
fn read(of_workers: &mut [Runs]) -> Vec<Vec<(u32, Vec<u8>)>> {
    let mut read = vec![Vec::new(); of_workers.len()];
    while of_workers[0].waiting() {
        for (runs, read) in of_workers.iter_mut().zip(&mut read) {
            let due = runs.take(9, 3000);
            read.extend(due.into_iter().filter_map(|due| Some((due.place.1, due.body?.to_vec()))));
        }
    }
    read
}

#[test]
fn what_is_too_much_for_memory_waits_on_disk_also_over_a_restart() {
    let disk = Arc::new(MemoryDisk::default());
    let staging = Staging { memory_bytes: 20_000, root: Some((disk.clone(), "/data".into())) };
    let begin = |state: &Restored, peers: usize| {
        let of = |index| Runs::restore(&Context::new(index, peers, 0, state.clone()), &staging);
        (0..peers).map(of).collect::<Vec<_>>()
    };
    let body = |n: u32| vec![n as u8; 1000];
    let mut workers = begin(&Restored::new(), 2);
    for runs in &mut workers {
        for n in 0..100 {
            runs.stage(
                "r".to_owned(),
                Submitter { tenant: "t".to_owned(), ..Submitter::default() },
                n,
                (1, n),
                body(n).into(),
                0,
            );
        }
        assert!(runs.in_memory() <= 10_000);
        assert_eq!((runs.bytes(), runs.chunks("r")), (100_000, 100));
    }
    let on_disk = || disk.bytes();
    assert!(on_disk() >= 80_000);

    // A snapshot has each chunk once; another number of workers begins with it.
    let entries: Vec<StateEntry> = workers.iter_mut().flat_map(Runs::snapshot).collect();
    assert!(workers.iter_mut().all(|runs| runs.snapshot().is_empty()));
    let mut state = Restored::new();
    for entry in entries {
        let value = entry.value.map(|value| (entry.key, value));
        state.entry(entry.collection.to_owned()).or_default().extend(value);
    }
    assert_eq!(state["runs_chunk"].len(), 100);
    for peers in [1, 3] {
        let mut workers = begin(&state, peers);
        workers.iter_mut().for_each(|runs| runs.release("r".to_owned(), (2, 0), None));
        let all: Vec<(u32, Vec<u8>)> = read(&mut workers).into_iter().flatten().collect();
        let by_number: BTreeMap<u32, Vec<u8>> = all.iter().cloned().collect();
        assert_eq!((all.len(), by_number), (100, (0..100).map(|n| (n, body(n))).collect()));
        assert!(workers.iter().all(|runs| runs.bytes() == 0 && runs.in_memory() == 0) && on_disk() == 0);
        // What was read is gone from the next snapshot.
        let gone = workers.iter_mut().flat_map(Runs::snapshot);
        assert_eq!(gone.filter(|entry| entry.value.is_none() && entry.collection == "runs_chunk").count(), 100);
    }
    let mut workers = begin(&state, 2);
    workers.iter_mut().for_each(|runs| drop(runs.discard("r")));
    assert!(workers.iter().all(|runs| runs.bytes() == 0 && runs.in_memory() == 0) && on_disk() == 0);
}

#[test]
fn who_is_read_first_among_equals_is_the_same_in_every_build() {
    let first = (1..9).map(|epoch| {
        let mut runs = Runs::default();
        for (n, tenant) in ["a", "b", "c", "d"].into_iter().enumerate() {
            staged(&mut runs, tenant, tenant, 1, 100);
            runs.release(tenant.to_owned(), (2, n as u32), None);
        }
        runs.take(epoch, 1).remove(0).submitter.tenant
    });
    assert_eq!(first.collect::<String>(), "abbbcadc");
}

#[test]
fn rejects_have_the_same_names_on_any_number_of_workers() {
    let named = [1, 2, 3].map(|workers| {
        let mut run = Run::new(workers);
        run.tick(vec![harness::staged("r", 0, "t", &[]), harness::staged("s", 0, "t", &[])]);
        let bad = || sync(&["{}".to_owned(), "7".to_owned()]);
        run.tick_after(UNFINISHED_MS, vec![bad(), bad(), bad(), bad()]);
        let mut named: Vec<_> = run.rows::<Reject>().into_iter().map(|row| (row.row_id, row.reason)).collect();
        named.sort();
        assert_eq!(named.len(), 10);
        assert!(named.windows(2).all(|w| w[0].0 != w[1].0), "{named:?}");
        named
    });
    assert_eq!(named[0], named[1]);
    assert_eq!(named[0], named[2]);
}

/// A NetBox item whose time nobody moves, as a run tells it.
fn told(run: &str, id: usize, hostname: &str) -> String {
    let item = harness::netbox(&id.to_string(), &format!("10.0.0.{}", id + 1), 5, "");
    let (head, tail) = item.split_at(1);
    format!(r#"{head}"hostname":"{hostname}","sync_meta":{{"sync_run_id":"{run}"}},{tail}"#)
}

#[test]
fn under_one_time_the_later_run_counts_and_within_a_run_the_hash() {
    const ITEMS: usize = 20;
    let names = |run: &Run| {
        let mut names: Vec<String> = run.tables.devices().into_iter().filter_map(|d| d.hostname.clone()).collect();
        names.sort();
        names.dedup();
        names
    };
    let said = |run: &str, hostname: &str| -> Vec<String> { (0..ITEMS).map(|id| told(run, id, hostname)).collect() };
    let mut run = Run::new(2);
    run.tick(vec![sync(&said("one", "old"))]);
    run.tick(vec![sync(&said("two", "new"))]);
    assert_eq!(names(&run), ["new"], "of all {ITEMS}, whatever their hashes");
    run.tick(vec![sync(&said("one", "old"))]);
    assert_eq!(names(&run), ["new"], "a run that is delivered again is no later one");
    run.tick(vec![sync(&said("three", "old"))]);
    assert_eq!(names(&run), ["old"], "what it said first may be said again");
    // Within a run no order is known: the same in any.
    let both = |first: &str, second: &str| {
        let mut run = Run::new(1);
        run.tick(vec![sync(&[told("one", 0, first), told("one", 0, second)])]);
        names(&run)
    };
    assert_eq!(both("a", "b"), both("b", "a"));
}
