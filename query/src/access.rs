//! Who asks: bearer tokens, known by their hash, and what they may see.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use axum::http::StatusCode;
use axum::response::Response;
use radarflow_proto::fact::{Fact, Role, Token};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::http::problem;

/// Who asks, and what they may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The token's name.
    pub name: String,
    /// Customer.
    pub tenant: String,
    /// What they may do.
    pub role: Role,
    /// The sites they are bound to; empty for all of the tenant's.
    pub partitions: Vec<String>,
}

impl Actor {
    /// What is the whole tenant's is not for those who are bound to partitions.
    #[allow(clippy::result_large_err)]
    pub(crate) fn whole(&self, what: &str) -> Result<(), Response> {
        if self.partitions.is_empty() {
            return Ok(());
        }
        let detail = format!("{what} is the whole tenant's; this token is bound to partitions");
        Err(problem(StatusCode::FORBIDDEN, "forbidden", &detail, json!({})))
    }
}

/// The tokens there are.
#[derive(Default)]
pub struct Tokens {
    by_hash: RwLock<HashMap<String, Token>>,
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

impl Tokens {
    /// Takes in standing facts.
    pub fn learn(&self, facts: &[Fact]) {
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        for fact in facts {
            match fact {
                Fact::Token(token) => {
                    by_hash.insert(token.sha256.clone(), token.clone());
                }
                Fact::TokenRevoked { id } => by_hash.retain(|_, t| t.id != *id),
                _ => {}
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_hash.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Who bears the token, at an instant of the ledger's clock.
    pub fn actor(&self, token: &str, clock_ms: i64) -> Option<Actor> {
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let token = by_hash.get(&hash(token))?;
        if token.expires_ms.is_some_and(|at| at <= clock_ms) {
            return None;
        }
        Some(Actor {
            name: token.name.clone(),
            tenant: token.tenant.clone(),
            role: token.role,
            partitions: token.partitions.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_expire_and_are_revoked() {
        let text = new_token();
        assert_eq!(text.len(), 46);
        let tokens = Tokens::default();
        let token = Token {
            id: "1".into(),
            name: "n".into(),
            sha256: hash(&text),
            tenant: "t".into(),
            role: Role::Viewer,
            partitions: vec![],
            expires_ms: Some(100),
        };
        tokens.learn(&[Fact::Token(token)]);
        assert_eq!(tokens.actor(&text, 99).unwrap().tenant, "t");
        assert_eq!(tokens.actor(&text, 100), None);
        assert_eq!(tokens.actor("rf_other", 0), None);
        tokens.learn(&[Fact::TokenRevoked { id: "1".into() }]);
        assert_eq!(tokens.actor(&text, 0), None);
    }
}
