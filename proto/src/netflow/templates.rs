//! The templates of one exporter: how the records of its sets are laid out. Redefinition replaces; what there is no room
//! for is refused. Looking one up costs the same however many fields it has.
//!
//! A template is compiled when it comes: how each field is read is looked up once ([`super::elements`]), and where it stands
//! is known where no field before it varies. A record is then read field by field and nothing is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::elements::{self, Read};
use super::record::{Clock, Record};
use crate::wire::{Cursor, Truncated};

/// Templates one exporter may have.
pub const MAX_TEMPLATES: usize = 4096;
/// Fields one template may have.
pub const MAX_FIELDS: usize = 512;
/// Fields all templates of one exporter may have together.
pub const MAX_TEMPLATE_FIELDS: usize = 16_384;
/// What a template takes beside its fields, bytes.
pub(super) const TEMPLATE_OVERHEAD: usize = 112;
/// What a field takes, bytes.
pub(super) const FIELD_BYTES: usize = size_of::<FieldSpec>() + size_of::<Step>();

/// One field of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSpec {
    /// Element number, enterprise bit removed.
    pub element: u16,
    /// Bytes; 65535 is variable (RFC 7011 section 7).
    pub length: u16,
    /// Private enterprise number; 0 for IANA's.
    pub enterprise: u32,
}

impl FieldSpec {
    fn is_variable(self) -> bool {
        self.length == u16::MAX
    }
}

/// A template as it was told, which is what snapshots have of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    /// Its records are options.
    options: bool,
    /// The leading fields that are scope.
    scope_fields: usize,
    /// The fields in order, every one of which takes a byte at least: a record costs no more than it has bytes.
    fields: Vec<FieldSpec>,
    /// The least bytes a record can take.
    least: usize,
}

/// How a field is read.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// What takes it in; where nothing does, it is kept by its number.
    read: Option<Read>,
    /// Where it begins, where no field varies.
    offset: u32,
    /// Which it is of the same element in the record.
    nth: u16,
}

/// How records of one set are laid out, and how they are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Layout", into = "Layout")]
pub(super) struct Template {
    layout: Layout,
    /// By field.
    steps: Vec<Step>,
    /// Whether no field varies: all records take the least.
    is_fixed: bool,
    /// Whether its records tell of flows.
    pub(super) makes_flows: bool,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.layout == other.layout
    }
}

impl Eq for Template {}

impl From<Layout> for Template {
    fn from(layout: Layout) -> Self {
        let mut seen: BTreeMap<(u32, u16), u16> = BTreeMap::new();
        let mut offset = 0;
        let steps = layout.fields.iter().enumerate().map(|(n, field)| {
            let (enterprise, element) = (field.enterprise, field.element);
            let nth = seen.entry((enterprise, element)).or_default();
            *nth += 1;
            let read = match n < layout.scope_fields {
                true => elements::read_scope(enterprise, element),
                false => elements::read(enterprise, element),
            };
            let step = Step { read, offset, nth: *nth };
            offset += u32::from(field.length);
            step
        });
        let steps: Vec<_> = steps.collect();
        let told = layout.fields.iter().skip(layout.scope_fields);
        Template {
            steps,
            is_fixed: !layout.fields.iter().any(|field| field.is_variable()),
            makes_flows: !layout.options && told.clone().any(|f| elements::makes_flow(f.enterprise, f.element)),
            layout,
        }
    }
}

impl From<Template> for Layout {
    fn from(template: Template) -> Self {
        template.layout
    }
}

impl Template {
    /// Of fields as they were told. Fields of no bytes say nothing and are left out.
    pub(super) fn new(options: bool, scope_fields: u16, fields: &[FieldSpec]) -> Self {
        let has_bytes = |f: &&FieldSpec| f.length > 0;
        let scope = &fields[..fields.len().min(usize::from(scope_fields))];
        let scope_fields = scope.iter().filter(has_bytes).count();
        let fields: Vec<_> = fields.iter().filter(has_bytes).copied().collect();
        let least = fields.iter().map(|f| if f.is_variable() { 1 } else { usize::from(f.length) }).sum();
        Layout { options, scope_fields, fields, least }.into()
    }

    pub(super) fn is_options(&self) -> bool {
        self.layout.options
    }

    /// The least bytes a record can take.
    pub(super) fn least(&self) -> usize {
        self.layout.least
    }

    /// Reads one record.
    pub(super) fn read(&self, at: &mut Cursor<'_>, clock: Clock, record: &mut Record) -> Result<(), Truncated> {
        record.clear();
        let fields = self.layout.fields.iter().zip(&self.steps);
        if self.is_fixed {
            let bytes = at.take(self.layout.least)?;
            for (field, step) in fields {
                let value = &bytes[step.offset as usize..][..usize::from(field.length)];
                self.take_in(field, step, value, clock, record);
            }
        } else {
            for (field, step) in fields {
                let value = value(at, field.length)?;
                self.take_in(field, step, value, clock, record);
            }
        }
        record.finish();
        Ok(())
    }

    fn take_in(&self, field: &FieldSpec, step: &Step, value: &[u8], clock: Clock, record: &mut Record) {
        match step.read {
            Some(read) => read(record, value, clock),
            // Nobody asks what options say that is not known.
            None if self.layout.options => {}
            None => {
                let name = (field.enterprise, field.element, step.nth);
                record.flow.unmapped.push(name, value, field.is_variable());
            }
        }
    }
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

/// All templates of an exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Templates {
    data: BTreeMap<u16, Arc<Template>>,
    options: BTreeMap<u16, Arc<Template>>,
    fields: usize,
}

impl Templates {
    pub(super) fn get(&self, id: u16) -> Option<Arc<Template>> {
        self.data.get(&id).or_else(|| self.options.get(&id)).cloned()
    }

    /// Takes in a template, or says why not; what it replaces is void either way.
    pub(super) fn define(&mut self, id: u16, template: Template) -> Result<(), &'static str> {
        self.withdraw(id);
        if template.least() == 0 {
            return Err("its records would have no bytes");
        }
        if self.data.len() + self.options.len() >= MAX_TEMPLATES {
            return Err("the exporter has too many templates");
        }
        if self.fields + template.steps.len() > MAX_TEMPLATE_FIELDS {
            return Err("the exporter's templates have too many fields together");
        }
        self.fields += template.steps.len();
        let of_kind = if template.is_options() { &mut self.options } else { &mut self.data };
        of_kind.insert(id, template.into());
        Ok(())
    }

    pub(super) fn withdraw(&mut self, id: u16) {
        let was = self.data.remove(&id).or_else(|| self.options.remove(&id));
        self.fields -= was.map_or(0, |template| template.steps.len());
    }

    /// Withdraws all of a kind.
    pub(super) fn withdraw_all(&mut self, options: bool) {
        let of_kind = if options { &mut self.options } else { &mut self.data };
        let gone = std::mem::take(of_kind);
        self.fields -= gone.values().map(|template| template.steps.len()).sum::<usize>();
    }

    pub(super) fn bytes(&self) -> usize {
        (self.data.len() + self.options.len()) * TEMPLATE_OVERHEAD + self.fields * FIELD_BYTES
    }
}
