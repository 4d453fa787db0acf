//! What held at a moment is told the same with checkpoints as without, and where what came before is not kept, by them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use radarflow_connectors::sinks::lake::{Keep, Lake, open_table};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Role;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Change, IpOwnership, StateRow};
use radarflow_query::actor::Actor;
use radarflow_query::engine::Engine;
use radarflow_query::error::QueryError;
use radarflow_query::tables::live::Live;

const DAY_MS: i64 = 86_400_000;
/// A midnight, UTC.
const BEGIN_MS: i64 = 1_700_006_400_000;
const EPOCHS_A_DAY: u64 = 12;
const HOLDS: LakeTable = LakeTable::Checkpoint(radarflow_proto::rows::Table::IpOwnership);

/// By address: its owner.
type Owners = BTreeMap<String, String>;

fn row(ip: &str, uid: &str, at_ms: i64) -> StateRow {
    StateRow::from(IpOwnership {
        tenant_id: "t".into(),
        partition: "default".into(),
        ip: ip.into(),
        ip_uid: format!("sr:of-{ip}"),
        device_uid: Some(uid.into()),
        class: "inventory".into(),
        valid_from: Time::from_ms(at_ms),
        valid_to: None,
        epoch: 0,
    })
}

/// A network whose addresses change hands, by a seed; and who had them at each epoch.
struct World {
    random: u64,
    owners: BTreeMap<String, StateRow>,
    /// By epoch: its clock, and who had what from then on.
    told: Vec<(i64, Owners)>,
}

impl World {
    fn next(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// The next epoch: so many changes.
    fn tick(&mut self, changes: u64) -> EpochOutput {
        let epoch = self.told.len() as u64 + 1;
        let clock_ms = BEGIN_MS + (epoch as i64 - 1) * DAY_MS / EPOCHS_A_DAY as i64;
        let mut output = EpochOutput { epoch, clock_ms, ..EpochOutput::default() };
        let mut touched = BTreeMap::new();
        for _ in 0..changes {
            touched.insert(format!("10.0.0.{}", self.next(40)), self.next(6));
        }
        for (ip, to) in touched {
            let before = self.owners.get(&ip).cloned();
            let after = (to > 0).then(|| row(&ip, &format!("sr:{to}"), clock_ms).at(epoch));
            match &after {
                Some(row) => self.owners.insert(ip, row.clone()),
                None => self.owners.remove(&ip),
            };
            output.changes.extend(Change::new(before, after));
        }
        let owner = |(ip, row): (&String, &StateRow)| match row {
            StateRow::IpOwnership(row) => Some((ip.clone(), row.device_uid.clone()?)),
            _ => None,
        };
        self.told.push((clock_ms, self.owners.iter().filter_map(owner).collect()));
        output
    }
}

fn actor() -> Actor {
    Actor::of_role("test", "t", Role::Viewer)
}

/// Rows of an answer; nothing where that is not kept.
async fn rows(engine: &Arc<Engine>, query: &str) -> Option<Vec<String>> {
    let answer = match engine.query(&actor(), query, None, None).await {
        Ok(answer) => answer,
        Err(QueryError::Forgotten(_)) => return None,
        Err(error) => panic!("{query}: {error:?}"),
    };
    let mut rows: Vec<String> = Vec::new();
    for batch in &answer.batches {
        let text = |name: &str, row: usize| {
            let column = batch.column_by_name(name).unwrap().as_string::<i32>();
            if column.is_valid(row) { column.value(row).to_owned() } else { String::new() }
        };
        rows.extend((0..batch.num_rows()).map(|row| format!("{} {}", text("ip", row), text("device_uid", row))));
    }
    rows.sort();
    Some(rows)
}

fn at(ms: i64) -> String {
    format!("in:ip_ownership limit:1000 at:{}", Time::from_ms(ms))
}

/// Days of the checkpoints there are.
async fn days(root: &Path) -> Vec<String> {
    let table = open_table(root, HOLDS).await.unwrap();
    let files: Vec<String> = table.get_file_uris().unwrap().collect();
    let day = |file: &String| file.split("date=").nth(1).unwrap()[..10].to_owned();
    files.iter().map(day).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

async fn until(root: &Path, right: impl Fn(&[String]) -> bool) -> Vec<String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let days = days(root).await;
        if right(&days) {
            return days;
        }
        assert!(Instant::now() < end, "{days:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Kept {
    live: Arc<Live>,
    lake: Lake,
    engine: Arc<Engine>,
}

async fn open(root: &Path, keep: Keep) -> Kept {
    let live = Arc::new(Live::new(Some(root.to_owned()), 0));
    let told = live.clone();
    let on_commit = Arc::new(move |table: LakeTable, epoch| -> radarflow_proto::ports::BoxFuture<()> {
        let live = told.clone();
        Box::pin(async move { live.committed(table, epoch).await.unwrap() })
    });
    let lake = Lake::start(&radarflow_connectors::disk::os(), root, 0, keep, 64 << 20, on_commit).await.unwrap();
    let engine = Arc::new(Engine::new(live.clone(), [7; 32]).unwrap());
    Kept { live, lake, engine }
}

impl Kept {
    async fn take(&self, output: &Arc<EpochOutput>) {
        self.live.apply(output);
        tokio::task::block_in_place(|| self.lake.take(output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_held_is_told_alike_by_checkpoints_and_by_all_that_came_before() {
    let seed = std::env::var("RADARFLOW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x9e37_79b9_u64);
    eprintln!("RADARFLOW_SEED={seed}");
    let root = tempfile::tempdir().unwrap();
    let kept = open(root.path(), Keep::default()).await;
    // Knows all versions, and no checkpoint.
    let whole = Arc::new(Live::new(Some("no-lake".into()), 0));
    let oracle = Arc::new(Engine::new(whole.clone(), [7; 32]).unwrap());
    let mut world = World { random: seed, owners: BTreeMap::new(), told: Vec::new() };
    for day in 0..6 {
        for epoch in 0..EPOCHS_A_DAY {
            // The fourth day is a quiet one.
            let output = Arc::new(world.tick(if day == 3 { u64::from(epoch == 5) } else { 4 }));
            whole.apply(&output);
            kept.take(&output).await;
            if epoch == 0 || epoch == 6 {
                kept.lake.flush().await;
            }
            if epoch == 0 && day > 0 && day != 4 {
                let yesterday = Time::from_ms(output.clock_ms - 1).date();
                until(root.path(), |days| days.contains(&yesterday)).await;
            }
        }
    }
    let all = days(root.path()).await;
    assert_eq!(all.len(), 4, "a quiet day is not worth one: {all:?}");

    let now = world.told.last().unwrap().0;
    let same = async |kept: &Kept, from_ms: i64| {
        let mut forgotten = 0;
        for (clock_ms, owners) in &world.told {
            let expected: Vec<String> = owners.iter().map(|(ip, uid)| format!("{ip} {uid}")).collect();
            let before = rows(&oracle, &at(clock_ms - 1)).await.unwrap();
            for (ms, expected) in [(*clock_ms, &expected), (clock_ms - 1, &before)] {
                let said = rows(&kept.engine, &at(ms)).await;
                forgotten += usize::from(said.is_none());
                assert_eq!(said.as_ref(), (ms >= from_ms).then_some(expected), "at {}", Time::from_ms(ms));
            }
        }
        // Who had which address between two moments, and since when.
        let range = |from: i64, to: i64| {
            format!("in:ip_ownership limit:1000 time:[{},{}]", Time::from_ms(from), Time::from_ms(to))
        };
        let first = from_ms.max(BEGIN_MS);
        for (from, to) in [(first, now), (now - DAY_MS, now), (first + DAY_MS / 3, first + DAY_MS)] {
            let query = range(from, to);
            assert_eq!(rows(&kept.engine, &query).await, rows(&oracle, &query).await, "{query}");
        }
        forgotten
    };
    assert_eq!(same(&kept, i64::MIN / 4).await, 0);

    // Only what the last three days and a half held is kept: what came before is told by the checkpoint before them.
    drop(kept);
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 - (now - 7 * DAY_MS / 2);
    let keep = Keep { history: Some(Duration::from_millis(age as u64)), begin: Duration::ZERO, ..Keep::default() };
    let base = Time::from_ms(BEGIN_MS + DAY_MS).date();
    // Histories are looked at before checkpoints: it takes two looks.
    for first in [Some(&base), None] {
        let kept = open(root.path(), keep).await;
        until(root.path(), |days| days.first() == Some(&base)).await;
        let history = LakeTable::History(HOLDS.table());
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let table = open_table(root.path(), history).await.unwrap();
            let told = |day: &String| table.get_file_uris().unwrap().any(|uri| uri.contains(&format!("date={day}")));
            if first.is_some_and(&told) || (first.is_none() && !told(&base)) {
                break;
            }
            assert!(Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let output = EpochOutput { epoch: world.told.len() as u64, clock_ms: now, ..EpochOutput::default() };
        kept.live.apply(&Arc::new(output));
        let begins = BEGIN_MS + 2 * DAY_MS;
        while rows(&kept.engine, &at(begins - 1)).await.is_some() {
            assert!(Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(same(&kept, begins).await > 0);
        // Who asks of more is told that it is not all there was.
        for (from, warned) in [(begins, false), (begins - 1, true)] {
            let query = format!("in:ip_ownership time:[{},] limit:1", Time::from_ms(from));
            let answer = kept.engine.query(&actor(), &query, None, None).await.unwrap();
            let said = answer.meta.warnings.iter().any(|warning| warning.contains("is not kept"));
            assert_eq!(said, warned, "{:?}", answer.meta.warnings);
        }
    }
}
