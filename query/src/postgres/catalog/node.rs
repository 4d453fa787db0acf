//! A query of the catalog after its names are found: what is computed, of which columns of which row.
//!
//! A row of a query is flat: the columns of everything in `FROM` one after the other, then what is computed before the
//! columns are chosen (aggregates, windows, functions that give rows).

use std::cell::OnceCell;
use std::rc::Rc;

use crate::postgres::catalog::Relation;
use crate::postgres::catalog::functions::Function;
use crate::postgres::catalog::value::Value;
use crate::postgres::kinds::Oid;

/// Values, one a column.
pub(crate) type Row = Vec<Value>;

/// Something that is computed of a row.
pub(crate) enum Node {
    Constant(Value),
    /// A column of the row of a query, so many queries further out.
    Column {
        up: usize,
        at: usize,
    },
    Call(&'static Function, Vec<Node>),
    Binary(Binary, Box<[Node; 2]>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Not(Box<Node>),
    Negative(Box<Node>),
    IsMissing(Box<Node>),
    /// Whether it is so (or not), where missing is no.
    Is(bool, Box<Node>),
    Distinct(Box<[Node; 2]>),
    /// The operand, pairs, and what is otherwise.
    Case(Option<Box<Node>>, Vec<(Node, Node)>, Option<Box<Node>>),
    Cast {
        node: Box<Node>,
        from: Oid,
        to: Oid,
    },
    /// Whether one of a list compares so with a value, or each of them.
    Any {
        value: Box<Node>,
        compares: Binary,
        list: Box<Node>,
        each: bool,
    },
    List(Vec<Node>),
    Record(Vec<Node>),
    Item(Box<[Node; 2]>),
    Field(Box<Node>, usize),
    Exists(Subquery),
    /// The one value of a query.
    One(Subquery),
    /// The values of a query as a list.
    All(Subquery),
}

/// How two values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    BothBits,
    EitherBit,
    Join,
    Matches { regardless: bool },
    MatchesNot { regardless: bool },
    Like { regardless: bool, escape: Option<char> },
    LikeNot { regardless: bool, escape: Option<char> },
}

/// A query inside an expression.
pub(crate) struct Subquery {
    pub(crate) query: Rc<Query>,
    /// What it gave, where it reads nothing of the rows around it.
    pub(crate) known: Option<OnceCell<Rc<Vec<Row>>>>,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Oid,
}

pub(crate) struct Query {
    pub(crate) body: Body,
    /// What is given. Rows may have more columns, to be sorted by.
    pub(crate) columns: Vec<Column>,
    pub(crate) sort: Vec<Sort>,
    pub(crate) limit: Option<Node>,
    pub(crate) offset: Option<Node>,
}

/// A column to sort by.
#[derive(Clone, Copy)]
pub(crate) struct Sort {
    pub(crate) at: usize,
    pub(crate) descending: bool,
    pub(crate) missing_first: bool,
}

pub(crate) enum Body {
    Select(Box<Select>),
    /// A query in brackets, sorted and cut again.
    Query(Box<Query>),
    Set {
        how: Set,
        all: bool,
        sides: Box<[Query; 2]>,
    },
    Values(Vec<Vec<Node>>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Union,
    Intersect,
    Except,
}

pub(crate) struct Select {
    pub(crate) from: Vec<Source>,
    pub(crate) filter: Vec<Node>,
    /// Keys, where rows are grouped.
    pub(crate) groups: Option<Vec<Node>>,
    pub(crate) having: Option<Node>,
    /// What follows the columns of `FROM` in a row.
    pub(crate) extras: Vec<Extra>,
    pub(crate) output: Vec<Node>,
    pub(crate) distinct: Distinct,
}

/// What is computed of more than one row, or gives more than one.
pub(crate) enum Extra {
    Aggregate(Aggregate),
    /// The place of a row among those of its partition.
    Place {
        partition: Vec<Node>,
        sort: Vec<(Node, Sort)>,
    },
    /// A function that gives rows.
    Rows(Node),
}

pub(crate) enum Distinct {
    No,
    Rows,
    /// The first of each of these columns of the output.
    On(Vec<usize>),
}

pub(crate) struct Aggregate {
    pub(crate) what: Tally,
    pub(crate) args: Vec<Node>,
    pub(crate) distinct: bool,
    pub(crate) sort: Vec<(Node, Sort)>,
    pub(crate) filter: Option<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    Rows,
    Count,
    Least,
    Greatest,
    Sum,
    Mean,
    List,
    Texts,
    Every,
    Some,
}

/// Something in `FROM`.
pub(crate) struct Source {
    pub(crate) rows: Rows,
    pub(crate) join: Join,
    pub(crate) on: Vec<Node>,
    /// Columns it adds.
    pub(crate) width: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    Inner,
    Left,
    Right,
    Full,
}

pub(crate) enum Rows {
    Relation(&'static Relation),
    Query {
        query: Rc<Query>,
        lateral: bool,
    },
    /// A function of the row so far; whether its rows are numbered.
    Function {
        node: Node,
        numbered: bool,
    },
    /// Joins in brackets.
    Nested(Vec<Source>),
}

impl Node {
    /// Looks at every column and every query that is computed of.
    #[recursive::recursive]
    pub(crate) fn visit(&self, seen: &mut impl FnMut(&Node)) {
        seen(self);
        match self {
            Node::Constant(_) | Node::Column { .. } | Node::Exists(_) | Node::One(_) | Node::All(_) => {}
            Node::Call(_, nodes) | Node::List(nodes) | Node::Record(nodes) => {
                nodes.iter().for_each(|node| node.visit(seen));
            }
            Node::Binary(_, pair) | Node::And(pair) | Node::Or(pair) | Node::Distinct(pair) | Node::Item(pair) => {
                pair.iter().for_each(|node| node.visit(seen));
            }
            Node::Not(node) | Node::Negative(node) | Node::IsMissing(node) | Node::Is(_, node) => node.visit(seen),
            Node::Cast { node, .. } | Node::Field(node, _) => node.visit(seen),
            Node::Any { value, list, .. } => {
                value.visit(seen);
                list.visit(seen);
            }
            Node::Case(operand, pairs, otherwise) => {
                operand.iter().chain(otherwise).for_each(|node| node.visit(seen));
                for (when, then) in pairs {
                    when.visit(seen);
                    then.visit(seen);
                }
            }
        }
    }

    /// The columns of its own row that it reads, from and to; nothing where a query in it may read any.
    pub(crate) fn reads(&self) -> Option<(usize, usize)> {
        let (mut from, mut to, mut whole) = (usize::MAX, 0, true);
        self.visit(&mut |node| match node {
            Node::Column { up: 0, at } => (from, to) = (from.min(*at), to.max(at + 1)),
            Node::Exists(sub) | Node::One(sub) | Node::All(sub) => whole &= sub.known.is_some(),
            _ => {}
        });
        whole.then_some((from, to))
    }

    /// The conditions that all have to hold.
    pub(crate) fn split(self, into: &mut Vec<Node>) {
        match self {
            Node::And(pair) => pair.into_iter().for_each(|node| node.split(into)),
            node => into.push(node),
        }
    }
}
