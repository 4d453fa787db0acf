//! Stage 1: devices by strong identifiers and operators' links.
//!
//! ```text
//! edge(t, i)      :- a live record that belongs by t asserts strong i ≠ t
//! ambiguous(i)    :- i and its neighbours by edge include two values of one namespace of different must
//! clean(a, b)     :- edge(a, b), neither ambiguous
//! label(i)        :- least identifier in i's component of clean ∪ must-links
//! contested(l)    :- two values of one namespace of different must, or both ends of a cannot-link
//! place(i)        :- label(i), unless contested(label(i)): then must(i)
//! member(r)       :- place(top(r)), else top(r)
//! ```
//! `must` is that of [`super::links`]. Only identifiers that some record or operator joins to another enter the graph.
//! Most records assert one strong identifier and never do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_reconcile::identity::assertions::Id;
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};

use super::links::{Links, both_ends};
use super::relations::{Rel, Value, components, distinct, each, join, lookup, reduce};
use super::{Component, Unresolved};

/// An identifier in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Vertex {
    id: Id,
    /// The least identifier must-links connect it to; itself without any.
    must: Name,
    /// Whether it is in a must-link.
    linked: bool,
}

/// Two identifiers that are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Edge(Vertex, Vertex);

impl Edge {
    /// Names of its ends.
    pub(super) fn ends(&self) -> [Name; 2] {
        [self.0.id.name, self.1.id.name]
    }

    /// Whether must-links connect its ends.
    pub(super) fn must(&self) -> bool {
        self.0.must == self.1.must
    }
}

/// Two values of one namespace that must-links do not connect.
fn collides<'a>(vertices: impl Iterator<Item = &'a Vertex>) -> bool {
    let mut seen: BTreeMap<Name, Name> = BTreeMap::new();
    vertices.into_iter().any(|v| *seen.entry(v.id.namespace).or_insert(v.must) != v.must)
}

/// Where an identifier of the graph ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Place {
    /// The component that holds it.
    pub(super) component: Component,
    /// The namespaces of which the component holds a value.
    pub(super) spaces: Arc<[Name]>,
    /// Its component was contested: it is held only as somebody's own, or by must-links.
    contested: bool,
    /// Whether it is in a must-link.
    pub(super) linked: bool,
    /// Whether anything that the component holds is.
    operated: bool,
}

/// What stage 1 gives.
pub(super) struct Anchors<'scope> {
    /// By component: records with a strong identifier ([`Value::Live`], [`Value::Placed`]).
    pub(super) members: Rel<'scope>,
    /// By component: the strong identifiers it holds ([`Value::Seen`]).
    pub(super) held: Rel<'scope>,
    /// Strong identifiers that name nobody, and why ([`Value::Loose`]).
    pub(super) loose: Rel<'scope>,
    /// By identifier that is linked to others: where it ended ([`Value::Place`]).
    pub(super) places: Rel<'scope>,
    /// Components with must-links that have records ([`Value::There`]).
    pub(super) peopled: Rel<'scope>,
}

/// Edges of identifiers ([`Value::Edge`]) with what must-links say of their ends.
pub(super) fn with_musts<'scope>(edges: &Rel<'scope>, must: &Rel<'scope>) -> Rel<'scope> {
    let place = |v: &Vertex, must: Option<&Value>| match must {
        Some(Value::Name(must)) => Vertex { must: *must, linked: true, ..*v },
        _ => *v,
    };
    let left = lookup(edges, must, move |_, edge, must| match edge {
        Value::Edge(e) => Some((e.1.id.name, Value::Edge(Edge(place(&e.0, must), e.1).into()))),
        _ => None,
    });
    lookup(&left, must, move |_, edge, must| match edge {
        Value::Edge(e) => Some((e.0.id.name, Value::Edge(Edge(e.0, place(&e.1, must)).into()))),
        _ => None,
    })
}

/// Two identifiers that somebody links.
pub(super) fn edge(a: Id, b: Id) -> (Name, Value) {
    let vertex = |id: Id| Vertex { id, must: id.name, linked: false };
    (a.name, Value::Edge(Edge(vertex(a), vertex(b)).into()))
}

/// Stage 1. `versions` are records, `seen` strong identifiers.
pub(super) fn anchors<'scope>(versions: &Rel<'scope>, seen: &Rel<'scope>, links: &Links<'scope>) -> Anchors<'scope> {
    let must = &links.least;
    let asserted = each(versions, |_, v, out| {
        if let Value::Live(v) = v {
            let ids = &v.says.ids;
            out.extend(ids.iter().skip(1).map(|other| edge(ids[0], *other)));
        }
    });
    let both_ways = each(&with_musts(&asserted, must), |_, e, out| {
        if let Value::Edge(e) = e {
            let Edge(a, b) = *e;
            out.extend([(a.id.name, Value::Edge(e)), (b.id.name, Value::Edge(Edge(b, a).into()))]);
        }
    });
    let cleaned = reduce(&both_ways, "Ambiguous", |_, edges, out| {
        let edges = || edges.iter().filter_map(|(e, _)| if let Value::Edge(e) = e { Some(e) } else { None });
        if !collides(edges().flat_map(|e| [&e.0, &e.1])) {
            out.extend(edges().cloned().map(Value::Edge));
        }
    });
    // A link is clean when both of its ends say so.
    let ends = each(&cleaned, |_, e, out| {
        if let Value::Edge(e) = e {
            let e = if e.0 < e.1 { e } else { Edge(e.1, e.0).into() };
            out.push((e.0.id.name, Value::Edge(e)));
        }
    });
    let clean = reduce(&ends, "Clean", |_, edges, out| {
        out.extend(edges.iter().filter(|(_, ends)| *ends == 2).map(|(e, _)| (*e).clone()));
    });
    let graph = clean.concat(&with_musts(&links.must, must));
    let labels = components(&each(&graph, |a, e, out| {
        if let Value::Edge(e) = e {
            out.push((a, Value::Name(e.1.id.name)));
        }
    }));
    let vertices = each(&graph, |_, e, out| {
        if let Value::Edge(e) = e {
            out.extend([e.0, e.1].map(|v| (v.id.name, Value::Vertex(v.into()))));
        }
    });
    let labelled = |what: &Value, label: &Value| match label {
        Value::Name(label) => Some((*label, what.clone())),
        _ => None,
    };
    let nodes = join(&distinct(&vertices), &labels, move |_, v, label| labelled(v, label));
    let ends = each(&links.ends, |id, v, out| {
        if let Value::End(token) = v {
            out.push((id, Value::EndOf(id, token)));
        }
    });
    let ends = join(&ends, &labels, move |_, end, label| labelled(end, label));
    let places = reduce(&nodes.concat(&ends), "Contested", |label, nodes, out| {
        let vertices = || nodes.iter().filter_map(|(n, _)| if let Value::Vertex(v) = n { Some(&**v) } else { None });
        let ends =
            nodes.iter().filter_map(|(n, _)| if let Value::EndOf(id, token) = n { Some((*id, *token)) } else { None });
        let contested = collides(vertices()) || both_ends(ends);
        // A contested component falls apart into what must-links alone connect.
        let part = |v: &Vertex| if contested { v.must } else { label };
        let mut parts: BTreeMap<Component, (BTreeSet<Name>, bool)> = BTreeMap::new();
        for v in vertices() {
            let (spaces, operated) = parts.entry(part(v)).or_default();
            spaces.insert(v.id.namespace);
            *operated |= v.linked;
        }
        let parts: BTreeMap<Component, (Arc<[Name]>, bool)> = parts
            .into_iter()
            .map(|(part, (spaces, operated))| (part, (spaces.into_iter().collect(), operated)))
            .collect();
        for v in vertices() {
            let component = part(v);
            let (spaces, operated) = parts[&component].clone();
            let place = Place { component, spaces, contested, linked: v.linked, operated };
            out.push(Value::PlaceOf(v.id.name, place.into()));
        }
    });
    let places = each(&places, |_, v, out| {
        if let Value::PlaceOf(id, place) = v {
            out.push((id, Value::Place(place)));
        }
    });

    let tops = each(versions, |_, v, out| {
        if let Value::Live(v) = v {
            out.extend(v.says.top().map(|top| (top.name, Value::Live(v))));
        }
    });
    let is_top = each(&tops, |id, _, out| out.push((id, Value::There)));
    let told = seen.concat(&is_top).concat(&places);
    let told = reduce(&told, "Held", |id, told, out| {
        let seen = told.iter().find_map(|(t, _)| if let Value::Seen(seen) = t { Some(seen) } else { None });
        let place = told.iter().find_map(|(t, _)| if let Value::Place(place) = t { Some(place) } else { None });
        let has = |what: Value| told.iter().any(|(t, _)| **t == what);
        let Some(seen) = seen.cloned() else { return };
        out.push(match place {
            Some(place) if place.linked && !has(Value::There) => Value::HeldIf(place.component, seen),
            Some(place) if !place.contested || has(Value::There) => Value::HeldBy(place.component, seen),
            Some(_) => Value::Loose(Unresolved::Contested, seen),
            None if has(Value::There) => Value::HeldBy(id, seen),
            // Asserted by somebody, but what asserts it is ambiguous, if it is not itself.
            None if seen.last_record.is_none() => Value::Loose(Unresolved::Ambiguous, seen),
            None => Value::Loose(Unresolved::Gone, seen),
        });
    });
    let held = each(&told, |_, v, out| {
        if let Value::HeldBy(component, seen) = v {
            out.push((component, Value::Seen(seen)));
        }
    });
    let held_if = each(&told, |_, v, out| {
        if let Value::HeldIf(component, seen) = v {
            out.push((component, Value::Seen(seen)));
        }
    });
    let loose = each(&told, |id, v, out| {
        if let Value::Loose(..) = v {
            out.push((id, v));
        }
    });
    let members = lookup(&tops, &places, |id, live, place| match (live, place) {
        (Value::Live(live), Some(Value::Place(place))) => {
            Some((place.component, Value::Placed(live.clone(), place.clone())))
        }
        (live, _) => Some((id, live.clone())),
    });
    // What operators link to nobody who is there, nobody holds.
    let peopled = distinct(&each(&members, |component, v, out| {
        if let Value::Placed(_, place) = v
            && place.operated
        {
            out.push((component, Value::There));
        }
    }));
    let held_too = join(&held_if, &peopled, |component, seen, _| Some((component, seen.clone())));
    let idle = lookup(&held_if, &peopled, |_, seen, peopled| match (seen, peopled) {
        (Value::Seen(seen), None) => {
            let unresolved = if seen.last_record.is_some() { Unresolved::Gone } else { Unresolved::Ambiguous };
            Some((seen.name, Value::Loose(unresolved, seen.clone())))
        }
        _ => None,
    });
    Anchors { members, held: held.concat(&held_too), loose: loose.concat(&idle), places, peopled }
}
