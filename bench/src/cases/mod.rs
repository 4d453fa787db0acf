//! One file a case.

pub(crate) mod decode;
pub(crate) mod identity;
pub(crate) mod ingest;
pub(crate) mod junk;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod query;
pub(crate) mod resources;
pub(crate) mod rules;
pub(crate) mod stalls;
