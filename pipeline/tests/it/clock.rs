//! The clocks of a machine that somebody sets, and that reboots; and the true time, which only the simulator knows.

use std::sync::Mutex;

use radarflow_proto::clock::Clock;

/// 2024-01-01, milliseconds since 1970.
pub const BEGIN_MS: i64 = 1_704_067_200_000;

#[derive(Clone, Copy, Default)]
struct Hands {
    wall_ms: i64,
    monotonic_ms: i64,
    boot: u64,
    true_ms: i64,
}

#[derive(Default)]
pub struct SimClock(Mutex<Hands>);

impl SimClock {
    pub fn pass(&self, ms: i64) {
        let mut hands = self.0.lock().unwrap();
        hands.wall_ms += ms;
        hands.monotonic_ms += ms;
        hands.true_ms += ms;
    }

    /// Somebody sets the wall.
    pub fn step(&self, ms: i64) {
        self.0.lock().unwrap().wall_ms += ms;
    }

    /// Nothing runs for so long.
    pub fn down(&self, ms: i64, reboot: bool) {
        self.pass(ms);
        if reboot {
            let mut hands = self.0.lock().unwrap();
            (hands.monotonic_ms, hands.boot) = (0, hands.boot + 1);
        }
    }

    /// Time that passed since the beginning, milliseconds.
    pub fn true_ms(&self) -> i64 {
        self.0.lock().unwrap().true_ms
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        BEGIN_MS + self.0.lock().unwrap().wall_ms
    }

    fn monotonic_ms(&self) -> i64 {
        self.0.lock().unwrap().monotonic_ms
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.0.lock().unwrap().boot.to_string())
    }
}
