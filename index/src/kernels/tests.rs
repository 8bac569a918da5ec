//! Every kernel against a loop that asks of one value after the other.

use super::*;
use crate::reader::{PhysicalType, ValueBuffer};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cmp::Ordering;

/// The bits of `len` values, from words that held other bits before.
fn bits(len: usize, mark: impl FnOnce(&mut [u64])) -> Vec<bool> {
    let mut words = vec![0xdead_beef_dead_beef; len.div_ceil(64)];
    mark(&mut words);
    (0..len)
        .map(|i| words[i / 64] >> (i % 64) & 1 == 1)
        .collect()
}

/// A range of ids that is often short, and sometimes empty or backwards.
fn id_range() -> impl Strategy<Value = Range<DictId>> {
    prop_oneof![
        (0..40u32, 0..40u32).prop_map(|(a, b)| a..b),
        (0..40u32).prop_map(|a| a..a + 1),
        Just(0..u32::MAX),
        Just(u32::MAX - 1..u32::MAX),
    ]
}

fn scalar(physical: PhysicalType) -> BoxedStrategy<Scalar<'static>> {
    let float = prop_oneof![
        3 => (-3..4i32).prop_map(f64::from),
        1 => prop::sample::select(vec![
            -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN,
        ]),
    ];
    let whole = prop_oneof![
        5 => -3..4i128,
        1 => prop::sample::select(vec![i128::MIN, i128::MAX]),
    ];
    match physical {
        PhysicalType::I32 => whole
            .prop_map(|v| Scalar::I32(v.clamp(i32::MIN.into(), i32::MAX.into()) as i32))
            .boxed(),
        PhysicalType::I64 => whole
            .prop_map(|v| Scalar::I64(v.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
            .boxed(),
        PhysicalType::I128 => whole.prop_map(Scalar::I128).boxed(),
        PhysicalType::F32 => float.prop_map(|v| Scalar::F32(v as f32)).boxed(),
        PhysicalType::F64 => float.prop_map(Scalar::F64).boxed(),
        PhysicalType::Bytes => "[ab]{0,3}"
            .prop_map(|text| Scalar::Bytes(text.into_bytes().into()))
            .boxed(),
    }
}

type Bounds = Vec<(OwnedBound, OwnedBound)>;

/// Bounds and values of one type.
fn case() -> impl Strategy<Value = (PhysicalType, Bounds, Vec<Scalar<'static>>)> {
    let types = [
        PhysicalType::I32,
        PhysicalType::I64,
        PhysicalType::F32,
        PhysicalType::F64,
        PhysicalType::I128,
        PhysicalType::Bytes,
    ];
    prop::sample::select(types.to_vec()).prop_flat_map(|physical| {
        let bound = || prop::option::weighted(0.8, (scalar(physical), any::<bool>()));
        let range = prop_oneof![
            (bound(), bound()),
            scalar(physical).prop_map(|v| (Some((v.clone(), true)), Some((v, true)))),
        ];
        (
            Just(physical),
            vec(range, 0..8),
            vec(scalar(physical), 0..200),
        )
    })
}

fn is_between(value: &Scalar<'_>, (low, high): &(OwnedBound, OwnedBound)) -> bool {
    let passes = |bound: &OwnedBound, beyond: Ordering| match bound {
        None => true,
        Some((bound, included)) => {
            let order = value.total_cmp(bound);
            order == beyond || (*included && order == Ordering::Equal)
        }
    };
    passes(low, Ordering::Greater) && passes(high, Ordering::Less)
}

fn buffer(physical: PhysicalType, values: &[Scalar<'_>]) -> ValueBuffer {
    let mut buffer = ValueBuffer::new(physical);
    assert!(values.iter().all(|value| buffer.push(value)));
    buffer
}

proptest! {
    #[test]
    fn an_id_set_marks_what_lies_in_its_ranges(ranges in vec(id_range(), 0..8), ids in vec(prop_oneof![0..50u32, any::<u32>()], 0..300)) {
        // A bitmap would reach to the largest id.
        let ranges: Vec<_> = match ranges.len() {
            0..5 => ranges,
            _ => ranges.into_iter().filter(|r| r.end < 100).collect(),
        };
        let is_in = |id: u32| ranges.iter().any(|r| r.contains(&id));
        let set = IdSet::new(ranges.clone());
        let naive: Vec<bool> = ids.iter().map(|&id| is_in(id)).collect();
        prop_assert_eq!(bits(ids.len(), |words| set.mark(&ids, words)), naive.clone());
        prop_assert_eq!(ids.iter().map(|&id| set.contains(id)).collect::<Vec<_>>(), naive);
        prop_assert_eq!(set.is_empty(), ranges.iter().all(|r| r.is_empty()));

        let others = set.complement(60);
        prop_assert!((0..60).all(|id| others.contains(id) != is_in(id)) && !others.contains(60));
        prop_assert_eq!(set.is_all(60), (0..60).all(is_in));
        let again = IdSet::of_flags((0..60).map(is_in));
        prop_assert!((0..60).all(|id| again.contains(id) == is_in(id)));
    }

    #[test]
    fn ids_are_selected_at_any_start(ids in vec(0..10u32, 0..300), range in (0..10u32, 0..10u32), start in prop_oneof![0..200u32, 65_300..65_536u32], before in vec(any::<u16>(), 0..20)) {
        let mut out = DocBits::new();
        before.iter().for_each(|&doc| out.insert(doc));
        let ids = &ids[..ids.len().min((65_536 - start) as usize)];
        select_id_range(ids, range.0..range.1, start, &mut out);
        for doc in 0..=u16::MAX {
            let id = u32::from(doc).checked_sub(start).and_then(|i| ids.get(i as usize));
            let selected = id.is_some_and(|id| (range.0..range.1).contains(id));
            prop_assert_eq!(out.contains(doc), selected || before.contains(&doc));
        }
    }

    #[test]
    fn a_value_set_marks_what_lies_between_its_bounds((physical, bounds, values) in case()) {
        let set = ValueSet::new(physical, &bounds).unwrap();
        let naive: Vec<bool> = values.iter().map(|v| bounds.iter().any(|b| is_between(v, b))).collect();
        let buffer = buffer(physical, &values);
        prop_assert_eq!(bits(values.len(), |words| assert!(set.mark(&buffer, words))), naive.clone());
        prop_assert_eq!(values.iter().map(|v| set.contains(v)).collect::<Vec<_>>(), naive.clone());

        // Its ranges say the same, and so does a set of them.
        let ranges = set.ranges();
        prop_assert_eq!(ranges.len(), set.len());
        let by_ranges: Vec<bool> = values.iter().map(|v| ranges.iter().any(|b| is_between(v, b))).collect();
        prop_assert_eq!(by_ranges, naive);
        prop_assert_eq!(ValueSet::new(physical, &ranges), Some(set.clone()));

        let mut without = set.clone();
        without.retain_points(|_| false);
        prop_assert_eq!((without.points(), without.len()), (0, set.len() - set.points()));
    }
}

#[test]
fn a_set_of_one_type_does_not_take_values_of_another() {
    let point = |value: Scalar<'static>| vec![(Some((value.clone(), true)), Some((value, true)))];
    assert!(ValueSet::new(PhysicalType::I32, &point(Scalar::I64(1))).is_none());
    let set = ValueSet::new(PhysicalType::I32, &point(Scalar::I32(1))).unwrap();
    assert!(!set.contains(&Scalar::I64(1)));
    let mut words = [7];
    assert!(!set.mark(&ValueBuffer::I64(vec![1]), &mut words) && words == [7]);
}
