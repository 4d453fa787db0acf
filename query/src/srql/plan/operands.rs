//! What a literal is for the field it stands beside: a number to its last digit, addresses of one family, a MAC.
//!
//! Whole numbers are compared as whole numbers, never as floats: 2^53 and the number after it are two. Addresses lie in
//! sixteen bytes, IPv4 mapped into IPv6; a range of IPv6 leaves those out, so that an order stays within its family.

use std::net::{IpAddr, Ipv6Addr};

use arrow_schema::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as Df, cast, lit};

use super::super::ast::Op;

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// A whole one, exactly.
    Whole(i128),
    /// One with a fraction: the whole one below it, exactly, and itself about.
    Part(i128, f64),
    /// One too large to be told exactly.
    Real(f64),
}

/// Greatest whole number that a column may hold (`decimal(38,0)`).
const MAX_WHOLE: i128 = 10i128.pow(38) - 1;
/// The first and the last IPv4 address among those of IPv6.
const IPV4: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// A number, with `k M G T P` and `Ki Mi Gi Ti Pi`.
pub(super) fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    let (unsigned, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let (digits, factor) = scaled(unsigned)?;
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let sign = if negative { -1 } else { 1 };
    // The whole part, towards the least, and whether there is more.
    let exact = || -> Option<(i128, bool)> {
        let value = sign * format!("{whole}{fraction}").parse::<i128>().ok()?.checked_mul(factor)?;
        let places = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let power = 10i128.checked_pow(places.unsigned_abs())?;
        Some(match places {
            0.. => (value.checked_mul(power)?, false),
            _ => (value.div_euclid(power), value.rem_euclid(power) != 0),
        })
    };
    let real = digits.parse::<f64>().ok()? * factor as f64 * f64::from(sign as i8);
    match exact().filter(|(n, _)| n.abs() < MAX_WHOLE) {
        Some((n, false)) => Some(Number::Whole(n)),
        Some((n, true)) => Some(Number::Part(n, real)),
        None => real.is_finite().then_some(Number::Real(real)),
    }
}

/// A number without its unit, and what the unit multiplies it by.
fn scaled(text: &str) -> Option<(&str, i128)> {
    let (rest, base) = match text.strip_suffix('i') {
        Some(rest) => (rest, 1024i128),
        None => (text, 1000),
    };
    let power = match rest.chars().last()? {
        'k' | 'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        'P' => 5,
        _ if base == 1000 => return Some((text, 1)),
        _ => return None,
    };
    Some((&rest[..rest.len() - 1], base.pow(power)))
}

impl Number {
    /// As near as a float comes.
    pub(super) fn real(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64,
            Number::Part(_, n) | Number::Real(n) => n,
        }
    }

    /// The value that a column of a type has where it is this number; nothing where none has.
    pub(super) fn value(self, data_type: &DataType) -> Option<Df> {
        match (data_type, self) {
            (DataType::Int64, Number::Whole(n)) => i64::try_from(n).ok().map(lit),
            (DataType::Decimal128(..), Number::Whole(n)) => Some(lit(ScalarValue::Decimal128(Some(n), 38, 0))),
            (DataType::Int64 | DataType::Decimal128(..), _) => None,
            (_, n) => Some(lit(n.real())),
        }
    }
}

/// One comparison.
pub(super) fn apply(left: Df, op: Op, right: Df) -> Df {
    match op {
        Op::Less => left.lt(right),
        Op::LessEq => left.lt_eq(right),
        Op::Greater => left.gt(right),
        Op::GreaterEq => left.gt_eq(right),
        Op::Eq => left.eq(right),
        Op::NotEq => left.not_eq(right),
    }
}

/// Compares a column with a number, by value.
pub(super) fn compare(column: Df, data_type: &DataType, op: Op, n: Number) -> Df {
    let whole = matches!(data_type, DataType::Int64 | DataType::Decimal128(..));
    match (n.value(data_type), n) {
        (Some(value), _) if whole => apply(column, op, value),
        (Some(value), _) => apply(cast(column, DataType::Float64), op, value),
        // A whole number is on one side of a fraction or the other.
        (None, Number::Part(below, _)) => {
            let below = Number::Whole(below);
            match op {
                Op::Eq => lit(false),
                Op::NotEq => column.is_not_null(),
                Op::Less | Op::LessEq => compare(column, data_type, Op::LessEq, below),
                Op::Greater | Op::GreaterEq => compare(column, data_type, Op::Greater, below),
            }
        }
        // Every value of the column is on the same side.
        (None, n) => {
            let is = match op {
                Op::Eq => false,
                Op::NotEq => true,
                Op::Less | Op::LessEq => n.real() > 0.0,
                Op::Greater | Op::GreaterEq => n.real() < 0.0,
            };
            if is { column.is_not_null() } else { lit(false) }
        }
    }
}

/// The numbers that a field can have, where its name says so.
pub(super) fn bounds(field: &str) -> Option<(i128, i128)> {
    Some(match field {
        "protocol_num" | "tos" => (0, 255),
        "severity_number" => (0, 7),
        "facility" => (0, 23),
        "vlan" => (0, 4095),
        "ether_type" | "tcp_flags" => (0, 65_535),
        _ if field.ends_with("_port") => (0, 65_535),
        _ if field.ends_with("_as_number") => (0, i128::from(u32::MAX)),
        _ => return None,
    })
}

/// Addresses from one to another, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) low: IpAddr,
    pub(super) high: IpAddr,
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Addresses {
    fn new(low: IpAddr, high: IpAddr) -> Result<Self, &'static str> {
        let (low, high) = (low.to_canonical(), high.to_canonical());
        match (low.is_ipv4() == high.is_ipv4(), low <= high) {
            (false, _) => Err("the range is of two families of addresses"),
            (true, false) => Err("the range is reversed"),
            (true, true) => Ok(Addresses { low, high }),
        }
    }

    /// An address, a network or a range `A-B`.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        const NONE: &str = "no address, network or address range";
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| NONE);
        if let Some((a, b)) = text.split_once('-') {
            return Addresses::new(address(a)?, address(b)?);
        }
        if text.contains('/') {
            let net: ipnet::IpNet = text.parse().map_err(|_| NONE)?;
            let (low, high) = (net.network(), net.broadcast());
            // A network that holds the IPv4 addresses and more is one of IPv6.
            let mapped = low.to_canonical().is_ipv4() == high.to_canonical().is_ipv4();
            return if mapped { Addresses::new(low, high) } else { Ok(Addresses { low, high }) };
        }
        let ip = address(text)?;
        Addresses::new(ip, ip)
    }

    /// From the first of one to the last of another.
    pub(super) fn between(from: Option<Self>, to: Option<Self>) -> Result<Self, &'static str> {
        match (from, to) {
            (Some(from), Some(to)) => Addresses::new(from.low, to.high),
            (Some(from), None) => Ok(Addresses { high: last(from.low), ..from }),
            (None, Some(to)) => Ok(Addresses { low: first(to.high), ..to }),
            (None, None) => Err("the range has no end"),
        }
    }

    /// The one address there is.
    pub(super) fn one(self) -> Option<IpAddr> {
        (self.low == self.high).then_some(self.low)
    }

    /// Those that compare so with these: `>` is beyond the last of them, `<` before the first. As pairs of first and last.
    pub(super) fn compared(self, op: Op) -> Vec<(Df, Df)> {
        let bytes = |n: u128| lit(ScalarValue::Binary(Some(Ipv6Addr::from_bits(n).octets().to_vec())));
        self.ranges(op).into_iter().map(|(low, high)| (bytes(low), bytes(high))).collect()
    }

    /// The same as numbers of sixteen bytes.
    pub(super) fn ranges(self, op: Op) -> Vec<(u128, u128)> {
        let (least, greatest) = (bits(first(self.low)), bits(last(self.low)));
        let (low, high) = (bits(self.low), bits(self.high));
        let range = match op {
            Op::Greater => high.checked_add(1).map(|low| (low, greatest)),
            Op::GreaterEq => Some((low, greatest)),
            Op::Less => low.checked_sub(1).map(|high| (least, high)),
            Op::LessEq => Some((least, high)),
            Op::Eq | Op::NotEq => Some((low, high)),
        };
        let Some((low, high)) = range else { return Vec::new() };
        let parts = match self.low {
            IpAddr::V6(_) if low < IPV4.0 && high > IPV4.1 => vec![(low, IPV4.0 - 1), (IPV4.1 + 1, high)],
            _ => vec![(low, high)],
        };
        parts.into_iter().filter(|(low, high)| low <= high).collect()
    }
}

fn first(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}

fn last(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { IpAddr::from([255; 4]) } else { IpAddr::from([255; 16]) }
}

/// A MAC as it is stored: twelve upper-case hexadecimal digits.
pub(super) fn mac(text: &str) -> Option<String> {
    let hex = text.replace([':', '-', '.'], "").to_ascii_uppercase();
    (hex.len() == 12 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_they_say_to_the_last_digit() {
        use Number::{Part, Real, Whole};
        for (text, is) in [
            ("9007199254740993", Some(Whole(9_007_199_254_740_993))),
            ("-36893488147419103233", Some(Whole(-36_893_488_147_419_103_233))),
            ("1.5Mi", Some(Whole(1_572_864))),
            ("1.5k", Some(Whole(1500))),
            ("1e6", Some(Whole(1_000_000))),
            ("1.25e2", Some(Whole(125))),
            ("25e-1", Some(Part(2, 2.5))),
            ("-0.5", Some(Part(-1, -0.5))),
            ("9007199254740993.5", Some(Part(9_007_199_254_740_993, 9_007_199_254_740_994.0))),
            ("1e300", Some(Real(1e300))),
            ("1e999", None),
            ("x", None),
            ("", None),
            ("k", None),
            ("5i", None),
            ("NaN", None),
            ("inf", None),
            ("1_000", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(number(text), is, "{text}");
        }
    }

    #[test]
    fn ranges_stay_in_their_family() {
        let read = |text| Addresses::read(text);
        assert_eq!(read("10.1.2.3/8").unwrap().low.to_string(), "10.0.0.0");
        assert_eq!(read("::ffff:10.0.0.1").unwrap().one(), Some(IpAddr::from([10, 0, 0, 1])));
        for wrong in ["10.0.0", "10.0.0.9-10.0.0.1", "10.0.0.1-2001:db8::1", "10.0.0.0/99", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let parts = |text, op| read(text).unwrap().compared(op).len();
        assert_eq!((parts("::/0", Op::Eq), parts("0.0.0.0/0", Op::Eq)), (2, 1));
        assert_eq!((parts("255.255.255.255", Op::Greater), parts("::", Op::Less)), (0, 0));
        assert_eq!((parts("2001:db8::", Op::Less), parts("2001:db8::", Op::Greater)), (2, 1));
    }

    #[test]
    fn a_mac_has_twelve_digits() {
        assert_eq!(mac("0c:ea.14-000001").as_deref(), Some("0CEA14000001"));
        assert!(mac("zz").is_none() && mac("0cea1400000").is_none());
    }
}
