//! Sequence numbers of exporters: loss, disorder and restart told apart.

/// A message this little behind the newest is late; one that is further behind begins anew.
const LATE: u32 = 1024;
/// A gap is loss if it is smaller; a larger one is a restart.
const GAP: u32 = u32::MAX / 1024;

/// Takes in a message that bears a number and counts so many units. `next` is the number that the next should bear. Tells how
/// many units are lost, or found again where a late message fills a gap that was counted (below zero).
pub fn step(next: &mut Option<u32>, got: u32, units: u32) -> i64 {
    let ahead = next.map_or(0, |expected| got.wrapping_sub(expected));
    if ahead > u32::MAX - LATE {
        return -i64::from(units);
    }
    *next = Some(got.wrapping_add(units));
    if ahead < GAP { i64::from(ahead) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(start: u32, numbers: &[u32]) -> i64 {
        let mut next = None;
        numbers.iter().map(|n| step(&mut next, start.wrapping_add(*n), 1)).sum()
    }

    #[test]
    fn disorder_is_no_loss_nor_is_a_restart() {
        for start in [0, 7, u32::MAX - 2] {
            assert_eq!(lost(start, &[0, 1, 2, 3]), 0);
            assert_eq!(lost(start, &[0, 2, 1, 3]), 0);
            assert_eq!(lost(start, &[0, 3, 2, 1, 4]), 0);
            assert_eq!(lost(start, &[0, 1, 5, 3, 6]), 2);
            assert_eq!(lost(start, &[0, 1, 2, 500_000_000, 500_000_001]), 0);
            assert_eq!(lost(start, &[500_000_000, 0, 1]), 0);
        }
    }
}
