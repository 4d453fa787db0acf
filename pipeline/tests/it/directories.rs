//! Data directories as processes leave them: of released versions, of a newer one, and with all of the log to be read again.
//! `tests/directories/<version>` is what the demonstration of that version had when it ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use radarflow_connectors::clock::SystemClock;
use radarflow_connectors::disk::os;
use radarflow_connectors::ledger::intake::Bounds;
use radarflow_pipeline::consumers::{Consumer, tap};
use radarflow_pipeline::{PipelineError, Setup, open};
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{StateRow, Table};

type Tables = BTreeMap<(Table, String), StateRow>;

fn setup(root: &Path) -> Setup {
    let (disk, clock) = (os(), Arc::new(SystemClock));
    Setup { disk, clock, root: root.to_owned(), workers: 2, staged_bytes: 1 << 20, bounds: Bounds::default() }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &name) } else { std::fs::copy(&path, &name).map(|_| ()).unwrap() }
    }
}

fn released() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/directories");
    std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The files of a directory and what they hold, but for what only says where the clock stood.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = ["ledger", "snapshots"].map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let files = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Starts on a directory, and ends; the tables that it tells.
async fn tables(root: &Path) -> Tables {
    let tables = Arc::new(Mutex::new(Tables::new()));
    let told = tables.clone();
    let consumer = tap("tables", move |output| {
        let mut tables = told.lock().unwrap();
        for change in &output.changes {
            let key = (change.table, change.key.to_string());
            match &change.after {
                Some(row) => tables.insert(key, row.clone().at(0)),
                None => tables.remove(&key),
            };
        }
    });
    let pipeline = open(setup(root)).unwrap().start(vec![consumer]).await.unwrap();
    pipeline.stop().await.unwrap();
    std::mem::take(&mut *tables.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_released_version_left_is_read_and_converted_once() {
    assert!(!released().is_empty());
    for directory in released() {
        let root = tempfile::tempdir().unwrap();
        copy(&directory, root.path());
        let first = tables(root.path()).await;
        let of = |wanted: Table| first.keys().filter(|(table, _)| *table == wanted).count();
        assert_eq!(of(Table::Device), 8, "{directory:?}");
        // Feeds and senders of two tenants, a condition that began with a trap, facts, owners of addresses.
        for table in [Table::Source, Table::Alert, Table::IpOwnership, Table::Agent, Table::DeviceIdentifier] {
            assert!(of(table) >= 2, "{table:?} of {directory:?}");
        }
        let converted = contents(root.path());
        let again = tables(root.path()).await;
        let lasting = |tables: &Tables| -> Vec<(Table, String)> { tables.keys().cloned().collect() };
        assert_eq!(lasting(&first), lasting(&again), "{directory:?}");
        let manifests = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<Vec<u8>> {
            let is_manifest = |path: &&PathBuf| path.extension().is_some_and(|e| e == "json");
            files.iter().filter(|(path, _)| is_manifest(path)).map(|(_, bytes)| bytes.clone()).collect()
        };
        assert!(String::from_utf8_lossy(&manifests(&converted)[0]).contains("\"format\": 2"));
        assert_eq!(manifests(&converted)[0], manifests(&contents(root.path()))[0], "it is converted once");
    }
}

#[tokio::test]
async fn what_a_newer_version_left_is_refused_and_not_changed() {
    let root = tempfile::tempdir().unwrap();
    copy(&released()[0], root.path());
    let path = contents(root.path()).into_keys().find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
    let newer =
        std::fs::read_to_string(&path).unwrap().replace("\"runs\"", "\"collections\": {\"targets\": 99}, \"runs\"");
    std::fs::write(&path, newer).unwrap();
    let before = contents(root.path());
    let refused = open(setup(root.path())).err().unwrap();
    assert!(matches!(refused, PipelineError::Upgrade(_)) && refused.to_string().contains("newer build"), "{refused}");
    assert_eq!(contents(root.path()), before);
}

/// A record that has room for few epochs, and is slow to make more.
struct Narrow {
    held: AtomicUsize,
    most: AtomicUsize,
}

impl Consumer for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn take(&self, _: &Arc<EpochOutput>) {
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(held, Ordering::SeqCst);
    }

    fn is_full(&self) -> bool {
        let full = self.held.load(Ordering::SeqCst) >= 4;
        if full {
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
        full
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_no_faster_than_the_record_takes_it() {
    let root = tempfile::tempdir().unwrap();
    copy(&released()[0], root.path());
    // Without its snapshot all of the log is read again.
    std::fs::remove_dir_all(root.path().join("snapshots")).unwrap();
    let narrow = Arc::new(Narrow { held: AtomicUsize::new(0), most: AtomicUsize::new(0) });
    let pipeline = open(setup(root.path())).unwrap().start(vec![narrow.clone()]).await.unwrap();
    // What is with the workers when it is full is taken all the same.
    assert!(narrow.most.load(Ordering::SeqCst) < 100, "{:?} of 146 epochs", narrow.most);
    pipeline.stop().await.unwrap();
}
