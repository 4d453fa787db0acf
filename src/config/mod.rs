//! Configuration: what a file may say ([`schema`]), how it is read ([`load`]), and what the parts make of it ([`convert`]).
//!
//! ```text
//! TOML file ─────────────► one table ─► Config ─► what each part takes
//! RADARFLOW__SECTION__KEY ─┘
//! ```
//! A variable of the environment counts before the file. Unknown keys are errors. An error names the line of the file or
//! the variable, and the field.

mod convert;
mod defaults;
mod load;
mod schema;
mod values;

pub(crate) use load::{load, mapping};
pub(crate) use schema::{Armis, Config, Enrichment, Grpc, Http, Mail, Partial, Postgres, ReceiverConfig, Socket};
