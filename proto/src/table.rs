//! What a table is: its columns, and how rows become batches of Arrow and lines of Postgres COPY text. [`rows!`] makes
//! all of it from one declaration of each table, in a file of [`crate::rows`]; [`tables!`] lists them.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::cell::KEY_END;
use crate::rows::Table;

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Name, as in SRQL, the lake and Postgres.
    pub name: &'static str,
    /// What it means, with its unit.
    pub doc: &'static str,
    /// Arrow type.
    pub data_type: arrow_schema::DataType,
    /// Whether it may be null.
    pub nullable: bool,
    /// Postgres type.
    pub postgres: &'static str,
}

/// A row of a declared table.
pub trait Row: Sized {
    /// Which table.
    const TABLE: Table;
    /// Its name in SRQL and in the lake.
    const NAME: &'static str;
    /// Its name in Postgres; empty where it is not kept there.
    const POSTGRES: &'static str;
    /// State or event.
    const NATURE: Nature;
    /// What a row is, a line a line.
    const DOC: &'static str;
    /// The columns of the primary key.
    const KEY: &'static [&'static str];
    /// Builds record batches of such rows.
    type Batch: BatchBuilder<Self>;
    /// The columns, in order.
    fn columns() -> Vec<Column>;
    /// The Arrow schema.
    fn schema() -> SchemaRef;
    /// The primary key: each column as COPY text, ended by [`KEY_END`](crate::cell::KEY_END), which does not occur in it.
    /// Of tables of current state only; events have their `row_id`.
    fn key(&self) -> String;
    /// Writes the row as one line of Postgres COPY text.
    fn copy(&self, out: &mut String);
    /// Reads a row back from a batch of this table.
    fn read(batch: &RecordBatch, row: usize) -> Self;
    /// What it takes in memory, bytes.
    fn bytes(&self) -> usize;
}

/// Writes a key, as [`Row::key`] made it, as one line of Postgres COPY text of the key's columns.
pub fn copy_key(key: &str, out: &mut String) {
    // Every column is ended, and any may be empty: one end is dropped, no more.
    let columns = key.strip_suffix(KEY_END).unwrap_or(key);
    out.extend(columns.chars().map(|c| if c == KEY_END { '\t' } else { c }));
    out.push('\n');
}

/// Collects rows into a record batch.
pub trait BatchBuilder<R>: Default {
    /// Appends a row.
    fn push(&mut self, row: &R);
    /// Rows so far.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The batch; the builder starts again.
    fn finish(&mut self) -> RecordBatch;
}

/// Whether a table holds what is, or what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// One row a key, replaced and removed.
    State,
    /// Only grows; partitioned by the date of the named column.
    Event,
}

macro_rules! tables {
    ($($row:ident),* $(,)?) => {
        /// The tables: each is documented at its row, which has the same name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum Table { $($row,)* }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Table] = &[$(Table::$row),*];

            /// Its name in SRQL and in the lake.
            pub fn name(self) -> &'static str { match self { $(Table::$row => $row::NAME,)* } }

            /// Its name in Postgres; empty where it is not kept there.
            pub fn postgres(self) -> &'static str { match self { $(Table::$row => $row::POSTGRES,)* } }

            /// State or event.
            pub fn nature(self) -> Nature { match self { $(Table::$row => $row::NATURE,)* } }

            /// What a row is.
            pub fn doc(self) -> &'static str { match self { $(Table::$row => $row::DOC.trim_ascii(),)* } }

            /// The columns, in order.
            pub fn columns(self) -> Vec<Column> { match self { $(Table::$row => <$row as Row>::columns(),)* } }

            /// The Arrow schema.
            pub fn schema(self) -> SchemaRef { match self { $(Table::$row => <$row as Row>::schema(),)* } }

            /// Writes one row of a batch of this table as a line of Postgres COPY text.
            pub fn copy_row(self, batch: &RecordBatch, row: usize, out: &mut String) {
                match self { $(Table::$row => <$row as Row>::read(batch, row).copy(out),)* }
            }

            /// The columns of the primary key.
            pub fn key(self) -> &'static [&'static str] { match self { $(Table::$row => $row::KEY,)* } }
        }
    };
}

macro_rules! rows {
    ($(
        $(#[doc = $table_doc:literal])+
        $nature:ident $row:ident $batch:ident $name:literal postgres $postgres:literal key [$($key:ident),*] {
            $( $(#[doc = $doc:literal])+ $column:ident: $type:ty, )*
        }
    )*) => {
        $(
            $(#[doc = $table_doc])+
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
            pub struct $row { $( $(#[doc = $doc])+ pub $column: $type, )* }

            #[doc = concat!("Collects [`", stringify!($row), "`] rows into a record batch.")]
            pub struct $batch { pub(crate) len: usize, $( pub(crate) $column: <$type as $crate::cell::Cell>::Builder, )* }

            impl Default for $batch {
                fn default() -> Self { Self { len: 0, $( $column: <$type as $crate::cell::Cell>::builder(), )* } }
            }

            impl $crate::table::BatchBuilder<$row> for $batch {
                fn push(&mut self, row: &$row) {
                    self.len += 1;
                    $( row.$column.append(&mut self.$column); )*
                }
                fn len(&self) -> usize { self.len }
                fn finish(&mut self) -> arrow_array::RecordBatch {
                    self.len = 0;
                    let columns: Vec<arrow_array::ArrayRef> =
                        vec![$( $crate::cell::ColumnBuilder::finish(&mut self.$column), )*];
                    arrow_array::RecordBatch::try_new(<$row as $crate::table::Row>::schema(), columns).expect("the columns are the schema's")
                }
            }

            impl $crate::table::Row for $row {
                const TABLE: $crate::rows::Table = $crate::rows::Table::$row;
                const NAME: &'static str = $name;
                const POSTGRES: &'static str = $postgres;
                const NATURE: $crate::table::Nature = $crate::table::Nature::$nature;
                const DOC: &'static str = concat!($($table_doc, "\n"),+);
                const KEY: &'static [&'static str] = &[$(stringify!($key)),*];
                type Batch = $batch;

                fn columns() -> Vec<$crate::table::Column> {
                    vec![$( $crate::table::Column {
                        name: stringify!($column).trim_start_matches("r#"),
                        doc: concat!($($doc, "\n"),+).trim_ascii(),
                        data_type: <$type as $crate::cell::Cell>::data_type(),
                        nullable: <$type as $crate::cell::Cell>::NULLABLE,
                        postgres: <$type as $crate::cell::Cell>::POSTGRES,
                    }, )*]
                }

                fn schema() -> arrow_schema::SchemaRef {
                    static SCHEMA: std::sync::OnceLock<arrow_schema::SchemaRef> = std::sync::OnceLock::new();
                    SCHEMA.get_or_init(|| {
                        let fields: Vec<_> = <$row as $crate::table::Row>::columns()
                            .into_iter()
                            .map(|c| arrow_schema::Field::new(c.name, c.data_type, c.nullable))
                            .collect();
                        arrow_schema::Schema::new(fields).into()
                    }).clone()
                }

                fn key(&self) -> String {
                    #[allow(unused_mut)]
                    let mut key = String::new();
                    $( self.$key.copy(&mut key); key.push($crate::cell::KEY_END); )*
                    key
                }

                fn copy(&self, out: &mut String) {
                    $( self.$column.copy(out); out.push('\t'); )*
                    out.pop();
                    out.push('\n');
                }

                fn read(batch: &arrow_array::RecordBatch, row: usize) -> Self {
                    let mut columns = batch.columns().iter();
                    $row { $( $column: <$type as $crate::cell::Cell>::read(columns.next().expect("one array a column"), row), )* }
                }

                fn bytes(&self) -> usize {
                    size_of::<Self>() $( + self.$column.heap_bytes() )*
                }
            }
        )*
    };
}

pub(crate) use {rows, tables};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, MapBuilder, StringBuilder};
    use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow_schema::DataType;

    use super::*;
    use crate::rows::StateRow;

    /// A row of a table of state, with texts by the name of their column.
    fn row(table: Table, text: impl Fn(&str) -> String) -> StateRow {
        let column = |column: Column| -> ArrayRef {
            match column.data_type {
                DataType::Utf8 => Arc::new(StringArray::from(vec![text(column.name)])),
                DataType::Int64 => Arc::new(Int64Array::from(vec![7])),
                DataType::Float64 => Arc::new(Float64Array::from(vec![0.5])),
                DataType::Boolean => Arc::new(BooleanArray::from(vec![true])),
                DataType::Timestamp(..) => Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")),
                DataType::List(_) => {
                    let mut list = ListBuilder::new(StringBuilder::new());
                    list.append(true);
                    Arc::new(list.finish())
                }
                DataType::Map(..) => {
                    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
                    map.append(true).unwrap();
                    Arc::new(map.finish())
                }
                other => panic!("{other}"),
            }
        };
        let batch = RecordBatch::try_from_iter(table.columns().into_iter().map(|c| (c.name, column(c)))).unwrap();
        StateRow::read(table, &batch, 0).expect("a table of state")
    }

    /// The columns of a line, as Postgres documents COPY's text format.
    fn columns(line: &str) -> Vec<String> {
        let line = line.strip_suffix('\n').expect("lines end");
        let column = |text: &str| {
            let (mut read, mut chars) = (String::new(), text.chars());
            while let Some(c) = chars.next() {
                read.push(match c {
                    '\\' => match chars.next().expect("something is escaped") {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'x' => {
                            let hex: String = chars.by_ref().take(2).collect();
                            char::from(u8::from_str_radix(&hex, 16).unwrap())
                        }
                        c => c,
                    },
                    c => c,
                });
            }
            read
        };
        line.split('\t').map(column).collect()
    }

    #[test]
    fn a_key_is_the_columns_of_its_row_whichever_are_empty_and_whatever_they_hold() {
        let texts = [
            "",
            "a",
            "\t",
            "\n",
            "\r",
            "\\",
            "\\N",
            "\\.",
            "\u{1f}",
            "\u{1f}\u{1f}",
            "a\u{1f}",
            "\u{1f}b",
            "é\t\u{1f}",
            "1f",
        ];
        for table in Table::ALL.iter().copied().filter(|t| t.nature() == Nature::State) {
            let places: Vec<usize> = table
                .key()
                .iter()
                .map(|key| table.columns().iter().position(|c| c.name == *key).expect("a key is of columns"))
                .collect();
            let mut keys = std::collections::BTreeMap::new();
            for text in texts {
                // Each column has it while the others have something, and have nothing.
                for (own, other) in table.key().iter().flat_map(|key| [(*key, "x"), (*key, "")]) {
                    let row = row(table, |column| if column == own { text } else { other }.to_owned());
                    let (mut line, mut key) = (String::new(), String::new());
                    row.copy(&mut line);
                    copy_key(&row.key(), &mut key);
                    let whole = columns(&line);
                    assert_eq!(whole.len(), table.columns().len(), "{table:?} {line:?}");
                    let of_row: Vec<String> = places.iter().map(|place| whole[*place].clone()).collect();
                    assert_eq!(columns(&key), of_row, "{table:?}: {:?}", row.key());
                    // Keys are equal where the columns are, and nowhere else.
                    assert_eq!(*keys.entry(row.key()).or_insert_with(|| of_row.clone()), of_row, "{table:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_takes_what_its_texts_take() {
        for table in Table::ALL.iter().copied().filter(|t| t.nature() == Nature::State) {
            let (small, large) = (row(table, |_| String::new()), row(table, |_| "x".repeat(10_000)));
            assert!(large.bytes() >= small.bytes() + 20_000, "{table:?}: {} {}", small.bytes(), large.bytes());
        }
    }

    #[test]
    fn instants_that_postgres_cannot_read_are_written_as_the_nearest_that_it_can() {
        use crate::cell::{Cell, Time};
        let copied = |us: i64| {
            let mut out = String::new();
            Time(us).copy(&mut out);
            out
        };
        assert_eq!(copied(i64::MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(copied(i64::MIN), "0001-01-01T00:00:00Z");
        assert_eq!(copied(1_704_067_200_000_000), "2024-01-01T00:00:00Z");
    }
}
