//! The end of a life: the world is well again, what waits is finished, and what is true is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use radarflow_connectors::ledger;
use radarflow_dataflows::decode::runs::Staging;
use radarflow_dataflows::worker::Start;
use radarflow_proto::disk::Disk;
use radarflow_proto::frame::Kind;
use radarflow_proto::rows::{Nature, StateRow, Table};
use rand::RngExt;

use crate::inputs;
use crate::models::database::Mood;
use crate::process::{ROOT, STAGED_BYTES};
use crate::truth::{Tables, Truth, undisturbed};
use crate::world::World;

/// Turns of everybody after which all that was under way is done.
const TURNS: usize = 20;
/// Time in each: a receiver that failed is left alone for longer, Postgres for shorter.
const TURN_MS: i64 = 15_000;
/// Exporters that are remembered once those that were of no use are forgotten: those of the inputs, and friends.
const EXPORTERS: i64 = 64;

impl World {
    /// The disk and all receivers are well; Postgres is only in the end.
    pub fn settle(&mut self, postgres: bool) {
        self.outer.disk.heal();
        self.outer.receivers.heal();
        self.outer.database.is(match (postgres, self.rng.random_bool(0.5)) {
            (true, _) => Mood::Well,
            (false, true) => Mood::Away,
            (false, false) => Mood::Silent,
        });
        // What the disk did before it was well is over.
        self.process().pass(60_000 * 60);
        for _ in 0..2 {
            self.send_own(inputs::snapshot());
            self.turns(postgres);
        }
        // What waits for Postgres keeps the ledger, as long as there is room for it.
        if postgres || self.process().postgres.waiting().load(Ordering::Relaxed) == 0 {
            self.is_small();
        }
        if postgres && self.flooded {
            // Who was of no use is forgotten.
            for _ in 0..11 {
                self.pass(59_000);
            }
            let exporters = self.process().exporters();
            assert!(exporters <= EXPORTERS, "{exporters} exporters are remembered");
            self.turns(postgres);
        }
        let process = self.process();
        process.followers[0].read();
        assert_eq!(process.followers[0].seen(), Some(process.live.state().0), "who keeps up has everything");
    }

    /// What nobody needs is let go, also where Postgres is away.
    fn is_small(&self) {
        let disk = &self.outer.disk;
        let snapshots = disk.list(&Path::new(ROOT).join(ledger::SNAPSHOTS)).unwrap();
        let segments = disk.list(&Path::new(ROOT).join(ledger::LOG)).unwrap();
        let few = snapshots.len() <= 12 + 2 * ledger::snapshot::MAX_RUNS && segments.len() <= 10;
        assert!(few, "it is not let go: {snapshots:?} {segments:?}");
    }

    /// Everybody has turns until nothing waits.
    fn turns(&mut self, postgres: bool) {
        for turn in 0..TURNS {
            assert!(self.pass(TURN_MS), "the ledger goes on once the disk is well");
            for _ in 0..3 {
                self.process().look();
                self.process().work();
            }
            self.process().lake.commit(usize::MAX);
            assert!(self.process().trim(), "the disk is well");
            self.process().pass(1000);
            // The first follows a long silence, which is no time for what ages while it is watched.
            if turn > 0 && self.waiting(postgres).is_empty() {
                return;
            }
        }
        panic!("not everything that waits is done: {}", self.waiting(postgres));
    }

    fn send_own(&mut self, input: inputs::Input) {
        assert!(self.process().send(input), "what people say is always taken");
    }

    fn is_in_postgres(&mut self) -> bool {
        let epoch = self.process().live.state().0;
        self.outer.database.frontier() == Some(epoch)
    }

    fn undelivered(&self) -> Vec<String> {
        let truth = self.outer.truth.lock().unwrap();
        let open = truth.due.keys().filter(|id| !truth.settled.contains_key(*id));
        open.cloned().collect()
    }

    /// What is not done.
    fn waiting(&mut self, postgres: bool) -> String {
        let mut waiting = Vec::new();
        if !self.process().is_idle() {
            waiting.push("turns".to_owned());
        }
        if postgres && !self.is_in_postgres() {
            waiting.push(format!("Postgres is at {:?}", self.outer.database.frontier()));
        }
        let undelivered = self.undelivered();
        if !undelivered.is_empty() {
            waiting.push(format!("{} notifications", undelivered.len()));
        }
        waiting.join(", ")
    }

    /// What is true at the end.
    pub fn ends(mut self) {
        let process = self.process.take().expect("a process runs");
        let (_, tables) = process.live.state();
        process.stop();
        let truth = self.outer.truth.lock().unwrap();
        for (epoch, input) in &self.acknowledged {
            let frame = &truth.frames[epoch];
            let mut entries = frame.slices.iter().filter(|s| s.origin.kind == input.kind).flat_map(|s| &s.entries);
            assert!(entries.any(|entry| entry.body == input.body), "epoch {epoch} has what was acknowledged");
        }
        let begin = match &self.older {
            Some(older) => older.begin(),
            None => Start { staging: Staging { memory_bytes: STAGED_BYTES, root: None }, ..Start::default() },
        };
        let (expected, rows) = undisturbed(begin, &truth.frames);
        same("the live tables and those of an undisturbed run", &tables, &expected);
        let lake: BTreeSet<(Table, i128)> = truth.lake.keys().copied().collect();
        same_rows("the lake and an undisturbed run", &lake, &rows);
        let kept = |table: Table| !table.postgres().is_empty();
        let of_state = expected.into_iter().filter(|((table, _), _)| kept(*table)).collect::<Tables>();
        same("Postgres and the live tables", &self.outer.database.tables(), &of_state);
        let of_events = rows.into_iter().filter(|(table, _)| kept(*table) && table.nature() == Nature::Event);
        same_rows("Postgres and an undisturbed run", &self.outer.database.events(), &of_events.collect());
        for id in truth.due.keys() {
            let dead = truth.settled.get(id) == Some(&false);
            assert!(dead || self.outer.receivers.has(id), "{id} was delivered, or is known to be dead");
        }
        balance(&truth, &tables);
    }
}

/// Two sets of tables are the same; tells where they differ first.
fn same(of: &str, left: &Tables, right: &Tables) {
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for key in keys {
        assert_eq!(left.get(key), right.get(key), "{key:?} of {of}");
    }
}

fn same_rows(of: &str, left: &BTreeSet<(Table, i128)>, right: &BTreeSet<(Table, i128)>) {
    let name = |(table, id): &(Table, i128)| format!("{table:?} {}:{}:{:x}", id >> 64, (id >> 32) as u32, *id as u32);
    let only_left: Vec<String> = left.difference(right).map(name).collect();
    let only_right: Vec<String> = right.difference(left).map(name).collect();
    assert!(only_left.is_empty() && only_right.is_empty(), "{of} differ by {only_left:?} and {only_right:?}");
}

/// What came in by datagrams is in the ledgers of those who sent it.
fn balance(truth: &Truth, tables: &Tables) {
    let mut came: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for slice in truth.frames.values().flat_map(|frame| &frame.slices) {
        if matches!(slice.origin.kind, Kind::NetFlow | Kind::Syslog) {
            *came.entry((&slice.origin.tenant, &slice.origin.feed)).or_default() += slice.entries.len() as i64;
        }
    }
    let mut counted: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for row in tables.values() {
        if let StateRow::Source(source) = row {
            *counted.entry((&source.tenant_id, &source.source)).or_default() += source.received;
        }
    }
    for (of, came) in came {
        assert_eq!(counted.get(&of), Some(&came), "what came by {of:?}");
    }
}
