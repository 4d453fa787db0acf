//! What the stages are built of. Every relation of identity maps a name to a [`Value`], and there are five things to do
//! with one: [`each`], [`reduce`], [`join`], [`lookup`], [`components`].
//!
//! One type for all of them is a choice: each differential arrangement that is compiled for a type of its own costs
//! some hundred thousand instructions of machine code and seconds of compilation, and there are eighty of them here.

use std::cell::OnceCell;
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::operators::Iterate;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::{AsCollection, VecCollection};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::IpLink;
use radarflow_reconcile::identity::ClaimClass;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::lifecycle::Life;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use super::anchors::{Edge, Place, Vertex};
use super::cross::{Evidence, Met, Side};
use super::links::Token;
use super::macs::{State, Wants};
use super::ownership::{Decision, Spot};
use super::{How, Unresolved};
use crate::layout::{Arrangement, Batcher, Builder};
use crate::records::{FirstSeen, Live};
use crate::steps::AnchorSteps;

/// What a relation says of a name. Small ones stand here, rare ones behind a pointer: five words in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Value {
    /// That it is there.
    There,
    /// Another name.
    Name(Name),
    /// A tenant's policy.
    Policy(IpLink),
    /// A record.
    Live(Live),
    /// A record of a device, and why.
    Member(Live, How),
    /// A record of a component that is more than one identifier.
    Placed(Live, Arc<Place>),
    /// A record of the component named.
    Claimant(Name, Live, Option<Arc<Place>>),
    /// What is remembered of an identifier.
    Seen(Arc<FirstSeen>),
    /// The same, of one that names nobody.
    Loose(Unresolved, Arc<FirstSeen>),
    /// The same, of one held by the device named.
    HeldBy(Name, Arc<FirstSeen>),
    /// An edge of the graph of identifiers.
    Edge(Arc<Edge>),
    /// A vertex of it.
    Vertex(Arc<Vertex>),
    /// Where an identifier ended.
    Place(Arc<Place>),
    /// Where the identifier named ended.
    PlaceOf(Name, Arc<Place>),
    /// The same, if there is such a device.
    HeldIf(Name, Arc<FirstSeen>),
    /// One end of a cannot-link.
    End(Token),
    /// The same, held by the one named.
    EndOf(Name, Token),
    /// The other end of an edge, and whether there is no other.
    Half(Name, bool),
    /// Something that may make two things one.
    Evidence(Arc<Evidence>),
    /// A component and another that it may be one with.
    Partners(Arc<(Side, Side)>),
    /// A component with its namespaces.
    Side(Side),
    /// The record named second, of the component named first, asserts a MAC.
    Asserts(Name, Name),
    /// An operator says that the component named holds it.
    Must(Name),
    /// The same, of a component without records.
    MustIf(Name),
    /// An operator says that the component named does not.
    Barred(Name),
    /// How a MAC stands.
    State(State),
    /// A record without a strong identifier asserts a MAC, and who owns it.
    Says(Live, Option<Name>),
    /// What the MACs of such a record amount to.
    Wants(Arc<Wants>),
    /// It asserts the MAC named, owned by who is named second.
    Asserted(Name, Option<Arc<Name>>, Live),
    /// An anchored component claims an address of a group of such records.
    Met(Arc<Met>),
    /// The device named second claims the address named first.
    ClaimedBy(Name, Name),
    /// Where it ended.
    Settled(Name, How),
    /// A device claims an address: the nth of the record.
    Claim(ClaimClass, u16, Time, Name, Live),
    /// Records are known by an address alone.
    Alone(ClaimClass, Time, Arc<Scope>, Ipv6Addr),
    /// A confirmed alias.
    Alias(Time, Ipv6Addr),
    /// A device claims an address as an alias.
    AliasClaim(Time, Name, Arc<Spot>),
    /// Who owns an address.
    Decision(Arc<Decision>),
    /// One of several that claim it equally.
    Tied(Arc<Decision>),
    /// The same, with what the claimant is called.
    Named(Arc<(Arc<str>, Arc<Decision>)>),
    /// What a device is called.
    Uid(Arc<str>),
    /// A record, and what the device that it is in is called.
    PlacedIn(Live, How, Arc<str>),
    /// An identifier, and what the device that holds it is called.
    Called(Arc<FirstSeen>, Arc<str>),
    /// What operators said of an anchor.
    Life(Arc<AnchorSteps>),
    /// The same, of one held by the device named, with the newest deletion that was followed by a sighting.
    LifeOf(Name, Arc<AnchorSteps>, u64),
    /// A deletion: its anchor and epoch.
    Deleted(Name, u64),
    /// What all of it amounts to.
    Lived(Arc<Life>),
    /// A record of a device that was deleted then.
    Doomed(Time, Live),
}

const _: () = assert!(size_of::<Value>() <= 40, "a value is five words at most");

type Flow<'scope> = VecCollection<'scope, u64, (Name, Value), isize>;
type Index<'scope> = Arranged<'scope, Trace>;
/// What is arranged of a relation.
pub(super) type Trace = TraceAgent<Arrangement<Name, Value>>;

/// A relation, as a flow of changes, or arranged by name, or both. Whatever needs it arranged shares one arrangement.
#[derive(Clone)]
pub(super) struct Rel<'scope>(Rc<Shapes<'scope>>);

struct Shapes<'scope> {
    flow: OnceCell<Flow<'scope>>,
    index: OnceCell<Index<'scope>>,
}

impl<'scope> From<Flow<'scope>> for Rel<'scope> {
    fn from(flow: Flow<'scope>) -> Self {
        Rel(Rc::new(Shapes { flow: OnceCell::from(flow), index: OnceCell::new() }))
    }
}

impl<'scope> From<Index<'scope>> for Rel<'scope> {
    fn from(index: Index<'scope>) -> Self {
        Rel(Rc::new(Shapes { flow: OnceCell::new(), index: OnceCell::from(index) }))
    }
}

impl<'scope> Rel<'scope> {
    /// Its changes.
    pub(super) fn flow(&self) -> Flow<'scope> {
        let read = || {
            let index = self.0.index.get().expect("a relation has one shape at least");
            index.clone().as_collection(|name, value| (*name, value.clone()))
        };
        self.0.flow.get_or_init(read).clone()
    }

    /// Its arrangement.
    pub(super) fn index(&self) -> Index<'scope> {
        self.0.index.get_or_init(|| self.flow().arrange_named("Index", Batcher::new)).clone()
    }

    /// Its arrangement, to be read between epochs.
    pub(super) fn trace(&self) -> Trace {
        self.index().trace
    }

    /// The rows of both.
    pub(super) fn concat(&self, other: &Rel<'scope>) -> Rel<'scope> {
        self.flow().concat(other.flow()).into()
    }

    /// What takes its rows away.
    pub(super) fn negate(&self) -> Rel<'scope> {
        self.flow().negate().into()
    }

    /// Rows of other types, for those who are not of identity.
    pub(super) fn flat_map<D, I>(
        &self,
        logic: impl FnMut((Name, Value)) -> I + 'static,
    ) -> crate::collection::Rel<'scope, D>
    where
        D: Clone + 'static,
        I: IntoIterator<Item = D>,
    {
        self.flow().flat_map(logic)
    }
}

/// What a function of one row gives.
pub(super) type Rows = Vec<(Name, Value)>;

/// Any rows for each row.
pub(super) fn each<'scope>(rel: &Rel<'scope>, logic: impl Fn(Name, Value, &mut Rows) + 'static) -> Rel<'scope> {
    each_boxed(rel, Box::new(logic))
}

fn each_boxed<'scope>(rel: &Rel<'scope>, logic: Box<dyn Fn(Name, Value, &mut Rows)>) -> Rel<'scope> {
    let mut rows = Rows::new();
    let stream = rel.flow().inner.unary(Pipeline, "Each", move |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut session = output.session(&time);
                for ((name, value), epoch, diff) in data.drain(..) {
                    logic(name, value, &mut rows);
                    session.give_iterator(rows.drain(..).map(|row| (row, epoch, diff)));
                }
            });
        }
    });
    stream.as_collection().into()
}

/// For each name, values made of all that is said of it; the same value twice is one.
pub(super) fn reduce<'scope>(
    rel: &Rel<'scope>,
    name: &str,
    logic: impl Fn(Name, &[(&Value, isize)], &mut Vec<Value>) + 'static,
) -> Rel<'scope> {
    reduce_boxed(rel, name, Box::new(logic))
}

type Reduction = Box<dyn Fn(Name, &[(&Value, isize)], &mut Vec<Value>)>;

fn reduce_boxed<'scope>(rel: &Rel<'scope>, name: &str, logic: Reduction) -> Rel<'scope> {
    let mut made = Vec::new();
    let reduced = rel.index().reduce_abelian::<_, Builder<_, _>, Arrangement<Name, Value>, _, _>(
        name,
        move |name, values, out| {
            logic(*name, values, &mut made);
            made.sort_unstable();
            made.dedup();
            out.extend(made.drain(..).map(|value| (value, 1)));
        },
        |rows, name, changes| {
            rows.clear();
            rows.extend(changes.drain(..).map(|(value, epoch, diff)| ((*name, value), epoch, diff)));
        },
    );
    reduced.into()
}

/// Each row once.
pub(super) fn distinct<'scope>(rel: &Rel<'scope>) -> Rel<'scope> {
    reduce(rel, "Distinct", |_, values, out| out.extend(values.iter().map(|(v, _)| (*v).clone())))
}

/// Rows of two relations that say something of one name.
pub(super) fn join<'scope>(
    left: &Rel<'scope>,
    right: &Rel<'scope>,
    logic: impl Fn(Name, &Value, &Value) -> Option<(Name, Value)> + 'static,
) -> Rel<'scope> {
    join_boxed(left, right, Box::new(logic))
}

type Joining = Box<dyn Fn(Name, &Value, &Value) -> Option<(Name, Value)>>;

fn join_boxed<'scope>(left: &Rel<'scope>, right: &Rel<'scope>, logic: Joining) -> Rel<'scope> {
    left.index().join_core(right.index(), move |name, l, r| logic(*name, l, r)).into()
}

/// The same, of a relation that was never put together: each of its parts is arranged for something else as well.
pub(super) fn join_any<'scope>(
    left: &Rel<'scope>,
    parts: &[&Rel<'scope>],
    logic: impl Fn(Name, &Value, &Value) -> Option<(Name, Value)> + Clone + 'static,
) -> Rel<'scope> {
    all(parts.iter().map(|part| join(left, part, logic.clone())))
}

/// The rows of all.
pub(super) fn all<'scope>(rels: impl Iterator<Item = Rel<'scope>>) -> Rel<'scope> {
    rels.reduce(|all, rel| all.concat(&rel)).expect("a relation has parts")
}

/// Rows of one relation with what `by` says of their names, if it says anything; it must say one thing at most.
pub(super) fn lookup<'scope>(
    left: &Rel<'scope>,
    by: &Rel<'scope>,
    logic: impl Fn(Name, &Value, Option<&Value>) -> Option<(Name, Value)> + 'static,
) -> Rel<'scope> {
    lookup_boxed(left, &[by], &(Arc::new(logic) as Looking))
}

/// The same, of a relation that was never put together. For what other things its parts say, `logic` must give what it
/// gives for nothing.
pub(super) fn lookup_any<'scope>(
    left: &Rel<'scope>,
    parts: &[&Rel<'scope>],
    logic: impl Fn(Name, &Value, Option<&Value>) -> Option<(Name, Value)> + 'static,
) -> Rel<'scope> {
    lookup_boxed(left, parts, &(Arc::new(logic) as Looking))
}

type Looking = Arc<dyn Fn(Name, &Value, Option<&Value>) -> Option<(Name, Value)>>;

fn lookup_boxed<'scope>(left: &Rel<'scope>, parts: &[&Rel<'scope>], logic: &Looking) -> Rel<'scope> {
    // What is found replaces what would have been said had nothing been.
    let found = |by: &&Rel<'scope>| {
        let found = logic.clone();
        let both = left.index().join_core(by.index(), move |name, l, r| {
            let (said, unsaid) = (found(*name, l, Some(r)), found(*name, l, None));
            let same = said == unsaid;
            said.map(|row| (row, 1)).into_iter().chain(unsaid.map(|row| (row, -1))).filter(move |_| !same)
        });
        both.explode(Some).into()
    };
    let found: Rel<'scope> = all(parts.iter().map(found));
    let otherwise = logic.clone();
    left.flow().flat_map(move |(name, l)| otherwise(name, &l, None)).concat(found.flow()).into()
}

/// The least name that each name of the graph reaches; edges are rows of [`Value::Name`] and may repeat. What has no edge
/// is not in the graph.
///
/// Nearly all components are a single edge; those never enter the loop.
pub(super) fn components<'scope>(edges: &Rel<'scope>) -> Rel<'scope> {
    let both = each(edges, |a, b, out| {
        if let Value::Name(b) = b
            && a != b
        {
            out.extend([(a, Value::Name(b)), (b, Value::Name(a))]);
        }
    });
    let halves = reduce(&both, "Degree", |_, neighbours, out| {
        let lone = neighbours.len() == 1;
        out.extend(
            neighbours
                .iter()
                .filter_map(|(n, _)| if let Value::Name(n) = n { Some(Value::Half(*n, lone)) } else { None }),
        );
    });
    let halves = each(&halves, |a, half, out| {
        if let Value::Half(b, lone) = half {
            out.push((a.min(b), Value::Half(a.max(b), lone)));
        }
    });
    // An edge is isolated when both of its ends know nobody else.
    let edges = reduce(&halves, "Isolated", |_, halves, out| {
        for (half, _) in halves {
            if let Value::Half(b, lone) = half {
                let both = *lone && !halves.iter().any(|(h, _)| **h == Value::Half(*b, false));
                out.push(Value::Half(*b, both));
            }
        }
    });
    let pairs = each(&edges, |a, half, out| {
        if let Value::Half(b, true) = half {
            out.extend([(a, Value::Name(a)), (b, Value::Name(a))]);
        }
    });
    let edges = edges.flat_map(|(a, half)| match half {
        Value::Half(b, false) => vec![(a, b), (b, a)],
        _ => vec![],
    });
    let nodes = edges.clone().map(|(a, _)| (a, a)).distinct();
    let labels = nodes.clone().iterate(|scope, labels| {
        let edges = edges.enter(scope);
        let nodes = nodes.enter(scope);
        labels
            .join_map(edges, |_, label, neighbour| (*neighbour, *label))
            .concat(nodes)
            .reduce_named("Label", |_, labels, out| out.push((*labels[0].0, 1)))
    });
    pairs.concat(&labels.map(|(name, label)| (name, Value::Name(label))).into())
}
