//! An aggregation as planned for all segments: keys, aggregates and the types of their states.

use super::state::{Kind, SumType};
use crate::leaf::expression::Expression;
use crate::leaf::filter::PlannedFilter;
use crate::leaf::values::Domain;
use arrow::datatypes::{DataType, SchemaRef};
use std::sync::Arc;
use strandline_proto::leaf::{AggregateFunction, GroupKey, LeafAggregate, LeafExpr, LeafQuery};
use strandline_proto::{Error, Result};

/// One group key.
pub(super) struct KeyPlan {
    pub(super) expression: Arc<Expression>,
    /// Each element of a list is a key of its own.
    pub(super) explode: bool,
    /// The type of the key's column in the answer.
    pub(super) data_type: DataType,
}

/// One aggregate.
pub(super) struct AggregatePlan {
    pub(super) kind: Kind,
    /// The argument as written, and prepared.
    pub(super) argument: Option<(LeafExpr, Arc<Expression>)>,
    pub(super) filter: Option<PlannedFilter>,
    /// Types of the state's columns in the answer.
    pub(super) states: Vec<DataType>,
}

/// The whole aggregation.
pub(super) struct Plan {
    pub(super) keys: Vec<KeyPlan>,
    pub(super) aggregates: Vec<AggregatePlan>,
    pub(super) schema: SchemaRef,
}

impl Plan {
    /// Plans `group` and `aggregates` of a query, whose answer has the work's schema.
    pub(super) fn new(
        query: &LeafQuery,
        group: &[GroupKey],
        aggregates: &[LeafAggregate],
    ) -> Result<Self> {
        let schema = Arc::clone(&query.work.schema);
        let mut types = schema
            .fields()
            .iter()
            .map(|field| field.data_type().clone());
        let mut next = || {
            types.next().ok_or_else(|| {
                Error::invalid("the leaf query's schema has fewer columns than its aggregation")
            })
        };
        let prepare =
            |expr: &LeafExpr| Expression::new(expr, &query.schema, &query.parameters).map(Arc::new);
        let mut keys = Vec::with_capacity(group.len());
        for key in group {
            let expression = prepare(&key.expr)?;
            let data_type = next()?;
            let element = match (&expression.data_type, key.explode) {
                (DataType::List(field), true) => field.data_type().clone(),
                (other, _) => other.clone(),
            };
            let explode = key.explode && matches!(expression.data_type, DataType::List(_));
            if Domain::of(&element) != Domain::of(&data_type) {
                return Err(Error::invalid(format!(
                    "a group key of type {element} can't be given as {data_type}"
                )));
            }
            keys.push(KeyPlan {
                expression,
                explode,
                data_type,
            });
        }
        let mut plans = Vec::with_capacity(aggregates.len());
        for aggregate in aggregates {
            let argument = aggregate
                .argument
                .as_ref()
                .map(|expr| Ok((expr.clone(), prepare(expr)?)))
                .transpose()?;
            let argument_type = argument
                .as_ref()
                .map(|(_, expression)| &expression.data_type);
            let width = if aggregate.function == AggregateFunction::Avg {
                2
            } else {
                1
            };
            let states = (0..width).map(|_| next()).collect::<Result<Vec<_>>>()?;
            let kind = kind(aggregate.function, argument_type, &states)?;
            plans.push(AggregatePlan {
                kind,
                argument,
                filter: aggregate
                    .filter
                    .as_ref()
                    .map(|filter| PlannedFilter::new(filter, query, false))
                    .transpose()?,
                states,
            });
        }
        if types.next().is_some() {
            return Err(Error::invalid(
                "the leaf query's schema has more columns than its aggregation",
            ));
        }
        Ok(Self {
            keys,
            aggregates: plans,
            schema,
        })
    }
}

fn kind(
    function: AggregateFunction,
    argument: Option<&DataType>,
    states: &[DataType],
) -> Result<Kind> {
    let unfit = || {
        let argument = argument.map_or("nothing".to_owned(), DataType::to_string);
        Error::unsupported(format!(
            "not supported: {function:?} of {argument} with states {states:?} in a leaf"
        ))
    };
    let sum = |argument: &DataType, sum: &DataType| match (argument, sum) {
        (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, DataType::Int64) => {
            Ok(SumType::I64)
        }
        (DataType::UInt64, DataType::UInt64) => Ok(SumType::U64),
        (DataType::Float32 | DataType::Float64, DataType::Float64) => Ok(SumType::F64),
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) if from == to => {
            Ok(SumType::I128)
        }
        (DataType::Decimal128(_, from), DataType::Decimal256(_, to)) if from == to => {
            Ok(SumType::I256)
        }
        _ => Err(unfit()),
    };
    match (function, argument, states) {
        (AggregateFunction::Count, _, [DataType::Int64]) => Ok(Kind::Count),
        (AggregateFunction::Sum, Some(argument), [state]) => Ok(Kind::Sum(sum(argument, state)?)),
        (AggregateFunction::Avg, Some(argument), [DataType::UInt64, state]) => {
            Ok(Kind::Avg(sum(argument, state)?))
        }
        (AggregateFunction::FinalAvg, Some(DataType::Float64), [DataType::Float64]) => {
            Ok(Kind::Avg(SumType::F64))
        }
        (AggregateFunction::FinalCountDistinct, Some(argument), [DataType::Int64]) => {
            Ok(Kind::Distinct {
                domain: Domain::of(argument),
                approximate: false,
            })
        }
        (AggregateFunction::Min | AggregateFunction::Max, Some(argument), [state]) => {
            let domain = Domain::of(argument);
            if domain == Domain::Rows || domain != Domain::of(state) {
                return Err(unfit());
            }
            Ok(Kind::Extreme {
                max: function == AggregateFunction::Max,
                domain,
            })
        }
        (AggregateFunction::ApproxDistinct, Some(argument), [DataType::Binary])
            if Domain::of(argument) != Domain::Rows =>
        {
            Ok(Kind::Distinct {
                domain: Domain::of(argument),
                approximate: true,
            })
        }
        (AggregateFunction::CountDistinct, Some(argument), [DataType::List(field)]) => {
            let domain = Domain::of(argument);
            if domain != Domain::of(field.data_type()) {
                return Err(unfit());
            }
            Ok(Kind::Distinct {
                domain,
                approximate: false,
            })
        }
        _ => Err(unfit()),
    }
}
