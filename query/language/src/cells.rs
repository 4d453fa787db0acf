//! The cells of one column of a batch, and what one of them is: its text as answers write it, its number exactly, its address.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow_schema::DataType;
use radarflow_proto::cell::Time;

use crate::literals::Number;

/// The cells of a column.
#[derive(Clone, Copy, Debug)]
pub enum Cells<'a> {
    /// Text: names, addresses, MACs.
    Text(&'a StringArray),
    /// Whole numbers.
    Whole(&'a Int64Array),
    /// Larger whole numbers.
    Wide(&'a Decimal128Array),
    /// Numbers with fractions.
    Real(&'a Float64Array),
    /// True or false.
    Flag(&'a BooleanArray),
    /// Instants.
    Time(&'a TimestampMicrosecondArray),
    /// Lists of texts, and the texts.
    List(&'a ListArray, &'a StringArray),
    /// Names and values: the map, names, values.
    Map(&'a MapArray, &'a StringArray, &'a StringArray),
    /// Bytes.
    Bytes(&'a BinaryArray),
    /// A column that the batch has not: nothing in any row.
    Missing,
}

impl<'a> Cells<'a> {
    /// The cells of a column of a batch.
    pub fn of(batch: &'a RecordBatch, column: &str) -> Self {
        let Some(array) = batch.column_by_name(column) else { return Cells::Missing };
        match array.data_type() {
            DataType::Utf8 => Cells::Text(array.as_string()),
            DataType::Int64 => Cells::Whole(array.as_primitive::<Int64Type>()),
            DataType::Decimal128(..) => Cells::Wide(array.as_primitive::<Decimal128Type>()),
            DataType::Float64 => Cells::Real(array.as_primitive::<Float64Type>()),
            DataType::Boolean => Cells::Flag(array.as_boolean()),
            DataType::Timestamp(..) => {
                array.as_primitive_opt::<TimestampMicrosecondType>().map_or(Cells::Missing, Cells::Time)
            }
            DataType::Binary => Cells::Bytes(array.as_binary()),
            DataType::List(_) => {
                let list: &ListArray = array.as_list();
                list.values().as_string_opt::<i32>().map_or(Cells::Missing, |texts| Cells::List(list, texts))
            }
            DataType::Map(..) => {
                let map = array.as_map();
                match (map.keys().as_string_opt::<i32>(), map.values().as_string_opt::<i32>()) {
                    (Some(keys), Some(values)) => Cells::Map(map, keys, values),
                    _ => Cells::Missing,
                }
            }
            _ => Cells::Missing,
        }
    }

    fn is_null(self, row: usize) -> bool {
        match self {
            Cells::Text(a) => a.is_null(row),
            Cells::Whole(a) => a.is_null(row),
            Cells::Wide(a) => a.is_null(row),
            Cells::Real(a) => a.is_null(row),
            Cells::Flag(a) => a.is_null(row),
            Cells::Time(a) => a.is_null(row),
            Cells::List(a, _) => a.is_null(row),
            Cells::Map(a, ..) => a.is_null(row),
            Cells::Bytes(a) => a.is_null(row),
            Cells::Missing => true,
        }
    }

    /// Whether there is a value; of lists and maps, whether there is anything in it.
    pub fn is_present(self, row: usize) -> bool {
        !self.is_null(row)
            && match self {
                Cells::List(list, _) => list.value_length(row) > 0,
                Cells::Map(map, ..) => map.value_length(row) > 0,
                _ => true,
            }
    }

    /// A text.
    pub fn text(self, row: usize) -> Option<&'a str> {
        match self {
            Cells::Text(texts) if !texts.is_null(row) => Some(texts.value(row)),
            _ => None,
        }
    }

    /// The texts of a list, the keys of a map.
    pub fn texts(self, row: usize) -> impl Iterator<Item = &'a str> {
        let (from, to, texts) = match self {
            Cells::List(list, texts) if !list.is_null(row) => {
                let offsets = list.value_offsets();
                (offsets[row] as usize, offsets[row + 1] as usize, Some(texts))
            }
            Cells::Map(map, keys, _) if !map.is_null(row) => {
                let offsets = map.value_offsets();
                (offsets[row] as usize, offsets[row + 1] as usize, Some(keys))
            }
            _ => (0, 0, None),
        };
        texts.into_iter().flat_map(move |texts| (from..to).filter(|n| !texts.is_null(*n)).map(|n| texts.value(n)))
    }

    /// The value below a key of a map.
    pub fn below(self, row: usize, key: &str) -> Option<&'a str> {
        let Cells::Map(map, keys, values) = self else { return None };
        if map.is_null(row) {
            return None;
        }
        let offsets = map.value_offsets();
        let at = (offsets[row] as usize..offsets[row + 1] as usize).find(|n| keys.value(*n) == key)?;
        (!values.is_null(at)).then(|| values.value(at))
    }

    /// A whole number, or a number with a fraction.
    pub fn number(self, row: usize) -> Option<Number> {
        if self.is_null(row) {
            return None;
        }
        Some(match self {
            Cells::Whole(a) => Number::Whole(i128::from(a.value(row))),
            Cells::Wide(a) => Number::Whole(a.value(row)),
            Cells::Real(a) if a.value(row).is_finite() => Number::of_real(a.value(row)),
            _ => return None,
        })
    }

    /// True or false.
    pub fn flag(self, row: usize) -> Option<bool> {
        match self {
            Cells::Flag(flags) if !flags.is_null(row) => Some(flags.value(row)),
            _ => None,
        }
    }

    /// An instant, microseconds since 1970.
    pub fn time(self, row: usize) -> Option<i64> {
        match self {
            Cells::Time(times) if !times.is_null(row) => Some(times.value(row)),
            _ => None,
        }
    }

    /// The value as a text, as answers write it; nothing where there is none.
    pub fn label(self, row: usize) -> Option<String> {
        if !self.is_present(row) {
            return None;
        }
        Some(match self {
            Cells::Text(a) => a.value(row).to_owned(),
            Cells::Whole(a) => a.value(row).to_string(),
            Cells::Wide(a) => a.value(row).to_string(),
            Cells::Real(a) => a.value(row).to_string(),
            Cells::Flag(a) => a.value(row).to_string(),
            Cells::Time(a) => Time(a.value(row)).to_string(),
            Cells::List(..) => self.texts(row).collect::<Vec<_>>().join(","),
            Cells::Map(..) => {
                let pairs: Vec<_> =
                    self.texts(row).map(|k| format!("{k}={}", self.below(row, k).unwrap_or(""))).collect();
                pairs.join(",")
            }
            Cells::Bytes(a) => a.value(row).iter().fold(String::new(), |mut hex, byte| {
                // Writing to a text does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            }),
            Cells::Missing => return None,
        })
    }
}

/// An address as a number of sixteen bytes, IPv4 mapped into IPv6.
pub fn address(text: &str) -> Option<u128> {
    Some(match text.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    })
}

/// The network of an address, `10.1.2.0/24`, as answers write it.
pub fn network(text: &str, bits: u8) -> Option<String> {
    let ip = text.parse::<IpAddr>().ok()?.to_canonical();
    let bits = bits.min(if ip.is_ipv4() { 32 } else { 128 });
    Some(ipnet::IpNet::new(ip, bits).ok()?.trunc().to_string())
}

/// An address of sixteen bytes.
pub fn ip(bits: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical()
}
