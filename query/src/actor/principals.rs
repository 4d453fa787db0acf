//! Who is let in: bearers of API tokens, and people with a session. Both are known by hashes alone. What is revoked, or over,
//! lets nobody in; and where what somebody may do changes, whatever they were let in for ends, so that they ask again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use radarflow_proto::resource::{Principal, PrincipalKind, Resource, ResourceChange};
use radarflow_proto::rows::Table;
use radarflow_reconcile::resources::named;
use radarflow_reconcile::resources::world::{self, Standing};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::actor::grant::Until;
use crate::actor::{Actor, Grant};

/// What somebody bears, and what ends when it no longer holds.
struct Borne {
    tenant: String,
    table: Table,
    id: String,
    /// Dropped, it tells everybody who holds a grant.
    held: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    by_hash: HashMap<String, Borne>,
    of: HashMap<String, Standing>,
}

/// The resources that say who is let in, and for what: tokens, sessions, users, roles.
#[derive(Default)]
pub struct Principals(RwLock<Known>);

/// What is borne, without what says which it is: 43 base64url characters of 256 random bits.
fn random() -> String {
    use base64::Engine;
    let secret: [u8; 32] = rand::random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret)
}

/// A new API token.
pub fn new_token() -> String {
    format!("rf_{}", random())
}

/// What a session is borne by.
pub fn new_session() -> String {
    format!("rfs_{}", random())
}

/// What is kept of what is borne.
pub fn hash(borne: &str) -> String {
    hex::encode(Sha256::digest(borne.as_bytes()))
}

/// The id of what is borne, of its hash: it tells nothing that lets anybody in.
pub fn id_of(sha256: &str) -> &str {
    sha256.get(..16).unwrap_or(sha256)
}

/// Whether a resource says who is let in.
fn concerns(table: Table) -> bool {
    matches!(
        table,
        Table::ApiToken | Table::Session | Table::User | Table::Role | Table::IdentityProvider | Table::SignInLink
    )
}

impl Principals {
    /// Takes in what became of resources.
    pub fn learn(&self, changes: &[ResourceChange]) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for ResourceChange { before, after } in changes {
            let Some(of) = after.as_ref().or(before.as_ref()) else { continue };
            let Some(table) = named(&of.resource).map(|kind| kind.table).filter(|table| concerns(*table)) else {
                continue;
            };
            known.change(table, of.tenant.clone(), &of.id, after.as_ref());
        }
    }

    /// Whether nobody can be let in.
    pub fn is_empty(&self) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_hash.is_empty() && known.of.values().all(|standing| standing.is_empty())
    }

    /// The tokens of a tenant, by id.
    pub fn tokens(&self, tenant: &str) -> Vec<Arc<Resource>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.of.get(tenant).into_iter().flat_map(|standing| world::all(standing, Table::ApiToken)).cloned().collect()
    }

    /// Whether anybody can be let in to a tenant.
    pub(crate) fn knows(&self, tenant: &str) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.of.get(tenant).is_some_and(|standing| !standing.is_empty())
    }

    /// A user.
    pub(crate) fn user(&self, tenant: &str, name: &str) -> Option<Arc<Resource>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        world::get(known.of.get(tenant)?, Table::User, name).cloned()
    }

    /// The user that a provider knows as this.
    pub(crate) fn user_of_subject(&self, tenant: &str, provider: &str, subject: &str) -> Option<Arc<Resource>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut users = world::all(known.of.get(tenant)?, Table::User);
        let is =
            |user: &&Arc<Resource>| user.text("subject") == Some(subject) && user.text("provider") == Some(provider);
        users.find(is).cloned()
    }

    /// The identity providers of a tenant that let people in, by name.
    pub(crate) fn providers(&self, tenant: &str) -> Vec<Arc<Resource>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = known.of.get(tenant).into_iter().flat_map(|standing| world::all(standing, Table::IdentityProvider));
        all.filter(|provider| !provider.flag("disabled")).cloned().collect()
    }

    /// A link that was sent by mail.
    pub(crate) fn link(&self, tenant: &str, sha256: &str) -> Option<Arc<Resource>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let link = world::get(known.of.get(tenant)?, Table::SignInLink, id_of(sha256))?;
        (link.secrets.get("sha256").map(String::as_str) == Some(sha256)).then(|| link.clone())
    }

    /// The links a user was sent that may still be used.
    pub(crate) fn links(&self, tenant: &str, user: &str) -> Vec<Arc<Resource>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let links = known.of.get(tenant).into_iter().flat_map(|standing| world::all(standing, Table::SignInLink));
        links.filter(|link| link.text("user") == Some(user)).cloned().collect()
    }

    /// The sessions of a user, oldest first.
    pub(crate) fn sessions(&self, tenant: &str, user: &str) -> Vec<Arc<Resource>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let sessions = known.of.get(tenant).into_iter().flat_map(|standing| world::all(standing, Table::Session));
        let mut sessions: Vec<_> = sessions.filter(|session| session.text("user") == Some(user)).cloned().collect();
        sessions.sort_by_key(|session| session.created_us);
        sessions
    }

    /// Who bears a token or has a session, at an instant, milliseconds since 1970.
    pub fn actor(&self, borne: &str, clock_ms: i64) -> Option<Actor> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Borne { tenant, table, id, held } = known.by_hash.get(&hash(borne))?;
        let standing = known.of.get(tenant)?;
        let resource = world::get(standing, *table, id)?;
        let (kind, name) = match table {
            Table::Session => (PrincipalKind::Session, resource.text("user")?),
            _ => (PrincipalKind::Token, resource.text("name")?),
        };
        let principal = Principal { kind, id: id.clone(), name: name.to_owned(), address: None };
        let now_us = clock_ms.saturating_mul(1000);
        let (permissions, partitions) = world::permissions(standing, &principal, now_us)?;
        let expires_ms = resource.number("expires_at").map(|us| us / 1000);
        let grant = Grant(Some(Until { revoked: held.subscribe(), expires_ms }));
        Some(Actor { name: name.to_owned(), tenant: tenant.clone(), permissions, partitions, principal, grant })
    }
}

impl Known {
    fn change(&mut self, table: Table, tenant: String, id: &str, after: Option<&Arc<Resource>>) {
        let standing = self.of.entry(tenant.clone()).or_default();
        let key = (table, id.to_owned());
        let after_hash = after.and_then(|after| after.secrets.get("sha256").cloned());
        let before = match after {
            Some(after) => standing.insert(key, after.clone()),
            None => standing.remove(&key),
        };
        if before.as_ref() == after {
            return;
        }
        let is_new = before.is_none();
        match table {
            Table::ApiToken | Table::Session => {
                let of = |resource: &Resource| resource.secrets.get("sha256").cloned();
                if let Some(gone) = before.as_deref().and_then(of).filter(|hash| Some(hash) != after_hash.as_ref()) {
                    self.by_hash.remove(&gone);
                }
                if let Some(hash) = after_hash {
                    let borne = || Borne { tenant, table, id: id.to_owned(), held: watch::Sender::new(()) };
                    self.by_hash.entry(hash).or_insert_with(borne);
                }
            }
            // Nobody was let in for what was not there.
            _ if is_new && matches!(table, Table::User | Table::Role) => {}
            Table::User => {
                let allows = |user: Option<&Arc<Resource>>| {
                    user.map(|u| (u.text("role").map(str::to_owned), u.texts("partitions"), u.flag("disabled")))
                };
                if allows(before.as_ref()) != allows(after) {
                    let of_user = |session: &Resource| session.text("user") == Some(id);
                    self.end(&tenant, |table, resource| table == Table::Session && of_user(resource));
                }
            }
            Table::IdentityProvider | Table::SignInLink => {}
            _ => self.end(&tenant, |table, resource| match table {
                Table::ApiToken => resource.text("role") == Some(id),
                // Whose role it is their user says: all of them ask again.
                _ => true,
            }),
        }
    }

    /// Ends what some were let in for; they may be let in again.
    fn end(&mut self, tenant: &str, whom: impl Fn(Table, &Resource) -> bool) {
        let Some(standing) = self.of.get(tenant) else { return };
        let borne = standing.iter().filter(|((table, _), resource)| {
            matches!(table, Table::ApiToken | Table::Session) && whom(*table, resource)
        });
        let hashes: BTreeSet<&String> = borne.filter_map(|(_, resource)| resource.secrets.get("sha256")).collect();
        for hash in hashes {
            if let Some(borne) = self.by_hash.get_mut(hash) {
                borne.held = watch::Sender::new(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use radarflow_proto::fact::Role;
    use radarflow_proto::resource::{Fields, Shown};
    use radarflow_reconcile::access::Action;
    use serde_json::{Value, json};

    use super::*;
    use crate::actor::now_ms;

    fn resource(tenant: &str, kind: &str, id: &str, fields: Value, sha256: Option<&str>) -> Arc<Resource> {
        let fields: Fields = serde_json::from_value(fields).unwrap();
        Arc::new(Resource {
            resource: kind.into(),
            tenant: tenant.into(),
            id: id.into(),
            fields: Shown(fields),
            secrets: sha256.map(|text| ("sha256".to_owned(), hash(text))).into_iter().collect(),
            owner: String::new(),
            created_us: 0,
            created_by: String::new(),
            updated_us: 0,
            updated_by: String::new(),
            epoch: 1,
        })
    }

    fn token(tenant: &str, id: &str, text: &str, expires_ms: Option<i64>) -> ResourceChange {
        let expires_at = expires_ms.map(|ms| ms * 1000);
        let fields = json!({"name": "n", "role": "viewer", "partitions": [], "expires_at": expires_at});
        ResourceChange { before: None, after: Some(resource(tenant, "tokens", id, fields, Some(text))) }
    }

    fn gone(change: &ResourceChange) -> ResourceChange {
        ResourceChange { before: change.after.clone(), after: None }
    }

    fn set(resource: Arc<Resource>) -> ResourceChange {
        ResourceChange { before: None, after: Some(resource) }
    }

    #[test]
    fn tokens_are_known_expire_and_are_revoked() {
        let text = new_token();
        assert_eq!(text.len(), 46);
        let principals = Principals::default();
        let stated = token("t", "1", &text, Some(100));
        principals.learn(std::slice::from_ref(&stated));
        assert_eq!(principals.actor(&text, 99).unwrap().tenant, "t");
        assert!(principals.actor(&text, 100).is_none());
        assert!(principals.actor("rf_other", 0).is_none());
        // Nobody revokes what is another tenant's.
        principals.learn(&[gone(&token("u", "1", "other", None))]);
        assert!(principals.actor(&text, 0).is_some());
        principals.learn(&[gone(&stated)]);
        assert!(principals.actor(&text, 0).is_none() && principals.is_empty());
    }

    #[tokio::test]
    async fn what_a_token_let_in_ends_with_it() {
        let wait = Duration::from_secs(20);
        let (lasts, ends) = (new_token(), new_token());
        let principals = Principals::default();
        let soon = now_ms() + 300;
        let stated = token("t", "1", &lasts, None);
        principals.learn(&[stated.clone(), token("t", "2", &ends, Some(soon))]);
        let [lasts, ends] = [&lasts, &ends].map(|text| principals.actor(text, now_ms()).unwrap().grant);
        assert!(!lasts.has_ended() && !ends.has_ended() && !Grant::default().has_ended());
        tokio::time::timeout(wait, ends.ended()).await.expect("it is over");
        assert!(ends.has_ended() && now_ms() >= soon && !lasts.has_ended());
        // Said again at a start it is the same; revoked, everybody hears it who holds it.
        principals.learn(std::slice::from_ref(&stated));
        assert!(!lasts.has_ended());
        let hears = tokio::spawn(lasts.ended());
        principals.learn(&[gone(&stated)]);
        assert!(lasts.has_ended());
        tokio::time::timeout(wait, hears).await.expect("it is told").unwrap();
    }

    #[test]
    fn what_somebody_may_do_is_what_their_user_and_role_say_now() {
        let principals = Principals::default();
        let text = new_session();
        let session = json!({"user": "ann", "method": "password", "expires_at": 4_000_000_000_000_000_i64});
        let user = |role: &str, disabled: bool| json!({"role": role, "partitions": ["north"], "disabled": disabled});
        principals.learn(&[
            set(resource("t", "sessions", "s", session, Some(&text))),
            set(resource("t", "users", "ann", user("operator", false), None)),
        ]);
        let actor = principals.actor(&text, 0).unwrap();
        assert_eq!((actor.name.as_str(), actor.partitions.as_slice()), ("ann", &["north".to_owned()][..]));
        assert!(actor.may(Action::Link) && !actor.may(Action::Maintain) && !actor.grant.has_ended());
        // Another role: what she was let in for ends, and she is let in again.
        principals.learn(&[set(resource("t", "users", "ann", user("noc", false), None))]);
        assert!(actor.grant.has_ended() && principals.actor(&text, 0).is_none(), "there is no such role");
        let role = |permissions: Value| set(resource("t", "roles", "noc", json!({"permissions": permissions}), None));
        principals.learn(&[role(json!(["data:read"]))]);
        let actor = principals.actor(&text, 0).unwrap();
        assert!(actor.may(Action::Query) && !actor.may(Action::StepAlert));
        principals.learn(&[role(json!(["data:read", "alerts:step"]))]);
        assert!(actor.grant.has_ended());
        assert!(principals.actor(&text, 0).unwrap().may(Action::StepAlert));
        principals.learn(&[set(resource("t", "users", "ann", user(Role::Admin.name(), true), None))]);
        assert!(principals.actor(&text, 0).is_none(), "she is disabled");
    }
}
