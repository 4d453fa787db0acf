//! NetFlow v5, v9 (RFC 3954) and IPFIX (RFC 7011): messages to flows, given what the exporter told before.
//!
//! A message of v9 or IPFIX can only be read with the templates its exporter sent earlier; [`Exporter`] remembers them,
//! for one (exporter address, port, version, source id or observation domain). It is plain keyed state: serialised into
//! snapshots, so that a collector's restart loses nothing. Redefinition replaces. A set that waits for its template is
//! held, at most [`MAX_HELD_MS`], and decoded when the template comes.
//!
//! A template is compiled when it comes ([`templates`]); its records are read into one [`Flow`], which is handed on and used
//! for the next. Sampling is resolved record → options → header; what nobody told stays unknown, never silently 1.
//!
//! A flow is named by where its record stands in its message, so that no two of a message have one name, whenever and
//! in whatever order they are decoded.
//!
//! Bounds: a message costs work and memory in proportion to its bytes and to those of the sets it sets free. What an
//! exporter leaves behind is at most [`MAX_EXPORTER_BYTES`]: [`MAX_TEMPLATES`] of [`MAX_FIELDS`] each and
//! [`MAX_TEMPLATE_FIELDS`] together, [`MAX_HELD_SETS`] of [`MAX_HELD_BYTES`] together, [`MAX_SAMPLERS`], [`MAX_NAMES`] of
//! [`MAX_NAME_BYTES`] each. A flood beyond them is refused and counted, it never replaces what is known.

mod earlier;
mod elements;
#[cfg(test)]
mod golden;
mod held;
#[cfg(test)]
mod hostile;
mod message;
mod names;
mod record;
mod templates;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::flow::{Flow, MAX_NAME_BYTES, SamplingSource};
use crate::packet::Tunnels;
use crate::sequence;
use crate::wire::{Cursor, Truncated};
pub use earlier::{FirstExporter, SecondExporter};
use held::Held;
pub use held::{MAX_HELD_BYTES, MAX_HELD_MS, MAX_HELD_SETS};
use message::Message;
pub use names::MAX_NAMES;
use names::{Named, Names};
use record::Record;
use templates::{FIELD_BYTES, TEMPLATE_OVERHEAD, Templates};
pub use templates::{FieldSpec, MAX_FIELDS, MAX_TEMPLATE_FIELDS, MAX_TEMPLATES};

/// Samplers one exporter may have.
pub const MAX_SAMPLERS: usize = 1024;
/// Records of fewer bytes are no flows: a flow takes hundreds, and a message shall not be worth many times its own.
pub const MIN_FLOW_BYTES: usize = 8;
/// What names told before are worth at most, as so many times the bytes of the records that they are added to.
pub const NAMES_WORTH: usize = 16;
/// What a sampler, a name, and an exporter take beside what they say, bytes.
const OVERHEAD: usize = 64;
/// What one exporter leaves behind at most, bytes.
pub const MAX_EXPORTER_BYTES: usize = OVERHEAD
    + MAX_TEMPLATES * TEMPLATE_OVERHEAD
    + MAX_TEMPLATE_FIELDS * FIELD_BYTES
    + MAX_HELD_BYTES
    + MAX_SAMPLERS * OVERHEAD
    + MAX_NAMES * (OVERHEAD + MAX_NAME_BYTES);

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
    /// Fewer records than a message's header says.
    #[error("the header says {said} records, and {read} are there")]
    Missing {
        /// As the header says.
        said: u16,
        /// As there are.
        read: u32,
    },
    /// Records of a template are not flows.
    #[error("records of template {id}: {reason}")]
    Records {
        /// Which.
        id: u16,
        /// Why.
        reason: &'static str,
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
    /// What it calls things.
    names: Names,
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
    /// Flows that were handed on.
    pub flows: u32,
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

/// Takes flows, each with where it comes from.
pub type FlowSink<'a> = dyn FnMut(&Flow, FlowOrigin) + 'a;

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
        let samplers = (self.samplers.len() + 1) * OVERHEAD;
        samplers + self.names.bytes() + self.templates.bytes() + self.held.bytes()
    }

    /// Units lost before us, by the exporter's own sequence: flows (v5), packets (v9), data records (IPFIX).
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Decodes one message, in whose sampled packets those are entered that `tunnels` say. Its flows go to `out` in their order:
    /// those of sets that waited before those that follow.
    ///
    /// # Errors
    /// [`NetFlowError`] where the header is cut off, its version is not known, or its length is not that of the message. Nothing
    /// has gone to `out` then. What is wrong with one set is in [`Decoded::errors`], and the others are decoded.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        origin: MessageOrigin,
        tunnels: Tunnels,
        out: &mut FlowSink<'_>,
    ) -> Result<Decoded, NetFlowError> {
        let Domain { version, id } = domain(bytes)?;
        let mut message =
            Message { out, told: Decoded::default(), record: Record::new(tunnels), domain: id, names_left: 0 };
        let mut at = Cursor::new(bytes);
        at.u16()?;
        match version {
            5 => self.v5(&mut at, origin, &mut message)?,
            9 => self.v9(&mut at, origin, &mut message)?,
            _ => self.ipfix(&mut at, origin, &mut message)?,
        }
        Ok(message.told)
    }

    /// A new transport session of a known exporter: templates stay, its messages count anew (RFC 7011 section 3.1).
    pub fn begin_session(&mut self) {
        self.next_sequence = None;
    }

    fn sequence(&mut self, got: u32, units: u32) {
        self.lost = self.lost.saturating_add_signed(sequence::step(&mut self.next_sequence, got, units));
    }

    /// Takes in what an options record says.
    fn learn(&mut self, record: &Record) {
        self.boot_us = record.boot_us.or(self.boot_us);
        let flow = &record.flow;
        if let Some(rate) = record.sampling_rate() {
            let sampler = flow.sampler_id;
            if self.samplers.len() < MAX_SAMPLERS || self.samplers.contains_key(&sampler) {
                self.samplers.insert(sampler, rate);
            }
        }
        let mut learn = |kind, id: Option<u64>, name: &str| {
            if let Some(id) = id {
                self.names.learn(kind, id, name);
            }
        };
        let app = if flow.app.is_empty() { &record.app_description } else { &flow.app };
        learn(Named::App, record.app_key, app);
        learn(Named::Sampler, flow.sampler_id, &flow.sampler_name);
        let interface = flow.in_if.or(flow.out_if).map(u64::from);
        learn(Named::Interface, interface, &flow.in_if_name);
        learn(Named::Description, interface, &flow.in_if_description);
        learn(Named::Vrf, flow.in_vrf.or(flow.out_vrf).map(u64::from), &flow.in_vrf_name);
    }

    /// Adds what the exporter told before to a flow: its sampling rate, and names as long as so many bytes are left for them.
    /// Whether all are.
    fn complete(&self, record: &mut Record, left: &mut usize) -> bool {
        let times = if record.reverse.is_some() { 2 } else { 1 };
        let mut complete = true;
        let rate = record.sampling_rate();
        let flow = &mut record.flow;
        flow.sampling = match rate {
            Some(rate) => Some((rate, SamplingSource::Record)),
            None => {
                let named = flow.sampler_id.and_then(|id| self.samplers.get(&Some(id)));
                let only =
                    || if self.samplers.len() == 1 { self.samplers.values().next() } else { self.samplers.get(&None) };
                named.or_else(only).map(|rate| (*rate, SamplingSource::Options))
            }
        };
        // What the record says itself counts.
        let mut name = |out: &mut String, kind, id: Option<u64>| {
            if out.is_empty()
                && let Some(name) = id.and_then(|id| self.names.get(kind, id))
            {
                match left.checked_sub(times * name.len()) {
                    Some(less) => {
                        *left = less;
                        out.push_str(name);
                    }
                    None => complete = false,
                }
            }
        };
        name(&mut flow.app, Named::App, record.app_key);
        name(&mut flow.sampler_name, Named::Sampler, flow.sampler_id);
        name(&mut flow.in_if_name, Named::Interface, flow.in_if.map(u64::from));
        name(&mut flow.out_if_name, Named::Interface, flow.out_if.map(u64::from));
        name(&mut flow.in_if_description, Named::Description, flow.in_if.map(u64::from));
        name(&mut flow.out_if_description, Named::Description, flow.out_if.map(u64::from));
        name(&mut flow.in_vrf_name, Named::Vrf, flow.in_vrf.map(u64::from));
        name(&mut flow.out_vrf_name, Named::Vrf, flow.out_vrf.map(u64::from));
        complete
    }
}
