//! The query as written: typed, with spans, before any name is looked up.

/// First and after-last byte offset.
pub use crate::error::Span;

/// A word or quoted text with its place. A literal's `verbatim` is set where nothing in it is a wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    /// The text, escapes resolved. Escaped wildcards are kept as a private-use character pair, see [`crate::parse`].
    pub text: String,
    /// Whether `*` and `?` are ordinary.
    pub quoted: bool,
    /// Whether `%` is ordinary too.
    pub verbatim: bool,
    /// Where.
    pub span: Span,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Eq,
    NotEq,
    Less,
    LessEq,
    Greater,
    GreaterEq,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `f:null`
    Null,
    /// `f:*`
    Present,
    /// `f:v`, wildcards included.
    Is(Literal),
    /// `f:~v`
    Fold(Literal),
    /// `f:>v`
    Compare(Op, Literal),
    /// `f:a..b`
    Range(Option<Literal>, Option<Literal>),
    /// `f:@g`, `f:>@g`: the value of another field of the row.
    Field(Op, Key),
    /// `f:/re/i`
    Regex(String, bool, Span),
    /// `f:(a,b)`
    Any(Vec<Value>),
    /// `f:[a,b]`: of a list all of them, of anything else any.
    All(Vec<Value>),
    /// `f:(in:…)`: a value that the query gives.
    Sub(Box<Query>, Span),
}

/// A key: a field, or a field and the path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The dotted segments, as written.
    pub path: Vec<String>,
    /// Where.
    pub span: Span,
}

/// The boolean structure.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// All of them; true when there are none.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// A field compared.
    Filter(Key, Value),
    /// Any text field contains it.
    Text(Literal),
}

/// An aggregate call.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Lower-case name.
    pub function: String,
    /// Its field; none for `count()`.
    pub field: Option<Key>,
    /// `percentile(f, q)`: q.
    pub quantile: Option<f64>,
    /// `count_if(…)`, `sum_if(f, …)`: of which rows.
    pub only: Option<Expr>,
    /// The name of its column.
    pub alias: String,
    /// Where.
    pub span: Span,
}

/// A group key.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupKey {
    /// A field's value.
    Field(Key, String),
    /// An address's network.
    Cidr(Key, u8, String),
    /// Each element of a list.
    Each(Key, String),
    /// The time slice, microseconds wide.
    Time(i64, String),
}

impl GroupKey {
    /// Whether both say the same, wherever they stand.
    pub fn is_like(&self, other: &GroupKey) -> bool {
        match (self, other) {
            (GroupKey::Field(a, name), GroupKey::Field(b, other))
            | (GroupKey::Each(a, name), GroupKey::Each(b, other)) => a.is_like(b) && name == other,
            (GroupKey::Cidr(a, bits, name), GroupKey::Cidr(b, others, other)) => {
                a.is_like(b) && bits == others && name == other
            }
            (a @ GroupKey::Time(..), b) => a == b,
            _ => false,
        }
    }

    /// The name of its column.
    pub fn name(&self) -> &str {
        match self {
            GroupKey::Field(_, name)
            | GroupKey::Cidr(_, _, name)
            | GroupKey::Each(_, name)
            | GroupKey::Time(_, name) => name,
        }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(self, name: String) -> GroupKey {
        match self {
            GroupKey::Field(key, _) => GroupKey::Field(key, name),
            GroupKey::Cidr(key, bits, _) => GroupKey::Cidr(key, bits, name),
            GroupKey::Each(key, _) => GroupKey::Each(key, name),
            GroupKey::Time(width, _) => GroupKey::Time(width, name),
        }
    }

    /// The key of its field, where it is of one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            GroupKey::Field(key, _) | GroupKey::Cidr(key, ..) | GroupKey::Each(key, _) => Some(key),
            GroupKey::Time(..) => None,
        }
    }

    /// The same, to be changed.
    pub fn key_mut(&mut self) -> Option<&mut Key> {
        match self {
            GroupKey::Field(key, _) | GroupKey::Cidr(key, ..) | GroupKey::Each(key, _) => Some(key),
            GroupKey::Time(..) => None,
        }
    }
}

impl Key {
    /// Whether both are the same path, in any case.
    pub fn is_like(&self, other: &Key) -> bool {
        self.path.len() == other.path.len() && self.path.iter().zip(&other.path).all(|(a, b)| a.eq_ignore_ascii_case(b))
    }
}

impl Aggregate {
    /// Whether both compute the same, whatever they are called.
    pub fn is_like(&self, other: &Aggregate) -> bool {
        let fields = match (&self.field, &other.field) {
            (Some(a), Some(b)) => a.is_like(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        fields && self.function == other.function && self.quantile == other.quantile && self.only == other.only
    }
}

/// A condition over groups.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Having {
    And(Vec<Having>),
    Or(Vec<Having>),
    Not(Box<Having>),
    /// Either side, and how they compare.
    Compare(Operand, Op, Operand, Span),
}

/// What a condition over groups compares.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// An aggregate, shown or not.
    Call(Box<Aggregate>),
    /// A column, a number, `true`, `false` or `null`, or else a text.
    Word(String),
    /// A text.
    Text(String),
}

/// A sort key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// What by.
    pub key: Key,
    /// Ascending.
    pub ascending: bool,
}

/// A series over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Width, microseconds; `None` for one that suits the span.
    pub width_us: Option<i64>,
    /// The aggregate function.
    pub agg: String,
    /// What makes a series.
    pub series: Option<Key>,
    /// What is aggregated.
    pub value_field: Option<Key>,
    /// What stands where nothing was.
    pub fill: Option<Fill>,
    /// Where.
    pub span: Span,
}

/// What stands in a series where nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nought.
    Zero,
    /// Nothing.
    Null,
    /// What was before.
    Previous,
}

/// The largest groups over the whole range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// How many.
    pub n: usize,
    /// By which aggregate; the first, if none is named.
    pub by: Option<(String, Span)>,
    /// By its values in slices of time, instead of its value over the whole range.
    pub over: Option<Over>,
    /// Whether the rest is a row of its own.
    pub other: bool,
    /// Where.
    pub span: Span,
}

/// What the values of an aggregate in slices of time are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Over {
    Max,
    Avg,
    Last,
}

/// What sums of flows are shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Units {
    BitsPerSecond,
    BytesPerSecond,
    PacketsPerSecond,
}

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The entities asked for.
    pub entities: Vec<(String, Span)>,
    /// What rows must be like.
    pub filter: Expr,
    /// `time:`
    pub time: Option<Literal>,
    /// `at:`
    pub at: Option<Literal>,
    /// `tz:`
    pub tz: Option<Literal>,
    /// `include_deleted:`
    pub include_deleted: Option<Span>,
    /// `latest:`
    pub latest: Option<Span>,
    /// `explain:`
    pub explain: bool,
    /// `stream:`, `mode:`
    pub stream: Option<Span>,
    /// `sort:`
    pub sort: Vec<Sort>,
    /// `limit:`
    pub limit: Option<usize>,
    /// `cursor:`
    pub cursor: Option<Literal>,
    /// `fields:`
    pub fields: Vec<Key>,
    /// `stats:`
    pub stats: Vec<Aggregate>,
    /// `by`
    pub by: Vec<GroupKey>,
    /// `having:`
    pub having: Option<Having>,
    /// `window:`
    pub window: Option<(i64, Span)>,
    /// `top:`
    pub top: Option<Top>,
    /// `units:`
    pub units: Option<(Units, Span)>,
    /// `reverse:`
    pub reverse: Option<Span>,
    /// `compare:`: how long before, microseconds.
    pub compare: Option<(i64, Span)>,
    /// `rollup_stats:`
    pub rollup: Option<(String, Span)>,
    /// `bucket:`
    pub bucket: Option<Bucket>,
    /// Where `limit:` and `cursor:` stand: another page is of the same query, whatever they say.
    pub paging: Vec<Span>,
    /// Changes of meaning that a user may not expect.
    pub warnings: Vec<String>,
}
