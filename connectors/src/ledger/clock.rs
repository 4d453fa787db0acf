//! The ledger's clock: advances by the monotonic clock, is slewed to wall time, never decreases.

/// Wall time further off than this is not followed; an operator decides, milliseconds.
pub const MAX_STEP_MS: i64 = 60_000;

/// What the clock shows after `elapsed_ms` of monotonic time, when the wall shows `wall_ms`. Small differences are
/// slewed, by a twentieth of the time that passed. The second value tells whether the wall is too far off to follow.
pub fn advance(clock_ms: i64, elapsed_ms: i64, wall_ms: i64) -> (i64, bool) {
    let elapsed_ms = elapsed_ms.max(0);
    let target = clock_ms + elapsed_ms;
    let drift = wall_ms - target;
    if drift.abs() > MAX_STEP_MS {
        return (target, true);
    }
    let slew = elapsed_ms / 20 + i64::from(elapsed_ms > 0);
    ((target + drift.clamp(-slew, slew)).max(clock_ms), false)
}

/// What the clock shows after a stop, and how long the gap was.
pub fn resume(last_ms: i64, wall_ms: i64) -> (i64, i64) {
    let now = wall_ms.max(last_ms);
    (now, if last_ms == 0 { 0 } else { now - last_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_drift_is_slewed_big_steps_are_not_followed() {
        assert_eq!(advance(1000, 100, 1100), (1100, false));
        assert_eq!(advance(1000, 100, 1200), (1106, false));
        assert_eq!(advance(1000, 100, 900), (1094, false));
        assert_eq!(advance(1000, 100, 1000 + 3_600_000), (1100, true));
        assert_eq!(advance(1000, 0, 0), (1000, false));
        assert_eq!(resume(0, 5000), (5000, 0));
        assert_eq!(resume(9000, 5000), (9000, 0));
    }
}
