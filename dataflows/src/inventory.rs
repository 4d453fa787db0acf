//! Devices: one row a component, from its records, its name, its addresses and what its vantages say.
//!
//! ```text
//! device(c) :- fold of { uid(c), record(c, r)*, owned(c, ip)*, seen(owner(ip) = c, vantage, word)*, life(c)? }
//! ```
//! A device without records is none. Two parts of one epoch give one change of the row, because they meet in one
//! reduction.

use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::record::Record;
use radarflow_reconcile::availability::{Word, combine};
use radarflow_reconcile::identity::assertions::{Scope, ip_name};
use radarflow_reconcile::inventory::{MAX_DESCRIBING, Parts, RecordSummary, confidence, describe};
use radarflow_reconcile::lifecycle::Life;
use serde::{Deserialize, Serialize};

use crate::enrich::{Devices, Packed};
use crate::health::Seen;
use crate::identity::{Component, Identity, Rel};
use crate::keyed::encode;
use crate::layout::{Arrangement, Batcher, Builder};
use crate::records::{Live, Name};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Part {
    Uid(Arc<str>),
    Record(Live),
    Owned(IpAddr),
    Seen(String, Word),
    Life(Arc<Life>),
}

/// Names the address that was looked at.
fn address(seen: &Seen) -> Name {
    ip_name(Scope::of(&seen.target.tenant, &seen.target.partition).name, seen.target.ip)
}

/// Builds the relation, as records describe devices; what rules add is [`crate::enrich`]'s.
pub fn devices<'scope>(
    identity: &Identity<'scope>,
    seen: &Rel<'scope, Seen>,
    lives: Rel<'scope, (Component, Arc<Life>)>,
) -> Devices<'scope> {
    let by_target = seen.clone().map(|s| (address(&s), Part::Seen(s.vantage, s.word)));
    let vantages = identity.owners.told(by_target);
    let parts = identity
        .members
        .clone()
        .map(|(c, v)| (c, Part::Record(v)))
        .concat(identity.uids.clone().map(|(c, uid)| (c, Part::Uid(uid))))
        .concat(identity.owned.clone().map(|(c, ip)| (c, Part::Owned(ip))))
        .concat(vantages)
        .concat(lives.map(|(c, life)| (c, Part::Life(life))));
    let parts = parts.arrange_named::<_, Arrangement<_, _>>("Parts", Batcher::new);
    let device = |_: &Component, parts: &[(&Part, isize)], out: &mut Vec<(Packed, isize)>| {
        let mut lives: Vec<&Live> =
            parts.iter().filter_map(|(p, _)| if let Part::Record(v) = p { Some(v) } else { None }).collect();
        let mut known = RecordSummary::default();
        for says in lives.iter().map(|live| &live.says) {
            known.add(says.kind, says.at, !says.ids.is_empty() || !says.macs.is_empty());
        }
        if lives.len() > MAX_DESCRIBING {
            let rank = |live: &Live| std::cmp::Reverse((confidence(live.says.kind), live.says.at, live.key));
            lives.select_nth_unstable_by_key(MAX_DESCRIBING, |live| rank(live));
            lives.truncate(MAX_DESCRIBING);
        }
        let records: Vec<Record> = lives.into_iter().map(|live| live.record()).collect();
        let mut row = Parts { records: records.iter().collect(), known, ..Parts::default() };
        let mut words: Vec<(&str, &Word)> = Vec::new();
        for (part, _) in parts {
            match part {
                Part::Uid(uid) => row.uid = uid,
                Part::Record(_) => {}
                Part::Life(life) => row.life = (**life).clone(),
                Part::Owned(ip) => {
                    row.owned.insert(*ip);
                }
                Part::Seen(vantage, word) => words.push((vantage, word)),
            }
        }
        if !words.is_empty() {
            row.availability = Some(combine(words));
        }
        if let Some(described) = describe(&row).filter(|_| !row.uid.is_empty()) {
            out.push((Packed::from(encode(&described)), 1));
        }
    };
    parts.reduce_abelian::<_, Builder<_, _>, Arrangement<_, _>, _, _>("Device", device, |rows, c, changes| {
        rows.clear();
        rows.extend(changes.drain(..).map(|(row, epoch, diff)| ((*c, row), epoch, diff)));
    })
}
