//! Protobuf as it lies in a buffer: the fields of one message, borrowed, in their order. Nothing is allocated, so a message
//! costs what is made of its fields and no more; lengths that lie end it with an error.

use thiserror::Error;

use crate::wire::{put_sized, put_varint};

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a protobuf message of OTLP: {0}")]
pub struct Malformed(pub &'static str);

/// The value of a field, by how it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number of variable length.
    Number(u64),
    /// Eight bytes.
    Eight(u64),
    /// Four bytes.
    Four(u32),
    /// A text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// What is written with a length.
    ///
    /// # Errors
    /// It is a number.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a number where a text or message belongs")),
        }
    }

    /// A text; what is no UTF-8 in it is replaced.
    ///
    /// # Errors
    /// It is a number.
    pub fn text(self) -> Result<String, Malformed> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A whole number, however it is written.
    ///
    /// # Errors
    /// It is none.
    pub fn number(self) -> Result<u64, Malformed> {
        match self {
            Value::Number(n) | Value::Eight(n) => Ok(n),
            Value::Four(n) => Ok(n.into()),
            Value::Bytes(_) => Err(Malformed("bytes where a number belongs")),
        }
    }

    /// A number of eight bytes as what it is a float of.
    ///
    /// # Errors
    /// It is none.
    pub fn double(self) -> Result<f64, Malformed> {
        match self {
            Value::Eight(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed("no eight bytes where a double belongs")),
        }
    }
}

/// The fields of a message; ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those of these bytes.
    pub fn of(message: &'a [u8]) -> Self {
        Fields(message)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed("a field is longer than what is left"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let (n, used) = varint(self.0)?;
        self.0 = &self.0[used..];
        Ok(n)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(Malformed("a field without a number"))?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Eight(self.take(8)?.iter().rev().fold(0, |n, byte| (n << 8) | u64::from(*byte))),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Four(self.take(4)?.iter().rev().fold(0, |n, byte| (n << 8) | u32::from(*byte))),
            _ => return Err(Malformed("a field of a kind that is not used")),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// A number at the beginning of some bytes, and how many it takes.
fn varint(bytes: &[u8]) -> Result<(u64, usize), Malformed> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    Err(Malformed("a number that does not end"))
}

/// The numbers of a repeated field that is written here: packed into bytes, or one of them. `fixed` tells that each takes eight
/// bytes when packed.
///
/// # Errors
/// The bytes are no such numbers.
pub fn each_number(value: Value<'_>, fixed: bool, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
    match value {
        Value::Bytes(bytes) if fixed => {
            let (numbers, rest) = bytes.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(Malformed("packed numbers that are no whole numbers"));
            }
            numbers.iter().for_each(|n| each(u64::from_le_bytes(*n)));
        }
        Value::Bytes(mut bytes) => {
            while !bytes.is_empty() {
                let (n, used) = varint(bytes)?;
                each(n);
                bytes = &bytes[used..];
            }
        }
        one => each(one.number()?),
    }
    Ok(())
}

/// A signed number that is written by turns positive and negative (`sint32`).
pub fn zigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends a number of variable length.
pub fn put_number(out: &mut Vec<u8>, field: u32, n: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, n);
}

/// Appends a number of eight bytes.
pub fn put_eight(out: &mut Vec<u8>, field: u32, n: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&n.to_le_bytes());
}

/// Appends a number of four bytes.
pub fn put_four(out: &mut Vec<u8>, field: u32, n: u32) {
    put_varint(out, u64::from(field) << 3 | 5);
    out.extend_from_slice(&n.to_le_bytes());
}

/// Appends a text, bytes or a message.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_sized(out, bytes);
}

/// Appends a message that is written in place.
///
/// # Errors
/// What writes it has one.
pub fn put_message<E>(
    out: &mut Vec<u8>,
    field: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_varint(out, u64::from(field) << 3 | 2);
    let begins = out.len();
    write(out)?;
    let mut length = Vec::with_capacity(10);
    put_varint(&mut length, (out.len() - begins) as u64);
    out.splice(begins..begins, length);
    Ok(())
}
