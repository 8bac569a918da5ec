//! Consuming columns while they grow.

use super::*;
use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::reader::{DocSelection, Scalar, ValueBuffer};
use std::sync::atomic::AtomicBool;

/// What document `doc` holds.
fn value_of(doc: u32) -> i64 {
    i64::from(doc % 97) * 1000
}

/// Reads a view in several ways and holds the answers against what its documents must hold.
fn check_view(view: &dyn ColumnReader, docs: u32) {
    assert_eq!(view.num_docs(), docs);
    let dictionary = view.dictionary().unwrap();
    assert_eq!(dictionary.len(), docs.min(97));
    let mut values = ValueBuffer::new(PhysicalType::I64);
    view.values(DocSelection::Range(0..docs), &mut values);
    let ValueBuffer::I64(values) = values else {
        unreachable!()
    };
    assert!(values.iter().copied().eq((0..docs).map(value_of)));
    let probe = docs % 97;
    let Some(id) = dictionary.id_of(&Scalar::I64(value_of(probe))) else {
        return assert!(probe >= docs);
    };
    let postings = view.inverted().unwrap();
    let mut found = Vec::new();
    for chunk in 0..=docs / CHUNK_DOCS {
        let mut bits = DocBits::new();
        postings.fill(id, chunk, &mut bits);
        let mut nulls = DocBits::new();
        view.null_bits(chunk, &mut nulls);
        bits.and_not(&nulls);
        bits.append_docs(chunk * CHUNK_DOCS, &mut found);
    }
    let expected = (0..docs).filter(|doc| doc % 97 == probe && doc % 50 != 0);
    assert!(
        found.iter().copied().eq(expected),
        "documents of value {probe} among {docs}"
    );
    assert!(postings.count(id) >= found.len() as u64);
}

#[test]
fn views_stay_as_they_were_while_the_writer_appends() {
    let options = MutableOptions {
        dictionary: true,
        inverted: true,
    };
    let column = MutableColumn::new(PhysicalType::I64, false, options).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut held: Vec<(u32, Arc<dyn ColumnReader>)> = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let docs = column.num_docs();
                    let view = column.view(docs);
                    check_view(&*view, docs);
                    held.push((docs, view));
                    let (docs, view) = &held[held.len() / 2];
                    check_view(&**view, *docs);
                }
            });
        }
        let mut docs = 0;
        for step in (1..).map(|step| step * 37 % 2500) {
            let end = docs + step;
            let values = ValueBuffer::I64((docs..end).map(value_of).collect());
            let null_docs: Vec<u32> = (docs..end)
                .filter(|doc| doc % 50 == 0)
                .map(|doc| doc - docs)
                .collect();
            column
                .append(&ColumnData {
                    null_docs: &null_docs,
                    ..ColumnData::single(&values)
                })
                .unwrap();
            docs = end;
            if docs > 150_000 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let docs = column.num_docs();
    for docs in [
        docs,
        docs - 1,
        131_072,
        131_071,
        65_537,
        65_536,
        8192,
        8191,
        1,
        0,
    ] {
        check_view(&*column.view(docs), docs);
    }
}

#[test]
fn an_append_that_does_not_fit_leaves_the_column_as_it_was() {
    let column = MutableColumn::new(PhysicalType::I32, false, MutableOptions::default()).unwrap();
    column
        .append(&ColumnData::single(&ValueBuffer::I32(vec![1])))
        .unwrap();
    let values = ValueBuffer::I32(vec![2, 3]);
    for data in [
        ColumnData::single(&ValueBuffer::I64(vec![2])),
        ColumnData::multi(&values, &[1, 2]),
        ColumnData {
            null_docs: &[2],
            ..ColumnData::single(&values)
        },
        ColumnData {
            null_docs: &[1, 0],
            ..ColumnData::single(&values)
        },
        ColumnData {
            null_elements: &[0],
            ..ColumnData::single(&values)
        },
    ] {
        assert!(column.check(&data).is_err());
        assert!(column.append(&data).is_err());
    }
    let lists = MutableColumn::new(PhysicalType::I32, true, MutableOptions::default()).unwrap();
    for ends in [&[1][..], &[2, 1], &[1, 3]] {
        assert!(lists.append(&ColumnData::multi(&values, ends)).is_err());
    }
    assert_eq!((column.num_docs(), lists.num_docs()), (1, 0));
    assert_eq!(column.view(9).num_docs(), 1);
}

#[test]
fn memory_is_accounted_for_as_rows_come() {
    let options = MutableOptions {
        dictionary: false,
        inverted: false,
    };
    let column = MutableColumn::new(PhysicalType::Bytes, false, options).unwrap();
    let mut values = ValueBuffer::new(PhysicalType::Bytes);
    (0..1000).for_each(|_| values.push_bytes(&[7; 100]));
    let before = column.bytes();
    column.append(&ColumnData::single(&values)).unwrap();
    let grown = column.bytes() - before;
    assert!(
        (100_000..200_000).contains(&grown),
        "{grown} bytes for 100,000"
    );
}

#[test]
fn keyed_texts_are_the_texts_themselves() {
    let texts = |of: &[&str]| {
        let mut buffer = ValueBuffer::new(PhysicalType::Bytes);
        of.iter()
            .for_each(|text| buffer.push_bytes(text.as_bytes()));
        buffer
    };
    let options = MutableOptions {
        dictionary: true,
        inverted: true,
    };
    let keyed = MutableColumn::new(PhysicalType::Bytes, false, options).unwrap();
    let plain = MutableColumn::new(PhysicalType::Bytes, false, options).unwrap();
    for (of, batches) in [
        (
            vec!["b", "unused", "a", ""],
            vec![vec![0, 2, 0, 3], vec![2]],
        ),
        (vec!["a", "c"], vec![vec![1, 1, 0], vec![]]),
    ] {
        let mut known = Vec::new();
        for keys in batches {
            let data = KeyedTexts {
                texts: &texts(&of),
                keys: &keys,
            };
            keyed.append_keyed(&data, &mut known).unwrap();
            let rows: Vec<&str> = keys.iter().map(|&key| of[key as usize]).collect();
            plain.append(&ColumnData::single(&texts(&rows))).unwrap();
        }
    }
    let (keyed_view, plain_view) = (keyed.view(u32::MAX), plain.view(u32::MAX));
    assert_eq!(keyed_view.num_docs(), 8);
    let read = |view: &dyn ColumnReader| {
        let (mut values, mut ids) = (ValueBuffer::new(PhysicalType::Bytes), Vec::new());
        view.values(DocSelection::Range(0..8), &mut values);
        view.dict_ids(DocSelection::Range(0..8), &mut ids);
        (values, ids, view.dictionary().unwrap().len())
    };
    // Not the text that no document holds.
    assert_eq!(read(&*keyed_view), read(&*plain_view));

    let refused = |column: &MutableColumn, texts: &ValueBuffer, keys: &[u32]| {
        let data = KeyedTexts { texts, keys };
        let error = column.append_keyed(&data, &mut Vec::new());
        error.unwrap_err();
    };
    refused(&keyed, &texts(&["a"]), &[0, 1]);
    refused(&keyed, &ValueBuffer::I32(vec![1]), &[0]);
    let raw = MutableOptions {
        dictionary: false,
        inverted: false,
    };
    let raw = MutableColumn::new(PhysicalType::Bytes, false, raw).unwrap();
    refused(&raw, &texts(&["a"]), &[0]);
    assert_eq!(keyed.num_docs(), 8);
}

#[test]
fn bounds_hold_every_value_that_is_seen_and_no_null() {
    for (dictionary, wide) in [(true, false), (true, true), (false, false), (false, true)] {
        let physical = if wide {
            PhysicalType::I64
        } else {
            PhysicalType::I32
        };
        let options = MutableOptions {
            dictionary,
            inverted: false,
        };
        let column = MutableColumn::new(physical, false, options).unwrap();
        let values = |of: &[i32]| match wide {
            true => ValueBuffer::I64(of.iter().map(|&v| v.into()).collect()),
            false => ValueBuffer::I32(of.to_vec()),
        };
        let append = |of: &[i32], null_docs: &[u32]| {
            let values = values(of);
            let data = ColumnData {
                null_docs,
                ..ColumnData::single(&values)
            };
            column.append(&data).unwrap();
            column.bounds()
        };
        assert_eq!(column.bounds(), None);
        assert_eq!(append(&[0, 0], &[0, 1]), None);
        assert_eq!(append(&[0, 7, 0, 9, 0], &[0, 2, 4]), Some((7, 9)));
        assert_eq!(append(&[8], &[]), Some((7, 9)));
        let most = (i32::MIN.into(), i32::MAX.into());
        assert_eq!(append(&[i32::MAX, i32::MIN], &[]), Some(most));
    }
}

#[test]
fn only_single_whole_numbers_have_bounds() {
    let bounds = |physical, multi_value, data: &ColumnData<'_>| {
        let column = MutableColumn::new(physical, multi_value, MutableOptions::default()).unwrap();
        column.append(data).unwrap();
        column.bounds()
    };
    for values in [
        ValueBuffer::F64(vec![f64::NAN, -0.0, 1.0]),
        ValueBuffer::F32(vec![f32::NAN, -0.0, 1.0]),
        ValueBuffer::I128(vec![1, 2, 3]),
    ] {
        let data = ColumnData::single(&values);
        assert_eq!(bounds(values.physical(), false, &data), None);
    }
    let values = ValueBuffer::I64(vec![1, 2, 3]);
    let lists = ColumnData {
        list_ends: Some(&[2, 3]),
        ..ColumnData::single(&values)
    };
    assert_eq!(bounds(PhysicalType::I64, true, &lists), None);
}

#[test]
fn bounds_are_never_narrower_than_what_a_reader_sees() {
    let column = MutableColumn::new(PhysicalType::I64, false, MutableOptions::default()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let view = column.view(u32::MAX);
                    let bounds = column.bounds();
                    let mut values = ValueBuffer::new(PhysicalType::I64);
                    view.values(DocSelection::Range(0..view.num_docs()), &mut values);
                    let ValueBuffer::I64(values) = values else {
                        unreachable!()
                    };
                    if let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) {
                        let (min, max) = bounds.unwrap();
                        assert!(min <= *least && *most <= max);
                    }
                }
            });
        }
        for step in 0..2_000_i64 {
            let values = ValueBuffer::I64(vec![step, -step, step / 2]);
            column.append(&ColumnData::single(&values)).unwrap();
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(column.bounds(), Some((-1_999, 1_999)));
}

#[test]
fn texts_of_batches_are_read_back_wherever_buckets_end() {
    let options = MutableOptions {
        dictionary: false,
        inverted: false,
    };
    let column = MutableColumn::new(PhysicalType::Bytes, false, options).unwrap();
    let mut expected = ValueBuffer::new(PhysicalType::Bytes);
    for batch in 0..60_usize {
        let mut values = ValueBuffer::new(PhysicalType::Bytes);
        for i in 0..batch % 7 * 5 {
            let text = vec![i as u8; (i * batch * 13) % 700];
            values.push_bytes(&text);
            expected.push_bytes(&text);
        }
        column.append(&ColumnData::single(&values)).unwrap();
    }
    let view = column.view(u32::MAX);
    let mut read = ValueBuffer::new(PhysicalType::Bytes);
    view.values(DocSelection::Range(0..view.num_docs()), &mut read);
    assert_eq!(read, expected);
}
