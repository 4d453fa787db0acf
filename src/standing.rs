//! Facts that stand until something else is said: what is known of them, and what the configuration says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use radarflow_connectors::sinks::armis;
use radarflow_connectors::sources::pull::stated::source;
use radarflow_connectors::sources::{entry, pull};
use radarflow_proto::enrich::Rule;
use radarflow_proto::fact::{Fact, IpLink, OwnCondition, Receiver};
use radarflow_proto::flow::tables::FlowTables;
use radarflow_proto::frame::{Kind, Origin};
use radarflow_proto::payload::DeviceUpdate;
use radarflow_proto::ports::{AppendError, Appender, BoxFuture, NewInstances};
use radarflow_proto::record::{IdKind, SourceKind};
use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::Table;
use radarflow_query::actor::turns::Turns;
use radarflow_query::tables::live::Live;
use radarflow_reconcile::enrich::file;
use radarflow_reconcile::identity::sources::{Instances, update_instance};
use radarflow_reconcile::resources::told as resources;

use crate::config::{Config, Partial};
use crate::enrichment;

/// Standing facts that intake must know: source instances, receivers. What is not durable is not known.
#[derive(Default)]
pub(crate) struct Registry {
    instances: Arc<Mutex<Instances>>,
    /// Who announces instances waits for whoever does so of the same tenant: one of a kind is the first.
    announcing: Arc<Turns>,
    receivers: Mutex<BTreeMap<(String, String), Receiver>>,
    /// Conditions of the program itself that hold, by tenant, rule and entity.
    conditions: Mutex<BTreeMap<(String, String, String), OwnCondition>>,
    /// How far an address alone links, a tenant.
    policies: Mutex<BTreeMap<String, IpLink>>,
    /// The rules that tell what devices are.
    enrichment: Mutex<Vec<Rule>>,
    /// What is known of flows.
    flow_tables: Mutex<FlowTables>,
    /// Files that any of it named, since the snapshot that the start began with.
    files: Mutex<BTreeSet<String>>,
    /// Sources that people state.
    integrations: Mutex<BTreeSet<(String, String)>>,
    /// Partial sources.
    partial: Mutex<BTreeSet<(String, SourceKind, String)>>,
}

impl Registry {
    pub(crate) fn learn(&self, facts: &[Fact]) {
        note(&mut locked(&self.instances), facts);
        for fact in facts {
            match fact {
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
                Fact::FlowTables { tables } => {
                    let files = tables.address_files.iter().map(|file| file.digest.clone());
                    self.files.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
                    self.flow_tables.lock().unwrap_or_else(PoisonError::into_inner).clone_from(tables);
                }
                Fact::Condition(c) => {
                    let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
                    let key = (c.tenant.clone(), c.rule.clone(), c.entity.clone());
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

    /// Takes in what became of resources: of receivers those that the configuration owns, and integrations.
    pub(crate) fn learn_resources(&self, changes: &[ResourceChange]) {
        let mut integrations = self.integrations.lock().unwrap_or_else(PoisonError::into_inner);
        let is_asked = |of: &Resource| of.resource == Table::Integration.name() && of.flag("enabled");
        let named = |of: &Resource| is_asked(of).then(|| (of.tenant.clone(), source(of)));
        for ResourceChange { before, after } in changes {
            if let Some(gone) = before.as_deref().and_then(named) {
                integrations.remove(&gone);
            }
            integrations.extend(after.as_deref().and_then(named));
        }
        drop(integrations);
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        for ResourceChange { before, after } in changes {
            let configured = |resource: &Option<Arc<Resource>>| {
                resource
                    .as_ref()
                    .filter(|resource| resource.owner == resources::CONFIGURATION)
                    .and_then(|r| resources::receiver(r))
            };
            if let Some(gone) = configured(before) {
                receivers.remove(&(gone.tenant, gone.name));
            }
            if let Some(receiver) = configured(after) {
                receivers.insert((receiver.tenant.clone(), receiver.name.clone()), receiver);
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
        let stated = self.integrations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked: Vec<(String, String)> = asked.into_iter().chain(stated).collect();
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

    /// Files that are named, or were since the snapshot that the start began with.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The source instances there are.
    pub(crate) fn instances(&self) -> MutexGuard<'_, Instances> {
        locked(&self.instances)
    }

    /// The conditions of the program itself that hold.
    pub(crate) fn conditions(&self) -> Vec<OwnCondition> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How far an address alone links in a tenant.
    pub(crate) fn policy(&self, tenant: &str) -> IpLink {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or_default()
    }

    /// Whether a source says only what it knows.
    pub(crate) fn is_partial(&self, tenant: &str, kind: SourceKind, instance: &str) -> bool {
        let known = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&(tenant.to_owned(), kind, instance.to_owned()))
    }

    /// What to append so that the standing facts are what the configuration says.
    pub(crate) fn changes(&self, config: &Config, keep: enrichment::Keep<'_>) -> Result<Vec<Fact>> {
        let receivers: Vec<Receiver> = config.receivers.iter().map(crate::config::ReceiverConfig::receiver).collect();
        let (rules, bad, mut unread) = match enrichment::rules(&config.enrichment.rules) {
            Ok((rules, bad)) => (Some(rules), bad, Vec::new()),
            Err(bad) => (None, Vec::new(), vec![bad]),
        };
        let stood = self.flow_tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (tables, more) = enrichment::tables(&config.enrichment, &stood, keep).context("[enrichment]")?;
        unread.extend(more);
        for bad in &bad {
            tracing::error!("{bad}");
        }
        for enrichment::BadFile { path, why } in &unread {
            tracing::error!("cannot use {}: {why}; what it said before holds", path.display());
        }
        let mut facts = self.receiver_changes(&receivers);
        facts.extend(self.orphans(config));
        facts.extend(self.partial_changes(config));
        let told = enrichment::conditions(&bad).into_iter().chain(enrichment::unread(&unread));
        facts.extend(self.enrichment_changes(rules, told.collect()));
        if stood != tables {
            facts.push(Fact::FlowTables { tables: Box::new(tables) });
        }
        Ok(facts)
    }

    /// What to append so that the rules about devices are the configured ones, or those that stood where these cannot be read, and
    /// that what is wrong is told.
    fn enrichment_changes(&self, rules: Option<Vec<Rule>>, now: Vec<OwnCondition>) -> Vec<Fact> {
        let mut facts = Vec::new();
        let stood = self.enrichment.lock().unwrap_or_else(PoisonError::into_inner);
        let is_read = rules.is_some();
        // Those of the program hold at least.
        let rules = rules.or_else(|| stood.is_empty().then(file::builtin));
        facts.extend(rules.filter(|rules| *stood != *rules).map(|rules| Fact::EnrichmentRules { rules }));
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |c: &&OwnCondition| [enrichment::INVALID, enrichment::UNREAD].contains(&&*c.rule);
        let same = |c: &OwnCondition, n: &OwnCondition| n.entity == c.entity && n.rule == c.rule;
        // What was wrong in files that were not read again is wrong still.
        let known = |c: &&OwnCondition| known(c) && (is_read || c.rule != enrichment::INVALID);
        let over = conditions.values().filter(known).filter(|c| !now.iter().any(|n| same(c, n)));
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

/// The instances that payloads speak for, each once, as they come.
fn spoken_for(payloads: &[&[u8]]) -> Vec<(IdKind, String)> {
    let mut seen = BTreeSet::new();
    let mut spoken = Vec::new();
    for payload in payloads {
        // A payload that does not read is refused, item by item, where it is read.
        let items: Option<Vec<&serde_json::value::RawValue>> = serde_json::from_slice(payload).unwrap_or_default();
        let read = |item: &serde_json::value::RawValue| serde_json::from_str::<DeviceUpdate>(item.get()).ok();
        let of = items.unwrap_or_default().into_iter().filter_map(|item| update_instance(&read(item)?));
        spoken.extend(of.filter(|instance| seen.insert(instance.clone())));
    }
    spoken
}

/// The facts of instances that are not known. Of a kind that has none the first is the one that bears the bare names.
fn unknown(known: &Instances, tenant: &str, spoken: Vec<(IdKind, String)>) -> Vec<Fact> {
    let mut seen = BTreeSet::new();
    let new = spoken.into_iter().filter(|(kind, instance)| !known.knows(tenant, *kind, instance));
    new.map(|(kind, instance)| {
        let legacy = seen.insert(kind) && !known.any(tenant, kind);
        Fact::Instance { tenant: tenant.to_owned(), kind, instance, legacy }
    })
    .collect()
}

fn locked(instances: &Mutex<Instances>) -> MutexGuard<'_, Instances> {
    instances.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in the instances among facts.
fn note(instances: &mut Instances, facts: &[Fact]) {
    for fact in facts {
        if let Fact::Instance { tenant, kind, instance, legacy } = fact {
            instances.note(tenant, *kind, instance, *legacy);
        }
    }
}

impl NewInstances for Registry {
    fn announce(
        &self,
        appender: &Arc<dyn Appender>,
        origin: &Origin,
        payloads: &[&[u8]],
    ) -> BoxFuture<Result<(), AppendError>> {
        let tenant = origin.tenant.clone();
        let mut spoken = spoken_for(payloads);
        let known = self.instances.clone();
        spoken.retain(|(kind, instance)| !locked(&known).knows(&tenant, *kind, instance));
        if spoken.is_empty() {
            return Box::pin(async { Ok(()) });
        }
        let (appender, turns) = (appender.clone(), self.announcing.clone());
        let origin = Arc::new(Origin { kind: Kind::Fact, ..origin.clone() });
        // Whoever asked may leave meanwhile: it is done all the same, so that nobody decides beside it which is the first.
        let announced = tokio::spawn(async move {
            let _turn = turns.take(&tenant).await;
            let facts = unknown(&locked(&known), &tenant, spoken);
            if !facts.is_empty() {
                let entries = facts.iter().map(|f| entry(None, serde_json::to_vec(f).unwrap_or_default())).collect();
                appender.append(origin, entries).await?;
                note(&mut locked(&known), &facts);
            }
            Ok::<(), AppendError>(())
        });
        Box::pin(async move { announced.await.unwrap_or(Err(AppendError::Closed)) })
    }
}

/// Appends facts that the program itself says; gives the epoch from which on they hold.
pub(crate) async fn append(
    appender: &dyn Appender,
    tenant: &str,
    feed: &str,
    facts: &[Fact],
) -> Result<u64, AppendError> {
    let (tenant, partition, feed) = (tenant.to_owned(), String::new(), feed.to_owned());
    let origin = Arc::new(Origin { kind: Kind::Fact, tenant, partition, feed });
    let entries = facts.iter().map(|fact| entry(None, serde_json::to_vec(fact).expect("facts are JSON"))).collect();
    appender.append(origin, entries).await
}

/// Appends facts, if there are any, and waits until everybody who is asked knows them.
pub(crate) async fn settle(
    appender: &dyn Appender,
    live: &Live,
    tenant: &str,
    feed: &str,
    facts: &[Fact],
) -> Result<(), AppendError> {
    if !facts.is_empty() {
        live.reach(append(appender, tenant, feed, facts).await?).await;
    }
    Ok(())
}

/// A fact of the configuration, as the operator reads it.
pub(crate) fn told(fact: &Fact) -> String {
    match fact {
        Fact::Receiver(receiver) => format!("receiver {} of {} is told now as it says", receiver.name, receiver.tenant),
        Fact::ReceiverGone { tenant, name } => format!("receiver {name} of {tenant} is gone"),
        Fact::EnrichmentRules { rules } => format!("{} rules about devices", rules.len()),
        Fact::FlowTables { tables } => format!("of flows: {}", tables.summary()),
        Fact::PartialSource { kind, instance, partial, .. } => {
            let what = if *partial { "is partial" } else { "is not partial any more" };
            format!("source {}/{instance} {what}", kind.name())
        }
        Fact::Condition(condition) if condition.holds => format!("{}: {}", condition.title, condition.description),
        Fact::Condition(condition) => format!("{}: over", condition.title),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use radarflow_connectors::ledger::intake::{self, Bounds, Intake, Progress};
    use radarflow_connectors::ledger::segments::Segments;

    use super::*;
    use radarflow_connectors::clock::SystemClock;
    use radarflow_connectors::disk;
    use radarflow_connectors::ledger::clock::Timekeeping;

    /// A ledger's intake, the frames that are durable in it, and what ends it.
    struct Ledger {
        intake: Intake,
        running: intake::IntakeThread,
        _progress: tokio::sync::watch::Sender<Progress>,
    }

    impl Ledger {
        fn open(path: &std::path::Path) -> Ledger {
            let (progress, paced) = tokio::sync::watch::channel(Progress::default());
            let log = Segments::open(disk::os(), path, 0).unwrap();
            let time = Timekeeping::new(disk::os(), Arc::new(SystemClock), path.join("clock"));
            let (intake, running) = intake::start(log, paced, |_| {}, || None, Bounds::default(), time);
            Ledger { intake, running, _progress: progress }
        }

        fn appender(&self) -> Arc<dyn Appender> {
            Arc::new(self.intake.clone())
        }

        async fn stop(self) {
            let Ledger { intake, running, .. } = self;
            drop(intake);
            tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
        }
    }

    /// The instances that are durable, and which of them are the first of their kind.
    fn durable(path: &std::path::Path) -> Vec<(String, String, bool)> {
        let mut found = Vec::new();
        let each = |frame: radarflow_proto::frame::Frame| {
            for entry in frame.slices.iter().flat_map(|slice| &slice.entries) {
                if let Ok(Fact::Instance { tenant, instance, legacy, .. }) = serde_json::from_slice(&entry.body) {
                    found.push((tenant, instance, legacy));
                }
            }
        };
        Segments::open(disk::os(), path, 0).unwrap().replay(0, each).unwrap();
        found
    }

    fn origin(tenant: &str) -> Origin {
        Origin { kind: Kind::Status, tenant: tenant.into(), partition: "p".into(), feed: "grpc".into() }
    }

    fn payload(instance: &str) -> Vec<u8> {
        let item = serde_json::json!({"source": "netbox", "ip": "10.0.0.1", "metadata": {"netbox_device_id": "1"},
            "sync_meta": {"sync_service_id": instance}});
        serde_json::to_vec(&[item]).unwrap()
    }

    #[tokio::test]
    async fn an_instance_is_known_once_it_is_durable_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::default();
        let ended = Ledger::open(dir.path());
        let appender = ended.appender();
        ended.stop().await;
        let said = payload("dc1");
        let refused = registry.announce(&appender, &origin("t"), &[&said]).await;
        assert_eq!(refused, Err(AppendError::Closed));
        assert!(!locked(&registry.instances).any("t", IdKind::NetBox));

        let ledger = Ledger::open(dir.path());
        for _ in 0..2 {
            registry.announce(&ledger.appender(), &origin("t"), &[&said]).await.unwrap();
        }
        ledger.stop().await;
        assert_eq!(durable(dir.path()), [("t".to_owned(), "dc1".to_owned(), true)]);
    }

    #[tokio::test]
    async fn one_of_a_kind_is_the_first_whoever_announces_beside_it_or_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let (registry, ledger) = (Registry::default(), Ledger::open(dir.path()));
        let names: Vec<String> = (0..20).map(|n| format!("i{n:02}")).collect();
        let appender = ledger.appender();
        for tenant in ["t", "u"] {
            let all = names.iter().enumerate().map(|(n, name)| {
                let said = registry.announce(&appender, &origin(tenant), &[&payload(name)]);
                async move {
                    // Every third has left before it is answered.
                    if n % 3 != 0 {
                        said.await.unwrap();
                    }
                }
            });
            futures::future::join_all(all).await;
        }
        // What those left behind is durable once the others' turns are over.
        for tenant in ["t", "u"] {
            let all: Vec<Vec<u8>> = names.iter().map(|name| payload(name)).collect();
            let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
            registry.announce(&appender, &origin(tenant), &all).await.unwrap();
        }
        ledger.stop().await;
        let found = durable(dir.path());
        for tenant in ["t", "u"] {
            let of = |first: bool| found.iter().filter(|(t, _, legacy)| t == tenant && (*legacy || !first)).count();
            assert_eq!((of(false), of(true)), (20, 1), "{found:?}");
        }
    }

    #[test]
    fn conditions_of_tenants_are_apart() {
        let registry = Registry::default();
        let condition = |tenant: &str, holds| {
            Fact::Condition(OwnCondition {
                tenant: tenant.into(),
                rule: pull::FAILED.into(),
                entity: "netbox/main".into(),
                severity: "warning".into(),
                title: String::new(),
                description: String::new(),
                holds,
            })
        };
        registry.learn(&[condition("t", true), condition("u", true), condition("t", false)]);
        let left = registry.orphans(&Config::default());
        assert!(matches!(&left[..], [Fact::Condition(c)] if c.tenant == "u" && !c.holds), "{left:?}");
    }
}
