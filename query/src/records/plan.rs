//! A plan: what a run would change of the records that stand, under a digest that names the source and every change.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::cell::Time;
use radarflow_proto::record::Record;
use radarflow_reconcile::identity::explain::label;
use radarflow_reconcile::identity::name::Name;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::records::inventory::Finding;
use crate::records::notes::{Item, Notes, content, order};

/// Records that a plan shows of each kind of change.
const SAMPLES: usize = 10;

/// What would change.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// Names the plan, and applies it.
    pub(super) digest: String,
    /// The source: `armis/main`.
    source: String,
    /// Its run.
    run: String,
    /// Whether it lists everything, so that what it lacks goes.
    complete: bool,
    /// Items it lists.
    items: usize,
    /// Records that would be new.
    create: usize,
    /// Records that would say something else.
    update: usize,
    /// Records that would go.
    delete: usize,
    /// Records that would stay as they are.
    unchanged: usize,
    /// Items that would be rejected, each with a row in `rejects`.
    rejected: usize,
    /// Some of the records.
    samples: Samples,
    /// What its items are read with doubts about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<Finding>,
}

/// Some records of each kind of change.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Samples {
    create: Vec<Sample>,
    update: Vec<Sample>,
    delete: Vec<Sample>,
}

/// A record, as a plan shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Sample {
    /// Names it: `armis/main/17`.
    record: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    ips: Vec<String>,
}

impl Sample {
    pub(super) fn of(record: &Record) -> Sample {
        let ips = record.ips.iter().map(ToString::to_string).collect();
        Sample { record: label(record), hostname: record.hostname.clone(), ips }
    }
}

/// Compares what a run says with the records that stand.
pub(super) fn plan(noted: &Notes, complete: bool, standing: &[Record]) -> Plan {
    let mut digest = Sha256::new();
    let mut plan = Plan {
        digest: String::new(),
        source: format!("{}/{}", noted.of.name, noted.of.instance),
        run: noted.of.run.clone(),
        complete,
        items: noted.listed,
        create: 0,
        update: 0,
        delete: 0,
        unchanged: 0,
        rejected: noted.rejected,
        samples: Samples::default(),
        findings: Vec::new(),
    };
    digest.update(format!("{}\0{}\0{complete}\0{}\0", noted.of.tenant, plan.source, noted.rejected));
    let standing: BTreeMap<&str, &Record> = standing.iter().map(|record| (record.key.key.as_str(), record)).collect();
    let keys: BTreeSet<&str> = noted.items.keys().map(String::as_str).chain(standing.keys().copied()).collect();
    for key in keys {
        let (item, old) = (noted.items.get(key), standing.get(key));
        let whole = item.zip(old).and_then(|(item, old)| item.over(old));
        // What is older than what is known changes nothing, unless its source is partial; of one age, the later run counts.
        let age = |(at, gone, _): (Time, bool, Name)| (at, gone);
        let counts = |item: &Item, old: &Record| whole.is_some() || age(item.order) >= age(order(old));
        let item = whole.as_ref().or(item);
        let (change, count, samples) = match (item, old) {
            (Some(item), None) if !item.gone() => ("create", &mut plan.create, Some(&mut plan.samples.create)),
            (Some(item), Some(old)) if item.gone() && counts(item, old) => {
                ("delete", &mut plan.delete, Some(&mut plan.samples.delete))
            }
            (Some(item), Some(old)) if !item.gone() && counts(item, old) && item.content != content(old) => {
                ("update", &mut plan.update, Some(&mut plan.samples.update))
            }
            (None, Some(_)) if complete => ("delete", &mut plan.delete, Some(&mut plan.samples.delete)),
            (Some(_), Some(_)) => ("", &mut plan.unchanged, None),
            _ => continue,
        };
        *count += 1;
        let Some(samples) = samples else { continue };
        let now = item.map(|item| item.content);
        digest.update(format!("{change}\0{key}\0{now:?}\0{:?}\n", old.map(|old| content(old))));
        if samples.len() < SAMPLES {
            samples.extend(item.map(|item| item.shown.clone()).or_else(|| old.map(|old| Sample::of(old))));
        }
    }
    plan.digest = hex::encode(&digest.finalize()[..16]);
    plan
}
