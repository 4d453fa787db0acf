//! The simulator: see [`world`].

#![allow(unreachable_pub)]

mod disk;
mod inputs;
mod lake;
mod upgrade;
mod world;
