//! The lake itself, Delta and all, on a disk that loses power: what it said it has it has, once, and it can be read; it takes
//! no more at once than it may, and makes room by itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use datafusion::prelude::SessionContext;
use radarflow_connectors::sinks::lake::{Keep, Lake, OnCommit, open_table};
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::disk::Disk;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{BatchBuilder, Reject, RejectBatch, Table};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::disk::SimDisk;
use crate::faults::{Call, Rule};

const REJECTS: LakeTable = LakeTable::Events(Table::Reject);
/// Bytes that may wait, and what one commit takes of them at most.
const BOUND: usize = 64 << 10;
const COMMIT: usize = BOUND / 8;

/// So many rows an epoch.
fn rows(epoch: u64) -> u64 {
    epoch % 4
}

/// Bytes of an epoch's rows while they wait.
fn bytes(epoch: u64) -> usize {
    output(epoch).events[0].1.get_array_memory_size()
}

fn output(epoch: u64) -> Arc<EpochOutput> {
    let mut batch = RejectBatch::default();
    for n in 0..rows(epoch) {
        batch.push(&Reject {
            tenant_id: ["t", "u"][n as usize % 2].to_owned(),
            partition: "p".to_owned(),
            row_id: RowId::new(epoch, 0, n as u32),
            epoch: epoch as i64,
            time: Time::from_ms(1_704_067_200_000),
            source: "s".to_owned(),
            peer: None,
            reason: "r".to_owned(),
            bytes: vec![1, 2, 3],
            bytes_total: 3,
        });
    }
    let events = vec![(Table::Reject, batch.finish())];
    Arc::new(EpochOutput { epoch, clock_ms: 1_704_067_200_000, events, ..EpochOutput::default() })
}

async fn start(disk: &SimDisk, root: &Path) -> Lake {
    let nobody: OnCommit = Arc::new(|_, _| Box::pin(async {}));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Lake::start(&disk, root, 0, Keep::default(), BOUND, nobody)
        .await
        .unwrap_or_else(|error| panic!("the lake does not open again: {error}"))
}

/// Rows by epoch.
async fn read(root: &Path) -> BTreeMap<u64, u64> {
    let delta = open_table(root, REJECTS).await.unwrap();
    let session = SessionContext::new();
    // Sessions have a store of their own for files, which is not the simulated disk.
    let (url, store) = (delta.log_store().root_url().clone(), delta.log_store().root_object_store(None));
    session.register_object_store(&url, store);
    let table = session.read_table(radarflow_lake::files(&delta).unwrap()).unwrap();
    let batches = table.collect().await.unwrap_or_else(|error| panic!("the lake cannot be read: {error}"));
    let mut found = BTreeMap::new();
    for batch in batches {
        let epochs = batch.column_by_name("epoch").unwrap().as_primitive::<Int64Type>().clone();
        epochs.values().iter().for_each(|epoch| *found.entry(*epoch as u64).or_default() += 1);
    }
    found
}

/// The epochs of the table's commits, as they stand in its log.
fn commits(disk: &SimDisk, root: &Path) -> Vec<u64> {
    let log = root.join(REJECTS.name()).join("_delta_log");
    let files = disk.contents();
    let of_log = files.iter().filter(|(path, _)| path.parent() == Some(&log));
    let commits = of_log.filter(|(path, _)| path.extension().is_some_and(|e| e == "json"));
    let actions = commits.flat_map(|(_, bytes)| bytes.split(|byte| *byte == b'\n'));
    let actions = actions.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    actions.filter_map(|action| action["txn"]["version"].as_u64()).collect()
}

/// No commit takes more at once than it may, unless it is of one epoch.
fn are_bounded(disk: &SimDisk, root: &Path) {
    let mut before = 0;
    for epoch in commits(disk, root) {
        let taken: Vec<u64> = (before + 1..=epoch).filter(|epoch| rows(*epoch) > 0).collect();
        let bytes: usize = taken.iter().map(|epoch| bytes(*epoch)).sum();
        assert!(taken.len() <= 1 || bytes <= COMMIT, "a commit takes {bytes} bytes, of the epochs {taken:?}");
        before = epoch;
    }
}

/// Waits, as long as it may take at most.
async fn until(what: &str, right: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !right() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn run(seed: u64, root: &Path) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::new(seed);
    let mut lake = start(&disk, root).await;
    let (mut next, mut said) = (1, 0);
    for _ in 0..rng.random_range(4..10) {
        let mut well = true;
        if rng.random_bool(0.5) {
            well = false;
            if rng.random_bool(0.5) {
                disk.failing(rng.random_range(1..60));
            } else {
                let call = [Call::SyncDir, Call::Link, Call::Sync, Call::Create, Call::Append][rng.random_range(0..5)];
                let times = rng.random_bool(0.7).then(|| rng.random_range(1..4));
                disk.fault(Rule { call, under: root.join(REJECTS.name()), fails: true, takes_ms: 0, times });
            }
        }
        for _ in 0..rng.random_range(1..30) {
            lake.take(&output(next));
            next += 1;
        }
        if rng.random_bool(0.7) {
            lake.flush().await;
        }
        if rng.random_bool(0.5) {
            // It tries again, and finds out what became of a commit that failed.
            tokio::time::sleep(Duration::from_secs(rng.random_range(1..10))).await;
        }
        if well {
            until("it makes room", || !lake.is_full()).await;
        }
        said = lake.applied().get().max(said);
        if rng.random_bool(0.5) {
            // What it said may be let go by the ledger; what it did not say comes again.
            disk = disk.crash(rng.random_bool(0.7));
            lake = start(&disk, root).await;
            let found = read(root).await;
            for epoch in 1..=said {
                assert_eq!(found.get(&epoch).copied().unwrap_or(0), rows(epoch), "epoch {epoch} of {said} that it had");
            }
            // As a start does: what was applied is said again, what follows is in the ledger.
            (said.max(1)..next).for_each(|epoch| lake.take(&output(epoch)));
        }
        disk.heal();
    }
    let end = Instant::now() + Duration::from_secs(60);
    while lake.applied().get() + 1 < next {
        assert!(Instant::now() < end, "it goes on when the disk is well");
        lake.flush().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let expected: BTreeMap<u64, u64> = (1..next).map(|epoch| (epoch, rows(epoch))).filter(|(_, n)| *n > 0).collect();
    assert_eq!(read(root).await, expected, "every row once");
    are_bounded(&disk, root);
}

#[test]
fn what_the_lake_said_it_has_survives_power_failures() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let first: u64 = number("RADARFLOW_SEED").unwrap_or(0);
    let seeds: u64 = number("RADARFLOW_LAKE_SEEDS").unwrap_or(8);
    // Delta looks whether the folders of its tables are there; their files are on the simulated disk.
    let root = tempfile::tempdir().unwrap();
    LakeTable::all().for_each(|table| std::fs::create_dir(root.path().join(table.name())).unwrap());
    for seed in first..first + seeds {
        eprintln!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(seed, root.path()));
    }
}
