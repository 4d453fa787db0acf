//! Names of devices. For one identifier the uid is a hash, so that installations that named their devices this way
//! before keep every name.

use std::net::IpAddr;

use radarflow_proto::record::{IdKind, Identifier, RecordKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What identity computes with in place of strings: the first sixteen bytes of a SHA-256. Long enough that nobody
/// finds two alike, short enough to join by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name([u64; 2]);

impl Name {
    /// Some of its bits, for what needs fewer.
    pub fn short(self) -> u64 {
        self.0[1]
    }
}

/// The name of bytes.
pub fn name_of_bytes(bytes: &[u8]) -> Name {
    let digest = Sha256::digest(bytes);
    let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| digest[at + i]));
    Name([word(0), word(8)])
}

/// The name of anything that encodes.
pub fn name<T: Serialize>(value: &T) -> Name {
    name_of_bytes(&postcard::to_stdvec(value).expect("what is named is plain data"))
}

/// The uid that a seed gives in a partition: `sr:` and the first sixteen bytes of a SHA-256 as a version 4 UUID.
pub fn uid(partition: &str, seed: &str) -> String {
    let digest = Sha256::new()
        .chain_update("serviceradar-device-v3:partition:")
        .chain_update(partition)
        .chain_update(":")
        .chain_update(seed)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    format!("sr:{}", uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// The seed of an identifier: bare for agents, MACs, addresses and the legacy instance of a kind, else with its
/// namespace.
pub fn seed(id: &Identifier) -> String {
    if id.namespace.is_empty() || id.kind == IdKind::Agent {
        format!("{}:{}", id.kind.name(), id.value)
    } else {
        format!("{}@{}:{}", id.kind.name(), id.namespace, id.value)
    }
}

/// The uid an identifier bears in a partition.
pub fn identifier_uid(partition: &str, id: &Identifier) -> String {
    uid(partition, &seed(id))
}

/// The uid an address bears in a partition.
pub fn ip_uid(partition: &str, ip: IpAddr) -> String {
    uid(partition, &format!("ip:{ip}"))
}

/// The uid of a device that has no identifier at all.
pub fn record_uid(partition: &str, key: &RecordKey) -> String {
    uid(partition, &format!("record:{}/{}/{}", key.kind.name(), key.instance, key.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: IdKind, namespace: &str, value: &str) -> Identifier {
        Identifier { kind, namespace: namespace.into(), value: value.into() }
    }

    #[test]
    fn golden_vectors() {
        let check = |partition, kind, value, expected| {
            assert_eq!(identifier_uid(partition, &id(kind, "", value)), expected);
        };
        check("default", IdKind::Armis, "armis-123", "sr:14f9ca79-be46-436f-b6b5-9a83ca66a350");
        check("default", IdKind::Mac, "AABBCCDDEEFF", "sr:ab8a9d4e-a00e-4973-9965-0b3eacb158f8");
        check("default", IdKind::Agent, "k8s-agent", "sr:a7ccecf5-25f2-4365-a019-96f9138e65ce");
        check("default", IdKind::Ip, "10.0.0.5", "sr:c4c648c4-c5ad-44bd-ba44-68f98c0544ca");
        check("tenant-b", IdKind::Ip, "10.0.0.5", "sr:2ff69c5b-0703-4a6f-af04-017887437c45");
        assert_eq!(ip_uid("default", "10.0.0.5".parse().unwrap()), "sr:c4c648c4-c5ad-44bd-ba44-68f98c0544ca");
    }

    #[test]
    fn two_instances_are_two_namespaces() {
        let names: Vec<_> = ["", "b", "c"].map(|n| identifier_uid("default", &id(IdKind::Armis, n, "42"))).into();
        assert!(names[0] != names[1] && names[1] != names[2]);
    }
}
