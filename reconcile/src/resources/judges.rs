//! The judges of all tenants, for who reads facts where no dataflow runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::fact::Fact;
use radarflow_proto::resource::{Command, Judgement, Resource, ResourceChange};
use radarflow_proto::rows::Table;

use super::{At, Judge, told, world};

/// The judges of all tenants.
#[derive(Default)]
pub struct Judges(BTreeMap<String, Judge>);

impl Judges {
    /// Takes in a resource as it stood.
    pub fn restore(&mut self, resource: Resource) {
        self.0.entry(resource.tenant.clone()).or_default().restore(Arc::new(resource));
    }

    /// Judges what a fact states; what it changes.
    pub fn state(&mut self, at: At, fact: &Fact) -> Vec<ResourceChange> {
        let Some(command) = told::command(fact) else { return Vec::new() };
        let judge = self.0.entry(command.tenant.clone()).or_default();
        let (mut changes, _) = judge.expire(at.now_us);
        changes.extend(judge.judge(at, &command).changes);
        changes
    }

    /// What would become of a command, if it were stated now.
    pub fn judge(&mut self, at: At, command: &Command) -> Judgement {
        self.0.entry(command.tenant.clone()).or_default().judge(at, command).judgement
    }

    /// All of a kind, by tenant and id.
    pub fn all(&self, table: Table) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.values().flat_map(move |judge| world::all(judge.standing(), table))
    }
}
