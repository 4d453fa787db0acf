//! Metrics: what a metric is, and its data points, whatever kind they are of.

use super::fields::{Fields, Malformed, Value, each_number, zigzag};
use super::records::{List, object, quoted_id};
use super::value::{Attributes, attribute, real};

/// What the data points of a metric have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// What is measured.
    pub name: String,
    /// What that is.
    pub description: Option<String>,
    /// In which unit.
    pub unit: Option<String>,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
    pub kind: &'static str,
    /// `delta` or `cumulative`, where it is said.
    pub temporality: Option<&'static str>,
    /// Of a sum: whether it never falls.
    pub is_monotonic: Option<bool>,
}

/// A data point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Since when it was counted, nanoseconds since 1970; 0 for unknown.
    pub start_ns: u64,
    /// When it was measured, nanoseconds since 1970.
    pub time_ns: u64,
    /// A gauge's or a sum's value; nothing where none was recorded.
    pub value: Option<f64>,
    /// The same where it is a whole number, exactly.
    pub value_int: Option<i64>,
    /// How many values were observed.
    pub count: Option<i64>,
    /// Their sum.
    pub sum: Option<f64>,
    /// The least of them.
    pub min: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// Buckets or quantiles, JSON.
    pub distribution: Option<String>,
    /// Examples with their traces, JSON.
    pub exemplars: Option<String>,
    /// Names and values.
    pub attributes: Attributes,
}

/// Of which kind data points are, by the field of the metric that they stand in.
const KINDS: [(u32, &str); 5] =
    [(5, "gauge"), (7, "sum"), (9, "histogram"), (10, "exponential_histogram"), (11, "summary")];

/// A metric and the message that its data points are in.
pub(super) fn metric(message: &[u8]) -> Result<(Metric, &[u8]), Malformed> {
    let (mut metric, mut data) = (Metric::default(), &[][..]);
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            1 => metric.name = value.text()?,
            2 => metric.description = some(value.text()?),
            3 => metric.unit = some(value.text()?),
            _ => {
                if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == number) {
                    (metric.kind, data) = (kind, value.bytes()?);
                }
            }
        }
    }
    let counts = ["sum", "histogram", "exponential_histogram"].contains(&metric.kind);
    metric.is_monotonic = (metric.kind == "sum").then_some(false);
    for field in Fields::of(data) {
        match field? {
            (2, value) if counts => {
                metric.temporality = [None, Some("delta"), Some("cumulative")]
                    .get(usize::try_from(value.number()?).unwrap_or(usize::MAX))
                    .copied()
                    .flatten();
            }
            (3, value) if metric.kind == "sum" => metric.is_monotonic = Some(value.number()? != 0),
            _ => {}
        }
    }
    Ok((metric, data))
}

/// A count as a column holds it.
fn counted(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Reads a data point of a metric of some kind.
pub(super) fn point(kind: &str, message: &[u8]) -> Result<Point, Malformed> {
    let mut read = Reading::default();
    for field in Fields::of(message) {
        let (number, value) = field?;
        match kind {
            "gauge" | "sum" => read.number(number, value)?,
            "histogram" => read.histogram(number, value)?,
            "exponential_histogram" => read.exponential(number, value)?,
            _ => read.summary(number, value)?,
        }
    }
    let Reading { mut point, flags, exemplars, .. } = read;
    point.exemplars = exemplars.finish();
    point.distribution = match kind {
        "histogram" => read.buckets.distribution(),
        "exponential_histogram" => Some(read.scaled.distribution()),
        "summary" => read.quantiles.finish(),
        _ => None,
    };
    // Of a series that is not reported any more (`FLAG_NO_RECORDED_VALUE`).
    if flags & 1 != 0 {
        (point.value, point.value_int, point.count, point.sum) = (None, None, None, None);
    }
    for real in [&mut point.value, &mut point.sum, &mut point.min, &mut point.max] {
        *real = real.filter(|n| n.is_finite());
    }
    Ok(point)
}

/// A point that is read.
#[derive(Default)]
struct Reading {
    point: Point,
    flags: u64,
    exemplars: List,
    buckets: Buckets,
    scaled: Scaled,
    quantiles: List,
}

/// Buckets between bounds.
#[derive(Default)]
struct Buckets {
    bounds: String,
    counts: String,
}

/// Buckets whose bounds are powers.
#[derive(Default)]
struct Scaled {
    scale: i64,
    zeros: u64,
    threshold: f64,
    positive: (i64, String),
    negative: (i64, String),
}

/// Appends a number to a list of them, without its brackets.
fn listed(list: &mut String, write: impl FnOnce(&mut String)) {
    if !list.is_empty() {
        list.push(',');
    }
    write(list);
}

impl Buckets {
    fn distribution(&self) -> Option<String> {
        let Buckets { bounds, counts } = self;
        (!counts.is_empty()).then(|| format!("{{\"bounds\":[{bounds}],\"counts\":[{counts}]}}"))
    }
}

impl Scaled {
    fn distribution(&self) -> String {
        let buckets = |(offset, counts): &(i64, String)| format!("{{\"offset\":{offset},\"counts\":[{counts}]}}");
        let mut threshold = String::new();
        real(self.threshold, &mut threshold);
        format!(
            "{{\"scale\":{},\"zero_count\":{},\"zero_threshold\":{threshold},\"positive\":{},\"negative\":{}}}",
            self.scale,
            self.zeros,
            buckets(&self.positive),
            buckets(&self.negative)
        )
    }
}

impl Reading {
    fn number(&mut self, field: u32, value: Value<'_>) -> Result<(), Malformed> {
        let point = &mut self.point;
        match field {
            4 => (point.value, point.value_int) = (Some(value.double()?), None),
            6 => {
                let n = value.number()? as i64;
                (point.value, point.value_int) = (Some(n as f64), Some(n));
            }
            5 => self.exemplars.push(|out| exemplar(value.bytes()?, out))?,
            7 => attribute(value, &mut point.attributes)?,
            8 => self.flags = value.number()?,
            _ => self.times(field, value)?,
        }
        Ok(())
    }

    fn times(&mut self, field: u32, value: Value<'_>) -> Result<(), Malformed> {
        match field {
            2 => self.point.start_ns = value.number()?,
            3 => self.point.time_ns = value.number()?,
            _ => {}
        }
        Ok(())
    }

    fn histogram(&mut self, field: u32, value: Value<'_>) -> Result<(), Malformed> {
        let point = &mut self.point;
        match field {
            4 => point.count = Some(counted(value.number()?)),
            5 => point.sum = Some(value.double()?),
            6 => each_number(value, true, |n| listed(&mut self.buckets.counts, |out| out.push_str(&n.to_string())))?,
            7 => each_number(value, true, |n| listed(&mut self.buckets.bounds, |out| real(f64::from_bits(n), out)))?,
            8 => self.exemplars.push(|out| exemplar(value.bytes()?, out))?,
            9 => attribute(value, &mut point.attributes)?,
            10 => self.flags = value.number()?,
            11 => point.min = Some(value.double()?),
            12 => point.max = Some(value.double()?),
            _ => self.times(field, value)?,
        }
        Ok(())
    }

    fn exponential(&mut self, field: u32, value: Value<'_>) -> Result<(), Malformed> {
        let point = &mut self.point;
        match field {
            1 => attribute(value, &mut point.attributes)?,
            4 => point.count = Some(counted(value.number()?)),
            5 => point.sum = Some(value.double()?),
            6 => self.scaled.scale = zigzag(value.number()?),
            7 => self.scaled.zeros = value.number()?,
            8 => self.scaled.positive = powers(value.bytes()?)?,
            9 => self.scaled.negative = powers(value.bytes()?)?,
            10 => self.flags = value.number()?,
            11 => self.exemplars.push(|out| exemplar(value.bytes()?, out))?,
            12 => point.min = Some(value.double()?),
            13 => point.max = Some(value.double()?),
            14 => self.scaled.threshold = value.double()?,
            _ => self.times(field, value)?,
        }
        Ok(())
    }

    fn summary(&mut self, field: u32, value: Value<'_>) -> Result<(), Malformed> {
        let point = &mut self.point;
        match field {
            4 => point.count = Some(counted(value.number()?)),
            5 => point.sum = Some(value.double()?),
            6 => self.quantiles.push(|out| quantile(value.bytes()?, out))?,
            7 => attribute(value, &mut point.attributes)?,
            8 => self.flags = value.number()?,
            _ => self.times(field, value)?,
        }
        Ok(())
    }
}

/// Where the buckets of one sign begin, and their counts.
fn powers(message: &[u8]) -> Result<(i64, String), Malformed> {
    let (mut offset, mut counts) = (0, String::new());
    for field in Fields::of(message) {
        match field? {
            (1, value) => offset = zigzag(value.number()?),
            (2, value) => each_number(value, false, |n| listed(&mut counts, |out| out.push_str(&n.to_string())))?,
            _ => {}
        }
    }
    Ok((offset, counts))
}

/// A number as JSON.
fn json(n: f64) -> Option<String> {
    let mut out = String::new();
    real(n, &mut out);
    Some(out)
}

fn quantile(message: &[u8], out: &mut String) -> Result<(), Malformed> {
    let (mut quantile, mut is) = (0.0, 0.0);
    for field in Fields::of(message) {
        match field? {
            (1, value) => quantile = value.double()?,
            (2, value) => is = value.double()?,
            _ => {}
        }
    }
    object(&[("quantile", json(quantile)), ("value", json(is))], &Attributes::default(), out);
    Ok(())
}

fn exemplar(message: &[u8], out: &mut String) -> Result<(), Malformed> {
    let (mut time, mut is, mut trace, mut span, mut attributes) = (None, None, None, None, Attributes::default());
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            2 => time = Some(value.number()?.to_string()),
            3 => is = json(value.double()?),
            4 => span = quoted_id(value)?,
            5 => trace = quoted_id(value)?,
            6 => is = Some((value.number()? as i64).to_string()),
            7 => attribute(value, &mut attributes)?,
            _ => {}
        }
    }
    object(&[("time_unix_nano", time), ("value", is), ("trace_id", trace), ("span_id", span)], &attributes, out);
    Ok(())
}
