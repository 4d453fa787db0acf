//! Clients of HTTP servers, one way to make them.

use reqwest::{Client, ClientBuilder, Error};

/// A client as `said`. Where the machine knows no certificate authorities none is trusted, and servers without TLS are
/// reached all the same.
pub fn client(said: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, Error> {
    let begun = || said(Client::builder().user_agent(concat!("radarflow/", env!("CARGO_PKG_VERSION"))));
    begun().build().or_else(|error| {
        let client = begun().tls_certs_only([]).build()?;
        tracing::warn!(%error, "no certificate authorities are known here: servers with TLS cannot be reached");
        Ok(client)
    })
}
