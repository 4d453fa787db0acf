//! Tokens that the program makes by itself: the first one, and those of the demonstration.

use anyhow::Result;
use radarflow_proto::fact::{Fact, Role, Token};
use radarflow_proto::ports::Appender;
use radarflow_query::actor::{hash, new_token};
use radarflow_query::http::Api;
use radarflow_query::tables::live::Live;

use crate::config::Config;
use crate::standing::settle;

/// The fact that makes a token.
pub(crate) fn fact(name: &str, tenant: &str, role: Role, partitions: Vec<String>, text: &str) -> Fact {
    let sha256 = hash(text);
    Fact::Token(Token {
        id: sha256[..16].to_owned(),
        name: name.to_owned(),
        sha256,
        tenant: tenant.to_owned(),
        role,
        partitions,
        expires_ms: None,
    })
}

/// Makes the administrator's token where there is none yet and nobody but this host can use it.
pub(super) async fn first(config: &Config, api: &Api, live: &Live) -> Result<Option<String>> {
    if !api.principals.is_empty() {
        return Ok(None);
    }
    if !config.is_local() {
        tracing::warn!("there is no token yet; make the first with `radarflow token create` on this host");
        return Ok(None);
    }
    let text = new_token();
    let fact = fact("admin", "default", Role::Admin, Vec::new(), &text);
    settle(&*api.sink, live, "default", "configuration", &[fact]).await?;
    Ok(Some(text))
}

/// Makes a token; it works when this returns.
pub(super) async fn make(appender: &dyn Appender, live: &Live, name: &str, tenant: &str, role: Role) -> Result<String> {
    let text = new_token();
    settle(appender, live, tenant, "demo", &[fact(name, tenant, role, Vec::new(), &text)]).await?;
    Ok(text)
}
