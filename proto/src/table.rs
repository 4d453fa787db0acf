//! What a table is: its columns, and how rows become batches of Arrow and lines of Postgres COPY text. [`tables!`] makes all
//! of it from one declaration of each table, in [`crate::rows`].

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

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
    /// Builds record batches of such rows.
    type Batch: BatchBuilder<Self>;
    /// The columns, in order.
    fn columns() -> Vec<Column>;
    /// The Arrow schema.
    fn schema() -> SchemaRef;
    /// The primary key, joined by U+001F: tables of current state only; events have their `row_id`.
    fn key(&self) -> String;
    /// Writes the row as one line of Postgres COPY text.
    fn copy(&self, out: &mut String);
    /// Reads a row back from a batch of this table.
    fn read(batch: &RecordBatch, row: usize) -> Self;
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
    ($(
        $(#[doc = $table_doc:literal])+
        $nature:ident $row:ident $batch:ident $name:literal postgres $postgres:literal key [$($key:ident),*] {
            $( $(#[doc = $doc:literal])+ $column:ident: $type:ty, )*
        }
    )*) => {
        /// The tables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Table { $( $(#[doc = $table_doc])+ $row, )* }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Table] = &[$(Table::$row),*];

            /// Its name in SRQL and in the lake.
            pub fn name(self) -> &'static str { match self { $(Table::$row => $name,)* } }

            /// Its name in Postgres; empty where it is not kept there.
            pub fn postgres(self) -> &'static str { match self { $(Table::$row => $postgres,)* } }

            /// State or event.
            pub fn nature(self) -> Nature { match self { $(Table::$row => Nature::$nature,)* } }

            /// What a row is.
            pub fn doc(self) -> &'static str {
                match self { $(Table::$row => concat!($($table_doc, "\n"),+).trim_ascii(),)* }
            }

            /// The columns, in order.
            pub fn columns(self) -> Vec<Column> { match self { $(Table::$row => <$row as Row>::columns(),)* } }

            /// The Arrow schema.
            pub fn schema(self) -> SchemaRef { match self { $(Table::$row => <$row as Row>::schema(),)* } }

            /// Writes one row of a batch of this table as a line of Postgres COPY text.
            pub fn copy_row(self, batch: &RecordBatch, row: usize, out: &mut String) {
                match self { $(Table::$row => <$row as Row>::read(batch, row).copy(out),)* }
            }

            /// The columns of the primary key.
            pub fn key(self) -> &'static [&'static str] {
                match self { $(Table::$row => &[$(stringify!($key)),*],)* }
            }
        }

        $(
            $(#[doc = $table_doc])+
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
            pub struct $row { $( $(#[doc = $doc])+ pub $column: $type, )* }

            #[doc = concat!("Collects [`", stringify!($row), "`] rows into a record batch.")]
            pub struct $batch { len: usize, $( $column: <$type as Cell>::Builder, )* }

            impl Default for $batch {
                fn default() -> Self { Self { len: 0, $( $column: <$type as Cell>::builder(), )* } }
            }

            impl BatchBuilder<$row> for $batch {
                fn push(&mut self, row: &$row) {
                    self.len += 1;
                    $( row.$column.append(&mut self.$column); )*
                }
                fn len(&self) -> usize { self.len }
                fn finish(&mut self) -> RecordBatch {
                    self.len = 0;
                    let columns: Vec<arrow_array::ArrayRef> =
                        vec![$( std::sync::Arc::new(self.$column.finish()), )*];
                    RecordBatch::try_new(<$row as Row>::schema(), columns).expect("the columns are the schema's")
                }
            }

            impl Row for $row {
                const TABLE: Table = Table::$row;
                type Batch = $batch;

                fn columns() -> Vec<Column> {
                    vec![$( Column {
                        name: stringify!($column).trim_start_matches("r#"),
                        doc: concat!($($doc, "\n"),+).trim_ascii(),
                        data_type: <$type as Cell>::data_type(),
                        nullable: <$type as Cell>::NULLABLE,
                        postgres: <$type as Cell>::POSTGRES,
                    }, )*]
                }

                fn schema() -> SchemaRef {
                    static SCHEMA: std::sync::OnceLock<SchemaRef> = std::sync::OnceLock::new();
                    SCHEMA.get_or_init(|| {
                        let fields: Vec<_> = <$row as Row>::columns()
                            .into_iter()
                            .map(|c| arrow_schema::Field::new(c.name, c.data_type, c.nullable))
                            .collect();
                        arrow_schema::Schema::new(fields).into()
                    }).clone()
                }

                fn key(&self) -> String {
                    #[allow(unused_mut)]
                    let mut key = String::new();
                    $( self.$key.copy(&mut key); key.push('\u{1f}'); )*
                    key
                }

                fn copy(&self, out: &mut String) {
                    $( self.$column.copy(out); out.push('\t'); )*
                    out.pop();
                    out.push('\n');
                }

                fn read(batch: &RecordBatch, row: usize) -> Self {
                    let mut columns = batch.columns().iter();
                    $row { $( $column: <$type as Cell>::read(columns.next().expect("one array a column"), row), )* }
                }
            }
        )*
    };
}

pub(crate) use tables;
