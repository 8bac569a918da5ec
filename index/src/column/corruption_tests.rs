//! Damaged bytes: opening or reading them gives errors or other answers, never a panic.

use super::tests::{Numbers, Shape, TYPES, probes, rows};
use super::*;
use crate::doc_bits::DocBits;
use crate::reader::{ColumnReader, DocSelection, PhysicalType, Scalar, ValueBuffer};

/// Reads everything there is, without looking at it.
fn read_all(column: &ImmutableColumn, probes: &[Scalar<'static>]) {
    let docs = column.num_docs();
    // a damaged count that passes the checks can be any number; what a reader asks for stays bounded
    let some: Vec<u32> = (0..docs.min(3000)).step_by(7).collect();
    for selection in [
        DocSelection::Range(0..docs.min(3000)),
        DocSelection::Docs(&some),
    ] {
        let (mut ends, mut ids, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
        let mut values = ValueBuffer::new(column.physical());
        if column.is_multi_value() {
            column.multi_dict_ids(selection.clone(), &mut ends, &mut ids);
            column.multi_values(selection.clone(), &mut ends, &mut values);
            column.null_elements(selection, &mut nulls);
        } else {
            column.dict_ids(selection.clone(), &mut ids);
            column.values(selection, &mut values);
        }
        if let Some(dictionary) = column.dictionary() {
            assert!(
                ids.iter().all(|&id| id < dictionary.len()),
                "ids stay within the dictionary"
            );
        }
    }
    let mut bits = DocBits::new();
    for chunk in [0, 1, 65_535] {
        column.null_bits(chunk, &mut bits);
        for probe in probes {
            column.range_fill(Some((probe, true)), None, chunk, &mut bits);
            column.may_contain(probe);
            let Some(dictionary) = column.dictionary() else {
                continue;
            };
            let ids = dictionary.range(Some((probe, false)), None);
            column.sorted_docs(ids.clone());
            if let (Some(postings), Some(id)) = (column.inverted(), dictionary.id_of(probe)) {
                postings.fill(id, chunk, &mut bits);
                postings.count(id);
            }
        }
    }
    column.fault();
}

#[test]
fn damaged_sections_never_panic() {
    let mut numbers = Numbers(2026);
    let (mut refused, mut accepted) = (0, 0);
    for physical in TYPES {
        for (multi_value, nulls, sorted) in [
            (false, true, false),
            (false, false, true),
            (true, true, false),
        ] {
            let shape = Shape {
                docs: 2000,
                distinct: 60,
                multi_value,
                nulls,
                sorted,
            };
            let rows = rows(physical, &shape, 5);
            let data = rows.data(0..shape.docs);
            for dictionary in [true, false] {
                let options = ColumnOptions {
                    dictionary,
                    inverted: dictionary,
                    range: true,
                    bloom: true,
                    ..Default::default()
                };
                let written = write_column(&data.data(), &options).unwrap();
                for _ in 0..400 {
                    let mut sections = written.sections.clone();
                    let at = numbers.below(sections.len() as u64) as usize;
                    damage(&mut sections[at].1, &mut numbers);
                    if numbers.below(20) == 0 {
                        sections.remove(at);
                    }
                    let sections = sections
                        .into_iter()
                        .map(|(kind, bytes)| (kind.code(), bytes.into()));
                    match ImmutableColumn::open(sections) {
                        Ok(column) => {
                            accepted += 1;
                            read_all(&column, &probes(physical, 60));
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
        }
    }
    assert!(
        refused > 1000 && accepted > 1000,
        "{refused} refused, {accepted} accepted"
    );
}

fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    if bytes.is_empty() {
        return;
    }
    // headers and directories stand first and deserve most of it
    let reach = if numbers.below(2) == 0 {
        bytes.len().min(40)
    } else {
        bytes.len()
    } as u64;
    let at = numbers.below(reach) as usize;
    match numbers.below(5) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(&[numbers.next() as u8; 9]),
        2 => bytes[at] = [0, 0xff, 0x7f, 0x80][numbers.below(4) as usize],
        3 => bytes[at..].iter_mut().take(8).for_each(|b| *b = 0xff),
        _ => bytes[at] ^= 1 << numbers.below(8),
    }
}

#[test]
fn every_cut_of_a_section_is_refused() {
    let shape = Shape {
        docs: 1500,
        distinct: 30,
        multi_value: true,
        nulls: true,
        sorted: false,
    };
    let data = rows(PhysicalType::Bytes, &shape, 1).data(0..shape.docs);
    let options = ColumnOptions {
        inverted: true,
        range: true,
        bloom: true,
        ..Default::default()
    };
    let written = write_column(&data.data(), &options).unwrap();
    for (at, (kind, whole)) in written.sections.iter().enumerate() {
        for len in (0..whole.len()).step_by((whole.len() / 60).max(1)) {
            let mut sections = written.sections.clone();
            sections[at].1.truncate(len);
            let sections = sections
                .into_iter()
                .map(|(kind, bytes)| (kind.code(), bytes.into()));
            let error = ImmutableColumn::open(sections).expect_err("a cut section is refused");
            assert!(
                error.0.contains(&format!("{kind:?}")) || error.0.contains("contradict"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_damaged_block_of_texts_is_told_by_the_column() {
    let values: Vec<String> = (0..20_000)
        .map(|i| format!("a text that repeats {}", i % 50))
        .collect();
    let mut buffer = ValueBuffer::new(PhysicalType::Bytes);
    values
        .iter()
        .for_each(|value| buffer.push_bytes(value.as_bytes()));
    let options = ColumnOptions {
        dictionary: false,
        compression: Compression::Zstd,
        ..Default::default()
    };
    let mut written = write_column(&ColumnData::single(&buffer), &options).unwrap();
    let forward = &mut written
        .sections
        .iter_mut()
        .find(|(kind, _)| *kind == SectionKind::Forward)
        .unwrap()
        .1;
    let end = forward.len();
    forward[end - 30..].fill(0xaa);
    let column = super::tests::open(&written).unwrap();
    let mut out = ValueBuffer::new(PhysicalType::Bytes);
    column.values(DocSelection::Range(0..10), &mut out);
    assert_eq!(column.fault(), None);
    column.values(DocSelection::Range(0..20_000), &mut out);
    assert!(column.fault().unwrap().0.contains("can't be decompressed"));
    assert_eq!(
        out.len(),
        20_010,
        "a read gives as many values as it was asked for"
    );
}
