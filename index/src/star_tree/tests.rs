//! Trees against a look at every row.

use super::*;
use crate::kernels::IdSet;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A table of three to five dimensions of few values, one often decided by another, and what a query needs of it.
#[derive(Clone, Debug)]
struct Case {
    dimensions: Vec<Vec<u32>>,
    values: Vec<i64>,
    valid: Vec<bool>,
    options: Options,
    /// For each dimension: 0 free, 1 values, 2 in.
    needs: Vec<u8>,
    sets: Vec<Vec<u32>>,
}

fn cases() -> impl Strategy<Value = Case> {
    (1usize..6, 0usize..300).prop_flat_map(|(dimensions, rows)| {
        let ids = prop_oneof![9 => 0u32..7, 1 => Just(NULL)];
        (
            prop::collection::vec(prop::collection::vec(ids, rows), dimensions),
            prop::collection::vec(any::<bool>(), dimensions),
            prop::collection::vec(-1000i64..1000, rows),
            prop_oneof![Just(Vec::new()), prop::collection::vec(any::<bool>(), rows)],
            prop_oneof![Just(1u32), 2u32..40, Just(10_000)],
            prop::collection::vec(prop::bool::weighted(0.2), dimensions),
            prop::collection::vec(0u8..3, dimensions),
            prop::collection::vec(prop::collection::vec(0u32..9, 0..4), dimensions),
        )
            .prop_map(
                |(
                    mut dimensions,
                    decided,
                    values,
                    valid,
                    leaf_records_max,
                    skip_star,
                    needs,
                    sets,
                )| {
                    for i in (1..dimensions.len()).filter(|&i| decided[i]) {
                        let coarse = dimensions[i]
                            .iter()
                            .map(|&id| if id == NULL { NULL } else { id / 3 });
                        dimensions[i - 1] = coarse.collect();
                    }
                    Case {
                        dimensions,
                        values,
                        valid,
                        options: Options {
                            leaf_records_max,
                            skip_star,
                        },
                        needs,
                        sets,
                    }
                },
            )
    })
}

/// What is aggregated: sum, count, least and greatest of the values that count; none when none does.
type Aggregates = (i64, i64, Option<(i64, i64)>);

fn add(to: &mut Aggregates, other: Aggregates) {
    to.0 += other.0;
    to.1 += other.1;
    to.2 = match (to.2, other.2) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (a, b) => a.or(b),
    };
}

fn measures(case: &Case) -> Vec<Measure> {
    let measure = |fold, values| Measure {
        fold,
        values,
        valid: case.valid.clone(),
    };
    let values = || Numbers::I64(case.values.clone());
    let floats = || Numbers::F64(case.values.iter().map(|&v| v as f64).collect());
    vec![
        Measure {
            fold: Fold::Sum,
            values: Numbers::I64(vec![1; case.values.len()]),
            valid: Vec::new(),
        },
        measure(Fold::Sum, values()),
        measure(Fold::Min, values()),
        measure(Fold::Max, values()),
        measure(Fold::Sum, floats()),
        measure(Fold::Min, floats()),
        measure(Fold::Max, floats()),
        Measure {
            fold: Fold::Sum,
            values: Numbers::Sets(distinct(case)),
            valid: Vec::new(),
        },
    ]
}

/// What is distinct of a row's value.
fn id_of(value: i64) -> u32 {
    (value + 1000) as u32 % 17
}

fn distinct(case: &Case) -> Sets {
    let mut sets = Sets::default();
    for (row, &value) in case.values.iter().enumerate() {
        if case.valid.is_empty() || case.valid[row] {
            sets.ids.push(id_of(value));
        }
        sets.ends.push(sets.ids.len());
    }
    sets
}

fn number(measure: &Measure, at: usize) -> i64 {
    match &measure.values {
        Numbers::I64(values) => values[at],
        Numbers::F64(values) => values[at] as i64,
        Numbers::Sets(_) => panic!("sets are no numbers"),
    }
}

/// The aggregates of a record, once by whole numbers and once by floats.
fn record(built: &Built, at: usize) -> [Aggregates; 2] {
    let [count, rest @ ..] = built.measures.as_slice() else {
        panic!("no measures")
    };
    [0, 3].map(|from| {
        let valid = rest[from].valid.get(at).is_none_or(|valid| *valid);
        let extremes = (number(&rest[from + 1], at), number(&rest[from + 2], at));
        (
            if valid { number(&rest[from], at) } else { 0 },
            number(count, at),
            valid.then_some(extremes),
        )
    })
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let built = build(case.dimensions.clone(), measures(case), &case.options).unwrap();
    let tree = StarTree::open(&built.nodes.clone().into()).unwrap();
    prop_assert_eq!(tree.records() as usize, built.rows.len());
    let sets: Vec<IdSet> = case
        .sets
        .iter()
        .map(|ids| IdSet::new(ids.iter().map(|&id| id..id + 1).collect()))
        .collect();
    let needs: Vec<Need<'_>> = (case.needs.iter().zip(&sets))
        .map(|(need, set)| match need {
            0 => Need::Free,
            1 => Need::Values,
            _ => Need::In(set),
        })
        .collect();
    let passes = |row: usize| {
        (case.dimensions.iter().zip(&needs)).all(|(ids, need)| match need {
            Need::In(set) => ids[row] != NULL && set.contains(ids[row]),
            _ => true,
        })
    };
    let key = |row: usize| -> Vec<u32> {
        (case.dimensions.iter().zip(&needs))
            .map(|(ids, need)| match need {
                Need::Free => STAR,
                _ => ids[row],
            })
            .collect()
    };
    let mut expected: BTreeMap<Vec<u32>, Aggregates> = BTreeMap::new();
    let mut distinct: BTreeMap<Vec<u32>, BTreeSet<u32>> = BTreeMap::new();
    for row in (0..case.values.len()).filter(|&row| passes(row)) {
        let counts = case.valid.is_empty() || case.valid[row];
        let value = case.values[row];
        let of_row = (
            if counts { value } else { 0 },
            1,
            counts.then_some((value, value)),
        );
        add(expected.entry(key(row)).or_default(), of_row);
        let ids = distinct.entry(key(row)).or_default();
        ids.extend(counts.then_some(id_of(value)));
    }
    let selection = tree.walk(&needs).unwrap();
    prop_assert!(selection.records.is_sorted_by(|a, b| a.end < b.start));
    let mut found = [expected.clone(), expected.clone()];
    found.iter_mut().for_each(BTreeMap::clear);
    let mut found_ids: BTreeMap<Vec<u32>, BTreeSet<u32>> = BTreeMap::new();
    let Some(Numbers::Sets(sets)) = built.measures.last().map(|measure| &measure.values) else {
        panic!("the sets come last")
    };
    for at in selection.records.iter().flat_map(Clone::clone) {
        let row = built.rows[at as usize] as usize;
        if !passes(row) {
            prop_assert!(selection.unchecked, "record {} should not be there", at);
            continue;
        }
        for (found, aggregates) in found.iter_mut().zip(record(&built, at as usize)) {
            add(found.entry(key(row)).or_default(), aggregates);
        }
        let start = at
            .checked_sub(1)
            .map_or(0, |before| sets.ends[before as usize]);
        let ids = &sets.ids[start..sets.ends[at as usize]];
        prop_assert!(ids.is_sorted_by(|a, b| a < b));
        found_ids.entry(key(row)).or_default().extend(ids);
    }
    prop_assert_eq!(&found_ids, &distinct);
    prop_assert_eq!(&found[0], &expected);
    prop_assert_eq!(&found[1], &expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn walks_find_every_row_once(case in cases()) {
        check(&case)?;
    }

    #[test]
    fn damaged_trees_are_errors_or_end(case in cases(), at in any::<prop::sample::Index>(), bits in 1u8..=255) {
        let mut bytes = build(case.dimensions.clone(), measures(&case), &case.options).unwrap().nodes;
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        if let Ok(tree) = StarTree::open(&bytes.into()) {
            let needs = vec![Need::Values; case.dimensions.len()];
            let found = tree.walk(&needs).unwrap();
            prop_assert!(found.records.iter().all(|records| records.end <= tree.records()));
        }
    }
}

/// What is asked of the first dimensions of 20,000 rows reads few records, also where one decides another.
#[test]
fn few_records_answer() {
    let rows = 0u32..20_000;
    let city = |row: u32| row * 7919 % 40;
    let case = Case {
        dimensions: vec![
            rows.clone().map(|row| city(row) / 10).collect(),
            rows.clone().map(city).collect(),
            rows.clone().map(|row| row % 12).collect(),
            rows.clone().map(|row| row * 31 % 365).collect(),
        ],
        values: rows.map(i64::from).collect(),
        valid: Vec::new(),
        options: Options {
            leaf_records_max: 100,
            skip_star: vec![false; 4],
        },
        needs: vec![0, 0, 1, 0],
        sets: vec![Vec::new(); 4],
    };
    check(&case).unwrap();
    let built = build(case.dimensions.clone(), measures(&case), &case.options).unwrap();
    assert!(built.rows.len() < 60_000, "{} records", built.rows.len());
    let tree = StarTree::open(&built.nodes.into()).unwrap();
    let city = IdSet::of_flags((0..8).map(|id| id == 7));
    for (needs, most) in [
        ([Need::Free; 4], 1),
        ([Need::Free, Need::Free, Need::Values, Need::Free], 12),
        ([Need::Values, Need::Free, Need::Free, Need::Free], 4),
        // Months of each city: to leave out the city alone saves too little.
        ([Need::Values, Need::Free, Need::Values, Need::Free], 120),
        ([Need::Free, Need::In(&city), Need::Values, Need::Free], 48),
    ] {
        let found = tree.walk(&needs).unwrap();
        assert!(found.len() <= most, "{} records, not {most}", found.len());
        assert!(!found.unchecked);
    }
}

/// A category that is decided by a brand with other dimensions between them: both are left out together, and what stands
/// between stays.
#[test]
fn dimensions_that_stand_apart_are_left_out_together() {
    let rows = 0u32..30_000;
    let brand = |row: u32| row * 7919 % 100;
    let case = Case {
        dimensions: vec![
            rows.clone().map(|row| brand(row) / 10).collect(),
            rows.clone().map(|row| row * 31 % 5).collect(),
            rows.clone().map(|row| row / 7 % 8).collect(),
            rows.clone().map(brand).collect(),
            rows.clone().map(|row| brand(row) / 50).collect(),
        ],
        values: rows.map(i64::from).collect(),
        valid: Vec::new(),
        options: Options {
            leaf_records_max: 10,
            skip_star: vec![false; 5],
        },
        needs: vec![0, 1, 1, 0, 0],
        sets: vec![Vec::new(); 5],
    };
    check(&case).unwrap();
    let built = build(case.dimensions.clone(), measures(&case), &case.options).unwrap();
    let tree = StarTree::open(&built.nodes.into()).unwrap();
    let [no, yes] = [Need::Free, Need::Values];
    for (needs, most) in [
        ([no, yes, yes, no, no], 40),
        ([no, yes, no, no, yes], 10),
        ([no, no, yes, no, no], 8),
        ([yes, yes, no, no, no], 50),
        ([no, no, no, yes, no], 100),
    ] {
        let found = tree.walk(&needs).unwrap();
        assert!(found.len() <= most, "{} records, not {most}", found.len());
    }
}

#[test]
fn rows_that_do_not_fit_are_an_error() {
    let options = Options {
        leaf_records_max: 1,
        skip_star: vec![false],
    };
    let measure = Measure {
        fold: Fold::Sum,
        values: Numbers::I64(vec![1]),
        valid: Vec::new(),
    };
    assert!(build(vec![vec![1, 2]], vec![measure], &options).is_err());
    assert!(build(Vec::new(), Vec::new(), &options).is_err());
    for ends in [vec![1], vec![1, 1], vec![2, 1], vec![1, 3]] {
        let sets = Measure {
            fold: Fold::Sum,
            values: Numbers::Sets(Sets {
                ends,
                ids: vec![7, 8],
            }),
            valid: Vec::new(),
        };
        assert!(build(vec![vec![1, 2]], vec![sets], &options).is_err());
    }
    assert!(build(vec![vec![1], vec![1]], Vec::new(), &options).is_err());
    assert!(StarTree::open(&bytes::Bytes::from_static(b"short")).is_err());
}
