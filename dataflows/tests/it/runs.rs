//! Released runs are read in fair shares.

use radarflow_dataflows::decode::runs::{Owner, Runs, UNFINISHED_MS};

fn staged(runs: &mut Runs, tenant: &str, name: &str, chunks: u32, size: usize) {
    let owner = Owner { tenant: tenant.to_owned(), ..Owner::default() };
    for n in 0..chunks {
        runs.stage(name.to_owned(), owner.clone(), n, (1, n), vec![0; size].into(), 0);
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
    let of = |tenant: &str| due.iter().filter(|d| d.owner.tenant == tenant).count();
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
