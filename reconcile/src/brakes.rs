//! The brakes: how much one run may do before somebody is asked.
//!
//! A *run* is what a source says at one go: a sync with an id, or for sources that name none a minute of the clock. A
//! source's first one has nothing to be judged against and is exempt; so is one that somebody has approved.

use serde::{Deserialize, Serialize};

/// A source may lose or gain as many items in one run without anybody being asked.
pub const GUARD_ITEMS: usize = 100;
/// It may lose or gain one in so many.
pub const GUARD_SHARE: usize = 5;

/// Whether a run changes so many of a source's items that somebody is asked first.
pub fn too_many(changed: usize, of: usize) -> bool {
    changed > GUARD_ITEMS && changed.saturating_mul(GUARD_SHARE) > of
}

/// What a tenant lets a run do to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Brakes {
    /// Devices that may become part of others by one run.
    pub max_merges: u32,
    /// Records that a run may put into one device.
    pub max_component: u32,
}

impl Default for Brakes {
    fn default() -> Self {
        Brakes { max_merges: 100, max_component: 256 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_too_many_unless_it_is_few() {
        assert!(!too_many(100, 100) && !too_many(101, 505) && too_many(101, 504));
        assert!(too_many(usize::MAX, 1000));
    }
}
