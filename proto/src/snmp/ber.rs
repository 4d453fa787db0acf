//! BER as SNMP has it (RFC 3417 section 8): definite lengths, tags of one octet.

use super::{OCTETS, SnmpError};
use crate::wire::{Cursor, uint};

/// The next value: its tag, and what is in it.
pub(super) fn tlv<'a>(at: &mut Cursor<'a>) -> Result<(u8, Cursor<'a>), SnmpError> {
    let tag = at.u8()?;
    let length = match at.u8()? {
        n @ 0..=0x7f => usize::from(n),
        n @ 0x81..=0x84 => uint(at.take(usize::from(n & 0x7f))?) as usize,
        _ => return Err(SnmpError::Length),
    };
    Ok((tag, at.sub(length)?))
}

/// The next value, which has this tag.
pub(super) fn expect<'a>(at: &mut Cursor<'a>, tag: u8, wanted: &'static str) -> Result<Cursor<'a>, SnmpError> {
    match tlv(at)? {
        (found, body) if found == tag => Ok(body),
        (found, _) => Err(SnmpError::Tag { wanted, tag: found }),
    }
}

/// The next value, octets of a number there may be.
pub(super) fn octets<'a>(at: &mut Cursor<'a>, most: usize, wanted: &'static str) -> Result<&'a [u8], SnmpError> {
    let found = expect(at, OCTETS, wanted)?.rest();
    if found.len() > most { Err(SnmpError::TooLong { what: wanted, most }) } else { Ok(found) }
}

/// A whole number of eight octets at most; of longer ones the last eight.
pub(super) fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    bytes.iter().fold(if negative { -1i64 } else { 0 }, |n, b| (n << 8) | i64::from(*b))
}

/// An object identifier, as it is written.
pub(super) fn oid(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut arc = 0u64;
    let mut first = true;
    for byte in bytes {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let root = (arc / 40).min(2);
            out = format!("{root}.{}", arc - root * 40);
            first = false;
        } else {
            out.push('.');
            out.push_str(&arc.to_string());
        }
        arc = 0;
    }
    out
}

/// Appends a value, its length in as few octets as it takes.
pub(super) fn put_tlv(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    let length = (body.len() as u32).to_be_bytes();
    match body.len() {
        n @ 0..=0x7f => out.push(n as u8),
        n => {
            let skipped = (n as u32).leading_zeros() as usize / 8;
            out.push(0x80 | (4 - skipped) as u8);
            out.extend_from_slice(&length[skipped..]);
        }
    }
    out.extend_from_slice(body);
}

/// A value alone.
pub(super) fn built(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 6);
    put_tlv(&mut out, tag, body);
    out
}

/// What an integer that is not negative has between its tag and length and the next value.
pub(super) fn whole(n: u32) -> Vec<u8> {
    let bytes = u64::from(n).to_be_bytes();
    // The first bit is the sign's.
    let skipped = (n.leading_zeros() as usize + 32 - 1) / 8;
    bytes[skipped.min(7)..].to_vec()
}
