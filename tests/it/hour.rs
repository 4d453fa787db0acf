//! What somebody meets in the first hour and the first week: what commands say of runs that are held, of configurations that are
//! wrong, of a database without a schema, of what waits for the lake.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Home, Server, armis, lake_count};

fn run(server: &Server, folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
    command.args(arguments).current_dir(folder).env("RADARFLOW_URL", &server.http);
    let output = command.env("RADARFLOW_TOKEN", &server.token).output().unwrap();
    (output.status.success(), told(&output))
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// NetBox items that carry an Armis id, or none.
fn items(armis_ids: bool) -> String {
    let item = |n: usize| {
        let mut metadata = json!({"netbox_device_id": n.to_string()});
        if armis_ids {
            metadata["armis_device_id"] = json!(n.to_string());
        }
        json!({"ip": format!("10.2.0.{n}"), "timestamp": 1_700_000_000 + usize::from(armis_ids), "metadata": metadata})
    };
    (1..=5).map(|n| item(n).to_string() + "\n").collect()
}

#[tokio::test]
async fn a_run_that_is_held_is_told_and_what_waits_behind_it_is_refused() {
    let mut home = Home::new("");
    let server = home.start();
    let folder = home.dir.path();
    let limits = json!({"max_merges": 2, "max_component": 9, "reason": "a small site"});
    let (status, _) = server.ask(reqwest::Method::PUT, "/api/identity/brakes", &server.token, &limits).await;
    assert_eq!(status, 200);
    let known: Vec<String> = (1..=5).map(|n| armis(n, &format!("10.1.0.{n}"), 1)).collect();
    server.push("runner", "sync", &format!("[{}]", known.join(","))).await.unwrap();
    std::fs::write(folder.join("apart.ndjson"), items(false)).unwrap();
    std::fs::write(folder.join("both.ndjson"), items(true)).unwrap();
    let (done, said) = run(&server, folder, &["import", "apart.ndjson", "--source", "netbox/main", "--complete"]);
    assert!(done && said.contains("5 items: run ") && said.contains(" is applied"), "{said}");
    server.count("devices", 10).await;

    // It would merge too much: the command says so, and how it goes on.
    let (done, said) = run(&server, folder, &["import", "both.ndjson", "--source", "netbox/main"]);
    assert!(!done && said.contains("is held: "), "{said}");
    let release = said.split('`').find(|part| part.starts_with("radarflow runs release")).unwrap().to_owned();
    let (done, listed) = run(&server, folder, &["runs", "list"]);
    assert!(done && listed.contains("netbox/main") && listed.contains("merge 5 devices"), "{listed}");

    // A plan that would wait behind it is refused, and is there still.
    let (done, plan) = run(&server, folder, &["import", "apart.ndjson", "--source", "netbox/main", "--plan"]);
    assert!(done, "{plan}");
    let apply = plan.split("radarflow ").last().unwrap().trim();
    let apply: Vec<&str> = apply.split(' ').collect();
    let (done, said) = run(&server, folder, &apply);
    assert!(!done && said.contains("is held") && said.contains("radarflow runs release netbox/main"), "{said}");

    let words: Vec<&str> = release.split(' ').skip(1).collect();
    let (done, said) = run(&server, folder, &words);
    assert!(done && said.contains("is released"), "{said}");
    server.count("devices", 5).await;
    assert_eq!(run(&server, folder, &["runs", "list"]), (true, "no run is held\n".to_owned()));
    let (done, said) = run(&server, folder, &apply);
    assert!(done && said.contains("is applied"), "{said}");
    server.stop();
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_planned() {
    let mut home = Home::new("");
    let server = home.start();
    let folder = home.dir.path();
    let mut csv = "id,name,ip\n".to_owned();
    for n in 0..100_000 {
        csv += &format!("{n},host-{n},10.{}.{}.{}\n", 100 + n / 65_536, n / 256 % 256, n % 256);
    }
    std::fs::write(folder.join("all.csv"), csv).unwrap();
    std::fs::write(folder.join("all.yaml"), "id: id\nhostname: name\nip: ip\n").unwrap();
    let import = ["import", "all.csv", "--source", "cmdb/main", "--mapping", "all.yaml", "--plan"];
    let (done, said) = run(&server, folder, &import);
    assert!(done && said.contains("cmdb/main lists 100000 items: 100000 new"), "{said}");
    let digest = said.trim().rsplit(' ').next().unwrap();
    let (done, said) = run(&server, folder, &["sync", "forget", digest]);
    assert!(done, "{said}");
    server.stop();
}

#[tokio::test]
async fn what_waits_for_the_lake_is_committed_when_somebody_asks_or_after_the_interval() {
    let mut home = Home::new("");
    let server = home.start();
    let folder = home.dir.path().to_owned();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.0.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;
    assert_eq!(lake_count(&home.lake("devices_history")).await, 0, "five minutes are not over");
    let (done, said) = run(&server, &folder, &["flush"]);
    assert!(done && said.contains("the lake has everything up to epoch"), "{said}");
    assert_eq!(lake_count(&home.lake("devices_history")).await, 1);
    let (done, said) = run(&server, &folder, &["status"]);
    assert!(done && said.contains("ready     yes") && said.contains("sink      lake: up"), "{said}");
    server.stop();
    home.config.push_str("[sinks.lake]\ncommit_interval_s = 1\n");
    let server = home.start();
    server.push("runner", "sync", &format!("[{}]", armis(2, "10.0.0.2", 1))).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while lake_count(&home.lake("devices_history")).await < 2 {
        assert!(Instant::now() < end, "the interval is a second");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop();
}

#[tokio::test]
async fn a_server_that_is_named_is_asked_and_no_data_directory_is_made() {
    let mut home = Home::new("");
    let server = home.start();
    let folder = tempfile::tempdir().unwrap();
    let (done, token) = run(&server, folder.path(), &["token", "create", "--name", "grafana"]);
    assert!(done && token.starts_with("rf_"), "{token}");
    assert_eq!(server.rows_as(token.trim(), "in:devices").await.len(), 0);
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing was made here");
    // Without a token it is told where one comes from.
    let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
    command.args(["query", "in:devices"]).env("RADARFLOW_URL", &server.http).env_remove("RADARFLOW_TOKEN");
    let said = told(&command.env("XDG_CONFIG_HOME", folder.path()).output().unwrap());
    assert!(said.contains("`admin token: rf_…`") && said.contains("radarflow login"), "{said}");
    server.stop();
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Somebody listens there who is no Postgres and says nothing.
    let port = taken.local_addr().unwrap().port();
    let file = format!(
        "[grpc]\naddr = \"127.0.0.1:0\"\n[http]\nadr = \"x\"\n[[syslog]]\naddr = \"127.0.0.1:2055\"\n\
         [sinks.postgres]\nurl = \"postgres://x@127.0.0.1:{port}/x\"\n[mappings]\ncmdb = \"none.yaml\"\n"
    );
    std::fs::write(dir.path().join("radarflow.toml"), file).unwrap();
    let check = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.arg("check-config").args(more).current_dir(dir.path()).output().unwrap()
    };
    let output = check(&[]);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for wanted in [
        "5 mistakes in radarflow.toml:",
        "line 1, column 1: there may be several of these: write [[grpc]], not [grpc]",
        "did you mean `addr`?",
        "line 6, column 8: `syslog.addr`: 127.0.0.1:2055 is also where [netflow] listens",
        "line 8, column 7: [sinks.postgres]: postgres: an answer took longer than 5s",
        "line 10, column 8: cannot read none.yaml: No such file or directory (os error 2)",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is not in\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "no colours where nobody sees them");
    let offline = told(&check(&["--offline"]));
    assert!(offline.contains("4 mistakes"), "{offline}");
    // What is open is told of what can be read.
    assert!(told(&check(&["--hardening"])).contains("the configuration has mistakes"));
    let file = "private_addresses = true\n[[netflow]]\naddr = \"0.0.0.0:2055\"\n";
    let path = dir.path().join("radarflow.toml");
    std::fs::write(&path, file).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let output = check(&["--hardening"]);
    let said = told(&output);
    assert!(output.status.success() && said.contains("things are open:"), "{said}");
    for wanted in [
        "line 1, column 21: `private_addresses`: whoever may state receivers",
        "line 3, column 8: `netflow.addr`: whoever reaches 0.0.0.0:2055 can send flows as any exporter",
        "radarflow.toml has mode 644: others read its secrets",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is not in\n{said}");
    }
}

#[tokio::test]
async fn a_database_without_a_schema_is_one_clear_error_until_it_is_migrated() {
    let url = crate::sinks::database().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("radarflow.toml");
    std::fs::write(&file, format!("[sinks.postgres]\nurl = \"{url}\"\n")).unwrap();
    let radarflow = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_radarflow")).args(arguments).current_dir(dir.path()).output();
        output.unwrap()
    };
    let output = radarflow(&["check-config"]);
    let said = told(&output);
    let wanted = "line 2, column 7: [sinks.postgres]: the database has no schema of radarflow; run `radarflow migrate`";
    assert!(!output.status.success() && said.contains(wanted), "{said}");
    assert!(radarflow(&["migrate"]).status.success());
    let output = radarflow(&["check-config"]);
    assert!(output.status.success(), "{}", told(&output));
    // An older program's schema is told from none.
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version > 9").execute(&pool).await.unwrap();
    let said = told(&radarflow(&["check-config"]));
    assert!(said.contains("the schema radarflow is of an older version (9 of "), "{said}");
}
