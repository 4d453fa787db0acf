//! The clocks of the machine, as a port: what asks for the time is handed one, and a test hands it another. And the
//! ledger's clock, as those see it who decide about it.

/// What the clocks of a machine show.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, milliseconds since 1970. People and time servers set it, forward and back.
    fn wall_ms(&self) -> i64;
    /// Milliseconds since an arbitrary instant of this boot. Nobody sets it, and it counts suspend.
    fn monotonic_ms(&self) -> i64;
    /// Names this boot: values of [`Clock::monotonic_ms`] compare within one boot only. `None` where it is not known.
    fn boot_id(&self) -> Option<String>;
}

/// What the ledger's clock shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The clock, milliseconds since 1970.
    pub clock_ms: i64,
    /// How far the wall is ahead of it, milliseconds, where it does not follow the wall; else 0.
    pub held_by_ms: i64,
}

/// The ledger's clock.
pub trait LedgerClock: Send + Sync + 'static {
    /// What it shows.
    fn shown(&self) -> Shown;
    /// From the next frame on it follows the wall, which shows `wall_ms` now: an operator says that this is right.
    fn accept(&self, wall_ms: i64);
}
