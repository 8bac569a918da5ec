//! A column test with its operands resolved in the column's own domain.

use super::text::TextTest;
use crate::leaf::compare::{Place, place};
use std::sync::Arc;
use strandline_index::Scalar;
use strandline_index::kernels::{OwnedBound, ValueSet};
use strandline_proto::json::JsonFilter;
use strandline_proto::leaf::{ColumnPredicate, ColumnTest, Operand};
use strandline_proto::schema::DataType;
use strandline_proto::text::TextMatcher;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};
use strandline_storage::segment::arrow::physical_type;

/// A predicate that any value of the column can be held against.
#[derive(Clone, Debug)]
pub(in crate::leaf) enum Resolved {
    /// NULL for every row.
    Never,
    /// IS NULL, or IS NOT NULL.
    IsNull {
        /// IS NOT NULL.
        negated: bool,
    },
    /// TEXT_MATCH, or its negation.
    Words {
        /// The query.
        matcher: Arc<TextMatcher>,
        /// How text becomes words, as the indexes that can answer name it.
        key: String,
        /// Whether the row's words must fail it.
        negated: bool,
    },
    /// A test of values.
    Test {
        /// Which values pass.
        test: Arc<Test>,
        /// Whether the test must fail.
        negated: bool,
    },
}

/// Which values of a column pass.
#[derive(Clone, Debug)]
pub(in crate::leaf) enum Test {
    /// Values by order.
    Values(ValueSet),
    /// Text by pattern.
    Text(TextTest),
    /// JSON documents.
    Json(Arc<JsonFilter>),
}

/// Whether a filter holds for a document's text.
pub(super) fn json_holds(filter: &JsonFilter, text: Option<&[u8]>) -> bool {
    text.and_then(|text| std::str::from_utf8(text).ok())
        .is_some_and(|text| filter.matches(text))
}

/// One bound: a place and whether it is itself included.
type Bound = Option<(Place<Scalar<'static>>, bool)>;

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
                test: Arc::new(points(data_type, places)?),
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
                    test: Arc::new(ranges(data_type, vec![(low, high)])?),
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
                        test: Arc::new(outside),
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
            TextTest::like(pattern, *case_insensitive).map(Test::Text)
        }),
        ColumnTest::Regex {
            pattern,
            case_insensitive,
        } => text(predicate, data_type, pattern, parameters, |pattern| {
            TextTest::regex(pattern, *case_insensitive).map(Test::Text)
        }),
        ColumnTest::JsonMatch { filter } => {
            text(predicate, data_type, filter, parameters, |filter| {
                JsonFilter::parse(filter).map(|filter| Test::Json(Arc::new(filter)))
            })
        }
        ColumnTest::TextMatch { query, settings } => {
            let Some(query) = pattern_of(predicate, data_type, query, parameters)? else {
                return Ok(Resolved::Never);
            };
            let matcher = TextMatcher::new(query, settings)
                .map_err(|e| e.at(format_args!("column {:?}", predicate.column)))?;
            Ok(Resolved::Words {
                matcher: Arc::new(matcher),
                key: settings.words_key(),
                negated,
            })
        }
    }
}

fn text(
    predicate: &ColumnPredicate,
    data_type: DataType,
    pattern: &Operand,
    parameters: &[Value],
    test: impl FnOnce(&str) -> Result<Test>,
) -> Result<Resolved> {
    Ok(
        match pattern_of(predicate, data_type, pattern, parameters)? {
            None => Resolved::Never,
            Some(pattern) => Resolved::Test {
                test: Arc::new(test(pattern)?),
                negated: predicate.negated,
            },
        },
    )
}

/// The text that a column of text is held against; none: NULL.
fn pattern_of<'a>(
    predicate: &ColumnPredicate,
    data_type: DataType,
    pattern: &'a Operand,
    parameters: &'a [Value],
) -> Result<Option<&'a str>> {
    if !data_type.is_text() {
        return Err(Error::invalid(format!(
            "column {:?} is {}, and patterns match text: cast it to VARCHAR",
            predicate.column,
            data_type.pinot_name()
        )));
    }
    match value_of(pattern, parameters)? {
        Value::Null => Ok(None),
        Value::String(pattern) => Ok(Some(pattern)),
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

fn points(data_type: DataType, places: Vec<Place<Scalar<'static>>>) -> Result<Test> {
    let points = places.into_iter().filter_map(|place| match place {
        Place::At(value) => Some((Some((value.clone(), true)), Some((value, true)))),
        // Equal to no value of the column.
        Place::Between(..) => None,
    });
    values(data_type, points.collect())
}

fn ranges(data_type: DataType, bounds: Vec<(Bound, Bound)>) -> Result<Test> {
    let ranges = bounds
        .into_iter()
        .filter_map(|(low, high)| Some((low_bound(low)?, high_bound(high)?)));
    values(data_type, ranges.collect())
}

fn values(data_type: DataType, ranges: Vec<(OwnedBound, OwnedBound)>) -> Result<Test> {
    ValueSet::new(physical_type(data_type), &ranges)
        .map(Test::Values)
        .ok_or_else(|| Error::internal("a bound of another type than its column"))
}

/// A lower bound among the column's own values; none when no value is above it.
fn low_bound(bound: Bound) -> Option<OwnedBound> {
    match bound {
        None => Some(None),
        Some((Place::At(value), included)) => Some(Some((value, included))),
        Some((Place::Between(_, above), _)) => Some(Some((above?, true))),
    }
}

/// An upper bound among the column's own values; none when no value is below it.
fn high_bound(bound: Bound) -> Option<OwnedBound> {
    match bound {
        None => Some(None),
        Some((Place::At(value), included)) => Some(Some((value, included))),
        Some((Place::Between(below, _), _)) => Some(Some((below?, true))),
    }
}
