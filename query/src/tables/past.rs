//! What held before: the versions of state tables that the lake and memory have, and the checkpoints that save reading all of
//! them.
//!
//! ```text
//! held(t)      :- newest version of each key up to t, unless it ended there
//! versions(≤t) =  checkpoint(d) ∪ history after d, up to t        d: the newest day over by t that has a checkpoint
//! begins       =  the oldest checkpoint from which on a history that was cut is whole
//! ```
//! How they are written: `radarflow_proto::lake`.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, JoinType, ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use deltalake::DeltaTable;
use radarflow_proto::lake::{DATE, LakeTable};
use radarflow_proto::rows::Table;

use crate::actor::Actor;
use crate::tables::intervals::intervals;
use crate::tables::segment::is_indexed;
use crate::tables::view::{Stored, View, cast_to, seen_by};

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At the last epoch not after a time, microseconds since 1970.
    Time(i64),
    /// At an epoch.
    Epoch(u64),
}

/// The day of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Day {
    date: String,
    /// Its end, microseconds since 1970.
    end_us: i64,
    /// No version in it is of a later epoch; one that does not say is of no use to who asks for an epoch.
    until: Option<u64>,
}

impl Day {
    /// Whether a checkpoint is of what held at a moment or before.
    fn is_before(&self, moment: Moment) -> bool {
        match moment {
            Moment::Time(us) => self.end_us <= us,
            Moment::Epoch(epoch) => self.until.is_some_and(|until| until <= epoch),
        }
    }

    /// Whether it is of what held after a moment.
    fn is_after(&self, moment: Moment) -> bool {
        match moment {
            Moment::Time(us) => self.end_us > us,
            Moment::Epoch(epoch) => self.until.is_some_and(|until| until > epoch),
        }
    }
}

impl View {
    /// What an actor may see of a state table as it was; `None` where no history is kept.
    ///
    /// # Errors
    /// What DataFusion says of the plan.
    pub fn table_at(&self, ctx: &SessionContext, actor: &Actor, table: Table, at: Moment) -> Result<Option<DataFrame>> {
        let base = self.checkpoints(table).iter().rfind(|day| day.is_before(at));
        let Some(versions) = self.versions(ctx, actor, table, Some(at), base)? else { return Ok(None) };
        // The newest version of each key is found by its key alone; only it is read whole. That they have the key in
        // common is said so that a condition on it is one on both.
        let key = table.key().iter().map(|k| ident(*k)).collect();
        let newest = versions.clone().aggregate(key, vec![max(ident("row_id")).alias("__newest")])?;
        let sought = table.key().iter().find(|key| is_indexed(key));
        let of_newest = sought.map(|key| ident(*key).alias("__sought")).into_iter().chain([ident("__newest")]);
        let newest = newest.select(of_newest.collect::<Vec<_>>())?;
        let same_key = sought.map(|key| ident(*key).eq(ident("__sought")));
        let on = [ident("row_id").eq(ident("__newest"))].into_iter().chain(same_key);
        let held = versions.join_on(newest, JoinType::LeftSemi, on)?;
        let columns: Vec<Expr> = table.schema().fields().iter().map(|f| ident(f.name())).collect();
        let held = held.filter(ident("gone").is_false())?.select(columns)?;
        seen_by(held, actor).map(Some)
    }

    /// Who owned addresses when, as an actor may see it and as it was known at a moment; `None` where no history is kept.
    ///
    /// # Errors
    /// What DataFusion says of the plan.
    pub fn intervals(&self, ctx: &SessionContext, actor: &Actor, at: Option<Moment>) -> Result<Option<DataFrame>> {
        let base = self.begins(Table::IpOwnership);
        let Some(versions) = self.versions(ctx, actor, Table::IpOwnership, at, base)? else { return Ok(None) };
        let redirects = self.state.get(&(actor.tenant.clone(), Table::DeviceRedirect));
        intervals(seen_by(versions, actor)?, redirects).map(Some)
    }

    /// The days of a state table's checkpoints, in order.
    fn checkpoints(&self, table: Table) -> &[Day] {
        LakeTable::checkpoints_of(table).and_then(|of| self.stored.get(&of)).map_or(&[], |stored| &stored.days)
    }

    /// The checkpoint that all that is known of a state table's past begins with, where what came before is not kept.
    fn begins(&self, table: Table) -> Option<&Day> {
        let forgotten = self.stored.get(&LakeTable::history_of(table)?)?.forgotten.as_ref()?;
        self.checkpoints(table).iter().find(|day| day.date >= *forgotten)
    }

    /// Since when it is known what a state table held, where that is not always, microseconds since 1970; nothing is known
    /// of the moment asked for.
    pub fn forgotten(&self, table: Table, at: Moment) -> Option<i64> {
        self.begins(table).filter(|begins| begins.is_after(at)).map(|begins| begins.end_us)
    }

    /// The versions of a tenant's state table, up to a moment, beginning with those of a checkpoint; `None` where no
    /// history is kept.
    fn versions(
        &self,
        ctx: &SessionContext,
        actor: &Actor,
        table: Table,
        until: Option<Moment>,
        base: Option<&Day>,
    ) -> Result<Option<DataFrame>> {
        let Some(history) = LakeTable::history_of(table).filter(|_| self.history) else { return Ok(None) };
        let mut versions = self.told_frame(ctx, actor, history, &history.arriving())?;
        let checkpoints =
            LakeTable::checkpoints_of(table).and_then(|of| self.stored.get(&of)).map(|stored| stored.provider.clone());
        if let (Some(base), Some(checkpoints)) = (base, checkpoints) {
            let end = lit(ScalarValue::TimestampMicrosecond(Some(base.end_us), Some("UTC".into())));
            let ours = ident("tenant_id").eq(lit(actor.tenant.as_str()));
            let columns: Vec<Expr> = history.arriving().fields().iter().map(cast_to).collect();
            let held = ctx.read_table(checkpoints)?.filter(ours.and(ident(DATE).eq(lit(base.date.as_str()))))?;
            versions = versions.filter(ident("time").gt_eq(end))?.union(held.select(columns)?)?;
        }
        let until = match until {
            Some(Moment::Time(us)) => {
                ident("time").lt_eq(lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))))
            }
            Some(Moment::Epoch(epoch)) => ident("epoch").lt_eq(lit(i64::try_from(epoch).unwrap_or(i64::MAX))),
            None => return Ok(Some(versions)),
        };
        versions.filter(until).map(Some)
    }
}

/// The days of a table's checkpoints, and the last day that a history does not tell of any more.
pub(crate) async fn past(
    table: LakeTable,
    delta: &DeltaTable,
    known: Option<&Stored>,
) -> std::result::Result<(Arc<[Day]>, Option<String>), deltalake::DeltaTableError> {
    let snapshot = delta.snapshot()?;
    let log = delta.log_store();
    if let LakeTable::History(_) = table {
        let day = snapshot.transaction_version(log.as_ref(), LakeTable::FORGOTTEN).await?;
        let day = day.and_then(|day| NaiveDate::parse_from_str(&day.to_string(), "%Y%m%d").ok());
        return Ok((Arc::default(), day.map(|day| day.to_string())));
    }
    let LakeTable::Checkpoint(_) = table else { return Ok(Default::default()) };
    let files = snapshot.log_data();
    let dates = files.iter().filter_map(|file| file.partition_values_map().remove(DATE).flatten());
    let mut days = Vec::new();
    for date in dates.collect::<BTreeSet<String>>() {
        if let Some(day) = known.and_then(|known| known.days.iter().find(|day| day.date == date)) {
            days.push(day.clone());
            continue;
        }
        let day = NaiveDate::parse_from_str(&date, "%Y-%m-%d").ok();
        let Some(end) = day.and_then(|day| day.succ_opt()) else { continue };
        let until = snapshot.transaction_version(log.as_ref(), LakeTable::checkpoint_of(&date)).await?;
        days.push(Day {
            date,
            end_us: end.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros(),
            until: until.map(|until| until as u64),
        });
    }
    Ok((days.into(), None))
}
