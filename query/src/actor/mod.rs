//! Who asks: a name, a tenant, a role, and the sites they are bound to.
//!
//! A token that is revoked, or over, lets nobody in; and whatever it let in ends with it ([`Grant`]): questions under way,
//! answers that are still being sent, live queries, uploads.
//!
//! | file | says |
//! |---|---|
//! | [`tokens`] | which tokens there are, and whom each lets in |
//! | [`grant`] | how long |
//! | [`turns`] | who changes what stands waits for whoever does so in the same tenant |

mod grant;
mod tokens;
pub mod turns;

use radarflow_proto::fact::{Actor as FactActor, Role};

pub use self::grant::Grant;
pub(crate) use self::grant::now_ms;
pub use self::tokens::{TOKENS_TENANT, Tokens, hash, new_token};

/// Who asks, and what they may see.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The token's name.
    pub name: String,
    /// Customer.
    pub tenant: String,
    /// What they may do.
    pub role: Role,
    /// The sites they are bound to; empty for all of the tenant's.
    pub partitions: Vec<String>,
    /// How long it holds.
    pub grant: Grant,
}

/// What is the whole tenant's was asked of by somebody who is bound to partitions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is the whole tenant's; this token is bound to partitions")]
pub struct Bound(String);

impl Actor {
    /// What is the whole tenant's is not for those who are bound to partitions.
    ///
    /// # Errors
    /// They are bound.
    pub fn whole(&self, what: &str) -> Result<(), Bound> {
        if self.partitions.is_empty() { Ok(()) } else { Err(Bound(what.to_owned())) }
    }

    /// As facts name them.
    pub(crate) fn as_fact(&self) -> FactActor {
        FactActor { name: self.name.clone(), role: self.role }
    }
}
