//! A realistic network, seeded: what it is ([`network`]) and the bytes it sends ([`packets`]). The demonstration and the
//! benchmarks use the same one; equal seeds give equal bytes.
#![forbid(unsafe_code)]

pub mod network;
pub mod packets;
