//! Configuration: what a file may say ([`schema`]), how it is read ([`load`]), and what the parts make of it ([`convert`]).
//!
//! ```text
//! TOML file ─────────────► one table ─► Config ─► what each part takes
//! RADARFLOW__SECTION__KEY ─┘
//! ```
//! A variable of the environment counts before the file. Unknown keys are errors. Every mistake is told at once, with the line
//! of the file or the variable, and the field; what is wrong beyond single keys is told by [`check`], what is open and to whom by [`hardening`].

mod check;
mod convert;
mod defaults;
mod hardening;
mod load;
mod mistakes;
mod schema;
mod values;

pub(crate) use hardening::on_disk;
pub(crate) use load::{FILE, Read, data_dir, file, load, look, mapping};
pub(crate) use mistakes::{Mistake, Places};
pub(crate) use schema::{
    Armis, Config, Enrichment, Grpc, Http, Mail, Otlp, Partial, Postgres, ReceiverConfig, SnmpUser, Socket,
};
