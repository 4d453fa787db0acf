//! Who receives epochs.
//!
//! A consumer is handed each epoch, in order, and never keeps the one who hands it waiting: what it cannot do at once it
//! keeps in a room of its own, bounded in bytes, and when that is full it does what it has said it would:
//!
//! | consumer | keeps | beyond its room |
//! |---|---|---|
//! | lake | rows until their commit | it is the record: intake takes nothing but facts until there is room |
//! | Postgres | net changes a key | is filled anew from the live tables and the lake |
//! | outbox | due notifications | the rest stay in the dataflow's own difference of due and delivered |
//! | live tables, tokens, … | nothing | |

use std::sync::Arc;

use radarflow_connectors::sinks::lake::Lake;
use radarflow_connectors::sinks::postgres::Postgres;
use radarflow_connectors::sinks::webhook::Outbox;
use radarflow_proto::ports::{BoxFuture, EpochOutput};

/// Receives epochs, in order.
pub trait Consumer: Send + Sync + 'static {
    /// Its name, in logs and metrics.
    fn name(&self) -> &'static str;

    /// Takes an epoch. Never waits: not for the disk, not for the network, not for room.
    fn take(&self, output: &Arc<EpochOutput>);

    /// Up to which epoch it has nothing uncommitted; `None` where it keeps nothing that could be lost.
    fn applied(&self) -> Option<u64> {
        None
    }

    /// Whether intake must stop for it.
    fn is_full(&self) -> bool {
        false
    }

    /// The ledger has been read again; what comes now is new.
    fn caught_up(&self) {}

    /// Commits what it has, as far as its target takes it.
    fn finish(&self) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

impl Consumer for Lake {
    fn name(&self) -> &'static str {
        "lake"
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        Lake::take(self, output);
    }

    fn applied(&self) -> Option<u64> {
        Some(Lake::applied(self).get())
    }

    fn is_full(&self) -> bool {
        Lake::is_full(self)
    }

    fn finish(&self) -> BoxFuture<()> {
        let lake = self.clone();
        Box::pin(async move { lake.flush().await })
    }
}

impl Consumer for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        Postgres::take(self, output);
    }

    fn applied(&self) -> Option<u64> {
        Some(Postgres::applied(self).get())
    }
}

impl Consumer for Outbox {
    fn name(&self) -> &'static str {
        "outbox"
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        Outbox::take(self, output);
    }

    fn caught_up(&self) {
        self.go();
    }
}

/// Someone who only looks, and is done when the call is: it is called with every epoch.
pub fn tap(name: &'static str, look: impl Fn(&Arc<EpochOutput>) + Send + Sync + 'static) -> Arc<dyn Consumer> {
    Arc::new(Tap(name, look))
}

struct Tap<F>(&'static str, F);

impl<F: Fn(&Arc<EpochOutput>) + Send + Sync + 'static> Consumer for Tap<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        (self.1)(output);
    }
}
