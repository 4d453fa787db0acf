//! The clocks of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use radarflow_proto::clock::Clock;

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Asks the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }

    fn monotonic_ms(&self) -> i64 {
        // The kernel has had this clock since 2.6.39; the call cannot fail where it is there.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| t.tv_sec() * 1000 + t.tv_nsec() / 1_000_000)
    }

    fn boot_id(&self) -> Option<String> {
        let id = std::fs::read_to_string(BOOT_ID).ok()?;
        let id = id.trim();
        (!id.is_empty()).then(|| id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_the_time_and_which_boot_it_is() {
        let clock = SystemClock;
        let (wall, monotonic) = (clock.wall_ms(), clock.monotonic_ms());
        assert!(wall > 1_500_000_000_000 && monotonic > 0);
        assert!(clock.monotonic_ms() >= monotonic);
        assert_eq!(clock.boot_id(), clock.boot_id());
    }
}
