//! Which records are one device, who owns an address, and what a device is called: section 2 of the identity
//! definition, as relations.
//!
//! ```text
//! anchors    edge(t, i)      :- a live record with top t asserts strong i ≠ t
//!            ambiguous(i)    :- i and its neighbours include two values of one namespace
//!            clean(a, b)     :- edge(a, b), neither ambiguous
//!            label(i)        :- least name in i's component of clean                      (the only loop)
//!            contested(c)    :- a component with two values of one namespace
//!            component(i)    :- label(i) unless contested(label(i)), else i alone
//! names      best(c)         :- least (first seen, priority, namespace, value) among what c holds
//! ownership  owner(ip)       :- greatest (class, event time, uid) of the claims of anchored devices;
//!                               else the device that the IP-only records of ip are; none where > 16 claim it
//! members    device(r)       :- component(top(r)) | owner(address(r)) | ip | r itself
//! ```
//! Invariants: nothing crosses a (tenant, partition), because every name is a hash that begins with them; no device
//! holds two values of a namespace; every live record is in exactly one device; each relation is a function of the live
//! records and first-seen alone, so order, batching and worker count cannot matter.
//!
//! Only identifiers that some record joins to another enter the loop. Most records assert one strong identifier and
//! never do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::operators::Iterate;
use radarflow_proto::cell::Time;
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_proto::rows::{DeviceIdentifier, DeviceRedirect, IpOwnership, StateRow};
use radarflow_reconcile::identity::name::{identifier_uid, ip_uid, record_uid, seed};
use radarflow_reconcile::identity::{ClaimClass, MAX_CLAIMANTS, address};
use serde::{Deserialize, Serialize};

use crate::records::{Live, Name128, ScopedId, Seen, name128, top};

/// A collection over epochs.
pub type Rel<'scope, D> = VecCollection<'scope, u64, D, isize>;

/// Names a device while the dataflow computes: its component's least identifier, its address, or its record.
pub type Component = Name128;

/// An identifier as the loop sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Vertex {
    id: Name128,
    namespace: Name128,
}

fn vertex(id: &ScopedId) -> Vertex {
    let namespace = name128(&(&id.tenant, &id.partition, id.id.kind, &id.id.namespace));
    Vertex { id: name128(id), namespace }
}

fn scoped(version: &Live, id: &Identifier) -> ScopedId {
    ScopedId { tenant: version.record.key.tenant.clone(), partition: version.record.partition.clone(), id: id.clone() }
}

fn strong(version: &Live) -> impl Iterator<Item = ScopedId> + '_ {
    version.record.ids.iter().filter(|id| id.kind.is_strong()).map(|id| scoped(version, id))
}

/// An address in its tenant and partition.
pub fn ip_name(tenant: &str, partition: &str, ip: IpAddr) -> Name128 {
    name128(&(tenant, partition, "ip", ip))
}

/// Two values of one namespace.
fn collides<'a>(vertices: impl Iterator<Item = &'a Vertex>) -> bool {
    let mut seen: BTreeMap<Name128, Name128> = BTreeMap::new();
    vertices.into_iter().any(|v| *seen.entry(v.namespace).or_insert(v.id) != v.id)
}

/// What the stages give.
pub struct Identity<'scope> {
    /// Which records make which device.
    pub members: Rel<'scope, (Component, Live)>,
    /// What devices are called.
    pub uids: Rel<'scope, (Component, Arc<str>)>,
    /// Who owns which address.
    pub owned: Rel<'scope, (Component, IpAddr)>,
    /// Who owns an address, by its name.
    pub owners: Rel<'scope, (Name128, Component)>,
    /// Rows of `identities`, `device_redirects` and `ip_ownership`.
    pub rows: Rel<'scope, StateRow>,
    /// (tenant, partition, address) to owner, for attribution.
    pub attribution: Rel<'scope, ((String, String, IpAddr), Arc<str>)>,
}

/// How a strong identifier stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Standing {
    Ambiguous,
    Contested,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Claim {
    /// An anchored device claims the address.
    Anchored { class: ClaimClass, at: Time, uid: Arc<str>, component: Component },
    /// A record that is known by the address alone.
    IpOnly(Live),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Decision {
    /// It belongs to a device.
    Owner { component: Component, uid: Arc<str>, class: ClaimClass, since: Time },
    /// Too many claim it.
    Shared,
    /// The record belongs to the device.
    Attach(Live, Component, Arc<str>),
}

/// Names the address of a claim for rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Address {
    tenant: String,
    partition: String,
    ip: IpAddr,
}

impl Address {
    fn of(version: &Live, ip: IpAddr) -> Self {
        Address { tenant: version.record.key.tenant.clone(), partition: version.record.partition.clone(), ip }
    }
}

/// Builds the relations over live versions and what is remembered of identifiers.
pub fn identity<'scope>(versions: &Rel<'scope, Live>, seen: &Rel<'scope, Seen>) -> Identity<'scope> {
    let anchors = anchors(versions);
    let named = names(versions, seen, &anchors);
    let ownership = ownership(versions, &anchors, &named);

    let records_alone =
        versions.clone().flat_map(|v| (v.record.ids.is_empty() && address(&v.record).is_none()).then(|| (v.key, v)));
    let members = anchors.members.clone().concat(ownership.attached.clone()).concat(records_alone.clone());
    let uids = named
        .uids
        .clone()
        .concat(ownership.uids.clone())
        .concat(records_alone.map(|(c, v)| (c, Arc::from(record_uid(&v.record.partition, &v.record.key)))));

    let held_rows = named.held.clone().join_map(uids.clone(), |_, (seen, info), uid| {
        let mut row = identifier_row(info, "held");
        row.device_uid = Some(uid.to_string());
        row.first_seen = Some(*seen);
        StateRow::DeviceIdentifier(row)
    });
    let other_rows = anchors.standing.clone().join_map(named.infos.clone(), |_, standing, info| {
        StateRow::DeviceIdentifier(identifier_row(
            info,
            match standing {
                Standing::Ambiguous => "ambiguous",
                Standing::Contested => "contested",
            },
        ))
    });
    // Where a contested or ambiguous identifier is somebody's top, it is held as well; one row says so.
    let other_rows = other_rows.concat(
        anchors
            .standing
            .clone()
            .map(|(id, _)| (id, ()))
            .join_map(anchors.tops.clone().map(|id| (id, ())), |id, (), ()| (*id, ()))
            .join_map(anchors.standing.clone(), |id, (), standing| (*id, *standing))
            .join_map(named.infos.clone(), |_, standing, info| {
                StateRow::DeviceIdentifier(identifier_row(
                    info,
                    match standing {
                        Standing::Ambiguous => "ambiguous",
                        Standing::Contested => "contested",
                    },
                ))
            })
            .negate(),
    );
    let redirects_held = named.held.clone().join_map(uids.clone(), |_, (_, info), uid| (info.clone(), uid.clone()));
    let member_of = members.clone().map(|(c, v)| (v.key, c));
    let redirects_gone = seen
        .clone()
        .flat_map(|s| s.last_record.map(|record| (record, Arc::new(s.id))))
        .join_map(member_of, |_, id, component| (*component, id.clone()))
        .join_map(uids.clone(), |_, id, uid| (id.clone(), uid.clone()));
    let redirect_rows = redirects_held.concat(redirects_gone).flat_map(|(id, uid)| {
        let from_uid = identifier_uid(&id.partition, &id.id);
        (*from_uid != *uid).then(|| {
            StateRow::DeviceRedirect(DeviceRedirect {
                tenant_id: id.tenant.clone(),
                partition: id.partition.clone(),
                from_uid,
                to_uid: uid.to_string(),
                identifier: seed(&id.id),
                epoch: 0,
            })
        })
    });
    let rows = held_rows
        .concat(other_rows)
        .concat(redirect_rows)
        .concat(ownership.redirects.clone())
        .concat(ownership.rows.clone());
    Identity {
        members,
        uids,
        owned: ownership.owned,
        owners: ownership.owners,
        rows,
        attribution: ownership.attribution,
    }
}

fn identifier_row(id: &ScopedId, state: &str) -> DeviceIdentifier {
    DeviceIdentifier {
        tenant_id: id.tenant.clone(),
        partition: id.partition.clone(),
        identifier_type: id.id.kind.name().to_owned(),
        source_instance: id.id.namespace.clone(),
        identifier_value: id.id.value.clone(),
        state: state.to_owned(),
        device_uid: None,
        first_seen: None,
        epoch: 0,
    }
}

struct Anchors<'scope> {
    /// Records with a strong identifier, and their component.
    members: Rel<'scope, (Component, Live)>,
    /// Identifiers and the component that holds them.
    held: Rel<'scope, (Name128, Component)>,
    /// Identifiers that link nothing.
    standing: Rel<'scope, (Name128, Standing)>,
    /// Identifiers that are some record's top.
    tops: Rel<'scope, Name128>,
}

/// Stage 1.
fn anchors<'scope>(versions: &Rel<'scope, Live>) -> Anchors<'scope> {
    let tops = versions.clone().flat_map(|v| top(&v).map(|t| (name128(&t), v)));
    let edges = versions
        .clone()
        .flat_map(|v| {
            let mut out = Vec::new();
            if v.record.ids.len() > 1
                && let Some(top) = top(&v).map(|t| vertex(&t))
            {
                out.extend(strong(&v).map(|id| vertex(&id)).filter(|o| *o != top).map(|o| (top, o)));
            }
            out
        })
        .distinct();
    let both_ways = edges.clone().concat(edges.clone().map(|(a, b)| (b, a)));
    let ambiguous = both_ways
        .clone()
        .reduce_named("Ambiguous", |v, neighbours, out| {
            if collides(std::iter::once(v).chain(neighbours.iter().map(|(n, _)| *n))) {
                out.push(((), 1));
            }
        })
        .map(|(v, ())| v);
    // All links at an ambiguous identifier are dropped, whichever end it is.
    let clean = edges
        .clone()
        .antijoin(ambiguous.clone())
        .map(|(a, b)| (b, a))
        .antijoin(ambiguous.clone())
        .flat_map(|(b, a)| [(a, b), (b, a)]);
    let labels = label(&clean);
    let contested = labels
        .clone()
        .map(|(v, label)| (label, v))
        .reduce_named("Contested", |_, vertices, out| {
            if collides(vertices.iter().map(|(v, _)| *v)) {
                out.push(((), 1));
            }
        })
        .map(|(label, ())| label);
    let by_label = labels.map(|(v, label)| (label, v.id));
    let joined = by_label.clone().antijoin(contested.clone()).map(|(label, id)| (id, label));
    let contested_ids = by_label.semijoin(contested).map(|(_, id)| id);

    let together = tops.clone().join_map(joined.clone(), |_, v, component| (*component, v.clone()));
    let apart = tops.clone().antijoin(joined.clone().map(|(id, _)| id));
    let top_ids = tops.map(|(id, _)| id).distinct();
    let alone = top_ids.clone().map(|id| (id, ())).antijoin(joined.clone().map(|(id, _)| id)).map(|(id, ())| (id, id));
    let standing =
        ambiguous.map(|v| (v.id, Standing::Ambiguous)).concat(contested_ids.map(|id| (id, Standing::Contested)));
    Anchors { members: together.concat(apart), held: joined.concat(alone), standing, tops: top_ids }
}

/// The least name each vertex reaches.
fn label<'scope>(edges: &Rel<'scope, (Vertex, Vertex)>) -> Rel<'scope, (Vertex, Component)> {
    let nodes = edges.clone().map(|(a, _)| (a, a.id)).distinct();
    nodes.clone().iterate(|scope, labels| {
        let edges = edges.clone().enter(scope);
        let nodes = nodes.enter(scope);
        labels
            .join_map(edges, |_, label, neighbour| (*neighbour, *label))
            .concat(nodes)
            .reduce_named("Label", |_, labels, out| out.push((*labels[0].0, 1)))
    })
}

struct Named<'scope> {
    /// What devices with strong identifiers are called.
    uids: Rel<'scope, (Component, Arc<str>)>,
    /// What a device holds, with first-seen.
    held: Rel<'scope, (Component, (Time, Arc<ScopedId>))>,
    /// Identifiers by name.
    infos: Rel<'scope, (Name128, Arc<ScopedId>)>,
}

/// Stage 4 for devices with strong identifiers.
fn names<'scope>(versions: &Rel<'scope, Live>, seen: &Rel<'scope, Seen>, anchors: &Anchors<'scope>) -> Named<'scope> {
    let infos =
        versions.clone().flat_map(|v| strong(&v).collect::<Vec<_>>()).map(|id| (name128(&id), Arc::new(id))).distinct();
    let first = seen.clone().map(|s| (name128(&s.id), (s.first, Arc::new(s.id))));
    let held = anchors.held.clone().join_map(first, |_, component, info| (*component, info.clone()));
    let uids = held.clone().reduce_named("Name", |_, held, out| {
        let best = held
            .iter()
            .map(|(h, _)| *h)
            .min_by_key(|(first, info)| (*first, info.id.kind, info.id.namespace.clone(), info.id.value.clone()));
        if let Some((_, info)) = best {
            out.push((Arc::from(identifier_uid(&info.partition, &info.id)), 1));
        }
    });
    Named { uids, held, infos }
}

struct Ownership<'scope> {
    attached: Rel<'scope, (Component, Live)>,
    uids: Rel<'scope, (Component, Arc<str>)>,
    owned: Rel<'scope, (Component, IpAddr)>,
    owners: Rel<'scope, (Name128, Component)>,
    rows: Rel<'scope, StateRow>,
    redirects: Rel<'scope, StateRow>,
    attribution: Rel<'scope, ((String, String, IpAddr), Arc<str>)>,
}

/// Stage 3.
fn ownership<'scope>(
    versions: &Rel<'scope, Live>,
    anchors: &Anchors<'scope>,
    named: &Named<'scope>,
) -> Ownership<'scope> {
    let anchored =
        anchors.members.clone().join_map(named.uids.clone(), |c, v, uid| (*c, v.clone(), uid.clone())).flat_map(
            |(component, v, uid)| {
                let class = ClaimClass::of(v.record.key.kind);
                let at = v.record.event_time;
                v.record
                    .ips
                    .iter()
                    .map(|ip| (Address::of(&v, *ip), Claim::Anchored { class, at, uid: uid.clone(), component }))
                    .collect::<Vec<_>>()
            },
        );
    let ip_only = versions.clone().flat_map(|v| {
        if !v.record.ids.is_empty() {
            return None;
        }
        address(&v.record).map(|ip| (Address::of(&v, ip), Claim::IpOnly(v)))
    });
    let decided = anchored.concat(ip_only).reduce_named("Ownership", |address, claims, out| {
        let claims: Vec<&Claim> = claims.iter().map(|(c, _)| *c).collect();
        out.extend(decide(address, &claims).into_iter().map(|d| (d, 1)));
    });
    let attached = decided.clone().flat_map(|(_, d)| match d {
        Decision::Attach(v, component, _) => Some((component, v)),
        _ => None,
    });
    let uids = decided
        .clone()
        .flat_map(|(address, d)| match d {
            Decision::Attach(_, component, uid)
                if component == ip_name(&address.tenant, &address.partition, address.ip) =>
            {
                Some((component, uid))
            }
            _ => None,
        })
        .distinct();
    let owners = decided.clone().flat_map(|(address, d)| match d {
        Decision::Owner { component, .. } => Some((address, component)),
        _ => None,
    });
    let owned = owners.clone().map(|(a, c)| (c, a.ip));
    let owners = owners.map(|(a, c)| (ip_name(&a.tenant, &a.partition, a.ip), c));
    let attribution = decided.clone().flat_map(|(a, d)| match d {
        Decision::Owner { uid, .. } => Some(((a.tenant, a.partition, a.ip), uid)),
        _ => None,
    });
    let redirects = decided
        .clone()
        .flat_map(|(a, d)| match d {
            Decision::Attach(_, component, uid) if component != ip_name(&a.tenant, &a.partition, a.ip) => {
                Some((a, uid))
            }
            _ => None,
        })
        .distinct()
        .map(|(a, uid)| {
            StateRow::DeviceRedirect(DeviceRedirect {
                from_uid: ip_uid(&a.partition, a.ip),
                to_uid: uid.to_string(),
                identifier: format!("{}:{}", IdKind::Ip.name(), a.ip),
                tenant_id: a.tenant,
                partition: a.partition,
                epoch: 0,
            })
        });
    let rows = decided.flat_map(|(a, d)| {
        let (device_uid, class, since) = match d {
            Decision::Owner { uid, class, since, .. } => (Some(uid.to_string()), class.name(), since),
            Decision::Shared => (None, "shared", Time::default()),
            Decision::Attach(..) => return None,
        };
        Some(StateRow::IpOwnership(IpOwnership {
            ip: a.ip.to_string(),
            ip_uid: ip_uid(&a.partition, a.ip),
            tenant_id: a.tenant,
            partition: a.partition,
            device_uid,
            class: class.to_owned(),
            valid_from: since,
            valid_to: None,
            epoch: 0,
        }))
    });
    Ownership { attached, uids, owned, owners, rows, redirects, attribution }
}

/// Who owns an address, and where the records known by it alone belong.
fn decide(address: &Address, claims: &[&Claim]) -> Vec<Decision> {
    let mut out = Vec::new();
    let strongest = claims
        .iter()
        .filter_map(|c| match c {
            Claim::Anchored { class, at, uid, component } => Some((*class, *at, uid, *component)),
            Claim::IpOnly(_) => None,
        })
        .max();
    let ip_only = || claims.iter().filter_map(|c| if let Claim::IpOnly(v) = c { Some(v) } else { None });
    let own_component = ip_name(&address.tenant, &address.partition, address.ip);
    let own_uid: Arc<str> = Arc::from(ip_uid(&address.partition, address.ip));
    let home = match strongest {
        Some((deciding, at, uid, component)) => {
            let mut claimants: Vec<Component> = claims
                .iter()
                .filter_map(|c| match c {
                    Claim::Anchored { class, component, .. } if *class == deciding => Some(*component),
                    _ => None,
                })
                .collect();
            claimants.sort_unstable();
            claimants.dedup();
            if claimants.len() > MAX_CLAIMANTS {
                out.push(Decision::Shared);
                (own_component, own_uid)
            } else {
                out.push(Decision::Owner { component, uid: uid.clone(), class: deciding, since: at });
                (component, uid.clone())
            }
        }
        None => {
            if let Some(v) = ip_only().max_by_key(|v| (ClaimClass::of(v.record.key.kind), v.record.event_time)) {
                let class = ClaimClass::of(v.record.key.kind);
                let since = v.record.event_time;
                out.push(Decision::Owner { component: own_component, uid: own_uid.clone(), class, since });
            }
            (own_component, own_uid)
        }
    };
    out.extend(ip_only().map(|v| Decision::Attach(v.clone(), home.0, home.1.clone())));
    out
}
