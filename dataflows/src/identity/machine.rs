//! The identity machine: the one operator that keeps identity. A tenant is kept by one worker, an engine a site.
//!
//! ```text
//! records, first-seen, settled, aliases, links, policies, steps, runs (Δ)
//!   ─► by tenant ─► [machine] ─► placements, names, owners, rows, audit, standing (Δ), conditions, outcomes
//! ```
//! Epochs are stepped whole and in order, once everything of them is there. What is said up to the epoch of a restored
//! snapshot was said before: it is taken in as one, and is no event. Of all this only what the gate withholds is in a
//! snapshot; the rest is computed again from what other machines restore.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use differential_dataflow::AsCollection;
use radarflow_proto::fact::RunDecision;
use radarflow_proto::record::SourceKind;
use radarflow_proto::rows::StateRow;
use radarflow_reconcile::identity::name::Name;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Capability, Concatenate};

use super::clusters;
use super::engine::{Called, Outs, Steps, Tenant, Word};
use super::gate::{Gate, GateOut, RunEvent};
use super::inspect::Inspect;
use super::interface::{AddressOwner, Component, Inputs, Runs};
use crate::collection::{Rel, collected};
use crate::keyed::{Context, StateEntry, encode, route};
use crate::listings::ListingKey;
use crate::records::Live;
use crate::steps::AnchorSteps;

/// The collection in snapshots: what the gate withholds.
pub(super) const GATE: &str = "gate";

/// Tenants, for the operator and for who asks why.
pub(super) type Tenants = Rc<RefCell<BTreeMap<Name, Tenant>>>;

/// One output of the operator.
struct Port<D: Clone + 'static> {
    output: OutputBuilder<u64, CapacityContainerBuilder<Vec<(D, u64, isize)>>>,
    capability: Option<Capability<u64>>,
}

impl<D: Clone + 'static> Port<D> {
    fn new<'scope>(builder: &mut OperatorBuilder<'scope, u64>) -> (Self, Rel<'scope, D>) {
        let (output, stream) = builder.new_output();
        (Port { output: OutputBuilder::from(output), capability: None }, stream.as_collection())
    }

    fn send(&mut self, epoch: u64, rows: &mut Vec<(D, isize)>) {
        if let Some(capability) = &self.capability
            && !rows.is_empty()
        {
            let rows = rows.drain(..).map(|(row, diff)| (row, epoch, diff));
            self.output.activate().session(capability).give_iterator(rows);
        }
        rows.shrink_to(KEPT_ROWS);
    }

    fn go_on(&mut self, until: Option<u64>) {
        match (until, &mut self.capability) {
            (Some(epoch), Some(capability)) => capability.downgrade(&epoch),
            _ => self.capability = None,
        }
    }
}

/// Rows that an output keeps room for between epochs.
const KEPT_ROWS: usize = 1 << 12;

/// All words, one stream.
fn words<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Rel<'scope, Word> {
    let peers = cx.peers;
    let scope = inputs.records.inner.scope();
    let mut parts = vec![
        inputs.records.map(Word::Record).inner,
        inputs.first_seen.map(Word::Seen).inner,
        inputs.settled.map(|(scope, settled)| Word::Settled(scope, settled)).inner,
        inputs.aliases.map(|(scope, alias)| Word::Alias(scope, alias)).inner,
        inputs.links.map(Word::Link).inner,
        inputs.ip_links.map(|(tenant, policy)| Word::Policy(tenant, policy)).inner,
        inputs.steps.flat_map(move |steps| (0..peers).map(move |worker| Word::Steps(worker, steps.clone()))).inner,
    ];
    if let Some(Runs { events, decisions, brakes }) = inputs.runs {
        let decisions = decisions.map(|(decision, refused)| {
            let RunDecision { tenant, kind, instance, .. } = decision.clone();
            (ListingKey { tenant, kind, instance }, RunEvent::Decide(decision, refused))
        });
        let brakes = brakes.map(|(tenant, brakes)| {
            let of = ListingKey { tenant, kind: SourceKind::Operator, instance: String::new() };
            (of, RunEvent::Brakes(brakes))
        });
        let said = [events, decisions, brakes];
        parts.extend(said.map(|said| collected(said, |(key, event)| Some((Word::Run(key, event), 1))).inner));
    }
    scope.concatenate(parts).as_collection()
}

/// Which worker hears a word.
fn worker(word: &Word) -> u64 {
    match word {
        Word::Steps(worker, _) => *worker as u64,
        word => route(&word.tenant()),
    }
}

macro_rules! ports {
    ($($port:ident: $row:ty,)*) => {
        /// What the machine says.
        pub(super) struct Said<'scope> {
            $(pub(super) $port: Rel<'scope, $row>,)*
        }

        /// All outputs of the operator, one for each list of [`Outs`] that is told.
        struct Ports {
            $($port: Port<$row>,)*
        }

        impl Ports {
            fn new<'scope>(builder: &mut OperatorBuilder<'scope, u64>) -> (Self, Said<'scope>) {
                $(let $port = Port::new(builder);)*
                (Ports { $($port: $port.0,)* }, Said { $($port: $port.1,)* })
            }

            /// Says what there is to say of an epoch.
            fn send(&mut self, epoch: u64, outs: &mut Outs) {
                $(self.$port.send(epoch, &mut outs.$port);)*
            }

            fn hold(&mut self, capabilities: Vec<Capability<u64>>) {
                let mut capabilities = capabilities.into_iter();
                $(self.$port.capability = capabilities.next();)*
            }

            /// Nothing more is said of epochs before this one.
            fn go_on(&mut self, until: Option<u64>) {
                $(self.$port.go_on(until);)*
            }
        }
    };
}

ports! {
    placements: (Component, Live),
    names: (Component, Arc<str>),
    addresses: (Component, IpAddr),
    owners: (Name, Component),
    address_owners: AddressOwner,
    audit: Called,
    identifiers: StateRow,
    redirects: StateRow,
    ownership: StateRow,
    standing: (Component, AnchorSteps),
    shown: (Component, Live),
    gate: GateOut,
}

/// What a worker keeps.
struct Machine {
    tenants: Tenants,
    steps: Steps,
    gated: bool,
    /// The tenant that was checked last while nothing was heard.
    checked: Name,
    /// Words of epochs that are not complete, by tenant.
    stash: BTreeMap<u64, BTreeMap<Name, Vec<(Word, isize)>>>,
}

impl Machine {
    /// Takes in what is complete of an epoch.
    fn step(&mut self, epoch: u64, again: bool, outs: &mut Outs) {
        let mut heard = self.stash.remove(&epoch).unwrap_or_default();
        let tenants = self.tenants.clone();
        let mut tenants = tenants.borrow_mut();
        if heard.is_empty() {
            heard.extend(self.next_tenant(&tenants).map(|tenant| (tenant, Vec::new())));
        }
        if let Some(said) = heard.remove(&Name::default()) {
            self.take_steps(&said, &mut tenants, &mut heard);
        }
        for (name, words) in heard {
            let gated = self.gated;
            let tenant = tenants.entry(name).or_insert_with(|| Tenant::new(gated.then(Gate::default)));
            tenant.step(words, &self.steps, again, !again, outs);
        }
    }

    /// The next tenant to check.
    fn next_tenant(&mut self, tenants: &BTreeMap<Name, Tenant>) -> Option<Name> {
        let after = (Bound::Excluded(self.checked), Bound::Unbounded);
        let next = tenants.range(after).next().or_else(|| tenants.first_key_value()).map(|(tenant, _)| *tenant);
        self.checked = next.unwrap_or_default();
        next
    }

    /// Takes in what operators said, and has every tenant look whom it concerns.
    fn take_steps(
        &mut self,
        said: &[(Word, isize)],
        tenants: &mut BTreeMap<Name, Tenant>,
        heard: &mut BTreeMap<Name, Vec<(Word, isize)>>,
    ) {
        let steps = |diff: fn(isize) -> bool| {
            said.iter().filter(move |(_, n)| diff(*n)).filter_map(|(word, _)| match word {
                Word::Steps(_, steps) => Some(steps),
                _ => None,
            })
        };
        for old in steps(|n| n < 0) {
            self.steps.remove(&old.anchor);
        }
        for new in steps(|n| n > 0) {
            self.steps.insert(new.anchor, new.clone());
        }
        for (name, tenant) in tenants.iter_mut() {
            if steps(|_| true).fold(false, |known, steps| known | tenant.said(steps.anchor)) {
                heard.entry(*name).or_default();
            }
        }
    }
}

/// Tells of rows that checks found to be wrong.
fn faults(cx: &Context, outs: &mut Outs) {
    let faults = std::mem::take(&mut outs.faults);
    if faults > 0 {
        tracing::error!(faults, "identity had kept what is no longer so; it is mended: please report this");
        cx.sizes().mended().fetch_add(faults as u64, Ordering::Relaxed);
    }
}

/// Builds it.
pub(super) fn machine<'scope>(cx: &Context, inputs: Inputs<'scope>) -> (Said<'scope>, Inspect) {
    let gated = inputs.runs.is_some();
    let words = words(cx, inputs).inner;
    let tenants: Tenants = Rc::default();
    let inspect = Inspect::new(tenants.clone());
    let mut builder = OperatorBuilder::new("identity".to_owned(), words.scope());
    let mut input = builder.new_input(words, Exchange::new(|(word, _, _): &(Word, u64, isize)| worker(word)));
    let (mut ports, said) = Ports::new(&mut builder);
    let cx = cx.clone();
    builder.build(move |capabilities| {
        ports.hold(capabilities);
        let gauge = |name| cx.sizes().machine(name, cx.index);
        let (gates, records, keys) = (gauge(GATE), gauge("identity_records"), gauge("identity_keys"));
        let withheld = cx.sizes().withheld().clone();
        let mut withheld_before = 0;
        let mut machine =
            Machine { tenants, steps: Steps::new(), gated, checked: Name::default(), stash: BTreeMap::new() };
        if gated {
            for (name, kept) in cx.restore::<Name, clusters::Tenant>(GATE) {
                machine.tenants.borrow_mut().insert(name, Tenant::new(Some(Gate::of(kept))));
                machine.stash.entry(cx.restored).or_default().entry(name).or_default();
            }
        }
        let mut next = cx.restored;
        let mut outs = Outs::default();
        move |frontiers| {
            input.for_each(|_, data| {
                for (word, epoch, diff) in data.drain(..) {
                    let tenant = word.tenant();
                    let stash = machine.stash.entry(epoch.max(cx.restored)).or_default();
                    stash.entry(tenant).or_default().push((word, diff));
                }
            });
            let upper = frontiers[0].frontier().first().copied();
            while upper.is_some_and(|upper| next < upper) {
                ports.go_on(Some(next));
                machine.step(next, next == cx.restored, &mut outs);
                ports.send(next, &mut outs);
                faults(&cx, &mut outs);
                if gated && next > cx.restored && cx.wants_snapshot(next) {
                    let mut tenants = machine.tenants.borrow_mut();
                    let changed = tenants.iter_mut().filter_map(|(name, tenant)| {
                        let kept = tenant.gate.as_mut()?.changed()?;
                        Some(StateEntry { collection: GATE, key: encode(name), value: Some(encode(kept)) })
                    });
                    cx.save(next, changed.collect());
                }
                next += 1;
            }
            if upper.is_none() {
                // What is left came with the end of all inputs.
                while let Some(epoch) = machine.stash.keys().next().copied() {
                    ports.go_on(Some(epoch));
                    machine.step(epoch, epoch == cx.restored, &mut outs);
                    ports.send(epoch, &mut outs);
                }
            }
            ports.go_on(upper.map(|upper| upper.max(cx.restored)));
            let tenants = machine.tenants.borrow();
            let sizes = tenants.values().flat_map(Tenant::sizes);
            let (r, k) = sizes.fold((0, 0), |(r, k), of| (r + of.0, k + of.1));
            for (gauge, now) in [(&gates, tenants.len()), (&records, r), (&keys, k)] {
                gauge.store(now as i64, Ordering::Relaxed);
            }
            let now: i64 = tenants.values().filter_map(|t| t.gate.as_ref()).map(Gate::changes_withheld).sum();
            withheld.fetch_add(now - std::mem::replace(&mut withheld_before, now), Ordering::Relaxed);
        }
    });
    (said, inspect)
}
