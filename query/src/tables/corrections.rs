//! What is learnt late of who had an address, laid over what events were stored with.
//!
//! An event bears the device that had its address by what was known at its epoch. What became known later is in
//! `attribution_corrections`: of those about an event's address, learnt after its epoch and not beginning after its time,
//! the newest is right (`dataflows/src/telemetry/corrections.rs` says why). They are few beside the events; the newest
//! [`MAX_CORRECTIONS`] of a tenant are kept here, in levels that are merged while they are of like size, so that a new
//! version of them costs what is new. An answer that older ones could have changed says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, ident,
};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::{AttributionCorrection, Table};

/// Corrections of one tenant that are kept.
pub(crate) const MAX_CORRECTIONS: usize = 1_000_000;

/// Who had an address.
#[derive(Clone, Debug)]
struct Correction {
    /// What earlier epochs stored is about somebody else.
    epoch: i64,
    from_us: i64,
    uid: Option<Arc<str>>,
}

/// By address, each later epoch's with a later beginning: one that begins no later than those before it makes them idle.
type Addresses = HashMap<Box<str>, Vec<Correction>>;

/// Bytes of one, about.
const BYTES: usize = 128;
/// What those of a tenant take at most, bytes.
pub const CORRECTIONS_BYTES: usize = MAX_CORRECTIONS * BYTES;

#[derive(Debug, Default)]
struct Level {
    partitions: BTreeMap<String, Addresses>,
    len: usize,
    newest_epoch: i64,
    /// What is dated later is about none of them.
    until_us: i64,
}

impl Level {
    /// Learns one that is no older than those before it.
    fn learn(&mut self, partition: &str, ip: &str, correction: Correction) {
        if !self.partitions.contains_key(partition) {
            self.partitions.insert(partition.to_owned(), Addresses::new());
        }
        let addresses = self.partitions.get_mut(partition).expect("it was put there");
        self.newest_epoch = self.newest_epoch.max(correction.epoch);
        self.len += 1;
        match addresses.get_mut(ip) {
            Some(known) => {
                while known.pop_if(|last| last.from_us >= correction.from_us).is_some() {
                    self.len -= 1;
                }
                known.push(correction);
            }
            None => {
                addresses.insert(ip.into(), vec![correction]);
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &str, &Correction)> {
        let addresses =
            self.partitions.iter().flat_map(|(p, addresses)| addresses.iter().map(move |(ip, c)| (p, ip, c)));
        addresses.flat_map(|(p, ip, corrections)| corrections.iter().map(move |c| (p.as_str(), &**ip, c)))
    }

    /// The entries that are newer than an epoch, of this and a newer level.
    fn merged(&self, newer: &Level, after: i64) -> Level {
        let mut all = Level { until_us: self.until_us.max(newer.until_us), ..Level::default() };
        for (partition, ip, correction) in self.entries().chain(newer.entries()).filter(|(_, _, c)| c.epoch > after) {
            all.learn(partition, ip, correction.clone());
        }
        all
    }
}

/// The corrections of one tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Corrections {
    levels: Vec<Arc<Level>>,
    /// When the newest of those was learnt that are not kept, microseconds.
    forgotten_us: Option<i64>,
}

impl Corrections {
    /// Learns rows of `attribution_corrections`, none older than those before.
    pub(crate) fn learn(&mut self, mut rows: Vec<AttributionCorrection>) {
        rows.sort_by_key(|row| row.row_id);
        let mut new = Level::default();
        let mut uids: BTreeMap<String, Arc<str>> = BTreeMap::new();
        for row in rows {
            let uid = row.device_uid.map(|uid| uids.entry(uid).or_insert_with_key(|uid| uid.as_str().into()).clone());
            new.until_us = new.until_us.max(row.valid_to.0);
            new.learn(&row.partition, &row.ip, Correction { epoch: row.epoch, from_us: row.valid_from.0, uid });
        }
        if new.len == 0 {
            return;
        }
        while let Some(last) = self.levels.pop_if(|last| last.len <= new.len * 2) {
            new = last.merged(&new, i64::MIN);
        }
        self.levels.push(Arc::new(new));
        if self.len() > MAX_CORRECTIONS {
            self.forget();
        }
    }

    /// Keeps the newer half.
    fn forget(&mut self) {
        let mut epochs: Vec<i64> = self.levels.iter().flat_map(|l| l.entries().map(|(_, _, c)| c.epoch)).collect();
        let middle = epochs.len() / 2;
        let after = *epochs.select_nth_unstable(middle).1;
        let all = self.levels.drain(..).fold(Level::default(), |all, level| level.merged(&all, after));
        // When they were learnt is not kept of each; none was after this.
        self.forgotten_us = Some(all.until_us - AHEAD_US);
        self.levels = vec![Arc::new(all)];
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.levels.iter().map(|l| l.len).sum()
    }

    /// Whether what is not kept any more could be about events since a time.
    pub(crate) fn lacks(&self, from_us: Option<i64>) -> bool {
        self.forgotten_us.is_some_and(|forgotten| from_us.is_none_or(|from| from <= forgotten))
    }

    /// Bytes of them, about.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * BYTES
    }

    /// The levels that could be about some events, newest first.
    fn about(&self, oldest_us: i64, first_epoch: i64) -> Vec<&Level> {
        let about = |level: &&Level| level.until_us > oldest_us && level.newest_epoch > first_epoch;
        self.levels.iter().rev().map(|level| &**level).filter(about).collect()
    }
}

/// A day: what `valid_to` is after `time`.
const AHEAD_US: i64 = 86_400_000_000;

/// Corrections, as a function of (stored device, partition, address, time, epoch).
#[derive(Debug)]
pub(crate) struct Attributed {
    corrections: Arc<Corrections>,
    signature: Signature,
}

impl Attributed {
    /// Addresses that are given to one of these devices.
    pub(crate) fn given_to(&self, uids: &BTreeSet<String>) -> BTreeSet<String> {
        let entries = self.corrections.levels.iter().flat_map(|level| level.entries());
        let given = entries.filter(|(_, _, c)| c.uid.as_ref().is_some_and(|uid| uids.contains(&**uid)));
        given.map(|(_, ip, _)| ip.to_owned()).collect()
    }
}

impl PartialEq for Attributed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.corrections, &other.corrections)
    }
}
impl Eq for Attributed {}
impl Hash for Attributed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.corrections).hash(state);
    }
}

impl ScalarUDFImpl for Attributed {
    fn name(&self) -> &str {
        "attributed"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [stored, partitions, ips] = [0, 1, 2].map(|i| arrays[i].as_string::<i32>());
        let times = arrays[3].as_primitive::<TimestampMicrosecondType>().values();
        let epochs = arrays[4].as_primitive::<Int64Type>().values();
        let oldest = times.iter().copied().min().unwrap_or(i64::MAX);
        let first = epochs.iter().copied().min().unwrap_or(i64::MAX);
        let levels = self.corrections.about(oldest, first);
        if levels.is_empty() {
            return Ok(ColumnarValue::Array(arrays[0].clone()));
        }
        // Rows are of few partitions, one after another.
        let mut here: (Option<&str>, Vec<&Addresses>) = (None, Vec::new());
        let mut told = |row: usize| {
            let partition = partitions.value(row);
            if here.0 != Some(partition) {
                here = (Some(partition), levels.iter().filter_map(|level| level.partitions.get(partition)).collect());
            }
            let ip = ips.is_valid(row).then(|| ips.value(row))?;
            // The newest that begins in time tells, unless it was known already.
            let begun = |known: &'_ Vec<Correction>| known.partition_point(|c| c.from_us <= times[row]).checked_sub(1);
            let newest = here.1.iter().find_map(|addresses| {
                let known = addresses.get(ip)?;
                begun(known).map(|last| &known[last])
            });
            newest.filter(|c| c.epoch > epochs[row])
        };
        let uids: StringArray = (0..stored.len())
            .map(|row| match told(row) {
                Some(correction) => correction.uid.as_deref(),
                None => stored.is_valid(row).then(|| stored.value(row)),
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(uids) as ArrayRef))
    }
}

/// Events of a table with the devices that had their addresses, as is known today.
pub(crate) fn attributed(
    events: DataFrame,
    table: Table,
    schema: &SchemaRef,
    corrections: Option<&Arc<Corrections>>,
) -> Result<DataFrame> {
    let Some(corrections) = corrections.filter(|c| !c.levels.is_empty() && !table.attributed().is_empty()) else {
        return Ok(events);
    };
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let text = DataType::Utf8;
    let kinds = vec![text.clone(), text.clone(), text, time, DataType::Int64];
    let signature = Signature::exact(kinds, Volatility::Immutable);
    let function = ScalarUDF::from(Attributed { corrections: corrections.clone(), signature });
    let column = |name: &str| -> Expr {
        match table.attributed().iter().find(|(uid, _)| *uid == name) {
            Some((_, address)) => {
                let of = ["partition", address, "time", "epoch"].map(ident);
                function.call([ident(name)].into_iter().chain(of).collect()).alias(name)
            }
            None => ident(name),
        }
    };
    events.select(schema.fields().iter().map(|field| column(field.name())).collect::<Vec<_>>())
}
