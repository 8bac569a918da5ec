//! A column test with its operands resolved in the column's own domain.

use super::text::TextTest;
use crate::leaf::compare::{ColumnPlace, Key, Place, place};
use strandline_proto::leaf::{ColumnPredicate, ColumnTest, Operand};
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// A predicate that any value of the column can be held against.
#[derive(Clone, Debug)]
pub(super) enum Resolved {
    /// NULL for every row.
    Never,
    /// IS NULL, or IS NOT NULL.
    IsNull {
        /// IS NOT NULL.
        negated: bool,
    },
    /// A test of values.
    Test {
        /// Which values pass.
        test: Test,
        /// Whether the test must fail.
        negated: bool,
    },
}

/// Which values of a column pass.
#[derive(Clone, Debug)]
pub(in crate::leaf) enum Test {
    /// Keys of INT, BOOLEAN or FLOAT.
    K32(KeySet<i32>),
    /// Keys of LONG, TIMESTAMP or DOUBLE.
    K64(KeySet<i64>),
    /// Keys of BIG_DECIMAL.
    K128(KeySet<i128>),
    /// Text or bytes by order.
    Bytes(BytesSet),
    /// Text by pattern.
    Text(TextTest),
}

/// Keys in ranges, both ends included: ascending, not touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::leaf) struct KeySet<K> {
    /// The ranges.
    pub(super) ranges: Vec<(K, K)>,
}

impl<K: Key> KeySet<K> {
    fn new(mut ranges: Vec<(K, K)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(K, K)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if last.1.next().is_none_or(|next| low <= next) => {
                    last.1 = last.1.max(high)
                }
                _ => merged.push((low, high)),
            }
        }
        Self { ranges: merged }
    }

    /// Whether `key` is in.
    #[inline]
    pub(super) fn contains(&self, key: K) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= key);
        after > 0 && key <= self.ranges[after - 1].1
    }
}

/// Text or bytes: some values, or ranges of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::leaf) struct BytesSet {
    /// Single values, ascending, distinct.
    pub(super) points: Vec<Vec<u8>>,
    /// Ranges by bound and whether it is itself included.
    pub(super) ranges: Vec<BytesRange>,
}

/// Bounds, each with whether it is itself included.
pub(in crate::leaf) type BytesRange = (Option<(Vec<u8>, bool)>, Option<(Vec<u8>, bool)>);

impl BytesSet {
    /// Whether `value` is in.
    pub(super) fn contains(&self, value: &[u8]) -> bool {
        let within = |(low, high): &BytesRange| {
            low.as_ref().is_none_or(|(low, included)| {
                value > low.as_slice() || (*included && value == low.as_slice())
            }) && high.as_ref().is_none_or(|(high, included)| {
                value < high.as_slice() || (*included && value == high.as_slice())
            })
        };
        self.points
            .binary_search_by(|point| point.as_slice().cmp(value))
            .is_ok()
            || self.ranges.iter().any(within)
    }
}

/// One bound: a place and whether it is itself included.
type Bound = Option<(ColumnPlace, bool)>;

/// The value of an operand.
pub(super) fn value_of<'a>(operand: &'a Operand, parameters: &'a [Value]) -> Result<&'a Value> {
    match operand {
        Operand::Literal(value) => Ok(value),
        Operand::Parameter(index) => parameters.get(*index).ok_or_else(|| {
            Error::invalid(format!(
                "the leaf query names parameter {index} and brings {}",
                parameters.len()
            ))
        }),
    }
}

/// Resolves a predicate on a column of `data_type`.
pub(super) fn resolve(
    predicate: &ColumnPredicate,
    data_type: DataType,
    parameters: &[Value],
) -> Result<Resolved> {
    let negated = predicate.negated;
    let place_of = |value: &Value| {
        place(value, data_type).map_err(|e| e.at(format_args!("column {:?}", predicate.column)))
    };
    match &predicate.test {
        ColumnTest::IsNull => Ok(Resolved::IsNull { negated }),
        ColumnTest::In(operands) => {
            let mut places = Vec::with_capacity(operands.len());
            for operand in operands {
                match value_of(operand, parameters)? {
                    // `x IN (1, NULL)` is TRUE or NULL, `x NOT IN (1, NULL)` is FALSE or NULL.
                    Value::Null if negated => return Ok(Resolved::Never),
                    Value::Null => {}
                    value => places.push(place_of(value)?),
                }
            }
            Ok(Resolved::Test {
                test: points(data_type, places),
                negated,
            })
        }
        ColumnTest::Range { low, high } => {
            let bound = |bound: &Option<(Operand, bool)>| -> Result<Option<Bound>> {
                let Some((operand, included)) = bound else {
                    return Ok(Some(None));
                };
                let value = value_of(operand, parameters)?;
                Ok(if value.is_null() {
                    None
                } else {
                    Some(Some((place_of(value)?, *included)))
                })
            };
            match (bound(low)?, bound(high)?) {
                (Some(low), Some(high)) => Ok(Resolved::Test {
                    test: ranges(data_type, vec![(low, high)])?,
                    negated,
                }),
                // With one NULL bound a negated range could still be TRUE beyond the other.
                (low, high) if negated => {
                    let outside = match (low, high) {
                        (Some(Some(low)), None) => ranges(data_type, vec![(Some(low), None)])?,
                        (None, Some(Some(high))) => ranges(data_type, vec![(None, Some(high))])?,
                        _ => return Ok(Resolved::Never),
                    };
                    Ok(Resolved::Test {
                        test: outside,
                        negated,
                    })
                }
                _ => Ok(Resolved::Never),
            }
        }
        ColumnTest::Like {
            pattern,
            case_insensitive,
        } => text(predicate, data_type, pattern, parameters, |pattern| {
            TextTest::like(pattern, *case_insensitive)
        }),
        ColumnTest::Regex {
            pattern,
            case_insensitive,
        } => text(predicate, data_type, pattern, parameters, |pattern| {
            TextTest::regex(pattern, *case_insensitive)
        }),
    }
}

fn text(
    predicate: &ColumnPredicate,
    data_type: DataType,
    pattern: &Operand,
    parameters: &[Value],
    test: impl FnOnce(&str) -> Result<TextTest>,
) -> Result<Resolved> {
    if !matches!(data_type, DataType::String | DataType::Json) {
        return Err(Error::invalid(format!(
            "column {:?} is {}, and patterns match text: cast it to VARCHAR",
            predicate.column,
            data_type.pinot_name()
        )));
    }
    match value_of(pattern, parameters)? {
        Value::Null => Ok(Resolved::Never),
        Value::String(pattern) => Ok(Resolved::Test {
            test: Test::Text(test(pattern)?),
            negated: predicate.negated,
        }),
        other => Err(Error::invalid(format!(
            "column {:?}: a pattern must be text, not {other:?}",
            predicate.column
        ))),
    }
}

/// The test of being within any of `intervals`, half-open, in the column's own domain.
pub(super) fn within(data_type: DataType, intervals: &[(Value, Value)]) -> Result<Test> {
    let mut bounds = Vec::with_capacity(intervals.len());
    for (start, end) in intervals {
        bounds.push((
            Some((place(start, data_type)?, true)),
            Some((place(end, data_type)?, false)),
        ));
    }
    ranges(data_type, bounds)
}

fn points(data_type: DataType, places: Vec<ColumnPlace>) -> Test {
    let (mut k32, mut k64, mut k128, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for place in places {
        match place {
            ColumnPlace::K32(Place::At(key)) => k32.push((key, key)),
            ColumnPlace::K64(Place::At(key)) => k64.push((key, key)),
            ColumnPlace::K128(Place::At(key)) => k128.push((key, key)),
            ColumnPlace::Bytes(value) => bytes.push(value),
            // Between two values of the column: equal to none.
            ColumnPlace::K32(_) | ColumnPlace::K64(_) | ColumnPlace::K128(_) => {}
        }
    }
    match data_type {
        DataType::Int | DataType::Boolean | DataType::Float => Test::K32(KeySet::new(k32)),
        DataType::Long | DataType::Timestamp | DataType::Double => Test::K64(KeySet::new(k64)),
        DataType::BigDecimal { .. } => Test::K128(KeySet::new(k128)),
        DataType::String | DataType::Json | DataType::Bytes => {
            bytes.sort_unstable();
            bytes.dedup();
            Test::Bytes(BytesSet {
                points: bytes,
                ranges: Vec::new(),
            })
        }
    }
}

fn ranges(data_type: DataType, bounds: Vec<(Bound, Bound)>) -> Result<Test> {
    let (mut k32, mut k64, mut k128, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (low, high) in bounds {
        match data_type {
            DataType::Int | DataType::Boolean | DataType::Float => {
                k32.extend(key_range(low, high, |p| match p {
                    ColumnPlace::K32(place) => Some(place),
                    _ => None,
                })?)
            }
            DataType::Long | DataType::Timestamp | DataType::Double => {
                k64.extend(key_range(low, high, |p| match p {
                    ColumnPlace::K64(place) => Some(place),
                    _ => None,
                })?)
            }
            DataType::BigDecimal { .. } => k128.extend(key_range(low, high, |p| match p {
                ColumnPlace::K128(place) => Some(place),
                _ => None,
            })?),
            DataType::String | DataType::Json | DataType::Bytes => {
                let side = |bound: Bound| match bound {
                    Some((ColumnPlace::Bytes(value), included)) => Some((value, included)),
                    _ => None,
                };
                bytes.push((side(low), side(high)));
            }
        }
    }
    Ok(match data_type {
        DataType::Int | DataType::Boolean | DataType::Float => Test::K32(KeySet::new(k32)),
        DataType::Long | DataType::Timestamp | DataType::Double => Test::K64(KeySet::new(k64)),
        DataType::BigDecimal { .. } => Test::K128(KeySet::new(k128)),
        DataType::String | DataType::Json | DataType::Bytes => Test::Bytes(BytesSet {
            points: Vec::new(),
            ranges: bytes,
        }),
    })
}

/// The keys between two bounds; none when there can't be any.
fn key_range<K: Key>(
    low: Bound,
    high: Bound,
    take: impl Fn(ColumnPlace) -> Option<Place<K>>,
) -> Result<Option<(K, K)>> {
    let place_of = |place: ColumnPlace| {
        take(place).ok_or_else(|| Error::internal("a bound of another type than its column"))
    };
    let low = match low {
        None => Some(K::MIN),
        Some((place, included)) => match place_of(place)? {
            Place::At(key) if included => Some(key),
            Place::At(key) => key.next(),
            Place::Between(_, above) => above,
        },
    };
    let high = match high {
        None => Some(K::MAX),
        Some((place, included)) => match place_of(place)? {
            Place::At(key) if included => Some(key),
            Place::At(key) => key.previous(),
            Place::Between(below, _) => below,
        },
    };
    Ok(match (low, high) {
        (Some(low), Some(high)) if low <= high => Some((low, high)),
        _ => None,
    })
}
