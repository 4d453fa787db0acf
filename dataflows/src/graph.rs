//! The graph: every part, what it is made of, and what is made of it.
//!
//! A part is a module with a struct of inputs, a struct of outputs and a function `build` from one to the other. This
//! file connects them and does nothing else; what runs it is [`crate::worker`].

use std::sync::mpsc::SyncSender;

use radarflow_proto::fact::DeviceStep;
use radarflow_proto::ports::Outcome;
use radarflow_proto::rows::{Audit, StateRow};
use radarflow_reconcile::identity::name::Name;
use timely::dataflow::operators::{Concatenate, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, Scope};

use crate::alerts::{AlertEvent, AlertKey, GroupEvent, GroupKey, LetterEvent, LetterKey, Notice};
use crate::aliases::Poll;
use crate::availability::{ProbeResult, TargetKey};
use crate::decode::{Decoded, EventBatch};
use crate::facts::StandingFact;
use crate::health::{AgentKey, Beat, LogShare, LogSource, ServiceSaid};
use crate::identity::{Inspect, RunEvent};
use crate::jobs::{CommandEvent, JobEvent, JobKey};
use crate::keyed::{Context, Keyed};
use crate::listings::{ListingEvent, ListingKey};
use crate::loss::{Delta, SourceKey};
use crate::metrics::{Share, Spoken, Walked};
use crate::otel::{Counted, Share as OtelShare, SpanHeard};
use crate::output::WorkerEpoch;
use crate::records::Sighting;
use crate::resources::Stated;
use crate::sizes::Marks;
use crate::topology::{Listed, Neighbors};
use crate::{
    alerts, aliases, audit, availability, facts, health, identity, inventory, jobs, lifecycle, listings, loss, merges,
    metrics, otel, output, reach, records, resources, rules, steps, telemetry, topology,
};

macro_rules! inputs {
    ($($name:ident: $type:ty,)*) => {
        /// The inputs of the dataflow: what the decoder gives, one each.
        pub(crate) struct Handles {
            $($name: InputHandleVec<u64, $type>,)*
        }

        impl Handles {
            /// Inputs of nothing yet.
            pub(crate) fn new() -> Self {
                Handles { $($name: InputHandleVec::new(),)* }
            }

            /// Hands in what was read at the epoch.
            pub(crate) fn send(&mut self, mut decoded: Decoded) {
                $(self.$name.send_batch(&mut decoded.$name);)*
            }

            /// Goes on to an epoch.
            pub(crate) fn advance(&mut self, epoch: u64) {
                $(
                    self.$name.advance_to(epoch);
                    self.$name.flush();
                )*
            }
        }
    };
}

inputs! {
    sightings: Keyed<Name, Sighting>,
    listed: Keyed<ListingKey, ListingEvent>,
    runs: (ListingKey, RunEvent),
    polls: Keyed<Name, Poll>,
    neighbors: Keyed<Name, Neighbors>,
    probes: Keyed<TargetKey, ProbeResult>,
    beats: Keyed<AgentKey, Beat>,
    log_hits: Keyed<LogShare, LogSource>,
    notices: Notice,
    deltas: Keyed<SourceKey, Delta>,
    facts: Keyed<String, StandingFact>,
    commands: Keyed<String, Stated>,
    audited: Keyed<String, Box<Audit>>,
    ended: Outcome,
    steps: Keyed<AlertKey, AlertEvent>,
    device_steps: Keyed<Name, (u64, DeviceStep)>,
    deliveries: Keyed<GroupKey, GroupEvent>,
    replays: Keyed<LetterKey, LetterEvent>,
    results: Keyed<JobKey, JobEvent>,
    words: Keyed<String, CommandEvent>,
    samples: Keyed<Share, Spoken>,
    walked: Keyed<Share, Walked>,
    services: Keyed<AgentKey, ServiceSaid>,
    interfaces: Keyed<Name, Listed>,
    spans: Keyed<OtelShare, SpanHeard>,
    points: Keyed<OtelShare, Counted>,
    batches: EventBatch,
}

/// Builds the dataflow. What it says is sent to `outputs`; `probe` tells which epochs were sent.
pub(crate) fn build<'scope>(
    scope: Scope<'scope, u64>,
    inputs: &mut Handles,
    cx: &Context,
    marks: &Marks,
    probe: &ProbeHandle<u64>,
    outputs: SyncSender<WorkerEpoch>,
) -> Inspect {
    marks.part(scope, "records");
    let sightings = inputs.sightings.to_stream(scope);
    let facts = facts::build(cx, facts::Inputs { stated: inputs.facts.to_stream(scope) });
    let resources = resources::build(cx, resources::Inputs { commands: inputs.commands.to_stream(scope) });
    let told = scope.concatenate([inputs.audited.to_stream(scope), resources.told]);
    let audit = audit::build(cx, audit::Inputs { told });
    let listings = listings::build(cx, listings::Inputs { listed: inputs.listed.to_stream(scope) });
    let records = records::build(cx, records::Inputs { sightings: sightings.clone(), withdrawn: listings.withdrawn });
    let interfaces =
        aliases::build(cx, aliases::Inputs { polls: inputs.polls.to_stream(scope), versions: records.versions });
    let steps = steps::build(cx, steps::Inputs { asked: inputs.device_steps.to_stream(scope) });

    marks.part(scope, "identity");
    let identity = identity::build(
        cx,
        identity::Inputs {
            records: interfaces.versions,
            first_seen: records.first_seen,
            settled: records.settled,
            aliases: interfaces.aliases,
            links: facts.links,
            ip_links: facts.ip_links,
            steps: steps.steps,
            runs: Some(identity::Runs {
                events: inputs.runs.to_stream(scope),
                decisions: listings.decisions,
                brakes: facts.brakes,
            }),
        },
    );

    marks.part(scope, "lives");
    let lifecycle = lifecycle::build(cx, lifecycle::Inputs { sightings, lives: identity.lives });
    let merges = merges::build(cx, merges::Inputs { placed: identity.audit });

    marks.part(scope, "inventory");
    let availability = availability::build(cx, availability::Inputs { probes: inputs.probes.to_stream(scope) });
    let inventory = inventory::build(
        cx,
        inventory::Inputs {
            placements: identity.placements,
            names: identity.names,
            addresses: identity.addresses,
            owners: identity.owners,
            observations: availability.observations,
            lives: lifecycle.lives,
            rules: facts.rules,
        },
    );

    marks.part(scope, "alerts");
    let health = health::build(
        cx,
        health::Inputs {
            beats: inputs.beats.to_stream(scope),
            log_hits: inputs.log_hits.to_stream(scope),
            services: inputs.services.to_stream(scope),
        },
    );
    let jobs = jobs::build(
        cx,
        jobs::Inputs {
            resources: resources.changes.clone(),
            devices: inventory.devices.clone(),
            agents: health.agents,
            results: inputs.results.to_stream(scope),
            taken: resources.taken,
            words: inputs.words.to_stream(scope),
        },
    );
    let topology = topology::build(
        cx,
        topology::Inputs { polls: inputs.neighbors.to_stream(scope), interfaces: inputs.interfaces.to_stream(scope) },
    );
    let metrics = metrics::build(
        cx,
        metrics::Inputs { samples: inputs.samples.to_stream(scope), walked: inputs.walked.to_stream(scope) },
    );
    let otel =
        otel::build(cx, otel::Inputs { spans: inputs.spans.to_stream(scope), points: inputs.points.to_stream(scope) });
    let telemetry = telemetry::build(
        cx,
        telemetry::Inputs {
            batches: inputs.batches.to_stream(scope),
            points: otel.points,
            address_owners: identity.address_owners,
            resources: resources.changes.clone(),
            rated: metrics.rows,
            told: topology.told,
        },
    );
    let behind = reach::build(
        cx,
        reach::Inputs {
            devices: inventory.devices.clone(),
            links: telemetry.link_rows.clone(),
            resources: resources.changes.clone(),
        },
    );
    let of_devices = health::of_devices(cx, health::DeviceInputs { devices: inventory.devices.clone(), behind });
    let sources = loss::build(cx, loss::Inputs { deltas: inputs.deltas.to_stream(scope) });
    let rules = rules::build(
        cx,
        rules::Inputs {
            resources: resources.changes.clone(),
            devices: inventory.devices.clone(),
            rows: health
                .rows
                .clone()
                .concat(jobs.rows.clone())
                .concat(sources.rows.clone())
                .concat(telemetry.link_rows.clone()),
            batches: telemetry.batches.clone(),
            events: scope.concatenate([
                health.events.clone(),
                of_devices.events.clone(),
                jobs.events.clone(),
                sources.events.clone(),
                metrics.events.clone(),
                merges.events.clone(),
                audit.clone(),
            ]),
        },
    );
    let alerts = alerts::build(
        cx,
        alerts::Inputs {
            conditions: scope.concatenate([
                availability.conditions,
                health.conditions,
                of_devices.conditions,
                jobs.conditions,
                listings.conditions,
                sources.conditions,
                identity.conditions,
                rules.conditions,
            ]),
            notices: inputs.notices.to_stream(scope),
            own: facts.conditions,
            steps: inputs.steps.to_stream(scope),
            resources: resources.changes.clone(),
            devices: inventory.devices.clone(),
            deliveries: inputs.deliveries.to_stream(scope),
            replays: inputs.replays.to_stream(scope),
        },
    );

    marks.part(scope, "output");
    let sent = output::build(
        scope,
        cx,
        output::Inputs {
            rows: vec![
                inventory.devices.map(StateRow::Device),
                identity.identifier_rows,
                identity.redirect_rows,
                identity.ownership_rows,
                facts.rows,
                resources.rows,
                telemetry.link_rows,
                sources.rows,
                health.rows,
                jobs.rows,
                otel.rows,
                alerts.rows,
            ],
            batches: telemetry.batches,
            events: vec![
                audit,
                health.events,
                of_devices.events,
                jobs.events,
                sources.events,
                metrics.events,
                alerts.events,
                merges.events,
                telemetry.corrections,
            ],
            outcomes: vec![steps.outcomes, identity.outcomes, alerts.outcomes, inputs.ended.to_stream(scope)],
            due: alerts.due,
            configurations: jobs.configurations,
            commands: jobs.commands,
            settled: alerts.settled,
            facts: facts.all,
            resources: resources.changes,
            judgements: resources.judgements,
            reaped: lifecycle.reaped,
        },
        outputs,
    );
    sent.probe_with(probe);
    identity.inspect
}
