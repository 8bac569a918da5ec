//! Immutable and consuming columns against rows.

use super::*;
use crate::conformance::{ColumnRows, Row, check};
use crate::mutable::{MutableColumn, MutableOptions};
use crate::reader::{ColumnReader, PhysicalType, Scalar};
use std::borrow::Cow;

pub(super) const TYPES: [PhysicalType; 6] = [
    PhysicalType::I32,
    PhysicalType::I64,
    PhysicalType::F32,
    PhysicalType::F64,
    PhysicalType::I128,
    PhysicalType::Bytes,
];

/// A small deterministic source of numbers.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 29
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The value that stands for a number in each type.
pub(super) fn value(physical: PhysicalType, n: u64) -> Scalar<'static> {
    let signed = n as i64 - 20;
    match physical {
        PhysicalType::I32 => Scalar::I32(signed as i32),
        PhysicalType::I64 => Scalar::I64(signed * 3_000_000_007),
        PhysicalType::F32 if n == 3 => Scalar::F32(f32::NAN),
        PhysicalType::F32 => Scalar::F32(signed as f32 / 4.0),
        PhysicalType::F64 if n == 3 => Scalar::F64(f64::NAN),
        PhysicalType::F64 if n == 4 => Scalar::F64(-0.0),
        PhysicalType::F64 => Scalar::F64(signed as f64 / 100.0),
        PhysicalType::I128 => Scalar::I128(i128::from(signed) << (n % 90)),
        PhysicalType::Bytes => Scalar::Bytes(Cow::Owned(match n {
            0 => Vec::new(),
            n => format!(
                "{:x}-{}",
                n * 2_654_435_761 % 1009,
                "text".repeat((n % 5) as usize)
            )
            .into_bytes(),
        })),
    }
}

pub(super) struct Shape {
    pub(super) docs: usize,
    pub(super) distinct: u64,
    pub(super) multi_value: bool,
    pub(super) nulls: bool,
    pub(super) sorted: bool,
}

pub(super) fn rows(physical: PhysicalType, shape: &Shape, seed: u64) -> ColumnRows {
    let mut numbers = Numbers(seed);
    let mut rows: Vec<Row> = (0..shape.docs)
        .map(|_| {
            if shape.nulls && numbers.below(10) == 0 {
                return Row::Null;
            }
            if !shape.multi_value {
                return Row::Value(value(physical, numbers.below(shape.distinct)));
            }
            let len = [0, 1, 1, 2, 5][numbers.below(5) as usize];
            Row::List(
                (0..len)
                    .map(|_| {
                        let null = shape.nulls && numbers.below(12) == 0;
                        (!null).then(|| value(physical, numbers.below(shape.distinct)))
                    })
                    .collect(),
            )
        })
        .collect();
    if shape.sorted {
        rows.sort_by(|a, b| match (a, b) {
            (Row::Value(a), Row::Value(b)) => a.total_cmp(b),
            _ => std::cmp::Ordering::Equal,
        });
    }
    ColumnRows {
        physical,
        multi_value: shape.multi_value,
        rows,
    }
}

pub(super) fn probes(physical: PhysicalType, distinct: u64) -> Vec<Scalar<'static>> {
    let mut probes: Vec<_> = [0, 1, 3, 4, 17, distinct / 2, distinct - 1, distinct + 5]
        .map(|n| value(physical, n))
        .into();
    probes.push(Scalar::placeholder(physical));
    probes
}

pub(super) fn open(written: &WrittenColumn) -> Result<ImmutableColumn, crate::IndexError> {
    let sections = written.sections.iter();
    ImmutableColumn::open(sections.map(|(kind, bytes)| (kind.code(), Bytes::from(bytes.clone()))))
}

const ALL_INDEXES: ColumnOptions = ColumnOptions {
    dictionary: true,
    inverted: true,
    range: true,
    bloom: true,
    fst: false,
    compression: Compression::Lz4,
};

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for docs in [0, 1, 2600] {
        for (multi_value, nulls, sorted) in [
            (false, false, false),
            (false, false, true),
            (false, true, false),
            (true, false, false),
            (true, true, false),
        ] {
            shapes.push(Shape {
                docs,
                distinct: 40,
                multi_value,
                nulls,
                sorted,
            });
            shapes.push(Shape {
                docs,
                distinct: 1 << 20,
                multi_value,
                nulls,
                sorted,
            });
        }
    }
    shapes
}

#[test]
fn immutable_and_consuming_columns_answer_as_their_rows() {
    for physical in TYPES {
        for (i, shape) in shapes().iter().enumerate() {
            let rows = rows(physical, shape, i as u64);
            check_all(
                &rows,
                &probes(physical, shape.distinct),
                &format!("{physical:?}, shape {i}"),
            );
        }
    }
}

#[test]
fn a_sorted_column_of_several_chunks_answers_as_its_rows() {
    for distinct in [50, 50_000] {
        let shape = Shape {
            docs: 140_000,
            distinct,
            multi_value: false,
            nulls: false,
            sorted: true,
        };
        let rows = rows(PhysicalType::I64, &shape, 3);
        let data = rows.data(0..shape.docs);
        let options = ColumnOptions {
            range: true,
            ..ColumnOptions::default()
        };
        let column = open(&write_column(&data.data(), &options).unwrap()).unwrap();
        assert!(
            column.is_sorted() && column.inverted().is_some() && column.sorted_docs(0..1).is_some()
        );
        check(&column, &rows, &probes(PhysicalType::I64, distinct)[..3]).unwrap();
    }
}

#[test]
fn columns_of_several_chunks_answer_as_their_rows() {
    for (physical, multi_value, nulls, distinct) in [
        (PhysicalType::I32, false, true, 3),
        (PhysicalType::I32, true, true, 9000),
        (PhysicalType::Bytes, false, false, 9000),
    ] {
        let shape = Shape {
            docs: 70_000,
            distinct,
            multi_value,
            nulls,
            sorted: false,
        };
        let rows = rows(physical, &shape, 9);
        check_all(
            &rows,
            &probes(physical, distinct)[..3],
            &format!("{physical:?}, {distinct}"),
        );
    }
}

/// Every way of storing and reading the rows.
pub(super) fn check_all(rows: &ColumnRows, probes: &[Scalar<'static>], about: &str) {
    let data = rows.data(0..rows.rows.len());
    let raw = ColumnOptions {
        dictionary: false,
        inverted: false,
        ..ALL_INDEXES
    };
    let zstd = ColumnOptions {
        compression: Compression::Zstd,
        range: false,
        ..raw
    };
    for options in [ALL_INDEXES, ColumnOptions::default(), raw, zstd] {
        let written = write_column(&data.data(), &options).unwrap();
        let column = open(&written).unwrap();
        check(&column, rows, probes).unwrap_or_else(|e| panic!("{about}, {options:?}: {e}"));
    }
    for (dictionary, inverted) in [(true, true), (true, false), (false, false)] {
        let options = MutableOptions {
            dictionary,
            inverted,
        };
        let column = MutableColumn::new(rows.physical, rows.multi_value, options).unwrap();
        let mut start = 0;
        let mut steps = [1, 700, 3, 0, 20_000].into_iter().cycle();
        while start < rows.rows.len() {
            let end = rows.rows.len().min(start + steps.next().unwrap());
            column.append(&rows.data(start..end).data()).unwrap();
            start = end;
        }
        for docs in [rows.rows.len(), rows.rows.len() / 2] {
            let pinned = ColumnRows {
                rows: rows.rows[..docs].to_vec(),
                ..rows.clone()
            };
            let view = column.view(docs as u32);
            check(&*view, &pinned, probes)
                .unwrap_or_else(|e| panic!("{about}, {options:?}, {docs} rows: {e}"));
            let to = ColumnOptions {
                dictionary,
                inverted,
                ..ALL_INDEXES
            };
            let rewritten = rewrite_column(&*view, None, &to).unwrap();
            let written = write_column(&pinned.data(0..docs).data(), &to).unwrap();
            assert_eq!(rewritten.sections, written.sections, "{about}");
            assert_eq!(
                format!("{:?}", rewritten.stats),
                format!("{:?}", written.stats),
                "{about}"
            );
        }
    }
}

/// Documents are gathered with their nulls, however many times and whichever of them.
#[test]
fn gathered_documents_keep_their_values_and_nulls() {
    use crate::doc_bits::DocBits;
    use crate::reader::{DocSelection, ValueBuffer};
    let values = ValueBuffer::I32(vec![7, 0, 3, 0, 9, 7]);
    let null_docs = [1, 3];
    let data = ColumnData {
        null_docs: &null_docs,
        ..ColumnData::single(&values)
    };
    for dictionary in [true, false] {
        let options = ColumnOptions {
            dictionary,
            ..ColumnOptions::default()
        };
        let open = |written: WrittenColumn| {
            let sections = written.sections.into_iter();
            ImmutableColumn::open(sections.map(|(kind, bytes)| (kind.code(), bytes.into())))
                .unwrap()
        };
        let column = open(write_column(&data, &options).unwrap());
        let Gathered {
            ids,
            null_docs: nulls,
            ..
        } = gathered_ids(&column).unwrap();
        assert_eq!(
            (ids.as_slice(), nulls.as_slice()),
            (&[2, 0, 1, 0, 3, 2][..], &[1, 3][..])
        );
        for docs in [&[3, 4, 2][..], &[5, 5, 1, 0, 3, 2, 4, 1, 1]] {
            let gathered = open(gather_column(&column, docs, &ColumnOptions::default()).unwrap());
            let mut found = ValueBuffer::new(PhysicalType::I32);
            gathered.values(DocSelection::Range(0..docs.len() as u32), &mut found);
            let all = [7, 0, 3, 0, 9, 7];
            let expected = docs.iter().map(|&doc| all[doc as usize]).collect();
            assert_eq!(found, ValueBuffer::I32(expected));
            let (mut bits, mut nulls) = (DocBits::new(), Vec::new());
            gathered.null_bits(0, &mut bits);
            bits.append_docs(0, &mut nulls);
            let expected: Vec<u32> = (0..)
                .zip(docs)
                .filter(|(_, doc)| null_docs.contains(doc))
                .map(|(i, _)| i)
                .collect();
            assert_eq!(nulls, expected);
        }
        assert!(gather_column(&column, &[6], &options).is_err());
    }
}
