//! The message of v3 as it is on the wire (RFC 3412 section 6, RFC 3414 section 2.4): who, at which time of which engine, under
//! which flags; and behind that a PDU with its context, encrypted or not. Nothing here knows a key.
//!
//! ```text
//! SEQUENCE ─ 3 ─ SEQUENCE(id, size, flags, model) ─ OCTETS(SEQUENCE(engine, boots, time, user, auth, salt)) ─ data
//! ```

use std::ops::Range;

use super::ber::{built, expect, octets, put_tlv, tlv, whole};
use super::{INTEGER, OCTETS, SEQUENCE, SnmpError};
use crate::wire::{Cursor, uint};

/// An answer is welcome, also where something is wrong.
pub(super) const REPORTABLE: u8 = 4;
/// It is encrypted.
pub(super) const PRIVATE: u8 = 2;
/// It is authentic.
pub(super) const AUTHENTIC: u8 = 1;
/// The User-based Security Model.
const USM: u32 = 3;
/// Octets of an engine's id (RFC 3411).
pub(super) const MAX_ENGINE: usize = 32;
/// Octets of a user's name (RFC 3414).
pub(super) const MAX_USER: usize = 32;
/// Octets of a digest, and of a salt: none that there is has more.
const MAX_PARAMETERS: usize = 64;
/// What numbers end at.
pub(super) const MAX_NUMBER: u32 = i32::MAX as u32;
/// The largest message that we say we take: what UDP has room for.
const MAX_SIZE: u32 = 65_507;

/// A message of v3.
pub(super) struct Message<'a> {
    pub(super) id: u32,
    pub(super) flags: u8,
    pub(super) engine: &'a [u8],
    pub(super) boots: u32,
    pub(super) time: u32,
    pub(super) user: &'a [u8],
    /// Where in the message the digest stands.
    pub(super) digest: Range<usize>,
    pub(super) salt: &'a [u8],
    /// A PDU with its context, or octets that are one once they are decrypted.
    pub(super) data: &'a [u8],
}

fn number(at: &mut Cursor<'_>, what: &'static str) -> Result<u32, SnmpError> {
    let bytes = expect(at, INTEGER, what)?.rest();
    let number = (!bytes.is_empty() && bytes.len() <= 5).then(|| uint(bytes));
    let number = number.and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= MAX_NUMBER);
    number.ok_or(SnmpError::Range(what))
}

/// Where a part of some bytes begins in them.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

impl<'a> Message<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, SnmpError> {
        let mut message = expect(&mut Cursor::new(bytes), SEQUENCE, "a message")?;
        number(&mut message, "the version")?;
        let mut header = expect(&mut message, SEQUENCE, "a header")?;
        let id = number(&mut header, "the message's id")?;
        number(&mut header, "the largest size")?;
        let [flags] = octets(&mut header, 1, "flags")? else { return Err(SnmpError::Range("flags")) };
        let model = number(&mut header, "the security model")?;
        if model != USM {
            return Err(SnmpError::Model(model));
        }
        let mut security = expect(&mut message, OCTETS, "security parameters")?;
        let mut security = expect(&mut security, SEQUENCE, "parameters of USM")?;
        let engine = octets(&mut security, MAX_ENGINE, "the engine's id")?;
        let (boots, time) = (number(&mut security, "boots")?, number(&mut security, "the time")?);
        let user = octets(&mut security, MAX_USER, "the user's name")?;
        let digest = octets(&mut security, MAX_PARAMETERS, "the digest")?;
        let salt = octets(&mut security, MAX_PARAMETERS, "the salt")?;
        let begins = offset(bytes, digest);
        let digest = begins..begins + digest.len();
        Ok(Message { id, flags: *flags, engine, boots, time, user, digest, salt, data: message.rest() })
    }

    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A PDU with its context (RFC 3412 section 6).
pub(super) struct Scoped<'a> {
    /// The engine that the context is of.
    pub(super) engine: &'a [u8],
    pub(super) context: &'a [u8],
    pub(super) tag: u8,
    pub(super) pdu: &'a [u8],
}

impl<'a> Scoped<'a> {
    pub(super) fn read(data: &'a [u8]) -> Result<Self, SnmpError> {
        let mut scoped = expect(&mut Cursor::new(data), SEQUENCE, "a PDU with its context")?;
        let engine = octets(&mut scoped, MAX_ENGINE, "the context's engine")?;
        let context = octets(&mut scoped, usize::from(u8::MAX), "the context's name")?;
        let (tag, pdu) = tlv(&mut scoped)?;
        Ok(Scoped { engine, context, tag, pdu: pdu.rest() })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.pdu.len() + 64);
        put_tlv(&mut body, OCTETS, self.engine);
        put_tlv(&mut body, OCTETS, self.context);
        put_tlv(&mut body, self.tag, self.pdu);
        built(SEQUENCE, &body)
    }

    /// The request's id, where there is a PDU to read it of.
    pub(super) fn request_id(&self) -> Option<&'a [u8]> {
        expect(&mut Cursor::new(self.pdu), INTEGER, "a request id").ok().map(|id| id.rest())
    }
}

/// What an answer says of itself.
pub(super) struct Header<'a> {
    pub(super) id: u32,
    pub(super) flags: u8,
    pub(super) engine: &'a [u8],
    pub(super) boots: u32,
    pub(super) time: u32,
    pub(super) user: &'a [u8],
    /// Octets of the digest, which is not made yet.
    pub(super) digest: usize,
    pub(super) salt: &'a [u8],
}

impl Header<'_> {
    /// The message with data, and where its digest goes.
    pub(super) fn write(&self, data: &[u8]) -> (Vec<u8>, Range<usize>) {
        let mut header = Vec::with_capacity(32);
        put_tlv(&mut header, INTEGER, &whole(self.id));
        put_tlv(&mut header, INTEGER, &whole(MAX_SIZE));
        put_tlv(&mut header, OCTETS, &[self.flags]);
        put_tlv(&mut header, INTEGER, &[USM as u8]);
        let mut security = Vec::with_capacity(160);
        put_tlv(&mut security, OCTETS, self.engine);
        put_tlv(&mut security, INTEGER, &whole(self.boots));
        put_tlv(&mut security, INTEGER, &whole(self.time));
        put_tlv(&mut security, OCTETS, self.user);
        put_tlv(&mut security, OCTETS, &vec![0; self.digest]);
        let salt = built(OCTETS, self.salt);
        security.extend_from_slice(&salt);
        let mut body = Vec::with_capacity(data.len() + 256);
        put_tlv(&mut body, INTEGER, &[3]);
        put_tlv(&mut body, SEQUENCE, &header);
        put_tlv(&mut body, OCTETS, &built(SEQUENCE, &security));
        body.extend_from_slice(data);
        let message = built(SEQUENCE, &body);
        // The salt and the data are all that comes after it.
        let ends = message.len() - data.len() - salt.len();
        (message, ends - self.digest..ends)
    }
}
