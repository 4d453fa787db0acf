//! The book: every command of a page that says so is run, as it stands there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::Home;
use crate::tools::python;

fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The blocks of a page in a language, one after the other.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    page.split(&begin).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned() + "\n").collect()
}

/// Runs the commands of a page against a server of its own.
async fn play(name: &str) -> (Home, tempfile::TempDir) {
    play_in(Home::new(""), name).await
}

async fn play_in(mut home: Home, name: &str) -> (Home, tempfile::TempDir) {
    let server = home.start();
    let script = blocks(&page(name), "sh").join("\n");
    assert!(!script.is_empty(), "{name} has commands");
    let dir = tempfile::tempdir().unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_radarflow"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(dir.path())
        .env("PATH", path)
        .env("RADARFLOW_URL", &server.http)
        .env("RADARFLOW_TOKEN", &server.token)
        .env("SYSLOG_PORT", server.port("syslog").port().to_string())
        .env("GRPC_PORT", server.port("grpc").port().to_string())
        .env("DATA_DIR", home.dir.path().join("data"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {:?}\n{out}\n{err}", output.status);
    server.stop();
    (home, dir)
}

#[tokio::test]
async fn the_tutorial_is_what_happens() {
    play("tutorial.md").await;
}

#[tokio::test]
async fn imports_say_what_is_doubtful_and_plans_are_applied() {
    play("import.md").await;
}

#[tokio::test]
async fn rules_hold_when_the_page_says_so() {
    play("rules.md").await;
}

#[tokio::test]
async fn people_are_told_as_the_page_says() {
    play("alerts.md").await;
}

#[tokio::test]
async fn devices_are_looked_at_when_and_as_the_page_says() {
    play("watching.md").await;
    play("telemetry.md").await;
}

#[tokio::test]
async fn agents_are_enrolled_and_kept_out_as_the_page_says() {
    play_in(crate::edge::home(), "edge.md").await;
}

#[tokio::test]
async fn operating_is_what_happens() {
    play("operate.md").await;
    play("postgres.md").await;
}

#[tokio::test]
async fn what_was_backed_up_while_it_ran_starts_and_has_everything_once() {
    let url = crate::sinks::database().await;
    let mut home = Home::new(&format!("[sinks.postgres]\nurl = \"{url}\"\n"));
    let server = home.start();
    let items: Vec<String> = (0..50).map(|i| crate::server::armis(i, &format!("10.0.0.{i}"), 1)).collect();
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();
    server.count("devices", 50).await;
    let dir = tempfile::tempdir().unwrap();
    let (backup, restored) = (dir.path().join("monday"), dir.path().join("data"));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.args(arguments).env("RADARFLOW_URL", &server.http).env("RADARFLOW_TOKEN", &server.token);
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let data = home.dir.path().join("data");
    let (done, said) = run(&["backup", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--with-keys"]);
    assert!(done, "{said}");
    // It goes on meanwhile, and what is said after the backup is not in it.
    let more = crate::server::armis(50, "10.0.0.50", 1);
    server.push("runner", "sync", &format!("[{more}]")).await.unwrap();
    server.count("devices", 51).await;
    // Postgres goes on further than the backup, and so do its events.
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let stands = async |devices: i64| {
        let frontier = server_of(&pool, "SELECT frontier FROM radarflow.sink_progress").await;
        let found = server_of(&pool, "SELECT count(*) FROM radarflow.ocsf_devices").await;
        // Nothing is of an epoch that the ledger never had.
        let newer = format!("SELECT count(*) FROM radarflow.merge_audit WHERE epoch > {frontier}");
        found == devices && server_of(&pool, &newer).await == 0
    };
    crate::sinks::until("Postgres has all of them", || stands(51)).await;
    server.stop();
    let restore = |to: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.arg("restore").arg(&backup).arg("--data-dir").arg(to).output().unwrap()
    };
    assert!(!restore(&data).status.success(), "what is there is not overwritten");
    let output = restore(&restored);
    assert!(output.status.success(), "{output:?}");
    std::fs::rename(&data, dir.path().join("old")).unwrap();
    std::fs::rename(&restored, &data).unwrap();
    for _ in 0..2 {
        let server = home.start();
        server.count("devices", 50).await;
        crate::sinks::until("Postgres is put back likewise", || stands(50)).await;
        server.stop();
    }
    let server = home.start();
    server.push("runner", "sync", &format!("[{more}]")).await.unwrap();
    server.count("devices", 51).await;
    server.stop();
    assert_eq!(
        crate::server::lake_count(&home.lake("devices_history")).await,
        51,
        "nothing is missing, nothing is twice"
    );
    crate::sinks::until("Postgres goes on", || stands(51)).await;
    // The lake goes on, and the ledger is put back: no epoch that the lake has is used again.
    std::fs::remove_dir_all(data.join("ledger")).unwrap();
    std::fs::remove_dir_all(data.join("snapshots")).unwrap();
    for part in ["ledger", "snapshots"] {
        let copied = Command::new("cp").arg("-r").arg(backup.join(part)).arg(data.join(part)).status().unwrap();
        assert!(copied.success());
    }
    let server = home.start();
    let last = crate::server::armis(60, "10.0.0.60", 1);
    server.push("runner", "sync", &format!("[{last}]")).await.unwrap();
    server.count("devices", 51).await;
    server.stop();
    assert_eq!(
        crate::server::lake_count(&home.lake("devices_history")).await,
        52,
        "what came since the backup, and what came since it was put back"
    );
}

async fn server_of(pool: &sqlx::PgPool, query: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned())).fetch_one(pool).await.unwrap_or(-1)
}

#[tokio::test]
async fn the_page_about_the_lake_reads_what_the_server_says() {
    let mut home = Home::new("");
    let server = home.start();
    let items: Vec<String> = (0..5).map(|i| crate::server::armis(i, &format!("10.0.0.{i}"), 1)).collect();
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();
    server.count("devices", 5).await;
    server.stop();
    let sql = blocks(&page("lake.md"), "sql").remove(0);
    let select = &sql[sql.find("SELECT").unwrap()..];
    // DuckDB's own extension for Delta is not on every machine; the table is the same.
    let select = select.replace("delta_scan('/var/lib/radarflow/lake/devices_history')", "history");
    assert!(select.contains("FROM history"), "{select}");
    let select = select.replace("2026-01-31 12:00:00+00", "2999-01-01 00:00:00+00");
    let script = "
import sys, duckdb, deltalake
history = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_dataset()
print(len(duckdb.sql(sys.argv[2].strip().rstrip(';')).fetchall()))
";
    assert_eq!(python(script, &[home.lake("devices_history").to_str().unwrap(), &select]).trim(), "5");
}
