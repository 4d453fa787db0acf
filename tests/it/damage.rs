//! A damaged data directory: what can be kept is kept, what cannot is said, and nothing is changed unasked.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::server::{Home, armis};

/// Runs the program to its end.
fn radarflow(home: &Home, what: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
    command.arg(what).arg("--data-dir").arg(home.dir.path().join("data"));
    if what == "serve" {
        let config = home.dir.path().join("radarflow.toml");
        std::fs::write(&config, &home.config).unwrap();
        command.arg("--config").arg(config);
    }
    command.output().unwrap()
}

fn files(home: &Home, folder: &str, ends: &str) -> Vec<PathBuf> {
    let found = std::fs::read_dir(home.dir.path().join("data").join(folder)).unwrap();
    let mut found: Vec<PathBuf> = found.map(|f| f.unwrap().path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(ends));
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn contents(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Starts, learns so many devices more, and ends cleanly.
async fn learn(home: &mut Home, from: usize, n: usize) {
    let server = home.start();
    let items: Vec<String> = (from..from + n).map(|i| armis(i, &format!("10.0.{}.{}", i / 250, i % 250), 1)).collect();
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();
    server.count("devices", (from + n) as u64).await;
    server.stop();
}

#[tokio::test]
async fn a_ledger_damaged_before_its_snapshot_is_repaired_without_loss() {
    let mut home = Home::new("");
    learn(&mut home, 0, 5).await;
    learn(&mut home, 5, 5).await;
    let segment = files(&home, "ledger", ".seg").remove(0);
    // In the first frame, long before the snapshot of the end.
    flip(&segment, 60);
    let before = contents(std::slice::from_ref(&segment));
    let refused = radarflow(&home, "serve");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("radarflow repair"), "{said}");
    assert_eq!(contents(std::slice::from_ref(&segment)), before, "nothing is changed unasked");
    let repaired = radarflow(&home, "repair");
    assert!(repaired.status.success(), "{repaired:?}");
    assert!(String::from_utf8_lossy(&repaired.stdout).contains("in a snapshot"), "{repaired:?}");
    for _ in 0..2 {
        let server = home.start();
        server.count("devices", 10).await;
        server.stop();
    }
    learn(&mut home, 10, 1).await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let mut home = Home::new("");
    learn(&mut home, 0, 3).await;
    learn(&mut home, 3, 3).await;
    learn(&mut home, 6, 3).await;
    let newest = files(&home, "snapshots", ".run").pop().unwrap();
    flip(&newest, 40);
    let server = home.start();
    server.count("devices", 9).await;
    server.stop();
    let lake = home.lake("devices_history");
    assert_eq!(crate::server::lake_count(&lake).await, 9, "and nothing is said twice");
}

#[tokio::test]
async fn where_no_snapshot_leads_to_the_ledger_it_says_what_to_do_and_changes_nothing() {
    let mut home = Home::new("");
    learn(&mut home, 0, 3).await;
    let segment = files(&home, "ledger", ".seg").remove(0);
    // As after it was trimmed: the log begins later, and its snapshots are gone.
    let mut bytes = std::fs::read(&segment).unwrap();
    let first_frame = 32 + 8 + u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    bytes.drain(32..first_frame);
    bytes[20..28].copy_from_slice(&2u64.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[..28]).to_be_bytes();
    bytes[28..32].copy_from_slice(&crc);
    std::fs::write(&segment, &bytes).unwrap();
    for path in files(&home, "snapshots", "") {
        std::fs::remove_file(path).unwrap();
    }
    let refused = radarflow(&home, "serve");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("begins with epoch 2") && said.contains("nothing was changed"), "{said}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);
}

#[tokio::test]
async fn a_first_start_that_cannot_listen_makes_no_token() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut home = Home::new("");
    let config = home.config.clone();
    home.config = format!("{config}\n[[syslog]]\naddr = \"{}\"\n", taken.local_addr().unwrap());
    let refused = radarflow(&home, "serve");
    assert!(!refused.status.success() && !String::from_utf8_lossy(&refused.stdout).contains("admin token"));
    home.config = config;
    // The next start makes it, prints it, and it works.
    learn(&mut home, 0, 1).await;
}
