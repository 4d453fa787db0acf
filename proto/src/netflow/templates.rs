//! The templates of one exporter: how the records of its sets are laid out. Redefinition replaces; what there is no room
//! for is refused. Looking one up costs the same however many fields it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Templates one exporter may have.
pub const MAX_TEMPLATES: usize = 4096;
/// Fields one template may have.
pub const MAX_FIELDS: usize = 512;
/// Fields all templates of one exporter may have together.
pub const MAX_TEMPLATE_FIELDS: usize = 16_384;
/// What a template takes beside its fields, bytes.
pub(super) const TEMPLATE_OVERHEAD: usize = 96;

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

/// How records of one set are laid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Template {
    /// Its records are options.
    pub(super) options: bool,
    /// The leading fields that are scope.
    pub(super) scope_fields: usize,
    /// The fields in order, every one of which takes a byte at least: a record costs no more than it has bytes.
    pub(super) fields: Vec<FieldSpec>,
    /// The least bytes a record can take.
    pub(super) least: usize,
}

impl Template {
    /// Of fields as they were told. Fields of no bytes say nothing and are left out.
    pub(super) fn new(options: bool, scope_fields: u16, fields: &[FieldSpec]) -> Self {
        let has_bytes = |f: &&FieldSpec| f.length > 0;
        let scope = &fields[..fields.len().min(usize::from(scope_fields))];
        let scope_fields = scope.iter().filter(has_bytes).count();
        let fields: Vec<_> = fields.iter().filter(has_bytes).copied().collect();
        let least = fields.iter().map(|f| if f.length == u16::MAX { 1 } else { usize::from(f.length) }).sum();
        Template { options, scope_fields, fields, least }
    }
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
        if template.least == 0 {
            return Err("its records would have no bytes");
        }
        if self.data.len() + self.options.len() >= MAX_TEMPLATES {
            return Err("the exporter has too many templates");
        }
        if self.fields + template.fields.len() > MAX_TEMPLATE_FIELDS {
            return Err("the exporter's templates have too many fields together");
        }
        self.fields += template.fields.len();
        let of_kind = if template.options { &mut self.options } else { &mut self.data };
        of_kind.insert(id, template.into());
        Ok(())
    }

    pub(super) fn withdraw(&mut self, id: u16) {
        let was = self.data.remove(&id).or_else(|| self.options.remove(&id));
        self.fields -= was.map_or(0, |template| template.fields.len());
    }

    /// Withdraws all of a kind.
    pub(super) fn withdraw_all(&mut self, options: bool) {
        let of_kind = if options { &mut self.options } else { &mut self.data };
        let gone = std::mem::take(of_kind);
        self.fields -= gone.values().map(|template| template.fields.len()).sum::<usize>();
    }

    pub(super) fn bytes(&self) -> usize {
        (self.data.len() + self.options.len()) * TEMPLATE_OVERHEAD + self.fields * size_of::<FieldSpec>()
    }
}
