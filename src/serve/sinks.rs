//! Where outputs go: the live tables, the lake, Postgres, receivers of notifications, inventories that are written to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use arrow_array::RecordBatch;
use radarflow_connectors::clock::SystemClock;
use radarflow_connectors::ledger::DataDir;
use radarflow_connectors::mail::Mailer;
use radarflow_connectors::reach::Reach;
use radarflow_connectors::sealing::Keyring;
use radarflow_connectors::sinks::lake::Lake;
use radarflow_connectors::sinks::postgres::{self, Postgres};
use radarflow_connectors::sinks::webhook::Outbox;
use radarflow_connectors::sinks::{Applied, armis};
use radarflow_connectors::sources::{Stop, inventory};
use radarflow_pipeline::{Opened, Replay};
use radarflow_proto::disk::Disk;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::BoxFuture;
use radarflow_proto::record::IdKind;
use radarflow_proto::rows::Table;
use radarflow_query::tables::live::Live;

use crate::config::{Armis, Config};
use crate::memory::Budget;
use crate::standing::Registry;

/// What is open.
pub(super) struct Sinks {
    pub(super) live: Arc<Live>,
    pub(super) lake: Option<Lake>,
    pub(super) postgres: Option<Arc<Postgres>>,
    pub(super) outbox: Arc<Outbox>,
    /// What secrets in the ledger are sealed with.
    pub(super) keys: Arc<Keyring>,
    lake_path: PathBuf,
}

/// Opens what is configured; the schema of Postgres is brought up to date first where that is asked for.
pub(super) async fn open(
    config: &Config,
    disk: &Arc<dyn Disk>,
    dir: &DataDir,
    opened: &mut Opened,
    memory: &Budget,
    url: &str,
    migrate: bool,
) -> Result<Sinks> {
    let start_epoch = opened.start_epoch();
    let keep = config.sinks.lake.keep();
    let lake_path = config.sinks.lake.path.clone().unwrap_or_else(|| dir.path("lake"));
    let live = Live::new(config.sinks.lake.enabled.then(|| lake_path.clone()), start_epoch);
    let live = Arc::new(live.keeping(keep.events));
    let mut ends = opened.replay().last;
    let lake = if config.sinks.lake.enabled {
        let live = live.clone();
        let on_commit = Arc::new(move |table: LakeTable, epoch| -> BoxFuture<()> {
            let live = live.clone();
            Box::pin(async move {
                if let Err(error) = live.committed(table, epoch).await {
                    tracing::error!(%error, table = table.name(), "the lake's new version cannot be read");
                }
            })
        });
        let lake = Lake::start(disk, &lake_path, start_epoch, keep, memory.fresh(), on_commit).await?;
        // A Postgres that is further than this has what the ledger lost.
        ends = opened.replay().last;
        opened.go_on_after(lake.newest())?;
        Some(lake)
    } else {
        None
    };
    let postgres = match &config.sinks.postgres {
        Some(p) => {
            if migrate {
                postgres::migrate(&p.url).await?;
            }
            let truth = Arc::new(LiveTruth(live.clone()));
            let (generation, bound) = (opened.generation(), memory.postgres());
            let here = start_epoch..=ends;
            Some(Arc::new(Postgres::start(&p.url, generation, here, bound, truth)?))
        }
        None => None,
    };
    let reach = Reach::of(config.private_addresses);
    let outbox = Outbox::start(opened.appender().clone(), Arc::new(SystemClock), url.to_owned(), reach)?;
    let keys = Arc::new(Keyring::open(&**disk, &dir.path("sealing.keys"))?);
    let outbox = outbox.within(memory.outbox()).unsealing(keys.clone());
    let outbox = match &config.mail {
        Some(mail) => outbox.mailing(Arc::new(Mailer::new(&mail.smtp, &mail.from)?)),
        None => outbox,
    };
    let outbox = Arc::new(outbox);
    Ok(Sinks { live, lake, postgres, outbox, keys, lake_path })
}

impl Sinks {
    /// How far those are that keep something.
    pub(super) fn applied(&self) -> Vec<(&'static str, Applied)> {
        let lake = self.lake.iter().map(|lake| ("lake", lake.applied().clone()));
        lake.chain(self.postgres.iter().map(|postgres| ("postgres", postgres.applied().clone()))).collect()
    }

    /// How far each table of the lake is.
    pub(super) fn tables(&self) -> Arc<Vec<(String, Applied)>> {
        self.lake.as_ref().map(|lake| lake.tables().clone()).unwrap_or_default()
    }

    /// Bytes of changes that wait for Postgres.
    pub(super) fn waiting(&self) -> Arc<AtomicUsize> {
        self.postgres.as_ref().map(|postgres| postgres.waiting().clone()).unwrap_or_default()
    }

    /// The lake's folder, where there is a lake.
    pub(super) fn lake_path(&self) -> Option<&PathBuf> {
        self.lake.as_ref().map(|_| &self.lake_path)
    }

    /// Starts writing to inventories whether their devices answer.
    pub(super) fn write_back(
        &self,
        config: &Config,
        disk: &Arc<dyn Disk>,
        registry: &Arc<Registry>,
        replay: &Arc<Replay>,
        runs: &inventory::Runs,
        stop: &Stop,
    ) -> Result<()> {
        let (registry, live, replay) = (registry.clone(), self.live.clone(), replay.clone());
        let availability: armis::Availability = Arc::new(move |tenant: &str, instance: &str| {
            // While the ledger is read again, the tables show what was.
            if !replay.done.load(Ordering::Acquire) {
                return BTreeMap::new();
            }
            let namespace = registry.instances().namespace(tenant, IdKind::Armis, instance);
            let known = live.view().availability(tenant, IdKind::Armis.name(), &namespace);
            known.into_iter().filter_map(|(id, there)| Some((id.parse().ok()?, there))).collect()
        });
        for (source, what) in config.sources.armis.iter().filter_map(Armis::write_back) {
            let dir = config.data_dir.join("write-back");
            armis::start(source, what, disk, &dir, availability.clone(), runs.clone(), stop.clone())
                .with_context(|| format!("cannot write to {}", dir.display()))?;
        }
        Ok(())
    }
}

/// The live tables, as what is true.
struct LiveTruth(Arc<Live>);

impl postgres::Truth for LiveTruth {
    fn state(&self) -> (u64, Vec<(Table, RecordBatch)>) {
        let view = self.0.view();
        (view.epoch, view.state_batches())
    }

    fn events(&self, table: Table, after: u64, until: u64) -> BoxFuture<Result<Vec<RecordBatch>, String>> {
        let view = self.0.view();
        Box::pin(async move { view.events_between(table, after, until).await.map_err(|e| e.to_string()) })
    }
}
