//! The seeded network generator and the benchmarks.
