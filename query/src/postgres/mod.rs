//! The wire protocol of Postgres, version 3, for clients that speak nothing else: psql, drivers (JDBC, psycopg), Grafana,
//! Metabase. The same entities, tokens, scope and limits as over HTTP; nothing can be written.
//!
//! ```text
//! startup ─► session ─► statement ─► fit ─► engine          a statement over entities
//!               │            └─────► catalog                one over pg_catalog or information_schema
//!               └─► settings, cursors, transactions         one of the session
//! ```
//! | file | says |
//! |---|---|
//! | [`wire`], [`refusal`] | messages, and how errors are told |
//! | [`startup`], [`limits`] | who is let in, and how many |
//! | [`session`], [`portal`], [`settings`] | what a session does and remembers |
//! | [`statement`], [`parameters`], [`fit`] | what a statement wants, with which values, as the engine plans it |
//! | [`rows`], [`types`], [`kinds`] | rows as they are sent, and their types |
//! | [`catalog`] | what Postgres tells of itself |
//!
//! Each statement reads one epoch, the newest there is: a transaction holds nothing, and what it reads twice may differ.

mod catalog;
mod fit;
mod kinds;
pub mod limits;
mod parameters;
mod portal;
mod refusal;
mod rows;
mod session;
mod settings;
mod startup;
mod statement;
mod types;
mod wire;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use radarflow_proto::room::Room;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use self::limits::Limits;
use crate::actor::Principals;
use crate::engine::Engine;

/// The version that clients are told: what they send depends on it.
const VERSION: &str = "15.0";
const VERSION_NUMBER: &str = "150000";
const VERSION_TEXT: &str = concat!("PostgreSQL 15.0 (Radarflow ", env!("CARGO_PKG_VERSION"), ", read-only)");

/// The protocols that a connection with TLS may agree upon.
pub const PROTOCOLS: &[&[u8]] = &[b"postgresql"];

/// Makes a connection secure.
pub type Securer<C> = Arc<dyn Fn(C) -> BoxFuture<'static, std::io::Result<C>> + Send + Sync>;

/// Stack of the threads that sessions run on, bytes: parsed statements are walked by recursion.
const STACK: usize = 32 << 20;

/// Serves clients of Postgres, on threads of its own.
pub struct Server {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Option<Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dropped where nothing may block.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// What sessions share.
struct Shared {
    engine: Arc<Engine>,
    principals: Arc<Principals>,
    /// Whether passwords are taken without TLS from other hosts too.
    plaintext: bool,
    limits: Limits,
    running: Mutex<HashMap<i32, Running>>,
    stopping: watch::Receiver<bool>,
}

/// A session whose statement can be cancelled by whoever knows its key.
struct Running {
    key: i32,
    cancel: Arc<watch::Sender<()>>,
}

impl Server {
    /// One that answers with an engine whoever bears one of these tokens, with memory of a room for what it is asked.
    /// `plaintext` says that passwords are taken without TLS from other hosts too.
    ///
    /// # Errors
    /// Its threads cannot be started.
    pub fn new(
        engine: Arc<Engine>,
        principals: Arc<Principals>,
        plaintext: bool,
        room: Arc<Room>,
    ) -> std::io::Result<Server> {
        let threads =
            Builder::new_multi_thread().thread_name("session").thread_stack_size(STACK).enable_all().build()?;
        let (stop, stopping) = watch::channel(false);
        let (limits, running) = (Limits::new(room), Mutex::default());
        let shared = Arc::new(Shared { engine, principals, plaintext, limits, running, stopping });
        Ok(Server { shared, stop, threads: Some(threads) })
    }

    /// Makes its metrics known.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.limits.metrics.register(registry);
    }

    /// Serves connections until it is stopped. With `securer` they may become secure.
    pub async fn serve<C>(
        &self,
        connections: impl Stream<Item = std::io::Result<(C, IpAddr)>> + Send,
        securer: Option<Securer<C>>,
    ) where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connections = Box::pin(connections);
        let mut stopping = self.shared.stopping.clone();
        loop {
            let next = tokio::select! {
                next = connections.next() => next,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            match next {
                None => return,
                Some(Err(_)) => {}
                Some(Ok((io, peer))) => {
                    let Some(threads) = &self.threads else { return };
                    threads.spawn(startup::serve(self.shared.clone(), io, peer, securer.clone()));
                }
            }
        }
    }

    /// Ends all sessions, and what they run.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Shared {
    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number and a key for a session.
    fn enter(&self) -> (i32, i32, watch::Receiver<()>) {
        let (cancel, cancelled) = watch::channel(());
        let cancel = Arc::new(cancel);
        let mut running = self.running();
        let pid = loop {
            let pid = rand::random::<i32>() & i32::MAX;
            if pid > 0 && !running.contains_key(&pid) {
                break pid;
            }
        };
        let key = rand::random();
        running.insert(pid, Running { key, cancel });
        (pid, key, cancelled)
    }

    fn leave(&self, pid: i32) {
        self.running().remove(&pid);
    }

    /// Cancels what a session runs, for whoever knows its key.
    fn cancel(&self, pid: i32, key: i32) {
        if let Some(running) = self.running().get(&pid).filter(|running| running.key == key) {
            self.limits.metrics.cancelled.inc();
            running.cancel.send_replace(());
        }
    }
}
