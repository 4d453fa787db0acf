//! Functions that make more than they are given, within bounds.
//!
//! `repeat('x', 1e9)` is a gigabyte from a few letters, and `a || a` doubles what it is given in each of several queries. Every
//! function of this kind tells what a row will cost before it is computed. Rows are computed in parts that cost little, with a
//! look in between whether the answer is still wanted; what becomes too large is refused before it is made, or as soon as it is.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::kernels::concat_elements::concat_elements_utf8;
use arrow::compute::{cast, concat};
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::{DataType, FieldRef, IntervalUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::bytes::bytes;
use crate::engine::cancel;

/// Most bytes that a function makes of one batch of rows, and most work on one row.
pub(crate) const MAX_MADE: usize = 64 << 20;
/// What rows may cost that are computed without a look in between.
const PART: usize = 4 << 20;
/// What a regular expression costs that is not known before.
const PATTERN: usize = 256 << 10;

/// What a row costs, by what a function is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cost {
    /// All that it is given.
    Sum,
    /// The first, so often as the second says.
    Times,
    /// As many characters as the second says, or values as large as the third.
    Padded,
    /// The first, with the third for each time that the second is in it.
    Replaced,
    /// The first, with the third wherever the second may match, and a pattern.
    Rewritten,
    /// From the first to the second in steps of the third.
    Series,
    /// The elements of the first, with the second between them.
    Joined,
    /// A time, by a pattern.
    Format,
    /// Every part of the first with every part of the second.
    Product,
    /// A pattern.
    Pattern,
}

/// The functions, by name.
const FUNCTIONS: &[(&str, Cost)] = &[
    ("repeat", Cost::Times),
    ("array_repeat", Cost::Times),
    ("lpad", Cost::Padded),
    ("rpad", Cost::Padded),
    ("array_resize", Cost::Padded),
    ("replace", Cost::Replaced),
    ("regexp_replace", Cost::Rewritten),
    ("regexp_like", Cost::Pattern),
    ("regexp_match", Cost::Pattern),
    ("regexp_count", Cost::Pattern),
    ("regexp_instr", Cost::Pattern),
    ("range", Cost::Series),
    ("generate_series", Cost::Series),
    ("array_to_string", Cost::Joined),
    ("to_char", Cost::Format),
    ("levenshtein", Cost::Product),
    ("array_has_all", Cost::Product),
    ("array_has_any", Cost::Product),
    ("concat", Cost::Sum),
    ("concat_ws", Cost::Sum),
    ("overlay", Cost::Sum),
    ("translate", Cost::Sum),
    ("make_array", Cost::Sum),
    ("array_append", Cost::Sum),
    ("array_prepend", Cost::Sum),
    ("array_concat", Cost::Sum),
    ("array_union", Cost::Sum),
    ("array_replace_all", Cost::Sum),
    ("arrays_zip", Cost::Sum),
    ("map", Cost::Sum),
    ("map_entries", Cost::Sum),
    ("struct", Cost::Sum),
    ("named_struct", Cost::Sum),
];

/// The same function, within bounds if it is of this kind.
pub(crate) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let known = FUNCTIONS.iter().find(|(name, _)| *name == function.name());
    match known.filter(|_| !function.inner().is::<Bounded>()) {
        Some((_, cost)) => Arc::new(ScalarUDF::from(Bounded { inner: function, cost: *cost })),
        None => function,
    }
}

/// Puts bounded functions in the place of those that operators and literals stand for.
#[derive(Debug)]
pub(crate) struct Bound;

impl FunctionRewrite for Bound {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                let bound = bounded(func.clone());
                let changed = !Arc::ptr_eq(&func, &bound);
                let expr = Expr::ScalarFunction(ScalarFunction { func: bound, args });
                Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })
                if !left.get_type(schema)?.is_nested() && !right.get_type(schema)?.is_nested() =>
            {
                let joined = Arc::new(ScalarUDF::from(Joined(Signature::user_defined(Volatility::Immutable))));
                let joined = Arc::new(ScalarUDF::from(Bounded { inner: joined, cost: Cost::Sum }));
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func: joined, args: vec![*left, *right] })))
            }
            expr => Ok(Transformed::no(expr)),
        }
    }
}

/// The operator `||` on texts: missing where one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Joined(Signature);

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, _: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![DataType::Utf8; 2])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = ColumnarValue::values_to_arrays(&args.args)?;
        let joined = concat_elements_utf8(texts[0].as_string::<i32>(), texts[1].as_string::<i32>())?;
        Ok(ColumnarValue::Array(Arc::new(joined)))
    }
}

/// A function within bounds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    cost: Cost,
}

impl Bounded {
    fn too_large(&self) -> DataFusionError {
        let detail = format!("{}: more than {} MiB would be made", self.inner.name(), MAX_MADE >> 20);
        DataFusionError::ResourcesExhausted(detail)
    }

    fn part(&self, args: &ScalarFunctionArgs, from: usize, to: usize) -> Result<ArrayRef> {
        cancel::check()?;
        let slice = |arg: &ColumnarValue| match arg {
            ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, to - from)),
            scalar => scalar.clone(),
        };
        let args = ScalarFunctionArgs {
            args: args.args.iter().map(slice).collect(),
            arg_fields: args.arg_fields.clone(),
            number_rows: to - from,
            return_field: args.return_field.clone(),
            config_options: args.config_options.clone(),
        };
        self.inner.invoke_with_args(args)?.into_array(to - from)
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        self.inner.return_type(kinds)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(kinds)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args.args.iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        let cost = |row: usize| self.cost.of(&columns, row);
        if columns.iter().all(|column| column.same) {
            if cost(0) > MAX_MADE || self.cost.makes() && cost(0).saturating_mul(args.number_rows) > MAX_MADE {
                return Err(self.too_large());
            }
            cancel::check()?;
            return self.inner.invoke_with_args(args);
        }
        let (mut parts, mut made, mut from, mut costs) = (Vec::new(), 0, 0, 0_usize);
        for row in 0..args.number_rows {
            let cost = cost(row);
            if cost > MAX_MADE {
                return Err(self.too_large());
            }
            if row > from && costs.saturating_add(cost) > PART {
                parts.push(self.part(&args, from, row)?);
                made += parts.last().map_or(0, bytes);
                if made > MAX_MADE {
                    return Err(self.too_large());
                }
                (from, costs) = (row, 0);
            }
            costs += cost;
        }
        if parts.is_empty() {
            return self.inner.invoke_with_args(args);
        }
        parts.push(self.part(&args, from, args.number_rows)?);
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

/// What a function is given: of each row a size, and a number where it is one.
struct Column {
    values: ArrayRef,
    /// It is the same in all rows.
    same: bool,
    numbers: Option<Int64Array>,
}

impl Column {
    fn new(value: &ColumnarValue) -> Result<Self> {
        let (values, same) = match value {
            ColumnarValue::Array(array) => (array.clone(), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array_of_size(1)?, true),
        };
        let numbers = match values.data_type() {
            kind if kind.is_integer() || kind.is_temporal() && !matches!(kind, DataType::Interval(_)) => {
                cast(&values, &DataType::Int64).ok().map(|numbers| numbers.as_primitive::<Int64Type>().clone())
            }
            _ => None,
        };
        Ok(Column { values, same, numbers })
    }

    fn at(&self, row: usize) -> usize {
        if self.same { 0 } else { row }
    }

    /// Bytes of a value.
    fn bytes(&self, row: usize) -> usize {
        let row = self.at(row);
        match self.values.data_type() {
            DataType::Utf8 => self.values.as_string::<i32>().value_length(row) as usize,
            DataType::Null => 0,
            kind => kind.primitive_width().unwrap_or_else(|| bytes(&self.values.slice(row, 1))),
        }
    }

    /// Elements of a list, or bytes of what is none.
    fn parts(&self, row: usize) -> usize {
        match self.values.data_type() {
            DataType::List(_) => self.values.as_list::<i32>().value_length(self.at(row)) as usize,
            DataType::LargeList(_) => self.values.as_list::<i64>().value_length(self.at(row)) as usize,
            _ => self.bytes(row),
        }
    }

    fn number(&self, row: usize) -> Option<i64> {
        let (numbers, row) = (self.numbers.as_ref()?, self.at(row));
        numbers.is_valid(row).then(|| numbers.value(row))
    }

    /// A step, in the unit of what steps.
    fn step(&self, row: usize, unit_ns: i64) -> Option<u64> {
        let row = self.at(row);
        if let DataType::Interval(unit) = self.values.data_type() {
            let day: i128 = 86_400_000_000_000;
            let ns = match unit {
                IntervalUnit::MonthDayNano => {
                    let step = self.values.as_primitive::<arrow::datatypes::IntervalMonthDayNanoType>().value(row);
                    i128::from(step.months) * 28 * day + i128::from(step.days) * day + i128::from(step.nanoseconds)
                }
                _ => day,
            };
            return u64::try_from(ns.abs() / i128::from(unit_ns)).ok().filter(|step| *step > 0);
        }
        self.number(row).map(i64::unsigned_abs).filter(|step| *step > 0)
    }
}

/// Nanoseconds of the unit of a time.
fn unit_ns(kind: &DataType) -> i64 {
    use arrow_schema::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    match kind {
        DataType::Date32 => 86_400_000_000_000,
        DataType::Date64 | DataType::Timestamp(Millisecond, _) => 1_000_000,
        DataType::Timestamp(Second, _) => 1_000_000_000,
        DataType::Timestamp(Microsecond, _) => 1000,
        DataType::Timestamp(Nanosecond, _) => 1,
        _ => 1,
    }
}

impl Cost {
    /// Whether what it tells is bytes that are made, and not work.
    fn makes(self) -> bool {
        !matches!(self, Cost::Product | Cost::Pattern | Cost::Replaced | Cost::Rewritten)
    }

    fn of(self, columns: &[Column], row: usize) -> usize {
        let bytes = |n: usize| columns.get(n).map_or(0, |column| column.bytes(row));
        let parts = |n: usize| columns.get(n).map_or(0, |column| column.parts(row));
        let number = |n: usize| columns.get(n).and_then(|column| column.number(row));
        let times = |n: usize| number(n).map_or(0, |n| usize::try_from(n).unwrap_or(0));
        match self {
            Cost::Sum => columns.iter().map(|column| column.bytes(row).saturating_add(8)).sum(),
            Cost::Times => bytes(0).max(1).saturating_mul(times(1)),
            Cost::Padded => bytes(0).saturating_add(times(1).saturating_mul(if columns.len() > 2 {
                bytes(2).clamp(4, 1 << 20)
            } else {
                8
            })),
            Cost::Replaced => {
                let often = bytes(0) / bytes(1).max(1) + 1;
                bytes(0).saturating_add(often.saturating_mul(bytes(2)))
            }
            Cost::Rewritten => {
                let pattern = if columns.get(1).is_some_and(|pattern| !pattern.same) { PATTERN } else { 0 };
                // What is put in place of a match may repeat parts of it.
                let repeated = bytes(2).min(64).saturating_mul(bytes(0));
                let put = (bytes(0) + 1).saturating_mul(bytes(2));
                pattern.saturating_add(bytes(0)).saturating_add(repeated).saturating_add(put)
            }
            Cost::Series => {
                let unit = columns.first().map_or(1, |column| unit_ns(column.values.data_type()));
                let step = columns.get(2).map_or(Some(1), |column| column.step(row, unit));
                let (from, to) = match columns.len() {
                    1 => (Some(0), number(0)),
                    _ => (number(0), number(1)),
                };
                let (Some(from), Some(to), Some(step)) = (from, to, step) else { return 0 };
                usize::try_from(from.abs_diff(to) / step).unwrap_or(usize::MAX).saturating_mul(8)
            }
            Cost::Joined => {
                let between = columns.iter().skip(1).map(|column| column.bytes(row)).sum::<usize>();
                bytes(0).saturating_mul(4).saturating_add(parts(0).saturating_mul(between))
            }
            Cost::Format => bytes(1).saturating_mul(32),
            Cost::Product => parts(0).saturating_mul(parts(1)),
            Cost::Pattern => {
                let pattern = if columns.get(1).is_some_and(|pattern| !pattern.same) { PATTERN } else { 0 };
                pattern.saturating_add(bytes(0))
            }
        }
    }
}
