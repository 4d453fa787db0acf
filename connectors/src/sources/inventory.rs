//! Runs of inventories, whoever brings them: pages are staged under one run, whose end says whether it listed everything.
//! A run is applied when it ends, or not at all; what a complete one lacks is withdrawn (`dataflows::listings`).

use std::sync::Arc;

use async_trait::async_trait;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Kind, Origin};
use radarflow_proto::payload::{AgentPush, Brought, DeviceUpdate, Listing, ServiceHead};
use radarflow_proto::ports::{AppendError, Appender, Ending, InventoryRun, InventoryRuns, NewInstances, RunOf};
use radarflow_proto::room;

use super::entry;
use super::stage::{self, Staging, StagingSpace, split_array};

/// Makes runs.
#[derive(Clone)]
pub struct Runs {
    appender: Arc<dyn Appender>,
    instances: Arc<dyn NewInstances>,
    space: StagingSpace,
    memory: Arc<room::Room>,
}

impl Runs {
    /// Runs that end in that ledger, where there is space for what is staged; what inventories answer has its memory.
    pub fn new(
        appender: Arc<dyn Appender>,
        instances: Arc<dyn NewInstances>,
        space: StagingSpace,
        memory: Arc<room::Room>,
    ) -> Self {
        Runs { appender, instances, space, memory }
    }

    /// Memory for what inventories answer.
    pub(crate) fn memory(&self) -> &Arc<room::Room> {
        &self.memory
    }

    /// A run that begins now.
    pub(super) fn run(&self, of: RunOf) -> Run {
        let origin = Origin {
            kind: Kind::Status,
            tenant: of.tenant.clone(),
            // Items say theirs.
            partition: String::new(),
            feed: format!("{}:{}", of.name, of.instance),
        };
        Run { staging: Staging::new(self.appender.clone(), &origin, None), runs: self.clone(), of }
    }

    /// Makes a fact durable.
    pub(crate) async fn say(&self, tenant: &str, fact: &Fact) -> Result<(), AppendError> {
        let body = serde_json::to_vec(fact).expect("facts are JSON");
        self.appender.append(Arc::new(self.own(tenant)), vec![entry(None, body)]).await.map(drop)
    }

    /// Where facts come from that the program states by itself.
    fn own(&self, tenant: &str) -> Origin {
        Origin { kind: Kind::Fact, tenant: tenant.to_owned(), partition: String::new(), feed: "radarflow".to_owned() }
    }
}

impl InventoryRuns for Runs {
    fn begin(&self, of: RunOf) -> Box<dyn InventoryRun> {
        Box::new(self.run(of))
    }
}

/// One run.
pub(super) struct Run {
    runs: Runs,
    staging: Staging,
    of: RunOf,
}

#[async_trait]
impl InventoryRun for Run {
    async fn page(&mut self, mut items: Vec<DeviceUpdate>) -> Result<(), AppendError> {
        stage::wait(&self.runs.space).await;
        items.iter_mut().for_each(|update| self.of.own(update));
        let message = serde_json::to_vec(&items).expect("updates are JSON");
        let origin = self.runs.own(&self.of.tenant);
        self.runs.instances.announce(&self.runs.appender, &origin, &[&message[..]]).await?;
        let service = ServiceHead {
            name: self.of.instance.clone(),
            kind: "sync".to_owned(),
            source: "results".to_owned(),
            available: true,
        };
        let push = AgentPush { service: Some(service), ..AgentPush::default() };
        let pieces = split_array(&message).unwrap_or_default();
        let entries: Vec<_> = pieces.iter().map(|piece| entry(None, push.with(piece))).collect();
        self.staging.push(&entries).await
    }

    async fn end(self: Box<Self>, ending: Ending, by: Option<Brought>) -> Result<u64, AppendError> {
        let listing = Listing {
            kind: self.of.kind,
            instance: self.of.speaker(),
            run: self.of.run.clone(),
            complete: ending != Ending::Part,
            approved: ending == Ending::Approved,
            by,
        };
        self.staging.end(true, Some(listing)).await
    }

    async fn discard(self: Box<Self>) -> Result<u64, AppendError> {
        self.staging.end(false, None).await
    }
}
