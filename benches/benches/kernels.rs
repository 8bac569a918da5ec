//! The loops of `strandline-index`, one by one: `cargo bench --workspace --bench kernels`.
//!
//! A run of each is over one chunk of 65,536 documents, or over a column of 16 chunks, from memory that was read before. Where values
//! are made or compared the throughput is in values, where blocks are decompressed in bytes.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use strandline_index::bitpack::{
    BLOCK, block_len, pack_u32, pack_u64, pick_u32, unpack_u32, unpack_u64,
};
use strandline_index::column::{
    ColumnData, ColumnOptions, Compression, ImmutableColumn, write_column,
};
use strandline_index::kernels::{IdSet, ValueSet, select_id_range};
use strandline_index::mutable::{MutableColumn, MutableOptions};
use strandline_index::{
    CHUNK_DOCS, ColumnReader, DocBits, DocId, DocSelection, PhysicalType, Scalar, ValueBuffer,
};

/// Documents of a column.
const DOCS: u32 = 16 * CHUNK_DOCS;
/// Documents that are read together.
const READ_DOCS: u32 = 4_096;
/// Blocks that are unpacked together.
const BLOCKS: usize = 64;

fn random() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn column(values: &ValueBuffer, options: &ColumnOptions) -> ImmutableColumn {
    let written =
        write_column(&ColumnData::single(values), options).expect("the column is written");
    let sections = written.sections.into_iter();
    ImmutableColumn::open(sections.map(|(kind, bytes)| (kind.code(), bytes.into())))
        .expect("the column opens")
}

/// Whole numbers below `distinct`.
fn numbers(distinct: i64) -> ValueBuffer {
    let mut random = random();
    ValueBuffer::I64(
        (0..DOCS)
            .map(|_| random.random_range(0..distinct))
            .collect(),
    )
}

/// Texts of 20 bytes, `distinct` of them.
fn texts(distinct: u32) -> ValueBuffer {
    let mut random = random();
    let mut values = ValueBuffer::new(PhysicalType::Bytes);
    for _ in 0..DOCS {
        let text = format!("Customer#{:011}", random.random_range(0..distinct));
        values.push_bytes(text.as_bytes());
    }
    values
}

/// About `part` of the documents below `end`, ascending.
fn scattered(end: u32, part: f64) -> Vec<DocId> {
    let mut random = random();
    (0..end).filter(|_| random.random_bool(part)).collect()
}

fn bits(part: f64) -> DocBits {
    let mut bits = DocBits::new();
    for doc in scattered(CHUNK_DOCS, part) {
        bits.insert(doc as u16);
    }
    bits
}

/// Reads all documents of a column, so many at a time.
fn by_blocks(mut read: impl FnMut(DocSelection<'_>)) {
    for start in (0..DOCS).step_by(READ_DOCS as usize) {
        read(DocSelection::Range(start..start + READ_DOCS));
    }
}

fn bit_unpacking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bit unpack");
    group.throughput(Throughput::Elements((BLOCKS * BLOCK) as u64));
    let mut random = random();
    for width in [1, 4, 7, 12, 17, 25, 32] {
        let mut packed = Vec::new();
        for _ in 0..BLOCKS {
            let values: Vec<u32> = (0..BLOCK)
                .map(|_| random.random::<u32>() >> (32 - width))
                .collect();
            pack_u32(&values, width, &mut packed);
        }
        let mut out = [0u32; BLOCK];
        group.bench_function(BenchmarkId::new("u32", width), |b| {
            b.iter(|| {
                for block in packed.chunks(block_len(width)) {
                    unpack_u32(black_box(block), width, &mut out);
                    black_box(&out);
                }
            });
        });
        group.bench_function(BenchmarkId::new("u32, one by one", width), |b| {
            b.iter(|| {
                for block in packed.chunks(block_len(width)) {
                    for at in 0..BLOCK {
                        black_box(pick_u32(black_box(block), width, at));
                    }
                }
            });
        });
    }
    for width in [20, 40, 64] {
        let mut packed = Vec::new();
        for _ in 0..BLOCKS {
            let values: Vec<u64> = (0..BLOCK)
                .map(|_| random.random::<u64>() >> (64 - width))
                .collect();
            pack_u64(&values, width, &mut packed);
        }
        let mut out = [0u64; BLOCK];
        group.bench_function(BenchmarkId::new("u64", width), |b| {
            b.iter(|| {
                for block in packed.chunks(block_len(width)) {
                    unpack_u64(black_box(block), width, &mut out);
                    black_box(&out);
                }
            });
        });
    }
    group.finish();
}

fn comparing_ids(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ids in a set");
    group.throughput(Throughput::Elements(u64::from(CHUNK_DOCS)));
    let mut random = random();
    let ids: Vec<u32> = (0..CHUNK_DOCS)
        .map(|_| random.random_range(0..1_000))
        .collect();
    let mut words = vec![0u64; CHUNK_DOCS as usize / 64];
    for ranges in [1, 2, 4, 40] {
        let set = IdSet::new((0..ranges).map(|n| n * 20..n * 20 + 7).collect());
        group.bench_function(BenchmarkId::new("ranges", ranges), |b| {
            b.iter(|| set.mark(black_box(&ids), black_box(&mut words)));
        });
    }
    let mut out = DocBits::new();
    group.bench_function("one range into bits", |b| {
        b.iter(|| select_id_range(black_box(&ids), 100..300, 0, black_box(&mut out)));
    });
    group.finish();
}

fn comparing_values(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("values in a set");
    group.throughput(Throughput::Elements(u64::from(CHUNK_DOCS)));
    let mut random = random();
    let drawn: Vec<i32> = (0..CHUNK_DOCS)
        .map(|_| random.random_range(0..100_000))
        .collect();
    let mut words = vec![0u64; CHUNK_DOCS as usize / 64];
    let f64s = ValueBuffer::F64(drawn.iter().map(|v| f64::from(*v)).collect());
    let i64s = ValueBuffer::I64(drawn.iter().map(|v| i64::from(*v)).collect());
    let i32s = ValueBuffer::I32(drawn);
    let mut measure = |name: &str, values: &ValueBuffer, bounds: [Scalar<'static>; 2]| {
        let [low, high] = bounds.map(|bound| Some((bound, true)));
        let set = ValueSet::new(values.physical(), &[(low, high)]).expect("bounds of the type");
        group.bench_function(BenchmarkId::new("one range", name), |b| {
            b.iter(|| assert!(set.mark(black_box(values), black_box(&mut words))));
        });
    };
    measure("i32", &i32s, [Scalar::I32(20_000), Scalar::I32(30_000)]);
    measure("i64", &i64s, [Scalar::I64(20_000), Scalar::I64(30_000)]);
    measure("f64", &f64s, [Scalar::F64(2e4), Scalar::F64(3e4)]);
    let points: Vec<_> = (0..50)
        .map(|n| Some((Scalar::I64(n * 1_999), true)))
        .map(|point| (point.clone(), point))
        .collect();
    let set = ValueSet::new(PhysicalType::I64, &points).expect("points of the type");
    group.bench_function(BenchmarkId::new("50 points", "i64"), |b| {
        b.iter(|| assert!(set.mark(black_box(&i64s), black_box(&mut words))));
    });
    group.finish();
}

fn gathering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gather");
    let columns = [
        ("ids of 200", column(&texts(200), &ColumnOptions::default())),
        (
            "ids of 100,000",
            column(&texts(100_000), &ColumnOptions::default()),
        ),
    ];
    let some: Vec<DocId> = scattered(DOCS, 0.02);
    let mut ids = Vec::new();
    for (name, column) in &columns {
        group.throughput(Throughput::Elements(u64::from(DOCS)));
        group.bench_function(BenchmarkId::new("all", name), |b| {
            b.iter(|| {
                by_blocks(|docs| {
                    ids.clear();
                    column.dict_ids(docs, &mut ids);
                    black_box(&ids);
                })
            });
        });
        group.throughput(Throughput::Elements(some.len() as u64));
        group.bench_function(BenchmarkId::new("one of 50", name), |b| {
            b.iter(|| {
                for docs in some.chunks(READ_DOCS as usize) {
                    ids.clear();
                    column.dict_ids(DocSelection::Docs(docs), &mut ids);
                    black_box(&ids);
                }
            });
        });
        let dictionary = column.dictionary().expect("a column with a dictionary");
        let mut all = Vec::new();
        column.dict_ids(DocSelection::Range(0..CHUNK_DOCS), &mut all);
        let mut values = ValueBuffer::new(PhysicalType::Bytes);
        group.throughput(Throughput::Elements(all.len() as u64));
        group.bench_function(BenchmarkId::new("texts by", name), |b| {
            b.iter(|| {
                values.clear();
                dictionary.gather(black_box(&all), &mut values);
                black_box(&values);
            });
        });
    }
    let raw = ColumnOptions {
        dictionary: false,
        ..ColumnOptions::default()
    };
    let raw = column(&numbers(10_000_000), &raw);
    let mut values = ValueBuffer::new(PhysicalType::I64);
    group.throughput(Throughput::Elements(u64::from(DOCS)));
    group.bench_function(BenchmarkId::new("all", "raw i64"), |b| {
        b.iter(|| {
            by_blocks(|docs| {
                values.clear();
                raw.values(docs, &mut values);
                black_box(&values);
            })
        });
    });
    group.throughput(Throughput::Elements(some.len() as u64));
    group.bench_function(BenchmarkId::new("one of 50", "raw i64"), |b| {
        b.iter(|| {
            for docs in some.chunks(READ_DOCS as usize) {
                values.clear();
                raw.values(DocSelection::Docs(docs), &mut values);
                black_box(&values);
            }
        });
    });
    group.finish();
}

fn bitmaps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bits of a chunk");
    group.throughput(Throughput::Elements(u64::from(CHUNK_DOCS)));
    let (half, tenth) = (bits(0.5), bits(0.1));
    let mut out = half.clone();
    group.bench_function("and", |b| b.iter(|| out.and(black_box(&tenth))));
    group.bench_function("or", |b| b.iter(|| out.or(black_box(&tenth))));
    group.bench_function("and not", |b| b.iter(|| out.and_not(black_box(&tenth))));
    group.bench_function("count", |b| b.iter(|| black_box(&half).count()));
    let mut docs = Vec::new();
    for (name, bits) in [("half", &half), ("a tenth", &tenth)] {
        group.throughput(Throughput::Elements(u64::from(bits.count())));
        group.bench_function(BenchmarkId::new("documents of", name), |b| {
            b.iter(|| {
                docs.clear();
                bits.append_docs(0, &mut docs);
                black_box(&docs);
            });
        });
    }
    group.finish();
}

fn postings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("postings");
    let options = ColumnOptions {
        inverted: true,
        ..ColumnOptions::default()
    };
    for distinct in [2, 25, 1_000, 100_000] {
        let values = numbers(distinct);
        let column = column(&values, &options);
        measure_postings(&mut group, "immutable", distinct, &column);
        let growing = MutableColumn::new(
            PhysicalType::I64,
            false,
            MutableOptions {
                dictionary: true,
                inverted: true,
            },
        );
        let growing = growing.expect("a column of this type");
        let appended = growing.append(&ColumnData::single(&values));
        appended.expect("the values fit");
        measure_postings(&mut group, "consuming", distinct, &*growing.view(DOCS));
    }
    group.finish();
}

fn measure_postings(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    kind: &str,
    distinct: i64,
    column: &dyn ColumnReader,
) {
    let postings = column.inverted().expect("a column with postings");
    let id = 1;
    group.throughput(Throughput::Elements(postings.count(id)));
    let mut out = DocBits::new();
    group.bench_function(
        BenchmarkId::new(kind, format!("one of {distinct} values")),
        |b| {
            b.iter(|| {
                for chunk in 0..DOCS / CHUNK_DOCS {
                    out.clear();
                    postings.fill(black_box(id), chunk, &mut out);
                    black_box(&out);
                }
            });
        },
    );
}

fn other_indexes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("indexes");
    let options = ColumnOptions {
        range: true,
        bloom: true,
        ..ColumnOptions::default()
    };
    let column = column(&numbers(100_000), &options);
    let (low, high) = (Scalar::I64(20_000), Scalar::I64(30_000));
    let mut out = DocBits::new();
    group.throughput(Throughput::Elements(u64::from(DOCS)));
    group.bench_function("range", |b| {
        b.iter(|| {
            for chunk in 0..DOCS / CHUNK_DOCS {
                out.clear();
                let bounds = (Some((&low, true)), Some((&high, true)));
                assert!(column.range_fill(bounds.0, bounds.1, chunk, &mut out));
                black_box(&out);
            }
        });
    });
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("bloom, values that are not there", |b| {
        b.iter(|| {
            (200_000..201_000)
                .filter(|value| column.may_contain(black_box(&Scalar::I64(*value))))
                .count()
        });
    });
    group.finish();
}

fn text_blocks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("text blocks");
    let values = texts(1_000_000);
    let some = scattered(DOCS, 0.001);
    let ValueBuffer::Bytes { data, .. } = &values else {
        return;
    };
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let options = ColumnOptions {
            dictionary: false,
            compression,
            ..ColumnOptions::default()
        };
        let column = column(&values, &options);
        let mut out = ValueBuffer::new(PhysicalType::Bytes);
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(BenchmarkId::new("all", format!("{compression:?}")), |b| {
            b.iter(|| {
                by_blocks(|docs| {
                    out.clear();
                    column.values(docs, &mut out);
                    black_box(&out);
                })
            });
        });
        group.throughput(Throughput::Elements(some.len() as u64));
        group.bench_function(
            BenchmarkId::new("one of 1,000", format!("{compression:?}")),
            |b| {
                b.iter(|| {
                    out.clear();
                    column.values(DocSelection::Docs(black_box(&some)), &mut out);
                    black_box(&out);
                });
            },
        );
    }
    group.finish();
}

fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write a column");
    group.throughput(Throughput::Elements(u64::from(DOCS)));
    group.sample_size(10);
    for (name, values) in [("i64", numbers(100_000)), ("text", texts(100_000))] {
        let options = ColumnOptions {
            inverted: true,
            ..ColumnOptions::default()
        };
        group.bench_function(BenchmarkId::new("immutable", name), |b| {
            b.iter(|| write_column(black_box(&ColumnData::single(&values)), &options));
        });
        let options = MutableOptions {
            dictionary: true,
            inverted: true,
        };
        group.bench_function(BenchmarkId::new("consuming", name), |b| {
            b.iter_batched(
                || MutableColumn::new(values.physical(), false, options).expect("a column"),
                |column| {
                    let appended = column.append(black_box(&ColumnData::single(&values)));
                    appended.expect("the values fit");
                    column
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bit_unpacking(&mut criterion);
    comparing_ids(&mut criterion);
    comparing_values(&mut criterion);
    gathering(&mut criterion);
    bitmaps(&mut criterion);
    postings(&mut criterion);
    other_indexes(&mut criterion);
    text_blocks(&mut criterion);
    writing(&mut criterion);
    criterion.final_summary();
}
