//! Arguments of aggregates in one segment, read in blocks.

use super::numeric::Numeric;
use super::plan::AggregatePlan;
use super::state::{Kind, Numbered, SumType, Values};
use crate::leaf::column::{BoundColumn, ChunkNulls};
use crate::leaf::expression::BoundExpression;
use crate::leaf::segment::SegmentView;
use crate::leaf::star_tree::StoredArgument;
use crate::leaf::values::{Canonical, Domain, canonical, validity};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, UInt64Type};
use std::sync::Arc;
use strandline_index::{DocSelection, ValueBuffer};
use strandline_proto::leaf::LeafQuery;
use strandline_proto::{Error, Result};

/// Where an aggregate's argument comes from.
pub(super) enum Argument {
    /// There is none: rows are counted.
    Rows,
    /// Only whether it is null matters.
    Validity(Arc<BoundColumn>),
    /// Dictionary ids stand for the values.
    Ids(Arc<BoundColumn>),
    /// Numbers of values that storage holds once each stand for them.
    Numbers(Arc<BoundColumn>),
    /// Arithmetic on numbers.
    Numeric(Numeric),
    /// Any expression.
    Any(BoundExpression),
    /// Aggregates of a star-tree's records.
    Stored(StoredArgument),
}

impl Argument {
    /// The argument of `aggregate` in `segment`.
    pub(super) fn new(
        aggregate: &AggregatePlan,
        query: &LeafQuery,
        segment: &SegmentView,
    ) -> Result<Self> {
        let Some((expr, expression)) = &aggregate.argument else {
            return Ok(Self::Rows);
        };
        let bound = BoundExpression::new(Arc::clone(expression), segment)?;
        if let Some(column) = bound.plain_column() {
            let dictionary = column
                .reader
                .dictionary()
                .filter(|_| !column.is_multi_value());
            match (aggregate.kind, dictionary) {
                (Kind::Count, _) => return Ok(Self::Validity(Arc::clone(column))),
                (Kind::Distinct { .. }, Some(_)) => return Ok(Self::Ids(Arc::clone(column))),
                (Kind::Distinct { .. }, None)
                    if !column.is_multi_value() && column.reader.distinct().is_some() =>
                {
                    return Ok(Self::Numbers(Arc::clone(column)));
                }
                (Kind::Extreme { .. }, Some(dictionary)) if dictionary.is_sorted() => {
                    return Ok(Self::Ids(Arc::clone(column)));
                }
                _ => {}
            }
        }
        if matches!(
            aggregate.kind,
            Kind::Sum(SumType::I64 | SumType::F64)
                | Kind::Avg(SumType::I64 | SumType::F64)
                | Kind::Extreme { .. }
        ) && let Some(numeric) = Numeric::compile(expr, &query.parameters, segment)?
        {
            return Ok(Self::Numeric(numeric));
        }
        Ok(Self::Any(bound))
    }

    /// What the ids that [`Argument::read`] gives stand for.
    pub(super) fn numbered(&self) -> Option<Numbered<'_>> {
        match self {
            Self::Ids(column) => column.reader.dictionary().map(Numbered::Dictionary),
            Self::Numbers(column) => column.reader.distinct().map(Numbered::Distinct),
            // Lists of distinct values have one, numbers have none.
            Self::Stored(stored) => (stored.values.first())
                .and_then(|(column, _)| column.reader.dictionary())
                .map(Numbered::Dictionary),
            _ => None,
        }
    }

    /// Whether some value may be null.
    pub(super) fn is_nullable(&self) -> bool {
        match self {
            Self::Rows => false,
            Self::Validity(column) | Self::Ids(column) | Self::Numbers(column) => {
                column.reader.has_nulls()
            }
            Self::Numeric(numeric) => numeric
                .columns()
                .iter()
                .any(|column| column.reader.has_nulls()),
            Self::Any(_) => true,
            Self::Stored(stored) => stored
                .values
                .iter()
                .any(|(column, _)| column.reader.has_nulls()),
        }
    }

    /// How many null caches [`Argument::read`] wants.
    pub(super) fn null_caches(&self) -> usize {
        match self {
            Self::Rows | Self::Any(_) => 0,
            Self::Validity(_) | Self::Ids(_) | Self::Numbers(_) => 1,
            Self::Stored(stored) => stored.values.len(),
            Self::Numeric(numeric) => numeric.columns().len(),
        }
    }

    /// Reads the values of `docs` for an aggregate of `kind`, and clears the flags in `valid` (one a document) of null ones.
    pub(super) fn read(
        &self,
        kind: Kind,
        docs: &DocSelection<'_>,
        nulls: &mut [ChunkNulls],
        valid: &mut [bool],
    ) -> Result<Values> {
        let mut clear = |columns: &[&Arc<BoundColumn>]| {
            for (column, cache) in columns.iter().zip(nulls.iter_mut()) {
                if column.reader.has_nulls() {
                    cache.clear_nulls(column.reader.as_ref(), docs, valid);
                }
            }
        };
        Ok(match self {
            Self::Rows => Values::None,
            Self::Validity(column) => {
                clear(&[column]);
                Values::None
            }
            Self::Ids(column) => {
                clear(&[column]);
                let mut ids = Vec::with_capacity(docs.len());
                column.reader.dict_ids(docs.clone(), &mut ids);
                Values::Ids(ids)
            }
            Self::Stored(stored) => {
                clear(&stored.values.iter().map(|(c, _)| c).collect::<Vec<_>>());
                stored.read(kind, docs)?
            }
            Self::Numbers(column) => {
                clear(&[column]);
                let mut numbers = Vec::with_capacity(docs.len());
                if let Some(distinct) = column.reader.distinct() {
                    distinct.numbers(docs, &mut numbers);
                }
                Values::Ids(numbers)
            }
            Self::Numeric(numeric) => {
                clear(&numeric.columns().iter().collect::<Vec<_>>());
                numeric.evaluate(docs)?
            }
            Self::Any(expression) => {
                let array = expression.evaluate(docs.clone())?;
                if let Some(nulls) = validity(&array) {
                    for (flag, valid) in valid.iter_mut().zip(nulls.iter()) {
                        *flag &= valid;
                    }
                }
                match (kind, array.data_type()) {
                    (Kind::Count, _) => Values::None,
                    (Kind::Sum(SumType::U64) | Kind::Avg(SumType::U64), DataType::UInt64) => {
                        // Sums wrap, so the bits of signed ones are right for unsigned ones.
                        Values::I64(
                            array
                                .as_primitive::<UInt64Type>()
                                .values()
                                .iter()
                                .map(|&v| v as i64)
                                .collect(),
                        )
                    }
                    (Kind::Sum(_) | Kind::Avg(_), DataType::Float64) => {
                        Values::F64(array.as_primitive::<Float64Type>().values().to_vec())
                    }
                    (Kind::Sum(_) | Kind::Avg(_), DataType::Float32) => Values::F64(
                        array
                            .as_primitive::<Float32Type>()
                            .values()
                            .iter()
                            .map(|&v| f64::from(v))
                            .collect(),
                    ),
                    (Kind::Sum(_) | Kind::Avg(_), other)
                        if !matches!(Domain::of(other), Domain::I64 | Domain::I128) =>
                    {
                        return Err(Error::internal(format!("a sum over {other}")));
                    }
                    _ => match canonical(&array)? {
                        Canonical::I64(values) => Values::I64(values),
                        Canonical::I128(values) => Values::I128(values),
                        Canonical::Bytes(values) => Values::Bytes(values),
                    },
                }
            }
        })
    }
}

impl StoredArgument {
    /// The measures of `docs`, records of a star-tree.
    fn read(&self, kind: Kind, docs: &DocSelection<'_>) -> Result<Values> {
        let lacking = || Error::internal("an aggregate lacks a measure");
        let numbers = |column: &BoundColumn| {
            let mut values = ValueBuffer::new(column.reader.physical());
            column.reader.values(docs.clone(), &mut values);
            values
        };
        let counts = || match self.counts.as_ref().map(|column| numbers(column)) {
            Some(ValueBuffer::I64(counts)) => Ok(counts),
            _ => Err(lacking()),
        };
        if self.values.len() > 1 {
            let mut sums = vec![0i64; docs.len()];
            for (column, negative) in &self.values {
                let ValueBuffer::I64(values) = numbers(column) else {
                    return Err(lacking());
                };
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = match negative {
                        true => sum.wrapping_sub(value),
                        false => sum.wrapping_add(value),
                    };
                }
            }
            return Ok(Values::I64(sums));
        }
        let first = || self.values.first().map(|(column, _)| column);
        let values = || first().map(|column| numbers(column)).ok_or_else(lacking);
        match kind {
            Kind::Distinct { .. } => {
                let column = first().ok_or_else(lacking)?;
                let (mut ends, mut ids) = (Vec::new(), Vec::new());
                let reader = &column.reader;
                reader.multi_dict_ids(docs.clone(), &mut ends, &mut ids);
                Ok(Values::IdLists { ends, ids })
            }
            Kind::Count => Ok(Values::Counts(counts()?)),
            Kind::Avg(SumType::F64) => {
                let sums = match values()? {
                    ValueBuffer::F64(sums) => sums,
                    ValueBuffer::I64(sums) => sums.into_iter().map(|sum| sum as f64).collect(),
                    _ => return Err(Error::internal("a measure's sums are no numbers")),
                };
                let counts = counts()?;
                Ok(Values::Means { sums, counts })
            }
            _ => match values()? {
                ValueBuffer::I64(values) => Ok(Values::I64(values)),
                ValueBuffer::F64(values) => Ok(Values::F64(values)),
                _ => Err(Error::internal("a measure's values are no numbers")),
            },
        }
    }
}
