//! Counters that agents read, with their rates; ways to targets, with their changes.
//!
//! ```text
//! samples of a target ─► [rates: a share of a tenant's counters] ─► rows
//! traces              ─► [paths: a share of a tenant's targets]  ─► events: another path
//! ```
//! What a rate is, [`radarflow_reconcile::rates`] says. Samples of one target come together, so that what its `sysUpTime` or one
//! counter tells of the device holds of all. What is kept is bounded by tenant and share, and ends when it is not heard any more.

mod paths;
mod rates;

use std::net::IpAddr;

use arrow_array::RecordBatch;
use radarflow_proto::rows::TimeseriesMetric;
use serde::{Deserialize, Serialize};

use crate::collection::Events;
use crate::keyed::{Context, Keyed, machine};
use crate::output::DerivedRow;
use crate::strangers::bucket_of_text;
pub use paths::{MAX_BYTES_OF_SHARE as PATHS_BYTES_OF_SHARE, MAX_HOPS, MAX_PATHS_OF_SHARE, Walked};
pub use rates::{FORGET_MS, MAX_BYTES_OF_SHARE as RATES_BYTES_OF_SHARE, MAX_SERIES_OF_SHARE, Sample, Samples, Spoken};

/// A tenant's share: which one a target is in, its name alone says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Share {
    /// Customer.
    pub tenant: String,
    /// Which of its shares.
    pub share: u64,
}

impl Share {
    /// The share of what an agent looks at.
    pub fn of(tenant: &str, target: &Target) -> Self {
        let Target { partition, agent_id, name } = target;
        let share = bucket_of_text(&format!("{partition}\0{agent_id}\0{name}"));
        Share { tenant: tenant.to_owned(), share }
    }
}

/// What an agent looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Site.
    pub partition: String,
    /// The agent.
    pub agent_id: String,
    /// What it calls it.
    pub name: String,
}

/// What is measured.
pub struct Inputs<'scope> {
    /// Samples, and what is known of interfaces, by share.
    pub samples: Events<'scope, Keyed<Share, Spoken>>,
    /// Traces, by share.
    pub walked: Events<'scope, Keyed<Share, Walked>>,
}

/// What comes of it.
pub struct Outputs<'scope> {
    /// Samples with their rates.
    pub rows: Events<'scope, Rated>,
    /// Changes of paths.
    pub events: Events<'scope, DerivedRow>,
}

/// Rows of [`TimeseriesMetric`] of one tenant and site.
#[derive(Clone, Debug)]
pub struct Rated {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The rows.
    pub rows: RecordBatch,
    /// The address that each is about.
    pub ips: Vec<Option<IpAddr>>,
}

/// A row that is to have its rate.
pub type Unrated = Box<TimeseriesMetric>;

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    Outputs {
        rows: machine(inputs.samples, cx, rates::Rates(cx.shared_sizes())),
        events: machine(inputs.walked, cx, paths::Paths(cx.shared_sizes())),
    }
}
