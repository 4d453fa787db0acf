//! What the first release remembered of an exporter, as its snapshots have it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::held::HeldSet;
use super::templates::{FieldSpec, Template};
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
    /// The same, as this build has it, as of an instant of the clock that waiting is measured by.
    pub fn converted(self, now_ms: i64) -> Exporter {
        let mut exporter = Exporter {
            samplers: self.samplers.into_iter().take(MAX_SAMPLERS).collect(),
            next_sequence: self.next_sequence,
            lost: self.lost,
            boot_us: self.boot_us,
            ..Exporter::default()
        };
        for (id, FirstTemplate { scope_fields, fields }) in self.templates {
            // What there is no room for any more is sent again.
            let _ = exporter.templates.define(id, Template::new(scope_fields > 0, scope_fields, &fields));
        }
        for (id, name) in self.apps {
            exporter.learn_app(id, name);
        }
        for (n, set) in (0u32..).zip(self.held.into_iter().filter(|set| !set.body.is_empty())) {
            exporter.held.push(HeldSet {
                template: set.template,
                export_s: set.export_s,
                boot_us: set.boot_us,
                body: set.body,
                offset: BEYOND_MESSAGES * (n + 1),
                origin: set.origin,
                since_ms: now_ms,
            });
        }
        exporter
    }
}
