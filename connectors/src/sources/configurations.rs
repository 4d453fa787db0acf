//! What agents are told to do, as the gateway hands it out: the newest that the dataflow said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use radarflow_proto::grpc::AgentConfigResponse;
use radarflow_proto::ports::AgentConfiguration;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// Seconds between heartbeats that agents are asked for.
pub const HEARTBEAT_SEC: i32 = 30;
/// Seconds between two looks at the configuration.
const CONFIG_POLL_SEC: i32 = 300;

/// What agents are told, as the dataflow says: by tenant, agent and partition the newest. Whoever holds a control stream open
/// is woken when it changes.
#[derive(Default)]
pub struct Configurations {
    of: Mutex<BTreeMap<(String, String, String), Arc<Configuration>>>,
    changed: watch::Sender<u64>,
}

/// What an agent is told.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) version: String,
    pub(super) content: Arc<str>,
}

impl Configuration {
    pub(super) fn new(content: Arc<str>) -> Self {
        let version = format!("v{}", hex::encode(Sha256::digest(content.as_bytes())));
        Configuration { version, content }
    }

    pub(super) fn response(&self) -> AgentConfigResponse {
        AgentConfigResponse {
            config_version: self.version.clone(),
            config_timestamp: super::now_us() / 1_000_000,
            heartbeat_interval_sec: HEARTBEAT_SEC,
            config_poll_interval_sec: CONFIG_POLL_SEC,
            config_json: self.content.as_bytes().to_vec(),
            ..AgentConfigResponse::default()
        }
    }
}

impl Configurations {
    /// Takes in what an epoch says.
    pub fn learn(&self, changes: &[AgentConfiguration]) {
        if changes.is_empty() {
            return;
        }
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        for AgentConfiguration { tenant, partition, agent_id, content } in changes {
            let key = (tenant.clone(), agent_id.clone(), partition.clone());
            match content {
                Some(content) => drop(of.insert(key, Configuration::new(content.clone()).into())),
                None => drop(of.remove(&key)),
            }
        }
        drop(of);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Whoever waits for another is woken.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What an agent is told. Where nobody says its partition it is the one there is; of several nobody knows which.
    pub(super) fn of(&self, tenant: &str, partition: Option<&str>, agent_id: &str) -> Option<Arc<Configuration>> {
        let agent_id = called(agent_id);
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let all = of.range((tenant.to_owned(), agent_id.to_owned(), String::new())..);
        let own = all.take_while(|((t, a, _), _)| t == tenant && a == agent_id);
        let mut own = own.filter(|((.., p), _)| partition.is_none_or(|partition| p == partition));
        match (own.next(), own.next()) {
            (Some((_, found)), None) => Some(found.clone()),
            (Some(_), Some(_)) => None,
            (None, _) => Some(Configuration::new(NOTHING.into()).into()),
        }
    }
}

/// The partitions that agents said last they are of: a GetConfig names none. Bounded; of whom it is not known, and who is in
/// several, is told that nothing has changed.
#[derive(Default)]
pub(super) struct Partitions(Mutex<BTreeMap<String, String>>);

/// Agents whose partition is remembered.
const MAX_PARTITIONS: usize = 10_000;

impl Partitions {
    pub(super) fn say(&self, agent_id: &str, partition: &str) {
        let partition = if partition.trim().is_empty() { "default" } else { partition.trim() };
        let mut of = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if of.len() >= MAX_PARTITIONS && !of.contains_key(called(agent_id)) {
            of.pop_first();
        }
        of.insert(called(agent_id).to_owned(), partition.to_owned());
    }

    pub(super) fn of(&self, agent_id: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(called(agent_id)).cloned()
    }
}

/// What an agent is told of which nothing is known yet.
pub(super) const NOTHING: &str = r#"{"heartbeat_interval_sec":30}"#;

/// An agent's id as rows have it.
pub(super) fn called(agent_id: &str) -> &str {
    let mut id = agent_id.trim();
    while id.starts_with("agent-agent-") {
        id = &id["agent-".len()..];
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_what_is_theirs() {
        let told = Configurations::default();
        let change = |tenant: &str, partition: &str, content: Option<&str>| AgentConfiguration {
            tenant: tenant.to_owned(),
            partition: partition.to_owned(),
            agent_id: "agent-1".to_owned(),
            content: content.map(Arc::from),
        };
        let known = |tenant, partition| told.of(tenant, partition, " agent-agent-1");
        let of = |tenant, partition| known(tenant, partition).unwrap().content.to_string();
        assert_eq!(of("t", None), NOTHING);
        told.learn(&[change("t", "dc1", Some("one")), change("u", "dc1", Some("theirs"))]);
        assert_eq!((of("t", None).as_str(), of("t", Some("dc1")).as_str()), ("one", "one"));
        assert_eq!((of("u", None).as_str(), of("t", Some("dc2")).as_str()), ("theirs", NOTHING));
        // Of two that are called the same nobody is told what is the other's, nor that there is nothing to do.
        told.learn(&[change("t", "dc2", Some("two"))]);
        assert!(known("t", None).is_none());
        assert_eq!((of("t", Some("dc1")).as_str(), of("t", Some("dc2")).as_str()), ("one", "two"));
        let partitions = Partitions::default();
        partitions.say("agent-1", " dc2 ");
        assert_eq!(partitions.of(" agent-agent-1").as_deref(), Some("dc2"));
        partitions.say("agent-1", "");
        assert_eq!(partitions.of("agent-1").as_deref(), Some("default"));
        told.learn(&[change("t", "dc1", None)]);
        assert_eq!((of("t", None).as_str(), of("t", Some("dc1")).as_str()), ("two", NOTHING));
    }
}
