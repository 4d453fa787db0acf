//! What earlier releases remembered of an exporter, as their snapshots have it: each becomes what the next had.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::held::{Held, HeldSet};
use super::names::{Named, Names};
use super::templates::{FieldSpec, Template, Templates};
use super::{Exporter, MAX_SAMPLERS, MessageOrigin};

/// An exporter of a snapshot of the first release.
#[derive(Debug, Deserialize)]
pub struct FirstExporter {
    templates: BTreeMap<u16, FirstTemplate>,
    samplers: BTreeMap<Option<u64>, u64>,
    apps: BTreeMap<u64, String>,
    _interfaces: BTreeMap<u32, String>,
    held: Vec<FirstHeldSet>,
    next_sequence: Option<u32>,
    lost: u64,
    boot_us: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct FirstTemplate {
    scope_fields: u16,
    fields: Vec<FieldSpec>,
}

#[derive(Debug, Deserialize)]
struct FirstHeldSet {
    template: u16,
    export_s: u32,
    boot_us: Option<i64>,
    body: Vec<u8>,
    origin: MessageOrigin,
}

/// Where sets stood in their messages was not kept: they are told apart by offsets that no message reaches.
const BEYOND_MESSAGES: u32 = 1 << 17;

impl FirstExporter {
    /// The same, as the second layout has it, as of an instant of the clock that waiting is measured by.
    pub fn converted(self, now_ms: i64) -> SecondExporter {
        let mut templates = Templates::default();
        for (id, FirstTemplate { scope_fields, fields }) in self.templates {
            // What there is no room for any more is sent again.
            let _ = templates.define(id, Template::new(scope_fields > 0, scope_fields, &fields));
        }
        let mut held = Held::default();
        for (n, set) in (0u32..).zip(self.held.into_iter().filter(|set| !set.body.is_empty())) {
            held.push(HeldSet {
                template: set.template,
                export_s: set.export_s,
                boot_us: set.boot_us,
                body: set.body,
                offset: BEYOND_MESSAGES * (n + 1),
                origin: set.origin,
                since_ms: now_ms,
            });
        }
        SecondExporter {
            templates,
            samplers: self.samplers.into_iter().take(MAX_SAMPLERS).collect(),
            _app_bytes: self.apps.values().map(String::len).sum(),
            apps: self.apps,
            held,
            next_sequence: self.next_sequence,
            lost: self.lost,
            boot_us: self.boot_us,
        }
    }
}

/// An exporter that names nothing but applications.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SecondExporter {
    templates: Templates,
    samplers: BTreeMap<Option<u64>, u64>,
    apps: BTreeMap<u64, String>,
    _app_bytes: usize,
    held: Held,
    next_sequence: Option<u32>,
    lost: u64,
    boot_us: Option<i64>,
}

impl SecondExporter {
    /// The same, as this build has it.
    pub fn converted(self) -> Exporter {
        let mut names = Names::default();
        for (id, name) in self.apps {
            names.learn(Named::App, id, &name);
        }
        Exporter {
            templates: self.templates,
            samplers: self.samplers,
            names,
            held: self.held,
            next_sequence: self.next_sequence,
            lost: self.lost,
            boot_us: self.boot_us,
            ..Exporter::default()
        }
    }
}
