//! What a profile comes to, before it is stated or after: who would look at what and when; and why a target is looked at, or is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::cell::Time;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::{Agent, Device, DeviceGroup, Job, Profile as ProfileRow, Table, TimeInterval};
use radarflow_reconcile::access::Action;
use radarflow_reconcile::jobs::explain::Standing;
use radarflow_reconcile::jobs::known::{Intervals, Known};
use radarflow_reconcile::jobs::timetable::Schedule;
use radarflow_reconcile::jobs::{AgentFacts, Member, Problem};
use radarflow_reconcile::resources::{ResourceKind, named};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use crate::actor::Actor;
use crate::http::problem::{bad_query, not_found, problem};
use crate::http::request::body;
use crate::http::{Api, Shared};
use crate::tables::view::View;

/// Plans that are made for askers at a time, and how long one waits for its turn: each reads all devices of a tenant.
const AT_ONCE: usize = 2;
const TURN: Duration = Duration::from_secs(10);
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);
/// Runs that are told.
const MAX_RUNS: usize = 100;
const RUNS: usize = 5;
/// Targets that are told of each list.
const TOLD: usize = 100;

/// A profile, as it would be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preview {
    /// What it is called; one that stands, where no fields are said.
    name: String,
    /// Its fields, as `/api/v2/profiles` takes them.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    profile: Option<Map<String, Value>>,
    /// How many of its next runs are told.
    #[serde(default)]
    runs: Option<usize>,
}

/// What it would come to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Previewed {
    /// When its targets would be looked at next, RFC 3339: of an interval a round begins then.
    next: Vec<String>,
    /// By partition.
    partitions: Vec<PartitionPreview>,
}

/// What it would come to in a partition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartitionPreview {
    /// The partition.
    partition: String,
    /// Targets there would be.
    targets: usize,
    /// Those that there are not now; the first hundred.
    new: Vec<String>,
    /// Those that there would not be any more; the first hundred.
    gone: Vec<String>,
    /// Who would look.
    agents: Vec<AgentPreview>,
}

/// What an agent would do, or why it would not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentPreview {
    /// The agent; empty where there is none who could.
    agent_id: String,
    /// Targets that it would have, or of which it could do nothing.
    targets: usize,
    /// Why not all of it would be done.
    problem: Option<String>,
}

/// What is asked after.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// An address, a name, or the uid of a device.
    #[param(max_length = 300)]
    target: String,
}

/// Why a profile looks at something, or does not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explained {
    /// The profile.
    profile: String,
    /// What was asked after, wherever there is something of that name.
    found: Vec<ExplainedTarget>,
}

/// A target in a partition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainedTarget {
    /// The partition.
    partition: String,
    /// What agents are told.
    target: String,
    /// Whether the profile is about it.
    is_member: bool,
    /// Why, or why not.
    because: String,
    /// When it is looked at next, RFC 3339; null where it is not, or its agent does not tell.
    next: Option<String>,
    /// The agents of the partition, those where it weighs most first.
    agents: Vec<ExplainedAgent>,
}

/// An agent and a target.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainedAgent {
    /// The agent.
    agent_id: String,
    /// Whether it looks.
    looks: bool,
    /// Why, or why not.
    because: String,
    /// How its job goes: the state, as `in:jobs` has it, and why.
    job: Option<String>,
}

/// Tells who would look at what, and when, were a profile as it is said; and what would be otherwise than it is. Nothing is stated.
#[utoipa::path(
    post, path = "/api/profiles/preview", tag = "jobs", request_body = Preview,
    responses((status = 200, description = "What it would come to.", body = Previewed))
)]
pub(crate) async fn preview_profile(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = asks(&api, &headers)?;
    let Preview { name, profile, runs } = body(request).await?;
    let resource = match profile {
        None => None,
        Some(said) => {
            let kind = profiles()?;
            let wrong = |detail: String, field: Option<&str>| {
                let more = field.map_or(json!({}), |field| json!({"pointer": format!("/profile/{field}")}));
                problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &detail, more)
            };
            let (fields, _) =
                kind.read_all(&said.into_iter().collect(), true).map_err(|error| wrong(error.detail, error.field))?;
            let resource = Resource::of(Table::Profile, &actor.tenant, &name, fields.into_iter().collect());
            radarflow_reconcile::jobs::Profile::of(&resource).map_err(|(field, why)| wrong(why, Some(field)))?;
            Some(resource)
        }
    };
    let runs = runs.unwrap_or(RUNS).min(MAX_RUNS);
    let answer = planned(&api, actor, move |view, actor| preview(view, actor, &name, resource, runs)).await?;
    answer.map(|told| axum::Json(told).into_response()).ok_or_else(|| not_found("there is no such profile"))
}

/// Tells why a profile looks at a target, by which agent and when; or why it does not, yet or at all.
#[utoipa::path(
    get, path = "/api/profiles/{name}/explain", tag = "jobs",
    params(("name" = String, Path, description = "The profile."), Target),
    responses((status = 200, description = "Why.", body = Explained))
)]
pub(crate) async fn explain_profile(
    State(api): State<Shared>,
    headers: HeaderMap,
    Path(name): Path<String>,
    asked: Result<Query<Target>, QueryRejection>,
) -> Result<Response, Response> {
    let actor = asks(&api, &headers)?;
    let Query(Target { target }) = asked.map_err(|error| bad_query(&error))?;
    let answer = planned(&api, actor, move |view, actor| explain(view, actor, &name, &target)).await?;
    answer.map(|told| axum::Json(told).into_response()).ok_or_else(|| not_found("there is no such profile"))
}

/// Who asks, if they may read profiles: these are the whole tenant's.
#[allow(clippy::result_large_err)]
fn asks(api: &Api, headers: &HeaderMap) -> Result<Actor, Response> {
    let actor = api.allowed(headers, Action::Query)?;
    let reads = profiles()?.permission("read").is_some_and(|read| actor.has(&read));
    let detail = match reads {
        true if actor.partitions.is_empty() => return Ok(actor),
        true => "profiles are the whole tenant's; you are bound to partitions",
        false => "your role does not allow to read profiles",
    };
    Err(problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({})))
}

#[allow(clippy::result_large_err)]
fn profiles() -> Result<&'static ResourceKind, Response> {
    named(Table::Profile.name()).ok_or_else(|| not_found("there are no profiles"))
}

/// Does what takes long where it holds up nobody, a few at a time.
async fn planned<T: Send + 'static>(
    api: &Api,
    actor: Actor,
    does: impl FnOnce(&View, &Actor) -> Option<T> + Send + 'static,
) -> Result<Option<T>, Response> {
    let busy = || {
        let detail = "as many plans are made as are made at a time: ask again";
        problem(StatusCode::SERVICE_UNAVAILABLE, "busy", detail, json!({}))
    };
    let turn = tokio::time::timeout(TURN, TURNS.acquire()).await.map_err(|_| busy())?;
    let view: Arc<View> = api.engine.live().view();
    let does = move || {
        // Whoever leaves meanwhile frees no place for another's work.
        let _turn = turn;
        does(&view, &actor)
    };
    let done = tokio::task::spawn_blocking(does).await;
    done.map_err(|_| busy())
}

/// A row as the resource that it shows.
fn shown<R: Serialize>(table: Table, tenant: &str, id: &str, row: &R) -> Resource {
    let fields = match serde_json::to_value(row) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    Resource::of(table, tenant, id, fields.into_iter().collect())
}

/// What stands of a tenant; one profile as it would be.
fn standing(view: &View, tenant: &str, instead: Option<Resource>) -> Standing {
    let intervals: Intervals =
        view.rows::<TimeInterval>(tenant).into_iter().map(|interval| (interval.name, interval.periods)).collect();
    let mut standing = Standing::default();
    for group in view.rows::<DeviceGroup>(tenant) {
        let of = Member::of(&shown(Table::DeviceGroup, tenant, &group.name, &group));
        standing.groups.insert(group.name, of);
    }
    for profile in view.rows::<ProfileRow>(tenant) {
        let of = Known::of(&shown(Table::Profile, tenant, &profile.name, &profile), &intervals);
        standing.profiles.insert(profile.name, of);
    }
    if let Some(instead) = instead {
        standing.profiles.insert(instead.id.clone(), Known::of(&instead, &intervals));
    }
    for agent in view.rows::<Agent>(tenant) {
        standing.agents.entry(agent.partition.clone()).or_default().push(AgentFacts::of(&agent));
    }
    standing.devices = view.rows::<Device>(tenant);
    standing.find_members();
    standing
}

fn instant(ms: i64) -> String {
    Time::from_ms(ms).to_string()
}

fn preview(view: &View, actor: &Actor, name: &str, resource: Option<Resource>, runs: usize) -> Option<Previewed> {
    let before = resource.is_some().then(|| standing(view, &actor.tenant, None));
    let after = standing(view, &actor.tenant, resource);
    let known = after.profiles.get(name)?;
    let targets = |of: &Standing, partition: &str| {
        of.profiles
            .get(name)
            .filter(|known| known.profile.as_ref().is_ok_and(|p| p.enabled))
            .map(|k| k.targets(partition))
    };
    let mut partitions = after.partitions();
    partitions.extend(before.iter().flat_map(Standing::partitions));
    let told = partitions.into_iter().filter_map(|partition| {
        let is: BTreeSet<String> = targets(&after, &partition).unwrap_or_default();
        let was = match &before {
            Some(before) => targets(before, &partition).unwrap_or_default(),
            None => is.clone(),
        };
        let jobs = after.plan(&actor.tenant, &partition).jobs;
        let agents: Vec<AgentPreview> = jobs
            .into_iter()
            .filter(|job| job.profile == name)
            .map(|job| AgentPreview {
                agent_id: job.agent_id,
                targets: job.targets,
                problem: job.problem.map(|problem| match problem {
                    Problem::Unsupported(why) | Problem::Nobody(why) | Problem::Partly(why) => why,
                }),
            })
            .collect();
        (!is.is_empty() || !was.is_empty() || !agents.is_empty()).then(|| PartitionPreview {
            targets: is.len(),
            new: is.difference(&was).take(TOLD).cloned().collect(),
            gone: was.difference(&is).take(TOLD).cloned().collect(),
            agents,
            partition,
        })
    });
    let partitions = told.collect();
    let schedule = known.profile.as_ref().ok().filter(|p| p.enabled).and_then(|p| Schedule::read(&p.timetable()).ok());
    let next = schedule.map(|schedule| {
        let mut at = view.clock_ms;
        let next = std::iter::from_fn(|| {
            at = schedule.next_ms(0, at)?;
            Some(instant(at))
        });
        next.take(runs).collect()
    });
    Some(Previewed { next: next.unwrap_or_default(), partitions })
}

fn explain(view: &View, actor: &Actor, name: &str, target: &str) -> Option<Explained> {
    let standing = standing(view, &actor.tenant, None);
    let found = standing.explain(&actor.tenant, name, target, view.clock_ms)?;
    let jobs = view.rows_where::<Job>(&actor.tenant, "profile", name);
    let state = |partition: &str, agent_id: &str| {
        let job = jobs.iter().find(|job| job.partition == partition && job.agent_id == agent_id)?;
        Some(match &job.reason {
            Some(why) => format!("{}: {why}", job.state),
            None => job.state.clone(),
        })
    };
    let found = found.into_iter().map(|why| ExplainedTarget {
        agents: why
            .agents
            .into_iter()
            .map(|agent| ExplainedAgent {
                job: state(&why.partition, &agent.agent_id).filter(|_| agent.looks),
                agent_id: agent.agent_id,
                looks: agent.looks,
                because: agent.why,
            })
            .collect(),
        partition: why.partition,
        target: why.target,
        is_member: why.is_member,
        because: why.because,
        next: why.next_ms.map(instant),
    });
    Some(Explained { profile: name.to_owned(), found: found.collect() })
}
