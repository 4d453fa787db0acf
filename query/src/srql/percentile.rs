//! `percentile(f, q)`, `p95(f)`, …: [`Quantiles`] of every group.

use std::sync::Arc;

use arrow_array::builder::{Float64Builder, ListBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Signature, Volatility,
};

use crate::srql::quantiles::{Parts, Quantiles};

/// The value below which a share of the values of each group are.
pub(crate) fn percentile(values: Expr, share: f64) -> Expr {
    let signature = Signature::exact(vec![DataType::Float64], Volatility::Immutable);
    let name = format!("percentile_{share}");
    AggregateUDF::from(Percentile { name, share: share.to_bits(), signature }).call(vec![values])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    name: String,
    /// As bits, to be compared.
    share: u64,
    signature: Signature,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One(Groups::of(f64::from_bits(self.share)))))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |what: &str, item: DataType| {
            let item = Field::new_list_field(item, true);
            Arc::new(Field::new(format_state_name(args.name, what), DataType::List(item.into()), true))
        };
        Ok(vec![list("values", DataType::Float64), list("lengths", DataType::UInt32)])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::of(f64::from_bits(self.share))))
    }
}

/// Those of all groups.
#[derive(Debug)]
struct Groups {
    share: f64,
    groups: Vec<Quantiles>,
    /// What their values take.
    bytes: usize,
}

impl Groups {
    fn of(share: f64) -> Groups {
        Groups { share, groups: Vec::new(), bytes: 0 }
    }

    fn change(&mut self, group: usize, change: impl FnOnce(&mut Quantiles)) {
        let group = &mut self.groups[group];
        self.bytes -= group.bytes();
        change(group);
        self.bytes += group.bytes();
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Quantiles> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.bytes -= taken.iter().map(Quantiles::bytes).sum::<usize>();
        taken
    }
}

/// Groups as arrays: their values, and how many of these each level has.
fn state<'q>(groups: impl Iterator<Item = &'q Quantiles>) -> Vec<ArrayRef> {
    let (mut values, mut lengths) = (ListBuilder::new(Float64Builder::new()), ListBuilder::new(UInt32Builder::new()));
    let (mut of_one, mut lengths_of_one) = (Vec::new(), Vec::new());
    for group in groups {
        of_one.clear();
        lengths_of_one.clear();
        group.parts(&mut of_one, &mut lengths_of_one);
        values.values().append_slice(&of_one);
        lengths.values().append_slice(&lengths_of_one);
        values.append(true);
        lengths.append(true);
    }
    vec![Arc::new(values.finish()), Arc::new(lengths.finish())]
}

/// Whether a row is there, and is asked for.
fn counts(values: &Float64Array, filter: Option<&BooleanArray>, row: usize) -> bool {
    values.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Quantiles::default);
        let values = values[0].as_primitive::<Float64Type>();
        for (row, group) in group_indices.iter().enumerate() {
            if counts(values, opt_filter, row) {
                self.change(*group, |group| group.push(values.value(row)));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let share = self.share;
        let found: Float64Array = self.take(emit_to).iter().map(|group| group.quantile(share)).collect();
        Ok(Arc::new(found))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(state(self.take(emit_to).iter()))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups.resize_with(total_num_groups, Quantiles::default);
        let (values, lengths) = (values[0].as_list::<i32>(), values[1].as_list::<i32>());
        for (row, group) in group_indices.iter().enumerate() {
            if values.is_null(row) {
                continue;
            }
            let (values, lengths) = (values.value(row), lengths.value(row));
            let parts = Parts {
                values: values.as_primitive::<Float64Type>().values(),
                lengths: lengths.as_primitive::<UInt32Type>().values(),
            };
            self.change(*group, |group| group.merge(parts));
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Float64Type>();
        let groups = (0..values.len()).map(|row| {
            let mut group = Quantiles::default();
            if counts(values, opt_filter, row) {
                group.push(values.value(row));
            }
            group
        });
        Ok(state(groups.collect::<Vec<_>>().iter()))
    }

    fn size(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<Quantiles>()
    }
}

/// Those of the one group that everything is.
#[derive(Debug)]
struct One(Groups);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.0.groups.first().and_then(|group| group.quantile(self.0.share))))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.groups.resize_with(1, Quantiles::default);
        state(self.0.groups.iter()).iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }
}
