//! The listener for clients that speak the protocol of Postgres. It is bound at the start, so that an address that is taken is
//! told at once; who connects before everything is ready waits.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt;
use radarflow_connectors::sources::accept::{self, Connection, ConnectionSlots};
use radarflow_connectors::sources::tls::Tls;
use radarflow_proto::room::Room;
use radarflow_query::actor::Principals;
use radarflow_query::engine::Engine;
use radarflow_query::postgres::{PROTOCOLS, Securer, Server};

use crate::config::Postgres;

/// What is open.
pub(super) struct Clients {
    pub(super) addr: SocketAddr,
    pub(super) tls: Option<Arc<Tls>>,
    socket: tokio::net::TcpListener,
    plaintext: bool,
}

impl Clients {
    /// Listens.
    pub(super) async fn open(config: &Postgres) -> Result<Clients> {
        let socket = tokio::net::TcpListener::bind(config.addr).await.with_context(|| {
            format!(
                "clients of Postgres cannot be listened for on {}; change [postgres] addr, or stop what uses it",
                config.addr
            )
        })?;
        let addr = socket.local_addr()?;
        let tls = config.tls.as_ref().map(|files| Tls::read(files.clone(), PROTOCOLS)).transpose()?;
        if tls.is_none() && !addr.ip().is_loopback() && !config.plaintext {
            tracing::warn!(%addr, "clients of Postgres on other hosts are refused: configure [postgres.tls], or plaintext = true behind a proxy");
        }
        Ok(Clients { addr, tls, socket, plaintext: config.plaintext })
    }

    /// What serves them.
    pub(super) fn server(
        &self,
        engine: &Arc<Engine>,
        principals: &Arc<Principals>,
        room: &Arc<Room>,
    ) -> Result<Arc<Server>> {
        Ok(Arc::new(Server::new(engine.clone(), principals.clone(), self.plaintext, room.clone())?))
    }

    /// Lets them in.
    pub(super) fn serve(self, server: Arc<Server>, slots: Arc<ConnectionSlots>) {
        let connections = accept::connections(self.socket, None, slots).map(|connection| {
            let connection = connection?;
            let peer = connection.peer().ip();
            Ok((connection, peer))
        });
        let securer: Option<Securer<Connection>> = self.tls.map(|tls| -> Securer<Connection> {
            Arc::new(move |connection: Connection| {
                let tls = tls.clone();
                Box::pin(async move { connection.secured(&tls).await })
            })
        });
        tokio::spawn(async move { server.serve(connections, securer).await });
    }
}
