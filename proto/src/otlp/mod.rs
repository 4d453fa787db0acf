//! OTLP: logs, traces and metrics as OpenTelemetry's SDKs and collectors send them (its protocol 1.x), by protobuf or JSON.
//!
//! ```text
//! request = (resource · (scope · record*)*)*      a record: a log record, a span, a data point of a metric
//! ```
//! [`read`] goes through a request and gives its records one by one. What is wrong with one, or with the resource, scope or
//! metric that it belongs to, is that one's alone ([`Refused`]); a request in which records cannot be told apart is refused
//! whole ([`Malformed`]). It is a pure function of the bytes: what the sender is told at the socket is what becomes of the request in
//! the dataflow.
//!
//! Every row repeats what its resource and scope say, so rows take more than the request does. They are bounded:
//! [`ROWS_FACTOR`] times the request and [`MAX_ROWS_BYTES`], as they are when they are decoded, [`value::MAX_ATTRIBUTES`], [`value::MAX_DEPTH`], [`records::MAX_OF_SPAN`]. Texts that are no
//! UTF-8 have what is wrong in them replaced.

pub mod fields;
pub mod json;
pub mod points;
pub mod records;
#[cfg(test)]
mod tests;
pub mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::frame::Kind;
pub use fields::Malformed;
use fields::{Fields, Value};
pub use points::{Metric, Point};
pub use records::{LogRecord, Span};
use value::{Attributes, attribute};

/// Largest request, bytes, inflated.
pub const MAX_REQUEST: usize = 16 << 20;
/// What the rows of one request may take, bytes; records beyond it are refused.
pub const MAX_ROWS_BYTES: usize = 64 << 20;
/// What they may take for each of its bytes: of points of 60 bytes whose resource has 3,000, it is about 80.
pub const ROWS_FACTOR: usize = 128;
/// What they may take however small it is.
const LEAST_ROWS_BYTES: usize = 1 << 10;
/// What a row takes beside what is said in it, about.
const ROW_BYTES: usize = 256;
/// What an attribute takes beside its name and value: of a resource or scope in a row, of a record while it is decoded.
const COLUMN_BYTES: usize = 16;
const ENTRY_BYTES: usize = 96;

/// What attributes take, each so much beside what it says.
fn taken((attributes, _): &Attributes, each: usize) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len() + each).sum()
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Log records.
    Logs,
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 3] = [Signal::Logs, Signal::Traces, Signal::Metrics];

    /// How the ledger tells its requests.
    pub fn kind(self) -> Kind {
        match self {
            Signal::Logs => Kind::OtlpLogs,
            Signal::Traces => Kind::OtlpTraces,
            Signal::Metrics => Kind::OtlpMetrics,
        }
    }
}

/// Who says what records say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Names and values.
    pub attributes: Arc<Attributes>,
}

impl Resource {
    /// An attribute.
    pub fn get(&self, name: &str) -> Option<String> {
        self.attributes.0.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

/// The library that says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Names and values.
    pub attributes: Arc<Attributes>,
}

/// One thing that a request says.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'m> {
    /// A log record.
    Log(LogRecord),
    /// A span.
    Span(Span),
    /// A data point, and of which metric.
    Point(&'m Metric, Point),
}

impl Record<'_> {
    /// What it takes in a row, and while it is decoded.
    fn bytes(&self) -> usize {
        let some = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Record::Log(log) => {
                let texts = [&log.severity_text, &log.trace_id, &log.span_id, &log.event_name];
                log.body.len() + texts.into_iter().map(some).sum::<usize>() + taken(&log.attributes, ENTRY_BYTES)
            }
            Record::Span(span) => {
                let texts = [&span.trace_state, &span.events, &span.links, &span.status_message];
                span.name.len() + texts.into_iter().map(some).sum::<usize>() + taken(&span.attributes, ENTRY_BYTES)
            }
            Record::Point(metric, point) => {
                let texts = [&metric.description, &metric.unit, &point.distribution, &point.exemplars];
                metric.name.len() + texts.into_iter().map(some).sum::<usize>() + taken(&point.attributes, ENTRY_BYTES)
            }
        }
    }
}

/// Why a record is refused.
pub type Refused = Malformed;

const TOO_MUCH: Malformed =
    Malformed("the rows of a request take 128 times as much as it, and 64 MiB, at most: send less at once");

/// A record of a request, its bytes, and who says it.
pub struct Said<'a, 'r> {
    /// Who.
    pub resource: &'r Resource,
    /// By which library.
    pub scope: &'r Scope,
    /// The record as it came.
    pub bytes: &'a [u8],
    /// What it says.
    pub record: Result<Record<'r>, Refused>,
}

/// The request as protobuf: requests are that already, or JSON, which begins with a brace.
///
/// # Errors
/// Why JSON is none of this signal.
pub fn protobuf(signal: Signal, body: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    match body.first() {
        Some(b'{') => json::to_protobuf(signal, body).map(Cow::Owned),
        _ => Ok(Cow::Borrowed(body)),
    }
}

/// The messages of one field of a message.
fn messages(message: &[u8], wanted: u32) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields::of(message).filter_map(move |field| match field {
        Ok((number, value)) => (number == wanted).then(|| value.bytes()),
        Err(error) => Some(Err(error)),
    })
}

/// The last message of one field of a message; empty where there is none.
fn last(message: &[u8], wanted: u32) -> Result<&[u8], Malformed> {
    messages(message, wanted).try_fold(&[][..], |_, next| next)
}

/// Goes through a request of protobuf; gives what its rows take.
///
/// # Errors
/// [`Malformed`] where its records cannot be told apart; then none was given.
pub fn read<'a>(signal: Signal, request: &'a [u8], each: &mut dyn FnMut(Said<'a, '_>)) -> Result<usize, Malformed> {
    // The whole of it before any record of it.
    for of_resource in messages(request, 1) {
        let of_resource = of_resource?;
        last(of_resource, 1)?;
        for of_scope in messages(of_resource, 2) {
            let of_scope = of_scope?;
            last(of_scope, 1)?;
            messages(of_scope, 2).try_for_each(|record| record.map(drop))?;
        }
    }
    let room = (request.len() * ROWS_FACTOR).clamp(LEAST_ROWS_BYTES, MAX_ROWS_BYTES);
    let mut left = room;
    for of_resource in messages(request, 1) {
        let of_resource = of_resource?;
        let by = last(of_resource, 1)?;
        let resource = resource(by);
        for of_scope in messages(of_resource, 2) {
            let of_scope = of_scope?;
            let with = last(of_scope, 1)?;
            let scope = scope(with);
            let wrong = resource.as_ref().err().or(scope.as_ref().err()).copied();
            let (nobody, nothing) = (Resource::default(), Scope::default());
            let (resource, scope) = (resource.as_ref().unwrap_or(&nobody), scope.as_ref().unwrap_or(&nothing));
            let names = scope.name.as_ref().map_or(0, String::len) + scope.version.as_ref().map_or(0, String::len);
            let around =
                ROW_BYTES + names + taken(&resource.attributes, COLUMN_BYTES) + taken(&scope.attributes, COLUMN_BYTES);
            let mut one = |bytes: &'a [u8], read: Result<Record<'_>, Malformed>| {
                let record = match (wrong, read) {
                    (Some(wrong), _) | (None, Err(wrong)) => Err(wrong),
                    (None, Ok(record)) => match left.checked_sub(around + record.bytes()) {
                        Some(rest) => {
                            left = rest;
                            Ok(record)
                        }
                        None => Err(TOO_MUCH),
                    },
                };
                each(Said { resource, scope, bytes, record });
            };
            for record in messages(of_scope, 2) {
                let bytes = record?;
                match signal {
                    Signal::Logs => one(bytes, records::log(bytes).map(Record::Log)),
                    Signal::Traces => one(bytes, records::span(bytes).map(Record::Span)),
                    Signal::Metrics => match points::metric(bytes) {
                        Err(error) => one(bytes, Err(error)),
                        Ok((metric, data)) => {
                            for point in messages(data, 1) {
                                match point {
                                    Ok(bytes) => {
                                        let point = points::point(metric.kind, bytes);
                                        one(bytes, point.map(|point| Record::Point(&metric, point)));
                                    }
                                    Err(error) => one(bytes, Err(error)),
                                }
                            }
                        }
                    },
                }
            }
        }
    }
    Ok(room - left)
}

/// What becomes of the records of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Records that become rows.
    pub accepted: u64,
    /// Records that do not.
    pub rejected: u64,
    /// Why the first of these does not.
    pub why: Option<Refused>,
}

/// Counts the records of a request, as it came.
///
/// # Errors
/// Why it is refused whole.
pub fn count(signal: Signal, body: &[u8]) -> Result<Counted, String> {
    let request = protobuf(signal, body)?;
    let mut counted = Counted::default();
    let each = &mut |said: Said<'_, '_>| match said.record {
        Ok(_) => counted.accepted += 1,
        Err(why) => {
            counted.rejected += 1;
            counted.why.get_or_insert(why);
        }
    };
    read(signal, &request, each).map_err(|malformed| malformed.to_string())?;
    Ok(counted)
}

fn resource(message: &[u8]) -> Result<Resource, Malformed> {
    let mut attributes = Attributes::default();
    for field in Fields::of(message) {
        match field? {
            (1, pair) => attribute(pair, &mut attributes)?,
            (2, dropped) => more(&mut attributes, dropped)?,
            _ => {}
        }
    }
    Ok(Resource { attributes: attributes.into() })
}

fn scope(message: &[u8]) -> Result<Scope, Malformed> {
    let (mut scope, mut attributes) = (Scope::default(), Attributes::default());
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    for field in Fields::of(message) {
        match field? {
            (1, name) => scope.name = some(name.text()?),
            (2, version) => scope.version = some(version.text()?),
            (3, pair) => attribute(pair, &mut attributes)?,
            (4, dropped) => more(&mut attributes, dropped)?,
            _ => {}
        }
    }
    Ok(Scope { attributes: attributes.into(), ..scope })
}

fn more((_, dropped): &mut (BTreeMap<String, String>, u64), value: Value<'_>) -> Result<(), Malformed> {
    *dropped = dropped.saturating_add(value.number()?);
    Ok(())
}
