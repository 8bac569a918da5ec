//! Texts that are UUIDs, sixteen bytes each, every one once.
//!
//! ```text
//! | distinct u32 | width u8, empty u8, 0 u16 | UUID 0 | UUID 1 | ... | number of each text, packed, `width` bits |
//! UUID: 16 bytes, in the order in which the text spells them
//! ```
//!
//! A UUID is text of the form `8-4-4-4-12` of lower-case hexadecimal digits; only such texts can be stored so, and, with
//! `empty`, empty ones, whose number is then 0, while the first UUID's is 1. Numbers are given in the order of the texts.
//! A text is read without reading its neighbours, and equal texts are told by their numbers.

use crate::bitpack::{Blocks, PackedIds, bits_for};
use crate::hash::hash_bytes;
use crate::reader::{DistinctValues, DocSelection, IndexError, ValueBuffer, bytes_offset};
use crate::wire::{corrupt, part, u8_at, u32_at};
use bytes::Bytes;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

const HEADER: usize = 8;
/// Bytes of a stored UUID.
const UUID: usize = 16;
/// Bytes of its text.
const TEXT: usize = 36;
/// Where the dashes stand.
const DASHES: [usize; 4] = [8, 13, 18, 23];
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Texts that are UUIDs or empty.
#[derive(Clone, Debug)]
pub(crate) struct Uuids {
    uuids: Bytes,
    numbers: PackedIds,
    /// The number of the first UUID: 1 where 0 is the empty text.
    first: u32,
}

/// Hashes the sixteen bytes of a UUID.
#[derive(Default)]
struct UuidHasher(u64);

impl Hasher for UuidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_bytes(bytes);
    }
}

/// The value of a hexadecimal digit; none of other characters and of capitals.
fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

/// The UUID that is spelled `text`; none of any other text.
fn parse(text: &[u8]) -> Option<[u8; UUID]> {
    if text.len() != TEXT || DASHES.iter().any(|&at| text.get(at) != Some(&b'-')) {
        return None;
    }
    let mut digits = text
        .iter()
        .enumerate()
        .filter(|(at, _)| !DASHES.contains(at))
        .map(|(_, &character)| digit(character));
    let mut uuid = [0; UUID];
    for byte in &mut uuid {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(uuid)
}

/// Appends the text of `uuid`.
fn spell(uuid: &[u8; UUID], out: &mut Vec<u8>) {
    let mut text = [b'-'; TEXT];
    let mut at = 0;
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        let pair = [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]);
        if let Some(to) = text.get_mut(at..at + 2) {
            to.copy_from_slice(&pair);
        }
        at += 2;
    }
    out.extend_from_slice(&text);
}

impl Uuids {
    /// Appends the stored form of `values`, a buffer of bytes. False, and nothing is appended: not all of them are UUIDs or
    /// empty, or all are empty.
    pub(crate) fn write(values: &ValueBuffer, out: &mut Vec<u8>) -> bool {
        let mut known: HashMap<[u8; UUID], u32, BuildHasherDefault<UuidHasher>> =
            HashMap::default();
        let mut uuids = Vec::new();
        let mut numbers = Vec::with_capacity(values.len());
        let mut empty = false;
        for text in (0..values.len()).map(|i| values.bytes(i).unwrap_or(b"?")) {
            if text.is_empty() {
                empty = true;
                numbers.push(0);
                continue;
            }
            let Some(uuid) = parse(text) else {
                return false;
            };
            let next = known.len() as u32 + 1;
            numbers.push(*known.entry(uuid).or_insert_with(|| {
                uuids.extend_from_slice(&uuid);
                next
            }));
        }
        if known.is_empty() {
            return false;
        }
        if !empty {
            numbers.iter_mut().for_each(|number| *number -= 1);
        }
        let distinct = known.len() as u32;
        let largest = distinct - u32::from(!empty);
        let width = bits_for(u64::from(largest));
        out.extend_from_slice(&distinct.to_le_bytes());
        out.extend_from_slice(&[width as u8, u8::from(empty), 0, 0]);
        out.extend_from_slice(&uuids);
        PackedIds::write(&numbers, width, out);
        true
    }

    pub(crate) fn open(bytes: &Bytes, len: usize) -> Result<Self, IndexError> {
        let distinct = u32_at(bytes, 0)?;
        let (width, empty) = (u8_at(bytes, 4)?, u8_at(bytes, 5)?);
        let uuids = part(bytes, HEADER, (distinct as usize).saturating_mul(UUID))?;
        let numbers = PackedIds::open(bytes.slice(HEADER + uuids.len()..), width.into(), len)?;
        let first = u32::from(empty != 0);
        let end = distinct.checked_add(first);
        if end.is_none_or(|end| numbers.max().is_some_and(|max| max >= end)) {
            return Err(corrupt(format!(
                "numbers of UUIDs beyond the {distinct} that there are"
            )));
        }
        Ok(Self {
            uuids,
            numbers,
            first,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Appends the texts of a selection.
    pub(crate) fn append(&self, docs: &DocSelection<'_>, out: &mut ValueBuffer) {
        self.numbers
            .for_each(docs, |numbers| self.gather(numbers, out));
    }
}

impl DistinctValues for Uuids {
    fn len(&self) -> u32 {
        (self.uuids.len() / UUID) as u32 + self.first
    }

    fn numbers(&self, docs: &DocSelection<'_>, out: &mut Vec<u32>) {
        self.numbers
            .for_each(docs, |numbers| out.extend_from_slice(numbers));
    }

    fn gather(&self, numbers: &[u32], out: &mut ValueBuffer) {
        let ValueBuffer::Bytes { offsets, data } = out else {
            return;
        };
        let uuids = self.uuids.as_chunks::<UUID>().0;
        offsets.reserve(numbers.len());
        data.reserve(numbers.len() * TEXT);
        for &number in numbers {
            let uuid = number.checked_sub(self.first);
            if let Some(uuid) = uuid.and_then(|number| uuids.get(number as usize)) {
                spell(uuid, data);
            }
            offsets.push(bytes_offset(data.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::PhysicalType;

    fn texts(values: &[&str]) -> ValueBuffer {
        let mut buffer = ValueBuffer::new(PhysicalType::Bytes);
        for value in values {
            buffer.push(&crate::reader::Scalar::Bytes(value.as_bytes().into()));
        }
        buffer
    }

    fn uuid(n: u64) -> String {
        let h = format!(
            "{:032x}",
            u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        );
        [&h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]].join("-")
    }

    #[test]
    fn uuids_are_read_as_they_were_written() {
        for with_empty in [false, true] {
            let mut values: Vec<String> = (0..3_000).map(|i| uuid(i * i % 701 + 1)).collect();
            if with_empty {
                values[0].clear();
                values[2_999].clear();
            }
            let buffer = texts(&values.iter().map(String::as_str).collect::<Vec<_>>());
            let mut stored = Vec::new();
            assert!(Uuids::write(&buffer, &mut stored));
            let read = Uuids::open(&stored.into(), values.len()).unwrap();
            let mut whole = ValueBuffer::new(PhysicalType::Bytes);
            read.append(&DocSelection::Range(0..3_000), &mut whole);
            assert_eq!(whole, buffer);
            let some = [0u32, 5, 1_024, 1_025, 2_999];
            let mut picked = ValueBuffer::new(PhysicalType::Bytes);
            read.append(&DocSelection::Docs(&some), &mut picked);
            let expected: Vec<_> = some.iter().map(|&i| values[i as usize].as_str()).collect();
            assert_eq!(picked, texts(&expected));
            let mut numbers = Vec::new();
            read.numbers(&DocSelection::Range(0..3_000), &mut numbers);
            let distinct: std::collections::HashSet<_> = values.iter().collect();
            let of_numbers: std::collections::HashSet<_> = numbers.iter().collect();
            assert_eq!(distinct.len(), of_numbers.len());
            assert_eq!(read.len(), 3_000);
            assert_eq!(DistinctValues::len(&read) as usize, distinct.len());
        }
    }

    #[test]
    fn only_texts_that_are_spelled_back_alike_are_stored() {
        let good = uuid(7);
        let dash = good.replace('-', "0");
        for other in [
            "",
            "x",
            &good.to_uppercase(),
            &good[..35],
            &format!("{good}0"),
            &dash,
            &good.replacen('-', "_", 1),
            &format!("g{}", &good[1..]),
        ] {
            let mut out = Vec::new();
            let stored = Uuids::write(&texts(&[&good, other, &good]), &mut out);
            assert_eq!(stored, other.is_empty(), "{other:?}");
            assert_eq!(out.is_empty(), !stored);
        }
        assert!(!Uuids::write(&texts(&["", ""]), &mut Vec::new()));
        assert!(!Uuids::write(&texts(&[]), &mut Vec::new()));
    }

    #[test]
    fn damage_is_an_error() {
        let mut stored = Vec::new();
        assert!(Uuids::write(
            &texts(&[&uuid(1), &uuid(2), &uuid(3)]),
            &mut stored
        ));
        let cut = |len: usize| Bytes::copy_from_slice(&stored[..len]);
        for len in 0..stored.len() {
            assert!(Uuids::open(&cut(len), 3).is_err(), "{len}");
        }
        let mut fewer = stored.clone();
        fewer[0] = 2;
        assert!(Uuids::open(&fewer.into(), 3).is_err());
        assert!(Uuids::open(&stored.into(), 3).is_ok());
    }
}
