//! A cursor over borrowed bytes, big-endian as networks are, that cannot panic and cannot read past its end.

use std::fmt;

/// Why bytes could not be read: what was wanted, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Offset in the input at which the read began.
    pub at: usize,
    /// Bytes the read needed.
    pub wanted: usize,
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "truncated: {} bytes wanted at offset {}", self.wanted, self.at)
    }
}

impl std::error::Error for Truncated {}

/// A reading position in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether every byte was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The unread bytes.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Reads `n` bytes.
    ///
    /// # Errors
    /// [`Truncated`] where there are fewer.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        if n > self.remaining() {
            return Err(Truncated { at: self.at, wanted: n });
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    /// A cursor over the next `n` bytes, which are consumed.
    ///
    /// # Errors
    /// [`Truncated`] where there are fewer.
    pub fn sub(&mut self, n: usize) -> Result<Cursor<'a>, Truncated> {
        self.take(n).map(Cursor::new)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Truncated`] where there is none.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, big-endian.
    ///
    /// # Errors
    /// [`Truncated`] where there are fewer.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    ///
    /// # Errors
    /// [`Truncated`] where there are fewer.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    ///
    /// # Errors
    /// [`Truncated`] where there are fewer.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }

    /// An unsigned LEB128 number of at most ten bytes.
    ///
    /// # Errors
    /// [`Truncated`] where the bytes end before the number does, or it has more than ten.
    pub fn varint(&mut self) -> Result<u64, Truncated> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Truncated { at: self.at, wanted: 1 })
    }

    /// A length (LEB128) and that many bytes.
    ///
    /// # Errors
    /// [`Truncated`] where there are fewer bytes than the length says.
    pub fn sized(&mut self) -> Result<&'a [u8], Truncated> {
        let n = self.varint()?;
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length (LEB128) and the bytes.
pub fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// An unsigned big-endian integer of up to eight bytes; longer fields keep their low eight.
#[inline]
pub fn uint(bytes: &[u8]) -> u64 {
    // As nearly all fields are.
    match *bytes {
        [a] => return u64::from(a),
        [a, b] => return u64::from(u16::from_be_bytes([a, b])),
        [a, b, c, d] => return u64::from(u32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => return u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => {}
    }
    let low = &bytes[bytes.len().saturating_sub(8)..];
    low.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}
