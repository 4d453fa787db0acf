//! What spans say of traces, and points of sums of rates.
//!
//! ```text
//! spans  ─► [summaries: spans by trace] ─► rows of trace_summaries Δ
//! points ─► [sums: the newest of each series] ─► rows of otel_metrics, with what was added
//! ```

mod places;
mod series;
mod traces;

use radarflow_proto::rows::StateRow;
use serde::{Deserialize, Serialize};

use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, machine};
use crate::strangers::bucket_of_bytes;
use series::Sums;
pub(crate) use series::per_second;
pub use series::{Added, Counted, MAX_BYTES as MAX_SERIES_BYTES};
use traces::Summaries;
pub use traces::{KEPT_MS, MAX_BYTES as MAX_TRACES_BYTES, MAX_SERVICES, MAX_SPANS, QUIET_MS, Root, SpanHeard};

/// Bytes of a name that are kept.
const MAX_NAME: usize = 256;

/// A share of a tenant's traces, or series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Share {
    tenant: String,
    bucket: u64,
}

impl Share {
    /// The share that an id belongs to.
    pub fn of(tenant: &str, id: &[u8; 16]) -> Self {
        Share { tenant: tenant.to_owned(), bucket: bucket_of_bytes(id) }
    }
}

/// What is read.
pub struct Inputs<'scope> {
    /// Spans, by trace.
    pub spans: Events<'scope, Keyed<Share, SpanHeard>>,
    /// Points of sums, by series.
    pub points: Events<'scope, Keyed<Share, Counted>>,
}

/// What comes of it.
pub struct Outputs<'scope> {
    /// Summaries of traces.
    pub rows: Rel<'scope, StateRow>,
    /// Points with what was added.
    pub points: Events<'scope, Vec<Added>>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let summaries = machine(inputs.spans, cx, Summaries(cx.shared_sizes()));
    Outputs { rows: collected(summaries, Some), points: machine(inputs.points, cx, Sums(cx.shared_sizes())) }
}

/// A name, cut where it is too long.
fn short(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME)].to_owned()
}
