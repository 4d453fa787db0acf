//! The ledger, the sources and the sinks: everything that touches the world.
