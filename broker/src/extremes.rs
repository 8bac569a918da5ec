//! `min` and `max` as DataFusion has them, but right for groups of floats.
//!
//! DataFusion's accumulator for groups lets a NaN replace what it holds and then be replaced itself, so that an answer
//! depends on the order of the rows, and it starts at the largest finite value, which hides an infinity. Its accumulator
//! for a single group has neither fault: floats go through that one, in total order, NaN above all.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use std::sync::Arc;

/// `function` with groups of floats in total order, when it is `min` or `max`; otherwise as it is.
pub(crate) fn corrected(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match function.name() {
        "min" | "max" => Arc::new(AggregateUDF::from(Extreme { inner: function })),
        _ => function,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.inner().state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.inner().accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.return_field.data_type().is_floating()
            && self.inner.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.inner().create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.inner().create_sliding_accumulator(args)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.inner().is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.inner().order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.inner().value_from_stats(args)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Float64Array, Int32Array, RecordBatch};
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn groups_of_floats_have_the_extremes_that_sorting_gives() {
        let context = SessionContext::new();
        for function in datafusion::execution::SessionStateDefaults::default_aggregate_functions() {
            context.register_udaf(corrected(function).as_ref().clone());
        }
        let keys = Int32Array::from(vec![1, 1, 1, 1, 2, 2, 3]);
        let inf = f64::INFINITY;
        let values = Float64Array::from(vec![-1.0, f64::NAN, 5.0, -inf, inf, inf, f64::NAN]);
        let batch =
            RecordBatch::try_from_iter([("k", Arc::new(keys) as _), ("v", Arc::new(values) as _)])
                .unwrap();
        context.register_batch("t", batch).unwrap();
        let rows = context
            .sql("SELECT k, min(v) AS low, max(v) AS high FROM t GROUP BY k ORDER BY k")
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        assert_eq!(
            pretty_format_batches(&rows).unwrap().to_string(),
            "+---+------+------+\n\
             | k | low  | high |\n\
             +---+------+------+\n\
             | 1 | -inf | NaN  |\n\
             | 2 | inf  | inf  |\n\
             | 3 | NaN  | NaN  |\n\
             +---+------+------+"
        );
    }
}
