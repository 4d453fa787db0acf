//! Messages as they stand on the wire: the header of each version, the sets of v9 and IPFIX, and the records in them.

use std::net::IpAddr;

use super::elements::V9_SCOPE;
use super::held::HeldSet;
use super::record::{Clock, Record, since};
use super::templates::{FieldSpec, MAX_FIELDS, Template};
use super::{Decoded, Exporter, FlowOrigin, FlowSink, MIN_FLOW_BYTES, MessageOrigin, NAMES_WORTH, NetFlowError};
use crate::flow::SamplingSource;
use crate::wire::Cursor;

/// Bytes of an IPFIX message before its sets.
const IPFIX_HEADER: u16 = 16;
/// Bytes of a record of v5.
const V5_RECORD: usize = 48;

/// A message that is being read.
pub(super) struct Message<'a, 'b> {
    pub(super) out: &'a mut FlowSink<'b>,
    pub(super) told: Decoded,
    /// The record that is being read.
    pub(super) record: Record,
    /// What it speaks for.
    pub(super) domain: u32,
    /// Bytes of names that may still be added to its records.
    pub(super) names_left: usize,
}

impl Message<'_, '_> {
    fn emit(&mut self, origin: FlowOrigin) {
        (self.out)(&self.record.flow, origin);
        self.told.flows += 1;
    }
}

/// Where a set stands: its message, that message's clock, and the set's offset in it.
#[derive(Clone, Copy)]
struct SetOrigin {
    message: MessageOrigin,
    clock: Clock,
    offset: usize,
}

impl Exporter {
    pub(super) fn v5(
        &mut self,
        at: &mut Cursor<'_>,
        origin: MessageOrigin,
        message: &mut Message<'_, '_>,
    ) -> Result<(), NetFlowError> {
        let count = at.u16()?;
        let uptime_ms = at.u32()?;
        let (secs, nanos) = (at.u32()?, at.u32()?);
        let sequence = at.u32()?;
        at.u16()?;
        let rate = u64::from(at.u16()? & 0x3fff);
        let now_us = i64::from(secs) * 1_000_000 + i64::from(nanos) / 1000;
        let instant = |ms: u32| Some(now_us + since(uptime_ms, ms));
        self.sequence(sequence, u32::from(count));
        for _ in 0..count {
            let origin = FlowOrigin::new(origin, at.position());
            let Ok(mut r) = at.sub(V5_RECORD) else {
                let read = message.told.records;
                message.told.errors.push(NetFlowError::Missing { said: count, read });
                break;
            };
            message.record.clear();
            let flow = &mut message.record.flow;
            let ip = |r: &mut Cursor<'_>| r.u32().map(|n| IpAddr::from(n.to_be_bytes()));
            (flow.src_ip, flow.dst_ip, flow.next_hop) = (Some(ip(&mut r)?), Some(ip(&mut r)?), Some(ip(&mut r)?));
            (flow.in_if, flow.out_if) = (Some(r.u16()?.into()), Some(r.u16()?.into()));
            (flow.packets, flow.bytes) = (r.u32()?.into(), Some(r.u32()?.into()));
            (flow.start_us, flow.end_us) = (instant(r.u32()?), instant(r.u32()?));
            let ports = (r.u16()?, r.u16()?);
            (flow.src_port, flow.dst_port) = (Some(ports.0), Some(ports.1));
            r.u8()?;
            flow.tcp_flags = Some(r.u8()?.into());
            let protocol = r.u8()?;
            flow.protocol = Some(protocol);
            flow.tos = Some(r.u8()?);
            (flow.src_as, flow.dst_as) = (Some(r.u16()?.into()), Some(r.u16()?.into()));
            (flow.src_prefix, flow.dst_prefix) = (Some(r.u8()?), Some(r.u8()?));
            if protocol == 1 {
                let [kind, code] = ports.1.to_be_bytes();
                (flow.icmp_type, flow.icmp_code) = (Some(kind), Some(code));
            }
            flow.sampling = (rate > 0).then_some((rate, SamplingSource::Header));
            flow.ether_type = Some(0x0800);
            flow.domain = Some(message.domain);
            message.told.records += 1;
            message.emit(origin);
        }
        if !at.is_empty() {
            message.told.errors.push(NetFlowError::Trailing { bytes: at.remaining() });
        }
        Ok(())
    }

    pub(super) fn v9(
        &mut self,
        at: &mut Cursor<'_>,
        origin: MessageOrigin,
        message: &mut Message<'_, '_>,
    ) -> Result<(), NetFlowError> {
        let count = at.u16()?;
        let uptime_ms = at.u32()?;
        let export_s = at.u32()?;
        let sequence = at.u32()?;
        at.u32()?;
        let boot_us = i64::from(export_s) * 1_000_000 - i64::from(uptime_ms) * 1000;
        self.sequence(sequence, 1);
        let clock = Clock { export_s, boot_us: Some(boot_us) };
        self.sets(at, SetOrigin { message: origin, clock, offset: 0 }, Some(u32::from(count)), message);
        let Decoded { records, templates, held, given_up, errors, .. } = &mut message.told;
        let read = *records + *templates;
        if read < u32::from(count) && *held + *given_up == 0 && errors.is_empty() {
            errors.push(NetFlowError::Missing { said: count, read });
        }
        Ok(())
    }

    pub(super) fn ipfix(
        &mut self,
        at: &mut Cursor<'_>,
        origin: MessageOrigin,
        message: &mut Message<'_, '_>,
    ) -> Result<(), NetFlowError> {
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
        let clock = Clock { export_s, boot_us: self.boot_us };
        self.sets(&mut body, SetOrigin { message: origin, clock, offset }, None, message);
        let told = &message.told;
        self.sequence(sequence, told.records);
        let is_counted = |error: &NetFlowError| matches!(error, NetFlowError::Records { .. });
        if told.held > 0 || told.given_up > 0 || !told.errors.iter().all(is_counted) {
            // How many records there were is not known: what the next message bears is right.
            self.next_sequence = None;
        }
        Ok(())
    }

    /// The sets of a message; `origin` is where `at` begins. `count` is how many records v9's header says there are: after them
    /// nothing has to be a set any more. What is one is read all the same, because some exporters count otherwise.
    fn sets(&mut self, at: &mut Cursor<'_>, origin: SetOrigin, count: Option<u32>, message: &mut Message<'_, '_>) {
        // Fewer than four bytes after the last set are padding.
        while at.remaining() >= 4 {
            let rest = at.rest();
            let (Ok(set), Ok(length)) = (at.u16(), at.u16()) else { return };
            let origin = SetOrigin { offset: origin.offset + at.position(), ..origin };
            let Some(mut body) = usize::from(length).checked_sub(4).and_then(|n| at.sub(n).ok()) else {
                let is_over = count.is_some_and(|count| message.told.records + message.told.templates >= count);
                if !is_over {
                    message.told.errors.push(NetFlowError::SetLength { set, length });
                } else if rest.iter().any(|byte| *byte != 0) {
                    message.told.errors.push(NetFlowError::Trailing { bytes: rest.len() });
                }
                return;
            };
            let result = match set {
                0 | 2 => self.templates(&mut body, set == 2, message),
                1 | 3 => self.options_templates(&mut body, set == 3, message),
                4..=255 => Err(NetFlowError::Reserved(set)),
                id => {
                    self.data(id, &mut body, origin, message);
                    Ok(())
                }
            };
            if let Err(error) = result {
                message.told.errors.push(error);
            }
        }
    }

    fn templates(
        &mut self,
        at: &mut Cursor<'_>,
        ipfix: bool,
        message: &mut Message<'_, '_>,
    ) -> Result<(), NetFlowError> {
        while at.remaining() >= 4 {
            let (id, count) = (at.u16()?, at.u16()?);
            if id < 256 {
                // Padding in v9; a withdrawal of all in IPFIX (RFC 7011 section 8.1) says the set's own id.
                if ipfix && count == 0 && id == 2 {
                    self.templates.withdraw_all(false);
                    message.told.templates += 1;
                }
                return Ok(());
            }
            if count == 0 && ipfix {
                self.templates.withdraw(id);
                message.told.templates += 1;
                continue;
            }
            let fields = fields(at, id, count, ipfix)?;
            self.define(id, Template::new(false, 0, &fields), message)?;
        }
        Ok(())
    }

    fn options_templates(
        &mut self,
        at: &mut Cursor<'_>,
        ipfix: bool,
        message: &mut Message<'_, '_>,
    ) -> Result<(), NetFlowError> {
        while at.remaining() >= 4 {
            let (id, a) = (at.u16()?, at.u16()?);
            if id < 256 {
                if ipfix && a == 0 && id == 3 {
                    self.templates.withdraw_all(true);
                    message.told.templates += 1;
                }
                return Ok(());
            }
            if ipfix && a == 0 {
                self.templates.withdraw(id);
                message.told.templates += 1;
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
            self.define(id, Template::new(true, scope_fields, &fields), message)?;
        }
        Ok(())
    }

    fn define(&mut self, id: u16, template: Template, message: &mut Message<'_, '_>) -> Result<(), NetFlowError> {
        self.templates.define(id, template).map_err(|reason| NetFlowError::Template { id, reason })?;
        for set in self.held.take(id) {
            let clock = Clock { export_s: set.export_s, boot_us: set.boot_us };
            let origin = SetOrigin { message: set.origin, clock, offset: set.offset as usize };
            // Its own message counted them.
            let records = message.told.records;
            self.data(id, &mut Cursor::new(&set.body), origin, message);
            message.told.records = records;
        }
        message.told.templates += 1;
        Ok(())
    }

    fn data(&mut self, id: u16, at: &mut Cursor<'_>, origin: SetOrigin, message: &mut Message<'_, '_>) {
        match self.templates.get(id) {
            Some(template) => self.records(id, &template, at, origin, message),
            None if at.is_empty() => {}
            None => self.hold(id, at.rest(), origin, &mut message.told),
        }
    }

    fn hold(&mut self, id: u16, body: &[u8], origin: SetOrigin, told: &mut Decoded) {
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
            told.held += 1;
        } else {
            told.given_up += 1;
        }
    }

    fn records(
        &mut self,
        id: u16,
        template: &Template,
        at: &mut Cursor<'_>,
        origin: SetOrigin,
        message: &mut Message<'_, '_>,
    ) {
        if at.remaining() < template.least() && !at.is_empty() {
            message.told.errors.push(NetFlowError::Template { id, reason: "its set is shorter than one record" });
        }
        let mut reason = None;
        message.names_left += NAMES_WORTH * at.remaining();
        while at.remaining() >= template.least() {
            let begin = at.position();
            if let Err(error) = template.read(at, origin.clock, &mut message.record) {
                return message.told.errors.push(error.into());
            }
            message.told.records += 1;
            if template.is_options() {
                self.learn(&message.record);
            } else if !template.makes_flows {
                reason = Some("they have neither addresses nor counts");
            } else if at.position() - begin < MIN_FLOW_BYTES {
                reason = Some("they are too short to be flows");
            } else if !self.emit(message, FlowOrigin::new(origin.message, origin.offset + begin)) {
                reason = Some("names that belong to them are left out: they would be worth many times their bytes");
            }
        }
        if let Some(reason) = reason {
            message.told.errors.push(NetFlowError::Records { id, reason });
        }
    }

    /// Gives the flows of a record; whether they have all their names.
    fn emit(&self, message: &mut Message<'_, '_>, origin: FlowOrigin) -> bool {
        let complete = self.complete(&mut message.record, &mut message.names_left);
        message.record.flow.domain = Some(message.domain);
        message.emit(origin);
        // RFC 5103: one record, two flows; the reverse one has its own counts and the ends swapped.
        if let Some(counts) = message.record.reverse.take() {
            let flow = &mut message.record.flow;
            flow.reverse();
            (flow.bytes, flow.packets, flow.tcp_flags) = (Some(counts.bytes), counts.packets, counts.tcp_flags);
            (flow.l2_bytes, flow.header_bytes) = (None, None);
            flow.start_us = counts.start_us.or(flow.start_us);
            flow.end_us = counts.end_us.or(flow.end_us);
            message.emit(FlowOrigin { index: origin.index + 1, ..origin });
        }
        complete
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
