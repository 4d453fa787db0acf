//! Inventories that are pushed: whose run it is, what its items are, and how they come into it.
//!
//! Items are device updates, or whatever a named mapping makes device updates of.

use std::collections::BTreeMap;

use radarflow_proto::payload::DeviceUpdate;
use radarflow_proto::ports::{InventoryRun, RunOf};
use radarflow_reconcile::access::sees;
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::mapping::{Format, Mapping, MappingError, Whose, belong, line, rows};
use serde_json::Value;

use crate::actor::Actor;
use crate::records::Refused;

/// Items of one page, and bytes of their lines that close it.
const PAGE: usize = 4000;
const PAGE_BYTES: usize = 4 << 20;
/// What sources of other kinds call themselves: nobody may push as one of them.
const RESERVED: [&str; 6] = ["agent", "mapper", "sweep", "operator", "snmp", "integration"];

/// The named mappings.
pub type Mappings = BTreeMap<String, Mapping>;

/// What is asked for a run.
pub(crate) struct Asked {
    /// It lists everything there is.
    pub(crate) complete: bool,
    /// Its name.
    pub(crate) run: String,
    /// Site of items that name none.
    pub(crate) partition: Option<String>,
}

fn unreadable(error: &MappingError) -> Refused {
    Refused::Bad("unreadable", format!("{error}; nothing of the run was taken"))
}

/// Whose run it is, if the actor may bring it.
pub(crate) fn run_of(actor: &Actor, name: &str, instance: &str, asked: Asked) -> Result<RunOf, Refused> {
    let plain = |text: &str| !text.is_empty() && text.len() <= 64 && !text.contains(['.', ':', '/', '\0', '\u{1f}']);
    if !plain(name) || RESERVED.contains(&name) || name != name.to_ascii_lowercase() {
        let detail = "an inventory is armis, netbox or a type of your own, lower case, without . : /";
        return Err(Refused::Bad("bad_source", detail.to_owned()));
    }
    let Some(instance) = normalise::instance(instance).filter(|i| !i.is_empty() && i.len() <= 255) else {
        return Err(Refused::Bad("bad_source", "a source instance has a name without : and /".to_owned()));
    };
    let partition = match (asked.partition, actor.partitions.as_slice()) {
        (Some(said), _) => said,
        (None, [only]) => only.clone(),
        (None, _) => String::new(),
    };
    let Some(partition) = normalise::partition(&partition) else {
        return Err(Refused::Bad("bad_partition", "a partition has no : and no /".to_owned()));
    };
    let bound = !actor.partitions.is_empty();
    if !sees(&actor.partitions, &partition) || (bound && asked.complete) {
        return Err(Refused::Forbidden("this token is bound to partitions: name one of them, and no complete run"));
    }
    let run = asked.run;
    if run.is_empty() || run.len() > 255 || run.contains(|c: char| c == '/' || c.is_control()) {
        return Err(Refused::Bad("bad_run", "a run's name has 1 to 255 bytes and no /".to_owned()));
    }
    let (tenant, kind) = (actor.tenant.clone(), Whose::named(name).kind);
    Ok(RunOf { tenant, partition, bound, kind, name: name.to_owned(), instance, run })
}

/// What items are and whose.
pub(crate) struct Reader<'a> {
    pub(crate) mapping: Option<&'a Mapping>,
    pub(crate) whose: Whose,
}

impl Reader<'_> {
    fn update(&self, item: &Value) -> Result<DeviceUpdate, serde_json::Error> {
        if let Some(mapping) = self.mapping {
            return Ok(mapping.update(item, &self.whose));
        }
        // A list would be read as the fields in their order.
        if !item.is_object() {
            return Err(serde::de::Error::custom("an item is an object"));
        }
        let mut update: DeviceUpdate = serde::Deserialize::deserialize(item)?;
        belong(&mut update, &self.whose);
        Ok(update)
    }

    fn updates(&self, items: &[Value], first: usize) -> Result<Vec<DeviceUpdate>, MappingError> {
        let update = |(n, item): (usize, &Value)| {
            self.update(item).map_err(|e| MappingError::Item { number: first + n, reason: e.to_string() })
        };
        items.iter().enumerate().map(update).collect()
    }
}

/// A run that items are read into, a page at a time.
pub(crate) struct Intake<'a> {
    run: &'a mut dyn InventoryRun,
    reader: &'a Reader<'a>,
    page: Vec<DeviceUpdate>,
    /// Bytes of the lines that are in it.
    bytes: usize,
    /// Items so far.
    items: usize,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(run: &'a mut dyn InventoryRun, reader: &'a Reader<'a>) -> Self {
        Intake { run, reader, page: Vec::new(), bytes: 0, items: 0 }
    }

    /// Takes a document whole; gives how many items it has.
    pub(crate) async fn document(self, format: Format, bytes: &[u8]) -> Result<usize, Refused> {
        let updates = match self.reader.mapping {
            Some(mapping) => mapping.document(format, bytes, &self.reader.whose),
            None => rows(format, bytes, None).and_then(|items| self.reader.updates(&items, 1)),
        };
        let mut updates = updates.map_err(|e| unreadable(&e))?;
        let items = updates.len();
        while !updates.is_empty() {
            let rest = updates.split_off(updates.len().min(PAGE));
            self.run.page(updates).await?;
            updates = rest;
        }
        Ok(items)
    }

    /// Takes a line, by its number, from 1.
    pub(crate) async fn line(&mut self, number: usize, text: &[u8]) -> Result<(), Refused> {
        let Some(item) = line(number, text).map_err(|e| unreadable(&e))? else { return Ok(()) };
        let update = self.reader.updates(std::slice::from_ref(&item), self.items + 1);
        self.page.extend(update.map_err(|e| unreadable(&e))?);
        self.bytes += text.len();
        self.items += 1;
        if self.page.len() >= PAGE || self.bytes >= PAGE_BYTES {
            self.turn().await?;
        }
        Ok(())
    }

    /// Takes the lines that are left; gives how many items there were.
    pub(crate) async fn end(mut self) -> Result<usize, Refused> {
        if !self.page.is_empty() {
            self.turn().await?;
        }
        Ok(self.items)
    }

    async fn turn(&mut self) -> Result<(), Refused> {
        self.bytes = 0;
        Ok(self.run.page(std::mem::take(&mut self.page)).await?)
    }
}
