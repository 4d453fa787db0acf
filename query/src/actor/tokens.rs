//! Bearer tokens, known by their hash. One that is revoked, or over, lets nobody in.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use radarflow_proto::fact::{Fact, Token};
use radarflow_reconcile::access::{Action, may};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::actor::grant::Until;
use crate::actor::turns::Turns;
use crate::actor::{Actor, Grant};

/// Tokens of one tenant, expired ones among them.
pub const TOKENS_TENANT: usize = 10_000;

/// A token, and what ends when it is revoked.
struct Known {
    token: Token,
    /// Dropped, it tells everybody who holds a grant.
    held: watch::Sender<()>,
}

/// The tokens there are.
#[derive(Default)]
pub struct Tokens {
    by_hash: RwLock<HashMap<String, Known>>,
    /// Who makes or revokes one waits for whoever does so in the same tenant.
    pub(crate) turns: Turns,
}

/// A new token: `rf_` and 43 base64url characters.
pub fn new_token() -> String {
    use base64::Engine;
    let secret: [u8; 32] = rand::random();
    format!("rf_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret))
}

/// What is kept of a token.
pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// Whether a token could make others, and revoke them.
fn manages(token: &Token, clock_ms: i64) -> bool {
    may(token.role, Action::ManageTokens) && token.partitions.is_empty() && holds(token, clock_ms)
}

fn holds(token: &Token, clock_ms: i64) -> bool {
    token.expires_ms.is_none_or(|at| at > clock_ms)
}

impl Tokens {
    /// Takes in standing facts.
    pub fn learn(&self, facts: &[Fact]) {
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        for fact in facts {
            match fact {
                // Said again, it is no other: what it let in goes on.
                Fact::Token(token) if by_hash.get(&token.sha256).is_none_or(|known| known.token != *token) => {
                    let known = Known { token: token.clone(), held: watch::Sender::new(()) };
                    by_hash.insert(token.sha256.clone(), known);
                }
                Fact::TokenRevoked { tenant, id, .. } => {
                    by_hash.retain(|_, known| known.token.id != *id || known.token.tenant != *tenant);
                }
                _ => {}
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_hash.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// All of them, or those of a tenant, by tenant, name and id.
    pub fn all(&self, tenant: Option<&str>) -> Vec<Token> {
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = by_hash.values().map(|known| &known.token).filter(|t| tenant.is_none_or(|of| t.tenant == of));
        let mut tokens: Vec<Token> = wanted.cloned().collect();
        tokens.sort_by(|a, b| (&a.tenant, &a.name, &a.id).cmp(&(&b.tenant, &b.name, &b.id)));
        tokens
    }

    /// Whether a token of a tenant is the only one that could make others, and revoke them, at an instant, milliseconds since
    /// 1970.
    pub(crate) fn is_last_that_manages(&self, tenant: &str, id: &str, clock_ms: i64) -> bool {
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let tokens = by_hash.values().map(|known| &known.token).filter(|token| token.tenant == tenant);
        let mut managing = tokens.filter(|token| manages(token, clock_ms));
        managing.next().is_some_and(|first| first.id == id) && managing.next().is_none()
    }

    /// Who bears the token, at an instant, milliseconds since 1970.
    pub fn actor(&self, token: &str, clock_ms: i64) -> Option<Actor> {
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let Known { token, held } = by_hash.get(&hash(token))?;
        holds(token, clock_ms).then(|| Actor {
            name: token.name.clone(),
            tenant: token.tenant.clone(),
            role: token.role,
            partitions: token.partitions.clone(),
            grant: Grant(Some(Until { revoked: held.subscribe(), expires_ms: token.expires_ms })),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use radarflow_proto::fact::Role;

    use super::*;
    use crate::actor::now_ms;

    fn token(id: &str, tenant: &str, text: &str, expires_ms: Option<i64>) -> Fact {
        Fact::Token(Token {
            id: id.into(),
            name: "n".into(),
            sha256: hash(text),
            tenant: tenant.into(),
            role: Role::Viewer,
            partitions: vec![],
            expires_ms,
        })
    }

    fn revoked(id: &str, tenant: &str) -> Fact {
        let actor = radarflow_proto::fact::Actor { name: "ann".into(), role: Role::Admin };
        let (tenant, id) = (tenant.into(), id.into());
        Fact::TokenRevoked { tenant, id, name: "n".into(), actor, reason: String::new() }
    }

    #[test]
    fn tokens_are_known_expire_and_are_revoked() {
        let text = new_token();
        assert_eq!(text.len(), 46);
        let tokens = Tokens::default();
        tokens.learn(&[token("1", "t", &text, Some(100))]);
        assert_eq!(tokens.actor(&text, 99).unwrap().tenant, "t");
        assert!(tokens.actor(&text, 100).is_none());
        assert!(tokens.actor("rf_other", 0).is_none());
        // Nobody revokes what is another tenant's.
        tokens.learn(&[revoked("1", "u")]);
        assert!(tokens.actor(&text, 0).is_some());
        tokens.learn(&[revoked("1", "t")]);
        assert!(tokens.actor(&text, 0).is_none() && tokens.is_empty());
    }

    #[tokio::test]
    async fn what_a_token_let_in_ends_with_it() {
        let wait = Duration::from_secs(20);
        let (lasts, ends) = (new_token(), new_token());
        let tokens = Tokens::default();
        let soon = now_ms() + 300;
        tokens.learn(&[token("1", "t", &lasts, None), token("2", "t", &ends, Some(soon))]);
        let [lasts, ends] = [&lasts, &ends].map(|text| tokens.actor(text, now_ms()).unwrap().grant);
        assert!(!lasts.has_ended() && !ends.has_ended() && !Grant::default().has_ended());
        tokio::time::timeout(wait, ends.ended()).await.expect("it is over");
        assert!(ends.has_ended() && now_ms() >= soon && !lasts.has_ended());
        // Said again at a start it is the same; revoked, everybody hears it who holds it.
        let all = tokens.all(Some("t")).into_iter().map(Fact::Token).collect::<Vec<_>>();
        tokens.learn(&all);
        assert!(!lasts.has_ended());
        let hears = tokio::spawn(lasts.ended());
        tokens.learn(&[revoked("1", "t")]);
        assert!(lasts.has_ended());
        tokio::time::timeout(wait, hears).await.expect("it is told").unwrap();
    }
}
