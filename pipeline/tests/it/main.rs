//! The simulator: see [`world`].

mod disk;
mod inputs;
mod lake;
mod world;
