//! Values in ascending order.

use crate::fixed::{Fixed, by_type};
use crate::reader::ValueBuffer;

/// The positions of `values` in the order of their values (floats in total order); equal ones keep their order.
pub(super) fn ascending(values: &ValueBuffer) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    by_type!(values.physical(), T => {
        let values = T::slice(values).unwrap_or_default();
        if !values.is_sorted_by_key(|v| v.key()) {
            // Keys that move with their positions are near where they are compared.
            let mut keyed: Vec<_> = values.iter().map(|v| v.key()).zip(order.iter().copied()).collect();
            keyed.sort_unstable();
            order.iter_mut().zip(keyed).for_each(|(to, (_, from))| *to = from);
        }
    }, bytes => {
        let text = |i: u32| values.bytes(i as usize).unwrap_or_default();
        let first = text(0);
        let shared = order.iter().fold(first.len(), |shared, &i| shared.min(prefix_len(first, text(i))));
        let mut keyed: Vec<(u64, u32)> = order.iter().map(|&i| (key_behind(text(i), shared), i)).collect();
        keyed.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| text(a.1).cmp(text(b.1))).then(a.1.cmp(&b.1))
        });
        order.iter_mut().zip(keyed).for_each(|(to, (_, from))| *to = from);
    });
    order
}

/// How many values are different.
pub fn distinct(values: &ValueBuffer) -> usize {
    let order = ascending(values);
    let pairs = order.iter().zip(order.iter().skip(1));
    let steps = pairs.filter(|(a, b)| !same(values, **a, **b)).count();
    steps + usize::from(!order.is_empty())
}

/// Whether two values of a buffer are one.
pub(super) fn same(values: &ValueBuffer, a: u32, b: u32) -> bool {
    by_type!(values.physical(), T => {
        let key = |i: u32| T::slice(values).and_then(|values| values.get(i as usize)).map(|v| v.key());
        key(a) == key(b)
    }, bytes => values.bytes(a as usize) == values.bytes(b as usize))
}

fn prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The eight bytes behind the first `shared`, as a number that compares as they do; zeros stand for what is missing.
fn key_behind(text: &[u8], shared: usize) -> u64 {
    let mut key = [0; 8];
    let rest = text.get(shared..).unwrap_or_default();
    key.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::PhysicalType;

    fn check(values: &ValueBuffer) {
        let order = ascending(values);
        let mut expected: Vec<u32> = (0..values.len() as u32).collect();
        expected.sort_by(|&a, &b| {
            let value = |i: u32| values.get(i as usize).expect("a value");
            value(a).total_cmp(&value(b))
        });
        assert_eq!(order, expected);
        let mut seen = expected.clone();
        seen.dedup_by(|a, b| {
            let value = |i: u32| values.get(i as usize).expect("a value");
            value(*a).total_cmp(&value(*b)).is_eq()
        });
        assert_eq!(distinct(values), seen.len());
    }

    #[test]
    fn positions_come_by_value_and_then_by_position() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for count in [0, 1, 2, 100, 3000] {
            check(&ValueBuffer::I32(
                (0..count).map(|_| next(50) as i32 - 25).collect(),
            ));
            check(&ValueBuffer::I64(
                (0..count).map(|i| i64::from(i) * 3).collect(),
            ));
            check(&ValueBuffer::I128(
                (0..count).map(|_| i128::from(next(900)) << 70).collect(),
            ));
            let floats = [f64::NAN, f64::NEG_INFINITY, -1.5, 0.0, 2.0];
            check(&ValueBuffer::F64(
                (0..count).map(|_| floats[next(5) as usize]).collect(),
            ));
            check(&ValueBuffer::F32(
                (0..count)
                    .map(|_| floats[next(5) as usize] as f32)
                    .collect(),
            ));
            for start in ["", "a long start that all share "] {
                let mut texts = ValueBuffer::new(PhysicalType::Bytes);
                for _ in 0..count {
                    // Zeros at the end, texts that are others' beginnings, and differences behind eight bytes.
                    let zeros = "\0".repeat(next(3) as usize);
                    let far = "12345678".repeat(next(3) as usize);
                    let text = format!("{start}{far}{}{zeros}", next(20));
                    texts.push_bytes(text.as_bytes());
                }
                check(&texts);
            }
        }
    }
}
