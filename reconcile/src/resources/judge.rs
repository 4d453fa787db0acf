//! What becomes of a command: a pure function of what stands in its tenant, the command, its epoch and its clock.
//!
//! A command is judged in this order; the first that is wrong is told:
//!
//! 1. its id was answered before: the same answer, or `idempotency_mismatch` of another question;
//! 2. who asks is let in, and may do each operation (`forbidden`);
//! 3. one operation after another, on what those before it left: how it must stand (`precondition_failed`), whether there is
//!    one (`exists`, `not_found`), whose it is (`owned`), its fields (`invalid`, `immutable`);
//! 4. all that changed, on what they leave together: what the kind asks of it (`reference`, `conflict`, `too_many`), and
//!    that somebody is left who administers.
//!
//! A refusal leaves everything as it was. So a set of operations may come in any order that ends well: a user and the role that
//! they have begin together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{
    Act, Command, Condition, Fields, Judgement, Operation, Principal, PrincipalKind, Refusal, RefusalCode, Resource,
    ResourceChange, Shown, Taken,
};
use radarflow_proto::rows::Table;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::{MadeBy, ResourceAction, ResourceKind, Wrong, check_id};
use super::told::CONFIGURATION;
use super::world::{self, Standing, World};
use super::{maintenance, named, of_table, profiles, providers, rotas, routes};
use crate::access::Permissions;

/// Operations of a command at most.
pub const MAX_OPERATIONS: usize = 20_000;
/// How long an answer is kept for a command that is sent again, microseconds: 24 hours.
pub const ANSWERED_US: i64 = 24 * 3600 * 1_000_000;
/// Answers that a tenant has kept at most; the oldest go.
pub const MAX_ANSWERED: usize = 20_000;
/// Bytes of them; the oldest go.
pub const MAX_ANSWERED_BYTES: usize = 16 << 20;

/// When a command is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The epoch.
    pub epoch: u64,
    /// Its clock, microseconds since 1970.
    pub now_us: i64,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub judgement: Judgement,
    /// What changed, in the order of operations; nothing where it was refused or answered before.
    pub changes: Vec<ResourceChange>,
    /// Steps that were taken, in the order of operations.
    pub taken: Vec<Taken>,
    /// Whether it was answered before: it is in the audit already.
    pub again: bool,
}

/// What was done.
struct Done {
    /// Each operation's resource.
    outcome: Vec<Option<Arc<Resource>>>,
    changes: Vec<ResourceChange>,
    taken: Vec<Taken>,
}

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Until when, microseconds since 1970.
    pub until_us: i64,
    /// What was asked.
    pub digest: Option<String>,
    /// What was answered.
    pub judgement: Judgement,
}

impl Answered {
    /// What it takes, bytes.
    fn bytes(&self) -> usize {
        let resource = |resource: &Arc<Resource>| {
            let texts = resource.fields.0.values().map(|value| value.to_string().len()).sum::<usize>();
            texts + resource.secrets.values().map(String::len).sum::<usize>() + 500
        };
        let of = match &self.judgement.outcome {
            Ok(resources) => resources.iter().flatten().map(resource).sum(),
            Err(refusal) => refusal.detail.len(),
        };
        200 + of
    }
}

/// The resources of a tenant, and what was answered.
#[derive(Default)]
pub struct Judge {
    standing: Standing,
    /// How many there are of each kind.
    counts: BTreeMap<Table, usize>,
    /// What goes by itself, and when.
    ends: BTreeSet<(i64, Table, String)>,
    answered: BTreeMap<String, Answered>,
    /// The same by when they are forgotten.
    forgets: BTreeSet<(i64, String)>,
    /// What they take, bytes.
    answered_bytes: usize,
}

impl Judge {
    /// The resources.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What was answered to a command.
    pub fn answered(&self, command_id: &str) -> Option<&Answered> {
        self.answered.get(command_id)
    }

    /// What is kept, in all.
    pub fn len(&self) -> usize {
        self.standing.len() + self.answered.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a resource as it stood.
    pub fn restore(&mut self, resource: Arc<Resource>) {
        if let Some(kind) = named(&resource.resource) {
            self.set(kind, &resource.id.clone(), Some(resource));
        }
    }

    /// Takes in an answer that was given.
    pub fn restore_answer(&mut self, answered: Answered) {
        let id = answered.judgement.command_id.clone();
        self.forgets.insert((answered.until_us, id.clone()));
        self.answered_bytes += answered.bytes();
        if let Some(before) = self.answered.insert(id, answered) {
            self.answered_bytes -= before.bytes();
        }
    }

    /// What is over by a clock goes: resources that end by themselves, and answers; told are the ids of these.
    pub fn expire(&mut self, now_us: i64) -> (Vec<ResourceChange>, Vec<String>) {
        let mut changes = Vec::new();
        while let Some((_, table, id)) = self.ends.first().filter(|(at, ..)| *at <= now_us).cloned() {
            let kind = of_table(table).expect("what ends is of a kind");
            let before = self.set(kind, &id, None);
            changes.push(ResourceChange { before, after: None });
        }
        let mut forgotten = Vec::new();
        while self.forgets.first().is_some_and(|(until, _)| *until <= now_us)
            || self.answered.len() > MAX_ANSWERED
            || self.answered_bytes > MAX_ANSWERED_BYTES
        {
            let Some((_, id)) = self.forgets.pop_first() else { break };
            if let Some(gone) = self.answered.remove(&id) {
                self.answered_bytes -= gone.bytes();
            }
            forgotten.push(id);
        }
        (changes, forgotten)
    }

    /// When something is over by itself, microseconds since 1970.
    pub fn due_us(&self) -> Option<i64> {
        let ends = self.ends.first().map(|(at, ..)| *at);
        let over = self.answered.len() > MAX_ANSWERED || self.answered_bytes > MAX_ANSWERED_BYTES;
        let forgets = self.forgets.first().map(|(at, _)| if over { i64::MIN } else { *at });
        ends.into_iter().chain(forgets).min()
    }

    /// Judges a command, and does it if nothing is wrong.
    pub fn judge(&mut self, at: At, command: &Command) -> Verdict {
        let told = |outcome| Judgement {
            tenant: command.tenant.clone(),
            command_id: command.command_id.clone(),
            digest: command.digest.clone(),
            epoch: at.epoch,
            outcome,
        };
        if let Some(before) = self.answered.get(&command.command_id) {
            let judgement = if before.digest == command.digest {
                before.judgement.clone()
            } else {
                let detail = "this Idempotency-Key was used for another request".to_owned();
                told(Err(Refusal { code: RefusalCode::IdempotencyMismatch, detail, operation: 0, field: None }))
            };
            return Verdict { judgement, changes: Vec::new(), taken: Vec::new(), again: true };
        }
        let (outcome, changes, taken) = match self.done(at, command) {
            Ok(Done { outcome, changes, taken }) => (Ok(outcome), changes, taken),
            Err(refusal) => (Err(refusal), Vec::new(), Vec::new()),
        };
        let outcome_of = outcome.as_ref().map(|_| ()).map_err(|refusal: &Refusal| refusal.code);
        let judgement = told(outcome);
        // Whoever may not do it at all is told so each time.
        let forbidden = matches!(&outcome_of, Err(RefusalCode::Forbidden));
        if command.digest.is_some() && !forbidden {
            let until_us = at.now_us.saturating_add(ANSWERED_US);
            let (digest, judgement) = (command.digest.clone(), judgement.clone());
            self.restore_answer(Answered { until_us, digest, judgement });
        }
        Verdict { judgement, changes, taken, again: false }
    }

    /// Does a command, all of it or nothing.
    fn done(&mut self, at: At, command: &Command) -> Result<Done, Refusal> {
        let refused =
            |operation, code, detail: &str| Refusal { code, detail: detail.to_owned(), operation, field: None };
        if command.operations.is_empty() || command.operations.len() > MAX_OPERATIONS {
            let detail = format!("a command has 1 to {MAX_OPERATIONS} operations");
            return Err(refused(0, RefusalCode::Invalid, &detail));
        }
        let Some((permissions, bound)) = world::permissions(&self.standing, &command.principal, at.now_us) else {
            return Err(refused(0, RefusalCode::Forbidden, "what let you in is revoked, or over"));
        };
        let host = is_host(&command.principal);
        for (nth, operation) in command.operations.iter().enumerate() {
            let Some(kind) = named(&operation.resource) else {
                return Err(refused(nth, RefusalCode::NotFound, &format!("there are no {}", operation.resource)));
            };
            let permission = kind.permission(operation.act.verb()).filter(|p| permissions.include(p));
            let own = self.is_own(kind, operation, &command.principal);
            if !host && !own && (permission.is_none() || !bound.is_empty()) {
                let detail = match (permission, &bound[..]) {
                    (Some(_), _) => format!("{} are the whole tenant's; you are bound to partitions", kind.name()),
                    _ => format!("your role does not allow to {} {}", operation.act.verb(), kind.name()),
                };
                return Err(refused(nth, RefusalCode::Forbidden, &detail));
            }
        }
        // Nobody changes who may more than they do, not even to less.
        for (nth, operation) in command.operations.iter().enumerate() {
            let user = world::get(&self.standing, Table::User, &operation.id);
            let Some(user) = user.filter(|_| operation.resource == Table::User.name()) else { continue };
            let kind = of_table(Table::User).expect("users are a kind");
            let role = world::role(&self.standing, user.text("role").unwrap_or_default());
            let world = World { standing: &self.standing, permissions: &permissions, host, now_us: at.now_us };
            if !self.is_own(kind, operation, &command.principal) && role.is_some_and(|role| !world.covers(&role)) {
                let detail = format!("user {} may more than you do", user.id);
                return Err(refused(nth, RefusalCode::Forbidden, &detail));
            }
        }
        let administered = self.administered(at.now_us);
        // What to go back to: each that is touched, as it was.
        let mut before: BTreeMap<(Table, String), Option<Arc<Resource>>> = BTreeMap::new();
        let result = self.all_done(at, command, &permissions, host, administered, &mut before);
        if result.is_err() {
            for ((table, id), resource) in before {
                let kind = of_table(table).expect("what is touched is of a kind");
                self.set(kind, &id, resource);
            }
        }
        result
    }

    fn all_done(
        &mut self,
        at: At,
        command: &Command,
        permissions: &Permissions,
        host: bool,
        administered: bool,
        before: &mut BTreeMap<(Table, String), Option<Arc<Resource>>>,
    ) -> Result<Done, Refusal> {
        let mut last: BTreeMap<(Table, String), usize> = BTreeMap::new();
        let mut order = Vec::with_capacity(command.operations.len());
        for (nth, operation) in command.operations.iter().enumerate() {
            let refusal = |wrong: Wrong| Refusal {
                code: wrong.code,
                detail: wrong.detail,
                operation: nth,
                field: wrong.field.map(str::to_owned),
            };
            let kind = named(&operation.resource).expect("kinds were looked at");
            let key = (kind.table, operation.id.clone());
            let stands = self.standing.get(&key).cloned();
            let own = self.is_own(kind, operation, &command.principal);
            let after = stepped(at, command, operation, own, kind, stands.as_ref()).map_err(refusal)?;
            for (table, id) in self.ended(kind, command, operation, stands.as_ref(), after.as_ref()) {
                let gone = self.set(of_table(table).expect("dependents are of a kind"), &id, None);
                let key = (table, id);
                before.entry(key.clone()).or_insert(gone);
                last.insert(key, nth);
            }
            let was = self.set(kind, &operation.id, after);
            before.entry(key.clone()).or_insert(was);
            last.insert(key.clone(), nth);
            order.push(key);
        }
        let world = World { standing: &self.standing, permissions, host, now_us: at.now_us };
        let taken = taken(&world, at, command, &order)?;
        for (key, nth) in &last {
            let kind = of_table(key.0).expect("what is touched is of a kind");
            let refusal = |code, field: Option<&str>, detail| {
                Err(Refusal { code, detail, operation: *nth, field: field.map(str::to_owned) })
            };
            if let Some(resource) = self.standing.get(key)
                && let Err(wrong) = (kind.check)(&world, resource)
            {
                return refusal(wrong.code, wrong.field, wrong.detail);
            }
            if self.counts.get(&key.0).copied().unwrap_or_default() > kind.most && self.standing.contains_key(key) {
                let detail =
                    format!("a tenant has {} {} at most; delete some that nobody uses", kind.most, kind.name());
                return refusal(RefusalCode::TooMany, None, detail);
            }
            if !self.standing.contains_key(key)
                && let Some(referrer) = self.referrer(key)
            {
                let detail = format!("{} {} refers to it", referrer.resource, referrer.id);
                return refusal(RefusalCode::Reference, None, detail);
            }
        }
        // What the program does for somebody who signs in (another role, by their groups) is no exception.
        let exempt = host && command.principal.kind != PrincipalKind::System;
        if administered && !exempt && !command.force && !self.administered(at.now_us) {
            let detail =
                "nobody would be left who administers the tenant: make another administrator first; after this only \
                          `radarflow token create` on the server's host makes one"
                    .to_owned();
            return Err(Refusal { code: RefusalCode::Conflict, detail, operation: 0, field: None });
        }
        let change = |(key, before): (&(Table, String), &Option<Arc<Resource>>)| {
            let after = self.standing.get(key).cloned();
            (*before != after).then(|| ResourceChange { before: before.clone(), after })
        };
        let changes = before.iter().filter_map(change).collect();
        let outcome = order.iter().map(|key| self.standing.get(key).cloned()).collect();
        Ok(Done { outcome, changes, taken })
    }

    /// Whether an operation is on what is the principal's own: who has a session may end it, and everybody may change their own
    /// password and name.
    fn is_own(&self, kind: &ResourceKind, operation: &Operation, principal: &Principal) -> bool {
        if principal.kind != PrincipalKind::Session {
            return false;
        }
        let Some(session) = world::get(&self.standing, Table::Session, &principal.id) else { return false };
        let user = session.text("user").unwrap_or_default();
        match (kind.table, &operation.act) {
            (Table::Session, Act::Delete) => {
                let other = world::get(&self.standing, Table::Session, &operation.id);
                other.is_some_and(|other| other.text("user") == Some(user))
            }
            (Table::User, Act::Update { fields }) => {
                let own = ["display_name", "password"];
                operation.id == user && fields.keys().all(|field| own.contains(&field.as_str()))
            }
            // A session that was stolen takes no second factor away.
            (Table::User, Act::Do { action, .. }) => operation.id == user && action == "sign_out",
            _ => false,
        }
    }

    /// What an operation ends beside: sessions and links of a user who is gone, is disabled, signs out everywhere, or has another
    /// password or provider (in that case not the session that changes it); links to an address that is theirs no more; and sessions
    /// of a provider that lets nobody in any more.
    fn ended(
        &self,
        kind: &ResourceKind,
        command: &Command,
        operation: &Operation,
        before: Option<&Arc<Resource>>,
        after: Option<&Arc<Resource>>,
    ) -> Vec<(Table, String)> {
        let Some(before) = before else { return Vec::new() };
        let sessions = world::all(&self.standing, Table::Session);
        let is_cut = |after: &Resource| after.flag("disabled") && !before.flag("disabled");
        if kind.table == Table::IdentityProvider && after.is_none_or(|after| is_cut(after)) {
            let method = format!("oidc:{}", operation.id);
            let of_provider = sessions.filter(|session| session.text("method") == Some(&method));
            return of_provider.map(|session| (Table::Session, session.id.clone())).collect();
        }
        if kind.table != Table::User {
            return Vec::new();
        }
        let password = |user: &Arc<Resource>| user.secrets.get("password").cloned();
        let own = (command.principal.kind == PrincipalKind::Session).then_some(command.principal.id.as_str());
        let (all, spared) = match (&operation.act, after) {
            (Act::Do { .. }, _) | (_, None) => (true, None),
            (_, Some(after)) if is_cut(after) => (true, None),
            (_, Some(after)) if password(after) != password(before) => (true, own),
            (_, Some(after)) if after.text("provider") != before.text("provider") => (true, None),
            (_, Some(after)) if after.text("email") != before.text("email") => (false, None),
            _ => return Vec::new(),
        };
        let of_user = |resource: &&Arc<Resource>| resource.text("user") == Some(&operation.id);
        let links = world::all(&self.standing, Table::SignInLink).filter(of_user);
        let sessions = sessions.filter(|_| all).filter(of_user).filter(|session| Some(session.id.as_str()) != spared);
        let links = links.map(|link| (Table::SignInLink, link.id.clone()));
        sessions.map(|session| (Table::Session, session.id.clone())).chain(links).collect()
    }

    /// Whether there is somebody, beside who has the host, who can make administrators.
    fn administered(&self, now_us: i64) -> bool {
        let admin = |resource: &&Arc<Resource>| {
            resource.text("role") == Some(Role::Admin.name()) && resource.texts("partitions").is_empty()
        };
        let mut tokens = world::all(&self.standing, Table::ApiToken);
        tokens.any(|token| admin(&token) && world::holds(token, now_us))
            || world::all(&self.standing, Table::User)
                .any(|user| admin(&user) && !user.flag("disabled") && user.secrets.contains_key("password"))
    }

    /// One that refers to what is gone.
    fn referrer(&self, key: &(Table, String)) -> Option<&Arc<Resource>> {
        let of = |table| world::all(&self.standing, table);
        if key.0 == Table::DeviceGroup {
            return of(Table::Profile).find(|profile| profiles::refers(profile, &key.1));
        }
        let mut routes = of(Table::Route);
        match key.0 {
            Table::Receiver => {
                let names = |of: &&Arc<Resource>| of.texts("receivers").contains(&key.1);
                let policies = of(Table::EscalationPolicy).find(names);
                let rotas = of(Table::Rota).find(|rota| rotas::leads_to(rota, &key.1));
                let rota = |over: &Resource| {
                    let name = over.text("rota")?;
                    of(Table::Rota).find(|rota| rota.id == name).map(|rota| &**rota)
                };
                let overrides = of(Table::RotaOverride).find(|over| rotas::names(over, rota(over), &key.1));
                return routes.find(names).or(policies).or(rotas).or(overrides);
            }
            Table::Rota => {
                let policies = of(Table::EscalationPolicy).find(|policy| rotas::refers(policy, &key.1));
                let overrides = of(Table::RotaOverride).find(|over| over.text("rota") == Some(&key.1));
                return routes.find(|route| rotas::refers(route, &key.1)).or(policies).or(overrides);
            }
            Table::Route => return routes.find(|route| route.text("parent") == Some(&key.1)),
            Table::TimeInterval => {
                let windows = of(Table::MaintenanceWindow).find(|window| maintenance::refers(window, &key.1));
                let profiles = of(Table::Profile).find(|profile| profiles::pauses_by(profile, &key.1));
                let rotas = of(Table::Rota).find(|rota| rota.texts("time_intervals").contains(&key.1));
                return routes.find(|route| routes::refers(route, &key.1)).or(windows).or(profiles).or(rotas);
            }
            Table::Role => {}
            _ => return None,
        }
        let mut bears = of(Table::User).chain(of(Table::ApiToken));
        let bears = bears.find(|resource| resource.text("role") == Some(&key.1));
        bears.or_else(|| of(Table::IdentityProvider).find(|provider| providers::gives(provider).any(|r| r == key.1)))
    }

    /// Sets what stands; told is what stood.
    fn set(&mut self, kind: &ResourceKind, id: &str, resource: Option<Arc<Resource>>) -> Option<Arc<Resource>> {
        let end = |resource: &Resource| Some((resource.number(kind.expires?)?, kind.table, id.to_owned()));
        let key = (kind.table, id.to_owned());
        let count = self.counts.entry(kind.table).or_default();
        if let Some(resource) = &resource {
            *count += 1;
            self.ends.extend(end(resource));
        }
        let before = match resource {
            Some(resource) => self.standing.insert(key, resource),
            None => self.standing.remove(&key),
        };
        if let Some(before) = &before {
            *count -= 1;
            let now = self.standing.get(&(kind.table, id.to_owned()));
            let stays = now.and_then(|now| end(now));
            if let Some(end) = end(before)
                && stays.as_ref() != Some(&end)
            {
                self.ends.remove(&end);
            }
        }
        before
    }
}

/// Whether nothing is above a principal.
fn is_host(principal: &Principal) -> bool {
    matches!(principal.kind, PrincipalKind::Configuration | PrincipalKind::Host | PrincipalKind::System)
}

/// The steps that a command takes, on what its operations leave together.
fn taken(world: &World<'_>, at: At, command: &Command, order: &[(Table, String)]) -> Result<Vec<Taken>, Refusal> {
    let mut all = Vec::new();
    for (nth, (operation, key)) in command.operations.iter().zip(order).enumerate() {
        let (Act::Do { action, fields }, Some(resource)) = (&operation.act, world.standing.get(key)) else { continue };
        let declared = of_table(key.0).and_then(|kind| kind.actions.iter().find(|declared| declared.name == action));
        let Some(declared) = declared else { continue };
        let read = declared.read(fields).and_then(|fields| {
            (declared.check)(world, resource, &fields)?;
            Ok(fields)
        });
        let fields = read.map_err(|Wrong { code, field, detail }| Refusal {
            code,
            detail,
            operation: nth,
            field: field.map(str::to_owned),
        })?;
        all.push(Taken {
            resource: resource.clone(),
            action: action.clone(),
            fields: Shown(fields),
            command_id: command.command_id.clone(),
            operation: nth,
            by: command.principal.name.clone(),
            at_us: at.now_us,
            epoch: at.epoch,
        });
    }
    Ok(all)
}

/// One operation: the resource after it.
fn stepped(
    at: At,
    command: &Command,
    operation: &Operation,
    own: bool,
    kind: &ResourceKind,
    stands: Option<&Arc<Resource>>,
) -> Result<Option<Arc<Resource>>, Wrong> {
    let wrong = |code, detail: String| Err(Wrong { code, field: None, detail });
    let called = format!("{} {}", kind.singular, operation.id);
    match (operation.condition, stands) {
        (Condition::Absent, Some(stands)) => {
            let detail = format!("{called} exists; {} made it at epoch {}", stands.created_by, stands.epoch);
            return wrong(RefusalCode::PreconditionFailed, detail);
        }
        (Condition::Epoch(_), None) => {
            return wrong(RefusalCode::PreconditionFailed, format!("{called} is gone, or never was"));
        }
        (Condition::Epoch(epoch), Some(stands)) if stands.epoch != epoch => {
            let detail =
                format!("{called} was changed by {} at epoch {}: read it again", stands.updated_by, stands.epoch);
            return wrong(RefusalCode::PreconditionFailed, detail);
        }
        _ => {}
    }
    // What is one's own, and what whoever administers the host changes, stays whose it was.
    let of_host = command.principal.kind == PrincipalKind::Host || own;
    if operation.owner == CONFIGURATION && !is_host(&command.principal) {
        let detail = format!("{CONFIGURATION} is the configuration file's");
        return wrong(RefusalCode::Forbidden, detail);
    }
    let whosever = match &operation.act {
        Act::Do { action, .. } => kind.actions.iter().any(|known| known.name == action && known.whosever),
        _ => false,
    };
    let owned = |owner: &&String| !owner.is_empty() && **owner != operation.owner && !of_host && !whosever;
    if let Some(owner) = stands.map(|stands| &stands.owner).filter(owned) {
        let detail = format!("{called} belongs to {owner}: change it there");
        return wrong(RefusalCode::Owned, detail);
    }
    if kind.made_by == MadeBy::Program && !is_host(&command.principal) && !matches!(operation.act, Act::Delete) {
        return wrong(RefusalCode::Forbidden, format!("{} are made by the program itself", kind.name()));
    }
    match (&operation.act, stands) {
        (Act::Create { .. }, Some(_)) => wrong(RefusalCode::Exists, format!("{called} exists already")),
        (Act::Update { .. } | Act::Delete | Act::Do { .. }, None) => {
            wrong(RefusalCode::NotFound, format!("there is no {called}"))
        }
        (Act::Delete, Some(_)) => Ok(None),
        (Act::Create { fields } | Act::Put { fields }, stands) => {
            made(at, command, operation, of_host, kind, fields.clone(), stands).map(Some)
        }
        (Act::Update { fields }, Some(stands)) => {
            let mut said = stands.fields.0.clone();
            said.extend(fields.clone());
            made(at, command, operation, of_host, kind, said, Some(stands)).map(Some)
        }
        (Act::Do { action, fields }, Some(stands)) => match kind.actions.iter().find(|known| known.name == action) {
            Some(declared) => Ok(Some(done_to(at, command, stands, declared, fields))),
            None => {
                let known: Vec<_> = kind.actions.iter().map(|action| action.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                wrong(RefusalCode::NotFound, format!("a {} has no action {action}; there are: {known}", kind.singular))
            }
        },
    }
}

/// The resource after a step: less some of its secrets, with what the step sets.
fn done_to(at: At, command: &Command, stands: &Arc<Resource>, action: &ResourceAction, said: &Fields) -> Arc<Resource> {
    let by = &command.principal.name;
    // What is wrong with what was said is told when all is done, and then nothing is.
    let sets = action.read(said).map(|said| (action.sets)(at, by, stands, &said)).unwrap_or_default();
    if sets.is_empty() && !action.clears.iter().any(|name| stands.secrets.contains_key(*name)) {
        return stands.clone();
    }
    let mut after = Resource::clone(stands);
    after.secrets.retain(|name, _| !action.clears.contains(&name.as_str()));
    after.fields.0.extend(sets);
    (after.updated_us, after.updated_by, after.epoch) = (at.now_us, by.clone(), at.epoch);
    Arc::new(after)
}

/// The resource that says this.
fn made(
    at: At,
    command: &Command,
    operation: &Operation,
    stays: bool,
    kind: &ResourceKind,
    said: Fields,
    stands: Option<&Arc<Resource>>,
) -> Result<Arc<Resource>, Wrong> {
    // What was stated before there were resources knew no bounds.
    let bounds = !command.command_id.is_empty();
    let id = if bounds { check_id(&operation.id) } else { Ok(()) };
    id.map_err(|detail| Wrong { code: RefusalCode::Invalid, field: Some("id"), detail })?;
    // A secret that is not named stays; null takes it away.
    let mut secrets = stands.map(|stands| stands.secrets.clone()).unwrap_or_default();
    let named: Vec<&'static str> =
        kind.fields.iter().filter(|f| f.secret.is_some() && said.contains_key(f.name)).map(|f| f.name).collect();
    let mut read = said;
    let explicit = |name: &str| match &operation.act {
        Act::Create { fields } | Act::Update { fields } | Act::Put { fields } => fields.contains_key(name),
        Act::Delete | Act::Do { .. } => false,
    };
    for field in kind.fields.iter().filter(|field| field.secret.is_some() && field.required) {
        if !read.contains_key(field.name)
            && let Some(kept) = secrets.get(field.name)
        {
            read.insert(field.name.to_owned(), Value::String(kept.clone()));
        }
    }
    if let Some(stands) = stands {
        let changes = |field: &&super::Field| {
            read.get(field.name).is_some_and(|said| stands.fields.0.get(field.name) != Some(said))
        };
        let dropped: Vec<&str> = kind.fields.iter().filter(changes).flat_map(|field| field.drops).copied().collect();
        for name in dropped {
            if !explicit(name) {
                secrets.remove(name);
                read.remove(name);
            }
        }
    }
    let (fields, said_secrets) = kind.read_all(&read, bounds)?;
    for name in &named {
        secrets.remove(*name);
    }
    for (name, value) in said_secrets {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if !text.is_empty() && text != "[]" {
            secrets.insert(name, text);
        }
    }
    // What whoever administers the host changes stays whose it was.
    let owner = match stands {
        Some(stands) if stays => stands.owner.clone(),
        _ => operation.owner.clone(),
    };
    if let Some(stands) = stands {
        let changed = |field: &&super::Field| match field.secret {
            Some(_) => stands.secrets.get(field.name) != secrets.get(field.name),
            None => stands.fields.0.get(field.name) != fields.get(field.name),
        };
        if let Some(field) = kind.fields.iter().filter(|field| field.immutable).find(changed) {
            let detail = format!("{} of a {} never changes: make another", field.name, kind.singular);
            return Err(Wrong::field(field.name, detail).of(RefusalCode::Immutable));
        }
        // Said again, it is what it was: nothing moves.
        if stands.fields.0 == fields && stands.secrets == secrets && stands.owner == owner {
            return Ok(stands.clone());
        }
    }
    let by = &command.principal.name;
    Ok(Arc::new(Resource {
        resource: kind.name().to_owned(),
        tenant: command.tenant.clone(),
        id: operation.id.clone(),
        fields: Shown(fields),
        secrets,
        owner,
        created_us: stands.map_or(at.now_us, |stands| stands.created_us),
        created_by: stands.map_or_else(|| by.clone(), |stands| stands.created_by.clone()),
        updated_us: at.now_us,
        updated_by: by.clone(),
        epoch: at.epoch,
    }))
}
