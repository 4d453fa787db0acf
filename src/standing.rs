//! Facts that stand until something else is said: what is known of them, and what the configuration says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use radarflow_connectors::sinks::armis;
use radarflow_connectors::sources::pull;
use radarflow_proto::enrich::Rule;
use radarflow_proto::fact::{Fact, IpLink, OwnCondition, Receiver};
use radarflow_proto::payload::DeviceUpdate;
use radarflow_proto::ports::NewInstances;
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::enrich::file::BadRule;
use radarflow_reconcile::identity::sources::{Instances, update_instance};

use crate::config::{Config, Partial};
use crate::enrichment;

/// Standing facts that intake must know: source instances, and those about to be; receivers.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) instances: Mutex<Instances>,
    receivers: Mutex<BTreeMap<(String, String), Receiver>>,
    /// Conditions of the program itself that hold.
    pub(crate) conditions: Mutex<BTreeMap<(String, String), OwnCondition>>,
    /// How far an address alone links, a tenant.
    pub(crate) policies: Mutex<BTreeMap<String, IpLink>>,
    /// The rules that tell what devices are.
    enrichment: Mutex<Vec<Rule>>,
    /// Partial sources.
    partial: Mutex<BTreeSet<(String, SourceKind, String)>>,
}

impl Registry {
    pub(crate) fn learn(&self, facts: &[Fact]) {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        for fact in facts {
            match fact {
                Fact::Instance { tenant, kind, instance, legacy } => instances.note(tenant, *kind, instance, *legacy),
                Fact::Receiver(r) => drop(receivers.insert((r.tenant.clone(), r.name.clone()), r.clone())),
                Fact::ReceiverGone { tenant, name } => drop(receivers.remove(&(tenant.clone(), name.clone()))),
                Fact::IpLink { tenant, policy, .. } => {
                    self.policies.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone(), *policy);
                }
                Fact::PartialSource { tenant, kind, instance, partial } => {
                    let mut known = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
                    let source = (tenant.clone(), *kind, instance.clone());
                    if *partial {
                        known.insert(source)
                    } else {
                        known.remove(&source)
                    };
                }
                Fact::EnrichmentRules { rules } => {
                    self.enrichment.lock().unwrap_or_else(PoisonError::into_inner).clone_from(rules);
                }
                Fact::Condition(c) => {
                    let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
                    let key = (c.rule.clone(), c.entity.clone());
                    if c.holds {
                        conditions.insert(key, c.clone())
                    } else {
                        conditions.remove(&key)
                    };
                }
                _ => {}
            }
        }
    }

    /// Failures of inventories that nobody asks any more are over.
    fn orphans(&self, config: &Config) -> Vec<Fact> {
        let asked: Vec<(String, String)> = config
            .sources
            .inventories()
            .filter(|i| i.is_automatic())
            .map(|i| (i.tenant().to_owned(), i.source()))
            .collect();
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<(String, String)> = config
            .sources
            .armis
            .iter()
            .filter(|a| a.write_back.is_some())
            .map(|a| (a.tenant.clone(), format!("armis/{}", a.name)))
            .collect();
        let orphan = |c: &&OwnCondition| {
            let of =
                |known: &[(String, String)]| !known.iter().any(|(t, source)| *t == c.tenant && *source == c.entity);
            (c.rule == pull::FAILED && of(&asked)) || (c.rule == armis::FAILED && of(&told))
        };
        conditions
            .values()
            .filter(orphan)
            .map(|c| Fact::Condition(OwnCondition { holds: false, ..c.clone() }))
            .collect()
    }

    /// Whether a source says only what it knows.
    pub(crate) fn is_partial(&self, tenant: &str, kind: SourceKind, instance: &str) -> bool {
        let known = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&(tenant.to_owned(), kind, instance.to_owned()))
    }

    /// What to append so that the standing facts are what the configuration says.
    pub(crate) fn changes(&self, config: &Config) -> Result<Vec<Fact>> {
        let receivers: Vec<Receiver> = config.receivers.iter().map(crate::config::ReceiverConfig::receiver).collect();
        let (rules, bad) = enrichment::rules(&config.enrichment.rules).context("[enrichment]")?;
        for bad in &bad {
            tracing::error!("{bad}");
        }
        let mut facts = self.receiver_changes(&receivers);
        facts.extend(self.orphans(config));
        facts.extend(self.partial_changes(config));
        facts.extend(self.enrichment_changes(rules, &bad));
        Ok(facts)
    }

    /// What to append so that the rules about devices are the configured ones, and what is wrong with them is told.
    fn enrichment_changes(&self, rules: Vec<Rule>, bad: &[BadRule]) -> Vec<Fact> {
        let mut facts = Vec::new();
        if *self.enrichment.lock().unwrap_or_else(PoisonError::into_inner) != rules {
            facts.push(Fact::EnrichmentRules { rules });
        }
        let now = enrichment::conditions(bad);
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |c: &&OwnCondition| c.rule == enrichment::INVALID;
        let over = conditions.values().filter(known).filter(|c| !now.iter().any(|n| n.entity == c.entity));
        facts.extend(over.map(|c| Fact::Condition(OwnCondition { holds: false, ..c.clone() })));
        facts.extend(now.into_iter().filter(|n| !conditions.values().any(|c| c == n)).map(Fact::Condition));
        facts
    }

    /// What to append so that the partial sources are the configured ones.
    fn partial_changes(&self, config: &Config) -> Vec<Fact> {
        let configured: BTreeSet<_> = config.sources.partial.iter().map(Partial::source).collect();
        let known = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let fact = |partial| {
            move |(tenant, kind, instance): &(String, SourceKind, String)| Fact::PartialSource {
                tenant: tenant.clone(),
                kind: *kind,
                instance: instance.clone(),
                partial,
            }
        };
        configured.difference(&known).map(fact(true)).chain(known.difference(&configured).map(fact(false))).collect()
    }

    /// What to append so that the receivers are the configured ones.
    fn receiver_changes(&self, configured: &[Receiver]) -> Vec<Fact> {
        let known = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |r: &Receiver| known.get(&(r.tenant.clone(), r.name.clone())) == Some(r);
        let gone = known.keys().filter(|(t, n)| !configured.iter().any(|r| r.tenant == *t && r.name == *n));
        gone.map(|(tenant, name)| Fact::ReceiverGone { tenant: tenant.clone(), name: name.clone() })
            .chain(configured.iter().filter(|r| !same(r)).cloned().map(Fact::Receiver))
            .collect()
    }
}

impl NewInstances for Registry {
    fn facts(&self, tenant: &str, payload: &[u8]) -> Vec<Fact> {
        // A payload that does not read is refused, item by item, where it is read.
        let items: Option<Vec<&serde_json::value::RawValue>> = serde_json::from_slice(payload).unwrap_or_default();
        let updates: Vec<DeviceUpdate> =
            items.unwrap_or_default().into_iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect();
        let mut known = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let mut facts = Vec::new();
        for (kind, instance) in updates.iter().filter_map(update_instance) {
            if !known.knows(tenant, kind, &instance) {
                let legacy = !known.any(tenant, kind);
                known.note(tenant, kind, &instance, legacy);
                facts.push(Fact::Instance { tenant: tenant.to_owned(), kind, instance, legacy });
            }
        }
        facts
    }
}

/// A fact of the configuration, as the operator reads it.
pub(crate) fn told(fact: &Fact) -> String {
    match fact {
        Fact::Receiver(receiver) => format!("receiver {} of {} is told now as it says", receiver.name, receiver.tenant),
        Fact::ReceiverGone { tenant, name } => format!("receiver {name} of {tenant} is gone"),
        Fact::EnrichmentRules { rules } => format!("{} rules about devices", rules.len()),
        Fact::PartialSource { kind, instance, partial, .. } => {
            let what = if *partial { "is partial" } else { "is not partial any more" };
            format!("source {}/{instance} {what}", kind.name())
        }
        Fact::Condition(condition) if condition.holds => format!("{}: {}", condition.title, condition.description),
        Fact::Condition(condition) => format!("{}: over", condition.title),
        other => format!("{other:?}"),
    }
}
