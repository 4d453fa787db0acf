//! What a literal is for the field it stands beside: a number to its last digit, addresses of one family, a MAC.
//!
//! Whole numbers are compared as whole numbers, never as floats: 2^53 and the number after it are two. Addresses lie in
//! sixteen bytes, IPv4 mapped into IPv6; a range of IPv6 leaves those out, so that an order stays within its family.

use std::net::Ipv6Addr;

use arrow_schema::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as Df, cast, lit};

use radarflow_language::literals::{Addresses, Number};

use super::super::ast::Op;

/// The value that a column of a type has where it is this number; nothing where none has.
pub(super) fn value(number: Number, data_type: &DataType) -> Option<Df> {
    match (data_type, number) {
        (DataType::Int64, Number::Whole(n)) => i64::try_from(n).ok().map(lit),
        (DataType::Decimal128(..), Number::Whole(n)) => Some(lit(ScalarValue::Decimal128(Some(n), 38, 0))),
        (DataType::Int64 | DataType::Decimal128(..), _) => None,
        (_, n) => Some(lit(n.real())),
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
    match (value(n, data_type), n) {
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

/// Those that compare so with some: pairs of the first and the last, as they are stored.
pub(super) fn compared(addresses: Addresses, op: Op) -> Vec<(Df, Df)> {
    let bytes = |n: u128| lit(ScalarValue::Binary(Some(Ipv6Addr::from_bits(n).octets().to_vec())));
    addresses.ranges(op).into_iter().map(|(low, high)| (bytes(low), bytes(high))).collect()
}
