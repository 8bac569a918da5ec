//! Numbering of values.

use super::*;
use std::collections::HashMap;

/// Dictionaries that overlap, also far from each other, in and out of order, with null among them.
#[test]
fn each_value_has_one_number_in_whatever_order_it_is_asked_for() {
    let mut interner = Interner::new(Domain::Bytes);
    let mut known: HashMap<Option<String>, u32> = HashMap::new();
    let segments: [Vec<u32>; 6] = [
        (0..300).step_by(3).collect(),
        (0..300).step_by(2).collect(),
        (100..200).collect(),
        (0..300).rev().step_by(7).collect(),
        (290..310).chain(0..10).collect(),
        (0..310).collect(),
    ];
    let mut other = Interner::new(Domain::Bytes);
    for (round, values) in segments.iter().enumerate() {
        for value in values {
            let text = format!("{value:05}");
            let theirs = other.bytes(text.as_bytes());
            let number = match round % 2 {
                0 => interner.scalar(&Scalar::Bytes(text.as_bytes().into())),
                _ => interner.adopt(&other, theirs),
            };
            assert_eq!(*known.entry(Some(text)).or_insert(number), number);
        }
        let null = interner.null();
        assert_eq!(*known.entry(None).or_insert(null), null);
    }
    let mut numbers: Vec<u32> = known.values().copied().collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..interner.len() as u32));
}
