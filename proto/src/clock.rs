//! The clocks of the machine, as a port: what asks for the time is handed one, and a test hands it another.

/// What the clocks of a machine show.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, milliseconds since 1970. People and time servers set it, forward and back.
    fn wall_ms(&self) -> i64;
    /// Milliseconds since an arbitrary instant of this boot. Nobody sets it, and it counts suspend.
    fn monotonic_ms(&self) -> i64;
    /// Names this boot: values of [`Clock::monotonic_ms`] compare within one boot only. `None` where it is not known.
    fn boot_id(&self) -> Option<String>;
}
