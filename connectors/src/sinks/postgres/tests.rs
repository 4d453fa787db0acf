//! The sink against a real Postgres, also one that is locked, silent, cut off in the middle, and somebody else's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::builder::{ListBuilder, MapBuilder, StringBuilder};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::ports::{BoxFuture, EpochOutput};
use radarflow_proto::rows::{
    BatchBuilder, Change, DeviceGroup, HealthEvent, HealthEventBatch, Nature, StateRow, Table, state_batch,
};
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::server::Server;
use super::{Limits, Postgres, PostgresError, Truth, check, migrate};

/// Short enough to be waited for, long enough for a slow machine that does answer.
const QUICK: Limits = Limits {
    connect: Duration::from_secs(1),
    lock: Duration::from_millis(300),
    write: Duration::from_secs(2),
    truth: Duration::from_secs(10),
    retry: (Duration::from_millis(20), Duration::from_millis(100)),
};
const PENDING: usize = 64 << 20;

/// A database of its own, migrated.
async fn database() -> (String, PgPool) {
    let base =
        std::env::var("RADARFLOW_TEST_POSTGRES").expect("run deploy/test.sh, or eval \"$(deploy/services.sh up)\"");
    let name = format!("t{}", rand::random::<u64>());
    let admin = PgPool::connect(&format!("{base}/postgres")).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let url = format!("{base}/{name}");
    migrate(&url).await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    (url, pool)
}

async fn until<F: Future<Output = bool>>(what: &str, mut right: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(60);
    while !right().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is true, as the live tables and the lake have it.
#[derive(Default)]
struct World(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    epoch: u64,
    state: BTreeMap<Arc<str>, StateRow>,
    events: Vec<(u64, RecordBatch)>,
}

impl Truth for World {
    fn state(&self) -> (u64, Vec<(Table, RecordBatch)>) {
        let told = self.0.lock().unwrap();
        (told.epoch, vec![(Table::DeviceGroup, state_batch(Table::DeviceGroup, told.state.values()))])
    }

    fn events(&self, table: Table, after: u64, until: u64) -> BoxFuture<Result<Vec<RecordBatch>, String>> {
        let told = self.0.lock().unwrap();
        let of = told.events.iter().filter(|(epoch, _)| (after + 1..=until).contains(epoch));
        let rows = if table == Table::HealthEvent { of.map(|(_, batch)| batch.clone()).collect() } else { Vec::new() };
        Box::pin(async move { Ok(rows) })
    }
}

fn group(name: &str, description: &str, epoch: u64) -> StateRow {
    DeviceGroup {
        tenant_id: "t".into(),
        partition: "p".into(),
        name: name.into(),
        condition: None,
        members: vec!["a\\b".into(), String::new()],
        description: description.into(),
        actor: String::new(),
        reason: String::new(),
        owner: None,
        epoch: epoch as i64,
    }
    .into()
}

fn happened(epoch: u64) -> RecordBatch {
    let mut batch = HealthEventBatch::default();
    batch.push(&HealthEvent {
        tenant_id: "t".into(),
        partition: "p".into(),
        row_id: RowId::new(epoch, 0, 0),
        epoch: epoch as i64,
        entity_type: "device".into(),
        entity_id: "d".into(),
        old_state: "up".into(),
        new_state: "down".into(),
        reason: String::new(),
        duration_seconds: None,
        recorded_at: Time(epoch as i64),
        device_uid: None,
    });
    batch.finish()
}

impl World {
    /// The next epoch: it sets groups (to nothing: they are gone), and something happens.
    fn next(&self, groups: &[(&str, Option<&str>)]) -> Arc<EpochOutput> {
        let mut told = self.0.lock().unwrap();
        told.epoch += 1;
        let epoch = told.epoch;
        let mut output = EpochOutput { epoch, ..EpochOutput::default() };
        for (name, description) in groups {
            let key: Arc<str> = group(name, "", 0).key().into();
            let after = description.map(|description| group(name, description, epoch));
            let before = match &after {
                Some(row) => told.state.insert(key, row.clone()),
                None => told.state.remove(&key),
            };
            output.changes.extend(Change::new(before, after));
        }
        told.events.push((epoch, happened(epoch)));
        output.events.push((Table::HealthEvent, happened(epoch)));
        Arc::new(output)
    }

    fn epoch(&self) -> u64 {
        self.0.lock().unwrap().epoch
    }

    /// The database is what is true, and everything happened once.
    async fn is_in(&self, pool: &PgPool) {
        let rows = pool.fetch_all("SELECT name, description, epoch FROM radarflow.device_groups ORDER BY name");
        let rows = rows.await.unwrap();
        let found: Vec<(String, String, i64)> = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
        let (groups, events) = self.told();
        assert_eq!(found, groups);
        let rows = pool.fetch_all("SELECT epoch FROM radarflow.health_events ORDER BY epoch").await.unwrap();
        assert_eq!(rows.iter().map(|r| r.get::<i64, _>(0)).collect::<Vec<_>>(), events);
    }

    /// The groups, and the epochs of what happened.
    fn told(&self) -> (Vec<(String, String, i64)>, Vec<i64>) {
        let told = self.0.lock().unwrap();
        let groups = told.state.values().map(|row| match row {
            StateRow::DeviceGroup(row) => (row.name.clone(), row.description.clone(), row.epoch),
            _ => panic!("a group"),
        });
        (groups.collect(), told.events.iter().map(|(epoch, _)| *epoch as i64).collect())
    }
}

fn start(url: &str, generation: u64, pending: usize, world: &Arc<World>) -> Postgres {
    start_at(url, generation, u64::MAX, pending, world)
}

/// The same of a ledger that ends with an epoch.
fn start_at(url: &str, generation: u64, last: u64, pending: usize, world: &Arc<World>) -> Postgres {
    let server = Arc::new(Server(url.parse().unwrap()));
    Postgres::start_within(QUICK, server, generation, 0..=last, pending, world.clone())
}

/// So many epochs are taken at once.
fn take(sink: &Postgres, world: &World, epochs: usize) {
    let began = Instant::now();
    for n in 0..epochs {
        let name = format!("g{}", n % 10);
        sink.take(&world.next(&[(&name, Some(&format!("{n}"))), ("flaps", (n % 2 == 0).then_some("here"))]));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{epochs} epochs took {:?}", began.elapsed());
}

/// The database has everything up to an epoch.
async fn written(pool: &PgPool, epoch: u64) {
    until(&format!("epoch {epoch} is written"), || async {
        let found = pool.fetch_optional("SELECT frontier FROM radarflow.sink_progress").await.unwrap_or_default();
        found.is_some_and(|row| row.get::<i64, _>(0) >= epoch as i64)
    })
    .await;
}

async fn applied(sink: &Postgres, epoch: u64) {
    until(&format!("epoch {epoch} is applied"), || async { sink.applied().get() >= epoch }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_holds_back_the_database_and_nobody_else() {
    let (url, pool) = database().await;
    let world = Arc::new(World::default());
    let sink = start(&url, 1, PENDING, &world);
    sink.take(&world.next(&[("first", Some("x"))]));
    written(&pool, 1).await;
    let mut locker = pool.begin().await.unwrap();
    locker.execute("LOCK TABLE radarflow.device_groups IN ACCESS EXCLUSIVE MODE").await.unwrap();
    take(&sink, &world, 1000);
    until("the lock is given up on", || async { !sink.applied().up() }).await;
    take(&sink, &world, 10);
    assert_eq!(sink.applied().get(), 1, "nothing is claimed that is not committed");
    locker.rollback().await.unwrap();
    applied(&sink, 1011).await;
    assert!(sink.applied().up());
    world.is_in(&pool).await;
    assert_eq!(sink.waiting().load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_may_wait_is_made_good_by_a_resynchronisation() {
    let (url, pool) = database().await;
    let world = Arc::new(World::default());
    let sink = start(&url, 1, 200_000, &world);
    sink.take(&world.next(&[("gone later", Some("x")), ("stays", Some("x"))]));
    written(&pool, 1).await;
    let mut locker = pool.begin().await.unwrap();
    locker.execute("LOCK TABLE radarflow.device_groups IN ACCESS EXCLUSIVE MODE").await.unwrap();
    sink.take(&world.next(&[("gone later", None)]));
    take(&sink, &world, 1000);
    applied(&sink, 1002).await;
    assert!(sink.waiting().load(std::sync::atomic::Ordering::Relaxed) < 200_000);
    // Also what comes while it is resynchronised.
    take(&sink, &world, 20);
    locker.rollback().await.unwrap();
    take(&sink, &world, 5);
    written(&pool, world.epoch()).await;
    world.is_in(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_select_does_not_hold_up_a_resynchronisation_which_writes_what_differs() {
    let (url, pool) = database().await;
    let old = Arc::new(World::default());
    let sink = start(&url, 1, PENDING, &old);
    sink.take(&old.next(&[("gone", Some("x")), ("same", Some("x")), ("other", Some("before"))]));
    written(&pool, 1).await;
    drop(sink);
    let place = |name: &'static str| {
        let pool = pool.clone();
        async move {
            let sql = format!("SELECT ctid::text FROM radarflow.device_groups WHERE name = '{name}'");
            pool.fetch_one(AssertSqlSafe(sql)).await.unwrap().get::<String, _>(0)
        }
    };
    let before = (place("same").await, place("other").await);
    let mut reader = pool.begin().await.unwrap();
    assert_eq!(reader.fetch_all("SELECT * FROM radarflow.device_groups").await.unwrap().len(), 3);

    let new = Arc::new(World::default());
    let first = new.next(&[("same", Some("x")), ("other", Some("after")), ("new", Some("x"))]);
    let sink = start(&url, 2, PENDING, &new);
    sink.take(&first);
    until("it is resynchronised", || async { sink.applied().up() }).await;
    new.is_in(&pool).await;
    let after = (place("same").await, place("other").await);
    assert_eq!(before.0, after.0, "what is the same is not written");
    assert_ne!(before.1, after.1);
    assert_eq!(reader.fetch_all("SELECT * FROM radarflow.device_groups").await.unwrap().len(), 3);
    take(&sink, &new, 10);
    written(&pool, 11).await;
    new.is_in(&pool).await;
}

/// Between the sink and the server; what it holds back arrives late.
struct Proxy {
    addr: SocketAddr,
    open: watch::Sender<bool>,
    /// It closes at these bytes of a client: before they go on, or after.
    trap: Arc<Mutex<Option<(&'static [u8], bool)>>>,
}

impl Proxy {
    async fn new(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (open, gate) = watch::channel(true);
        let proxy = Proxy { addr: listener.local_addr().unwrap(), open, trap: Arc::default() };
        let (shut, trap) = (proxy.open.clone(), proxy.trap.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut gate, shut, trap) = (gate.clone(), shut.clone(), trap.clone());
                tokio::spawn(async move {
                    // A client that comes while it is closed is accepted and hears nothing.
                    gate.wait_for(|open| *open).await.ok()?;
                    let server = TcpStream::connect(to).await.ok()?;
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let back = tokio::spawn(pump(from_server, to_client, gate.clone(), |_| None));
                    let watched = move |bytes: &[u8]| {
                        let mut trap = trap.lock().unwrap();
                        let (_, after) = trap.take_if(|(text, _)| bytes.windows(text.len()).any(|w| w == *text))?;
                        if !after {
                            shut.send_replace(false);
                        }
                        Some((shut.clone(), after))
                    };
                    pump(from_client, to_server, gate, watched).await;
                    back.await.ok()
                });
            }
        });
        proxy
    }

    fn set(&self, open: bool) {
        self.open.send_replace(open);
    }

    fn url(&self, url: &str) -> String {
        let (head, tail) = url.split_once('@').unwrap();
        format!("{head}@{}/{}", self.addr, tail.split_once('/').unwrap().1)
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut gate: watch::Receiver<bool>,
    watched: impl Fn(&[u8]) -> Option<(watch::Sender<bool>, bool)>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let trapped = watched(&bytes[..n]);
        if let Some((shut, true)) = &trapped {
            // These go on, their answer does not.
            shut.send_replace(false);
            if to.write_all(&bytes[..n]).await.is_err() {
                return;
            }
            continue;
        }
        if gate.wait_for(|open| *open).await.is_err() || to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

fn server(url: &str) -> SocketAddr {
    url.split_once('@').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_from_the_start_or_in_the_middle_holds_up_nothing_and_is_caught_up_with() {
    let (url, pool) = database().await;
    let proxy = Proxy::new(server(&url)).await;
    proxy.set(false);
    let world = Arc::new(World::default());
    let sink = start(&proxy.url(&url), 1, PENDING, &world);
    take(&sink, &world, 1000);
    tokio::time::sleep(QUICK.connect).await;
    take(&sink, &world, 1000);
    assert_eq!(sink.applied().get(), 0);
    proxy.set(true);
    written(&pool, 2000).await;
    world.is_in(&pool).await;
    for _ in 0..3 {
        proxy.set(false);
        take(&sink, &world, 100);
        until("it is given up", || async { !sink.applied().up() }).await;
        take(&sink, &world, 100);
        proxy.set(true);
        written(&pool, world.epoch()).await;
        world.is_in(&pool).await;
    }
    // Nobody is there at all, then somebody is.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = url.replace(&server(&url).to_string(), &socket.local_addr().unwrap().to_string());
    let began = Instant::now();
    let asked = tokio::spawn(async move { (check(&nobody).await, migrate(&nobody).await) });
    let (checked, migrated) = asked.await.unwrap();
    assert!(matches!(checked, Err(PostgresError::Silent { .. })), "{checked:?}");
    assert!(matches!(migrated, Err(PostgresError::Silent { .. })), "{migrated:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_end_is_not_heard_of_is_settled_whether_it_arrives_late_or_was_made() {
    let (url, pool) = database().await;
    let proxy = Proxy::new(server(&url)).await;
    let world = Arc::new(World::default());
    let sink = start(&proxy.url(&url), 1, PENDING, &world);
    take(&sink, &world, 3);
    written(&pool, 3).await;
    for made in [false, true, false, true] {
        *proxy.trap.lock().unwrap() = Some((b"COMMIT\0", made));
        let before = world.epoch();
        take(&sink, &world, 5);
        until("it is given up", || async { !sink.applied().up() }).await;
        take(&sink, &world, 5);
        assert!(sink.applied().get() <= before + 5);
        // The old connection's bytes arrive together with the new one's.
        proxy.set(true);
        written(&pool, world.epoch()).await;
        world.is_in(&pool).await;
    }
    assert!(sink.applied().up(), "nobody has taken over");
}

/// The ledger was put back to what it was at epoch 5, and goes on otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_newer_than_the_ledger_becomes_what_the_ledger_says() {
    let (url, pool) = database().await;
    let world = Arc::new(World::default());
    let sink = start_at(&url, 1, 0, PENDING, &world);
    take(&sink, &world, 20);
    written(&pool, 20).await;
    drop(sink);
    let back = Arc::new(World::default());
    for n in 0..5 {
        back.next(&[(&format!("g{n}"), Some(&format!("{n}")))]);
    }
    let sink = start_at(&url, 1, 5, PENDING, &back);
    take(&sink, &back, 3);
    until("it is put back", || async { sink.applied().up() && sink.applied().get() >= 8 }).await;
    back.is_in(&pool).await;
    take(&sink, &back, 30);
    applied(&sink, back.epoch()).await;
    back.is_in(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_replaced_stops_and_holds_up_nothing() {
    let (url, pool) = database().await;
    let (old, new) = (Arc::new(World::default()), Arc::new(World::default()));
    let replaced = start(&url, 1, PENDING, &old);
    take(&replaced, &old, 10);
    written(&pool, 10).await;
    let sink = start(&url, 2, PENDING, &new);
    new.next(&[]);
    pool.execute("DELETE FROM radarflow.health_events").await.unwrap();
    take(&sink, &new, 2);
    until("it is filled", || async { sink.applied().up() }).await;
    // Also after its connection was lost, which must not make it take over again.
    pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await
    .unwrap();
    take(&replaced, &old, 10);
    until("it stops", || async { !replaced.applied().up() && replaced.applied().get() == 20 }).await;
    take(&sink, &new, 10);
    written(&pool, 13).await;
    until("the new one goes on", || async { sink.applied().up() }).await;
    new.is_in(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_restored_or_made_anew_meanwhile_is_filled() {
    let (url, pool) = database().await;
    let world = Arc::new(World::default());
    let sink = start(&url, 1, PENDING, &world);
    take(&sink, &world, 10);
    written(&pool, 10).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for put_back in [
        "DELETE FROM radarflow.health_events WHERE epoch > 5; DELETE FROM radarflow.device_groups;
         UPDATE radarflow.sink_progress SET frontier = 5",
        "TRUNCATE radarflow.health_events, radarflow.device_groups, radarflow.sink_progress",
    ] {
        let mut connection = pool.acquire().await.unwrap();
        connection.execute("BEGIN; LOCK TABLE radarflow.sink_progress").await.unwrap();
        connection.execute(put_back).await.unwrap();
        connection.execute(cut).await.unwrap();
        connection.execute("COMMIT").await.unwrap();
        take(&sink, &world, 10);
        let epoch = world.epoch();
        written(&pool, epoch).await;
        world.is_in(&pool).await;
    }
}

/// A row of a table of state, with texts by the name of their column, and instants far away.
fn row(table: Table, text: impl Fn(&str) -> String) -> StateRow {
    let column = |column: radarflow_proto::rows::Column| -> ArrayRef {
        match column.data_type {
            DataType::Utf8 => Arc::new(StringArray::from(vec![text(column.name)])),
            DataType::Int64 => Arc::new(Int64Array::from(vec![7])),
            DataType::Float64 => Arc::new(Float64Array::from(vec![0.5])),
            DataType::Boolean => Arc::new(BooleanArray::from(vec![true])),
            DataType::Timestamp(..) => Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC")),
            DataType::List(_) => {
                let mut list = ListBuilder::new(StringBuilder::new());
                list.values().append_value(text(column.name));
                list.append(true);
                Arc::new(list.finish())
            }
            DataType::Map(..) => {
                let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
                map.keys().append_value(text(column.name));
                map.values().append_value(text(column.name));
                map.append(true).unwrap();
                Arc::new(map.finish())
            }
            other => panic!("{other}"),
        }
    };
    let batch = RecordBatch::try_from_iter(table.columns().into_iter().map(|c| (c.name, column(c)))).unwrap();
    StateRow::read(table, &batch, 0).expect("a table of state")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_table_come_and_go_whichever_column_of_their_key_is_empty_and_whatever_it_holds() {
    let (url, pool) = database().await;
    let world = Arc::new(World::default());
    let sink = start(&url, 1, PENDING, &world);
    let texts = ["", "a", "\t", "a\nb", "\r\n", "\\", "\\N", "\\.", "\u{1f}", "a\u{1f}", "\u{1f}b", "\0", "\"{,}'é"];
    let mut rows: BTreeMap<(Table, String), StateRow> = BTreeMap::new();
    for table in Table::ALL.iter().copied().filter(|t| t.nature() == Nature::State) {
        for text in texts {
            for (own, other) in table.key().iter().flat_map(|key| [(*key, "x"), (*key, "")]) {
                let row = row(table, |column| {
                    if column == own || !table.key().contains(&column) { text } else { other }.into()
                });
                rows.insert((table, row.key()), row);
            }
        }
    }
    sink.take(&world.next(&[]));
    written(&pool, 1).await;
    let mut output = EpochOutput { epoch: 2, ..EpochOutput::default() };
    output.changes = rows.values().map(|row| Change::new(None, Some(row.clone())).unwrap()).collect();
    sink.take(&Arc::new(output));
    written(&pool, 2).await;
    let mut present: BTreeMap<Table, i64> = BTreeMap::new();
    rows.keys().for_each(|(table, _)| *present.entry(*table).or_default() += 1);
    for (table, rows) in &present {
        let sql = format!("SELECT count(*) FROM radarflow.{}", table.postgres());
        assert_eq!(pool.fetch_one(AssertSqlSafe(sql)).await.unwrap().get::<i64, _>(0), *rows, "{table:?}");
    }
    let ports = pool.fetch_all("SELECT DISTINCT neighbor_port_id FROM radarflow.topology_links").await.unwrap();
    let ports: std::collections::BTreeSet<String> = ports.iter().map(|r| r.get(0)).collect();
    for text in texts.iter().filter(|text| **text != "\0") {
        assert!(ports.contains(*text), "{text:?} is not among {ports:?}");
    }
    // Half of them, by key.
    let (stay, go): (Vec<_>, Vec<_>) = rows.values().enumerate().partition(|(n, _)| n % 2 == 0);
    let mut output = EpochOutput { epoch: 3, ..EpochOutput::default() };
    output.changes = go.iter().map(|(_, row)| Change::new(Some((*row).clone()), None).unwrap()).collect();
    sink.take(&Arc::new(output));
    written(&pool, 3).await;
    for table in present.keys() {
        let sql = format!("SELECT count(*) FROM radarflow.{}", table.postgres());
        let left = stay.iter().filter(|(_, row)| row.table() == *table).count() as i64;
        assert_eq!(pool.fetch_one(AssertSqlSafe(sql)).await.unwrap().get::<i64, _>(0), left, "{table:?}");
    }
    assert!(sink.applied().up());
}
