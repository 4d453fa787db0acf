//! What a column can hold. A [`Cell`] knows its Arrow type, its Postgres type and how to write itself to either, so
//! that a table is declared once (see [`crate::rows`]) and no sink has its own idea of it.
//!
//! Limits of the lake shape this: no unsigned types, timestamps in microseconds UTC, addresses as text (and beside it
//! as sixteen bytes where ranges are asked for).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Decimal128Builder, Int64Builder, ListBuilder, MapBuilder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Int64Array, ListArray, MapArray};
use arrow_array::{StringArray, TimestampMicrosecondArray};
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

/// Free-form names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tags(pub BTreeMap<String, String>);

/// The Arrow type of instants.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A value that a column can hold.
pub trait Cell: Sized {
    /// Builds the column's array.
    type Builder: ArrayBuilder;
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
        // `StringBuilder` is a `fmt::Write`: the text goes straight into the column.
        let _ = write!(builder, "{self}");
        builder.append_value("");
    }
    fn copy(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
    fn read(array: &ArrayRef, row: usize) -> Self {
        downcast::<StringArray>(array).value(row).parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
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

/// A builder that can take a missing value.
pub trait AppendNull {
    /// Appends a missing value.
    fn append_missing(&mut self);
}

macro_rules! append_null {
    ($($builder:ty),*) => { $(impl AppendNull for $builder {
        fn append_missing(&mut self) { self.append_null(); }
    })* };
}
append_null!(
    StringBuilder,
    Int64Builder,
    BooleanBuilder,
    TimestampMicrosecondBuilder,
    BinaryBuilder,
    Decimal128Builder
);

impl<C: Cell<Builder: AppendNull>> Cell for Option<C> {
    type Builder = C::Builder;
    const POSTGRES: &'static str = C::POSTGRES;
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        C::data_type()
    }
    fn builder() -> C::Builder {
        C::builder()
    }
    fn append(&self, builder: &mut C::Builder) {
        match self {
            Some(value) => value.append(builder),
            None => builder.append_missing(),
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
