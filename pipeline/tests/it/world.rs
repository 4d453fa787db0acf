//! The spine in one thread, on a simulated disk, in a simulated world: the real intake, ledger, workers, collector, snapshots,
//! decisions, outbox and Postgres sink; senders, receivers, a database and followers as they may be at their worst; faults,
//! crashes, power failures and upgrades; all from one seed.
//!
//! ```sh
//! cargo test --workspace --test it simulate                     # seeds that differ from day to day do not help: 0, 1, 2, …
//! RADARFLOW_SEED=17 RADARFLOW_SEEDS=1 cargo test …              # one of them
//! RADARFLOW_SEEDS=100000 cargo test --release …                 # many
//! ```
//! What must hold, at every step ([`crate::invariants`]) and at the end:
//! - an input that was acknowledged is in the ledger from then on, once;
//! - a start finds a snapshot and all frames after it, whatever happened before; where a bit of them is not what it was, and
//!   nothing stands for what it spoilt, it says so and changes nothing;
//! - the tables are those that an undisturbed run of the same frames makes, and so are the rows that the lake has, each
//!   once under its `row_id`; Postgres has both;
//! - every notification was delivered at least once, under one key, or is known to be dead; nobody waits for another's;
//! - a follower that keeps up has every epoch once, one that does not is let go;
//! - what each part keeps is bounded, and whoever is not attacked is served as if nobody were;
//! - the clock of frames never goes back, and leaps for nobody;
//! - what was let go was needed by nobody, and what nobody needs is let go.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use radarflow_proto::frame::Slice;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::{BEGIN_MS, SimClock};
use crate::disk::SimDisk;
use crate::inputs::{self, Input};
use crate::models::{database, receivers};
use crate::process::{Outer, Process, ROOT};
use crate::restart::Older;
use crate::truth::Truth;
use crate::{faults, hostile, invariants};

/// A seed that takes longer waits for something that does not come.
const HANGS: Duration = Duration::from_secs(300);
/// Seeds of the suite.
const SEEDS: u64 = 100;

pub struct World {
    pub rng: StdRng,
    pub outer: Outer,
    pub process: Option<Process>,
    /// What was acknowledged, and in which epoch it is.
    pub acknowledged: Vec<(u64, Input)>,
    /// The directory was left by an older build.
    pub older: Option<Older>,
    /// Something is wrong now and then.
    pub troubled: bool,
    pub flooded: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let older = rng.random_bool(0.12).then(Older::read);
        let clock = Arc::new(SimClock::default());
        let disk = match &older {
            Some(older) => {
                clock.step(older.clock_ms - BEGIN_MS);
                SimDisk::holding(seed, older.files.clone())
            }
            None => SimDisk::new(seed),
        };
        let outer = Outer {
            disk,
            clock,
            truth: Arc::new(Mutex::new(Truth::default())),
            database: database::Model::new(seed),
            receivers: receivers::Model::default(),
        };
        let troubled = rng.random_bool(0.75);
        let acknowledged = Vec::new();
        let mut world = World { rng, outer, process: None, acknowledged, older, troubled, flooded: false };
        // What it leaves undone of a conversion is done by the next.
        if world.older.is_some() && world.troubled {
            world.start_in_trouble();
        } else {
            world.start();
        }
        inputs::first().into_iter().for_each(|input| world.send(input));
        world
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a process runs")
    }

    pub fn send(&mut self, input: Input) {
        let calm = input.tenant == "u";
        let process = self.process();
        let taken = process.send(input);
        let stopped = process.intake().stats().record_full.load(Ordering::Relaxed);
        assert!(taken || stopped || !calm, "one who is not attacked is refused");
    }

    /// Time passes, and the ledger has its turn.
    pub fn pass(&mut self, ms: i64) -> bool {
        let mut acknowledged = std::mem::take(&mut self.acknowledged);
        let process = self.process();
        process.pass(ms);
        let taken = process.close(&mut acknowledged);
        self.acknowledged = acknowledged;
        taken.unwrap_or(false)
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..30 => {
                for _ in 0..self.rng.random_range(1..4) {
                    let input = inputs::any(&mut self.rng, BEGIN_MS);
                    self.send(input);
                }
            }
            30..36 => {
                let friend = self.rng.random_range(0..hostile::FRIENDS);
                let tells = self.rng.random_bool(0.3);
                let rng = &mut self.rng;
                let input = if tells { hostile::tells(rng, friend) } else { hostile::counts(rng, friend) };
                self.send(input);
            }
            36..57 => {
                let ms = self.rng.random_range(0..2000);
                self.pass(ms);
            }
            57..61 => self.send(inputs::snapshot()),
            61..68 => self.process().work(),
            68..73 => {
                let epochs = self.rng.random_range(1..5);
                self.process().lake.commit(epochs);
            }
            73..77 => self.process().look(),
            77..79 => {
                self.process().trim();
            }
            79 => self.process().followers[0].read(),
            80 => self.slow_follower(),
            81 => self.set_clock(),
            82 => self.flood(),
            83 => {
                let sent = hostile::datagram(&mut self.rng);
                self.send(sent);
            }
            84 => self.storm(),
            85..90 if self.troubled => self.trouble_disk(),
            90..96 if self.troubled => self.trouble_outside(),
            96.. => self.crash(),
            _ => {}
        }
        invariants::memory(self.process());
    }

    /// Strangers want all places next to an exporter that means well, and was there before them or comes after them.
    fn flood(&mut self) {
        self.flooded = true;
        let friend = self.rng.random_range(0..hostile::FRIENDS);
        let tells = hostile::tells(&mut self.rng, friend);
        let flood = hostile::flood(&mut self.rng);
        let was_before = self.rng.random_bool(0.5);
        if was_before {
            self.send(tells.clone());
            self.pass(100);
        }
        flood.into_iter().for_each(|input| self.send(input));
        self.pass(100);
        if !was_before {
            self.send(tells);
            self.pass(100);
        }
        let counts = hostile::counts(&mut self.rng, friend);
        self.send(counts);
    }

    /// Receivers of one tenant are silent and have very much to be told, and that of another has not.
    fn storm(&mut self) {
        if self.troubled {
            let url = self.receiver();
            self.outer.receivers.is(url, receivers::Mood::Silent);
        }
        let begins = self.rng.random_bool(0.8);
        inputs::storm(begins).into_iter().for_each(|input| self.send(input));
        self.pass(100);
        self.pass(100);
        let calm = inputs::calm(&mut self.rng);
        self.send(calm);
        self.pass(1500);
        self.pass(1500);
    }

    /// One that is not always well.
    fn receiver(&mut self) -> &'static str {
        let others = inputs::RECEIVERS.iter().map(|(_, url)| *url).filter(|url| *url != inputs::WELL);
        let others: Vec<&str> = others.collect();
        others[self.rng.random_range(0..others.len())]
    }

    fn slow_follower(&mut self) {
        let follower = &self.process().followers[1];
        if follower.is_ended() { follower.resume() } else { follower.read() }
    }

    fn set_clock(&mut self) {
        const YEAR_MS: i64 = 365 * 86_400_000;
        let ms = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(-10 * YEAR_MS..10 * YEAR_MS),
            _ => self.rng.random_range(-7_200_000..100_000_000),
        };
        self.outer.clock.step(ms);
    }

    fn trouble_disk(&mut self) {
        let (rng, disk) = (&mut self.rng, &self.outer.disk);
        match rng.random_range(0..6) {
            0 => disk.failing(rng.random_range(0..400)),
            1 => disk.room_left(rng.random_range(0..4000)),
            2 | 3 => disk.fault(faults::any(rng, Path::new(ROOT))),
            _ => disk.heal(),
        }
        let sick = disk.is_sick(&Path::new(ROOT).join("staged"));
        self.process().uploads_stay |= sick;
    }

    fn trouble_outside(&mut self) {
        let url = self.receiver();
        let rng = &mut self.rng;
        let Outer { database, receivers, .. } = &self.outer;
        match rng.random_range(0..8) {
            0..3 => database.is(database::mood(rng)),
            3 => database.back_up(),
            4 => database.restore(),
            _ => receivers.is(url, receivers::mood(rng)),
        }
    }
}

/// One life of a data directory; the same for a seed, always: its frames, but for the name of the ledger, and when by the
/// machine's wall the outbox heard of its receivers.
fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..world.rng.random_range(20..90) {
        world.step();
    }
    // The world is well again: what waits is finished, by this process and by the one after it.
    world.settle(false);
    world.end_process(false);
    world.start();
    world.settle(true);
    world.end_process(true);
    world.start();
    let frames = {
        let truth = world.outer.truth.lock().unwrap();
        let said = |slice: &Slice| {
            let bodies: Vec<_> = slice.entries.iter().map(|entry| (entry.peer, entry.body.clone())).collect();
            format!("{:?} {} {bodies:?}", slice.origin, slice.first_position)
        };
        let frames = truth.frames.values().map(|frame| (frame.clock_ms, frame.slices.iter().map(said).collect()));
        let mut hasher = DefaultHasher::new();
        frames.collect::<Vec<(i64, Vec<String>)>>().hash(&mut hasher);
        hasher.finish()
    };
    world.ends();
    frames
}

/// Tells of the seed that hangs, and ends.
fn watched(seed: u64) -> u64 {
    let (done, wait) = channel::<()>();
    let watch = std::thread::spawn(move || {
        if wait.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
            eprintln!("seed {seed} hangs: RADARFLOW_SEED={seed} RADARFLOW_SEEDS=1 shows it again");
            std::process::abort();
        }
    });
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
    drop(done);
    let _ = watch.join();
    ended.unwrap_or_else(|panic| {
        eprintln!("seed {seed}: RADARFLOW_SEED={seed} RADARFLOW_SEEDS=1 shows it again");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn a_seed_is_one_life() {
    for seed in [3, 7, 8, 11] {
        assert_eq!(watched(seed), watched(seed), "seed {seed}");
    }
}

#[test]
fn simulate() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let first: u64 = number("RADARFLOW_SEED").unwrap_or(0);
    let seeds: u64 = number("RADARFLOW_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + seeds {
        watched(seed);
    }
}
