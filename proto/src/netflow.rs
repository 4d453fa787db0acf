//! NetFlow v5, v9 (RFC 3954) and IPFIX (RFC 7011): messages to flows, given what the exporter told before.
//!
//! A message of v9 or IPFIX can only be read with the templates its exporter sent earlier; [`Exporter`] remembers them,
//! for one (exporter address, port, version, source id or observation domain). It is plain keyed state: serialised into
//! snapshots, so that a collector's restart loses nothing. Redefinition replaces. A set that waits for its template is
//! held, at most [`MAX_HELD_MS`], and decoded when the template comes.
//!
//! Sampling is resolved record → options → header; what nobody told stays unknown, never silently 1.
//!
//! A flow is named by where its record stands in its message, so that no two of a message have one name, whenever and
//! in whatever order they are decoded.
//!
//! Bounds: a message costs work and memory in proportion to its bytes and to those of the sets it sets free. What an
//! exporter leaves behind is at most [`MAX_EXPORTER_BYTES`]: [`MAX_TEMPLATES`] of [`MAX_FIELDS`] each and
//! [`MAX_TEMPLATE_FIELDS`] together, [`MAX_HELD_SETS`] of [`MAX_HELD_BYTES`] together, [`MAX_SAMPLERS`], [`MAX_APPS`] of
//! [`MAX_NAME_BYTES`] each. A flood beyond them is refused and counted, it never replaces what is known.

mod first;
mod held;
#[cfg(test)]
mod hostile;
mod record;
mod templates;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::flow::{Flow, SamplingSource};
use crate::sequence;
use crate::wire::{Cursor, Truncated};
pub use first::FirstExporter;
use held::{Held, HeldSet};
pub use held::{MAX_HELD_BYTES, MAX_HELD_MS, MAX_HELD_SETS};
use record::{Clock, REVERSE_PEN, Record, V9_SCOPE, since};
pub use templates::{FieldSpec, MAX_FIELDS, MAX_TEMPLATE_FIELDS, MAX_TEMPLATES};
use templates::{TEMPLATE_OVERHEAD, Template, Templates};

/// Samplers one exporter may have.
pub const MAX_SAMPLERS: usize = 1024;
/// Applications one exporter may name.
pub const MAX_APPS: usize = 4096;
/// Bytes of an application's name; longer ones are cut.
pub const MAX_NAME_BYTES: usize = 128;
/// Records of fewer bytes are no flows: a flow takes hundreds, and a message shall not be worth many times its own.
pub const MIN_FLOW_BYTES: usize = 8;
/// Bytes of an IPFIX message before its sets.
const IPFIX_HEADER: u16 = 16;
/// What a sampler, a named application, and an exporter take beside what they say, bytes.
const OVERHEAD: usize = 64;
/// What one exporter leaves behind at most, bytes.
pub const MAX_EXPORTER_BYTES: usize = OVERHEAD
    + MAX_TEMPLATES * TEMPLATE_OVERHEAD
    + MAX_TEMPLATE_FIELDS * size_of::<FieldSpec>()
    + MAX_HELD_BYTES
    + MAX_SAMPLERS * OVERHEAD
    + MAX_APPS * (OVERHEAD + MAX_NAME_BYTES);

/// Why a message could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetFlowError {
    /// It ends early.
    #[error("{0}")]
    Truncated(#[from] Truncated),
    /// Not a version we know.
    #[error("version {0} is not NetFlow v5, v9 or IPFIX")]
    Version(u16),
    /// A length field contradicts the message.
    #[error("length of set {set} is {length}, less than its header or more than the message")]
    SetLength {
        /// The set.
        set: u16,
        /// As given.
        length: u16,
    },
    /// A set of a kind that no version has (RFC 7011 section 3.3.2).
    #[error("set {0} is reserved")]
    Reserved(u16),
    /// More than a message of its count, or a length that its header does not fit in.
    #[error("{bytes} bytes follow the last record")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A template cannot be used.
    #[error("template {id}: {reason}")]
    Template {
        /// Which.
        id: u16,
        /// Why.
        reason: &'static str,
    },
}

/// What identifies an exporter's state beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Domain {
    /// 5, 9 or 10.
    pub version: u16,
    /// v5 engine, v9 source id, IPFIX observation domain.
    pub id: u32,
}

/// Everything an exporter told that later messages need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exporter {
    /// By template id.
    templates: Templates,
    /// Sampling interval by sampler id; `None` is the exporter's only one.
    samplers: BTreeMap<Option<u64>, u64>,
    /// Application names by application id.
    apps: BTreeMap<u64, String>,
    /// Bytes of the names.
    app_bytes: usize,
    /// Sets waiting.
    held: Held,
    /// What is the time, milliseconds.
    #[serde(skip)]
    now_ms: i64,
    /// The sequence number the next message should bear.
    next_sequence: Option<u32>,
    /// Units lost so far.
    lost: u64,
    /// IPFIX: when the exporter started (`systemInitTimeMilliseconds`, element 160), microseconds since 1970.
    boot_us: Option<i64>,
}

/// What one message brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Flows, each with where it comes from.
    pub flows: Vec<(Flow, FlowOrigin)>,
    /// Data records of the message itself, options included: what IPFIX counts.
    pub records: u32,
    /// Templates learnt or withdrawn.
    pub templates: u32,
    /// Sets put aside until their template comes.
    pub held: u32,
    /// Held sets that had to be given up.
    pub given_up: u32,
    /// Parts of the message that could not be used, the rest having been.
    pub errors: Vec<NetFlowError>,
}

/// Where a message stands in the ledger: epoch, position, receipt in microseconds.
pub type MessageOrigin = (u64, u32, i64);

/// Where a flow comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowOrigin {
    /// The message its record came in.
    pub message: MessageOrigin,
    /// Names it among the flows of the message: twice the record's offset in it, one more for the reverse direction.
    pub index: u32,
}

impl FlowOrigin {
    fn new(message: MessageOrigin, offset: usize) -> Self {
        FlowOrigin { message, index: u32::try_from(offset * 2).unwrap_or(u32::MAX - 1) }
    }
}

/// Where a set stands: its message, that message's clock, and the set's offset in it.
#[derive(Clone, Copy)]
struct SetOrigin {
    message: MessageOrigin,
    clock: Clock,
    offset: usize,
}

/// The domain a message speaks for, without decoding it.
///
/// # Errors
/// [`NetFlowError`] where the header is cut off or its version is not known.
pub fn domain(bytes: &[u8]) -> Result<Domain, NetFlowError> {
    let mut at = Cursor::new(bytes);
    let version = at.u16()?;
    let skip = match version {
        5 => 18,
        9 => 14,
        10 => 10,
        other => return Err(NetFlowError::Version(other)),
    };
    at.take(skip)?;
    let id = if version == 5 { u32::from(at.u16()?) } else { at.u32()? };
    Ok(Domain { version, id })
}

impl Exporter {
    /// Sets that wait, and the template the first of them waits for.
    pub fn waiting(&self) -> (usize, Option<u16>) {
        (self.held.len(), self.held.first().map(|h| h.template))
    }

    /// Goes on to an instant, in milliseconds of a clock that never goes back: how long sets wait is measured by it.
    /// Says how many have waited too long and are given up.
    pub fn advance(&mut self, now_ms: i64) -> u32 {
        self.now_ms = now_ms;
        self.held.expire(now_ms.saturating_sub(MAX_HELD_MS))
    }

    /// When [`Exporter::advance`] will give up a set.
    pub fn due_ms(&self) -> Option<i64> {
        self.held.first().map(|set| set.since_ms.saturating_add(MAX_HELD_MS))
    }

    /// About what it takes, in memory and in a snapshot; never more than [`MAX_EXPORTER_BYTES`].
    pub fn bytes(&self) -> usize {
        let names = (self.samplers.len() + self.apps.len() + 1) * OVERHEAD + self.app_bytes;
        names + self.templates.bytes() + self.held.bytes()
    }

    /// Units lost before us, by the exporter's own sequence: flows (v5), packets (v9), data records (IPFIX).
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Decodes one message.
    ///
    /// # Errors
    /// [`NetFlowError`] where the header is cut off, its version is not known, or its length is not that of the message. What is
    /// wrong with one set is in [`Decoded::errors`], and the others are decoded.
    pub fn decode(&mut self, bytes: &[u8], origin: MessageOrigin) -> Result<Decoded, NetFlowError> {
        let mut at = Cursor::new(bytes);
        match at.u16()? {
            5 => self.v5(&mut at, origin),
            9 => self.v9(&mut at, origin),
            10 => self.ipfix(&mut at, origin),
            other => Err(NetFlowError::Version(other)),
        }
    }

    /// A new transport session of a known exporter: templates stay, its messages count anew (RFC 7011 section 3.1).
    pub fn begin_session(&mut self) {
        self.next_sequence = None;
    }

    fn sequence(&mut self, got: u32, units: u32) {
        self.lost = self.lost.saturating_add_signed(sequence::step(&mut self.next_sequence, got, units));
    }

    fn v5(&mut self, at: &mut Cursor<'_>, origin: MessageOrigin) -> Result<Decoded, NetFlowError> {
        let count = at.u16()?;
        let uptime_ms = at.u32()?;
        let (secs, nanos) = (at.u32()?, at.u32()?);
        let sequence = at.u32()?;
        at.u16()?;
        let sampling = at.u16()?;
        let rate = u64::from(sampling & 0x3fff);
        let mut out = Decoded { records: u32::from(count), ..Decoded::default() };
        let now_us = i64::from(secs) * 1_000_000 + i64::from(nanos) / 1000;
        let instant = |ms: u32| now_us + since(uptime_ms, ms);
        for _ in 0..count {
            let origin = FlowOrigin::new(origin, at.position());
            let mut r = at.sub(48)?;
            let ip = |r: &mut Cursor<'_>| r.u32().map(|n| IpAddr::from(n.to_be_bytes()));
            let (src, dst, next_hop) = (ip(&mut r)?, ip(&mut r)?, ip(&mut r)?);
            let (in_if, out_if) = (r.u16()?, r.u16()?);
            let (packets, bytes) = (r.u32()?, r.u32()?);
            let (first, last) = (r.u32()?, r.u32()?);
            let (src_port, dst_port) = (r.u16()?, r.u16()?);
            r.u8()?;
            let (flags, protocol, tos) = (r.u8()?, r.u8()?, r.u8()?);
            let (src_as, dst_as) = (r.u16()?, r.u16()?);
            out.flows.push((
                Flow {
                    start_us: Some(instant(first)),
                    end_us: Some(instant(last)),
                    src_ip: Some(src),
                    dst_ip: Some(dst),
                    src_port: Some(src_port),
                    dst_port: Some(dst_port),
                    protocol: Some(protocol),
                    tcp_flags: Some(u16::from(flags)),
                    tos: Some(tos),
                    bytes: u64::from(bytes),
                    packets: u64::from(packets),
                    sampling: (rate > 0).then_some((rate, SamplingSource::Header)),
                    in_if: Some(u32::from(in_if)),
                    out_if: Some(u32::from(out_if)),
                    src_as: Some(u32::from(src_as)),
                    dst_as: Some(u32::from(dst_as)),
                    next_hop: Some(next_hop),
                    ether_type: Some(0x0800),
                    ..Flow::default()
                },
                origin,
            ));
        }
        self.sequence(sequence, u32::from(count));
        if !at.is_empty() {
            out.errors.push(NetFlowError::Trailing { bytes: at.remaining() });
        }
        Ok(out)
    }

    fn v9(&mut self, at: &mut Cursor<'_>, origin: MessageOrigin) -> Result<Decoded, NetFlowError> {
        at.u16()?;
        let uptime_ms = at.u32()?;
        let export_s = at.u32()?;
        let sequence = at.u32()?;
        at.u32()?;
        let boot_us = i64::from(export_s) * 1_000_000 - i64::from(uptime_ms) * 1000;
        let mut out = Decoded::default();
        self.sequence(sequence, 1);
        let clock = Clock { export_s, boot_us: Some(boot_us) };
        self.sets(at, SetOrigin { message: origin, clock, offset: 0 }, &mut out);
        Ok(out)
    }

    fn ipfix(&mut self, at: &mut Cursor<'_>, origin: MessageOrigin) -> Result<Decoded, NetFlowError> {
        let length = at.u16()?;
        if length < IPFIX_HEADER {
            return Err(NetFlowError::SetLength { set: 10, length });
        }
        let length = usize::from(length);
        let export_s = at.u32()?;
        let sequence = at.u32()?;
        at.u32()?;
        let offset = at.position();
        let mut body = at.sub(length - usize::from(IPFIX_HEADER))?;
        let mut out = Decoded::default();
        let clock = Clock { export_s, boot_us: self.boot_us };
        self.sets(&mut body, SetOrigin { message: origin, clock, offset }, &mut out);
        self.sequence(sequence, out.records);
        if out.held > 0 || out.given_up > 0 || !out.errors.is_empty() {
            // How many records there were is not known: what the next message bears is right.
            self.next_sequence = None;
        }
        Ok(out)
    }

    /// The sets of a message; `origin` is where `at` begins.
    fn sets(&mut self, at: &mut Cursor<'_>, origin: SetOrigin, out: &mut Decoded) {
        // Fewer than four bytes after the last set are padding.
        while at.remaining() >= 4 {
            let (Ok(set), Ok(length)) = (at.u16(), at.u16()) else { return };
            let origin = SetOrigin { offset: origin.offset + at.position(), ..origin };
            let Some(mut body) = usize::from(length).checked_sub(4).and_then(|n| at.sub(n).ok()) else {
                out.errors.push(NetFlowError::SetLength { set, length });
                return;
            };
            let result = match set {
                0 | 2 => self.templates(&mut body, set == 2, out),
                1 | 3 => self.options_templates(&mut body, set == 3, out),
                4..=255 => Err(NetFlowError::Reserved(set)),
                id => {
                    self.data(id, &mut body, origin, out);
                    Ok(())
                }
            };
            if let Err(error) = result {
                out.errors.push(error);
            }
        }
    }

    fn templates(&mut self, at: &mut Cursor<'_>, ipfix: bool, out: &mut Decoded) -> Result<(), NetFlowError> {
        while at.remaining() >= 4 {
            let (id, count) = (at.u16()?, at.u16()?);
            if id < 256 {
                // Padding in v9; a withdrawal of all in IPFIX (RFC 7011 section 8.1) says the set's own id.
                if ipfix && count == 0 && id == 2 {
                    self.templates.withdraw_all(false);
                    out.templates += 1;
                }
                return Ok(());
            }
            if count == 0 && ipfix {
                self.templates.withdraw(id);
                out.templates += 1;
                continue;
            }
            let fields = fields(at, id, count, ipfix)?;
            self.define(id, Template::new(false, 0, &fields), out)?;
        }
        Ok(())
    }

    fn options_templates(&mut self, at: &mut Cursor<'_>, ipfix: bool, out: &mut Decoded) -> Result<(), NetFlowError> {
        while at.remaining() >= 4 {
            let (id, a) = (at.u16()?, at.u16()?);
            if id < 256 {
                if ipfix && a == 0 && id == 3 {
                    self.templates.withdraw_all(true);
                    out.templates += 1;
                }
                return Ok(());
            }
            if ipfix && a == 0 {
                self.templates.withdraw(id);
                out.templates += 1;
                continue;
            }
            let b = at.u16()?;
            // IPFIX counts fields, all and scope; v9 counts bytes, scope and options.
            let (count, scope_fields) = if ipfix { (a, b) } else { ((a / 4).saturating_add(b / 4), a / 4) };
            let mut fields = fields(at, id, count, ipfix)?;
            if !ipfix {
                // v9 scopes are numbered apart (RFC 3954 section 6.1): move them out of the elements' way.
                for scope in fields.iter_mut().take(usize::from(scope_fields)) {
                    scope.enterprise = V9_SCOPE;
                }
            }
            self.define(id, Template::new(true, scope_fields, &fields), out)?;
        }
        Ok(())
    }

    fn define(&mut self, id: u16, template: Template, out: &mut Decoded) -> Result<(), NetFlowError> {
        self.templates.define(id, template).map_err(|reason| NetFlowError::Template { id, reason })?;
        for set in self.held.take(id) {
            let clock = Clock { export_s: set.export_s, boot_us: set.boot_us };
            let origin = SetOrigin { message: set.origin, clock, offset: set.offset as usize };
            // Its own message counted them.
            let records = out.records;
            self.data(id, &mut Cursor::new(&set.body), origin, out);
            out.records = records;
        }
        out.templates += 1;
        Ok(())
    }

    fn data(&mut self, id: u16, at: &mut Cursor<'_>, origin: SetOrigin, out: &mut Decoded) {
        match self.templates.get(id) {
            Some(template) => self.records(id, &template, at, origin, out),
            None if at.is_empty() => {}
            None => self.hold(id, at.rest(), origin, out),
        }
    }

    fn hold(&mut self, id: u16, body: &[u8], origin: SetOrigin, out: &mut Decoded) {
        let SetOrigin { message, clock, offset } = origin;
        let held = self.held.push(HeldSet {
            template: id,
            export_s: clock.export_s,
            boot_us: clock.boot_us,
            body: body.to_vec(),
            offset: offset as u32,
            origin: message,
            since_ms: self.now_ms,
        });
        if held {
            out.held += 1;
        } else {
            out.given_up += 1;
        }
    }

    fn records(&mut self, id: u16, template: &Template, at: &mut Cursor<'_>, origin: SetOrigin, out: &mut Decoded) {
        let mut too_short = false;
        if at.remaining() < template.least && !at.is_empty() {
            out.errors.push(NetFlowError::Template { id, reason: "its set is shorter than one record" });
        }
        while at.remaining() >= template.least {
            let begin = at.position();
            let record = match record(template, at, origin.clock) {
                Ok(record) => record,
                Err(error) => return out.errors.push(error.into()),
            };
            out.records += 1;
            if template.options {
                self.options(record);
            } else if record.is_flow && at.position() - begin < MIN_FLOW_BYTES {
                too_short = true;
            } else if record.is_flow {
                self.emit(record, FlowOrigin::new(origin.message, origin.offset + begin), out);
            }
        }
        if too_short {
            out.errors.push(NetFlowError::Template { id, reason: "its records are too short to be flows" });
        }
    }

    fn options(&mut self, record: Record) {
        self.boot_us = record.boot_us.or(self.boot_us);
        if let Some(rate) = record.sampling_rate() {
            let sampler = record.flow.sampler_id;
            if self.samplers.len() < MAX_SAMPLERS || self.samplers.contains_key(&sampler) {
                self.samplers.insert(sampler, rate);
            }
        }
        if let (Some(id), Some(name)) = (record.app_id, record.app_name) {
            self.learn_app(id, name);
        }
    }

    fn learn_app(&mut self, id: u64, mut name: String) {
        if self.apps.len() < MAX_APPS || self.apps.contains_key(&id) {
            name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
            name.shrink_to_fit();
            self.app_bytes += name.len();
            self.app_bytes -= self.apps.insert(id, name).map_or(0, |old| old.len());
        }
    }

    fn emit(&self, record: Record, origin: FlowOrigin, out: &mut Decoded) {
        let rate = record.sampling_rate();
        let Record { mut flow, app_id, reverse, .. } = record;
        flow.sampling = match rate {
            Some(rate) => Some((rate, SamplingSource::Record)),
            None => {
                let named = flow.sampler_id.and_then(|id| self.samplers.get(&Some(id)));
                let only =
                    || if self.samplers.len() == 1 { self.samplers.values().next() } else { self.samplers.get(&None) };
                named.or_else(only).map(|rate| (*rate, SamplingSource::Options))
            }
        };
        flow.app = app_id.and_then(|id| self.apps.get(&id).cloned());
        // RFC 5103: one record, two flows; the reverse one has its own counts and the ends swapped.
        if let Some(counts) = reverse {
            let mut back = flow.clone();
            std::mem::swap(&mut back.src_ip, &mut back.dst_ip);
            std::mem::swap(&mut back.src_port, &mut back.dst_port);
            std::mem::swap(&mut back.src_mac, &mut back.dst_mac);
            std::mem::swap(&mut back.src_as, &mut back.dst_as);
            std::mem::swap(&mut back.in_if, &mut back.out_if);
            (back.bytes, back.packets) = (counts.bytes, counts.packets);
            back.tcp_flags = counts.tcp_flags;
            back.start_us = counts.start_us.or(back.start_us);
            back.end_us = counts.end_us.or(back.end_us);
            out.flows.push((flow, origin));
            out.flows.push((back, FlowOrigin { index: origin.index + 1, ..origin }));
        } else {
            out.flows.push((flow, origin));
        }
    }
}

fn fields(at: &mut Cursor<'_>, id: u16, count: u16, ipfix: bool) -> Result<Vec<FieldSpec>, NetFlowError> {
    if usize::from(count) > MAX_FIELDS {
        return Err(NetFlowError::Template { id, reason: "too many fields" });
    }
    (0..count)
        .map(|_| {
            let (element, length) = (at.u16()?, at.u16()?);
            let enterprise = if ipfix && element & 0x8000 != 0 { at.u32()? } else { 0 };
            let element = if ipfix { element & 0x7fff } else { element };
            Ok(FieldSpec { element, length, enterprise })
        })
        .collect()
}

/// Reads one record.
fn record(template: &Template, at: &mut Cursor<'_>, clock: Clock) -> Result<Record, Truncated> {
    let mut record = Record::default();
    for (i, field) in template.fields.iter().enumerate() {
        let value = value(at, field.length)?;
        if i < template.scope_fields {
            record.scope(field, value);
        } else if field.enterprise == REVERSE_PEN {
            record.reverse(field.element, value, clock);
        } else if field.enterprise == 0 {
            record.element(field.element, value, clock);
        }
    }
    record.finish();
    Ok(record)
}

fn value<'a>(at: &mut Cursor<'a>, length: u16) -> Result<&'a [u8], Truncated> {
    if length != u16::MAX {
        return at.take(usize::from(length));
    }
    let n = match at.u8()? {
        255 => usize::from(at.u16()?),
        n => usize::from(n),
    };
    at.take(n)
}
