//! A realistic network, seeded: what it is ([`devices`]) and the bytes it sends ([`packets`]). The demonstration, the
//! benchmarks and tests use the same one; equal seeds give equal bytes.
#![forbid(unsafe_code)]

pub mod devices;
pub mod packets;
