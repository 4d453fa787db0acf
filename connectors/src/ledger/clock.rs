//! The ledger's clock. It never decreases and never stands still; it follows the wall clock where that can be believed.
//!
//! It advances by the machine's monotonic clock, which counts suspend and which nobody sets, and is slewed towards the
//! wall by a [`SLEW`]th of the time that passes. Where the wall is further off than [`MAX_STEP_MS`] the clock is *held*: it
//! goes on by the monotonic clock, at its rate, until the wall is near again or an operator accepts the wall.
//!
//! | what happened | what the clock does |
//! |---|---|
//! | the machine was suspended | follows: the monotonic clock agrees with the wall |
//! | the wall leapt | held |
//! | the wall leapt and was accepted | forward: leaps to it; back: waits for it by the slew, an hour takes twenty |
//! | a stop within one boot | the monotonic clock says how long it was; a wall that disagrees is held |
//! | a stop over a reboot | the wall says how long it was, if that is at most [`MAX_GAP_MS`]; else held |
//! | it was held when it stopped, and the wall still runs as it did | held |
//! | at a reboot the wall is behind, as without a battery | held, until the wall is set to what the row above allows |
//!
//! **Gaps.** Time in which nobody could have heard anything is a gap of the frame, so that silence is not counted while
//! the process was down, the machine slept, or the clock leapt.
//!
//! All of this is a function of the readings: [`Follower::resume`] and [`Follower::advance`] ask no clock. [`Timekeeping`]
//! asks it for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use radarflow_proto::clock::Clock;
use radarflow_proto::disk::{Disk, unfinished};
use serde::{Deserialize, Serialize};

use super::checked;

/// Wall time further off than this is not followed; an operator decides, milliseconds.
pub const MAX_STEP_MS: i64 = 60_000;
/// A stop over a reboot that was longer than this is not believed; an operator decides, milliseconds.
pub const MAX_GAP_MS: i64 = 30 * 86_400_000;
/// The clock is at most a so-manieth faster or slower than time.
pub const SLEW: i64 = 20;
/// Where the clocks stood is kept at most this often, milliseconds.
const KEEP_EVERY_MS: i64 = 5_000;
/// The clock of a ledger whose frames tell no time yet, as `radarflow token create` begins one, at most.
const NO_TIME_MS: i64 = 1;

/// What the machine's clocks show at one moment, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The time of day.
    pub wall_ms: i64,
    /// Since this boot, suspend included.
    pub monotonic_ms: i64,
}

impl Reading {
    /// Reads them.
    pub fn of(clock: &dyn Clock) -> Self {
        Reading { wall_ms: clock.wall_ms(), monotonic_ms: clock.monotonic_ms() }
    }

    /// How far the wall is ahead of the monotonic clock: what changes only when the wall is set.
    fn offset(self) -> i64 {
        self.wall_ms - self.monotonic_ms
    }
}

/// The time of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTime {
    /// What the ledger's clock shows.
    pub clock_ms: i64,
    /// How much of the time since the last frame nobody could have heard anything.
    pub gap_ms: i64,
    /// How far the wall is ahead of the clock, where it is held; else 0.
    pub held_by_ms: i64,
}

/// The ledger's clock at one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    clock_ms: i64,
    /// The machine's clocks then.
    at: Reading,
    /// The wall that an operator accepted, as its offset from the monotonic clock; until it is followed.
    accepted: Option<i64>,
    /// The wall has been behind since a reboot, so it does not say how long the stop was.
    unset: bool,
}

/// What is kept beside the ledger, so that the next start knows how long it was down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The boot that the monotonic clock counts in.
    pub boot_id: Option<String>,
    /// The clock.
    pub follower: Follower,
}

impl Follower {
    /// The clock at a start. `last_ms` is that of the ledger's last frame, 0 for none.
    pub fn resume(last_ms: i64, kept: Option<&Kept>, boot_id: Option<&str>, now: Reading) -> (Follower, FrameTime) {
        if last_ms <= NO_TIME_MS {
            let clock_ms = now.wall_ms.max(last_ms);
            let follower = Follower { clock_ms, at: now, accepted: None, unset: false };
            return (follower, FrameTime { clock_ms, gap_ms: 0, held_by_ms: 0 });
        }
        let same_boot = |kept: &&Kept| {
            let same = kept.boot_id.is_some() && kept.boot_id.as_deref() == boot_id;
            same && now.monotonic_ms >= kept.follower.at.monotonic_ms
        };
        let at_start = match (kept.filter(same_boot), kept) {
            (Some(kept), _) => {
                let down_ms = now.monotonic_ms - kept.follower.at.monotonic_ms;
                Follower { clock_ms: kept.follower.clock_ms + down_ms, at: now, ..kept.follower }
            }
            (None, Some(kept)) if kept.follower.ran_from(now.wall_ms) => {
                let down_ms = (now.wall_ms - kept.follower.at.wall_ms).min(MAX_GAP_MS);
                Follower { clock_ms: kept.follower.clock_ms + down_ms, at: now, accepted: None, unset: false }
            }
            (None, _) => {
                let believed = (last_ms..=last_ms + MAX_GAP_MS).contains(&now.wall_ms);
                let unset = now.wall_ms < last_ms - MAX_STEP_MS;
                Follower { clock_ms: if believed { now.wall_ms } else { last_ms }, at: now, accepted: None, unset }
            }
        };
        let at_start = Follower { clock_ms: at_start.clock_ms.max(last_ms), ..at_start };
        let (follower, told) = at_start.advance(now);
        (follower, FrameTime { gap_ms: told.clock_ms - last_ms, ..told })
    }

    /// The clock at the next frame.
    pub fn advance(self, now: Reading) -> (Follower, FrameTime) {
        let elapsed = (now.monotonic_ms - self.at.monotonic_ms).max(0);
        let target = self.clock_ms + elapsed;
        let ahead = now.wall_ms - target;
        let unheard = if elapsed > MAX_STEP_MS { elapsed } else { 0 };
        let accepted = self.accepted.filter(|offset| (now.offset() - offset).abs() <= MAX_STEP_MS);
        let near = ahead.abs() <= MAX_STEP_MS;
        let leaps = ahead > MAX_STEP_MS && (accepted.is_some() || self.unset && ahead <= MAX_GAP_MS);
        let held = !near && !leaps && accepted.is_none();
        let slew = elapsed / SLEW + i64::from(elapsed > 0);
        let clock_ms = match (leaps, held) {
            (true, _) => now.wall_ms,
            (_, true) => target,
            (_, false) => (target + ahead.clamp(-slew, slew)).max(self.clock_ms),
        };
        let accepted = accepted.filter(|_| !near && !leaps);
        let follower = Follower { clock_ms, at: now, accepted, unset: self.unset && held };
        let gap_ms = if leaps { unheard + ahead } else { unheard.min(clock_ms - self.clock_ms) };
        (follower, FrameTime { clock_ms, gap_ms, held_by_ms: if held { ahead } else { 0 } })
    }

    /// The wall that the machine shows now is right: an operator says so.
    #[must_use]
    pub fn accept(self, now: Reading) -> Follower {
        Follower { accepted: Some(now.offset()), ..self }
    }

    /// Whether the clock was held with the wall ahead, and that wall has gone on since.
    fn ran_from(&self, wall_ms: i64) -> bool {
        let ahead = self.at.wall_ms - self.clock_ms;
        ahead > MAX_STEP_MS && self.accepted.is_none() && wall_ms >= self.at.wall_ms
    }
}

impl Kept {
    /// What the last process kept; `None` where there is nothing that can be read.
    pub fn read(disk: &dyn Disk, path: &Path) -> Option<Kept> {
        let bytes = disk.read_all(path).ok()?;
        let kept = checked::open(&bytes)
            .map_err(str::to_owned)
            .and_then(|json| serde_json::from_slice(json).map_err(|error| error.to_string()));
        kept.inspect_err(|error| tracing::warn!(path = %path.display(), error, "where the clocks stood is lost")).ok()
    }

    /// Keeps it. It need not be durable: a machine that loses it has rebooted, and then it says little.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
        let new = unfinished(path);
        disk.create(&new)?.append(&checked::seal(serde_json::to_vec(self)?))?;
        disk.rename(&new, path)
    }
}

/// Tells a ledger the time of its frames.
pub struct Timekeeping {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    boot_id: Option<String>,
    file: PathBuf,
    /// Of the last frame; `None` before the first of this process.
    follower: Option<Follower>,
    /// When it was kept, by the monotonic clock.
    kept_ms: Option<i64>,
}

impl Timekeeping {
    /// By this machine's clocks; where they stood is kept in `file`.
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, file: PathBuf) -> Self {
        Timekeeping { boot_id: clock.boot_id(), disk, clock, file, follower: None, kept_ms: None }
    }

    /// The monotonic clock.
    pub fn monotonic(&self) -> Duration {
        Duration::from_millis(self.clock.monotonic_ms().unsigned_abs())
    }

    /// The time of the next frame, after one at `last_ms`. It counts once it is [`Timekeeping::told`].
    pub fn next(&self, last_ms: i64) -> (Follower, FrameTime) {
        let now = Reading::of(&*self.clock);
        match self.follower {
            Some(follower) => follower.advance(now),
            None => {
                Follower::resume(last_ms, Kept::read(&*self.disk, &self.file).as_ref(), self.boot_id.as_deref(), now)
            }
        }
    }

    /// The frame of that time is durable.
    pub fn told(&mut self, follower: Follower) {
        self.follower = Some(follower);
        let now_ms = follower.at.monotonic_ms;
        if self.kept_ms.is_none_or(|kept| now_ms >= kept + KEEP_EVERY_MS) {
            self.kept_ms = Some(now_ms);
            self.keep();
        }
    }

    /// Keeps where the clocks stood at the last frame.
    pub fn keep(&self) {
        let Some(follower) = self.follower else { return };
        let kept = Kept { boot_id: self.boot_id.clone(), follower };
        if let Err(error) = kept.write(&*self.disk, &self.file) {
            tracing::warn!(path = %self.file.display(), %error, "where the clocks stand cannot be kept");
        }
    }

    /// An operator says that the wall, which showed `wall_ms`, is right. Not so if it was set since.
    pub fn accept(&mut self, wall_ms: i64) {
        let now = Reading::of(&*self.clock);
        if let Some(follower) = &mut self.follower
            && (now.wall_ms - wall_ms).abs() <= MAX_STEP_MS
        {
            *follower = follower.accept(now);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::{OsDisk, os};

    /// 2026-01-01.
    const T0: i64 = 1_767_225_600_000;
    const YEARS: i64 = 10 * 365 * 86_400_000;
    const HOUR: i64 = 3_600_000;

    fn reading(wall_ms: i64, monotonic_ms: i64) -> Reading {
        Reading { wall_ms, monotonic_ms }
    }

    /// A clock that agrees with the wall, after an hour of this boot.
    fn begun() -> Follower {
        Follower::resume(T0 - 1000, None, Some("boot"), reading(T0, HOUR)).0
    }

    fn kept(follower: Follower) -> Kept {
        Kept { boot_id: Some("boot".to_owned()), follower }
    }

    #[test]
    fn small_drift_is_slewed() {
        for (ahead, shown) in [(0, 100), (100, 106), (-100, 94), (3, 103), (-3, 97), (MAX_STEP_MS, 106)] {
            let (next, told) = begun().advance(reading(T0 + 100 + ahead, HOUR + 100));
            assert_eq!(told, FrameTime { clock_ms: T0 + shown, gap_ms: 0, held_by_ms: 0 }, "{ahead}");
            assert_eq!(next.clock_ms, told.clock_ms);
        }
    }

    #[test]
    fn a_leap_of_the_wall_is_held_until_it_is_over() {
        for leap in [MAX_STEP_MS + 1, YEARS, -MAX_STEP_MS - 1, -YEARS] {
            let mut clock = begun();
            for n in 1..=100 {
                let (next, told) = clock.advance(reading(T0 + n * 1000 + leap, HOUR + n * 1000));
                assert_eq!(told, FrameTime { clock_ms: T0 + n * 1000, gap_ms: 0, held_by_ms: leap }, "{leap}");
                clock = next;
            }
            let told = clock.advance(reading(T0 + 101_000, HOUR + 101_000)).1;
            assert_eq!(told, FrameTime { clock_ms: T0 + 101_000, gap_ms: 0, held_by_ms: 0 });
        }
    }

    #[test]
    fn a_suspended_machine_is_followed_and_its_sleep_is_a_gap() {
        let told = begun().advance(reading(T0 + 8 * HOUR, HOUR + 8 * HOUR)).1;
        assert_eq!(told, FrameTime { clock_ms: T0 + 8 * HOUR, gap_ms: 8 * HOUR, held_by_ms: 0 });
    }

    #[test]
    fn what_an_operator_accepts_is_followed() {
        // Forward at once: nothing was missed meanwhile.
        let now = reading(T0 + YEARS + 1000, HOUR + 1000);
        let (held, told) = begun().advance(now);
        assert_eq!(told.held_by_ms, YEARS);
        let (next, told) = held.accept(now).advance(reading(now.wall_ms + 100, now.monotonic_ms + 100));
        assert_eq!(told, FrameTime { clock_ms: now.wall_ms + 100, gap_ms: YEARS, held_by_ms: 0 });
        // It was that wall that was accepted, not any.
        assert_ne!(next.advance(reading(T0, HOUR + 2000)).1.held_by_ms, 0);
        let later = held.accept(now).advance(reading(now.wall_ms + YEARS, now.monotonic_ms + 100)).1;
        assert_eq!((later.clock_ms, later.held_by_ms > 0), (T0 + 1100, true));

        // Back by waiting, in twenty times the difference; never by going back.
        let mut now = reading(T0 - HOUR, HOUR);
        let mut clock = begun().accept(now);
        let mut steps = 0;
        while clock.accepted.is_some() || steps == 0 {
            now = reading(now.wall_ms + 1000, now.monotonic_ms + 1000);
            let (next, told) = clock.advance(now);
            assert!(told.clock_ms > clock.clock_ms && told.held_by_ms == 0);
            clock = next;
            steps += 1;
        }
        let expected = SLEW * (HOUR - MAX_STEP_MS) / 1000;
        assert!((expected * 9 / 10..=expected).contains(&steps), "{steps}");
    }

    #[test]
    fn within_one_boot_the_monotonic_clock_says_how_long_a_stop_was() {
        let kept = kept(begun());
        // The last frames came after what is kept.
        let last = T0 + 3000;
        let resume = |now| Follower::resume(last, Some(&kept), Some("boot"), now).1;
        let down = |ms: i64| reading(T0 + ms, HOUR + ms);
        assert_eq!(resume(down(HOUR)), FrameTime { clock_ms: T0 + HOUR, gap_ms: HOUR - 3000, held_by_ms: 0 });
        let wrong = reading(T0 + YEARS, HOUR + HOUR);
        assert_eq!(resume(wrong), FrameTime { clock_ms: T0 + HOUR, gap_ms: HOUR - 3000, held_by_ms: YEARS - HOUR });
        let behind = reading(T0 - YEARS, HOUR + HOUR);
        assert_eq!(resume(behind), FrameTime { clock_ms: T0 + HOUR, gap_ms: HOUR - 3000, held_by_ms: -YEARS - HOUR });
        // Down for years, and the wall agrees.
        assert_eq!(resume(down(YEARS)).held_by_ms, 0);
        // At once.
        assert_eq!(resume(down(1000)), FrameTime { clock_ms: last, gap_ms: 0, held_by_ms: 0 });
    }

    #[test]
    fn after_a_reboot_the_wall_is_believed_within_bounds() {
        for kept in [None, Some(kept(begun()))] {
            let resume = |wall_ms| Follower::resume(T0, kept.as_ref(), Some("next"), reading(wall_ms, 5000)).1;
            assert_eq!(resume(T0 + HOUR), FrameTime { clock_ms: T0 + HOUR, gap_ms: HOUR, held_by_ms: 0 });
            assert_eq!(resume(T0 + MAX_GAP_MS).held_by_ms, 0);
            let far = MAX_GAP_MS + 1;
            assert_eq!(resume(T0 + far), FrameTime { clock_ms: T0, gap_ms: 0, held_by_ms: far });
            assert_eq!(resume(T0 - 1000), FrameTime { clock_ms: T0, gap_ms: 0, held_by_ms: 0 });
            assert_eq!(resume(T0 - HOUR), FrameTime { clock_ms: T0, gap_ms: 0, held_by_ms: -HOUR });
        }
        // A boot nobody can name is another boot.
        let unnamed = Kept { boot_id: None, follower: begun() };
        let told = Follower::resume(T0, Some(&unnamed), None, reading(T0 + HOUR, HOUR + HOUR)).1;
        assert_eq!((told.clock_ms, told.held_by_ms), (T0 + HOUR, 0));
    }

    #[test]
    fn a_machine_without_a_battery_is_followed_once_its_wall_is_set() {
        let (mut clock, told) = Follower::resume(T0, None, Some("next"), reading(5000, 5000));
        assert_eq!(told, FrameTime { clock_ms: T0, gap_ms: 0, held_by_ms: 5000 - T0 });
        for n in 1..10 {
            clock = clock.advance(reading(5000 + n * 1000, 5000 + n * 1000)).0;
        }
        let (clock, told) = clock.advance(reading(T0 + HOUR, 15_000));
        assert_eq!(told, FrameTime { clock_ms: T0 + HOUR, gap_ms: HOUR - 10_000, held_by_ms: 0 });
        // That was the start. What follows is a leap like any other.
        assert_eq!(clock.advance(reading(T0 + 3 * HOUR, 16_000)).1.held_by_ms, 2 * HOUR - 1000);
    }

    #[test]
    fn what_was_held_stays_held_over_a_restart_and_a_reboot() {
        let held = begun().advance(reading(T0 + 48 * HOUR + 1000, HOUR + 1000)).0;
        let kept = kept(held);
        let last = T0 + 1000;
        let told = Follower::resume(last, Some(&kept), Some("boot"), reading(T0 + 48 * HOUR + 61_000, HOUR + 61_000)).1;
        assert_eq!(told, FrameTime { clock_ms: T0 + 61_000, gap_ms: 60_000, held_by_ms: 48 * HOUR });
        let told = Follower::resume(last, Some(&kept), Some("next"), reading(T0 + 48 * HOUR + 61_000, 1000)).1;
        assert_eq!(told, FrameTime { clock_ms: T0 + 61_000, gap_ms: 60_000, held_by_ms: 48 * HOUR });
        // Set right before the next start.
        for (boot, monotonic_ms) in [("boot", HOUR + 61_000), ("next", 1000)] {
            let told = Follower::resume(last, Some(&kept), Some(boot), reading(T0 + 61_000, monotonic_ms)).1;
            assert_eq!(told, FrameTime { clock_ms: T0 + 61_000, gap_ms: 60_000, held_by_ms: 0 });
        }
        // What was accepted and is waited for stays accepted.
        let now = reading(T0 - HOUR, HOUR + 1000);
        let waits = Kept { follower: held.accept(now).advance(now).0, ..kept };
        let told = Follower::resume(last, Some(&waits), Some("boot"), reading(T0 - HOUR + 9000, HOUR + 10_000)).1;
        assert_eq!(told.held_by_ms, 0);
    }

    #[test]
    fn a_ledger_that_tells_no_time_yet_begins_with_the_wall() {
        for last in [0, NO_TIME_MS] {
            let told = Follower::resume(last, None, Some("boot"), reading(T0, HOUR)).1;
            assert_eq!(told, FrameTime { clock_ms: T0, gap_ms: 0, held_by_ms: 0 });
        }
    }

    /// Clocks that show what they are set to.
    pub(crate) struct Hands(pub(crate) std::sync::Mutex<Reading>);

    impl Clock for Hands {
        fn wall_ms(&self) -> i64 {
            self.0.lock().unwrap().wall_ms
        }

        fn monotonic_ms(&self) -> i64 {
            self.0.lock().unwrap().monotonic_ms
        }

        fn boot_id(&self) -> Option<String> {
            Some("boot".to_owned())
        }
    }

    #[test]
    fn where_the_clocks_stood_is_kept_for_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        let hands = Arc::new(Hands(std::sync::Mutex::new(reading(T0, HOUR))));
        let set = |now| *hands.0.lock().unwrap() = now;
        let mut time = Timekeeping::new(os(), hands.clone(), file.clone());
        let mut last = 0;
        for n in 0..8 {
            set(reading(T0 + n * 1000, HOUR + n * 1000));
            let (follower, told) = time.next(last);
            time.told(follower);
            last = told.clock_ms;
        }
        assert_eq!(Kept::read(&OsDisk, &file).unwrap().follower.clock_ms, T0 + 5000, "not at every frame");
        time.keep();
        assert_eq!(Kept::read(&OsDisk, &file).unwrap().follower.clock_ms, last);
        // The process ends, the wall leaps, the next process starts an hour later.
        set(reading(T0 + YEARS, HOUR + HOUR));
        let mut time = Timekeeping::new(os(), hands.clone(), file.clone());
        let (follower, told) = time.next(last);
        assert_eq!(told, FrameTime { clock_ms: T0 + HOUR, gap_ms: HOUR - 7000, held_by_ms: YEARS - HOUR });
        time.told(follower);
        time.accept(T0 + HOUR);
        assert_ne!(time.next(told.clock_ms).1.held_by_ms, 0, "the wall does not show that");
        time.accept(T0 + YEARS);
        assert_eq!(time.next(told.clock_ms).1.clock_ms, T0 + YEARS);
        // What cannot be read says nothing.
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Kept::read(&OsDisk, &file), None);
    }

    /// Whatever the wall does, whenever the process stops and the machine reboots or sleeps, whoever accepts what.
    #[test]
    fn it_never_decreases_and_never_outruns_what_it_may() {
        let leaps =
            [0, 1, -1, 500, -MAX_STEP_MS, MAX_STEP_MS, -HOUR, HOUR, -YEARS, YEARS, -T0, MAX_GAP_MS, MAX_GAP_MS + 1];
        for seed in 1..200u64 {
            let mut random = seed;
            let mut pick = |n: usize| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as usize % n
            };
            let (mut clock, _) = Follower::resume(0, None, Some("0"), reading(T0, 0));
            let (mut boot, mut monotonic, mut off) = (0u32, 0, 0i64);
            let mut real = T0;
            for _ in 0..500 {
                let passed = [0, 1, 100, 1000, 1000, 1000, 61_000, HOUR][pick(8)];
                (monotonic, real) = (monotonic + passed, real + passed);
                if pick(20) == 0 {
                    off = leaps[pick(leaps.len())];
                }
                let now = reading(real + off, monotonic);
                let before = clock.clock_ms;
                let (next, told) = match pick(40) {
                    0 => {
                        let kept = Kept { boot_id: Some(boot.to_string()), follower: clock };
                        let reboot = pick(2) == 0;
                        if reboot {
                            (boot, monotonic) = (boot + 1, 0);
                        }
                        let known = if pick(4) == 0 { None } else { Some(&kept) };
                        Follower::resume(before, known, Some(&boot.to_string()), reading(real + off, monotonic))
                    }
                    1 => clock.accept(now).advance(now),
                    _ => {
                        let (next, told) = clock.advance(now);
                        assert_eq!(clock.advance(now), (next, told));
                        let leapt = clock.accepted.is_some() || clock.unset;
                        let most = passed + passed / SLEW + 1;
                        assert!(leapt || told.clock_ms - before <= most, "seed {seed}: {clock:?} {now:?} {told:?}");
                        (next, told)
                    }
                };
                assert!(told.clock_ms >= before, "seed {seed}: it decreases");
                assert_eq!(told.clock_ms, next.clock_ms);
                assert!((0..=told.clock_ms - before).contains(&told.gap_ms), "seed {seed}: {clock:?} {now:?} {told:?}");
                let is_off = (now.wall_ms - told.clock_ms).abs() > MAX_STEP_MS;
                assert_eq!(is_off && next.accepted.is_none(), told.held_by_ms != 0, "seed {seed}: {next:?} {told:?}");
                clock = next;
            }
        }
    }
}
