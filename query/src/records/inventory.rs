//! Inventories that are pushed: whose run it is, what its items are, and how they come into it.
//!
//! Items are device updates, or whatever a named mapping makes device updates of.

use std::collections::BTreeMap;

use radarflow_proto::payload::DeviceUpdate;
use radarflow_proto::ports::{InventoryRun, RunOf};
use radarflow_proto::room::Held;
use radarflow_reconcile::access::sees;
use radarflow_reconcile::findings::{self, Findings};
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::mapping::{Format, Mapping, MappingError, Whose, belong, items, line};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::records::Refused;

/// What an item's text becomes while it is read: a list of digits takes 36 times its bytes, and room to grow.
const READ_FACTOR: usize = 80;
/// What the text of a page's items becomes: updates, and what is appended of them.
const PAGE_FACTOR: usize = 16;
/// Bytes of an item.
pub(crate) const MAX_ITEM: usize = 1 << 20;
/// Items of one page, and bytes of their texts that close it.
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
}

/// Something that is wrong with some items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Finding {
    /// What is wrong.
    reason: String,
    /// With so many items; 0 where it is wrong with all of them together.
    items: usize,
    /// The first of them, from 1; of CSV, whose first row names the columns, the row is one more.
    first: Vec<usize>,
    /// What one of them says.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<String>,
}

/// What was read.
#[derive(Default)]
pub(crate) struct Taken {
    /// So many items.
    pub(crate) items: usize,
    /// What is doubtful about them.
    pub(crate) findings: Vec<Finding>,
}

/// A run that items are read into, a page at a time.
pub(crate) struct Intake<'a> {
    run: &'a mut dyn InventoryRun,
    reader: &'a Reader<'a>,
    page: Vec<DeviceUpdate>,
    /// Bytes of their texts.
    bytes: usize,
    /// Items so far.
    items: usize,
    /// What the page, and the item that is read, take.
    held: Held,
    findings: Findings<'a>,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(run: &'a mut dyn InventoryRun, reader: &'a Reader<'a>, held: Held) -> Self {
        let findings = Findings::new(reader.mapping);
        Intake { run, reader, page: Vec::new(), bytes: 0, items: 0, held, findings }
    }

    /// Takes a document whole; gives what it has.
    pub(crate) async fn document(mut self, format: Format, bytes: &[u8]) -> Result<Taken, Refused> {
        let list = self.reader.mapping.and_then(Mapping::list);
        for item in items(format, bytes, list).map_err(|e| unreadable(&e))? {
            let item = item.map_err(|e| unreadable(&e))?;
            self.take(item.bytes(), || item.read()).await?;
        }
        self.end().await
    }

    /// Takes a line, by its number, from 1.
    pub(crate) async fn line(&mut self, number: usize, text: &[u8]) -> Result<(), Refused> {
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        self.take(text.len(), || line(number, text).map(Option::unwrap_or_default)).await
    }

    /// Takes an item of so many bytes. Where there is no room for it beside the page, the page goes first.
    async fn take(&mut self, bytes: usize, read: impl FnOnce() -> Result<Value, MappingError>) -> Result<(), Refused> {
        let number = self.items + 1;
        let reason = |reason: String| unreadable(&MappingError::Item { number, reason });
        if bytes > MAX_ITEM {
            return Err(reason(format!("it has more than {MAX_ITEM} bytes")));
        }
        let takes = bytes * READ_FACTOR + size_of::<DeviceUpdate>();
        if self.held.grow(takes).is_err() {
            self.turn().await?;
            self.held.grow(takes)?;
        }
        let item = read().map_err(|e| unreadable(&e))?;
        let update = self.reader.update(&item).map_err(|e| reason(e.to_string()))?;
        self.findings.look(&item, &update);
        self.page.push(update);
        drop(item);
        let kept = bytes * PAGE_FACTOR + size_of::<DeviceUpdate>();
        self.held.shrink(takes - kept);
        self.bytes += bytes;
        self.items += 1;
        if self.page.len() >= PAGE || self.bytes >= PAGE_BYTES {
            self.turn().await?;
        }
        Ok(())
    }

    /// Takes what is left; gives what there was.
    pub(crate) async fn end(mut self) -> Result<Taken, Refused> {
        self.turn().await?;
        let told = self.findings.told().into_iter();
        let findings =
            told.map(|findings::Finding { reason, items, first, example }| Finding { reason, items, first, example });
        Ok(Taken { items: self.items, findings: findings.collect() })
    }

    async fn turn(&mut self) -> Result<(), Refused> {
        if !self.page.is_empty() {
            self.bytes = 0;
            self.run.page(std::mem::take(&mut self.page)).await?;
        }
        self.held.give_back();
        Ok(())
    }
}
