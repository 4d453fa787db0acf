//! Summaries of traces, from their spans as these come.
//!
//! ```text
//! trace = partition · trace id      start = min start of spans, end = max end, errors = |{span: error}|
//! spans = {(span id, kind)}         a span that comes again is the one that is there; a client's and a server's of one id are two
//! root  = the span without a parent: of several the first, then the least id
//! ```
//! None of it hangs on the order of spans. A trace is *closed* when nothing of it came for [`QUIET_MS`]; what comes later
//! corrects it, and opens it again. It is forgotten [`KEPT_MS`] after its last span, or before that where its tenant's traces
//! take too much ([`super::places`]). A span that is older than that, of a trace that is not known, begins none: it is counted.
//! Only the times of spans count that are near their receipt, and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{Real, Time};
use radarflow_proto::rows::{StateRow, TraceSummary};
use serde::{Deserialize, Serialize};

use super::places::Places;
use super::{Share, short};
use crate::keyed::{Machine, Tick};
use crate::sizes::Sizes;

/// A trace of which nothing came for so long is closed, milliseconds of live time.
pub const QUIET_MS: i64 = 30_000;
/// How long a trace is kept after its last span, milliseconds of live time.
pub const KEPT_MS: i64 = 3_600_000;
/// What the traces of a share may take: 16 MiB a tenant, and as much again as rows.
pub const MAX_BYTES: usize = 256 << 10;
/// Spans of a trace that are told apart; of more each counts that comes.
pub const MAX_SPANS: usize = 4096;
/// Services that are named of a trace.
pub const MAX_SERVICES: usize = 32;

/// A span, as far as it matters to its trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpanHeard {
    /// Site.
    pub partition: String,
    /// Its trace.
    pub trace: [u8; 16],
    /// Itself.
    pub span: [u8; 8],
    /// Its kind.
    pub kind: i64,
    /// Whose it is.
    pub service: Option<String>,
    /// When it began and ended, nanoseconds since 1970, if that can be.
    pub time_ns: Option<(i64, i64)>,
    /// Whether it ended with an error.
    pub is_error: bool,
    /// What it says of its trace, if it is part of no other span.
    pub root: Option<Root>,
    /// Who sent it.
    pub from: String,
}

/// What the root of a trace says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Root {
    /// What was done.
    pub name: String,
    /// How it ended.
    pub status: i64,
    /// What went wrong.
    pub message: Option<String>,
}

/// Which trace: its partition and id.
type TraceKey = (String, [u8; 16]);

/// What is known of a trace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Trace {
    spans: BTreeSet<(u64, i64)>,
    /// Spans beyond those that are told apart.
    more: u64,
    errors: u64,
    time_ns: Option<(i64, i64)>,
    /// When it was first heard of, nanoseconds since 1970.
    began_ns: i64,
    /// Its beginning, id, kind and service, and what it says.
    root: Option<(i64, u64, i64, Option<String>, Root)>,
    services: BTreeSet<String>,
    is_closed: bool,
}

impl Trace {
    fn new(clock_ms: i64) -> Self {
        Trace {
            spans: BTreeSet::new(),
            more: 0,
            errors: 0,
            time_ns: None,
            began_ns: clock_ms.saturating_mul(1_000_000),
            root: None,
            services: BTreeSet::new(),
            is_closed: false,
        }
    }

    fn hear(&mut self, span: SpanHeard) {
        self.is_closed = false;
        let id = u64::from_be_bytes(span.span);
        if self.spans.contains(&(id, span.kind)) {
            return;
        }
        if self.spans.len() < MAX_SPANS {
            self.spans.insert((id, span.kind));
        } else {
            self.more += 1;
        }
        self.errors += u64::from(span.is_error);
        if let Some((start, end)) = span.time_ns {
            let (first, last) = self.time_ns.unwrap_or((start, end));
            self.time_ns = Some((first.min(start), last.max(end)));
        }
        let service = span.service.as_deref().map(short);
        if self.services.len() < MAX_SERVICES {
            self.services.extend(service.clone());
        }
        if let Some(Root { name, status, message }) = span.root {
            let root = Root { name: short(&name), status, message: message.as_deref().map(short) };
            let root = (span.time_ns.map_or(i64::MAX, |(start, _)| start), id, span.kind, service, root);
            self.root = Some(self.root.take().map_or(root.clone(), |known| known.min(root)));
        }
    }

    fn bytes(&self) -> usize {
        let root = self.root.as_ref().map_or(0, |(_, _, _, service, root)| {
            root.name.len() + root.message.as_ref().map_or(0, String::len) + service.as_ref().map_or(0, String::len)
        });
        let services = self.services.iter().map(|service| 32 + service.len()).sum::<usize>();
        size_of::<Trace>() + 24 * self.spans.len() + root + services
    }

    fn row(&self, tenant: &str, (partition, trace): &TraceKey) -> TraceSummary {
        let (start, end) = self.time_ns.unwrap_or((self.began_ns, self.began_ns));
        let root = self.root.as_ref();
        TraceSummary {
            tenant_id: tenant.to_owned(),
            partition: partition.clone(),
            trace_id: hex::encode(trace),
            start_time: Time(start.div_euclid(1000)),
            end_time: Time(end.div_euclid(1000)),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            duration_ms: Real((end - start) as f64 / 1e6),
            root_span_id: root.map(|root| hex::encode(root.1.to_be_bytes())),
            root_span_name: root.map(|root| root.4.name.clone()),
            root_service_name: root.and_then(|root| root.3.clone()),
            root_span_kind: root.map(|root| root.2),
            status_code: root.map(|root| root.4.status),
            status_message: root.and_then(|root| root.4.message.clone()),
            service_set: self.services.iter().cloned().collect(),
            span_count: (self.spans.len() as u64 + self.more) as i64,
            error_count: self.errors as i64,
            is_closed: self.is_closed,
            epoch: 0,
        }
    }
}

/// The traces of a share.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Traces(Places<TraceKey, Trace>);

impl Traces {
    fn row(&self, tenant: &str, key: &TraceKey) -> Option<TraceSummary> {
        self.0.get(key).map(|trace| trace.row(tenant, key))
    }
}

/// Puts traces together.
pub(super) struct Summaries(pub(super) Arc<Sizes>);

impl Machine for Summaries {
    type Key = Share;
    type Event = SpanHeard;
    type State = Traces;
    type Output = (StateRow, isize);
    const NAME: &'static str = "traces";

    fn step(
        &mut self,
        tick: &Tick,
        share: &Share,
        state: &mut Option<Traces>,
        events: Vec<SpanHeard>,
        out: &mut Vec<(StateRow, isize)>,
    ) {
        let traces = state.get_or_insert_default();
        // Of those that change, the rows as they were.
        let mut before: BTreeMap<TraceKey, Option<TraceSummary>> = BTreeMap::new();
        let oldest_ns = (tick.clock_ms - KEPT_MS).saturating_mul(1_000_000);
        for span in events {
            let key = (span.partition.clone(), span.trace);
            if traces.0.get(&key).is_none() && span.time_ns.is_some_and(|(_, end)| end < oldest_ns) {
                self.0.late_spans().fetch_add(1, Ordering::Relaxed);
                continue;
            }
            before.entry(key.clone()).or_insert_with(|| traces.row(&share.tenant, &key));
            let from = span.from.clone();
            let new = || Trace::new(tick.clock_ms);
            traces.0.hear(key, (&from, tick.live_ms), new, |trace| trace.hear(span), Trace::bytes);
            // Nor do those of one epoch take more.
            for key in traces.0.excess_of(2 * MAX_BYTES, MAX_BYTES) {
                before.entry(key.clone()).or_insert_with(|| traces.row(&share.tenant, &key));
                traces.0.forget(&key);
                self.0.evicted().fetch_add(1, Ordering::Relaxed);
            }
        }
        let quiet = |ms: i64| tick.live_ms - ms;
        let closes = traces.0.iter().filter(|(_, at)| !at.value.is_closed && at.heard_ms <= quiet(QUIET_MS));
        for key in closes.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            before.entry(key.clone()).or_insert_with(|| traces.row(&share.tenant, &key));
            traces.0.update(&key, |trace| trace.is_closed = true);
        }
        let over = traces.0.iter().filter(|(_, at)| at.heard_ms <= quiet(KEPT_MS)).map(|(key, _)| key.clone());
        let mut goes: Vec<TraceKey> = over.collect();
        let excess = traces.0.excess(MAX_BYTES);
        self.0.evicted().fetch_add(excess.len() as u64, Ordering::Relaxed);
        goes.extend(excess);
        for key in goes {
            before.entry(key.clone()).or_insert_with(|| traces.row(&share.tenant, &key));
            traces.0.forget(&key);
        }
        for (key, before) in before {
            let after = traces.row(&share.tenant, &key);
            if after != before {
                out.extend(before.map(|row| (row.into(), -1)));
                out.extend(after.map(|row| (row.into(), 1)));
            }
        }
        if traces.0.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, traces: &Traces) -> Option<i64> {
        let due = |is_closed: bool| if is_closed { KEPT_MS } else { QUIET_MS };
        traces.0.iter().map(|(_, at)| at.heard_ms + due(at.value.is_closed)).min()
    }

    fn restored(&mut self, share: &Share, traces: &Traces, out: &mut Vec<(StateRow, isize)>) {
        out.extend(traces.0.iter().map(|(key, at)| (at.value.row(&share.tenant, key).into(), 1)));
    }
}
