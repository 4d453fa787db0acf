//! The Postgres sink beside plain `COPY` and upsert of the same rows, in one run: `RADARFLOW_TEST_POSTGRES` names the
//! server, on which a database is made and left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow_array::RecordBatch;
use radarflow_connectors::sinks::postgres::{self, Postgres, Truth};
use radarflow_network::devices::Network;
use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::ports::{BoxFuture, EpochOutput};
use radarflow_proto::rows::{Change, Device, Row, StateRow, Table};
use sqlx::{Connection, Executor, PgConnection};

const NOW: i64 = 1_700_000_000;
/// Changes of one epoch.
const EPOCH: usize = 5000;

/// Nothing is ever missed here.
struct Nothing;

impl Truth for Nothing {
    fn state(&self) -> (u64, Vec<(Table, RecordBatch)>) {
        (0, Vec::new())
    }
    fn events(&self, _: Table, _: u64, _: u64) -> BoxFuture<Result<Vec<RecordBatch>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn rows(n: usize, version: i64) -> Vec<Device> {
    let network = Network::new(5, n, NOW);
    let device = |d: &radarflow_network::devices::Device| Device {
        tenant_id: "default".into(),
        partition: "default".into(),
        uid: format!("sr:{:08x}-0000-5000-8000-000000000000", d.n),
        display_name: format!("{}-{}", d.kind, d.n),
        hostname: Some(format!("{}-{}", d.kind, d.n)),
        name: None,
        ip: Some(d.ip.to_string()),
        ip_addresses: vec![d.ip.to_string()],
        mac: d.macs.first().cloned(),
        mac_addresses: d.macs.clone(),
        r#type: Some(d.kind.into()),
        vendor_name: Some(d.vendor.into()),
        model: None,
        os: None,
        agent_id: None,
        gateway_id: None,
        discovery_sources: vec!["armis".into()],
        is_available: Some(true),
        availability: "available".into(),
        availability_since: Some(Time(NOW * 1_000_000)),
        availability_reason: None,
        first_seen_time: Time(NOW * 1_000_000),
        last_seen_time: Time((NOW + version) * 1_000_000),
        lifecycle: "identified".into(),
        deleted_at: None,
        deleted_by: None,
        deleted_reason: None,
        metadata: Tags([("armis_device_id".to_owned(), d.n.to_string())].into()),
        enriched_by: Tags::default(),
        epoch: version,
    };
    network.devices.iter().map(device).collect()
}

pub(crate) fn run() -> Result<()> {
    let Ok(server) = std::env::var("RADARFLOW_TEST_POSTGRES") else {
        return crate::figure("postgres", "left out: RADARFLOW_TEST_POSTGRES names no server");
    };
    tokio::runtime::Runtime::new()?.block_on(measure(&server))
}

async fn measure(server: &str) -> Result<()> {
    let n = crate::size("RADARFLOW_BENCH_RECORDS", 200_000);
    let name = format!("bench{}", std::process::id());
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let url = format!("{server}/{name}");
    postgres::migrate(&url).await?;
    let mut db = PgConnection::connect(&url).await?;
    // The first row of the frontier, so that nothing has to be filled anew.
    db.execute("INSERT INTO radarflow.sink_progress (sink, generation, frontier) VALUES ('postgres', 7, 0)").await?;
    // All rows may wait: taking them does not.
    let sink = Arc::new(Postgres::start(&url, 7, 0..=0, 1 << 30, Arc::new(Nothing))?);
    let mut epoch = 0;
    let mut sink_took = Duration::ZERO;
    for version in 1..=2 {
        let rows = rows(n, version);
        let outputs: Vec<Arc<EpochOutput>> = rows
            .chunks(EPOCH)
            .map(|chunk| {
                epoch += 1;
                let changes = chunk.iter().filter_map(|d| Change::new(None, Some(StateRow::from(d.clone()))));
                Arc::new(EpochOutput { epoch, changes: changes.collect(), ..EpochOutput::default() })
            })
            .collect();
        let started = Instant::now();
        let fed = sink.clone();
        tokio::task::spawn_blocking(move || outputs.into_iter().for_each(|o| fed.take(&o))).await?;
        while sink.applied().get() < epoch {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sink_took += started.elapsed();
        crate::rate(
            if version == 1 { "postgres sink, new rows" } else { "postgres sink, changed rows" },
            n,
            started.elapsed(),
        )?;
    }
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM radarflow.ocsf_devices").fetch_one(&mut db).await?;
    anyhow::ensure!(count == n as i64, "{count} of {n} rows are there");

    db.execute("CREATE TABLE plain (LIKE radarflow.ocsf_devices INCLUDING ALL)").await?;
    let columns: Vec<String> = Table::Device.columns().iter().map(|c| format!("\"{}\"", c.name)).collect();
    let columns = columns.join(", ");
    let sets: Vec<String> = columns.split(", ").map(|c| format!("{c} = excluded.{c}")).collect();
    let mut plain_took = Duration::ZERO;
    for version in 1..=2 {
        let mut text = String::new();
        rows(n, version).iter().for_each(|row| row.copy(&mut text));
        let started = Instant::now();
        let mut tx = db.begin().await?;
        tx.execute(sqlx::AssertSqlSafe(format!(
            "CREATE TEMP TABLE stage ON COMMIT DROP AS SELECT {columns} FROM plain WITH NO DATA"
        )))
        .await?;
        let mut copy = tx.copy_in_raw("COPY stage FROM STDIN").await?;
        copy.send(text.into_bytes()).await?;
        copy.finish().await?;
        tx.execute(sqlx::AssertSqlSafe(format!(
            "INSERT INTO plain ({columns}) SELECT {columns} FROM stage
             ON CONFLICT (tenant_id, partition, uid) DO UPDATE SET {}",
            sets.join(", ")
        )))
        .await?;
        tx.commit().await?;
        plain_took += started.elapsed();
        crate::rate(
            if version == 1 { "plain COPY and upsert, new rows" } else { "plain COPY and upsert, changed rows" },
            n,
            started.elapsed(),
        )?;
    }
    let ratio = plain_took.as_secs_f64() / sink_took.as_secs_f64();
    crate::figure("postgres sink beside plain COPY and upsert", &format!("{ratio:.2} of its rate"))?;
    drop(sink);
    db.close().await.context("closing")
}
