//! Those outside, as they may be at their worst: they outlive every process, and remember what they were given.

pub mod database;
pub mod follower;
pub mod lake;
pub mod receivers;
