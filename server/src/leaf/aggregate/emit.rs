//! States as an answer's columns: DataFusion's partial states, or what is made of them.

use super::cells::Pairs;
use super::state::{Kind, State};
use crate::leaf::values::{Canonical, Interner, array_of, binary};
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use std::sync::Arc;
use strandline_proto::{Error, Result};

impl State {
    /// The state's columns, one row a group.
    pub(super) fn emit(
        self,
        kind: Kind,
        groups: usize,
        types: &[DataType],
    ) -> Result<Vec<ArrayRef>> {
        let first = types
            .first()
            .ok_or_else(|| Error::internal("an aggregate without state columns"))?;
        Ok(match (kind, self) {
            (Kind::Count, Self::Count(counts)) => vec![Arc::new(Int64Array::from(counts))],
            (Kind::Sum(_) | Kind::Avg(_), Self::SumI64(sums)) => {
                let values = match types.last() {
                    // The bits of a wrapped signed sum are those of the unsigned one.
                    Some(DataType::UInt64) => {
                        Canonical::I128(sums.sums.iter().map(|&v| i128::from(v as u64)).collect())
                    }
                    _ => Canonical::I64(sums.sums),
                };
                sum_columns(kind, types, &sums.counts, |valid, data_type| {
                    array_of(values, valid, data_type)
                })?
            }
            (Kind::Avg(_), Self::SumF64(sums)) if types.len() == 1 => {
                let valid = sums.counts.iter().map(|&count| count > 0).collect();
                let means = sums.sums.iter().zip(&sums.counts);
                let means: Vec<f64> = means.map(|(sum, &count)| sum / count as f64).collect();
                let array = Float64Array::try_new(means.into(), some_null(valid))
                    .map_err(|e| Error::internal(e.to_string()))?;
                vec![Arc::new(array)]
            }
            (Kind::Sum(_) | Kind::Avg(_), Self::SumF64(sums)) => {
                let values = sums.sums;
                sum_columns(kind, types, &sums.counts, |valid, _| {
                    let nulls = valid.map(NullBuffer::from);
                    Ok(Arc::new(
                        Float64Array::try_new(values.into(), nulls)
                            .map_err(|e| Error::internal(e.to_string()))?,
                    ))
                })?
            }
            (Kind::Sum(_) | Kind::Avg(_), Self::SumI128(sums)) => {
                let values = Canonical::I128(sums.sums);
                sum_columns(kind, types, &sums.counts, |valid, data_type| {
                    array_of(values, valid, data_type)
                })?
            }
            (Kind::Sum(_) | Kind::Avg(_), Self::SumI256(sums)) => {
                let values = sums.sums;
                sum_columns(kind, types, &sums.counts, |valid, data_type| {
                    let nulls = valid.map(NullBuffer::from);
                    let array = Decimal256Array::try_new(values.into(), nulls)
                        .map_err(|e| Error::internal(e.to_string()))?;
                    Ok(Arc::new(array.with_data_type(data_type.clone())))
                })?
            }
            (_, Self::ExtremeI64(extremes)) => vec![array_of(
                Canonical::I64(extremes.values),
                Some(extremes.seen),
                first,
            )?],
            (_, Self::ExtremeI128(extremes)) => vec![array_of(
                Canonical::I128(extremes.values),
                Some(extremes.seen),
                first,
            )?],
            (_, Self::ExtremeBytes { values, .. }) => {
                let seen = values.iter().map(Option::is_some).collect();
                let array = binary(values.iter().map(|v| v.as_deref().unwrap_or_default()))?;
                vec![array_of(Canonical::Bytes(array), Some(seen), first)?]
            }
            (_, Self::Sketches(sketches)) => vec![Arc::new(sketches.emit()?)],
            (_, Self::Distinct { pairs, .. }) if *first == DataType::Int64 => {
                let mut counts = vec![0i64; groups];
                pairs.for_each(|group, _| counts[group as usize] += 1);
                vec![Arc::new(Int64Array::from(counts))]
            }
            (_, Self::Distinct { pairs, values }) => {
                vec![distinct_lists(&pairs, &values, groups, first)?]
            }
            _ => {
                return Err(Error::internal(
                    "a state of another aggregate was to be emitted",
                ));
            }
        })
    }
}

/// The columns of a sum, or of an average: the count first. Both are null where there is no value.
fn sum_columns(
    kind: Kind,
    types: &[DataType],
    counts: &[u64],
    sums: impl FnOnce(Option<Vec<bool>>, &DataType) -> Result<ArrayRef>,
) -> Result<Vec<ArrayRef>> {
    let valid: Vec<bool> = counts.iter().map(|&count| count > 0).collect();
    let data_type = types
        .last()
        .ok_or_else(|| Error::internal("a sum without a state column"))?;
    let all = valid.iter().all(|&v| v);
    let sum = sums((!all).then(|| valid.clone()), data_type)?;
    if !matches!(kind, Kind::Avg(_)) {
        return Ok(vec![sum]);
    }
    let nulls = (!all).then(|| NullBuffer::from(valid));
    let counts = UInt64Array::try_new(counts.to_vec().into(), nulls)
        .map_err(|e| Error::internal(e.to_string()))?;
    Ok(vec![Arc::new(counts), sum])
}

fn some_null(valid: Vec<bool>) -> Option<NullBuffer> {
    Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0)
}

fn distinct_lists(
    pairs: &Pairs,
    values: &Interner,
    groups: usize,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let DataType::List(field) = data_type else {
        return Err(Error::internal(format!(
            "distinct values are lists, not {data_type}"
        )));
    };
    let mut lengths = vec![0usize; groups];
    pairs.for_each(|group, _| lengths[group as usize] += 1);
    let total: usize = lengths.iter().sum();
    if i32::try_from(total).is_err() {
        return Err(Error::exhausted(
            "over 2^31 distinct values in one answer: group or filter, or count approximately",
        ));
    }
    let mut next: Vec<usize> = lengths
        .iter()
        .scan(0, |start, &length| {
            let this = *start;
            *start += length;
            Some(this)
        })
        .collect();
    let mut ids = vec![0u32; total];
    pairs.for_each(|group, id| {
        let at = &mut next[group as usize];
        ids[*at] = id;
        *at += 1;
    });
    let elements = values.gather(&ids, field.data_type())?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(
        ListArray::try_new(Arc::clone(field), offsets, elements, None)
            .map_err(|e| Error::internal(e.to_string()))?,
    ))
}
