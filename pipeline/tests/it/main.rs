//! The simulator: see [`world`].

#![allow(unreachable_pub)]

mod directories;
mod disk;
mod inputs;
mod lake;

mod world;
