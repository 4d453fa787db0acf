//! What a run says, noted before it ends: of each record what a plan shows of it, and what tells it apart.
//!
//! Of a partial source all that it said is kept, for it is laid over the record that stands; else what is shown.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use radarflow_proto::cell::Time;
use radarflow_proto::payload::{Brought, DeviceUpdate};
use radarflow_proto::ports::{AppendError, Ending, InventoryRun, MAX_LISTED, RunOf};
use radarflow_proto::record::Record;
use radarflow_proto::room::Held;
use radarflow_reconcile::identity::explain::label;
use radarflow_reconcile::identity::name::{Name, name};
use radarflow_reconcile::identity::sources::{Instances, Received, device_update};
use radarflow_reconcile::partial::Sayings;

use crate::records::plan::Sample;
use crate::records::plans::Plans;

/// What an item takes beside its texts, bytes, about: its key and place in a map among it.
const ITEM_BYTES: usize = size_of::<Item>() + 128;

/// What an item says.
pub(super) struct Item {
    /// Names its content, whenever it was said.
    pub(super) content: Name,
    /// Which of two versions is newer, as the dataflow has it.
    pub(super) order: (Time, bool, Name),
    pub(super) shown: Sample,
    /// Of a partial source: what the run said of it.
    pub(super) sayings: Option<Sayings>,
}

impl Item {
    pub(super) fn of(record: &Record, sayings: Option<Sayings>) -> Item {
        Item { content: content(record), order: order(record), shown: Sample::of(record), sayings }
    }

    /// What the record would be, with what it said before where its source is partial.
    pub(super) fn over(&self, old: &Record) -> Option<Item> {
        let mut sayings = self.sayings.clone()?;
        let whole = sayings.say(old.clone());
        Some(Item::of(&whole, None))
    }

    /// That it is gone.
    pub(super) fn gone(&self) -> bool {
        self.order.1
    }
}

pub(super) fn order(record: &Record) -> (Time, bool, Name) {
    (record.event_time, record.deleted, name(record))
}

/// A run that is read and noted, and will not end before somebody says so.
pub(crate) struct Noted {
    pub(super) run: Box<dyn InventoryRun>,
    pub(super) notes: Notes,
}

/// What a run says.
pub(super) struct Notes {
    pub(super) of: RunOf,
    pub(super) instances: Instances,
    /// Whether its source says only what it knows.
    pub(super) partial: bool,
    /// By the key of its record.
    pub(super) items: BTreeMap<String, Item>,
    pub(super) listed: usize,
    pub(super) rejected: usize,
    /// What it holds.
    pub(super) held: Held,
    /// More would have to be noted than there is room for.
    pub(super) is_too_large: bool,
}

impl Noted {
    /// Begins to note a run. `partial` says that its source says only what it knows.
    pub(crate) fn begin(
        run: Box<dyn InventoryRun>,
        of: RunOf,
        instances: Instances,
        partial: bool,
        plans: &Plans,
    ) -> Noted {
        let held = plans.hold(&of.tenant);
        let items = BTreeMap::new();
        let notes = Notes { of, instances, partial, items, listed: 0, rejected: 0, held, is_too_large: false };
        Noted { run, notes }
    }
}

impl Notes {
    fn note(&mut self, update: &DeviceUpdate, now_us: i64) {
        if self.is_too_large {
            return;
        }
        let received = Received { tenant: &self.of.tenant, partition: None, at_us: now_us };
        let Ok(record) = device_update(update, &received, &self.instances) else {
            self.rejected += 1;
            return;
        };
        let key = record.key.key.clone();
        // Of a partial source all of it is kept, else what is shown.
        let takes = match (self.partial, self.items.contains_key(&key)) {
            (true, _) => ITEM_BYTES + 2 * key.len() + weight(&record),
            (false, false) => ITEM_BYTES + 2 * key.len() + shown_weight(&record),
            (false, true) => 0,
        };
        if self.held.grow(takes).is_err() {
            self.forget();
            return;
        }
        if self.partial {
            // Said twice, both count.
            let mut sayings = self.items.remove(&key).and_then(|old| old.sayings).unwrap_or_default();
            let whole = sayings.say(record);
            self.items.insert(key, Item::of(&whole, Some(sayings)));
            return;
        }
        let item = Item::of(&record, None);
        // Said twice, the newest counts.
        let newest = self.items.get(&key).is_none_or(|old| old.order <= item.order);
        if newest {
            self.items.insert(key, item);
        }
    }

    /// It will be refused: nothing of it is kept.
    fn forget(&mut self) {
        self.is_too_large = true;
        self.items.clear();
        self.held.give_back();
    }
}

#[async_trait]
impl InventoryRun for Noted {
    async fn page(&mut self, mut items: Vec<DeviceUpdate>) -> Result<(), AppendError> {
        let notes = &mut self.notes;
        notes.listed += items.len();
        if notes.listed >= MAX_LISTED {
            notes.forget();
        }
        if notes.is_too_large {
            return Ok(());
        }
        items.iter_mut().for_each(|update| notes.of.own(update));
        let updates = items.clone();
        // New instances are made known by it.
        self.run.page(items).await?;
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        updates.iter().for_each(|update| notes.note(update, now_us));
        Ok(())
    }

    async fn end(self: Box<Self>, ending: Ending, by: Option<Brought>) -> Result<u64, AppendError> {
        self.run.end(ending, by).await
    }

    async fn discard(self: Box<Self>) -> Result<u64, AppendError> {
        self.run.discard().await
    }
}

/// What is shown of a record takes so many bytes, about.
fn shown_weight(record: &Record) -> usize {
    label(record).len() + record.hostname.as_ref().map_or(0, String::len) + record.ips.len() * 64
}

/// A record takes so many bytes, about.
fn weight(record: &Record) -> usize {
    let ids: usize = record.ids.iter().map(|id| id.namespace.len() + id.value.len() + 64).sum();
    let macs: usize = record.macs.iter().chain(&record.macs_shown).map(|mac| mac.len() + 24).sum();
    let texts = record.attributes.iter().chain(&record.metadata);
    let texts: usize = texts.map(|(key, value)| key.len() + value.len() + 64).sum();
    size_of::<Record>() + ids + macs + texts + shown_weight(record)
}

/// Names what a record says, whenever it says it.
pub(super) fn content(record: &Record) -> Name {
    name(&Record { event_time: Time::default(), ..record.clone() })
}
