//! Leaving segments out by what the catalog knows of their columns.
//!
//! A segment is left out only when no row of it can pass; anything unknown keeps it.

use crate::bind::compare::compare;
use std::cmp::Ordering;
use strandline_proto::catalog::{ColumnStats, SegmentInfo};
use strandline_proto::leaf::{ColumnPredicate, ColumnTest, LeafExpr, LeafFilter, Operand};
use strandline_proto::value::Value;

/// Why no row of `segment` passes `filter`, or none when some may.
pub fn excluded_by(
    filter: &LeafFilter,
    parameters: &[Value],
    segment: &SegmentInfo,
) -> Option<String> {
    match filter {
        LeafFilter::And(all) => all.iter().find_map(|f| excluded_by(f, parameters, segment)),
        LeafFilter::Or(any) => {
            let mut reasons = Vec::with_capacity(any.len());
            for f in any {
                reasons.push(excluded_by(f, parameters, segment)?);
            }
            reasons.dedup();
            Some(if reasons.is_empty() {
                "the filter is never true".to_owned()
            } else {
                reasons.join(" and ")
            })
        }
        LeafFilter::Column(predicate) => {
            let stats = segment
                .columns
                .iter()
                .find(|c| c.name == predicate.column)?;
            fails_everywhere(predicate, parameters, stats, segment.rows)
                .then(|| format!("min and max of {}", predicate.column))
        }
        LeafFilter::Expr(LeafExpr::Literal(Value::Boolean(false) | Value::Null, _)) => {
            Some("the filter is never true".to_owned())
        }
        LeafFilter::Expr(_) => None,
    }
}

fn fails_everywhere(
    predicate: &ColumnPredicate,
    parameters: &[Value],
    stats: &ColumnStats,
    rows: u64,
) -> bool {
    let operand = |o: &Operand| -> Option<Value> {
        match o {
            Operand::Literal(v) => Some(v.clone()),
            Operand::Parameter(i) => parameters.get(*i).cloned(),
        }
    };
    // The smallest value is known only together with the column's having one.
    let none_below =
        |v: &Value| !stats.min.is_null() && compare(v, &stats.min) == Some(Ordering::Less);
    let none_above =
        |v: &Value| !stats.max.is_null() && compare(v, &stats.max) == Some(Ordering::Greater);
    match (&predicate.test, predicate.negated) {
        (ColumnTest::IsNull, false) => stats.nulls == 0,
        (ColumnTest::IsNull, true) => stats.nulls >= rows && rows > 0,
        (ColumnTest::In(_) | ColumnTest::Range { .. }, false) if stats.min.is_null() => true,
        (ColumnTest::In(values), false) => values
            .iter()
            .all(|o| operand(o).is_some_and(|v| v.is_null() || none_below(&v) || none_above(&v))),
        (ColumnTest::Range { low, high }, false) => {
            let above = low.as_ref().is_some_and(|(o, included)| {
                operand(o).is_some_and(|v| {
                    none_above(&v)
                        || (!included
                            && !stats.max.is_null()
                            && compare(&v, &stats.max) == Some(Ordering::Equal))
                })
            });
            let below = high.as_ref().is_some_and(|(o, included)| {
                operand(o).is_some_and(|v| {
                    none_below(&v)
                        || (!included
                            && !stats.min.is_null()
                            && compare(&v, &stats.min) == Some(Ordering::Equal))
                })
            });
            above || below
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_proto::ids::{Half, SegmentName};

    fn segment(min: Value, max: Value, nulls: u64) -> SegmentInfo {
        SegmentInfo {
            name: SegmentName::new("s"),
            checksum: 1,
            half: Half::Offline,
            rows: 10,
            bytes: 0,
            schema_version: 1,
            time_ms: None,
            columns: vec![ColumnStats {
                name: "c".into(),
                min,
                max,
                cardinality: None,
                nulls,
            }],
            origin: None,
            stored_as: None,
            moved: false,
            pushed_in: 0,
            rebuilt: false,
        }
    }

    fn column(test: ColumnTest, negated: bool) -> LeafFilter {
        LeafFilter::Column(ColumnPredicate {
            column: "c".into(),
            test,
            negated,
        })
    }

    fn range(low: Option<(i64, bool)>, high: Option<(i64, bool)>) -> LeafFilter {
        let bound = |(v, included)| (Operand::Literal(Value::Long(v)), included);
        column(
            ColumnTest::Range {
                low: low.map(bound),
                high: high.map(bound),
            },
            false,
        )
    }

    #[test]
    fn a_segment_is_left_out_only_when_no_row_can_pass() {
        let s = segment(Value::Int(5), Value::Int(9), 0);
        let out = |f: &LeafFilter| excluded_by(f, &[Value::Long(10)], &s).is_some();
        assert!(out(&range(Some((9, false)), None)) && !out(&range(Some((9, true)), None)));
        assert!(out(&range(None, Some((5, false)))) && !out(&range(None, Some((5, true)))));
        assert!(out(&column(
            ColumnTest::In(vec![Operand::Parameter(0), Operand::Literal(Value::Int(4))]),
            false
        )));
        assert!(!out(&column(
            ColumnTest::In(vec![Operand::Parameter(0), Operand::Literal(Value::Int(7))]),
            false
        )));
        assert!(!out(&column(
            ColumnTest::In(vec![Operand::Parameter(0)]),
            true
        )));
        assert!(out(&column(ColumnTest::IsNull, false)) && !out(&column(ColumnTest::IsNull, true)));
        let never = range(Some((100, true)), None);
        assert!(
            out(&LeafFilter::Or(vec![never.clone(), never.clone()]))
                && !out(&LeafFilter::Or(vec![never.clone(), range(None, None)]))
        );
        assert!(out(&LeafFilter::And(vec![range(None, None), never])));
    }

    #[test]
    fn unknown_bounds_keep_a_segment() {
        let s = segment(Value::String("a".into()), Value::Null, 0);
        let far = column(
            ColumnTest::In(vec![Operand::Literal(Value::String("zz".into()))]),
            false,
        );
        assert!(excluded_by(&far, &[], &s).is_none());
        let other = LeafFilter::Column(ColumnPredicate {
            column: "added_later".into(),
            test: ColumnTest::IsNull,
            negated: false,
        });
        assert!(excluded_by(&other, &[], &s).is_none());
    }
}
