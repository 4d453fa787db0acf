//! What a column can hold. A [`Cell`] knows its Arrow type, its Postgres type and how to write itself to either, so
//! that a table is declared once (see [`crate::rows`]) and no sink has its own idea of it.
//!
//! Limits of the lake shape this: no unsigned types, timestamps in microseconds UTC, addresses as text (and beside it
//! as sixteen bytes where ranges are asked for).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, ListBuilder, MapBuilder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, MapArray,
};
use arrow_array::{StringArray, TimestampMicrosecondArray, new_null_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, TimeUnit};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// An instant: microseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub i64);

impl Time {
    /// From milliseconds since 1970.
    pub fn from_ms(ms: i64) -> Self {
        Time(ms.saturating_mul(1000))
    }

    /// Whole milliseconds since 1970.
    pub fn ms(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The UTC calendar date, as `YYYY-MM-DD`.
    pub fn date(self) -> String {
        self.utc().format("%Y-%m-%d").to_string()
    }

    fn utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.utc().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// A unique row name: `(input epoch, position, index)` packed as a number that sorts in that order. Compaction keeps
/// it, cursors page by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowId(pub i128);

impl RowId {
    /// The `index`-th row made from the input at `position` of the frame of `epoch`.
    pub fn new(epoch: u64, position: u32, index: u32) -> Self {
        RowId((i128::from(epoch) << 64) | (i128::from(position) << 32) | i128::from(index))
    }
}

/// A number with a fraction, ordered as numbers are. It is finite: JSON and Postgres' aggregates know no others.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Real(pub f64);

impl Ord for Real {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Real {}

impl std::hash::Hash for Real {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// Free-form names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tags(pub BTreeMap<String, String>);

/// The Arrow type of instants.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Collects the values of a column.
pub trait ColumnBuilder {
    /// The column's array; the builder starts again.
    fn finish(&mut self) -> ArrayRef;
}

/// A value that a column can hold.
pub trait Cell: Sized {
    /// Builds the column's array.
    type Builder: ColumnBuilder;
    /// The Postgres type.
    const POSTGRES: &'static str;
    /// Whether the column may be null.
    const NULLABLE: bool = false;
    /// The Arrow type.
    fn data_type() -> DataType;
    /// An empty builder, with no room for anything: most batches are of few rows, and what is reserved stays with them.
    fn builder() -> Self::Builder;
    /// Appends this value.
    fn append(&self, builder: &mut Self::Builder);
    /// Writes the value as Postgres' COPY text, escaped; a missing value is `\N`.
    fn copy(&self, out: &mut String);
    /// Reads a value back from an array that [`Cell::builder`] made.
    fn read(array: &ArrayRef, row: usize) -> Self;
    /// Bytes that it holds beside its own place.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Ends each column of a key.
pub const KEY_END: char = '\u{1f}';

/// The instants that Postgres reads as they are written here: the years 1 to 9999.
const POSTGRES_TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

fn copy_escaped(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // What ends a key's columns does not occur within them.
            KEY_END => out.push_str("\\x1f"),
            // Postgres text has no NUL; the lake keeps the byte.
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

fn downcast<A: 'static>(array: &ArrayRef) -> &A {
    array.as_any().downcast_ref::<A>().expect("the array was built from this column's schema")
}

impl Cell for String {
    type Builder = StringBuilder;
    const POSTGRES: &'static str = "text";
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn builder() -> StringBuilder {
        StringBuilder::with_capacity(0, 0)
    }
    fn append(&self, builder: &mut StringBuilder) {
        builder.append_value(self);
    }
    fn copy(&self, out: &mut String) {
        copy_escaped(self, out);
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        downcast::<StringArray>(array).value(row).to_owned()
    }
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

impl Cell for i64 {
    type Builder = Int64Builder;
    const POSTGRES: &'static str = "bigint";
    fn data_type() -> DataType {
        DataType::Int64
    }
    fn builder() -> Int64Builder {
        Int64Builder::with_capacity(0)
    }
    fn append(&self, builder: &mut Int64Builder) {
        builder.append_value(*self);
    }
    fn copy(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        downcast::<Int64Array>(array).value(row)
    }
}

impl Cell for Real {
    type Builder = Float64Builder;
    const POSTGRES: &'static str = "double precision";
    fn data_type() -> DataType {
        DataType::Float64
    }
    fn builder() -> Float64Builder {
        Float64Builder::with_capacity(0)
    }
    fn append(&self, builder: &mut Float64Builder) {
        builder.append_value(self.0);
    }
    fn copy(&self, out: &mut String) {
        let _ = write!(out, "{}", self.0);
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        Real(downcast::<Float64Array>(array).value(row))
    }
}

impl Cell for bool {
    type Builder = BooleanBuilder;
    const POSTGRES: &'static str = "boolean";
    fn data_type() -> DataType {
        DataType::Boolean
    }
    fn builder() -> BooleanBuilder {
        BooleanBuilder::with_capacity(0)
    }
    fn append(&self, builder: &mut BooleanBuilder) {
        builder.append_value(*self);
    }
    fn copy(&self, out: &mut String) {
        out.push(if *self { 't' } else { 'f' });
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        downcast::<BooleanArray>(array).value(row)
    }
}

impl Cell for Time {
    type Builder = TimestampMicrosecondBuilder;
    const POSTGRES: &'static str = "timestamptz";
    fn data_type() -> DataType {
        timestamp()
    }
    fn builder() -> TimestampMicrosecondBuilder {
        TimestampMicrosecondBuilder::with_capacity(0).with_timezone("UTC")
    }
    fn append(&self, builder: &mut TimestampMicrosecondBuilder) {
        builder.append_value(self.0);
    }
    fn copy(&self, out: &mut String) {
        // A sender's clock may say any year; the lake keeps it.
        let _ = write!(out, "{}", Time(self.0.clamp(*POSTGRES_TIMES.start(), *POSTGRES_TIMES.end())));
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        Time(downcast::<TimestampMicrosecondArray>(array).value(row))
    }
}

impl Cell for RowId {
    type Builder = Decimal128Builder;
    const POSTGRES: &'static str = "numeric(38,0)";
    fn data_type() -> DataType {
        DataType::Decimal128(38, 0)
    }
    fn builder() -> Decimal128Builder {
        Decimal128Builder::with_capacity(0).with_data_type(Self::data_type())
    }
    fn append(&self, builder: &mut Decimal128Builder) {
        builder.append_value(self.0);
    }
    fn copy(&self, out: &mut String) {
        let _ = write!(out, "{}", self.0);
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        RowId(downcast::<Decimal128Array>(array).value(row))
    }
}

impl Cell for IpAddr {
    type Builder = StringBuilder;
    const POSTGRES: &'static str = "text";
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn builder() -> StringBuilder {
        StringBuilder::with_capacity(0, 0)
    }
    fn append(&self, builder: &mut StringBuilder) {
        match self {
            IpAddr::V4(ip) => builder.append_value(Ipv4Text::new(*ip).as_str()),
            IpAddr::V6(ip) => {
                // `StringBuilder` is a `fmt::Write`: the text goes straight into the column.
                let _ = write!(builder, "{ip}");
                builder.append_value("");
            }
        }
    }
    fn copy(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        downcast::<StringArray>(array).value(row).parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }
}

/// The text of an IPv4 address, as its `Display` writes it, in a tenth of the time: a flow has three.
struct Ipv4Text {
    text: [u8; 15],
    length: usize,
}

/// The digits of every octet, and how many they are.
const OCTETS: [([u8; 3], u8); 256] = {
    let mut octets = [([0; 3], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let [a, b, c] = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        octets[octet] = match octet {
            0..10 => ([c, 0, 0], 1),
            10..100 => ([b, c, 0], 2),
            _ => ([a, b, c], 3),
        };
        octet += 1;
    }
    octets
};

impl Ipv4Text {
    fn new(ip: Ipv4Addr) -> Self {
        let (mut text, mut length) = ([b'.'; 15], 0);
        for octet in ip.octets() {
            let (digits, n) = OCTETS[usize::from(octet)];
            text[length..length + 3].copy_from_slice(&digits);
            length += usize::from(n) + 1;
            // What was written beyond the digits is written over, or is beyond the end.
            if let Some(dot) = text.get_mut(length - 1) {
                *dot = b'.';
            }
        }
        Ipv4Text { text, length: length - 1 }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).expect("digits and dots are ASCII")
    }
}

/// An address as sixteen bytes (IPv4 mapped into IPv6), so that networks and ranges are comparisons of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IpBytes(pub [u8; 16]);

impl From<IpAddr> for IpBytes {
    fn from(ip: IpAddr) -> Self {
        IpBytes(match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl Cell for IpBytes {
    type Builder = BinaryBuilder;
    const POSTGRES: &'static str = "bytea";
    fn data_type() -> DataType {
        DataType::Binary
    }
    fn builder() -> BinaryBuilder {
        BinaryBuilder::with_capacity(0, 0)
    }
    fn append(&self, builder: &mut BinaryBuilder) {
        builder.append_value(self.0);
    }
    fn copy(&self, out: &mut String) {
        out.push_str("\\\\x");
        out.push_str(&hex::encode(self.0));
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(downcast::<BinaryArray>(array).value(row));
        IpBytes(bytes)
    }
}

impl Cell for Vec<u8> {
    type Builder = BinaryBuilder;
    const POSTGRES: &'static str = "bytea";
    fn data_type() -> DataType {
        DataType::Binary
    }
    fn builder() -> BinaryBuilder {
        BinaryBuilder::with_capacity(0, 0)
    }
    fn append(&self, builder: &mut BinaryBuilder) {
        builder.append_value(self);
    }
    fn copy(&self, out: &mut String) {
        out.push_str("\\\\x");
        out.push_str(&hex::encode(self));
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        downcast::<BinaryArray>(array).value(row).to_vec()
    }
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

impl Cell for Vec<String> {
    type Builder = ListBuilder<StringBuilder>;
    const POSTGRES: &'static str = "text[]";
    fn data_type() -> DataType {
        DataType::List(Field::new("item", DataType::Utf8, true).into())
    }
    fn builder() -> Self::Builder {
        ListBuilder::with_capacity(String::builder(), 0)
    }
    fn append(&self, builder: &mut Self::Builder) {
        for item in self {
            builder.values().append_value(item);
        }
        builder.append(true);
    }
    fn copy(&self, out: &mut String) {
        out.push('{');
        for (i, item) in self.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push('"');
            let quoted = item.replace('\\', "\\\\").replace('"', "\\\"");
            copy_escaped(&quoted, out);
            out.push('"');
        }
        out.push('}');
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        let items = downcast::<ListArray>(array).value(row);
        downcast::<StringArray>(&items).iter().flatten().map(str::to_owned).collect()
    }
    fn heap_bytes(&self) -> usize {
        self.capacity() * size_of::<String>() + self.iter().map(String::capacity).sum::<usize>()
    }
}

impl Cell for Tags {
    type Builder = MapBuilder<StringBuilder, StringBuilder>;
    const POSTGRES: &'static str = "jsonb";
    fn data_type() -> DataType {
        let entries = DataType::Struct(
            vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)].into(),
        );
        DataType::Map(Field::new("entries", entries, false).into(), false)
    }
    fn builder() -> Self::Builder {
        MapBuilder::with_capacity(None, String::builder(), String::builder(), 0)
    }
    fn append(&self, builder: &mut Self::Builder) {
        for (key, value) in &self.0 {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true).expect("as many keys as values");
    }
    fn copy(&self, out: &mut String) {
        // jsonb refuses NUL even when escaped.
        let json = serde_json::to_string(&self.0).unwrap_or_default().replace("\\u0000", "\\ufffd");
        copy_escaped(&json, out);
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        let entries = downcast::<MapArray>(array).value(row);
        let (keys, values) = (entries.column(0), entries.column(1));
        Tags((0..entries.len()).map(|i| (String::read(keys, i), String::read(values, i))).collect())
    }
    fn heap_bytes(&self) -> usize {
        let entry = |(key, value): (&String, &String)| 2 * size_of::<String>() + key.capacity() + value.capacity();
        self.0.iter().map(entry).sum()
    }
}

/// A builder that can take missing values.
pub trait AppendMissing: ColumnBuilder {
    /// Appends so many missing values.
    fn append_missing(&mut self, n: usize);
}

macro_rules! builders {
    ($($builder:ty, $missing:expr;)*) => { $(
        impl ColumnBuilder for $builder {
            fn finish(&mut self) -> ArrayRef { Arc::new(<$builder>::finish(self)) }
        }
        impl AppendMissing for $builder {
            fn append_missing(&mut self, n: usize) {
                let append: fn(&mut $builder, usize) = $missing;
                append(self, n);
            }
        }
    )* };
}
builders! {
    StringBuilder, |b, n| b.append_nulls(n);
    Int64Builder, |b, n| b.append_nulls(n);
    Float64Builder, |b, n| b.append_nulls(n);
    BooleanBuilder, |b, n| b.append_nulls(n);
    TimestampMicrosecondBuilder, |b, n| b.append_nulls(n);
    BinaryBuilder, |b, n| b.append_nulls(n);
    Decimal128Builder, |b, n| b.append_nulls(n);
    ListBuilder<StringBuilder>, |b, n| b.append_nulls(n);
    MapBuilder<StringBuilder, StringBuilder>, |b, n| b.append_nulls(n).expect("as many keys as values");
}

/// What arrays without values are made of: most columns of flows are such, and need no memory of their own.
#[repr(align(8))]
struct Zeros([u8; 1 << 19]);

static ZEROS: Zeros = Zeros([0; 1 << 19]);

/// So many missing values.
fn missing_values(data_type: &DataType, n: usize) -> ArrayRef {
    let zeros = |bytes: usize| ZEROS.0.get(..bytes).map(|zeros| Buffer::from(bytes::Bytes::from_static(zeros)));
    // A number takes eight bytes, a text four and four more at the end.
    let (Some(numbers), Some(offsets), Some(bits)) = (zeros(n * 8), zeros(n * 4 + 4), zeros(n.div_ceil(8))) else {
        return new_null_array(data_type, n);
    };
    let nulls = Some(NullBuffer::new(BooleanBuffer::new(bits, 0, n)));
    match data_type {
        DataType::Int64 => Arc::new(Int64Array::new(numbers.into(), nulls)),
        DataType::Utf8 => {
            let offsets = OffsetBuffer::new(offsets.into());
            Arc::new(StringArray::new(offsets, Buffer::default(), nulls))
        }
        _ => new_null_array(data_type, n),
    }
}

/// Collects values that may be missing. What is missing is counted, and appended once a value follows: a column that nobody
/// fills costs a number.
pub struct Optional<C: Cell> {
    values: C::Builder,
    missing: usize,
    filled: bool,
}

impl<C: Cell<Builder: AppendMissing>> Optional<C> {
    /// Where the next value is appended, which the caller does.
    pub fn slot(&mut self) -> &mut C::Builder {
        if self.missing > 0 {
            self.values.append_missing(std::mem::take(&mut self.missing));
        }
        self.filled = true;
        &mut self.values
    }

    /// The next value is missing.
    pub fn skip(&mut self) {
        self.missing += 1;
    }

    /// Appends a value, or that it is missing.
    pub fn push(&mut self, value: Option<C>) {
        match value {
            Some(value) => value.append(self.slot()),
            None => self.skip(),
        }
    }
}

impl<C: Cell<Builder: AppendMissing>> ColumnBuilder for Optional<C> {
    fn finish(&mut self) -> ArrayRef {
        let missing = std::mem::take(&mut self.missing);
        if !std::mem::take(&mut self.filled) {
            return missing_values(&C::data_type(), missing);
        }
        self.values.append_missing(missing);
        self.values.finish()
    }
}

impl<C: Cell<Builder: AppendMissing>> Cell for Option<C> {
    type Builder = Optional<C>;
    const POSTGRES: &'static str = C::POSTGRES;
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        C::data_type()
    }
    fn builder() -> Optional<C> {
        Optional { values: C::builder(), missing: 0, filled: false }
    }
    fn append(&self, builder: &mut Optional<C>) {
        match self {
            Some(value) => value.append(builder.slot()),
            None => builder.skip(),
        }
    }
    fn copy(&self, out: &mut String) {
        match self {
            Some(value) => value.copy(out),
            None => out.push_str("\\N"),
        }
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        array.is_valid(row).then(|| C::read(array, row))
    }
    fn heap_bytes(&self) -> usize {
        self.as_ref().map_or(0, Cell::heap_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a column of such values reads back as.
    fn through<C: Cell + Clone>(values: &[C]) -> Vec<C> {
        let mut builder = C::builder();
        // The builder starts again, whatever was in it.
        values.iter().rev().for_each(|value| value.append(&mut builder));
        builder.finish();
        values.iter().for_each(|value| value.append(&mut builder));
        let array = builder.finish();
        assert_eq!((array.len(), array.data_type()), (values.len(), &C::data_type()));
        (0..values.len()).map(|row| C::read(&array, row)).collect()
    }

    fn check<C: Cell + Clone + PartialEq + std::fmt::Debug>(some: &C)
    where
        Option<C>: Cell,
    {
        let columns = [[false; 3], [true; 3], [false, true, false], [true, false, true], [false, false, true]];
        for column in columns {
            let values = column.map(|is_there| is_there.then(|| some.clone()));
            assert_eq!(through(&values), values);
        }
    }

    #[test]
    fn missing_values_are_missing_wherever_they_stand() {
        check(&"text".to_owned());
        check(&7i64);
        check(&Real(-0.5));
        check(&true);
        check(&Time(8));
        check(&RowId(9));
        check(&vec![1u8, 2]);
        check(&vec!["a".to_owned(), "b".to_owned()]);
        check(&Tags([("k".to_owned(), "v".to_owned())].into()));
        check(&IpAddr::from([10, 0, 0, 1]));
        check(&IpBytes([3; 16]));
    }

    #[test]
    fn missing_values_are_so_many_as_they_are() {
        // About as many as there are zeros for, too.
        for n in [0, 1, 8, 9, (1 << 16) - 1, 1 << 16, (1 << 16) + 1] {
            for data_type in [DataType::Int64, DataType::Utf8, timestamp()] {
                let (array, plain) = (missing_values(&data_type, n), new_null_array(&data_type, n));
                assert_eq!((&array, array.null_count()), (&plain, n), "{n} {data_type}");
            }
        }
        assert!(missing_values(&DataType::Int64, 100).get_array_memory_size() < 1200);
    }

    proptest::proptest! {
        #[test]
        fn an_address_is_written_as_it_is_displayed(octets: [u8; 4]) {
            let ip = Ipv4Addr::from(octets);
            assert_eq!(Ipv4Text::new(ip).as_str(), ip.to_string());
        }
    }
}
