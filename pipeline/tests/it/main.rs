//! The simulator: see [`world`].

#![allow(unreachable_pub)]

mod clock;
mod directories;
mod disk;
mod ends;
mod faults;
mod hostile;
mod inputs;
mod invariants;
mod keys;
mod lake;
mod models;
mod process;
mod restart;
mod truth;
mod world;
