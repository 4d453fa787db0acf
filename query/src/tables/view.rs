//! One version of all tables, at one epoch: what a request reads.
//!
//! A request is handed the tables of its actor's tenant and can name no other; where it is bound to partitions, their rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, cast, ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use deltalake::DeltaTable;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::rows::{AttributionCorrection, Nature, Row, Table};

use crate::actor::Actor;
use crate::tables::corrections::{Corrections, attributed};
use crate::tables::fresh::Fresh;
use crate::tables::led::led;
use crate::tables::past::Day;
use crate::tables::provider::Segments;
use crate::tables::segment::Segment;

/// The lake's side of an event table.
#[derive(Clone)]
pub(crate) struct Stored {
    /// Epochs at or before it are read from the lake.
    pub(crate) cut: u64,
    /// Its version.
    pub(crate) delta: DeltaTable,
    /// The files of that version.
    pub(crate) provider: Arc<dyn TableProvider>,
    /// Of checkpoints: their days, in order.
    pub(crate) days: Arc<[Day]>,
    /// Of a history: the last day that it does not tell of any more.
    pub(crate) forgotten: Option<String>,
}

pub(crate) type Tenant = String;

/// How events name devices: whose addresses were, as far as it is known, and what these are called. Other versions that
/// have the same are equal.
pub(crate) struct Names {
    redirects: Option<Arc<Vec<Segment>>>,
    corrections: Option<Arc<Corrections>>,
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        same(self.redirects.as_ref(), other.redirects.as_ref())
            && same(self.corrections.as_ref(), other.corrections.as_ref())
    }
}

/// One published version: every table at one epoch.
#[derive(Clone, Default)]
pub struct View {
    /// Which epoch.
    pub epoch: u64,
    /// Its clock, milliseconds since 1970.
    pub clock_ms: i64,
    /// Whether what held before can be asked for: the lake keeps it.
    pub history: bool,
    pub(crate) state: BTreeMap<(Tenant, Table), Arc<Vec<Segment>>>,
    pub(crate) fresh: BTreeMap<(Tenant, LakeTable), Arc<Fresh>>,
    pub(crate) stored: BTreeMap<LakeTable, Stored>,
    pub(crate) corrections: BTreeMap<Tenant, Arc<Corrections>>,
}

/// Rows of the partitions that an actor is bound to.
///
/// # Errors
/// The rows have no partition.
pub fn seen_by(frame: DataFrame, actor: &Actor) -> Result<DataFrame> {
    if actor.partitions.is_empty() {
        return Ok(frame);
    }
    frame.filter(ident("partition").in_list(actor.partitions.iter().map(|p| lit(p.as_str())).collect(), false))
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

pub(crate) fn cast_to(field: &arrow_schema::FieldRef) -> Expr {
    cast(ident(field.name()), field.data_type().clone()).alias(field.name())
}

impl View {
    /// A table as an actor may see it: its tenant's rows, of the partitions it is bound to.
    ///
    /// # Errors
    /// What DataFusion says of the plan.
    pub fn table(&self, ctx: &SessionContext, actor: &Actor, table: Table) -> Result<DataFrame> {
        let schema = table.schema();
        let frame = match table.nature() {
            Nature::State => self.state_frame(ctx, actor, table, &schema)?,
            Nature::Event => self.event_frame(ctx, actor, table, &schema)?,
        };
        // Who plans refuses what an actor may not read; whatever does not ask finds nothing.
        let frame = if actor.reads(table) { frame } else { frame.filter(lit(false))? };
        seen_by(frame, actor)
    }

    /// Whether these tables of a tenant are as they were.
    pub fn same(&self, other: &View, tenant: &str, tables: &[Table]) -> bool {
        tables.iter().all(|table| {
            let key = (tenant.to_owned(), *table);
            let state = same(self.state.get(&key), other.state.get(&key));
            let told = (tenant.to_owned(), LakeTable::Events(*table));
            let fresh = same(self.fresh.get(&told), other.fresh.get(&told));
            let read = !table.attributed().is_empty();
            let corrected = !read || same(self.corrections.get(tenant), other.corrections.get(tenant));
            state && fresh && corrected
        })
    }

    /// How events of a tenant name devices in this version.
    pub(crate) fn names(&self, tenant: &str) -> Names {
        let redirects = self.state.get(&(tenant.to_owned(), Table::DeviceRedirect)).cloned();
        Names { redirects, corrections: self.corrections.get(tenant).cloned() }
    }

    /// Takes in what was learnt late of who had addresses.
    pub(crate) fn learn(&mut self, corrections: &[RecordBatch]) {
        let mut by_tenant: BTreeMap<Tenant, Vec<AttributionCorrection>> = BTreeMap::new();
        let rows = corrections.iter().flat_map(|batch| (0..batch.num_rows()).map(move |i| (batch, i)));
        for row in rows.map(|(batch, i)| AttributionCorrection::read(batch, i)) {
            by_tenant.entry(row.tenant_id.clone()).or_default().push(row);
        }
        for (tenant, rows) in by_tenant {
            Arc::make_mut(self.corrections.entry(tenant).or_default()).learn(rows);
        }
    }

    /// Whether events since a time may be said to be of devices that did not have their addresses: more was learnt late
    /// than is kept.
    pub(crate) fn lacks_corrections(&self, tenant: &str, from_us: Option<i64>) -> bool {
        self.corrections.get(tenant).is_some_and(|known| known.lacks(from_us))
    }

    fn state_frame(&self, ctx: &SessionContext, actor: &Actor, table: Table, schema: &SchemaRef) -> Result<DataFrame> {
        let segments = self.state.get(&(actor.tenant.clone(), table)).cloned().unwrap_or_default();
        ctx.read_table(Arc::new(Segments { schema: schema.clone(), segments }))
    }

    fn event_frame(&self, ctx: &SessionContext, actor: &Actor, table: Table, schema: &SchemaRef) -> Result<DataFrame> {
        self.as_known(self.told_frame(ctx, actor, LakeTable::Events(table), schema)?, &actor.tenant, table)
    }

    /// Events with the devices that had their addresses, as it is known now, and as they are called today.
    pub(crate) fn as_known(&self, events: DataFrame, tenant: &str, table: Table) -> Result<DataFrame> {
        let schema = table.schema();
        let events = attributed(events, table, &schema, self.corrections.get(tenant))?;
        led(events, &schema, self.state.get(&(tenant.to_owned(), Table::DeviceRedirect)))
    }

    /// Rows of a table of the lake: stored ones, and those in memory.
    pub(crate) fn told_frame(
        &self,
        ctx: &SessionContext,
        actor: &Actor,
        table: LakeTable,
        schema: &SchemaRef,
    ) -> Result<DataFrame> {
        let fresh = self.fresh.get(&(actor.tenant.clone(), table)).cloned().unwrap_or_default();
        let batches: Vec<RecordBatch> = fresh.batches().cloned().collect();
        let ours = ident("tenant_id").eq(lit(actor.tenant.as_str()));
        self.told_union(ctx, table, schema, batches, ours)
    }

    /// The lake's rows up to the cut that are wanted, and those in memory.
    fn told_union(
        &self,
        ctx: &SessionContext,
        table: LakeTable,
        schema: &SchemaRef,
        batches: Vec<RecordBatch>,
        wanted: Expr,
    ) -> Result<DataFrame> {
        let memory = ctx.read_table(Arc::new(MemTable::try_new(schema.clone(), vec![batches])?))?;
        let Some(Stored { cut, provider, .. }) = self.stored.get(&table) else { return Ok(memory) };
        let cut = i64::try_from(*cut).unwrap_or(i64::MAX);
        let columns: Vec<Expr> = schema.fields().iter().map(cast_to).collect();
        let stored =
            ctx.read_table(provider.clone())?.filter(wanted.and(ident("epoch").lt_eq(lit(cut))))?.select(columns)?;
        stored.union(memory)
    }

    /// How many rows a state table of a tenant has.
    pub(crate) fn len(&self, tenant: &str, table: Table) -> usize {
        self.state.get(&(tenant.to_owned(), table)).map_or(0, |segments| segments.iter().map(|s| s.live).sum())
    }

    /// Every row of every state table, of all tenants: for a sink that has to be filled anew.
    pub fn state_batches(&self) -> Vec<(Table, RecordBatch)> {
        let segments = self.state.iter().flat_map(|((_, table), segments)| segments.iter().map(|s| (*table, s)));
        let batches = |(table, segment): (Table, &Segment)| {
            let batches = segment.batches(None).unwrap_or_default();
            batches.into_iter().map(move |batch| (table, batch))
        };
        segments.flat_map(batches).collect()
    }

    /// Rows of an event table of the epochs `after < epoch ≤ until`, of all tenants.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn events_between(&self, table: Table, after: u64, until: u64) -> Result<Vec<RecordBatch>> {
        let ctx = SessionContext::new();
        let n = |epoch: u64| lit(i64::try_from(epoch).unwrap_or(i64::MAX));
        let told = LakeTable::Events(table);
        let fresh = self.fresh.iter().filter(|((_, t), _)| *t == told).flat_map(|(_, fresh)| fresh.batches());
        let batches = fresh.cloned().collect();
        let wanted = ident("epoch").gt(n(after));
        let all = self.told_union(&ctx, told, &table.schema(), batches, wanted.clone())?;
        all.filter(wanted.and(ident("epoch").lt_eq(n(until))))?.collect().await
    }

    /// Rows of a state table, of all tenants.
    pub fn all_rows<R: Row>(&self) -> Vec<R> {
        let tenants = self.state.keys().filter(|(_, table)| *table == R::TABLE);
        tenants.flat_map(|(tenant, _)| self.rows::<R>(tenant)).collect()
    }

    /// Rows of a state table, for what is answered without a plan.
    pub fn rows<R: Row>(&self, tenant: &str) -> Vec<R> {
        let Some(segments) = self.state.get(&(tenant.to_owned(), R::TABLE)) else { return Vec::new() };
        let batches = segments.iter().flat_map(|s| s.batches(None).unwrap_or_default());
        batches.flat_map(|b| (0..b.num_rows()).map(|i| R::read(&b, i)).collect::<Vec<_>>()).collect()
    }

    /// Some columns of a state table's rows.
    pub(crate) fn columns(&self, tenant: &str, table: Table, names: &[&str]) -> Vec<RecordBatch> {
        let Some(segments) = self.state.get(&(tenant.to_owned(), table)) else { return Vec::new() };
        let schema = table.schema();
        let places: Vec<usize> = names.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        segments.iter().flat_map(|s| s.batches(Some(&places)).unwrap_or_default()).collect()
    }

    /// The rows of a state table whose text column has a value.
    pub fn rows_where<R: Row>(&self, tenant: &str, column: &str, value: &str) -> Vec<R> {
        self.rows_where_any(tenant, column, &BTreeSet::from([value]))
    }

    /// The same, of any of these values. Nothing is copied but the rows found.
    pub fn rows_where_any<R: Row>(&self, tenant: &str, column: &str, values: &BTreeSet<&str>) -> Vec<R> {
        let Some(segments) = self.state.get(&(tenant.to_owned(), R::TABLE)) else { return Vec::new() };
        let of = |segment: &Segment| {
            let rows = segment.find(column, values).unwrap_or_else(|| segment.scan(column, values));
            let read = |row| {
                let (batch, place) = segment.at(row);
                R::read(batch, place)
            };
            rows.into_iter().map(read).collect::<Vec<R>>()
        };
        segments.iter().flat_map(of).collect()
    }
}
