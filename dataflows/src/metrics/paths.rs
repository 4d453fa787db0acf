//! Paths to targets, and that they are others than before.
//!
//! A path is who answered, hop by hop. Where several routers share the load, a hop is all of them: it is the same as long as one of
//! them is. A hop that does not answer says nothing: routers answer as often as they like, so what was known of it stays. A trace that
//! comes late says nothing, and so does one that nobody answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{RowId, Tags, Time};
use radarflow_proto::rows::Event;
use serde::{Deserialize, Serialize};

use super::{Share, Target};
use crate::keyed::{Machine, Tick};
use crate::output::DerivedRow;
use crate::sizes::Sizes;

/// Paths of a share: 4,096 a tenant. Of one more no change is told, and it is metered as evicted.
pub const MAX_PATHS_OF_SHARE: usize = 64;
/// Hops of a path.
pub const MAX_HOPS: usize = 255;
/// Addresses of a path that are remembered; hops beyond are not compared.
const MAX_ADDRESSES: usize = 64;
/// Bytes that a share's paths take, about: addresses as text.
pub const MAX_BYTES_OF_SHARE: usize = MAX_PATHS_OF_SHARE * MAX_ADDRESSES * 320;
/// How long a path is remembered that is not traced, milliseconds of live time.
const FORGET_MS: i64 = 7 * 86_400_000;
/// OCSF: network activity.
const NETWORK_ACTIVITY: i64 = 4001;

/// A trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Walked {
    /// Of the way to which target.
    pub target: Target,
    /// When.
    pub at: Time,
    /// Names it.
    pub trace_id: String,
    /// Who answered, by the number of the hop.
    pub path: BTreeMap<u32, BTreeSet<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Path {
    heard_ms: i64,
    at: Time,
    hops: BTreeMap<u32, BTreeSet<String>>,
}

/// The paths of a share.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Known {
    paths: BTreeMap<Target, Path>,
}

/// Paths and their changes.
pub(super) struct Paths(pub(super) Arc<Sizes>);

/// The first hop at which others answered than before.
fn differs(path: &BTreeMap<u32, BTreeSet<String>>, before: &Path) -> Option<u32> {
    let other = |(n, hop): &(&u32, &BTreeSet<String>)| before.hops.get(n).is_some_and(|known| known.is_disjoint(hop));
    path.iter().find(other).map(|(n, _)| *n)
}

fn written(path: &BTreeMap<u32, BTreeSet<String>>) -> String {
    let hop = |hop: &BTreeSet<String>| hop.iter().map(String::as_str).collect::<Vec<_>>().join("|");
    path.values().map(hop).collect::<Vec<_>>().join(" ")
}

fn changed(tenant: &str, walked: &Walked, hop: u32, before: &Path) -> Event {
    let Walked { target, at, trace_id, path } = walked;
    let more = [
        ("agent_id", target.agent_id.clone()),
        ("target", target.name.clone()),
        ("trace_id", trace_id.clone()),
        ("path_before", written(&before.hops)),
        ("path", written(path)),
    ];
    Event {
        tenant_id: tenant.to_owned(),
        partition: target.partition.clone(),
        row_id: RowId::default(),
        epoch: 0,
        time: *at,
        class_uid: NETWORK_ACTIVITY,
        activity_name: "path_changed".to_owned(),
        severity_id: 1,
        message: format!("the path from {} to {} is another from its hop {hop} on", target.agent_id, target.name),
        entity_type: "path".to_owned(),
        entity_id: format!("{}/{}", target.agent_id, target.name),
        device_uid: None,
        attributes: Tags(more.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
    }
}

impl Machine for Paths {
    type Key = Share;
    type Event = Walked;
    type State = Known;
    type Output = DerivedRow;
    const NAME: &'static str = "paths";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Share,
        state: &mut Option<Known>,
        events: Vec<Walked>,
        out: &mut Vec<DerivedRow>,
    ) {
        let known = state.get_or_insert_default();
        for mut walked in events.into_iter().filter(|walked| !walked.path.is_empty()) {
            let mut addresses = 0;
            walked.path.retain(|_, hop| {
                addresses += hop.len();
                addresses <= MAX_ADDRESSES
            });
            match known.paths.get(&walked.target) {
                Some(before) if walked.at <= before.at => continue,
                Some(before) => match differs(&walked.path, before) {
                    Some(hop) => out.push(DerivedRow::from(changed(&key.tenant, &walked, hop, before))),
                    None => {
                        let silent = before.hops.iter().filter(|(n, _)| !walked.path.contains_key(n));
                        let silent: Vec<_> = silent.map(|(n, hop)| (*n, hop.clone())).collect();
                        walked.path.extend(silent);
                    }
                },
                None if known.paths.len() >= MAX_PATHS_OF_SHARE => {
                    self.0.evicted().fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                None => {}
            }
            let Walked { target, at, path, .. } = walked;
            known.paths.insert(target, Path { heard_ms: tick.live_ms, at, hops: path });
        }
        known.paths.retain(|_, path| tick.live_ms < path.heard_ms + FORGET_MS);
        if known.paths.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, state: &Known) -> Option<i64> {
        state.paths.values().map(|path| path.heard_ms + FORGET_MS).min()
    }

    fn restored(&mut self, _: &Share, _: &Known, _: &mut Vec<DerivedRow>) {}
}
