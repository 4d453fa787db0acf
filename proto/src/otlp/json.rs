//! OTLP in JSON, made into protobuf as it is read: no tree is built, so it takes what its protobuf takes. Keys are those of
//! protobuf's JSON, in either spelling; unknown ones are skipped; ids are hex digits, enumerations numbers, and whole numbers of
//! 64 bits may be texts (OTLP specification, "JSON Protobuf Encoding").

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::{put_bytes, put_eight, put_four, put_message, put_number};
use super::{MAX_REQUEST, Signal};

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    Message(&'static [Field]),
    Text,
    /// Hex digits.
    Id,
    /// Base64.
    Bytes,
    Bool,
    /// `int32`, `int64`, `uint32`, `uint64`, an enumeration.
    Number,
    /// `sint32`.
    Signed,
    /// `fixed64`, `sfixed64`.
    Eight,
    /// `fixed32`.
    Four,
    Double,
}

/// A field: its name in JSON, its number, whether there may be several, what it holds.
#[derive(Clone, Copy, Debug)]
struct Field(&'static str, u32, bool, Holds);

const fn one(name: &'static str, number: u32, holds: Holds) -> Field {
    Field(name, number, false, holds)
}

const fn many(name: &'static str, number: u32, holds: Holds) -> Field {
    Field(name, number, true, holds)
}

use Holds::{Bool, Bytes, Double, Eight, Four, Id, Message, Number, Signed, Text};

static ANY: [Field; 7] = [
    one("stringValue", 1, Text),
    one("boolValue", 2, Bool),
    one("intValue", 3, Number),
    one("doubleValue", 4, Double),
    one("arrayValue", 5, Message(&ARRAY)),
    one("kvlistValue", 6, Message(&PAIRS)),
    one("bytesValue", 7, Bytes),
];
static ARRAY: [Field; 1] = [many("values", 1, Message(&ANY))];
static PAIRS: [Field; 1] = [many("values", 1, Message(&PAIR))];
static PAIR: [Field; 2] = [one("key", 1, Text), one("value", 2, Message(&ANY))];
const DROPPED: &str = "droppedAttributesCount";
static RESOURCE: [Field; 2] = [many("attributes", 1, Message(&PAIR)), one(DROPPED, 2, Number)];
static SCOPE: [Field; 4] =
    [one("name", 1, Text), one("version", 2, Text), many("attributes", 3, Message(&PAIR)), one(DROPPED, 4, Number)];
static LOG: [Field; 11] = [
    one("timeUnixNano", 1, Eight),
    one("severityNumber", 2, Number),
    one("severityText", 3, Text),
    one("body", 5, Message(&ANY)),
    many("attributes", 6, Message(&PAIR)),
    one(DROPPED, 7, Number),
    one("flags", 8, Four),
    one("traceId", 9, Id),
    one("spanId", 10, Id),
    one("observedTimeUnixNano", 11, Eight),
    one("eventName", 12, Text),
];
static EVENT: [Field; 4] = [
    one("timeUnixNano", 1, Eight),
    one("name", 2, Text),
    many("attributes", 3, Message(&PAIR)),
    one(DROPPED, 4, Number),
];
static LINK: [Field; 6] = [
    one("traceId", 1, Id),
    one("spanId", 2, Id),
    one("traceState", 3, Text),
    many("attributes", 4, Message(&PAIR)),
    one(DROPPED, 5, Number),
    one("flags", 6, Four),
];
static STATUS: [Field; 2] = [one("message", 2, Text), one("code", 3, Number)];
static SPAN: [Field; 16] = [
    one("traceId", 1, Id),
    one("spanId", 2, Id),
    one("traceState", 3, Text),
    one("parentSpanId", 4, Id),
    one("name", 5, Text),
    one("kind", 6, Number),
    one("startTimeUnixNano", 7, Eight),
    one("endTimeUnixNano", 8, Eight),
    many("attributes", 9, Message(&PAIR)),
    one(DROPPED, 10, Number),
    many("events", 11, Message(&EVENT)),
    one("droppedEventsCount", 12, Number),
    many("links", 13, Message(&LINK)),
    one("droppedLinksCount", 14, Number),
    one("status", 15, Message(&STATUS)),
    one("flags", 16, Four),
];
static EXEMPLAR: [Field; 6] = [
    one("timeUnixNano", 2, Eight),
    one("asDouble", 3, Double),
    one("spanId", 4, Id),
    one("traceId", 5, Id),
    one("asInt", 6, Eight),
    many("filteredAttributes", 7, Message(&PAIR)),
];
static NUMBER: [Field; 7] = [
    one("startTimeUnixNano", 2, Eight),
    one("timeUnixNano", 3, Eight),
    one("asDouble", 4, Double),
    many("exemplars", 5, Message(&EXEMPLAR)),
    one("asInt", 6, Eight),
    many("attributes", 7, Message(&PAIR)),
    one("flags", 8, Number),
];
static HISTOGRAM: [Field; 11] = [
    one("startTimeUnixNano", 2, Eight),
    one("timeUnixNano", 3, Eight),
    one("count", 4, Eight),
    one("sum", 5, Double),
    many("bucketCounts", 6, Eight),
    many("explicitBounds", 7, Double),
    many("exemplars", 8, Message(&EXEMPLAR)),
    many("attributes", 9, Message(&PAIR)),
    one("flags", 10, Number),
    one("min", 11, Double),
    one("max", 12, Double),
];
static POWERS: [Field; 2] = [one("offset", 1, Signed), many("bucketCounts", 2, Number)];
static EXPONENTIAL: [Field; 14] = [
    many("attributes", 1, Message(&PAIR)),
    one("startTimeUnixNano", 2, Eight),
    one("timeUnixNano", 3, Eight),
    one("count", 4, Eight),
    one("sum", 5, Double),
    one("scale", 6, Signed),
    one("zeroCount", 7, Eight),
    one("positive", 8, Message(&POWERS)),
    one("negative", 9, Message(&POWERS)),
    one("flags", 10, Number),
    many("exemplars", 11, Message(&EXEMPLAR)),
    one("min", 12, Double),
    one("max", 13, Double),
    one("zeroThreshold", 14, Double),
];
static QUANTILE: [Field; 2] = [one("quantile", 1, Double), one("value", 2, Double)];
static SUMMARY: [Field; 7] = [
    one("startTimeUnixNano", 2, Eight),
    one("timeUnixNano", 3, Eight),
    one("count", 4, Eight),
    one("sum", 5, Double),
    many("quantileValues", 6, Message(&QUANTILE)),
    many("attributes", 7, Message(&PAIR)),
    one("flags", 8, Number),
];
const TEMPORALITY: Field = one("aggregationTemporality", 2, Number);
static GAUGES: [Field; 1] = [many("dataPoints", 1, Message(&NUMBER))];
static SUMS: [Field; 3] = [many("dataPoints", 1, Message(&NUMBER)), TEMPORALITY, one("isMonotonic", 3, Bool)];
static HISTOGRAMS: [Field; 2] = [many("dataPoints", 1, Message(&HISTOGRAM)), TEMPORALITY];
static EXPONENTIALS: [Field; 2] = [many("dataPoints", 1, Message(&EXPONENTIAL)), TEMPORALITY];
static SUMMARIES: [Field; 1] = [many("dataPoints", 1, Message(&SUMMARY))];
static METRIC: [Field; 8] = [
    one("name", 1, Text),
    one("description", 2, Text),
    one("unit", 3, Text),
    one("gauge", 5, Message(&GAUGES)),
    one("sum", 7, Message(&SUMS)),
    one("histogram", 9, Message(&HISTOGRAMS)),
    one("exponentialHistogram", 10, Message(&EXPONENTIALS)),
    one("summary", 11, Message(&SUMMARIES)),
];
static SCOPE_LOGS: [Field; 2] = [one("scope", 1, Message(&SCOPE)), many("logRecords", 2, Message(&LOG))];
static SCOPE_SPANS: [Field; 2] = [one("scope", 1, Message(&SCOPE)), many("spans", 2, Message(&SPAN))];
static SCOPE_METRICS: [Field; 2] = [one("scope", 1, Message(&SCOPE)), many("metrics", 2, Message(&METRIC))];
static OF_LOGS: [Field; 2] = [one("resource", 1, Message(&RESOURCE)), many("scopeLogs", 2, Message(&SCOPE_LOGS))];
static OF_SPANS: [Field; 2] = [one("resource", 1, Message(&RESOURCE)), many("scopeSpans", 2, Message(&SCOPE_SPANS))];
static OF_METRICS: [Field; 2] =
    [one("resource", 1, Message(&RESOURCE)), many("scopeMetrics", 2, Message(&SCOPE_METRICS))];
static LOGS: [Field; 1] = [many("resourceLogs", 1, Message(&OF_LOGS))];
static TRACES: [Field; 1] = [many("resourceSpans", 1, Message(&OF_SPANS))];
static METRICS: [Field; 1] = [many("resourceMetrics", 1, Message(&OF_METRICS))];

/// Makes protobuf of a request in JSON.
///
/// # Errors
/// Where it is no JSON, or not of that signal.
pub fn to_protobuf(signal: Signal, body: &[u8]) -> Result<Vec<u8>, String> {
    let fields: &'static [Field] = match signal {
        Signal::Logs => &LOGS,
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
    };
    let (mut out, mut json) = (Vec::new(), serde_json::Deserializer::from_slice(body));
    let read = Object { fields, out: &mut out }.deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|error| format!("not OTLP in JSON: {error}"))?;
    Ok(out)
}

/// A message that is read.
struct Object<'o> {
    fields: &'static [Field],
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

/// Whether a key is the name of a field, in camel or in snake case.
fn is(key: &str, name: &str) -> bool {
    key == name
        || (key.contains('_') && key.chars().filter(|c| *c != '_').eq(name.chars().map(|c| c.to_ascii_lowercase())))
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.fields.iter().find(|Field(name, ..)| is(&key, name)) {
                Some(field) => map.next_value_seed(Member { field: *field, inside: false, out: self.out })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The value of a field that is read, or one of its values.
struct Member<'o> {
    field: Field,
    inside: bool,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl Member<'_> {
    /// A number in a list may take more than it is written with.
    fn bounded<E: Error>(&self) -> Result<(), E> {
        match self.out.len() > MAX_REQUEST {
            true => Err(E::custom(format!("it says more than {MAX_REQUEST} bytes: send less at once"))),
            false => Ok(()),
        }
    }

    fn wrong<E: Error>(&self, is: &str) -> E {
        E::custom(format!("{is} in {:?}, where it does not belong", self.field.0))
    }

    fn whole<E: Error>(self, n: i128) -> Result<(), E> {
        self.bounded()?;
        let Field(_, number, _, holds) = self.field;
        let bits = i64::try_from(n).map(|n| n as u64).or(u64::try_from(n));
        let Ok(bits) = bits else { return Err(self.wrong("a number of more than 64 bits")) };
        match holds {
            Number => put_number(self.out, number, bits),
            Signed => put_number(self.out, number, ((bits << 1) as i64 ^ (bits as i64 >> 63)) as u64),
            Eight => put_eight(self.out, number, bits),
            Four => put_four(self.out, number, bits as u32),
            Double => put_eight(self.out, number, (n as f64).to_bits()),
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what {:?} holds", self.field.0)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, said: bool) -> Result<(), E> {
        match self.field.3 {
            Bool => put_number(self.out, self.field.1, said.into()),
            _ => return Err(self.wrong("true or false")),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<(), E> {
        self.whole(n.into())
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<(), E> {
        self.whole(n.into())
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<(), E> {
        self.bounded()?;
        match self.field.3 {
            Double => put_eight(self.out, self.field.1, n.to_bits()),
            _ if n.fract() == 0.0 && n.abs() < 2f64.powi(100) => return self.whole(n as i128),
            _ => return Err(self.wrong("a fraction")),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.bounded()?;
        let Field(_, number, _, holds) = self.field;
        match holds {
            Text => put_bytes(self.out, number, text.as_bytes()),
            Id => match hex::decode(text) {
                Ok(id) => put_bytes(self.out, number, &id),
                Err(_) => return Err(self.wrong("an id that is no hex digits")),
            },
            Bytes => match BASE64_STANDARD.decode(text) {
                Ok(bytes) => put_bytes(self.out, number, &bytes),
                Err(_) => return Err(self.wrong("a text that is no base64")),
            },
            Double => match text.parse::<f64>() {
                Ok(n) => put_eight(self.out, number, n.to_bits()),
                Err(_) => return Err(self.wrong("a text that is no number")),
            },
            Number | Signed | Eight | Four => match text.parse::<i128>() {
                Ok(n) => return self.whole(n),
                Err(_) => return Err(self.wrong("a text that is no number")),
            },
            Message(_) | Bool => return Err(self.wrong("a text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.inside || !self.field.2 {
            return Err(self.wrong("a list"));
        }
        while items.next_element_seed(Member { field: self.field, inside: true, out: &mut *self.out })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.field.3 {
            Message(fields) if self.inside == self.field.2 => {
                put_message(self.out, self.field.1, |out| Object { fields, out }.visit_map(map))
            }
            _ => Err(self.wrong("an object")),
        }
    }
}
