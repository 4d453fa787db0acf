//! One table on a folder of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use radarflow_proto::cell::RowId;
use radarflow_proto::cell::Time;
use radarflow_proto::rows::Table;
use radarflow_proto::rows::{BatchBuilder, Reject, RejectBatch};

use super::*;

fn rows() -> RecordBatch {
    let mut batch = RejectBatch::default();
    batch.push(&reject());
    batch.finish()
}

fn reject() -> Reject {
    Reject {
        tenant_id: "t".into(),
        partition: "p".into(),
        row_id: RowId::new(5, 0, 0),
        epoch: 5,
        time: Time(1),
        source: "s".into(),
        peer: None,
        reason: "r".into(),
        bytes: vec![1],
        bytes_total: 1,
    }
}

async fn open(root: &Path, keep: Keep) -> Writer {
    Writer::open(&crate::disk::os(), root, LakeTable::Events(Table::Reject), keep).await.unwrap()
}

/// Files of rows, whether a version has them or not.
fn files(root: &Path) -> usize {
    let below = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|f| f.path());
    let days = below(root.join("rejects")).flat_map(below).flat_map(below);
    days.filter(|f| f.extension().is_some_and(|e| e == "parquet")).count()
}

#[tokio::test]
async fn what_is_past_its_retention_goes_and_its_files_after_it() {
    let root = tempfile::tempdir().unwrap();
    let keep = Keep { events: Some(Duration::from_secs(30 * 86_400)), files: Duration::ZERO, ..Keep::default() };
    let mut writer = open(root.path(), keep).await;
    let now_us = |days: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
        now - days * 86_400_000_000
    };
    for (epoch, days) in [(5, 31), (6, 29), (7, 0)] {
        let mut batch = RejectBatch::default();
        batch.push(&Reject { row_id: RowId::new(epoch, 0, 0), time: Time(now_us(days)), ..reject() });
        writer.take(epoch, batch.finish());
        writer.commit().await.unwrap();
    }
    assert_eq!(files(root.path()), 3);
    assert!(!writer.upkeep.is_due(), "a start is not slowed down");
    let now_ms = now_us(0) / 1000;
    writer.upkeep.keep().run(writer.table, writer.delta.clone(), now_ms, None).await.unwrap();
    writer.settle().await.unwrap();
    assert_eq!((files(root.path()), writer.delta.get_file_uris().unwrap().count()), (2, 2));
    // It goes on, and knows after a restart what it has.
    writer.take(8, rows());
    writer.commit().await.unwrap();
    let again = open(root.path(), keep).await;
    assert_eq!((again.committed, again.delta.get_file_uris().unwrap().count()), (8, 3));
}

/// A batch of one epoch: rows of texts of a size, the latest first.
pub(super) fn large(epoch: u64, rows: u32, bytes: usize) -> RecordBatch {
    let mut batch = RejectBatch::default();
    for n in 0..rows {
        let (row_id, time) = (RowId::new(epoch, 0, n), Time(1_000_000 - i64::from(n)));
        batch.push(&Reject { row_id, time, epoch: epoch as i64, reason: "x".repeat(bytes), ..reject() });
    }
    batch.finish()
}

#[tokio::test]
async fn what_has_piled_up_goes_in_commits_and_files_of_bounded_size_and_epochs_stay_whole() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(root.path(), Keep::default()).await;
    writer.most = 64 << 10;
    // Two epochs of a few batches, one much larger than a commit, and two more.
    for epoch in 1..=2 {
        for _ in 0..3 {
            writer.take(epoch, large(epoch, 10, 1000));
        }
    }
    writer.take(3, large(3, 10, 100));
    writer.take(3, large(3, 400, 1000));
    writer.take(3, large(3, 1, 200_000));
    for epoch in 4..=5 {
        writer.take(epoch, large(epoch, 10, 100));
    }
    assert!(writer.is_due());
    let mut commits = Vec::new();
    while !writer.pending.is_empty() {
        let before = files(root.path());
        writer.commit().await.unwrap();
        // A crash after any commit leaves whole epochs.
        let again = open(root.path(), Keep::default()).await;
        assert_eq!(again.committed, writer.committed);
        commits.push((writer.committed, files(root.path()) - before));
    }
    let (epochs, files): (Vec<u64>, Vec<usize>) = commits.iter().copied().unzip();
    assert!(epochs == [1, 2, 3, 5] || epochs == [2, 3, 5], "{commits:?}");
    let of = |epoch| files[epochs.iter().position(|e| *e == epoch).unwrap()];
    assert!(of(3) >= 400 * 1000 / (64 << 10) && of(5) == 1, "{commits:?}");
    let (rows, ids): (usize, usize) = {
        let context = datafusion::prelude::SessionContext::new();
        let table = radarflow_lake::files(&writer.delta).unwrap();
        let table = context.read_table(table).unwrap();
        let ids = table.clone().select_columns(&["row_id"]).unwrap().distinct().unwrap();
        (table.count().await.unwrap(), ids.count().await.unwrap())
    };
    assert_eq!(rows, 2 * 30 + 411 + 20);
    assert_eq!(ids, 2 * 10 + 400 + 20);
    assert_eq!((writer.bytes, writer.first_epoch), (0, None));
}

#[tokio::test]
async fn a_commit_in_doubt_is_settled_by_the_table_and_a_replay_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let mut made = open(root.path(), Keep::default()).await;
    let mut doubtful = open(root.path(), Keep::default()).await;
    for writer in [&mut made, &mut doubtful] {
        writer.take(5, rows());
    }
    doubtful.settle().await.unwrap();
    assert_eq!(doubtful.pending.len(), 1, "it was not made: it waits on");
    made.commit().await.unwrap();
    doubtful.settle().await.unwrap();
    assert_eq!((doubtful.pending.len(), doubtful.committed), (0, 5), "it was made: it is not made again");
    let mut again = open(root.path(), Keep::default()).await;
    again.take(5, rows());
    assert!(again.pending.is_empty());
}
