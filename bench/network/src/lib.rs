//! A realistic network, seeded: what it is ([`devices`]) and the bytes it sends ([`packets`]). The demonstration, the
//! benchmarks and tests use the same one; equal seeds give equal bytes.
//!
//! ```
//! use radarflow_network::devices::Network;
//!
//! let network = Network::new(1, 100, 1_700_000_000);
//! assert_eq!(network.devices[0].armis(), Network::new(1, 100, 1_700_000_000).devices[0].armis());
//! ```
#![forbid(unsafe_code)]

pub mod addresses;
pub mod devices;
pub mod packets;
