//! A disk that fills up: senders are refused, an alert tells, questions are answered, and it goes on by itself.

use std::os::unix::fs::FileExt;

use serde_json::json;

use crate::server::{Home, armis};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn intake_stops_before_the_disk_is_full_and_goes_on_by_itself() {
    let mut home = Home::new("");
    let stat = nix::sys::statvfs::statvfs(home.dir.path()).unwrap();
    let free = stat.blocks_available() * stat.fragment_size() / MIB;
    // Others write meanwhile; what is taken here is more than they take.
    let taken = 1024;
    assert!(free > 3 * taken, "the test needs {} MiB of disk", 3 * taken);
    // Enough is left now, and would be again with half as much more.
    let reserve = (free - taken / 2) * 2 / 3 - taken;
    home.config = format!("disk_reserve_mib = {reserve}\n{}", home.config);
    let server = home.start();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;

    let ballast = std::fs::File::create(home.dir.path().join("ballast")).unwrap();
    nix::fcntl::posix_fallocate(&ballast, 0, ((free - reserve + taken / 4) * MIB) as i64).unwrap();
    ballast.write_all_at(&[0], 0).unwrap();
    server.metric("radarflow_ledger_disk_short 1").await;
    let refused = server.push("runner", "sync", &format!("[{}]", armis(2, "10.1.0.2", 1))).await.unwrap_err();
    assert!(refused.message().contains("nearly full"), "{refused}");
    let alerts = server.until("in:alerts rule:disk-full", |rows| rows.len() == 1).await;
    assert_eq!((&alerts[0]["severity"], &alerts[0]["status"]), (&json!("critical"), &json!("pending")));
    // What people say is taken.
    let (status, _) = server.post("/api/tokens", &server.token, &json!({"name": "x", "role": "viewer"})).await;
    assert_eq!(status, 201);

    drop(ballast);
    std::fs::remove_file(home.dir.path().join("ballast")).unwrap();
    server.metric("radarflow_ledger_disk_short 0").await;
    server.until("in:alerts rule:disk-full", |rows| rows[0]["status"] == "resolved").await;
    server.push("runner", "sync", &format!("[{}]", armis(2, "10.1.0.2", 1))).await.unwrap();
    server.count("devices", 2).await;
    server.stop();
}
