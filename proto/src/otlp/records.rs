//! Log records and spans, as rows need them.

use super::fields::{Fields, Malformed, Value};
use super::value::{Attributes, attribute, comma, quote, text};

/// Events and links that are kept of a span, exemplars of a data point; more are counted as dropped.
pub const MAX_OF_SPAN: usize = 128;

/// A log record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRecord {
    /// When it happened, nanoseconds since 1970; 0 for unknown.
    pub time_ns: u64,
    /// When it was first seen, nanoseconds since 1970; 0 for unknown.
    pub observed_ns: u64,
    /// OpenTelemetry's severity, 1 (trace) to 24 (fatal); 0 for unknown.
    pub severity: u8,
    /// The sender's own word for it.
    pub severity_text: Option<String>,
    /// What it says; what is nested is JSON.
    pub body: String,
    /// Names and values.
    pub attributes: Attributes,
    /// Flags of its trace.
    pub flags: i64,
    /// Its trace, hex digits.
    pub trace_id: Option<String>,
    /// Its span, hex digits.
    pub span_id: Option<String>,
    /// The kind of event that it is.
    pub event_name: Option<String>,
}

/// A span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Itself.
    pub span_id: [u8; 8],
    /// The span that it is part of; nothing of a root.
    pub parent_id: Option<[u8; 8]>,
    /// W3C's `tracestate`.
    pub trace_state: Option<String>,
    /// What was done.
    pub name: String,
    /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i64,
    /// When it began, nanoseconds since 1970.
    pub start_ns: u64,
    /// When it ended, nanoseconds since 1970.
    pub end_ns: u64,
    /// Names and values.
    pub attributes: Attributes,
    /// What happened meanwhile, JSON.
    pub events: Option<String>,
    /// Events that the sender or we dropped.
    pub dropped_events: u64,
    /// Spans that it is linked with, JSON.
    pub links: Option<String>,
    /// Links that the sender or we dropped.
    pub dropped_links: u64,
    /// 0 unset, 1 ok, 2 error.
    pub status: i64,
    /// What went wrong.
    pub status_message: Option<String>,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// An id of so many bytes; nothing where there is none, or it is all zeros.
fn id<const N: usize>(value: Value<'_>) -> Result<Option<[u8; N]>, Malformed> {
    let bytes = value.bytes()?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let id = <[u8; N]>::try_from(bytes).map_err(|_| Malformed("an id of another length than ids have"))?;
    Ok(Some(id).filter(|id| id.iter().any(|byte| *byte != 0)))
}

/// The same, of what may be without: one of another length is none.
fn hex_id<const N: usize>(value: Value<'_>) -> Result<Option<String>, Malformed> {
    value.bytes()?;
    Ok(id::<N>(value).ok().flatten().map(hex::encode))
}

/// Reads a log record.
pub(super) fn log(message: &[u8]) -> Result<LogRecord, Malformed> {
    let mut log = LogRecord::default();
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            1 => log.time_ns = value.number()?,
            2 => log.severity = u8::try_from(value.number()?).ok().filter(|n| *n <= 24).unwrap_or(0),
            3 => log.severity_text = some(value.text()?),
            5 => log.body = text(value.bytes()?)?.unwrap_or_default(),
            6 => attribute(value, &mut log.attributes)?,
            7 => log.attributes.1 = log.attributes.1.saturating_add(value.number()?),
            8 => log.flags = (value.number()? & 0xffff_ffff) as i64,
            9 => log.trace_id = hex_id::<16>(value)?,
            10 => log.span_id = hex_id::<8>(value)?,
            11 => log.observed_ns = value.number()?,
            12 => log.event_name = some(value.text()?),
            _ => {}
        }
    }
    Ok(log)
}

/// Reads a span. One without a trace and an id of its own is none.
pub(super) fn span(message: &[u8]) -> Result<Span, Malformed> {
    let (mut span, mut trace_id, mut span_id) = (Span::default(), None, None);
    let (mut events, mut links) = (List::default(), List::default());
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            1 => trace_id = id(value)?,
            2 => span_id = id(value)?,
            3 => span.trace_state = some(value.text()?),
            4 => span.parent_id = id(value)?,
            5 => span.name = value.text()?,
            6 => span.kind = i64::try_from(value.number()?).ok().filter(|kind| *kind <= 5).unwrap_or(0),
            7 => span.start_ns = value.number()?,
            8 => span.end_ns = value.number()?,
            9 => attribute(value, &mut span.attributes)?,
            10 => span.attributes.1 = span.attributes.1.saturating_add(value.number()?),
            11 => events.push(|out| event(value.bytes()?, out))?,
            12 => span.dropped_events = value.number()?,
            13 => links.push(|out| link(value.bytes()?, out))?,
            14 => span.dropped_links = value.number()?,
            15 => {
                for field in Fields::of(value.bytes()?) {
                    match field? {
                        (2, said) => span.status_message = some(said.text()?),
                        (3, code) => {
                            span.status = i64::try_from(code.number()?).ok().filter(|c| *c <= 2).unwrap_or(0);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    span.trace_id = trace_id.ok_or(Malformed("a span without a trace"))?;
    span.span_id = span_id.ok_or(Malformed("a span without an id"))?;
    span.dropped_events = span.dropped_events.saturating_add(events.dropped);
    span.dropped_links = span.dropped_links.saturating_add(links.dropped);
    (span.events, span.links) = (events.finish(), links.finish());
    Ok(span)
}

/// JSON objects in a list, as many as are kept.
#[derive(Default)]
pub(super) struct List {
    out: String,
    kept: usize,
    pub(super) dropped: u64,
}

impl List {
    pub(super) fn push(&mut self, write: impl FnOnce(&mut String) -> Result<(), Malformed>) -> Result<(), Malformed> {
        if self.kept == MAX_OF_SPAN {
            self.dropped += 1;
            return Ok(());
        }
        self.kept += 1;
        self.out.push(if self.kept == 1 { '[' } else { ',' });
        write(&mut self.out)
    }

    pub(super) fn finish(mut self) -> Option<String> {
        self.out.push(']');
        Some(self.out).filter(|_| self.kept > 0)
    }
}

/// Appends an object of the members that there are, JSON each, and of attributes.
pub(super) fn object(members: &[(&str, Option<String>)], attributes: &Attributes, out: &mut String) {
    let attributes =
        Some(&attributes.0).filter(|all| !all.is_empty()).map(|all| serde_json::to_string(all).unwrap_or_default());
    let mut first = true;
    out.push('{');
    for (name, value) in members.iter().map(|(name, value)| (*name, value)).chain([("attributes", &attributes)]) {
        if let Some(value) = value {
            comma(&mut first, out);
            quote(name, out);
            out.push(':');
            out.push_str(value);
        }
    }
    out.push('}');
}

/// An id as JSON.
pub(super) fn quoted_id(value: Value<'_>) -> Result<Option<String>, Malformed> {
    Ok(Some(value.bytes()?).filter(|id| !id.is_empty()).map(|id| format!("\"{}\"", hex::encode(id))))
}

fn quoted(value: Value<'_>) -> Result<Option<String>, Malformed> {
    value.text().map(|text| some(text).map(|text| serde_json::Value::from(text).to_string()))
}

fn event(message: &[u8], out: &mut String) -> Result<(), Malformed> {
    let (mut time, mut name, mut attributes) = (None, None, Attributes::default());
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            1 => time = Some(value.number()?.to_string()),
            2 => name = quoted(value)?,
            3 => attribute(value, &mut attributes)?,
            _ => {}
        }
    }
    object(&[("time_unix_nano", time), ("name", name)], &attributes, out);
    Ok(())
}

fn link(message: &[u8], out: &mut String) -> Result<(), Malformed> {
    let (mut trace, mut span, mut state, mut attributes) = (None, None, None, Attributes::default());
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            1 => trace = quoted_id(value)?,
            2 => span = quoted_id(value)?,
            3 => state = quoted(value)?,
            4 => attribute(value, &mut attributes)?,
            _ => {}
        }
    }
    object(&[("trace_id", trace), ("span_id", span), ("trace_state", state)], &attributes, out);
    Ok(())
}
