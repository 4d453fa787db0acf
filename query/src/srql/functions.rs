//! The few scalar functions that addresses, lists and time need and DataFusion lacks.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, Decimal128Array, StringArray, TimestampMicrosecondArray};
use arrow_schema::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::lit;
use radarflow_proto::cell::IpBytes;

use crate::srql::slices::Slices;

type Body = fn(&[ArrayRef]) -> Result<ArrayRef>;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    body: usize,
}

const BODIES: [Body; 8] = [
    ip_bytes_body,
    ip_mask_body,
    any_like_body,
    any_within_body,
    as_text_body,
    ip_number_body,
    ip_text_body,
    ip_order_body,
];

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        Ok(ColumnarValue::Array(BODIES[self.body](&arrays)?))
    }
}

fn function(name: &'static str, arguments: usize, returns: DataType, body: usize) -> Arc<ScalarUDF> {
    let signature = Signature::any(arguments, Volatility::Immutable);
    Arc::new(ScalarUDF::from(Function { name, signature, returns, body }))
}

static IP_BYTES: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("ip_bytes", 1, DataType::Binary, 0));
static IP_MASK: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("ip_mask", 2, DataType::Utf8, 1));
static ANY_LIKE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("any_like", 2, DataType::Boolean, 2));

static ANY_WITHIN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("any_within", 3, DataType::Boolean, 3));

static AS_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("as_text", 1, DataType::Utf8, 4));

/// Wide enough to be any sixteen bytes; it is never read as a number.
const NUMBER: DataType = DataType::Decimal128(38, 0);

static IP_NUMBER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("ip_number", 1, NUMBER, 5));

static IP_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("ip_text", 1, DataType::Utf8, 6));

static IP_ORDER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function("ip_order", 1, DataType::Utf8, 7));

/// A text by which addresses and networks sort as what they are, and not as they are written.
pub fn ip_order(text: Expr) -> Expr {
    IP_ORDER.call(vec![text])
}

/// The sixteen bytes of an address as one number, which groups tell apart sooner than text.
pub fn ip_number(bytes: Expr) -> Expr {
    IP_NUMBER.call(vec![bytes])
}

/// The text of an address given as such a number.
pub fn ip_text(number: Expr) -> Expr {
    IP_TEXT.call(vec![number])
}

/// The sixteen bytes of an address's text; null where it is none.
pub fn ip_bytes(text: Expr) -> Expr {
    IP_BYTES.call(vec![text])
}

/// The network of so many bits (of IPv4; thrice as many more of IPv6) that an address is in, as text.
pub fn ip_mask(text: Expr, bits: u8) -> Expr {
    IP_MASK.call(vec![text, lit(i64::from(bits))])
}

/// Whether any element of a list matches a regular expression.
pub fn any_like(list: Expr, pattern: &str) -> Expr {
    ANY_LIKE.call(vec![list, lit(pattern)])
}

/// Whether any address of a list is one of these.
pub fn any_within(list: Expr, low: Expr, high: Expr) -> Expr {
    ANY_WITHIN.call(vec![list, low, high])
}

/// A list, a map or bytes as text that is equal where they are: JSON with its keys in order, hexadecimal digits.
pub fn as_text(value: Expr) -> Expr {
    AS_TEXT.call(vec![value])
}

/// A set of addresses, as a function of an address's sixteen bytes, of its text, or of a list of texts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Within {
    /// First and last addresses: in order, apart from each other.
    ranges: Vec<(u128, u128)>,
    signature: Signature,
}

impl Within {
    fn has(&self, ip: u128) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= ip);
        after > 0 && ip <= self.ranges[after - 1].1
    }

    fn has_text(&self, ip: &str) -> bool {
        ip.parse::<IpAddr>().is_ok_and(|ip| self.has(u128::from_be_bytes(IpBytes::from(ip).0)))
    }
}

impl ScalarUDFImpl for Within {
    fn name(&self) -> &'static str {
        "within"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let array = &arrays[0];
        let within: BooleanArray = match array.data_type() {
            DataType::Binary => {
                let has = |ip: &[u8]| ip.try_into().is_ok_and(|ip| self.has(u128::from_be_bytes(ip)));
                array.as_binary::<i32>().iter().map(|ip| ip.map(has)).collect()
            }
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                let any = |list: ArrayRef| Ok(text(&list)?.iter().flatten().any(|ip| self.has_text(ip)));
                lists.iter().map(|list| list.map(any).transpose()).collect::<Result<_>>()?
            }
            _ => text(array)?.iter().map(|ip| ip.map(|ip| self.has_text(ip))).collect(),
        };
        Ok(ColumnarValue::Array(Arc::new(within)))
    }
}

/// Whether an address, or any of a list, is in one of these ranges, each told by its first and last address.
pub fn within(value: Expr, mut ranges: Vec<(u128, u128)>) -> Expr {
    ranges.sort_unstable();
    let mut apart: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match apart.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => apart.push((first, last)),
        }
    }
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::from(Within { ranges: apart, signature }).call(vec![value])
}

/// The slice that a time is in, as a function of the time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sliced {
    slices: Slices,
    /// Where it ends, and not where it begins.
    end: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Sliced {
    fn name(&self) -> &'static str {
        if self.end { "slice_end" } else { "slice_start" }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds[0].clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(times) = arrays[0].as_primitive_opt::<TimestampMicrosecondType>() else {
            return exec_err!("a time is microseconds, not {}", arrays[0].data_type());
        };
        // Rows that follow one another are in few slices.
        let mut slice = (0, 0);
        let told = times.iter().map(|at| {
            let at = at?;
            if !(slice.0..slice.1).contains(&at) {
                let start = self.slices.start(at);
                slice = (start, self.slices.end(start));
            }
            Some(if self.end { slice.1 } else { slice.0 })
        });
        let told: TimestampMicrosecondArray = told.collect();
        Ok(ColumnarValue::Array(Arc::new(told.with_data_type(arrays[0].data_type().clone()))))
    }
}

/// Where the slice begins that a time is in, or ends.
fn sliced(time: Expr, slices: Slices, end: bool) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::from(Sliced { slices, end, signature }).call(vec![time])
}

/// Where the slice begins that a time is in.
pub fn slice_start(time: Expr, slices: Slices) -> Expr {
    sliced(time, slices, false)
}

/// Where the slice ends that a time is in.
pub fn slice_end(time: Expr, slices: Slices) -> Expr {
    sliced(time, slices, true)
}

fn text(array: &ArrayRef) -> Result<&StringArray> {
    match array.as_string_opt::<i32>() {
        Some(strings) => Ok(strings),
        None => exec_err!("an address is text, not {}", array.data_type()),
    }
}

fn ip_bytes_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let mut out = BinaryBuilder::new();
    for ip in text(&args[0])? {
        out.append_option(ip.and_then(|ip| ip.parse::<IpAddr>().ok()).map(|ip| IpBytes::from(ip).0));
    }
    Ok(Arc::new(out.finish()))
}

fn ip_mask_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let bits = args[1].as_primitive::<arrow_array::types::Int64Type>().value(0) as u8;
    let mut out = StringBuilder::new();
    for ip in text(&args[0])? {
        let network = ip.and_then(|ip| ip.parse::<IpAddr>().ok()).and_then(|ip| {
            let bits = if ip.is_ipv4() { bits.min(32) } else { bits.min(128) };
            ipnet::IpNet::new(ip, bits).ok().map(|n| n.trunc().to_string())
        });
        out.append_option(network);
    }
    Ok(Arc::new(out.finish()))
}

fn ip_number_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let Some(addresses) = args[0].as_binary_opt::<i32>() else {
        return exec_err!("an address is sixteen bytes, not {}", args[0].data_type());
    };
    let number = |bytes: &[u8]| bytes.try_into().map(i128::from_be_bytes).ok();
    let numbers: Decimal128Array = addresses.iter().map(|bytes| bytes.and_then(number)).collect();
    Ok(Arc::new(numbers.with_data_type(NUMBER)))
}

fn ip_text_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let Some(numbers) = args[0].as_primitive_opt::<Decimal128Type>() else {
        return exec_err!("an address is a number here, not {}", args[0].data_type());
    };
    let mut out = StringBuilder::with_capacity(numbers.len(), numbers.len() * 12);
    for number in numbers {
        match number.map(|n| Ipv6Addr::from_bits(n as u128).to_canonical()) {
            Some(ip) => {
                write!(out, "{ip}")?;
                out.append_value("");
            }
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn ip_order_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let mut out = StringBuilder::new();
    for written in text(&args[0])? {
        let (ip, bits) = written.map_or((None, 128), |written| match written.split_once('/') {
            Some((ip, bits)) => (Some(ip), bits.parse().unwrap_or(128u8)),
            None => (Some(written), 128),
        });
        match ip.and_then(|ip| ip.parse::<IpAddr>().ok()) {
            Some(ip) => {
                write!(out, "{}{bits:02x}", hex::encode(IpBytes::from(ip).0))?;
                out.append_value("");
            }
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn any_like_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let pattern = text(&args[1])?.value(0);
    let Ok(pattern) = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build() else {
        return exec_err!("the pattern is too large");
    };
    let mut out = BooleanBuilder::new();
    let lists = args[0].as_list::<i32>();
    for i in 0..lists.len() {
        let items = lists.value(i);
        out.append_value(lists.is_valid(i) && text(&items)?.iter().flatten().any(|item| pattern.is_match(item)));
    }
    Ok(Arc::new(out.finish()))
}

fn any_within_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (low, high) = (args[1].as_binary::<i32>().value(0), args[2].as_binary::<i32>().value(0));
    let within = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| (low..=high).contains(&&IpBytes::from(ip).0[..]));
    let mut out = BooleanBuilder::new();
    let lists = args[0].as_list::<i32>();
    for i in 0..lists.len() {
        let items = lists.value(i);
        out.append_value(lists.is_valid(i) && text(&items)?.iter().flatten().any(within));
    }
    Ok(Arc::new(out.finish()))
}

fn as_text_body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let array = &args[0];
    let one = |row: usize| -> Result<Option<String>> {
        if array.is_null(row) {
            return Ok(None);
        }
        Ok(Some(match array.data_type() {
            DataType::List(_) => {
                let items = array.as_list::<i32>().value(row);
                serde_json::Value::from_iter(text(&items)?.iter()).to_string()
            }
            DataType::Map(..) => {
                let entries = array.as_map().value(row);
                let (keys, values) = (text(entries.column(0))?, text(entries.column(1))?);
                let sorted: std::collections::BTreeMap<_, _> = keys.iter().zip(values.iter()).collect();
                let object = sorted.into_iter().filter_map(|(k, v)| Some((k?.to_owned(), v.into())));
                serde_json::Value::Object(object.collect()).to_string()
            }
            DataType::Binary => hex::encode(array.as_binary::<i32>().value(row)),
            other => return exec_err!("{other} is no list, map or bytes"),
        }))
    };
    let texts = (0..array.len()).map(one).collect::<Result<StringArray>>()?;
    Ok(Arc::new(texts))
}
