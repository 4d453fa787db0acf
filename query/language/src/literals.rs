//! What a literal is for the field it stands beside: a number to its last digit, addresses of one family, a MAC, a pattern.
//!
//! Whole numbers are never floats: 2^53 and the number after it are two. Addresses lie in sixteen bytes, IPv4 mapped into
//! IPv6; a range of IPv6 leaves those out, so that an order stays within its family.

use std::cmp::Ordering;
use std::net::IpAddr;

use crate::ast::{Literal, Op};
use crate::parse::ORDINARY;

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
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
pub fn number(text: &str) -> Option<Number> {
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
    /// A float: exactly where it is whole.
    pub fn of_real(n: f64) -> Self {
        match n.abs() < MAX_WHOLE as f64 {
            true if n.trunc() == n => Number::Whole(n as i128),
            true => Number::Part(n.floor() as i128, n),
            false => Number::Real(n),
        }
    }

    /// Which is greater: whole numbers are compared as whole numbers.
    pub fn order(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => a.cmp(&b),
            (Number::Whole(a), Number::Part(below, _)) => a.cmp(&below).then(Ordering::Less),
            (Number::Part(below, _), Number::Whole(b)) => below.cmp(&b).then(Ordering::Greater),
            (Number::Whole(_), Number::Real(b)) => 0.0f64.total_cmp(&b),
            (Number::Real(a), Number::Whole(_)) => a.total_cmp(&0.0),
            (a, b) => a.real().total_cmp(&b.real()),
        }
    }

    /// As near as a float comes.
    pub fn real(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64,
            Number::Part(_, n) | Number::Real(n) => n,
        }
    }
}

/// The numbers that a field can have, where its name says so.
pub fn bounds(field: &str) -> Option<(i128, i128)> {
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
pub struct Addresses {
    /// The first.
    pub low: IpAddr,
    /// The last.
    pub high: IpAddr,
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
    ///
    /// # Errors
    /// It is none of these, or a range of two families, or reversed.
    pub fn read(text: &str) -> Result<Self, &'static str> {
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
    ///
    /// # Errors
    /// They are of two families, or reversed, or there is neither.
    pub fn between(from: Option<Self>, to: Option<Self>) -> Result<Self, &'static str> {
        match (from, to) {
            (Some(from), Some(to)) => Addresses::new(from.low, to.high),
            (Some(from), None) => Ok(Addresses { high: last(from.low), ..from }),
            (None, Some(to)) => Ok(Addresses { low: first(to.high), ..to }),
            (None, None) => Err("the range has no end"),
        }
    }

    /// The one address there is.
    pub fn one(self) -> Option<IpAddr> {
        (self.low == self.high).then_some(self.low)
    }

    /// Those that compare so with these: `>` is beyond the last of them, `<` before the first. As pairs of first and last, numbers
    /// of sixteen bytes.
    pub fn ranges(self, op: Op) -> Vec<(u128, u128)> {
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
pub fn mac(text: &str) -> Option<String> {
    let hex = text.replace([':', '-', '.'], "").to_ascii_uppercase();
    (hex.len() == 12 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hex)
}

fn each(literal: &Literal, mut ordinary: impl FnMut(char), mut wildcard: impl FnMut(char)) {
    let mut chars = literal.text.chars();
    while let Some(c) = chars.next() {
        match c {
            ORDINARY => {
                if let Some(c) = chars.next() {
                    ordinary(c);
                }
            }
            '%' if !literal.verbatim => wildcard('%'),
            '*' if !literal.quoted => wildcard('%'),
            '?' if !literal.quoted => wildcard('?'),
            c => ordinary(c),
        }
    }
}

/// Whether it has a wildcard.
pub fn has_wildcard(literal: &Literal) -> bool {
    let mut any = false;
    each(literal, |_| {}, |_| any = true);
    any
}

/// The literal as a LIKE pattern.
pub fn like(literal: &Literal) -> String {
    let out = std::cell::RefCell::new(String::new());
    each(
        literal,
        |c| {
            let mut out = out.borrow_mut();
            if matches!(c, '%' | '_' | '\\') {
                out.push('\\');
            }
            out.push(c);
        },
        |w| out.borrow_mut().push(if w == '%' { '%' } else { '_' }),
    );
    out.into_inner()
}

/// The literal as a regular expression over the whole text.
pub fn wildcard_regex(literal: &Literal) -> String {
    let out = std::cell::RefCell::new("(?is)^".to_owned());
    each(
        literal,
        |c| out.borrow_mut().push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        |w| out.borrow_mut().push_str(if w == '%' { ".*" } else { "." }),
    );
    out.borrow_mut().push('$');
    out.into_inner()
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
        let parts = |text, op| read(text).unwrap().ranges(op).len();
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
