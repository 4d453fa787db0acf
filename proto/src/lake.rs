//! The tables of the lake: those of events as they are, and for every state table its `<table>_history`: a row a version,
//! from the epoch that made it, and an end marker (`gone`) where a key ended. What held at an epoch is each key's newest
//! row up to it. So that nobody has to read all that came before, `<table>_checkpoints` has the versions that held at the
//! end of some days: what held later is the newest of those of such a day and of what the history has after it. The loss
//! ledgers (`sources`) move with every datagram and have no history.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::cell::{Cell, RowId, Time};
use crate::ports::EpochOutput;
use crate::rows::{Nature, StateRow, Table, state_batch};

/// The column that the lake adds: the date of the row's own time.
pub const DATE: &str = "date";

/// The columns that a history has beside those of its table.
const HISTORY: [(&str, fn() -> DataType, &str); 3] = [
    ("row_id", <RowId as Cell>::data_type, "Unique: the version's epoch, and its place among those of the epoch."),
    ("time", <Time as Cell>::data_type, "The epoch's clock."),
    ("gone", <bool as Cell>::data_type, "Whether the key ended here; the other columns are those of its last version."),
];

/// A table of the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LakeTable {
    /// The rows of an event table.
    Events(Table),
    /// The versions of a state table.
    History(Table),
    /// The versions of a state table that held at the end of some days.
    Checkpoint(Table),
}

impl LakeTable {
    /// Every table.
    pub fn all() -> impl Iterator<Item = LakeTable> {
        Table::ALL.iter().copied().flat_map(|table| match table.nature() {
            Nature::Event => vec![LakeTable::Events(table)],
            Nature::State => LakeTable::history_of(table).into_iter().chain(LakeTable::checkpoints_of(table)).collect(),
        })
    }

    /// The table that its rows are of.
    pub fn table(self) -> Table {
        let (LakeTable::Events(table) | LakeTable::History(table) | LakeTable::Checkpoint(table)) = self;
        table
    }

    /// The checkpoints of a state table, if it has a history.
    pub fn checkpoints_of(table: Table) -> Option<LakeTable> {
        LakeTable::history_of(table).map(|_| LakeTable::Checkpoint(table))
    }

    /// What names, in the transaction identifiers of a history, the last day (`YYYYMMDD`) that it does not tell of any more.
    pub const FORGOTTEN: &str = "forgotten";

    /// What names the epoch of a day's checkpoint in its table's transaction identifiers: no version in it is later.
    pub fn checkpoint_of(day: &str) -> String {
        format!("checkpoint {day}")
    }

    /// The history of a state table, if it has one.
    pub fn history_of(table: Table) -> Option<LakeTable> {
        // Summaries change with every span, and are made again of spans.
        let is_kept = table.nature() == Nature::State && !matches!(table, Table::Source | Table::TraceSummary);
        is_kept.then_some(LakeTable::History(table))
    }

    /// Its folder and name.
    pub fn name(self) -> String {
        match self {
            LakeTable::Events(table) => table.name().to_owned(),
            LakeTable::History(table) => format!("{}_history", table.name()),
            LakeTable::Checkpoint(table) => format!("{}_checkpoints", table.name()),
        }
    }

    /// What a row is.
    pub fn doc(self) -> String {
        match self {
            LakeTable::Events(table) => table.doc().to_owned(),
            LakeTable::History(table) => format!("Versions of the rows of `{}`.", table.name()),
            LakeTable::Checkpoint(table) => {
                format!("The versions of rows of `{}` that held at the end of some days.", table.name())
            }
        }
    }

    /// The column that dates a row.
    pub fn time_column(self) -> &'static str {
        match self {
            LakeTable::Events(Table::HealthEvent) => "recorded_at",
            _ => "time",
        }
    }

    /// The columns that somebody looks for one value in: addresses, and names of devices.
    pub fn sought(self) -> Vec<&'static str> {
        let table = self.table();
        let sought =
            |name: &str| name == "ip" || name == "sampler_address" || name.ends_with("_ip") || name.ends_with("uid");
        table.columns().into_iter().map(|c| c.name).filter(|name| sought(name)).collect()
    }

    /// The columns that rows arrive with.
    pub fn arriving(self) -> SchemaRef {
        let mut fields: Vec<Field> = self.table().schema().fields().iter().map(|f| (**f).clone()).collect();
        if !matches!(self, LakeTable::Events(_)) {
            fields.extend(HISTORY.map(|(name, kind, _)| Field::new(name, kind(), false)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Its schema.
    pub fn schema(self) -> SchemaRef {
        let mut fields: Vec<Field> = self.arriving().fields().iter().map(|f| (**f).clone()).collect();
        fields.push(Field::new(DATE, DataType::Utf8, false));
        Arc::new(Schema::new(fields))
    }

    /// Its columns with what they mean.
    pub fn columns(self) -> Vec<(String, &'static str)> {
        let mut columns: Vec<(String, &'static str)> =
            self.table().columns().into_iter().map(|c| (c.name.to_owned(), c.doc)).collect();
        if !matches!(self, LakeTable::Events(_)) {
            columns.extend(HISTORY.map(|(name, _, doc)| (name.to_owned(), doc)));
        }
        let of_date = match self {
            LakeTable::Checkpoint(_) => "Day at whose end (UTC) the version held; a partition column.",
            _ => "Day of the row's own time, UTC; a partition column.",
        };
        columns.push((DATE.to_owned(), of_date));
        columns
    }
}

/// The versions that an epoch made, made into rows once for all who want them: each batch is of one tenant.
#[derive(Clone, Debug, Default)]
pub struct Versions(OnceLock<Vec<(LakeTable, RecordBatch)>>);

impl EpochOutput {
    /// The versions that the epoch made.
    pub fn versions(&self) -> &[(LakeTable, RecordBatch)] {
        self.versions.0.get_or_init(|| versions(self))
    }
}

fn versions(output: &EpochOutput) -> Vec<(LakeTable, RecordBatch)> {
    type Rows = (Vec<StateRow>, Vec<bool>, Vec<u32>);
    let mut by_table: BTreeMap<(LakeTable, String), Rows> = BTreeMap::new();
    let mut places: BTreeMap<Table, u32> = BTreeMap::new();
    for change in &output.changes {
        let Some(history) = LakeTable::history_of(change.table) else { continue };
        let Some(row) = change.after.as_ref().or(change.before.as_ref()) else { continue };
        let (rows, gone, ids) = by_table.entry((history, row.tenant().to_owned())).or_default();
        let place = places.entry(change.table).or_default();
        rows.push(row.clone().at(output.epoch));
        gone.push(change.after.is_none());
        ids.push(*place);
        *place += 1;
    }
    let batch = |((history, _), (rows, gone, places)): ((LakeTable, String), Rows)| {
        let table = history.table();
        let (mut ids, mut times) = (<RowId as Cell>::builder(), <Time as Cell>::builder());
        for place in places {
            RowId::new(output.epoch, 0, place).append(&mut ids);
            Time::from_ms(output.clock_ms).append(&mut times);
        }
        let mut columns = state_batch(table, &rows).columns().to_vec();
        columns.extend([Arc::new(ids.finish()) as ArrayRef, Arc::new(times.finish())]);
        columns.push(Arc::new(BooleanArray::from(gone)));
        let batch = RecordBatch::try_new(history.arriving(), columns).expect("a version has its history's columns");
        (history, batch)
    };
    by_table.into_iter().map(batch).collect()
}
