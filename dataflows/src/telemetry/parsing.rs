//! Parsing rules, on log messages ([`radarflow_reconcile::parsing`]): on the worker where the messages are. The rules are those of the
//! epoch: what an epoch states counts for its messages. Batches of a tenant without rules pass as they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::{BatchBuilder, Log, LogBatch, Row, Table};
use radarflow_proto::syslog::SEVERITIES;
use radarflow_reconcile::parsing::ParsingRules;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};

use crate::collection::Events;
use crate::decode::EventBatch;

/// A rule that stands, or stands no more.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stated {
    tenant: String,
    name: String,
    rule: Option<Arc<Resource>>,
}

/// Reads fields out of messages. Batches come here as they are decoded, with nothing between: those of an epoch are there before what it
/// states is settled.
pub(super) fn parsed<'scope>(
    batches: Events<'scope, EventBatch>,
    resources: Events<'scope, ResourceChange>,
) -> Events<'scope, EventBatch> {
    let stated = resources.flat_map(|ResourceChange { before, after }| {
        let of = after.as_ref().or(before.as_ref())?;
        let (tenant, name) = (of.tenant.clone(), of.id.clone());
        (of.resource == Table::ParsingRule.name()).then_some(Stated { tenant, name, rule: after })
    });
    batches.binary_frontier(stated.broadcast(), Pipeline, Pipeline, "ParseLogs", |_, _| {
        let mut tenants: BTreeMap<String, ParsingRules> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, (_, Vec<EventBatch>)> = BTreeMap::new();
        let mut stated: BTreeMap<u64, Vec<Stated>> = BTreeMap::new();
        move |(batches, _), (said, frontier), output| {
            said.for_each(|time, data| {
                let at = *time.least().expect("what is stated has an epoch");
                stated.entry(at).or_default().append(data);
            });
            batches.for_each(|time, data| {
                if let Some(capability) = time.retain_least(0) {
                    let of = waiting.entry(*capability.time()).or_insert_with(|| (capability, Vec::new()));
                    of.1.append(data);
                }
            });
            let upper = frontier.frontier().first().copied();
            let is_settled = |at: u64| upper.is_none_or(|upper| at < upper);
            while let Some(entry) = waiting.first_entry().filter(|entry| is_settled(*entry.key())) {
                let (at, (capability, batches)) = entry.remove_entry();
                state(&mut tenants, &mut stated, at);
                let rules = |tenant: &str| tenants.get(tenant).filter(|rules| !rules.is_empty());
                let read = |batch: EventBatch| match rules(&batch.tenant).filter(|_| batch.table == Table::Log) {
                    Some(rules) => parse(rules, batch),
                    None => batch,
                };
                output.session(&capability).give_iterator(batches.into_iter().map(read));
            }
            // What is stated while there are no messages is not kept waiting for some.
            if let Some(settled) = upper.and_then(|upper| upper.checked_sub(1)) {
                state(&mut tenants, &mut stated, settled);
            }
        }
    })
}

/// Takes in what was stated until an epoch.
fn state(tenants: &mut BTreeMap<String, ParsingRules>, stated: &mut BTreeMap<u64, Vec<Stated>>, until: u64) {
    let later = stated.split_off(&(until + 1));
    for Stated { tenant, name, rule } in std::mem::replace(stated, later).into_values().flatten() {
        tenants.entry(tenant).or_default().state(&name, rule.as_deref());
    }
    tenants.retain(|_, rules| !rules.is_empty());
}

fn parse(rules: &ParsingRules, batch: EventBatch) -> EventBatch {
    let senders = batch.lookups.first();
    let sender = |row: usize| -> Option<IpAddr> { senders.and_then(|senders| senders.get(row).copied().flatten()) };
    let mut out = LogBatch::default();
    let mut is_otherwise = false;
    for n in 0..batch.rows.num_rows() {
        let mut row = <Log as Row>::read(&batch.rows, n);
        let program = row.service_name.clone().unwrap_or_default();
        if let Some((rule, parsed)) = rules.parse(&program, sender(n), &row.body) {
            is_otherwise = true;
            row.attributes.0.extend(parsed.attributes);
            row.parsed_by = Some(rule.version.clone());
            if let Some(severity) = parsed.severity {
                row.severity_number = Some(severity.into());
                row.severity = SEVERITIES.get(usize::from(severity)).map(|&name| name.to_owned());
            }
            if let Some(body) = parsed.body {
                // What came is kept.
                let said = std::mem::replace(&mut row.body, body);
                row.raw.get_or_insert_with(|| said.into_bytes());
            }
        }
        out.push(&row);
    }
    match is_otherwise {
        true => EventBatch { rows: out.finish(), ..batch },
        false => batch,
    }
}
